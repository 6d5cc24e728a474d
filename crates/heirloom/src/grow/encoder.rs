//! An encoder that grows: its anatomy, the config of what it becomes, its answers.

use std::path::Path;
use std::sync::Arc;

use heirloom_data::label::{Labels, RawLabel};
use heirloom_data::source::{OnBadLine, Row, Rows, Skipped};
use heirloom_data::tokens::Tokenizer;
use heirloom_growth::{Anatomy, LmHead};
use heirloom_models::{EncoderConfig, Head};
use heirloom_store::TensorFolder;
use serde_json::{Value, json};

use super::{LONGEST, Outputs, SENTENCES};
use crate::answer::{Answerer, head_of};
use crate::failure::Failure;

/// What is known of it before a weight is read.
#[derive(Debug)]
pub(super) struct SmallEncoder {
    config: EncoderConfig,
    head: Head,
}

impl SmallEncoder {
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        let config = EncoderConfig::open(folder)?;
        let head = head_of(folder, &config)?;
        Ok(Self { config, head })
    }

    pub(super) fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Whether its outputs are hidden states.
    pub(super) fn embeds(&self) -> bool {
        matches!(self.head, Head::Embedding | Head::MaskedLm)
    }

    pub(super) fn anatomy(&self, weights: &TensorFolder) -> Anatomy {
        let config = &self.config;
        let heads = ["cls.predictions.transform.dense", "lm_head.dense", "vocab_transform"];
        let has_head = weights.names().any(|name| heads.iter().any(|head| name.starts_with(head)));
        let untied = config.raw.get("tie_word_embeddings") == Some(&Value::Bool(false));
        let lm_head = match (has_head, untied) {
            (false, _) => LmHead::None,
            (true, false) => LmHead::Tied,
            (true, true) => LmHead::Untied,
        };
        Anatomy::of_encoder(config, lm_head)
    }

    /// The text of the grown model's `config.json`.
    pub(super) fn config_json(&self, grown: &Anatomy) -> String {
        let config = grown.encoder_config(&self.config);
        let mut map = config.to_map();
        // What another program recorded about the small model says nothing about this one.
        for key in ["_name_or_path", "transformers_version"] {
            map.remove(key);
        }
        // Whatever the small model was kept in, this one is written in single precision.
        for key in ["dtype", "torch_dtype"] {
            map.entry(key).and_modify(|kind| *kind = json!("float32"));
        }
        let text = serde_json::to_string_pretty(&Value::Object(map));
        text.expect("a map of strings and numbers is JSON") + "\n"
    }
}

/// What the head of the model in `folder` says of each sentence.
pub(super) fn answers(
    folder: &Path,
    tokenizer: Arc<Tokenizer>,
    threads: usize,
) -> Result<Outputs, Failure> {
    let mut model = Answerer::with_tokenizer(folder, tokenizer, LONGEST, threads)?;
    let row = |(line, text): (u64, &&str)| Row {
        line,
        text: (*text).to_owned(),
        pair: None,
        label: RawLabel::Missing,
    };
    let rows = (1..).zip(&SENTENCES).map(row).collect();
    let skipped = Skipped { policy: OnBadLine::Error, counts: Default::default(), first: None };
    let answers = model.answer("<sentences>", &Rows { rows, skipped }, Labels::score())?;
    Ok(Outputs { values: answers.outputs, rows: SENTENCES.len() })
}
