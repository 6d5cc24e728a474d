//! How the pieces of a product are copied and computed: one of three ways, chosen with the device.

use std::ops::Range;

use pulp::Arch;

use super::Factor;
use super::lanes::{self, TileShape};
use super::pack::{PackPanels, PackStrip, RoundRows, Source};
use super::pairs::{self, Pairs};
use crate::Precision;
use crate::cpu::memory::{Rows, RowsMut};

/// A way to compute products.
#[derive(Clone, Copy, Default)]
pub(in crate::cpu) enum Kernel {
    /// From `f32`.
    #[default]
    Single,
    /// From `f32` that were rounded to bfloat16 while they were copied. The same order of sums as
    /// [`Kernel::Single`], on every processor. Costs what `Single` costs, and the rounding.
    Rounded,
    /// From pairs of bfloat16, by an instruction of the processor.
    Pairs(Pairs),
}

/// Rows and columns of a tile of `c`, which is held in registers.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// A strip of `a`. For [`Kernel::Pairs`] each `f32` stands for a pair: it has its bits.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// Rows: where they lie, or copied.
    Rows(Rows<'a>),
    /// One depth of columns, `[inner][tile's rows]` for each tile.
    Columns(&'a [f32]),
}

/// A block of `c` to be computed.
pub(super) struct Tiles<'a, 'b> {
    pub(super) c: &'a mut RowsMut<'b>,
    pub(super) columns: Range<usize>,
    /// The column of `c` that the first panel begins with.
    pub(super) first_column: usize,
    pub(super) a: Left<'a>,
    pub(super) b: &'a [f32],
    /// Inner indices of a panel of `b`, and those that `a` has.
    pub(super) inner: usize,
    pub(super) part: Range<usize>,
    pub(super) add: bool,
}

impl Kernel {
    /// The fastest of this processor for `precision`.
    pub(in crate::cpu) fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::Single,
            Precision::Bf16 => Pairs::detect().map_or(Self::Rounded, Self::Pairs),
        }
    }

    /// The shape of a tile.
    pub(super) fn tile(self) -> Tile {
        match self {
            Self::Single | Self::Rounded => Arch::new().dispatch(TileShape),
            Self::Pairs(_) => pairs::TILE,
        }
    }

    /// Numbers from one panel of `inner` indices to the next.
    pub(super) fn panel(self, inner: usize) -> usize {
        let inner = if let Self::Pairs(_) = self { inner.div_ceil(2) } else { inner };
        lanes::panel(inner, self.tile().columns)
    }

    /// Copies part of `b` into panels.
    pub(super) fn pack_panels(
        self,
        source: &Source<'_>,
        columns: Range<usize>,
        panels: RowsMut<'_>,
    ) {
        let round = match self {
            Self::Single => false,
            Self::Rounded => true,
            Self::Pairs(pairs) => return pairs.pack_panels(source, columns, panels),
        };
        Arch::new().dispatch(PackPanels { source, columns, panels, round });
    }

    /// Whether tiles read `a` where it lies.
    pub(super) fn reads_in_place(self, a: &Factor<'_>) -> bool {
        matches!((self, a), (Self::Single, Factor::Plain(_)))
    }

    /// Numbers that [`Kernel::pack_strip`] writes at most.
    pub(super) fn strip_room(self, a: &Factor<'_>) -> usize {
        let (rows, inner) = a.shape();
        let rows = rows.next_multiple_of(self.tile().rows);
        match (self, a) {
            (Self::Pairs(_), Factor::Plain(_)) => rows * pairs::STRIDE,
            (Self::Pairs(_), Factor::Transposed(_)) => rows * inner.div_ceil(2),
            (_, Factor::Plain(_)) => lanes::panel(inner, 1) * rows,
            (_, Factor::Transposed(_)) => rows * inner,
        }
    }

    /// Copies one depth of a strip of `a`.
    pub(super) fn pack_strip<'a>(self, a: Factor<'_>, packed: &'a mut [f32]) -> Left<'a> {
        let round = match self {
            Self::Single => false,
            Self::Rounded => true,
            Self::Pairs(pairs) => return pairs.pack_strip(a, packed),
        };
        match a {
            Factor::Plain(from) => {
                let stride = lanes::panel(from.cols, 1);
                Arch::new().dispatch(RoundRows { from, packed, stride });
                Left::Rows(Rows { values: packed, rows: from.rows, cols: from.cols, stride })
            }
            Factor::Transposed(from) => {
                Arch::new().dispatch(PackStrip { from, packed, round });
                Left::Columns(packed)
            }
        }
    }

    /// Computes a block of `c`.
    pub(super) fn compute(self, tiles: Tiles<'_, '_>) {
        if tiles.inner == 0 && !tiles.add {
            // The sum of nothing.
            (0..tiles.c.rows).for_each(|row| tiles.c.row(row)[tiles.columns.clone()].fill(0.0));
        }
        match self {
            Self::Single | Self::Rounded => Arch::new().dispatch(tiles),
            Self::Pairs(pairs) => pairs.compute(tiles),
        }
    }
}
