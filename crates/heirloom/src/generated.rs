//! The demo's task as files: a text classification whose true label distribution is known, for
//! examples and tests of whoever builds on the library.
//!
//! In: a folder, a seed, how many texts. Out: data and vocabulary in it, and a recipe that reads them.
//! Never: needs a file, or the network.

use std::path::Path;

use heirloom_data::synthetic::{CLASS_NAMES, SyntheticExample, generate, vocabulary};
use heirloom_recipe::{Problems, Recipe};
use heirloom_store::{RealDisk, write_atomic};

use crate::failure::Failure;

/// A recipe for the folder that [`write()`] fills: one layer, from labels alone, for two passes. `--set`
/// pairs make it another ([`recipe`]).
pub const RECIPE: &str = r#"
[task]
kind = "classification"
path = "task"
train = "train.tsv"
validation = "dev.tsv"
text = "sentence"
label = "label"
max_length = 32
allow_overlap = true

[tokenizer]
path = "words"

[student]
config = { model_type = "bert", num_hidden_layers = 1, hidden_size = 32, num_attention_heads = 2, max_position_embeddings = 32, initializer_range = 0.05 }

[training]
epochs = 2
batch_size = 32
learning_rate = 2e-3
seed = 1
"#;

/// Writes `task/train.tsv` and `task/dev.tsv`, of so many texts each, and `words/vocab.txt` into
/// `folder`. Equal arguments write equal bytes.
///
/// # Errors
/// Where the disk says no, or `folder` holds a task already.
pub fn write(folder: &Path, seed: u64, train: usize, dev: usize) -> Result<(), Failure> {
    let all = generate(seed, train + dev);
    let (dev, train) = all.split_at(dev);
    heirloom_store::new_folder(&RealDisk, &folder.join("task"))?;
    heirloom_store::new_folder(&RealDisk, &folder.join("words"))?;
    let put = |name: &str, text: &str| write_atomic(&RealDisk, &folder.join(name), text.as_bytes());
    put("task/train.tsv", &rows(train))?;
    put("task/dev.tsv", &rows(dev))?;
    put("words/vocab.txt", &vocabulary())?;
    Ok(())
}

fn rows(examples: &[SyntheticExample]) -> String {
    let row = |example: &SyntheticExample| {
        format!("{}\t{}\n", example.text, CLASS_NAMES[example.label as usize])
    };
    std::iter::once("sentence\tlabel\n".to_owned()).chain(examples.iter().map(row)).collect()
}

/// [`RECIPE`] with keys set as `--set` does: `"objective.alpha=0.5"`.
///
/// # Errors
/// All problems of the recipe, each with its key.
pub fn recipe(sets: &[&str]) -> Result<Recipe, Problems> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    heirloom_recipe::parse("generated", RECIPE, &sets)
}
