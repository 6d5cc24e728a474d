//! AdaKD: as much of the teacher as its margin for the label.
//!
//! Lukasik, Bhojanapalli, Menon & Kumar 2021, "Teacher's pet: understanding and mitigating biases in
//! distillation", arXiv:2106.10494, whose AdaAlpha mixes teacher and label by the teacher's margin:
//! the probability of the label minus the mean of the others', not below 0. A teacher that errs has
//! no say.
//!
//! Deviation: the margin of each sample, as the method is commonly re-implemented. The paper's is a
//! mean over each class (recalled with medium certainty).

use crate::rows::softmax;
use crate::{At, Decision, Policy, Samples};

/// The teacher's margin is its share; without a label the teacher has all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaKd {
    /// Of the teacher's distribution whose margin it is, positive; 1 in the paper. At an infinite
    /// temperature no margin is left.
    pub temperature: f64,
}

impl AdaKd {
    /// The weights of a sample by the teacher's cross-entropy of its label, one of `classes`, at the
    /// temperature 1: all others together have what the label lacks.
    pub fn of_loss(teacher: f64, classes: usize) -> [f64; 2] {
        let label = libm::exp(-teacher);
        let others = (1.0 - label) / classes.saturating_sub(1).max(1) as f64;
        let share = (label - others).clamp(0.0, 1.0);
        [1.0 - share, share]
    }
}

impl Policy for AdaKd {
    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let of = |row: usize| {
            let Some(label) = samples.labels[row] else { return [0.0, 1.0] };
            let share = margin(&softmax(samples.teacher(row), self.temperature), label as usize);
            [1.0 - share, share]
        };
        Decision { weights: (0..samples.len()).flat_map(of).collect(), ..Decision::default() }
    }
}

/// `max(0, p_y − mean of the others)`, `0.0..=1.0`; a single class is certain.
fn margin(p: &[f64], label: usize) -> f64 {
    let others: f64 = p.iter().enumerate().filter(|&(k, _)| k != label).map(|(_, p)| p).sum();
    (p[label] - others / (p.len() - 1).max(1) as f64).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_by_hand() {
        for (p, label, want) in [
            (&[0.75, 0.25][..], 0, 0.5),
            (&[0.75, 0.25], 1, 0.0),
            (&[0.5, 0.25, 0.25], 0, 0.25),
            (&[0.25, 0.25, 0.25, 0.25], 2, 0.0),
            (&[0.0, 1.0], 1, 1.0),
            (&[1.0], 0, 1.0),
        ] {
            assert_eq!(margin(p, label), want, "{p:?} {label}");
        }
    }

    #[test]
    fn shares_sum_to_one_and_without_a_label_the_teacher_has_all() {
        let samples = Samples {
            ids: &[0, 1, 2],
            labels: &[Some(0), None, Some(0)],
            classes: 2,
            student: &[0.0; 6],
            teacher: &[3e38, 0.0, 0.0, 1.0, 0.0, f32::NEG_INFINITY],
            losses: &[0.0; 6],
            features: &[],
        };
        let at = At { step: 0, total: 1, learning_rate: 0.0 };
        let weights = |temperature| AdaKd { temperature }.decide(&samples, at).weights;
        assert_eq!(weights(1.0), [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        // The logits 0 and −∞ are certain at any temperature, others are not.
        assert_eq!(weights(f64::MAX)[4..], [0.0, 1.0]);
    }
}
