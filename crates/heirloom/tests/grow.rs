//! The command `grow`: what it makes, what it says of it, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A folder in which the command is run.
struct Place(TempDir);

impl Place {
    /// A place with one encoder, in the folder `m`.
    fn with(fixture: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoders");
        fs::create_dir(place.path("m")).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(from.join(fixture).join(file), place.path("m").join(file)).unwrap();
        }
        // 60 tokens: words are taken apart into letters.
        let mut words: Vec<String> =
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "the"]
                .map(String::from)
                .into();
        words.extend(('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]));
        fs::write(place.path("m/vocab.txt"), words.join("\n") + "\n").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old), "{name} has no {old:?}");
        fs::write(self.path(name), text.replacen(old, new, 1)).unwrap();
    }

    /// Exit code, stdout and stderr.
    fn run(&self, line: &str) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_heirloom"))
            .args(line.split_whitespace())
            .args(["--threads", "1"])
            .current_dir(self.0.path())
            .env_remove("HEIRLOOM_DATA")
            .env_remove("HEIRLOOM_MODELS")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn done(&self, line: &str) -> String {
        let (code, said, why) = self.run(line);
        assert_eq!(code, 0, "{line}\n{said}{why}");
        assert_eq!(why, "", "{line}");
        said
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{line} --json"))).unwrap()
    }

    /// Code and message of a command that is refused and leaves nothing.
    #[track_caller]
    fn refuses(&self, line: &str) -> (i32, String) {
        let before = self.names();
        let (code, said, why) = self.run(line);
        assert_ne!(code, 0, "{line}\n{said}");
        assert_eq!(self.names(), before, "{line}");
        (code, why.trim_end().to_owned())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn change(result: &Value) -> f64 {
    result["measured"]["largest_change"].as_f64().unwrap()
}

#[test]
fn encoders_of_every_family_grow_in_depth_and_width_and_answer_as_before() {
    let fixtures = [
        "bert-single",
        "bert-multi",
        "bert-regression",
        "bert-embedding",
        "bert-relu",
        "bert-eps",
        "roberta-single",
        "roberta-embedding",
        "distilbert-single",
        "distilbert-regression",
        "distilbert-embedding",
    ];
    for fixture in fixtures {
        let place = Place::with(fixture);
        let result = place.json("grow m --hidden 32 --layers 5 --out grown");
        // A large ε is seen where a norm stands on a norm.
        let level = if fixture == "bert-eps" { "approximate" } else { "exact" };
        assert_eq!(result["predicted"]["level"], level, "{fixture}");
        assert!(result["measured"]["largest_output"].as_f64().unwrap() > 0.01, "{fixture}");
        // Single precision over five small layers; the outputs are of the size of one.
        let most = if level == "exact" { 1e-5 } else { 0.5 };
        assert!(change(&result) < most, "{fixture}: {result}");
        assert!(
            result["parameters"]["after"].as_u64() > result["parameters"]["before"].as_u64(),
            "{fixture}"
        );
        assert!(place.done("verify grown").contains("`grown` is whole"), "{fixture}");
        // What has grown grows again.
        let again = place.json("grow grown --heads 8 --hidden 64 --out twice");
        assert!(change(&again) < 1e-5, "{fixture}: {again}");
    }
}

#[test]
fn a_model_that_cannot_answer_grows_and_says_that_it_was_not_measured() {
    // Saved with its language-model head alone, it has no pooler, which embedding models have.
    let place = Place::with("bert-mlm");
    let result = place.json("grow m --hidden 32 --out grown");
    assert_eq!(result["measured"], Value::Null);
    assert!(result["not_measured"].as_str().unwrap().contains("pooler.dense.weight"), "{result}");
    let reasons = result["predicted"]["reasons"].to_string();
    assert!(reasons.contains("so the head stays tied"), "{reasons}");
}

#[test]
fn fewer_heads_than_width_grow_larger_heads() {
    let place = Place::with("bert-single");
    let result = place.json("grow m --hidden 32 --heads 2 --out grown");
    assert_eq!(result["to"]["head_dim"], 16);
    assert!(change(&result) < 1e-5);
}

#[test]
fn a_method_that_keeps_no_function_says_so_and_is_right() {
    for (method, sizes) in [
        ("stack", "--layers 4"),
        ("interleave", "--layers 4"),
        ("mslt", "--layers 3"),
        ("bert2bert-aki", "--hidden 32"),
        ("compound", "--layers 4 --hidden 32"),
        ("preserve", "--hidden 24"),
    ] {
        let place = Place::with("bert-single");
        let result = place.json(&format!("grow m {sizes} --method {method} --out grown"));
        assert_ne!(result["predicted"]["level"], "exact", "{method}");
        assert!(change(&result) > 1e-5, "{method}: {result}");
    }
}

#[test]
fn the_plan_is_told_in_words_with_its_prediction_and_what_was_measured() {
    let place = Place::with("bert-embedding");
    let said = place.done("grow m --hidden 32 --layers 3 --out grown");
    let begins = "from 2 layers, hidden 16, 2 heads of 8, intermediate 32
to   3 layers, hidden 32, 4 heads of 8, intermediate 64

plan `preserve`
  hidden size 16 to 32: tiled
  intermediate size 32 to 64: copied at random, read in unequal shares
  key and value heads 2 to 4: copied at random, read in unequal shares
  layers 2 to 3: 0 1 1* (*: a copy that starts as the identity)

predicted: it computes exactly what the small model did
  both branches of each added layer end in zeros, and it takes over the last norm of the layer \
                  below: norming twice is norming once, but for ε

parameters: ";
    assert!(said.starts_with(begins), "{said}");
    assert!(said.contains("\nmeasured on 6 sentences: outputs up to "), "{said}");
    let ends = "; hidden states hold each number 2 times\nwrote `grown`\n";
    assert!(said.ends_with(ends), "{said}");
}

#[test]
fn nothing_is_written_where_only_the_plan_was_asked_for() {
    let place = Place::with("bert-single");
    let said = place.done("grow m --layers 4 --method stack --dry-run --out grown");
    let ends = "  layers stand where they were not trained to stand\n\nparameters: 6179 to 10627\n";
    assert!(said.ends_with(ends), "{said}");
    assert_eq!(place.names(), ["m"]);
}

#[test]
fn equal_plans_give_equal_bytes_and_a_plan_can_be_used_again() {
    let place = Place::with("distilbert-single");
    let file = |folder: &str| fs::read(place.path(folder).join("model.safetensors")).unwrap();
    place.done("grow m --layers 3 --hidden 32 --noise 0.1 --out a");
    place.done("grow m --layers 3 --hidden 32 --noise 0.1 --out b");
    place.done("grow m --plan a/growth.toml --out c");
    place.done("grow m --layers 3 --hidden 32 --noise 0.1 --seed 2 --out d");
    assert!(file("a") == file("b") && file("a") == file("c"));
    assert!(file("a") != file("d"));
}

#[test]
fn what_cannot_grow_is_refused_with_both_sizes_and_the_reason() {
    let place = Place::with("bert-single");
    let rows = [
        (
            "--layers 1",
            2,
            "error: the number of layers cannot go from 2 to 1: growing takes no layers away",
        ),
        (
            "--hidden 8",
            2,
            "error: the hidden size cannot go from 16 to 8: growing takes no units away",
        ),
        (
            "--hidden 30",
            2,
            "error: the hidden size cannot go from 16 to 30: it is no multiple of the head size 8; name the heads",
        ),
        (
            "--hidden 32 --heads 5",
            2,
            "error: the number of heads cannot go from 2 to 5: heads must divide the hidden size 32",
        ),
        (
            "--hidden 24 --method hypercloning",
            2,
            "error: the hidden size cannot go from 16 to 24: whole copies need a multiple; use `select`, `split` or `pad`",
        ),
        (
            "--hidden 32 --method stack",
            2,
            "error: the hidden size cannot go from 16 to 32: `stack` grows depth alone; `compound` and `preserve` grow both",
        ),
        (
            "--layers 2",
            2,
            "error: nothing would grow: the model has 2 layers, hidden 16, 2 heads of 8, intermediate 32 already",
        ),
        ("--layers 4 --noise 3", 2, "error: `noise` is 3, expected a number in 0..=1"),
        (
            "--plan nowhere.toml",
            2,
            "error: cannot read the plan `nowhere.toml`: No such file or directory (os error 2)",
        ),
    ];
    for (flags, code, want) in rows {
        let found = place.refuses(&format!("grow m {flags} --out grown"));
        assert_eq!(found, (code, want.to_owned()), "{flags}");
    }
    let (code, said) = place.refuses("grow m --layers 4 --method stak --out grown");
    assert_eq!(code, 2);
    assert!(said.starts_with("error: there is no method `stak`; the nearest is `stack`"), "{said}");
    assert_eq!(
        place.refuses("grow nowhere --layers 4 --out grown"),
        (2, "error: `nowhere` is not there".to_owned())
    );
    let (code, said) = place.refuses("grow m --layers 4");
    assert!(code == 2 && said.contains("--out <DIR>"), "{said}");
    let (code, said) = place.refuses("grow m --layers 4 --out m");
    assert!(code == 2 && said.contains("`m`"), "{said}");
}

#[test]
fn plans_and_models_that_do_not_belong_together_are_refused() {
    let place = Place::with("bert-single");
    place.done("grow m --layers 3 --out grown");
    let (code, said) = place.refuses("grow grown --plan grown/growth.toml --out other");
    assert_eq!((code, said.as_str()), (2, "error: the plan is for layers 2, but the model has 3"));
    place.edit("grown/growth.toml", "fill =", "fil =");
    let (code, said) = place.refuses("grow m --plan grown/growth.toml --out other");
    assert!(
        code == 2 && said.contains("this is no growth plan") && said.contains("`fil`"),
        "{said}"
    );
    place.edit("m/config.json", "\"intermediate_size\": 32", "\"intermediate_size\": 48");
    let (code, said) = place.refuses("grow m --layers 3 --out other");
    assert_eq!(code, 3);
    assert!(said.contains("has shape [32], but its place in the model has [48]"), "{said}");
}

#[test]
fn half_precision_becomes_single_in_weights_and_config() {
    let place = Place::with("bert-single");
    place.edit("m/config.json", "\"dtype\": \"float32\"", "\"dtype\": \"bfloat16\"");
    place.done("grow m --layers 3 --out grown");
    let config = fs::read_to_string(place.path("grown/config.json")).unwrap();
    assert!(config.contains("\"dtype\": \"float32\""), "{config}");
}

#[test]
fn a_public_sentence_encoder_grows_to_twice_its_depth_and_width_and_embeds_as_before() {
    let Some(models) = std::env::var_os("HEIRLOOM_MODELS").map(PathBuf::from) else {
        println!("skipped: set HEIRLOOM_MODELS to the folder with all-MiniLM-L6-v2");
        return;
    };
    let model = models.join("all-MiniLM-L6-v2");
    let place = Place(tempfile::tempdir().unwrap());
    let result =
        place.json(&format!("grow {} --layers 12 --hidden 768 --out grown", model.display()));
    assert_eq!(result["predicted"]["level"], "exact");
    // Single precision over twelve layers; embeddings reach 1.
    assert!(change(&result) < 1e-5, "{result}");
    assert_eq!(result["parameters"]["after"], 109_482_240);
}
