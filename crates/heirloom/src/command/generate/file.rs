//! Prompts of a file, continued a batch at a time into a file of prompts and completions.
//!
//! In: prompts, one on each line. Out: a line for each, in their order: data to train on. Never: a
//! file made with two models or two ways of drawing. Which model and words a file is made with stands
//! beside it, in `FILE.made-with.json`, and a run that would go on otherwise is refused. A text's random
//! words have the address of its prompt's line, and batches begin where they would have begun, so a
//! file that was stopped and continued is that of one run.

use std::path::{Path, PathBuf};

use heirloom::failure::Failure;
use heirloom::opened::weights_digest;
use heirloom_base::Digest;
use heirloom_data::tokens::Tokenizer;
use heirloom_engine::Cpu;
use heirloom_models::{DecoderConfig, Generate, GenerateRoom, Generator, Sampling, Stopped};
use heirloom_store::{Disk, Log, RealDisk};
use serde::Serialize;
use serde_json::{Value, json};

use super::{encode, load, why};
use crate::show::Show;

/// What is asked of which model.
pub(super) struct Asked<'a> {
    pub(super) folder: &'a Path,
    pub(super) config: DecoderConfig,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) ask: &'a Generate,
    /// Prompts at a time.
    pub(super) batch: usize,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    prompt: &'a str,
    completion: String,
    stopped: &'static str,
}

/// What was done.
#[derive(Serialize)]
struct Done {
    file: String,
    prompts: usize,
    /// Of them there before.
    already: usize,
}

pub(super) fn run(
    asked: Asked<'_>,
    prompts: &Path,
    into: &Path,
    threads: usize,
    show: Show,
) -> Result<u8, Failure> {
    let Asked { folder, config, tokenizer, ask, batch } = asked;
    let texts = read(prompts)?;
    let all: Vec<Vec<u32>> = (1..)
        .zip(&texts)
        .map(|(line, text)| {
            encode(text, tokenizer, &config, ask.new_tokens).map_err(|failure| Failure {
                message: format!("{}:{line}: {}", prompts.display(), failure.message),
                ..failure
            })
        })
        .collect::<Result<_, _>>()?;
    let made_with = json!({
        "weights": weights_digest(folder)?.to_string(),
        "tokenizer": tokenizer.digest().to_string(),
        "prompts": Digest::of(texts.join("\n").as_bytes()).to_string(),
        "new_tokens": ask.new_tokens,
        "stop": ask.stop,
        "sampling": said(ask.sampling),
        "batch": batch,
    });
    let disk = RealDisk;
    let mut log = open(&disk, into, &made_with)?;
    // A batch that is not whole is made again: it is then the one that it would have been.
    let ends = line_ends(&disk, into)?;
    let already = if ends.len() >= all.len() { all.len() } else { ends.len() / batch * batch };
    let kept = already.checked_sub(1).map_or(0, |last| ends[last]);
    if log.len() > kept {
        log.truncate_to(kept)?;
    }

    if already < all.len() {
        let mut device = Cpu::new(threads);
        let model = load(&mut device, config, folder, show)?;
        let rest = &all[already..];
        let room = GenerateRoom {
            sequences: batch.min(rest.len()),
            prompt_tokens: rest.chunks(batch).map(|part| part.concat().len()).max().unwrap_or(0),
            length: rest.iter().map(Vec::len).max().unwrap_or(0) + ask.new_tokens,
        };
        let mut generator = Generator::new(&model, &mut device, room);
        for first in (already..all.len()).step_by(batch) {
            let end = all.len().min(first + batch);
            let addresses: Vec<u64> = (first as u64..end as u64).collect();
            let part = &all[first..end];
            let written = generator.generate(&model, &mut device, part, &addresses, ask);
            for ((prompt, tokens), text) in texts[first..end].iter().zip(part).zip(&written) {
                // A token that ends a text is not part of what it says.
                let ended = usize::from(text.stopped == Stopped::Token);
                let said = &text.tokens[..text.tokens.len() - ended];
                let completion = completion(tokenizer, tokens, said)?;
                log.append(&Line { prompt, completion, stopped: why(text.stopped) })?;
            }
            log.sync()?;
        }
    }
    let (file, prompts) = (into.display().to_string(), all.len());
    let done = Done { file, prompts, already };
    if show.json {
        show.json(&done);
    } else {
        let before = match already {
            0 => String::new(),
            count => format!(", {count} of them there before"),
        };
        show.data(&format!("{}: {prompts} completions{before}\n", done.file));
    }
    Ok(0)
}

/// What `said` adds to the text of `prompt`: decoded with it, since a decoder may treat a text's first
/// token by itself.
fn completion(tokenizer: &Tokenizer, prompt: &[u32], said: &[u32]) -> Result<String, Failure> {
    let (before, whole) = (tokenizer.decode(prompt)?, tokenizer.decode(&[prompt, said].concat())?);
    match whole.strip_prefix(&before) {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(tokenizer.decode(said)?),
    }
}

fn said(sampling: Sampling) -> Value {
    match sampling {
        Sampling::Greedy => json!("greedy"),
        Sampling::Random { temperature, top_k, top_p, seed } => {
            json!({"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed})
        }
    }
}

/// The file, new or to be continued, beside what it is made with.
fn open<'d>(disk: &'d RealDisk, into: &Path, made_with: &Value) -> Result<Log<'d>, Failure> {
    let beside = PathBuf::from(format!("{}.made-with.json", into.display()));
    let (file, note) = (into.display(), beside.display());
    if into.is_dir() {
        return Err(Failure::usage(format!("`{file}` is a folder; give the name of a file")));
    }
    if beside.exists() {
        let bytes = disk.read(&beside).map_err(heirloom_store::StoreError::from)?;
        let was: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if was != *made_with {
            let differs = made_with.as_object().into_iter().flatten();
            let keys: Vec<&str> = differs
                .filter(|(key, value)| was[*key] != **value)
                .map(|(key, _)| key.as_str())
                .collect();
            return Err(Failure::usage(format!(
                "`{file}` was begun with other {}, by `{note}`; give another --jsonl, or remove both \
                 files to begin anew",
                keys.join(", ")
            )));
        }
    } else if into.exists() {
        return Err(Failure::usage(format!(
            "`{file}` is there already, and no `{note}` says what it was made with; give another \
             --jsonl"
        )));
    } else {
        let text = format!("{made_with:#}\n");
        disk.write(&beside, text.as_bytes()).map_err(heirloom_store::StoreError::from)?;
        disk.sync(&beside).map_err(heirloom_store::StoreError::from)?;
    }
    if into.exists() { Ok(Log::open(disk, into)?) } else { Ok(Log::create(disk, into)?) }
}

/// Where each whole line ends.
fn line_ends(disk: &RealDisk, file: &Path) -> Result<Vec<u64>, Failure> {
    let (mut ends, mut at) = (Vec::new(), 0_u64);
    disk.read_pieces(file, &mut |piece| {
        for byte in piece {
            at += 1;
            if *byte == b'\n' {
                ends.push(at);
            }
        }
    })
    .map_err(heirloom_store::StoreError::from)?;
    Ok(ends)
}

/// The prompts of a file: `prompt` of each line's object where its name ends in `.jsonl`, else its
/// lines. Blank lines are passed over.
fn read(file: &Path) -> Result<Vec<String>, Failure> {
    let name = file.display();
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::usage(format!("cannot read `{name}`: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::input(format!("`{name}` is not UTF-8: byte {at} begins no character"))
    })?;
    let objects = file.extension().is_some_and(|extension| extension == "jsonl");
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let prompts: Vec<String> = lines
        .map(|(at, line)| {
            if !objects {
                return Ok(line.to_owned());
            }
            let bad = |reason: String| Failure::input(format!("{name}:{at}: {reason}"));
            let value: Value = serde_json::from_str(line)
                .map_err(|error| bad(format!("not a JSON object: {error}")))?;
            let found = value["prompt"].as_str().map(str::to_owned);
            found.ok_or_else(|| bad("no text in the field `prompt`".to_owned()))
        })
        .collect::<Result<_, _>>()?;
    if prompts.is_empty() {
        return Err(Failure::input(format!("`{name}` has no prompt")));
    }
    Ok(prompts)
}
