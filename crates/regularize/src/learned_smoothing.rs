//! Label smoothing whose strength is learnt: `q = (1 − ε)·y + ε/K`, `ε = σ(φ)`.
//!
//! One φ for all labels, or one for each. It moves down the loss of a second set.

use crate::divergence::detached;
use crate::label_smoothing::{Spread, smooth};
use crate::target::replace;
use crate::{Learned, Needs, Restored, Row, SoftTarget, Target};

/// φ, `[1]` or `[K]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedSmoothing {
    logits: Vec<f64>,
}

impl LearnedSmoothing {
    /// One strength for all labels, ε at first, above 0 and below 1.
    pub fn shared(epsilon: f64) -> Self {
        Self { logits: vec![logit(epsilon)] }
    }

    /// One strength for each label, ε at first, above 0 and below 1.
    pub fn per_label(classes: usize, epsilon: f64) -> Self {
        Self { logits: vec![logit(epsilon); classes] }
    }

    /// ε of a label.
    pub fn epsilon(&self, label: usize) -> f64 {
        sigmoid(self.logits[self.place(label)])
    }

    fn place(&self, label: usize) -> usize {
        if self.logits.len() == 1 { 0 } else { label }
    }
}

impl Target for LearnedSmoothing {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    fn state(&self) -> Vec<f64> {
        self.logits.clone()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        replace(&mut self.logits, state)
    }
}

impl SoftTarget for LearnedSmoothing {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        smooth(label, self.epsilon(label), Spread::AllClasses, q);
        true
    }
}

impl Learned for LearnedSmoothing {
    fn parameters(&self) -> &[f64] {
        &self.logits
    }

    fn parameters_mut(&mut self) -> &mut [f64] {
        &mut self.logits
    }

    fn pull_back(&self, row: &Row<'_>, d_q: &[f64], gradient: &mut [f64]) {
        let Some(label) = row.label else { return };
        let epsilon = self.epsilon(label);
        let mean = d_q.iter().sum::<f64>() / d_q.len() as f64;
        gradient[self.place(label)] += (mean - d_q[label]) * epsilon * (1.0 - epsilon);
    }
}

/// `1/(1 + exp(−x))`.
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// The inverse of [`sigmoid`].
pub(crate) fn logit(p: f64) -> f64 {
    assert!(p > 0.0 && p < 1.0, "a learnt share begins between 0 and 1, not at {p}");
    libm::log(p) - libm::log1p(-p)
}
