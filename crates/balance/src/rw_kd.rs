//! RW-KD: a share of the teacher for each sample, chosen by what would help a second set.
//!
//! Lu, Ghaddar, Rashid, Rezagholizadeh, Ghodsi & Langlais 2021, "RW-KD: Sample-wise Loss Terms
//! Re-Weighting for Knowledge Distillation", Findings of EMNLP. The student takes a virtual step
//! down `Σ ε₁ℓ₁ + ε₂ℓ₂` from ε = 0; the derivative of the second set's loss with respect to each ε
//! is, but for the step's length, minus the alignment `⟨v, ∇ℓ⟩` of that loss with the second set's
//! gradient `v`. Alignments are cut off at a floor, and each sample's two are divided by their sum.
//!
//! What follows from that: where one loss alone would help, the share is next to 0 or 1; where
//! neither would, it is ½; and no sample can be dropped. `Normalize::Batch` can drop one, as L2RW
//! does.

use crate::{Alignments, At, Decision, Memory, Needs, Policy, Restored, Samples};

/// How alignments above the floor become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalize {
    /// Each sample's two weights sum to one (the paper).
    Terms,
    /// All weights of a batch sum to its size, so that a sample that would do harm counts nothing
    /// (Ren, Zeng, Yang & Urtasun 2018, arXiv:1803.09050). Where none would help, none counts.
    Batch,
    /// Weights are the alignments themselves.
    None,
}

/// Weights from alignments, remembered per example between the steps that measure them.
#[derive(Clone, Debug)]
pub struct RwKd {
    normalize: Normalize,
    /// δ: alignments count as at least this.
    floor: f64,
    /// Shares of the teacher are kept inside these.
    bounds: [f64; 2],
    /// The label's weight and the teacher's, per example.
    weights: [Memory; 2],
    /// Means of what was decided so far, for examples that no alignment was measured of: sum of
    /// label's weights, of teacher's, and count.
    sums: [f64; 3],
    /// The share before anything was measured.
    initial: f64,
}

impl RwKd {
    /// For `examples` of the training set. `decay` is how much of an example's earlier weights stays
    /// when new ones are measured; `initial` the teacher's share before anything was.
    pub fn new(
        examples: usize,
        normalize: Normalize,
        floor: f64,
        bounds: [f64; 2],
        decay: f64,
        initial: f64,
    ) -> Self {
        let weights = [(); 2].map(|()| Memory::new(examples, decay));
        Self { normalize, floor, bounds, weights, sums: [0.0; 3], initial }
    }

    /// The weights that alignments ask for, `[R, 2]`.
    fn weights(&self, alignments: &Alignments<'_>) -> Vec<[f64; 2]> {
        let rows = 0..alignments.samples.len();
        let raised: Vec<[f64; 2]> = rows
            .map(|row| {
                let [label, teacher] = alignments.of(row).map(|value| value.max(self.floor));
                let labelled = alignments.samples.labels[row].is_some();
                [if labelled { label } else { 0.0 }, teacher]
            })
            .collect();
        match self.normalize {
            Normalize::Terms => raised.into_iter().map(|pair| self.shares(pair)).collect(),
            Normalize::Batch => {
                let sum: f64 = raised.iter().flatten().sum();
                let factor = if sum > 0.0 { raised.len() as f64 / sum } else { 0.0 };
                raised.into_iter().map(|pair| pair.map(|weight| weight * factor)).collect()
            }
            Normalize::None => raised,
        }
    }

    fn shares(&self, [label, teacher]: [f64; 2]) -> [f64; 2] {
        // Both zero where the floor is.
        let sum = label + teacher;
        let share = if sum > 0.0 { teacher / sum } else { 0.5 };
        let share = share.clamp(self.bounds[0], self.bounds[1]);
        [1.0 - share, share]
    }
}

impl Policy for RwKd {
    fn needs(&self) -> Needs {
        Needs { alignments: true, ..Needs::default() }
    }

    fn align(&mut self, alignments: &Alignments<'_>, _: At) {
        for (&id, weights) in alignments.samples.ids.iter().zip(self.weights(alignments)) {
            for (memory, weight) in self.weights.iter_mut().zip(weights) {
                memory.note(id, weight);
            }
            let counted = [weights[0], weights[1], 1.0];
            self.sums.iter_mut().zip(counted).for_each(|(sum, part)| *sum += part);
        }
    }

    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let [label, teacher, count] = self.sums;
        let usual = if count > 0.0 {
            [label / count, teacher / count]
        } else {
            [1.0 - self.initial, self.initial]
        };
        let of = |&id: &u32| -> [f64; 2] {
            std::array::from_fn(|term| self.weights[term].of(id).unwrap_or(usual[term]))
        };
        Decision { weights: samples.ids.iter().flat_map(of).collect(), ..Decision::default() }
    }

    fn state(&self) -> Vec<f64> {
        let [label, teacher] = &self.weights;
        [&self.sums, label.values(), teacher.values()].concat()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let examples = self.weights[0].values().len();
        let wrong = Restored { expected: 3 + 2 * examples, found: state.len() };
        let Some((sums, rest)) = state.split_first_chunk() else { return Err(wrong) };
        if rest.len() != 2 * examples {
            return Err(wrong);
        }
        self.sums = *sums;
        let (label, teacher) = rest.split_at(examples);
        self.weights[0].replace(label);
        self.weights[1].replace(teacher);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At { step: 3, total: 10, learning_rate: 1e-3 };
    const FLOOR: f64 = 1e-8;

    fn policy(normalize: Normalize) -> RwKd {
        RwKd::new(4, normalize, FLOOR, [0.0, 1.0], 0.0, 0.5)
    }

    fn samples<'a>(ids: &'a [u32], labels: &'a [Option<u32>]) -> Samples<'a> {
        let (student, teacher, losses, features) = (&[], &[], &[], &[]);
        Samples { ids, labels, classes: 2, student, teacher, losses, features }
    }

    fn aligned(policy: &mut RwKd, values: &[f64], labelled: &[bool]) {
        let ids: Vec<u32> = (0..labelled.len() as u32).collect();
        let labels: Vec<_> = labelled.iter().map(|&yes| yes.then_some(0)).collect();
        policy.align(&Alignments { samples: samples(&ids, &labels), values }, AT);
    }

    fn weights(policy: &RwKd, ids: &[u32]) -> Vec<f64> {
        policy.decide(&samples(ids, &[]), AT).weights
    }

    #[track_caller]
    fn near(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got}, should be {want}");
        }
    }

    /// By hand: both help, 3 to 1; the label alone helps; the teacher alone helps; neither does.
    #[test]
    fn each_samples_shares() {
        let mut policy = policy(Normalize::Terms);
        let values = [1.0, 3.0, 2.0, -5.0, -1.0, 4.0, -1.0, -2.0];
        aligned(&mut policy, &values, &[true; 4]);
        let [low, high] = [FLOOR / (2.0 + FLOOR), 4.0 / (4.0 + FLOOR)];
        let want = [0.25, 0.75, 1.0 - low, low, 1.0 - high, high, 0.5, 0.5];
        near(&weights(&policy, &[0, 1, 2, 3]), &want);
    }

    #[test]
    fn the_length_of_the_virtual_step_does_not_matter() {
        let values = [1.0, 3.0, 0.1, 0.7];
        let mut shares = [1.0, 1e3].map(|size| {
            let mut policy = policy(Normalize::Terms);
            aligned(&mut policy, &values.map(|value| value * size), &[true; 2]);
            weights(&policy, &[0, 1])
        });
        near(&shares[1].clone(), &std::mem::take(&mut shares[0]));
    }

    #[test]
    fn over_a_batch_weights_sum_to_its_size_and_harm_counts_nothing() {
        let mut policy = RwKd::new(2, Normalize::Batch, 0.0, [0.0, 1.0], 0.0, 0.5);
        aligned(&mut policy, &[1.0, 2.0, -3.0, 1.0], &[true; 2]);
        near(&weights(&policy, &[0, 1]), &[0.5, 1.0, 0.0, 0.5]);
        aligned(&mut policy, &[-1.0, -2.0, -3.0, -1.0], &[true; 2]);
        near(&weights(&policy, &[0, 1]), &[0.0; 4]);
    }

    #[test]
    fn without_a_label_the_teacher_has_all() {
        let mut policy = policy(Normalize::Terms);
        aligned(&mut policy, &[9.0, -1.0], &[false]);
        near(&weights(&policy, &[0]), &[0.0, 1.0]);
    }

    #[test]
    fn an_example_never_measured_has_the_mean_of_the_others() {
        let mut policy = policy(Normalize::Terms);
        near(&weights(&policy, &[3]), &[0.5, 0.5]);
        aligned(&mut policy, &[1.0, 3.0, 3.0, 1.0], &[true; 2]);
        near(&weights(&policy, &[3, 0]), &[0.5, 0.5, 0.25, 0.75]);
    }

    #[test]
    fn shares_stay_inside_their_bounds() {
        let mut policy = RwKd::new(4, Normalize::Terms, FLOOR, [0.1, 0.8], 0.0, 0.5);
        aligned(&mut policy, &[1.0, -1.0, -1.0, 1.0], &[true; 2]);
        near(&weights(&policy, &[0, 1]), &[0.9, 0.1, 0.2, 0.8]);
    }

    #[test]
    fn what_was_learnt_survives() {
        let mut policy = RwKd::new(3, Normalize::Terms, FLOOR, [0.0, 1.0], 0.5, 0.5);
        aligned(&mut policy, &[1.0, 3.0, 3.0, 1.0], &[true; 2]);
        let mut other = RwKd::new(3, Normalize::Terms, FLOOR, [0.0, 1.0], 0.5, 0.5);
        other.restore(&policy.state()).expect("as many numbers");
        for policy in [&mut policy, &mut other] {
            aligned(policy, &[5.0, 1.0, 1.0, 1.0], &[true; 2]);
        }
        assert_eq!(weights(&policy, &[0, 1, 2]), weights(&other, &[0, 1, 2]));
        let mut larger = RwKd::new(4, Normalize::Terms, FLOOR, [0.0, 1.0], 0.5, 0.5);
        let wrong = larger.restore(&policy.state()).expect_err("of a set of another size");
        assert_eq!((wrong.expected, wrong.found), (11, 9));
    }
}
