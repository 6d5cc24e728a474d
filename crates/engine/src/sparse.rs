//! A teacher of which each row knows a few classes: what is measured, and what becomes of the rest.

use crate::{Divergence, Ids, View};

/// The teacher's probabilities of a few classes of each row, and how the student is held against
/// them: `factor · loss`. No number of the other classes is read or made.
///
/// With S the classes that a row knows, `p` their probabilities, `r` what the others have together,
/// and `q = softmax(x/T)` the student, of which the classes outside S have `q_r` together:
///
/// | [`Missing`] | compared are | over |
/// |---|---|---|
/// | `TailBucket` | `(p, r)` and `(q, q_r)` | S and one class for all others |
/// | `Renormalise` | `(p / Σ p, 0)` and `(q, q_r)` | the same, which for the losses allowed is the value over all V classes with `p = 0` outside S |
/// | `Zero` | `p` and `q` | S; `p` sums to `1 − r` |
///
/// A row that knows no class has loss 0 and gradient 0. Where S is all classes, all three are the
/// dense loss ([`Target::Teacher`](crate::Target::Teacher)), but for the entropy that
/// [`SparseLoss::CrossEntropy`] leaves out.
#[derive(Clone, Copy, Debug)]
pub struct SparseTarget {
    /// S of each row, K places each, `[R · K]`: ascending, each once, and behind them
    /// [`IGNORED`](crate::IGNORED) where there are fewer.
    pub ids: Ids,
    /// `p`, in the order of `ids`, `[R, K]`; at temperature T. What stands beside `IGNORED` is not
    /// read.
    pub probabilities: View,
    /// `r` of each row, `[R, 1]`; not read but by [`Missing::TailBucket`].
    pub rest: View,
    /// What is measured.
    pub loss: SparseLoss,
    /// What becomes of the rest.
    pub missing: Missing,
    /// T, positive: that of `probabilities`, which cannot be changed afterwards.
    pub temperature: f64,
    /// T² as a rule.
    pub factor: f64,
}

/// What is measured on a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SparseLoss {
    /// `−Σ p ln q`: the forward divergence plus the entropy of `p`, with the same gradient. Its mean
    /// over samples drawn from the teacher is that of the whole distribution, which no function
    /// with `ln p` in it can have.
    CrossEntropy,
    /// A divergence.
    Divergence(Divergence),
}

/// What becomes of the probability that the teacher gave to classes which the row does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is one class, on both sides. Nothing is taught of how it is spread; a student that agrees
    /// with the teacher has gradient 0.
    TailBucket,
    /// It goes to the known classes in their shares. A student that agrees with the teacher is still
    /// pulled away from the other classes.
    Renormalise,
    /// It is left out: those classes ask for nothing, and the known ones for no more than theirs. The
    /// gradient by the logits is `(1 − r) q − p` over T: that of `Renormalise`, `1 − r` times as long.
    Zero,
}

impl SparseTarget {
    /// Why a loss cannot be taken of a few classes, where it cannot.
    pub fn refusal(loss: SparseLoss, missing: Missing) -> Option<&'static str> {
        use Divergence::{
            AlphaBeta, Decoupled, ForwardKl, MeanSquaredLogits, ReverseKl, SkewReverseKl, Symmetric,
        };
        let SparseLoss::Divergence(divergence) = loss else { return None };
        match (divergence, missing) {
            (Decoupled { .. }, _) => Some("it needs the teacher's probability of the label"),
            (MeanSquaredLogits { .. }, _) => Some("it needs every logit of the teacher"),
            (_, Missing::TailBucket) | (ForwardKl, _) => None,
            (_, Missing::Zero) => {
                Some("it compares distributions, and what is left does not sum to 1")
            }
            (
                ReverseKl | Symmetric | SkewReverseKl { alpha: 0.0 } | AlphaBeta { .. },
                Missing::Renormalise,
            ) => Some("it is infinite where the teacher has 0 and the student has not"),
            (_, Missing::Renormalise) => None,
        }
    }

    /// K.
    ///
    /// # Panics
    /// Where a shape is not the one documented, or the loss is [refused](Self::refusal).
    pub(crate) fn width(&self, rows: usize) -> usize {
        let width = self.probabilities.cols();
        assert_eq!(self.probabilities.rows(), rows, "rows of the known probabilities");
        assert_eq!(self.ids.len(), rows * width, "one id beside each known probability");
        assert_eq!((self.rest.rows(), self.rest.cols()), (rows, 1), "one rest per row");
        if let Some(why) = Self::refusal(self.loss, self.missing) {
            panic!("{:?} of a few classes with {:?}: {why}", self.loss, self.missing);
        }
        width
    }
}
