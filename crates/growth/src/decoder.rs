//! Decoders as growth sees them, and their configs after it.

use heirloom_models::{DecoderConfig, DecoderType, Positions};

use crate::{Anatomy, Block, Error, Family, GrowthPlan, LmHead, Norm, Placement, Shape};

impl Anatomy {
    /// That of a decoder with this config.
    pub fn of_decoder(config: &DecoderConfig) -> Self {
        let gpt2 = config.model_type == DecoderType::Gpt2;
        let rotary = config.positions != Positions::Learned;
        Self {
            family: if gpt2 { Family::Gpt2 } else { Family::Llama },
            norm: if gpt2 { Norm::Layer } else { Norm::Rms },
            placement: Placement::Pre,
            norm_eps: config.norm_eps,
            rotary,
            head_norms: config.head_norms(),
            lm_head: if config.tied { LmHead::Tied } else { LmHead::Untied },
            shape: Shape {
                layers: config.layers,
                hidden: config.hidden_size,
                intermediate: config.intermediate_size,
                kv_heads: config.key_heads,
                group: config.heads / config.key_heads,
                head_dim: config.head_size,
                vocab: config.vocab_size,
                positions: if rotary { 0 } else { config.max_positions },
            },
        }
    }

    /// The config of a decoder of this anatomy that has grown by `plan` from one with `config`. Windows
    /// go with the layer that they belong to.
    ///
    /// # Errors
    /// What growing could do and `transformers` would not read.
    pub fn decoder_config(
        &self,
        config: &DecoderConfig,
        plan: &GrowthPlan,
    ) -> Result<DecoderConfig, Error> {
        let shape = self.shape;
        if config.model_type == DecoderType::Llama && !shape.hidden.is_multiple_of(shape.heads()) {
            let heads = shape.heads();
            return Err(Error::Size {
                what: "the hidden size".to_owned(),
                from: config.hidden_size,
                to: shape.hidden,
                why: format!("in LLaMA it is a multiple of the {heads} heads; name others"),
            });
        }
        let window = |block: &Block| config.windows[block.from];
        Ok(DecoderConfig {
            hidden_size: shape.hidden,
            layers: shape.layers,
            heads: shape.heads(),
            key_heads: shape.kv_heads,
            head_size: shape.head_dim,
            intermediate_size: shape.intermediate,
            vocab_size: shape.vocab,
            max_positions: if self.rotary { config.max_positions } else { shape.positions },
            windows: plan.blocks.iter().map(window).collect(),
            tied: self.lm_head == LmHead::Tied,
            norm_eps: self.norm_eps,
            ..config.clone()
        })
    }
}
