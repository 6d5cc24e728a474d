//! Labels: what a data file says, and what training uses.
//!
//! In: integers, numbers, strings or lists, as the file holds them.
//! Out: a class, a score, several classes at once, or nothing.
//! Never: a guess. A label that is not in the list is a problem with what was expected.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, alternatives, listed, nearest};

/// A label as the file holds it.
#[derive(Clone, Debug, PartialEq)]
pub enum RawLabel {
    /// The file has no label for this row.
    Missing,
    /// An integer.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text; every label of a TSV or CSV file.
    Text(String),
    /// Several labels.
    List(Vec<RawLabel>),
}

/// A label as training uses it.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// The example has none.
    None,
    /// One of several classes.
    Class(u32),
    /// A number to come near to.
    Score(f32),
    /// For each class, 1 where it applies and 0 where it does not; shared, so that a batch holds
    /// it without a copy.
    Multi(Arc<[f32]>),
}

/// What a label can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelKind {
    /// One of the names.
    Class,
    /// A number; there are no names.
    Score,
    /// Any of the names; in text they are parted by the separator.
    Multi {
        /// Parts the names in text.
        separator: char,
    },
}

/// The labels of a data set, in the order of the model's outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Names of the classes; empty for scores.
    pub names: Vec<String>,
    /// What a label can be.
    pub kind: LabelKind,
}

/// A label that does not belong to the labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelProblem {
    /// What the file holds.
    pub found: String,
    /// What it should hold.
    pub expected: String,
}

/// More different values than this have so far always been scores or text taken for a label.
pub const MOST_INFERRED_CLASSES: usize = 1000;

impl Labels {
    /// One class of `names`.
    pub fn classes<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), kind: LabelKind::Class }
    }

    /// A number.
    pub fn score() -> Self {
        Self { names: Vec::new(), kind: LabelKind::Score }
    }

    /// Any of `names`; in text they are parted by `separator`.
    pub fn multi<S: Into<String>>(names: impl IntoIterator<Item = S>, separator: char) -> Self {
        Self {
            names: names.into_iter().map(Into::into).collect(),
            kind: LabelKind::Multi { separator },
        }
    }

    /// Outputs that a model of these labels has.
    pub fn outputs(&self) -> usize {
        self.names.len().max(1)
    }

    /// The labels that `raw` labels seem to have.
    ///
    /// Integers from 0 without a gap, and other integers in their order, are classes; numbers with
    /// a fraction are scores; everything else is a class per different text, in alphabetical
    /// order; lists give several classes at once.
    pub fn infer<'a>(raw: impl IntoIterator<Item = &'a RawLabel>) -> Result<Self, Error> {
        let mut seen = Seen::default();
        raw.into_iter().for_each(|label| seen.note(label));
        if seen.fraction && seen.numeric {
            return Ok(Self::score());
        }
        let mut names: Vec<String> = seen.texts.into_iter().collect();
        if names.len() > MOST_INFERRED_CLASSES {
            let (distinct, limit) = (names.len(), MOST_INFERRED_CLASSES);
            return Err(Error::TooManyClasses { distinct, limit });
        }
        let mut integers: Vec<i64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        if !names.is_empty() && integers.len() == names.len() {
            integers.sort_unstable();
            names = integers.iter().map(i64::to_string).collect();
        }
        let separator = DEFAULT_SEPARATOR;
        let kind = if seen.list { LabelKind::Multi { separator } } else { LabelKind::Class };
        Ok(Self { names, kind })
    }

    /// The label that `raw` means.
    pub fn resolve(&self, raw: &RawLabel) -> Result<Label, LabelProblem> {
        match (&self.kind, raw) {
            (_, RawLabel::Missing) => Ok(Label::None),
            (LabelKind::Class, raw) => self.class(raw).map(Label::Class),
            (LabelKind::Score, raw) => score(raw).map(Label::Score),
            (LabelKind::Multi { .. }, RawLabel::List(parts)) => self.several(parts),
            (LabelKind::Multi { separator }, RawLabel::Text(text)) => {
                let parts = text.split(*separator).map(str::trim).filter(|part| !part.is_empty());
                let parts: Vec<RawLabel> = parts.map(|part| RawLabel::Text(part.into())).collect();
                self.several(&parts)
            }
            (LabelKind::Multi { .. }, raw) => self.several(std::slice::from_ref(raw)),
        }
    }

    fn several(&self, parts: &[RawLabel]) -> Result<Label, LabelProblem> {
        let mut values = vec![0.0; self.names.len()];
        for part in parts {
            values[self.class(part)? as usize] = 1.0;
        }
        Ok(Label::Multi(values.into()))
    }

    fn class(&self, raw: &RawLabel) -> Result<u32, LabelProblem> {
        let by_name = |text: &str| self.names.iter().position(|name| name == text);
        let by_index = |index: i64| usize::try_from(index).ok().filter(|&i| i < self.names.len());
        let index = match raw {
            // A name that is a number wins over the index: labels "1", "2" mean what they say.
            RawLabel::Text(text) => {
                by_name(text).or_else(|| text.trim().parse().ok().and_then(by_index))
            }
            RawLabel::Integer(value) => by_name(&value.to_string()).or_else(|| by_index(*value)),
            RawLabel::Float(value) if value.fract() == 0.0 => by_index(*value as i64),
            RawLabel::Float(_) | RawLabel::List(_) | RawLabel::Missing => None,
        };
        index
            .map(|index| index as u32)
            .ok_or_else(|| LabelProblem { found: shown(raw), expected: self.expected(raw) })
    }

    /// `0..=3` for a number, the names for a text.
    fn expected(&self, raw: &RawLabel) -> String {
        let numbered = self.names.iter().enumerate().all(|(i, name)| *name == i.to_string());
        let number = matches!(raw, RawLabel::Integer(_) | RawLabel::Float(_));
        match (self.names.len(), raw) {
            (0, _) => "no label at all".to_owned(),
            (count, _) if numbered || number => format!("0..={}", count - 1),
            (_, RawLabel::Text(text)) if nearest(text, &self.names).is_some() => {
                format!("one of the labels; {}", alternatives(text, &self.names))
            }
            _ => format!("one of {}", listed(&self.names)),
        }
    }
}

/// Parts several labels in text unless the recipe says otherwise.
const DEFAULT_SEPARATOR: char = ',';

#[derive(Default)]
struct Seen {
    texts: std::collections::BTreeSet<String>,
    /// Some label has a fraction.
    fraction: bool,
    /// Every label is a number.
    numeric: bool,
    any: bool,
    list: bool,
}

impl Seen {
    fn note(&mut self, label: &RawLabel) {
        let number = match label {
            RawLabel::Missing => return,
            RawLabel::List(parts) => {
                self.list = true;
                return parts.iter().for_each(|part| self.note(part));
            }
            RawLabel::Integer(value) => Some(*value as f64),
            RawLabel::Float(value) => Some(*value),
            RawLabel::Text(text) => text.trim().parse::<f64>().ok(),
        };
        let fraction = match label {
            RawLabel::Text(text) => number.is_some() && text.contains('.'),
            RawLabel::Float(_) => true,
            _ => false,
        };
        self.numeric = number.is_some() && (self.numeric || !self.any);
        self.any = true;
        self.fraction |= fraction;
        // Beyond the limit only the count matters; memory stays bounded.
        if self.texts.len() <= MOST_INFERRED_CLASSES {
            self.texts.insert(shown_plain(label));
        }
    }
}

fn score(raw: &RawLabel) -> Result<f32, LabelProblem> {
    let value = match raw {
        RawLabel::Integer(value) => Some(*value as f32),
        RawLabel::Float(value) => Some(*value as f32),
        RawLabel::Text(text) => text.trim().parse().ok(),
        RawLabel::List(_) | RawLabel::Missing => None,
    };
    value
        .filter(|value| value.is_finite())
        .ok_or_else(|| LabelProblem { found: shown(raw), expected: "a finite number".to_owned() })
}

fn shown_plain(raw: &RawLabel) -> String {
    match raw {
        RawLabel::Missing => "missing".to_owned(),
        RawLabel::Integer(value) => value.to_string(),
        RawLabel::Float(value) => value.to_string(),
        RawLabel::Text(text) => text.clone(),
        RawLabel::List(_) => "a list".to_owned(),
    }
}

fn shown(raw: &RawLabel) -> String {
    match raw {
        // A number reads the same whether the format tells numbers from text or not.
        RawLabel::Text(text) if text.parse::<i64>().is_ok() => text.clone(),
        RawLabel::Text(text) => {
            let head: String = text.chars().take(40).collect();
            format!("{head:?}")
        }
        other => shown_plain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> RawLabel {
        RawLabel::Text(value.into())
    }

    #[track_caller]
    fn check(labels: &Labels, raw: RawLabel, want: Label) {
        assert_eq!(labels.resolve(&raw), Ok(want), "{raw:?}");
    }

    #[track_caller]
    fn problem(labels: &Labels, raw: RawLabel) -> String {
        let problem = labels.resolve(&raw).unwrap_err();
        format!("{}, expected {}", problem.found, problem.expected)
    }

    #[test]
    fn names_indexes_and_numbers_mean_the_same_class() {
        let labels = Labels::classes(["no", "yes"]);
        check(&labels, text("yes"), Label::Class(1));
        check(&labels, text("1"), Label::Class(1));
        check(&labels, RawLabel::Integer(1), Label::Class(1));
        check(&labels, RawLabel::Float(1.0), Label::Class(1));
        check(&labels, RawLabel::Missing, Label::None);
    }

    #[test]
    fn a_name_that_is_a_number_wins_over_the_index() {
        let labels = Labels::classes(["1", "2"]);
        check(&labels, RawLabel::Integer(1), Label::Class(0));
        check(&labels, text("2"), Label::Class(1));
    }

    #[test]
    fn several_labels_come_from_a_list_or_from_text() {
        let labels = Labels::multi(["a", "b", "c"], '|');
        check(&labels, text("c|a"), Label::Multi([1.0, 0.0, 1.0].into()));
        check(&labels, text(""), Label::Multi([0.0; 3].into()));
        check(&labels, RawLabel::List(vec![text("b")]), Label::Multi([0.0, 1.0, 0.0].into()));
        check(&labels, RawLabel::Integer(2), Label::Multi([0.0, 0.0, 1.0].into()));
    }

    #[test]
    fn a_label_that_is_not_in_the_list_says_what_is() {
        let numbered = Labels::classes(["0", "1", "2", "3"]);
        insta::assert_snapshot!(problem(&numbered, RawLabel::Integer(7)), @"7, expected 0..=3");
        let named = Labels::classes(["entailment", "not_entailment"]);
        insta::assert_snapshot!(problem(&named, text("entailmnt")), @r#""entailmnt", expected one of the labels; did you mean `entailment`?"#);
        insta::assert_snapshot!(problem(&named, text("x")), @r#""x", expected one of `entailment`, `not_entailment`"#);
        insta::assert_snapshot!(problem(&named, RawLabel::Float(0.5)), @"0.5, expected 0..=1");
        insta::assert_snapshot!(problem(&Labels::score(), text("nan")), @r#""nan", expected a finite number"#);
    }

    #[test]
    fn labels_are_made_out_from_what_the_file_holds() {
        let rows: [(&[&str], Labels); 5] = [
            (&["0", "2", "1"], Labels::classes(["0", "1", "2"])),
            (&["10", "9", "-1"], Labels::classes(["-1", "9", "10"])),
            (&["b", "a"], Labels::classes(["a", "b"])),
            (&["1", "a"], Labels::classes(["1", "a"])),
            (&["1.5", "2"], Labels::score()),
        ];
        for (raw, want) in rows {
            let raw: Vec<RawLabel> = raw.iter().map(|value| text(value)).collect();
            assert_eq!(Labels::infer(&raw).unwrap(), want);
        }
    }

    #[test]
    fn a_column_of_many_values_is_not_taken_for_classes() {
        let raw: Vec<RawLabel> = (0..2000).map(RawLabel::Integer).collect();
        let error = Labels::infer(&raw).unwrap_err();
        insta::assert_snapshot!(error, @r#"the label column has 1001 different values, more than 1000; for scores set `task.kind = "regression"`, else list them in `task.labels`"#);
    }
}
