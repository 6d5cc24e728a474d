//! Tiles of `c` in `f32`, in registers of any width.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::kernel::{Left, Tile, Tiles};
use super::{DEPTH, ranges};
use crate::cpu::memory::RowsMut;

/// Numbers from one panel to the next. Not a power of two, whose multiples would meet in the same
/// lines of the first cache.
pub(super) fn panel(inner: usize, wide: usize) -> usize {
    if inner == 0 { 0 } else { inner * wide + 16 }
}

/// Rows of a tile of `c` that is held in registers: sixteen of them (thirty-two where they are
/// wider), less one row of `b` and one number of `a`.
pub(super) const fn tile_rows(lanes: usize) -> usize {
    match lanes {
        16 => 14,
        1 => 4,
        _ => 6,
    }
}

/// Gives the rows and columns of a tile.
pub(super) struct TileShape;

impl WithSimd for TileShape {
    type Output = Tile;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Tile {
        Tile { rows: tile_rows(S::F32_LANES), columns: 2 * S::F32_LANES }
    }
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
pub(super) fn prefetch(values: &[f32]) {
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
