//! `heirloom resume`: on from the newest whole checkpoint, with nothing edited by hand.

use std::path::Path;

use heirloom::failure::Failure;
use heirloom::gather::{Gathered, reopen};
use heirloom::places::Places;
use heirloom_engine::Cpu;
use heirloom_recipe::Plan;
use heirloom_store::{Holder, RealDisk};
use heirloom_train::{Ending, RunFolder, Trainer};

use super::STOPPED;
use super::train::{SEEDS, SeedList, Summary, begin, go_on, make_cache_dir, report};
use crate::args::ResumeArgs;
use crate::clock::now;
use crate::outside::Stop;
use crate::show::Show;

pub(crate) fn run(args: &ResumeArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let stop = Stop::listen()?;
    let places = Places::from_environment();
    let list = args.run.join(SEEDS);
    if !list.is_file() {
        let (ending, summary) = one(&args.run, &places, threads, show, &stop)?;
        if ending == Ending::Stopped {
            return Ok(STOPPED);
        }
        report(&[summary], show);
        return Ok(0);
    }
    let unreadable = |why: String| {
        Failure::input(format!("`{}` is not a list of seeds: {why}", list.display()))
    };
    let text = std::fs::read(&list).map_err(|error| unreadable(error.to_string()))?;
    let seeds: SeedList =
        serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    let plan = parse_plan(&list, &seeds.plan)?;
    let mut gathered: Option<Gathered> = None;
    let mut summaries = Vec::new();
    for seed in &seeds.seeds {
        let mut plan = plan.with_seed(*seed);
        let folder = args.run.join(format!("seed-{seed}"));
        plan.output.dir = folder.display().to_string();
        let (ending, summary) = if folder.join("plan.toml").is_file() {
            one(&folder, &places, threads, show, &stop)?
        } else {
            let gathered = match &gathered {
                Some(gathered) => gathered,
                None => gathered.insert(reopen(&plan, &places)?),
            };
            begin(gathered, plan, threads, show, &stop)?
        };
        if ending == Ending::Stopped {
            return Ok(STOPPED);
        }
        summaries.push(summary);
    }
    report(&summaries, show);
    Ok(0)
}

fn parse_plan(file: &Path, text: &str) -> Result<Plan, Failure> {
    Plan::from_toml(text)
        .map_err(|error| Failure::input(format!("`{}` holds no plan: {error}", file.display())))
}

/// Goes on with one run.
fn one(
    path: &Path,
    places: &Places,
    threads: usize,
    show: Show,
    stop: &Stop,
) -> Result<(Ending, Summary), Failure> {
    if !path.join("plan.toml").is_file() {
        return Err(Failure::usage(format!(
            "`{}` is not a run folder: it has no plan.toml; begin a run with: heirloom train \
             RECIPE --into {}",
            path.display(),
            path.display(),
        )));
    }
    let holder = Holder::this_process(&now());
    let found = RunFolder::open(&RealDisk, path, &holder)?;
    let mut plan = parse_plan(&path.join("plan.toml"), &RunFolder::plan_text(&RealDisk, path)?)?;
    for swept in &found.swept {
        show.say(&swept.to_string());
    }
    // The folder may have been moved since.
    plan.output.dir = path.display().to_string();
    let gathered = reopen(&plan, places)?;
    make_cache_dir(&gathered.job)?;
    let mut trainer = Trainer::new(gathered.job, &RealDisk, &mut || Box::new(Cpu::new(threads)))?;
    let mut folder = found.folder;
    match found.steps.last() {
        Some(&step) => {
            folder.restore(&mut trainer, step)?;
            show.say(&format!("continuing from step {}", step.0));
        }
        None => {
            folder.restart()?;
            show.say("no checkpoint yet; beginning again from step 0");
        }
    }
    go_on(&mut trainer, &mut folder, show, stop)
}
