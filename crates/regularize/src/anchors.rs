//! Distributions that need no label: parts of mixes, anchors of [`crate::entropic()`].

use crate::divergence::detached;
use crate::numbers::{ln_softmax, softmax};
use crate::{Needs, Row, SoftTarget, Target};

/// Even over the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uniform;

/// The same for every sample, as the classes' frequencies are.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// `[K]`, at least 0, sum 1.
    pub q: Vec<f64>,
}

/// The student's own distribution, held fixed: `softmax(z/T)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Student {
    /// T, above 0.
    pub temperature: f64,
}

/// The teacher's: `softmax(u/T)` (Hinton, Vinyals & Dean 2015, arXiv:1503.02531).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Teacher {
    /// T, above 0.
    pub temperature: f64,
}

impl Target for Uniform {
    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for Uniform {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        q.fill(1.0 / row.classes() as f64);
        true
    }
}

impl Target for Constant {
    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for Constant {
    fn target(&self, _: &Row<'_>, q: &mut [f64]) -> bool {
        q.copy_from_slice(&self.q);
        true
    }
}

impl Target for Student {
    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for Student {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        q.copy_from_slice(&softmax(row.logits, self.temperature));
        true
    }

    fn ln_target(&self, row: &Row<'_>, ln_q: &mut [f64]) -> bool {
        ln_q.copy_from_slice(&ln_softmax(row.logits, self.temperature));
        true
    }
}

impl Target for Teacher {
    fn needs(&self) -> Needs {
        Needs { teacher: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for Teacher {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        q.copy_from_slice(&softmax(row.teacher(), self.temperature));
        true
    }

    fn ln_target(&self, row: &Row<'_>, ln_q: &mut [f64]) -> bool {
        ln_q.copy_from_slice(&ln_softmax(row.teacher(), self.temperature));
        true
    }
}
