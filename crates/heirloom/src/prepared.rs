//! A run that can start, of either kind: of a task with labels, or of a language model.
//!
//! In: a recipe or a run folder's plan. Out: one value that the command trains, whatever is in it.

use std::path::Path;

use heirloom_data::dataset::KeepTexts;
use heirloom_recipe::{AnyPlan, Cost, Metric, Recipe};
use heirloom_store::RealDisk;
use heirloom_train::{Job, LanguageJob, LanguageTrainer, Own, StagesState, Trainer, Trains};

use crate::failure::Failure;
use crate::gather::{Gathered, gather, reopen};
use crate::language::{GatheredLanguage, KeptTokens, gather_language, reopen_language};
use crate::places::Places;
use crate::processor;

/// A run that can start.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of them for each run")]
pub enum Prepared {
    /// Of a task.
    Task(Gathered),
    /// Of a language model.
    Language(GatheredLanguage),
}

impl Prepared {
    /// Opens what `recipe` names and decides its plan. `kept` says where the tokens of a language
    /// model's text lie.
    ///
    /// # Errors
    /// All that stands against the run.
    pub fn gather(
        recipe: &Recipe,
        places: &Places,
        kept: &KeptTokens,
        threads: usize,
        smoke: bool,
    ) -> Result<Self, Failure> {
        if !recipe.is_language() {
            return Ok(Self::Task(gather(recipe, places, threads, smoke)?));
        }
        Ok(Self::Language(gather_language(recipe, places, kept, threads, smoke)?))
    }

    /// Opens again what the plan of a run folder names, and refuses what has changed since.
    ///
    /// # Errors
    /// What is no longer there, or another thing.
    pub fn reopen(plan: &AnyPlan, places: &Places) -> Result<Self, Failure> {
        Ok(match plan {
            AnyPlan::Task(plan) => Self::Task(reopen(plan, places, KeepTexts::No)?),
            AnyPlan::Language(plan) => {
                let kept = KeptTokens::beside(Path::new(&plan.output.dir));
                Self::Language(reopen_language(plan, places, &kept)?)
            }
        })
    }

    /// The plan, the first seed's.
    pub fn plan(&self) -> AnyPlan {
        match self {
            Self::Task(gathered) => AnyPlan::Task(Box::new(gathered.job.plan.clone())),
            Self::Language(gathered) => AnyPlan::Language(Box::new(gathered.job.plan.clone())),
        }
    }

    /// What a person should hear before it starts.
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Task(gathered) => &gathered.notes,
            Self::Language(gathered) => &gathered.notes,
        }
    }

    /// Memory, part by part.
    pub fn cost(&self) -> &Cost {
        match self {
            Self::Task(gathered) => &gathered.cost,
            Self::Language(gathered) => &gathered.cost,
        }
    }

    /// What is measured of labels; nothing where there are none.
    pub fn metric(&self) -> Option<Metric> {
        match self {
            Self::Task(gathered) => Some(gathered.job.plan.data.metric),
            Self::Language(_) => None,
        }
    }

    /// Points the run, and the teacher's answers beside it, at `folder`.
    pub fn set_folder(&mut self, folder: &Path) {
        let dir = folder.display().to_string();
        match self {
            Self::Task(gathered) => {
                gathered.job.plan.output.dir = dir;
                let beside = folder.parent().unwrap_or(Path::new("."));
                gathered.job.cache_dir = beside.join("teacher-logits");
            }
            Self::Language(gathered) => gathered.job.plan.output.dir = dir,
        }
    }

    /// The trainer of this run with `plan`, which differs in seed and folder alone, on a device of the
    /// plan's precision, for a student that has grown as `stages` says.
    ///
    /// # Errors
    /// Where weights cannot be read or are not those of the configs.
    ///
    /// # Panics
    /// Where the plan is of the other kind.
    pub fn trainer(
        &self,
        plan: AnyPlan,
        stages: StagesState,
        threads: usize,
    ) -> Result<Box<dyn Trains>, Failure> {
        self.trainer_with(plan, stages, threads, &Own::default())
    }

    /// The same, with what a program brings of its own.
    ///
    /// # Errors
    /// As [`Prepared::trainer`], and where that is not what the plan names.
    ///
    /// # Panics
    /// As [`Prepared::trainer`].
    pub fn trainer_with(
        &self,
        plan: AnyPlan,
        stages: StagesState,
        threads: usize,
        own: &Own,
    ) -> Result<Box<dyn Trains>, Failure> {
        let precision = plan.training().precision;
        let mut device = |work| processor::device(work, precision, threads);
        Ok(match (self, plan) {
            (Self::Task(gathered), AnyPlan::Task(plan)) => {
                let job = Job { plan: *plan, own: own.clone(), ..gathered.job.clone() };
                let asks = job.teachers().any(|(_, teacher)| teacher.model().is_some());
                if asks && !job.cache_dir.is_dir() {
                    heirloom_store::new_folder(&RealDisk, &job.cache_dir)?;
                }
                Box::new(Trainer::at_stage(job, stages, &RealDisk, &mut device)?)
            }
            (Self::Language(gathered), AnyPlan::Language(plan)) => {
                let job = LanguageJob { plan: *plan, own: own.clone(), ..gathered.job.clone() };
                Box::new(LanguageTrainer::at_stage(job, stages, &mut device)?)
            }
            _ => unreachable!("a run's plans are all of its kind"),
        })
    }
}
