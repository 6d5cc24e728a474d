//! How far the gradient of each loss of each sample points the way a second set's loss falls.
//!
//! In: a step's samples, and a batch of the second set. Out: `⟨v, ∇ℓ⟩` for each sample and term,
//! `v` the gradient of the second set's mean loss. Never: a weight or a gradient that is not as it
//! was before, bit for bit; a second derivative.
//!
//! Why it is enough: after the step `θ′ = θ − η Σ wᵢ∇ℓᵢ / n` from `w = 0`, the derivative of the
//! second set's loss with respect to `wᵢ` is `−(η/n)⟨v, ∇ℓᵢ⟩`, and `⟨v, ∇ℓᵢ⟩` is the slope of `ℓᵢ`
//! along `v`: two forward passes at `θ ± h v` give it for all samples and terms at once, with an
//! error of order `h²`. Where the step is not from `w = 0`, `v` belongs at θ′ and carries how far the
//! optimiser's step follows its gradient, `−∂θ′/∂g / η`; [`MetaAt::Ahead`] takes it there, one more
//! forward and backward pass of the step, with the clipping of the step's gradient held constant.
//! Differentiating through the step (Ren et al. 2018, arXiv:1803.09050; Shu et
//! al. 2019, arXiv:1902.07379) gives the same number, at the price of a second graph.

pub(crate) mod saved;

use std::ops::Range;
use std::sync::Arc;

use heirloom_balance::{
    At, Decision, LABEL, LastLayer, Policy, Samples, TEACHER, last_layer_alignments,
};
use heirloom_data::dataset::Dataset;
use heirloom_data::label::Label;
use heirloom_data::order::{BatchRule, Cursor, Order};
use heirloom_data::pack::{MicroRule, micro_ranges};
use heirloom_engine::{Ahead, Device, Grads, Move, Space, Span, Update, View};
use heirloom_models::Noise;
use heirloom_objective::Counts;
use heirloom_recipe::{Estimator, MetaAt, MetaLoss, MetaPlan, Preconditioner};
use heirloom_regularize::ln_softmax;

use crate::Learned;
use crate::full::in_full;
use crate::pass::Pass;
use crate::regularizing::Rows;
use crate::teacher::TeacherAnswers;
use crate::trainer::clip;
use saved::Saved;

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
    /// The gradient of the coming step, a twin of the weights, where the second set is asked ahead of
    /// it; empty until then, and zero between measurements.
    coming: Space,
    coming_len: usize,
}

/// What the coming step would be.
#[derive(Clone, Copy)]
pub(crate) struct Trial<'a> {
    /// Decides the weights.
    pub(crate) policy: &'a dyn Policy,
    pub(crate) at: At,
    /// The number of the step, from 1, as the optimiser counts.
    pub(crate) update: u64,
    /// Longest gradient; 0 for any.
    pub(crate) max_grad_norm: f64,
    /// Rows of the table that the step and the second set read.
    pub(crate) words: &'a [u32],
}

/// A hypergradient against finite differences of what it is the gradient of: the second set's loss
/// along it, as the weights of all samples change in its direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Check {
    /// The slope that the alignments say, `Σ A a / n`, `a` the alignments over the largest.
    pub(crate) said: f64,
    /// The slope found.
    pub(crate) found: f64,
}

impl Check {
    /// Largest relative difference between the two. In single precision, at radii that suit it, they
    /// agree to a thousandth; a wrong sign or a wrong factor is off by far more.
    pub(crate) const BOUND: f64 = 0.1;

    pub(crate) fn holds(self) -> bool {
        let size = self.said.abs().max(self.found.abs());
        (self.said - self.found).abs() <= Self::BOUND * size
    }
}

/// Where a second set's gradient is taken.
#[derive(Clone)]
struct Base {
    /// The optimiser's move from the weights as they are; `None` stays there.
    ahead: Option<Update>,
    /// What it moves.
    spans: Vec<Span>,
    /// Factor of the coming step's gradient.
    clip: f64,
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
    /// Where it was asked for.
    pub(crate) check: Option<Check>,
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
        let (saved, coming) = (Saved::new(device), device.alloc(0));
        Self { plan, data, answers, order, micro, saved, coming, coming_len: 0 }
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
    /// or not finite. `student` has seen the words of both, and its gradient is zero.
    pub(crate) fn measure(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        student: &Learned,
        coming: &mut Coming<'_>,
        second: &[u32],
        trial: Trial<'_>,
    ) -> Option<Measured> {
        match self.plan.estimator {
            Estimator::FiniteDifference { radius } => {
                let base = self.look_ahead(device, pass, student, coming, trial);
                let length = self.direction(device, pass, student, coming, second, trial, &base);
                if base.ahead.is_some() {
                    self.saved.restore(device, student);
                }
                let measured = length.map(|length| {
                    let h = radius / length;
                    self.along(device, pass, student, coming, h, base.clip)
                });
                let first = trial.at.step == self.plan.warmup_steps;
                let measured = measured.map(|measured| {
                    let check = (self.plan.check && first).then(|| {
                        self.check(device, pass, student, coming, second, trial, &base, &measured)
                    });
                    Measured { check, ..measured }
                });
                self.forget(device, student, &base);
                measured
            }
            Estimator::LastLayer => self.last_layer(device, pass, coming, second),
        }
        .filter(|measured| measured.values.iter().all(|value| value.is_finite()))
    }

    /// How the second set's loss moves with the target of each row of the coming step, `[R, K]`: after
    /// a step down the mean of `CE(qᵢ, sᵢ)`, `∂loss/∂qᵢₖ` is the step's length times
    /// `⟨v, ∇ ln sᵢₖ⟩/R` (Zheng, Awadallah & Dumais 2021, arXiv:1911.03809, differentiate through the
    /// step). The step's length is left out. `None` as in [`Hypergradient::measure`].
    pub(crate) fn slopes(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        student: &Learned,
        coming: &mut Coming<'_>,
        second: &[u32],
        trial: Trial<'_>,
    ) -> Option<(Rows, Vec<f64>)> {
        let Estimator::FiniteDifference { radius } = self.plan.estimator else {
            unreachable!("the plan gives a learnt target no other estimator")
        };
        let base = Base { ahead: None, spans: Vec::new(), clip: 1.0 };
        let length = self.direction(device, pass, student, coming, second, trial, &base)?;
        let h = radius / length;
        let [more, less] =
            self.at_both_sides(device, student, h, |device| answers(device, pass, coming));
        let count = more.labels.len();
        let classes = more.logits.len() / count.max(1);
        let factor = self.sign(1.0) / (2.0 * h * count as f64);
        let pairs = more.logits.chunks(classes).zip(less.logits.chunks(classes));
        let slopes: Vec<f64> = pairs
            .flat_map(|(more, less)| {
                let (more, less) = (ln_softmax(more, 1.0), ln_softmax(less, 1.0));
                more.into_iter()
                    .zip(less)
                    .map(|(more, less)| factor * (more - less))
                    .collect::<Vec<_>>()
            })
            .collect();
        let middle = |more: &[f64], less: &[f64]| {
            more.iter().zip(less).map(|(more, less)| 0.5 * (more + less)).collect()
        };
        let rows = Rows {
            logits: middle(&more.logits, &less.logits),
            features: middle(&more.features, &less.features),
            ..more
        };
        slopes.iter().all(|slope| slope.is_finite()).then_some((rows, slopes))
    }

    /// What `read` finds at θ + h v and θ − h v, `v` the direction in the gradient, which is cleared; the
    /// weights are then as they were.
    fn at_both_sides<T>(
        &mut self,
        device: &mut dyn Device,
        student: &Learned,
        h: f64,
        mut read: impl FnMut(&mut dyn Device) -> T,
    ) -> [T; 2] {
        self.saved.save(device, student);
        let both = [h, -h].map(|h| {
            self.saved.shift(device, student, h);
            // Rounded weights would hardly know that they were moved.
            in_full(device, &mut read)
        });
        self.saved.restore(device, student);
        student.clear_seen(device);
        both
    }

    /// Alignments by two forward passes along the direction in the gradient, which is then cleared.
    fn along(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        student: &Learned,
        coming: &mut Coming<'_>,
        h: f64,
        clip: f64,
    ) -> Measured {
        let [more, less] =
            self.at_both_sides(device, student, h, |device| forward(device, pass, coming));
        let sign = self.sign(clip);
        let pairs = || more.losses.iter().zip(&less.losses);
        let values = pairs().map(|(more, less)| sign * (more - less) / (2.0 * h)).collect();
        let losses = pairs().map(|(more, less)| 0.5 * (more + less)).collect();
        let middle = more.student.iter().zip(&less.student);
        let student = middle.map(|(more, less)| 0.5 * (more + less)).collect();
        Measured { values, losses, student, ..more }
    }

    /// What a slope along the direction is multiplied by: that of AdamW points down and has the
    /// clipping of the step in it.
    fn sign(&self, clip: f64) -> f64 {
        match self.plan.preconditioner {
            Preconditioner::None => clip,
            Preconditioner::Adam => -1.0,
        }
    }

    /// Moves the weights to where the coming step would lead, where the plan looks there; they are
    /// saved then, and the step's gradient is kept.
    fn look_ahead(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        student: &Learned,
        coming: &mut Coming<'_>,
        trial: Trial<'_>,
    ) -> Base {
        if self.plan.at == MetaAt::Here {
            return Base { ahead: None, spans: Vec::new(), clip: 1.0 };
        }
        if self.coming_len < student.params.len() {
            self.coming_len = student.params.len();
            device.resize(self.coming, self.coming_len);
        }
        self.saved.save(device, student);
        let spans = student.moved(trial.words);
        let decide = |samples: &Samples<'_>| trial.policy.decide(samples, trial.at);
        weighted_gradient(device, pass, coming, student.gradients_in(self.coming), decide);
        let squares: f64 = spans
            .iter()
            .map(|span| {
                device.sum_of_squares(View::matrix(
                    self.coming,
                    span.start,
                    1,
                    span.end - span.start,
                ))
            })
            .sum();
        let clip = clip(trial.max_grad_norm, squares.sqrt());
        let learning_rate = trial.at.learning_rate;
        let update = match self.plan.preconditioner {
            Preconditioner::None => Update::Sgd { learning_rate: learning_rate * clip },
            Preconditioner::Adam => {
                student.update(Move { step: trial.update, learning_rate, gradient_scale: clip })
            }
        };
        self.step(device, student, &spans, update);
        Base { ahead: Some(update), spans, clip }
    }

    fn step(&self, device: &mut dyn Device, student: &Learned, spans: &[Span], update: Update) {
        let spaces = [student.params.weights(), self.coming, student.first, student.second];
        device.step_ahead(&Ahead { spaces, spans, update });
    }

    /// Empties the room for the coming step's gradient.
    fn forget(&self, device: &mut dyn Device, student: &Learned, base: &Base) {
        if base.ahead.is_some() && student.has_frozen() {
            // A pass backward reaches those that are one matrix with others.
            device.fill(student.params.flat(self.coming), 0.0);
        }
        for span in &base.spans {
            device.fill(View::matrix(self.coming, span.start, 1, span.len()), 0.0);
        }
    }

    /// The slope of the second set's loss as the weights of all samples change along the alignments,
    /// by two passes of the second set.
    #[expect(clippy::too_many_arguments, reason = "as measured, and what was measured")]
    fn check(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        student: &Learned,
        coming: &mut Coming<'_>,
        second: &[u32],
        trial: Trial<'_>,
        base: &Base,
        measured: &Measured,
    ) -> Check {
        let counts = counts(coming.train, coming.examples);
        let terms = pass.weighed().len();
        let largest = measured.values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        if largest == 0.0 {
            return Check { said: 0.0, found: 0.0 };
        }
        let of = |at: usize| if at % terms == LABEL { counts.labelled } else { counts.sequences };
        let slopes = measured.values.iter().enumerate();
        let said = slopes.map(|(at, value)| value * value / largest / of(at).max(1) as f64).sum();
        // What the weights' change does to the step's gradient.
        let mut row = 0;
        let decide = |samples: &Samples<'_>| {
            let rows = row..row + samples.len();
            row = rows.end;
            let values = &measured.values[terms * rows.start..terms * rows.end];
            let weights = values.iter().map(|value| value / largest).collect();
            Decision { weights, terms, ..Decision::default() }
        };
        weighted_gradient(device, pass, coming, student.gradients(), decide);
        self.scale(device, student, trial, base);
        let length = student.squares(device).sqrt();
        let Estimator::FiniteDifference { radius } = self.plan.estimator else {
            unreachable!("the plan checks differences alone")
        };
        if length == 0.0 {
            student.clear_seen(device);
            return Check { said, found: 0.0 };
        }
        let h = radius / length;
        self.saved.save(device, student);
        let [more, less] = [h, -h].map(|h| {
            self.saved.restore(device, student);
            if let Some(update) = base.ahead {
                self.step(device, student, &base.spans, update);
            }
            self.saved.nudge(device, student, h);
            in_full(device, |device| self.second_loss(device, pass, coming, second))
        });
        self.saved.restore(device, student);
        student.clear_seen(device);
        let found = self.sign(base.clip) * (more - less) / (2.0 * h);
        Check { said, found }
    }

    /// The second set's mean loss.
    fn second_loss(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        coming: &mut Coming<'_>,
        second: &[u32],
    ) -> f64 {
        let data = self.data.as_deref().unwrap_or(coming.train);
        let teacher = self.answers.as_mut().unwrap_or(coming.teacher);
        let counts = counts(data, second);
        let terms = pass.weighed().len();
        let mut sums = vec![0.0; terms];
        for range in micro_ranges(data, second, self.micro) {
            let uploaded = pass.upload(device, data, &second[range.clone()], range.start, teacher);
            let output = pass.forward(device, None);
            let losses = pass.row_losses(device, uploaded, output);
            losses.iter().enumerate().for_each(|(at, loss)| sums[at % terms] += loss);
        }
        let mean = |place: usize| {
            let count = if place == LABEL { counts.labelled } else { counts.sequences };
            sums[place] / count.max(1) as f64
        };
        places(self.plan.loss, pass.weighed()).map(mean).sum()
    }

    /// Multiplies the direction in the gradient by how far the coming step follows its own.
    fn scale(&self, device: &mut dyn Device, student: &Learned, trial: Trial<'_>, base: &Base) {
        if self.plan.preconditioner == Preconditioner::Adam {
            let gradient = base.ahead.is_some().then_some(self.coming);
            let at = Move { step: trial.update, learning_rate: 1.0, gradient_scale: base.clip };
            student.follow(device, student.grads, gradient, at);
        }
    }

    /// Writes the direction into the gradient; its length.
    #[expect(clippy::too_many_arguments, reason = "as measured, and from where")]
    fn direction(
        &mut self,
        device: &mut dyn Device,
        pass: &mut Pass,
        student: &Learned,
        coming: &mut Coming<'_>,
        second: &[u32],
        trial: Trial<'_>,
        base: &Base,
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
            pass.backward(device, student.gradients(), None);
        }
        self.scale(device, student, trial, base);
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

/// What a regularizer sees of all samples of a step, at the weights as they are.
fn answers(device: &mut dyn Device, pass: &mut Pass, coming: &mut Coming<'_>) -> Rows {
    let mut all = Rows::default();
    for range in coming.ranges {
        let examples = &coming.examples[range.clone()];
        let uploaded = pass.upload(device, coming.train, examples, range.start, coming.teacher);
        let output = pass.forward(device, coming.noise);
        let rows = pass.rows(device, uploaded, output);
        all.labels.extend(rows.labels);
        all.logits.extend(rows.logits);
        all.teacher.extend(rows.teacher);
        all.features.extend(rows.features);
    }
    all
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

/// Adds the gradient of the coming step's loss, each sample weighed as `decide` says, to `grads`.
fn weighted_gradient(
    device: &mut dyn Device,
    pass: &mut Pass,
    coming: &mut Coming<'_>,
    grads: Grads<'_>,
    mut decide: impl FnMut(&Samples<'_>) -> Decision,
) {
    let counts = counts(coming.train, coming.examples);
    for range in coming.ranges {
        let ids = &coming.examples[range.clone()];
        let uploaded = pass.upload(device, coming.train, ids, range.start, coming.teacher);
        let output = pass.forward(device, coming.noise);
        let decision = decide(&Samples {
            ids,
            labels: &pass.classes(),
            classes: output.cols(),
            student: &device.read(output),
            teacher: &pass.teacher_rows(device, uploaded),
            losses: &pass.row_losses(device, uploaded, output),
            features: &[],
        });
        let balance = Some(pass.weigh(device, &decision));
        let d_output = pass.clear(device, output);
        let signals = pass.signals(uploaded, output, Some(d_output), None, balance);
        pass.objective.evaluate_some(device, &signals, counts, None, pass.weighed());
        pass.backward(device, grads, coming.noise);
    }
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
