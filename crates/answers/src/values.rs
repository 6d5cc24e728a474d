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
/// In place of r: bytes stand as they are.
const PLAIN: u32 = 7;
const WAY_BITS: u32 = 3;

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

    /// What `ln p` is kept as; −∞ is kept as it is.
    fn code(self, ln_p: f32) -> u32 {
        match self {
            Self::Byte => {
                let minus = f64::from(-ln_p).max(0.0);
                let code = (minus / FARTHEST).sqrt() * f64::from(ZERO - 1);
                // `as` gives 0 for NaN; a teacher's row that is none was refused before.
                (code.round() as u32).min(ZERO)
            }
            Self::Bf16 => bf16::from_f32(ln_p).to_bits().into(),
            Self::F32 => ln_p.to_bits(),
        }
    }

    fn decode(self, kept: u32) -> f32 {
        match self {
            Self::Byte if kept == ZERO => f32::NEG_INFINITY,
            Self::Byte => {
                let part = f64::from(kept) / f64::from(ZERO - 1);
                (-FARTHEST * part * part) as f32
            }
            Self::Bf16 => bf16::from_bits(kept as u16).to_f32(),
            Self::F32 => f32::from_bits(kept),
        }
    }

    /// Adds `ln p`.
    pub(crate) fn put(self, to: &mut BitWriter, ln_p: f32) {
        to.put(self.code(ln_p), self.bits());
    }

    /// Takes one out.
    pub(crate) fn take(self, from: &mut BitReader<'_>) -> Option<f32> {
        Some(self.decode(from.take(self.bits())?))
    }

    /// Adds several. Most known tokens are about as unlikely as the unlikeliest of them, so bytes are
    /// written as their distances from the largest one, `q · 2ʳ + rest`, as ids are: three bits say r,
    /// or 7 that they stand as they are.
    pub(crate) fn put_all(self, to: &mut BitWriter, ln_p: &[f32]) {
        let codes = || ln_p.iter().map(|&ln_p| self.code(ln_p));
        let largest = codes().max().unwrap_or(0);
        let cost = |r: u32| 8 + codes().map(|code| ((largest - code) >> r) + 1 + r).sum::<u32>();
        let best = (0..PLAIN).map(|r| (cost(r), r)).min();
        match best.filter(|_| self == Self::Byte) {
            Some((cost, r)) if cost < 8 * ln_p.len() as u32 => {
                to.put(r, WAY_BITS);
                to.put(largest, 8);
                for code in codes() {
                    let distance = largest - code;
                    to.put_unary(distance >> r);
                    to.put(distance & ((1 << r) - 1), r);
                }
            }
            _ => {
                if self == Self::Byte {
                    to.put(PLAIN, WAY_BITS);
                }
                codes().for_each(|code| to.put(code, self.bits()));
            }
        }
    }

    /// Takes `count` out, each of which `each` hears.
    pub(crate) fn take_all(
        self,
        from: &mut BitReader<'_>,
        count: usize,
        mut each: impl FnMut(f32),
    ) -> Option<()> {
        let way = if self == Self::Byte { from.take(WAY_BITS)? } else { PLAIN };
        let largest = if way == PLAIN { 0 } else { from.take(8)? };
        for _ in 0..count {
            if way == PLAIN {
                each(self.take(from)?);
                continue;
            }
            let quotient = from.take_unary().filter(|&quotient| quotient < 256)?;
            let distance = (quotient << way) + from.take(way)?;
            each(self.decode(largest.checked_sub(distance)?));
        }
        Some(())
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
    fn several_come_back_as_each_alone_and_take_no_more_than_bytes() {
        let rows: [&[f32]; 5] = [
            &[-0.1, -8.0, -8.2, -9.0, -8.5, -7.9, -8.8, -8.1, -8.3, -8.9],
            &[-0.5, -1.0, f32::NEG_INFINITY, -20.0],
            &[0.0],
            &[-3.0; 60],
            &[],
        ];
        for values in [Values::Byte, Values::Bf16, Values::F32] {
            for ln_p in rows {
                let mut bits = BitWriter::default();
                values.put_all(&mut bits, ln_p);
                let bytes = bits.finish();
                assert!(bytes.len() <= (3 + ln_p.len() * values.bits() as usize).div_ceil(8));
                let mut read = Vec::new();
                let each = |ln_p| read.push(ln_p);
                values.take_all(&mut BitReader::new(&bytes), ln_p.len(), each).unwrap();
                let alone: Vec<f32> = ln_p.iter().map(|&ln_p| kept(values, ln_p)).collect();
                assert_eq!(read, alone, "{values:?}");
            }
        }
        let mut bits = BitWriter::default();
        Values::Byte.put_all(&mut bits, rows[3]);
        assert!(bits.finish().len() < 10, "equal ones take a bit each");
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
