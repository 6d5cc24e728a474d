//! Answers that are elsewhere, brought here to be read.
//!
//! In: a folder elsewhere, and one here. Out: the files of the first in the second, each whole and
//! compared with its digests before it has its name. Never: a file fetched twice, or files of two
//! folders in one.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use heirloom_store::{Disk, Elsewhere, RealDisk, write_atomic};

use crate::about::{ABOUT, AboutFile};
use crate::error::Error;
use crate::held::{Held, list_name};
use crate::part::{Part, part_name};

/// Files that are fetched at a time: one request waits mostly for the other side.
const AT_ONCE: usize = 4;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Files that are here.
    pub files: u64,
    /// Of how many.
    pub of: u64,
    /// Bytes that came just now.
    pub bytes: u64,
}

/// Whether a name is that of a file of answers that is whole.
pub fn is_part(name: &str) -> bool {
    name.starts_with("part-") && name.ends_with(".answers")
}

/// Brings what the answers at `from` say of themselves into `folder`, which is there: `cache.json` and
/// the lists of rows.
///
/// # Errors
/// Where there are no answers, where the folder is a copy of others, and where disk or network say no.
pub fn fetch_about(disk: &dyn Disk, from: &dyn Elsewhere, folder: &Path) -> Result<Held, Error> {
    let here = match disk.read(&folder.join(ABOUT)) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.is_missing() => None,
        Err(error) => return Err(error.into()),
    };
    let address = PathBuf::from(from.address());
    let stale = |gone| Error::Stale { folder: folder.to_owned(), address: address.clone(), gone };
    match (from.get(ABOUT)?, here) {
        (None, None) => return Err(Error::NotThere { folder: address }),
        (None, Some(_)) => return Err(stale(true)),
        (Some(there), Some(here)) if there != here => return Err(stale(false)),
        (Some(_), Some(_)) => {}
        (Some(there), None) => {
            let whole = AboutFile::from_bytes(&there);
            whole.map_err(|damage| Error::DamagedElsewhere {
                address: from.address_of(ABOUT),
                damage,
            })?;
            write_atomic(disk, &folder.join(ABOUT), &there)?;
        }
    }
    let mut held = Held::open(disk, folder)?;
    while held.about().listed {
        let name = list_name(held.lists());
        let Some(bytes) = from.get(&name)? else { break };
        held.list_of(held.lists(), &bytes).map_err(|damage| Error::DamagedElsewhere {
            address: from.address_of(&name),
            damage,
        })?;
        write_atomic(disk, &folder.join(name), &bytes)?;
        held = Held::open(disk, folder)?;
    }
    Ok(held)
}

/// Brings all answers at `from`, which say [this](fetch_about) of themselves, into `folder`, which is there
/// and which nobody else brings them into.
/// What is here already is not asked for again. `each` hears of every file, and says whether to go on;
/// the result is whether all came.
///
/// # Errors
/// Where files are missing there, where one is not what was written, and where disk or network say no.
pub fn fetch(
    from: &dyn Elsewhere,
    folder: &Path,
    held: &Held,
    each: &mut (dyn FnMut(Fetched) -> bool + Send),
) -> Result<bool, Error> {
    let parts = held.parts();
    let absent: Vec<u64> =
        (0..parts).filter(|&part| !folder.join(part_name(part)).is_file()).collect();
    let (next, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    let progress = Fetched { files: parts - absent.len() as u64, of: parts, bytes: 0 };
    let shared = Mutex::new((progress, each, Vec::<u64>::new()));
    let work = || -> Result<(), Error> {
        while !stopped.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(&part) = absent.get(at) else { break };
            let came = fetch_part(from, folder, held, part);
            if came.is_err() {
                stopped.store(true, Ordering::Relaxed);
            }
            let came = came?;
            let mut shared = shared.lock().expect("no thread panics with it");
            let (progress, each, missing) = &mut *shared;
            match came {
                None => missing.push(part),
                Some(bytes) => {
                    progress.files += 1;
                    progress.bytes += bytes;
                    if !each(*progress) {
                        stopped.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE.min(absent.len())).map(|_| scope.spawn(work)).collect();
        let done = |thread: std::thread::ScopedJoinHandle<'_, Result<(), Error>>| {
            thread.join().expect("a thread that fetches does not panic")
        };
        // All are waited for before the first refusal is handed on.
        threads.into_iter().map(done).collect::<Vec<_>>().into_iter().collect::<Result<(), _>>()
    })?;
    let (progress, _, missing) = shared.into_inner().expect("no thread panicked");
    if let Some(&first) = missing.iter().min() {
        return Err(Error::Unfinished {
            folder: from.address().into(),
            missing: missing.len() as u64,
            parts,
            first: part_name(first),
        });
    }
    Ok(progress.files == parts)
}

/// Brings one file; its bytes, or `None` where it is not there.
fn fetch_part(
    from: &dyn Elsewhere,
    folder: &Path,
    held: &Held,
    part: u64,
) -> Result<Option<u64>, Error> {
    let name = part_name(part);
    let Some(bytes) = from.get(&name)? else { return Ok(None) };
    let (disk, draft) = (RealDisk, folder.join(name.clone() + ".fetched"));
    match disk.remove(&draft) {
        Err(error) if !error.is_missing() => return Err(error.into()),
        _ => disk.write(&draft, &bytes)?,
    }
    let opened = Part::open_file(draft.clone(), held.seal(part), part, held.rows_of(part).len());
    if let Err(error) = opened.and_then(|part| part.check()) {
        disk.remove(&draft)?;
        return Err(match error {
            Error::Damaged { damage, .. } => {
                Error::DamagedElsewhere { address: from.address_of(&name), damage }
            }
            error => error,
        });
    }
    disk.sync(&draft)?;
    disk.rename(&draft, &folder.join(&name))?;
    disk.sync_dir(folder)?;
    Ok(Some(bytes.len() as u64))
}
