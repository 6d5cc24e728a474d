//! Continuation-KD: from a margin around a small teacher to the labels, without a break.
//!
//! Jafari, Kobyzev, Rezagholizadeh, Poupart & Ghodsi 2022, "Continuation KD: Improved Knowledge
//! Distillation through the Lens of Continuation Optimization", Findings of EMNLP. The loss at time
//! t is `(1 − ψ)·CE + ψ·max(0, ‖z − φ u‖² − m)`, `z` the student's and `u` the teacher's logits,
//! while ψ goes from 1 to 0 and φ from near 0 to 1.
//!
//! The form above is recalled with medium certainty. The courses of ψ, φ and the margin m are ours:
//! ψ and m fall in a line, φ rises through `1/T_max, …, 1`; and the square is the mean over the
//! classes, so that a margin means the same for any number of them.
//!
//! The gradient of the hinge is that of `‖z − φ u‖²` outside the margin and zero inside, so the
//! policy decides the hinge: a sample inside has no weight for its teacher. The plan must choose
//! mean squared error on logits as the teacher's divergence.

use crate::annealing_kd::AnnealingKd;
use crate::{At, Decision, Policy, Samples};

/// A share of the teacher that fades, and a margin inside which it is silent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContinuationKd {
    /// T_max, at least 1: how many sizes the teacher's logits go through.
    pub levels: u32,
    /// m at the first step, at least 0, in squared logits; 0 at the last.
    pub margin: f64,
}

impl ContinuationKd {
    /// ψ, `0.0..=1.0`: the teacher's share outside the margin.
    pub fn psi(&self, at: At) -> f64 {
        1.0 - at.progress()
    }
}

impl Policy for ContinuationKd {
    fn decide(&self, samples: &Samples<'_>, at: At) -> Decision {
        let psi = self.psi(at);
        let levels = AnnealingKd { phase_one: 1.0, levels: self.levels };
        let scale = levels.scale(at).unwrap_or(1.0);
        let margin = psi * self.margin;
        let of = |row: usize| {
            let outside = distance(samples.student(row), samples.teacher(row), scale) > margin;
            [1.0 - psi, if outside { psi } else { 0.0 }]
        };
        Decision {
            weights: (0..samples.len()).flat_map(of).collect(),
            temperature: None,
            teacher_scale: Some(scale),
            ..Decision::default()
        }
    }
}

/// The mean over the classes of `(z − φ u)²`; equal infinities are no distance.
fn distance(student: &[f32], teacher: &[f32], scale: f64) -> f64 {
    let square = |(&z, &u): (&f32, &f32)| {
        let (z, u) = (f64::from(z), scale * f64::from(u));
        if z == u { 0.0 } else { (z - u) * (z - u) }
    };
    student.iter().zip(teacher).map(square).sum::<f64>() / student.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(policy: ContinuationKd, step: u64, student: &[f32], teacher: &[f32]) -> Decision {
        let ids: Vec<u32> = (0..student.len() as u32 / 2).collect();
        let labels = vec![Some(0); ids.len()];
        let (losses, features) = (&[], &[]);
        let samples =
            Samples { ids: &ids, labels: &labels, classes: 2, student, teacher, losses, features };
        policy.decide(&samples, At { step, total: 5, learning_rate: 1e-3 })
    }

    /// By hand at a quarter of the run: ψ = 0.75, φ = 2/5, m = 0.75·4 = 3. Distances to φ·(5, 0):
    /// of (2, 0) none, of (2, 2) 2, of (5, 1) 5.
    #[test]
    fn the_margin_decides_who_hears_the_teacher() {
        let policy = ContinuationKd { levels: 5, margin: 4.0 };
        let student = [2.0, 0.0, 2.0, 2.0, 5.0, 1.0];
        let decision = decide(policy, 1, &student, &[5.0, 0.0, 5.0, 0.0, 5.0, 0.0]);
        assert_eq!(decision.weights, [0.25, 0.0, 0.25, 0.0, 0.25, 0.75]);
        assert_eq!(decision.teacher_scale, Some(0.4));
    }

    #[test]
    fn a_run_goes_from_the_teacher_alone_to_the_labels_alone() {
        let policy = ContinuationKd { levels: 2, margin: 0.0 };
        let ends = [0, 4].map(|step| decide(policy, step, &[1.0, 0.0], &[9.0, 0.0]));
        assert_eq!(ends.each_ref().map(|end| end.of(0)), [[0.0, 1.0], [1.0, 0.0]]);
        assert_eq!(ends.map(|end| end.teacher_scale), [Some(0.5), Some(1.0)]);
    }

    #[test]
    fn equal_infinities_are_no_distance() {
        let row = [1.0, f32::NEG_INFINITY];
        assert_eq!(distance(&row, &row, 1.0), 0.0);
        assert_eq!(distance(&[1.0, 0.0], &row, 1.0), f64::INFINITY);
    }
}
