//! A network that gives a sample's weights, and learns what would help a second set.
//!
//! After one virtual step of the student, `θ − (η/n) Σ w ∇ℓ`, the second set's loss has the
//! derivative `−(η/n)·⟨v, ∇ℓ⟩` with respect to a weight `w`: the sample's alignment. That, through
//! the network's backward pass, is all it learns from. Alignments may be measured with the second
//! set's gradient where the step begins or where it ends: the former is exact for weights of zero, and
//! of first order in η beside them.

use crate::network::{Adam, Learner, Network, Pace};
use crate::{Alignments, At, LABEL, Restored, TEACHER};

/// What a network's outputs mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Two, the logistic function of each a loss's weight, `0.0..=1.0`.
    Weights,
    /// One, its logistic function the teacher's share λ; the label has 1 − λ.
    Share,
}

impl Output {
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Weights => 2,
            Self::Share => 1,
        }
    }
}

/// The network and what its outputs mean.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Controller {
    learner: Learner,
    output: Output,
}

impl Controller {
    /// `hidden` layers between `inputs` and the outputs.
    pub(crate) fn new(
        inputs: usize,
        hidden: &[usize],
        output: Output,
        seed: u64,
        adam: Adam,
    ) -> Self {
        let widths = [&[inputs], hidden, &[output.width()]].concat();
        Self { learner: Learner::new(Network::new(&widths, seed), adam), output }
    }

    /// The weights of one sample: label, teacher.
    pub(crate) fn weights(&self, input: &[f64], labelled: bool) -> [f64; 2] {
        let layers = self.learner.network.forward(input);
        self.read(&layers[layers.len() - 1], labelled)
    }

    /// One step down the second set's loss. `inputs` of each sample, in the order of `alignments`.
    pub(crate) fn learn(&mut self, inputs: &[Vec<f64>], alignments: &Alignments<'_>, at: At) {
        if !inputs.is_empty() {
            let gradient = self.gradient(inputs, alignments, at);
            self.learner.step(&gradient, at.progress());
        }
    }

    pub(crate) fn set_pace(&mut self, pace: Pace) {
        self.learner.pace = pace;
    }

    pub(crate) fn state(&self) -> Vec<f64> {
        self.learner.state()
    }

    pub(crate) fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        self.learner.restore(state)
    }

    /// Of the second set's loss with respect to the network's parameters.
    fn gradient(&self, inputs: &[Vec<f64>], alignments: &Alignments<'_>, at: At) -> Vec<f64> {
        let network = &self.learner.network;
        let factor = -at.learning_rate / inputs.len() as f64;
        let mut gradient = vec![0.0; network.parameters().len()];
        for (row, input) in inputs.iter().enumerate() {
            let layers = network.forward(input);
            let [label, teacher] = alignments.of(row).map(|alignment| factor * alignment);
            let labelled = alignments.samples.labels[row].is_some();
            let slopes = match self.output {
                Output::Weights => vec![if labelled { label } else { 0.0 }, teacher],
                // Without a label the share does not change anything.
                Output::Share if labelled => vec![teacher - label],
                Output::Share => continue,
            };
            let outputs = &layers[layers.len() - 1];
            let inner = slopes.iter().zip(outputs).map(|(slope, &x)| {
                let y = logistic(x);
                slope * y * (1.0 - y)
            });
            network.backward(&layers, &inner.collect::<Vec<_>>(), &mut gradient);
        }
        gradient
    }

    fn read(&self, outputs: &[f64], labelled: bool) -> [f64; 2] {
        match self.output {
            Output::Weights => {
                let label = if labelled { logistic(outputs[LABEL]) } else { 0.0 };
                [label, logistic(outputs[TEACHER])]
            }
            Output::Share if labelled => {
                let share = logistic(outputs[0]);
                [1.0 - share, share]
            }
            Output::Share => [0.0, 1.0],
        }
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// A number that a network can take: within ±100, where a loss in nats or a logit says no more, and
/// 0 for what is no number.
pub(crate) fn tame(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x.clamp(-100.0, 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Samples;

    const AT: At = At { step: 2, total: 9, learning_rate: 0.1 };
    const ADAM: Adam = Adam { learning_rate: 1e-3, weight_decay: 0.0 };
    const LABELS: [Option<u32>; 3] = [Some(0), None, Some(1)];
    const VALUES: [f64; 6] = [2.0, -1.0, 0.5, 3.0, -4.0, 0.25];

    fn alignments() -> Alignments<'static> {
        let (student, teacher, losses, features) = (&[], &[], &[], &[]);
        let (ids, labels) = (&[0, 1, 2], &LABELS);
        let samples = Samples { ids, labels, classes: 2, student, teacher, losses, features };
        Alignments { samples, values: &VALUES }
    }

    fn inputs() -> Vec<Vec<f64>> {
        vec![vec![0.3, 1.2], vec![0.0, 0.4], vec![2.0, 0.1]]
    }

    /// The second set's loss after the virtual step, to first order: `−(η/n) Σ w·alignment`.
    fn outer(controller: &Controller) -> f64 {
        let rows = inputs().into_iter().enumerate().map(|(row, input)| {
            let weights = controller.weights(&input, LABELS[row].is_some());
            let helped = weights.into_iter().zip(alignments().of(row)).map(|(w, a)| w * a);
            helped.sum::<f64>()
        });
        -AT.learning_rate / 3.0 * rows.sum::<f64>()
    }

    #[test]
    fn the_hypergradient_is_there_and_agrees_with_differences() {
        for output in [Output::Weights, Output::Share] {
            let mut controller = Controller::new(2, &[5], output, 3, ADAM);
            let gradient = controller.gradient(&inputs(), &alignments(), AT);
            assert!(gradient.iter().any(|slope| slope.abs() > 1e-3), "{output:?}");
            let start = controller.state();
            for (at, slope) in gradient.iter().enumerate() {
                let step = 1e-5;
                let [above, below] = [step, -step].map(|step| {
                    let mut state = start.clone();
                    state[1 + at] += step;
                    controller.restore(&state).expect("of the same size");
                    outer(&controller)
                });
                let want = (above - below) / (2.0 * step);
                assert!((slope - want).abs() < 1e-10, "{output:?} {at}: {slope}, not {want}");
            }
        }
    }

    #[test]
    fn learning_lowers_the_second_sets_loss() {
        for output in [Output::Weights, Output::Share] {
            let mut controller = Controller::new(2, &[5], output, 3, ADAM);
            let before = outer(&controller);
            (0..20).for_each(|_| controller.learn(&inputs(), &alignments(), AT));
            assert!(outer(&controller) < before, "{output:?}");
        }
    }

    #[test]
    fn a_rate_of_zero_and_an_empty_step_teach_nothing() {
        let mut controller = Controller::new(2, &[5], Output::Weights, 3, ADAM);
        let before = controller.weights(&[1.0, 1.0], true);
        controller.learn(&[], &alignments(), AT);
        controller.learn(&inputs(), &alignments(), At { learning_rate: 0.0, ..AT });
        assert_eq!(controller.weights(&[1.0, 1.0], true), before);
    }

    #[test]
    fn without_a_label_it_has_no_weight() {
        let weights = |output| Controller::new(1, &[], output, 3, ADAM).weights(&[1.0], false);
        assert_eq!(weights(Output::Share), [0.0, 1.0]);
        assert_eq!(weights(Output::Weights)[0], 0.0);
        assert_eq!([f64::NAN, f64::NEG_INFINITY, 3.0].map(tame), [0.0, -100.0, 3.0]);
    }
}
