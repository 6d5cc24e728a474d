//! What a crash left half-way is finished or undone, and said.
//!
//! In: a run folder.
//! Out: its whole checkpoints, and what had to be swept.
//! Never: removes anything that carries a final name, or a file the store did not write.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use heirloom_base::Step;

use crate::commit::{DISCARDED, DRAFT, FILE_DRAFT, REPLACED, discard};
use crate::disk::{Disk, DiskError, Entry, Kind, find, name, parent, remove_tree, sibling};
use crate::error::Result;
use crate::manifest::step_of_name;

/// A run folder after recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// What was found and swept, for the user to hear about.
    pub swept: Vec<Swept>,
    /// The committed checkpoints, oldest first.
    pub steps: Vec<Step>,
}

/// Something a crash left; prints as the sentence to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// The folder or file that was being worked on, under its final name.
    pub target: PathBuf,
    /// What had been left of it.
    pub leftover: Leftover,
}

/// What a crash can leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// It was being written: the part is removed.
    Unfinished,
    /// It was being replaced and had lost its name: it has it back.
    Nameless,
    /// It was being replaced, and the new one is there: the old one is removed.
    Replaced,
    /// It was being removed: now it is.
    Discarded,
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(&self.target);
        match (self.leftover, step_of_name(&name)) {
            (Leftover::Unfinished, Some(step)) => {
                write!(f, "found an unfinished checkpoint for step {} (crash?); removed it", step.0)
            }
            (Leftover::Unfinished, None) => {
                write!(f, "found an unfinished `{name}` (crash?); removed it")
            }
            (Leftover::Nameless, _) => {
                write!(f, "found `{name}` half replaced (crash?); put the old one back")
            }
            (Leftover::Replaced, _) => {
                write!(f, "found the predecessor of `{name}` (crash?); removed it")
            }
            (Leftover::Discarded, _) => {
                write!(f, "found `{name}` half removed (crash?); removed the rest")
            }
        }
    }
}

/// Sweeps what a crash left in `root` and lists the whole checkpoints.
///
/// Only names are looked at: [`crate::Committed::open`] checks the contents. A crash during the
/// recovery is one more crash: the next recovery goes on.
pub fn recover(disk: &dyn Disk, root: &Path) -> Result<Recovered> {
    let mut swept = Vec::new();
    let mut targets = BTreeSet::new();
    for Entry { name, kind } in disk.list(root)? {
        if kind == Kind::Folder {
            let target = [DRAFT, REPLACED, DISCARDED].iter().find_map(|end| name.strip_suffix(end));
            targets.extend(target.map(|target| root.join(target)));
        } else if let Some(target) = name.strip_suffix(FILE_DRAFT) {
            disk.remove(&root.join(&name))?;
            swept.push(Swept { target: root.join(target), leftover: Leftover::Unfinished });
        }
    }
    for target in targets {
        swept.extend(settle(disk, &target)?);
    }
    let entries = disk.list(root)?;
    let mut steps: Vec<Step> = entries.iter().filter_map(committed_step).collect();
    steps.sort_unstable();
    Ok(Recovered { swept, steps })
}

/// The step whose checkpoint the entry is.
pub(crate) fn committed_step(entry: &Entry) -> Option<Step> {
    step_of_name(&entry.name).filter(|_| !matches!(entry.kind, Kind::File(_)))
}

/// Finishes or undoes what was begun with one folder.
pub(crate) fn settle(disk: &dyn Disk, target: &Path) -> std::result::Result<Vec<Swept>, DiskError> {
    let mut swept = Vec::new();
    let mut say = |leftover| swept.push(Swept { target: target.to_owned(), leftover });
    for (suffix, leftover) in [(DISCARDED, Leftover::Discarded), (DRAFT, Leftover::Unfinished)] {
        let part = sibling(target, suffix);
        if let Some(kind) = find(disk, &part)? {
            remove_tree(disk, &part, kind)?;
            say(leftover);
        }
    }
    let replaced = sibling(target, REPLACED);
    if find(disk, &replaced)?.is_some() {
        if find(disk, target)?.is_some() {
            discard(disk, &replaced, target)?;
            say(Leftover::Replaced);
        } else {
            // It loses its name only while its successor, whole, waits for it; so it is whole too.
            disk.rename(&replaced, target)?;
            disk.sync_dir(parent(target))?;
            say(Leftover::Nameless);
        }
    }
    Ok(swept)
}
