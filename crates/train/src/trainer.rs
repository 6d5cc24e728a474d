//! The step: (state, batch) → (state, record).
//!
//! In: a [`Job`] and a device. Out: one optimiser step at a time, and what it says about itself.
//! Never: a weight that is not finite, or a step whose result depends on how it was cut.

use std::collections::BTreeMap;

use heirloom_base::Step;
use heirloom_data::label::Label;
use heirloom_data::order::{BatchRule, Cursor, Order};
use heirloom_data::pack::{Batch, micro_ranges};
use heirloom_engine::{AdamW, Device, IGNORED, IdSpace, Ids, Params, Space, Span, View};
use heirloom_models::{Buffers, Capacity, DeviceBatch, Head, Loaded, Model, Noise, Purpose, Taps};
use heirloom_objective::{Counts, Labels, Objective, Parts, Signals, TeacherSignals};
use heirloom_recipe::{EarlyStopping, Evaluate, OnNonfinite, Plan, Save, TaskKind};
use heirloom_store::{Disk, TensorFolder};

use crate::predict::{Predictor, inputs};
use crate::teacher::{LiveTeacher, runs_live};
use crate::{
    Best, Error, Job, NotFinite, Progress, StepRecord, StudentWeights, TeacherAnswers, TermRecord,
    answer_all, learning_rate, run_capacity, terms,
};

/// Tokens that an evaluation reads at once.
pub const EVALUATION_TOKENS: usize = 4096;

/// A flat buffer with its gradient and moments, and what an optimiser does to it.
#[derive(Debug)]
pub(crate) struct Learned {
    pub(crate) params: Params,
    pub(crate) grads: Space,
    pub(crate) first: Space,
    pub(crate) second: Space,
    spans: Vec<Span>,
}

impl Learned {
    fn new(device: &mut dyn Device, params: Params, weight_decay: f64) -> Self {
        let [grads, first, second] = [(); 3].map(|()| device.alloc(params.len()));
        let spans = params.spans(weight_decay);
        Self { params, grads, first, second, spans }
    }

    fn squares(&self, device: &dyn Device) -> f64 {
        device.sum_of_squares(self.params.flat(self.grads))
    }
}

/// Labels of a micro-batch, on the device.
#[derive(Debug)]
struct LabelRoom {
    classes: IdSpace,
    numbers: View,
    /// The same on their way there; room kept from step to step.
    host_classes: Vec<u32>,
    host_numbers: Vec<f32>,
}

/// A run in memory.
pub struct Trainer {
    device: crate::Device,
    job: Job,
    order: Order,
    model: Model,
    pub(crate) student: Learned,
    /// Learned projections of the objective.
    pub(crate) projections: Learned,
    objective: Objective,
    buffers: Buffers,
    batch: DeviceBatch,
    host: Batch,
    labels: LabelRoom,
    teacher: TeacherAnswers,
    teacher_logits: View,
    /// A cached teacher's answers on their way there; room kept from step to step.
    host_logits: Vec<f32>,
    evaluator: Option<Predictor>,
    progress: Progress,
    loaded: Loaded,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// The head that a plan's task asks for.
pub fn head_of(plan: &Plan) -> Head {
    match plan.data.kind {
        TaskKind::Classification => Head::SingleLabel { labels: plan.labels().len() },
        TaskKind::MultiLabel => Head::MultiLabel { labels: plan.labels().len() },
        TaskKind::Regression => Head::Regression,
    }
}

/// What a plan keeps of the student's forward pass.
pub fn student_purpose(plan: &Plan, taps: Taps) -> Purpose {
    if plan.training.activation_checkpointing {
        Purpose::Recompute(taps)
    } else {
        Purpose::Train(taps)
    }
}

/// The rule of the data crate for an amount in a plan.
fn rule(batch: heirloom_recipe::Batch) -> BatchRule {
    match batch {
        heirloom_recipe::Batch::Sequences(sequences) => BatchRule::Sequences(sequences as usize),
        heirloom_recipe::Batch::Tokens(tokens) => BatchRule::Tokens(tokens as usize),
    }
}

impl Trainer {
    /// Plans all memory, loads or draws the weights, and asks the teacher where its answers are
    /// kept. `new_device` is called once, and once more where a teacher answers beforehand.
    pub fn new(
        job: Job,
        disk: &dyn Disk,
        new_device: &mut dyn FnMut() -> crate::Device,
    ) -> Result<Self, Error> {
        let plan = &job.plan;
        let head = head_of(plan);
        let live = runs_live(plan);
        let mut teacher = match &job.teacher {
            Some(teacher) if !live => {
                let (train, dir) = (&job.train, &job.cache_dir);
                let cache = answer_all(plan, teacher, head, train, dir, disk, new_device)?;
                TeacherAnswers::Cached(cache)
            }
            _ => TeacherAnswers::Nobody,
        };
        let mut boxed = new_device();
        let device = &mut *boxed;
        let capacity = Self::capacity(&job);
        let model = Model::new(device, job.student_config.clone(), head);
        let loaded = load_student(device, &job, &model)?;
        let decay = plan.training.weight_decay;
        let student = Learned::new(device, model.params().clone(), decay);
        let (terms, projected) = terms(&plan.objective);
        let taps = Objective::taps(&terms);
        let inside = Objective::looks_inside(&terms);
        let teacher_config = job.teacher.as_ref().map(|teacher| &teacher.config);
        let config = model.config();
        let objective = Objective::new(device, terms, &projected, config, teacher_config, capacity);
        // A seed of their own, so that projections do not repeat the first weights' words.
        objective.params().init(device, plan.training.seed.wrapping_add(1));
        let projections = Learned::new(device, objective.params().clone(), decay);
        let purpose = student_purpose(plan, taps);
        let buffers = model.buffers(device, capacity, &purpose);
        let batch = model.batch(device, capacity);
        let width = head.width(config);
        let [numbers, logits] = [(); 2].map(|()| {
            let space = device.alloc(capacity.sequences * width);
            View::matrix(space, 0, capacity.sequences, width)
        });
        let labels = LabelRoom {
            classes: device.alloc_ids(capacity.sequences),
            numbers,
            host_classes: Vec::new(),
            host_numbers: Vec::new(),
        };
        if let (Some(job), true) = (&job.teacher, live) {
            let live = LiveTeacher::new(device, job, head, capacity, inside)?;
            teacher = TeacherAnswers::Live(Box::new(live));
        }
        let evaluator = job.validation.as_ref().map(|validation| {
            Predictor::for_dataset(device, &model, EVALUATION_TOKENS, validation)
        });
        let order = Order::new(plan.training.seed, job.train.len());
        Ok(Self {
            device: boxed,
            order,
            model,
            student,
            projections,
            objective,
            buffers,
            batch,
            host: Batch::default(),
            labels,
            teacher,
            teacher_logits: logits,
            host_logits: Vec::new(),
            evaluator,
            progress: Progress::default(),
            loaded,
            job,
        })
    }

    /// The largest micro-batch of a job's steps.
    pub fn capacity(job: &Job) -> Capacity {
        let training = &job.plan.training;
        let (step, micro) = (rule(training.batch), rule(training.micro_batch));
        run_capacity(&job.train, training.seed, training.total_steps, step, micro)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.job.plan
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The student.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The student's weights under their public names: name, shape, numbers.
    pub fn weights(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        self.model.tensors(&*self.device)
    }

    /// What loading the student's weights left as it was.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Bytes that the run's device holds.
    pub fn bytes(&self) -> u64 {
        self.device.bytes()
    }

    /// Where the run is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    pub(crate) fn device(&self) -> &dyn Device {
        &*self.device
    }

    pub(crate) fn device_mut(&mut self) -> &mut dyn Device {
        &mut *self.device
    }

    /// Takes one optimiser step.
    ///
    /// # Errors
    /// [`Error::Diverged`] where loss or gradient is not finite and the plan says stop; the weights
    /// are then those before the step.
    pub fn step(&mut self) -> Result<StepRecord, Error> {
        let training = &self.job.plan.training;
        let cursor = self.progress.cursor;
        let step_rule = rule(training.batch);
        let (examples, after) = self.order.next_step(&self.job.train, cursor, step_rule);
        let ranges = micro_ranges(&self.job.train, &examples, rule(training.micro_batch));
        let counts = self.counts(&examples);
        let mut parts = Parts::default();
        for range in &ranges {
            self.host.refill(&self.job.train, &examples[range.clone()], range.start);
            parts.add(&self.micro_batch(counts, cursor.step));
        }
        let loss = self.objective.total(&parts);
        let squares = self.student.squares(&*self.device) + self.projections.squares(&*self.device);
        let norm = squares.sqrt();
        let finite = loss.is_finite() && norm.is_finite();
        let learning_rate = learning_rate(&self.job.plan.training, Step(cursor.step));
        if finite {
            self.progress.updates += 1;
            self.move_weights(learning_rate, norm);
        } else {
            self.leave_out(cursor, &parts, examples)?;
        }
        self.progress.cursor = after;
        self.reconsider();
        Ok(StepRecord {
            kind: "step".to_owned(),
            step: after.step,
            epoch: cursor.epoch,
            loss,
            terms: self.term_records(&parts),
            gradient_norm: norm,
            learning_rate,
            sequences: counts.sequences,
            tokens: counts.tokens,
            micro_batches: ranges.len() as u64,
            skipped: !finite,
        })
    }

    /// What a whole step holds, known before any of it is computed.
    fn counts(&self, examples: &[u32]) -> Counts {
        let mut counts = Counts { sequences: examples.len() as u64, ..Counts::default() };
        for &example in examples {
            let example = self.job.train.example(example as usize);
            counts.tokens += example.ids.len() as u64;
            counts.labelled += u64::from(*example.label != Label::None);
        }
        counts
    }

    /// Adds the gradient of the micro-batch in `self.host`.
    fn micro_batch(&mut self, counts: Counts, step: u64) -> Parts {
        let device = &mut *self.device;
        let noise = Some(Noise { seed: self.job.plan.training.seed, step });
        self.batch.upload(device, &inputs(&self.host));
        let (labels, labelled) = self.labels.upload(device, self.model.head(), &self.host);
        let teacher = match &mut self.teacher {
            TeacherAnswers::Nobody => None,
            TeacherAnswers::Cached(cache) => {
                let logits = self.teacher_logits.first_rows(self.host.sequences());
                let rows = self.host.examples.iter().flat_map(|&at| cache.row(at as usize));
                self.host_logits.clear();
                self.host_logits.extend(rows);
                device.write(logits, &self.host_logits);
                Some(TeacherSignals { logits, inside: None })
            }
            TeacherAnswers::Live(live) => {
                let logits = live.answer(device, &self.host);
                Some(TeacherSignals { logits, inside: Some(live.inside()) })
            }
        };
        let output = self.model.forward(device, &self.batch, &self.buffers, noise);
        let d_output = self.model.d_output(&self.buffers, output.rows());
        device.fill(d_output, 0.0);
        self.buffers.clear_taps(device, self.batch.tokens());
        let signals = Signals {
            output,
            d_output: Some(d_output),
            labels,
            labelled,
            teacher,
            inside: &self.buffers,
            batch: &self.batch,
        };
        let parts = self.objective.evaluate(device, &signals, counts, Some(self.projections.grads));
        self.model.backward(device, &self.batch, &self.buffers, self.student.grads, noise);
        parts
    }

    fn move_weights(&mut self, learning_rate: f64, norm: f64) {
        let training = &self.job.plan.training;
        let largest = training.max_grad_norm;
        // As `torch.nn.utils.clip_grad_norm_`, whose 1e-6 keeps the quotient below one.
        let clip = if largest > 0.0 { (largest / (norm + 1e-6)).min(1.0) } else { 1.0 };
        for learned in [&self.student, &self.projections] {
            self.device.adamw(&AdamW {
                spaces: [learned.params.weights(), learned.grads, learned.first, learned.second],
                spans: &learned.spans,
                learning_rate,
                beta1: training.adam_beta1,
                beta2: training.adam_beta2,
                epsilon: training.adam_epsilon,
                step: self.progress.updates,
                gradient_scale: clip,
            });
        }
    }

    /// Drops the gradient of a step that is not finite, or says why the run must stop.
    fn leave_out(
        &mut self,
        cursor: Cursor,
        parts: &Parts,
        examples: Vec<u32>,
    ) -> Result<(), Error> {
        let not_finite = self.explain(cursor, parts, examples);
        for learned in [&self.student, &self.projections] {
            self.device.fill(learned.params.flat(learned.grads), 0.0);
        }
        let training = &self.job.plan.training;
        match training.on_nonfinite {
            OnNonfinite::Stop => Err(Error::Diverged(not_finite)),
            OnNonfinite::Skip if self.progress.skipped >= training.nonfinite_limit => {
                Err(Error::TooManySkipped(not_finite, self.progress.skipped))
            }
            OnNonfinite::Skip => {
                self.progress.skipped += 1;
                Ok(())
            }
        }
    }

    fn explain(&self, cursor: Cursor, parts: &Parts, examples: Vec<u32>) -> NotFinite {
        let bad = |(term, nats): (&heirloom_objective::Term, &heirloom_base::Nats)| {
            (!nats.sum_of_parts().is_finite()).then(|| format!("term `{}`", term.name))
        };
        let terms = self.objective.terms().iter().zip(parts.terms()).filter_map(bad).collect();
        let parameter = [&self.student, &self.projections].into_iter().find_map(|learned| {
            let finite = |param: &&heirloom_engine::Param| {
                !self.device.sum_of_squares(learned.params.view(param, learned.grads)).is_finite()
            };
            learned.params.index().iter().find(finite).map(|param| param.name.clone())
        });
        NotFinite { step: Step(cursor.step + 1), terms, parameter, examples }
    }

    fn term_records(&self, parts: &Parts) -> BTreeMap<String, TermRecord> {
        let record = |(term, nats): (&heirloom_objective::Term, &heirloom_base::Nats)| {
            let mean = nats.mean().filter(|mean| mean.is_finite());
            (term.name.clone(), TermRecord { mean, count: nats.count() })
        };
        self.objective.terms().iter().zip(parts.terms()).map(record).collect()
    }

    /// The student's outputs for the validation set, `[examples, width]`; `None` where the plan
    /// never evaluates.
    pub fn outputs(&mut self) -> Option<Vec<f32>> {
        let validation = self.job.validation.as_ref()?;
        let evaluator = self.evaluator.as_mut()?;
        Some(evaluator.outputs(&mut *self.device, &self.model, validation))
    }

    /// Whether the plan evaluates after the step just taken.
    pub fn evaluates_now(&self) -> bool {
        if self.job.validation.is_none() {
            return false;
        }
        let cursor = self.progress.cursor;
        match self.job.plan.training.evaluate {
            Evaluate::Never => false,
            Evaluate::AtEnd => self.progress.finished,
            Evaluate::EveryEpoch => cursor.position == 0 || self.progress.finished,
            Evaluate::EverySteps(every) => {
                cursor.step.is_multiple_of(every) || self.progress.finished
            }
        }
    }

    /// Whether the plan saves after the step just taken.
    pub fn saves_now(&self, evaluated: bool) -> bool {
        self.progress.finished
            || match self.job.plan.training.save {
                Save::WithEvaluation => evaluated,
                Save::EverySteps(every) => self.progress.cursor.step.is_multiple_of(every),
            }
    }

    /// Takes note of an evaluation; says whether it is the best so far. A score that has no value
    /// is never the best.
    pub fn judged(&mut self, score: Option<f64>, higher_is_better: bool) -> bool {
        let progress = &mut self.progress;
        let better = match (score, progress.best) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(score), Some(best)) if higher_is_better => score > best.score,
            (Some(score), Some(best)) => score < best.score,
        };
        if let (true, Some(score)) = (better, score) {
            progress.best = Some(Best { step: progress.step(), score });
            progress.since_best = 0;
        } else {
            progress.since_best += 1;
        }
        self.reconsider();
        better
    }

    /// Decides anew whether the run has ended: by its length, or early.
    pub(crate) fn reconsider(&mut self) {
        let (training, progress) = (&self.job.plan.training, &mut self.progress);
        let early = match training.early_stopping {
            EarlyStopping::Never => false,
            EarlyStopping::After(patience) => progress.since_best >= patience,
        };
        progress.finished = early || progress.cursor.step >= training.total_steps;
    }
}

/// Fills the student's weights.
fn load_student(device: &mut dyn Device, job: &Job, model: &Model) -> Result<Loaded, Error> {
    let seed = job.plan.training.seed;
    match &job.student_weights {
        StudentWeights::Fresh => {
            model.init(device, seed);
            Ok(Loaded::default())
        }
        StudentWeights::Folder { path, layers } => {
            let folder = TensorFolder::open(path)?;
            let map = heirloom_growth::LayerMap::of(layers);
            Ok(model.load(device, &folder, &|name| map.source_name(name), Some(seed))?)
        }
    }
}

impl LabelRoom {
    /// Copies the labels in; also says how many rows have one.
    fn upload(&mut self, device: &mut dyn Device, head: Head, batch: &Batch) -> (Labels, u64) {
        let labelled = batch.labels.iter().filter(|label| **label != Label::None).count() as u64;
        let rows = batch.sequences();
        if let Head::SingleLabel { .. } = head {
            let class = |label: &Label| match label {
                Label::Class(class) => *class,
                _ => IGNORED,
            };
            let ids = Ids::at(self.classes, 0, rows);
            self.host_classes.clear();
            self.host_classes.extend(batch.labels.iter().map(class));
            device.write_ids(ids, &self.host_classes);
            return (Labels::Classes(ids), labelled);
        }
        let view = self.numbers.first_rows(rows);
        let numbers = &mut self.host_numbers;
        numbers.clear();
        for label in &batch.labels {
            match label {
                Label::Score(score) => numbers.push(*score),
                Label::Multi(marks) => numbers.extend_from_slice(marks),
                Label::None | Label::Class(_) => {
                    unreachable!("the data of this task was read with scores or label sets")
                }
            }
        }
        device.write(view, numbers);
        (Labels::Numbers(view), labelled)
    }
}
