//! A learnt target and how it learns: Adam down the second set's loss.
//!
//! Kingma & Ba 2015, arXiv:1412.6980, with decoupled weight decay (Loshchilov & Hutter 2019,
//! arXiv:1711.05101). What a step's rows pull back is summed; a step in which none was heard moves
//! nothing, so that the second set may be asked every few steps.

use crate::divergence::detached;
use crate::{Learned, Needs, Restored, Row, SoftTarget, Target};

/// How parameters move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Step size, positive.
    pub learning_rate: f64,
    /// Part of a parameter, times the step size, that each step takes away; at least 0. It draws
    /// logits towards an even distribution.
    pub weight_decay: f64,
}

/// Decay of the first moment (Kingma & Ba 2015, §2).
const BETA1: f64 = 0.9;
/// Decay of the second.
const BETA2: f64 = 0.999;
/// Below every gradient that matters: those through a step of the student carry its learning rate,
/// and the usual 1e-8 would shorten their steps.
const EPSILON: f64 = 1e-16;

/// A learnt target that [`Target::hear`] teaches.
#[derive(Debug)]
pub struct Learner {
    target: Box<dyn Learned>,
    adam: Adam,
    steps: u64,
    /// First and second moments, `[φ]` each.
    moments: [Vec<f64>; 2],
    /// What this step's rows pulled back, `[φ]`; nothing where none was heard.
    gradient: Option<Vec<f64>>,
}

impl Learner {
    /// A target that has learnt nothing yet.
    pub fn new(target: Box<dyn Learned>, adam: Adam) -> Self {
        let moments = [(); 2].map(|()| vec![0.0; target.parameters().len()]);
        Self { target, adam, steps: 0, moments, gradient: None }
    }

    /// What learns.
    pub fn target(&self) -> &dyn Learned {
        &*self.target
    }

    fn step(&mut self, gradient: &[f64]) {
        self.steps += 1;
        let Adam { learning_rate, weight_decay } = self.adam;
        let unbiased = |beta: f64| 1.0 - libm::pow(beta, self.steps as f64);
        let [unbiased1, unbiased2] = [unbiased(BETA1), unbiased(BETA2)];
        let [first, second] = &mut self.moments;
        let parameters = self.target.parameters_mut().iter_mut();
        for ((parameter, slope), (m, v)) in
            parameters.zip(gradient).zip(first.iter_mut().zip(second))
        {
            *m = BETA1 * *m + (1.0 - BETA1) * slope;
            *v = BETA2 * *v + (1.0 - BETA2) * slope * slope;
            let towards = (*m / unbiased1) / ((*v / unbiased2).sqrt() + EPSILON);
            *parameter -= learning_rate * (towards + weight_decay * *parameter);
        }
    }
}

impl Target for Learner {
    fn needs(&self) -> Needs {
        Needs { second_set: true, ..self.target.needs() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    fn hear(&mut self, row: &Row<'_>, d_q: &[f64]) {
        let count = self.target.parameters().len();
        let gradient = self.gradient.get_or_insert_with(|| vec![0.0; count]);
        self.target.pull_back(row, d_q, gradient);
    }

    /// One step down what was heard; a gradient that is not finite changes nothing.
    fn end_of_step(&mut self) {
        let gradient = self.gradient.take().unwrap_or_default();
        if !gradient.is_empty() && gradient.iter().all(|slope| slope.is_finite()) {
            self.step(&gradient);
        }
    }

    /// Steps, parameters, first moments, second moments.
    fn state(&self) -> Vec<f64> {
        let [first, second] = &self.moments;
        [&[self.steps as f64], self.target.parameters(), first, second].concat()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let count = self.target.parameters().len();
        let wrong = Restored { expected: 1 + 3 * count, found: state.len() };
        let Some((&steps, rest)) = state.split_first() else { return Err(wrong) };
        if rest.len() != 3 * count {
            return Err(wrong);
        }
        self.steps = steps as u64;
        let [first, second] = &mut self.moments;
        for (place, values) in
            [self.target.parameters_mut(), first, second].into_iter().zip(rest.chunks_exact(count))
        {
            place.copy_from_slice(values);
        }
        self.gradient = None;
        Ok(())
    }
}

impl SoftTarget for Learner {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        self.target.target(row, q)
    }

    fn ln_target(&self, row: &Row<'_>, ln_q: &mut [f64]) -> bool {
        self.target.ln_target(row, ln_q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LearnedSmoothing;

    /// The first step of Adam is the learning rate whatever the gradient's size, down the slope: a
    /// loss that falls with the others' shares makes ε grow.
    #[test]
    fn first_steps_by_hand() {
        let adam = Adam { learning_rate: 0.1, weight_decay: 0.5 };
        let mut learner = Learner::new(Box::new(LearnedSmoothing::shared(0.5)), adam);
        let logits = [0.0, 1.0];
        let row = Row::new(Some(0), &logits);
        learner.end_of_step();
        assert_eq!(learner.state(), [0.0; 4]);
        learner.hear(&row, &[0.0, -1e-9]);
        learner.hear(&Row::new(None, &logits), &[5.0, 5.0]);
        learner.end_of_step();
        let phi = learner.target().parameters()[0];
        // The floor below the gradient's root.
        assert!((phi - 0.1).abs() < 1e-7, "{phi}");
        let kept = learner.state();
        learner.hear(&row, &[f64::NAN, 0.0]);
        learner.end_of_step();
        learner.end_of_step();
        assert_eq!(learner.state(), kept);
        learner.hear(&row, &[0.0, 1e9]);
        learner.end_of_step();
        assert!(learner.target().parameters()[0] < phi);
    }

    #[test]
    fn a_state_of_another_size_is_refused() {
        let adam = Adam { learning_rate: 0.1, weight_decay: 0.0 };
        let mut learner = Learner::new(Box::new(LearnedSmoothing::per_label(2, 0.5)), adam);
        assert_eq!(learner.restore(&[0.0; 6]), Err(Restored { expected: 7, found: 6 }));
        assert_eq!(learner.restore(&[]), Err(Restored { expected: 7, found: 0 }));
        assert_eq!(learner.restore(&[1.0; 7]), Ok(()));
        assert_eq!(learner.state(), [1.0; 7]);
    }
}
