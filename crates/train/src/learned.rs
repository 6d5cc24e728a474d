//! Parameters that are learned: weights, gradient and moments side by side, and AdamW over them.
//!
//! In: gradients. Out: moved weights. The law the tests hold: a table of which each step sees few
//! rows ends in the bits that a pass over all of it at every step would leave.

use heirloom_engine::{
    AdamW, AdamWRows, Device, Ids, Move, Params, Slope, Space, Span, Update, View,
};

/// Moves remembered for rows that have missed them; then all rows are caught up.
const REMEMBERED: usize = 512;

/// What AdamW is set to; constant through a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
    /// Decoupled decay of matrices and tables.
    pub weight_decay: f64,
}

/// A flat buffer with its gradient and moments, and what an optimiser does to it.
///
/// Around each step: [`Learned::see`] before the weights are read, [`Learned::step`] with the whole
/// gradient, [`Learned::catch_up`] before anybody else reads weights or moments.
#[derive(Debug)]
pub struct Learned {
    /// Weights and their index.
    pub params: Params,
    /// Gradient: a twin of the weights.
    pub grads: Space,
    /// First moment, likewise.
    pub first: Space,
    /// Second moment, likewise.
    pub second: Space,
    adam: Adam,
    /// All that is moved at every step.
    spans: Vec<Span>,
    /// The table whose rows move when they are seen.
    table: Option<Table>,
}

/// A table of which each step sees few rows.
#[derive(Debug)]
struct Table {
    /// Its weights, `[V, C]`.
    weights: View,
    /// The step each row has reached, `[V]`.
    reached: Ids,
    /// Rows that this step sees.
    seen: Ids,
    /// Room for them.
    room: Ids,
    /// The last moves: all that some row may have missed.
    moves: Vec<Move>,
}

impl Learned {
    /// Plans gradient and moments of `params`. `table` is a matrix of them that is only ever looked
    /// up by row.
    pub fn new(device: &mut dyn Device, params: Params, adam: Adam, table: Option<View>) -> Self {
        let [grads, first, second] = [(); 3].map(|()| device.alloc(params.len()));
        let mut spans = params.spans(adam.weight_decay);
        let table = table.map(|weights| {
            let range = weights.offset()..weights.offset() + weights.len();
            spans = spans.iter().flat_map(|span| without(span, &range)).collect();
            let [reached, room] =
                [(); 2].map(|()| Ids::at(device.alloc_ids(weights.rows()), 0, weights.rows()));
            let moves = Vec::with_capacity(REMEMBERED);
            Table { weights, reached, seen: room.first(0), room, moves }
        });
        Self { params, grads, first, second, adam, spans, table }
    }

    /// Hears which rows of the table this step will read, each once, in ascending order, and takes
    /// them through the steps that they have missed.
    pub fn see(&mut self, device: &mut dyn Device, rows: &[u32]) {
        let Some(table) = &mut self.table else { return };
        table.seen = table.room.first(rows.len());
        device.write_ids(table.seen, rows);
        self.move_rows(device, false, true);
    }

    /// Sum of squares of the gradient.
    pub fn squares(&self, device: &dyn Device) -> f64 {
        let Some(table) = &self.table else {
            return device.sum_of_squares(self.params.flat(self.grads));
        };
        let dense = self.spans.iter().map(|span| {
            let view = View::matrix(self.grads, span.start, 1, span.end - span.start);
            device.sum_of_squares(view)
        });
        let rows = Params::twin(table.weights, self.grads);
        dense.sum::<f64>() + device.sum_of_squares_of_rows(rows, table.seen)
    }

    /// Takes a step and clears the gradient. Steps are numbered from 1 without a gap.
    pub fn step(&mut self, device: &mut dyn Device, at: Move) {
        let Adam { beta1, beta2, epsilon, .. } = self.adam;
        device.adamw(&AdamW {
            spaces: [self.params.weights(), self.grads, self.first, self.second],
            spans: &self.spans,
            learning_rate: at.learning_rate,
            beta1,
            beta2,
            epsilon,
            step: at.step,
            gradient_scale: at.gradient_scale,
        });
        let Some(table) = &mut self.table else { return };
        table.moves.push(at);
        let full = table.moves.len() == REMEMBERED;
        self.move_rows(device, true, true);
        if full {
            self.catch_up(device);
        }
    }

    /// Drops the gradient.
    pub fn clear(&self, device: &mut dyn Device) {
        device.fill(self.params.flat(self.grads), 0.0);
    }

    /// Runs of the buffers that move at every step.
    pub(crate) fn dense(&self) -> &[Span] {
        &self.spans
    }

    /// Multiplies `direction`, a twin of the weights, by how far this optimiser's step `at` follows
    /// its gradient, from `gradient` or, where it is `None`, from zero.
    pub(crate) fn follow(
        &self,
        device: &mut dyn Device,
        direction: Space,
        gradient: Option<Space>,
        at: Move,
    ) {
        device.slope(&Slope {
            direction,
            gradient,
            moments: [self.first, self.second],
            spans: &self.params.spans(self.adam.weight_decay),
            update: self.update(at),
        });
    }

    /// The optimiser's step `at`.
    pub(crate) fn update(&self, at: Move) -> Update {
        let Adam { beta1, beta2, epsilon, .. } = self.adam;
        Update::AdamW { beta1, beta2, epsilon, at }
    }

    /// All numbers that a step moves which sees `rows` of the table.
    pub(crate) fn moved(&self, rows: &[u32]) -> Vec<Span> {
        let mut spans = self.spans.clone();
        if let Some(Table { weights, .. }) = &self.table {
            let row = |&row: &u32| {
                let start = weights.offset() + row as usize * weights.cols();
                let (end, weight_decay) = (start + weights.cols(), self.adam.weight_decay);
                Span { start, end, weight_decay }
            };
            spans.extend(rows.iter().map(row));
        }
        spans
    }

    /// The table's weights and the rows of it that this step sees.
    pub(crate) fn seen(&self) -> Option<(View, Ids)> {
        self.table.as_ref().map(|table| (table.weights, table.seen))
    }

    /// Drops the gradient, of which the table has rows that this step sees and no other.
    pub(crate) fn clear_seen(&self, device: &mut dyn Device) {
        let Some(table) = &self.table else { return self.clear(device) };
        for span in &self.spans {
            let len = span.end - span.start;
            device.fill(View::matrix(self.grads, span.start, 1, len), 0.0);
        }
        device.clear_rows(Params::twin(table.weights, self.grads), table.seen);
    }

    /// Takes every row of the table through all steps so far.
    pub fn catch_up(&mut self, device: &mut dyn Device) {
        self.move_rows(device, false, false);
        if let Some(table) = &mut self.table {
            table.moves.clear();
        }
    }

    /// Hears that weights and moments are those after step `step`, from wherever they came.
    pub fn resumed(&mut self, device: &mut dyn Device, step: u64) {
        if let Some(table) = &mut self.table {
            table.moves.clear();
            device.write_ids(table.reached, &vec![step as u32; table.reached.len()]);
        }
    }

    fn move_rows(&self, device: &mut dyn Device, has_gradient: bool, only_seen: bool) {
        let Some(table) = &self.table else { return };
        let spaces = [self.params.weights(), self.grads, self.first, self.second];
        device.adamw_rows(&AdamWRows {
            tables: spaces.map(|space| Params::twin(table.weights, space)),
            rows: only_seen.then_some(table.seen),
            reached: table.reached,
            moves: &table.moves,
            has_gradient,
            weight_decay: self.adam.weight_decay,
            beta1: self.adam.beta1,
            beta2: self.adam.beta2,
            epsilon: self.adam.epsilon,
        });
    }
}

/// What is left of a span outside `range`.
fn without(span: &Span, range: &std::ops::Range<usize>) -> impl Iterator<Item = Span> + use<> {
    let before = Span { end: span.end.min(range.start), ..*span };
    let after = Span { start: span.start.max(range.end), ..*span };
    [before, after].into_iter().filter(|part| part.start < part.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_loses_what_lies_in_the_table_and_nothing_else() {
        let span = |start, end| Span { start, end, weight_decay: 0.1 };
        let left = |range| without(&span(10, 20), &range).collect::<Vec<_>>();
        assert_eq!(left(0..10), [span(10, 20)]);
        assert_eq!(left(5..12), [span(12, 20)]);
        assert_eq!(left(12..15), [span(10, 12), span(15, 20)]);
        assert_eq!(left(15..30), [span(10, 15)]);
        assert_eq!(left(10..20), []);
        assert_eq!(left(20..30), [span(10, 20)]);
    }
}
