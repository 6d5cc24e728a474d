//! Which example comes when: a pure function of (seed, epoch, position).
//!
//! In: a seed, a cursor, a rule. Out: the examples of the next step, and the cursor after it.
//! Never: state that a resumed run would have to restore, or an example left out. The last step
//! of an epoch takes what is left.
//!
//! Rows of a text may come first, all others in the order that the seed gives them.
//!
//! The law the tests hold: from any cursor, the steps to the end of the epoch are the tail of the
//! epoch's order.

use heirloom_base::{Purpose, permutation};
use serde::{Deserialize, Serialize};

/// Examples of which the lengths are known.
pub trait Examples {
    /// Tokens of an example.
    fn length(&self, example: usize) -> usize;
}

impl<E: Examples + ?Sized> Examples for std::sync::Arc<E> {
    fn length(&self, example: usize) -> usize {
        (**self).length(example)
    }
}

impl Examples for dyn crate::text::Rows + '_ {
    fn length(&self, row: usize) -> usize {
        crate::text::Rows::length(self, row)
    }
}

impl Examples for crate::dataset::Dataset {
    fn length(&self, example: usize) -> usize {
        Self::length(self, example)
    }
}

/// How far training is: all that order needs to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Examples of this epoch already trained on.
    pub position: u64,
    /// Steps done.
    pub step: u64,
}

/// What fills a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchRule {
    /// This many sequences.
    Sequences(usize),
    /// As many sequences as fit into this many tokens, and one at least.
    Tokens(usize),
}

/// Sequences that one step may hold: their ordinals take 16 bits of a dropout address.
pub const LARGEST_STEP: usize = 1 << 16;

/// The order of the examples; remembers the epoch it was asked for last.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    examples: usize,
    /// Ascending; what comes before the others in the first epoch.
    first: Vec<u32>,
    epoch: Option<(u64, Vec<u32>)>,
}

impl Order {
    /// The order of `examples` examples under `seed`.
    pub fn new(seed: u64, examples: usize) -> Self {
        Self { seed, examples, first: Vec::new(), epoch: None }
    }

    /// That of rows, of which [some may come first](crate::text::Rows::first): in the order that they
    /// have among all, and the others behind them in theirs.
    pub fn of_rows(seed: u64, rows: &dyn crate::text::Rows) -> Self {
        Self { first: rows.first().to_vec(), ..Self::new(seed, rows.len()) }
    }

    /// All examples in the order of `epoch`.
    pub fn epoch(&mut self, epoch: u64) -> &[u32] {
        let (seed, examples) = (self.seed, self.examples);
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let mut order = permutation(seed, Purpose::Shuffle, epoch, examples);
            if epoch == 0 && !self.first.is_empty() {
                // A stable sort: neither part changes its order.
                order.sort_by_key(|row| self.first.binary_search(row).is_err());
            }
            self.epoch = Some((epoch, order));
        }
        &self.epoch.as_ref().expect("set just above").1
    }

    /// The examples of the step at `cursor`, and the cursor after it.
    ///
    /// A step holds one sequence at least and [`LARGEST_STEP`] at most, and never examples of two
    /// epochs. Without any example it is empty and the cursor stays.
    pub fn next_step<E: Examples + ?Sized>(
        &mut self,
        dataset: &E,
        cursor: Cursor,
        rule: BatchRule,
    ) -> (Vec<u32>, Cursor) {
        let order = self.epoch(cursor.epoch);
        let rest = order.get(cursor.position as usize..).unwrap_or_default();
        let count = count(rest, rule, |example| dataset.length(example as usize));
        let step = rest[..count].to_vec();
        let end = cursor.position + count as u64;
        let after = if order.is_empty() {
            cursor
        } else if end < order.len() as u64 {
            Cursor { position: end, step: cursor.step + 1, ..cursor }
        } else {
            Cursor { epoch: cursor.epoch + 1, position: 0, step: cursor.step + 1 }
        };
        (step, after)
    }

    /// The examples that the first `steps` steps read, ascending, each once.
    pub fn read_within<E: Examples + ?Sized>(
        &mut self,
        dataset: &E,
        steps: u64,
        rule: BatchRule,
    ) -> Vec<u32> {
        let mut cursor = Cursor::default();
        while cursor.step < steps && cursor.epoch == 0 && self.examples > 0 {
            cursor = self.next_step(dataset, cursor, rule).1;
        }
        let mut read = self.epoch(0).to_vec();
        // An epoch leaves none out.
        if cursor.epoch == 0 {
            read.truncate(cursor.position as usize);
        }
        read.sort_unstable();
        read
    }

    /// Steps of `epoch`. Under a rule of tokens it differs from epoch to epoch.
    pub fn steps_per_epoch<E: Examples + ?Sized>(
        &mut self,
        dataset: &E,
        epoch: u64,
        rule: BatchRule,
    ) -> u64 {
        let mut rest = self.epoch(epoch);
        let mut steps = 0;
        while !rest.is_empty() {
            rest = &rest[count(rest, rule, |example| dataset.length(example as usize))..];
            steps += 1;
        }
        steps
    }
}

/// How many of `examples` the rule takes; one at least, where there is one.
pub(crate) fn count(examples: &[u32], rule: BatchRule, length: impl Fn(u32) -> usize) -> usize {
    let taken = match rule {
        BatchRule::Sequences(sequences) => sequences,
        BatchRule::Tokens(budget) => {
            let mut tokens = 0;
            let fits = |example: &&u32| {
                tokens += length(**example);
                tokens <= budget
            };
            examples.iter().take_while(fits).count()
        }
    };
    taken.clamp(1, LARGEST_STEP).min(examples.len())
}
