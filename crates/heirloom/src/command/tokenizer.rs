//! `heirloom tokenizer train`: text in, a tokenizer's folder out.

use heirloom::failure::Failure;
use heirloom_base::Bytes;
use heirloom_data::text::{Corpus, Counts, measure};
use heirloom_data::tokens::{TokenizerKind, Training, train};
use heirloom_store::{About, Draft, RealDisk, new_folder};
use serde_json::json;

use super::tokenize::{Reader, files, grouped, plain, plural, summary, use_threads};
use crate::args::{TokenizerArgs, TokenizerCommand, TokenizerKind as Kind, TokenizerTrainArgs};
use crate::show::Show;

pub(crate) fn run(args: &TokenizerArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    use_threads(threads);
    match &args.what {
        TokenizerCommand::Train(args) => run_train(args, show),
    }
}

fn run_train(args: &TokenizerTrainArgs, show: Show) -> Result<u8, Failure> {
    // Looked at first: nobody wants to hear after the work that there is no room for it.
    if args.out.exists() {
        new_folder(&RealDisk, &args.out)?;
    }
    let corpus = Corpus::open(&files(&args.text)?, plain(&args.text))?;
    let text = corpus.sources().iter().map(|source| source.bytes).sum();
    let found = plural(corpus.sources().len() as u64, "file");
    show.say(&format!("training on {found}, {}", Bytes(text)));
    let training = Training {
        kind: match args.kind {
            Kind::Bpe => TokenizerKind::Bpe,
            Kind::Wordpiece => TokenizerKind::WordPiece { lowercase: !args.cased },
        },
        vocab_size: args.vocab_size,
        min_frequency: args.min_frequency,
        special: args.special.clone(),
    };
    let bar = Reader::new(&corpus, show);
    let tokenizer = train(&corpus, &training, &mut |bytes| bar.at(bytes))?;
    drop(bar);
    let bar = Reader::new(&corpus, show);
    let counts = measure(&corpus, &tokenizer, &mut |counts: &Counts| bar.at(counts.bytes))?;
    drop(bar);

    new_folder(&RealDisk, &args.out)?;
    let size = tokenizer.files().values().map(|bytes| bytes.len() as u64).sum();
    let mut draft = Draft::begin(&RealDisk, &args.out, Bytes(size))?;
    for (name, bytes) in tokenizer.files() {
        draft.put(name, bytes)?;
    }
    draft.commit(About::default())?;

    let vocabulary = tokenizer.vocab_size();
    if vocabulary < args.vocab_size {
        show.say(&format!(
            "note: the text has no more than {} tokens whose parts occur {} times together",
            grouped(vocabulary as u64),
            args.min_frequency,
        ));
    }
    if show.json {
        show.json(&json!({
            "vocab_size": vocabulary,
            "digest": tokenizer.digest(),
            "counts": counts,
            "tokens_per_byte": counts.text_tokens as f64 / counts.bytes as f64,
            "out": args.out,
        }));
    } else {
        let tokens = grouped(vocabulary as u64);
        let special: Vec<String> = tokenizer.special_tokens().into_values().collect();
        show.data(&format!(
            "{tokens} tokens, special: {}\non this text: {}\nwrote `{}`\n",
            special.join(" "),
            summary(&counts),
            args.out.display(),
        ));
    }
    Ok(0)
}
