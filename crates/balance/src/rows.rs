//! Functions of one row of logits, in double precision.

/// `ln softmax(x / temperature)`.
pub(crate) fn ln_softmax(x: &[f32], temperature: f64) -> Vec<f64> {
    let largest = x.iter().fold(f64::NEG_INFINITY, |largest, &x| largest.max(f64::from(x)));
    let shifted: Vec<f64> = x.iter().map(|&x| (f64::from(x) - largest) / temperature).collect();
    let ln_total = libm::log(shifted.iter().map(|&x| libm::exp(x)).sum::<f64>());
    shifted.into_iter().map(|x| x - ln_total).collect()
}

/// `softmax(x / temperature)`.
pub(crate) fn softmax(x: &[f32], temperature: f64) -> Vec<f64> {
    ln_softmax(x, temperature).into_iter().map(libm::exp).collect()
}

/// Entropy of `softmax(x)` in nats; 0 · ln 0 = 0.
pub(crate) fn entropy(x: &[f32]) -> f64 {
    let terms = ln_softmax(x, 1.0).into_iter().map(|ln_p| {
        let p = libm::exp(ln_p);
        if p > 0.0 { -p * ln_p } else { 0.0 }
    });
    terms.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_can_be_worked_out_by_hand() {
        let row = softmax(&[0.0, 3f32.ln()], 1.0);
        assert!((row[0] - 0.25).abs() < 1e-7 && (row[1] - 0.75).abs() < 1e-7, "{row:?}");
        assert!((entropy(&[1.0; 4]) - 4f64.ln()).abs() < 1e-15);
        assert_eq!(entropy(&[0.0, f32::NEG_INFINITY]), 0.0);
        assert_eq!(softmax(&[1e4, -1e4], 1.0), [1.0, 0.0]);
    }
}
