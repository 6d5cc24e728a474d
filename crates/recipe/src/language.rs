//! What the run of a language model will do: every number decided.
//!
//! In: [`resolve_language`](crate::resolve_language()) alone makes these plans. Out: plain data, as a
//! [`Plan`] of a task is, and with the same parts where they are the same.

use heirloom_base::Digest;
use serde::{Deserialize, Serialize};

use crate::choices::{
    Architecture, DocumentShape, Documents, Missing, OnLong, Packing, ReplayRatio,
    TeacherVocabulary, TextFormat, TextKind,
};
use crate::divergence::Divergence;
use crate::plan::{
    Examples, HiddenTermPlan, Limit, ModelShape, NotAPlan, OutputPlan, Plan, Split, TokenizerPlan,
    TrainingPlan, read_plan,
};
use crate::resolve::InsideShape;
use crate::{BalancePlan, Line, PolicyPlan, RegularizerPlan};

/// A decided run of a language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanguagePlan {
    /// Version of this layout.
    pub format: u64,
    /// Name of the run.
    pub name: String,
    /// The text.
    pub text: TextPlan,
    /// How much of it there is, in rows.
    pub examples: Examples,
    /// How text becomes tokens.
    pub tokenizer: TokenizerPlan,
    /// The model that learns.
    pub student: LanguageStudent,
    /// The model learnt from.
    pub teacher: LanguageTeacherPlan,
    /// The others, where there are several. Not written where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_teachers: Vec<LanguageTeacherPlan>,
    /// What the student is trained to do.
    pub objective: LanguageObjective,
    /// How long, in what steps, and when to look.
    pub training: TrainingPlan,
    /// What is left behind.
    pub output: OutputPlan,
}

impl LanguagePlan {
    /// The digest of the whole plan.
    pub fn digest(&self) -> Digest {
        crate::plan::digest_of(self)
    }

    /// All teachers, in the recipe's order.
    pub fn teachers(&self) -> impl Iterator<Item = &LanguageTeacherPlan> {
        let first = (self.teacher != LanguageTeacherPlan::Nobody).then_some(&self.teacher);
        first.into_iter().chain(&self.other_teachers)
    }

    /// The plan as TOML, the way a run folder keeps it.
    pub fn to_toml(&self) -> String {
        crate::plan::toml_of(self)
    }

    /// Reads what [`LanguagePlan::to_toml`] wrote.
    ///
    /// # Errors
    /// What is no such plan, or of another version.
    pub fn from_toml(text: &str) -> Result<Self, NotAPlan> {
        read_plan(text)
    }

    /// The same run with another seed, in a folder of its own below this one's.
    pub fn with_seed(&self, seed: u64) -> Self {
        let mut plan = self.clone();
        plan.training.seed = seed;
        plan.output.dir = format!("{}/seed-{seed}", self.output.dir.trim_end_matches('/'));
        plan
    }
}

/// The text and how it fills rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextPlan {
    /// What is learnt of it.
    pub kind: TextKind,
    /// Folder with the files.
    pub path: String,
    /// Files to train on, in order; none are all that are not to evaluate on.
    pub train: Vec<String>,
    /// Files to evaluate on. May be empty.
    pub validation: Vec<String>,
    /// What is held out of the documents.
    pub validation_split: Split,
    /// Format of the files. Not written where each file's extension tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TextFormat>,
    /// What parts documents of plain text.
    pub documents: Documents,
    /// The line between two documents; empty where there is none.
    pub marker: String,
    /// What a document is made of.
    pub shape: DocumentShape,
    /// Field with the text or the messages.
    pub field: String,
    /// Chat template of examples with a reply. Not written where it is the tokenizer's or the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Today, for templates that say the date; empty where they may not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub date: String,
    /// A special token before each document; empty for none. Not written where it is still to be
    /// asked of the tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<String>,
    /// A special token after each document; empty for none. Not written where it is still to be
    /// asked of the tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Tokens of a row.
    pub sequence_length: u64,
    /// How documents fill rows.
    pub pack: Packing,
    /// What becomes of an example that is longer than a row.
    pub on_long: OnLong,
    /// Rows trained on.
    pub train_limit: Limit,
    /// Rows evaluated on.
    pub validation_limit: Limit,
    /// The rows that come first. Not written where all come in an order that is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<FirstPlan>,
    /// What is hidden. Not written for causal models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masking: Option<Masking>,
}

/// Which rows come before all others in the first epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstPlan {
    /// Folder or address of a small model's answers to all rows.
    pub answers: String,
    /// Share of the rows, above 0 and below 1.
    pub share: f64,
    /// Tokens are looked at where they are among so many likeliest.
    pub top_k: u64,
    /// Which rows they are. Not written where it is still to be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<FirstRows>,
}

/// The rows that come first, as they were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstRows {
    /// How many.
    pub count: u64,
    /// Of their numbers.
    pub digest: Digest,
}

/// What a masked language model has to guess.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    /// Probability of a token, above 0 and at most 1.
    pub probability: f64,
    /// Whether words are hidden as a whole.
    pub whole_words: bool,
}

/// The shape of a language model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LanguageShape {
    /// It foresees the next token.
    Decoder(DecoderShape),
    /// It guesses hidden ones.
    Encoder(ModelShape),
}

impl LanguageShape {
    /// Rows of the token embeddings.
    pub fn vocab_size(&self) -> u64 {
        match self {
            Self::Decoder(shape) => shape.vocab_size,
            Self::Encoder(shape) => shape.vocab_size,
        }
    }

    /// What terms on the inside must know.
    pub(crate) fn inside(&self) -> InsideShape {
        let [hidden_size, num_hidden_layers, num_attention_heads] = match self {
            Self::Decoder(shape) => {
                [shape.hidden_size, shape.num_hidden_layers, shape.num_attention_heads]
            }
            Self::Encoder(shape) => {
                [shape.hidden_size, shape.num_hidden_layers, shape.num_attention_heads]
            }
        };
        InsideShape { hidden_size, num_hidden_layers, num_attention_heads }
    }

    /// The longest text in tokens.
    pub fn longest_input(&self) -> u64 {
        match self {
            Self::Decoder(shape) => shape.max_position_embeddings,
            Self::Encoder(shape) => shape.longest_input(),
        }
    }
}

/// The shape of a decoder, in the words of LLaMA's `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderShape {
    /// Architecture: one of the decoders.
    pub model_type: Architecture,
    /// Rows of the token embeddings.
    pub vocab_size: u64,
    /// Width of the hidden states.
    pub hidden_size: u64,
    /// Layers.
    pub num_hidden_layers: u64,
    /// Attention heads.
    pub num_attention_heads: u64,
    /// Heads of keys and values.
    pub num_key_value_heads: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Width of the feed-forward layers.
    pub intermediate_size: u64,
    /// The longest text that positions are for.
    pub max_position_embeddings: u64,
    /// Base of rotary positions; 0 where positions are learned.
    pub rope_theta: f64,
    /// Whether the word embeddings are the head too.
    pub tie_word_embeddings: bool,
    /// Added to the variance in norms.
    pub layer_norm_eps: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Probability of dropout on embeddings and hidden states.
    pub hidden_dropout_prob: f64,
    /// Probability of dropout on attention.
    pub attention_probs_dropout_prob: f64,
}

/// The model that learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanguageStudent {
    /// Where its weights come from.
    pub source: crate::StudentSource,
    /// Its shape, with dropout as overridden.
    pub shape: LanguageShape,
    /// What the optimiser begins with. Not written where that is nothing.
    #[serde(default, skip_serializing_if = "crate::Moments::are_zero")]
    pub moments: crate::Moments,
}

/// The model learnt from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LanguageTeacherPlan {
    /// None: the student learns from text alone.
    Nobody,
    /// A trained model that answers with every batch.
    Model {
        /// Its folder.
        path: String,
        /// Digest of its weights.
        digest: Digest,
        /// Its shape.
        shape: LanguageShape,
        /// What is done where its vocabulary is not the student's. Not written where that is refused.
        #[serde(default = "refuse", skip_serializing_if = "is_refuse")]
        vocabulary: TeacherVocabulary,
    },
    /// Answers to the text that were kept.
    Kept {
        /// Their folder.
        path: String,
        /// Digest of all answers.
        digest: Digest,
        /// Digest of the weights of the model that gave them.
        teacher: Digest,
        /// Tokens of an answer at most.
        width: u64,
        /// Whether they were drawn from it; else they are the likeliest.
        drawn: bool,
        /// What becomes of the tokens that an answer does not name.
        missing: Missing,
        /// Folder of the teacher, whose head makes answers of hidden states where those are what was
        /// kept. Not written where answers name tokens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head: Option<String>,
    },
}

fn refuse() -> TeacherVocabulary {
    TeacherVocabulary::Refuse
}

fn is_refuse(choice: &TeacherVocabulary) -> bool {
    *choice == TeacherVocabulary::Refuse
}

/// How probabilities are compared by their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UldPlan {
    /// Ranks that are compared one by one.
    pub top: u64,
    /// The teacher's tokens of a row.
    pub sequence_length: u64,
}

/// Batches whose replies the student writes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnPolicyPlan {
    /// Share of the steps.
    pub share: f64,
    /// Most tokens after a prompt.
    pub max_new_tokens: u64,
    /// Of the drawing.
    pub temperature: f64,
    /// Whether texts are read again. Not written where all are new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayTexts>,
}

/// How a student's own texts are read again; `share` is then that of the first steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayTexts {
    /// Texts that are kept.
    pub capacity: u64,
    /// How the part of new ones goes over the run.
    pub ratio: ReplayRatio,
    /// What the share rises by.
    pub rise: f64,
    /// By how much the validation loss must have risen for that, in nats.
    pub margin: f64,
}

/// What the student is trained to do, token by token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanguageObjective {
    /// Weight of the teacher's term where no schedule says it; the text's has the rest. 0 without a
    /// teacher.
    pub alpha: f64,
    /// Each of several teachers' part of the teachers' weight, which sum to one. Not written, and
    /// empty, where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teacher_parts: Vec<f64>,
    /// The schedule of that weight, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<BalancePlan>,
    /// Whether a teacher falls silent once the student foresees the validation text better than it.
    pub until_overtaken: bool,
    /// Divides the logits in the teacher's term.
    pub temperature: Line,
    /// Whether the teacher's term is multiplied by temperature².
    pub scale_by_temperature_squared: bool,
    /// How the teacher's term compares the two.
    #[serde(default, skip_serializing_if = "Divergence::is_usual")]
    pub divergence: Divergence,
    /// Whether probabilities are compared by their size, with a teacher that reads its own tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uld: Option<UldPlan>,
    /// Batches whose replies the student writes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_policy: Option<OnPolicyPlan>,
    /// Terms on what is inside student and teacher.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<HiddenTermPlan>,
    /// What the next token becomes before the student learns it: smoothing or LABO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regularizer: Option<RegularizerPlan>,
}

impl LanguageObjective {
    /// Whether the teacher has no part from the first step to the last: its weight is 0, and nobody
    /// looks inside it.
    pub fn is_without_teacher(&self) -> bool {
        if !self.hidden.is_empty() {
            return false;
        }
        match self.balance.as_ref().map(|balance| &balance.policy) {
            Some(PolicyPlan::Schedule { from, to, .. }) => *from == 0.0 && *to == 0.0,
            None | Some(PolicyPlan::Fixed | PolicyPlan::DynamicKd { .. }) => self.alpha == 0.0,
            // The others decide it themselves.
            Some(PolicyPlan::Wsl { weight }) => *weight == 0.0,
            Some(_) => false,
        }
    }
}

/// The plan of a run of either kind, as a run folder keeps it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AnyPlan {
    /// Of a task with labels.
    Task(Box<Plan>),
    /// Of a language model.
    Language(Box<LanguagePlan>),
}

impl AnyPlan {
    /// Reads what either kind's `to_toml` wrote.
    ///
    /// # Errors
    /// What is neither, or of another version.
    pub fn from_toml(text: &str) -> Result<Self, NotAPlan> {
        let is_language = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("text"));
        if is_language {
            return Ok(Self::Language(Box::new(LanguagePlan::from_toml(text)?)));
        }
        Ok(Self::Task(Box::new(Plan::from_toml(text)?)))
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        match self {
            Self::Task(plan) => plan.to_toml(),
            Self::Language(plan) => plan.to_toml(),
        }
    }

    /// The digest of the whole plan.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Task(plan) => plan.digest(),
            Self::Language(plan) => plan.digest(),
        }
    }

    /// How long, in what steps, and when to look.
    pub fn training(&self) -> &TrainingPlan {
        match self {
            Self::Task(plan) => &plan.training,
            Self::Language(plan) => &plan.training,
        }
    }

    /// What is left behind.
    pub fn output(&self) -> &OutputPlan {
        match self {
            Self::Task(plan) => &plan.output,
            Self::Language(plan) => &plan.output,
        }
    }

    /// The same, to be changed.
    pub fn output_mut(&mut self) -> &mut OutputPlan {
        match self {
            Self::Task(plan) => &mut plan.output,
            Self::Language(plan) => &mut plan.output,
        }
    }

    /// The same run with another seed, in a folder of its own below this one's.
    pub fn with_seed(&self, seed: u64) -> Self {
        match self {
            Self::Task(plan) => Self::Task(Box::new(plan.with_seed(seed))),
            Self::Language(plan) => Self::Language(Box::new(plan.with_seed(seed))),
        }
    }
}
