//! Stands for `pairs.rs` on processors of other kinds, which have no such instruction here.

use std::convert::Infallible;
use std::ops::Range;

use super::Factor;
use super::kernel::{Left, Tile, Tiles};
use super::pack::Source;
use crate::cpu::memory::RowsMut;

/// Of no use: there is no pair.
pub(super) const TILE: Tile = Tile { rows: 1, columns: 1 };
/// Likewise.
pub(super) const STRIDE: usize = 1;

/// There is no value of this type.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Pairs(Infallible);

impl Pairs {
    /// Nothing.
    pub(in crate::cpu) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn pack_panels(self, _: &Source<'_>, _: Range<usize>, _: RowsMut<'_>) {
        match self.0 {}
    }

    pub(super) fn pack_strip<'a>(self, _: Factor<'_>, _: &'a mut [f32]) -> Left<'a> {
        match self.0 {}
    }

    pub(super) fn compute(self, _: Tiles<'_, '_>) {
        match self.0 {}
    }
}
