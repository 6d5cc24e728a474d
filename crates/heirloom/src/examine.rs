//! What a model is evaluated on, and the evaluation itself.
//!
//! In: a recipe, or the plan of a run; models that answer. Out: sets of labelled rows, and
//! judgements. Never: an example that the run trained on, unless it was asked for by name.

use std::path::PathBuf;

use heirloom_data::dataset::split_indexes;
use heirloom_data::label::Labels;
use heirloom_data::presets::Preset;
use heirloom_data::source::Rows;
use heirloom_recipe::{DataPlan, Limit, Plan, Recipe, Split, TaskKind};
use heirloom_report::evaluate::{Evaluation, evaluate};
use heirloom_report::predictions::Predictions;

use crate::answer::{Answerer, check_kind, output_of_each_label, reorder};
use crate::failure::Failure;
use crate::gather::{SPLIT_SEED, within_limit};
use crate::judge::{metric, predictions};
use crate::opened::{apply_layout, known_labels, labels, rows};
use crate::places::Places;

/// A task, opened.
#[derive(Clone, Debug)]
pub struct Task {
    data: DataPlan,
    folder: PathBuf,
    labels: Labels,
}

/// Labelled rows under a name.
#[derive(Clone, Debug)]
pub struct Set {
    /// Where they come from, for people.
    pub name: String,
    /// The rows.
    pub rows: Rows,
}

/// A model, judged on a set.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The numbers.
    pub evaluation: Evaluation,
    /// What they were made from, in the order of the task's labels.
    pub predictions: Predictions,
    /// Examples that were cut to the longest input.
    pub truncated: usize,
    /// Examples without a label, which were left out.
    pub unlabelled: usize,
}

impl Task {
    /// The task of a recipe.
    pub fn of_recipe(recipe: &Recipe, places: &Places) -> Result<Self, Failure> {
        let mut data = recipe.data()?;
        let folder = places.data("task.path", &data.path)?;
        if let Some(preset) = recipe.preset_layout() {
            let found = Preset::named(preset.name())?.find(&folder)?;
            apply_layout(&mut data, &found, &folder);
        }
        Self::open(data, folder)
    }

    /// The task of a run.
    pub fn of_plan(plan: &Plan, places: &Places) -> Result<Self, Failure> {
        let folder = places.data("task.path", &plan.data.path)?;
        Self::open(plan.data.clone(), folder)
    }

    fn open(data: DataPlan, folder: PathBuf) -> Result<Self, Failure> {
        let labels = match known_labels(&data) {
            Some(labels) => labels,
            None => labels(&data, &rows(&data, &folder, &data.train, None)?)?,
        };
        Ok(Self { data, folder, labels })
    }

    /// What is predicted.
    pub fn kind(&self) -> TaskKind {
        self.data.kind
    }

    /// Longest input in tokens.
    pub fn max_length(&self) -> usize {
        self.data.max_length as usize
    }

    /// The rows to evaluate on: of `file`, else of every validation file, else those held out of
    /// the training file.
    pub fn sets(&self, file: Option<&str>) -> Result<Vec<Set>, Failure> {
        let read = |name: &str, limit: Limit| {
            let rows = rows(&self.data, &self.folder, &[name.to_owned()], Some(&self.labels))?;
            let rows = match within_limit(rows.rows.len(), limit) {
                None => rows,
                Some(chosen) => select(&rows, &chosen),
            };
            Ok(Set { name: name.to_owned(), rows })
        };
        let limit = self.data.validation_limit;
        match (file, self.data.validation.as_slice(), self.data.validation_split) {
            (Some(file), _, _) => Ok(vec![read(file, Limit::All)?]),
            (None, [], Split::Share(share)) => {
                let train = rows(&self.data, &self.folder, &self.data.train, Some(&self.labels))?;
                let (_, held) = split_indexes(train.rows.len(), share, SPLIT_SEED);
                let held = select(&train, &held);
                let rows = match within_limit(held.rows.len(), limit) {
                    None => held,
                    Some(chosen) => select(&held, &chosen),
                };
                Ok(vec![Set { name: "held out".to_owned(), rows }])
            }
            (None, [], Split::Nothing) => Err(Failure::usage(
                "the task has no validation file and holds nothing out; name a file with --file",
            )),
            (None, files, _) => files.iter().map(|file| read(file, limit)).collect(),
        }
    }

    /// Refuses a model that does not answer what the task asks, before it has answered anything.
    pub fn check(&self, model: &Answerer) -> Result<(), Failure> {
        check_kind(model.folder(), model.head(), self.data.kind)?;
        self.order(model).map(drop)
    }

    fn order(&self, model: &Answerer) -> Result<Vec<usize>, Failure> {
        match self.data.kind {
            TaskKind::Regression => Ok(vec![0]),
            TaskKind::Classification | TaskKind::MultiLabel => {
                output_of_each_label(model.folder(), &model.labels(), &self.labels.names)
            }
        }
    }

    /// Judges what `model` says about `set`.
    pub fn judge(&self, model: &mut Answerer, set: &Set) -> Result<Judgement, Failure> {
        self.check(model)?;
        let order = self.order(model)?;
        let answers = model.answer(&set.name, &set.rows, self.labels.clone())?;
        let predictions = predictions(&reorder(&answers.outputs, &order), &answers.examples)?;
        Ok(Judgement {
            evaluation: evaluate(&predictions, metric(self.data.metric))?,
            predictions,
            truncated: answers.examples.truncated(),
            unlabelled: answers.examples.unlabelled(),
        })
    }
}

fn select(rows: &Rows, chosen: &[u32]) -> Rows {
    let taken = chosen.iter().map(|&at| rows.rows[at as usize].clone()).collect();
    Rows { rows: taken, skipped: rows.skipped.clone() }
}
