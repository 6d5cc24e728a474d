//! Losses per row, and relations between rows.

use super::divergences::divergence_of;
use super::{Mat, Real, Reference, dot};
use crate::device::{HiddenDistance, IGNORED, Relation, RelationMeasure, RowLoss, Target};

/// Shorter vectors than this are treated as having this length, so that a zero row has a finite
/// cosine and gradient.
pub(crate) const SHORTEST: f64 = 1e-12;

/// `ln softmax(x / T)`. Subtracting the maximum first leaves every exponent at or below zero.
pub(super) fn ln_softmax<T: Real>(x: &[T], temperature: f64) -> Vec<T> {
    let max = x.iter().copied().fold(x[0], T::max);
    let shifted: Vec<T> = x.iter().map(|&x| (x - max) / T::of(temperature)).collect();
    let ln_total = shifted.iter().map(|&x| x.exp()).sum::<T>().ln();
    shifted.iter().map(|&x| x - ln_total).collect()
}

/// `KL(p ‖ q)` from logarithms; 0 · ln 0 = 0.
pub(super) fn kl<T: Real>(ln_p: &[T], ln_q: &[T]) -> T {
    ln_p.iter()
        .zip(ln_q)
        .filter(|(ln_p, _)| ln_p.exp() > T::default())
        .map(|(&ln_p, &ln_q)| ln_p.exp() * (ln_p - ln_q))
        .sum()
}

impl<T: Real> Reference<T> {
    pub(super) fn row_losses(&mut self, op: &RowLoss) {
        let x = self.load(op.x);
        let mut losses = Mat::zeros(x.rows(), 1);
        let mut dx = Mat::zeros(x.rows(), x.cols);
        for row in 0..x.rows() {
            let (loss, gradient) = self.one_row(&op.target, row, x.row(row));
            losses.values[row] = loss;
            dx.row_mut(row).copy_from_slice(&gradient);
        }
        self.store(op.losses, &losses);
        if let Some(view) = op.dx {
            dx.values.iter_mut().for_each(|d| *d *= T::of(op.scale));
            if let Some(weights) = op.weights {
                let weights = self.load(weights);
                for (row, &weight) in weights.values.iter().enumerate() {
                    // Not multiplied: a gradient that is not finite would stay.
                    let zero = weight == T::default();
                    let weighted = |d: T| if zero { T::default() } else { d * weight };
                    dx.row_mut(row).iter_mut().for_each(|d| *d = weighted(*d));
                }
            }
            self.add_to(view, &dx);
        }
    }

    /// Loss of one row and its gradient.
    fn one_row(&self, target: &Target, row: usize, x: &[T]) -> (T, Vec<T>) {
        match *target {
            Target::Labels(labels) => {
                let label = self.load_ids(labels)[row];
                if label == IGNORED {
                    return (T::default(), vec![T::default(); x.len()]);
                }
                let ln_q = ln_softmax(x, 1.0);
                let mut gradient: Vec<T> = ln_q.iter().map(|ln_q| ln_q.exp()).collect();
                gradient[label as usize] -= T::of(1.0);
                (-ln_q[label as usize], gradient)
            }
            Target::Softened { labels, share, temperature } => {
                let label = self.load_ids(labels)[row];
                if label == IGNORED {
                    return (T::default(), vec![T::default(); x.len()]);
                }
                let (ln_s, ln_soft) = (ln_softmax(x, 1.0), ln_softmax(x, temperature));
                let mut q: Vec<T> = ln_soft.iter().map(|ln| T::of(share) * ln.exp()).collect();
                q[label as usize] += T::of(1.0 - share);
                let loss = -dot(&q, &ln_s);
                (loss, ln_s.iter().zip(q).map(|(ln_s, q)| ln_s.exp() - q).collect())
            }
            Target::Misses(labels) => {
                let label = self.load_ids(labels)[row];
                let missed = label != IGNORED && first_largest(x) != label as usize;
                (T::of(f64::from(u8::from(missed))), vec![T::default(); x.len()])
            }
            Target::Teacher { logits, divergence, temperature, factor, labels } => {
                // One row: a vocabulary's worth of each would be copied for every row.
                let teacher = self.load(logits.row_range(row..row + 1));
                let label = labels.map_or(IGNORED, |labels| self.load_ids(labels)[row]);
                let (loss, gradient) =
                    divergence_of(divergence, x, teacher.row(0), temperature, label);
                let factor = T::of(factor);
                (factor * loss, gradient.into_iter().map(|d| factor * d).collect())
            }
            Target::Binary(targets) => {
                let y = self.load(targets);
                let width = T::of(x.len() as f64);
                let mut loss = T::default();
                let mut gradient = Vec::with_capacity(x.len());
                for (&x, &y) in x.iter().zip(y.row(row)) {
                    // max(x, 0) − x·y + ln(1 + e^−|x|): finite for every finite x.
                    let size = x.max(-x);
                    loss +=
                        (x.max(T::default()) - x * y + (T::of(1.0) + (-size).exp()).ln()) / width;
                    gradient.push((super::pointwise::sigmoid(x) - y) / width);
                }
                (loss, gradient)
            }
            Target::Distance(distance, other) => {
                let other = self.load(other);
                distance_of(distance, x, other.row(row))
            }
            Target::Given { losses, gradients } => {
                (self.load(losses).values[row], self.load(gradients).row(row).to_vec())
            }
        }
    }

    pub(super) fn relation_losses(&mut self, op: &Relation) {
        let (a, b) = (self.load(op.a), self.load(op.b));
        let (ta, tb) = (self.load(op.teacher_a), self.load(op.teacher_b));
        let starts = self.load_ids(op.starts).to_vec();
        let mut losses = Mat::zeros(a.rows(), 1);
        let (mut da, mut db) = (Mat::zeros(a.rows(), a.cols), Mat::zeros(a.rows(), a.cols));
        let (width, teacher_width) = (a.cols / op.heads, ta.cols / op.heads);
        let per_head = T::of(1.0 / op.heads as f64);
        for bounds in starts.windows(2) {
            let rows = bounds[0] as usize..bounds[1] as usize;
            let length = T::of(rows.len() as f64);
            for head in 0..op.heads {
                let columns = head * width..(head + 1) * width;
                let teacher_columns = head * teacher_width..(head + 1) * teacher_width;
                let scale = T::of(1.0 / (width as f64).sqrt());
                let teacher_scale = T::of(1.0 / (teacher_width as f64).sqrt());
                for row in rows.clone() {
                    let left = &a.row(row)[columns.clone()];
                    let teacher_left = &ta.row(row)[teacher_columns.clone()];
                    let scores: Vec<T> = rows
                        .clone()
                        .map(|key| dot(left, &b.row(key)[columns.clone()]) * scale)
                        .collect();
                    let teacher_scores: Vec<T> = rows
                        .clone()
                        .map(|key| {
                            dot(teacher_left, &tb.row(key)[teacher_columns.clone()]) * teacher_scale
                        })
                        .collect();
                    let (loss, d_scores) = match op.measure {
                        RelationMeasure::Kl => {
                            let ln_p = ln_softmax(&teacher_scores, 1.0);
                            let ln_q = ln_softmax(&scores, 1.0);
                            let d: Vec<T> =
                                ln_q.iter().zip(&ln_p).map(|(q, p)| q.exp() - p.exp()).collect();
                            (kl(&ln_p, &ln_q), d)
                        }
                        RelationMeasure::ScoresMse => {
                            let differences: Vec<T> =
                                scores.iter().zip(&teacher_scores).map(|(&s, &t)| s - t).collect();
                            let loss = dot(&differences, &differences) / length;
                            (loss, differences.iter().map(|&d| T::of(2.0) * d / length).collect())
                        }
                    };
                    losses.values[row] += loss * per_head;
                    for (key, &d_score) in rows.clone().zip(&d_scores) {
                        let d = d_score * scale * per_head * T::of(op.scale);
                        for column in columns.clone() {
                            da.row_mut(row)[column] += d * b.at(key, column);
                            db.row_mut(key)[column] += d * a.at(row, column);
                        }
                    }
                }
            }
        }
        self.store(op.losses, &losses);
        if let Some((to_a, to_b)) = op.gradients {
            self.add_to(to_a, &da);
            self.add_to(to_b, &db);
        }
    }
}

/// The place of the largest number, of equal ones the first; no place where one is not a number.
fn first_largest<T: Real>(x: &[T]) -> usize {
    let mut best = 0;
    for (place, &x_here) in x.iter().enumerate() {
        if x_here > x[best] {
            best = place;
        }
    }
    let are_numbers = x.iter().all(|x| !x.f64().is_nan());
    if are_numbers { best } else { usize::MAX }
}

/// Distance of two rows and its gradient with respect to the first.
fn distance_of<T: Real>(distance: HiddenDistance, x: &[T], t: &[T]) -> (T, Vec<T>) {
    let two = T::of(2.0);
    match distance {
        HiddenDistance::MeanSquared => {
            let width = T::of(x.len() as f64);
            let loss = x.iter().zip(t).map(|(&x, &t)| (x - t) * (x - t)).sum::<T>() / width;
            (loss, x.iter().zip(t).map(|(&x, &t)| two * (x - t) / width).collect())
        }
        HiddenDistance::Cosine | HiddenDistance::Normalized => {
            // Both are functions of the cosine c: 1 − c, and |x̂ − t̂|² = 2 − 2c.
            let length = dot(x, x).sqrt().max(T::of(SHORTEST));
            let other = dot(t, t).sqrt().max(T::of(SHORTEST));
            let cosine = dot(x, t) / (length * other);
            let factor = if distance == HiddenDistance::Cosine { T::of(1.0) } else { two };
            let slope = |x: T, t: T| -(t / other - cosine * x / length) / length * factor;
            let loss = factor * (T::of(1.0) - cosine);
            (loss, x.iter().zip(t).map(|(&x, &t)| slope(x, t)).collect())
        }
    }
}
