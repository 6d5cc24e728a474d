//! `heirloom generate` on a tiny decoder: what it says, that it says it again, what it refuses.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;

use serde_json::Value;

mod place;

use place::Place;

/// A place with `model/`: a decoder of the fixtures and a tokenizer of as many words.
fn place(case: &str) -> Place {
    let place = Place::with_data();
    fs::create_dir(place.path("model")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture(case).join(name), place.path("model").join(name)).unwrap();
    }
    let words = (5..60).map(|at| format!("w{at}\n")).collect::<String>();
    place.write("model/vocab.txt", &format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{words}"));
    place
}

fn fixture(case: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(case)
}

/// Exit code, stdout, stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let output = place.command(&[&["generate"], arguments].concat()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const PROMPT: [&str; 3] = ["model", "--prompt", "w7 w8 w9"];

#[test]
fn prompts_are_continued_in_their_order_and_the_same_way_every_time() {
    let place = place("llama");
    let arguments = ["--prompt", "w20", "--new-tokens", "6", "--json"];
    let (code, out, err) = run(&place, &[&PROMPT[..], &arguments].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let said: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(said.len(), 2);
    assert_eq!(said[0]["prompt"], "w7 w8 w9");
    assert_eq!(said[0]["prompt_tokens"], serde_json::json!([2, 7, 8, 9, 3]));
    assert_eq!(said[1]["prompt"], "w20");
    assert!(said.iter().all(|said| said["tokens"].as_array().unwrap().len() == 6));
    assert_eq!(said[0]["stopped"], "length");

    let random = ["--new-tokens", "9", "--temperature", "1.5", "--top-k", "20", "--json"];
    let random = [&PROMPT[..], &random].concat();
    let (_, first, _) = run(&place, &random);
    assert_eq!(run(&place, &random).1, first);
    assert_ne!(run(&place, &[&random[..], &["--seed", "2"]].concat()).1, first);
}

#[test]
fn a_stop_token_ends_a_text() {
    let place = place("gpt2");
    let (_, out, _) = run(&place, &[&PROMPT[..], &["--json"]].concat());
    let said: Value = serde_json::from_str(&out).unwrap();
    let third = said["tokens"][2].to_string();
    let (_, out, _) = run(&place, &[&PROMPT[..], &["--json", "--stop-token", &third]].concat());
    let said: Value = serde_json::from_str(&out).unwrap();
    assert!(said["tokens"].as_array().unwrap().len() <= 3);
    assert_eq!(said["stopped"], "token");
    assert_eq!(said["tokens"].as_array().unwrap().last().unwrap().to_string(), third);
}

#[test]
fn without_json_the_whole_text_is_printed() {
    let place = place("llama");
    let (code, out, _) = run(&place, &[&PROMPT[..], &["--new-tokens", "3"]].concat());
    assert_eq!(code, 0);
    assert!(out.starts_with("w7 w8 w9 "), "{out}");
    assert_eq!(out.lines().count(), 1);
}

#[test]
fn what_cannot_work_is_refused() {
    let place = place("llama");
    let rows: [(&[&str], i32, &str); 7] = [
        (&["--temperature", "-1"], 2, "`--temperature` is -1, expected 0"),
        (&["--temperature", "1", "--top-p", "0"], 2, "`--top-p` is 0, expected a probability"),
        (&["--top-k", "5"], 2, "nothing is drawn; add --temperature 1"),
        (
            &["--new-tokens", "92"],
            2,
            "has 5 tokens, and with 92 new ones it is longer than the model's 96 positions",
        ),
        (&["--new-tokens", "many"], 2, "invalid value 'many'"),
        (&["--top-p", "2"], 2, "`--top-p` is 2, expected a probability"),
        (&["--seed", "x"], 2, "invalid value 'x'"),
    ];
    for (arguments, want, message) in rows {
        let equals: Vec<String> = arguments.chunks(2).map(|pair| pair.join("=")).collect();
        let equals: Vec<&str> = equals.iter().map(String::as_str).collect();
        let (code, out, err) = run(&place, &[&PROMPT[..], &equals].concat());
        assert_eq!((code, out.as_str()), (want, ""), "{err}");
        assert!(err.contains(message), "{err}");
    }
    let (code, _, err) = run(&place, &["nowhere", "--prompt", "w7"]);
    assert_eq!((code, err.as_str()), (2, "error: `nowhere` is not there\n"));
    let (code, _, err) = run(&place, &["model"]);
    assert!(code == 2 && err.contains("--prompt <TEXT>"), "{err}");

    let encoder = fixture("../encoders/bert-single").join("config.json");
    fs::copy(encoder, place.path("model/config.json")).unwrap();
    let (code, _, err) = run(&place, &PROMPT);
    let want =
        "`model_type` is \"bert\", expected a decoder: one of gpt2, llama, mistral, qwen2, qwen3";
    assert!(code == 3 && err.contains(want), "{err}");
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let place = place("llama");
    let words = (5..99).map(|at| format!("w{at}\n")).collect::<String>();
    place.write("model/vocab.txt", &format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{words}"));
    let (code, _, err) = run(&place, &["model", "--prompt", "w80"]);
    assert!(code == 3 && err.contains("has token 80, and the model knows 60"), "{err}");
}

#[test]
fn a_model_is_looked_for_below_the_models_folder_too() {
    let place = place("llama");
    let elsewhere = tempfile::tempdir().unwrap();
    let ran = |models: &Path| {
        let arguments = ["generate", "model", "--prompt", "w7", "--new-tokens", "3"];
        let mut command = place.command(&arguments);
        let output =
            command.current_dir(elsewhere.path()).env("HEIRLOOM_MODELS", models).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(ran(&place.path("")), (Some(0), String::new()));
    let (code, said) = ran(elsewhere.path());
    assert_eq!(code, Some(2), "{said}");
    let tried = elsewhere.path().join("model");
    assert!(said.contains(&format!("`model` is not there; looked at `{}` too", tried.display())));
}

/// Seven prompts in `prompts.jsonl` and the same in `prompts.txt`.
fn with_prompts(case: &str) -> Place {
    let place = place(case);
    let prompts: Vec<String> =
        (0..7).map(|at| format!("w{} w{}", 10 + at, 20 + 3 * at % 7)).collect();
    let objects: String =
        prompts.iter().map(|p| format!("{{\"prompt\": \"{p}\", \"id\": 1}}\n")).collect();
    place.write("prompts.jsonl", &objects);
    place.write("prompts.txt", &(prompts.join("\n\n") + "\n"));
    place
}

const FILE: [&str; 11] = [
    "model",
    "--prompts",
    "prompts.jsonl",
    "--jsonl",
    "said.jsonl",
    "--batch",
    "3",
    "--new-tokens",
    "5",
    "--temperature",
    "1.5",
];

#[test]
fn prompts_of_a_file_become_a_file_of_completions() {
    let place = with_prompts("llama");
    let (code, out, err) = run(&place, &FILE);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "said.jsonl: 7 completions\n", ""));
    let text = fs::read_to_string(place.path("said.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[3]["prompt"], "w13 w22");
    assert!(lines.iter().all(|line| line["completion"].is_string() && line["stopped"] == "length"));
    assert!(lines.iter().any(|line| line["completion"] != lines[0]["completion"]));
    // The same from lines of text; and the same call again has nothing to do.
    let lines = FILE.map(|part| match part {
        "prompts.jsonl" => "prompts.txt",
        "said.jsonl" => "other.jsonl",
        part => part,
    });
    assert_eq!(run(&place, &lines).0, 0);
    assert_eq!(fs::read_to_string(place.path("other.jsonl")).unwrap(), text);
    let (_, out, _) = run(&place, &FILE);
    assert_eq!(out, "said.jsonl: 7 completions, 7 of them there before\n");
    assert_eq!(fs::read_to_string(place.path("said.jsonl")).unwrap(), text);
}

#[test]
fn a_file_that_was_stopped_anywhere_is_continued_to_the_same_bytes() {
    let place = with_prompts("qwen3");
    assert_eq!(run(&place, &FILE).0, 0);
    let file = place.path("said.jsonl");
    let whole = fs::read(&file).unwrap();
    let ends: Vec<usize> =
        (0..whole.len()).filter(|&at| whole[at] == b'\n').map(|at| at + 1).collect();
    for left in [0, 5, ends[0], ends[1] + 9, ends[2], ends[4], ends[5] + 1, whole.len() - 1] {
        fs::write(&file, &whole[..left]).unwrap();
        let (code, _, err) = run(&place, &FILE);
        assert_eq!(code, 0, "{err}");
        assert!(fs::read(&file).unwrap() == whole, "after {left} bytes");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(run(&place, &FILE).0, 0);
    assert!(fs::read(&file).unwrap() == whole, "from what it is made with alone");
}

#[test]
fn a_file_is_continued_with_what_it_was_begun_with_or_not_at_all() {
    let place = with_prompts("llama");
    assert_eq!(run(&place, &FILE).0, 0);
    let before = fs::read(place.path("said.jsonl")).unwrap();
    let refused = |arguments: &[&str], what: &str| {
        let (code, out, err) = run(&place, arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(what), "{err}");
    };
    let with = |from: &str, to: &'static str| FILE.map(|part| if part == from { to } else { part });
    refused(&with("1.5", "1.25"), "`said.jsonl` was begun with other sampling, by");
    refused(&with("5", "6"), "was begun with other new_tokens, by");
    refused(&with("3", "4"), "was begun with other batch, by");
    place.write("prompts.jsonl", "{\"prompt\": \"w9\"}\n");
    refused(&FILE, "was begun with other prompts, by");
    place.write("there.jsonl", "mine\n");
    refused(
        &with("said.jsonl", "there.jsonl"),
        "is there already, and no `there.jsonl.made-with.json`",
    );
    assert_eq!(fs::read(place.path("said.jsonl")).unwrap(), before);
    assert_eq!(fs::read_to_string(place.path("there.jsonl")).unwrap(), "mine\n");
}

#[test]
fn prompts_that_cannot_be_read_are_refused_by_their_line() {
    let place = with_prompts("llama");
    let rows: [(&str, i32, &str); 5] = [
        ("{\"prompt\": \"w7\"}\n\nw8\n", 3, "prompts.jsonl:3: not a JSON object"),
        ("{\"text\": \"w7\"}\n", 3, "prompts.jsonl:1: no text in the field `prompt`"),
        ("{\"prompt\": 7}\n", 3, "prompts.jsonl:1: no text in the field `prompt`"),
        ("\n", 3, "`prompts.jsonl` has no prompt"),
        ("[\"w7\"]\n", 3, "prompts.jsonl:1: no text in the field `prompt`"),
    ];
    for (text, want, message) in rows {
        place.write("prompts.jsonl", text);
        let (code, _, err) = run(&place, &FILE);
        assert!(code == want && err.contains(message), "{text}: {code} {err}");
        assert!(!place.path("said.jsonl").exists());
    }
    let long = "w7 ".repeat(95);
    place.write("prompts.jsonl", &format!("{{\"prompt\": \"w7\"}}\n{{\"prompt\": \"{long}\"}}\n"));
    let (code, _, err) = run(&place, &FILE);
    assert!(code == 2 && err.contains("prompts.jsonl:2: the prompt"), "{err}");
    let (code, _, err) = run(&place, &["model", "--prompts", "prompts.jsonl"]);
    assert!(code == 2 && err.contains("--jsonl <FILE>"), "{err}");
}
