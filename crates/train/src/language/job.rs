//! Everything the run of a language model needs, opened and checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use heirloom_data::text::Rows;
use heirloom_models::{DecoderConfig, EncoderConfig};
use heirloom_recipe::LanguagePlan;

/// The shape of a language model.
#[derive(Clone, Debug)]
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
    /// The student's shape.
    pub student: LanguageConfig,
    /// The student's weights.
    pub weights: LanguageWeights,
    /// The teacher, where the plan has one.
    pub teacher: Option<LanguageTeacher>,
    /// Files of the tokenizer, by name, for saved model folders.
    pub tokenizer_files: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for LanguageJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LanguageJob").field("plan", &self.plan).finish_non_exhaustive()
    }
}
