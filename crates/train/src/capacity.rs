//! How large a batch can get, so that memory is asked for once.
//!
//! In: the lengths of all examples and the rules that form batches. Out: the largest batch of a run
//! whose order is known, or bounds that no batch exceeds: those of the longest and the shortest
//! examples. Never: a guess.

use heirloom_data::dataset::Dataset;
use heirloom_data::order::{BatchRule, Cursor, LARGEST_STEP, Order};
use heirloom_data::pack::micro_ranges;
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

/// Examples that are looked at to know a run's largest micro-batch: a second's worth. Longer runs
/// have the bounds.
const LOOKED_AT: usize = 1 << 25;

/// The largest micro-batch of the first `steps` steps under `seed`: the order of a run is known
/// before it begins.
pub fn run_capacity(
    dataset: &Dataset,
    seed: u64,
    steps: u64,
    step: BatchRule,
    micro: BatchRule,
) -> Capacity {
    let (mut order, mut cursor) = (Order::new(seed, dataset.len()), Cursor::default());
    let mut largest = Capacity { tokens: 1, sequences: 1, masked: 0 };
    let mut looked_at = 0;
    for _ in 0..steps {
        let (examples, after) = order.next_step(dataset, cursor, step);
        for range in micro_ranges(dataset, &examples, micro) {
            let part = &examples[range];
            let tokens = part.iter().map(|&example| dataset.length(example as usize)).sum();
            largest.tokens = largest.tokens.max(tokens);
            largest.sequences = largest.sequences.max(part.len());
        }
        looked_at += examples.len();
        if looked_at > LOOKED_AT {
            return micro_capacity(dataset, step, micro);
        }
        cursor = after;
    }
    largest
}
