//! What the user wrote, key by key. Anything may be missing; nothing is trusted beyond its own type
//! and range.
//!
//! In: the lists below, which are the schema: a new key is a new line. Out: [`Recipe`], and the
//! reference for users ([`reference`]). Never: compares one key with another; that is `decide.rs`.

use crate::problem::{Place, Problems};
use crate::section::{Default, Key, Read, Rule, Section, Wanted, choice, section};
use crate::tree::{Node, Value};

/// A value and where its key was written.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// The place of its key.
    pub place: Place,
}

/// A recipe as it was written. Only [`parse`](crate::parse) makes one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Recipe {
    /// The file it came from, for messages.
    pub file: String,
    /// The keys above the first table.
    pub top: Top,
    /// `[task]`
    pub task: Task,
    /// `[tokenizer]`
    pub tokenizer: Tokenizer,
    /// `[student]`
    pub student: Student,
    /// `[teacher]`
    pub teacher: Teacher,
    /// `[objective]`
    pub objective: Objective,
    /// `[training]`
    pub training: Training,
    /// `[output]`
    pub output: Output,
}

/// The newest version of recipes that is read here.
pub(crate) const NEWEST_VERSION: u64 = 1;

/// The tables of a recipe.
pub(crate) const TABLES: [&str; 7] =
    ["task", "tokenizer", "student", "teacher", "objective", "training", "output"];

/// Every key of every table, in the order of the reference.
pub(crate) fn keys() -> Vec<&'static Key> {
    let sections = [
        Top::KEYS,
        Task::KEYS,
        Tokenizer::KEYS,
        Student::KEYS,
        StudentConfig::KEYS,
        Teacher::KEYS,
        Objective::KEYS,
        Hidden::KEYS,
        Training::KEYS,
        Output::KEYS,
    ];
    sections.into_iter().flatten().collect()
}

/// The reference of all keys, a Markdown table for each section.
pub fn reference() -> String {
    let mut text = String::new();
    let mut section = None;
    for key in keys() {
        if section != Some(key.section) {
            let title = match key.section {
                "" => "Top level".to_owned(),
                "objective.hidden" => "`[[objective.hidden]]`".to_owned(),
                name => format!("`[{name}]`"),
            };
            let gap = if section.is_some() { "\n" } else { "" };
            text += &format!(
                "{gap}## {title}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
            );
            section = Some(key.section);
        }
        let default = match (key.default)() {
            Default::Value(value) => format!("`{value}`"),
            Default::Words { words, .. } => words.to_owned(),
        };
        let row = [&format!("`{}`", key.name), key.words, &default, key.meaning];
        text += &format!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text
}

const fn any<T>(words: &'static str) -> Rule<T> {
    Rule { words, holds: |_| true }
}

const BOOL: Rule<bool> = any("`true` or `false`");
const TEXT: Rule<String> = Rule { words: "a text", holds: |text| !text.is_empty() };
const FILE_NAME: Rule<String> = Rule {
    words: "a name without `/`",
    holds: |name| !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']),
};
const PATH: Rule<String> = Rule {
    words: "a path, in which `~` is not expanded",
    holds: |path| !path.is_empty() && !path.starts_with('~') && !path.contains('\0'),
};
const COUNT: Rule<u64> =
    Rule { words: "a whole number from 1 to 4294967295", holds: |n| in_u32(*n) && *n >= 1 };
const COUNT_OR_ZERO: Rule<u64> =
    Rule { words: "a whole number from 0 to 4294967295", holds: |n| in_u32(*n) };
const SEED: Rule<u64> = any("a whole number from 0");
const POSITIVE: Rule<f64> =
    Rule { words: "a number above 0", holds: |x| x.is_finite() && *x > 0.0 };
const NOT_NEGATIVE: Rule<f64> =
    Rule { words: "a number from 0", holds: |x| x.is_finite() && *x >= 0.0 };
const SHARE: Rule<f64> = Rule { words: "a number from 0 to 1", holds: |x| (0.0..=1.0).contains(x) };
const BELOW_ONE: Rule<f64> =
    Rule { words: "a number from 0 to below 1", holds: |x| (0.0..1.0).contains(x) };
const PART: Rule<f64> =
    Rule { words: "a number above 0 and below 1", holds: |x| *x > 0.0 && *x < 1.0 };
const RATE: Rule<f64> =
    Rule { words: "a number above 0 and at most 1", holds: |x| *x > 0.0 && *x <= 1.0 };
const LENGTH: Rule<u64> =
    Rule { words: "a whole number from 2 to 8192", holds: |n| (2..=8192).contains(n) };
const WIDTH: Rule<u64> =
    Rule { words: "a whole number from 1 to 65536", holds: |n| (1..=65536).contains(n) };
const DEPTH: Rule<u64> =
    Rule { words: "a whole number from 1 to 1024", holds: |n| (1..=1024).contains(n) };
const COLUMN: Rule<Column> = any("a column's name, or its number from 0");
const LABELS: Rule<Vec<String>> = Rule {
    words: "a list of at least two different label names",
    holds: |names| names.len() >= 2 && distinct(names),
};
const LAYERS: Rule<Vec<u64>> = Rule {
    words: "a list of layer numbers from 0, each above the one before",
    holds: |layers| !layers.is_empty() && layers.is_sorted_by(|a, b| a < b),
};
const PAIRS: Rule<Vec<Vec<u64>>> = Rule {
    words: "a list of [student layer, teacher layer] pairs",
    holds: |pairs| !pairs.is_empty() && pairs.iter().all(|pair| pair.len() == 2) && distinct(pairs),
};
const SEEDS: Rule<Vec<u64>> = Rule {
    words: "a list of different whole numbers from 0",
    holds: |seeds| !seeds.is_empty() && distinct(seeds),
};
const CONFIG: Rule<StudentConfig> = any("a table such as { model_type = \"bert\", … }");
const HIDDEN: Rule<Vec<Hidden>> = any("a list of tables, each under [[objective.hidden]]");

fn in_u32(number: u64) -> bool {
    u32::try_from(number).is_ok()
}

fn distinct<T: Ord>(values: &[T]) -> bool {
    let set: std::collections::BTreeSet<&T> = values.iter().collect();
    set.len() == values.len()
}

section! {
    /// The keys above the first table.
    Top at "" {
        name: String, FILE_NAME, absent "the recipe's file name without `.toml`" as "\"sst2-small\"",
            "Name of the run, also in its folder.";
        recipe_version: u64 = NEWEST_VERSION, COUNT,
            "Version of this format.";
    }
}

section! {
    /// `[task]`: the data, and what is predicted from it.
    Task at "task" {
        preset: crate::preset::Preset, crate::preset::Preset::ONE, absent "none" as "\"sst2\"",
            "A GLUE task whose files, columns, labels and metric are known; any other key of this table overrides it.";
        kind: TaskKind, TaskKind::ONE, absent "the preset's" as "\"classification\"",
            "What is predicted: one label, any number of labels, or a number.";
        path: String, PATH, absent "required" as "\"data/SST-2\"",
            "Folder with the files below.";
        train: String, TEXT, absent "the preset's" as "\"train.tsv\"",
            "File to train on, in `path`.";
        validation: String, TEXT, absent "the preset's; none is needed with `validation_split`" as "\"dev.tsv\"",
            "File to evaluate on, in `path`.";
        test: String, TEXT, absent "none" as "\"test.tsv\"",
            "File to evaluate on once, after training, in `path`.";
        format: Format, Format::ONE, absent "by the file's extension" as "\"tsv\"",
            "Format of the files.";
        text: Column, COLUMN, absent "the preset's" as "\"sentence\"",
            "Column with the text, or the first of two texts.";
        text_pair: Column, COLUMN, absent "the preset's, or none" as "\"sentence2\"",
            "Column with the second text.";
        label: Column, COLUMN, absent "the preset's" as "\"label\"",
            "Column with the label.";
        header: bool, BOOL, absent "the preset's, or `true`" as "true",
            "Whether the first line names the columns (tsv, csv).";
        quoting: bool, BOOL, absent "`true` for csv, `false` for tsv" as "false",
            "Whether \" quotes a field (tsv, csv).";
        encoding: Encoding = Encoding::Utf8, Encoding::ONE,
            "Encoding of the files.";
        labels: Vec<String>, LABELS, absent "the preset's, or the sorted distinct values of the training file" as "[\"no\", \"yes\"]",
            "Label names, in the order of the model's outputs.";
        metric: Metric, Metric::ONE, absent "the preset's, or accuracy, f1_micro, pearson_spearman by `kind`" as "\"accuracy\"",
            "What evaluation measures.";
        max_length: u64 = 128, LENGTH,
            "Longest input in tokens; longer texts are cut.";
        on_bad_line: OnBadLine = OnBadLine::Error, OnBadLine::ONE,
            "What to do with a line that cannot be read.";
        bad_line_limit: u64 = 100, COUNT_OR_ZERO,
            "Most lines that `on_bad_line = \"skip\"` skips, per file.";
        validation_split: f64, PART, absent "nothing is held out" as "0.1",
            "Share of the training file held out to steer choices.";
        evaluate_on: EvaluateOn = EvaluateOn::Validation, EvaluateOn::ONE,
            "What choices during training look at: the validation file, or the held-out split.";
        train_limit: u64, COUNT, absent "all" as "1000",
            "Train on this many examples only, the first after the shuffle.";
        validation_limit: u64, COUNT, absent "all" as "1000",
            "Evaluate on this many examples only, the first after the shuffle.";
        allow_overlap: bool = false, BOOL,
            "Whether examples may be in both training and validation files.";
    }
}

section! {
    /// `[tokenizer]`: how text becomes tokens.
    Tokenizer at "tokenizer" {
        path: String, PATH, absent "the student's folder, else the teacher's" as "\"models/bert-base-uncased\"",
            "Folder or file: `tokenizer.json` or `vocab.txt`.";
        lowercase: bool = true, BOOL,
            "Whether text is lowercased; for `vocab.txt` only.";
    }
}

section! {
    /// `[student]`: the model that learns. Exactly one of `model`, `config`, `from_teacher`.
    Student at "student" {
        model: String, PATH, absent "none" as "\"models/distilbert\"",
            "Folder of a pretrained model to start from.";
        config: StudentConfig, CONFIG, absent "none" as "{ model_type = \"bert\", hidden_size = 8, num_hidden_layers = 2, num_attention_heads = 2 }",
            "Shape of a model to start from random weights.";
        from_teacher: bool, Rule { words: "`true`", holds: |yes| *yes }, absent "no" as "true",
            "Start from a copy of the teacher's weights.";
        layers: Vec<u64>, LAYERS, absent "all" as "[0, 2, 4]",
            "Layers of the source that the student keeps, counted from 0.";
        hidden_dropout_prob: f64, BELOW_ONE, absent "the model's" as "0.1",
            "Probability of dropout on hidden states.";
        attention_probs_dropout_prob: f64, BELOW_ONE, absent "the model's" as "0.1",
            "Probability of dropout on attention.";
        classifier_dropout: f64, BELOW_ONE, absent "the model's" as "0.1",
            "Probability of dropout before the classifier.";
    }
}

section! {
    /// `student.config`: the shape of a model without weights, in the words of a `config.json`.
    StudentConfig at "student.config" {
        model_type: ModelType, ModelType::ONE, absent "required" as "\"bert\"",
            "Architecture.";
        hidden_size: u64, WIDTH, absent "required" as "384",
            "Width of the hidden states.";
        num_hidden_layers: u64, DEPTH, absent "required" as "6",
            "Layers.";
        num_attention_heads: u64, WIDTH, absent "required" as "12",
            "Attention heads; they divide `hidden_size`.";
        intermediate_size: u64, WIDTH, absent "4 times `hidden_size`" as "1536",
            "Width of the feed-forward layers.";
        hidden_act: Activation = Activation::Gelu, Activation::ONE,
            "Activation of the feed-forward layers.";
        max_position_embeddings: u64, WIDTH, absent "512; 514 for roberta" as "512",
            "Positions (roberta: two of them are never used).";
        type_vocab_size: u64, DEPTH, absent "2; 1 for roberta" as "2",
            "Segment types.";
        layer_norm_eps: f64, RATE, absent "1e-12; 1e-5 for roberta" as "1e-12",
            "Added to the variance in layer norms.";
        initializer_range: f64 = 0.02, RATE,
            "Standard deviation of fresh weights.";
    }
}

section! {
    /// `[teacher]`: the model learnt from. Without it the student learns from labels alone.
    Teacher at "teacher" {
        model: String, PATH, absent "required, where there is a [teacher]" as "\"models/bert-large-sst2\"",
            "Folder of a model fine-tuned on the task.";
        logits: Logits, Logits::ONE, absent "cache; live where `[[objective.hidden]]` needs the teacher" as "\"cache\"",
            "Compute the teacher's answers once and keep them, or at every step.";
        batch_tokens: u64 = 8192, COUNT,
            "Tokens the teacher reads at once.";
    }
}

section! {
    /// `[objective]`: what the student is trained to do.
    Objective at "objective" {
        alpha: f64, SHARE, absent "0.5 with a teacher, 0 without" as "0.5",
            "Weight of the teacher's term; the labels' term has 1 − alpha.";
        temperature: f64 = 2.0, POSITIVE,
            "Divides the logits of teacher and student in the teacher's term.";
        scale_by_temperature_squared: bool = true, BOOL,
            "Multiply the teacher's term by temperature², so that its gradient keeps its size.";
        label_loss: LabelLoss, LabelLoss::ONE, absent "cross_entropy, bce, mse by `task.kind`" as "\"cross_entropy\"",
            "Loss on the labels.";
        hidden: Vec<Hidden>, HIDDEN, absent "none" as "[{ kind = \"mse\" }]",
            "Terms that compare hidden states or attention, see below.";
    }
}

section! {
    /// `[[objective.hidden]]`: a term that compares what is inside teacher and student.
    Hidden at "objective.hidden" {
        kind: HiddenKind, HiddenKind::ONE, absent "required" as "\"mse\"",
            "How they are compared.";
        weight: f64 = 1.0, POSITIVE,
            "Weight of the term, added to the objective.";
        layers: Vec<Vec<u64>>, PAIRS, absent "every student layer with the teacher's at the same relative height; for attention_relation the last two" as "[[0, 0], [3, 6]]",
            "[student, teacher] pairs: 0 is the embeddings' output, i the output of layer i.";
        position: Position = Position::All, Position::ONE,
            "Which positions are compared; `first` is the classifier's token.";
        projection: bool, BOOL, absent "`true` where the widths differ" as "true",
            "Learn a linear map from the student's width to the teacher's.";
        relation: Relation, Relation::ONE, absent "value, for attention_relation" as "\"value\"",
            "Which vectors are related: query with query, key with key, value with value, or query with key.";
        relation_heads: u64, WIDTH, absent "the student's heads" as "12",
            "Heads that the vectors are cut into before relating; they divide both widths.";
    }
}

section! {
    /// `[training]`: how long, in what steps, and when to look.
    Training at "training" {
        epochs: f64, POSITIVE, absent "3, unless `max_steps` is set" as "3.0",
            "Passes over the training set; fractions are allowed.";
        max_steps: u64, COUNT, absent "by `epochs`" as "1000",
            "Optimiser steps.";
        batch_size: u64, COUNT, absent "32, unless `batch_tokens` is set" as "32",
            "Sequences per optimiser step; with `gradient_accumulation_steps`, per micro-batch.";
        batch_tokens: u64, COUNT, absent "by `batch_size`" as "4096",
            "Tokens per optimiser step, in place of a number of sequences.";
        micro_batch_size: u64, COUNT, absent "by `micro_batch_tokens`" as "8",
            "Sequences computed at once; changes memory, not the result.";
        micro_batch_tokens: u64, COUNT, absent "8192, unless `micro_batch_size` is set" as "8192",
            "Tokens computed at once; changes memory, not the result.";
        gradient_accumulation_steps: u64, COUNT, absent "follows from batch and micro-batch" as "4",
            "Micro-batches per optimiser step: the step then has this many times `batch_size` sequences.";
        learning_rate: f64 = 5e-5, RATE,
            "Highest learning rate of AdamW.";
        lr_scheduler_type: Schedule = Schedule::Linear, Schedule::ONE,
            "Course of the learning rate after the warm-up: down to 0 in a line or a half cosine, or level.";
        warmup_ratio: f64, SHARE, absent "0.1, unless `warmup_steps` is set" as "0.1",
            "Share of the steps in which the learning rate rises from 0.";
        warmup_steps: u64, COUNT_OR_ZERO, absent "by `warmup_ratio`" as "100",
            "Steps in which the learning rate rises from 0.";
        weight_decay: f64 = 0.01, NOT_NEGATIVE,
            "Decay of weights per step, times the learning rate; not on biases and norms.";
        adam_beta1: f64 = 0.9, BELOW_ONE,
            "Memory of the gradient's mean.";
        adam_beta2: f64 = 0.999, BELOW_ONE,
            "Memory of the gradient's square.";
        adam_epsilon: f64 = 1e-8, RATE,
            "Added to the root of the squares.";
        max_grad_norm: f64 = 1.0, NOT_NEGATIVE,
            "Longest gradient; longer ones are scaled down. 0 turns this off.";
        seed: u64, SEED, absent "42, unless `seeds` is set" as "42",
            "Decides order, dropout and fresh weights.";
        seeds: Vec<u64>, SEEDS, absent "by `seed`" as "[1, 2, 3]",
            "One run for each of these seeds.";
        eval_strategy: EvalStrategy, EvalStrategy::ONE, absent "epoch; steps where `eval_steps` is set" as "\"epoch\"",
            "When to evaluate.";
        eval_steps: u64, COUNT, absent "none" as "100",
            "Optimiser steps between evaluations.";
        save_steps: u64, COUNT, absent "at each evaluation" as "100",
            "Optimiser steps between checkpoints.";
        save_total_limit: u64 = 2, COUNT,
            "Checkpoints kept: the newest; the best is kept besides.";
        early_stopping_patience: u64, COUNT, absent "never stop early" as "3",
            "Stop after this many evaluations without a better one.";
        metric_for_best: String, TEXT, absent "the first metric of the task" as "\"accuracy\"",
            "Metric that decides which checkpoint is best.";
        on_nonfinite: OnNonfinite = OnNonfinite::Stop, OnNonfinite::ONE,
            "What to do with a step whose loss or gradient is not finite; it never reaches the weights.";
        nonfinite_limit: u64 = 10, COUNT_OR_ZERO,
            "Most steps that `on_nonfinite = \"skip\"` skips.";
        length_grouping: u64, COUNT, absent "none" as "50",
            "Sort this many batches by length before cutting micro-batches; saves padding.";
        precision: Precision = Precision::F32, Precision::ONE,
            "Numbers that activations and products are computed in.";
        threads: u64 = 0, COUNT_OR_ZERO,
            "Threads; 0 takes all cores.";
    }
}

section! {
    /// `[output]`: what is left behind.
    Output at "output" {
        dir: String, PATH, absent "`runs/` and the name" as "\"runs/sst2-small\"",
            "Folder of the run.";
        save_model: bool = true, BOOL,
            "Whether to write the best model as a folder that others can load.";
    }
}

choice! {
    /// What is predicted.
    TaskKind {
        /// One of several labels.
        Classification = "classification",
        /// Any number of labels.
        MultiLabel = "multi_label",
        /// A number.
        Regression = "regression",
    }
}

choice! {
    /// The format of a data file.
    Format {
        /// Fields between tabs.
        Tsv = "tsv",
        /// Fields between commas.
        Csv = "csv",
        /// One JSON object per line.
        Jsonl = "jsonl",
        /// Apache Parquet.
        Parquet = "parquet",
    }
}

choice! {
    /// The encoding of a data file.
    Encoding {
        /// UTF-8.
        Utf8 = "utf-8",
        /// ISO 8859-1.
        Latin1 = "latin-1",
    }
}

choice! {
    /// What evaluation measures.
    Metric {
        /// Share of right answers.
        Accuracy = "accuracy",
        /// F1 of the second label (of two), or the mean over labels.
        F1 = "f1",
        /// Both of the above.
        AccuracyAndF1 = "accuracy_and_f1",
        /// Matthews correlation.
        Matthews = "matthews",
        /// Pearson and Spearman correlation.
        PearsonSpearman = "pearson_spearman",
        /// F1 over all decisions.
        F1Micro = "f1_micro",
        /// Mean squared error.
        Mse = "mse",
    }
}

impl Metric {
    /// The names of its values, the deciding one first.
    pub fn values(self) -> &'static [&'static str] {
        match self {
            Self::Accuracy => &["accuracy"],
            Self::F1 => &["f1"],
            Self::AccuracyAndF1 => &["accuracy", "f1"],
            Self::Matthews => &["matthews"],
            Self::PearsonSpearman => &["pearson", "spearman"],
            Self::F1Micro => &["f1_micro"],
            Self::Mse => &["mse"],
        }
    }

    /// Whether it can be measured on such a task.
    pub(crate) fn suits(self, kind: TaskKind) -> bool {
        match kind {
            TaskKind::Classification => !matches!(self, Self::PearsonSpearman | Self::Mse),
            TaskKind::MultiLabel => matches!(self, Self::F1Micro | Self::Accuracy | Self::F1),
            TaskKind::Regression => matches!(self, Self::PearsonSpearman | Self::Mse),
        }
    }
}

choice! {
    /// What to do with a line that cannot be read.
    OnBadLine {
        /// Stop and name it.
        Error = "error",
        /// Count it and go on.
        Skip = "skip",
    }
}

choice! {
    /// What choices during training look at.
    EvaluateOn {
        /// The validation file.
        Validation = "validation",
        /// The part of the training file that was held out.
        Split = "split",
    }
}

choice! {
    /// An architecture.
    ModelType {
        /// BERT.
        Bert = "bert",
        /// RoBERTa.
        Roberta = "roberta",
        /// DistilBERT.
        Distilbert = "distilbert",
    }
}

choice! {
    /// The activation of the feed-forward layers.
    Activation {
        /// The exact Gaussian error linear unit.
        Gelu = "gelu",
        /// Its approximation by a hyperbolic tangent.
        GeluNew = "gelu_new",
        /// The rectifier.
        Relu = "relu",
    }
}

choice! {
    /// Where the teacher's answers come from.
    Logits {
        /// Computed once, kept in a file.
        Cache = "cache",
        /// Computed at every step.
        Live = "live",
    }
}

choice! {
    /// The loss on the labels.
    LabelLoss {
        /// Cross-entropy of the softmax.
        CrossEntropy = "cross_entropy",
        /// Mean squared error.
        Mse = "mse",
        /// Binary cross-entropy of each label's sigmoid.
        Bce = "bce",
    }
}

choice! {
    /// How hidden states are compared.
    HiddenKind {
        /// Mean squared difference.
        Mse = "mse",
        /// One minus the cosine.
        Cosine = "cosine",
        /// Squared difference of the vectors at unit length (patient distillation).
        NormalizedMse = "normalized_mse",
        /// KL divergence of the relations among positions (MiniLM).
        AttentionRelation = "attention_relation",
    }
}

choice! {
    /// Positions that are compared.
    Position {
        /// All but padding.
        All = "all",
        /// The classifier's token.
        First = "first",
    }
}

choice! {
    /// Vectors that are related.
    Relation {
        /// Query with query.
        Query = "query",
        /// Key with key.
        Key = "key",
        /// Value with value.
        Value = "value",
        /// Query with key: the attention itself.
        QueryKey = "query_key",
    }
}

choice! {
    /// The learning rate's course after the warm-up.
    Schedule {
        /// Down to 0 in a line.
        Linear = "linear",
        /// Down to 0 in a half cosine.
        Cosine = "cosine",
        /// Level.
        Constant = "constant",
    }
}

choice! {
    /// When to evaluate.
    EvalStrategy {
        /// After every pass over the training set, and at the end.
        Epoch = "epoch",
        /// Every `eval_steps` steps, and at the end.
        Steps = "steps",
        /// At the end.
        End = "end",
        /// Not at all.
        Never = "never",
    }
}

choice! {
    /// What to do with a step that is not finite.
    OnNonfinite {
        /// Stop.
        Stop = "stop",
        /// Leave the weights as they are and go on.
        Skip = "skip",
    }
}

choice! {
    /// Numbers that activations and products are computed in.
    Precision {
        /// 32-bit floats.
        F32 = "f32",
    }
}

/// A column of a data file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// By its number, from 0.
    Number(u32),
    /// By its name.
    Name(String),
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "column {number}"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

impl Read for Column {
    fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::String(name) => return Some(Self::Name(name.clone())),
            Value::Integer(number) => match u32::try_from(*number) {
                Ok(number) => return Some(Self::Number(number)),
                Err(_) => wanted.refuse(&node, None, problems),
            },
            _ => wanted.refuse(&node, None, problems),
        }
        None
    }

    fn show(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => name.show(),
        }
    }
}

/// A table within a table: reads like any other section.
macro_rules! nested {
    ($name:ident) => {
        impl Read for $name {
            fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self> {
                let Value::Table(table) = node.value else {
                    wanted.refuse(&node, None, problems);
                    return None;
                };
                let section = Section::new(wanted.key, table, problems);
                Some(Self::read(Some(node.place), section))
            }

            fn show(&self) -> String {
                "{}".to_owned()
            }
        }
    };
}

nested!(StudentConfig);
nested!(Hidden);
