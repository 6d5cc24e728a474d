//! Small products of one thread, inside attention and relations: no blocking for caches, no
//! packing but what the caller did, results summed over the inner index in its order.

use super::lanes::LANES;

/// Rows of `c` computed together.
const BAND: usize = 4;

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
#[inline(always)]
pub(super) fn product(
    c: &mut [f32],
    a: Left<'_>,
    b: &[f32],
    (rows, inner, width): (usize, usize, usize),
    factor: f32,
    into: Into,
) {
    let (b, c) = (&b[..inner * width], &mut c[..rows * width]);
    let mut row = 0;
    while row < rows {
        let left = Left { values: &a.values[row * a.rows..], ..a };
        let band = &mut c[row * width..];
        match rows - row {
            1 => band_of::<1>(band, left, b, inner, width, factor, into),
            2 => band_of::<2>(band, left, b, inner, width, factor, into),
            3 => band_of::<3>(band, left, b, inner, width, factor, into),
            _ => band_of::<BAND>(band, left, b, inner, width, factor, into),
        }
        row += BAND;
    }
}

/// `ROWS` rows of the product.
#[inline(always)]
fn band_of<const ROWS: usize>(
    c: &mut [f32],
    a: Left<'_>,
    b: &[f32],
    inner: usize,
    width: usize,
    factor: f32,
    into: Into,
) {
    for column in (0..width).step_by(LANES) {
        let mut sums = [[0.0f32; LANES]; ROWS];
        for at in 0..inner {
            let b = &b[at * width + column..][..LANES];
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = a.values[row * a.rows + at * a.cols];
                for lane in 0..LANES {
                    sums[lane] = a.mul_add(b[lane], sums[lane]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let c = &mut c[row * width + column..][..LANES];
            for (c, &sum) in c.iter_mut().zip(sums) {
                let old = if into == Into::Add { *c } else { 0.0 };
                *c = sum.mul_add(factor, old);
            }
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

/// Copies rows into the columns of `packed`, whose rows are `width` apart; other columns are zero.
#[inline(always)]
pub(super) fn pack_transposed<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    packed: &mut [f32],
    width: usize,
) {
    packed.fill(0.0);
    for (column, from) in rows.enumerate() {
        for (to, &value) in packed.chunks_exact_mut(width).zip(from) {
            to[column] = value;
        }
    }
}
