//! `heirloom explain`: what is shown of a run with a balance policy or a regularizer, and what is
//! refused.
//!
//! A tiny student learns from a tiny teacher under AdaKD on labels a third of which are wrong.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use heirloom_base::Digest;
use serde_json::Value;

mod place;

use place::Place;

impl Place {
    fn new() -> Self {
        let place = Self::with_data();
        place.write("teacher.toml", &recipe("", "", 60));
        place.succeeds(&["train", "teacher.toml", "--into", "teacher"]);
        place
    }

    fn heirloom(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it printed, and what it said beside it.
    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> (String, String) {
        let output = self.heirloom(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (data, said) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?} ended with {}: {said}", output.status);
        (data, said)
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], expected: &str) {
        let output = self.heirloom(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

const TEACHER: &str = "[teacher]\nmodel = \"teacher/last\"\n";
const BALANCE: &str = "[objective.balance]\npolicy = \"ada_kd\"\n";

fn recipe(noise: &str, rest: &str, steps: u64) -> String {
    format!(
        "[task]\nkind = \"classification\"\npath = \".\"\ntrain = \"train.tsv\"\n\
         validation = \"dev.tsv\"\ntext = \"sentence\"\nlabel = \"label\"\nmax_length = 32\n\
         allow_overlap = true\n{noise}\n[tokenizer]\npath = \"words\"\n[student]\n\
         config = {{ model_type = \"bert\", hidden_size = 32, num_hidden_layers = 1, \
         num_attention_heads = 2, intermediate_size = 64, max_position_embeddings = 32 }}\n{rest}\
         [training]\nmax_steps = {steps}\nbatch_size = 12\nlearning_rate = 1e-3\n\
         save_steps = 10\neval_strategy = \"never\"\nseed = 7\n",
    )
}

/// Every file of a folder and what is in it.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), Digest::of(&fs::read(path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn explain_shows_both_ends_and_the_noise_and_changes_nothing() {
    let place = Place::new();
    let noise = "label_noise = 0.3";
    place.write("student.toml", &recipe(noise, &format!("{TEACHER}{BALANCE}"), 10));
    let (_, said) = place.succeeds(&["train", "student.toml", "--into", "run"]);
    assert!(said.contains("LABEL NOISE: "), "{said}");
    let before = contents(&place.path(""));
    let (json, _) = place.succeeds(&["explain", "run", "--top", "8", "--json"]);
    let (text, _) = place.succeeds(&["explain", "run", "--top", "8"]);
    assert_eq!(contents(&place.path("")), before);
    // Whoever goes on with the run hears of the noise again.
    let (_, said) = place.succeeds(&["resume", "run"]);
    assert!(said.contains("note: LABEL NOISE: "), "{said}");

    let explained: Value = serde_json::from_str(&json).unwrap();
    // Ten steps of twelve examples are less than one pass over 150.
    assert_eq!(explained["never_judged"], 30, "{explained}");
    assert_eq!(explained["policy"]["name"], "ada_kd");
    let noise = &explained["label_noise"];
    let count = |key: &str| noise[key].as_u64().unwrap();
    assert_eq!(count("wrong") + count("clean"), 120);
    let (most, least) = (rows(&explained, "most"), rows(&explained, "least"));
    assert_eq!((most.len(), least.len()), (8, 8));
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let shares: Vec<f64> =
        least.iter().chain(most.iter().rev()).map(|row| number(row, "share")).collect();
    assert!(shares.is_sorted() && shares[0] < shares[15], "{shares:?}");
    // AdaKD's share is the teacher's margin for the label, max(0, p − (1 − p)/(K − 1)) with three
    // classes or two: from the row alone it can be computed again.
    let file = fs::read_to_string(place.path("train.tsv")).unwrap();
    let classes = synthetic_classes(&file);
    for row in most.iter().chain(least) {
        let p = number(&row["teacher"], "of_label");
        let margin = (p - (1.0 - p) / (classes - 1.0)).max(0.0);
        // The answers that were kept are the same numbers, computed in other batches.
        assert!((number(row, "share") - margin).abs() < 1e-4, "{row}");
        let line = file.lines().nth(1 + row["example"].as_u64().unwrap() as usize).unwrap();
        let label = row["label_before_noise"].as_str().or(row["label"].as_str()).unwrap();
        assert_eq!(line, format!("{}\t{label}", row["text"].as_str().unwrap()));
    }
    for words in ["120 of 150 training examples", "trusted most", "trusted least", "AUC"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

fn rows<'a>(explained: &'a Value, end: &str) -> &'a [Value] {
    explained[end].as_array().unwrap()
}

/// How many labels the file has.
fn synthetic_classes(file: &str) -> f64 {
    let labels = file.lines().skip(1).filter_map(|line| line.rsplit('\t').next());
    labels.collect::<std::collections::BTreeSet<_>>().len() as f64
}

#[test]
fn explain_says_what_it_cannot_explain_and_what_to_name_instead() {
    let place = Place::new();
    place.refused(&["explain", "nowhere"], "`nowhere` is not a run folder");
    place.refused(&["explain", "teacher"], "without a balance policy");
    place.refused(&["explain", "teacher"], "[objective.balance] or [objective.regularizer]");
    let several =
        recipe("", &format!("{TEACHER}{BALANCE}"), 2).replace("seed = 7", "seeds = [3, 4]");
    place.write("several.toml", &several);
    place.succeeds(&["train", "several.toml", "--into", "several"]);
    place.refused(&["explain", "several"], "name one of them: `several/seed-3`, `several/seed-4`");
    place.succeeds(&["explain", "several/seed-4", "--top", "1"]);
    fs::remove_dir_all(place.path("several/seed-3/step-000000002")).unwrap();
    place.refused(&["explain", "several/seed-3"], "has no checkpoint yet");
}

#[test]
fn targets_of_a_regularizer_are_what_their_formula_says() {
    let place = Place::new();
    let labo = "[objective.regularizer]\nmethod = \"labo\"\nalpha = 0.3\ntemperature = 2\n";
    let noise = "label_noise = 0.3";
    place.write("student.toml", &recipe(noise, &format!("{TEACHER}{labo}"), 10));
    place.succeeds(&["train", "student.toml", "--into", "run"]);
    let before = contents(&place.path(""));
    let (json, _) = place.succeeds(&["explain", "run", "--top", "5", "--json"]);
    let (text, _) = place.succeeds(&["explain", "run", "--top", "5"]);
    assert_eq!(contents(&place.path("")), before);

    let told: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(told["examples"], 150, "all of them, also those no step has met");
    let names: Vec<&str> =
        told["classes"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let count = |key: &str| told["label_noise"][key].as_u64().unwrap();
    assert_eq!(count("wrong") + count("clean"), 150);
    let (most, least) = (rows(&told, "most"), rows(&told, "least"));
    assert_eq!((most.len(), least.len()), (5, 5));
    let numbers = |row: &Value, key: &str| -> Vec<f64> {
        row[key].as_array().unwrap().iter().map(|q| q.as_f64().unwrap()).collect()
    };
    for row in most.iter().chain(least) {
        let (q, s) = (numbers(row, "target"), numbers(row, "student"));
        assert!(!numbers(row, "teacher").is_empty());
        // softmax(z/2) is the root of softmax(z), normalised.
        let total: f64 = s.iter().map(|s| s.sqrt()).sum();
        let label = names.iter().position(|name| row["label"] == **name).unwrap();
        for (class, (q, s)) in q.iter().zip(&s).enumerate() {
            let want = 0.3 * s.sqrt() / total + if class == label { 0.7 } else { 0.0 };
            assert!((q - want).abs() < 1e-9, "{row}");
        }
        let moved = 1.0 - q[label];
        assert!((row["moved"].as_f64().unwrap() - moved).abs() < 1e-9, "{row}");
    }
    let moved: Vec<f64> =
        least.iter().chain(most.iter().rev()).map(|row| row["moved"].as_f64().unwrap()).collect();
    assert!(moved.is_sorted() && moved[0] < moved[9], "{moved:?}");
    for part in
        ["q = 0.7 y + 0.3 softmax(z/2)", "targets farthest from their label", "label noise: "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}
