//! How large a batch can get, so that memory is asked for once.
//!
//! In: the lengths of all examples and the rules that form batches. Out: bounds that no batch
//! exceeds. Never: a guess; the bounds are those of the longest and the shortest examples.

use heirloom_data::dataset::Dataset;
use heirloom_data::order::{BatchRule, LARGEST_STEP};
use heirloom_models::Capacity;

/// The largest batch that `rule` can form from `dataset`.
pub fn step_capacity(dataset: &Dataset, rule: BatchRule) -> Capacity {
    let mut lengths: Vec<usize> = (0..dataset.len()).map(|at| dataset.length(at)).collect();
    lengths.sort_unstable();
    let longest = lengths.last().copied().unwrap_or(1);
    let (tokens, sequences) = match rule {
        BatchRule::Sequences(sequences) => {
            let sequences = sequences.min(lengths.len()).max(1);
            (lengths.iter().rev().take(sequences).sum(), sequences)
        }
        BatchRule::Tokens(tokens) => {
            let mut sum = 0;
            let fit = lengths.iter().take_while(|&&length| {
                sum += length;
                sum <= tokens
            });
            (tokens.max(longest), fit.count().max(1))
        }
    };
    Capacity { tokens: tokens.max(longest), sequences: sequences.min(LARGEST_STEP), masked: 0 }
}

/// The largest micro-batch: no larger than its own rule allows, nor than a whole step.
pub fn micro_capacity(dataset: &Dataset, step: BatchRule, micro: BatchRule) -> Capacity {
    let (step, micro) = (step_capacity(dataset, step), step_capacity(dataset, micro));
    Capacity {
        tokens: step.tokens.min(micro.tokens),
        sequences: step.sequences.min(micro.sequences),
        masked: 0,
    }
}
