//! How large a micro-batch of rows can get, so that memory is asked for once.

use std::ops::Range;

use heirloom_data::order::BatchRule;
use heirloom_data::text::{Row, Rows};
use heirloom_models::Capacity;
use heirloom_recipe::{Masking, TrainingPlan};

use crate::trainer::rule;

/// The largest micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LanguageCapacity {
    /// N.
    pub(super) tokens: usize,
    /// M, the tokens to be guessed; 0 for a causal model.
    pub(super) masked: usize,
}

impl LanguageCapacity {
    /// Of `tokens` tokens in rows of at most `longest`, of which `masking` hides some.
    pub(super) fn new(tokens: usize, longest: usize, masking: Option<Masking>) -> Self {
        let hidden = |Masking { probability: p, whole_words }: Masking| {
            // What is drawn word by word varies more than what is drawn token by token.
            let at_once = if whole_words { 4.0 } else { 1.0 };
            let (n, p) = (tokens as f64, p);
            let most = p * n + SPREADS * (p * (1.0 - p) * n * at_once).sqrt();
            (most.ceil() as usize).max(longest).min(tokens)
        };
        Self { tokens, masked: masking.map_or(0, hidden) }
    }

    /// As models plan for it: a document has a token at least.
    pub(super) fn of_models(self) -> Capacity {
        let Self { tokens, masked } = self;
        Capacity { tokens, sequences: tokens, masked }
    }

    /// `range` of `rows`, cut so that no part has more tokens to guess than there is room for. How a
    /// step is cut changes nothing.
    pub(super) fn fitting(self, rows: &[Row], range: Range<usize>) -> Vec<Range<usize>> {
        if self.masked == 0 {
            return vec![range];
        }
        let mut parts = Vec::new();
        let (mut first, mut sum) = (range.start, 0);
        for at in range.clone() {
            let learnt = rows[at].learnt();
            if sum + learnt > self.masked && at > first {
                parts.push(first..at);
                (first, sum) = (at, 0);
            }
            sum += learnt;
        }
        parts.push(first..range.end);
        parts
    }
}

/// Standard deviations above the mean for which there is room: fewer than one micro-batch of ten
/// thousand is then cut in two.
const SPREADS: f64 = 4.0;

/// The most tokens of a micro-batch: as many as its own rule allows, or a whole step has, or the
/// longest row.
pub(super) fn language_capacity(
    rows: &dyn Rows,
    training: &TrainingPlan,
    masking: Option<Masking>,
) -> LanguageCapacity {
    let longest = longest(rows);
    let most = |batch| match rule(batch) {
        BatchRule::Sequences(count) => count.min(rows.len()).saturating_mul(longest),
        BatchRule::Tokens(tokens) => tokens.max(longest),
    };
    let tokens = most(training.batch).min(most(training.micro_batch)).max(1);
    LanguageCapacity::new(tokens, longest, masking)
}

/// Tokens of the longest row, one at least.
pub(super) fn longest(rows: &dyn Rows) -> usize {
    (0..rows.len()).map(|row| rows.length(row)).max().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_no_more_to_guess_than_there_is_room_for_but_a_row_stays_whole() {
        let row = |learnt: u32| Row { labels: (0..learnt).collect(), ..Row::default() };
        let rows: Vec<Row> = [3, 4, 1, 9, 0, 2].into_iter().map(row).collect();
        let room = |masked| LanguageCapacity { tokens: 100, masked };
        let parts = |masked| room(masked).fitting(&rows, 0..6);
        assert_eq!(parts(7), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(parts(19), [Range { start: 0, end: 6 }]);
        assert_eq!(parts(0), [Range { start: 0, end: 6 }], "a causal model guesses nothing");
    }

    #[test]
    fn there_is_room_for_what_masking_hides_as_a_rule_and_for_the_longest_row() {
        let masking = Some(Masking { probability: 0.15, whole_words: false });
        let masked = |tokens, longest| LanguageCapacity::new(tokens, longest, masking).masked;
        // 0.15 · 8192 + 4 · √(0.15 · 0.85 · 8192) = 1228.8 + 129.3.
        assert_eq!(masked(8192, 128), 1359);
        assert_eq!((masked(8192, 4096), masked(64, 64)), (4096, 64));
        assert_eq!(LanguageCapacity::new(8192, 128, None).masked, 0);
    }
}
