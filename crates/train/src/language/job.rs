//! Everything the run of a language model needs, opened and checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heirloom_answers::Kept;
use heirloom_data::text::{Masker, PairedRows, Rows};
use heirloom_models::{DecoderConfig, EncoderConfig};
use heirloom_recipe::LanguagePlan;

use crate::Own;

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

/// Whom the student learns from.
#[derive(Clone, Debug)]
pub enum LanguageTeacher {
    /// A model that answers with every batch.
    Model {
        /// Its folder.
        path: PathBuf,
        /// Its config.
        config: LanguageConfig,
        /// What it reads where the student reads a row.
        reads: TeacherReads,
    },
    /// Its last hidden states were kept, and of the model only the head is asked.
    States {
        /// The model's folder.
        path: PathBuf,
        /// Its config, without layers.
        config: LanguageConfig,
        /// The states at the tokens of the training rows.
        kept: Arc<Kept>,
    },
    /// Its answers to the training rows were kept and name tokens.
    Answers(Arc<Kept>),
}

impl LanguageTeacher {
    /// Folder and config of the model of which something is in memory while the run goes on.
    pub fn model(&self) -> Option<(&Path, &LanguageConfig)> {
        match self {
            Self::Model { path, config, .. } | Self::States { path, config, .. } => {
                Some((path, config))
            }
            Self::Answers(_) => None,
        }
    }

    /// What was kept of it.
    pub fn kept(&self) -> Option<&Arc<Kept>> {
        match self {
            Self::Model { .. } => None,
            Self::States { kept, .. } | Self::Answers(kept) => Some(kept),
        }
    }

    /// What it reads; nothing where something was kept.
    pub fn reads(&self) -> Option<&TeacherReads> {
        match self {
            Self::Model { reads, .. } => Some(reads),
            Self::States { .. } | Self::Answers(_) => None,
        }
    }
}

/// The tokens of a teacher beside the student's. Several teachers read the same as the student.
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
    /// The teachers, in the order of the plan's.
    pub teachers: Vec<LanguageTeacher>,
    /// Files of the tokenizer, by name, for saved model folders.
    pub tokenizer_files: BTreeMap<String, Vec<u8>>,
    /// What the program brings of its own, where the plan names it.
    pub own: Own,
}

impl std::fmt::Debug for LanguageJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LanguageJob").field("plan", &self.plan).finish_non_exhaustive()
    }
}
