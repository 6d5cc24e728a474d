//! Where each parameter of a grown model comes from, and how fast it may learn.

use std::collections::BTreeMap;

use crate::apply::routes;
use crate::entries::{Entry, Layout, Source};
use crate::tensor::{Tensor, Tensors};
use crate::{Anatomy, Error, GrowthPlan};

/// What a parameter of a grown model has of an old one.
#[derive(Clone, Debug, PartialEq)]
pub struct Descent {
    /// The old parameter.
    pub from: String,
    /// What its learning rate is to be multiplied by, and its decoupled weight decay divided by: the
    /// mean over entries that are old ones or copies. Where copies are read in equal shares it is
    /// each entry's own ([`crate::rate_multipliers`]).
    pub rate: f64,
    /// Whether it has no moments, whatever becomes of the others': it stands in a block that starts
    /// as the identity.
    pub fresh: bool,
    /// Whether some of its entries are not the first of their kind: copies, or new.
    pub has_new: bool,
}

/// The descent of every parameter of the grown model, by name. `shapes` are the old model's.
///
/// # Errors
/// As [`crate::grow`].
pub fn descents<'a>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    shapes: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> Result<BTreeMap<String, Descent>, Error> {
    let empty = |(name, shape): (&str, &[usize])| {
        (name.to_owned(), Tensor::<f32> { shape: shape.to_vec(), data: Vec::new() })
    };
    let tensors: Tensors<f32> = shapes.into_iter().map(empty).collect();
    let layout = Layout::new(plan, anatomy);
    let mut seen = std::collections::BTreeSet::new();
    let mut descend = |route: crate::apply::Route| {
        let dims = layout.entries(&route.place, &tensors[&route.from].shape);
        let fresh = route.block.is_some_and(|(block, _)| block.identity);
        // The same parameter of a block that stands here again.
        let again = !seen.insert(route.from.clone());
        let descent = Descent {
            rate: dims.iter().map(|dim| mean_factor(dim)).product(),
            fresh,
            has_new: fresh || again || dims.iter().flatten().any(|entry| entry.copy),
            from: route.from,
        };
        (route.name, descent)
    };
    Ok(routes(plan, anatomy, &tensors)?.into_iter().map(&mut descend).collect())
}

/// The mean factor of the entries that come from an old one; 1 where none does.
fn mean_factor(entries: &[Entry]) -> f64 {
    let old = entries.iter().filter(|entry| matches!(entry.source, Source::Unit(_)));
    let (count, sum) = old.fold((0, 0.0), |(count, sum), entry| (count + 1, sum + entry.factor));
    if count == 0 { 1.0 } else { sum / f64::from(count) }
}
