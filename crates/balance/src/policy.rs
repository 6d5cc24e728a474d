//! The interface of all policies.

use std::fmt::Debug;

use crate::{Alignments, At, Decision, Samples};

/// What a policy must be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Alignments with a second set's gradient.
    pub alignments: bool,
    /// What the classifier sees.
    pub features: bool,
    /// All samples of a step in one call of [`Policy::decide`]: it ranks or averages over them, and
    /// a step cut into micro-batches would be decided otherwise.
    pub together: bool,
}

/// The numbers of a checkpoint do not belong to this policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// How many it expects.
    pub expected: usize,
    /// How many there were.
    pub found: usize,
}

/// Decides the weights of a step's losses.
///
/// A policy of a program's own keeps three laws, which those of this crate's tests are held to. It is a
/// function of what it is given and has learnt: no clock, no random words but addressed ones. What it has
/// learnt changes at a step's end alone, so that a step may be cut anywhere, and all of it is in
/// [`Policy::state`]. A decision has a weight for each loss of each sample it was asked about, none
/// below 0.
///
/// In a step: [`Policy::align`] where alignments were measured for it, with all its samples at once;
/// [`Policy::decide`] and then [`Policy::observe`] for each micro-batch; [`Policy::learn`] or
/// [`Policy::leave_out`] at its end.
pub trait Policy: Debug + Send {
    /// What it must be given.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Hears how far each loss would help the second set.
    fn align(&mut self, _alignments: &Alignments<'_>, _at: At) {}

    /// The weights of some samples, constants of this step.
    fn decide(&self, samples: &Samples<'_>, at: At) -> Decision;

    /// Hears the samples of a micro-batch, once each in a step, for sums that [`Policy::learn`] uses
    /// and empties.
    fn observe(&mut self, _samples: &Samples<'_>, _at: At) {}

    /// Hears the step's mean losses, label and each teacher, `[1 + T]`, once all of it has been
    /// computed.
    fn learn(&mut self, _means: &[f64], _at: At) {}

    /// Hears, in place of [`Policy::learn`], that the step was left out as it was not finite: what
    /// [`Policy::observe`] gathered of it is dropped.
    fn leave_out(&mut self) {}

    /// All that it has learnt, as it must survive a crash; asked for between steps.
    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Puts back what [`Policy::state`] gave.
    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        match state.len() {
            0 => Ok(()),
            found => Err(Restored { expected: 0, found }),
        }
    }
}
