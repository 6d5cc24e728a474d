//! Operations on rows one by one, and sums over rows column by column.

use std::ops::Range;

use super::lanes::{self, drop_row, sum2, vectorised};
use super::memory::{Grid, Marks, RowsMut, nothing};
use super::product::{Beside, Factor};
use super::threads::Threads;
use super::{Cpu, math};
use crate::device::{Activation, AddNorm, AddNormBackward, Dropout, Linear, LinearBackward};
use crate::{Ids, View};

/// Columns that one thread sums at a time: four cache lines of every row.
const COLUMNS: usize = 64;
/// Rows summed before their sum joins the total, which keeps the rounding error of long sums low.
const RUN: usize = 32;

/// Views of one shape as columns of one number where all are contiguous, so that pieces need not
/// end with a row; unchanged otherwise.
fn flat<const N: usize>(views: [View; N]) -> [View; N] {
    let shape = (views[0].rows(), views[0].cols());
    assert!(views.iter().all(|view| (view.rows(), view.cols()) == shape), "one shape: {views:?}");
    if views.iter().all(|view| view.is_contiguous()) {
        views.map(|view| View::matrix(view.space(), view.offset(), view.len(), 1))
    } else {
        views
    }
}

impl Cpu {
    /// Calls `f` with runs of `to` and the same runs of `from`.
    pub(super) fn zip_runs(&mut self, from: View, to: View, f: impl Fn(&mut [f32], &[f32]) + Sync) {
        let [from, to] = flat([from, to]);
        let ([from], [to]) = self.memory.borrow([from], [to]);
        self.threads.over((to, from), from.cols, |(mut to, from)| {
            vectorised(
                #[inline(always)]
                || {
                    // Runs are alike where both matrices have gaps between their rows or neither.
                    if (to.stride == to.cols) == (from.stride == from.cols) {
                        for (to, from) in to.runs().zip(from.runs()) {
                            f(to, from);
                        }
                    } else {
                        for row in 0..to.rows {
                            f(to.row(row), from.row(row));
                        }
                    }
                },
            );
        });
    }

    /// Calls `f` with runs of `to`.
    pub(super) fn each_run(&mut self, to: View, f: impl Fn(&mut [f32]) + Sync) {
        let [to] = flat([to]);
        let ([], [to]) = self.memory.borrow([], [to]);
        let cost = to.cols;
        self.threads.over(to, cost, |mut to| {
            vectorised(
                #[inline(always)]
                || {
                    for run in to.runs() {
                        f(run);
                    }
                },
            );
        });
    }

    /// Sum over a view of what `piece` gives for a run of it.
    pub(super) fn reduce(&self, view: View, piece: impl Fn(&[f32]) -> f64 + Sync) -> f64 {
        let [view] = flat([view]);
        let piece = |run: &[f32]| {
            vectorised(
                #[inline(always)]
                || piece(run),
            )
        };
        self.memory.read(view).runs().map(|run| self.threads.sum(run, piece)).sum()
    }

    pub(super) fn embed_rows(&mut self, tables: &[(View, Ids)], out: View) {
        if tables.is_empty() {
            self.each_run(out, |out| out.fill(0.0));
        }
        for (place, &(table, ids)) in tables.iter().enumerate() {
            assert_eq!(
                (table.cols(), ids.len()),
                (out.cols(), out.rows()),
                "shapes of an embedding"
            );
            let ids = self.ids.read(ids);
            let ([table], [out]) = self.memory.borrow([table], [out]);
            self.threads.over((out, ids), table.cols, |(mut out, ids)| {
                for (row, &id) in ids.iter().enumerate() {
                    let (out, parts) = (out.row(row), table.row(id as usize));
                    if place == 0 {
                        out.copy_from_slice(parts);
                    } else {
                        out.iter_mut().zip(parts).for_each(|(out, part)| *out += part);
                    }
                }
            });
        }
    }

    pub(super) fn embed_gradient(&mut self, d_out: View, tables: &[(View, Ids)]) {
        for &(table, ids) in tables {
            let shape = (table.cols(), ids.len());
            assert_eq!(shape, (d_out.cols(), d_out.rows()), "shapes of an embedding");
            let ids = self.ids.read(ids);
            let ([d_out], [table]) = self.memory.borrow([d_out], [table]);
            let ends = [0, table.rows as u32];
            let blocks = table.cols.div_ceil(COLUMNS);
            let grid = Grid::new(table, &ends, COLUMNS, &mut self.marks[0]);
            self.threads.each(blocks, ids.len() * COLUMNS, |block| {
                let mut sums = grid.tile(0, block);
                let first = block * COLUMNS;
                for (row, &id) in ids.iter().enumerate() {
                    let sums = sums.row(id as usize);
                    let parts = &d_out.row(row)[first..first + sums.len()];
                    sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
                }
            });
        }
    }

    /// The product; bias and activation join each block of it while it is near.
    pub(super) fn linear_forward(&mut self, op: &Linear) {
        let (f, activated) = op.activated.unzip();
        let bias = op.b.unwrap_or_else(nothing);
        let ([x, w, bias], [y, activated]) =
            self.memory.borrow([op.x, op.w, bias], [op.y, activated.unwrap_or_else(nothing)]);
        assert!(op.b.is_none() || bias.values.len() == y.cols, "shape of the bias");
        let shapes = [(y.rows, y.cols), (activated.rows, activated.cols)];
        assert!(f.is_none() || shapes[0] == shapes[1], "shape of the activation");
        let (x, w) = (Factor::Plain(x), Factor::Transposed(w));
        let beside = Beside { write: f.is_some().then_some(activated), read: None };
        let with_bias = op.b.is_some();
        self.products.run_and(&self.threads, y, x, w, false, beside, |columns, y, beside| {
            vectorised(
                #[inline(always)]
                || {
                    for row in 0..y.rows {
                        let y = &mut y.row(row)[columns.clone()];
                        if with_bias {
                            let bias = &bias.values[columns.clone()];
                            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                        }
                        if let (Some(f), Some(activated)) = (f, &mut beside.write) {
                            activate(f, y, &mut activated.row(row)[columns.clone()]);
                        }
                    }
                },
            );
        });
    }

    /// The gradient of a linear layer's input, through the activation before it where there is one.
    pub(super) fn linear_gradient(&mut self, op: &LinearBackward, dx: View) {
        let (f, z) = op.through.unzip();
        assert!(f.is_none() || !op.add_to_dx, "dx is written where it goes through f");
        let ([w, dy, z], [dx]) = self.memory.borrow([op.w, op.dy, z.unwrap_or_else(nothing)], [dx]);
        assert!(f.is_none() || (z.rows, z.cols) == (dx.rows, dx.cols), "shape before f");
        let (dy, w) = (Factor::Plain(dy), Factor::Plain(w));
        let beside = Beside { write: None, read: f.is_some().then_some(z) };
        let add = op.add_to_dx;
        self.products.run_and(&self.threads, dx, dy, w, add, beside, |columns, dx, beside| {
            let (Some(f), Some(z)) = (f, beside.read) else { return };
            vectorised(
                #[inline(always)]
                || {
                    for row in 0..dx.rows {
                        let z = &z.row(row)[columns.clone()];
                        multiply_slopes(f, z, &mut dx.row(row)[columns.clone()]);
                    }
                },
            );
        });
    }

    pub(super) fn activation_gradient(&mut self, f: Activation, x: View, dy: View, dx: View) {
        if dx != dy {
            self.zip_runs(dy, dx, |dx, dy| dx.copy_from_slice(dy));
        }
        self.zip_runs(
            x,
            dx,
            #[inline(always)]
            |dx, x| multiply_slopes(f, x, dx),
        );
    }

    pub(super) fn norm_rows(&mut self, op: &AddNorm) {
        let in_place = op.sum == op.x;
        let x = if in_place { nothing() } else { op.x };
        let reads = [x, op.residual.unwrap_or_else(nothing), op.gamma, op.beta];
        let addresses = op.dropout.map_or(&[][..], |dropout| self.ids.read(dropout.rows));
        let ([x, residual, gamma, beta], writes) =
            self.memory.borrow(reads, [op.sum, op.stats, op.y]);
        let [sums, stats, y] = writes;
        let shape = (op.x.rows(), op.x.cols());
        assert_eq!((sums.rows, sums.cols), shape, "shape of the sum");
        assert_eq!((y.rows, y.cols), shape, "shape of the output");
        assert_eq!((stats.rows, stats.cols), (shape.0, 2), "shape of the statistics");
        assert_eq!((gamma.values.len(), beta.values.len()), (shape.1, shape.1), "scale and shift");
        assert!(in_place || (x.rows, x.cols) == shape, "shape of the input");
        let with_residual = op.residual.is_some();
        assert!(!with_residual || (residual.rows, residual.cols) == shape, "shape of the residual");
        let cost = shape.1 * if op.dropout.is_some() { 12 } else { 4 };
        self.threads.over(
            (0..shape.0, (sums, stats, y)),
            cost,
            |(rows, (mut sums, mut stats, mut y))| {
                vectorised(
                    #[inline(always)]
                    || {
                        for (at, row) in rows.enumerate() {
                            let sum = sums.row(at);
                            if !in_place {
                                sum.copy_from_slice(x.row(row));
                            }
                            if let Some(dropout) = &op.dropout {
                                drop_row(dropout, addresses[row], 0, sum);
                            }
                            if with_residual {
                                sum.iter_mut()
                                    .zip(residual.row(row))
                                    .for_each(|(sum, part)| *sum += part);
                            }
                            let (mean, rstd) = moments(sum, op.eps as f32);
                            stats.row(at).copy_from_slice(&[mean, rstd]);
                            let scale_and_shift = gamma.values.iter().zip(beta.values);
                            for ((y, &x), (gamma, beta)) in
                                y.row(at).iter_mut().zip(&*sum).zip(scale_and_shift)
                            {
                                *y = ((x - mean) * rstd).mul_add(*gamma, *beta);
                            }
                        }
                    },
                );
            },
        );
    }

    pub(super) fn norm_gradient(&mut self, op: &AddNormBackward) {
        // The sums over rows come first: they read `dy`, which the second half may overwrite.
        self.norm_parameters(op);
        let in_place = op.d_sum == op.dy;
        let dy = if in_place { nothing() } else { op.dy };
        let (dropout, dx) = op.dx.unzip();
        let addresses = dropout.map_or(&[][..], |dropout| self.ids.read(dropout.rows));
        let ([dy, sum, stats, gamma], [d_sum, dx]) = self
            .memory
            .borrow([dy, op.sum, op.stats, op.gamma], [op.d_sum, dx.unwrap_or_else(nothing)]);
        let shape = (sum.rows, sum.cols);
        assert!(in_place || (dy.rows, dy.cols) == shape, "shape of dy");
        assert_eq!((d_sum.rows, d_sum.cols), shape, "shape of the sum's gradient");
        assert!(dropout.is_none() || (dx.rows, dx.cols) == shape, "shape of dx");
        assert_eq!(
            (stats.rows, stats.cols, gamma.values.len()),
            (shape.0, 2, shape.1),
            "statistics"
        );
        let cost = shape.1 * if dropout.is_some() { 12 } else { 4 };
        let dx = dropout.is_some().then_some(dx);
        self.threads.over((0..shape.0, d_sum, dx), cost, |(rows, mut d_sum, mut dx)| {
            vectorised(
                #[inline(always)]
                || {
                    for (at, row) in rows.enumerate() {
                        let d = d_sum.row(at);
                        if !in_place {
                            d.copy_from_slice(dy.row(row));
                        }
                        d.iter_mut().zip(gamma.values).for_each(|(d, gamma)| *d *= gamma);
                        let (x, width) = (sum.row(row), shape.1 as f32);
                        let (mean, rstd) = (stats.row(row)[0], stats.row(row)[1]);
                        let mean_scaled = lanes::sum(d, |d| d) / width;
                        let mean_product = sum2(d, x, |d, x| d * (x - mean) * rstd) / width;
                        for (d, &x) in d.iter_mut().zip(x) {
                            *d = (*d - mean_scaled - (x - mean) * rstd * mean_product) * rstd;
                        }
                        if let (Some(dropout), Some(dx)) = (&dropout, &mut dx) {
                            dx.row(at).copy_from_slice(d);
                            drop_row(dropout, addresses[row], 0, dx.row(at));
                        }
                    }
                },
            );
        });
    }

    /// Gradients of scale and shift.
    fn norm_parameters(&mut self, op: &AddNormBackward) {
        let reads = [op.dy, op.sum, op.stats];
        if let Some(d_beta) = op.d_beta {
            self.sum_columns(op.dy, d_beta);
        }
        if let Some(d_gamma) = op.d_gamma {
            let ([dy, sum, stats], [d_gamma]) = self.memory.borrow(reads, [d_gamma]);
            let products = |row: usize, columns: Range<usize>, sums: &mut [f32]| {
                let (mean, rstd) = (stats.row(row)[0], stats.row(row)[1]);
                let (dy, x) = (&dy.row(row)[columns.clone()], &sum.row(row)[columns]);
                for ((sum, &dy), &x) in sums.iter_mut().zip(dy).zip(x) {
                    *sum += dy * ((x - mean) * rstd);
                }
            };
            columns(&self.threads, &mut self.marks[0], d_gamma, dy.rows, products);
        }
    }

    /// `to ← to + Σ rows of from`.
    pub(super) fn sum_columns(&mut self, from: View, to: View) {
        let ([from], [to]) = self.memory.borrow([from], [to]);
        assert_eq!(from.cols, to.values.len(), "one sum per column");
        let marks = &mut self.marks[0];
        columns(&self.threads, marks, to, from.rows, |row, columns, sums| {
            sums.iter_mut().zip(&from.row(row)[columns]).for_each(|(sum, part)| *sum += part);
        });
    }

    pub(super) fn drop_rows(&mut self, op: &Dropout, x: View) {
        let addresses = self.ids.read(op.rows);
        let ([], [x]) = self.memory.borrow([], [x]);
        let (cost, addresses) = (8 * x.cols, &addresses[..x.rows]);
        self.threads.over((x, addresses), cost, |(mut x, addresses)| {
            vectorised(
                #[inline(always)]
                || {
                    for (row, &address) in addresses.iter().enumerate() {
                        drop_row(op, address, 0, x.row(row));
                    }
                },
            );
        });
    }

    pub(super) fn mean_of_rows(&mut self, x: View, starts: Ids, y: View) {
        let starts = self.ids.read(starts);
        let ([x], [y]) = self.memory.borrow([x], [y]);
        assert_eq!((y.rows + 1, y.cols), (starts.len(), x.cols), "shapes of the means");
        let cost = x.rows * x.cols / y.rows.max(1);
        self.threads.over((0..y.rows, y), cost, |(sequences, mut y)| {
            for (at, sequence) in sequences.enumerate() {
                let rows = starts[sequence] as usize..starts[sequence + 1] as usize;
                let (means, length) = (y.row(at), rows.len() as f32);
                means.fill(0.0);
                for row in rows {
                    means.iter_mut().zip(x.row(row)).for_each(|(mean, x)| *mean += x / length);
                }
            }
        });
    }

    pub(super) fn mean_of_rows_gradient(&mut self, dy: View, starts: Ids, dx: View) {
        let starts = self.ids.read(starts);
        let ([dy], [dx]) = self.memory.borrow([dy], [dx]);
        assert_eq!((dy.rows + 1, dy.cols), (starts.len(), dx.cols), "shapes of the means");
        let (cost, width) = (dx.rows * dx.cols / dy.rows.max(1), dx.cols);
        let grid = Grid::new(dx, starts, width, &mut self.marks[0]);
        self.threads.each(dy.rows, cost, |sequence| {
            let length = starts[sequence + 1] - starts[sequence];
            let mut rows = grid.tile(sequence, 0);
            for row in 0..length as usize {
                let pairs = rows.row(row).iter_mut().zip(dy.row(sequence));
                pairs.for_each(|(dx, dy)| *dx = dy / length as f32);
            }
        });
    }
}

/// Adds to each number of `to` what `add` gathers from the rows below `rows` for its column.
pub(super) fn columns(
    threads: &Threads,
    marks: &mut Marks,
    to: RowsMut<'_>,
    rows: usize,
    add: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
) {
    let width = to.values.len();
    let ends = [0, 1];
    let grid = Grid::new(RowsMut::of(to.values, width), &ends, COLUMNS, marks);
    threads.each(width.div_ceil(COLUMNS), rows * COLUMNS, |block| {
        let mut tile = grid.tile(0, block);
        let to = tile.row(0);
        let columns = block * COLUMNS..block * COLUMNS + to.len();
        vectorised(
            #[inline(always)]
            || {
                let mut total = [0.0; COLUMNS];
                for first in (0..rows).step_by(RUN) {
                    let mut sums = [0.0; COLUMNS];
                    for row in first..rows.min(first + RUN) {
                        add(row, columns.clone(), &mut sums[..columns.len()]);
                    }
                    total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
                }
                to.iter_mut().zip(total).for_each(|(to, total)| *to += total);
            },
        );
    });
}

/// Mean and reciprocal standard deviation.
#[inline(always)]
fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let width = row.len() as f32;
    let mean = lanes::sum(row, |x| x) / width;
    let variance = lanes::sum(row, |x| (x - mean) * (x - mean)) / width;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// `to ← f(from)`: one loop per activation, since a choice inside would keep it from being
/// vectorised.
#[inline(always)]
pub(super) fn activate(f: Activation, from: &[f32], to: &mut [f32]) {
    #[inline(always)]
    fn each(from: &[f32], to: &mut [f32], f: impl Fn(f32) -> f32) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = f(from);
        }
    }
    match f {
        Activation::Gelu => each(from, to, |x| math::value(Activation::Gelu, x)),
        Activation::GeluTanh => each(from, to, |x| math::value(Activation::GeluTanh, x)),
        Activation::Relu => each(from, to, |x| math::value(Activation::Relu, x)),
        Activation::Silu => each(from, to, |x| math::value(Activation::Silu, x)),
        Activation::Tanh => each(from, to, |x| math::value(Activation::Tanh, x)),
    }
}

/// `d ← d · f′(x)`, likewise.
#[inline(always)]
pub(super) fn multiply_slopes(f: Activation, x: &[f32], d: &mut [f32]) {
    #[inline(always)]
    fn each(x: &[f32], d: &mut [f32], slope: impl Fn(f32) -> f32) {
        for (d, &x) in d.iter_mut().zip(x) {
            *d *= slope(x);
        }
    }
    match f {
        Activation::Gelu => each(x, d, |x| math::slope(Activation::Gelu, x)),
        Activation::GeluTanh => each(x, d, |x| math::slope(Activation::GeluTanh, x)),
        Activation::Relu => each(x, d, |x| math::slope(Activation::Relu, x)),
        Activation::Silu => each(x, d, |x| math::slope(Activation::Silu, x)),
        Activation::Tanh => each(x, d, |x| math::slope(Activation::Tanh, x)),
    }
}
