//! Which parts of a grown model can stand behind a mask that opens step by step, and what is behind it:
//! masked structural growth (Yao et al. 2024, arXiv:2305.02869).
//!
//! What is new writes to the residual stream through few matrices: new heads and new feed-forward
//! units through columns of the output projections, a new block through both of its projections. With
//! these times c = 0 the model computes what the small one did, whatever they are. Where norms come
//! after the branches a new block is one that norms what is normed already
//! (`docs/method/growth.md`), so no other mask is needed there.
//!
//! In: a plan that reads new units as zero, and the small model's tensors. Out: parts of the grown
//! parameters, and normal numbers for them. Never: c.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::apply::{Route, Stream, routes};
use crate::axis::{Axis, Map};
use crate::entries::{Entry, Layout, Source};
use crate::family::Role;
use crate::tensor::{Number, Tensor, Tensors};
use crate::{Anatomy, Error, GrowthPlan};

/// What of a parameter is behind a mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Masked {
    /// All of it.
    Whole,
    /// What reads these inputs, in ascending order.
    Inputs(Vec<Range<usize>>),
}

/// Where the words for what is behind masks begin, far from those for new entries and for noise.
const BEHIND: u64 = 1 << 41;

/// The masked parts of the grown model, by name. `shapes` are the small model's, as files hold them.
///
/// # Errors
/// As [`crate::grow`], and where something grows that no mask on a matrix can hide, or nothing new is
/// read as zero.
pub fn masks<'a>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    shapes: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> Result<BTreeMap<String, Masked>, Error> {
    can_hide(plan)?;
    let empty = |(name, shape): (&str, &[usize])| {
        (name.to_owned(), Tensor::<f32> { shape: shape.to_vec(), data: Vec::new() })
    };
    let tensors: Tensors<f32> = shapes.into_iter().map(empty).collect();
    let layout = Layout::new(plan, anatomy);
    let mut masks = BTreeMap::new();
    for route in routes(plan, anatomy, &tensors)? {
        if let Some(masked) = masked(&route, &layout, &tensors[&route.from].shape) {
            masks.insert(route.name, masked);
        }
    }
    Ok(masks)
}

/// What is behind the masks: for each of [`masks`] a tensor of the grown shape, zero where nothing is
/// masked, normal with the root mean square of the old tensor where something is. Biases begin at zero.
///
/// # Errors
/// As [`masks`].
pub fn behind_masks<T: Number>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    tensors: &Tensors<T>,
) -> Result<Tensors<T>, Error> {
    can_hide(plan)?;
    let layout = Layout::new(plan, anatomy);
    let mut behind = Tensors::new();
    for route in routes(plan, anatomy, tensors)? {
        let old = &tensors[&route.from];
        let Some(masked) = masked(&route, &layout, &old.shape) else { continue };
        let shape: Vec<usize> =
            layout.entries(&route.place, &old.shape).iter().map(Vec::len).collect();
        let width = shape.get(1).copied().unwrap_or(1);
        let inside = |at: usize| match &masked {
            Masked::Whole => true,
            Masked::Inputs(inputs) => {
                let input = if route.place.out_dim() == 0 { at % width } else { at / width };
                inputs.iter().any(|range| range.contains(&input))
            }
        };
        let stream = Stream::of(layout.seed(), &route.name);
        let size = if route.place.bias { 0.0 } else { old.rms() };
        let number = |at: usize| {
            let value = if inside(at) { size * stream.normal(BEHIND + at as u64) } else { 0.0 };
            T::narrow(value)
        };
        let data = (0..shape.iter().product::<usize>()).map(number).collect();
        behind.insert(route.name, Tensor { shape, data });
    }
    Ok(behind)
}

/// What of a parameter is masked, if any of it is.
fn masked(route: &Route, layout: &Layout<'_>, old: &[usize]) -> Option<Masked> {
    let place = &route.place;
    if !matches!(place.role, Role::AttentionOut | Role::Outer) {
        return None;
    }
    if route.block.is_some_and(|(block, _)| block.identity) {
        return Some(Masked::Whole);
    }
    if place.bias {
        return None;
    }
    let dims = layout.entries(place, old);
    let new = |entry: &Entry| entry.source == Source::Zero;
    let mut inputs: Vec<Range<usize>> = Vec::new();
    for at in dims[1 - place.out_dim()].iter().enumerate().filter(|(_, e)| new(e)).map(|(at, _)| at)
    {
        match inputs.last_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => inputs.push(at..at + 1),
        }
    }
    (!inputs.is_empty()).then_some(Masked::Inputs(inputs))
}

/// Whether masks on matrices hide all that is new.
fn can_hide(plan: &GrowthPlan) -> Result<(), Error> {
    for axis in &plan.axes {
        let why = match (axis.axis, axis.map) {
            (_, Map::Keep) => continue,
            (Axis::Ffn | Axis::KvHeads | Axis::Group, Map::Pad) => continue,
            (Axis::Residual, _) => {
                "norms see new units of the hidden states, and a mask there would have to weigh \
                 their statistics as well; grow it in a stage of its own, by `preserve`"
            }
            (Axis::HeadDim, _) => {
                "a head's new numbers change the scores of the old ones; keep its size and add heads"
            }
            _ => "masks hide new heads, feed-forward units and layers alone",
        };
        let (from, to, why) = (axis.from, axis.to, why.to_owned());
        return Err(Error::Size { what: format!("the {}", axis.axis.words()), from, to, why });
    }
    Ok(())
}
