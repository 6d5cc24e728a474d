//! What a run will do: every number decided, nothing left to check.
//!
//! In: [`resolve`](crate::resolve()) alone makes plans. Out: plain data that is written beside the run
//! as TOML or JSON and read back. Never: an `Option`; where absence is a decision, it has a name.

use heirloom_base::{Digest, Step, Tokens};
use serde::{Deserialize, Serialize};

use crate::choices::{
    Activation, Column, Encoding, EvaluateOn, Format, LabelLoss, LabelNoiseKind, Logits, Metric,
    ModelType, OnBadLine, OnNonfinite, Position, Precision, Relation, Schedule, TaskKind,
};
use crate::divergence::Divergence;

/// A decided run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this layout.
    pub format: u64,
    /// Name of the run.
    pub name: String,
    /// The data.
    pub data: DataPlan,
    /// How much of it there is.
    pub examples: Examples,
    /// How text becomes tokens.
    pub tokenizer: TokenizerPlan,
    /// The model that learns.
    pub student: StudentPlan,
    /// The model learnt from.
    pub teacher: TeacherPlan,
    /// The others, where there are several. Not written where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_teachers: Vec<TeacherPlan>,
    /// What the student is trained to do.
    pub objective: ObjectivePlan,
    /// How long, in what steps, and when to look.
    pub training: TrainingPlan,
    /// What is left behind.
    pub output: OutputPlan,
}

impl Plan {
    /// The digest of the whole plan.
    pub fn digest(&self) -> Digest {
        digest_of(self)
    }

    /// The plan as TOML, the way a run folder keeps it.
    pub fn to_toml(&self) -> String {
        toml_of(self)
    }

    /// Reads what [`Plan::to_toml`] wrote.
    pub fn from_toml(text: &str) -> Result<Self, NotAPlan> {
        read_plan(text)
    }

    /// Optimiser steps of the run.
    pub fn total_steps(&self) -> Step {
        Step(self.training.total_steps)
    }

    /// Steps in which the learning rate rises.
    pub fn warmup_steps(&self) -> Step {
        Step(self.training.warmup_steps)
    }

    /// Optimiser steps of one pass over the training set; its last step may be smaller than the
    /// others.
    pub fn steps_per_epoch(&self) -> Step {
        Step(self.training.steps_per_epoch)
    }

    /// Label names in the order of the model's outputs; none for a regression.
    pub fn labels(&self) -> &[String] {
        match &self.data.labels {
            Labels::Named(names) => names,
            Labels::Found => &[],
        }
    }

    /// All teachers, in the recipe's order.
    pub fn teachers(&self) -> impl Iterator<Item = &TeacherPlan> {
        let first = (self.teacher != TeacherPlan::Nobody).then_some(&self.teacher);
        first.into_iter().chain(&self.other_teachers)
    }

    /// The same run with another seed, in a folder of its own below this one's.
    pub fn with_seed(&self, seed: u64) -> Self {
        let mut plan = self.clone();
        plan.training.seed = seed;
        plan.output.dir = format!("{}/seed-{seed}", self.output.dir.trim_end_matches('/'));
        plan
    }
}

/// The digest of a whole plan of either kind.
pub(crate) fn digest_of(plan: &impl Serialize) -> Digest {
    Digest::of(&serde_json::to_vec(plan).expect("a plan has string keys only"))
}

/// A plan of either kind as TOML.
pub(crate) fn toml_of(plan: &impl Serialize) -> String {
    toml::to_string(plan).expect("a plan has string keys and numbers below 2⁶³")
}

/// Reads a plan of this version.
pub(crate) fn read_plan<P: serde::de::DeserializeOwned>(text: &str) -> Result<P, NotAPlan> {
    #[derive(Deserialize)]
    struct Head {
        format: u64,
    }
    let broken = |error: toml::de::Error| NotAPlan::Broken {
        message: error.message().split_whitespace().collect::<Vec<_>>().join(" "),
    };
    // A later format may lack fields of this one, so its number is read first.
    let Head { format } = toml::from_str(text).map_err(broken)?;
    if format != FORMAT {
        return Err(NotAPlan::Format { found: format, known: FORMAT });
    }
    toml::from_str(text).map_err(broken)
}

/// Version of the layout of plans.
pub(crate) const FORMAT: u64 = 1;

/// The text is not a plan that this program can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPlan {
    /// It is not TOML, or a field is missing or has another type.
    #[error("not a plan: {message}; the file is damaged or was edited, so start the run anew")]
    Broken {
        /// What the TOML reader said.
        message: String,
    },
    /// It was written by another version.
    #[error(
        "the plan has format {found}, this program reads {known}; use the version that wrote it"
    )]
    Format {
        /// The format of the text.
        found: u64,
        /// The format known here.
        known: u64,
    },
}

/// The data and what is predicted from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataPlan {
    /// What is predicted.
    pub kind: TaskKind,
    /// Folder with the files.
    pub path: String,
    /// Files to train on, in order, in `path`.
    pub train: Vec<String>,
    /// Files to evaluate on; the first one steers choices. May be empty.
    pub validation: Vec<String>,
    /// Files to evaluate on once, after training. May be empty.
    pub test: Vec<String>,
    /// Format of the files.
    pub format: Format,
    /// Whether the first line names the columns.
    pub header: bool,
    /// Whether `"` quotes a field.
    pub quoting: bool,
    /// Whether a row may have more columns than the first.
    pub extra_columns: bool,
    /// Encoding of the files.
    pub encoding: Encoding,
    /// One column with text, or two.
    pub texts: Vec<Column>,
    /// Column with the label.
    pub label: Column,
    /// A label in text ends before this character; empty where all of it is the label.
    pub label_separator: String,
    /// Label names; always [`Labels::Named`] in a plan.
    pub labels: Labels,
    /// What evaluation measures.
    pub metric: Metric,
    /// Longest input in tokens.
    pub max_length: u64,
    /// What to do with a line that cannot be read.
    pub on_bad_line: OnBadLine,
    /// Most lines skipped per file.
    pub bad_line_limit: u64,
    /// What is held out of the training file.
    pub validation_split: Split,
    /// What choices during training look at.
    pub evaluate_on: EvaluateOn,
    /// Labels of the training set that are made wrong on purpose. Not written where there are none.
    #[serde(default, skip_serializing_if = "LabelNoise::is_nothing")]
    pub label_noise: LabelNoise,
    /// Training examples used.
    pub train_limit: Limit,
    /// Texts trained on without a label. Not written where there are none.
    #[serde(default, skip_serializing_if = "Unlabelled::is_nothing")]
    pub unlabelled: Unlabelled,
    /// Validation examples used.
    pub validation_limit: Limit,
    /// Whether examples may be in both training and validation files.
    pub allow_overlap: bool,
}

/// Where label names come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// The sorted distinct values of the training file.
    Found,
    /// These; none for a regression.
    Named(Vec<String>),
}

/// What is held out of the training file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Nothing.
    Nothing,
    /// This share.
    Share(f64),
}

/// Labels made wrong on purpose, for experiments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelNoise {
    /// None.
    #[default]
    Nothing,
    /// Some of the training set's.
    Some {
        /// Probability of each, above 0 and at most 1.
        share: f64,
        /// What they become.
        kind: LabelNoiseKind,
        /// Seed of which and to what.
        seed: u64,
    },
}

impl LabelNoise {
    fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

/// Whether a count is of nothing.
fn none(count: &u64) -> bool {
    *count == 0
}

/// Texts without a label, from which the student learns a teacher's answers alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unlabelled {
    /// None.
    #[default]
    Nothing,
    /// Those of a file.
    Some {
        /// The file, in the data's folder.
        file: String,
        /// How many of its texts are used.
        limit: Limit,
    },
}

impl Unlabelled {
    fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

/// How many examples are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// All.
    All,
    /// The first so many after the shuffle.
    First(u64),
}

impl Limit {
    /// How many of `count` are used.
    pub fn of(self, count: u64) -> u64 {
        match self {
            Self::All => count,
            Self::First(limit) => limit.min(count),
        }
    }
}

/// How much data there is, after split and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examples {
    /// Examples trained on, those without a label with them.
    pub train: u64,
    /// How many of them have no label. Not written where all have one.
    #[serde(default, skip_serializing_if = "none")]
    pub unlabelled: u64,
    /// Their tokens, cut to `max_length`.
    pub train_tokens: Tokens,
    /// Examples that choices look at.
    pub validation: u64,
    /// Digest of the files.
    pub digest: Digest,
}

/// How text becomes tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerPlan {
    /// Folder or file.
    pub path: String,
    /// Whether text is lowercased, for `vocab.txt`.
    pub lowercase: bool,
    /// Tokens it knows.
    pub vocab_size: u64,
    /// Its digest.
    pub digest: Digest,
}

/// The shape of an encoder, in the words of a `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Architecture.
    pub model_type: ModelType,
    /// Rows of the token embeddings.
    pub vocab_size: u64,
    /// Width of the hidden states.
    pub hidden_size: u64,
    /// Layers.
    pub num_hidden_layers: u64,
    /// Attention heads.
    pub num_attention_heads: u64,
    /// Width of the feed-forward layers.
    pub intermediate_size: u64,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Rows of the position embeddings.
    pub max_position_embeddings: u64,
    /// Segment types.
    pub type_vocab_size: u64,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Probability of dropout on hidden states.
    pub hidden_dropout_prob: f64,
    /// Probability of dropout on attention.
    pub attention_probs_dropout_prob: f64,
    /// Probability of dropout before the classifier.
    pub classifier_dropout: f64,
}

impl ModelShape {
    /// The longest input in tokens.
    pub fn longest_input(&self) -> u64 {
        match self.model_type {
            // RoBERTa counts positions from the padding token's id, 1, plus one.
            ModelType::Roberta => self.max_position_embeddings.saturating_sub(2),
            ModelType::Bert | ModelType::Distilbert => self.max_position_embeddings,
        }
    }
}

/// The model that learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudentPlan {
    /// Where its weights come from.
    pub source: StudentSource,
    /// Layers of the source that it keeps, from 0.
    pub layers: Vec<u64>,
    /// Its shape, after layers were dropped and dropout overridden.
    pub shape: ModelShape,
    /// What the optimiser begins with. Not written where that is nothing.
    #[serde(default, skip_serializing_if = "Moments::are_zero")]
    pub moments: Moments,
}

/// What the optimiser begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moments {
    /// Zero.
    #[default]
    Zero,
    /// The moments beside the student's weights.
    Kept {
        /// Steps that they have heard of.
        updates: u64,
    },
}

impl Moments {
    pub(crate) fn are_zero(&self) -> bool {
        *self == Self::Zero
    }

    /// Steps of the optimiser that they have heard of.
    pub fn updates(self) -> u64 {
        match self {
            Self::Zero => 0,
            Self::Kept { updates } => updates,
        }
    }
}

/// Where the student's weights come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StudentSource {
    /// A pretrained model.
    Model {
        /// Its folder.
        path: String,
        /// Digest of its weights.
        digest: Digest,
    },
    /// Random weights.
    Fresh,
    /// A copy of the teacher.
    Teacher {
        /// The teacher's folder.
        path: String,
        /// Digest of its weights.
        digest: Digest,
    },
}

/// The model learnt from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherPlan {
    /// None: the student learns from labels alone.
    Nobody,
    /// Answers that a file holds.
    Answers {
        /// The file.
        path: String,
        /// Its digest.
        digest: Digest,
    },
    /// A fine-tuned model.
    Model {
        /// Its folder.
        path: String,
        /// Digest of its weights.
        digest: Digest,
        /// Its shape.
        shape: ModelShape,
        /// Where its answers come from.
        logits: Logits,
        /// Tokens it reads at once.
        batch_tokens: u64,
        /// Whose tokens it reads. Not written where they are the run's.
        #[serde(default, skip_serializing_if = "TeacherTokens::are_shared")]
        tokens: TeacherTokens,
    },
}

/// Whose tokens a teacher reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherTokens {
    /// The run's, which the student reads too.
    #[default]
    Shared,
    /// Those of the tokenizer in its folder.
    Own {
        /// That tokenizer's digest.
        digest: Digest,
    },
}

impl TeacherTokens {
    fn are_shared(&self) -> bool {
        *self == Self::Shared
    }
}

/// What the student is trained to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectivePlan {
    /// Weight of the teacher's term; the labels' term has the rest. 0 without a teacher.
    pub alpha: f64,
    /// Each of several teachers' part of the teacher's weight, which sum to one. Not written, and
    /// empty, where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teacher_parts: Vec<f64>,
    /// Divides the logits in the teacher's term.
    pub temperature: f64,
    /// Whether the teacher's term is multiplied by temperature².
    pub scale_by_temperature_squared: bool,
    /// How the teacher's term compares the two. Not written where it is the forward divergence.
    #[serde(default, skip_serializing_if = "Divergence::is_usual")]
    pub divergence: Divergence,
    /// Loss on the labels.
    pub label_loss: LabelLoss,
    /// Terms on hidden states.
    pub hidden: Vec<HiddenTermPlan>,
    /// How label and teacher are weighed where it is not by `alpha` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<crate::BalancePlan>,
    /// What the label becomes before the student learns from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regularizer: Option<crate::RegularizerPlan>,
    /// The second set that the regularizer learns from, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regularizer_meta: Option<crate::MetaPlan>,
}

impl ObjectivePlan {
    /// The run's second set, whoever learns from it.
    pub fn meta(&self) -> Option<&crate::MetaPlan> {
        let balance = self.balance.as_ref().and_then(|balance| balance.meta.as_ref());
        balance.or(self.regularizer_meta.as_ref())
    }
}

/// A term that compares what is inside teacher and student.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HiddenTermPlan {
    /// Its weight.
    pub weight: f64,
    /// [student, teacher] pairs: 0 is the embeddings' output, i the output of layer i (for
    /// attention, layer i itself, from 1).
    pub layers: Vec<[u64; 2]>,
    /// Positions compared.
    pub position: Position,
    /// How they are compared.
    pub compare: Compare,
}

/// How the insides are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// Mean squared difference.
    Mse {
        /// Whether a linear map is learned.
        projection: bool,
    },
    /// One minus the cosine.
    Cosine {
        /// Whether a linear map is learned.
        projection: bool,
    },
    /// Squared difference at unit length.
    NormalizedMse {
        /// Whether a linear map is learned.
        projection: bool,
    },
    /// KL divergence of relations among positions.
    AttentionRelation {
        /// The vectors related.
        relation: Relation,
        /// Heads they are cut into.
        heads: u64,
    },
}

/// How long, in what steps, and when to look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingPlan {
    /// The length as asked for.
    pub length: Length,
    /// Optimiser steps.
    pub total_steps: u64,
    /// Optimiser steps of one pass over the training set.
    pub steps_per_epoch: u64,
    /// What one optimiser step reads.
    pub batch: Batch,
    /// What is computed at once.
    pub micro_batch: Batch,
    /// Whether the inside of the student's layers is computed again in the backward pass in place
    /// of being kept. Plans of earlier versions do not say it, and did not.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Its course after the warm-up.
    pub lr_scheduler_type: Schedule,
    /// Steps in which it rises.
    pub warmup_steps: u64,
    /// Decay of weights.
    pub weight_decay: f64,
    /// Memory of the gradient's mean.
    pub adam_beta1: f64,
    /// Memory of the gradient's square.
    pub adam_beta2: f64,
    /// Added to the root of the squares.
    pub adam_epsilon: f64,
    /// Longest gradient; 0 turns clipping off.
    pub max_grad_norm: f64,
    /// Parameters that the optimiser treats in a way of their own. Not written where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<crate::GroupPlan>,
    /// How the student grows on the way. Not written where it does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<crate::StagePlan>,
    /// Which average of the weights is judged and kept. Plans of earlier versions do not say it, and
    /// plans without one do not either, so that they keep their digest.
    #[serde(default, skip_serializing_if = "Average::is_none")]
    pub average: Average,
    /// Decides order, dropout and fresh weights.
    pub seed: u64,
    /// When to evaluate.
    pub evaluate: Evaluate,
    /// When to save.
    pub save: Save,
    /// Checkpoints kept.
    pub save_total_limit: u64,
    /// When to stop early.
    pub early_stopping: EarlyStopping,
    /// Metric that decides which checkpoint is best; `loss` is best when lowest.
    pub metric_for_best: String,
    /// What to do with a step that is not finite.
    pub on_nonfinite: OnNonfinite,
    /// Most such steps skipped.
    pub nonfinite_limit: u64,
    /// What the factors of linear layers' products are rounded to.
    pub precision: Precision,
    /// Threads.
    pub threads: u64,
}

impl TrainingPlan {
    /// Sets the length of the run, and the warm-up to the same share of it.
    pub(crate) fn set_total_steps(&mut self, steps: u64) {
        let share = self.warmup_steps as f64 / self.total_steps.max(1) as f64;
        self.warmup_steps = (steps as f64 * share).ceil() as u64;
        if let Average::Swa { from_step, every } = &mut self.average {
            let of_steps = steps as f64 / self.total_steps.max(1) as f64;
            let scaled = |count: u64| (count as f64 * of_steps).ceil() as u64;
            (*from_step, *every) = (scaled(*from_step), scaled(*every).max(1));
        }
        self.length = Length::Steps(steps);
        let before = std::mem::replace(&mut self.total_steps, steps);
        crate::stage::shorten(self, steps as f64 / before.max(1) as f64);
    }
}

/// The length of a run as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Passes over the training set.
    Epochs(f64),
    /// Optimiser steps.
    Steps(u64),
}

/// An amount of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// So many sequences.
    Sequences(u64),
    /// As many sequences as fit into so many tokens.
    Tokens(u64),
}

/// Which average of the weights is judged and kept in place of the last ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// None: the weights themselves.
    #[default]
    None,
    /// The mean of the weights after step `from_step`, if there is one, and after every `every`-th
    /// step from there on (Izmailov et al. 2018, arXiv:1803.05407, algorithm 1).
    Swa {
        /// Steps done when the first weights are taken.
        from_step: u64,
        /// Steps from there to the next, and so on; 1 at least.
        every: u64,
    },
    /// The mean of the weights after all steps, those of n steps ago weighing `decayⁿ`.
    Ema {
        /// From 0 to below 1.
        decay: f64,
    },
}

impl Average {
    /// Whether the weights themselves are judged.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// When to evaluate. All but `Never` also evaluate at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evaluate {
    /// Not at all.
    Never,
    /// At the end.
    AtEnd,
    /// After each pass over the training set.
    EveryEpoch,
    /// Every so many steps.
    EverySteps(u64),
}

/// When to save. A run also saves at its end and when it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Save {
    /// At the moments of evaluation.
    WithEvaluation,
    /// Every so many steps.
    EverySteps(u64),
}

/// When to stop early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlyStopping {
    /// Never.
    Never,
    /// After so many evaluations without a better one.
    After(u64),
}

/// What is left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputPlan {
    /// Folder of the run.
    pub dir: String,
    /// Whether to write the best model.
    pub save_model: bool,
}
