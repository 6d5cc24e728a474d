//! Documents out of plain text, JSON Lines, JSON and Parquet, and what is refused.

use std::path::PathBuf;
use std::sync::Arc;

use crate::place::Place;
use heirloom_data::text::{Corpus, Reading, Separator, Shape, TextFormat};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

fn texts(files: &[PathBuf], reading: Reading) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let corpus = Corpus::open(files, reading).map_err(|error| error.to_string())?;
    corpus.for_each_text(|text| all.push(text)).map_err(|error| error.to_string())?;
    Ok(all)
}

fn parted(text: &str, separator: Separator) -> Vec<String> {
    let place = Place::new();
    let file = place.write("a.txt", text);
    texts(&[file], Reading { separator, ..Reading::plain() }).unwrap()
}

fn parquet(place: &Place, name: &str, column: &str, texts: &[&str]) -> PathBuf {
    let schema = format!("message schema {{ required binary {column} (STRING); }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    for text in texts {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(*text)], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    place.write(name, bytes)
}

#[test]
fn a_separator_parts_plain_text_and_belongs_to_no_document() {
    let marker = || Separator::Marker("<|end|>".to_owned());
    let text = "\u{feff}one\ntwo\r\n\r\n \t\nthree\n<|end|>\n\nfour";
    assert_eq!(parted(text, Separator::File), [&text[3..]]);
    assert_eq!(parted(text, Separator::BlankLine), ["one\ntwo", "three\n<|end|>", "four"]);
    assert_eq!(parted(text, marker()), ["one\ntwo\r\n\r\n \t\nthree", "\nfour"]);
    assert_eq!(parted("<|end|>\n<|end|>\na\n <|end|> \r\n<|end|>", marker()), ["a"]);
    assert_eq!(parted("not<|end|>here\n", marker()), ["not<|end|>here\n"]);
    assert_eq!(parted("", Separator::File), [""; 0]);
}

#[test]
fn every_format_gives_the_same_documents_in_the_order_of_the_files() {
    let place = Place::new();
    place.write("texts/b.jsonl", "{\"text\": \"three\", \"n\": 1}\n\n{\"text\": \"vi\\u00e9r\"}\n");
    place.write("texts/a.txt", "one two");
    place.write("texts/c.json", "[ {\"text\": \"five\"},\n{\"text\":\"a \\\"]\\\" b\"} ]");
    place.write("texts/.hidden.txt", "no");
    place.write("texts/model.bin", "no");
    place.write("texts/inside/d.txt", "no");
    parquet(&place, "texts/d.parquet", "text", &["six", "sieben"]);
    let folder = texts(&[place.path("texts")], Reading::plain()).unwrap();
    let want = ["one two", "three", "viér", "five", "a \"]\" b", "six", "sieben"];
    assert_eq!(folder, want);
    let named: Vec<PathBuf> =
        ["d.parquet", "a.txt"].map(|name| place.path("texts").join(name)).into();
    assert_eq!(texts(&named, Reading::plain()).unwrap(), ["six", "sieben", "one two"]);
    // A format that is given holds whatever the name.
    let other = place.write("lines.log", "{\"text\": \"x\"}\n");
    let jsonl = Reading { format: Some(TextFormat::Jsonl), ..Reading::plain() };
    assert_eq!(texts(&[other], jsonl).unwrap(), ["x"]);
}

#[test]
fn what_is_not_as_it_should_be_is_refused_with_its_place() {
    let place = Place::new();
    let field =
        |name: &str| Reading { shape: Shape::Text { field: name.to_owned() }, ..Reading::plain() };
    let good = "{\"text\": \"good\"}\n";
    let rows: [(&str, Vec<u8>, Reading, &str); 13] = [
        (
            "a.jsonl",
            format!("{good}{{\"txt\": \"x\"}}").into(),
            field("text"),
            "a.jsonl:2: field `text` is missing; did you mean `txt`?\n  the line begins `{\"txt\": \"x\"}`",
        ),
        (
            "b.jsonl",
            format!("{good}\n{{\"text\": null}}").into(),
            field("text"),
            "b.jsonl:3:10: field `text` is null, expected text",
        ),
        (
            "c.jsonl",
            "{\"text\": [1]}".into(),
            field("text"),
            "c.jsonl:1:10: field `text` is a list, expected text",
        ),
        ("d.jsonl", "{\"text\": \"".into(), field("text"), "d.jsonl:1:10: not a JSON object"),
        ("e.jsonl", "[1]".into(), field("text"), "not a JSON object: found a list"),
        (
            "f.jsonl",
            [&b"{\"text\": \"ab"[..], b"\xFF\"}"].concat(),
            field("text"),
            "f.jsonl:1:13: not UTF-8, expected UTF-8 text; convert the file",
        ),
        (
            "g.txt",
            [&b"fine\nab\xC3\xA9c"[..], b"\xE9 d\n"].concat(),
            Reading::plain(),
            "g.txt:2:5: not UTF-8",
        ),
        (
            "h.json",
            "{\"text\": \"x\"}".into(),
            field("text"),
            "h.json:1: not a JSON list: expected a list of objects",
        ),
        (
            "i.json",
            "[{\"text\": \"x\"},\n{\"text\": 1}]".into(),
            field("text"),
            "i.json:2: field `text` is a number, expected text",
        ),
        (
            "j.txt",
            "x".into(),
            Reading { shape: Shape::messages(), ..Reading::plain() },
            "j.txt` is plain text, and messages are fields; give JSONL, JSON or Parquet",
        ),
        ("k.parquet", "PAR1".into(), field("text"), "k.parquet` cannot be read as Parquet"),
        (
            "l.txt",
            "x".into(),
            Reading { separator: Separator::Marker(" ".to_owned()), ..Reading::plain() },
            "the separator \" \" is not one line with something in it",
        ),
        (
            "m.jsonl",
            "{\"messages\": \"x\"}".into(),
            Reading { shape: Shape::messages(), ..Reading::plain() },
            "m.jsonl:1:14: field `messages` is text, expected a list of messages",
        ),
    ];
    for (name, bytes, reading, want) in rows {
        let file = place.write(name, bytes);
        let said = texts(&[file], reading).unwrap_err();
        assert!(said.contains(want), "{name}: {said}");
    }
    let file = parquet(&place, "n.parquet", "content", &["x"]);
    let said = texts(&[file], field("text")).unwrap_err();
    assert!(said.contains("has no column `text`; there are `content`"), "{said}");
    std::fs::create_dir(place.path("empty")).unwrap();
    let said = texts(&[place.path("empty")], Reading::plain()).unwrap_err();
    assert!(said.contains("holds no text: looked for files ending in .txt"), "{said}");
    let said = texts(&[place.path("nowhere.txt")], Reading::plain()).unwrap_err();
    assert!(said.contains("cannot read `") && said.contains("nowhere.txt"), "{said}");
}
