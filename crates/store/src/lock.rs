//! One writer per folder; the lock is a value.
//!
//! In: a folder, and who asks.
//! Out: the lock, at once or after a wait, or who has it.
//! Never: trusts the existence of the lock file. The kernel holds the lock and lets it go when its
//! process ends, however it ends; a file that another host or a killed process left is just a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::disk::{DiskError, Doing};
use crate::error::{Result, StoreError};

/// Who writes to a run folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The process id.
    pub process: u32,
    /// Since when, in the caller's words: the store reads no clock.
    pub since: String,
}

impl Holder {
    /// This process.
    pub fn this_process(since: &str) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host, process: std::process::id(), since: since.to_owned() }
    }
}

/// The right to write to a run folder; given back when dropped.
#[derive(Debug)]
pub struct RunLock {
    /// The file stays when the lock is given back: removing it would let two processes lock two
    /// files of one name.
    file: File,
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that was started meanwhile holds a copy of it
        // until it has become another program. A process that ends gives the lock back in any case.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl RunLock {
    /// Takes the lock of `folder`, or says at once who has it.
    ///
    /// # Errors
    /// Where another has it, where the folder is not there, and where the disk says no.
    pub fn take(folder: &Path, holder: &Holder) -> Result<Self> {
        match Self::by(FlockOperation::NonBlockingLockExclusive, &folder.join("lock"), holder)? {
            Ok(lock) => Ok(lock),
            Err(by) => Err(StoreError::InUse { folder: folder.to_owned(), by }),
        }
    }

    /// Takes the lock that the file `path` stands for, made where it is not there, as soon as nobody has
    /// it: for one piece of work that several processes want done, and that the others find done.
    ///
    /// A process that has the lock already waits for itself, for ever: the file must be of that work
    /// alone.
    ///
    /// # Errors
    /// Where its folder is not there, and where the disk says no.
    pub fn wait(path: &Path, holder: &Holder) -> Result<Self> {
        match Self::by(FlockOperation::LockExclusive, path, holder)? {
            Ok(lock) => Ok(lock),
            Err(by) => Err(StoreError::InUse { folder: path.to_owned(), by }),
        }
    }

    fn by(
        how: FlockOperation,
        path: &Path,
        holder: &Holder,
    ) -> Result<std::result::Result<Self, Option<Holder>>> {
        let said = |source| DiskError { doing: Doing::Lock, path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(said)?;
        loop {
            match flock(&file, how) {
                Ok(()) => {
                    write_holder(&mut file, holder).map_err(said)?;
                    return Ok(Ok(Self { file }));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Err(read_holder(&mut file))),
                // A signal that the program handles, while it waits.
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(said(error.into()).into()),
            }
        }
    }
}

fn write_holder(file: &mut File, holder: &Holder) -> io::Result<()> {
    let mut line = serde_json::to_vec(holder)?;
    line.push(b'\n');
    file.set_len(0)?;
    file.write_all(&line)
}

/// `None` where the holder has the lock and has not yet written who it is.
fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder { host: "a".into(), process: 4711, since: "10:42".into() }
    }

    #[test]
    fn a_second_writer_hears_who_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunLock::take(folder.path(), &holder()).unwrap();
        let error = RunLock::take(folder.path(), &Holder::this_process("10:43")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("is in use by process 4711 on host a since 10:42"), "{text}");
        assert_eq!(error.exit_code(), 2);
        drop(first);
        RunLock::take(folder.path(), &holder()).unwrap();
    }

    #[test]
    fn who_waits_goes_on_when_the_lock_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let done = folder.path().join("done");
        let first = RunLock::take(folder.path(), &holder()).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let _lock = RunLock::wait(&folder.path().join("lock"), &holder()).unwrap();
                done.exists()
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::write(&done, "").unwrap();
            drop(first);
            assert!(second.join().unwrap(), "two had the lock at one time");
        });
    }

    #[test]
    fn what_another_host_left_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = r#"{"host":"elsewhere","process":1,"since":"yesterday, and a long time"}"#;
        std::fs::write(folder.path().join("lock"), foreign).unwrap();
        let _lock = RunLock::take(folder.path(), &holder()).unwrap();
        let now = std::fs::read_to_string(folder.path().join("lock")).unwrap();
        assert_eq!(serde_json::from_str::<Holder>(&now).unwrap(), holder());
    }

    #[test]
    fn a_folder_that_is_not_there_cannot_be_locked() {
        let error = RunLock::take(Path::new("no/such/folder"), &holder()).unwrap_err();
        assert_eq!(error.exit_code(), 4);
    }
}
