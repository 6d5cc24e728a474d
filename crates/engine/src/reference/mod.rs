//! The operations as plain loops, generic over `f32` and `f64`: the oracle of every test.
//!
//! In and out: the same views and shapes as any device. Never: fast, threaded, or clever. Each
//! operation copies its inputs out, computes by the formula in [`Device`]'s documentation, and
//! stores the result.

mod attention;
mod decoder;
mod divergences;
mod losses;
pub(crate) mod pointwise;
mod real;
mod sorted;
mod sparse;

pub(crate) use losses::SHORTEST;
pub use real::Real;

use crate::device::{
    Activation, AdamW, AdamWRows, AddNorm, AddNormBackward, Ahead, Attention, AttentionBackward,
    CachedAttention, Device, Dropout, Gate, GateBackward, IGNORED, Linear, LinearBackward, Move,
    Relation, RmsNorm, RmsNormBackward, Rotary, RotaryAngles, RowLoss, Slope, Update,
};
use crate::precision::bf16;
use crate::{IdSpace, Ids, Precision, Space, View};

/// A device of plain loops.
#[derive(Debug, Default)]
pub struct Reference<T> {
    spaces: Vec<Vec<T>>,
    ids: Vec<Vec<u32>>,
    precision: Precision,
    operations: u64,
}

/// A matrix copied out of a view.
#[derive(Clone, Debug)]
struct Mat<T> {
    values: Vec<T>,
    cols: usize,
}

impl<T: Real> Mat<T> {
    fn zeros(rows: usize, cols: usize) -> Self {
        Self { values: vec![T::default(); rows * cols], cols }
    }
    fn rows(&self) -> usize {
        self.values.len().checked_div(self.cols).unwrap_or(0)
    }
    fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.cols..(row + 1) * self.cols]
    }
    fn row_mut(&mut self, row: usize) -> &mut [T] {
        &mut self.values[row * self.cols..(row + 1) * self.cols]
    }
    fn at(&self, row: usize, col: usize) -> T {
        self.values[row * self.cols + col]
    }
}

fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).map(|(&a, &b)| a * b).sum()
}

impl<T: Real> Reference<T> {
    /// A device that holds nothing.
    pub fn new() -> Self {
        Self { spaces: Vec::new(), ids: Vec::new(), precision: Precision::F32, operations: 0 }
    }

    /// The same device, the factors of whose linear layers are rounded to `precision`; products
    /// and sums keep the kind of number that this device computes in.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    fn load(&self, view: View) -> Mat<T> {
        let space = &self.spaces[view.space.0 as usize];
        let mut values = Vec::with_capacity(view.len());
        for row in 0..view.rows {
            let start = view.offset + row * view.stride;
            values.extend_from_slice(&space[start..start + view.cols]);
        }
        Mat { values, cols: view.cols }
    }

    /// A factor of a linear layer's product. A double becomes the nearest `f32` first, which is
    /// what a device of `f32` would round.
    fn load_factor(&self, view: View) -> Mat<T> {
        let mut factor = self.load(view);
        if self.precision == Precision::Bf16 {
            let rounded = |value: T| T::of(bf16(value.f64() as f32).into());
            factor.values.iter_mut().for_each(|value| *value = rounded(*value));
        }
        factor
    }

    fn store(&mut self, view: View, mat: &Mat<T>) {
        assert_eq!((view.rows * view.cols, view.cols), (mat.values.len(), mat.cols), "shape");
        let space = &mut self.spaces[view.space.0 as usize];
        for row in 0..view.rows {
            let start = view.offset + row * view.stride;
            space[start..start + view.cols].copy_from_slice(mat.row(row));
        }
    }

    fn add_to(&mut self, view: View, mat: &Mat<T>) {
        let mut sum = self.load(view);
        sum.values.iter_mut().zip(&mat.values).for_each(|(sum, &part)| *sum += part);
        self.store(view, &sum);
    }

    fn load_ids(&self, ids: Ids) -> &[u32] {
        &self.ids[ids.space.0 as usize][ids.offset..ids.offset + ids.len]
    }

    /// Factor of each element: 0 where dropped, `1/(1 − p)` where kept.
    fn dropout_factors(&self, op: &Dropout, rows: usize, cols: usize) -> Mat<T> {
        let mut factors = Mat::zeros(rows, cols);
        for (row, &address) in self.load_ids(op.rows).iter().enumerate().take(rows) {
            for col in 0..cols {
                factors.row_mut(row)[col] = self.dropout_factor(op, address, col as u32);
            }
        }
        factors
    }

    fn dropout_factor(&self, op: &Dropout, address: u32, col: u32) -> T {
        let word = op.words.block(address, col / 4)[col as usize % 4];
        if word < Dropout::threshold(op.p) {
            T::default()
        } else {
            T::of(1.0 / (1.0 - f64::from(op.p)))
        }
    }
}

impl<T: Real> Device for Reference<T> {
    fn alloc(&mut self, len: usize) -> Space {
        self.spaces.push(vec![T::default(); len]);
        Space(self.spaces.len() as u32 - 1)
    }

    fn resize(&mut self, space: Space, len: usize) {
        self.spaces[space.0 as usize] = vec![T::default(); len];
    }

    fn alloc_ids(&mut self, len: usize) -> IdSpace {
        self.ids.push(vec![0; len]);
        IdSpace(self.ids.len() as u32 - 1)
    }

    fn bytes(&self) -> u64 {
        let numbers: usize = self.spaces.iter().map(Vec::len).sum();
        let ids: usize = self.ids.iter().map(Vec::len).sum();
        (numbers * size_of::<T>() + ids * size_of::<u32>()) as u64
    }

    fn operations(&self) -> u64 {
        self.operations
    }

    fn set_precision(&mut self, precision: Precision) -> Precision {
        std::mem::replace(&mut self.precision, precision)
    }

    fn write(&mut self, to: View, values: &[f32]) {
        let values = values.iter().map(|&value| T::of(value.into())).collect();
        self.store(to, &Mat { values, cols: to.cols });
    }

    fn read(&self, from: View) -> Vec<f32> {
        self.load(from).values.iter().map(|value| value.f64() as f32).collect()
    }

    fn write_f64(&mut self, to: View, values: &[f64]) {
        let values = values.iter().map(|&value| T::of(value)).collect();
        self.store(to, &Mat { values, cols: to.cols });
    }

    fn read_f64(&self, from: View) -> Vec<f64> {
        self.load(from).values.iter().map(|value| value.f64()).collect()
    }

    fn write_ids(&mut self, to: Ids, values: &[u32]) {
        self.ids[to.space.0 as usize][to.offset..to.offset + to.len].copy_from_slice(values);
    }

    fn fill(&mut self, to: View, value: f32) {
        let mut mat = Mat::zeros(to.rows, to.cols);
        mat.values.fill(T::of(value.into()));
        self.store(to, &mat);
    }

    fn copy(&mut self, from: View, to: View) {
        let mat = self.load(from);
        self.store(to, &mat);
    }

    fn add_scaled(&mut self, scale: f64, from: View, to: View) {
        let mut mat = self.load(from);
        mat.values.iter_mut().for_each(|value| *value *= T::of(scale));
        self.add_to(to, &mat);
    }

    fn lerp(&mut self, weight: f64, from: View, to: View) {
        let (from, mut mat) = (self.load(from), self.load(to));
        for (to, from) in mat.values.iter_mut().zip(&from.values) {
            *to += T::of(weight) * (*from - *to);
        }
        self.store(to, &mat);
    }

    fn scale(&mut self, scale: f64, view: View) {
        let mut mat = self.load(view);
        mat.values.iter_mut().for_each(|value| *value *= T::of(scale));
        self.store(view, &mat);
    }

    fn sum(&self, view: View) -> f64 {
        self.load(view).values.iter().map(|value| value.f64()).sum()
    }

    fn sum_of_squares(&self, view: View) -> f64 {
        self.load(view).values.iter().map(|value| value.f64() * value.f64()).sum()
    }

    fn sum_of_squares_of_rows(&self, view: View, rows: Ids) -> f64 {
        let numbers = self.load(view);
        let rows = self.load_ids(rows).iter();
        rows.flat_map(|&row| numbers.row(row as usize)).map(|x| x.f64() * x.f64()).sum()
    }

    fn embed(&mut self, tables: &[(View, Ids)], out: View) {
        let mut sum = Mat::zeros(out.rows, out.cols);
        for &(table, ids) in tables {
            let table = self.load(table);
            for (row, &id) in self.load_ids(ids).iter().enumerate() {
                let parts = table.row(id as usize);
                sum.row_mut(row).iter_mut().zip(parts).for_each(|(sum, &part)| *sum += part);
            }
        }
        self.store(out, &sum);
    }

    fn set_rows(&mut self, from: View, table: View, ids: Ids) {
        let (from, mut numbers) = (self.load(from), self.load(table));
        for (at, &row) in self.load_ids(ids).iter().enumerate() {
            numbers.row_mut(row as usize).copy_from_slice(from.row(at));
        }
        self.store(table, &numbers);
    }

    fn clear_rows(&mut self, table: View, ids: Ids) {
        let mut numbers = self.load(table);
        for &row in self.load_ids(ids) {
            numbers.row_mut(row as usize).fill(T::default());
        }
        self.store(table, &numbers);
    }

    fn pick_columns(&mut self, from: View, columns: Ids, to: View) {
        let (from, columns) = (self.load(from), self.load_ids(columns).to_vec());
        assert_eq!((to.rows, to.cols), (from.rows(), columns.len()), "shapes of picked columns");
        let mut picked = Mat::zeros(from.rows(), columns.len());
        for row in 0..from.rows() {
            for (to, &column) in picked.row_mut(row).iter_mut().zip(&columns) {
                let never = T::of(f64::NEG_INFINITY);
                *to = if column == IGNORED { never } else { from.at(row, column as usize) };
            }
        }
        self.store(to, &picked);
    }

    fn forbid_columns(&mut self, x: View, columns: Ids) {
        let (mut kept, columns) = (self.load(x), self.load_ids(columns).to_vec());
        assert_eq!(kept.cols, columns.len(), "one index for each column");
        for row in 0..kept.rows() {
            for (x, &column) in kept.row_mut(row).iter_mut().zip(&columns) {
                if column == IGNORED {
                    *x = T::of(f64::NEG_INFINITY);
                }
            }
        }
        self.store(x, &kept);
    }

    fn embed_backward(&mut self, d_out: View, tables: &[(View, Ids)]) {
        let d_out = self.load(d_out);
        for &(table, ids) in tables {
            let mut d_table = Mat::zeros(table.rows, table.cols);
            for (row, &id) in self.load_ids(ids).iter().enumerate() {
                let parts = d_out.row(row);
                let sums = d_table.row_mut(id as usize);
                sums.iter_mut().zip(parts).for_each(|(sum, &part)| *sum += part);
            }
            self.add_to(table, &d_table);
        }
    }

    fn linear(&mut self, op: &Linear) {
        self.operations += op.operations();
        let (x, w) = (self.load_factor(op.x), self.load_factor(op.w));
        let bias = op.b.map(|b| self.load(b));
        let mut y = Mat::zeros(x.rows(), w.rows());
        for row in 0..x.rows() {
            for col in 0..w.rows() {
                let bias = bias.as_ref().map_or(T::default(), |bias| bias.values[col]);
                y.row_mut(row)[col] = dot(x.row(row), w.row(col)) + bias;
            }
        }
        self.store(op.y, &y);
        if let Some((f, activated)) = op.activated {
            y.values.iter_mut().for_each(|value| *value = pointwise::value(f, *value));
            self.store(activated, &y);
        }
    }

    fn linear_backward(&mut self, op: &LinearBackward) {
        self.operations += op.operations();
        let [x, w, dy] = [op.x, op.w, op.dy].map(|view| self.load_factor(view));
        if let Some(view) = op.dx {
            let mut dx = Mat::zeros(dy.rows(), w.cols);
            for row in 0..dy.rows() {
                for out in 0..w.rows() {
                    for col in 0..w.cols {
                        dx.row_mut(row)[col] += dy.at(row, out) * w.at(out, col);
                    }
                }
            }
            assert!(op.through.is_none() || !op.add_to_dx, "dx is written where it goes through f");
            if let Some((f, z)) = op.through {
                let z = self.load(z);
                for (dx, &z) in dx.values.iter_mut().zip(&z.values) {
                    *dx *= pointwise::slope(f, z);
                }
            }
            if op.add_to_dx { self.add_to(view, &dx) } else { self.store(view, &dx) }
        }
        if let Some(view) = op.dw {
            let mut dw = Mat::zeros(w.rows(), w.cols);
            for row in 0..dy.rows() {
                for out in 0..w.rows() {
                    for col in 0..w.cols {
                        dw.row_mut(out)[col] += dy.at(row, out) * x.at(row, col);
                    }
                }
            }
            self.add_to(view, &dw);
        }
        if let Some(view) = op.db {
            // A bias is no factor: its gradient is the sum of what was not rounded.
            let dy = self.load(op.dy);
            let mut db = Mat::zeros(1, dy.cols);
            for row in 0..dy.rows() {
                db.values.iter_mut().zip(dy.row(row)).for_each(|(sum, &part)| *sum += part);
            }
            self.add_to(view, &db);
        }
    }

    fn activation_backward(&mut self, f: Activation, x: View, dy: View, dx: View) {
        let (x, mut dy) = (self.load(x), self.load(dy));
        dy.values.iter_mut().zip(&x.values).for_each(|(dy, &x)| *dy *= pointwise::slope(f, x));
        self.store(dx, &dy);
    }

    fn add_norm(&mut self, op: &AddNorm) {
        let mut sum = self.load(op.x);
        if let Some(dropout) = &op.dropout {
            let factors = self.dropout_factors(dropout, sum.rows(), sum.cols);
            sum.values.iter_mut().zip(&factors.values).for_each(|(sum, &factor)| *sum *= factor);
        }
        if let Some(residual) = op.residual {
            let residual = self.load(residual);
            sum.values.iter_mut().zip(&residual.values).for_each(|(sum, &part)| *sum += part);
        }
        let (gamma, beta) = (self.load(op.gamma), self.load(op.beta));
        let mut stats = Mat::zeros(sum.rows(), 2);
        let mut y = Mat::zeros(sum.rows(), sum.cols);
        let width = T::of(sum.cols as f64);
        for row in 0..sum.rows() {
            let mean = sum.row(row).iter().copied().sum::<T>() / width;
            let variance = sum.row(row).iter().map(|&x| (x - mean) * (x - mean)).sum::<T>() / width;
            let rstd = T::of(1.0) / (variance + T::of(op.eps)).sqrt();
            stats.row_mut(row).copy_from_slice(&[mean, rstd]);
            for col in 0..sum.cols {
                y.row_mut(row)[col] =
                    (sum.at(row, col) - mean) * rstd * gamma.values[col] + beta.values[col];
            }
        }
        self.store(op.sum, &sum);
        self.store(op.stats, &stats);
        self.store(op.y, &y);
    }

    fn add_norm_backward(&mut self, op: &AddNormBackward) {
        let (dy, sum, stats) = (self.load(op.dy), self.load(op.sum), self.load(op.stats));
        let gamma = self.load(op.gamma);
        let width = T::of(sum.cols as f64);
        let mut d_sum = Mat::zeros(sum.rows(), sum.cols);
        let (mut d_gamma, mut d_beta) = (Mat::zeros(1, sum.cols), Mat::zeros(1, sum.cols));
        for row in 0..sum.rows() {
            let (mean, rstd) = (stats.at(row, 0), stats.at(row, 1));
            let normal: Vec<T> = sum.row(row).iter().map(|&x| (x - mean) * rstd).collect();
            let scaled: Vec<T> =
                dy.row(row).iter().zip(&gamma.values).map(|(&dy, &gamma)| dy * gamma).collect();
            let mean_scaled = scaled.iter().copied().sum::<T>() / width;
            let mean_product = dot(&scaled, &normal) / width;
            for col in 0..sum.cols {
                d_sum.row_mut(row)[col] =
                    (scaled[col] - mean_scaled - normal[col] * mean_product) * rstd;
                d_gamma.values[col] += dy.at(row, col) * normal[col];
                d_beta.values[col] += dy.at(row, col);
            }
        }
        self.store(op.d_sum, &d_sum);
        if let Some((dropout, view)) = &op.dx {
            let factors = self.dropout_factors(dropout, d_sum.rows(), d_sum.cols);
            d_sum.values.iter_mut().zip(&factors.values).for_each(|(d, &factor)| *d *= factor);
            self.store(*view, &d_sum);
        }
        if let Some(view) = op.d_gamma {
            self.add_to(view, &d_gamma);
        }
        if let Some(view) = op.d_beta {
            self.add_to(view, &d_beta);
        }
    }

    fn dropout(&mut self, op: &Dropout, x: View) {
        let mut values = self.load(x);
        let factors = self.dropout_factors(op, values.rows(), values.cols);
        values.values.iter_mut().zip(&factors.values).for_each(|(x, &factor)| *x *= factor);
        self.store(x, &values);
    }

    fn attention(&mut self, op: &Attention) {
        self.operations += op.operations(self.load_ids(op.starts));
        self.attention_forward(op);
    }

    fn attention_backward(&mut self, op: &AttentionBackward) {
        self.operations += op.operations(self.load_ids(op.forward.starts));
        self.attention_gradient(op);
    }

    fn cached_attention(&mut self, op: &CachedAttention) {
        self.operations += op.operations(self.load_ids(op.lengths));
        self.attention_of_new(op);
    }

    fn rms_norm(&mut self, op: &RmsNorm) {
        self.rms_rows(op);
    }

    fn rms_norm_backward(&mut self, op: &RmsNormBackward) {
        self.rms_gradient(op);
    }

    fn rotary_angles(&mut self, op: &RotaryAngles) {
        self.angles(op);
    }

    fn rotary(&mut self, op: &Rotary) {
        self.turn_pairs(op);
    }

    fn gate(&mut self, op: &Gate) {
        self.gate_rows(op);
    }

    fn gate_backward(&mut self, op: &GateBackward) {
        self.gate_gradient(op);
    }

    fn mean_rows(&mut self, x: View, starts: Ids, y: View) {
        let x = self.load(x);
        let mut means = Mat::zeros(y.rows, y.cols);
        for (sequence, bounds) in self.load_ids(starts).windows(2).enumerate() {
            let length = T::of(f64::from(bounds[1] - bounds[0]));
            for row in bounds[0]..bounds[1] {
                let means = means.row_mut(sequence);
                means.iter_mut().zip(x.row(row as usize)).for_each(|(m, &x)| *m += x / length);
            }
        }
        self.store(y, &means);
    }

    fn mean_rows_backward(&mut self, dy: View, starts: Ids, dx: View) {
        let dy = self.load(dy);
        let mut gradient = Mat::zeros(dx.rows, dx.cols);
        for (sequence, bounds) in self.load_ids(starts).windows(2).enumerate() {
            let length = T::of(f64::from(bounds[1] - bounds[0]));
            for row in bounds[0]..bounds[1] {
                let parts = dy.row(sequence);
                let row = gradient.row_mut(row as usize);
                row.iter_mut().zip(parts).for_each(|(d, &dy)| *d = dy / length);
            }
        }
        self.store(dx, &gradient);
    }

    fn row_loss(&mut self, op: &RowLoss) {
        self.row_losses(op);
    }

    fn relation(&mut self, op: &Relation) {
        self.operations += op.operations(self.load_ids(op.starts));
        self.relation_losses(op);
    }

    fn adamw(&mut self, op: &AdamW<'_>) {
        self.operations += op.operations();
        for span in op.spans {
            let (step, learning_rate) = (op.step, op.learning_rate);
            let at = span.of(Move { step, learning_rate, gradient_scale: op.gradient_scale });
            let by = Factors {
                learning_rate: at.learning_rate,
                beta1: op.beta1,
                beta2: op.beta2,
                epsilon: op.epsilon,
                step: at.step,
                weight_decay: span.weight_decay,
            };
            for at in span.start..span.end {
                let places = op.spaces.map(|space| (space.0 as usize, at));
                self.adamw_one(by, places, Some(op.gradient_scale));
            }
        }
    }

    fn step_ahead(&mut self, op: &Ahead<'_>) {
        for span in op.spans {
            for at in span.start..span.end {
                let [w, g, m, v] = op.spaces.map(|space| self.spaces[space.0 as usize][at].f64());
                let moved = moved(op.update.of(span), span.weight_decay, w, [g, m, v]);
                self.spaces[op.spaces[0].0 as usize][at] = T::of(moved);
            }
        }
    }

    fn slope(&mut self, op: &Slope<'_>) {
        for span in op.spans {
            for at in span.start..span.end {
                let number = |space: Space| self.spaces[space.0 as usize][at].f64();
                let [m, v] = op.moments.map(number);
                let g = op.gradient.map_or(0.0, number);
                let slope = slope(op.update.of(span), [g, m, v]);
                self.spaces[op.direction.0 as usize][at] = T::of(number(op.direction) * slope);
            }
        }
    }

    fn adamw_rows(&mut self, op: &AdamWRows<'_>) {
        self.operations += op.operations();
        let Some(last) = op.moves.last() else { return };
        let all: Vec<u32> = (0..op.tables[0].rows as u32).collect();
        let rows = op.rows.map_or(all, |rows| self.load_ids(rows).to_vec());
        for row in rows {
            for place in op.missed(self.load_ids(op.reached)[row as usize]) {
                let at = &op.moves[place];
                let by = Factors {
                    learning_rate: at.learning_rate,
                    beta1: op.beta1,
                    beta2: op.beta2,
                    epsilon: op.epsilon,
                    step: at.step,
                    weight_decay: op.weight_decay,
                };
                let here = op.has_gradient && place + 1 == op.moves.len();
                for col in 0..op.tables[0].cols {
                    let places = op.tables.map(|table| {
                        let row = row as usize * table.stride;
                        (table.space.0 as usize, table.offset + row + col)
                    });
                    self.adamw_one(by, places, here.then_some(at.gradient_scale));
                }
            }
            let reached = op.reached.offset + row as usize;
            self.ids[op.reached.space.0 as usize][reached] = last.step as u32;
        }
    }
}

/// The weight after a step.
fn moved(update: Update, decay: f64, w: f64, [g, m, v]: [f64; 3]) -> f64 {
    match update {
        Update::Sgd { learning_rate } => w - learning_rate * g,
        Update::AdamW { beta1, beta2, epsilon, at } => {
            let g = g * at.gradient_scale;
            let m = (beta1 * m + (1.0 - beta1) * g) / (1.0 - beta1.powf(at.step as f64));
            let v = (beta2 * v + (1.0 - beta2) * g * g) / (1.0 - beta2.powf(at.step as f64));
            w - at.learning_rate * (decay * w + m / (v.sqrt() + epsilon))
        }
    }
}

/// Its derivative with respect to the gradient.
fn slope(update: Update, [g, m, v]: [f64; 3]) -> f64 {
    match update {
        Update::Sgd { learning_rate } => -learning_rate,
        Update::AdamW { beta1, beta2, epsilon, at } => {
            let g = g * at.gradient_scale;
            let (correct1, correct2) =
                (1.0 - beta1.powf(at.step as f64), 1.0 - beta2.powf(at.step as f64));
            let m = (beta1 * m + (1.0 - beta1) * g) / correct1;
            let root = ((beta2 * v + (1.0 - beta2) * g * g) / correct2).sqrt();
            if root == 0.0 {
                return 0.0;
            }
            let d_root = (1.0 - beta2) * g / (correct2 * root);
            let below = root + epsilon;
            let d_step = (1.0 - beta1) / correct1 / below - m * d_root / (below * below);
            -at.learning_rate * at.gradient_scale * d_step
        }
    }
}

/// Factors of one step of AdamW.
#[derive(Clone, Copy)]
struct Factors {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    step: u64,
    weight_decay: f64,
}

impl<T: Real> Reference<T> {
    /// Moves one number; its places are (space, index) of weight, gradient and moments. Without a
    /// `gradient_scale` the gradient is taken for zero and left as it is.
    fn adamw_one(
        &mut self,
        by: Factors,
        [weight, gradient, first, second]: [(usize, usize); 4],
        gradient_scale: Option<f64>,
    ) {
        let number = |(space, at): (usize, usize)| self.spaces[space][at].f64();
        let g = gradient_scale.map_or(0.0, |scale| number(gradient) * scale);
        let m = by.beta1 * number(first) + (1.0 - by.beta1) * g;
        let v = by.beta2 * number(second) + (1.0 - by.beta2) * g * g;
        let w = number(weight);
        let w = w - by.learning_rate * by.weight_decay * w;
        let (correct1, correct2) =
            (1.0 - by.beta1.powf(by.step as f64), 1.0 - by.beta2.powf(by.step as f64));
        let step = m / correct1 / ((v / correct2).sqrt() + by.epsilon);
        let mut set = |(space, at): (usize, usize), to| self.spaces[space][at] = T::of(to);
        set(weight, w - by.learning_rate * step);
        set(first, m);
        set(second, v);
        if gradient_scale.is_some() {
            set(gradient, 0.0);
        }
    }
}
