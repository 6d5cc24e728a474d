//! Uncertainty weighting: a variance learnt for each loss.
//!
//! Kendall, Gal & Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
//! Geometry and Semantics", CVPR, arXiv:1705.07115. With `a = ln σ²` of a loss, the step's objective
//! is `Σ exp(−a)·ℓ + a/2`; its derivative with respect to `a` is `½ − exp(−a)·ℓ`, so that `a` settles
//! where the weight is `1/(2ℓ)`: the smaller a loss, the larger its weight.
//!
//! Two traps, both of which matter here. A loss that goes to 0, as a divergence between student and
//! teacher may, sends its weight to infinity: `a` is clamped. And the loss's offset counts: the
//! divergence and the cross-entropy with the teacher have the same gradients and other weights.

use crate::{At, Decision, Policy, Restored, Samples};

/// One weight per loss, learnt from the step's mean losses.
#[derive(Clone, Debug, PartialEq)]
pub struct Uncertainty {
    learning_rate: f64,
    bound: f64,
    /// `ln σ²`: label, each teacher.
    log_variances: Vec<f64>,
}

impl Uncertainty {
    /// Weights of one to begin with. `learning_rate`, positive, is that of plain gradient descent on
    /// `a`; `bound`, positive, is the largest size of `a`, so that weights stay in
    /// `exp(−bound)..=exp(bound)`.
    pub fn new(learning_rate: f64, bound: f64) -> Self {
        Self { learning_rate, bound, log_variances: vec![0.0; 2] }
    }

    /// The same for several teachers, each with a variance of its own.
    #[must_use]
    pub fn with_teachers(self, teachers: usize) -> Self {
        Self { log_variances: vec![0.0; 1 + teachers], ..self }
    }
}

impl Policy for Uncertainty {
    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let weights: Vec<f64> = self.log_variances.iter().map(|a| libm::exp(-a)).collect();
        Decision::repeated(samples.len(), &weights)
    }

    fn learn(&mut self, means: &[f64], _: At) {
        for (a, &mean) in self.log_variances.iter_mut().zip(means) {
            // Exactly 0 is the mean of no row, or of a student that is its teacher.
            if mean > 0.0 && mean.is_finite() {
                let slope = 0.5 - libm::exp(-*a) * mean;
                *a = (*a - self.learning_rate * slope).clamp(-self.bound, self.bound);
            }
        }
    }

    fn state(&self) -> Vec<f64> {
        self.log_variances.clone()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let expected = self.log_variances.len();
        if state.len() != expected {
            return Err(Restored { expected, found: state.len() });
        }
        self.log_variances.copy_from_slice(state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At { step: 0, total: 10, learning_rate: 1e-3 };

    fn weights(policy: &Uncertainty) -> [f64; 2] {
        let (ids, labels) = (&[0], &[None]);
        let (student, teacher, losses, features) = (&[0.0], &[0.0], &[0.0; 2], &[]);
        let samples = Samples { ids, labels, classes: 1, student, teacher, losses, features };
        policy.decide(&samples, AT).of(0)
    }

    /// By hand: `a = 0 − 0.1·(0.5 − 2)` and `0 − 0.1·(0.5 − 0.25)`.
    #[test]
    fn one_step_by_hand() {
        let mut policy = Uncertainty::new(0.1, 5.0);
        assert_eq!(weights(&policy), [1.0, 1.0]);
        policy.learn(&[2.0, 0.25], AT);
        for (got, want) in policy.state().into_iter().zip([0.15, -0.025]) {
            assert!((got - want).abs() < 1e-15, "{got}, should be {want}");
        }
    }

    #[test]
    fn the_slope_agrees_with_differences_of_the_objective() {
        let objective = |a: f64, mean: f64| (-a).exp() * mean + a / 2.0;
        for (start, mean) in [(0.0, 2.0), (0.7, 0.3), (-1.2, 0.05)] {
            let mut policy = Uncertainty::new(1.0, 100.0);
            policy.restore(&[start, 0.0]).expect("two numbers");
            policy.learn(&[mean, 0.0], AT);
            let slope = start - policy.state()[0];
            let step = 1e-6;
            let above = objective(start + step, mean);
            let want = (above - objective(start - step, mean)) / (2.0 * step);
            assert!((slope - want).abs() < 1e-9, "{slope}, should be {want}");
        }
    }

    #[test]
    fn weights_settle_at_half_the_inverse_of_a_constant_loss() {
        let mut policy = Uncertainty::new(0.1, 5.0);
        (0..2000).for_each(|_| policy.learn(&[2.0, 0.25], AT));
        let [label, teacher] = weights(&policy);
        assert!((label - 0.25).abs() < 1e-9 && (teacher - 2.0).abs() < 1e-9, "{label} {teacher}");
    }

    #[test]
    fn a_loss_that_vanishes_is_held_at_the_bound_and_one_without_rows_is_left() {
        let mut policy = Uncertainty::new(0.5, 2.0);
        (0..100).for_each(|_| policy.learn(&[0.0, 1e-9], AT));
        policy.learn(&[f64::NAN, f64::INFINITY], AT);
        assert_eq!(weights(&policy), [1.0, libm::exp(2.0)]);
    }

    /// By hand, as above, the third term with a mean of 1: `a = 0 − 0.1·(0.5 − 1)`.
    #[test]
    fn each_of_several_teachers_has_a_variance_of_its_own() {
        let mut policy = Uncertainty::new(0.1, 5.0).with_teachers(2);
        policy.learn(&[2.0, 0.25, 1.0], AT);
        for (got, want) in policy.state().into_iter().zip([0.15, -0.025, 0.05]) {
            assert!((got - want).abs() < 1e-15, "{got}, should be {want}");
        }
        let (ids, labels, losses) = (&[0], &[None], &[0.0; 3]);
        let (student, teacher, features) = (&[0.0], &[0.0; 2], &[]);
        let samples = Samples { ids, labels, classes: 1, student, teacher, losses, features };
        let decision = policy.decide(&samples, AT);
        assert_eq!((decision.terms, decision.weights.len()), (3, 3));
        let wrong = policy.restore(&[0.0; 2]);
        assert_eq!(wrong, Err(Restored { expected: 3, found: 2 }));
    }

    #[test]
    fn a_state_of_another_size_is_refused() {
        let wrong = Uncertainty::new(0.1, 5.0).restore(&[0.0; 3]);
        assert_eq!(wrong, Err(Restored { expected: 2, found: 3 }));
    }
}
