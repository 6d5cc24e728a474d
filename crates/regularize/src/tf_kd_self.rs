//! Tf-KD by self-training: the same network, trained before, is the teacher.
//!
//! Yuan et al. 2020, arXiv:1909.11723:
//! `(1 − α)·CE(y, s) + α·T²·KL(softmax(e/T) ‖ softmax(z/T))`, `e` the earlier model's logits. With
//! T = 1 it is cross-entropy to `(1 − α)·y + α·softmax(e)`, up to a constant.
//!
//! Deviation: the sum over classes and no multiplier; see [`crate::TfKdReg`].

use crate::numbers::{softmax, times};
use crate::{Divergence, Needs, OneHot, Row, Target};

/// The label and an earlier model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TfKdSelf {
    /// α of the earlier model, `0.0..=1.0`.
    pub alpha: f64,
    /// T, above 0.
    pub temperature: f64,
}

impl Target for TfKdSelf {
    fn needs(&self) -> Needs {
        Needs { label: true, earlier: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        let label = OneHot.loss(row, d_logits);
        if row.label.is_none() {
            return 0.0;
        }
        let temperature = self.temperature;
        let mut slope = vec![0.0; row.classes()];
        let q = softmax(row.earlier(), temperature);
        let earlier = Divergence::Kl { temperature }.of(&q, row.logits, &mut slope);
        for (d, slope) in d_logits.iter_mut().zip(slope) {
            *d = (1.0 - self.alpha) * *d + self.alpha * slope;
        }
        times(1.0 - self.alpha, label) + times(self.alpha, earlier)
    }
}
