//! Everything the run of a language model needs, opened and checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use heirloom_answers::Kept;
use heirloom_data::text::{Masker, PairedRows, Rows};
use heirloom_models::{DecoderConfig, EncoderConfig};
use heirloom_recipe::LanguagePlan;

/// The shape of a language model.
#[derive(Clone, Debug, PartialEq)]
pub enum LanguageConfig {
    /// It foresees the next token.
    Decoder(DecoderConfig),
    /// It guesses hidden ones.
    Encoder(EncoderConfig),
}

impl LanguageConfig {
    /// Rows of the token embeddings, V.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Decoder(config) => config.vocab_size,
            Self::Encoder(config) => config.vocab_size,
        }
    }

    /// Width of the hidden states, C.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Decoder(config) => config.hidden_size,
            Self::Encoder(config) => config.hidden_size,
        }
    }
}

/// Where a language model's weights come from.
#[derive(Clone, Debug)]
pub enum LanguageWeights {
    /// Drawn from the run's seed.
    Fresh,
    /// Zeros, for whoever fills them.
    Later,
    /// A model folder.
    Folder(PathBuf),
}

/// The model learnt from.
#[derive(Clone, Debug)]
pub struct LanguageTeacher {
    /// Its folder.
    pub path: PathBuf,
    /// Its config.
    pub config: LanguageConfig,
    /// What it reads where the student reads a row.
    pub reads: TeacherReads,
}

/// The tokens of a teacher beside the student's.
#[derive(Clone, Debug)]
pub enum TeacherReads {
    /// The same; a vocabulary that is padded further than the student's counts up to there.
    Same,
    /// The same text, token by token under its own ids: the teacher's id of each of the student's
    /// tokens, or [`NOT_SHARED`](heirloom_data::vocabulary::NOT_SHARED), `[V]`. What is not shared is
    /// left out of the divergence.
    Mapped(Arc<Vec<u32>>),
    /// The same text in tokens of its own; these rows are the job's.
    Own(Arc<PairedRows>),
    /// Nothing: its last hidden states are kept, and of the model only the head is asked. Its config
    /// has no layers.
    Kept,
}

/// A run, ready to start. Runs of several seeds share the rows.
#[derive(Clone)]
pub struct LanguageJob {
    /// Every number, decided.
    pub plan: LanguagePlan,
    /// What is trained on.
    pub train: Arc<dyn Rows>,
    /// What choices look at; `None` where the plan never evaluates.
    pub validation: Option<Arc<dyn Rows>>,
    /// What hides tokens of evaluations, and by the run's own seed those of training; `None` for a
    /// causal model.
    pub masker: Option<Masker>,
    /// The student's shape.
    pub student: LanguageConfig,
    /// The student's weights.
    pub weights: LanguageWeights,
    /// The teacher, where the plan has one.
    pub teacher: Option<LanguageTeacher>,
    /// The teacher's answers to `train`, where the plan has kept ones.
    pub kept: Option<Arc<Kept>>,
    /// Files of the tokenizer, by name, for saved model folders.
    pub tokenizer_files: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for LanguageJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LanguageJob").field("plan", &self.plan).finish_non_exhaustive()
    }
}
