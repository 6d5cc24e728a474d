//! A model folder opened to answer: config, head, tokenizer, weights, and room to compute.
//!
//! In: a folder as `transformers` saves it, or a run folder's `best/`. Out: the head's outputs for
//! rows of text, in their order. Never: an answer that is not a number, or one from a head whose
//! weights the folder does not hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use heirloom_data::dataset::{Dataset, KeepTexts};
use heirloom_data::label::Labels;
use heirloom_data::source::Rows;
use heirloom_data::tokens::Tokenizer;
use heirloom_engine::Cpu;
use heirloom_models::{EncoderConfig, Head, Model};
use heirloom_recipe::TaskKind;
use heirloom_store::TensorFolder;
use heirloom_train::Predictor;
use serde_json::Value;

use crate::failure::Failure;
use crate::places::Places;

/// Tokens computed at once: enough to keep every core busy, in some tens of megabytes.
const TOKENS_AT_ONCE: usize = 2048;

/// Outputs of a classifier whose config does not say how many: `transformers` leaves its default
/// out when it saves.
const UNSAID_LABELS: usize = 2;

/// The file that makes a folder a run folder.
pub const PLAN: &str = "plan.toml";

/// A model that answers.
pub struct Answerer {
    folder: PathBuf,
    device: Cpu,
    model: Model,
    predictor: Predictor,
    tokenizer: Arc<Tokenizer>,
    max_length: usize,
}

impl std::fmt::Debug for Answerer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answerer").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The answers to some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// The rows as the model read them.
    pub examples: Dataset,
    /// What the head said, `[examples, width]`.
    pub outputs: Vec<f32>,
}

impl Answerer {
    /// Opens the model in `folder`. It reads at most `max_length` tokens of a text, or as many as
    /// it has positions for where that is fewer.
    pub fn open(folder: &Path, max_length: usize, threads: usize) -> Result<Self, Failure> {
        if !folder.exists() {
            return Err(Failure::usage(format!("`{}` is not there", folder.display())));
        }
        Self::with_tokenizer(folder, Arc::new(Tokenizer::open(folder)?), max_length, threads)
    }

    /// The same with a tokenizer from elsewhere, for a folder without one.
    pub fn with_tokenizer(
        folder: &Path,
        tokenizer: Arc<Tokenizer>,
        max_length: usize,
        threads: usize,
    ) -> Result<Self, Failure> {
        let config = EncoderConfig::open(folder)?;
        let head = head_of(folder, &config)?;
        let weights = TensorFolder::open(folder)?;
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(Failure::input(format!(
                "`{}`: the tokenizer has {} tokens and the model knows {}; check that config.json \
                 and the tokenizer belong together",
                folder.display(),
                tokenizer.vocab_size(),
                config.vocab_size,
            )));
        }
        let max_length = max_length.min(config.longest());
        let mut device = Cpu::new(threads);
        let model = Model::new(&mut device, config, head);
        model.load(&mut device, &weights, &str::to_owned, None)?;
        let predictor = Predictor::new(&mut device, &model, TOKENS_AT_ONCE, max_length);
        Ok(Self { folder: folder.to_owned(), device, model, predictor, tokenizer, max_length })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The head, which says what the outputs mean.
    pub fn head(&self) -> Head {
        self.model.head()
    }

    /// Numbers per answer.
    pub fn width(&self) -> usize {
        self.head().width(self.model.config())
    }

    /// Tokens of a text that are read at most.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// A name for each output of a classifier; `LABEL_0` and so on where the config has none.
    pub fn labels(&self) -> Vec<String> {
        let named = &self.model.config().labels;
        let label = |id| named.get(id).cloned().unwrap_or_else(|| unnamed(id));
        match self.head() {
            Head::SingleLabel { labels } | Head::MultiLabel { labels } => {
                (0..labels).map(label).collect()
            }
            Head::Regression | Head::MaskedLm | Head::Embedding => Vec::new(),
        }
    }

    /// Answers `rows` of `file` (which is for messages only), whose labels are some of `labels`.
    ///
    /// # Errors
    /// Where a text becomes no tokens at all, or an answer is not a number.
    pub fn answer(&mut self, file: &str, rows: &Rows, labels: Labels) -> Result<Answers, Failure> {
        let examples =
            Dataset::build(rows, labels, &self.tokenizer, self.max_length, KeepTexts::No)?;
        let types = self.model.config().token_types;
        for (at, row) in rows.rows.iter().enumerate() {
            let example = examples.example(at);
            let refuse = |why: String| {
                let folder = self.folder.display();
                Err(Failure::input(format!("{file}:{}: `{folder}` {why}", row.line)))
            };
            if example.ids.is_empty() {
                return refuse("has a tokenizer that makes no token of this text".to_owned());
            }
            // A family without types has no table to look them up in.
            if types > 0 && example.type_ids.iter().any(|&kind| usize::from(kind) >= types) {
                return refuse(format!(
                    "cannot read pairs: its tokenizer tells two texts apart, its config has \
                     `type_vocab_size` {types}"
                ));
            }
        }
        let outputs = self.predictor.outputs(&mut self.device, &self.model, &examples);
        if let Some(at) = outputs.iter().position(|output| !output.is_finite()) {
            return Err(Failure::input(format!(
                "{file}:{}: `{}` answers {}; its weights are damaged, or its training diverged",
                rows.rows[at / self.width()].line,
                self.folder.display(),
                outputs[at],
            )));
        }
        Ok(Answers { examples, outputs })
    }
}

/// The model folder that `path` means: itself, or a run folder's `best/`, else its `last/`. A relative
/// path is looked for below the working directory, then below `HEIRLOOM_MODELS`.
pub fn model_folder(path: &Path) -> Result<PathBuf, Failure> {
    let models = Places::from_environment().models.filter(|_| path.is_relative());
    let below = models.map(|models| models.join(path));
    let path = match below {
        Some(below) if !path.exists() && below.exists() => &below.clone(),
        Some(below) if !path.exists() => {
            return Err(Failure::usage(format!(
                "`{}` is not there; looked at `{}` too",
                path.display(),
                below.display()
            )));
        }
        _ if !path.exists() => {
            return Err(Failure::usage(format!("`{}` is not there", path.display())));
        }
        _ => path,
    };
    if !path.join(PLAN).is_file() {
        return Ok(path.to_owned());
    }
    let folders = ["best", "last"].map(|name| path.join(name));
    folders.into_iter().find(|folder| folder.is_dir()).ok_or_else(|| {
        Failure::usage(format!(
            "the run in `{0}` has left no model yet (no best/, no last/); finish it with: heirloom \
             resume {0}",
            path.display(),
        ))
    })
}

/// The head that a config describes, as `transformers` reads it.
pub fn head_of(folder: &Path, config: &EncoderConfig) -> Result<Head, Failure> {
    let architecture = config.architecture.as_deref().unwrap_or_default();
    if architecture.is_empty()
        || architecture.ends_with("Model")
        || architecture.ends_with("ForMaskedLM")
    {
        return Ok(Head::Embedding);
    }
    let file = folder.join("config.json");
    if !architecture.ends_with("ForSequenceClassification") {
        return Err(Failure::input(format!(
            "`{}`: `architectures` is \"{architecture}\", expected a name that ends in \
             ForSequenceClassification (it classifies), ForMaskedLM or Model (it embeds)",
            file.display(),
        )));
    }
    let labels = label_count(config);
    match config.raw.get("problem_type") {
        None | Some(Value::Null) if labels == 1 => Ok(Head::Regression),
        None | Some(Value::Null) => Ok(Head::SingleLabel { labels }),
        Some(Value::String(kind)) if kind == "single_label_classification" => {
            Ok(Head::SingleLabel { labels })
        }
        Some(Value::String(kind)) if kind == "multi_label_classification" => {
            Ok(Head::MultiLabel { labels })
        }
        Some(Value::String(kind)) if kind == "regression" && labels == 1 => Ok(Head::Regression),
        Some(found) => Err(Failure::input(format!(
            "`{}`: key `problem_type` is {found} with {labels} labels, expected \
             single_label_classification, multi_label_classification, or regression with one label",
            file.display(),
        ))),
    }
}

fn label_count(config: &EncoderConfig) -> usize {
    let named = config.raw.get("id2label").and_then(Value::as_object).map(serde_json::Map::len);
    let said = config.raw.get("num_labels").and_then(Value::as_u64).map(|count| count as usize);
    named.or(said).filter(|&count| count > 0).unwrap_or(UNSAID_LABELS)
}

fn unnamed(id: usize) -> String {
    format!("LABEL_{id}")
}

/// Refuses a head that does not answer what a task asks.
pub fn check_kind(folder: &Path, head: Head, kind: TaskKind) -> Result<(), Failure> {
    let suits = matches!(
        (kind, head),
        (TaskKind::Classification, Head::SingleLabel { .. })
            | (TaskKind::MultiLabel, Head::MultiLabel { .. })
            | (TaskKind::Regression, Head::Regression)
    );
    if suits {
        return Ok(());
    }
    let model = match head {
        Head::SingleLabel { .. } => "picks one of several labels",
        Head::MultiLabel { .. } => "picks any of several labels",
        Head::Regression => "predicts a number",
        Head::MaskedLm | Head::Embedding => "only embeds texts: it has no classifier",
    };
    let task = match kind {
        TaskKind::Classification => "one label per example",
        TaskKind::MultiLabel => "any number of labels per example",
        TaskKind::Regression => "a number per example",
    };
    Err(Failure::input(format!(
        "the model in `{}` {model}, and the task asks for {task}",
        folder.display()
    )))
}

/// For each label of a task, the output of a model that means it. Names are compared as they are;
/// where one side only counts (`LABEL_0`, `LABEL_1` or `0`, `1`), position decides.
///
/// # Errors
/// Where the labels are not the same set, with both lists.
pub fn output_of_each_label(
    folder: &Path,
    model: &[String],
    task: &[String],
) -> Result<Vec<usize>, Failure> {
    let counted = |names: &[String]| {
        names.iter().enumerate().all(|(id, name)| *name == unnamed(id) || *name == id.to_string())
    };
    let by_name = |name: &String| model.iter().position(|known| known == name);
    let same = model.len() == task.len();
    let named: Option<Vec<usize>> = task.iter().map(by_name).collect();
    let placed = (counted(model) || counted(task)).then(|| (0..task.len()).collect());
    named.or(placed).filter(|_| same).ok_or_else(|| {
        Failure::input(format!(
            "the labels of the model in `{}` are not those of the task\n  model: {}\n  task:  {}\n\
             rename `id2label` in its config.json, or `task.labels`, so that both lists have the \
             same names",
            folder.display(),
            model.join(", "),
            task.join(", "),
        ))
    })
}

/// Puts the columns of `outputs` in the order of a task's labels.
pub fn reorder(outputs: &[f32], order: &[usize]) -> Vec<f32> {
    outputs.chunks_exact(order.len()).flat_map(|row| order.iter().map(|&at| row[at])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn order(model: &[&str], task: &[&str]) -> Result<Vec<usize>, Failure> {
        output_of_each_label(Path::new("m"), &names(model), &names(task))
    }

    #[test]
    fn labels_are_mapped_by_name_and_counted_ones_by_position() {
        let rows: [(&[&str], &[&str], &[usize]); 5] = [
            (&["no", "yes"], &["no", "yes"], &[0, 1]),
            (&["b", "c", "a"], &["a", "b", "c"], &[2, 0, 1]),
            (&["LABEL_0", "LABEL_1"], &["no", "yes"], &[0, 1]),
            (&["negative", "positive"], &["0", "1"], &[0, 1]),
            (&["1", "0"], &["0", "1"], &[1, 0]),
        ];
        for (model, task, want) in rows {
            assert_eq!(order(model, task).unwrap(), want, "{model:?} {task:?}");
        }
    }

    #[test]
    fn labels_of_another_task_are_refused_with_both_lists() {
        for task in [&["no", "maybe"][..], &["no", "yes", "maybe"]] {
            assert_eq!(order(&["no", "yes"], task).unwrap_err().code, 3);
        }
        insta::assert_snapshot!(order(&["no", "yes"], &["no", "maybe"]).unwrap_err(), @r"
        the labels of the model in `m` are not those of the task
          model: no, yes
          task:  no, maybe
        rename `id2label` in its config.json, or `task.labels`, so that both lists have the same names
        ");
    }

    #[test]
    fn columns_move_to_the_labels_they_mean() {
        assert_eq!(reorder(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 0, 1]), [3., 1., 2., 6., 4., 5.]);
    }

    fn head(json: &str) -> Result<Head, Failure> {
        let config = EncoderConfig::parse(Path::new("config.json"), json).unwrap();
        head_of(Path::new("m"), &config)
    }

    #[test]
    fn a_config_says_which_head_stands_on_the_encoder() {
        let bert = |keys: &str| format!(r#"{{"model_type": "bert"{keys}}}"#);
        let classifier = r#", "architectures": ["BertForSequenceClassification"]"#;
        let three = r#", "id2label": {"0": "a", "1": "b", "2": "c"}"#;
        let one = r#", "id2label": {"0": "score"}"#;
        let multi = r#", "problem_type": "multi_label_classification""#;
        let rows = [
            (bert(""), Head::Embedding),
            (bert(r#", "architectures": ["BertModel"]"#), Head::Embedding),
            (bert(r#", "architectures": ["BertForMaskedLM"]"#), Head::Embedding),
            (bert(classifier), Head::SingleLabel { labels: 2 }),
            (bert(&format!("{classifier}{three}")), Head::SingleLabel { labels: 3 }),
            (bert(&format!("{classifier}{three}{multi}")), Head::MultiLabel { labels: 3 }),
            (bert(&format!("{classifier}{one}")), Head::Regression),
        ];
        for (json, want) in rows {
            assert_eq!(head(&json).unwrap(), want, "{json}");
        }
        let other = head(&bert(r#", "architectures": ["BertForTokenClassification"]"#));
        assert_eq!(other.unwrap_err().code, 3);
    }
}
