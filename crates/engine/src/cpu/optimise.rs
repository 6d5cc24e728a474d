//! AdamW in one pass over the flat buffers.

use super::Cpu;
use super::lanes::vectorised;
use super::memory::RowsMut;
use crate::View;
use crate::device::AdamW;

/// What is the same for every number of a span.
#[derive(Clone, Copy)]
struct Factors {
    gradient: f32,
    beta1: f32,
    beta2: f32,
    grow1: f32,
    grow2: f32,
    /// `lr/(1 − β₁ᵗ)`.
    step: f32,
    /// `1/√(1 − β₂ᵗ)`.
    root: f32,
    epsilon: f32,
    decay: f32,
}

impl Cpu {
    pub(super) fn adamw_spans(&mut self, op: &AdamW<'_>) {
        let correct1 = 1.0 - op.beta1.powf(op.step as f64);
        let correct2 = 1.0 - op.beta2.powf(op.step as f64);
        for span in op.spans {
            let factors = Factors {
                gradient: op.gradient_scale as f32,
                beta1: op.beta1 as f32,
                beta2: op.beta2 as f32,
                grow1: (1.0 - op.beta1) as f32,
                grow2: (1.0 - op.beta2) as f32,
                step: (op.learning_rate / correct1) as f32,
                root: (1.0 / correct2.sqrt()) as f32,
                epsilon: op.epsilon as f32,
                decay: (op.learning_rate * span.weight_decay) as f32,
            };
            let len = span.end - span.start;
            let views = op.spaces.map(|space| View::matrix(space, span.start, len, 1));
            let ([], [weights, gradient, first, second]) = self.memory.borrow([], views);
            let cut = ((weights, gradient), (first, second));
            self.threads.over(cut, 4, |((weights, gradient), (first, second))| {
                vectorised(
                    #[inline(always)]
                    || step(factors, [weights, gradient, first, second]),
                );
            });
        }
    }
}

#[inline(always)]
fn step(by: Factors, [weights, gradient, first, second]: [RowsMut<'_>; 4]) {
    let len = weights.values.len();
    let (weights, gradient) = (weights.values, &mut gradient.values[..len]);
    let (first, second) = (&mut first.values[..len], &mut second.values[..len]);
    for at in 0..len {
        let g = gradient[at] * by.gradient;
        let m = by.beta1.mul_add(first[at], by.grow1 * g);
        let v = by.beta2.mul_add(second[at], by.grow2 * g * g);
        let change = by.step * m / v.sqrt().mul_add(by.root, by.epsilon);
        weights[at] -= by.decay.mul_add(weights[at], change);
        (first[at], second[at], gradient[at]) = (m, v, 0.0);
    }
}
