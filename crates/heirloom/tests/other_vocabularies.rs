//! Recipes whose teacher has another vocabulary, or tokens of its own: from the recipe to a resumed run.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;

use heirloom_data::synthetic;
use serde_json::Value;

mod place;

use place::Place;

/// The vocabulary of the texts, with these tokens behind it.
fn words(more: &str) -> String {
    format!("{}\n{more}", synthetic::vocabulary().trim_end())
}

/// Letters, alone and inside words.
fn letters() -> String {
    let pieces = ('a'..='z').map(|letter| format!("{letter}\n##{letter}\n"));
    format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{}", pieces.collect::<String>())
}

/// A place with texts, and a student's tokenizer in `words/`.
fn place() -> Place {
    let place = Place::with_data();
    fs::create_dir(place.path("text")).unwrap();
    for (name, seed, count) in [("train.txt", 1, 60), ("dev.txt", 2, 12)] {
        let texts = synthetic::generate(seed, count).into_iter().map(|example| example.text);
        place.write(&format!("text/{name}"), &texts.collect::<Vec<String>>().join("\n\n"));
    }
    place
}

const TEXT: &str = "[text]\nkind = \"causal\"\npath = \"text\"\ntrain = [\"train.txt\"]\n\
    validation = [\"dev.txt\"]\ndocuments = \"blank_line\"\nsequence_length = 32\n";

/// A decoder of this vocabulary in the folder `name`, trained for a step.
fn decoder(place: &Place, name: &str, vocabulary: &str) {
    let tokens = format!("{name}-tokens");
    fs::create_dir(place.path(&tokens)).unwrap();
    place.write(&format!("{tokens}/vocab.txt"), vocabulary);
    let recipe = format!(
        "{TEXT}[tokenizer]\npath = \"{tokens}\"\n[student]\nconfig = {{ model_type = \"llama\", \
         hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 2, intermediate_size = 32, \
         max_position_embeddings = 128 }}\n[training]\nmax_steps = 1\nbatch_size = 2\n\
         eval_strategy = \"end\"\n"
    );
    place.write("decoder.toml", &recipe);
    let into = format!("{name}-run");
    let output = place.command(&["train", "decoder.toml", "--into", &into]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(place.path(&into).join("last"), place.path(name)).unwrap();
}

/// Exit code and stderr of a run of a small student beside `teacher`.
fn train(place: &Place, teacher: &str, sets: &[&str]) -> (i32, String) {
    let recipe = format!(
        "{TEXT}[tokenizer]\npath = \"words\"\n[student]\nconfig = {{ model_type = \"gpt2\", \
         hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 2 }}\n[teacher]\n\
         model = \"{teacher}\"\n[objective]\nalpha = 0.5\n[training]\nmax_steps = 4\nbatch_size = 3\n\
         eval_steps = 2\nsave_steps = 2\nlearning_rate = 1e-3\n"
    );
    place.write("recipe.toml", &recipe);
    let mut arguments = vec!["train", "recipe.toml", "--into", "run"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let _ = fs::remove_dir_all(place.path("run"));
    let output = place.command(&arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The steps that a run has taken.
fn steps(place: &Place) -> Vec<Value> {
    let text = fs::read_to_string(place.path("run/run.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "step").collect()
}

/// That the run, as if it had been killed after its first checkpoint, goes on to the same record and
/// weights.
fn goes_on(place: &Place) {
    let read = |name: &str| fs::read(place.path(name)).unwrap();
    let files = ["run/run.jsonl", "run/last/model.safetensors"];
    let whole = files.map(read);
    for folder in ["step-000000004", "best", "last"] {
        fs::remove_dir_all(place.path("run").join(folder)).unwrap();
    }
    let output = place.command(&["resume", "run"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(files.map(read) == whole, "the record and the weights of one run");
}

fn count(step: &Value, term: &str) -> u64 {
    step["terms"][term]["count"].as_u64().unwrap()
}

#[test]
fn a_padded_teacher_is_heard_once_the_recipe_says_that_it_is_padded() {
    let place = place();
    decoder(&place, "teacher", &words("zzz\nzzy\nzzx\n"));
    // Three ids of the model stand for nothing now.
    let shorter = words("");
    for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        let _ = fs::remove_file(place.path("teacher").join(file));
    }
    place.write("teacher/vocab.txt", &shorter);
    let (code, said) = train(&place, "teacher", &[]);
    assert!(code == 2 && said.contains("`teacher.vocabulary = \"pad\"`"), "{said}");
    assert!(!place.path("run").exists(), "nothing was created");
    let (code, said) = train(&place, "teacher", &["teacher.vocabulary=pad"]);
    assert_eq!(code, 0, "{said}");
    let steps = steps(&place);
    assert_eq!(count(&steps[0], "teacher"), count(&steps[0], "label"));
    goes_on(&place);
}

#[test]
fn a_teacher_of_more_tokens_is_heard_over_those_that_both_have() {
    let place = place();
    // The same words in another order, and more of them.
    let mut other: Vec<String> = words("").lines().map(str::to_owned).collect();
    other[5..].reverse();
    other.extend(["zzz", "zzy"].map(str::to_owned));
    decoder(&place, "teacher", &other.join("\n"));
    let (code, said) = train(&place, "teacher", &[]);
    assert!(code == 2 && said.contains("they are not the same"), "{said}");
    let (code, said) = train(&place, "teacher", &["teacher.vocabulary=pad"]);
    assert!(code == 2 && said.contains("`teacher.vocabulary`: "), "{said}");
    assert!(said.contains("`pad` is for vocabularies that differ by padding alone"), "{said}");
    let (code, said) = train(&place, "teacher", &["teacher.vocabulary=intersect"]);
    assert_eq!(code, 0, "{said}");
    let steps = steps(&place);
    assert_eq!(count(&steps[0], "teacher"), count(&steps[0], "label"));
    goes_on(&place);
}

#[test]
fn a_teacher_with_tokens_of_its_own_is_heard_where_both_have_read_the_same() {
    let place = place();
    decoder(&place, "teacher", &letters());
    let set = "objective.uld={ top = 16, sequence_length = 128 }";
    let (code, said) = train(&place, "teacher", &[]);
    assert!(code == 2 && said.contains("they are not the same"), "{said}");
    let (code, said) =
        train(&place, "teacher", &["objective.uld={ top = 16, sequence_length = 129 }"]);
    assert!(code == 2 && said.contains("the teacher reads at most 128 tokens"), "{said}");
    let (code, said) = train(&place, "teacher", &[set]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("where both have read the same bytes"), "{said}");
    let steps = steps(&place);
    let [label, teacher] = ["label", "teacher"].map(|term| count(&steps[0], term));
    assert!(teacher > 0 && teacher <= label, "{teacher} of {label}");
    goes_on(&place);
    // Another text under the plan.
    for folder in ["step-000000004", "best", "last"] {
        fs::remove_dir_all(place.path("run").join(folder)).unwrap();
    }
    place.write("text/train.txt", "alpha beta");
    let output = place.command(&["resume", "run"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(3) && said.contains("text in"), "{said}");
}

#[test]
fn a_student_writes_its_own_replies_and_goes_on_after_a_stop() {
    let place = place();
    decoder(&place, "teacher", &words(""));
    let lines = |seed, count| -> String {
        let line = |text: &str| {
            let middle = text[..text.len() / 2].rfind(' ').unwrap_or(0);
            let (prompt, completion) = text.split_at(middle);
            serde_json::json!({"prompt": prompt, "completion": completion}).to_string() + "\n"
        };
        let texts = synthetic::generate(seed, count).into_iter().map(|example| line(&example.text));
        texts.collect()
    };
    place.write("text/train.jsonl", &lines(1, 60));
    place.write("text/dev.jsonl", &lines(2, 12));
    let sets = [
        "text.train=[\"train.jsonl\"]",
        "text.validation=[\"dev.jsonl\"]",
        "text.shape=completion",
        "text.on_long=drop",
        "objective.on_policy={ share = 0.5, max_new_tokens = 8 }",
    ];
    // The recipe's documents are plain text's; these have fields.
    let text = fs::read_to_string(place.path("recipe.toml")).unwrap_or_default();
    assert!(text.is_empty());
    let plain = TEXT.replace("documents = \"blank_line\"\n", "format = \"jsonl\"\n");
    let recipe = format!(
        "{plain}[tokenizer]\npath = \"words\"\n[student]\nconfig = {{ model_type = \"gpt2\", \
         hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 2 }}\n[teacher]\n\
         model = \"teacher\"\n[objective]\nalpha = 0.5\ndivergence = \"jensen_shannon\"\n[training]\n\
         max_steps = 12\nbatch_size = 3\neval_steps = 4\nsave_steps = 4\nlearning_rate = 1e-3\n"
    );
    place.write("own.toml", &recipe);
    let run = |into: &str| {
        let mut arguments = vec!["train", "own.toml", "--into", into];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let output = place.command(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(place.path(into).join("run.jsonl")).unwrap()
    };
    let whole = run("run");
    let written = steps(&place).iter().filter(|step| step["terms"]["label"].is_null()).count();
    assert!((2..=10).contains(&written), "{written} of 12 steps were the student's");
    assert!(run("again") == whole, "the same texts again");
    // As if it had been killed after the second checkpoint.
    fs::remove_dir_all(place.path("again/step-000000012")).unwrap();
    for folder in ["best", "last"] {
        let _ = fs::remove_dir_all(place.path("again").join(folder));
    }
    let output = place.command(&["resume", "again", "--threads", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(place.path("again/run.jsonl")).unwrap() == whole, "the record of one run");
    let model = |run: &str| fs::read(place.path(run).join("last/model.safetensors")).unwrap();
    assert!(model("again") == model("run"), "the same weights");
}
