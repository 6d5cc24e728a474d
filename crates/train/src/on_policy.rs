//! Batches that the student writes itself, and the teacher judges.
//!
//! In: which share of the batches, and prompts. Out: at which steps, with which random words, and the
//! rows that a student's texts make. Never: a random state, or a label to learn.
//!
//! Generalised knowledge distillation (GKD; Agarwal et al. 2024, arXiv:2306.13649, algorithm 1): with
//! probability λ a step's completions are drawn from the student, else they are the data's, and both
//! models' distributions at the completions' tokens are held against one another by a generalised
//! Jensen–Shannon divergence. Nothing flows through the drawing. λ = 1 with the reverse divergence
//! `KL(q ‖ p)` is the baseline in the manner of MiniLLM (Gu et al. 2024, arXiv:2306.08543): of its
//! gradient the part of each token's own distribution, exactly and not by samples, without the
//! part that later tokens would send back to earlier choices.

use heirloom_base::{Purpose, uniform, word};
use heirloom_data::text::{NOT_LEARNT, Row};
use heirloom_models::{Generate, Sampling};

/// How a student comes to read its own texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnPolicy {
    /// λ: which share of the steps it writes for, `0.0..=1.0`.
    pub share: f64,
    /// Most tokens after each prompt.
    pub new_tokens: usize,
    /// Of the drawing; 0 takes the most probable token. The loss has a temperature of its own.
    pub temperature: f64,
    /// Of the random words.
    pub seed: u64,
}

impl OnPolicy {
    /// Whether the student writes the batch of this step. A step's answer depends on the seed and
    /// on nothing that happened before.
    pub fn writes(&self, step: u64) -> bool {
        uniform(word(self.seed, Purpose::OnPolicy, step, 0)) < self.share
    }

    /// The address of a text's random words: `place` counts the prompts of the whole step, so that
    /// cutting it into micro-batches changes no text. Steps beyond 2³² wrap.
    pub fn address(step: u64, place: u32) -> u64 {
        step << 32 | u64::from(place)
    }

    /// What is asked of the student; `vocabulary` as in [`Generate`].
    pub fn ask(&self, stop: Vec<u32>, vocabulary: Option<usize>) -> Generate {
        let Self { new_tokens, temperature, seed, .. } = *self;
        let random = Sampling::Random { temperature, top_k: 0, top_p: 1.0, seed };
        let sampling = if temperature == 0.0 { Sampling::Greedy } else { random };
        Generate { new_tokens, stop, sampling, vocabulary }
    }
}

/// The prompts of a row's documents: the tokens of each before the first that is to be learnt. A
/// document in which nothing is learnt has none, nor has one that is learnt from its first token on:
/// no token of it is given.
pub fn prompts_of(row: &Row) -> impl Iterator<Item = &[u32]> {
    row.starts.windows(2).filter_map(|bounds| {
        let (start, end) = (bounds[0] as usize, bounds[1] as usize);
        let learnt = row.labels[start..end].iter().position(|&label| label != NOT_LEARNT)?;
        // The token at `learnt` is the last that is given: its label is the first to foresee.
        (learnt > 0).then(|| &row.ids[start..=start + learnt])
    })
}

/// Puts a prompt with what the student wrote behind `row`'s documents.
///
/// Its labels mark the positions that foresee a written token: what a divergence is taken over. They
/// are the student's own choices, so no cross-entropy may learn them. Bytes of text are not known and
/// count 0.
pub fn add_written(row: &mut Row, prompt: &[u32], written: &[u32]) {
    if row.starts.is_empty() {
        row.starts.push(0);
    }
    row.ids.extend_from_slice(prompt);
    row.ids.extend_from_slice(written);
    let given = prompt.len().saturating_sub(1);
    row.labels.extend(std::iter::repeat_n(NOT_LEARNT, given));
    row.labels.extend_from_slice(written);
    // The last token has nothing behind it.
    row.labels.extend((!prompt.is_empty()).then_some(NOT_LEARNT));
    row.starts.push(row.ids.len() as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_policy(share: f64) -> OnPolicy {
        OnPolicy { share, new_tokens: 8, temperature: 1.0, seed: 3 }
    }

    #[test]
    fn as_many_steps_are_written_as_the_share_says_and_always_the_same() {
        let count = |share| (0..10_000).filter(|&step| on_policy(share).writes(step)).count();
        assert_eq!([count(0.0), count(1.0)], [0, 10_000]);
        // Four standard deviations of a share of 10,000.
        assert!((2_800..3_200).contains(&count(0.3)), "{}", count(0.3));
        let half = on_policy(0.5);
        let (early, later): (Vec<bool>, Vec<bool>) =
            ((0..50).map(|s| half.writes(s)).collect(), (25..50).map(|s| half.writes(s)).collect());
        assert_eq!(early[25..], later);
        // A larger share writes wherever a smaller one does.
        assert!((0..1000).all(|step| !half.writes(step) || on_policy(0.8).writes(step)));
    }

    #[test]
    fn addresses_of_steps_and_places_are_apart() {
        let addresses = [(0, 0), (0, 1), (1, 0), (1, 1), (7, 1), (1, 7)];
        let mut found = addresses.map(|(step, place)| OnPolicy::address(step, place));
        found.sort_unstable();
        assert!(found.windows(2).all(|two| two[0] != two[1]));
    }

    #[test]
    fn without_temperature_the_most_probable_token_is_taken() {
        let greedy = OnPolicy { temperature: 0.0, ..on_policy(1.0) };
        assert_eq!(greedy.ask(vec![2], Some(9)).sampling, Sampling::Greedy);
        let ask = on_policy(1.0).ask(vec![2], Some(9));
        assert_eq!((ask.stop, ask.vocabulary, ask.new_tokens), (vec![2], Some(9), 8));
    }

    #[test]
    fn a_prompt_is_what_comes_before_the_first_token_to_learn() {
        const NONE: u32 = NOT_LEARNT;
        let row = Row {
            ids: vec![1, 2, 3, 4, 5, 6, 7, 8, 9],
            // Learnt: 4 and 5 after 3; nothing; from the first on.
            starts: vec![0, 5, 7, 9],
            labels: vec![NONE, NONE, 4, 5, NONE, NONE, NONE, 9, 10],
            bytes: 4,
        };
        let prompts: Vec<&[u32]> = prompts_of(&row).collect();
        assert_eq!(prompts, [&[1, 2, 3][..]]);
        assert_eq!(prompts_of(&Row::default()).count(), 0);
    }

    #[test]
    fn what_was_written_is_what_its_prompt_foresees() {
        let mut row = Row::default();
        add_written(&mut row, &[1, 2, 3], &[4, 5]);
        add_written(&mut row, &[6, 7], &[8]);
        assert_eq!(row.ids, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(row.starts, [0, 5, 8]);
        let none = NOT_LEARNT;
        assert_eq!(row.labels, [none, none, 4, 5, none, none, 8, none]);
        assert_eq!((row.learnt(), row.bytes), (3, 0));
        // The same prompts come out again.
        let prompts: Vec<&[u32]> = prompts_of(&row).collect();
        assert_eq!(prompts, [&[1, 2, 3][..], &[6, 7]]);
    }

    #[test]
    fn a_text_of_no_token_counts_nothing() {
        let mut row = Row::default();
        add_written(&mut row, &[1, 2], &[]);
        assert_eq!((row.ids.len(), row.labels.len(), row.learnt()), (2, 2, 0));
    }
}
