//! Copies of the factors as the tiles read them, rounded on the way where that is asked.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::lanes::tile_rows;
use super::{Factor, ranges};
use crate::cpu::memory::{Rows, RowsMut};
use crate::cpu::transpose::transpose;
use crate::precision::bf16;

/// Part of a factor that is to be copied.
pub(super) struct Source<'a> {
    pub(super) factor: Factor<'a>,
    pub(super) inner: Range<usize>,
}

/// Copies panels of `b`, each as wide as a tile: `[inner][columns]`, the gap filled with zeros.
pub(super) struct PackPanels<'a, 'b> {
    pub(super) source: &'a Source<'a>,
    pub(super) columns: Range<usize>,
    pub(super) panels: RowsMut<'b>,
    pub(super) round: bool,
}

impl WithSimd for PackPanels<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        if self.round { self.pack::<S, true>() } else { self.pack::<S, false>() }
    }
}

impl PackPanels<'_, '_> {
    #[inline(always)]
    fn pack<S: Simd, const ROUND: bool>(mut self) {
        let wide = 2 * S::F32_LANES;
        let inner = self.source.inner.clone();
        match self.source.factor {
            Factor::Plain(b) => {
                for (at, row) in inner.enumerate() {
                    let row = &b.row(row)[self.columns.clone()];
                    let (whole, rest) = row.split_at(row.len() / wide * wide);
                    for (panel, from) in whole.chunks_exact(wide).enumerate() {
                        let to = &mut self.panels.row(panel)[at * wide..][..wide];
                        copy::<ROUND>(to, from);
                    }
                    if !rest.is_empty() {
                        let panel = whole.len() / wide;
                        let to = &mut self.panels.row(panel)[at * wide..][..wide];
                        to.fill(0.0);
                        copy::<ROUND>(&mut to[..rest.len()], rest);
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
                                    *to = if ROUND { from.map(bf16) } else { *from };
                                } else {
                                    copy::<ROUND>(&mut to[..from.len()], from);
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
pub(super) struct PackStrip<'a, 'b> {
    /// `[inner][strip's rows]`.
    pub(super) from: Rows<'a>,
    pub(super) packed: &'b mut [f32],
    pub(super) round: bool,
}

impl WithSimd for PackStrip<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match S::F32_LANES {
            16 => self.pack_tiles::<{ tile_rows(16) }>(),
            1 => self.pack_tiles::<{ tile_rows(1) }>(),
            _ => self.pack_tiles::<{ tile_rows(8) }>(),
        }
    }
}

impl PackStrip<'_, '_> {
    #[inline(always)]
    fn pack_tiles<const ROWS: usize>(self) {
        if self.round { self.pack::<ROWS, true>() } else { self.pack::<ROWS, false>() }
    }

    #[inline(always)]
    fn pack<const ROWS: usize, const ROUND: bool>(self) {
        let Self { from, packed, .. } = self;
        // A few rows at a time, tile by tile, so that both sides stay near.
        for few in ranges(0..from.rows, 16) {
            let tiles = packed.chunks_exact_mut(ROWS * from.rows);
            for (columns, to) in ranges(0..from.cols, ROWS).zip(tiles) {
                let to = &mut to.as_chunks_mut::<ROWS>().0[few.clone()];
                let from_few = &from.values[few.start * from.stride + columns.start..];
                if columns.len() == ROWS {
                    for (at, to) in to.iter_mut().enumerate() {
                        copy::<ROUND>(to, &from_few[at * from.stride..][..ROWS]);
                    }
                } else {
                    for (at, to) in to.iter_mut().enumerate() {
                        to.fill(0.0);
                        let from = &from_few[at * from.stride..][..columns.len()];
                        copy::<ROUND>(&mut to[..columns.len()], from);
                    }
                }
            }
        }
    }
}

/// Copies rows of a strip as they lie, rounded, `stride` apart.
pub(super) struct RoundRows<'a, 'b> {
    pub(super) from: Rows<'a>,
    pub(super) packed: &'b mut [f32],
    pub(super) stride: usize,
}

impl WithSimd for RoundRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (row, to) in (0..self.from.rows).zip(self.packed.chunks_mut(self.stride.max(1))) {
            copy::<true>(&mut to[..self.from.cols], self.from.row(row));
        }
    }
}

/// Copies numbers, or the nearest bfloat16s.
#[inline(always)]
fn copy<const ROUND: bool>(to: &mut [f32], from: &[f32]) {
    if ROUND {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = bf16(from));
    } else {
        to.copy_from_slice(from);
    }
}
