//! `heirloom tokenizer compare`: what it says of two folders, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;

use serde_json::Value;

mod place;

use place::Place;

/// A place with two folders of tokenizers, the second with `more` words and a model of 24 words.
fn place(more: &str) -> Place {
    let place = Place::with_data();
    let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\nsat\n.\n";
    for (folder, text) in [("student", words.to_owned()), ("teacher", format!("{words}{more}"))] {
        fs::create_dir(place.path(folder)).unwrap();
        place.write(&format!("{folder}/vocab.txt"), &text);
    }
    place.write("teacher/config.json", r#"{"vocab_size": 24}"#);
    place.write("sample.txt", "The cats sat.");
    place
}

/// Exit code, stdout, stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let output = place.command(&[&["tokenizer", "compare"], arguments].concat()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn padding_is_found_and_the_choices_are_judged() {
    let (code, out, err) = run(&place(""), &["student", "teacher", "--text", "sample.txt"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    insta::assert_snapshot!(out);
}

#[test]
fn the_first_difference_is_named_with_counts() {
    let place = place("mat\n##ed\n");
    place.write("student/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ndog\n##s\nsat\n.\n");
    let (code, out, err) = run(&place, &["student", "teacher", "--text", "sample.txt", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["relation"], "different");
    assert_eq!(said["first_difference"], serde_json::json!({"id": 6, "tokens": ["dog", "cat"]}));
    assert_eq!((&said["shared"], &said["same_id"]), (&9.into(), &9.into()));
    assert_eq!(said["words"], serde_json::json!([10, 24]));
    assert_eq!(said["padding"], serde_json::json!([[], [[12, 23]]]));
    // the [UNK] sat . against the cat ##s sat .
    assert_eq!(said["text"]["tokens"], serde_json::json!([4, 5]));
    assert_eq!(said["text"]["covered"], serde_json::json!([4, 4]));
    assert_eq!(said["text"]["aligned"], 4);
    let works: Vec<bool> =
        said["choices"].as_array().unwrap().iter().map(|c| c["works"].as_bool().unwrap()).collect();
    assert_eq!(works, [false, false, true]);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let place = place("");
    let (code, _, err) = run(&place, &["student", "nowhere"]);
    assert_eq!((code, err.as_str()), (2, "error: `nowhere` is not there\n"));
    let (code, _, err) = run(&place, &["student", "teacher", "--text", "nothing.txt"]);
    assert!(code == 2 && err.contains("cannot read `nothing.txt`"), "{err}");
    place.write("teacher/config.json", r#"{"vocab_size": "many"}"#);
    let (code, _, err) = run(&place, &["student", "teacher"]);
    assert!(code == 3 && err.contains("`vocab_size` is \"many\", expected a number"), "{err}");
    fs::write(place.path("bad.txt"), [0x61, 0xFF]).unwrap();
    fs::remove_file(place.path("teacher/config.json")).unwrap();
    let (code, _, err) = run(&place, &["student", "teacher", "--text", "bad.txt"]);
    assert!(code == 3 && err.contains("is not UTF-8: byte 1 begins no character"), "{err}");
    fs::remove_file(place.path("teacher/vocab.txt")).unwrap();
    let (code, _, err) = run(&place, &["student", "teacher"]);
    assert!(code == 3 && err.contains("holds no tokenizer"), "{err}");
}

#[test]
fn a_model_of_fewer_words_than_its_tokenizer_is_pointed_at() {
    let place = place("");
    place.write("teacher/config.json", r#"{"vocab_size": 8}"#);
    let (code, out, _) = run(&place, &["student", "teacher"]);
    assert_eq!(code, 0);
    assert!(out.contains("2 more tokens that the model does not know"), "{out}");
    assert!(out.contains("the teacher's tokenizer has 2 tokens that its model"), "{out}");
}
