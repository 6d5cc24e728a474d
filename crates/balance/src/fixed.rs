//! One weight for all: `(1 − α)·label + α·teacher` (Hinton, Vinyals & Dean 2015, arXiv:1503.02531).

use crate::{At, Decision, Policy, Samples};

/// The same share of the teacher for every sample at every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fixed {
    /// α.
    pub alpha: f64,
}

impl Policy for Fixed {
    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        Decision::uniform(samples.len(), 1.0 - self.alpha, self.alpha)
    }
}
