//! A disk in memory that fails on request and forgets what nobody synced.
//!
//! In: the store's operations, and which of them shall fail.
//! Out: what a file system would answer, and the disks that a power cut may leave behind.
//! Never: is kinder than a real disk: after a cut only what was synced is certain.
//!
//! A file has the contents that programs see and those that the last sync made durable. A folder
//! has the same two for its names, and between them one change per operation; a power cut may let
//! any of these through.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::{Mutex, MutexGuard};

use heirloom_base::Bytes;
use heirloom_store::{Disk, DiskError, Doing, Entry, Kind};

use crate::crash::Crash;

/// A disk in memory.
#[derive(Default)]
pub struct FaultDisk(Mutex<Platter>);

/// For how long an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// That operation alone.
    Once,
    /// It and all that follow.
    ForGood,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The disk is full: what needs room fails, and a write leaves half of its bytes.
    NoRoom,
    /// The device reports an error: anything fails, and a write leaves half of its bytes.
    Broken,
    /// The device does what it was asked, and reports an error all the same.
    BrokenAfter,
}

/// One planned failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Operations that still succeed.
    pub after: usize,
    /// How the next one fails.
    pub cause: Cause,
    /// For how long.
    pub lasting: Lasting,
}

impl Fault {
    /// Every way to fail after that many operations.
    pub fn all(after: usize) -> Vec<Self> {
        [
            (Cause::NoRoom, Lasting::Once),
            (Cause::NoRoom, Lasting::ForGood),
            (Cause::Broken, Lasting::Once),
            (Cause::Broken, Lasting::ForGood),
            (Cause::BrokenAfter, Lasting::Once),
        ]
        .map(|(cause, lasting)| Self { after, cause, lasting })
        .into()
    }
}

/// Free bytes of a disk that is full; any number other than a real one's, to be seen in messages.
const FREE: Bytes = Bytes(300_000_000);

impl FaultDisk {
    /// An empty disk that works.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans a failure, counted from now; forgets the last plan and its count.
    pub fn fail(&self, fault: Fault) {
        let mut platter = self.platter();
        (platter.fault, platter.fired, platter.done) = (Some(fault), 0, 0);
    }

    /// Works from now on.
    pub fn mend(&self) {
        self.platter().fault = None;
    }

    /// How many operations the plan made fail: a test whose fault never fired proves nothing.
    pub fn fired(&self) -> usize {
        self.platter().fired
    }

    /// From now on the `nth` call of a verb, from 0, answers `Ok` and does nothing.
    pub fn forget(&self, verb: Doing, nth: usize) {
        let mut platter = self.platter();
        platter.calls.clear();
        platter.forget = Some((verb, nth));
    }

    /// How often a verb was called since the last [`FaultDisk::forget`], or ever.
    pub fn calls(&self, verb: Doing) -> usize {
        self.platter().calls.get(&verb).copied().unwrap_or(0)
    }

    /// Changes a file behind the store's back, durably.
    ///
    /// # Panics
    /// Where there is no such file.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut platter = self.platter();
        match platter.find(path).map(|at| &mut platter.nodes[at]) {
            Ok(Node::File { seen, durable }) => {
                change(seen);
                durable.clone_from(seen);
            }
            _ => panic!("no file `{}` to damage", path.display()),
        }
    }

    /// The working disk that a power cut now leaves.
    pub fn after(&self, crash: Crash) -> Self {
        let platter = self.platter();
        let mut nodes = vec![Node::default()];
        platter.survive(crash, 0, 0, 0, &mut nodes);
        Self(Mutex::new(Platter { nodes, ..Platter::default() }))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("an operation on the disk does not panic")
    }

    fn operate<T>(
        &self,
        doing: Doing,
        path: &Path,
        run: impl FnOnce(&mut Platter, How) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        let platter = &mut *self.platter();
        let outcome = match platter.decide(doing) {
            Decision::Do => run(platter, How::Whole),
            Decision::Forget => run(platter, How::Not),
            Decision::Fail(Cause::NoRoom) => {
                let _ = run(platter, How::Half);
                Err(io::ErrorKind::StorageFull.into())
            }
            Decision::Fail(Cause::Broken) => {
                let _ = run(platter, How::Half);
                Err(io::Error::other("injected"))
            }
            Decision::Fail(Cause::BrokenAfter) => {
                let _ = run(platter, How::Whole);
                Err(io::Error::other("injected, too late"))
            }
        };
        outcome.map_err(|source| DiskError { doing, path: path.to_owned(), source })
    }
}

/// How much of an operation happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Whole,
    /// Half the bytes of a write; nothing of anything else.
    Half,
    Not,
}

enum Decision {
    Do,
    Forget,
    Fail(Cause),
}

struct Platter {
    /// The root is number 0; numbers are never used again.
    nodes: Vec<Node>,
    fault: Option<Fault>,
    fired: usize,
    /// Operations since the fault was planned.
    done: usize,
    forget: Option<(Doing, usize)>,
    calls: BTreeMap<Doing, usize>,
}

impl Default for Platter {
    fn default() -> Self {
        let (calls, nodes) = (BTreeMap::new(), vec![Node::default()]);
        Self { nodes, fault: None, fired: 0, done: 0, forget: None, calls }
    }
}

enum Node {
    File { seen: Vec<u8>, durable: Vec<u8> },
    Folder { seen: Listing, durable: Listing, pending: Vec<Change> },
}

type Listing = BTreeMap<String, usize>;

/// What one operation does to a folder: every name gets the node beside it, or loses its own.
type Change = Vec<(String, Option<usize>)>;

impl Default for Node {
    fn default() -> Self {
        Self::Folder { seen: Listing::new(), durable: Listing::new(), pending: Vec::new() }
    }
}

fn apply(listing: &mut Listing, change: &Change) {
    for (name, node) in change {
        match node {
            Some(node) => listing.insert(name.clone(), *node),
            None => listing.remove(name),
        };
    }
}

fn error<T>(kind: io::ErrorKind) -> io::Result<T> {
    Err(kind.into())
}

impl Platter {
    fn decide(&mut self, doing: Doing) -> Decision {
        let calls = self.calls.entry(doing).or_default();
        let nth = *calls;
        *calls += 1;
        let done = self.done;
        self.done += 1;
        if let Some(Fault { after, cause, lasting }) = self.fault {
            let needs_room = matches!(doing, Doing::CreateDir | Doing::Write | Doing::Append);
            let due = done >= after && (lasting == Lasting::ForGood || self.fired == 0);
            if due && (needs_room || cause != Cause::NoRoom) {
                self.fired += 1;
                return Decision::Fail(cause);
            }
        }
        if self.forget == Some((doing, nth)) { Decision::Forget } else { Decision::Do }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        path.components().filter(|part| matches!(part, Component::Normal(_))).try_fold(
            0,
            |at, part| match &self.nodes[at] {
                Node::File { .. } => error(io::ErrorKind::NotADirectory),
                Node::Folder { seen, .. } => match seen.get(&*part.as_os_str().to_string_lossy()) {
                    Some(at) => Ok(*at),
                    None => error(io::ErrorKind::NotFound),
                },
            },
        )
    }

    fn file(&mut self, path: &Path) -> io::Result<(&mut Vec<u8>, &mut Vec<u8>)> {
        let at = self.find(path)?;
        match &mut self.nodes[at] {
            Node::File { seen, durable } => Ok((seen, durable)),
            Node::Folder { .. } => error(io::ErrorKind::IsADirectory),
        }
    }

    fn listing(&self, at: usize) -> io::Result<&Listing> {
        match &self.nodes[at] {
            Node::Folder { seen, .. } => Ok(seen),
            Node::File { .. } => error(io::ErrorKind::NotADirectory),
        }
    }

    /// Gives a new node a name that nobody has.
    fn add(&mut self, path: &Path, node: Node) -> io::Result<()> {
        match self.find(path) {
            Ok(_) => return error(io::ErrorKind::AlreadyExists),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => (),
            Err(other) => return Err(other),
        }
        let at = self.nodes.len();
        self.nodes.push(node);
        self.change(path, vec![(name(path), Some(at))])
    }

    fn change(&mut self, path: &Path, change: Change) -> io::Result<()> {
        let at = self.find(path.parent().unwrap_or(path))?;
        match &mut self.nodes[at] {
            Node::Folder { seen, pending, .. } => {
                apply(seen, &change);
                pending.push(change);
                Ok(())
            }
            Node::File { .. } => error(io::ErrorKind::NotADirectory),
        }
    }

    /// Copies into `nodes[to]` what of node `from` outlives the crash.
    fn survive(&self, crash: Crash, from: usize, depth: usize, to: usize, nodes: &mut Vec<Node>) {
        nodes[to] = match &self.nodes[from] {
            Node::File { seen, durable } => {
                let bytes = crash.contents.of(seen, durable);
                Node::File { seen: bytes.clone(), durable: bytes }
            }
            Node::Folder { durable, pending, .. } => {
                let mut listing = durable.clone();
                let count = pending.len();
                for (nth, change) in pending.iter().enumerate() {
                    if crash.names.arrives(nth, count, depth) {
                        apply(&mut listing, change);
                    }
                }
                for node in listing.values_mut() {
                    let at = nodes.len();
                    nodes.push(Node::default());
                    self.survive(crash, *node, depth + 1, at, nodes);
                    *node = at;
                }
                Node::Folder { seen: listing.clone(), durable: listing, pending: Vec::new() }
            }
        };
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Disk for FaultDisk {
    fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.operate(Doing::CreateDir, path, |platter, how| match how {
            How::Whole => platter.add(path, Node::default()),
            How::Half | How::Not => Ok(()),
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.operate(Doing::Write, path, |platter, how| {
            let seen = match how {
                How::Whole => bytes,
                How::Half => &bytes[..bytes.len() / 2],
                How::Not => return Ok(()),
            };
            platter.add(path, Node::File { seen: seen.to_vec(), durable: Vec::new() })
        })
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.operate(Doing::Append, path, |platter, how| {
            let (seen, _) = platter.file(path)?;
            match how {
                How::Whole => seen.extend_from_slice(bytes),
                How::Half => seen.extend_from_slice(&bytes[..bytes.len() / 2]),
                How::Not => (),
            }
            Ok(())
        })
    }

    fn truncate(&self, path: &Path, len: u64) -> Result<(), DiskError> {
        self.operate(Doing::Truncate, path, |platter, how| {
            let (seen, _) = platter.file(path)?;
            if how == How::Whole {
                seen.resize(len as usize, 0);
            }
            Ok(())
        })
    }

    fn sync(&self, path: &Path) -> Result<(), DiskError> {
        self.operate(Doing::Sync, path, |platter, how| {
            let (seen, durable) = platter.file(path)?;
            if how == How::Whole {
                durable.clone_from(seen);
            }
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.operate(Doing::SyncDir, path, |platter, how| {
            let at = platter.find(path)?;
            match &mut platter.nodes[at] {
                Node::Folder { seen, durable, pending } if how == How::Whole => {
                    durable.clone_from(seen);
                    pending.clear();
                    Ok(())
                }
                Node::Folder { .. } => Ok(()),
                Node::File { .. } => error(io::ErrorKind::NotADirectory),
            }
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        assert_eq!(from.parent(), to.parent(), "the store renames within one folder");
        self.operate(Doing::Rename, from, |platter, how| {
            let node = platter.find(from)?;
            if let Ok(taken) = platter.find(to)
                && matches!(&platter.nodes[taken], Node::Folder { seen, .. } if !seen.is_empty())
            {
                return error(io::ErrorKind::DirectoryNotEmpty);
            }
            match how {
                How::Whole => {
                    platter.change(from, vec![(name(from), None), (name(to), Some(node))])
                }
                How::Half | How::Not => Ok(()),
            }
        })
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.operate(Doing::Remove, path, |platter, how| {
            platter.file(path)?;
            match how {
                How::Whole => platter.change(path, vec![(name(path), None)]),
                How::Half | How::Not => Ok(()),
            }
        })
    }

    fn remove_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.operate(Doing::RemoveDir, path, |platter, how| {
            let at = platter.find(path)?;
            if !platter.listing(at)?.is_empty() {
                return error(io::ErrorKind::DirectoryNotEmpty);
            }
            match how {
                How::Whole => platter.change(path, vec![(name(path), None)]),
                How::Half | How::Not => Ok(()),
            }
        })
    }

    fn read_pieces(&self, path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<(), DiskError> {
        let bytes =
            self.operate(Doing::Read, path, |platter, _| Ok(platter.file(path)?.0.clone()))?;
        // Small pieces, so that a reader that looks at one alone is found out.
        bytes.chunks(7).for_each(each);
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        self.operate(Doing::List, path, |platter, _| {
            let listing = platter.listing(platter.find(path)?)?;
            let kind = |node: &usize| match &platter.nodes[*node] {
                Node::File { seen, .. } => Kind::File(Bytes(seen.len() as u64)),
                Node::Folder { .. } => Kind::Folder,
            };
            let entries = listing.iter();
            Ok(entries.map(|(name, node)| Entry { name: name.clone(), kind: kind(node) }).collect())
        })
    }

    fn free(&self, path: &Path) -> Result<Bytes, DiskError> {
        self.operate(Doing::Free, path, |_, _| Ok(FREE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::{Contents, Names};

    fn file() -> &'static Path {
        Path::new("file")
    }

    #[test]
    fn a_fault_fires_where_it_was_planned_and_counts_itself() {
        for (lasting, fired, then) in [(Lasting::Once, 1, true), (Lasting::ForGood, 2, false)] {
            let disk = FaultDisk::new();
            disk.write(file(), b"12345678").unwrap();
            disk.fail(Fault { after: 1, cause: Cause::NoRoom, lasting });
            disk.sync(file()).unwrap();
            assert!(disk.append(file(), b"abcd").unwrap_err().is_no_room());
            assert_eq!(disk.read(file()).unwrap(), b"12345678ab", "half of the bytes arrived");
            assert_eq!(disk.append(file(), b"").is_ok(), then);
            assert_eq!(disk.fired(), fired);
        }
    }

    #[test]
    fn a_disk_that_is_broken_for_good_cannot_be_read_until_it_is_mended() {
        let disk = FaultDisk::new();
        disk.write(file(), b"1").unwrap();
        disk.fail(Fault { after: 0, cause: Cause::Broken, lasting: Lasting::ForGood });
        assert!(disk.read(file()).is_err() && disk.remove(file()).is_err());
        disk.mend();
        assert_eq!(disk.read(file()).unwrap(), b"1");
    }

    #[track_caller]
    fn check(names: Names, contents: Contents, want: Option<&[u8]>) {
        let disk = FaultDisk::new();
        disk.write(file(), b"12").unwrap();
        disk.sync(file()).unwrap();
        disk.sync_dir(Path::new(".")).unwrap();
        disk.append(file(), b"34").unwrap();
        disk.rename(file(), Path::new("other")).unwrap();
        let left = disk.after(Crash { names, contents });
        assert_eq!(left.read(Path::new("other")).ok().as_deref(), want);
        assert_eq!(left.read(file()).is_ok(), want.is_none(), "a rename is whole or not at all");
    }

    #[test]
    fn a_power_cut_takes_what_nobody_synced() {
        check(Names::Lost, Contents::Arrived, None);
        check(Names::Arrived, Contents::Lost, Some(b"12"));
        check(Names::Arrived, Contents::Torn, Some(b"123"));
        check(Names::Arrived, Contents::Zeros, Some(b"12\0\0"));
        check(Names::Last(1), Contents::Arrived, Some(b"1234"));
        check(Names::First(0), Contents::Arrived, None);
    }
}
