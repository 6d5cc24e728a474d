//! Meta-Weight-Net, and RW-KD read as a network: weights from what is seen of a sample.
//!
//! Shu, Xie, Yi, Zhao, Zhou, Xu & Meng 2019, "Meta-Weight-Net: Learning an Explicit Mapping For
//! Sample Weighting", NeurIPS, arXiv:1902.07379: a network with one hidden layer of 100 rectified
//! units maps a sample's loss to its weight, and learns to lower a second set's loss after a virtual
//! step. Here it sees two losses and gives two weights. In a step it learns first; the weights
//! decided are those of the network as it then is.
//!
//! Lu et al. 2021 (see [`RwKd`](crate::RwKd)) write of "a meta-learner, simultaneously trained with
//! the student", which can also be read as such a network: with [`Output::Share`] it gives the convex
//! combination of the paper's objective. What it then sees, losses or the teacher's logits, is not
//! known to us from the paper.
//!
//! Deviations: weight decay is decoupled (see [`Adam`]); alignments are those at the step's beginning
//! (the authors differentiate through a step at the present weights).

use crate::controller::{Controller, Output, tame};
use crate::network::{Adam, Pace};
use crate::{Alignments, At, Decision, Needs, Policy, Restored, Samples};

/// What the network sees of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Its two losses; 0 for the label's where it has none.
    Losses,
    /// The teacher's logits, `[K]`.
    TeacherLogits,
}

/// Width of the hidden layer.
const HIDDEN: usize = 100;

/// Weights from a network of a sample's losses or of its teacher's logits.
#[derive(Clone, Debug)]
pub struct MetaWeightNet {
    sight: Sight,
    controller: Controller,
}

impl MetaWeightNet {
    /// For `classes` logits; the network's first parameters follow `seed`. The authors' step size is
    /// 1e-3 and their weight decay 1e-4.
    pub fn new(sight: Sight, output: Output, classes: usize, seed: u64, adam: Adam) -> Self {
        let inputs = match sight {
            Sight::Losses => 2,
            Sight::TeacherLogits => classes,
        };
        Self { sight, controller: Controller::new(inputs, &[HIDDEN], output, seed, adam) }
    }

    fn input(&self, samples: &Samples<'_>, row: usize) -> Vec<f64> {
        match self.sight {
            Sight::Losses => {
                let [label, teacher] = samples.losses(row).map(tame);
                vec![if samples.labels[row].is_some() { label } else { 0.0 }, teacher]
            }
            Sight::TeacherLogits => {
                samples.teacher(row).iter().map(|&logit| tame(f64::from(logit))).collect()
            }
        }
    }

    /// The same with another course of the network's step size, and its gradient clipped.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.controller.set_pace(pace);
        self
    }
}

impl Policy for MetaWeightNet {
    fn needs(&self) -> Needs {
        Needs { alignments: true, ..Needs::default() }
    }

    fn align(&mut self, alignments: &Alignments<'_>, at: At) {
        let samples = &alignments.samples;
        let inputs: Vec<_> = (0..samples.len()).map(|row| self.input(samples, row)).collect();
        self.controller.learn(&inputs, alignments, at);
    }

    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let of = |row: usize| {
            let labelled = samples.labels[row].is_some();
            self.controller.weights(&self.input(samples, row), labelled)
        };
        Decision { weights: (0..samples.len()).flat_map(of).collect(), ..Decision::default() }
    }

    fn state(&self) -> Vec<f64> {
        self.controller.state()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        self.controller.restore(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At { step: 2, total: 9, learning_rate: 2e-5 };
    const ADAM: Adam = Adam { learning_rate: 1e-2, weight_decay: 1e-4 };

    /// Two samples whose labels help where their loss is low, and harm where it is high.
    fn samples() -> Samples<'static> {
        Samples {
            ids: &[0, 1],
            labels: &[Some(0), Some(1)],
            classes: 3,
            student: &[0.0; 6],
            teacher: &[1.0, 0.0, -1.0, -2.0, f32::NEG_INFINITY, 3.0],
            losses: &[0.1, 0.2, 3.0, 0.2],
            features: &[],
        }
    }

    #[test]
    fn it_learns_which_loss_helps_which_sample() {
        for sight in [Sight::Losses, Sight::TeacherLogits] {
            for output in [Output::Weights, Output::Share] {
                let mut policy = MetaWeightNet::new(sight, output, 3, 1, ADAM);
                let alignments = Alignments { samples: samples(), values: &[1.0, -1.0, -1.0, 1.0] };
                (0..300).for_each(|_| policy.align(&alignments, AT));
                let decision = policy.decide(&samples(), AT);
                let [first, second] = [0, 1].map(|row| decision.of(row));
                assert!(first[0] > 0.8 && first[1] < 0.2, "{sight:?} {output:?} {first:?}");
                assert!(second[0] < 0.2 && second[1] > 0.8, "{sight:?} {output:?} {second:?}");
            }
        }
    }

    #[test]
    fn a_label_that_is_not_there_is_not_seen() {
        let policy = MetaWeightNet::new(Sight::Losses, Output::Weights, 3, 1, ADAM);
        let weights = |losses: &[f64]| {
            policy.decide(&Samples { labels: &[None, None], losses, ..samples() }, AT).weights
        };
        assert_eq!(weights(&[5.0, 1.0, f64::NAN, 1.0]), weights(&[0.0, 1.0, 0.0, 1.0]));
    }
}
