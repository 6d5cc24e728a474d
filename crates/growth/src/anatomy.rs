//! What a growth plan must know of a model: its sizes, its norms, and where they stand.

use serde::{Deserialize, Serialize};

use crate::Axis;

/// Whose names the parameters have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// BERT and RoBERTa.
    Bert,
    /// DistilBERT.
    DistilBert,
    /// GPT-2: queries, keys and values in one matrix, weights stored as `[in, out]`.
    Gpt2,
    /// LLaMA, Mistral, Qwen: one matrix each.
    Llama,
}

/// What a norm takes from a row of C numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Mean and standard deviation (Ba et al. 2016, arXiv:1607.06450).
    Layer,
    /// Root of the mean square (Zhang & Sennrich 2019, arXiv:1910.07467).
    Rms,
}

/// Where norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Before each branch: `x + f(norm(x))`.
    Pre,
    /// After each sum: `norm(x + f(x))`.
    Post,
}

/// What turns hidden states into scores of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LmHead {
    /// The model has none.
    None,
    /// The transposed word embeddings.
    Tied,
    /// A matrix of its own.
    Untied,
}

/// The sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// L.
    pub layers: usize,
    /// C.
    pub hidden: usize,
    /// F.
    pub intermediate: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Query heads per head of keys and values.
    pub group: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// V.
    pub vocab: usize,
    /// Rows of the table of positions; 0 without one.
    pub positions: usize,
}

impl Shape {
    /// The size of an axis.
    pub fn size(&self, axis: Axis) -> usize {
        match axis {
            Axis::Residual => self.hidden,
            Axis::Ffn => self.intermediate,
            Axis::KvHeads => self.kv_heads,
            Axis::Group => self.group,
            Axis::HeadDim => self.head_dim,
            Axis::Vocab => self.vocab,
            Axis::Positions => self.positions,
        }
    }

    /// Query heads.
    pub fn heads(&self) -> usize {
        self.kv_heads * self.group
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { layers, hidden, intermediate, head_dim, .. } = self;
        write!(f, "{layers} layers, hidden {hidden}, {} heads of {head_dim}", self.heads())?;
        if self.group > 1 {
            write!(f, " ({} of keys and values)", self.kv_heads)?;
        }
        write!(f, ", intermediate {intermediate}")
    }
}

/// A model as a growth plan sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anatomy {
    /// Whose names its parameters have.
    pub family: Family,
    /// Its norms.
    pub norm: Norm,
    /// Where they stand.
    pub placement: Placement,
    /// ε of its norms.
    pub norm_eps: f64,
    /// Whether positions turn queries and keys by angles that depend on the head size.
    pub rotary: bool,
    /// Whether queries and keys are normed head by head.
    pub head_norms: bool,
    /// What turns hidden states into scores of tokens.
    pub lm_head: LmHead,
    /// Its sizes.
    pub shape: Shape,
}
