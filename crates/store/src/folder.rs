//! Folders made durably: one of a run, which is empty, and one that many processes share.

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

/// Makes `folder` and the folders above it, durably, or takes it as it is, also where other processes
/// do the same at this moment.
///
/// # Errors
/// Where something that is no folder is in the way, and where the disk says no.
pub fn shared_folder(disk: &dyn Disk, folder: &Path) -> Result<()> {
    loop {
        match disk.list(folder) {
            Ok(_) => return Ok(()),
            Err(error) if !error.is_missing() => return Err(error.into()),
            Err(_) => {}
        }
        match make(disk, folder) {
            // Another process made one of them between two looks: what is left is made next time.
            Err(error) if error.is_taken() => {}
            made => return Ok(made?),
        }
    }
}

/// Whether a file is what a process that was stopped before its first whole write leaves: its
/// lock, one of other work in it, or a single file half written.
pub fn is_leftover(name: &str) -> bool {
    name == "lock" || name.ends_with(".lock") || name.ends_with(crate::commit::FILE_DRAFT)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn many_make_one_folder_at_once() {
        let place = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let folder = place.path().join(format!("{round}/a/b/c"));
            std::thread::scope(|scope| {
                let all: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| shared_folder(&RealDisk, &folder))).collect();
                all.into_iter().for_each(|one| one.join().unwrap().unwrap());
            });
            assert!(folder.is_dir());
        }
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("a"), "").unwrap();
        let error = shared_folder(&RealDisk, &place.path().join("a/b")).unwrap_err().to_string();
        assert!(error.contains("a/b") && error.contains("Not a directory"), "{error}");
    }
}
