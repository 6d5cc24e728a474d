//! RW-KD: a share of the teacher for each sample, chosen by what would help a second set.
//!
//! Lu, Ghaddar, Rashid, Rezagholizadeh, Ghodsi & Langlais 2021, "RW-KD: Sample-wise Loss Terms
//! Re-Weighting for Knowledge Distillation", Findings of EMNLP. The student takes a virtual step
//! down `Σ ε₁ℓ₁ + ε₂ℓ₂` from ε = 0; the derivative of the second set's loss with respect to each ε
//! is, but for the step's length, minus the alignment `⟨v, ∇ℓ⟩` of that loss with the second set's
//! gradient `v`. Alignments are cut off at a floor, and each sample's two are divided by their sum.
//!
//! What follows from that: where one loss alone would help, the share is next to 0 or 1; where
//! neither would, it is ½; and no sample can be dropped. With several teachers each has a weight of its
//! own, from its own alignment, and a sample's weights sum to one over all. `Normalize::Batch` can drop one, as L2RW
//! does.

use crate::{Alignments, At, Decision, LABEL, Memory, Needs, Policy, Restored, Samples, TEACHER};

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
    /// Shares of the teacher, of all teachers together, are kept inside these.
    bounds: [f64; 2],
    /// The label's weight and each teacher's, per example.
    weights: Vec<Memory>,
    /// Means of what was decided so far, for examples that no alignment was measured of: sum of
    /// label's weights, of each teacher's, and count.
    sums: Vec<f64>,
    /// The weights before anything was measured.
    initial: Vec<f64>,
}

impl RwKd {
    /// For `examples` of the training set; without any, nothing is remembered but the mean of what was
    /// decided, as where samples are tokens that are read once. `decay` is how much of an example's earlier weights stays
    /// when new ones are measured; `initial` the teacher's share before anything was.
    pub fn new(
        examples: usize,
        normalize: Normalize,
        floor: f64,
        bounds: [f64; 2],
        decay: f64,
        initial: f64,
    ) -> Self {
        let weights = vec![Memory::new(examples, decay); 2];
        let initial = vec![1.0 - initial, initial];
        Self { normalize, floor, bounds, weights, sums: vec![0.0; 3], initial }
    }

    /// The same for several teachers; `parts` are theirs, `[T]`, of the teacher's share before
    /// anything was measured.
    #[must_use]
    pub fn with_teachers(self, parts: &[f64]) -> Self {
        let terms = 1 + parts.len();
        let share = self.initial[TEACHER];
        let teachers = parts.iter().map(|part| share * part);
        Self {
            weights: vec![self.weights[LABEL].clone(); terms],
            sums: vec![0.0; terms + 1],
            initial: [1.0 - share].into_iter().chain(teachers).collect(),
            ..self
        }
    }

    fn terms(&self) -> usize {
        self.weights.len()
    }

    /// The weights that alignments ask for: of each sample the label's and each teacher's,
    /// `[R][1 + T]`. They alone do not count towards the mean; [`Policy::align`] does that.
    pub fn weights(&self, alignments: &Alignments<'_>) -> Vec<Vec<f64>> {
        let rows = 0..alignments.samples.len();
        let raised: Vec<Vec<f64>> = rows
            .map(|row| {
                let mut raised: Vec<f64> =
                    alignments.all(row).iter().map(|value| value.max(self.floor)).collect();
                if alignments.samples.labels[row].is_none() {
                    raised[LABEL] = 0.0;
                }
                raised
            })
            .collect();
        match self.normalize {
            Normalize::Terms => raised.iter().map(|weights| self.shares(weights)).collect(),
            Normalize::Batch => {
                let sum: f64 = raised.iter().flatten().sum();
                let factor = if sum > 0.0 { raised.len() as f64 / sum } else { 0.0 };
                let scaled = |weights: Vec<f64>| weights.into_iter().map(|w| w * factor).collect();
                raised.into_iter().map(scaled).collect()
            }
            Normalize::None => raised,
        }
    }

    /// The mean of what was decided so far, label and each teacher, `[1 + T]`; before anything was,
    /// what it begins with.
    pub fn usual(&self) -> Vec<f64> {
        let (count, sums) = self.sums.split_last().expect("a count at least");
        if *count > 0.0 {
            sums.iter().map(|sum| sum / count).collect()
        } else {
            self.initial.clone()
        }
    }

    fn shares(&self, raised: &[f64]) -> Vec<f64> {
        let (label, teachers) = (raised[LABEL], &raised[TEACHER..]);
        let all: f64 = teachers.iter().sum();
        // All zero where the floor is.
        let sum = label + all;
        let share = if sum > 0.0 { all / sum } else { 0.5 };
        let share = share.clamp(self.bounds[0], self.bounds[1]);
        let equal = 1.0 / teachers.len() as f64;
        let part = |teacher: &f64| if all > 0.0 { teacher / all } else { equal };
        [1.0 - share].into_iter().chain(teachers.iter().map(|t| share * part(t))).collect()
    }
}

impl Policy for RwKd {
    fn needs(&self) -> Needs {
        Needs { alignments: true, ..Needs::default() }
    }

    fn align(&mut self, alignments: &Alignments<'_>, _: At) {
        for (&id, weights) in alignments.samples.ids.iter().zip(self.weights(alignments)) {
            for (memory, &weight) in self.weights.iter_mut().zip(&weights) {
                memory.note(id, weight);
            }
            let counted = weights.into_iter().chain([1.0]);
            self.sums.iter_mut().zip(counted).for_each(|(sum, part)| *sum += part);
        }
    }

    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let usual = self.usual();
        let of = |&id: &u32| {
            let terms = self.weights.iter().zip(&usual);
            terms.map(move |(memory, &usual)| memory.of(id).unwrap_or(usual))
        };
        let weights = samples.ids.iter().flat_map(of).collect();
        Decision { weights, terms: self.terms(), ..Decision::default() }
    }

    fn state(&self) -> Vec<f64> {
        let mut state = self.sums.clone();
        self.weights.iter().for_each(|memory| state.extend_from_slice(memory.values()));
        state
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let examples = self.weights[LABEL].values().len();
        let expected = self.sums.len() + self.terms() * examples;
        if state.len() != expected {
            return Err(Restored { expected, found: state.len() });
        }
        let (sums, rest) = state.split_at(self.sums.len());
        self.sums.copy_from_slice(sums);
        for (at, memory) in self.weights.iter_mut().enumerate() {
            memory.replace(&rest[at * examples..(at + 1) * examples]);
        }
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

    /// Two teachers and label, by hand: shares are alignments over their sum, the floor where one is
    /// below it; equal where none helps; bounds hold the teachers together.
    #[test]
    fn several_teachers_share_with_the_label() {
        let two = |bounds| {
            RwKd::new(4, Normalize::Terms, FLOOR, bounds, 0.0, 0.6).with_teachers(&[0.75, 0.25])
        };
        let (ids, labels) = ([0, 1, 2], [Some(0), Some(0), None]);
        let samples = Samples {
            ids: &ids,
            labels: &labels,
            classes: 1,
            student: &[0.0; 3],
            teacher: &[0.0; 6],
            losses: &[0.0; 9],
            features: &[],
        };
        let mut policy = two([0.0, 1.0]);
        near(&policy.decide(&samples, AT).weights, &[0.4, 0.45, 0.15].repeat(3));
        let values = [1.0, 2.0, 1.0, -1.0, -2.0, -3.0, 9.0, 1.0, 3.0];
        policy.align(&Alignments { samples, values: &values }, AT);
        let decided = policy.decide(&samples, AT);
        let third = 1.0 / 3.0;
        near(&decided.weights, &[0.25, 0.5, 0.25, third, third, third, 0.0, 0.25, 0.75]);
        near(&decided.shares().collect::<Vec<_>>(), &[0.75, 2.0 * third, 1.0]);
        near(&decided.shares_of(1).collect::<Vec<_>>(), &[0.25, third, 0.75]);
        assert_eq!(decided.part(1..2).weights, decided.weights[3..6]);
        let mut bounded = two([0.0, 0.6]);
        bounded.align(&Alignments { samples, values: &values }, AT);
        near(&bounded.decide(&samples, AT).weights[..3], &[0.4, 0.4, 0.2]);
        let mut other = two([0.0, 1.0]);
        other.restore(&policy.state()).expect("as many numbers");
        assert_eq!(other.decide(&samples, AT), decided);
        let wrong = other.restore(&[0.0; 11]).expect_err("of one teacher");
        assert_eq!((wrong.expected, wrong.found), (16, 11));
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
