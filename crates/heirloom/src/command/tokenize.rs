//! `heirloom tokenize`: text in, kept tokens out, and what a person should know of them.

use std::path::{Path, PathBuf};

use heirloom::failure::Failure;
use heirloom::places::Places;
use heirloom_base::Bytes;
use heirloom_data::text::{
    ChatTemplate, Corpus, Counts, Reading, Separator, Shape, Shards, TextFormat, measure, write,
};
use heirloom_data::tokens::Tokenizer;
use heirloom_store::RealDisk;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::args::{TextArgs, TextFormat as Format, TokenizeArgs};
use crate::show::Show;

pub(crate) fn run(args: &TokenizeArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    use_threads(threads);
    let folder = places().model("--tokenizer", &args.tokenizer.to_string_lossy())?;
    let tokenizer = Tokenizer::open(&folder)?;
    let reading = reading(args, &tokenizer)?;
    if let (None, Some(end), Shape::Text { .. }) =
        (&reading.end, tokenizer.named("eos_token"), &reading.shape)
    {
        show.say(&format!(
            "note: nothing ends a document; the tokenizer has {end:?}: --end {end:?}"
        ));
    }
    let corpus = Corpus::open(&files(&args.text)?, reading)?;
    let bar = Reader::new(&corpus, show);
    let mut heard = |counts: &Counts| bar.at(counts.bytes);
    let out = args.out.as_deref().filter(|_| !args.dry_run);
    let (counts, shards) = match out {
        None => (measure(&corpus, &tokenizer, &mut heard)?, None),
        Some(out) => {
            let shards = write(&RealDisk, out, &corpus, &tokenizer, &mut heard)?;
            (shards.about().counts, Some(shards))
        }
    };
    drop(bar);
    say(&corpus, &counts, shards.as_ref().zip(out), show);
    Ok(0)
}

fn say(corpus: &Corpus, counts: &Counts, written: Option<(&Shards, &Path)>, show: Show) {
    let per_byte = counts.text_tokens as f64 / counts.bytes as f64;
    if show.json {
        show.json(&json!({
            "files": corpus.sources().len(),
            "counts": counts,
            "tokens_per_byte": per_byte,
            "unknown_share": unknown_share(counts),
            "out": written.map(|(_, folder)| folder),
            "tokens": written.map(|(shards, _)| shards.about().content),
        }));
        return;
    }
    let empty = match counts.empty {
        0 => String::new(),
        empty => format!(", besides {} empty ones", grouped(empty)),
    };
    let mut text = format!(
        "{} in {}{empty}: {} of text\n{}\n",
        plural(counts.documents, "document"),
        plural(corpus.sources().len() as u64, "file"),
        Bytes(counts.bytes),
        summary(counts),
    );
    if counts.learnt < counts.tokens {
        let share = 100.0 * counts.learnt as f64 / counts.tokens as f64;
        let learnt = grouped(counts.learnt);
        text += &format!(
            "to be learnt: {learnt} of {} tokens ({share:.1} %)\n",
            grouped(counts.tokens)
        );
    }
    if let Some((shards, folder)) = written {
        let bytes = counts.tokens * u64::from(shards.about().id_bytes + 1);
        text += &format!("wrote `{}` ({})\n", folder.display(), Bytes(bytes));
    }
    show.data(&text);
}

/// Tokens, tokens per byte, and how many are unknown, in words.
pub(super) fn summary(counts: &Counts) -> String {
    let per_byte = counts.text_tokens as f64 / counts.bytes as f64;
    let around = counts.tokens - counts.text_tokens;
    let around = match around {
        0 => String::new(),
        around => format!(" and {} around documents", grouped(around)),
    };
    format!(
        "{} tokens of text{around}: {per_byte:.4} per byte, {:.2} bytes each; {} unknown ({:.3} %)",
        grouped(counts.text_tokens),
        1.0 / per_byte,
        grouped(counts.unknown),
        100.0 * unknown_share(counts),
    )
}

fn unknown_share(counts: &Counts) -> f64 {
    counts.unknown as f64 / counts.text_tokens as f64
}

/// How files are read.
fn reading(args: &TokenizeArgs, tokenizer: &Tokenizer) -> Result<Reading, Failure> {
    let shape = match (&args.messages, &args.prompt, &args.completion) {
        (Some(field), ..) => Shape::Messages { field: field.clone() },
        (_, Some(prompt), Some(completion)) => {
            Shape::Completion { prompt: prompt.clone(), completion: completion.clone() }
        }
        _ if args.alpaca => Shape::alpaca(),
        _ => Shape::Text { field: args.text.field.clone() },
    };
    let needs_one = matches!(shape, Shape::Messages { .. } | Shape::Instruction { .. });
    let template = match &args.template {
        Some(named) => Some(template(named, tokenizer)?),
        None if needs_one => Some(ChatTemplate::of(tokenizer)?),
        None => None,
    };
    let template = template.map(|template| match &args.date {
        Some(date) => template.on(date),
        None => template,
    });
    let (begin, end) = (args.begin.clone(), args.end.clone());
    Ok(Reading { shape, begin, end, template, ..plain(&args.text) })
}

/// A template in a file, or one that comes with the program.
fn template(named: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate, Failure> {
    let file = Path::new(named);
    if !file.is_file() {
        return Ok(ChatTemplate::named(named, tokenizer)?);
    }
    let source = std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("cannot read the chat template `{named}`: {error}"))
    })?;
    Ok(ChatTemplate::new(source, tokenizer))
}

/// How files of plain text, or of one field, are read.
pub(super) fn plain(args: &TextArgs) -> Reading {
    let format = args.format.map(|format| match format {
        Format::Plain => TextFormat::Plain,
        Format::Jsonl => TextFormat::Jsonl,
        Format::Json => TextFormat::Json,
        Format::Parquet => TextFormat::Parquet,
    });
    let separator = match args.separator.as_str() {
        "file" => Separator::File,
        "blank-line" => Separator::BlankLine,
        marker => Separator::Marker(marker.to_owned()),
    };
    let shape = Shape::Text { field: args.field.clone() };
    Reading { format, separator, shape, ..Reading::plain() }
}

/// The files, found as a recipe's are.
pub(super) fn files(args: &TextArgs) -> Result<Vec<PathBuf>, Failure> {
    let places = places();
    args.files.iter().map(|file| places.data("FILES", &file.to_string_lossy())).collect()
}

fn places() -> Places {
    Places::from_environment()
}

/// Text is tokenised on this many threads.
pub(super) fn use_threads(threads: usize) {
    // A pool that is there already is the right one: the command has asked for it once.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// A bar that says how much of the text was read.
pub(super) struct Reader(Option<ProgressBar>);

impl Reader {
    pub(super) fn new(corpus: &Corpus, show: Show) -> Self {
        let total = corpus.sources().iter().map(|source| source.bytes).sum();
        Self(show.has_terminal().then(|| {
            let template = "{bar:24} {bytes}/{total_bytes} · {eta} left";
            let style = ProgressStyle::with_template(template).expect("a fixed template");
            ProgressBar::new(total).with_style(style.progress_chars("━╸ "))
        }))
    }

    /// Says how many bytes were read. Files hold more than their text, so the bar may end before.
    pub(super) fn at(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// `1 file`, `2 files`.
pub(super) fn plural(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A number with its thousands apart: `8,123,456`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let rows = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (number, want) in rows {
            assert_eq!(grouped(number), want);
        }
        assert_eq!(plural(1, "file") + &plural(2000, "file"), "1 file2,000 files");
    }
}
