//! The memory that a plan foresees is the memory that its run takes.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;
use std::process::Command;

use heirloom_data::synthetic;
use serde_json::Value;

/// How far the two may be apart. What is not counted: the loop's own small lists, buffers of files,
/// and what the allocator keeps between two uses.
const SHARE: f64 = 0.05;

/// A student of eight layers, so that the model dominates; two steps, evaluated and saved.
const RECIPE: &str = r#"
name = "memory"
[task]
kind = "classification"
path = "."
train = "train.tsv"
validation = "dev.tsv"
text = "sentence"
label = "label"
allow_overlap = true
[tokenizer]
path = "words"
[student]
config = { model_type = "bert", hidden_size = 384, num_hidden_layers = 8, num_attention_heads = 6 }
[training]
max_steps = 2
batch_size = 64
eval_strategy = "end"
"#;

fn heirloom(root: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heirloom"));
    let command = command.args(arguments).args(["--json", "--quiet"]).current_dir(root);
    let output =
        command.env_remove("HEIRLOOM_DATA").env_remove("HEIRLOOM_MODELS").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_plan_foresees_the_memory_of_its_run_within_five_percent() {
    let root = tempfile::tempdir().unwrap();
    for (name, seed, count) in [("train", 1, 300), ("dev", 2, 60)] {
        let mut text = "sentence\tlabel\n".to_owned();
        for example in synthetic::generate(seed, count) {
            text += &format!("{}\tc{}\n", example.text, example.label);
        }
        fs::write(root.path().join(format!("{name}.tsv")), text).unwrap();
    }
    fs::create_dir(root.path().join("words")).unwrap();
    fs::write(root.path().join("words/vocab.txt"), synthetic::vocabulary()).unwrap();
    fs::write(root.path().join("recipe.toml"), RECIPE).unwrap();
    let mut planned = Vec::new();
    let [again, average] = ["activation_checkpointing", "average"];
    for (run, key, value) in [(0, again, "false"), (1, again, "true"), (2, average, "ema")] {
        let set = format!("training.{key}={value}");
        let plan = heirloom(root.path(), &["plan", "recipe.toml", "--set", &set]);
        let foreseen = plan["memory"]["total"].as_f64().unwrap();
        let run = format!("run-{run}");
        let arguments = ["train", "recipe.toml", "--into", &run, "--set", &set];
        let told = heirloom(root.path(), &arguments);
        let peak = told["runs"][0]["peak_memory"].as_f64().unwrap();
        assert!((foreseen / peak - 1.0).abs() <= SHARE, "{foreseen} planned, {peak} taken, {set}");
        planned.push(foreseen);
    }
    assert!(planned[1] < 0.8 * planned[0], "layers computed again take less: {planned:?}");
    assert!(planned[2] > 1.05 * planned[0], "an average takes more: {planned:?}");
}
