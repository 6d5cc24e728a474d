//! The step of a language model: (state, rows) → (state, record).
//!
//! In: a [`LanguageJob`] and a device. Out: one optimiser step at a time, and what it says about
//! itself. Never: a weight that is not finite, or a step whose result depends on how it was cut.

use std::collections::{BTreeMap, BTreeSet};

use heirloom_balance::At;
use heirloom_base::{Bytes, Step};
use heirloom_data::align::UNMATCHED;
use heirloom_data::order::{Examples, Order};
use heirloom_data::pack::micro_ranges;
use heirloom_data::text::{Masked, Masker, Paired, Row};
use heirloom_engine::Move;
use heirloom_models::{Loaded, Noise, Purpose};
use heirloom_objective::{Parts, TokenCounts, TokenTerm, TokenWeights};
use heirloom_recipe::{LanguagePlan, PolicyPlan};

use super::balance::TokenBalance;
use super::capacity::{LanguageCapacity, capacity_of, language_capacity};
use super::evaluate::{self, Examiner};
use super::growing::shapes;
use super::inside::{self, Gradients, InsideTerms, StepCounts};
use super::job::{LanguageConfig, LanguageJob, LanguageTeacher, LanguageWeights, TeacherReads};
use super::masking::hide;
use super::network::Network;
use super::objective::{self, terms};
use super::other_tokens::heard_in;
use super::pass::{Planned, TextPass, bytes_needed};
use super::rows::rows_of_run;
use super::second::{self, Second};
use super::teaching::{Teaching, asked, beside};
use super::written::{self, Writer};
use crate::average::Averaging;
use crate::nonfinite::{bad_parameter, bad_terms, leave_out};
use crate::stages::Stages;
use crate::trainer::{clip, load_moments, rule};
use crate::trains::reconsider;
use crate::treatment::group_rates;
use crate::{
    Adam, Error, Learned, NotFinite, Progress, Source, StagesState, StepRecord, TermRecord,
    check_groups, learning_rate, treatments,
};

/// The run of a language model, in memory.
pub struct LanguageTrainer {
    pub(super) device: crate::Device,
    pub(super) job: LanguageJob,
    pub(super) network: Network,
    pub(super) student: Learned,
    /// Learned projections, where terms on the inside have some.
    pub(super) projections: Option<Learned>,
    pub(super) averaging: Option<Averaging>,
    pub(super) progress: Progress,
    pub(super) loaded: Loaded,
    pub(super) examiner: Option<Examiner>,
    /// The teachers at work; none where no step hears one.
    pub(super) teachers: Vec<Teaching>,
    pub(super) pass: TextPass,
    pub(super) capacity: LanguageCapacity,
    pub(super) order: Order,
    /// What hides tokens of training.
    masker: Option<Masker>,
    pub(super) masked: Masked,
    /// The rows of the step, and its tokens, each once where somebody looks them up.
    pub(super) rows: Vec<Row>,
    pub(super) words: Vec<u32>,
    /// How many of the rows are the step's.
    pub(super) held: usize,
    /// The same rows of both models, where the teacher reads its own tokens.
    pairs: Vec<Paired>,
    /// The student's own batches, and what it wrote last.
    pub(super) writer: Option<Writer>,
    /// The other rows that a policy learns from.
    pub(super) second: Option<Second>,
    written: Vec<Row>,
    pub(super) stages: Stages<LanguageConfig>,
}

impl std::fmt::Debug for LanguageTrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LanguageTrainer").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl LanguageTrainer {
    /// Plans all memory, and loads or draws the weights. `new_device` is called once.
    ///
    /// # Errors
    /// Where weights cannot be read or are not those of the configs.
    pub fn new(
        job: LanguageJob,
        new_device: &mut dyn FnMut(crate::Work) -> crate::Device,
    ) -> Result<Self, Error> {
        Self::at_stage(job, StagesState::default(), new_device)
    }

    /// The same for a run whose student has grown as `state` says; the weights of one that has are
    /// zero, to be restored. `job` has the student's config as it was at first.
    ///
    /// # Errors
    /// As [`LanguageTrainer::new`], and where a stage or a group of the plan cannot be.
    pub fn at_stage(
        mut job: LanguageJob,
        state: StagesState,
        new_device: &mut dyn FnMut(crate::Work) -> crate::Device,
    ) -> Result<Self, Error> {
        job.own.check_language(&job.plan)?;
        let stages = Stages::new(&job.plan.training, &job.student, state)?;
        check_names(&job, &stages)?;
        for kept in job.teachers.iter().filter_map(LanguageTeacher::kept) {
            kept.check_rows(&rows_of_run(&*job.train, &job.plan.training))?;
        }
        job.student = stages.config().clone();
        if stages.state.grown > 0 {
            job.weights = LanguageWeights::Later;
        }
        let training = &job.plan.training;
        let mut boxed = new_device(crate::Work::Training);
        let device = &mut *boxed;
        let network = Network::new(device, &job.student);
        let loaded = network.fill(device, &job.weights, training.seed, Some(training.seed))?;
        let teachers: Vec<Teaching> = asked(&job)
            .iter()
            .map(|teacher| Teaching::new(device, teacher))
            .collect::<Result<_, Error>>()?;
        let adam = Adam {
            beta1: training.adam_beta1,
            beta2: training.adam_beta2,
            epsilon: training.adam_epsilon,
            weight_decay: training.weight_decay,
        };
        let params = network.params().clone();
        let before = stages.treatments(&params);
        let begun = job.plan.student.moments.updates();
        let treatments = treatments(&params, before, &training.groups, begun);
        let mask = stages.mask(&params, &|config| shapes(config))?;
        let mut student =
            Learned::new(device, params, adam, network.looked_up()).treated(treatments);
        if let Some((parts, course)) = mask {
            student = student.masked(device, parts, course);
        }
        let mut progress = Progress::default();
        if begun > 0 {
            if let LanguageWeights::Folder(path) = &job.weights {
                load_moments(device, path, &student, &|name| network.lies_transposed(name))?;
            }
            progress.updates = begun;
            student.resumed(device, begun);
        }
        let averaging = Averaging::new(device, training.average, network.params());
        let capacity = capacity(&job);
        let inside = InsideTerms::of(&job.plan);
        let purpose = &purpose(&job.plan, inside.as_ref());
        let networks = teachers.iter().map(|teaching| teaching.network.as_ref());
        let beside = beside(&job, networks);
        let balance = balance(&job);
        let inside = inside.as_ref();
        let planned = Planned { capacity, purpose, teachers: &beside, inside };
        let pass = TextPass::new(device, &network, planned, balance);
        let projected = pass.inside.as_ref().filter(|inside| inside.params().count() > 0);
        let projections = projected.map(|inside| {
            // A seed of their own, so that projections do not repeat the first weights' words.
            inside.params().init(device, job.plan.training.seed.wrapping_add(1));
            Learned::new(device, inside.params().clone(), adam, None)
        });
        let examiner = job
            .validation
            .as_ref()
            .map(|rows| Examiner::new(device, &network, &**rows, job.plan.text.masking));
        let order = Order::of_rows(training.seed, &*job.train);
        let writer = match &network {
            Network::Decoder(student) => Writer::new(device, student, &job),
            Network::Encoder(_) => None,
        };
        let second = pass.balance.as_ref().and_then(|_| Second::new(device, &job));
        Ok(Self {
            device: boxed,
            network,
            student,
            projections,
            averaging,
            progress,
            loaded,
            examiner,
            teachers,
            pass,
            capacity,
            order,
            masker: job.masker.as_ref().map(|masker| masker.with_seed(job.plan.training.seed)),
            masked: Masked::default(),
            rows: Vec::new(),
            words: Vec::new(),
            held: 0,
            pairs: Vec::new(),
            writer,
            second,
            written: Vec::new(),
            stages,
            job,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &LanguagePlan {
        &self.job.plan
    }

    /// The job.
    pub fn job(&self) -> &LanguageJob {
        &self.job
    }

    /// Bytes that the run's device holds.
    pub fn bytes(&self) -> u64 {
        self.device.bytes()
    }

    /// Parameters of the student.
    pub fn parameters(&self) -> u64 {
        self.network.params().count() as u64
    }

    /// The student's weights under their public names, flat and in the order of the model.
    pub fn weights(&mut self) -> Vec<(String, Vec<f64>)> {
        self.student.catch_up(&mut *self.device);
        self.flat(self.network.params().weights())
    }

    /// The total of a step's sums.
    #[cfg(test)]
    pub(super) fn total(&self, parts: &Parts) -> f64 {
        self.pass.total(parts)
    }

    /// The gradient of a step that was begun and not moved by, likewise.
    #[cfg(test)]
    pub(super) fn gradient(&self) -> Vec<(String, Vec<f64>)> {
        self.flat(self.student.grads)
    }

    fn flat(&self, space: heirloom_engine::Space) -> Vec<(String, Vec<f64>)> {
        let params = self.network.params();
        let entry = |param: &heirloom_engine::Param| {
            (param.name.clone(), self.device.read_f64(params.view(param, space)))
        };
        params.index().iter().map(entry).collect()
    }

    pub(super) fn take_step(&mut self) -> Result<StepRecord, Error> {
        let before = self.device.operations();
        let cursor = self.progress.cursor;
        let step_rule = rule(self.job.plan.training.batch);
        let (chosen, after) = self.order.next_step(&self.job.train, cursor, step_rule);
        self.recall(&chosen)?;
        self.align(&chosen);
        let (names, parts, cuts) = self.accumulate(&chosen);
        let tokens = self.rows[..self.held].iter().map(|row| row.ids.len() as u64).sum();
        let sequences = self.held as u64;
        let loss = self.pass.total(&parts);
        let mask = self.student.mask();
        self.student.pull_back(&mut *self.device);
        let norm = self.learned().map(|learned| learned.squares(&*self.device)).sum::<f64>().sqrt();
        let learning_rate = learning_rate(&self.job.plan.training, Step(cursor.step));
        // A step in which nothing is to be foreseen has loss 0 and changes nothing.
        let finite = loss.is_finite() && norm.is_finite();
        let weighed = self.hear_of_terms(&names, &parts, finite);
        if finite {
            self.progress.updates += 1;
            let clip = clip(self.job.plan.training.max_grad_norm, norm);
            let step = self.progress.updates;
            let at = Move { step, learning_rate, gradient_scale: clip };
            for learned in std::iter::once(&mut self.student).chain(&mut self.projections) {
                learned.step(&mut *self.device, at);
            }
        } else {
            let terms = bad_terms(names.iter().map(String::as_str).zip(parts.terms()));
            let learned: Vec<&Learned> = self.learned().collect();
            let parameter = bad_parameter(&*self.device, &learned);
            self.clear_gradients();
            let step = Step(cursor.step + 1);
            let not_finite = NotFinite { step, terms, parameter, examples: chosen };
            leave_out(&self.job.plan.training, &mut self.progress, not_finite)?;
        }
        self.progress.cursor = after;
        if let Some(averaging) = &self.averaging {
            let (device, averaged) = (&mut *self.device, &mut self.progress.averaged);
            averaging.hear(device, &mut self.student, averaged, after.step, finite);
        }
        reconsider(&self.job.plan.training, &mut self.progress);
        let record = StepRecord {
            kind: "step".to_owned(),
            step: after.step,
            epoch: cursor.epoch,
            loss,
            terms: records(&names, &parts),
            balance: weighed,
            gradient_norm: norm,
            learning_rate,
            group_learning_rates: group_rates(
                &self.job.plan.training.groups,
                learning_rate,
                (self.progress.updates, self.job.plan.student.moments.updates()),
            ),
            sequences,
            tokens,
            flops: self.device.operations() - before,
            mask,
            micro_batches: cuts,
            skipped: !finite,
        };
        self.stages.hear(&record);
        if self.student.mask().is_none() {
            self.stages.state.mask = None;
        }
        Ok(record)
    }

    /// Lets the policy hear how a step's terms went, and says what it made of the tokens.
    fn hear_of_terms(
        &mut self,
        names: &[String],
        parts: &Parts,
        finite: bool,
    ) -> Option<crate::BalanceRecord> {
        let at = self.at();
        let (balance, _) = self.pass.balance.as_mut()?;
        let mean = |term: &String| {
            let place = names.iter().position(|name| name == term)?;
            parts.terms().get(place)?.mean()
        };
        let means: Vec<Option<f64>> =
            objective::names(self.teachers.len()).iter().map(mean).collect();
        let mut whole = balance.whole();
        // What was silent has no weight; where no teacher spoke nothing was weighed.
        let taught = whole.iter_mut().zip(&means).skip(1);
        taught.filter(|(_, mean)| mean.is_none()).for_each(|(weight, _)| *weight = 0.0);
        let spoke = means.iter().skip(1).any(Option::is_some);
        let whole = (!balance.weighs_tokens() && spoke).then_some(whole);
        if finite {
            let means: Vec<f64> = means.iter().map(|mean| mean.unwrap_or(0.0)).collect();
            balance.learn(&means, at);
        } else {
            balance.leave_out();
        }
        balance.record(whole)
    }

    /// Where the run is.
    pub(super) fn at(&self) -> At {
        let training = &self.job.plan.training;
        let step = self.progress.cursor.step;
        let learning_rate = learning_rate(training, Step(step));
        At { step, total: training.total_steps, learning_rate }
    }

    /// All that is learned.
    fn learned(&self) -> impl Iterator<Item = &Learned> {
        std::iter::once(&self.student).chain(&self.projections)
    }

    /// Drops the gradient.
    pub(super) fn clear_gradients(&mut self) {
        let device = &mut *self.device;
        std::iter::once(&self.student).chain(&self.projections).for_each(|of| of.clear(device));
    }

    /// Adds up the gradient of the step that consists of the rows `chosen`: the names of its terms and
    /// their sums, and into how many micro-batches it was cut.
    pub(super) fn accumulate(&mut self, chosen: &[u32]) -> (Vec<String>, Parts, u64) {
        let training = &self.job.plan.training;
        let at = self.at();
        let (step, seed) = (at.step, training.seed);
        let micro = rule(training.micro_batch);
        let count = self.teachers.len();
        let silent: Vec<bool> = (0..count).map(|at| self.progress.is_silent(at)).collect();
        let alone = silent.iter().all(|silent| *silent);
        if let Some((balance, _)) = &mut self.pass.balance {
            balance.begin(at);
        }
        let balanced = self.pass.balance.as_ref().map(|(balance, _)| balance.whole());
        let vocabulary = self.network.vocabulary();
        let mut named = terms(&self.job.plan, at, (&silent, balanced), vocabulary);
        let inside = InsideTerms::of(&self.job.plan).filter(|_| !alone);
        let judged = named.iter().any(|named| named.teacher.is_some());
        let taught = judged || inside.is_some();
        self.read(chosen, taught);
        if judged && self.writes(step) {
            // What the student wrote is not to be learnt, but judged.
            named.retain(|named| named.teacher.is_some());
        }
        let plain: Vec<(TokenTerm, usize)> =
            named.iter().map(|named| (named.term, named.teacher.unwrap_or(0))).collect();
        self.pass.set_terms(&plain);
        let rows = &self.rows[..self.held];
        let learnt: u64 = rows.iter().map(|row| row.learnt() as u64).sum();
        let tokens = TokenCounts { labelled: learnt, taught: self.heard().unwrap_or(learnt) };
        let inside_counts = inside.as_ref().map(|_| inside::counts(rows));
        let counts = StepCounts { tokens, inside: inside_counts, weighed: judged };
        self.see(self.held);
        let spoken = self.teachers.iter().zip(&silent);
        let teachers: Vec<Option<&Network>> = spoken
            .map(|(teaching, silent)| teaching.network.as_ref().filter(|_| taught && !silent))
            .collect();
        let noise = Some(Noise { seed, step });
        let all: Vec<u32> = (0..self.held as u32).collect();
        let ranges = micro_ranges(&Lengths(&self.rows), &all, micro).into_iter();
        let ranges: Vec<_> =
            ranges.flat_map(|range| self.capacity.fitting(&self.rows, range)).collect();
        let (mut parts, mut place) = (Parts::default(), 0);
        for range in &ranges {
            let rows = &self.rows[range.clone()];
            let tokens = rows.iter().map(|row| row.ids.len()).sum::<usize>();
            let places = place..place + tokens;
            place = places.end;
            if inside.is_none() && rows.iter().all(|row| row.learnt() == 0) {
                continue;
            }
            self.pass.host.refill(rows, range.start, self.network.masked());
            if let Some(other) = self.pass.other.as_mut().filter(|_| taught) {
                other.refill(self.pairs.get(range.clone()).unwrap_or_default(), range.start);
            }
            for (at, teaching) in self.teachers.iter().enumerate().filter(|_| taught) {
                teaching.recall(&mut *self.device, &mut self.pass, at, places.clone());
            }
            let projections = self.projections.as_ref().map(|learned| learned.grads);
            let to = Gradients { student: Some(self.student.gradients()), projections, noise };
            let device = &mut *self.device;
            parts.add(&self.pass.run(device, &self.network, &teachers, counts, to));
        }
        let of_tokens = named.into_iter().map(|named| named.name);
        let names = of_tokens.chain(inside.iter().flat_map(InsideTerms::names)).collect();
        (names, parts, ranges.len() as u64)
    }

    /// Reads what was kept of the teachers' answers to the rows of the step.
    pub(super) fn recall(&mut self, chosen: &[u32]) -> Result<(), Error> {
        self.teachers.iter_mut().try_for_each(|teaching| teaching.read(chosen))
    }

    /// Whether the batch of `step` is the student's own words, in place of the rows that were read.
    fn writes(&mut self, step: u64) -> bool {
        let (Some(writer), Network::Decoder(student)) = (&mut self.writer, &self.network) else {
            return false;
        };
        let rows = &self.rows[..self.held];
        match writer.source(step) {
            Source::Data => return false,
            Source::Kept => writer.read_again(step, rows, &mut self.written),
            Source::Written => {
                // It looks up any token.
                self.student.catch_up(&mut *self.device);
                writer.write(&mut *self.device, student, step, rows, &mut self.written);
            }
        }
        if self.written.is_empty() {
            return false;
        }
        std::mem::swap(&mut self.rows, &mut self.written);
        self.held = self.rows.len();
        true
    }

    /// At how many tokens of the step teachers are heard, where that is not all that are learnt.
    fn heard(&self) -> Option<u64> {
        match self.job.teachers.first()?.reads()? {
            TeacherReads::Same => None,
            TeacherReads::Mapped(map) => {
                Some(self.rows[..self.held].iter().map(|row| heard_in(row, map)).sum())
            }
            TeacherReads::Own(_) => {
                let matched = self.pairs.iter().take(self.held).flat_map(|pair| &pair.matched);
                Some(matched.filter(|&&at| at != UNMATCHED).count() as u64)
            }
        }
    }

    /// Reads the rows of the step, and the teacher's where it reads its own and is `taught` by.
    pub(super) fn read(&mut self, chosen: &[u32], taught: bool) {
        self.held = chosen.len();
        self.rows.resize_with(self.rows.len().max(chosen.len()), Row::default);
        let step = self.progress.cursor.step;
        for ((row, &at), ordinal) in self.rows.iter_mut().zip(chosen).zip(0..) {
            self.job.train.read(at as usize, row);
            if let Some(masker) = &self.masker {
                hide(masker, step, ordinal, row, &mut self.masked);
            }
        }
        let teacher = self.job.teachers.first().filter(|_| taught);
        if let Some(TeacherReads::Own(paired)) = teacher.and_then(LanguageTeacher::reads) {
            self.pairs.resize_with(self.pairs.len().max(chosen.len()), Paired::default);
            for (pair, &at) in self.pairs.iter_mut().zip(chosen) {
                paired.read_pair(at as usize, pair);
            }
        }
    }

    /// Tells the optimiser which tokens this step looks up.
    fn see(&mut self, count: usize) {
        self.student.coming(&mut *self.device, self.progress.updates + 1);
        if self.network.looked_up().is_none() {
            return;
        }
        self.words.clear();
        for row in &self.rows[..count] {
            self.words.extend_from_slice(&row.ids);
        }
        self.words.sort_unstable();
        self.words.dedup();
        self.student.see(&mut *self.device, &self.words);
    }
}

/// Rows as their lengths.
pub(super) struct Lengths<'a>(pub(super) &'a [Row]);

impl Examples for Lengths<'_> {
    fn length(&self, row: usize) -> usize {
        self.0[row].ids.len()
    }
}

/// The largest micro-batch: of the data's rows, or of rows that the student fills.
pub(super) fn capacity(job: &LanguageJob) -> LanguageCapacity {
    let training = &job.plan.training;
    match job.plan.objective.on_policy {
        None => language_capacity(&*job.train, training, job.plan.text.masking),
        Some(_) => capacity_of(
            &*job.train,
            training,
            job.plan.text.masking,
            job.plan.text.sequence_length as usize,
        ),
    }
}

fn records(names: &[String], parts: &Parts) -> BTreeMap<String, TermRecord> {
    let record = |(name, nats): (&String, &heirloom_base::Nats)| {
        let mean = nats.mean().filter(|mean| mean.is_finite());
        (name.clone(), TermRecord { mean, count: nats.count() })
    };
    names.iter().zip(parts.terms()).map(record).collect()
}

/// What a plan keeps of the student's forward pass.
fn purpose(plan: &LanguagePlan, inside: Option<&InsideTerms>) -> Purpose {
    let taps = InsideTerms::taps(inside);
    if plan.training.activation_checkpointing {
        Purpose::Recompute(taps)
    } else {
        Purpose::Train(taps)
    }
}

/// The policy that weighs label and teacher, where the plan has one and the teacher a part.
fn balance(job: &LanguageJob) -> Option<TokenBalance> {
    TokenBalance::of(&job.plan, job.student.vocab_size(), &job.own)
        .filter(|_| !asked(job).is_empty())
}

/// The memory of a language model's run besides weights, gradients and moments: of a step, of a step
/// with `activation_checkpointing`, and of evaluations.
pub fn language_memory(job: &LanguageJob) -> [Bytes; 3] {
    let capacity = capacity(job);
    let configs = || asked(job).iter().map(|teacher| teacher.model().map(|(_, config)| config));
    let beside = beside(job, configs());
    let writing = written::memory(job).0;
    let inside = InsideTerms::of(&job.plan);
    let inside = inside.as_ref();
    let step = |purpose: &Purpose| {
        let needed = bytes_needed(&job.student, (&beside, inside), capacity, purpose);
        let policy = job.plan.objective.balance.as_ref().map(|balance| &balance.policy);
        let weighed = balance(job).is_some_and(|balance| balance.weighs_tokens())
            || matches!(policy, Some(PolicyPlan::Own { .. }));
        let weights = if weighed { TokenWeights::bytes(capacity.tokens).0 } else { 0 };
        Bytes(needed.0 + writing + weights + second::memory(job).0)
    };
    let evaluation = job.validation.as_ref().map_or(Bytes(0), |rows| {
        let masking = job.plan.text.masking;
        let ours = evaluate::memory(&job.student, &**rows, masking);
        let judged = configs().flatten().filter(|_| job.plan.objective.until_overtaken);
        let theirs = judged.map(|config| evaluate::memory(config, &**rows, masking).0);
        Bytes(ours.0 + theirs.sum::<u64>())
    });
    let recomputed = Purpose::Recompute(InsideTerms::taps(inside));
    [step(&purpose(&job.plan, inside)), step(&recomputed), evaluation]
}

/// Whether the plan's groups name parameters of the student, before or after it has grown.
fn check_names(job: &LanguageJob, stages: &Stages<LanguageConfig>) -> Result<(), Error> {
    let groups = &job.plan.training.groups;
    if groups.is_empty() || stages.state.grown > 0 {
        return Ok(());
    }
    let configs = [stages.first(), stages.largest()];
    let names: BTreeSet<String> =
        configs.into_iter().flat_map(|config| shapes(config).into_keys()).collect();
    check_groups(groups, names.iter().map(String::as_str))
}
