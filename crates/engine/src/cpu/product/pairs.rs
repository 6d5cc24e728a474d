//! Products from pairs of bfloat16 that are neighbours along the inner index, by the instruction
//! `vdpbf16ps` (AVX512-BF16): sixteen times two products, added to sixteen sums in `f32`.
//!
//! What differs from `f32` tiles over rounded factors, in the last bits of a result: inside a pair
//! the processor decides which product joins the sum first, and how often it rounds; and numbers
//! below the smallest normal one, 2⁻¹²⁶, count as zero, in factors and sums. From pair to pair
//! the order is that of the inner index, whatever the number of threads.
//!
//! A pair is 32 bits, the first neighbour in the lower half, and travels as an `f32` with these
//! bits, which nobody reads as a number.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16, _mm512_set1_epi32,
    _mm512_setzero_ps,
};
use std::ops::Range;

use bytemuck::cast;

use super::kernel::{Left, Tile, Tiles};
use super::lanes::{self, prefetch};
use super::pack::Source;
use super::{DEPTH, Factor, ranges};
use crate::cpu::memory::{Rows, RowsMut};
use crate::cpu::transpose::transpose;

/// Numbers of a register.
const LANES: usize = 16;
/// Rows of a tile. With two registers each they take twenty-eight of the thirty-two; a row of `b`
/// takes two more, a pair of `a` one.
const ROWS: usize = 14;
/// Columns of a tile.
const WIDE: usize = 2 * LANES;
/// The shape of a tile.
pub(super) const TILE: Tile = Tile { rows: ROWS, columns: WIDE };
/// From one copied row of `a` to the next: the pairs of a depth, and a cache line, so that the rows
/// of a tile do not meet in the same lines of the first cache.
pub(super) const STRIDE: usize = DEPTH / 2 + LANES;

/// A tile's sums.
type Sums = [[__m512; 2]; ROWS];

/// Witness that the processor has the instruction, and those it is used with.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Pairs(());

impl Pairs {
    /// The witness, where it is true.
    pub(in crate::cpu) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16");
        all.then_some(Self(()))
    }
}

#[expect(unsafe_code, reason = "functions compiled for this instruction")]
impl Pairs {
    /// Copies panels of `b`, each as wide as a tile: `[inner / 2][columns]`, the gap filled with
    /// zeros.
    pub(super) fn pack_panels(
        self,
        source: &Source<'_>,
        columns: Range<usize>,
        panels: RowsMut<'_>,
    ) {
        let inner = source.inner.clone();
        match source.factor {
            // SAFETY: the witness says that the processor has the instructions; so below.
            Factor::Plain(b) => unsafe { pack_rows(b, inner, columns, panels) },
            Factor::Transposed(b) => unsafe { pack_columns(b, inner, columns, panels) },
        }
    }

    /// Copies a strip of `a`: rows [`STRIDE`] apart, or `[inner / 2][tile's rows]` for each tile.
    pub(super) fn pack_strip<'a>(self, a: Factor<'_>, packed: &'a mut [f32]) -> Left<'a> {
        match a {
            Factor::Plain(a) => {
                // SAFETY: as above.
                unsafe { pack_strip_rows(a, packed) };
                Left::Rows(Rows::of(packed, STRIDE))
            }
            Factor::Transposed(a) => {
                // SAFETY: as above.
                unsafe { pack_strip_columns(a, packed) };
                Left::Columns(packed)
            }
        }
    }

    /// Computes a block of `c`.
    pub(super) fn compute(self, tiles: Tiles<'_, '_>) {
        // SAFETY: as above.
        unsafe { compute(tiles) }
    }
}

/// Panels of a `b` that lies as `[inner][columns]`: two of its rows are one of pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_rows(b: Rows<'_>, inner: Range<usize>, columns: Range<usize>, mut panels: RowsMut<'_>) {
    for (at, two) in ranges(inner, 2).enumerate() {
        let first = &b.row(two.start)[columns.clone()];
        let second = if two.len() == 2 { &b.row(two.start + 1)[columns.clone()] } else { &[] };
        for (panel, columns) in ranges(0..columns.len(), WIDE).enumerate() {
            let to = &mut panels.row(panel)[at * WIDE..][..WIDE];
            for (half, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let from = columns.start + half * LANES;
                store(to, interleave(load(tail(first, from)), load(tail(second, from))));
            }
        }
    }
}

/// Panels of a `b` that lies as `[columns][inner]`: squares of eight columns and eight pairs are
/// turned.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_columns(b: Rows<'_>, inner: Range<usize>, columns: Range<usize>, mut panels: RowsMut<'_>) {
    let pairs = inner.len().div_ceil(2);
    for (panel, columns) in ranges(columns, WIDE).enumerate() {
        let to = panels.row(panel);
        if columns.len() < WIDE {
            to.fill(0.0);
        }
        for part in ranges(0..pairs, LANES) {
            for eight in ranges(columns.clone(), 8) {
                let mut rows = [[[0.0; 8]; 8]; 2];
                for (at, column) in eight.clone().enumerate() {
                    let from = tail(&b.row(column)[inner.clone()], 2 * part.start);
                    let from: [[f32; 8]; 2] = bytemuck::cast(neighbours(from));
                    (rows[0][at], rows[1][at]) = (from[0], from[1]);
                }
                let turned: [[f32; 8]; LANES] =
                    bytemuck::cast(rows.map(|square| transpose(square, true)));
                for (at, from) in part.clone().zip(&turned) {
                    let to = &mut to[at * WIDE + eight.start - columns.start..][..8];
                    to.copy_from_slice(from);
                }
            }
        }
    }
}

/// Rows of a strip, [`STRIDE`] apart.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_strip_rows(a: Rows<'_>, packed: &mut [f32]) {
    for (row, to) in (0..a.rows).zip(packed.as_chunks_mut::<STRIDE>().0) {
        let from = a.row(row).chunks(2 * LANES);
        for (to, from) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(from) {
            *to = neighbours(from);
        }
    }
}

/// Columns that are rows of a strip: two rows of `a` are one of pairs, cut into tiles. Rows beyond
/// the last are zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_strip_columns(a: Rows<'_>, packed: &mut [f32]) {
    let pairs = a.rows.div_ceil(2);
    // A few rows at a time, tile by tile, so that both sides stay near.
    for few in ranges(0..pairs, 8) {
        let tiles = packed.chunks_exact_mut((ROWS * pairs).max(1));
        for (columns, to) in ranges(0..a.cols, ROWS).zip(tiles) {
            let to = &mut to.as_chunks_mut::<ROWS>().0[few.clone()];
            for (at, to) in few.clone().zip(to) {
                let first = &a.row(2 * at)[columns.clone()];
                let second =
                    if 2 * at + 1 < a.rows { &a.row(2 * at + 1)[columns.clone()] } else { &[] };
                store(to, interleave(load(first), load(second)));
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn compute(tiles: Tiles<'_, '_>) {
    let Tiles { c, columns, first_column, a, b, inner, part, add } = tiles;
    let width = lanes::panel(inner.div_ceil(2), WIDE);
    let (first_pair, pairs) = (part.start / 2, part.len().div_ceil(2));
    if pairs == 0 {
        return;
    }
    for columns in ranges(columns, WIDE) {
        let panel = (columns.start - first_column) / WIDE;
        let b = &b[panel * width + first_pair * WIDE..][..pairs * WIDE];
        let b = b.as_chunks::<WIDE>().0;
        for first in (0..c.rows).step_by(ROWS) {
            let rows = first..c.rows.min(first + ROWS);
            if add {
                for row in rows.clone() {
                    prefetch(&c.row(row)[columns.clone()]);
                }
            }
            // Rows beyond the last of the strip hold whatever was there; their sums are dropped.
            let sums = match a {
                Left::Rows(a) => {
                    let a = a.values[first * STRIDE..].as_chunks::<STRIDE>().0;
                    sums_of_rows(a.first_chunk().expect("a strip of whole tiles"), b)
                }
                Left::Columns(a) => {
                    let a = &a[first * pairs..][..ROWS * pairs];
                    sums_of_columns(a.as_chunks().0, b)
                }
            };
            for (row, sums) in rows.zip(&sums) {
                let c = &mut c.row(row)[columns.clone()];
                for (c, &sum) in c.chunks_mut(LANES).zip(sums) {
                    store(c, if add { _mm512_add_ps(load(c), sum) } else { sum });
                }
            }
        }
    }
}

/// A tile from rows of `a`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn sums_of_rows(a: &[[f32; STRIDE]; ROWS], b: &[[f32; WIDE]]) -> Sums {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (at, b) in b.iter().enumerate().take(STRIDE) {
        let b = [load(&b[..LANES]), load(&b[LANES..])].map(cast::<__m512, __m512bh>);
        for (a, sums) in a.iter().zip(&mut sums) {
            let a = splat(a[at]);
            sums[0] = _mm512_dpbf16_ps(sums[0], a, b[0]);
            sums[1] = _mm512_dpbf16_ps(sums[1], a, b[1]);
        }
    }
    sums
}

/// A tile from `[inner / 2][rows]` of `a`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn sums_of_columns(a: &[[f32; ROWS]], b: &[[f32; WIDE]]) -> Sums {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (a, b) in a.iter().zip(b) {
        let b = [load(&b[..LANES]), load(&b[LANES..])].map(cast::<__m512, __m512bh>);
        for (&a, sums) in a.iter().zip(&mut sums) {
            let a = splat(a);
            sums[0] = _mm512_dpbf16_ps(sums[0], a, b[0]);
            sums[1] = _mm512_dpbf16_ps(sums[1], a, b[1]);
        }
    }
    sums
}

/// What follows `from`; nothing beyond the end.
fn tail(values: &[f32], from: usize) -> &[f32] {
    values.get(from..).unwrap_or(&[])
}

/// The first 32 numbers, or as many as there are and zeros, as pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn neighbours(values: &[f32]) -> [f32; LANES] {
    let mut pairs = [0.0; LANES];
    let rounded = _mm512_cvtne2ps_pbh(load(tail(values, LANES)), load(values));
    store(&mut pairs, cast(rounded));
    pairs
}

/// Pairs of the numbers at the same place.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn interleave(first: __m512, second: __m512) -> __m512 {
    /// From all the first numbers, then all the second, one of each by turns.
    const BY_TURNS: [u16; 2 * LANES] = {
        let mut places = [0; 2 * LANES];
        let mut at = 0;
        while at < LANES {
            places[2 * at] = at as u16;
            places[2 * at + 1] = (LANES + at) as u16;
            at += 1;
        }
        places
    };
    let rounded = _mm512_cvtne2ps_pbh(second, first);
    let places: __m512i = cast(BY_TURNS);
    cast(_mm512_permutexvar_epi16(places, cast(rounded)))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn splat(pair: f32) -> __m512bh {
    cast(_mm512_set1_epi32(pair.to_bits().cast_signed()))
}

/// The mask of the first `len` lanes.
#[inline(always)]
fn mask(len: usize) -> u16 {
    ((1_u32 << len.min(LANES)) - 1) as u16
}

/// The first sixteen numbers, or as many as there are and zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
#[expect(unsafe_code, reason = "the instruction takes a pointer")]
fn load(from: &[f32]) -> __m512 {
    // SAFETY: the mask has no lane beyond the slice, and what is masked is not read.
    unsafe { _mm512_maskz_loadu_ps(mask(from.len()), from.as_ptr()) }
}

/// Writes the first sixteen numbers, or as many as there is room for.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
#[expect(unsafe_code, reason = "the instruction takes a pointer")]
fn store(to: &mut [f32], values: __m512) {
    // SAFETY: the mask has no lane beyond the slice, and what is masked is not written.
    unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask(to.len()), values) }
}
