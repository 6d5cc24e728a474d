//! The teacher's distribution where few tokens of it are known.

use heirloom_engine::{Divergence, Ids, Missing, SparseLoss, SparseTarget, Target, View};

/// What is kept of a teacher's answers to N tokens: K tokens of each, their probabilities, and what
/// all others have together. See [`SparseTarget`] for the order.
#[derive(Clone, Copy, Debug)]
pub struct KnownTokens {
    /// Known tokens, `[N · K]`, [`IGNORED`](heirloom_engine::IGNORED) behind them.
    pub ids: Ids,
    /// Their probabilities at the term's temperature, `[N, K]`.
    pub probabilities: View,
    /// What all others have, `[N, 1]`.
    pub rest: View,
}

/// A comparison with [`KnownTokens`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SparseTerm {
    /// What is measured.
    pub loss: SparseLoss,
    /// What becomes of the tokens that are not known.
    pub missing: Missing,
    /// T: that at which the answers were kept.
    pub temperature: f64,
    /// Whether the loss carries T² (Hinton et al. 2015, arXiv:1503.02531).
    pub scale_by_temperature_squared: bool,
}

impl SparseTerm {
    /// Why the term cannot be taken, where it cannot. `drawn` says that the known tokens were drawn
    /// from the teacher: a loss that is not linear in its probabilities then has a mean that is none
    /// of the teacher's.
    pub fn refusal(&self, drawn: bool) -> Option<&'static str> {
        let linear = matches!(
            self.loss,
            SparseLoss::CrossEntropy | SparseLoss::Divergence(Divergence::ForwardKl)
        );
        if drawn && !linear {
            return Some(
                "of draws only the cross-entropy and the gradient of forward_kl have the teacher's mean",
            );
        }
        SparseTarget::refusal(self.loss, self.missing)
    }

    /// The engine's target for some rows.
    pub(crate) fn target(&self, known: KnownTokens) -> Target {
        let KnownTokens { ids, probabilities, rest } = known;
        let Self { loss, missing, temperature, .. } = *self;
        let factor =
            if self.scale_by_temperature_squared { temperature * temperature } else { 1.0 };
        Target::Sparse(SparseTarget {
            ids,
            probabilities,
            rest,
            loss,
            missing,
            temperature,
            factor,
        })
    }
}

impl KnownTokens {
    /// The rows of `range`.
    pub(crate) fn rows(self, range: std::ops::Range<usize>) -> Self {
        let width = self.probabilities.cols();
        Self {
            ids: self.ids.range(range.start * width..range.end * width),
            probabilities: self.probabilities.row_range(range.clone()),
            rest: self.rest.row_range(range),
        }
    }
}
