//! Activations of one model, planned to the number before the run.

use std::collections::{BTreeMap, BTreeSet};

use heirloom_base::Bytes;
use heirloom_engine::{ArenaPlan, Device, View};

use crate::head::HeadBuffers;
use crate::{Capacity, EncoderConfig, Head};

/// What the activations are for, which decides how many are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Outputs alone: two hidden states and one block's scratch.
    Infer,
    /// Every hidden state stays readable, nothing goes backward: a teacher whose inside is looked at.
    Inspect,
    /// All that the backward pass needs, and room for gradients of what is tapped.
    Train(Taps),
    /// As [`Purpose::Train`] with less memory and more work: of a block only its output is kept,
    /// and its inside is computed again in the backward pass (Chen et al. 2016, arXiv:1604.06174).
    /// Queries, keys and values that are tapped stay. The gradients are the same, bit for bit.
    Recompute(Taps),
}

impl Purpose {
    /// What an objective taps, where there is a backward pass.
    fn taps(&self) -> Option<&Taps> {
        match self {
            Self::Infer | Self::Inspect => None,
            Self::Train(taps) | Self::Recompute(taps) => Some(taps),
        }
    }
}

/// Places inside a model where an objective adds a gradient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taps {
    /// Hidden states: 0 after the embeddings, i after block i.
    pub hidden: BTreeSet<usize>,
    /// Queries, keys and values of block i, from 1.
    pub qkv: BTreeSet<usize>,
}

/// Activations of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerBuffers {
    pub(crate) qkv: View,
    pub(crate) lse: View,
    pub(crate) context: View,
    pub(crate) attended: View,
    pub(crate) attended_stats: View,
    pub(crate) middle: View,
    pub(crate) inner: View,
    pub(crate) active: View,
    pub(crate) summed: View,
    pub(crate) summed_stats: View,
}

impl LayerBuffers {
    fn plan(plan: &mut ArenaPlan, config: &EncoderConfig, n: usize) -> Self {
        let (c, f) = (config.hidden_size, config.intermediate_size);
        Self {
            qkv: plan.take(n, 3 * c),
            lse: plan.take(n, config.heads),
            context: plan.take(n, c),
            attended: plan.take(n, c),
            attended_stats: plan.take(n, 2),
            middle: plan.take(n, c),
            inner: plan.take(n, f),
            active: plan.take(n, f),
            summed: plan.take(n, c),
            summed_stats: plan.take(n, 2),
        }
    }

    pub(crate) fn first_rows(&self, n: usize) -> Self {
        Self {
            qkv: self.qkv.first_rows(n),
            lse: self.lse.first_rows(n),
            context: self.context.first_rows(n),
            attended: self.attended.first_rows(n),
            attended_stats: self.attended_stats.first_rows(n),
            middle: self.middle.first_rows(n),
            inner: self.inner.first_rows(n),
            active: self.active.first_rows(n),
            summed: self.summed.first_rows(n),
            summed_stats: self.summed_stats.first_rows(n),
        }
    }
}

/// Scratch of the backward pass, shared by all blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backward {
    pub(crate) d_hidden: View,
    pub(crate) d_branch: View,
    pub(crate) d_context: View,
    pub(crate) d_inner: View,
    pub(crate) d_qkv: View,
}

/// All activations of one model.
#[derive(Clone, Debug)]
pub struct Buffers {
    pub(crate) embedded: View,
    pub(crate) embedded_stats: View,
    hidden: Vec<View>,
    layers: Vec<LayerBuffers>,
    /// Whether the blocks share one inside, so that all but the last must be computed again.
    recompute: bool,
    pub(crate) head: HeadBuffers,
    backward: Option<Backward>,
    d_hidden_taps: BTreeMap<usize, View>,
    d_qkv_taps: BTreeMap<usize, View>,
    numbers: usize,
}

impl Buffers {
    /// Plans the activations and asks the device for them, once.
    pub fn new(
        device: &mut dyn Device,
        config: &EncoderConfig,
        head: &Head,
        capacity: Capacity,
        purpose: &Purpose,
    ) -> Self {
        let space = device.alloc(0);
        let buffers = Self::plan(&mut ArenaPlan::new(space), config, head, capacity, purpose);
        device.resize(space, buffers.numbers);
        buffers
    }

    /// Memory that [`Buffers::new`] would ask for, in `f32`, without asking.
    pub fn bytes_needed(
        config: &EncoderConfig,
        head: &Head,
        capacity: Capacity,
        purpose: &Purpose,
    ) -> Bytes {
        let nowhere = heirloom_engine::Reference::<f32>::new().alloc(0);
        let plan = Self::plan(&mut ArenaPlan::new(nowhere), config, head, capacity, purpose);
        Bytes(4 * plan.numbers as u64)
    }

    fn plan(
        plan: &mut ArenaPlan,
        config: &EncoderConfig,
        head: &Head,
        capacity: Capacity,
        purpose: &Purpose,
    ) -> Self {
        let n = capacity.tokens;
        let (c, f) = (config.hidden_size, config.intermediate_size);
        let states = if *purpose == Purpose::Infer { 2 } else { config.layers + 1 };
        let embedded = plan.take(n, c);
        let embedded_stats = plan.take(n, 2);
        let hidden = (0..states).map(|_| plan.take(n, c)).collect();
        let taps = purpose.taps();
        let layers = match purpose {
            Purpose::Infer => vec![LayerBuffers::plan(plan, config, n)],
            Purpose::Inspect | Purpose::Train(_) => {
                (0..config.layers).map(|_| LayerBuffers::plan(plan, config, n)).collect()
            }
            Purpose::Recompute(taps) => {
                let shared = LayerBuffers::plan(plan, config, n);
                let mut of_block = |block| match taps.qkv.contains(&block) {
                    true => LayerBuffers { qkv: plan.take(n, 3 * c), ..shared },
                    false => shared,
                };
                (1..=config.layers).map(&mut of_block).collect()
            }
        };
        let train = taps.is_some();
        let head = HeadBuffers::plan(plan, config, head, capacity, train);
        let backward = train.then(|| Backward {
            d_hidden: plan.take(n, c),
            d_branch: plan.take(n, c),
            d_context: plan.take(n, c),
            d_inner: plan.take(n, f),
            d_qkv: plan.take(n, 3 * c),
        });
        let none = Taps::default();
        let taps = taps.unwrap_or(&none);
        let d_hidden_taps = taps.hidden.iter().map(|&at| (at, plan.take(n, c))).collect();
        let d_qkv_taps = taps.qkv.iter().map(|&at| (at, plan.take(n, 3 * c))).collect();
        let numbers = plan.peak();
        Self {
            embedded,
            embedded_stats,
            hidden,
            layers,
            recompute: matches!(purpose, Purpose::Recompute(_)),
            head,
            backward,
            d_hidden_taps,
            d_qkv_taps,
            numbers,
        }
    }

    /// Hidden state `at`, `[N, C]` at capacity: 0 after the embeddings, i after block i. With
    /// [`Purpose::Infer`] only the last two computed are there.
    pub fn hidden(&self, at: usize) -> View {
        self.hidden[at % self.hidden.len()]
    }

    /// Queries, keys and values of block `at` (from 1), `[N, 3C]` at capacity.
    pub fn qkv(&self, at: usize) -> View {
        self.layer(at - 1).qkv
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

    pub(crate) fn layer(&self, at: usize) -> &LayerBuffers {
        &self.layers[at % self.layers.len()]
    }

    /// Whether the inside of block `at` (from 0) is no longer there when its backward pass begins.
    /// The last block's is: nothing was computed after it.
    pub(crate) fn was_overwritten(&self, at: usize) -> bool {
        self.recompute && at + 1 < self.layers.len()
    }

    pub(crate) fn backward(&self) -> Backward {
        self.backward.expect("buffers for a backward pass were planned with Purpose::Train")
    }
}
