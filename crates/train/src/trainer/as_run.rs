//! A task's trainer as the loop and the run folder see it.

use std::collections::BTreeMap;

use heirloom_base::Digest;
use heirloom_engine::{Device, Space};
use heirloom_models::Loaded;
use heirloom_recipe::{OutputPlan, TrainingPlan};
use heirloom_store::Disk;

use super::Trainer;
use crate::folder::{BALANCE, REGULARIZER};
use crate::trains::reconsider;
use crate::{
    Error, GrowthRecord, Judged, Learned, Outside, OwnRecord, Progress, StagesState, StepRecord,
    TeacherRecord, Trains, Work,
};

impl Trains for Trainer {
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
        Self::step(self)
    }

    fn has_validation(&self) -> bool {
        self.job.validation.is_some()
    }

    fn evaluate(&mut self, outside: &mut dyn Outside) -> Result<Judged, Error> {
        let outputs = self.outputs().expect("a run that evaluates has a validation set");
        let validation = self.job.validation.as_ref().expect("as above");
        outside.judge(outputs, validation)
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
        vec![("projections", &self.projections)]
    }

    fn notes(&self) -> Vec<(&'static str, Vec<f64>)> {
        let balance = self.balancing.as_ref().map(|balancing| (BALANCE, balancing.state()));
        let regularizing = self.pass.regularizing.as_ref();
        balance.into_iter().chain(regularizing.map(|it| (REGULARIZER, it.state()))).collect()
    }

    fn take_back(&mut self, file: &str, numbers: &[f64]) -> bool {
        match file {
            BALANCE => self.balancing.as_mut().is_some_and(|it| it.restore(numbers)),
            _ => self.pass.regularizing.as_mut().is_some_and(|it| it.restore(numbers)),
        }
    }

    fn teachers(&self) -> Vec<TeacherRecord> {
        Self::teachers(self)
    }

    fn own(&self) -> Option<OwnRecord> {
        self.job.own.record()
    }

    fn stages(&self) -> Option<&StagesState> {
        Self::stages(self)
    }

    fn take_back_stages(&mut self, state: StagesState) {
        self.stages.state = state;
    }

    fn grows_now(&self) -> bool {
        Self::grows_now(self)
    }

    fn grow(
        &mut self,
        disk: &dyn Disk,
        new_device: &mut dyn FnMut(Work) -> crate::Device,
    ) -> Result<GrowthRecord, Error> {
        Self::grow(self, disk, new_device)
    }

    fn clone_gap(&mut self) -> Result<Option<f64>, Error> {
        Self::clone_gap(self)
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
        self.pass.model.config_json(self.job.plan.labels())
    }

    fn tokenizer_files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.job.tokenizer_files
    }

    fn catch_up(&mut self) {
        self.student.catch_up(&mut *self.device);
    }

    fn resumed(&mut self, progress: Progress) {
        self.student.resumed(&mut *self.device, progress.updates);
        self.progress = progress;
        // The plan may have been given more steps, or fewer.
        reconsider(&self.job.plan.training, &mut self.progress);
    }
}
