//! What a regularizer sees of one example.

/// One example, or one token of one. All slices of logits are `[K]`, K classes; a logit may be −∞,
/// not all of a row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The label, below K; without one, targets that need it leave the row out.
    pub label: Option<usize>,
    /// The student's logits.
    pub logits: &'a [f64],
    /// The teacher's logits.
    pub teacher: Option<&'a [f64]>,
    /// Logits of an earlier checkpoint, or of an average of the weights.
    pub earlier: Option<&'a [f64]>,
    /// What the classifier sees, as many numbers as the target was made for.
    pub features: Option<&'a [f64]>,
    /// Part of the run that is done, `0.0..=1.0`.
    pub progress: f64,
}

impl<'a> Row<'a> {
    /// A row with a label and the student's logits, at the beginning of the run.
    pub fn new(label: Option<usize>, logits: &'a [f64]) -> Self {
        Self { label, logits, teacher: None, earlier: None, features: None, progress: 0.0 }
    }

    /// K.
    pub fn classes(&self) -> usize {
        self.logits.len()
    }

    /// The teacher's logits, where a target cannot do without.
    pub(crate) fn teacher(&self) -> &'a [f64] {
        self.teacher.expect("this target needs the teacher's logits")
    }

    /// The earlier model's logits, where a target cannot do without.
    pub(crate) fn earlier(&self) -> &'a [f64] {
        self.earlier.expect("this target needs an earlier model's logits")
    }

    /// The features, where a target cannot do without.
    pub(crate) fn features(&self) -> &'a [f64] {
        self.features.expect("this target needs features")
    }
}
