//! The products of a learnt operator, on the device that trains and in its kind of numbers.
//!
//! In: an operator, the small model's weights, the large one's buffers. Out: the large one's weights,
//! and gradient and move of every number of the operator. Never: a product on the host; a matrix of
//! more than one kind of parameter. The slow twin is [`Operator`], plain loops in double precision.
//!
//! ```text
//! E_j  = R W_j Cᵀ        two products, the one first after which fewer operations are left
//! W'_l = Σ_j w_lj E_j    all layers of a kind at once: [new, old] times [old, numbers of one]
//! ```
//!
//! E and the half of it that is computed first are kept for the gradient, which then needs them no
//! second time.

use heirloom_engine::{
    AdamW, Device, Init, Linear, LinearBackward, Param, Params, ParamsBuilder, Role, Space, View,
};
use heirloom_growth::{Operator, Part};

use crate::full::in_full;
use crate::grows::Student;

/// β₁ and β₂ of the optimiser that learns an operator.
const ADAM: [f64; 2] = [0.9, 0.999];
/// Its ε.
const EPSILON: f64 = 1e-8;

/// An operator on a device.
#[derive(Debug)]
pub(crate) struct DeviceOperator {
    /// Its numbers, factors first.
    numbers: Params,
    /// Gradient, first and second moment: twins of the numbers.
    grads: Space,
    moments: [Space; 2],
    /// The small model's weights, laid out as they are there.
    old: Space,
    /// E and its halves.
    kept: Space,
    /// What one part needs for a moment.
    room: Space,
    parts: Vec<Laid>,
}

/// A part of an operator where it lies. Vectors are matrices of one row; matrices that lie transposed
/// have their factors the other way round.
#[derive(Debug)]
struct Laid {
    /// Old parameters, `[old layers, r c]`.
    old: View,
    /// New ones, `[new layers, r' c']`.
    new: View,
    /// Their gradient, likewise.
    given: View,
    /// r and c.
    before: [usize; 2],
    /// r' and c'.
    after: [usize; 2],
    /// R `[r', r]` and its gradient.
    rows: Option<[View; 2]>,
    /// C `[c', c]` and its gradient.
    columns: Option<[View; 2]>,
    /// w `[new layers, old layers]` and its gradient.
    blend: Option<[View; 2]>,
    /// Where there are both, whether R W is computed first, and not W Cᵀ.
    rows_first: bool,
    /// What is computed first, one row for each old layer; empty where one product is all.
    half: View,
    /// E, `[old layers, r' c']`: kept, or what it is equal to: the old parameters where no factor is,
    /// the new ones where nothing is blended.
    whole: View,
    /// Room for Σ_l w_lj G_l, the same shape; the given gradient where nothing is blended.
    heard: View,
    /// Room for the gradient of a layer's half.
    inner: View,
    /// Room for one layer's part of R's gradient.
    slope: View,
}

/// Hands out runs of a space that is asked for later.
#[derive(Default)]
struct Layout {
    len: usize,
}

impl Layout {
    fn take(&mut self, space: Space, rows: usize, cols: usize) -> View {
        let view = View::matrix(space, self.len, rows, cols);
        self.len += view.len();
        view
    }
}

impl DeviceOperator {
    /// Lays `operator` out beside the large model, with the small one's weights.
    ///
    /// # Panics
    /// Where a parameter that it names is in neither model.
    pub(crate) fn new(operator: &Operator, small: &Student<'_>, large: &mut Student<'_>) -> Self {
        let device = &mut *large.device;
        let params = &small.learned.params;
        let old = device.alloc(params.len());
        let weights = small.device.read_f64(params.flat(params.weights()));
        device.write_f64(params.flat(old), &weights);
        let mut builder = ParamsBuilder::new(device);
        let matrices = || operator.factors.iter().chain(&operator.blends);
        let mut views = Vec::new();
        for (at, matrix) in matrices().enumerate() {
            let shape = [matrix.rows, matrix.columns];
            views.push(builder.add(&at.to_string(), &shape, Role::Weight, Init::Zeros));
        }
        let numbers = builder.finish(device);
        for (matrix, &view) in matrices().zip(&views) {
            device.write_f64(view, &matrix.values);
        }
        let [grads, first, second] = [(); 3].map(|()| device.alloc(numbers.len()));
        let [kept, room] = [(); 2].map(|()| device.alloc(0));
        let (mut keeping, mut most) = (Layout::default(), 0);
        let twins = |view: View| [view, Params::twin(view, grads)];
        let mut parts = Vec::new();
        for part in operator.parts() {
            let factors = part.factors.map(|at| at.map(|at| twins(views[at])));
            let blend = part.blend.map(|at| twins(views[operator.factors.len() + at]));
            let new = stacked(&large.learned.params, &part.to);
            let given = Params::twin(new, large.learned.grads);
            let old = Params::twin(stacked(params, &part.from), old);
            let (before, [rows, columns]) = lying(part, factors, &small.turned);
            let after = [grown(before[0], rows), grown(before[1], columns)];
            let (layers, len) = (old.rows(), after[0] * after[1]);
            assert_eq!((old.cols(), new.cols()), (before[0] * before[1], len), "{:?}", part.to);
            let both = rows.is_some() && columns.is_some();
            let [[r, c], [grown_r, grown_c]] = [before, after];
            // Of the two ways, products of the forward pass and of the gradient.
            let [by_rows, by_columns] =
                [grown_r * c * (2 * r + 3 * grown_c), r * grown_c * (2 * c + 3 * grown_r)];
            let rows_first = by_rows <= by_columns;
            let halved = match (both, rows_first) {
                (false, _) => 0,
                (true, true) => grown_r * c,
                (true, false) => r * grown_c,
            };
            let half = keeping.take(kept, layers, halved);
            let whole = match (rows.or(columns), blend) {
                (_, None) => new,
                (None, Some(_)) => old,
                (Some(_), Some(_)) => keeping.take(kept, layers, len),
            };
            let mut layout = Layout::default();
            let heard = if blend.is_some() { layout.take(room, layers, len) } else { given };
            let inner = layout.take(room, 1, halved);
            let slope = rows.map_or([0; 2], |[rows, _]| [rows.rows(), rows.cols()]);
            let slope = layout.take(room, slope[0], slope[1]);
            most = most.max(layout.len);
            parts.push(Laid {
                old,
                new,
                given,
                before,
                after,
                rows,
                columns,
                blend,
                rows_first,
                half,
                whole,
                heard,
                inner,
                slope,
            });
        }
        device.resize(kept, keeping.len);
        device.resize(room, most);
        Self { numbers, grads, moments: [first, second], old, kept, room, parts }
    }

    /// Computes the large model's weights.
    pub(crate) fn apply(&self, device: &mut dyn Device) {
        // Weights that were rounded once more would be the large model's for good.
        in_full(device, |device| self.parts.iter().for_each(|part| part.apply(device)));
    }

    /// Computes the gradient of every number, from that of the large model's weights and what
    /// [`DeviceOperator::apply`] kept; it was zero.
    pub(crate) fn gradient(&self, device: &mut dyn Device) {
        in_full(device, |device| self.parts.iter().for_each(|part| part.gradient(device)));
    }

    /// Moves every number by step `step` of Adam, from 1, and clears the gradient. A gradient that is
    /// not finite moves nothing.
    pub(crate) fn step(&self, device: &mut dyn Device, step: u64, learning_rate: f64) {
        let gradient = self.numbers.flat(self.grads);
        if !device.sum_of_squares(gradient).is_finite() {
            device.fill(gradient, 0.0);
            return;
        }
        let [first, second] = self.moments;
        device.adamw(&AdamW {
            spaces: [self.numbers.weights(), self.grads, first, second],
            spans: &self.numbers.spans(0.0),
            learning_rate,
            beta1: ADAM[0],
            beta2: ADAM[1],
            epsilon: EPSILON,
            step,
            gradient_scale: 1.0,
        });
    }

    /// Gives the device's memory back.
    pub(crate) fn free(self, device: &mut dyn Device) {
        let [first, second] = self.moments;
        let numbers = self.numbers.weights();
        for space in [numbers, self.grads, first, second, self.old, self.kept, self.room] {
            device.resize(space, 0);
        }
    }
}

impl Laid {
    /// Numbers of the old layers.
    fn layers(&self) -> std::ops::Range<usize> {
        0..self.old.rows()
    }

    /// Layer `at` of the old parameters.
    fn small(&self, at: usize) -> View {
        layer(self.old, at, self.before)
    }

    /// Layer `at` of what is computed first.
    fn half(&self, at: usize) -> View {
        layer(self.half, at, self.half_shape())
    }

    fn half_shape(&self) -> [usize; 2] {
        let [before, after] = [self.before, self.after];
        if self.rows_first { [after[0], before[1]] } else { [before[0], after[1]] }
    }

    fn apply(&self, device: &mut dyn Device) {
        for at in self.layers() {
            let small = self.small(at);
            let whole = layer(self.whole, at, self.after);
            match (self.rows, self.columns) {
                (None, None) if self.blend.is_none() => device.copy(small, whole),
                // What is blended are the old parameters themselves.
                (None, None) => (),
                (None, Some([columns, _])) => times_transposed(device, small, columns, whole),
                (Some([rows, _]), None) => times(device, rows, small, whole),
                (Some([rows, _]), Some([columns, _])) if self.rows_first => {
                    times(device, rows, small, self.half(at));
                    times_transposed(device, self.half(at), columns, whole);
                }
                (Some([rows, _]), Some([columns, _])) => {
                    times_transposed(device, small, columns, self.half(at));
                    times(device, rows, self.half(at), whole);
                }
            }
        }
        if let Some([blend, _]) = self.blend {
            times(device, blend, self.whole, self.new);
        }
    }

    /// See [`Operator::gradient`].
    fn gradient(&self, device: &mut dyn Device) {
        if let Some([blend, gradient]) = self.blend {
            times_transposed(device, self.given, self.whole, gradient);
            if self.rows.or(self.columns).is_none() {
                return;
            }
            device.fill(self.heard, 0.0);
            add_transposed_times(device, blend, self.given, self.heard);
        }
        for at in self.layers() {
            let (small, heard) = (self.small(at), layer(self.heard, at, self.after));
            match (self.rows, self.columns) {
                (None, None) => (),
                (None, Some([_, columns])) => add_transposed_times(device, heard, small, columns),
                (Some([_, rows]), None) => self.add_to_rows(device, heard, small, rows),
                (Some([_, rows]), Some([columns, gradient])) if self.rows_first => {
                    let (half, [r, c]) = (self.half(at), self.half_shape());
                    let inner = self.inner.reshaped(r, c);
                    times(device, heard, columns, inner);
                    add_transposed_times(device, heard, half, gradient);
                    self.add_to_rows(device, inner, small, rows);
                }
                (Some([rows, gradient]), Some([_, columns])) => {
                    let (half, [r, c]) = (self.half(at), self.half_shape());
                    let inner = self.inner.reshaped(r, c);
                    self.add_to_rows(device, heard, half, gradient);
                    device.fill(inner, 0.0);
                    add_transposed_times(device, rows, heard, inner);
                    add_transposed_times(device, inner, small, columns);
                }
            }
        }
    }

    /// `to ← to + a bᵀ`, a layer's part of R's gradient.
    fn add_to_rows(&self, device: &mut dyn Device, a: View, b: View, to: View) {
        times_transposed(device, a, b, self.slope);
        device.add_scaled(1.0, self.slope, to);
    }
}

/// Row `at` of a view of layers as a matrix.
fn layer(layers: View, at: usize, [rows, columns]: [usize; 2]) -> View {
    layers.row_range(at..at + 1).reshaped(rows, columns)
}

/// A dimension after its factor.
fn grown(before: usize, factor: Option<[View; 2]>) -> usize {
    factor.map_or(before, |[factor, _]| factor.rows())
}

/// Rows and columns of a part's old parameters as they lie on a device, and the factors of both.
fn lying<T>(
    part: &Part,
    [rows, columns]: [Option<T>; 2],
    turned: &std::collections::BTreeSet<String>,
) -> ([usize; 2], [Option<T>; 2]) {
    match part.shape[..] {
        [len] => ([1, len], [None, rows]),
        [r, c] if turned.contains(&part.from[0]) => ([c, r], [columns, rows]),
        [r, c] => ([r, c], [rows, columns]),
        _ => unreachable!("a parameter has one dimension or two"),
    }
}

/// One parameter of each layer, or one alone, `[layers, numbers]`. A model lays its layers out alike,
/// so they are rows at equal distances.
fn stacked(params: &Params, names: &[String]) -> View {
    let find = |name: &String| {
        params.find(name).unwrap_or_else(|| panic!("the model has no parameter `{name}`"))
    };
    let found: Vec<&Param> = names.iter().map(find).collect();
    let (first, len) = (found[0].offset, found[0].len());
    let distance = found.get(1).map_or(len, |second| second.offset - first);
    for (at, param) in found.iter().enumerate() {
        assert_eq!((param.offset, param.len()), (first + at * distance, len), "{}", param.name);
    }
    View::matrix(params.weights(), first, found.len(), distance).columns(0..len)
}

/// `to ← a b`.
fn times(device: &mut dyn Device, a: View, b: View, to: View) {
    device.linear_backward(&LinearBackward { dx: Some(to), ..product(to, b, a) });
}

/// `to ← to + aᵀ b`.
fn add_transposed_times(device: &mut dyn Device, a: View, b: View, to: View) {
    device.linear_backward(&LinearBackward { dw: Some(to), ..product(b, to, a) });
}

/// `to ← a bᵀ`.
fn times_transposed(device: &mut dyn Device, a: View, b: View, to: View) {
    device.linear(&Linear { x: a, w: b, b: None, y: to, activated: None });
}

/// A linear layer whose gradients are products of these.
fn product(x: View, w: View, dy: View) -> LinearBackward {
    LinearBackward { x, w, dy, dx: None, add_to_dx: false, through: None, dw: None, db: None }
}

#[cfg(test)]
mod tests;
