//! Why answers could not be kept or read.

use std::path::{Path, PathBuf};

use heirloom_store::StoreError;

use crate::ABOUT;

/// Why answers could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder holds no kept answers.
    #[error("`{}` holds no kept answers: it has no {ABOUT}; make them with `heirloom cache`", folder.display())]
    NotThere {
        /// The folder.
        folder: PathBuf,
    },
    /// The answers were made from something else than this run has.
    #[error(
        "the answers in `{}` were kept of another {} ({}, expected {}); name the folder that \
         belongs to this run, or make one with `heirloom cache`",
        folder.display(), difference.what, difference.found, difference.expected
    )]
    Other {
        /// The folder.
        folder: PathBuf,
        /// What differs.
        difference: Difference,
    },
    /// Files are missing.
    #[error(
        "the answers in `{}` are not all there: {missing} of {parts} files are missing, \
         `{first}` first; go on with the `heirloom cache` that began them",
        folder.display()
    )]
    Unfinished {
        /// The folder.
        folder: PathBuf,
        /// Files missing.
        missing: u64,
        /// Files in all.
        parts: u64,
        /// The first missing one.
        first: String,
    },
    /// What was copied here is no longer what is there.
    #[error(
        "`{}` was copied from `{}`, which {}; remove the copy where it is not wanted, and run the \
         command again",
        folder.display(), address.display(),
        if *gone { "holds no answers any more" } else { "holds other answers now" }
    )]
    Stale {
        /// The copy.
        folder: PathBuf,
        /// Where from.
        address: PathBuf,
        /// Whether there are none, or others.
        gone: bool,
    },
    /// What came from elsewhere is not what was written there.
    #[error("`{}` {damage}; remove it there, and go on with the `heirloom cache` that made it", address.display())]
    DamagedElsewhere {
        /// The file.
        address: PathBuf,
        /// How it is damaged.
        damage: Damage,
    },
    /// A list of rows is missing, and a later one is there.
    #[error(
        "the answers in `{}` have lost `{list}`, without which nobody knows what the files answer; put \
         it back, or keep the answers again in another folder",
        folder.display()
    )]
    NoList {
        /// The folder.
        folder: PathBuf,
        /// The list.
        list: String,
    },
    /// Rows that were not answered.
    #[error(
        "the answers in `{}` miss {missing} of {wanted} rows that are asked for, row {row} first; add \
         them with `heirloom cache`",
        folder.display()
    )]
    NotHeld {
        /// The folder.
        folder: PathBuf,
        /// The first of them.
        row: usize,
        /// How many they are.
        missing: usize,
        /// Of how many.
        wanted: usize,
    },
    /// A file that is not what was written.
    #[error("`{}` {damage}; remove it and go on with the `heirloom cache` that made it", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// How it is damaged.
        damage: Damage,
    },
    /// Answers that cannot be made.
    #[error("answers cannot be kept: {why}")]
    Cannot {
        /// Why.
        why: String,
    },
    /// A row that the teacher cannot read.
    #[error("row {row} cannot be answered: {why}")]
    Row {
        /// The row.
        row: usize,
        /// Why.
        why: String,
    },
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<heirloom_store::DiskError> for Error {
    fn from(error: heirloom_store::DiskError) -> Self {
        Self::Store(error.into())
    }
}

impl Error {
    /// The same of a folder by another name: the address of what the folder is a copy of. Files keep their
    /// names here, where they are to be mended.
    pub(crate) fn at(mut self, address: &Path) -> Self {
        match &mut self {
            Self::NotThere { folder }
            | Self::Other { folder, .. }
            | Self::Unfinished { folder, .. }
            | Self::NoList { folder, .. }
            | Self::NotHeld { folder, .. } => *folder = address.to_owned(),
            _ => {}
        }
        self
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Cannot { .. } => 2,
            Self::Store(error) => error.exit_code(),
            _ => 3,
        }
    }
}

/// What differs between the answers and a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub what: &'static str,
    /// What the answers have.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

/// How a file is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// What the folder says of itself is not what was written.
    #[error("was changed")]
    About,
    /// A format that this build does not know.
    #[error("has format {found}, this build reads format {known}")]
    Version {
        /// The file's.
        found: u32,
        /// This build's.
        known: u32,
    },
    /// Not a file of answers, or one whose end is missing.
    #[error("was cut or is no file of answers")]
    Cut,
    /// A file of another folder, or of another place in this one.
    #[error("belongs to another folder or another place in it")]
    Elsewhere,
    /// A list of rows that is not what was written.
    #[error("was changed or cut")]
    List,
    /// What stands at the end of a file and says what is in it.
    #[error("was changed in its list of rows")]
    Index,
    /// A block that does not match its digest.
    #[error("was changed in block {block} (tokens {first}..{end} of the file)")]
    Block {
        /// The block.
        block: usize,
        /// Its first token, in the file.
        first: usize,
        /// One past its last.
        end: usize,
    },
    /// A block that matches its digest and makes no sense all the same: a bug of ours.
    #[error("holds an answer that cannot be read, token {token} of the file")]
    Answer {
        /// The token, in the file.
        token: usize,
    },
}
