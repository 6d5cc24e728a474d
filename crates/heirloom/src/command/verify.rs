//! `heirloom verify`: every byte of what we wrote, against its digests.

use std::path::{Path, PathBuf};

use heirloom::answer::{Answerer, PLAN};
use heirloom::failure::Failure;
use heirloom_recipe::AnyPlan;
use heirloom_store::{MANIFEST, RealDisk, verify};
use serde_json::json;

use super::train::{SEEDS, SeedList};
use crate::args::VerifyArgs;
use crate::show::Show;

/// The file that makes a folder a model folder.
const CONFIG: &str = "config.json";
/// A model is opened to see that it can be; it reads nothing.
const NOTHING_TO_READ: usize = 2;

/// What a folder is, by the files in it.
enum Sort {
    /// Runs, one per seed.
    Seeds,
    Run,
    /// A checkpoint, or a model folder that we wrote.
    Committed,
    /// A model folder from elsewhere.
    Model,
}

/// What was found, as lines for people.
#[derive(Default)]
struct Found {
    damage: Vec<String>,
    /// What an ordinary crash leaves, and what cannot be checked.
    notes: Vec<String>,
}

pub(crate) fn run(args: &VerifyArgs, show: Show) -> Result<u8, Failure> {
    let folder = &args.folder;
    let mut found = Found::default();
    match sort(folder)? {
        Sort::Seeds => check_seeds(folder, &mut found)?,
        Sort::Run => check_run(folder, &mut found)?,
        Sort::Committed => check_digests(folder, &mut found)?,
        Sort::Model => {
            Answerer::open(folder, NOTHING_TO_READ, 1)?;
            found.notes.push(format!(
                "`{}` has no {MANIFEST}, so there are no digests to compare; its config, its \
                 tokenizer and every tensor can be read and belong together",
                folder.display()
            ));
        }
    }
    let whole = found.damage.is_empty();
    if show.json {
        show.json(&json!({ "whole": whole, "damage": found.damage, "notes": found.notes }));
    } else {
        for line in found.damage.iter().chain(&found.notes) {
            show.data(&format!("{line}\n"));
        }
        if whole {
            show.data(&format!("`{}` is whole\n", folder.display()));
        }
    }
    Ok(if whole { 0 } else { 3 })
}

fn sort(folder: &Path) -> Result<Sort, Failure> {
    let shown = folder.display();
    if !folder.exists() {
        return Err(Failure::usage(format!("`{shown}` is not there")));
    }
    if !folder.is_dir() {
        return Err(Failure::usage(format!("`{shown}` is a file; name the folder it lies in")));
    }
    let sorts = [
        (SEEDS, Sort::Seeds),
        (PLAN, Sort::Run),
        (MANIFEST, Sort::Committed),
        (CONFIG, Sort::Model),
    ];
    let known = sorts.into_iter().find(|(file, _)| folder.join(file).is_file());
    known.map(|(_, sort)| sort).ok_or_else(|| {
        Failure::usage(format!(
            "`{shown}` is nothing that can be verified: it holds no {PLAN} (a run), {SEEDS} (runs \
             over seeds), {MANIFEST} (a checkpoint) or {CONFIG} (a model)"
        ))
    })
}

fn check_digests(folder: &Path, found: &mut Found) -> Result<(), Failure> {
    for finding in verify(&RealDisk, folder)? {
        let lines = if finding.is_damage() { &mut found.damage } else { &mut found.notes };
        lines.push(finding.to_string());
    }
    Ok(())
}

fn check_run(folder: &Path, found: &mut Found) -> Result<(), Failure> {
    check_digests(folder, found)?;
    let plan = folder.join(PLAN);
    let text = read(&plan)?;
    if let Err(why) = AnyPlan::from_toml(&text) {
        found.damage.push(format!("`{}` holds no plan: {why}", plan.display()));
    }
    Ok(())
}

fn check_seeds(folder: &Path, found: &mut Found) -> Result<(), Failure> {
    check_digests(folder, found)?;
    let file = folder.join(SEEDS);
    let list: SeedList = match serde_json::from_str(&read(&file)?) {
        Ok(list) => list,
        Err(why) => {
            found.damage.push(format!("`{}` is not a list of seeds: {why}", file.display()));
            return Ok(());
        }
    };
    for seed in list.seeds {
        let run: PathBuf = folder.join(format!("seed-{seed}"));
        if run.join(PLAN).is_file() {
            check_run(&run, found)?;
        } else {
            found.notes.push(format!("`{}` has not begun", run.display()));
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::input(format!("cannot read `{}`: {error}", file.display())))
}
