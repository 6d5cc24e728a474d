//! Model folders and data files, opened for a plan or for a command.

use std::path::{Path, PathBuf};

use heirloom_base::{Digest, Hasher};
use heirloom_data::dataset::{Dataset, KeepTexts};
use heirloom_data::label::Labels;
use heirloom_data::presets::{self, Found};
use heirloom_data::source::{Column, Encoding, Format, OnBadLine, Quoting, Rows, SourceSpec, read};
use heirloom_data::tokens::Tokenizer;
use heirloom_models::{EncoderConfig, ModelType};
use heirloom_recipe::{DataPlan, ModelFacts, ModelShape, TaskKind};

use crate::failure::Failure;

/// How rows lie in the files of a plan.
pub fn spec(data: &DataPlan) -> SourceSpec {
    let column = |column: &heirloom_recipe::Column| match column {
        heirloom_recipe::Column::Number(number) => Column::Index(*number as usize),
        heirloom_recipe::Column::Name(name) => Column::Name(name.clone()),
    };
    let format = match data.format {
        heirloom_recipe::Format::Tsv => Format::Tsv,
        heirloom_recipe::Format::Csv => Format::Csv,
        heirloom_recipe::Format::Jsonl => Format::Jsonl,
        heirloom_recipe::Format::Parquet => Format::Parquet,
        heirloom_recipe::Format::LabelFirst => {
            return SourceSpec {
                encoding: encoding(data),
                label_separator: data.label_separator.chars().next(),
                ..SourceSpec::label_first()
            };
        }
    };
    SourceSpec {
        format,
        header: data.header,
        quoting: if data.quoting { Quoting::On } else { Quoting::Off },
        extra_columns: data.extra_columns,
        encoding: encoding(data),
        text: column(&data.texts[0]),
        pair: data.texts.get(1).map(column),
        label: Some(column(&data.label)),
        label_separator: data.label_separator.chars().next(),
        empty_labels: data.kind == TaskKind::MultiLabel,
    }
}

fn encoding(data: &DataPlan) -> Encoding {
    match data.encoding {
        heirloom_recipe::Encoding::Utf8 => Encoding::Utf8,
        heirloom_recipe::Encoding::Latin1 => Encoding::Latin1,
    }
}

/// Puts the layout that was found in a preset's folder into the plan: the official TSV files, or
/// the Hub's Parquet files.
pub fn apply_layout(data: &mut DataPlan, found: &Found, folder: &Path) {
    let names = |split| -> Vec<String> {
        let files = found.split(split).map(|split| split.files.as_slice()).unwrap_or_default();
        let relative =
            |file: &PathBuf| file.strip_prefix(folder).unwrap_or(file).display().to_string();
        files.iter().map(relative).collect()
    };
    let Some(train) = found.split(presets::Split::Train) else { return };
    let column = |column: &Column| match column {
        Column::Index(index) => heirloom_recipe::Column::Number(*index as u32),
        Column::Name(name) => heirloom_recipe::Column::Name(name.clone()),
    };
    let spec = &train.spec;
    data.train = names(presets::Split::Train);
    if !data.validation.is_empty() {
        data.validation = names(presets::Split::Validation);
        data.validation.extend(names(presets::Split::ValidationMismatched));
    }
    data.format = match spec.format {
        Format::Tsv => heirloom_recipe::Format::Tsv,
        Format::Csv => heirloom_recipe::Format::Csv,
        Format::Jsonl => heirloom_recipe::Format::Jsonl,
        Format::Parquet => heirloom_recipe::Format::Parquet,
        Format::LabelFirst => heirloom_recipe::Format::LabelFirst,
    };
    data.header = spec.header;
    data.quoting = spec.quoting == Quoting::On;
    data.extra_columns = spec.extra_columns;
    data.texts = std::iter::once(&spec.text).chain(&spec.pair).map(column).collect();
    if let Some(label) = &spec.label {
        data.label = column(label);
    }
}

/// The labels of a plan, or those found in its training rows.
pub fn labels(data: &DataPlan, rows: &Rows) -> Result<Labels, Failure> {
    match (data.kind, &data.labels) {
        (TaskKind::Regression, _) => Ok(Labels::score()),
        (TaskKind::Classification, heirloom_recipe::Labels::Named(names)) => {
            Ok(Labels::classes(names.iter().cloned()))
        }
        (TaskKind::MultiLabel, heirloom_recipe::Labels::Named(names)) => {
            Ok(Labels::multi(names.iter().cloned(), separator(data)))
        }
        (kind, heirloom_recipe::Labels::Found) => {
            let found = Labels::infer(rows.rows.iter().map(|row| &row.label))?;
            Ok(if kind == TaskKind::MultiLabel {
                Labels::multi(found.names, separator(data))
            } else {
                found
            })
        }
    }
}

/// What parts several labels of one example in text.
fn separator(data: &DataPlan) -> char {
    data.label_separator.chars().next().unwrap_or(',')
}

/// Labels to check rows against while they are read; `None` where they must be found first.
pub fn known_labels(data: &DataPlan) -> Option<Labels> {
    match (data.kind, &data.labels) {
        (TaskKind::Regression, _) => Some(Labels::score()),
        (_, heirloom_recipe::Labels::Found) => None,
        (TaskKind::Classification, heirloom_recipe::Labels::Named(names)) => {
            Some(Labels::classes(names.iter().cloned()))
        }
        (TaskKind::MultiLabel, heirloom_recipe::Labels::Named(names)) => {
            Some(Labels::multi(names.iter().cloned(), separator(data)))
        }
    }
}

/// Rows of some of a plan's files.
pub fn rows(
    data: &DataPlan,
    folder: &Path,
    files: &[String],
    labels: Option<&Labels>,
) -> Result<Rows, Failure> {
    rows_as(data, &spec(data), folder, files, labels)
}

/// Rows of a plan's texts without labels; a label column is not read.
pub fn unlabelled_rows(data: &DataPlan, folder: &Path, file: &str) -> Result<Rows, Failure> {
    let spec = SourceSpec { label: None, label_separator: None, ..spec(data) };
    rows_as(data, &spec, folder, &[file.to_owned()], None)
}

fn rows_as(
    data: &DataPlan,
    spec: &SourceSpec,
    folder: &Path,
    files: &[String],
    labels: Option<&Labels>,
) -> Result<Rows, Failure> {
    let paths: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    for (name, path) in files.iter().zip(&paths) {
        if !path.exists() {
            return Err(not_there(name, folder));
        }
    }
    let on_bad_line = match data.on_bad_line {
        heirloom_recipe::OnBadLine::Error => OnBadLine::Error,
        heirloom_recipe::OnBadLine::Skip => OnBadLine::Skip { limit: data.bad_line_limit },
    };
    Ok(read(&paths, spec, labels, on_bad_line)?)
}

/// A data file that a recipe misspells or that was not fetched.
pub(crate) fn not_there(name: &str, folder: &Path) -> Failure {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let hint = match heirloom_store::nearest(name, names.iter().map(String::as_str)) {
        Some(nearest) => format!("; the nearest name is `{nearest}`"),
        None if names.is_empty() => "; the folder is empty".to_owned(),
        None => format!("; it holds {}", names.join(", ")),
    };
    Failure::usage(format!("`{}` holds no file `{name}`{hint}", folder.display()))
}

/// Tokenised examples of some of a plan's files.
pub fn dataset(
    data: &DataPlan,
    folder: &Path,
    files: &[String],
    labels: &Labels,
    tokenizer: &Tokenizer,
    keep: KeepTexts,
) -> Result<Dataset, Failure> {
    let rows = rows(data, folder, files, Some(labels))?;
    let max_length = data.max_length as usize;
    Ok(Dataset::build(&rows, labels.clone(), tokenizer, max_length, keep)?)
}

/// Digest of a model folder's weights: of the bytes of `model.safetensors` or of all shards.
pub fn weights_digest(folder: &Path) -> Result<Digest, Failure> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|error| Failure::usage(format!("cannot read `{}`: {error}", folder.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    files.sort();
    let mut hasher = Hasher::new();
    for file in files {
        let bytes = std::fs::read(&file).map_err(|error| {
            Failure::input(format!("cannot read `{}`: {error}", file.display()))
        })?;
        hasher.part(Digest::of(&bytes).to_string().as_bytes());
    }
    Ok(hasher.digest())
}

/// What a plan needs to know of a model folder. Opening the weights' index refuses pickles and
/// damaged files before anything is planned.
pub fn model_facts(folder: &Path) -> Result<(EncoderConfig, ModelFacts), Failure> {
    let config = EncoderConfig::open(folder)?;
    heirloom_store::TensorFolder::open(folder)?;
    let facts = ModelFacts {
        shape: shape(&config),
        labels: if is_classifier(&config) { config.labels.clone() } else { Vec::new() },
        digest: weights_digest(folder)?,
        grown: crate::grow::beside::facts(folder)?,
    };
    Ok((config, facts))
}

fn is_classifier(config: &EncoderConfig) -> bool {
    config.architecture.as_deref().is_some_and(|name| name.contains("SequenceClassification"))
}

/// A config in the words of a plan.
pub fn shape(config: &EncoderConfig) -> ModelShape {
    let activation = match config.activation_name.as_str() {
        "relu" => heirloom_recipe::Activation::Relu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => heirloom_recipe::Activation::GeluNew,
        _ => heirloom_recipe::Activation::Gelu,
    };
    ModelShape {
        model_type: match config.model_type {
            ModelType::Bert => heirloom_recipe::ModelType::Bert,
            ModelType::Roberta => heirloom_recipe::ModelType::Roberta,
            ModelType::DistilBert => heirloom_recipe::ModelType::Distilbert,
        },
        vocab_size: config.vocab_size as u64,
        hidden_size: config.hidden_size as u64,
        num_hidden_layers: config.layers as u64,
        num_attention_heads: config.heads as u64,
        intermediate_size: config.intermediate_size as u64,
        hidden_act: activation,
        max_position_embeddings: config.max_positions as u64,
        type_vocab_size: config.token_types as u64,
        layer_norm_eps: config.layer_norm_eps,
        initializer_range: config.initializer_range,
        hidden_dropout_prob: written(config.hidden_dropout),
        attention_probs_dropout_prob: written(config.attention_dropout),
        classifier_dropout: written(config.classifier_dropout),
    }
}

/// A number of single precision as it was written: 0.1, and not 0.10000000149011612.
pub(crate) fn written(number: f32) -> f64 {
    number.to_string().parse().expect("a number that was printed is a number")
}

/// A fresh student's config from the shape in a plan.
pub fn config_of_shape(shape: &ModelShape, pad: u32) -> Result<EncoderConfig, Failure> {
    let distil = shape.model_type == heirloom_recipe::ModelType::Distilbert;
    let mut map = serde_json::Map::new();
    let mut set = |bert: &str, other: &str, value: serde_json::Value| {
        map.insert(if distil { other } else { bert }.to_owned(), value);
    };
    let json = |value: u64| serde_json::json!(value);
    let name = ModelType::NAMES[shape.model_type as usize];
    set("model_type", "model_type", serde_json::json!(name));
    set("vocab_size", "vocab_size", json(shape.vocab_size));
    set("hidden_size", "dim", json(shape.hidden_size));
    set("num_hidden_layers", "n_layers", json(shape.num_hidden_layers));
    set("num_attention_heads", "n_heads", json(shape.num_attention_heads));
    set("intermediate_size", "hidden_dim", json(shape.intermediate_size));
    let activation = match shape.hidden_act {
        heirloom_recipe::Activation::Gelu => "gelu",
        heirloom_recipe::Activation::GeluNew => "gelu_new",
        heirloom_recipe::Activation::Relu => "relu",
    };
    set("hidden_act", "activation", serde_json::json!(activation));
    set("max_position_embeddings", "max_position_embeddings", json(shape.max_position_embeddings));
    set("pad_token_id", "pad_token_id", serde_json::json!(pad));
    set("initializer_range", "initializer_range", serde_json::json!(shape.initializer_range));
    if !distil {
        map.insert("type_vocab_size".to_owned(), json(shape.type_vocab_size));
        map.insert("layer_norm_eps".to_owned(), serde_json::json!(shape.layer_norm_eps));
    }
    Ok(EncoderConfig::from_map(Path::new("student.config"), map)?)
}
