//! A label regularizer at work: the label's losses and their gradients, row by row, on the host.
//!
//! In: logits as the device has them, labels, the teacher's logits. Out: what the label's term then
//! weighs and adds ([`Regularized`]). Never: anything for another term, or a second set: those hear
//! plain labels.
//!
//! Rows of a classifier are few numbers, and every method is then one function in double precision
//! (`heirloom-regularize`) in place of one per device.

use heirloom_engine::{Device, View};
use heirloom_objective::Regularized;
use heirloom_regularize::{Row, Target};

/// A regularizer, and room for what it makes of a micro-batch.
#[derive(Debug)]
pub(crate) struct Regularizing {
    target: Box<dyn Target>,
    /// How far the run is, `0.0..=1.0`.
    pub(crate) progress: f64,
    losses: View,
    gradients: View,
    host_losses: Vec<f64>,
    host_gradients: Vec<f64>,
}

/// Rows of a micro-batch, or of a step, on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) labels: Vec<Option<u32>>,
    /// The student's logits, `[R, K]`.
    pub(crate) logits: Vec<f64>,
    /// The first teacher's, `[R, K]`, or nothing.
    pub(crate) teacher: Vec<f64>,
    /// What the classifier sees, `[R, C]`, or nothing.
    pub(crate) features: Vec<f64>,
}

impl Rows {
    fn iter(&self, progress: f64) -> impl Iterator<Item = Row<'_>> {
        let count = self.labels.len().max(1);
        self.labels.iter().enumerate().map(move |(at, label)| {
            let part = |values: &'_ [f64]| {
                let width = values.len() / count;
                at * width..(at + 1) * width
            };
            let some = |values: &'_ [f64]| (!values.is_empty()).then(|| part(values));
            Row {
                label: label.map(|label| label as usize),
                logits: &self.logits[part(&self.logits)],
                teacher: some(&self.teacher).map(|range| &self.teacher[range]),
                earlier: None,
                features: some(&self.features).map(|range| &self.features[range]),
                progress,
            }
        })
    }
}

impl Regularizing {
    /// Room for `rows` rows of `width` classes.
    pub(crate) fn new(
        device: &mut dyn Device,
        target: Box<dyn Target>,
        rows: usize,
        width: usize,
    ) -> Self {
        let [losses, gradients] = [1, width].map(|width| {
            let space = device.alloc(rows * width);
            View::matrix(space, 0, rows, width)
        });
        let (host_losses, host_gradients) = (Vec::new(), Vec::new());
        Self { target, progress: 0.0, losses, gradients, host_losses, host_gradients }
    }

    /// Whether the target sees what the classifier does.
    pub(crate) fn sees_features(&self) -> bool {
        self.target.needs().features
    }

    /// The label's losses of `rows` and their gradients, on the device.
    pub(crate) fn apply(&mut self, device: &mut dyn Device, rows: &Rows) -> Regularized {
        let count = rows.labels.len();
        self.host_losses.clear();
        self.host_gradients.clear();
        self.host_gradients.resize(rows.logits.len(), 0.0);
        let gradients = self.host_gradients.chunks_mut(self.gradients.cols());
        for (row, gradient) in rows.iter(self.progress).zip(gradients) {
            self.host_losses.push(self.target.loss(&row, gradient));
        }
        let [losses, gradients] = [self.losses, self.gradients].map(|view| view.first_rows(count));
        device.write_f64(losses, &self.host_losses);
        device.write_f64(gradients, &self.host_gradients);
        Regularized { losses, gradients }
    }

    /// Hears the answers of a micro-batch that is trained on.
    pub(crate) fn observe(&mut self, rows: &Rows) {
        for row in rows.iter(self.progress) {
            self.target.observe(&row);
        }
    }

    /// Hears how a second set's loss moves with each row's target, `slopes` `[R, K]`.
    pub(crate) fn hear(&mut self, rows: &Rows, slopes: &[f64]) {
        let slopes = slopes.chunks(self.gradients.cols());
        for (row, slopes) in rows.iter(self.progress).zip(slopes) {
            self.target.hear(&row, slopes);
        }
    }

    /// Ends a step, and a pass over the data where it was the last of one.
    pub(crate) fn stepped(&mut self, last_of_epoch: bool) {
        self.target.end_of_step();
        if last_of_epoch {
            self.target.end_of_epoch();
        }
    }

    /// Numbers that must survive a crash.
    pub(crate) fn state(&self) -> Vec<f64> {
        self.target.state()
    }

    /// Puts them back; `false` where they are another regularizer's.
    pub(crate) fn restore(&mut self, state: &[f64]) -> bool {
        self.target.restore(state).is_ok()
    }
}
