//! What a policy is told, and what it answers.

/// The column of the label's term.
pub const LABEL: usize = 0;
/// The column of the teacher's term.
pub const TEACHER: usize = 1;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At {
    /// The optimiser step, from 0.
    pub step: u64,
    /// How many there will be.
    pub total: u64,
    /// The learning rate of this step.
    pub learning_rate: f64,
}

impl At {
    /// How much of the run lies behind, `0.0..=1.0`: 0 at the first step, 1 at the last.
    pub fn progress(&self) -> f64 {
        if self.total <= 1 {
            return 1.0;
        }
        (self.step as f64 / (self.total - 1) as f64).min(1.0)
    }
}

/// What is known of some samples of a step, `R` of them: row after row.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// Which examples of the training set they are, `[R]`.
    pub ids: &'a [u32],
    /// The class each is labelled with, `[R]`; `None` where it has no label.
    pub labels: &'a [Option<u32>],
    /// Classes, `K`.
    pub classes: usize,
    /// The student's logits, `[R, K]`.
    pub student: &'a [f32],
    /// The teacher's logits, `[R, K]`.
    pub teacher: &'a [f32],
    /// Losses, `[R, 2]`: the label's term and the teacher's, in nats, without any weight.
    pub losses: &'a [f64],
    /// What the classifier sees of each sample, `[R, D]`; empty where nobody asked for it.
    pub features: &'a [f32],
}

impl<'a> Samples<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The student's logits of one sample.
    pub fn student(&self, row: usize) -> &'a [f32] {
        &self.student[row * self.classes..(row + 1) * self.classes]
    }

    /// The teacher's logits of one sample.
    pub fn teacher(&self, row: usize) -> &'a [f32] {
        &self.teacher[row * self.classes..(row + 1) * self.classes]
    }

    /// Losses of one sample: label, teacher.
    pub fn losses(&self, row: usize) -> [f64; 2] {
        [self.losses[2 * row + LABEL], self.losses[2 * row + TEACHER]]
    }
}

/// How far the gradient of each loss of each sample points the way a second set's loss falls.
///
/// `⟨v, ∇ℓ⟩`, `v` the gradient of the second set's mean loss, `ℓ` one loss of one sample: a step
/// down `ℓ` lowers the second set's loss where this is positive.
#[derive(Clone, Copy, Debug)]
pub struct Alignments<'a> {
    /// All samples of the step, at the weights where the alignments were measured.
    pub samples: Samples<'a>,
    /// `⟨v, ∇ℓ⟩`, `[R, 2]`: label, teacher.
    pub values: &'a [f64],
}

impl Alignments<'_> {
    /// Of one sample: label, teacher.
    pub fn of(&self, row: usize) -> [f64; 2] {
        [self.values[2 * row + LABEL], self.values[2 * row + TEACHER]]
    }
}

/// What a policy decides for some samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Weights of the losses, `[R, 2]`: label, teacher.
    pub weights: Vec<f64>,
    /// The temperature of the teacher's term at this step; `None` leaves the plan's.
    pub temperature: Option<f64>,
    /// Factor of the teacher's logits at this step; `None` leaves them.
    pub teacher_scale: Option<f64>,
}

impl Decision {
    /// The same weights for `rows` samples.
    pub fn uniform(rows: usize, label: f64, teacher: f64) -> Self {
        let weights = [label, teacher].repeat(rows);
        Self { weights, ..Self::default() }
    }

    /// Weights of one sample: label, teacher.
    pub fn of(&self, row: usize) -> [f64; 2] {
        [self.weights[2 * row + LABEL], self.weights[2 * row + TEACHER]]
    }

    /// The same for the samples of `range` alone.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        let weights = self.weights[2 * range.start..2 * range.end].to_vec();
        Self { weights, ..*self }
    }

    /// The teacher's share of each sample's weight, λ; ½ where a sample has no weight at all.
    pub fn shares(&self) -> impl Iterator<Item = f64> {
        self.weights.chunks(2).map(|pair| {
            let sum = pair[LABEL] + pair[TEACHER];
            if sum > 0.0 { pair[TEACHER] / sum } else { 0.5 }
        })
    }
}
