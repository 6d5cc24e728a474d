//! What a policy is told, and what it answers.

/// The column of the label's term.
pub const LABEL: usize = 0;
/// The column of the teacher's term; of several teachers the first's, the others follow.
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
    /// The teachers' logits, `[R, T, K]`; `T`, the number of teachers, is 1 for most policies.
    pub teacher: &'a [f32],
    /// Losses, `[R, 1 + T]`: the label's term and each teacher's, in nats, without any weight.
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

    /// How many teachers there are, `T`.
    pub fn teachers(&self) -> usize {
        let terms = self.losses.len().checked_div(self.len()).unwrap_or(0);
        terms.saturating_sub(1).max(1)
    }

    /// The first teacher's logits of one sample; the only one's for most policies.
    pub fn teacher(&self, row: usize) -> &'a [f32] {
        self.teacher_of(row, 0)
    }

    /// The logits of teacher number `teacher`, from 0, of one sample.
    pub fn teacher_of(&self, row: usize, teacher: usize) -> &'a [f32] {
        let at = (row * self.teachers() + teacher) * self.classes;
        &self.teacher[at..at + self.classes]
    }

    /// Losses of one sample: label, teacher (the first).
    pub fn losses(&self, row: usize) -> [f64; 2] {
        let terms = 1 + self.teachers();
        [self.losses[terms * row + LABEL], self.losses[terms * row + TEACHER]]
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
    /// `⟨v, ∇ℓ⟩`, `[R, 1 + T]`: label, each teacher.
    pub values: &'a [f64],
}

impl Alignments<'_> {
    /// Of one sample: label, teacher (the first).
    pub fn of(&self, row: usize) -> [f64; 2] {
        let values = self.all(row);
        [values[LABEL], values[TEACHER]]
    }

    /// Of one sample: label, each teacher, `[1 + T]`.
    pub fn all(&self, row: usize) -> &[f64] {
        let terms = 1 + self.samples.teachers();
        &self.values[terms * row..terms * (row + 1)]
    }
}

/// What a policy decides for some samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Weights of the losses, `[R, 1 + T]`: label, each teacher.
    pub weights: Vec<f64>,
    /// Losses of a sample, `1 + T`.
    pub terms: usize,
    /// The temperature of the teacher's term at this step; `None` leaves the plan's.
    pub temperature: Option<f64>,
    /// Factor of the teacher's logits at this step; `None` leaves them.
    pub teacher_scale: Option<f64>,
}

/// No sample, and one teacher.
impl Default for Decision {
    fn default() -> Self {
        Self { weights: Vec::new(), terms: 2, temperature: None, teacher_scale: None }
    }
}

impl Decision {
    /// The same weights for `rows` samples.
    pub fn uniform(rows: usize, label: f64, teacher: f64) -> Self {
        Self::repeated(rows, &[label, teacher])
    }

    /// The same `weights` of label and each teacher for `rows` samples.
    pub fn repeated(rows: usize, weights: &[f64]) -> Self {
        Self { weights: weights.repeat(rows), terms: weights.len(), ..Self::default() }
    }

    /// Weights of one sample: label, teacher (the first).
    pub fn of(&self, row: usize) -> [f64; 2] {
        [self.weights[self.terms * row + LABEL], self.weights[self.terms * row + TEACHER]]
    }

    /// The same for the samples of `range` alone.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        let weights = self.weights[self.terms * range.start..self.terms * range.end].to_vec();
        Self { weights, ..*self }
    }

    /// The teacher's share of each sample's weight, λ, that of all teachers together; ½ where a
    /// sample has no weight at all.
    pub fn shares(&self) -> impl Iterator<Item = f64> {
        self.weights.chunks(self.terms).map(|weights| {
            let teachers: f64 = weights[TEACHER..].iter().sum();
            let sum = weights[LABEL] + teachers;
            if sum > 0.0 { teachers / sum } else { 0.5 }
        })
    }

    /// The share of one teacher, from 0, of each sample's weight; where a sample has no weight at
    /// all, that teacher's equal part of ½.
    pub fn shares_of(&self, teacher: usize) -> impl Iterator<Item = f64> {
        let teachers = (self.terms - 1) as f64;
        self.weights.chunks(self.terms).map(move |weights| {
            let sum: f64 = weights.iter().sum();
            if sum > 0.0 { weights[TEACHER + teacher] / sum } else { 0.5 / teachers }
        })
    }
}
