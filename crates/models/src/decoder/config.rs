//! `config.json` of a decoder, as the numbers it is built from.
//!
//! In: the JSON text. Out: a [`DecoderConfig`] in which every number has been checked. Never: a
//! guess; a key that would change the mathematics and is not understood is refused.

use std::path::Path;

use heirloom_engine::Activation;
use serde_json::{Map, Value, json};

use super::rope::Rope;
use crate::Error;
use crate::config::{Keys, activation, parse_object, read_text};

/// The families of decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderType {
    /// GPT-2 (Radford et al. 2019).
    Gpt2,
    /// LLaMA (Touvron et al. 2023, arXiv:2302.13971) and what came after it.
    Llama,
    /// Mistral (Jiang et al. 2023, arXiv:2310.06825).
    Mistral,
    /// Qwen2 (Yang et al. 2024, arXiv:2407.10671).
    Qwen2,
    /// Qwen3 (Yang et al. 2025, arXiv:2505.09388).
    Qwen3,
}

impl DecoderType {
    /// The families by their `model_type`.
    pub const NAMES: [&'static str; 5] = ["gpt2", "llama", "mistral", "qwen2", "qwen3"];

    /// `model_type` in `config.json`.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The family called `name`.
    pub fn find(name: &str) -> Option<Self> {
        let all = [Self::Gpt2, Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// The class that `transformers` loads a saved folder with.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Gpt2 => "GPT2LMHeadModel",
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}

/// How a token's position enters.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// A table of `max_positions` rows, added to the word embeddings.
    Learned,
    /// Queries and keys are rotated.
    Rotary(Rope),
}

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The family.
    pub model_type: DecoderType,
    /// V.
    pub vocab_size: usize,
    /// C.
    pub hidden_size: usize,
    /// L.
    pub layers: usize,
    /// H.
    pub heads: usize,
    /// K, heads of keys and values; divides H.
    pub key_heads: usize,
    /// D, the width of a head; H·D need not be C.
    pub head_size: usize,
    /// F.
    pub intermediate_size: usize,
    /// Non-linearity of the feed-forward layer, or of its gate.
    pub activation: Activation,
    /// How positions enter.
    pub positions: Positions,
    /// The longest sequence the config speaks of.
    pub max_positions: usize,
    /// For each block how many keys a query sees, where not all before it.
    pub windows: Vec<Option<usize>>,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output has one.
    pub attention_out_bias: bool,
    /// Whether the feed-forward layers have.
    pub feed_forward_bias: bool,
    /// Whether the head is the word embeddings.
    pub tied: bool,
    /// ε of every norm.
    pub norm_eps: f64,
    /// Dropout of the embeddings.
    pub embedding_dropout: f32,
    /// Dropout of each branch before it is added.
    pub hidden_dropout: f32,
    /// Dropout of attention probabilities.
    pub attention_dropout: f32,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Tokens that end a text.
    pub stop_tokens: Vec<u32>,
    /// Everything that was read, so that saving loses no key.
    pub raw: Map<String, Value>,
}

impl DecoderConfig {
    /// Parses the text of `config.json`; `file` is for messages only.
    ///
    /// # Errors
    /// What is no JSON object, and each key with a value that is not supported.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        Self::from_map(file, parse_object(file, text)?)
    }

    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// As [`DecoderConfig::parse`], and where the file cannot be read.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let (file, text) = read_text(folder)?;
        Self::parse(&file, &text)
    }

    /// Builds a config from parsed keys.
    ///
    /// # Errors
    /// As [`DecoderConfig::parse`].
    pub fn from_map(file: &Path, raw: Map<String, Value>) -> Result<Self, Error> {
        let keys = Keys { file, map: &raw };
        let kind = keys.text("model_type", "")?;
        let Some(model_type) = DecoderType::find(&kind) else {
            return Err(Error::DecoderType { file: file.to_owned(), found: kind });
        };
        let mut config = match model_type {
            DecoderType::Gpt2 => gpt2(&keys)?,
            _ => llama(&keys, model_type)?,
        };
        config.raw = raw;
        Ok(config)
    }

    /// Columns of queries, keys and values together: `(H + 2K)·D`.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.key_heads) * self.head_size
    }

    /// H·D.
    pub fn context_width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Whether the feed-forward layer is gated.
    pub fn gated(&self) -> bool {
        self.model_type != DecoderType::Gpt2
    }

    /// Whether each head of queries and keys is normalised.
    pub fn head_norms(&self) -> bool {
        self.model_type == DecoderType::Qwen3
    }

    /// The keys to write: every key that was read, with every number that may have been changed put
    /// back under the family's name for it.
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = self.raw.clone();
        let says = |key: &str| self.raw.get(key).is_some_and(|value| !value.is_null());
        let mut set = |key: &str, value: Value| map.insert(key.to_owned(), value);
        set("vocab_size", json!(self.vocab_size));
        set("tie_word_embeddings", json!(self.tied));
        if self.model_type == DecoderType::Gpt2 {
            set("n_embd", json!(self.hidden_size));
            set("n_layer", json!(self.layers));
            set("n_head", json!(self.heads));
            set("n_positions", json!(self.max_positions));
            set("layer_norm_epsilon", json!(self.norm_eps));
            // Left out, it is four times the hidden size.
            if says("n_inner") || self.intermediate_size != 4 * self.hidden_size {
                set("n_inner", json!(self.intermediate_size));
            }
            return map;
        }
        set("hidden_size", json!(self.hidden_size));
        set("num_hidden_layers", json!(self.layers));
        set("num_attention_heads", json!(self.heads));
        set("num_key_value_heads", json!(self.key_heads));
        set("intermediate_size", json!(self.intermediate_size));
        set("max_position_embeddings", json!(self.max_positions));
        set("rms_norm_eps", json!(self.norm_eps));
        // Left out, it is the hidden size over the heads, and 128 in Qwen3.
        let follows = self.context_width() == self.hidden_size && !self.head_norms();
        if says("head_dim") || !follows {
            set("head_dim", json!(self.head_size));
        }
        let listed = matches!(self.model_type, DecoderType::Qwen2 | DecoderType::Qwen3);
        let slides = self.windows.iter().any(Option::is_some);
        if listed && (says("layer_types") || slides) {
            let kind = |window: &Option<usize>| match window {
                Some(_) => "sliding_attention",
                None => "full_attention",
            };
            let kinds: Vec<&str> = self.windows.iter().map(kind).collect();
            set("layer_types", json!(kinds));
        }
        map
    }

    /// The text of `config.json` for a folder that `transformers` loads: [`DecoderConfig::to_map`]
    /// with the family's class and the type of the numbers that are saved.
    pub fn to_json(&self) -> String {
        let mut map = self.to_map();
        map.insert("architectures".to_owned(), json!([self.model_type.architecture()]));
        map.insert("dtype".to_owned(), json!("float32"));
        // What another program recorded about how it ran says nothing about these weights.
        for key in ["_name_or_path", "transformers_version", "torch_dtype"] {
            map.remove(key);
        }
        let text = serde_json::to_string_pretty(&Value::Object(map));
        text.expect("a map of strings and numbers is JSON") + "\n"
    }
}

/// A key that may be true or false.
fn flag(keys: &Keys<'_>, key: &str, default: bool) -> Result<bool, Error> {
    match keys.map.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(keys.bad(key, "true or false")),
    }
}

/// Refuses any value but `only`, which is also what the family takes where the key is missing.
fn only(keys: &Keys<'_>, key: &str, only: bool) -> Result<(), Error> {
    if flag(keys, key, only)? == only { Ok(()) } else { Err(keys.bad(key, &only.to_string())) }
}

fn probability(keys: &Keys<'_>, key: &str, default: f64) -> Result<f32, Error> {
    Ok(keys.number(key, default, 0.0, 0.999)? as f32)
}

fn activation_at(keys: &Keys<'_>, key: &str, default: &str) -> Result<Activation, Error> {
    let expected = "one of gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh";
    activation(&keys.text(key, default)?).ok_or_else(|| keys.bad(key, expected))
}

/// `eos_token_id`: none, one or several.
fn stop_tokens(keys: &Keys<'_>) -> Result<Vec<u32>, Error> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match keys.map.get("eos_token_id") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(ids)) => ids.iter().map(id).collect(),
        Some(one) => id(one).map(|id| vec![id]),
    };
    ids.ok_or_else(|| keys.bad("eos_token_id", "a token id or a list of them"))
}

fn divides(keys: &Keys<'_>, key: &str, part: usize, whole: usize) -> Result<(), Error> {
    let expected = || keys.bad(key, &format!("a divisor of {whole}"));
    if whole.is_multiple_of(part) { Ok(()) } else { Err(expected()) }
}

fn gpt2(keys: &Keys<'_>) -> Result<DecoderConfig, Error> {
    only(keys, "scale_attn_weights", true)?;
    only(keys, "scale_attn_by_inverse_layer_idx", false)?;
    only(keys, "add_cross_attention", false)?;
    let (hidden_size, heads) = (keys.size("n_embd", None)?, keys.size("n_head", None)?);
    divides(keys, "n_head", heads, hidden_size)?;
    let layers = keys.size("n_layer", None)?;
    Ok(DecoderConfig {
        model_type: DecoderType::Gpt2,
        vocab_size: keys.size("vocab_size", None)?,
        hidden_size,
        layers,
        heads,
        key_heads: heads,
        head_size: hidden_size / heads,
        intermediate_size: keys.size("n_inner", Some(4 * hidden_size as u64))?,
        activation: activation_at(keys, "activation_function", "gelu_new")?,
        positions: Positions::Learned,
        max_positions: keys.size("n_positions", Some(1024))?,
        windows: vec![None; layers],
        qkv_bias: true,
        attention_out_bias: true,
        feed_forward_bias: true,
        tied: flag(keys, "tie_word_embeddings", true)?,
        norm_eps: keys.number("layer_norm_epsilon", 1e-5, 0.0, 1.0)?,
        embedding_dropout: probability(keys, "embd_pdrop", 0.1)?,
        hidden_dropout: probability(keys, "resid_pdrop", 0.1)?,
        attention_dropout: probability(keys, "attn_pdrop", 0.1)?,
        initializer_range: keys.number("initializer_range", 0.02, 0.0, 10.0)?,
        stop_tokens: stop_tokens(keys)?,
        raw: Map::new(),
    })
}

fn llama(keys: &Keys<'_>, model_type: DecoderType) -> Result<DecoderConfig, Error> {
    use DecoderType::{Llama, Mistral, Qwen2, Qwen3};
    let hidden_size = keys.size("hidden_size", None)?;
    let heads = keys.size("num_attention_heads", None)?;
    let key_heads = match keys.map.get("num_key_value_heads") {
        // The families' own defaults.
        None if model_type == Mistral => 8,
        None if matches!(model_type, Qwen2 | Qwen3) => 32,
        _ => keys.size("num_key_value_heads", Some(heads as u64))?,
    };
    divides(keys, "num_key_value_heads", key_heads, heads)?;
    let head_size = match keys.map.get("head_dim") {
        None if model_type == Qwen3 => 128,
        None | Some(Value::Null) => {
            divides(keys, "num_attention_heads", heads, hidden_size)?;
            hidden_size / heads
        }
        Some(_) => keys.size("head_dim", None)?,
    };
    if !head_size.is_multiple_of(2) {
        return Err(keys.bad("head_dim", "an even number: rotary positions turn pairs"));
    }
    let layers = keys.size("num_hidden_layers", None)?;
    let max_positions = keys.size("max_position_embeddings", Some(2048))?;
    let biased = matches!(model_type, Llama | Qwen3) && flag(keys, "attention_bias", false)?;
    Ok(DecoderConfig {
        model_type,
        vocab_size: keys.size("vocab_size", None)?,
        hidden_size,
        layers,
        heads,
        key_heads,
        head_size,
        intermediate_size: keys.size("intermediate_size", None)?,
        activation: activation_at(keys, "hidden_act", "silu")?,
        positions: Positions::Rotary(Rope::read(keys, max_positions)?),
        max_positions,
        windows: windows(keys, model_type, layers)?,
        qkv_bias: biased || model_type == Qwen2,
        attention_out_bias: biased,
        feed_forward_bias: model_type == Llama && flag(keys, "mlp_bias", false)?,
        tied: flag(keys, "tie_word_embeddings", false)?,
        norm_eps: keys.number("rms_norm_eps", 1e-6, 0.0, 1.0)?,
        embedding_dropout: 0.0,
        hidden_dropout: 0.0,
        attention_dropout: probability(keys, "attention_dropout", 0.0)?,
        initializer_range: keys.number("initializer_range", 0.02, 0.0, 10.0)?,
        stop_tokens: stop_tokens(keys)?,
        raw: Map::new(),
    })
}

/// The window of each block.
fn windows(
    keys: &Keys<'_>,
    model_type: DecoderType,
    layers: usize,
) -> Result<Vec<Option<usize>>, Error> {
    let size = |default| match keys.map.get("sliding_window") {
        Some(Value::Null) => Ok(None),
        _ => keys.size("sliding_window", Some(default)).map(Some),
    };
    match model_type {
        DecoderType::Gpt2 | DecoderType::Llama => Ok(vec![None; layers]),
        DecoderType::Mistral => Ok(vec![size(4096)?; layers]),
        DecoderType::Qwen2 | DecoderType::Qwen3 => {
            let used = flag(keys, "use_sliding_window", false)?;
            let window = if used { size(4096)? } else { None };
            let kinds = match keys.map.get("layer_types") {
                None | Some(Value::Null) => {
                    let first = match keys.map.get("max_window_layers").and_then(Value::as_u64) {
                        Some(first) => first as usize,
                        None => 28,
                    };
                    return Ok((0..layers).map(|at| window.filter(|_| at >= first)).collect());
                }
                Some(Value::Array(kinds)) if kinds.len() == layers => kinds,
                Some(_) => {
                    return Err(keys.bad("layer_types", &format!("a list of {layers} names")));
                }
            };
            let of_kind = |kind: &Value| match kind.as_str() {
                Some("full_attention") => Ok(None),
                Some("sliding_attention") => Ok(window),
                _ => Err(keys.bad("layer_types", "full_attention or sliding_attention each")),
            };
            kinds.iter().map(of_kind).collect()
        }
    }
}
