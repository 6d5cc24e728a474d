//! Work cut into pieces by shape, shared among the threads of the device's own pool.
//!
//! Who computes a piece depends on scheduling; what is computed does not: a piece never reads what
//! another wrote, and nothing is summed across pieces except in the fixed tree of [`Threads::sum`].

use std::sync::{Mutex, MutexGuard};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::memory::{Rows, RowsMut};

/// About this many numbers make a piece worth handing to another thread.
const PIECE: usize = 1 << 14;

/// The pool, and scratch memory of each thread.
pub(super) struct Threads {
    /// `None` with one thread: the caller's serves.
    pool: Option<ThreadPool>,
    scratch: Vec<Mutex<Vec<f32>>>,
}

impl Threads {
    /// A pool of `threads`; 0 is one per core.
    pub(super) fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        let build = || {
            let pool = ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.thread_name(|thread| format!("heirloom-{thread}")).build();
            pool.expect("the system starts a handful of threads")
        };
        Self {
            pool: (threads > 1).then(build),
            scratch: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// How many threads work.
    pub(super) fn count(&self) -> usize {
        self.scratch.len()
    }

    /// Runs `work` inside the pool, where rayon's own functions use its threads.
    pub(super) fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Cuts `items` into pieces of about [`PIECE`] numbers, `cost` numbers per row, and calls
    /// `work` on each.
    pub(super) fn over<T: Cut>(&self, items: T, cost: usize, work: impl Fn(T) + Sync) {
        let grain = (PIECE / cost.max(1)).max(1);
        if self.pool.is_none() || items.rows() <= grain {
            if items.rows() > 0 {
                work(items);
            }
        } else {
            self.inside(|| halve(items, grain, &work));
        }
    }

    /// Calls `work` with every index below `count`; `cost` numbers each.
    pub(super) fn each(&self, count: usize, cost: usize, work: impl Fn(usize) + Sync) {
        self.over(0..count, cost, |range| range.for_each(&work));
    }

    /// Sum over fixed pieces of `values` in a tree whose shape depends on their number alone.
    pub(super) fn sum(&self, values: &[f32], piece: impl Fn(&[f32]) -> f64 + Sync) -> f64 {
        let parallel = self.pool.is_some() && values.len() > PIECE;
        if parallel {
            self.inside(|| tree(values, true, &piece))
        } else {
            tree(values, false, &piece)
        }
    }

    /// `len` numbers that belong to the calling thread while the guard is held; their contents are
    /// whatever was left there. Nothing parallel may be started meanwhile.
    pub(super) fn scratch(&self, len: usize) -> MutexGuard<'_, Vec<f32>> {
        let thread = self.pool.as_ref().and_then(ThreadPool::current_thread_index).unwrap_or(0);
        let lock = &self.scratch[thread];
        // A panic elsewhere cannot leave scratch in a wrong state: it has none.
        let mut scratch = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        scratch
    }
}

fn halve<T: Cut>(items: T, grain: usize, work: &(impl Fn(T) + Sync)) {
    let rows = items.rows();
    if rows <= grain {
        return work(items);
    }
    let (left, right) = items.cut((rows / 2).next_multiple_of(grain).min(rows - 1));
    rayon::join(|| halve(left, grain, work), || halve(right, grain, work));
}

fn tree(values: &[f32], parallel: bool, piece: &(impl Fn(&[f32]) -> f64 + Sync)) -> f64 {
    if values.len() <= PIECE {
        return piece(values);
    }
    let (left, right) = values.split_at((values.len() / 2).next_multiple_of(PIECE));
    let (left, right) = if parallel {
        rayon::join(|| tree(left, true, piece), || tree(right, true, piece))
    } else {
        (tree(left, false, piece), tree(right, false, piece))
    };
    left + right
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
