//! The run folder: checkpoints, records, and the model folders a run leaves behind.
//!
//! ```text
//! plan.toml            every number, as decided
//! run.jsonl            one record per step and evaluation; cut back to the checkpoint on resume
//! lock                 who writes here now
//! step-000002000/      model.safetensors, state.safetensors, progress.json, manifest.json
//! best/  last/         model folders that `transformers` loads
//! ```

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use heirloom_base::{Bytes, Step};
use heirloom_engine::{Param, Space, View};
use heirloom_store::{
    About, Committed, Disk, Draft, DraftFile, Holder, Keep, Kind, Log, RunLock, Swept, TensorFile,
    recover, write_atomic, write_f32_tensors,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Error, Learned, Progress, StagesState, Trains};

/// The plan's file in a run folder.
const PLAN: &str = "plan.toml";
/// The record's.
const RECORD: &str = "run.jsonl";
/// Weights under their public names, in checkpoints and model folders.
const WEIGHTS: &str = "model.safetensors";
/// What a balance policy has learnt: numbers in double precision, little-endian.
pub(crate) const BALANCE: &str = "balance.f64";
/// What a regularizer has gathered, likewise.
pub(crate) const REGULARIZER: &str = "regularizer.f64";
/// The student's own texts that are read again, and their share of the steps, likewise.
pub(crate) const REPLAY: &str = "replay.f64";
/// The average of the weights, in the file of the state.
const AVERAGE: &str = "average";
/// What is behind a mask, likewise.
const BEHIND: &str = "behind_mask";
/// Moments, the average of the weights, and projections.
const STATE: &str = "state.safetensors";
/// Where the run's growth is, likewise as JSON.
const STAGES: &str = "stages.json";
/// The student's config, so that a checkpoint is a model folder but for the tokenizer.
const CONFIG: &str = "config.json";
/// Progress, as JSON.
const PROGRESS: &str = "progress.json";

/// A run folder that this process alone writes to.
pub struct RunFolder<'d> {
    disk: &'d dyn Disk,
    path: PathBuf,
    record: Log<'d>,
    parent: Option<Step>,
    _lock: RunLock,
}

impl std::fmt::Debug for RunFolder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunFolder").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A run folder as it was found.
#[derive(Debug)]
pub struct Found<'d> {
    /// The folder, ready to be written to.
    pub folder: RunFolder<'d>,
    /// What a crash had left and was swept, to be said.
    pub swept: Vec<Swept>,
    /// Its whole checkpoints, oldest first.
    pub steps: Vec<Step>,
}

impl<'d> RunFolder<'d> {
    /// Begins a run in an empty or new folder. `plan` is the text of `plan.toml`.
    pub fn create(
        disk: &'d dyn Disk,
        path: &Path,
        holder: &Holder,
        plan: &str,
    ) -> Result<Self, Error> {
        heirloom_store::new_folder(disk, path)?;
        let lock = RunLock::take(path, holder)?;
        // The plan comes first: a folder with a plan can be resumed, one without can be begun in.
        write_atomic(disk, &path.join(PLAN), plan.as_bytes())?;
        let record = Log::create(disk, &path.join(RECORD))?;
        Ok(Self { disk, path: path.to_owned(), record, parent: None, _lock: lock })
    }

    /// Refuses a folder that already holds something, without making or locking it.
    pub fn refuse_taken(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
        if let Some(file) = path.ancestors().find(|above| above.is_file()) {
            return Err(Error::NotAFolder { path: path.to_owned(), file: file.to_owned() });
        }
        let Ok(entries) = disk.list(path) else { return Ok(()) };
        match entries.into_iter().find(|entry| !heirloom_store::is_leftover(&entry.name)) {
            None => Ok(()),
            Some(entry) => {
                let (folder, holds) = (path.to_owned(), entry.name);
                Err(heirloom_store::StoreError::NotEmpty { folder, holds }.into())
            }
        }
    }

    /// Replaces the run's plan, durably.
    pub fn replace_plan(&self, plan: &str) -> Result<(), Error> {
        Ok(write_atomic(self.disk, &self.path.join(PLAN), plan.as_bytes())?)
    }

    /// Opens the folder of a run that was stopped or killed.
    pub fn open(disk: &'d dyn Disk, path: &Path, holder: &Holder) -> Result<Found<'d>, Error> {
        let lock = RunLock::take(path, holder)?;
        let recovered = recover(disk, path)?;
        // A kill right after the plan was written leaves no record yet.
        let file = path.join(RECORD);
        let record = if file.exists() { Log::open(disk, &file) } else { Log::create(disk, &file) }?;
        let folder = Self { disk, path: path.to_owned(), record, parent: None, _lock: lock };
        Ok(Found { folder, swept: recovered.swept, steps: recovered.steps })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text of a run folder's `plan.toml`.
    pub fn plan_text(disk: &dyn Disk, path: &Path) -> Result<String, Error> {
        let bytes = disk.read(&path.join(PLAN)).map_err(heirloom_store::StoreError::from)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The steps of a run folder's checkpoints, oldest first. Sweeps nothing and takes no lock, so
    /// it may be asked of a run under way.
    pub fn steps(disk: &dyn Disk, path: &Path) -> Result<Vec<Step>, Error> {
        let entries = disk.list(path).map_err(heirloom_store::StoreError::from)?;
        let folders = entries.iter().filter(|entry| entry.kind == Kind::Folder);
        let mut steps: Vec<Step> =
            folders.filter_map(|entry| heirloom_store::step_of_name(&entry.name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// λ, the teacher's share, of each of a run's `examples` training examples when it was last
    /// trained on before the checkpoint, `[examples]`, `0.0..=1.0`; NaN where it never was.
    ///
    /// # Errors
    /// Where the checkpoint is of a run without a balance policy, or of one with more examples.
    pub fn shares(committed: &Committed, examples: usize) -> Result<Vec<f64>, Error> {
        Ok(Self::shares_and_teachers(committed, examples, 0)?.remove(0))
    }

    /// The same, and after it λ of each of several teachers; `teachers` is 0 where there is one,
    /// which has no share of its own.
    pub fn shares_and_teachers(
        committed: &Committed,
        examples: usize,
        teachers: usize,
    ) -> Result<Vec<Vec<f64>>, Error> {
        let wanted = (1 + teachers) * examples;
        let numbers = numbers(committed, BALANCE)?;
        if numbers.len() < wanted || examples == 0 {
            return Err(Error::Foreign {
                folder: committed.folder().display().to_string(),
                found: format!("{BALANCE} of {} numbers", numbers.len()),
                expected: match teachers {
                    0 => format!("one for each of {examples} training examples at least"),
                    _ => format!(
                        "one for each of {examples} training examples and {teachers} teachers at \
                         least"
                    ),
                },
            });
        }
        Ok(numbers[..wanted].chunks(examples).map(<[f64]>::to_vec).collect())
    }

    /// What a run's regularizer had gathered and learnt at the checkpoint, as [`regularizer`]'s target
    /// takes it back.
    ///
    /// [`regularizer`]: crate::regularizer()
    ///
    /// # Errors
    /// Where the checkpoint is of a run without a regularizer.
    pub fn regularizer_state(committed: &Committed) -> Result<Vec<f64>, Error> {
        numbers(committed, REGULARIZER)
    }

    /// How far a run's student had grown at the checkpoint; not at all where its plan has no stage.
    ///
    /// # Errors
    /// Where the checkpoint's file of it cannot be read.
    pub fn stages(committed: &Committed) -> Result<StagesState, Error> {
        if !committed.manifest().files.contains_key(STAGES) {
            return Ok(StagesState::default());
        }
        let text = std::fs::read(committed.file(STAGES)?).unwrap_or_default();
        serde_json::from_slice(&text).map_err(|error| Error::Foreign {
            folder: committed.folder().display().to_string(),
            found: format!("a {STAGES} with {error}"),
            expected: "how far its student had grown".to_owned(),
        })
    }

    /// Steps of the optimiser that a run's moments had heard of at the checkpoint.
    ///
    /// # Errors
    /// Where the checkpoint's progress cannot be read.
    pub fn updates(committed: &Committed) -> Result<u64, Error> {
        let text = std::fs::read(committed.file(PROGRESS)?).unwrap_or_default();
        let progress: Progress = serde_json::from_slice(&text).map_err(|error| Error::Foreign {
            folder: committed.folder().display().to_string(),
            found: format!("a {PROGRESS} with {error}"),
            expected: "progress".to_owned(),
        })?;
        Ok(progress.updates)
    }

    /// The disk that it lies on.
    pub fn disk(&self) -> &'d dyn Disk {
        self.disk
    }

    /// Adds a line to the record.
    pub fn note(&mut self, record: &impl Serialize) -> Result<(), Error> {
        Ok(self.record.append(record)?)
    }

    /// Commits a checkpoint of `trainer` and removes those that need not stay.
    pub fn commit(&mut self, trainer: &mut dyn Trains) -> Result<Committed, Error> {
        trainer.catch_up();
        let progress = trainer.progress().clone();
        let step = progress.step();
        // The record must reach as far as the checkpoint says it does.
        self.record.sync()?;
        let moments: u64 =
            trainer.learned().iter().map(|(_, learned)| 2 * learned.params.len() as u64).sum();
        let weights = trainer.student().params.len() as u64;
        let average = trainer.average_space().map_or(0, |_| weights);
        let behind = trainer.student().behind().map_or(0, |_| weights);
        let needs = Bytes(4 * (weights + moments + average + behind));
        let mut draft = Draft::of_step(self.disk, &self.path, step, needs)?;
        let weights = trainer.student().params.weights();
        put_weights(&mut draft, trainer, weights)?;
        put_state(&mut draft, trainer)?;
        draft.put(CONFIG, trainer.config_json().as_bytes())?;
        draft.put(PROGRESS, &pretty(&json!(progress)))?;
        if let Some(stages) = trainer.stages() {
            draft.put(STAGES, &pretty(&json!(stages)))?;
        }
        for (file, numbers) in trainer.notes() {
            draft.put(file, &bytes(numbers))?;
        }
        let facts = json!({ "plan": trainer.plan_digest(), "build": env!("CARGO_PKG_VERSION") });
        let committed = draft.commit(About {
            step: Some(step),
            parent: self.parent,
            record_len: self.record.len(),
            facts: object(facts),
        })?;
        self.parent = Some(step);
        let last = NonZeroUsize::new(trainer.training().save_total_limit as usize);
        let keep = Keep { last: last.unwrap_or(NonZeroUsize::MIN), named: BTreeSet::new() };
        keep.prune(self.disk, &committed)?;
        Ok(committed)
    }

    /// Puts `trainer` where the checkpoint of `step` was, and cuts the record back to it.
    ///
    /// # Errors
    /// Where the checkpoint is damaged, of another plan, or of a student that has grown more often or
    /// less than `trainer`'s ([`crate::Trainer::at_stage`]).
    pub fn restore(&mut self, trainer: &mut dyn Trains, step: Step) -> Result<(), Error> {
        let committed = Committed::open_step(self.disk, &self.path, step)?;
        Self::read(&committed, trainer)?;
        self.record.truncate_to(committed.manifest().record_len)?;
        self.parent = Some(step);
        Ok(())
    }

    /// Puts `trainer` where a checkpoint was, without a lock on its run, which stays as it is.
    ///
    /// # Errors
    /// As [`RunFolder::restore`].
    pub fn read(committed: &Committed, trainer: &mut dyn Trains) -> Result<(), Error> {
        let foreign = |found: String, expected: String| Error::Foreign {
            folder: committed.folder().display().to_string(),
            found,
            expected,
        };
        let text = std::fs::read(committed.file(PROGRESS)?).unwrap_or_default();
        let progress: Progress = serde_json::from_slice(&text)
            .map_err(|error| foreign(format!("a {PROGRESS} with {error}"), "progress".into()))?;
        let stages = Self::stages(committed)?;
        let grown = trainer.stages().map_or(0, |stages| stages.grown);
        if stages.grown != grown {
            let times = |grown: usize| format!("a student that has grown {grown} times");
            return Err(foreign(times(stages.grown), times(grown)));
        }
        trainer.take_back_stages(stages);
        let weights = TensorFile::open(&committed.file(WEIGHTS)?)?;
        let state = TensorFile::open(&committed.file(STATE)?)?;
        let params = trainer.student().params.clone();
        let named = params.index().iter().map(|param| {
            let transposed = trainer.is_transposed(&param.name).then(|| param.shape[0]);
            (param.name.clone(), params.view(param, params.weights()), transposed)
        });
        let mut places: Vec<(&TensorFile, String, View, Option<usize>)> =
            named.map(|(name, view, transposed)| (&weights, name, view, transposed)).collect();
        let state_places = state_places(trainer).into_iter();
        places.extend(state_places.map(|(name, view)| (&state, name, view, None)));
        for (file, name, view, transposed) in places {
            let mut values = file.read_f32(&name)?;
            if values.len() != view.len() {
                let expected = format!("{} numbers", view.len());
                return Err(foreign(format!("`{name}` with {} numbers", values.len()), expected));
            }
            if let Some(columns) = transposed {
                values = heirloom_models::transposed(&values, columns);
            }
            trainer.device_mut().write(view, &values);
        }
        let files: Vec<&str> = trainer.notes().into_iter().map(|(file, _)| file).collect();
        for file in files {
            let numbers = numbers(committed, file)?;
            if !trainer.take_back(file, &numbers) {
                let found = format!("{file} of {} numbers", numbers.len());
                let expected = match file {
                    BALANCE => "what this plan's policy has learnt",
                    REPLAY => "the student's texts that this plan keeps",
                    _ => "what this plan's regularizer has gathered",
                };
                return Err(foreign(found, expected.into()));
            }
        }
        trainer.resumed(progress);
        Ok(())
    }

    /// Begins again from step 0: the record is emptied.
    pub fn restart(&mut self) -> Result<(), Error> {
        Ok(self.record.truncate_to(0)?)
    }

    /// Commits the student as a model folder called `name`, replacing an earlier one: with the average
    /// of its weights where there is one.
    pub fn save_model(&mut self, trainer: &mut dyn Trains, name: &str) -> Result<Committed, Error> {
        trainer.catch_up();
        let needs = Bytes(4 * trainer.student().params.len() as u64);
        let mut draft = Draft::begin(self.disk, &self.path.join(name), needs)?;
        let average = trainer.average_space().filter(|_| trainer.averaged().is_some());
        let weights = trainer.student().params.weights();
        put_weights(&mut draft, trainer, average.unwrap_or(weights))?;
        draft.put("config.json", trainer.config_json().as_bytes())?;
        for (name, bytes) in trainer.tokenizer_files() {
            draft.put(name, bytes)?;
        }
        let facts = json!({ "plan": trainer.plan_digest(), "build": env!("CARGO_PKG_VERSION") });
        let step = Some(trainer.progress().step());
        Ok(draft.commit(About { step, facts: object(facts), ..About::default() })?)
    }
}

fn bytes(numbers: Vec<f64>) -> Vec<u8> {
    numbers.into_iter().flat_map(f64::to_le_bytes).collect()
}

/// The numbers of a checkpoint's file, such as what a balance policy has learnt, the examples'
/// shares first.
fn numbers(committed: &Committed, file: &str) -> Result<Vec<f64>, Error> {
    let bytes = std::fs::read(committed.file(file)?).unwrap_or_default();
    Ok(bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

/// The weights, or a twin of them. A few numbers at a time, so that saving needs no second copy.
fn put_weights(draft: &mut Draft<'_>, trainer: &dyn Trains, from: Space) -> Result<(), Error> {
    let params = &trainer.student().params;
    let named = |param: &'_ Param| {
        let mut shape = param.shape.clone();
        if trainer.is_transposed(&param.name) {
            shape.reverse();
        }
        (param.name.clone(), shape)
    };
    let view = |param| params.view(param, from);
    let places: Vec<_> = params.index().iter().map(|param| (named(param), view(param))).collect();
    let numbers = |at: usize, range| trainer.public_numbers(at, places[at].1, range);
    put(draft, WEIGHTS, &places, numbers, &[("format", "pt")])
}

fn put(
    draft: &mut Draft<'_>,
    file: &str,
    places: &[((String, Vec<usize>), View)],
    numbers: impl Fn(usize, std::ops::Range<usize>) -> Vec<f32>,
    metadata: &[(&str, &str)],
) -> Result<(), Error> {
    let arrays: Vec<(&str, &[usize])> =
        places.iter().map(|((name, shape), _)| (name.as_str(), shape.as_slice())).collect();
    let fill = |file: &mut DraftFile<'_>| write_f32_tensors(file, &arrays, metadata, &numbers);
    Ok(draft.put_with(file, fill)?)
}

/// What `state.safetensors` holds, and where it belongs.
fn state_places(trainer: &dyn Trains) -> Vec<(String, View)> {
    let mut places = Vec::new();
    for (name, Learned { params, first, second, .. }) in trainer.learned() {
        places.push((format!("adam.first.{name}"), params.flat(*first)));
        places.push((format!("adam.second.{name}"), params.flat(*second)));
    }
    if let Some(average) = trainer.average_space() {
        places.push((AVERAGE.to_owned(), trainer.student().params.flat(average)));
    }
    for (name, Learned { params, .. }) in trainer.others() {
        places.push((name.to_owned(), params.flat(params.weights())));
    }
    if let Some(behind) = trainer.student().behind() {
        places.push((BEHIND.to_owned(), trainer.student().params.flat(behind)));
    }
    places
}

fn put_state(draft: &mut Draft<'_>, trainer: &dyn Trains) -> Result<(), Error> {
    let places = state_places(trainer).into_iter();
    let places: Vec<_> = places.map(|(name, view)| ((name, vec![view.len()]), view)).collect();
    let numbers = |at: usize, range| trainer.device().read(places[at].1.columns(range));
    put(draft, STATE, &places, numbers, &[])
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => unreachable!("written as an object just above"),
    }
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("a JSON value is JSON");
    text.push(b'\n');
    text
}
