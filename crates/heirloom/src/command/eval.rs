//! `heirloom eval`: how good a model is, and whether it is better than another.

mod language;

use std::path::{Path, PathBuf};

use heirloom::answer::{Answerer, PLAN, model_folder};
use heirloom::examine::{Judgement, Set, Task};
use heirloom::failure::Failure;
use heirloom::language::KeptTokens;
use heirloom::places::Places;
use heirloom_recipe::{AnyPlan, Plan, TaskKind};
use heirloom_report::compare::{Comparison, SeedDifference, across_seeds, classifiers};
use heirloom_report::diagram::{Curve, diagram};
use heirloom_report::evaluate::Evaluation;
use heirloom_report::seeds::Seeds;
use heirloom_report::table::{Cell, Table};
use heirloom_report::temperature::{COLDEST, HOTTEST};
use heirloom_store::{RealDisk, write_atomic};
use serde::Serialize;
use serde_json::json;

use language::Asked;

use super::recipe_at;
use super::train::{SEEDS, SeedList};
use crate::args::EvalArgs;
use crate::picture::can_be_new;
use crate::show::Show;

/// Seed of the resamples behind an interval, so that the same two models give the same interval.
const RESAMPLING_SEED: u64 = 0;

/// The title of the column that says what the logits were divided by.
const TEMPERATURE: &str = "T";

/// What the name of a set is followed by in the row of the scaled logits.
const SCALED: &str = ", scaled";

/// A model folder, and its seed where it is one of several.
struct Candidate {
    seed: Option<u64>,
    folder: PathBuf,
}

/// One model on one set.
#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    model: PathBuf,
    file: String,
    evaluation: Evaluation,
}

/// Two models on one set.
#[derive(Serialize)]
struct Against {
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    first: PathBuf,
    second: PathBuf,
    file: String,
    comparison: Comparison,
}

/// Two lists of models, paired by their seeds, on one set.
#[derive(Serialize)]
struct OverSeeds {
    file: String,
    metric: String,
    difference: SeedDifference,
}

pub(crate) fn run(args: &EvalArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let candidates = candidates(&args.model)?;
    if let Some(asked) = text(args)? {
        let flags = [
            ("--against", args.against.is_some()),
            ("--curve", args.curve.is_some()),
            ("--file", args.file.is_some()),
        ];
        if let Some((flag, _)) = flags.into_iter().find(|(_, given)| *given) {
            return Err(Failure::usage(format!(
                "{flag} is for models that predict labels; a language model is measured on the text \
                 of its recipe, or of --text"
            )));
        }
        return language::run(&candidates, &asked, threads, show);
    }
    let task = task(args)?;
    if let Some(file) = &args.curve {
        can_draw(file, &task)?;
    }
    let rivals = match &args.against {
        None => Vec::new(),
        Some(path) => rivals(path, &candidates, &task)?,
    };
    let sets = task.sets(args.file.as_deref())?;
    let first = judge_all(&candidates, &task, &sets, threads, show)?;
    let second = judge_all(&rivals, &task, &sets, threads, show)?;

    let mut comparisons = Vec::new();
    for ((one, other), judged) in candidates.iter().zip(&rivals).zip(first.iter().zip(&second)) {
        for (set, (ours, theirs)) in sets.iter().zip(judged.0.iter().zip(judged.1)) {
            let compared = classifiers(&ours.predictions, &theirs.predictions, RESAMPLING_SEED)?;
            comparisons.extend(compared.map(|comparison| Against {
                seed: one.seed,
                first: one.folder.clone(),
                second: other.folder.clone(),
                file: set.name.clone(),
                comparison,
            }));
        }
    }
    let paired = paired_by_seed(&sets, &first, &second);
    let mut lines = lines(&candidates, &sets, first);
    let ours = lines.len();
    lines.extend(self::lines(&rivals, &sets, second));
    if let Some(file) = &args.curve {
        draw(&lines, &sets, file)?;
        show.say(&format!("reliability diagram: {}", file.display()));
    }
    if show.json {
        let over_seeds: Vec<_> = sets.iter().map(|set| over_seeds(&lines[..ours], set)).collect();
        show.json(&json!({
            "evaluations": lines,
            "over_seeds": (candidates.len() > 1).then_some(over_seeds),
            "comparisons": comparisons,
            "comparisons_over_seeds": paired,
        }));
        return Ok(0);
    }
    show.data(&table(&lines[..ours], &sets).text());
    if !rivals.is_empty() {
        show.data(&format!("\nagainst\n{}\n", table(&lines[ours..], &sets).text()));
    }
    for Against { seed, file, comparison, .. } in &comparisons {
        let seed = seed.map_or(String::new(), |seed| format!(" seed {seed}"));
        show.data(&format!(
            "{file}{seed}: accuracy {}, agreement {:.3}, divergence {:.4} nats\n",
            comparison.accuracy, comparison.agreement, comparison.divergence,
        ));
    }
    for OverSeeds { file, metric, difference } in &paired {
        show.data(&format!("{file}: {metric} over seeds {difference}\n"));
    }
    Ok(0)
}

/// Refuses, before anything is computed, a diagram that could not be drawn or would replace a file.
fn can_draw(file: &Path, task: &Task) -> Result<(), Failure> {
    if task.kind() != TaskKind::Classification {
        return Err(Failure::usage(
            "--curve draws how sure a model is of one of several labels, and this task has another \
             `kind`",
        ));
    }
    can_be_new(file, "--curve")
}

/// All models in one picture; one that is alone with its scaled logits.
fn draw(lines: &[Line], sets: &[Set], file: &Path) -> Result<(), Failure> {
    let mut curves = Vec::new();
    for line in lines {
        let Some(calibration) = &line.evaluation.calibration else { continue };
        let mut name = line.model.display().to_string();
        if sets.len() > 1 {
            name += &format!(", {}", line.file);
        }
        let (expected_error, bins) = (calibration.expected_error, calibration.curve.clone());
        curves.push(Curve { name: name.clone(), expected_error, bins });
        if let (Some(scaled), [_]) = (&calibration.scaled, lines) {
            let (expected_error, bins) = (scaled.expected_error, scaled.curve.clone());
            let name = format!("{name}{SCALED} to T {:.4}", scaled.temperature);
            curves.push(Curve { name, expected_error, bins });
        }
    }
    if curves.is_empty() {
        return Err(Failure::input(
            "no example has a label, so there is nothing to draw; name another file with --file",
        ));
    }
    let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
    let svg = diagram(&format!("Reliability on {}", names.join(", ")), &curves);
    Ok(write_atomic(&RealDisk, file, svg.as_bytes())?)
}

/// The model folders that a path means: one, or one per seed.
fn candidates(path: &Path) -> Result<Vec<Candidate>, Failure> {
    match seeds(path)? {
        None => Ok(vec![Candidate { seed: None, folder: model_folder(path)? }]),
        Some(list) => {
            let candidate = |seed: u64| {
                let folder = model_folder(&path.join(format!("seed-{seed}")))?;
                Ok(Candidate { seed: Some(seed), folder })
            };
            list.seeds.into_iter().map(candidate).collect()
        }
    }
}

/// The models to compare with, one for each candidate.
fn rivals(path: &Path, with: &[Candidate], task: &Task) -> Result<Vec<Candidate>, Failure> {
    if task.kind() != TaskKind::Classification {
        return Err(Failure::usage(
            "--against compares models that pick one of several labels, and this task has another \
             `kind`; evaluate each model alone",
        ));
    }
    let rivals = candidates(path)?;
    let seeds = |list: &[Candidate]| list.iter().map(|one| one.seed).collect::<Vec<_>>();
    // One model against one needs no seeds: they are paired by the examples.
    if (with.len(), rivals.len()) != (1, 1) && seeds(with) != seeds(&rivals) {
        let shown = |list: &[Candidate]| {
            let seeds = list.iter().map(|one| one.seed.map_or("none".into(), |s| s.to_string()));
            seeds.collect::<Vec<String>>().join(", ")
        };
        return Err(Failure::usage(format!(
            "runs are compared seed by seed, and the seeds differ: {} here, {} in `{}`; name the \
             folder of one seed on both sides, or train the same seeds",
            shown(with),
            shown(&rivals),
            path.display(),
        )));
    }
    Ok(rivals)
}

/// The list of seeds of a folder that has one.
fn seeds(path: &Path) -> Result<Option<SeedList>, Failure> {
    let file = path.join(SEEDS);
    if !file.is_file() {
        return Ok(None);
    }
    let unreadable =
        |why: String| Failure::input(format!("`{}` is not a list of seeds: {why}", file.display()));
    let text = std::fs::read(&file).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| unreadable(error.to_string()))
}

/// The text of a language model: that of the flag, of the recipe, or of the run the model lies in;
/// `None` where these speak of a task.
fn text(args: &EvalArgs) -> Result<Option<Asked>, Failure> {
    if !args.text.is_empty() {
        return Ok(Some(Asked::Files(args.text.clone(), args.sequence_length)));
    }
    if let Some(recipe) = &args.recipe {
        let recipe = recipe_at(recipe, &args.set)?;
        let kept = KeptTokens::beside(Path::new(&recipe.output_dir())).at;
        let text = recipe.is_language().then(|| recipe.text()).transpose()?;
        return Ok(text.map(|text| Asked::Plan(Box::new(text), Some(kept))));
    }
    let Some((file, text)) = plan_of(&args.model)? else { return Ok(None) };
    let run = file.parent().unwrap_or(Path::new(""));
    Ok(match AnyPlan::from_toml(&text) {
        Ok(AnyPlan::Language(plan)) => {
            Some(Asked::Plan(Box::new(plan.text), Some(KeptTokens::beside(run).at)))
        }
        _ => None,
    })
}

/// The plan's text of the run, or runs, that a model lies in, and the file that holds it.
fn plan_of(model: &Path) -> Result<Option<(PathBuf, String)>, Failure> {
    if let Some(list) = seeds(model)? {
        return Ok(Some((model.join(SEEDS), list.plan)));
    }
    let parent = model.parent().unwrap_or(Path::new(""));
    let places = [model.join(PLAN), parent.join(PLAN)];
    let Some(file) = places.into_iter().find(|file| file.is_file()) else { return Ok(None) };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failure::input(format!("cannot read `{}`: {error}", file.display())))?;
    Ok(Some((file, text)))
}

/// The task: the recipe's where one is given, else that of the run the model lies in.
fn task(args: &EvalArgs) -> Result<Task, Failure> {
    let places = Places::from_environment();
    if let Some(recipe) = &args.recipe {
        return Task::of_recipe(&recipe_at(recipe, &args.set)?, &places);
    }
    if !args.set.is_empty() {
        return Err(Failure::usage(
            "--set changes a recipe; name the recipe too, with --recipe FILE",
        ));
    }
    let (file, text) = plan_of(&args.model)?.ok_or_else(|| {
        Failure::usage(format!(
            "`{}` is a model and no run, so it does not say what to evaluate it on; name a recipe \
             with --recipe FILE, or for a language model a text with --text FILE",
            args.model.display(),
        ))
    })?;
    let plan = Plan::from_toml(&text)
        .map_err(|error| Failure::input(format!("`{}` holds no plan: {error}", file.display())))?;
    Task::of_plan(&plan, &places)
}

/// For each model, its judgement on each set.
fn judge_all(
    models: &[Candidate],
    task: &Task,
    sets: &[Set],
    threads: usize,
    show: Show,
) -> Result<Vec<Vec<Judgement>>, Failure> {
    let mut all = Vec::new();
    for candidate in models {
        let mut model = Answerer::open(&candidate.folder, task.max_length(), threads)?;
        task.check(&model)?;
        let mut judged = Vec::new();
        for set in sets {
            let judgement = task.judge(&mut model, set)?;
            note(set, &judgement, model.max_length(), show);
            judged.push(judgement);
        }
        all.push(judged);
    }
    Ok(all)
}

fn note(set: &Set, judgement: &Judgement, max_length: usize, show: Show) {
    let (name, rows) = (&set.name, set.rows.rows.len());
    if judgement.truncated > 0 {
        let cut = judgement.truncated;
        show.say(&format!("note: {name}: {cut} of {rows} texts were cut to {max_length} tokens"));
    }
    let calibration = judgement.evaluation.calibration.as_ref();
    if let Some(scaled) = calibration.and_then(|calibration| calibration.scaled.as_ref()) {
        let all = [scaled.temperature, scaled.halves[0], scaled.halves[1]];
        if let Some(bound) = all.into_iter().find(|found| [COLDEST, HOTTEST].contains(found)) {
            show.say(&format!(
                "note: {name}: a fitted temperature stopped at its bound of {bound}; there are too \
                 few examples, or too few mistakes among them, to tell"
            ));
        }
    }
    if judgement.unlabelled > 0 {
        let left = judgement.unlabelled;
        show.say(&format!(
            "note: {name}: {left} of {rows} examples have no label and do not count"
        ));
    }
}

fn lines(models: &[Candidate], sets: &[Set], judged: Vec<Vec<Judgement>>) -> Vec<Line> {
    let of_model = |(model, judged): (&Candidate, Vec<Judgement>)| {
        let line = |(set, judgement): (&Set, Judgement)| Line {
            seed: model.seed,
            model: model.folder.clone(),
            file: set.name.clone(),
            evaluation: judgement.evaluation,
        };
        sets.iter().zip(judged).map(line).collect::<Vec<_>>()
    };
    models.iter().zip(judged).flat_map(of_model).collect()
}

/// The deciding scores of two lists of seeds, set by set; nothing for single models.
fn paired_by_seed(
    sets: &[Set],
    first: &[Vec<Judgement>],
    second: &[Vec<Judgement>],
) -> Vec<OverSeeds> {
    if first.len() < 2 || second.is_empty() {
        return Vec::new();
    }
    let scores = |judged: &[Vec<Judgement>], set: usize| -> Option<Vec<f64>> {
        judged.iter().map(|sets| sets[set].evaluation.primary).collect()
    };
    let compared = |(at, set): (usize, &Set)| {
        Some(OverSeeds {
            file: set.name.clone(),
            metric: first[0][at].evaluation.metric.name().to_owned(),
            difference: across_seeds(&scores(first, at)?, &scores(second, at)?)?,
        })
    };
    sets.iter().enumerate().filter_map(compared).collect()
}

/// The logits as they are, or divided by one temperature.
#[derive(Clone, Copy, PartialEq)]
enum Logits {
    Raw,
    Scaled,
}

/// The numbers of an evaluation in the order of the table's columns, each with its title; `None`
/// where there are none of scaled logits.
fn numbers(evaluation: &Evaluation, logits: Logits) -> Option<Vec<(String, Option<f64>)>> {
    let calibration = evaluation.calibration.as_ref();
    let scaled = calibration.and_then(|calibration| calibration.scaled.as_ref());
    let loss = match logits {
        Logits::Raw => evaluation.loss,
        Logits::Scaled => Some(scaled?.loss),
    };
    let mut numbers = vec![("loss".to_owned(), loss)];
    // Every score is of the answers alone, which no temperature changes.
    numbers.extend(evaluation.scores.iter().map(|(name, value)| (name.to_owned(), value)));
    let of_calibration = match logits {
        Logits::Raw => calibration.map(|found| {
            let temperature = found.scaled.as_ref().map(|_| 1.0);
            [found.brier, found.expected_error, found.adaptive_error]
                .map(Some)
                .into_iter()
                .chain([temperature])
                .collect::<Vec<_>>()
        }),
        Logits::Scaled => scaled.map(|found| {
            [found.brier, found.expected_error, found.adaptive_error, found.temperature]
                .map(Some)
                .to_vec()
        }),
    };
    let titles = ["Brier", "ECE", "adaptive ECE", TEMPERATURE].map(str::to_owned);
    numbers.extend(titles.into_iter().zip(of_calibration.into_iter().flatten()));
    Some(numbers)
}

/// Mean and spread over seeds of each number on one set.
fn over_seeds(lines: &[Line], set: &Set) -> serde_json::Value {
    let named = |logits| {
        let spreads = spreads(lines, set, logits).into_iter();
        spreads.map(|(name, seeds)| (name, json!(seeds))).collect::<serde_json::Map<_, _>>()
    };
    let scaled = named(Logits::Scaled);
    json!({
        "file": set.name,
        "numbers": named(Logits::Raw),
        "scaled": (!scaled.is_empty()).then_some(scaled),
    })
}

/// Of each number; nothing where a model has none.
fn spreads(lines: &[Line], set: &Set, logits: Logits) -> Vec<(String, Option<Seeds>)> {
    let of_set = lines.iter().filter(|line| line.file == set.name);
    let numbers: Option<Vec<_>> = of_set.map(|line| numbers(&line.evaluation, logits)).collect();
    let of_set = numbers.unwrap_or_default();
    let spread = |at: usize| {
        let values: Option<Vec<f64>> =
            of_set.iter().map(|numbers| numbers.get(at).and_then(|(_, value)| *value)).collect();
        Seeds::of(&values?)
    };
    let titles = of_set.first().into_iter().flatten().map(|(name, _)| name.clone());
    titles.enumerate().map(|(at, name)| (name, spread(at))).collect()
}

/// A row for each model and set, and where there is a temperature to fit a second one of the scaled
/// logits below it.
fn table(lines: &[Line], sets: &[Set]) -> Table {
    let raw = lines.first().and_then(|line| numbers(&line.evaluation, Logits::Raw));
    let Some(raw) = raw else { return Table::new(["file"]) };
    let several = lines.len() > sets.len();
    let head = if several { vec!["seed", "file", "n"] } else { vec!["file", "n"] };
    let titles = raw.into_iter().map(|(name, _)| name);
    let mut table = Table::new(head.into_iter().map(str::to_owned).chain(titles));
    let both = [Logits::Raw, Logits::Scaled];
    let named = |file: &str, logits| match logits {
        Logits::Raw => Cell::from(file),
        Logits::Scaled => Cell::from(format!("{file}{SCALED}")),
    };
    for (line, logits) in lines.iter().flat_map(|line| both.map(|logits| (line, logits))) {
        let Some(numbers) = numbers(&line.evaluation, logits) else { continue };
        let seed = line.seed.map_or(Cell::Missing, |seed| Cell::Text(seed.to_string()));
        let mut cells = Vec::from_iter(several.then_some(seed));
        cells.push(named(&line.file, logits));
        cells.push(Cell::Count(line.evaluation.n as u64));
        cells.extend(numbers.into_iter().map(|(_, value)| number(value)));
        table.row(cells);
    }
    let over_seeds = sets.iter().filter(|_| several);
    for (set, logits) in over_seeds.flat_map(|set| both.map(|logits| (set, logits))) {
        let spreads = spreads(lines, set, logits);
        if spreads.is_empty() {
            continue;
        }
        let n = lines.iter().find(|line| line.file == set.name).map_or(0, |line| line.evaluation.n);
        let mut cells = vec![Cell::from("all"), named(&set.name, logits), Cell::Count(n as u64)];
        let spreads = spreads.into_iter();
        cells.extend(spreads.map(|(_, seeds)| seeds.map_or(Cell::Missing, Cell::Seeds)));
        table.row(cells);
    }
    table
}

/// Four decimals: a thousand examples tell a difference of one in the third.
fn number(value: Option<f64>) -> Cell {
    value.map_or(Cell::Missing, |value| Cell::Number { value, decimals: 4 })
}
