//! What the student writes in place of the data's replies.
//!
//! In: the rows of a step. Out: rows with the same prompts and the student's own words behind them, or
//! such rows of steps before. Never: a text that depends on how the step is cut, or, where none is read
//! again, on what was written before.

use heirloom_base::Bytes;
use heirloom_data::text::Row;
use heirloom_engine::Device;
use heirloom_models::{
    Capacity, Decoder, DecoderBuffers, DecoderConfig, GenerateRoom, Generator, Purpose,
};

use super::job::{LanguageConfig, LanguageJob};
use crate::{OnPolicy, Replay, ReplayPlan, ReplayRatio, Source, add_written, prompts_of};

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
    /// Texts that are read again, where the plan does that, and the steps of the run.
    replay: Option<(Replay, u64)>,
}

/// How a plan reads texts again.
fn replay(job: &LanguageJob) -> Option<ReplayPlan> {
    let own = job.plan.objective.on_policy.as_ref()?;
    let texts = own.replay?;
    let ratio = match texts.ratio {
        heirloom_recipe::ReplayRatio::Falling => ReplayRatio::Falling,
        heirloom_recipe::ReplayRatio::Constant => ReplayRatio::Constant,
        heirloom_recipe::ReplayRatio::Rising => ReplayRatio::Rising,
    };
    Some(ReplayPlan {
        capacity: usize::try_from(texts.capacity).unwrap_or(usize::MAX),
        first: own.share,
        rise: texts.rise,
        margin: texts.margin,
        ratio,
        seed: job.plan.training.seed,
    })
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
            replay: replay(job).map(|plan| (Replay::new(plan), job.plan.training.total_steps)),
        })
    }

    /// Where the batch of `step` comes from.
    pub(super) fn source(&self, step: u64) -> Source {
        match &self.replay {
            Some((replay, steps)) => replay.source(step, *steps),
            None if self.by.writes(step) => Source::Written,
            None => Source::Data,
        }
    }

    /// Hears the loss on held-out data, in nats a token.
    pub(super) fn hear(&mut self, loss: f64) {
        if let Some((replay, _)) = &mut self.replay {
            replay.hear(loss);
        }
    }

    /// What must survive a crash; `None` where no text is read again.
    pub(super) fn state(&self) -> Option<Vec<f64>> {
        self.replay.as_ref().map(|(replay, _)| replay.state())
    }

    /// Puts it back; `false` where it is not this plan's.
    pub(super) fn restore(&mut self, state: &[f64]) -> bool {
        let Some((replay, _)) = &mut self.replay else { return false };
        match Replay::restore(replay.plan(), state) {
            Ok(found) => *replay = found,
            Err(_) => return false,
        }
        true
    }

    /// Rows of texts that were kept, into `into`: as many as `rows` have prompts.
    pub(super) fn read_again(&self, step: u64, rows: &[Row], into: &mut Vec<Row>) {
        into.clear();
        let Some((replay, _)) = &self.replay else { return };
        let count = rows.iter().flat_map(prompts_of).count();
        for text in replay.take(step, count) {
            self.put(text, into);
        }
    }

    /// Puts a text behind those that are there, in a row of its own where it does not fit.
    fn put(&self, text: &Row, into: &mut Vec<Row>) {
        let fits = |row: &&mut Row| row.ids.len() + text.ids.len() <= self.length;
        match into.last_mut().filter(fits) {
            None => into.push(text.clone()),
            Some(row) => {
                let first = row.ids.len() as u32;
                row.ids.extend_from_slice(&text.ids);
                row.labels.extend_from_slice(&text.labels);
                row.starts.extend(text.starts.iter().skip(1).map(|start| first + start));
            }
        }
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
                let mut row = Row::default();
                add_written(&mut row, prompt, &text.tokens);
                match &mut self.replay {
                    Some((replay, _)) => replay.keep(row),
                    None => self.put(&row, into),
                }
            }
            place = next;
        }
        if self.replay.is_some() {
            // What was just written is kept first, and the batch is drawn of all that is kept.
            self.read_again(step, rows, into);
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
    // Tokens and labels of texts that are read again, in the host's memory.
    let texts = replay(job).map_or(0, |plan| 2 * 4 * plan.capacity.saturating_mul(length));
    Bytes((4 * (kept + sequences * config.hidden_size)) as u64 + buffers.0 + texts as u64)
}
