//! Curriculum temperature: a temperature that learns to make the student's task harder.
//!
//! Li, Li, Yang, Zhao, Song, Luo, Li & Yang 2023, "Curriculum Temperature for Knowledge
//! Distillation", AAAI, arXiv:2211.16231, the global form. `T = t₀ + t₁·σ(ρ)`; ρ goes *up* the
//! teacher's loss `T² KL(softmax(u/T) ‖ softmax(z/T))`, first not at all and then more and more: the
//! reversed gradient grows along half a cosine over the run's first part.
//!
//! The derivative with respect to T is had in closed form from the logits, see
//! [`temperature_slope`]. Deviation: plain gradient ascent with a rate of its own, where the authors
//! give ρ to the student's optimiser: one of Adam's kind would divide the growing factor out.

use crate::last_layer::temperature_slope;
use crate::{At, Decision, Policy, Restored, Samples};

/// A fixed share of the teacher at a learnt temperature.
#[derive(Clone, Debug)]
pub struct Ctkd {
    alpha: f64,
    range: [f64; 2],
    learning_rate: f64,
    ramp: f64,
    rho: f64,
    /// Of the step under way: the sum of the slopes, and of how many samples.
    slopes: (f64, usize),
}

impl Ctkd {
    /// `alpha`, `0.0..=1.0`: the teacher's share. `range`: `t₀` and `t₁`, both positive; the
    /// temperature lies between `t₀` and `t₀ + t₁` (the authors' are 1 and 20). `learning_rate`,
    /// positive. `ramp`, `0.0..=1.0`: the part of the run over which the reversed gradient grows.
    ///
    /// ρ begins at 1, as the authors'.
    pub fn new(alpha: f64, range: [f64; 2], learning_rate: f64, ramp: f64) -> Self {
        Self { alpha, range, learning_rate, ramp, rho: 1.0, slopes: (0.0, 0) }
    }

    /// T.
    pub fn temperature(&self) -> f64 {
        self.range[0] + self.range[1] * self.sigmoid()
    }

    fn sigmoid(&self) -> f64 {
        1.0 / (1.0 + libm::exp(-self.rho))
    }

    /// How much of the reversed gradient counts, `0.0..=1.0`.
    fn reversal(&self, at: At) -> f64 {
        let done = at.progress();
        if done >= self.ramp {
            return 1.0;
        }
        0.5 - 0.5 * libm::cos(std::f64::consts::PI * done / self.ramp)
    }
}

impl Policy for Ctkd {
    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let temperature = Some(self.temperature());
        Decision { temperature, ..Decision::uniform(samples.len(), 1.0 - self.alpha, self.alpha) }
    }

    fn observe(&mut self, samples: &Samples<'_>, _: At) {
        let temperature = self.temperature();
        for row in 0..samples.len() {
            let (student, teacher) = (samples.student(row), samples.teacher(row));
            self.slopes.0 += temperature_slope(student, teacher, temperature);
        }
        self.slopes.1 += samples.len();
    }

    fn learn(&mut self, _: &[f64], at: At) {
        let (sum, count) = std::mem::take(&mut self.slopes);
        if count == 0 {
            return;
        }
        let sigmoid = self.sigmoid();
        let slope = self.alpha * sum / count as f64 * self.range[1] * sigmoid * (1.0 - sigmoid);
        self.rho += self.learning_rate * self.reversal(at) * slope;
    }

    fn leave_out(&mut self) {
        self.slopes = Default::default();
    }

    fn state(&self) -> Vec<f64> {
        vec![self.rho]
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let &[rho] = state else { return Err(Restored { expected: 1, found: state.len() }) };
        self.rho = rho;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ln_softmax;

    const STUDENT: [f32; 6] = [0.3, -1.0, 2.0, 1.5, 0.0, -0.5];
    const TEACHER: [f32; 6] = [2.0, -2.0, 0.5, -1.0, 0.5, 3.0];

    fn at(step: u64) -> At {
        At { step, total: 11, learning_rate: 1e-3 }
    }

    /// Two samples of three classes.
    fn samples() -> Samples<'static> {
        let (ids, labels) = (&[0, 1], &[Some(0), None]);
        let (student, teacher, losses, features) = (&STUDENT, &TEACHER, &[0.0; 4], &[]);
        Samples { ids, labels, classes: 3, student, teacher, losses, features }
    }

    /// α times the mean of `T² KL` at a ρ.
    fn loss(rho: f64) -> f64 {
        let t = 1.0 + 20.0 / (1.0 + (-rho).exp());
        let rows = STUDENT.chunks(3).zip(TEACHER.chunks(3)).map(|(z, u)| {
            let pairs = ln_softmax(u, t).into_iter().zip(ln_softmax(z, t));
            t * t * pairs.map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
        });
        0.9 * rows.sum::<f64>() / 2.0
    }

    #[test]
    fn a_step_goes_up_the_loss_as_differences_say() {
        for rho in [-3.0, 0.0, 1.0, 2.5] {
            let mut policy = Ctkd::new(0.9, [1.0, 20.0], 1.0, 0.0);
            policy.restore(&[rho]).expect("one number");
            policy.observe(&samples(), at(4));
            policy.learn(&[0.0; 2], at(4));
            let step = 1e-5;
            let want = (loss(rho + step) - loss(rho - step)) / (2.0 * step);
            let got = policy.rho - rho;
            assert!((got - want).abs() < 1e-8, "ρ {rho}: {got}, should be {want}");
        }
    }

    #[test]
    fn how_a_step_is_cut_changes_nothing() {
        let mut whole = Ctkd::new(0.9, [1.0, 20.0], 1.0, 0.0);
        let mut cut = whole.clone();
        whole.observe(&samples(), at(4));
        for row in 0..2 {
            let part = Samples {
                ids: &[0],
                labels: &[None],
                student: samples().student(row),
                teacher: samples().teacher(row),
                ..samples()
            };
            cut.observe(&part, at(4));
        }
        [&mut whole, &mut cut].into_iter().for_each(|policy| policy.learn(&[0.0; 2], at(4)));
        assert_eq!(whole.rho, cut.rho);
        assert_ne!(whole.rho, 1.0);
    }

    #[test]
    fn the_reversed_gradient_grows_over_the_ramp() {
        let policy = Ctkd::new(0.9, [1.0, 20.0], 1.0, 0.5);
        assert_eq!(policy.reversal(at(0)), 0.0);
        assert!(
            (policy.reversal(at(1)) - (0.5 - 0.5 * (0.2 * std::f64::consts::PI).cos())) < 1e-15
        );
        assert_eq!([5, 6, 10].map(|step| policy.reversal(at(step))), [1.0; 3]);
        // Without a ramp it counts from the start.
        assert_eq!(Ctkd::new(0.9, [1.0, 20.0], 1.0, 0.0).reversal(at(0)), 1.0);
    }

    #[test]
    fn the_temperature_keeps_to_its_range_and_a_step_of_nothing_leaves_it() {
        let mut policy = Ctkd::new(0.3, [2.0, 4.0], 1.0, 0.0);
        for (rho, want) in [(0.0, 4.0), (1e3, 6.0), (-1e3, 2.0)] {
            policy.restore(&[rho]).expect("one number");
            policy.learn(&[0.0; 2], at(0));
            let decision = policy.decide(&samples(), at(0));
            assert_eq!(decision.temperature, Some(want));
            assert_eq!(decision.weights, [0.7, 0.3, 0.7, 0.3]);
        }
        assert_eq!(policy.restore(&[]), Err(Restored { expected: 1, found: 0 }));
    }
}
