//! Several teachers of a language model, by the command: each heard for itself, live or kept, each held
//! against its own folder, and a run that goes on after a stop to the same bits.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;

use serde_json::Value;

#[path = "place/decoders.rs"]
mod decoders;
mod place;

use place::Place;

/// Two teachers of the fixtures, and texts.
fn place() -> Place {
    let place = decoders::place(["one", "two"]);
    place.write("live.toml", &recipe(&["model = \"one\"", "model = \"two\"\nweight = 3"]));
    place
}

/// A recipe with these teachers.
fn recipe(teachers: &[&str]) -> String {
    let teachers: String = teachers.iter().map(|keys| format!("[[teacher]]\n{keys}\n")).collect();
    decoders::recipe(("one", 32), &teachers, None)
}

/// Exit code, stdout, stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let output = place.command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn succeeds(place: &Place, arguments: &[&str]) -> String {
    let (code, said, err) = run(place, arguments);
    assert_eq!(code, 0, "{arguments:?}: {err}");
    said
}

#[track_caller]
fn keep(place: &Place, teacher: &str, out: &str, kind: &[&str]) {
    let what = ["cache", "--teacher", teacher, "--recipe", "live.toml", "--out", out];
    succeeds(place, &[&what[..], kind].concat());
}

/// The record's steps.
fn steps(place: &Place, run: &str) -> Vec<Value> {
    let record = fs::read_to_string(place.path(run).join("run.jsonl")).unwrap();
    let lines = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "step").collect()
}

fn mean(step: &Value, term: &str) -> f64 {
    step["terms"][term]["mean"].as_f64().unwrap()
}

#[test]
fn each_teacher_has_the_term_it_would_have_alone_and_its_part_of_the_weight() {
    let place = place();
    let alone = ["one", "two"].map(|name| {
        let keys = format!("model = \"{name}\"");
        place.write("alone.toml", &recipe(&[&keys]));
        let into = format!("of-{name}");
        succeeds(&place, &["train", "alone.toml", "--into", &into]);
        mean(&steps(&place, &into)[0], "teacher")
    });
    assert!((alone[0] - alone[1]).abs() > 1e-3, "the teachers differ: {alone:?}");
    keep(&place, "one", "one-tokens", &["--top-k", "60", "--values", "f32"]);
    keep(&place, "two", "two-states", &["--states", "--values", "f32"]);
    for (name, teachers) in [
        ("both", ["model = \"one\"", "model = \"two\"\nweight = 3"]),
        ("mixed", ["cache = \"one-tokens\"", "model = \"two\"\nweight = 3"]),
        ("kept", ["cache = \"one-tokens\"", "cache = \"two-states\"\nweight = 3"]),
    ] {
        place.write("several.toml", &recipe(&teachers));
        succeeds(&place, &["train", "several.toml", "--into", name]);
        let steps = steps(&place, name);
        // The first step is from the same weights; kept answers were packed otherwise.
        for (at, want) in alone.iter().enumerate() {
            let got = mean(&steps[0], &format!("teacher[{at}]"));
            assert!((got - want).abs() < 1e-4, "{name}: {got}, alone {want}");
        }
        for step in &steps {
            let [label, one, two] = ["label", "teacher[0]", "teacher[1]"].map(|t| mean(step, t));
            let want = 0.4 * label + 0.6 * (0.25 * one + 0.75 * two);
            let got = step["loss"].as_f64().unwrap();
            assert!((got - want).abs() < 1e-5, "{name}: {got}, should be {want}");
        }
    }
    // What is kept exactly teaches what the teacher beside does.
    for other in ["mixed", "kept"] {
        for (want, got) in steps(&place, "both").iter().zip(&steps(&place, other)) {
            let off = (want["loss"].as_f64().unwrap() - got["loss"].as_f64().unwrap()).abs();
            assert!(off < 1e-4, "{other}: {got}, live {want}");
        }
    }
    // The list of one is the table.
    place.write("list.toml", &recipe(&["model = \"one\""]));
    place.write("table.toml", &recipe(&["model = \"one\""]).replace("[[teacher]]", "[teacher]"));
    for name in ["list", "table"] {
        succeeds(&place, &["train", &format!("{name}.toml"), "--into", name]);
    }
    let read = |run: &str| fs::read(place.path(run).join("run.jsonl")).unwrap();
    assert!(read("list") == read("table"));
}

#[test]
fn a_plan_tells_of_each_teacher_and_counts_the_memory_of_all() {
    let place = place();
    keep(&place, "two", "two-tokens", &["--top-k", "5"]);
    place.write("mixed.toml", &recipe(&["model = \"one\"", "cache = \"two-tokens\"\nweight = 2"]));
    let said = succeeds(&place, &["plan", "mixed.toml"]);
    for part in [
        "[0] llama, ",
        "weights of one",
        "0.333333333333 of the teachers' weight",
        "[1] answers kept in two-tokens, of weights ",
        "5 likeliest tokens of each, all others as one",
        "0.666666666667 of the teachers' weight",
        "0.6 × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's, the weighted mean over 2 teachers",
    ] {
        assert!(said.contains(part), "`{part}` in:\n{said}");
    }
    let memory = |recipe: &str| {
        let said = succeeds(&place, &["plan", recipe, "--json"]);
        serde_json::from_str::<Value>(&said).unwrap()["memory"]["teacher"].as_u64().unwrap()
    };
    for (name, keys) in [("one.toml", "model = \"one\""), ("two.toml", "model = \"two\"")] {
        place.write(name, &recipe(&[keys]));
    }
    assert_eq!(memory("live.toml"), memory("one.toml") + memory("two.toml"));
    assert_eq!(memory("mixed.toml"), memory("one.toml"));
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

/// A copy of the run as it was after step 4.
fn cut(place: &Place, run: &str, name: &str) {
    copy(&place.path(run), &place.path(name));
    for later in ["step-000000006", "step-000000008", "best", "last"] {
        fs::remove_dir_all(place.path(name).join(later)).unwrap();
    }
}

#[test]
fn a_resumed_run_ends_with_the_bits_of_one_left_alone_and_knows_each_teacher_again() {
    let place = place();
    keep(&place, "two", "two-drawn", &["--samples", "9"]);
    place.write("mixed.toml", &recipe(&["model = \"one\"", "cache = \"two-drawn\""]));
    // A policy decides the weights itself.
    let weighed = recipe(&["model = \"one\"", "cache = \"two-drawn\""])
        .replace("alpha = 0.6", "balance = { policy = \"uncertainty\", learning_rate = 0.2 }");
    place.write("weighed.toml", &weighed);
    for into in ["mixed", "live", "weighed"] {
        succeeds(&place, &["train", &format!("{into}.toml"), "--into", into]);
        cut(&place, into, "cut");
        succeeds(&place, &["resume", "cut", "--threads", "2"]);
        for file in ["run.jsonl", "last/model.safetensors", "best/model.safetensors"] {
            let read = |run: &str| fs::read(place.path(run).join(file)).unwrap();
            assert!(read("cut") == read(into), "{into}: {file}");
        }
        succeeds(&place, &["verify", "cut"]);
        succeeds(&place, &["eval", "cut"]);
        fs::remove_dir_all(place.path("cut")).unwrap();
    }

    // Answers that are others now, and then weights.
    cut(&place, "mixed", "changed");
    fs::remove_dir_all(place.path("two-drawn")).unwrap();
    keep(&place, "two", "two-drawn", &["--samples", "9", "--seed", "2"]);
    let (code, _, err) = run(&place, &["resume", "changed"]);
    let kept = "teacher's kept answers `two-drawn` is not the one this run began with";
    assert!(code == 3 && err.contains(kept), "{code}: {err}");
    cut(&place, "live", "other");
    fs::copy(place.path("live/last/model.safetensors"), place.path("two/model.safetensors"))
        .unwrap();
    fs::copy(place.path("live/last/config.json"), place.path("two/config.json")).unwrap();
    let (code, _, err) = run(&place, &["resume", "other"]);
    let model = "model `two` is not the one this run began with";
    assert!(code == 3 && err.contains(model), "{code}: {err}");
}

#[test]
fn what_several_teachers_cannot_do_is_refused_before_anything_is_there() {
    let place = place();
    keep(&place, "one", "one-tokens", &["--top-k", "5"]);
    keep(&place, "two", "two-tokens", &["--top-k", "5"]);
    place.write("kept.toml", &recipe(&["cache = \"one-tokens\"", "cache = \"two-tokens\""]));
    let refused = |file: &str, sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let arguments = [&["train", file, "--into", "never"], &sets[..]].concat();
        let (code, _, err) = run(&place, &arguments);
        assert!(!place.path("never").exists(), "{sets:?}");
        format!("{code} {}", err.trim())
    };
    let all = [
        refused("live.toml", &["teacher.1.vocabulary=\"intersect\""]),
        refused("live.toml", &["objective.uld={ top = 8 }"]),
        refused("live.toml", &["objective.hidden=[{ kind = \"mse\" }]"]),
        refused("live.toml", &["objective.balance={ policy = \"wsl\" }"]),
        refused("live.toml", &["teacher.1.model=\"nowhere\""]),
        refused("kept.toml", &["teacher.1.cache=\"nowhere\""]),
        refused("kept.toml", &["objective.until_overtaken=true"]),
        refused("kept.toml", &["objective.divergence=\"dkd\""]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    2 error: --set teacher.1.vocabulary="intersect": `teacher.1.vocabulary` needs one `[teacher]`; several are heard at the same tokens, in the student's own vocabulary
    1 problem
    2 error: --set objective.uld={ top = 8 }: `objective.uld` needs one `[teacher]`; several are heard at the same tokens, in the student's own vocabulary
    1 problem
    2 error: --set objective.hidden=[{ kind = "mse" }]: `objective.hidden` needs one `[teacher]`, into which it looks
    1 problem
    2 error: live.toml:18:1: `objective.alpha` needs a policy that keeps a share or begins with one; wsl decides it
    --set objective.balance={ policy = "wsl" }: `objective.balance.policy` needs one `[teacher]` for wsl; several can be weighed by `"fixed"`, `"schedule"` or `"uncertainty"`
    2 problems
    2 error: `teacher.1.model` is "nowhere", which is not there; looked at `nowhere` (the variable HEIRLOOM_MODELS is not set)
    2 error: `teacher.1.cache` is "nowhere", which is not there; looked at `nowhere` (the variable HEIRLOOM_MODELS is not set)
    2 error: --set objective.until_overtaken=true: `objective.until_overtaken` needs a teacher that answers with every batch; of the validation text nothing is kept
    1 problem
    2 error: `objective.divergence` cannot be taken of the answers in `one-tokens`: it needs the teacher's probability of the label; see `objective.missing`, or take "forward_kl"
    "#);
    // Each teacher's answers are held against that teacher.
    succeeds(&place, &["plan", "kept.toml", "--set", "teacher.1.model=\"two\""]);
    let swapped = refused("kept.toml", &["teacher.0.model=\"one\"", "teacher.1.model=\"one\""]);
    assert!(swapped.starts_with("3 ") && swapped.contains("of another teacher ("), "{swapped}");
    // And each folder must have the rows that the run reads.
    keep(&place, "two", "few", &["--top-k", "5", "--set", "training.max_steps=2"]);
    let more = refused("kept.toml", &["teacher.1.cache=\"few\""]);
    assert!(more.starts_with("3 ") && more.contains("the answers in `few` miss"), "{more}");
}
