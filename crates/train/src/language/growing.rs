//! A language model that grows in the middle of its run; as a task's student does.

use std::collections::BTreeSet;

use heirloom_data::order::Cursor;
use heirloom_data::pack::micro_ranges;
use heirloom_engine::Reference;
use heirloom_growth::{Tensors, clone_gap};

use super::job::{LanguageConfig, LanguageJob};
use super::network::Network;
use super::trainer::LanguageTrainer;
use crate::grows::{self, Grows, Student, copies};
use crate::lag::choose;
use crate::learning::{GradientOf, Raised, raise};
use crate::stages::Stages;
use crate::trainer::rule;
use crate::{Error, GrowthRecord, Trains, Work};

/// Tokens after which the logits of a small and a grown decoder are compared.
const COMPARED: usize = 16;

impl LanguageTrainer {
    /// See [`Trains::grow`].
    pub(super) fn grow_up(
        &mut self,
        new_device: &mut dyn FnMut(Work) -> crate::Device,
    ) -> Result<GrowthRecord, Error> {
        self.catch_up();
        let before = self.sample();
        let stages = self.stages.clone();
        let mut tries = |stages: &Stages<_>| Ok(self.raised(stages, new_device)?.0);
        let (stages, tried) = choose(&stages, &mut tries)?;
        let (mut large, raised) = self.raised(&stages, new_device)?;
        let after = large.sample();
        let count = [&*self, &large].map(|trainer| trainer.student.params.count() as u64);
        let record =
            raised.record(&stages, self.progress.cursor.step, count, [&before, &after], tried);
        *self = large;
        Ok(record)
    }

    /// The trainer of the student grown by the coming one of `stages`; this one stays as it is.
    fn raised(
        &mut self,
        stages: &Stages<LanguageConfig>,
        new_device: &mut dyn FnMut(Work) -> crate::Device,
    ) -> Result<(Self, Raised), Error> {
        let shapes = grows::shapes(&self.student.params, &turned(&self.network));
        let state = stages.after(&shapes, self.progress.updates)?;
        let job = LanguageJob { student: stages.first().clone(), ..self.job.clone() };
        let mut large = Self::at_stage(job, state, new_device)?;
        large.loaded = self.loaded.clone();
        large.resumed(self.progress.clone());
        let raised = raise(stages, &mut self.as_student(), &mut large)?;
        large.resumed(self.progress.clone());
        // What a policy has learnt is of losses, not of sizes.
        for (file, numbers) in self.notes() {
            assert!(large.take_back(file, &numbers), "the same plan has the same policy");
        }
        Ok((large, raised))
    }

    /// See [`Trains::clone_gap`].
    pub(super) fn gap(&mut self) -> Result<Option<f64>, Error> {
        let Some((plan, config)) = self.stages.last() else { return Ok(None) };
        if !copies(plan) {
            return Ok(None);
        }
        let (plan, small, old) = (plan.clone(), config.anatomy(), shapes(config));
        self.catch_up();
        let grown = self.as_student().weights();
        Ok(Some(clone_gap(&plan, &small, &old, &grown)?))
    }

    /// What the student says to the first rows of the coming step.
    fn sample(&mut self) -> Vec<f64> {
        let training = &self.job.plan.training;
        let (batch, micro) = (rule(training.batch), rule(training.micro_batch));
        let (chosen, _) = self.order.next_step(&self.job.train, self.progress.cursor, batch);
        let ranges = micro_ranges(&self.job.train, &chosen, micro);
        let Some(range) = ranges.first() else { return Vec::new() };
        self.read(&chosen, false);
        let rows = &self.rows[range.clone()];
        self.pass.host.refill(rows, range.start, self.network.masked());
        self.pass.outputs(&mut *self.device, &self.network, COMPARED)
    }
}

impl GradientOf for LanguageTrainer {
    fn as_student(&mut self) -> Student<'_> {
        Student {
            device: &mut *self.device,
            learned: &self.student,
            average: self.averaging.map(|averaging| averaging.space),
            turned: turned(&self.network),
        }
    }

    fn cursor(&self) -> Cursor {
        self.progress.cursor
    }

    fn operations(&self) -> u64 {
        self.device.operations()
    }

    fn gradient_of_step(&mut self, cursor: Cursor) -> Result<(f64, u64, Cursor), Error> {
        let batch = rule(self.job.plan.training.batch);
        let (chosen, after) = self.order.next_step(&self.job.train, cursor, batch);
        self.recall(&chosen)?;
        let kept = std::mem::replace(&mut self.progress.cursor, cursor);
        // A learnt map makes the numbers of what is frozen afterwards as well.
        self.student.ask_all(true);
        let (_, parts, _) = self.accumulate(&chosen);
        self.student.ask_all(false);
        self.progress.cursor = kept;
        // A student that writes fills other rows than were chosen.
        let tokens = self.rows[..self.held].iter().map(|row| row.ids.len() as u64).sum();
        Ok((self.pass.total(&parts), tokens, after))
    }

    fn clear(&mut self) {
        self.clear_gradients();
    }
}

/// Parameters of which files hold the transpose.
fn turned(network: &Network) -> BTreeSet<String> {
    let Network::Decoder(model) = network else { return BTreeSet::new() };
    let names = model.params().index().iter().map(|param| &param.name);
    names.filter(|name| model.lies_transposed(name)).cloned().collect()
}

/// The parameters of a language model: their names and shapes alone, as files hold them.
pub(super) fn shapes(config: &LanguageConfig) -> Tensors<f64> {
    let network = Network::new(&mut Reference::<f32>::new(), config);
    grows::shapes(network.params(), &turned(&network))
}
