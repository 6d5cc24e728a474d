//! Losses per row.
//!
//! Exponentials are taken in `f32`, sums over columns are kept in `f64`: a vocabulary's worth of
//! small numbers loses nothing.

use super::Cpu;
use super::divergences::{Soft, teacher_loss};
use super::lanes::{max, sum2_f64, vectorised};
use super::math::{exp, sigmoid};
use super::memory::nothing;
use crate::Divergence;
use crate::device::{HiddenDistance, IGNORED, RowLoss, Target};
use crate::reference::SHORTEST;

impl Cpu {
    pub(super) fn row_losses(&mut self, op: &RowLoss) {
        let (labels, other) = match op.target {
            Target::Labels(labels) | Target::Misses(labels) | Target::Softened { labels, .. } => {
                (self.ids.read(labels), nothing())
            }
            Target::Teacher { logits, labels, .. } => {
                (labels.map_or(&[][..], |labels| self.ids.read(labels)), logits)
            }
            Target::Binary(other) | Target::Distance(_, other) => (&[][..], other),
            Target::Given { gradients, .. } => (&[][..], gradients),
        };
        let given = match op.target {
            Target::Given { losses, .. } => losses,
            _ => nothing(),
        };
        let weights = op.weights.unwrap_or_else(nothing);
        let ([x, other, given, weights], [losses, dx]) = self
            .memory
            .borrow([op.x, other, given, weights], [op.losses, op.dx.unwrap_or_else(nothing)]);
        let shape = (x.rows, x.cols);
        let by_label =
            matches!(op.target, Target::Labels(_) | Target::Misses(_) | Target::Softened { .. });
        let decoupled =
            matches!(op.target, Target::Teacher { divergence: Divergence::Decoupled { .. }, .. });
        if by_label || decoupled {
            assert_eq!(labels.len(), x.rows, "one label per row");
        }
        if !by_label {
            assert_eq!((other.rows, other.cols), shape, "shape of the target");
        }
        assert_eq!((losses.rows, losses.cols), (x.rows, 1), "one loss per row");
        if let Target::Given { .. } = op.target {
            assert_eq!((given.rows, given.cols), (x.rows, 1), "one given loss per row");
        }
        let per_row = op.weights.is_none() || (weights.rows, weights.cols) == (x.rows, 1);
        assert!(per_row, "one weight per row");
        assert!(op.dx.is_none() || (dx.rows, dx.cols) == shape, "shape of the gradient");
        let dx = op.dx.map(|_| dx);
        self.threads.over((0..x.rows, losses, dx), 20 * x.cols, |(rows, mut losses, mut dx)| {
            vectorised(
                #[inline(always)]
                || {
                    for (at, row) in rows.enumerate() {
                        let weight = op.weights.map_or(1.0, |_| f64::from(weights.row(row)[0]));
                        let (scale, counts) = (op.scale * weight, weight != 0.0);
                        let dx = dx.as_mut().filter(|_| counts).map(|dx| dx.row(at));
                        let x = x.row(row);
                        let loss = match op.target {
                            Target::Labels(_) => label_loss(x, labels[row], dx, scale),
                            Target::Softened { share, temperature, .. } => {
                                let by = (share, temperature);
                                softened_loss(x, labels[row], by, dx, scale)
                            }
                            Target::Misses(_) => misses(x, labels[row]),
                            Target::Teacher { divergence, temperature, factor, .. } => {
                                let label = labels.get(row).copied().unwrap_or(IGNORED);
                                let by = Soft { divergence, temperature, factor, scale, label };
                                teacher_loss(x, other.row(row), dx, by)
                            }
                            Target::Binary(_) => binary_loss(x, other.row(row), dx, scale),
                            Target::Distance(distance, _) => {
                                distance_loss(distance, x, other.row(row), dx, scale)
                            }
                            Target::Given { .. } => {
                                if let Some(dx) = dx {
                                    let scale = scale as f32;
                                    let pairs = dx.iter_mut().zip(other.row(row));
                                    pairs.for_each(|(dx, &d)| *dx += scale * d);
                                }
                                f64::from(given.row(row)[0])
                            }
                        };
                        losses.row(at)[0] = loss as f32;
                    }
                },
            );
        });
    }
}

/// The largest number of a row, and the logarithm of `Σ exp((x − largest) · inverse)`.
#[inline(always)]
pub(super) fn ln_total(x: &[f32], inverse: f32) -> (f32, f64) {
    let largest = max(x);
    let total = sum2_f64(x, x, |x, _| f64::from(exp((x - largest) * inverse)));
    (largest, libm::log(total))
}

#[inline(always)]
fn label_loss(x: &[f32], label: u32, dx: Option<&mut [f32]>, scale: f64) -> f64 {
    if label == IGNORED {
        return 0.0;
    }
    let label = label as usize;
    let (largest, ln_total) = ln_total(x, 1.0);
    if let Some(dx) = dx {
        let (scale, ln_total) = (scale as f32, ln_total as f32);
        for (dx, &x) in dx.iter_mut().zip(x) {
            *dx += scale * exp(x - largest - ln_total);
        }
        dx[label] -= scale;
    }
    ln_total - f64::from(x[label] - largest)
}

/// Cross-entropy to the label and the row's own softened distribution; an infinite temperature's
/// inverse is 0, and the distribution even.
#[inline(always)]
fn softened_loss(
    x: &[f32],
    label: u32,
    (share, temperature): (f64, f64),
    dx: Option<&mut [f32]>,
    scale: f64,
) -> f64 {
    if label == IGNORED {
        return 0.0;
    }
    let label = label as usize;
    let inverse = (1.0 / temperature) as f32;
    let (largest, ln_total) = ln_total(x, 1.0);
    let (_, ln_soft) = self::ln_total(x, inverse);
    if let Some(dx) = dx {
        let (of_soft, of_label) = ((scale * share) as f32, (scale * (1.0 - share)) as f32);
        let (scale, ln_total, ln_soft) = (scale as f32, ln_total as f32, ln_soft as f32);
        for (dx, &x) in dx.iter_mut().zip(x) {
            let below = x - largest;
            *dx += scale * exp(below - ln_total) - of_soft * exp(below * inverse - ln_soft);
        }
        dx[label] -= of_label;
    }
    let ln_soft = ln_soft as f32;
    let softened = sum2_f64(x, x, |x, _| {
        let below = x - largest;
        f64::from(exp(below * inverse - ln_soft)) * f64::from(below)
    });
    ln_total - (1.0 - share) * f64::from(x[label] - largest) - share * softened
}

/// 1 where another class comes before the label; a row that holds no numbers has no largest.
fn misses(x: &[f32], label: u32) -> f64 {
    if label == IGNORED {
        return 0.0;
    }
    let label = label as usize;
    let own = x[label];
    let stays_behind = |(place, &x): (usize, &f32)| x < own || (x == own && place >= label);
    f64::from(u8::from(!x.iter().enumerate().all(stays_behind)))
}

/// `KL(softmax(teacher · inverse) ‖ softmax(x · inverse))`; 0 · ln 0 = 0.
#[inline(always)]
pub(super) fn kl(
    x: &[f32],
    teacher: &[f32],
    inverse: f32,
    (x_largest, x_ln): (f32, f32),
    (t_largest, t_ln): (f32, f32),
) -> f64 {
    sum2_f64(x, teacher, |x, t| {
        let ln_q = (x - x_largest) * inverse - x_ln;
        let ln_p = (t - t_largest) * inverse - t_ln;
        let p = exp(ln_p);
        let term = f64::from(p) * (f64::from(ln_p) - f64::from(ln_q));
        if p > 0.0 { term } else { 0.0 }
    })
}

#[inline(always)]
fn binary_loss(x: &[f32], targets: &[f32], dx: Option<&mut [f32]>, scale: f64) -> f64 {
    let width = x.len() as f64;
    if let Some(dx) = dx {
        let scale = (scale / width) as f32;
        for ((dx, &x), &y) in dx.iter_mut().zip(x).zip(targets) {
            *dx += scale * (sigmoid(x) - y);
        }
    }
    let terms = x.iter().zip(targets).map(|(&x, &y)| {
        // max(x, 0) − x·y + ln(1 + e^−|x|): finite for every finite x.
        let (x, y) = (f64::from(x), f64::from(y));
        x.max(0.0) - x * y + libm::log1p(libm::exp(-x.abs()))
    });
    terms.sum::<f64>() / width
}

#[inline(always)]
fn distance_loss(
    distance: HiddenDistance,
    x: &[f32],
    t: &[f32],
    dx: Option<&mut [f32]>,
    scale: f64,
) -> f64 {
    let product = |a: &[f32], b: &[f32]| sum2_f64(a, b, |a, b| f64::from(a) * f64::from(b));
    match distance {
        HiddenDistance::MeanSquared => {
            let width = x.len() as f64;
            if let Some(dx) = dx {
                let scale = (2.0 * scale / width) as f32;
                for ((dx, &x), &t) in dx.iter_mut().zip(x).zip(t) {
                    *dx += scale * (x - t);
                }
            }
            sum2_f64(x, t, |x, t| f64::from(x - t) * f64::from(x - t)) / width
        }
        HiddenDistance::Cosine | HiddenDistance::Normalized => {
            // Both are functions of the cosine c: 1 − c, and |x̂ − t̂|² = 2 − 2c.
            let length = product(x, x).sqrt().max(SHORTEST);
            let other = product(t, t).sqrt().max(SHORTEST);
            let cosine = product(x, t) / (length * other);
            let factor = if distance == HiddenDistance::Cosine { 1.0 } else { 2.0 };
            if let Some(dx) = dx {
                let outer = -factor * scale / length;
                let (of_t, of_x) = (outer / other, -outer * cosine / length);
                for ((dx, &x), &t) in dx.iter_mut().zip(x).zip(t) {
                    *dx += (of_t * f64::from(t) + of_x * f64::from(x)) as f32;
                }
            }
            factor * (1.0 - cosine)
        }
    }
}
