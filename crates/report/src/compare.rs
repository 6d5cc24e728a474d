//! Two models on the same examples or the same seeds: which is better, and is it chance?
//!
//! In: answers of two models to the same examples, or scores of two methods over the same seeds.
//! Out: the difference, first minus second, with a 95 % interval and a p-value.
//! Never: a different answer for the same seed, or for the examples in another order.

use std::fmt;

use heirloom_base::{Purpose, Words};
use serde::{Deserialize, Serialize};

use crate::error::{Difference, Error};
use crate::measure::same_length;
use crate::predictions::{Labels, Predictions};
use crate::probability::{agreement, divergence};
use crate::seeds::Seeds;
use crate::student::{incomplete_beta, two_sided, two_sided_quantile};

/// Resamples behind an interval: with so many, its ends move by about 0.03 standard errors of the
/// difference from one seed to the next, √(p(1−p)/10000) over the normal density at p = 2.5 %.
pub const RESAMPLES: u32 = 10_000;

/// The probability left outside an interval, half to each side.
const OUTSIDE: f64 = 0.05;

/// The range that holds the true difference in 95 of 100 such comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in the interval; where 0 does, the difference may be chance.
    pub fn contains(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(3);
        write!(f, "[{:+.decimals$}, {:+.decimals$}]", self.low, self.high)
    }
}

/// Two classifiers on the same examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Who is right more often.
    pub accuracy: AccuracyDifference,
    /// The share of examples both answer alike, right or wrong.
    pub agreement: f64,
    /// The mean `KL(first ‖ second)` in nats; see [`divergence`].
    pub divergence: f64,
}

/// A difference of accuracy over the same examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccuracyDifference {
    /// How many examples both answered.
    pub n: usize,
    /// The accuracy of the first.
    pub first: f64,
    /// The accuracy of the second.
    pub second: f64,
    /// First minus second.
    pub difference: f64,
    /// Its interval by paired bootstrap.
    pub interval: Interval,
    /// Examples that only the first got right.
    pub only_first: u64,
    /// Examples that only the second got right.
    pub only_second: u64,
    /// The p-value of McNemar's exact test; see [`mcnemar_exact`].
    pub mcnemar_p: f64,
    /// How many resamples are behind the interval.
    pub resamples: u32,
    /// The seed of the resamples.
    pub seed: u64,
}

impl fmt::Display for AccuracyDifference {
    /// `+0.012 [+0.003, +0.021] (n=872, p=0.008)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n, difference, interval, mcnemar_p, .. } = self;
        write!(f, "{difference:+.3} {interval} (n={n}, p={mcnemar_p:.3})")
    }
}

/// Compares two classifiers on the same examples; `None` without examples.
///
/// `seed` addresses the resamples, so the same seed gives the same interval.
pub fn classifiers(
    first: &Predictions,
    second: &Predictions,
    seed: u64,
) -> Result<Option<Comparison>, Error> {
    let labels = shared_labels(first, second)?;
    let (first, second) = (first.logits(), second.logits());
    let (agreement, divergence) = (agreement(first, second), divergence(first, second));
    let accuracy = accuracies(labels, &first.answers(), &second.answers(), seed);
    Ok(accuracy.zip(agreement).zip(divergence).map(|((accuracy, agreement), divergence)| {
        Comparison { accuracy, agreement: agreement.value, divergence: divergence.value }
    }))
}

/// The difference of accuracy between two sets of answers to the same examples, first minus
/// second; `None` without examples.
///
/// The interval holds the middle 95 % of the differences in 10,000 resamples of the examples, drawn
/// with replacement (Efron & Tibshirani 1993, §13.3). A resample draws each example together with
/// both answers, so examples that are hard for both models do not widen it.
///
/// # Panics
/// Where the slices differ in length.
///
/// ```
/// use heirloom_report::compare::accuracies;
/// let difference = accuracies(&[0, 1, 1, 0], &[0, 1, 1, 1], &[0, 1, 0, 1], 7).unwrap();
/// assert_eq!(difference.difference, 0.25);
/// assert_eq!((difference.only_first, difference.only_second), (1, 0));
/// ```
pub fn accuracies(
    labels: &[u32],
    first: &[u32],
    second: &[u32],
    seed: u64,
) -> Option<AccuracyDifference> {
    same_length(labels, first);
    same_length(labels, second);
    let (mut both, mut only_first, mut only_second) = (0, 0, 0);
    for ((label, first), second) in labels.iter().zip(first).zip(second) {
        match (first == label, second == label) {
            (true, true) => both += 1,
            (true, false) => only_first += 1,
            (false, true) => only_second += 1,
            (false, false) => {}
        }
    }
    let n = labels.len();
    let share = |count: u64| count as f64 / n as f64;
    (n > 0).then(|| AccuracyDifference {
        n,
        first: share(both + only_first),
        second: share(both + only_second),
        difference: (only_first as f64 - only_second as f64) / n as f64,
        interval: bootstrap(only_first, only_second, n as u64, seed),
        only_first,
        only_second,
        mcnemar_p: mcnemar_exact(only_first, only_second),
        resamples: RESAMPLES,
        seed,
    })
}

/// McNemar's exact test (*Psychometrika* 12, 1947): the probability that a fair coin splits the
/// examples that only one model got right at least as unevenly as they were split; from 0 to 1.
///
/// `min(1, 2·Σᵢ≤ₖ C(m, i) / 2ᵐ)` with `m = only_first + only_second` and `k` the smaller of them.
/// Without such examples there is nothing to doubt with, and it is 1.
///
/// ```
/// use heirloom_report::compare::mcnemar_exact;
/// assert!((mcnemar_exact(0, 3) - 0.25).abs() < 1e-15); // 2 · ½³
/// ```
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> f64 {
    let (few, many) = (only_first.min(only_second), only_first.max(only_second));
    if few == many {
        return 1.0;
    }
    // P(X ≤ k) of the binomial distribution is I½(m − k, k + 1) (DLMF 8.17.5).
    (2.0 * incomplete_beta(many as f64, few as f64 + 1.0, 0.5)).min(1.0)
}

/// The difference between two methods whose runs are paired by seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeedDifference {
    /// How many seeds both ran.
    pub n: usize,
    /// The mean over seeds of first minus second.
    pub mean: f64,
    /// The sample standard deviation of the differences; `None` for one seed.
    pub sd: Option<f64>,
    /// `mean ± t · sd / √n`, with Student's `t` for `n − 1` degrees of freedom; `None` for one
    /// seed.
    pub interval: Option<Interval>,
    /// The p-value of the paired t test; `None` for one seed and for differences that are all
    /// equal, where t is undefined.
    pub p: Option<f64>,
}

impl fmt::Display for SeedDifference {
    /// `+0.005 [-0.002, +0.012] (n=3, p=0.082)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.3}", self.mean)?;
        if let Some(interval) = self.interval {
            write!(f, " {interval}")?;
        }
        write!(f, " (n={}", self.n)?;
        if let Some(p) = self.p {
            write!(f, ", p={p:.3}")?;
        }
        write!(f, ")")
    }
}

/// The difference between the scores of two methods, seed by seed, first minus second; `None`
/// without seeds and where a score is not finite.
///
/// # Panics
/// Where one method ran more seeds.
///
/// ```
/// use heirloom_report::compare::across_seeds;
/// let difference = across_seeds(&[3.0, 5.0], &[2.0, 2.0]).unwrap();
/// assert_eq!(difference.mean, 2.0);
/// ```
pub fn across_seeds(first: &[f64], second: &[f64]) -> Option<SeedDifference> {
    same_length(first, second);
    let differences: Vec<f64> =
        first.iter().zip(second).map(|(first, second)| first - second).collect();
    let Seeds { mean, sd, n } = Seeds::of(&differences)?;
    let df = n as f64 - 1.0;
    let error = sd.map(|sd| sd / (n as f64).sqrt());
    let interval = error.map(|error| {
        let reach = two_sided_quantile(OUTSIDE, df) * error;
        Interval { low: mean - reach, high: mean + reach }
    });
    let p = error.filter(|&error| error > 0.0).map(|error| two_sided(mean / error, df));
    Some(SeedDifference { n, mean, sd, interval, p })
}

/// The labels of both, where both judged the same examples.
fn shared_labels<'a>(first: &'a Predictions, second: &Predictions) -> Result<&'a [u32], Error> {
    let (labels, others) = match (first.labels(), second.labels()) {
        (Labels::Classes(labels), Labels::Classes(others)) => (labels, others),
        (Labels::Classes(_), other) | (other, _) => {
            return Err(Error::NotClasses { found: other.kind() });
        }
    };
    let counts = (labels.len(), others.len());
    let classes = (first.classes(), second.classes());
    let difference = if counts.0 != counts.1 {
        Some(Difference::Count { first: counts.0, second: counts.1 })
    } else if classes.0 != classes.1 {
        Some(Difference::Classes { first: classes.0, second: classes.1 })
    } else {
        let unequal = labels.iter().zip(others).position(|(label, other)| label != other);
        unequal.map(|example| Difference::Label {
            example,
            first: labels[example],
            second: others[example],
        })
    };
    match difference {
        Some(difference) => Err(Error::NotTheSameExamples { difference }),
        None => Ok(labels),
    }
}

/// The middle 95 % of the differences of accuracy over resamples of `n` examples.
///
/// An example is a win, a loss or neither, so drawing one is a word that falls below the share of
/// wins, or of wins and losses. Which example it was does not matter, nor does their order.
fn bootstrap(wins: u64, losses: u64, n: u64, seed: u64) -> Interval {
    // Shares of 2³² words; rounding changes a share by less than 2⁻³².
    let share = |count: u64| ((u128::from(count) << 32) / u128::from(n)) as u64;
    let (win_below, loss_below) = (share(wins), share(wins + losses));
    let difference = |resample: u32| -> i64 {
        let words = Words::at(seed, Purpose::Bootstrap, u64::from(resample), 0);
        let value = |word: u32| match u64::from(word) {
            word if word < win_below => 1,
            word if word < loss_below => -1,
            _ => 0,
        };
        let blocks = n.div_ceil(4);
        let block = |at: u64| {
            let drawn = (n - 4 * at).min(4) as usize;
            let words = words.block((at >> 32) as u32, at as u32);
            words[..drawn].iter().copied().map(value).sum::<i64>()
        };
        (0..blocks).map(block).sum()
    };
    let mut differences: Vec<i64> = (0..RESAMPLES).map(difference).collect();
    differences.sort_unstable();
    let end = |p: f64| quantile(&differences, p) / n as f64;
    Interval { low: end(OUTSIDE / 2.0), high: end(1.0 - OUTSIDE / 2.0) }
}

/// The quantile of sorted values, linear between neighbours (type 7 of Hyndman & Fan 1996).
fn quantile(sorted: &[i64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize] as f64, sorted[at.ceil() as usize] as f64);
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers to `n` examples of class 1: first the wins, then the losses, then ties.
    fn answers(wins: usize, losses: usize, n: usize) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
        let first = (0..n).map(|at| u32::from(!(wins..wins + losses).contains(&at))).collect();
        let second = (0..n).map(|at| u32::from(at >= wins)).collect();
        (vec![1; n], first, second)
    }

    #[track_caller]
    fn near(found: f64, want: f64, by: f64) {
        assert!((found - want).abs() <= by, "{found}, expected {want} ± {by}");
    }

    #[test]
    fn mcnemars_test_is_scipys_binomial_test() {
        // scipy.stats.binomtest(min(b, c), b + c).pvalue, scipy 1.17
        let rows = [
            (10, 3, 0.09228515625),
            (5, 5, 1.0),
            (0, 6, 0.03125),
            (121, 59, 4.4344492637551645e-06),
            (1, 0, 1.0),
            (600, 700, 0.0060157938610449395),
            (0, 0, 1.0),
        ];
        for (only_first, only_second, p) in rows {
            near(mcnemar_exact(only_first, only_second) / p, 1.0, 1e-10);
        }
    }

    #[test]
    fn the_interval_is_that_of_a_long_bootstrap_by_numpy() {
        let (labels, first, second) = answers(30, 12, 200);
        let found = accuracies(&labels, &first, &second, 1).unwrap();
        // d = [1]*30 + [-1]*12 + [0]*158; rng = np.random.default_rng(0)
        // np.percentile(rng.choice(d, (200000, 200)).mean(1), [2.5, 97.5]) is [0.03, 0.155];
        // differences come in steps of 0.005, and two resampled ends may fall one step apart.
        near(found.interval.low, 0.03, 0.0051);
        near(found.interval.high, 0.155, 0.0051);
        near(found.difference, 0.09, 1e-15);
        near(found.first - found.second, 0.09, 1e-15);
        assert!(!found.interval.contains(0.0));
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_whatever_the_order() {
        let (mut labels, mut first, mut second) = answers(7, 4, 50);
        let found = accuracies(&labels, &first, &second, 3).unwrap();
        labels.reverse();
        first.reverse();
        second.reverse();
        assert_eq!(accuracies(&labels, &first, &second, 3), Some(found));
    }

    #[test]
    fn the_interval_of_a_published_comparison_never_changes() {
        let (labels, first, second) = answers(301, 257, 3001);
        let found = accuracies(&labels, &first, &second, 7).unwrap();
        // np.random.default_rng(0).multinomial(3001, [301/3001, 257/3001, 2443/3001], 2000000) has
        // its percentiles 2.5 and 97.5 of first minus second at -2 and 90.
        assert_eq!(found.interval, Interval { low: -2.0 / 3001.0, high: 89.0 / 3001.0 });
    }

    #[test]
    fn models_that_never_differ_leave_no_doubt() {
        let (labels, first, second) = answers(0, 0, 9);
        let found = accuracies(&labels, &first, &second, 3).unwrap();
        assert_eq!(found.interval, Interval { low: 0.0, high: 0.0 });
        let (labels, first, second) = answers(5, 0, 5);
        let found = accuracies(&labels, &first, &second, 3).unwrap();
        assert_eq!(found.interval, Interval { low: 1.0, high: 1.0 });
        assert_eq!(found.to_string(), "+1.000 [+1.000, +1.000] (n=5, p=0.062)");
    }

    #[test]
    fn no_examples_and_no_seeds_have_no_difference() {
        assert_eq!(accuracies(&[], &[], &[], 0), None);
        assert_eq!(across_seeds(&[], &[]), None);
        assert_eq!(across_seeds(&[f64::NAN, 1.0], &[0.0, 0.0]), None);
    }

    #[test]
    fn paired_seeds_are_compared_as_scipy_does() {
        let (first, second) = ([0.912, 0.908, 0.915], [0.905, 0.906, 0.909]);
        let found = across_seeds(&first, &second).unwrap();
        // r = scipy.stats.ttest_rel(a, b); r.confidence_interval(), r.pvalue, scipy 1.17
        let interval = found.interval.unwrap();
        near(interval.low, -0.0015724106077284281, 1e-14);
        near(interval.high, 0.011572410607728437, 1e-14);
        near(found.p.unwrap(), 0.08201490795684313, 1e-11);
        near(found.sd.unwrap(), 0.002645751311064593, 1e-15);
        assert_eq!(found.to_string(), "+0.005 [-0.002, +0.012] (n=3, p=0.082)");
    }

    #[test]
    fn one_seed_has_a_difference_and_no_interval() {
        let found = across_seeds(&[0.5], &[0.25]).unwrap();
        assert_eq!((found.mean, found.sd, found.interval, found.p), (0.25, None, None, None));
        assert_eq!(found.to_string(), "+0.250 (n=1)");
    }

    #[test]
    fn differences_that_are_all_equal_have_no_p_value() {
        let found = across_seeds(&[0.75, 0.5], &[0.5, 0.25]).unwrap();
        assert_eq!(found.interval, Some(Interval { low: 0.25, high: 0.25 }));
        assert_eq!(found.p, None);
    }

    #[test]
    fn classifiers_are_compared_in_accuracy_agreement_and_divergence() {
        let model = |logits: &[f32], labels: &[u32]| {
            Predictions::new(logits.to_vec(), 2, Labels::Classes(labels.to_vec())).unwrap()
        };
        let (first, second) =
            (model(&[1.0, 0.0, 0.0, 1.0], &[0, 1]), model(&[1.0, 0.0, 1.0, 0.0], &[0, 1]));
        let found = classifiers(&first, &second, 0).unwrap().unwrap();
        assert_eq!((found.accuracy.first, found.accuracy.second), (1.0, 0.5));
        assert_eq!(found.agreement, 0.5);
        // One example alike; the other (2p − 1) · 1 nats with p = 1 / (1 + e⁻¹).
        let p = 1.0 / (1.0 + (-1f64).exp());
        near(found.divergence, (2.0 * p - 1.0) / 2.0, 1e-12);
    }

    #[test]
    fn other_examples_are_refused() {
        let model = |classes: usize, labels: &[u32]| {
            let logits = vec![0.0; classes * labels.len()];
            Predictions::new(logits, classes, Labels::Classes(labels.to_vec())).unwrap()
        };
        let refusal = |first: &Predictions, second: &Predictions| {
            classifiers(first, second, 0).unwrap_err().to_string()
        };
        insta::assert_snapshot!(
            refusal(&model(2, &[0, 1]), &model(2, &[0])),
            @"the models are paired by example, and the first saw 2 examples, the second 1; evaluate both on the same file in the same order"
        );
        insta::assert_snapshot!(
            refusal(&model(2, &[0, 1]), &model(3, &[0, 1])),
            @"the models are paired by example, and the first knows 2 classes, the second 3; evaluate both on the same file in the same order"
        );
        insta::assert_snapshot!(
            refusal(&model(2, &[0, 1]), &model(2, &[0, 0])),
            @"the models are paired by example, and example 1 is of class 1 for the first, of class 0 for the second; evaluate both on the same file in the same order"
        );
        let values = Predictions::new(vec![1.0], 1, Labels::Values(vec![1.0])).unwrap();
        insta::assert_snapshot!(
            refusal(&model(2, &[0]), &values),
            @"models are compared by class, and these examples are labelled with values; compare scores across seeds instead"
        );
    }
}
