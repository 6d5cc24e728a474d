//! Two tokenizations of one text, put beside one another by the bytes that each has read.
//!
//! In: tokens with the byte of the *original* text at which each ends. Out: for each token of the
//! one, the token of the other that ends at the same byte. Never: a comparison of token strings, which
//! lower-casing, accents that are dropped or marks of word beginnings would spoil.
//!
//! A language model's position foresees what follows the text that was read so far. Two positions
//! can be compared where both models have read exactly the same bytes, so a position is matched with
//! the one that ends at the same byte, and has no match where the other tokenizer has no end there.
//! Common ends cut the text into groups; of a group of several tokens the first is foreseen from the
//! same text by both, the others by one side after a piece that the other has not read. TRL's GOLD
//! trainer forms the same groups and multiplies the first position's distribution by the
//! probabilities of the group's later tokens (log-probabilities are summed), which leaves numbers that
//! do not sum to one and that an L1 distance takes for disagreement. Here the first position's
//! distribution is compared as it is, and the other positions of a group take no part; the
//! probability of a whole group is the product that [`Group`] gives the ranges for.

use std::ops::Range;

use crate::Error;
use crate::tokens::{Tokenizer, refused};

/// In the place of a position: none of the other's ends there.
pub const UNMATCHED: u32 = u32::MAX;

/// In the place of a byte: after this token no known part of the text has been read (a special
/// token after it, or part of a character).
pub const NO_END: u32 = u32::MAX;

/// A text's tokens with the bytes at which they end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// Ids, `[L]`.
    pub ids: Vec<u32>,
    /// How many bytes of the original text have been read after each, or [`NO_END`], `[L]`;
    /// ascending. Special tokens before the text end at byte 0.
    pub ends: Vec<u32>,
}

impl Spans {
    /// The tokens of `text` with the special ones, cut to `max_length`.
    ///
    /// # Errors
    /// Where the tokenizer refuses the text, or it has 2³² bytes.
    pub fn of(tokenizer: &Tokenizer, text: &str, max_length: usize) -> Result<Self, Error> {
        let mut spans = Self::encode(tokenizer, text)?;
        // The ends were found before: that of a character's first bytes stays unknown.
        spans.ids.truncate(max_length);
        spans.ends.truncate(max_length);
        Ok(spans)
    }

    /// All tokens of `text`, without special ones.
    ///
    /// # Errors
    /// As [`Spans::of`].
    pub fn whole(tokenizer: &Tokenizer, text: &str) -> Result<Self, Error> {
        check_length(text)?;
        let tokens = tokenizer.encode_text(text)?;
        Ok(Self { ends: ends_of(&tokens.spans), ids: tokens.ids })
    }

    fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Self, Error> {
        check_length(text)?;
        let encoding = tokenizer.raw().encode(text, true).map_err(refused)?;
        let special = encoding.get_special_tokens_mask();
        // Without text, what comes after it cannot be told from what comes before: the first does.
        let before = special.iter().position(|&special| special == 0).unwrap_or(1);
        // What a tokenizer adds has no place in the text, and comes before all of it or after.
        let after = special.iter().rposition(|&special| special == 0).map_or(before, |at| at + 1);
        let place = |(&span, &special)| if special == 1 { (0, 0) } else { span };
        let places: Vec<_> =
            encoding.get_offsets().iter().zip(special).take(after).map(place).collect();
        let mut ends = ends_of(&places);
        ends.resize(special.len(), NO_END);
        Ok(Self { ids: encoding.get_ids().to_vec(), ends })
    }
}

fn check_length(text: &str) -> Result<(), Error> {
    match u32::try_from(text.len()) {
        Ok(bytes) if bytes != NO_END => Ok(()),
        _ => Err(Error::Encode { reason: "the text has 2³² bytes or more".to_owned() }),
    }
}

/// Bytes that have been read after each of tokens that lie at `spans`. Of a character cut into several
/// tokens each claims the whole; only the last has read it.
pub(crate) fn ends_of(spans: &[(usize, usize)]) -> Vec<u32> {
    let mut read = 0;
    let mut ends: Vec<u32> = spans
        .iter()
        .map(|&(_, end)| {
            read = read.max(end as u32);
            read
        })
        .collect();
    for at in 1..ends.len() {
        if ends[at] == ends[at - 1] {
            ends[at - 1] = NO_END;
        }
    }
    ends
}

/// For each of the student's positions the teacher's that has read the same bytes, or [`UNMATCHED`],
/// `[L]`. Both ascend.
pub fn align(student: &[u32], teacher: &[u32]) -> Vec<u32> {
    let mut others = (0_u32..).zip(teacher).filter(|(_, end)| **end != NO_END).peekable();
    let matched = |&end: &u32| {
        if end == NO_END {
            return UNMATCHED;
        }
        while others.next_if(|(_, other)| **other < end).is_some() {}
        others.peek().filter(|(_, other)| **other == end).map_or(UNMATCHED, |&(at, _)| at)
    };
    student.iter().map(matched).collect()
}

/// Tokens of each side between two common ends: the same bytes of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The student's tokens.
    pub student: Range<usize>,
    /// The teacher's tokens.
    pub teacher: Range<usize>,
}

/// The groups of two tokenizations. The first begins at the first common end, 0 where both have a
/// token that begins the sequence: what comes before it, only one of the two foresees.
pub fn groups(student: &[u32], teacher: &[u32]) -> Vec<Group> {
    let matched = align(student, teacher);
    let pairs = matched.iter().enumerate().filter(|(_, other)| **other != UNMATCHED);
    let ends: Vec<(usize, usize)> =
        pairs.map(|(at, &other)| (at + 1, other as usize + 1)).collect();
    let between =
        |two: &[(usize, usize)]| Group { student: two[0].0..two[1].0, teacher: two[0].1..two[1].1 };
    ends.windows(2).map(between).collect()
}
