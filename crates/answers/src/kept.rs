//! A folder of kept answers, read by row and position.

use std::path::{Path, PathBuf};

use heirloom_base::{Digest, Hasher};
use heirloom_engine::IGNORED;
use heirloom_store::{Disk, RealDisk};

use crate::about::{About, Expected};
use crate::error::Error;
use crate::held::Held;
use crate::part::{Part, part_name};
use crate::record::Code;

/// Answers to rows of a text, memory-mapped: opening reads no answer, and any token's can be asked
/// for, from any thread.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    held: Held,
    parts: Vec<Part>,
}

/// Answers of some tokens, ready for
/// [`SparseTarget`](heirloom_engine::SparseTarget); grows token by token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownRows {
    /// Known tokens, K places each, ascending, [`IGNORED`] behind them, `[N · K]`.
    pub ids: Vec<u32>,
    /// Their probabilities, `[N, K]`; 0 beside `IGNORED`.
    pub probabilities: Vec<f32>,
    /// What all others have, `[N]`; 1 where nothing is known.
    pub rest: Vec<f32>,
}

impl KnownRows {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.probabilities.clear();
        self.rest.clear();
    }
}

impl Kept {
    /// Opens the answers in `folder`, which must be those that are expected, and whole; their
    /// blocks are compared with their digests when they are first read.
    pub fn open(folder: &Path, expected: &Expected) -> Result<Self, Error> {
        let about = Self::about_of(&RealDisk, folder)?;
        about
            .check(expected)
            .map_err(|difference| Error::Other { folder: folder.to_owned(), difference })?;
        Self::open_any(folder)
    }

    /// Opens `folder`, a copy of what is at `address`, by which messages call it.
    pub fn open_copy(folder: &Path, address: &Path, expected: &Expected) -> Result<Self, Error> {
        let opened = Self::open(folder, expected).map_err(|error| error.at(address))?;
        Ok(Self { folder: address.to_owned(), ..opened })
    }

    /// Opens whatever answers are in `folder`.
    pub fn open_any(folder: &Path) -> Result<Self, Error> {
        let held = Held::open(&RealDisk, folder)?;
        let missing: Vec<u64> =
            (0..held.parts()).filter(|&part| !folder.join(part_name(part)).is_file()).collect();
        if let Some(&first) = missing.first() {
            return Err(Error::Unfinished {
                folder: folder.to_owned(),
                missing: missing.len() as u64,
                parts: held.parts(),
                first: part_name(first),
            });
        }
        let open = |part| Part::open(folder, held.seal(part), part, held.rows_of(part).len());
        let parts = (0..held.parts()).map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { folder: folder.to_owned(), held, parts })
    }

    /// What the folder says of itself.
    pub fn about_of(disk: &dyn Disk, folder: &Path) -> Result<About, Error> {
        Ok(Held::about_of(disk, folder)?.about)
    }

    /// The folder, or the address that it was copied from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the answers are.
    pub fn about(&self) -> &About {
        self.held.about()
    }

    /// Which rows they are to.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Of every byte of them: equal digests, equal answers, once they were [checked](Self::check).
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.part(self.about().digest().to_string().as_bytes());
        self.parts.iter().for_each(|part| part.add_to(&mut hasher));
        hasher.digest()
    }

    /// What a run is held to when it goes on: every byte of answers to all rows; of a folder to which
    /// rows are added, what decides the bytes of any row.
    pub fn lasting_digest(&self) -> Digest {
        if self.about().listed { self.about().digest() } else { self.digest() }
    }

    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(Part::len).sum()
    }

    /// Tokens with an answer: those at which something is learnt.
    pub fn answered(&self) -> Result<u64, Error> {
        self.parts.iter().map(Part::answered).sum()
    }

    /// Refuses to go on where some of `rows` have no answer.
    pub fn check_rows(&self, rows: &[u32]) -> Result<(), Error> {
        let mut missing = rows.iter().filter(|&&row| !self.held.has(row as usize));
        let Some(&row) = missing.next() else { return Ok(()) };
        let missing = 1 + missing.count();
        let (folder, wanted) = (self.folder.clone(), rows.len());
        Err(Error::NotHeld { folder, row: row as usize, missing, wanted })
    }

    /// Tokens of all rows with answers.
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.tokens() as u64).sum()
    }

    /// Tokens of a row.
    ///
    /// # Errors
    /// Where the row has no answer.
    pub fn length(&self, row: usize) -> Result<usize, Error> {
        let (part, row) = self.place(row)?;
        Ok(part.length(row))
    }

    /// Compares every block with its digest.
    pub fn check(&self) -> Result<(), Error> {
        self.parts.iter().try_for_each(Part::check)
    }

    /// Adds the answers of `positions` of row `row` to `into`.
    ///
    /// # Errors
    /// Where the row has no answer, or its bytes are not what was written.
    ///
    /// # Panics
    /// Where hidden states are kept, or the row has no such tokens.
    pub fn read_known(
        &self,
        row: usize,
        positions: std::ops::Range<usize>,
        into: &mut KnownRows,
    ) -> Result<(), Error> {
        let (width, code) = (self.about().width(), self.code());
        assert!(width > 0, "hidden states name no tokens");
        let (part, row) = self.place(row)?;
        part.answers(row, positions, |answer| {
            let end = into.ids.len() + width;
            let rest = if answer.is_empty() {
                1.0
            } else {
                code.read_known(answer, &mut into.ids, &mut into.probabilities)?
            };
            if into.ids.len() > end {
                return None;
            }
            into.ids.resize(end, IGNORED);
            into.probabilities.resize(end, 0.0);
            into.rest.push(rest);
            Some(())
        })
    }

    /// Adds the hidden states of `positions` of row `row` to `into`, C numbers each; zeros where
    /// nothing was to be learnt.
    ///
    /// # Panics
    /// Where something else is kept, or the row has no such tokens.
    pub fn read_states(
        &self,
        row: usize,
        positions: std::ops::Range<usize>,
        into: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let crate::Kind::States { width } = self.about().kind else {
            panic!("{:?} is no hidden state", self.about().kind)
        };
        let (width, code) = (width as usize, self.code());
        let (part, row) = self.place(row)?;
        part.answers(row, positions, |answer| {
            if answer.is_empty() {
                into.resize(into.len() + width, 0.0);
                return Some(());
            }
            code.read_states(answer, width, into)
        })
    }

    fn code(&self) -> Code {
        let About { kind, values, vocabulary, .. } = *self.about();
        Code { kind, values, vocabulary }
    }

    fn place(&self, row: usize) -> Result<(&Part, usize), Error> {
        match self.held.place(row) {
            Some((part, row)) => Ok((&self.parts[part], row)),
            None => {
                let folder = self.folder.clone();
                Err(Error::NotHeld { folder, row, missing: 1, wanted: 1 })
            }
        }
    }
}
