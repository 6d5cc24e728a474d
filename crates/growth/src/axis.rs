//! An axis of a model and how it grows: for each new unit, the old one it comes from.
//!
//! In: the size before and after, and a map. Out: for each new unit what is written to it and the
//! share with which it is read. Never: a tensor.
//!
//! The law behind every map: let `h' = U h` say how new units come from old ones, and let readers
//! of the axis use `W' = W Dᵀ`. What a reader computes is unchanged where `Dᵀ U = I`, whatever
//! stands between writer and reader unit by unit, as long as each row of `U` has a single one or
//! none (Chen et al. 2016, arXiv:1511.05641, give the case of equal shares).

use heirloom_base::{Purpose, permutation, uniform, word};
use serde::{Deserialize, Serialize};

/// A dimension that several tensors share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// C, the width of what the blocks read and write.
    Residual,
    /// F, the units inside a feed-forward layer.
    Ffn,
    /// Heads of keys and values.
    KvHeads,
    /// Query heads per head of keys and values; 1 without grouped queries.
    Group,
    /// Numbers per head.
    HeadDim,
    /// V, tokens.
    Vocab,
    /// Rows of a table of positions.
    Positions,
}

impl Axis {
    /// All axes.
    pub const ALL: [Self; 7] = [
        Self::Residual,
        Self::Ffn,
        Self::KvHeads,
        Self::Group,
        Self::HeadDim,
        Self::Vocab,
        Self::Positions,
    ];

    /// Its name in sentences.
    pub fn words(self) -> &'static str {
        match self {
            Self::Residual => "hidden size",
            Self::Ffn => "intermediate size",
            Self::KvHeads => "key and value heads",
            Self::Group => "queries per key head",
            Self::HeadDim => "head size",
            Self::Vocab => "vocabulary",
            Self::Positions => "positions",
        }
    }
}

/// How an axis grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Map {
    /// The same size.
    Keep,
    /// Whole copies one after the other, read in equal shares. The new size is a multiple.
    Tile,
    /// The old units, then copies drawn at random, read in equal shares. Every unit is copied once
    /// more before any is copied twice more, so that a multiple of the size copies evenly.
    Select,
    /// Like [`Map::Select`], read in unequal shares that sum to one: copies learn apart.
    Split,
    /// The old units, then new ones whose contribution starts at zero.
    Pad,
    /// Whole copies as often as they fit; the rest of the residual axis carries the mean of the
    /// old units, which leaves a layer norm's mean in place (zero where norms take no mean).
    Average,
}

impl Map {
    /// Its name.
    pub fn words(self) -> &'static str {
        match self {
            Self::Keep => "kept",
            Self::Tile => "tiled",
            Self::Select => "copied at random, read in equal shares",
            Self::Split => "copied at random, read in unequal shares",
            Self::Pad => "padded",
            Self::Average => "tiled, the rest averaged",
        }
    }
}

/// An axis with its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisPlan {
    /// Which.
    pub axis: Axis,
    /// How.
    pub map: Map,
    /// Units before.
    pub from: usize,
    /// Units after; not fewer.
    pub to: usize,
}

/// Where the value of a new unit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A copy of this old unit.
    Unit(usize),
    /// The mean of all old units.
    Mean,
    /// Nothing: it is new.
    New,
}

/// A grown axis, unit by unit: the rows of `U` and `D`.
#[derive(Clone, Debug, PartialEq)]
pub struct Units {
    /// Size before.
    pub old: usize,
    /// Rows of `U`.
    pub origin: Vec<Origin>,
    /// The one number in each row of `D`: the share with which a copy is read; 0 for the others.
    pub share: Vec<f64>,
}

impl AxisPlan {
    /// An axis that stays as it is.
    pub fn keep(axis: Axis, size: usize) -> Self {
        Self { axis, map: Map::Keep, from: size, to: size }
    }

    /// The grown axis. `seed` decides what is drawn. `means` says whether norms take a mean off.
    pub fn units(&self, seed: u64, means: bool) -> Units {
        let (old, new) = (self.from, self.to);
        let origin: Vec<Origin> = match self.map {
            Map::Keep | Map::Tile => (0..new).map(|unit| Origin::Unit(unit % old)).collect(),
            Map::Select | Map::Split => self.drawn(seed).into_iter().map(Origin::Unit).collect(),
            Map::Pad => {
                let origin = |unit| if unit < old { Origin::Unit(unit) } else { Origin::New };
                (0..new).map(origin).collect()
            }
            Map::Average => {
                let whole = new / old * old;
                let rest = if means { Origin::Mean } else { Origin::New };
                let origin = |unit| if unit < whole { Origin::Unit(unit % old) } else { rest };
                (0..new).map(origin).collect()
            }
        };
        let mut units = Units { old, share: vec![0.0; new], origin };
        let mut weight = vec![1.0; new];
        if self.map == Map::Split {
            for (unit, weight) in weight.iter_mut().enumerate() {
                // Between a half and one and a half: no copy dies, no two are equal.
                *weight = 0.5 + uniform(word(seed, Purpose::Growth, self.site(), unit as u64));
            }
        }
        let mut sum = vec![0.0; old];
        for (origin, weight) in units.origin.iter().zip(&weight) {
            if let Origin::Unit(unit) = *origin {
                sum[unit] += weight;
            }
        }
        for (unit, origin) in units.origin.iter().enumerate() {
            if let Origin::Unit(from) = *origin {
                units.share[unit] = weight[unit] / sum[from];
            }
        }
        units
    }

    /// Steps of [`Purpose::Growth`] below this are the axes', one each.
    fn site(&self) -> u64 {
        self.axis as u64
    }

    fn drawn(&self, seed: u64) -> Vec<usize> {
        let mut drawn: Vec<usize> = (0..self.from).collect();
        let mut round = 0;
        while drawn.len() < self.to {
            // Rounds of one axis have steps of their own, far from those of other axes.
            let step = (self.site() << 16) + 256 + round;
            let order = permutation(seed, Purpose::Growth, step, self.from);
            let left = self.to - drawn.len();
            drawn.extend(order.into_iter().take(left).map(|unit| unit as usize));
            round += 1;
        }
        drawn
    }
}

impl Units {
    /// Copies of every old unit, where they are equally many.
    pub fn even(&self) -> Option<usize> {
        let mut count = vec![0; self.old];
        for origin in &self.origin {
            if let Origin::Unit(unit) = *origin {
                count[unit] += 1;
            }
        }
        let first = *count.first()?;
        count.iter().all(|&count| count == first).then_some(first)
    }

    /// Whether some new unit is no copy.
    pub fn has_rest(&self) -> bool {
        self.origin.iter().any(|origin| !matches!(origin, Origin::Unit(_)))
    }

    /// `C·d/D`: the part of a new row's sum of squares that its copies make up, over the old
    /// mean of squares. Norms must take it back.
    pub fn dilution(&self) -> f64 {
        let copies = self.origin.iter().filter(|origin| matches!(origin, Origin::Unit(_))).count();
        copies as f64 / self.origin.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(map: Map, from: usize, to: usize) -> AxisPlan {
        AxisPlan { axis: Axis::Residual, map, from, to }
    }

    #[test]
    fn every_map_is_read_back_as_it_was_written() {
        let rows = [
            plan(Map::Keep, 5, 5),
            plan(Map::Tile, 5, 15),
            plan(Map::Select, 5, 9),
            plan(Map::Split, 5, 13),
            plan(Map::Pad, 5, 8),
            plan(Map::Average, 5, 12),
        ];
        for plan in rows {
            let units = plan.units(3, true);
            assert_eq!(units.origin.len(), plan.to);
            // D transposed times U, the rows of means aside, which are read with share 0.
            for old in 0..plan.from {
                let shares = units.origin.iter().zip(&units.share);
                let sum: f64 = shares
                    .filter(|(origin, _)| **origin == Origin::Unit(old))
                    .map(|(_, share)| share)
                    .sum();
                assert!((sum - 1.0).abs() < 1e-15, "{plan:?}: {sum}");
            }
        }
    }

    #[test]
    fn copies_are_even_exactly_where_the_size_is_a_multiple() {
        assert_eq!(plan(Map::Select, 5, 15).units(1, true).even(), Some(3));
        assert_eq!(plan(Map::Select, 5, 14).units(1, true).even(), None);
        assert_eq!(plan(Map::Average, 5, 14).units(1, true).even(), Some(2));
    }

    #[test]
    fn unequal_shares_differ_and_another_seed_draws_other_copies() {
        let split = plan(Map::Split, 4, 8).units(1, true);
        assert!(split.share.iter().all(|share| (share - 0.5).abs() > 1e-6));
        assert_ne!(split.origin, plan(Map::Split, 4, 8).units(2, true).origin);
    }
}
