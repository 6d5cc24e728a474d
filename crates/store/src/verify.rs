//! A whole run folder, checked: what SQLite calls an integrity check.
//!
//! In: a run folder, or one committed folder.
//! Out: everything that is wrong with it.
//! Never: changes anything, or stops at the first finding.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::commit::{DISCARDED, DRAFT, FILE_DRAFT, REPLACED, check_files, read_manifest};
use crate::disk::{Disk, Entry, Kind};
use crate::error::{Damage, Result, StoreError};
use crate::manifest::{MANIFEST, Manifest, step_of_name};

/// One thing that is wrong; prints as a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A committed file is not what was written.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A crash left this; [`crate::recover()`] sweeps it.
    Leftover {
        /// The folder or file.
        path: PathBuf,
    },
    /// A line of a record is not JSON.
    BadLine {
        /// The record.
        file: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What the reader of JSON said.
        why: String,
    },
    /// The last line of a record has no end; a resume cuts it off.
    TornLine {
        /// The record.
        file: PathBuf,
        /// Its line, from 1.
        line: u64,
    },
    /// The record is shorter than the newest checkpoint knows it.
    RecordShort {
        /// The record.
        file: PathBuf,
        /// Its length.
        have: u64,
        /// The length it had.
        want: u64,
    },
}

impl Finding {
    /// False for what an ordinary crash leaves and the next resume mends.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Leftover { .. } | Self::TornLine { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { file, damage } => write!(f, "`{}` {damage}", file.display()),
            Self::Leftover { path } => {
                write!(f, "`{}` was left by a crash; the next resume sweeps it", path.display())
            }
            Self::BadLine { file, line, why } => {
                write!(f, "`{}:{line}` is not JSON: {why}", file.display())
            }
            Self::TornLine { file, line } => {
                write!(f, "`{}:{line}` has no end; the next resume cuts it off", file.display())
            }
            Self::RecordShort { file, have, want } => write!(
                f,
                "`{}` has {have} bytes, but the newest checkpoint was made when it had {want}",
                file.display()
            ),
        }
    }
}

/// The record of a run.
const RECORD: &str = "run.jsonl";

/// Checks `folder`: every committed folder in it byte for byte, every record line by line. An
/// empty list means that all is well; an error, that the disk could not be read.
pub fn verify(disk: &dyn Disk, folder: &Path) -> Result<Vec<Finding>> {
    let entries = disk.list(folder)?;
    let mut findings = Vec::new();
    if entries.iter().any(|entry| entry.name == MANIFEST) {
        check_folder(disk, folder, &mut findings)?;
        return Ok(findings);
    }
    let (mut newest, mut record) = (None, None);
    for Entry { name, kind } in entries {
        let path = folder.join(&name);
        match kind {
            Kind::File(_) if name.ends_with(FILE_DRAFT) => {
                findings.push(Finding::Leftover { path })
            }
            Kind::File(_) if name.ends_with(".jsonl") => {
                let len = check_record(disk, &path, &mut findings)?;
                if name == RECORD {
                    record = Some((path, len));
                }
            }
            Kind::File(_) => (),
            Kind::Folder if [DRAFT, REPLACED, DISCARDED].iter().any(|end| name.ends_with(end)) => {
                findings.push(Finding::Leftover { path });
            }
            Kind::Folder | Kind::Link => {
                // A step folder promises a manifest; another folder may be the user's own.
                let step = step_of_name(&name);
                let committed = step.is_some() || has_manifest(disk, &path)?;
                if committed && let Some(manifest) = check_folder(disk, &path, &mut findings)? {
                    newest = newest.max(step.map(|step| (step, manifest.record_len)));
                }
            }
        }
    }
    if let (Some((_, want)), Some((file, have))) = (newest, record)
        && have < want
    {
        findings.push(Finding::RecordShort { file, have, want });
    }
    Ok(findings)
}

fn has_manifest(disk: &dyn Disk, folder: &Path) -> Result<bool> {
    match disk.list(folder) {
        Ok(entries) => Ok(entries.iter().any(|entry| entry.name == MANIFEST)),
        // A link to a file, or to nothing.
        Err(error) if error.is_missing() || error.is_not_a_folder() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The manifest, where it can be trusted.
fn check_folder(
    disk: &dyn Disk,
    folder: &Path,
    findings: &mut Vec<Finding>,
) -> Result<Option<Manifest>> {
    match read_manifest(disk, folder) {
        Ok(manifest) => {
            check_files(disk, folder, &manifest, &mut |file, damage| {
                findings.push(Finding::Damaged { file, damage });
            })?;
            Ok(Some(manifest))
        }
        Err(StoreError::Damaged { file, damage }) => {
            findings.push(Finding::Damaged { file, damage });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Checks each line; gives the length in bytes.
fn check_record(disk: &dyn Disk, file: &Path, findings: &mut Vec<Finding>) -> Result<u64> {
    let bytes = disk.read(file)?;
    for (line, text) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let file = file.to_owned();
        if !text.ends_with(b"\n") {
            findings.push(Finding::TornLine { file, line });
        } else if let Err(why) = serde_json::from_slice::<serde::de::IgnoredAny>(text) {
            findings.push(Finding::BadLine { file, line, why: why.to_string() });
        }
    }
    Ok(bytes.len() as u64)
}
