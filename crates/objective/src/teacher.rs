//! Distillation on logits: `factor · D(softmax(t/T), softmax(z/T))`, `D` the forward divergence or
//! another.
//!
//! Hinton, Vinyals & Dean 2015, arXiv:1503.02531, §2. With `factor = T²` the gradient's size does
//! not depend on T, so a mixture with the label loss keeps its balance when T changes.

use heirloom_engine::{Divergence, Target, View};

use crate::Labels;

/// The divergence from the teacher's softened distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TeacherTerm {
    /// Which divergence.
    pub divergence: Divergence,
    /// T.
    pub temperature: f64,
    /// Whether the loss carries T². Squared differences of logits, in which T has no part, never
    /// do.
    pub scale_by_temperature_squared: bool,
}

impl TeacherTerm {
    /// The engine's target. A row without a label counts too: its divergence needs none, or is
    /// then the forward one ([`Divergence::Decoupled`]).
    pub(crate) fn target(self, logits: View, labels: Labels) -> Target {
        let Self { divergence, temperature, .. } = self;
        let squared = matches!(divergence, Divergence::MeanSquaredLogits { .. });
        let scaled = self.scale_by_temperature_squared && !squared;
        let factor = if scaled { temperature * temperature } else { 1.0 };
        let labels = match labels {
            Labels::Classes(classes) => Some(classes),
            Labels::Numbers(_) => None,
        };
        Target::Teacher { logits, divergence, temperature, factor, labels }
    }
}
