//! Label noise: wrong labels put into a training set on purpose, to see who notices.
//!
//! In: a dataset and a [`LabelNoise`]. Out: the same examples with some classes changed, and which.
//! Never: a word that depends on anything but the noise's seed and an example's place in its file,
//! so that every run that names the same noise is misled by the same examples.

use heirloom_base::{Hasher, Purpose, uniform, word};

use super::Dataset;
use crate::label::Label;

/// How many labels are made wrong, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelNoise {
    /// Probability that an example's label is made wrong, `0.0..=1.0`.
    pub share: f64,
    /// What it becomes.
    pub kind: NoiseKind,
    /// Seed of the noise; no other seed touches it.
    pub seed: u64,
}

/// What a label that is made wrong becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseKind {
    /// One of the other classes, each equally likely.
    Symmetric,
    /// The next class; the last one becomes the first.
    Asymmetric,
}

/// The address of the word that says whether a label is made wrong.
const WHETHER: u64 = 0;
/// Of the word that says what it becomes.
const WHAT: u64 = 1;

impl LabelNoise {
    /// What `class` of `classes` becomes for example number `index`, or `None` where it stays.
    fn wrong(&self, index: u64, class: u32, classes: u32) -> Option<u32> {
        let word = |step| word(self.seed, Purpose::LabelNoise, step, index);
        if classes < 2 || uniform(word(WHETHER)) >= self.share {
            return None;
        }
        let steps = match self.kind {
            NoiseKind::Asymmetric => 1,
            // A 64-bit word scaled to classes − 1 values.
            NoiseKind::Symmetric => {
                1 + ((u128::from(word(WHAT)) * u128::from(classes - 1)) >> 64) as u32
            }
        };
        Some((class + steps) % classes)
    }
}

impl Dataset {
    /// The same examples, each label made wrong with the noise's probability, independently of the
    /// others. How many are wrong is therefore near `share` of them, not exact; in exchange an
    /// example's label depends on its own place alone, not on how many examples there are, and what
    /// is wrong with a small share is wrong with every larger one.
    ///
    /// Place means the number of the example in this dataset, so noise comes before a split or a
    /// limit. Examples without a class keep what they have. A share of 0 changes nothing, the digest
    /// included; any other gives another digest, but the same tokens' digest: a teacher's answers
    /// stay valid.
    pub fn with_label_noise(mut self, noise: LabelNoise) -> Self {
        if noise.share == 0.0 {
            return self;
        }
        let classes = self.labels.names.len() as u32;
        let mut before = Vec::with_capacity(self.len());
        for (index, label) in (0..).zip(&mut self.example_labels) {
            let wrong = match *label {
                Label::Class(class) => {
                    noise.wrong(index, class, classes).map(|wrong| (class, wrong))
                }
                Label::None | Label::Score(_) | Label::Multi(_) => None,
            };
            before.push(wrong.map(|(class, _)| class));
            if let Some((_, wrong)) = wrong {
                *label = Label::Class(wrong);
            }
        }
        self.classes_before = before;
        let kind = match noise.kind {
            NoiseKind::Symmetric => b"symmetric".as_slice(),
            NoiseKind::Asymmetric => b"asymmetric",
        };
        let mut hasher = Hasher::new();
        hasher.part(self.digest.to_string().as_bytes());
        hasher.part(b"label noise").part(kind);
        hasher.part(&noise.share.to_bits().to_le_bytes()).part(&noise.seed.to_le_bytes());
        self.digest = hasher.digest();
        self
    }

    /// Whether label noise was added, so that it is known of each example whether it was changed.
    pub fn has_label_noise(&self) -> bool {
        !self.classes_before.is_empty()
    }

    /// The class that an example had before label noise gave it another; `None` where its label is
    /// the file's.
    pub fn class_before_noise(&self, example: usize) -> Option<u32> {
        self.classes_before.get(example).copied().flatten()
    }

    /// Examples whose label is not the file's.
    pub fn noisy_labels(&self) -> usize {
        self.classes_before.iter().flatten().count()
    }
}
