//! The student's weights put aside while others stand in their place.
//!
//! In: a student whose gradient holds a direction. Out: the weights moved along it, and put back bit for
//! bit. Never: a copy of the whole table of words; of that, the rows that a step sees.

use heirloom_engine::{Device, Params, Space, View};

use crate::Learned;

/// Weights put aside while others stand in their place: all that the second set's gradient reaches.
pub(crate) struct Saved {
    /// What moves at every step.
    dense: Space,
    dense_len: usize,
    /// Rows of the table: weights, direction, and both together, `[R, C]`.
    rows: [Space; 3],
    rows_len: usize,
}

impl Saved {
    pub(crate) fn new(device: &mut dyn Device) -> Self {
        let dense = device.alloc(0);
        Self { dense, dense_len: 0, rows: [(); 3].map(|()| device.alloc(0)), rows_len: 0 }
    }

    /// The runs of weights and where they are put.
    fn runs(&self, student: &Learned) -> impl Iterator<Item = (View, View)> + use<> {
        let (dense, weights) = (self.dense, student.params.weights());
        let mut at = 0;
        student.dense().to_vec().into_iter().map(move |span| {
            let len = span.end - span.start;
            let there = View::matrix(dense, at, 1, len);
            at += len;
            (View::matrix(weights, span.start, 1, len), there)
        })
    }

    fn rows(&self, student: &Learned) -> Option<[View; 3]> {
        let (table, seen) = student.seen()?;
        Some(self.rows.map(|space| View::matrix(space, 0, seen.len(), table.cols())))
    }

    pub(crate) fn save(&mut self, device: &mut dyn Device, student: &Learned) {
        let len = student.dense().iter().map(|span| span.end - span.start).sum();
        if self.dense_len < len {
            device.resize(self.dense, len);
            self.dense_len = len;
        }
        for (weights, there) in self.runs(student) {
            device.copy(weights, there);
        }
        let Some((table, seen)) = student.seen() else { return };
        let len = seen.len() * table.cols();
        if self.rows_len < len {
            self.rows.iter().for_each(|&space| device.resize(space, len));
            self.rows_len = len;
        }
        let [weights, direction, _] = self.rows(student).expect("a table was just seen");
        device.embed(&[(table, seen)], weights);
        device.embed(&[(Params::twin(table, student.grads), seen)], direction);
    }

    /// `θ + h v`.
    pub(crate) fn shift(&self, device: &mut dyn Device, student: &Learned, h: f64) {
        for (weights, there) in self.runs(student) {
            device.copy(there, weights);
            device.add_scaled(h, Params::twin(weights, student.grads), weights);
        }
        let (Some((table, seen)), Some([weights, direction, both])) =
            (student.seen(), self.rows(student))
        else {
            return;
        };
        device.copy(weights, both);
        device.add_scaled(h, direction, both);
        device.set_rows(both, table, seen);
    }

    /// `h v` more than they are.
    pub(crate) fn nudge(&self, device: &mut dyn Device, student: &Learned, h: f64) {
        for (weights, _) in self.runs(student) {
            device.add_scaled(h, Params::twin(weights, student.grads), weights);
        }
        let (Some((table, seen)), Some([_, direction, both])) =
            (student.seen(), self.rows(student))
        else {
            return;
        };
        device.embed(&[(table, seen)], both);
        device.add_scaled(h, direction, both);
        device.set_rows(both, table, seen);
    }

    pub(crate) fn restore(&self, device: &mut dyn Device, student: &Learned) {
        for (weights, there) in self.runs(student) {
            device.copy(there, weights);
        }
        if let (Some((table, seen)), Some([weights, ..])) = (student.seen(), self.rows(student)) {
            device.set_rows(weights, table, seen);
        }
    }
}
