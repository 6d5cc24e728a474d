//! Weighted soft labels: less of the teacher where the student already knows the label better.
//!
//! Zhou, Song, Chen, Zhou, Wang, Yuan & Zhang 2021, "Rethinking Soft Labels for Knowledge
//! Distillation: A Bias–Variance Tradeoff Perspective", ICLR, arXiv:2102.00650. The loss is
//! `CE(y, s) + α·w·ℓ` with `w = 1 − exp(−CE(y, s)/CE(y, t))`, both at temperature 1 and without
//! label smoothing, whatever the plan trains with; `w` is a constant of the step.
//!
//! Deviation: a sample without a label has `w = 1`, as if the student knew nothing of it.

use crate::rows::ln_softmax;
use crate::{At, Decision, Policy, Samples};

/// The label's weight is one, the teacher's `α·w`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wsl {
    /// α, at least 0: the teacher's largest weight.
    pub alpha: f64,
}

/// Keeps the quotient finite where the teacher is certain, as the authors do.
const LEAST: f64 = 1e-7;

impl Wsl {
    /// The weights of a sample by the cross-entropies of its label, the student's and the teacher's.
    pub fn of_losses(&self, student: f64, teacher: f64) -> [f64; 2] {
        [1.0, self.alpha * weight(student, teacher)]
    }
}

impl Policy for Wsl {
    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let of = |row: usize| {
            let Some(label) = samples.labels[row] else { return [0.0, self.alpha] };
            let loss = |logits| -ln_softmax(logits, 1.0)[label as usize];
            self.of_losses(loss(samples.student(row)), loss(samples.teacher(row)))
        };
        Decision { weights: (0..samples.len()).flat_map(of).collect(), ..Decision::default() }
    }
}

/// `1 − exp(−student/teacher)`, `0.0..=1.0`, of two cross-entropies.
fn weight(student: f64, teacher: f64) -> f64 {
    let teacher = teacher + LEAST;
    // Both infinite: neither knows more.
    let quotient = if student == teacher { 1.0 } else { student / teacher };
    -libm::expm1(-quotient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_can_be_worked_out_by_hand() {
        let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-6, "{got}, not {want}");
        close(weight(1.0, 1.0), 1.0 - (-1f64).exp());
        close(weight(2.0, 1.0), 1.0 - (-2f64).exp());
        close(weight(3f64.ln(), 1.0), 2.0 / 3.0);
    }

    #[test]
    fn the_ends() {
        assert_eq!(weight(0.0, 3.0), 0.0);
        assert_eq!(weight(0.0, 0.0), 0.0);
        assert_eq!(weight(3.0, 0.0), 1.0);
        assert_eq!(weight(f64::INFINITY, 1.0), 1.0);
        assert_eq!(weight(1.0, f64::INFINITY), 0.0);
        assert_eq!(weight(f64::INFINITY, f64::INFINITY), weight(LEAST, 0.0));
    }

    /// Student (¼, ¾), teacher (½, ½); the label is 0: the quotient is ln 4/ln 2 = 2.
    #[test]
    fn the_label_keeps_its_weight_and_without_one_the_teacher_has_its_largest() {
        let samples = Samples {
            ids: &[0, 1],
            labels: &[Some(0), None],
            classes: 2,
            student: &[0.0, 3f32.ln(), 0.0, 1.0],
            teacher: &[0.0; 4],
            losses: &[9.0; 4],
            features: &[],
        };
        let at = At { step: 0, total: 1, learning_rate: 0.0 };
        let got = Wsl { alpha: 2.5 }.decide(&samples, at).weights;
        let want = [1.0, 2.5 * (1.0 - (-2f64).exp()), 0.0, 2.5];
        for (got, want) in got.into_iter().zip(want) {
            // The floor below the teacher's loss.
            assert!((got - want).abs() < 1e-6, "{got}, should be {want}");
        }
    }
}
