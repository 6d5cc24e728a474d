//! Does a model that says "80 %" turn out right 80 times in 100?
//!
//! In: for each example, the probability of the answer and whether it was right.
//! Out: bins of like confidence, and the distance between confidence and accuracy in them.
//! Never: puts equal confidences into different bins, so the order of examples changes nothing.

use serde::{Deserialize, Serialize};

use crate::measure::{Measured, same_length};
use crate::probability::{Logits, answer, softmax};

/// Bins of a reliability curve unless someone chooses otherwise: as in Guo et al. 2017, so that
/// numbers can be compared with published ones.
pub const DEFAULT_BINS: usize = 15;

/// An answer, judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The probability the model gave its answer, from 0 to 1.
    pub confidence: f64,
    /// Whether the answer was right.
    pub right: bool,
}

/// Answers of like confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Confidences in the bin are above this (the first bin holds 0 as well).
    pub above: f64,
    /// Confidences in the bin are at most this.
    pub up_to: f64,
    /// How many answers the bin holds.
    pub n: usize,
    /// Their mean confidence; `None` for an empty bin.
    pub confidence: Option<f64>,
    /// The share that was right; `None` for an empty bin.
    pub accuracy: Option<f64>,
}

/// The answers behind `logits`, judged by `labels`.
pub fn judge(logits: Logits<'_>, labels: &[u32]) -> Vec<Judged> {
    let judge = |(row, &label): (&[f32], &u32)| {
        let answer = answer(row);
        Judged { confidence: softmax(row)[answer as usize], right: answer == label }
    };
    let judged: Vec<Judged> = logits.rows().zip(labels).map(judge).collect();
    same_length(&judged, labels);
    judged
}

/// Confidence and accuracy in `bins` bins of equal width, `(0, 1/bins]` first: the points of a
/// reliability diagram (DeGroot & Fienberg 1983).
///
/// # Panics
/// Where `bins` is 0.
///
/// ```
/// use heirloom_report::calibration::{Judged, reliability};
/// let curve = reliability(&[Judged { confidence: 0.9, right: true }], 2);
/// assert_eq!((curve[0].n, curve[0].accuracy), (0, None));
/// assert_eq!((curve[1].n, curve[1].accuracy), (1, Some(1.0)));
/// ```
pub fn reliability(judged: &[Judged], bins: usize) -> Vec<Bin> {
    assert!(bins > 0, "a curve has at least one bin");
    let mut piles = vec![Pile::default(); bins];
    for answer in judged {
        piles[bin_of(answer.confidence, bins)].add(answer);
    }
    let edge = |at: usize| at as f64 / bins as f64;
    let bin = |(at, pile): (usize, &Pile)| pile.bin(edge(at), edge(at + 1));
    piles.iter().enumerate().map(bin).collect()
}

/// How many answers fall into each of `bins` bins of equal confidence width.
///
/// # Panics
/// Where `bins` is 0.
///
/// ```
/// use heirloom_report::calibration::{Judged, confidence_histogram};
/// let sure = [0.6, 0.9, 1.0].map(|confidence| Judged { confidence, right: true });
/// assert_eq!(confidence_histogram(&sure, 4), [0, 0, 1, 2]);
/// ```
pub fn confidence_histogram(judged: &[Judged], bins: usize) -> Vec<usize> {
    reliability(judged, bins).iter().map(|bin| bin.n).collect()
}

/// Expected calibration error over `bins` bins of equal width, from 0 to 1.
///
/// `Σ_b n_b/n · |accuracy_b − confidence_b|` (Guo et al. 2017, arXiv:1706.04599, eq. 3). `None`
/// without answers.
///
/// # Panics
/// Where `bins` is 0.
///
/// ```
/// use heirloom_report::calibration::{Judged, expected_calibration_error};
/// // Sure of both, right about one: |½ − 1|.
/// let judged = [true, false].map(|right| Judged { confidence: 1.0, right });
/// assert_eq!(expected_calibration_error(&judged, 15).unwrap().value, 0.5);
/// ```
pub fn expected_calibration_error(judged: &[Judged], bins: usize) -> Option<Measured> {
    gap(&reliability(judged, bins))
}

/// Expected calibration error over `bins` bins of equal mass, from 0 to 1.
///
/// The sum of [`expected_calibration_error`] over bins that hold equally many answers (Nguyen &
/// O'Connor 2015, arXiv:1508.05154): where most confidences crowd near 1, equal widths would put
/// them all into one bin. Equal confidences stay together in the bin of the first of them, so bins
/// may differ in size. `None` without answers.
///
/// # Panics
/// Where `bins` is 0.
///
/// ```
/// use heirloom_report::calibration::{Judged, adaptive_calibration_error};
/// // Two bins of one answer: |1 − 0.9| and |0 − 0.8|, each weighing half.
/// let judged =
///     [Judged { confidence: 0.9, right: true }, Judged { confidence: 0.8, right: false }];
/// assert!((adaptive_calibration_error(&judged, 2).unwrap().value - 0.45).abs() < 1e-15);
/// ```
pub fn adaptive_calibration_error(judged: &[Judged], bins: usize) -> Option<Measured> {
    gap(&equal_mass(judged, bins))
}

/// Confidence and accuracy in up to `bins` bins that hold equally many answers; no bin is empty.
///
/// # Panics
/// Where `bins` is 0.
pub fn equal_mass(judged: &[Judged], bins: usize) -> Vec<Bin> {
    assert!(bins > 0, "a curve has at least one bin");
    let mut sorted = judged.to_vec();
    sorted.sort_by(|a, b| a.confidence.total_cmp(&b.confidence));
    let mut piles = vec![Pile::default(); bins];
    let mut before = 0;
    for ties in sorted.chunk_by(|a, b| a.confidence == b.confidence) {
        let pile = &mut piles[before * bins / judged.len()];
        ties.iter().for_each(|answer| pile.add(answer));
        before += ties.len();
    }
    let mut above = 0.0;
    let filled = piles.iter().filter(|pile| pile.n > 0);
    let bin = |pile: &Pile| {
        let bin = pile.bin(above, pile.largest);
        above = pile.largest;
        bin
    };
    filled.map(bin).collect()
}

/// The bin of a confidence: bin `b` holds `(b/bins, (b+1)/bins]`.
fn bin_of(confidence: f64, bins: usize) -> usize {
    // The conversion takes 0, and rounding below 0, to 0; the minimum catches rounding above 1.
    ((confidence * bins as f64).ceil() as usize).saturating_sub(1).min(bins - 1)
}

/// The mean distance between confidence and accuracy, weighted by answers.
fn gap(bins: &[Bin]) -> Option<Measured> {
    let n: usize = bins.iter().map(|bin| bin.n).sum();
    let gaps = bins.iter().filter_map(|bin| {
        let (accuracy, confidence) = bin.accuracy.zip(bin.confidence)?;
        Some(bin.n as f64 * (accuracy - confidence).abs())
    });
    Measured::of(gaps.sum::<f64>() / n as f64, n)
}

#[derive(Clone, Default)]
struct Pile {
    n: usize,
    right: usize,
    confidence: f64,
    largest: f64,
}

impl Pile {
    fn add(&mut self, answer: &Judged) {
        self.n += 1;
        self.right += usize::from(answer.right);
        self.confidence += answer.confidence;
        self.largest = self.largest.max(answer.confidence);
    }

    fn bin(&self, above: f64, up_to: f64) -> Bin {
        let share = |sum: f64| (self.n > 0).then(|| sum / self.n as f64);
        let (confidence, accuracy) = (share(self.confidence), share(self.right as f64));
        Bin { above, up_to, n: self.n, confidence, accuracy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rows: &[(f64, bool)]) -> Vec<Judged> {
        rows.iter().map(|&(confidence, right)| Judged { confidence, right }).collect()
    }

    #[track_caller]
    fn check(found: Option<Measured>, value: f64) {
        let found = found.expect("the measure is defined");
        assert!((found.value - value).abs() < 1e-15, "{found:?}, expected {value}");
    }

    #[test]
    fn nothing_has_no_calibration() {
        assert_eq!(expected_calibration_error(&[], 15), None);
        assert_eq!(adaptive_calibration_error(&[], 15), None);
        assert_eq!(confidence_histogram(&[], 3), [0, 0, 0]);
        assert!(equal_mass(&[], 3).is_empty());
    }

    #[test]
    fn an_edge_belongs_to_the_bin_below_it() {
        let rows =
            [(0.0, 0), (0.25, 0), (0.26, 1), (0.5, 1), (0.75, 2), (1.0, 3), (1.0 + 1e-12, 3)];
        for (confidence, bin) in rows {
            assert_eq!(bin_of(confidence, 4), bin, "{confidence}");
        }
    }

    #[test]
    fn the_error_of_a_hand_worked_curve_is_found() {
        // Bins of width ½: one answer (0.4, right), three of mean 0.8 with one right.
        let judged = judged(&[(0.4, true), (0.7, false), (0.8, false), (0.9, true)]);
        check(expected_calibration_error(&judged, 2), 0.25 * 0.6 + 0.75 * (0.8 - 1.0 / 3.0));
        // Bins of two answers: (0.55, ½) and (0.85, ½).
        check(adaptive_calibration_error(&judged, 2), 0.5 * 0.05 + 0.5 * 0.35);
        assert_eq!(confidence_histogram(&judged, 2), [1, 3]);
    }

    #[test]
    fn equal_confidences_share_a_bin() {
        let judged = judged(&[(0.75, true), (0.75, true), (0.75, true), (0.75, false)]);
        let bins = equal_mass(&judged, 2);
        assert_eq!(bins.len(), 1);
        assert_eq!((bins[0].n, bins[0].accuracy), (4, Some(0.75)));
        check(adaptive_calibration_error(&judged, 2), 0.0);
    }

    #[test]
    fn answers_after_equal_ones_are_counted_from_the_last_of_them() {
        let judged = judged(&[(0.5, true), (0.5, false), (0.5, true), (0.9, true)]);
        let sizes: Vec<usize> = equal_mass(&judged, 2).iter().map(|bin| bin.n).collect();
        assert_eq!(sizes, [3, 1]);
    }

    #[test]
    fn an_answer_is_as_confident_as_its_probability() {
        let judged = judge(Logits::new(&[0.0, 3f32.ln(), 5.0, 5.0], 2), &[1, 1]);
        assert!((judged[0].confidence - 0.75).abs() < 1e-7);
        assert!(judged[0].right);
        assert_eq!(judged[1], Judged { confidence: 0.5, right: false });
    }
}
