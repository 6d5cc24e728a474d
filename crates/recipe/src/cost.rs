//! What a plan needs of memory, before anything starts.
//!
//! In: a plan, and counts from whoever knows the models. Out: the bytes of each part, or a refusal
//! with numbers and a way out. Never: allocates, or guesses at what the caller can count.

use heirloom_base::Bytes;

use crate::plan::{Batch, Plan, TrainingPlan};

/// What the models need, counted by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// The student's parameters, with projections.
    pub student_parameters: u64,
    /// The teacher's parameters; 0 where it is not in memory while training.
    pub teacher_parameters: u64,
    /// Activations of one micro-batch, and whatever else grows with it.
    pub activations: Bytes,
    /// The same with `training.activation_checkpointing`.
    pub activations_recomputed: Bytes,
    /// A teacher that answers before the training begins; given back then.
    pub answering: Bytes,
    /// Data, caches, and whatever else does not grow with it.
    pub other: Bytes,
}

/// The memory of a run, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Weights of the student.
    pub weights: Bytes,
    /// Its gradient.
    pub gradients: Bytes,
    /// The two moments of AdamW.
    pub moments: Bytes,
    /// The average of the weights, where the plan has one.
    pub average: Bytes,
    /// Weights of the teacher.
    pub teacher: Bytes,
    /// Activations of one micro-batch.
    pub activations: Bytes,
    /// A teacher that answers before the training begins and is then gone.
    pub answering: Bytes,
    /// The rest.
    pub other: Bytes,
}

impl Cost {
    /// The most that is needed at a time: while training, or while a teacher answers before.
    pub fn total(&self) -> Bytes {
        let training = self.fixed().saturating_add(self.activations.0);
        Bytes(training.max(self.while_answering()))
    }

    fn while_answering(&self) -> u64 {
        self.other.0.saturating_add(self.answering.0)
    }

    fn fixed(&self) -> u64 {
        [self.weights, self.gradients, self.moments, self.average, self.teacher, self.other]
            .into_iter()
            .fold(0, |sum, part| sum.saturating_add(part.0))
    }
}

/// The plan needs more memory than there is.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("does not fit in memory: {parts} of {available}; {way_out}")]
pub struct DoesNotFit {
    /// The parts, in gigabytes.
    pub parts: String,
    /// What there is.
    pub available: Bytes,
    /// What would fit.
    pub way_out: String,
}

impl DoesNotFit {
    /// The exit code of a command that met it: 6, does not fit in memory.
    pub fn exit_code(&self) -> u8 {
        6
    }
}

/// Bytes of a 32-bit float.
const FLOAT: u64 = 4;

/// The memory that `plan` needs, refused where it exceeds `available`.
pub fn cost(plan: &Plan, counts: &Counts, available: Bytes) -> Result<Cost, DoesNotFit> {
    cost_of(&plan.training, plan.data.max_length, counts, available)
}

/// The memory that a run needs, refused where it exceeds `available`. No micro-batch has less than
/// `longest` tokens, those of the longest input.
pub fn cost_of(
    training: &TrainingPlan,
    longest: u64,
    counts: &Counts,
    available: Bytes,
) -> Result<Cost, DoesNotFit> {
    let student = counts.student_parameters.saturating_mul(FLOAT);
    let cost = Cost {
        weights: Bytes(student),
        gradients: Bytes(student),
        moments: Bytes(student.saturating_mul(2)),
        average: Bytes(if training.average.is_none() { 0 } else { student }),
        teacher: Bytes(counts.teacher_parameters.saturating_mul(FLOAT)),
        activations: counts.activations,
        answering: counts.answering,
        other: counts.other,
    };
    if cost.total() <= available {
        return Ok(cost);
    }
    let recomputed = counts.activations_recomputed;
    let way_out = way_out(training, longest, &cost, recomputed, available);
    Err(DoesNotFit { parts: parts(&cost), available, way_out })
}

fn parts(cost: &Cost) -> String {
    [
        ("weights", cost.weights),
        ("gradients", cost.gradients),
        ("moments", cost.moments),
        ("average", cost.average),
        ("teacher", cost.teacher),
        ("activations", cost.activations),
        ("answering teacher", cost.answering),
        ("other", cost.other),
    ]
    .into_iter()
    .filter(|(_, bytes)| bytes.0 > 0)
    .map(|(part, bytes)| format!("{part} {:.1}", bytes.0 as f64 / 1e9))
    .collect::<Vec<_>>()
    .join(", ")
}

/// What would fit: the largest halving of the micro-batch, layers computed again, or both.
fn way_out(
    training: &TrainingPlan,
    longest: u64,
    cost: &Cost,
    recomputed: Bytes,
    available: Bytes,
) -> String {
    if cost.while_answering() > available.0 {
        return "take a smaller `teacher.batch_tokens`, or a smaller teacher".to_owned();
    }
    const AGAIN: &str = "`training.activation_checkpointing = true`";
    let mut ways = Vec::new();
    ways.extend(smaller(training, longest, cost, cost.activations, available));
    if !training.activation_checkpointing {
        let total = cost.fixed().saturating_add(recomputed.0);
        if total <= available.0 {
            ways.push(format!("{AGAIN} would need {:.1}", total as f64 / 1e9));
        } else if ways.is_empty() {
            let both = smaller(training, longest, cost, recomputed, available);
            ways.extend(both.map(|smaller| format!("{AGAIN} with {smaller}")));
        }
    }
    if ways.is_empty() {
        let least = cost.fixed() as f64 / 1e9;
        return format!(
            "no micro-batch is small enough, as {least:.1} are needed without it; take a smaller \
             model"
        );
    }
    ways.join(", ")
}

/// The largest halving of the micro-batch that fits, if one does; the whole takes `activations`.
fn smaller(
    training: &TrainingPlan,
    longest: u64,
    cost: &Cost,
    activations: Bytes,
    available: Bytes,
) -> Option<String> {
    let (key, size, least) = match training.micro_batch {
        Batch::Sequences(size) => ("micro_batch_size", size, 1),
        Batch::Tokens(size) => ("micro_batch_tokens", size, longest),
    };
    let mut halves = std::iter::successors(Some(size / 2), |size| Some(size / 2))
        .take_while(|smaller| *smaller >= least.max(1));
    halves.find_map(|smaller| {
        let part = u128::from(activations.0) * u128::from(smaller) / u128::from(size);
        let part = u64::try_from(part).unwrap_or(u64::MAX);
        let total = cost.fixed().saturating_add(part);
        let text = || format!("`training.{key} = {smaller}` would need {:.1}", total as f64 / 1e9);
        (total <= available.0).then(text)
    })
}
