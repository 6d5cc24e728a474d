//! A linear operator from a small model's parameters to a large one's, whose numbers can be learnt
//! (LiGO: Wang et al. 2023, arXiv:2303.00980).
//!
//! ```text
//! W'_l = Σ_j w_lj R W_j Cᵀ      R, C: how rows and columns grow;  w: which old layers a new one has
//! ```
//!
//! In: a growth plan, which gives the operator that the learning begins with, and the small model's
//! parameters. Out: the large one's, and the gradient of R, C and w from that of the large model's
//! parameters. Never: a plan's fixed rules that are no such map (identities, centring).
//!
//! One factor R serves all dimensions that grow alike: all that is written to the residual stream has
//! the same. Where Wang et al. read with the factor that they write with, ours are two, so that plans
//! that share what they read between copies, as Net2Net does, are operators too.

use std::collections::BTreeMap;

use crate::apply::{Route, routes};
use crate::entries::{Entry, Layout, Source};
use crate::tensor::{Tensor, Tensors};
use crate::{Anatomy, Error, Fill, GrowthPlan};

/// How the entries of a dimension grow: a matrix `[new, old]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// New entries.
    pub rows: usize,
    /// Old ones.
    pub columns: usize,
    /// Row-major.
    pub values: Vec<f64>,
}

/// Parameters that grow by the same rule: one, or one of each layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The old parameters, one of each old layer.
    pub from: Vec<String>,
    /// The new ones, one of each new layer.
    pub to: Vec<String>,
    /// Shape of each old one, as files hold it: one dimension or two.
    pub shape: Vec<usize>,
    /// Factors of the rows and of the columns, by number; `None` leaves a dimension as it is.
    pub factors: [Option<usize>; 2],
    /// Which of the blends says how many of each old one a new one has; `None` takes the only one.
    pub blend: Option<usize>,
}

/// An operator, or the gradient of one. Its products here are plain loops in double precision: what
/// whoever computes them on a device is held against.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// Matrices of dimensions.
    pub factors: Vec<Factor>,
    /// Matrices of layers, `[new, old]`, one for each kind of parameter.
    pub blends: Vec<Factor>,
    parts: Vec<Part>,
}

impl Operator {
    /// The operator that `plan` is for a model with parameters of these names and shapes.
    ///
    /// # Errors
    /// As [`crate::grow`]; and where the plan is no linear map of this kind: its new layers begin as
    /// identities, or it centres what is written, or copies come from the layer above.
    pub fn of<'a>(
        plan: &GrowthPlan,
        anatomy: &Anatomy,
        shapes: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<Self, Error> {
        let empty = |(name, shape): (&str, &[usize])| {
            (name.to_owned(), Tensor::<f32> { shape: shape.to_vec(), data: Vec::new() })
        };
        let tensors: Tensors<f32> = shapes.into_iter().map(empty).collect();
        let layout = Layout::new(plan, anatomy);
        let identity = plan.blocks.iter().any(|block| block.identity);
        if identity || layout.centre || plan.fill == Fill::NextLayer {
            return Err(Error::Cannot(format!(
                "`{}` is no map whose numbers could be learnt; begin from whole layers and copies, \
                 as `bert2bert-fpi` does",
                plan.method
            )));
        }
        let mut operator = Self { factors: Vec::new(), blends: Vec::new(), parts: Vec::new() };
        let mut known: BTreeMap<String, Option<usize>> = BTreeMap::new();
        let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
        for route in routes(plan, anatomy, &tensors)? {
            let Route { name, from, place, block, .. } = route;
            let shape = &tensors[&from].shape;
            let kind = match block {
                None => name.clone(),
                Some(_) => crate::apply::renamed(&name, 0),
            };
            if let Some(&part) = by_kind.get(&kind) {
                operator.parts[part].to.push(name);
                continue;
            }
            by_kind.insert(kind.clone(), operator.parts.len());
            let mut factors = [None; 2];
            for (at, entries) in layout.entries(&place, shape).iter().enumerate() {
                let key = format!("{entries:?}");
                factors[at] = *known.entry(key).or_insert_with(|| {
                    let factor = Factor::of(entries, shape[at])?;
                    operator.factors.push(factor);
                    Some(operator.factors.len() - 1)
                });
            }
            let (from, blend) = match block {
                None => (vec![from], None),
                Some(_) => {
                    let layers = anatomy.shape.layers;
                    let name = |layer| crate::apply::renamed(&kind, layer);
                    let mut blend = Factor::zeros(plan.blocks.len(), layers);
                    for (at, block) in plan.blocks.iter().enumerate() {
                        blend.values[at * layers + block.from] = 1.0;
                    }
                    operator.blends.push(blend);
                    ((0..layers).map(name).collect(), Some(operator.blends.len() - 1))
                }
            };
            operator.parts.push(Part {
                from,
                to: vec![name],
                shape: shape.clone(),
                factors,
                blend,
            });
        }
        Ok(operator)
    }

    /// Numbers that can be learnt.
    pub fn count(&self) -> usize {
        self.factors.iter().chain(&self.blends).map(|factor| factor.values.len()).sum()
    }

    /// How parameters grow: every new one is of exactly one part.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// All of them, factors first.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut f64> {
        self.factors.iter_mut().chain(&mut self.blends).flat_map(|factor| &mut factor.values)
    }

    /// The same, to be read.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.factors.iter().chain(&self.blends).flat_map(|factor| factor.values.iter().copied())
    }

    /// The large model's parameters.
    ///
    /// # Panics
    /// Where `old` lacks a parameter.
    pub fn apply(&self, old: &Tensors<f64>) -> Tensors<f64> {
        let mut grown = Tensors::new();
        for part in &self.parts {
            let expanded: Vec<Matrix> =
                part.from.iter().map(|name| self.expand(part, &old[name]).1).collect();
            for (at, name) in part.to.iter().enumerate() {
                let mut sum = Matrix::zeros(expanded[0].rows, expanded[0].columns);
                for (source, one) in expanded.iter().enumerate() {
                    let weight = self.weight(part, at, source);
                    sum.add(weight, one);
                }
                let mut shape = vec![sum.rows, sum.columns];
                shape.truncate(part.shape.len());
                grown.insert(name.clone(), Tensor::new(&shape, sum.values));
            }
        }
        grown
    }

    /// The gradient of a loss by the operator's numbers, from that by the large model's parameters.
    ///
    /// ```text
    /// ∂w_lj = ⟨G_l, R W_j Cᵀ⟩      with H_j = Σ_l w_lj G_l:
    /// ∂R    = Σ_j H_j C W_jᵀ       ∂C = Σ_j H_jᵀ R W_j
    /// ```
    ///
    /// # Panics
    /// Where a parameter or a gradient is missing.
    pub fn gradient(&self, old: &Tensors<f64>, grads: &Tensors<f64>) -> Self {
        let zero = |factor: &Factor| Factor::zeros(factor.rows, factor.columns);
        let mut gradient = Self {
            factors: self.factors.iter().map(zero).collect(),
            blends: self.blends.iter().map(zero).collect(),
            parts: self.parts.clone(),
        };
        for part in &self.parts {
            for (source, from) in part.from.iter().enumerate() {
                let small = Matrix::of(&old[from]);
                let (half, whole) = self.expand(part, &old[from]);
                let mut heard = Matrix::zeros(whole.rows, whole.columns);
                for (at, name) in part.to.iter().enumerate() {
                    let given = Matrix::of(&grads[name]);
                    heard.add(self.weight(part, at, source), &given);
                    if let Some(blend) = part.blend {
                        let sources = part.from.len();
                        let slope: f64 =
                            given.values.iter().zip(&whole.values).map(|(g, e)| g * e).sum();
                        gradient.blends[blend].values[at * sources + source] += slope;
                    }
                }
                let inner = match part.factors[0] {
                    Some(row) => {
                        let slope = heard.times_transposed(&half);
                        gradient.factors[row].add(&slope);
                        Matrix::of_factor(&self.factors[row]).transposed_times(&heard)
                    }
                    None => heard,
                };
                if let Some(column) = part.factors[1] {
                    gradient.factors[column].add(&inner.transposed_times(&small));
                }
            }
        }
        gradient
    }

    /// `W Cᵀ` and `R W Cᵀ`.
    fn expand(&self, part: &Part, old: &Tensor<f64>) -> (Matrix, Matrix) {
        let old = Matrix::of(old);
        let half = match part.factors[1] {
            Some(column) => old.times_transposed(&Matrix::of_factor(&self.factors[column])),
            None => old,
        };
        let whole = match part.factors[0] {
            Some(row) => Matrix::of_factor(&self.factors[row]).times(&half),
            None => half.clone(),
        };
        (half, whole)
    }

    /// How much of its old parameter number `source` new parameter `at` of a part has.
    fn weight(&self, part: &Part, at: usize, source: usize) -> f64 {
        part.blend.map_or(1.0, |blend| {
            let Factor { columns, values, .. } = &self.blends[blend];
            values[at * columns + source]
        })
    }
}

impl Factor {
    fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    /// The map of a dimension's entries; `None` where they stay as they are.
    fn of(entries: &[Entry], old: usize) -> Option<Self> {
        let stays =
            |(at, entry): (usize, &Entry)| entry.source == Source::Unit(at) && entry.factor == 1.0;
        if entries.len() == old && entries.iter().enumerate().all(stays) {
            return None;
        }
        let mut factor = Self::zeros(entries.len(), old);
        for (row, entry) in factor.values.chunks_exact_mut(old).zip(entries) {
            match entry.source {
                Source::Unit(at) => row[at] = entry.factor,
                Source::Mean => row.fill(entry.factor / old as f64),
                Source::Zero | Source::Fill => (),
            }
        }
        Some(factor)
    }

    fn add(&mut self, other: &Matrix) {
        self.values.iter_mut().zip(&other.values).for_each(|(sum, part)| *sum += part);
    }
}

/// Numbers `[rows, columns]`; a vector has one column.
#[derive(Clone, Debug, PartialEq)]
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    fn of(tensor: &Tensor<f64>) -> Self {
        let (rows, columns) = (tensor.shape[0], tensor.shape.get(1).copied().unwrap_or(1));
        Self { rows, columns, values: tensor.data.clone() }
    }

    fn of_factor(factor: &Factor) -> Self {
        Self { rows: factor.rows, columns: factor.columns, values: factor.values.clone() }
    }

    fn add(&mut self, weight: f64, other: &Self) {
        if weight != 0.0 {
            self.values.iter_mut().zip(&other.values).for_each(|(sum, x)| *sum += weight * x);
        }
    }

    /// `self · other`.
    fn times(&self, other: &Self) -> Self {
        let mut product = Self::zeros(self.rows, other.columns);
        let rows = product.values.chunks_exact_mut(other.columns);
        for (row, factors) in rows.zip(self.values.chunks_exact(self.columns)) {
            add_rows(row, factors, other);
        }
        product
    }

    /// `selfᵀ · other`.
    fn transposed_times(&self, other: &Self) -> Self {
        self.transposed().times(other)
    }

    /// `self · otherᵀ`.
    fn times_transposed(&self, other: &Self) -> Self {
        self.times(&other.transposed())
    }

    fn transposed(&self) -> Self {
        let mut turned = Self::zeros(self.columns, self.rows);
        for row in 0..self.rows {
            for column in 0..self.columns {
                turned.values[column * self.rows + row] = self.values[row * self.columns + column];
            }
        }
        turned
    }
}

/// Adds to `row` the rows of `other`, each times a factor.
fn add_rows(row: &mut [f64], factors: &[f64], other: &Matrix) {
    for (&factor, line) in factors.iter().zip(other.values.chunks_exact(other.columns)) {
        // Maps that were not learnt have one number in a row.
        if factor != 0.0 {
            row.iter_mut().zip(line).for_each(|(sum, x)| *sum += factor * x);
        }
    }
}
