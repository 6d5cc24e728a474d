//! A folder of the system's for temporary things, removed at the end.

use std::path::{Path, PathBuf};

use heirloom::failure::Failure;
use heirloom_store::RealDisk;

/// The folder.
#[derive(Debug)]
pub(crate) struct ThrownAway(PathBuf);

impl ThrownAway {
    /// A new one for `purpose`, a word in its name.
    pub(crate) fn new(purpose: &str) -> Result<Self, Failure> {
        let name = format!("heirloom-{purpose}-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        heirloom_store::new_folder(&RealDisk, &root)?;
        Ok(Self(root))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ThrownAway {
    fn drop(&mut self) {
        // The system clears its temporary folders anyway, and there is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
