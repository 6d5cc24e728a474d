//! What is said of many shares at once.

/// Where the teacher's shares of a step lie.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Mean.
    pub mean: f64,
    /// The values that a tenth, a half and nine tenths of the samples do not exceed.
    pub quantiles: [f64; 3],
    /// Part of the samples below 0.05.
    pub label_alone: f64,
    /// Part of the samples above 0.95.
    pub teacher_alone: f64,
}

impl Summary {
    /// `None` where there is no share.
    pub fn of(mut shares: Vec<f64>) -> Option<Self> {
        if shares.is_empty() {
            return None;
        }
        shares.sort_by(f64::total_cmp);
        let count = shares.len() as f64;
        let part = |holds: &dyn Fn(f64) -> bool| {
            shares.iter().filter(|&&share| holds(share)).count() as f64 / count
        };
        // The smallest value that at least this part does not exceed.
        let quantile = |part: f64| shares[((part * count).ceil() as usize).max(1) - 1];
        Some(Self {
            mean: shares.iter().sum::<f64>() / count,
            quantiles: [0.1, 0.5, 0.9].map(quantile),
            label_alone: part(&|share| share < 0.05),
            teacher_alone: part(&|share| share > 0.95),
        })
    }
}

/// Probability that a value of `positive` exceeds one of `negative`, ties counted half: the area
/// under the ROC curve. `None` where one of them is empty.
pub fn separation(positive: &[f64], negative: &[f64]) -> Option<f64> {
    if positive.is_empty() || negative.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> = positive.iter().map(|&value| (value, true)).collect();
    all.extend(negative.iter().map(|&value| (value, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Ranks from 1, equal values share their mean rank (Mann & Whitney 1947).
    let (mut ranks, mut at) = (0.0, 0);
    while at < all.len() {
        let same = all[at..].iter().take_while(|(value, _)| *value == all[at].0).count();
        let mean_rank = at as f64 + (same as f64 + 1.0) / 2.0;
        let positives = all[at..at + same].iter().filter(|(_, positive)| *positive).count();
        ranks += mean_rank * positives as f64;
        at += same;
    }
    let (p, n) = (positive.len() as f64, negative.len() as f64);
    Some((ranks - p * (p + 1.0) / 2.0) / (p * n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_by_hand() {
        let shares = vec![1.0, 0.0, 0.5, 0.25, 0.0];
        let want = Summary {
            mean: 0.35,
            quantiles: [0.0, 0.25, 1.0],
            label_alone: 0.4,
            teacher_alone: 0.2,
        };
        assert_eq!(Summary::of(shares), Some(want));
        assert_eq!(Summary::of(vec![]), None);
    }

    #[test]
    fn separation_counts_pairs() {
        assert_eq!(separation(&[2.0, 3.0], &[0.0, 1.0]), Some(1.0));
        assert_eq!(separation(&[0.0], &[1.0, 2.0]), Some(0.0));
        assert_eq!(separation(&[1.0, 1.0], &[1.0]), Some(0.5));
        // Pairs: 2>1, 2>1 yes; 1=1 half each; of four pairs three.
        assert_eq!(separation(&[2.0, 1.0], &[1.0, 1.0]), Some(0.75));
        assert_eq!(separation(&[], &[1.0]), None);
    }
}
