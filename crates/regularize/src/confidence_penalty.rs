//! The confidence penalty: cross-entropy less entropy.
//!
//! Pereyra, Tucker, Chorowski, Kaiser & Hinton 2017, "Regularizing Neural Networks by Penalizing
//! Confident Output Distributions", arXiv:1701.06548, §3: `CE(y, s) − β·H(s)`, up to a constant
//! `CE(y, s) + β·KL(s ‖ uniform)`. Its effective target `y − β·s·(ln s + H(s))` has the sum 1 and
//! entries of either sign.

use crate::numbers::{ln_softmax, times};
use crate::{Needs, Row, Target};

/// β of the entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfidencePenalty {
    /// β, at least 0.
    pub beta: f64,
}

impl Target for ConfidencePenalty {
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
            *d = libm::exp(ln_s) - self.beta * *d;
        }
        d_logits[label] -= 1.0;
        -ln_s[label] - self.beta * entropy
    }
}

/// `H(s)` in nats; writes its slope along the logits, `−s·(ln s + H(s))`.
pub(crate) fn entropy_slope(ln_s: &[f64], d_logits: &mut [f64]) -> f64 {
    let entropy = -ln_s.iter().map(|&ln_s| times(libm::exp(ln_s), ln_s)).sum::<f64>();
    for (d, &ln_s) in d_logits.iter_mut().zip(ln_s) {
        *d = -times(libm::exp(ln_s), ln_s + entropy);
    }
    entropy
}
