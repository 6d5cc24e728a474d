//! Flags of the commands that read text for language models.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Files of text, and how they are read.
#[derive(Debug, Args)]
pub(crate) struct TextArgs {
    /// Files and folders of text (.txt, .md, .jsonl, .ndjson, .json, .parquet), here or below
    /// HEIRLOOM_DATA
    #[arg(required = true, value_name = "FILES")]
    pub(crate) files: Vec<PathBuf>,
    /// How files are read; default: as their names say
    #[arg(long, value_enum)]
    pub(crate) format: Option<TextFormat>,
    /// What parts the documents of plain text: `file`, `blank-line`, or the line between them
    #[arg(long, default_value = "file", value_name = "WHAT")]
    pub(crate) separator: String,
    /// The field that holds the text, where files have fields
    #[arg(long, default_value = "text", value_name = "NAME")]
    pub(crate) field: String,
}

/// Formats of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextFormat {
    /// Plain text
    Plain,
    /// One JSON object a line
    Jsonl,
    /// A JSON list of objects
    Json,
    /// Apache Parquet
    Parquet,
}

/// What `tokenize` takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
heirloom tokenize --tokenizer gpt2 --end '<|endoftext|>' --out kept text/novels\n  \
heirloom tokenize --tokenizer gpt2 --separator '<|endoftext|>' --out kept stories.txt\n  \
heirloom tokenize --tokenizer gpt2 --alpaca --template alpaca --out kept alpaca.json\n  \
heirloom tokenize --tokenizer gpt2 --prompt question --completion answer --out kept gsm8k.jsonl")]
pub(crate) struct TokenizeArgs {
    #[command(flatten)]
    pub(crate) text: TextArgs,
    /// A folder with a tokenizer, here or below HEIRLOOM_MODELS or HEIRLOOM_DATA
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer: PathBuf,
    /// Folder for the tokens; new or empty
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    pub(crate) out: Option<PathBuf>,
    /// A special token before each document
    #[arg(long, value_name = "TOKEN")]
    pub(crate) begin: Option<String>,
    /// A special token after each document
    #[arg(long, value_name = "TOKEN")]
    pub(crate) end: Option<String>,
    /// Documents are conversations: the field with the list of messages
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["alpaca", "prompt"])]
    pub(crate) messages: Option<String>,
    /// Documents are the fields instruction, input and output
    #[arg(long, conflicts_with = "prompt")]
    pub(crate) alpaca: bool,
    /// The field with what is given, where documents have that and what is to follow
    #[arg(long, value_name = "FIELD", requires = "completion")]
    pub(crate) prompt: Option<String>,
    /// The field with what is to follow
    #[arg(long, value_name = "FIELD", requires = "prompt")]
    pub(crate) completion: Option<String>,
    /// Chat template: `chatml`, `alpaca`, or a file; default: the tokenizer's, where there are
    /// messages
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) template: Option<String>,
    /// The date, for templates that say it
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(crate) date: Option<String>,
    /// Count, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What `tokenizer train` takes.
#[derive(Debug, Args)]
pub(crate) struct TokenizerTrainArgs {
    #[command(flatten)]
    pub(crate) text: TextArgs,
    /// How text is taken apart
    #[arg(long, value_enum)]
    pub(crate) kind: TokenizerKind,
    /// Tokens of the vocabulary, with the special ones
    #[arg(long, value_name = "N")]
    pub(crate) vocab_size: usize,
    /// Folder for the tokenizer; new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How often a pair must occur to become a token
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) min_frequency: u64,
    /// WordPiece: keep capitals and accents
    #[arg(long)]
    pub(crate) cased: bool,
    /// A special token besides those of the kind, as <|im_start|> (repeatable)
    #[arg(long, value_name = "TOKEN")]
    pub(crate) special: Vec<String>,
}

/// Kinds of tokenizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenizerKind {
    /// Byte pairs as GPT-2: any text can be written
    Bpe,
    /// Words and their pieces as BERT
    Wordpiece,
}
