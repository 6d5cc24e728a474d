//! From what was written (TOML) to what will be done (a plan), all problems at once.
//!
//! In: the text of a recipe with its `--set` overrides ([`parse()`]), then what was found outside
//! ([`Facts`], [`resolve()`]). Out: a [`Plan`] in which every number is decided, or [`Problems`]: all
//! of them, each with its place and what to write instead.
//! Never: opens a file, asks for the time, or touches a device.

mod balance;
mod change;
mod choices;
mod cost;
mod decide;
mod divergence;
mod facts;
mod group;
mod language;
mod parse;
mod plan;
mod policy;
mod preset;
mod problem;
mod recipe;
mod regularizer;
mod resolve;
mod resolve_language;
mod section;
mod show;
mod show_language;
mod smoke;
mod stage;
mod task;
mod text;
mod tree;

pub use balance::{
    BalancePlan, Estimator, MetaLoss, MetaPlan, MetaSource, PolicyPlan, Preconditioner,
};
pub use change::{Change, Changed, Verdict, change, change_language};
pub use choices::{
    Activation, Adoption, Architecture, AverageKind, Column, Course, DivergenceKind, DocumentShape,
    Documents, Doubt, Encoding, EstimatorKind, EvalStrategy, EvaluateOn, Format, GrownMoments,
    HiddenKind, LabelLoss, LabelNoiseKind, Logits, MetaAt, MetaFrom, Metric, Missing, ModelType,
    NetworkOutput, Normalize, OnBadLine, OnLong, OnNonfinite, Packing, PolicyKind, Position,
    Precision, RegularizerKind, Relation, ReplayRatio, Schedule, Sight, Smoothed, Softening,
    TaskKind, TeacherTokenizer, TeacherVocabulary, TextFormat, TextKind,
};
pub use cost::{Cost, Counts, DoesNotFit, cost, cost_of};
pub use divergence::Divergence;
pub use facts::{
    Facts, GrownFacts, GrownRate, ModelFacts, TeacherFacts, TokenDifference, TokenizerFacts,
};
pub use group::{Frozen, GroupPlan, Patterns};
pub use language::{
    AnyPlan, DecoderShape, FirstPlan, FirstRows, LanguageObjective, LanguagePlan, LanguageShape,
    LanguageStudent, LanguageTeacherPlan, Masking, OnPolicyPlan, ReplayTexts, TextPlan, UldPlan,
};
pub use parse::parse;
pub use plan::{
    Average, Batch, Compare, DataPlan, EarlyStopping, Evaluate, Examples, HiddenTermPlan,
    LabelNoise, Labels, Length, Limit, ModelShape, Moments, NotAPlan, ObjectivePlan, OutputPlan,
    Plan, Save, Split, StudentPlan, StudentSource, TeacherPlan, TeacherTokens, TokenizerPlan,
    TrainingPlan, Unlabelled,
};
pub use preset::Preset;
pub use problem::{Place, Problem, ProblemKind, Problems};
pub use recipe::{
    At, Balance, Hidden, Meta, Objective, Output, Recipe, Regularizer, RegularizerMeta, Student,
    StudentConfig, Task, Teacher, Text, Tokenizer, Top, Training, reference,
};
pub use regularizer::{Learning, Line, RegularizerPlan};
pub use resolve::resolve;
pub use resolve_language::{
    KeptFacts, LanguageFacts, LanguageModelFacts, LanguageTeacherFacts, language_steps,
    resolve_language,
};
pub use smoke::{smoke, smoke_language};
pub use stage::{LAG, LIGO, Lag, MSG, Operator, Size, StagePlan, When};
