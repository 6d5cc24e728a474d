//! Rows of text with labels, from the formats people keep them in.
//!
//! In: files, and a [`SourceSpec`] that says how rows lie in them.
//! Out: rows in the order of the files, and what was left out and why.
//! Never: repairs a row in silence. A row is taken as it is, is an error, or is counted.
//!
//! Lines without any character are no rows, as for every reader of CSV; a byte-order mark, CRLF
//! and a missing last newline are accepted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use heirloom_base::Digest;
use serde::{Deserialize, Serialize};

use crate::dataset::asked;
use crate::error::{BadRow, Error, Problem, excerpt, reading};
use crate::label::{Labels, RawLabel};
use crate::lines::LONGEST_LINE;
use crate::{jsonl, parquet, separated};

/// One sample, as the file holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Line of the file, or row of a Parquet file, from 1.
    pub line: u64,
    /// The text, or the first of a pair.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label.
    pub label: RawLabel,
}

impl Row {
    /// [`Dataset::asked`](crate::dataset::Dataset::asked) of the example that it becomes.
    pub fn asked(&self) -> Digest {
        asked(&self.text, self.pair.as_deref())
    }
}

/// How rows lie in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpec {
    /// The format.
    pub format: Format,
    /// The first line holds the names of the columns (TSV and CSV).
    pub header: bool,
    /// What `"` means (TSV and CSV).
    pub quoting: Quoting,
    /// Rows may have more columns than the header or the first row (TSV and CSV).
    pub extra_columns: bool,
    /// How bytes are text (all but Parquet).
    pub encoding: Encoding,
    /// The text, or the first of a pair.
    pub text: Column,
    /// The second text of a pair.
    pub pair: Option<Column>,
    /// The label; without it rows have none.
    pub label: Option<Column>,
    /// A label in text ends before this character: `COARSE:fine` is `COARSE` with `:`.
    pub label_separator: Option<char>,
    /// An empty label is a label: none of several. Elsewhere it is a bad row.
    pub empty_labels: bool,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Fields parted by tabs.
    Tsv,
    /// Fields parted by commas.
    Csv,
    /// The label, one space, and the text to the end of the line.
    LabelFirst,
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

/// What `"` means in TSV and CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quoting {
    /// Ordinary text, balanced or not.
    Off,
    /// At the beginning of a field it opens a field that may hold separators and line ends; twice
    /// inside it is one quote (RFC 4180).
    On,
}

/// How bytes are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// ISO 8859-1: each byte is the character of that number.
    Latin1,
}

/// A column, by name or by index from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// By index, from 0.
    Index(usize),
    /// By name.
    Name(String),
}

/// What happens to a bad row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadLine {
    /// It is an error.
    Error,
    /// It is left out and counted, up to a limit.
    Skip {
        /// How many rows may be left out.
        limit: u64,
    },
}

/// Rows, and what was left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The rows, in the order of the files.
    pub rows: Vec<Row>,
    /// What was left out.
    pub skipped: Skipped,
}

/// Rows left out, by kind, under the policy that allowed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Skipped {
    /// The policy.
    pub policy: OnBadLine,
    /// How many, by kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// The first one.
    pub first: Option<BadRow>,
}

impl SourceSpec {
    /// A TSV with a header and quoting off, the layout of GLUE.
    pub fn tsv(text: impl Into<Column>) -> Self {
        Self::of(Format::Tsv, Quoting::Off, text.into())
    }

    /// A CSV with a header and quoting on.
    pub fn csv(text: impl Into<Column>) -> Self {
        Self::of(Format::Csv, Quoting::On, text.into())
    }

    /// One JSON object a line.
    pub fn jsonl(text: impl Into<Column>) -> Self {
        Self::of(Format::Jsonl, Quoting::Off, text.into())
    }

    /// Apache Parquet.
    pub fn parquet(text: impl Into<Column>) -> Self {
        Self::of(Format::Parquet, Quoting::Off, text.into())
    }

    /// A label, one space, and the text to the end of the line; no header.
    pub fn label_first() -> Self {
        let spec = Self::of(Format::LabelFirst, Quoting::Off, Column::Index(1)).headerless();
        spec.with_label(0)
    }

    /// The same with a second text.
    pub fn with_pair(self, pair: impl Into<Column>) -> Self {
        Self { pair: Some(pair.into()), ..self }
    }

    /// The same with a label.
    pub fn with_label(self, label: impl Into<Column>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// The same without a header.
    pub fn headerless(self) -> Self {
        Self { header: false, ..self }
    }

    fn of(format: Format, quoting: Quoting, text: Column) -> Self {
        Self {
            format,
            header: true,
            quoting,
            extra_columns: false,
            encoding: Encoding::Utf8,
            text,
            pair: None,
            label: None,
            label_separator: None,
            empty_labels: false,
        }
    }
}

impl From<&str> for Column {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<usize> for Column {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// Reads all `files`, one after the other.
///
/// With `labels`, a label that does not belong to them is a bad row; without, labels are taken as
/// they are. The limit of `on_bad_line` holds for all files together. A file without a row is an
/// error.
pub fn read(
    files: &[PathBuf],
    spec: &SourceSpec,
    labels: Option<&Labels>,
    on_bad_line: OnBadLine,
) -> Result<Rows, Error> {
    let mut rows = Rows::new(on_bad_line);
    for file in files {
        let before = (rows.rows.len(), rows.skipped.total());
        let input = File::open(file).map_err(reading(file))?;
        let mut sink = Sink { rows, file, spec, labels, limit: LONGEST_LINE };
        match spec.format {
            Format::Parquet => parquet::read(input, &mut sink)?,
            _ => read_text(BufReader::with_capacity(1 << 18, input), &mut sink)?,
        }
        rows = sink.rows;
        if rows.rows.len() == before.0 {
            let skipped = rows.skipped.total() - before.1;
            return Err(Error::Empty { file: file.clone(), skipped });
        }
    }
    Ok(rows)
}

/// Reads rows from `input` instead of a file; `name` stands for the file in messages. No rows are
/// no error here.
pub fn read_from(
    input: impl BufRead,
    name: &Path,
    spec: &SourceSpec,
    labels: Option<&Labels>,
    on_bad_line: OnBadLine,
) -> Result<Rows, Error> {
    let rows = Rows::new(on_bad_line);
    let mut sink = Sink { rows, file: name, spec, labels, limit: LONGEST_LINE };
    match spec.format {
        Format::Parquet => parquet::read_input(input, &mut sink)?,
        _ => read_text(input, &mut sink)?,
    }
    Ok(sink.rows)
}

fn read_text(input: impl BufRead, sink: &mut Sink<'_>) -> Result<(), Error> {
    match sink.spec.format {
        Format::Tsv => separated::read(input, '\t', sink),
        Format::Csv => separated::read(input, ',', sink),
        Format::LabelFirst => separated::read_label_first(input, sink),
        Format::Jsonl => jsonl::read(input, sink),
        Format::Parquet => unreachable!("Parquet is no text; both callers have taken it out"),
    }
}

impl Rows {
    /// Rows that come from no file.
    pub fn of(rows: Vec<Row>) -> Self {
        Self { rows, ..Self::new(OnBadLine::Error) }
    }

    fn new(policy: OnBadLine) -> Self {
        let skipped = Skipped { policy, counts: BTreeMap::new(), first: None };
        Self { rows: Vec::new(), skipped }
    }
}

impl Skipped {
    /// Rows left out.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// A text or a label, and the character at which it begins in its line.
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) column: Option<u64>,
}

/// A row as a format found it, not yet judged.
pub(crate) struct Candidate {
    pub(crate) text: Placed<String>,
    pub(crate) pair: Option<Placed<String>>,
    pub(crate) label: Option<Placed<RawLabel>>,
}

/// What is wrong, and at which character of the line.
pub(crate) struct Bad {
    pub(crate) column: Option<u64>,
    pub(crate) problem: Problem,
}

/// Where the formats leave their rows; here they are judged, and the policy applied.
pub(crate) struct Sink<'a> {
    pub(crate) rows: Rows,
    pub(crate) file: &'a Path,
    pub(crate) spec: &'a SourceSpec,
    pub(crate) labels: Option<&'a Labels>,
    /// Longest line, in bytes.
    pub(crate) limit: u64,
}

impl Sink<'_> {
    /// Takes a row of `line`, whose bytes are `shown` where there is something to show.
    pub(crate) fn take(
        &mut self,
        line: u64,
        shown: &[u8],
        found: Result<Candidate, Bad>,
    ) -> Result<(), Error> {
        match found.and_then(|candidate| self.judge(line, candidate)) {
            Ok(row) => self.rows.rows.push(row),
            Err(Bad { column, problem }) => {
                let file = self.file.to_owned();
                self.leave_out(BadRow { file, line, column, problem, excerpt: excerpt(shown) })?;
            }
        }
        Ok(())
    }

    fn judge(&self, line: u64, candidate: Candidate) -> Result<Row, Bad> {
        let Candidate { text, pair, label } = candidate;
        let spec = self.spec;
        let texts = [Some((&text, &spec.text)), pair.as_ref().zip(spec.pair.as_ref())];
        for (placed, name) in texts.into_iter().flatten() {
            if let Some(at) = placed.value.chars().position(|char| char == '\0') {
                let column = placed.column.map(|column| column + at as u64);
                return Err(Bad { column, problem: Problem::Nul });
            }
            if placed.value.trim().is_empty() {
                let field = name.to_string();
                return Err(Bad { column: placed.column, problem: Problem::EmptyText { field } });
            }
        }
        let label = match label {
            Some(placed) => self.judge_label(placed)?,
            None => RawLabel::Missing,
        };
        Ok(Row { line, text: text.value, pair: pair.map(|pair| pair.value), label })
    }

    fn judge_label(&self, placed: Placed<RawLabel>) -> Result<RawLabel, Bad> {
        let Placed { value, column } = placed;
        let label = match (value, self.spec.label_separator) {
            (RawLabel::Text(mut text), Some(separator)) => {
                text.truncate(text.find(separator).unwrap_or(text.len()));
                RawLabel::Text(text)
            }
            (label, _) => label,
        };
        let field = || self.spec.label.as_ref().map(Column::to_string).unwrap_or_default();
        if let RawLabel::Text(text) = &label
            && text.trim().is_empty()
            && !self.spec.empty_labels
        {
            return Err(Bad { column, problem: Problem::EmptyLabel { field: field() } });
        }
        if let Some(Err(wrong)) = self.labels.map(|labels| labels.resolve(&label)) {
            let (field, found, expected) = (field(), wrong.found, wrong.expected);
            return Err(Bad { column, problem: Problem::UnknownLabel { field, found, expected } });
        }
        Ok(label)
    }

    fn leave_out(&mut self, row: BadRow) -> Result<(), Error> {
        let skipped = &mut self.rows.skipped;
        let OnBadLine::Skip { limit } = skipped.policy else {
            return Err(Error::BadRow(Box::new(row)));
        };
        if skipped.total() >= limit {
            let counts = skipped.counts.iter().map(|(&kind, &count)| (kind, count)).collect();
            return Err(Error::TooManyBadRows { limit, counts, last: Box::new(row) });
        }
        *skipped.counts.entry(row.problem.kind()).or_default() += 1;
        skipped.first.get_or_insert(row);
        Ok(())
    }
}
