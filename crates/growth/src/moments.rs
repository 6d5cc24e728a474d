//! The optimiser's moments of a grown model, and how fast its parameters may learn.
//!
//! A gradient grows by the transposed maps: where `W' = U_out W D_inᵀ`, its gradient is
//! `D_out G U_inᵀ`. So Adam's first moment grows by the same matrices and its second by their
//! squares, exactly where each of their rows has one entry. Adam divides one by the root of the
//! other, so all copies step alike and by as much as the old entry; for the grown model to follow
//! the small one, each entry's learning rate must be that of the old times the entry's factor in
//! `U_out W D_inᵀ` (decoupled weight decay: divided by it).

use serde::{Deserialize, Serialize};

use crate::apply::routes;
use crate::entries::{Entry, Layout, Source};
use crate::tensor::{Number, Tensor, Tensors};
use crate::{Anatomy, Error, GrowthPlan};

/// What becomes of the moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentsMode {
    /// Every copy has its share: the grown model goes on as the small one would, and copies stay
    /// alike as long as nothing else tells them apart.
    Mapped,
    /// The first copy of each entry has its share, the others zero, which tells copies apart at
    /// the first step. With a kept step counter their first updates are (1−β₁)/√(1−β₂) learning
    /// rates, so they should be warmed up again.
    Asymmetric,
    /// All zero, for a step counter that begins again.
    Dropped,
}

/// Adam's moments of every parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments<T> {
    /// Means of gradients.
    pub first: Tensors<T>,
    /// Means of their squares.
    pub second: Tensors<T>,
}

/// Grows the moments of a model whose parameters are grown by `plan`. They have the names and
/// shapes of the parameters. Entries that are no copies get a first moment of zero and, with
/// [`MomentsMode::Mapped`], the mean of the old second moments, so that their first steps are not
/// too long.
///
/// # Errors
/// As [`crate::grow`], and where a parameter lacks a moment.
pub fn grow_moments<T: Number>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    moments: &Moments<T>,
    mode: MomentsMode,
) -> Result<Moments<T>, Error> {
    let (first, second) = (&moments.first, &moments.second);
    let layout = Layout::new(plan, anatomy);
    let mut grown = Moments { first: Tensors::new(), second: Tensors::new() };
    for route in routes(plan, anatomy, first)? {
        let missing = || Error::MissingTensor {
            layer: route.place.layer.unwrap_or_default(),
            name: route.from.clone(),
        };
        let (m, v) = (&first[&route.from], second.get(&route.from).ok_or_else(missing)?);
        let dims = layout.entries(&route.place, &m.shape);
        // An identity has moments of no parameter that it holds.
        let keep =
            mode != MomentsMode::Dropped && route.block.is_none_or(|(block, _)| !block.identity);
        let dims: Vec<Vec<Entry>> =
            dims.iter().map(|dim| dim.iter().map(|entry| kept(entry, mode)).collect()).collect();
        let columns = dims.get(1).map(Vec::as_slice);
        let mean = if mode == MomentsMode::Mapped { v.mean() } else { 0.0 };
        let mut grown_m = m.expand(&dims[0], columns, |entry| entry.dual, |_| 0.0);
        let square = |entry: &Entry| entry.dual * entry.dual;
        let mut grown_v = v.expand(&dims[0], columns, square, |_| mean);
        if !keep {
            (grown_m, grown_v) = (grown_m.filled(0.0), grown_v.filled(0.0));
        }
        grown.first.insert(route.name.clone(), grown_m);
        grown.second.insert(route.name, grown_v);
    }
    Ok(grown)
}

/// An entry as moments see it: what is no old unit has none, and a later copy only where asked.
fn kept(entry: &Entry, mode: MomentsMode) -> Entry {
    let source = match entry.source {
        Source::Unit(_) if mode == MomentsMode::Asymmetric && entry.copy => Source::Zero,
        Source::Unit(at) => Source::Unit(at),
        Source::Mean | Source::Zero | Source::Fill => Source::Fill,
    };
    Entry { source, ..*entry }
}

/// For every parameter of the grown model, what each entry's learning rate is to be multiplied by
/// (and its decoupled weight decay divided by) for the model to follow the small one's trajectory
/// under Adam. 1 for entries that are no copies. All entries of a tensor have the same multiplier
/// where copies are read in equal shares.
///
/// # Errors
/// As [`crate::grow`].
pub fn rate_multipliers<T: Number>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    tensors: &Tensors<T>,
) -> Result<Tensors<f64>, Error> {
    let layout = Layout::new(plan, anatomy);
    let multiplier = |route: crate::apply::Route| {
        let old = &tensors[&route.from];
        let dims = layout.entries(&route.place, &old.shape);
        let ones = Tensor::new(&old.shape, vec![1.0; old.data.len()]);
        let factor = |entry: &Entry| entry.factor;
        let open: Vec<Vec<Entry>> = dims
            .iter()
            .map(|dim| dim.iter().map(|entry| kept(entry, MomentsMode::Mapped)).collect())
            .collect();
        let columns = open.get(1).map(Vec::as_slice);
        (route.name, ones.expand(&open[0], columns, factor, |_| 1.0))
    };
    Ok(routes(plan, anatomy, tensors)?.into_iter().map(multiplier).collect())
}
