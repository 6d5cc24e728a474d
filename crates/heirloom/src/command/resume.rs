//! `heirloom resume`: on from the newest whole checkpoint, with nothing edited by hand.

use std::path::Path;

use heirloom::failure::Failure;
use heirloom::gather::LABEL_NOISE;
use heirloom::places::Places;
use heirloom::prepared::Prepared;
use heirloom_base::Step;
use heirloom_recipe::{AnyPlan, change, change_language};
use heirloom_store::{Committed, Holder, RealDisk, step_name};
use heirloom_train::{Ending, RunFolder, StagesState};

use super::STOPPED;
use super::train::{SEEDS, SeedList, Summary, begin, begun, go_on, report};
use crate::args::ResumeArgs;
use crate::clock::now;
use crate::outside::Stop;
use crate::show::Show;

pub(crate) fn run(args: &ResumeArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let stop = Stop::listen()?;
    let places = Places::from_environment();
    let list = args.run.join(SEEDS);
    if !list.is_file() {
        let (ending, summary) = one(&args.run, &args.set, &places, threads, show, &stop)?;
        if ending == Ending::Stopped {
            return Ok(STOPPED);
        }
        report(&[summary], show);
        return Ok(0);
    }
    let unreadable =
        |why: String| Failure::input(format!("`{}` is not a list of seeds: {why}", list.display()));
    let text = std::fs::read(&list).map_err(|error| unreadable(error.to_string()))?;
    let seeds: SeedList =
        serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    let plan = parse_plan(&list, &seeds.plan)?;
    let mut prepared: Option<Prepared> = None;
    let mut summaries = Vec::new();
    for seed in &seeds.seeds {
        let mut plan = plan.with_seed(*seed);
        let folder = args.run.join(format!("seed-{seed}"));
        plan.output_mut().dir = folder.display().to_string();
        let (ending, summary) = if folder.join("plan.toml").is_file() {
            one(&folder, &args.set, &places, threads, show, &stop)?
        } else {
            let prepared = match &prepared {
                Some(prepared) => prepared,
                None => prepared.insert(Prepared::reopen(&plan, &places)?),
            };
            begin(prepared, plan, threads, show, &stop)?
        };
        if ending == Ending::Stopped {
            return Ok(STOPPED);
        }
        summaries.push(summary);
    }
    report(&summaries, show);
    Ok(0)
}

fn parse_plan(file: &Path, text: &str) -> Result<AnyPlan, Failure> {
    AnyPlan::from_toml(text)
        .map_err(|error| Failure::input(format!("`{}`: {error}", file.display())))
}

/// Goes on with one run.
fn one(
    path: &Path,
    set: &[String],
    places: &Places,
    threads: usize,
    show: Show,
    stop: &Stop,
) -> Result<(Ending, Summary), Failure> {
    if path.is_file() {
        return Err(Failure::usage(format!(
            "`{0}` is a file; resume takes the folder of a run, as `heirloom train` leaves it. A recipe \
             is begun with: heirloom train {0}",
            path.display(),
        )));
    }
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
    if !set.is_empty() {
        plan = changed(&plan, set, show)?;
    }
    let text = plan.to_toml();
    // The folder may have been moved since.
    plan.output_mut().dir = path.display().to_string();
    let prepared = Prepared::reopen(&plan, places)?;
    for note in prepared.notes().iter().filter(|note| note.starts_with(LABEL_NOISE)) {
        show.say(&format!("note: {note}"));
    }
    let stages = match found.steps.last() {
        Some(&step) => Committed::open_step(&RealDisk, path, step)
            .map_err(heirloom_train::Error::from)
            .and_then(|committed| RunFolder::stages(&committed))
            .map_err(|error| with_older(error, path, &found.steps))?,
        None => StagesState::default(),
    };
    let mut trainer = begun(&prepared, plan, stages, threads, show)?;
    let mut folder = found.folder;
    match found.steps.last() {
        Some(&step) => {
            let restored = folder.restore(&mut *trainer, step);
            restored.map_err(|error| with_older(error, path, &found.steps))?;
            let (step, progress) = (step.0, trainer.progress());
            show.say(&match progress.finished {
                false => format!("continuing from step {step}"),
                true => format!(
                    "the run has ended at step {step}; for more steps: heirloom resume {} --set \
                     training.total_steps=N",
                    path.display()
                ),
            });
        }
        None => {
            folder.restart()?;
            show.say("no checkpoint yet; beginning again from step 0");
        }
    }
    // Only now: a change that cannot be carried out leaves the run as it was.
    if !set.is_empty() {
        folder.replace_plan(&text)?;
    }
    go_on(&mut *trainer, &prepared, &mut folder, threads, show, stop)
}

/// The plan with the keys of `plan.toml` that `--set` names, where a resumed run may change them.
fn changed(plan: &AnyPlan, set: &[String], show: Show) -> Result<AnyPlan, Failure> {
    let mut table: toml::Table =
        plan.to_toml().parse().expect("a plan writes the TOML that it reads");
    let mut asked = Vec::new();
    for pair in set {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Failure::usage(format!("--set {pair}: expected KEY=VALUE")));
        };
        // A bare word is a text, as in `train --set`.
        let value = format!("value = {value}")
            .parse::<toml::Table>()
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        let mut names: Vec<&str> = key.split('.').collect();
        let last = names.pop().expect("a split has one part at least");
        let place = names.iter().try_fold(&mut table, |table, name| {
            table.get_mut(*name).and_then(toml::Value::as_table_mut)
        });
        let known: Vec<String> =
            place.as_ref().map(|table| table.keys().cloned().collect()).unwrap_or_default();
        let Some(old) = place.and_then(|table| table.get_mut(last)) else {
            let nearest = heirloom_store::nearest(last, known.iter().map(String::as_str));
            let meant =
                nearest.map_or("; ".to_owned(), |name| format!("; did you mean `{name}`? "));
            return Err(Failure::usage(format!(
                "--set {key}: the plan has no such key{meant}`plan.toml` of the run shows them all"
            )));
        };
        *old = value;
        asked.push(key.to_owned());
    }
    let text = table.to_string();
    let new = AnyPlan::from_toml(&text)
        .map_err(|error| Failure::usage(format!("--set {}: {error}", set.join(" --set "))))?;
    let change = match (plan, &new) {
        (AnyPlan::Task(old), AnyPlan::Task(new)) => change(old, new, &asked),
        (AnyPlan::Language(old), AnyPlan::Language(new)) => change_language(old, new, &asked),
        _ => unreachable!("no key that is set makes a plan one of the other kind"),
    };
    if !change.is_allowed() {
        return Err(Failure { code: change.exit_code(), message: change.to_string() });
    }
    show.say(&change.to_string());
    Ok(new)
}

/// Says which older checkpoint is whole, where the newest of `steps` cannot be used.
fn with_older(error: heirloom_train::Error, run: &Path, steps: &[Step]) -> Failure {
    let mut failure = Failure::from(error);
    let whole = |step: &&Step| Committed::open_step(&RealDisk, run, **step).is_ok();
    let [older @ .., newest] = steps else { return failure };
    failure.message += &match older.iter().rev().find(whole) {
        Some(Step(step)) => format!(
            "; step {step} is whole: move `{}` away and resume again to go on from there",
            run.join(step_name(*newest)).display(),
        ),
        None => "; no older checkpoint is whole".to_owned(),
    };
    failure
}
