//! GradNorm: losses whose gradients are of one size, but for how far each has come.
//!
//! Chen, Badrinarayanan, Lee & Rabinovich 2018, "GradNorm: Gradient Normalization for Adaptive Loss
//! Balancing in Deep Multitask Networks", ICML, arXiv:1711.02257, algorithm 1. With `G = w ‖∇_W L‖`
//! of each weighted mean loss and `Ḡ` their mean, each is drawn to `Ḡ·r^α`, where `r` is the loss
//! over its first value, over the mean of all: the loss that lags trains harder. Weights go down
//! `Σ |G − Ḡ r^α|` with the target held constant, and are then scaled to sum to the number of losses:
//! two, and one more for each further teacher.
//!
//! `W` is the last layer all losses share: the classifier. Its gradient is had in closed form (see
//! [`LastLayer`]), for the label `s − y` and for the teacher `T (sᵀ − tᵀ)` on the logits: the
//! divergence is taken to be the forward one with its T², whatever the plan trains with.
//!
//! Deviations: plain gradient descent on the weights; a weight below zero is zero, from where it may
//! come back.

use crate::last_layer::{LastLayer, label_gradient, teacher_gradient};
use crate::{At, Decision, Needs, Policy, Restored, Samples};

/// One weight per loss, learnt from the sizes of gradients.
#[derive(Clone, Debug)]
pub struct GradNorm {
    alpha: f64,
    learning_rate: f64,
    temperature: f64,
    /// Label, each teacher; they sum to their number.
    weights: Vec<f64>,
    /// Mean losses of the first step; NaN before it.
    first: Vec<f64>,
    /// Of the step under way: the sum of each loss's gradient, and of how many samples.
    sums: Vec<Option<(LastLayer, usize)>>,
}

impl GradNorm {
    /// Weights of one to begin with.
    ///
    /// `alpha`, at least 0: how strongly the loss that lags is favoured; the paper's values lie
    /// between 0.1 and 1.5. `learning_rate`, positive: that of the weights. `temperature`, positive:
    /// of the teacher's loss.
    pub fn new(alpha: f64, learning_rate: f64, temperature: f64) -> Self {
        let (weights, first, sums) = (vec![1.0; 2], vec![f64::NAN; 2], vec![None; 2]);
        Self { alpha, learning_rate, temperature, weights, first, sums }
    }

    /// The same for several teachers, each with a weight of its own.
    #[must_use]
    pub fn with_teachers(self, teachers: usize) -> Self {
        let terms = 1 + teachers;
        let (weights, first) = (vec![1.0; terms], vec![f64::NAN; terms]);
        Self { weights, first, sums: vec![None; terms], ..self }
    }
}

impl Policy for GradNorm {
    fn needs(&self) -> Needs {
        Needs { features: true, ..Needs::default() }
    }

    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        Decision::repeated(samples.len(), &self.weights)
    }

    fn observe(&mut self, samples: &Samples<'_>, _: At) {
        let width = samples.features.len().checked_div(samples.len()).unwrap_or(0);
        for row in 0..samples.len() {
            let features = &samples.features[row * width..(row + 1) * width];
            let student = samples.student(row);
            let (label, teachers) =
                self.sums.split_first_mut().expect("a label and at least one teacher");
            let add = |sum: &mut Option<(LastLayer, usize)>, gradient: &[f64]| {
                let (sum, count) = sum.get_or_insert_with(|| (LastLayer::new(samples.classes), 0));
                sum.add(gradient, features, 1.0);
                *count += 1;
            };
            if let Some(class) = samples.labels[row] {
                add(label, &label_gradient(student, Some(class)));
            }
            for (at, sum) in teachers.iter_mut().enumerate() {
                let teacher = samples.teacher_of(row, at);
                add(sum, &teacher_gradient(student, teacher, self.temperature));
            }
        }
    }

    fn learn(&mut self, means: &[f64], _: At) {
        let terms = self.weights.len();
        let sums = std::mem::replace(&mut self.sums, vec![None; terms]);
        let norm =
            |sum: Option<(LastLayer, usize)>| sum.map(|(sum, count)| sum.norm() / count as f64);
        // A step without one of the losses says nothing of their balance.
        let norms: Option<Vec<f64>> = sums.into_iter().map(norm).collect();
        let Some(norms) = norms else { return };
        let known = means.iter().all(|&mean| mean > 0.0 && mean.is_finite());
        if !known || !norms.iter().all(|norm| norm.is_finite()) {
            return;
        }
        if self.first[0].is_nan() {
            self.first = means.to_vec();
        }
        let (alpha, rate) = (self.alpha, self.learning_rate);
        self.weights = step(&self.weights, &norms, means, &self.first, alpha, rate);
    }

    fn leave_out(&mut self) {
        self.sums.fill(None);
    }

    fn state(&self) -> Vec<f64> {
        [self.weights.as_slice(), &self.first].concat()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let terms = self.weights.len();
        if state.len() != 2 * terms {
            return Err(Restored { expected: 2 * terms, found: state.len() });
        }
        self.weights.copy_from_slice(&state[..terms]);
        self.first.copy_from_slice(&state[terms..]);
        Ok(())
    }
}

/// The weights after one step, given `‖∇_W L‖` of each mean loss, the losses, and their first values.
fn step(
    weights: &[f64],
    norms: &[f64],
    means: &[f64],
    first: &[f64],
    alpha: f64,
    learning_rate: f64,
) -> Vec<f64> {
    let terms = weights.len() as f64;
    let sizes: Vec<f64> = weights.iter().zip(norms).map(|(weight, norm)| weight * norm).collect();
    let left: Vec<f64> = means.iter().zip(first).map(|(mean, first)| mean / first).collect();
    let [size, usual] = [&sizes, &left].map(|all| all.iter().sum::<f64>() / terms);
    let moved = (0..weights.len()).map(|loss| {
        let beyond = sizes[loss] - size * libm::pow(left[loss] / usual, alpha);
        // The derivative of |·|, 0 where it is level.
        let side = if beyond == 0.0 { 0.0 } else { beyond.signum() };
        (weights[loss] - learning_rate * side * norms[loss]).max(0.0)
    });
    let moved: Vec<f64> = moved.collect();
    let sum: f64 = moved.iter().sum();
    // A step too long for all leaves them where they were.
    if sum > 0.0 {
        moved.into_iter().map(|weight| terms * weight / sum).collect()
    } else {
        weights.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At = At { step: 0, total: 10, learning_rate: 1e-3 };

    #[track_caller]
    fn near(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got}, should be {want}");
        }
    }

    /// By hand: sizes 3 and 1, mean 2; both losses halved, so both targets 2; weights 1 − 0.1·3 and
    /// 1 + 0.1·1, scaled by 2/1.8.
    #[test]
    fn the_larger_gradient_loses_weight() {
        let got = step(&[1.0, 1.0], &[3.0, 1.0], &[1.0, 2.0], &[2.0, 4.0], 1.5, 0.1);
        near(&got, &[0.7 * 2.0 / 1.8, 1.1 * 2.0 / 1.8]);
    }

    /// By hand: equal sizes of 2; losses left are 0.9 and 0.1 of the first, their mean 0.5; with
    /// α = 1 targets are 3.6 and 0.4.
    #[test]
    fn the_loss_that_lags_gains_weight() {
        let got = step(&[1.0, 1.0], &[2.0, 2.0], &[0.9, 0.1], &[1.0, 1.0], 1.0, 0.1);
        near(&got, &[1.2, 0.8]);
        // With α = 0 equal sizes are all that is asked for.
        assert_eq!(step(&[1.0; 2], &[2.0; 2], &[0.9, 0.1], &[1.0; 2], 0.0, 0.1), [1.0, 1.0]);
    }

    #[test]
    fn a_weight_stops_at_zero_and_may_come_back() {
        let gone = step(&[0.1, 1.9], &[30.0, 1.0], &[1.0; 2], &[1.0; 2], 0.0, 0.01);
        near(&gone, &[0.0, 2.0]);
        assert!(step(&gone, &[30.0, 1.0], &[1.0; 2], &[1.0; 2], 0.0, 0.01)[0] > 0.0);
        assert_eq!(step(&[1.0; 2], &[3.0, 1.0], &[1.0; 2], &[1.0; 2], 0.0, 1e3)[1], 2.0);
    }

    /// Two samples of two classes with even logits. By hand: the label's gradient is
    /// (−½, ½) ⊗ (3, 4, 1) of the one labelled sample, of norm √½·√26.
    #[test]
    fn norms_come_from_features_and_logits() {
        let samples = Samples {
            ids: &[0, 1],
            labels: &[Some(0), None],
            classes: 2,
            student: &[0.0; 4],
            teacher: &[0.0, 0.0, 0.0, 2.0 * 3f32.ln()],
            losses: &[0.0; 4],
            features: &[3.0, 4.0, 0.0, 2.0],
        };
        let mut policy = GradNorm::new(1.0, 0.1, 2.0);
        policy.observe(&samples, AT);
        let norms = policy.sums.iter().map(|sum| {
            let (sum, count) = sum.as_ref().expect("both losses were there");
            sum.norm() / *count as f64
        });
        // The teacher's second row at T = 2 is (¼, ¾): 2·(½ − ¼, ½ − ¾) ⊗ (0, 2, 1), over two rows.
        let want = [(0.5f64 * 26.0).sqrt(), (0.5f64 * 5.0).sqrt() / 2.0];
        for (got, want) in norms.zip(want) {
            // ln 3 is rounded to single precision.
            assert!((got - want).abs() < 1e-7, "{got}, should be {want}");
        }
    }

    /// By hand: sizes 3, 1 and 2, mean 2, all losses halved: the first down by 0.3, the second up by
    /// 0.1, the third level where it should be; scaled to sum to 3.
    #[test]
    fn three_losses_are_drawn_to_their_mean() {
        let three = [1.0; 3];
        let got = step(&three, &[3.0, 1.0, 2.0], &[1.0, 2.0, 0.5], &[2.0, 4.0, 1.0], 1.5, 0.1);
        near(&got, &[0.7 * 3.0 / 2.8, 1.1 * 3.0 / 2.8, 3.0 / 2.8]);
    }

    /// One sample, two classes, even logits of student and second teacher: that teacher asks for
    /// nothing, and the first for ¼ of (−1, 1) at T = 1.
    #[test]
    fn each_of_several_teachers_has_a_gradient_of_its_own() {
        let samples = Samples {
            ids: &[0],
            labels: &[Some(0)],
            classes: 2,
            student: &[0.0; 2],
            teacher: &[0.0, 3f32.ln(), 0.0, 0.0],
            losses: &[0.0; 3],
            features: &[0.0],
        };
        let mut policy = GradNorm::new(1.0, 0.1, 1.0).with_teachers(2);
        policy.observe(&samples, AT);
        let norms: Vec<f64> =
            policy.sums.iter().map(|sum| sum.as_ref().map_or(f64::NAN, |s| s.0.norm())).collect();
        for (got, want) in norms.into_iter().zip([0.5f64.sqrt(), 0.125f64.sqrt(), 0.0]) {
            assert!((got - want).abs() < 1e-7, "{got}, should be {want}");
        }
        assert_eq!(policy.restore(&[1.0; 4]), Err(Restored { expected: 6, found: 4 }));
    }

    #[test]
    fn a_step_without_labels_changes_nothing_and_leaves_nothing_behind() {
        let samples = Samples {
            ids: &[0],
            labels: &[None],
            classes: 2,
            student: &[0.0, 1.0],
            teacher: &[0.0; 2],
            losses: &[0.0; 2],
            features: &[1.0],
        };
        let mut policy = GradNorm::new(1.0, 0.1, 2.0);
        policy.observe(&samples, AT);
        policy.learn(&[0.0, 0.3], AT);
        assert_eq!(policy.weights, [1.0, 1.0]);
        assert!(policy.sums.iter().all(Option::is_none));
        assert_eq!(policy.restore(&[1.0; 3]), Err(Restored { expected: 4, found: 3 }));
    }
}
