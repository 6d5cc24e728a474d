//! `heirloom generate`: prompts in, what a decoder writes after them out, in the same order.

mod file;

use std::path::Path;

use heirloom::answer::model_folder;
use heirloom::failure::Failure;
use heirloom_data::pack::LONGEST_SEQUENCE;
use heirloom_data::tokens::Tokenizer;
use heirloom_engine::Cpu;
use heirloom_models::{Decoder, DecoderConfig, Generate, Sampling, Stopped};
use heirloom_store::TensorFolder;
use serde::Serialize;

use crate::args::GenerateArgs;
use crate::show::Show;

/// What follows one prompt.
#[derive(Serialize)]
struct Said<'a> {
    prompt: &'a str,
    text: String,
    prompt_tokens: &'a [u32],
    tokens: &'a [u32],
    stopped: &'static str,
}

pub(crate) fn run(args: &GenerateArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let sampling = sampling(args)?;
    let folder = model_folder(&args.model)?;
    let config = DecoderConfig::open(&folder)?;
    let tokenizer = Tokenizer::open(&folder)?;
    let mut stop = config.stop_tokens.clone();
    stop.extend(&args.stop_token);
    // Ids behind the last token stand for nothing, and could not be decoded.
    let vocabulary = Some(tokenizer.vocab_size());
    let ask = Generate { new_tokens: args.new_tokens, stop, sampling, vocabulary };
    if let (Some(prompts), Some(into)) = (&args.prompts, &args.jsonl) {
        let batch = args.batch as usize;
        let asked =
            file::Asked { folder: &folder, config, tokenizer: &tokenizer, ask: &ask, batch };
        return file::run(asked, prompts, into, threads, show);
    }
    let prompts: Vec<Vec<u32>> = args
        .prompt
        .iter()
        .map(|prompt| encode(prompt, &tokenizer, &config, args.new_tokens))
        .collect::<Result<_, _>>()?;

    let mut device = Cpu::new(threads);
    let model = load(&mut device, config, &folder, show)?;
    let texts = model.generate(&mut device, &prompts, &ask);
    for ((prompt, prompt_tokens), text) in args.prompt.iter().zip(&prompts).zip(&texts) {
        let said = Said {
            prompt,
            text: tokenizer.decode(&text.tokens)?,
            prompt_tokens,
            tokens: &text.tokens,
            stopped: why(text.stopped),
        };
        if show.json {
            show.json(&said);
        } else {
            // The whole is decoded at once: a decoder may treat a text's first token by itself.
            let whole = tokenizer.decode(&[prompt_tokens.as_slice(), &text.tokens].concat())?;
            show.data(&format!("{whole}\n"));
        }
    }
    Ok(0)
}

fn why(stopped: Stopped) -> &'static str {
    match stopped {
        Stopped::Token => "token",
        Stopped::Length => "length",
    }
}

/// The model with its weights.
fn load(
    device: &mut Cpu,
    config: DecoderConfig,
    folder: &Path,
    show: Show,
) -> Result<Decoder, Failure> {
    let model = Decoder::new(device, config);
    let loaded = model.load(device, &TensorFolder::open(folder)?, &|name| name.to_owned())?;
    if let Some(first) = loaded.unused.first() {
        let count = loaded.unused.len();
        show.say(&format!("note: {count} tensors have no place in the model, `{first}` first"));
    }
    Ok(model)
}

fn sampling(args: &GenerateArgs) -> Result<Sampling, Failure> {
    let GenerateArgs { temperature, top_k, top_p, seed, .. } = *args;
    if !(temperature.is_finite() && temperature >= 0.0) {
        let found = format!("`--temperature` is {temperature}, expected 0 (the most probable");
        return Err(Failure::usage(format!("{found} token) or a positive number")));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        let found = format!("`--top-p` is {top_p}, expected a probability above 0 and at most 1");
        return Err(Failure::usage(found));
    }
    if temperature > 0.0 {
        return Ok(Sampling::Random { temperature, top_k, top_p, seed });
    }
    if top_k != 0 || top_p != 1.0 {
        let found = "`--top-k` and `--top-p` choose what is drawn from, and at temperature 0";
        return Err(Failure::usage(format!("{found} nothing is drawn; add --temperature 1")));
    }
    Ok(Sampling::Greedy)
}

/// The tokens of a prompt, which must be in the model's vocabulary and leave room for new ones.
fn encode(
    prompt: &str,
    tokenizer: &Tokenizer,
    config: &DecoderConfig,
    new_tokens: usize,
) -> Result<Vec<u32>, Failure> {
    let encoding = tokenizer.encode(prompt, None, LONGEST_SEQUENCE)?;
    if encoding.truncated {
        let found = format!("a prompt has more than {LONGEST_SEQUENCE} tokens; shorten it");
        return Err(Failure::usage(found));
    }
    let ids = encoding.ids;
    if ids.is_empty() {
        return Err(Failure::usage(format!("the prompt {prompt:?} has no token; give a text")));
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab_size) {
        return Err(Failure::input(format!(
            "the prompt {prompt:?} has token {id}, and the model knows {}; the tokenizer is another \
             model's",
            config.vocab_size
        )));
    }
    let positions = config.max_positions;
    if ids.len() + new_tokens > positions {
        return Err(Failure::usage(format!(
            "the prompt {prompt:?} has {} tokens, and with {new_tokens} new ones it is longer than \
             the model's {positions} positions; lower --new-tokens or shorten the prompt",
            ids.len()
        )));
    }
    Ok(ids)
}
