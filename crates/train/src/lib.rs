//! The step, the state that survives a crash, schedules, and the loop.
//!
//! In: a [`Job`]: a plan, tokenised data, and where weights come from. Out: checkpoints, records,
//! and model folders that `transformers` loads.
//! Never: text, a clock, a metric's formula, or anything printed; those are [`Outside`]'s.
//!
//! The law the tests hold: a run that was killed at any moment and resumed ends with the same bits
//! as one that was not, and a step cut into other micro-batches has the same loss and gradient.

// Tests of whole runs share a small one with the unit tests.
#[cfg(test)]
extern crate self as heirloom_train;

mod average;
mod balancing;
mod capacity;
mod error;
mod folder;
mod full;
mod grows;
mod hypergradient;
mod job;
mod lag;
mod language;
mod learned;
mod learning;
mod map;
mod mask;
mod nonfinite;
mod on_policy;
mod own;
mod pass;
mod policy;
mod predict;
mod record;
mod regularizer;
mod regularizing;
mod replay;
mod run;
mod schedule;
mod stages;
mod state;
mod teacher;
mod terms;
mod trainer;
mod trains;
mod treatment;

pub use balancing::BalanceRecord;
pub use capacity::{micro_capacity, run_capacity, step_capacity};
pub use error::{Error, NotFinite};
pub use folder::{Found, RunFolder};
pub use grows::Grows;
pub use job::{
    Device, GivenAnswers, Job, OwnTokens, StudentWeights, TeacherJob, TeacherModel, Work,
};
pub use lag::Candidate;
pub use language::{
    Foreseen, JudgedToken, LanguageConfig, LanguageJob, LanguageTeacher, LanguageTrainer,
    LanguageWeights, TeacherReads, foresee, kept_term, language_memory, rows_of_run, rows_read,
};
pub use learned::{Adam, Learned};
pub use mask::MaskCourse;
pub use on_policy::{OnPolicy, add_written, prompts_of};
pub use own::Own;
pub use policy::policy;
pub use predict::{Predictor, inputs};
pub use record::{EvaluationRecord, OwnRecord, StepRecord, TeacherRecord, TermRecord};
pub use regularizer::regularizer;
pub use replay::{Replay, ReplayDamage, ReplayPlan, ReplayRatio, Source};
pub use run::{Ending, Judged, Outside, run};
pub use schedule::learning_rate;
pub use stages::{GrowthRecord, Learnt, StagesState, config_at, growth_plans, moments_mode};
pub use state::{Best, Progress};
pub use teacher::{TeacherAnswers, answer_all};
pub use terms::terms;
pub use trainer::{
    EVALUATION_TOKENS, MOMENTS, NamedTensor, Trainer, begun, head_of, student_purpose,
};
pub use trains::Trains;
pub use treatment::{Treatment, check_groups, matches, treatments};
