//! JSON Lines: one object a line.
//!
//! In: bytes. Out: the named fields of each object, with their place in the line.
//! Never: takes null, a number or a list for text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::BufRead;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, Problem, reading};
use crate::label::RawLabel;
use crate::lines::{Line, Lines, without_ending};
use crate::separated::decode;
use crate::source::{Bad, Candidate, Column, Placed, Sink};

/// Reads one object from each line that is not blank.
pub(crate) fn read(input: impl BufRead, sink: &mut Sink<'_>) -> Result<(), Error> {
    let spec = sink.spec;
    let name = |column: &Column| match column {
        Column::Name(name) => Ok(name.clone()),
        Column::Index(index) => Err(Error::ColumnKind {
            file: sink.file.to_owned(),
            column: index.to_string(),
            reason: "the fields of JSON objects have names; give the name",
        }),
    };
    let wanted = Wanted {
        text: name(&spec.text)?,
        pair: spec.pair.as_ref().map(name).transpose()?,
        label: spec.label.as_ref().map(name).transpose()?,
    };
    let mut lines = Lines::new(input, sink.limit);
    let mut line = Vec::new();
    loop {
        line.clear();
        let end = lines.next(&mut line).map_err(reading(sink.file))?;
        let bytes = without_ending(&line);
        let found = match end {
            Line::End => return Ok(()),
            Line::Whole if bytes.trim_ascii().is_empty() => continue,
            Line::Whole => decode(bytes, spec.encoding).and_then(|text| wanted.pick(&text)),
            Line::TooLong => {
                let problem = Problem::LineTooLong { limit: lines.limit() };
                Err(Bad { column: None, problem })
            }
        };
        sink.take(lines.number(), bytes, found)?;
    }
}

/// A JSON object whose values are not read until they are asked for, so that each has a place.
#[derive(Deserialize)]
#[serde(transparent)]
struct Object<'a>(#[serde(borrow)] BTreeMap<Key<'a>, &'a RawValue>);

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Names of the fields.
struct Wanted {
    text: String,
    pair: Option<String>,
    label: Option<String>,
}

impl Wanted {
    fn pick(&self, line: &str) -> Result<Candidate, Bad> {
        let fields = Fields::parse(line)?;
        let text = |name: &String| fields.text(name);
        let label = |name: &String| fields.get(name).and_then(|placed| as_label(name, placed));
        Ok(Candidate {
            text: text(&self.text)?,
            pair: self.pair.as_ref().map(text).transpose()?,
            label: self.label.as_ref().map(label).transpose()?,
        })
    }
}

/// A line as an object whose fields can be asked for.
pub(crate) struct Fields<'a> {
    line: &'a str,
    object: Object<'a>,
}

impl<'a> Fields<'a> {
    pub(crate) fn parse(line: &'a str) -> Result<Self, Bad> {
        let object = serde_json::from_str(line).map_err(|error| not_json(line, &error))?;
        Ok(Self { line, object })
    }

    /// Whether there is such a field, and it is not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        let Object(object) = &self.object;
        object.get(&Key(Cow::Borrowed(name))).is_some_and(|value| value.get() != "null")
    }

    /// The value of a field and its place in the line.
    pub(crate) fn get(&self, name: &str) -> Result<Placed<Value>, Bad> {
        let (line, Object(object)) = (self.line, &self.object);
        let value = object.get(&Key(Cow::Borrowed(name))).ok_or_else(|| {
            let known = object.keys().map(|Key(key)| key.to_string()).collect();
            Bad { column: None, problem: Problem::MissingField { field: name.into(), known } }
        })?;
        // The raw value borrows from the line, so the distance is its place.
        let start = value.get().as_ptr() as usize - line.as_ptr() as usize;
        let column = Some(line[..start].chars().count() as u64 + 1);
        let value = serde_json::from_str(value.get()).map_err(|error| not_json(line, &error))?;
        Ok(Placed { value, column })
    }

    /// The same of a field that must be text.
    pub(crate) fn text(&self, name: &str) -> Result<Placed<String>, Bad> {
        self.get(name).and_then(|placed| as_text(name, placed))
    }
}

fn not_json(line: &str, error: &serde_json::Error) -> Bad {
    let reason = error.to_string();
    // The parser adds its own place, which is ours already.
    let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
    let reason = if reason.contains("expected a map") { found_kind(line) } else { reason };
    // The parser counts bytes; bytes that go on a character do not count.
    let before = line.bytes().take(error.column()).filter(|byte| byte & 0xC0 != 0x80).count();
    Bad { column: Some(before.max(1) as u64), problem: Problem::NotJson { reason } }
}

fn found_kind(line: &str) -> String {
    let found = serde_json::from_str(line).map_or("something else", |value| type_of(&value));
    format!("found {found}")
}

fn as_text(field: &str, placed: Placed<Value>) -> Result<Placed<String>, Bad> {
    let Placed { value, column } = placed;
    let problem = match value {
        Value::String(value) => return Ok(Placed { value, column }),
        Value::Null => Problem::Null { field: field.to_owned(), expected: "text" },
        other => {
            Problem::WrongType { field: field.to_owned(), found: type_of(&other), expected: "text" }
        }
    };
    Err(Bad { column, problem })
}

fn as_label(field: &str, placed: Placed<Value>) -> Result<Placed<RawLabel>, Bad> {
    let Placed { value, column } = placed;
    match raw_label(&value) {
        Some(value) => Ok(Placed { value, column }),
        None => {
            let (field, expected) = (field.to_owned(), "a label");
            let problem = match value {
                Value::Null => Problem::Null { field, expected },
                other => Problem::WrongType { field, found: type_of(&other), expected },
            };
            Err(Bad { column, problem })
        }
    }
}

/// The label that a value is; `None` for null and objects.
pub(crate) fn raw_label(value: &Value) -> Option<RawLabel> {
    match value {
        Value::Bool(value) => Some(RawLabel::Integer(i64::from(*value))),
        Value::Number(number) => {
            let float = || number.as_f64().map(RawLabel::Float);
            number.as_i64().map(RawLabel::Integer).or_else(float)
        }
        Value::String(text) => Some(RawLabel::Text(text.clone())),
        Value::Array(parts) => {
            let parts: Option<Vec<RawLabel>> = parts.iter().map(raw_label).collect();
            parts.map(RawLabel::List)
        }
        Value::Null | Value::Object(_) => None,
    }
}

pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
