//! How many floating-point operations an operation takes: multiplications and additions of its
//! products, by the shapes at hand.
//!
//! In: an operation, and where a sequence begins. Out: a count that depends on shapes alone, and so
//! is the same on every device. Never: norms, activations, softmaxes and sums of rows, whose numbers
//! are few beside those of the products; a multiplication and an addition are two.

use crate::device::{
    AdamW, AdamWRows, Attention, AttentionBackward, CachedAttention, Linear, LinearBackward, Mask,
    Relation,
};

/// Operations of AdamW on one number: 1 for the scaled gradient, 3 and 4 for the two moments, 5 for
/// the step that they give, 3 for the weight that it and the decay move.
const ADAMW: u64 = 16;

impl Linear {
    /// `2 N I O`.
    pub(crate) fn operations(&self) -> u64 {
        2 * (self.x.rows() * self.w.len()) as u64
    }
}

impl LinearBackward {
    /// `2 N I O` for each of the two gradients that are asked for.
    pub(crate) fn operations(&self) -> u64 {
        let gradients = u64::from(self.dx.is_some()) + u64::from(self.dw.is_some());
        gradients * 2 * (self.dy.rows() * self.w.len()) as u64
    }
}

/// Pairs of a query and a key that it sees, over all sequences.
fn pairs(mask: Mask, starts: &[u32]) -> u64 {
    let of = |bounds: &[u32]| {
        let length = (bounds[1] - bounds[0]) as usize;
        match mask {
            Mask::Full => (length * length) as u64,
            Mask::Causal { .. } => {
                (0..length).map(|position| mask.keys(position, length).len() as u64).sum()
            }
        }
    };
    starts.windows(2).map(of).sum()
}

impl Attention {
    /// `4 H D` for each pair: a score, and its part of the output.
    pub(crate) fn operations(&self, starts: &[u32]) -> u64 {
        4 * self.out.cols() as u64 * pairs(self.mask, starts)
    }
}

impl AttentionBackward {
    /// `10 H D` for each pair: the score once more, the gradients of its probability, of the value,
    /// of the query and of the key.
    pub(crate) fn operations(&self, starts: &[u32]) -> u64 {
        10 * self.d_out.cols() as u64 * pairs(self.forward.mask, starts)
    }
}

impl CachedAttention {
    /// `4 H D` for each kept row that is seen.
    pub(crate) fn operations(&self, lengths: &[u32]) -> u64 {
        let (_, room) = self.each_and_room();
        let seen: usize =
            lengths.iter().map(|&length| self.seen(length as usize, room).len()).sum();
        4 * (self.out.cols() * seen) as u64
    }
}

impl Relation {
    /// Scores of both sides, `2 C` for each pair, and of the gradients of the student's two sides as
    /// much again each.
    pub(crate) fn operations(&self, starts: &[u32]) -> u64 {
        let (ours, theirs) = (self.a.cols() as u64, self.teacher_a.cols() as u64);
        let gradients = if self.gradients.is_some() { 2 } else { 0 };
        2 * ((1 + gradients) * ours + theirs) * pairs(Mask::Full, starts)
    }
}

impl AdamW<'_> {
    /// [`ADAMW`] for each number.
    pub(crate) fn operations(&self) -> u64 {
        ADAMW * self.spans.iter().map(|span| span.len() as u64).sum::<u64>()
    }
}

impl AdamWRows<'_> {
    /// [`ADAMW`] for each number of a row that has a gradient. What rows catch up with is left out:
    /// how much that is depends on when somebody looks.
    pub(crate) fn operations(&self) -> u64 {
        match self.rows {
            Some(rows) if self.has_gradient => ADAMW * (rows.len() * self.tables[0].cols()) as u64,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_those_that_a_mask_lets_see() {
        let starts = [0, 4, 5, 8];
        assert_eq!(pairs(Mask::Full, &starts), 16 + 1 + 9);
        assert_eq!(pairs(Mask::Causal { window: None }, &starts), 10 + 1 + 6);
        assert_eq!(pairs(Mask::Causal { window: Some(2) }, &starts), 7 + 1 + 5);
    }
}
