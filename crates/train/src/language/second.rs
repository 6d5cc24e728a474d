//! How far each loss of each token would help other rows, for policies that learn from that.
//!
//! In: the rows of a step and rows that are read beside it. Out: `⟨v, ∇ℓ⟩` for each token that is
//! learnt and each of its two losses, `v` the gradient of the other rows' mean loss. Never: a weight or
//! a gradient that is not as it was before, bit for bit; a second derivative; a matrix of tokens by
//! vocabulary.
//!
//! As [`Hypergradient`](crate::hypergradient), of which this is the twin for tokens: two forward passes
//! of the step at `θ ± h v` have the slopes of all its losses at once. The teacher reads a micro-batch
//! once for both.

use std::ops::Range;
use std::sync::Arc;

use heirloom_base::Bytes;
use heirloom_data::order::{BatchRule, Cursor, Order};
use heirloom_data::pack::micro_ranges;
use heirloom_data::text::{Masker, Rows};
use heirloom_engine::{Device, Move, Precision, Reference};
use heirloom_models::Noise;
use heirloom_objective::{TokenCounts, TokenTerm};
use heirloom_recipe::{Estimator, MetaLoss, MetaPlan, Preconditioner};

use super::balance::Heard;
use super::inside::{Gradients, StepCounts};
use super::job::LanguageJob;
use super::masking::hide;
use super::network::Network;
use super::objective::terms;
use super::teaching::Teaching;
use super::trainer::{LanguageTrainer, Lengths};
use crate::hypergradient::saved::Saved;
use crate::hypergradient::second_seed;

/// The other rows, and room for the weights while others stand in their place.
pub(super) struct Second {
    plan: MetaPlan,
    order: Order,
    /// What hides tokens of the other rows.
    masker: Option<Masker>,
    saved: Saved,
}

/// What was found of all tokens of a step that are learnt, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Aligned {
    /// `⟨v, ∇ℓ⟩`, `[R, 2]`: the label's loss, the teacher's.
    pub(super) values: Vec<f64>,
    /// The losses, `[R, 2]`.
    pub(super) losses: Vec<f64>,
}

impl Second {
    /// `None` where the plan's policy asks for no other rows.
    pub(super) fn new(device: &mut dyn Device, job: &LanguageJob) -> Option<Self> {
        let plan = job.plan.objective.balance.as_ref()?.meta.clone()?;
        let seed = second_seed(job.plan.training.seed);
        let masker = job.masker.as_ref().map(|masker| masker.with_seed(seed));
        let order = Order::new(seed, job.train.len());
        Some(Self { plan, order, masker, saved: Saved::new(device) })
    }

    /// Whether the step after `step` others is measured.
    fn is_due(&self, step: u64) -> bool {
        let past = step.checked_sub(self.plan.warmup_steps);
        past.is_some_and(|past| past.is_multiple_of(self.plan.every))
    }

    pub(super) fn next(&mut self, train: &Arc<dyn Rows>, cursor: Cursor) -> (Vec<u32>, Cursor) {
        self.order.next_step(train, cursor, BatchRule::Sequences(self.plan.batch_size as usize))
    }

    fn radius(&self) -> f64 {
        let Estimator::FiniteDifference { radius } = self.plan.estimator else {
            unreachable!("the plan of a language model has no other estimator")
        };
        radius
    }

    /// What a slope along the direction is multiplied by: that of AdamW points down.
    fn sign(&self) -> f64 {
        match self.plan.preconditioner {
            Preconditioner::None => 1.0,
            Preconditioner::Adam => -1.0,
        }
    }
}

impl LanguageTrainer {
    /// Lets the policy hear how far each loss of each token of the step that consists of the rows
    /// `chosen` would help other rows, where it asks for that at this step and the teacher speaks.
    pub(super) fn align(&mut self, chosen: &[u32]) {
        let step = self.progress.cursor.step;
        let Some(second) = &mut self.second else { return };
        if !second.is_due(step) || self.progress.is_silent(0) {
            return;
        }
        let (others, after) = second.next(&self.job.train, self.progress.second);
        self.progress.second = after;
        let at = self.at();
        if let Some(found) = self.measure(chosen, &others)
            && let Some((balance, _)) = &mut self.pass.balance
        {
            balance.align(&found, at);
        }
    }

    /// The alignments of the step's tokens with the rows `others`; `None` where the gradient of these
    /// is zero, or something is not finite.
    pub(super) fn measure(&mut self, chosen: &[u32], others: &[u32]) -> Option<Aligned> {
        self.see_both(chosen, others);
        let length = self.direction(others)?;
        let second = self.second.as_ref().expect("it has just been asked");
        let h = second.radius() / length;
        let sign = second.sign();
        let [more, less] = self.at_both_sides(chosen, h);
        let both = more.iter().zip(&less).flat_map(|(more, less)| more.iter().zip(less));
        let (values, losses): (Vec<f64>, Vec<f64>) = both
            .map(|(more, less)| (sign * (more - less) / (2.0 * h), 0.5 * (more + less)))
            .unzip();
        let finite = values.iter().chain(&losses).all(|value| value.is_finite());
        finite.then_some(Aligned { values, losses })
    }

    /// Tells the optimiser which tokens the step and the other rows look up.
    fn see_both(&mut self, chosen: &[u32], others: &[u32]) {
        self.words.clear();
        if self.network.looked_up().is_some() {
            self.read(chosen, false);
            self.note_words();
            self.read_others(others);
            self.note_words();
        }
        self.words.sort_unstable();
        self.words.dedup();
        self.student.coming(&mut *self.device, self.progress.updates + 1);
        self.student.see(&mut *self.device, &self.words);
    }

    /// Notes the tokens of the rows that were read.
    fn note_words(&mut self) {
        self.words.extend(self.rows[..self.held].iter().flat_map(|row| &row.ids));
    }

    /// Writes the gradient of the rows' mean loss into the student's, as the optimiser would follow
    /// it where the plan says so; its length.
    pub(super) fn direction(&mut self, others: &[u32]) -> Option<f64> {
        let second = self.second.as_ref().expect("it has just been asked");
        let (loss, preconditioner) = (second.plan.loss, second.plan.preconditioner);
        self.read_others(others);
        let asks = |hears: bool| match loss {
            MetaLoss::Mix => true,
            MetaLoss::Hard => !hears,
            MetaLoss::Soft => hears,
        };
        let (counts, ranges) = self.begin_measured(asks);
        let teachers = live(&self.teachers, loss != MetaLoss::Hard);
        for range in ranges {
            let rows = &self.rows[range.clone()];
            if rows.iter().all(|row| row.learnt() == 0) {
                continue;
            }
            self.pass.host.refill(rows, range.start, self.network.masked());
            let to = Gradients { student: Some(self.student.gradients()), ..Gradients::default() };
            self.pass.run(&mut *self.device, &self.network, &teachers, counts, to);
        }
        if preconditioner == Preconditioner::Adam {
            let step = self.progress.updates + 1;
            let at = Move { step, learning_rate: 1.0, gradient_scale: 1.0 };
            self.student.follow(&mut *self.device, self.student.grads, None, at);
        }
        let length = self.student.squares(&*self.device).sqrt();
        if length > 0.0 && length.is_finite() {
            return Some(length);
        }
        self.student.clear(&mut *self.device);
        None
    }

    /// The losses of the step's tokens at `θ + h v` and `θ − h v`, `[R][2]`, `v` the direction in the
    /// gradient, which is cleared; the weights are then as they were.
    fn at_both_sides(&mut self, chosen: &[u32], h: f64) -> [Vec<[f64; 2]>; 2] {
        self.read(chosen, true);
        let (counts, ranges) = self.begin_measured(|_| true);
        let counts = StepCounts { weighed: true, ..counts };
        let (seed, step) = (self.job.plan.training.seed, self.progress.cursor.step);
        let noise = Some(Noise { seed, step });
        // Rounded weights would hardly know that they were moved.
        let rounds = self.device.set_precision(Precision::F32);
        let second = self.second.as_mut().expect("it has just been asked");
        second.saved.save(&mut *self.device, &self.student);
        let (mut found, mut place) = ([Vec::new(), Vec::new()], 0);
        for range in ranges {
            if !self.load(range, &mut place) {
                continue;
            }
            let teachers = live(&self.teachers, true);
            let device = &mut *self.device;
            let said = self.pass.ask(device, self.network.vocabulary(), &teachers);
            for (h, found) in [h, -h].into_iter().zip(&mut found) {
                let second = self.second.as_ref().expect("it has just been asked");
                second.saved.shift(device, &self.student, h);
                let to = Gradients { noise, ..Gradients::default() };
                self.pass.listen(Some(Heard::Terms));
                self.pass.run_beside(device, &self.network, &said, true, counts, to);
                found.extend(self.pass.heard());
            }
        }
        self.pass.listen(None);
        self.device.set_precision(rounds);
        let second = self.second.as_ref().expect("it has just been asked");
        second.saved.restore(&mut *self.device, &self.student);
        self.student.clear_seen(&mut *self.device);
        found
    }

    /// Puts the micro-batch of these rows where the pass looks for it, with what was kept of the teacher's
    /// answers to them, which are those from token `place` of the step on; `false` where nothing of it
    /// is learnt.
    pub(super) fn load(&mut self, range: Range<usize>, place: &mut usize) -> bool {
        let rows = &self.rows[range.clone()];
        let places = *place..*place + rows.iter().map(|row| row.ids.len()).sum::<usize>();
        *place = places.end;
        if rows.iter().all(|row| row.learnt() == 0) {
            return false;
        }
        self.pass.host.refill(rows, range.start, self.network.masked());
        for (at, teaching) in self.teachers.iter().enumerate() {
            teaching.recall(&mut *self.device, &mut self.pass, at, places.clone());
        }
        true
    }

    /// Sets those of the label's and the teacher's terms that `asks` wants, which hears whether one is
    /// a teacher's; counts and micro-batches of the rows that were read.
    pub(super) fn begin_measured(
        &mut self,
        asks: impl Fn(bool) -> bool,
    ) -> (StepCounts, Vec<Range<usize>>) {
        let both = (&[false][..], Some(vec![1.0; 2]));
        let named = terms(&self.job.plan, self.at(), both, self.network.vocabulary());
        let wanted: Vec<(TokenTerm, usize)> = named
            .iter()
            .filter(|named| asks(named.teacher.is_some()))
            .map(|named| (named.term, named.teacher.unwrap_or(0)))
            .collect();
        self.pass.set_terms(&wanted);
        let rows = &self.rows[..self.held];
        let learnt: u64 = rows.iter().map(|row| row.learnt() as u64).sum();
        let counts = StepCounts::of_tokens(TokenCounts { labelled: learnt, taught: learnt });
        let all: Vec<u32> = (0..self.held as u32).collect();
        // Other rows may be more than the step has: no more at once than there is room for.
        let room = BatchRule::Tokens(self.capacity.tokens);
        let ranges = micro_ranges(&Lengths(&self.rows), &all, room).into_iter();
        let ranges = ranges.flat_map(|range| self.capacity.fitting(&self.rows, range)).collect();
        (counts, ranges)
    }

    fn read_others(&mut self, others: &[u32]) {
        self.read(others, false);
        self.hide_others();
    }

    /// Hides tokens of the other rows, which have been read, as they are hidden beside this step.
    fn hide_others(&mut self) {
        let Some(masker) = self.second.as_ref().and_then(|second| second.masker.as_ref()) else {
            return;
        };
        let step = self.progress.cursor.step;
        for (row, ordinal) in self.rows[..self.held].iter_mut().zip(0..) {
            hide(masker, step, ordinal, row, &mut self.masked);
        }
    }
}

/// The teacher, where it is asked.
pub(super) fn live(teachers: &[Teaching], asked: bool) -> Vec<Option<&Network>> {
    teachers.iter().map(|of| of.network.as_ref().filter(|_| asked)).collect()
}

/// Memory for the weights put aside, where the plan's policy measures.
pub(super) fn memory(job: &LanguageJob) -> Bytes {
    let measures = job.plan.objective.balance.as_ref().is_some_and(|plan| plan.meta.is_some());
    if !measures {
        return Bytes(0);
    }
    let network = Network::new(&mut Reference::<f32>::new(), &job.student);
    Bytes(4 * network.params().count() as u64)
}
