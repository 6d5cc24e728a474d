//! LABO: the optimal label regularizer is the student's own distribution, softened.
//!
//! Lu, Rashid, Kobyzev, Rezagholizadeh & Langlais 2023, "LABO: Towards Learning Optimal Label
//! Regularization via Bi-level Optimization", Findings of ACL, arXiv:2305.04971. The inner problem,
//! over distributions `P`, with `u` the even one, has a closed form:
//!
//! ```text
//! argmin CE(P, s) + τ·KL(P ‖ u) = softmax(z/τ).
//! ```
//!
//! The outer loss is cross-entropy to `q = (1 − α)·y + α·softmax(z/τ)`, the second part held fixed:
//! by the envelope theorem that is the exact gradient of the inner minimum. That minimum is, with
//! constants left out, `−(τ − 1)·H(s)` with Rényi's entropy of order `1/τ`: a penalty of strength
//! `α·(τ − 1)`. `τ → ∞` is label smoothing; `τ = 1` leaves `1 − α` of the plain gradient; below 1 it
//! would teach the student its own mistakes, and is refused.

use crate::divergence::detached;
use crate::numbers::softmax;
use crate::one_hot::mix_label;
use crate::{Needs, Row, Schedule, SoftTarget, Target};

/// The label and the student, softened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labo {
    alpha: Schedule,
    tau: Schedule,
}

impl Labo {
    /// The student's share α, `0.0..=1.0`, and its temperature τ, at least 1.
    ///
    /// # Panics
    /// Where α or τ leaves its range.
    pub fn new(alpha: impl Into<Schedule>, tau: impl Into<Schedule>) -> Self {
        let (alpha, tau) = (alpha.into(), tau.into());
        let share = |alpha| (0.0..=1.0).contains(&alpha);
        assert!(share(alpha.from) && share(alpha.to), "LABO's share lies in 0..=1: {alpha:?}");
        assert!(tau.from >= 1.0 && tau.to >= 1.0, "LABO's temperature is at least 1: {tau:?}");
        Self { alpha, tau }
    }
}

impl Target for Labo {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for Labo {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        q.copy_from_slice(&softmax(row.logits, self.tau.at(row.progress)));
        mix_label(label, self.alpha.at(row.progress), q);
        true
    }
}
