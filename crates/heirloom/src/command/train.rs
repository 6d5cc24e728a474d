//! `heirloom train`: a recipe into run folders, one per seed.

use std::path::PathBuf;

use heirloom::elsewhere::is_address;
use heirloom::failure::Failure;
use heirloom::language::KeptTokens;
use heirloom::places::Places;
use heirloom::prepared::Prepared;
use heirloom::process::peak_memory;
use heirloom::processor;
use heirloom_base::Bytes;
use heirloom_recipe::AnyPlan;
use heirloom_report::seeds::Seeds;
use heirloom_report::table::{Cell, Table};
use heirloom_store::{Holder, RealDisk, write_atomic};
use heirloom_train::{Ending, RunFolder, StagesState, Trains, run as run_loop};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::thrown_away::ThrownAway;
use super::{STOPPED, read_recipe};
use crate::args::TrainArgs;
use crate::clock::now;
use crate::outside::{Stop, World};
use crate::show::Show;

/// File that makes a folder one of several seeds.
pub(crate) const SEEDS: &str = "seeds.json";

/// The seeds of a folder, and how long the run was to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SeedList {
    pub(crate) seeds: Vec<u64>,
    /// The plan without a seed of its own, as `plan.toml` text.
    pub(crate) plan: String,
}

/// What a finished run came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) seed: u64,
    pub(crate) folder: PathBuf,
    pub(crate) steps: u64,
    pub(crate) best_step: Option<u64>,
    pub(crate) metric: String,
    pub(crate) best: Option<f64>,
    pub(crate) seconds: f64,
    /// Memory that the plan foresaw, in bytes.
    pub(crate) planned_memory: Bytes,
    /// The most that was resident so far in this process, in bytes.
    pub(crate) peak_memory: Option<Bytes>,
}

pub(crate) fn run(args: &TrainArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let recipe = read_recipe(&args.recipe)?;
    let places = Places::from_environment();
    let thrown_away = args.smoke.then(|| ThrownAway::new("smoke")).transpose()?;
    let folder = match (&args.into, &thrown_away) {
        (Some(folder), _) => Some(folder.clone()),
        (None, thrown_away) => thrown_away.as_ref().map(|root| root.path().join("run")),
    };
    let dir = folder.clone().unwrap_or_else(|| PathBuf::from(recipe.output_dir()));
    let kept = KeptTokens::beside(&dir);
    for (key, teacher) in recipe.teachers() {
        if let Some(at) = teacher.cache.as_ref().filter(|at| is_address(&at.value)) {
            show.say(&format!(
                "note: `{key}.cache` is at {}; what is not here yet is copied first",
                at.value
            ));
        }
    }
    let mut prepared = Prepared::gather(&recipe, &places, &kept, threads, args.smoke)?;
    if let Some(folder) = folder {
        prepared.set_folder(&folder);
    }
    for note in prepared.notes() {
        show.say(&format!("note: {note}"));
    }
    let plan = prepared.plan();
    let seeds = if args.smoke { vec![plan.training().seed] } else { recipe.seeds() };
    let stop = Stop::listen()?;
    if let [_] = seeds.as_slice() {
        let (ending, summary) = begin(&prepared, plan, threads, show, &stop)?;
        if ending == Ending::Stopped {
            return Ok(STOPPED);
        }
        report(&[summary], show);
        return Ok(0);
    }
    let root = PathBuf::from(&plan.output().dir);
    heirloom_store::new_folder(&RealDisk, &root)?;
    let list = SeedList { seeds: seeds.clone(), plan: plan.to_toml() };
    let text = serde_json::to_vec_pretty(&list).expect("numbers and text are JSON");
    write_atomic(&RealDisk, &root.join(SEEDS), &text)?;
    let mut summaries = Vec::new();
    for seed in seeds {
        let (ending, summary) = begin(&prepared, plan.with_seed(seed), threads, show, &stop)?;
        if ending == Ending::Stopped {
            return Ok(STOPPED);
        }
        summaries.push(summary);
    }
    report(&summaries, show);
    Ok(0)
}

/// Starts one run in its own new folder.
pub(crate) fn begin(
    prepared: &Prepared,
    plan: AnyPlan,
    threads: usize,
    show: Show,
    stop: &Stop,
) -> Result<(Ending, Summary), Failure> {
    let path = PathBuf::from(&plan.output().dir);
    let holder = Holder::this_process(&now());
    // Everything that can be refused is, before the folder is there.
    RunFolder::refuse_taken(&RealDisk, &path)?;
    let text = plan.to_toml();
    let mut trainer = begun(prepared, plan, StagesState::default(), threads, show)?;
    let mut folder = RunFolder::create(&RealDisk, &path, &holder, &text)?;
    let loaded = trainer.loaded();
    if !loaded.fresh.is_empty() {
        show.say(&format!("note: drawn afresh: {}", loaded.fresh.join(", ")));
    }
    if !loaded.unused.is_empty() {
        show.say(&format!("note: not used: {}", shortened(&loaded.unused)));
    }
    go_on(&mut *trainer, prepared, &mut folder, threads, show, stop)
}

/// The trainer of a run, on a device of the plan's precision, and a note where that is not the
/// usual one.
pub(crate) fn begun(
    prepared: &Prepared,
    plan: AnyPlan,
    stages: StagesState,
    threads: usize,
    show: Show,
) -> Result<Box<dyn Trains>, Failure> {
    if let Some(note) = processor::note(processor::of(plan.training().precision)) {
        show.say(note);
    }
    prepared.trainer(plan, stages, threads)
}

fn shortened(names: &[String]) -> String {
    /// Longer lists say how many more there are.
    const SHOWN: usize = 4;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Runs a trainer to its end, or until somebody asks it to stop.
pub(crate) fn go_on(
    trainer: &mut dyn Trains,
    prepared: &Prepared,
    folder: &mut RunFolder<'_>,
    threads: usize,
    show: Show,
    stop: &Stop,
) -> Result<(Ending, Summary), Failure> {
    let path = folder.path().to_owned();
    let (metric, planned) = (prepared.metric(), prepared.cost().total());
    let mut world = World::new(show, stop, trainer, metric, &path, threads)?;
    let ended = run_loop(trainer, folder, &mut world);
    let (seconds, failure) = (world.seconds(), world.failure());
    let peak = peak_memory();
    world.note_memory(planned, peak);
    drop(world);
    let ending = ended?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let progress = trainer.progress();
    if ending == Ending::Stopped {
        show.say(&format!(
            "stopped at step {}, saved; to go on: heirloom resume {}",
            progress.step().0,
            path.display()
        ));
    }
    let summary = Summary {
        seed: trainer.training().seed,
        folder: path,
        steps: progress.step().0,
        best_step: progress.best.map(|best| best.step.0),
        metric: trainer.training().metric_for_best.clone(),
        best: progress.best.map(|best| best.score),
        seconds,
        planned_memory: planned,
        peak_memory: peak,
    };
    Ok((ending, summary))
}

/// Prints what runs came to: a line each, and the mean over seeds.
pub(crate) fn report(summaries: &[Summary], show: Show) {
    let scores: Vec<f64> = summaries.iter().filter_map(|summary| summary.best).collect();
    let over_seeds = Seeds::of(&scores);
    if show.json {
        show.json(&json!({ "runs": summaries, "over_seeds": over_seeds }));
        return;
    }
    let metric = summaries.first().map_or("", |summary| summary.metric.as_str());
    let mut table = Table::new(["seed", "steps", "best step", metric, "seconds", "folder"]);
    for summary in summaries {
        table.row([
            Cell::Text(summary.seed.to_string()),
            Cell::Count(summary.steps),
            summary.best_step.map_or(Cell::Missing, Cell::Count),
            Cell::score(summary.best),
            Cell::Number { value: summary.seconds, decimals: 1 },
            Cell::Text(summary.folder.display().to_string()),
        ]);
    }
    show.data(&table.text());
    let planned = summaries.iter().map(|summary| summary.planned_memory).max();
    let peak = summaries.iter().filter_map(|summary| summary.peak_memory).max();
    if let (Some(planned), Some(peak)) = (planned, peak) {
        show.say(&format!("memory: {peak} at most, {planned} planned"));
    }
    if let (Some(seeds), true) = (over_seeds, summaries.len() > 1) {
        show.data(&format!("{metric} over seeds: {seeds:.4}\n"));
    }
}
