//! Named arrays in safetensors files: limits are checked before memory, nothing in them can run.
//!
//! In: a path.
//! Out: names, shapes, kinds and numbers; or what is wrong with which file.
//! Never: takes more memory than the file is long (twice that where half precision is widened),
//! runs what it finds, or guesses.
//!
//! Arrays are read by position, straight into the caller's buffer, rather than mapped: a file that
//! shrinks while it is read gives an error instead of a signal.

mod folder;
mod header;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;

use crate::disk::{DiskError, Doing, name as file_name};
use crate::error::{Result, StoreError};
use crate::nearest::nearest;

pub use folder::TensorFolder;
pub use header::Malformed;
use header::{Header, Info};
pub use write::{Array, Values, write_f32_tensors, write_tensors};

// The format is little-endian, and arrays are read as they lie.
const _: () = assert!(cfg!(target_endian = "little"), "heirloom needs a little-endian machine");

/// The kind of number an array holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dtype {
    /// One byte, zero or one.
    Bool,
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Single precision.
    F32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// Double precision.
    F64,
}

impl Dtype {
    /// Every kind with its name in a file.
    const NAMES: [(Self, &'static str); 13] = [
        (Self::Bool, "BOOL"),
        (Self::U8, "U8"),
        (Self::I8, "I8"),
        (Self::U16, "U16"),
        (Self::I16, "I16"),
        (Self::F16, "F16"),
        (Self::BF16, "BF16"),
        (Self::U32, "U32"),
        (Self::I32, "I32"),
        (Self::F32, "F32"),
        (Self::U64, "U64"),
        (Self::I64, "I64"),
        (Self::F64, "F64"),
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    fn named(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, name)| *name == text).map(|(dtype, _)| *dtype)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::NAMES.iter().find(|(dtype, _)| dtype == self);
        f.write_str(found.expect("every kind is in the table").1)
    }
}

/// A number that an array can hold as it is.
pub trait Number: Pod {
    /// Its kind.
    const DTYPE: Dtype;
}

impl Number for u8 {
    const DTYPE: Dtype = Dtype::U8;
}
impl Number for u32 {
    const DTYPE: Dtype = Dtype::U32;
}
impl Number for u64 {
    const DTYPE: Dtype = Dtype::U64;
}
impl Number for i64 {
    const DTYPE: Dtype = Dtype::I64;
}
impl Number for f32 {
    const DTYPE: Dtype = Dtype::F32;
}
impl Number for f64 {
    const DTYPE: Dtype = Dtype::F64;
}

/// A safetensors file whose header is checked and whose numbers are still on the disk.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    header: Header,
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    pub fn open(path: &Path) -> Result<Self> {
        let read = |source| read_error(path, source);
        if is_pickle_name(&file_name(path)) {
            return Err(pickle(path));
        }
        let (file, len) = open_regular(path)?;
        if has_pickle_magic(&file, len).map_err(read)? {
            return Err(pickle(path));
        }
        match header::read(&file, len).map_err(read)? {
            Ok(header) => Ok(Self { path: path.to_owned(), file, header }),
            Err(cause) => Err(StoreError::Tensors { file: path.to_owned(), cause }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the arrays, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// The text that the file carries beside its arrays.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// True where an array has the name.
    pub fn has(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// The shape of an array.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.info(name)?.shape)
    }

    /// The kind of number an array holds.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        Ok(self.info(name)?.dtype)
    }

    /// An array of any floating kind, as single precision.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.info(name)?.len()];
        self.read_into_f32(name, &mut values)?;
        Ok(values)
    }

    /// Like [`TensorFile::read_f32`], into room the caller has.
    pub fn read_into_f32(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let info = self.info(name)?;
        if info.len() != out.len() {
            let (file, name) = (self.path.clone(), name.to_owned());
            return Err(StoreError::WrongLen {
                file,
                name,
                shape: info.shape.clone(),
                want: out.len(),
            });
        }
        match info.dtype {
            Dtype::F32 => self.read_at(info.begin, out),
            Dtype::F16 => self.widen(info, out, |half: &[half::f16], out| {
                half.convert_to_f32_slice(out);
            }),
            Dtype::BF16 => self.widen(info, out, |half: &[half::bf16], out| {
                half.convert_to_f32_slice(out);
            }),
            Dtype::F64 => self.widen(info, out, |double: &[f64], out| {
                out.iter_mut().zip(double).for_each(|(out, double)| *out = *double as f32);
            }),
            _ => Err(self.wrong_dtype(name, info, Dtype::F32)),
        }
    }

    /// An array as it lies in the file, of exactly this kind.
    pub fn read<T: Number>(&self, name: &str) -> Result<Vec<T>> {
        let info = self.info(name)?;
        if info.dtype != T::DTYPE {
            return Err(self.wrong_dtype(name, info, T::DTYPE));
        }
        let mut values = vec![T::zeroed(); info.len()];
        self.read_at(info.begin, &mut values)?;
        Ok(values)
    }

    /// Reads numbers of another kind in pieces that stay in the cache.
    fn widen<T: Pod>(
        &self,
        info: &Info,
        out: &mut [f32],
        convert: impl Fn(&[T], &mut [f32]),
    ) -> Result<()> {
        let mut piece = vec![T::zeroed(); WIDENED.min(out.len())];
        let mut at = info.begin;
        for out in out.chunks_mut(WIDENED) {
            let piece = &mut piece[..out.len()];
            self.read_at(at, piece)?;
            convert(piece, out);
            at += size_of_val(piece) as u64;
        }
        Ok(())
    }

    fn read_at<T: Pod>(&self, begin: u64, out: &mut [T]) -> Result<()> {
        let read = self.file.read_exact_at(bytemuck::cast_slice_mut(out), begin);
        read.map_err(|source| read_error(&self.path, source))
    }

    fn info(&self, name: &str) -> Result<&Info> {
        self.header.tensors.get(name).ok_or_else(|| missing(&self.path, name, self.names()))
    }

    fn wrong_dtype(&self, name: &str, info: &Info, want: Dtype) -> StoreError {
        let (file, name) = (self.path.clone(), name.to_owned());
        StoreError::WrongDtype { file, name, have: info.dtype, want }
    }
}

/// Numbers widened at a time: 16 thousand, so that both kinds fit in a core's own cache.
const WIDENED: usize = 16 << 10;

fn missing<'a>(file: &Path, name: &str, names: impl Iterator<Item = &'a str>) -> StoreError {
    let nearest = nearest(name, names).map(str::to_owned);
    StoreError::MissingTensor { file: file.to_owned(), name: name.to_owned(), nearest }
}

fn read_error(path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::NotFound {
        return StoreError::NotThere { path };
    }
    DiskError { doing: Doing::Read, path, source }.into()
}

/// Opens a file and gives its length; a pipe, which could keep us waiting, is not opened.
fn open_regular(path: &Path) -> Result<(File, u64)> {
    let read = |source| read_error(path, source);
    if !fs::metadata(path).map_err(read)?.is_file() {
        return Err(StoreError::Tensors { file: path.to_owned(), cause: Malformed::NotAFile });
    }
    let file = File::open(path).map_err(read)?;
    let len = file.metadata().map_err(read)?.len();
    Ok((file, len))
}

fn pickle(path: &Path) -> StoreError {
    StoreError::Pickle { file: path.to_owned(), name: file_name(path) }
}

fn is_pickle_name(name: &str) -> bool {
    [".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end))
}

/// True for the beginning of a zip archive (how PyTorch saves today) or of a pickle.
///
/// The same bytes could begin a header of that length, which has `{` in ninth place.
fn has_pickle_magic(file: &File, len: u64) -> io::Result<bool> {
    let mut start = [0; 9];
    if len < start.len() as u64 {
        return Ok(false);
    }
    file.read_exact_at(&mut start, 0)?;
    let magic = start.starts_with(b"PK\x03\x04") || matches!(start, [0x80, 2..=5, ..]);
    Ok(magic && start[8] != b'{')
}
