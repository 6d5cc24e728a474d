//! What the user wrote, key by key. Anything may be missing; nothing is trusted beyond its own type
//! and range.
//!
//! In: the lists below, which are the schema: a new key is a new line. Out: [`Recipe`], and the
//! reference for users ([`reference()`]). Never: compares one key with another; that is `decide.rs`.

use crate::balance::{MetaLoss, Preconditioner};
use crate::choices::{
    Activation, Adoption, Architecture, AverageKind, Column, Course, DivergenceKind, DocumentShape,
    Documents, Doubt, Encoding, EstimatorKind, EvalStrategy, EvaluateOn, Format, GrownMoments,
    HiddenKind, LabelLoss, LabelNoiseKind, Logits, MetaAt, MetaFrom, Metric, Missing,
    NetworkOutput, Normalize, OnBadLine, OnLong, OnNonfinite, Packing, PolicyKind, Position,
    Precision, RegularizerKind, Relation, ReplayRatio, Schedule, Sight, Smoothed, Softening,
    TaskKind, TeacherTokenizer, TeacherVocabulary, TextFormat, TextKind,
};
use crate::group::Patterns;
use crate::preset::Preset;
use crate::problem::{Place, Problems};
use crate::section::{Default, Key, Read, Rule, Section, Wanted, section};
use crate::tree::{Node, Value};

/// A value and where its key was written.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// The place of its key.
    pub place: Place,
}

/// A recipe as it was written. Only [`parse`](crate::parse()) makes one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Recipe {
    /// The file it came from, for messages.
    pub file: String,
    /// The keys above the first table.
    pub top: Top,
    /// `[task]`
    pub task: Task,
    /// `[text]`, in its place.
    pub text: Text,
    /// `[tokenizer]`
    pub tokenizer: Tokenizer,
    /// `[student]`
    pub student: Student,
    /// `[teacher]`, or the first of `[[teacher]]`.
    pub teacher: Teacher,
    /// The others of `[[teacher]]`.
    pub other_teachers: Vec<Teacher>,
    /// `[objective]`
    pub objective: Objective,
    /// `[training]`
    pub training: Training,
    /// `[[stage]]`
    pub stages: Vec<Stage>,
    /// `[output]`
    pub output: Output,
}

/// The newest version of recipes that is read here.
pub(crate) const NEWEST_VERSION: u64 = 1;

/// The tables of a recipe.
pub(crate) const TABLES: [&str; 8] =
    ["task", "text", "tokenizer", "student", "teacher", "objective", "training", "output"];

/// Every key of every table, in the order of the reference.
pub(crate) fn keys() -> Vec<&'static Key> {
    let sections = [
        Top::KEYS,
        Task::KEYS,
        Text::KEYS,
        Tokenizer::KEYS,
        Student::KEYS,
        StudentConfig::KEYS,
        Teacher::KEYS,
        Objective::KEYS,
        First::KEYS,
        Uld::KEYS,
        OnPolicy::KEYS,
        Replay::KEYS,
        Hidden::KEYS,
        Balance::KEYS,
        Meta::KEYS,
        Regularizer::KEYS,
        RegularizerMeta::KEYS,
        Training::KEYS,
        Group::KEYS,
        Stage::KEYS,
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
                "stage" => "`[[stage]]`, for each growth of the student".to_owned(),
                "objective.hidden" | "training.group" => format!("`[[{}]]`", key.section),
                "teacher" => "`[teacher]`, or `[[teacher]]` for each of several".to_owned(),
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
const CHARACTER: Rule<String> =
    Rule { words: "one character", holds: |text| text.chars().count() == 1 };
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
const FILES: Rule<Vec<String>> = Rule {
    words: "a list of different file names",
    holds: |names| !names.is_empty() && names.iter().all(|n| !n.is_empty()) && distinct(names),
};
const COLUMN: Rule<Column> = any("a column's name, or its number from 0");
const METHODS: Rule<Vec<String>> = Rule {
    words: "a list of at least two different methods",
    holds: |names| names.len() >= 2 && names.iter().all(|n| !n.is_empty()) && distinct(names),
};
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
const BOUNDS: Rule<Vec<f64>> = Rule {
    words: "a list of two numbers from 0 to 1, the lower first",
    holds: |bounds| match bounds.as_slice() {
        [low, high] => 0.0 <= *low && low <= high && *high <= 1.0,
        _ => false,
    },
};
const RANGE: Rule<Vec<f64>> = Rule {
    words: "a list of two numbers above 0",
    holds: |range| range.len() == 2 && range.iter().all(|x| x.is_finite() && *x > 0.0),
};
const BALANCE: Rule<Balance> = any("a table such as { policy = \"rw_kd\" }");
const REGULARIZER_META: Rule<RegularizerMeta> = any("a table such as { split = 0.1 }");
const FIRST: Rule<First> = any("a table such as { answers = \"novels-kept\", share = 0.25 }");
const ULD: Rule<Uld> = any("a table such as { top = 64 }");
const REPLAY: Rule<Replay> = any("a table such as { capacity = 1000 }");
const ON_POLICY: Rule<OnPolicy> = any("a table such as { share = 0.5 }");
const REGULARIZER: Rule<Regularizer> = any("a table such as { method = \"labo\" }");
const META: Rule<Meta> = any("a table such as { source = \"split\", split = 0.1 }");
const CONFIG: Rule<StudentConfig> = any("a table such as { model_type = \"bert\", … }");
const NEGATIVE: Rule<f64> =
    Rule { words: "a number below 0", holds: |x| x.is_finite() && *x < 0.0 };
const WINDOW: Rule<u64> =
    Rule { words: "a whole number from 2 to 10000", holds: |n| (2..=10_000).contains(n) };
const GROUPS: Rule<Vec<Group>> = any("a list of tables, each under [[training.group]]");
const PATTERNS: Rule<Patterns> = Rule {
    words: "a parameter's name, or a list of them; `*` stands for any text",
    holds: |patterns| {
        !patterns.0.is_empty() && patterns.0.iter().all(|pattern| !pattern.is_empty())
    },
};
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
        preset: Preset, Preset::ONE, absent "none" as "\"sst2\"",
            "A GLUE task whose files, columns, labels and metric are known; any other key of this table overrides it.";
        kind: TaskKind, TaskKind::ONE, absent "the preset's" as "\"classification\"",
            "What is predicted: one label, any number of labels, or a number.";
        path: String, PATH, absent "required" as "\"data/SST-2\"",
            "Folder with the files below.";
        train: String, TEXT, absent "the preset's" as "\"train.tsv\"",
            "File to train on, in `path`. Without one, the texts of `unlabelled` are all there is, and `labels` are named.";
        unlabelled: String, TEXT, absent "none" as "\"unlabelled.tsv\"",
            "File with more texts to train on, in `path`, laid out as the others; from them the student learns the teacher's answers alone, and a label column is not read (single-label classification).";
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
        label_separator: String, CHARACTER, absent "none" as "\":\"",
            "A label ends before this character: with \":\", `COARSE:fine` is the label `COARSE`.";
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
        unlabelled_limit: u64, COUNT, absent "all" as "10000",
            "Take this many texts of `unlabelled` only, the first after the shuffle.";
        validation_limit: u64, COUNT, absent "all" as "1000",
            "Evaluate on this many examples only, the first after the shuffle.";
        label_noise: f64 = 0.0, SHARE,
            "For experiments: the probability that a training example's label is made wrong. Which ones are depends on their place in the file and on `label_noise_seed` alone. The validation set, held out or a file, and a second set from a file of its own stay as they are (single-label classification).";
        label_noise_kind: LabelNoiseKind = LabelNoiseKind::Symmetric, LabelNoiseKind::ONE,
            "What a label made wrong becomes: one of the others, each equally likely, or the next in the order of `labels`, after the last the first.";
        label_noise_seed: u64 = 1, SEED,
            "Seed of label noise, apart from `training.seed`, so that all seeds and policies are misled by the same examples.";
        allow_overlap: bool, BOOL, absent "`true` with a preset, else `false`" as "false",
            "Whether examples may be in both training and validation files; if not, that is an error.";
    }
}

section! {
    /// `[text]`: in the place of `[task]`, the text that a language model is trained on.
    Text at "text" {
        kind: TextKind, TextKind::ONE, absent "required" as "\"causal\"",
            "What is learnt: the next token (decoders), or tokens that are hidden (encoders).";
        path: String, PATH, absent "required" as "\"text/novels\"",
            "Folder with the files below.";
        train: Vec<String>, FILES, absent "every file of the folder that `validation` does not name" as "[\"a.txt\", \"b.txt\"]",
            "Files to train on, in `path`; a folder stands for its files.";
        validation: Vec<String>, FILES, absent "none is needed with `validation_split`" as "[\"c.txt\"]",
            "Files to evaluate on, in `path`.";
        validation_split: f64, PART, absent "nothing is held out" as "0.05",
            "Share of the documents held out to evaluate on.";
        format: TextFormat, TextFormat::ONE, absent "by each file's extension; else plain" as "\"jsonl\"",
            "Format of the files.";
        documents: Documents = Documents::File, Documents::ONE,
            "What parts documents of plain text: nothing but the end of a file, blank lines, or lines that hold `marker` alone.";
        marker: String, TEXT, absent "required with `documents = \"marker\"`" as "\"<|endoftext|>\"",
            "The line between two documents.";
        shape: DocumentShape = DocumentShape::Text, DocumentShape::ONE,
            "What a document is made of: running text; messages, by the tokenizer's chat template; Alpaca's instruction, input and output; or prompt and completion. Of the last three only the reply is learnt.";
        field: String, TEXT, absent "text; messages for `shape = \"messages\"`" as "\"text\"",
            "Field with the text or the messages (jsonl, json, parquet).";
        template: String, TEXT, absent "the tokenizer's, or for instructions alpaca; none for completions" as "\"chatml\"",
            "Chat template of examples with a reply: `chatml` or `alpaca`, which come with the program, or the name of a file in `path`.";
        date: String, TEXT, absent "none" as "\"2024-07-26\"",
            "Today, for templates that say the date.";
        begin: String, TEXT, absent "none; for masked the tokenizer's token for it" as "\"<s>\"",
            "A special token before each document.";
        end: String, TEXT, absent "the tokenizer's end of a text, where it has one; none with a chat template" as "\"<|endoftext|>\"",
            "A special token after each document.";
        sequence_length: u64 = 512, LENGTH,
            "Tokens of a row.";
        pack: Packing = Packing::Documents, Packing::ONE,
            "How documents fill rows: end to end without seeing one another, or as one stream.";
        on_long: OnLong, OnLong::ONE, absent "error, for examples with a reply" as "\"cut\"",
            "What becomes of an example that is longer than a row; running text goes on in the next.";
        train_limit: u64, COUNT, absent "all" as "1000",
            "Train on this many rows only, the first.";
        validation_limit: u64, COUNT, absent "all" as "1000",
            "Evaluate on this many rows only, the first.";
        first: First, FIRST, absent "none: rows come in an order that is drawn" as "{ answers = \"novels-kept\", share = 0.25 }",
            "The rows that come before the others in the first epoch, as a small model finds them, see below.";
        mask_probability: f64, RATE, absent "0.15, for masked" as "0.15",
            "Probability that a token is to be guessed; of those 80 % are hidden, 10 % replaced, 10 % left.";
        whole_words: bool, BOOL, absent "`false`, for masked" as "true",
            "Whether all tokens of a word are hidden together.";
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
        moments: bool = false, BOOL,
            "Begin with the optimiser's moments that `heirloom grow RUN` wrote beside the weights of `model`, and with its count of steps.";
        rates: bool = false, BOOL,
            "Multiply the learning rate of each parameter of a grown `model` by what its copies ask for, so that with `moments` it goes on as the small model would.";
        freezing: bool = false, BOOL,
            "Train of a grown `model` only what its method wants trained (llama-pro: the added layers; mslt: these and the head).";
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
        model_type: Architecture, Architecture::ONE, absent "required" as "\"bert\"",
            "Architecture.";
        hidden_size: u64, WIDTH, absent "required" as "384",
            "Width of the hidden states.";
        num_hidden_layers: u64, DEPTH, absent "required" as "6",
            "Layers.";
        num_attention_heads: u64, WIDTH, absent "required" as "12",
            "Attention heads; they divide `hidden_size`.";
        num_key_value_heads: u64, WIDTH, absent "`num_attention_heads`" as "4",
            "Heads of keys and values, which divide the attention heads (decoders but gpt2).";
        head_dim: u64, WIDTH, absent "`hidden_size` over the heads" as "64",
            "Width of a head (decoders but gpt2).";
        intermediate_size: u64, WIDTH, absent "4 times `hidden_size`" as "1536",
            "Width of the feed-forward layers.";
        hidden_act: Activation = Activation::Gelu, Activation::ONE,
            "Activation of the feed-forward layers (encoders; decoders have their family's).";
        max_position_embeddings: u64, WIDTH, absent "512; 514 for roberta; `text.sequence_length` for decoders" as "512",
            "Positions (roberta: two of them are never used).";
        type_vocab_size: u64, DEPTH, absent "2; 1 for roberta" as "2",
            "Segment types (encoders).";
        rope_theta: f64, POSITIVE, absent "10000" as "10000.0",
            "Base of the rotary positions (decoders but gpt2).";
        tie_word_embeddings: bool, BOOL, absent "`true` for decoders" as "true",
            "Whether the word embeddings are the head too (decoders).";
        layer_norm_eps: f64, RATE, absent "1e-12; 1e-5 for roberta and gpt2; 1e-6 for other decoders" as "1e-12",
            "Added to the variance in norms.";
        initializer_range: f64 = 0.02, RATE,
            "Standard deviation of fresh weights.";
    }
}

section! {
    /// `[teacher]`: the model learnt from, or `[[teacher]]` for each of several. Without one the
    /// student learns from labels alone.
    Teacher at "teacher" {
        model: String, PATH, absent "required, where there is a [teacher] without `answers` or `cache`" as "\"models/bert-large-sst2\"",
            "Folder of a model fine-tuned on the task; beside `cache`, of the model that gave the answers.";
        answers: String, PATH, absent "none: the model answers" as "\"answers.jsonl\"",
            "File of answers in place of a model: one JSON object a line with a text of the training set and `logits` or `probabilities`, as a list or by label, or a `label` alone (`value` for a regression), as `heirloom predict` writes them or any other program. They are found by their text (`[task]`).";
        cache: String, PATH, absent "none: the model answers" as "\"novels-kept\"",
            "Folder of answers that `heirloom cache` kept, or its address (`s3://bucket/folder`), in place of a model that answers (`[text]`).";
        logits: Logits, Logits::ONE, absent "cache; live where `[[objective.hidden]]` needs the teacher" as "\"cache\"",
            "Compute the teacher's answers once and keep them, or at every step.";
        batch_tokens: u64 = 8192, COUNT,
            "Tokens the teacher reads at once.";
        weight: f64 = 1.0, POSITIVE,
            "Of several teachers under `[[teacher]]`: this one's weight among them. Together they have `objective.alpha`.";
        tokenizer: TeacherTokenizer = TeacherTokenizer::Shared, TeacherTokenizer::ONE,
            "Whether it reads with the run's tokenizer or with the one in its folder; the latter for answers that are kept.";
        vocabulary: TeacherVocabulary = TeacherVocabulary::Refuse, TeacherVocabulary::ONE,
            "What is done where its vocabulary is not the student's (`[text]`): refuse it; leave out ids that stand for no token, as all tokens are the same; or compare over the tokens that both have. `heirloom tokenizer compare` says which can be.";
    }
}

section! {
    /// `[objective]`: what the student is trained to do.
    Objective at "objective" {
        alpha: f64, SHARE, absent "0.5 with a teacher, 0 without" as "0.5",
            "Weight of the teacher's term; the labels' term has 1 − alpha.";
        temperature: f64 = 2.0, POSITIVE,
            "Divides the logits of teacher and student in the teacher's term.";
        temperature_end: f64, POSITIVE, absent "`temperature`" as "1.0",
            "The temperature at the last step; it goes there in a line (`[text]`).";
        until_overtaken: bool, BOOL, absent "`false`" as "true",
            "Whether a teacher falls silent at the first evaluation in which the student foresees the validation text better than it does (`[text]`).";
        scale_by_temperature_squared: bool = true, BOOL,
            "Multiply the teacher's term by temperature², so that its gradient keeps its size.";
        divergence: DivergenceKind = DivergenceKind::ForwardKl, DivergenceKind::ONE,
            "How the teacher's term compares the teacher's distribution with the student's; `mse_logits` compares the logits.";
        divergence_alpha: f64, NOT_NEGATIVE, absent "0.1 for skew_kl and skew_reverse_kl, 0.2 for alpha_beta, 1 for dkd" as "0.1",
            "α: the mixture's share of the compared side (skew), the exponent of the teacher (alpha_beta), the weight of the label against the rest (dkd).";
        divergence_beta: f64, NOT_NEGATIVE, absent "0.5 for jensen_shannon, 0.7 for alpha_beta, 8 for dkd" as "0.5",
            "β: the mixture's share of the teacher (jensen_shannon), the exponent of the student (alpha_beta), the weight of the rest by itself (dkd).";
        divergence_centred: bool, BOOL, absent "`true`, for mse_logits" as "true",
            "Whether the mean of each side's logits is taken from them before they are compared.";
        missing: Missing = Missing::TailBucket, Missing::ONE,
            "What becomes of tokens that a kept answer does not name (`teacher.cache`): they are one token, shared out among the others, or left out.";
        label_loss: LabelLoss, LabelLoss::ONE, absent "cross_entropy, bce, mse by `task.kind`" as "\"cross_entropy\"",
            "Loss on the labels.";
        hidden: Vec<Hidden>, HIDDEN, absent "none" as "[{ kind = \"mse\" }]",
            "Terms that compare hidden states or attention, see below.";
        balance: Balance, BALANCE, absent "none: `alpha` for every sample" as "{ policy = \"wsl\" }",
            "How much each sample learns from its label and how much from the teacher, see below.";
        uld: Uld, ULD, absent "none: distributions are compared token by token" as "{ top = 64 }",
            "Compare probabilities by their size, where the teacher reads tokens of its own (`[text]`), see below.";
        on_policy: OnPolicy, ON_POLICY, absent "none: all batches are the data's" as "{ share = 0.5 }",
            "Batches whose replies the student writes itself (`[text]`), see below.";
        regularizer: Regularizer, REGULARIZER, absent "none: the label as it is" as "{ method = \"labo\" }",
            "What the label becomes before the student learns from it, see below.";
    }
}

section! {
    /// `[text.first]`: the rows that come before all others in the first epoch: challenging, and yet
    /// learnable, as a small model finds them.
    First at "text.first" {
        answers: String, PATH, absent "required" as "\"novels-kept\"",
            "Folder, or its address, of the small model's answers to all rows: `heirloom cache --all --top-k N`, at temperature 1.";
        share: f64, PART, absent "required" as "0.25",
            "Share of the rows that come first: those with the largest median loss, over tokens that are among the `top_k` that the small model finds likeliest.";
        top_k: u64 = 10, COUNT,
            "Tokens that are not among so many are held to be noise, and not looked at.";
    }
}

section! {
    /// `[objective.uld]`: universal logit distillation, between models of different tokenizers.
    Uld at "objective.uld" {
        top: u64 = 64, COUNT,
            "How many of each side's probabilities are compared one by one, the largest; the others count as one sum. As many as tokens is exact.";
        sequence_length: u64, LENGTH, absent "`text.sequence_length`" as "512",
            "The teacher's tokens of a row.";
    }
}

section! {
    /// `[objective.on_policy]`: batches whose replies the student writes itself, for the teacher to
    /// judge.
    OnPolicy at "objective.on_policy" {
        share: f64, SHARE, absent "required" as "0.5",
            "Share of the steps whose replies the student writes; in these the teacher's term alone counts.";
        max_new_tokens: u64 = 128, COUNT,
            "Most tokens that it writes after a prompt; a prompt that leaves less room in a row is left out.";
        temperature: f64 = 1.0, NOT_NEGATIVE,
            "Divides the logits before a token is drawn; 0 takes the most probable.";
        replay: Replay, REPLAY, absent "none: the student writes anew in each of these steps" as "{ capacity = 1000 }",
            "Read texts again that the student wrote before, see below.";
    }
}

section! {
    /// `[objective.on_policy.replay]`: the student's last texts are read again, and their share of the
    /// steps rises where it is needed (DistiLLM). `objective.on_policy.share` is the share at first.
    Replay at "objective.on_policy.replay" {
        capacity: u64 = 1000, COUNT,
            "Texts that are kept, the last ones. Until there are so many the student writes anew.";
        ratio: ReplayRatio = ReplayRatio::Falling, ReplayRatio::ONE,
            "How the part of these steps in which the student writes anew goes over the run; in the others it reads what is kept.";
        rise: f64 = 0.1, SHARE,
            "What the share rises by, at most to 1.";
        margin: f64 = 0.1, NOT_NEGATIVE,
            "By how many nats the validation loss must be higher than at the last rise for that.";
    }
}

section! {
    /// `[[objective.hidden]]`: a term that compares what is inside teacher and student.
    Hidden at "objective.hidden" {
        kind: HiddenKind, HiddenKind::ONE, absent "required" as "\"mse\"",
            "How they are compared; attention_relation is for encoders.";
        weight: f64 = 1.0, POSITIVE,
            "Weight of the term, added to the objective.";
        layers: Vec<Vec<u64>>, PAIRS, absent "every student layer with the teacher's at the same relative height; for attention_relation the last two" as "[[0, 0], [3, 6]]",
            "[student, teacher] pairs: 0 is the embeddings' output, i the output of layer i.";
        position: Position = Position::All, Position::ONE,
            "Which positions are compared; `first` is the classifier's token; of `[text]` encoders alone have it.";
        projection: bool, BOOL, absent "`true` where the widths differ" as "true",
            "Learn a linear map from the student's width to the teacher's.";
        relation: Relation, Relation::ONE, absent "value, for attention_relation" as "\"value\"",
            "Which vectors are related: query with query, key with key, value with value, or query with key.";
        relation_heads: u64, WIDTH, absent "the student's heads" as "12",
            "Heads that the vectors are cut into before relating; they divide both widths.";
    }
}

section! {
    /// `[objective.balance]`: a policy that weighs label and teacher. Its keys are those of the
    /// policies together; one that the policy has no use for is refused.
    Balance at "objective.balance" {
        policy: PolicyKind, PolicyKind::ONE, absent "required" as "\"rw_kd\"",
            "The policy. `objective.alpha` is then the share that fixed, dynamic_kd, ctkd and l2rw keep and rw_kd begins with; the others decide it themselves. annealing_kd and continuation_kd need `divergence = \"mse_logits\"`, ctkd the forward divergence. With `[text]` it is fixed, schedule, uncertainty, wsl, ada_kd, dynamic_kd, rw_kd, meta_weight_net or own.";
        called: String, TEXT, absent "required with `policy = \"own\"`" as "\"doubt\"",
            "own: the name of a policy that a program brings with the library. The command has none: it plans such a run, and refuses to train it.";
        from: f64 = 1.0, SHARE,
            "schedule: the teacher's share at the first step.";
        to: f64 = 0.0, SHARE,
            "schedule: the teacher's share at the last step.";
        course: Course = Course::Linear, Course::ONE,
            "schedule: how the share goes from one to the other.";
        at: f64 = 0.5, SHARE,
            "schedule: part of the run before the change, for `course = \"step\"`.";
        phase_one: f64 = 0.5, SHARE,
            "annealing_kd: part of the run that is the teacher's; the rest is the labels'.";
        levels: u64 = 10, COUNT,
            "annealing_kd, continuation_kd: sizes that the teacher's logits go through, the last the full one.";
        margin: f64 = 1.0, NOT_NEGATIVE,
            "continuation_kd: mean squared difference of the logits within which the teacher is silent, at the first step; 0 at the last.";
        learning_rate: f64, POSITIVE, absent "0.01 for uncertainty and ctkd, 0.025 for grad_norm, 0.001 for meta_weight_net and tgeo_kd" as "0.01",
            "uncertainty, grad_norm, ctkd, meta_weight_net, tgeo_kd: step size of what the policy learns.";
        bound: f64 = 5.0, POSITIVE,
            "uncertainty: weights stay between exp(−bound) and exp(bound).";
        asymmetry: f64 = 1.5, NOT_NEGATIVE,
            "grad_norm: how strongly the loss that lags is favoured.";
        weight: f64 = 1.0, NOT_NEGATIVE,
            "wsl: the teacher's largest weight; the label's is 1.";
        temperature: f64 = 1.0, POSITIVE,
            "ada_kd: temperature of the teacher's distribution whose margin is its share.";
        adoption: Adoption = Adoption::Sample, Adoption::ONE,
            "dynamic_kd: whose uncertainty weighs the teacher: each sample's, the step's mean, or that of the most uncertain part, which alone hears it. The last two need steps of one micro-batch.";
        share: f64 = 0.5, RATE,
            "dynamic_kd: part of the step that hears the teacher, for `adoption = \"select\"`.";
        doubt: Doubt = Doubt::Entropy, Doubt::ONE,
            "dynamic_kd: what is uncertain, for `adoption = \"select\"`.";
        range: Vec<f64>, RANGE, absent "[1, 20]" as "[1.0, 20.0]",
            "ctkd: the lowest temperature, and how far above it the highest lies.";
        ramp: f64 = 0.1, SHARE,
            "ctkd: part of the run over which the reversed gradient grows to its full size.";
        normalize: Normalize = Normalize::Terms, Normalize::ONE,
            "rw_kd: what weights sum to: each sample's two to one, all of a step to its size, or nothing.";
        floor: f64 = 1e-8, NOT_NEGATIVE,
            "rw_kd: alignments count as at least this.";
        bounds: Vec<f64>, BOUNDS, absent "[0, 1], for `normalize = \"terms\"`" as "[0.1, 0.9]",
            "rw_kd: least and largest share of the teacher.";
        ema: f64 = 0.0, BELOW_ONE,
            "rw_kd, l2rw: how much of an example's earlier weights stays when new ones are measured.";
        sight: Sight = Sight::Losses, Sight::ONE,
            "meta_weight_net: what its network sees of a sample.";
        output: NetworkOutput = NetworkOutput::Weights, NetworkOutput::ONE,
            "meta_weight_net: what its network gives: both weights, or the teacher's share.";
        weight_decay: f64, NOT_NEGATIVE, absent "0.0001 for meta_weight_net, 0 for tgeo_kd" as "0.0001",
            "meta_weight_net, tgeo_kd: decay of the network's parameters per step, times its step size.";
        meta: Meta, META, absent "a tenth of the training set, for rw_kd, l2rw, meta_weight_net and tgeo_kd; other rows with `[text]`; none for own" as "{ source = \"split\" }",
            "The second set that the policy learns from, see below.";
    }
}

section! {
    /// `[objective.balance.meta]`: the second set, whose loss says which losses help.
    Meta at "objective.balance.meta" {
        source: MetaFrom, MetaFrom::ONE, absent "`split`; `train` with `[text]`, which has no other" as "\"train\"",
            "Where it comes from: a part of the training set, which is then not trained on; other batches of the training set; or a file.";
        split: f64 = 0.1, PART,
            "Share of the training set that becomes the second set, for `source = \"split\"`. The same examples under every seed.";
        path: String, TEXT, absent "required with `source = \"file\"`" as "\"second.tsv\"",
            "File with the second set, in `task.path` and in the format of the training file. Not one that models are compared on.";
        batch_size: u64 = 32, COUNT,
            "Sequences of a batch of it.";
        every: u64 = 1, COUNT,
            "Optimiser steps from one measurement to the next.";
        warmup_steps: u64 = 0, COUNT_OR_ZERO,
            "Optimiser steps before the first measurement.";
        loss: MetaLoss = MetaLoss::Mix, MetaLoss::ONE,
            "Which of its losses count: label's and teacher's, the label's, or the teacher's.";
        estimator: EstimatorKind = EstimatorKind::FiniteDifference, EstimatorKind::ONE,
            "How alignments are measured: by two more forward passes, or through the last layer alone, which costs less and needs the forward divergence.";
        radius: f64 = 0.01, POSITIVE,
            "Length of the two steps of `finite_difference`.";
        preconditioner: Preconditioner = Preconditioner::None, Preconditioner::ONE,
            "Whether the second set's gradient is scaled as AdamW would scale it, for `finite_difference`.";
        at: MetaAt = MetaAt::Here, MetaAt::ONE,
            "Where its gradient is taken: at the weights as they are, or at those that the coming step would lead to, for `finite_difference`; the latter costs a forward and a backward pass of the step more.";
        check: bool = false, BOOL,
            "Whether the first measurement is compared with finite differences of its loss, and the run refused where it is zero or wrong, for `finite_difference`.";
        lr_scheduler_type: Schedule = Schedule::Constant, Schedule::ONE,
            "meta_weight_net, tgeo_kd: course of the network's step size over the run.";
        max_grad_norm: f64 = 0.0, NOT_NEGATIVE,
            "meta_weight_net, tgeo_kd: longest gradient of the network; longer ones are scaled down. 0 turns this off.";
    }
}

section! {
    /// `[objective.regularizer]`: what the label becomes, or what is added to its loss. Its keys are
    /// those of the methods together; one that the method has no use for is refused.
    Regularizer at "objective.regularizer" {
        method: RegularizerKind, RegularizerKind::ONE, absent "required" as "\"labo\"",
            "The method. It takes the place of the plain label in the label's term, whatever weighs that term.";
        called: String, TEXT, absent "required with `method = \"own\"`" as "\"nearby\"",
            "own: the name of a regularizer that a program brings with the library. The command has none: it plans such a run, and refuses to train it.";
        alpha: f64, SHARE, absent "0.1; 0.5 for online_label_smoothing, labo and entropic, 0.9 for tf_kd, 0.05 for bootstrap" as "0.1",
            "label_smoothing (ε), prior, tf_kd, online_label_smoothing, bootstrap, labo, entropic: share of the regularizing distribution; the label has the rest.";
        alpha_end: f64, SHARE, absent "`alpha`" as "0.3",
            "The share at the last step; it goes there in a line.";
        weight: f64, NOT_NEGATIVE, absent "0.1" as "0.1",
            "confidence_penalty, generalized_entropy, zipf, margin, max_sup: weight of the penalty, added to the label's loss.";
        weight_end: f64, NOT_NEGATIVE, absent "`weight`" as "0.2",
            "The weight at the last step; it goes there in a line.";
        temperature: f64, POSITIVE, absent "2 for labo, 20 for tf_kd" as "2.0",
            "labo (at least 1), tf_kd: how much the distribution is softened.";
        temperature_end: f64, POSITIVE, absent "`temperature`" as "1.5",
            "labo: the temperature at the last step; it goes there in a line.";
        smoothed: Smoothed = Smoothed::All, Smoothed::ONE,
            "label_smoothing: whether the label's own class has a part of the share.";
        skew: f64 = 0.5, PART,
            "generalized_entropy: between the entropy's divergence (towards 0) and label smoothing's (towards 1).";
        peak: f64 = 0.99, PART,
            "tf_kd: the made teacher's probability of the label, before it is softened.";
        softening: Softening = Softening::Logits, Softening::ONE,
            "tf_kd: what the temperature divides.";
        margin: f64 = 10.0, NOT_NEGATIVE,
            "margin: how far a logit may lie below the largest without penalty.";
        hard: bool = false, BOOL,
            "bootstrap: the most probable class in place of the whole answer.";
        uniform: f64 = 2.0, NOT_NEGATIVE,
            "entropic: strength of the pull towards the uniform distribution; alone, it is labo at a temperature of the same number.";
        teacher: f64 = 0.0, NOT_NEGATIVE,
            "entropic: strength of the pull towards the teacher's distribution.";
        prior: f64 = 0.0, NOT_NEGATIVE,
            "entropic: strength of the pull towards the classes' shares of the training set.";
        learning_rate: f64, POSITIVE, absent "0.01; 0.001 for per_instance" as "0.01",
            "learned_smoothing, learned_labo, per_class, per_instance: step size of what is learnt.";
        weight_decay: f64 = 0.0, NOT_NEGATIVE,
            "learned_smoothing, learned_labo, per_class, per_instance: decay of what is learnt per step, times the step size.";
        meta: RegularizerMeta, REGULARIZER_META, absent "a tenth of the training set, for the methods that learn; none for own" as "{ split = 0.1 }",
            "The second set that the target is learnt from, see below.";
    }
}

section! {
    /// `[objective.regularizer.meta]`: the second set, whose loss on plain labels says which targets
    /// help.
    RegularizerMeta at "objective.regularizer.meta" {
        source: MetaFrom = MetaFrom::Split, MetaFrom::ONE,
            "Where it comes from: a part of the training set, which is then not trained on; other batches of the training set; or a file.";
        split: f64 = 0.1, PART,
            "Share of the training set that becomes the second set, for `source = \"split\"`. The same examples under every seed.";
        path: String, TEXT, absent "required with `source = \"file\"`" as "\"second.tsv\"",
            "File with the second set, in `task.path` and in the format of the training file. Not one that models are compared on.";
        batch_size: u64 = 32, COUNT,
            "Sequences of a batch of it.";
        every: u64 = 1, COUNT,
            "Optimiser steps from one measurement to the next.";
        warmup_steps: u64 = 0, COUNT_OR_ZERO,
            "Optimiser steps before the first measurement.";
        radius: f64 = 0.01, POSITIVE,
            "Length of the two steps by which slopes are measured.";
        preconditioner: Preconditioner = Preconditioner::None, Preconditioner::ONE,
            "Whether the second set's gradient is scaled as AdamW would scale it.";
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
        activation_checkpointing: bool = false, BOOL,
            "Keep only what is between the student's layers and compute the rest again in the backward pass: less memory, about a third more work, the same result.";
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
        average: AverageKind = AverageKind::None, AverageKind::ONE,
            "Evaluate and keep an average of the weights in place of the last ones: `swa` of every so many steps of a part of the run (goes well with a level learning rate), `ema` of all steps, the newest most. Training goes on with the weights themselves.";
        average_decay: f64, BELOW_ONE, absent "0.999, for ema" as "0.999",
            "Memory of `average = \"ema\"`: the weights of n steps ago count this to the power of n.";
        average_from: f64, SHARE, absent "0.5, for swa" as "0.5",
            "Part of the run after which `average = \"swa\"` begins.";
        average_every: u64, COUNT, absent "a pass over the training set, or less so that ten are averaged, for swa" as "100",
            "Optimiser steps between the weights that `average = \"swa\"` takes.";
        group: Vec<Group>, GROUPS, absent "none" as "[{ match = \"*.bias\" }]",
            "Parameters that the optimiser treats in a way of their own, see below.";
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
        precision: Precision = Precision::F32, Precision::ONE,
            "`bf16` rounds the factors of linear layers' products, sums stay in f32; faster where the processor has AVX512-BF16. A teacher's kept answers are computed in f32.";
        threads: u64 = 0, COUNT_OR_ZERO,
            "Threads; 0 takes all cores.";
    }
}

section! {
    /// `[[training.group]]`: parameters that the optimiser treats in a way of their own. Of several
    /// groups that hold the same parameter all count: factors multiply, and it is frozen as long as one
    /// of them says so.
    Group at "training.group" {
        r#match: Patterns, PATTERNS, absent "required" as "\"*.layer.0.*\"",
            "The parameters: names as in `model.safetensors`, in which `*` stands for any text; one or a list.";
        learning_rate_factor: f64 = 1.0, POSITIVE,
            "Factor of the learning rate.";
        weight_decay_factor: f64 = 1.0, NOT_NEGATIVE,
            "Factor of `weight_decay`, which is multiplied by the learning rate besides.";
        frozen: bool = false, BOOL,
            "Whether they stay as they are, to the bit: no step, no decay, no moments.";
        frozen_steps: u64, COUNT, absent "none" as "100",
            "Optimiser steps for which they stay as they are, before they are trained.";
        warmup_steps: u64 = 0, COUNT_OR_ZERO,
            "Optimiser steps in which their learning rate rises to that of the others, from where they begin to move.";
    }
}

section! {
    /// `[[stage]]`: the student grows in the middle of the run, which goes on with the same data and the
    /// same schedule. Exactly one of `at_step`, `at_tokens`, `at_examples`, `at_slope`.
    Stage at "stage" {
        at_step: u64, COUNT, absent "none" as "500",
            "Grow after this many optimiser steps.";
        at_tokens: u64, COUNT, absent "none" as "1000000",
            "Grow after the step in which this many tokens were read, since the run began.";
        at_examples: u64, COUNT, absent "none" as "20000",
            "Grow after the step in which this many examples were read, since the run began.";
        at_slope: f64, NEGATIVE, absent "none" as "-0.05",
            "Grow when the loss no longer falls: when the slope of the line through ln(loss) over ln(tokens) of the last steps is above this.";
        window: u64 = 50, WINDOW,
            "at_slope: optimiser steps whose losses count, all of them since the stage before.";
        not_before: u64, COUNT_OR_ZERO, absent "twice `window`" as "100",
            "at_slope: optimiser steps of the run that are done first.";
        method: String = "preserve".to_owned(), TEXT,
            "How it grows, as `heirloom grow --method`, or `ligo`: by a map that is learnt, from copies and whole layers on (moments then begin at zero, and rates are as before, unless they are said).";
        candidates: Vec<String>, METHODS, absent "none: `method` is taken" as "[\"stack\", \"interleave\"]",
            "Methods that are tried in the place of `method`: the student grows by each, trains for `lag_steps` on the batches that come, and grows anew by the one with the lowest loss.";
        lag_steps: u64 = 50, COUNT,
            "candidates: optimiser steps that each is tried for; the mean loss of the last quarter decides.";
        operator_steps: u64 = 100, COUNT,
            "ligo: steps in which its map is learnt, on the batches that come.";
        operator_learning_rate: f64 = 0.001, RATE,
            "ligo: size of these steps, of Adam.";
        num_hidden_layers: u64, DEPTH, absent "the same" as "12",
            "Layers after growing.";
        hidden_size: u64, WIDTH, absent "the same" as "768",
            "Width of the hidden states after growing.";
        num_attention_heads: u64, WIDTH, absent "heads of the same size" as "12",
            "Attention heads after growing.";
        intermediate_size: u64, WIDTH, absent "in proportion to `hidden_size`" as "3072",
            "Width of the feed-forward layers after growing.";
        moments: GrownMoments = GrownMoments::Asymmetric, GrownMoments::ONE,
            "What becomes of the optimiser's moments: every copy has its share and copies stay alike; the first copy alone keeps its share, so that they learn apart; or all begin at zero.";
        rates: bool = true, BOOL,
            "Whether learning rates are multiplied by what copies ask for: 1/n for what reads n copies.";
        warmup_steps: u64, COUNT_OR_ZERO, absent "0 for exact moments and behind a mask, else 50" as "50",
            "Optimiser steps in which the learning rate of parameters with new entries rises from 0.";
        mask_steps: u64, COUNT, absent "none: what is new is read as zero at first" as "5000",
            "msg: optimiser steps in which a mask over what new heads, feed-forward units and layers write goes from 0 to 1, so that they may begin as anything.";
        freezing: bool = true, BOOL,
            "Whether what the method does not want trained stays as it is (llama-pro: all but the added layers; mslt: all but these and the head).";
        freezing_steps: u64, COUNT, absent "for ever" as "200",
            "Optimiser steps after which that is trained as well.";
        noise: f64 = 0.0, SHARE,
            "Noise between copies that sums to zero, so that they learn apart, over the size of weights.";
        seed: u64 = 1, SEED,
            "Decides which units are copied and what new entries start from.";
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
nested!(Group);
nested!(Hidden);
nested!(Balance);
nested!(Meta);
nested!(First);
nested!(Uld);
nested!(OnPolicy);
nested!(Replay);
nested!(Regularizer);
nested!(RegularizerMeta);

#[cfg(test)]
mod tests {
    use super::*;

    /// A recipe that holds the given line in the given section; whatever else is wrong with it,
    /// the line itself can be read.
    fn with(key: &Key, value: &str) -> String {
        match key.section {
            "" => format!("{} = {value}\n", key.name),
            "student.config" => format!("[student]\nconfig = {{ {} = {value} }}\n", key.name),
            "objective.hidden" | "training.group" => {
                format!("[[{}]]\n{} = {value}\n", key.section, key.name)
            }
            section => format!("[{section}]\n{} = {value}\n", key.name),
        }
    }

    /// What the reader of values and keys says; not whether keys go together.
    fn problems(text: &str) -> Vec<String> {
        let Err(problems) = crate::parse("r.toml", text, &[]) else { return Vec::new() };
        let of_reading = |kind: &crate::ProblemKind| {
            use crate::ProblemKind::{Syntax, UnknownKey, WrongValue};
            matches!(kind, Syntax { .. } | UnknownKey { .. } | WrongValue { .. })
        };
        let problems = problems.iter().filter(|problem| of_reading(&problem.kind));
        problems.map(|problem| problem.kind.to_string()).collect()
    }

    #[test]
    fn every_key_can_be_read_with_its_default_or_example() {
        for key in keys() {
            let value = match (key.default)() {
                Default::Value(value) => value,
                Default::Words { example, .. } => example.to_owned(),
            };
            let none: [&str; 0] = [];
            assert_eq!(problems(&with(key, &value)), none, "{} = {value}", key.path());
        }
    }

    #[test]
    fn every_key_refuses_a_date() {
        for key in keys() {
            let problems = problems(&with(key, "1979-05-27"));
            assert_eq!(problems.len(), 1, "{}: {problems:?}", key.path());
            assert!(problems[0].contains("is 1979-05-27, expected"), "{problems:?}");
        }
    }

    #[test]
    fn every_key_has_a_meaning_that_is_a_sentence() {
        for key in keys() {
            assert!(key.meaning.ends_with('.') && key.meaning.len() > 5, "{}", key.path());
        }
    }

    #[test]
    fn no_section_has_a_key_twice() {
        let mut paths: Vec<String> = keys().into_iter().map(Key::path).collect();
        let count = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}
