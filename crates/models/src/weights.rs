//! Parameters from a model folder and back.
//!
//! In: a folder with `model.safetensors`, whole or in shards. Out: a filled flat buffer, and a
//! report of what was fresh or unused. Never: half a model; names and shapes are compared before
//! the first number is read.

use std::fmt;
use std::path::PathBuf;

use heirloom_engine::{Device, Param, Params, Role};
use heirloom_store::{TensorFolder, nearest};
use serde_json::{Map, Value, json};

use crate::names::{is_redundant, spellings};
use crate::{Error, Model};

/// What a load left as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Parameters of the head that the folder does not hold; they were drawn from the seed.
    pub fresh: Vec<String>,
    /// Tensors of the folder that the model has no place for.
    pub unused: Vec<String>,
}

/// Names and shapes that do not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// The folder.
    pub folder: PathBuf,
    /// Parameters that the folder does not hold, each with the nearest name that it does.
    pub missing: Vec<(String, Option<String>)>,
    /// Tensors whose shape is not the parameter's: name, shape in the file, shape expected.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors that nothing asked for.
    pub extra: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Longer lists say how many more there are.
        const SHOWN: usize = 8;
        write!(
            f,
            "the weights in `{}` are not this model's: missing {}, misshapen {}, extra {}",
            self.folder.display(),
            self.missing.len(),
            self.misshapen.len(),
            self.extra.len(),
        )?;
        for (name, nearest) in self.missing.iter().take(SHOWN) {
            write!(f, "\n  missing `{name}`")?;
            if let Some(nearest) = nearest {
                write!(f, "; the nearest name is `{nearest}`")?;
            }
        }
        for (name, found, expected) in self.misshapen.iter().take(SHOWN) {
            write!(
                f,
                "\n  misshapen `{name}`: {found:?} in the file, {expected:?} by config.json"
            )?;
        }
        for name in self.extra.iter().take(SHOWN) {
            write!(f, "\n  extra `{name}`")?;
        }
        write!(f, "\ncheck that config.json and model.safetensors belong together")
    }
}

/// Where each parameter of a model is found in a folder.
struct Sources {
    /// Index place and name in the folder.
    found: Vec<(usize, String)>,
    /// Index places of head parameters that the folder lacks.
    fresh: Vec<usize>,
    unused: Vec<String>,
}

/// How the parameters of a family lie in files.
pub(crate) trait Layout {
    /// Names under which a parameter may lie, the customary one first.
    fn spellings(&self, name: &str) -> Vec<String>;
    /// Whether the parameter at `place` of the index may be drawn afresh.
    fn may_be_fresh(&self, place: usize, param: &Param) -> bool;
    /// Whether a tensor may be left unread without a word.
    fn is_redundant(&self, name: &str) -> bool;
    /// Whether files hold the transposed matrix.
    fn is_transposed(&self, _name: &str) -> bool {
        false
    }
    /// The parameter's shape in files.
    fn shape(&self, param: &Param) -> Vec<usize> {
        let mut shape = param.shape.clone();
        if self.is_transposed(&param.name) {
            shape.reverse();
        }
        shape
    }
}

/// Encoders lie as they are.
impl Layout for Model {
    fn spellings(&self, name: &str) -> Vec<String> {
        spellings(self.config().model_type, name)
    }
    fn may_be_fresh(&self, place: usize, param: &Param) -> bool {
        place >= self.encoder_params() || param.role == Role::Carried
    }
    fn is_redundant(&self, name: &str) -> bool {
        is_redundant(name)
    }
}

/// Fills `params` from `folder`; see [`Model::load`].
pub(crate) fn load(
    device: &mut dyn Device,
    params: &Params,
    layout: &dyn Layout,
    folder: &TensorFolder,
    source: &dyn Fn(&str) -> String,
    fresh_seed: Option<u64>,
) -> Result<Loaded, Error> {
    let sources = find_sources(params, layout, folder, source, fresh_seed.is_some())?;
    for (place, name) in &sources.found {
        let param = &params.index()[*place];
        let mut values = folder.read_f32(name)?;
        if layout.is_transposed(&param.name) {
            values = transposed(&values, param.shape[0]);
        }
        device.write(params.view(param, params.weights()), &values);
    }
    for &place in &sources.fresh {
        params.init_one(device, fresh_seed.unwrap_or_default(), place);
    }
    let fresh = sources.fresh.iter().map(|&at| params.index()[at].name.clone()).collect();
    Ok(Loaded { fresh, unused: sources.unused })
}

/// A row-major matrix of `cols` columns, transposed.
pub fn transposed(values: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|col| values[col..].iter().step_by(cols)).copied().collect()
}

fn find_sources(
    params: &Params,
    layout: &dyn Layout,
    folder: &TensorFolder,
    source: &dyn Fn(&str) -> String,
    some_may_be_fresh: bool,
) -> Result<Sources, Error> {
    let names: Vec<&str> = folder.names().collect();
    let mut unused: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    let mut mismatch = Mismatch { folder: folder.path().to_owned(), ..Mismatch::default() };
    let (mut found, mut fresh) = (Vec::new(), Vec::new());
    for (place, param) in params.index().iter().enumerate() {
        let wanted = source(&param.name);
        let spellings = layout.spellings(&wanted);
        let Some(name) = spellings.iter().find(|name| folder.has(name)) else {
            if some_may_be_fresh && layout.may_be_fresh(place, param) {
                fresh.push(place);
            } else {
                let nearest = nearest(&wanted, names.iter().copied()).map(str::to_owned);
                mismatch.missing.push((wanted, nearest));
            }
            continue;
        };
        unused.remove(name.as_str());
        let (shape, expected) = (folder.shape(name)?, layout.shape(param));
        if shape == expected {
            found.push((place, name.clone()));
        } else {
            mismatch.misshapen.push((name.clone(), shape.to_vec(), expected));
        }
    }
    let unused: Vec<String> =
        unused.into_iter().filter(|name| !layout.is_redundant(name)).map(str::to_owned).collect();
    if mismatch.missing.is_empty() && mismatch.misshapen.is_empty() {
        return Ok(Sources { found, fresh, unused });
    }
    mismatch.extra = unused;
    Err(Error::Mismatch(Box::new(mismatch)))
}

impl Model {
    /// Fills the parameters from `folder`. The parameter `name` is looked for as `source(name)`
    /// (a student that takes some of a teacher's layers renames them; identity otherwise), with
    /// and without the family's prefix.
    ///
    /// Parameters of the head that the folder lacks are drawn from `fresh_head`, a seed; without
    /// one they are an error, as are missing parameters of the encoder and wrong shapes.
    ///
    /// # Errors
    /// [`Error::Mismatch`] before anything is read, or whatever the store says of the bytes.
    pub fn load(
        &self,
        device: &mut dyn Device,
        folder: &TensorFolder,
        source: &dyn Fn(&str) -> String,
        fresh_head: Option<u64>,
    ) -> Result<Loaded, Error> {
        load(device, self.params(), self, folder, source, fresh_head)
    }

    /// Every parameter under its public name: name, shape, numbers.
    pub fn tensors(&self, device: &dyn Device) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let params = self.params();
        let entry = |param: &heirloom_engine::Param| {
            let values = device.read(params.view(param, params.weights()));
            (param.name.clone(), param.shape.clone(), values)
        };
        params.index().iter().map(entry).collect()
    }

    /// The text of `config.json` for a folder that `transformers` loads: every key that was read,
    /// the numbers as they are now, and the task.
    pub fn config_json(&self, labels: &[String]) -> String {
        let mut map = self.config().to_map();
        let architecture = self.head().architecture(self.config());
        map.insert("architectures".to_owned(), json!([architecture]));
        match self.head().problem_type() {
            Some(problem) => {
                let ids = 0..self.head().width(self.config());
                let name = |id: usize| labels.get(id).cloned().unwrap_or(format!("LABEL_{id}"));
                let id2label: Map<String, Value> =
                    ids.clone().map(|id| (id.to_string(), json!(name(id)))).collect();
                let label2id: Map<String, Value> = ids.map(|id| (name(id), json!(id))).collect();
                map.insert("id2label".to_owned(), Value::Object(id2label));
                map.insert("label2id".to_owned(), Value::Object(label2id));
                map.insert("problem_type".to_owned(), json!(problem));
            }
            None => {
                for key in ["id2label", "label2id", "problem_type"] {
                    map.remove(key);
                }
            }
        }
        // What another program recorded about how it ran says nothing about these weights.
        for key in ["_name_or_path", "transformers_version", "num_labels"] {
            map.remove(key);
        }
        let text = serde_json::to_string_pretty(&Value::Object(map));
        text.expect("a map of strings and numbers is JSON") + "\n"
    }
}
