//! A folder that is not on this machine, and a disk that writes to it what it writes here.
//!
//! In: whole files, each once. Out: the same names there as here, but for drafts, which stay here.
//! Never: half a file there, or a name there that is given to other bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use heirloom_base::Bytes;

use crate::disk::{Disk, DiskError, Entry, Kind, name, parent};

/// A folder elsewhere, of files that are never changed: a part of a bucket, a place behind a server.
pub trait Elsewhere: Send + Sync {
    /// As a person writes it: `s3://bucket/answers`.
    fn address(&self) -> &str;
    /// Whether nothing can be put there.
    fn is_read_only(&self) -> bool {
        false
    }
    /// What is there, sorted by name.
    fn list(&self) -> Result<Vec<Entry>, DiskError>;
    /// The bytes of a file; `None` where there is none of that name.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError>;
    /// Puts a file there, whole or not at all. `false` where the name is taken, which it stays.
    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool, DiskError>;

    /// The address of a file.
    fn address_of(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}/{name}", self.address().trim_end_matches('/')))
    }
}

/// A disk one of whose folders is also [elsewhere](Elsewhere): a file that gets its name there first
/// gets it here, and what has a name there has it here too. Folders inside it, and drafts, are this
/// machine's alone.
pub struct Mirror<'d> {
    disk: &'d dyn Disk,
    elsewhere: &'d dyn Elsewhere,
    folder: PathBuf,
}

impl<'d> Mirror<'d> {
    /// Of the folder `folder` of `disk`.
    pub fn new(disk: &'d dyn Disk, elsewhere: &'d dyn Elsewhere, folder: &Path) -> Self {
        Self { disk, elsewhere, folder: folder.to_owned() }
    }

    /// Puts there the files of this folder that are wanted and are not there: nobody's work is lost
    /// where an earlier process ended, or who owns the place removed a file.
    pub fn catch_up(&self, wanted: impl Fn(&str) -> bool) -> Result<u64, DiskError> {
        let there: Vec<String> = self.elsewhere.list()?.into_iter().map(|e| e.name).collect();
        let mut count = 0;
        for Entry { name, kind } in self.disk.list(&self.folder)? {
            let is_file = matches!(kind, Kind::File(_));
            if is_file && wanted(&name) && there.binary_search(&name).is_err() {
                let bytes = self.disk.read(&self.folder.join(&name))?;
                count += u64::from(self.elsewhere.put_new(&name, bytes)?);
            }
        }
        Ok(count)
    }

    fn is_in(&self, path: &Path) -> bool {
        parent(path) == self.folder
    }
}

impl Disk for Mirror<'_> {
    fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.create_dir(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.write(path, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.append(path, bytes)
    }

    fn truncate(&self, path: &Path, len: u64) -> Result<(), DiskError> {
        self.disk.truncate(path, len)
    }

    fn sync(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.sync(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.sync_dir(path)
    }

    /// There before here: after a crash between the two, the file is there, and found. Where another
    /// machine was first the name stays with its file, and what was written here is removed.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        if self.is_in(to) && !self.elsewhere.put_new(&name(to), self.disk.read(from)?)? {
            return self.disk.remove(from);
        }
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove_dir(path)
    }

    /// What is here is read here: a file that has its name is never changed.
    fn read_pieces(&self, path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<(), DiskError> {
        match self.disk.read_pieces(path, each) {
            Err(error) if error.is_missing() && self.is_in(path) => {
                let bytes = self.elsewhere.get(&name(path))?.ok_or(error)?;
                each(&bytes);
                Ok(())
            }
            read => read,
        }
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        let here = self.disk.list(path)?;
        if path != self.folder {
            return Ok(here);
        }
        let both = self.elsewhere.list()?.into_iter().chain(here);
        let both: BTreeMap<String, Kind> = both.map(|entry| (entry.name, entry.kind)).collect();
        Ok(both.into_iter().map(|(name, kind)| Entry { name, kind }).collect())
    }

    fn free(&self, path: &Path) -> Result<Bytes, DiskError> {
        self.disk.free(path)
    }
}
