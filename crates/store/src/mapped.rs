//! A file as memory that the system fills when it is looked at.
//!
//! In: a path. Out: its bytes. Never: a copy of the whole file, or a write.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::disk::{DiskError, Doing};

/// The bytes of a file; many times larger than memory, where need be.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a file that nobody changes any more: what another program does to it shows, and where
    /// it is cut, looking at what is gone ends the process.
    #[expect(unsafe_code, reason = "the system cannot promise that nobody changes the file")]
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let map = || {
            let file = File::open(path)?;
            // SAFETY: the slice must not change while it is borrowed. Files that this program has
            // given their names are never written again, only replaced by others; who reads them
            // compares digests, and what a change makes of the numbers is no wilder than what any
            // file can hold.
            unsafe { memmap2::Mmap::map(&file) }
        };
        map().map(Self).map_err(|source| DiskError {
            doing: Doing::Read,
            path: path.to_owned(),
            source,
        })
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_file_and_an_empty_file_has_none() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b"abc"] {
            let path = folder.path().join(bytes.len().to_string());
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(&*Mapped::open(&path).unwrap(), bytes);
        }
        assert!(Mapped::open(&folder.path().join("none")).unwrap_err().is_missing());
    }
}
