//! Weights of tokens that follow from what student and teacher say to each.
//!
//! In: the logits of a chunk of tokens. Out: for each token a weight of the label's loss and one of the
//! teacher's, constants of the step. Never: a matrix of logits on the host; what is decided follows
//! from one or two numbers for each token.

use std::ops::Range;

use heirloom_base::Bytes;
use heirloom_engine::{Device, IGNORED, Ids, RowLoss, Target, View};

use crate::{LabelLoss, Labels};

/// A number of a token that weights may follow from, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenMeasure {
    /// `−ln s_y`: the student's loss of the label.
    StudentLoss,
    /// `−ln t_y`: the teacher's.
    TeacherLoss,
    /// `−Σ s ln s`: how uncertain the student is.
    StudentEntropy,
    /// The first term that hears a teacher, as it stands in the objective but for its weight.
    TeacherTerm,
}

/// Who decides the weights.
pub trait WeighTokens {
    /// What it asks of each token.
    fn measures(&self) -> &[TokenMeasure];

    /// Weights of the label's and the teacher's loss of the next `tokens` tokens, of which each has a
    /// label; `measured` has a row of numbers for each measure.
    fn weigh(&mut self, tokens: usize, measured: &[Vec<f64>]) -> Vec<[f64; 2]>;

    /// Hears the losses that a term had for the tokens of a micro-batch that have a label, without
    /// weights: the term at `place`, term by term.
    fn hear(&mut self, _place: usize, _losses: &[f64]) {}
}

/// Room for the weights of a micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct TokenWeights {
    measured: View,
    label: View,
    teacher: View,
}

impl TokenWeights {
    /// For micro-batches of up to `tokens`.
    pub fn new(device: &mut dyn Device, tokens: usize) -> Self {
        let mut column = || View::matrix(device.alloc(tokens), 0, tokens, 1);
        Self { measured: column(), label: column(), teacher: column() }
    }

    /// Memory that [`TokenWeights::new`] asks for.
    pub fn bytes(tokens: usize) -> Bytes {
        Bytes((3 * size_of::<f32>() * tokens) as u64)
    }

    /// The weights of the label's losses, `[N, 1]`.
    pub(crate) fn label(&self, tokens: usize) -> View {
        self.label.first_rows(tokens)
    }

    /// The weights of the teacher's, likewise.
    pub(crate) fn teacher(&self, tokens: usize) -> View {
        self.teacher.first_rows(tokens)
    }
}

/// A micro-batch whose tokens are weighed one by one.
pub struct Weighing<'a> {
    /// Where weights lie.
    pub room: TokenWeights,
    /// The label of each token, or [`IGNORED`], `[N]`; what has none weighs nothing.
    pub labels: &'a [u32],
    /// Who decides.
    pub by: &'a mut dyn WeighTokens,
}

impl std::fmt::Debug for Weighing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weighing").field("room", &self.room).finish_non_exhaustive()
    }
}

impl Weighing<'_> {
    /// Whether it asks for the first term that hears a teacher.
    pub(crate) fn asks_for_the_teachers_term(&self) -> bool {
        self.by.measures().contains(&TokenMeasure::TeacherTerm)
    }

    /// Decides the weights of the tokens of `range`, whose logits and labels on the device are given,
    /// and the target of the first term that hears a teacher, where it asks for that.
    pub(crate) fn decide(
        &mut self,
        device: &mut dyn Device,
        range: Range<usize>,
        (logits, teacher): (View, Option<View>),
        labels: Ids,
        term: Option<Target>,
    ) {
        let has_label: Vec<bool> =
            self.labels[range.clone()].iter().map(|&label| label != IGNORED).collect();
        let losses = self.room.measured.row_range(range.clone());
        let mut measured = Vec::new();
        for measure in self.by.measures() {
            let classes = LabelLoss::CrossEntropy.target(Labels::Classes(labels));
            let (x, target) = match measure {
                TokenMeasure::StudentLoss => (logits, classes),
                TokenMeasure::TeacherLoss => {
                    (teacher.expect("the plan gives this policy a teacher's logits"), classes)
                }
                // The cross-entropy of a softened answer that is the answer itself.
                TokenMeasure::StudentEntropy => {
                    (logits, Target::Softened { labels, share: 1.0, temperature: 1.0 })
                }
                TokenMeasure::TeacherTerm => {
                    (logits, term.expect("a policy that weighs a teacher's term has one to weigh"))
                }
            };
            device.row_loss(&RowLoss { x, target, scale: 0.0, weights: None, losses, dx: None });
            let found = device.read_f64(losses).into_iter().zip(&has_label);
            measured.push(found.filter(|(_, has)| **has).map(|(loss, _)| loss).collect());
        }
        let tokens = has_label.iter().filter(|has| **has).count();
        let mut decided = self.by.weigh(tokens, &measured).into_iter();
        let pairs = has_label.iter().map(|has| match has {
            true => decided.next().expect("a pair of weights for each token"),
            false => [0.0; 2],
        });
        let (label, teacher): (Vec<f64>, Vec<f64>) = pairs.map(|[a, b]| (a, b)).unzip();
        device.write_f64(self.room.label.row_range(range.clone()), &label);
        device.write_f64(self.room.teacher.row_range(range), &teacher);
    }

    /// `Σ losses` over the tokens that have a label, and `Σ weights ∘ losses`, in which a weight of
    /// zero takes no part: of the term at `place`.
    pub(crate) fn sums(
        &mut self,
        device: &dyn Device,
        place: usize,
        losses: View,
        weights: View,
    ) -> (f64, f64) {
        let (losses, weights) = (device.read_f64(losses), device.read_f64(weights));
        let tokens = losses.into_iter().zip(weights).zip(self.labels);
        let heard: Vec<(f64, f64)> =
            tokens.filter(|(_, label)| **label != IGNORED).map(|(token, _)| token).collect();
        let losses: Vec<f64> = heard.iter().map(|(loss, _)| *loss).collect();
        self.by.hear(place, &losses);
        heard.into_iter().fold((0.0, 0.0), |(sum, weighted), (loss, weight)| {
            (sum + loss, if weight == 0.0 { weighted } else { weighted + weight * loss })
        })
    }
}
