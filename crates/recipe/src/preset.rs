//! The tasks of the GLUE benchmark (Wang et al. 2018, arXiv:1804.07461) as their archives lay them
//! out: files, columns, labels and metric.
//!
//! In: a name. Out: what `[task]` would have to say. Never: looks at the files.

use crate::choices::{Column, Metric, TaskKind};
use crate::section::choice;

choice! {
    /// A GLUE task.
    Preset {
        /// Corpus of Linguistic Acceptability.
        Cola = "cola",
        /// Stanford Sentiment Treebank, two classes.
        Sst2 = "sst2",
        /// Microsoft Research Paraphrase Corpus.
        Mrpc = "mrpc",
        /// Semantic Textual Similarity Benchmark.
        Stsb = "stsb",
        /// Quora Question Pairs.
        Qqp = "qqp",
        /// Multi-Genre Natural Language Inference.
        Mnli = "mnli",
        /// Question Natural Language Inference.
        Qnli = "qnli",
        /// Recognizing Textual Entailment.
        Rte = "rte",
        /// Winograd Natural Language Inference.
        Wnli = "wnli",
    }
}

/// What a preset says about `[task]`.
pub(crate) struct Known {
    pub(crate) kind: TaskKind,
    pub(crate) validation: &'static str,
    /// A second validation file, reported beside the first.
    pub(crate) mismatched: Option<&'static str>,
    pub(crate) header: bool,
    pub(crate) text: Column,
    pub(crate) text_pair: Option<Column>,
    pub(crate) label: Column,
    pub(crate) labels: &'static [&'static str],
    pub(crate) metric: Metric,
}

impl Preset {
    pub(crate) fn known(self) -> Known {
        let one = |text, labels, metric| Known {
            kind: TaskKind::Classification,
            validation: "dev.tsv",
            mismatched: None,
            header: true,
            text: name(text),
            text_pair: None,
            label: name("label"),
            labels,
            metric,
        };
        let two = |text, pair, labels, metric| Known {
            text_pair: Some(name(pair)),
            ..one(text, labels, metric)
        };
        const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];
        const BINARY: &[&str] = &["0", "1"];
        match self {
            Self::Cola => Known {
                header: false,
                text: Column::Number(3),
                label: Column::Number(1),
                ..one("", BINARY, Metric::Matthews)
            },
            Self::Sst2 => one("sentence", BINARY, Metric::Accuracy),
            Self::Mrpc => Known {
                label: name("Quality"),
                ..two("#1 String", "#2 String", BINARY, Metric::AccuracyAndF1)
            },
            Self::Stsb => Known {
                kind: TaskKind::Regression,
                label: name("score"),
                ..two("sentence1", "sentence2", &[], Metric::PearsonSpearman)
            },
            Self::Qqp => Known {
                label: name("is_duplicate"),
                ..two("question1", "question2", BINARY, Metric::AccuracyAndF1)
            },
            Self::Mnli => Known {
                validation: "dev_matched.tsv",
                mismatched: Some("dev_mismatched.tsv"),
                label: name("gold_label"),
                ..two(
                    "sentence1",
                    "sentence2",
                    &["entailment", "neutral", "contradiction"],
                    Metric::Accuracy,
                )
            },
            Self::Qnli => two("question", "sentence", ENTAILMENT, Metric::Accuracy),
            Self::Rte => two("sentence1", "sentence2", ENTAILMENT, Metric::Accuracy),
            Self::Wnli => two("sentence1", "sentence2", BINARY, Metric::Accuracy),
        }
    }
}

fn name(name: &str) -> Column {
    Column::Name(name.to_owned())
}
