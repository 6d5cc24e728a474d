//! What decoders have besides: root-mean-square norms, rotary positions, gates, kept keys.

use super::{Mat, Real, Reference, dot, pointwise};
use crate::device::{
    CachedAttention, Gate, GateBackward, RmsNorm, RmsNormBackward, Rotary, RotaryAngles,
};

impl<T: Real> Reference<T> {
    pub(super) fn rms_rows(&mut self, op: &RmsNorm) {
        let (runs, gamma) = (op.runs(), self.load(op.gamma));
        let mut sum = self.load(op.x);
        if let Some(residual) = op.residual {
            let residual = self.load(residual);
            sum.values.iter_mut().zip(&residual.values).for_each(|(sum, &part)| *sum += part);
        }
        let (mut stats, mut y) = (Mat::zeros(sum.rows(), runs), Mat::zeros(sum.rows(), sum.cols));
        for row in 0..sum.rows() {
            for run in 0..runs {
                let first = run * gamma.cols;
                let x = &sum.row(row)[first..first + gamma.cols];
                let mean = dot(x, x) / T::of(gamma.cols as f64);
                let reciprocal = T::of(1.0) / (mean + T::of(op.eps)).sqrt();
                stats.row_mut(row)[run] = reciprocal;
                let y = &mut y.row_mut(row)[first..first + gamma.cols];
                for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(&gamma.values) {
                    *y = x * reciprocal * gamma;
                }
            }
        }
        self.store(op.sum, &sum);
        self.store(op.stats, &stats);
        self.store(op.y, &y);
    }

    pub(super) fn rms_gradient(&mut self, op: &RmsNormBackward) {
        let (runs, gamma) = (op.runs(), self.load(op.gamma));
        let (dy, sum, stats) = (self.load(op.dy), self.load(op.sum), self.load(op.stats));
        let mut d_sum = Mat::zeros(sum.rows(), sum.cols);
        let mut d_gamma = Mat::zeros(1, gamma.cols);
        for row in 0..sum.rows() {
            for run in 0..runs {
                let (first, reciprocal) = (run * gamma.cols, stats.at(row, run));
                let normal = |col: usize| sum.at(row, first + col) * reciprocal;
                let scaled = |col: usize| dy.at(row, first + col) * gamma.values[col];
                let width = T::of(gamma.cols as f64);
                let mean = (0..gamma.cols).map(|col| scaled(col) * normal(col)).sum::<T>() / width;
                for col in 0..gamma.cols {
                    d_sum.row_mut(row)[first + col] =
                        (scaled(col) - normal(col) * mean) * reciprocal;
                    d_gamma.values[col] += dy.at(row, first + col) * normal(col);
                }
            }
        }
        self.store(op.d_sum, &d_sum);
        if let Some(view) = op.d_gamma {
            self.add_to(view, &d_gamma);
        }
    }

    pub(super) fn angles(&mut self, op: &RotaryAngles) {
        let frequencies = self.load(op.frequencies);
        let (half, factor) = (frequencies.cols, T::of(op.factor));
        let mut out = Mat::zeros(op.out.rows, op.out.cols);
        for (row, &position) in self.load_ids(op.positions).iter().enumerate() {
            for (col, &frequency) in frequencies.values.iter().enumerate() {
                let angle = T::of(f64::from(position)) * frequency;
                out.row_mut(row)[col] = angle.cos() * factor;
                out.row_mut(row)[half + col] = angle.sin() * factor;
            }
        }
        self.store(op.out, &out);
    }

    pub(super) fn turn_pairs(&mut self, op: &Rotary) {
        let (heads, angles) = (op.heads(), self.load(op.angles));
        let mut x = self.load(op.x);
        let half = angles.cols / 2;
        for row in 0..x.rows() {
            for head in 0..heads {
                for pair in 0..half {
                    let (cos, sin) = (angles.at(row, pair), angles.at(row, half + pair));
                    let sin = if op.backward { -sin } else { sin };
                    let first = head * angles.cols + pair;
                    let (a, b) = (x.at(row, first), x.at(row, first + half));
                    x.row_mut(row)[first] = a * cos - b * sin;
                    x.row_mut(row)[first + half] = b * cos + a * sin;
                }
            }
        }
        self.store(op.x, &x);
    }

    pub(super) fn gate_rows(&mut self, op: &Gate) {
        let x = self.load(op.x);
        let mut y = Mat::zeros(op.y.rows, op.y.cols);
        for row in 0..y.rows() {
            for col in 0..y.cols {
                let (gate, up) = (x.at(row, col), x.at(row, y.cols + col));
                y.row_mut(row)[col] = pointwise::value(op.f, gate) * up;
            }
        }
        self.store(op.y, &y);
    }

    pub(super) fn gate_gradient(&mut self, op: &GateBackward) {
        let (x, dy) = (self.load(op.x), self.load(op.dy));
        let mut dx = Mat::zeros(x.rows(), x.cols);
        for row in 0..dy.rows() {
            for col in 0..dy.cols {
                let (gate, up) = (x.at(row, col), x.at(row, dy.cols + col));
                let d = dy.at(row, col);
                dx.row_mut(row)[col] = d * up * pointwise::slope(op.f, gate);
                dx.row_mut(row)[dy.cols + col] = d * pointwise::value(op.f, gate);
            }
        }
        self.store(op.dx, &dx);
    }

    pub(super) fn attention_of_new(&mut self, op: &CachedAttention) {
        let (each, room) = op.each_and_room();
        let (q, keys, values) = (self.load(op.q), self.load(op.keys), self.load(op.values));
        let mut out = Mat::zeros(op.out.rows, op.out.cols);
        for (sequence, &length) in self.load_ids(op.lengths).iter().enumerate() {
            let seen = op.seen(length as usize, room);
            for head in 0..op.heads {
                let columns = head * each..(head + 1) * each;
                let first = head * op.key_heads / op.heads * each;
                let query = &q.row(sequence)[columns.clone()];
                let scores: Vec<T> = seen
                    .clone()
                    .map(|at| &keys.row(sequence * room + at)[first..first + each])
                    .map(|key| dot(query, key) * T::of(op.scale))
                    .collect();
                let max = scores.iter().copied().fold(scores[0], T::max);
                let total = scores.iter().map(|&score| (score - max).exp()).sum::<T>();
                for (at, &score) in seen.clone().zip(&scores) {
                    let weight = (score - max).exp() / total;
                    let value = &values.row(sequence * room + at)[first..first + each];
                    let out = &mut out.row_mut(sequence)[columns.clone()];
                    out.iter_mut().zip(value).for_each(|(out, &value)| *out += weight * value);
                }
            }
        }
        self.store(op.out, &out);
    }
}
