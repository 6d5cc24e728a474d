//! Everything that can be wrong with data, tokenizers and teacher caches.
//!
//! In: the place and the cause. Out: one message that says what, where, what was expected and what
//! to do next. Never: a cause hidden in a string.

use std::fmt;
use std::path::{Path, PathBuf};

use heirloom_base::Digest;
use heirloom_store::StoreError;

use crate::text::TextError;

/// Why data could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A row is not what the source says rows are.
    #[error("{0}\n  mend it, or leave bad rows out with `task.on_bad_line = \"skip\"`")]
    BadRow(Box<BadRow>),
    /// A line of a file of answers that is none.
    #[error(
        "{0}\n  expected a text with `logits`, `probabilities`, `label` or `value`, as `heirloom predict` \
         writes them"
    )]
    BadAnswer(Box<BadRow>),
    /// Examples to which a file of answers says nothing.
    #[error(
        "`{}` has no answer to {missing} of {of} {what} examples{}; have the teacher answer them too, \
         or remove them", file.display(), text.as_ref().map_or_else(String::new, |text| {
            format!(", the first of which reads `{text}`")
        })
    )]
    Unanswered {
        /// The file.
        file: PathBuf,
        /// Examples without an answer.
        missing: usize,
        /// All examples.
        of: usize,
        /// What they are: training, second set.
        what: &'static str,
        /// The first of them.
        text: Option<String>,
    },
    /// More rows were left out than the recipe allows.
    #[error(
        "more than {limit} bad rows ({}); the last is {last}\n  \
         raise `task.bad_line_limit` or mend the file",
        counted(counts)
    )]
    TooManyBadRows {
        /// How many rows may be left out.
        limit: u64,
        /// Rows left out, by kind.
        counts: Vec<(&'static str, u64)>,
        /// The row that was one too many.
        last: Box<BadRow>,
    },
    /// A quoted field never closes, so no later row can be told from text.
    #[error(
        "{}:{line}: a quoted field opens here and never closes; \
         if `\"` is ordinary text in this file, set `task.quoting = false`", file.display()
    )]
    UnclosedQuote {
        /// The file.
        file: PathBuf,
        /// Line on which the record begins.
        line: u64,
    },
    /// The operating system could not read the file.
    #[error("cannot read `{}`: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not Parquet, or a damaged one.
    #[error("`{}` cannot be read as Parquet: {reason}; fetch the file again", file.display())]
    Parquet {
        /// The file.
        file: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// A column that the source names is not in the file.
    #[error("`{}` has no column `{column}`; {}", file.display(), alternatives(column, known))]
    NoColumn {
        /// The file.
        file: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns that the file has.
        known: Vec<String>,
    },
    /// A column is given by name, but the file has no header, or by index where only names exist.
    #[error("`{}`: column {column} cannot be found this way: {reason}", file.display())]
    ColumnKind {
        /// The file.
        file: PathBuf,
        /// The column asked for.
        column: String,
        /// What to do instead.
        reason: &'static str,
    },
    /// A file without one usable row.
    #[error("`{}` has no rows{}", file.display(), if *skipped > 0 {
        format!(": all {skipped} were bad")
    } else { String::new() })]
    Empty {
        /// The file.
        file: PathBuf,
        /// Rows left out.
        skipped: u64,
    },
    /// No preset has this name.
    #[error("no data set is called `{name}`; {}", alternatives(name, known))]
    NoPreset {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A folder that holds none of a preset's layouts.
    #[error("`{}` does not hold {preset}: looked for {}", folder.display(), looked_for.join(", "))]
    NoLayout {
        /// The folder.
        folder: PathBuf,
        /// The preset.
        preset: &'static str,
        /// The files looked for.
        looked_for: Vec<String>,
    },
    /// Labels are needed and cannot be made out.
    #[error(
        "the label column has {distinct} different values, more than {limit}; \
             for scores set `task.kind = \"regression\"`, else list them in `task.labels`"
    )]
    TooManyClasses {
        /// Different values seen.
        distinct: usize,
        /// The largest number believed to be classes.
        limit: usize,
    },
    /// A row's label does not belong to the labels given.
    #[error("row of line {line}: label is {found}, expected {expected}")]
    Label {
        /// Line of the row.
        line: u64,
        /// What the row holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// No tokenizer in a folder.
    #[error("`{}` holds no tokenizer: looked for tokenizer.json, vocab.txt", folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// A tokenizer file that cannot be used.
    #[error("`{}` is not a usable tokenizer: {reason}", file.display())]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two vocabularies that cannot be compared token by token.
    #[error(transparent)]
    Vocabulary(#[from] crate::vocabulary::Refused),
    /// The tokenizer refused a text.
    #[error("the tokenizer cannot encode a text: {reason}")]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
    /// Not even the special tokens fit.
    #[error(
        "`max_length = {max_length}` leaves no room for text: \
             the tokenizer adds {special} special tokens"
    )]
    NoRoom {
        /// The longest sequence allowed.
        max_length: usize,
        /// Special tokens added to each sequence.
        special: usize,
    },
    /// A longest sequence that positions cannot count.
    #[error("`max_length = {max_length}` is more than {}", crate::pack::LONGEST_SEQUENCE)]
    TooLong {
        /// The longest sequence asked for.
        max_length: usize,
    },
    /// Text for language models that cannot be used.
    #[error(transparent)]
    Text(Box<TextError>),
    /// The disk, or a folder on it, is not what it should be.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// A teacher cache made from something else.
    #[error(
        "the teacher cache was made with another {what} ({found}, this run has {expected}); \
             delete it, and the next run makes the right one"
    )]
    OtherCache {
        /// What differs.
        what: &'static str,
        /// What the cache holds.
        found: String,
        /// What the run needs.
        expected: String,
    },
    /// A teacher cache that is not whole.
    #[error("the teacher cache is damaged: {0}; delete it, and the next run makes it again")]
    DamagedCache(Damage),
}

/// How a teacher cache is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not a cache at all.
    #[error("it does not begin as a teacher cache does")]
    NotACache,
    /// A header that does not match its own digest, or cannot be read.
    #[error("its header was changed")]
    Header,
    /// A cache of a format that this build does not know.
    #[error("it has format {found}, this build reads format {known}")]
    Version {
        /// The file's format.
        found: u32,
        /// The format this build reads and writes.
        known: u32,
    },
    /// Bytes missing or left over.
    #[error("it has {found} bytes, expected {expected}")]
    Length {
        /// Bytes in the file.
        found: u64,
        /// Bytes that the header announces.
        expected: u64,
    },
    /// A block that does not match its digest.
    #[error(
        "block {block} (examples {first}..{end}) was changed: digest {found}, expected {expected}"
    )]
    Block {
        /// The block.
        block: usize,
        /// Its first example.
        first: usize,
        /// One past its last example.
        end: usize,
        /// Short digest of what is there.
        found: String,
        /// Short digest of what was written.
        expected: String,
    },
    /// A logit that is no finite number.
    #[error("example {example} has a logit that is {value}")]
    NotFinite {
        /// The example.
        example: usize,
        /// The value, as text.
        value: String,
    },
    /// A number of logits that does not fit the shape.
    #[error("{found} logits do not fill [{examples}, {classes}]")]
    Shape {
        /// Logits given.
        found: usize,
        /// Examples announced.
        examples: usize,
        /// Classes announced.
        classes: usize,
    },
}

impl From<TextError> for Error {
    fn from(error: TextError) -> Self {
        Self::Text(Box::new(error))
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl Error {
    /// The exit code of a command that ends with this error: 2 where the recipe is wrong, 3 where
    /// the data is.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoPreset { .. } | Self::NoRoom { .. } | Self::TooLong { .. } => 2,
            Self::Text(error) => error.exit_code(),
            Self::Store(error) => error.exit_code(),
            Self::Vocabulary(refused) => match refused {
                crate::vocabulary::Refused::Unknown { .. } => 3,
                _ => 2,
            },
            _ => 3,
        }
    }

    pub(crate) fn other_cache(what: &'static str, found: Digest, expected: Digest) -> Self {
        Self::OtherCache { what, found: found.short(), expected: expected.short() }
    }
}

/// A row that is not what the source says rows are, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The file.
    pub file: PathBuf,
    /// Line of the file, or row of a Parquet file, from 1.
    pub line: u64,
    /// Character of the line, from 1; `None` where lines have no characters (Parquet).
    pub column: Option<u64>,
    /// What is wrong.
    pub problem: Problem,
    /// The beginning of the line, escaped.
    pub excerpt: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)?;
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        write!(f, ": {}", self.problem)?;
        if !self.excerpt.is_empty() {
            write!(f, "\n  the line begins `{}`", self.excerpt)?;
        }
        Ok(())
    }
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A row with too few or too many fields.
    #[error("{found} field{}, expected {expected}", if *found == 1 { "" } else { "s" })]
    FieldCount {
        /// Fields found.
        found: usize,
        /// Fields expected.
        expected: usize,
    },
    /// A text without a visible character.
    #[error("field `{field}` is empty, expected text")]
    EmptyText {
        /// The field.
        field: String,
    },
    /// Bytes that are not UTF-8.
    #[error(
        "not UTF-8, expected UTF-8 text; set `task.encoding = \"latin-1\"` if the file is older"
    )]
    InvalidUtf8,
    /// A NUL byte.
    #[error("a NUL byte, expected text")]
    Nul,
    /// A line beyond the limit.
    #[error("the line is longer than {limit} bytes, expected one sample per line")]
    LineTooLong {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A line that is not a JSON object.
    #[error("not a JSON object: {reason}")]
    NotJson {
        /// What the parser said.
        reason: String,
    },
    /// A JSON object without the field.
    #[error("field `{field}` is missing; {}", alternatives(field, known))]
    MissingField {
        /// The field.
        field: String,
        /// The fields that the object has.
        known: Vec<String>,
    },
    /// A field that holds nothing.
    #[error("field `{field}` is null, expected {expected}")]
    Null {
        /// The field.
        field: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A field of another type.
    #[error("field `{field}` is {found}, expected {expected}")]
    WrongType {
        /// The field.
        field: String,
        /// What it holds.
        found: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A label that is not in the list.
    #[error("field `{field}` is {found}, expected {expected}")]
    UnknownLabel {
        /// The field.
        field: String,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// A field of a teacher's answer that is not as it should be.
    #[error("`{field}` {reason}")]
    Answer {
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A text that was answered before, otherwise.
    #[error("another answer to the text of line {first}")]
    SecondAnswer {
        /// The line of the first one.
        first: u64,
    },
    /// A label without a visible character.
    #[error(
        "field `{field}` is empty, expected a label; texts without one go into a file of their own, \
             `task.unlabelled`"
    )]
    EmptyLabel {
        /// The field.
        field: String,
    },
    /// Bytes that are not UTF-8, in a file that can only be UTF-8.
    #[error("not UTF-8, expected UTF-8 text; convert the file, as with `iconv -f latin1 -t utf-8`")]
    NotText,
    /// A document beyond the limit.
    #[error("the document is longer than {limit} bytes; part it, as with a separator")]
    DocumentTooLong {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A message of a conversation that is not as it should be.
    #[error("message {number}: {reason}")]
    Message {
        /// Its number, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A conversation that needs a template, where there is none.
    #[error("messages, and no chat template that makes a text of them; name one")]
    NoTemplate,
    /// What the template says about a conversation.
    #[error("the chat template refuses the conversation: {reason}")]
    Template {
        /// What it says.
        reason: String,
    },
    /// A conversation whose beginning a template renders otherwise alone than in the whole.
    #[error(
        "message {number} cannot be found in the rendered conversation: rendered up to there it has \
         {expected:?} at character {character}, rendered further {found:?}; the template rewrites \
         earlier messages, so mark its replies with {{% generation %}}"
    )]
    Prefix {
        /// The message's number, from 1.
        number: usize,
        /// The first character that differs, from 1.
        character: usize,
        /// What the longer rendering has there.
        found: String,
        /// What the shorter one has.
        expected: String,
    },
    /// An example that would teach nothing.
    #[error("nothing to learn: there is no reply of the assistant, or an empty one")]
    NothingLearnt,
    /// A file that is not a JSON list.
    #[error("not a JSON list: {reason}")]
    NotAList {
        /// Why.
        reason: String,
    },
    /// A line without the separator that ends its label.
    #[error("no {separator:?} ends the label, expected `label{separator}text`")]
    NoSeparator {
        /// The separator.
        separator: char,
    },
}

impl Problem {
    /// The name under which rows left out for this reason are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::FieldCount { .. } => "field count",
            Self::EmptyText { .. } => "empty text",
            Self::InvalidUtf8 => "not UTF-8",
            Self::Nul => "NUL byte",
            Self::LineTooLong { .. } => "line too long",
            Self::NotJson { .. } => "not JSON",
            Self::MissingField { .. } => "field missing",
            Self::Null { .. } => "null",
            Self::WrongType { .. } => "wrong type",
            Self::UnknownLabel { .. } => "unknown label",
            Self::Answer { .. } => "answer",
            Self::SecondAnswer { .. } => "second answer",
            Self::EmptyLabel { .. } => "empty label",
            Self::NotText => "not text",
            Self::DocumentTooLong { .. } => "document too long",
            Self::Message { .. } => "message",
            Self::NoTemplate | Self::Template { .. } => "chat template",
            Self::Prefix { .. } => "prefix",
            Self::NothingLearnt => "nothing to learn",
            Self::NotAList { .. } => "not a list",
            Self::NoSeparator { .. } => "no separator",
        }
    }
}

/// Characters of a bad line that a message shows: one line of a terminal.
const EXCERPT_CHARS: usize = 80;

/// The first characters of `line`, escaped so that no control character reaches a terminal.
pub(crate) fn excerpt(line: &[u8]) -> String {
    // Four bytes a character at most, so this prefix holds the whole excerpt.
    let head = &line[..line.len().min(EXCERPT_CHARS * 4)];
    match std::str::from_utf8(head) {
        Ok(text) => text.chars().take(EXCERPT_CHARS).flat_map(shown).collect(),
        Err(error) if error.error_len().is_none() => {
            let text = String::from_utf8_lossy(&head[..error.valid_up_to()]);
            text.chars().take(EXCERPT_CHARS).flat_map(shown).collect()
        }
        Err(_) => head[..head.len().min(EXCERPT_CHARS)].escape_ascii().to_string(),
    }
}

/// Quotes and backslashes are data here, so only what a terminal would act on is escaped.
fn shown(char: char) -> impl Iterator<Item = char> {
    let (plain, escaped) =
        if matches!(char, '"' | '\'' | '\\') { (Some(char), None) } else { (None, Some(char)) };
    plain.into_iter().chain(escaped.into_iter().flat_map(char::escape_debug))
}

/// `did you mean …` or the list, for a name that does not exist.
pub(crate) fn alternatives(name: &str, known: &[String]) -> String {
    match nearest(name, known) {
        Some(other) if other.contains('\t') => {
            format!(
                "its first line has tabs: is it `task.format = \"tsv\"`? It reads {}",
                named(other)
            )
        }
        Some(other) => format!("did you mean {}?", named(other)),
        None if known.is_empty() => "there are none".to_owned(),
        None => format!("there are {}", listed(known)),
    }
}

/// The known name that `name` is likely to stand for.
pub(crate) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    // Below this likeness suggestions have so far been of no use.
    const LIKELY: f64 = 0.8;
    known
        .iter()
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(likeness, _)| *likeness > LIKELY)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, other)| other)
}

/// The first names, and how many more there are.
pub(crate) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| named(name)).collect();
    let more = names.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

/// A name out of a file, short enough and safe for a terminal.
fn named(name: &str) -> String {
    const SHOWN: usize = 40;
    let name: String = name.chars().take(SHOWN).flat_map(shown).collect();
    format!("`{name}`")
}

pub(crate) fn counted(counts: &[(&'static str, u64)]) -> String {
    let parts: Vec<String> =
        counts.iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
    parts.join(", ")
}

/// Wraps an error of the file system.
pub(crate) fn reading(file: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Read { file: file.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_is_one_field() {
        let said = |found| Problem::FieldCount { found, expected: 2 }.to_string();
        assert_eq!([said(1), said(3)], ["1 field, expected 2", "3 fields, expected 2"]);
    }
}
