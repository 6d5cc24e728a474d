//! The weights of a model folder, in one file or in many.
//!
//! In: a folder as the Hugging Face Hub lays it out, or a file.
//! Out: every array by name, wherever it lies.
//! Never: opens a pickle, or a file outside the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufReader;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::{Dtype, Number, TensorFile, is_pickle_name, missing, open_regular, pickle, read_error};
use crate::error::{Result, StoreError};

/// The weights of a model, in one file or in many.
#[derive(Debug)]
pub struct TensorFolder {
    /// What the user pointed at, for messages.
    path: PathBuf,
    files: Vec<TensorFile>,
    /// For every array the file that holds it.
    places: BTreeMap<String, usize>,
}

/// The index of a sharded model.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl TensorFolder {
    /// Opens a folder with `model.safetensors` or `model.safetensors.index.json`, or a file.
    pub fn open(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).map_err(|source| read_error(path, source))?;
        if !found.is_dir() {
            return Self::single(path, path);
        }
        let (single, index) = (path.join(SINGLE), path.join(INDEX));
        if single.exists() {
            Self::single(path, &single)
        } else if index.exists() {
            Self::sharded(path, &index)
        } else {
            Err(no_weights(path))
        }
    }

    fn single(path: &Path, file: &Path) -> Result<Self> {
        let file = TensorFile::open(file)?;
        let places = file.names().map(|name| (name.to_owned(), 0)).collect();
        Ok(Self { path: path.to_owned(), files: vec![file], places })
    }

    fn sharded(path: &Path, index: &Path) -> Result<Self> {
        let (file, _) = open_regular(index)?;
        let Index { weight_map } = serde_json::from_reader(BufReader::new(file))
            .map_err(|why| StoreError::IndexUnreadable { file: index.to_owned(), why })?;
        let shards: BTreeSet<&String> = weight_map.values().collect();
        if let Some(shard) = shards.iter().find(|shard| !is_plain(shard)) {
            let (file, shard) = (index.to_owned(), shard.to_string());
            return Err(StoreError::IndexEscapes { file, shard });
        }
        let absent: Vec<String> =
            shards.iter().filter(|shard| !path.join(shard).exists()).map(|&s| s.clone()).collect();
        if !absent.is_empty() {
            return Err(StoreError::ShardsMissing { file: index.to_owned(), shards: absent });
        }
        let files: Vec<TensorFile> = shards
            .iter()
            .map(|shard| TensorFile::open(&path.join(shard)))
            .collect::<Result<_>>()?;
        let numbers: BTreeMap<&String, usize> = shards.iter().copied().zip(0..).collect();
        let lacking: Vec<String> = weight_map
            .iter()
            .filter(|(name, shard)| !files[numbers[shard]].has(name))
            .map(|(name, shard)| format!("{name} ({shard})"))
            .collect();
        if !lacking.is_empty() {
            return Err(StoreError::ShardsLack { file: index.to_owned(), names: lacking });
        }
        let places =
            weight_map.iter().map(|(name, shard)| (name.clone(), numbers[shard])).collect();
        Ok(Self { path: path.to_owned(), files, places })
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the arrays, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The text that the first file carries beside its arrays.
    pub fn metadata(&self) -> Option<&BTreeMap<String, String>> {
        self.files.first().map(TensorFile::metadata)
    }

    /// True where an array has the name.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The shape of an array.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.file(name)?.shape(name)
    }

    /// The kind of number an array holds.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        self.file(name)?.dtype(name)
    }

    /// An array of any floating kind, as single precision.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.file(name)?.read_f32(name)
    }

    /// Like [`TensorFolder::read_f32`], into room the caller has.
    pub fn read_into_f32(&self, name: &str, out: &mut [f32]) -> Result<()> {
        self.file(name)?.read_into_f32(name, out)
    }

    /// An array as it lies in its file, of exactly this kind.
    pub fn read<T: Number>(&self, name: &str) -> Result<Vec<T>> {
        self.file(name)?.read(name)
    }

    fn file(&self, name: &str) -> Result<&TensorFile> {
        match self.places.get(name) {
            Some(place) => Ok(&self.files[*place]),
            None => Err(missing(&self.path, name, self.names())),
        }
    }
}

/// A pickle where there is one, since that is what the user has to deal with.
fn no_weights(folder: &Path) -> StoreError {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) => return read_error(folder, source),
    };
    let pickles: BTreeSet<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| is_pickle_name(&crate::disk::name(path)))
        .collect();
    // Other tools leave their own `.bin` files beside the weights.
    let weights = pickles.iter().find(|path| crate::disk::name(path).contains("model"));
    match weights.or(pickles.first()) {
        Some(file) => pickle(file),
        None => StoreError::NoWeights { folder: folder.to_owned() },
    }
}

fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}
