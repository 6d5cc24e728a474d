//! A decoder that grows: its anatomy, the config of what it becomes, its next-token logits.

use std::path::Path;

use heirloom_data::tokens::Tokenizer;
use heirloom_engine::{Cpu, Device};
use heirloom_growth::{Anatomy, Error, Family, GrowthPlan, LmHead, Norm, Placement, Shape};
use heirloom_models::{Capacity, Decoder, DecoderConfig, DecoderType, Inputs, Positions, Purpose};
use heirloom_store::TensorFolder;

use super::{LONGEST, Outputs, SENTENCES};
use crate::failure::Failure;

/// What is known of it before a weight is read.
#[derive(Debug)]
pub(super) struct SmallDecoder {
    config: DecoderConfig,
}

impl SmallDecoder {
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        Ok(Self { config: DecoderConfig::open(folder)? })
    }

    pub(super) fn anatomy(&self) -> Anatomy {
        let config = &self.config;
        let gpt2 = config.model_type == DecoderType::Gpt2;
        let rotary = config.positions != Positions::Learned;
        Anatomy {
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

    /// What growing could do and `transformers` would not read.
    pub(super) fn check(&self, from: Shape, to: Shape) -> Result<(), Failure> {
        if self.config.model_type == DecoderType::Llama && !to.hidden.is_multiple_of(to.heads()) {
            return Err(Failure::from(Error::Size {
                what: "the hidden size".to_owned(),
                from: from.hidden,
                to: to.hidden,
                why: format!("in LLaMA it is a multiple of the {} heads; name others", to.heads()),
            }));
        }
        Ok(())
    }

    /// The text of the grown model's `config.json`.
    pub(super) fn config_json(&self, plan: &GrowthPlan, grown: &Anatomy) -> String {
        let (config, shape) = (&self.config, grown.shape);
        let window = |block: &heirloom_growth::Block| config.windows[block.from];
        DecoderConfig {
            hidden_size: shape.hidden,
            layers: shape.layers,
            heads: shape.heads(),
            key_heads: shape.kv_heads,
            head_size: shape.head_dim,
            intermediate_size: shape.intermediate,
            vocab_size: shape.vocab,
            max_positions: if grown.rotary { config.max_positions } else { shape.positions },
            windows: plan.blocks.iter().map(window).collect(),
            tied: grown.lm_head == LmHead::Tied,
            norm_eps: grown.norm_eps,
            ..config.clone()
        }
        .to_json()
    }
}

/// The logits of the token after each token of each sentence, by the model in `folder`.
pub(super) fn logits(folder: &Path, threads: usize) -> Result<Outputs, Failure> {
    let config = DecoderConfig::open(folder)?;
    let tokenizer = Tokenizer::open(folder)?;
    let longest = LONGEST.min(config.max_positions);
    let mut texts: Vec<Vec<u32>> = Vec::new();
    for sentence in SENTENCES {
        texts.push(tokenizer.encode(sentence, None, longest)?.ids);
    }
    let vocabulary = config.vocab_size;
    if let Some(id) = texts.iter().flatten().find(|&&id| id as usize >= vocabulary) {
        return Err(Failure::input(format!(
            "`{}`: the tokenizer has token {id} and the model knows {vocabulary}; check that \
             config.json and the tokenizer belong together",
            folder.display(),
        )));
    }
    let mut device = Cpu::new(threads);
    let model = Decoder::new(&mut device, config);
    model.load(&mut device, &TensorFolder::open(folder)?, &|name| name.to_owned())?;
    let capacity = Capacity { tokens: longest, sequences: 1, masked: 0 };
    let mut batch = model.batch(&mut device, capacity);
    let buffers = model.buffers(&mut device, capacity, &Purpose::Infer);
    let mut outputs = Outputs { values: Vec::new(), rows: 0 };
    for ids in texts.iter().filter(|ids| !ids.is_empty()) {
        let count = ids.len() as u32;
        let positions: Vec<u32> = (0..count).collect();
        let inputs = Inputs {
            ids,
            types: &vec![0; ids.len()],
            positions: &positions,
            rows: &positions,
            starts: &[0, count],
            masked: &[],
        };
        batch.upload(&mut device, &inputs);
        let logits = model.forward(&mut device, &batch, &buffers, None);
        outputs.values.extend(device.read(logits));
        outputs.rows += ids.len();
    }
    if outputs.rows == 0 {
        let shown = folder.display();
        return Err(Failure::input(format!("`{shown}`: the tokenizer finds no token in English")));
    }
    Ok(outputs)
}
