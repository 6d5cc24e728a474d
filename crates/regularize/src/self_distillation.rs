//! Self-distillation: an earlier model of the same kind is the teacher.
//!
//! Furlanello, Lipton, Tschannen, Itti & Anandkumar 2018, "Born-Again Neural Networks", ICML,
//! arXiv:1805.04770: the generation before, alone, at temperature 1. With an average of the weights
//! as the earlier model it is the mean teacher of Tarvainen & Valpola 2017, arXiv:1703.01780, with
//! a cross-entropy in place of their squared error.

use crate::divergence::detached;
use crate::numbers::{ln_softmax, softmax};
use crate::{Needs, Row, SoftTarget, Target};

/// `softmax(e/T)` of the earlier model's logits `e`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfDistillation {
    /// T, above 0.
    pub temperature: f64,
}

impl Target for SelfDistillation {
    fn needs(&self) -> Needs {
        Needs { earlier: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for SelfDistillation {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        q.copy_from_slice(&softmax(row.earlier(), self.temperature));
        true
    }

    fn ln_target(&self, row: &Row<'_>, ln_q: &mut [f64]) -> bool {
        ln_q.copy_from_slice(&ln_softmax(row.earlier(), self.temperature));
        true
    }
}
