//! Activations of one decoder, planned to the number before the run.

use std::collections::BTreeMap;

use heirloom_base::Bytes;
use heirloom_engine::{ArenaPlan, Device, Reference, View};

use super::config::DecoderConfig;
use crate::{Capacity, Purpose, Taps};

/// Activations of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockBuffers {
    /// Input of the attention, after its norm.
    pub(super) normal: View,
    pub(super) stats: View,
    /// Queries, keys and values before the norms of heads; nothing where there are none.
    pub(super) raw: View,
    pub(super) head_stats: View,
    /// Queries, keys and values as attention reads them.
    pub(super) qkv: View,
    pub(super) lse: View,
    pub(super) context: View,
    /// The sum between the two branches.
    pub(super) middle: View,
    /// Input of the feed-forward layer, after its norm.
    pub(super) feed_normal: View,
    pub(super) feed_stats: View,
    /// Before the activation: F wide, or gate and up, 2F.
    pub(super) inner: View,
    pub(super) active: View,
}

impl BlockBuffers {
    fn plan(plan: &mut ArenaPlan, config: &DecoderConfig, n: usize) -> Self {
        let (c, f) = (config.hidden_size, config.intermediate_size);
        let heads = if config.head_norms() { config.heads + config.key_heads } else { 0 };
        Self {
            normal: plan.take(n, c),
            stats: plan.take(n, 2),
            raw: plan.take(if heads > 0 { n } else { 0 }, config.qkv_width()),
            head_stats: plan.take(if heads > 0 { n } else { 0 }, heads),
            qkv: plan.take(n, config.qkv_width()),
            lse: plan.take(n, config.heads),
            context: plan.take(n, config.context_width()),
            middle: plan.take(n, c),
            feed_normal: plan.take(n, c),
            feed_stats: plan.take(n, 2),
            inner: plan.take(n, if config.gated() { 2 * f } else { f }),
            active: plan.take(n, f),
        }
    }

    pub(super) fn first_rows(&self, n: usize) -> Self {
        let first = |view: View| view.first_rows(n.min(view.rows()));
        Self {
            normal: first(self.normal),
            stats: first(self.stats),
            raw: first(self.raw),
            head_stats: first(self.head_stats),
            qkv: first(self.qkv),
            lse: first(self.lse),
            context: first(self.context),
            middle: first(self.middle),
            feed_normal: first(self.feed_normal),
            feed_stats: first(self.feed_stats),
            inner: first(self.inner),
            active: first(self.active),
        }
    }
}

/// Scratch of the backward pass, shared by all blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backward {
    pub(super) d_hidden: View,
    pub(super) d_branch: View,
    pub(super) d_context: View,
    pub(super) d_active: View,
    pub(super) d_inner: View,
    pub(super) d_qkv: View,
    pub(super) d_logits: View,
}

/// All activations of one decoder.
#[derive(Clone, Debug)]
pub struct DecoderBuffers {
    /// Cosines and sines of each token's position, `[N, D]`.
    pub(super) angles: View,
    hidden: Vec<View>,
    blocks: Vec<BlockBuffers>,
    recompute: bool,
    pub(super) last: View,
    pub(super) last_stats: View,
    pub(super) logits: View,
    backward: Option<Backward>,
    d_hidden_taps: BTreeMap<usize, View>,
    d_qkv_taps: BTreeMap<usize, View>,
    numbers: usize,
}

impl DecoderBuffers {
    /// Plans the activations and asks the device for them, once. `logits` is how many rows the head
    /// computes at most: every token's in training, one per sequence in generation, none where the
    /// model's own head is not used ([`Decoder::forward_states`](crate::Decoder::forward_states)).
    pub fn new(
        device: &mut dyn Device,
        config: &DecoderConfig,
        capacity: Capacity,
        logits: usize,
        purpose: &Purpose,
    ) -> Self {
        let space = device.alloc(0);
        let buffers = Self::plan(&mut ArenaPlan::new(space), config, capacity, logits, purpose);
        device.resize(space, buffers.numbers);
        buffers
    }

    /// Memory that [`DecoderBuffers::new`] would ask for, in `f32`, without asking.
    pub fn bytes_needed(
        config: &DecoderConfig,
        capacity: Capacity,
        logits: usize,
        purpose: &Purpose,
    ) -> Bytes {
        let nowhere = Reference::<f32>::new().alloc(0);
        let plan = Self::plan(&mut ArenaPlan::new(nowhere), config, capacity, logits, purpose);
        Bytes(4 * plan.numbers as u64)
    }

    fn plan(
        plan: &mut ArenaPlan,
        config: &DecoderConfig,
        capacity: Capacity,
        logits: usize,
        purpose: &Purpose,
    ) -> Self {
        let (n, c, f) = (capacity.tokens, config.hidden_size, config.intermediate_size);
        let states = if *purpose == Purpose::Infer { 2 } else { config.layers + 1 };
        let angles = plan.take(n, config.head_size);
        let hidden = (0..states).map(|_| plan.take(n, c)).collect();
        let none = Taps::default();
        let (taps, train) = match purpose {
            Purpose::Infer | Purpose::Inspect => (&none, false),
            Purpose::Train(taps) | Purpose::Recompute(taps) => (taps, true),
        };
        let blocks = match purpose {
            Purpose::Infer => vec![BlockBuffers::plan(plan, config, n)],
            Purpose::Inspect | Purpose::Train(_) => {
                (0..config.layers).map(|_| BlockBuffers::plan(plan, config, n)).collect()
            }
            Purpose::Recompute(taps) => {
                let shared = BlockBuffers::plan(plan, config, n);
                let mut of_block = |block| match taps.qkv.contains(&block) {
                    true => BlockBuffers { qkv: plan.take(n, config.qkv_width()), ..shared },
                    false => shared,
                };
                (1..=config.layers).map(&mut of_block).collect()
            }
        };
        let last = plan.take(n, c);
        let last_stats = plan.take(n, 2);
        let logits = plan.take(logits, config.vocab_size);
        let backward = train.then(|| Backward {
            d_hidden: plan.take(n, c),
            d_branch: plan.take(n, c),
            d_context: plan.take(n, config.context_width()),
            d_active: plan.take(if config.gated() { n } else { 0 }, f),
            d_inner: plan.take(n, if config.gated() { 2 * f } else { f }),
            d_qkv: plan.take(n, config.qkv_width()),
            d_logits: plan.take(logits.rows(), config.vocab_size),
        });
        let d_hidden_taps = taps.hidden.iter().map(|&at| (at, plan.take(n, c))).collect();
        let width = config.qkv_width();
        let d_qkv_taps = taps.qkv.iter().map(|&at| (at, plan.take(n, width))).collect();
        Self {
            angles,
            hidden,
            blocks,
            recompute: matches!(purpose, Purpose::Recompute(_)),
            last,
            last_stats,
            logits,
            backward,
            d_hidden_taps,
            d_qkv_taps,
            numbers: plan.peak(),
        }
    }

    /// Hidden state `at`, `[N, C]` at capacity: 0 after the embeddings, i after block i, before the
    /// last norm. With [`Purpose::Infer`] only the last two computed are there.
    pub fn hidden(&self, at: usize) -> View {
        self.hidden[at % self.hidden.len()]
    }

    /// Queries, keys and values of block `at` (from 1) as attention reads them, `[N, (H + 2K)·D]`.
    pub fn qkv(&self, at: usize) -> View {
        self.block(at - 1).qkv
    }

    /// Gradient of hidden state `at` that an objective adds to, where it is tapped.
    pub fn d_hidden_tap(&self, at: usize) -> Option<View> {
        self.d_hidden_taps.get(&at).copied()
    }

    /// Gradient of block `at`'s queries, keys and values (from 1), where it is tapped.
    pub fn d_qkv_tap(&self, at: usize) -> Option<View> {
        self.d_qkv_taps.get(&at).copied()
    }

    /// Sets the gradients of all taps to zero, for the first `tokens` rows.
    pub fn clear_taps(&self, device: &mut dyn Device, tokens: usize) {
        for tap in self.d_hidden_taps.values().chain(self.d_qkv_taps.values()) {
            device.fill(tap.first_rows(tokens), 0.0);
        }
    }

    pub(super) fn block(&self, at: usize) -> &BlockBuffers {
        &self.blocks[at % self.blocks.len()]
    }

    /// Whether the inside of block `at` (from 0) is no longer there when its backward pass begins.
    pub(super) fn was_overwritten(&self, at: usize) -> bool {
        self.recompute && at + 1 < self.blocks.len()
    }

    pub(super) fn backward(&self) -> Backward {
        self.backward.expect("buffers for a backward pass were planned with Purpose::Train")
    }
}
