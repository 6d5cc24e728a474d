//! Why a model could not be built, loaded or saved.

use std::io;
use std::path::PathBuf;

use crate::{DecoderType, ModelType};

/// One variant per cause; every one names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `config.json` cannot be read.
    #[error(
        "cannot read `{file}`: {source}; a model folder holds config.json, model.safetensors and \
         tokenizer.json"
    )]
    ReadConfig {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `config.json` is not JSON.
    #[error("`{file}`:{line}:{column}: not a model config: {reason}")]
    ConfigSyntax {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The parser's answer.
        reason: String,
    },
    /// A key has a value that no encoder can have.
    #[error("`{file}`: key `{key}` is {found}, expected {expected}")]
    ConfigKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value, as JSON.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A family this version does not know.
    #[error(
        "`{file}`: `model_type` is \"{found}\", expected one of {}{}",
        ModelType::NAMES.join(", "),
        if crate::DecoderType::find(found).is_some() {
            "; decoders are trained by a recipe with [text] in the place of [task]"
        } else {
            ""
        }
    )]
    ModelType {
        /// The file.
        file: PathBuf,
        /// What it says.
        found: String,
    },
    /// A family of decoders this version does not know.
    #[error(
        "`{file}`: `model_type` is \"{found}\", expected a decoder: one of {}",
        DecoderType::NAMES.join(", ")
    )]
    DecoderType {
        /// The file.
        file: PathBuf,
        /// What it says.
        found: String,
    },
    /// The names or shapes in the weights are not those of the model.
    #[error("{0}")]
    Mismatch(Box<crate::Mismatch>),
    /// The weights themselves cannot be read.
    #[error(transparent)]
    Store(#[from] heirloom_store::StoreError),
}

impl Error {
    /// Whose move it is: 3 (look at the named file) or what the disk says.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) => error.exit_code(),
            _ => 3,
        }
    }
}
