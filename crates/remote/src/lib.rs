//! Folders at addresses: `s3://bucket/folder`, `gs://…`, `az://…`, and `https://…` to read from.
//!
//! In: an address, and what the environment says of whoever asks (`AWS_…`, `GOOGLE_…`, `AZURE_…`, as the
//! tools of those services read them). Out: an [`Elsewhere`], whose files are fetched and put whole.
//! Never: a name that is given to other bytes; a credential in a message.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use heirloom_base::Bytes;
use heirloom_store::{DiskError, Doing, Elsewhere, Entry, Kind};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreExt, ObjectStoreScheme,
    PutMode, RetryConfig,
};
use tokio::runtime::Runtime;
use url::Url;

/// A file of answers has some tens of megabytes, and may have a slow way to go.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Where a machine in a cloud learns who it is.
const MACHINES_OWN: &str = "http://169.254.169.254/";

const EXPECTED: &str = "expected s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://CONTAINER/FOLDER or https://SERVER/FOLDER";

/// Why an address cannot be used, whatever is there.
#[derive(Debug, thiserror::Error)]
#[error("`{address}` is no address that answers can be at: {why}")]
pub struct BadAddress {
    address: String,
    why: String,
}

/// A folder at an address.
#[derive(Debug)]
pub struct Remote {
    address: String,
    store: Box<dyn ObjectStore>,
    folder: Path,
    /// A web server, which is read from alone and need not list what it has.
    web: bool,
    /// The variable that would say who asks, where it is not set.
    unsaid: Option<&'static str>,
    runtime: Runtime,
}

impl Remote {
    /// Of an address; asks nobody yet.
    ///
    /// # Errors
    /// Where no service has such addresses, or the environment does not say what it must of one.
    pub fn new(address: &str) -> Result<Self, BadAddress> {
        Self::with(address, &[])
    }

    /// With more than the environment says, by the names that it would say it under.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(address: &str, more: &[(&str, String)]) -> Result<Self, BadAddress> {
        let bad = |why: String| BadAddress { address: shown(address), why };
        let url = Url::parse(address).map_err(|error| bad(error.to_string()))?;
        let known = ObjectStoreScheme::parse(&url).ok().filter(|(scheme, _)| {
            !matches!(scheme, ObjectStoreScheme::Local | ObjectStoreScheme::Memory)
        });
        let (scheme, folder) = known.ok_or_else(|| bad(EXPECTED.to_owned()))?;
        // A second call finds the first one's, which is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = store(&url, &scheme, more).map_err(|error| bad(reason(&error)))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| bad(error.to_string()))?;
        let web = scheme == ObjectStoreScheme::Http;
        let said = |name: &&str| {
            std::env::var_os(name).is_some() || more.iter().any(|(said, _)| said == name)
        };
        let who = match scheme {
            ObjectStoreScheme::AmazonS3 => Some("AWS_ACCESS_KEY_ID"),
            ObjectStoreScheme::GoogleCloudStorage => Some("GOOGLE_SERVICE_ACCOUNT"),
            ObjectStoreScheme::MicrosoftAzure => Some("AZURE_STORAGE_ACCOUNT_KEY"),
            _ => None,
        };
        let unsaid = who.filter(|name| !said(name));
        Ok(Self { address: shown(address), store, folder, web, unsaid, runtime })
    }

    fn path(&self, name: &str) -> Path {
        self.folder.clone().join(name)
    }

    fn said(&self, doing: Doing, name: Option<&str>, error: &object_store::Error) -> DiskError {
        let path = name.map_or_else(|| PathBuf::from(&self.address), |name| self.address_of(name));
        let mut reason = reason(error);
        // Where nothing says who asks, the machine's own service is asked for it, which few have.
        if let Some(name) = self.unsaid.filter(|_| reason.contains(MACHINES_OWN)) {
            reason += &format!(
                "; the variable {name} is not set, so the machine was asked who it is, and it has no answer"
            );
        }
        DiskError { doing, path, source: io::Error::other(reason) }
    }
}

/// The service behind an address, with what the environment says of it.
fn store(
    url: &Url,
    scheme: &ObjectStoreScheme,
    more: &[(&str, String)],
) -> Result<Box<dyn ObjectStore>, object_store::Error> {
    // A service that is not reached says so within seconds, not minutes.
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(4), ..BackoffConfig::default() },
        max_retries: 4,
        retry_timeout: TIMEOUT,
    };
    macro_rules! of_service {
        ($builder:ty, $key:ty) => {{
            let builder = <$builder>::from_env().with_url(url.as_str()).with_retry(retry);
            let builder = builder.with_config(
                <$key>::Client(ClientConfigKey::Timeout),
                format!("{}s", TIMEOUT.as_secs()),
            );
            let told = more.iter().try_fold(builder, |builder, (name, value)| {
                Ok::<_, object_store::Error>(
                    builder.with_config(name.to_ascii_lowercase().parse::<$key>()?, value.clone()),
                )
            });
            Box::new(told?.build()?)
        }};
    }
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => of_service!(AmazonS3Builder, AmazonS3ConfigKey),
        ObjectStoreScheme::GoogleCloudStorage => {
            of_service!(GoogleCloudStorageBuilder, GoogleConfigKey)
        }
        ObjectStoreScheme::MicrosoftAzure => of_service!(MicrosoftAzureBuilder, AzureConfigKey),
        _ => {
            let options = ClientOptions::new().with_timeout(TIMEOUT);
            let options = options.with_allow_http(url.scheme() == "http");
            let server = &url[..url::Position::BeforePath];
            let builder = HttpBuilder::new().with_url(server).with_client_options(options);
            Box::new(builder.with_retry(retry).build()?)
        }
    })
}

/// An address without the password that may stand in it.
fn shown(address: &str) -> String {
    let mut text = address.to_owned();
    if let Ok(mut url) = Url::parse(address)
        && url.password().is_some()
        && url.set_password(Some("***")).is_ok()
    {
        text = url.to_string();
    }
    text.trim_end_matches('/').to_owned()
}

/// What went wrong, from the last of its causes: those before it say it in more words.
fn reason(error: &object_store::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    let last = causes.pop().unwrap_or_default();
    match causes.last() {
        Some(before) if !before.contains(&last) => format!("{before}: {last}"),
        Some(before) => before.clone(),
        None => last,
    }
}

impl Elsewhere for Remote {
    fn address(&self) -> &str {
        &self.address
    }

    fn is_read_only(&self) -> bool {
        self.web
    }

    fn list(&self) -> Result<Vec<Entry>, DiskError> {
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&self.folder)));
        let listed = listed.map_err(|error| self.said(Doing::List, None, &error))?;
        let entry = |object: object_store::ObjectMeta| {
            let name = object.location.filename()?.to_owned();
            Some(Entry { name, kind: Kind::File(Bytes(object.size)) })
        };
        let mut entries: Vec<Entry> = listed.objects.into_iter().filter_map(entry).collect();
        entries.sort();
        Ok(entries)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let path = self.path(name);
        let get = async { self.store.get(&path).await?.bytes().await };
        match self.runtime.block_on(get) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.said(Doing::Read, Some(name), &error)),
        }
    }

    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool, DiskError> {
        let path = self.path(name);
        let put = self.store.put_opts(&path, bytes.into(), PutMode::Create.into());
        match self.runtime.block_on(put) {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.said(Doing::Write, Some(name), &error)),
        }
    }
}

#[cfg(test)]
mod tests {

    use heirloom_testkit::Bucket;

    use super::*;

    fn folder(bucket: &Bucket) -> Remote {
        Remote::with("s3://shelf/answers/of-one/", &bucket.environment()).unwrap()
    }

    #[test]
    fn a_name_is_given_once_and_found_by_listing_and_by_asking() {
        let bucket = Bucket::new();
        let folder = folder(&bucket);
        assert_eq!(folder.list().unwrap(), []);
        assert_eq!(folder.get("a").unwrap(), None);
        assert!(folder.put_new("b", b"second".to_vec()).unwrap());
        assert!(folder.put_new("a", b"first".to_vec()).unwrap());
        assert!(!folder.put_new("a", b"another".to_vec()).unwrap());
        assert_eq!(folder.get("a").unwrap().unwrap(), b"first");
        let entry = |name: &str, len| Entry { name: name.to_owned(), kind: Kind::File(Bytes(len)) };
        assert_eq!(folder.list().unwrap(), [entry("a", 5), entry("b", 6)]);
        let paths: Vec<String> = bucket.files().into_keys().collect();
        assert_eq!(paths, ["/shelf/answers/of-one/a", "/shelf/answers/of-one/b"]);
    }

    #[test]
    fn a_web_server_is_read_from() {
        let bucket = Bucket::new();
        bucket.change(|files| drop(files.insert("/kept/cache.json".to_owned(), b"{}".to_vec())));
        let web = Remote::new(&format!("{}/kept", bucket.address())).unwrap();
        assert!(web.is_read_only());
        assert_eq!(web.get("cache.json").unwrap().unwrap(), b"{}");
        assert_eq!(web.get("none").unwrap(), None);
    }

    #[test]
    fn a_refusal_says_what_was_asked_of_which_address() {
        let bucket = Bucket::new();
        bucket.forbid(Some("part"));
        let folder = folder(&bucket);
        let error = folder.get("part-00000.answers").unwrap_err().to_string();
        let start = "cannot read `s3://shelf/answers/of-one/part-00000.answers`: ";
        assert!(error.starts_with(start) && error.contains("AccessDenied"), "{error}");
        let error = folder.put_new("part-00001.answers", Vec::new()).unwrap_err();
        assert_eq!(error.doing, Doing::Write);
    }

    #[test]
    fn addresses_of_other_kinds_are_refused_and_passwords_are_not_shown() {
        let said = |address: &str| Remote::new(address).unwrap_err().to_string();
        insta::assert_snapshot!(said("ftp://somewhere/answers"), @"`ftp://somewhere/answers` is no address that answers can be at: expected s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://CONTAINER/FOLDER or https://SERVER/FOLDER");
        insta::assert_snapshot!(said("memory:///answers"), @"`memory:///answers` is no address that answers can be at: expected s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://CONTAINER/FOLDER or https://SERVER/FOLDER");
        insta::assert_snapshot!(said("s3:///answers"), @"`s3:///answers` is no address that answers can be at: expected s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://CONTAINER/FOLDER or https://SERVER/FOLDER");
        let remote = Remote::new("https://me:secret@server/kept/").unwrap();
        assert_eq!(remote.address(), "https://me:***@server/kept");
        assert_eq!(remote.address_of("a").to_str().unwrap(), "https://me:***@server/kept/a");
    }
}
