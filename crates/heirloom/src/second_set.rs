//! The second set of a balance policy or a learnt target: examples that say which losses help.
//!
//! In: the training set as split and limit leave it, and where the plan takes a second set from.
//! Out: what is trained on, the second set, and what a person should hear of it. Never: an example
//! in both, where the one is taken from the other.

use heirloom_data::dataset::{Dataset, overlap};
use heirloom_recipe::{Estimator, MetaAt, MetaSource, Plan, PolicyPlan};

use crate::failure::Failure;

/// The part that is set apart is drawn by a seed of its own, as the part held out is, so that the
/// runs of several seeds train on the same examples.
const META_SEED: u64 = 2;

/// What is trained on, and the second set where it is not the training set itself; `read` opens a
/// file in the format of the training file. A second set without an example is refused.
pub fn take(
    train: Dataset,
    source: Option<&MetaSource>,
    read: impl FnOnce(&String) -> Result<Dataset, Failure>,
) -> Result<(Dataset, Option<Dataset>), Failure> {
    let (train, second) = match source {
        None | Some(MetaSource::Train) => return Ok((train, None)),
        Some(MetaSource::Split(share)) => train.split(*share, META_SEED),
        Some(MetaSource::File(file)) => (train, read(file)?),
    };
    if second.is_empty() {
        return Err(Failure::input(
            "the second set has no example; raise `split` in [objective.balance.meta] or \
             [objective.regularizer.meta], or bring more data",
        ));
    }
    Ok((train, Some(second)))
}

/// How large the second set is, and how much of it is trained on as well.
pub fn about(second: &Dataset, train: &Dataset) -> String {
    let both = match overlap(train, second).count {
        0 => String::new(),
        count => format!(", {count} with a text that is also in the training set"),
    };
    let (size, rest) = (second.len(), train.len());
    format!("the second set has {size} examples{both}; {rest} are trained on")
}

/// Bytes of what a plan's balance policy remembers, and of the weights as they were, kept while the
/// student stands beside them to measure alignments. `dense` are the student's parameters but for
/// its table of tokens, `table`, of which a step moves a few rows. A gradient that is kept is of both.
pub fn memory(plan: &Plan, dense: u64, table: u64) -> u64 {
    let meta = plan.objective.meta();
    let remembered = match plan.objective.balance.as_ref().map(|balance| &balance.policy) {
        Some(PolicyPlan::RwKd { .. }) => 1 + plan.teachers().count() as u64,
        Some(PolicyPlan::L2rw { .. }) => 1,
        _ => 0,
    };
    let kept = match meta.map(|meta| meta.estimator) {
        Some(Estimator::FiniteDifference { .. }) => dense,
        _ => 0,
    };
    let ahead = match meta.map(|meta| meta.at) {
        Some(MetaAt::Ahead) => dense + table,
        _ => 0,
    };
    8 * remembered * plan.examples.train + 4 * (kept + ahead)
}
