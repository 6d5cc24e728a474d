//! How far the gradient of each loss of each sample points the way a second set's loss falls.
//!
//! In: a step's samples, and a batch of the second set. Out: `⟨v, ∇ℓ⟩` for each sample and term,
//! `v` the gradient of the second set's mean loss. Never: a weight or a gradient that is not as it
//! was before, bit for bit; a second derivative.
//!
//! Why it is enough: after the step `θ′ = θ − η Σ wᵢ∇ℓᵢ / n` from `w = 0`, the derivative of the
//! second set's loss with respect to `wᵢ` is `−(η/n)⟨v, ∇ℓᵢ⟩`, and `⟨v, ∇ℓᵢ⟩` is the slope of `ℓᵢ`
//! along `v`: two forward passes at `θ ± h v` give it for all samples and terms at once, with an
//! error of order `h²`. Differentiating through the step (Ren et al. 2018, arXiv:1803.09050; Shu et
//! al. 2019, arXiv:1902.07379) gives the same number, at the price of a second graph.

use std::ops::Range;
use std::sync::Arc;

use heirloom_balance::{LABEL, LastLayer, TEACHER, last_layer_alignments};
use heirloom_data::dataset::Dataset;
use heirloom_data::label::Label;
use heirloom_data::order::{BatchRule, Cursor, Order};
use heirloom_data::pack::{MicroRule, micro_ranges};
use heirloom_engine::{Device, Move, Params, Space, View};
use heirloom_models::Noise;
use heirloom_objective::Counts;
use heirloom_recipe::{Estimator, MetaLoss, MetaPlan, Preconditioner};

use crate::Learned;
use crate::pass::Pass;
use crate::teacher::TeacherAnswers;

/// Measures alignments with a second set.
pub(crate) struct Hypergradient {
    plan: MetaPlan,
    /// The second set; `None` takes other batches of the training set.
    data: Option<Arc<Dataset>>,
    /// The teacher's answers to it, where they were kept.
    answers: Option<TeacherAnswers>,
    order: Order,
    micro: MicroRule,
    saved: Saved,
}

/// The seed of the second set's order: other batches than the step's.
pub(crate) fn second_seed(seed: u64) -> u64 {
    seed ^ 0x9E37_79B9_7F4A_7C15
}

/// A step that is about to be taken.
pub(crate) struct Coming<'a> {
    pub(crate) train: &'a Dataset,
    pub(crate) teacher: &'a mut TeacherAnswers,
    pub(crate) examples: &'a [u32],
    pub(crate) ranges: &'a [Range<usize>],
    pub(crate) noise: Option<Noise>,
}

/// What was found of all samples of a step.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Measured {
    pub(crate) labels: Vec<Option<u32>>,
    /// `⟨v, ∇ℓ⟩`, `[R, 1 + T]`.
    pub(crate) values: Vec<f64>,
    /// Losses, `[R, 1 + T]`.
    pub(crate) losses: Vec<f64>,
    /// Logits of the student, `[R, K]`, and the teachers, `[R, T, K]`.
    pub(crate) student: Vec<f32>,
    pub(crate) teacher: Vec<f32>,
}

impl Hypergradient {
    pub(crate) fn new(
        device: &mut dyn Device,
        plan: MetaPlan,
        data: Option<Arc<Dataset>>,
        answers: Option<TeacherAnswers>,
        seed: u64,
        train: usize,
        micro: MicroRule,
    ) -> Self {
        let examples = data.as_ref().map_or(train, |data| data.len());
        let order = Order::new(second_seed(seed), examples);
        Self { plan, data, answers, order, micro, saved: Saved::new(device) }
    }

    pub(crate) fn plan(&self) -> &MetaPlan {
        &self.plan
    }

    /// The next batch of the second set, and the cursor after it.
    pub(crate) fn next(&mut self, train: &Dataset, cursor: Cursor) -> (Vec<u32>, Cursor) {
        let data = self.data.as_deref().unwrap_or(train);
        let rule = BatchRule::Sequences(self.plan.batch_size as usize);
        self.order.next_step(data, cursor, rule)
    }

    /// The words of a batch.
    pub(crate) fn words(&self, train: &Dataset, second: &[u32], words: &mut Vec<u32>) {
        let data = self.data.as_deref().unwrap_or(train);
        for &example in second {
            words.extend_from_slice(data.example(example as usize).ids);
        }
    }

    /// The alignments of a step's samples with the batch `second`; `None` where its gradient is zero
    /// or not finite. `student` has seen the words of both, and its gradient is zero. `update` is the
    /// number of the step, from 1, as the optimiser counts.
    pub(crate) fn measure(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        student: &Learned,
        coming: &mut Coming<'_>,
        second: &[u32],
        update: u64,
    ) -> Option<Measured> {
        match self.plan.estimator {
            Estimator::FiniteDifference { radius } => {
                let length = self.direction(device, pass, student, coming, second, update)?;
                let h = radius / length;
                self.saved.save(device, student);
                let [more, less] = [h, -h].map(|h| {
                    self.saved.shift(device, student, h);
                    forward(device, pass, coming)
                });
                self.saved.restore(device, student);
                student.clear_seen(device);
                // The direction of AdamW's slope points down.
                let sign = match self.plan.preconditioner {
                    Preconditioner::None => 1.0,
                    Preconditioner::Adam => -1.0,
                };
                let pairs = || more.losses.iter().zip(&less.losses);
                let values = pairs().map(|(more, less)| sign * (more - less) / (2.0 * h)).collect();
                let losses = pairs().map(|(more, less)| 0.5 * (more + less)).collect();
                let middle = more.student.iter().zip(&less.student);
                let student = middle.map(|(more, less)| 0.5 * (more + less)).collect();
                Some(Measured { values, losses, student, ..more })
            }
            Estimator::LastLayer => self.last_layer(device, pass, coming, second),
        }
        .filter(|measured| measured.values.iter().all(|value| value.is_finite()))
    }

    /// Writes the direction into the gradient; its length.
    fn direction(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        student: &Learned,
        coming: &mut Coming<'_>,
        second: &[u32],
        update: u64,
    ) -> Option<f64> {
        let data = self.data.as_deref().unwrap_or(coming.train);
        let teacher = self.answers.as_mut().unwrap_or(coming.teacher);
        let counts = counts(data, second);
        let places = places(self.plan.loss, pass.weighed());
        for range in micro_ranges(data, second, self.micro) {
            let examples = &second[range.clone()];
            let uploaded = pass.upload(device, data, examples, range.start, teacher);
            let output = pass.forward(device, None);
            let d_output = pass.clear(device, output);
            let signals = pass.signals(uploaded, output, Some(d_output), None, None);
            pass.objective.evaluate_some(device, &signals, counts, None, places.clone());
            pass.backward(device, student.grads, None);
        }
        if self.plan.preconditioner == Preconditioner::Adam {
            let at = Move { step: update, learning_rate: 1.0, gradient_scale: 1.0 };
            student.follow(device, student.grads, at);
        }
        let length = student.squares(device).sqrt();
        if length > 0.0 && length.is_finite() {
            return Some(length);
        }
        student.clear(device);
        None
    }

    fn last_layer(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        coming: &mut Coming<'_>,
        second: &[u32],
    ) -> Option<Measured> {
        let data = self.data.as_deref().unwrap_or(coming.train);
        let teacher = self.answers.as_mut().unwrap_or(coming.teacher);
        let counts = counts(data, second);
        let classes = pass.model.head().width(pass.model.config());
        let mut sum = LastLayer::new(classes);
        for range in micro_ranges(data, second, self.micro) {
            let examples = &second[range.clone()];
            let uploaded = pass.upload(device, data, examples, range.start, teacher);
            let output = pass.forward(device, None);
            let features = pass.features(device, output.rows());
            let width = features.len() / output.rows().max(1);
            for place in places(self.plan.loss, pass.weighed()) {
                let gradients = pass.logit_gradients(device, uploaded, output, place);
                let count = if place == LABEL { counts.labelled } else { counts.sequences };
                let count = count.max(1) as f64;
                let rows = gradients.chunks(classes).zip(features.chunks(width.max(1)));
                rows.for_each(|(logits, features)| sum.add(logits, features, 1.0 / count));
            }
        }
        if sum.norm() == 0.0 {
            return None;
        }
        let mut all = Measured::default();
        for range in coming.ranges {
            let examples = &coming.examples[range.clone()];
            let uploaded = pass.upload(device, coming.train, examples, range.start, coming.teacher);
            let output = pass.forward(device, coming.noise);
            let uploaded = pass.regularize(device, uploaded, output);
            let features = pass.features(device, output.rows());
            let gradients: Vec<Vec<f64>> = pass
                .weighed()
                .map(|place| pass.logit_gradients(device, uploaded, output, place))
                .collect();
            let gradients: Vec<&[f64]> = gradients.iter().map(Vec::as_slice).collect();
            all.values.extend(last_layer_alignments(&features, &gradients, &sum));
            all.add(device, pass, uploaded, output);
        }
        Some(all)
    }
}

impl Measured {
    /// Joins what is known of the micro-batch uploaded last.
    fn add(
        &mut self,
        device: &mut dyn Device,
        pass: &Pass,
        uploaded: crate::pass::Uploaded,
        output: View,
    ) {
        self.labels.extend(pass.classes());
        self.losses.extend(pass.row_losses(device, uploaded, output));
        self.student.extend(device.read(output));
        self.teacher.extend(pass.teacher_rows(device, uploaded));
    }
}

/// All samples of a step at the weights as they are.
pub(crate) fn forward(
    device: &mut dyn Device,
    pass: &mut Pass,
    coming: &mut Coming<'_>,
) -> Measured {
    let mut all = Measured::default();
    for range in coming.ranges {
        let examples = &coming.examples[range.clone()];
        let uploaded = pass.upload(device, coming.train, examples, range.start, coming.teacher);
        let output = pass.forward(device, coming.noise);
        let uploaded = pass.regularize(device, uploaded, output);
        all.add(device, pass, uploaded, output);
    }
    all
}

/// Terms that count, of those of label and teachers.
fn places(loss: MetaLoss, weighed: Range<usize>) -> Range<usize> {
    match loss {
        MetaLoss::Mix => weighed,
        MetaLoss::Hard => LABEL..TEACHER,
        MetaLoss::Soft => TEACHER..weighed.end,
    }
}

/// What some examples hold.
pub(crate) fn counts(data: &Dataset, examples: &[u32]) -> Counts {
    let mut counts = Counts { sequences: examples.len() as u64, ..Counts::default() };
    for &example in examples {
        let example = data.example(example as usize);
        counts.tokens += example.ids.len() as u64;
        counts.labelled += u64::from(*example.label != Label::None);
    }
    counts
}

/// Weights put aside while others stand in their place: all that the second set's gradient reaches.
struct Saved {
    /// What moves at every step.
    dense: Space,
    dense_len: usize,
    /// Rows of the table: weights, direction, and both together, `[R, C]`.
    rows: [Space; 3],
    rows_len: usize,
}

impl Saved {
    fn new(device: &mut dyn Device) -> Self {
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

    fn save(&mut self, device: &mut dyn Device, student: &Learned) {
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
    fn shift(&self, device: &mut dyn Device, student: &Learned, h: f64) {
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

    fn restore(&self, device: &mut dyn Device, student: &Learned) {
        for (weights, there) in self.runs(student) {
            device.copy(there, weights);
        }
        if let (Some((table, seen)), Some([weights, ..])) = (student.seen(), self.rows(student)) {
            device.set_rows(weights, table, seen);
        }
    }
}
