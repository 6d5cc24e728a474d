//! Encoders as growth sees them, and their configs after it.

use heirloom_models::{EncoderConfig, ModelType};

use crate::{Anatomy, Family, LmHead, Norm, Placement, Shape};

impl Anatomy {
    /// That of an encoder with this config. `lm_head` is its language-model head's.
    pub fn of_encoder(config: &EncoderConfig, lm_head: LmHead) -> Self {
        Self {
            family: match config.model_type {
                ModelType::Bert | ModelType::Roberta => Family::Bert,
                ModelType::DistilBert => Family::DistilBert,
            },
            norm: Norm::Layer,
            placement: Placement::Post,
            norm_eps: config.layer_norm_eps,
            rotary: false,
            head_norms: false,
            lm_head,
            shape: Shape {
                layers: config.layers,
                hidden: config.hidden_size,
                intermediate: config.intermediate_size,
                kv_heads: config.heads,
                group: 1,
                head_dim: config.hidden_size / config.heads,
                vocab: config.vocab_size,
                positions: config.max_positions,
            },
        }
    }

    /// The config of an encoder of this anatomy that has grown from one with `config`.
    pub fn encoder_config(&self, config: &EncoderConfig) -> EncoderConfig {
        let shape = self.shape;
        EncoderConfig {
            hidden_size: shape.hidden,
            layers: shape.layers,
            heads: shape.heads(),
            intermediate_size: shape.intermediate,
            vocab_size: shape.vocab,
            max_positions: shape.positions,
            ..config.clone()
        }
    }
}
