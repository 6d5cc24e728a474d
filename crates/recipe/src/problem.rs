//! What is wrong with a recipe, and where.
//!
//! In: nothing; the other files push into [`Problems`]. Out: one line per problem, in the order of
//! the text, and a count. Never: stops at the first.

use std::fmt;

/// Where in the recipe a problem lies. The order is the order of reading.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The recipe as a whole.
    Whole,
    /// A line and a column of the file, both counted from 1, columns in characters.
    File {
        /// The line.
        line: u32,
        /// The column.
        column: u32,
    },
    /// An override.
    Set {
        /// Which one, from 0.
        number: usize,
        /// It, as written after `--set`.
        text: String,
    },
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Where it lies.
    pub place: Place,
    /// What it is.
    pub kind: ProblemKind,
}

/// What can be wrong with a recipe; one variant per cause.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The text is longer than any recipe.
    #[error("the recipe has {bytes} bytes, expected at most {limit}; is this the right file?")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest text that is read.
        limit: usize,
    },
    /// There is nothing in the file.
    #[error(
        "the recipe is empty; a small one is: [task] preset = \"sst2\", path = \"…\"; \
         [student] model = \"…\""
    )]
    Empty,
    /// The text is not TOML.
    #[error("not TOML: {message}")]
    Syntax {
        /// What the TOML reader said.
        message: String,
    },
    /// The recipe was written for a later version.
    #[error(
        "`recipe_version` is {found}, this program reads {newest}; use a newer heirloom, or write \
         `recipe_version = {newest}` and see what no longer fits"
    )]
    NewerVersion {
        /// The version in the recipe.
        found: u64,
        /// The newest version known here.
        newest: u64,
    },
    /// `--set` without a key and a value.
    #[error("expected --set key=value, for example --set training.seed=7")]
    SetSyntax,
    /// Two `--set` give the same key.
    #[error("`{key}` is set twice; keep one --set for it")]
    SetTwice {
        /// The key.
        key: String,
    },
    /// `--set a.b=…` where `a` cannot hold keys.
    #[error("`{parent}` is {found}, expected a table or a list that has `{key}`")]
    SetThrough {
        /// What stands where a table must.
        parent: String,
        /// What it is.
        found: String,
        /// The key that was to be set in it.
        key: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}`{}", hint(nearest))]
    UnknownKey {
        /// The key as written, with its section.
        key: String,
        /// The key that was perhaps meant.
        nearest: Option<String>,
    },
    /// A value of another type, or out of range.
    #[error("`{key}` is {found}, expected {expected}{}", hint(nearest))]
    WrongValue {
        /// The key.
        key: String,
        /// The value as a person reads it.
        found: String,
        /// What would be right.
        expected: String,
        /// The value that was perhaps meant.
        nearest: Option<String>,
    },
    /// A key that must be there.
    #[error("`{key}` is missing: {meaning}")]
    Missing {
        /// The key.
        key: String,
        /// What to write and what it says.
        meaning: String,
    },
    /// Keys of which exactly one is wanted, and none is there.
    #[error("one of {} is missing: {meaning}", list(keys))]
    NoneOf {
        /// The keys.
        keys: Vec<String>,
        /// What they decide.
        meaning: String,
    },
    /// Two keys that decide the same thing.
    #[error("`{key}` and `{other}` contradict each other; keep one")]
    Together {
        /// The key at this place.
        key: String,
        /// The other.
        other: String,
    },
    /// A key that only makes sense with another.
    #[error("`{key}` needs {needs}")]
    Needs {
        /// The key at this place.
        key: String,
        /// What it needs.
        needs: String,
    },
    /// A layer that its model does not have.
    #[error("`{key}` names layer {layer} of the {model}, which has layers {first}..={last}")]
    NoSuchLayer {
        /// The key.
        key: String,
        /// The layer.
        layer: u64,
        /// "student", "teacher" or "student's source".
        model: &'static str,
        /// Its first layer.
        first: u64,
        /// Its last layer.
        last: u64,
    },
    /// Heads that do not divide the width.
    #[error("`{key}` is {heads}, which does not divide the {model}'s width {width}; {divisors}")]
    HeadsDoNotDivide {
        /// The key.
        key: String,
        /// The number of heads.
        heads: u64,
        /// Whose width.
        model: &'static str,
        /// The width.
        width: u64,
        /// What would divide, in words.
        divisors: String,
    },
    /// Hidden states of two widths, and no projection between them.
    #[error(
        "`{key}` is false, but the student's hidden states are {student} wide and the teacher's \
         {teacher}; write `projection = true` to learn a map between them"
    )]
    WidthsDiffer {
        /// The key.
        key: String,
        /// The student's width.
        student: u64,
        /// The teacher's width.
        teacher: u64,
    },
    /// No natural map from student layers to teacher layers.
    #[error(
        "`{key}` is missing: the teacher's {teacher} layers are no multiple of the student's \
         {student}; write the pairs, for example [[0, 0], [{student}, {teacher}]]"
    )]
    NoLayerMap {
        /// The key.
        key: String,
        /// The student's layers.
        student: u64,
        /// The teacher's layers.
        teacher: u64,
    },
    /// A teacher that was trained for another number of labels.
    #[error("{}", label_count(*teacher, *task))]
    LabelCount {
        /// The teacher's labels.
        teacher: u64,
        /// The task's labels.
        task: u64,
    },
    /// A teacher whose labels have another order or other names.
    #[error(
        "the teacher's labels are {}, the task's are {}; write `task.labels` in the teacher's order",
        list(teacher),
        list(task)
    )]
    LabelNames {
        /// The teacher's labels.
        teacher: Vec<String>,
        /// The task's labels.
        task: Vec<String>,
    },
    /// Too few labels to tell apart.
    #[error("the training file has {} label{}, expected at least 2", found.len(), named(found))]
    TooFewLabels {
        /// The labels found.
        found: Vec<String>,
    },
    /// Two vocabularies.
    #[error(
        "the teacher knows {teacher} tokens, the student {student}; distillation of a text \
         classifier reads one tokenisation, so take a student with the teacher's tokenizer, or let \
         the teacher read with its own (`tokenizer = \"own\"`){}",
        first_difference(difference)
    )]
    Vocabulary {
        /// The teacher's vocabulary.
        teacher: u64,
        /// The student's vocabulary.
        student: u64,
        /// The first token that differs, in words.
        difference: Option<String>,
    },
    /// Vocabularies of one size with other tokens.
    #[error(
        "teacher and student both know {tokens} tokens, but not the same ones; distillation of a \
         text classifier reads one tokenisation, so take a student with the teacher's tokenizer, or \
         let the teacher read with its own (`tokenizer = \"own\"`){}",
        first_difference(difference)
    )]
    Tokenizer {
        /// The size of both.
        tokens: u64,
        /// The first token that differs, in words.
        difference: Option<String>,
    },
    /// A tokenizer with more tokens than the model has embeddings.
    #[error(
        "the tokenizer knows {tokenizer} tokens, the {model} has embeddings for {embeddings}; they \
         do not belong together"
    )]
    TokenizerTooLarge {
        /// The tokenizer's tokens.
        tokenizer: u64,
        /// "student" or "teacher".
        model: &'static str,
        /// The model's embeddings.
        embeddings: u64,
    },
    /// Inputs longer than a model's positions.
    #[error("`task.max_length` is {length}, the {model} reads at most {longest} tokens")]
    TooLongFor {
        /// The longest input asked for.
        length: u64,
        /// "student" or "teacher".
        model: &'static str,
        /// The longest input of the model.
        longest: u64,
    },
    /// Rows longer than a model's positions.
    #[error(
        "`text.sequence_length` is {length}, the {model} reads at most {longest} tokens; lower it, \
         or take a model with more positions"
    )]
    RowTooLong {
        /// Tokens of a row.
        length: u64,
        /// "student" or "teacher".
        model: &'static str,
        /// The longest text of the model.
        longest: u64,
    },
    /// A teacher with logits for more or fewer words than the student's, of the same tokens.
    #[error(
        "the teacher has logits for {teacher} words, the student for {student}; where ids that stand \
         for no token make the difference, leave them out with `teacher.vocabulary = \"pad\"`"
    )]
    FewerTokens {
        /// Rows of the teacher's head.
        teacher: u64,
        /// Of the student's.
        student: u64,
    },
    /// The same of one of several teachers, of whom nothing can be left out.
    #[error(
        "the teacher has logits for {teacher} words, the student for {student}; each of several teachers \
         needs the student's vocabulary"
    )]
    FewerTokensAmong {
        /// Rows of the teacher's head.
        teacher: u64,
        /// Of the student's.
        student: u64,
    },
    /// A teacher of a language model that reads other tokens.
    #[error(
        "the teacher's tokenizer knows {teacher} tokens, the student's {student}, and they are not \
         the same; take a student with the teacher's tokenizer{}",
        first_difference(difference)
    )]
    OtherTokens {
        /// The teacher's vocabulary.
        teacher: u64,
        /// The student's.
        student: u64,
        /// The first token that differs, in words.
        difference: Option<String>,
    },
    /// A model that is not of the kind the recipe trains.
    #[error("{model} is {found}, but `text.kind = \"{kind}\"` trains {wanted}")]
    NotTheKind {
        /// "the student" or "the teacher".
        model: &'static str,
        /// "an encoder" or "a decoder".
        found: &'static str,
        /// `causal` or `masked`.
        kind: &'static str,
        /// "decoders" or "encoders".
        wanted: &'static str,
    },
    /// Less data than one step needs.
    #[error(
        "one step needs {batch} {unit}, the training set has {train}; lower `{key}` or bring more \
         data"
    )]
    LessThanOneBatch {
        /// The key that sets the size.
        key: &'static str,
        /// One step's size.
        batch: u64,
        /// "examples" or "tokens".
        unit: &'static str,
        /// What there is.
        train: u64,
    },
    /// More sequences in a step than can be told apart.
    #[error(
        "`{key}` gives steps of {sequences} sequences, expected at most {most}, as dropout numbers \
         the sequences of a step with 16 bits; lower it and take more steps"
    )]
    BatchTooLarge {
        /// The key that sets the size.
        key: &'static str,
        /// One step's sequences.
        sequences: u64,
        /// The most there may be.
        most: u64,
    },
    /// A set without an example.
    #[error("the {set} set has no example; check `{key}` and the file it names")]
    NoExamples {
        /// "training" or "validation".
        set: &'static str,
        /// The key that names it.
        key: &'static str,
    },
    /// A fact that the caller did not gather.
    #[error("nothing is known about `{what}`; it must be read before a plan can be made")]
    Unknown {
        /// What was not looked at.
        what: String,
    },
    /// A run longer than can be counted or scheduled.
    #[error("`{key}` gives {steps} steps, expected at most {most}")]
    TooManySteps {
        /// The key.
        key: &'static str,
        /// The steps it asks for.
        steps: u64,
        /// The most there may be.
        most: u64,
    },
}

/// All problems of one recipe, in the order of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Problems {
    file: String,
    problems: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), problems: Vec::new() }
    }

    pub(crate) fn push(&mut self, place: Place, kind: ProblemKind) {
        self.problems.push(Problem { place, kind });
    }

    /// `Ok(value)` where nothing was wrong; else all problems in the order of the text.
    pub(crate) fn or<T>(mut self, value: Option<T>) -> Result<T, Self> {
        // A key that is there with a wrong value is not missing as well.
        let wrong: Vec<String> = self.problems.iter().filter_map(wrong_key).collect();
        let is_wrong = |key: &String| wrong.iter().any(|wrong| is_at_or_below(key, wrong));
        self.problems.retain(|problem| match &problem.kind {
            ProblemKind::Missing { key, .. } => !is_wrong(key),
            ProblemKind::NoneOf { keys, .. } => !keys.iter().any(is_wrong),
            _ => true,
        });
        self.problems.sort_by(|a, b| a.place.cmp(&b.place));
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// Whether `key` is there with a wrong value.
    pub(crate) fn is_wrong(&self, key: &str) -> bool {
        self.problems.iter().filter_map(wrong_key).any(|wrong| wrong == key)
    }

    /// The problems, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// The exit code of a command that met them: 2, the recipe cannot work.
    pub fn exit_code(&self) -> u8 {
        2
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Problem { place, kind } in &self.problems {
            let line = match place {
                Place::Whole => format!("{}: {kind}", self.file),
                Place::File { line, column } => format!("{}:{line}:{column}: {kind}", self.file),
                Place::Set { text, .. } => format!("--set {}: {kind}", shortened(text)),
            };
            // A name may hold a line break; a problem is one line all the same.
            for character in line.chars() {
                match character {
                    control if control.is_control() => write!(f, "{}", control.escape_default())?,
                    character => write!(f, "{character}")?,
                }
            }
            writeln!(f)?;
        }
        match self.problems.len() {
            1 => write!(f, "1 problem"),
            count => write!(f, "{count} problems"),
        }
    }
}

impl std::error::Error for Problems {}

/// The text, cut where it would drown the message.
fn shortened(text: &str) -> String {
    /// Characters of an override that are repeated.
    const MOST: usize = 40;
    let shown: String = text.chars().take(MOST).collect();
    if shown.len() < text.len() { format!("{shown}…") } else { shown }
}

fn is_at_or_below(key: &str, other: &str) -> bool {
    key.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn wrong_key(problem: &Problem) -> Option<String> {
    match &problem.kind {
        ProblemKind::WrongValue { key, .. } => Some(key.clone()),
        _ => None,
    }
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

fn first_difference(difference: &Option<String>) -> String {
    difference.as_ref().map_or_else(String::new, |words| format!(" ({words})"))
}

fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn named(names: &[String]) -> String {
    match names {
        [] => "s".to_owned(),
        names => format!(" ({})", list(names)),
    }
}

/// The candidate nearest to `written`, where one is near enough to be meant.
pub(crate) fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    // Distances are quadratic in length; nobody means a known name by two hundred letters.
    if written.len() > 200 {
        return None;
    }
    candidates
        .into_iter()
        .map(|name| (strsim::jaro_winkler(written, name), name))
        .filter(|(likeness, _)| *likeness > 0.83)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

/// What is said of a teacher with `teacher` labels where the task has `task`.
fn label_count(teacher: u64, task: u64) -> String {
    match teacher {
        0 => format!(
            "the teacher is an encoder without a classifier, and cannot teach the task's {task} labels; \
             train it on them first, as a student, and name its `best/`"
        ),
        _ => format!(
            "the teacher tells {teacher} labels apart, the task has {task}; it was trained for another \
             task, or `task.labels` is incomplete"
        ),
    }
}
