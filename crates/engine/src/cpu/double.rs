//! Elementary functions in `f64`, written so that a loop over them becomes vector instructions.
//!
//! Each states the largest relative error found over a sweep against `libm`; the tests hold it.

/// `1.5 · 2⁵²`: adding it rounds a small number to an integer and leaves that in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts, of which the first has few bits, so that its small multiples are exact.
const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
/// `c₀ + x (c₁ + x (c₂ + …))`, written out: a loop in here would keep loops over it from becoming vectors.
macro_rules! polynomial {
    ($x:expr, $c:expr) => { $c };
    ($x:expr, $c:expr, $($more:expr),+) => { $x.mul_add(polynomial!($x, $($more),+), $c) };
}

/// `x = n ln 2 + r` with `|r| ≤ ½ ln 2`: n, and `eʳ − 1`.
#[inline(always)]
fn reduced(x: f64) -> (i64, f64) {
    let shifted = x.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = (-n).mul_add(LN_2[1], (-n).mul_add(LN_2[0], x));
    // `1/k!` from k = 2 on: up to ½ ln 2 what is left out is below a tenth of the last place.
    let q = polynomial!(
        r,
        0.5,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5_040.0,
        1.0 / 40_320.0,
        1.0 / 362_880.0,
        1.0 / 3_628_800.0,
        1.0 / 39_916_800.0,
        1.0 / 479_001_600.0,
        1.0 / 6_227_020_800.0
    );
    ((shifted.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64), (r * r).mul_add(q, r))
}

/// 2ⁿ in two factors, as 2ⁿ itself may be too large or too small for a number.
#[inline(always)]
fn power_of_two(n: i64) -> (f64, f64) {
    // A logical shift, which every processor has for vectors, of a number that is not negative.
    let first = ((n.wrapping_add(8192) as u64) >> 1) as i64 - 4096;
    (small_power(first), small_power(n.wrapping_sub(first)))
}

/// 2ⁿ for n from −1022 to 1023.
#[inline(always)]
fn small_power(n: i64) -> f64 {
    f64::from_bits((n.wrapping_add(1023) as u64) << 52)
}

/// `eˣ`. Relative error at most 4·10⁻¹⁶ where the result is a normal number; 0 below −746, ∞ above
/// 710, NaN for NaN.
#[inline(always)]
pub(super) fn exp_f64(x: f64) -> f64 {
    // Comparisons rather than `clamp`, so that a NaN goes through.
    let x = if x < -750.0 { -750.0 } else { x };
    let x = if x > 711.0 { 711.0 } else { x };
    let (n, less_one) = reduced(x);
    let (first, second) = power_of_two(n);
    (1.0 + less_one) * first * second
}

/// `eˣ − 1`. Relative error at most 6·10⁻¹⁶, near 0 too; −1 far below it, ∞ above 710, NaN for NaN.
#[inline(always)]
pub(super) fn exp_m1(x: f64) -> f64 {
    let x = if x < -50.0 { -50.0 } else { x };
    // Infinite, and not so far that its parts are.
    let x = if x > 709.9 { 709.9 } else { x };
    let (n, less_one) = reduced(x);
    // Half of it and twice that: 2ⁿ may be too large where the result is not.
    let half = small_power(n.wrapping_sub(1));
    2.0 * half.mul_add(less_one, half - 0.5)
}

/// `ln(1 + x)` for finite x. Relative error at most 4·10⁻¹⁶, near 0 too; −∞ at −1, NaN below it and
/// for NaN.
///
/// `1 + x = 2ᵏ m` with `√½ ≤ m < √2`, and `ln m = 2 artanh s`, `s = (m − 1)/(m + 1)`: the odd powers of
/// s up to 21. What rounding took of `1 + x` is added, to first order.
#[inline(always)]
pub(super) fn ln_1p(x: f64) -> f64 {
    /// Bits of a number a little below √½, and how far 1 is above them.
    const LOWEST: u64 = 0x3fe6_a09e_0000_0000;
    const TO_ONE: u64 = 0x3ff0_0000_0000_0000 - LOWEST;
    /// 2⁵², whose low bits are an integer, and the bias of exponents on top.
    const INTEGERS: f64 = 4_503_599_627_370_496.0;
    let whole = 1.0 + x;
    let lost = x - (whole - 1.0);
    let shifted = whole.to_bits().wrapping_add(TO_ONE);
    let k = f64::from_bits(INTEGERS.to_bits() | (shifted >> 52)) - (INTEGERS + 1023.0);
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(LOWEST));
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let square = s * s;
    let q = polynomial!(
        square,
        1.0 / 3.0,
        1.0 / 5.0,
        1.0 / 7.0,
        1.0 / 9.0,
        1.0 / 11.0,
        1.0 / 13.0,
        1.0 / 15.0,
        1.0 / 17.0,
        1.0 / 19.0,
        1.0 / 21.0
    );
    // 2 s + 2 s³ q, where 2 s = f − s f keeps the digits of f.
    let tail = (-s).mul_add(f, 2.0 * s * square * q);
    // Above, nothing was lost that counts.
    let lost = if whole < 1e15 { lost / whole } else { 0.0 };
    let ln = k.mul_add(LN_2[0], f + (k.mul_add(LN_2[1], tail) + lost));
    let ln = if whole == 0.0 { f64::NEG_INFINITY } else { ln };
    if whole >= 0.0 { ln } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of either sign: dense in `±range`, and a few in every power of two down to 2⁻⁹⁰.
    fn sweep(range: f64) -> impl Iterator<Item = f64> {
        let count = 400_000;
        let dense =
            (0..=count).map(move |at| (f64::from(at) / f64::from(count) * 2.0 - 1.0) * range);
        let small = (-90..2).flat_map(|power| (16..32).map(move |part| (power, part)));
        let small =
            small.map(|(power, part)| f64::from(part) / 16.0 * libm::exp2(f64::from(power)));
        dense.chain(small.clone()).chain(small.map(|x| -x)).filter(move |x| x.abs() <= range)
    }

    fn worst(xs: impl Iterator<Item = f64>, ours: fn(f64) -> f64, theirs: fn(f64) -> f64) -> f64 {
        xs.filter(|&x| theirs(x) != 0.0).fold(0.0, |worst, x| {
            let error = ((ours(x) - theirs(x)) / theirs(x)).abs();
            assert!(error.is_finite(), "{error} at {x}");
            error.max(worst)
        })
    }

    #[test]
    fn functions_are_within_their_stated_errors() {
        let error = worst(sweep(708.0), exp_f64, libm::exp);
        assert!(error <= 4e-16, "exp: {error}");
        let error = worst(sweep(709.0), exp_m1, libm::expm1);
        assert!(error <= 6e-16, "exp_m1: {error}");
        let above = sweep(1e3).chain(sweep(0.999_999)).filter(|&x| x > -1.0);
        let error = worst(above, ln_1p, libm::log1p);
        assert!(error <= 4e-16, "ln_1p: {error}");
    }

    #[test]
    fn ends_are_those_of_the_functions() {
        let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
        for (x, want) in [(low, 0.0), (-746.0, 0.0), (0.0, 1.0), (710.0, high), (high, high)] {
            assert_eq!(exp_f64(x), want, "e^{x}");
        }
        for (x, want) in [(low, -1.0), (-60.0, -1.0), (0.0, 0.0), (710.0, high), (high, high)] {
            assert_eq!(exp_m1(x), want, "e^{x} − 1");
        }
        assert!((exp_m1(709.7) / libm::expm1(709.7) - 1.0).abs() < 6e-16, "just below infinity");
        for (x, want) in [(-1.0, low), (0.0, 0.0), (1e-300, 1e-300)] {
            assert_eq!(ln_1p(x), want, "ln(1 + {x})");
        }
        assert!(ln_1p(-1.5).is_nan());
        for f in [exp_f64, exp_m1, ln_1p] {
            assert!(f(f64::NAN).is_nan());
        }
    }
}
