//! Texts without labels, and teachers whose answers lie in a file.
//!
//! A tiny teacher; what is learnt from the file of its answers is held against what is learnt from
//! itself.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;

use heirloom_data::synthetic;
use serde_json::Value;

mod place;
#[path = "place/runs.rs"]
mod runs;

use place::Place;

/// Texts without a label.
const MORE: usize = 60;

impl Place {
    /// A teacher in `teacher/last`, texts in `more.tsv`, and the teacher's answers to all of them in
    /// `answers.jsonl`.
    fn new() -> Self {
        let place = Self::with_data();
        let texts: Vec<String> =
            synthetic::generate(9, MORE).into_iter().map(|example| example.text).collect();
        place.write("more.tsv", &format!("sentence\n{}\n", texts.join("\n")));
        place.write("recipe.toml", &recipe("", 20));
        place.succeeds(&["train", "recipe.toml", "--into", "teacher"]);
        let labelled = fs::read_to_string(place.path("train.tsv")).unwrap();
        let labelled = labelled.lines().skip(1).map(|line| line.split('\t').next().unwrap());
        let all: Vec<&str> = labelled.chain(texts.iter().map(String::as_str)).collect();
        place.write("texts", &all.join("\n"));
        let mut predict = place.command(&["predict", "teacher/last"]);
        let output = predict.stdin(fs::File::open(place.path("texts")).unwrap()).output().unwrap();
        place.write("answers.jsonl", std::str::from_utf8(&output.stdout).unwrap());
        place
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.heirloom(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    }

    /// The record of a student with these keys beside the usual ones.
    #[track_caller]
    fn student(&self, name: &str, rest: &str) -> Vec<Value> {
        self.write("student.toml", &recipe(rest, 14));
        self.succeeds(&["train", "student.toml", "--into", name]);
        self.steps(name)
    }
}

/// Keys of `[task]` come first in `rest`, up to the next table.
fn recipe(rest: &str, steps: u64) -> String {
    format!(
        "[tokenizer]\npath = \"words\"\n[student]\nconfig = {{ model_type = \"bert\", \
         hidden_size = 32, num_hidden_layers = 1, num_attention_heads = 2, intermediate_size = 64, \
         max_position_embeddings = 32 }}\n[training]\nmax_steps = {steps}\nbatch_size = 15\n\
         micro_batch_size = 4\nlearning_rate = 1e-3\nsave_steps = 5\neval_strategy = \"never\"\n\
         seed = 7\n[task]\nkind = \"classification\"\npath = \".\"\ntrain = \"train.tsv\"\n\
         validation = \"dev.tsv\"\ntext = \"sentence\"\nlabel = \"label\"\nmax_length = 32\n\
         allow_overlap = true\n{rest}",
    )
}

const MODEL: &str = "[teacher]\nmodel = \"teacher/last\"\n";
const ANSWERS: &str = "[teacher]\nanswers = \"answers.jsonl\"\n";
const UNLABELLED: &str = "unlabelled = \"more.tsv\"\n";
const RW_KD: &str = "[objective]\nalpha = 0.6\n[objective.balance]\npolicy = \"rw_kd\"\nema = 0.5\n\
                     [objective.balance.meta]\nsource = \"split\"\nsplit = 0.2\nevery = 3\n";

#[test]
fn a_file_of_answers_teaches_as_the_model_that_gave_them() {
    let place = Place::new();
    for (name, rest) in [("plain", ""), ("rw-kd", RW_KD)] {
        let of = |teacher: &str| format!("{UNLABELLED}{teacher}{rest}");
        let model = place.student(&format!("{name}-model"), &of(MODEL));
        let file = place.student(&format!("{name}-file"), &of(ANSWERS));
        assert_eq!(model.len(), 14);
        for (model, file) in model.iter().zip(&file) {
            let [one, two] = [model, file].map(|step| step["loss"].as_f64().unwrap());
            assert!((one - two).abs() < 1e-5, "{name}: {one} from the model, {two} from the file");
        }
    }
    // Another order of lines is the same file for everybody.
    let answers = fs::read_to_string(place.path("answers.jsonl")).unwrap();
    let turned: Vec<&str> = answers.lines().rev().collect();
    place.write("turned.jsonl", &turned.join("\n"));
    let turned = ANSWERS.replace("answers.jsonl", "turned.jsonl");
    place.student("turned", &format!("{UNLABELLED}{turned}"));
    assert_eq!(place.record("turned"), place.record("plain-file"));
    // Beside a model it is one of several teachers.
    let two = format!("{UNLABELLED}[{}[{}", MODEL.replace("]", "]]"), ANSWERS.replace("]", "]]"));
    let steps = place.student("two", &two);
    let term = |name: &str| steps[0]["terms"][name]["mean"].as_f64().unwrap();
    assert!((term("teacher[0]") - term("teacher[1]")).abs() < 1e-6, "{}", steps[0]);
    // Who answers is shown; so is what they said.
    let explained: Value =
        serde_json::from_str(&place.succeeds(&["explain", "rw-kd-file", "--json"])).unwrap();
    let by_model: Value =
        serde_json::from_str(&place.succeeds(&["explain", "rw-kd-model", "--json"])).unwrap();
    let said = |explained: &Value| explained["most"][0]["teacher"]["probability"].as_f64().unwrap();
    assert!((said(&explained) - said(&by_model)).abs() < 1e-5, "{explained}");
}

#[test]
fn texts_without_a_label_are_taught_by_the_teacher_alone() {
    let place = Place::new();
    let few = format!("train_limit = 30\n{UNLABELLED}");
    let steps = place.student("few", &format!("{few}{MODEL}[objective]\nalpha = 0.9\n"));
    let mut labels = 0;
    for step in &steps {
        let count = |term: &str| step["terms"][term]["count"].as_u64().unwrap();
        assert_eq!(count("teacher"), step["sequences"].as_u64().unwrap(), "{step}");
        labels += count("label");
        // A mean over the labels that there are; a step without one hears the teacher alone.
        let mean = |term: &str| step["terms"][term]["mean"].as_f64().unwrap_or(0.0);
        let want = 0.1 * mean("label") + 0.9 * mean("teacher");
        let got = step["loss"].as_f64().unwrap();
        assert!((got - want).abs() < 1e-6, "{got}, should be {want}: {step}");
    }
    // 14 steps of 15 are two passes over 90 texts, and 30 of a third: each label is seen twice, and
    // some of them once more.
    assert!((60..=90).contains(&labels), "{labels} labels were seen");
    let plan = place.succeeds(&["plan", "student.toml"]);
    assert!(plan.contains("train.tsv: 90 examples"), "{plan}");
    assert!(plan.contains("the first 30 after the shuffle of train.tsv"), "{plan}");
    assert!(plan.contains("60 of them without a label: the texts of more.tsv"), "{plan}");
    // A label column is not read, and a limit is the texts' own.
    let all = "train_limit = 30\nunlabelled = \"train.tsv\"\nunlabelled_limit = 20\n";
    let steps = place.student("all", &format!("{all}{MODEL}"));
    let first = &steps[0]["terms"];
    assert!(first["label"]["count"].as_u64() < first["teacher"]["count"].as_u64(), "{first}");
    let plan = place.succeeds(&["plan", "student.toml"]);
    assert!(plan.contains("20 of them without a label"), "{plan}");
    // Whoever reads the run finds them again.
    place.succeeds(&["verify", "few"]);
    place.succeeds(&["train", "student.toml", "--smoke"]);
    // With every policy they have the teacher's loss, and none from a label.
    for policy in ["fixed", "uncertainty", "wsl", "dynamic_kd", "tgeo_kd", "grad_norm"] {
        let rest = format!("{few}{MODEL}[objective.balance]\npolicy = \"{policy}\"\n");
        let rest = if policy == "tgeo_kd" {
            format!("{rest}[objective.balance.meta]\nsource = \"split\"\nsplit = 0.3\n")
        } else {
            rest
        };
        let steps = place.student(policy, &rest);
        assert!(steps.iter().all(|step| step["loss"].is_number()), "{policy}");
    }
}

#[test]
fn texts_without_labels_may_be_all_there_is() {
    let place = Place::new();
    let alone = |keys: &str| {
        recipe(&format!("{keys}{UNLABELLED}{ANSWERS}"), 14).replace("train = \"train.tsv\"\n", "")
    };
    let labels = "labels = [\"c0\", \"c1\", \"c2\", \"c3\"]\n";
    place.write("student.toml", &alone(labels).replace("\"never\"", "\"end\""));
    let plan = place.succeeds(&["plan", "student.toml"]);
    assert!(
        plan.contains("more.tsv: 60 examples") && plan.contains("none of them has a label"),
        "{plan}"
    );
    place.succeeds(&["train", "student.toml", "--into", "alone"]);
    let record = place.record("alone");
    for line in record.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["kind"] == "step" {
            let teacher = line["terms"]["teacher"]["mean"].as_f64().unwrap();
            let loss = line["loss"].as_f64().unwrap();
            assert!((loss - teacher).abs() < 1e-9 && line["terms"]["label"].is_null(), "{line}");
        }
    }
    assert!(record.contains("\"accuracy\""), "{record}");
    place.succeeds(&["eval", "alone"]);
    place.succeeds(&["train", "student.toml", "--smoke"]);
    // Nobody can say which classes there are, or what a label is worth.
    place.write("student.toml", &alone(""));
    let said = place.refused(&["plan", "student.toml", "--set", "objective.alpha=0.5"], 2);
    assert!(
        said.contains("`task.labels` is missing: names of the classes, in the order of"),
        "{said}"
    );
    assert!(said.contains("`objective.alpha` needs `task.train`, a file with labels"), "{said}");
}

#[test]
fn a_run_goes_on_with_the_answers_and_texts_it_began_with_and_no_others() {
    let place = Place::new();
    let rest = format!("train_limit = 30\n{UNLABELLED}{ANSWERS}{RW_KD}");
    place.student("whole", &rest);
    place.student("cut", &rest);
    for entry in fs::read_dir(place.path("cut")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "step-000000005" {
            fs::remove_dir_all(path).unwrap();
        }
    }
    fs::remove_dir_all(place.path("teacher")).unwrap();
    let texts = fs::read_to_string(place.path("more.tsv")).unwrap();
    let answers = fs::read_to_string(place.path("answers.jsonl")).unwrap();
    place.write("more.tsv", &texts.replacen("sentence\n", "sentence\nw1\n", 1));
    place
        .write("answers.jsonl", &format!("{answers}{{\"text\": \"w1\", \"logits\": [0,0,0,0]}}\n"));
    let said = place.refused(&["resume", "cut"], 3);
    assert!(said.contains("data in `"), "{said}");
    place.write("more.tsv", &texts);
    let said = place.refused(&["resume", "cut"], 3);
    assert!(said.contains("answers in `"), "{said}");
    place.write("answers.jsonl", &answers);
    place.succeeds(&["resume", "cut"]);
    assert_eq!(place.record("cut"), place.record("whole"));
    let weights = |run: &str| fs::read(place.path(run).join("last/model.safetensors")).unwrap();
    assert!(weights("cut") == weights("whole"), "the weights differ");
}

#[test]
fn what_is_not_answered_and_labels_that_are_empty_are_refused() {
    let place = Place::new();
    let answers = fs::read_to_string(place.path("answers.jsonl")).unwrap();
    let lines: Vec<&str> = answers.lines().collect();
    place.write("answers.jsonl", &lines[..150].join("\n"));
    place.write("student.toml", &recipe(&format!("{UNLABELLED}{ANSWERS}"), 2));
    let said = place.refused(&["plan", "student.toml"], 3);
    let text: Value = serde_json::from_str(lines[150]).unwrap();
    let begins: String = text["text"].as_str().unwrap().chars().take(40).collect();
    assert!(said.contains("has no answer to 60 of 210 training examples"), "{said}");
    assert!(said.contains(&begins), "{said}");
    let said = place.refused(&["plan", "student.toml", "--set", "teacher.answers=answer.jsonl"], 2);
    assert!(said.contains("the nearest name there is `answers.jsonl`"), "{said}");

    place.write("train.tsv", "sentence\tlabel\nw1 w2\tc1\nw3\t\nw4\tc0\n");
    place.write("student.toml", &recipe("", 2));
    let said = place.refused(&["plan", "student.toml"], 3);
    let expected = "train.tsv:3:4: field `label` is empty, expected a label; texts without one go into \
                    a file of their own, `task.unlabelled`";
    assert!(said.contains(expected), "{said}");
}
