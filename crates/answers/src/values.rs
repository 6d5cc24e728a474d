//! How a logarithm of a probability is kept, and how far that may be from what it was.

use half::bf16;
use serde::{Deserialize, Serialize};

use crate::bits::{BitReader, BitWriter};

/// What numbers are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// One byte, `√(−ln p)` in equal steps: fine where `p` is near 1, coarse where it hardly
    /// counts. Probabilities below e⁻²⁶ become 0. Not for hidden states.
    Byte,
    /// The upper half of an `f32`.
    Bf16,
    /// As computed.
    F32,
}

/// `−ln p` beyond which a byte says that `p` is 0: 5·10⁻¹².
const FARTHEST: f64 = 26.0;
/// The byte that says so.
const ZERO: u32 = 255;

impl Values {
    /// Bits of a number.
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::Byte => 8,
            Self::Bf16 => 16,
            Self::F32 => 32,
        }
    }

    /// Largest distance, in nats, of a kept `ln p` from what it was, for `p` of e⁻²⁶ and more.
    pub fn error_bound(self) -> f64 {
        match self {
            // Half a step at the far end, where steps are widest.
            Self::Byte => Self::byte_error(FARTHEST),
            // Half of the last bit of `ln p`, below 32 in size: 8 bits and 24 of it.
            Self::Bf16 => 32.0 / 512.0,
            Self::F32 => 32.0 / 33_554_432.0,
        }
    }

    /// The same for a byte at one `−ln p`: with steps of `s`, `s √(−ln p) + s²/4`, 0.02 at 1.
    pub fn byte_error(minus_ln: f64) -> f64 {
        let step = FARTHEST.sqrt() / f64::from(ZERO - 1);
        step * minus_ln.sqrt() + step * step / 4.0
    }

    /// Adds `ln p`; −∞ is kept as it is.
    pub(crate) fn put(self, to: &mut BitWriter, ln_p: f32) {
        let kept = match self {
            Self::Byte => {
                let minus = f64::from(-ln_p).max(0.0);
                let code = (minus / FARTHEST).sqrt() * f64::from(ZERO - 1);
                // `as` gives 0 for NaN; a teacher's row that is none was refused before.
                (code.round() as u32).min(ZERO)
            }
            Self::Bf16 => bf16::from_f32(ln_p).to_bits().into(),
            Self::F32 => ln_p.to_bits(),
        };
        to.put(kept, self.bits());
    }

    /// Takes one out.
    pub(crate) fn take(self, from: &mut BitReader<'_>) -> Option<f32> {
        let kept = from.take(self.bits())?;
        Some(match self {
            Self::Byte if kept == ZERO => f32::NEG_INFINITY,
            Self::Byte => {
                let part = f64::from(kept) / f64::from(ZERO - 1);
                (-FARTHEST * part * part) as f32
            }
            Self::Bf16 => bf16::from_bits(kept as u16).to_f32(),
            Self::F32 => f32::from_bits(kept),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(values: Values, ln_p: f32) -> f32 {
        let mut bits = BitWriter::default();
        values.put(&mut bits, ln_p);
        values.take(&mut BitReader::new(&bits.finish())).unwrap()
    }

    #[test]
    fn no_logarithm_moves_farther_than_the_bound() {
        for values in [Values::Byte, Values::Bf16, Values::F32] {
            let mut farthest = 0.0f64;
            for at in 0..=260_000 {
                let ln_p = -at as f32 * 1e-4;
                let off = f64::from(kept(values, ln_p) - ln_p).abs();
                let bound = match values {
                    // And the rounding of the result.
                    Values::Byte => Values::byte_error(f64::from(-ln_p)) + 2e-6,
                    _ => values.error_bound(),
                };
                assert!(off <= bound, "{values:?}: {ln_p} is off by {off}, allowed {bound}");
                farthest = farthest.max(off);
            }
            // The bound is no idle one.
            assert!(farthest > 0.4 * values.error_bound() || values == Values::F32);
        }
    }

    #[test]
    fn nothing_and_everything_are_kept_exactly() {
        for values in [Values::Byte, Values::Bf16, Values::F32] {
            assert_eq!(kept(values, f32::NEG_INFINITY), f32::NEG_INFINITY);
            assert_eq!(kept(values, 0.0), 0.0);
        }
        assert_eq!(kept(Values::Byte, -26.5), f32::NEG_INFINITY);
        assert!(kept(Values::Byte, -26.0).is_finite());
    }
}
