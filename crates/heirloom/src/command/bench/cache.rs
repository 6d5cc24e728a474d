//! `heirloom bench cache`: what a token of kept answers takes on disk, and how far what is kept is from
//! the answer.
//!
//! In: a vocabulary. Out: for each kind bytes of a token and distances.
//! Never: a teacher, a file, or a time. Answers are made up: a token's r-th likeliest has a probability
//! in proportion to `r^−s`, as words have (Zipf 1949), with `s` spread evenly over 1.1 to 2.2 from token
//! to token, so that entropies go from those of a free choice to those of a nearly certain word, and
//! their mean is about 3 nats: a calibrated model's loss, of which GPT-2's on web text is 3.1. Which
//! tokens are likely is drawn anew for each, evenly over the vocabulary: nothing packs worse.

use heirloom::answers::{BLOCK_TOKENS, Kind, Trial, Values, block_bytes, trial};
use heirloom::failure::Failure;
use heirloom_base::{Purpose, permutation};
use heirloom_report::table::{Cell, Table};
use rayon::prelude::*;
use serde::Serialize;

use super::{SEED, at_least_one};
use crate::args::BenchCacheArgs;

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Answers {
    vocab: usize,
    tokens: usize,
    temperature: f64,
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
    let BenchCacheArgs { vocab, tokens, temperature } = *args;
    at_least_one(&[("--vocab", vocab), ("--tokens", tokens)])?;
    if !(temperature.is_finite() && temperature > 0.0) {
        let found = format!("--temperature is {temperature}, expected a positive number");
        return Err(Failure::usage(found));
    }
    let kinds: Vec<(Kind, Values)> = KINDS
        .into_iter()
        .filter(|(kind, _)| !matches!(kind, Kind::TopK { k } if *k as usize > vocab))
        .collect();
    let trials: Vec<Tried> = (0..tokens)
        .into_par_iter()
        .map(|token| {
            let share = (token as f64 + 0.5) / tokens as f64;
            let logits = logits(vocab, token, FALLS[0] + share * (FALLS[1] - FALLS[0]));
            let place = (token, 0);
            let tried = kinds.iter().map(|&kind| trial(kind, &logits, temperature, SEED, place));
            (entropy(&logits, temperature), tried.collect())
        })
        .collect();
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
    Ok(Answers { vocab, tokens, temperature, entropy, kinds })
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
    // The likeliest has logit 0.
    let parts = || logits.iter().map(|&x| f64::from(x) / temperature);
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

    const SMALL: BenchCacheArgs = BenchCacheArgs { vocab: 2000, tokens: 40, temperature: 1.0 };

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
