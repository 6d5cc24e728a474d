//! One file per verb. Each returns the exit code, or why it failed.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod demo;
pub(crate) mod eval;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod grow;
pub(crate) mod ledger;
pub(crate) mod plan;
pub(crate) mod predict;
pub(crate) mod resume;
pub(crate) mod thrown_away;
pub(crate) mod tokenize;
pub(crate) mod tokenizer_compare;
pub(crate) mod tokenizer_train;
pub(crate) mod train;
pub(crate) mod verify;

use std::path::Path;

use heirloom::failure::Failure;
use heirloom::places::neighbour;
use heirloom_recipe::{Recipe, parse};

use crate::args::RecipeArgs;

/// The exit code of a run that was stopped on request: `EX_TEMPFAIL`, so that schedulers queue it
/// again.
pub(crate) const STOPPED: u8 = 75;

/// Reads and parses a recipe.
pub(crate) fn read_recipe(args: &RecipeArgs) -> Result<Recipe, Failure> {
    recipe_at(&args.recipe, &args.set)
}

/// Reads and parses the recipe in `path`.
pub(crate) fn recipe_at(path: &Path, set: &[String]) -> Result<Recipe, Failure> {
    let name = path.display().to_string();
    if path.is_dir() {
        return Err(Failure::usage(format!("`{name}` is a folder; a recipe is a TOML file")));
    }
    let bytes = std::fs::read(path).map_err(|error| {
        let next = if path.exists() {
            String::new()
        } else {
            neighbour(path).unwrap_or_else(|| {
                "; a recipe is a TOML file, of which the folder `recipes` of Heirloom's sources has \
                 one per feature"
                    .to_owned()
            })
        };
        Failure::usage(format!("cannot read the recipe `{name}`: {error}{next}"))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!("`{name}` is not UTF-8: byte {at} begins no character"))
    })?;
    Ok(parse(&name, &text, set)?)
}
