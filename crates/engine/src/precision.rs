//! What the factors of a linear layer's products are rounded to.

/// How exact the factors of a linear layer's products are: `x` and `w` of the forward pass, `dy`,
/// `w` and `x` of the backward pass. Their products are summed in `f32` whatever is chosen here,
/// and everything else, biases and their gradients included, is computed in `f32`.
///
/// With [`Precision::Bf16`] a gradient is that of the unrounded function, computed from rounded
/// factors (mixed precision; Kalamkar et al. 2019, arXiv:1905.12322). Numbers keep the range of
/// `f32`, so no loss needs scaling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16: the upper half of an `f32`, eight significant bits.
    Bf16,
}

/// The bfloat16 nearest to `x`, of two the one whose last bit is 0; an infinity beyond the largest,
/// NaN for NaN.
#[inline(always)]
pub(crate) fn bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    // Half a unit of the last bit kept, or just less than that where this bit is 0.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // The upper half alone of a NaN could be an infinity: the quiet bit keeps it from that.
    let kept = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
    f32::from_bits(kept & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_with_eight_significant_bits_stays_as_it_is() {
        for upper in 0..=u16::MAX {
            let x = f32::from_bits(u32::from(upper) << 16);
            let same = bf16(x).to_bits() == x.to_bits();
            assert!(if x.is_nan() { bf16(x).is_nan() } else { same }, "{x}");
        }
    }

    #[test]
    fn rounding_by_hand() {
        let rows = [
            // Between 1 and 1 + 2⁻⁷: below, at and above the middle.
            (1.0 + 0.9 / 256.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 1.1 / 256.0, 1.0 + 1.0 / 128.0),
            // The next middle goes up, to the even one; likewise below zero.
            (1.0 + 3.0 / 256.0, 1.0 + 2.0 / 128.0),
            (-1.0 - 3.0 / 256.0, -1.0 - 2.0 / 128.0),
            (f32::MAX, f32::INFINITY),
            (f32::MIN, f32::NEG_INFINITY),
            (f32::INFINITY, f32::INFINITY),
            (-0.0, -0.0),
        ];
        for (x, want) in rows {
            assert_eq!(bf16(x).to_bits(), want.to_bits(), "{x}");
        }
    }

    #[test]
    fn nan_stays_nan_whatever_its_bits() {
        for bits in [0x7f80_0001, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff, 0x7fc0_0000] {
            assert!(bf16(f32::from_bits(bits)).is_nan(), "{bits:x}");
        }
    }

    proptest! {
        #[test]
        fn no_bfloat16_is_nearer(x in proptest::num::f32::NORMAL) {
            let got = bf16(x);
            let off = |y: f32| (f64::from(y) - f64::from(x)).abs();
            for upper in [-1, 1] {
                let bits = (got.to_bits() >> 16).wrapping_add_signed(upper) << 16;
                let other = f32::from_bits(bits);
                prop_assert!(!other.is_finite() || off(got) <= off(other), "{x}: {got}, {other}");
            }
        }
    }
}
