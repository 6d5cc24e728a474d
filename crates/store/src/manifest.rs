//! What a committed folder holds: `manifest.json`, written last, trusted only when whole.
//!
//! In: sizes and digests of the files, and what the caller wants to remember.
//! Out: the same, or what is wrong with the manifest.
//! Never: accepts a manifest of which a single bit differs from what was written.

use std::collections::BTreeMap;
use std::path::Path;

use heirloom_base::{Bytes, Digest, Step};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Damage;

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

/// The format this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// What the caller says about a folder it commits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// Optimiser steps done.
    pub step: Option<Step>,
    /// The checkpoint this one continues.
    pub parent: Option<Step>,
    /// Length of the record, in bytes, when the folder was made: where a resume cuts it.
    pub record_len: u64,
    /// Anything else: digests of plan, data and tokenizer, the build, scores.
    pub facts: Map<String, Value>,
}

/// What a committed folder says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// Optimiser steps done.
    pub step: Option<Step>,
    /// The checkpoint this one continues.
    pub parent: Option<Step>,
    /// Length of the record, in bytes, when the folder was made.
    pub record_len: u64,
    /// Size and digest of every other file.
    pub files: BTreeMap<String, FileFacts>,
    /// What the caller wanted to remember.
    pub facts: Map<String, Value>,
}

/// What is known about a committed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Its length.
    pub bytes: Bytes,
    /// BLAKE3 of its bytes: what `b3sum` prints.
    pub digest: Digest,
}

/// The name of the folder of a step: `step-000002000`.
pub fn step_name(step: Step) -> String {
    format!("step-{:09}", step.0)
}

/// The step that a folder is called after; `None` where the name is not exactly [`step_name`]'s.
pub fn step_of_name(name: &str) -> Option<Step> {
    let step = Step(name.strip_prefix("step-")?.parse().ok()?);
    (step_name(step) == name).then_some(step)
}

/// The file as it lies on the disk: the manifest, and the digest of its own bytes.
#[derive(Serialize, Deserialize)]
struct Sealed<M> {
    manifest: M,
    digest: Digest,
}

/// All that a reader of any version may rely on.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Manifest {
    pub(crate) fn new(about: About, files: BTreeMap<String, FileFacts>) -> Self {
        let About { step, parent, record_len, facts } = about;
        Self { format: FORMAT, step, parent, record_len, files, facts }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let digest = Digest::of(&json(self));
        json(&Sealed { manifest: self, digest })
    }

    /// Reads a manifest. The digest covers its meaning and the comparison of bytes its form, so
    /// any change is noticed.
    pub(crate) fn from_bytes(bytes: &[u8], folder: &Path) -> Result<Self, Damage> {
        let unreadable =
            |why: serde_json::Error| Damage::ManifestUnreadable { why: why.to_string() };
        let Sealed { manifest: FormatOnly { format }, .. } =
            serde_json::from_slice(bytes).map_err(unreadable)?;
        if format > FORMAT {
            return Err(Damage::NewerFormat { have: format, known: FORMAT });
        }
        let Sealed { manifest, .. } =
            serde_json::from_slice::<Sealed<Self>>(bytes).map_err(unreadable)?;
        if manifest.to_bytes() != bytes {
            return Err(Damage::ManifestEdited);
        }
        match step_of_name(&crate::disk::name(folder)) {
            Some(step) if manifest.step != Some(step) => {
                Err(Damage::WrongStep { manifest: manifest.step })
            }
            _ => Ok(manifest),
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .expect("a manifest has text keys and finite numbers, which JSON can hold");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let facts = serde_json::json!({ "build": "0.1.0", "loss": 0.1, "z": [1e300, -3] });
        let about = About {
            step: Some(Step(2000)),
            parent: Some(Step(1000)),
            record_len: 4711,
            facts: facts.as_object().unwrap().clone(),
        };
        let files = [("weights.safetensors", &b"abc"[..]), ("state.safetensors", b"")].map(
            |(name, bytes)| {
                let digest = Digest::of(bytes);
                (name.to_owned(), FileFacts { bytes: Bytes(bytes.len() as u64), digest })
            },
        );
        Manifest::new(about, files.into())
    }

    #[test]
    fn a_manifest_survives_being_written_and_read() {
        let bytes = manifest().to_bytes();
        let folder = Path::new("runs/x/step-000002000");
        assert_eq!(Manifest::from_bytes(&bytes, folder), Ok(manifest()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = manifest().to_bytes();
        for at in 0..bytes.len() {
            assert!(Manifest::from_bytes(&bytes[..at], Path::new("best")).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let read = Manifest::from_bytes(&flipped, Path::new("best"));
                assert!(read.is_err(), "bit {bit} of byte {at} was flipped");
            }
        }
    }

    #[test]
    fn a_manifest_in_the_wrong_folder_is_noticed() {
        let read = Manifest::from_bytes(&manifest().to_bytes(), Path::new("step-000002500"));
        assert_eq!(read, Err(Damage::WrongStep { manifest: Some(Step(2000)) }));
    }

    #[test]
    fn a_newer_format_is_named_before_its_fields_are_read() {
        let bytes = format!("{{\"manifest\":{{\"format\":2}},\"digest\":\"{}\"}}", Digest::of(b""));
        let read = Manifest::from_bytes(bytes.as_bytes(), Path::new("best"));
        assert_eq!(read, Err(Damage::NewerFormat { have: 2, known: 1 }));
    }

    #[test]
    fn only_exact_names_are_steps() {
        assert_eq!(step_of_name("step-000002000"), Some(Step(2000)));
        assert_eq!(step_of_name(&step_name(Step(12_345_678_901))), Some(Step(12_345_678_901)));
        for name in ["step-2000", "step-000002000.draft", "step-+00002000", "best", "step-"] {
            assert_eq!(step_of_name(name), None, "{name}");
        }
    }
}
