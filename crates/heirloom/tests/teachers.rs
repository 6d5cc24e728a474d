//! Several teachers: each answers for itself, has a term and a share of its own, and may read with
//! its own tokenizer.
//!
//! Tiny teachers that differ by seed; what they say together is held against runs that hear one.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;

use heirloom_store::{Array, Draft, DraftFile, RealDisk, TensorFile, write_tensors};
use serde_json::Value;

mod place;
#[path = "place/runs.rs"]
mod runs;

use place::Place;

impl Place {
    /// Teachers `one` and `two`.
    fn new() -> Self {
        let place = Self::with_data();
        for (name, seed) in [("one", 1), ("two", 2)] {
            place.write("teacher.toml", &recipe("", 20, seed));
            place.succeeds(&["train", "teacher.toml", "--into", name]);
        }
        place
    }

    /// Trains a student with these keys beside the usual ones; the record's steps.
    #[track_caller]
    fn student(&self, name: &str, rest: &str, steps: u64) -> Vec<Value> {
        self.write("student.toml", &recipe(rest, steps, 7));
        self.succeeds(&["train", "student.toml", "--into", name]);
        self.steps(name)
    }
}

fn recipe(rest: &str, steps: u64, seed: u64) -> String {
    format!(
        "[task]\nkind = \"classification\"\npath = \".\"\ntrain = \"train.tsv\"\n\
         validation = \"dev.tsv\"\ntext = \"sentence\"\nlabel = \"label\"\nmax_length = 32\n\
         allow_overlap = true\n[tokenizer]\npath = \"words\"\n[student]\n\
         config = {{ model_type = \"bert\", hidden_size = 32, num_hidden_layers = 1, \
         num_attention_heads = 2, intermediate_size = 64, max_position_embeddings = 32 }}\n{rest}\
         [training]\nmax_steps = {steps}\nbatch_size = 12\nmicro_batch_size = 5\n\
         learning_rate = 1e-3\nsave_steps = 5\neval_strategy = \"never\"\nseed = {seed}\n",
    )
}

fn teacher(name: &str, keys: &str) -> String {
    format!("[[teacher]]\nmodel = \"{name}/last\"\n{keys}")
}

fn two(first: &str, second: &str, objective: &str) -> String {
    format!("{}{}{objective}", teacher("one", first), teacher("two", second))
}

const RW_KD: &str = "[objective]\nalpha = 0.6\n[objective.balance]\npolicy = \"rw_kd\"\nema = 0.5\n\
                     [objective.balance.meta]\nsource = \"split\"\nsplit = 0.2\nevery = 3\n";

#[test]
fn each_teacher_has_the_term_it_would_have_alone_and_its_part_of_the_weight() {
    let place = Place::new();
    let objective = "[objective]\nalpha = 0.6\n";
    let mean = |steps: &[Value], term: &str| steps[0]["terms"][term]["mean"].as_f64().unwrap();
    let alone = |name: &str| {
        let steps =
            place.student(&format!("of-{name}"), &format!("{}{objective}", teacher(name, "")), 1);
        mean(&steps, "teacher")
    };
    let (one, two_alone) = (alone("one"), alone("two"));
    assert!((one - two_alone).abs() > 1e-6, "the teachers differ");
    for (at, (first, second, part)) in [
        ("", "", 0.5),
        ("weight = 3\n", "", 0.75),
        ("logits = \"live\"\n", "logits = \"live\"\n", 0.5),
    ]
    .into_iter()
    .enumerate()
    {
        let steps = place.student(&format!("both-{at}"), &two(first, second, objective), 1);
        // The first step is from the same weights, with the same dropout.
        assert!((mean(&steps, "teacher[0]") - one).abs() < 1e-6);
        assert!((mean(&steps, "teacher[1]") - two_alone).abs() < 1e-6);
        let want = 0.4 * mean(&steps, "label") + 0.6 * (part * one + (1.0 - part) * two_alone);
        let got = steps[0]["loss"].as_f64().unwrap();
        assert!((got - want).abs() < 1e-6, "{got}, should be {want}");
    }
    // A fixed policy is the same run.
    let fixed = "[objective]\nalpha = 0.6\n[objective.balance]\npolicy = \"fixed\"\n";
    let plain = place.student("plain", &two("", "weight = 3\n", objective), 10);
    let fixed = place.student("fixed", &two("", "weight = 3\n", fixed), 10);
    for (plain, fixed) in plain.iter().zip(&fixed) {
        let difference = plain["loss"].as_f64().unwrap() - fixed["loss"].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "{plain}\n{fixed}");
        let shares: Vec<f64> =
            serde_json::from_value(fixed["balance"]["teachers"].clone()).unwrap();
        assert!((shares[0] - 0.15).abs() < 1e-12 && (shares[1] - 0.45).abs() < 1e-12, "{shares:?}");
    }
    // The list of one is the table.
    let table = format!("[teacher]\nmodel = \"one/last\"\n{objective}");
    place.student("table", &table, 5);
    place.student("list", &format!("{}{objective}", teacher("one", "")), 5);
    assert_eq!(place.record("table"), place.record("list"));
}

#[test]
fn shares_of_each_teacher_are_shown_and_survive_an_interruption() {
    let place = Place::new();
    let steps = place.student("whole", &two("", "weight = 2\n", RW_KD), 12);
    for step in &steps {
        let shares = &step["balance"]["teachers"];
        let sum = shares[0].as_f64().unwrap() + shares[1].as_f64().unwrap();
        assert!((sum - step["balance"]["mean"].as_f64().unwrap()).abs() < 1e-12, "{step}");
    }
    let explained: Value =
        serde_json::from_str(&place.succeeds(&["explain", "whole", "--top", "3", "--json"]))
            .unwrap();
    assert_eq!(explained["teachers"].as_array().unwrap().len(), 2);
    let row = &explained["most"][0];
    assert_eq!(row["other_teachers"].as_array().unwrap().len(), 1);
    let shares: Vec<f64> = serde_json::from_value(row["teacher_shares"].clone()).unwrap();
    assert!((shares[0] + shares[1] - row["share"].as_f64().unwrap()).abs() < 1e-12, "{row}");
    let text = place.succeeds(&["explain", "whole", "--top", "3"]);
    assert!(text.contains("λ of teacher[1]: mean") && text.contains("λ[0]"), "{text}");
    let plan = place.succeeds(&["plan", "student.toml"]);
    assert!(plan.contains("[1] bert, 1 layers"), "{plan}");
    assert!(plan.contains("0.666666666667 of the teachers' weight"), "{plan}");

    // Cut between two measurements, at the checkpoint of step 5, and taken up again.
    place.write("student.toml", &recipe(&two("", "weight = 2\n", RW_KD), 12, 7));
    place.succeeds(&["train", "student.toml", "--into", "cut"]);
    for entry in fs::read_dir(place.path("cut")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "step-000000005" {
            fs::remove_dir_all(path).unwrap();
        }
    }
    place.succeeds(&["resume", "cut"]);
    assert_eq!(place.record("cut"), place.record("whole"));
    let weights = |run: &str| fs::read(place.path(run).join("last/model.safetensors")).unwrap();
    assert!(weights("cut") == weights("whole"), "the weights differ");
}

/// Word number `at` of the vocabulary and the one after change places, in the tokenizer and in the
/// model's table: another tokenizer, and the same answers.
fn swap_words(model: &Path, at: usize) {
    let mut words: Vec<String> =
        heirloom_data::synthetic::vocabulary().lines().map(str::to_owned).collect();
    words.swap(at, at + 1);
    fs::write(model.join("vocab.txt"), words.join("\n") + "\n").unwrap();
    fs::remove_file(model.join("tokenizer.json")).unwrap();
    let file = model.join("model.safetensors");
    let read = TensorFile::open(&file).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = read
        .names()
        .map(|name| {
            let shape = read.shape(name).unwrap().to_vec();
            let mut values = read.read_f32(name).unwrap();
            if name.ends_with("word_embeddings.weight") {
                let (before, after) = values[at * shape[1]..].split_at_mut(shape[1]);
                before.swap_with_slice(&mut after[..shape[1]]);
            }
            (name.to_owned(), shape, values)
        })
        .collect();
    let arrays: Vec<Array<'_>> =
        tensors.iter().map(|(name, shape, values)| Array::f32(name, shape, values)).collect();
    let made = model.join("made");
    let mut draft = Draft::begin(&RealDisk, &made, heirloom_base::Bytes(0)).unwrap();
    let put = |file: &mut DraftFile<'_>| write_tensors(file, &arrays, &[("format", "pt")]);
    draft.put_with("model.safetensors", put).unwrap();
    draft.commit(heirloom_store::About::default()).unwrap();
    fs::rename(made.join("model.safetensors"), &file).unwrap();
    fs::remove_dir_all(made).unwrap();
}

#[test]
fn a_teacher_may_read_with_its_own_tokenizer() {
    let place = Place::new();
    let shared = place.student("shared", &two("", "", RW_KD), 8);
    swap_words(&place.path("two/last"), 20);
    place.write("student.toml", &recipe(&two("", "", RW_KD), 8, 7));
    let refused = place.heirloom(&["plan", "student.toml"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("(`tokenizer = \"own\"`)"), "{said}");
    let own = place.student("own", &two("", "tokenizer = \"own\"\n", RW_KD), 8);
    assert_eq!(own, shared);
    place.succeeds(&["resume", "own"]);
    let explained = |run| -> Value {
        serde_json::from_str(&place.succeeds(&["explain", run, "--json"])).unwrap()
    };
    assert_eq!(explained("own")["most"][0]["other_teachers"].as_array().unwrap().len(), 1);
    // A policy of one teacher refuses two before anything is opened.
    place.write(
        "student.toml",
        &recipe(&two("", "", "[objective.balance]\npolicy = \"wsl\"\n"), 8, 7),
    );
    let refused = place.heirloom(&["plan", "student.toml"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("needs one `[teacher]` for wsl"), "{said}");
}
