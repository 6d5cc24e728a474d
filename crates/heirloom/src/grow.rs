//! A model folder grown by a plan into another.
//!
//! In: a folder as `transformers` saves it, and a plan. Out: a committed folder of the same kind
//! with the plan beside it, and how far its outputs are from the small model's. Never: replaces a
//! folder that holds something, or writes before the whole model has been grown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use heirloom_base::Bytes;
use heirloom_data::label::{Labels, RawLabel};
use heirloom_data::source::{OnBadLine, Row, Rows, Skipped};
use heirloom_data::tokens::Tokenizer;
use heirloom_growth::{
    Anatomy, Family, GrowthPlan, LmHead, Norm, Origin, Placement, Shape, Tensor, Tensors,
    count_grown, grow, is_buffer,
};
use heirloom_models::{EncoderConfig, Head, ModelType};
use heirloom_store::{About, Array, Draft, RealDisk, TensorFolder, new_folder, write_tensors};
use serde::Serialize;
use serde_json::{Value, json};

use crate::answer::{Answerer, head_of};
use crate::failure::Failure;

/// The file that holds the plan by which a model has grown.
pub const PLAN_FILE: &str = "growth.toml";

/// What both models read, to see how far their outputs are apart: of several lengths, with words
/// that every vocabulary of English knows and one that it takes apart.
pub const SENTENCES: [&str; 6] = [
    "The film is good.",
    "It was neither as long nor as dull as they had said, and the ending made up for both.",
    "How do I cook rice without a pot?",
    "Prices rose by 3.5 % in March, the fastest in ten years.",
    "photosynthesis",
    "We waited at the station for two hours, and then the train that we had waited for went by \
     without stopping.",
];

/// Tokens read of a sentence.
const LONGEST: usize = 64;

/// A model to be grown.
#[derive(Debug)]
pub struct Small {
    folder: PathBuf,
    config: EncoderConfig,
    head: Head,
    anatomy: Anatomy,
    weights: TensorFolder,
    tokenizer: BTreeMap<String, Vec<u8>>,
}

/// How far two models' outputs are apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Sentences that both have read.
    pub sentences: usize,
    /// The largest difference of an output.
    pub largest_change: f64,
    /// The largest output of the small model, to hold it against.
    pub largest_output: f64,
}

impl Small {
    /// Opens a model folder; reads no weights yet.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        if !folder.exists() {
            return Err(Failure::usage(format!("`{}` is not there", folder.display())));
        }
        let config = EncoderConfig::open(folder)?;
        let head = head_of(folder, &config)?;
        let weights = TensorFolder::open(folder)?;
        let tokenizer = Tokenizer::open(folder)?.files().clone();
        let anatomy = anatomy(&config, &weights);
        Ok(Self { folder: folder.to_owned(), config, head, anatomy, weights, tokenizer })
    }

    /// What a plan must know of it.
    pub fn anatomy(&self) -> &Anatomy {
        &self.anatomy
    }

    /// Numbers in its tensors; a tied head counts once.
    pub fn parameters(&self) -> Result<usize, Failure> {
        let mut count = 0;
        for name in self.names() {
            count += self.weights.shape(name)?.iter().product::<usize>();
        }
        Ok(count)
    }

    /// Numbers in the tensors of the model that `plan` makes of it.
    pub fn parameters_after(&self, plan: &GrowthPlan) -> Result<u64, Failure> {
        let mut shapes = Vec::new();
        for name in self.names() {
            shapes.push((name, self.weights.shape(name)?));
        }
        Ok(count_grown(plan, &self.anatomy, shapes))
    }

    /// Tensors that are parameters.
    fn names(&self) -> impl Iterator<Item = &str> {
        let tied = self.anatomy.lm_head == LmHead::Tied;
        let family = self.anatomy.family;
        let again = move |name: &str| {
            let place = family.find(name);
            tied && place.is_some_and(|place| place.role == heirloom_growth::Role::LmHead)
        };
        self.weights.names().filter(move |name| !is_buffer(name) && !again(name))
    }

    /// Grows the model and commits it to `out`, which is new or empty.
    pub fn grow(&self, plan: &GrowthPlan, out: &Path) -> Result<(), Failure> {
        // Where it is there it is only looked at; nothing is made before the model has grown.
        if out.exists() {
            new_folder(&RealDisk, out)?;
        }
        let mut tensors: Tensors<f32> = Tensors::new();
        for name in self.names() {
            let tensor = Tensor::new(self.weights.shape(name)?, self.weights.read_f32(name)?);
            tensors.insert(name.to_owned(), tensor);
        }
        let grown = grow(plan, &self.anatomy, &tensors)?;
        drop(tensors);
        let count: usize = grown.tensors.values().map(|tensor| tensor.data.len()).sum();
        new_folder(&RealDisk, out)?;
        let mut draft = Draft::begin(&RealDisk, out, Bytes(4 * count as u64))?;
        let arrays: Vec<Array<'_>> = grown
            .tensors
            .iter()
            .map(|(name, tensor)| Array::f32(name, &tensor.shape, &tensor.data))
            .collect();
        draft.put_with("model.safetensors", |file| {
            write_tensors(file, &arrays, &[("format", "pt")])
        })?;
        draft.put("config.json", self.config_json(&grown.anatomy).as_bytes())?;
        for (name, bytes) in &self.tokenizer {
            draft.put(name, bytes)?;
        }
        draft.put(PLAN_FILE, plan.to_toml().as_bytes())?;
        let facts = json!({ "plan": plan.digest(), "build": env!("CARGO_PKG_VERSION") });
        let Value::Object(facts) = facts else { unreachable!("written as an object just above") };
        draft.commit(About { facts, ..About::default() })?;
        Ok(())
    }

    fn config_json(&self, grown: &Anatomy) -> String {
        let shape = grown.shape;
        let config = EncoderConfig {
            hidden_size: shape.hidden,
            layers: shape.layers,
            heads: shape.heads(),
            intermediate_size: shape.intermediate,
            vocab_size: shape.vocab,
            max_positions: shape.positions,
            ..self.config.clone()
        };
        let mut map = config.to_map();
        // What another program recorded about the small model says nothing about this one.
        for key in ["_name_or_path", "transformers_version"] {
            map.remove(key);
        }
        // Whatever the small model was kept in, this one is written in single precision.
        for key in ["dtype", "torch_dtype"] {
            map.entry(key).and_modify(|kind| *kind = json!("float32"));
        }
        let text = serde_json::to_string_pretty(&Value::Object(map));
        text.expect("a map of strings and numbers is JSON") + "\n"
    }

    /// The outputs on [`SENTENCES`], to be held against those of the grown model.
    ///
    /// # Errors
    /// Where the model cannot answer, as one that was saved with a language-model head alone.
    pub fn outputs(&self, threads: usize) -> Result<Vec<f32>, Failure> {
        answers(&self.folder, threads)
    }

    /// How far the outputs of the model that has grown into `out` are from `before`, this one's.
    /// Hidden states are compared with the old ones that they are copies of.
    pub fn measure(
        &self,
        before: &[f32],
        plan: &GrowthPlan,
        out: &Path,
        threads: usize,
    ) -> Result<Change, Failure> {
        let after = answers(out, threads)?;
        let (old, new) = (before.len() / SENTENCES.len(), after.len() / SENTENCES.len());
        let units = plan.residual_units(&self.anatomy);
        let origin = |at: usize| match self.head {
            Head::Embedding | Head::MaskedLm => match units.origin[at] {
                Origin::Unit(unit) => Some(unit),
                Origin::Mean | Origin::New => None,
            },
            Head::SingleLabel { .. } | Head::MultiLabel { .. } | Head::Regression => Some(at),
        };
        let mut largest_change: f64 = 0.0;
        for (before, after) in before.chunks_exact(old).zip(after.chunks_exact(new)) {
            for (at, &value) in after.iter().enumerate() {
                if let Some(unit) = origin(at) {
                    let change = f64::from(value) - f64::from(before[unit]);
                    largest_change = largest_change.max(change.abs());
                }
            }
        }
        let largest_output = before.iter().fold(0.0, |most: f64, &x| most.max(f64::from(x).abs()));
        Ok(Change { sentences: SENTENCES.len(), largest_change, largest_output })
    }
}

fn answers(folder: &Path, threads: usize) -> Result<Vec<f32>, Failure> {
    let mut model = Answerer::open(folder, LONGEST, threads)?;
    let row = |(line, text): (u64, &&str)| Row {
        line,
        text: (*text).to_owned(),
        pair: None,
        label: RawLabel::Missing,
    };
    let rows = (1..).zip(&SENTENCES).map(row).collect();
    let skipped = Skipped { policy: OnBadLine::Error, counts: Default::default(), first: None };
    Ok(model.answer("<sentences>", &Rows { rows, skipped }, Labels::score())?.outputs)
}

fn anatomy(config: &EncoderConfig, weights: &TensorFolder) -> Anatomy {
    let family = match config.model_type {
        ModelType::Bert | ModelType::Roberta => Family::Bert,
        ModelType::DistilBert => Family::DistilBert,
    };
    let heads = ["cls.predictions.transform.dense", "lm_head.dense", "vocab_transform"];
    let has_head = weights.names().any(|name| heads.iter().any(|head| name.starts_with(head)));
    let untied = config.raw.get("tie_word_embeddings") == Some(&Value::Bool(false));
    Anatomy {
        family,
        norm: Norm::Layer,
        placement: Placement::Post,
        norm_eps: config.layer_norm_eps,
        rotary: false,
        head_norms: false,
        lm_head: match (has_head, untied) {
            (false, _) => LmHead::None,
            (true, false) => LmHead::Tied,
            (true, true) => LmHead::Untied,
        },
        shape: Shape {
            layers: config.layers,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            kv_heads: config.heads,
            group: 1,
            head_dim: config.hidden_size / config.heads,
            vocab: config.vocab_size,
            positions: config.max_positions,
        },
    }
}
