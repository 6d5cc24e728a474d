//! Everything a run needs, opened and checked: the plan, the data, and where weights come from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use heirloom_data::cache::TeacherCache;
use heirloom_data::dataset::Dataset;
use heirloom_models::EncoderConfig;
use heirloom_recipe::{Plan, TeacherPlan};

use crate::Own;

/// A device that may be handed from thread to thread.
pub type Device = Box<dyn heirloom_engine::Device>;

/// What a device is asked for. How exact it is, is the caller's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Training and evaluation; a teacher that answers live works on it too.
    Training,
    /// The teacher's answers that are kept. Other runs find them by what they were made from, so
    /// they must not depend on how this run computes.
    KeptAnswers,
}

/// Where the student's weights come from.
#[derive(Clone, Debug)]
pub enum StudentWeights {
    /// Drawn from the run's seed.
    Fresh,
    /// Zeros, for whoever fills them.
    Later,
    /// A model folder, some of whose layers are kept: for each of the student's, the folder's.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Layers kept, from 0.
        layers: Vec<usize>,
    },
}

/// A teacher.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a run has a few of them")]
pub enum TeacherJob {
    /// A model that answers.
    Model(TeacherModel),
    /// Answers that were brought.
    Answers(GivenAnswers),
}

impl TeacherJob {
    /// The model, where it is one.
    pub fn model(&self) -> Option<&TeacherModel> {
        match self {
            Self::Model(model) => Some(model),
            Self::Answers(_) => None,
        }
    }
}

/// Answers to the job's examples that somebody else computed.
#[derive(Clone, Debug)]
pub struct GivenAnswers {
    /// To what is trained on.
    pub train: Arc<TeacherCache>,
    /// To the second set, where the job has one.
    pub meta: Option<Arc<TeacherCache>>,
}

/// A teacher's folder.
#[derive(Clone, Debug)]
pub struct TeacherModel {
    /// The folder.
    pub path: PathBuf,
    /// Its config.
    pub config: EncoderConfig,
    /// The examples in its own tokens, where the plan says that it reads those.
    pub own: Option<OwnTokens>,
}

/// The same examples as the job's, in the same order, as a teacher's own tokenizer reads them.
#[derive(Clone, Debug)]
pub struct OwnTokens {
    /// What is trained on.
    pub train: Arc<Dataset>,
    /// The second set, where the job has one.
    pub meta: Option<Arc<Dataset>>,
}

/// A run, ready to start. Runs of several seeds share the data.
#[derive(Clone, Debug)]
pub struct Job {
    /// Every number, decided.
    pub plan: Plan,
    /// What is trained on.
    pub train: Arc<Dataset>,
    /// What choices look at; `None` where the plan never evaluates.
    pub validation: Option<Arc<Dataset>>,
    /// The second set of a balance policy, where it is one of its own.
    pub meta: Option<Arc<Dataset>>,
    /// The student's shape.
    pub student_config: EncoderConfig,
    /// The student's weights.
    pub student_weights: StudentWeights,
    /// The teacher, where the plan has one.
    pub teacher: Option<TeacherJob>,
    /// The others, where it has several, in the plan's order.
    pub other_teachers: Vec<TeacherJob>,
    /// Files of the tokenizer, by name, for saved model folders.
    pub tokenizer_files: BTreeMap<String, Vec<u8>>,
    /// Folder for teachers' answers, shared by runs.
    pub cache_dir: PathBuf,
    /// What the program brings of its own, where the plan names it.
    pub own: Own,
}

impl Job {
    /// All teachers with their plans, in the plan's order.
    pub fn teachers(&self) -> impl Iterator<Item = (&TeacherPlan, &TeacherJob)> {
        self.plan.teachers().zip(self.teacher.iter().chain(&self.other_teachers))
    }
}
