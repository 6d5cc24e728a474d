//! One table of the recipe, read key by key; what nobody took is unknown.
//!
//! In: a [`Table`] of the tree. Out: typed values with their places. The macro [`section!`] makes a
//! struct, its reader and its part of the reference from one list, so a new key is one line.
//! Never: decides what a missing key means, beyond the default written in that line.

use crate::problem::{Place, ProblemKind, Problems, nearest};
use crate::recipe::At;
use crate::tree::{Node, Table, Value};

/// What values a key accepts. The words serve the reference and every error.
pub(crate) struct Rule<T: 'static> {
    pub(crate) words: &'static str,
    pub(crate) holds: fn(&T) -> bool,
}

/// A key as the reference shows it.
pub(crate) struct Key {
    /// Its section, empty at the top level.
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    pub(crate) words: &'static str,
    /// The default as TOML, or in words where it depends on something else.
    pub(crate) default: fn() -> Default,
    pub(crate) meaning: &'static str,
}

impl Key {
    /// The name with its section.
    pub(crate) fn path(&self) -> String {
        if self.section.is_empty() {
            return self.name.to_owned();
        }
        format!("{}.{}", self.section, self.name)
    }
}

/// What holds where a key is absent.
pub(crate) enum Default {
    /// This value, as TOML.
    Value(String),
    /// This, in words, and a TOML value that shows the key in use.
    Words {
        words: &'static str,
        #[cfg_attr(not(test), expect(dead_code, reason = "read by the tests of the reference"))]
        example: &'static str,
    },
}

/// A type that a key can have.
pub(crate) trait Read: Sized {
    /// The value, or `None` after saying what is wrong.
    fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self>;

    /// The value as TOML.
    fn show(&self) -> String;
}

/// The key that is read, and what it accepts.
pub(crate) struct Wanted<'a> {
    pub(crate) key: &'a str,
    pub(crate) words: &'a str,
}

impl Wanted<'_> {
    pub(crate) fn refuse(&self, node: &Node, nearest: Option<String>, problems: &mut Problems) {
        let (key, expected) = (self.key.to_owned(), self.words.to_owned());
        let kind = ProblemKind::WrongValue { key, found: node.describe(), expected, nearest };
        problems.push(node.place.clone(), kind);
    }
}

/// A key's name, without the mark of a word that Rust keeps for itself.
pub(crate) const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// A table that is being read.
pub(crate) struct Section<'a> {
    /// Its name with a final dot; empty at the top level.
    prefix: String,
    table: Table,
    problems: &'a mut Problems,
}

impl<'a> Section<'a> {
    pub(crate) fn new(path: &str, table: Table, problems: &'a mut Problems) -> Self {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
        Self { prefix, table, problems }
    }

    /// The value of `name`, where it is written and right.
    pub(crate) fn take<T: Read>(&mut self, name: &str, rule: &Rule<T>) -> Option<At<T>> {
        let node = self.table.remove(name)?;
        let key = format!("{}{name}", self.prefix);
        let wanted = Wanted { key: &key, words: rule.words };
        let (place, copy) = (node.key_place.clone(), node.clone());
        let value = T::read(node, &wanted, self.problems)?;
        if !(rule.holds)(&value) {
            wanted.refuse(&copy, None, self.problems);
            return None;
        }
        Some(At { value, place })
    }

    /// The table called `name`, and where it begins.
    pub(crate) fn table(&mut self, name: &str) -> Option<(Place, Table)> {
        let node = self.table.remove(name)?;
        match node.value {
            Value::Table(table) => Some((node.key_place, table)),
            _ => {
                let wanted = Wanted { key: name, words: "a table" };
                wanted.refuse(&node, None, self.problems);
                None
            }
        }
    }

    /// The table called `name`, or each of a list of tables: what its keys begin with, where it
    /// begins, and the table.
    pub(crate) fn tables(&mut self, name: &str) -> Vec<(String, Place, Table)> {
        let Some(node) = self.table.remove(name) else { return Vec::new() };
        let wanted = Wanted { key: name, words: "a table, or a list of tables" };
        match node.value {
            Value::Table(table) => vec![(name.to_owned(), node.key_place, table)],
            Value::List(ref nodes) if !nodes.is_empty() => {
                let read = |(at, node): (usize, &Node)| match &node.value {
                    Value::Table(table) => {
                        Some((numbered(name, at), node.key_place.clone(), table.clone()))
                    }
                    _ => {
                        wanted.refuse(node, None, self.problems);
                        None
                    }
                };
                nodes.iter().enumerate().filter_map(read).collect()
            }
            _ => {
                wanted.refuse(&node, None, self.problems);
                Vec::new()
            }
        }
    }

    /// Calls every key that is left unknown. `known` are the names of this table, `everywhere`
    /// those of all tables with their section.
    pub(crate) fn finish(self, known: &[&str], everywhere: &[&Key]) {
        let tables: &[&str] = if self.prefix.is_empty() { &crate::recipe::TABLES } else { &[] };
        let known = [known, tables].concat();
        for (name, node) in self.table {
            let key = format!("{}{name}", self.prefix);
            let nearest = meant(&name, &known, everywhere);
            self.problems.push(node.key_place, ProblemKind::UnknownKey { key, nearest });
        }
    }
}

/// How the keys of table number `at` of a list begin: `teacher.1`.
pub(crate) fn numbered(name: &str, at: usize) -> String {
    format!("{name}.{at}")
}

/// The key that `written` was perhaps meant to be: the same name or its other name, here or in
/// another table, before a name that is only similar.
fn meant(written: &str, known: &[&str], everywhere: &[&Key]) -> Option<String> {
    let other_name = OTHER_NAMES.iter().find(|(theirs, _)| *theirs == written);
    let name = other_name.map_or(written, |(_, ours)| ours);
    let path_of = |name: &str| everywhere.iter().find(|key| key.name == name).map(|key| key.path());
    if known.contains(&name) {
        return Some(name.to_owned());
    }
    path_of(name)
        .or_else(|| nearest(written, known.iter().copied()))
        .or_else(|| path_of(&nearest(written, everywhere.iter().map(|key| key.name))?))
}

/// Names that other trainers use for our keys, where likeness alone would not find them.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("num_train_epochs", "epochs"),
    ("steps", "max_steps"),
    ("lr", "learning_rate"),
    ("lr_scheduler", "lr_scheduler_type"),
    ("warmup", "warmup_ratio"),
    ("per_device_train_batch_size", "micro_batch_size"),
    ("load_best_model_at_end", "metric_for_best"),
    ("bf16", "precision"),
    ("fp16", "precision"),
    ("dropout", "hidden_dropout_prob"),
    ("model_name_or_path", "model"),
    ("output_dir", "dir"),
    ("tau", "temperature"),
    ("lambda", "alpha"),
];

/// A struct for one table, its reader, and its part of the reference, from one list of lines:
///
/// `key: type = default, RULE, "meaning";` or, where the default depends on something else,
/// `key: type, RULE, absent "what then holds" as "an example", "meaning";`
macro_rules! section {
    (
        $(#[$doc:meta])*
        $name:ident at $path:literal {
            $($key:ident: $type:ty $(= $value:expr)?, $rule:expr,
              $(absent $words:literal as $example:literal,)? $meaning:literal;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            /// Where the table begins; `None` where it is not written.
            pub place: Option<$crate::problem::Place>,
            $(#[doc = $meaning] pub $key: Option<$crate::recipe::At<$type>>,)*
        }

        impl $name {
            pub(crate) const KEYS: &'static [$crate::section::Key] = &[$({
                const RULE: $crate::section::Rule<$type> = $rule;
                $crate::section::Key {
                    section: $path,
                    name: $crate::section::plain(stringify!($key)),
                    words: RULE.words,
                    default: || {
                        $(return $crate::section::Default::Value(
                            $crate::section::Read::show(&{ let value: $type = $value; value })
                        );)?
                        $(return $crate::section::Default::Words {
                            words: $words, example: $example
                        };)?
                    },
                    meaning: $meaning,
                }
            }),*];

            pub(crate) fn read(
                place: Option<$crate::problem::Place>,
                mut section: $crate::section::Section<'_>,
            ) -> Self {
                let read = Self {
                    place,
                    $($key: section.take($crate::section::plain(stringify!($key)), &$rule),)*
                };
                section.finish(&[$($crate::section::plain(stringify!($key))),*], &$crate::recipe::keys());
                read
            }

            $($(
                #[doc = $meaning]
                ///
                /// The value as written, or the default.
                pub fn $key(&self) -> $type {
                    self.$key.as_ref().map_or_else(|| $value, |at| at.value.clone())
                }
            )?)*
        }
    };
}

/// An enum of names that a key can have.
macro_rules! choice {
    (
        $(#[$doc:meta])*
        $name:ident {
            $(#[$first_doc:meta])* $first:ident = $first_name:literal,
            $($(#[$variant_doc:meta])* $variant:ident = $variant_name:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(#[$first_doc])* #[serde(rename = $first_name)] $first,
            $($(#[$variant_doc])* #[serde(rename = $variant_name)] $variant,)*
        }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [Self] = &[Self::$first, $(Self::$variant),*];

            pub(crate) const ONE: $crate::section::Rule<Self> = $crate::section::Rule {
                words: concat!("`", $first_name, "`" $(, ", `", $variant_name, "`")*),
                holds: |_| true,
            };

            /// The name in a recipe.
            pub fn name(self) -> &'static str {
                match self {
                    Self::$first => $first_name,
                    $(Self::$variant => $variant_name,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl $crate::section::Read for $name {
            fn read(
                node: $crate::tree::Node,
                wanted: &$crate::section::Wanted<'_>,
                problems: &mut $crate::problem::Problems,
            ) -> Option<Self> {
                $crate::section::read_name(node, Self::ALL, Self::name, wanted, problems)
            }

            fn show(&self) -> String {
                format!("\"{}\"", self.name())
            }
        }
    };
}

pub(crate) use {choice, section};

/// The variant whose name the node holds.
pub(crate) fn read_name<T: Copy>(
    node: Node,
    all: &[T],
    name: impl Fn(T) -> &'static str,
    wanted: &Wanted<'_>,
    problems: &mut Problems,
) -> Option<T> {
    let Value::String(written) = &node.value else {
        wanted.refuse(&node, None, problems);
        return None;
    };
    let found = all.iter().find(|variant| name(**variant) == written);
    if found.is_none() {
        let words = format!("one of {}", wanted.words);
        let wanted = Wanted { key: wanted.key, words: &words };
        wanted.refuse(&node, nearest(written, all.iter().map(|v| name(*v))), problems);
    }
    found.copied()
}

impl Read for bool {
    fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self> {
        if let Value::Boolean(truth) = node.value {
            return Some(truth);
        }
        wanted.refuse(&node, None, problems);
        None
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Read for u64 {
    fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Integer(number) if number >= 0 => return Some(number.unsigned_abs()),
            _ => wanted.refuse(&node, None, problems),
        }
        None
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Read for f64 {
    fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Float(number) => return Some(number),
            // Whole numbers below 2⁵³ are exact; larger ones are out of every rule's range.
            Value::Integer(number) => return Some(number as f64),
            _ => wanted.refuse(&node, None, problems),
        }
        None
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Read for String {
    fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::String(text) => return Some(text),
            _ => wanted.refuse(&node, None, problems),
        }
        None
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self> {
        let Value::List(nodes) = node.value else {
            wanted.refuse(&node, None, problems);
            return None;
        };
        let words = format!("an element of {}", wanted.words);
        // Each element is read, so that all wrong ones are named.
        let values: Vec<Option<T>> = nodes
            .into_iter()
            .enumerate()
            .map(|(index, node)| {
                let key = format!("{}.{index}", wanted.key);
                T::read(node, &Wanted { key: &key, words: &words }, problems)
            })
            .collect();
        values.into_iter().collect()
    }

    fn show(&self) -> String {
        let values: Vec<String> = self.iter().map(Read::show).collect();
        format!("[{}]", values.join(", "))
    }
}
