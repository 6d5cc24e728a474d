//! From a model's outputs and a dataset's labels to numbers that decide.

use heirloom_data::dataset::Dataset;
use heirloom_data::label::{Label, LabelKind};
use heirloom_report::evaluate::{Evaluation, evaluate};
use heirloom_report::metric::Metric;
use heirloom_report::predictions::{Labels, Predictions};

use crate::failure::Failure;

/// The report's name for a recipe's metric.
pub fn metric(metric: heirloom_recipe::Metric) -> Metric {
    match metric {
        heirloom_recipe::Metric::Accuracy => Metric::Accuracy,
        heirloom_recipe::Metric::F1 => Metric::F1,
        heirloom_recipe::Metric::AccuracyAndF1 => Metric::AccuracyAndF1,
        heirloom_recipe::Metric::Matthews => Metric::Matthews,
        heirloom_recipe::Metric::PearsonSpearman => Metric::PearsonSpearman,
        heirloom_recipe::Metric::F1Micro => Metric::F1Micro,
        heirloom_recipe::Metric::Mse => Metric::Mse,
    }
}

/// Outputs `[examples, width]` and the labels of `dataset`, checked. Examples without a label are
/// left out.
pub fn predictions(outputs: &[f32], dataset: &Dataset) -> Result<Predictions, Failure> {
    let width = dataset.labels().outputs();
    let labelled: Vec<usize> =
        (0..dataset.len()).filter(|&at| *dataset.example(at).label != Label::None).collect();
    let logits: Vec<f32> =
        labelled.iter().flat_map(|&at| &outputs[at * width..(at + 1) * width]).copied().collect();
    let label = |&at: &usize| dataset.example(at).label;
    let labels = match dataset.labels().kind {
        LabelKind::Class => {
            let class = |at| match label(at) {
                Label::Class(class) => Some(*class),
                _ => None,
            };
            Labels::Classes(labelled.iter().filter_map(class).collect())
        }
        LabelKind::Score => {
            let score = |at| match label(at) {
                Label::Score(score) => Some(*score),
                _ => None,
            };
            Labels::Values(labelled.iter().filter_map(score).collect())
        }
        LabelKind::Multi { .. } => {
            let marks = |at| match label(at) {
                Label::Multi(marks) => marks.iter().map(|&mark| mark > 0.5).collect(),
                _ => Vec::new(),
            };
            Labels::Sets(labelled.iter().flat_map(marks).collect())
        }
    };
    Ok(Predictions::new(logits, width, labels)?)
}

/// Judges outputs by a recipe's metric.
pub fn judge(
    outputs: &[f32],
    dataset: &Dataset,
    by: heirloom_recipe::Metric,
) -> Result<Evaluation, Failure> {
    Ok(evaluate(&predictions(outputs, dataset)?, metric(by))?)
}

/// The score that decides which step is best, by its name in a plan: a metric's value, or `loss`.
/// Also whether a higher one is better.
pub fn deciding(evaluation: &Evaluation, name: &str) -> (Option<f64>, bool) {
    match name {
        "loss" => (evaluation.loss, false),
        "mse" => (evaluation.scores.get(name), false),
        name => (evaluation.scores.get(name).or(evaluation.primary), true),
    }
}
