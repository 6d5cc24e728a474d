//! Files that a picture is drawn into.

use std::path::Path;

use heirloom::failure::Failure;

/// Refuses, before anything is computed, a file that could not be written or would be replaced; `flag`
/// is what asked for it.
pub(crate) fn can_be_new(file: &Path, flag: &str) -> Result<(), Failure> {
    let name = file.display();
    if file.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!(
            "`{name}` exists already, and {flag} replaces nothing; name a new file or remove it"
        )));
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    if file.file_name().is_none() || !(folder.as_os_str().is_empty() || folder.is_dir()) {
        return Err(Failure::usage(format!(
            "`{name}` cannot be written: there is no folder `{}`; make it first",
            folder.display()
        )));
    }
    Ok(())
}
