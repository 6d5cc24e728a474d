//! Weights behind a mask c that goes from 0 to 1: θ_eff = c ⊙ θ (MSG; Yao et al. 2024,
//! arXiv:2305.02869).
//!
//! In: parts of the weights, and the course of c. Out: weights that are always those that the model
//! computes with, so that whoever reads them, saves them or averages them need know no mask; what is
//! behind it, θ, lies in a twin, and only the optimiser sees it. The gradient of θ is c times that of
//! θ_eff. Never: a state of its own: c follows from the steps of the optimiser, and is 1 for good once
//! it is reached.

use heirloom_engine::{Device, Params, Space, View};
use serde::{Deserialize, Serialize};

/// The course of a mask, in steps of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskCourse {
    /// Steps before it.
    pub from: u64,
    /// Steps in which it rises from 0 to 1, in a line.
    pub over: u64,
}

impl MaskCourse {
    /// c after `updates` steps of the optimiser, `0.0..=1.0`.
    pub fn at(&self, updates: u64) -> f64 {
        let risen = updates.saturating_sub(self.from);
        if risen >= self.over { 1.0 } else { risen as f64 / self.over as f64 }
    }
}

/// The masked parts of a flat buffer.
#[derive(Debug)]
pub(crate) struct Mask {
    pub(crate) course: MaskCourse,
    /// θ: a twin of the weights, of which only the masked parts mean something.
    pub(crate) behind: Space,
    /// These parts of the weights.
    parts: Vec<View>,
}

impl Mask {
    pub(crate) fn new(
        device: &mut dyn Device,
        params: &Params,
        parts: Vec<View>,
        course: MaskCourse,
    ) -> Self {
        Self { course, behind: device.alloc(params.len()), parts }
    }

    /// Puts θ in the place of c ⊙ θ, for the optimiser.
    pub(crate) fn lift(&self, device: &mut dyn Device) {
        for &part in &self.parts {
            device.copy(Params::twin(part, self.behind), part);
        }
    }

    /// Takes θ away, and puts c ⊙ θ in its place, c after `updates` steps.
    pub(crate) fn lower(&self, device: &mut dyn Device, updates: u64) {
        let c = self.course.at(updates);
        for &part in &self.parts {
            device.copy(part, Params::twin(part, self.behind));
            device.scale(c, part);
        }
    }

    /// Makes the gradient of c ⊙ θ, a twin of the weights, that of θ, c after `updates` steps.
    pub(crate) fn pull_back(&self, device: &mut dyn Device, grads: Space, updates: u64) {
        let c = self.course.at(updates);
        for &part in &self.parts {
            device.scale(c, Params::twin(part, grads));
        }
    }
}

#[cfg(test)]
mod tests {
    use heirloom_engine::{Cpu, Init, Move, ParamsBuilder, Reference, Role};

    use super::*;
    use crate::{Adam, Learned};

    /// Two columns of a matrix, from a closed mask to beyond its opening, each number for itself:
    /// AdamW moves θ by c times the gradient of what is seen, and c ⊙ θ is seen.
    #[test]
    fn what_is_behind_a_mask_moves_by_its_own_gradient_and_is_seen_through_it() {
        const MASKED: [usize; 6] = [2, 3, 6, 7, 10, 11];
        let adam = Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1 };
        let course = MaskCourse { from: 2, over: 4 };
        let gradient = |step: u64, at: usize| ((step * 7 + at as u64 * 5) % 11) as f64 / 5.0 - 1.0;
        let check = |device: &mut dyn Device, tolerance: f64| {
            let mut builder = ParamsBuilder::new(device);
            builder.add("w", &[3, 4], Role::Weight, Init::Normal(1.0));
            builder.add("b", &[4], Role::Bias, Init::Normal(1.0));
            let params = builder.finish(device);
            params.init(device, 1);
            let view = params.view(&params.index()[0], params.weights());
            let part = view.reshaped(3, 4).columns(2..4);
            let mut learned =
                Learned::new(device, params.clone(), adam, None).masked(device, vec![part], course);
            learned.resumed(device, course.from);
            let grads = Params::twin(view, learned.grads);
            let mut theta = device.read_f64(view);
            device.copy(view, Params::twin(view, learned.behind().expect("a mask")));
            device.fill(part, 0.0);
            let mut moments = [[0.0; 2]; 12];
            for step in 3..=9 {
                let c = course.at(step - 1);
                learned.coming(device, step);
                assert_eq!(learned.mask(), (step <= 6).then_some(c));
                let seen: Vec<f64> = (0..12).map(|at| gradient(step, at)).collect();
                device.write_f64(grads, &seen);
                learned.pull_back(device);
                let mut squares = 0.0;
                for at in 0..12 {
                    let g = if MASKED.contains(&at) { c * seen[at] } else { seen[at] };
                    squares += g * g;
                    let [m, v] = &mut moments[at];
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.99 * *v + 0.01 * g * g;
                    let [one, two] = [0.9, 0.99].map(|beta: f64| 1.0 - beta.powi(step as i32));
                    let direction = (*m / one) / ((*v / two).sqrt() + 1e-8);
                    theta[at] -= 0.02 * (0.1 * theta[at] + direction);
                }
                assert!((learned.squares(device) - squares).abs() < 1e-5 * squares);
                learned.step(device, Move { step, learning_rate: 0.02, gradient_scale: 1.0 });
                let c = course.at(step);
                for (at, got) in device.read_f64(view).into_iter().enumerate() {
                    let want = if MASKED.contains(&at) { c * theta[at] } else { theta[at] };
                    assert!((got - want).abs() < tolerance, "step {step}, {at}: {got}, {want}");
                }
            }
            assert!(learned.behind().is_none());
        };
        check(&mut Reference::<f64>::new(), 1e-12);
        check(&mut Cpu::new(1), 1e-5);
    }

    #[test]
    fn a_mask_begins_closed_and_ends_open() {
        let course = MaskCourse { from: 10, over: 4 };
        let c: Vec<f64> = [0, 10, 11, 13, 14, 900].map(|updates| course.at(updates)).to_vec();
        assert_eq!(c, [0.0, 0.0, 0.25, 0.75, 1.0, 1.0]);
    }
}
