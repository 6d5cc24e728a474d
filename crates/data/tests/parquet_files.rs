//! Parquet: the layout of the Hub, other types, and files that are none.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heirloom_data::label::RawLabel;
use heirloom_data::presets::{Preset, Split};
use heirloom_data::source::{OnBadLine, Rows, SourceSpec, read};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

enum Values<'a> {
    Text(&'a [Option<&'a str>]),
    Integers(&'a [i64]),
    Numbers(&'a [f64]),
}

fn write(file: &Path, schema: &str, columns: &[Values<'_>], compression: Compression) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer =
        SerializedFileWriter::new(File::create(file).unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for values in columns {
        let mut column = group.next_column().unwrap().unwrap();
        match values {
            Values::Text(texts) => {
                let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
                let texts: Vec<ByteArray> =
                    texts.iter().flatten().map(|&text| ByteArray::from(text)).collect();
                column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None).unwrap();
            }
            Values::Integers(values) => {
                column.typed::<Int64Type>().write_batch(values, None, None).unwrap();
            }
            Values::Numbers(values) => {
                column.typed::<DoubleType>().write_batch(values, None, None).unwrap();
            }
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

const SINGLE: &str = "message schema { optional binary sentence (STRING); required int64 label; \
                      required int64 idx; }";

fn single(folder: &Path, name: &str, texts: &[Option<&str>], labels: &[i64]) -> PathBuf {
    let file = folder.join(name);
    let columns = [Values::Text(texts), Values::Integers(labels), Values::Integers(labels)];
    write(&file, SINGLE, &columns, Compression::SNAPPY);
    file
}

fn error(file: &Path, spec: &SourceSpec, preset: &str) -> String {
    let labels = Preset::named(preset).unwrap().labels();
    let read = read(&[file.to_owned()], spec, Some(&labels), OnBadLine::Error);
    let folder = file.parent().unwrap().display().to_string();
    read.unwrap_err().to_string().replace(&folder, "glue")
}

fn texts(rows: &Rows) -> Vec<&str> {
    rows.rows.iter().map(|row| row.text.as_str()).collect()
}

#[test]
fn shards_of_the_hub_are_read_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("sst2");
    std::fs::create_dir(&place).unwrap();
    single(&place, "train-00001-of-00002.parquet", &[Some("c")], &[0]);
    single(&place, "train-00000-of-00002.parquet", &[Some("a"), Some("b é")], &[1, 0]);
    single(&place, "test-00000-of-00001.parquet", &[Some("d")], &[-1]);
    let preset = Preset::named("sst2").unwrap();
    let found = preset.find(folder.path()).unwrap();
    let labels = preset.labels();
    let train = found.split(Split::Train).unwrap();
    let rows = read(&train.files, &train.spec, Some(&labels), OnBadLine::Error).unwrap();
    assert_eq!(texts(&rows), ["a", "b é", "c"]);
    assert_eq!(rows.rows[0].label, RawLabel::Integer(1));
    let test = found.split(Split::Test).unwrap();
    let rows = read(&test.files, &test.spec, Some(&labels), OnBadLine::Error).unwrap();
    assert_eq!(rows.rows[0].label, RawLabel::Missing);
}

#[test]
fn pairs_scores_and_every_compression_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let preset = Preset::named("stsb").unwrap();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
    ] {
        write(
            &folder.path().join("train-00000-of-00001.parquet"),
            "message schema { optional binary sentence1 (STRING); \
             optional binary sentence2 (STRING); required double label; }",
            &[Values::Text(&[Some("a")]), Values::Text(&[Some("b")]), Values::Numbers(&[3.75])],
            compression,
        );
        let found = preset.find(folder.path()).unwrap();
        let train = found.split(Split::Train).unwrap();
        let rows = read(&train.files, &train.spec, Some(&preset.labels()), OnBadLine::Error);
        let row = &rows.unwrap().rows[0];
        assert_eq!((row.text.as_str(), row.pair.as_deref()), ("a", Some("b")));
        assert_eq!(row.label, RawLabel::Float(3.75));
    }
}

#[test]
fn bad_rows_and_other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let spec = SourceSpec::parquet("sentence").with_label("label");
    let row = |texts: &[Option<&str>], labels: &[i64]| {
        error(&single(path, "train.parquet", texts, labels), &spec, "sst2")
    };
    insta::assert_snapshot!(row(&[Some("a"), None], &[0, 1]), @r#"
    glue/train.parquet:2: field `sentence` is null, expected text
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(row(&[Some("a"), Some("b")], &[0, 7]), @r#"
    glue/train.parquet:2: field `label` is 7, expected 0..=1
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    insta::assert_snapshot!(row(&[Some(" ")], &[0]), @r#"
    glue/train.parquet:1: field `sentence` is empty, expected text
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    let file = single(path, "train.parquet", &[Some("a")], &[0]);
    insta::assert_snapshot!(error(&file, &SourceSpec::parquet("sentense"), "sst2"), @"`glue/train.parquet` has no column `sentense`; did you mean `sentence`?");
    insta::assert_snapshot!(error(&file, &SourceSpec::parquet("label"), "sst2"), @r#"
    glue/train.parquet:1: field `label` is an integer or a date, expected text
      mend it, or leave bad rows out with `task.on_bad_line = "skip"`
    "#);
    std::fs::write(&file, "sentence\tlabel\n").unwrap();
    let refused = error(&file, &spec, "sst2");
    assert!(refused.starts_with("`glue/train.parquet` cannot be read as Parquet: "), "{refused}");
}

#[test]
fn no_flipped_byte_makes_the_reader_panic() {
    let folder = tempfile::tempdir().unwrap();
    let file = single(folder.path(), "t.parquet", &[Some("a"), Some("bb"), None], &[0, 1, 1]);
    let bytes = std::fs::read(&file).unwrap();
    let spec = SourceSpec::parquet("sentence").with_label("label");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        std::fs::write(&file, changed).unwrap();
        // A changed letter is still a row; what matters is that every answer is one.
        let _ = read(std::slice::from_ref(&file), &spec, None, OnBadLine::Error);
    }
}
