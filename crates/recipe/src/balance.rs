//! What a plan says of balance: the policy that weighs label and teacher, and the second set that
//! some of them learn from.
//!
//! In: `policy.rs` alone makes them. Out: plain data, and the policy in words. Never: decides a
//! weight; `heirloom-balance` does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::choices::{Adoption, Course, Doubt, MetaAt, NetworkOutput, Normalize, Schedule, Sight};
use crate::divergence::rounded;
use crate::section::choice;

/// How label and teacher are weighed, sample by sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalancePlan {
    /// The policy.
    pub policy: PolicyPlan,
    /// The second set, where the policy learns from one.
    pub meta: Option<MetaPlan>,
}

/// A policy and its numbers; see `heirloom-balance` for what each does. Where a policy has a share
/// of the teacher that it begins with or keeps, that is the objective's `alpha`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum PolicyPlan {
    /// `alpha` for every sample.
    Fixed,
    /// A share of the teacher that changes over the run.
    Schedule {
        /// At the first step, `0.0..=1.0`.
        from: f64,
        /// At the last, `0.0..=1.0`.
        to: f64,
        /// How it gets there.
        course: Course,
        /// Part of the run before a `step`, `0.0..=1.0`.
        at: f64,
    },
    /// First the teacher, growing; then the labels.
    AnnealingKd {
        /// Part of the run that is the teacher's, `0.0..=1.0`.
        phase_one: f64,
        /// Sizes that the teacher's logits go through, from 1.
        levels: u32,
    },
    /// From a margin around a small teacher to the labels.
    ContinuationKd {
        /// Sizes that the teacher's logits go through, from 1.
        levels: u32,
        /// The margin at the first step, in squared logits, from 0.
        margin: f64,
    },
    /// A variance learnt for each loss.
    Uncertainty {
        /// Step size of their logarithms, above 0.
        learning_rate: f64,
        /// Largest size of a logarithm, above 0.
        bound: f64,
    },
    /// Losses whose gradients are of one size.
    GradNorm {
        /// How strongly the loss that lags is favoured, from 0.
        asymmetry: f64,
        /// Step size of the weights, above 0.
        learning_rate: f64,
    },
    /// Weighted soft labels.
    Wsl {
        /// The teacher's largest weight, from 0; the label's is 1.
        weight: f64,
    },
    /// The teacher's margin for the label is its share.
    AdaKd {
        /// Temperature of the distribution whose margin it is, above 0.
        temperature: f64,
    },
    /// The teacher where the student is uncertain; at most `alpha` on the mean.
    DynamicKd {
        /// Whose uncertainty counts.
        adoption: Adoption,
        /// Part of a step that a selection keeps, above 0 and at most 1.
        share: f64,
        /// What is uncertain, for a selection.
        doubt: Doubt,
    },
    /// A temperature that learns to make the task harder, at the share `alpha`.
    Ctkd {
        /// The lowest temperature, and the highest less the lowest; both above 0.
        range: [f64; 2],
        /// Step size of the temperature's parameter, above 0.
        learning_rate: f64,
        /// Part of the run over which the reversed gradient grows, `0.0..=1.0`.
        ramp: f64,
    },
    /// RW-KD. Before anything is measured the teacher's share is `alpha`.
    RwKd {
        /// What weights sum to.
        normalize: Normalize,
        /// δ: alignments count as at least this, from 0.
        floor: f64,
        /// Least and largest share of the teacher.
        bounds: [f64; 2],
        /// Memory of an example's weights, `0.0..1.0`.
        ema: f64,
    },
    /// Weights of samples, at the share `alpha`.
    L2rw {
        /// Memory of an example's weight, `0.0..1.0`.
        ema: f64,
    },
    /// A network that gives weights.
    MetaWeightNet {
        /// What it sees.
        sight: Sight,
        /// What it gives.
        output: NetworkOutput,
        /// Its step size, above 0.
        learning_rate: f64,
        /// Decay of its parameters, times the step size; from 0.
        weight_decay: f64,
    },
    /// A network that sees where student, teacher and label stand to each other.
    TgeoKd {
        /// Its step size, above 0.
        learning_rate: f64,
        /// Decay of its parameters, times the step size; from 0.
        weight_decay: f64,
    },
    /// A policy that a program brings with the library.
    Own {
        /// Its name.
        called: String,
    },
}

impl PolicyPlan {
    /// The policy in words, with its numbers; `alpha` is the objective's. w₁ is the weight of the
    /// label's loss, w₂ that of the teacher's.
    pub fn words(&self, alpha: f64) -> String {
        let rest = rounded(1.0 - alpha);
        match self {
            Self::Fixed => format!("fixed: w₁ = {rest}, w₂ = {alpha}"),
            Self::Schedule { from, to, course, at } => match course {
                Course::Step => format!(
                    "schedule: w₂ = {from} for the first {at} of the run, then {to}; w₁ = 1 − w₂"
                ),
                _ => format!("schedule: w₂ from {from} to {to}, {course}; w₁ = 1 − w₂"),
            },
            Self::AnnealingKd { phase_one, levels } => format!(
                "annealing_kd: the teacher alone for the first {phase_one} of the run, its logits \
                 growing in {levels} levels; then the labels alone"
            ),
            Self::ContinuationKd { levels, margin } => format!(
                "continuation_kd: w₂ from 1 to 0, w₁ = 1 − it; the teacher's logits grow in \
                 {levels} levels, silent within a margin from {margin} to 0"
            ),
            Self::Uncertainty { learning_rate, bound } => format!(
                "uncertainty: both weights learnt from the mean losses at rate {learning_rate}, \
                 within exp(±{bound})"
            ),
            Self::GradNorm { asymmetry, learning_rate } => format!(
                "grad_norm: both weights learnt from the sizes of gradients at rate \
                 {learning_rate}, asymmetry {asymmetry}; their sum is 2"
            ),
            Self::Wsl { weight } => format!(
                "wsl: w₁ = 1; w₂ up to {weight}, less where the student knows the label better \
                 than the teacher"
            ),
            Self::AdaKd { temperature } => format!(
                "ada_kd: w₂ the teacher's margin for the label at T = {temperature}, w₁ = 1 − w₂"
            ),
            Self::DynamicKd { adoption, share, doubt } => {
                let doubt = match doubt {
                    Doubt::Entropy => "entropy",
                    Doubt::Margin => "margin",
                    Doubt::LeastConfidence => "confidence",
                };
                let teacher = match adoption {
                    Adoption::Sample => format!("{alpha} × the student's uncertainty"),
                    Adoption::Batch => format!("{alpha} × its mean uncertainty over the step"),
                    Adoption::Select => format!(
                        "{alpha}/{share} for the {share} of a step it is least sure of by {doubt}, \
                         else 0"
                    ),
                };
                format!("dynamic_kd: w₁ = {rest}, w₂ = {teacher}")
            }
            Self::Ctkd { range: [least, more], learning_rate, ramp } => format!(
                "ctkd: w₁ = {rest}, w₂ = {alpha}; T learnt between {least} and {} at rate \
                 {learning_rate}, which grows over the first {ramp} of the run",
                rounded(least + more)
            ),
            Self::RwKd { normalize, floor, bounds: [low, high], ema } => {
                let sum = match normalize {
                    Normalize::Terms => {
                        format!("to sum to 1 in a sample, w₂ within {low}..{high}")
                    }
                    Normalize::Batch => "to sum to a step's size".to_owned(),
                    Normalize::None => "as they are".to_owned(),
                };
                let floor = if *floor == 0.0 { "0".to_owned() } else { format!("{floor:e}") };
                format!(
                    "rw_kd: both weights by how far each loss helps a second set, at least {floor}, \
                     {sum}; memory {ema}, w₂ = {alpha} before"
                )
            }
            Self::L2rw { ema } => format!(
                "l2rw: w₁ = {rest}, w₂ = {alpha}, both times how far the sample helps a second set; \
                 memory {ema}"
            ),
            Self::MetaWeightNet { sight, output, learning_rate, weight_decay } => {
                let sight = match sight {
                    Sight::Losses => "both losses",
                    Sight::TeacherLogits => "the teacher's logits",
                };
                let output = match output {
                    NetworkOutput::Weights => "both weights",
                    NetworkOutput::Share => "w₂ = 1 − w₁",
                };
                format!(
                    "meta_weight_net: {output} by a network of {sight}, which learns from a second \
                     set at rate {learning_rate}, decay {weight_decay}"
                )
            }
            Self::TgeoKd { learning_rate, weight_decay } => format!(
                "tgeo_kd: w₂ = 1 − w₁ by a network of student, teacher and label, which learns from \
                 a second set at rate {learning_rate}, decay {weight_decay}"
            ),
            Self::Own { called } => {
                format!("own: w₁ and w₂ by `{called}`, a policy that the program brings")
            }
        }
    }
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
    /// Where the second set's gradient is taken. Not written where it is the usual place.
    #[serde(default = "here", skip_serializing_if = "is_here")]
    pub at: MetaAt,
    /// Whether the first measurement is checked. Not written where it is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
    /// Course of a network's step size. Not written where it is level.
    #[serde(default = "level", skip_serializing_if = "is_level")]
    pub lr_scheduler_type: Schedule,
    /// Longest gradient of a network; 0, which is not written, turns clipping off.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_grad_norm: f64,
}

fn here() -> MetaAt {
    MetaAt::Here
}

fn is_here(at: &MetaAt) -> bool {
    *at == MetaAt::Here
}

fn level() -> Schedule {
    Schedule::Constant
}

fn is_level(schedule: &Schedule) -> bool {
    *schedule == Schedule::Constant
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// The second set in words, and what asking it costs; one line each.
impl fmt::Display for MetaPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.source {
            MetaSource::Split(share) => format!("{share} of the training set, not trained on"),
            MetaSource::Train => "other batches of the training set".to_owned(),
            MetaSource::File(path) => path.clone(),
        };
        let losses = match self.loss {
            MetaLoss::Mix => "both losses",
            MetaLoss::Hard => "the label's loss",
            MetaLoss::Soft => "the teacher's loss",
        };
        let size = self.batch_size;
        writeln!(f, "second set: {source}; {losses} of {size} sequences at a time")?;
        let often = match self.every {
            1 => "every step".to_owned(),
            every => format!("every {every} steps"),
        };
        let first = match self.warmup_steps {
            0 => String::new(),
            steps => format!(", but not in the first {steps}"),
        };
        let cost = match self.estimator {
            Estimator::FiniteDifference { radius } => {
                let scaled = match self.preconditioner {
                    Preconditioner::None => "",
                    Preconditioner::Adam => ", scaled as AdamW's",
                };
                format!(
                    "two more forward passes of the step at a distance of {radius}{scaled}, and a \
                     forward and a backward pass of the second set"
                )
            }
            Estimator::LastLayer => "a forward pass of the second set, last layer alone".to_owned(),
        };
        write!(f, "{often}{first}: {cost}")?;
        if self.at == MetaAt::Ahead {
            write!(f, ", both where the step would lead, at one more pass of each of the step")?;
        }
        if self.check {
            write!(f, "\nthe first measurement is checked against finite differences")?;
        }
        if self.lr_scheduler_type != Schedule::Constant || self.max_grad_norm > 0.0 {
            let clipped = match self.max_grad_norm {
                0.0 => "not clipped".to_owned(),
                norm => format!("clipped at {norm}"),
            };
            let course = self.lr_scheduler_type;
            write!(f, "\nthe network's step size is {course}, its gradient {clipped}")?;
        }
        Ok(())
    }
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

choice! {
    /// Which losses of the second set count.
    MetaLoss {
        /// Label's and teacher's.
        Mix = "mix",
        /// The label's.
        Hard = "hard",
        /// The teacher's.
        Soft = "soft",
    }
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

choice! {
    /// A diagonal that the direction is multiplied by.
    Preconditioner {
        /// None: the virtual step is plain gradient descent.
        None = "none",
        /// AdamW's.
        Adam = "adam",
    }
}
