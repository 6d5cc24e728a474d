//! What each parameter of a model is, by its name in a Hugging Face folder.
//!
//! In: a name. Out: its role, its layer, and the axes along its dimensions. Never: a number.
//!
//! Prefixes (`bert.`, `model.`, `transformer.`) are ignored: a name belongs to a rule where it
//! ends in the rule's pattern. `{}` stands for the layer's number.

use crate::axis::Axis;
use crate::{Anatomy, Family};

/// What a parameter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `[V, C]`.
    TokenEmbedding,
    /// `[positions, C]`.
    PositionEmbedding,
    /// `[types, C]`.
    TypeEmbedding,
    /// C → heads.
    Query,
    /// C → heads of keys.
    Key,
    /// C → heads of values.
    Value,
    /// The three side by side.
    QueryKeyValue,
    /// Heads → C, into the residual stream.
    AttentionOut,
    /// C → F; of a gated layer both matrices.
    Inner,
    /// F → C, into the residual stream.
    Outer,
    /// Gain or bias of a norm over C.
    Norm(NormSite),
    /// Gain of a norm over one head.
    HeadNorm,
    /// C → C under a function of each unit: a pooler, a classifier's first layer.
    Dense,
    /// C → labels.
    Classifier,
    /// C → V.
    LmHead,
    /// `[V]`.
    LmBias,
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormSite {
    /// After the embeddings.
    Embedding,
    /// The attention's.
    Attention,
    /// The feed-forward layer's; the last of a block where norms come after.
    Ffn,
    /// The one whose output is turned into scores of tokens.
    Last,
}

/// A parameter, found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it does.
    pub role: Role,
    /// Whether it is a bias (of a linear layer or a norm).
    pub bias: bool,
    /// Its layer.
    pub layer: Option<usize>,
    /// Whether a matrix is stored as `[in, out]`.
    pub transposed: bool,
}

/// How a dimension takes part in growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Its units are produced here: `U`.
    Write,
    /// Its units are consumed here: `D`.
    Read,
    /// Queries along a head: consumed by keys, with the softmax scale made up for.
    ReadScaled,
}

/// Axes whose product runs along a dimension, the slowest first.
pub(crate) type Product = Vec<(Axis, Way)>;

/// One dimension: products side by side, or a size that growth leaves alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Dim {
    Fixed,
    Axes(Vec<Product>),
}

use NormSite::{Attention, Embedding, Ffn, Last};
use Role::*;

type Rule = (&'static str, Role);

/// Weight and bias share a rule: `.weight` and `.bias` (`.gamma` and `.beta` in old files) are
/// left out.
const BERT: &[Rule] = &[
    ("embeddings.word_embeddings", TokenEmbedding),
    ("embeddings.position_embeddings", PositionEmbedding),
    ("embeddings.token_type_embeddings", TypeEmbedding),
    ("embeddings.LayerNorm", Norm(Embedding)),
    ("encoder.layer.{}.attention.self.query", Query),
    ("encoder.layer.{}.attention.self.key", Key),
    ("encoder.layer.{}.attention.self.value", Value),
    ("encoder.layer.{}.attention.output.dense", AttentionOut),
    ("encoder.layer.{}.attention.output.LayerNorm", Norm(Attention)),
    ("encoder.layer.{}.intermediate.dense", Inner),
    ("encoder.layer.{}.output.dense", Outer),
    ("encoder.layer.{}.output.LayerNorm", Norm(Ffn)),
    ("pooler.dense", Dense),
    ("classifier.dense", Dense),
    ("classifier.out_proj", Classifier),
    ("classifier", Classifier),
    ("cls.predictions.transform.dense", Dense),
    ("cls.predictions.transform.LayerNorm", Norm(Last)),
    ("cls.predictions.decoder", LmHead),
    ("cls.predictions", LmBias),
    ("cls.seq_relationship", Classifier),
    ("lm_head.dense", Dense),
    ("lm_head.layer_norm", Norm(Last)),
    ("lm_head.decoder", LmHead),
    ("lm_head", LmBias),
];

const DISTILBERT: &[Rule] = &[
    ("embeddings.word_embeddings", TokenEmbedding),
    ("embeddings.position_embeddings", PositionEmbedding),
    ("embeddings.LayerNorm", Norm(Embedding)),
    ("transformer.layer.{}.attention.q_lin", Query),
    ("transformer.layer.{}.attention.k_lin", Key),
    ("transformer.layer.{}.attention.v_lin", Value),
    ("transformer.layer.{}.attention.out_lin", AttentionOut),
    ("transformer.layer.{}.sa_layer_norm", Norm(Attention)),
    ("transformer.layer.{}.ffn.lin1", Inner),
    ("transformer.layer.{}.ffn.lin2", Outer),
    ("transformer.layer.{}.output_layer_norm", Norm(Ffn)),
    ("pre_classifier", Dense),
    ("classifier", Classifier),
    ("vocab_transform", Dense),
    ("vocab_layer_norm", Norm(Last)),
    ("vocab_projector", LmHead),
];

const GPT2: &[Rule] = &[
    ("wte", TokenEmbedding),
    ("wpe", PositionEmbedding),
    ("h.{}.ln_1", Norm(Attention)),
    ("h.{}.attn.c_attn", QueryKeyValue),
    ("h.{}.attn.c_proj", AttentionOut),
    ("h.{}.ln_2", Norm(Ffn)),
    ("h.{}.mlp.c_fc", Inner),
    ("h.{}.mlp.c_proj", Outer),
    ("ln_f", Norm(Last)),
    ("lm_head", LmHead),
];

const LLAMA: &[Rule] = &[
    ("embed_tokens", TokenEmbedding),
    ("layers.{}.input_layernorm", Norm(Attention)),
    ("layers.{}.self_attn.q_proj", Query),
    ("layers.{}.self_attn.k_proj", Key),
    ("layers.{}.self_attn.v_proj", Value),
    ("layers.{}.self_attn.o_proj", AttentionOut),
    ("layers.{}.self_attn.q_norm", HeadNorm),
    ("layers.{}.self_attn.k_norm", HeadNorm),
    ("layers.{}.post_attention_layernorm", Norm(Ffn)),
    ("layers.{}.mlp.gate_proj", Inner),
    ("layers.{}.mlp.up_proj", Inner),
    ("layers.{}.mlp.down_proj", Outer),
    ("norm", Norm(Last)),
    ("lm_head", LmHead),
];

/// Constants that files may hold beside parameters; a grown model does without them.
pub fn is_buffer(name: &str) -> bool {
    [".position_ids", ".token_type_ids", ".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"]
        .iter()
        .any(|end| name.ends_with(end))
}

impl Family {
    fn rules(self) -> &'static [Rule] {
        match self {
            Self::Bert => BERT,
            Self::DistilBert => DISTILBERT,
            Self::Gpt2 => GPT2,
            Self::Llama => LLAMA,
        }
    }

    /// What the parameter `name` is.
    ///
    /// ```
    /// use heirloom_growth::{Family, Role};
    /// let place = Family::Llama.find("model.layers.7.self_attn.q_proj.weight").unwrap();
    /// assert_eq!((place.role, place.layer, place.bias), (Role::Query, Some(7), false));
    /// ```
    pub fn find(self, name: &str) -> Option<Place> {
        let (stem, end) = name.rsplit_once('.')?;
        let bias = match end {
            "weight" | "gamma" => false,
            "bias" | "beta" => true,
            _ => return None,
        };
        let (role, layer) = self
            .rules()
            .iter()
            .find_map(|&(pattern, role)| ends_in(stem, pattern).map(|layer| (role, layer)))?;
        let role = if role == LmHead && bias { LmBias } else { role };
        let matrix = matches!(role, QueryKeyValue | AttentionOut | Inner | Outer);
        Some(Place { role, bias, layer, transposed: self == Self::Gpt2 && matrix })
    }

    /// The name of an untied head.
    pub(crate) fn head_name(self) -> Option<&'static str> {
        matches!(self, Self::Gpt2 | Self::Llama).then_some("lm_head.weight")
    }
}

/// Where `stem` ends in `pattern`, at its beginning or after a dot: the layer it names.
fn ends_in(stem: &str, pattern: &str) -> Option<Option<usize>> {
    let is_whole = |before: &str| before.is_empty() || before.ends_with('.');
    let Some((before, after)) = pattern.split_once("{}") else {
        // A pattern without a layer must not match inside one.
        let prefix = stem.strip_suffix(pattern)?;
        let in_layer = prefix.split('.').any(|part| part.parse::<usize>().is_ok());
        return (is_whole(prefix) && !in_layer).then_some(None);
    };
    let head = stem.strip_suffix(after)?;
    let digits = head.len() - head.bytes().rev().take_while(u8::is_ascii_digit).count();
    let prefix = head[..digits].strip_suffix(before)?;
    is_whole(prefix).then_some(Some(head[digits..].parse().ok()?))
}

impl Place {
    /// The dimensions of the parameter, as they are stored.
    pub(crate) fn dims(&self) -> Vec<Dim> {
        use Axis::{Ffn, Group, HeadDim, KvHeads, Positions, Residual, Vocab};
        use Way::{Read, ReadScaled, Write};
        let one = |product: &[(Axis, Way)]| Dim::Axes(vec![product.to_vec()]);
        let query = vec![(KvHeads, Write), (Group, Write), (HeadDim, ReadScaled)];
        let key = vec![(KvHeads, Write), (HeadDim, Write)];
        let residual = one(&[(Residual, Write)]);
        let (out, input) = match self.role {
            TokenEmbedding => (one(&[(Vocab, Write)]), residual),
            PositionEmbedding => (one(&[(Positions, Write)]), residual),
            TypeEmbedding => (Dim::Fixed, residual),
            Query => (Dim::Axes(vec![query]), one(&[(Residual, Read)])),
            Key | Value => (Dim::Axes(vec![key]), one(&[(Residual, Read)])),
            QueryKeyValue => (Dim::Axes(vec![query, key.clone(), key]), one(&[(Residual, Read)])),
            AttentionOut => (residual, one(&[(KvHeads, Read), (Group, Read), (HeadDim, Read)])),
            Inner => (one(&[(Ffn, Write)]), one(&[(Residual, Read)])),
            Outer => (residual, one(&[(Ffn, Read)])),
            Norm(_) => return vec![residual],
            HeadNorm => return vec![one(&[(HeadDim, Write)])],
            Dense => (residual, one(&[(Residual, Read)])),
            Classifier => (Dim::Fixed, one(&[(Residual, Read)])),
            LmHead => (one(&[(Vocab, Write)]), one(&[(Residual, Read)])),
            LmBias => return vec![one(&[(Vocab, Write)])],
        };
        match (self.bias, self.transposed) {
            (true, _) => vec![out],
            (false, true) => vec![input, out],
            (false, false) => vec![out, input],
        }
    }

    /// Whether the parameter adds to the residual stream.
    pub(crate) fn writes_residual(&self) -> bool {
        matches!(
            self.role,
            TokenEmbedding | PositionEmbedding | TypeEmbedding | AttentionOut | Outer
        )
    }

    /// The place along the shape of what is written; the other of a matrix is read.
    pub(crate) fn out_dim(&self) -> usize {
        usize::from(self.transposed && !self.bias)
    }
}

impl Dim {
    /// How many units a model of this anatomy has along it; `None` where it is fixed.
    pub(crate) fn size(&self, anatomy: &Anatomy) -> Option<usize> {
        let Self::Axes(parts) = self else { return None };
        let product = |product: &Product| -> usize {
            product.iter().map(|&(axis, _)| anatomy.shape.size(axis)).product()
        };
        Some(parts.iter().map(product).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_family_have_their_roles() {
        let rows = [
            (Family::Bert, "bert.encoder.layer.11.output.dense.weight", Outer, Some(11)),
            (Family::Bert, "encoder.layer.0.attention.output.dense.bias", AttentionOut, Some(0)),
            (Family::Bert, "embeddings.LayerNorm.gamma", Norm(Embedding), None),
            (Family::Bert, "cls.predictions.bias", LmBias, None),
            (Family::Bert, "cls.predictions.decoder.weight", LmHead, None),
            (Family::Bert, "cls.predictions.decoder.bias", LmBias, None),
            (Family::Bert, "classifier.out_proj.weight", Classifier, None),
            (Family::Bert, "lm_head.bias", LmBias, None),
            (Family::DistilBert, "distilbert.transformer.layer.2.ffn.lin1.bias", Inner, Some(2)),
            (Family::DistilBert, "pre_classifier.weight", Dense, None),
            (Family::Gpt2, "transformer.h.3.attn.c_attn.weight", QueryKeyValue, Some(3)),
            (Family::Gpt2, "wpe.weight", PositionEmbedding, None),
            (Family::Gpt2, "h.0.mlp.c_proj.bias", Outer, Some(0)),
            (Family::Llama, "model.norm.weight", Norm(Last), None),
            (Family::Llama, "model.layers.5.self_attn.k_norm.weight", HeadNorm, Some(5)),
            (Family::Llama, "lm_head.weight", LmHead, None),
        ];
        for (family, name, role, layer) in rows {
            let place = family.find(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((place.role, place.layer), (role, layer), "{name}");
        }
        let unknown = ["bert.encoder.layer.0.adapter.weight", "h.x.ln_1.weight", "classifier"];
        for name in unknown {
            assert_eq!(Family::Bert.find(name), None, "{name}");
        }
    }

    #[test]
    fn weights_of_gpt2_are_stored_the_other_way_round() {
        let place = Family::Gpt2.find("h.0.mlp.c_fc.weight").unwrap();
        assert_eq!(place.dims()[1], Dim::Axes(vec![vec![(Axis::Ffn, Way::Write)]]));
        assert!(!Family::Gpt2.find("wte.weight").unwrap().transposed);
    }
}
