//! A plan applied to the parameters of a model.
//!
//! In: plan, anatomy, tensors. Out: the tensors of the grown model under the names that its family
//! gives them. Never: half a model; names and shapes are compared before the first number is used.

use std::borrow::Cow;

use heirloom_base::{Digest, Purpose, uniform, word};

use crate::depth::Block;
use crate::entries::{Entry, Layout, Source};
use crate::family::{NormSite, Place, Role, is_buffer};
use crate::tensor::{Number, Tensor, Tensors};
use crate::{Anatomy, Error, Fill, GrowthPlan, LmHead, Placement, TiedHead};

/// A grown model.
#[derive(Clone, Debug, PartialEq)]
pub struct Grown<T> {
    /// Its parameters.
    pub tensors: Tensors<T>,
    /// What it is now.
    pub anatomy: Anatomy,
}

/// How many numbers the grown model will have, of a model whose parameters have these names and
/// shapes. A tied head counts once; names without a role are left out.
pub fn count_grown<'a>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    shapes: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> u64 {
    let grown = plan.grown(anatomy);
    let mut count = 0u64;
    for (name, old) in shapes {
        let Some(place) = anatomy.family.find(name).filter(|_| !is_buffer(name)) else { continue };
        let sizes = place.dims().into_iter().zip(old);
        let size =
            |(dim, &old): (crate::family::Dim, &usize)| dim.size(&grown).unwrap_or(old) as u64;
        let one = sizes.map(size).fold(1, u64::saturating_mul);
        let untied = place.role == Role::TokenEmbedding && grown.lm_head != anatomy.lm_head;
        let times = match place.layer {
            // The first layer stands for all; blocks have equal parameters.
            Some(0) => grown.shape.layers as u64,
            Some(_) => 0,
            None if place.role == Role::LmHead && anatomy.lm_head == LmHead::Tied => 0,
            None => 1 + u64::from(untied),
        };
        count = count.saturating_add(one.saturating_mul(times));
    }
    count
}

/// A parameter of the grown model and where it comes from.
pub(crate) struct Route {
    /// Its name in the grown model.
    pub(crate) name: String,
    /// The old tensor.
    pub(crate) from: String,
    /// The same tensor of the block above, or of the same block at the top.
    pub(crate) above: String,
    pub(crate) place: Place,
    /// The new block it stands in, and the one that follows.
    pub(crate) block: Option<(Block, Option<Block>)>,
}

/// Grows a model.
///
/// # Errors
/// Where the plan is not for this model or cannot be carried out ([`GrowthPlan::check`]), or where
/// a tensor has no role or another shape than its role says.
pub fn grow<T: Number>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    tensors: &Tensors<T>,
) -> Result<Grown<T>, Error> {
    let routes = routes(plan, anatomy, tensors)?;
    let layout = Layout::new(plan, anatomy);
    let mut grown: Tensors<T> = Tensors::new();
    for route in &routes {
        let old = prepared(anatomy, &layout, route, &tensors[&route.from]);
        let above = prepared(anatomy, &layout, route, &tensors[&route.above]);
        let tensor = grow_one(plan, &layout, route, &old, &above);
        grown.insert(route.name.clone(), tensor);
    }
    Ok(Grown { tensors: grown, anatomy: plan.grown(anatomy) })
}

/// The parameters of the grown model, after everything that can be refused was.
pub(crate) fn routes<T: Number>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    tensors: &Tensors<T>,
) -> Result<Vec<Route>, Error> {
    plan.check(anatomy)?;
    let family = anatomy.family;
    let mut routes = Vec::new();
    for (name, tensor) in tensors.iter().filter(|(name, _)| !is_buffer(name)) {
        let unknown = || Error::UnknownTensor { name: name.clone(), family };
        let place = family.find(name).ok_or_else(unknown)?;
        check_shape(name, &place, &tensor.shape, anatomy)?;
        // Files may hold a tied head once more.
        if place.role == Role::LmHead && anatomy.lm_head == LmHead::Tied {
            continue;
        }
        match place.layer {
            Some(layer) if layer >= anatomy.shape.layers => return Err(unknown()),
            Some(0) => routes.extend(routes_of_layers(plan, anatomy, tensors, name)?),
            Some(_) => (),
            None => routes.push(Route {
                name: name.clone(),
                from: name.clone(),
                above: name.clone(),
                place,
                block: None,
            }),
        }
    }
    for name in tensors.keys() {
        // Later layers may hold nothing that the first does not.
        if let Some(Place { layer: Some(_), .. }) = family.find(name)
            && !tensors.contains_key(&renamed(name, 0))
        {
            let name = renamed(name, 0);
            return Err(Error::MissingTensor { layer: 0, name });
        }
    }
    if anatomy.lm_head == LmHead::Tied && plan.tied == TiedHead::Untie {
        let tied = |route: &&Route| route.place.role == Role::TokenEmbedding;
        let embedding = routes.iter().find(tied).map(|route| route.from.clone());
        if let (Some(from), Some(name)) = (embedding, family.head_name()) {
            let place = family
                .find(name)
                .ok_or_else(|| Error::UnknownTensor { name: name.to_owned(), family })?;
            routes.push(Route {
                name: name.to_owned(),
                above: from.clone(),
                from,
                place,
                block: None,
            });
        }
    }
    Ok(routes)
}

fn routes_of_layers<T: Number>(
    plan: &GrowthPlan,
    anatomy: &Anatomy,
    tensors: &Tensors<T>,
    first: &str,
) -> Result<Vec<Route>, Error> {
    let find = |layer: usize| {
        let name = renamed(first, layer);
        let place = anatomy.family.find(&name);
        match (tensors.get(&name), place) {
            (Some(_), Some(place)) => Ok((name, place)),
            _ => Err(Error::MissingTensor { layer, name }),
        }
    };
    let top = anatomy.shape.layers - 1;
    let mut routes = Vec::new();
    for (at, &block) in plan.blocks.iter().enumerate() {
        let (from, place) = find(block.from)?;
        let (above, _) = find(top.min(block.from + 1))?;
        let following = plan.blocks.get(at + 1).copied();
        let name = renamed(first, at);
        routes.push(Route { name, from, above, place, block: Some((block, following)) });
    }
    Ok(routes)
}

/// The name with another layer's number: the only part of it that is a number.
pub(crate) fn renamed(name: &str, layer: usize) -> String {
    let is_number = |part: &str| part.parse::<usize>().is_ok();
    let rename = |part: &str| if is_number(part) { layer.to_string() } else { part.to_owned() };
    name.split('.').map(rename).collect::<Vec<String>>().join(".")
}

fn check_shape(name: &str, place: &Place, found: &[usize], anatomy: &Anatomy) -> Result<(), Error> {
    let dims = place.dims();
    let size = |at: usize| dims[at].size(anatomy).or(found.get(at).copied()).unwrap_or(0);
    let expected: Vec<usize> = (0..dims.len()).map(size).collect();
    if expected == found {
        return Ok(());
    }
    Err(Error::Misshapen { name: name.to_owned(), found: found.to_vec(), expected })
}

/// The old tensor as the plan wants it before it is widened: centred, or part of an identity.
fn prepared<'t, T: Number>(
    anatomy: &Anatomy,
    layout: &Layout<'_>,
    route: &Route,
    tensor: &'t Tensor<T>,
) -> Cow<'t, Tensor<T>> {
    let place = &route.place;
    if let Some((block, following)) = route.block {
        let writes = matches!(place.role, Role::AttentionOut | Role::Outer);
        if block.identity && writes {
            return Cow::Owned(tensor.filled(0.0));
        }
        // Norms after each sum: the last norm of a block moves to the top of the identities above
        // it, and all below that one only norm.
        let only_norms = match place.role {
            Role::Norm(NormSite::Attention) => block.identity,
            Role::Norm(NormSite::Ffn) => following.is_some_and(|block| block.identity),
            _ => false,
        };
        if only_norms && anatomy.placement == Placement::Post {
            return Cow::Owned(tensor.filled(if place.bias { 0.0 } else { 1.0 }));
        }
    }
    if layout.centre && place.writes_residual() {
        let dim = match place.role {
            Role::AttentionOut | Role::Outer => place.out_dim(),
            _ => 1,
        };
        return Cow::Owned(tensor.centred(dim));
    }
    Cow::Borrowed(tensor)
}

fn grow_one<T: Number>(
    plan: &GrowthPlan,
    layout: &Layout<'_>,
    route: &Route,
    old: &Tensor<T>,
    above: &Tensor<T>,
) -> Tensor<T> {
    let place = &route.place;
    let dims = layout.entries(place, &old.shape);
    let is_norm = matches!(place.role, Role::Norm(_) | Role::HeadNorm);
    let stream = Stream::of(layout.seed(), &route.name);
    let (rms, mean) = (old.rms(), old.mean() * layout.gain);
    let fill = |at: usize| match (is_norm, place.bias, plan.fill) {
        (true, false, _) => mean,
        (_, true, _) | (false, false, Fill::Zero) => 0.0,
        (false, false, Fill::Normal | Fill::NextLayer) => rms * stream.normal(at as u64),
    };
    let factor = |entry: &Entry| entry.factor;
    let columns = dims.get(1).map(Vec::as_slice);
    let mut grown = old.expand(&dims[0], columns, factor, fill);
    let out = place.out_dim();
    if plan.fill == Fill::NextLayer && route.block.is_some() && !is_norm {
        let advanced = above.expand(&dims[0], columns, factor, fill);
        let width = columns.map_or(1, <[Entry]>::len);
        for (at, value) in grown.data.iter_mut().enumerate() {
            let entry = if out == 0 { &dims[0][at / width] } else { &dims[1][at % width] };
            if entry.copy {
                *value = advanced.data[at];
            }
        }
    }
    let reads = !place.bias && !is_norm && route.block.is_some();
    if plan.noise > 0.0 && reads && dims.len() == 2 {
        add_noise(&mut grown, &dims[1 - out], 1 - out, plan.noise * rms, &stream);
    }
    grown
}

/// Adds normal noise along the dimension that is read, less its mean over the copies of a unit.
/// Copies carry equal values, so what is read does not change.
fn add_noise<T: Number>(
    tensor: &mut Tensor<T>,
    entries: &[Entry],
    dim: usize,
    size: f64,
    stream: &Stream,
) {
    let (rows, columns) = tensor.sides();
    let lines = if dim == 1 { rows } else { columns };
    let mut copies: std::collections::BTreeMap<usize, Vec<usize>> = Default::default();
    for (at, entry) in entries.iter().enumerate() {
        if let Source::Unit(unit) = entry.source {
            copies.entry(unit).or_default().push(at);
        }
    }
    for line in 0..lines {
        for places in copies.values().filter(|places| places.len() > 1) {
            let at = |place: usize| {
                if dim == 1 { line * columns + place } else { place * columns + line }
            };
            let draw = |place: &usize| stream.normal(NOISE + at(*place) as u64);
            let noise: Vec<f64> = places.iter().map(draw).collect();
            let mean = noise.iter().sum::<f64>() / noise.len() as f64;
            for (&place, noise) in places.iter().zip(&noise) {
                let value = &mut tensor.data[at(place)];
                *value = T::narrow(value.wide() + size * (noise - mean));
            }
        }
    }
}

/// Where the words for noise begin, far from those for new entries.
const NOISE: u64 = 1 << 40;

/// Normal numbers with an address: the seed and a parameter's name.
pub(crate) struct Stream {
    seed: u64,
    step: u64,
}

impl Stream {
    pub(crate) fn of(seed: u64, name: &str) -> Self {
        let digest = Digest::of(name.as_bytes()).to_string();
        let tag = u64::from_str_radix(&digest[..7], 16).unwrap_or_default();
        // Above the steps in which axes draw.
        Self { seed, step: (1 << 28) + tag }
    }

    /// The normal number at a place (Box & Muller 1958).
    pub(crate) fn normal(&self, at: u64) -> f64 {
        let draw = |index: u64| uniform(word(self.seed, Purpose::Growth, self.step, index));
        let (radius, angle) = (draw(2 * at), draw(2 * at + 1));
        (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;

    #[test]
    fn the_number_in_a_name_is_the_layer() {
        assert_eq!(
            renamed("bert.encoder.layer.3.output.dense.bias", 11),
            "bert.encoder.layer.11.output.dense.bias"
        );
        assert_eq!(Family::Gpt2.find(&renamed("h.0.ln_1.weight", 5)).unwrap().layer, Some(5));
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let stream = Stream::of(1, "a.weight");
        let values: Vec<f64> = (0..20_000).map(|at| stream.normal(at)).collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let square = values.iter().map(|value| value * value).sum::<f64>() / 20_000.0;
        // Standard errors: 0.007 and 0.01.
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.04, "{mean} {square}");
    }
}
