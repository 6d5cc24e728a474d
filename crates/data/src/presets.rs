//! The tasks of GLUE as rows of a table: where their files are and what the columns mean.
//!
//! In: the name of a task and a folder. Out: the files of each split and how to read them.
//! Never: a guess from the contents of a file.
//!
//! Layouts: the TSV files that gluebenchmark.com gives out, the Parquet files of `nyu-mll/glue` on
//! the Hub, and for STS-B the files of stsbenchmark. The order of the classes is the Hub's.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, reading};
use crate::label::Labels;
use crate::source::{Column, SourceSpec};

/// A known data set.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// Its name, as the Hub spells it.
    pub name: &'static str,
    /// What is reported for it.
    pub metric: Metric,
    /// Names of its classes; none for scores.
    pub classes: &'static [&'static str],
    /// Its folder in the official archive.
    folder: &'static str,
    layouts: &'static [Layout],
}

/// What is reported for a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Matthews' correlation.
    Matthews,
    /// Accuracy.
    Accuracy,
    /// Accuracy, and F1 of class 1.
    AccuracyAndF1,
    /// Pearson's and Spearman's correlation.
    PearsonSpearman,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For training.
    Train,
    /// For reporting.
    Validation,
    /// MNLI's second one, of other genres.
    ValidationMismatched,
    /// For submission; GLUE keeps its labels secret.
    Test,
    /// MNLI's second one, of other genres.
    TestMismatched,
}

/// The files of a split, and how to read them.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundSplit {
    /// The split.
    pub split: Split,
    /// Its files, in order.
    pub files: Vec<PathBuf>,
    /// How rows lie in them.
    pub spec: SourceSpec,
}

/// A data set that was found in a folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The preset.
    pub preset: &'static Preset,
    /// The splits that exist.
    pub splits: Vec<FoundSplit>,
}

impl Preset {
    /// All presets.
    pub fn all() -> &'static [Preset] {
        PRESETS
    }

    /// The preset of a name.
    pub fn named(name: &str) -> Result<&'static Self, Error> {
        PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| Error::NoPreset {
            name: name.to_owned(),
            known: PRESETS.iter().map(|preset| preset.name.to_owned()).collect(),
        })
    }

    /// The labels.
    pub fn labels(&self) -> Labels {
        if self.classes.is_empty() {
            Labels::score()
        } else {
            Labels::classes(self.classes.iter().copied())
        }
    }

    /// Finds the data set in `folder`, in `folder/SST-2` or in `folder/sst2`: the layout of which
    /// most splits exist.
    pub fn find(&'static self, folder: &Path) -> Result<Found, Error> {
        let mut best: Vec<FoundSplit> = Vec::new();
        for place in ["", self.folder, self.name, "data"] {
            let place = if place.is_empty() { folder.to_owned() } else { folder.join(place) };
            if !place.is_dir() {
                continue;
            }
            let names = names_in(&place)?;
            for layout in self.layouts {
                let splits: Vec<FoundSplit> = layout
                    .files
                    .iter()
                    .filter_map(|file| layout.find(file, &place, &names))
                    .collect();
                if splits.len() > best.len() {
                    best = splits;
                }
            }
        }
        if best.is_empty() {
            let files = self.layouts.iter().flat_map(|layout| layout.files);
            return Err(Error::NoLayout {
                folder: folder.to_owned(),
                preset: self.name,
                looked_for: files.map(|file| file.pattern.to_owned()).collect(),
            });
        }
        Ok(Found { preset: self, splits: best })
    }
}

impl Found {
    /// The files of a split.
    pub fn split(&self, split: Split) -> Option<&FoundSplit> {
        self.splits.iter().find(|found| found.split == split)
    }
}

/// One way in which the files of a data set lie in a folder.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    kind: Kind,
    text: At,
    pair: Option<At>,
    label: At,
    files: &'static [File],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// TSV with a header, except where a file says otherwise.
    Tsv,
    /// TSV without a header, whose rows may have more columns than are used.
    Headerless,
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Name(&'static str),
    Index(usize),
}

#[derive(Debug, PartialEq, Eq)]
struct File {
    split: Split,
    /// A file name in which one `*` stands for the number of a shard.
    pattern: &'static str,
    labels: Given,
}

/// Whether a file has labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Yes,
    No,
    /// None, and unlike the others a header that calls the text so.
    NoAndHeader(&'static str),
}

impl Layout {
    fn find(&self, file: &File, folder: &Path, names: &[String]) -> Option<FoundSplit> {
        let files: Vec<PathBuf> = names
            .iter()
            .filter(|name| matches(file.pattern, name))
            .map(|name| folder.join(name))
            .collect();
        let found = FoundSplit { split: file.split, files, spec: self.spec(file) };
        (!found.files.is_empty()).then_some(found)
    }

    fn spec(&self, file: &File) -> SourceSpec {
        let kind = self.kind;
        let mut spec = match (kind, file.labels) {
            (Kind::Parquet, _) => SourceSpec::parquet(self.text.column()),
            (Kind::Headerless, Given::NoAndHeader(text)) => SourceSpec::tsv(text),
            (Kind::Headerless, _) => {
                let spec = SourceSpec::tsv(self.text.column()).headerless();
                SourceSpec { extra_columns: true, ..spec }
            }
            (Kind::Tsv, _) => SourceSpec::tsv(self.text.column()),
        };
        spec.pair = self.pair.map(At::column);
        spec.label = (file.labels == Given::Yes).then(|| self.label.column());
        spec
    }
}

impl At {
    fn column(self) -> Column {
        match self {
            Self::Name(name) => name.into(),
            Self::Index(index) => index.into(),
        }
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(folder).map_err(reading(folder))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(reading(folder))?.file_name();
        names.extend(name.into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            // What the star stands for begins with the number of a shard.
            .is_some_and(|middle| middle.starts_with(|char: char| char.is_ascii_digit())),
    }
}

const fn file(split: Split, pattern: &'static str, labels: Given) -> File {
    File { split, pattern, labels }
}

const TSV: &[File] = &[
    file(Split::Train, "train.tsv", Given::Yes),
    file(Split::Validation, "dev.tsv", Given::Yes),
    file(Split::Test, "test.tsv", Given::No),
];

/// The Hub says −1 for a label that is secret.
const PARQUET: &[File] = &[
    file(Split::Train, "train-*.parquet", Given::Yes),
    file(Split::Validation, "validation-*.parquet", Given::Yes),
    file(Split::Test, "test-*.parquet", Given::No),
];

const fn single(
    kind: Kind,
    text: &'static str,
    label: &'static str,
    files: &'static [File],
) -> Layout {
    Layout { kind, text: At::Name(text), pair: None, label: At::Name(label), files }
}

const fn double(
    kind: Kind,
    texts: [&'static str; 2],
    label: &'static str,
    files: &'static [File],
) -> Layout {
    let [text, pair] = [At::Name(texts[0]), At::Name(texts[1])];
    Layout { kind, text, pair: Some(pair), label: At::Name(label), files }
}

const SENTENCES: [&str; 2] = ["sentence1", "sentence2"];
const QUESTIONS: [&str; 2] = ["question1", "question2"];
const INFERENCE: &[&str] = &["entailment", "not_entailment"];

const PRESETS: &[Preset] = &[
    Preset {
        name: "cola",
        metric: Metric::Matthews,
        classes: &["unacceptable", "acceptable"],
        folder: "CoLA",
        layouts: &[
            Layout {
                kind: Kind::Headerless,
                text: At::Index(3),
                pair: None,
                label: At::Index(1),
                files: &[
                    file(Split::Train, "train.tsv", Given::Yes),
                    file(Split::Validation, "dev.tsv", Given::Yes),
                    file(Split::Test, "test.tsv", Given::NoAndHeader("sentence")),
                ],
            },
            single(Kind::Parquet, "sentence", "label", PARQUET),
        ],
    },
    Preset {
        name: "sst2",
        metric: Metric::Accuracy,
        classes: &["negative", "positive"],
        folder: "SST-2",
        layouts: &[
            single(Kind::Tsv, "sentence", "label", TSV),
            single(Kind::Parquet, "sentence", "label", PARQUET),
        ],
    },
    Preset {
        name: "mrpc",
        metric: Metric::AccuracyAndF1,
        classes: &["not_equivalent", "equivalent"],
        folder: "MRPC",
        layouts: &[
            double(Kind::Tsv, ["#1 String", "#2 String"], "Quality", TSV),
            double(Kind::Parquet, SENTENCES, "label", PARQUET),
        ],
    },
    Preset {
        name: "stsb",
        metric: Metric::PearsonSpearman,
        classes: &[],
        folder: "STS-B",
        layouts: &[
            double(Kind::Tsv, SENTENCES, "score", TSV),
            Layout {
                kind: Kind::Headerless,
                text: At::Index(5),
                pair: Some(At::Index(6)),
                label: At::Index(4),
                files: &[
                    file(Split::Train, "sts-train.csv", Given::Yes),
                    file(Split::Validation, "sts-dev.csv", Given::Yes),
                    file(Split::Test, "sts-test.csv", Given::Yes),
                ],
            },
            double(Kind::Parquet, SENTENCES, "label", PARQUET),
        ],
    },
    Preset {
        name: "qqp",
        metric: Metric::AccuracyAndF1,
        classes: &["not_duplicate", "duplicate"],
        folder: "QQP",
        layouts: &[
            double(Kind::Tsv, QUESTIONS, "is_duplicate", TSV),
            double(Kind::Parquet, QUESTIONS, "label", PARQUET),
        ],
    },
    Preset {
        name: "mnli",
        metric: Metric::Accuracy,
        classes: &["entailment", "neutral", "contradiction"],
        folder: "MNLI",
        layouts: &[
            double(
                Kind::Tsv,
                SENTENCES,
                "gold_label",
                &[
                    file(Split::Train, "train.tsv", Given::Yes),
                    file(Split::Validation, "dev_matched.tsv", Given::Yes),
                    file(Split::ValidationMismatched, "dev_mismatched.tsv", Given::Yes),
                    file(Split::Test, "test_matched.tsv", Given::No),
                    file(Split::TestMismatched, "test_mismatched.tsv", Given::No),
                ],
            ),
            double(
                Kind::Parquet,
                ["premise", "hypothesis"],
                "label",
                &[
                    file(Split::Train, "train-*.parquet", Given::Yes),
                    file(Split::Validation, "validation_matched-*.parquet", Given::Yes),
                    file(
                        Split::ValidationMismatched,
                        "validation_mismatched-*.parquet",
                        Given::Yes,
                    ),
                    file(Split::Test, "test_matched-*.parquet", Given::No),
                    file(Split::TestMismatched, "test_mismatched-*.parquet", Given::No),
                ],
            ),
        ],
    },
    Preset {
        name: "qnli",
        metric: Metric::Accuracy,
        classes: INFERENCE,
        folder: "QNLI",
        layouts: &[
            double(Kind::Tsv, ["question", "sentence"], "label", TSV),
            double(Kind::Parquet, ["question", "sentence"], "label", PARQUET),
        ],
    },
    Preset {
        name: "rte",
        metric: Metric::Accuracy,
        classes: INFERENCE,
        folder: "RTE",
        layouts: &[
            double(Kind::Tsv, SENTENCES, "label", TSV),
            double(Kind::Parquet, SENTENCES, "label", PARQUET),
        ],
    },
    Preset {
        name: "wnli",
        metric: Metric::Accuracy,
        classes: &["not_entailment", "entailment"],
        folder: "WNLI",
        layouts: &[
            double(Kind::Tsv, SENTENCES, "label", TSV),
            double(Kind::Parquet, SENTENCES, "label", PARQUET),
        ],
    },
];
