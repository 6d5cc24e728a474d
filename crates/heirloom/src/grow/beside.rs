//! What stands beside the weights of a grown model for a trainer that goes on: the optimiser's moments,
//! and how fast each parameter is to learn.
//!
//! In: a checkpoint of a run, and a plan. Out: `moments.safetensors`, which says whose weights it
//! belongs to. Never: moments that another file's weights would be trained with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use heirloom_base::Digest;
use heirloom_engine::{Param, Params, Reference, Role};
use heirloom_growth::{
    Anatomy, Descent, GrowthPlan, Moments, Tensor, Tensors, descents, grow_moments,
};
use heirloom_models::{Decoder, Head, Model, transposed};
use heirloom_recipe::{AnyPlan, GrownFacts, GrownMoments, GrownRate, TokenizerPlan, TrainingPlan};
use heirloom_store::{Array, Committed, RealDisk, TensorFile, step_name};
use heirloom_train::{
    LanguageConfig, MOMENTS, RunFolder, StagesState, head_of, moments_mode, treatments,
};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The key under which a file of moments says what it is.
const ABOUT: &str = "growth";

/// What a file of moments says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Digest of the file with the weights that it belongs to.
    pub weights: Digest,
    /// Steps of the optimiser that the moments have heard of; 0 where they were dropped.
    pub updates: u64,
    /// What became of the moments.
    pub mode: GrownMoments,
    /// Factors of learning rates, each with its parameters; who is not named has 1.
    pub rates: Vec<(f64, Vec<String>)>,
    /// Parameters without moments.
    pub fresh: Vec<String>,
    /// Parameters that the method does not want trained.
    pub frozen: Vec<String>,
}

/// A run at one of its checkpoints.
#[derive(Debug)]
pub struct Checkpoint {
    /// The run's plan.
    pub plan: AnyPlan,
    /// The checkpoint.
    pub committed: Committed,
    stages: StagesState,
    updates: u64,
}

/// The parameters of a student on a device, and those of which files hold the transpose.
struct Layout {
    params: Params,
    turned: BTreeSet<String>,
}

impl Layout {
    /// The shape of a parameter as files hold it.
    fn shape(&self, param: &Param) -> Vec<usize> {
        let mut shape = param.shape.clone();
        if self.turned.contains(&param.name) {
            shape.reverse();
        }
        shape
    }
}

/// The moments that stand beside grown weights, and what is said of them but for the weights.
#[derive(Debug)]
pub(super) struct Beside {
    moments: Option<Moments<f32>>,
    about: About,
}

impl Checkpoint {
    /// The checkpoint of `step` of the run in `run`, the newest where none is named. Every byte of
    /// it is compared with its manifest.
    ///
    /// # Errors
    /// Where there is none, or it is damaged.
    pub fn open(run: &Path, step: Option<u64>) -> Result<Self, Failure> {
        let shown = run.display();
        let plan = AnyPlan::from_toml(&RunFolder::plan_text(&RealDisk, run)?)
            .map_err(|error| Failure::input(format!("`{shown}` holds no plan: {error}")))?;
        let steps = RunFolder::steps(&RealDisk, run)?;
        let found = match step {
            None => steps.last(),
            Some(asked) => steps.iter().find(|step| step.0 == asked),
        };
        let Some(&found) = found else {
            let all: Vec<String> = steps.iter().map(|step| step.0.to_string()).collect();
            let there = match all.as_slice() {
                [] => "it has none yet".to_owned(),
                all => format!("it has those of steps {}", all.join(", ")),
            };
            let asked = step.map_or(String::new(), |step| format!(" of step {step}"));
            return Err(Failure::usage(format!("`{shown}` has no checkpoint{asked}; {there}")));
        };
        let committed = Committed::open_step(&RealDisk, run, found)?;
        if !committed.manifest().files.contains_key("config.json") {
            return Err(Failure::usage(format!(
                "`{shown}/{}` is of an earlier version, which kept no config beside its weights; \
                 resume the run for a step, or grow `{shown}/best`",
                step_name(found),
            )));
        }
        let stages = RunFolder::stages(&committed)?;
        if let Some(mask) = &stages.mask {
            return Err(Failure::usage(format!(
                "`{shown}/{}` has grown behind a mask that is not open yet, and its moments are of what \
                 is behind it; take a checkpoint after {} steps (`--step`), or grow `{shown}/last` \
                 without moments",
                step_name(found),
                mask.from + mask.over,
            )));
        }
        let updates = RunFolder::updates(&committed)?;
        Ok(Self { plan, committed, stages, updates })
    }

    /// Steps of the optimiser that its moments have heard of.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The tokenizer of the run.
    pub fn tokenizer(&self) -> &TokenizerPlan {
        match &self.plan {
            AnyPlan::Task(plan) => &plan.tokenizer,
            AnyPlan::Language(plan) => &plan.tokenizer,
        }
    }

    /// Its training, and the steps that its optimiser had taken before it.
    fn training(&self) -> (&TrainingPlan, u64) {
        match &self.plan {
            AnyPlan::Task(plan) => (&plan.training, plan.student.moments.updates()),
            AnyPlan::Language(plan) => (&plan.training, plan.student.moments.updates()),
        }
    }

    /// The moments of all parameters, by their public names, as files hold them.
    fn moments(&self, layout: &Layout) -> Result<Moments<f32>, Failure> {
        let params = &layout.params;
        let file = TensorFile::open(&self.committed.file("state.safetensors")?)?;
        let read = |order: &str| -> Result<Tensors<f32>, Failure> {
            let flat = file.read_f32(&format!("adam.{order}.student"))?;
            if flat.len() != params.len() {
                return Err(Failure::input(format!(
                    "`{}` holds moments of {} numbers, its config has {}",
                    file.path().display(),
                    flat.len(),
                    params.len(),
                )));
            }
            let tensor = |param: &Param| {
                let mut data = flat[param.offset..param.offset + param.len()].to_vec();
                if layout.turned.contains(&param.name) {
                    data = transposed(&data, param.shape[1]);
                }
                (param.name.clone(), Tensor::new(&layout.shape(param), data))
            };
            let moved = params.index().iter().filter(|param| param.role != Role::Carried);
            Ok(moved.map(tensor).collect())
        };
        Ok(Moments { first: read("first")?, second: read("second")? })
    }

    /// How the parameters of its student lie.
    fn layout(&self, config: &LanguageConfig) -> Layout {
        let mut nowhere = Reference::<f32>::new();
        let config = match config {
            LanguageConfig::Decoder(config) => {
                let model = Decoder::new(&mut nowhere, config.clone());
                let names = model.params().index().iter().map(|param| param.name.clone());
                let turned = names.filter(|name| model.lies_transposed(name)).collect();
                return Layout { params: model.params().clone(), turned };
            }
            LanguageConfig::Encoder(config) => config.clone(),
        };
        let head = match &self.plan {
            AnyPlan::Task(plan) => head_of(plan),
            AnyPlan::Language(_) => Head::MaskedLm,
        };
        let model = Model::new(&mut nowhere, config, head);
        Layout { params: model.params().clone(), turned: BTreeSet::new() }
    }

    /// What `plan` makes of the moments, and of how fast each parameter learns.
    pub(super) fn grow(
        &self,
        plan: &GrowthPlan,
        anatomy: &Anatomy,
        config: &LanguageConfig,
        mode: GrownMoments,
    ) -> Result<Beside, Failure> {
        let layout = self.layout(config);
        let params = &layout.params;
        let (training, begun) = self.training();
        let before = treatments(params, self.stages.treatments(params), &training.groups, begun);
        let old: BTreeMap<&str, f64> =
            params.index().iter().zip(&before).map(|(p, by)| (p.name.as_str(), by.rate)).collect();
        let shapes: Vec<(&str, Vec<usize>)> =
            params.index().iter().map(|param| (param.name.as_str(), layout.shape(param))).collect();
        let shapes = shapes.iter().map(|(name, shape)| (*name, shape.as_slice()));
        let descents = descents(plan, anatomy, shapes)?;
        let mut rates: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let (mut fresh, mut frozen) = (Vec::new(), Vec::new());
        for (name, Descent { from, rate, fresh: is_fresh, .. }) in descents {
            let rate = rate * old.get(from.as_str()).copied().unwrap_or(1.0);
            if rate != 1.0 {
                rates.entry(rate.to_bits()).or_default().push(name.clone());
            }
            if is_fresh {
                fresh.push(name.clone());
            }
            if plan.freezes(anatomy.family, &name) {
                frozen.push(name);
            }
        }
        let dropped = mode == GrownMoments::Drop;
        let moments = if dropped {
            None
        } else {
            Some(grow_moments(plan, anatomy, &self.moments(&layout)?, moments_mode(mode))?)
        };
        let rates = rates.into_iter().map(|(rate, names)| (f64::from_bits(rate), names)).collect();
        let updates = if dropped { 0 } else { self.updates };
        let weights = Digest::of(b"");
        Ok(Beside { moments, about: About { weights, updates, mode, rates, fresh, frozen } })
    }
}

impl Beside {
    /// Numbers that its file holds.
    pub(super) fn count(&self) -> usize {
        let Some(moments) = &self.moments else { return 0 };
        2 * moments.first.values().map(|tensor| tensor.data.len()).sum::<usize>()
    }

    /// Adds the file to a draft whose weights have this digest.
    pub(super) fn put(
        &self,
        draft: &mut heirloom_store::Draft<'_>,
        weights: Digest,
    ) -> Result<(), Failure> {
        let about = About { weights, ..self.about.clone() };
        let about = serde_json::to_string(&about).expect("names and numbers are JSON");
        let orders = self
            .moments
            .iter()
            .flat_map(|moments| [("first", &moments.first), ("second", &moments.second)]);
        let named: Vec<(String, &Tensor<f32>)> = orders
            .flat_map(|(order, tensors)| {
                tensors.iter().map(move |(name, tensor)| (format!("{order}.{name}"), tensor))
            })
            .collect();
        let arrays: Vec<Array<'_>> = named
            .iter()
            .map(|(name, tensor)| Array::f32(name, &tensor.shape, &tensor.data))
            .collect();
        Ok(draft.put_with(MOMENTS, |file| {
            heirloom_store::write_tensors(file, &arrays, &[(ABOUT, &about)])
        })?)
    }
}

/// What the file of moments in `folder` says, where there is one; refused where it belongs to other
/// weights.
pub fn about(folder: &Path) -> Result<Option<About>, Failure> {
    let path = folder.join(MOMENTS);
    if !path.is_file() {
        return Ok(None);
    }
    let file = TensorFile::open(&path)?;
    let refuse = |why: String| Failure::input(format!("`{}` {why}", path.display()));
    let Some(text) = file.metadata().get(ABOUT) else {
        return Err(refuse("does not say which growth it is of; remove it".to_owned()));
    };
    let about: About =
        serde_json::from_str(text).map_err(|error| refuse(format!("is no growth's: {error}")))?;
    let weights = folder.join("model.safetensors");
    let bytes = std::fs::read(&weights)
        .map_err(|error| Failure::input(format!("cannot read `{}`: {error}", weights.display())))?;
    let found = Digest::of(&bytes);
    if found != about.weights {
        return Err(refuse(format!(
            "belongs to weights with digest {}, and `model.safetensors` beside it has {}; put its \
             own back, or remove it",
            about.weights.short(),
            found.short(),
        )));
    }
    Ok(Some(about))
}

/// The same in the words of a plan's facts.
pub fn facts(folder: &Path) -> Result<Option<GrownFacts>, Failure> {
    let facts = |about: About| GrownFacts {
        updates: about.updates,
        rates: about
            .rates
            .into_iter()
            .map(|(factor, parameters)| GrownRate { factor, parameters })
            .collect(),
        fresh: about.fresh,
        frozen: about.frozen,
    };
    Ok(about(folder)?.map(facts))
}
