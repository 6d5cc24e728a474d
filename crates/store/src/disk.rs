//! The few things the store asks of a file system, so that a test can own the disk.
//!
//! In: paths and bytes.
//! Out: the bytes, or an error that says what was being done to which path.
//! Never: overwrites an existing file, or syncs what nobody asked to sync.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use heirloom_base::Bytes;

/// A file system. [`RealDisk`] is the machine's; tests bring one that fails on request.
pub trait Disk: Send + Sync {
    /// Makes a new, empty folder.
    fn create_dir(&self, path: &Path) -> Result<(), DiskError>;
    /// Makes a new file that holds `bytes`; fails where the name is taken.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError>;
    /// Adds `bytes` at the end of an existing file.
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError>;
    /// Cuts an existing file to its first `len` bytes.
    fn truncate(&self, path: &Path, len: u64) -> Result<(), DiskError>;
    /// Returns when the file's contents would survive a power cut (its name may not: `sync_dir`).
    fn sync(&self, path: &Path) -> Result<(), DiskError>;
    /// Returns when the names in the folder would survive a power cut.
    fn sync_dir(&self, path: &Path) -> Result<(), DiskError>;
    /// Gives a file or folder another name, in one instant; replaces a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<(), DiskError>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> Result<(), DiskError>;
    /// Hands the file's bytes over in pieces, in order.
    fn read_pieces(&self, path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<(), DiskError>;
    /// What the folder holds, sorted by name.
    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError>;
    /// How many bytes may still be written below `path`.
    fn free(&self, path: &Path) -> Result<Bytes, DiskError>;

    /// The file's bytes, all at once.
    fn read(&self, path: &Path) -> Result<Vec<u8>, DiskError> {
        let mut bytes = Vec::new();
        self.read_pieces(path, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without its folder.
    pub name: String,
    /// What carries the name.
    pub kind: Kind,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A file of this length.
    File(Bytes),
    /// A folder.
    Folder,
    /// A symbolic link: reading goes through it, removing removes the link alone.
    Link,
}

/// What the disk refused to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}`: {source}", path.display())]
pub struct DiskError {
    /// What was being done.
    pub doing: Doing,
    /// To which path.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl DiskError {
    /// True where the disk is full, for this user or for all.
    pub fn is_no_room(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// True where the path does not exist.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// True where something of that name is there already.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// True where a folder was expected and something else is there.
    pub fn is_not_a_folder(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotADirectory
    }
}

/// One verb of [`Disk`], as a message says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doing {
    /// [`Disk::create_dir`].
    CreateDir,
    /// [`Disk::write`].
    Write,
    /// [`Disk::append`].
    Append,
    /// [`Disk::truncate`].
    Truncate,
    /// [`Disk::sync`].
    Sync,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::remove_dir`].
    RemoveDir,
    /// [`Disk::read_pieces`].
    Read,
    /// [`Disk::list`].
    List,
    /// [`Disk::free`].
    Free,
    /// Taking the lock of a run folder.
    Lock,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateDir => "create the folder",
            Self::Write => "write",
            Self::Append => "append to",
            Self::Truncate => "truncate",
            Self::Sync => "sync",
            Self::SyncDir => "sync the folder",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::RemoveDir => "remove the folder",
            Self::Read => "read",
            Self::List => "list the folder",
            Self::Free => "ask for the free room in",
            Self::Lock => "lock",
        })
    }
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// How much of a file is read at a time, in bytes: large enough that the system calls do not
/// count, small enough for the processor's cache.
const PIECE: usize = 256 << 10;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        said(Doing::CreateDir, path, fs::create_dir(path))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        let write = || File::create_new(path)?.write_all(bytes);
        said(Doing::Write, path, write())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        let append = || OpenOptions::new().append(true).open(path)?.write_all(bytes);
        said(Doing::Append, path, append())
    }

    fn truncate(&self, path: &Path, len: u64) -> Result<(), DiskError> {
        let truncate = || OpenOptions::new().write(true).open(path)?.set_len(len);
        said(Doing::Truncate, path, truncate())
    }

    fn sync(&self, path: &Path) -> Result<(), DiskError> {
        let sync = || File::open(path)?.sync_all();
        said(Doing::Sync, path, sync())
    }

    fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        let sync = || File::open(path)?.sync_all();
        said(Doing::SyncDir, path, sync())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        said(Doing::Rename, from, fs::rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        said(Doing::Remove, path, fs::remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> Result<(), DiskError> {
        said(Doing::RemoveDir, path, fs::remove_dir(path))
    }

    fn read_pieces(&self, path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<(), DiskError> {
        let mut read = || {
            let mut file = File::open(path)?;
            let mut piece = vec![0; PIECE];
            loop {
                match file.read(&mut piece) {
                    Ok(0) => return Ok(()),
                    Ok(len) => each(&piece[..len]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                    Err(error) => return Err(error),
                }
            }
        };
        said(Doing::Read, path, read())
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        let list = || {
            let mut entries = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let found = entry.metadata()?; // of a link itself, not of what it points at
                let kind = if found.is_dir() {
                    Kind::Folder
                } else if found.is_symlink() {
                    Kind::Link
                } else {
                    Kind::File(Bytes(found.len()))
                };
                entries.push(Entry { name: entry.file_name().to_string_lossy().into(), kind });
            }
            entries.sort();
            Ok(entries)
        };
        said(Doing::List, path, list())
    }

    fn free(&self, path: &Path) -> Result<Bytes, DiskError> {
        let found = rustix::fs::statvfs(path).map_err(io::Error::from);
        said(Doing::Free, path, found.map(|found| Bytes(found.f_bavail * found.f_frsize)))
    }
}

fn said<T>(doing: Doing, path: &Path, outcome: io::Result<T>) -> Result<T, DiskError> {
    outcome.map_err(|source| DiskError { doing, path: path.to_owned(), source })
}

/// The folder that holds `path`; the current one where `path` is a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The last part of `path` as text.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `path` with `suffix` behind its last part: `best` becomes `best.draft`.
pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    parent(path).join(name(path) + suffix)
}

/// What carries the name `path`, if anything does.
pub(crate) fn find(disk: &dyn Disk, path: &Path) -> Result<Option<Kind>, DiskError> {
    let name = name(path);
    let entries = disk.list(parent(path))?;
    Ok(entries.into_iter().find(|entry| entry.name == name).map(|entry| entry.kind))
}

/// Removes a folder and all it holds, or a file, or a link. A crash half-way leaves a part of it.
pub(crate) fn remove_tree(disk: &dyn Disk, path: &Path, kind: Kind) -> Result<(), DiskError> {
    if kind != Kind::Folder {
        return disk.remove(path);
    }
    for entry in disk.list(path)? {
        remove_tree(disk, &path.join(&entry.name), entry.kind)?;
    }
    disk.remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_done_to_which_path() {
        let error = RealDisk.read(Path::new("no/such/file")).unwrap_err();
        insta::assert_snapshot!(error, @"cannot read `no/such/file`: No such file or directory (os error 2)");
        assert!(error.is_missing());
    }

    #[test]
    fn every_verb_of_the_real_disk_does_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        RealDisk.create_dir(&at("a")).unwrap();
        RealDisk.write(&at("a/x"), b"one").unwrap();
        assert!(RealDisk.write(&at("a/x"), b"two").is_err(), "an existing file was overwritten");
        RealDisk.append(&at("a/x"), b"+two").unwrap();
        RealDisk.truncate(&at("a/x"), 5).unwrap();
        RealDisk.sync(&at("a/x")).unwrap();
        RealDisk.sync_dir(&at("a")).unwrap();
        RealDisk.rename(&at("a/x"), &at("a/y")).unwrap();
        assert_eq!(RealDisk.read(&at("a/y")).unwrap(), b"one+t");
        let listed = RealDisk.list(&at("a")).unwrap();
        assert_eq!(listed, [Entry { name: "y".into(), kind: Kind::File(Bytes(5)) }]);
        assert!(RealDisk.free(&at("a")).unwrap() > Bytes(0));
        remove_tree(&RealDisk, &at("a"), Kind::Folder).unwrap();
        assert_eq!(RealDisk.list(folder.path()).unwrap(), []);
    }
}
