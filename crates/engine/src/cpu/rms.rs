//! Root-mean-square norms of rows, or of the heads in them.

use std::ops::Range;

use super::Cpu;
use super::lanes::{self, sum2, vectorised};
use super::memory::nothing;
use super::rows::columns;
use crate::device::{RmsNorm, RmsNormBackward};

impl Cpu {
    pub(super) fn rms_rows(&mut self, op: &RmsNorm) {
        op.runs();
        let in_place = op.sum == op.x;
        let x = if in_place { nothing() } else { op.x };
        let reads = [x, op.residual.unwrap_or_else(nothing), op.gamma];
        let ([x, residual, gamma], [sums, stats, y]) =
            self.memory.borrow(reads, [op.sum, op.stats, op.y]);
        let (width, with_residual, eps) = (op.gamma.cols(), op.residual.is_some(), op.eps as f32);
        let (rows, cost) = (0..op.x.rows(), 4 * op.x.cols());
        self.threads.over(
            (rows, (sums, stats, y)),
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
                            if with_residual {
                                let pairs = sum.iter_mut().zip(residual.row(row));
                                pairs.for_each(|(sum, part)| *sum += part);
                            }
                            let runs =
                                sum.chunks_exact(width).zip(y.row(at).chunks_exact_mut(width));
                            for ((x, y), reciprocal) in runs.zip(stats.row(at)) {
                                let mean = lanes::sum(x, |x| x * x) / width as f32;
                                *reciprocal = 1.0 / (mean + eps).sqrt();
                                for ((y, &x), gamma) in y.iter_mut().zip(x).zip(gamma.values) {
                                    *y = x * *reciprocal * gamma;
                                }
                            }
                        }
                    },
                );
            },
        );
    }

    pub(super) fn rms_gradient(&mut self, op: &RmsNormBackward) {
        let (runs, width) = (op.runs(), op.gamma.cols());
        // The sums over rows come first: they read `dy`, which the second half may overwrite.
        if let Some(d_gamma) = op.d_gamma {
            let ([dy, sum, stats], [d_gamma]) =
                self.memory.borrow([op.dy, op.sum, op.stats], [d_gamma]);
            let products = |row: usize, columns: Range<usize>, sums: &mut [f32]| {
                let (row, run) = (row / runs, row % runs);
                let columns = run * width + columns.start..run * width + columns.end;
                let reciprocal = stats.row(row)[run];
                let (dy, x) = (&dy.row(row)[columns.clone()], &sum.row(row)[columns]);
                for ((sum, &dy), &x) in sums.iter_mut().zip(dy).zip(x) {
                    *sum += dy * (x * reciprocal);
                }
            };
            columns(&self.threads, &mut self.marks[0], d_gamma, op.dy.rows() * runs, products);
        }
        let in_place = op.d_sum == op.dy;
        let dy = if in_place { nothing() } else { op.dy };
        let ([dy, sum, stats, gamma], [d_sum]) =
            self.memory.borrow([dy, op.sum, op.stats, op.gamma], [op.d_sum]);
        let (rows, cost) = (0..op.sum.rows(), 4 * op.sum.cols());
        self.threads.over((rows, d_sum), cost, |(rows, mut d_sum)| {
            vectorised(
                #[inline(always)]
                || {
                    for (at, row) in rows.enumerate() {
                        let d = d_sum.row(at);
                        if !in_place {
                            d.copy_from_slice(dy.row(row));
                        }
                        let runs = d.chunks_exact_mut(width).zip(sum.row(row).chunks_exact(width));
                        for ((d, x), &reciprocal) in runs.zip(stats.row(row)) {
                            d.iter_mut().zip(gamma.values).for_each(|(d, gamma)| *d *= gamma);
                            let mean = sum2(d, x, |d, x| d * (x * reciprocal)) / width as f32;
                            for (d, &x) in d.iter_mut().zip(x) {
                                *d = (*d - x * reciprocal * mean) * reciprocal;
                            }
                        }
                    }
                },
            );
        });
    }
}
