//! One row of logits on the host, as what it is proportional to.
//!
//! In: a row, a temperature. Out: the exponentials of its differences from the largest, and their sum.
//! Never: another bit on another processor.

use super::lanes::{max, sum2_f64, vectorised};
use super::math::exp;

/// Writes `exp((x − largest)/T)` for every number of a row; a relative error of 2·10⁻⁷ in each, and of
/// 10⁻⁵ in those that are nothing beside the largest. Of −∞ it is 0. Returns the largest number, and
/// the sum of what was written.
///
/// # Panics
/// Where the two rows differ in length.
pub fn exponentials(x: &[f32], temperature: f64, out: &mut [f32]) -> (f32, f64) {
    assert_eq!(x.len(), out.len(), "as many exponentials as numbers");
    vectorised(
        #[inline(always)]
        || {
            let largest = max(x);
            let scale = (1.0 / temperature) as f32;
            for (y, &x) in out.iter_mut().zip(x) {
                *y = exp((x - largest) * scale);
            }
            (largest, sum2_f64(out, out, |y, _| f64::from(y)))
        },
    )
}

/// The sum of a row, in double precision.
pub fn sum(x: &[f32]) -> f64 {
    vectorised(
        #[inline(always)]
        || sum2_f64(x, x, |x, _| f64::from(x)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_what_double_precision_says() {
        for (length, temperature) in [(1, 1.0), (15, 0.5), (1000, 2.0), (4097, 1.0)] {
            let x: Vec<f32> = (0..length)
                .map(
                    |at| if at % 7 == 3 { f32::NEG_INFINITY } else { (at * 37 % 101) as f32 / 5.0 },
                )
                .collect();
            let mut out = vec![f32::NAN; x.len()];
            let (largest, total) = exponentials(&x, temperature, &mut out);
            assert_eq!(largest, x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let want = x.iter().map(|&x| (f64::from(x - largest) / temperature).exp());
            for (got, want) in out.iter().zip(want.clone()) {
                assert!((f64::from(*got) - want).abs() <= 1e-6 * want, "{got}, {want}");
            }
            let want: f64 = want.sum();
            assert!((total - want).abs() < 1e-6 * want, "{total}, {want}");
            assert_eq!(total, sum(&out));
        }
        // A row of one number far above all others, and of nothing.
        let mut out = [0.0; 3];
        assert_eq!(exponentials(&[f32::NEG_INFINITY, 1e4, -1e4], 1.0, &mut out), (1e4, 1.0));
        assert_eq!(exponentials(&[], 1.0, &mut []), (f32::NEG_INFINITY, 0.0));
    }
}
