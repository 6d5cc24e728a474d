//! Decoders: embeddings, pre-norm blocks that look back only, a language model's head.
//!
//! In: a packed batch. Out: logits `[N, V]`, and the gradient of every parameter.
//! Never: a label, a loss, or a padding token. The law the tests hold: outputs and gradients are
//! those of `transformers`, and a sequence's outputs do not depend on what it is packed with.

mod block;
mod buffers;
mod config;
mod generate;
mod head;
mod rope;
mod weights;

pub use buffers::DecoderBuffers;
pub use config::{DecoderConfig, DecoderType, Positions};
pub use generate::{Generate, GenerateRoom, Generated, Generator, Sampling, Stopped};
pub use rope::{Rope, RopeScaling};

use heirloom_engine::{Device, Grads, Ids, Init, Params, ParamsBuilder, Role, RotaryAngles, View};

use crate::encoder::{Noise, embed_backward, site};
use crate::{Capacity, DeviceBatch, Purpose};
use block::{Attend, Block, Norm, Pass};
use head::LmHead;

/// A decoder on a device.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: DecoderConfig,
    params: Params,
    word_embeddings: View,
    /// Learned positions.
    position_embeddings: Option<View>,
    /// Inverse frequencies of rotary positions, `[1, D/2]`, and the factor of what they give.
    frequencies: Option<(View, f64)>,
    blocks: Vec<Block>,
    norm: Norm,
    head: LmHead,
}

impl Decoder {
    /// Lays the parameters out on `device`, all zero. Follow with [`Decoder::init`] or a load.
    pub fn new(device: &mut dyn Device, config: DecoderConfig) -> Self {
        let mut builder = ParamsBuilder::new(device);
        let gpt2 = config.model_type == DecoderType::Gpt2;
        let init = Init::Normal(config.initializer_range);
        let mut table = |name: &str, rows: usize| {
            builder.add(name, &[rows, config.hidden_size], Role::Embedding, init)
        };
        let words = if gpt2 { "transformer.wte.weight" } else { "model.embed_tokens.weight" };
        let word_embeddings = table(words, config.vocab_size);
        let position_embeddings = (config.positions == Positions::Learned)
            .then(|| table("transformer.wpe.weight", config.max_positions));
        let blocks = (0..config.layers).map(|at| Block::new(&mut builder, &config, at)).collect();
        let norm = if gpt2 { "transformer.ln_f" } else { "model.norm" };
        let norm = Norm::new(&mut builder, &config, norm);
        let head = LmHead::new(&mut builder, &config, word_embeddings);
        let params = builder.finish(device);
        let frequencies = match &config.positions {
            Positions::Learned => None,
            Positions::Rotary(rope) => {
                let values = rope.frequencies(config.head_size);
                let view = View::matrix(device.alloc(values.len()), 0, 1, values.len());
                device.write_f64(view, &values);
                Some((view, rope.factor()))
            }
        };
        Self {
            config,
            params,
            word_embeddings,
            position_embeddings,
            frequencies,
            blocks,
            norm,
            head,
        }
    }

    /// Fills every parameter from the words of `seed`.
    pub fn init(&self, device: &mut dyn Device, seed: u64) {
        self.params.init(device, seed);
    }

    /// The decoder's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The flat buffer and its index.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The weights of the word embeddings, `[V, C]`, where they are only ever looked up by row;
    /// `None` where they are the head too, whose gradient has every row.
    pub fn looked_up(&self) -> Option<View> {
        (!self.config.tied).then_some(self.word_embeddings)
    }

    /// Activations for batches up to `capacity`, with logits of every token.
    pub fn buffers(
        &self,
        device: &mut dyn Device,
        capacity: Capacity,
        purpose: &Purpose,
    ) -> DecoderBuffers {
        DecoderBuffers::new(device, &self.config, capacity, capacity.tokens, purpose)
    }

    /// Room for batches of this model.
    pub fn batch(&self, device: &mut dyn Device, capacity: Capacity) -> DeviceBatch {
        DeviceBatch::new(device, capacity, 0)
    }

    /// Logits of the token after each of the batch's, `[N, V]`; dropout is applied where `noise`
    /// is given.
    pub fn forward(
        &self,
        device: &mut dyn Device,
        batch: &DeviceBatch,
        buffers: &DecoderBuffers,
        noise: Option<Noise>,
    ) -> View {
        let last = self.forward_states(device, batch, buffers, noise);
        let logits = buffers.logits.first_rows(batch.tokens());
        self.head.forward(device, last, logits);
        logits
    }

    /// As [`Decoder::forward`] without the head: the last hidden states after the last norm,
    /// `[N, C]`, for whoever computes logits a few rows at a time from [`Decoder::head`].
    pub fn forward_states(
        &self,
        device: &mut dyn Device,
        batch: &DeviceBatch,
        buffers: &DecoderBuffers,
        noise: Option<Noise>,
    ) -> View {
        let pass = Pass { config: &self.config, batch, buffers, noise };
        self.states(device, pass, &|_| Attend::Batch)
    }

    /// The head's matrix, `[V, C]`: the word embeddings where they are tied.
    pub fn head(&self) -> View {
        self.head.matrix()
    }

    /// The last hidden states after the last norm, `[N, C]`; `attend` says of each block whom its
    /// tokens attend to.
    fn states(
        &self,
        device: &mut dyn Device,
        pass: Pass<'_>,
        attend: &dyn Fn(usize) -> Attend,
    ) -> View {
        let Pass { config, batch, buffers, noise } = pass;
        let n = batch.tokens();
        let embedded = buffers.hidden(0).first_rows(n);
        let (tables, count) = self.tables(batch);
        device.embed(&tables[..count], embedded);
        if let Some(dropout) = site(config.embedding_dropout, noise, batch, 0) {
            device.dropout(&dropout, embedded);
        }
        if let Some((frequencies, factor)) = self.frequencies {
            let (positions, out) = (batch.positions(), buffers.angles.first_rows(n));
            device.rotary_angles(&RotaryAngles { positions, frequencies, factor, out });
        }
        for (at, block) in self.blocks.iter().enumerate() {
            block.forward(device, pass, at, attend(at));
        }
        let (x, last) = (buffers.hidden(config.layers).first_rows(n), buffers.last.first_rows(n));
        let stats = buffers.last_stats.first_rows(n);
        self.norm.forward(device, config.norm_eps, x, None, stats, last);
        last
    }

    /// The gradient of the logits, `[N, V]`, to be written before [`Decoder::backward`].
    pub fn d_logits(&self, buffers: &DecoderBuffers, tokens: usize) -> View {
        buffers.backward().d_logits.first_rows(tokens)
    }

    /// Adds the gradient of every parameter to `grads`, a twin of the weights' space, or of those that
    /// it has a place for. `noise` must be the forward pass's.
    pub fn backward<'g>(
        &self,
        device: &mut dyn Device,
        batch: &DeviceBatch,
        buffers: &DecoderBuffers,
        grads: impl Into<Grads<'g>>,
        noise: Option<Noise>,
    ) {
        let grads = grads.into();
        let n = batch.tokens();
        let (last, d_states) = (buffers.last.first_rows(n), self.d_states(buffers, n));
        self.head.backward(device, grads, last, self.d_logits(buffers, n), d_states);
        self.backward_states(device, batch, buffers, grads, noise);
    }

    /// The gradient of what [`Decoder::forward_states`] returns, `[N, C]`, to be written before
    /// [`Decoder::backward_states`].
    pub fn d_states(&self, buffers: &DecoderBuffers, tokens: usize) -> View {
        buffers.backward().d_hidden.first_rows(tokens)
    }

    /// As [`Decoder::backward`], from the gradient of the last hidden states on: that of the head's
    /// matrix is the caller's to add to `grads`.
    pub fn backward_states<'g>(
        &self,
        device: &mut dyn Device,
        batch: &DeviceBatch,
        buffers: &DecoderBuffers,
        grads: impl Into<Grads<'g>>,
        noise: Option<Noise>,
    ) {
        let grads = grads.into();
        let (config, n) = (&self.config, batch.tokens());
        let pass = Pass { config, batch, buffers, noise };
        let d_hidden = self.d_states(buffers, n);
        let x = buffers.hidden(config.layers).first_rows(n);
        self.norm.backward(device, grads, x, buffers.last_stats.first_rows(n), d_hidden);
        for (at, block) in self.blocks.iter().enumerate().rev() {
            if !grads.any_before(block.end()) {
                return;
            }
            self.add_tap(device, buffers, at + 1, n);
            if buffers.was_overwritten(at) {
                // Dropout's words have addresses, so the same numbers come out again.
                block.forward(device, pass, at, Attend::Batch);
            }
            block.backward(device, pass, at, grads);
        }
        let (tables, count) = self.tables(batch);
        if tables[..count].iter().all(|(table, _)| grads.of(*table).is_none()) {
            return;
        }
        self.add_tap(device, buffers, 0, n);
        if let Some(dropout) = site(config.embedding_dropout, noise, batch, 0) {
            device.dropout(&dropout, d_hidden);
        }
        embed_backward(device, d_hidden, &tables[..count], grads);
    }

    /// Adds the gradient of hidden state `at`, where it is tapped.
    fn add_tap(&self, device: &mut dyn Device, buffers: &DecoderBuffers, at: usize, n: usize) {
        if let Some(tap) = buffers.d_hidden_tap(at) {
            device.add_scaled(1.0, tap.first_rows(n), buffers.backward().d_hidden.first_rows(n));
        }
    }

    /// The tables whose rows are summed for each token, and how many of the two there are.
    fn tables(&self, batch: &DeviceBatch) -> ([(View, Ids); 2], usize) {
        let words = (self.word_embeddings, batch.ids());
        let positions = self.position_embeddings.map(|table| (table, batch.positions()));
        ([words, positions.unwrap_or(words)], 1 + usize::from(positions.is_some()))
    }
}
