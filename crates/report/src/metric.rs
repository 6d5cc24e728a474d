//! The metrics a recipe may name.
//!
//! In: a name, and predictions.
//! Out: the scores of that metric by name, and the one number that decides between two models.
//! Never: judges labels that the metric is not made for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::measure::{
    Measured, accuracy, f1_binary, f1_macro, f1_micro, matthews, mean, mse, pearson, spearman,
};
use crate::predictions::{Labels, Predictions};

/// How the quality of a model is judged; written by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Metric {
    /// The share of right answers.
    Accuracy,
    /// F1 of class 1 with two classes; the mean F1 of all classes, `f1_macro`, with any other
    /// number.
    F1,
    /// Both, as GLUE judges MRPC and QQP.
    AccuracyAndF1,
    /// Matthews correlation, as GLUE judges CoLA.
    Matthews,
    /// Both correlations, as GLUE judges STS-B.
    PearsonSpearman,
    /// F1 over all labels of all examples; a label is said where its logit is above 0.
    F1Micro,
    /// Mean squared error.
    Mse,
}

impl Metric {
    /// All metrics, in the order messages list them.
    pub const ALL: [Self; 7] = [
        Self::Accuracy,
        Self::F1,
        Self::AccuracyAndF1,
        Self::Matthews,
        Self::PearsonSpearman,
        Self::F1Micro,
        Self::Mse,
    ];

    /// The name in recipes and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::AccuracyAndF1 => "accuracy_and_f1",
            Self::Matthews => "matthews",
            Self::PearsonSpearman => "pearson_spearman",
            Self::F1Micro => "f1_micro",
            Self::Mse => "mse",
        }
    }

    /// Whether more is better; less is for errors.
    pub fn higher_is_better(self) -> bool {
        self != Self::Mse
    }

    /// The scores of `predictions` by name. A score without meaning (no examples, a constant
    /// prediction under correlation) is there and `None`.
    ///
    /// ```
    /// use heirloom_report::metric::Metric;
    /// use heirloom_report::predictions::{Labels, Predictions};
    /// let said = Predictions::new(vec![0.1, 0.9, 0.8, 0.2], 2, Labels::Classes(vec![1, 1])).unwrap();
    /// assert_eq!(Metric::Accuracy.compute(&said).unwrap().get("accuracy"), Some(0.5));
    /// ```
    pub fn compute(self, predictions: &Predictions) -> Result<Scores, Error> {
        let scores = match (self, predictions.labels()) {
            (Self::Accuracy, Labels::Classes(truth)) => vec![accuracy_of(truth, predictions)],
            (Self::F1, Labels::Classes(truth)) => vec![f1_of(truth, predictions)],
            (Self::AccuracyAndF1, Labels::Classes(truth)) => {
                vec![accuracy_of(truth, predictions), f1_of(truth, predictions)]
            }
            (Self::Matthews, Labels::Classes(truth)) => {
                vec![("matthews", matthews(truth, &predictions.logits().answers()))]
            }
            (Self::PearsonSpearman, Labels::Values(truth)) => {
                let (truth, said) = (wide(truth), wide(predictions.values()));
                vec![("pearson", pearson(&truth, &said)), ("spearman", spearman(&truth, &said))]
            }
            (Self::Mse, Labels::Values(truth)) => {
                vec![("mse", mse(&wide(truth), &wide(predictions.values())))]
            }
            (Self::F1Micro, Labels::Sets(truth)) => {
                let said: Vec<bool> =
                    predictions.values().iter().map(|&logit| logit > 0.0).collect();
                vec![("f1_micro", f1_micro(truth, &said))]
            }
            (_, found) => return Err(self.does_not_suit(found.kind())),
        };
        Ok(scores.into_iter().collect())
    }

    /// The number that decides: the mean of the metric's scores, as GLUE averages those of tasks
    /// with two. `None` where one of them is.
    pub fn primary(self, scores: &Scores) -> Option<f64> {
        let values: Option<Vec<f64>> = scores.0.values().copied().collect();
        mean(&values?)
    }

    /// Whether a primary score of `first` beats one of `second`.
    pub fn is_better(self, first: f64, second: f64) -> bool {
        if self.higher_is_better() { first > second } else { first < second }
    }

    /// The kind of label the metric judges, in the words of [`Labels::kind`].
    fn wanted(self) -> &'static str {
        match self {
            Self::Accuracy | Self::F1 | Self::AccuracyAndF1 | Self::Matthews => "classes",
            Self::PearsonSpearman | Self::Mse => "values",
            Self::F1Micro => "label sets",
        }
    }

    fn does_not_suit(self, found: &'static str) -> Error {
        let suited = Self::ALL.into_iter().filter(|metric| metric.wanted() == found);
        Error::MetricDoesNotSuit {
            metric: self.name(),
            wanted: self.wanted(),
            found,
            suited: suited.map(Self::name).collect(),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|metric| metric.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            let likeness = |candidate: &str| strsim::jaro_winkler(candidate, name);
            let nearest = names
                .into_iter()
                .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
                .expect("there are metrics");
            Error::UnknownMetric { name: name.to_owned(), nearest, names: names.to_vec() }
        })
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.name().to_owned()
    }
}

impl TryFrom<String> for Metric {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        name.parse()
    }
}

/// Scores by name, in the order of their names; `null` in JSON where a score has no meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scores(BTreeMap<String, Option<f64>>);

impl Scores {
    /// The score called `name`, where it is there and has a meaning.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied().flatten()
    }

    /// All scores by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<f64>)> {
        self.0.iter().map(|(name, &value)| (name.as_str(), value))
    }
}

impl FromIterator<Score> for Scores {
    fn from_iter<I: IntoIterator<Item = Score>>(scores: I) -> Self {
        let value = |measured: Measured| measured.value;
        Self(scores.into_iter().map(|(name, score)| (name.to_owned(), score.map(value))).collect())
    }
}

type Score = (&'static str, Option<Measured>);

fn accuracy_of(truth: &[u32], predictions: &Predictions) -> Score {
    ("accuracy", accuracy(truth, &predictions.logits().answers()))
}

fn f1_of(truth: &[u32], predictions: &Predictions) -> Score {
    let said = predictions.logits().answers();
    match predictions.classes() {
        2 => ("f1", f1_binary(truth, &said)),
        _ => ("f1_macro", f1_macro(truth, &said)),
    }
}

/// The same numbers in `f64`, in which all sums are.
pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(logits: &[f32], classes: usize, labels: &[u32]) -> Predictions {
        Predictions::new(logits.to_vec(), classes, Labels::Classes(labels.to_vec())).unwrap()
    }

    fn values(said: &[f32], truth: &[f32]) -> Predictions {
        Predictions::new(said.to_vec(), 1, Labels::Values(truth.to_vec())).unwrap()
    }

    #[track_caller]
    fn check(metric: Metric, predictions: &Predictions, want: &[(&str, Option<f64>)]) {
        let scores = metric.compute(predictions).unwrap();
        assert_eq!(scores.iter().collect::<Vec<_>>(), want);
    }

    #[test]
    fn every_name_leads_back_to_its_metric() {
        for metric in Metric::ALL {
            assert_eq!(metric.name().parse(), Ok(metric));
            let json = serde_json::to_string(&metric).unwrap();
            assert_eq!(json, format!("\"{metric}\""));
            assert_eq!(serde_json::from_str::<Metric>(&json).unwrap(), metric);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_names() {
        insta::assert_snapshot!(
            "acuracy".parse::<Metric>().unwrap_err(),
            @"there is no metric `acuracy`; the nearest is `accuracy`, and the metrics are accuracy, f1, accuracy_and_f1, matthews, pearson_spearman, f1_micro, mse"
        );
    }

    #[test]
    fn a_metric_for_other_labels_is_refused() {
        insta::assert_snapshot!(
            Metric::Mse.compute(&classes(&[0.0, 1.0], 2, &[1])).unwrap_err(),
            @"metric `mse` judges values, and these examples are labelled with classes; metrics for classes are accuracy, f1, accuracy_and_f1, matthews"
        );
        assert!(Metric::Accuracy.compute(&values(&[1.0], &[1.0])).is_err());
        assert!(Metric::F1Micro.compute(&values(&[1.0], &[1.0])).is_err());
    }

    #[test]
    fn each_metric_computes_its_scores() {
        // Said 1, 0, 1, 0 of 1, 1, 0, 0.
        let two = classes(&[0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0], 2, &[1, 1, 0, 0]);
        check(Metric::Accuracy, &two, &[("accuracy", Some(0.5))]);
        check(Metric::F1, &two, &[("f1", Some(0.5))]);
        check(Metric::AccuracyAndF1, &two, &[("accuracy", Some(0.5)), ("f1", Some(0.5))]);
        check(Metric::Matthews, &two, &[("matthews", Some(0.0))]);
        let three = classes(&[1.0, 0.0, 0.0, 0.0, 0.0, 1.0], 3, &[0, 2]);
        check(Metric::F1, &three, &[("f1_macro", Some(1.0))]);
        let said = values(&[1.0, 2.0, 4.0], &[2.0, 3.0, 5.0]);
        check(Metric::Mse, &said, &[("mse", Some(1.0))]);
        check(Metric::PearsonSpearman, &said, &[("pearson", Some(1.0)), ("spearman", Some(1.0))]);
        let marks = Labels::Sets(vec![true, false, true, true]);
        let sets = Predictions::new(vec![1.0, 2.0, -1.0, 0.5], 2, marks).unwrap();
        check(Metric::F1Micro, &sets, &[("f1_micro", Some(4.0 / 6.0))]);
    }

    #[test]
    fn the_primary_score_is_the_mean_and_none_where_a_part_is() {
        let said = classes(&[0.0, 1.0, 0.0, 1.0], 2, &[1, 0]);
        let scores = Metric::AccuracyAndF1.compute(&said).unwrap();
        // Accuracy ½, F1 2/3.
        assert_eq!(Metric::AccuracyAndF1.primary(&scores), Some((0.5 + 2.0 / 3.0) / 2.0));
        let constant = values(&[1.0, 1.0], &[1.0, 2.0]);
        let scores = Metric::PearsonSpearman.compute(&constant).unwrap();
        assert_eq!(Metric::PearsonSpearman.primary(&scores), None);
        assert_eq!(serde_json::to_string(&scores).unwrap(), r#"{"pearson":null,"spearman":null}"#);
    }

    #[test]
    fn less_is_better_only_for_errors() {
        assert!(Metric::Mse.is_better(0.1, 0.2));
        assert!(!Metric::Accuracy.is_better(0.1, 0.2));
        assert!(!Metric::Accuracy.is_better(0.2, 0.2));
    }
}
