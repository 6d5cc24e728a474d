//! Documents out of files, one after another.
//!
//! In: files, and a [`Reading`] that says how documents lie in them.
//! Out: documents in the order of the files, each with its place.
//! Never: a corpus in memory as text (one document, or one row group of a Parquet file, at a time),
//! and never a document repaired in silence: what is not as it should be is refused with file,
//! line and field.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{BadRow, Error, Problem, excerpt, reading};
use crate::jsonl::{Fields, type_of};
use crate::lines::{Line, Lines, without_ending};
use crate::parquet;
use crate::source::Bad;
use crate::text::elements::Elements;
use crate::text::{ChatTemplate, TextError};

/// How documents lie in files, and what becomes of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The format; without one, a file's name says it.
    pub format: Option<TextFormat>,
    /// What parts documents of plain text.
    pub separator: Separator,
    /// What a document is made of, where files have fields.
    pub shape: Shape,
    /// A special token before each document.
    pub begin: Option<String>,
    /// A special token after each document.
    pub end: Option<String>,
    /// What makes a text of a conversation.
    pub template: Option<ChatTemplate>,
}

/// The format of a file of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// Plain text.
    Plain,
    /// One JSON object a line.
    Jsonl,
    /// A JSON list of objects.
    Json,
    /// Apache Parquet.
    Parquet,
}

/// What parts documents of plain text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Separator {
    /// Nothing: a file is a document.
    #[default]
    File,
    /// Lines without a visible character.
    BlankLine,
    /// Lines that hold this and nothing else.
    Marker(String),
}

/// What a document is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// The text of one field; of plain text, all of it.
    Text {
        /// Its name.
        field: String,
    },
    /// A list of messages with `role` and `content`.
    Messages {
        /// Its name.
        field: String,
    },
    /// Instruction, input (which may be absent or empty) and output, as Alpaca has them.
    Instruction {
        /// What to do.
        instruction: String,
        /// To what.
        input: String,
        /// The reply.
        output: String,
    },
    /// What is given and what is to follow.
    Completion {
        /// What is given.
        prompt: String,
        /// What is to follow.
        completion: String,
    },
}

impl Reading {
    /// Plain text or the field `text`, file by file, nothing before or after a document.
    pub fn plain() -> Self {
        Self {
            format: None,
            separator: Separator::File,
            shape: Shape::text(),
            begin: None,
            end: None,
            template: None,
        }
    }

    /// Conversations of `shape`, under `template`.
    pub fn chat(shape: Shape, template: ChatTemplate) -> Self {
        Self { shape, template: Some(template), ..Self::plain() }
    }

    /// The same with a special token after each document.
    pub fn with_end(self, token: impl Into<String>) -> Self {
        Self { end: Some(token.into()), ..self }
    }
}

impl Shape {
    /// The field `text`.
    pub fn text() -> Self {
        Self::Text { field: "text".to_owned() }
    }

    /// The list `messages`.
    pub fn messages() -> Self {
        Self::Messages { field: "messages".to_owned() }
    }

    /// The fields `prompt` and `completion`.
    pub fn completion() -> Self {
        Self::Completion { prompt: "prompt".to_owned(), completion: "completion".to_owned() }
    }

    /// Alpaca's fields.
    pub fn alpaca() -> Self {
        Self::Instruction {
            instruction: "instruction".to_owned(),
            input: "input".to_owned(),
            output: "output".to_owned(),
        }
    }

    /// Fields that must be there, and fields that may.
    fn fields(&self) -> (Vec<&str>, Vec<&str>) {
        match self {
            Self::Text { field } | Self::Messages { field } => (vec![field], vec![]),
            Self::Instruction { instruction, input, output } => {
                (vec![instruction, output], vec![input])
            }
            Self::Completion { prompt, completion } => (vec![prompt, completion], vec![]),
        }
    }

    /// Whether fields hold lists where they could hold text.
    fn expects(&self, value: &Value) -> Option<&'static str> {
        let fits = match self {
            Self::Text { .. } | Self::Instruction { .. } => value.is_string(),
            Self::Messages { .. } => value.is_array(),
            Self::Completion { .. } => value.is_string() || value.is_array(),
        };
        let expected = match self {
            Self::Text { .. } | Self::Instruction { .. } => "text",
            Self::Messages { .. } => "a list of messages",
            Self::Completion { .. } => "text or a list of messages",
        };
        (!fits).then_some(expected)
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Text { .. } => "texts",
            Self::Messages { .. } => "messages",
            Self::Instruction { .. } => "instruction and output",
            Self::Completion { .. } => "prompt and completion",
        }
    }
}

/// Longest document, in bytes. All tokens of one document are there at once, with their places, which
/// takes some twenty times its length of memory.
pub(crate) const LONGEST_DOCUMENT: u64 = 128 << 20;

/// A document as its file holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// Number of the file, from 0.
    pub(crate) file: usize,
    /// Line on which it begins, or row of a Parquet file, from 1.
    pub(crate) line: u64,
    pub(crate) content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Text(String),
    /// The fields of the shape that are there, each of the type it should have.
    Fields(Map<String, Value>),
}

impl Content {
    /// About how much memory it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        fn of(value: &Value) -> usize {
            match value {
                Value::String(text) => text.len() + 24,
                Value::Array(values) => values.iter().map(of).sum(),
                Value::Object(fields) => fields.values().map(of).sum(),
                _ => 24,
            }
        }
        match self {
            Self::Text(text) => text.len(),
            Self::Fields(fields) => fields.values().map(of).sum(),
        }
    }
}

/// `paths` with each folder replaced by its files that can be text, by name; not those of folders
/// inside it, nor hidden ones.
///
/// # Errors
/// Where a path cannot be read, or a folder holds no such file.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).map_err(reading(path))? {
            let file = entry.map_err(reading(path))?.path();
            let hidden = file.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if !hidden && file.is_file() && of_name(&file).is_some() {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(TextError::NoFiles { folder: path.clone() }.into());
        }
        inside.sort();
        all.extend(inside);
    }
    Ok(all)
}

fn of_name(file: &Path) -> Option<TextFormat> {
    match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "txt" | "text" | "md" => Some(TextFormat::Plain),
        "jsonl" | "ndjson" => Some(TextFormat::Jsonl),
        "json" => Some(TextFormat::Json),
        "parquet" => Some(TextFormat::Parquet),
        _ => None,
    }
}

/// Documents of one file.
type OfFile = Box<dyn Iterator<Item = Result<(u64, Content), Error>> + Send>;

/// Documents of all files.
pub(crate) struct Documents<'a> {
    files: &'a [PathBuf],
    reading: &'a Reading,
    /// The next file.
    next: usize,
    current: Option<OfFile>,
}

impl<'a> Documents<'a> {
    pub(crate) fn new(files: &'a [PathBuf], reading: &'a Reading) -> Result<Self, Error> {
        if let Separator::Marker(marker) = &reading.separator
            && (marker.trim().is_empty() || marker.contains(['\n', '\r']))
        {
            return Err(TextError::Marker { marker: marker.clone() }.into());
        }
        Ok(Self { files, reading, next: 0, current: None })
    }

    fn open(&self, file: &Path) -> Result<OfFile, Error> {
        // A file whose name says nothing is plain text.
        let format = self.reading.format.or_else(|| of_name(file)).unwrap_or(TextFormat::Plain);
        let input = File::open(file).map_err(reading(file))?;
        let shape = self.reading.shape.clone();
        if format == TextFormat::Plain && !matches!(shape, Shape::Text { .. }) {
            let (file, shape) = (file.to_owned(), shape.words());
            return Err(TextError::NoFields { file, shape }.into());
        }
        let file = file.to_owned();
        let buffered = |input| BufReader::with_capacity(1 << 18, input);
        Ok(match format {
            TextFormat::Plain => {
                let separator = self.reading.separator.clone();
                let lines = Lines::new(buffered(input), LONGEST_DOCUMENT);
                let mut plain = Plain { file, separator, lines, ended: false };
                Box::new(std::iter::from_fn(move || plain.next()))
            }
            TextFormat::Jsonl => {
                let mut lines = Lines::new(buffered(input), LONGEST_DOCUMENT);
                Box::new(std::iter::from_fn(move || {
                    next_line(&mut lines, &file, &shape).transpose()
                }))
            }
            TextFormat::Json => {
                let mut elements = Elements::new(buffered(input), LONGEST_DOCUMENT);
                Box::new(std::iter::from_fn(move || {
                    next_element(&mut elements, &file, &shape).transpose()
                }))
            }
            TextFormat::Parquet => {
                let (required, optional) = shape.fields();
                let rows = parquet::records(input, &file, &required, &optional)?;
                Box::new(rows.zip(1..).map(move |(row, line)| {
                    let fields = checked(row?, &shape);
                    fields
                        .map(|fields| (line, Content::Fields(fields)))
                        .map_err(|problem| bad(&file, line, b"", Bad { column: None, problem }))
                }))
            }
        })
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<Found, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(found) = current.next() {
                    let file = self.next - 1;
                    return Some(found.map(|(line, content)| Found { file, line, content }));
                }
                self.current = None;
            }
            let file = self.files.get(self.next)?;
            self.next += 1;
            match self.open(file) {
                Ok(documents) => self.current = Some(documents),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A refusal with its place.
pub(crate) fn bad(file: &Path, line: u64, shown: &[u8], bad: Bad) -> Error {
    let Bad { column, problem } = bad;
    let row = BadRow { file: file.to_owned(), line, column, problem, excerpt: excerpt(shown) };
    TextError::BadDocument(Box::new(row)).into()
}

/// Plain text, parted.
struct Plain<R> {
    file: PathBuf,
    separator: Separator,
    lines: Lines<R>,
    ended: bool,
}

impl<R: BufRead> Plain<R> {
    fn next(&mut self) -> Option<Result<(u64, Content), Error>> {
        if self.ended {
            return None;
        }
        let read = self.read();
        self.ended |= read.is_err();
        match read {
            Ok(Some((line, bytes))) => Some(self.text(line, bytes)),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Lines up to a separator, and the first one's number; `None` at the end of the file.
    fn read(&mut self) -> Result<Option<(u64, Vec<u8>)>, Error> {
        let mut document = Vec::new();
        let mut first = self.lines.number() + 1;
        loop {
            let start = document.len();
            let end = self.lines.next(&mut document).map_err(reading(&self.file))?;
            let line = document[start..].trim_ascii();
            let separates = match &self.separator {
                Separator::File => false,
                Separator::BlankLine => line.is_empty(),
                Separator::Marker(marker) => line == marker.trim().as_bytes(),
            };
            match end {
                Line::TooLong => {
                    let problem = Problem::DocumentTooLong { limit: LONGEST_DOCUMENT };
                    let refused = Bad { column: None, problem };
                    return Err(bad(&self.file, first, &document, refused));
                }
                Line::End => {
                    self.ended = true;
                    return Ok((!document.is_empty()).then_some((first, document)));
                }
                Line::Whole if !separates => {}
                // Between two separators there is nothing, as before the first.
                Line::Whole if start == 0 => {
                    document.clear();
                    first = self.lines.number() + 1;
                }
                Line::Whole => {
                    // The line's end before a separator belongs to the separator.
                    let length = without_ending(&document[..start]).len();
                    document.truncate(length);
                    return Ok(Some((first, document)));
                }
            }
        }
    }

    fn text(&self, line: u64, bytes: Vec<u8>) -> Result<(u64, Content), Error> {
        String::from_utf8(bytes).map(|text| (line, Content::Text(text))).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let before = &error.as_bytes()[..at];
            let line = line + before.iter().filter(|&&byte| byte == b'\n').count() as u64;
            let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&before[start..]).chars().count() as u64 + 1;
            let refused = Bad { column: Some(column), problem: Problem::NotText };
            let rest = &error.as_bytes()[start..];
            let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
            bad(&self.file, line, &rest[..end], refused)
        })
    }
}

fn next_line(
    lines: &mut Lines<impl BufRead>,
    file: &Path,
    shape: &Shape,
) -> Result<Option<(u64, Content)>, Error> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let end = lines.next(&mut line).map_err(reading(file))?;
        let bytes = without_ending(&line);
        let refused = |problem| bad(file, lines.number(), bytes, problem);
        match end {
            Line::End => return Ok(None),
            Line::Whole if bytes.trim_ascii().is_empty() => continue,
            Line::Whole => {
                let text = std::str::from_utf8(bytes).map_err(|error| {
                    let column = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                    let column = Some(column.chars().count() as u64 + 1);
                    refused(Bad { column, problem: Problem::NotText })
                })?;
                let fields = picked(text, shape).map_err(refused)?;
                return Ok(Some((lines.number(), Content::Fields(fields))));
            }
            Line::TooLong => {
                let problem = Problem::DocumentTooLong { limit: LONGEST_DOCUMENT };
                return Err(refused(Bad { column: None, problem }));
            }
        }
    }
}

fn next_element(
    elements: &mut Elements<impl BufRead>,
    file: &Path,
    shape: &Shape,
) -> Result<Option<(u64, Content)>, Error> {
    let element = elements.next().map_err(reading(file))?;
    let line = elements.line();
    let nowhere = |problem| Bad { column: None, problem };
    let bytes = match element {
        None => return Ok(None),
        Some(Ok(bytes)) => bytes,
        Some(Err(problem)) => return Err(bad(file, line, b"", nowhere(problem))),
    };
    let refused = |problem| bad(file, line, &bytes, problem);
    let text = std::str::from_utf8(&bytes).map_err(|_| refused(nowhere(Problem::NotText)))?;
    // An element may go over lines, so a place in it is no column of one.
    let fields = picked(text, shape).map_err(|found| refused(nowhere(found.problem)))?;
    Ok(Some((line, Content::Fields(fields))))
}

/// The fields of the shape in an object.
fn picked(text: &str, shape: &Shape) -> Result<Map<String, Value>, Bad> {
    let fields = Fields::parse(text)?;
    let (required, optional) = shape.fields();
    let there = optional.into_iter().filter(|name| fields.has(name));
    let mut picked = Map::new();
    for name in required.into_iter().chain(there) {
        let found = fields.get(name)?;
        judge(name, &found.value, shape)
            .map_err(|problem| Bad { column: found.column, problem })?;
        picked.insert(name.to_owned(), found.value);
    }
    Ok(picked)
}

fn checked(fields: Map<String, Value>, shape: &Shape) -> Result<Map<String, Value>, Problem> {
    let (required, optional) = shape.fields();
    let mut kept = Map::new();
    for (name, value) in fields {
        if optional.contains(&name.as_str()) && value.is_null() {
            continue;
        }
        judge(&name, &value, shape)?;
        kept.insert(name, value);
    }
    debug_assert!(
        required.iter().all(|name| kept.contains_key(*name)),
        "the columns were asked for"
    );
    Ok(kept)
}

fn judge(field: &str, value: &Value, shape: &Shape) -> Result<(), Problem> {
    let Some(expected) = shape.expects(value) else { return Ok(()) };
    let field = field.to_owned();
    Err(match value {
        Value::Null => Problem::Null { field, expected },
        other => Problem::WrongType { field, found: type_of(other), expected },
    })
}
