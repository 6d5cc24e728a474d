//! A learnt distribution for each class of label.
//!
//! `q = softmax(φ[y])`, φ of shape `[K, K]`, moved down the loss of a second set: label smoothing with
//! classes that are confused with one another, and how much, found out in training.

use crate::divergence::detached;
use crate::label_smoothing::{Spread, smooth};
use crate::numbers::{softmax, through_softmax};
use crate::target::replace;
use crate::{Learned, Needs, Restored, Row, SoftTarget, Target};

/// φ, `[K, K]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PerClass {
    classes: usize,
    logits: Vec<f64>,
}

impl PerClass {
    /// Begins at the label smoothed by ε over all classes, ε above 0 and at most 1.
    ///
    /// # Panics
    /// Where ε is not: without a start on every class none could be learnt.
    pub fn new(classes: usize, epsilon: f64) -> Self {
        assert!(epsilon > 0.0 && epsilon <= 1.0, "smoothing {epsilon} is above 0 and at most 1");
        let mut logits = vec![0.0; classes * classes];
        for (label, row) in logits.chunks_exact_mut(classes).enumerate() {
            smooth(label, epsilon, Spread::AllClasses, row);
            row.iter_mut().for_each(|q| *q = libm::log(*q));
        }
        Self { classes, logits }
    }

    fn of(&self, label: usize) -> &[f64] {
        &self.logits[label * self.classes..][..self.classes]
    }
}

impl Target for PerClass {
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

impl SoftTarget for PerClass {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        q.copy_from_slice(&softmax(self.of(label), 1.0));
        true
    }
}

impl Learned for PerClass {
    fn parameters(&self) -> &[f64] {
        &self.logits
    }

    fn parameters_mut(&mut self) -> &mut [f64] {
        &mut self.logits
    }

    fn pull_back(&self, row: &Row<'_>, d_q: &[f64], gradient: &mut [f64]) {
        let Some(label) = row.label else { return };
        let mut slope = d_q.to_vec();
        through_softmax(&softmax(self.of(label), 1.0), &mut slope);
        let own = &mut gradient[label * self.classes..][..self.classes];
        own.iter_mut().zip(slope).for_each(|(sum, slope)| *sum += slope);
    }
}
