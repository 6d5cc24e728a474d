//! Answers from a file: found by their text, in the order of the labels, and refused where they are
//! not what they should be. Also the data sets that they answer: labelled examples and texts.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;

use heirloom_base::Digest;
use heirloom_data::dataset::{Dataset, KeepTexts, LabelNoise, NoiseKind};
use heirloom_data::given::AnswerFile;
use heirloom_data::label::{Label, Labels, RawLabel};
use heirloom_data::source::{Row, Rows};
use heirloom_data::tokens::Tokenizer;

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n";

fn row(text: &str, pair: Option<&str>, label: RawLabel) -> Row {
    Row { line: 1, text: text.to_owned(), pair: pair.map(str::to_owned), label }
}

fn dataset(labels: &Labels, rows: Vec<Row>, keep: KeepTexts) -> Dataset {
    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY, true).unwrap();
    Dataset::build(&Rows::of(rows), labels.clone(), &tokenizer, 16, keep).unwrap()
}

fn unlabelled(texts: &[&str], labels: &Labels) -> Dataset {
    let rows = texts.iter().map(|text| row(text, None, RawLabel::Missing)).collect();
    dataset(labels, rows, KeepTexts::No)
}

fn two() -> Labels {
    Labels::classes(["no", "yes"])
}

/// The file's answers, or the message of what is wrong with it.
fn read(text: &str, labels: &Labels, pairs: Option<&[&str]>) -> Result<AnswerFile, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answers.jsonl");
    fs::write(&file, text).unwrap();
    AnswerFile::read(&file, labels, &["phrase"], pairs)
        .map_err(|error| error.to_string().replace(&file.display().to_string(), "answers.jsonl"))
}

/// Logits of `data`'s examples, `[N, K]`.
fn logits(answers: &AnswerFile, data: &Dataset) -> Result<Vec<f32>, String> {
    let text_of = |_| Some("the text".to_owned());
    let key = (Digest::of(b"tokenizer"), 16);
    let cache = answers.of(data, "training", key, &text_of).map_err(|error| error.to_string())?;
    Ok((0..data.len()).flat_map(|at| cache.row(at).to_vec()).collect())
}

#[test]
fn an_answer_is_found_by_its_text_wherever_it_stands() {
    let lines = [
        r#"{"text": "a", "logits": [1.5, -2.25]}"#,
        r#"{"sentence": "b", "logits": {"yes": 3, "no": 4}}"#,
        "",
        r#"{"phrase": "c", "text": "not this one", "logits": [5, 6]}"#,
        r#"{"text": "asked by nobody", "logits": [0, 0]}"#,
        r#"{"text": "a", "logits": [1.5, -2.25]}"#,
    ];
    let data = unlabelled(&["c", "a", "b", "a"], &two());
    let want = [5.0, 6.0, 1.5, -2.25, 4.0, 3.0, 1.5, -2.25];
    let answers = read(&lines.join("\n"), &two(), None).unwrap();
    assert_eq!((answers.len(), answers.is_empty()), (4, false));
    assert_eq!(logits(&answers, &data).unwrap(), want);
    // Spaces around a text are nobody's answer.
    let spaced = unlabelled(&[" c", "a ", "b", "a\t"], &two());
    assert_eq!(logits(&answers, &spaced).unwrap(), want);
    assert!(logits(&answers, &unlabelled(&["a  b"], &two())).is_err());
    let turned: Vec<&str> = lines.iter().rev().copied().collect();
    assert_eq!(logits(&read(&turned.join("\r\n"), &two(), None).unwrap(), &data).unwrap(), want);
}

#[test]
fn a_pair_is_another_text_than_its_parts() {
    let line = r#"{"sentence1": "a", "second": "b", "logits": [1, 2]}"#;
    let answers = read(line, &two(), Some(&["second"])).unwrap();
    let pair = |second| dataset(&two(), vec![row("a", second, RawLabel::Missing)], KeepTexts::No);
    assert_eq!(logits(&answers, &pair(Some("b"))).unwrap(), [1.0, 2.0]);
    assert!(logits(&answers, &pair(None)).is_err());
    assert!(logits(&answers, &pair(Some("c"))).is_err());
}

#[test]
fn probabilities_become_logits_that_have_them() {
    let rows = [
        (r#"{"yes": 0.8, "no": 0.2}"#, [0.2, 0.8]),
        ("[0.2, 0.8]", [0.2, 0.8]),
        // Rounded, as people and language models write them.
        (r#"{"no": 0.33, "yes": 0.66}"#, [0.33 / 0.99, 0.66 / 0.99]),
        // What models call labels without a name stand in the order of outputs.
        (r#"{"LABEL_1": 0.9, "LABEL_0": 0.1}"#, [0.1, 0.9]),
        // An end is as near as it may be: 1e-6 beside 1, of their sum.
        ("[0, 1]", [1e-6 / 1.000_001, 1.0 / 1.000_001]),
    ];
    let data = unlabelled(&["a"], &two());
    for (written, want) in rows {
        let line = format!(r#"{{"text": "a", "probabilities": {written}}}"#);
        let found = logits(&read(&line, &two(), None).unwrap(), &data).unwrap();
        let found: Vec<f64> = found.into_iter().map(f64::from).collect();
        let sum: f64 = found.iter().map(|logit| logit.exp()).sum();
        for (logit, want) in found.iter().zip(want) {
            let got = logit.exp() / sum;
            assert!((got / want - 1.0).abs() < 1e-6, "{written}: {got}, should be {want}");
        }
    }
    // Of labels that do not exclude one another each is a chance of its own: ln p/(1 − p).
    let several = Labels::multi(["x", "y"], ',');
    let line = r#"{"text": "a", "probabilities": {"y": 0.5, "x": 0.75}}"#;
    let data = dataset(&several, vec![row("a", None, RawLabel::Missing)], KeepTexts::No);
    let found = logits(&read(line, &several, None).unwrap(), &data).unwrap();
    assert!((f64::from(found[0]) - 3f64.ln()).abs() < 1e-6 && found[1] == 0.0, "{found:?}");
    // A label alone is an answer without a doubt, as far as a logit can say so.
    let data = unlabelled(&["a", "b"], &two());
    let lines = "{\"text\": \"a\", \"label\": \"yes\"}\n{\"text\": \"b\", \"label\": 0}";
    let found = logits(&read(lines, &two(), None).unwrap(), &data).unwrap();
    let least = 1e-6f64.ln() as f32;
    assert_eq!(found, [least, 0.0, 0.0, least]);
    let line = r#"{"text": "a", "labels": ["y"]}"#;
    let data = dataset(&several, vec![row("a", None, RawLabel::Missing)], KeepTexts::No);
    let found = logits(&read(line, &several, None).unwrap(), &data).unwrap();
    assert!(found[0] < -13.8 && found[1] > 13.8, "{found:?}");
    // A score is a number.
    let score = Labels::score();
    let data = dataset(&score, vec![row("a", None, RawLabel::Missing)], KeepTexts::No);
    let answers = read(r#"{"text": "a", "value": 3.5}"#, &score, None).unwrap();
    assert_eq!(logits(&answers, &data).unwrap(), [3.5]);
}

#[test]
fn what_is_no_answer_is_refused_with_its_line_and_what_was_expected() {
    let said = |line: &str| {
        let text = format!("{{\"text\": \"first\", \"logits\": [0, 1]}}\n{line}\n");
        let said = read(&text, &two(), None).unwrap_err();
        // Every message ends with what a line should be.
        let end = "\n  expected a text with `logits`, `probabilities`, `label` or `value`, as \
                   `heirloom predict` writes them";
        let said = said.strip_suffix(end).unwrap_or_else(|| panic!("{said}")).to_owned();
        said.lines().next().unwrap().to_owned()
    };
    insta::assert_snapshot!(said("{"), @"answers.jsonl:2:1: not a JSON object: EOF while parsing an object");
    insta::assert_snapshot!(said(r#"{"txt": "a", "logits": [0, 1]}"#), @"answers.jsonl:2: field `phrase` is missing; there are `logits`, `txt`");
    insta::assert_snapshot!(said(r#"{"text": "a"}"#), @"answers.jsonl:2: field `logits` is missing; there are `text`");
    insta::assert_snapshot!(said(r#"{"text": "a", "logits": null}"#), @"answers.jsonl:2: `logits` is null, and so is `probabilities`");
    insta::assert_snapshot!(said(r#"{"text": "a", "logits": [0, 1, 2]}"#), @"answers.jsonl:2:25: `logits` has 3 numbers, expected 2, one a label");
    insta::assert_snapshot!(said(r#"{"text": "a", "logits": 3}"#), @"answers.jsonl:2:25: `logits` is a number, expected a list or an object");
    insta::assert_snapshot!(said(r#"{"text": "a", "logits": [0, "1"]}"#), @"answers.jsonl:2:25: `logits` holds text, expected numbers");
    insta::assert_snapshot!(said(r#"{"text": "a", "logits": [0, 1e39]}"#), @"answers.jsonl:2:25: `logits` holds 1e+39, expected finite numbers");
    insta::assert_snapshot!(said(r#"{"text": "a", "logits": {"no": 1, "yess": 2}}"#), @"answers.jsonl:2:25: `logits` says nothing of label `yes`; did you mean `yess`?");
    insta::assert_snapshot!(said(r#"{"text": "a", "logits": {"no": 1}}"#), @"answers.jsonl:2:25: `logits` names 1 of 2 labels");
    insta::assert_snapshot!(said(r#"{"text": "a", "probabilities": [0.5, 0.4]}"#), @"answers.jsonl:2:32: `probabilities` sums to 0.9, expected 1");
    insta::assert_snapshot!(said(r#"{"text": "a", "probabilities": [1.5, -0.5]}"#), @"answers.jsonl:2:32: `probabilities` holds 1.5, expected numbers from 0 to 1");
    insta::assert_snapshot!(said(r#"{"text": "first", "logits": [0, 2]}"#), @"answers.jsonl:2: another answer to the text of line 1");
    insta::assert_snapshot!(said(r#"{"text": "a", "label": "yess"}"#), @r#"answers.jsonl:2:24: `label` is "yess", expected one of the labels; did you mean `yes`?"#);
    insta::assert_snapshot!(said(r#"{"text": "a", "label": {"yes": 1}}"#), @"answers.jsonl:2:24: `label` is no label");
    // A list in another order than the labels is seen where probabilities by name stand beside it.
    insta::assert_snapshot!(said(r#"{"text": "a", "logits": [2, 0], "probabilities": {"no": 0.1192, "yes": 0.8808}}"#), @"answers.jsonl:2:25: `logits` is 0.8808 for `no` by its own and 0.1192 by `probabilities`; a list is in the order of `task.labels`: no, yes");
    let right =
        r#"{"text": "a", "logits": [0, 2], "probabilities": {"no": 0.1192, "yes": 0.8808}}"#;
    assert!(read(right, &two(), None).is_ok());
    insta::assert_snapshot!(read("\n", &two(), None).unwrap_err(), @"`answers.jsonl` has no rows");
}

#[test]
fn an_example_without_an_answer_is_refused_and_quoted() {
    let answers = read(r#"{"text": "a", "logits": [0, 1]}"#, &two(), None).unwrap();
    let said = logits(&answers, &unlabelled(&["a", "b", "c"], &two())).unwrap_err();
    assert!(
        said.ends_with(
            "answers.jsonl` has no answer to 2 of 3 training examples, the first of which reads `the \
             text`; have the teacher answer them too, or remove them"
        ),
        "{said}"
    );
}

#[test]
fn one_set_behind_another_keeps_both_as_they_are() {
    let labels = two();
    let class = |at: usize| RawLabel::Integer(at as i64 % 2);
    let rows: Vec<Row> =
        ["a b", "b", "c c c"].iter().zip(0..).map(|(t, at)| row(t, None, class(at))).collect();
    let first = dataset(&labels, rows, KeepTexts::Yes);
    let more = ["c a", "b b b b"];
    let rows = more.iter().map(|text| row(text, None, RawLabel::Missing)).collect();
    let second = dataset(&labels, rows, KeepTexts::Yes);
    let both = first.clone().followed_by(&second);
    assert_eq!((both.len(), both.unlabelled()), (5, 2));
    for at in 0..5 {
        let part = if at < 3 { (&first, at) } else { (&second, at - 3) };
        assert_eq!(both.example(at), part.0.example(part.1));
        assert_eq!(both.text(at), part.0.text(part.1));
        assert_eq!(both.asked(at), part.0.asked(part.1));
    }
    // The tokens are those of one data set, and the whole is not either part.
    let rows =
        ["a b", "b", "c c c", "c a", "b b b b"].map(|text| row(text, None, RawLabel::Missing));
    let whole = dataset(&labels, rows.into(), KeepTexts::No);
    assert_eq!(both.tokens_digest(), whole.tokens_digest());
    let turned = second.clone().followed_by(&first);
    assert!(![first.digest(), second.digest(), turned.digest()].contains(&both.digest()));
    // Label noise is of the first alone, and stays known.
    let noise = LabelNoise { share: 1.0, kind: NoiseKind::Asymmetric, seed: 1 };
    let noisy = first.with_label_noise(noise).followed_by(&second);
    assert_eq!(noisy.noisy_labels(), 3);
    assert_eq!((noisy.class_before_noise(0), noisy.class_before_noise(4)), (Some(0), None));
    assert_eq!(*noisy.example(0).label, Label::Class(1));
    // A part of it keeps what it was.
    let part = noisy.select(&[4, 0]);
    assert_eq!((part.class_before_noise(1), part.unlabelled()), (Some(0), 1));
}
