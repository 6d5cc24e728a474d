//! L2RW: samples that would harm a second set count nothing.
//!
//! Ren, Zeng, Yang & Urtasun 2018, "Learning to Reweight Examples for Robust Deep Learning", ICML,
//! arXiv:1803.09050. From a weight of zero for each sample, a virtual step is taken; the derivative
//! of the second set's loss with respect to the weight is, but for the step's length, minus the
//! sample's alignment. Weights are `max(0, alignment)` over their sum, and all zero where none is
//! positive.
//!
//! A sample's loss here is `(1 − α)·label + α·teacher` with a fixed α, so its alignment is the same
//! mixture of its two, and without a label the teacher's alone. To let the two losses of a sample
//! part ways instead, see [`RwKd`](crate::RwKd) with [`Normalize::Batch`](crate::Normalize::Batch).
//!
//! Deviation: weights sum to the number of samples, since losses are averaged and not summed.

use crate::{Alignments, At, Decision, Memory, Needs, Policy, Restored, Samples};

/// One weight per sample, at a fixed share of the teacher.
#[derive(Clone, Debug)]
pub struct L2rw {
    alpha: f64,
    weights: Memory,
}

impl L2rw {
    /// For `examples` of the training set; `alpha`, `0.0..=1.0`, is the teacher's share. `decay`,
    /// `0.0..1.0`, is how much of an example's earlier weight stays when a new one is measured; 0 in
    /// the paper. An example never measured has a weight of one.
    pub fn new(examples: usize, alpha: f64, decay: f64) -> Self {
        Self { alpha, weights: Memory::new(examples, decay) }
    }

    /// The shares of the label and of the teacher.
    fn shares(&self, label: Option<u32>) -> [f64; 2] {
        if label.is_some() { [1.0 - self.alpha, self.alpha] } else { [0.0, 1.0] }
    }
}

impl Policy for L2rw {
    fn needs(&self) -> Needs {
        Needs { alignments: true, ..Needs::default() }
    }

    fn align(&mut self, alignments: &Alignments<'_>, _: At) {
        let samples = &alignments.samples;
        let of = |row: usize| {
            let parts = alignments.of(row).into_iter().zip(self.shares(samples.labels[row]));
            // Where a share is 0 its alignment is not asked for, whatever it is.
            let mixed: f64 =
                parts.filter(|&(_, share)| share > 0.0).map(|(a, share)| a * share).sum();
            if mixed.is_finite() { mixed.max(0.0) } else { 0.0 }
        };
        let raised: Vec<f64> = (0..samples.len()).map(of).collect();
        let sum: f64 = raised.iter().sum();
        let factor = if sum > 0.0 { raised.len() as f64 / sum } else { 0.0 };
        for (&id, weight) in samples.ids.iter().zip(raised) {
            self.weights.note(id, weight * factor);
        }
    }

    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let of = |(&id, &label): (&u32, &Option<u32>)| {
            let weight = self.weights.of(id).unwrap_or(1.0);
            self.shares(label).map(|share| share * weight)
        };
        let weights = samples.ids.iter().zip(samples.labels).flat_map(of).collect();
        Decision { weights, ..Decision::default() }
    }

    fn state(&self) -> Vec<f64> {
        self.weights.values().to_vec()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let expected = self.weights.values().len();
        let restored = self.weights.replace(state);
        if restored { Ok(()) } else { Err(Restored { expected, found: state.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At { step: 0, total: 10, learning_rate: 1e-3 };

    fn samples<'a>(ids: &'a [u32], labels: &'a [Option<u32>]) -> Samples<'a> {
        let (student, teacher, losses, features) = (&[], &[], &[], &[]);
        Samples { ids, labels, classes: 2, student, teacher, losses, features }
    }

    #[track_caller]
    fn check(alpha: f64, values: &[f64], labels: &[Option<u32>], want: &[f64]) {
        let ids: Vec<u32> = (0..labels.len() as u32).collect();
        let mut policy = L2rw::new(labels.len(), alpha, 0.0);
        policy.align(&Alignments { samples: samples(&ids, labels), values }, AT);
        assert_eq!(policy.decide(&samples(&ids, labels), AT).weights, want);
    }

    /// By hand at α = ¼: mixtures ¾·4 + ¼·4 = 4; ¾·(−2) + ¼·2 = −1; the teacher's 12. Weights are
    /// 3·(4, 0, 12)/16.
    #[test]
    fn help_is_shared_out_and_harm_counts_nothing() {
        let labels = [Some(0), Some(1), None];
        let want = [0.75 * 0.75, 0.25 * 0.75, 0.0, 0.0, 0.0, 2.25];
        check(0.25, &[4.0, 4.0, -2.0, 2.0, f64::NAN, 12.0], &labels, &want);
    }

    #[test]
    fn at_the_ends_of_alpha_one_loss_is_all() {
        check(0.0, &[1.0, f64::NAN, 3.0, -9.0], &[Some(0); 2], &[0.5, 0.0, 1.5, 0.0]);
        check(1.0, &[f64::NAN, 1.0, -9.0, 3.0], &[Some(0); 2], &[0.0, 0.5, 0.0, 1.5]);
    }

    #[test]
    fn where_none_helps_none_counts() {
        check(0.5, &[-1.0, -1.0, 0.0, 0.0], &[Some(0); 2], &[0.0; 4]);
        check(0.5, &[], &[], &[]);
    }

    #[test]
    fn an_example_never_measured_has_a_weight_of_one() {
        let policy = L2rw::new(3, 0.25, 0.0);
        let decision = policy.decide(&samples(&[2, 1], &[Some(0), None]), AT);
        assert_eq!(decision.weights, [0.75, 0.25, 0.0, 1.0]);
        let wrong = L2rw::new(3, 0.25, 0.0).restore(&[1.0]);
        assert_eq!(wrong, Err(Restored { expected: 3, found: 1 }));
    }
}
