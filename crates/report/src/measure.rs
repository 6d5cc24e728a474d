//! Measures of predictions against the truth.
//!
//! In: two slices of equal length, the truth and what a model said.
//! Out: a value and how many items it covers, or `None` where the measure has no meaning.
//! Never: `NaN` or an infinity.
//!
//! Slices of different lengths are a bug of the caller and panic.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A finite value and how many items it covers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The value; always finite.
    pub value: f64,
    /// How many items it covers; never 0.
    pub n: usize,
}

impl Measured {
    /// `value` over `n` items, or `None` where there is no item or the value is not finite.
    pub fn of(value: f64, n: usize) -> Option<Self> {
        (n > 0 && value.is_finite()).then_some(Self { value, n })
    }
}

/// The share of examples whose class was said: `Σᵢ [tᵢ = pᵢ] / n`, from 0 to 1.
///
/// `None` without examples.
///
/// ```
/// use heirloom_report::measure::accuracy;
/// assert_eq!(accuracy(&[0, 1, 2, 1], &[0, 1, 1, 1]).unwrap().value, 0.75);
/// ```
pub fn accuracy(truth: &[u32], predicted: &[u32]) -> Option<Measured> {
    same_length(truth, predicted);
    let right = truth.iter().zip(predicted).filter(|(truth, predicted)| truth == predicted).count();
    Measured::of(right as f64 / truth.len() as f64, truth.len())
}

/// F1 of class 1, the positive class: `2·TP / (2·TP + FP + FN)`, from 0 to 1 (van Rijsbergen,
/// *Information Retrieval*, 1979).
///
/// All other classes are negative. `None` where class 1 is neither present nor predicted.
///
/// ```
/// use heirloom_report::measure::f1_binary;
/// // One hit, one false alarm, no miss: 2 / (2 + 1).
/// assert_eq!(f1_binary(&[0, 0, 1], &[0, 1, 1]).unwrap().value, 2.0 / 3.0);
/// ```
pub fn f1_binary(truth: &[u32], predicted: &[u32]) -> Option<Measured> {
    same_length(truth, predicted);
    let pairs = truth.iter().zip(predicted);
    let hits: Hits = pairs.map(|(&truth, &predicted)| (truth == 1, predicted == 1)).collect();
    Measured::of(hits.f1()?, truth.len())
}

/// The mean of the F1 of each class, from 0 to 1: rare classes count as much as common ones.
///
/// Classes that are neither present nor predicted have no F1 and are left out, as scikit-learn
/// does. `None` without examples.
///
/// ```
/// use heirloom_report::measure::f1_macro;
/// // Class 0: 2 / (2 + 1). Class 1: 2 / (2 + 1).
/// assert_eq!(f1_macro(&[0, 0, 1], &[0, 1, 1]).unwrap().value, 2.0 / 3.0);
/// ```
pub fn f1_macro(truth: &[u32], predicted: &[u32]) -> Option<Measured> {
    same_length(truth, predicted);
    let mut classes: BTreeMap<u32, Hits> = BTreeMap::new();
    for (&truth, &predicted) in truth.iter().zip(predicted) {
        classes.entry(truth).or_default().add(true, predicted == truth);
        if predicted != truth {
            classes.entry(predicted).or_default().add(false, true);
        }
    }
    let scores: Vec<f64> = classes.values().filter_map(Hits::f1).collect();
    Measured::of(mean(&scores)?, truth.len())
}

/// F1 over all (example, label) pairs at once, from 0 to 1, for examples with several labels.
///
/// `2·TP / (2·TP + FP + FN)` with the counts of all labels added before dividing. `n` counts
/// pairs, not examples. `None` where no label is present and none predicted.
///
/// ```
/// use heirloom_report::measure::f1_micro;
/// let truth = [true, false, true, true];
/// let predicted = [true, true, false, true];
/// assert_eq!(f1_micro(&truth, &predicted).unwrap().value, 4.0 / 6.0);
/// ```
pub fn f1_micro(truth: &[bool], predicted: &[bool]) -> Option<Measured> {
    same_length(truth, predicted);
    let hits: Hits = truth.iter().copied().zip(predicted.iter().copied()).collect();
    Measured::of(hits.f1()?, truth.len())
}

/// Matthews correlation for any number of classes, from −1 to 1.
///
/// `R_K = (c·n − Σₖ tₖ·pₖ) / √((n² − Σₖ pₖ²) · (n² − Σₖ tₖ²))` with `c` right answers among `n`,
/// class `k` present `tₖ` times and predicted `pₖ` times (Gorodkin 2004, *Computational Biology
/// and Chemistry* 28). With two classes it is the coefficient of Matthews (1975).
///
/// Where all examples are of one class, or all predictions are, the quotient is 0 / 0 and the
/// value is 0 by convention: such predictions say nothing. `None` without examples.
///
/// ```
/// use heirloom_report::measure::matthews;
/// // (3·4 − (2·1 + 2·3)) / √((16 − 10)·(16 − 8)) = 4 / √48.
/// let value = matthews(&[0, 0, 1, 1], &[0, 1, 1, 1]).unwrap().value;
/// assert!((value - 4.0 / 48f64.sqrt()).abs() < 1e-15);
/// ```
pub fn matthews(truth: &[u32], predicted: &[u32]) -> Option<Measured> {
    same_length(truth, predicted);
    let mut classes: BTreeMap<u32, (i128, i128)> = BTreeMap::new();
    let mut right = 0;
    for (&truth, &predicted) in truth.iter().zip(predicted) {
        classes.entry(truth).or_default().0 += 1;
        classes.entry(predicted).or_default().1 += 1;
        right += i128::from(truth == predicted);
    }
    let n = truth.len() as i128;
    let total = |product: fn(i128, i128) -> i128| -> i128 {
        classes.values().map(|&(present, said)| product(present, said)).sum()
    };
    let spread_of_truth = n * n - total(|present, _| present * present);
    let spread_of_said = n * n - total(|_, said| said * said);
    if spread_of_truth == 0 || spread_of_said == 0 {
        return Measured::of(0.0, truth.len());
    }
    let shared = right * n - total(|present, said| present * said);
    let value = shared as f64 / (spread_of_truth as f64 * spread_of_said as f64).sqrt();
    Measured::of(value.clamp(-1.0, 1.0), truth.len())
}

/// Pearson's correlation `Σ dx·dy / √(Σ dx² · Σ dy²)`, with `dx = x − x̄`; from −1 to 1.
///
/// `None` with fewer than two pairs, where either side is constant (0 / 0), and where a number is
/// not finite. Both sides are scaled to a size near 1 first, so no square overflows or vanishes.
///
/// ```
/// use heirloom_report::measure::pearson;
/// // Deviations −1, 0, 1 and −1, 1, 0: 1 / √(2·2).
/// assert_eq!(pearson(&[1.0, 2.0, 3.0], &[5.0, 7.0, 6.0]).unwrap().value, 0.5);
/// ```
pub fn pearson(x: &[f64], y: &[f64]) -> Option<Measured> {
    same_length(x, y);
    let (dx, dy) = (scaled_deviations(x)?, scaled_deviations(y)?);
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let value = dot(&dx, &dy) / (dot(&dx, &dx) * dot(&dy, &dy)).sqrt();
    Measured::of(value.clamp(-1.0, 1.0), x.len())
}

/// Spearman's rank correlation, from −1 to 1: [`pearson`] of the ranks, where equal numbers share
/// the mean of their ranks (Spearman 1904).
///
/// `None` where [`pearson`] of the numbers is.
///
/// ```
/// use heirloom_report::measure::spearman;
/// // Growing together, however unevenly.
/// assert_eq!(spearman(&[1.0, 2.0, 3.0], &[1.0, 10.0, 1000.0]).unwrap().value, 1.0);
/// ```
pub fn spearman(x: &[f64], y: &[f64]) -> Option<Measured> {
    same_length(x, y);
    if !x.iter().chain(y).all(|number| number.is_finite()) {
        return None;
    }
    pearson(&ranks(x), &ranks(y))
}

/// The mean squared error `Σᵢ (tᵢ − pᵢ)² / n`, from 0 up, in the square of the unit of the values.
///
/// `None` without examples, where a number is not finite, and where a square overflows.
///
/// ```
/// use heirloom_report::measure::mse;
/// assert_eq!(mse(&[1.0, 2.0], &[1.0, 5.0]).unwrap().value, 4.5);
/// ```
pub fn mse(truth: &[f64], predicted: &[f64]) -> Option<Measured> {
    same_length(truth, predicted);
    let squares: f64 =
        truth.iter().zip(predicted).map(|(truth, predicted)| (truth - predicted).powi(2)).sum();
    Measured::of(squares / truth.len() as f64, truth.len())
}

/// The arithmetic mean, or `None` of nothing.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[track_caller]
pub(crate) fn same_length<A, B>(truth: &[A], predicted: &[B]) {
    assert_eq!(truth.len(), predicted.len(), "both sides cover the same items");
}

/// Right and wrong answers about one class.
#[derive(Default)]
struct Hits {
    hits: u64,
    /// False alarms and misses; F1 does not tell them apart.
    wrong: u64,
}

impl Hits {
    fn add(&mut self, present: bool, predicted: bool) {
        self.hits += u64::from(present && predicted);
        self.wrong += u64::from(present != predicted);
    }

    fn f1(&self) -> Option<f64> {
        let size = 2 * self.hits + self.wrong;
        (size > 0).then(|| (2 * self.hits) as f64 / size as f64)
    }
}

impl FromIterator<(bool, bool)> for Hits {
    fn from_iter<I: IntoIterator<Item = (bool, bool)>>(pairs: I) -> Self {
        let mut hits = Self::default();
        pairs.into_iter().for_each(|(present, predicted)| hits.add(present, predicted));
        hits
    }
}

/// Deviations from the mean, scaled to a size near 1; `None` for what is constant or not finite.
fn scaled_deviations(values: &[f64]) -> Option<Vec<f64>> {
    let first = values.first()?;
    // Compared as they are: the mean of equal numbers may differ from them in the last bit.
    if values.iter().all(|value| value == first) || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let scaled = to_size_one(values)?;
    let centre = mean(&scaled)?;
    let deviations: Vec<f64> = scaled.iter().map(|value| value - centre).collect();
    to_size_one(&deviations)
}

/// The values times the power of two that brings the largest of their sizes to between ½ and 1;
/// `None` where all are 0. A power of two, so that nothing is rounded.
fn to_size_one(values: &[f64]) -> Option<Vec<f64>> {
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let (_, exponent) = libm::frexp(largest);
    (largest > 0.0).then(|| values.iter().map(|&value| libm::scalbn(value, -exponent)).collect())
}

/// Ranks from 1, the mean rank for equal numbers.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for ties in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (ties.len() + 1) as f64 / 2.0;
        ties.iter().for_each(|&at| ranks[at] = rank);
        before += ties.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    type Classes = fn(&[u32], &[u32]) -> Option<Measured>;
    type Values = fn(&[f64], &[f64]) -> Option<Measured>;

    const TRUTH: &[u32] = &[0, 1, 2, 2, 1, 0, 2, 1, 0, 0];
    const SAID: &[u32] = &[0, 2, 2, 2, 1, 0, 1, 1, 0, 1];
    const X: &[f64] = &[1.0, 2.0, 2.0, 4.0, 5.5, 0.5];
    const Y: &[f64] = &[0.9, 2.5, 1.0, 4.0, 4.0, 1.0];

    #[track_caller]
    fn check(found: Option<Measured>, value: f64, n: usize) {
        let found = found.expect("the measure is defined");
        assert!((found.value - value).abs() < 1e-14, "{found:?}, expected {value}");
        assert_eq!(found.n, n);
    }

    #[test]
    fn classes_are_judged_as_scikit_learn_1_9_does() {
        // from sklearn import metrics as m; t, p = TRUTH, SAID
        check(accuracy(TRUTH, SAID), 0.7, 10); // m.accuracy_score(t, p)
        check(matthews(TRUTH, SAID), 0.5606060606060606, 10); // m.matthews_corrcoef(t, p)
        check(f1_macro(TRUTH, SAID), 0.6984126984126983, 10); // m.f1_score(t, p, average='macro')
        // m.f1_score([0,0,1,1], [0,2,1,1], average='macro'): class 2 is predicted, never present.
        check(f1_macro(&[0, 0, 1, 1], &[0, 2, 1, 1]), 0.5555555555555555, 4);
        let (truth, said) = ([1, 0, 1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0, 1, 0]);
        check(f1_binary(&truth, &said), 0.75, 8); // m.f1_score(t, p)
        check(matthews(&truth, &said), 0.5, 8); // m.matthews_corrcoef(t, p)
    }

    #[test]
    fn label_sets_are_judged_as_scikit_learn_1_9_does() {
        let truth = [1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0].map(|mark| mark == 1);
        let said = [1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0].map(|mark| mark == 1);
        // m.f1_score(np.reshape(t, (4, 3)), np.reshape(p, (4, 3)), average='micro')
        check(f1_micro(&truth, &said), 0.6666666666666666, 12);
    }

    #[test]
    fn values_are_judged_as_scipy_1_17_does() {
        check(pearson(X, Y), 0.9112569459581014, 6); // scipy.stats.pearsonr(x, y)[0]
        check(spearman(X, Y), 0.8508410434878082, 6); // scipy.stats.spearmanr(x, y)[0]
        check(mse(X, Y), 0.6266666666666666, 6); // sklearn.metrics.mean_squared_error(x, y)
    }

    #[test]
    fn nothing_has_no_measure() {
        for measure in [accuracy, f1_binary, f1_macro, matthews] as [Classes; 4] {
            assert_eq!(measure(&[], &[]), None);
        }
        for measure in [pearson, spearman, mse] as [Values; 3] {
            assert_eq!(measure(&[], &[]), None);
        }
        assert_eq!(f1_micro(&[], &[]), None);
    }

    #[test]
    fn a_class_that_is_nowhere_has_no_f1() {
        assert_eq!(f1_binary(&[0, 2], &[0, 0]), None);
        assert_eq!(f1_micro(&[false, false], &[false, false]), None);
    }

    #[test]
    fn one_answer_to_everything_has_matthews_correlation_zero() {
        check(matthews(&[0, 1, 1], &[1, 1, 1]), 0.0, 3);
        check(matthews(&[1, 1, 1], &[0, 1, 1]), 0.0, 3);
        check(matthews(&[1], &[1]), 0.0, 1);
    }

    #[test]
    fn what_is_constant_correlates_with_nothing() {
        // 0.1 + 0.1 + 0.1 over 3 is not 0.1, and the difference must not pass for a deviation.
        for measure in [pearson, spearman] as [Values; 2] {
            assert_eq!(measure(&[0.1, 0.1, 0.1], &[1.0, 2.0, 3.0]), None);
            assert_eq!(measure(&[1.0, 2.0, 3.0], &[0.1, 0.1, 0.1]), None);
            assert_eq!(measure(&[1.0], &[2.0]), None);
        }
    }

    #[test]
    fn a_number_that_is_not_finite_has_no_measure() {
        for bad in [f64::NAN, f64::INFINITY] {
            for measure in [pearson, spearman, mse] as [Values; 3] {
                assert_eq!(measure(&[bad, 1.0, 2.0], &[1.0, 2.0, 3.0]), None);
            }
        }
        assert_eq!(mse(&[1e200], &[-1e200]), None);
    }

    #[test]
    fn huge_and_tiny_numbers_correlate_like_ordinary_ones() {
        for size in [1e-300, 1e-160, 1e160, 1e307] {
            let x: Vec<f64> = X.iter().map(|x| x * size).collect();
            check(pearson(&x, Y), 0.9112569459581014, 6);
        }
    }

    #[test]
    fn equal_numbers_share_a_rank() {
        assert_eq!(ranks(&[3.0, -0.0, 0.0, 7.0]), [3.0, 1.5, 1.5, 4.0]);
    }

    #[test]
    #[should_panic(expected = "both sides cover the same items")]
    fn sides_of_different_length_are_a_bug() {
        accuracy(&[0], &[0, 1]);
    }
}
