//! Language models from recipes, by the command: trained, distilled, killed, resumed, measured,
//! generated from, refused.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::Instant;

use heirloom_base::{Digest, Purpose, uniform, word};
use heirloom_data::synthetic;
use serde_json::Value;

mod place;

use place::Place;

/// A recipe for a decoder of one or two layers on the generated texts.
fn recipe(layers: u32, rest: &str) -> String {
    format!(
        "[text]\nkind = \"causal\"\npath = \"texts\"\ntrain = [\"train.txt\"]\n\
         validation = [\"dev.txt\"]\ndocuments = \"blank_line\"\nsequence_length = 32\n\
         [tokenizer]\npath = \"words\"\n[student]\nconfig = {{ model_type = \"gpt2\", \
         hidden_size = 32, num_hidden_layers = {layers}, num_attention_heads = 2, \
         intermediate_size = 64 }}\n{rest}[training]\nmax_steps = 24\nbatch_size = 6\n\
         micro_batch_tokens = 96\nlearning_rate = 3e-3\nsave_steps = 2\neval_steps = 4\nseed = 7\n"
    )
}

const TAUGHT: &str = "[teacher]\nmodel = \"teacher/best\"\n[objective]\nalpha = 0.6\ntemperature_end = 1.0\n\
     hidden = [{ kind = \"mse\", projection = true, layers = [[0, 0], [1, 2]] }]\n";

impl Place {
    fn with_texts() -> Self {
        let place = Self::with_data();
        fs::create_dir(place.path("texts")).unwrap();
        for (name, seed, count) in [("train", 11, 120), ("dev", 12, 30)] {
            let texts: Vec<String> =
                synthetic::generate(seed, count).into_iter().map(|example| example.text).collect();
            place.write(&format!("texts/{name}.txt"), &texts.join("\n\n"));
        }
        place.write("teacher.toml", &recipe(2, ""));
        place.write("student.toml", &recipe(1, TAUGHT));
        place
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} ended with {}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.says(arguments)).unwrap()
    }

    /// Exit code and first line of what is refused.
    fn refusal(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said.trim().replace(self.path("").to_str().unwrap(), "…/"))
    }

    fn outcome(&self, run: &str) -> (Digest, Digest, String) {
        let digest = |name: &str| Digest::of(&fs::read(self.path(run).join(name)).unwrap());
        let record = fs::read_to_string(self.path(run).join("run.jsonl")).unwrap();
        (digest("last/model.safetensors"), digest("best/model.safetensors"), record)
    }
}

#[test]
fn a_distilled_decoder_killed_at_random_moments_ends_with_the_bits_of_one_left_alone() {
    let place = Place::with_texts();
    place.says(&["train", "teacher.toml", "--into", "teacher"]);
    let begun = Instant::now();
    place.says(&["train", "student.toml", "--into", "alone"]);
    let whole = begun.elapsed();
    let want = place.outcome("alone");
    let mut kills = 0;
    for round in 0..30 {
        if kills >= 6 {
            break;
        }
        let run = format!("round-{round}");
        let mut start = |arguments: &[&str], index| {
            let quiet = (Stdio::null(), Stdio::null());
            let mut child = place.command(arguments);
            let mut child = child.stdout(quiet.0).stderr(quiet.1).spawn().unwrap();
            sleep(whole.mul_f64(uniform(word(round, Purpose::Bootstrap, 0, index))));
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            kills += u32::from(!child.wait().unwrap().success());
        };
        start(&["train", "student.toml", "--into", &run], 0);
        if place.path(&run).join("plan.toml").is_file() {
            // A second kill while it resumes, then the rest with another number of threads.
            start(&["resume", &run], 1);
            place.says(&["resume", &run, "--threads", "1"]);
        } else {
            place.says(&["train", "student.toml", "--into", &run]);
        }
        assert!(place.outcome(&run) == want, "round {round}");
        place.says(&["verify", &run]);
    }
    assert!(kills >= 6, "only {kills} kills met a running process");
}

#[test]
fn a_run_is_measured_on_its_own_text_on_files_and_beside_its_seeds() {
    let place = Place::with_texts();
    place.says(&["train", "teacher.toml", "--into", "teacher"]);
    let record = fs::read_to_string(place.path("teacher/run.jsonl")).unwrap();
    let evaluations: Vec<Value> = record
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["kind"] == "evaluation")
        .collect();
    assert_eq!(evaluations.len(), 6);
    let loss = |line: &Value| line["evaluation"]["loss"].as_f64().unwrap();
    assert!(loss(&evaluations[5]) < loss(&evaluations[0]), "{record}");
    let best = evaluations.iter().map(loss).fold(f64::INFINITY, f64::min);

    let found = place.json(&["eval", "teacher", "--json"]);
    let of_run = &found["evaluations"][0]["evaluation"];
    assert!((of_run["loss"].as_f64().unwrap() - best).abs() < 1e-6, "{found}");
    let perplexity = of_run["perplexity"].as_f64().unwrap();
    assert!((perplexity.ln() - best).abs() < 1e-6, "{found}");

    // The same documents by the flag, each file a document: other rows, as many bytes to a token.
    let file = place.json(&["eval", "teacher/best", "--text", "texts/dev.txt", "--json"]);
    let of_file = &file["evaluations"][0]["evaluation"];
    assert!(of_file["bits_per_byte"].as_f64().unwrap() > 0.5, "{file}");
    let table = place.says(&["eval", "teacher"]);
    assert!(table.contains("perplexity") && table.contains("bits per byte"), "{table}");

    place.says(&["train", "student.toml", "--into", "seeds", "--set", "training.seeds=[1, 2]"]);
    let found = place.json(&["eval", "seeds", "--json"]);
    assert_eq!(found["evaluations"].as_array().unwrap().len(), 2);
    assert_eq!(found["over_seeds"]["loss"]["n"], 2);

    let said = place.json(&["generate", "teacher", "--prompt", "a", "--new-tokens", "5", "--json"]);
    assert!(!said["tokens"].as_array().unwrap().is_empty(), "{said}");
}

#[test]
fn a_plan_shows_everything_and_leaves_nothing_behind() {
    let place = Place::with_texts();
    place.write("alone.toml", &recipe(1, ""));
    let said = place.says(&["plan", "alone.toml"]);
    for part in [
        "texts/train.txt: ",
        "evaluated on dev.txt: ",
        "blank lines part documents, each ends with \"[SEP]\"",
        "documents end to end, which do not see one another",
        "foresees the next token",
        "gpt2, 1 layers, width 32, 2 heads, ",
        "cross entropy with the next token",
        "best by loss",
        "memory      ",
    ] {
        assert!(said.contains(part), "`{part}` in:\n{said}");
    }
    assert!(!place.path("runs").exists(), "nothing is written");
    let json = place.json(&["plan", "alone.toml", "--json"]);
    assert_eq!(json["plan"]["text"]["sequence_length"], 32);
    place.says(&["train", "alone.toml", "--smoke"]);
    assert!(!place.path("runs").exists(), "nothing is left");
}

#[test]
fn planned_memory_is_enough_for_a_language_models_run() {
    let place = Place::with_texts();
    let found = place.json(&["train", "teacher.toml", "--into", "teacher", "--json"]);
    let run = &found["runs"][0];
    let (planned, peak) = (run["planned_memory"].as_u64(), run["peak_memory"].as_u64());
    assert!(planned.unwrap() >= peak.unwrap(), "{run}");
    // Beside a teacher whose hidden states are kept.
    let found = place.json(&["train", "student.toml", "--into", "student", "--json"]);
    let run = &found["runs"][0];
    let (planned, peak) = (run["planned_memory"].as_u64(), run["peak_memory"].as_u64());
    assert!(planned.unwrap() >= peak.unwrap(), "{run}");
    let said = place.says(&["plan", "student.toml"]);
    for part in [
        "1 × mse, through a learned map; layers 0–0 1–2, all positions",
        "means over all tokens of a step that are learnt; of hidden states over all of them",
    ] {
        assert!(said.contains(part), "`{part}` in:\n{said}");
    }
    let record = fs::read_to_string(place.path("student/run.jsonl")).unwrap();
    let first: Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
    assert_eq!(first["terms"]["hidden[0].1-2"]["count"], first["tokens"], "{first}");
}

#[test]
fn a_run_in_bf16_says_so_weighs_its_tokens_and_grows_beside_kept_answers() {
    let place = Place::with_texts();
    place.says(&["train", "teacher.toml", "--into", "teacher"]);
    // In bfloat16, by a policy.
    let weighed = "[teacher]\nmodel = \"teacher/best\"\n[objective.balance]\npolicy = \"wsl\"\n";
    place.write("half.toml", &recipe(1, weighed));
    let half = ["--set", "training.precision=\"bf16\"", "--set", "training.max_steps=6"];
    let said = place.says(&[&["plan", "half.toml"][..], &half].concat());
    assert!(said.contains("seed 7, bf16, "), "{said}");
    assert!(said.contains("each token is weighed by itself"), "{said}");
    let output = place.run(&[&["train", "half.toml", "--into", "half"][..], &half].concat());
    assert!(output.status.success());
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    // Where the processor has no instruction for it.
    let native = fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains("avx512_bf16"));
    assert!(native || note.contains("bf16"), "{note}");
    let record = fs::read_to_string(place.path("half/run.jsonl")).unwrap();
    assert!(record.contains("\"balance\":{\"mean\":"), "{record}");

    // Beside answers that were kept, growing in the middle: the same bits after a stop.
    let arguments = ["--teacher", "teacher/best", "--recipe", "teacher.toml", "--top-k", "8"];
    place.says(&[&["cache"][..], &arguments, &["--out", "kept"]].concat());
    let stage = "[teacher]\ncache = \"kept\"\n[objective]\ntemperature = 2.0\n\
                 [[stage]]\nat_step = 6\nnum_hidden_layers = 2\n";
    place.write("grows.toml", &recipe(1, stage));
    let short = ["--set", "training.max_steps=10", "--set", "training.save_total_limit=9"];
    place.says(&[&["train", "grows.toml", "--into", "alone"][..], &short].concat());
    for last in [4, 8] {
        let run = format!("cut-{last}");
        place.says(&[&["train", "grows.toml", "--into", &run][..], &short].concat());
        for later in (last + 2..=10).step_by(2) {
            fs::remove_dir_all(place.path(&run).join(format!("step-{later:09}"))).unwrap();
        }
        place.says(&["resume", &run]);
        assert!(place.outcome(&run) == place.outcome("alone"), "from step {last}");
    }
    let record = fs::read_to_string(place.path("alone/run.jsonl")).unwrap();
    assert_eq!(record.matches("\"kind\":\"growth\"").count(), 1, "{record}");
}

#[test]
fn a_policy_learns_from_other_text_and_its_tokens_can_be_looked_at() {
    let place = Place::with_texts();
    place.says(&["train", "teacher.toml", "--into", "teacher"]);
    let weighed = "[teacher]\nmodel = \"teacher/best\"\n[objective.balance]\npolicy = \"rw_kd\"\n\
                   meta = { batch_size = 4, every = 3, loss = \"hard\" }\n";
    place.write("weighed.toml", &recipe(1, weighed));
    let short = ["--set", "training.max_steps=10", "--set", "training.save_total_limit=9"];
    for run in ["alone", "cut"] {
        place.says(&[&["train", "weighed.toml", "--into", run][..], &short].concat());
    }
    // Between two measurements, which are at steps 1, 4, 7 and 10.
    for later in [6, 8, 10] {
        fs::remove_dir_all(place.path(&format!("cut/step-{later:09}"))).unwrap();
    }
    place.says(&["resume", "cut"]);
    assert!(place.outcome("cut") == place.outcome("alone"));
    let record = fs::read_to_string(place.path("alone/run.jsonl")).unwrap();
    assert_eq!(record.matches("\"measured\":true").count(), 4, "{record}");

    let folder = || -> Vec<(std::ffi::OsString, std::time::SystemTime)> {
        let entries = fs::read_dir(place.path("alone")).unwrap().map(Result::unwrap);
        let mut all: Vec<_> = entries
            .map(|of| (of.file_name(), of.metadata().unwrap().modified().unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = folder();
    let told = place.json(&["explain", "alone", "--top", "3", "--json"]);
    let text = place.says(&["explain", "alone", "--top", "3"]);
    assert!(folder() == before, "nothing is written");
    assert_eq!((&told["step"], &told["rows"]), (&10.into(), &32.into()), "{told}");
    assert!(told["tokens"].as_u64().unwrap() > 500, "{told}");
    let rows = |end: &str| told[end].as_array().unwrap().clone();
    let (most, least) = (rows("most"), rows("least"));
    assert_eq!((most.len(), least.len()), (3, 3));
    let share = |row: &Value| row["share"].as_f64().unwrap();
    assert!(share(&most[2]) > share(&least[2]), "{told}");
    for row in most.iter().chain(&least) {
        let [student, teacher] = ["student", "teacher"].map(|name| row[name].as_f64().unwrap());
        assert!(student > 0.0 && student < 1.0 && teacher > 0.0 && teacher < 1.0, "{row}");
        // The row holds what stands before the token, and then the token.
        let token = row["token"].as_str().unwrap().trim();
        assert!(!token.is_empty(), "{row}");
    }
    for part in ["step 10, rw_kd", "tokens of 32 rows", "the teacher is trusted least"] {
        assert!(text.contains(part), "`{part}` in:\n{text}");
    }

    // Beside answers that were kept, here all of each: the same shares but for rounding.
    let words = fs::read_to_string(place.path("words/vocab.txt")).unwrap().lines().count();
    let all = ["--top-k", &words.to_string(), "--values", "f32", "--out", "kept"];
    let recipe = ["--recipe", "weighed.toml", "--set", "training.max_steps=10"];
    place.says(&[&["cache", "--teacher", "teacher/best"][..], &recipe, &all].concat());
    let kept = fs::read_to_string(place.path("weighed.toml")).unwrap();
    place.write("kept.toml", &kept.replace("model = \"teacher/best\"", "cache = \"kept\""));
    place.says(&[&["train", "kept.toml", "--into", "beside-kept"][..], &short].concat());
    let shares = |run: &str| -> Vec<f64> {
        let record = fs::read_to_string(place.path(run).join("run.jsonl")).unwrap();
        let records = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let measured = records.filter(|record| record["balance"]["measured"] == true);
        measured.map(|record| record["balance"]["mean"].as_f64().unwrap()).collect()
    };
    let (live, beside_kept) = (shares("alone"), shares("beside-kept"));
    assert!((live[0] - beside_kept[0]).abs() < 1e-3, "{live:?} {beside_kept:?}");
    let told = place.json(&["explain", "beside-kept", "--top", "2", "--json"]);
    assert!(told["most"][0]["teacher"].is_null() && told["most"][0]["student"].is_f64(), "{told}");

    // Hidden tokens have text on both sides.
    let masked = "[text]\nkind = \"masked\"\npath = \"texts\"\ntrain = [\"train.txt\"]\n\
         validation = [\"dev.txt\"]\ndocuments = \"blank_line\"\nsequence_length = 32\n\
         [tokenizer]\npath = \"words\"\n[student]\nconfig = { model_type = \"bert\", hidden_size = 32, \
         num_hidden_layers = 1, num_attention_heads = 2, intermediate_size = 64, \
         max_position_embeddings = 32 }\n";
    let training = "[training]\nmax_steps = 3\nbatch_size = 8\neval_steps = 3\nseed = 7\n";
    place.write("bert.toml", &format!("{masked}{training}"));
    place.says(&["train", "bert.toml", "--into", "bert"]);
    let by_network = "[teacher]\nmodel = \"bert/best\"\n[objective.balance]\npolicy = \"meta_weight_net\"\n\
                      output = \"share\"\n";
    place.write("taught.toml", &format!("{masked}{by_network}{training}"));
    place.says(&["train", "taught.toml", "--into", "taught"]);
    let told = place.json(&["explain", "taught", "--top", "40", "--json"]);
    let after = |row: &Value| row["after"].as_str().is_some_and(|after| !after.is_empty());
    assert!(told["most"].as_array().unwrap().iter().any(after), "{told}");
    let (code, said) = place.refusal(&["explain", "bert"]);
    assert_eq!(code, 2);
    assert!(said.contains("weighs all tokens alike"), "{said}");
}

#[test]
fn an_encoder_learns_to_guess_hidden_tokens_and_is_measured_by_it() {
    let place = Place::with_texts();
    let recipe = "[text]\nkind = \"masked\"\npath = \"texts\"\ntrain = [\"train.txt\"]\n\
         validation = [\"dev.txt\"]\ndocuments = \"blank_line\"\nsequence_length = 32\n\
         whole_words = true\n[tokenizer]\npath = \"words\"\n[student]\nconfig = { \
         model_type = \"bert\", hidden_size = 32, num_hidden_layers = 1, \
         num_attention_heads = 2, intermediate_size = 64, max_position_embeddings = 32 }\n\
         [training]\nmax_steps = 40\nbatch_size = 24\nlearning_rate = 5e-3\neval_steps = 20\n\
         save_steps = 6\nseed = 7\n";
    place.write("masked.toml", recipe);
    let plan = place.says(&["plan", "masked.toml"]);
    assert!(plan.contains("objective  cross entropy with the hidden tokens\n"), "{plan}");
    place.says(&["train", "masked.toml", "--into", "masked"]);
    let found = place.json(&["eval", "masked", "--json"]);
    let evaluation = &found["evaluations"][0]["evaluation"];
    // Better than not to know which word.
    let words = fs::read_to_string(place.path("words/vocab.txt")).unwrap().lines().count() as f64;
    assert!(evaluation["loss"].as_f64().unwrap() < 0.99 * words.ln(), "{found}");
    assert!(evaluation["bits_per_byte"].is_null(), "nobody knows the bytes of guessed tokens");
    let config = fs::read_to_string(place.path("masked/best/config.json")).unwrap();
    assert!(config.contains("BertForMaskedLM"), "{config}");
    let (code, said) = place.refusal(&["eval", "masked", "--against", "masked"]);
    assert_eq!(code, 2);
    assert!(said.contains("--against is for models that predict labels"), "{said}");

    // A teacher of the same kind, heard for half of the run.
    let taught = recipe.replace(
        "[training]",
        "[teacher]\nmodel = \"masked/best\"\n[objective]\nbalance = { policy = \"schedule\", \
         from = 0.8, to = 0.0, course = \"step\" }\n[training]",
    );
    place.write("taught.toml", &taught);
    place.says(&["train", "taught.toml", "--into", "taught"]);
    let record = fs::read_to_string(place.path("taught/run.jsonl")).unwrap();
    let heard = record.lines().filter(|line| line.contains("\"teacher\":{")).count();
    assert_eq!(heard, 20, "{record}");
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_there() {
    let place = Place::with_texts();
    place.says(&["train", "teacher.toml", "--into", "teacher"]);
    let with = |name: &str, from: &str, to: &str| {
        let text = recipe(1, TAUGHT);
        assert!(text.contains(from), "{from}");
        place.write(name, &text.replace(from, to));
        place.refusal(&["train", name, "--into", "never"])
    };
    let rows = [
        with("a.toml", "\"train.txt\"", "\"trian.txt\""),
        with("b.toml", "train = [\"train.txt\"]", "train = [\"dev.txt\"]"),
        with("c.toml", "sequence_length = 32", "sequence_length = 64"),
        with("d.toml", "path = \"texts\"", "path = \"nowhere\""),
        with("e.toml", "kind = \"causal\"", "kind = \"masked\""),
    ];
    let all: Vec<String> = rows.iter().map(|(code, said)| format!("{code} {said}")).collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    2 error: `texts` holds no file `trian.txt`; the nearest name is `train.txt`
    2 error: `texts/dev.txt` is in both `text.train` and `text.validation`; keep it in one
    2 error: c.toml:7:1: `text.sequence_length` is 64, the teacher reads at most 32 tokens; lower it, or take a model with more positions
    1 problem
    2 error: `text.path` is "nowhere", which is not there; looked at `nowhere` (the variable HEIRLOOM_DATA is not set)
    2 error: e.toml:11:12: `student.config.model_type` is "gpt2", expected one of bert, roberta or distilbert
    1 problem
    "#);
    assert!(!place.path("never").exists());

    let (code, said) = place.refusal(&["resume", "teacher", "--set", "text.sequence_length=16"]);
    assert_eq!(code, 2);
    assert!(said.contains("the order of the data would change"), "{said}");
    place.says(&["resume", "teacher", "--set", "training.total_steps=26"]);
    let record = fs::read_to_string(place.path("teacher/run.jsonl")).unwrap();
    assert!(record.lines().last().unwrap().contains("\"step\":26"), "{record}");

    // The text changed since.
    let text = fs::read_to_string(place.path("texts/dev.txt")).unwrap();
    place.write("texts/dev.txt", &format!("{text} more"));
    let (code, said) = place.refusal(&["resume", "teacher"]);
    assert_eq!(code, 3);
    assert!(said.contains("is not the one this run began with"), "{said}");

    let (code, said) = place.refusal(&["explain", "teacher"]);
    assert_eq!(code, 2);
    assert!(said.contains("weighs all tokens alike"), "{said}");
}
