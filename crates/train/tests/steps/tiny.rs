//! A run small enough for a test: 24 texts of 2 to 16 tokens, and the models of
//! `fixtures/encoders` (width 16, two layers, a vocabulary of 60).

use std::path::{Path, PathBuf};

use heirloom_base::{Bytes, Digest};
use heirloom_data::dataset::{Dataset, KeepTexts};
use heirloom_data::label::{Labels, RawLabel};
use heirloom_data::source::{Row, Rows};
use heirloom_data::tokens::Tokenizer;
use heirloom_engine::{Cpu, Reference};
use heirloom_models::EncoderConfig;
use heirloom_recipe::{
    Activation, Facts, ModelFacts, ModelShape, ModelType, Plan, TokenizerFacts, parse, resolve,
};
use heirloom_store::RealDisk;
use heirloom_train::{
    Device, Job, Own, StepRecord, StudentWeights, TeacherJob, TeacherModel, Trainer,
};

const EXAMPLES: usize = 24;

/// How far an optimiser moves a weight in one step, at most.
pub(crate) const LEARNING_RATE: f32 = 0.01;

/// What is predicted, and which of the fixtures knows it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Task {
    /// One of three labels; every eighth example has none.
    Classification,
    /// One of three labels, and every example has one.
    Labelled,
    /// Any of three labels.
    MultiLabel,
    /// A number.
    Regression,
}

impl Task {
    fn fixture(self) -> PathBuf {
        let name = match self {
            Self::Classification | Self::Labelled => "bert-single",
            Self::MultiLabel => "bert-multi",
            Self::Regression => "bert-regression",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoders").join(name)
    }

    fn recipe(self, teacher: bool) -> String {
        let (kind, labels) = match self {
            Self::Classification | Self::Labelled => ("classification", LABELS),
            Self::MultiLabel => ("multi_label", LABELS),
            Self::Regression => ("regression", ""),
        };
        let teacher = if teacher { "[teacher]\nmodel = \"teacher\"\n" } else { "" };
        format!(
            r#"
            name = "tiny"
            [task]
            kind = "{kind}"
            {labels}
            path = "data"
            train = "train.tsv"
            validation = "dev.tsv"
            text = "text"
            label = "label"
            max_length = 16
            [tokenizer]
            path = "vocab.txt"
            [student]
            config = {{ model_type = "bert", hidden_size = 16, num_hidden_layers = 2, num_attention_heads = 2, intermediate_size = 32, max_position_embeddings = 24 }}
            hidden_dropout_prob = 0.1
            attention_probs_dropout_prob = 0.1
            classifier_dropout = 0.1
            {teacher}
            [training]
            max_steps = 3
            learning_rate = {LEARNING_RATE}
            warmup_steps = 0
            eval_strategy = "never"
            "#
        )
    }

    fn labels(self) -> Labels {
        match self {
            Self::Classification | Self::Labelled => Labels::classes(["a", "b", "c"]),
            Self::MultiLabel => Labels::multi(["a", "b", "c"], ';'),
            Self::Regression => Labels::score(),
        }
    }

    fn label(self, example: usize) -> RawLabel {
        match self {
            Self::Classification if example % 8 == 3 => RawLabel::Missing,
            Self::Classification | Self::Labelled => RawLabel::Integer(example as i64 % 3),
            Self::MultiLabel => RawLabel::Text(["a;c", "b", "", "a;b;c"][example % 4].to_owned()),
            Self::Regression => RawLabel::Float(example as f64 / 5.0 - 2.0),
        }
    }
}

const LABELS: &str = r#"labels = ["a", "b", "c"]"#;

/// The vocabulary's words follow its special tokens.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const VOCABULARY: usize = 60;

/// The text of an example: 0 to 14 words.
fn text(example: usize) -> String {
    let words = (0..(5 * example + example * example) % 15)
        .map(|at| format!("w{}", (7 * example + 3 * at * at) % (VOCABULARY - SPECIAL.len())));
    words.collect::<Vec<_>>().join(" ")
}

/// The token of the first word of an example's text.
pub(crate) fn first_word(example: usize) -> usize {
    SPECIAL.len() + 7 * example % (VOCABULARY - SPECIAL.len())
}

/// A run of three steps, without a teacher or with the fixture as its teacher; `sets` are changes
/// to its recipe, and `folder` keeps the teacher's answers.
pub(crate) fn job(task: Task, teacher: bool, sets: &[&str], folder: &Path) -> Job {
    let fixture = task.fixture();
    let vocabulary: Vec<String> = SPECIAL
        .map(str::to_owned)
        .into_iter()
        .chain((0..VOCABULARY - SPECIAL.len()).map(|word| format!("w{word}")))
        .collect();
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary.join("\n"), true).unwrap();
    let row = |example| Row {
        line: example as u64 + 1,
        text: text(example),
        pair: None,
        label: task.label(example),
    };
    let rows = Rows::of((0..EXAMPLES).map(row).collect());
    let train = Dataset::build(&rows, task.labels(), &tokenizer, 16, KeepTexts::No).unwrap();
    let config = EncoderConfig::open(&fixture).unwrap();
    let plan = plan(&task.recipe(teacher), sets, &train, &tokenizer, &config);
    let shape = plan.student.shape;
    let student_config = EncoderConfig {
        hidden_dropout: shape.hidden_dropout_prob as f32,
        attention_dropout: shape.attention_probs_dropout_prob as f32,
        classifier_dropout: shape.classifier_dropout as f32,
        // Ten times the usual, so that gradients are far from rounding.
        initializer_range: 0.2,
        ..config.clone()
    };
    Job {
        plan,
        train: train.into(),
        validation: None,

        meta: None,
        student_config,
        student_weights: StudentWeights::Fresh,
        teacher: teacher.then_some(TeacherJob::Model(TeacherModel {
            path: fixture,
            config,
            own: None,
        })),
        other_teachers: Vec::new(),
        tokenizer_files: tokenizer.files().clone(),
        cache_dir: folder.to_owned(),
        own: Own::default(),
    }
}

fn plan(
    recipe: &str,
    sets: &[&str],
    train: &Dataset,
    tokenizer: &Tokenizer,
    teacher: &EncoderConfig,
) -> Plan {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let recipe = parse("tiny.toml", recipe, &sets).unwrap();
    let tokens =
        TokenizerFacts { vocab_size: tokenizer.vocab_size() as u64, digest: tokenizer.digest() };
    let shape = ModelShape {
        model_type: ModelType::Bert,
        vocab_size: teacher.vocab_size as u64,
        hidden_size: teacher.hidden_size as u64,
        num_hidden_layers: teacher.layers as u64,
        num_attention_heads: teacher.heads as u64,
        intermediate_size: teacher.intermediate_size as u64,
        hidden_act: Activation::Gelu,
        max_position_embeddings: teacher.max_positions as u64,
        type_vocab_size: teacher.token_types as u64,
        layer_norm_eps: teacher.layer_norm_eps,
        initializer_range: teacher.initializer_range,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        classifier_dropout: 0.0,
    };
    let labels = match train.labels().outputs() {
        1 => vec!["LABEL_0".to_owned()],
        _ => train.labels().names.clone(),
    };
    // Each task has a teacher of its own.
    let name = format!("{:?}", train.labels());
    let facts = Facts {
        train_examples: train.len() as u64,
        unlabelled_examples: 0,
        train_tokens: train.lengths().unwrap().total,
        steps_per_epoch: None,
        validation_examples: 0,
        labels: train.labels().names.clone(),
        data: train.digest(),
        tokenizer: tokens,
        teacher_tokenizer: Some(tokens),
        first_difference: None,
        student: None,
        teacher: Some(ModelFacts {
            shape,
            labels,
            digest: Digest::of(name.as_bytes()),
            grown: None,
        }),
        other_teachers: Vec::new(),
        answers: Vec::new(),
        memory: Bytes(1 << 33),
        threads: 1,
    };
    resolve(&recipe, &facts).unwrap()
}

/// Double precision by plain loops.
pub(crate) fn double() -> Device {
    Box::new(Reference::<f64>::new())
}

/// The device that trains.
pub(crate) fn single() -> Device {
    Box::new(Cpu::new(1))
}

/// The trainer of a job.
pub(crate) fn trainer(job: Job, device: fn() -> Device) -> Trainer {
    Trainer::new(job, &RealDisk, &mut |_| device()).unwrap()
}

/// What a run says and leaves.
pub(crate) struct Run {
    /// Its steps.
    pub(crate) steps: Vec<StepRecord>,
    /// Its weights at the end.
    pub(crate) weights: Vec<(String, Vec<usize>, Vec<f32>)>,
}

/// The whole run of a job.
pub(crate) fn run(job: Job, device: fn() -> Device) -> Run {
    let mut trainer = trainer(job, device);
    let mut steps = Vec::new();
    while !trainer.progress().finished {
        steps.push(trainer.step().unwrap());
    }
    Run { steps, weights: trainer.weights() }
}
