//! Kept answers and the rows that a run reads: which must be answered, and what to do where some are
//! not.

use std::collections::BTreeSet;
use std::path::PathBuf;

use heirloom_answers::{About, Kept, Kind, Values};
use heirloom_base::Tokens;
use heirloom_data::text::Rows;
use heirloom_models::DecoderConfig;
use heirloom_recipe::{Recipe, TrainingPlan, language_steps};
use heirloom_train::{rows_of_run, rows_read};

use super::steps_per_epoch;
use crate::answer::model_folder;
use crate::failure::Failure;
use crate::opened::weights_digest;
use crate::places::Places;

/// Tokens that a teacher reads at a time where nothing is said.
pub const BATCH_TOKENS: u64 = 2048;

/// The rows of `rows` that runs of `recipe` read, one with each of `seeds`; ascending.
///
/// # Errors
/// Where the recipe has no run over so many rows.
pub fn rows_of_runs(recipe: &Recipe, rows: &dyn Rows, seeds: &[u64]) -> Result<Vec<u32>, Failure> {
    let tokens = Tokens((0..rows.len()).map(|row| rows.length(row) as u64).sum());
    let steps = |seed: u64| {
        let per_epoch = steps_per_epoch(recipe, rows, seed);
        language_steps(recipe, (rows.len() as u64, tokens), per_epoch)
    };
    let mut read = BTreeSet::new();
    // Runs of one recipe are as long as its first seed's; one with the seed for its own may be longer.
    let first = steps(recipe.seeds()[0])?;
    for &seed in seeds {
        let steps = first.max(steps(seed)?);
        read.extend(rows_read(rows, recipe.batches().0, steps, seed));
    }
    Ok(read.into_iter().collect())
}

/// Refuses answers that have none to some row of a run, one with each of `seeds`, and says how they are
/// added. `recipe` is the file, where there is one.
pub(super) fn check_rows(
    kept: &Kept,
    rows: &dyn Rows,
    training: &TrainingPlan,
    seeds: &[u64],
    recipe: Option<&str>,
) -> Result<(), Failure> {
    let (mut read, mut missing, mut which) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for &seed in seeds {
        let of_run = rows_of_run(rows, &TrainingPlan { seed, ..training.clone() });
        let lost = |row: &u32| !kept.held().has(*row as usize);
        if of_run.iter().any(lost) {
            which.push(seed.to_string());
        }
        missing.extend(of_run.iter().copied().filter(lost));
        read.extend(of_run);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let seeds = which.join(",");
    let (folder, recipe) = (kept.folder().display(), recipe.unwrap_or("RECIPE"));
    let teacher = kept.held().teacher_folder().unwrap_or("TEACHER");
    Err(Failure::input(format!(
        "the answers in `{folder}` miss {} of the {} rows that the run reads (seed {seeds}); add them, with \
         the `--set` of this run, by\n  heirloom cache --teacher {teacher} --recipe {recipe} \
         --seeds {seeds} --out {folder}{}",
        missing.len(),
        read.len(),
        flags(kept.about()),
    )))
}

/// The head of the teacher whose hidden states are kept: its folder as it is named, where that is, and
/// its config without layers. `named`, under `key`, comes before what the folder itself says. `None` where
/// answers name tokens.
pub(super) fn head_of(
    kept: &Kept,
    places: &Places,
    (key, named): (&str, Option<&str>),
) -> Result<Option<(String, PathBuf, DecoderConfig)>, Failure> {
    let Kind::States { width } = kept.about().kind else { return Ok(None) };
    let shown = kept.folder().display();
    let Some(name) = named.or(kept.held().teacher_folder()) else {
        return Err(Failure::usage(format!(
            "`{shown}` holds hidden states and does not say where their teacher is; name its folder in \
             `{key}`"
        )));
    };
    let folder = model_folder(&places.model(key, name)?)?;
    let (wanted, found) = (kept.about().teacher, weights_digest(&folder)?);
    if found != wanted {
        return Err(Failure::input(format!(
            "the teacher in `{}` has other weights ({}) than the one whose hidden states are kept in \
             `{shown}` ({}); name that one in `{key}`, or keep the states again",
            folder.display(),
            found.short(),
            wanted.short(),
        )));
    }
    let config = DecoderConfig::open(&folder)?;
    assert_eq!(config.hidden_size, width as usize, "equal weights are equally wide");
    let config = DecoderConfig { layers: 0, windows: Vec::new(), ..config };
    Ok(Some((name.to_owned(), folder, config)))
}

/// What `heirloom cache` must be told so that it keeps what `about` says; each with a blank before it.
fn flags(about: &About) -> String {
    let (mut flags, usual) = match about.kind {
        Kind::TopK { k } => (format!(" --top-k {k}"), Values::Byte),
        Kind::Samples { draws, proposal } => {
            let mut flags = format!(" --samples {draws}");
            if proposal != 1.0 {
                flags += &format!(" --proposal-temperature {proposal}");
            }
            if about.seed != 1 {
                flags += &format!(" --seed {}", about.seed);
            }
            (flags, Values::Byte)
        }
        Kind::States { .. } => (" --states".to_owned(), Values::Bf16),
    };
    if about.values != usual {
        let values = match about.values {
            Values::Byte => "byte",
            Values::Bf16 => "bf16",
            Values::F32 => "f32",
        };
        flags += &format!(" --values {values}");
    }
    if about.batch_tokens != BATCH_TOKENS {
        flags += &format!(" --batch-tokens {}", about.batch_tokens);
    }
    flags
}
