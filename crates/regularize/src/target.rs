//! The interfaces: a loss on a row, a distribution to be near to, and one that is learnt.

use std::fmt::Debug;

use crate::Row;
use crate::numbers::softmax;

/// What a row must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// A label; a row without one is left out: loss and gradient are 0.
    pub label: bool,
    /// The teacher's logits; a row without them is a mistake of the caller, who is stopped.
    pub teacher: bool,
    /// An earlier model's logits; likewise.
    pub earlier: bool,
    /// Features; likewise.
    pub features: bool,
    /// The slope of a second set's loss along the target, now and then: see [`Target::hear`].
    pub second_set: bool,
}

/// The numbers of a checkpoint do not belong to this target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// How many it expects.
    pub expected: usize,
    /// How many there were.
    pub found: usize,
}

/// A loss on the logits of one row.
///
/// A loss of a program's own keeps two laws: it is a function of the row and of what it has
/// gathered, which changes at a step's end alone and is all in [`Target::state`].
///
/// In a step: [`Target::loss`] of each row, [`Target::observe`] once for each row, [`Target::hear`]
/// once for each where a second set was asked, [`Target::end_of_step`]; after the last step of an
/// epoch [`Target::end_of_epoch`].
pub trait Target: Debug + Send {
    /// What it must be given.
    fn needs(&self) -> Needs;

    /// The loss of this row in nats, at least −∞ and at most +∞; writes ∂loss/∂logits into
    /// `d_logits`, `[K]`, always: zeros where the row is left out.
    ///
    /// # Panics
    /// Where the row lacks what [`Target::needs`] asks for, but for the label.
    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64;

    /// `q = softmax(z) − ∂loss/∂z`, `[K]`: the target whose cross-entropy has this loss's gradient.
    ///
    /// It sums to 1 for every loss that adding a constant to the logits does not change. Below 0 or
    /// above 1 it is where the loss is no label regularizer in the narrow sense. A row that is left
    /// out has the student's own distribution.
    fn effective_target(&self, row: &Row<'_>, q: &mut [f64]) {
        self.loss(row, q);
        for (q, s) in q.iter_mut().zip(softmax(row.logits, 1.0)) {
            *q = s - *q;
        }
    }

    /// Hears a row of a step that was computed.
    fn observe(&mut self, _row: &Row<'_>) {}

    /// Hears how a second set's loss moves with the target of this row: `d_q`, `[K]`, is ∂loss/∂q of
    /// the second set's loss after a step down `CE(q, s)`.
    ///
    /// # Panics
    /// Where something that learns stands in a place through which no such slope goes.
    fn hear(&mut self, _row: &Row<'_>, _d_q: &[f64]) {}

    /// Hears that all rows of a step have been observed.
    fn end_of_step(&mut self) {}

    /// Hears that all steps of an epoch are over.
    fn end_of_epoch(&mut self) {}

    /// All that it has gathered and learnt, as it must survive a crash.
    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Puts back what [`Target::state`] gave; nothing changes where that is refused.
    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        match state.len() {
            0 => Ok(()),
            found => Err(Restored { expected: 0, found }),
        }
    }
}

/// A target that is a distribution over the classes, a constant of the step it is used in: no
/// gradient goes through it. Its own loss is the cross-entropy from it to the student;
/// [`crate::Against`] has others.
pub trait SoftTarget: Target {
    /// Writes `q`, `[K]`, at least 0; `false`, and anything in `q`, for a row that is left out.
    ///
    /// It sums to 1, unless a combinator says otherwise.
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool;

    /// Writes `ln q`, `[K]`, −∞ where `q` is 0; the same otherwise.
    ///
    /// A softmax has the logarithm of a probability that is too small for a number; it overrides
    /// this, so that a power of it is right.
    fn ln_target(&self, row: &Row<'_>, ln_q: &mut [f64]) -> bool {
        let any = self.target(row, ln_q);
        ln_q.iter_mut().for_each(|q| *q = libm::log(*q));
        any
    }
}

/// A target with parameters that a second set of examples teaches.
///
/// The loss on the second set moves with `q`; [`Learned::pull_back`] turns its slope along `q` into
/// one along the parameters, which a [`crate::Learner`] follows.
pub trait Learned: SoftTarget {
    /// The parameters φ, as they lie in [`Target::state`].
    fn parameters(&self) -> &[f64];

    /// The same, to be moved.
    fn parameters_mut(&mut self) -> &mut [f64];

    /// Adds `(∂q/∂φ)ᵀ d_q` to `gradient`, `[φ]`; `d_q`, `[K]`, is ∂loss/∂q of the second set's loss.
    /// A row that is left out adds nothing. The logits are constants.
    fn pull_back(&self, row: &Row<'_>, d_q: &[f64], gradient: &mut [f64]);
}

/// Puts back a state that is the parameters alone.
pub(crate) fn replace(parameters: &mut [f64], state: &[f64]) -> Result<(), Restored> {
    if state.len() != parameters.len() {
        return Err(Restored { expected: parameters.len(), found: state.len() });
    }
    parameters.copy_from_slice(state);
    Ok(())
}
