//! The folder a run writes to, made or found empty.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskError, parent};
use crate::error::{Result, StoreError};

/// Makes `folder` and the folders above it, durably, or takes it where it is there and empty.
///
/// A lock alone does not count: a process that was stopped before its first write leaves one.
pub fn new_folder(disk: &dyn Disk, folder: &Path) -> Result<()> {
    match disk.list(folder) {
        Ok(entries) => match entries.iter().find(|entry| !is_leftover(&entry.name)) {
            None => Ok(()),
            Some(entry) => {
                let holds = entry.name.clone();
                Err(StoreError::NotEmpty { folder: folder.to_owned(), holds })
            }
        },
        Err(error) if error.is_missing() => Ok(make(disk, folder)?),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file is what a process that was stopped before its first whole write leaves: its
/// lock, or a single file half written.
pub fn is_leftover(name: &str) -> bool {
    name == "lock" || name.ends_with(crate::commit::FILE_DRAFT)
}

/// From the lowest folder that exists down, each name synced before the next.
fn make(disk: &dyn Disk, folder: &Path) -> std::result::Result<(), DiskError> {
    let mut absent: Vec<PathBuf> = vec![folder.to_owned()];
    let mut above = parent(folder);
    while let Err(error) = disk.list(above) {
        if !error.is_missing() {
            return Err(error);
        }
        absent.push(above.to_owned());
        above = parent(above);
    }
    for folder in absent.iter().rev() {
        disk.create_dir(folder)?;
        disk.sync_dir(parent(folder))?;
    }
    Ok(())
}
