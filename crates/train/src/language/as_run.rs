//! A language model's trainer as the loop and the run folder see it.

use std::collections::BTreeMap;

use heirloom_base::Digest;
use heirloom_engine::{Device, Space};
use heirloom_models::Loaded;
use heirloom_recipe::{OutputPlan, TrainingPlan};
use heirloom_store::Disk;

use super::evaluate::{Examiner, Foreseen};
use super::network::Network;
use super::trainer::LanguageTrainer;
use super::written::Writer;
use crate::folder::{BALANCE, REPLAY};
use crate::trains::{averaged, reconsider};
use crate::{
    Error, GrowthRecord, Judged, Learned, Outside, OwnRecord, Progress, StagesState, StepRecord,
    Trains, Work,
};

impl Trains for LanguageTrainer {
    fn training(&self) -> &TrainingPlan {
        &self.job.plan.training
    }

    fn output(&self) -> &OutputPlan {
        &self.job.plan.output
    }

    fn plan_digest(&self) -> Digest {
        self.job.plan.digest()
    }

    fn step(&mut self) -> Result<StepRecord, Error> {
        self.take_step()
    }

    fn has_validation(&self) -> bool {
        self.job.validation.is_some()
    }

    fn evaluate(&mut self, outside: &mut dyn Outside) -> Result<Judged, Error> {
        let foreseen = self.foresee();
        let judged = outside.judge_text(&foreseen)?;
        self.hear_of(&foreseen);
        if let Some(writer) = self.writer.as_mut().filter(|_| foreseen.tokens > 0) {
            writer.hear(foreseen.nats / foreseen.tokens as f64);
        }
        Ok(judged)
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn student(&self) -> &Learned {
        &self.student
    }

    fn others(&self) -> Vec<(&'static str, &Learned)> {
        self.projections.iter().map(|learned| ("projections", learned)).collect()
    }

    fn notes(&self) -> Vec<(&'static str, Vec<f64>)> {
        let learnt = self.pass.balance.as_ref().and_then(|(balance, _)| balance.state());
        let texts = self.writer.as_ref().and_then(Writer::state);
        let notes = [(BALANCE, learnt), (REPLAY, texts)];
        notes.into_iter().filter_map(|(file, numbers)| Some((file, numbers?))).collect()
    }

    fn take_back(&mut self, file: &str, numbers: &[f64]) -> bool {
        match file {
            REPLAY => self.writer.as_mut().is_some_and(|writer| writer.restore(numbers)),
            _ => self.pass.balance.as_mut().is_some_and(|(balance, _)| balance.restore(numbers)),
        }
    }

    fn own(&self) -> Option<OwnRecord> {
        self.job.own.record()
    }

    fn stages(&self) -> Option<&StagesState> {
        (!self.job.plan.training.stages.is_empty()).then_some(&self.stages.state)
    }

    fn take_back_stages(&mut self, state: StagesState) {
        self.stages.state = state;
    }

    fn grows_now(&self) -> bool {
        !self.progress.finished && self.stages.is_due(self.progress.cursor.step)
    }

    fn grow(
        &mut self,
        _disk: &dyn Disk,
        new_device: &mut dyn FnMut(Work) -> crate::Device,
    ) -> Result<GrowthRecord, Error> {
        self.grow_up(new_device)
    }

    fn clone_gap(&mut self) -> Result<Option<f64>, Error> {
        self.gap()
    }

    fn average_space(&self) -> Option<Space> {
        self.averaging.map(|averaging| averaging.space)
    }

    fn device(&self) -> &dyn Device {
        &*self.device
    }

    fn device_mut(&mut self) -> &mut dyn Device {
        &mut *self.device
    }

    fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    fn config_json(&self) -> String {
        match &self.network {
            Network::Decoder(model) => model.config().to_json(),
            Network::Encoder(model) => model.config_json(&[]),
        }
    }

    fn is_transposed(&self, name: &str) -> bool {
        self.network.lies_transposed(name)
    }

    fn tokenizer_files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.job.tokenizer_files
    }

    fn catch_up(&mut self) {
        self.student.catch_up(&mut *self.device);
    }

    fn resumed(&mut self, progress: Progress) {
        for learned in std::iter::once(&mut self.student).chain(&mut self.projections) {
            learned.resumed(&mut *self.device, progress.updates);
        }
        self.progress = progress;
        // The plan may have been given more steps, or fewer.
        reconsider(&self.job.plan.training, &mut self.progress);
    }
}

impl LanguageTrainer {
    /// How well the student foresees the validation text, with the average of its weights where
    /// there is one.
    ///
    /// # Panics
    /// Without a validation text.
    pub fn foresee(&mut self) -> Foreseen {
        self.student.catch_up(&mut *self.device);
        let rows =
            self.job.validation.as_ref().expect("a run that evaluates has a text to do it on");
        let examiner = self.examiner.as_mut().expect("planned with the validation text");
        let masker = self.job.masker.as_ref();
        let (device, network) = (&mut *self.device, &self.network);
        match self.averaging.filter(|_| averaged(&self.progress).is_some()) {
            None => examiner.foresee(device, network, &**rows, masker),
            Some(averaging) => averaging.in_place(device, &self.student, |device| {
                examiner.foresee(device, network, &**rows, masker)
            }),
        }
    }

    /// Lets each teacher fall silent that the student is better than, where the plan says so.
    fn hear_of(&mut self, student: &Foreseen) {
        if !self.job.plan.objective.until_overtaken {
            return;
        }
        let rows = self.job.validation.as_ref().expect("as it was evaluated on");
        let (masker, masking) = (self.job.masker.as_ref(), self.job.plan.text.masking);
        let (device, count) = (&mut *self.device, self.teachers.len());
        for (at, teaching) in self.teachers.iter_mut().enumerate() {
            let Some(teacher) = &teaching.network else { continue };
            if self.progress.is_silent(at) {
                continue;
            }
            // Its answers never change, and a resumed run finds the same ones again.
            let theirs = teaching.foreseen.get_or_insert_with(|| {
                Examiner::new(device, teacher, &**rows, masking)
                    .foresee(device, teacher, &**rows, masker)
            });
            if student.nats < theirs.nats {
                self.progress.overtake(at, count);
            }
        }
    }
}
