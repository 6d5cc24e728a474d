//! The buffers of the CPU device, and the only place that turns views into slices.
//!
//! In: views. Out: rows to read and rows to write, checked to lie inside their buffers and, where
//! written, to touch nothing else of the same operation.
//! Never: two slices of the same number of which one can be written.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::{Pod, Zeroable};

use crate::{Space, View};

/// One cache line of numbers; buffers begin at its alignment.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Numbers that begin at a cache line.
#[derive(Default)]
pub(super) struct Lines {
    lines: Vec<Line>,
    len: usize,
}

impl Lines {
    /// Zeros that the operating system provides only when they are touched.
    fn zeros(len: usize) -> Self {
        Self { lines: bytemuck::zeroed_vec(len.div_ceil(16)), len }
    }

    /// Makes room for `len` numbers at least; what they hold is not said. Grows by half at least, so
    /// that a run of slowly growing batches asks a handful of times; what is not used yet is not
    /// touched either, and so takes no memory.
    pub(super) fn reserve(&mut self, len: usize) {
        if self.len < len {
            // The old memory is given back before the new is asked for.
            let room = len.max(self.len + self.len / 2);
            *self = Self::default();
            *self = Self::zeros(room);
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        (self.lines.len() * size_of::<Line>()) as u64
    }

    fn start(&mut self) -> *mut f32 {
        self.lines.as_mut_ptr().cast()
    }
}

impl Deref for Lines {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// All spaces of the device.
#[derive(Default)]
pub(super) struct Memory {
    spaces: Vec<Lines>,
}

impl Memory {
    pub(super) fn alloc(&mut self, len: usize) -> Space {
        self.spaces.push(Lines::zeros(len));
        Space(self.spaces.len() as u32 - 1)
    }

    pub(super) fn resize(&mut self, space: Space, len: usize) {
        // The old contents are given back before the new are asked for.
        self.spaces[space.0 as usize] = Lines::default();
        self.spaces[space.0 as usize] = Lines::zeros(len);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.spaces.iter().map(Lines::bytes).sum()
    }

    /// Rows to read where nothing is written.
    pub(super) fn read(&self, view: View) -> Rows<'_> {
        let values = self.spaces.get(view.space.0 as usize).map_or(&[][..], |space| space);
        let values = &values[inside(view, values.len())];
        Rows { values, rows: view.rows, cols: view.cols, stride: view.stride }
    }

    /// Rows to read and rows to write of one operation.
    ///
    /// # Panics
    /// Where a view leaves its space, or a written view touches any other.
    #[expect(
        unsafe_code,
        reason = "slices of several spaces, and of several parts of one, at once"
    )]
    pub(super) fn borrow<const R: usize, const W: usize>(
        &mut self,
        reads: [View; R],
        writes: [View; W],
    ) -> ([Rows<'_>; R], [RowsMut<'_>; W]) {
        for (at, &write) in writes.iter().enumerate() {
            let others = reads.iter().chain(&writes[at + 1..]);
            for &other in others.filter(|_| !write.is_empty()) {
                assert!(other.is_empty() || !write.overlaps(other), "{write:?} overlaps {other:?}");
            }
            // Rows that overlap their own neighbours would be written twice.
            assert!(write.rows <= 1 || write.stride >= write.cols, "rows of {write:?} overlap");
        }
        let mut place = |view: View| {
            // A device without spaces has views of nothing all the same.
            let space = self.spaces.get_mut(view.space.0 as usize);
            let len = space.as_ref().map_or(0, |space| space.len);
            let range = inside(view, len);
            let start = space.map_or(std::ptr::NonNull::dangling().as_ptr(), Lines::start);
            (start.wrapping_add(range.start), range.len())
        };
        let reads = reads.map(|view| {
            let (start, len) = place(view);
            // SAFETY: `inside` checked that the range lies in the buffer, which holds initialised
            // numbers and is borrowed mutably for as long as the slice lives; no write overlaps it.
            let values = unsafe { std::slice::from_raw_parts(start, len) };
            Rows { values, rows: view.rows, cols: view.cols, stride: view.stride }
        });
        let writes = writes.map(|view| {
            let (start, len) = place(view);
            // SAFETY: as above, and the loop at the top checked that no other view of this call
            // overlaps this range.
            let values = unsafe { std::slice::from_raw_parts_mut(start, len) };
            RowsMut { values, rows: view.rows, cols: view.cols, stride: view.stride }
        });
        (reads, writes)
    }
}

/// The view's extent, inside a space of `len` numbers.
fn inside(view: View, len: usize) -> Range<usize> {
    if view.is_empty() {
        return 0..0;
    }
    let extent = view.extent();
    assert!(extent.end <= len, "{view:?} leaves its space of {len}");
    extent
}

/// A view of nothing: stands for an operand that is absent.
pub(super) fn nothing() -> View {
    View::matrix(Space(0), 0, 0, 0)
}

/// A matrix to read; the slice ends with its last row.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
}

impl<'a> Rows<'a> {
    /// A contiguous matrix.
    pub(super) fn of(values: &'a [f32], cols: usize) -> Self {
        Self { values, rows: values.len().checked_div(cols).unwrap_or(0), cols, stride: cols }
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.stride..row * self.stride + self.cols]
    }

    /// The rows and columns of two ranges.
    pub(super) fn part(&self, rows: Range<usize>, cols: Range<usize>) -> Self {
        assert!(rows.end <= self.rows && cols.end <= self.cols, "a part inside the matrix");
        let start = (rows.start * self.stride + cols.start).min(self.values.len());
        Self {
            values: &self.values[start..],
            rows: rows.len(),
            cols: cols.len(),
            stride: self.stride,
        }
    }

    /// The numbers in as few slices as possible: one, or one per row.
    #[inline(always)]
    pub(super) fn runs(&self) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let width = if self.stride == self.cols { self.rows * self.cols } else { self.cols };
        let stride = if self.stride == self.cols { width } else { self.stride };
        self.values.chunks(stride.max(1)).map(move |run| &run[..width])
    }
}

/// A matrix to write; the slice ends with its last row.
pub(super) struct RowsMut<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
}

impl<'a> RowsMut<'a> {
    /// A contiguous matrix.
    pub(super) fn of(values: &'a mut [f32], cols: usize) -> Self {
        let rows = values.len().checked_div(cols).unwrap_or(0);
        Self { values, rows, cols, stride: cols }
    }

    /// The same rows for a shorter time.
    pub(super) fn again(&mut self) -> RowsMut<'_> {
        RowsMut { values: self.values, rows: self.rows, cols: self.cols, stride: self.stride }
    }

    #[inline(always)]
    pub(super) fn row(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.stride..row * self.stride + self.cols]
    }

    /// As [`Rows::runs`].
    #[inline(always)]
    pub(super) fn runs(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let width = if self.stride == self.cols { self.rows * self.cols } else { self.cols };
        let stride = if self.stride == self.cols { width } else { self.stride };
        self.values.chunks_mut(stride.max(1)).map(move |run| &mut run[..width])
    }
}

/// Which tiles of a grid are taken: room that is kept between operations.
#[derive(Default)]
pub(super) struct Marks(Vec<AtomicBool>);

impl Marks {
    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        self.0.capacity() as u64
    }

    /// `count` marks, none of them set.
    fn cleared(&mut self, count: usize) -> &[AtomicBool] {
        if self.0.len() < count {
            self.0.resize_with(count, AtomicBool::default);
        }
        let marks = &mut self.0[..count];
        marks.iter_mut().for_each(|mark| *mark.get_mut() = false);
        marks
    }
}

/// A matrix to write, cut into tiles of which each can be taken once, by any thread.
pub(super) struct Grid<'a> {
    start: *mut f32,
    len: usize,
    cols: usize,
    stride: usize,
    row_cuts: &'a [u32],
    width: usize,
    taken: &'a [AtomicBool],
    matrix: PhantomData<&'a mut [f32]>,
}

#[expect(
    unsafe_code,
    reason = "tiles of one matrix interleave in memory, so no slice can hold one"
)]
mod tiles {
    use super::*;

    // SAFETY: a grid gives access to its numbers only through tiles, each taken by one thread, and
    // the tiles of different places share no number.
    unsafe impl Sync for Grid<'_> {}
    // SAFETY: as above; the pointer stands for a unique borrow of numbers.
    unsafe impl Send for Grid<'_> {}

    impl<'a> Grid<'a> {
        /// Cuts `matrix` at the rows `row_cuts` (from 0 to its last) and every `width` columns;
        /// `marks` serve this grid alone for as long as it lives.
        pub(in crate::cpu) fn new(
            matrix: RowsMut<'a>,
            row_cuts: &'a [u32],
            width: usize,
            marks: &'a mut Marks,
        ) -> Self {
            assert!(row_cuts.is_sorted(), "row cuts {row_cuts:?}");
            let ends = (row_cuts.first(), row_cuts.last());
            let rows = matrix.rows as u32;
            assert_eq!(ends, (Some(&0), Some(&rows)), "cuts begin at 0 and end at the last row");
            assert!(width > 0, "tiles have a width");
            let tiles = (row_cuts.len() - 1) * matrix.cols.div_ceil(width);
            Self {
                start: matrix.values.as_mut_ptr(),
                len: matrix.values.len(),
                cols: matrix.cols,
                stride: matrix.stride,
                row_cuts,
                width,
                taken: marks.cleared(tiles),
                matrix: PhantomData,
            }
        }

        /// The tile between row cuts `band` and `band + 1`, of columns `part · width ..`.
        ///
        /// # Panics
        /// Where the tile does not exist or was taken before.
        pub(in crate::cpu) fn tile(&self, band: usize, part: usize) -> Tile<'_> {
            let parts = self.cols.div_ceil(self.width);
            assert!(part < parts, "tile {part} of {parts}");
            let taken = self.taken[band * parts + part].swap(true, Ordering::Relaxed);
            assert!(!taken, "tile ({band}, {part}) is taken once");
            let (first, end) = (self.row_cuts[band] as usize, self.row_cuts[band + 1] as usize);
            let column = part * self.width;
            let cols = self.width.min(self.cols - column);
            assert!(first == end || (end - 1) * self.stride + column + cols <= self.len, "inside");
            Tile {
                start: self.start.wrapping_add(first * self.stride + column),
                rows: end - first,
                cols,
                stride: self.stride,
                matrix: PhantomData,
            }
        }
    }

    impl Tile<'_> {
        /// One row of the tile.
        #[inline(always)]
        pub(in crate::cpu) fn row(&mut self, row: usize) -> &mut [f32] {
            assert!(row < self.rows, "row {row} of {}", self.rows);
            // SAFETY: `Grid::tile` checked that the tile lies inside the matrix, whose unique
            // borrow it stands for; tiles share no number and each is taken once; `&mut self`
            // keeps two rows of one tile from being held at a time.
            unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.cols) }
        }
    }
}

/// One tile of a [`Grid`].
pub(super) struct Tile<'a> {
    start: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> (Memory, View) {
        let mut memory = Memory::default();
        let space = memory.alloc(24);
        (memory, View::matrix(space, 0, 4, 6))
    }

    #[test]
    fn buffers_begin_at_a_cache_line_and_hold_zeros() {
        let (memory, view) = memory();
        let rows = memory.read(view);
        assert!(rows.values.as_ptr().addr().is_multiple_of(64));
        assert_eq!(rows.values, [0.0; 24]);
    }

    #[test]
    #[should_panic(expected = "overlaps")]
    fn a_write_that_touches_a_read_is_refused() {
        let (mut memory, view) = memory();
        memory.borrow([view.row_range(1..3)], [view.row_range(0..2)]);
    }

    #[test]
    #[should_panic(expected = "overlaps")]
    fn two_writes_of_interleaved_columns_are_refused() {
        let (mut memory, view) = memory();
        memory.borrow([], [view.columns(0..2), view.columns(2..4)]);
    }

    #[test]
    #[should_panic(expected = "leaves its space")]
    fn a_view_beyond_its_space_is_refused() {
        let (mut memory, view) = memory();
        memory.borrow([View { rows: 5, ..view }], []);
    }

    #[test]
    fn tiles_cover_the_matrix_and_nothing_else() {
        let (mut memory, view) = memory();
        let columns = view.columns(1..6);
        let ([], [rows]) = memory.borrow([], [columns]);
        let cuts = [0, 1, 1, 4];
        let mut marks = Marks::default();
        let grid = Grid::new(rows, &cuts, 2, &mut marks);
        for (band, rows) in [1, 0, 3].into_iter().enumerate() {
            for part in 0..3 {
                let mut tile = grid.tile(band, part);
                (0..rows).for_each(|row| tile.row(row).fill((1 + 3 * band + part) as f32));
            }
        }
        let want = [[0.0, 1.0, 1.0, 2.0, 2.0, 3.0], [0.0, 7.0, 7.0, 8.0, 8.0, 9.0]];
        assert_eq!(memory.read(view).row(0), want[0]);
        assert_eq!(memory.read(view).row(3), want[1]);
    }

    #[test]
    fn marks_of_an_earlier_grid_are_forgotten() {
        let (mut memory, view) = memory();
        let mut marks = Marks::default();
        for _ in 0..2 {
            let ([], [rows]) = memory.borrow([], [view]);
            Grid::new(rows, &[0, 4], 3, &mut marks).tile(0, 1);
        }
    }

    #[test]
    #[should_panic(expected = "taken once")]
    fn a_tile_taken_twice_is_refused() {
        let (mut memory, view) = memory();
        let ([], [rows]) = memory.borrow([], [view]);
        let mut marks = Marks::default();
        let grid = Grid::new(rows, &[0, 4], 3, &mut marks);
        grid.tile(0, 0);
        grid.tile(0, 0);
    }
}
