//! A task whose truth is known: invented sentences, each with the exact probability of every label.
//!
//! In: a seed. Out: texts, labels drawn from known distributions, and the best that any model can
//! reach.
//! Never: a label without its distribution, or text that a bag of words explains.
//!
//! A word `w` carries evidence `e(w)`, four numbers. The evidence of a sentence is the sum of that
//! of its words, where
//!
//! - the word after a *negator* counts −1 times, the word after an *intensifier* twice;
//! - what stands before the last *turn* ("but") counts 3/10.
//!
//! `P(label | text) = softmax(evidence)`, and the label is drawn from it.

use heirloom_base::{Purpose, permutation, uniform, word};

use crate::label::{Labels, RawLabel};
use crate::source::{Row, Rows};

/// Number of classes.
pub const CLASSES: usize = 4;

/// Names of the classes.
pub const CLASS_NAMES: [&str; CLASSES] = ["amber", "coral", "jade", "slate"];

/// A text with its label, and the probabilities that the label was drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticExample {
    /// The text.
    pub text: String,
    /// The label, drawn from `probabilities`.
    pub label: u32,
    /// The probability of each label, given the text.
    pub probabilities: [f64; CLASSES],
}

/// The best that any model can reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceiling {
    /// Accuracy of the model that knows the truth: the mean of the largest probability.
    pub accuracy: f64,
    /// Its cross-entropy in nats: the mean entropy of the label, given the text.
    pub entropy: f64,
}

/// `count` examples. Examples of one seed are alike on every machine; every seed speaks the same
/// language, so that one seed may train and another validate.
pub fn generate(seed: u64, count: usize) -> Vec<SyntheticExample> {
    let language = Language::new();
    (0..count as u64).map(|index| language.example(seed, index)).collect()
}

/// The best that any model can reach on `examples`; zero without any.
pub fn ceiling(examples: &[SyntheticExample]) -> Ceiling {
    let count = examples.len().max(1) as f64;
    let largest =
        |example: &SyntheticExample| example.probabilities.into_iter().fold(0.0, f64::max);
    let entropy = |example: &SyntheticExample| -> f64 {
        let terms = example.probabilities.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln());
        terms.sum()
    };
    Ceiling {
        accuracy: examples.iter().map(largest).sum::<f64>() / count,
        entropy: examples.iter().map(entropy).sum::<f64>() / count,
    }
}

/// Examples as rows, as if they came from a file; their lines count from 1.
pub fn rows(examples: &[SyntheticExample]) -> Rows {
    let row = |(example, line): (&SyntheticExample, u64)| Row {
        line,
        text: example.text.clone(),
        pair: None,
        label: RawLabel::Integer(i64::from(example.label)),
    };
    Rows::of(examples.iter().zip(1..).map(row).collect())
}

/// The labels of these rows.
pub fn labels() -> Labels {
    Labels::classes(CLASS_NAMES)
}

/// A `vocab.txt` for these texts: the special tokens of BERT and every word, one token each.
pub fn vocabulary() -> String {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    special.into_iter().chain(Language::new().words).map(|token| token + "\n").collect()
}

/// Words of the language.
const WORDS: usize = 2000;

/// Shortest and longest sentence, in words.
const SENTENCE: (u64, u64) = (8, 24);

/// Groups of words that come together.
const TOPICS: usize = 8;

/// Share of words that are of the sentence's own topic.
const OWN_TOPIC: f64 = 0.6;

/// Share of content words without any evidence.
const NEUTRAL: f64 = 0.5;

/// Spread of the evidence of a word, in nats; puts the ceiling near an accuracy of 0.85.
const EVIDENCE: f64 = 2.45;

/// Weight of what stands before the last turn.
const BEFORE_TURN: f64 = 0.3;

/// The seed of the language itself: words and their evidence. Published results depend on it.
const LANGUAGE: u64 = 0x4845_4952_4C4F_4F4D;

/// What a word does.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Content,
    Negator,
    Intensifier,
    Turn,
}

/// Words by role: the first words of the list, and the share of text that they make up.
const ROLES: [(Role, usize, f64); 3] =
    [(Role::Negator, 3, 0.12), (Role::Intensifier, 3, 0.08), (Role::Turn, 2, 0.03)];

/// Words that are not content.
const FUNCTION_WORDS: usize = ROLES[0].1 + ROLES[1].1 + ROLES[2].1;

struct Language {
    words: Vec<String>,
    evidence: Vec<[f64; CLASSES]>,
}

impl Language {
    fn new() -> Self {
        // Words of two syllables, each of a consonant and a vowel: all distinct, all speakable.
        let syllables = CONSONANTS.len() * VOWELS.len();
        let order = permutation(LANGUAGE, Purpose::Synthetic, WORDING, syllables * syllables);
        let words = order.into_iter().take(WORDS).map(|pair| {
            let pair = pair as usize;
            [pair / syllables, pair % syllables].map(syllable).concat()
        });
        Self { words: words.collect(), evidence: (0..WORDS).map(evidence).collect() }
    }

    fn example(&self, seed: u64, index: u64) -> SyntheticExample {
        // Each number of a sentence has a place of its own: four for the whole, three a word.
        let number = |place: u64| uniform(word(seed, Purpose::Synthetic, TEXT + index, place));
        let (shortest, longest) = SENTENCE;
        let length = shortest + pick(number(0), (longest - shortest + 1) as usize) as u64;
        let topic = pick(number(1), TOPICS);
        let sentence: Vec<usize> = (0..length)
            .map(|at| choose([4, 5, 6].map(|place| number(place + 3 * at)), topic))
            .collect();
        let probabilities = softmax(self.evidence_of(&sentence));
        let words: Vec<&str> = sentence.iter().map(|&word| self.words[word].as_str()).collect();
        let label = draw(&probabilities, number(2));
        SyntheticExample { text: words.join(" "), label, probabilities }
    }

    fn evidence_of(&self, sentence: &[usize]) -> [f64; CLASSES] {
        let mut total = [0.0; CLASSES];
        let mut factor = 1.0;
        for &word in sentence {
            let weight = std::mem::replace(&mut factor, 1.0);
            match role(word) {
                Role::Negator => factor = -1.0,
                Role::Intensifier => factor = 2.0,
                Role::Turn => total = total.map(|sum| sum * BEFORE_TURN),
                Role::Content => {
                    for (sum, evidence) in total.iter_mut().zip(&self.evidence[word]) {
                        *sum += weight * evidence;
                    }
                }
            }
        }
        total
    }
}

/// Steps of the generator's address: words and evidence of the language, then the texts.
const WORDING: u64 = 0;
const MEANING: u64 = 1;
const TEXT: u64 = 2;

const CONSONANTS: [&str; 14] =
    ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"];
const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];

fn syllable(index: usize) -> String {
    format!("{}{}", CONSONANTS[index / VOWELS.len()], VOWELS[index % VOWELS.len()])
}

fn role(word: usize) -> Role {
    let mut end = 0;
    for (role, count, _) in ROLES {
        end += count;
        if word < end {
            return role;
        }
    }
    Role::Content
}

/// What `word` says for each class. A sum of four uniform numbers stands for a normal one: it needs
/// no logarithm, which machines round differently.
fn evidence(word_index: usize) -> [f64; CLASSES] {
    let number = |place: usize| {
        let place = (word_index * EVIDENCE_PLACES + place) as u64;
        uniform(word(LANGUAGE, Purpose::Synthetic, MEANING, place))
    };
    if role(word_index) != Role::Content || number(0) < NEUTRAL {
        return [0.0; CLASSES];
    }
    std::array::from_fn(|class| {
        let sum: f64 = (0..4).map(|part| number(1 + 4 * class + part)).sum();
        // The sum has mean 2 and variance 4/12.
        EVIDENCE * (sum - 2.0) * 3f64.sqrt()
    })
}

/// Random numbers for the evidence of one word.
const EVIDENCE_PLACES: usize = 1 + 4 * CLASSES;

/// The word that three numbers in `[0, 1)` pick for a sentence on `topic`.
fn choose([kind, topical, which]: [f64; 3], topic: usize) -> usize {
    let (mut first, mut share) = (0, 0.0);
    for (_, count, part) in ROLES {
        share += part;
        if kind < share {
            return first + pick(which, count);
        }
        first += count;
    }
    // Squaring makes the first words of each topic frequent and the last ones rare.
    let group = (WORDS - FUNCTION_WORDS) / TOPICS;
    let rank = pick(which * which, group);
    let topic = if topical < OWN_TOPIC {
        topic
    } else {
        pick((topical - OWN_TOPIC) / (1.0 - OWN_TOPIC), TOPICS)
    };
    FUNCTION_WORDS + topic * group + rank
}

fn pick(number: f64, count: usize) -> usize {
    ((number * count as f64) as usize).min(count - 1)
}

/// The largest value is subtracted first, so that no exponent is above zero.
fn softmax(values: [f64; CLASSES]) -> [f64; CLASSES] {
    let max = values.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let powers = values.map(|value| (value - max).exp());
    let total: f64 = powers.iter().sum();
    powers.map(|power| power / total)
}

fn draw(probabilities: &[f64; CLASSES], number: f64) -> u32 {
    let mut below = 0.0;
    for (probability, class) in probabilities.iter().zip(0..) {
        below += probability;
        if number < below {
            return class;
        }
    }
    CLASSES as u32 - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Dataset, KeepTexts};
    use crate::label::Label;
    use crate::tokens::Tokenizer;

    #[test]
    fn published_sentences_never_change() {
        let first = &generate(1, 1)[0];
        insta::assert_snapshot!(format!("{} {}", first.label, first.text), @"2 modo dufa duku pibe duva sana pimi komo gome feka vavo zipu solu zozo seke lisa mogi");
        assert_eq!(generate(1, 5)[..2], generate(1, 2));
        assert_ne!(generate(1, 1), generate(2, 1));
    }

    #[test]
    fn the_ceiling_leaves_room_for_doubt() {
        let ceiling = ceiling(&generate(3, 20_000));
        assert!((ceiling.accuracy - 0.85).abs() < 0.01, "{ceiling:?}");
        assert!(ceiling.entropy > 0.2, "{ceiling:?}");
    }

    #[test]
    fn labels_follow_their_probabilities() {
        let examples = generate(5, 20_000);
        for class in 0..CLASSES {
            let expected: f64 = examples.iter().map(|example| example.probabilities[class]).sum();
            let variance: f64 = examples
                .iter()
                .map(|e| e.probabilities[class] * (1.0 - e.probabilities[class]))
                .sum();
            let found = examples.iter().filter(|example| example.label == class as u32).count();
            // Four standard deviations.
            assert!((found as f64 - expected).abs() < 4.0 * variance.sqrt(), "class {class}");
            assert!(found > 2000, "class {class} has {found} of 20000");
        }
    }

    #[test]
    fn the_order_of_words_matters() {
        let language = Language::new();
        let negator = 0;
        let strong =
            (FUNCTION_WORDS..WORDS).find(|&w| language.evidence[w][0].abs() > 1.0).unwrap();
        let other = (strong + 1..WORDS).find(|&w| language.evidence[w][0].abs() > 1.0).unwrap();
        let one = language.evidence_of(&[negator, strong, other]);
        let two = language.evidence_of(&[negator, other, strong]);
        assert_eq!(one[0], language.evidence[other][0] - language.evidence[strong][0]);
        assert_eq!(two[0], -one[0]);
    }

    #[test]
    fn a_bag_of_words_is_not_enough() {
        let language = Language::new();
        let index = |text: &str| language.words.iter().position(|word| word == text).unwrap();
        let examples = generate(3, 5000);
        // The best bag of words there is: it knows the true evidence, but not the order.
        let right = |example: &&SyntheticExample| {
            let words = example.text.split(' ').map(index);
            let bag: Vec<usize> = words.filter(|&word| role(word) == Role::Content).collect();
            let guess = softmax(language.evidence_of(&bag));
            let best = guess.into_iter().fold(0.0, f64::max);
            guess[example.label as usize] == best
        };
        let accuracy = examples.iter().filter(right).count() as f64 / 5000.0;
        assert!(accuracy < ceiling(&examples).accuracy - 0.1, "{accuracy}");
    }

    #[test]
    fn every_word_is_one_token_of_its_own() {
        let tokenizer = Tokenizer::from_vocabulary(&vocabulary(), true).unwrap();
        assert_eq!(tokenizer.vocab_size(), WORDS + 5);
        let examples = generate(9, 50);
        let dataset =
            Dataset::build(&rows(&examples), labels(), &tokenizer, 128, KeepTexts::No).unwrap();
        for (index, example) in examples.iter().enumerate() {
            let found = dataset.example(index);
            assert_eq!(found.ids.len(), example.text.split(' ').count() + 2);
            assert!(!found.ids.contains(&tokenizer.special().unk.unwrap()));
            assert_eq!(found.label, &Label::Class(example.label));
        }
    }
}
