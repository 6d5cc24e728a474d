//! How good a model is, beside the truth and the teacher.

use heirloom::failure::Failure;
use heirloom::judge::judge;
use heirloom_data::dataset::Dataset;
use heirloom_data::synthetic::{CLASSES, SyntheticExample};
use heirloom_recipe::{Metric, RegularizerPlan};
use heirloom_regularize::{Row, kl};
use heirloom_report::probability::{Logits, agreement, divergence};
use heirloom_train::regularizer;
use serde::Serialize;

/// One model on the test texts. What has no value is `None`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Judged {
    pub(super) accuracy: Option<f64>,
    /// Negative log-likelihood in nats.
    pub(super) nll: Option<f64>,
    /// Expected calibration error.
    pub(super) calibration_error: Option<f64>,
    /// Share of texts answered as the teacher does.
    pub(super) agreement: Option<f64>,
    /// Mean of KL(truth ‖ model) in nats.
    pub(super) distance: Option<f64>,
    /// Mean of KL(truth ‖ what a student is taught of a test text, its label included) in nats; none
    /// where there is no such distribution, or where it says that something true cannot be.
    pub(super) target: Option<f64>,
    pub(super) seconds: Option<f64>,
}

/// What models are held against.
pub(super) struct Judge<'a> {
    pub(super) test: &'a Dataset,
    /// Logarithms of the true probabilities.
    pub(super) truth: &'a [f32],
    pub(super) teacher: &'a [f32],
    /// The test texts with their truth.
    pub(super) examples: &'a [SyntheticExample],
}

impl Judge<'_> {
    /// Judges logits for the test texts.
    pub(super) fn of(
        &self,
        outputs: &[f32],
        seconds: Option<f64>,
        regularizer: Option<&RegularizerPlan>,
    ) -> Result<Judged, Failure> {
        let evaluation = judge(outputs, self.test, Metric::Accuracy)?;
        let [model, truth, teacher] =
            [outputs, self.truth, self.teacher].map(|values| Logits::new(values, CLASSES));
        Ok(Judged {
            accuracy: evaluation.primary,
            nll: evaluation.loss,
            calibration_error: evaluation.calibration.map(|found| found.expected_error),
            agreement: agreement(teacher, model).map(|measured| measured.value),
            distance: divergence(truth, model).map(|measured| measured.value),
            target: regularizer.and_then(|plan| self.target(outputs, plan)),
            seconds,
        })
    }

    /// Mean divergence of the truth from the targets at the end of a run.
    fn target(&self, outputs: &[f32], plan: &RegularizerPlan) -> Option<f64> {
        let target = regularizer(plan, &[1; CLASSES], 0, 0);
        let mut sum = 0.0;
        for (example, logits) in self.examples.iter().zip(outputs.chunks(CLASSES)) {
            let logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
            let row = Row { progress: 1.0, ..Row::new(Some(example.label as usize), &logits) };
            let mut q = [0.0; CLASSES];
            target.effective_target(&row, &mut q);
            sum += kl(&example.probabilities, &q);
        }
        let mean = sum / self.examples.len() as f64;
        mean.is_finite().then_some(mean)
    }
}
