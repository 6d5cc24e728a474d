//! One score over several seeds.
//!
//! In: the score of each seed.
//! Out: mean, spread and count, which print together as `0.912 ± 0.004 (n=3)`.
//! Never: invents a spread; one seed has none.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::measure::mean;

/// Mean and sample standard deviation over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seeds {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation `√(Σ (x − x̄)² / (n − 1))`; `None` for one seed.
    pub sd: Option<f64>,
    /// How many seeds.
    pub n: usize,
}

impl Seeds {
    /// Sums up the scores of all seeds; `None` without scores and where one is not finite.
    ///
    /// ```
    /// use heirloom_report::seeds::Seeds;
    /// let seeds = Seeds::of(&[1.0, 2.0, 3.0]).unwrap();
    /// assert_eq!((seeds.mean, seeds.sd, seeds.n), (2.0, Some(1.0), 3));
    /// ```
    pub fn of(scores: &[f64]) -> Option<Self> {
        let first = scores.first()?;
        // The mean of equal numbers may differ from them in the last bit; theirs is themselves.
        let equal = scores.iter().all(|score| score == first);
        let mean = if equal { *first } else { mean(scores)? };
        let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
        let sd = (scores.len() > 1).then(|| (squares / (scores.len() - 1) as f64).sqrt());
        // An infinite mean or spread comes from a score that is infinite, or near it.
        (mean.is_finite() && squares.is_finite()).then_some(Self { mean, sd, n: scores.len() })
    }
}

impl fmt::Display for Seeds {
    /// Three decimals, or as many as the format asks for: `{seeds:.1}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(3);
        write!(f, "{:.decimals$}", self.mean)?;
        if let Some(sd) = self.sd {
            write!(f, " ± {sd:.decimals$}")?;
        }
        write!(f, " (n={})", self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_print_as_people_write_them() {
        let rows = [
            (&[0.908, 0.912, 0.916][..], "0.912 ± 0.004 (n=3)"),
            (&[0.9123], "0.912 (n=1)"),
            (&[0.5, 0.5], "0.500 ± 0.000 (n=2)"),
            (&[-1.0, 1.0], "0.000 ± 1.414 (n=2)"),
        ];
        for (scores, want) in rows {
            assert_eq!(Seeds::of(scores).unwrap().to_string(), want);
        }
        assert_eq!(format!("{:.1}", Seeds::of(&[91.23, 91.31]).unwrap()), "91.3 ± 0.1 (n=2)");
    }

    #[test]
    fn equal_scores_have_no_spread_at_all() {
        assert_eq!(Seeds::of(&[0.1; 3]), Some(Seeds { mean: 0.1, sd: Some(0.0), n: 3 }));
    }

    #[test]
    fn nothing_and_what_is_not_finite_have_no_mean() {
        for scores in [&[][..], &[f64::NAN], &[1.0, f64::INFINITY], &[f64::MAX, -f64::MAX]] {
            assert_eq!(Seeds::of(scores), None, "{scores:?}");
        }
    }
}
