//! The header of a safetensors file: eight bytes of length, then JSON, then the arrays.
//!
//! In: a file and its length.
//! Out: where each array lies, or the first thing that is wrong.
//! Never: believes a length before it is compared with the file's.
//!
//! The law the tests hold: the arrays, in order of their offsets, cover what follows the header
//! exactly, without a gap or an overlap; whatever this refuses is one variant of [`Malformed`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::Dtype;

/// Longest header read, in bytes; the limit of the format's own reader.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes that hold the header's length.
const PREFIX: u64 = 8;

/// The key of the text beside the arrays.
const METADATA: &str = "__metadata__";

#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: BTreeMap<String, Info>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Where an array lies in the file, and what it holds.
#[derive(Debug)]
pub(super) struct Info {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// The first byte, from the beginning of the file.
    pub(super) begin: u64,
}

impl Info {
    /// Elements; cannot overflow, since as many bytes are in the file.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Why a file is not a safetensors file that can be trusted; reads on from the file's name.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It is a folder or a device.
    #[error("is not a file")]
    NotAFile,
    /// It cannot even hold the length of its header.
    #[error("is too short to hold weights: {len} bytes; fetch it again")]
    TooShort {
        /// The file's length.
        len: u64,
    },
    /// The header is longer than any honest one.
    #[error("announces a header of {len} bytes, more than the {LONGEST_HEADER} allowed")]
    HeaderTooLong {
        /// The length announced.
        len: u64,
    },
    /// The header does not fit into the file.
    #[error(
        "announces a header of {len} bytes, but only {have} follow; \
         it is truncated or no safetensors file, so fetch it again"
    )]
    HeaderPastEnd {
        /// The length announced.
        len: u64,
        /// How many bytes there are.
        have: u64,
    },
    /// The header is not text.
    #[error("has a header that is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// The first wrong byte, from the beginning of the file.
        at: u64,
    },
    /// The header is not JSON, or not of the expected form.
    #[error("has a header that cannot be read: {why}")]
    NotJson {
        /// What the reader of JSON said.
        why: serde_json::Error,
    },
    /// Two arrays have one name.
    #[error("names `{name}` twice")]
    RepeatedName {
        /// The name.
        name: String,
    },
    /// The kind of number is not known here.
    #[error("holds `{name}` as {dtype}, which is not read here; convert it to F32, F16 or BF16")]
    UnknownDtype {
        /// The array.
        name: String,
        /// What the file calls the kind.
        dtype: String,
    },
    /// The number of bytes is too large to count.
    #[error("gives `{name}` the shape {shape:?}, whose size overflows")]
    Overflow {
        /// The array.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// An array ends before it begins.
    #[error("gives `{name}` the bytes {begin}..{end}, which end before they begin")]
    Reversed {
        /// The array.
        name: String,
        /// Its first byte.
        begin: u64,
        /// The byte behind its last.
        end: u64,
    },
    /// An array begins inside the one before.
    #[error(
        "lets `{name}` begin at byte {begin}, inside the array before it, which ends at {free}"
    )]
    Overlap {
        /// The array.
        name: String,
        /// Its first byte.
        begin: u64,
        /// The first byte that is free.
        free: u64,
    },
    /// Bytes before an array belong to nobody.
    #[error("lets `{name}` begin at byte {begin}, but the array before it ends at {free}")]
    Gap {
        /// The array.
        name: String,
        /// Its first byte.
        begin: u64,
        /// The first byte that is free.
        free: u64,
    },
    /// The bytes of an array are not as many as its shape needs.
    #[error("gives `{name}` {have} bytes, but {dtype} of shape {shape:?} takes {want}")]
    WrongSize {
        /// The array.
        name: String,
        /// Its kind.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// How many bytes the offsets give it.
        have: u64,
        /// How many it needs.
        want: u64,
    },
    /// The file ends before its arrays do.
    #[error("is truncated: its arrays take {want} bytes, and {have} are there; fetch it again")]
    Truncated {
        /// How many bytes there are.
        have: u64,
        /// How many the arrays take.
        want: u64,
    },
    /// The file goes on after its last array.
    #[error("has {left} bytes after its last array, which belong to nothing")]
    BytesLeft {
        /// How many.
        left: u64,
    },
}

/// Reads and checks the header. The outer error is the disk's, the inner one the file's.
pub(super) fn read(file: &File, len: u64) -> io::Result<Result<Header, Malformed>> {
    let Some(behind) = len.checked_sub(PREFIX) else {
        return Ok(Err(Malformed::TooShort { len }));
    };
    let mut prefix = [0; PREFIX as usize];
    file.read_exact_at(&mut prefix, 0)?;
    let announced = u64::from_le_bytes(prefix);
    if announced > LONGEST_HEADER {
        return Ok(Err(Malformed::HeaderTooLong { len: announced }));
    }
    if announced > behind {
        return Ok(Err(Malformed::HeaderPastEnd { len: announced, have: behind }));
    }
    let mut text = vec![0; announced as usize];
    file.read_exact_at(&mut text, PREFIX)?;
    Ok(check(&text, behind - announced))
}

/// Checks a header that is followed by `data` bytes.
fn check(text: &[u8], data: u64) -> Result<Header, Malformed> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Malformed::NotUtf8 { at: PREFIX + error.valid_up_to() as u64 })?;
    let start = PREFIX + text.len() as u64;
    let Named { repeated, metadata, mut arrays } =
        serde_json::from_str(text).map_err(|why| Malformed::NotJson { why })?;
    if let Some(name) = repeated {
        return Err(Malformed::RepeatedName { name });
    }
    arrays.sort_by_key(|(_, written)| written.data_offsets);
    let (mut tensors, mut free) = (BTreeMap::new(), 0);
    for (name, Written { dtype, shape, data_offsets: (begin, end) }) in arrays {
        let Some(dtype) = Dtype::named(&dtype) else {
            return Err(Malformed::UnknownDtype { name, dtype });
        };
        let elements = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        let Some(want) = elements.and_then(|elements| elements.checked_mul(dtype.size())) else {
            return Err(Malformed::Overflow { name, shape });
        };
        let want = want as u64;
        if end < begin {
            return Err(Malformed::Reversed { name, begin, end });
        }
        if begin < free {
            return Err(Malformed::Overlap { name, begin, free });
        }
        if begin > free {
            return Err(Malformed::Gap { name, begin, free });
        }
        if end - begin != want {
            return Err(Malformed::WrongSize { name, dtype, shape, have: end - begin, want });
        }
        free = end;
        tensors.insert(name, Info { dtype, shape, begin: start.saturating_add(begin) });
    }
    match data.checked_sub(free) {
        None => Err(Malformed::Truncated { have: data, want: free }),
        Some(0) => Ok(Header { tensors, metadata }),
        Some(left) => Err(Malformed::BytesLeft { left }),
    }
}

/// What the header says of an array; its offsets count from the header's end.
#[derive(Deserialize)]
struct Written {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The header's entries, before anything is believed.
struct Named {
    repeated: Option<String>,
    metadata: BTreeMap<String, String>,
    arrays: Vec<(String, Written)>,
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

/// Reads entry by entry, because a map would let a later one silently replace an earlier.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of arrays")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
        let (mut metadata, mut arrays) = (None, BTreeMap::new());
        let mut repeated = None;
        while let Some(name) = map.next_key::<String>()? {
            let known = if name == METADATA {
                metadata.replace(map.next_value::<Option<_>>()?.unwrap_or_default()).is_some()
            } else {
                arrays.insert(name.clone(), map.next_value::<Written>()?).is_some()
            };
            if known {
                repeated.get_or_insert(name);
            }
        }
        let metadata = metadata.unwrap_or_default();
        Ok(Named { repeated, metadata, arrays: arrays.into_iter().collect() })
    }
}
