//! Tokenised examples with labels: what training and evaluation read.
//!
//! In: rows, labels, a tokenizer. Out: examples in the order of the rows, digests, and what a
//! person should know before training.
//! Never: changes after it was built. Parts of it are datasets of their own.

mod noise;

use std::collections::BTreeMap;

use heirloom_base::{Digest, Hasher, Purpose, Tokens, permutation};
use serde::Serialize;

use crate::error::Error;
use crate::label::{Label, Labels};
use crate::source::{OnBadLine, Row, Rows, Skipped};
use crate::tokens::Tokenizer;

pub use noise::{LabelNoise, NoiseKind};

/// Tokenised examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    ids: Vec<u32>,
    type_ids: Vec<u8>,
    /// First token of each example, and the number of all tokens.
    starts: Vec<usize>,
    example_labels: Vec<Label>,
    /// What each text is, to find it in another dataset.
    text_digests: Vec<Digest>,
    /// The same without the spaces around it, to find somebody's answer to it.
    asked: Vec<Digest>,
    texts: Option<Vec<Text>>,
    labels: Labels,
    truncated: Vec<bool>,
    digest: Digest,
    tokens_digest: Digest,
    skipped: u64,
    /// For each example, the class it had before label noise gave it another; empty without noise.
    classes_before: Vec<Option<u32>>,
}

/// The text of an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, or the first of a pair.
    pub text: String,
    /// The second of a pair.
    pub pair: Option<String>,
}

/// An example, lent from a dataset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Example<'a> {
    /// Tokens.
    pub ids: &'a [u32],
    /// Which text of a pair each token is of.
    pub type_ids: &'a [u8],
    /// The label.
    pub label: &'a Label,
}

/// Whether texts stay in memory beside their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepTexts {
    /// For explanations and error lists.
    Yes,
    /// For training.
    No,
}

/// Texts of one dataset that are in another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// How many examples of the second are in the first.
    pub count: usize,
    /// The first of them: its index in the first dataset and in the second.
    pub first: Option<(u32, u32)>,
}

/// Lengths of the examples, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub shortest: usize,
    /// The middle one.
    pub median: usize,
    /// 95 of 100 are not longer.
    pub percentile_95: usize,
    /// The longest.
    pub longest: usize,
    /// The mean.
    pub mean: f64,
    /// All tokens.
    pub total: Tokens,
}

impl Dataset {
    /// Tokenises `rows`, on all threads, to at most `max_length` tokens each.
    pub fn build(
        rows: &Rows,
        labels: Labels,
        tokenizer: &Tokenizer,
        max_length: usize,
        keep: KeepTexts,
    ) -> Result<Self, Error> {
        let mut dataset = Self::empty(labels, keep);
        // Encodings of one chunk at a time are in memory beside the flat ids.
        for rows in rows.rows.chunks(TOKENISED_AT_ONCE) {
            dataset.extend(rows, tokenizer, max_length)?;
        }
        dataset.skipped = rows.skipped.total();
        dataset.digest = dataset.digest_of_text(&rows.skipped);
        dataset.tokens_digest = dataset.digest_of_tokens();
        Ok(dataset)
    }

    fn empty(labels: Labels, keep: KeepTexts) -> Self {
        let nothing = Digest::of(b"");
        Self {
            ids: Vec::new(),
            type_ids: Vec::new(),
            starts: vec![0],
            example_labels: Vec::new(),
            text_digests: Vec::new(),
            asked: Vec::new(),
            texts: (keep == KeepTexts::Yes).then(Vec::new),
            labels,
            truncated: Vec::new(),
            digest: nothing,
            tokens_digest: nothing,
            skipped: 0,
            classes_before: Vec::new(),
        }
    }

    fn extend(
        &mut self,
        rows: &[Row],
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<(), Error> {
        let texts: Vec<(&str, Option<&str>)> =
            rows.iter().map(|row| (row.text.as_str(), row.pair.as_deref())).collect();
        for (row, encoding) in rows.iter().zip(tokenizer.encode_batch(&texts, max_length)?) {
            let label = self.labels.resolve(&row.label).map_err(|wrong| Error::Label {
                line: row.line,
                found: wrong.found,
                expected: wrong.expected,
            })?;
            self.ids.extend_from_slice(&encoding.ids);
            self.type_ids.extend_from_slice(&encoding.type_ids);
            self.starts.push(self.ids.len());
            self.example_labels.push(label);
            self.text_digests.push(text_digest(&row.text, row.pair.as_deref()));
            self.asked.push(row.asked());
            self.truncated.push(encoding.truncated);
            if let Some(texts) = &mut self.texts {
                texts.push(Text { text: row.text.clone(), pair: row.pair.clone() });
            }
        }
        Ok(())
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.example_labels.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of an example.
    pub fn length(&self, example: usize) -> usize {
        self.starts[example + 1] - self.starts[example]
    }

    /// An example.
    pub fn example(&self, example: usize) -> Example<'_> {
        let range = self.starts[example]..self.starts[example + 1];
        Example {
            ids: &self.ids[range.clone()],
            type_ids: &self.type_ids[range],
            label: &self.example_labels[example],
        }
    }

    /// The text of an example, where texts were kept.
    pub fn text(&self, example: usize) -> Option<&Text> {
        self.texts.as_ref().map(|texts| &texts[example])
    }

    /// What an example asks whoever answers it: a digest of its text, or pair, without the spaces around
    /// it. Equal texts have equal ones everywhere.
    pub fn asked(&self, example: usize) -> Digest {
        self.asked[example]
    }

    /// What labels can be.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// A digest of texts, labels and what was left out under which policy.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// A digest of the tokens of all examples, in their order.
    pub fn tokens_digest(&self) -> Digest {
        self.tokens_digest
    }

    /// How many examples were cut to the longest length.
    pub fn truncated(&self) -> usize {
        self.truncated.iter().filter(|&&truncated| truncated).count()
    }

    /// Rows left out when the files were read.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Examples without a label.
    pub fn unlabelled(&self) -> usize {
        self.example_labels.iter().filter(|label| matches!(label, Label::None)).count()
    }

    /// Examples of each class, in the order of the labels.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.labels.names.len()];
        for label in &self.example_labels {
            match label {
                Label::Class(class) => counts[*class as usize] += 1,
                Label::Multi(values) => {
                    counts.iter_mut().zip(values.iter()).for_each(|(count, &value)| {
                        *count += usize::from(value > 0.0);
                    });
                }
                Label::None | Label::Score(_) => {}
            }
        }
        counts
    }

    /// Classes that no example has.
    pub fn classes_without_examples(&self) -> Vec<&str> {
        let counts = self.class_counts().into_iter();
        counts
            .zip(&self.labels.names)
            .filter_map(|(count, name)| (count == 0).then_some(name.as_str()))
            .collect()
    }

    /// Lengths of the examples; `None` without any.
    pub fn lengths(&self) -> Option<Lengths> {
        let mut lengths: Vec<usize> = (0..self.len()).map(|example| self.length(example)).collect();
        lengths.sort_unstable();
        let at = |share: usize| lengths[(lengths.len() - 1) * share / 100];
        (!lengths.is_empty()).then(|| Lengths {
            shortest: at(0),
            median: at(50),
            percentile_95: at(95),
            longest: at(100),
            mean: self.ids.len() as f64 / lengths.len() as f64,
            total: Tokens(self.ids.len() as u64),
        })
    }

    /// The examples of these indexes, in this order.
    pub fn select(&self, examples: &[u32]) -> Self {
        let keep = if self.texts.is_some() { KeepTexts::Yes } else { KeepTexts::No };
        let mut part = Self::empty(self.labels.clone(), keep);
        let mut hasher = Hasher::new();
        hasher.part(self.digest.to_string().as_bytes());
        for &index in examples {
            hasher.part(&index.to_le_bytes());
            let index = index as usize;
            let example = self.example(index);
            part.ids.extend_from_slice(example.ids);
            part.type_ids.extend_from_slice(example.type_ids);
            part.starts.push(part.ids.len());
            part.example_labels.push(example.label.clone());
            part.text_digests.push(self.text_digests[index]);
            part.asked.push(self.asked[index]);
            part.truncated.push(self.truncated[index]);
            if self.has_label_noise() {
                part.classes_before.push(self.class_before_noise(index));
            }
            if let (Some(texts), Some(text)) = (&mut part.texts, self.text(index)) {
                texts.push(text.clone());
            }
        }
        part.skipped = self.skipped;
        part.digest = hasher.digest();
        part.tokens_digest = part.digest_of_tokens();
        part
    }

    /// These examples and, behind them, those of `other`, which has the same labels.
    #[must_use]
    pub fn followed_by(mut self, other: &Self) -> Self {
        assert_eq!(self.labels, other.labels, "both parts are of one task");
        let tokens = self.ids.len();
        if self.has_label_noise() || other.has_label_noise() {
            self.classes_before.resize(self.len(), None);
            self.classes_before.extend((0..other.len()).map(|at| other.class_before_noise(at)));
        }
        self.ids.extend_from_slice(&other.ids);
        self.type_ids.extend_from_slice(&other.type_ids);
        self.starts.extend(other.starts[1..].iter().map(|start| tokens + start));
        self.example_labels.extend_from_slice(&other.example_labels);
        self.text_digests.extend_from_slice(&other.text_digests);
        self.asked.extend_from_slice(&other.asked);
        self.truncated.extend_from_slice(&other.truncated);
        self.texts = self.texts.zip(other.texts.as_ref()).map(|(mut texts, others)| {
            texts.extend_from_slice(others);
            texts
        });
        self.skipped += other.skipped;
        let mut hasher = Hasher::new();
        for digest in [self.digest, other.digest] {
            hasher.part(digest.to_string().as_bytes());
        }
        self.digest = hasher.part(b"followed by").digest();
        self.tokens_digest = self.digest_of_tokens();
        self
    }

    /// The first `count` examples.
    pub fn limit(self, count: usize) -> Self {
        if self.len() <= count {
            return self;
        }
        let examples: Vec<u32> = (0..count as u32).collect();
        self.select(&examples)
    }

    /// Parts the examples into those to train on and those held out, each in the order of the
    /// dataset.
    ///
    /// `fraction` of the examples, rounded, are held out: the ones that `seed` picks. Of two
    /// examples and a fraction above zero and below one, neither part is empty.
    pub fn split(&self, fraction: f64, seed: u64) -> (Self, Self) {
        let (train, held) = self.split_indexes(fraction, seed);
        (self.select(&train), self.select(&held))
    }

    /// The indexes that [`Dataset::split`] selects.
    pub fn split_indexes(&self, fraction: f64, seed: u64) -> (Vec<u32>, Vec<u32>) {
        split_indexes(self.len(), fraction, seed)
    }

    fn digest_of_text(&self, skipped: &Skipped) -> Digest {
        let mut hasher = Hasher::new();
        for (text, label) in self.text_digests.iter().zip(&self.example_labels) {
            hasher.part(text.to_string().as_bytes()).part(&label_bytes(label));
        }
        for name in &self.labels.names {
            hasher.part(name.as_bytes());
        }
        if let OnBadLine::Skip { limit } = skipped.policy {
            hasher.part(b"skip").part(&limit.to_le_bytes());
        }
        for (kind, count) in &skipped.counts {
            hasher.part(kind.as_bytes()).part(&count.to_le_bytes());
        }
        hasher.digest()
    }

    fn digest_of_tokens(&self) -> Digest {
        let mut hasher = Hasher::new();
        let mut bytes = Vec::new();
        for index in 0..self.len() {
            let example = self.example(index);
            bytes.clear();
            bytes.extend(example.ids.iter().flat_map(|id| id.to_le_bytes()));
            hasher.part(&bytes).part(example.type_ids);
        }
        hasher.digest()
    }
}

/// The indexes that [`Dataset::split`] selects of `len` examples: to train on, and held out.
pub fn split_indexes(len: usize, fraction: f64, seed: u64) -> (Vec<u32>, Vec<u32>) {
    let count = (fraction * len as f64).round() as usize;
    let between = fraction > 0.0 && fraction < 1.0 && len > 1;
    let count = if between { count.clamp(1, len - 1) } else { count.min(len) };
    let mut held = permutation(seed, Purpose::Split, 0, len);
    let mut train = held.split_off(count);
    train.sort_unstable();
    held.sort_unstable();
    (train, held)
}

/// Texts of `validation` that are in `train`.
pub fn overlap(train: &Dataset, validation: &Dataset) -> Overlap {
    let mut known: BTreeMap<Digest, u32> = BTreeMap::new();
    for (digest, index) in train.text_digests.iter().zip(0..) {
        known.entry(*digest).or_insert(index);
    }
    let mut overlap = Overlap::default();
    for (digest, index) in validation.text_digests.iter().zip(0..) {
        if let Some(&at) = known.get(digest) {
            overlap.count += 1;
            overlap.first.get_or_insert((at, index));
        }
    }
    overlap
}

/// Rows tokenised before their encodings are laid flat.
const TOKENISED_AT_ONCE: usize = 8192;

/// A digest of a text, or pair, without the spaces around it.
pub(crate) fn asked(text: &str, pair: Option<&str>) -> Digest {
    text_digest(text.trim(), pair.map(str::trim))
}

fn text_digest(text: &str, pair: Option<&str>) -> Digest {
    let mut hasher = Hasher::new();
    hasher.part(text.as_bytes());
    if let Some(pair) = pair {
        hasher.part(pair.as_bytes());
    }
    hasher.digest()
}

fn label_bytes(label: &Label) -> Vec<u8> {
    match label {
        Label::None => vec![0],
        Label::Class(class) => [&[1][..], &class.to_le_bytes()].concat(),
        Label::Score(score) => [&[2][..], &score.to_bits().to_le_bytes()].concat(),
        Label::Multi(values) => {
            let values = values.iter().flat_map(|value| value.to_bits().to_le_bytes());
            std::iter::once(3).chain(values).collect()
        }
    }
}
