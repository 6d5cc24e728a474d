//! A teacher's answers that somebody else computed: by a model of any kind, an ensemble, people.
//!
//! In: a file of one JSON object a line, each with a text and what the teacher says of it. Out: one
//! row of logits for each example of a data set.
//! Never: an answer by its place in the file. It is that to its text, whatever spaces stand around it, so
//! a shuffled, shortened or longer file answers the same.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use heirloom_base::Digest;
use serde_json::Value;

use crate::cache::{CacheKey, TeacherCache};
use crate::dataset::{Dataset, asked};
use crate::error::{BadRow, Error, Problem, alternatives, excerpt, reading};
use crate::jsonl::{Fields, raw_label, type_of};
use crate::label::{Label, LabelKind, Labels, RawLabel};
use crate::lines::{LONGEST_LINE, Line, Lines, without_ending};
use crate::separated::decode;
use crate::source::{Bad, Encoding, Placed};

/// A smaller probability counts as this one, so that its logarithm is a logit.
pub const LEAST_PROBABILITY: f64 = 1e-6;
/// How far probabilities of one text may be from a sum of 1; they are divided by theirs.
const SUM_TOLERANCE: f64 = 0.02;
/// How far logits may be from the probabilities beside them, as a probability.
const AGREEMENT: f64 = 1e-3;

/// Names under which `heirloom predict` reads and writes texts, and the second ones of pairs.
pub const TEXTS: [&str; 3] = ["text", "sentence", "sentence1"];
/// The second text of a pair.
pub const PAIRS: [&str; 2] = ["text_pair", "sentence2"];

/// Answers by text.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerFile {
    file: PathBuf,
    digest: Digest,
    classes: usize,
    /// The line of each text's answer, and its logits, `[classes]`.
    rows: BTreeMap<Digest, (u64, Vec<f32>)>,
}

impl AnswerFile {
    /// Reads `file`, whose answers are about `labels`.
    ///
    /// A line has the text under one of `names` or [`TEXTS`], that of a pair's second under one of
    /// `pairs` or [`PAIRS`], and the first of these that it has, numbers as a list in the order of `labels`
    /// or by their names:
    ///
    /// - `logits`: finite numbers;
    /// - `probabilities`: from 0 to 1; of one label among several they sum to 1 within 0.02, and are
    ///   divided by their sum. They become logits: `ln p`, or `ln p/(1 − p)` where labels do not
    ///   exclude one another, of a p no nearer to an end than 1e-6. Beside logits they must be theirs;
    /// - `label`, or `labels` where they do not exclude one another: an answer without a doubt;
    /// - `value`, for a regression.
    ///
    /// # Errors
    /// What is wrong with which line; also where two lines answer one text differently.
    pub fn read(
        file: &Path,
        labels: &Labels,
        names: &[&str],
        pairs: Option<&[&str]>,
    ) -> Result<Self, Error> {
        let bytes = std::fs::read(file).map_err(reading(file))?;
        let reader = Reader { labels, names: [names, &TEXTS].concat(), pairs };
        let mut answers = Self {
            file: file.to_owned(),
            digest: Digest::of(&bytes),
            classes: labels.outputs(),
            rows: BTreeMap::new(),
        };
        let mut lines = Lines::new(bytes.as_slice(), LONGEST_LINE);
        let mut line = Vec::new();
        loop {
            line.clear();
            let end = lines.next(&mut line).map_err(reading(file))?;
            let bytes = without_ending(&line);
            let found = match end {
                Line::End => break,
                Line::Whole if bytes.trim_ascii().is_empty() => continue,
                Line::Whole => decode(bytes, Encoding::Utf8).and_then(|text| reader.answer(&text)),
                Line::TooLong => {
                    let problem = Problem::LineTooLong { limit: lines.limit() };
                    Err(Bad { column: None, problem })
                }
            };
            let number = lines.number();
            let bad = |Bad { column, problem }| {
                let (file, excerpt) = (file.to_owned(), excerpt(bytes));
                Error::BadAnswer(Box::new(BadRow { file, line: number, column, problem, excerpt }))
            };
            let (text, logits) = found.map_err(bad)?;
            match answers.rows.entry(text) {
                Entry::Vacant(vacant) => _ = vacant.insert((number, logits)),
                Entry::Occupied(there) if there.get().1 == logits => (),
                Entry::Occupied(there) => {
                    let problem = Problem::SecondAnswer { first: there.get().0 };
                    return Err(bad(Bad { column: None, problem }));
                }
            }
        }
        if answers.rows.is_empty() {
            return Err(Error::Empty { file: file.to_owned(), skipped: 0 });
        }
        Ok(answers)
    }

    /// The digest of the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Texts that have an answer.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The answers to every example of `data`, which was tokenised with the tokenizer of that digest
    /// and cut to `max_length` tokens.
    ///
    /// # Errors
    /// Where an example has none; it says how many, and quotes the first, whose text `text_of` finds.
    pub fn of(
        &self,
        data: &Dataset,
        what: &'static str,
        (tokenizer, max_length): (Digest, usize),
        text_of: &dyn Fn(Digest) -> Option<String>,
    ) -> Result<TeacherCache, Error> {
        let mut logits = Vec::with_capacity(data.len() * self.classes);
        let mut without = Vec::new();
        for at in 0..data.len() {
            match self.rows.get(&data.asked(at)) {
                Some((_, row)) => logits.extend_from_slice(row),
                None => without.push(at),
            }
        }
        if let Some(&first) = without.first() {
            return Err(Error::Unanswered {
                file: self.file.clone(),
                missing: without.len(),
                of: data.len(),
                what,
                text: text_of(data.asked(first)).map(|text| excerpt(text.as_bytes())),
            });
        }
        let key =
            CacheKey { teacher: self.digest, tokenizer, text: data.tokens_digest(), max_length };
        TeacherCache::new(key, data.len(), self.classes, logits)
    }
}

/// What the lines of one file have in common.
struct Reader<'a> {
    labels: &'a Labels,
    names: Vec<&'a str>,
    /// Of the second text; `None` where the task reads one.
    pairs: Option<&'a [&'a str]>,
}

impl Reader<'_> {
    /// The text of a line, and its logits.
    fn answer(&self, line: &str) -> Result<(Digest, Vec<f32>), Bad> {
        let fields = Fields::parse(line)?;
        let text = self.text(&fields, &self.names)?;
        let pair = match self.pairs {
            None => None,
            Some(pairs) => Some(self.text(&fields, &[pairs, &PAIRS].concat())?),
        };
        Ok((asked(&text, pair.as_deref()), self.logits(&fields)?))
    }

    fn text(&self, fields: &Fields<'_>, names: &[&str]) -> Result<String, Bad> {
        let name = names.iter().find(|name| fields.has(name)).unwrap_or(&names[0]);
        Ok(fields.text(name)?.value)
    }

    fn logits(&self, fields: &Fields<'_>) -> Result<Vec<f32>, Bad> {
        if self.labels.kind == LabelKind::Score {
            let Placed { value, column } = fields.get("value")?;
            let score = number(&value).map_err(|reason| bad(column, "value", &reason))?;
            return Ok(vec![score as f32]);
        }
        let logits = self.numbers(fields, "logits")?;
        let probabilities = self.numbers(fields, "probabilities")?;
        let from_probabilities = probabilities
            .map(|Placed { value, column }| {
                let logits = self.of_probabilities(&value);
                let logits = logits.map_err(|reason| bad(column, "probabilities", &reason))?;
                Ok::<_, Bad>(Placed { value: logits, column })
            })
            .transpose()?;
        let found = match (logits, from_probabilities) {
            (None, None) => self.hard(fields)?,
            (Some(logits), None) => logits.value,
            (None, Some(logits)) => logits.value,
            (Some(logits), Some(other)) => {
                let [ours, theirs] = [&logits.value, &other.value].map(|row| self.chances(row));
                let far = ours.iter().zip(&theirs).position(|(a, b)| (a - b).abs() > AGREEMENT);
                if let Some(at) = far {
                    let reason = format!(
                        "is {:.4} for `{}` by its own and {:.4} by `probabilities`; a list is in the \
                         order of `task.labels`: {}",
                        ours[at],
                        self.labels.names[at],
                        theirs[at],
                        self.labels.names.join(", "),
                    );
                    return Err(bad(logits.column, "logits", &reason));
                }
                logits.value
            }
        };
        Ok(found.into_iter().map(|logit| logit as f32).collect())
    }

    /// Logits of an answer that is a label, or labels that do not exclude one another, and no more.
    fn hard(&self, fields: &Fields<'_>) -> Result<Vec<f64>, Bad> {
        let several = matches!(self.labels.kind, LabelKind::Multi { .. });
        let name = if several { "labels" } else { "label" };
        if !fields.has(name) {
            return Err(fields.get("logits").err().unwrap_or_else(neither));
        }
        let Placed { value, column } = fields.get(name)?;
        let label = raw_label(&value).unwrap_or(RawLabel::Missing);
        let found = match self.labels.resolve(&label) {
            Ok(Label::Class(class)) => {
                (0..self.labels.names.len()).map(|at| f64::from(at == class as usize)).collect()
            }
            Ok(Label::Multi(marks)) => marks.iter().copied().map(f64::from).collect::<Vec<_>>(),
            Ok(_) => return Err(bad(column, name, "is no label")),
            Err(wrong) => {
                let reason = format!("is {}, expected {}", wrong.found, wrong.expected);
                return Err(bad(column, name, &reason));
            }
        };
        self.of_probabilities(&found).map_err(|reason| bad(column, name, &reason))
    }

    /// The numbers of a field in the order of the labels; nothing where there is no such field.
    fn numbers(&self, fields: &Fields<'_>, name: &str) -> Result<Option<Placed<Vec<f64>>>, Bad> {
        if !fields.has(name) {
            return Ok(None);
        }
        let Placed { value, column } = fields.get(name)?;
        let row = self.in_order(&value).map_err(|reason| bad(column, name, &reason))?;
        Ok(Some(Placed { value: row, column }))
    }

    fn in_order(&self, value: &Value) -> Result<Vec<f64>, String> {
        let names = &self.labels.names;
        match value {
            Value::Array(list) if list.len() == names.len() => list.iter().map(number).collect(),
            Value::Array(list) => {
                Err(format!("has {} numbers, expected {}, one a label", list.len(), names.len()))
            }
            Value::Object(object) => {
                if object.len() != names.len() {
                    return Err(format!("names {} of {} labels", object.len(), names.len()));
                }
                let known: Vec<String> = object.keys().cloned().collect();
                let of = |(at, name): (usize, &String)| {
                    // What models call labels that have no name.
                    let unnamed = || object.get(&format!("LABEL_{at}"));
                    let value = object.get(name).or_else(unnamed).ok_or_else(|| {
                        format!("says nothing of label `{name}`; {}", alternatives(name, &known))
                    })?;
                    number(value)
                };
                names.iter().enumerate().map(of).collect()
            }
            other => Err(format!("is {}, expected a list or an object", type_of(other))),
        }
    }

    /// Logits of probabilities.
    fn of_probabilities(&self, row: &[f64]) -> Result<Vec<f64>, String> {
        if let Some(wrong) = row.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Err(format!("holds {wrong}, expected numbers from 0 to 1"));
        }
        if matches!(self.labels.kind, LabelKind::Multi { .. }) {
            let inside = |p: f64| p.clamp(LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY);
            return Ok(row.iter().map(|&p| (inside(p) / (1.0 - inside(p))).ln()).collect());
        }
        let sum: f64 = row.iter().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(format!("sums to {sum}, expected 1"));
        }
        Ok(row.iter().map(|p| (p / sum).max(LEAST_PROBABILITY).ln()).collect())
    }

    /// Probabilities of logits.
    fn chances(&self, logits: &[f64]) -> Vec<f64> {
        if matches!(self.labels.kind, LabelKind::Multi { .. }) {
            return logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect();
        }
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        logits.iter().map(|logit| (logit - largest).exp() / sum).collect()
    }
}

/// A number that single precision holds.
fn number(value: &Value) -> Result<f64, String> {
    let found = value.as_f64().filter(|number| (*number as f32).is_finite());
    found.ok_or_else(|| match value {
        Value::Number(number) => format!("holds {number}, expected finite numbers"),
        other => format!("holds {}, expected numbers", type_of(other)),
    })
}

fn bad(column: Option<u64>, field: &str, reason: &str) -> Bad {
    Bad { column, problem: Problem::Answer { field: field.to_owned(), reason: reason.to_owned() } }
}

/// Both fields are there and null.
fn neither() -> Bad {
    bad(None, "logits", "is null, and so is `probabilities`")
}
