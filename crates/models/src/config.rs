//! `config.json` of a Hugging Face folder, as the numbers an encoder is built from.
//!
//! In: the JSON text. Out: an [`EncoderConfig`] in which every number has been checked. Never: a
//! guess; a key that would change the mathematics and is not understood is refused.

use std::path::{Path, PathBuf};

use heirloom_engine::Activation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Error;

/// The model families whose blocks are BERT's, with other names and other heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    /// BERT (Devlin et al. 2019, arXiv:1810.04805).
    Bert,
    /// RoBERTa (Liu et al. 2019, arXiv:1907.11692), and under names of their own XLM-RoBERTa (Conneau et
    /// al. 2020, arXiv:1911.02116) and CamemBERT (Martin et al. 2020, arXiv:1911.03894).
    Roberta,
    /// DistilBERT (Sanh et al. 2019, arXiv:1910.01108).
    DistilBert,
}

impl ModelType {
    /// The values of `model_type` that are known: of each family in order, then its other names.
    pub const NAMES: [&'static str; 5] =
        ["bert", "roberta", "distilbert", "xlm-roberta", "camembert"];

    /// `model_type` in `config.json`, of a new model.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The family called `name`.
    pub fn find(name: &str) -> Option<Self> {
        known(name).map(|(_, family, _)| family)
    }
}

/// A family's name, the family, and how the names of its classes in `transformers` begin.
type Known = (&'static str, ModelType, &'static str);

fn known(name: &str) -> Option<Known> {
    let [bert, roberta, distilbert, xlm_roberta, camembert] = ModelType::NAMES;
    let all = [
        (bert, ModelType::Bert, "Bert"),
        (roberta, ModelType::Roberta, "Roberta"),
        (distilbert, ModelType::DistilBert, "DistilBert"),
        (xlm_roberta, ModelType::Roberta, "XLMRoberta"),
        (camembert, ModelType::Roberta, "Camembert"),
    ];
    all.into_iter().find(|(known, ..)| *known == name)
}

/// The shape of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// The family.
    pub model_type: ModelType,
    /// Its name in the config, one of [`ModelType::NAMES`].
    pub called: &'static str,
    /// V.
    pub vocab_size: usize,
    /// C.
    pub hidden_size: usize,
    /// L.
    pub layers: usize,
    /// H; divides C.
    pub heads: usize,
    /// F.
    pub intermediate_size: usize,
    /// Non-linearity of the feed-forward layer.
    pub activation: Activation,
    /// Name of the same in the config.
    pub activation_name: String,
    /// Rows of the position table.
    pub max_positions: usize,
    /// Rows of the token-type table; 0 where the family has none.
    pub token_types: usize,
    /// ε of every layer norm.
    pub layer_norm_eps: f64,
    /// Dropout of hidden states.
    pub hidden_dropout: f32,
    /// Dropout of attention probabilities.
    pub attention_dropout: f32,
    /// Dropout before the classifier.
    pub classifier_dropout: f32,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Padding token. RoBERTa counts positions from the one after it.
    pub pad_token_id: u32,
    /// Labels, where the config names them.
    pub labels: Vec<String>,
    /// `architectures[0]`, where present.
    pub architecture: Option<String>,
    /// Everything that was read, so that saving loses no key.
    pub raw: Map<String, Value>,
}

/// Reads keys of one config with errors that name the file and the key.
pub(crate) struct Keys<'a> {
    pub(crate) file: &'a Path,
    pub(crate) map: &'a Map<String, Value>,
}

impl Keys<'_> {
    pub(crate) fn bad(&self, key: &str, expected: &str) -> Error {
        let found = self.map.get(key).map_or("nothing".to_owned(), Value::to_string);
        Error::ConfigKey {
            file: self.file.to_owned(),
            key: key.to_owned(),
            found,
            expected: expected.to_owned(),
        }
    }

    pub(crate) fn size(&self, key: &str, default: Option<u64>) -> Result<usize, Error> {
        match self.map.get(key) {
            None | Some(Value::Null) => {
                let value = default.ok_or_else(|| self.bad(key, "a positive integer"))?;
                Ok(value as usize)
            }
            Some(value) => match value.as_u64() {
                // Larger sizes than this overflow products of two sizes on no machine, and are
                // larger than any model known.
                Some(size) if (1..=1 << 24).contains(&size) => Ok(size as usize),
                _ => Err(self.bad(key, "a positive integer, at most 16777216")),
            },
        }
    }

    pub(crate) fn number(
        &self,
        key: &str,
        default: f64,
        low: f64,
        high: f64,
    ) -> Result<f64, Error> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => match value.as_f64() {
                Some(number) if (low..=high).contains(&number) => Ok(number),
                _ => Err(self.bad(key, &format!("a number in {low}..={high}"))),
            },
        }
    }

    pub(crate) fn text(&self, key: &str, default: &str) -> Result<String, Error> {
        match self.map.get(key) {
            None => Ok(default.to_owned()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(self.bad(key, "a string")),
        }
    }
}

/// The activation called `name` in a config.
pub fn activation(name: &str) -> Option<Activation> {
    Some(match name {
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        "tanh" => Activation::Tanh,
        _ => return None,
    })
}

/// The text of a folder's `config.json`, and its path.
pub(crate) fn read_text(folder: &Path) -> Result<(PathBuf, String), Error> {
    let file: PathBuf = folder.join("config.json");
    let text = std::fs::read_to_string(&file)
        .map_err(|source| Error::ReadConfig { file: file.clone(), source })?;
    Ok((file, text))
}

/// The keys of a config.
pub(crate) fn parse_object(file: &Path, text: &str) -> Result<Map<String, Value>, Error> {
    let value: Value = serde_json::from_str(text).map_err(|error| Error::ConfigSyntax {
        file: file.to_owned(),
        line: error.line(),
        column: error.column(),
        reason: error.to_string(),
    })?;
    let Value::Object(raw) = value else {
        return Err(Error::ConfigSyntax {
            file: file.to_owned(),
            line: 1,
            column: 1,
            reason: "expected an object".to_owned(),
        });
    };
    Ok(raw)
}

impl EncoderConfig {
    /// Parses the text of `config.json`; `file` is for messages only.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        Self::from_map(file, parse_object(file, text)?)
    }

    /// Builds a config from parsed keys.
    pub fn from_map(file: &Path, raw: Map<String, Value>) -> Result<Self, Error> {
        let keys = Keys { file, map: &raw };
        let kind = keys.text("model_type", "")?;
        let Some((called, model_type, _)) = known(&kind) else {
            return Err(Error::ModelType { file: file.to_owned(), found: kind });
        };
        let distil = model_type == ModelType::DistilBert;
        let either = |bert: &'static str, other: &'static str| if distil { other } else { bert };
        let activation_name = keys.text(either("hidden_act", "activation"), "gelu")?;
        let Some(activation) = activation(&activation_name) else {
            let expected = "one of gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh";
            return Err(keys.bad(either("hidden_act", "activation"), expected));
        };
        let positions = keys.text("position_embedding_type", "absolute")?;
        if positions != "absolute" {
            return Err(keys.bad("position_embedding_type", "\"absolute\""));
        }
        let hidden_size = keys.size(either("hidden_size", "dim"), Some(768))?;
        let heads = keys.size(either("num_attention_heads", "n_heads"), Some(12))?;
        if !hidden_size.is_multiple_of(heads) {
            return Err(keys.bad(
                either("num_attention_heads", "n_heads"),
                &format!("a divisor of the hidden size {hidden_size}"),
            ));
        }
        let hidden_dropout =
            keys.number(either("hidden_dropout_prob", "dropout"), 0.1, 0.0, 0.999)?;
        let classifier_default = if distil { 0.2 } else { hidden_dropout };
        let default_eps = if model_type == ModelType::Roberta { 1e-5 } else { 1e-12 };
        let config = Self {
            model_type,
            called,
            vocab_size: keys.size(
                "vocab_size",
                Some(if model_type == ModelType::Roberta { 50265 } else { 30522 }),
            )?,
            hidden_size,
            layers: keys
                .size(either("num_hidden_layers", "n_layers"), Some(if distil { 6 } else { 12 }))?,
            heads,
            intermediate_size: keys.size(either("intermediate_size", "hidden_dim"), Some(3072))?,
            activation,
            activation_name,
            max_positions: keys.size("max_position_embeddings", Some(512))?,
            token_types: if distil { 0 } else { keys.size("type_vocab_size", Some(2))? },
            // DistilBERT's config has no such key; its code uses this value.
            layer_norm_eps: if distil {
                1e-12
            } else {
                keys.number("layer_norm_eps", default_eps, 0.0, 1.0)?
            },
            hidden_dropout: hidden_dropout as f32,
            attention_dropout: keys.number(
                either("attention_probs_dropout_prob", "attention_dropout"),
                0.1,
                0.0,
                0.999,
            )? as f32,
            classifier_dropout: keys.number(
                either("classifier_dropout", "seq_classif_dropout"),
                classifier_default,
                0.0,
                0.999,
            )? as f32,
            initializer_range: keys.number("initializer_range", 0.02, 0.0, 10.0)?,
            pad_token_id: match raw.get("pad_token_id") {
                None | Some(Value::Null) => u32::from(model_type == ModelType::Roberta),
                Some(value) => value
                    .as_u64()
                    .and_then(|id| u32::try_from(id).ok())
                    .ok_or_else(|| keys.bad("pad_token_id", "a token id"))?,
            },
            labels: labels(&raw),
            architecture: raw
                .get("architectures")
                .and_then(|list| list.get(0))
                .and_then(Value::as_str)
                .map(str::to_owned),
            raw,
        };
        Ok(config)
    }

    /// Reads `config.json` of a model folder.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let (file, text) = read_text(folder)?;
        Self::parse(&file, &text)
    }

    /// How the names of its classes in `transformers` begin: `XLMRoberta`.
    pub fn class_prefix(&self) -> &'static str {
        known(self.called).map_or("", |(.., prefix)| prefix)
    }

    /// First position of a sequence: RoBERTa keeps the rows up to its padding token's unused.
    pub fn first_position(&self) -> u32 {
        if self.model_type == ModelType::Roberta { self.pad_token_id + 1 } else { 0 }
    }

    /// The longest sequence the position table allows.
    pub fn longest(&self) -> usize {
        self.max_positions - self.first_position() as usize
    }

    /// The keys to write, with every number that may have been changed put back under the name
    /// the family uses.
    pub fn to_map(&self) -> Map<String, Value> {
        let distil = self.model_type == ModelType::DistilBert;
        let mut map = self.raw.clone();
        let mut set = |bert: &str, other: &str, value: Value| {
            map.insert(if distil { other } else { bert }.to_owned(), value);
        };
        set("model_type", "model_type", json!(self.called));
        set("vocab_size", "vocab_size", json!(self.vocab_size));
        set("hidden_size", "dim", json!(self.hidden_size));
        set("num_hidden_layers", "n_layers", json!(self.layers));
        set("num_attention_heads", "n_heads", json!(self.heads));
        set("intermediate_size", "hidden_dim", json!(self.intermediate_size));
        set("hidden_act", "activation", json!(self.activation_name));
        set("max_position_embeddings", "max_position_embeddings", json!(self.max_positions));
        set("hidden_dropout_prob", "dropout", short(self.hidden_dropout));
        set("attention_probs_dropout_prob", "attention_dropout", short(self.attention_dropout));
        set("classifier_dropout", "seq_classif_dropout", short(self.classifier_dropout));
        set("initializer_range", "initializer_range", json!(self.initializer_range));
        set("pad_token_id", "pad_token_id", json!(self.pad_token_id));
        if !distil {
            map.insert("type_vocab_size".to_owned(), json!(self.token_types));
            map.insert("layer_norm_eps".to_owned(), json!(self.layer_norm_eps));
        }
        map
    }
}

/// A single-precision number as people write it: 0.1, not 0.10000000149011612.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

/// `id2label` in the order of its ids; empty where it is missing or has gaps.
fn labels(raw: &Map<String, Value>) -> Vec<String> {
    let Some(map) = raw.get("id2label").and_then(Value::as_object) else { return Vec::new() };
    let label = |id: usize| map.get(&id.to_string()).and_then(Value::as_str).map(str::to_owned);
    (0..map.len()).map_while(label).collect()
}
