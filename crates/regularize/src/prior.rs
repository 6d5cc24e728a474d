//! The label and a distribution that is the same for every sample: unigram label smoothing.
//!
//! Szegedy et al. 2016, arXiv:1512.00567, §7, with any `u(k)`; Pereyra, Tucker, Chorowski, Kaiser &
//! Hinton 2017, arXiv:1701.06548, with the classes' frequencies.

use crate::divergence::detached;
use crate::one_hot::mix_label;
use crate::{Needs, Row, SoftTarget, Target};

/// `(1 − ε)·y + ε·π`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// ε, `0.0..=1.0`.
    pub epsilon: f64,
    /// π, `[K]`, at least 0, sum 1.
    pub prior: Vec<f64>,
}

impl Target for Prior {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for Prior {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        q.copy_from_slice(&self.prior);
        mix_label(label, self.epsilon, q);
        true
    }
}
