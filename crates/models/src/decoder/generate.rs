//! Text token by token, with the keys and values of earlier tokens kept.
//!
//! In: prompts of any lengths, together. Out: for each the tokens that follow, and why they ended.
//! Never: a random state; the word that decides a token is that of (seed, its position, its
//! prompt's address).

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
    /// Only tokens below this may be chosen; `None` for all that the model has logits for. Of a
    /// padded vocabulary the ids behind the last token stand for nothing.
    pub vocabulary: Option<usize>,
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
    /// Continues each prompt, whose address is its place. Equal calls give equal tokens.
    ///
    /// # Panics
    /// Where a prompt is empty, or it and the new tokens are longer than the model's positions.
    pub fn generate(
        &self,
        device: &mut dyn Device,
        prompts: &[Vec<u32>],
        ask: &Generate,
    ) -> Vec<Generated> {
        if prompts.is_empty() || ask.new_tokens == 0 {
            return prompts.iter().map(|_| Generated::nothing()).collect();
        }
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let room = GenerateRoom {
            sequences: prompts.len(),
            prompt_tokens: prompts.iter().map(Vec::len).sum(),
            length: longest + ask.new_tokens,
        };
        let addresses: Vec<u64> = (0..prompts.len() as u64).collect();
        Generator::new(self, device, room).generate(self, device, prompts, &addresses, ask)
    }
}

impl Generated {
    fn nothing() -> Self {
        Self { tokens: Vec::new(), stopped: Stopped::Length }
    }
}

/// What a [`Generator`] has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerateRoom {
    /// Prompts at a time, B.
    pub sequences: usize,
    /// Tokens of the prompts together.
    pub prompt_tokens: usize,
    /// Tokens of the longest prompt and what follows it, T.
    pub length: usize,
}

/// Keys and values of all blocks, and what a step needs beside them: room that is asked for once and
/// serves call after call. It holds `2 · L · B · T · K · D` numbers of keys and values.
#[derive(Debug)]
pub struct Generator {
    blocks: Vec<Kept>,
    room: GenerateRoom,
    batch: DeviceBatch,
    buffers: DecoderBuffers,
    slots: Ids,
    lengths: Ids,
    /// The last hidden states of each sequence, `[B, C]`.
    taken: View,
}

impl Generator {
    /// Room for texts of `model`.
    ///
    /// # Panics
    /// Where texts would be longer than the model's positions.
    pub fn new(model: &Decoder, device: &mut dyn Device, room: GenerateRoom) -> Self {
        let config = model.config();
        let GenerateRoom { sequences, prompt_tokens, length } = room;
        assert!(
            length <= config.max_positions,
            "{length} tokens, of a model with {} positions",
            config.max_positions
        );
        let width = config.key_heads * config.head_size;
        let mut matrix = |rows: usize, cols: usize| {
            let space = device.alloc(rows * cols);
            View::matrix(space, 0, rows, cols)
        };
        let blocks = (0..config.layers)
            .map(|_| Kept {
                keys: matrix(sequences * length, width),
                values: matrix(sequences * length, width),
            })
            .collect();
        let taken = matrix(sequences, config.hidden_size);
        let tokens = prompt_tokens.max(sequences);
        let capacity = Capacity { tokens, sequences, masked: 0 };
        let ids = device.alloc_ids(tokens + sequences);
        Self {
            blocks,
            room,
            batch: model.batch(device, capacity),
            buffers: DecoderBuffers::new(device, config, capacity, sequences, &Purpose::Infer),
            slots: Ids::at(ids, 0, tokens),
            lengths: Ids::at(ids, tokens, sequences),
            taken,
        }
    }

    /// Continues each prompt. A prompt's address decides the random words of its text, together
    /// with the seed and the position: equal addresses, prompts and weights give equal texts,
    /// whichever prompts are beside them.
    ///
    /// # Panics
    /// Where a prompt is empty, or prompts and new tokens do not fit the room.
    pub fn generate(
        &mut self,
        model: &Decoder,
        device: &mut dyn Device,
        prompts: &[Vec<u32>],
        addresses: &[u64],
        ask: &Generate,
    ) -> Vec<Generated> {
        assert_eq!(prompts.len(), addresses.len(), "one address for each prompt");
        let mut texts: Vec<Generated> = prompts.iter().map(|_| Generated::nothing()).collect();
        if prompts.is_empty() || ask.new_tokens == 0 {
            return texts;
        }
        self.check(prompts, ask.new_tokens);
        let words = model.config().vocab_size;
        let choices = ask.vocabulary.map_or(words, |size| size.min(words));
        let mut logits = self.read_prompts(model, device, prompts);
        for step in 0..ask.new_tokens {
            let rows = logits.chunks_exact(words);
            for (place, (text, row)) in texts.iter_mut().zip(rows).enumerate() {
                if text.stopped == Stopped::Token {
                    continue;
                }
                let position = prompts[place].len() + step;
                let token = choose(&row[..choices], ask.sampling, position, addresses[place]);
                text.tokens.push(token);
                if ask.stop.contains(&token) {
                    text.stopped = Stopped::Token;
                }
            }
            let all_ended = texts.iter().all(|text| text.stopped == Stopped::Token);
            if all_ended || step + 1 == ask.new_tokens {
                break;
            }
            logits = self.step(model, device, prompts, &texts);
        }
        texts
    }

    fn check(&self, prompts: &[Vec<u32>], new: usize) {
        let GenerateRoom { sequences, length, .. } = self.room;
        assert!(prompts.iter().all(|prompt| !prompt.is_empty()), "an empty prompt");
        assert!(prompts.len() <= sequences, "{} prompts in room for {sequences}", prompts.len());
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + new;
        assert!(longest <= length, "{longest} tokens in room for {length}");
    }

    /// Kept keys and values of `count` sequences.
    fn kept(&self, block: usize, count: usize) -> Kept {
        let rows = count * self.room.length;
        let Kept { keys, values } = self.blocks[block];
        Kept { keys: keys.first_rows(rows), values: values.first_rows(rows) }
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
            let first = (place * self.room.length) as u32;
            slots.extend(first..first + prompt.len() as u32);
            starts.push(positions.len() as u32);
        }
        self.upload(device, &prompts.concat(), &positions, &starts);
        let (count, slot_ids) = (prompts.len(), self.slots.first(slots.len()));
        device.write_ids(slot_ids, &slots);
        let (ends, last_rows) = (self.lengths.first(count), starts[1..].iter().map(|end| end - 1));
        device.write_ids(ends, &last_rows.collect::<Vec<u32>>());
        let (buffers, slots) = (&self.buffers, slot_ids);
        let pass = Pass { config: model.config(), batch: &self.batch, buffers, noise: None };
        let keep = |at: usize| Attend::Keep { kept: self.kept(at, count), slots };
        let last = model.states(device, pass, &keep);
        let (taken, logits) = (self.taken.first_rows(count), buffers.logits.first_rows(count));
        device.embed(&[(last, ends)], taken);
        model.head.forward(device, taken, logits);
        device.read(logits)
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
        let row = |(place, at): (usize, &u32)| (place * self.room.length) as u32 + at;
        let slots: Vec<u32> = positions.iter().enumerate().map(row).collect();
        device.write_ids(self.slots.first(count), &slots);
        let (buffers, slots) = (&self.buffers, self.slots.first(count));
        let filled = self.lengths.first(count);
        device.write_ids(filled, &lengths);
        let pass = Pass { config: model.config(), batch: &self.batch, buffers, noise: None };
        let attend =
            |at: usize| Attend::Kept { kept: self.kept(at, count), slots, lengths: filled };
        let last = model.states(device, pass, &attend);
        let logits = buffers.logits.first_rows(count);
        model.head.forward(device, last, logits);
        device.read(logits)
    }

    fn upload(&mut self, device: &mut dyn Device, ids: &[u32], positions: &[u32], starts: &[u32]) {
        let types = vec![0; ids.len()];
        let inputs = Inputs { ids, types: &types, positions, rows: positions, starts, masked: &[] };
        self.batch.upload(device, &inputs);
    }
}

/// The token that `sampling` takes from a row of logits.
fn choose(logits: &[f32], sampling: Sampling, position: usize, address: u64) -> u32 {
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
    let drawn = uniform(word(seed, Random::Generation, position as u64, address)) * total;
    let mut sum = 0.0;
    let at = weights.iter().position(|weight| {
        sum += weight;
        sum > drawn
    });
    order[at.unwrap_or(weights.len() - 1)]
}
