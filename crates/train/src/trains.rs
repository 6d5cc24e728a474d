//! What the loop and the run folder ask of whatever trains: a classifier, a language model.
//!
//! In: a run in memory. Out: its next step, its evaluation, and everything that must survive it.
//! Never: what a batch is made of. When a run evaluates, saves and ends is decided here, for all
//! kinds of runs alike.

use std::collections::BTreeMap;

use heirloom_base::Digest;
use heirloom_engine::{Device, Space, View};
use heirloom_models::Loaded;
use heirloom_recipe::{EarlyStopping, Evaluate, OutputPlan, Save, TrainingPlan};
use heirloom_store::Disk;

use crate::{
    Best, Error, GrowthRecord, Judged, Learned, Outside, OwnRecord, Progress, StagesState,
    StepRecord, TeacherRecord, Work,
};

/// A run in memory.
pub trait Trains {
    /// Its plan's part that all kinds of runs have.
    fn training(&self) -> &TrainingPlan;
    /// What it leaves behind.
    fn output(&self) -> &OutputPlan;
    /// The digest of its whole plan.
    fn plan_digest(&self) -> Digest;

    /// Takes one optimiser step.
    ///
    /// # Errors
    /// [`Error::Diverged`] where loss or gradient is not finite and the plan says stop; the weights
    /// are then those before the step.
    fn step(&mut self) -> Result<StepRecord, Error>;
    /// Whether there is something to evaluate on.
    fn has_validation(&self) -> bool;
    /// Has the student's answers to the validation set judged, with the average of its weights where
    /// there is one.
    ///
    /// # Errors
    /// Where they cannot be judged.
    fn evaluate(&mut self, outside: &mut dyn Outside) -> Result<Judged, Error>;

    /// Where the run is.
    fn progress(&self) -> &Progress;
    /// The same, to be changed.
    fn progress_mut(&mut self) -> &mut Progress;
    /// Weights and moments of the student.
    fn student(&self) -> &Learned;
    /// What is learned besides the student, with the names of its moments in a checkpoint.
    fn others(&self) -> Vec<(&'static str, &Learned)> {
        Vec::new()
    }
    /// Numbers that are neither weights nor moments, by the file of a checkpoint that holds them.
    fn notes(&self) -> Vec<(&'static str, Vec<f64>)> {
        Vec::new()
    }
    /// Takes back what [`Trains::notes`] gave; false where that is not this run's.
    fn take_back(&mut self, _file: &str, _numbers: &[f64]) -> bool {
        false
    }
    /// What the kept answers of its teachers take to compute, where it has such.
    fn teachers(&self) -> Vec<TeacherRecord> {
        Vec::new()
    }
    /// What a program has brought to it; `None` where nothing.
    fn own(&self) -> Option<OwnRecord> {
        None
    }
    /// Where the run's growth is; `None` where its plan has no stage.
    fn stages(&self) -> Option<&StagesState> {
        None
    }
    /// Takes back what [`Trains::stages`] gave at a checkpoint of the same stage.
    fn take_back_stages(&mut self, _state: StagesState) {}
    /// Whether the student grows before the coming step.
    fn grows_now(&self) -> bool {
        false
    }
    /// Grows the student by the coming stage of the plan. `new_device` makes the grown one's.
    ///
    /// # Errors
    /// Where the grown run cannot be planned; it is then as it was.
    ///
    /// # Panics
    /// Where no stage is left.
    fn grow(
        &mut self,
        _disk: &dyn Disk,
        _new_device: &mut dyn FnMut(Work) -> crate::Device,
    ) -> Result<GrowthRecord, Error> {
        unreachable!("a run without stages never grows")
    }
    /// How far copies of the last growth are apart; `None` where nothing was copied.
    ///
    /// # Errors
    /// Where a parameter is missing.
    fn clone_gap(&mut self) -> Result<Option<f64>, Error> {
        Ok(None)
    }
    /// The space of the average of the weights, a twin of theirs, where the plan has one.
    fn average_space(&self) -> Option<Space>;
    /// Where all of these lie.
    fn device(&self) -> &dyn Device;
    /// The same, to be changed.
    fn device_mut(&mut self) -> &mut dyn Device;
    /// What loading the student's weights left as it was.
    fn loaded(&self) -> &Loaded;

    /// `config.json` of the student.
    fn config_json(&self) -> String;
    /// Whether files hold the transpose of the student's parameter of this name.
    fn is_transposed(&self, _name: &str) -> bool {
        false
    }
    /// Files of the tokenizer, by name.
    fn tokenizer_files(&self) -> &BTreeMap<String, Vec<u8>>;

    /// Brings weights and moments up to date for whoever reads them.
    fn catch_up(&mut self);
    /// Hears that weights and moments are those of `progress`.
    fn resumed(&mut self, progress: Progress);
}

/// What follows from [`Trains`] alone.
impl dyn Trains + '_ {
    /// How many weights the average holds that is judged and kept in place of the weights; `None`
    /// where those themselves are.
    pub fn averaged(&self) -> Option<u64> {
        averaged(self.progress())
    }

    /// Whether the plan evaluates after the step just taken.
    pub fn evaluates_now(&self) -> bool {
        if !self.has_validation() {
            return false;
        }
        let progress = self.progress();
        match self.training().evaluate {
            Evaluate::Never => false,
            Evaluate::AtEnd => progress.finished,
            Evaluate::EveryEpoch => progress.cursor.position == 0 || progress.finished,
            Evaluate::EverySteps(every) => {
                progress.cursor.step.is_multiple_of(every) || progress.finished
            }
        }
    }

    /// Whether the plan saves after the step just taken.
    pub fn saves_now(&self, evaluated: bool) -> bool {
        let progress = self.progress();
        progress.finished
            || match self.training().save {
                Save::WithEvaluation => evaluated,
                Save::EverySteps(every) => progress.cursor.step.is_multiple_of(every),
            }
    }

    /// Takes note of an evaluation; says whether it is the best so far. A score that has no value
    /// is never the best.
    pub fn judged(&mut self, score: Option<f64>, higher_is_better: bool) -> bool {
        let progress = self.progress_mut();
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
        let training = self.training().clone();
        reconsider(&training, self.progress_mut());
        better
    }

    /// All that is learned, with the names of its moments in a checkpoint.
    pub(crate) fn learned(&self) -> Vec<(&'static str, &Learned)> {
        std::iter::once(("student", self.student())).chain(self.others()).collect()
    }

    /// The numbers of `range` of the student's parameter at `place` of the index, as files hold
    /// them, read from `view`.
    pub(crate) fn public_numbers(
        &self,
        place: usize,
        view: View,
        range: std::ops::Range<usize>,
    ) -> Vec<f32> {
        let param = &self.student().params.index()[place];
        if !self.is_transposed(&param.name) {
            return self.device().read(view.columns(range));
        }
        // A matrix [O, I] that files hold as [I, O]: number k of theirs is in column k / O.
        let (rows, cols) = (param.shape[0], param.shape[1]);
        let values = self.device().read(view);
        range.map(|at| values[at % rows * cols + at / rows]).collect()
    }
}

/// How many weights an average holds, where there is one.
pub(crate) fn averaged(progress: &Progress) -> Option<u64> {
    (progress.averaged > 0).then_some(progress.averaged)
}

/// Decides anew whether a run has ended: by its length, or early.
pub(crate) fn reconsider(training: &TrainingPlan, progress: &mut Progress) {
    let early = match training.early_stopping {
        EarlyStopping::Never => false,
        EarlyStopping::After(patience) => progress.since_best >= patience,
    };
    progress.finished = early || progress.cursor.step >= training.total_steps;
}

/// Brings a run's weights and moments up to date, whichever kind it is.
pub(crate) fn catch_up(trainer: &mut impl Trains) {
    trainer.catch_up();
}
