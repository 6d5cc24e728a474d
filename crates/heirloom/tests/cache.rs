//! `heirloom cache` on a tiny decoder: what it keeps, that it goes on after a kill, what it refuses.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use heirloom_base::Digest;
use heirloom_data::cache::{CacheKey, TeacherCache};
use serde_json::Value;

mod place;

use place::Place;

/// A place with `model/`, a decoder of the fixtures with a tokenizer of as many words, and `text.txt`.
fn place(lines: usize) -> Place {
    let place = Place::with_data();
    fs::create_dir(place.path("model")).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders/llama");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixture.join(name), place.path("model").join(name)).unwrap();
    }
    let words = (5..60).map(|at| format!("w{at}\n")).collect::<String>();
    place.write("model/vocab.txt", &format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{words}"));
    let line = |at: usize| {
        let words: Vec<String> =
            (0..20).map(|word| format!("w{}", 5 + (at * 31 + word * word * 7) % 55)).collect();
        words.join(" ")
    };
    place.write("text.txt", &(0..lines).map(|at| line(at) + "\n").collect::<String>());
    place
}

/// Exit code, stdout, stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let output = place.command(&[&["cache"], arguments].concat()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const TEXT: [&str; 8] =
    ["--teacher", "model", "--text", "text.txt", "--length", "64", "--batch-tokens", "256"];

fn keep(place: &Place, out: &str, more: &[&str]) -> Value {
    let (code, said, err) = run(place, &[&TEXT[..], &["--out", out, "--json"], more].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&said).unwrap()
}

#[test]
fn every_kind_is_kept_and_says_what_it_costs_and_how_far_off_it_is() {
    let place = place(200);
    let few = keep(&place, "few", &["--top-k", "4", "--temperature", "2"]);
    let many = keep(&place, "many", &["--top-k", "60", "--temperature", "2", "--values", "f32"]);
    let drawn = keep(&place, "drawn", &["--samples", "12"]);
    let states = keep(&place, "states", &["--states"]);
    let number = |said: &Value, name: &str| said["whole"][name].as_f64().unwrap();
    let error = |said: &Value, name: &str| said["whole"]["error"][name].as_f64().unwrap();
    assert!(number(&few, "bytes_per_token") < number(&many, "bytes_per_token"));
    assert!(error(&few, "forward_kl") > error(&many, "forward_kl").abs());
    assert!(error(&many, "forward_kl").abs() < 1e-6 && error(&many, "lost_mass") == 0.0);
    assert!(drawn["whole"]["error"]["forward_kl"].is_null());
    assert!(error(&drawn, "backward_kl") > 0.0);
    assert!(states["whole"]["error"].is_null());
    // All but the last token of the one document have something to learn.
    let tokens = few["tokens"].as_u64().unwrap();
    assert_eq!(few["whole"]["learnt"].as_u64().unwrap(), tokens - 1);

    let (code, said, _) = run(&place, &["verify", "few", "--json"]);
    let verified: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &verified["digest"]), (0, &few["whole"]["digest"]));
    assert_eq!(verified["about"]["temperature"], 2.0);
    let (_, said, _) =
        run(&place, &[&TEXT[..], &["--out", "few", "--top-k", "4", "--temperature", "2"]].concat());
    assert!(said.contains(" bytes a token with something to learn"), "{said}");
}

fn answers(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    let named = |path: PathBuf| (path.file_name().unwrap().into(), fs::read(path).unwrap());
    files.into_iter().map(named).collect()
}

#[test]
fn a_killed_process_is_gone_on_with_to_the_same_bytes() {
    let place = place(3000);
    let kind = ["--top-k", "20"];
    let whole = keep(&place, "whole", &kind);
    let arguments = [&["cache"], &TEXT[..], &["--out", "killed"], &kind].concat();
    let draft = place.path("killed/part-00000.answers.filling-1-of-1");
    for bytes in [1, 60_000, 200_000] {
        let mut child =
            place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Killed when it has come so far; one that ends before was faster than this loop.
        while child.try_wait().unwrap().is_none() {
            if fs::metadata(&draft).is_ok_and(|found| found.len() >= bytes) {
                child.kill().unwrap();
            }
            std::thread::yield_now();
        }
    }
    assert_eq!(keep(&place, "killed", &kind)["whole"]["digest"], whole["whole"]["digest"]);
    assert_eq!(answers(&place.path("killed")), answers(&place.path("whole")));
}

#[test]
fn two_machines_fill_one_folder() {
    let place = place(100);
    let kind = ["--samples", "7", "--seed", "3"];
    let whole = keep(&place, "whole", &kind);
    let second = keep(&place, "shared", &[&kind[..], &["--shard", "2/2"]].concat());
    let first = keep(&place, "shared", &[&kind[..], &["--shard", "1/2"]].concat());
    // One file, which is the first machine's.
    assert!(second["whole"].is_null() && second["answered"] == 0);
    assert_eq!(first["whole"]["digest"], whole["whole"]["digest"]);
    assert_eq!(answers(&place.path("shared")), answers(&place.path("whole")));
}

#[test]
fn tokens_that_were_kept_before_are_read_too() {
    let place = place(100);
    let whole = keep(&place, "whole", &["--top-k", "3"]);
    let tokens = fs::read_dir(place.path("whole/filling-1-of-1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    let tokens = tokens.to_str().unwrap();
    let arguments =
        ["--teacher", "model", "--tokens", tokens, "--length", "64", "--batch-tokens", "256"];
    let more = ["--out", "again", "--top-k", "3", "--json"];
    let (code, said, err) = run(&place, &[&arguments[..], &more].concat());
    assert_eq!(code, 0, "{err}");
    let again: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(again["whole"]["digest"], whole["whole"]["digest"]);
}

#[test]
fn what_cannot_work_is_refused() {
    let place = place(50);
    keep(&place, "out", &["--top-k", "4"]);
    let refused = |more: &[&str], want: i32, message: &str| {
        let (code, out, err) = run(&place, &[&TEXT[..], more].concat());
        assert_eq!((code, out.as_str()), (want, ""), "{err}");
        assert!(err.contains(message), "{err}");
    };
    refused(&["--out", "out"], 2, "the following required arguments were not provided");
    refused(&["--out", "out", "--top-k", "4", "--samples", "4"], 2, "cannot be used with");
    refused(&["--out", "out", "--top-k", "5"], 3, "were kept of another kind of answer");
    refused(
        &["--out", "out", "--top-k", "4", "--temperature", "3"],
        3,
        "of another temperature (1, expected 3)",
    );
    refused(&["--out", "out", "--top-k", "4", "--pack", "stream"], 3, "were kept of another text");
    refused(&["--out", "new", "--top-k", "61"], 2, "61 likeliest of 60 tokens");
    refused(&["--out", "new", "--top-k", "4", "--temperature", "0"], 2, "the temperature is 0");
    refused(
        &["--out", "new", "--states", "--values", "byte"],
        2,
        "hidden states are kept as bf16 or f32",
    );
    for shard in ["3/2", "0/2", "x", "1/0"] {
        refused(
            &["--out", "new", "--top-k", "4", "--shard", shard],
            2,
            "expected a machine and how many",
        );
    }
    let (code, _, err) = run(
        &place,
        &[
            "--teacher",
            "model",
            "--text",
            "text.txt",
            "--length",
            "97",
            "--out",
            "new",
            "--top-k",
            "4",
        ],
    );
    assert!(code == 2 && err.contains("longer than the teacher's 96 positions"), "{err}");

    let part = place.path("out/part-00000.answers");
    let mut bytes = fs::read(&part).unwrap();
    bytes[500] ^= 8;
    fs::write(&part, &bytes).unwrap();
    let (code, out, err) = run(&place, &["verify", "out"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("`out/part-00000.answers` was changed in block 0"), "{err}");
    fs::write(&part, &bytes[..bytes.len() - 3]).unwrap();
    let (code, _, err) = run(&place, &["verify", "out"]);
    assert!(code == 3 && err.contains("was cut or is no file of answers"), "{err}");
    let (code, _, err) = run(&place, &["verify", "model"]);
    assert!(code == 3 && err.contains("holds no kept answers"), "{err}");
}

#[test]
fn what_kinds_take_and_lose_is_measured_on_a_models_own_answers() {
    let place = place(30);
    let bench = ["bench", "cache", "--json", "--teacher", "model", "--text", "text.txt"];
    let output =
        place.command(&[&bench[..], &["--tokens", "50", "--length", "32"]].concat()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said["vocab"] == 60 && said["tokens"] == 50 && said["teacher"] == "model", "{said}");
    assert!((0.5..4.2).contains(&said["entropy"].as_f64().unwrap()), "{said}");
    let kinds = said["kinds"].as_array().unwrap();
    let [few, all] = [&kinds[0], &kinds[1]].map(|kind| kind["lost_mass"].as_f64().unwrap());
    // All 50 of 60 words leave little.
    assert!(few > all && all > 0.0, "{said}");
    let output = place.command(&bench[..5]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "a text is needed: {output:?}");
}

/// What `heirloom verify` says of a folder: exit code, stdout and stderr together.
fn verify(place: &Place, folder: &str) -> (i32, String) {
    let output = place.command(&["verify", folder]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout) + &text(output.stderr))
}

/// Whole as it is, then with a bit of `file` flipped, its end cut off, and without it.
#[track_caller]
fn breaks(place: &Place, folder: &str, file: &str, whole: &str, changed: &str, missing: &str) {
    let (code, said) = verify(place, folder);
    assert!(code == 0 && said.contains(&format!("`{folder}` is whole: {whole}")), "{said}");
    let path = place.path(folder).join(file);
    let bytes = fs::read(&path).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    fs::write(&path, flipped).unwrap();
    let (code, said) = verify(place, folder);
    assert!(code == 3 && said.contains(file) && said.contains(changed), "flipped: {code} {said}");
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let (code, said) = verify(place, folder);
    assert!(code == 3 && said.contains(file), "cut: {code} {said}");
    fs::remove_file(&path).unwrap();
    let (code, said) = verify(place, folder);
    assert!(code != 0 && said.contains(missing), "missing: {code} {said}");
    fs::write(&path, bytes).unwrap();
    assert_eq!(verify(place, folder).0, 0);
}

#[test]
fn one_command_verifies_whatever_is_written() {
    let place = place(60);
    keep(&place, "kept", &["--top-k", "4"]);
    breaks(
        &place,
        "kept",
        "part-00000.answers",
        "kept answers to ",
        "was changed in block",
        "1 of 1 files are missing",
    );
    breaks(&place, "kept", "cache.json", "kept answers to ", "was changed", "is nothing that can");

    let tokens = ["tokenize", "--tokenizer", "model", "text.txt", "--out", "tokens"];
    assert!(place.command(&tokens).output().unwrap().status.success());
    let (whole, damaged) = ("kept tokens: ", "is damaged: its digest is ");
    breaks(&place, "tokens", "shard-0000.bin", whole, damaged, "shard-0000.bin");
    breaks(&place, "tokens", "documents.bin", whole, damaged, "documents.bin");

    let key = CacheKey {
        teacher: Digest::of(b"teacher"),
        tokenizer: Digest::of(b"tokenizer"),
        text: Digest::of(b"text"),
        max_length: 8,
    };
    let logits = TeacherCache::new(key, 50, 2, (0..100).map(|x| x as f32).collect()).unwrap();
    fs::create_dir(place.path("teacher-logits")).unwrap();
    fs::write(place.path("teacher-logits/ab12.logits"), logits.to_bytes()).unwrap();
    breaks(
        &place,
        "teacher-logits",
        "ab12.logits",
        "a classifier's kept answers: 50 examples in 1 files",
        "ab12.logits",
        "is nothing that can be verified",
    );

    // A model that we wrote has digests; one from elsewhere can be opened or cannot.
    let grow = ["grow", "model", "--layers", "3", "--out", "grown"];
    let output = place.command(&grow).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let weights = "model.safetensors";
    breaks(&place, "grown", weights, "a model folder: every byte", damaged, weights);
    let (code, said) = verify(&place, "model");
    assert!(code == 0 && said.contains("`model` is whole: a model folder: every tensor"), "{said}");
    let path = place.path("model").join(weights);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let (code, said) = verify(&place, "model");
    assert!(code == 3 && said.contains(weights), "{code} {said}");
}
