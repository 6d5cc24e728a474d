//! Gradients through the last layer alone, in closed form.
//!
//! With logits `z = W h + b`, the gradient of a loss of one sample with respect to `(W, b)` is the
//! outer product of its gradient on the logits, `g`, and `(h, 1)`. Two samples' gradients therefore
//! have the inner product `(hᵢ·hⱼ + 1)(gᵢ·gⱼ)`, and nothing beyond a forward pass is needed.
//!
//! What lies below the last layer is left out: two losses may agree here and disagree there.

use crate::LABEL;
use crate::rows::{ln_softmax, softmax};

/// The gradient of `−ln softmax(z)[label]` on the logits `z`: `s − y`, `[K]`; zero without a label.
pub fn label_gradient(student: &[f32], label: Option<u32>) -> Vec<f64> {
    let Some(label) = label else { return vec![0.0; student.len()] };
    let mut gradient = softmax(student, 1.0);
    gradient[label as usize] -= 1.0;
    gradient
}

/// The gradient of `T² KL(softmax(u/T) ‖ softmax(z/T))` on the student's logits `z`, `u` the
/// teacher's: `T (sᵀ − tᵀ)`, `[K]`.
pub fn teacher_gradient(student: &[f32], teacher: &[f32], temperature: f64) -> Vec<f64> {
    let student = softmax(student, temperature);
    let teacher = softmax(teacher, temperature);
    student.iter().zip(teacher).map(|(s, t)| temperature * (s - t)).collect()
}

/// The derivative of `T² KL(softmax(u/T) ‖ softmax(z/T))` with respect to `T`.
///
/// With `r = ln t − ln s` and `KL = Σ t r`, both softened:
/// `T · (2 KL − Σ t (r − KL) ln t − Σ (s − t) ln s)`. Logits appear as log-probabilities, which
/// differ from `u/T` and `z/T` by constants, and constants drop out of both sums. Zero where the
/// divergence is infinite.
pub fn temperature_slope(student: &[f32], teacher: &[f32], temperature: f64) -> f64 {
    let pairs: Vec<[f64; 2]> = ln_softmax(student, temperature)
        .into_iter()
        .zip(ln_softmax(teacher, temperature))
        .map(|(student, teacher)| [student, teacher])
        .collect();
    // 0 · ln 0 = 0.
    let times = |ln_p: f64, value: f64| {
        let p = libm::exp(ln_p);
        if p > 0.0 { p * value } else { 0.0 }
    };
    let sum = |of: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|&[s, t]| of(s, t)).sum::<f64>();
    let divergence = sum(&|s, t| times(t, t - s));
    let slope = 2.0 * divergence
        - sum(&|s, t| times(t, (t - s - divergence) * t))
        - sum(&|s, t| times(s, s) - times(t, s));
    if slope.is_finite() { temperature * slope } else { 0.0 }
}

/// A sum of gradients with respect to the last layer's `(W, b)`, `[K, D + 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LastLayer {
    /// K.
    classes: usize,
    /// Row after row, the bias last in each; empty before the first sample, as 0 is.
    sum: Vec<f64>,
}

impl LastLayer {
    /// Nothing yet, for `classes` logits.
    pub fn new(classes: usize) -> Self {
        Self { classes, sum: Vec::new() }
    }

    /// Adds `factor` times the gradient of one sample's loss.
    ///
    /// # Shapes
    /// `logits`: the loss's gradient on the logits, `[K]`. `features`: what the layer saw, `[D]`, of
    /// the same width each time.
    pub fn add(&mut self, logits: &[f64], features: &[f32], factor: f64) {
        assert_eq!(logits.len(), self.classes, "gradients on the logits");
        let width = features.len() + 1;
        if self.sum.is_empty() {
            self.sum = vec![0.0; self.classes * width];
        }
        assert_eq!(self.sum.len(), self.classes * width, "features of another width");
        for (row, slope) in self.sum.chunks_exact_mut(width).zip(logits) {
            for (sum, feature) in row.iter_mut().zip(with_one(features)) {
                *sum += factor * slope * feature;
            }
        }
    }

    /// `‖Σ ∇ℓ‖`, the Euclidean norm over all of `(W, b)`.
    pub fn norm(&self) -> f64 {
        self.sum.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// `⟨Σ ∇ℓⱼ, ∇ℓ⟩` with the gradient of one more sample's loss; shapes as in [`LastLayer::add`].
    pub fn along(&self, logits: &[f64], features: &[f32]) -> f64 {
        let rows = self.sum.chunks_exact(features.len() + 1).zip(logits);
        let row = |(row, slope): (&[f64], &f64)| {
            slope * row.iter().zip(with_one(features)).map(|(sum, x)| sum * x).sum::<f64>()
        };
        rows.map(row).sum()
    }
}

fn with_one(features: &[f32]) -> impl Iterator<Item = f64> {
    features.iter().map(|&x| f64::from(x)).chain([1.0])
}

/// `Σⱼ (hᵢ·hⱼ + 1)(gᵢ·gⱼ)` for each sample `i` and each of its losses, `[R, 1 + T]`: label, each
/// teacher.
///
/// The sum over the second set is taken once, so that the cost is `O((R + M) K D)` for `M` samples
/// there. Divide by `M` for the alignment with its mean loss.
///
/// # Shapes
/// `features`: `[R, D]`. `gradients`: of the label's losses and of each teacher's on the logits,
/// `[R, K]` each. `second`: the second set's sum.
pub fn last_layer_alignments(
    features: &[f32],
    gradients: &[&[f64]],
    second: &LastLayer,
) -> Vec<f64> {
    let rows = gradients[LABEL].len() / second.classes;
    let width = features.len().checked_div(rows).unwrap_or(0);
    for gradient in gradients {
        assert_eq!(gradient.len(), gradients[LABEL].len(), "a gradient of each loss");
    }
    assert_eq!(features.len(), rows * width, "features of each sample");
    let of = |row: usize| {
        let features = &features[row * width..(row + 1) * width];
        let logits = row * second.classes..(row + 1) * second.classes;
        let along = |gradient: &&[f64]| second.along(&gradient[logits.clone()], features);
        gradients.iter().map(along).collect::<Vec<_>>()
    };
    (0..rows).flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: usize = 3;
    const WIDTH: usize = 4;

    /// Numbers over −1..1 without a pattern, exact in single precision.
    fn spread(len: usize, seed: u64) -> Vec<f32> {
        let word = |at| heirloom_base::word(seed, heirloom_base::Purpose::Synthetic, 0, at as u64);
        (0..len).map(|at| (2.0 * heirloom_base::uniform(word(at)) - 1.0) as f32).collect()
    }

    fn dot(a: impl Iterator<Item = f64>, b: impl Iterator<Item = f64>) -> f64 {
        a.zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn summed_first_or_pair_by_pair_is_the_same() {
        let (rows, others) = (5, 7);
        let h = [spread(rows * WIDTH, 1), spread(others * WIDTH, 2)];
        let g = [3, 4, 5].map(|seed| {
            let rows = if seed == 5 { others } else { rows };
            spread(rows * CLASSES, seed).into_iter().map(f64::from).collect::<Vec<_>>()
        });
        let mut second = LastLayer::new(CLASSES);
        for (features, logits) in h[1].chunks(WIDTH).zip(g[2].chunks(CLASSES)) {
            second.add(logits, features, 1.0);
        }
        let got = last_layer_alignments(&h[0], &[&g[0], &g[1]], &second);
        assert_eq!(got.len(), 2 * rows);
        let wide = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        for (at, got) in got.into_iter().enumerate() {
            let (row, loss) = (at / 2, at % 2);
            let pair = |other: usize| {
                let features = [&h[0][row * WIDTH..], &h[1][other * WIDTH..]].map(wide);
                let features = features.map(|all| all[..WIDTH].to_vec());
                let own = &g[loss][row * CLASSES..(row + 1) * CLASSES];
                let theirs = &g[2][other * CLASSES..(other + 1) * CLASSES];
                (dot(features[0].iter().copied(), features[1].iter().copied()) + 1.0)
                    * dot(own.iter().copied(), theirs.iter().copied())
            };
            let want: f64 = (0..others).map(pair).sum();
            assert!((got - want).abs() < 1e-13, "{got}, should be {want}");
        }
    }

    /// A linear probe in double precision: its two losses of one sample at weights `[K, D + 1]`.
    fn probe(weights: &[f64], h: &[f32], label: usize, teacher: &[f32], t: f64) -> [f64; 2] {
        let z: Vec<f64> =
            weights.chunks(WIDTH + 1).map(|row| dot(row.iter().copied(), with_one(h))).collect();
        let ln = |x: &[f64], t: f64| {
            let total: f64 = x.iter().map(|x| (x / t).exp()).sum();
            x.iter().map(|x| x / t - total.ln()).collect::<Vec<_>>()
        };
        let u: Vec<f64> = teacher.iter().map(|&u| f64::from(u)).collect();
        let kl: f64 = ln(&u, t).iter().zip(ln(&z, t)).map(|(p, q)| p.exp() * (p - q)).sum();
        [-ln(&z, 1.0)[label], t * t * kl]
    }

    /// A step of the probe down one loss lowers another sample's label loss by their inner product.
    #[test]
    fn alignments_are_what_a_step_of_a_linear_probe_does() {
        let weights: Vec<f64> =
            spread(CLASSES * (WIDTH + 1), 8).into_iter().map(f64::from).collect();
        let [h, other] = [9, 10].map(|seed| spread(WIDTH, seed));
        let (teacher, t) = (spread(CLASSES, 11), 2.5);
        // The logits that the trainer would see are in single precision; so is what is compared, to
        // 2⁻²⁴ of logits of size 2.
        let logits = |h: &[f32]| -> Vec<f32> {
            let of = |row: &[f64]| dot(row.iter().copied(), with_one(h)) as f32;
            weights.chunks(WIDTH + 1).map(of).collect()
        };
        let mut second = LastLayer::new(CLASSES);
        second.add(&label_gradient(&logits(&other), Some(2)), &other, 1.0);
        let own = logits(&h);
        let gradients = [label_gradient(&own, Some(0)), teacher_gradient(&own, &teacher, t)];
        let got = last_layer_alignments(&h, &[&gradients[0], &gradients[1]], &second);

        let step = 1e-6;
        for (loss, got) in got.into_iter().enumerate() {
            // d ℓ(θ + ε v)/dε with v the other sample's gradient.
            let moved = |sign: f64| {
                let along = |(w, v): (&f64, &f64)| w + sign * step * v;
                let weights: Vec<f64> = weights.iter().zip(&second.sum).map(along).collect();
                probe(&weights, &h, 0, &teacher, t)[loss]
            };
            let want = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            assert!((got - want).abs() < 1e-6 * want.abs().max(1.0), "{got}, should be {want}");
        }
    }

    #[test]
    fn the_temperatures_slope_agrees_with_differences() {
        let rows = [
            ([1.0, -2.0, 0.5], [0.3, 2.0, -1.0]),
            ([30.0, -30.0, 0.0], [-20.0, 25.0, 1.0]),
            ([0.0, 1.0, f32::NEG_INFINITY], [2.0, 1.0, f32::NEG_INFINITY]),
            ([0.0, 1.0, -1.0], [2.0, 1.0, f32::NEG_INFINITY]),
        ];
        for (student, teacher) in rows {
            for t in [0.5, 1.0, 4.0, 20.0] {
                let loss = |t: f64| {
                    let pairs = ln_softmax(&teacher, t).into_iter().zip(ln_softmax(&student, t));
                    let term = |(p, q): (f64, f64)| if p > -1e9 { p.exp() * (p - q) } else { 0.0 };
                    t * t * pairs.map(term).sum::<f64>()
                };
                let step = 1e-5 * t;
                let want = (loss(t + step) - loss(t - step)) / (2.0 * step);
                let got = temperature_slope(&student, &teacher, t);
                // Rounding of the loss over the step.
                let bound = 1e-9 * (1.0 + loss(t));
                assert!((got - want).abs() < bound, "T {t}: {got}, should be {want}");
            }
        }
    }

    /// `T² KL` goes to a constant, half the mean square of centred logit differences.
    #[test]
    fn at_a_high_temperature_or_between_equals_the_slope_is_none() {
        assert!(temperature_slope(&[1.0, -2.0, 0.5], &[0.3, 2.0, -1.0], 1e4).abs() < 1e-6);
        assert_eq!(temperature_slope(&[1.0, 2.0], &[1.0, 2.0], 3.0), 0.0);
        assert_eq!(temperature_slope(&[4.0], &[2.0], 3.0), 0.0);
        assert_eq!(temperature_slope(&[0.0, f32::NEG_INFINITY], &[0.0, 0.0], 3.0), 0.0);
    }

    #[test]
    fn no_label_no_gradient_and_a_sum_of_nothing_is_zero() {
        assert_eq!(label_gradient(&[1.0, 2.0], None), [0.0, 0.0]);
        assert_eq!(LastLayer::new(2).norm(), 0.0);
        assert_eq!(LastLayer::new(2).along(&[1.0, -1.0], &[3.0]), 0.0);
        assert_eq!(last_layer_alignments(&[], &[&[], &[]], &LastLayer::new(2)), [] as [f64; 0]);
        // No features: the bias alone.
        let mut bias = LastLayer::new(2);
        bias.add(&[3.0, -4.0], &[], 1.0);
        assert_eq!(bias.norm(), 5.0);
    }
}
