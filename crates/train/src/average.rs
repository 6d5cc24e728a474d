//! An average of the weights, which is judged and kept while training goes on with the weights
//! themselves.
//!
//! In: the weights after a step, and how many were averaged before. Out: a twin of the weights.
//! Never: a weight of its own that a rare step rounds away from the mean of equal ones.

use heirloom_engine::{Device, Params, Space, View};
use heirloom_recipe::Average;

use crate::Learned;

/// The average of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Averaging {
    how: Average,
    /// A twin of the weights; zero while nothing is averaged.
    pub(crate) space: Space,
}

impl Averaging {
    /// Plans the average of `params` where the plan has one.
    pub(crate) fn new(device: &mut dyn Device, how: Average, params: &Params) -> Option<Self> {
        (!how.is_none()).then(|| Self { how, space: device.alloc(params.len()) })
    }

    /// Takes in the weights after step `step`, if they are due; `averaged` counts those that were.
    /// `moved` says that the step was not left out.
    pub(crate) fn hear(
        &self,
        device: &mut dyn Device,
        student: &mut Learned,
        averaged: &mut u64,
        step: u64,
        moved: bool,
    ) {
        if !due(self.how, step, moved) {
            return;
        }
        // Rows of the word embeddings that were not seen have moved as well.
        student.catch_up(device);
        *averaged += 1;
        let weights = student.params.flat(student.params.weights());
        device.lerp(rate(self.how, *averaged), weights, self.flat(&student.params));
    }

    /// Calls `judge` with the average in the place of the weights, which then come back, bit for bit.
    /// They wait in the gradient's place, which is empty between steps and is so again.
    pub(crate) fn in_place<T>(
        &self,
        device: &mut dyn Device,
        student: &Learned,
        judge: impl FnOnce(&mut dyn Device) -> T,
    ) -> T {
        let params = &student.params;
        let [weights, aside] = [params.weights(), student.grads].map(|space| params.flat(space));
        device.copy(weights, aside);
        device.copy(self.flat(params), weights);
        let judged = judge(device);
        device.copy(aside, weights);
        student.clear(device);
        judged
    }

    fn flat(&self, params: &Params) -> View {
        params.flat(self.space)
    }
}

/// Whether the weights after step `step` are taken in.
fn due(how: Average, step: u64, moved: bool) -> bool {
    match how {
        Average::None => false,
        Average::Swa { from_step, every } => {
            step >= from_step && (step - from_step).is_multiple_of(every.max(1))
        }
        Average::Ema { .. } => moved,
    }
}

/// How far the average goes towards the n-th weights, from above 0 to 1.
///
/// `1/n` for an equal mean (Izmailov et al. 2018, algorithm 1). `(1 − β)/(1 − βⁿ)` for an exponential
/// one: the mean of n weights, those k steps old weighing `βᵏ`, divided by the sum of what they weigh.
/// That is Adam's correction (Kingma & Ba 2015, section 3): without it the first weights, or zeros,
/// would count for `βⁿ`, which is nearly all of a run that is shorter than `1/(1 − β)` steps.
fn rate(how: Average, n: u64) -> f64 {
    match how {
        Average::None => 0.0,
        Average::Swa { .. } => 1.0 / n as f64,
        Average::Ema { decay } => (1.0 - decay) / (1.0 - decay.powf(n as f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_due_start_where_the_plan_says_and_keep_their_distance() {
        let steps = |how| (1..=12).filter(|&step| due(how, step, true)).collect::<Vec<_>>();
        assert_eq!(steps(Average::Swa { from_step: 4, every: 3 }), [4, 7, 10]);
        assert_eq!(steps(Average::Swa { from_step: 0, every: 5 }), [5, 10]);
        assert_eq!(steps(Average::Swa { from_step: 12, every: 1 }), [12]);
        assert_eq!(steps(Average::Ema { decay: 0.9 }).len(), 12);
        assert!(steps(Average::None).is_empty());
        assert!(!due(Average::Ema { decay: 0.9 }, 3, false), "a step that was left out");
    }

    #[test]
    fn rates_give_the_weights_that_the_definitions_say() {
        // What each of n weights counts in the end: its rate, times what later ones leave of it.
        let shares = |how, n: u64| -> Vec<f64> {
            let left = |at| (at + 1..=n).map(|later| 1.0 - rate(how, later)).product::<f64>();
            (1..=n).map(|at| rate(how, at) * left(at)).collect()
        };
        for (how, beta) in [
            (Average::Swa { from_step: 1, every: 1 }, 1.0),
            (Average::Ema { decay: 0.9 }, 0.9),
            (Average::Ema { decay: 0.999 }, 0.999),
            (Average::Ema { decay: 0.0 }, 0.0),
        ] {
            let n = 7;
            let powers: Vec<f64> = (0..n).rev().map(|age| f64::powi(beta, age)).collect();
            let total: f64 = powers.iter().sum();
            for (found, power) in shares(how, n as u64).iter().zip(&powers) {
                assert!((found - power / total).abs() < 1e-12, "{how:?}: {found}");
            }
            assert_eq!(rate(how, 1), 1.0, "the first weights are taken whole");
        }
    }
}
