//! `heirloom tokenizer train` and `heirloom tokenize`: what they write, say and refuse.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;

use heirloom_data::text::Shards;
use heirloom_data::tokens::Tokenizer;
use heirloom_store::RealDisk;
use serde_json::Value;

mod place;

use place::Place;

/// Exit code, stdout, stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let output = place.command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const TRAIN: [&str; 6] = ["tokenizer", "train", "--kind", "bpe", "--vocab-size", "300"];

fn place() -> Place {
    let place = Place::with_data();
    fs::create_dir(place.path("texts")).unwrap();
    place.write("texts/a.txt", &"the cat sat on the mat, naïvely\n".repeat(20));
    place.write("texts/b.jsonl", "{\"text\": \"another cat\"}\n{\"text\": \" \"}\n");
    place
}

#[test]
fn a_tokenizer_is_trained_and_text_is_tokenised_with_it() {
    let place = place();
    let (code, out, err) = run(&place, &[&TRAIN[..], &["--out", "mine", "texts"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(err.starts_with("training on 2 files, "), "{err}");
    assert!(out.contains(" tokens, special: <|endoftext|>\non this text: "), "{out}");
    assert!(out.ends_with("wrote `mine`\n"), "{out}");
    let tokenizer = Tokenizer::open(&place.path("mine")).unwrap();

    let tokenize = ["tokenize", "--tokenizer", "mine", "--end", "<|endoftext|>", "texts"];
    let (code, out, err) = run(&place, &[&tokenize[..], &["--out", "kept"]].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "3 documents in 2 files: 672 B of text");
    assert!(lines[1].contains(" tokens of text and 3 around documents: "), "{out}");
    assert!(lines[1].ends_with(" bytes each; 0 unknown (0.000 %)"), "{out}");
    assert!(lines[2].starts_with("wrote `kept` ("), "{out}");
    let shards = Shards::open(&RealDisk, &place.path("kept")).unwrap();
    assert_eq!(shards.about().tokenizer, tokenizer.digest());
    assert_eq!(shards.about().counts.bytes, 672);
    assert_eq!(run(&place, &["verify", "kept"]).0, 0);

    let (code, out, _) = run(&place, &[&tokenize[..], &["--dry-run", "--json"]].concat());
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &said["counts"]["documents"], &said["out"]), (0, &3.into(), &Value::Null));
    assert_eq!(said["counts"], serde_json::to_value(shards.about().counts).unwrap());
    // Equal calls write equal tokens, whatever the threads.
    let again = ["--out", "again", "--threads", "1", "--json"];
    let (_, out, _) = run(&place, &[&tokenize[..], &again].concat());
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["tokens"], shards.about().content.to_string());
    let (code, _, _) = run(&place, &[&TRAIN[..], &["--out", "mine-2", "texts"]].concat());
    let read = |folder: &str| fs::read(place.path(folder).join("tokenizer.json")).unwrap();
    assert_eq!((code, read("mine-2")), (0, read("mine")));
}

#[test]
fn conversations_say_how_much_is_to_be_learnt() {
    let place = place();
    run(&place, &[&TRAIN[..], &["--out", "mine", "texts"]].concat());
    place.write("qa.jsonl", "{\"q\": \"2 + 2 =\", \"a\": \" 4\"}\n");
    let ask = ["tokenize", "--tokenizer", "mine", "--dry-run"];
    let pairs = ["--prompt", "q", "--completion", "a", "qa.jsonl"];
    let (code, out, err) = run(&place, &[&ask[..], &pairs].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("to be learnt: 2 of 9 tokens (22.2 %)"), "{out}");
    place.write("own.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}");
    let own = ["--template", "own.jinja"];
    let (code, out, _) = run(&place, &[&ask[..], &pairs, &own].concat());
    assert_eq!(code, 0);
    assert!(out.contains("to be learnt: 2 of 9 tokens"), "{out}");
    place.write("alpaca.json", "[{\"instruction\": \"Go.\", \"output\": \"Gone.\"}]");
    let alpaca = ["--alpaca", "--template", "alpaca", "alpaca.json"];
    let (code, out, _) = run(&place, &[&ask[..], &alpaca].concat());
    assert!(code == 0 && out.contains("to be learnt: "), "{out}");
}

#[test]
fn what_cannot_work_is_refused_and_leaves_nothing() {
    let place = place();
    run(&place, &[&TRAIN[..], &["--out", "mine", "texts"]].concat());
    place.write("bad.jsonl", "{\"txt\": \"x\"}\n");
    let ask = ["tokenize", "--tokenizer", "mine", "--out", "kept"];
    let rows: [(&[&str], i32, &str); 9] = [
        (&["nowhere.txt"], 2, "`FILES` is \"nowhere.txt\", which is not there"),
        (&["bad.jsonl"], 3, "bad.jsonl:1: field `text` is missing; did you mean `txt`?"),
        (
            &["--end", "</s>", "texts"],
            2,
            "the tokenizer has no token \"</s>\"; there are `<|endoftext|>`",
        ),
        (&["--alpaca", "bad.jsonl"], 2, "the tokenizer has no chat template; put"),
        (&["--template", "chatlm", "--messages", "m", "bad.jsonl"], 2, "did you mean `chatml`?"),
        (&["--prompt", "q", "bad.jsonl"], 2, "--completion <FIELD>"),
        (&["--messages", "m", "--alpaca", "bad.jsonl"], 2, "cannot be used with"),
        (
            &["--template", "chatml", "texts"],
            2,
            "a chat template is given, but documents are plain",
        ),
        (&["--separator", "", "texts"], 2, "the separator \"\" is not one line"),
    ];
    for (arguments, want, message) in rows {
        let (code, out, err) = run(&place, &[&ask[..], arguments].concat());
        assert_eq!((code, out.as_str()), (want, ""), "{arguments:?}: {err}");
        assert!(err.contains(message), "{arguments:?}: {err}");
        assert!(!place.path("kept").exists(), "{arguments:?}");
    }
    let (code, _, err) = run(&place, &["tokenize", "--tokenizer", "texts", "--dry-run", "texts"]);
    assert!(code == 3 && err.contains("holds no tokenizer"), "{err}");
    let small = ["tokenizer", "train", "--kind", "bpe", "--vocab-size", "200", "--out", "new"];
    let (code, _, err) = run(&place, &[&small[..], &["texts"]].concat());
    assert!(code == 2 && err.contains("ask for 258 at least"), "{err}");
    assert!(!place.path("new").exists());
    let (code, _, err) = run(&place, &[&TRAIN[..], &["--out", "texts", "texts"]].concat());
    assert!(code == 4 && err.contains("texts"), "{err}");
}
