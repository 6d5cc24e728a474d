//! LABO whose share and temperature are learnt.
//!
//! `q = (1 − α)·y + α·softmax(z/τ)` as in [`crate::Labo`], with `τ = 1 + exp(φ₀)` and `α = σ(φ₁)`:
//! no step can leave the range. φ moves down the loss of a second set; the logits are constants.

use crate::divergence::detached;
use crate::learned_smoothing::{logit, sigmoid};
use crate::numbers::{softmax, times};
use crate::one_hot::mix_label;
use crate::target::replace;
use crate::{Learned, Needs, Restored, Row, SoftTarget, Target};

/// φ, `[2]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearnedLabo {
    parameters: [f64; 2],
}

impl LearnedLabo {
    /// α between 0 and 1 and τ above 1, at first.
    pub fn new(alpha: f64, tau: f64) -> Self {
        assert!(tau > 1.0, "a learnt temperature begins above 1, not at {tau}");
        Self { parameters: [libm::log(tau - 1.0), logit(alpha)] }
    }

    /// τ.
    pub fn tau(&self) -> f64 {
        1.0 + libm::exp(self.parameters[0])
    }

    /// α.
    pub fn alpha(&self) -> f64 {
        sigmoid(self.parameters[1])
    }
}

impl Target for LearnedLabo {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    fn state(&self) -> Vec<f64> {
        self.parameters.to_vec()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        replace(&mut self.parameters, state)
    }
}

impl SoftTarget for LearnedLabo {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        q.copy_from_slice(&softmax(row.logits, self.tau()));
        mix_label(label, self.alpha(), q);
        true
    }
}

impl Learned for LearnedLabo {
    fn parameters(&self) -> &[f64] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [f64] {
        &mut self.parameters
    }

    /// `∂p/∂τ = −p·(z − Σ p·z)/τ²` of `p = softmax(z/τ)`, and `∂q/∂α = p − y`.
    fn pull_back(&self, row: &Row<'_>, d_q: &[f64], gradient: &mut [f64]) {
        let Some(label) = row.label else { return };
        let (tau, alpha, p) = (self.tau(), self.alpha(), softmax(row.logits, self.tau()));
        let mean = |of: &[f64]| p.iter().zip(of).map(|(&p, &x)| times(p, x)).sum::<f64>();
        let (mean_z, mean_d) = (mean(row.logits), mean(d_q));
        let terms = p.iter().zip(row.logits).zip(d_q);
        let along: f64 = terms.map(|((&p, &z), &d)| times(p, (z - mean_z) * d)).sum();
        gradient[0] += -alpha * along / (tau * tau) * (tau - 1.0);
        gradient[1] += (mean_d - d_q[label]) * alpha * (1.0 - alpha);
    }
}
