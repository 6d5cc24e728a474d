//! A decoder that grows: its anatomy, the config of what it becomes, its next-token logits.

use std::path::Path;

use heirloom_data::tokens::Tokenizer;
use heirloom_engine::{Cpu, Device};
use heirloom_growth::{Anatomy, GrowthPlan};
use heirloom_models::{Capacity, Decoder, DecoderConfig, Inputs, Purpose};
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

    pub(super) fn config(&self) -> &DecoderConfig {
        &self.config
    }

    pub(super) fn anatomy(&self) -> Anatomy {
        Anatomy::of_decoder(&self.config)
    }

    /// What growing could do and `transformers` would not read.
    pub(super) fn check(&self, plan: &GrowthPlan) -> Result<(), Failure> {
        plan.grown(&self.anatomy()).decoder_config(&self.config, plan)?;
        Ok(())
    }

    /// The text of the grown model's `config.json`.
    pub(super) fn config_json(
        &self,
        plan: &GrowthPlan,
        grown: &Anatomy,
    ) -> Result<String, Failure> {
        Ok(grown.decoder_config(&self.config, plan)?.to_json())
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
