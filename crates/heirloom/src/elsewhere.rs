//! Kept answers that lie at an address, as `s3://bucket/folder`: a copy here, made once.
//!
//! In: what a recipe or a command names. Out: a folder here, whole. Never: a copy of one address taken
//! for another's, or a file fetched twice.
//!
//! Copies lie below `HEIRLOOM_CACHE`, else `~/.cache/heirloom`, in a folder of their own per address.

use std::path::{Path, PathBuf};

use heirloom_answers::{self as answers, About, Expected, Fetched, Kept, fetch, fetch_about};
use heirloom_base::Digest;
use heirloom_store::{Elsewhere, Holder, RealDisk, RunLock, shared_folder};

use crate::failure::Failure;
use crate::places::Places;

/// Whether a name is an address, and not a folder's.
pub fn is_address(name: &str) -> bool {
    name.contains("://")
}

/// A folder elsewhere, and the folder here for its copy.
pub struct Copied {
    from: Box<dyn Elsewhere>,
    folder: PathBuf,
}

impl std::fmt::Debug for Copied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Copied").field(&self.from.address()).field(&self.folder).finish()
    }
}

impl Copied {
    /// Of an address; makes the folder here and asks nobody yet.
    ///
    /// # Errors
    /// Where this build knows no addresses or not such, and where no copy can be here.
    pub fn new(address: &str, places: &Places) -> Result<Self, Failure> {
        let from = connect(address)?;
        let Some(copies) = &places.copies else {
            return Err(Failure::usage(format!(
                "`{}` needs a folder for its copy here; set the variable HEIRLOOM_CACHE to one",
                from.address()
            )));
        };
        let folder = copies.join("answers").join(folder_name(from.address()));
        shared_folder(&RealDisk, &folder)?;
        Ok(Self { from, folder })
    }

    /// The folder elsewhere.
    pub fn from(&self) -> &dyn Elsewhere {
        &*self.from
    }

    /// Whether nothing can be put there: a web server.
    pub fn is_read_only(&self) -> bool {
        self.from.is_read_only()
    }

    /// The folder here.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the answers there say of themselves, brought here.
    ///
    /// # Errors
    /// Where there are none, where the copy is of others, and where disk or network say no.
    pub fn about(&self) -> Result<About, answers::Error> {
        let _lock = self.lock()?;
        Ok(fetch_about(&RealDisk, self.from(), &self.folder)?.about().clone())
    }

    /// Brings what is not here yet; whether all came.
    ///
    /// # Errors
    /// As [`about`](Self::about), and where a file there is missing or damaged.
    pub fn bring(
        &self,
        each: &mut (dyn FnMut(Fetched) -> bool + Send),
    ) -> Result<bool, answers::Error> {
        let _lock = self.lock()?;
        let held = fetch_about(&RealDisk, self.from(), &self.folder)?;
        fetch(self.from(), &self.folder, &held, each)
    }

    /// Brings what is not here yet and opens it, where it is as expected: what the answers say of
    /// themselves may end it before more than that is fetched.
    ///
    /// # Errors
    /// As [`bring`](Self::bring), and where the answers are not as expected.
    pub fn open(&self, expected: &Expected) -> Result<Kept, answers::Error> {
        let address = Path::new(self.from.address());
        let _lock = self.lock()?;
        let held = fetch_about(&RealDisk, self.from(), &self.folder)?;
        match Kept::open_copy(&self.folder, address, expected) {
            Err(answers::Error::Unfinished { .. }) => {
                fetch(self.from(), &self.folder, &held, &mut |_| true)?;
                Kept::open_copy(&self.folder, address, expected)
            }
            opened => opened,
        }
    }

    /// One process brings, and those that wait for it find what it brought.
    fn lock(&self) -> Result<RunLock, heirloom_store::StoreError> {
        RunLock::wait(&self.folder.join("fetching.lock"), &Holder::this_process("its start"))
    }
}

/// Kept answers as a recipe names them: a folder, or what is copied from an address.
#[derive(Debug)]
pub enum Named {
    /// A folder here.
    Folder(PathBuf),
    /// One elsewhere.
    Copied(Copied),
}

impl Named {
    /// What `name` means, under `key`.
    pub fn find(key: &str, name: &str, places: &Places) -> Result<Self, Failure> {
        if !is_address(name) {
            return Ok(Self::Folder(places.model(key, name)?));
        }
        Ok(Self::Copied(Copied::new(name, places)?))
    }

    /// What the answers say of themselves.
    pub fn about(&self) -> Result<About, Failure> {
        match self {
            Self::Folder(folder) => Ok(Kept::about_of(&RealDisk, folder)?),
            Self::Copied(copied) => Ok(copied.about()?),
        }
    }

    /// The answers, as expected and whole.
    pub fn open(&self, expected: &Expected) -> Result<Kept, Failure> {
        match self {
            Self::Folder(folder) => Ok(Kept::open(folder, expected)?),
            Self::Copied(copied) => Ok(copied.open(expected)?),
        }
    }
}

/// A name that a person recognises and that no other address has.
fn folder_name(address: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let (_, place) = address.split_once("://").unwrap_or(("", address));
    let tail: String = place.chars().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect();
    let tail: String = tail.chars().map(plain).collect();
    format!("{}-{}", tail.trim_matches(['-', '.']), Digest::of(address.as_bytes()).short())
}

#[cfg(feature = "remote")]
fn connect(address: &str) -> Result<Box<dyn Elsewhere>, Failure> {
    match heirloom_remote::Remote::new(address) {
        Ok(remote) => Ok(Box::new(remote)),
        Err(error) => Err(Failure::usage(error.to_string())),
    }
}

#[cfg(not(feature = "remote"))]
fn connect(address: &str) -> Result<Box<dyn Elsewhere>, Failure> {
    Err(Failure::usage(format!(
        "`{address}` is an address, and this build was made without what reads them; build with \
         `--features remote`, or copy the folder here and name that"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copys_folder_is_recognised_and_no_other_addresss() {
        let name = folder_name("s3://bucket/answers/novels");
        assert!(name.starts_with("bucket-answers-novels-"), "{name}");
        assert_ne!(name, folder_name("gs://bucket/answers/novels"));
        let long = folder_name(&format!("https://server/{}/..", "a/".repeat(100)));
        assert!(long.len() < 80 && !long.contains('/') && !long.contains(".."), "{long}");
    }
}
