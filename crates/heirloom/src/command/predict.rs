//! `heirloom predict`: texts in, answers out, a line each and in the same order.

use std::io::{self, BufRead, BufReader, Read};

use heirloom::answer::{Answerer, model_folder};
use heirloom::failure::Failure;
use heirloom_data::given::{PAIRS, TEXTS};
use heirloom_data::label::{Labels, RawLabel};
use heirloom_data::source::{OnBadLine, Row, Rows, Skipped};
use heirloom_models::Head;
use heirloom_report::probability::{answer, softmax};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::PredictArgs;
use crate::show::Show;

/// Name of the input in messages.
const STDIN: &str = "<stdin>";
/// Lines answered at once, at most; fewer where no more have arrived, so that a program that waits
/// for each answer before it asks again gets it.
const LINES_AT_ONCE: usize = 256;
/// Bytes read at once.
const BUFFER: usize = 1 << 20;
/// Longer lines are refused, so that memory stays bounded.
const LONGEST_LINE: u64 = 16 << 20;

pub(crate) fn run(args: &PredictArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let folder = model_folder(&args.model)?;
    let mut model = Answerer::open(&folder, args.max_length, threads)?;
    if model.max_length() < args.max_length {
        show.say(&format!("note: this model reads at most {} tokens", model.max_length()));
    }
    let names = model.labels();
    let mut input = BufReader::with_capacity(BUFFER, io::stdin().lock());
    let (mut line, mut all, mut truncated) = (0, 0, 0);
    loop {
        let Chunk { rows, ended } = read_chunk(&mut input, &mut line);
        let answers = model.answer(STDIN, &rows, Labels::score())?;
        all += rows.rows.len();
        truncated += answers.examples.truncated();
        let mut text = Vec::new();
        for (row, output) in rows.rows.iter().zip(answers.outputs.chunks_exact(model.width())) {
            let said = said(row, output, model.head(), &names);
            serde_json::to_writer(&mut text, &said).expect("text and finite numbers are JSON");
            text.push(b'\n');
        }
        show.data(std::str::from_utf8(&text).expect("JSON is UTF-8"));
        match ended {
            Ended::NotYet => (),
            Ended::Here => break,
            Ended::Bad(failure) => return Err(failure),
        }
    }
    if truncated > 0 {
        let length = model.max_length();
        show.say(&format!("note: {truncated} of {all} texts were cut to {length} tokens"));
    }
    Ok(0)
}

/// Rows that were read, and whether more may follow.
struct Chunk {
    rows: Rows,
    ended: Ended,
}

enum Ended {
    NotYet,
    Here,
    /// The line after the rows cannot be read.
    Bad(Failure),
}

/// Reads the lines that have arrived, at least one. Lines without any character are no rows.
fn read_chunk(input: &mut BufReader<impl Read>, line: &mut u64) -> Chunk {
    let mut rows = Vec::new();
    let mut bytes = Vec::new();
    let ended = loop {
        bytes.clear();
        let read = input.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes);
        *line += 1;
        match read {
            Err(error) => {
                break Ended::Bad(Failure::input(format!("cannot read {STDIN}: {error}")));
            }
            Ok(0) => break Ended::Here,
            Ok(read) if read as u64 > LONGEST_LINE => {
                break Ended::Bad(Failure::input(format!(
                    "{STDIN}:{line}: the line is longer than {LONGEST_LINE} bytes, expected one \
                     text per line"
                )));
            }
            Ok(_) => (),
        }
        match row(&bytes, *line) {
            Ok(row) => rows.extend(row),
            Err(why) => break Ended::Bad(Failure::input(format!("{STDIN}:{line}{why}"))),
        }
        if rows.len() == LINES_AT_ONCE || !input.buffer().contains(&b'\n') {
            break Ended::NotYet;
        }
    };
    let skipped = Skipped { policy: OnBadLine::Error, counts: Default::default(), first: None };
    Chunk { rows: Rows { rows, skipped }, ended }
}

/// The row of a line: a JSON object where it begins with `{`, else the text itself. The error is
/// what follows the line's number in a message.
fn row(bytes: &[u8], line: u64) -> Result<Option<Row>, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!(":{}: not UTF-8, expected UTF-8 text", error.valid_up_to() + 1))?;
    let text = text.trim_end_matches(['\n', '\r']);
    let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
    if text.is_empty() {
        return Ok(None);
    }
    let row = |text: String, pair| Row { line, text, pair, label: RawLabel::Missing };
    if !text.starts_with('{') {
        return Ok(Some(row(text.to_owned(), None)));
    }
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        // The parser counts lines too, and it was given one.
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        format!(":{}: not a JSON object: {reason}", error.column())
    })?;
    let Some(first) = field(&object, &TEXTS)? else {
        let found: Vec<&str> = object.keys().map(String::as_str).collect();
        let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
        return Err(format!(": expected a field {}; found {found}", TEXTS.join(", ")));
    };
    Ok(Some(row(first, field(&object, &PAIRS)?)))
}

/// The text in the first of `names` that the object has.
fn field(object: &Map<String, Value>, names: &[&str]) -> Result<Option<String>, String> {
    let Some(name) = names.iter().find(|name| object.contains_key(**name)) else { return Ok(None) };
    match &object[*name] {
        Value::String(text) => Ok(Some(text.clone())),
        found => Err(format!(": field `{name}` is {found}, expected a text")),
    }
}

/// What a model says of one row.
#[derive(Serialize)]
struct Said<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_pair: Option<&'a str>,
    #[serde(flatten)]
    answer: Answer<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Class { logits: &'a [f32], probabilities: Map<String, Value>, label: &'a str },
    Classes { logits: &'a [f32], probabilities: Map<String, Value>, labels: Vec<&'a str> },
    Value { value: f32 },
    Embedding { embedding: &'a [f32] },
}

fn said<'a>(row: &'a Row, output: &'a [f32], head: Head, names: &'a [String]) -> Said<'a> {
    let named = |probabilities: Vec<f64>| {
        names.iter().cloned().zip(probabilities.into_iter().map(|value| json!(value))).collect()
    };
    let answer = match head {
        Head::SingleLabel { .. } => Answer::Class {
            logits: output,
            probabilities: named(softmax(output)),
            label: &names[answer(output) as usize],
        },
        Head::MultiLabel { .. } => Answer::Classes {
            logits: output,
            probabilities: named(output.iter().map(|&logit| sigmoid(logit)).collect()),
            // A label is said where it is more probable than not.
            labels: names
                .iter()
                .zip(output)
                .filter_map(|(name, &logit)| (logit > 0.0).then_some(name.as_str()))
                .collect(),
        },
        Head::Regression => Answer::Value { value: output[0] },
        Head::MaskedLm | Head::Embedding => Answer::Embedding { embedding: output },
    };
    Said { text: &row.text, text_pair: row.pair.as_deref(), answer }
}

/// `1 / (1 + e⁻ˣ)`; both ends are reached without overflow.
fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Option<(String, Option<String>)> {
        row(line.as_bytes(), 2).unwrap().map(|row| (row.text, row.pair))
    }

    #[test]
    fn a_line_is_a_text_or_an_object_with_texts() {
        let pair =
            |text: &str, pair: Option<&str>| Some((text.to_owned(), pair.map(str::to_owned)));
        let rows = [
            ("a good film\n", pair("a good film", None)),
            (" leading space\r\n", pair(" leading space", None)),
            ("\n", None),
            (r#"{"text": "a"}"#, pair("a", None)),
            (r#"{"sentence": "a", "label": 1}"#, pair("a", None)),
            (r#"{"sentence1": "a", "sentence2": "b"}"#, pair("a", Some("b"))),
            (r#"{"text": "a", "text_pair": "b"}"#, pair("a", Some("b"))),
        ];
        for (line, want) in rows {
            assert_eq!(texts(line), want, "{line}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_says_where_and_why() {
        let refused = |line: &[u8]| format!("<stdin>:2{}", row(line, 2).unwrap_err());
        insta::assert_snapshot!(refused(b"{\"text\": }"), @"<stdin>:2:10: not a JSON object: expected value");
        insta::assert_snapshot!(refused(b"{\"txt\": \"a\"}"), @"<stdin>:2: expected a field text, sentence, sentence1; found txt");
        insta::assert_snapshot!(refused(b"{\"text\": 7}"), @"<stdin>:2: field `text` is 7, expected a text");
        insta::assert_snapshot!(refused(b"caf\xe9"), @"<stdin>:2:4: not UTF-8, expected UTF-8 text");
    }

    #[test]
    fn lines_that_have_arrived_are_one_chunk_and_those_before_a_bad_one_are_kept() {
        let mut input = BufReader::new(&b"a\n\nb\n{\nc\n"[..]);
        let mut line = 0;
        let Chunk { rows, ended } = read_chunk(&mut input, &mut line);
        let lines: Vec<(u64, &str)> =
            rows.rows.iter().map(|row| (row.line, row.text.as_str())).collect();
        assert_eq!(lines, [(1, "a"), (3, "b")]);
        assert!(matches!(ended, Ended::Bad(failure) if failure.message.starts_with("<stdin>:4:")));
    }

    #[test]
    fn sigmoid_has_its_known_values() {
        assert_eq!([0.0, 1e4, -1e4].map(sigmoid), [0.5, 1.0, 0.0]);
    }
}
