//! Writes named arrays as a safetensors file, piece by piece.
//!
//! In: arrays with names and shapes, and text to carry along.
//! Out: a file that every reader of the format takes; equal arrays give equal bytes.
//! Never: holds the file in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use half::{bf16, f16};
use heirloom_base::Bytes;
use serde_json::{Map, Value, json};

use super::Dtype;
use crate::commit::DraftFile;
use crate::error::Result;

/// An array to be written.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its numbers, row-major.
    pub values: Values<'a>,
}

/// Numbers of one kind.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Bytes.
    U8(&'a [u8]),
    /// Half precision.
    F16(&'a [f16]),
    /// The upper half of single precision.
    BF16(&'a [bf16]),
    /// Unsigned, 32 bits.
    U32(&'a [u32]),
    /// Single precision.
    F32(&'a [f32]),
    /// Unsigned, 64 bits.
    U64(&'a [u64]),
    /// Signed, 64 bits.
    I64(&'a [i64]),
    /// Double precision.
    F64(&'a [f64]),
}

impl<'a> Array<'a> {
    /// An array of single-precision numbers.
    pub fn f32(name: &'a str, shape: &'a [usize], values: &'a [f32]) -> Self {
        Self { name, shape, values: Values::F32(values) }
    }

    /// How many bytes its numbers take.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.values.bytes().len() as u64)
    }
}

impl<'a> Values<'a> {
    fn dtype(self) -> Dtype {
        match self {
            Self::U8(_) => Dtype::U8,
            Self::F16(_) => Dtype::F16,
            Self::BF16(_) => Dtype::BF16,
            Self::U32(_) => Dtype::U32,
            Self::F32(_) => Dtype::F32,
            Self::U64(_) => Dtype::U64,
            Self::I64(_) => Dtype::I64,
            Self::F64(_) => Dtype::F64,
        }
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Self::U8(values) => values,
            Self::F16(values) => bytemuck::cast_slice(values),
            Self::BF16(values) => bytemuck::cast_slice(values),
            Self::U32(values) => bytemuck::cast_slice(values),
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::U64(values) => bytemuck::cast_slice(values),
            Self::I64(values) => bytemuck::cast_slice(values),
            Self::F64(values) => bytemuck::cast_slice(values),
        }
    }
}

/// Writes the arrays, widest kind first and then by name, which keeps each of them aligned.
///
/// # Panics
/// Where a shape does not fit its numbers, or a name is given twice.
pub fn write_tensors(
    file: &mut DraftFile<'_>,
    arrays: &[Array<'_>],
    metadata: &[(&str, &str)],
) -> Result<()> {
    let mut arrays: Vec<&Array<'_>> = arrays.iter().collect();
    arrays.sort_by_key(|array| (std::cmp::Reverse(array.values.dtype().size()), array.name));
    let entries = arrays.iter().map(|array| Entry {
        name: array.name,
        dtype: array.values.dtype(),
        shape: array.shape,
        bytes: array.values.bytes().len(),
    });
    file.write(&header(entries, metadata))?;
    arrays.iter().try_for_each(|array| file.write(array.values.bytes()))
}

/// Numbers that are asked for at a time: 4 MiB.
const PIECE: usize = 1 << 20;

/// Writes single-precision arrays, each a name and a shape, whose numbers are asked for a few at a
/// time: `numbers` gives those of a range of the array at a place. The file is the one that
/// [`write_tensors`] makes of the same arrays.
///
/// # Panics
/// Where a name is given twice, or `numbers` gives another number of numbers.
pub fn write_f32_tensors(
    file: &mut DraftFile<'_>,
    arrays: &[(&str, &[usize])],
    metadata: &[(&str, &str)],
    numbers: impl Fn(usize, Range<usize>) -> Vec<f32>,
) -> Result<()> {
    let mut places: Vec<usize> = (0..arrays.len()).collect();
    places.sort_by_key(|&place| arrays[place].0);
    let len = |place: usize| arrays[place].1.iter().product::<usize>();
    let entries = places.iter().map(|&place| {
        let (name, shape) = arrays[place];
        Entry { name, dtype: Dtype::F32, shape, bytes: len(place) * size_of::<f32>() }
    });
    file.write(&header(entries, metadata))?;
    for &place in &places {
        for start in (0..len(place)).step_by(PIECE) {
            let range = start..len(place).min(start + PIECE);
            let piece = numbers(place, range.clone());
            assert_eq!(piece.len(), range.len(), "numbers of `{}`", arrays[place].0);
            file.write(bytemuck::cast_slice(&piece))?;
        }
    }
    Ok(())
}

/// An array as the header names it.
struct Entry<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: &'a [usize],
    bytes: usize,
}

/// The header with its length before it, padded so that the arrays begin at a multiple of eight.
fn header<'a>(arrays: impl Iterator<Item = Entry<'a>>, metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        // Sorted, so that equal text gives equal bytes.
        let metadata: BTreeMap<&str, &str> = metadata.iter().copied().collect();
        entries.insert("__metadata__".into(), json!(metadata));
    }
    let (mut names, mut end) = (BTreeSet::new(), 0);
    for Entry { name, dtype, shape, bytes } in arrays {
        let begin = end;
        let elements: usize = shape.iter().product();
        assert_eq!(elements * dtype.size(), bytes, "`{name}` has shape {shape:?}");
        assert!(name != "__metadata__" && names.insert(name), "`{name}` is given twice");
        end += bytes;
        let entry = json!({
            "dtype": dtype.to_string(),
            "shape": shape,
            "data_offsets": [begin, end],
        });
        entries.insert(name.to_owned(), entry);
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}
