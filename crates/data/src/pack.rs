//! Batches without padding: sequences end to end, and where each begins.
//!
//! In: examples of a dataset. Out: packed batches, and the way back to the examples.
//! Never: a padding token, a sequence cut or moved, or a number that depends on how a step was
//! cut into micro-batches.
//!
//! The laws the tests hold: unpacking gives the examples back; micro-batches, joined, are the
//! whole.

use std::ops::Range;

use crate::dataset::Dataset;
use crate::label::Label;
use crate::order::{BatchRule, Examples, LARGEST_STEP, count};

/// Longest sequence, in tokens: positions take 16 bits of a dropout address.
pub const LONGEST_SEQUENCE: usize = 1 << 16;

/// What fills a micro-batch: the same rule as for a step.
pub type MicroRule = BatchRule;

/// Sequences end to end: N tokens of S sequences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Tokens, `[N]`.
    pub ids: Vec<u32>,
    /// Which text of a pair a token is of, `[N]`.
    pub type_ids: Vec<u32>,
    /// Position of a token in its sequence, from 0, `[N]`.
    pub positions: Vec<u32>,
    /// Dropout address of a token, `[N]`: the ordinal of its sequence within the optimiser step in
    /// the upper 16 bits, its position in the lower.
    pub rows: Vec<u32>,
    /// First token of each sequence, and N, `[S + 1]`.
    pub starts: Vec<u32>,
    /// Example of each sequence, `[S]`.
    pub examples: Vec<u32>,
    /// Label of each sequence, `[S]`.
    pub labels: Vec<Label>,
}

impl Batch {
    /// S, the number of sequences.
    pub fn sequences(&self) -> usize {
        self.examples.len()
    }

    /// N, the number of tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The tokens of a sequence.
    pub fn range(&self, sequence: usize) -> Range<usize> {
        self.starts[sequence] as usize..self.starts[sequence + 1] as usize
    }

    /// The most tokens of one sequence.
    pub fn longest(&self) -> usize {
        (0..self.sequences()).map(|sequence| self.range(sequence).len()).max().unwrap_or(0)
    }

    /// Fills this batch with `examples`, the first of which is number `first_ordinal` of its step.
    /// Memory is kept from the batch it held before.
    pub fn refill(&mut self, dataset: &Dataset, examples: &[u32], first_ordinal: usize) {
        assert!(
            first_ordinal + examples.len() <= LARGEST_STEP,
            "a step holds {LARGEST_STEP} sequences at most"
        );
        self.ids.clear();
        self.type_ids.clear();
        self.positions.clear();
        self.rows.clear();
        self.starts.clear();
        self.starts.push(0);
        self.examples.clear();
        self.examples.extend_from_slice(examples);
        self.labels.clear();
        for (&example, ordinal) in examples.iter().zip(first_ordinal as u32..) {
            let example = dataset.example(example as usize);
            let positions = 0..example.ids.len() as u32;
            self.ids.extend_from_slice(example.ids);
            self.type_ids.extend(example.type_ids.iter().map(|&id| u32::from(id)));
            self.rows.extend(positions.clone().map(|position| ordinal << 16 | position));
            self.positions.extend(positions);
            self.starts.push(self.ids.len() as u32);
            self.labels.push(example.label.clone());
        }
    }
}

/// Packs `examples`, the first of which is number `first_ordinal` of its step.
pub fn pack(dataset: &Dataset, examples: &[u32], first_ordinal: usize) -> Batch {
    let mut batch = Batch::default();
    batch.refill(dataset, examples, first_ordinal);
    batch
}

/// The parts of a step's `examples` that make its micro-batches. A part's beginning is the ordinal
/// of its first sequence. A sequence longer than the budget makes a part of its own.
pub fn micro_ranges<E: Examples + ?Sized>(
    dataset: &E,
    examples: &[u32],
    rule: MicroRule,
) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < examples.len() {
        let length = |example: u32| dataset.length(example as usize);
        let end = start + count(&examples[start..], rule, length);
        ranges.push(start..end);
        start = end;
    }
    ranges
}

/// Packs a step's `examples` into micro-batches. Ordinals count through the whole step, so that
/// cutting it differently changes no number.
pub fn micro_batches(dataset: &Dataset, examples: &[u32], rule: MicroRule) -> Vec<Batch> {
    let ranges = micro_ranges(dataset, examples, rule).into_iter();
    ranges.map(|range| pack(dataset, &examples[range.clone()], range.start)).collect()
}

/// All examples in batches of at most `tokens` tokens, the longest first, so that the largest
/// batch is met at once. [`Batch::examples`] leads back to the order of the dataset.
pub fn evaluation_batches(dataset: &Dataset, tokens: usize) -> impl Iterator<Item = Batch> {
    let mut examples: Vec<u32> = (0..dataset.len() as u32).collect();
    // A stable sort: examples of one length stay in their order.
    examples.sort_by_key(|&example| std::cmp::Reverse(dataset.length(example as usize)));
    let ranges = micro_ranges(dataset, &examples, BatchRule::Tokens(tokens)).into_iter();
    ranges.map(move |range| pack(dataset, &examples[range], 0))
}

/// Puts rows of `width` values, which lie in the order of a batch's sequences, where the rows of
/// their examples are in `all`.
pub fn scatter(batch: &Batch, rows: &[f32], width: usize, all: &mut [f32]) {
    assert_eq!(rows.len(), batch.sequences() * width, "one row for each sequence");
    for (row, &example) in rows.chunks_exact(width).zip(&batch.examples) {
        all[example as usize * width..][..width].copy_from_slice(row);
    }
}
