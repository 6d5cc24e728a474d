//! A small multi-layer perceptron in double precision, its backward pass, and its optimiser.
//!
//! A few thousand parameters at most, a few dozen rows a step: plain loops are enough.

use heirloom_base::{Purpose, uniform, word};

use crate::Restored;

/// Layers `W x + b` with `max(0, ·)` between them and nothing after the last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Network {
    /// Widths: inputs, hidden layers, outputs.
    widths: Vec<usize>,
    /// Layer after layer: `W`, `[out, in]`, then `b`, `[out]`.
    parameters: Vec<f64>,
}

impl Network {
    /// Fresh parameters, uniform between ±1/√in as PyTorch's linear layer has them: the same for a
    /// seed on any machine.
    pub(crate) fn new(widths: &[usize], seed: u64) -> Self {
        let mut parameters = Vec::new();
        for pair in widths.windows(2) {
            let bound = 1.0 / (pair[0] as f64).sqrt();
            for _ in 0..pair[1] * (pair[0] + 1) {
                let word = word(seed, Purpose::Policy, 0, parameters.len() as u64);
                parameters.push(bound * (2.0 * uniform(word) - 1.0));
            }
        }
        Self { widths: widths.to_vec(), parameters }
    }

    /// All parameters, in the order of the field.
    pub(crate) fn parameters(&self) -> &[f64] {
        &self.parameters
    }

    /// What each layer gives, the input first and the outputs last.
    pub(crate) fn forward(&self, input: &[f64]) -> Vec<Vec<f64>> {
        assert_eq!(input.len(), self.widths[0], "inputs of the network");
        let mut layers = vec![input.to_vec()];
        for (weights, bias, last) in self.layers() {
            let input = &layers[layers.len() - 1];
            let rows = weights.chunks_exact(input.len()).zip(bias);
            let sums = rows.map(|(row, bias)| bias + dot(row, input));
            layers.push(sums.map(|sum| if last { sum } else { sum.max(0.0) }).collect());
        }
        layers
    }

    /// Adds the gradient on the parameters, given what [`Network::forward`] gave and the gradient on
    /// its outputs.
    pub(crate) fn backward(&self, layers: &[Vec<f64>], outputs: &[f64], gradient: &mut [f64]) {
        let mut upper = outputs.to_vec();
        let mut end = self.parameters.len();
        for depth in (0..self.widths.len() - 1).rev() {
            let (width, input) = (self.widths[depth], &layers[depth]);
            let start = end - (width + 1) * self.widths[depth + 1];
            let (weights, bias) = gradient[start..end].split_at_mut(width * upper.len());
            for ((row, bias), &slope) in weights.chunks_exact_mut(width).zip(bias).zip(&upper) {
                *bias += slope;
                row.iter_mut().zip(input).for_each(|(weight, &input)| *weight += slope * input);
            }
            let weights = &self.parameters[start..start + width * upper.len()];
            let mut lower = vec![0.0; width];
            for (row, slope) in weights.chunks_exact(width).zip(&upper) {
                lower.iter_mut().zip(row).for_each(|(lower, weight)| *lower += slope * weight);
            }
            // The rectifier's slope; 0 where its output is. Not used for the input itself.
            lower.iter_mut().zip(input).for_each(|(lower, &x)| *lower *= f64::from(x > 0.0));
            (upper, end) = (lower, start);
        }
    }

    /// Each layer's `W`, `b`, and whether it is the last.
    fn layers(&self) -> impl Iterator<Item = (&[f64], &[f64], bool)> {
        let mut rest = &self.parameters[..];
        let count = self.widths.len() - 1;
        (0..count).map(move |depth| {
            let [inputs, outputs] = [self.widths[depth], self.widths[depth + 1]];
            let (layer, after) = rest.split_at(outputs * (inputs + 1));
            rest = after;
            let (weights, bias) = layer.split_at(outputs * inputs);
            (weights, bias, depth + 1 == count)
        })
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// How a policy's own network learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Step size, positive.
    pub learning_rate: f64,
    /// Part of a parameter, times the step size, that each step takes away; at least 0. Decoupled
    /// from the gradient (Loshchilov & Hutter 2019, arXiv:1711.05101): gradients through a virtual
    /// step carry the student's learning rate and are so small that a decay added to them would be
    /// all that is left.
    pub weight_decay: f64,
}

/// Decay of the first moment (Kingma & Ba 2015, arXiv:1412.6980, §2).
const BETA1: f64 = 0.9;
/// Decay of the second.
const BETA2: f64 = 0.999;
/// Below every gradient that matters: through a virtual step of a fine-tuning they are of size 1e-6
/// and less, and the usual 1e-8 would shorten their steps.
const EPSILON: f64 = 1e-16;

/// How the step size of a network goes over the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// As it is.
    #[default]
    Constant,
    /// In a line to 0.
    Linear,
    /// In a half cosine to 0.
    Cosine,
}

/// What becomes of a network's steps beside [`Adam`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Course of the step size.
    pub course: Pacing,
    /// Longest gradient, Euclidean over all parameters; longer ones are scaled down to it. 0 turns
    /// this off.
    pub max_norm: f64,
}

impl Pace {
    /// Factor of the step size where `progress`, `0.0..=1.0`, of the run lies behind.
    fn factor(self, progress: f64) -> f64 {
        match self.course {
            Pacing::Constant => 1.0,
            Pacing::Linear => 1.0 - progress,
            Pacing::Cosine => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress)),
        }
    }

    /// Factor of a gradient.
    fn clip(self, gradient: &[f64]) -> f64 {
        let norm = gradient.iter().map(|slope| slope * slope).sum::<f64>().sqrt();
        if self.max_norm > 0.0 && norm > self.max_norm { self.max_norm / norm } else { 1.0 }
    }
}

/// A network that learns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Learner {
    pub(crate) network: Network,
    adam: Adam,
    pub(crate) pace: Pace,
    steps: u64,
    /// First and second moments.
    moments: [Vec<f64>; 2],
}

impl Learner {
    pub(crate) fn new(network: Network, adam: Adam) -> Self {
        let moments = [(); 2].map(|()| vec![0.0; network.parameters.len()]);
        Self { network, adam, pace: Pace::default(), steps: 0, moments }
    }

    /// One step down a gradient on the parameters, where `progress` of the run lies behind. One that
    /// is not finite changes nothing.
    pub(crate) fn step(&mut self, gradient: &[f64], progress: f64) {
        if !gradient.iter().all(|slope| slope.is_finite()) {
            return;
        }
        self.steps += 1;
        let Adam { learning_rate, weight_decay } = self.adam;
        let learning_rate = learning_rate * self.pace.factor(progress);
        let clip = self.pace.clip(gradient);
        let unbiased = |beta: f64| 1.0 - libm::pow(beta, self.steps as f64);
        let [unbiased1, unbiased2] = [unbiased(BETA1), unbiased(BETA2)];
        let [first, second] = &mut self.moments;
        let moments = first.iter_mut().zip(second);
        for ((weight, slope), (m, v)) in
            self.network.parameters.iter_mut().zip(gradient).zip(moments)
        {
            let slope = clip * slope;
            *m = BETA1 * *m + (1.0 - BETA1) * slope;
            *v = BETA2 * *v + (1.0 - BETA2) * slope * slope;
            let towards = (*m / unbiased1) / ((*v / unbiased2).sqrt() + EPSILON);
            *weight -= learning_rate * (towards + weight_decay * *weight);
        }
    }

    /// Steps, parameters, first moments, second moments.
    pub(crate) fn state(&self) -> Vec<f64> {
        let [first, second] = &self.moments;
        [&[self.steps as f64], self.network.parameters(), first, second].concat()
    }

    /// Puts back what [`Learner::state`] gave.
    pub(crate) fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let count = self.network.parameters.len();
        let wrong = Restored { expected: 1 + 3 * count, found: state.len() };
        let Some((steps, rest)) = state.split_first() else { return Err(wrong) };
        if rest.len() != 3 * count {
            return Err(wrong);
        }
        self.steps = *steps as u64;
        let [first, second] = &mut self.moments;
        let places = [&mut self.network.parameters, first, second];
        places.into_iter().zip(rest.chunks(count)).for_each(|(place, values)| {
            place.copy_from_slice(values);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: hidden [max(0, 1 − 2 + 0.5), max(0, 3 + 4 − 1)] = [0, 6]; output 2·0 − 6 + 10.
    #[test]
    fn a_forward_and_a_backward_pass_by_hand() {
        let parameters = vec![1.0, -1.0, 3.0, 2.0, 0.5, -1.0, 2.0, -1.0, 10.0];
        let network = Network { widths: vec![2, 2, 1], parameters };
        let layers = network.forward(&[1.0, 2.0]);
        assert_eq!(layers, [vec![1.0, 2.0], vec![0.0, 6.0], vec![4.0]]);
        let mut gradient = vec![0.0; 9];
        network.backward(&layers, &[2.0], &mut gradient);
        assert_eq!(gradient, [0.0, 0.0, -2.0, -4.0, 0.0, -2.0, 0.0, 12.0, 2.0]);
    }

    #[test]
    fn gradients_agree_with_differences() {
        for widths in [&[3, 2][..], &[2, 9, 2], &[4, 7, 5, 1]] {
            let mut network = Network::new(widths, 7);
            let inputs: Vec<f64> = (0..widths[0]).map(|at| 0.7 - 0.4 * at as f64).collect();
            let slopes: Vec<f64> =
                (0..widths[widths.len() - 1]).map(|at| 1.5 - at as f64).collect();
            let mut gradient = vec![0.0; network.parameters.len()];
            network.backward(&network.forward(&inputs), &slopes, &mut gradient);
            let value = |network: &Network| {
                let layers = network.forward(&inputs);
                dot(&layers[layers.len() - 1], &slopes)
            };
            assert!(gradient.iter().any(|slope| slope.abs() > 0.1));
            for (at, slope) in gradient.iter().enumerate() {
                // Linear in one parameter but for a rectifier's corner, which this seed keeps away
                // from: only rounding is left.
                let (kept, step) = (network.parameters[at], 1e-6);
                network.parameters[at] = kept + step;
                let above = value(&network);
                network.parameters[at] = kept - step;
                let difference = (above - value(&network)) / (2.0 * step);
                network.parameters[at] = kept;
                assert!((difference - slope).abs() < 1e-8, "{widths:?} {at}: {difference} {slope}");
            }
        }
    }

    #[test]
    fn fresh_parameters_lie_within_their_bounds_and_follow_the_seed() {
        let network = Network::new(&[4, 50, 2], 1);
        assert!(network.parameters[..250].iter().all(|weight| weight.abs() <= 0.5));
        assert!(network.parameters[250..].iter().all(|weight| weight.abs() <= 1.0 / 50f64.sqrt()));
        assert_eq!(network, Network::new(&[4, 50, 2], 1));
        assert_ne!(network, Network::new(&[4, 50, 2], 2));
    }

    /// The first step of Adam is the learning rate whatever the gradient's size.
    #[test]
    fn first_steps_by_hand() {
        let network = Network { widths: vec![1, 1], parameters: vec![1.0, 2.0] };
        let adam = Adam { learning_rate: 0.1, weight_decay: 0.5 };
        let mut learner = Learner::new(network, adam);
        learner.step(&[3e-7, -20.0], 0.5);
        let want = [1.0 - 0.1 - 0.05, 2.0 + 0.1 - 0.1];
        for (got, want) in learner.network.parameters.iter().zip(want) {
            assert!((got - want).abs() < 1e-9, "{got}, should be {want}");
        }
        let kept = learner.clone();
        learner.step(&[f64::NAN, 1.0], 0.5);
        assert_eq!(learner, kept);
    }

    /// By hand: (3, 4) clipped to length 1 is (0.6, 0.8), whatever came before; the first step of Adam
    /// then is the step size, which is a half, or a half of a half cosine, in the middle.
    #[test]
    fn a_pace_shortens_gradients_and_steps() {
        let network = Network { widths: vec![1, 1], parameters: vec![0.0, 0.0] };
        let adam = Adam { learning_rate: 0.1, weight_decay: 0.0 };
        for (course, at, want) in [
            (Pacing::Constant, 0.25, 0.1),
            (Pacing::Linear, 0.25, 0.075),
            (Pacing::Cosine, 0.5, 0.05),
            (Pacing::Linear, 1.0, 0.0),
        ] {
            let mut learner = Learner::new(network.clone(), adam);
            learner.pace = Pace { course, max_norm: 1.0 };
            learner.step(&[3.0, 4.0], at);
            for parameter in &learner.network.parameters {
                assert!((parameter + want).abs() < 1e-12, "{course:?}: {parameter}");
            }
            let first: Vec<f64> = learner.moments[0].iter().map(|m| m / (1.0 - BETA1)).collect();
            assert!((first[0] - 0.6).abs() < 1e-12 && (first[1] - 0.8).abs() < 1e-12, "{first:?}");
        }
        assert_eq!(Pace { max_norm: 5.0, ..Pace::default() }.clip(&[3.0, 4.0]), 1.0);
    }

    #[test]
    fn a_state_of_another_size_is_refused() {
        let adam = Adam { learning_rate: 0.1, weight_decay: 0.0 };
        let mut learner = Learner::new(Network::new(&[1, 1], 1), adam);
        let wrong = Restored { expected: 7, found: 6 };
        assert_eq!(learner.restore(&[0.0; 6]), Err(wrong));
        assert_eq!(learner.restore(&[]), Err(Restored { expected: 7, found: 0 }));
        assert_eq!(learner.restore(&[0.0; 7]), Ok(()));
    }
}
