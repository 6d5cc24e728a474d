//! Why a report could not be made: one variant per cause.

/// Why a report could not be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A name that no metric has.
    #[error(
        "there is no metric `{name}`; the nearest is `{nearest}`, and the metrics are {}",
        names.join(", ")
    )]
    UnknownMetric {
        /// The name as given.
        name: String,
        /// The metric whose name is most like it.
        nearest: &'static str,
        /// All metrics.
        names: Vec<&'static str>,
    },
    /// The metric cannot judge labels of this kind.
    #[error(
        "metric `{metric}` judges {wanted}, and these examples are labelled with {found}; \
         metrics for {found} are {}",
        suited.join(", ")
    )]
    MetricDoesNotSuit {
        /// The metric's name.
        metric: &'static str,
        /// The kind of label it judges.
        wanted: &'static str,
        /// The kind of label there is.
        found: &'static str,
        /// Metrics for the labels there are.
        suited: Vec<&'static str>,
    },
    /// There are not `classes` logits for each example, or not one label.
    #[error(
        "{logits} logits and {labels} labels do not fit: expected {labels} × {classes} logits; \
         check that both come from the same examples"
    )]
    Shape {
        /// How many logits were given.
        logits: usize,
        /// How many examples have a label.
        labels: usize,
        /// How many logits an example should have.
        classes: usize,
    },
    /// The label sets do not divide into examples.
    #[error(
        "{marks} label marks do not divide into examples of {classes} labels; \
         give each example one mark per label"
    )]
    UnevenSets {
        /// How many marks were given.
        marks: usize,
        /// How many an example should have.
        classes: usize,
    },
    /// A model without outputs cannot be judged.
    #[error("predictions need at least 1 class, and 0 were given; check the model's head")]
    NoClasses,
    /// A regression has one output.
    #[error(
        "values are predicted by 1 output, and the model has {classes}; \
         label the examples with classes or give the model a regression head"
    )]
    ManyValues {
        /// How many outputs the model has.
        classes: usize,
    },
    /// A class label that the model has no output for.
    #[error(
        "example {example} has class {label}, and the model knows classes 0 to {last}; \
         check the label map of the data"
    )]
    LabelOutOfRange {
        /// The example, from 0.
        example: usize,
        /// Its label.
        label: u32,
        /// The largest class the model knows.
        last: usize,
    },
    /// A logit that is not a finite number.
    #[error(
        "example {example} has the logit {value} for output {output}, expected a finite number; \
         the model has diverged or its weights are damaged"
    )]
    LogitNotFinite {
        /// The example, from 0.
        example: usize,
        /// The output, from 0.
        output: usize,
        /// The logit.
        value: f32,
    },
    /// A true value that is not a finite number.
    #[error(
        "example {example} has the true value {value}, expected a finite number; \
         correct or leave out that line of the data"
    )]
    ValueNotFinite {
        /// The example, from 0.
        example: usize,
        /// The value.
        value: f32,
    },
    /// Two models were not judged on the same examples.
    #[error(
        "the models are paired by example, and {difference}; \
         evaluate both on the same file in the same order"
    )]
    NotTheSameExamples {
        /// What differs.
        difference: Difference,
    },
    /// Only classifiers are compared example by example.
    #[error(
        "models are compared by class, and these examples are labelled with {found}; \
         compare scores across seeds instead"
    )]
    NotClasses {
        /// The kind of label there is.
        found: &'static str,
    },
}

/// How the examples of two models differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// One model saw more examples.
    #[error("the first saw {first} examples, the second {second}")]
    Count {
        /// Examples of the first.
        first: usize,
        /// Examples of the second.
        second: usize,
    },
    /// One model knows more classes.
    #[error("the first knows {first} classes, the second {second}")]
    Classes {
        /// Classes of the first.
        first: usize,
        /// Classes of the second.
        second: usize,
    },
    /// The labels disagree.
    #[error(
        "example {example} is of class {first} for the first, of class {second} for the second"
    )]
    Label {
        /// The example, from 0.
        example: usize,
        /// Its class for the first.
        first: u32,
        /// Its class for the second.
        second: u32,
    },
}
