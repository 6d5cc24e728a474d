//! Whether copies have learnt apart: copies with equal moments and equal gradients stay equal for
//! ever, and the grown model is then no more than the small one.

use crate::apply::routes;
use crate::entries::{Layout, Source};
use crate::tensor::{Number, Tensors};
use crate::{Anatomy, Error, GrowthPlan};

/// The largest difference between an entry of a grown model and what the first copy of the same
/// old entry says it should be, over the parameters of the blocks, along what they write. 0 means
/// that copies are locked. `old` are the parameters before growing, for names and shapes only.
///
/// # Errors
/// As [`crate::grow`], and where `grown` lacks a parameter.
pub fn clone_gap<T: Number>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    old: &Tensors<T>,
    grown: &Tensors<T>,
) -> Result<f64, Error> {
    let layout = Layout::new(plan, anatomy);
    let mut gap: f64 = 0.0;
    for route in routes(plan, anatomy, old)? {
        let Some((block, _)) = route.block else { continue };
        let missing = || Error::MissingTensor { layer: block.from, name: route.name.clone() };
        let tensor = grown.get(&route.name).ok_or_else(missing)?;
        let dims = layout.entries(&route.place, &old[&route.from].shape);
        let out = route.place.out_dim();
        let (_, width) = tensor.sides();
        let other = dims.get(1 - out).map_or(1, Vec::len);
        let mut first = std::collections::BTreeMap::new();
        for (at, entry) in dims[out].iter().enumerate() {
            let Source::Unit(unit) = entry.source else { continue };
            let twin = *first.entry(unit).or_insert(at);
            // Shares differ from copy to copy along what is written only for scaled queries.
            let scale = entry.factor / dims[out][twin].factor;
            for along in 0..other {
                let place =
                    |at: usize| if out == 0 { at * width + along } else { along * width + at };
                let (one, two) = (tensor.data[place(twin)].wide(), tensor.data[place(at)].wide());
                gap = gap.max((two - scale * one).abs());
            }
        }
    }
    Ok(gap)
}
