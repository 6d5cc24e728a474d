//! Learning from a teacher's kept answers: that it is learning from the teacher, that it goes on after
//! a crash, and that answers of something else are refused.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;

use heirloom::Places;
use heirloom::language::{KeptTokens, gather_language};
use heirloom_data::text::{NOT_LEARNT, Row, Rows};
use heirloom_engine::{Cpu, Device};
use heirloom_models::{Capacity, Decoder, DecoderConfig, Inputs, Purpose};
use heirloom_store::TensorFolder;
use serde_json::Value;

#[path = "place/decoders.rs"]
mod decoders;
mod place;

use place::Place;

/// A teacher of the fixtures, another of its kind, texts, and recipes that learn from the teacher and
/// from its answers in `kept`.
fn place() -> Place {
    let place = decoders::place(["model", "other"]);
    place.write("live.toml", &recipe("model = \"model\""));
    place.write("kept.toml", &recipe("cache = \"kept\""));
    place
}

fn recipe(teacher: &str) -> String {
    decoders::recipe(("model", 48), &format!("[teacher]\n{teacher}\n"), None)
}

/// Exit code, stdout, stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let output = place.command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn succeeds(place: &Place, arguments: &[&str]) {
    let (code, _, err) = run(place, arguments);
    assert_eq!(code, 0, "{arguments:?}: {err}");
}

#[track_caller]
fn keep(place: &Place, out: &str, kind: &[&str]) {
    let what = ["cache", "--teacher", "model", "--recipe", "live.toml", "--out", out];
    succeeds(place, &[&what[..], kind].concat());
}

/// Of each step the loss and the teacher's term.
fn losses(place: &Place, run: &str) -> Vec<[f64; 2]> {
    let record = fs::read_to_string(place.path(run).join("run.jsonl")).unwrap();
    let lines = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps = lines.filter(|line| line["kind"] == "step");
    steps
        .map(|line| {
            let teacher = &line["terms"]["teacher"]["mean"];
            [line["loss"].as_f64().unwrap(), teacher.as_f64().unwrap()]
        })
        .collect()
}

#[test]
fn all_tokens_kept_exactly_is_the_teacher_itself() {
    let place = place();
    keep(&place, "kept", &["--top-k", "60", "--values", "f32"]);
    succeeds(&place, &["train", "live.toml", "--into", "live"]);
    succeeds(&place, &["train", "kept.toml", "--into", "from-kept"]);
    let (want, got) = (losses(&place, "live"), losses(&place, "from-kept"));
    assert_eq!((want.len(), got.len()), (8, 8));
    for (want, got) in want.iter().zip(&got) {
        for (want, got) in want.iter().zip(got) {
            // Batches are packed otherwise, and a divergence is a difference of such numbers.
            assert!((want - got).abs() < 1e-4 * want.max(1.0), "{got}, from the teacher {want}");
        }
    }
}

/// Learning a map reads the batches of the coming steps: each with the answers to its own rows.
#[test]
fn a_map_is_learnt_from_kept_answers_as_from_the_teacher_beside() {
    let place = place();
    keep(&place, "kept", &["--top-k", "60", "--values", "f32"]);
    let stage =
        "stage=[{ at_step = 3, method = \"ligo\", operator_steps = 4, num_hidden_layers = 2 }]";
    let learnt = |recipe: &str, run: &str| -> [f64; 2] {
        succeeds(&place, &["train", recipe, "--into", run, "--set", stage]);
        let record = fs::read_to_string(place.path(run).join("run.jsonl")).unwrap();
        let lines = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let growths: Vec<Value> = lines.filter(|line| line["kind"] == "growth").collect();
        let [growth] = growths.as_slice() else { panic!("one growth, not {growths:?}") };
        ["first_loss", "last_loss"].map(|loss| growth["learnt"][loss].as_f64().unwrap())
    };
    let (want, got) = (learnt("live.toml", "live"), learnt("kept.toml", "from-kept"));
    for (want, got) in want.iter().zip(got) {
        assert!((want - got).abs() < 1e-4 * want, "{got}, from the teacher {want}");
    }
}

/// Of each step the loss and the length of the gradient.
fn slopes(place: &Place, run: &str) -> Vec<[f64; 2]> {
    let record = fs::read_to_string(place.path(run).join("run.jsonl")).unwrap();
    let lines = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps = lines.filter(|line| line["kind"] == "step");
    let number = |line: &Value, name: &str| line[name].as_f64().unwrap();
    steps.map(|line| [number(&line, "loss"), number(&line, "gradient_norm")]).collect()
}

#[test]
fn kept_hidden_states_teach_what_the_teacher_beside_does() {
    let place = place();
    let reverse = "objective.divergence=\"reverse_kl\"";
    succeeds(&place, &["train", "live.toml", "--set", reverse, "--into", "live"]);
    let want = slopes(&place, "live");
    // Exact where f32 is kept, but for batches that are packed otherwise; bf16 has 8 bits.
    for (values, bound) in [("f32", 1e-4), ("bf16", 3e-2)] {
        keep(&place, values, &["--states", "--values", values]);
        let cache = format!("teacher.cache=\"{values}\"");
        let into = format!("run-{values}");
        let sets = ["--set", &cache, "--set", reverse, "--into", &into];
        succeeds(&place, &[&["train", "kept.toml"], &sets[..]].concat());
        let got = slopes(&place, &into);
        assert_eq!((got.len(), want.len()), (8, 8));
        for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
            assert!((got - want).abs() < bound * want.max(1.0), "{values}: {got}, live {want}");
        }
    }
    let set = ["--set", "teacher.cache=\"f32\""];
    let (code, said, err) = run(&place, &[&["plan", "kept.toml"], &set[..]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(said.contains("hidden states kept in f32, of weights "), "{said}");
    assert!(said.contains("answers computed from them with the head of model"), "{said}");

    // It goes on after a crash to the same bits.
    copy(&place.path("run-f32"), &place.path("cut"));
    for later in ["step-000000006", "step-000000008", "best", "last"] {
        fs::remove_dir_all(place.path("cut").join(later)).unwrap();
    }
    succeeds(&place, &["resume", "cut"]);
    let read = |run: &str| fs::read(place.path(run).join("last/model.safetensors")).unwrap();
    assert!(read("cut") == read("run-f32"));

    let refused = |sets: &[&str], want: i32, message: &str| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let what = ["train", "kept.toml", "--into", "no", "--set", "teacher.cache=\"f32\""];
        let (code, _, err) = run(&place, &[&what[..], &sets].concat());
        assert!(code == want && err.contains(message), "{code}: {err}");
        assert!(!place.path("no").exists());
    };
    refused(&["objective.missing=\"zero\""], 2, "hidden states, which name every token");
    refused(&["teacher.model=\"other\""], 3, "of another teacher (");
    // A head of other weights, and none.
    let weights = place.path("model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    refused(&[], 3, "the teacher in `model` has other weights (");
    fs::rename(place.path("model"), place.path("moved")).unwrap();
    let moved = "tokenizer.path=\"moved\"";
    refused(&[moved], 2, "`teacher.model` is \"model\", which is not there");
}

#[test]
fn few_tokens_and_draws_teach_the_same_to_what_they_leave_out() {
    let place = place();
    let zero = "objective.missing=\"zero\"";
    for (out, kind, set) in [
        ("few", &["--top-k", "12"][..], "seed=7"),
        ("zero", &["--top-k", "12"], zero),
        ("drawn", &["--samples", "20"], "seed=7"),
    ] {
        keep(&place, out, kind);
        let cache = format!("teacher.cache=\"{out}\"");
        let into = format!("run-{out}");
        let set = set.replace("seed=7", "training.seed=7");
        let arguments = ["train", "kept.toml", "--set", &cache, "--set", &set, "--into", &into];
        succeeds(&place, &arguments);
        let all = losses(&place, &into);
        assert!(all.iter().flatten().all(|loss| loss.is_finite()), "{all:?}");
        assert!(all[7][0] < all[0][0], "{out}: {all:?}");
    }
    // Left out and as one token are not one loss.
    assert_ne!(losses(&place, "run-few"), losses(&place, "run-zero"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_resumed_run_ends_with_the_bits_of_one_left_alone() {
    let place = place();
    keep(&place, "kept", &["--samples", "9"]);
    succeeds(&place, &["train", "kept.toml", "--into", "alone"]);
    copy(&place.path("alone"), &place.path("cut"));
    for later in ["step-000000006", "step-000000008", "best", "last"] {
        fs::remove_dir_all(place.path("cut").join(later)).unwrap();
    }
    succeeds(&place, &["resume", "cut"]);
    for file in ["run.jsonl", "last/model.safetensors", "best/model.safetensors"] {
        let read = |run: &str| fs::read(place.path(run).join(file)).unwrap();
        assert!(read("cut") == read("alone"), "{file}");
    }

    // Answers that are others now are not gone on with.
    fs::remove_dir_all(place.path("kept")).unwrap();
    keep(&place, "kept", &["--samples", "9", "--seed", "2"]);
    copy(&place.path("alone"), &place.path("again"));
    for later in ["step-000000006", "step-000000008", "best", "last"] {
        fs::remove_dir_all(place.path("again").join(later)).unwrap();
    }
    let (code, _, err) = run(&place, &["resume", "again"]);
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains("teacher's kept answers `kept` is not the one this run began with"),
        "{err}"
    );
}

#[test]
fn answers_of_something_else_are_refused() {
    let place = place();
    keep(&place, "kept", &["--top-k", "5"]);
    let refused = |sets: &[&str], want: i32, message: &str| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let arguments = [&["train", "kept.toml", "--into", "run"], &sets[..]].concat();
        let (code, _, err) = run(&place, &arguments);
        assert_eq!(code, want, "{sets:?}: {err}");
        assert!(err.contains(message), "{sets:?}: {err}");
        assert!(!place.path("run").exists(), "{sets:?}");
    };
    refused(&["objective.temperature=1.0"], 3, "of another temperature (2, expected 1)");
    refused(
        &["text.train=[\"valid.txt\"]", "text.validation=[\"train.txt\"]"],
        3,
        "of another text (",
    );
    refused(&["text.sequence_length=32"], 3, "of another text (");
    refused(&["teacher.model=\"other\""], 3, "of another teacher (");
    refused(&["teacher.cache=\"text\""], 3, "`text` holds no kept answers");
    refused(
        &["teacher.cache=\"nowhere\""],
        2,
        "`teacher.cache` is \"nowhere\", which is not there",
    );
    refused(
        &["objective.divergence=\"reverse_kl\"", "objective.missing=\"renormalise\""],
        2,
        "it is infinite where the teacher has 0 and the student has not",
    );
    refused(
        &["objective.divergence=\"dkd\""],
        2,
        "it needs the teacher's probability of the label",
    );
    refused(&["objective.temperature_end=1.0"], 2, "what is kept has one temperature");
    refused(&["objective.until_overtaken=true"], 2, "of the validation text nothing is kept");
    refused(&["teacher.logits=\"live\""], 2, "no `teacher.cache`, which says it");

    place.write(
        "live-zero.toml",
        &(recipe("model = \"model\"").replace("alpha", "missing = \"zero\"\nalpha")),
    );
    let (code, _, err) = run(&place, &["plan", "live-zero.toml"]);
    assert!(code == 2 && err.contains("`teacher.cache`; a model names every token"), "{err}");

    keep(&place, "drawn", &["--samples", "5"]);
    refused(
        &["teacher.cache=\"drawn\"", "objective.divergence=\"jensen_shannon\""],
        2,
        "of draws only the cross-entropy",
    );

    // One that is its own, and whole, and then is not.
    succeeds(&place, &["plan", "kept.toml", "--set", "teacher.model=\"model\""]);
    let part = place.path("kept/part-00000.answers");
    let bytes = fs::read(&part).unwrap();
    fs::write(&part, &bytes[..bytes.len() - 1]).unwrap();
    refused(&[], 3, "was cut or is no file of answers");
    fs::remove_file(&part).unwrap();
    refused(&[], 3, "1 of 1 files are missing");
    let mut changed = bytes.clone();
    changed[400] ^= 1;
    fs::write(&part, changed).unwrap();
    let (code, _, err) = run(&place, &["train", "kept.toml", "--into", "changed"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("was changed in block 0 (tokens 0..1024 of the file)"), "{err}");
}

/// Exit code and stderr of a run of so many steps that learns from `kept`.
fn train(place: &Place, into: &str, steps: u64, seeds: &str) -> (i32, String) {
    let steps = format!("training.max_steps={steps}");
    let sets = ["--set", &steps, "--set", "training.batch_size=3", "--set", seeds];
    let arguments = [&["train", "kept.toml", "--into", into][..], &sets].concat();
    let (code, _, err) = run(place, &arguments);
    (code, err)
}

#[test]
fn what_runs_read_is_kept_and_more_seeds_and_steps_are_added() {
    let place = place();
    let sets = ["--set", "training.max_steps=2", "--set", "training.batch_size=3"];
    let what = ["--teacher", "model", "--recipe", "kept.toml", "--out", "kept", "--top-k", "5"];
    let cache = |more: &[&str]| {
        let arguments = [&["cache", "--json"], &what[..], &sets, more].concat();
        let (code, said, err) = run(&place, &arguments);
        assert_eq!(code, 0, "{err}");
        (serde_json::from_str::<Value>(&said).unwrap(), err)
    };
    let (said, err) = cache(&[]);
    let rows = said["of_rows"].as_u64().unwrap();
    assert!(said["rows"] == 6 && rows > 20, "{said}");
    assert!(err.contains(&format!("answers to 6 of {rows} rows, ")), "{err}");
    assert_eq!(train(&place, "run", 2, "training.seed=7").0, 0);

    // More steps, another seed: refused before there is a run folder, with what mends it.
    let (code, err) = train(&place, "more", 3, "training.seed=7");
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains("the answers in `kept` miss 3 of the 9 rows that the run reads (seed 7)"),
        "{err}"
    );
    let (code, err) = train(&place, "more", 2, "training.seeds=[7, 8]");
    assert_eq!(code, 3, "{err}");
    let add = "heirloom cache --teacher model --recipe kept.toml --seeds 8 --out kept --top-k 5\n";
    assert!(err.contains("(seed 8)") && err.contains(add), "{err}");
    assert!(!place.path("more").exists());

    let part = fs::read(place.path("kept/part-00000.answers")).unwrap();
    let (said, err) = cache(&["--seeds", "8"]);
    let both = said["rows"].as_u64().unwrap();
    assert!((9..=12).contains(&both), "{said}");
    assert!(
        err.contains(&format!("answers to {both} of {rows} rows, {} of them new", both - 6)),
        "{err}"
    );
    assert!(part == fs::read(place.path("kept/part-00000.answers")).unwrap());
    assert_eq!(train(&place, "both", 2, "training.seeds=[7, 8]").0, 0);
    let (code, said, _) = run(&place, &["cache", "verify", "kept"]);
    assert!(code == 0 && said.contains(&format!("{both} rows of {rows}")), "{said}");

    // What was added changes nothing for a run that had begun.
    for later in ["step-000000002", "best", "last"] {
        fs::remove_dir_all(place.path("run").join(later)).unwrap();
    }
    succeeds(&place, &["resume", "run"]);
    let (code, _, err) = run(&place, &["resume", "run", "--set", "training.total_steps=9"]);
    assert!(code == 3 && err.contains("rows that the run reads (seed 7)"), "{err}");
    let (said, _) = cache(&["--all"]);
    assert_eq!(said["rows"].as_u64().unwrap(), rows);
    assert_eq!(train(&place, "long", 9, "training.seed=7").0, 0);
}

#[test]
fn another_chat_template_is_another_text_though_its_tokens_are_the_same() {
    let place = place();
    for (name, first) in [("chat", 0), ("talk", 500)] {
        let line = |at: usize| {
            let said = |by: usize| {
                let word = |word: usize| format!("w{}", 5 + (at * 31 + word * 7 + by) % 55);
                (0..8).map(word).collect::<Vec<_>>().join(" ")
            };
            let [user, assistant] = [("user", 0), ("assistant", 3)]
                .map(|(role, by)| serde_json::json!({ "role": role, "content": said(by) }));
            format!("{}\n", serde_json::json!({ "messages": [user, assistant] }))
        };
        let text: String = (first..first + 40).map(line).collect();
        place.write(&format!("text/{name}.jsonl"), &text);
    }
    let says = |learnt: &str| {
        let open = "{% generation %}{{ message['content'] }} {% endgeneration %}";
        let all = "{{ message['content'] }} ";
        let template = format!(
            "{{% for message in messages %}}{{% if {learnt} %}}{open}{{% else %}}{all}{{% endif %}}\
             {{% endfor %}}"
        );
        place.write("text/own.jinja", &template);
    };
    let chat = |teacher: &str| {
        recipe(teacher)
            .replace("train.txt", "chat.jsonl")
            .replace("valid.txt", "talk.jsonl")
            .replace("documents = \"blank_line\"", "shape = \"messages\"\ntemplate = \"own.jinja\"")
    };
    place.write("live.toml", &chat("model = \"model\""));
    place.write("kept.toml", &chat("cache = \"kept\""));
    let folders = || {
        let inside = fs::read_dir(place.path("kept/filling-1-of-1")).unwrap();
        inside.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
    };
    says("message['role'] == 'assistant'");
    keep(&place, "kept", &["--top-k", "5"]);
    succeeds(&place, &["train", "kept.toml", "--into", "run"]);
    let before = folders();
    // The same text, of which more is to be learnt.
    says("true");
    let (code, _, err) = run(&place, &["train", "kept.toml", "--into", "other"]);
    assert!(code == 3 && err.contains("were kept of another chat template ("), "{err}");
    let what = ["cache", "--teacher", "model", "--recipe", "live.toml", "--out", "kept"];
    let (code, _, err) = run(&place, &[&what[..], &["--top-k", "5"]].concat());
    assert!(code == 3 && err.contains("were kept of another chat template ("), "{err}");
    // Nor are the first one's tokens taken for this one's.
    assert!(before > 0 && folders() == 2 * before, "{before}, then {}", folders());
}

#[test]
fn a_plan_says_what_it_learns_from() {
    let place = place();
    keep(&place, "kept", &["--top-k", "5"]);
    let (code, said, err) = run(&place, &["plan", "kept.toml"]);
    assert_eq!(code, 0, "{err}");
    assert!(said.contains("answers kept in kept, of weights "), "{said}");
    assert!(said.contains("5 likeliest tokens of each, all others as one"), "{said}");
    // Nobody runs the teacher, whether or not the recipe says where it is.
    for set in ["training.seed=7", "teacher.model=\"model\""] {
        let (code, said, err) = run(&place, &["plan", "kept.toml", "--set", set]);
        assert!(code == 0 && said.contains(", teacher 0 B, "), "{said}{err}");
    }
}

/// What `text.first` says, by a forward pass of the small model over every row by itself.
fn hardest(place: &Place, rows: &dyn Rows, share: f64, top_k: usize) -> Vec<u32> {
    let mut device = Cpu::new(1);
    let folder = place.path("model");
    let model = Decoder::new(&mut device, DecoderConfig::open(&folder).unwrap());
    model
        .load(&mut device, &TensorFolder::open(&folder).unwrap(), &|name| name.to_owned())
        .unwrap();
    let v = model.config().vocab_size;
    let mut scores: Vec<(f64, u32)> = (0..rows.len())
        .map(|at| {
            let mut row = Row::default();
            rows.read(at, &mut row);
            let n = row.ids.len();
            let capacity = Capacity { tokens: n, sequences: n, masked: 0 };
            let mut batch = model.batch(&mut device, capacity);
            let buffers = model.buffers(&mut device, capacity, &Purpose::Infer);
            let positions: Vec<u32> =
                row.starts.windows(2).flat_map(|bounds| 0..bounds[1] - bounds[0]).collect();
            let (ids, types, starts) = (&row.ids, &vec![0; n], &row.starts);
            let rows = &positions;
            let positions = &positions;
            batch.upload(&mut device, &Inputs { ids, types, positions, rows, starts, masked: &[] });
            let logits = model.forward(&mut device, &batch, &buffers, None);
            let logits = device.read(logits);
            let mut losses = Vec::new();
            for (logits, &label) in logits.chunks(v).zip(&row.labels) {
                if label == NOT_LEARNT {
                    continue;
                }
                let label = logits[label as usize];
                if logits.iter().filter(|&&other| other > label).count() < top_k {
                    let sum: f64 = logits.iter().map(|&z| f64::from(z - label).exp()).sum();
                    losses.push(sum.ln());
                }
            }
            losses.sort_by(f64::total_cmp);
            let middle = losses.len() / 2;
            let median = match losses.len() % 2 {
                _ if losses.is_empty() => f64::NEG_INFINITY,
                0 => f64::midpoint(losses[middle - 1], losses[middle]),
                _ => losses[middle],
            };
            (median, at as u32)
        })
        .collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let count = (share * rows.len() as f64).round() as usize;
    let mut first: Vec<u32> = scores[..count].iter().map(|&(_, row)| row).collect();
    first.sort_unstable();
    first
}

#[test]
fn rows_that_a_small_model_finds_hard_and_not_hopeless_come_first() {
    let place = place();
    let all = ["--all", "--top-k", "12", "--values", "f32"];
    let at_one = ["--set", "objective.temperature=1"];
    keep(&place, "small", &[&all[..], &at_one].concat());
    let first = "text.first={ answers = \"small\", share = 0.3, top_k = 9 }";

    let sets = vec![first.to_owned()];
    let recipe = heirloom_recipe::parse("live.toml", &recipe("model = \"model\""), &sets).unwrap();
    let (places, kept) = (Places::at(&place.path("")), KeptTokens::beside(&place.path("runs/a")));
    let gathered = gather_language(&recipe, &places, &kept, 1, false).unwrap();
    let rows = &gathered.job.train;
    let want = hardest(&place, &**rows, 0.3, 9);
    assert!(rows.first() == want && want.len() == (0.3 * rows.len() as f64).round() as usize);
    let told = format!("the {} rows of `text.first` last for {} steps", want.len(), want.len() / 6);
    assert!(gathered.notes.contains(&told), "{:?}", gathered.notes);

    // They change a run from its first step on, and a run goes on as if it had not been cut.
    succeeds(&place, &["train", "live.toml", "--into", "plain"]);
    succeeds(&place, &["train", "live.toml", "--into", "led", "--set", first]);
    assert_ne!(losses(&place, "led")[0], losses(&place, "plain")[0]);
    copy(&place.path("led"), &place.path("cut"));
    for later in ["step-000000004", "step-000000006", "step-000000008", "best", "last"] {
        fs::remove_dir_all(place.path("cut").join(later)).unwrap();
    }
    succeeds(&place, &["resume", "cut"]);
    for file in ["run.jsonl", "last/model.safetensors"] {
        let read = |run: &str| fs::read(place.path(run).join(file)).unwrap();
        assert!(read("cut") == read("led"), "{file}");
    }
    // The rows that its runs read are known beforehand, and these are others.
    let named = |out: &str, more: &[&str]| {
        let (code, said, err) = run(
            &place,
            &[
                &["cache", "--teacher", "model", "--recipe", "live.toml", "--top-k", "4", "--json"],
                &["--set", "training.max_steps=1", "--out", out][..],
                more,
            ]
            .concat(),
        );
        assert_eq!(code, 0, "{err}");
        let said: Value = serde_json::from_str(&said).unwrap();
        (said["rows"].clone(), said["whole"]["digest"].clone())
    };
    let (plain, led) = (named("of-plain", &[]), named("of-led", &["--set", first]));
    assert!(plain.0 == 6 && led.0 == 6 && plain.1 != led.1);
    let led = ["--set", first, "--set", "training.max_steps=1", "--set", "teacher.model=\"model\""];
    let cached = |folder: &str| format!("teacher.cache=\"{folder}\"");
    let (of_led, of_plain) = (cached("of-led"), cached("of-plain"));
    let with = |cache: &str, into: &str| {
        let train = ["train", "kept.toml", "--into", into, "--set", cache];
        run(&place, &[&train[..], &led].concat())
    };
    assert_eq!(with(&of_led, "from-led").0, 0);
    let (code, _, err) = with(&of_plain, "from-plain");
    assert!(code == 3 && err.contains("of the 6 rows that the run reads"), "{err}");

    // Answers of something else, to fewer rows, of fewer tokens, and others than before.
    let refused = |sets: &[&str], want: i32, message: &str| {
        let sets: Vec<&str> = sets.iter().flat_map(|&set| ["--set", set]).collect();
        let (code, _, err) =
            run(&place, &[&["train", "live.toml", "--into", "new"], &sets[..]].concat());
        assert!(code == want && err.contains(message), "{err}");
        assert!(!place.path("new").exists());
    };
    let named = |answers: &str, more: &str| {
        format!("text.first={{ answers = \"{answers}\", share = 0.3{more} }}")
    };
    refused(&[&named("none", "")], 2, "`text.first.answers` is \"none\", which is not there");
    refused(&[&named("small", ", top_k = 13")], 2, "name 12 tokens; lower it");
    refused(&[&named("small", ""), "text.sequence_length=32"], 3, "kept of another text");
    keep(&place, "hot", &["--all", "--top-k", "12"]);
    refused(&[&named("hot", "")], 3, "another temperature (2, expected 1)");
    keep(&place, "states", &["--all", "--states", "--set", "objective.temperature=1"]);
    refused(&[&named("states", "")], 2, "does not say which tokens are the likeliest");
    keep(
        &place,
        "few",
        &[&at_one[..], &["--top-k", "12", "--set", "training.max_steps=1"]].concat(),
    );
    refused(&[&named("few", "")], 3, "and all must be compared; add them");
    fs::remove_dir_all(place.path("small")).unwrap();
    let other = ["cache", "--teacher", "other", "--recipe", "live.toml", "--out", "small"];
    succeeds(&place, &[&other[..], &all, &at_one].concat());
    fs::remove_dir_all(place.path("cut/step-000000008")).unwrap();
    let (code, _, err) = run(&place, &["resume", "cut"]);
    assert!(code == 3 && err.contains("choice of the rows that come first"), "{err}");
}
