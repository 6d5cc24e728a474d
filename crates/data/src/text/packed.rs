//! Documents end to end in rows of one length, without padding.
//!
//! In: kept tokens, the documents wanted, a way to pack. Out: [`Rows`].
//! Never: a token left out in silence, or a row that depends on which rows were read before.

use std::sync::Arc;

use heirloom_base::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::{NOT_LEARNT, Row, Rows, Selection, Shards, TextError};
use crate::error::Error;
use crate::pack::LONGEST_SEQUENCE;

/// How documents become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pack {
    /// End to end, with their boundaries; what does not fit in a row goes on in the next.
    Documents,
    /// End to end, without boundaries: one stream of tokens, cut at every row.
    Stream,
    /// Each whole in one row, in their order; a row ends where the next document does not fit.
    Whole {
        /// What becomes of a document that is longer than a row.
        on_long: OnLong,
    },
}

/// What becomes of a document that is longer than a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLong {
    /// Its first tokens fill a row, and the others are left out.
    Cut,
    /// It is left out.
    Drop,
    /// It is an error.
    Error,
}

/// Documents that did not fit in a row of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Long {
    /// How many there are.
    pub documents: u64,
    /// Tokens of theirs that no row holds.
    pub tokens: u64,
}

/// Rows of packed documents.
#[derive(Clone, Debug)]
pub struct PackedRows {
    shards: Arc<Shards>,
    pack: Pack,
    length: usize,
    documents: Vec<u32>,
    /// Tokens in rows before each document, and of all, `[documents + 1]`.
    before: Vec<u64>,
    /// Tokens in rows before each row, and of all, `[rows + 1]`.
    rows: Vec<u64>,
    long: Long,
}

impl PackedRows {
    /// Rows of `length` tokens, of the documents of `selection`. The last row has what is left;
    /// under [`Pack::Whole`] others may be shorter too.
    ///
    /// # Errors
    /// Where `length` is less than 2 or too large, a document is longer than a row and that is an
    /// error, or no document is left.
    pub fn new(
        shards: Arc<Shards>,
        selection: &Selection,
        pack: Pack,
        length: usize,
    ) -> Result<Self, Error> {
        if !(2..=LONGEST_SEQUENCE).contains(&length) {
            return Err(TextError::RowLength { length }.into());
        }
        let mut packed = Self {
            shards,
            pack,
            length,
            documents: Vec::with_capacity(selection.len()),
            before: vec![0],
            rows: vec![0],
            long: Long::default(),
        };
        for &document in selection.documents() {
            packed.take(document)?;
        }
        let all = packed.tokens();
        if all == 0 {
            return Err(TextError::NothingLeft { dropped: packed.long.documents }.into());
        }
        match pack {
            Pack::Whole { .. } => packed.rows.push(all),
            _ => {
                packed.rows = (0..all).step_by(length).collect();
                packed.rows.push(all);
            }
        }
        Ok(packed)
    }

    fn take(&mut self, document: u32) -> Result<(), Error> {
        let range = self.shards.range(document);
        let mut tokens = range.end - range.start;
        let (all, length) = (self.tokens(), self.length as u64);
        if let Pack::Whole { on_long } = self.pack {
            if tokens > length {
                self.long.documents += 1;
                match on_long {
                    OnLong::Error => {
                        let (document, length) = (u64::from(document), self.length);
                        return Err(TextError::LongDocument { document, tokens, length }.into());
                    }
                    OnLong::Drop => {
                        self.long.tokens += tokens;
                        return Ok(());
                    }
                    OnLong::Cut => {
                        self.long.tokens += tokens - length;
                        tokens = length;
                    }
                }
            }
            let row = self.rows.last().copied().unwrap_or(0);
            if all > row && all + tokens > row + length {
                self.rows.push(all);
            }
        }
        self.documents.push(document);
        self.before.push(all + tokens);
        Ok(())
    }

    /// Tokens in all rows.
    pub fn tokens(&self) -> u64 {
        self.before.last().copied().unwrap_or(0)
    }

    /// Documents that did not fit in a row of their own; none but under [`Pack::Whole`].
    pub fn long(&self) -> Long {
        self.long
    }

    /// The kept tokens.
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// The longest that a row may be, in tokens.
    pub fn sequence_length(&self) -> usize {
        self.length
    }

    /// The token after number `at` of document number `index` of these rows, where there is one to
    /// foresee.
    fn after(&self, index: usize, at: u64) -> Option<super::Token> {
        let document = self.documents[index];
        let next = if at + 1 < self.shards.range(document).end {
            at + 1
        } else if self.pack == Pack::Stream {
            self.shards.range(*self.documents.get(index + 1)?).start
        } else {
            return None;
        };
        Some(self.shards.token(next)).filter(|token| token.learnt)
    }
}

impl Rows for PackedRows {
    fn len(&self) -> usize {
        self.rows.len() - 1
    }

    fn length(&self, row: usize) -> usize {
        (self.rows[row + 1] - self.rows[row]) as usize
    }

    fn read(&self, row: usize, into: &mut Row) {
        into.clear();
        into.starts.push(0);
        let (mut at, end) = (self.rows[row], self.rows[row + 1]);
        let mut index = self.before.partition_point(|&before| before <= at) - 1;
        while at < end {
            let first = self.shards.range(self.documents[index]).start;
            let piece = at..end.min(self.before[index + 1]);
            for token in piece.clone() {
                let token = first + (token - self.before[index]);
                into.ids.push(self.shards.token(token).id);
                let next = self.after(index, token);
                into.labels.push(next.map_or(NOT_LEARNT, |next| next.id));
                into.bytes += next.map_or(0, |next| next.bytes);
            }
            if self.pack != Pack::Stream {
                into.starts.push(into.ids.len() as u32);
            }
            at = piece.end;
            index += 1;
        }
        if self.pack == Pack::Stream {
            into.starts.push(into.ids.len() as u32);
        }
    }

    fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        let options = serde_json::to_string(&(self.pack, self.length));
        hasher.part(self.shards.about().content.to_string().as_bytes());
        hasher.part(options.expect("an enum and a number are JSON").as_bytes());
        for document in &self.documents {
            hasher.part(&document.to_le_bytes());
        }
        hasher.digest()
    }
}
