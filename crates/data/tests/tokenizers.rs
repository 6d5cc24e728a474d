//! Tokenizers: old files, truncation, digests, and files that can be opened again.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use heirloom_data::tokens::{Tokenizer, first_difference};
use proptest::prelude::*;

const VOCABULARY: &str =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\nsat\nA\na\n.\ne\n##t\n";

fn tokenizer() -> Tokenizer {
    Tokenizer::from_vocabulary(VOCABULARY, true).unwrap()
}

fn saved(tokenizer: &Tokenizer) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in tokenizer.files() {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn words_become_pieces_between_special_tokens() {
    let encoding = tokenizer().encode("The cats sat.", None, 16).unwrap();
    assert_eq!(encoding.ids, [2, 5, 6, 7, 8, 11, 3]);
    assert_eq!(encoding.type_ids, [0; 7]);
    assert!(!encoding.truncated);
    let pair = tokenizer().encode("the", Some("cat dog"), 16).unwrap();
    assert_eq!(pair.ids, [2, 5, 3, 6, 1, 3]);
    assert_eq!(pair.type_ids, [0, 0, 0, 1, 1, 1]);
    assert_eq!(tokenizer().encode("A", None, 16).unwrap().ids, [2, 10, 3]);
    let cased = Tokenizer::from_vocabulary(VOCABULARY, false).unwrap();
    assert_eq!(cased.encode("A", None, 16).unwrap().ids, [2, 9, 3]);
}

#[test]
fn special_tokens_are_known() {
    let tokenizer = tokenizer();
    let special = tokenizer.special();
    let ids = [special.pad, special.unk, special.cls, special.sep, special.mask];
    assert_eq!(ids, [0, 1, 2, 3, 4].map(Some));
    assert_eq!(tokenizer.vocab_size(), 14);
}

#[test]
fn of_a_pair_the_longer_text_is_cut_first() {
    // Words of each text, the longest length, and what is left of each.
    let rows = [
        (3, 3, 9, (3, 3)),
        (5, 1, 7, (3, 1)),
        (1, 5, 7, (1, 3)),
        (5, 5, 7, (2, 2)),
        (5, 5, 8, (2, 3)),
        (6, 5, 8, (3, 2)),
        (4, 5, 8, (2, 3)),
        (9, 2, 8, (3, 2)),
    ];
    for (first, second, max_length, want) in rows {
        let text = |count: usize| vec!["the"; count].join(" ");
        let encoding = tokenizer().encode(&text(first), Some(&text(second)), max_length).unwrap();
        let of_second = encoding.type_ids.iter().filter(|&&id| id == 1).count() - 1;
        let found = (encoding.ids.len() - 3 - of_second, of_second);
        assert_eq!(found, want, "{first} and {second} words into {max_length}");
        assert_eq!(encoding.truncated, first + second + 3 > max_length);
    }
}

#[test]
fn saved_files_give_the_same_tokenizer_back() {
    for lowercase in [true, false] {
        let tokenizer = Tokenizer::from_vocabulary(VOCABULARY, lowercase).unwrap();
        let folder = saved(&tokenizer);
        let names = ["tokenizer.json", "vocab.txt"];
        for again in std::iter::once(folder.path().to_owned())
            .chain(names.map(|name| folder.path().join(name)))
            .map(|path| Tokenizer::open(&path).unwrap())
        {
            assert_eq!(again.digest(), tokenizer.digest());
            assert_eq!(first_difference(&again, &tokenizer), None);
            assert_eq!(again.files(), tokenizer.files());
        }
    }
}

#[test]
fn padding_truncation_and_formatting_of_the_file_do_not_count() {
    let tokenizer = tokenizer();
    let folder = saved(&tokenizer);
    let file = folder.path().join("tokenizer.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    json["truncation"] = serde_json::json!({
        "max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right",
    });
    json["padding"] = serde_json::json!({
        "strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    });
    // Before 2020 the file did not say what kind of model it holds.
    json["model"].as_object_mut().unwrap().shift_remove("type");
    std::fs::write(&file, serde_json::to_string_pretty(&json).unwrap()).unwrap();
    let again = Tokenizer::open(&file).unwrap();
    assert_eq!(again.digest(), tokenizer.digest());
    assert_eq!(again.encode("the cat sat .", None, 16).unwrap().ids, [2, 5, 6, 8, 11, 3]);
    json["normalizer"]["lowercase"] = false.into();
    std::fs::write(&file, json.to_string()).unwrap();
    assert_ne!(Tokenizer::open(&file).unwrap().digest(), tokenizer.digest());
}

#[test]
fn the_first_differing_token_is_named() {
    let other = Tokenizer::from_vocabulary(&VOCABULARY.replace("sat", "sit"), true).unwrap();
    let difference = first_difference(&tokenizer(), &other).unwrap();
    assert_eq!(difference.id, 8);
    assert_eq!(
        (difference.left.as_deref(), difference.right.as_deref()),
        (Some("sat"), Some("sit"))
    );
    let longer = Tokenizer::from_vocabulary(&format!("{VOCABULARY}more\n"), true).unwrap();
    let difference = first_difference(&tokenizer(), &longer).unwrap();
    assert_eq!((difference.id, difference.left), (14, None));
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let error = Tokenizer::open(path).unwrap_err();
        error.to_string().replace(&folder.path().display().to_string(), "model")
    };
    insta::assert_snapshot!(refused(folder.path()), @"`model` holds no tokenizer: looked for tokenizer.json, vocab.txt");
    let file = folder.path().join("tokenizer.json");
    let written = |text: &str| {
        std::fs::write(&file, text).unwrap();
        refused(&file)
    };
    insta::assert_snapshot!(written("{}"), @"`model/tokenizer.json` is not a usable tokenizer: it has no `model`");
    insta::assert_snapshot!(written(r#"{"model": {"vocab": {}}}"#), @"`model/tokenizer.json` is not a usable tokenizer: `model.type` is missing, and the keys of `model` do not tell it");
    insta::assert_snapshot!(written("nothing"), @"`model/tokenizer.json` is not a usable tokenizer: expected ident at line 1 column 2");
    std::fs::write(folder.path().join("vocab.txt"), "a\nb\n").unwrap();
    insta::assert_snapshot!(refused(&folder.path().join("vocab.txt")), @"`model/vocab.txt` is not a usable tokenizer: it needs the lines [CLS], [SEP] and [UNK]");
    insta::assert_snapshot!(tokenizer().encode("a", None, 2).unwrap_err(), @"`max_length = 2` leaves no room for text: the tokenizer adds 2 special tokens");
    insta::assert_snapshot!(tokenizer().encode("a", None, 1 << 20).unwrap_err(), @"`max_length = 1048576` is more than 65536");
}

#[test]
fn no_changed_byte_makes_opening_or_encoding_panic() {
    let folder = saved(&tokenizer());
    let file = folder.path().join("tokenizer.json");
    let bytes = std::fs::read(&file).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x11;
        std::fs::write(&file, changed).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(&file) {
            // Whatever it means now, it answers.
            let _ = tokenizer.encode("the cats sat.", Some("a"), 6);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn no_vocabulary_makes_opening_panic(text in "(\\[CLS\\]\n|\\[SEP\\]\n|\\[UNK\\]\n|\\PC{0,3}\r?\n){0,9}") {
        if let Ok(tokenizer) = Tokenizer::from_vocabulary(&text, true) {
            prop_assert!(tokenizer.encode("the cats sat.", None, 6).is_ok());
        }
    }

    #[test]
    fn a_batch_is_its_texts_one_by_one(
        texts in prop::collection::vec("(the|cat|cats|sat|\\PC| ){0,12}", 0..12),
        max_length in 4usize..20,
    ) {
        let tokenizer = tokenizer();
        let pairs: Vec<(&str, Option<&str>)> = texts
            .iter()
            .enumerate()
            .map(|(at, text)| (text.as_str(), (at % 2 == 1).then_some("the cat sat")))
            .collect();
        let batch = tokenizer.encode_batch(&pairs, max_length).unwrap();
        for ((text, pair), encoding) in pairs.into_iter().zip(batch) {
            prop_assert!(encoding.ids.len() <= max_length);
            prop_assert_eq!(encoding.ids.len(), encoding.type_ids.len());
            prop_assert_eq!(encoding, tokenizer.encode(text, pair, max_length).unwrap());
        }
    }
}
