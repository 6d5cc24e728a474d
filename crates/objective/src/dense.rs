//! A language model's losses where the logits of its tokens are there: those of a masked language
//! model, which guesses few of them.

use heirloom_base::Nats;
use heirloom_engine::{Device, Ids, RowLoss, Target, View};

use crate::objective::Parts;
use crate::{LabelLoss, Labels, TokenCounts, TokenLoss, TokenTerm, Weighing};

/// Everything about one micro-batch of M guessed tokens, all of which have a label.
#[derive(Clone, Copy, Debug)]
pub struct DenseSignals {
    /// The student's logits, `[M, V]`.
    pub logits: View,
    /// The tokens, `[M]`.
    pub labels: Ids,
    /// The teacher's logits, `[M, V]`, where a term needs them.
    pub teacher: Option<View>,
    /// Gradient of the logits, `[M, V]`, *added to*; `None` where only the loss is wanted.
    pub d_logits: Option<View>,
}

/// Losses of tokens, and memory for them.
#[derive(Clone, Debug)]
pub struct DenseLosses {
    terms: Vec<TokenTerm>,
    /// Of each term, one below the other, `[terms · M, 1]`.
    losses: View,
    rows: usize,
}

impl DenseLosses {
    /// Room for the losses of `rows` tokens by at most `terms` terms.
    pub fn new(device: &mut dyn Device, terms: usize, rows: usize) -> Self {
        let losses = View::matrix(device.alloc(terms * rows), 0, terms * rows, 1);
        Self { terms: Vec::new(), losses, rows }
    }

    /// The terms.
    pub fn terms(&self) -> &[TokenTerm] {
        &self.terms
    }

    /// Puts other terms in the place of these.
    ///
    /// # Panics
    /// Where there are more than the memory was planned for.
    pub fn set_terms(&mut self, terms: &[TokenTerm]) {
        assert!(terms.len() * self.rows <= self.losses.rows(), "terms beyond those planned for");
        self.terms.clear();
        self.terms.extend_from_slice(terms);
    }

    /// Sums of one micro-batch, in the order of the terms; gradients are those of the *whole step's*
    /// loss, which has `step` tokens.
    ///
    /// # Panics
    /// Where there are more rows than planned, or a term's teacher was left out.
    pub fn evaluate(
        &self,
        device: &mut dyn Device,
        signals: &DenseSignals,
        step: TokenCounts,
    ) -> Parts {
        self.evaluate_weighed(device, signals, step, None)
    }

    /// As [`DenseLosses::evaluate`], where tokens have weights that follow from their logits.
    ///
    /// # Panics
    /// As there.
    pub fn evaluate_weighed(
        &self,
        device: &mut dyn Device,
        signals: &DenseSignals,
        step: TokenCounts,
        mut weighing: Option<&mut Weighing<'_>>,
    ) -> Parts {
        let (z, rows) = (signals.logits, signals.logits.rows());
        assert!(rows <= self.rows, "{rows} tokens, planned for {}", self.rows);
        let labels = Labels::Classes(signals.labels);
        if let Some(weighing) = weighing.as_deref_mut() {
            weighing.decide(device, 0..rows, (z, signals.teacher), signals.labels);
        }
        let mut parts = Parts::with_capacity(self.terms.len());
        for (place, term) in self.terms.iter().enumerate() {
            let (target, count) = match term.loss {
                TokenLoss::Label => (LabelLoss::CrossEntropy.target(labels), step.labelled),
                TokenLoss::Softened { share, temperature } => {
                    let labels = signals.labels;
                    (Target::Softened { labels, share, temperature }, step.labelled)
                }
                TokenLoss::Misses => (Target::Misses(signals.labels), step.labelled),
                TokenLoss::Teacher(wanted) => {
                    let teacher = signals.teacher.expect("a term compares with a teacher");
                    (wanted.target(teacher, labels), step.taught)
                }
                TokenLoss::Sorted(wanted) => {
                    let teacher = signals.teacher.expect("a term compares with a teacher");
                    (wanted.target(teacher), step.taught)
                }
                TokenLoss::Known(_) => panic!("answers are kept of decoders alone"),
            };
            let first = place * self.rows;
            let losses = self.losses.row_range(first..first + rows);
            let scale = if count == 0 { 0.0 } else { term.weight / count as f64 };
            let (x, dx) = (z, signals.d_logits);
            let of_teacher = matches!(term.loss, TokenLoss::Teacher(_) | TokenLoss::Sorted(_));
            let weights = weighing.as_deref().map(|weighing| match of_teacher {
                true => weighing.room.teacher(rows),
                false => weighing.room.label(rows),
            });
            device.row_loss(&RowLoss { x, target, scale, weights, losses, dx });
            let (sum, weighted) = match (weighing.as_deref(), weights) {
                (Some(weighing), Some(weights)) => weighing.sums(device, losses, weights),
                _ => {
                    let sum = device.sum(losses);
                    (sum, sum)
                }
            };
            parts.push(Nats::of(sum, rows as u64), weighted);
        }
        parts
    }

    /// The total of a finished step, as [`ChunkedHead::total`](crate::ChunkedHead::total).
    pub fn total(&self, parts: &Parts) -> f64 {
        parts.total(self.terms.iter().map(|term| term.weight))
    }
}
