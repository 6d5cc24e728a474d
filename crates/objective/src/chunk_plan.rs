//! How much of a chunked head's work is done at a time, and the memory that takes.

use heirloom_base::Bytes;
use heirloom_engine::{ArenaPlan, Device, Reference, View};

use crate::TeacherVocabulary;

/// Memory for logits where nobody says otherwise. A vocabulary of 152,064 then has chunks of 126 rows
/// with the logits of student and teacher and the gradient: enough that reading the head's matrix
/// for each chunk costs little beside the products.
pub const LOGITS_BUDGET: Bytes = Bytes(256 << 20);

/// Rows of a chunk come in multiples of this, which a product's tiles, of 6 or 14 rows by the width of
/// the registers, fill without a remainder.
const BAND: usize = 42;

/// What a chunked head is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlan {
    /// Most tokens of a micro-batch, N.
    pub tokens: usize,
    /// V.
    pub vocabulary: usize,
    /// Whether the teacher's logits are computed here ([`TeacherTokens::States`](crate::TeacherTokens::States)), of one or
    /// of several.
    pub computes_teacher: bool,
    /// Whether there are gradients.
    pub train: bool,
    /// Memory for logits, of `f32`; see [`LOGITS_BUDGET`]. Less than a row needs is one row.
    pub budget: Bytes,
}

impl ChunkPlan {
    /// Rows of a chunk: as many as the budget holds, a multiple of 42 where it holds that many, at
    /// least one, at most N.
    pub fn rows(&self) -> usize {
        self.rows_beside(None)
    }

    /// As [`ChunkPlan::rows`], beside a teacher of another vocabulary.
    pub(crate) fn rows_beside(&self, other: Option<TeacherVocabulary>) -> usize {
        let row = (self.row(other) * size_of::<f32>()).max(1) as u64;
        let held = usize::try_from(self.budget.0 / row).unwrap_or(usize::MAX);
        if held >= self.tokens {
            return self.tokens;
        }
        let whole = held - held % BAND;
        if whole > 0 { whole } else { held.max(1) }
    }

    /// Memory that [`ChunkedHead::new`](crate::ChunkedHead::new) asks for with `terms` losses, in `f32`:
    /// `4 · (matrices · rows · V + terms · N)` bytes, each slot rounded up to a line of 64.
    pub fn bytes_needed(&self, terms: usize) -> Bytes {
        self.bytes_beside(terms, None)
    }

    /// As [`ChunkPlan::bytes_needed`], for [`ChunkedHead::between`](crate::ChunkedHead::between). Where tokens are shared, there
    /// is one matrix `[rows, V]` more.
    pub fn bytes_needed_between(&self, terms: usize, other: TeacherVocabulary) -> Bytes {
        self.bytes_beside(terms, Some(other))
    }

    fn bytes_beside(&self, terms: usize, other: Option<TeacherVocabulary>) -> Bytes {
        let mut plan = ArenaPlan::new(Reference::<f32>::new().alloc(0));
        Scratch::plan(&mut plan, self, terms, other);
        Bytes((plan.peak() * size_of::<f32>()) as u64)
    }

    /// Numbers for a row: the student's logits, and where needed the teacher's, these by the
    /// student's tokens, and the gradient.
    fn row(&self, other: Option<TeacherVocabulary>) -> usize {
        let shared = other.is_some_and(|other| other.shared.is_some());
        let own = 1 + usize::from(shared) + usize::from(self.train);
        let teacher = other.map_or(self.vocabulary, |other| other.size);
        own * self.vocabulary + usize::from(self.computes_teacher) * teacher
    }
}

/// Slots of one chunk, and the losses of all rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scratch {
    pub(crate) logits: View,
    /// Those of the teacher that the terms at hand hear.
    pub(crate) teacher: Option<View>,
    /// The teacher's logits in the places of the student's tokens.
    pub(crate) placed: Option<View>,
    pub(crate) d_logits: Option<View>,
    /// Of each term, one below the other, `[terms · N, 1]`.
    pub(crate) losses: View,
}

impl Scratch {
    pub(crate) fn plan(
        plan: &mut ArenaPlan,
        chunk: &ChunkPlan,
        terms: usize,
        other: Option<TeacherVocabulary>,
    ) -> Self {
        let (rows, own) = (chunk.rows_beside(other), chunk.vocabulary);
        let teacher = other.map_or(own, |other| other.size);
        let shared = other.is_some_and(|other| other.shared.is_some());
        let mut matrix = |columns| plan.take(rows, columns);
        Self {
            logits: matrix(own),
            teacher: chunk.computes_teacher.then(|| matrix(teacher)),
            placed: shared.then(|| matrix(own)),
            d_logits: chunk.train.then(|| matrix(own)),
            losses: plan.take(terms * chunk.tokens, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget in rows of student, teacher and gradient.
    fn plan(tokens: usize, rows: u64) -> ChunkPlan {
        let budget = Bytes(rows * 3 * 1000 * 4);
        ChunkPlan { tokens, vocabulary: 1000, computes_teacher: true, train: true, budget }
    }

    #[test]
    fn a_chunk_is_what_the_budget_holds_in_whole_bands_but_at_least_a_row() {
        let of = |tokens, rows| plan(tokens, rows).rows();
        assert_eq!([of(10, 0), of(10, 1), of(10, 9), of(10, 10), of(10, 11)], [1, 1, 9, 10, 10]);
        assert_eq!([of(500, 41), of(500, 83), of(500, 200), of(500, 499)], [41, 42, 168, 462]);
        assert_eq!([of(500, 500), of(8192, 1 << 20), of(0, 1)], [500, 8192, 0]);
    }

    #[test]
    fn losses_alone_have_room_for_more_rows() {
        let plan = ChunkPlan { computes_teacher: false, train: false, ..plan(90, 10) };
        assert_eq!(plan.rows(), 30);
        // Two losses of ninety rows, rounded up to lines.
        assert_eq!(plan.bytes_needed(2), Bytes(4 * (30_000 + 192)));
    }

    #[test]
    fn the_budget_of_whoever_says_nothing_holds_three_bands_of_a_large_vocabulary() {
        let budget = LOGITS_BUDGET;
        assert_eq!(ChunkPlan { vocabulary: 152_064, budget, ..plan(8192, 0) }.rows(), 126);
        assert_eq!(ChunkPlan { vocabulary: 32_000, budget, ..plan(8192, 0) }.rows(), 672);
    }
}
