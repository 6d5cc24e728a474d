//! The rows that a plan's text comes to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use heirloom_base::Digest;
use heirloom_data::text::{
    ChatTemplate, Corpus, OnLong, Pack, PackedRows, PairedRows, Reading, Rows, Separator, Shape,
    Shards, TextFormat, files, find_or_write,
};
use heirloom_data::tokens::Tokenizer;
use heirloom_recipe::{DocumentShape, Documents, Limit, Packing, Split, TextKind, TextPlan};
use heirloom_store::RealDisk;

use super::limited::first;
use crate::failure::Failure;
use crate::gather::SPLIT_SEED;

/// Where the tokens of texts lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTokens {
    /// Where they are looked for, and where new ones are kept if nothing else is said.
    pub at: PathBuf,
    /// Where new ones are kept.
    pub new: Option<PathBuf>,
}

impl KeptTokens {
    /// Beside the run folder `dir`, shared by all runs there; the seeds of one recipe lie one level
    /// deeper.
    pub fn beside(dir: &Path) -> Self {
        let seed = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"));
        let run = if seed { dir.parent().unwrap_or(dir) } else { dir };
        Self { at: run.parent().unwrap_or(Path::new(".")).join("tokens"), new: None }
    }

    /// The folder for those with this key.
    fn folder(&self, key: heirloom_base::Digest) -> &Path {
        match &self.new {
            Some(new) if !self.at.join(format!("tokens-{}", key.short())).exists() => new,
            _ => &self.at,
        }
    }
}

/// A text that was opened.
pub struct OpenedText {
    /// The plan's text, with the token that ends a document as it was found.
    pub text: TextPlan,
    /// What is trained on.
    pub train: Arc<dyn Rows>,
    /// What is evaluated on, where there is something.
    pub validation: Option<Arc<dyn Rows>>,
    /// What a person should hear of them.
    pub notes: Vec<String>,
    /// Digest of the chat template that the text came through, with what it may ask for.
    pub template: Option<Digest>,
}

impl std::fmt::Debug for OpenedText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedText").field("text", &self.text).finish_non_exhaustive()
    }
}

/// Opens the files of `text` in `folder`, as rows of tokens of `tokenizer`, which lie where `kept`
/// says.
///
/// # Errors
/// Where a file is not there or not what it should be, and where the disk says no.
pub fn open_text(
    mut text: TextPlan,
    folder: &Path,
    tokenizer: &Tokenizer,
    kept: &KeptTokens,
) -> Result<OpenedText, Failure> {
    if text.end.is_none() {
        text.end = Some(match text.shape {
            DocumentShape::Text => end_of(tokenizer).unwrap_or_default(),
            // A chat template or a reply's format ends a document itself.
            _ => String::new(),
        });
    }
    if text.begin.is_none() {
        let cls = tokenizer.special().cls.filter(|_| text.kind == TextKind::Masked);
        text.begin = Some(cls.and_then(|id| tokenizer.token(id)).unwrap_or_default().to_owned());
    }
    let (train, validation) = chosen(&text, folder)?;
    let template = template(&text, folder, tokenizer)?;
    let shards = |paths: &[PathBuf]| -> Result<Arc<Shards>, Failure> {
        let corpus = Corpus::open(paths, reading(&text, template.clone()))?;
        let kept = kept.folder(corpus.key(tokenizer));
        Ok(Arc::new(find_or_write(&RealDisk, kept, &corpus, tokenizer, &mut |_| ())?.0))
    };
    let mut notes = Vec::new();
    let mut rows = |set: &str, shards: &Arc<Shards>, selection, limit: Limit| {
        let length = text.sequence_length as usize;
        let rows = PackedRows::new(Arc::clone(shards), &selection, pack(&text), length)?;
        let long = rows.long();
        if long.documents > 0 {
            notes.push(format!(
                "{} of the {set} documents are longer than sequence_length = {length}: {} tokens \
                 are left out",
                long.documents, long.tokens
            ));
        }
        let rows: Arc<dyn Rows> = Arc::new(rows);
        Ok::<_, Failure>(match limit {
            Limit::All => rows,
            Limit::First(count) => first(rows, count),
        })
    };
    let of_training = shards(&train)?;
    let (train, held) = match text.validation_split {
        Split::Nothing => (of_training.all(), None),
        Split::Share(share) => {
            let (train, held) = of_training.split(SPLIT_SEED, share)?;
            (train, Some(held))
        }
    };
    let train = rows("training", &of_training, train, text.train_limit)?;
    let validation = match (held, validation.as_slice()) {
        (Some(held), _) => Some(rows("validation", &of_training, held, text.validation_limit)?),
        (None, []) => None,
        (None, files) => {
            let shards = shards(files)?;
            Some(rows("validation", &shards, shards.all(), text.validation_limit)?)
        }
    };
    let template = template
        .as_ref()
        .map(|template| Digest::of(&serde_json::to_vec(template).expect("a template is text")));
    Ok(OpenedText { text, train, validation, notes, template })
}

/// The training text in the tokens of both models, in rows of at most so many tokens of each.
///
/// # Errors
/// As [`open_text`].
pub(super) fn open_pairs(
    text: &TextPlan,
    folder: &Path,
    tokenizers: [&Tokenizer; 2],
    teacher_length: u64,
) -> Result<PairedRows, Failure> {
    let (train, _) = chosen(text, folder)?;
    let template = template(text, folder, tokenizers[0])?;
    let corpus = Corpus::open(&train, reading(text, template))?;
    let lengths = [text.sequence_length as usize, teacher_length as usize];
    Ok(PairedRows::build(&corpus, tokenizers, lengths)?)
}

/// What of `text` is evaluated on, without reading more than that needs.
///
/// # Errors
/// As [`open_text`], and where it says nothing to evaluate on.
pub fn open_validation(
    text: TextPlan,
    folder: &Path,
    tokenizer: &Tokenizer,
    kept: &KeptTokens,
) -> Result<Arc<dyn Rows>, Failure> {
    let alone = match (text.validation_split, text.validation.is_empty()) {
        (Split::Nothing, false) => TextPlan {
            train: text.validation.clone(),
            train_limit: text.validation_limit,
            validation: Vec::new(),
            ..text
        },
        (Split::Nothing, true) => {
            return Err(Failure::usage(
                "the recipe holds nothing out to evaluate on; name files in `text.validation`, or \
                 on the command line with --text",
            ));
        }
        (Split::Share(_), _) => {
            let opened = open_text(text, folder, tokenizer, kept)?;
            return Ok(opened.validation.expect("a share is held out"));
        }
    };
    Ok(open_text(alone, folder, tokenizer, kept)?.train)
}

/// The files to train and to evaluate on. A name that is not in the folder is refused with the nearest
/// that is.
fn chosen(text: &TextPlan, folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Failure> {
    let named = |names: &[String]| -> Result<Vec<PathBuf>, Failure> {
        let path = |name: &String| {
            let path = folder.join(name);
            if path.exists() { Ok(path) } else { Err(crate::opened::not_there(name, folder)) }
        };
        names.iter().map(path).collect()
    };
    let validation = named(&text.validation)?;
    let train = match text.train.as_slice() {
        [] if folder.is_file() => vec![folder.to_owned()],
        [] => {
            let mut all = files(&[folder.to_owned()])?;
            all.retain(|file| !validation.contains(file));
            if all.is_empty() {
                return Err(Failure::usage(format!(
                    "`{}` holds no file besides those of `text.validation`; name some in \
                     `text.train`, or hold a share out with `text.validation_split`",
                    folder.display()
                )));
            }
            all
        }
        names => named(names)?,
    };
    if let Some(both) = validation.iter().find(|file| train.contains(file)) {
        return Err(Failure::usage(format!(
            "`{}` is in both `text.train` and `text.validation`; keep it in one",
            both.display()
        )));
    }
    Ok((train, validation))
}

/// The token that the tokenizer's files say ends a text.
fn end_of(tokenizer: &Tokenizer) -> Option<String> {
    let sep = tokenizer.special().sep.and_then(|id| tokenizer.token(id));
    tokenizer.named("eos_token").or_else(|| sep.map(str::to_owned))
}

/// The chat template of examples with a reply; a completion may do without.
fn template(
    text: &TextPlan,
    folder: &Path,
    tokenizer: &Tokenizer,
) -> Result<Option<ChatTemplate>, Failure> {
    let template = match (text.template.as_deref(), text.shape) {
        (_, DocumentShape::Text) | (None, DocumentShape::Completion) => return Ok(None),
        (Some(name), _) if folder.join(name).is_file() => {
            let file = folder.join(name);
            let source = std::fs::read_to_string(&file).map_err(|error| {
                Failure::input(format!("cannot read `{}`: {error}", file.display()))
            })?;
            ChatTemplate::new(source, tokenizer)
        }
        (Some(name), _) => ChatTemplate::named(name, tokenizer)?,
        (None, DocumentShape::Messages) => ChatTemplate::of(tokenizer)?,
        (None, DocumentShape::Instruction) => match tokenizer.chat_template() {
            Some(_) => ChatTemplate::of(tokenizer)?,
            None => ChatTemplate::named("alpaca", tokenizer)?,
        },
    };
    Ok(Some(if text.date.is_empty() { template } else { template.on(&text.date) }))
}

fn reading(text: &TextPlan, template: Option<ChatTemplate>) -> Reading {
    let some = |token: &str| (!token.is_empty()).then(|| token.to_owned());
    Reading {
        format: text.format.map(|format| match format {
            heirloom_recipe::TextFormat::Plain => TextFormat::Plain,
            heirloom_recipe::TextFormat::Jsonl => TextFormat::Jsonl,
            heirloom_recipe::TextFormat::Json => TextFormat::Json,
            heirloom_recipe::TextFormat::Parquet => TextFormat::Parquet,
        }),
        separator: match text.documents {
            Documents::File => Separator::File,
            Documents::BlankLine => Separator::BlankLine,
            Documents::Marker => Separator::Marker(text.marker.clone()),
        },
        shape: match text.shape {
            DocumentShape::Text => Shape::Text { field: text.field.clone() },
            DocumentShape::Messages => Shape::Messages { field: text.field.clone() },
            DocumentShape::Instruction => Shape::alpaca(),
            DocumentShape::Completion => Shape::Completion {
                prompt: "prompt".to_owned(),
                completion: "completion".to_owned(),
            },
        },
        template,
        begin: text.begin.as_deref().and_then(some),
        end: text.end.as_deref().and_then(some),
    }
}

fn pack(text: &TextPlan) -> Pack {
    let on_long = match text.on_long {
        heirloom_recipe::OnLong::Cut => OnLong::Cut,
        heirloom_recipe::OnLong::Drop => OnLong::Drop,
        heirloom_recipe::OnLong::Error => OnLong::Error,
    };
    match (text.shape, text.pack) {
        (DocumentShape::Text, Packing::Documents) => Pack::Documents,
        (DocumentShape::Text, Packing::Stream) => Pack::Stream,
        _ => Pack::Whole { on_long },
    }
}
