//! Matrix products: `c ← a b` or `c ← c + a b`, either factor transposed by its strides, and
//! something done to each block of `c` while it is still in the nearest caches.
//!
//! The only place that chooses how a product is computed. Each number of `c` is summed in an order
//! that depends on the shape alone: neither the number of threads nor the width of the registers
//! changes a bit.
//!
//! The way of the data (Goto & van de Geijn 2008, "Anatomy of high-performance matrix
//! multiplication", with the loop over the inner index inside that over columns, so that a block of
//! `c` is finished at one go): `b` is copied once into panels as wide as the registers of a tile;
//! then each thread takes a strip of rows, copies its part of `a`, and computes tile by tile.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::memory::{Lines, Rows, RowsMut};
use super::threads::{Cut, Threads};
use super::transpose::transpose;

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
    packed: Lines,
}

impl Products {
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
        let tile = Arch::new().dispatch(TileShape);
        let strip = strip(m, threads.count(), tile.rows);
        for columns in ranges(0..n, PACKED / DEPTH) {
            let panels = columns.len().div_ceil(tile.columns);
            let at_once = PACKED / (panels * tile.columns) / DEPTH * DEPTH;
            let mut inners = ranges(0..k, at_once.max(DEPTH)).peekable();
            // Without any inner index the sum is that of nothing.
            let mut inner = inners.next().unwrap_or(0..0);
            loop {
                let width = panel(inner.len(), tile.columns);
                self.packed.reserve(panels * width);
                let packed = &mut self.packed[..panels * width];
                if width > 0 {
                    let source = Source { factor: b, inner: inner.clone() };
                    let rows = (0..panels, RowsMut::of(packed, width));
                    threads.pieces(rows, 4, |(at, panels)| {
                        let first = columns.start + at.start * tile.columns;
                        let columns = first..columns.end.min(first + at.len() * tile.columns);
                        Arch::new().dispatch(PackPanels { source: &source, columns, panels });
                    });
                }
                let next = inners.next();
                let (add, last) = (accumulate || inner.start > 0, next.is_none());
                let packed = &self.packed[..panels * width];
                if let Factor::Transposed(_) = a {
                    threads.reserve(strip * DEPTH.min(inner.len()));
                }
                let rows = (0..m, c.again(), beside.again());
                threads.pieces(rows, strip, |(rows, mut c, mut beside)| {
                    // Columns are copied a depth at a time, which the second cache can hold; `c` is
                    // then passed over once for each.
                    let at_once = match a {
                        Factor::Plain(_) => inner.len(),
                        Factor::Transposed(_) => DEPTH,
                    };
                    for part in ranges(0..inner.len(), at_once.max(1)).chain(empty(inner.len())) {
                        let these = inner.start + part.start..inner.start + part.end;
                        let mut scratch;
                        let left = match a {
                            Factor::Plain(a) => Left::Rows(a.part(rows.clone(), these)),
                            Factor::Transposed(a) => {
                                let room = rows.len().next_multiple_of(tile.rows) * part.len();
                                scratch = threads.scratch(room);
                                let (from, packed) =
                                    (a.part(these, rows.clone()), &mut scratch[..room]);
                                Arch::new().dispatch(PackStrip { from, packed });
                                Left::Columns(packed)
                            }
                        };
                        for block in ranges(columns.clone(), BLOCK) {
                            Arch::new().dispatch(Tiles {
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

/// Numbers from one panel to the next. Not a power of two, whose
/// multiples would meet in the same lines of the first cache.
fn panel(inner: usize, wide: usize) -> usize {
    if inner == 0 { 0 } else { inner * wide + 16 }
}

/// Rows of a strip: at most [`STRIP`], as many strips for each thread as for any other, whole tiles.
fn strip(rows: usize, threads: usize, tile: usize) -> usize {
    let strips = rows.div_ceil(threads * STRIP) * threads;
    rows.div_ceil(strips).next_multiple_of(tile)
}

/// Rows of a tile of `c` that is held in registers: sixteen of them (thirty-two where they are
/// wider), less one row of `b` and one number of `a`.
const fn tile_rows(lanes: usize) -> usize {
    match lanes {
        16 => 14,
        1 => 4,
        _ => 6,
    }
}

/// Rows and columns of a tile.
struct TileShape;

/// What [`TileShape`] gives.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    columns: usize,
}

impl WithSimd for TileShape {
    type Output = Tile;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Tile {
        Tile { rows: tile_rows(S::F32_LANES), columns: 2 * S::F32_LANES }
    }
}

/// Part of a factor that is to be copied.
struct Source<'a> {
    factor: Factor<'a>,
    inner: Range<usize>,
}

/// Copies panels of `b`, each as wide as a tile: `[inner][columns]`, the gap filled with zeros.
struct PackPanels<'a, 'b> {
    source: &'a Source<'a>,
    columns: Range<usize>,
    panels: RowsMut<'b>,
}

impl WithSimd for PackPanels<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let wide = 2 * S::F32_LANES;
        let inner = self.source.inner.clone();
        match self.source.factor {
            Factor::Plain(b) => {
                for (at, row) in inner.enumerate() {
                    let row = &b.row(row)[self.columns.clone()];
                    let (whole, rest) = row.split_at(row.len() / wide * wide);
                    for (panel, from) in whole.chunks_exact(wide).enumerate() {
                        let to = &mut self.panels.row(panel)[at * wide..][..wide];
                        to.copy_from_slice(from);
                    }
                    if !rest.is_empty() {
                        let panel = whole.len() / wide;
                        let to = &mut self.panels.row(panel)[at * wide..][..wide];
                        to.fill(0.0);
                        to[..rest.len()].copy_from_slice(rest);
                    }
                }
            }
            Factor::Transposed(b) => {
                for (panel, columns) in ranges(self.columns.clone(), wide).enumerate() {
                    let to = self.panels.row(panel);
                    if columns.len() < wide {
                        to.fill(0.0);
                    }
                    for part in ranges(0..inner.len(), 8) {
                        for eight in ranges(0..columns.len(), 8) {
                            let mut rows = [[0.0; 8]; 8];
                            for (at, to) in rows[..eight.len()].iter_mut().enumerate() {
                                let from = b.row(columns.start + eight.start + at);
                                let from = &from[inner.start + part.start..][..part.len()];
                                if let Ok(from) = <&[f32; 8]>::try_from(from) {
                                    *to = *from;
                                } else {
                                    to[..from.len()].copy_from_slice(from);
                                }
                            }
                            let turned = transpose(rows, S::F32_LANES >= 8);
                            for (at, from) in part.clone().zip(&turned) {
                                let to = &mut to[at * wide + eight.start..];
                                let to = &mut to[..8.min(wide)];
                                to.copy_from_slice(&from[..8.min(wide)]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Copies columns that are rows of a strip: `[inner][tile's rows]` for each tile. Rows beyond the
/// last are zero.
struct PackStrip<'a, 'b> {
    /// `[inner][strip's rows]`.
    from: Rows<'a>,
    packed: &'b mut [f32],
}

impl WithSimd for PackStrip<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match S::F32_LANES {
            16 => self.pack::<{ tile_rows(16) }>(),
            1 => self.pack::<{ tile_rows(1) }>(),
            _ => self.pack::<{ tile_rows(8) }>(),
        }
    }
}

impl PackStrip<'_, '_> {
    #[inline(always)]
    fn pack<const ROWS: usize>(self) {
        let Self { from, packed } = self;
        // A few rows at a time, tile by tile, so that both sides stay near.
        for few in ranges(0..from.rows, 16) {
            let tiles = packed.chunks_exact_mut(ROWS * from.rows);
            for (columns, to) in ranges(0..from.cols, ROWS).zip(tiles) {
                let to = &mut to.as_chunks_mut::<ROWS>().0[few.clone()];
                let from_few = &from.values[few.start * from.stride + columns.start..];
                if columns.len() == ROWS {
                    for (at, to) in to.iter_mut().enumerate() {
                        to.copy_from_slice(&from_few[at * from.stride..][..ROWS]);
                    }
                } else {
                    for (at, to) in to.iter_mut().enumerate() {
                        to.fill(0.0);
                        let from = &from_few[at * from.stride..][..columns.len()];
                        to[..columns.len()].copy_from_slice(from);
                    }
                }
            }
        }
    }
}

/// A strip of `a`.
#[derive(Clone, Copy)]
enum Left<'a> {
    /// Where it lies.
    Rows(Rows<'a>),
    /// As [`PackStrip`] copies it: one depth of it.
    Columns(&'a [f32]),
}

/// Computes a block of `c`.
struct Tiles<'a, 'b> {
    c: &'a mut RowsMut<'b>,
    columns: Range<usize>,
    /// The column of `c` that the first panel begins with.
    first_column: usize,
    a: Left<'a>,
    b: &'a [f32],
    /// Inner indices of a panel of `b`, and those that `a` has.
    inner: usize,
    part: Range<usize>,
    add: bool,
}

impl WithSimd for Tiles<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.compute::<S, { tile_rows(16) }>(simd),
            1 => self.compute::<S, { tile_rows(1) }>(simd),
            _ => self.compute::<S, { tile_rows(8) }>(simd),
        }
    }
}

impl Tiles<'_, '_> {
    #[inline(always)]
    fn compute<S: Simd, const ROWS: usize>(self, simd: S) {
        let wide = 2 * S::F32_LANES;
        let Self { c, columns, first_column, a, b, inner, part, add } = self;
        if inner == 0 && !add {
            (0..c.rows).for_each(|row| c.row(row)[columns.clone()].fill(0.0));
        }
        for depth in ranges(0..part.len(), DEPTH) {
            let add = add || depth.start > 0;
            let first_row = part.start + depth.start;
            for columns in ranges(columns.clone(), wide) {
                let panels = (columns.start - first_column) / wide;
                let b = &b[panels * panel(inner, wide) + first_row * wide..][..depth.len() * wide];
                let b = S::as_simd_f32s(b).0.as_chunks::<2>().0;
                for first in (0..c.rows).step_by(ROWS) {
                    let rows = first..c.rows.min(first + ROWS);
                    if add {
                        // What is written need not be there; what is added to should be.
                        for row in rows.clone() {
                            prefetch(&c.row(row)[columns.clone()]);
                        }
                    }
                    let sums = match a {
                        Left::Rows(a) if rows.len() == ROWS => {
                            let start = first * a.stride + depth.start;
                            let a_rows = &a.values[start..];
                            let rows =
                                std::array::from_fn(|row| &a_rows[row * a.stride..][..depth.len()]);
                            sums_of_rows::<S, ROWS>(simd, rows, b)
                        }
                        Left::Rows(a) => {
                            // Rows beyond the last are computed from it and thrown away.
                            let last = c.rows - 1;
                            let rows = std::array::from_fn(|row| {
                                &a.row(last.min(first + row))[depth.clone()]
                            });
                            sums_of_rows::<S, ROWS>(simd, rows, b)
                        }
                        Left::Columns(a) => {
                            let a = &a[first * part.len()..][..ROWS * part.len()];
                            sums_of_columns::<S, ROWS>(simd, a, b)
                        }
                    };
                    store::<S, ROWS>(simd, c, rows, columns.clone(), &sums, add);
                }
            }
        }
    }
}

/// A tile of `c` from rows of `a`, as long as `b`.
#[inline(always)]
fn sums_of_rows<S: Simd, const ROWS: usize>(
    simd: S,
    rows: [&[f32]; ROWS],
    b: &[[S::f32s; 2]],
) -> [[S::f32s; 2]; ROWS] {
    let rows = rows.map(|row| &row[..b.len()]);
    let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
    for (at, b) in b.iter().enumerate() {
        for (row, sums) in rows.iter().zip(&mut sums) {
            let a = simd.splat_f32s(row[at]);
            sums[0] = simd.mul_add_f32s(a, b[0], sums[0]);
            sums[1] = simd.mul_add_f32s(a, b[1], sums[1]);
        }
    }
    sums
}

/// A tile of `c` from `[inner][rows]` of `a`.
#[inline(always)]
fn sums_of_columns<S: Simd, const ROWS: usize>(
    simd: S,
    a: &[f32],
    b: &[[S::f32s; 2]],
) -> [[S::f32s; 2]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
    for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b) {
        for (&a, sums) in a.iter().zip(&mut sums) {
            let a = simd.splat_f32s(a);
            sums[0] = simd.mul_add_f32s(a, b[0], sums[0]);
            sums[1] = simd.mul_add_f32s(a, b[1], sums[1]);
        }
    }
    sums
}

/// Writes a tile, or adds it.
#[inline(always)]
fn store<S: Simd, const ROWS: usize>(
    simd: S,
    c: &mut RowsMut<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    sums: &[[S::f32s; 2]; ROWS],
    add: bool,
) {
    if rows.len() == ROWS && columns.len() == 2 * S::F32_LANES {
        // With every bound known, the sums never leave the registers.
        let stride = c.stride;
        let start = rows.start * stride + columns.start;
        let c = &mut c.values[start..start + (ROWS - 1) * stride + 2 * S::F32_LANES];
        for row in 0..ROWS {
            let c = S::as_mut_simd_f32s(&mut c[row * stride..][..2 * S::F32_LANES]).0;
            for part in 0..2 {
                let sum = sums[row][part];
                c[part] = if add { simd.add_f32s(c[part], sum) } else { sum };
            }
        }
        return;
    }
    for (row, sums) in rows.zip(sums) {
        let c = &mut c.row(row)[columns.clone()];
        for (c, &sum) in c.chunks_mut(S::F32_LANES).zip(sums) {
            let old = simd.partial_load_f32s(c);
            let new = if add { simd.add_f32s(old, sum) } else { sum };
            simd.partial_store_f32s(c, new);
        }
    }
}

/// Asks for the first lines of `values` to be brought near; changes nothing else.
#[inline(always)]
fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "the instruction takes a pointer")]
        // SAFETY: a prefetch reads nothing that the program could see, and faults nowhere.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
