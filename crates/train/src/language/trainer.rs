//! The step of a language model: (state, rows) → (state, record).
//!
//! In: a [`LanguageJob`] and a device. Out: one optimiser step at a time, and what it says about
//! itself. Never: a weight that is not finite, or a step whose result depends on how it was cut.

use std::collections::{BTreeMap, BTreeSet};

use heirloom_balance::At;
use heirloom_base::{Bytes, Step};
use heirloom_data::order::Order;
use heirloom_data::pack::micro_ranges;
use heirloom_data::text::Row;
use heirloom_engine::Move;
use heirloom_models::{Loaded, Noise, Purpose, Taps};
use heirloom_objective::{Parts, TokenCounts, TokenTerm};
use heirloom_recipe::LanguagePlan;

use super::Foreseen;
use super::evaluate::{self, Examiner};
use super::growing::shapes;
use super::job::{LanguageConfig, LanguageJob, LanguageWeights};
use super::network::{Network, Planned, TextPass, bytes_needed, language_capacity};
use super::objective::{Named, terms};
use crate::average::Averaging;
use crate::nonfinite::{bad_parameter, bad_terms, leave_out};
use crate::stages::Stages;
use crate::trainer::{clip, rule};
use crate::trains::reconsider;
use crate::{
    Adam, Error, Learned, NotFinite, Progress, StagesState, StepRecord, TermRecord, Treatment,
    check_groups, learning_rate, treatments,
};

/// The run of a language model, in memory.
pub struct LanguageTrainer {
    pub(super) device: crate::Device,
    pub(super) job: LanguageJob,
    pub(super) network: Network,
    pub(super) student: Learned,
    pub(super) averaging: Option<Averaging>,
    pub(super) progress: Progress,
    pub(super) loaded: Loaded,
    pub(super) examiner: Option<Examiner>,
    /// The teacher and how well it foresees the validation text, once that was asked.
    pub(super) teacher: Option<(Network, Option<Foreseen>)>,
    pub(super) pass: TextPass,
    pub(super) order: Order,
    /// The rows of the step, and its tokens, each once where somebody looks them up.
    pub(super) rows: Vec<Row>,
    words: Vec<u32>,
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
        let stages = Stages::new(&job.plan.training, &job.student, state)?;
        check_names(&job, &stages)?;
        job.student = stages.config().clone();
        if stages.state.grown > 0 {
            job.weights = LanguageWeights::Later;
        }
        let training = &job.plan.training;
        let mut boxed = new_device(crate::Work::Training);
        let device = &mut *boxed;
        let network = Network::new(device, &job.student);
        let loaded = network.fill(device, &job.weights, training.seed, Some(training.seed))?;
        let teacher = match job.teacher.as_ref().filter(|_| asks_teacher(&job.plan)) {
            None => None,
            Some(teacher) => {
                let network = Network::new(device, &teacher.config);
                let weights = LanguageWeights::Folder(teacher.path.clone());
                network.fill(device, &weights, 0, None)?;
                Some(network)
            }
        };
        let adam = Adam {
            beta1: training.adam_beta1,
            beta2: training.adam_beta2,
            epsilon: training.adam_epsilon,
            weight_decay: training.weight_decay,
        };
        let params = network.params().clone();
        let before = stages.treatments(&params);
        let treatments = treatments(&params, before, &training.groups, 0);
        let student = Learned::new(device, params, adam, network.looked_up()).treated(treatments);
        let averaging = Averaging::new(device, training.average, network.params());
        let capacity = language_capacity(&*job.train, training);
        let purpose = &purpose(&job.plan);
        let planned = Planned { capacity, purpose, teacher: teacher.as_ref() };
        let pass = TextPass::new(device, &network, planned);
        let examiner = job.validation.as_ref().map(|rows| Examiner::new(device, &network, &**rows));
        let order = Order::new(training.seed, job.train.len());
        Ok(Self {
            device: boxed,
            network,
            student,
            averaging,
            progress: Progress::default(),
            loaded,
            examiner,
            teacher: teacher.map(|network| (network, None)),
            pass,
            order,
            rows: Vec::new(),
            words: Vec::new(),
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
        let (named, parts, cuts) = self.accumulate(&chosen);
        let tokens = self.rows[..chosen.len()].iter().map(|row| row.ids.len() as u64).sum();
        let sequences = chosen.len() as u64;
        let loss = self.pass.total(&parts);
        let norm = self.student.squares(&*self.device).sqrt();
        let learning_rate = learning_rate(&self.job.plan.training, Step(cursor.step));
        // A step in which nothing is to be foreseen has loss 0 and changes nothing.
        let finite = loss.is_finite() && norm.is_finite();
        if finite {
            self.progress.updates += 1;
            let clip = clip(self.job.plan.training.max_grad_norm, norm);
            let step = self.progress.updates;
            let at = Move { step, learning_rate, gradient_scale: clip };
            self.student.step(&mut *self.device, at);
        } else {
            let names = named.iter().map(|(name, _)| *name);
            let terms = bad_terms(names.zip(parts.terms()));
            let parameter = bad_parameter(&*self.device, &[&self.student]);
            self.student.clear(&mut *self.device);
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
            terms: records(&named, &parts),
            balance: None,
            gradient_norm: norm,
            learning_rate,
            group_learning_rates: self.group_rates(learning_rate),
            sequences,
            tokens,
            flops: self.device.operations() - before,
            micro_batches: cuts,
            skipped: !finite,
        };
        self.stages.hear(&record);
        Ok(record)
    }

    /// The learning rate of each group of the plan in the step just taken.
    fn group_rates(&self, learning_rate: f64) -> Vec<f64> {
        let rate = |group| {
            let treatment = Treatment::USUAL.and(group, 0);
            learning_rate * treatment.rate_at(self.progress.updates)
        };
        self.job.plan.training.groups.iter().map(rate).collect()
    }

    /// Adds up the gradient of the step that consists of the rows `chosen`: its terms and their sums,
    /// and into how many micro-batches it was cut.
    pub(super) fn accumulate(&mut self, chosen: &[u32]) -> (Vec<Named>, Parts, u64) {
        let training = &self.job.plan.training;
        let step = self.progress.cursor.step;
        let (total, seed) = (training.total_steps, training.seed);
        let micro = rule(training.micro_batch);
        let at = At { step, total, learning_rate: learning_rate(training, Step(step)) };
        let silent = self.progress.overtaken.is_some();
        let named = terms(&self.job.plan.objective, at, silent, self.network.vocabulary());
        let plain: Vec<TokenTerm> = named.iter().map(|(_, term)| *term).collect();
        self.pass.set_terms(&plain);
        self.read(chosen);
        let learnt = self.rows[..chosen.len()].iter().map(|row| row.learnt() as u64).sum();
        let counts = TokenCounts { labelled: learnt, taught: learnt };
        self.see(chosen.len());
        let taught = named.iter().any(|(name, _)| *name == "teacher");
        let teacher = self.teacher.as_ref().filter(|_| taught).map(|(network, _)| network);
        let noise = Some(Noise { seed, step });
        let ranges = micro_ranges(&self.job.train, chosen, micro);
        let mut parts = Parts::default();
        for range in &ranges {
            let rows = &self.rows[range.clone()];
            if rows.iter().all(|row| row.learnt() == 0) {
                continue;
            }
            self.pass.host.refill(rows, range.start, self.network.masked());
            let (device, to) = (&mut *self.device, (Some(self.student.grads), noise));
            parts.add(&self.pass.run(device, &self.network, teacher, counts, to));
        }
        (named, parts, ranges.len() as u64)
    }

    /// Reads the rows of the step.
    pub(super) fn read(&mut self, chosen: &[u32]) {
        self.rows.resize_with(self.rows.len().max(chosen.len()), Row::default);
        for (row, &at) in self.rows.iter_mut().zip(chosen) {
            self.job.train.read(at as usize, row);
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

fn records(named: &[Named], parts: &Parts) -> BTreeMap<String, TermRecord> {
    let record = |((name, _), nats): (&Named, &heirloom_base::Nats)| {
        let mean = nats.mean().filter(|mean| mean.is_finite());
        ((*name).to_owned(), TermRecord { mean, count: nats.count() })
    };
    named.iter().zip(parts.terms()).map(record).collect()
}

/// What a plan keeps of the student's forward pass.
fn purpose(plan: &LanguagePlan) -> Purpose {
    if plan.training.activation_checkpointing {
        Purpose::Recompute(Taps::default())
    } else {
        Purpose::Train(Taps::default())
    }
}

/// Whether any step hears the teacher, or an evaluation is held against it.
fn asks_teacher(plan: &LanguagePlan) -> bool {
    !plan.objective.is_without_teacher()
}

/// The memory of a language model's run besides weights, gradients and moments: of a step, of a step
/// with `activation_checkpointing`, and of evaluations.
pub fn language_memory(job: &LanguageJob) -> [Bytes; 3] {
    let capacity = language_capacity(&*job.train, &job.plan.training);
    let teacher = job.teacher.as_ref().filter(|_| asks_teacher(&job.plan));
    let teacher: Option<&LanguageConfig> = teacher.map(|teacher| &teacher.config);
    let step = |purpose: &Purpose| bytes_needed(&job.student, teacher, capacity, purpose);
    let evaluation = job.validation.as_ref().map_or(Bytes(0), |rows| {
        let ours = evaluate::memory(&job.student, &**rows);
        let theirs = teacher.filter(|_| job.plan.objective.until_overtaken);
        Bytes(ours.0 + theirs.map_or(0, |config| evaluate::memory(config, &**rows).0))
    });
    [step(&purpose(&job.plan)), step(&Purpose::Recompute(Taps::default())), evaluation]
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
