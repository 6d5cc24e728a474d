//! TGeo-KD: a share of the teacher from where student, teacher and label stand to each other.
//!
//! Hu, Wu, Li, Ma et al. 2024, "Less or More From Teacher: Exploiting Trilateral Geometry For
//! Knowledge Distillation", ICLR, arXiv:2312.15112. A network sees two triangles in the space of
//! distributions over the classes: student, teacher and label of the sample; and student, label and
//! the teacher's mean over the label's class. It gives λ of the sample, and learns to lower a second
//! set's loss after a virtual step.
//!
//! What it sees here, `4K + 5` numbers: the student's distribution, the teacher's, the label's, the
//! teacher's class mean, and the squared lengths of the triangles' sides, student–teacher,
//! student–label, teacher–label, student–mean and mean–label. The form of the input is taken from
//! re-implementations (medium certainty). Hidden layers have 32 and 16 rectified units.
//!
//! The network's gradient is `dL/dλ = −(η/n)(teacher's alignment − label's)`, and a test holds that
//! it arrives; distributions are constants of it. The class means are over all samples whose
//! alignments were measured.

use crate::controller::{Controller, Output};
use crate::network::{Adam, Pace};
use crate::rows::softmax;
use crate::{Alignments, At, Decision, Needs, Policy, Restored, Samples};

/// Widths of the hidden layers.
const HIDDEN: [usize; 2] = [32, 16];

/// A share of the teacher from a network of distributions.
#[derive(Clone, Debug)]
pub struct TgeoKd {
    classes: usize,
    controller: Controller,
    /// Of each class: the sum of the teacher's distributions, `[K, K]`, and how many.
    sums: Vec<f64>,
    counts: Vec<f64>,
}

impl TgeoKd {
    /// For `classes` logits; the network's first parameters follow `seed`.
    pub fn new(classes: usize, seed: u64, adam: Adam) -> Self {
        let controller = Controller::new(4 * classes + 5, &HIDDEN, Output::Share, seed, adam);
        let (sums, counts) = (vec![0.0; classes * classes], vec![0.0; classes]);
        Self { classes, controller, sums, counts }
    }

    /// What the network sees of a sample; nothing it could use without a label.
    fn input(&self, samples: &Samples<'_>, row: usize) -> Vec<f64> {
        let Some(label) = samples.labels[row].map(|label| label as usize) else {
            return vec![0.0; 4 * self.classes + 5];
        };
        let student = softmax(samples.student(row), 1.0);
        let teacher = softmax(samples.teacher(row), 1.0);
        let mut truth = vec![0.0; self.classes];
        truth[label] = 1.0;
        // Before any of its class was measured, a sample stands for it.
        let mean: Vec<f64> = match self.counts[label] {
            0.0 => teacher.clone(),
            count => {
                let sums = &self.sums[label * self.classes..(label + 1) * self.classes];
                sums.iter().map(|sum| sum / count).collect()
            }
        };
        let pairs = [
            [&student, &teacher],
            [&student, &truth],
            [&teacher, &truth],
            [&student, &mean],
            [&mean, &truth],
        ];
        let sides = pairs.map(|[a, b]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum());
        [student, teacher, truth, mean, sides.to_vec()].concat()
    }

    /// Adds the teacher's distributions to the means of their labels' classes.
    fn count(&mut self, samples: &Samples<'_>) {
        for row in 0..samples.len() {
            let Some(label) = samples.labels[row].map(|label| label as usize) else { continue };
            let sums = &mut self.sums[label * self.classes..(label + 1) * self.classes];
            for (sum, p) in sums.iter_mut().zip(softmax(samples.teacher(row), 1.0)) {
                *sum += p;
            }
            self.counts[label] += 1.0;
        }
    }

    /// The same with another course of the network's step size, and its gradient clipped.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.controller.set_pace(pace);
        self
    }
}

impl Policy for TgeoKd {
    fn needs(&self) -> Needs {
        Needs { alignments: true, ..Needs::default() }
    }

    fn align(&mut self, alignments: &Alignments<'_>, at: At) {
        let samples = &alignments.samples;
        self.count(samples);
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

    /// The controller's, then the class sums, then their counts.
    fn state(&self) -> Vec<f64> {
        [self.controller.state(), self.sums.clone(), self.counts.clone()].concat()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let means = self.classes * (self.classes + 1);
        let controller = self.controller.state().len();
        if state.len() != controller + means {
            return Err(Restored { expected: controller + means, found: state.len() });
        }
        let (controller, means) = state.split_at(controller);
        self.controller.restore(controller)?;
        let (sums, counts) = means.split_at(self.sums.len());
        self.sums.copy_from_slice(sums);
        self.counts.copy_from_slice(counts);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At { step: 2, total: 9, learning_rate: 2e-5 };
    const ADAM: Adam = Adam { learning_rate: 1e-2, weight_decay: 0.0 };

    /// The teacher errs on the first sample and is right on the second; the third has no label. Its
    /// distributions are (¼, ¾), (½, ½) and, with an impossible class, (1, 0).
    fn samples() -> Samples<'static> {
        Samples {
            ids: &[0, 1, 2],
            labels: &[Some(0), Some(1), None],
            classes: 2,
            student: &[0.0; 6],
            teacher: &[0.0, 1.098_612_3, 0.0, 0.0, 1.0, f32::NEG_INFINITY],
            losses: &[0.0; 6],
            features: &[],
        }
    }

    #[test]
    fn what_it_sees_by_hand() {
        let mut policy = TgeoKd::new(2, 1, ADAM);
        let teacher = [0.25, 0.75];
        // Sides: ST 2/16, SG ½, TG 2·9/16; the mean is the teacher itself.
        let alone = [0.125, 0.5, 1.125, 0.125, 1.125];
        let want = [&[0.5, 0.5][..], &teacher, &[1.0, 0.0], &teacher, &alone].concat();
        let near = |got: Vec<f64>, want: Vec<f64>| {
            assert_eq!(got.len(), want.len());
            let far = got.iter().zip(&want).find(|(got, want)| (*got - *want).abs() > 1e-7);
            assert_eq!(far, None, "{got:?}, should be {want:?}");
        };
        near(policy.input(&samples(), 0), want);
        // Another sample of the class, and the mean of (¼, ¾) and (¾, ¼) is (½, ½).
        policy.count(&samples());
        let other = Samples { teacher: &[1.098_612_3, 0.0, 0.0, 0.0, 0.0, 0.0], ..samples() };
        policy.count(&other);
        let sides = [0.125, 0.5, 1.125, 0.0, 0.5];
        let want = [&[0.5, 0.5][..], &teacher, &[1.0, 0.0], &[0.5, 0.5], &sides].concat();
        near(policy.input(&samples(), 0), want);
        assert_eq!(policy.input(&samples(), 2), [0.0; 13]);
    }

    #[test]
    fn its_network_receives_a_gradient_and_learns_whom_to_hear() {
        let mut policy = TgeoKd::new(2, 1, ADAM);
        let before = policy.controller.clone();
        let values = [1.0, -1.0, -1.0, 1.0, 5.0, -5.0];
        let alignments = Alignments { samples: samples(), values: &values };
        policy.align(&alignments, AT);
        assert_ne!(policy.controller, before);
        (0..300).for_each(|_| policy.align(&alignments, AT));
        let shares: Vec<f64> = policy.decide(&samples(), AT).shares().collect();
        assert!(shares[0] < 0.2 && shares[1] > 0.8 && shares[2] == 1.0, "{shares:?}");
    }

    #[test]
    fn a_state_of_another_size_is_refused() {
        let state = TgeoKd::new(2, 1, ADAM).state();
        let mut other = TgeoKd::new(3, 1, ADAM);
        let expected = other.state().len();
        let wrong = Restored { expected, found: state.len() };
        assert_eq!(other.restore(&state), Err(wrong));
    }
}
