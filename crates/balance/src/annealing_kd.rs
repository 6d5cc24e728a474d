//! Annealing-KD: first the teacher's logits, growing to their full size, then the labels alone.
//!
//! Jafari, Rezagholizadeh, Sharma & Ghodsi 2021, "Annealing Knowledge Distillation", EACL,
//! arXiv:2104.07163. Phase one regresses on `φ·u`, `u` the teacher's logits and `φ = i/T_max` for
//! `i = 1, …, T_max`, each for an equal part of the phase; phase two is cross-entropy. The plan must
//! choose mean squared error on logits as the teacher's divergence: for a divergence between
//! softened distributions a factor on the teacher's logits alone is another method.

use crate::{At, Decision, Policy, Samples};

/// Two phases, the same for every sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnnealingKd {
    /// Part of the run that is phase one, `0.0..=1.0`.
    pub phase_one: f64,
    /// T_max, at least 1: how many sizes the teacher's logits go through.
    pub levels: u32,
}

impl AnnealingKd {
    /// φ, in `1/T_max..=1.0`; `None` in phase two.
    pub fn scale(&self, at: At) -> Option<f64> {
        let steps = self.phase_one * at.total as f64;
        let step = at.step as f64;
        (step < steps).then(|| {
            let levels = f64::from(self.levels);
            // Rounding may reach the end of the phase a hair early.
            ((step / steps * levels).floor() + 1.0).min(levels) / levels
        })
    }
}

impl Policy for AnnealingKd {
    fn decide(&self, samples: &Samples<'_>, at: At) -> Decision {
        let teacher_scale = self.scale(at);
        let teacher = if teacher_scale.is_some() { 1.0 } else { 0.0 };
        Decision { teacher_scale, ..Decision::uniform(samples.len(), 1.0 - teacher, teacher) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(phase_one: f64, levels: u32, total: u64, want: &[f64]) {
        let policy = AnnealingKd { phase_one, levels };
        let scales = (0..total).map(|step| policy.scale(At { step, total, learning_rate: 1e-3 }));
        // 0 here stands for phase two.
        let got: Vec<f64> = scales.map(|scale| scale.unwrap_or(0.0)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn the_teacher_grows_in_levels_and_leaves() {
        check(0.75, 3, 8, &[1.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn either_phase_may_be_the_whole_run() {
        check(0.0, 10, 3, &[0.0; 3]);
        check(1.0, 1, 3, &[1.0; 3]);
        check(1.0, 4, 2, &[0.25, 0.75]);
    }

    #[test]
    fn a_phase_has_one_loss() {
        let samples = Samples {
            ids: &[4, 5],
            labels: &[None, Some(0)],
            classes: 1,
            student: &[0.0; 2],
            teacher: &[0.0; 2],
            losses: &[0.0; 4],
            features: &[],
        };
        let policy = AnnealingKd { phase_one: 0.5, levels: 2 };
        let decide = |step| policy.decide(&samples, At { step, total: 4, learning_rate: 1e-3 });
        assert_eq!(decide(1).weights, [0.0, 1.0, 0.0, 1.0]);
        assert_eq!(decide(1).teacher_scale, Some(1.0));
        assert_eq!(decide(2), Decision::uniform(2, 1.0, 0.0));
    }
}
