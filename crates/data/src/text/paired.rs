//! The same text in the tokens of two models, row beside row.
//!
//! In: documents and two tokenizers. Out: rows of the student's tokens, the teacher's tokens for the
//! same bytes, and which of the teacher's positions each of the student's is held against.
//! Never: a pair of positions that have not read the same bytes of their document since the row
//! began.

use std::ops::Range;

use heirloom_base::{Digest, Hasher};

use super::prepare::Prepared;
use super::{Corpus, NOT_LEARNT, Row, Rows, TextError};
use crate::align::{NO_END, UNMATCHED, align, ends_of};
use crate::error::Error;
use crate::tokens::Tokenizer;

/// A row of both models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paired {
    /// The student's tokens, `[L]`.
    pub student: Row,
    /// The teacher's, `[Lₜ]`: the same documents; nothing is learnt of them.
    pub teacher: Row,
    /// For each of the student's positions the teacher's that has read the same bytes and foresees
    /// what the student is to learn, or [`UNMATCHED`], `[L]`.
    pub matched: Vec<u32>,
}

/// Rows of two models, in memory: twelve bytes for each of the student's tokens and four for each of
/// the teacher's.
#[derive(Clone, Debug)]
pub struct PairedRows {
    ids: Vec<u32>,
    labels: Vec<u32>,
    /// Places in the teacher's part of a piece.
    matched: Vec<u32>,
    teacher: Vec<u32>,
    pieces: Vec<Piece>,
    /// Pieces before each row, and of all.
    rows: Vec<usize>,
    lengths: [usize; 2],
    dropped: u64,
}

/// A document, or the part of one between two bytes at which both tokenizations have an end.
#[derive(Clone, Debug)]
struct Piece {
    student: Range<usize>,
    teacher: Range<usize>,
    bytes: u64,
}

/// One side's tokens of a document.
struct Side {
    ids: Vec<u32>,
    ends: Vec<u32>,
}

impl PairedRows {
    /// The documents of `corpus` in rows of at most `lengths` tokens of student and teacher. A special
    /// token of the corpus before or after documents is put to the tokens of either model that has it. A
    /// document that is longer than a row is cut where both tokenizations have an end; what lies between
    /// two common ends that are farther apart than a row is left out, and counted.
    ///
    /// # Errors
    /// Where a document is not as it should be, or none is left.
    pub fn build(
        corpus: &Corpus,
        [student, teacher]: [&Tokenizer; 2],
        lengths: [usize; 2],
    ) -> Result<Self, Error> {
        if let Some(&length) = lengths.iter().find(|&&length| length < 2) {
            return Err(TextError::RowLength { length }.into());
        }
        let mut rows = Self {
            ids: Vec::new(),
            labels: Vec::new(),
            matched: Vec::new(),
            teacher: Vec::new(),
            pieces: Vec::new(),
            rows: vec![0],
            lengths,
            dropped: 0,
        };
        let around = corpus.around();
        corpus.for_each(|document| rows.take(&document, [student, teacher], around))?;
        if rows.pieces.is_empty() {
            return Err(TextError::NothingLeft { dropped: rows.dropped }.into());
        }
        rows.rows.push(rows.pieces.len());
        Ok(rows)
    }

    /// The student's tokens that are in no row.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The student's tokens that are held against one of the teacher's, and those with something to
    /// learn.
    pub fn matched(&self) -> [usize; 2] {
        let matched = self.matched.iter().filter(|&&at| at != UNMATCHED).count();
        [matched, self.labels.iter().filter(|&&label| label != NOT_LEARNT).count()]
    }

    /// The teacher's tokens of a row.
    pub fn teacher_length(&self, row: usize) -> usize {
        self.pieces_of(row).iter().map(|piece| piece.teacher.len()).sum()
    }

    /// Reads row number `row` of both, whose memory is kept.
    pub fn read_pair(&self, row: usize, into: &mut Paired) {
        self.read(row, &mut into.student);
        into.teacher.clear();
        into.teacher.starts.push(0);
        into.matched.clear();
        for piece in self.pieces_of(row) {
            let before = into.teacher.ids.len() as u32;
            let place = |&at: &u32| if at == UNMATCHED { at } else { before + at };
            into.matched.extend(self.matched[piece.student.clone()].iter().map(place));
            into.teacher.ids.extend_from_slice(&self.teacher[piece.teacher.clone()]);
            into.teacher.starts.push(into.teacher.ids.len() as u32);
        }
        into.teacher.labels.resize(into.teacher.ids.len(), NOT_LEARNT);
    }

    fn pieces_of(&self, row: usize) -> &[Piece] {
        &self.pieces[self.rows[row]..self.rows[row + 1]]
    }

    fn take(
        &mut self,
        document: &Prepared,
        tokenizers: [&Tokenizer; 2],
        [begin, end]: [Option<&str>; 2],
    ) -> Result<(), Error> {
        let Prepared { text, learnt } = document;
        let tokens = tokenizers[0].encode_text(text)?;
        let of_teacher = tokenizers[1].encode_text(text)?;
        let mut learnt: Vec<bool> =
            tokens.spans.iter().map(|span| document_learns(learnt.as_deref(), *span)).collect();
        let mut bytes = tokens.bytes;
        let mut sides = [(tokens.ids, tokens.spans), (of_teacher.ids, of_teacher.spans)]
            .map(|(ids, spans)| Side { ends: ends_of(&spans), ids });
        for (side, tokenizer) in sides.iter_mut().zip(tokenizers) {
            if let Some(id) = begin.and_then(|token| tokenizer.id(token)) {
                side.ids.insert(0, id);
                side.ends.insert(0, 0);
            }
            if let Some(id) = end.and_then(|token| tokenizer.id(token)) {
                side.ids.push(id);
                side.ends.push(NO_END);
            }
        }
        // As many more as were put before and after.
        if sides[0].ids.len() > learnt.len() && begin.is_some_and(|t| tokenizers[0].id(t).is_some())
        {
            learnt.insert(0, document.learnt.is_none());
            bytes.insert(0, 0);
        }
        learnt.resize(sides[0].ids.len(), true);
        bytes.resize(sides[0].ids.len(), 0);
        self.cut(&sides, &learnt, &bytes);
        Ok(())
    }

    /// Cuts a document into pieces.
    fn cut(&mut self, [student, teacher]: &[Side; 2], learnt: &[bool], bytes: &[usize]) {
        let matched = align(&student.ends, &teacher.ends);
        let pairs = matched.iter().enumerate().filter(|(_, at)| **at != UNMATCHED);
        // One past each pair, and the ends of both.
        let mut cuts: Vec<[usize; 2]> =
            pairs.map(|(at, &other)| [at + 1, other as usize + 1]).collect();
        let whole = [student.ids.len(), teacher.ids.len()];
        if cuts.last() != Some(&whole) {
            cuts.push(whole);
        }
        let fits = |from: [usize; 2], to: [usize; 2]| {
            (0..2).all(|side| to[side] - from[side] <= self.lengths[side])
        };
        let (mut from, mut next, mut parts) = ([0; 2], 0, Vec::new());
        while next < cuts.len() {
            let end = cuts[next..].iter().take_while(|&&to| fits(from, to)).count();
            if end == 0 {
                self.dropped += (cuts[next][0] - from[0]) as u64;
                (from, next) = (cuts[next], next + 1);
                continue;
            }
            let to = cuts[next + end - 1];
            parts.push([from[0]..to[0], from[1]..to[1]]);
            (from, next) = (to, next + end);
        }
        for [of_student, of_teacher] in parts {
            // What is behind the last token of the document is nobody's to foresee.
            let label = |at: usize| match student.ids.get(at + 1) {
                Some(&id) if learnt[at + 1] => id,
                _ => NOT_LEARNT,
            };
            let labels: Vec<u32> = of_student.clone().map(label).collect();
            let place = |(at, &label): (usize, &u32)| match matched[at] {
                other if label == NOT_LEARNT || other == UNMATCHED => UNMATCHED,
                other => other - of_teacher.start as u32,
            };
            let matched: Vec<u32> = of_student.clone().zip(&labels).map(place).collect();
            let of_labels = of_student.clone().zip(&labels).filter(|(_, l)| **l != NOT_LEARNT);
            let bytes = of_labels.map(|(at, _)| bytes[at + 1] as u64).sum();
            self.add(
                [&student.ids[of_student], &teacher.ids[of_teacher]],
                &labels,
                &matched,
                bytes,
            );
        }
    }

    fn add(&mut self, ids: [&[u32]; 2], labels: &[u32], matched: &[u32], bytes: u64) {
        if ids.iter().any(|ids| ids.is_empty()) {
            self.dropped += ids[0].len() as u64;
            return;
        }
        let first = self.rows.last().copied().unwrap_or(0);
        let [mut here, mut there] = ids.map(<[u32]>::len);
        for piece in &self.pieces[first..] {
            here += piece.student.len();
            there += piece.teacher.len();
        }
        if self.pieces.len() > first && (here > self.lengths[0] || there > self.lengths[1]) {
            self.rows.push(self.pieces.len());
        }
        let ranges = [self.ids.len(), self.teacher.len()];
        self.ids.extend_from_slice(ids[0]);
        self.labels.extend_from_slice(labels);
        self.matched.extend_from_slice(matched);
        self.teacher.extend_from_slice(ids[1]);
        let student = ranges[0]..self.ids.len();
        let teacher = ranges[1]..self.teacher.len();
        self.pieces.push(Piece { student, teacher, bytes });
    }
}

/// Whether a token at `span` is to be foreseen.
fn document_learns(learnt: Option<&[Range<usize>]>, (start, end): (usize, usize)) -> bool {
    let inside = |part: &Range<usize>| {
        part.start < end && if start < end { start < part.end } else { end <= part.end }
    };
    learnt.is_none_or(|parts| parts.iter().any(inside))
}

/// The student's rows.
impl Rows for PairedRows {
    fn len(&self) -> usize {
        self.rows.len() - 1
    }

    fn length(&self, row: usize) -> usize {
        self.pieces_of(row).iter().map(|piece| piece.student.len()).sum()
    }

    fn read(&self, row: usize, into: &mut Row) {
        into.clear();
        into.starts.push(0);
        for piece in self.pieces_of(row) {
            into.ids.extend_from_slice(&self.ids[piece.student.clone()]);
            into.labels.extend_from_slice(&self.labels[piece.student.clone()]);
            into.starts.push(into.ids.len() as u32);
            into.bytes += piece.bytes;
        }
    }

    fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        let bytes =
            |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        for part in [&self.ids, &self.labels, &self.matched, &self.teacher] {
            hasher.part(&bytes(part));
        }
        for row in self.rows.windows(2) {
            hasher.part(&(row[1] as u64).to_le_bytes());
        }
        for piece in &self.pieces {
            hasher.part(&(piece.student.end as u64).to_le_bytes());
            hasher.part(&(piece.teacher.end as u64).to_le_bytes());
        }
        hasher.digest()
    }
}
