//! Append-only records, one JSON value per line; cut back to the checkpoint on resume.
//!
//! In: values, in the order they happened.
//! Out: a file whose every line is whole, whatever happened to the process that wrote it.
//! Never: loses a failed write in silence, or keeps half a line.

use std::path::{Path, PathBuf};

use heirloom_base::Bytes;
use serde::Serialize;

use crate::commit::no_room;
use crate::disk::{Disk, DiskError, parent};
use crate::error::{Result, StoreError};

/// A record that is being written.
pub struct Log<'d> {
    disk: &'d dyn Disk,
    path: PathBuf,
    /// Bytes in whole lines.
    len: u64,
    /// The file may hold part of a line behind `len`.
    torn: bool,
}

impl<'d> Log<'d> {
    /// Begins a new, empty record; fails where the file exists.
    pub fn create(disk: &'d dyn Disk, path: &Path) -> Result<Self> {
        let made = disk.write(path, b"").and_then(|()| disk.sync_dir(parent(path)));
        made.map_err(|error| no_room(disk, path, Bytes(0), error))?;
        Ok(Self { disk, path: path.to_owned(), len: 0, torn: false })
    }

    /// Opens a record to continue it. A torn last line does not count, and goes with the next
    /// write.
    pub fn open(disk: &'d dyn Disk, path: &Path) -> Result<Self> {
        let (mut end, mut whole) = (0, 0);
        disk.read_pieces(path, &mut |piece| {
            if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
                whole = end + at as u64 + 1;
            }
            end += piece.len() as u64;
        })?;
        Ok(Self { disk, path: path.to_owned(), len: whole, torn: end != whole })
    }

    /// Adds one line. Where that fails nothing of it counts, and the next write cuts it off.
    pub fn append(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line =
            serde_json::to_vec(value).expect("a record has text keys, which JSON can hold");
        line.push(b'\n');
        self.write(&line).map_err(|error| self.said(Bytes(line.len() as u64), error))
    }

    /// The length, in bytes: what a checkpoint remembers.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True where there is no line yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts the record back to a length it had before, and syncs.
    pub fn truncate_to(&mut self, len: u64) -> Result<()> {
        if len > self.len {
            let file = self.path.clone();
            return Err(StoreError::RecordShort { file, have: self.len, want: len });
        }
        if len > 0 && self.byte_at(len - 1)? != Some(b'\n') {
            return Err(StoreError::RecordEdited { file: self.path.clone(), at: len });
        }
        self.disk.truncate(&self.path, len)?;
        (self.len, self.torn) = (len, false);
        self.sync()
    }

    /// Returns when every line so far would survive a power cut.
    pub fn sync(&self) -> Result<()> {
        self.disk.sync(&self.path).map_err(|error| self.said(Bytes(0), error))
    }

    fn write(&mut self, line: &[u8]) -> std::result::Result<(), DiskError> {
        if self.torn {
            self.disk.truncate(&self.path, self.len)?;
        }
        self.torn = true;
        self.disk.append(&self.path, line)?;
        (self.len, self.torn) = (self.len + line.len() as u64, false);
        Ok(())
    }

    fn byte_at(&self, want: u64) -> Result<Option<u8>> {
        let (mut end, mut found) = (0, None);
        self.disk.read_pieces(&self.path, &mut |piece| {
            if let Some(byte) = want.checked_sub(end).and_then(|at| piece.get(at as usize)) {
                found = Some(*byte);
            }
            end += piece.len() as u64;
        })?;
        Ok(found)
    }

    fn said(&self, needs: Bytes, error: DiskError) -> StoreError {
        no_room(self.disk, &self.path, needs, error)
    }
}
