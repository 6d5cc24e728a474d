//! What a recipe decides by itself, before anything outside is known.
//!
//! In: a [`Recipe`]. Out: which keys belong together, what follows from them, and where the caller
//! must look for the rest. Never: needs a fact. The data are for `task.rs`.

use crate::choices::{
    AverageKind, EvalStrategy, HiddenKind, LabelLoss, Logits, OnNonfinite, TaskKind,
    TeacherTokenizer,
};
use crate::divergence;
use crate::group;
use crate::plan::{Batch, Evaluate, Length};
use crate::policy;
use crate::problem::{Place, ProblemKind, Problems, nearest};
use crate::recipe::{At, Hidden, Recipe, StudentConfig, Teacher};
use crate::regularizer;
use crate::section::numbered;
use crate::stage;
use crate::task::{data, kind, labels_and_metric};
use crate::text;

/// Keys that are ways to say the same thing, by section: at most one may be written, and an override
/// of one replaces the others.
pub(crate) const ALTERNATIVES: &[(&str, &[&str])] = &[
    ("task", &["preset", "kind"]),
    ("student", &["model", "config", "from_teacher"]),
    ("teacher", &["model", "answers"]),
    ("training", &["epochs", "max_steps"]),
    ("training", &["batch_size", "batch_tokens"]),
    ("training", &["micro_batch_size", "micro_batch_tokens"]),
    ("training", &["warmup_ratio", "warmup_steps"]),
    ("training", &["seed", "seeds"]),
];

/// Keys that cannot be together, and where dropping one would silently change what the other means.
pub(crate) const CONFLICTS: &[(&str, &[&str])] = &[
    ("student", &["config", "layers"]),
    ("training", &["gradient_accumulation_steps", "micro_batch_size"]),
    ("training", &["gradient_accumulation_steps", "micro_batch_tokens"]),
    ("training", &["gradient_accumulation_steps", "batch_tokens"]),
];

impl Recipe {
    /// Name of the run: as written, else the recipe's file name without its extension.
    pub fn name(&self) -> String {
        if let Some(name) = value(&self.top.name) {
            return name;
        }
        let stem = std::path::Path::new(&self.file).file_stem().and_then(|stem| stem.to_str());
        stem.unwrap_or("run").to_owned()
    }

    /// What one optimiser step reads, and what is computed at once.
    pub fn batches(&self) -> (Batch, Batch) {
        batches(self)
    }

    /// Whether it trains a language model: whether it has a `[text]` and no `[task]`.
    pub fn is_language(&self) -> bool {
        self.text.place.is_some()
    }

    /// The longest input, in tokens, and the key that says it.
    pub(crate) fn longest(&self) -> (&'static str, u64) {
        if self.is_language() {
            ("text.sequence_length", self.text.sequence_length())
        } else {
            ("task.max_length", self.task.max_length())
        }
    }

    /// Folder of the model that the student starts from, where there is one.
    pub fn student_path(&self) -> Option<&str> {
        self.student.model.as_ref().map(|at| at.value.as_str())
    }

    /// Folder of the teacher, where there is one.
    pub fn teacher_path(&self) -> Option<&str> {
        self.teacher.model.as_ref().map(|at| at.value.as_str())
    }

    /// Folder of a teacher's kept answers, where there is one.
    pub fn cache_path(&self) -> Option<&str> {
        self.teacher.cache.as_ref().map(|at| at.value.as_str())
    }

    /// All teachers, each with what its keys begin with: `teacher`, or `teacher.0` and so on where
    /// there are several.
    pub fn teachers(&self) -> Vec<(String, &Teacher)> {
        if self.teacher.place.is_none() {
            return Vec::new();
        }
        if self.other_teachers.is_empty() {
            return vec![("teacher".to_owned(), &self.teacher)];
        }
        let all = std::iter::once(&self.teacher).chain(&self.other_teachers);
        all.enumerate().map(|(at, teacher)| (numbered("teacher", at), teacher)).collect()
    }

    /// Folder or file of the tokenizer: as written, else the student's folder, else the teacher's.
    pub fn tokenizer_path(&self) -> Option<&str> {
        let written = self.tokenizer.path.as_ref().map(|at| at.value.as_str());
        written.or_else(|| self.student_path()).or_else(|| self.teacher_path())
    }

    /// The seeds to run with, in order.
    pub fn seeds(&self) -> Vec<u64> {
        value(&self.training.seeds)
            .unwrap_or_else(|| vec![value(&self.training.seed).unwrap_or(DEFAULT_SEED)])
    }

    /// Folder of the run.
    pub fn output_dir(&self) -> String {
        value(&self.output.dir).unwrap_or_else(|| format!("runs/{}", self.name()))
    }
}

/// The seed where none is written.
const DEFAULT_SEED: u64 = 42;

/// Sequences per optimiser step where nothing is written, as in BERT's fine-tuning.
const DEFAULT_BATCH: u64 = 32;

/// Most sequences of one step: the address of a random word has 16 bits for them.
pub(crate) const LARGEST_STEP: u64 = 1 << 16;

/// Tokens computed at once where nothing is written: large enough for full speed, small enough for
/// the activations of a base model to fit into a few gigabytes.
const DEFAULT_MICRO_TOKENS: u64 = 8192;

/// Says all that can be said about a recipe without facts.
pub(crate) fn check(recipe: &Recipe, problems: &mut Problems) {
    if recipe.is_language() {
        text::check(recipe, problems);
    } else {
        data(recipe, problems);
    }
    check_models(recipe, problems);
    if recipe.is_language() {
        text::check_objective(recipe, problems);
    } else {
        check_objective(recipe, problems);
    }
    check_training(recipe, problems);
    group::check(recipe, problems);
    stage::check(recipe, problems);
}

fn check_models(recipe: &Recipe, problems: &mut Problems) {
    let (student, teacher) = (&recipe.student, &recipe.teacher);
    let place = student.place.clone().unwrap_or(Place::Whole);
    if student.model.is_none() && student.config.is_none() && student.from_teacher.is_none() {
        let keys = ["model", "config", "from_teacher"].map(|key| format!("student.{key}")).to_vec();
        let meaning = "where the student's weights come from".to_owned();
        problems.push(place, ProblemKind::NoneOf { keys, meaning });
    }
    let is_live = |teacher: &Teacher| value(&teacher.logits) == Some(Logits::Live);
    for (path, teacher) in recipe.teachers() {
        check_teacher(recipe, &path, teacher, problems);
        if let Some(at) = teacher.logits.as_ref().filter(|_| is_live(teacher))
            && !recipe.is_language()
            && !recipe.teachers().iter().all(|(_, other)| is_live(other))
        {
            let needed =
                "the same of every teacher: all are asked beforehand, or all at every step";
            needs(at, &format!("{path}.logits"), needed, problems);
        }
    }
    if let Some(at) = student.from_teacher.as_ref().filter(|_| !recipe.other_teachers.is_empty()) {
        let needed =
            "one `[teacher]`; of several, name the folder to start from in `student.model`";
        needs(at, "student.from_teacher", needed, problems);
    }
    if let Some(at) = student.from_teacher.as_ref().filter(|_| teacher.place.is_none()) {
        needs(at, "student.from_teacher", "`teacher.model`", problems);
    }
    if let Some(at) = &student.config {
        check_config(recipe, at, problems);
        if recipe.tokenizer_path().is_none() && teacher.place.is_none() {
            needs(at, "student.config", "`tokenizer.path`, as it comes without tokens", problems);
        }
    }
}

fn check_teacher(recipe: &Recipe, path: &str, teacher: &Teacher, problems: &mut Problems) {
    let key = |name: &str| format!("{path}.{name}");
    if let Some(at) = teacher.cache.as_ref().filter(|_| !recipe.is_language()) {
        needs(at, &key("cache"), "a `[text]`; a task's teacher keeps its answers itself", problems);
    }
    if let Some(at) = &teacher.answers {
        check_answers(recipe, (path, teacher), at, problems);
    } else if let (Some(place), None, None) = (&teacher.place, &teacher.model, &teacher.cache) {
        let meaning = match recipe.is_language() {
            false => {
                "the folder of a model fine-tuned on the task, or in its place `answers`, a file of \
                 them; or remove [teacher]"
            }
            true => {
                "the folder of a trained model, or in its place `cache`, that of kept answers; or remove \
                 [teacher]"
            }
        };
        missing(place.clone(), &key("model"), meaning, problems);
    }
    if let Some(at) = &teacher.batch_tokens {
        check_tokens(recipe, at, &key("batch_tokens"), problems);
    }
    if let Some(at) = teacher.weight.as_ref().filter(|_| recipe.other_teachers.is_empty()) {
        let needed = "several teachers, each under `[[teacher]]`; the weight of one against the \
                      labels is `objective.alpha`";
        needs(at, &key("weight"), needed, problems);
    }
    if let Some(at) = &teacher.tokenizer
        && teacher.answers.is_none()
        && at.value == TeacherTokenizer::Own
        && (value(&teacher.logits) == Some(Logits::Live)
            || value(&recipe.objective.hidden).is_some_and(|hidden| !hidden.is_empty()))
    {
        let needed = "`logits = \"cache\"` and no `[[objective.hidden]]`; a teacher that answers at \
                      every step reads the student's tokens";
        needs(at, &key("tokenizer"), needed, problems);
    }
}

/// What a file of answers cannot be asked for.
fn check_answers(
    recipe: &Recipe,
    (path, teacher): (&str, &Teacher),
    at: &At<String>,
    problems: &mut Problems,
) {
    let key = |name: &str| format!("{path}.{name}");
    if recipe.is_language() {
        let needed =
            "a `[task]`; answers to a `[text]` are those of `heirloom cache`, under `cache`";
        return needs(at, &key("answers"), needed, problems);
    }
    let without = "no `answers`; a file of answers stands in the place of a model";
    // Of one `[teacher]` that was said before.
    if let Some(at) = teacher.model.as_ref().filter(|_| !recipe.other_teachers.is_empty()) {
        needs(at, &key("model"), without, problems);
    }
    if let Some(at) = &teacher.batch_tokens {
        needs(at, &key("batch_tokens"), without, problems);
    }
    if let Some(at) = &teacher.tokenizer {
        needs(at, &key("tokenizer"), without, problems);
    }
    if let Some(at) = teacher.logits.as_ref().filter(|at| at.value == Logits::Live) {
        needs(at, &key("logits"), without, problems);
    }
    if let Some(hidden) = recipe.objective.hidden.as_ref().filter(|hidden| !hidden.value.is_empty())
    {
        let needed = "`teacher.model` in place of `teacher.answers`, which have no inside";
        needs(hidden, "objective.hidden", needed, problems);
    }
    if let Some(at) = &recipe.student.from_teacher {
        needs(at, "student.from_teacher", "`teacher.model`, whose weights it copies", problems);
    }
}

fn check_config(recipe: &Recipe, at: &At<StudentConfig>, problems: &mut Problems) {
    let config = &at.value;
    let place = || config.place.clone().unwrap_or(Place::Whole);
    let required = [
        ("model_type", config.model_type.is_some(), text::architectures(recipe)),
        ("hidden_size", config.hidden_size.is_some(), "the width of the hidden states"),
        ("num_hidden_layers", config.num_hidden_layers.is_some(), "how many layers"),
        ("num_attention_heads", config.num_attention_heads.is_some(), "how many heads"),
    ];
    for (key, found, meaning) in required {
        if !found {
            missing(place(), &format!("student.config.{key}"), meaning, problems);
        }
    }
    text::check_config(recipe, config, problems);
    // Heads with a width of their own need not divide the model's.
    let width = value(&config.hidden_size).filter(|_| config.head_dim.is_none());
    if let (Some(heads), Some(width)) = (&config.num_attention_heads, width) {
        let key = "student.config.num_attention_heads";
        heads_divide(&heads.place, key, heads.value, "student", width, problems);
    }
}

/// Says so where `heads` do not divide `width`.
pub(crate) fn heads_divide(
    place: &Place,
    key: &str,
    heads: u64,
    model: &'static str,
    width: u64,
    problems: &mut Problems,
) {
    if width.is_multiple_of(heads) {
        return;
    }
    let divides = |heads: &u64| width.is_multiple_of(*heads);
    let below = (1..heads.min(width)).rev().find(divides).unwrap_or(1);
    let divisors = match (heads + 1..=width).find(divides) {
        Some(above) => format!("{below} or {above} would"),
        None => format!("{below} would"),
    };
    let key = key.to_owned();
    let kind = ProblemKind::HeadsDoNotDivide { key, heads, model, width, divisors };
    problems.push(place.clone(), kind);
}

fn check_objective(recipe: &Recipe, problems: &mut Problems) {
    let objective = &recipe.objective;
    let no_teacher = recipe.teacher.place.is_none();
    if let Some(at) = objective.alpha.as_ref().filter(|at| no_teacher && at.value > 0.0) {
        needs(at, "objective.alpha", "a `[teacher]`; without one it is 0", problems);
    }
    // A temperature softens a distribution over classes. Numbers and label sets have none: there
    // the teacher's outputs are compared as they are.
    let no_classes = kind(recipe).is_some_and(|kind| kind != TaskKind::Classification);
    let without = if no_teacher {
        "a `[teacher]`; without one it changes nothing"
    } else {
        "`task.kind = \"classification\"`; the outputs of other tasks are compared as they are"
    };
    divergence::check(objective, (no_teacher || no_classes).then_some(without), problems);
    if let (Some(at), Some(data)) = (&objective.label_loss, kind(recipe)) {
        let fitting = label_loss(data);
        if at.value != fitting {
            let expected = format!("`{fitting}` for a {data} task");
            let found = format!("\"{}\"", at.value);
            wrong(at, "objective.label_loss", found, expected, None, problems);
        }
    }
    let needed = "`[text]`, a language model's";
    if let Some(at) = &objective.temperature_end {
        needs(at, "objective.temperature_end", needed, problems);
    }
    if let Some(at) = &objective.until_overtaken {
        needs(at, "objective.until_overtaken", needed, problems);
    }
    if let Some(at) = &objective.uld {
        needs(at, "objective.uld", needed, problems);
    }
    if let Some(at) = &objective.on_policy {
        needs(at, "objective.on_policy", needed, problems);
    }
    if let Some(at) = &recipe.teacher.vocabulary {
        needs(at, "teacher.vocabulary", needed, problems);
    }
    if let Some(at) = &objective.missing {
        needs(at, "objective.missing", needed, problems);
    }
    policy::check(recipe, problems);
    regularizer::check(recipe, problems);
    let Some(hidden) = &objective.hidden else { return };
    if no_teacher && !hidden.value.is_empty() {
        needs(hidden, "objective.hidden", "a `[teacher]` to compare with", problems);
    }
    if !recipe.other_teachers.is_empty() && !hidden.value.is_empty() {
        needs(hidden, "objective.hidden", "one `[teacher]`, into which it looks", problems);
    }
    if let Some(at) = &recipe.teacher.logits
        && at.value == Logits::Cache
        && !hidden.value.is_empty()
    {
        let needed = "no `[[objective.hidden]]`; hidden states are not cached, so write \
                      `logits = \"live\"`";
        needs(at, "teacher.logits", needed, problems);
    }
    check_terms(&hidden.value, problems);
}

/// What can be said of each term on the inside by itself.
pub(crate) fn check_terms(terms: &[Hidden], problems: &mut Problems) {
    for (index, term) in terms.iter().enumerate() {
        check_hidden(&format!("objective.hidden.{index}"), term, problems);
    }
}

fn check_hidden(path: &str, term: &Hidden, problems: &mut Problems) {
    let Some(kind) = &term.kind else {
        let place = term.place.clone().unwrap_or(Place::Whole);
        let meaning = "mse, cosine, normalized_mse or attention_relation";
        return missing(place, &format!("{path}.kind"), meaning, problems);
    };
    let key = |name: &str| format!("{path}.{name}");
    if kind.value == HiddenKind::AttentionRelation {
        let needed = "another `kind`; attention_relation compares all positions, without a map";
        if let Some(at) = term.position.as_ref() {
            needs(at, &key("position"), needed, problems);
        }
        if let Some(at) = term.projection.as_ref() {
            needs(at, &key("projection"), needed, problems);
        }
    } else {
        let needed = "`kind = \"attention_relation\"`";
        if let Some(at) = term.relation.as_ref() {
            needs(at, &key("relation"), needed, problems);
        }
        if let Some(at) = term.relation_heads.as_ref() {
            needs(at, &key("relation_heads"), needed, problems);
        }
    }
}

/// The loss on labels that fits a task.
pub(crate) fn label_loss(kind: TaskKind) -> LabelLoss {
    match kind {
        TaskKind::Classification => LabelLoss::CrossEntropy,
        TaskKind::MultiLabel => LabelLoss::Bce,
        TaskKind::Regression => LabelLoss::Mse,
    }
}

fn check_training(recipe: &Recipe, problems: &mut Problems) {
    let training = &recipe.training;
    for (key, at) in [
        ("training.batch_tokens", &training.batch_tokens),
        ("training.micro_batch_tokens", &training.micro_batch_tokens),
    ] {
        if let Some(at) = at {
            check_tokens(recipe, at, key, problems);
        }
    }
    let sizes = [
        ("training.gradient_accumulation_steps", &training.gradient_accumulation_steps),
        ("training.batch_size", &training.batch_size),
    ];
    let written = sizes.into_iter().find_map(|(key, at)| Some((key, at.as_ref()?)));
    if let (Some((key, at)), (Batch::Sequences(sequences), _)) = (written, batches(recipe))
        && sequences > LARGEST_STEP
    {
        let kind = ProblemKind::BatchTooLarge { key, sequences, most: LARGEST_STEP };
        problems.push(at.place.clone(), kind);
    }
    let strategy = value(&training.eval_strategy);
    match (&training.eval_strategy, &training.eval_steps) {
        (Some(at), None) if at.value == EvalStrategy::Steps => {
            needs(at, "training.eval_strategy", "`training.eval_steps`, how many", problems);
        }
        (Some(strategy), Some(at)) if strategy.value != EvalStrategy::Steps => {
            needs(at, "training.eval_steps", "`eval_strategy = \"steps\"`, or none", problems);
        }
        _ => {}
    }
    if strategy == Some(EvalStrategy::Never) {
        let needed = "evaluations, but `eval_strategy` is \"never\"";
        if let Some(at) = &training.early_stopping_patience {
            needs(at, "training.early_stopping_patience", needed, problems);
        }
        if let Some(at) = &training.metric_for_best {
            needs(at, "training.metric_for_best", needed, problems);
        }
    }
    if let Some(at) = &training.nonfinite_limit
        && training.on_nonfinite() == OnNonfinite::Stop
    {
        needs(at, "training.nonfinite_limit", "`on_nonfinite = \"skip\"`", problems);
    }
    let ema = "`average = \"ema\"`";
    let swa = "`average = \"swa\"`";
    if let (Some(at), false) = (&training.average_decay, training.average() == AverageKind::Ema) {
        needs(at, "training.average_decay", ema, problems);
    }
    if training.average() != AverageKind::Swa {
        if let Some(at) = &training.average_from {
            needs(at, "training.average_from", swa, problems);
        }
        if let Some(at) = &training.average_every {
            needs(at, "training.average_every", swa, problems);
        }
    }
    check_metric_for_best(recipe, problems);
}

fn check_metric_for_best(recipe: &Recipe, problems: &mut Problems) {
    let mut quiet = Problems::new(&recipe.file);
    let Some(at) = &recipe.training.metric_for_best else { return };
    let names = if recipe.is_language() {
        text::MEASURES.to_vec()
    } else {
        match labels_and_metric(recipe, kind(recipe), &mut quiet) {
            (_, Some(metric)) => [metric.values(), &["loss"]].concat(),
            (_, None) => return,
        }
    };
    if !names.contains(&at.value.as_str()) {
        let shown: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let expected = format!("one of {}", shown.join(", "));
        let nearest = nearest(&at.value, names);
        let found = format!("{:?}", at.value);
        wrong(at, "training.metric_for_best", found, expected, nearest, problems);
    }
}

/// Says so where a budget of tokens does not hold one longest input.
fn check_tokens(recipe: &Recipe, at: &At<u64>, key: &str, problems: &mut Problems) {
    let (name, longest) = recipe.longest();
    if at.value < longest {
        let expected = format!("at least `{name}`, {longest}");
        wrong(at, key, at.value.to_string(), expected, None, problems);
    }
}

/// What one optimiser step reads, and what is computed at once.
pub(crate) fn batches(recipe: &Recipe) -> (Batch, Batch) {
    let training = &recipe.training;
    let size = value(&training.batch_size).unwrap_or(DEFAULT_BATCH);
    if let Some(parts) = value(&training.gradient_accumulation_steps) {
        // As elsewhere, `batch_size` is then the size of a micro-batch.
        return (Batch::Sequences(size.saturating_mul(parts)), Batch::Sequences(size));
    }
    let batch = value(&training.batch_tokens).map_or(Batch::Sequences(size), Batch::Tokens);
    let micro_batch = match (value(&training.micro_batch_size), batch) {
        (Some(micro), Batch::Sequences(size)) => Batch::Sequences(micro.min(size)),
        (Some(micro), Batch::Tokens(_)) => Batch::Sequences(micro),
        (None, _) => {
            let (_, longest) = recipe.longest();
            let tokens = value(&training.micro_batch_tokens).unwrap_or(DEFAULT_MICRO_TOKENS);
            Batch::Tokens(tokens.max(longest))
        }
    };
    (batch, micro_batch)
}

/// The length as asked for.
pub(crate) fn length(recipe: &Recipe) -> Length {
    let epochs = || Length::Epochs(value(&recipe.training.epochs).unwrap_or(3.0));
    value(&recipe.training.max_steps).map_or_else(epochs, Length::Steps)
}

/// When to evaluate.
pub(crate) fn evaluate(recipe: &Recipe) -> Evaluate {
    let training = &recipe.training;
    match (value(&training.eval_steps), value(&training.eval_strategy)) {
        (Some(steps), _) => Evaluate::EverySteps(steps),
        (None, Some(EvalStrategy::End)) => Evaluate::AtEnd,
        (None, Some(EvalStrategy::Never)) => Evaluate::Never,
        // `steps` without `eval_steps` was refused at the door.
        (None, Some(EvalStrategy::Epoch | EvalStrategy::Steps) | None) => Evaluate::EveryEpoch,
    }
}

/// The value, where one is written.
pub(crate) fn value<T: Clone>(at: &Option<At<T>>) -> Option<T> {
    at.as_ref().map(|at| at.value.clone())
}

pub(crate) fn missing(place: Place, key: &str, meaning: &str, problems: &mut Problems) {
    let (key, meaning) = (key.to_owned(), meaning.to_owned());
    problems.push(place, ProblemKind::Missing { key, meaning });
}

pub(crate) fn needs<T>(at: &At<T>, key: &str, what: &str, problems: &mut Problems) {
    let (key, needs) = (key.to_owned(), what.to_owned());
    problems.push(at.place.clone(), ProblemKind::Needs { key, needs });
}

pub(crate) fn wrong<T>(
    at: &At<T>,
    key: &str,
    found: String,
    expected: String,
    nearest: Option<String>,
    problems: &mut Problems,
) {
    let key = key.to_owned();
    problems.push(at.place.clone(), ProblemKind::WrongValue { key, found, expected, nearest });
}
