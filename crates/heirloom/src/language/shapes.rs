//! Configs of language models in the words of a plan, and back.

use std::path::Path;

use heirloom_base::Bytes;
use heirloom_data::tokens::Tokenizer;
use heirloom_models::{
    Decoder, DecoderConfig, DecoderType, EncoderConfig, Head, Model, ModelType, Positions,
};
use heirloom_recipe::{Architecture, DecoderShape, LanguageShape};
use heirloom_train::LanguageConfig;
use serde_json::{Map, Value, json};

use super::product_room;
use crate::failure::Failure;
use crate::opened::{config_of_shape, shape, written};

/// The config of a model folder, of a decoder or an encoder.
///
/// # Errors
/// Where it is neither, or has a value that is not supported.
pub fn open_config(folder: &Path) -> Result<LanguageConfig, Failure> {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    let map: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    let kind = map.get("model_type").and_then(Value::as_str).unwrap_or_default();
    if ModelType::NAMES.contains(&kind) {
        return Ok(LanguageConfig::Encoder(EncoderConfig::open(folder)?));
    }
    Ok(LanguageConfig::Decoder(DecoderConfig::open(folder)?))
}

/// A config in the words of a plan.
///
/// # Errors
/// Of a decoder that has no name there.
pub fn shape_of(config: &LanguageConfig) -> Result<LanguageShape, Failure> {
    let config = match config {
        LanguageConfig::Encoder(config) => return Ok(LanguageShape::Encoder(shape(config))),
        LanguageConfig::Decoder(config) => config,
    };
    let model_type = match config.model_type {
        DecoderType::Gpt2 => Architecture::Gpt2,
        DecoderType::Llama => Architecture::Llama,
        DecoderType::Mistral => Architecture::Mistral,
        DecoderType::Qwen2 => Architecture::Qwen2,
        DecoderType::Qwen3 => Architecture::Qwen3,
    };
    Ok(LanguageShape::Decoder(DecoderShape {
        model_type,
        vocab_size: config.vocab_size as u64,
        hidden_size: config.hidden_size as u64,
        num_hidden_layers: config.layers as u64,
        num_attention_heads: config.heads as u64,
        num_key_value_heads: config.key_heads as u64,
        head_dim: config.head_size as u64,
        intermediate_size: config.intermediate_size as u64,
        max_position_embeddings: config.max_positions as u64,
        rope_theta: match &config.positions {
            Positions::Learned => 0.0,
            Positions::Rotary(rope) => rope.theta,
        },
        tie_word_embeddings: config.tied,
        layer_norm_eps: config.norm_eps,
        initializer_range: config.initializer_range,
        hidden_dropout_prob: written(config.hidden_dropout),
        attention_probs_dropout_prob: written(config.attention_dropout),
    }))
}

/// A fresh student's config from the shape in a plan.
///
/// # Errors
/// Where the models' crate refuses it.
pub fn config_of(shape: &LanguageShape, tokenizer: &Tokenizer) -> Result<LanguageConfig, Failure> {
    let shape = match shape {
        LanguageShape::Encoder(shape) => {
            let pad = tokenizer.special().pad.unwrap_or(0);
            return Ok(LanguageConfig::Encoder(config_of_shape(shape, pad)?));
        }
        LanguageShape::Decoder(shape) => shape,
    };
    let mut keys = json!({
        "model_type": shape.model_type.name(),
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "initializer_range": shape.initializer_range,
    });
    let more = if shape.model_type == Architecture::Gpt2 {
        json!({
            "n_embd": shape.hidden_size,
            "n_layer": shape.num_hidden_layers,
            "n_head": shape.num_attention_heads,
            "n_inner": shape.intermediate_size,
            "n_positions": shape.max_position_embeddings,
            "layer_norm_epsilon": shape.layer_norm_eps,
        })
    } else {
        json!({
            "hidden_size": shape.hidden_size,
            "num_hidden_layers": shape.num_hidden_layers,
            "num_attention_heads": shape.num_attention_heads,
            "num_key_value_heads": shape.num_key_value_heads,
            "head_dim": shape.head_dim,
            "intermediate_size": shape.intermediate_size,
            "max_position_embeddings": shape.max_position_embeddings,
            "rope_theta": shape.rope_theta,
            "rms_norm_eps": shape.layer_norm_eps,
        })
    };
    if let (Value::Object(keys), Value::Object(more)) = (&mut keys, more) {
        keys.extend(more);
        // GPT-2's own ids are of its own vocabulary; others' config says what ends a text here.
        let end = tokenizer.named("eos_token").and_then(|token| tokenizer.id(token));
        keys.insert("eos_token_id".to_owned(), json!(end));
        keys.insert("bos_token_id".to_owned(), json!(end));
    }
    let keys = keys.as_object().cloned().unwrap_or_default();
    Ok(LanguageConfig::Decoder(DecoderConfig::from_map(Path::new("student.config"), keys)?))
}

/// The config with the dropout of a plan's shape, which is what is saved too.
pub(super) fn with_dropout(config: LanguageConfig, shape: &LanguageShape) -> LanguageConfig {
    match (config, shape) {
        (LanguageConfig::Decoder(mut config), LanguageShape::Decoder(shape)) => {
            let (hidden, attention) =
                (shape.hidden_dropout_prob, shape.attention_probs_dropout_prob);
            if config.model_type == DecoderType::Gpt2 {
                for (key, value) in
                    [("embd_pdrop", hidden), ("resid_pdrop", hidden), ("attn_pdrop", attention)]
                {
                    config.raw.insert(key.to_owned(), json!(value));
                }
                config.embedding_dropout = hidden as f32;
                config.hidden_dropout = hidden as f32;
            } else {
                config.raw.insert("attention_dropout".to_owned(), json!(attention));
            }
            config.attention_dropout = attention as f32;
            LanguageConfig::Decoder(config)
        }
        (LanguageConfig::Encoder(config), LanguageShape::Encoder(shape)) => {
            LanguageConfig::Encoder(EncoderConfig {
                hidden_dropout: shape.hidden_dropout_prob as f32,
                attention_dropout: shape.attention_probs_dropout_prob as f32,
                ..config
            })
        }
        (config, _) => config,
    }
}

/// Parameters of a model, counted on a device that holds nothing else for a moment and computes
/// nothing.
pub(super) fn parameters(config: &LanguageConfig) -> u64 {
    let mut device = heirloom_engine::Reference::<f32>::new();
    let params = match config.clone() {
        LanguageConfig::Decoder(config) => Decoder::new(&mut device, config).params().count(),
        LanguageConfig::Encoder(config) => {
            Model::new(&mut device, config, Head::MaskedLm).params().count()
        }
    };
    params as u64
}

/// Memory of the device's own: panels of the largest product, that of the head.
pub(super) fn room(config: &LanguageConfig, threads: usize) -> Bytes {
    let (c, f, v) = match config {
        LanguageConfig::Decoder(config) => {
            (config.hidden_size, config.intermediate_size, config.vocab_size)
        }
        LanguageConfig::Encoder(config) => {
            (config.hidden_size, config.intermediate_size, config.vocab_size)
        }
    };
    let widest = [(c, v.max(2 * f).max(3 * c)), (v.max(f), c)];
    let room = widest.map(|(inner, columns)| product_room(inner, columns, threads));
    Bytes(room.into_iter().max().unwrap_or(0))
}
