//! A task's trainer whose student grows: the whole state of the small model's training goes on in the
//! large one's.
//!
//! In: a trainer between two steps, and its next stage. Out: a trainer of the grown student, with
//! weights, moments and average by the same plan, and every count as it was. Never: a random number
//! without an address: growing again from the same state gives the same bits.

use std::collections::BTreeSet;

use heirloom_growth::{Tensors, clone_gap};
use heirloom_models::EncoderConfig;

use super::*;
use crate::grows::{self, Grows, Student, copies};
use crate::lag::choose;
use crate::learning::{GradientOf, Raised, raise};
use crate::{Error, GrowthRecord, StagesState};

impl Trainer {
    /// Whether the student grows before the coming step.
    pub fn grows_now(&self) -> bool {
        !self.progress.finished && self.stages.is_due(self.progress.cursor.step)
    }

    /// Where the run's growth is; `None` where the plan has no stage.
    pub fn stages(&self) -> Option<&StagesState> {
        (!self.job.plan.training.stages.is_empty()).then_some(&self.stages.state)
    }

    /// Grows the student by the coming stage of the plan. `new_device` is called as
    /// [`Trainer::new`] calls it.
    ///
    /// # Errors
    /// As [`Trainer::new`]; the trainer is then as it was.
    ///
    /// # Panics
    /// Where no stage is left.
    pub fn grow(
        &mut self,
        disk: &dyn Disk,
        new_device: &mut dyn FnMut(crate::Work) -> crate::Device,
    ) -> Result<GrowthRecord, Error> {
        crate::trains::catch_up(self);
        let before = self.sample();
        let stages = self.stages.clone();
        let mut tries = |stages: &Stages<_>| Ok(self.raised(stages, disk, new_device)?.0);
        let (stages, tried) = choose(&stages, &mut tries)?;
        let (mut large, raised) = self.raised(&stages, disk, new_device)?;
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
        stages: &Stages<EncoderConfig>,
        disk: &dyn Disk,
        new_device: &mut dyn FnMut(crate::Work) -> crate::Device,
    ) -> Result<(Self, Raised), Error> {
        let shapes = grows::shapes(&self.student.params, &BTreeSet::new());
        let state = stages.after(&shapes, self.progress.updates)?;
        let job = Job { student_config: stages.first().clone(), ..self.job.clone() };
        let mut large = Self::at_stage(job, state, disk, new_device)?;
        // Whoever learns how to grow reads the batches that come.
        self.hand_over(&mut large);
        let raised = raise(stages, &mut self.as_student(), &mut large)?;
        self.hand_over(&mut large);
        Ok((large, raised))
    }

    /// How far copies of the last growth are apart, over the parameters of the blocks; `None` where
    /// nothing was copied along a width.
    ///
    /// # Errors
    /// Where a parameter is missing.
    pub fn clone_gap(&mut self) -> Result<Option<f64>, Error> {
        let Some((plan, config)) = self.stages.last() else { return Ok(None) };
        if !copies(plan) {
            return Ok(None);
        }
        let (plan, small) = (plan.clone(), config.anatomy());
        let old = shapes(config, &self.job.plan);
        crate::trains::catch_up(self);
        let grown = self.as_student().weights();
        Ok(Some(clone_gap(&plan, &small, &old, &grown)?))
    }

    /// Counts, and all state that does not depend on the student's size.
    fn hand_over(&mut self, large: &mut Self) {
        let (ours, theirs) = (&self.projections, &large.projections);
        for (from, to) in [
            (ours.params.weights(), theirs.params.weights()),
            (ours.first, theirs.first),
            (ours.second, theirs.second),
        ] {
            let numbers = self.device.read_f64(ours.params.flat(from));
            large.device.write_f64(theirs.params.flat(to), &numbers);
        }
        if let (Some(old), Some(new)) = (&self.balancing, &mut large.balancing) {
            assert!(new.restore(&old.state()), "a policy's state has no size of the student");
        }
        if let (Some(old), Some(new)) = (&self.pass.regularizing, &mut large.pass.regularizing) {
            assert!(new.restore(&old.state()), "a regularizer that sees widths was refused");
        }
        large.loaded = self.loaded.clone();
        crate::Trains::resumed(large, self.progress.clone());
    }

    /// The student's outputs on the first of the coming step's examples, without dropout.
    fn sample(&mut self) -> Vec<f64> {
        let training = &self.job.plan.training;
        let cursor = self.progress.cursor;
        let (examples, _) = self.order.next_step(&self.job.train, cursor, rule(training.batch));
        let ranges = micro_ranges(&self.job.train, &examples, rule(training.micro_batch));
        let Some(range) = ranges.first() else { return Vec::new() };
        let (device, pass) = (&mut *self.device, &mut self.pass);
        let examples = &examples[range.clone()];
        pass.upload(device, &self.job.train, examples, range.start, &mut self.teacher);
        let output = pass.forward(device, None);
        device.read_f64(output)
    }
}

impl GradientOf for Trainer {
    fn as_student(&mut self) -> Student<'_> {
        Student {
            device: &mut *self.device,
            learned: &self.student,
            average: self.averaging.map(|averaging| averaging.space),
            turned: BTreeSet::new(),
        }
    }

    fn cursor(&self) -> Cursor {
        self.progress.cursor
    }

    fn operations(&self) -> u64 {
        self.device.operations()
    }

    fn gradient_of_step(&mut self, cursor: Cursor) -> Result<(f64, u64, Cursor), Error> {
        let training = &self.job.plan.training;
        let (examples, after) = self.order.next_step(&self.job.train, cursor, rule(training.batch));
        let ranges = micro_ranges(&self.job.train, &examples, rule(training.micro_batch));
        let counts = counts(&self.job.train, &examples);
        let learning_rate = learning_rate(training, Step(cursor.step));
        let at = At { step: cursor.step, total: training.total_steps, learning_rate };
        self.see(&examples, None);
        let together = self.decide_together(&examples, &ranges, at);
        let mut parts = Parts::default();
        // A learnt map makes the numbers of what is frozen afterwards as well.
        self.student.ask_all(true);
        for range in &ranges {
            let examples = &examples[range.clone()];
            let decided = together.as_ref().map(|all| all.part(range.clone()));
            parts.add(&self.micro_batch(examples, range.start, counts, at, decided));
        }
        self.student.ask_all(false);
        Ok((self.pass.objective.total(&parts), counts.tokens, after))
    }

    fn clear(&mut self) {
        self.student.clear(&mut *self.device);
        self.projections.clear(&mut *self.device);
    }
}

/// The parameters of a plan's student with this config: their names and shapes alone.
pub(crate) fn shapes(config: &EncoderConfig, plan: &Plan) -> Tensors<f64> {
    let mut nowhere = heirloom_engine::Reference::<f32>::new();
    let model = Model::new(&mut nowhere, config.clone(), head_of(plan));
    grows::shapes(model.params(), &BTreeSet::new())
}
