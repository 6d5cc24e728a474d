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

/// A micro-batch on the host.
struct Rows<'a> {
    logits: Vec<f64>,
    teacher: Vec<f64>,
    classes: &'a [Option<u32>],
    width: usize,
    progress: f64,
}

impl Rows<'_> {
    fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let teacher = self.teacher.chunks(self.width).map(Some).chain(std::iter::repeat(None));
        let rows = self.logits.chunks(self.width).zip(teacher).zip(self.classes);
        rows.map(|((logits, teacher), class)| Row {
            label: class.map(|class| class as usize),
            logits,
            teacher,
            earlier: None,
            features: None,
            progress: self.progress,
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

    fn rows<'a>(
        &self,
        device: &dyn Device,
        output: View,
        teacher: Option<View>,
        classes: &'a [Option<u32>],
    ) -> Rows<'a> {
        Rows {
            logits: device.read_f64(output),
            teacher: teacher.map(|view| device.read_f64(view)).unwrap_or_default(),
            classes,
            width: output.cols(),
            progress: self.progress,
        }
    }

    /// The label's losses of `output` and their gradients.
    pub(crate) fn apply(
        &mut self,
        device: &mut dyn Device,
        output: View,
        teacher: Option<View>,
        classes: &[Option<u32>],
    ) -> Regularized {
        let rows = self.rows(device, output, teacher, classes);
        self.host_losses.clear();
        self.host_gradients.clear();
        self.host_gradients.resize(output.len(), 0.0);
        for (row, gradient) in rows.iter().zip(self.host_gradients.chunks_mut(output.cols())) {
            self.host_losses.push(self.target.loss(&row, gradient));
        }
        let [losses, gradients] =
            [self.losses, self.gradients].map(|view| view.first_rows(output.rows()));
        device.write_f64(losses, &self.host_losses);
        device.write_f64(gradients, &self.host_gradients);
        Regularized { losses, gradients }
    }

    /// Hears the answers of a micro-batch that is trained on.
    pub(crate) fn observe(
        &mut self,
        device: &dyn Device,
        output: View,
        teacher: Option<View>,
        classes: &[Option<u32>],
    ) {
        let rows = self.rows(device, output, teacher, classes);
        for row in rows.iter() {
            self.target.observe(&row);
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
