//! What growth saved: the cost of a grown model's training against that of one from scratch, at equal
//! loss.
//!
//! In: losses and what had been spent when they were measured. Out: savings uncounted, counted and
//! amortised, and after how many reuses of the small model they break even. Never: a loss that a run
//! did not reach.
//!
//! With `F_x(l)` what run x had spent when its smallest loss so far first was l (between two
//! measurements linear in the logarithm of what was spent), `F_small` what the small model and its
//! teachers cost, `F_op` what growing it did:
//!
//! ```text
//! uncounted   1 − (F_op + F_grown(l)) / F_scratch(l)
//! counted     1 − (F_small + F_op + F_grown(l)) / F_scratch(l)
//! amortised   1 − (F_small/m + F_op + F_grown(l)) / F_scratch(l)      for m reuses
//! break-even  the least m for which that is not below 0
//! ```

use serde::Serialize;

/// An amount of something spent, by measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Floating-point operations.
    pub flops: f64,
    /// Tokens read.
    pub tokens: f64,
    /// Seconds.
    pub seconds: f64,
}

/// What is counted of an amount.
pub type Measure = fn(&Spent) -> f64;

impl Spent {
    /// The measures, each with its name.
    pub const MEASURES: [(&'static str, Measure); 3] = [
        ("flops", |spent| spent.flops),
        ("tokens", |spent| spent.tokens),
        ("seconds", |spent| spent.seconds),
    ];

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            flops: self.flops + other.flops,
            tokens: self.tokens + other.tokens,
            seconds: self.seconds + other.seconds,
        }
    }
}

/// A loss that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Steps done.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// All that was spent before, from the run's first step.
    pub spent: Spent,
}

/// The account of one way to a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// What it is called, for messages.
    pub name: String,
    /// What the small model cost until it grew for the last time, with its teachers; nothing where
    /// none did.
    pub small: Spent,
    /// What growing cost.
    pub operator: Spent,
    /// Losses after the last growth, in the order of steps; what was spent on them alone.
    pub points: Vec<Point>,
}

/// Why there is no saving to report.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A run has no loss.
    #[error("`{name}` was never evaluated with a loss{after}, so nothing can be held against it")]
    NoLoss {
        /// The run.
        name: String,
        /// Since when.
        after: &'static str,
    },
    /// A run did not come so far.
    #[error(
        "`{name}` never reaches a loss of {target}; its smallest is {smallest:.6} at step {step}"
    )]
    NeverReached {
        /// The run.
        name: String,
        /// The loss asked for.
        target: f64,
        /// The smallest it had.
        smallest: f64,
        /// When.
        step: u64,
    },
    /// A run has nothing of a measure.
    #[error("`{name}` says nothing of its {measure}; it was trained by an earlier version")]
    NothingSpent {
        /// The run.
        name: String,
        /// Which measure.
        measure: &'static str,
    },
}

/// Savings at one target loss by one measure; 0.25 is a quarter of the baseline's cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Saving {
    /// The loss.
    pub target: f64,
    /// What is counted.
    pub measure: &'static str,
    /// What the baseline had spent.
    pub baseline: f64,
    /// What the grown model had, without the small one.
    pub grown: f64,
    /// What the small one had.
    pub small: f64,
    /// With the small model for nothing.
    pub uncounted: f64,
    /// With all of it.
    pub counted: f64,
    /// With a part of it, by the reuses asked for.
    pub amortised: f64,
    /// The least number of reuses that pay; `None` where even a free small model does not.
    pub break_even: Option<u64>,
}

impl Account {
    /// What was spent, after the last growth, when the smallest loss so far was first `target`.
    ///
    /// # Errors
    /// Where it never was.
    pub fn reaches(&self, target: f64, measure: Measure) -> Result<f64, Refusal> {
        let mut best: Option<Point> = None;
        for &point in &self.points {
            let lower = best.is_none_or(|best| point.loss < best.loss);
            if point.loss <= target {
                let there = measure(&point.spent);
                let before = best.filter(|before| measure(&before.spent) > 0.0);
                let Some(before) = before.filter(|_| point.loss < target) else {
                    return Ok(there);
                };
                let here = measure(&before.spent);
                let way = (before.loss - target) / (before.loss - point.loss);
                return Ok((here.ln() + way * (there.ln() - here.ln())).exp());
            }
            if lower {
                best = Some(point);
            }
        }
        Err(match best {
            Some(Point { loss, step, .. }) => {
                Refusal::NeverReached { name: self.name.clone(), target, smallest: loss, step }
            }
            None => {
                let after = if self.small == Spent::default() { "" } else { " after it had grown" };
                Refusal::NoLoss { name: self.name.clone(), after }
            }
        })
    }
}

/// What `grown` saves against `baseline` at a target loss, by every measure; `reuses` of the small
/// model for the amortised one.
///
/// # Errors
/// Where one of them never reaches the target, or says nothing of what it spent.
pub fn savings(
    grown: &Account,
    baseline: &Account,
    target: f64,
    reuses: u64,
) -> Result<Vec<Saving>, Refusal> {
    let of = |(name, measure): (&'static str, fn(&Spent) -> f64)| {
        let scratch = baseline.reaches(target, measure)? + measure(&baseline.small);
        let after = grown.reaches(target, measure)? + measure(&grown.operator);
        for (account, spent) in [(baseline, scratch), (grown, after)] {
            if spent <= 0.0 {
                let (name, measure) = (account.name.clone(), name);
                return Err(Refusal::NothingSpent { name, measure });
            }
        }
        let small = measure(&grown.small);
        let saved = |share: f64| 1.0 - (share * small + after) / scratch;
        let left = scratch - after;
        let break_even = match (small > 0.0, left) {
            (false, left) if left >= 0.0 => Some(1),
            (true, left) if left > 0.0 => Some((small / left).ceil().max(1.0) as u64),
            _ => None,
        };
        Ok(Saving {
            target,
            measure: name,
            baseline: scratch,
            grown: after,
            small,
            uncounted: saved(0.0),
            counted: saved(1.0),
            amortised: saved(1.0 / reuses.max(1) as f64),
            break_even,
        })
    };
    Spent::MEASURES.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(flops: f64) -> Spent {
        Spent { flops, tokens: 10.0 * flops, seconds: flops / 10.0 }
    }

    fn account(name: &str, small: f64, points: &[(f64, f64)]) -> Account {
        let point = |(at, &(flops, loss)): (usize, &(f64, f64))| Point {
            step: at as u64,
            loss,
            spent: spent(flops),
        };
        Account {
            name: name.to_owned(),
            small: spent(small),
            operator: Spent::default(),
            points: points.iter().enumerate().map(point).collect(),
        }
    }

    #[test]
    fn costs_between_two_losses_lie_on_a_line_of_their_logarithm() {
        let run = account("a", 0.0, &[(10.0, 3.0), (100.0, 2.0), (500.0, 2.5), (1000.0, 1.0)]);
        let at = |target| run.reaches(target, |spent| spent.flops).unwrap();
        assert_eq!(at(3.5), 10.0);
        assert!((at(2.5) - 10f64.powf(1.5)).abs() < 1e-9);
        assert!((at(2.0) - 100.0).abs() < 1e-9);
        // The way from the smallest loss so far, not from the last one.
        assert!((at(1.5) - 10f64.powf(2.5)).abs() < 1e-9);
    }

    #[test]
    fn savings_are_those_worked_out_by_hand() {
        let scratch = account("scratch", 0.0, &[(100.0, 3.0), (400.0, 2.0)]);
        let grown = account("grown", 150.0, &[(50.0, 2.5), (300.0, 2.0)]);
        let rows = savings(&grown, &scratch, 2.0, 3).unwrap();
        let flops = rows[0];
        assert_eq!((flops.baseline, flops.small), (400.0, 150.0));
        assert!((flops.grown - 300.0).abs() < 1e-9);
        assert!((flops.uncounted - 0.25).abs() < 1e-12);
        assert!((flops.counted + 0.125).abs() < 1e-12);
        assert!((flops.amortised - (1.0 - 350.0 / 400.0)).abs() < 1e-12);
        assert_eq!(flops.break_even, Some(2));
        assert_eq!(
            rows.iter().map(|row| row.measure).collect::<Vec<_>>(),
            ["flops", "tokens", "seconds"]
        );
        let dear = account("dear", 150.0, &[(50.0, 2.5), (500.0, 2.0)]);
        assert_eq!(savings(&dear, &scratch, 2.0, 3).unwrap()[0].break_even, None);
    }

    #[test]
    fn a_target_that_is_never_reached_is_refused() {
        let scratch = account("scratch", 0.0, &[(100.0, 3.0), (400.0, 2.0)]);
        let grown = account("grown", 150.0, &[(50.0, 2.5), (300.0, 1.9)]);
        let said = savings(&grown, &scratch, 1.95, 1).unwrap_err().to_string();
        assert_eq!(
            said,
            "`scratch` never reaches a loss of 1.95; its smallest is 2.000000 at step 1"
        );
        let none = account("small", 150.0, &[]);
        let said = savings(&none, &scratch, 2.5, 1).unwrap_err().to_string();
        assert!(
            said.starts_with("`small` was never evaluated with a loss after it had grown"),
            "{said}"
        );
        let old = account("old", 0.0, &[(0.0, 1.0)]);
        let said = savings(&grown, &old, 2.5, 1).unwrap_err().to_string();
        assert_eq!(said, "`old` says nothing of its flops; it was trained by an earlier version");
    }
}
