//! What a plan says of balance: the policy that weighs label and teacher, and the second set that
//! some of them learn from.

use serde::{Deserialize, Serialize};

/// How label and teacher are weighed, sample by sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalancePlan {
    /// The policy.
    pub policy: PolicyPlan,
    /// The second set, where the policy learns from one.
    pub meta: Option<MetaPlan>,
}

/// A policy and its numbers; see `heirloom-balance` for what each does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum PolicyPlan {
    /// A share of the teacher that changes over the run.
    Schedule {
        /// At the first step.
        from: f64,
        /// At the last.
        to: f64,
        /// `linear`, `cosine`, or `step`.
        course: String,
        /// Part of the run before a `step`.
        at: f64,
    },
    /// RW-KD.
    RwKd {
        /// `terms`, `batch` or `none`.
        normalize: String,
        /// δ.
        floor: f64,
        /// Least and largest share of the teacher.
        bounds: [f64; 2],
        /// Memory of an example's weights.
        ema: f64,
    },
}

/// What a policy's second set is made of and how it is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetaPlan {
    /// Where it comes from.
    pub source: MetaSource,
    /// Sequences of a batch of it.
    pub batch_size: u64,
    /// Steps from one measurement to the next.
    pub every: u64,
    /// Steps before the first.
    pub warmup_steps: u64,
    /// Which of its losses count.
    pub loss: MetaLoss,
    /// How alignments are measured.
    pub estimator: Estimator,
    /// Whether the direction is scaled as AdamW would scale a step.
    pub preconditioner: Preconditioner,
}

/// Where the second set comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaSource {
    /// This part of the training set, which is then not trained on.
    Split(f64),
    /// Other batches of the training set.
    Train,
    /// A file of its own.
    File(String),
}

/// Which losses of the second set count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaLoss {
    /// Label's and teacher's.
    Mix,
    /// The label's.
    Hard,
    /// The teacher's.
    Soft,
}

/// How `⟨v, ∇ℓ⟩` is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// By two forward passes at `θ ± h v`.
    FiniteDifference {
        /// `r = h ‖v‖`.
        radius: f64,
    },
    /// Through the last layer alone, in closed form.
    LastLayer,
}

/// A diagonal that the direction is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preconditioner {
    /// None: the virtual step is plain gradient descent.
    None,
    /// AdamW's.
    Adam,
}
