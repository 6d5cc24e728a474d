//! How the optimiser treats each parameter: at what rate, from when on, or not at all.
//!
//! In: the groups of a plan, and the names of a model's parameters. Out: a treatment for each. All
//! groups that match a parameter hold: their factors multiply, and it stays as it is for as long as
//! one of them says so.

use heirloom_engine::Params;
use heirloom_recipe::{Frozen, GroupPlan};
use serde::{Deserialize, Serialize};

use crate::Error;

/// How one parameter is treated. Steps are the optimiser's, those left out not counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Treatment {
    /// Factor of the learning rate.
    pub rate: f64,
    /// Factor of the weight decay, besides that of the learning rate.
    pub decay: f64,
    /// Steps before the first that moves it: it has the same bits until then, and its moments too.
    /// [`Treatment::NEVER`] moves it in none.
    pub frozen_until: u64,
    /// Steps before the first that its moments have heard of.
    pub born: u64,
    /// Steps before its rate begins to rise.
    pub rises_from: u64,
    /// Steps in which its rate rises to `rate`, in a line; 0 begins with it.
    pub rises_over: u64,
}

impl Treatment {
    /// Moved from the first step, at the run's rate.
    pub const USUAL: Self =
        Self { rate: 1.0, decay: 1.0, frozen_until: 0, born: 0, rises_from: 0, rises_over: 0 };
    /// Of [`Treatment::frozen_until`]: for ever.
    pub const NEVER: u64 = u64::MAX;

    /// Whether step `update`, counted from 1, leaves it as it is.
    pub fn is_frozen(&self, update: u64) -> bool {
        update <= self.frozen_until
    }

    /// Steps before the first that its moments hear of: Adam's t counts from there.
    pub fn since(&self) -> u64 {
        self.born.max(self.frozen_until)
    }

    /// Factor of the learning rate in step `update`, counted from 1; 0 where it is frozen. The first
    /// step of a rise over n has 1/n of it, the last all.
    pub fn rate_at(&self, update: u64) -> f64 {
        if self.is_frozen(update) {
            return 0.0;
        }
        let risen = update.saturating_sub(self.rises_from);
        if risen >= self.rises_over {
            return self.rate;
        }
        self.rate * risen as f64 / self.rises_over as f64
    }

    /// This and `group`, of a plan whose run begins after `begun` steps of the optimiser.
    pub(crate) fn and(self, group: &GroupPlan, begun: u64) -> Self {
        let until = match group.frozen {
            Frozen::No => 0,
            Frozen::Until(steps) => begun.saturating_add(steps),
            Frozen::Always => Self::NEVER,
        };
        let frozen_until = self.frozen_until.max(until);
        let rises = group.warmup_steps > 0 && frozen_until != Self::NEVER;
        Self {
            rate: self.rate * group.learning_rate_factor,
            decay: self.decay * group.weight_decay_factor,
            frozen_until,
            born: if group.fresh { self.born.max(begun) } else { self.born },
            // Who was frozen rises from where it begins to move.
            rises_from: if rises { frozen_until.max(begun) } else { self.rises_from },
            rises_over: if rises { group.warmup_steps } else { self.rises_over },
        }
    }
}

/// Whether every pattern of `groups` matches one of `names`.
///
/// # Errors
/// [`Error::NoSuchParameter`] where a pattern matches none.
pub fn check_groups<'n>(
    groups: &[GroupPlan],
    names: impl Iterator<Item = &'n str> + Clone,
) -> Result<(), Error> {
    for pattern in groups.iter().flat_map(|group| &group.parameters) {
        if !names.clone().any(|name| matches(pattern, name)) {
            return Err(Error::NoSuchParameter {
                pattern: pattern.clone(),
                nearest: nearest(pattern, names.clone()).to_owned(),
                count: names.count(),
            });
        }
    }
    Ok(())
}

/// The treatment of each parameter of `params`, in their order: that of `before`, and `groups` in a
/// run that begins after `begun` steps of the optimiser.
pub fn treatments(
    params: &Params,
    before: Vec<Treatment>,
    groups: &[GroupPlan],
    begun: u64,
) -> Vec<Treatment> {
    let of = |(param, before): (&heirloom_engine::Param, Treatment)| {
        let holds = |group: &&GroupPlan| group.parameters.iter().any(|p| matches(p, &param.name));
        groups.iter().filter(holds).fold(before, |all, group| all.and(group, begun))
    };
    params.index().iter().zip(before).map(of).collect()
}

/// The learning rate of each of `groups` in step number `update` of the optimiser, of a run that begins
/// after `begun` steps.
pub(crate) fn group_rates(
    groups: &[GroupPlan],
    learning_rate: f64,
    (update, begun): (u64, u64),
) -> Vec<f64> {
    let rate = |group| learning_rate * Treatment::USUAL.and(group, begun).rate_at(update);
    groups.iter().map(rate).collect()
}

/// Whether `name` is what `pattern` describes, in which `*` stands for any text, also for none.
///
/// ```
/// use heirloom_train::matches;
/// assert!(matches("*.layer.0.*", "bert.encoder.layer.0.output.dense.bias"));
/// assert!(!matches("*.layer.1.*", "bert.encoder.layer.11.output.dense.bias"));
/// ```
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place leaves the most for what follows.
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(tail)
}

/// The name that shares the longest beginning with the pattern.
fn nearest<'n>(pattern: &str, names: impl Iterator<Item = &'n str>) -> &'n str {
    let same = |name: &&str| name.bytes().zip(pattern.bytes()).take_while(|(a, b)| a == b).count();
    names.max_by_key(same).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, want) in [
            ("classifier.weight", "classifier.weight", true),
            ("classifier", "classifier.weight", false),
            ("*", "", true),
            ("*bias", "a.bias", true),
            ("*bias", "a.bias.b", false),
            ("a*", "b.a", false),
            ("a*b*c", "a.b.c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*.1.*.1.*", "x.1.y.1.z", true),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn rates_rise_from_where_a_parameter_begins_to_move() {
        let of =
            |frozen, warmup_steps| GroupPlan { frozen, warmup_steps, ..GroupPlan::of("*", 0.5) };
        let rates = |group: &GroupPlan, begun: u64| -> Vec<f64> {
            let treatment = Treatment::USUAL.and(group, begun);
            (begun + 1..=begun + 6).map(|update| treatment.rate_at(update)).collect()
        };
        for begun in [0, 70] {
            assert_eq!(rates(&of(Frozen::No, 0), begun), [0.5; 6]);
            let rising = [0.125, 0.25, 0.375, 0.5, 0.5, 0.5];
            assert_eq!(rates(&of(Frozen::No, 4), begun), rising);
            let thawed = [0.0, 0.0, 0.25, 0.5, 0.5, 0.5];
            assert_eq!(rates(&of(Frozen::Until(2), 2), begun), thawed);
            assert_eq!(rates(&of(Frozen::Always, 2), begun), [0.0; 6]);
        }
        let thawed = Treatment::USUAL.and(&of(Frozen::Until(2), 0), 70);
        assert_eq!((thawed.since(), thawed.frozen_until), (72, 72));
        let fresh = GroupPlan { fresh: true, ..GroupPlan::of("*", 1.0) };
        assert_eq!(Treatment::USUAL.and(&fresh, 70).since(), 70);
    }

    #[test]
    fn factors_of_groups_multiply_and_one_that_freezes_is_enough() {
        let half = GroupPlan { weight_decay_factor: 2.0, ..GroupPlan::of("*", 0.5) };
        let frozen = GroupPlan { frozen: Frozen::Always, ..GroupPlan::of("a", 0.5) };
        let both = Treatment::USUAL.and(&half, 0).and(&frozen, 0).and(&half, 0);
        assert_eq!((both.rate, both.decay, both.frozen_until), (0.125, 4.0, Treatment::NEVER));
    }
}
