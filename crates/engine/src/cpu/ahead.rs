//! Steps on trial, and how far they follow the gradient. Not on the path of an ordinary step.

use super::Cpu;
use super::lanes::vectorised;
use super::memory::nothing;
use crate::View;
use crate::device::{Ahead, Slope, Update};

impl Cpu {
    pub(super) fn steps_ahead(&mut self, op: &Ahead<'_>) {
        for span in op.spans {
            let len = span.end - span.start;
            let [weights, others @ ..] =
                op.spaces.map(|space| View::matrix(space, span.start, len, 1));
            let (others, [weights]) = self.memory.borrow(others, [weights]);
            let [gradient, first, second] = others;
            let (by, decay) = (By::of(op.update.of(span)), span.weight_decay);
            self.threads.over((weights, (gradient, (first, second))), 8, |(weights, others)| {
                let (gradient, (first, second)) = others;
                vectorised(
                    #[inline(always)]
                    || {
                        for at in 0..weights.values.len() {
                            let number = [gradient, first, second].map(|of| of.values[at]);
                            let w = weights.values[at];
                            weights.values[at] = w - by.change(decay, w, number);
                        }
                    },
                );
            });
        }
    }

    pub(super) fn slopes(&mut self, op: &Slope<'_>) {
        for span in op.spans {
            let len = span.end - span.start;
            let view = |space| View::matrix(space, span.start, len, 1);
            let gradient = op.gradient.map_or_else(nothing, view);
            let others = [view(op.moments[0]), view(op.moments[1]), gradient];
            let ([first, second, gradient], [direction]) =
                self.memory.borrow(others, [view(op.direction)]);
            let gradient = op.gradient.map(|_| gradient);
            let by = By::of(op.update.of(span));
            self.threads.over((direction, ((first, second), gradient)), 8, |(direction, of)| {
                let ((first, second), gradient) = of;
                vectorised(
                    #[inline(always)]
                    || {
                        for at in 0..direction.values.len() {
                            let g = gradient.map_or(0.0, |gradient| gradient.values[at]);
                            let number = [g, first.values[at], second.values[at]];
                            direction.values[at] *= by.slope(number);
                        }
                    },
                );
            });
        }
    }
}

/// The rule's numbers, the same for every weight.
#[derive(Clone, Copy)]
struct By {
    learning_rate: f32,
    adam: Option<Adam>,
}

#[derive(Clone, Copy)]
struct Adam {
    scale: f32,
    beta: [f32; 2],
    grow: [f32; 2],
    correct: [f32; 2],
    epsilon: f32,
}

impl By {
    fn of(update: Update) -> Self {
        match update {
            Update::Sgd { learning_rate } => {
                Self { learning_rate: learning_rate as f32, adam: None }
            }
            Update::AdamW { beta1, beta2, epsilon, at } => {
                let betas = [beta1, beta2];
                let adam = Adam {
                    scale: at.gradient_scale as f32,
                    beta: betas.map(|beta| beta as f32),
                    grow: betas.map(|beta| (1.0 - beta) as f32),
                    correct: betas.map(|beta| (1.0 - beta.powf(at.step as f64)) as f32),
                    epsilon: epsilon as f32,
                };
                Self { learning_rate: at.learning_rate as f32, adam: Some(adam) }
            }
        }
    }

    /// What a weight loses.
    #[inline(always)]
    fn change(&self, decay: f64, w: f32, [g, m, v]: [f32; 3]) -> f32 {
        let Some(Adam { scale, beta, grow, correct, epsilon }) = self.adam else {
            return self.learning_rate * g;
        };
        let g = g * scale;
        let m = (beta[0] * m + grow[0] * g) / correct[0];
        let root = ((beta[1] * v + grow[1] * g * g) / correct[1]).sqrt();
        self.learning_rate * (decay as f32 * w + m / (root + epsilon))
    }

    /// Derivative of the moved weight with respect to the gradient.
    #[inline(always)]
    fn slope(&self, [g, m, v]: [f32; 3]) -> f32 {
        let Some(Adam { scale, beta, grow, correct, epsilon }) = self.adam else {
            return -self.learning_rate;
        };
        let g = g * scale;
        let m = (beta[0] * m + grow[0] * g) / correct[0];
        let root = ((beta[1] * v + grow[1] * g * g) / correct[1]).sqrt();
        let below = root + epsilon;
        let direct = grow[0] / correct[0] / below;
        let through_root = m / (below * below) * (grow[1] * g / (correct[1] * root));
        let slope = -self.learning_rate * scale * (direct - through_root);
        if root > 0.0 { slope } else { 0.0 }
    }
}
