//! From a distribution to a loss: how far the student is from it.

use crate::numbers::{cross_entropy, ln_softmax, times};
use crate::{Needs, Restored, Row, SoftTarget, Target};

/// How far a student's distribution is from a target `q` that is held fixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// `−Σ q ln s`, at temperature 1; slope `(Σq)·s − q`, also where `q` is signed.
    CrossEntropy,
    /// `T²·KL(q ‖ softmax(z/T))` (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, §2); slope
    /// `T·(softmax(z/T) − q)`. The target is not softened: it brings its own temperature.
    Kl {
        /// T, above 0.
        temperature: f64,
    },
    /// `T²·KL(softmax(z/T) ‖ q)`; slope `T·s·(ln(s/q) − KL(s ‖ q))`, `s` at T. Infinite
    /// where `q` lacks a class that the student has, with a slope of 0: there is none to follow.
    ReverseKl {
        /// T, above 0.
        temperature: f64,
    },
}

impl Divergence {
    /// The divergence in nats from `q`, `[K]`, to the student; writes its slope, `[K]`.
    pub fn of(self, q: &[f64], logits: &[f64], d_logits: &mut [f64]) -> f64 {
        match self {
            Self::CrossEntropy => {
                let ln_s = ln_softmax(logits, 1.0);
                forward_slope(q, &ln_s, 1.0, d_logits);
                cross_entropy(q, &ln_s)
            }
            Self::Kl { temperature: t } => {
                let ln_s = ln_softmax(logits, t);
                forward_slope(q, &ln_s, t, d_logits);
                let terms = q.iter().zip(&ln_s).map(|(&q, &ln_s)| times(q, libm::log(q) - ln_s));
                t * t * terms.sum::<f64>()
            }
            Self::ReverseKl { temperature: t } => {
                let ln_s = ln_softmax(logits, t);
                for ((d, &ln_s), &q) in d_logits.iter_mut().zip(&ln_s).zip(q) {
                    *d = ln_s - libm::log(q);
                }
                let s: Vec<f64> = ln_s.into_iter().map(libm::exp).collect();
                let kl: f64 = s.iter().zip(&*d_logits).map(|(&s, &ratio)| times(s, ratio)).sum();
                if kl == f64::INFINITY {
                    d_logits.fill(0.0);
                    return kl;
                }
                d_logits.iter_mut().zip(&s).for_each(|(d, &s)| *d = t * times(s, *d - kl));
                t * t * kl
            }
        }
    }
}

/// `T·((Σq)·s − q)`.
fn forward_slope(q: &[f64], ln_s: &[f64], temperature: f64, d_logits: &mut [f64]) {
    let total: f64 = q.iter().sum();
    for ((d, &ln_s), &q) in d_logits.iter_mut().zip(ln_s).zip(q) {
        *d = temperature * (total * libm::exp(ln_s) - q);
    }
}

/// Cross-entropy from a target to the student in nats, and its slope `(Σq)·s − q` in `d`, `[K]`: the
/// [`Target::loss`] of every [`SoftTarget`] that is held fixed. 0 and no slope for a row that is left out.
pub fn detached<T: SoftTarget + ?Sized>(target: &T, row: &Row<'_>, d: &mut [f64]) -> f64 {
    against(target, Divergence::CrossEntropy, row, d)
}

fn against<T: SoftTarget + ?Sized>(
    target: &T,
    divergence: Divergence,
    row: &Row<'_>,
    d_logits: &mut [f64],
) -> f64 {
    let mut q = vec![0.0; row.classes()];
    if !target.target(row, &mut q) {
        d_logits.fill(0.0);
        return 0.0;
    }
    divergence.of(&q, row.logits, d_logits)
}

/// A distribution as target, with another divergence than the cross-entropy.
#[derive(Debug)]
pub struct Against {
    /// What the student is to be near to.
    pub target: Box<dyn SoftTarget>,
    /// What near means.
    pub divergence: Divergence,
}

impl Target for Against {
    fn needs(&self) -> Needs {
        self.target.needs()
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        against(&*self.target, self.divergence, row, d_logits)
    }

    fn hear(&mut self, row: &Row<'_>, d_q: &[f64]) {
        let taught = self.divergence == Divergence::CrossEntropy || !self.needs().second_set;
        assert!(taught, "a target that learns is taught through a cross-entropy alone");
        self.target.hear(row, d_q);
    }

    fn observe(&mut self, row: &Row<'_>) {
        self.target.observe(row);
    }

    fn end_of_step(&mut self) {
        self.target.end_of_step();
    }

    fn end_of_epoch(&mut self) {
        self.target.end_of_epoch();
    }

    fn state(&self) -> Vec<f64> {
        self.target.state()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        self.target.restore(state)
    }
}
