//! `heirloom bench cache`: what a token of kept answers takes on disk, and how far what is kept is from
//! the answer.
//!
//! In: a vocabulary, or a trained decoder and a text. Out: for each kind bytes of a token and distances.
//! Never: a time. Without a teacher answers are made up: a token's r-th likeliest has a probability
//! in proportion to `r^−s`, as words have (Zipf 1949), with `s` spread evenly over 1.1 to 2.2 from token
//! to token, so that entropies go from those of a free choice to those of a nearly certain word, and
//! their mean is about 3 nats: a calibrated model's loss, of which GPT-2's on web text is 3.1. Which
//! tokens are likely is drawn anew for each, evenly over the vocabulary: nothing packs worse.

use std::path::Path;
use std::sync::Arc;

use heirloom::answer::model_folder;
use heirloom::answers::{BLOCK_TOKENS, Kind, Trial, Values, block_bytes, each_answer, trial};
use heirloom::failure::Failure;
use heirloom_base::{Purpose, permutation};
use heirloom_data::text::{Corpus, Pack, PackedRows, Reading, Rows, find_or_write};
use heirloom_data::tokens::Tokenizer;
use heirloom_engine::Cpu;
use heirloom_models::{Decoder, DecoderConfig};
use heirloom_report::table::{Cell, Table};
use heirloom_store::{RealDisk, TensorFolder};
use rayon::prelude::*;
use serde::Serialize;

use super::{SEED, at_least_one};
use crate::args::BenchCacheArgs;
use crate::command::thrown_away::ThrownAway;

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Answers {
    vocab: usize,
    tokens: usize,
    temperature: f64,
    /// Whose answers they are; `None` for made-up ones.
    teacher: Option<String>,
    /// Mean, in nats, at the temperature.
    entropy: f64,
    kinds: Vec<Kept>,
}

/// One way to keep them; means over the tokens.
#[derive(Debug, Serialize)]
struct Kept {
    keeps: String,
    /// With lengths and digests.
    bytes_per_token: f64,
    lost_mass: f64,
    /// `None` where it is infinite.
    forward_kl: Option<f64>,
    backward_kl: f64,
}

/// An answer's entropy, and what becomes of it by kind.
type Tried = (f64, Vec<Trial>);

/// The slowest and the fastest fall of probabilities with rank.
const FALLS: [f64; 2] = [1.1, 2.2];

const KINDS: [(Kind, Values); 9] = [
    (Kind::TopK { k: 16 }, Values::Byte),
    (Kind::TopK { k: 50 }, Values::Byte),
    (Kind::TopK { k: 64 }, Values::Byte),
    (Kind::TopK { k: 128 }, Values::Byte),
    (Kind::TopK { k: 64 }, Values::Bf16),
    (Kind::TopK { k: 128 }, Values::Bf16),
    (Kind::Samples { draws: 12, proposal: 1.0 }, Values::Byte),
    (Kind::Samples { draws: 50, proposal: 1.0 }, Values::Byte),
    (Kind::Samples { draws: 50, proposal: 1.2 }, Values::Byte),
];

impl Answers {
    pub(super) fn table(&self) -> Table {
        let number = |value, decimals| Cell::Number { value, decimals };
        let mut table = Table::new([
            "keeps",
            "bytes/token",
            "lost mass",
            "KL(teacher, kept)",
            "KL(kept, teacher)",
        ]);
        for kept in &self.kinds {
            table.row([
                kept.keeps.as_str().into(),
                number(kept.bytes_per_token, 1),
                number(kept.lost_mass, 4),
                kept.forward_kl.map_or(Cell::Missing, |forward| number(forward, 4)),
                number(kept.backward_kl, 4),
            ]);
        }
        table
    }
}

pub(super) fn measure(args: &BenchCacheArgs) -> Result<Answers, Failure> {
    let BenchCacheArgs { vocab, tokens, temperature, .. } = *args;
    at_least_one(&[("--vocab", vocab), ("--tokens", tokens)])?;
    if !(temperature.is_finite() && temperature > 0.0) {
        let found = format!("--temperature is {temperature}, expected a positive number");
        return Err(Failure::usage(found));
    }
    if let Some(teacher) = &args.teacher {
        return of_teacher(args, teacher);
    }
    let kinds = kinds(vocab);
    let trials: Vec<Tried> = (0..tokens)
        .into_par_iter()
        .map(|token| {
            let share = (token as f64 + 0.5) / tokens as f64;
            let logits = logits(vocab, token, FALLS[0] + share * (FALLS[1] - FALLS[0]));
            tried(&kinds, &logits, temperature, (token, 0))
        })
        .collect();
    Ok(means(vocab, temperature, &kinds, &trials))
}

/// Ways to keep answers over so many words.
fn kinds(vocab: usize) -> Vec<(Kind, Values)> {
    let fits =
        |(kind, _): &(Kind, Values)| !matches!(kind, Kind::TopK { k } if *k as usize > vocab);
    KINDS.into_iter().filter(fits).collect()
}

fn tried(
    kinds: &[(Kind, Values)],
    logits: &[f32],
    temperature: f64,
    place: (usize, usize),
) -> Tried {
    let tried = kinds.iter().map(|&kind| trial(kind, logits, temperature, SEED, place));
    (entropy(logits, temperature), tried.collect())
}

/// What a trained decoder says to so many tokens, spread over a text.
fn of_teacher(args: &BenchCacheArgs, teacher: &Path) -> Result<Answers, Failure> {
    let folder = model_folder(teacher)?;
    let config = DecoderConfig::open(&folder)?;
    let (vocab, tokenizer) = (config.vocab_size, Tokenizer::open(&folder)?);
    let (corpus, scratch) =
        (Corpus::open(&args.text, Reading::plain())?, ThrownAway::new("bench")?);
    let shards = find_or_write(&RealDisk, scratch.path(), &corpus, &tokenizer, &mut |_| ())?.0;
    let shards = Arc::new(shards);
    let (all, length) = (shards.all(), args.length.min(config.max_positions));
    let rows = PackedRows::new(shards, &all, Pack::Documents, length)?;
    let count = args.tokens.div_ceil(length).min(rows.len());
    let which: Vec<usize> = (0..count).map(|at| at * rows.len() / count).collect();
    let mut device = Cpu::new(0);
    let model = Decoder::new(&mut device, config);
    model.load(&mut device, &TensorFolder::open(&folder)?, &|name| name.to_owned())?;
    let (kinds, mut trials) = (kinds(vocab), Vec::new());
    each_answer(&mut device, &model, &rows, &which, |place, logits| {
        if trials.len() < args.tokens {
            trials.push(tried(&kinds, logits, args.temperature, place));
        }
    })?;
    let teacher = Some(teacher.display().to_string());
    Ok(Answers { teacher, ..means(vocab, args.temperature, &kinds, &trials) })
}

fn means(vocab: usize, temperature: f64, kinds: &[(Kind, Values)], trials: &[Tried]) -> Answers {
    let tokens = trials.len();
    let mean = |of: &dyn Fn(&Tried) -> f64| trials.iter().map(of).sum::<f64>() / tokens as f64;
    let kept = |(at, kind): (usize, &(Kind, Values))| {
        let lengths: Vec<usize> = trials.iter().map(|(_, tried)| tried[at].bytes).collect();
        let bytes: usize = lengths.chunks(BLOCK_TOKENS).map(block_bytes).sum();
        let forward = mean(&|(_, tried)| tried[at].distance.forward);
        Kept {
            keeps: said(*kind),
            bytes_per_token: bytes as f64 / tokens as f64,
            lost_mass: mean(&|(_, tried)| tried[at].rest),
            forward_kl: forward.is_finite().then_some(forward),
            backward_kl: mean(&|(_, tried)| tried[at].distance.backward),
        }
    };
    let entropy = mean(&|(entropy, _)| *entropy);
    let kinds = kinds.iter().enumerate().map(kept).collect();
    Answers { vocab, tokens, temperature, teacher: None, entropy, kinds }
}

/// `−s ln r` at the place of the r-th likeliest token.
fn logits(vocab: usize, token: usize, fall: f64) -> Vec<f32> {
    let mut logits = vec![0.0; vocab];
    let order = permutation(SEED, Purpose::Synthetic, token as u64, vocab);
    for (rank, id) in (1..).zip(order) {
        logits[id as usize] = (-fall * f64::from(rank).ln()) as f32;
    }
    logits
}

fn entropy(logits: &[f32], temperature: f64) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let above = |x: &&f32| **x > f32::NEG_INFINITY;
    let parts = || logits.iter().filter(above).map(|&x| f64::from(x - most) / temperature);
    let total: f64 = parts().map(f64::exp).sum();
    total.ln() - parts().map(|x| x * x.exp()).sum::<f64>() / total
}

fn said((kind, values): (Kind, Values)) -> String {
    let values = match values {
        Values::Byte => "",
        Values::Bf16 => ", bf16",
        Values::F32 => ", f32",
    };
    match kind {
        Kind::TopK { k } => format!("top-k {k}{values}"),
        Kind::Samples { draws, proposal: 1.0 } => format!("{draws} samples"),
        Kind::Samples { draws, proposal } => format!("{draws} samples at {proposal} T{values}"),
        Kind::States { width } => format!("{width} states{values}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: BenchCacheArgs = BenchCacheArgs {
        teacher: None,
        text: Vec::new(),
        length: 128,
        vocab: 2000,
        tokens: 40,
        temperature: 1.0,
    };

    #[test]
    fn more_tokens_take_more_bytes_and_lose_less() {
        let answers = measure(&SMALL).unwrap();
        let likeliest = &answers.kinds[..4];
        for pair in likeliest.windows(2) {
            assert!(pair[0].bytes_per_token < pair[1].bytes_per_token, "{answers:?}");
            assert!(pair[0].lost_mass > pair[1].lost_mass, "{answers:?}");
            assert!(pair[0].forward_kl > pair[1].forward_kl, "{answers:?}");
        }
        let draws = &answers.kinds[6..];
        assert!(draws.iter().all(|kept| kept.forward_kl.is_none() && kept.lost_mass == 0.0));
        assert!(draws[0].bytes_per_token < draws[1].bytes_per_token);
        assert!(draws[0].backward_kl > draws[1].backward_kl);
    }

    #[test]
    fn made_up_answers_are_as_uncertain_as_they_are_said_to_be() {
        let answers = measure(&BenchCacheArgs { vocab: 50_257, tokens: 24, ..SMALL }).unwrap();
        assert!((2.7..3.5).contains(&answers.entropy), "{}", answers.entropy);
    }

    #[test]
    fn nothing_is_refused() {
        let none = measure(&BenchCacheArgs { vocab: 0, ..SMALL }).unwrap_err();
        assert_eq!(none, Failure::usage("--vocab is 0, expected at least 1"));
        let cold = measure(&BenchCacheArgs { temperature: 0.0, ..SMALL }).unwrap_err();
        assert!(cold.message.contains("--temperature is 0, expected a positive number"));
    }
}
