//! Work cut into pieces by shape, shared among the threads of the device's own pool.
//!
//! Who computes a piece depends on scheduling; what is computed does not: a piece never reads what
//! another wrote, and nothing is summed across pieces except in the fixed tree of [`Threads::sum`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::memory::{Lines, Rows, RowsMut};
use super::pool::{self, Pool};

/// About this many numbers make a piece worth handing to another thread.
const PIECE: usize = 1 << 14;
/// Pieces for each thread where there is more work than that: enough to even out their speeds.
const PIECES: usize = 16;

/// The pool, and scratch memory of each thread.
pub(super) struct Threads {
    /// `None` with one thread: the caller's serves.
    pool: Option<Pool>,
    scratch: Vec<Mutex<Lines>>,
    /// Sums of pieces, as bits.
    partial: Mutex<Vec<AtomicU64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave what these guard in a wrong state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Threads {
    /// A pool of `threads`; 0 is one per core.
    pub(super) fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        Self {
            pool: (threads > 1).then(|| Pool::new(threads - 1)),
            scratch: (0..threads).map(|_| Mutex::default()).collect(),
            partial: Mutex::default(),
        }
    }

    /// How many threads work.
    pub(super) fn count(&self) -> usize {
        self.scratch.len()
    }

    /// Bytes of scratch.
    pub(super) fn bytes(&self) -> u64 {
        self.scratch.iter().map(|scratch| lock(scratch).bytes()).sum()
    }

    /// Cuts `items` into pieces of about [`PIECE`] numbers, `cost` numbers per row, and calls
    /// `work` on each.
    pub(super) fn over<T: Cut>(&self, items: T, cost: usize, work: impl Fn(T) + Sync) {
        let grain = (PIECE / cost.max(1)).max(1);
        let grain = grain.max(items.rows() / (PIECES * self.count()));
        self.pieces(items, grain, work);
    }

    /// Calls `work` on pieces of `grain` rows, each taken by the first thread that is free.
    pub(super) fn pieces<T: Cut>(&self, items: T, grain: usize, work: impl Fn(T) + Sync) {
        let rows = items.rows();
        match &self.pool {
            Some(pool) if rows > grain => {
                let rest = Mutex::new(Some(items));
                pool.run(&|| {
                    while let Some(piece) = take(&rest, grain) {
                        work(piece);
                    }
                });
            }
            _ => {
                let rest = Mutex::new((rows > 0).then_some(items));
                while let Some(piece) = take(&rest, grain) {
                    work(piece);
                }
            }
        }
    }

    /// Calls `work` with every index below `count`; `cost` numbers each.
    pub(super) fn each(&self, count: usize, cost: usize, work: impl Fn(usize) + Sync) {
        self.over(0..count, cost, |range| range.for_each(&work));
    }

    /// Sum over fixed pieces of `values` in a tree whose shape depends on their number alone.
    pub(super) fn sum(&self, values: &[f32], piece: impl Fn(&[f32]) -> f64 + Sync) -> f64 {
        if values.len() <= PIECE {
            return piece(values);
        }
        let count = values.len().div_ceil(PIECE);
        let mut partial = lock(&self.partial);
        if partial.len() < count {
            partial.resize_with(count, AtomicU64::default);
        }
        let partial = &partial[..count];
        let pieces = |range: std::ops::Range<usize>| {
            for at in range {
                let values = &values[at * PIECE..values.len().min((at + 1) * PIECE)];
                partial[at].store(piece(values).to_bits(), Ordering::Relaxed);
            }
        };
        self.pieces(0..count, (count / (PIECES * self.count())).max(1), pieces);
        tree(partial)
    }

    /// Makes room for `len` numbers of scratch on every thread: before an operation begins, since
    /// which of them get to work depends on scheduling, and memory may not.
    pub(super) fn reserve(&self, len: usize) {
        self.scratch.iter().for_each(|scratch| lock(scratch).reserve(len));
    }

    /// `len` numbers, [reserved](Self::reserve) before, that belong to the calling thread while the
    /// guard is held; their contents are whatever was left there. Nothing parallel may be started meanwhile.
    pub(super) fn scratch(&self, len: usize) -> MutexGuard<'_, Lines> {
        // With one thread the caller's serves, whatever pool it may belong to elsewhere.
        let thread = if self.pool.is_some() { pool::index() } else { 0 };
        let scratch = lock(&self.scratch[thread]);
        assert!(scratch.len() >= len, "{len} numbers of scratch were not reserved");
        scratch
    }
}

/// The next `grain` rows of what is left.
fn take<T: Cut>(rest: &Mutex<Option<T>>, grain: usize) -> Option<T> {
    let mut rest = lock(rest);
    let items = rest.take()?;
    if items.rows() <= grain {
        return Some(items);
    }
    let (piece, others) = items.cut(grain);
    *rest = Some(others);
    Some(piece)
}

fn tree(partial: &[AtomicU64]) -> f64 {
    match partial {
        [one] => f64::from_bits(one.load(Ordering::Relaxed)),
        _ => {
            let (left, right) = partial.split_at(partial.len().div_ceil(2));
            tree(left) + tree(right)
        }
    }
}

/// What can be cut between two rows.
pub(super) trait Cut: Send + Sized {
    /// How many rows.
    fn rows(&self) -> usize;
    /// The rows before `row`, and the others.
    fn cut(self, row: usize) -> (Self, Self);
}

impl Cut for Rows<'_> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cut(self, row: usize) -> (Self, Self) {
        let (left, right) = self.values.split_at((row * self.stride).min(self.values.len()));
        (
            Self { values: left, rows: row, ..self },
            Self { values: right, rows: self.rows - row, ..self },
        )
    }
}

impl Cut for RowsMut<'_> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cut(self, row: usize) -> (Self, Self) {
        let middle = (row * self.stride).min(self.values.len());
        let (left, right) = self.values.split_at_mut(middle);
        let (cols, stride) = (self.cols, self.stride);
        let right = Self { values: right, rows: self.rows - row, cols, stride };
        (Self { values: left, rows: row, cols, stride }, right)
    }
}

impl Cut for &[u32] {
    fn rows(&self) -> usize {
        self.len()
    }
    fn cut(self, row: usize) -> (Self, Self) {
        self.split_at(row)
    }
}

impl Cut for std::ops::Range<usize> {
    fn rows(&self) -> usize {
        self.len()
    }
    fn cut(self, row: usize) -> (Self, Self) {
        (self.start..self.start + row, self.start + row..self.end)
    }
}

/// An operand that may be absent is cut like the others.
impl<T: Cut> Cut for Option<T> {
    fn rows(&self) -> usize {
        self.as_ref().map_or(0, T::rows)
    }
    fn cut(self, row: usize) -> (Self, Self) {
        self.map_or((None, None), |items| {
            let (left, right) = items.cut(row);
            (Some(left), Some(right))
        })
    }
}

/// The first item decides the number of rows.
impl<A: Cut, B: Cut> Cut for (A, B) {
    fn rows(&self) -> usize {
        self.0.rows()
    }
    fn cut(self, row: usize) -> (Self, Self) {
        let ((a, c), (b, d)) = (self.0.cut(row), self.1.cut(row));
        ((a, b), (c, d))
    }
}

/// The first item decides the number of rows.
impl<A: Cut, B: Cut, C: Cut> Cut for (A, B, C) {
    fn rows(&self) -> usize {
        self.0.rows()
    }
    fn cut(self, row: usize) -> (Self, Self) {
        let (a, b, c) = (self.0.cut(row), self.1.cut(row), self.2.cut(row));
        ((a.0, b.0, c.0), (a.1, b.1, c.1))
    }
}
