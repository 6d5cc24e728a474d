//! Everything that can be wrong with text for language models and with its kept tokens.
//!
//! In: the place and the cause. Out: one message that says what, where, and what to do next.
//! Never: a cause hidden in a string.

use std::path::PathBuf;

use crate::error::{BadRow, alternatives};

/// Why text could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A document is not what the source says documents are.
    #[error("{0}")]
    BadDocument(Box<BadRow>),
    /// A folder without a file that could be text.
    #[error(
        "`{}` holds no text: looked for files ending in .txt, .md, .jsonl, .ndjson, .json, .parquet",
        folder.display()
    )]
    NoFiles {
        /// The folder.
        folder: PathBuf,
    },
    /// Files that hold no document.
    #[error("there is no document in {files}{}", if *empty > 0 {
        format!(": all {empty} are empty")
    } else { String::new() })]
    NoDocuments {
        /// The files, in words.
        files: String,
        /// Empty ones that were met.
        empty: u64,
    },
    /// A marker that could never be a line.
    #[error("the separator {marker:?} is not one line with something in it")]
    Marker {
        /// The marker.
        marker: String,
    },
    /// Messages or fields are asked of a file that has only text.
    #[error(
        "`{}` is plain text, and {shape} are fields; give JSONL, JSON or Parquet", file.display()
    )]
    NoFields {
        /// The file.
        file: PathBuf,
        /// What was asked for.
        shape: &'static str,
    },
    /// A token that is to stand between documents is not one.
    #[error("the tokenizer has no token {token:?}; {}", alternatives(token, known))]
    NoToken {
        /// The token asked for.
        token: String,
        /// The special tokens that there are.
        known: Vec<String>,
    },
    /// A file changed while it was being read.
    #[error("`{}` changed while it was being read; run it again when nobody writes to it", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// Kept tokens made from something else.
    #[error(
        "the tokens in `{}` were made with another {what} ({found}, this run has {expected}); \
         write them again, into a new folder", folder.display()
    )]
    OtherTokens {
        /// The folder.
        folder: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the folder holds.
        found: String,
        /// What the run needs.
        expected: String,
    },
    /// Kept tokens that do not fit together.
    #[error("the tokens in `{}` are damaged: {reason}; delete the folder and write it again", folder.display())]
    DamagedTokens {
        /// The folder.
        folder: PathBuf,
        /// How.
        reason: String,
    },
    /// Kept tokens of a format that this build does not know.
    #[error(
        "the tokens in `{}` have format {found}, this build reads format {known}; write them again",
        folder.display()
    )]
    Format {
        /// The folder.
        folder: PathBuf,
        /// The folder's format.
        found: u32,
        /// The format this build reads and writes.
        known: u32,
    },
    /// A row length that cannot be used.
    #[error(
        "`sequence_length = {length}` cannot be: expected 2 to {}",
        crate::pack::LONGEST_SEQUENCE
    )]
    RowLength {
        /// The length asked for.
        length: usize,
    },
    /// Too few documents to hold some out.
    #[error(
        "documents cannot be held out of {documents}: a document is never on both sides; \
         part the text with a separator, or name a file for validation"
    )]
    TooFewDocuments {
        /// How many there are.
        documents: usize,
    },
    /// A share that is none.
    #[error(
        "a share of {share} documents cannot be held out, expected more than 0 and less than 1"
    )]
    Share {
        /// The share asked for.
        share: f64,
    },
    /// An example that is longer than a row, where that is an error.
    #[error(
        "document {document} has {tokens} tokens, and a row has {length}; raise `sequence_length`, \
         or set `on_long` to \"cut\" or \"drop\""
    )]
    LongDocument {
        /// Its number in the kept tokens, from 0.
        document: u64,
        /// Its length.
        tokens: u64,
        /// The row's length.
        length: usize,
    },
    /// Nothing is left to make rows of.
    #[error("no document is left to make rows of: all {dropped} are longer than a row")]
    NothingLeft {
        /// Documents left out.
        dropped: u64,
    },
}

impl TextError {
    /// The exit code of a command that ends with this error: 2 where the recipe is wrong, 3 where
    /// the data is.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Marker { .. }
            | Self::NoToken { .. }
            | Self::RowLength { .. }
            | Self::TooFewDocuments { .. }
            | Self::Share { .. }
            | Self::LongDocument { .. }
            | Self::NothingLeft { .. } => 2,
            _ => 3,
        }
    }
}
