//! What a model said about labelled examples, checked once.
//!
//! In: logits, `classes` for each example, and labels of one of three kinds.
//! Out: [`Predictions`], whose shapes fit and whose numbers are finite.
//! Never: lets a diverged model pass for a bad one; a logit that is not finite is an error.

use crate::error::Error;
use crate::probability::Logits;

/// The truth about examples; its kind decides what can be measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// One class per example.
    Classes(Vec<u32>),
    /// One number per example, predicted by one output.
    Values(Vec<f32>),
    /// One mark per example and label, example by example: is the label present?
    Sets(Vec<bool>),
}

impl Labels {
    /// The kind in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Classes(_) => "classes",
            Self::Values(_) => "values",
            Self::Sets(_) => "label sets",
        }
    }
}

/// Logits and labels that fit each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    logits: Vec<f32>,
    classes: usize,
    labels: Labels,
    n: usize,
}

impl Predictions {
    /// Checks that there are `classes` finite logits per example and that each label can be
    /// predicted. No examples at all are fine: they have no scores.
    ///
    /// ```
    /// use heirloom_report::predictions::{Labels, Predictions};
    /// let labels = Labels::Classes(vec![1, 0]);
    /// assert_eq!(Predictions::new(vec![0.1, 0.9, 0.8, 0.2], 2, labels).unwrap().n(), 2);
    /// ```
    pub fn new(logits: Vec<f32>, classes: usize, labels: Labels) -> Result<Self, Error> {
        if classes == 0 {
            return Err(Error::NoClasses);
        }
        let n = check_labels(&labels, classes)?;
        if logits.len() != n * classes {
            return Err(Error::Shape { logits: logits.len(), labels: n, classes });
        }
        if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
            let (example, output) = (at / classes, at % classes);
            return Err(Error::LogitNotFinite { example, output, value: logits[at] });
        }
        Ok(Self { logits, classes, labels, n })
    }

    /// How many examples there are.
    pub fn n(&self) -> usize {
        self.n
    }

    /// How many outputs the model has.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The logits by example.
    pub fn logits(&self) -> Logits<'_> {
        Logits::new(&self.logits, self.classes)
    }

    /// All logits in one slice.
    pub fn values(&self) -> &[f32] {
        &self.logits
    }

    /// The truth.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// How many examples the labels cover.
fn check_labels(labels: &Labels, classes: usize) -> Result<usize, Error> {
    match labels {
        Labels::Classes(labels) => {
            let beyond = labels.iter().position(|&label| label as usize >= classes);
            match beyond {
                Some(example) => Err(Error::LabelOutOfRange {
                    example,
                    label: labels[example],
                    last: classes - 1,
                }),
                None => Ok(labels.len()),
            }
        }
        Labels::Values(_) if classes != 1 => Err(Error::ManyValues { classes }),
        Labels::Values(values) => match values.iter().position(|value| !value.is_finite()) {
            Some(example) => Err(Error::ValueNotFinite { example, value: values[example] }),
            None => Ok(values.len()),
        },
        Labels::Sets(marks) if !marks.len().is_multiple_of(classes) => {
            Err(Error::UnevenSets { marks: marks.len(), classes })
        }
        Labels::Sets(marks) => Ok(marks.len() / classes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(logits: &[f32], classes: usize, labels: Labels) -> String {
        Predictions::new(logits.to_vec(), classes, labels).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place() {
        insta::assert_snapshot!(
            refusal(&[0.0; 5], 2, Labels::Classes(vec![0, 1])),
            @"5 logits and 2 labels do not fit: expected 2 × 2 logits; check that both come from the same examples"
        );
        insta::assert_snapshot!(
            refusal(&[0.0; 4], 2, Labels::Classes(vec![0, 2])),
            @"example 1 has class 2, and the model knows classes 0 to 1; check the label map of the data"
        );
        insta::assert_snapshot!(
            refusal(&[0.0, 1.0, 2.0, f32::NAN], 2, Labels::Classes(vec![0, 1])),
            @"example 1 has the logit NaN for output 1, expected a finite number; the model has diverged or its weights are damaged"
        );
        insta::assert_snapshot!(
            refusal(&[], 0, Labels::Classes(vec![])),
            @"predictions need at least 1 class, and 0 were given; check the model's head"
        );
        insta::assert_snapshot!(
            refusal(&[0.0; 4], 2, Labels::Values(vec![0.5, 1.0])),
            @"values are predicted by 1 output, and the model has 2; label the examples with classes or give the model a regression head"
        );
        insta::assert_snapshot!(
            refusal(&[0.0; 2], 1, Labels::Values(vec![0.5, f32::INFINITY])),
            @"example 1 has the true value inf, expected a finite number; correct or leave out that line of the data"
        );
        insta::assert_snapshot!(
            refusal(&[0.0; 3], 3, Labels::Sets(vec![true; 4])),
            @"4 label marks do not divide into examples of 3 labels; give each example one mark per label"
        );
    }

    #[test]
    fn each_kind_of_label_counts_its_examples() {
        let rows = [
            (6, 3, Labels::Classes(vec![0, 2])),
            (2, 1, Labels::Values(vec![0.5, 1.0])),
            (6, 3, Labels::Sets(vec![false; 6])),
        ];
        for (logits, classes, labels) in rows {
            let predictions = Predictions::new(vec![0.0; logits], classes, labels).unwrap();
            assert_eq!((predictions.n(), predictions.classes()), (2, classes));
        }
    }
}
