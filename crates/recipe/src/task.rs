//! The data, as `[task]` and its preset decide it.
//!
//! In: a [`Recipe`]. Out: the [`DataPlan`], in which only label names may still be open, or what is
//! wrong with `[task]`. Never: looks at a file.

use crate::choices::{Column, EvalStrategy, EvaluateOn, Format, Metric, OnBadLine, TaskKind};
use crate::decide::{missing, needs, value, wrong};
use crate::plan::{DataPlan, LabelNoise, Labels, Limit, Split, Unlabelled};
use crate::preset::Preset;
use crate::problem::{Place, ProblemKind, Problems};
use crate::recipe::Recipe;

impl Recipe {
    /// The data as decided. Where the recipe names no labels, they are still to be found.
    pub fn data(&self) -> Result<DataPlan, Problems> {
        let mut problems = Problems::new(&self.file);
        let data = data(self, &mut problems);
        problems.or(data)
    }

    /// The preset, where the recipe leaves its files and columns as they are. Then the folder may
    /// hold any layout of that data set, and the caller replaces these fields of the [`DataPlan`]
    /// by what it finds there.
    pub fn preset_layout(&self) -> Option<Preset> {
        let task = &self.task;
        let written = [
            task.train.is_some(),
            task.validation.is_some(),
            task.test.is_some(),
            task.format.is_some(),
            task.text.is_some(),
            task.text_pair.is_some(),
            task.label.is_some(),
            task.header.is_some(),
            task.quoting.is_some(),
            task.encoding.is_some(),
            task.label_separator.is_some(),
        ];
        value(&task.preset).filter(|_| !written.contains(&true))
    }
}

/// The data, or `None` after saying what is missing.
pub(crate) fn data(recipe: &Recipe, problems: &mut Problems) -> Option<DataPlan> {
    let task = &recipe.task;
    let here = || task.place.clone().unwrap_or(Place::Whole);
    let before = problems.count();
    let known = value(&task.preset).map(|preset| preset.known());
    let known = known.as_ref();

    let kind = value(&task.kind).or(known.map(|known| known.kind));
    if kind.is_none() && task.kind.is_none() && task.preset.is_none() {
        let keys = vec!["task.preset".to_owned(), "task.kind".to_owned()];
        let meaning = "a GLUE task's name, or what is predicted from your own files".to_owned();
        problems.push(here(), ProblemKind::NoneOf { keys, meaning });
    }
    // Without a preset or a kind there is no telling what else is missing.
    let clear = kind.is_some() || problems.is_wrong("task.kind");
    let mut need = |found: bool, key: &str, meaning: &str| {
        if !found && (clear || key == "path") {
            missing(here(), &format!("task.{key}"), meaning, problems);
        }
    };
    let train = value(&task.train).or(known.map(|_| "train.tsv".to_owned()));
    // Texts without labels may be all there is.
    let alone = train.is_none() && task.unlabelled.is_some();
    let named = train.clone().or_else(|| value(&task.unlabelled));
    let format = value(&task.format).or_else(|| by_extension(named.as_deref()?));
    let label_first = format == Some(Format::LabelFirst);
    let text = match label_first {
        true => Some(Column::Number(1)),
        false => value(&task.text).or(known.map(|known| known.text.clone())),
    };
    let label = match label_first {
        true => Some(Column::Number(0)),
        false => value(&task.label).or(known.map(|known| known.label.clone())),
    };
    need(task.path.is_some(), "path", "the folder with the data files");
    need(named.is_some(), "train", "the file to train on");
    need(text.is_some(), "text", "the column with the text");
    need(label.is_some(), "label", "the column with the label");

    let split = value(&task.validation_split).map_or(Split::Nothing, Split::Share);
    let mut validation: Vec<String> = match (value(&task.validation), known) {
        (Some(file), _) => vec![file],
        (None, Some(known)) => {
            let names = [Some(known.validation), known.mismatched];
            names.into_iter().flatten().map(str::to_owned).collect()
        }
        (None, None) => Vec::new(),
    };
    let never = value(&recipe.training.eval_strategy) == Some(EvalStrategy::Never);
    if !never && clear && validation.is_empty() && split == Split::Nothing {
        let keys = ["task.validation", "task.validation_split"].map(str::to_owned).to_vec();
        let meaning = "a file to evaluate on, or a share of the training file".to_owned();
        problems.push(here(), ProblemKind::NoneOf { keys, meaning });
    }
    let evaluate_on = evaluate_on(recipe, &validation, split, problems);
    if never {
        validation.clear();
    }

    if let (None, Some(file)) = (format, &named) {
        let meaning =
            format!("the extension of `{file}` does not tell; one of {}", Format::ONE.words);
        missing(here(), "task.format", &meaning, problems);
    }
    let in_lines = matches!(format, Some(Format::Tsv | Format::Csv));
    let named = value(&task.header).or(known.map(|known| known.header)).unwrap_or(true);
    let header = named && !label_first;
    let pair = value(&task.text_pair).or_else(|| {
        // A preset's pair goes with the preset's text; who renames one names both.
        known
            .filter(|_| task.text.is_none() && !label_first)
            .and_then(|known| known.text_pair.clone())
    });
    if let Some(format) = format {
        check_columns(recipe, format, header, problems);
    }
    let (labels, metric) = labels_and_metric(recipe, kind, problems);
    if let Some(at) = task.label_separator.as_ref().filter(|_| kind == Some(TaskKind::MultiLabel)) {
        let needed = "one label per example; in a multi_label task it would cut off all but the \
                      first";
        needs(at, "task.label_separator", needed, problems);
    }
    if let Some(at) = &task.bad_line_limit
        && task.on_bad_line() == OnBadLine::Error
    {
        needs(at, "task.bad_line_limit", "`on_bad_line = \"skip\"`", problems);
    }
    let label_noise = label_noise(recipe, kind, problems);
    let unlabelled = unlabelled(recipe, kind, problems);
    if alone {
        check_alone(recipe, problems);
    }
    if problems.count() > before {
        return None;
    }
    let format = format?;
    Some(DataPlan {
        kind: kind?,
        path: value(&task.path)?,
        train: train.into_iter().collect(),
        validation,
        test: value(&task.test).into_iter().collect(),
        format,
        header,
        quoting: value(&task.quoting).unwrap_or(format == Format::Csv),
        // Without a header there is no telling how many columns a row should have.
        extra_columns: in_lines && !header,
        encoding: task.encoding(),
        texts: std::iter::once(text?).chain(pair).collect(),
        label: label?,
        label_separator: value(&task.label_separator).unwrap_or_default(),
        labels,
        metric: metric?,
        max_length: task.max_length(),
        on_bad_line: task.on_bad_line(),
        bad_line_limit: task.bad_line_limit(),
        validation_split: split,
        evaluate_on,
        label_noise,
        train_limit: value(&task.train_limit).map_or(Limit::All, Limit::First),
        unlabelled,
        validation_limit: value(&task.validation_limit).map_or(Limit::All, Limit::First),
        // Official splits overlap as they are, and they are what others report.
        allow_overlap: value(&task.allow_overlap).unwrap_or(known.is_some()),
    })
}

/// Which labels are made wrong on purpose. A share of 0 is no noise, with whatever else is said of
/// it, so that a sweep over shares may begin there.
fn label_noise(recipe: &Recipe, kind: Option<TaskKind>, problems: &mut Problems) -> LabelNoise {
    let task = &recipe.task;
    if let Some(at) = task.label_noise.as_ref().filter(|at| at.value > 0.0)
        && kind.is_some_and(|kind| kind != TaskKind::Classification)
    {
        needs(
            at,
            "task.label_noise",
            "`kind = \"classification\"`, one label of several",
            problems,
        );
    }
    let without = "`task.label_noise`, the share of labels to make wrong";
    if task.label_noise.is_none() && !problems.is_wrong("task.label_noise") {
        if let Some(at) = &task.label_noise_kind {
            needs(at, "task.label_noise_kind", without, problems);
        }
        if let Some(at) = &task.label_noise_seed {
            needs(at, "task.label_noise_seed", without, problems);
        }
    }
    match task.label_noise() {
        0.0 => LabelNoise::Nothing,
        share => {
            let (kind, seed) = (task.label_noise_kind(), task.label_noise_seed());
            LabelNoise::Some { share, kind, seed }
        }
    }
}

/// Texts without a label, which only a teacher can teach.
fn unlabelled(recipe: &Recipe, kind: Option<TaskKind>, problems: &mut Problems) -> Unlabelled {
    let task = &recipe.task;
    let Some(at) = &task.unlabelled else {
        if let Some(at) = &task.unlabelled_limit {
            let needed = "`task.unlabelled`, the file whose texts it limits";
            needs(at, "task.unlabelled_limit", needed, problems);
        }
        return Unlabelled::Nothing;
    };
    if kind.is_some_and(|kind| kind != TaskKind::Classification) {
        let needed = "`kind = \"classification\"`, one label of several";
        needs(at, "task.unlabelled", needed, problems);
    }
    if value(&task.format) == Some(Format::LabelFirst) {
        let needed = "a `task.format` with columns; in this one each line begins with a label";
        needs(at, "task.unlabelled", needed, problems);
    }
    let alone = recipe.objective.balance.is_none() && value(&recipe.objective.alpha) == Some(0.0);
    if recipe.teacher.place.is_none() || alone {
        let needed = "a `[teacher]` and an `objective.alpha` above 0; its answers are all that such \
                      texts teach";
        needs(at, "task.unlabelled", needed, problems);
    }
    let limit = value(&task.unlabelled_limit).map_or(Limit::All, Limit::First);
    Unlabelled::Some { file: at.value.clone(), limit }
}

/// What needs a training file with labels.
fn check_alone(recipe: &Recipe, problems: &mut Problems) {
    let (task, objective) = (&recipe.task, &recipe.objective);
    let place = || task.place.clone().unwrap_or(Place::Whole);
    let known = task.preset.is_some() || task.labels.is_some() || problems.is_wrong("task.labels");
    if !known {
        let meaning = "names of the classes, in the order of outputs: without `task.train` there is \
                       no label to find them by";
        missing(place(), "task.labels", meaning, problems);
    }
    let needed = "`task.train`, a file with labels";
    let written: [(&str, Option<&Place>); 6] = [
        ("task.validation_split", task.validation_split.as_ref().map(|at| &at.place)),
        ("task.train_limit", task.train_limit.as_ref().map(|at| &at.place)),
        ("task.label_noise", task.label_noise.as_ref().map(|at| &at.place)),
        ("objective.balance", objective.balance.as_ref().map(|at| &at.place)),
        ("objective.regularizer", objective.regularizer.as_ref().map(|at| &at.place)),
        (
            "objective.alpha",
            objective.alpha.as_ref().filter(|at| at.value < 1.0).map(|at| &at.place),
        ),
    ];
    for (key, place) in written {
        let Some(place) = place else { continue };
        let (key, needs) = (key.to_owned(), needed.to_owned());
        problems.push(place.clone(), ProblemKind::Needs { key, needs });
    }
}

fn evaluate_on(
    recipe: &Recipe,
    validation: &[String],
    split: Split,
    problems: &mut Problems,
) -> EvaluateOn {
    let Some(at) = &recipe.task.evaluate_on else {
        // Without a validation file, the split is all there is to look at.
        let only_split = validation.is_empty() && split != Split::Nothing;
        return if only_split { EvaluateOn::Split } else { EvaluateOn::Validation };
    };
    if at.value == EvaluateOn::Split && split == Split::Nothing {
        needs(at, "task.evaluate_on", "`task.validation_split`, the share to hold out", problems);
    }
    if at.value == EvaluateOn::Validation && validation.is_empty() {
        needs(at, "task.evaluate_on", "`task.validation`, the file to evaluate on", problems);
    }
    at.value
}

fn by_extension(file: &str) -> Option<Format> {
    match file.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
        "tsv" => Some(Format::Tsv),
        "csv" => Some(Format::Csv),
        "jsonl" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

fn check_columns(recipe: &Recipe, format: Format, header: bool, problems: &mut Problems) {
    let task = &recipe.task;
    let in_lines = matches!(format, Format::Tsv | Format::Csv);
    if format == Format::LabelFirst {
        let keys = [
            ("task.text", &task.text),
            ("task.text_pair", &task.text_pair),
            ("task.label", &task.label),
        ];
        for (key, at) in keys {
            if let Some(at) = at {
                let needed = "a `format` with columns; in label_first each line is a label, a space \
                              and a text";
                needs(at, key, needed, problems);
            }
        }
    }
    if !in_lines {
        let keys = [("task.header", &task.header), ("task.quoting", &task.quoting)];
        for (key, at) in keys {
            if let Some(at) = at {
                needs(at, key, "`format = \"tsv\"` or `\"csv\"`", problems);
            }
        }
    }
    let columns = [
        ("task.text", &task.text),
        ("task.text_pair", &task.text_pair),
        ("task.label", &task.label),
    ];
    for (key, at) in columns {
        let Some(at) = at else { continue };
        let expected = match (&at.value, in_lines) {
            (Column::Name(_), true) if !header => "a column's number from 0, as there is no header",
            (Column::Number(_), false) if format != Format::LabelFirst => {
                "the name of a field, as this format has no order of them"
            }
            _ => continue,
        };
        let found = match &at.value {
            Column::Name(name) => format!("{name:?}"),
            Column::Number(number) => number.to_string(),
        };
        wrong(at, key, found, expected.to_owned(), None, problems);
    }
}

/// Where label names come from, and what is measured.
pub(crate) fn labels_and_metric(
    recipe: &Recipe,
    kind: Option<TaskKind>,
    problems: &mut Problems,
) -> (Labels, Option<Metric>) {
    let task = &recipe.task;
    let known = value(&task.preset).map(|preset| preset.known());
    let regression = kind == Some(TaskKind::Regression);
    if let Some(at) = task.labels.as_ref().filter(|_| regression) {
        needs(at, "task.labels", "a task with labels, but a regression has none", problems);
    }
    let labels = match (value(&task.labels), &known) {
        _ if regression => Labels::Named(Vec::new()),
        (Some(names), _) => Labels::Named(names),
        (None, Some(known)) => {
            Labels::Named(known.labels.iter().map(|l| (*l).to_owned()).collect())
        }
        (None, None) => Labels::Found,
    };
    let usual = |kind| match kind {
        TaskKind::Classification => Metric::Accuracy,
        TaskKind::MultiLabel => Metric::F1Micro,
        TaskKind::Regression => Metric::PearsonSpearman,
    };
    let metric =
        value(&task.metric).or(known.map(|known| known.metric)).or_else(|| kind.map(usual));
    if let (Some(at), Some(kind)) = (&task.metric, kind)
        && !at.value.suits(kind)
    {
        let fitting: Vec<String> = Metric::ALL
            .iter()
            .filter(|metric| metric.suits(kind))
            .map(|metric| format!("`{metric}`"))
            .collect();
        let expected = format!("one of {} for a {kind} task", fitting.join(", "));
        wrong(at, "task.metric", format!("\"{}\"", at.value), expected, None, problems);
    }
    (labels, metric)
}

/// What is predicted, where the recipe says so.
pub(crate) fn kind(recipe: &Recipe) -> Option<TaskKind> {
    let task = &recipe.task;
    value(&task.kind).or_else(|| value(&task.preset).map(|preset| preset.known().kind))
}
