//! Gated units, row by row.

use super::Cpu;
use super::lanes::vectorised;
use super::rows::{activate, multiply_slopes};
use crate::device::{Gate, GateBackward};

impl Cpu {
    pub(super) fn gate_rows(&mut self, op: &Gate) {
        let ([x], [y]) = self.memory.borrow([op.x], [op.y]);
        assert_eq!((x.rows, x.cols), (y.rows, 2 * y.cols), "gate and up");
        let (rows, cost, width) = (0..y.rows, 8 * y.cols, y.cols);
        self.threads.over((rows, y), cost, |(rows, mut y)| {
            vectorised(
                #[inline(always)]
                || {
                    for (at, row) in rows.enumerate() {
                        let ((gate, up), y) = (x.row(row).split_at(width), y.row(at));
                        activate(op.f, gate, y);
                        y.iter_mut().zip(up).for_each(|(y, up)| *y *= up);
                    }
                },
            );
        });
    }

    pub(super) fn gate_gradient(&mut self, op: &GateBackward) {
        let ([x, dy], [dx]) = self.memory.borrow([op.x, op.dy], [op.dx]);
        let width = dy.cols;
        assert_eq!((x.rows, x.cols), (dy.rows, 2 * width), "gate and up");
        assert_eq!((dx.rows, dx.cols), (x.rows, x.cols), "their gradient");
        let (rows, cost) = (0..x.rows, 16 * width);
        self.threads.over((rows, dx), cost, |(rows, mut dx)| {
            vectorised(
                #[inline(always)]
                || {
                    for (at, row) in rows.enumerate() {
                        let ((gate, up), dy) = (x.row(row).split_at(width), dy.row(row));
                        let (d_gate, d_up) = dx.row(at).split_at_mut(width);
                        for ((d, dy), up) in d_gate.iter_mut().zip(dy).zip(up) {
                            *d = dy * up;
                        }
                        multiply_slopes(op.f, gate, d_gate);
                        activate(op.f, gate, d_up);
                        d_up.iter_mut().zip(dy).for_each(|(d, dy)| *d *= dy);
                    }
                },
            );
        });
    }
}
