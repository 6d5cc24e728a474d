//! One pre-norm block, forward and backward side by side; the families differ in its variants.

use heirloom_engine::{
    AddNorm, AddNormBackward, Attention, AttentionBackward, CachedAttention, Device, Gate,
    GateBackward, Grads, Ids, Init, Linear, LinearBackward, Mask, ParamsBuilder, RmsNorm,
    RmsNormBackward, Role, Rotary, View,
};

use super::buffers::{BlockBuffers, DecoderBuffers};
use super::config::{DecoderConfig, DecoderType, Positions};
use crate::DeviceBatch;
use crate::encoder::{Noise, site};

/// A weight, `[O, I]`, and its bias.
#[derive(Clone, Copy, Debug)]
struct Projection {
    w: View,
    b: Option<View>,
}

/// A normalisation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Norm {
    /// Layer norm: scale and shift.
    Layer(View, View),
    /// By the root mean square: scale.
    Rms(View),
}

/// Views of a block's parameters.
#[derive(Clone, Debug)]
pub(super) struct Block {
    attention_norm: Norm,
    qkv: Projection,
    /// Scales of each query's and each key's norm.
    head_norms: Option<[View; 2]>,
    attention_out: Projection,
    feed_norm: Norm,
    /// `[F, C]`, or gate and up, `[2F, C]`.
    inner: Projection,
    outer: Projection,
    window: Option<usize>,
}

/// Keys and values that generation keeps of one block, T rows for each sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) keys: View,
    pub(super) values: View,
}

/// Whom the tokens of a batch attend to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attend {
    /// The tokens before them in the batch.
    Batch,
    /// The same, and each token's key and value are kept at its row of `slots`.
    Keep { kept: Kept, slots: Ids },
    /// What was kept: one token per sequence, whose own row of `slots` is the last of `lengths`.
    Kept { kept: Kept, slots: Ids, lengths: Ids },
}

/// What one pass through the blocks shares.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) config: &'a DecoderConfig,
    pub(super) batch: &'a DeviceBatch,
    pub(super) buffers: &'a DecoderBuffers,
    pub(super) noise: Option<Noise>,
}

impl Norm {
    pub(super) fn new(builder: &mut ParamsBuilder, config: &DecoderConfig, name: &str) -> Self {
        let width = [config.hidden_size];
        let mut add = |part, init| builder.add(&format!("{name}.{part}"), &width, Role::Norm, init);
        match config.model_type {
            DecoderType::Gpt2 => Self::Layer(add("weight", Init::Ones), add("bias", Init::Zeros)),
            _ => Self::Rms(add("weight", Init::Ones)),
        }
    }

    /// `y = norm(sum)` with `sum = x + residual`; `x` becomes the sum.
    pub(super) fn forward(
        self,
        device: &mut dyn Device,
        eps: f64,
        x: View,
        residual: Option<View>,
        stats: View,
        y: View,
    ) {
        match self {
            Self::Layer(gamma, beta) => device.add_norm(&AddNorm {
                x,
                residual,
                dropout: None,
                gamma,
                beta,
                eps,
                sum: x,
                stats,
                y,
            }),
            Self::Rms(gamma) => {
                let stats = stats.columns(0..1);
                device.rms_norm(&RmsNorm { x, residual, gamma, eps, sum: x, stats, y });
            }
        }
    }

    /// `d` becomes the gradient of the sum where it was that of the output.
    pub(super) fn backward(
        self,
        device: &mut dyn Device,
        grads: Grads<'_>,
        sum: View,
        stats: View,
        d: View,
    ) {
        match self {
            Self::Layer(gamma, beta) => device.add_norm_backward(&AddNormBackward {
                dy: d,
                sum,
                stats,
                gamma,
                d_sum: d,
                dx: None,
                d_gamma: grads.of(gamma),
                d_beta: grads.of(beta),
            }),
            Self::Rms(gamma) => device.rms_norm_backward(&RmsNormBackward {
                dy: d,
                sum,
                stats: stats.columns(0..1),
                gamma,
                d_sum: d,
                d_gamma: grads.of(gamma),
            }),
        }
    }
}

impl Projection {
    /// Stacked matrices of `parts` (name, rows), `cols` columns each.
    fn new(
        builder: &mut ParamsBuilder,
        parts: &[(&str, usize)],
        cols: usize,
        bias: bool,
        std: f64,
    ) -> Self {
        let named = |part| parts.iter().map(move |(name, _)| format!("{name}.{part}"));
        let (weights, biases): (Vec<String>, Vec<String>) =
            named("weight").zip(named("bias")).unzip();
        let shapes: Vec<[usize; 2]> = parts.iter().map(|&(_, rows)| [rows, cols]).collect();
        let matrices = weights.iter().zip(&shapes);
        let matrices: Vec<(&str, &[usize])> =
            matrices.map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let vectors = biases.iter().zip(&shapes);
        let vectors: Vec<(&str, &[usize])> =
            vectors.map(|(name, shape)| (name.as_str(), &shape[..1])).collect();
        Self {
            w: builder.block(&matrices, Role::Weight, Init::Normal(std)),
            b: bias.then(|| builder.block(&vectors, Role::Bias, Init::Zeros)),
        }
    }

    fn forward(self, x: View, y: View) -> Linear {
        Linear { x, w: self.w, b: self.b, y, activated: None }
    }

    fn backward(self, grads: Grads<'_>, x: View, dy: View, dx: View) -> LinearBackward {
        LinearBackward {
            x,
            w: self.w,
            dy,
            dx: Some(dx),
            add_to_dx: false,
            through: None,
            dw: grads.of(self.w),
            db: self.b.and_then(|b| grads.of(b)),
        }
    }
}

impl Block {
    /// Lays the parameters of block `at` out in the order of the forward pass.
    pub(super) fn new(builder: &mut ParamsBuilder, config: &DecoderConfig, at: usize) -> Self {
        let (c, f, std) = (config.hidden_size, config.intermediate_size, config.initializer_range);
        let (queries, keys) = (config.context_width(), config.key_heads * config.head_size);
        let gpt2 = config.model_type == DecoderType::Gpt2;
        let name = |gpt2_name: &str, name: &str| match gpt2 {
            true => format!("transformer.h.{at}.{gpt2_name}"),
            false => format!("model.layers.{at}.{name}"),
        };
        let attention_norm = Norm::new(builder, config, &name("ln_1", "input_layernorm"));
        let parts: &[(&str, usize)] = match gpt2 {
            true => &[("attn.c_attn", config.qkv_width())],
            false => &[
                ("self_attn.q_proj", queries),
                ("self_attn.k_proj", keys),
                ("self_attn.v_proj", keys),
            ],
        };
        let full: Vec<(String, usize)> =
            parts.iter().map(|&(part, rows)| (name(part, part), rows)).collect();
        let parts: Vec<(&str, usize)> = full.iter().map(|(name, r)| (name.as_str(), *r)).collect();
        let qkv = Projection::new(builder, &parts, c, config.qkv_bias, std);
        let head_norms = config.head_norms().then(|| {
            ["q_norm", "k_norm"].map(|part| {
                let part = name("", &format!("self_attn.{part}.weight"));
                builder.add(&part, &[config.head_size], Role::Norm, Init::Ones)
            })
        });
        // What all layers write to the residual stream keeps the size of one of them (Radford et al.
        // 2019, section 2.3); `transformers` does so for GPT-2 alone.
        let out_std = if gpt2 { std / (2.0 * config.layers as f64).sqrt() } else { std };
        let out = name("attn.c_proj", "self_attn.o_proj");
        let bias = config.attention_out_bias;
        let attention_out = Projection::new(builder, &[(&out, c)], queries, bias, out_std);
        let feed_norm = Norm::new(builder, config, &name("ln_2", "post_attention_layernorm"));
        let bias = config.feed_forward_bias;
        let [fc, gate, up] =
            [name("mlp.c_fc", ""), name("", "mlp.gate_proj"), name("", "mlp.up_proj")];
        let inner: &[(&str, usize)] = if gpt2 { &[(&fc, f)] } else { &[(&gate, f), (&up, f)] };
        let inner = Projection::new(builder, inner, c, bias, std);
        let outer = name("mlp.c_proj", "mlp.down_proj");
        let outer = Projection::new(builder, &[(&outer, c)], f, bias, out_std);
        let window = config.windows[at];
        Self { attention_norm, qkv, head_norms, attention_out, feed_norm, inner, outer, window }
    }

    /// Hidden state `at + 1` from hidden state `at`:
    /// `m = x + attention(norm(x))`, `y = m + feed_forward(norm(m))`.
    pub(super) fn forward(
        &self,
        device: &mut dyn Device,
        pass: Pass<'_>,
        at: usize,
        attend: Attend,
    ) {
        let Pass { config, batch, buffers, noise } = pass;
        let n = batch.tokens();
        let (x, y) = (buffers.hidden(at).first_rows(n), buffers.hidden(at + 1).first_rows(n));
        let kept = buffers.block(at).first_rows(n);
        let BlockBuffers { normal, qkv, context, middle, feed_normal, inner, active, .. } = kept;
        let eps = config.norm_eps;

        self.attention_norm.forward(device, eps, x, None, kept.stats, normal);
        match self.head_norms {
            None => device.linear(&self.qkv.forward(normal, qkv)),
            Some(gammas) => {
                device.linear(&self.qkv.forward(normal, kept.raw));
                norm_heads(device, config, gammas, &kept);
            }
        }
        if let Positions::Rotary(_) = config.positions {
            let angles = buffers.angles.first_rows(n);
            let x = qkv.columns(0..rotated(config));
            device.rotary(&Rotary { x, angles, backward: false });
        }
        self.attend(device, pass, at, attend);
        device.linear(&self.attention_out.forward(context, middle));
        if let Some(dropout) = site(config.hidden_dropout, noise, batch, sites(at)[1]) {
            device.dropout(&dropout, middle);
        }
        self.feed_norm.forward(device, eps, middle, Some(x), kept.feed_stats, feed_normal);
        let inward = self.inner.forward(feed_normal, inner);
        if config.gated() {
            device.linear(&inward);
            device.gate(&Gate { f: config.activation, x: inner, y: active });
        } else {
            device.linear(&Linear { activated: Some((config.activation, active)), ..inward });
        }
        device.linear(&self.outer.forward(active, y));
        if let Some(dropout) = site(config.hidden_dropout, noise, batch, sites(at)[2]) {
            device.dropout(&dropout, y);
        }
        device.add_scaled(1.0, middle, y);
    }

    fn attend(&self, device: &mut dyn Device, pass: Pass<'_>, at: usize, attend: Attend) {
        let Pass { config, batch, buffers, .. } = pass;
        let kept = buffers.block(at).first_rows(batch.tokens());
        let queries = config.context_width();
        let width = config.key_heads * config.head_size;
        let keys = kept.qkv.columns(queries..queries + width);
        let values = kept.qkv.columns(queries + width..queries + 2 * width);
        if let Attend::Keep { kept, slots } | Attend::Kept { kept, slots, .. } = attend {
            device.set_rows(keys, kept.keys, slots);
            device.set_rows(values, kept.values, slots);
        }
        match attend {
            Attend::Batch | Attend::Keep { .. } => {
                device.attention(&self.attention(pass, at, &kept));
            }
            Attend::Kept { kept: Kept { keys, values }, lengths, .. } => {
                device.cached_attention(&CachedAttention {
                    q: kept.qkv.columns(0..queries),
                    keys,
                    values,
                    lengths,
                    heads: config.heads,
                    key_heads: config.key_heads,
                    window: self.window,
                    scale: scale(config),
                    out: kept.context,
                });
            }
        }
    }

    /// The same, last to first. `d_hidden` holds the gradient of the block's output at entry and
    /// of its input at the end.
    pub(super) fn backward(
        &self,
        device: &mut dyn Device,
        pass: Pass<'_>,
        at: usize,
        grads: Grads<'_>,
    ) {
        let Pass { config, batch, buffers, noise } = pass;
        let n = batch.tokens();
        let kept = buffers.block(at).first_rows(n);
        let x = buffers.hidden(at).first_rows(n);
        let scratch = buffers.backward();
        let [d_hidden, d_branch] = [scratch.d_hidden, scratch.d_branch].map(|d| d.first_rows(n));
        let [d_inner, d_context, d_qkv] =
            [scratch.d_inner, scratch.d_context, scratch.d_qkv].map(|d| d.first_rows(n));

        // A branch's own gradient where dropout stands before the sum, else the sum's.
        let of_branch = |device: &mut dyn Device, which: usize| {
            let Some(dropout) = site(config.hidden_dropout, noise, batch, sites(at)[which]) else {
                return d_hidden;
            };
            device.copy(d_hidden, d_branch);
            device.dropout(&dropout, d_branch);
            d_branch
        };

        let d_out = of_branch(device, 2);
        if config.gated() {
            let d_active = scratch.d_active.first_rows(n);
            device.linear_backward(&self.outer.backward(grads, kept.active, d_out, d_active));
            let (f, x) = (config.activation, kept.inner);
            device.gate_backward(&GateBackward { f, x, dy: d_active, dx: d_inner });
        } else {
            let through = Some((config.activation, kept.inner));
            let outward = self.outer.backward(grads, kept.active, d_out, d_inner);
            device.linear_backward(&LinearBackward { through, ..outward });
        }
        device.linear_backward(&self.inner.backward(grads, kept.feed_normal, d_inner, d_branch));
        self.feed_norm.backward(device, grads, kept.middle, kept.feed_stats, d_branch);
        device.add_scaled(1.0, d_branch, d_hidden);

        let d_out = of_branch(device, 1);
        device.linear_backward(&self.attention_out.backward(grads, kept.context, d_out, d_context));
        let forward = self.attention(pass, at, &kept);
        device.attention_backward(&AttentionBackward { forward, d_out: d_context, d_qkv });
        if let Some(tap) = buffers.d_qkv_tap(at + 1) {
            device.add_scaled(1.0, tap.first_rows(n), d_qkv);
        }
        if let Positions::Rotary(_) = config.positions {
            let angles = buffers.angles.first_rows(n);
            let x = d_qkv.columns(0..rotated(config));
            device.rotary(&Rotary { x, angles, backward: true });
        }
        if let Some(gammas) = self.head_norms {
            norm_heads_backward(device, config, gammas, &kept, d_qkv, grads);
        }
        device.linear_backward(&self.qkv.backward(grads, kept.normal, d_qkv, d_branch));
        self.attention_norm.backward(device, grads, x, kept.stats, d_branch);
        device.add_scaled(1.0, d_branch, d_hidden);
    }

    /// Where the block's parameters end.
    pub(super) fn end(&self) -> usize {
        let last = self.outer.b.unwrap_or(self.outer.w);
        last.offset() + last.len()
    }

    fn attention(&self, pass: Pass<'_>, at: usize, kept: &BlockBuffers) -> Attention {
        let Pass { config, batch, noise, .. } = pass;
        Attention {
            qkv: kept.qkv,
            heads: config.heads,
            key_heads: config.key_heads,
            mask: Mask::Causal { window: self.window },
            starts: batch.starts(),
            longest: batch.longest(),
            scale: scale(config),
            dropout: site(config.attention_dropout, noise, batch, sites(at)[0]),
            out: kept.context,
            lse: kept.lse,
        }
    }
}

/// Columns of queries and keys, which are what positions rotate.
fn rotated(config: &DecoderConfig) -> usize {
    (config.heads + config.key_heads) * config.head_size
}

fn scale(config: &DecoderConfig) -> f64 {
    1.0 / (config.head_size as f64).sqrt()
}

/// Columns of queries and of keys, and those of the statistics of their heads.
fn halves(config: &DecoderConfig) -> [(std::ops::Range<usize>, std::ops::Range<usize>); 2] {
    let (queries, heads) = (config.context_width(), config.heads);
    [(0..queries, 0..heads), (queries..rotated(config), heads..heads + config.key_heads)]
}

/// Queries and keys are normalised head by head, values stay as they are.
fn norm_heads(
    device: &mut dyn Device,
    config: &DecoderConfig,
    gammas: [View; 2],
    kept: &BlockBuffers,
) {
    for ((columns, heads), gamma) in halves(config).into_iter().zip(gammas) {
        let x = kept.raw.columns(columns.clone());
        device.rms_norm(&RmsNorm {
            x,
            residual: None,
            gamma,
            eps: config.norm_eps,
            sum: x,
            stats: kept.head_stats.columns(heads),
            y: kept.qkv.columns(columns),
        });
    }
    let values = rotated(config)..config.qkv_width();
    device.copy(kept.raw.columns(values.clone()), kept.qkv.columns(values));
}

fn norm_heads_backward(
    device: &mut dyn Device,
    config: &DecoderConfig,
    gammas: [View; 2],
    kept: &BlockBuffers,
    d_qkv: View,
    grads: Grads<'_>,
) {
    for ((columns, heads), gamma) in halves(config).into_iter().zip(gammas) {
        let d = d_qkv.columns(columns.clone());
        device.rms_norm_backward(&RmsNormBackward {
            dy: d,
            sum: kept.raw.columns(columns),
            stats: kept.head_stats.columns(heads),
            gamma,
            d_sum: d,
            d_gamma: grads.of(gamma),
        });
    }
}

/// Dropout sites of block `at`: attention probabilities, attention output, feed-forward output.
/// Site 0 is the embeddings'.
fn sites(at: usize) -> [u32; 3] {
    let first = 3 * at as u32 + 1;
    [first, first + 1, first + 2]
}
