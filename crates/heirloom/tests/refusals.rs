//! What the command refuses: with which exit code, in which words, and that nothing was created,
//! changed or lost.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use heirloom_base::Digest;
use heirloom_store::{Holder, RunLock};
use tempfile::TempDir;

/// A folder with a recipe, data and a vocabulary, in which commands are run.
struct Place(TempDir);

/// 60 tokens, as many as the models of the fixtures know.
const WORDS: usize = 55;

const RECIPE: &str = r#"
[task]
kind = "classification"
path = "data"
train = "train.tsv"
validation = "dev.tsv"
text = "sentence"
label = "label"
max_length = 16

[tokenizer]
path = "vocab.txt"

[student]
config = { model_type = "bert", hidden_size = 8, num_hidden_layers = 1, num_attention_heads = 2 }

[training]
epochs = 2
batch_size = 6

[output]
dir = "run"
"#;

/// The same with a teacher.
const TAUGHT: &str = "\n[teacher]\nmodel = \"teacher\"\n";

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("recipe.toml", RECIPE);
        place.write("vocab.txt", vocabulary(|at| at));
        place.write("data/train.tsv", rows(0, 12));
        place.write("data/dev.tsv", rows(20, 6));
        place
    }

    /// A place whose recipe has more lines at its end.
    fn with(lines: &str) -> Self {
        let place = Self::new();
        place.write("recipe.toml", format!("{RECIPE}{lines}"));
        place
    }

    /// A place with a run that has finished.
    fn trained() -> Self {
        let place = Self::new();
        let (code, message) = place.run("train recipe.toml --quiet");
        assert_eq!(code, 0, "{message}");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Changes the text of a file; what is changed must be there.
    fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old), "{name} has no {old:?}");
        self.write(name, text.replacen(old, new, 1));
    }

    /// A classifier of three labels with a tokenizer, in a folder of this name.
    fn model(&self, name: &str) {
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoders/bert-single");
        for file in ["config.json", "model.safetensors"] {
            self.write(&format!("{name}/{file}"), fs::read(fixture.join(file)).unwrap());
        }
        self.write(&format!("{name}/vocab.txt"), vocabulary(|at| at));
    }

    /// A place whose student starts from the model folder `m`.
    fn with_model() -> Self {
        let place = Self::new();
        place.edit("recipe.toml", "config = { model_type = \"bert\", hidden_size = 8, num_hidden_layers = 1, num_attention_heads = 2 }", "model = \"m\"");
        place.model("m");
        place
    }

    /// Exit code, stdout and stderr of a command.
    fn run(&self, line: &str) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_heirloom"))
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .env_remove("HEIRLOOM_DATA")
            .env_remove("HEIRLOOM_MODELS")
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said)
    }

    /// What a command that must change nothing says, with digests left out.
    #[track_caller]
    fn refuses(&self, line: &str) -> String {
        let before = self.files();
        let (code, said) = self.run(line);
        assert_eq!(self.files(), before, "{line} changed files\n{said}");
        assert_ne!(code, 0, "{line} was not refused\n{said}");
        format!("exit {code}\n{}", without_digests(&said))
    }

    /// Every file and folder. The lock says who wrote last; that is no part of a run.
    fn files(&self) -> BTreeMap<PathBuf, Option<Digest>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                    files.insert(path, None);
                } else if path.file_name().unwrap() != "lock" {
                    let digest = Digest::of(&fs::read(&path).unwrap());
                    files.insert(path, Some(digest));
                }
            }
        }
        files
    }

    /// The run's checkpoints, oldest first.
    fn checkpoints(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("run")).unwrap().map(|entry| entry.unwrap().path());
        let mut steps: Vec<PathBuf> = entries
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("step-"))
            .collect();
        steps.sort();
        steps
    }
}

fn vocabulary(word: impl Fn(usize) -> usize) -> String {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let words = (0..WORDS).map(|at| format!("w{}", word(at)));
    special.into_iter().chain(words).map(|token| token + "\n").collect()
}

/// Rows of three labels, no text twice.
fn rows(first: usize, count: usize) -> String {
    let row = |at: usize| format!("w{at} w{} w{}\t{}\n", at + 1, at % 7, ["a", "b", "c"][at % 3]);
    let rows: String = (first..first + count).map(row).collect();
    format!("sentence\tlabel\n{rows}")
}

/// Characters of a digest in a message.
const SHORT_DIGEST: usize = 12;

/// Digests stand for bytes, which the tests do not care about.
fn without_digests(text: &str) -> String {
    let is_digest =
        |word: &str| word.len() == SHORT_DIGEST && word.chars().all(|c| c.is_ascii_hexdigit());
    let word = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if is_digest(bare) { word.replace(bare, "<digest>") } else { word.to_owned() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_recipe_with_misspelt_keys_is_refused_with_all_of_them() {
    let place = Place::new();
    place.edit("recipe.toml", "batch_size", "batchsize");
    place.edit("recipe.toml", "max_length = 16", "max_lenght = 16\nmetric = \"accurracy\"");
    place.edit("recipe.toml", "[output]", "[outptu]");
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r#"
    exit 2
    error: recipe.toml:9:1: unknown key `task.max_lenght`; did you mean `max_length`?
    recipe.toml:10:10: `task.metric` is "accurracy", expected one of `accuracy`, `f1`, `accuracy_and_f1`, `matthews`, `pearson_spearman`, `f1_micro`, `mse`; did you mean `accuracy`?
    recipe.toml:20:1: unknown key `training.batchsize`; did you mean `batch_size`?
    recipe.toml:22:2: unknown key `outptu`; did you mean `output`?
    4 problems
    "#);
}

#[test]
fn a_key_that_is_set_and_unknown_is_refused() {
    let place = Place::new();
    insta::assert_snapshot!(place.refuses("train recipe.toml --set training.learning_rat=1e-3"), @r"
    exit 2
    error: --set training.learning_rat=1e-3: unknown key `training.learning_rat`; did you mean `learning_rate`?
    1 problem
    ");
}

#[test]
fn a_recipe_or_data_folder_that_is_not_there_is_named() {
    let place = Place::new();
    insta::assert_snapshot!(place.refuses("train recipes.toml"), @r"
    exit 2
    error: cannot read the recipe `recipes.toml`: No such file or directory (os error 2); the nearest name there is `recipe.toml`
    ");
    insta::assert_snapshot!(place.refuses("train nothing/of/the-kind.toml"), @r"
    exit 2
    error: cannot read the recipe `nothing/of/the-kind.toml`: No such file or directory (os error 2); a recipe is a TOML file, of which the folder `recipes` of Heirloom's sources has one per feature
    ");
    insta::assert_snapshot!(place.refuses("train recipe.toml --set task.path=dada"), @r#"
    exit 2
    error: `task.path` is "dada", which is not there; looked at `dada` (the variable HEIRLOOM_DATA is not set); the nearest name there is `data`
    "#);
    insta::assert_snapshot!(place.refuses("train recipe.toml --set task.train=trian.tsv"), @r"
    exit 2
    error: `data` holds no file `trian.tsv`; the nearest name is `train.tsv`
    ");
}

#[test]
fn epochs_and_max_steps_contradict_each_other() {
    let place = Place::new();
    place.edit("recipe.toml", "epochs = 2", "epochs = 2\nmax_steps = 10");
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r"
    exit 2
    error: recipe.toml:19:1: `training.max_steps` and `training.epochs` contradict each other; keep one
    1 problem
    ");
}

#[test]
fn a_label_that_is_not_in_the_list_has_its_file_line_and_column() {
    let place = Place::new();
    place.edit("recipe.toml", "label = \"label\"", "label = \"label\"\nlabels = [\"a\", \"b\"]");
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r#"
    exit 3
    error: data/train.tsv:4:10: field `label` is "c", expected one of `a`, `b`
      the line begins `w2 w3 w2\tc`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
}

#[test]
fn a_line_that_is_not_utf8_has_its_place() {
    let place = Place::new();
    let mut bytes = fs::read(place.path("data/train.tsv")).unwrap();
    bytes.extend_from_slice(b"caf\xe9 w1\ta\n");
    place.write("data/train.tsv", bytes);
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r#"
    exit 3
    error: data/train.tsv:14:4: not UTF-8, expected UTF-8 text; set `task.encoding = "latin-1"` if the file is older
      the line begins `caf\xe9 w1\ta`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
}

#[test]
fn a_truncated_weights_file_is_refused() {
    let place = Place::with_model();
    let bytes = fs::read(place.path("m/model.safetensors")).unwrap();
    place.write("m/model.safetensors", &bytes[..bytes.len() - 100]);
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r"
    exit 3
    error: `m/model.safetensors` is truncated: its arrays take 24716 bytes, and 24616 are there; fetch it again
    ");
}

#[test]
fn a_header_longer_than_any_file_is_refused() {
    let place = Place::with_model();
    let mut bytes = fs::read(place.path("m/model.safetensors")).unwrap();
    bytes[..8].copy_from_slice(&(1u64 << 63).to_le_bytes());
    place.write("m/model.safetensors", bytes);
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r"
    exit 3
    error: `m/model.safetensors` announces a header of 9223372036854775808 bytes, more than the 100000000 allowed
    ");
}

#[test]
fn a_pickle_is_refused_with_the_way_to_convert_it() {
    let place = Place::with_model();
    fs::remove_file(place.path("m/model.safetensors")).unwrap();
    place.write("m/pytorch_model.bin", "PK");
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r#"
    exit 3
    error: `m/pytorch_model.bin` is a PyTorch pickle, which can run code when it is loaded; convert it once, where you trust it, with `safetensors.torch.save_file(torch.load("pytorch_model.bin", weights_only=True), "model.safetensors")` and point to `model.safetensors`
    "#);
}

#[test]
fn a_model_folder_without_a_config_is_refused() {
    let place = Place::with_model();
    fs::remove_file(place.path("m/config.json")).unwrap();
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r"
    exit 3
    error: cannot read `m/config.json`: No such file or directory (os error 2); a model folder holds config.json, model.safetensors and tokenizer.json
    ");
}

#[test]
fn a_teacher_with_another_vocabulary_is_refused_with_the_first_difference() {
    let place = Place::with(TAUGHT);
    place.model("teacher");
    // Words 3 and 4 change places.
    place.write(
        "teacher/vocab.txt",
        vocabulary(|at| [0, 1, 2, 4, 3].get(at).copied().unwrap_or(at)),
    );
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r#"
    exit 2
    error: recipe.toml:25:1: teacher and student both know 60 tokens, but not the same ones; distillation of a text classifier reads one tokenisation, so take a student with the teacher's tokenizer, or let the teacher read with its own (`tokenizer = "own"`) (token 8 is "w4" for the teacher, "w3" for the student)
    1 problem
    "#);
}

#[test]
fn a_teacher_with_other_labels_is_refused_with_both_lists() {
    let place = Place::with(TAUGHT);
    place.model("teacher");
    for (id, name) in [(0, "c"), (1, "a"), (2, "b")] {
        let new = format!("\"{id}\": \"{name}\"");
        place.edit("teacher/config.json", &format!("\"{id}\": \"LABEL_{id}\""), &new);
    }
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r"
    exit 2
    error: recipe.toml:25:1: the teacher's labels are `c`, `a`, `b`, the task's are `a`, `b`, `c`; write `task.labels` in the teacher's order
    1 problem
    ");
    place.edit("teacher/config.json", ",\n    \"2\": \"b\"", "");
    insta::assert_snapshot!(place.refuses("train recipe.toml"), @r"
    exit 2
    error: recipe.toml:25:1: the teacher tells 2 labels apart, the task has 3; it was trained for another task, or `task.labels` is incomplete
    1 problem
    ");
}

#[test]
fn a_damaged_file_of_a_teachers_answers_is_named() {
    let place = Place::with(TAUGHT);
    place.model("teacher");
    assert_eq!(place.run("train recipe.toml --quiet").0, 0);
    let answers = fs::read_dir(place.path("teacher-logits")).unwrap().next().unwrap().unwrap();
    let mut bytes = fs::read(answers.path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(answers.path(), bytes).unwrap();
    let name = format!("teacher-logits/{}", answers.file_name().display());
    let message = place.refuses("resume run").replace(&name, "<answers>");
    insta::assert_snapshot!(message, @r"
    exit 3
    error: `<answers>`: the teacher cache is damaged: block 0 (examples 0..12) was changed: digest <digest>, expected <digest>; delete it, and the next run makes it again
    ");
}

#[test]
fn a_run_folder_that_holds_something_is_left_as_it_is() {
    let place = Place::trained();
    let message = place.refuses("train recipe.toml --quiet");
    let begin = "exit 2\nerror: `run` is not empty (it holds `best`); choose another folder";
    assert!(message.starts_with(begin), "{message}");
    assert!(message.contains("heirloom resume run"), "{message}");
}

#[test]
fn a_folder_that_is_no_run_cannot_be_resumed() {
    let place = Place::new();
    insta::assert_snapshot!(place.refuses("resume data"), @r"
    exit 2
    error: `data` is not a run folder: it has no plan.toml; begin a run with: heirloom train RECIPE --into data
    ");
    insta::assert_snapshot!(place.refuses("resume nowhere"), @r"
    exit 2
    error: `nowhere` is not a run folder: it has no plan.toml; begin a run with: heirloom train RECIPE --into nowhere
    ");
}

#[test]
fn a_run_whose_data_changed_by_one_byte_is_not_resumed() {
    let place = Place::trained();
    place.edit("data/train.tsv", "w3 w4", "w3 w5");
    insta::assert_snapshot!(place.refuses("resume run"), @r"
    exit 3
    error: data in `data` is not the one this run began with (digest <digest>, was <digest>); put it back, or begin a new run
    ");
    place.edit("data/train.tsv", "w3 w5", "w3 w4");
    assert_eq!(place.run("resume run --quiet").0, 0, "the data is back");
}

#[test]
fn a_run_in_use_by_another_process_is_refused() {
    let place = Place::trained();
    let holder =
        Holder { host: "a".to_owned(), process: 4711, since: "2026-01-02 10:42:00 UTC".to_owned() };
    let lock = RunLock::take(&place.path("run"), &holder).unwrap();
    insta::assert_snapshot!(place.refuses("resume run"), @r"
    exit 2
    error: `run` is in use by process 4711 on host a since 2026-01-02 10:42:00 UTC; wait for it to end, or stop it
    ");
    drop(lock);
    assert_eq!(place.run("resume run --quiet").0, 0, "the lock is free");
}

#[test]
fn a_damaged_newest_checkpoint_is_refused_and_the_older_one_is_named() {
    let place = Place::trained();
    let steps = place.checkpoints();
    assert_eq!(steps.len(), 2);
    let weights = steps[1].join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    insta::assert_snapshot!(place.refuses("resume run"), @r"
    exit 3
    error: `run/step-000000004/model.safetensors` is damaged: its digest is <digest>, and was <digest> when it was written; step 2 is whole: move `run/step-000000004` away and resume again to go on from there
    ");
    insta::assert_snapshot!(place.refuses("verify run"), @r"
    exit 3
    `run/step-000000004/model.safetensors` is damaged: its digest is <digest>, and was <digest> when it was written
    ");

    fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    insta::assert_snapshot!(place.refuses("resume run"), @r"
    exit 3
    error: `run/step-000000004/model.safetensors` is truncated: it has 24867 bytes of 24868; step 2 is whole: move `run/step-000000004` away and resume again to go on from there
    ");

    fs::rename(&steps[1], place.path("set-aside")).unwrap();
    assert_eq!(place.run("resume run --quiet").0, 0, "the older checkpoint goes on");
    assert_eq!(fs::read(&weights).unwrap(), whole, "and comes to the same weights");
}

#[test]
fn a_student_larger_than_memory_is_refused_before_anything_is_allocated() {
    let place = Place::new();
    place.edit(
        "recipe.toml",
        "hidden_size = 8, num_hidden_layers = 1",
        "hidden_size = 65536, num_hidden_layers = 1000",
    );
    let message = place.refuses("train recipe.toml");
    // What is free, and what this process holds besides the model, depends on the machine.
    let (parts, rest) = message.split_once(", other ").unwrap();
    let (_, way_out) = rest.split_once(" GB; ").unwrap();
    let (way_out, rest) = way_out.split_once(", as ").unwrap();
    let (_, rest) = rest.split_once(" are needed ").unwrap();
    insta::assert_snapshot!(format!("{parts}; {way_out}, as <all> are needed {rest}"), @r"
    exit 6
    error: does not fit in memory: weights 206179.2, gradients 206179.2, moments 412358.3, activations 125.9; no micro-batch is small enough, as <all> are needed without it; take a smaller model
    ");
}

#[test]
fn a_model_that_is_not_there_or_says_no_task_is_not_evaluated() {
    let place = Place::new();
    place.model("m");
    insta::assert_snapshot!(place.refuses("eval nowhere"), @r"
    exit 2
    error: `nowhere` is not there
    ");
    insta::assert_snapshot!(place.refuses("eval m"), @r"
    exit 2
    error: `m` is a model and no run, so it does not say what to evaluate it on; name a recipe with --recipe FILE, or for a language model a text with --text FILE
    ");
    insta::assert_snapshot!(place.refuses("eval m --set task.path=data"), @r"
    exit 2
    error: --set changes a recipe; name the recipe too, with --recipe FILE
    ");
    insta::assert_snapshot!(place.refuses("predict nowhere"), @r"
    exit 2
    error: `nowhere` is not there
    ");
    insta::assert_snapshot!(place.refuses("verify nowhere"), @r"
    exit 2
    error: `nowhere` is not there
    ");
    insta::assert_snapshot!(place.refuses("verify data"), @r"
    exit 2
    error: `data` is nothing that can be verified: it holds no plan.toml (a run), seeds.json (runs over seeds), cache.json (kept answers), tokens.json (kept tokens), file in .logits (a classifier's kept answers), manifest.json (a checkpoint) or config.json (a model)
    ");
}

#[test]
fn a_model_with_other_labels_is_not_evaluated_and_a_permutation_is() {
    let place = Place::new();
    place.model("m");
    assert_eq!(place.run("eval m --recipe recipe.toml").0, 0, "LABEL_0 and so on go by position");
    for (old, new) in
        [("\"0\": \"LABEL_0\"", "\"0\": \"c\""), ("\"1\": \"LABEL_1\"", "\"1\": \"b\"")]
    {
        place.edit("m/config.json", old, new);
    }
    insta::assert_snapshot!(place.refuses("eval m --recipe recipe.toml"), @r"
    exit 3
    error: the labels of the model in `m` are not those of the task
      model: c, b, LABEL_2
      task:  a, b, c
    rename `id2label` in its config.json, or `task.labels`, so that both lists have the same names
    ");
    place.edit("m/config.json", "\"2\": \"LABEL_2\"", "\"2\": \"a\"");
    assert_eq!(place.run("eval m --recipe recipe.toml").0, 0);
}
