//! What a step says about itself. The schema of `run.jsonl` is public: fields are added, never
//! renamed, and no field holds a time, so that records of equal runs are equal byte for byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One term of the objective in one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TermRecord {
    /// Mean, in nats (or the distance's own unit); `None` where nothing counted.
    pub mean: Option<f64>,
    /// How many items it covers.
    pub count: u64,
}

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Always `step`.
    pub kind: String,
    /// Steps done, this one included.
    pub step: u64,
    /// Epoch the step's examples are from, from 0.
    pub epoch: u64,
    /// Weighted sum of the terms.
    pub loss: f64,
    /// Each term apart.
    pub terms: BTreeMap<String, TermRecord>,
    /// The teacher's shares, where a policy weighs samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<crate::BalanceRecord>,
    /// Length of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// That of each of the plan's groups of parameters, in their order: 0 where the step left them as
    /// they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_learning_rates: Vec<f64>,
    /// c of this step, of a mask over what the last growth added, while it is not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<f64>,
    /// Sequences.
    pub sequences: u64,
    /// Tokens.
    pub tokens: u64,
    /// Floating-point operations of all products and optimisers of this step, by the shapes computed
    /// (`Device::operations`).
    #[serde(default)]
    pub flops: u64,
    /// Micro-batches.
    pub micro_batches: u64,
    /// Whether the step was left out because it was not finite.
    pub skipped: bool,
}

/// What a teacher's kept answers take to compute, whether this run did or found them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherRecord {
    /// Always `teacher`.
    pub kind: String,
    /// Which one, from 0.
    pub teacher: u64,
    /// Examples answered.
    pub examples: u64,
    /// Their tokens, as it reads them.
    pub tokens: u64,
    /// Floating-point operations of its forward passes.
    pub flops: u64,
}

/// What a program has brought to the run, where it has; the first record of such a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnRecord {
    /// Always `own`.
    pub kind: String,
    /// The name of its policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The name of its regularizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regularizer: Option<String>,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Always `evaluation`.
    pub kind: String,
    /// Steps done.
    pub step: u64,
    /// The value that decides which step is best.
    pub score: Option<f64>,
    /// Whether this one is the best so far.
    pub best: bool,
    /// Weights in the average that was judged; absent where the weights themselves were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averaged: Option<u64>,
    /// How far copies of the last growth are apart; absent where nothing was copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_gap: Option<f64>,
    /// Everything that was measured.
    pub evaluation: Value,
}
