//! The step of a language model: (state, rows) → (state, record).
//!
//! In: a [`LanguageJob`] and a device. Out: one optimiser step at a time, and what it says about
//! itself. Never: a weight that is not finite, or a step whose result depends on how it was cut.

use std::collections::BTreeMap;

use heirloom_answers::KnownRows;
use heirloom_balance::At;
use heirloom_base::{Bytes, Step};
use heirloom_data::order::Order;
use heirloom_data::pack::micro_ranges;
use heirloom_data::text::{Masked, Masker, Row};
use heirloom_engine::Move;
use heirloom_models::{Loaded, Noise, Purpose, Taps};
use heirloom_objective::{Parts, TokenCounts, TokenTerm};
use heirloom_recipe::LanguagePlan;

use super::Foreseen;
use super::capacity::{LanguageCapacity, language_capacity};
use super::evaluate::{self, Examiner};
use super::job::{LanguageConfig, LanguageJob, LanguageWeights};
use super::masking::hide;
use super::network::{Network, Planned, TextPass, bytes_needed};
use super::objective::{Named, terms};
use crate::average::Averaging;
use crate::nonfinite::{bad_parameter, bad_terms, leave_out};
use crate::trainer::{clip, rule};
use crate::trains::reconsider;
use crate::{Adam, Error, Learned, NotFinite, Progress, StepRecord, TermRecord, learning_rate};

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
    pass: TextPass,
    capacity: LanguageCapacity,
    order: Order,
    /// What hides tokens of training.
    masker: Option<Masker>,
    masked: Masked,
    /// The rows of the step, and its tokens, each once where somebody looks them up.
    rows: Vec<Row>,
    words: Vec<u32>,
    /// Kept answers to the tokens of the step.
    known: KnownRows,
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
        let student = Learned::new(device, params, adam, network.looked_up());
        let averaging = Averaging::new(device, training.average, network.params());
        let capacity = language_capacity(&*job.train, training, job.plan.text.masking);
        let purpose = &purpose(&job.plan);
        let known = known_width(&job);
        let planned = Planned { capacity, purpose, teacher: teacher.as_ref(), known };
        let pass = TextPass::new(device, &network, planned);
        let examiner = job
            .validation
            .as_ref()
            .map(|rows| Examiner::new(device, &network, &**rows, job.plan.text.masking));
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
            capacity,
            order,
            masker: job.masker.as_ref().map(|masker| masker.with_seed(job.plan.training.seed)),
            masked: Masked::default(),
            rows: Vec::new(),
            known: KnownRows::default(),
            words: Vec::new(),
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
        let cursor = self.progress.cursor;
        let step_rule = rule(self.job.plan.training.batch);
        let (chosen, after) = self.order.next_step(&self.job.train, cursor, step_rule);
        self.recall(&chosen)?;
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
        Ok(StepRecord {
            kind: "step".to_owned(),
            step: after.step,
            epoch: cursor.epoch,
            loss,
            terms: records(&named, &parts),
            balance: None,
            gradient_norm: norm,
            learning_rate,
            sequences,
            tokens,
            micro_batches: cuts,
            skipped: !finite,
        })
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
        let named = terms(&self.job.plan, at, silent, self.network.vocabulary());
        let plain: Vec<TokenTerm> = named.iter().map(|(_, term)| *term).collect();
        self.pass.set_terms(&plain);
        self.read(chosen);
        let learnt = self.rows[..chosen.len()].iter().map(|row| row.learnt() as u64).sum();
        let counts = TokenCounts { labelled: learnt, taught: learnt };
        self.see(chosen.len());
        let taught = named.iter().any(|(name, _)| *name == "teacher");
        let teacher = self.teacher.as_ref().filter(|_| taught).map(|(network, _)| network);
        let noise = Some(Noise { seed, step });
        let ranges = micro_ranges(&self.job.train, chosen, micro).into_iter();
        let ranges: Vec<_> =
            ranges.flat_map(|range| self.capacity.fitting(&self.rows, range)).collect();
        let (mut parts, mut place) = (Parts::default(), 0);
        for range in &ranges {
            let rows = &self.rows[range.clone()];
            let tokens = rows.iter().map(|row| row.ids.len()).sum::<usize>();
            let places = place..place + tokens;
            place = places.end;
            if rows.iter().all(|row| row.learnt() == 0) {
                continue;
            }
            self.pass.host.refill(rows, range.start, self.network.masked());
            if taught && self.job.kept.is_some() {
                self.pass.recall(&mut *self.device, &self.known, places);
            }
            let (device, to) = (&mut *self.device, (Some(self.student.grads), noise));
            parts.add(&self.pass.run(device, &self.network, teacher, counts, to));
        }
        (named, parts, ranges.len() as u64)
    }

    /// Reads what was kept of the teacher's answers to the rows of the step.
    fn recall(&mut self, chosen: &[u32]) -> Result<(), Error> {
        let Some(kept) = &self.job.kept else { return Ok(()) };
        self.known.clear();
        for &row in chosen {
            kept.read_known(row as usize, 0..kept.length(row as usize), &mut self.known)?;
        }
        Ok(())
    }

    /// Reads the rows of the step.
    fn read(&mut self, chosen: &[u32]) {
        self.rows.resize_with(self.rows.len().max(chosen.len()), Row::default);
        let step = self.progress.cursor.step;
        for ((row, &at), ordinal) in self.rows.iter_mut().zip(chosen).zip(0..) {
            self.job.train.read(at as usize, row);
            if let Some(masker) = &self.masker {
                hide(masker, step, ordinal, row, &mut self.masked);
            }
        }
    }

    /// Tells the optimiser which tokens this step looks up.
    fn see(&mut self, count: usize) {
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

/// Tokens of a kept answer, where some are heard.
fn known_width(job: &LanguageJob) -> usize {
    let kept = job.kept.as_ref().filter(|_| asks_teacher(&job.plan));
    kept.map_or(0, |kept| kept.about().width())
}

/// The memory of a language model's run besides weights, gradients and moments: of a step, of a step
/// with `activation_checkpointing`, and of evaluations.
pub fn language_memory(job: &LanguageJob) -> [Bytes; 3] {
    let (rows, plan) = (&*job.train, &job.plan);
    let capacity = language_capacity(rows, &plan.training, plan.text.masking);
    let teacher = job.teacher.as_ref().filter(|_| asks_teacher(&job.plan));
    let teacher: Option<&LanguageConfig> = teacher.map(|teacher| &teacher.config);
    let known = known_width(job);
    let step = |purpose: &Purpose| bytes_needed(&job.student, teacher, known, capacity, purpose);
    let evaluation = job.validation.as_ref().map_or(Bytes(0), |rows| {
        let masking = job.plan.text.masking;
        let ours = evaluate::memory(&job.student, &**rows, masking);
        let theirs = teacher.filter(|_| job.plan.objective.until_overtaken);
        Bytes(ours.0 + theirs.map_or(0, |config| evaluate::memory(config, &**rows, masking).0))
    });
    [step(&purpose(&job.plan)), step(&Purpose::Recompute(Taps::default())), evaluation]
}
