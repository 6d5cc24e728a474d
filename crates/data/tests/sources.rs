//! Reading rows: every way a file can be wrong, and that nothing it holds makes a reader panic.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};

use heirloom_data::Error;
use heirloom_data::label::{Label, Labels, RawLabel};
use heirloom_data::source::{Encoding, OnBadLine, Quoting, Row, Rows, SourceSpec, read, read_from};
use proptest::prelude::*;

fn rows_of(spec: &SourceSpec, bytes: &[u8]) -> Result<Rows, Error> {
    let labels = Labels::classes(["0", "1", "2", "3"]);
    read_from(bytes, Path::new("train"), spec, Some(&labels), OnBadLine::Error)
}

#[track_caller]
fn error(spec: &SourceSpec, bytes: &[u8]) -> String {
    rows_of(spec, bytes).unwrap_err().to_string()
}

fn tsv() -> SourceSpec {
    SourceSpec::tsv("text").with_label("label")
}

fn jsonl() -> SourceSpec {
    SourceSpec::jsonl("text").with_label("label")
}

fn row(line: u64, text: &str, label: &str) -> Row {
    Row { line, text: text.into(), pair: None, label: RawLabel::Text(label.into()) }
}

#[test]
fn marks_line_ends_and_blank_lines_are_accepted() {
    let want = vec![row(2, "a b", "1"), row(4, "c", "2")];
    for bytes in [
        &b"text\tlabel\na b\t1\n\nc\t2\n"[..],
        b"\xEF\xBB\xBFtext\tlabel\r\na b\t1\r\n\r\nc\t2\r\n",
        b"text\tlabel\na b\t1\n\nc\t2",
    ] {
        assert_eq!(rows_of(&tsv(), bytes).unwrap().rows, want);
    }
}

#[test]
fn with_quoting_off_a_quote_is_text() {
    let rows = rows_of(&tsv(), b"text\tlabel\n\"a\t1\nb \"c\"\"\t2\n").unwrap().rows;
    assert_eq!(rows, [row(2, "\"a", "1"), row(3, "b \"c\"\"", "2")]);
}

#[test]
fn a_quoted_field_holds_separators_quotes_and_line_ends() {
    let spec = SourceSpec::csv("text").with_label("label");
    let rows = rows_of(&spec, b"label,text\r\n1,\"a, \"\"b\"\"\r\nc\"\r\n2,d\"e\r\n").unwrap().rows;
    assert_eq!(rows, [row(2, "a, \"b\"\r\nc", "1"), row(4, "d\"e", "2")]);
}

#[test]
fn old_encodings_and_labels_before_the_text_are_read() {
    let spec = SourceSpec {
        encoding: Encoding::Latin1,
        label_separator: Some(':'),
        ..SourceSpec::label_first()
    };
    let labels = Labels::classes(["NUM", "LOC"]);
    let bytes = b"LOC:city Where is Pel\xE9 ?\n";
    let rows = read_from(&bytes[..], Path::new("t"), &spec, Some(&labels), OnBadLine::Error);
    let rows = rows.unwrap().rows;
    assert_eq!(rows, [row(1, "Where is Pel\u{e9} ?", "LOC")]);
    assert_eq!(labels.resolve(&rows[0].label), Ok(Label::Class(1)));
}

#[test]
fn a_bad_row_of_a_tsv_says_where_and_what_was_expected() {
    insta::assert_snapshot!(error(&tsv(), b"text\tlabel\na\t1\nb \xC3\xA9\t7\n"), @r#"
    train:3:5: field `label` is 7, expected 0..=3
      the line begins `b é\t7`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&tsv(), b"text\tlabel\na\t1\tc\n"), @r#"
    train:2: 3 fields, expected 2
      the line begins `a\t1\tc`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&tsv(), b"text\tlabel\n  \t1\n"), @r#"
    train:2:1: field `text` is empty, expected text
      the line begins `  \t1`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&tsv(), b"text\tlabel\nab\xFFc\t1\n"), @r#"
    train:2:3: not UTF-8, expected UTF-8 text; set `task.encoding = "latin-1"` if the file is older
      the line begins `ab\xffc\t1`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&tsv(), b"text\tlabel\nab\0\x1b[2Jc\t1\n"), @r#"
    train:2:3: a NUL byte, expected text
      the line begins `ab\0\u{1b}[2Jc\t1`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&tsv(), b"txt\tlabel\na\t1\n"), @"`train` has no column `text`; did you mean `txt`?");
    insta::assert_snapshot!(error(&tsv().headerless(), b"a\t1\n"), @"`train`: column `text` cannot be found this way: the file has no header; give the column's index, from 0");
    let csv = SourceSpec { quoting: Quoting::On, ..tsv() };
    insta::assert_snapshot!(error(&csv, b"text\tlabel\na\t1\n\"b\t2\nc\t3\n"), @r#"train:3: a quoted field opens here and never closes; if `"` is ordinary text in this file, set `task.quoting = false`"#);
    insta::assert_snapshot!(error(&SourceSpec::label_first(), b"word\n"), @r#"
    train:1:1: no ' ' ends the label, expected `label text`
      the line begins `word`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
}

#[test]
fn a_bad_row_of_json_lines_says_where_and_what_was_expected() {
    insta::assert_snapshot!(error(&jsonl(), br#"{"text": "\u00e9", "label": 7}"#), @r#"
    train:1:29: field `label` is 7, expected 0..=3
      the line begins `{"text": "\u00e9", "label": 7}`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&jsonl(), br#"{"text": "a", "lable": 1}"#), @r#"
    train:1: field `label` is missing; did you mean `lable`?
      the line begins `{"text": "a", "lable": 1}`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&jsonl(), br#"{"text": null, "label": 1}"#), @r#"
    train:1:10: field `text` is null, expected text
      the line begins `{"text": null, "label": 1}`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&jsonl(), br#"{"text": 5, "label": 1}"#), @r#"
    train:1:10: field `text` is a number, expected text
      the line begins `{"text": 5, "label": 1}`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&jsonl(), br#"{"text": "a", "label": {}}"#), @r#"
    train:1:24: field `label` is an object, expected a label
      the line begins `{"text": "a", "label": {}}`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&jsonl(), br#"{"text": "a", "label": 1"#), @r#"
    train:1:24: not a JSON object: EOF while parsing an object
      the line begins `{"text": "a", "label": 1`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&jsonl(), br#"["a", 1]"#), @r#"
    train:1:1: not a JSON object: found a list
      the line begins `["a", 1]`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(error(&SourceSpec::jsonl(0), b"{}"), @"`train`: column 0 cannot be found this way: the fields of JSON objects have names; give the name");
}

#[test]
fn a_line_that_is_too_long_is_an_error_and_not_memory() {
    let mut bytes = b"text\tlabel\n".to_vec();
    bytes.resize(17 << 20, b'x');
    insta::assert_snapshot!(error(&tsv(), &bytes), @r#"
    train:2: the line is longer than 16777216 bytes, expected one sample per line
      the line begins `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
}

#[test]
fn rows_left_out_are_counted_by_kind_up_to_the_limit() {
    let bytes = b"text\tlabel\na\t1\nb\t7\nc\n\xFF\t1\nd\t8\ne\t2\n";
    let labels = Labels::classes(["0", "1", "2"]);
    let read = |limit| {
        let policy = OnBadLine::Skip { limit };
        read_from(&bytes[..], Path::new("train"), &tsv(), Some(&labels), policy)
    };
    let rows = read(4).unwrap();
    assert_eq!(rows.rows, [row(2, "a", "1"), row(7, "e", "2")]);
    let counts: Vec<(&str, u64)> = rows.skipped.counts.into_iter().collect();
    assert_eq!(counts, [("field count", 1), ("not UTF-8", 1), ("unknown label", 2)]);
    assert_eq!(rows.skipped.first.unwrap().line, 3);
    insta::assert_snapshot!(read(3).unwrap_err(), @r#"
    more than 3 bad rows (field count: 1, not UTF-8: 1, unknown label: 1); the last is train:6:3: field `label` is 8, expected 0..=2
      the line begins `d\t8`
      raise `task.bad_line_limit` or mend the file
    "#);
}

#[test]
fn more_columns_are_accepted_only_where_the_source_says_so() {
    let strict = SourceSpec::tsv(0).headerless().with_label(1);
    let bytes = b"a\t1\nb\t2\tmore\n";
    insta::assert_snapshot!(error(&strict, bytes), @r#"
    train:2: 3 fields, expected 2
      the line begins `b\t2\tmore`
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    let loose = SourceSpec { extra_columns: true, ..strict };
    assert_eq!(rows_of(&loose, bytes).unwrap().rows, [row(1, "a", "1"), row(2, "b", "2")]);
}

#[test]
fn files_are_read_one_after_the_other_and_none_may_be_empty() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| -> PathBuf {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let (one, two) = (write("1", "text\tlabel\na\t1\n"), write("2", "text\tlabel\nb\t2\n"));
    let rows = read(&[one.clone(), two], &tsv(), None, OnBadLine::Error).unwrap().rows;
    assert_eq!(rows, [row(2, "a", "1"), row(2, "b", "2")]);
    let empty = write("3", "text\tlabel\n");
    let refused = read(&[one, empty], &tsv(), None, OnBadLine::Error).unwrap_err();
    assert!(matches!(refused, Error::Empty { skipped: 0, .. }), "{refused}");
    let missing = read(&[folder.path().join("4")], &tsv(), None, OnBadLine::Error).unwrap_err();
    assert!(matches!(missing, Error::Read { .. }) && missing.exit_code() == 3, "{missing}");
}

#[test]
fn presets_name_the_nearest_and_what_they_looked_for() {
    use heirloom_data::presets::{Preset, Split};
    insta::assert_snapshot!(Preset::named("sst-2").unwrap_err(), @"no data set is called `sst-2`; did you mean `sst2`?");
    insta::assert_snapshot!(Preset::named("imdb").unwrap_err(), @"no data set is called `imdb`; there are `cola`, `sst2`, `mrpc`, `stsb`, `qqp`, `mnli`, `qnli`, `rte`, `wnli`");
    let folder = tempfile::tempdir().unwrap();
    let refused = Preset::named("rte").unwrap().find(folder.path()).unwrap_err().to_string();
    let refused = refused.replace(&folder.path().display().to_string(), "glue");
    insta::assert_snapshot!(refused, @"`glue` does not hold rte: looked for train.tsv, dev.tsv, test.tsv, train-*.parquet, validation-*.parquet, test-*.parquet");
    for file in ["train-00001-of-00002.parquet", "train-00000-of-00002.parquet"] {
        std::fs::write(folder.path().join(file), "").unwrap();
    }
    std::fs::write(folder.path().join("dev.tsv"), "").unwrap();
    std::fs::write(folder.path().join("train.tsv"), "").unwrap();
    let found = Preset::named("rte").unwrap().find(folder.path()).unwrap();
    assert_eq!(found.splits.len(), 2);
    assert!(found.split(Split::Validation).unwrap().files[0].ends_with("dev.tsv"));
    std::fs::remove_file(folder.path().join("dev.tsv")).unwrap();
    std::fs::remove_file(folder.path().join("train.tsv")).unwrap();
    let found = Preset::named("rte").unwrap().find(folder.path()).unwrap();
    let files = &found.split(Split::Train).unwrap().files;
    assert!(files.len() == 2 && files[0].ends_with("train-00000-of-00002.parquet"));
}

#[test]
fn every_preset_is_read_in_its_own_layout() {
    use heirloom_data::presets::{Preset, Split};
    // Name, file, content, first text, its pair, its label.
    let rows = [
        ("cola", "train.tsv", "gj04\t1\t\tA b.\n", "A b.", None, Label::Class(1)),
        ("cola", "test.tsv", "index\tsentence\n0\tA b.\n", "A b.", None, Label::None),
        ("sst2", "dev.tsv", "sentence\tlabel\na \t0\n", "a ", None, Label::Class(0)),
        (
            "mrpc",
            "train.tsv",
            "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta\t\"b\n",
            "a",
            Some("\"b"),
            Label::Class(1),
        ),
        (
            "stsb",
            "train.tsv",
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\t\
             score\n0\tm\tf\t2012\t1\tn\tn\ta\tb\t3.800\n",
            "a",
            Some("b"),
            Label::Score(3.8),
        ),
        (
            "stsb",
            "sts-dev.csv",
            "m\tM\t2012\t1\t5.000\ta\tb\nm\tM\t2012\t1\t5.0\ta\tb\tx\ty\n",
            "a",
            Some("b"),
            Label::Score(5.0),
        ),
        (
            "qqp",
            "train.tsv",
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t0\n",
            "a",
            Some("b"),
            Label::Class(0),
        ),
        (
            "mnli",
            "dev_mismatched.tsv",
            "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tcontradiction\n",
            "a",
            Some("b"),
            Label::Class(2),
        ),
        (
            "qnli",
            "dev.tsv",
            "index\tquestion\tsentence\tlabel\n0\ta\tb\tnot_entailment\n",
            "a",
            Some("b"),
            Label::Class(1),
        ),
        (
            "rte",
            "train.tsv",
            "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n",
            "a",
            Some("b"),
            Label::Class(0),
        ),
        (
            "wnli",
            "train.tsv",
            "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n",
            "a",
            Some("b"),
            Label::Class(1),
        ),
    ];
    for (name, file, content, text, pair, label) in rows {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), content).unwrap();
        let preset = Preset::named(name).unwrap();
        let found = preset.find(folder.path()).unwrap();
        let split = &found.splits[0];
        assert_eq!(split.split == Split::Test, file == "test.tsv");
        let labels = preset.labels();
        let rows = read(&split.files, &split.spec, Some(&labels), OnBadLine::Error).unwrap().rows;
        assert_eq!((rows[0].text.as_str(), rows[0].pair.as_deref()), (text, pair), "{name}");
        assert_eq!(labels.resolve(&rows[0].label), Ok(label), "{name}");
    }
}

fn any_spec() -> impl Strategy<Value = SourceSpec> {
    prop_oneof![
        Just(tsv()),
        Just(tsv().headerless()),
        Just(SourceSpec::tsv(1).headerless().with_label(0)),
        Just(SourceSpec::csv(1).headerless().with_pair(0)),
        Just(SourceSpec { extra_columns: true, ..SourceSpec::csv(2).headerless() }),
        Just(SourceSpec { encoding: Encoding::Latin1, ..SourceSpec::csv(0).headerless() }),
        Just(SourceSpec::label_first()),
        Just(jsonl()),
        Just(SourceSpec::parquet("text")),
    ]
}

/// Bytes that a parser trips over more often than over random ones.
fn nasty_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::sample::select(vec![
            &b"\n"[..],
            b"\r\n",
            b"\t",
            b",",
            b"\"",
            b"\"\"",
            b"{",
            b"}",
            b":",
            b"[",
            b"null",
            b"\"text\"",
            b"\"label\"",
            b"\xC3\xA9",
            b"\xEF\xBB\xBF",
            b"\0",
            b"PAR1",
            b" ",
        ])
        .prop_map(<[u8]>::to_vec),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_make_a_reader_panic(spec in any_spec(), bytes in nasty_bytes()) {
        for policy in [OnBadLine::Error, OnBadLine::Skip { limit: 5 }] {
            let read = read_from(&bytes[..], Path::new("t"), &spec, None, policy);
            if let Err(error) = read {
                prop_assert!(!error.to_string().chars().any(|c| c.is_control() && c != '\n'));
            }
        }
    }

    #[test]
    fn what_the_csv_crate_writes_is_read_alike(
        table in prop::collection::vec(prop::array::uniform2("[a-c,\"\t\r\n é]{0,6}"), 1..8)
    ) {
        let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
        for [left, right] in &table {
            // A prefix keeps texts from being empty, which is a bad row.
            writer.write_record([format!("x{left}"), format!("y{right}")]).unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let spec = SourceSpec::csv(0).headerless().with_pair(1);
        let rows = read_from(&bytes[..], Path::new("t"), &spec, None, OnBadLine::Error).unwrap();
        let found: Vec<[String; 2]> = rows
            .rows
            .into_iter()
            .map(|row| [row.text, row.pair.unwrap()])
            .collect();
        let want: Vec<[String; 2]> =
            table.into_iter().map(|[left, right]| [format!("x{left}"), format!("y{right}")]).collect();
        prop_assert_eq!(found, want);
    }
}
