//! Two vocabularies held against one another, before any weight is read.
//!
//! In: two tokenizers, and how many words their models have logits for. Out: how they relate, the
//! first difference, and, by an explicit choice, which of the teacher's ids stands for which of the
//! student's. Never: a choice of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::Error;
use crate::align::{Spans, UNMATCHED, align};
use crate::tokens::{Difference, Tokenizer, first_difference};

/// In the place of an id: the other vocabulary has no such token. What the engine calls ignored.
pub const NOT_SHARED: u32 = u32::MAX;

/// A model's vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its tokens.
    pub tokenizer: &'a Tokenizer,
    /// Words that the model has logits for (`vocab_size` of its config), where it is known. Often
    /// more than tokens, for the sake of round numbers.
    pub rows: Option<usize>,
}

impl Side<'_> {
    /// Columns of the logits: the model's, or one more than the largest id.
    fn size(&self) -> usize {
        self.rows.unwrap_or_else(|| self.tokenizer.vocab_size())
    }

    /// The tokens that the model knows, by id.
    fn tokens(&self) -> BTreeMap<u32, &str> {
        let known = |id: u32| self.tokenizer.token(id).map(|token| (id, token));
        let end = self.size().min(self.tokenizer.vocab_size());
        (0..end as u32).filter_map(known).collect()
    }
}

/// How two vocabularies relate, from the closest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// The same tokens by the same ids, and logits for as many words.
    Same,
    /// The same tokens by the same ids; the models have logits for different numbers of words, of
    /// which the ids without a token are padding.
    Padded,
    /// All tokens of one have the same ids in the other, which has more: added tokens, embeddings
    /// that were resized for them.
    Prefix,
    /// The same tokens by other ids.
    Permuted,
    /// Some tokens are in one alone.
    Different,
}

/// Two vocabularies, compared; `[left, right]` throughout, which are student and teacher where one
/// learns from the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// How they relate.
    pub relation: Relation,
    /// Columns of each one's logits.
    pub sizes: [usize; 2],
    /// Tokens that each model knows.
    pub tokens: [usize; 2],
    /// Tokens beyond the model's logits: tokenizer and model do not belong together.
    pub unknown: [usize; 2],
    /// Tokens that both have, by whatever id.
    pub shared: usize,
    /// Tokens that both have by the same id.
    pub in_place: usize,
    /// Ids of each that stand for no token.
    pub padding: [Vec<Range<u32>>; 2],
    /// The first id that stands for another token.
    pub first: Option<Difference>,
    /// How each spells text in tokens, by its decoder: tokens of different spellings may look alike
    /// and mean different text (`the` inside a word or at its beginning).
    pub spelling: [String; 2],
    /// Whether both cut every text into the same tokens by the same ids.
    pub same_tokenizer: bool,
    /// The right id of each of the left, or [`NOT_SHARED`], `[left size]`.
    to_right: Vec<u32>,
}

/// Compares two vocabularies.
pub fn compare([left, right]: [Side<'_>; 2]) -> Comparison {
    let (of_left, of_right) = (left.tokens(), right.tokens());
    let ids: BTreeMap<&str, u32> = of_right.iter().map(|(&id, &token)| (token, id)).collect();
    let mut to_right = vec![NOT_SHARED; left.size()];
    for (&id, token) in &of_left {
        if let Some(&other) = ids.get(token) {
            to_right[id as usize] = other;
        }
    }
    let sizes = [left.size(), right.size()];
    let tokens = [of_left.len(), of_right.len()];
    let shared = to_right.iter().filter(|&&id| id != NOT_SHARED).count();
    let in_place = (0..).zip(&to_right).filter(|&(id, &other)| id == other).count();
    let relation = if tokens == [in_place; 2] {
        if sizes[0] == sizes[1] { Relation::Same } else { Relation::Padded }
    } else if in_place == tokens[0] || in_place == tokens[1] {
        Relation::Prefix
    } else if tokens == [shared; 2] {
        Relation::Permuted
    } else {
        Relation::Different
    };
    let unknown = |side: &Side<'_>, known: usize| side.tokenizer.count() - known;
    Comparison {
        relation,
        sizes,
        tokens,
        unknown: [unknown(&left, tokens[0]), unknown(&right, tokens[1])],
        shared,
        in_place,
        padding: [holes(&of_left, sizes[0]), holes(&of_right, sizes[1])],
        first: first_difference(left.tokenizer, right.tokenizer),
        spelling: [left.tokenizer.spelling(), right.tokenizer.spelling()],
        same_tokenizer: left.tokenizer.digest() == right.tokenizer.digest(),
        to_right,
    }
}

/// Runs of ids below `size` that stand for no token.
fn holes(tokens: &BTreeMap<u32, &str>, size: usize) -> Vec<Range<u32>> {
    let mut holes = Vec::new();
    let mut next = 0;
    for id in tokens.keys().copied().chain([size as u32]) {
        if next < id {
            holes.push(next..id);
        }
        next = id + 1;
    }
    holes
}

/// What is done about vocabularies that are not the same. There is no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// Nothing: only equal vocabularies will do.
    Refuse,
    /// Distributions are compared over the tokens that both have, each side renormalised; to the
    /// loss all others are as if their logits were −∞.
    Intersect,
    /// Ids that stand for no token are never possible; all that stand for one must be the same.
    Pad,
}

impl Choice {
    /// The choices by name.
    pub const NAMES: [&'static str; 3] = ["refuse", "intersect", "pad"];

    /// The choice called `name`.
    pub fn find(name: &str) -> Option<Self> {
        let all = [Self::Refuse, Self::Intersect, Self::Pad];
        Self::NAMES.iter().position(|known| *known == name).map(|at| all[at])
    }
}

/// Why two vocabularies cannot be compared token by token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// They differ, and nobody said what is to be done.
    #[error("{0}\n  {1}")]
    Differ(String, String),
    /// `pad`, and more than padding differs.
    #[error("{0}\n  `pad` is for vocabularies that differ by padding alone; {1}")]
    NotPadding(String, String),
    /// `intersect`, and the tokens of one do not mean what those of the other mean.
    #[error(
        "{0}\n  tokens spelled by {1} and by {2} may look alike and mean different text, so there is \
         nothing to intersect; compare by rank (`uld`), which needs no common token"
    )]
    Spelling(String, String, String),
    /// `intersect`, and no token is shared.
    #[error("{0}\n  no token is in both; compare by rank (`uld`), which needs none")]
    NothingShared(String),
    /// A tokenizer with tokens that its model has no logits for.
    #[error(
        "the {side}'s tokenizer has {tokens} tokens that its model, of {rows} words, does not know; \
         it is another model's"
    )]
    Unknown {
        /// `student` or `teacher`.
        side: &'static str,
        /// How many.
        tokens: usize,
        /// Words the model knows.
        rows: usize,
    },
}

impl Comparison {
    /// Which of the teacher's ids stands for which of the student's, by `choice`; the left is the
    /// student.
    ///
    /// # Errors
    /// Where the choice does not fit what was found.
    pub fn map(&self, choice: Choice) -> Result<VocabularyMap, Refused> {
        for (at, side) in ["student", "teacher"].into_iter().enumerate() {
            if self.unknown[at] > 0 {
                let (tokens, rows) = (self.unknown[at], self.sizes[at]);
                return Err(Refused::Unknown { side, tokens, rows });
            }
        }
        match choice {
            Choice::Refuse if self.relation == Relation::Same => {}
            Choice::Refuse => return Err(Refused::Differ(self.to_string(), self.advice())),
            Choice::Pad if self.relation > Relation::Padded => {
                return Err(Refused::NotPadding(self.to_string(), self.advice()));
            }
            Choice::Intersect if self.spelling[0] != self.spelling[1] => {
                let [left, right] = self.spelling.clone();
                return Err(Refused::Spelling(self.to_string(), left, right));
            }
            Choice::Intersect if self.shared == 0 => {
                return Err(Refused::NothingShared(self.to_string()));
            }
            Choice::Pad | Choice::Intersect => {}
        }
        let [student, teacher] = self.sizes;
        let mut to_student = vec![NOT_SHARED; teacher];
        for (id, &other) in (0..).zip(&self.to_right) {
            if other != NOT_SHARED {
                to_student[other as usize] = id;
            }
        }
        // Of equal vocabularies every column takes part, padding too.
        let whole = self.relation == Relation::Same && choice == Choice::Refuse;
        let to_teacher = self.to_right.clone();
        debug_assert_eq!(to_teacher.len(), student, "one id for each of the student's");
        Ok(VocabularyMap { to_teacher, to_student, shared: self.shared, whole })
    }

    /// What can be done about the difference.
    fn advice(&self) -> String {
        let choice = match self.relation {
            Relation::Same => return "nothing is to be chosen".to_owned(),
            Relation::Padded => "`pad` leaves the padding out",
            _ if self.spelling[0] == self.spelling[1] && self.shared > 0 => {
                "`intersect` compares over the shared tokens"
            }
            _ => "compare by rank (`uld`)",
        };
        format!("choose: {choice}")
    }
}

/// What differs, in a sentence or two.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [left, right] = self.sizes;
        match self.relation {
            Relation::Same => write!(f, "the vocabularies are the same, {left} words")?,
            Relation::Padded => {
                write!(f, "the same {} tokens, padded to {left} and {right} words", self.shared)?;
            }
            Relation::Prefix => {
                let [less, more] =
                    [self.tokens[0].min(self.tokens[1]), self.tokens[0].max(self.tokens[1])];
                write!(
                    f,
                    "all {less} tokens of one are in the other by the same ids, which has {more}"
                )?;
            }
            Relation::Permuted => {
                let moved = self.shared - self.in_place;
                write!(f, "the same {} tokens, {moved} of them by other ids", self.shared)?;
            }
            Relation::Different => {
                let ([left, right], shared) = (self.tokens, self.shared);
                write!(
                    f,
                    "different vocabularies: {left} and {right} tokens, {shared} of them shared"
                )?;
            }
        }
        if let Some(first) = &self.first {
            let shown = |token: &Option<String>| match token {
                Some(token) => format!("{token:?}"),
                None => "no token".to_owned(),
            };
            let (left, right) = (shown(&first.left), shown(&first.right));
            write!(f, "; they differ first at id {}, {left} and {right}", first.id)?;
        }
        Ok(())
    }
}

/// Which of the teacher's ids stands for which of the student's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VocabularyMap {
    to_teacher: Vec<u32>,
    to_student: Vec<u32>,
    shared: usize,
    whole: bool,
}

impl VocabularyMap {
    /// Whether the two are one vocabulary, so that nothing needs to be put in its place.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The teacher's id of each of the student's, or [`NOT_SHARED`], `[V]`: what losses are given.
    pub fn to_teacher(&self) -> &[u32] {
        &self.to_teacher
    }

    /// The student's id of each of the teacher's, or [`NOT_SHARED`], `[Vₜ]`: for answers that name
    /// the teacher's tokens.
    pub fn to_student(&self) -> &[u32] {
        &self.to_student
    }

    /// How many tokens are shared.
    pub fn shared(&self) -> usize {
        self.shared
    }

    /// What the teacher reads where the student reads `ids`, and how many tokens it can read: up to
    /// the first that it does not know. What comes after that one has another past for the teacher
    /// than for the student, so a loss has to leave it out; the ids there are 0.
    pub fn read(&self, ids: &[u32]) -> (Vec<u32>, usize) {
        let of = |&id: &u32| {
            let id = if self.whole { Some(&id) } else { self.to_teacher.get(id as usize) };
            id.copied().filter(|&id| id != NOT_SHARED)
        };
        let mut read: Vec<u32> = ids.iter().map_while(of).collect();
        let known = read.len();
        read.resize(ids.len(), 0);
        (read, known)
    }
}

/// What the tokens of a text say of two vocabularies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Bytes of the text.
    pub bytes: usize,
    /// Tokens that each makes of it.
    pub tokens: [usize; 2],
    /// How many of these are in the other vocabulary too.
    pub covered: [usize; 2],
    /// Tokens of the left at whose end the right has a token's end too: where the two can be
    /// compared when each reads its own tokens.
    pub aligned: usize,
}

impl Comparison {
    /// Reads a text with both.
    ///
    /// # Errors
    /// Where a tokenizer refuses it.
    pub fn sample(&self, [left, right]: [&Tokenizer; 2], text: &str) -> Result<Sample, Error> {
        let spans = [Spans::whole(left, text)?, Spans::whole(right, text)?];
        let in_right =
            |id: &&u32| self.to_right.get(**id as usize).is_some_and(|id| *id != NOT_SHARED);
        let mut in_left = vec![false; self.sizes[1]];
        for &id in self.to_right.iter().filter(|&&id| id != NOT_SHARED) {
            in_left[id as usize] = true;
        }
        let has = |id: &&u32| in_left.get(**id as usize).is_some_and(|&has| has);
        let covered =
            [spans[0].ids.iter().filter(in_right).count(), spans[1].ids.iter().filter(has).count()];
        let matched = align(&spans[0].ends, &spans[1].ends);
        Ok(Sample {
            bytes: text.len(),
            tokens: [spans[0].ids.len(), spans[1].ids.len()],
            covered,
            aligned: matched.iter().filter(|&&at| at != UNMATCHED).count(),
        })
    }
}
