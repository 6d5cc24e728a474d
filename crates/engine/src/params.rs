//! All parameters of a model in one flat buffer, with an index of name, shape and role.
//!
//! Optimiser, clipping, averaging, checkpoints and perturbations are then single passes over
//! memory, and a parameter is a [`View`] like any other.

use heirloom_base::{Purpose, Words};

use crate::{Device, Space, Span, View};

/// Blocks start at multiples of this many numbers (one cache line of `f32`).
const LINE: usize = 16;

/// What a parameter is, which decides weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A matrix of a linear layer; decays.
    Weight,
    /// A table looked up by index; decays.
    Embedding,
    /// A bias; does not decay.
    Bias,
    /// Scale or shift of a normalisation; does not decay.
    Norm,
    /// Carried along for checkpoints only: the loss does not reach it and no optimiser moves it.
    Carried,
}

impl Role {
    /// Whether AdamW's weight decay applies, as in the customary recipes: to matrices, not to
    /// biases and norms.
    pub fn decays(self) -> bool {
        matches!(self, Self::Weight | Self::Embedding)
    }
}

/// How a fresh parameter is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
}

/// One named tensor inside the flat buffer.
#[derive(Clone, Debug)]
pub struct Param {
    /// Name in public checkpoints.
    pub name: String,
    /// Shape in public checkpoints.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
    /// How a fresh one is filled.
    pub init: Init,
    /// Where it lies in the flat buffer.
    pub offset: usize,
}

impl Param {
    /// How many numbers.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Lays parameters out; every view it gives looks into the weights' space.
#[derive(Debug)]
pub struct ParamsBuilder {
    weights: Space,
    index: Vec<Param>,
    next: usize,
}

impl ParamsBuilder {
    /// Begins a flat buffer on `device`.
    pub fn new(device: &mut dyn Device) -> Self {
        Self { weights: device.alloc(0), index: Vec::new(), next: 0 }
    }

    /// One parameter `[rows, cols]` (a vector has one row).
    pub fn add(&mut self, name: &str, shape: &[usize], role: Role, init: Init) -> View {
        self.block(&[(name, shape)], role, init)
    }

    /// Several tensors with the same number of columns, stacked without a gap: one matrix for the
    /// products, several names for the checkpoints (query, key and value, say).
    pub fn block(&mut self, parts: &[(&str, &[usize])], role: Role, init: Init) -> View {
        let offset = self.next;
        for &(name, shape) in parts {
            let param = Param {
                name: name.to_owned(),
                shape: shape.to_vec(),
                role,
                init,
                offset: self.next,
            };
            self.next += param.len();
            self.index.push(param);
        }
        let cols: usize = match parts {
            [(_, [_])] => parts[0].1[0],
            [(_, [_]), ..] => self.next - offset,
            [(_, shape), ..] => shape[1..].iter().product(),
            [] => unreachable!("a block has at least one part"),
        };
        let rows = (self.next - offset) / cols.max(1);
        let view = View::matrix(self.weights, offset, rows, cols);
        self.next = self.next.next_multiple_of(LINE);
        view
    }

    /// Parameters laid out so far.
    pub fn count(&self) -> usize {
        self.index.len()
    }

    /// Asks the device for the weights, zeroed.
    pub fn finish(self, device: &mut dyn Device) -> Params {
        device.resize(self.weights, self.next);
        Params { weights: self.weights, len: self.next, index: self.index }
    }
}

/// The flat buffer of a model and its index.
#[derive(Clone, Debug)]
pub struct Params {
    weights: Space,
    len: usize,
    index: Vec<Param>,
}

impl Params {
    /// The space that holds the weights.
    pub fn weights(&self) -> Space {
        self.weights
    }

    /// Numbers in the flat buffer, padding between blocks included. A space for gradients or for
    /// a moment has this length.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Parameters without padding: the number a model card states.
    pub fn count(&self) -> usize {
        self.index.iter().map(Param::len).sum()
    }

    /// The index, in the order of the buffer.
    pub fn index(&self) -> &[Param] {
        &self.index
    }

    /// The parameter called `name`.
    pub fn find(&self, name: &str) -> Option<&Param> {
        self.index.iter().find(|param| param.name == name)
    }

    /// The numbers of `param` in `space`: the weights', or a twin of it (gradients, moments).
    pub fn view(&self, param: &Param, space: Space) -> View {
        View::matrix(space, param.offset, 1, param.len())
    }

    /// The whole buffer of `space`, a twin of the weights, as one row.
    pub fn flat(&self, space: Space) -> View {
        View::matrix(space, 0, 1, self.len)
    }

    /// The twin of a view of the weights in another space of the same layout.
    pub fn twin(view: View, space: Space) -> View {
        View { space, ..view }
    }

    /// Runs of the buffer that an optimiser moves, each with one weight decay.
    pub fn spans(&self, weight_decay: f64) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for param in self.index.iter().filter(|param| param.role != Role::Carried) {
            let decay = if param.role.decays() { weight_decay } else { 0.0 };
            let end = param.offset + param.len();
            match spans.last_mut() {
                Some(span)
                    if span.weight_decay == decay && Self::adjoin(span.end, param.offset) =>
                {
                    span.end = end;
                }
                _ => spans.push(Span::new(param.offset, end, decay)),
            }
        }
        spans
    }

    /// Whether nothing but padding lies between a parameter that ends at `end` and one that starts at
    /// `start`.
    pub fn adjoin(end: usize, start: usize) -> bool {
        end.next_multiple_of(LINE) >= start
    }

    /// Fills every parameter as its [`Init`] says, from the words at (`seed`, its place in the
    /// index). The same seed gives the same weights on every machine and device.
    pub fn init(&self, device: &mut dyn Device, seed: u64) {
        for place in 0..self.index.len() {
            self.init_one(device, seed, place);
        }
    }

    /// Fills the parameter at `place` of the index; see [`Params::init`].
    pub fn init_one(&self, device: &mut dyn Device, seed: u64, place: usize) {
        let param = &self.index[place];
        let view = self.view(param, self.weights);
        match param.init {
            Init::Zeros => device.fill(view, 0.0),
            Init::Ones => device.fill(view, 1.0),
            Init::Normal(std) => {
                let words = Words::at(seed, Purpose::Init, 0, place as u32);
                device.write(view, &normals(words, param.len(), std));
            }
        }
    }
}

/// Normal numbers by Box and Muller's transform, two from each block of four words.
fn normals(words: Words, len: usize, std: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(len + 1);
    for block in 0..len.div_ceil(2) as u32 {
        let [a, b, c, d] = words.block(0, block);
        let unit = |high: u32, low: u32| {
            ((u64::from(high) << 21 | u64::from(low) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let radius = std * (-2.0 * libm::log(unit(a, b))).sqrt();
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * unit(c, d));
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(len);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reference;

    #[test]
    fn a_block_is_one_matrix_and_several_names() {
        let mut device = Reference::<f64>::new();
        let mut builder = ParamsBuilder::new(&mut device);
        builder.add("first", &[3], Role::Bias, Init::Ones);
        let fused = builder.block(&[("q", &[2, 4]), ("k", &[3, 4])], Role::Weight, Init::Zeros);
        let params = builder.finish(&mut device);
        assert_eq!((fused.rows(), fused.cols(), fused.offset()), (5, 4, 16));
        assert_eq!(params.find("k").map(|k| k.offset), Some(24));
        assert_eq!((params.count(), params.len()), (23, 48));
        let spans = params.spans(0.1);
        let want = [Span::new(0, 3, 0.0), Span::new(16, 36, 0.1)];
        assert_eq!(spans, want);
    }

    #[test]
    fn fresh_weights_have_the_asked_spread() {
        let values = normals(Words::at(1, Purpose::Init, 0, 0), 100_000, 0.02);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 1e5;
        // Standard errors: 0.02/√1e5 ≈ 6e-5 and 0.02/√2e5 ≈ 4.5e-5; bounds at four of them.
        assert!(mean.abs() < 2.6e-4, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 1.8e-4, "{variance}");
    }
}
