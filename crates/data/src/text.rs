//! What a language model reads: rows of tokens, and which of them it is to foresee.
//!
//! ```text
//! files ─▶ Corpus ─▶ Shards ─▶ Selection ─▶ PackedRows
//!          documents  kept tokens  split      rows
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use heirloom_data::text::{Corpus, Pack, PackedRows, Reading, Rows, find_or_write};
//! # use heirloom_data::{synthetic, tokens::Tokenizer};
//! # let folder = tempfile::tempdir().unwrap();
//! # let file = folder.path().join("a.txt");
//! # std::fs::write(&file, "one text").unwrap();
//! # let (files, kept) = ([file], folder.path().join("kept"));
//! # let tokenizer = Tokenizer::from_vocabulary(&synthetic::vocabulary(), true)?;
//! let corpus = Corpus::open(&files, Reading::plain().with_end("[SEP]"))?;
//! let disk = &heirloom_store::RealDisk;
//! let (shards, _new) = find_or_write(disk, &kept, &corpus, &tokenizer, &mut |_| ())?;
//! let shards = Arc::new(shards);
//! let rows = PackedRows::new(Arc::clone(&shards), &shards.all(), Pack::Documents, 256)?;
//! assert_eq!(rows.len(), 1);
//! # Ok::<(), heirloom_data::Error>(())
//! ```
//!
//! In: texts that were made into tokens. Out: one row after another, by number.
//! Never: a padding token, or a label in another document than its token.

mod chat;
mod date;
mod documents;
mod elements;
mod error;
mod masking;
mod packed;
mod paired;
mod prepare;
mod shards;
mod template;
mod write;

use heirloom_base::Digest;

pub use chat::ChatTemplate;
pub use documents::{Reading, Separator, Shape, TextFormat, files};
pub use error::TextError;
pub use masking::{Masked, Masker, Masking};
pub use packed::{Long, OnLong, Pack, PackedRows};
pub use paired::{Paired, PairedRows};
pub use shards::{About, Counts, FORMAT, Selection, Shards, SourceFile, Token};
pub use write::{Corpus, find_or_write, measure, open, write};

/// In the place of a label: nothing is learnt here.
pub const NOT_LEARNT: u32 = u32::MAX;

/// Documents, or pieces of documents, end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Tokens, `[L]`.
    pub ids: Vec<u32>,
    /// First token of each document, and L, `[D + 1]`. Attention does not look across, and positions
    /// begin anew at each.
    pub starts: Vec<u32>,
    /// The token that follows each in its document, or [`NOT_LEARNT`], `[L]`. At the end of a row
    /// that was cut from a document it may be a token that the row does not hold.
    pub labels: Vec<u32>,
    /// Bytes of text that the labels which are learnt stand for: what a loss is divided by where
    /// models with other tokenizers are compared.
    pub bytes: u64,
}

impl Row {
    /// Empties the row and keeps its memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.starts.clear();
        self.labels.clear();
        self.bytes = 0;
    }

    /// How many tokens have something to foresee.
    pub fn learnt(&self) -> usize {
        self.labels.iter().filter(|&&label| label != NOT_LEARNT).count()
    }
}

/// Rows that can be asked for in any order, from any thread.
pub trait Rows: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of row number `row`, without reading it.
    fn length(&self, row: usize) -> usize;

    /// Reads row number `row` into `into`, whose memory is kept.
    fn read(&self, row: usize, into: &mut Row);

    /// Of all tokens, boundaries and labels: equal digests, equal rows. A teacher's kept answers are
    /// found by it.
    fn digest(&self) -> Digest;

    /// Rows, ascending, that come before all others in the first epoch; nothing of it is in the digest.
    fn first(&self) -> &[u32] {
        &[]
    }
}
