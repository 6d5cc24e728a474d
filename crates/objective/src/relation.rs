//! Relations between the tokens of a sequence, held against the teacher's.
//!
//! MiniLM (Wang et al. 2020, arXiv:2002.10957): attention distributions (queries with keys) and
//! value relations of the last block. MiniLMv2 (Wang et al. 2021, arXiv:2012.15828): relations of
//! queries, keys and values with themselves, in any number of relation heads, so that student and
//! teacher may differ in heads and width. TinyBERT (Jiao et al. 2020, arXiv:1909.10351, eq. 7):
//! squared difference of attention scores.

use heirloom_engine::{Device, Relation, RelationMeasure, View};

use crate::Insides;
use crate::objective::Scratch;

/// One of the three projections of a block's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
}

impl Side {
    /// Its columns of `[N, 3C]`: of models with as many heads of keys as of queries.
    fn of(self, qkv: View) -> View {
        let width = qkv.cols() / 3;
        let part = self as usize;
        qkv.columns(part * width..(part + 1) * width)
    }
}

/// One relation of one pair of blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RelationTerm {
    /// Left and right side of the scores.
    pub sides: (Side, Side),
    /// Student's block, from 1.
    pub student: usize,
    /// Teacher's block, from 1.
    pub teacher: usize,
    /// Relation heads; they divide both widths.
    pub heads: usize,
    /// How scores are compared.
    pub measure: RelationMeasure,
}

impl RelationTerm {
    /// Writes each token's loss and returns their view; adds gradients where `scale` is given.
    pub(crate) fn losses(
        &self,
        device: &mut dyn Device,
        insides: &Insides<'_>,
        scratch: &Scratch,
        scale: Option<f64>,
    ) -> View {
        let Insides { student: ours, teacher, batch } = *insides;
        let tokens = batch.tokens();
        let student = ours.qkv(self.student).first_rows(tokens);
        let teacher = teacher.qkv(self.teacher).first_rows(tokens);
        let losses = scratch.losses.first_rows(tokens);
        let tap = ours.d_qkv_tap(self.student).map(|tap| tap.first_rows(tokens));
        device.relation(&Relation {
            a: self.sides.0.of(student),
            b: self.sides.1.of(student),
            teacher_a: self.sides.0.of(teacher),
            teacher_b: self.sides.1.of(teacher),
            heads: self.heads,
            starts: batch.starts(),
            longest: batch.longest(),
            measure: self.measure,
            scale: scale.unwrap_or(0.0),
            losses,
            gradients: scale.and(tap).map(|tap| (self.sides.0.of(tap), self.sides.1.of(tap))),
        });
        losses
    }
}
