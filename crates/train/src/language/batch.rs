//! Rows of tokens as a packed batch, in the host's memory.
//!
//! In: rows, and the place of the first in its optimiser step. Out: what a model reads and what it
//! is to foresee. Never: a number that depends on how the step was cut.

use heirloom_data::order::LARGEST_STEP;
use heirloom_data::text::{NOT_LEARNT, Row};
use heirloom_engine::IGNORED;
use heirloom_models::Inputs;

/// Rows end to end: N tokens of S documents.
#[derive(Clone, Debug, Default)]
pub(super) struct TextBatch {
    /// Tokens, `[N]`.
    pub(super) ids: Vec<u32>,
    /// All 0, `[N]`: what encoders tell first and second texts apart by.
    types: Vec<u32>,
    /// Position of each token in its document, `[N]`.
    positions: Vec<u32>,
    /// Address of each token's random words, `[N]`: its row's place in the step, shifted left by 16
    /// bits, and its place in the row, so that no two tokens of a step share one.
    addresses: Vec<u32>,
    /// First token of each document, and N, `[S + 1]`.
    starts: Vec<u32>,
    /// The token that follows each, or [`IGNORED`], `[N]`; of a masked language model those of the
    /// hidden tokens alone, `[M]`.
    pub(super) labels: Vec<u32>,
    /// Hidden tokens, `[M]`; none for a causal model.
    masked: Vec<u32>,
    /// Tokens with a label.
    pub(super) learnt: u64,
}

impl TextBatch {
    /// Takes in `rows`, the first of which is number `first` of its step; `hidden` says that what has
    /// a label is to be guessed. Memory is kept.
    ///
    /// # Panics
    /// Where a step has more than [`LARGEST_STEP`] rows, which the order of rows excludes.
    pub(super) fn refill(&mut self, rows: &[Row], first: usize, hidden: bool) {
        assert!(first + rows.len() <= LARGEST_STEP, "a step holds {LARGEST_STEP} rows at most");
        for list in [
            &mut self.ids,
            &mut self.positions,
            &mut self.addresses,
            &mut self.starts,
            &mut self.labels,
            &mut self.masked,
        ] {
            list.clear();
        }
        self.learnt = 0;
        for (row, ordinal) in rows.iter().zip(first as u32..) {
            let base = self.ids.len() as u32;
            self.ids.extend_from_slice(&row.ids);
            self.addresses.extend((0..row.ids.len() as u32).map(|place| ordinal << 16 | place));
            for document in row.starts.windows(2) {
                self.starts.push(base + document[0]);
                self.positions.extend(0..document[1] - document[0]);
            }
            // The two crates' words for nothing are compared, not assumed to be one number.
            let label = |&label: &u32| if label == NOT_LEARNT { IGNORED } else { label };
            self.labels.extend(row.labels.iter().map(label));
            self.learnt += row.learnt() as u64;
        }
        self.starts.push(self.ids.len() as u32);
        self.types.resize(self.ids.len(), 0);
        if hidden {
            let guessed = (0u32..).zip(&self.labels).filter(|(_, label)| **label != IGNORED);
            self.masked.extend(guessed.map(|(place, _)| place));
            self.labels.retain(|&label| label != IGNORED);
        }
    }

    /// 1 where a token has something to foresee, else 0, `[N]`.
    pub(super) fn heard(&self) -> Vec<f32> {
        self.labels.iter().map(|&label| f32::from(u8::from(label != IGNORED))).collect()
    }

    /// As a model reads it.
    pub(super) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            ids: &self.ids,
            types: &self.types,
            positions: &self.positions,
            rows: &self.addresses,
            starts: &self.starts,
            masked: &self.masked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(starts: &[u32]) -> Row {
        let len = *starts.last().expect("a row has an end");
        let ids: Vec<u32> = (10..10 + len).collect();
        let mut labels: Vec<u32> = ids.iter().map(|id| id + 1).collect();
        for end in &starts[1..] {
            labels[*end as usize - 1] = NOT_LEARNT;
        }
        Row { ids, starts: starts.to_vec(), labels, bytes: 0 }
    }

    #[test]
    fn positions_begin_anew_at_each_document_and_addresses_at_each_row() {
        let mut batch = TextBatch::default();
        batch.refill(&[row(&[0, 9])], 0, true);
        assert_eq!((batch.masked.len(), batch.labels.len()), (8, 8));
        batch.refill(&[row(&[0, 2, 3]), row(&[0, 4])], 5, false);
        assert!(batch.masked.is_empty());
        assert_eq!(batch.starts, [0, 2, 3, 7]);
        assert_eq!(batch.positions, [0, 1, 0, 0, 1, 2, 3]);
        let high = |row: u32| row << 16;
        assert_eq!(batch.addresses[..3], [high(5), high(5) + 1, high(5) + 2]);
        assert_eq!(batch.addresses[3..], [high(6), high(6) + 1, high(6) + 2, high(6) + 3]);
        assert_eq!(batch.labels, [11, IGNORED, IGNORED, 11, 12, 13, IGNORED]);
        assert_eq!((batch.learnt, batch.types.len()), (4, 7));
    }
}
