//! How good a model is, beside the truth and the teacher.

use heirloom::failure::Failure;
use heirloom::judge::judge;
use heirloom_data::dataset::Dataset;
use heirloom_data::synthetic::CLASSES;
use heirloom_recipe::Metric;
use heirloom_report::probability::{Logits, agreement, divergence};
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
    pub(super) seconds: Option<f64>,
}

/// What models are held against.
pub(super) struct Judge<'a> {
    pub(super) test: &'a Dataset,
    /// Logarithms of the true probabilities.
    pub(super) truth: &'a [f32],
    pub(super) teacher: &'a [f32],
}

impl Judge<'_> {
    /// Judges logits for the test texts.
    pub(super) fn of(&self, outputs: &[f32], seconds: Option<f64>) -> Result<Judged, Failure> {
        let evaluation = judge(outputs, self.test, Metric::Accuracy)?;
        let [model, truth, teacher] =
            [outputs, self.truth, self.teacher].map(|values| Logits::new(values, CLASSES));
        Ok(Judged {
            accuracy: evaluation.primary,
            nll: evaluation.loss,
            calibration_error: evaluation.calibration.map(|found| found.expected_error),
            agreement: agreement(teacher, model).map(|measured| measured.value),
            distance: divergence(truth, model).map(|measured| measured.value),
            seconds,
        })
    }
}
