//! Text token by token, with the keys and values of earlier tokens kept.
//!
//! In: prompts of any lengths, together. Out: for each the tokens that follow, and why they ended.
//! Never: a random state; the word that decides a token is that of (seed, its position, its
//! prompt's place).

use heirloom_base::{Purpose as Random, uniform, word};
use heirloom_engine::{Device, Ids, View};

use super::block::{Attend, Kept, Pass};
use super::{Decoder, DecoderBuffers};
use crate::{Capacity, DeviceBatch, Inputs, Purpose};

/// How a token is chosen from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The largest; of equal ones the first.
    Greedy,
    /// At random, by the softmax of `logits / temperature` cut to the most probable.
    Random {
        /// Positive.
        temperature: f64,
        /// Tokens at least as probable as the `top_k`-th; 0 keeps all.
        top_k: usize,
        /// Then the fewest tokens that hold this much probability together, in `(0, 1]`
        /// (Holtzman et al. 2020, arXiv:1904.09751).
        top_p: f64,
        /// Of the random words.
        seed: u64,
    },
}

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// Most tokens after each prompt.
    pub new_tokens: usize,
    /// A text ends with the first of these.
    pub stop: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// By a stop token, its last.
    Token,
    /// By its length.
    Length,
}

/// What follows a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Tokens after the prompt.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub stopped: Stopped,
}

impl Decoder {
    /// Continues each prompt. Equal calls give equal tokens.
    ///
    /// # Panics
    /// Where a prompt is empty, or it and the new tokens are longer than the model's positions.
    pub fn generate(
        &self,
        device: &mut dyn Device,
        prompts: &[Vec<u32>],
        ask: &Generate,
    ) -> Vec<Generated> {
        let length = |stopped| Generated { tokens: Vec::new(), stopped };
        let mut texts: Vec<Generated> = prompts.iter().map(|_| length(Stopped::Length)).collect();
        if prompts.is_empty() || ask.new_tokens == 0 {
            return texts;
        }
        let mut kept = Keeper::new(self, device, prompts, ask.new_tokens);
        let mut logits = kept.read_prompts(self, device, prompts);
        for step in 0..ask.new_tokens {
            let vocabulary = self.config().vocab_size;
            let rows = logits.chunks_exact(vocabulary);
            for (place, (text, row)) in texts.iter_mut().zip(rows).enumerate() {
                if text.stopped == Stopped::Token {
                    continue;
                }
                let token = choose(row, ask.sampling, prompts[place].len() + step, place);
                text.tokens.push(token);
                if ask.stop.contains(&token) {
                    text.stopped = Stopped::Token;
                }
            }
            let all_ended = texts.iter().all(|text| text.stopped == Stopped::Token);
            if all_ended || step + 1 == ask.new_tokens {
                break;
            }
            logits = kept.step(self, device, prompts, &texts);
        }
        texts
    }
}

/// Keys and values of all blocks, and what a step needs beside them.
struct Keeper {
    blocks: Vec<Kept>,
    /// Rows kept for each sequence.
    room: usize,
    batch: DeviceBatch,
    buffers: DecoderBuffers,
    slots: Ids,
    lengths: Ids,
    /// The last hidden states of each sequence, `[B, C]`.
    taken: View,
}

impl Keeper {
    fn new(model: &Decoder, device: &mut dyn Device, prompts: &[Vec<u32>], new: usize) -> Self {
        let config = model.config();
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let room = longest + new;
        assert!(prompts.iter().all(|prompt| !prompt.is_empty()), "an empty prompt");
        assert!(
            room <= config.max_positions,
            "{room} tokens, of a model with {} positions",
            config.max_positions
        );
        let count = prompts.len();
        let width = config.key_heads * config.head_size;
        let mut matrix = |rows: usize, cols: usize| {
            let space = device.alloc(rows * cols);
            View::matrix(space, 0, rows, cols)
        };
        let blocks = (0..config.layers)
            .map(|_| Kept {
                keys: matrix(count * room, width),
                values: matrix(count * room, width),
            })
            .collect();
        let taken = matrix(count, config.hidden_size);
        let tokens = prompts.iter().map(Vec::len).sum();
        let capacity = Capacity { tokens, sequences: count, masked: 0 };
        let ids = device.alloc_ids(tokens + count);
        Self {
            blocks,
            room,
            batch: model.batch(device, capacity),
            buffers: DecoderBuffers::new(device, config, capacity, count, &Purpose::Infer),
            slots: Ids::at(ids, 0, tokens),
            lengths: Ids::at(ids, tokens, count),
            taken,
        }
    }

    /// Logits after the last token of each prompt, `[B, V]`.
    fn read_prompts(
        &mut self,
        model: &Decoder,
        device: &mut dyn Device,
        prompts: &[Vec<u32>],
    ) -> Vec<f32> {
        let (mut positions, mut slots, mut starts) = (Vec::new(), Vec::new(), vec![0]);
        for (place, prompt) in prompts.iter().enumerate() {
            positions.extend(0..prompt.len() as u32);
            let first = (place * self.room) as u32;
            slots.extend(first..first + prompt.len() as u32);
            starts.push(positions.len() as u32);
        }
        self.upload(device, &prompts.concat(), &positions, &starts);
        device.write_ids(self.slots, &slots);
        let ends: Vec<u32> = starts[1..].iter().map(|end| end - 1).collect();
        device.write_ids(self.lengths, &ends);
        let (buffers, slots) = (&self.buffers, self.slots);
        let pass = Pass { config: model.config(), batch: &self.batch, buffers, noise: None };
        let keep = |at: usize| Attend::Keep { kept: self.blocks[at], slots };
        let last = model.states(device, pass, &keep);
        device.embed(&[(last, self.lengths)], self.taken);
        model.head.forward(device, self.taken, buffers.logits);
        device.read(buffers.logits)
    }

    /// Logits after the last token of each text, `[B, V]`. A text that has ended is read again
    /// where it ended; nobody looks at what comes of it.
    fn step(
        &mut self,
        model: &Decoder,
        device: &mut dyn Device,
        prompts: &[Vec<u32>],
        texts: &[Generated],
    ) -> Vec<f32> {
        let count = prompts.len();
        let tokens: Vec<u32> = texts.iter().filter_map(|t| t.tokens.last()).copied().collect();
        let ends = prompts.iter().zip(texts).map(|(a, b)| (a.len() + b.tokens.len()) as u32);
        let lengths: Vec<u32> = ends.collect();
        let positions: Vec<u32> = lengths.iter().map(|length| length - 1).collect();
        let starts: Vec<u32> = (0..=count as u32).collect();
        self.upload(device, &tokens, &positions, &starts);
        let row = |(place, at): (usize, &u32)| (place * self.room) as u32 + at;
        let slots: Vec<u32> = positions.iter().enumerate().map(row).collect();
        device.write_ids(self.slots.first(count), &slots);
        device.write_ids(self.lengths, &lengths);
        let (buffers, slots, lengths) = (&self.buffers, self.slots.first(count), self.lengths);
        let pass = Pass { config: model.config(), batch: &self.batch, buffers, noise: None };
        let attend = |at: usize| Attend::Kept { kept: self.blocks[at], slots, lengths };
        let last = model.states(device, pass, &attend);
        model.head.forward(device, last, buffers.logits);
        device.read(buffers.logits)
    }

    fn upload(&mut self, device: &mut dyn Device, ids: &[u32], positions: &[u32], starts: &[u32]) {
        let types = vec![0; ids.len()];
        let inputs = Inputs { ids, types: &types, positions, rows: positions, starts, masked: &[] };
        self.batch.upload(device, &inputs);
    }
}

/// The token that `sampling` takes from a row of logits.
fn choose(logits: &[f32], sampling: Sampling, position: usize, place: usize) -> u32 {
    let Sampling::Random { temperature, top_k, top_p, seed } = sampling else {
        let larger = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
        return (0..logits.len()).fold(0, larger) as u32;
    };
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    // By size, then by token: equal logits do not depend on the way they are sorted.
    let logit = |token: u32| logits[token as usize];
    order.sort_unstable_by(|&a, &b| logit(b).total_cmp(&logit(a)).then(a.cmp(&b)));
    if (1..order.len()).contains(&top_k) {
        let least = logit(order[top_k - 1]);
        order.truncate(order.partition_point(|&token| logit(token) >= least));
    }
    let largest = f64::from(logit(order[0]));
    let weights = order.iter().map(|&t| libm::exp((f64::from(logit(t)) - largest) / temperature));
    let mut weights: Vec<f64> = weights.collect();
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let inside = weights.iter().position(|weight| {
        sum += weight;
        sum >= top_p * total
    });
    weights.truncate(inside.map_or(weights.len(), |last| last + 1));
    let total: f64 = weights.iter().sum();
    let drawn = uniform(word(seed, Random::Generation, position as u64, place as u64)) * total;
    let mut sum = 0.0;
    let at = weights.iter().position(|weight| {
        sum += weight;
        sum > drawn
    });
    order[at.unwrap_or(weights.len() - 1)]
}
