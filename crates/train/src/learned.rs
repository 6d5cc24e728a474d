//! Parameters that are learned: weights, gradient and moments side by side, and AdamW over them.
//!
//! In: gradients. Out: moved weights. The law the tests hold: a table of which each step sees few
//! rows ends in the bits that a pass over all of it at every step would leave, and what is frozen in
//! those that it had.

use heirloom_engine::{
    AdamW, AdamWRows, Device, Frozen, Grads, Ids, Move, Params, Role, Slope, Space, Span, Update,
    View,
};

use crate::mask::Mask;
use crate::{MaskCourse, Treatment};

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
/// Around each step: [`Learned::coming`] and [`Learned::see`] before the weights are read,
/// [`Learned::step`] with the whole gradient, [`Learned::catch_up`] before anybody else reads
/// weights or moments.
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
    /// How each parameter is treated, in the order of the index.
    treatments: Vec<Treatment>,
    /// The coming step of the optimiser, from 1.
    update: u64,
    /// All that is moved at every step, but for the table.
    spans: Vec<Span>,
    /// How each of them is treated.
    treated: Vec<Treatment>,
    /// Runs that the coming step leaves as they are, but for the table; their gradient is dropped,
    /// where there is one.
    frozen: Vec<Span>,
    /// The same with the table: what needs no gradient.
    still: Frozen,
    /// Those of the frozen runs that a gradient may reach all the same: parameters that may be one
    /// matrix with others that move.
    reached: Vec<Span>,
    /// Whether gradients of these are asked for all the same.
    asks_all: bool,
    /// The table whose rows move when they are seen.
    table: Option<Table>,
    /// What is behind a mask, while it is not open.
    mask: Option<Mask>,
}

/// A table of which each step sees few rows.
#[derive(Debug)]
struct Table {
    /// Its weights, `[V, C]`.
    weights: View,
    /// How it is treated.
    treatment: Treatment,
    /// The step each row has reached, `[V]`, counted as the table's moments count.
    reached: Ids,
    /// Rows that this step sees.
    seen: Ids,
    /// Room for them.
    room: Ids,
    /// The last moves: all that some row may have missed.
    moves: Vec<Move>,
}

impl Table {
    /// The whole of it, as the coming step `update` moves it.
    fn span(&self, weight_decay: f64, update: u64) -> Span {
        let start = self.weights.offset();
        span(start, start + self.weights.len(), weight_decay, &self.treatment, update)
    }
}

/// A run of numbers as step `update` moves it.
fn span(start: usize, end: usize, weight_decay: f64, by: &Treatment, update: u64) -> Span {
    let weight_decay = weight_decay * by.decay;
    Span { start, end, weight_decay, rate: by.rate_at(update), since: by.since() }
}

impl Learned {
    /// Plans gradient and moments of `params`. `table` is a matrix of them that is only ever looked
    /// up by row.
    pub fn new(device: &mut dyn Device, params: Params, adam: Adam, table: Option<View>) -> Self {
        let [grads, first, second] = [(); 3].map(|()| device.alloc(params.len()));
        let table = table.map(|weights| {
            let [reached, room] =
                [(); 2].map(|()| Ids::at(device.alloc_ids(weights.rows()), 0, weights.rows()));
            let moves = Vec::with_capacity(REMEMBERED);
            let treatment = Treatment::USUAL;
            Table { weights, treatment, reached, seen: room.first(0), room, moves }
        });
        let treatments = vec![Treatment::USUAL; params.index().len()];
        let (spans, treated, frozen, still, reached) = Default::default();
        let mut learned = Self {
            params,
            grads,
            first,
            second,
            adam,
            treatments,
            update: 1,
            spans,
            treated,
            frozen,
            still,
            reached,
            asks_all: false,
            table,
            mask: None,
        };
        learned.lay_out();
        learned
    }

    /// The same with a treatment for each parameter, in the order of the index.
    ///
    /// # Panics
    /// Where they are not as many.
    #[must_use]
    pub fn treated(mut self, treatments: Vec<Treatment>) -> Self {
        assert_eq!(treatments.len(), self.params.index().len(), "a treatment for each parameter");
        self.treatments = treatments;
        self.lay_out();
        self
    }

    /// The same with `parts` of the weights behind a mask; none of them is of the table.
    #[must_use]
    pub(crate) fn masked(
        mut self,
        device: &mut dyn Device,
        parts: Vec<View>,
        course: MaskCourse,
    ) -> Self {
        self.mask = Some(Mask::new(device, &self.params, parts, course));
        self
    }

    /// The twin of the weights that holds what is behind the mask, while there is one.
    pub(crate) fn behind(&self) -> Option<Space> {
        self.mask.as_ref().map(|mask| mask.behind)
    }

    /// c of the coming step, once [`Learned::coming`] has heard of it, while there is a mask.
    pub(crate) fn mask(&self) -> Option<f64> {
        self.mask.as_ref().map(|mask| mask.course.at(self.update - 1))
    }

    /// Puts what is behind the mask, which was changed, into the weights as the coming step sees it.
    #[cfg(test)]
    pub(crate) fn look_again(&self, device: &mut dyn Device) {
        if let Some(mask) = &self.mask {
            mask.lift(device);
            mask.lower(device, self.update - 1);
        }
    }

    /// Makes the whole gradient of a step that of what is behind the mask; before
    /// [`Learned::squares`].
    pub(crate) fn pull_back(&self, device: &mut dyn Device) {
        if let Some(mask) = &self.mask {
            mask.pull_back(device, self.grads, self.update - 1);
        }
    }

    /// How each parameter is treated, in the order of the index.
    pub fn treatments(&self) -> &[Treatment] {
        &self.treatments
    }

    /// Cuts the buffer into runs that the coming step moves in one way each.
    fn lay_out(&mut self) {
        (self.spans, self.treated, self.frozen) = Default::default();
        let table = self.table.as_ref().map(|table| {
            let start = table.weights.offset();
            start..start + table.weights.len()
        });
        let moving = self.params.index().iter().zip(&self.treatments);
        // Parameters that are alike in decay and treatment make one run, as far as they adjoin.
        let mut last: Option<(Span, Treatment)> = None;
        let mut runs = Vec::new();
        for (param, &by) in moving.filter(|(param, _)| param.role != Role::Carried) {
            let (start, end) = (param.offset, param.offset + param.len());
            let is_table = table.as_ref().is_some_and(|range| range.start == start);
            if let (true, Some(table)) = (is_table, &mut self.table) {
                table.treatment = by;
            }
            let decay = if param.role.decays() { self.adam.weight_decay } else { 0.0 };
            let run = span(start, end, decay, &by, self.update);
            match &mut last {
                Some((before, treated))
                    if *treated == by
                        && before.weight_decay == run.weight_decay
                        && Params::adjoin(before.end, start) =>
                {
                    before.end = end;
                }
                _ => runs.extend(last.replace((run, by))),
            }
        }
        runs.extend(last);
        for (run, by) in runs {
            let parts: Vec<Span> = match &table {
                Some(range) => without(&run, range).collect(),
                None => vec![run],
            };
            for part in parts {
                if by.is_frozen(self.update) {
                    self.frozen.push(part);
                } else {
                    self.spans.push(part);
                    self.treated.push(by);
                }
            }
        }
        let still = self.table.as_ref().filter(|table| table.treatment.is_frozen(self.update));
        let still =
            still.map(|table| table.weights.offset()..table.weights.offset() + table.weights.len());
        self.still = Frozen::new(self.frozen.iter().map(|run| run.start..run.end).chain(still));
        self.reached = self.reached();
    }

    /// Frozen parameters that adjoin one that moves, of the same role and without padding between, or
    /// that adjoin such a one: matrices that are one to the products lie so.
    fn reached(&self) -> Vec<Span> {
        let index = self.params.index();
        let frozen = |at: usize| self.treatments[at].is_frozen(self.update);
        let next_to = |at: usize| {
            let (param, next) = (&index[at], &index[at + 1]);
            param.role == next.role && param.offset + param.len() == next.offset
        };
        let mut reached = Vec::new();
        let mut from = 0;
        for at in 0..index.len() {
            if at + 1 < index.len() && next_to(at) {
                continue;
            }
            let block = from..at + 1;
            if block.clone().any(|at| !frozen(at)) {
                let still = block.filter(|&at| frozen(at)).map(|at| &index[at]);
                let whole = |param: &heirloom_engine::Param| {
                    Span::new(param.offset, param.offset + param.len(), 0.0)
                };
                reached.extend(still.map(whole));
            }
            from = at + 1;
        }
        reached
    }

    /// Runs of the frozen whose gradient is not zero for sure.
    fn to_clear(&self) -> &[Span] {
        if self.asks_all { &self.frozen } else { &self.reached }
    }

    /// Where the gradients of the coming step go: of all that it moves.
    pub fn gradients(&self) -> Grads<'_> {
        self.gradients_in(self.grads)
    }

    /// The same for gradients that are added up in `space`, another twin of the weights.
    pub(crate) fn gradients_in(&self, space: Space) -> Grads<'_> {
        match self.asks_all {
            true => space.into(),
            false => Grads::without(space, &self.still),
        }
    }

    /// Whether gradients are asked for also of what is frozen: for who looks at them and takes no step.
    pub(crate) fn ask_all(&mut self, all: bool) {
        self.asks_all = all;
    }

    /// Hears the number of the coming step of the optimiser, from 1.
    pub fn coming(&mut self, device: &mut dyn Device, update: u64) {
        let before = std::mem::replace(&mut self.update, update);
        let thaws = |by: &Treatment| by.is_frozen(before) != by.is_frozen(update);
        if self.treatments.iter().any(thaws) {
            let table_thaws = self.table.as_ref().is_some_and(|table| thaws(&table.treatment));
            self.lay_out();
            if table_thaws {
                self.resumed(device, update - 1);
            }
            return;
        }
        for (span, by) in self.spans.iter_mut().zip(&self.treated) {
            span.rate = by.rate_at(update);
        }
    }

    /// Hears which rows of the table this step will read, each once, in ascending order, and takes
    /// them through the steps that they have missed.
    pub fn see(&mut self, device: &mut dyn Device, rows: &[u32]) {
        let Some(table) = &mut self.table else { return };
        table.seen = table.room.first(rows.len());
        device.write_ids(table.seen, rows);
        self.move_rows(device, false, true);
    }

    /// The table, where the coming step moves it.
    fn moving_table(&self) -> Option<&Table> {
        self.table.as_ref().filter(|table| !table.treatment.is_frozen(self.update))
    }

    /// Sum of squares of the gradient of all that the coming step moves.
    pub fn squares(&self, device: &dyn Device) -> f64 {
        if self.table.is_none() && self.frozen.is_empty() {
            return device.sum_of_squares(self.params.flat(self.grads));
        }
        let dense = self.spans.iter().map(|span| {
            let view = View::matrix(self.grads, span.start, 1, span.len());
            device.sum_of_squares(view)
        });
        let dense = dense.sum::<f64>();
        let Some(table) = self.moving_table() else { return dense };
        let rows = Params::twin(table.weights, self.grads);
        dense + device.sum_of_squares_of_rows(rows, table.seen)
    }

    /// Takes a step and clears the gradient. Steps are numbered from 1 without a gap.
    pub fn step(&mut self, device: &mut dyn Device, at: Move) {
        if at.step != self.update {
            self.coming(device, at.step);
        }
        let Adam { beta1, beta2, epsilon, .. } = self.adam;
        if let Some(mask) = &self.mask {
            mask.lift(device);
        }
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
        if let Some(mask) = &self.mask {
            mask.lower(device, at.step);
        }
        // Open, it is the identity.
        self.mask.take_if(|mask| mask.course.at(at.step) == 1.0);
        self.clear_frozen(device);
        if self.moving_table().is_none() {
            return;
        }
        let Some(table) = &mut self.table else { return };
        table.moves.push(table.span(self.adam.weight_decay, self.update).of(at));
        let full = table.moves.len() == REMEMBERED;
        self.move_rows(device, true, true);
        if full {
            self.catch_up(device);
        }
    }

    /// Drops the gradient of what the coming step leaves as it is.
    fn clear_frozen(&self, device: &mut dyn Device) {
        for span in self.to_clear() {
            device.fill(View::matrix(self.grads, span.start, 1, span.len()), 0.0);
        }
        if let (Some(table), None) = (&self.table, self.moving_table()) {
            device.clear_rows(Params::twin(table.weights, self.grads), table.seen);
        }
    }

    /// Drops the gradient.
    pub fn clear(&self, device: &mut dyn Device) {
        device.fill(self.params.flat(self.grads), 0.0);
    }

    /// Whether the coming step leaves something as it is.
    pub(crate) fn has_frozen(&self) -> bool {
        !self.frozen.is_empty() || self.table.is_some() != self.moving_table().is_some()
    }

    /// Runs of the buffers that the coming step moves, whatever it sees.
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
        let mut spans = self.spans.clone();
        spans.extend(self.moving_table().map(|table| table.span(self.adam.weight_decay, at.step)));
        device.slope(&Slope {
            direction,
            gradient,
            moments: [self.first, self.second],
            spans: &spans,
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
        if let Some(table) = self.moving_table() {
            let all = table.span(self.adam.weight_decay, self.update);
            let cols = table.weights.cols();
            let row = |&row: &u32| {
                let start = all.start + row as usize * cols;
                Span { start, end: start + cols, ..all }
            };
            spans.extend(rows.iter().map(row));
        }
        spans
    }

    /// The table's weights and the rows of it that this step sees, where it moves them.
    pub(crate) fn seen(&self) -> Option<(View, Ids)> {
        self.moving_table().map(|table| (table.weights, table.seen))
    }

    /// Drops the gradient, of which the table has rows that this step sees and no other.
    pub(crate) fn clear_seen(&self, device: &mut dyn Device) {
        let Some(table) = &self.table else { return self.clear(device) };
        for span in self.spans.iter().chain(self.to_clear()) {
            device.fill(View::matrix(self.grads, span.start, 1, span.len()), 0.0);
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
        if self.update != step + 1 {
            self.update = step + 1;
            self.lay_out();
        }
        if let Some(table) = &mut self.table {
            table.moves.clear();
            let reached = step.saturating_sub(table.treatment.since()) as u32;
            device.write_ids(table.reached, &vec![reached; table.reached.len()]);
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
            weight_decay: self.adam.weight_decay * table.treatment.decay,
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
        let span = |start, end| Span::new(start, end, 0.1);
        let left = |range| without(&span(10, 20), &range).collect::<Vec<_>>();
        assert_eq!(left(0..10), [span(10, 20)]);
        assert_eq!(left(5..12), [span(12, 20)]);
        assert_eq!(left(12..15), [span(10, 12), span(15, 20)]);
        assert_eq!(left(15..30), [span(10, 15)]);
        assert_eq!(left(10..20), []);
        assert_eq!(left(20..30), [span(10, 20)]);
    }

    /// A table of which steps see a few rows, beside two vectors: moved lazily and by whole passes,
    /// and by plain arithmetic of each parameter for itself.
    #[test]
    fn treatments_move_a_lazy_table_as_whole_passes_and_plain_arithmetic_do() {
        const ROWS: usize = 7;
        const COLS: usize = 5;
        const STEPS: u64 = 20;
        let adam = Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1 };
        let usual = Treatment::USUAL;
        let rows = [
            [usual, usual, usual],
            [Treatment { rate: 0.5, decay: 2.0, ..usual }, usual, usual],
            [Treatment { frozen_until: 6, ..usual }, usual, Treatment { rate: 3.0, ..usual }],
            [
                Treatment { frozen_until: 4, rises_from: 4, rises_over: 9, ..usual },
                Treatment { frozen_until: Treatment::NEVER, ..usual },
                Treatment { rises_over: 5, ..usual },
            ],
            [Treatment { frozen_until: Treatment::NEVER, ..usual }, usual, usual],
        ];
        let word = |step: u64, at: usize| ((step * 31 + at as u64 * 17) % 13) as f64 / 6.5 - 1.0;
        let seen = |step: u64| -> Vec<u32> {
            (0..ROWS as u32).filter(|row| (step + 2 * u64::from(*row)) % 5 < 2).collect()
        };
        let at = |step: u64| Move {
            step,
            learning_rate: 0.01 * (1 + step % 3) as f64,
            gradient_scale: 0.5,
        };
        for treatments in rows {
            let train = |device: &mut dyn Device, lazy: bool| {
                let mut builder = heirloom_engine::ParamsBuilder::new(device);
                let init = heirloom_engine::Init::Normal(1.0);
                let table = builder.add("table", &[ROWS, COLS], Role::Embedding, init);
                builder.add("matrix", &[3, 16], Role::Weight, init);
                builder.add("bias", &[4], Role::Bias, init);
                let params = builder.finish(device);
                params.init(device, 1);
                let start = device.read_f64(params.flat(params.weights()));
                let mut learned = Learned::new(device, params, adam, lazy.then_some(table))
                    .treated(treatments.to_vec());
                // Gradients are written here of what is frozen as well.
                learned.ask_all(true);
                let mut norms = Vec::new();
                for step in 1..=STEPS {
                    learned.coming(device, step);
                    learned.see(device, &seen(step));
                    for (place, param) in learned.params.clone().index().iter().enumerate() {
                        let gradient = gradient(&word, &seen, step, place, param.len());
                        let view = learned.params.view(param, learned.grads);
                        device.write_f64(view, &gradient);
                    }
                    norms.push(learned.squares(device));
                    learned.step(device, at(step));
                    if step == 9 {
                        learned.catch_up(device);
                    }
                }
                learned.catch_up(device);
                let spaces = [learned.params.weights(), learned.first, learned.second];
                assert_eq!(device.sum_of_squares(learned.params.flat(learned.grads)), 0.0);
                let flat = |space| device.read_f64(learned.params.flat(space));
                (start, spaces.map(flat), learned.params.clone(), norms)
            };
            /// The gradient of a parameter; of the table, in rows that the step sees.
            fn gradient(
                word: &impl Fn(u64, usize) -> f64,
                seen: &impl Fn(u64) -> Vec<u32>,
                step: u64,
                place: usize,
                len: usize,
            ) -> Vec<f64> {
                let seen = seen(step);
                let value = |at: usize| match place {
                    0 if !seen.contains(&((at / COLS) as u32)) => 0.0,
                    _ => word(step, at + 100 * place),
                };
                (0..len).map(value).collect()
            }
            let want = train(&mut heirloom_engine::Reference::<f64>::new(), false);
            let lazy = train(&mut heirloom_engine::Reference::<f64>::new(), true);
            assert!(want.1 == lazy.1, "{treatments:?}");
            for (want, lazy) in want.3.iter().zip(&lazy.3) {
                assert!((want - lazy).abs() <= 1e-12 * want, "norms: {want}, {lazy}");
            }
            let fast = train(&mut heirloom_engine::Cpu::new(1), false);
            let fast_lazy = train(&mut heirloom_engine::Cpu::new(2), true);
            assert!(fast.1 == fast_lazy.1, "{treatments:?}");
            // Each number for itself.
            let (start, [weights, first, second], params, _) = want;
            for (place, param) in params.index().iter().enumerate() {
                let by = treatments[place];
                let decay = if param.role.decays() { 0.1 * by.decay } else { 0.0 };
                for number in 0..param.len() {
                    let (mut w, mut m, mut v) = (start[param.offset + number], 0.0, 0.0);
                    for step in by.frozen_until.saturating_add(1)..=STEPS {
                        let own = (step - by.frozen_until) as i32;
                        let g = 0.5 * gradient(&word, &seen, step, place, param.len())[number];
                        m = 0.9 * m + 0.1 * g;
                        v = 0.99 * v + 0.01 * g * g;
                        let rate = at(step).learning_rate * by.rate_at(step);
                        let (m_hat, v_hat) =
                            (m / (1.0 - f64::powi(0.9, own)), v / (1.0 - f64::powi(0.99, own)));
                        w -= rate * (decay * w + m_hat / (v_hat.sqrt() + 1e-8));
                    }
                    for (got, want) in [
                        (weights[param.offset + number], w),
                        (first[param.offset + number], m),
                        (second[param.offset + number], v),
                    ] {
                        assert!(
                            (got - want).abs() < 1e-12,
                            "{} {number}: {got}, {want}",
                            param.name
                        );
                    }
                }
            }
        }
    }
}
