//! The encoder: embeddings and post-norm transformer blocks, forward and backward side by side.
//!
//! In: a packed batch. Out: hidden states `[N, C]` after the embeddings and after each block.
//! Never: labels, losses, or a padding token. The law the tests hold: outputs and gradients are
//! those of `transformers`, and a sequence's outputs do not depend on what it is packed with.

use heirloom_base::{Purpose, Words};
use heirloom_engine::{
    Activation, AddNorm, AddNormBackward, Attention, AttentionBackward, Device, Dropout, Grads,
    Ids, Init, Linear, LinearBackward, Mask, ParamsBuilder, Role, View,
};

use crate::buffers::{Buffers, LayerBuffers};
use crate::names::Names;
use crate::{DeviceBatch, EncoderConfig, ModelType};

/// Where dropout takes its random words from: the run's seed and the optimiser step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// The run's seed.
    pub seed: u64,
    /// The optimiser step, from 0.
    pub step: u64,
}

/// A weight and its bias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine {
    pub(crate) w: View,
    pub(crate) b: View,
}

/// Scale and shift of a layer norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub(crate) gamma: View,
    pub(crate) beta: View,
}

impl Norm {
    /// Where its parameters end.
    fn end(self) -> usize {
        self.beta.offset() + self.beta.len()
    }
}

#[derive(Clone, Debug)]
struct Layer {
    qkv: Affine,
    attention_out: Affine,
    attention_norm: Norm,
    inner: Affine,
    outer: Affine,
    output_norm: Norm,
}

/// Views of an encoder's parameters.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    pub(crate) word_embeddings: View,
    position_embeddings: View,
    type_embeddings: Option<View>,
    norm: Norm,
    layers: Vec<Layer>,
}

pub(crate) fn add_affine(
    builder: &mut ParamsBuilder,
    name: &str,
    shape: [usize; 2],
    std: f64,
) -> Affine {
    Affine {
        w: builder.add(&format!("{name}.weight"), &shape, Role::Weight, Init::Normal(std)),
        b: builder.add(&format!("{name}.bias"), &shape[..1], Role::Bias, Init::Zeros),
    }
}

pub(crate) fn add_norm(builder: &mut ParamsBuilder, name: &str, width: usize) -> Norm {
    Norm {
        gamma: builder.add(&format!("{name}.weight"), &[width], Role::Norm, Init::Ones),
        beta: builder.add(&format!("{name}.bias"), &[width], Role::Norm, Init::Zeros),
    }
}

/// Adds gradients of a linear layer's parameters, and writes or adds to its input's.
pub(crate) fn backward_through(
    device: &mut dyn Device,
    layer: Affine,
    grads: Grads<'_>,
    x: View,
    dy: View,
    dx: Option<View>,
    add_to_dx: bool,
) {
    backward_through_activation(device, layer, grads, x, dy, dx, add_to_dx, None);
}

/// The same where the layer's input is an activation's output: `dx` is the gradient of that
/// activation's input.
#[expect(clippy::too_many_arguments, reason = "one operation, and each is a different thing")]
fn backward_through_activation(
    device: &mut dyn Device,
    layer: Affine,
    grads: Grads<'_>,
    x: View,
    dy: View,
    dx: Option<View>,
    add_to_dx: bool,
    through: Option<(Activation, View)>,
) {
    device.linear_backward(&LinearBackward {
        x,
        w: layer.w,
        dy,
        dx,
        add_to_dx,
        through,
        dw: grads.of(layer.w),
        db: grads.of(layer.b),
    });
}

/// Adds the gradient of each token to its rows of those tables that have one.
pub(crate) fn embed_backward(
    device: &mut dyn Device,
    d: View,
    tables: &[(View, Ids)],
    grads: Grads<'_>,
) {
    let mut wanted = [tables[0]; 3];
    let mut count = 0;
    for &(table, ids) in tables {
        if let Some(twin) = grads.of(table) {
            wanted[count] = (twin, ids);
            count += 1;
        }
    }
    if count > 0 {
        device.embed_backward(d, &wanted[..count]);
    }
}

impl Encoder {
    /// Lays the parameters out in the order of the forward pass. Names begin with `prefix`.
    pub(crate) fn new(builder: &mut ParamsBuilder, config: &EncoderConfig, prefix: &str) -> Self {
        let names = Names::of(config.model_type);
        let std = config.initializer_range;
        let width = config.hidden_size;
        let table = |builder: &mut ParamsBuilder, name: &str, rows: usize| {
            let name = format!("{prefix}embeddings.{name}_embeddings.weight");
            builder.add(&name, &[rows, width], Role::Embedding, Init::Normal(std))
        };
        let word_embeddings = table(builder, "word", config.vocab_size);
        let position_embeddings = table(builder, "position", config.max_positions);
        let type_embeddings =
            (config.token_types > 0).then(|| table(builder, "token_type", config.token_types));
        let norm = add_norm(builder, &format!("{prefix}embeddings.LayerNorm"), width);
        let layers = (0..config.layers)
            .map(|layer| {
                let name = |part: &str| format!("{prefix}{}{layer}.{part}", names.layer);
                let heads = [names.query, names.key, names.value].map(name);
                let weights = heads.clone().map(|name| format!("{name}.weight"));
                let biases = heads.map(|name| format!("{name}.bias"));
                let square: &[usize] = &[width, width];
                let row: &[usize] = &[width];
                let weights = weights.each_ref().map(|name| (name.as_str(), square));
                let biases = biases.each_ref().map(|name| (name.as_str(), row));
                let inner = [config.intermediate_size, width];
                let outer = [width, config.intermediate_size];
                Layer {
                    qkv: Affine {
                        w: builder.block(&weights, Role::Weight, Init::Normal(std)),
                        b: builder.block(&biases, Role::Bias, Init::Zeros),
                    },
                    attention_out: add_affine(
                        builder,
                        &name(names.attention_out),
                        [width, width],
                        std,
                    ),
                    attention_norm: add_norm(builder, &name(names.attention_norm), width),
                    inner: add_affine(builder, &name(names.inner), inner, std),
                    outer: add_affine(builder, &name(names.outer), outer, std),
                    output_norm: add_norm(builder, &name(names.output_norm), width),
                }
            })
            .collect();
        Self { word_embeddings, position_embeddings, type_embeddings, norm, layers }
    }

    /// Hidden states of a batch into `buffers`.
    pub(crate) fn forward(
        &self,
        device: &mut dyn Device,
        config: &EncoderConfig,
        batch: &DeviceBatch,
        buffers: &Buffers,
        noise: Option<Noise>,
    ) {
        let n = batch.tokens();
        let embedded = buffers.embedded.first_rows(n);
        let hidden = buffers.hidden(0).first_rows(n);
        let (tables, count) = self.tables(batch);
        device.embed(&tables[..count], embedded);
        device.add_norm(&AddNorm {
            x: embedded,
            residual: None,
            dropout: None,
            gamma: self.norm.gamma,
            beta: self.norm.beta,
            eps: config.layer_norm_eps,
            sum: embedded,
            stats: buffers.embedded_stats.first_rows(n),
            y: hidden,
        });
        if let Some(dropout) = site(config.hidden_dropout, noise, batch, 0) {
            device.dropout(&dropout, hidden);
        }
        for (at, layer) in self.layers.iter().enumerate() {
            layer.forward(device, config, batch, buffers, at, noise);
        }
    }

    /// Adds the gradients of all parameters that have one, given the gradient of the last hidden state
    /// in `buffers.d_hidden` and those of the taps. The pass ends above the lowest of them.
    pub(crate) fn backward(
        &self,
        device: &mut dyn Device,
        config: &EncoderConfig,
        batch: &DeviceBatch,
        buffers: &Buffers,
        grads: Grads<'_>,
        noise: Option<Noise>,
    ) {
        let n = batch.tokens();
        let d_hidden = buffers.backward().d_hidden.first_rows(n);
        for (at, layer) in self.layers.iter().enumerate().rev() {
            if !grads.any_before(layer.end()) {
                return;
            }
            if let Some(tap) = buffers.d_hidden_tap(at + 1) {
                device.add_scaled(1.0, tap.first_rows(n), d_hidden);
            }
            if buffers.was_overwritten(at) {
                // Dropout's words have addresses, so the same numbers come out again.
                layer.forward(device, config, batch, buffers, at, noise);
            }
            layer.backward(device, config, batch, buffers, at, grads, noise);
        }
        if !grads.any_before(self.norm.end()) {
            return;
        }
        if let Some(tap) = buffers.d_hidden_tap(0) {
            device.add_scaled(1.0, tap.first_rows(n), d_hidden);
        }
        if let Some(dropout) = site(config.hidden_dropout, noise, batch, 0) {
            device.dropout(&dropout, d_hidden);
        }
        device.add_norm_backward(&AddNormBackward {
            dy: d_hidden,
            sum: buffers.embedded.first_rows(n),
            stats: buffers.embedded_stats.first_rows(n),
            gamma: self.norm.gamma,
            d_sum: d_hidden,
            dx: None,
            d_gamma: grads.of(self.norm.gamma),
            d_beta: grads.of(self.norm.beta),
        });
        let (tables, count) = self.tables(batch);
        embed_backward(device, d_hidden, &tables[..count], grads);
    }

    /// The tables whose rows are summed for each token, with its row in each, and how many of the
    /// three there are: not every family has token types.
    fn tables(&self, batch: &DeviceBatch) -> ([(View, Ids); 3], usize) {
        let words = (self.word_embeddings, batch.ids());
        let positions = (self.position_embeddings, batch.positions());
        let types = self.type_embeddings.map(|table| (table, batch.types()));
        ([words, positions, types.unwrap_or(words)], 2 + usize::from(types.is_some()))
    }
}

impl Layer {
    /// One block: attention, add & norm, feed-forward, add & norm.
    fn forward(
        &self,
        device: &mut dyn Device,
        config: &EncoderConfig,
        batch: &DeviceBatch,
        buffers: &Buffers,
        at: usize,
        noise: Option<Noise>,
    ) {
        let n = batch.tokens();
        let (x, y) = (buffers.hidden(at).first_rows(n), buffers.hidden(at + 1).first_rows(n));
        let kept = buffers.layer(at).first_rows(n);
        let LayerBuffers { qkv, lse, context, attended, middle, inner, active, summed, .. } = kept;
        let linear =
            |x, layer: Affine, y| Linear { x, w: layer.w, b: Some(layer.b), y, activated: None };
        device.linear(&linear(x, self.qkv, qkv));
        device.attention(&attention(config, batch, qkv, context, lse, at, noise));
        device.linear(&linear(context, self.attention_out, attended));
        device.add_norm(&AddNorm {
            x: attended,
            residual: Some(x),
            dropout: site(config.hidden_dropout, noise, batch, sites(at)[1]),
            gamma: self.attention_norm.gamma,
            beta: self.attention_norm.beta,
            eps: config.layer_norm_eps,
            sum: attended,
            stats: kept.attended_stats,
            y: middle,
        });
        device.linear(&Linear {
            activated: Some((config.activation, active)),
            ..linear(middle, self.inner, inner)
        });
        device.linear(&linear(active, self.outer, summed));
        device.add_norm(&AddNorm {
            x: summed,
            residual: Some(middle),
            dropout: site(config.hidden_dropout, noise, batch, sites(at)[2]),
            gamma: self.output_norm.gamma,
            beta: self.output_norm.beta,
            eps: config.layer_norm_eps,
            sum: summed,
            stats: kept.summed_stats,
            y,
        });
    }

    /// The same, last to first. `d_hidden` holds the gradient of the block's output at entry and
    /// of its input at the end.
    #[expect(clippy::too_many_arguments, reason = "one call site, and each is a different thing")]
    fn backward(
        &self,
        device: &mut dyn Device,
        config: &EncoderConfig,
        batch: &DeviceBatch,
        buffers: &Buffers,
        at: usize,
        grads: Grads<'_>,
        noise: Option<Noise>,
    ) {
        let n = batch.tokens();
        let kept = buffers.layer(at).first_rows(n);
        let scratch = buffers.backward();
        let x = buffers.hidden(at).first_rows(n);
        let d_hidden = scratch.d_hidden.first_rows(n);
        let d_inner = scratch.d_inner.first_rows(n);
        let d_context = scratch.d_context.first_rows(n);
        let d_qkv = scratch.d_qkv.first_rows(n);

        let d_summed = self.norm_backward(
            device,
            self.output_norm,
            buffers,
            batch,
            grads,
            kept.summed,
            kept.summed_stats,
            site(config.hidden_dropout, noise, batch, sites(at)[2]),
        );
        backward_through_activation(
            device,
            self.outer,
            grads,
            kept.active,
            d_summed,
            Some(d_inner),
            false,
            Some((config.activation, kept.inner)),
        );
        backward_through(device, self.inner, grads, kept.middle, d_inner, Some(d_hidden), true);

        let d_attended = self.norm_backward(
            device,
            self.attention_norm,
            buffers,
            batch,
            grads,
            kept.attended,
            kept.attended_stats,
            site(config.hidden_dropout, noise, batch, sites(at)[1]),
        );
        backward_through(
            device,
            self.attention_out,
            grads,
            kept.context,
            d_attended,
            Some(d_context),
            false,
        );
        let forward = attention(config, batch, kept.qkv, kept.context, kept.lse, at, noise);
        device.attention_backward(&AttentionBackward { forward, d_out: d_context, d_qkv });
        if let Some(tap) = buffers.d_qkv_tap(at + 1) {
            device.add_scaled(1.0, tap.first_rows(n), d_qkv);
        }
        let below = grads.any_before(self.qkv.w.offset()).then_some(d_hidden);
        backward_through(device, self.qkv, grads, x, d_qkv, below, below.is_some());
    }

    /// Where the block's parameters end.
    fn end(&self) -> usize {
        self.output_norm.end()
    }

    /// Turns `d_hidden` into the residual's gradient and returns the gradient of the branch.
    #[expect(clippy::too_many_arguments, reason = "two call sites that differ in three of them")]
    fn norm_backward(
        &self,
        device: &mut dyn Device,
        norm: Norm,
        buffers: &Buffers,
        batch: &DeviceBatch,
        grads: Grads<'_>,
        sum: View,
        stats: View,
        dropout: Option<Dropout>,
    ) -> View {
        let n = batch.tokens();
        let d_hidden = buffers.backward().d_hidden.first_rows(n);
        let d_branch = buffers.backward().d_branch.first_rows(n);
        device.add_norm_backward(&AddNormBackward {
            dy: d_hidden,
            sum,
            stats,
            gamma: norm.gamma,
            d_sum: d_hidden,
            dx: dropout.map(|dropout| (dropout, d_branch)),
            d_gamma: grads.of(norm.gamma),
            d_beta: grads.of(norm.beta),
        });
        if dropout.is_some() { d_branch } else { d_hidden }
    }
}

/// Dropout sites of block `at`: attention probabilities, attention output, feed-forward output.
/// Site 0 is the embeddings'.
fn sites(at: usize) -> [u32; 3] {
    let first = 3 * at as u32 + 1;
    [first, first + 1, first + 2]
}

/// Site `extra` of the head, after all blocks'.
pub(crate) fn head_site(config: &EncoderConfig, extra: u32) -> u32 {
    3 * config.layers as u32 + 1 + extra
}

/// The dropout at a site, or `None` where nothing is dropped.
pub(crate) fn site(
    p: f32,
    noise: Option<Noise>,
    batch: &DeviceBatch,
    site: u32,
) -> Option<Dropout> {
    let Noise { seed, step } = noise?;
    let words = Words::at(seed, Purpose::Dropout, step, site);
    (p > 0.0).then(|| Dropout { p, words, rows: batch.rows() })
}

fn attention(
    config: &EncoderConfig,
    batch: &DeviceBatch,
    qkv: View,
    out: View,
    lse: View,
    at: usize,
    noise: Option<Noise>,
) -> Attention {
    Attention {
        qkv,
        heads: config.heads,
        key_heads: config.heads,
        mask: Mask::Full,
        starts: batch.starts(),
        longest: batch.longest(),
        scale: 1.0 / ((config.hidden_size / config.heads) as f64).sqrt(),
        dropout: site(config.attention_dropout, noise, batch, sites(at)[0]),
        out,
        lse,
    }
}

/// The prefix of the encoder's names in a checkpoint whose model has a head, or the empty one.
pub(crate) fn prefix(model_type: ModelType, with_head: bool) -> &'static str {
    if with_head { Names::of(model_type).prefix } else { "" }
}
