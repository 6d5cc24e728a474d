//! Which tokens a masked language model must guess.
//!
//! In: a row of tokens and its address. Out: the row as the model sees it, and what it is to guess.
//! Never: a special token chosen or put in, or a choice that depends on anything but seed, step,
//! row and position: not on micro-batches, threads, or which rows came before.
//!
//! BERT's rule (Devlin et al. 2018, arXiv:1810.04805, section 3.1): 15 % of the tokens are chosen;
//! of these 80 % become `[MASK]`, 10 % a random token, 10 % stay. Each token is chosen for itself, so
//! the share is one of a law and not of every row. Whole words: all pieces of a word are chosen
//! together by the word's first, and each then has its own 80/10/10, as in BERT's later release.

use std::collections::BTreeSet;

use heirloom_base::{Purpose, Words};
use serde::{Deserialize, Serialize};

use super::{NOT_LEARNT, TextError};
use crate::error::Error;
use crate::tokens::{Pieces, Tokenizer};

/// How tokens are masked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    /// Share of the tokens that must be guessed.
    pub share: f64,
    /// Of these, the share that becomes the mask token.
    pub mask: f64,
    /// Of these, the share that becomes a random token; what is left stays as it is.
    pub random: f64,
    /// Pieces of a word are chosen together.
    pub whole_words: bool,
}

impl Default for Masking {
    fn default() -> Self {
        Self { share: 0.15, mask: 0.8, random: 0.1, whole_words: false }
    }
}

/// A row with masks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masked {
    /// Tokens as the model sees them, `[L]`.
    pub ids: Vec<u32>,
    /// The token that was there where it must be guessed, else [`NOT_LEARNT`], `[L]`.
    pub labels: Vec<u32>,
    /// Where something must be guessed, ascending, `[M]`.
    pub positions: Vec<u32>,
}

/// Masks tokens of one vocabulary.
#[derive(Clone, Debug)]
pub struct Masker {
    masking: Masking,
    seed: u64,
    mask: u32,
    /// By id.
    kinds: Vec<Kind>,
    /// Tokens that can be put in, ascending.
    ordinary: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Special,
    /// A piece of text: whether it may go on the word before it, and whether a word may go on
    /// after it.
    Piece {
        joins: bool,
        open: bool,
    },
}

impl Masker {
    /// A masker for the vocabulary of `tokenizer`.
    ///
    /// # Errors
    /// Where the tokenizer has no mask token, or shares are none.
    pub fn new(tokenizer: &Tokenizer, masking: Masking, seed: u64) -> Result<Self, Error> {
        let Masking { share, mask, random, .. } = masking;
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        if !(is_share(share) && share > 0.0 && is_share(mask) && is_share(random))
            || mask + random > 1.0 + 1e-12
        {
            return Err(TextError::MaskShares { share, mask, random }.into());
        }
        let special = tokenizer.special();
        let mask = special.mask.ok_or(TextError::NoMask)?;
        let mut specials: BTreeSet<u32> = tokenizer.special_tokens().into_keys().collect();
        specials.extend(
            [special.pad, special.cls, special.sep, special.unk, Some(mask)].into_iter().flatten(),
        );
        let pieces = tokenizer.pieces();
        let kind = |id: u32| match tokenizer.token(id) {
            // An id without a token stands for nothing that could be guessed or put in.
            None => Kind::Special,
            Some(_) if specials.contains(&id) => Kind::Special,
            Some(token) => Kind::Piece { joins: pieces.joins(token), open: pieces.open(token) },
        };
        let kinds: Vec<Kind> = (0..tokenizer.vocab_size() as u32).map(kind).collect();
        let ordinary = (0..).zip(&kinds).filter(|(_, kind)| **kind != Kind::Special);
        let ordinary = ordinary.map(|(id, _)| id).collect();
        Ok(Self { masking, seed, mask, kinds, ordinary })
    }

    /// The same rules, drawn by another seed.
    pub fn with_seed(&self, seed: u64) -> Self {
        Self { seed, ..self.clone() }
    }

    /// Masks a row. `step` is the step or the epoch, whatever should bring new masks; `row` the
    /// row's number within it, the same however a step is cut. `starts` are the row's documents.
    ///
    /// # Panics
    /// Where an id is not in the vocabulary.
    pub fn apply(&self, step: u64, row: u32, ids: &[u32], starts: &[u32], into: &mut Masked) {
        let words = Words::at(self.seed, Purpose::Masking, step, 0);
        let Masked { ids: seen, labels, positions } = into;
        seen.clear();
        labels.clear();
        positions.clear();
        let mut chosen = false;
        let mut begin = 0;
        for (&id, at) in ids.iter().zip(0u32..) {
            let [choice, fate, token, _] = words.block(row, at);
            while starts.get(begin).is_some_and(|&start| start < at) {
                begin += 1;
            }
            let first = starts.get(begin) == Some(&at);
            if !(self.masking.whole_words && !first && at > 0 && self.goes_on(ids, at as usize)) {
                chosen = unit(choice) < self.masking.share;
            }
            if !chosen || self.kinds[id as usize] == Kind::Special {
                seen.push(id);
                labels.push(NOT_LEARNT);
                continue;
            }
            let fate = unit(fate);
            seen.push(if fate < self.masking.mask {
                self.mask
            } else if fate < self.masking.mask + self.masking.random {
                self.ordinary[((u64::from(token) * self.ordinary.len() as u64) >> 32) as usize]
            } else {
                id
            });
            labels.push(id);
            positions.push(at);
        }
    }

    /// Whether the token at `at` is a piece of the word that the token before it belongs to.
    fn goes_on(&self, ids: &[u32], at: usize) -> bool {
        let kind = |at: usize| self.kinds[ids[at] as usize];
        matches!(
            (kind(at - 1), kind(at)),
            (Kind::Piece { open: true, .. }, Kind::Piece { joins: true, .. })
        )
    }
}

/// A number in `[0, 1)`.
fn unit(word: u32) -> f64 {
    f64::from(word) / (1u64 << 32) as f64
}

impl Pieces {
    /// Whether a token may go on the word before it.
    fn joins(&self, token: &str) -> bool {
        match self {
            Self::Prefix(prefix) => token.starts_with(prefix),
            Self::Bytes => token.chars().next().is_some_and(of_word),
            Self::Blanks(mark) => !token.starts_with(*mark),
            Self::Unknown => false,
        }
    }

    /// Whether a word may go on after a token.
    fn open(&self, token: &str) -> bool {
        match self {
            Self::Bytes => token.chars().next_back().is_some_and(of_word),
            Self::Prefix(_) | Self::Blanks(_) => true,
            Self::Unknown => false,
        }
    }
}

/// Whether a character of a byte-level vocabulary stands for a byte inside words: letters, digits,
/// and the bytes of which characters beyond ASCII are made. The vocabulary writes the bytes of
/// blanks and controls as U+0100 to U+0121.
fn of_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || (char >= '\u{80}' && !('\u{100}'..='\u{121}').contains(&char))
}
