//! The rows that a plan's text comes to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use heirloom_data::text::{
    Corpus, OnLong, Pack, PackedRows, Reading, Rows, Separator, Shape, Shards, TextFormat, files,
    find_or_write,
};
use heirloom_data::tokens::Tokenizer;
use heirloom_recipe::{DocumentShape, Documents, Limit, Packing, Split, TextPlan};
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
    let (train, validation) = chosen(&text, folder)?;
    let shards = |paths: &[PathBuf]| -> Result<Arc<Shards>, Failure> {
        let corpus = Corpus::open(paths, reading(&text))?;
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
    Ok(OpenedText { text, train, validation, notes })
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
    tokenizer.named("eos_token").or_else(|| tokenizer.named("sep_token")).map(str::to_owned)
}

fn reading(text: &TextPlan) -> Reading {
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
        begin: some(&text.begin),
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
