//! Tf-KD by regularization: a teacher that nobody trained.
//!
//! Yuan, Tay, Li, Wang & Feng 2020, "Revisiting Knowledge Distillation via Label Smoothing
//! Regularization", CVPR, arXiv:1909.11723: the virtual teacher gives the label the probability
//! `a` and the others `(1 − a)/(K − 1)` each, softened by a temperature T;
//! `q = (1 − α)·y + α·p^T`, the student at temperature 1.
//!
//! The published code softens `softmax(p/T)`, of probabilities where logits belong: at K = 100,
//! a = 0.99 and T = 20 the label has 0.0105 and the others 0.0100, almost label smoothing.
//! `softmax(ln p/T)` gives 0.0157 and 0.0099. Both are here, by name.
//!
//! Deviation: the authors average the divergence over samples *and* classes and multiply it by a
//! number of their choice; here it is the sum over classes.

use crate::divergence::detached;
use crate::label_smoothing::{Spread, smooth};
use crate::numbers::softmax;
use crate::one_hot::mix_label;
use crate::{Needs, Row, SoftTarget, Target};

/// What the temperature divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Softening {
    /// Probabilities, as the authors' code does.
    Published,
    /// Their logarithms, as a temperature is meant.
    Correct,
}

/// The label and a virtual teacher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TfKdReg {
    /// α of the teacher, `0.0..=1.0`.
    pub alpha: f64,
    /// a of the label in the teacher, `0.0..=1.0`; the authors' is 0.99.
    pub confidence: f64,
    /// T, above 0; the authors' is 20.
    pub temperature: f64,
    /// What T divides.
    pub softening: Softening,
}

impl Target for TfKdReg {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for TfKdReg {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        smooth(label, 1.0 - self.confidence, Spread::OtherClasses, q);
        if self.softening == Softening::Correct {
            q.iter_mut().for_each(|q| *q = libm::log(*q));
        }
        q.copy_from_slice(&softmax(q, self.temperature));
        mix_label(label, self.alpha, q);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the module's text.
    #[test]
    fn the_published_teacher_is_almost_even() {
        let both = |softening| {
            let (logits, mut q) = ([0.0; 100], [0.0; 100]);
            let (alpha, confidence, temperature) = (1.0, 0.99, 20.0);
            let target = TfKdReg { alpha, confidence, temperature, softening };
            assert!(target.target(&Row::new(Some(3), &logits), &mut q));
            [q[3], q[4]].map(|q| (q * 1e4).round())
        };
        assert_eq!(both(Softening::Published), [105.0, 100.0]);
        assert_eq!(both(Softening::Correct), [157.0, 99.0]);
    }
}
