//! What a folder of kept answers says of itself, and what whoever opens it expects.
//!
//! In: `cache.json`. Out: the same, checked. Never: an answer of another teacher, tokenizer, text,
//! template, temperature or vocabulary than was asked for.

use heirloom_base::Digest;
use serde::{Deserialize, Serialize};

use crate::Values;
use crate::bits::bits_for;
use crate::error::{Damage, Difference};

/// The file.
pub const ABOUT: &str = "cache.json";
/// The format that this build reads and writes.
pub const FORMAT: u32 = 1;

/// What is kept of each token's answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "keeps", rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// The likeliest tokens, their probabilities, and what all others have together.
    TopK {
        /// How many; at least 1, at most V.
        k: u32,
    },
    /// Tokens drawn from the answer, with replacement (Anshumann et al. 2025, arXiv:2503.16870).
    Samples {
        /// How many draws; at least 1.
        draws: u32,
        /// Draws are from `softmax(t / (T · proposal))`. At 1 a token's weight is its share of the
        /// draws, which has the mean of the whole distribution; elsewhere weights are those of
        /// importance sampling, made to sum to 1, and have a bias that falls with `draws`.
        proposal: f64,
    },
    /// The last hidden states, after the last norm, to be multiplied by the teacher's head.
    States {
        /// C.
        width: u32,
    },
}

/// Everything that decides the bytes of the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Digest of the teacher's weights and config.
    pub teacher: Digest,
    /// Digest of the tokenizer.
    pub tokenizer: Digest,
    /// Digest of the rows that were answered.
    pub rows: Digest,
    /// Digest of the chat template, where the rows came through one.
    pub chat_template: Option<Digest>,
    /// T that the teacher's logits were divided by.
    pub temperature: f64,
    /// V: the answers are distributions over the first so many tokens of the teacher.
    pub vocabulary: u32,
    /// What is kept.
    pub kind: Kind,
    /// As what.
    pub values: Values,
    /// Largest distance of a kept `ln p` from what it was, in nats; 0 where none is kept.
    pub error_bound: f64,
    /// Seed of the draws; 0 where there are none.
    pub seed: u64,
    /// Rows.
    pub row_count: u64,
    /// Their tokens.
    pub token_count: u64,
    /// Rows of each file but the last.
    pub rows_per_part: u64,
    /// Tokens that the teacher read at a time: another number may change last bits.
    pub batch_tokens: u64,
    /// Whether the rows that are answered are those of the folder's lists; else they are all. Not
    /// written where they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub listed: bool,
}

/// What whoever opens kept answers expects of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// The teacher's digest; `None` where any will do.
    pub teacher: Option<Digest>,
    /// The tokenizer's.
    pub tokenizer: Digest,
    /// That of the rows.
    pub rows: Digest,
    /// That of the chat template.
    pub chat_template: Option<Digest>,
    /// T.
    pub temperature: f64,
    /// V.
    pub vocabulary: u32,
}

/// `cache.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    about: About,
    /// Of what stands above.
    digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    teacher_folder: Option<String>,
}

/// What `cache.json` says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AboutFile {
    pub(crate) about: About,
    /// Where the teacher was: a hint, which no digest covers.
    pub(crate) teacher_folder: Option<String>,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl About {
    /// Rows of a file, of at most `longest` tokens: so many that it holds some tens of megabytes.
    pub fn rows_that_fit(kind: Kind, values: Values, vocabulary: u32, longest: usize) -> u64 {
        const FILE: u64 = 32 << 20;
        let bits = bits_of(kind, values, vocabulary);
        (8 * FILE / (bits.max(1) * longest.max(1) as u64)).max(1)
    }

    /// The most that the answers to so many tokens take, in bytes, without what stands around them.
    pub fn most_bytes(&self, tokens: u64) -> u64 {
        (tokens * bits_of(self.kind, self.values, self.vocabulary)).div_ceil(8)
    }

    /// Most tokens that an answer names, K; 0 for hidden states.
    pub fn width(&self) -> usize {
        match self.kind {
            Kind::TopK { k } => k as usize,
            Kind::Samples { draws, .. } => draws.min(self.vocabulary) as usize,
            Kind::States { .. } => 0,
        }
    }

    /// The digest that every file of the folder repeats.
    pub fn digest(&self) -> Digest {
        let text = serde_json::to_vec(&(FORMAT, self)).expect("text and numbers");
        Digest::of(&text)
    }

    /// What cannot be, where something cannot.
    pub fn problem(&self) -> Option<String> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !positive(self.temperature) {
            return Some(format!("the temperature is {}", self.temperature));
        }
        if self.rows_per_part == 0 || self.batch_tokens == 0 || self.vocabulary == 0 {
            return Some("rows of a file, tokens of a batch or the vocabulary is 0".to_owned());
        }
        match self.kind {
            Kind::TopK { k } if k == 0 || k > self.vocabulary => {
                Some(format!("{k} likeliest of {} tokens", self.vocabulary))
            }
            Kind::Samples { draws, .. } if draws == 0 || draws > 1 << 16 => {
                Some(format!("{draws} draws; from 1 to 65536 can be kept"))
            }
            Kind::Samples { proposal, .. } if !positive(proposal) => {
                Some(format!("the proposal's temperature is {proposal}"))
            }
            Kind::States { .. } if self.values == Values::Byte => {
                Some("hidden states are kept as bf16 or f32".to_owned())
            }
            _ => None,
        }
    }

    /// Refuses what differs from `expected`, first what matters most.
    pub fn check(&self, expected: &Expected) -> Result<(), Difference> {
        let short = |digest: Option<Digest>| digest.map_or("none".to_owned(), |d| d.short());
        let digests = [
            ("teacher", Some(self.teacher), expected.teacher.or(Some(self.teacher))),
            ("tokenizer", Some(self.tokenizer), Some(expected.tokenizer)),
            ("chat template", self.chat_template, expected.chat_template),
            ("text", Some(self.rows), Some(expected.rows)),
        ];
        if let Some((what, found, wanted)) = digests.into_iter().find(|(_, a, b)| a != b) {
            return Err(Difference { what, found: short(found), expected: short(wanted) });
        }
        let numbers = [
            ("vocabulary", f64::from(self.vocabulary), f64::from(expected.vocabulary)),
            ("temperature", self.temperature, expected.temperature),
        ];
        match numbers.into_iter().find(|(_, a, b)| a != b) {
            Some((what, found, expected)) => {
                let (found, expected) = (found.to_string(), expected.to_string());
                Err(Difference { what, found, expected })
            }
            None => Ok(()),
        }
    }

    /// The first thing in which two folders differ, where they do; which rows they answer is none.
    pub(crate) fn difference(&self, wanted: &Self) -> Option<Difference> {
        let expected = Expected {
            teacher: Some(wanted.teacher),
            tokenizer: wanted.tokenizer,
            rows: wanted.rows,
            chat_template: wanted.chat_template,
            temperature: wanted.temperature,
            vocabulary: wanted.vocabulary,
        };
        if let Err(difference) = self.check(&expected) {
            return Some(difference);
        }
        let differs = |what, found: String, expected: String| {
            (found != expected).then_some(Difference { what, found, expected })
        };
        let text = |kind: &Kind| serde_json::to_string(kind).expect("text and numbers");
        differs("kind of answer", text(&self.kind), text(&wanted.kind))
            .or(differs(
                "kind of number",
                format!("{:?}", self.values),
                format!("{:?}", wanted.values),
            ))
            .or(differs("seed", self.seed.to_string(), wanted.seed.to_string()))
            .or(differs(
                "number of tokens at a time",
                self.batch_tokens.to_string(),
                wanted.batch_tokens.to_string(),
            ))
            .or(differs(
                "number of rows of a file",
                self.rows_per_part.to_string(),
                wanted.rows_per_part.to_string(),
            ))
    }
}

impl AboutFile {
    /// What is written.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self { about, teacher_folder } = self.clone();
        let file = File { format: FORMAT, digest: about.digest(), about, teacher_folder };
        let mut bytes = serde_json::to_vec_pretty(&file).expect("text and numbers");
        bytes.push(b'\n');
        bytes
    }

    /// Reads what was written.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Damage> {
        let Format { format } = serde_json::from_slice(bytes).map_err(|_| Damage::About)?;
        if format != FORMAT {
            return Err(Damage::Version { found: format, known: FORMAT });
        }
        let file: File = serde_json::from_slice(bytes).map_err(|_| Damage::About)?;
        if file.about.digest() != file.digest || file.about.problem().is_some() {
            return Err(Damage::About);
        }
        Ok(Self { about: file.about, teacher_folder: file.teacher_folder })
    }
}

/// The most bits of one answer.
fn bits_of(kind: Kind, values: Values, vocabulary: u32) -> u64 {
    let id = u64::from(bits_for(vocabulary.into()));
    match kind {
        Kind::TopK { k } => u64::from(k) * (id + u64::from(values.bits())),
        Kind::Samples { draws, .. } => u64::from(draws) * (id + u64::from(values.bits())),
        Kind::States { width } => u64::from(width) * u64::from(values.bits()),
    }
}
