//! The teacher's logits for a data set, so that it answers once and not in every epoch.
//!
//! In: logits `[examples, classes]` and what they were made from. Out: bytes, and back.
//! Never: logits of another teacher, tokenizer or text; never a damaged number.
//!
//! ```text
//! "HEIRLOOM-TEACHER"  16 bytes
//! format              u32, little-endian, as everything here
//! length of header    u32
//! header              JSON: key, shape, rows of a block, digest of each block
//! digest of header    64 hexadecimal digits
//! logits              f32, row by row
//! ```

use heirloom_base::Digest;
use serde::{Deserialize, Serialize};

use crate::error::{Damage, Error};

/// What a cache was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheKey {
    /// Digest of the teacher's weights.
    pub teacher: Digest,
    /// Digest of the tokenizer.
    pub tokenizer: Digest,
    /// Digest of the tokenised text.
    pub text: Digest,
    /// Longest sequence, in tokens.
    pub max_length: usize,
}

/// Logits of a teacher for every example of a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherCache {
    key: CacheKey,
    examples: usize,
    classes: usize,
    logits: Vec<f32>,
}

/// The format that this build reads and writes.
pub const FORMAT: u32 = 1;

impl TeacherCache {
    /// A cache of `logits`, `[examples, classes]`, row by row.
    pub fn new(
        key: CacheKey,
        examples: usize,
        classes: usize,
        logits: Vec<f32>,
    ) -> Result<Self, Error> {
        if classes == 0 || examples.checked_mul(classes) != Some(logits.len()) {
            return Err(Error::DamagedCache(Damage::Shape {
                found: logits.len(),
                examples,
                classes,
            }));
        }
        if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
            let (example, value) = (at / classes, logits[at].to_string());
            return Err(Error::DamagedCache(Damage::NotFinite { example, value }));
        }
        Ok(Self { key, examples, classes, logits })
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The logits of an example, `[classes]`.
    pub fn row(&self, example: usize) -> &[f32] {
        &self.logits[example * self.classes..][..self.classes]
    }

    /// All logits, `[examples, classes]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// What the cache was made from.
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Refuses a cache that was made from something else.
    pub fn check(&self, key: &CacheKey, examples: usize, classes: usize) -> Result<(), Error> {
        let digests = [
            ("teacher", self.key.teacher, key.teacher),
            ("tokenizer", self.key.tokenizer, key.tokenizer),
            ("text", self.key.text, key.text),
        ];
        let numbers = [
            ("max_length", self.key.max_length, key.max_length),
            ("number of examples", self.examples, examples),
            ("number of classes", self.classes, classes),
        ];
        if let Some((what, found, expected)) = numbers.into_iter().find(|(_, a, b)| a != b) {
            let (found, expected) = (found.to_string(), expected.to_string());
            return Err(Error::OtherCache { what, found, expected });
        }
        match digests.into_iter().find(|(_, found, expected)| found != expected) {
            Some((what, found, expected)) => Err(Error::other_cache(what, found, expected)),
            None => Ok(()),
        }
    }

    /// The bytes of a cache file. Equal caches have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let payload: Vec<u8> = self.logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        let header = Header {
            key: self.key.clone(),
            examples: self.examples,
            classes: self.classes,
            block_rows: BLOCK_ROWS,
            blocks: blocks(&payload, self.classes, BLOCK_ROWS).map(Digest::of).collect(),
        };
        let header = serde_json::to_vec(&header).expect("a header has only strings and numbers");
        [
            MAGIC,
            &FORMAT.to_le_bytes(),
            &(header.len() as u32).to_le_bytes(),
            &header,
            Digest::of(&header).to_string().as_bytes(),
            &payload,
        ]
        .concat()
    }

    /// Reads a cache file. Every block is checked, and no memory is taken beyond the file's size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (header, payload) = header(bytes).map_err(Error::DamagedCache)?;
        let Header { key, examples, classes, block_rows, blocks: digests } = header;
        let values = examples.checked_mul(classes).and_then(|values| values.checked_mul(4));
        let found = bytes.len() as u64;
        let before = found - payload.len() as u64;
        if values != Some(payload.len()) {
            let expected = values.map_or(u64::MAX, |values| before + values as u64);
            return Err(Error::DamagedCache(Damage::Length { found, expected }));
        }
        if classes == 0 || block_rows == 0 || digests.len() != examples.div_ceil(block_rows) {
            return Err(Error::DamagedCache(Damage::Header));
        }
        for (block, (bytes, expected)) in
            blocks(payload, classes, block_rows).zip(digests).enumerate()
        {
            let found = Digest::of(bytes);
            if found != expected {
                let first = block * block_rows;
                let end = (first + block_rows).min(examples);
                let (found, expected) = (found.short(), expected.short());
                let damage = Damage::Block { block, first, end, found, expected };
                return Err(Error::DamagedCache(damage));
            }
        }
        let value =
            |four: &[u8]| f32::from_le_bytes(four.try_into().expect("chunks of four bytes"));
        Self::new(key, examples, classes, payload.chunks_exact(4).map(value).collect())
    }
}

const MAGIC: &[u8] = b"HEIRLOOM-TEACHER";

/// Examples under one digest: small enough to say where damage is, large enough that digests are
/// a small part of the file.
const BLOCK_ROWS: usize = 4096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    key: CacheKey,
    examples: usize,
    classes: usize,
    block_rows: usize,
    blocks: Vec<Digest>,
}

fn blocks(payload: &[u8], classes: usize, rows: usize) -> impl Iterator<Item = &[u8]> {
    payload.chunks(classes.saturating_mul(rows).saturating_mul(4).max(1))
}

fn header(bytes: &[u8]) -> Result<(Header, &[u8]), Damage> {
    let found = bytes.len() as u64;
    let cut = |expected: usize| Damage::Length { found, expected: expected as u64 };
    let fixed = MAGIC.len() + 8;
    let rest = bytes.strip_prefix(MAGIC).ok_or(Damage::NotACache)?;
    let (format, rest) = rest.split_first_chunk().ok_or(cut(fixed))?;
    let format = u32::from_le_bytes(*format);
    if format != FORMAT {
        return Err(Damage::Version { found: format, known: FORMAT });
    }
    let (length, rest) = rest.split_first_chunk().ok_or(cut(fixed))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (header, rest) =
        rest.split_at_checked(length).ok_or(cut(fixed + length + DIGEST_DIGITS))?;
    let (digest, payload) =
        rest.split_at_checked(DIGEST_DIGITS).ok_or(cut(fixed + length + DIGEST_DIGITS))?;
    if Digest::of(header).to_string().as_bytes() != digest {
        return Err(Damage::Header);
    }
    let header = serde_json::from_slice(header).map_err(|_| Damage::Header)?;
    Ok((header, payload))
}

/// Hexadecimal digits of a digest.
const DIGEST_DIGITS: usize = 64;
