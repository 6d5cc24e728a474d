//! Every recipe in `recipes/` runs: as a smoke run, on stand-ins of its data and models.
//!
//! The stand-ins have the layout of the real thing (files, columns, tokenizer, model folder) and
//! invented words.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use heirloom_data::synthetic::{self, SyntheticExample};

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")
}

/// How an example is written as a row of a file.
type Row<'a> = &'a dyn Fn(&SyntheticExample) -> String;

/// A working directory, and the two folders that recipes look in.
struct StandIn {
    root: tempfile::TempDir,
}

impl StandIn {
    fn new() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        let train = synthetic::generate(1, 120);
        let dev = synthetic::generate(2, 40);
        let one = |e: &SyntheticExample| format!("{}\t{}\n", e.text, e.label % 2);
        let pair = |e: &SyntheticExample| {
            let (first, second) = halves(&e.text);
            let label = if e.label.is_multiple_of(2) { "entailment" } else { "not_entailment" };
            format!("{}\t{first}\t{second}\t{label}\n", e.label)
        };
        let score = |e: &SyntheticExample| {
            let (first, second) = halves(&e.text);
            format!("news\tfile\t2017\t1\t{}.25\t{first}\t{second}\n", e.label)
        };
        let question = |e: &SyntheticExample| format!("KIND{}:fine {}\n", e.label, e.text);
        let news = |e: &SyntheticExample| format!("{}\tTopic{}\n", e.text, e.label);
        let files: [(&str, &str, Row<'_>); 9] = [
            ("glue/SST-2/train.tsv", "sentence\tlabel\n", &one),
            ("glue/SST-2/dev.tsv", "sentence\tlabel\n", &one),
            ("glue/RTE/train.tsv", "index\tsentence1\tsentence2\tlabel\n", &pair),
            ("glue/RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n", &pair),
            ("glue/STS-B/sts-train.csv", "", &score),
            ("glue/STS-B/sts-dev.csv", "", &score),
            ("trec/train.txt", "", &question),
            ("trec/test.txt", "", &question),
            ("ag_news/train_sample.tsv", "", &news),
        ];
        for (at, (name, header, row)) in files.into_iter().enumerate() {
            let examples = if at % 2 == 0 { &train } else { &dev };
            let rows: String = examples.iter().map(row).collect();
            place.write(&format!("data/{name}"), &format!("{header}{rows}"));
        }
        place.write("data/tokenizers/bert-base-uncased/vocab.txt", &synthetic::vocabulary());
        let asked = |e: &SyntheticExample| {
            let (first, second) = halves(&e.text);
            serde_json::json!({"instruction": first, "input": "", "output": second})
        };
        let asked: Vec<serde_json::Value> = synthetic::generate(3, 600).iter().map(asked).collect();
        place.write("data/instruct/alpaca.json", &serde_json::to_string(&asked).unwrap());
        place.make_models();
        place.make_decoders();
        place.make_language_models();
        place
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A six-layer model, trained for a step; it stands for the pretrained one and the teacher.
    fn make_models(&self) {
        let recipe = "[task]\npreset = \"sst2\"\npath = \"glue/SST-2\"\n\
             [tokenizer]\npath = \"tokenizers/bert-base-uncased\"\n\
             [student]\nconfig = { model_type = \"bert\", hidden_size = 24, \
             num_hidden_layers = 6, num_attention_heads = 12, intermediate_size = 48, \
             max_position_embeddings = 256 }\n[training]\nmax_steps = 1\nbatch_size = 8\n\
             eval_strategy = \"end\"\nseed = 1\n";
        self.write("model.toml", recipe);
        let output = self.heirloom(&["train", "model.toml", "--into", "made"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made = self.root.path().join("made/last");
        let teachers = ["runs/sst2-teacher/seed-1/best", "runs/sst2-teacher/seed-2/best"];
        for target in ["models/all-MiniLM-L6-v2"].into_iter().chain(teachers) {
            let target = self.root.path().join(target);
            fs::create_dir_all(&target).unwrap();
            for entry in fs::read_dir(&made).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
            }
        }
        // As the comment of sst2-answers.toml says.
        let train = fs::read_to_string(self.root.path().join("data/glue/SST-2/train.tsv")).unwrap();
        let texts = train.lines().skip(1).map(|line| line.split('\t').next().unwrap());
        self.write("texts", &texts.collect::<Vec<_>>().join("\n"));
        let mut predict = self.command(&["predict", "runs/sst2-teacher/seed-1/best"]);
        let texts = fs::File::open(self.root.path().join("texts")).unwrap();
        let output = predict.stdin(texts).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.write("runs/sst2-answers.jsonl", std::str::from_utf8(&output.stdout).unwrap());
        // A pretrained encoder has no classifier; its config says so.
        let config = self.root.path().join("models/all-MiniLM-L6-v2/config.json");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("BertForSequenceClassification", "BertModel")).unwrap();
        let tensors = "models/all-MiniLM-L6-v2/model.safetensors";
        self.drop_classifier(&self.root.path().join(tensors));
    }

    /// Two decoders of one tokenizer, trained for a step: student and teacher of instructions.
    fn make_decoders(&self) {
        let words = synthetic::vocabulary();
        for (name, layers) in [("alpaca-student", 1), ("alpaca-teacher", 2)] {
            self.write("words/vocab.txt", &words);
            let end = r#"{"do_lower_case": true, "eos_token": "[SEP]"}"#;
            self.write("words/tokenizer_config.json", end);
            let recipe = format!(
                "[text]\nkind = \"causal\"\npath = \"instruct\"\ntrain = [\"alpaca.json\"]\n\
                 validation_split = 0.2\nshape = \"instruction\"\nsequence_length = 512\n\
                 [tokenizer]\npath = \"words\"\n[student]\nconfig = {{ model_type = \"llama\", \
                 hidden_size = 16, num_hidden_layers = {layers}, num_attention_heads = 2, \
                 intermediate_size = 32 }}\n[training]\nmax_steps = 1\nbatch_size = 2\n\
                 eval_strategy = \"end\"\n"
            );
            self.write("decoder.toml", &recipe);
            let into = format!("models/{name}-run");
            let output = self.heirloom(&["train", "decoder.toml", "--into", &into]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let made = self.root.path().join(&into).join("last");
            fs::rename(made, self.root.path().join("models").join(name)).unwrap();
        }
    }

    /// Novels of invented words, a tokenizer of theirs, and small models where the recipes that teach
    /// leave theirs.
    fn make_language_models(&self) {
        for (at, name) in
            ["a", "b", "c", "Doyle_Hound_1902", "Burnett_Lord_1886"].into_iter().enumerate()
        {
            let texts: Vec<String> = synthetic::generate(20 + at as u64, 60)
                .into_iter()
                .map(|example| example.text)
                .collect();
            self.write(&format!("data/text/novels/{name}.txt"), &texts.join("\n"));
        }
        for (kind, name) in [("bpe", "novels"), ("wordpiece", "pieces")] {
            let out = format!("models/tokenizers/{name}");
            let train = ["tokenizer", "train", "--kind", kind, "--vocab-size", "300", "--out"];
            let output = self.heirloom(&[&train[..], &[&out, "text/novels"]].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let recipe = recipes().join("novels-teacher.toml");
        for (run, layers) in [("runs/novels-teacher", 4), ("runs/novels-distil", 1)] {
            let config = format!(
                "student.config={{ model_type = \"gpt2\", hidden_size = 16, \
                 num_hidden_layers = {layers}, num_attention_heads = 2 }}"
            );
            let sets = [config.as_str(), "training.max_steps=1", "training.batch_size=2"];
            let mut arguments = vec!["train", recipe.to_str().unwrap(), "--into", run];
            sets.iter().for_each(|set| arguments.extend(["--set", set]));
            let output = self.heirloom(&arguments);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        // As the recipes' own comments say, but for fewer tokens.
        let (large, small) = ("runs/novels-teacher/best", "runs/novels-distil/best");
        for (recipe, teacher, out, more) in [
            ("novels-cached.toml", large, "runs/novels-kept", &[][..]),
            ("novels-two-teachers.toml", small, "runs/novels-small-kept", &[]),
            ("novels-salt.toml", small, "runs/novels-small-answers", &["--all"]),
        ] {
            let recipe = recipes().join(recipe);
            let cached = ["cache", "--recipe", recipe.to_str().unwrap(), "--top-k", "16"];
            let folders = ["--teacher", teacher, "--out", out];
            let output = self.heirloom(&[&cached[..], &folders, more].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Rewrites a weights file without its classifier.
    fn drop_classifier(&self, path: &Path) {
        let file = heirloom_store::TensorFile::open(path).unwrap();
        let names: Vec<String> = file
            .names()
            .filter(|name| !name.starts_with("classifier"))
            .map(str::to_owned)
            .collect();
        let read =
            |name: &String| (file.shape(name).unwrap().to_vec(), file.read_f32(name).unwrap());
        let tensors: Vec<(Vec<usize>, Vec<f32>)> = names.iter().map(read).collect();
        let arrays: Vec<heirloom_store::Array<'_>> = names
            .iter()
            .zip(&tensors)
            .map(|(name, (shape, values))| heirloom_store::Array::f32(name, shape, values))
            .collect();
        let target = self.root.path().join("bare");
        let about = heirloom_store::About::default();
        let mut draft = heirloom_store::Draft::begin(
            &heirloom_store::RealDisk,
            &target,
            heirloom_base::Bytes(0),
        )
        .unwrap();
        let put = |file: &mut heirloom_store::DraftFile<'_>| {
            heirloom_store::write_tensors(file, &arrays, &[("format", "pt")])
        };
        draft.put_with("model.safetensors", put).unwrap();
        draft.commit(about).unwrap();
        fs::copy(target.join("model.safetensors"), path).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heirloom"));
        command
            .args(arguments)
            .current_dir(self.root.path())
            .env("HEIRLOOM_DATA", self.root.path().join("data"))
            .env("HEIRLOOM_MODELS", self.root.path().join("models"));
        command
    }

    fn heirloom(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

/// A text cut in two near its middle.
fn halves(text: &str) -> (&str, &str) {
    let middle = text[..text.len() / 2].rfind(' ').unwrap_or(0);
    let (first, second) = text.split_at(middle);
    (first, second.trim_start())
}

#[test]
fn every_recipe_makes_a_smoke_run_and_leaves_nothing_behind() {
    let place = StandIn::new();
    let before = fs::read_dir(place.root.path()).unwrap().count();
    let mut names: Vec<PathBuf> =
        fs::read_dir(recipes()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    for recipe in names {
        let name = recipe.to_str().unwrap();
        let output = place.heirloom(&["train", name, "--smoke", "--json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let score = &summary["runs"][0]["best"];
        // A correlation of constant predictions has no value; every other score has one.
        assert!(score.is_number() || name.contains("stsb"), "{name}: {summary}");
    }
    assert_eq!(fs::read_dir(place.root.path()).unwrap().count(), before);
}

#[test]
fn a_run_in_bf16_says_so_and_keeps_the_answers_that_any_run_keeps() {
    let place = StandIn::new();
    let recipe = recipes().join("sst2-distil.toml");
    let run = |precision: &str| {
        let set = format!("training.precision={precision}");
        let into = format!("{precision}/run");
        let sets = ["training.seeds=[1]", "training.max_steps=3", "training.batch_size=8"];
        let mut arguments = vec!["train", recipe.to_str().unwrap(), "--into", &into, "--set", &set];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let output = place.heirloom(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    let only_file = |folder: &str| {
        let folder = place.root.path().join(folder);
        let mut files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let file = fs::read(files.next().unwrap()).unwrap();
        assert!(files.next().is_none(), "{}", folder.display());
        file
    };
    assert!(!run("f32").contains("bf16"));
    let said = run("bf16");
    let note = if heirloom_engine::Cpu::has_bf16() {
        "bf16: by the processor's own instruction"
    } else {
        "note: bf16: this processor has no AVX512-BF16"
    };
    assert!(said.contains(note), "{said}");
    assert_eq!(only_file("f32/teacher-logits"), only_file("bf16/teacher-logits"));
    let record = |precision: &str| {
        fs::read(place.root.path().join(precision).join("run/run.jsonl")).unwrap()
    };
    assert!(record("f32") != record("bf16"), "nothing was rounded");
    // A run goes on in the precision it began in.
    let resumed = place.heirloom(&["resume", "bf16/run", "--set", "training.precision=f32"]);
    let said = String::from_utf8(resumed.stderr).unwrap();
    assert_eq!(resumed.status.code(), Some(2), "{said}");
    assert!(said.contains("computed in another precision"), "{said}");
}
