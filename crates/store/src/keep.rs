//! Which checkpoints stay.
//!
//! In: the steps that are there, and one that was just committed.
//! Out: the steps to remove, or their removal.
//! Never: removes the newest checkpoint, or anything before a newer one is committed.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;

use heirloom_base::Step;

use crate::commit::{Committed, discard};
use crate::disk::Disk;
use crate::error::Result;
use crate::manifest::step_name;
use crate::recover::committed_step;

/// The rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How many of the newest stay.
    pub last: NonZeroUsize,
    /// Steps that stay whatever their age.
    pub named: BTreeSet<Step>,
}

impl Keep {
    /// The steps that need not stay, oldest first; `steps` come in any order.
    pub fn superseded(&self, steps: &[Step]) -> Vec<Step> {
        let sorted: BTreeSet<Step> = steps.iter().copied().collect();
        let old = sorted.len().saturating_sub(self.last.get());
        sorted.into_iter().take(old).filter(|step| !self.named.contains(step)).collect()
    }

    /// Removes the superseded checkpoints beside `newest`, which proves that a newer one is whole;
    /// says which. A checkpoint later than `newest` is left alone and not counted.
    pub fn prune(&self, disk: &dyn Disk, newest: &Committed) -> Result<Vec<Step>> {
        let root: &Path = crate::disk::parent(newest.folder());
        let entries = disk.list(root)?;
        let steps: Vec<Step> = entries
            .iter()
            .filter_map(committed_step)
            .filter(|step| newest.manifest().step.is_some_and(|newest| *step <= newest))
            .collect();
        let superseded = self.superseded(&steps);
        for step in &superseded {
            let folder = root.join(step_name(*step));
            discard(disk, &folder, &folder)?;
        }
        Ok(superseded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(last: usize, named: &[u64], steps: &[u64], want: &[u64]) {
        let named = named.iter().copied().map(Step).collect();
        let keep = Keep { last: NonZeroUsize::new(last).unwrap(), named };
        let steps: Vec<Step> = steps.iter().copied().map(Step).collect();
        assert_eq!(keep.superseded(&steps), want.iter().copied().map(Step).collect::<Vec<_>>());
    }

    #[test]
    fn the_newest_stay() {
        check(2, &[], &[30, 10, 20, 40], &[10, 20]);
    }

    #[test]
    fn named_steps_stay_and_do_not_count() {
        check(1, &[10], &[10, 20, 30], &[20]);
    }

    #[test]
    fn fewer_than_asked_for_all_stay() {
        check(5, &[], &[10, 20], &[]);
    }
}
