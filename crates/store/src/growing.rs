//! A file that grows piece by piece, goes on after a crash, and has its name when it is whole.
//!
//! In: pieces, from front to back. Out: a file under its final name, or what was written of it
//! under a draft's. Never: a part of it under its final name.
//!
//! What a crash leaves of the draft may end anywhere, and a power cut may leave zeros in it. Only
//! who wrote the pieces can tell which are whole: [`Growing::open`] hands over what is there, and
//! [`Growing::cut`] takes the rest away.

use std::path::{Path, PathBuf};

use heirloom_base::Bytes;

use crate::commit::no_room;
use crate::disk::{Disk, DiskError, find, parent};
use crate::error::Result;

/// A file that is being written.
pub struct Growing<'d> {
    disk: &'d dyn Disk,
    draft: PathBuf,
    target: PathBuf,
    /// Bytes that count.
    len: u64,
    /// The file may hold more.
    torn: bool,
}

impl<'d> Growing<'d> {
    /// Goes on with `draft`, which is to become `target`, and gives the bytes that are in it; or
    /// begins it. Both lie in one folder, which exists.
    pub fn open(disk: &'d dyn Disk, draft: &Path, target: &Path) -> Result<(Self, Vec<u8>)> {
        debug_assert_eq!(parent(draft), parent(target), "one folder");
        let bytes = match find(disk, draft)? {
            Some(_) => disk.read(draft)?,
            None => {
                disk.write(draft, b"").map_err(|error| no_room(disk, target, Bytes(0), error))?;
                Vec::new()
            }
        };
        let (draft, target, len) = (draft.to_owned(), target.to_owned(), bytes.len() as u64);
        Ok((Self { disk, draft, target, len, torn: false }, bytes))
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps the first `len` bytes.
    ///
    /// # Panics
    /// Where there are fewer.
    pub fn cut(&mut self, len: u64) -> Result<()> {
        assert!(len <= self.len, "{len} of {} bytes", self.len);
        self.disk.truncate(&self.draft, len)?;
        (self.len, self.torn) = (len, false);
        Ok(())
    }

    /// Adds a piece. Where that fails nothing of it counts, and the next one takes its place.
    pub fn append(&mut self, piece: &[u8]) -> Result<()> {
        let needs = Bytes(self.len + piece.len() as u64);
        self.write(piece).map_err(|error| no_room(self.disk, &self.target, needs, error))
    }

    /// Gives the file its name. After `Ok` not even a power cut takes it back.
    pub fn finish(self) -> Result<()> {
        if self.torn {
            self.disk.truncate(&self.draft, self.len)?;
        }
        self.disk.sync(&self.draft)?;
        self.disk.rename(&self.draft, &self.target)?;
        Ok(self.disk.sync_dir(parent(&self.target))?)
    }

    fn write(&mut self, piece: &[u8]) -> std::result::Result<(), DiskError> {
        if self.torn {
            self.disk.truncate(&self.draft, self.len)?;
        }
        self.torn = true;
        self.disk.append(&self.draft, piece)?;
        (self.len, self.torn) = (self.len + piece.len() as u64, false);
        Ok(())
    }
}
