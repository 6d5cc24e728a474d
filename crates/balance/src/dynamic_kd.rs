//! Dynamic KD: the teacher where the student is uncertain.
//!
//! Li, Lin, Ren, Li, Zhou & Sun 2021, "Dynamic Knowledge Distillation for Pre-trained Language
//! Models", EMNLP, arXiv:2109.11295. The student's uncertainty `h = H(s)/ln K` lies in `0..=1`. The
//! paper moves with it between two teachers, and selects the uncertain part of a batch for the
//! teacher's loss. With one teacher and labels, the label's loss has the weight 1 − α throughout,
//! and the teacher's α times what is chosen here.
//!
//! Deviations: one teacher; and `h` is a constant of the step, where the authors' code lets the
//! student lower its loss through it.

use crate::rows::{entropy, softmax};
use crate::{At, Decision, Needs, Policy, Samples};

/// What the teacher's α is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Adoption {
    /// Each sample's own `h`.
    Sample,
    /// The mean of `h` over the batch.
    Batch,
    /// The most uncertain share of the batch, rounded up, hears the teacher, each sample with the
    /// weight that keeps the batch's sum; among equals the first. The others do not hear it.
    Select {
        /// Part of the batch, `0.0..=1.0`.
        share: f64,
        /// What is uncertain.
        by: Doubt,
    },
}

/// How uncertain a student is of a sample; all agree on which of two distributions over two classes
/// is the more uncertain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// `H(s)`.
    Entropy,
    /// Minus the difference of the two largest probabilities.
    Margin,
    /// Minus the largest probability.
    LeastConfidence,
}

/// Weights by the student's uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DynamicKd {
    /// α, `0.0..=1.0`.
    pub alpha: f64,
    /// What it is multiplied by.
    pub adoption: Adoption,
}

impl DynamicKd {
    /// The weights of a labelled sample of its own by the student's entropy over `classes`, in nats.
    pub fn of_entropy(&self, entropy: f64, classes: usize) -> [f64; 2] {
        [1.0 - self.alpha, self.alpha * part_of_most(entropy, classes)]
    }
}

impl Policy for DynamicKd {
    fn needs(&self) -> Needs {
        Needs { together: self.adoption != Adoption::Sample, ..Needs::default() }
    }

    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let rows = 0..samples.len();
        let uncertain = || rows.clone().map(|row| uncertainty(samples.student(row)));
        let factors: Vec<f64> = match self.adoption {
            Adoption::Sample => uncertain().collect(),
            Adoption::Batch => {
                let mean = uncertain().sum::<f64>() / rows.len().max(1) as f64;
                vec![mean; rows.len()]
            }
            Adoption::Select { share, by } => {
                let doubts: Vec<f64> = rows.map(|row| by.of(samples.student(row))).collect();
                select(&doubts, share)
            }
        };
        let pairs = samples.labels.iter().zip(factors).flat_map(|(label, factor)| {
            [if label.is_some() { 1.0 - self.alpha } else { 0.0 }, self.alpha * factor]
        });
        Decision { weights: pairs.collect(), ..Decision::default() }
    }
}

impl Doubt {
    /// The larger, the more uncertain.
    fn of(self, logits: &[f32]) -> f64 {
        if self == Self::Entropy {
            return entropy(logits);
        }
        let mut p = softmax(logits, 1.0);
        p.sort_by(|a, b| b.total_cmp(a));
        let second = if self == Self::Margin { p.get(1).copied().unwrap_or(0.0) } else { 0.0 };
        second - p[0]
    }
}

/// `H(s)/ln K`, `0.0..=1.0`; a single class leaves no doubt.
fn uncertainty(logits: &[f32]) -> f64 {
    part_of_most(entropy(logits), logits.len())
}

/// `entropy / ln classes`.
fn part_of_most(entropy: f64, classes: usize) -> f64 {
    if classes < 2 { 0.0 } else { (entropy / libm::log(classes as f64)).clamp(0.0, 1.0) }
}

/// For each of `n` samples, `n/m` where it is among the `m` largest, `m` the share rounded up; else 0.
fn select(doubts: &[f64], share: f64) -> Vec<f64> {
    let chosen = ((share * doubts.len() as f64).ceil() as usize).min(doubts.len());
    let mut order: Vec<usize> = (0..doubts.len()).collect();
    order.sort_by(|&a, &b| doubts[b].total_cmp(&doubts[a]));
    let mut factors = vec![0.0; doubts.len()];
    for &row in &order[..chosen] {
        factors[row] = doubts.len() as f64 / chosen as f64;
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(adoption: Adoption, student: &[f32], labels: &[Option<u32>]) -> Vec<f64> {
        let ids: Vec<u32> = (0..labels.len() as u32).collect();
        let classes = student.len() / labels.len().max(1);
        let (teacher, losses, features) = (student, &[], &[]);
        let samples = Samples { ids: &ids, labels, classes, student, teacher, losses, features };
        let at = At { step: 0, total: 1, learning_rate: 0.0 };
        DynamicKd { alpha: 0.5, adoption }.decide(&samples, at).weights
    }

    #[test]
    fn the_teacher_counts_as_much_as_the_student_doubts() {
        let student = [0.0, 0.0, 0.0, f32::NEG_INFINITY];
        let labels = [Some(0), None];
        assert_eq!(decide(Adoption::Sample, &student, &labels), [0.5, 0.5, 0.0, 0.0]);
        assert_eq!(decide(Adoption::Batch, &student, &labels), [0.5, 0.25, 0.0, 0.25]);
    }

    #[test]
    fn the_uncertain_half_hears_the_teacher_twice_as_loud() {
        let student = [9.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -4.0];
        for by in [Doubt::Entropy, Doubt::Margin, Doubt::LeastConfidence] {
            let got = decide(Adoption::Select { share: 0.5, by }, &student, &[Some(1); 4]);
            assert_eq!(got, [0.5, 0.0, 0.5, 1.0, 0.5, 1.0, 0.5, 0.0], "{by:?}");
        }
    }

    #[test]
    fn shares_round_up_and_the_first_of_equals_is_chosen() {
        assert_eq!(select(&[1.0; 4], 0.3), [2.0, 2.0, 0.0, 0.0]);
        assert_eq!(select(&[1.0, 2.0], 0.0), [0.0, 0.0]);
        assert_eq!(select(&[1.0, 2.0], 1.0), [1.0, 1.0]);
        assert_eq!(select(&[], 0.5), [] as [f64; 0]);
    }

    /// (0.5, 0.5, 0): no margin. (0.6, 0.2, 0.2): more entropy, and the larger first probability.
    #[test]
    fn doubts_differ_over_three_classes() {
        let two = [0.0, 0.0, f32::NEG_INFINITY];
        let three = [3f32.ln(), 0.0, 0.0];
        assert!(Doubt::Entropy.of(&three) > Doubt::Entropy.of(&two));
        assert!(Doubt::Margin.of(&three) < Doubt::Margin.of(&two));
        assert!(Doubt::LeastConfidence.of(&three) < Doubt::LeastConfidence.of(&two));
        assert!((Doubt::Margin.of(&three) + 0.4).abs() < 1e-7);
        assert!((Doubt::LeastConfidence.of(&three) + 0.6).abs() < 1e-7);
    }

    #[test]
    fn a_single_class_and_an_empty_batch_are_answered() {
        assert_eq!(decide(Adoption::Sample, &[3.0], &[Some(0)]), [0.5, 0.0]);
        assert_eq!(decide(Adoption::Batch, &[], &[]), [] as [f64; 0]);
        let select = Adoption::Select { share: 0.5, by: Doubt::Margin };
        assert_eq!(decide(select, &[3.0], &[Some(0)]), [0.5, 0.5]);
    }
}
