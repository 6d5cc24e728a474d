//! The generated texts, tokenised: what the teacher and the students learn from, and what all are
//! judged on.

use std::collections::BTreeMap;

use heirloom::failure::Failure;
use heirloom_data::dataset::{Dataset, KeepTexts};
use heirloom_data::synthetic::{SyntheticExample, generate, labels, rows, vocabulary};
use heirloom_data::tokens::Tokenizer;
use heirloom_recipe::TokenizerFacts;

use super::sizes::Sizes;

/// Longest text in tokens: 24 words between two special tokens, rounded up.
pub(super) const MAX_LENGTH: usize = 32;

/// All texts of one demo; no text is in two of the sets.
pub(super) struct Texts {
    pub(super) teacher: Dataset,
    pub(super) student: Dataset,
    pub(super) test: Dataset,
    /// The test texts with the probabilities that their labels were drawn from.
    pub(super) truth: Vec<SyntheticExample>,
    pub(super) tokenizer: TokenizerFacts,
    pub(super) tokenizer_files: BTreeMap<String, Vec<u8>>,
}

impl Texts {
    pub(super) fn generate(seed: u64, sizes: &Sizes) -> Result<Self, Failure> {
        let tokenizer = Tokenizer::from_vocabulary(&vocabulary(), true)?;
        let dataset = |examples: &[SyntheticExample]| {
            Dataset::build(&rows(examples), labels(), &tokenizer, MAX_LENGTH, KeepTexts::No)
        };
        let Sizes { teacher_texts, student_texts, test_texts, .. } = *sizes;
        let all = generate(seed, test_texts + student_texts + teacher_texts);
        let (test, rest) = all.split_at(test_texts);
        let (student, teacher) = rest.split_at(student_texts);
        let facts = TokenizerFacts {
            vocab_size: tokenizer.vocab_size() as u64,
            digest: tokenizer.digest(),
        };
        Ok(Self {
            teacher: dataset(teacher)?,
            student: dataset(student)?,
            test: dataset(test)?,
            truth: test.to_vec(),
            tokenizer: facts,
            tokenizer_files: tokenizer.files().clone(),
        })
    }
}
