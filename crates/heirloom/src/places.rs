//! Where relative paths of a recipe lead.
//!
//! Data is looked for below `HEIRLOOM_DATA`, models and tokenizers below `HEIRLOOM_MODELS` and then
//! `HEIRLOOM_DATA`; whatever is not there, below the working directory. Absolute paths are taken as
//! they are.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The folders that relative paths are looked for in, first match first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// `HEIRLOOM_DATA`.
    pub data: Option<PathBuf>,
    /// `HEIRLOOM_MODELS`.
    pub models: Option<PathBuf>,
    /// Copies of what lies at addresses: `HEIRLOOM_CACHE`, else `heirloom` in the user's cache folder.
    pub copies: Option<PathBuf>,
}

impl Places {
    /// One folder for data, models and copies.
    pub fn at(folder: &Path) -> Self {
        let here = || Some(folder.to_owned());
        Self { data: here(), models: here(), copies: here() }
    }

    /// Reads the variables.
    pub fn from_environment() -> Self {
        let folder = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let of_user = || {
            let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
            cache.map(|cache| cache.join("heirloom"))
        };
        Self {
            data: folder("HEIRLOOM_DATA"),
            models: folder("HEIRLOOM_MODELS"),
            copies: folder("HEIRLOOM_CACHE").or_else(of_user),
        }
    }

    /// The folder or file that `path` means, for data.
    pub fn data(&self, key: &str, path: &str) -> Result<PathBuf, Failure> {
        Self::find(key, path, &[("HEIRLOOM_DATA", &self.data)])
    }

    /// The folder or file that `path` means, for a model or tokenizer.
    pub fn model(&self, key: &str, path: &str) -> Result<PathBuf, Failure> {
        let places = [("HEIRLOOM_MODELS", &self.models), ("HEIRLOOM_DATA", &self.data)];
        Self::find(key, path, &places)
    }

    fn find(
        key: &str,
        path: &str,
        places: &[(&str, &Option<PathBuf>)],
    ) -> Result<PathBuf, Failure> {
        let mut tried = Vec::new();
        let mut hints = Vec::new();
        if Path::new(path).is_relative() {
            for (name, folder) in places {
                match folder {
                    Some(folder) => tried.push(folder.join(path)),
                    None => hints.push(*name),
                }
            }
        }
        tried.push(PathBuf::from(path));
        if let Some(found) = tried.iter().find(|path| path.exists()) {
            return Ok(found.clone());
        }
        let looked: Vec<String> =
            tried.iter().map(|path| format!("`{}`", path.display())).collect();
        let hint = match hints.as_slice() {
            [] => String::new(),
            [name, ..] => format!(" (the variable {name} is not set)"),
        };
        let nearest = tried.iter().find_map(|path| neighbour(path)).unwrap_or_default();
        Err(Failure::usage(format!(
            "`{key}` is \"{path}\", which is not there; looked at {}{hint}{nearest}",
            looked.join(", ")
        )))
    }
}

/// What else is beside `path`, where a name is like it; to be added to a message.
pub fn neighbour(path: &Path) -> Option<String> {
    let (folder, name) = (path.parent()?, path.file_name()?.to_string_lossy());
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let nearest = heirloom_store::nearest(&name, names.iter().map(String::as_str))?;
    Some(format!("; the nearest name there is `{}`", path.with_file_name(nearest).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_before_the_working_directory() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        let places = Places { data: Some(folder.path().to_owned()), ..Places::default() };
        assert_eq!(places.data("task.path", "src").unwrap(), folder.path().join("src"));
        assert_eq!(Places::default().data("task.path", "src").unwrap(), PathBuf::from("src"));
    }

    #[test]
    fn a_misspelt_folder_has_its_neighbour_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("SST-2")).unwrap();
        let failure = Places::at(folder.path()).data("task.path", "SST2").unwrap_err();
        let nearest = folder.path().join("SST-2");
        let expected = format!("; the nearest name there is `{}`", nearest.display());
        assert!(failure.message.ends_with(&expected), "{failure}");
    }

    #[test]
    fn what_is_nowhere_is_an_error_that_names_every_place() {
        let failure = Places::default().model("student.model", "no-such-model").unwrap_err();
        assert_eq!(failure.code, 2);
        assert_eq!(
            failure.message,
            "`student.model` is \"no-such-model\", which is not there; looked at \
             `no-such-model` (the variable HEIRLOOM_MODELS is not set)"
        );
    }
}
