//! Elementary functions in `f32`, written so that a loop over them becomes vector instructions.
//!
//! Each states the largest error found over a dense sweep against the same function in double
//! precision; the tests hold it.

use crate::Activation;

/// `1.5 · 2²³`: adding it rounds a small number to an integer and leaves that in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts, of which the first has few bits, so that its small multiples are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `eˣ`. Error at most 1.1 units in the last place; subnormal results and 0 below −87.3, ∞ above
/// 88.73, NaN for NaN.
///
/// Range reduction by Cody and Waite: `eˣ = 2ⁿ eʳ` with `|r| ≤ ½ ln 2`, and for `eʳ` the polynomial
/// `1 + r + r² q(r)`, where `q` is the minimax fit of degree 4 (its own error is 3·10⁻⁹).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Comparisons rather than `clamp`, so that a NaN goes through.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = (-n).mul_add(LN_2[1], (-n).mul_add(LN_2[0], x));
    let mut q = 0.001_381_457_8f32;
    for coefficient in [0.008_368_727, 0.041_668_39, 0.166_665_21, 0.499_999_94] {
        q = q.mul_add(r, coefficient);
    }
    let e_r = (r * r).mul_add(q, r) + 1.0;
    // Two factors, since 2ⁿ itself may be too large or too small for a number.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let (first, second) = (n >> 1, n.wrapping_sub(n >> 1));
    e_r * power_of_two(first) * power_of_two(second)
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `tanh x`. Absolute and relative error at most 2.5·10⁻⁷.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let size = x.abs();
    // Near 0 an odd polynomial (minimax up to 0.65); elsewhere 1 − 2/(e^2|x| + 1).
    let square = x * x;
    let mut p = -0.005_515_164f32;
    for coefficient in [0.020_469_42, -0.053_688_023, 0.133_308_3, -0.333_332_6] {
        p = p.mul_add(square, coefficient);
    }
    let near = (x * square).mul_add(p, x);
    let far = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    if size < 0.625 { near } else { far }
}

/// `σ(x) = 1/(1 + e⁻ˣ)`. Relative error at most 3·10⁻⁷ where the result is a normal number.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `σ(x)` and its slope `σ(x) σ(−x)`, which keeps its relative error where `σ` is near 1.
#[inline(always)]
fn sigmoid_and_slope(x: f32) -> (f32, f32) {
    let e = exp(-x.abs());
    let larger = 1.0 / (1.0 + e);
    let smaller = e * larger;
    (if x < 0.0 { smaller } else { larger }, larger * smaller)
}

/// `Φ(x)`, the normal distribution function, and its density. Absolute error of each at most
/// 2·10⁻⁷.
///
/// The tail is `φ̂(x) · t · p(t)`, `t = 1/(1 + 0.28 |x|)`, `φ̂ = exp(−x²/2)`: the form of Hastings
/// (Abramowitz & Stegun, 26.2.17 and 7.1.26), with six terms fitted for this purpose (minimax of
/// the absolute error, 1.1·10⁻⁸ before rounding). Value and density share one exponential.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let size = x.abs();
    let t = 1.0 / size.mul_add(0.28, 1.0);
    let mut p = -0.106_328_69f32;
    for coefficient in [0.392_067_52, -0.240_670_23, 0.271_972_92, 0.066_229_29, 0.116_729_16] {
        p = p.mul_add(t, coefficient);
    }
    let bell = exp(-0.5 * x * x);
    let tail = bell * (t * p);
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    (below, bell * 0.398_942_3) // 1/√(2π)
}

/// √(2/π), of GELU's tanh approximation.
const GELU_SCALE: f32 = 0.797_884_6;
/// The cubic coefficient of the same approximation.
const GELU_CUBIC: f32 = 0.044_715;

/// `f(x)`: error at most 3·10⁻⁷ · max(1, |x|).
#[inline(always)]
pub(super) fn value(f: Activation, x: f32) -> f32 {
    match f {
        Activation::Gelu => x * normal(x).0,
        Activation::GeluTanh => x * sigmoid(2.0 * inner(x)),
        Activation::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => tanh(x),
    }
}

/// `f′(x)`: absolute error at most 5·10⁻⁷. ReLU's slope at 0 is 0.
#[inline(always)]
pub(super) fn slope(f: Activation, x: f32) -> f32 {
    match f {
        Activation::Gelu => {
            let (below, density) = normal(x);
            x.mul_add(density, below)
        }
        Activation::GeluTanh => {
            // ½(1 + tanh u) = σ(2u), whose slope is 2 σ(2u) (1 − σ(2u)) u′.
            let (s, bend) = sigmoid_and_slope(2.0 * inner(x));
            let d_inner = 2.0 * GELU_SCALE * (3.0 * GELU_CUBIC * x).mul_add(x, 1.0);
            // Far from 0 the bend is 0, and must not meet an infinite x².
            if bend == 0.0 { s } else { (x * bend).mul_add(d_inner, s) }
        }
        Activation::Relu => {
            if x > 0.0 {
                1.0
            } else {
                0.0
            }
        }
        Activation::Silu => {
            let (s, bend) = sigmoid_and_slope(x);
            x.mul_add(bend, s)
        }
        Activation::Tanh => {
            let t = tanh(x);
            (-t).mul_add(t, 1.0)
        }
    }
}

#[inline(always)]
fn inner(x: f32) -> f32 {
    GELU_SCALE * (GELU_CUBIC * x * x).mul_add(x, x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest value of `error` over a dense sweep of `-range..=range`, and where.
    fn worst(range: f32, error: impl Fn(f32) -> f64) -> (f64, f32) {
        let count = 2_000_000;
        let points = (0..=count).map(|at| (at as f32 / count as f32 * 2.0 - 1.0) * range);
        // Small numbers get their share: every sixteenth of each power of two.
        let small = (-30..5).flat_map(|power| (16..32).map(move |part| (power, part)));
        let small = small.map(|(power, part)| part as f32 / 16.0 * 2f32.powi(power));
        let points = points.chain(small.clone()).chain(small.map(|x| -x));
        points.filter(|x| x.abs() <= range).fold((0.0, 0.0), |worst, x| {
            let error = error(x);
            assert!(error.is_finite(), "{error} at {x}");
            if error > worst.0 { (error, x) } else { worst }
        })
    }

    fn ulps(got: f32, want: f64) -> f64 {
        let step = f64::from((want as f32).abs().next_up()) - f64::from((want as f32).abs());
        (f64::from(got) - want).abs() / step
    }

    #[test]
    fn exp_is_within_its_stated_error() {
        let (error, at) = worst(87.3, |x| ulps(exp(x), libm::exp(x.into())));
        assert!(error <= 1.1, "{error} at {at}");
    }

    #[test]
    fn exp_at_the_ends_is_zero_subnormal_infinite_or_not_a_number() {
        let rows = [
            (f32::NEG_INFINITY, 0.0),
            (-1e30, 0.0),
            (-104.0, 0.0),
            (0.0, 1.0),
            (-0.0, 1.0),
            (89.0, f32::INFINITY),
            (1e30, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
        ];
        for (x, want) in rows {
            assert_eq!(exp(x), want, "e^{x}");
        }
        assert!(exp(f32::NAN).is_nan());
        let tiny = libm::exp(-95.0);
        assert!((f64::from(exp(-95.0)) - tiny).abs() < 3e-45, "a subnormal result");
        assert!(exp(88.72).is_finite());
    }

    #[test]
    fn tanh_sigmoid_and_the_normal_distribution_are_within_their_stated_errors() {
        let relative = |got: f32, want: f64| (f64::from(got) - want).abs() / want.abs().max(1e-300);
        let absolute = |got: f32, want: f64| (f64::from(got) - want).abs();
        let below = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        let density = |x: f64| 0.398_942_280_401_432_7 * libm::exp(-0.5 * x * x);
        type Error<'a> = &'a dyn Fn(f32) -> f64;
        let rows: [(&str, f32, f64, Error<'_>); 4] = [
            ("tanh", 20.0, 2.5e-7, &|x| {
                if x == 0.0 { 0.0 } else { relative(tanh(x), libm::tanh(x.into())) }
            }),
            ("sigmoid", 80.0, 3e-7, &|x| {
                relative(sigmoid(x), 1.0 / (1.0 + libm::exp(-f64::from(x))))
            }),
            ("normal distribution", 20.0, 2e-7, &|x| absolute(normal(x).0, below(x.into()))),
            ("normal density", 20.0, 2e-7, &|x| absolute(normal(x).1, density(x.into()))),
        ];
        for (name, range, bound, error) in rows {
            let (error, at) = worst(range, error);
            assert!(error <= bound, "{name}: {error} at {at}");
        }
    }

    const ALL: [Activation; 5] = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Silu,
        Activation::Tanh,
    ];

    #[test]
    fn activations_and_slopes_are_within_their_stated_errors() {
        use crate::reference::pointwise;
        for f in ALL {
            let (error, at) = worst(30.0, |x| {
                let want = pointwise::value(f, f64::from(x));
                (f64::from(value(f, x)) - want).abs() / f64::from(x.abs().max(1.0))
            });
            assert!(error <= 3e-7, "{f:?}: {error} at {at}");
            let (error, at) =
                worst(30.0, |x| (f64::from(slope(f, x)) - pointwise::slope(f, f64::from(x))).abs());
            assert!(error <= 5e-7, "slope of {f:?}: {error} at {at}");
        }
    }

    #[test]
    fn activations_of_huge_numbers_are_their_limits_and_slopes_stay_finite() {
        for f in ALL {
            let high = if f == Activation::Tanh { 1.0 } else { 1e18 };
            let low = if f == Activation::Tanh { -1.0 } else { 0.0 };
            assert_eq!((value(f, 1e18), value(f, -1e18)), (high, low), "{f:?}");
            assert!(slope(f, 1e18).is_finite() && slope(f, -1e18).is_finite(), "{f:?}");
            assert!(value(f, f32::NAN).is_nan() || f == Activation::Relu, "{f:?}");
        }
    }
}
