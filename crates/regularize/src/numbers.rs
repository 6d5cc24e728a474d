//! Functions of one row of numbers, in double precision.

/// `ln softmax(x / temperature)`, `[K]`; −∞ stays −∞, also at an infinite temperature.
///
/// Where all are −∞ there is no distribution, and all stay −∞.
pub fn ln_softmax(x: &[f64], temperature: f64) -> Vec<f64> {
    let largest = x.iter().fold(f64::NEG_INFINITY, |largest, &x| largest.max(x));
    if largest == f64::NEG_INFINITY {
        return x.to_vec();
    }
    let scaled = |&x: &f64| if x == f64::NEG_INFINITY { x } else { (x - largest) / temperature };
    let mut y: Vec<f64> = x.iter().map(scaled).collect();
    let ln_total = libm::log(y.iter().map(|&y| libm::exp(y)).sum());
    y.iter_mut().for_each(|y| *y -= ln_total);
    y
}

/// `softmax(x / temperature)`, `[K]`.
pub fn softmax(x: &[f64], temperature: f64) -> Vec<f64> {
    ln_softmax(x, temperature).into_iter().map(libm::exp).collect()
}

/// `−Σ q ln s` in nats, from `ln s`; 0 · ln 0 = 0.
pub fn cross_entropy(q: &[f64], ln_s: &[f64]) -> f64 {
    -q.iter().zip(ln_s).map(|(&q, &ln_s)| times(q, ln_s)).sum::<f64>()
}

/// `−Σ p ln p` in nats; 0 · ln 0 = 0.
pub fn entropy(p: &[f64]) -> f64 {
    -p.iter().map(|&p| times(p, libm::log(p))).sum::<f64>()
}

/// `Σ p ln(p/q)` in nats, infinite where `q` lacks what `p` has.
pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    let terms = p.iter().zip(q).map(|(&p, &q)| times(p, libm::log(p) - libm::log(q)));
    terms.sum()
}

/// `a · b`, and 0 where `a` is 0 whatever `b` is.
pub(crate) fn times(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a * b }
}

/// Where the largest is; of equals the first.
pub(crate) fn largest(x: &[f64]) -> usize {
    let of = |best: usize, (at, &x_at): (usize, &f64)| if x_at > x[best] { at } else { best };
    x.iter().enumerate().fold(0, of)
}

/// Turns ∂L/∂s into ∂L/∂z, `s = softmax(z)`; `s` of 0 has no slope, however steep `d_s` is there.
pub(crate) fn through_softmax(s: &[f64], d_s: &mut [f64]) {
    let mean: f64 = s.iter().zip(&*d_s).map(|(&s, &d)| times(s, d)).sum();
    d_s.iter_mut().zip(s).for_each(|(d, &s)| *d = times(s, *d - mean));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_can_be_worked_out_by_hand() {
        let row = softmax(&[0.0, 9f64.ln(), f64::NEG_INFINITY], 2.0);
        assert!((row[0] - 0.25).abs() < 1e-15 && (row[1] - 0.75).abs() < 1e-15 && row[2] == 0.0);
        assert_eq!(softmax(&[1e4, -1e4], 1.0), [1.0, 0.0]);
        let even = softmax(&[1e4, -1e4, f64::NEG_INFINITY], f64::INFINITY);
        assert!(even[0] == even[1] && (even[0] - 0.5).abs() < 1e-15 && even[2] == 0.0);
        assert_eq!(softmax(&[f64::NEG_INFINITY; 2], 1.0), [0.0, 0.0]);
        assert!((entropy(&[0.25; 4]) - 4f64.ln()).abs() < 1e-15);
        assert_eq!(kl(&[1.0, 0.0], &[1.0, 0.0]), 0.0);
        assert_eq!(kl(&[0.5, 0.5], &[1.0, 0.0]), f64::INFINITY);
        assert_eq!(largest(&[1.0, 3.0, 3.0]), 1);
    }
}
