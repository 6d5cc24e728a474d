//! Eight rows of eight numbers, turned: with shuffles where the processor has them.

/// A square of numbers, row after row.
pub(super) type Square = [[f32; 8]; 8];

/// Rows become columns. `shuffles` says that AVX2 is there.
#[inline(always)]
pub(super) fn transpose(rows: Square, shuffles: bool) -> Square {
    #[cfg(target_arch = "x86_64")]
    if shuffles {
        #[expect(unsafe_code, reason = "a function compiled for the processor's shuffles")]
        // SAFETY: the caller says that the processor has AVX2.
        return unsafe { avx2::transpose(rows) };
    }
    let _ = shuffles;
    plain(rows)
}

#[inline(always)]
fn plain(rows: Square) -> Square {
    std::array::from_fn(|row| std::array::from_fn(|column| rows[column][row]))
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };

    use super::Square;

    /// Pairs, then fours, then halves change places.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) fn transpose(rows: Square) -> Square {
        let r: [__m256; 8] = bytemuck::cast(rows);
        let mut pairs = r;
        for at in 0..4 {
            pairs[2 * at] = _mm256_unpacklo_ps(r[2 * at], r[2 * at + 1]);
            pairs[2 * at + 1] = _mm256_unpackhi_ps(r[2 * at], r[2 * at + 1]);
        }
        let mut fours = pairs;
        for at in [0, 4] {
            for part in 0..2 {
                let (low, high) = (pairs[at + part], pairs[at + part + 2]);
                fours[at + 2 * part] = _mm256_shuffle_ps::<0x44>(low, high);
                fours[at + 2 * part + 1] = _mm256_shuffle_ps::<0xee>(low, high);
            }
        }
        let mut turned = fours;
        for at in 0..4 {
            turned[at] = _mm256_permute2f128_ps::<0x20>(fours[at], fours[at + 4]);
            turned[at + 4] = _mm256_permute2f128_ps::<0x31>(fours[at], fours[at + 4]);
        }
        bytemuck::cast(turned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_turn_a_square_as_plain_loops_do() {
        let rows =
            std::array::from_fn(|row| std::array::from_fn(|column| (8 * row + column) as f32));
        let want = plain(rows);
        assert_eq!((want[3][5], want[7][0]), (43.0, 7.0));
        assert_eq!(transpose(rows, false), want);
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            assert_eq!(transpose(rows, true), want);
        }
    }
}
