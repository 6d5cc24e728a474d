//! Generalized entropy regularization: from the confidence penalty to label smoothing.
//!
//! Meister, Salesky & Cotterell 2020, "Generalized Entropy Regularization or: There's Nothing
//! Special about Label Smoothing", ACL, arXiv:2005.00820, §3: `CE(y, s) + β·J_a(u, s)` with the
//! skew Jensen divergence of negative entropies, which is, with `m = (1 − a)·u + a·s`,
//!
//! ```text
//! J_a(u, s) = (H(m) − (1 − a)·H(u) − a·H(s)) / (a·(1 − a)) = KL(u ‖ m)/a + KL(s ‖ m)/(1 − a).
//! ```
//!
//! `a → 0` is `KL(s ‖ u)`, the confidence penalty; `a → 1` is `KL(u ‖ s)`, label smoothing. The
//! second form is computed: the first divides a difference of almost equal numbers near the ends.

use crate::numbers::{kl, ln_softmax, through_softmax, times};
use crate::{Needs, Row, Target};

/// β and a of the divergence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeneralizedEntropy {
    /// β, at least 0.
    pub beta: f64,
    /// a, `0.0..=1.0`.
    pub skew: f64,
}

impl Target for GeneralizedEntropy {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        let Some(label) = row.label else {
            d_logits.fill(0.0);
            return 0.0;
        };
        let ln_s = ln_softmax(row.logits, 1.0);
        let s: Vec<f64> = ln_s.iter().map(|&ln_s| libm::exp(ln_s)).collect();
        let jensen = self.jensen(&s, &ln_s, d_logits);
        for (d, &s) in d_logits.iter_mut().zip(&s) {
            *d = s + self.beta * *d;
        }
        d_logits[label] -= 1.0;
        // Without a penalty an infinite one does not count.
        -ln_s[label] + times(self.beta, jensen)
    }
}

impl GeneralizedEntropy {
    /// `J_a(u, s)` in nats; writes its slope along the logits.
    fn jensen(&self, s: &[f64], ln_s: &[f64], d_logits: &mut [f64]) -> f64 {
        let (a, u) = (self.skew, 1.0 / s.len() as f64);
        if a == 1.0 {
            d_logits.iter_mut().zip(s).for_each(|(d, &s)| *d = s - u);
            return ln_s.iter().map(|&ln_s| u * (libm::log(u) - ln_s)).sum();
        }
        let m: Vec<f64> = s.iter().map(|&s| (1.0 - a) * u + a * s).collect();
        for ((d, &ln_s), &m) in d_logits.iter_mut().zip(ln_s).zip(&m) {
            *d = (ln_s - libm::log(m)) / (1.0 - a);
        }
        through_softmax(s, d_logits);
        let from_even = if a == 0.0 { 0.0 } else { kl(&vec![u; s.len()], &m) / a };
        from_even + kl(s, &m) / (1.0 - a)
    }
}
