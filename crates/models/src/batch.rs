//! A packed batch on a device.
//!
//! In: token ids of sequences laid end to end, without padding, and where each begins. Out: index
//! views that the operations read. Never: text, labels, or a padding token.

use heirloom_engine::{Device, IdSpace, Ids};

/// A packed batch in the host's memory; all borrowed, `[N]` unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// Token types: 0 for the first text, 1 for the second.
    pub types: &'a [u32],
    /// Position of each token in its sequence, from 0.
    pub positions: &'a [u32],
    /// Address of each token's random words: the sequence's place in the optimiser step, shifted
    /// left by 16 bits, and the position. Independent of how the step is cut.
    pub rows: &'a [u32],
    /// First row of each sequence, and N at the end, `[S + 1]`.
    pub starts: &'a [u32],
    /// Rows whose token a masked language model must guess; empty for other heads. `[M]`
    pub masked: &'a [u32],
}

/// The largest batch that buffers are planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// N.
    pub tokens: usize,
    /// S.
    pub sequences: usize,
    /// M; 0 for heads that look at whole sequences.
    pub masked: usize,
}

/// Index views of the batch that was uploaded last.
#[derive(Clone, Debug)]
pub struct DeviceBatch {
    space: IdSpace,
    capacity: Capacity,
    first_position: u32,
    positions: Vec<u32>,
    firsts: Vec<u32>,
    tokens: usize,
    sequences: usize,
    masked: usize,
    longest: usize,
}

impl DeviceBatch {
    /// Room for batches up to `capacity`, for a model whose positions begin at `first_position`.
    pub fn new(device: &mut dyn Device, capacity: Capacity, first_position: u32) -> Self {
        let len = 4 * capacity.tokens + 2 * capacity.sequences + 1 + capacity.masked;
        Self {
            space: device.alloc_ids(len),
            capacity,
            first_position,
            positions: Vec::with_capacity(capacity.tokens),
            firsts: Vec::with_capacity(capacity.sequences),
            tokens: 0,
            sequences: 0,
            masked: 0,
            longest: 0,
        }
    }

    /// Copies a batch in. It must fit the capacity and hold at least one token per sequence.
    pub fn upload(&mut self, device: &mut dyn Device, inputs: &Inputs<'_>) {
        self.tokens = inputs.ids.len();
        self.sequences = inputs.starts.len() - 1;
        self.masked = inputs.masked.len();
        assert!(
            self.tokens <= self.capacity.tokens
                && self.sequences <= self.capacity.sequences
                && self.masked <= self.capacity.masked,
            "a batch of {} tokens, {} sequences, {} masked in room for {:?}",
            self.tokens,
            self.sequences,
            self.masked,
            self.capacity,
        );
        let lengths = inputs.starts.windows(2).map(|pair| pair[1] - pair[0]);
        self.longest = lengths.max().unwrap_or(0) as usize;
        self.positions.clear();
        self.positions.extend(inputs.positions.iter().map(|&at| at + self.first_position));
        self.firsts.clear();
        self.firsts
            .extend(inputs.starts[..self.sequences].iter().map(|&at| inputs.rows[at as usize]));
        device.write_ids(self.ids(), inputs.ids);
        device.write_ids(self.types(), inputs.types);
        device.write_ids(self.positions(), &self.positions);
        device.write_ids(self.rows(), inputs.rows);
        device.write_ids(self.starts(), inputs.starts);
        device.write_ids(self.first_rows(), &self.firsts);
        device.write_ids(self.masked(), inputs.masked);
    }

    /// N of the present batch.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// S of the present batch.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Tokens of its longest sequence.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// First row of each sequence, and N, `[S + 1]`.
    pub fn starts(&self) -> Ids {
        Ids::at(self.space, 4 * self.capacity.tokens, self.sequences + 1)
    }

    pub(crate) fn ids(&self) -> Ids {
        Ids::at(self.space, 0, self.tokens)
    }

    pub(crate) fn types(&self) -> Ids {
        Ids::at(self.space, self.capacity.tokens, self.tokens)
    }

    pub(crate) fn positions(&self) -> Ids {
        Ids::at(self.space, 2 * self.capacity.tokens, self.tokens)
    }

    pub(crate) fn rows(&self) -> Ids {
        Ids::at(self.space, 3 * self.capacity.tokens, self.tokens)
    }

    /// Addresses of the sequences' first tokens, `[S]`.
    pub(crate) fn first_rows(&self) -> Ids {
        let at = 4 * self.capacity.tokens + self.capacity.sequences + 1;
        Ids::at(self.space, at, self.sequences)
    }

    pub(crate) fn masked(&self) -> Ids {
        let at = 4 * self.capacity.tokens + 2 * self.capacity.sequences + 1;
        Ids::at(self.space, at, self.masked)
    }
}
