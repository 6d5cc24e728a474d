//! Distillation on logits: `factor · KL(softmax(t/T) ‖ softmax(z/T))`, the forward divergence.
//!
//! Hinton, Vinyals & Dean 2015, arXiv:1503.02531, §2. With `factor = T²` the gradient's size does
//! not depend on T, so a mixture with the label loss keeps its balance when T changes.

use heirloom_engine::{Target, View};

/// The divergence from the teacher's softened distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TeacherTerm {
    /// T.
    pub temperature: f64,
    /// Whether the loss carries T².
    pub scale_by_temperature_squared: bool,
}

impl TeacherTerm {
    pub(crate) fn target(self, logits: View) -> Target {
        let squared = self.temperature * self.temperature;
        let factor = if self.scale_by_temperature_squared { squared } else { 1.0 };
        Target::Teacher { logits, temperature: self.temperature, factor }
    }
}
