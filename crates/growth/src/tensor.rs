//! A plain tensor, and its entries taken to other places.

use std::collections::BTreeMap;

use crate::entries::{Entry, Source};

/// A kind of number that parameters are kept in. Growth computes in f64 and rounds once.
pub trait Number: Copy + Send + Sync {
    /// As f64, exactly.
    fn wide(self) -> f64;
    /// The nearest number of this kind.
    fn narrow(value: f64) -> Self;
}

impl Number for f32 {
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn narrow(value: f64) -> Self {
        value as f32
    }
}

impl Number for f64 {
    fn wide(self) -> f64 {
        self
    }
    fn narrow(value: f64) -> Self {
        value
    }
}

/// Numbers with a shape of one or two dimensions, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<T> {
    /// `[rows]` or `[rows, columns]`.
    pub shape: Vec<usize>,
    /// As many as the shape says.
    pub data: Vec<T>,
}

/// The parameters of a model by name.
pub type Tensors<T> = BTreeMap<String, Tensor<T>>;

impl<T: Number> Tensor<T> {
    /// A tensor.
    ///
    /// # Panics
    /// Where the shape does not fit the numbers.
    pub fn new(shape: &[usize], data: Vec<T>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "a tensor of shape {shape:?}");
        Self { shape: shape.to_vec(), data }
    }

    /// Of the same shape, all `value`.
    pub(crate) fn filled(&self, value: f64) -> Self {
        Self { shape: self.shape.clone(), data: vec![T::narrow(value); self.data.len()] }
    }

    /// Rows and columns; a vector has one column.
    pub(crate) fn sides(&self) -> (usize, usize) {
        (self.shape[0], self.shape.get(1).copied().unwrap_or(1))
    }

    pub(crate) fn mean(&self) -> f64 {
        self.data.iter().map(|value| value.wide()).sum::<f64>() / self.data.len().max(1) as f64
    }

    /// Root of the mean square.
    pub(crate) fn rms(&self) -> f64 {
        let squares: f64 = self.data.iter().map(|value| value.wide() * value.wide()).sum();
        (squares / self.data.len().max(1) as f64).sqrt()
    }

    /// Takes the mean over dimension `dim` off, so that sums over it are zero.
    pub(crate) fn centred(&self, dim: usize) -> Self {
        let (rows, columns) = self.sides();
        let mut data = self.data.clone();
        let (lines, step, len, stride) =
            if dim == 0 { (columns, 1, rows, columns) } else { (rows, columns, columns, 1) };
        for line in 0..lines {
            let at = |place: usize| line * step + place * stride;
            let mean = (0..len).map(|place| data[at(place)].wide()).sum::<f64>() / len as f64;
            for place in 0..len {
                data[at(place)] = T::narrow(data[at(place)].wide() - mean);
            }
        }
        Self { shape: self.shape.clone(), data }
    }

    /// The tensor whose entry (i, j) is what `rows[i]` and `columns[j]` say, times `scale` of
    /// both; `fill(at)` gives the entries that come from nowhere. A vector has no columns.
    pub(crate) fn expand(
        &self,
        rows: &[Entry],
        columns: Option<&[Entry]>,
        scale: impl Fn(&Entry) -> f64,
        fill: impl Fn(usize) -> f64,
    ) -> Self {
        let only = [Entry::unit(0)];
        let width = columns.map_or(1, <[Entry]>::len);
        let across = columns.unwrap_or(&only);
        let means = Means::of(self, rows, across);
        let row_scale: Vec<f64> = rows.iter().map(&scale).collect();
        let across_scale: Vec<f64> = across.iter().map(&scale).collect();
        let mut data = Vec::with_capacity(rows.len() * width);
        for (i, row) in rows.iter().enumerate() {
            for (j, column) in across.iter().enumerate() {
                let value = match (row.source, column.source) {
                    (Source::Zero, _) | (_, Source::Zero) => 0.0,
                    (Source::Fill, _) | (_, Source::Fill) => fill(i * width + j),
                    (from, to) => means.at(self, from, to) * row_scale[i] * across_scale[j],
                };
                data.push(T::narrow(value));
            }
        }
        let shape = if columns.is_some() { vec![rows.len(), width] } else { vec![rows.len()] };
        Self { shape, data }
    }
}

/// Means over rows and columns, where some entry asks for them.
struct Means {
    of_rows: Vec<f64>,
    of_columns: Vec<f64>,
}

impl Means {
    fn of<T: Number>(tensor: &Tensor<T>, rows: &[Entry], columns: &[Entry]) -> Self {
        let asked = |entries: &[Entry]| entries.iter().any(|entry| entry.source == Source::Mean);
        let mut means = Self { of_rows: Vec::new(), of_columns: Vec::new() };
        if !asked(rows) && !asked(columns) {
            return means;
        }
        let (height, width) = tensor.sides();
        means.of_rows = vec![0.0; width];
        for line in tensor.data.chunks_exact(width) {
            let sum: f64 = line.iter().map(|value| value.wide()).sum();
            means.of_columns.push(sum / width as f64);
            for (mean, value) in means.of_rows.iter_mut().zip(line) {
                *mean += value.wide() / height as f64;
            }
        }
        means
    }

    fn at<T: Number>(&self, tensor: &Tensor<T>, row: Source, column: Source) -> f64 {
        match (row, column) {
            (Source::Unit(i), Source::Unit(j)) => tensor.data[i * tensor.sides().1 + j].wide(),
            (Source::Mean, Source::Unit(j)) => self.of_rows[j],
            (Source::Unit(i), _) => self.of_columns[i],
            _ => self.of_rows.iter().sum::<f64>() / self.of_rows.len() as f64,
        }
    }
}
