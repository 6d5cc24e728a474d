//! `heirloom eval`: what is said of confidence, and the picture of it.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::process::Output;

use serde_json::Value;

mod place;

use place::Place;

impl Place {
    /// Two models of one run over two seeds.
    fn with_models() -> Self {
        let place = Self::with_data();
        place.write("recipe.toml", RECIPE);
        place.succeeds("train recipe.toml --into run --quiet");
        place
    }

    fn heirloom(&self, line: &str) -> Output {
        self.command(&line.split(' ').collect::<Vec<_>>()).output().unwrap()
    }

    /// What it printed.
    #[track_caller]
    fn succeeds(&self, line: &str) -> String {
        let output = self.heirloom(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line} ended with {}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn refuses(&self, line: &str) -> String {
        let output = self.heirloom(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.is_empty(), "a refusal prints no data");
        format!("exit {}\n{said}", output.status.code().unwrap())
    }
}

const RECIPE: &str = r#"
[task]
kind = "classification"
path = "."
train = "train.tsv"
validation = "dev.tsv"
text = "sentence"
label = "label"
max_length = 32
allow_overlap = true

[tokenizer]
path = "words"

[student]
config = { model_type = "bert", hidden_size = 32, num_hidden_layers = 1, num_attention_heads = 2, intermediate_size = 64, max_position_embeddings = 32 }

[training]
max_steps = 40
batch_size = 12
learning_rate = 3e-3
eval_strategy = "end"
seeds = [1, 2]
"#;

#[test]
fn scaled_logits_have_a_row_and_json_of_their_own_and_the_same_accuracy() {
    let place = Place::with_models();
    let table = place.succeeds("eval run");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let head = ["seed", "file", "n", "loss", "accuracy", "Brier", "ECE", "adaptive ECE", "T"];
    assert_eq!(rows[0], head);
    let names: Vec<[&str; 2]> = rows[2..].iter().map(|row| [row[0], row[1]]).collect();
    let want = ["1", "2", "all"]
        .into_iter()
        .flat_map(|seed| [[seed, "dev.tsv"], [seed, "dev.tsv, scaled"]]);
    assert_eq!(names, want.collect::<Vec<_>>());

    let json: Value = serde_json::from_str(&place.succeeds("eval run --json")).unwrap();
    for (at, evaluation) in json["evaluations"].as_array().unwrap().iter().enumerate() {
        let scaled = &evaluation["evaluation"]["calibration"]["scaled"];
        let (raw, below) = (&rows[2 + 2 * at], &rows[3 + 2 * at]);
        let four = |value: &Value| format!("{:.4}", value.as_f64().unwrap());
        assert_eq!(below[3], four(&scaled["loss"]));
        assert_eq!(below[4], raw[4], "a temperature changes no answer");
        assert_eq!(below[5], four(&scaled["brier"]));
        assert_eq!(below[6], four(&scaled["expected_error"]));
        assert_eq!(below[7], four(&scaled["adaptive_error"]));
        assert_eq!((raw[8], below[8]), ("1.0000", four(&scaled["temperature"]).as_str()));
        // The record of the run says the same of its last step.
        let record = fs::read_to_string(place.path(&format!("run/seed-{}/run.jsonl", at + 1)));
        let last: Value = serde_json::from_str(record.unwrap().lines().last().unwrap()).unwrap();
        assert_eq!(&last["evaluation"]["calibration"]["scaled"], scaled);
    }
    let over_seeds = &json["over_seeds"][0];
    assert_eq!(over_seeds["scaled"]["T"]["n"], 2);
    assert_eq!(over_seeds["scaled"]["accuracy"], over_seeds["numbers"]["accuracy"]);
}

#[test]
fn all_models_are_in_one_picture_that_replaces_nothing() {
    let place = Place::with_models();
    let drawn = |arguments: &str, file: &str| {
        let table = place.succeeds(&format!("eval {arguments} --curve {file}"));
        assert_eq!(table, place.succeeds(&format!("eval {arguments}")), "the table is the same");
        fs::read_to_string(place.path(file)).unwrap()
    };
    let names = |svg: &str| svg.matches("class=\"name\"").count();
    let one = drawn("run/seed-1", "one.svg");
    assert_eq!(names(&one), 2, "one model, and its scaled logits");
    assert!(one.contains("run/seed-1/best, scaled to T "), "{one}");
    assert!(one.contains("Reliability on dev.tsv"), "{one}");
    let both = drawn("run/seed-1 --against run/seed-2", "both.svg");
    assert_eq!(names(&both), 2);
    assert!(both.contains(">run/seed-1/best<") && both.contains(">run/seed-2/best<"), "{both}");
    assert_eq!(names(&drawn("run", "seeds.svg")), 2);
    assert_eq!(drawn("run/seed-1", "again.svg"), one, "equal models give equal bytes");

    insta::assert_snapshot!(place.refuses("eval run --curve one.svg"), @r"
    exit 2
    error: `one.svg` exists already, and --curve replaces nothing; name a new file or remove it
    ");
    insta::assert_snapshot!(place.refuses("eval run --curve nowhere/one.svg"), @r"
    exit 2
    error: `nowhere/one.svg` cannot be written: there is no folder `nowhere`; make it first
    ");
    assert_eq!(fs::read_to_string(place.path("one.svg")).unwrap(), one, "nothing was changed");
    let drafts = fs::read_dir(place.path("")).unwrap();
    assert!(drafts.flatten().all(|entry| !entry.path().to_string_lossy().contains("draft")));
}
