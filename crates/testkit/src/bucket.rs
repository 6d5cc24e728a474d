//! A server on this machine that speaks as much of S3 as a folder of files needs, and of HTTP.
//!
//! In: requests from this machine. Out: what was put, listed by prefix, or 404. A name that is taken is
//! kept where the request says `If-None-Match: *`. Never: a signature checked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The server; its threads end with the process.
#[derive(Clone)]
pub struct Bucket {
    at: SocketAddr,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    /// By path, as in `/bucket/folder/name`.
    files: BTreeMap<String, Vec<u8>>,
    /// Method and path of each request, in order.
    asked: Vec<String>,
    /// Paths with this in them are answered 403.
    forbidden: Option<String>,
}

impl Default for Bucket {
    fn default() -> Self {
        Self::new()
    }
}

impl Bucket {
    /// An empty one, at a free port.
    ///
    /// # Panics
    /// Where the machine has none.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("it has one");
        let bucket = Self { at, inside: Arc::default() };
        let inside = Arc::clone(&bucket.inside);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let inside = Arc::clone(&inside);
                std::thread::spawn(move || while serve(&stream, &inside).is_some() {});
            }
        });
        bucket
    }

    /// `http://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("http://{}", self.at)
    }

    /// What the environment must say so that `s3://…` is here.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", self.address()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "nobody".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "nothing".to_owned()),
            ("AWS_REGION", "here".to_owned()),
        ]
    }

    /// What is there, by path.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.lock().files.clone()
    }

    /// Changes what is there.
    pub fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) {
        change(&mut self.lock().files);
    }

    /// Refuses requests whose path contains this from now on; nothing where it is `None`.
    pub fn forbid(&self, part: Option<&str>) {
        self.lock().forbidden = part.map(str::to_owned);
    }

    /// Method and path of every request since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().asked)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().expect("no thread panics with it")
    }
}

/// Answers one request; `None` where the connection ended.
fn serve(mut stream: &TcpStream, inside: &Mutex<Inside>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut only_new) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "if-none-match" => only_new = value.trim() == "*",
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (status, body) = answer(
        &mut inside.lock().expect("no thread panics with it"),
        (&method, path, query),
        body,
        only_new,
    );
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"0\"\r\n\
         Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
        body.len()
    );
    let body = if method == "HEAD" { &[][..] } else { &body };
    stream.write_all(&[head.as_bytes(), body].concat()).ok()
}

fn answer(
    inside: &mut Inside,
    (method, path, query): (&str, &str, &str),
    body: Vec<u8>,
    only_new: bool,
) -> (&'static str, Vec<u8>) {
    inside.asked.push(format!("{method} {path}"));
    if inside.forbidden.as_ref().is_some_and(|part| path.contains(part.as_str())) {
        return ("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>".to_vec());
    }
    let listing = query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
    match (method, listing) {
        ("PUT", _) if only_new && inside.files.contains_key(path) => {
            ("412 Precondition Failed", Vec::new())
        }
        ("PUT", _) => {
            inside.files.insert(path.to_owned(), body);
            ("200 OK", Vec::new())
        }
        (_, Some(prefix)) => ("200 OK", list(inside, path, &prefix.replace("%2F", "/"))),
        _ => match inside.files.get(path) {
            Some(bytes) => ("200 OK", bytes.clone()),
            None => ("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        },
    }
}

/// The second version of S3's listing.
fn list(inside: &Inside, bucket: &str, prefix: &str) -> Vec<u8> {
    let start = format!("{}/", bucket.trim_end_matches('/'));
    let mut text = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    for (path, bytes) in &inside.files {
        let Some(key) = path.strip_prefix(&start).filter(|key| key.starts_with(prefix)) else {
            continue;
        };
        text += &format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <ETag>\"0\"</ETag><Size>{}</Size></Contents>",
            bytes.len()
        );
    }
    (text + "</ListBucketResult>").into_bytes()
}
