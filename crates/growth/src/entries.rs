//! A dimension of a tensor, entry by entry: where each comes from and with which factor.

use crate::axis::{Axis, Origin, Units};
use crate::family::{Dim, NormSite, Place, Product, Role, Way};
use crate::{Anatomy, GrowthPlan, LmHead, Norm, Placement, TiedHead};

/// Where an entry's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The old entry at this place.
    Unit(usize),
    /// The mean of all old entries.
    Mean,
    /// It is zero, or the model would compute something else.
    Zero,
    /// It may be anything: what it adds is zero on the other side.
    Fill,
}

/// One new entry of a dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) source: Source,
    /// What a weight is multiplied by.
    pub(crate) factor: f64,
    /// What a gradient is multiplied by.
    pub(crate) dual: f64,
    /// Whether an earlier entry has the same source.
    pub(crate) copy: bool,
}

impl Entry {
    /// The old entry `at`, as it is.
    pub(crate) fn unit(at: usize) -> Self {
        Self { source: Source::Unit(at), factor: 1.0, dual: 1.0, copy: false }
    }

    fn rest(source: Source) -> Self {
        Self { source, factor: 1.0, dual: 0.0, copy: true }
    }
}

/// A plan laid out: every axis unit by unit, and what norms make up for.
pub(crate) struct Layout<'p> {
    plan: &'p GrowthPlan,
    units: Vec<Units>,
    /// Factor of every norm's gain.
    pub(crate) gain: f64,
    /// Factor of ε.
    pub(crate) eps: f64,
    /// Whether writes to the residual stream are centred first.
    pub(crate) centre: bool,
    /// Whether the last norm makes up for copies that a tied head reads whole.
    last_reads: bool,
    /// Factor of what norms of single heads see. They share ε with the others, and where that
    /// changes by r, rows that are √r times the old ones are normed as before.
    head: f64,
}

impl<'p> Layout<'p> {
    pub(crate) fn new(plan: &'p GrowthPlan, anatomy: &Anatomy) -> Self {
        let means = anatomy.norm == Norm::Layer;
        let units: Vec<Units> =
            Axis::ALL.iter().map(|&axis| plan.axis(axis).units(plan.seed, means)).collect();
        let residual = &units[Axis::Residual as usize];
        let new = residual.origin.contains(&Origin::New);
        // After a sum a layer norm sees rows whose mean nobody can hold at zero, so nothing that
        // is done to its gain keeps the function.
        let diluted = residual.has_rest() && (anatomy.placement == Placement::Pre || !means);
        let dilution = if diluted { residual.dilution() } else { 1.0 };
        let stays_tied = anatomy.lm_head == LmHead::Tied && plan.tied != TiedHead::Untie;
        Self {
            plan,
            gain: dilution.sqrt(),
            eps: dilution,
            centre: new && means && anatomy.placement == Placement::Pre && !stays_tied,
            last_reads: stays_tied && plan.tied == TiedHead::ScaleNorm,
            head: if anatomy.head_norms { dilution.sqrt() } else { 1.0 },
            units,
        }
    }

    pub(crate) fn units(&self, axis: Axis) -> &Units {
        &self.units[axis as usize]
    }

    /// The entries of each dimension of the parameter at `place`, as it is stored.
    pub(crate) fn entries(&self, place: &Place, old_shape: &[usize]) -> Vec<Vec<Entry>> {
        if let Role::Norm(site) = place.role {
            return vec![self.norm(site, place.bias)];
        }
        let dims = place.dims();
        let entries = |(dim, &size): (&Dim, &usize)| match dim {
            Dim::Fixed => (0..size).map(Entry::unit).collect(),
            Dim::Axes(parts) => self.side_by_side(parts),
        };
        let mut all: Vec<Vec<Entry>> = dims.iter().zip(old_shape).map(entries).collect();
        if self.head != 1.0 && matches!(place.role, Role::Query | Role::Key) {
            for entry in &mut all[place.out_dim()] {
                entry.factor *= self.head;
                entry.dual /= self.head;
            }
        }
        all
    }

    fn side_by_side(&self, parts: &[Product]) -> Vec<Entry> {
        let (mut entries, mut offset) = (Vec::new(), 0);
        for product in parts {
            let (part, old) = self.product(product);
            entries.extend(part.into_iter().map(|entry| match entry.source {
                Source::Unit(at) => Entry { source: Source::Unit(offset + at), ..entry },
                _ => entry,
            }));
            offset += old;
        }
        entries
    }

    fn product(&self, product: &Product) -> (Vec<Entry>, usize) {
        if let [(axis, way)] = product.as_slice() {
            return (self.along(*axis, *way), self.units(*axis).old);
        }
        let (mut all, mut old) = (vec![Entry::unit(0)], 1);
        for &(axis, way) in product {
            let inner = self.along(axis, way);
            let size = self.units(axis).old;
            all = all
                .iter()
                .flat_map(|slow| inner.iter().map(move |fast| pair(slow, fast, size)))
                .collect();
            old *= size;
        }
        (all, old)
    }

    fn along(&self, axis: Axis, way: Way) -> Vec<Entry> {
        let units = self.units(axis);
        // Scores are divided by the root of the new head size in place of the old one's.
        let scale = match way {
            Way::ReadScaled => (units.origin.len() as f64 / units.old as f64).sqrt(),
            Way::Write | Way::Read => 1.0,
        };
        // New units of the residual stream carry zero, since norms would see them; new units
        // elsewhere may carry anything, and are read as zero.
        let writes_zero = axis == Axis::Residual;
        let mut seen = vec![false; units.old];
        let entry = |(origin, &share): (&Origin, &f64)| match (origin, way) {
            (&Origin::Unit(at), _) => {
                let (factor, dual) = match way {
                    Way::Write => (1.0, share),
                    Way::Read | Way::ReadScaled => (share * scale, 1.0 / scale),
                };
                let copy = std::mem::replace(&mut seen[at], true);
                Entry { source: Source::Unit(at), factor, dual, copy }
            }
            (Origin::Mean, Way::Write) => Entry::rest(Source::Mean),
            (Origin::New, Way::Write) if writes_zero => Entry::rest(Source::Zero),
            (Origin::New, Way::Read | Way::ReadScaled) if !writes_zero => Entry::rest(Source::Zero),
            (Origin::Mean | Origin::New, _) => Entry::rest(Source::Fill),
        };
        units.origin.iter().zip(&units.share).map(entry).collect()
    }

    /// Gain or bias of a norm. What is no copy has a bias of zero and a gain that is not: with both
    /// ends of a path at zero, neither would ever see a gradient.
    fn norm(&self, site: NormSite, bias: bool) -> Vec<Entry> {
        let way = if site == NormSite::Last && self.last_reads { Way::Read } else { Way::Write };
        let gain = if bias { 1.0 } else { self.gain };
        let rest = if bias { Source::Zero } else { Source::Fill };
        let entry = |entry: Entry| match entry.source {
            Source::Unit(_) => {
                Entry { factor: entry.factor * gain, dual: entry.dual / gain, ..entry }
            }
            _ => Entry::rest(rest),
        };
        self.along(Axis::Residual, way).into_iter().map(entry).collect()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.plan.seed
    }
}

fn pair(slow: &Entry, fast: &Entry, size: usize) -> Entry {
    let source = match (slow.source, fast.source) {
        (Source::Zero, _) | (_, Source::Zero) => Source::Zero,
        (Source::Unit(slow), Source::Unit(fast)) => Source::Unit(slow * size + fast),
        // Means stand on the residual axis alone, which is in no product.
        _ => Source::Fill,
    };
    Entry {
        source,
        factor: slow.factor * fast.factor,
        dual: slow.dual * fast.dual,
        copy: slow.copy || fast.copy,
    }
}
