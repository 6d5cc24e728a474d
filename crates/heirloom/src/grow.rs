//! A model folder grown by a plan into another.
//!
//! In: a folder as `transformers` saves it, and a plan. Out: a committed folder of the same kind
//! with the plan beside it, and how far its outputs are from the small model's. Never: replaces a
//! folder that holds something, or writes before the whole model has been grown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heirloom_base::Bytes;
use heirloom_data::tokens::Tokenizer;
use heirloom_growth::{
    Anatomy, GrowthPlan, LmHead, Origin, Role, Tensor, Tensors, count_grown, grow, is_buffer,
};
use heirloom_models::{DecoderType, ModelType};
use heirloom_recipe::GrownMoments;
use heirloom_store::{About, Array, Draft, RealDisk, TensorFolder, new_folder, write_tensors};
use heirloom_train::LanguageConfig;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

pub mod beside;
mod decoder;
mod encoder;

use beside::Checkpoint;

use decoder::SmallDecoder;
use encoder::SmallEncoder;

/// The file that holds the plan by which a model has grown.
pub const PLAN_FILE: &str = "growth.toml";

/// The file in which `transformers` keeps how a decoder generates.
const GENERATION: &str = "generation_config.json";

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
    kind: Kind,
    anatomy: Anatomy,
    weights: TensorFolder,
    tokenizer: Arc<Tokenizer>,
    /// Files that a grown folder holds as they are: the tokenizer's, and how to generate.
    files: BTreeMap<String, Vec<u8>>,
    /// The run that it is a checkpoint of, and what becomes of its moments.
    checkpoint: Option<(Checkpoint, GrownMoments)>,
}

#[derive(Debug)]
enum Kind {
    Encoder(SmallEncoder),
    Decoder(SmallDecoder),
}

/// What a model says of [`SENTENCES`]: rows of equal width, one a sentence, or of a decoder one
/// after each token.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    values: Vec<f32>,
    rows: usize,
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
    /// Of a decoder: whether it would go on with the same tokens.
    pub next_tokens: Option<NextTokens>,
}

/// Whether two decoders take the same token for the most probable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NextTokens {
    /// Tokens after which both were asked.
    pub places: usize,
    /// Those after which they say the same.
    pub same: usize,
}

impl Change {
    /// What has changed, in a sentence.
    pub fn what(&self) -> &'static str {
        if self.next_tokens.is_some() { "next-token logits" } else { "outputs" }
    }
}

impl Small {
    /// Opens a model folder; reads no weights yet.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        if !folder.exists() {
            return Err(Failure::usage(format!("`{}` is not there", folder.display())));
        }
        Self::with_tokenizer(folder, Tokenizer::open(folder)?)
    }

    /// Opens a checkpoint of a run, whose moments are to grow with its weights. `tokenizer` is the
    /// run's.
    pub fn of_run(
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        moments: GrownMoments,
    ) -> Result<Self, Failure> {
        let small = Self::with_tokenizer(checkpoint.committed.folder(), tokenizer)?;
        Ok(Self { checkpoint: Some((checkpoint, moments)), ..small })
    }

    fn with_tokenizer(folder: &Path, tokenizer: Tokenizer) -> Result<Self, Failure> {
        let kind = Kind::open(folder)?;
        let weights = TensorFolder::open(folder)?;
        let mut files = tokenizer.files().clone();
        if let Ok(bytes) = std::fs::read(folder.join(GENERATION)) {
            files.insert(GENERATION.to_owned(), bytes);
        }
        let anatomy = match &kind {
            Kind::Encoder(small) => small.anatomy(&weights),
            Kind::Decoder(small) => small.anatomy(),
        };
        let (folder, checkpoint) = (folder.to_owned(), None);
        Ok(Self {
            folder,
            kind,
            anatomy,
            weights,
            tokenizer: Arc::new(tokenizer),
            files,
            checkpoint,
        })
    }

    /// What a plan must know of it.
    pub fn anatomy(&self) -> &Anatomy {
        &self.anatomy
    }

    /// Whether `plan` can be carried out on it, and `transformers` would read what comes of it.
    ///
    /// # Errors
    /// The first thing that stands in the way, with both sizes.
    pub fn check(&self, plan: &GrowthPlan) -> Result<(), Failure> {
        plan.check(&self.anatomy)?;
        match &self.kind {
            Kind::Encoder(_) => Ok(()),
            Kind::Decoder(small) => small.check(plan),
        }
    }

    /// Steps of the optimiser that the moments have heard of which grow with it; `None` where none do.
    pub fn updates(&self) -> Option<u64> {
        let (run, mode) = self.checkpoint.as_ref()?;
        (*mode != GrownMoments::Drop).then(|| run.updates())
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
            tied && place.is_some_and(|place| place.role == Role::LmHead)
        };
        self.weights.names().filter(move |name| !is_buffer(name) && !again(name))
    }

    /// Grows the model and commits it to `out`, which is new or empty.
    pub fn grow(&self, plan: &GrowthPlan, out: &Path) -> Result<(), Failure> {
        self.check(plan)?;
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
        let mut count: usize = grown.tensors.values().map(|tensor| tensor.data.len()).sum();
        let config = match &self.kind {
            Kind::Encoder(small) => LanguageConfig::Encoder(small.config().clone()),
            Kind::Decoder(small) => LanguageConfig::Decoder(small.config().clone()),
        };
        let beside = match &self.checkpoint {
            Some((run, mode)) => Some(run.grow(plan, &self.anatomy, &config, *mode)?),
            None => None,
        };
        count += beside.as_ref().map_or(0, beside::Beside::count);
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
        if let Some(beside) = beside {
            let weights = draft.digest("model.safetensors").expect("they were just put");
            beside.put(&mut draft, weights)?;
        }
        let config = match &self.kind {
            Kind::Encoder(small) => small.config_json(&grown.anatomy),
            Kind::Decoder(small) => small.config_json(plan, &grown.anatomy)?,
        };
        draft.put("config.json", config.as_bytes())?;
        for (name, bytes) in &self.files {
            draft.put(name, bytes)?;
        }
        draft.put(PLAN_FILE, plan.to_toml().as_bytes())?;
        let facts = json!({ "plan": plan.digest(), "build": env!("CARGO_PKG_VERSION") });
        let Value::Object(facts) = facts else { unreachable!("written as an object just above") };
        draft.commit(About { facts, ..About::default() })?;
        Ok(())
    }

    /// The outputs on [`SENTENCES`], to be held against those of the grown model.
    ///
    /// # Errors
    /// Where the model cannot answer, as one that was saved with a language-model head alone.
    pub fn outputs(&self, threads: usize) -> Result<Outputs, Failure> {
        self.kind.outputs(&self.folder, &self.tokenizer, threads)
    }

    /// How far the outputs of the model that has grown into `out` are from `before`, this one's.
    /// Hidden states are compared with the old ones that they are copies of.
    pub fn measure(
        &self,
        before: &Outputs,
        plan: &GrowthPlan,
        out: &Path,
        threads: usize,
    ) -> Result<Change, Failure> {
        let after = self.kind.outputs(out, &self.tokenizer, threads)?;
        let width = |outputs: &Outputs| outputs.values.len() / outputs.rows;
        let units = plan.residual_units(&self.anatomy);
        let origin = |at: usize| match &self.kind {
            Kind::Encoder(small) if small.embeds() => match units.origin[at] {
                Origin::Unit(unit) => Some(unit),
                Origin::Mean | Origin::New => None,
            },
            Kind::Encoder(_) => Some(at),
            // New tokens have no old scores.
            Kind::Decoder(_) => (at < width(before)).then_some(at),
        };
        let mut largest_change: f64 = 0.0;
        let mut next = NextTokens { places: before.rows, same: 0 };
        let rows = before.values.chunks_exact(width(before));
        for (before, after) in rows.zip(after.values.chunks_exact(width(&after))) {
            for (at, &value) in after.iter().enumerate() {
                if let Some(unit) = origin(at) {
                    let change = f64::from(value) - f64::from(before[unit]);
                    largest_change = largest_change.max(change.abs());
                }
            }
            next.same += usize::from(largest(before) == largest(after));
        }
        let largest_output =
            before.values.iter().fold(0.0, |most: f64, &x| most.max(f64::from(x).abs()));
        let next_tokens = matches!(self.kind, Kind::Decoder(_)).then_some(next);
        Ok(Change { sentences: SENTENCES.len(), largest_change, largest_output, next_tokens })
    }
}

impl Kind {
    /// Reads the config, of whichever kind it is.
    fn open(folder: &Path) -> Result<Self, Failure> {
        let file = folder.join("config.json");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let found = match serde_json::from_str(&text) {
            Ok(Value::Object(map)) => {
                map.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned()
            }
            // Whoever reads it next says what is wrong with it.
            _ => return SmallEncoder::open(folder).map(Self::Encoder),
        };
        if DecoderType::find(&found).is_some() {
            return SmallDecoder::open(folder).map(Self::Decoder);
        }
        if ModelType::NAMES.contains(&found.as_str()) {
            return SmallEncoder::open(folder).map(Self::Encoder);
        }
        Err(Failure::input(format!(
            "`{}`: `model_type` is \"{found}\", expected one of {}, {}",
            file.display(),
            ModelType::NAMES.join(", "),
            DecoderType::NAMES.join(", "),
        )))
    }

    fn outputs(
        &self,
        folder: &Path,
        tokenizer: &Arc<Tokenizer>,
        threads: usize,
    ) -> Result<Outputs, Failure> {
        match self {
            Self::Encoder(_) => encoder::answers(folder, Arc::clone(tokenizer), threads),
            Self::Decoder(_) => decoder::logits(folder, threads),
        }
    }
}

/// The place of the largest number; of equal ones the first, as generation takes it.
fn largest(row: &[f32]) -> usize {
    let larger = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
    (0..row.len()).fold(0, larger)
}
