//! `heirloom verify`: every byte of what we wrote, against its digests.

use std::path::{Path, PathBuf};

use heirloom::answer::{Answerer, PLAN};
use heirloom::answers::{self, Kept};
use heirloom::failure::Failure;
use heirloom::language::open_config;
use heirloom_base::Bytes;
use heirloom_data::cache::TeacherCache;
use heirloom_data::text::Shards;
use heirloom_data::tokens::Tokenizer;
use heirloom_engine::Cpu;
use heirloom_models::Decoder;
use heirloom_recipe::AnyPlan;
use heirloom_store::{MANIFEST, RealDisk, TensorFolder, verify};
use heirloom_train::LanguageConfig;
use serde_json::json;

use super::train::{SEEDS, SeedList};
use crate::args::VerifyArgs;
use crate::show::Show;

/// The file that makes a folder a model folder.
const CONFIG: &str = "config.json";
/// The file that makes one kept tokens.
const TOKENS: &str = "tokens.json";
/// What the files of a classifier's kept answers end in.
const LOGITS: &str = ".logits";
/// What only a checkpoint has.
const PROGRESS: &str = "progress.json";
/// A model is opened to see that it can be; it reads nothing.
const NOTHING_TO_READ: usize = 2;

/// What a folder is, by the files in it.
enum Sort {
    /// Runs, one per seed.
    Seeds,
    Run,
    /// A language model's kept answers.
    Answers,
    /// Kept tokens of a text.
    Tokens,
    /// A classifier's kept answers.
    Logits,
    /// A checkpoint, or a model folder that we wrote.
    Committed,
    /// A model folder from elsewhere.
    Model,
}

/// What was found, as lines for people.
#[derive(Default)]
struct Found {
    /// What the folder is, and what of it was looked at.
    what: String,
    damage: Vec<String>,
    /// What an ordinary crash leaves, and what cannot be checked.
    notes: Vec<String>,
}

pub(crate) fn run(args: &VerifyArgs, show: Show) -> Result<u8, Failure> {
    let folder = &args.folder;
    let mut found = Found::default();
    match sort(folder)? {
        Sort::Seeds => check_seeds(folder, &mut found)?,
        Sort::Run => {
            check_run(folder, &mut found)?;
            found.what =
                "a run: its plan, each line of its records, every byte of its checkpoints and \
                          models"
                    .to_owned();
        }
        Sort::Answers => check_answers(folder, &mut found)?,
        Sort::Tokens => check_tokens(folder, &mut found)?,
        Sort::Logits => check_logits(folder, &mut found)?,
        Sort::Committed => {
            check_digests(folder, &mut found)?;
            let checkpoint = folder.join(PROGRESS).is_file();
            let what = if checkpoint { "a checkpoint" } else { "a model folder" };
            found.what = format!("{what}: every byte");
        }
        Sort::Model => {
            open_model(folder)?;
            found.what = "a model folder: every tensor was read".to_owned();
            found.notes.push(format!(
                "`{}` has no {MANIFEST}, so there are no digests to compare; its config, its \
                 tokenizer and every tensor can be read and belong together",
                folder.display()
            ));
        }
    }
    let whole = found.damage.is_empty();
    if show.json {
        show.json(&json!({ "whole": whole, "what": found.what, "damage": found.damage, "notes": found.notes }));
    } else {
        for line in found.damage.iter().chain(&found.notes) {
            show.data(&format!("{line}\n"));
        }
        if whole {
            show.data(&format!("`{}` is whole: {}\n", folder.display(), found.what));
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
        (answers::ABOUT, Sort::Answers),
        (TOKENS, Sort::Tokens),
        (MANIFEST, Sort::Committed),
        (CONFIG, Sort::Model),
    ];
    let known = sorts.into_iter().find(|(file, _)| folder.join(file).is_file());
    if let Some((_, sort)) = known {
        return Ok(sort);
    }
    if !logits(folder)?.is_empty() {
        return Ok(Sort::Logits);
    }
    Err(Failure::usage(format!(
        "`{shown}` is nothing that can be verified: it holds no {PLAN} (a run), {SEEDS} (runs over \
         seeds), {abouts} (kept answers), {TOKENS} (kept tokens), file in {LOGITS} (a classifier's kept \
         answers), {MANIFEST} (a checkpoint) or {CONFIG} (a model)",
        abouts = answers::ABOUT,
    )))
}

/// Files of a classifier's kept answers, in order.
fn logits(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::input(format!("cannot read `{}`: {error}", folder.display()))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.is_file() && path.to_string_lossy().ends_with(LOGITS) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A model from elsewhere has no digests; that it can be opened is all that is known.
fn open_model(folder: &Path) -> Result<(), Failure> {
    let Ok(LanguageConfig::Decoder(config)) = open_config(folder) else {
        Answerer::open(folder, NOTHING_TO_READ, 1)?;
        return Ok(());
    };
    Tokenizer::open(folder)?;
    let mut device = Cpu::new(1);
    let model = Decoder::new(&mut device, config);
    model.load(&mut device, &TensorFolder::open(folder)?, &|name| name.to_owned())?;
    Ok(())
}

fn check_answers(folder: &Path, found: &mut Found) -> Result<(), Failure> {
    let checked = Kept::open_any(folder).and_then(|kept| kept.check().map(|()| kept));
    match checked {
        Ok(kept) => {
            found.what = format!(
                "kept answers to {} tokens, {} rows of {}, {}: every block; digest {}",
                kept.tokens(),
                kept.held().len(),
                kept.about().row_count,
                Bytes(kept.bytes()),
                kept.digest()
            );
        }
        // That the disk refused says nothing of the folder.
        Err(answers::Error::Store(error)) => return Err(error.into()),
        Err(error) => found.damage.push(error.to_string()),
    }
    Ok(())
}

fn check_tokens(folder: &Path, found: &mut Found) -> Result<(), Failure> {
    check_digests(folder, found)?;
    if !found.damage.is_empty() {
        return Ok(());
    }
    let shards = Shards::open(&RealDisk, folder)?;
    let (counts, content) = (shards.about().counts, shards.about().content);
    found.what = format!(
        "kept tokens: {} of {} documents, every byte; digest {content}",
        counts.tokens, counts.documents
    );
    Ok(())
}

fn check_logits(folder: &Path, found: &mut Found) -> Result<(), Failure> {
    let (files, mut examples) = (logits(folder)?, 0);
    for file in &files {
        let bytes = std::fs::read(file).map_err(|error| {
            Failure::input(format!("cannot read `{}`: {error}", file.display()))
        })?;
        match TeacherCache::from_bytes(&bytes) {
            Ok(cache) => examples += cache.examples(),
            Err(error) => found.damage.push(format!("`{}`: {error}", file.display())),
        }
    }
    found.what = format!(
        "a classifier's kept answers: {examples} examples in {} files, every byte",
        files.len()
    );
    Ok(())
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
    found.what = format!(
        "runs over {} seeds: plans, each line of records, every byte of checkpoints and models",
        list.seeds.len()
    );
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
