//! Matrix products: `c ← a b` or `c ← c + a b`, either factor transposed by its strides, and
//! something done to each block of `c` while it is still in the nearest caches.
//!
//! The only place that cuts a product into pieces; `kernel.rs` chooses how a piece is computed. Each
//! number of `c` is summed in an order that depends on the kernel and the shape alone: neither the
//! number of threads nor the width of the registers changes a bit.
//!
//! The way of the data (Goto & van de Geijn 2008, "Anatomy of high-performance matrix
//! multiplication", with the loop over the inner index inside that over columns, so that a block of
//! `c` is finished at one go): `b` is copied once into panels as wide as the registers of a tile;
//! then each thread takes a strip of rows, copies its part of `a` unless that can be read where it
//! lies, and computes tile by tile.

mod kernel;
mod lanes;
mod pack;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_pairs.rs")]
mod pairs;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::memory::{Lines, Rows, RowsMut};
use super::threads::{Cut, Threads};

pub(super) use kernel::Kernel;
use kernel::{Left, Tiles};
use pack::Source;

/// Inner indices whose products are summed before the sum joins `c`. Part of the meaning: it
/// decides the order of every sum.
const DEPTH: usize = 512;
/// Columns of a block of `c`, which stays in the second cache.
const BLOCK: usize = 256;
/// Most rows of a strip: `a`'s share of one depth also stays in the second cache.
const STRIP: usize = 96;
/// Numbers of `b` that are copied at a time, which bounds the memory: 16 MiB.
const PACKED: usize = 1 << 22;

/// Bytes that a product of `inner` inner indices and `columns` columns copies at a time, and those
/// of a strip beside it.
pub(super) fn room(inner: usize, columns: usize) -> [u64; 2] {
    [inner.saturating_mul(columns).min(PACKED), STRIP * DEPTH]
        .map(|n| (n * size_of::<f32>()) as u64)
}

/// A factor of a product.
#[derive(Clone, Copy)]
pub(super) enum Factor<'a> {
    /// The matrix as it lies.
    Plain(Rows<'a>),
    /// Its transpose.
    Transposed(Rows<'a>),
}

impl Factor<'_> {
    /// Rows and columns as seen by the product.
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Plain(rows) => (rows.rows, rows.cols),
            Self::Transposed(rows) => (rows.cols, rows.rows),
        }
    }

    /// The rows and columns of two ranges, as seen by the product.
    fn part(&self, rows: Range<usize>, cols: Range<usize>) -> Self {
        match self {
            Self::Plain(of) => Self::Plain(of.part(rows, cols)),
            Self::Transposed(of) => Self::Transposed(of.part(cols, rows)),
        }
    }
}

/// What lies beside `c`, row by row, for whoever finishes its blocks.
#[derive(Default)]
pub(super) struct Beside<'a> {
    /// A matrix to write.
    pub(super) write: Option<RowsMut<'a>>,
    /// A matrix to read.
    pub(super) read: Option<Rows<'a>>,
}

impl Beside<'_> {
    fn again(&mut self) -> Beside<'_> {
        Beside { write: self.write.as_mut().map(RowsMut::again), read: self.read }
    }
}

impl Cut for Beside<'_> {
    fn rows(&self) -> usize {
        self.write.as_ref().map_or_else(|| self.read.rows(), RowsMut::rows)
    }
    fn cut(self, row: usize) -> (Self, Self) {
        let (write, read) = (self.write.cut(row), self.read.cut(row));
        (Self { write: write.0, read: read.0 }, Self { write: write.1, read: read.1 })
    }
}

/// Memory that products reuse.
#[derive(Default)]
pub(super) struct Products {
    kernel: Kernel,
    packed: Lines,
}

impl Products {
    /// Products computed by `kernel`.
    pub(super) fn by(kernel: Kernel) -> Self {
        Self { kernel, packed: Lines::default() }
    }

    /// Computes by another kernel from now on; the memory stays.
    pub(super) fn set_kernel(&mut self, kernel: Kernel) {
        self.kernel = kernel;
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.packed.bytes()
    }

    /// `c ← a b`, or `c ← c + a b` where `accumulate`.
    pub(super) fn run(
        &mut self,
        threads: &Threads,
        c: RowsMut<'_>,
        a: Factor<'_>,
        b: Factor<'_>,
        accumulate: bool,
    ) {
        self.run_and(threads, c, a, b, accumulate, Beside::default(), |_, _, _| ());
    }

    /// As [`Products::run`]; `finish` is called once with every block of `c`: its columns, the rows
    /// of its strip, and what lies beside them. It may change that block alone.
    #[expect(clippy::too_many_arguments, reason = "a product, and what is done with it")]
    pub(super) fn run_and(
        &mut self,
        threads: &Threads,
        mut c: RowsMut<'_>,
        a: Factor<'_>,
        b: Factor<'_>,
        accumulate: bool,
        mut beside: Beside<'_>,
        finish: impl Fn(Range<usize>, &mut RowsMut<'_>, &mut Beside<'_>) + Sync,
    ) {
        let ((m, k), (depth, n)) = (a.shape(), b.shape());
        assert_eq!((c.rows, c.cols, depth), (m, n, k), "shapes of a product");
        if m == 0 || n == 0 {
            return;
        }
        let kernel = self.kernel;
        let tile = kernel.tile();
        let strip = strip(m, threads.count(), tile.rows);
        for columns in ranges(0..n, PACKED / DEPTH) {
            let panels = columns.len().div_ceil(tile.columns);
            let at_once = PACKED / (panels * tile.columns) / DEPTH * DEPTH;
            let mut inners = ranges(0..k, at_once.max(DEPTH)).peekable();
            // Without any inner index the sum is that of nothing.
            let mut inner = inners.next().unwrap_or(0..0);
            loop {
                let width = kernel.panel(inner.len());
                self.packed.reserve(panels * width);
                let packed = &mut self.packed[..panels * width];
                if width > 0 {
                    let source = Source { factor: b, inner: inner.clone() };
                    let rows = (0..panels, RowsMut::of(packed, width));
                    threads.pieces(rows, 4, |(at, panels)| {
                        let first = columns.start + at.start * tile.columns;
                        let columns = first..columns.end.min(first + at.len() * tile.columns);
                        kernel.pack_panels(&source, columns, panels);
                    });
                }
                let next = inners.next();
                let (add, last) = (accumulate || inner.start > 0, next.is_none());
                let packed = &self.packed[..panels * width];
                let in_place = kernel.reads_in_place(&a);
                if !in_place {
                    let depth = inner.start..inner.start + DEPTH.min(inner.len());
                    threads.reserve(kernel.strip_room(&a.part(0..strip.min(m), depth)));
                }
                let rows = (0..m, c.again(), beside.again());
                threads.pieces(rows, strip, |(rows, mut c, mut beside)| {
                    // What is copied is copied a depth at a time, which the second cache can hold;
                    // `c` is then passed over once for each.
                    let at_once = if in_place { inner.len() } else { DEPTH };
                    for part in ranges(0..inner.len(), at_once.max(1)).chain(empty(inner.len())) {
                        let these = inner.start + part.start..inner.start + part.end;
                        let mut scratch;
                        let left = match a.part(rows.clone(), these) {
                            Factor::Plain(a) if in_place => Left::Rows(a),
                            a => {
                                let room = kernel.strip_room(&a);
                                scratch = threads.scratch(room);
                                kernel.pack_strip(a, &mut scratch[..room])
                            }
                        };
                        for block in ranges(columns.clone(), BLOCK) {
                            kernel.compute(Tiles {
                                c: &mut c,
                                columns: block.clone(),
                                first_column: columns.start,
                                a: left,
                                b: packed,
                                inner: inner.len(),
                                part: part.clone(),
                                add: add || part.start > 0,
                            });
                            if last && part.end == inner.len() {
                                finish(block, &mut c, &mut beside);
                            }
                        }
                    }
                });
                match next {
                    Some(next) => inner = next,
                    None => break,
                }
            }
        }
    }
}

/// One empty part where there is nothing else to go through.
fn empty(len: usize) -> Option<Range<usize>> {
    (len == 0).then_some(0..0)
}

/// `range` in parts of `at_once`.
fn ranges(range: Range<usize>, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(at_once).map(move |start| start..end.min(start + at_once))
}

/// Rows of a strip: at most [`STRIP`], as many strips for each thread as for any other, whole tiles.
fn strip(rows: usize, threads: usize, tile: usize) -> usize {
    let strips = rows.div_ceil(threads * STRIP) * threads;
    rows.div_ceil(strips).next_multiple_of(tile)
}
