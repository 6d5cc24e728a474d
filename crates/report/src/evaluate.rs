//! One model on one set of examples, in one value that can be written down.
//!
//! In: predictions and the metric to judge them by.
//! Out: an [`Evaluation`]; its JSON has its keys in the order of the fields, always all of them.
//! Never: leaves out a score that has no meaning; it is `null`.

use serde::{Deserialize, Serialize};

use crate::calibration::{
    Bin, DEFAULT_BINS, adaptive_calibration_error, expected_calibration_error, judge, reliability,
};
use crate::error::Error;
use crate::measure::{Measured, mse};
use crate::metric::{Metric, Scores, wide};
use crate::predictions::{Labels, Predictions};
use crate::probability::{Logits, binary_nll, brier, nll};
use crate::temperature::{Scaled, cross_fit};

/// How well a model did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// How many examples were judged.
    pub n: usize,
    /// The metric that was asked for.
    pub metric: Metric,
    /// The number that decides between models; see [`Metric::primary`].
    pub primary: Option<f64>,
    /// The metric's scores.
    pub scores: Scores,
    /// The mean loss. Classes: negative log-likelihood in nats. Label sets: binary cross-entropy
    /// in nats per label. Values: squared error.
    pub loss: Option<f64>,
    /// Whether confidence can be believed; only for classes, and only with examples.
    pub calibration: Option<Calibration>,
}

/// How far confidence is from accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The Brier score over all classes, from 0 to 2.
    pub brier: f64,
    /// The expected calibration error over bins of equal width.
    pub expected_error: f64,
    /// The expected calibration error over as many bins of equal mass.
    pub adaptive_error: f64,
    /// The reliability curve over bins of equal width; its `n` are the confidence histogram.
    pub curve: Vec<Bin>,
    /// The same measures with one temperature for all logits, fitted to other examples than it is
    /// judged on; `None` with fewer than two examples, and in records of earlier versions.
    pub scaled: Option<Scaled>,
}

/// Judges `predictions` by `metric`. The kind of the labels decides which loss is reported.
pub fn evaluate(predictions: &Predictions, metric: Metric) -> Result<Evaluation, Error> {
    let scores = metric.compute(predictions)?;
    let calibration = match predictions.labels() {
        Labels::Classes(labels) => calibrate(predictions.logits(), labels),
        Labels::Values(_) | Labels::Sets(_) => None,
    };
    Ok(Evaluation {
        n: predictions.n(),
        metric,
        primary: metric.primary(&scores),
        scores,
        loss: loss(predictions).map(|loss| loss.value),
        calibration,
    })
}

fn loss(predictions: &Predictions) -> Option<Measured> {
    match predictions.labels() {
        Labels::Classes(labels) => nll(predictions.logits(), labels),
        Labels::Sets(marks) => binary_nll(predictions.values(), marks),
        Labels::Values(truth) => mse(&wide(truth), &wide(predictions.values())),
    }
}

fn calibrate(logits: Logits<'_>, labels: &[u32]) -> Option<Calibration> {
    let judged = judge(logits, labels);
    Some(Calibration {
        brier: brier(logits, labels)?.value,
        expected_error: expected_calibration_error(&judged, DEFAULT_BINS)?.value,
        adaptive_error: adaptive_calibration_error(&judged, DEFAULT_BINS)?.value,
        curve: reliability(&judged, DEFAULT_BINS),
        scaled: cross_fit(logits, labels),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_survives_being_written_and_read() {
        let logits = vec![2.0, 0.5, 0.1, 0.3, -1.0, 3.0];
        let labels = Labels::Classes(vec![0, 0, 1]);
        let evaluation =
            evaluate(&Predictions::new(logits, 2, labels).unwrap(), Metric::AccuracyAndF1).unwrap();
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation);
    }

    #[test]
    fn an_evaluation_of_an_earlier_version_has_no_scaled_measures() {
        let labels = Labels::Classes(vec![0, 1]);
        let evaluation =
            evaluate(&Predictions::new(vec![0.0; 4], 2, labels).unwrap(), Metric::Accuracy)
                .unwrap();
        let mut json = serde_json::to_value(&evaluation).unwrap();
        json["calibration"].as_object_mut().unwrap().remove("scaled").unwrap();
        let read: Evaluation = serde_json::from_value(json).unwrap();
        assert_eq!(read.calibration.unwrap().scaled, None);
    }

    #[test]
    fn the_keys_of_the_json_stand_in_one_order() {
        let labels = Labels::Values(vec![1.0, 3.0]);
        let evaluation =
            evaluate(&Predictions::new(vec![1.0, 1.0], 1, labels).unwrap(), Metric::Mse).unwrap();
        insta::assert_snapshot!(
            serde_json::to_string(&evaluation).unwrap(),
            @r#"{"n":2,"metric":"mse","primary":2.0,"scores":{"mse":2.0},"loss":2.0,"calibration":null}"#
        );
    }

    #[test]
    fn even_odds_cost_ln_2_and_are_half_right() {
        let labels = Labels::Classes(vec![0, 1]);
        let evaluation =
            evaluate(&Predictions::new(vec![0.0; 4], 2, labels).unwrap(), Metric::Accuracy)
                .unwrap();
        assert_eq!((evaluation.n, evaluation.loss), (2, Some(2f64.ln())));
        assert_eq!(evaluation.primary, Some(0.5));
        let calibration = evaluation.calibration.unwrap();
        assert_eq!((calibration.brier, calibration.expected_error), (0.5, 0.0));
        assert_eq!(calibration.adaptive_error, 0.0);
        // Confidence ½ falls into the eighth of 15 bins, (7/15, 8/15].
        assert_eq!(calibration.curve[7].n, 2);
    }

    #[test]
    fn label_sets_pay_cross_entropy_and_have_no_calibration() {
        let labels = Labels::Sets(vec![true, false]);
        let evaluation =
            evaluate(&Predictions::new(vec![0.0, 0.0], 2, labels).unwrap(), Metric::F1Micro)
                .unwrap();
        assert_eq!((evaluation.n, evaluation.loss), (1, Some(2f64.ln())));
        assert_eq!(evaluation.calibration, None);
    }

    #[test]
    fn no_examples_have_no_scores() {
        let none = Predictions::new(vec![], 2, Labels::Classes(vec![])).unwrap();
        let evaluation = evaluate(&none, Metric::Accuracy).unwrap();
        insta::assert_snapshot!(
            serde_json::to_string(&evaluation).unwrap(),
            @r#"{"n":0,"metric":"accuracy","primary":null,"scores":{"accuracy":null},"loss":null,"calibration":null}"#
        );
    }
}
