//! Loops over rows that the compiler turns into vector instructions of the processor at hand.
//!
//! Sums run in sixteen lanes whatever the width of a register, so that their order, and with it
//! every bit of the result, is a function of the length alone.

use pulp::Arch;

use crate::device::Dropout;

/// Lanes of a sum.
pub(super) const LANES: usize = 16;

/// Runs `work` compiled for the widest vectors this processor has. What it calls must be
/// `#[inline(always)]`, or it stays compiled for the smallest.
#[inline(always)]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// Pairwise sum of the lanes.
#[inline(always)]
pub(super) fn fold<T: Copy>(mut lanes: [T; LANES], add: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = add(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// `Σ f(x)`.
#[inline(always)]
pub(super) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] += f(block[lane]);
        }
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, &x)| *lane += f(x));
    fold(lanes, |a, b| a + b)
}

/// `Σ f(x, y)`.
#[inline(always)]
pub(super) fn sum2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (x, y) in xs.iter().zip(ys) {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane], y[lane]);
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane += f(x, y);
    }
    fold(lanes, |a, b| a + b)
}

/// `Σ f(x, y)` in double precision.
#[inline(always)]
pub(super) fn sum2_f64(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f64) -> f64 {
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (x, y) in xs.iter().zip(ys) {
        for lane in 0..LANES {
            lanes[lane] += f(x[lane], y[lane]);
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane += f(x, y);
    }
    fold(lanes, |a, b| a + b)
}

/// `Σ f(x, y)` of both parts of `f` in double precision.
#[inline(always)]
pub(super) fn sums2_f64(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> [f64; 2]) -> [f64; 2] {
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let (mut firsts, mut seconds) = ([0.0; LANES], [0.0; LANES]);
    for (x, y) in xs.iter().zip(ys) {
        for lane in 0..LANES {
            let [first, second] = f(x[lane], y[lane]);
            firsts[lane] += first;
            seconds[lane] += second;
        }
    }
    for (lane, (&x, &y)) in x_rest.iter().zip(y_rest).enumerate() {
        let [first, second] = f(x, y);
        firsts[lane] += first;
        seconds[lane] += second;
    }
    [fold(firsts, |a, b| a + b), fold(seconds, |a, b| a + b)]
}

/// The largest number, or `-∞` of none. A NaN is passed over.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a < b { b } else { a };
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], block[lane]);
        }
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, &x)| *lane = larger(*lane, x));
    fold(lanes, larger)
}

/// Columns whose dropout factors are computed at a time.
const FACTORS: usize = 32;

/// Multiplies the columns from `first` on of the row at `address` by their dropout factors.
#[inline(always)]
pub(super) fn drop_row(op: &Dropout, address: u32, first: u32, row: &mut [f32]) {
    let threshold = Dropout::threshold(op.p);
    let keep = (1.0 / (1.0 - f64::from(op.p))) as f32;
    let mut words = [0; FACTORS];
    for (part, columns) in row.chunks_mut(FACTORS).enumerate() {
        let block = first / 4 + (part * FACTORS / 4) as u32;
        let (fours, _) = words.as_chunks_mut::<4>();
        // Always as many blocks, even where fewer are needed: only so are they computed together.
        for (at, four) in fours.iter_mut().enumerate() {
            *four = op.words.block(address, block + at as u32);
        }
        for (x, &word) in columns.iter_mut().zip(&words) {
            *x *= if word < threshold { 0.0 } else { keep };
        }
    }
}
