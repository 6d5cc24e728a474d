//! Tokens of a corpus, kept on disk and mapped into memory.
//!
//! In: a folder that [`write`](super::write()) made. Out: any token of any document, from any
//! thread, without reading the others.
//! Never: a token whose file was changed: every byte is compared with its digest when the folder
//! is opened. Whoever changes it afterwards changes what is read.
//!
//! ```text
//! tokens.json        what the tokens were made from and how many there are (`About`)
//! shard-0000.bin     ids of its n tokens, u16 or u32, then n marks, u8
//! documents.bin      for each document: one past its last token, u64; its address, u64
//! wide.bin           for each mark without a number of bytes: its token, u64; the bytes, u64
//! manifest.json      sizes and digests of these
//! ```
//!
//! All numbers are little-endian. The upper bit of a mark says that the token is to be foreseen,
//! the others how many bytes of text it stands for, up to 126; 127 refers to `wide.bin`.

use std::fs::File;
use std::path::{Path, PathBuf};

use heirloom_base::{Digest, Hasher, Purpose, uniform, word};
use heirloom_store::{Committed, Disk};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::{Reading, TextError};
use crate::error::{Error, reading};
use crate::tokens::Tokenizer;

/// The format that this build reads and writes.
pub const FORMAT: u32 = 1;

/// What kept tokens say about themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The version of the format.
    pub format: u32,
    /// Digest of the tokenizer.
    pub tokenizer: Digest,
    /// One more than the tokenizer's largest id.
    pub vocabulary: u32,
    /// Bytes of an id: 2 where the vocabulary allows it, else 4.
    pub id_bytes: u32,
    /// Tokens of each shard but the last.
    pub shard_tokens: u64,
    /// How files were read.
    pub reading: Reading,
    /// The files.
    pub sources: Vec<SourceFile>,
    /// How much there is.
    pub counts: Counts,
    /// Of all tokens, their marks and the documents, however they lie in shards.
    pub content: Digest,
}

/// A file that tokens were made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its name, for people.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// How much text there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents with a token of text.
    pub documents: u64,
    /// Documents without, which are left out.
    pub empty: u64,
    /// Tokens, with those before and after documents.
    pub tokens: u64,
    /// Of them, tokens of text.
    pub text_tokens: u64,
    /// Of these, tokens that stand for what the vocabulary does not hold.
    pub unknown: u64,
    /// Tokens that are to be foreseen.
    pub learnt: u64,
    /// Bytes of text.
    pub bytes: u64,
}

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Bytes of text that it stands for.
    pub bytes: u64,
    /// Whether it is to be foreseen.
    pub learnt: bool,
}

/// Tokens of a corpus.
#[derive(Debug)]
pub struct Shards {
    about: About,
    shards: Vec<Mmap>,
    /// One past the last token of each document.
    ends: Vec<u64>,
    /// What each document is, to be on one side of a split whatever stands around it.
    addresses: Vec<u64>,
    /// Tokens of more bytes than a mark holds, in their order.
    wide: Vec<(u64, u64)>,
}

/// Documents of [`Shards`], in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(pub(super) Vec<u32>);

impl Selection {
    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their numbers, ascending.
    pub fn documents(&self) -> &[u32] {
        &self.0
    }
}

impl Shards {
    /// Opens a folder after comparing every byte with what was written.
    ///
    /// # Errors
    /// Where anything is missing, changed, or of another format.
    pub fn open(disk: &dyn Disk, folder: &Path) -> Result<Self, Error> {
        let committed = Committed::open(disk, folder)?;
        let read = |name: &str| -> Result<Vec<u8>, Error> {
            let file = committed.file(name)?;
            std::fs::read(&file).map_err(reading(&file))
        };
        let about = About::from_json(folder, &read(ABOUT)?)?;
        let pairs = pairs(&read(DOCUMENTS)?);
        let (ends, addresses): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
        let wide = self::pairs(&read(WIDE)?);
        let count = about.counts.tokens.div_ceil(about.shard_tokens);
        let shards = (0..count)
            .map(|shard| map(&committed.file(&shard_name(shard))?))
            .collect::<Result<Vec<Mmap>, Error>>()?;
        let shards = Self { about, shards, ends, addresses, wide };
        match shards.misfit() {
            None => Ok(shards),
            Some(reason) => Err(damaged(folder, reason)),
        }
    }

    /// What does not fit together, where anything does not. Digests hold what was written; this
    /// holds what was written to be what this code reads.
    fn misfit(&self) -> Option<String> {
        let Counts { tokens, documents, .. } = self.about.counts;
        if self.ends.len() as u64 != documents || documents > u64::from(u32::MAX) {
            return Some(format!("{} documents where {documents} were counted", self.ends.len()));
        }
        let mut before = 0;
        for &end in &self.ends {
            if end <= before {
                return Some("a document ends before it begins".to_owned());
            }
            before = end;
        }
        if before != tokens {
            return Some(format!("documents end at {before} of {tokens} tokens"));
        }
        let width = u64::from(self.about.id_bytes) + 1;
        for (shard, first) in
            self.shards.iter().zip((0..).step_by(self.about.shard_tokens as usize))
        {
            let expected = (tokens - first).min(self.about.shard_tokens) * width;
            if shard.len() as u64 != expected {
                return Some(format!("a shard has {} bytes, expected {expected}", shard.len()));
            }
        }
        None
    }

    /// What the tokens say about themselves.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.ends.len()
    }

    /// The tokens of a document, as numbers of tokens of the corpus.
    pub fn range(&self, document: u32) -> std::ops::Range<u64> {
        let before = match document {
            0 => 0,
            _ => self.ends[document as usize - 1],
        };
        before..self.ends[document as usize]
    }

    /// Token number `at` of the corpus.
    pub fn token(&self, at: u64) -> Token {
        let per = self.about.shard_tokens;
        let bytes: &[u8] = &self.shards[(at / per) as usize];
        let (at_shard, width) = ((at % per) as usize, self.about.id_bytes as usize);
        let id = &bytes[at_shard * width..][..width];
        let id = match *id {
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("the width of an id is 2 or 4: `from_json` has seen to it"),
        };
        let tokens = bytes.len() / (width + 1);
        let mark = bytes[tokens * width + at_shard];
        let bytes = match mark & !LEARNT {
            IN_WIDE => match self.wide.binary_search_by_key(&at, |&(token, _)| token) {
                Ok(found) => self.wide[found].1,
                Err(_) => u64::from(IN_WIDE),
            },
            bytes => u64::from(bytes),
        };
        Token { id, bytes, learnt: mark & LEARNT != 0 }
    }

    /// All documents.
    pub fn all(&self) -> Selection {
        Selection((0..self.ends.len() as u32).collect())
    }

    /// Documents to train on, and a share of `share` held out.
    ///
    /// A document's random word is that of its text (address: `seed`, digest of the text); those
    /// with the smallest words are held out. So a document stays on its side while others come, go
    /// or change places (but for those at the border, since the share is exact to a document), and
    /// equal documents are on one side.
    ///
    /// # Errors
    /// Where not at least one document would be on each side.
    pub fn split(&self, seed: u64, share: f64) -> Result<(Selection, Selection), Error> {
        if !(share > 0.0 && share < 1.0) {
            return Err(TextError::Share { share }.into());
        }
        let documents = self.ends.len();
        let words: Vec<f64> = self
            .addresses
            .iter()
            .map(|&address| uniform(word(seed, Purpose::Split, 0, address)))
            .collect();
        let mut sorted = words.clone();
        sorted.sort_by(f64::total_cmp);
        let count = ((documents as f64 * share).round() as usize).max(1);
        let limit = sorted[count.min(documents) - 1];
        let (held, kept): (Vec<u32>, Vec<u32>) =
            (0..documents as u32).partition(|&document| words[document as usize] <= limit);
        if kept.is_empty() {
            return Err(TextError::TooFewDocuments { documents }.into());
        }
        Ok((Selection(kept), Selection(held)))
    }

    /// Refuses tokens of another tokenizer.
    pub(super) fn check_tokenizer(
        &self,
        folder: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<(), Error> {
        let (found, expected) = (self.about.tokenizer, tokenizer.digest());
        if found == expected {
            return Ok(());
        }
        Err(other(folder, "tokenizer", found.short(), expected.short()))
    }

    /// Refuses tokens that were read in another way.
    pub(super) fn check_reading(&self, folder: &Path, expected: &Reading) -> Result<(), Error> {
        if self.about.reading == *expected {
            return Ok(());
        }
        let (found, expected) = (options(&self.about.reading), options(expected));
        let keys: Vec<&String> =
            expected.keys().filter(|key| found.get(*key) != expected.get(*key)).collect();
        let said = |of: &serde_json::Map<String, serde_json::Value>| {
            let said: Vec<String> =
                keys.iter().map(|key| format!("{key} = {}", of[key.as_str()])).collect();
            said.join(", ")
        };
        Err(other(folder, "way of reading", said(&found), said(&expected)))
    }

    /// Refuses tokens of other text.
    pub(super) fn check_sources(
        &self,
        folder: &Path,
        expected: &[SourceFile],
    ) -> Result<(), Error> {
        let found = &self.about.sources;
        if found.len() != expected.len() {
            let said = |files: &[SourceFile]| match files.len() {
                1 => "1 file".to_owned(),
                files => format!("{files} files"),
            };
            return Err(other(folder, "text", said(found), said(expected)));
        }
        let same = |(left, right): &(&SourceFile, &SourceFile)| left.digest == right.digest;
        match found.iter().zip(expected).find(|pair| !same(pair)) {
            None => Ok(()),
            Some((found, expected)) => {
                let said = |file: &SourceFile| {
                    format!("{} of {} bytes, {}", file.name, file.bytes, file.digest.short())
                };
                Err(other(folder, "text", said(found), said(expected)))
            }
        }
    }
}

impl About {
    /// What tokens are found again by: what they are made from, and how.
    pub(super) fn key(tokenizer: Digest, reading: &Reading, sources: &[SourceFile]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.part(&FORMAT.to_le_bytes()).part(tokenizer.to_string().as_bytes());
        hasher.part(serde_json::Value::Object(options(reading)).to_string().as_bytes());
        for source in sources {
            hasher.part(source.digest.to_string().as_bytes());
        }
        hasher.digest()
    }

    fn from_json(folder: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let unreadable = |error: serde_json::Error| damaged(folder, format!("{ABOUT}: {error}"));
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(unreadable)?;
        match value["format"].as_u64() {
            Some(format) if format != u64::from(FORMAT) => {
                let (folder, found) = (folder.to_owned(), format as u32);
                return Err(TextError::Format { folder, found, known: FORMAT }.into());
            }
            _ => {}
        }
        let about: Self = serde_json::from_value(value).map_err(unreadable)?;
        let sizes = matches!(about.id_bytes, 2 | 4) && about.shard_tokens > 0;
        if !sizes || about.counts.tokens == 0 {
            return Err(damaged(folder, format!("{ABOUT}: sizes that no writer gives")));
        }
        Ok(about)
    }
}

fn options(reading: &Reading) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(reading) {
        Ok(serde_json::Value::Object(options)) => options,
        _ => unreachable!("a struct with text keys is a JSON object"),
    }
}

fn damaged(folder: &Path, reason: String) -> Error {
    TextError::DamagedTokens { folder: folder.to_owned(), reason }.into()
}

fn other(folder: &Path, what: &'static str, found: String, expected: String) -> Error {
    TextError::OtherTokens { folder: folder.to_owned(), what, found, expected }.into()
}

fn pairs(bytes: &[u8]) -> Vec<(u64, u64)> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    bytes.chunks_exact(16).map(|pair| (number(&pair[..8]), number(&pair[8..]))).collect()
}

#[expect(unsafe_code, reason = "a file is mapped into memory")]
fn map(path: &PathBuf) -> Result<Mmap, Error> {
    let file = File::open(path).map_err(reading(path))?;
    // SAFETY: the file belongs to a committed folder, which this program replaces by name and never
    // writes into, so the mapped bytes stay. Any bytes are valid `u8`, and nothing is indexed by
    // them unchecked. Where another program cuts the file, the system ends the process.
    unsafe { Mmap::map(&file) }.map_err(reading(path))
}

pub(super) fn shard_name(shard: u64) -> String {
    format!("shard-{shard:04}.bin")
}

pub(super) const ABOUT: &str = "tokens.json";
pub(super) const DOCUMENTS: &str = "documents.bin";
pub(super) const WIDE: &str = "wide.bin";

/// The bit of a mark that says that its token is to be foreseen.
pub(super) const LEARNT: u8 = 0x80;
/// In place of a number of bytes: it is in `wide.bin`.
pub(super) const IN_WIDE: u8 = 0x7F;
