//! Small models written plainly in f64: what growth is held against. Nothing here is shared with
//! the code under test but names and tensors.

use heirloom_base::{Purpose, uniform, word};
use heirloom_growth::{Anatomy, Family, LmHead, Norm, Placement, Shape, Tensor, Tensors};

use crate::tape::{Scalar, dot, sum};

pub(crate) const TOKENS: [usize; 5] = [1, 4, 2, 6, 0];

/// A model with 2 layers, hidden size 4, heads of 2, 5 units in the feed-forward layer, 7 tokens.
pub(crate) fn anatomy(
    family: Family,
    norm: Norm,
    lm_head: LmHead,
    kv_heads: usize,
    group: usize,
) -> Anatomy {
    let post = matches!(family, Family::Bert | Family::DistilBert);
    let llama = family == Family::Llama;
    Anatomy {
        family,
        norm,
        placement: if post { Placement::Post } else { Placement::Pre },
        // Large where it must be made up for, so that forgetting it is seen.
        norm_eps: if post { 1e-12 } else { 1e-3 },
        rotary: llama,
        head_norms: false,
        lm_head,
        shape: Shape {
            layers: 2,
            hidden: 4,
            intermediate: 5,
            kv_heads,
            group,
            head_dim: 2,
            vocab: 7,
            positions: if llama { 0 } else { 6 },
        },
    }
}

struct Maker {
    tensors: Tensors<f64>,
    at: u64,
}

impl Maker {
    fn add(&mut self, name: &str, shape: &[usize], centre: f64) {
        let len = shape.iter().product();
        let data = (0..len).map(|_| {
            self.at += 1;
            centre + 1.2 * (uniform(word(11, Purpose::Init, 0, self.at)) - 0.5)
        });
        let tensor = Tensor::new(shape, data.collect());
        self.tensors.insert(name.to_owned(), tensor);
    }

    fn linear(&mut self, name: &str, out: usize, input: usize, transposed: bool) {
        let shape = if transposed { [input, out] } else { [out, input] };
        self.add(&format!("{name}.weight"), &shape, 0.0);
        self.add(&format!("{name}.bias"), &[out], 0.0);
    }

    fn norm(&mut self, name: &str, width: usize, norm: Norm) {
        self.add(&format!("{name}.weight"), &[width], 1.0);
        if norm == Norm::Layer {
            self.add(&format!("{name}.bias"), &[width], 0.0);
        }
    }
}

/// The names of a family's blocks: queries, keys and values (or all in one), what they write, both
/// norms, the feed-forward layer.
struct Names {
    block: &'static str,
    qkv: &'static [&'static str],
    out: &'static str,
    norms: [&'static str; 2],
    inner: &'static [&'static str],
    outer: &'static str,
    token: &'static str,
    position: Option<&'static str>,
    kind: Option<&'static str>,
    first_norm: Option<&'static str>,
    last_norm: Option<&'static str>,
}

fn names(family: Family) -> Names {
    match family {
        Family::Bert => Names {
            block: "bert.encoder.layer.",
            qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
            out: "attention.output.dense",
            norms: ["attention.output.LayerNorm", "output.LayerNorm"],
            inner: &["intermediate.dense"],
            outer: "output.dense",
            token: "bert.embeddings.word_embeddings.weight",
            position: Some("bert.embeddings.position_embeddings.weight"),
            kind: Some("bert.embeddings.token_type_embeddings.weight"),
            first_norm: Some("bert.embeddings.LayerNorm"),
            last_norm: None,
        },
        Family::Gpt2 => Names {
            block: "transformer.h.",
            qkv: &["attn.c_attn"],
            out: "attn.c_proj",
            norms: ["ln_1", "ln_2"],
            inner: &["mlp.c_fc"],
            outer: "mlp.c_proj",
            token: "transformer.wte.weight",
            position: Some("transformer.wpe.weight"),
            kind: None,
            first_norm: None,
            last_norm: Some("transformer.ln_f"),
        },
        Family::Llama => Names {
            block: "model.layers.",
            qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            out: "self_attn.o_proj",
            norms: ["input_layernorm", "post_attention_layernorm"],
            inner: &["mlp.gate_proj", "mlp.up_proj"],
            outer: "mlp.down_proj",
            token: "model.embed_tokens.weight",
            position: None,
            kind: None,
            first_norm: None,
            last_norm: Some("model.norm"),
        },
        Family::DistilBert => unreachable!("its blocks are BERT's under other names"),
    }
}

/// A model with random parameters.
pub(crate) fn model(a: &Anatomy) -> Tensors<f64> {
    let (s, n) = (&a.shape, names(a.family));
    let mut maker = Maker { tensors: Tensors::new(), at: 0 };
    maker.add(n.token, &[s.vocab, s.hidden], 0.0);
    if let Some(name) = n.position {
        maker.add(name, &[s.positions, s.hidden], 0.0);
    }
    if let Some(name) = n.kind {
        maker.add(name, &[2, s.hidden], 0.0);
    }
    if let Some(name) = n.first_norm {
        maker.norm(name, s.hidden, a.norm);
    }
    let (queries, keys) = (s.heads() * s.head_dim, s.kv_heads * s.head_dim);
    let transposed = a.family == Family::Gpt2;
    for layer in 0..s.layers {
        let at = |name: &str| format!("{}{layer}.{name}", n.block);
        let outs = [queries, keys, keys];
        if n.qkv.len() == 1 {
            maker.linear(&at(n.qkv[0]), outs.iter().sum(), s.hidden, transposed);
        } else {
            n.qkv.iter().zip(outs).for_each(|(name, out)| {
                maker.linear(&at(name), out, s.hidden, transposed);
            });
        }
        if a.head_norms {
            maker.add(&at("self_attn.q_norm.weight"), &[s.head_dim], 1.0);
            maker.add(&at("self_attn.k_norm.weight"), &[s.head_dim], 1.0);
        }
        maker.linear(&at(n.out), s.hidden, queries, transposed);
        for name in n.norms {
            maker.norm(&at(name), s.hidden, a.norm);
        }
        for name in n.inner {
            maker.linear(&at(name), s.intermediate, s.hidden, transposed);
        }
        maker.linear(&at(n.outer), s.hidden, s.intermediate, transposed);
    }
    if let Some(name) = n.last_norm {
        maker.norm(name, s.hidden, a.norm);
    }
    match (a.family, a.lm_head) {
        (Family::Bert, LmHead::Tied) => {
            maker.linear("cls.predictions.transform.dense", s.hidden, s.hidden, false);
            maker.norm("cls.predictions.transform.LayerNorm", s.hidden, a.norm);
            maker.add("cls.predictions.bias", &[s.vocab], 0.0);
        }
        (Family::Bert, _) => {
            maker.linear("bert.pooler.dense", s.hidden, s.hidden, false);
            maker.linear("classifier", 3, s.hidden, false);
        }
        (_, LmHead::Untied) => maker.add("lm_head.weight", &[s.vocab, s.hidden], 0.0),
        _ => (),
    }
    maker.tensors
}

struct Run<'a, S> {
    a: &'a Anatomy,
    t: &'a Tensors<S>,
}

impl<S: Scalar> Run<'_, S> {
    fn row(&self, name: &str, at: usize) -> Vec<S> {
        let tensor = &self.t[name];
        let width = tensor.shape[1];
        tensor.data[at * width..(at + 1) * width].to_vec()
    }

    /// `W x + b`.
    fn linear(&self, name: &str, x: &[S]) -> Vec<S> {
        let weight = &self.t[&format!("{name}.weight")];
        let (rows, columns) = (weight.shape[0], weight.shape[1]);
        // GPT-2 keeps the matrices of its blocks the other way round.
        let transposed = self.a.family == Family::Gpt2 && name.contains(".h.");
        let out = if transposed { columns } else { rows };
        let at = |i: usize, j: usize| {
            weight.data[if transposed { j * columns + i } else { i * columns + j }]
        };
        let bias = self.t.get(&format!("{name}.bias"));
        (0..out)
            .map(|i| {
                let sum = sum(x.iter().enumerate().map(|(j, &x)| at(i, j) * x));
                sum + bias.map_or(S::of(0.0), |bias| bias.data[i])
            })
            .collect()
    }

    fn norm(&self, name: &str, x: &[S]) -> Vec<S> {
        let gain = &self.t[&format!("{name}.weight")].data;
        let bias = self.t.get(&format!("{name}.bias"));
        let len = S::of(x.len() as f64);
        let mean = match self.a.norm {
            Norm::Layer => sum(x.iter().copied()) / len,
            Norm::Rms => S::of(0.0),
        };
        let square = sum(x.iter().map(|&x| (x - mean) * (x - mean))) / len;
        let scale = S::of(1.0) / (square + S::of(self.a.norm_eps)).sqrt();
        let shift = |i: usize| bias.map_or(S::of(0.0), |bias| bias.data[i]);
        (0..x.len()).map(|i| (x[i] - mean) * scale * gain[i] + shift(i)).collect()
    }

    /// Turns the halves of a head against each other (Su et al. 2021, arXiv:2104.09864).
    fn turn(&self, x: &mut [S], position: usize) {
        if !self.a.rotary {
            return;
        }
        let half = x.len() / 2;
        for i in 0..half {
            let angle = position as f64 * 1e4f64.powf(-2.0 * i as f64 / x.len() as f64);
            let (sin, cos) = (S::of(angle.sin()), S::of(angle.cos()));
            let (one, two) = (x[i], x[i + half]);
            x[i] = one * cos - two * sin;
            x[i + half] = two * cos + one * sin;
        }
    }

    fn attention(&self, at: &dyn Fn(&str) -> String, xs: &[Vec<S>]) -> Vec<Vec<S>> {
        let (s, n) = (&self.a.shape, names(self.a.family));
        let (queries, keys, dim) = (s.heads() * s.head_dim, s.kv_heads * s.head_dim, s.head_dim);
        let parts: Vec<[Vec<S>; 3]> = xs
            .iter()
            .map(|x| match n.qkv {
                [one] => {
                    let all = self.linear(&at(one), x);
                    [
                        all[..queries].to_vec(),
                        all[queries..queries + keys].to_vec(),
                        all[queries + keys..].to_vec(),
                    ]
                }
                three => [0, 1, 2].map(|part| self.linear(&at(three[part]), x)),
            })
            .collect();
        let at_layer = at;
        let causal = self.a.placement == Placement::Pre;
        let head = |at: usize, part: usize, head: usize| -> Vec<S> {
            let mut x = parts[at][part][head * dim..(head + 1) * dim].to_vec();
            if part < 2 {
                if self.a.head_norms {
                    let name = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"][part];
                    let gain = &self.t[&at_layer(name)].data;
                    let square = dot(&x, &x) / S::of(dim as f64);
                    let scale = S::of(1.0) / (square + S::of(self.a.norm_eps)).sqrt();
                    x.iter_mut().zip(gain).for_each(|(x, &gain)| *x = *x * scale * gain);
                }
                self.turn(&mut x, at);
            }
            x
        };
        (0..xs.len())
            .map(|p| {
                let seen = if causal { p + 1 } else { xs.len() };
                let mut mixed = Vec::new();
                for h in 0..s.heads() {
                    let g = h / s.group;
                    let q = head(p, 0, h);
                    let score = |j: usize| {
                        let k = head(j, 1, g);
                        (dot(&q, &k) / S::of((dim as f64).sqrt())).exp()
                    };
                    let scores: Vec<S> = (0..seen).map(score).collect();
                    let all = sum(scores.iter().copied());
                    for i in 0..dim {
                        mixed.push(sum((0..seen).map(|j| scores[j] / all * head(j, 2, g)[i])));
                    }
                }
                self.linear(&at(n.out), &mixed)
            })
            .collect()
    }

    fn feed_forward(&self, at: &dyn Fn(&str) -> String, x: &[S]) -> Vec<S> {
        let n = names(self.a.family);
        let silu = |x: S| x / (S::of(1.0) + (S::of(0.0) - x).exp());
        let mut inside = self.linear(&at(n.inner[0]), x);
        inside.iter_mut().for_each(|x| *x = silu(*x));
        if let Some(up) = n.inner.get(1) {
            let up = self.linear(&at(up), x);
            inside.iter_mut().zip(up).for_each(|(x, up)| *x = *x * up);
        }
        self.linear(&at(n.outer), &inside)
    }

    fn hidden(&self, tokens: &[usize]) -> Vec<Vec<S>> {
        let n = names(self.a.family);
        let pre = self.a.placement == Placement::Pre;
        let mut hs: Vec<Vec<S>> = tokens
            .iter()
            .enumerate()
            .map(|(p, &token)| {
                let mut h = self.row(n.token, token);
                if let Some(name) = n.position {
                    add(&mut h, &self.row(name, p));
                }
                if let Some(name) = n.kind {
                    add(&mut h, &self.row(name, 0));
                }
                n.first_norm.map_or(h.clone(), |name| self.norm(name, &h))
            })
            .collect();
        for layer in 0..self.a.shape.layers {
            let at = |name: &str| format!("{}{layer}.{name}", n.block);
            let [first, second] = n.norms;
            let inputs: Vec<Vec<S>> =
                hs.iter().map(|h| if pre { self.norm(&at(first), h) } else { h.clone() }).collect();
            for (h, out) in hs.iter_mut().zip(self.attention(&at, &inputs)) {
                add(h, &out);
                if pre {
                    let out = self.feed_forward(&at, &self.norm(&at(second), h));
                    add(h, &out);
                } else {
                    *h = self.norm(&at(first), h);
                    let out = self.feed_forward(&at, h);
                    add(h, &out);
                    *h = self.norm(&at(second), h);
                }
            }
        }
        hs
    }
}

fn add<S: Scalar>(x: &mut [S], y: &[S]) {
    x.iter_mut().zip(y).for_each(|(x, &y)| *x = *x + y);
}

/// Hidden states after the last block, before any last norm.
pub(crate) fn hidden<S: Scalar>(a: &Anatomy, t: &Tensors<S>) -> Vec<Vec<S>> {
    Run { a, t }.hidden(&TOKENS)
}

/// Scores of tokens, or of a classifier's labels for the first token.
pub(crate) fn forward<S: Scalar>(a: &Anatomy, t: &Tensors<S>) -> Vec<Vec<S>> {
    let run = Run { a, t };
    let n = names(a.family);
    let hs = run.hidden(&TOKENS);
    if a.lm_head == LmHead::None {
        let mut pooled = run.linear("bert.pooler.dense", &hs[0]);
        pooled.iter_mut().for_each(|x| *x = x.tanh());
        return vec![run.linear("classifier", &pooled)];
    }
    hs.iter()
        .map(|h| {
            let h = match n.last_norm {
                Some(name) => run.norm(name, h),
                None => {
                    let mut dense = run.linear("cls.predictions.transform.dense", h);
                    dense.iter_mut().for_each(|x| *x = x.tanh());
                    run.norm("cls.predictions.transform.LayerNorm", &dense)
                }
            };
            let table = if a.lm_head == LmHead::Tied { n.token } else { "lm_head.weight" };
            let bias = t.get("cls.predictions.bias");
            (0..a.shape.vocab)
                .map(|token| {
                    let row = run.row(table, token);
                    dot(&row, &h) + bias.map_or(S::of(0.0), |bias| bias.data[token])
                })
                .collect()
        })
        .collect()
}

/// The largest difference.
pub(crate) fn gap(one: &[Vec<f64>], two: &[Vec<f64>]) -> f64 {
    let both = one.iter().flatten().zip(two.iter().flatten());
    assert_eq!(one.concat().len(), two.concat().len());
    both.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
