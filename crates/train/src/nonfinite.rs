//! A step whose loss or gradient is not finite: what is said of it, and whether the run goes on.

use heirloom_base::Nats;
use heirloom_engine::{Device, Param};
use heirloom_recipe::{OnNonfinite, TrainingPlan};

use crate::{Error, Learned, NotFinite, Progress};

/// The names of the terms whose sums are not finite.
pub(crate) fn bad_terms<'a>(terms: impl Iterator<Item = (&'a str, &'a Nats)>) -> Vec<String> {
    let bad = |(name, nats): (&str, &Nats)| {
        (!nats.sum_of_parts().is_finite()).then(|| format!("term `{name}`"))
    };
    terms.filter_map(bad).collect()
}

/// The first parameter whose gradient is not finite.
pub(crate) fn bad_parameter(device: &dyn Device, learned: &[&Learned]) -> Option<String> {
    learned.iter().find_map(|learned| {
        let bad = |param: &&Param| {
            !device.sum_of_squares(learned.params.view(param, learned.grads)).is_finite()
        };
        learned.params.index().iter().find(bad).map(|param| param.name.clone())
    })
}

/// Counts a step that is left out, or says why the run must stop.
pub(crate) fn leave_out(
    training: &TrainingPlan,
    progress: &mut Progress,
    not_finite: NotFinite,
) -> Result<(), Error> {
    match training.on_nonfinite {
        OnNonfinite::Stop => Err(Error::Diverged(not_finite)),
        OnNonfinite::Skip if progress.skipped >= training.nonfinite_limit => {
            Err(Error::TooManySkipped(not_finite, progress.skipped))
        }
        OnNonfinite::Skip => {
            progress.skipped += 1;
            Ok(())
        }
    }
}
