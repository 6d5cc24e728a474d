//! Numbers that must not be mixed get names of their own.

use std::fmt;
use std::iter::Sum;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Optimiser steps done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Step(pub u64);

/// A number of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tokens(pub u64);

/// A number of bytes; prints as `1.6 GB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut unit) = (self.0 as f64, "B");
        for next in ["kB", "MB", "GB", "TB"] {
            if value < 1000.0 {
                break;
            }
            (value, unit) = (value / 1000.0, next);
        }
        if unit == "B" { write!(f, "{value} {unit}") } else { write!(f, "{value:.1} {unit}") }
    }
}

/// A loss before anyone divides it: a sum in nats, and how many items it covers.
///
/// Sums of micro-batches, of packed rows and of ranks meet here; [`Nats::mean`] is the only place
/// that divides, so the way a batch was cut cannot change its loss.
///
/// ```
/// use heirloom_base::Nats;
/// let parts = [Nats::of(1.0, 1), Nats::of(8.0, 2)];
/// assert_eq!(parts.into_iter().sum::<Nats>().mean(), Some(3.0)); // the mean of means says 2.5
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Nats {
    sum: f64,
    count: u64,
}

impl Nats {
    /// A sum of `sum` nats over `count` items.
    pub fn of(sum: f64, count: u64) -> Self {
        Self { sum, count }
    }

    /// The sum, in nats.
    pub fn sum_of_parts(self) -> f64 {
        self.sum
    }

    /// How many items the sum covers.
    pub fn count(self) -> u64 {
        self.count
    }

    /// The mean in nats, or `None` where no item counted.
    pub fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl AddAssign for Nats {
    fn add_assign(&mut self, part: Self) {
        self.sum += part.sum;
        self.count += part.count;
    }
}

impl Sum for Nats {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |mut total, part| {
            total += part;
            total
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_item_is_none_and_not_nan() {
        assert_eq!(Nats::default().mean(), None);
    }

    #[test]
    fn bytes_read_like_a_person_writes_them() {
        let rows = [(0, "0 B"), (999, "999 B"), (1_600_000_000, "1.6 GB"), (24_300, "24.3 kB")];
        for (bytes, want) in rows {
            assert_eq!(Bytes(bytes).to_string(), want);
        }
    }
}
