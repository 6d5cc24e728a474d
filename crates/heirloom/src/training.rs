//! A run from a program: what `heirloom train` and `heirloom resume` do, without a word on the screen.
//!
//! In: a recipe or a run folder, and what the program brings of its own. Out: a run folder like any
//! other, which `heirloom eval`, `explain` and `verify` read. Never: prints, listens for signals, or
//! reads the clock; a [`Watch`] hears of every step and may ask the run to stop.

use std::path::{Path, PathBuf};

use heirloom_balance::Policy;
use heirloom_base::Step;
use heirloom_data::dataset::Dataset;
use heirloom_recipe::{AnyPlan, Metric, Recipe, TrainingPlan};
use heirloom_regularize::Target;
use heirloom_report::language::Foresight;
use heirloom_store::{Committed, Holder, RealDisk};
use heirloom_train::{
    Device, Ending, Error, EvaluationRecord, Foreseen, GrowthRecord, Judged, Outside, Own,
    Progress, RunFolder, StagesState, StepRecord, Trains, Work,
};

use crate::failure::Failure;
use crate::judge::{deciding, judge};
use crate::language::KeptTokens;
use crate::places::Places;
use crate::prepared::Prepared;
use crate::processor;

/// Hears of a run. Everything may be left as it is; `()` listens to nothing.
pub trait Watch {
    /// A step was taken, and its record written.
    fn step(&mut self, _record: &StepRecord) {}
    /// The student was evaluated.
    fn evaluated(&mut self, _record: &EvaluationRecord) {}
    /// The student has grown.
    fn grown(&mut self, _record: &GrowthRecord) {}
    /// Whether the run should save and stop after this step; asked once a step.
    fn stops(&mut self) -> bool {
        false
    }
}

impl Watch for () {}

/// A run that can begin, or go on.
#[derive(Debug)]
pub struct Training {
    prepared: Prepared,
    folder: PathBuf,
    /// Whether the folder holds the run already.
    goes_on: bool,
    own: Own,
    threads: usize,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Whether by its plan, or as the [`Watch`] asked.
    pub ending: Ending,
    /// Where it stands: steps done, the best evaluation.
    pub progress: Progress,
}

impl Training {
    /// Opens what `recipe` names, decides its plan, and will run it in `folder`, which must be new or
    /// empty. The plan is the first seed's; [`Training::with_seed`] makes it another's.
    ///
    /// # Errors
    /// All that stands against the run. Nothing was written then, but for the kept tokens of a
    /// language model's text.
    pub fn new(recipe: &Recipe, places: &Places, folder: &Path) -> Result<Self, Failure> {
        let threads = usual_threads();
        let kept = KeptTokens::beside(folder);
        let mut prepared = Prepared::gather(recipe, places, &kept, threads, false)?;
        prepared.set_folder(folder);
        let (folder, own) = (folder.to_owned(), Own::default());
        Ok(Self { prepared, folder, goes_on: false, own, threads })
    }

    /// Opens the run in `folder` again, to go on from its newest checkpoint.
    ///
    /// # Errors
    /// Where there is no run, or what it was made from is no longer there, or another thing.
    pub fn resume(folder: &Path, places: &Places) -> Result<Self, Failure> {
        let text = RunFolder::plan_text(&RealDisk, folder)?;
        let mut plan = AnyPlan::from_toml(&text).map_err(|error| {
            Failure::input(format!("`{}`: {error}", folder.join("plan.toml").display()))
        })?;
        // The folder may have been moved since.
        plan.output_mut().dir = folder.display().to_string();
        let prepared = Prepared::reopen(&plan, places)?;
        let (folder, own, threads) = (folder.to_owned(), Own::default(), usual_threads());
        Ok(Self { prepared, folder, goes_on: true, own, threads })
    }

    /// Brings a balance policy for recipes with `policy = "own"` in `[objective.balance]` and this
    /// name in `called`. `make` gives it as it is before the first step.
    #[must_use]
    pub fn with_policy<P: Policy + 'static>(
        mut self,
        called: &str,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Self {
        self.own = self.own.with_policy(called, make);
        self
    }

    /// Brings a label regularizer for recipes with `method = "own"` in `[objective.regularizer]` and
    /// this name in `called`, likewise.
    #[must_use]
    pub fn with_regularizer<T: Target + 'static>(
        mut self,
        called: &str,
        make: impl Fn() -> T + Send + Sync + 'static,
    ) -> Self {
        self.own = self.own.with_regularizer(called, make);
        self
    }

    /// Another seed for order, dropout and fresh weights. A run that goes on keeps its own.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        match &mut self.prepared {
            _ if self.goes_on => {}
            Prepared::Task(gathered) => gathered.job.plan.training.seed = seed,
            Prepared::Language(gathered) => gathered.job.plan.training.seed = seed,
        }
        self
    }

    /// Another number of threads than the machine's. It changes no bit of the run.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Every number of the run, as decided; it prints itself as `heirloom plan` does.
    pub fn plan(&self) -> AnyPlan {
        self.prepared.plan()
    }

    /// What a person should hear before it starts: truncated texts, skipped lines, overlap.
    pub fn notes(&self) -> &[String] {
        self.prepared.notes()
    }

    /// The run in memory, before its first step; for whoever takes the steps one by one. Nothing is
    /// written but the teacher's kept answers, beside the folder.
    ///
    /// # Errors
    /// Where weights cannot be read, or what the program brings is not what the plan names.
    pub fn trainer(&self) -> Result<Box<dyn Trains>, Failure> {
        self.trainer_at(StagesState::default())
    }

    fn trainer_at(&self, stages: StagesState) -> Result<Box<dyn Trains>, Failure> {
        self.prepared.trainer_with(self.plan(), stages, self.threads, &self.own)
    }

    /// Trains to the end of the plan, or until `watch` asks to stop, and says how it ended.
    ///
    /// # Errors
    /// As [`Training::trainer`]; where the disk says no; where training diverged and the plan says
    /// stop. The run folder is then whole, as after a kill.
    pub fn run(&self, watch: &mut dyn Watch) -> Result<Ended, Failure> {
        let holder = Holder::this_process("its start");
        if !self.goes_on {
            RunFolder::refuse_taken(&RealDisk, &self.folder)?;
            let mut trainer = self.trainer()?;
            let plan = self.plan().to_toml();
            let mut folder = RunFolder::create(&RealDisk, &self.folder, &holder, &plan)?;
            return self.loop_of(&mut *trainer, &mut folder, watch);
        }
        let found = RunFolder::open(&RealDisk, &self.folder, &holder)?;
        let mut folder = found.folder;
        let newest: Option<Step> = found.steps.last().copied();
        let stages = match newest {
            Some(step) => RunFolder::stages(
                &Committed::open_step(&RealDisk, &self.folder, step)
                    .map_err(heirloom_train::Error::from)?,
            )?,
            None => StagesState::default(),
        };
        let mut trainer = self.trainer_at(stages)?;
        match newest {
            Some(step) => folder.restore(&mut *trainer, step)?,
            None => folder.restart()?,
        }
        self.loop_of(&mut *trainer, &mut folder, watch)
    }

    fn loop_of(
        &self,
        trainer: &mut dyn Trains,
        folder: &mut RunFolder<'_>,
        watch: &mut dyn Watch,
    ) -> Result<Ended, Failure> {
        let mut watched = Watched {
            watch,
            training: trainer.training().clone(),
            metric: self.prepared.metric(),
            threads: self.threads,
            failure: None,
        };
        let ended = heirloom_train::run(trainer, folder, &mut watched);
        let failure = watched.failure.take();
        let ending = ended?;
        match failure {
            Some(failure) => Err(failure),
            None => Ok(Ended { ending, progress: trainer.progress().clone() }),
        }
    }
}

/// As many as the processor offers.
fn usual_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The world of a run that nobody sees.
struct Watched<'a> {
    watch: &'a mut dyn Watch,
    training: TrainingPlan,
    /// What is measured of labels; a language model has none.
    metric: Option<Metric>,
    threads: usize,
    /// Why outputs could not be judged.
    failure: Option<Failure>,
}

impl Outside for Watched<'_> {
    fn step(&mut self, record: &StepRecord) {
        self.watch.step(record);
    }

    fn judge(&mut self, outputs: Vec<f32>, validation: &Dataset) -> Result<Judged, Error> {
        let metric = self.metric.expect("a task says what is measured");
        Ok(match judge(&outputs, validation, metric) {
            Ok(evaluation) => {
                let name = &self.training.metric_for_best;
                let (score, higher_is_better) = deciding(&evaluation, name);
                let evaluation = serde_json::to_value(evaluation).expect("an evaluation is JSON");
                Judged { score, higher_is_better, evaluation }
            }
            Err(failure) => {
                // Outputs that cannot be judged are a model that left the numbers behind.
                let evaluation = serde_json::json!({ "failure": failure.message });
                self.failure = Some(failure);
                Judged { score: None, higher_is_better: true, evaluation }
            }
        })
    }

    fn judge_text(&mut self, foreseen: &Foreseen) -> Result<Judged, Error> {
        let Foreseen { tokens, bytes, nats, misses } = *foreseen;
        let found = Foresight::of(tokens, bytes, nats, misses);
        let (score, higher_is_better) = found.deciding(&self.training.metric_for_best);
        let evaluation = serde_json::to_value(found).expect("an evaluation is JSON");
        Ok(Judged { score, higher_is_better, evaluation })
    }

    fn evaluated(&mut self, record: &EvaluationRecord) {
        self.watch.evaluated(record);
    }

    fn device(&mut self, work: Work) -> Device {
        processor::device(work, self.training.precision, self.threads)
    }

    fn grown(&mut self, record: &GrowthRecord) {
        self.watch.grown(record);
    }

    fn asked_to_stop(&mut self) -> bool {
        self.watch.stops()
    }
}
