//! Rotary positions: angles once for a batch, then pairs of columns turned in place.

use super::Cpu;
use super::lanes::vectorised;
use crate::device::{Rotary, RotaryAngles};

impl Cpu {
    pub(super) fn angles(&mut self, op: &RotaryAngles) {
        let positions = self.ids.read(op.positions);
        let ([frequencies], [out]) = self.memory.borrow([op.frequencies], [op.out]);
        let (half, factor) = (frequencies.cols, op.factor as f32);
        let shape = (positions.len(), 2 * half);
        assert_eq!((out.rows, out.cols), shape, "cosines and sines of each position");
        self.threads.over((out, positions), 32 * half, |(mut out, positions)| {
            for (row, &position) in positions.iter().enumerate() {
                let (cosines, sines) = out.row(row).split_at_mut(half);
                let pairs = cosines.iter_mut().zip(sines).zip(frequencies.values);
                for ((cos, sin), frequency) in pairs {
                    let angle = position as f32 * frequency;
                    (*cos, *sin) = (libm::cosf(angle) * factor, libm::sinf(angle) * factor);
                }
            }
        });
    }

    pub(super) fn turn_pairs(&mut self, op: &Rotary) {
        op.heads();
        let ([angles], [x]) = self.memory.borrow([op.angles], [op.x]);
        let (each, rows, cost) = (angles.cols, 0..x.rows, 2 * x.cols);
        let sign = if op.backward { -1.0 } else { 1.0 };
        self.threads.over((rows, x), cost, |(rows, mut x)| {
            vectorised(
                #[inline(always)]
                || {
                    for (at, row) in rows.enumerate() {
                        let (cosines, sines) = angles.row(row).split_at(each / 2);
                        for head in x.row(at).chunks_exact_mut(each) {
                            let (first, second) = head.split_at_mut(each / 2);
                            let pairs = first.iter_mut().zip(second);
                            for ((a, b), (&cos, &sin)) in pairs.zip(cosines.iter().zip(sines)) {
                                let sin = sign * sin;
                                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                            }
                        }
                    }
                },
            );
        });
    }
}
