//! A language model's losses where the logits of its tokens are there: those of a masked language
//! model, which guesses few of them.

use heirloom_base::Nats;
use heirloom_engine::{Device, Ids, RowLoss, View};

use crate::chunked::{known, target};
use crate::objective::Parts;
use crate::{TeacherTokens, TokenCounts, TokenLoss, TokenTerm, Weighing};

/// Everything about one micro-batch of M guessed tokens, all of which have a label.
#[derive(Clone, Copy, Debug)]
pub struct DenseSignals {
    /// The student's logits, `[M, V]`.
    pub logits: View,
    /// The tokens, `[M]`.
    pub labels: Ids,
    /// The teacher's logits, `[M, V]`, where a term needs them; of several teachers see
    /// [`DenseLosses::evaluate_among`].
    pub teacher: Option<View>,
    /// Gradient of the logits, `[M, V]`, *added to*; `None` where only the loss is wanted.
    pub d_logits: Option<View>,
}

/// Losses of tokens, and memory for them.
#[derive(Clone, Debug)]
pub struct DenseLosses {
    terms: Vec<TokenTerm>,
    /// Which teacher each of them hears.
    hears: Vec<usize>,
    /// Of each term, one below the other, `[terms · M, 1]`.
    losses: View,
    rows: usize,
}

impl DenseLosses {
    /// Room for the losses of `rows` tokens by at most `terms` terms.
    pub fn new(device: &mut dyn Device, terms: usize, rows: usize) -> Self {
        let losses = View::matrix(device.alloc(terms * rows), 0, terms * rows, 1);
        Self { terms: Vec::new(), hears: Vec::new(), losses, rows }
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
        self.put_terms(terms.iter().map(|term| (*term, 0)));
    }

    /// The same for terms that hear several teachers; beside each stands the number of the one it
    /// hears, from 0, which a term that hears none ignores.
    ///
    /// # Panics
    /// As there.
    pub fn set_terms_among(&mut self, terms: &[(TokenTerm, usize)]) {
        self.put_terms(terms.iter().copied());
    }

    fn put_terms(&mut self, terms: impl ExactSizeIterator<Item = (TokenTerm, usize)>) {
        assert!(terms.len() * self.rows <= self.losses.rows(), "terms beyond those planned for");
        self.terms.clear();
        self.hears.clear();
        for (term, teacher) in terms {
            self.terms.push(term);
            self.hears.push(teacher);
        }
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
        weighing: Option<&mut Weighing<'_>>,
    ) -> Parts {
        let teacher = signals.teacher.map(TeacherTokens::Logits);
        self.run(device, signals, &[teacher], step, weighing)
    }

    /// As [`DenseLosses::evaluate`], where each term hears the one of `teachers` that stands beside it,
    /// in the place of the signals' own. Those that no term hears may be `None`.
    ///
    /// # Panics
    /// As there, and where a teacher is given by its hidden states.
    pub fn evaluate_among(
        &self,
        device: &mut dyn Device,
        signals: &DenseSignals,
        teachers: &[Option<TeacherTokens>],
        step: TokenCounts,
    ) -> Parts {
        self.run(device, signals, teachers, step, None)
    }

    fn run(
        &self,
        device: &mut dyn Device,
        signals: &DenseSignals,
        teachers: &[Option<TeacherTokens>],
        step: TokenCounts,
        mut weighing: Option<&mut Weighing<'_>>,
    ) -> Parts {
        let (z, rows) = (signals.logits, signals.logits.rows());
        assert!(rows <= self.rows, "{rows} tokens, planned for {}", self.rows);
        let target = |teachers: &[Option<TeacherTokens>], loss, number| {
            let computed = match loss {
                TokenLoss::Teacher(_) | TokenLoss::Sorted(_) => Some(logits(teachers, number)),
                _ => None,
            };
            target(loss, signals.labels, computed, || known(teachers, number))
        };
        if let Some(weighing) = weighing.as_deref_mut() {
            let mut terms = self.terms.iter().zip(&self.hears);
            let heard = terms.find(|(term, _)| term.loss.hears_a_teacher());
            let heard = heard.filter(|_| weighing.asks_for_the_teachers_term());
            let term = heard.map(|(term, &number)| target(teachers, term.loss, number));
            weighing.decide(device, 0..rows, (z, signals.teacher), signals.labels, term);
        }
        let mut parts = Parts::with_capacity(self.terms.len());
        for (place, (term, &number)) in self.terms.iter().zip(&self.hears).enumerate() {
            let of_teacher = term.loss.hears_a_teacher();
            let count = if of_teacher { step.taught } else { step.labelled };
            let target = target(teachers, term.loss, number);
            let first = place * self.rows;
            let losses = self.losses.row_range(first..first + rows);
            let scale = if count == 0 { 0.0 } else { term.weight / count as f64 };
            let (x, dx) = (z, signals.d_logits);
            let weights = weighing.as_deref().map(|weighing| match of_teacher {
                true => weighing.room.teacher(rows),
                false => weighing.room.label(rows),
            });
            device.row_loss(&RowLoss { x, target, scale, weights, losses, dx });
            let (sum, weighted) = match (weighing.as_deref_mut(), weights) {
                (Some(weighing), Some(weights)) => weighing.sums(device, place, losses, weights),
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

/// The logits of teacher `number`.
fn logits(teachers: &[Option<TeacherTokens>], number: usize) -> View {
    match teachers.get(number) {
        Some(Some(TeacherTokens::Logits(logits))) => *logits,
        Some(Some(TeacherTokens::States { .. })) => panic!("an encoder gives its logits"),
        _ => panic!("a term compares with a teacher"),
    }
}
