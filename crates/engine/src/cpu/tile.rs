//! Small products of one thread, inside attention and relations: no blocking for caches, no
//! packing but what the caller did, results summed over the inner index in its order.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::lanes::LANES;

/// Rows of `c` computed together: with two registers each, as many sums as sixteen registers hold
/// beside the factors.
const BAND: usize = 6;

/// The left factor: element `(row, inner)` lies at `row · rows + inner · cols`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// What happens to the old contents of `c`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// They are replaced.
    Write,
    /// The product is added to them.
    Add,
}

/// `c[rows, width] ← factor · a[rows, inner] b[inner, width]`. `width` is a multiple of sixteen and
/// also the distance of the rows of `b` and `c`.
pub(super) fn product(
    c: &mut [f32],
    a: Left<'_>,
    b: &[f32],
    (rows, inner, width): (usize, usize, usize),
    factor: f32,
    into: Into,
) {
    product_of_columns(c, a, b, (rows, inner, width), 0..width, factor, into);
}

/// The same for some of the columns alone, from one multiple of sixteen to another; the others of
/// `c` stay as they are.
pub(super) fn product_of_columns(
    c: &mut [f32],
    a: Left<'_>,
    b: &[f32],
    (rows, inner, width): (usize, usize, usize),
    columns: Range<usize>,
    factor: f32,
    into: Into,
) {
    debug_assert!(columns.start.is_multiple_of(LANES) && columns.end.is_multiple_of(LANES));
    let (b, c) = (&b[..inner * width], &mut c[..rows * width]);
    Arch::new().dispatch(Product { c, a, b, width, columns, factor, into });
}

/// The arguments of [`product`], to be compiled for each width of registers.
struct Product<'a> {
    c: &'a mut [f32],
    a: Left<'a>,
    b: &'a [f32],
    width: usize,
    columns: Range<usize>,
    factor: f32,
    into: Into,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { c, a, b, width, columns, factor, into } = self;
        // The width is a multiple of sixteen, and no register is wider.
        let ((b, _), (c, _)) = (S::as_simd_f32s(b), S::as_mut_simd_f32s(c));
        let width = width / S::F32_LANES;
        let columns = (columns.start / S::F32_LANES, columns.end / S::F32_LANES);
        let width = (width, columns);
        let factor = simd.splat_f32s(factor);
        for (band, c) in c.chunks_mut(BAND * width.0).enumerate() {
            let left = Left { values: &a.values[band * BAND * a.rows..], ..a };
            match c.len() / width.0 {
                1 => band_of::<S, 1>(simd, c, left, b, width, factor, into),
                2 => band_of::<S, 2>(simd, c, left, b, width, factor, into),
                3 => band_of::<S, 3>(simd, c, left, b, width, factor, into),
                4 => band_of::<S, 4>(simd, c, left, b, width, factor, into),
                5 => band_of::<S, 5>(simd, c, left, b, width, factor, into),
                _ => band_of::<S, BAND>(simd, c, left, b, width, factor, into),
            }
        }
    }
}

/// `ROWS` rows of the product; widths and columns in registers.
#[inline(always)]
fn band_of<S: Simd, const ROWS: usize>(
    simd: S,
    c: &mut [S::f32s],
    a: Left<'_>,
    b: &[S::f32s],
    (width, (mut column, end)): (usize, (usize, usize)),
    factor: S::f32s,
    into: Into,
) {
    while column + 2 <= end {
        columns_of::<S, ROWS, 2>(simd, c, a, b, (column, width), factor, into);
        column += 2;
    }
    if column < end {
        columns_of::<S, ROWS, 1>(simd, c, a, b, (column, width), factor, into);
    }
}

/// `ROWS` rows and `COLUMNS` registers of the product, from register `column` on.
#[inline(always)]
fn columns_of<S: Simd, const ROWS: usize, const COLUMNS: usize>(
    simd: S,
    c: &mut [S::f32s],
    a: Left<'_>,
    b: &[S::f32s],
    (column, width): (usize, usize),
    factor: S::f32s,
    into: Into,
) {
    let mut sums = [[simd.splat_f32s(0.0); COLUMNS]; ROWS];
    for (at, b) in b.chunks_exact(width).enumerate() {
        let b = &b[column..column + COLUMNS];
        for (row, sums) in sums.iter_mut().enumerate() {
            let a = simd.splat_f32s(a.values[row * a.rows + at * a.cols]);
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_f32s(a, b, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let c = &mut c[row * width + column..][..COLUMNS];
        for (c, &sum) in c.iter_mut().zip(sums) {
            *c = match into {
                Into::Write => simd.mul_f32s(sum, factor),
                Into::Add => simd.mul_add_f32s(sum, factor, *c),
            };
        }
    }
}

/// Copies rows into `packed`, each `width` apart, the gap filled with zeros.
#[inline(always)]
pub(super) fn pack<'a>(rows: impl Iterator<Item = &'a [f32]>, packed: &mut [f32], width: usize) {
    for (from, to) in rows.zip(packed.chunks_exact_mut(width)) {
        to[..from.len()].copy_from_slice(from);
        to[from.len()..].fill(0.0);
    }
}

/// Turns packed rows, `wide` apart, into the columns of `turned`, whose `each` rows are `long`
/// apart; columns beyond the last row are zero.
#[inline(always)]
pub(super) fn turn(packed: &[f32], wide: usize, turned: &mut [f32], long: usize) {
    for (at, to) in turned.chunks_exact_mut(long).enumerate() {
        let (to, gap) = to.split_at_mut(packed.len() / wide);
        for (to, from) in to.iter_mut().zip(packed.chunks_exact(wide)) {
            *to = from[at];
        }
        gap.fill(0.0);
    }
}
