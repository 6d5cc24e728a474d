//! TSV, CSV, and lines that begin with their label.
//!
//! In: bytes. Out: fields by column. Never: holds more than one record, or guesses what a quote
//! means.
//!
//! The splitter is our own because a record must have a size limit and every field a place; on
//! what the `csv` crate writes, both read the same, and the tests hold that.

use std::borrow::Cow;
use std::io::BufRead;

use crate::error::{Error, Problem, reading};
use crate::label::RawLabel;
use crate::lines::{Line, Lines, without_ending};
use crate::source::{Bad, Candidate, Column, Encoding, Placed, Quoting, Sink};

/// Reads records whose fields are parted by `delimiter`.
pub(crate) fn read(input: impl BufRead, delimiter: char, sink: &mut Sink<'_>) -> Result<(), Error> {
    let quoting = sink.spec.quoting;
    let mut lines = Lines::new(input, sink.limit);
    let mut record = Vec::new();
    let mut columns: Option<Columns> = None;
    let mut header = sink.spec.header;
    while let Some(line) = next_record(&mut lines, &mut record, delimiter, quoting, sink)? {
        let bytes = without_ending(&record);
        if bytes.is_empty() {
            continue;
        }
        if header {
            header = false;
            let names = decode(bytes, sink.spec.encoding)
                .map_err(|bad| bad_header(sink, line, bytes, bad))?;
            let names: Vec<String> = split(&names, delimiter, quoting)
                .into_iter()
                .map(|field| field.value.into_owned())
                .collect();
            columns = Some(Columns::named(&names, sink)?);
            continue;
        }
        let found = match decode(bytes, sink.spec.encoding) {
            Err(bad) => Err(bad),
            Ok(text) => {
                let fields = split(&text, delimiter, quoting);
                let columns = match &mut columns {
                    Some(columns) => columns,
                    unknown => unknown.insert(Columns::numbered(fields.len(), sink)?),
                };
                columns.pick(&text, &fields)
            }
        };
        sink.take(line, bytes, found)?;
    }
    Ok(())
}

/// Reads lines of a label, a space and a text.
pub(crate) fn read_label_first(input: impl BufRead, sink: &mut Sink<'_>) -> Result<(), Error> {
    let mut lines = Lines::new(input, sink.limit);
    let mut record = Vec::new();
    while let Some(line) = next_record(&mut lines, &mut record, ' ', Quoting::Off, sink)? {
        let bytes = without_ending(&record);
        if bytes.is_empty() {
            continue;
        }
        let found = decode(bytes, sink.spec.encoding).and_then(|text| {
            let Some((label, rest)) = text.split_once(' ') else {
                return Err(Bad {
                    column: Some(1),
                    problem: Problem::NoSeparator { separator: ' ' },
                });
            };
            let column = Some(label.chars().count() as u64 + 2);
            Ok(Candidate {
                text: Placed { value: rest.to_owned(), column },
                pair: None,
                label: Some(Placed { value: RawLabel::Text(label.to_owned()), column: Some(1) }),
            })
        });
        sink.take(line, bytes, found)?;
    }
    Ok(())
}

/// Fills `record` with the next record and says on which line it begins.
fn next_record(
    lines: &mut Lines<impl BufRead>,
    record: &mut Vec<u8>,
    delimiter: char,
    quoting: Quoting,
    sink: &mut Sink<'_>,
) -> Result<Option<u64>, Error> {
    loop {
        record.clear();
        let mut place = Place::Start;
        let mut seen = 0;
        let first = lines.number() + 1;
        loop {
            let end = lines.next(record).map_err(reading(sink.file))?;
            if quoting == Quoting::On {
                place = record[seen..].iter().fold(place, |at, &byte| at.after(byte, delimiter));
                seen = record.len();
            }
            match end {
                Line::End if place == Place::Quoted => return Err(unclosed(sink, first)),
                Line::End => return Ok((!record.is_empty()).then_some(first)),
                Line::TooLong if place == Place::Quoted => return Err(unclosed(sink, first)),
                Line::TooLong => {
                    let problem = Problem::LineTooLong { limit: lines.limit() };
                    sink.take(first, record, Err(Bad { column: None, problem }))?;
                    break;
                }
                Line::Whole if place == Place::Quoted => {}
                Line::Whole => return Ok(Some(first)),
            }
        }
    }
}

fn unclosed(sink: &Sink<'_>, line: u64) -> Error {
    Error::UnclosedQuote { file: sink.file.to_owned(), line }
}

fn bad_header(sink: &Sink<'_>, line: u64, bytes: &[u8], bad: Bad) -> Error {
    let Bad { column, problem } = bad;
    let (file, excerpt) = (sink.file.to_owned(), crate::error::excerpt(bytes));
    Error::BadRow(Box::new(crate::error::BadRow { file, line, column, problem, excerpt }))
}

/// The text of `bytes`.
pub(crate) fn decode(bytes: &[u8], encoding: Encoding) -> Result<Cow<'_, str>, Bad> {
    match encoding {
        Encoding::Latin1 => Ok(bytes.iter().map(|&byte| char::from(byte)).collect()),
        Encoding::Utf8 => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|error| {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let column = Some(good.chars().count() as u64 + 1);
            Bad { column, problem: Problem::InvalidUtf8 }
        }),
    }
}

/// Where the splitter is within a record.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// At the first character of a field.
    Start,
    Plain,
    Quoted,
    /// After a quote inside a quoted field: the field ends, or a second quote follows.
    Closing,
}

impl Place {
    fn after(self, byte: u8, delimiter: char) -> Self {
        match (self, byte) {
            (Self::Start, b'"') | (Self::Closing, b'"') => Self::Quoted,
            (Self::Quoted, b'"') => Self::Closing,
            (Self::Quoted, _) => Self::Quoted,
            (_, byte) if char::from(byte) == delimiter => Self::Start,
            _ => Self::Plain,
        }
    }
}

struct Field<'a> {
    value: Cow<'a, str>,
    /// Its first byte in the record.
    start: usize,
}

fn split(record: &str, delimiter: char, quoting: Quoting) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    let mut start = 0;
    loop {
        let rest = &record[start..];
        let (value, length) = match rest.strip_prefix('"') {
            Some(_) if quoting == Quoting::On => unquote(rest, delimiter),
            _ => {
                let length = rest.find(delimiter).unwrap_or(rest.len());
                (Cow::Borrowed(&rest[..length]), length)
            }
        };
        fields.push(Field { value, start });
        if length == rest.len() {
            return fields;
        }
        start += length + delimiter.len_utf8();
    }
}

/// The quoted field at the beginning of `rest`, and its length with the quotes.
fn unquote(rest: &str, delimiter: char) -> (Cow<'_, str>, usize) {
    let mut value = String::new();
    let mut place = Place::Start;
    for (at, char) in rest.char_indices() {
        let next = match u8::try_from(char) {
            Ok(byte) if char.is_ascii() => place.after(byte, delimiter),
            _ => place.after(b'x', delimiter),
        };
        match (place, next) {
            (_, Place::Start) => return (Cow::Owned(value), at),
            (Place::Start, Place::Quoted) | (Place::Quoted, Place::Closing) => {}
            _ => value.push(char),
        }
        place = next;
    }
    (Cow::Owned(value), rest.len())
}

/// Where the text, the pair and the label are.
struct Columns {
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
    /// Fields that a row has.
    width: usize,
    /// A row may have more.
    more: bool,
}

impl Columns {
    fn named(names: &[String], sink: &Sink<'_>) -> Result<Self, Error> {
        let at = |column: &Column| match column {
            Column::Index(index) if *index < names.len() => Ok(*index),
            column => {
                let name = column.to_string();
                let found = names.iter().position(|other| *other == name);
                found.ok_or_else(|| Error::NoColumn {
                    file: sink.file.to_owned(),
                    column: name,
                    known: names.to_vec(),
                })
            }
        };
        let spec = sink.spec;
        Ok(Self {
            text: at(&spec.text)?,
            pair: spec.pair.as_ref().map(at).transpose()?,
            label: spec.label.as_ref().map(at).transpose()?,
            width: names.len(),
            more: spec.extra_columns,
        })
    }

    /// The columns of a file without a header whose first row has `width` fields.
    fn numbered(width: usize, sink: &Sink<'_>) -> Result<Self, Error> {
        let at = |column: &Column| match column {
            Column::Index(index) => Ok(*index),
            Column::Name(name) => Err(Error::ColumnKind {
                file: sink.file.to_owned(),
                column: format!("`{name}`"),
                reason: "the file has no header; give the column's index, from 0",
            }),
        };
        let spec = sink.spec;
        let text = at(&spec.text)?;
        let pair = spec.pair.as_ref().map(at).transpose()?;
        let label = spec.label.as_ref().map(at).transpose()?;
        let last = [Some(text), pair, label].into_iter().flatten().max().unwrap_or(0);
        if last >= width {
            return Err(Error::ColumnKind {
                file: sink.file.to_owned(),
                column: format!("number {last}"),
                reason: "the first row has fewer; they are numbered from 0",
            });
        }
        let needed = last.saturating_add(1);
        let width = if spec.extra_columns { needed } else { width.max(needed) };
        Ok(Self { text, pair, label, width, more: spec.extra_columns })
    }

    fn pick(&self, record: &str, fields: &[Field<'_>]) -> Result<Candidate, Bad> {
        let found = fields.len();
        if found < self.width || (found > self.width && !self.more) {
            let problem = Problem::FieldCount { found, expected: self.width };
            return Err(Bad { column: None, problem });
        }
        let text = |index: usize| Placed {
            value: fields[index].value.clone().into_owned(),
            column: Some(column_of(record, fields[index].start)),
        };
        Ok(Candidate {
            text: text(self.text),
            pair: self.pair.map(text),
            label: self.label.map(text).map(|placed| Placed {
                value: RawLabel::Text(placed.value),
                column: placed.column,
            }),
        })
    }
}

/// The character of its line, from 1, at which byte `start` of the record lies.
fn column_of(record: &str, start: usize) -> u64 {
    let line = record[..start].rfind('\n').map_or(0, |at| at + 1);
    record[line..start].chars().count() as u64 + 1
}
