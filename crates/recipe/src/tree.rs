//! The recipe as a tree of values, each with its place.
//!
//! In: TOML text and `--set` overrides. Out: one tree in which overrides have replaced what the
//! file said. Never: asks what a key means; only which keys exclude each other is handed in.

use std::collections::BTreeMap;

use toml_edit::{Document, Item, TableLike, Value as TomlValue};

use crate::problem::{Place, ProblemKind, Problems};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where its key stands (for a list's element: where it stands itself).
    pub(crate) key_place: Place,
    /// Where it stands.
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    List(Vec<Node>),
    Table(Table),
}

pub(crate) type Table = BTreeMap<String, Node>;

impl Node {
    /// The value as an error names it: `"three"`, `7`, `a list`.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::String(text) => {
                let shown: String = text.chars().take(LONGEST_SHOWN).collect();
                let more = if shown.len() < text.len() { "…" } else { "" };
                format!("{:?}{more}", shown)
            }
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => format!("{number:?}"),
            Value::Boolean(truth) => truth.to_string(),
            Value::Datetime(text) => text.clone(),
            Value::List(nodes) if nodes.len() <= 4 && nodes.iter().all(Node::is_scalar) => {
                let nodes: Vec<String> = nodes.iter().map(Node::describe).collect();
                format!("[{}]", nodes.join(", "))
            }
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }

    fn is_scalar(&self) -> bool {
        !matches!(self.value, Value::List(_) | Value::Table(_))
    }
}

/// Characters of a string that an error repeats.
const LONGEST_SHOWN: usize = 80;

/// The tree of a TOML text, or `None` with a problem where it is not TOML.
pub(crate) fn read(text: &str, problems: &mut Problems) -> Option<Table> {
    let places = Places::of(text);
    match Document::parse(text) {
        Ok(document) => Some(table(document.as_table(), &mut |span| places.at(span.start))),
        Err(error) => {
            let place = error.span().map_or(Place::Whole, |span| places.at(span.start));
            problems.push(place, ProblemKind::Syntax { message: one_line(error.message()) });
            None
        }
    }
}

/// Puts the overrides into the tree. Where an override decides what other keys of the file also
/// decide (`alternatives`: a section and keys of which one may be set), the file's keys give way.
pub(crate) fn overrule(
    root: &mut Table,
    sets: &[String],
    alternatives: &[(&str, &[&str])],
    problems: &mut Problems,
) {
    let mut seen: Vec<Vec<String>> = Vec::new();
    for (number, set) in sets.iter().enumerate() {
        let place = Place::Set { number, text: set.clone() };
        let Some((path, node)) = read_set(set, &place) else {
            problems.push(place, ProblemKind::SetSyntax);
            continue;
        };
        if seen.contains(&path) {
            problems.push(place, ProblemKind::SetTwice { key: path.join(".") });
            continue;
        }
        if let Err(kind) = put(root, &path, node) {
            problems.push(place, kind);
            continue;
        }
        if let [section, key] = path.as_slice() {
            give_way(root, section, key, alternatives);
        }
        seen.push(path);
    }
}

fn give_way(root: &mut Table, section: &str, key: &str, alternatives: &[(&str, &[&str])]) {
    let Some(Node { value: Value::Table(table), .. }) = root.get_mut(section) else { return };
    let groups = alternatives.iter().filter(|group| group.0 == section && group.1.contains(&key));
    for other in groups.flat_map(|group| group.1).filter(|other| **other != key) {
        if table.get(*other).is_some_and(|node| !matches!(node.place, Place::Set { .. })) {
            table.remove(*other);
        }
    }
}

fn read_set(set: &str, place: &Place) -> Option<(Vec<String>, Node)> {
    let (key, text) = set.split_once('=')?;
    if set.len() > LONGEST_SET {
        return None;
    }
    let path: Vec<String> = toml_edit::Key::parse(key.trim())
        .ok()?
        .into_iter()
        .map(|key| key.get().to_owned())
        .collect();
    if path.is_empty() || path.len() > DEEPEST_SET {
        return None;
    }
    let value = match text.trim().parse::<TomlValue>() {
        Ok(value) => value_of(&value, &mut |_| place.clone()),
        // A bare word is a string, so that nobody must quote twice for the shell.
        Err(_) => Value::String(text.trim().to_owned()),
    };
    Some((path, Node { key_place: place.clone(), place: place.clone(), value }))
}

/// Longest override in bytes: every value of the schema is far shorter.
const LONGEST_SET: usize = 1 << 16;

/// Most names in the key of an override: the schema needs four.
const DEEPEST_SET: usize = 8;

fn put(root: &mut Table, path: &[String], node: Node) -> Result<(), ProblemKind> {
    let (last, parents) = path.split_last().expect("read_set() gives at least one name");
    let mut table = root;
    let mut at = 0;
    while at < parents.len() {
        let parent = table.entry(parents[at].clone()).or_insert_with(|| Node {
            key_place: node.key_place.clone(),
            place: node.place.clone(),
            value: Value::Table(Table::new()),
        });
        let found = parent.describe();
        at += 1;
        let wrong = || ProblemKind::SetThrough {
            parent: path[..at].join("."),
            found: found.clone(),
            key: path[at].clone(),
        };
        table = match &mut parent.value {
            Value::Table(table) => table,
            Value::List(nodes) if at < parents.len() => {
                let index = parents[at].parse::<usize>().map_err(|_| wrong())?;
                match nodes.get_mut(index).map(|node| &mut node.value) {
                    Some(Value::Table(table)) => {
                        at += 1;
                        table
                    }
                    _ => return Err(wrong()),
                }
            }
            _ => return Err(wrong()),
        };
    }
    table.insert(last.clone(), node);
    Ok(())
}

type PlaceOf<'a> = dyn FnMut(std::ops::Range<usize>) -> Place + 'a;

fn table(toml: &dyn TableLike, place_of: &mut PlaceOf<'_>) -> Table {
    let mut table = Table::new();
    for (name, item) in toml.iter() {
        let key_span = toml.key(name).and_then(|key| key.span()).unwrap_or_default();
        let key_place = place_of(key_span.clone());
        let place = place_of(item.span().unwrap_or(key_span));
        let value = match item {
            Item::None => continue,
            Item::Value(value) => value_of(value, place_of),
            Item::Table(toml) => Value::Table(self::table(toml, place_of)),
            Item::ArrayOfTables(tables) => Value::List(
                tables
                    .iter()
                    .map(|toml| {
                        let place = place_of(toml.span().unwrap_or_default());
                        let value = Value::Table(self::table(toml, place_of));
                        Node { key_place: place.clone(), place, value }
                    })
                    .collect(),
            ),
        };
        table.insert(name.to_owned(), Node { key_place, place, value });
    }
    table
}

fn value_of(toml: &TomlValue, place_of: &mut PlaceOf<'_>) -> Value {
    match toml {
        TomlValue::String(text) => Value::String(text.value().clone()),
        TomlValue::Integer(number) => Value::Integer(*number.value()),
        TomlValue::Float(number) => Value::Float(*number.value()),
        TomlValue::Boolean(truth) => Value::Boolean(*truth.value()),
        TomlValue::Datetime(time) => Value::Datetime(time.value().to_string()),
        TomlValue::Array(values) => Value::List(
            values
                .iter()
                .map(|toml| {
                    let place = place_of(toml.span().unwrap_or_default());
                    let value = value_of(toml, place_of);
                    Node { key_place: place.clone(), place, value }
                })
                .collect(),
        ),
        TomlValue::InlineTable(toml) => Value::Table(table(toml, place_of)),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Byte offsets to lines and columns.
struct Places<'a> {
    text: &'a [u8],
    lines: Vec<usize>,
    /// Characters before each block of [`BLOCK`] bytes, so that a text of one long line with many
    /// values is not counted from its start for each of them.
    before: Vec<usize>,
}

/// Bytes between two counts of characters.
const BLOCK: usize = 1024;

impl<'a> Places<'a> {
    fn of(text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        let text = text.as_bytes();
        let mut before = vec![0];
        for block in text.chunks(BLOCK) {
            before.push(before[before.len() - 1] + characters(block));
        }
        Self { text, lines, before }
    }

    fn at(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let column = self.characters_before(offset) - self.characters_before(self.lines[line - 1]);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Place::File { line: number(line), column: number(column + 1) }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        self.before[block] + characters(&self.text[block * BLOCK..offset])
    }
}

fn characters(utf8: &[u8]) -> usize {
    utf8.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let places = Places::of("α = 1\nβγ = 2");
        assert_eq!(places.at("α = ".len()), Place::File { line: 1, column: 5 });
        assert_eq!(places.at("α = 1\nβγ".len()), Place::File { line: 2, column: 3 });
    }

    #[test]
    fn a_bare_word_is_a_string_and_toml_is_toml() {
        let read = |set| read_set(set, &Place::Whole).map(|(_, node)| node.describe());
        assert_eq!(read("a.b=cosine").as_deref(), Some("\"cosine\""));
        assert_eq!(read("a=1e-5").as_deref(), Some("1e-5"));
        assert_eq!(read("a=[1, 2]").as_deref(), Some("[1, 2]"));
        assert_eq!(read("a=models/x=y").as_deref(), Some("\"models/x=y\""));
        assert_eq!(read("a"), None);
    }
}
