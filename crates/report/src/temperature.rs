//! One temperature for all logits: what calibration is left to gain without training.
//!
//! In: logits and class labels. Out: the temperature of largest likelihood, and the measures of the
//! logits divided by one that was fitted to other examples.
//! Never: scores an example with a temperature that the example helped to fit, or changes an answer.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::calibration::{
    Bin, DEFAULT_BINS, Judged, adaptive_calibration_error, expected_calibration_error, reliability,
};
use crate::measure::same_length;
use crate::probability::{Logits, answer, ln_softmax_at, squares};

/// The lowest temperature a fit gives. Where all answers are right, the likelihood grows without end
/// as the temperature falls; below this, the first mistake on other examples would cost more than
/// twenty times its margin.
pub const COLDEST: f64 = 0.05;

/// The highest temperature a fit gives. Where the logits are worse than even odds, the likelihood
/// grows without end as the temperature rises.
pub const HOTTEST: f64 = 20.0;

/// Newton's steps and halvings of a fit, together; a halving alone would need about sixty to come
/// from one bound to the last bit.
const MOST_STEPS: usize = 200;

/// Measures of logits that were divided by a temperature.
///
/// The temperatures of `halves` gave them, each used on the half that it was not fitted to
/// (two-fold cross-fitting), so that they say what to expect of new examples. Answers, and so
/// accuracy, are those of the logits as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaled {
    /// The temperature of largest likelihood on all examples: the one to use on new ones.
    pub temperature: f64,
    /// Those fitted to each half of the examples.
    pub halves: [f64; 2],
    /// The mean negative log-likelihood in nats.
    pub loss: f64,
    /// The Brier score over all classes, from 0 to 2.
    pub brier: f64,
    /// The expected calibration error over bins of equal width.
    pub expected_error: f64,
    /// The expected calibration error over as many bins of equal mass.
    pub adaptive_error: f64,
    /// The reliability curve over bins of equal width.
    pub curve: Vec<Bin>,
}

/// The temperature `T` from [`COLDEST`] to [`HOTTEST`] under which the labels are likeliest.
///
/// The minimum of `Σᵢ −ln softmax(xᵢ/T)[tᵢ]` (Guo et al. 2017, arXiv:1706.04599, section 4.2). In
/// `β = 1/T` that sum is convex, with the slope `Σᵢ (E[xᵢ] − xᵢ,ₜᵢ)` and the curvature `Σᵢ Var[xᵢ]`
/// under `softmax(β·xᵢ)`: Newton's method finds it, kept between the bounds by halving. 1 where no
/// temperature differs from another: without examples, where each row's logits are equal, or where
/// all are right beyond what double precision tells from certainty.
///
/// # Panics
/// Where a label is not a class.
///
/// ```
/// use heirloom_report::probability::Logits;
/// use heirloom_report::temperature::{COLDEST, fit};
/// // Odds of e² to 1, and right three times in four: 3 to 1 is e² at T = 2/ln 3.
/// let logits = [2.0, 0.0].repeat(4);
/// let found = fit(Logits::new(&logits, 2), &[0, 0, 0, 1]);
/// assert!((found - 2.0 / 3f64.ln()).abs() < 1e-12);
/// assert_eq!(fit(Logits::new(&logits, 2), &[0; 4]), COLDEST);
/// ```
pub fn fit(logits: Logits<'_>, labels: &[u32]) -> f64 {
    let slope = |beta| slope_and_curvature(logits, labels, beta);
    let (mut low, mut high) = (HOTTEST.recip(), COLDEST.recip());
    match (slope(low).0 >= 0.0, slope(high).0 <= 0.0) {
        (true, true) => return 1.0,
        (true, false) => return HOTTEST,
        (false, true) => return COLDEST,
        (false, false) => (),
    }
    let (mut beta, mut last) = (1.0, f64::INFINITY);
    for _ in 0..MOST_STEPS {
        let (down, curvature) = slope(beta);
        match down.partial_cmp(&0.0) {
            Some(Ordering::Less) => low = beta,
            Some(Ordering::Greater) => high = beta,
            Some(Ordering::Equal) | None => break,
        }
        let newton = beta - down / curvature;
        // Far from the minimum the curvature may vanish, or Newton's method go round in circles.
        let trusted = newton > low && newton < high && down.abs() < 0.5 * last;
        let next = if trusted { newton } else { (low * high).sqrt() };
        last = down.abs();
        let moved = (next - beta).abs();
        beta = next;
        if moved <= f64::EPSILON * beta {
            break;
        }
    }
    beta.recip()
}

/// Measures of the scaled logits; `None` with fewer than two examples.
///
/// The halves are every other example in the order of confidence, then of logits, then of labels:
/// both hold sure and unsure answers alike, and the order of the examples changes nothing.
///
/// # Panics
/// Where a label is not a class.
///
/// ```
/// use heirloom_report::probability::Logits;
/// use heirloom_report::temperature::cross_fit;
/// let logits = [4.0, 0.0].repeat(8);
/// let scaled = cross_fit(Logits::new(&logits, 2), &[0, 0, 0, 1, 0, 0, 0, 1]).unwrap();
/// // Right three times in four, and now as confident as that.
/// assert!(scaled.temperature > 3.0 && scaled.expected_error < 1e-12);
/// ```
pub fn cross_fit(logits: Logits<'_>, labels: &[u32]) -> Option<Scaled> {
    if labels.len() < 2 {
        return None;
    }
    let half_of = halves(logits, labels);
    let fitted = [0, 1].map(|half| {
        let of_half = |at: &usize| half_of[*at] == half;
        let chosen: Vec<usize> = (0..labels.len()).filter(of_half).collect();
        let rows: Vec<f32> = chosen.iter().flat_map(|&at| logits.row(at)).copied().collect();
        let truth: Vec<u32> = chosen.iter().map(|&at| labels[at]).collect();
        fit(Logits::new(&rows, logits.classes()), &truth)
    });
    let temperatures: Vec<f64> = half_of.iter().map(|&half| fitted[1 - half]).collect();
    let Scores { loss, brier, judged } = scores(logits, labels, &temperatures);
    Some(Scaled {
        temperature: fit(logits, labels),
        halves: fitted,
        loss,
        brier,
        expected_error: expected_calibration_error(&judged, DEFAULT_BINS)?.value,
        adaptive_error: adaptive_calibration_error(&judged, DEFAULT_BINS)?.value,
        curve: reliability(&judged, DEFAULT_BINS),
    })
}

/// The half, 0 or 1, of each example.
fn halves(logits: Logits<'_>, labels: &[u32]) -> Vec<usize> {
    same_length(&logits.answers(), labels);
    let confidence = |row: &[f32]| ln_softmax_at(row, 1.0)[answer(row) as usize];
    let keys: Vec<f64> = logits.rows().map(confidence).collect();
    let by_row = |a: &[f32], b: &[f32]| {
        let differ = a.iter().zip(b).map(|(a, b)| a.total_cmp(b));
        differ.fold(Ordering::Equal, Ordering::then)
    };
    let mut ranked: Vec<usize> = (0..labels.len()).collect();
    ranked.sort_by(|&a, &b| {
        let rows = || by_row(logits.row(a), logits.row(b));
        keys[a].total_cmp(&keys[b]).then_with(rows).then(labels[a].cmp(&labels[b]))
    });
    let mut halves = vec![0; labels.len()];
    ranked.into_iter().enumerate().for_each(|(rank, at)| halves[at] = rank % 2);
    halves
}

/// What the likelihood and the calibration error are made from.
struct Scores {
    loss: f64,
    brier: f64,
    judged: Vec<Judged>,
}

/// Scores of each example's logits divided by its temperature.
fn scores(logits: Logits<'_>, labels: &[u32], temperatures: &[f64]) -> Scores {
    let (mut loss, mut brier) = (0.0, 0.0);
    let mut judged = Vec::with_capacity(labels.len());
    for ((row, &label), &temperature) in logits.rows().zip(labels).zip(temperatures) {
        let ln_p = ln_softmax_at(row, temperature);
        loss -= ln_p[label as usize];
        brier += squares(&ln_p, label as usize);
        // By the logits as they are: dividing them by any temperature keeps their order.
        let said = answer(row);
        judged.push(Judged { confidence: ln_p[said as usize].exp(), right: said == label });
    }
    let n = labels.len() as f64;
    Scores { loss: loss / n, brier: brier / n, judged }
}

/// First and second derivative of `Σᵢ −ln softmax(β·xᵢ)[tᵢ]` in β.
fn slope_and_curvature(logits: Logits<'_>, labels: &[u32], beta: f64) -> (f64, f64) {
    let (mut slope, mut curvature) = (0.0, 0.0);
    for (row, &label) in logits.rows().zip(labels) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // No logit is above 0, so no exponent is.
        let shifted = row.iter().map(|&logit| f64::from(logit) - f64::from(max));
        let [mut total, mut first, mut second] = [0.0; 3];
        for x in shifted {
            let p = (beta * x).exp();
            // A class of no probability has no part in a mean, however far its logit is.
            if p > 0.0 {
                total += p;
                first += p * x;
                second += p * x * x;
            }
        }
        let mean = first / total;
        slope += mean - (f64::from(row[label as usize]) - f64::from(max));
        curvature += (second / total - mean * mean).max(0.0);
    }
    (slope, curvature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::judge;
    use crate::probability::{brier, nll};

    const VALUES: [f32; 12] = [2.0, 0.5, -1.0, 0.1, 0.2, 0.3, -1.0, 3.0, 0.0, 1.5, 1.4, 0.0];
    const LABELS: [u32; 4] = [0, 2, 1, 1];

    #[test]
    fn a_temperature_of_one_changes_nothing() {
        let logits = Logits::new(&VALUES, 3);
        let found = scores(logits, &LABELS, &[1.0; 4]);
        assert_eq!(Some(found.loss), nll(logits, &LABELS).map(|nll| nll.value));
        assert_eq!(Some(found.brier), brier(logits, &LABELS).map(|brier| brier.value));
        assert_eq!(found.judged, judge(logits, &LABELS));
    }

    #[test]
    fn where_the_likelihood_has_no_maximum_the_fit_stops_at_a_bound() {
        let fit = |values: &[f32], labels: &[u32]| fit(Logits::new(values, 2), labels);
        assert_eq!(fit(&[1.0, 0.0, 0.0, 3.0], &[0, 1]), COLDEST);
        assert_eq!(fit(&[1.0, 0.0, 0.0, 3.0], &[1, 0]), HOTTEST);
        // Right by a little and wrong by more: still worse than even odds.
        assert_eq!(fit(&[1.0, 0.0, 0.0, 3.0], &[0, 0]), HOTTEST);
        assert_eq!(fit(&[f32::MAX, -f32::MAX], &[1]), HOTTEST);
    }

    #[test]
    fn where_no_temperature_differs_from_another_it_is_one() {
        assert_eq!(fit(Logits::new(&[], 2), &[]), 1.0);
        assert_eq!(fit(Logits::new(&[3.0, 3.0, -1.0, -1.0], 2), &[0, 1]), 1.0);
        // A probability of 1 to the last bit, at either bound.
        assert_eq!(fit(Logits::new(&[f32::MAX, -f32::MAX], 2), &[0]), 1.0);
    }

    #[test]
    fn derivatives_are_those_of_the_likelihood() {
        let logits = Logits::new(&VALUES, 3);
        let loss = |beta: f64| scores(logits, &LABELS, &[beta.recip(); 4]).loss * 4.0;
        for beta in [0.3, 1.0, 2.5] {
            // A central difference errs by h² and by rounding / h; the second by rounding / h².
            let h = 1e-4;
            let (slope, curvature) = slope_and_curvature(logits, &LABELS, beta);
            let (before, here, after) = (loss(beta - h), loss(beta), loss(beta + h));
            assert!((slope - (after - before) / (2.0 * h)).abs() < 1e-7, "β = {beta}");
            assert!(
                (curvature - (after - 2.0 * here + before) / (h * h)).abs() < 1e-6,
                "β = {beta}"
            );
        }
    }

    #[test]
    fn halves_take_turns_in_confidence_and_equal_rows_in_labels() {
        // From the least sure: examples 1, 3, 0, 2.
        let values = [2.0, 0.0, 0.1, 0.0, 0.0, 3.0, 0.0, 1.0];
        assert_eq!(halves(Logits::new(&values, 2), &[0; 4]), [0, 0, 1, 1]);
        // Sorted by label, both halves have one of each.
        let even = halves(Logits::new(&[0.0; 8], 2), &[1, 0, 1, 0]);
        assert_ne!(even[0], even[2]);
        assert_ne!(even[1], even[3]);
    }

    #[test]
    fn an_example_is_scored_by_the_other_halfs_temperature() {
        // The halves are {first, third} and {second, fourth}: the first half is all right.
        let values = [1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0, 0.0];
        let logits = Logits::new(&values, 2);
        let scaled = cross_fit(logits, &[0, 0, 0, 1]).unwrap();
        assert_eq!(scaled.halves, [COLDEST, HOTTEST]);
        let nats = |margin: f64| (-margin).exp().ln_1p();
        let want = [nats(1.0 / HOTTEST), nats(3.0 / HOTTEST), nats(2.0 / COLDEST)];
        let want = (want.iter().sum::<f64>() + nats(-4.0 / COLDEST)) / 4.0;
        assert!((scaled.loss - want).abs() < 1e-12, "{scaled:?}, expected {want}");
    }

    #[test]
    fn one_example_cannot_be_halved() {
        assert_eq!(cross_fit(Logits::new(&[1.0, 0.0], 2), &[0]), None);
        assert!(cross_fit(Logits::new(&[1.0, 0.0, 0.0, 1.0], 2), &[0, 0]).is_some());
    }
}
