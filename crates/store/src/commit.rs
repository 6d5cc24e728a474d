//! From a draft, which nobody can read, to a committed folder, which nothing can take back.
//!
//! In: files, and what the caller wants to remember about them.
//! Out: a folder under its final name, whole, or an error and the disk as it was.
//! Never: shows a half-written folder under its final name, deletes anything older to make room,
//! or loses a folder that is being replaced.
//!
//! The law the tests hold: whichever operation fails, and whichever of the unsynced changes a power
//! cut lets through, after [`crate::recover()`] a reader finds the old folder or the new, whole; and
//! the new one where [`Draft::commit`] said `Ok`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use heirloom_base::{Bytes, Digest, Step};

use crate::disk::{Disk, DiskError, Kind, find, parent, remove_tree, sibling};
use crate::error::{Damage, Result, StoreError};
use crate::manifest::{About, FileFacts, MANIFEST, Manifest, step_name, step_of_name};
use crate::nearest::nearest;
use crate::recover::settle;

/// Behind the name of a folder that is being written.
pub(crate) const DRAFT: &str = ".draft";
/// Behind the name of a folder whose successor is about to take its name.
pub(crate) const REPLACED: &str = ".replaced";
/// Behind the name of a folder that is being removed.
pub(crate) const DISCARDED: &str = ".discarded";
/// Behind the name of a single file that is being written: long, because what carries it is
/// removed, and a user's own file must not.
pub(crate) const FILE_DRAFT: &str = ".heirloom-draft";

/// A folder being written. It cannot be read; dropped without a commit, it is removed.
pub struct Draft<'d> {
    disk: &'d dyn Disk,
    target: PathBuf,
    folder: PathBuf,
    /// What the whole folder will need, as far as the caller knows.
    needs: Bytes,
    written: u64,
    files: BTreeMap<String, FileFacts>,
    /// Nothing of the draft is left to remove.
    settled: bool,
}

impl<'d> Draft<'d> {
    /// Begins the folder `target`, whose parent exists. `needs` is about how many bytes it will
    /// hold, for the message where the disk is full.
    ///
    /// Leftovers of an earlier attempt at the same folder are removed.
    pub fn begin(disk: &'d dyn Disk, target: &Path, needs: Bytes) -> Result<Self> {
        settle(disk, target)?;
        let folder = sibling(target, DRAFT);
        let mut draft = Self {
            disk,
            target: target.to_owned(),
            folder,
            needs,
            written: 0,
            files: BTreeMap::new(),
            settled: false,
        };
        match disk.create_dir(&draft.folder) {
            Ok(()) => Ok(draft),
            Err(error) => Err(draft.fail(error.into())),
        }
    }

    /// Begins the checkpoint of `step` in the run folder `root`.
    pub fn of_step(disk: &'d dyn Disk, root: &Path, step: Step, needs: Bytes) -> Result<Self> {
        Self::begin(disk, &root.join(step_name(step)), needs)
    }

    /// Adds a file that holds `bytes`, synced.
    ///
    /// # Panics
    /// Where `name` is not a plain file name, is taken, or is the manifest's.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.put_with(name, |file| file.write(bytes))
    }

    /// Adds a file that `fill` writes piece by piece, synced.
    ///
    /// # Panics
    /// Where `name` is not a plain file name, is taken, or is the manifest's.
    pub fn put_with(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut DraftFile<'_>) -> Result<()>,
    ) -> Result<()> {
        assert!(is_plain(name) && name != MANIFEST, "`{name}` cannot be a file of a draft");
        assert!(!self.files.contains_key(name), "`{name}` was already put");
        let mut file = DraftFile::new(self.disk, self.folder.join(name));
        let filled = fill(&mut file).and_then(|()| file.finish());
        self.written += file.bytes;
        match filled {
            Ok(facts) => {
                self.files.insert(name.to_owned(), facts);
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// The digest of a file that was put.
    pub fn digest(&self, name: &str) -> Option<Digest> {
        self.files.get(name).map(|facts| facts.digest)
    }

    /// Writes the manifest and gives the folder its final name; replaces a folder of that name.
    ///
    /// After `Ok` not even a power cut takes the folder back. Where the last sync fails the error
    /// says so: the folder then has its name, but a power cut might still take it.
    pub fn commit(mut self, about: About) -> Result<Committed> {
        let manifest = Manifest::new(about, std::mem::take(&mut self.files));
        let replaces = match self.seal(&manifest) {
            Ok(replaces) => replaces,
            Err(error) => return Err(self.fail(error.into())),
        };
        self.settled = true;
        self.disk.sync_dir(parent(&self.target))?;
        if replaces {
            // The commit stands; what cannot be removed now, `settle` will find.
            let _ = discard(self.disk, &sibling(&self.target, REPLACED), &self.target);
        }
        Ok(Committed { folder: self.target.clone(), manifest })
    }

    /// All of a commit that can still be undone. Order matters: contents, then the names of the
    /// contents, then the folder's name.
    fn seal(&self, manifest: &Manifest) -> std::result::Result<bool, DiskError> {
        let path = self.folder.join(MANIFEST);
        self.disk.write(&path, &manifest.to_bytes())?;
        self.disk.sync(&path)?;
        self.disk.sync_dir(&self.folder)?;
        if find(self.disk, &self.target)?.is_none() {
            self.disk.rename(&self.folder, &self.target)?;
            return Ok(false);
        }
        let replaced = sibling(&self.target, REPLACED);
        self.disk.rename(&self.target, &replaced)?;
        if let Err(error) = self.disk.rename(&self.folder, &self.target) {
            // Where even this fails, `settle` puts the old folder back.
            let _ = self.disk.rename(&replaced, &self.target);
            return Err(error);
        }
        Ok(true)
    }

    /// Removes the draft, then turns "no room" into the numbers the user needs.
    fn fail(&mut self, error: StoreError) -> StoreError {
        self.remove();
        match error {
            StoreError::Disk(error) => {
                no_room(self.disk, &self.target, Bytes(self.needs.0.max(self.written)), error)
            }
            other => other,
        }
    }

    /// As far as the disk lets us: what stays, [`crate::recover()`] sweeps.
    fn remove(&mut self) {
        let _ = remove_tree(self.disk, &self.folder, Kind::Folder);
        self.settled = true;
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.remove();
        }
    }
}

/// A file of a draft, written from front to back.
pub struct DraftFile<'d> {
    disk: &'d dyn Disk,
    path: PathBuf,
    hasher: blake3::Hasher,
    /// Bytes taken from the caller.
    bytes: u64,
    /// Bytes not yet handed to the disk.
    waiting: Vec<u8>,
    created: bool,
}

/// How many bytes wait before they are written, so that small pieces cost no system call each.
const WAITING: usize = 1 << 20;

impl<'d> DraftFile<'d> {
    fn new(disk: &'d dyn Disk, path: PathBuf) -> Self {
        let hasher = blake3::Hasher::new();
        Self { disk, path, hasher, bytes: 0, waiting: Vec::new(), created: false }
    }

    /// Adds `bytes` at the end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        if self.waiting.len() + bytes.len() <= WAITING {
            self.waiting.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        if bytes.len() <= WAITING {
            self.waiting.extend_from_slice(bytes);
            return Ok(());
        }
        self.hand_over(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() || !self.created {
            self.hand_over(&waiting)?;
        }
        self.waiting = waiting;
        self.waiting.clear();
        Ok(())
    }

    fn hand_over(&mut self, bytes: &[u8]) -> Result<()> {
        if self.created {
            self.disk.append(&self.path, bytes)?;
        } else {
            self.disk.write(&self.path, bytes)?;
            self.created = true;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<FileFacts> {
        self.flush()?;
        self.disk.sync(&self.path)?;
        Ok(FileFacts { bytes: Bytes(self.bytes), digest: digest_of(&self.hasher) })
    }
}

/// A folder that a crash can no longer take back.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    folder: PathBuf,
    manifest: Manifest,
}

impl Committed {
    /// Opens a committed folder, after every byte in it was compared with its manifest.
    pub fn open(disk: &dyn Disk, folder: &Path) -> Result<Self> {
        let manifest = read_manifest(disk, folder)?;
        let mut first = None;
        check_files(disk, folder, &manifest, &mut |file, damage| {
            first = first.take().or(Some(StoreError::Damaged { file, damage }));
        })?;
        match first {
            Some(error) => Err(error),
            None => Ok(Self { folder: folder.to_owned(), manifest }),
        }
    }

    /// Opens the checkpoint of `step` in the run folder `root`.
    pub fn open_step(disk: &dyn Disk, root: &Path, step: Step) -> Result<Self> {
        Self::open(disk, &root.join(step_name(step)))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the folder says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The path of a file that the manifest lists.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        if self.manifest.files.contains_key(name) {
            return Ok(self.folder.join(name));
        }
        let names = self.manifest.files.keys().map(String::as_str);
        Err(StoreError::NoSuchFile {
            folder: self.folder.clone(),
            name: name.to_owned(),
            nearest: nearest(name, names).map(str::to_owned),
        })
    }
}

/// Writes a whole folder from bytes at hand: begin, put each file, commit.
pub fn commit_folder(
    disk: &dyn Disk,
    target: &Path,
    files: &[(&str, &[u8])],
    about: About,
) -> Result<Committed> {
    let needs = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let mut draft = Draft::begin(disk, target, Bytes(needs))?;
    for (name, bytes) in files {
        draft.put(name, bytes)?;
    }
    draft.commit(about)
}

/// Writes or replaces one file: a reader finds the old bytes or the new, whole, at any time.
pub fn write_atomic(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = sibling(path, FILE_DRAFT);
    let write = || -> std::result::Result<(), DiskError> {
        if let Some(leftover) = find(disk, &draft)? {
            remove_tree(disk, &draft, leftover)?;
        }
        disk.write(&draft, bytes)?;
        disk.sync(&draft)?;
        disk.rename(&draft, path)
    };
    if let Err(error) = write() {
        let _ = disk.remove(&draft); // what stays, `recover` sweeps
        return Err(no_room(disk, path, Bytes(bytes.len() as u64), error));
    }
    Ok(disk.sync_dir(parent(path))?)
}

/// Takes a folder's name away, durably, and only then its contents: a crash half-way never leaves
/// a part of it under a name that promises the whole.
pub(crate) fn discard(
    disk: &dyn Disk,
    folder: &Path,
    target: &Path,
) -> std::result::Result<(), DiskError> {
    let discarded = sibling(target, DISCARDED);
    if let Some(leftover) = find(disk, &discarded)? {
        remove_tree(disk, &discarded, leftover)?;
    }
    let kind = find(disk, folder)?.unwrap_or(Kind::Folder);
    disk.rename(folder, &discarded)?;
    disk.sync_dir(parent(&discarded))?;
    remove_tree(disk, &discarded, kind)
}

/// "No room" with its numbers where that is the cause; the error itself otherwise.
pub(crate) fn no_room(disk: &dyn Disk, path: &Path, needs: Bytes, error: DiskError) -> StoreError {
    if !error.is_no_room() {
        return error.into();
    }
    let entries = disk.list(parent(path)).unwrap_or_default();
    StoreError::NoRoom {
        path: path.to_owned(),
        needs,
        free: disk.free(parent(path)).ok(),
        intact: entries.iter().filter_map(|entry| step_of_name(&entry.name)).max(),
    }
}

/// Reads and checks the manifest of a committed folder.
pub(crate) fn read_manifest(disk: &dyn Disk, folder: &Path) -> Result<Manifest> {
    let file = folder.join(MANIFEST);
    match disk.read(&file) {
        Ok(bytes) => Manifest::from_bytes(&bytes, folder)
            .map_err(|damage| StoreError::Damaged { file, damage }),
        Err(error) if error.is_missing() => {
            Err(StoreError::Damaged { file, damage: Damage::Missing })
        }
        Err(error) => Err(error.into()),
    }
}

/// Compares every file with the manifest; `each` hears of those that differ.
pub(crate) fn check_files(
    disk: &dyn Disk,
    folder: &Path,
    manifest: &Manifest,
    each: &mut dyn FnMut(PathBuf, Damage),
) -> Result<()> {
    for (name, want) in &manifest.files {
        let file = folder.join(name);
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        let read = disk.read_pieces(&file, &mut |piece| {
            bytes += piece.len() as u64;
            hasher.update(piece);
        });
        let have = FileFacts { bytes: Bytes(bytes), digest: digest_of(&hasher) };
        match read {
            Ok(()) if have == *want => (),
            Ok(()) if have.bytes != want.bytes => {
                each(file, Damage::WrongSize { have: have.bytes, want: want.bytes });
            }
            Ok(()) => each(file, Damage::WrongDigest { have: have.digest, want: want.digest }),
            Err(error) if error.is_missing() => each(file, Damage::Missing),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn digest_of(hasher: &blake3::Hasher) -> Digest {
    hasher.finalize().to_hex().parse().expect("BLAKE3 prints 64 hexadecimal digits")
}

fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(part)) if part == name)
        && parts.next().is_none()
}
