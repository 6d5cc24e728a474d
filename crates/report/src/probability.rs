//! Measures of the probabilities behind an answer, and of how near two models are.
//!
//! In: logits, `V` per example, and class labels.
//! Out: a value and how many examples it covers, or `None` where it has no meaning.
//! Never: takes the logarithm of a probability; logarithms come from the logits, where a
//! probability too small to write still has one.
//!
//! Who has probabilities and no logits passes their logarithms: `softmax(ln p) = p`.

use crate::measure::{Measured, accuracy, same_length};

/// Logits of many examples, `classes` for each, one example after the other.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    classes: usize,
}

impl<'a> Logits<'a> {
    /// Rows of `classes` logits.
    ///
    /// # Panics
    /// Where `classes` is 0 or does not divide the number of values.
    #[track_caller]
    pub fn new(values: &'a [f32], classes: usize) -> Self {
        assert!(
            classes > 0 && values.len().is_multiple_of(classes),
            "{} logits are no rows of {classes}",
            values.len()
        );
        Self { values, classes }
    }

    /// How many examples there are.
    pub fn n(self) -> usize {
        self.values.len() / self.classes
    }

    /// The logits of each example in turn.
    pub fn rows(self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.classes)
    }

    /// How many logits each example has.
    pub fn classes(self) -> usize {
        self.classes
    }

    /// The logits of one example.
    pub(crate) fn row(self, at: usize) -> &'a [f32] {
        &self.values[at * self.classes..(at + 1) * self.classes]
    }

    /// The class with the largest logit of each example; among equals the first.
    pub fn answers(self) -> Vec<u32> {
        self.rows().map(answer).collect()
    }
}

/// The class with the largest logit; among equals the first, and 0 where none is a number.
///
/// ```
/// assert_eq!(heirloom_report::probability::answer(&[0.5, 2.0, 2.0]), 1);
/// ```
pub fn answer(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (class, logit);
        }
    }
    best.0 as u32
}

/// Probabilities `eˣᵛ / Σᵤ eˣᵘ` of one row of logits.
///
/// Stable because the maximum is subtracted first: no exponent is above 0. At least one logit must
/// be finite.
///
/// ```
/// use heirloom_report::probability::softmax;
/// assert_eq!(softmax(&[1e4, 1e4]), [0.5, 0.5]);
/// ```
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    ln_softmax(logits).into_iter().map(f64::exp).collect()
}

/// `ln softmax` of one row of logits: `xᵥ − max − ln Σᵤ eˣᵘ⁻ᵐᵃˣ`, never above 0.
///
/// Stable because the maximum is subtracted first: no exponent is above 0, and the sum is at least
/// 1. At least one logit must be finite.
///
/// ```
/// use heirloom_report::probability::ln_softmax;
/// assert_eq!(ln_softmax(&[0.0, -2000.0]), [0.0, -2000.0]); // e⁻²⁰⁰⁰ itself is too small to write
/// ```
pub fn ln_softmax(logits: &[f32]) -> Vec<f64> {
    ln_softmax_at(logits, 1.0)
}

/// [`ln_softmax`] of logits divided by a temperature above 0, which need not be rounded to `f32`.
pub(crate) fn ln_softmax_at(logits: &[f32], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = |&logit: &f32| (f64::from(logit) - f64::from(max)) / temperature;
    let ln_total = logits.iter().map(|logit| shifted(logit).exp()).sum::<f64>().ln();
    logits.iter().map(|logit| shifted(logit) - ln_total).collect()
}

/// The mean negative log-likelihood of the true classes in nats: `−Σᵢ ln pᵢ,ₜᵢ / n`, from 0 up.
///
/// `None` without examples, and where a true class has the logit `−∞`.
///
/// # Panics
/// Where a label is not a class.
///
/// ```
/// use heirloom_report::probability::{Logits, nll};
/// let even = Logits::new(&[3.0, 3.0], 2);
/// assert_eq!(nll(even, &[1]).unwrap().value, 2f64.ln());
/// ```
pub fn nll(logits: Logits<'_>, labels: &[u32]) -> Option<Measured> {
    over_rows(logits, labels, |row, label| -ln_softmax(row)[label])
}

/// The Brier score `Σᵢ Σᵥ (pᵢᵥ − [v = tᵢ])² / n`, from 0 (sure and right) to 2 (sure and wrong).
///
/// The form of Brier (*Monthly Weather Review* 78, 1950), over all classes; with two classes it is
/// twice the form that looks at one of them. `None` without examples.
///
/// # Panics
/// Where a label is not a class.
///
/// ```
/// use heirloom_report::probability::{Logits, brier};
/// let even = Logits::new(&[3.0, 3.0], 2);
/// assert_eq!(brier(even, &[1]).unwrap().value, 0.5); // ½² + ½²
/// ```
pub fn brier(logits: Logits<'_>, labels: &[u32]) -> Option<Measured> {
    over_rows(logits, labels, |row, label| squares(&ln_softmax(row), label))
}

/// `Σᵥ (pᵥ − [v = label])²` of one row, from the logarithms of its probabilities.
pub(crate) fn squares(ln_p: &[f64], label: usize) -> f64 {
    let classes = ln_p.iter().enumerate();
    classes.map(|(class, ln_p)| (ln_p.exp() - f64::from(class == label)).powi(2)).sum()
}

/// The mean binary cross-entropy in nats over all (example, label) pairs, from 0 up.
///
/// `−Σ ln σ(±x) / n`, `+` where the label is present. `ln σ(x) = −ln(1 + e⁻ˣ)`, computed as
/// `min(x, 0) − ln(1 + e^−|x|)` so that no exponent is above 0. `n` counts pairs. `None` without
/// pairs.
///
/// ```
/// use heirloom_report::probability::binary_nll;
/// assert_eq!(binary_nll(&[0.0, 0.0], &[true, false]).unwrap().value, 2f64.ln());
/// ```
pub fn binary_nll(logits: &[f32], present: &[bool]) -> Option<Measured> {
    same_length(logits, present);
    let nats = logits.iter().zip(present).map(|(&logit, &present)| {
        let x = if present { f64::from(logit) } else { -f64::from(logit) };
        (-x.abs()).exp().ln_1p() - x.min(0.0)
    });
    Measured::of(nats.sum::<f64>() / logits.len() as f64, logits.len())
}

/// The share of examples that two models answer with the same class, from 0 to 1.
///
/// `None` without examples.
///
/// ```
/// use heirloom_report::probability::{Logits, agreement};
/// let teacher = Logits::new(&[1.0, 0.0, 0.0, 1.0], 2);
/// let student = Logits::new(&[9.0, 8.0, 1.0, 0.0], 2);
/// assert_eq!(agreement(teacher, student).unwrap().value, 0.5);
/// ```
pub fn agreement(first: Logits<'_>, second: Logits<'_>) -> Option<Measured> {
    accuracy(&first.answers(), &second.answers())
}

/// The mean divergence `Σᵢ KL(pᵢ ‖ qᵢ) / n` in nats from the first model to the second, from 0 up.
///
/// `KL(p ‖ q) = Σᵥ pᵥ·(ln pᵥ − ln qᵥ)` with `0 · ln 0 = 0` (Kullback & Leibler 1951), at
/// temperature 1. Not symmetric. `None` without examples, and where a class that the first model
/// thinks possible has the logit `−∞` in the second.
///
/// # Panics
/// Where the models differ in examples or classes.
///
/// ```
/// use heirloom_report::probability::{Logits, divergence};
/// let sure = Logits::new(&[0.0, f32::NEG_INFINITY], 2);
/// let even = Logits::new(&[0.0, 0.0], 2);
/// assert_eq!(divergence(sure, even).unwrap().value, 2f64.ln());
/// assert_eq!(divergence(even, sure), None);
/// ```
pub fn divergence(first: Logits<'_>, second: Logits<'_>) -> Option<Measured> {
    assert_eq!(first.classes, second.classes, "both models know the same classes");
    same_length(first.values, second.values);
    let nats: f64 = first.rows().zip(second.rows()).map(|(p, q)| row_divergence(p, q)).sum();
    Measured::of(nats / first.n() as f64, first.n())
}

fn row_divergence(first: &[f32], second: &[f32]) -> f64 {
    let (ln_p, ln_q) = (ln_softmax(first), ln_softmax(second));
    let terms = ln_p.iter().zip(&ln_q).filter(|(ln_p, _)| **ln_p != f64::NEG_INFINITY);
    // Rounding may leave the sum of a nearly equal pair a hair below 0.
    terms.map(|(ln_p, ln_q)| ln_p.exp() * (ln_p - ln_q)).sum::<f64>().max(0.0)
}

/// The mean over examples of what `of_row` says of the logits and the label.
fn over_rows(
    logits: Logits<'_>,
    labels: &[u32],
    of_row: impl Fn(&[f32], usize) -> f64,
) -> Option<Measured> {
    assert_eq!(logits.n(), labels.len(), "both sides cover the same items");
    let total: f64 =
        logits.rows().zip(labels).map(|(row, &label)| of_row(row, label as usize)).sum();
    Measured::of(total / labels.len() as f64, labels.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f32; 12] = [2.0, 0.5, -1.0, 0.1, 0.2, 0.3, -1.0, 3.0, 0.0, 1.5, 1.4, 0.0];
    const LABELS: [u32; 4] = [0, 2, 1, 1];

    fn logits() -> Logits<'static> {
        Logits::new(&VALUES, 3)
    }

    #[track_caller]
    fn check(found: Option<Measured>, value: f64, n: usize) {
        let found = found.expect("the measure is defined");
        // The logits are f32, the peers' were f64: 0.1 differs by 1e-9.
        assert!((found.value - value).abs() < 1e-8, "{found:?}, expected {value}");
        assert_eq!(found.n, n);
    }

    #[test]
    fn huge_tiny_and_masked_logits_stay_finite() {
        assert_eq!(softmax(&[f32::MAX, -f32::MAX]), [1.0, 0.0]);
        assert_eq!(softmax(&[f32::MIN_POSITIVE, 0.0]), [0.5, 0.5]);
        assert_eq!(softmax(&[f32::NEG_INFINITY, 7.0]), [0.0, 1.0]);
        let far = Logits::new(&[1e4, -1e4], 2);
        assert_eq!(nll(far, &[1]).map(|nll| nll.value), Some(2e4));
        let back = Logits::new(&[-1e4, 1e4], 2);
        assert_eq!(divergence(far, back).map(|kl| kl.value), Some(2e4));
        assert_eq!(binary_nll(&[-1e4], &[true]).map(|nll| nll.value), Some(1e4));
        assert_eq!(binary_nll(&[-1e4], &[false]).map(|nll| nll.value), Some(0.0));
    }

    #[test]
    fn nothing_has_no_measure() {
        let none = Logits::new(&[], 2);
        assert_eq!(nll(none, &[]), None);
        assert_eq!(brier(none, &[]), None);
        assert_eq!(agreement(none, none), None);
        assert_eq!(divergence(none, none), None);
        assert_eq!(binary_nll(&[], &[]), None);
    }

    #[test]
    fn probabilities_are_judged_as_scikit_learn_and_scipy_do() {
        // pr = scipy.special.softmax(np.reshape(VALUES, (4, 3)), axis=1); y = LABELS
        check(nll(logits(), &LABELS), 0.5410763460478889, 4); // sklearn.metrics.log_loss(y, pr)
        check(brier(logits(), &LABELS), 0.31204714567086944, 4); // ((pr-np.eye(3)[y])**2).sum(1).mean()
        let turned: Vec<f32> = logits().rows().flat_map(|row| row.iter().rev()).copied().collect();
        // q = scipy.special.softmax(np.reshape(VALUES, (4, 3))[:, ::-1], axis=1)
        // scipy.stats.entropy(pr.T, q.T).mean()
        check(divergence(logits(), Logits::new(&turned, 3)), 0.7074608259201889, 4);
    }

    #[test]
    fn the_logarithms_of_probabilities_serve_as_logits() {
        let ln_p = [0.25f32.ln(), 0.75f32.ln()];
        check(nll(Logits::new(&ln_p, 2), &[0]), 4f64.ln(), 1);
    }

    #[test]
    fn among_equal_logits_the_first_class_is_the_answer() {
        assert_eq!(Logits::new(&[1.0, 1.0, 0.0, 2.0], 2).answers(), [0, 1]);
        assert_eq!(answer(&[f32::NAN, -3.0]), 1);
    }

    #[test]
    #[should_panic(expected = "3 logits are no rows of 2")]
    fn logits_that_do_not_divide_into_rows_are_a_bug() {
        Logits::new(&[0.0; 3], 2);
    }
}
