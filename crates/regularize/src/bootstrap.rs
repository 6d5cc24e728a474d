//! Bootstrapping: the label and what the student believes.
//!
//! Reed, Lee, Anguelov, Szegedy, Erhan & Rabinovich 2015, "Training Deep Neural Networks on Noisy
//! Labels with Bootstrapping", ICLR workshop, arXiv:1412.6596.

use crate::confidence_penalty::entropy_slope;
use crate::divergence::detached;
use crate::numbers::{largest, ln_softmax, times};
use crate::one_hot::{mix_label, toward_label};
use crate::{Needs, Row, SoftTarget, Target};

/// `−Σ (β·y + (1 − β)·s)·ln s = β·CE(y, s) + (1 − β)·H(s)`: the gradient goes through the `s` of
/// the target as well, as in the paper, which makes it a *reward* for confidence.
///
/// Held fixed, the student's own part would have no gradient: that loss is `β` times the plain one,
/// and [`crate::Labo`] at τ = 1 has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BootstrapSoft {
    /// β of the label, `0.0..=1.0`; the authors' is 0.95.
    pub beta: f64,
}

impl Target for BootstrapSoft {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        let Some(label) = row.label else {
            d_logits.fill(0.0);
            return 0.0;
        };
        let ln_s = ln_softmax(row.logits, 1.0);
        let entropy = entropy_slope(&ln_s, d_logits);
        for (d, &ln_s) in d_logits.iter_mut().zip(&ln_s) {
            *d = self.beta * libm::exp(ln_s) + (1.0 - self.beta) * *d;
        }
        d_logits[label] -= self.beta;
        times(self.beta, -ln_s[label]) + (1.0 - self.beta) * entropy
    }
}

/// `q = β·y + (1 − β)·one-hot(argmax z)`; of equals the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BootstrapHard {
    /// β of the label, `0.0..=1.0`; the authors' is 0.8.
    pub beta: f64,
}

impl Target for BootstrapHard {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for BootstrapHard {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        toward_label(largest(row.logits), 1.0, q);
        mix_label(label, 1.0 - self.beta, q);
        true
    }
}
