//! The loss against labels: cross-entropy, binary cross-entropy, or squared error.
//!
//! `−ln softmax(z)[y]`; the mean over labels of `−y ln σ(z) − (1 − y) ln(1 − σ(z))`; `(z − y)²`:
//! what `transformers` uses for `single_label_classification`, `multi_label_classification` and
//! `regression`.

use heirloom_engine::{HiddenDistance, Target};
use serde::{Deserialize, Serialize};

use crate::Labels;

/// Which loss holds the output against the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelLoss {
    /// One class per row.
    CrossEntropy,
    /// Any subset of the labels.
    BinaryCrossEntropy,
    /// A number.
    MeanSquaredError,
}

impl LabelLoss {
    /// The engine's target for these labels.
    ///
    /// # Panics
    /// Where the labels are not of the loss's kind, which the plan excludes.
    pub(crate) fn target(self, labels: Labels) -> Target {
        match (self, labels) {
            (Self::CrossEntropy, Labels::Classes(classes)) => Target::Labels(classes),
            (Self::BinaryCrossEntropy, Labels::Numbers(numbers)) => Target::Binary(numbers),
            (Self::MeanSquaredError, Labels::Numbers(numbers)) => {
                Target::Distance(HiddenDistance::MeanSquared, numbers)
            }
            _ => unreachable!("the plan gives {self:?} the labels it needs"),
        }
    }
}
