//! The step: (state, batch) → (state, record).
//!
//! In: a [`Job`] and a device. Out: one optimiser step at a time, and what it says about itself.
//! Never: a weight that is not finite, or a step whose result depends on how it was cut.

mod as_run;
mod growing;
mod setup;

use std::collections::BTreeMap;
use std::ops::Range;

use heirloom_balance::{At, Decision, Fixed, Samples};
use heirloom_base::Step;
use heirloom_data::order::{BatchRule, Cursor, Order};
use heirloom_data::pack::micro_ranges;
use heirloom_engine::Move;
use heirloom_models::{Capacity, Head, Loaded, Model, Noise, Purpose, Taps};
use heirloom_objective::{Counts, Objective, Parts};
use heirloom_recipe::{Plan, TaskKind, TeacherPlan};
use heirloom_store::Disk;

use crate::average::Averaging;
use crate::balancing::Balancing;
use crate::hypergradient::{
    Check, Coming, Hypergradient, Measured, Trial, counts, forward, second_seed,
};
use crate::nonfinite::{bad_parameter, bad_terms, leave_out};
use crate::pass::Pass;
use crate::predict::Predictor;
use crate::regularizing::Regularizing;
use crate::stages::Stages;
use crate::teacher::runs_live;
use crate::trains::{averaged, reconsider};
use crate::treatment::group_rates;
use crate::{
    Adam, Error, Job, Learned, NotFinite, Progress, StagesState, StepRecord, StudentWeights,
    TeacherAnswers, TeacherJob, TeacherRecord, TermRecord, learning_rate, regularizer,
    run_capacity, terms, treatments,
};
use setup::{balancing, check_names, kept_answers, live, load_student, teaching};

pub(crate) use setup::load_moments;
pub use setup::{MOMENTS, begun};

/// Tokens that an evaluation reads at once.
pub const EVALUATION_TOKENS: usize = 4096;

/// A parameter as others see it: its public name, its shape, its numbers.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// A run in memory.
pub struct Trainer {
    device: crate::Device,
    job: Job,
    order: Order,
    pass: Pass,
    pub(crate) student: Learned,
    /// Learned projections of the objective.
    pub(crate) projections: Learned,
    /// Words of the step.
    words: Vec<u32>,
    teacher: TeacherAnswers,
    pub(crate) balancing: Option<Balancing>,
    /// The second set that a regularizer learns from.
    teaching: Option<Hypergradient>,
    pub(crate) averaging: Option<Averaging>,
    evaluator: Option<Predictor>,
    progress: Progress,
    loaded: Loaded,
    pub(crate) stages: Stages<heirloom_models::EncoderConfig>,
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
pub(crate) fn rule(batch: heirloom_recipe::Batch) -> BatchRule {
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
        new_device: &mut dyn FnMut(crate::Work) -> crate::Device,
    ) -> Result<Self, Error> {
        Self::at_stage(job, StagesState::default(), disk, new_device)
    }

    /// The same for a run whose student has grown as `state` says; the weights of one that has are
    /// zero, to be restored. `job` has the student's config as it was at first.
    pub fn at_stage(
        mut job: Job,
        state: StagesState,
        disk: &dyn Disk,
        new_device: &mut dyn FnMut(crate::Work) -> crate::Device,
    ) -> Result<Self, Error> {
        job.own.check(&job.plan)?;
        let stages = Stages::new(&job.plan.training, &job.student_config, state)?;
        check_names(&job, &stages)?;
        job.student_config = stages.config().clone();
        if stages.state.grown > 0 {
            job.student_weights = StudentWeights::Later;
        }
        let plan = &job.plan;
        let head = head_of(plan);
        let mut kept = Vec::new();
        for (plan_of, job_of) in job.teachers() {
            kept.push(kept_answers(&job, plan_of, job_of, head, disk, new_device)?);
        }
        let mut boxed = new_device(crate::Work::Training);
        let device = &mut *boxed;
        let capacity = Self::capacity(&job);
        let model = Model::new(device, job.student_config.clone(), head);
        let loaded = load_student(device, &job, &model)?;
        let adam = Adam {
            beta1: plan.training.adam_beta1,
            beta2: plan.training.adam_beta2,
            epsilon: plan.training.adam_epsilon,
            weight_decay: plan.training.weight_decay,
        };
        let table = Some(model.word_embeddings());
        let before = stages.treatments(model.params());
        let groups = &plan.training.groups;
        let treatments = treatments(model.params(), before, groups, begun(plan));
        let mut student =
            Learned::new(device, model.params().clone(), adam, table).treated(treatments);
        let shapes = |config: &_| growing::shapes(config, plan);
        if let Some((parts, course)) = stages.mask(model.params(), &shapes)? {
            student = student.masked(device, parts, course);
        }
        let mut progress = Progress::default();
        if begun(plan) > 0 {
            if let StudentWeights::Folder { path, .. } = &job.student_weights {
                load_moments(device, path, &student, &|_| false)?;
            }
            progress.updates = begun(plan);
            student.resumed(device, progress.updates);
        }
        let averaging = Averaging::new(device, plan.training.average, model.params());
        let (terms, projected) = terms(&plan.objective);
        let taps = Objective::taps(&terms);
        let inside = Objective::looks_inside(&terms);
        let teacher_model = job.teacher.as_ref().and_then(TeacherJob::model);
        let teacher_config = teacher_model.map(|teacher| &teacher.config);
        let config = model.config();
        let mut objective =
            Objective::new(device, terms, &projected, config, teacher_config, capacity);
        if !job.other_teachers.is_empty() {
            objective = objective.with_a_teacher_each();
        }
        // A seed of their own, so that projections do not repeat the first weights' words.
        objective.params().init(device, plan.training.seed.wrapping_add(1));
        let projections = Learned::new(device, objective.params().clone(), adam, None);
        let (mut teachers, mut seconds) = (Vec::new(), Vec::new());
        for ((_, job_of), kept) in job.teachers().zip(kept) {
            let (train, second) = match kept {
                Some(kept) => kept,
                None => {
                    let model = job_of.model().expect("what is not kept is a model's");
                    (live(device, model, head, capacity, inside)?, None)
                }
            };
            teachers.push(train);
            // Live teachers answer a second set as they do the training set.
            seconds.extend(second);
        }
        let count = teachers.len();
        let teacher = TeacherAnswers::of(teachers);
        let mut second_answers = (!seconds.is_empty()).then(|| TeacherAnswers::of(seconds));
        let evaluator = job.validation.as_ref().map(|validation| {
            Predictor::for_dataset(device, &model, EVALUATION_TOKENS, validation)
        });
        let purpose = student_purpose(plan, taps);
        let mut pass = Pass::new(device, model, objective, capacity, &purpose, count);
        pass.regularizing = plan.objective.regularizer.as_ref().map(|plan| {
            let (counts, seed) = (job.train.class_counts(), job.plan.training.seed);
            let features = job.student_config.hidden_size;
            let own = job.own.regularizer();
            let target = own.unwrap_or_else(|| regularizer(plan, &counts, features, seed));
            Regularizing::new(device, target, capacity.sequences, job.plan.labels().len())
        });
        let order = Order::new(plan.training.seed, job.train.len());
        let teaching = teaching(device, &job, &mut second_answers);
        let balancing = balancing(device, &job, head, second_answers);
        Ok(Self {
            device: boxed,
            order,
            pass,
            student,
            projections,
            words: Vec::new(),
            teacher,
            balancing,
            teaching,
            averaging,
            evaluator,
            progress,
            loaded,
            stages,
            job,
        })
    }

    /// The largest micro-batch of a job's steps.
    pub fn capacity(job: &Job) -> Capacity {
        let training = &job.plan.training;
        let (step, micro) = (rule(training.batch), rule(training.micro_batch));
        let (seed, steps) = (training.seed, training.total_steps);
        let mut capacity = run_capacity(&job.train, seed, steps, step, micro);
        if let Some(meta) = job.plan.objective.meta() {
            let data = job.meta.as_ref().unwrap_or(&job.train);
            let batch = BatchRule::Sequences(meta.batch_size as usize);
            let second = run_capacity(data, second_seed(seed), steps, batch, micro);
            capacity.tokens = capacity.tokens.max(second.tokens);
            capacity.sequences = capacity.sequences.max(second.sequences);
        }
        capacity
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
        &self.pass.model
    }

    /// The student's weights.
    pub fn weights(&mut self) -> Vec<NamedTensor> {
        self.student.catch_up(&mut *self.device);
        self.pass.model.tensors(&*self.device)
    }

    /// The average of the weights, likewise; `None` where the plan has none, or nothing is averaged
    /// yet.
    pub fn average(&self) -> Option<Vec<NamedTensor>> {
        let space = self.averaged().and(self.averaging)?.space;
        let params = self.pass.model.params();
        let tensor = |param: &heirloom_engine::Param| {
            let numbers = self.device.read(params.view(param, space));
            (param.name.clone(), param.shape.clone(), numbers)
        };
        Some(params.index().iter().map(tensor).collect())
    }

    /// How many weights the average holds that is judged and kept in place of the weights; `None`
    /// where those themselves are.
    pub fn averaged(&self) -> Option<u64> {
        averaged(&self.progress)
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

    /// λ, the teacher's share, of each training example when it was last trained on, `[examples]`,
    /// `0.0..=1.0`; NaN where it never was. `None` without a balance policy.
    pub fn shares(&self) -> Option<&[f64]> {
        self.balancing.as_ref().map(Balancing::shares)
    }

    /// Takes one optimiser step.
    ///
    /// # Errors
    /// [`Error::Diverged`] where loss or gradient is not finite and the plan says stop; the weights
    /// are then those before the step.
    pub fn step(&mut self) -> Result<StepRecord, Error> {
        let before = self.device.operations();
        let training = &self.job.plan.training;
        let cursor = self.progress.cursor;
        let step_rule = rule(training.batch);
        let (examples, after) = self.order.next_step(&self.job.train, cursor, step_rule);
        let ranges = micro_ranges(&self.job.train, &examples, rule(training.micro_batch));
        let counts = counts(&self.job.train, &examples);
        let learning_rate = learning_rate(training, Step(cursor.step));
        let at = At { step: cursor.step, total: training.total_steps, learning_rate };
        if let Some(regularizing) = &mut self.pass.regularizing {
            regularizing.progress = at.progress();
        }
        let second = self.second(at);
        let taught = self.taught(at);
        self.see(&examples, second.as_deref().or(taught.as_deref()));
        if let Some(second) = &second {
            self.align(&examples, &ranges, second, at)?;
        }
        if let Some(second) = &taught {
            self.teach(&examples, &ranges, second, at);
        }
        let together = self.decide_together(&examples, &ranges, at);
        let mut parts = Parts::default();
        for range in &ranges {
            let examples = &examples[range.clone()];
            let decided = together.as_ref().map(|all| all.part(range.clone()));
            parts.add(&self.micro_batch(examples, range.start, counts, at, decided));
        }
        let loss = self.pass.objective.total(&parts);
        let mask = self.student.mask();
        self.student.pull_back(&mut *self.device);
        let squares = self.student.squares(&*self.device) + self.projections.squares(&*self.device);
        let norm = squares.sqrt();
        let finite = loss.is_finite() && norm.is_finite();
        if finite {
            self.progress.updates += 1;
            self.move_weights(learning_rate, norm);
        } else {
            self.leave_out(cursor, &parts, examples)?;
        }
        self.progress.cursor = after;
        if let Some(regularizing) = &mut self.pass.regularizing {
            regularizing.stepped(after.position == 0);
        }
        if let Some(averaging) = &self.averaging {
            let (device, averaged) = (&mut *self.device, &mut self.progress.averaged);
            averaging.hear(device, &mut self.student, averaged, after.step, finite);
        }
        reconsider(&self.job.plan.training, &mut self.progress);
        let balance = self.balancing.as_mut().and_then(|balancing| {
            let means = self.pass.weighed().map(|term| parts.terms()[term].mean().unwrap_or(0.0));
            if finite {
                balancing.policy.learn(&means.collect::<Vec<_>>(), at);
            } else {
                balancing.policy.leave_out();
            }
            balancing.record()
        });
        let record = StepRecord {
            kind: "step".to_owned(),
            step: after.step,
            epoch: cursor.epoch,
            loss,
            terms: self.term_records(&parts),
            balance,
            gradient_norm: norm,
            learning_rate,
            group_learning_rates: group_rates(
                &self.job.plan.training.groups,
                learning_rate,
                (self.progress.updates, begun(&self.job.plan)),
            ),
            sequences: counts.sequences,
            tokens: counts.tokens,
            flops: self.device.operations() - before,
            mask,
            micro_batches: ranges.len() as u64,
            skipped: !finite,
        };
        self.stages.hear(&record);
        if self.student.mask().is_none() {
            self.stages.state.mask = None;
        }
        Ok(record)
    }

    /// What the kept answers of the plan's teachers take to compute; those that answer at every step
    /// count there.
    pub fn teachers(&self) -> Vec<TeacherRecord> {
        let head = head_of(&self.job.plan);
        let record = |(at, (plan, teacher)): (usize, (&TeacherPlan, &TeacherJob))| {
            if runs_live(&self.job.plan, plan) {
                return None;
            }
            let teacher = teacher.model()?;
            let (train, meta) = match &teacher.own {
                Some(own) => (&own.train, &own.meta),
                None => (&self.job.train, &self.job.meta),
            };
            let sets = [Some(train), meta.as_ref()].into_iter().flatten();
            let lengths: Vec<u32> = sets
                .flat_map(|set| (0..set.len()).map(|at| set.example(at).ids.len() as u32))
                .collect();
            Some(TeacherRecord {
                kind: "teacher".to_owned(),
                teacher: at as u64,
                examples: lengths.len() as u64,
                tokens: lengths.iter().map(|&length| u64::from(length)).sum(),
                flops: teacher.config.operations(head, &lengths, 0),
            })
        };
        self.job.teachers().enumerate().filter_map(record).collect()
    }

    /// The batch of the second set that this step is measured against, if it is.
    fn second(&mut self, at: At) -> Option<Vec<u32>> {
        let balancing = self.balancing.as_mut().filter(|balancing| balancing.measures(at))?;
        let second = balancing.second.as_mut()?;
        let (examples, after) = second.next(&self.job.train, self.progress.second);
        self.progress.second = after;
        Some(examples)
    }

    /// The batch of the second set that this step's targets learn from, if they do.
    fn taught(&mut self, at: At) -> Option<Vec<u32>> {
        let teaching = self.teaching.as_mut()?;
        let plan = teaching.plan();
        let past = at.step.checked_sub(plan.warmup_steps)?;
        if !past.is_multiple_of(plan.every) {
            return None;
        }
        let (examples, after) = teaching.next(&self.job.train, self.progress.second);
        self.progress.second = after;
        Some(examples)
    }

    /// Tells the regularizer how a second set's loss moves with the step's targets.
    fn teach(&mut self, examples: &[u32], ranges: &[Range<usize>], second: &[u32], at: At) {
        let noise = self.noise(at);
        let Some(teaching) = &mut self.teaching else { return };
        let (train, teacher) = (&*self.job.train, &mut self.teacher);
        let mut coming = Coming { train, teacher, examples, ranges, noise };
        let trial = Trial {
            policy: &Fixed { alpha: 0.0 },
            at,
            update: self.progress.updates + 1,
            max_grad_norm: 0.0,
            words: &self.words,
        };
        let (device, pass) = (&mut *self.device, &mut self.pass);
        let heard = teaching.slopes(device, pass, &self.student, &mut coming, second, trial);
        if let (Some((rows, slopes)), Some(regularizing)) = (heard, &mut self.pass.regularizing) {
            regularizing.hear(&rows, &slopes);
        }
    }

    /// Tells the optimiser which words this step reads.
    fn see(&mut self, examples: &[u32], second: Option<&[u32]>) {
        self.words.clear();
        for &example in examples {
            self.words.extend_from_slice(self.job.train.example(example as usize).ids);
        }
        let hypergradient = self.balancing.as_ref().and_then(|balancing| balancing.second.as_ref());
        let hypergradient = hypergradient.or(self.teaching.as_ref());
        if let (Some(hypergradient), Some(second)) = (hypergradient, second) {
            hypergradient.words(&self.job.train, second, &mut self.words);
        }
        self.words.sort_unstable();
        self.words.dedup();
        self.student.coming(&mut *self.device, self.progress.updates + 1);
        self.student.see(&mut *self.device, &self.words);
    }

    fn noise(&self, at: At) -> Option<Noise> {
        Some(Noise { seed: self.job.plan.training.seed, step: at.step })
    }

    /// Measures how far each loss of the step would help the second set, for the policy.
    ///
    /// # Errors
    /// Where the plan checks the first measurement and it is zero, or wrong.
    fn align(
        &mut self,
        examples: &[u32],
        ranges: &[Range<usize>],
        second: &[u32],
        at: At,
    ) -> Result<(), Error> {
        let noise = self.noise(at);
        let Some(balancing) = &mut self.balancing else { return Ok(()) };
        let Some(hypergradient) = &mut balancing.second else { return Ok(()) };
        let (train, teacher) = (&*self.job.train, &mut self.teacher);
        let mut coming = Coming { train, teacher, examples, ranges, noise };
        let device = &mut *self.device;
        let trial = Trial {
            policy: &*balancing.policy,
            at,
            update: self.progress.updates + 1,
            max_grad_norm: self.job.plan.training.max_grad_norm,
            words: &self.words,
        };
        let pass = &mut self.pass;
        let measured =
            hypergradient.measure(device, pass, &self.student, &mut coming, second, trial);
        let plan = hypergradient.plan();
        let checked = plan.check && at.step == plan.warmup_steps;
        let step = Step(at.step + 1);
        match &measured {
            None if checked => return Err(Error::NoHypergradient { step }),
            Some(Measured { check: Some(Check { said, .. }), .. }) if *said == 0.0 => {
                return Err(Error::NoHypergradient { step });
            }
            Some(Measured { check: Some(check), .. }) if !check.holds() => {
                let (Check { said, found }, bound) = (*check, Check::BOUND);
                return Err(Error::WrongHypergradient { step, said, found, bound });
            }
            _ => {}
        }
        if let Some(measured) = measured {
            balancing.align(examples, self.job.plan.labels().len(), &measured, at);
        }
        Ok(())
    }

    /// The decisions of a policy that must see the whole step before it decides, where the step is
    /// cut.
    fn decide_together(
        &mut self,
        examples: &[u32],
        ranges: &[Range<usize>],
        at: At,
    ) -> Option<Decision> {
        let noise = self.noise(at);
        let balancing = self.balancing.as_mut()?;
        if !balancing.policy.needs().together || ranges.len() <= 1 {
            return None;
        }
        let (train, teacher) = (&*self.job.train, &mut self.teacher);
        let mut coming = Coming { train, teacher, examples, ranges, noise };
        let all = forward(&mut *self.device, &mut self.pass, &mut coming);
        let Measured { labels, losses, student, teacher, .. } = &all;
        let classes = self.job.plan.labels().len();
        let ids = examples;
        let samples = Samples { ids, labels, classes, student, teacher, losses, features: &[] };
        Some(balancing.decide(&samples, at))
    }

    /// Adds the gradient of a micro-batch, the first of whose examples is number `first` of the
    /// step. `decided` are its weights where they are known already.
    fn micro_batch(
        &mut self,
        examples: &[u32],
        first: usize,
        counts: Counts,
        at: At,
        decided: Option<Decision>,
    ) -> Parts {
        let noise = self.noise(at);
        let (device, pass) = (&mut *self.device, &mut self.pass);
        let uploaded = pass.upload(device, &self.job.train, examples, first, &mut self.teacher);
        let output = pass.forward(device, noise);
        let uploaded = pass.regularize_heard(device, uploaded, output);
        let balance = self.balancing.as_mut().map(|balancing| {
            let decision = decided.unwrap_or_else(|| {
                let features = if balancing.policy.needs().features {
                    pass.features(device, output.rows())
                } else {
                    Vec::new()
                };
                let samples = Samples {
                    ids: examples,
                    labels: &pass.classes(),
                    classes: output.cols(),
                    student: &device.read(output),
                    teacher: &pass.teacher_rows(device, uploaded),
                    losses: &pass.row_losses(device, uploaded, output),
                    features: &features,
                };
                balancing.decide(&samples, at)
            });
            if let (Some(scale), Some(logits)) = (decision.teacher_scale, uploaded.teacher) {
                device.scale(scale, logits);
            }
            pass.weigh(device, &decision)
        });
        let d_output = pass.clear(device, output);
        let inside = match &self.teacher {
            TeacherAnswers::Live(live) => Some(live.inside()),
            TeacherAnswers::Nobody | TeacherAnswers::Cached(_) | TeacherAnswers::Several(_) => None,
        };
        let signals = pass.signals(uploaded, output, Some(d_output), inside, balance);
        let grads = Some(self.projections.grads);
        let parts = pass.objective.evaluate(device, &signals, counts, grads);
        pass.backward(device, self.student.gradients(), noise);
        parts
    }

    fn move_weights(&mut self, learning_rate: f64, norm: f64) {
        let training = &self.job.plan.training;
        let largest = training.max_grad_norm;
        let clip = clip(largest, norm);
        let at = Move { step: self.progress.updates, learning_rate, gradient_scale: clip };
        for learned in [&mut self.student, &mut self.projections] {
            learned.step(&mut *self.device, at);
        }
    }

    /// Drops the gradient of a step that is not finite, or says why the run must stop.
    fn leave_out(
        &mut self,
        cursor: Cursor,
        parts: &Parts,
        examples: Vec<u32>,
    ) -> Result<(), Error> {
        let named = self.pass.objective.terms().iter().zip(parts.terms());
        let terms = bad_terms(named.map(|(term, nats)| (term.name.as_str(), nats)));
        let learned = [&self.student, &self.projections];
        let parameter = bad_parameter(&*self.device, &learned);
        for learned in learned {
            learned.clear(&mut *self.device);
        }
        let not_finite = NotFinite { step: Step(cursor.step + 1), terms, parameter, examples };
        leave_out(&self.job.plan.training, &mut self.progress, not_finite)
    }

    fn term_records(&self, parts: &Parts) -> BTreeMap<String, TermRecord> {
        let record = |(term, nats): (&heirloom_objective::Term, &heirloom_base::Nats)| {
            let mean = nats.mean().filter(|mean| mean.is_finite());
            (term.name.clone(), TermRecord { mean, count: nats.count() })
        };
        self.pass.objective.terms().iter().zip(parts.terms()).map(record).collect()
    }

    /// The student's outputs for the validation set, `[examples, width]`, with the average of its
    /// weights where there is one; `None` where the plan never evaluates.
    pub fn outputs(&mut self) -> Option<Vec<f32>> {
        self.student.catch_up(&mut *self.device);
        let validation = self.job.validation.as_ref()?;
        let evaluator = self.evaluator.as_mut()?;
        let model = &self.pass.model;
        let device = &mut *self.device;
        match self.averaging.filter(|_| self.progress.averaged > 0) {
            None => Some(evaluator.outputs(device, model, validation)),
            Some(averaging) => Some(averaging.in_place(device, &self.student, |device| {
                evaluator.outputs(device, model, validation)
            })),
        }
    }
}

/// Factor that shortens a gradient of length `norm` to `largest`, where that is not 0. As
/// `torch.nn.utils.clip_grad_norm_`, whose 1e-6 keeps the quotient below one.
pub(crate) fn clip(largest: f64, norm: f64) -> f64 {
    if largest > 0.0 { (largest / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests;
