//! What the student writes in place of the data's replies.
//!
//! In: the rows of a step. Out: rows with the same prompts and the student's own words behind them.
//! Never: a text that depends on how the step is cut, or on what was written before.

use heirloom_base::Bytes;
use heirloom_data::text::Row;
use heirloom_engine::Device;
use heirloom_models::{
    Capacity, Decoder, DecoderBuffers, DecoderConfig, GenerateRoom, Generator, Purpose,
};

use super::job::{LanguageConfig, LanguageJob};
use crate::{OnPolicy, add_written, prompts_of};

/// Prompts that are continued together.
const TOGETHER: usize = 8;

/// A student that writes, with the room for it.
#[derive(Debug)]
pub(super) struct Writer {
    by: OnPolicy,
    generator: Generator,
    /// Tokens of the longest text, and of a row.
    length: usize,
    stop: Vec<u32>,
    /// Ids from here on stand for no token.
    vocabulary: usize,
}

/// The plan's own batches, where it has some.
fn on_policy(job: &LanguageJob) -> Option<(OnPolicy, &DecoderConfig)> {
    let wanted = job.plan.objective.on_policy.as_ref()?;
    let LanguageConfig::Decoder(config) = &job.student else { return None };
    let by = OnPolicy {
        share: wanted.share,
        new_tokens: wanted.max_new_tokens as usize,
        temperature: wanted.temperature,
        seed: job.plan.training.seed,
    };
    Some((by, config))
}

fn room(job: &LanguageJob) -> GenerateRoom {
    let length = job.plan.text.sequence_length as usize;
    GenerateRoom { sequences: TOGETHER, prompt_tokens: TOGETHER * length, length }
}

impl Writer {
    /// Room for `student`, where the plan has batches of its own words.
    pub(super) fn new(
        device: &mut dyn Device,
        student: &Decoder,
        job: &LanguageJob,
    ) -> Option<Self> {
        let (by, config) = on_policy(job)?;
        let room = room(job);
        Some(Self {
            by,
            generator: Generator::new(student, device, room),
            length: room.length,
            stop: config.stop_tokens.clone(),
            vocabulary: job.plan.tokenizer.vocab_size as usize,
        })
    }

    /// Whether the student writes the batch of `step`.
    pub(super) fn writes(&self, step: u64) -> bool {
        self.by.writes(step)
    }

    /// Rows of what the student writes after the prompts of `rows`, into `into`: none where no prompt
    /// leaves room for as many tokens as it may write.
    pub(super) fn write(
        &mut self,
        device: &mut dyn Device,
        student: &Decoder,
        step: u64,
        rows: &[Row],
        into: &mut Vec<Row>,
    ) {
        into.clear();
        let most = self.length.saturating_sub(self.by.new_tokens);
        let prompts: Vec<Vec<u32>> = rows
            .iter()
            .flat_map(prompts_of)
            .filter(|prompt| prompt.len() <= most)
            .map(<[u32]>::to_vec)
            .collect();
        let ask = self.by.ask(self.stop.clone(), Some(self.vocabulary));
        let mut place = 0;
        for part in prompts.chunks(TOGETHER) {
            let next = place + part.len() as u32;
            let addresses: Vec<u64> = (place..next).map(|at| OnPolicy::address(step, at)).collect();
            let texts = self.generator.generate(student, device, part, &addresses, &ask);
            for (prompt, text) in part.iter().zip(&texts) {
                let length = prompt.len() + text.tokens.len();
                let fits = |row: &&mut Row| row.ids.len() + length <= self.length;
                match into.last_mut().filter(fits) {
                    Some(row) => add_written(row, prompt, &text.tokens),
                    None => {
                        let mut row = Row::default();
                        add_written(&mut row, prompt, &text.tokens);
                        into.push(row);
                    }
                }
            }
            place = next;
        }
    }
}

/// Memory that writing takes besides the weights.
pub(super) fn memory(job: &LanguageJob) -> Bytes {
    let Some((_, config)) = on_policy(job) else { return Bytes(0) };
    let GenerateRoom { sequences, prompt_tokens, length } = room(job);
    let kept = 2 * config.layers * sequences * length * config.key_heads * config.head_size;
    let capacity = Capacity { tokens: prompt_tokens, sequences, masked: 0 };
    let buffers = DecoderBuffers::bytes_needed(config, capacity, sequences, &Purpose::Infer);
    Bytes((4 * (kept + sequences * config.hidden_size)) as u64 + buffers.0)
}
