//! Columns of logits by another vocabulary's numbers.

use super::Cpu;
use crate::device::IGNORED;
use crate::{Ids, View};

impl Cpu {
    pub(super) fn pick(&mut self, from: View, columns: Ids, to: View) {
        let columns = self.ids.read(columns);
        let ([from], [to]) = self.memory.borrow([from], [to]);
        assert_eq!((to.rows, to.cols), (from.rows, columns.len()), "shapes of picked columns");
        self.threads.over((0..to.rows, to), columns.len(), |(rows, mut to)| {
            for (at, row) in rows.enumerate() {
                let from = from.row(row);
                for (to, &column) in to.row(at).iter_mut().zip(columns) {
                    *to = if column == IGNORED { f32::NEG_INFINITY } else { from[column as usize] };
                }
            }
        });
    }

    pub(super) fn forbid(&mut self, x: View, columns: Ids) {
        let columns = self.ids.read(columns);
        let ([], [x]) = self.memory.borrow([], [x]);
        assert_eq!(x.cols, columns.len(), "one index for each column");
        self.threads.over((0..x.rows, x), columns.len(), |(rows, mut x)| {
            for at in 0..rows.len() {
                for (x, &column) in x.row(at).iter_mut().zip(columns) {
                    *x = if column == IGNORED { f32::NEG_INFINITY } else { *x };
                }
            }
        });
    }
}
