//! Activations and their slopes.

use super::Real;
use crate::Activation;

/// √(2/π), of GELU's tanh approximation.
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
/// The cubic coefficient of the same approximation.
const GELU_CUBIC: f64 = 0.044_715;

/// `f(x)`.
pub(crate) fn value<T: Real>(f: Activation, x: T) -> T {
    let (half, one) = (T::of(0.5), T::of(1.0));
    match f {
        Activation::Gelu => half * x * (one + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()),
        Activation::GeluTanh => half * x * (one + inner(x).tanh()),
        Activation::Relu => x.max(T::default()),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
    }
}

/// `f′(x)`; ReLU's slope at 0 is 0.
pub(crate) fn slope<T: Real>(f: Activation, x: T) -> T {
    let (half, one) = (T::of(0.5), T::of(1.0));
    match f {
        Activation::Gelu => {
            let density = (-half * x * x).exp() * T::of(0.398_942_280_401_432_7); // 1/√(2π)
            half * (one + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()) + x * density
        }
        Activation::GeluTanh => {
            let t = inner(x).tanh();
            let d_inner = T::of(GELU_SCALE) * (one + T::of(3.0 * GELU_CUBIC) * x * x);
            half * (one + t) + half * x * (one - t * t) * d_inner
        }
        Activation::Relu => {
            if x > T::default() {
                one
            } else {
                T::default()
            }
        }
        Activation::Silu => {
            let s = sigmoid(x);
            s + x * s * (one - s)
        }
        Activation::Tanh => one - x.tanh() * x.tanh(),
    }
}

fn inner<T: Real>(x: T) -> T {
    T::of(GELU_SCALE) * (x + T::of(GELU_CUBIC) * x * x * x)
}

/// `1/(1 + e^−x)`; the exponential may overflow to infinity, whose reciprocal is the right 0.
pub(super) fn sigmoid<T: Real>(x: T) -> T {
    T::of(1.0) / (T::of(1.0) + (-x).exp())
}
