//! `(Recipe, Facts) → Plan`, or all problems.
//!
//! In: what was written and what was found. Out: a plan in which everything is decided and fits
//! together. Never: looks for a fact itself; equal arguments give equal plans.

use heirloom_base::{Digest, Tokens};

use crate::choices::{
    AverageKind, HiddenKind, Logits, ModelType, Relation, TaskKind, TeacherTokenizer,
};
use crate::decide::{batches, check, evaluate, heads_divide, label_loss, length, value};
use crate::divergence;
use crate::facts::{Facts, ModelFacts, TeacherFacts, TokenDifference, TokenizerFacts};
use crate::group;
use crate::plan::{
    Average, Batch, Compare, DataPlan, EarlyStopping, Evaluate, Examples, FORMAT, HiddenTermPlan,
    Labels, Length, ModelShape, Moments, ObjectivePlan, OutputPlan, Plan, Save, StudentPlan,
    StudentSource, TeacherPlan, TeacherTokens, TokenizerPlan, TrainingPlan,
};
use crate::problem::{Place, ProblemKind, Problems};
use crate::recipe::{At, Hidden, Recipe, StudentConfig, Teacher};
use crate::stage;
use crate::task::data;

/// Decides everything, or says all that stands against it.
pub fn resolve(recipe: &Recipe, facts: &Facts) -> Result<Plan, Problems> {
    let mut problems = Problems::new(&recipe.file);
    check(recipe, &mut problems);
    if problems.count() > 0 {
        return problems.or(None);
    }
    let plan = decided(recipe, facts, &mut problems);
    problems.or(plan)
}

fn decided(recipe: &Recipe, facts: &Facts, problems: &mut Problems) -> Option<Plan> {
    let data = labelled(data(recipe, problems)?, recipe, facts, problems);
    let found = Found {
        model: facts.teacher.as_ref(),
        tokenizer: facts.teacher_tokenizer,
        difference: facts.first_difference.as_ref(),
        answers: facts.answers.first().copied().flatten(),
    };
    let teacher = teacher(&recipe.teacher, recipe, found, &data, problems);
    let others: Vec<Option<TeacherPlan>> = (0..recipe.other_teachers.len())
        .map(|at| {
            let found = facts.other_teachers.get(at).map_or_else(Found::default, Found::of);
            let found = Found { answers: facts.answers.get(1 + at).copied().flatten(), ..found };
            self::teacher(&recipe.other_teachers[at], recipe, found, &data, problems)
        })
        .collect();
    let others: Option<Vec<TeacherPlan>> = others.into_iter().collect();
    let student = student(recipe, facts, problems);
    let tokenizer = tokenizer(recipe, facts.tokenizer, problems);
    let (teacher, student, tokenizer) = (teacher?, student?, tokenizer?);
    let others = others?;
    check_vocabulary(&recipe.teacher, recipe, facts, &student, (&teacher, found), problems);
    for ((written, plan), facts_of) in
        recipe.other_teachers.iter().zip(&others).zip(&facts.other_teachers)
    {
        let found = Found::of(facts_of);
        check_vocabulary(written, recipe, facts, &student, (plan, found), problems);
    }
    let shapes = std::iter::once(&teacher).chain(&others).filter_map(shape).map(|s| ("teacher", s));
    for (model, shape) in std::iter::once(("student", &student.shape)).chain(shapes) {
        let (length, longest) = (data.max_length, shape.longest_input());
        if length > longest {
            let place = place(&recipe.task.max_length, &recipe.task.place);
            problems.push(place, ProblemKind::TooLongFor { length, model, longest });
        }
    }
    let objective = objective(recipe, &data, &student.shape, &teacher, problems);
    let unlabelled = facts.unlabelled_examples;
    let train = data.train_limit.of(facts.train_examples - unlabelled) + unlabelled;
    let examples = Examples {
        train,
        unlabelled,
        train_tokens: limited(facts, train),
        validation: data.validation_limit.of(facts.validation_examples),
        digest: facts.data,
    };
    let amount = Amount {
        examples: &examples,
        steps_per_epoch: facts.steps_per_epoch,
        threads: facts.threads,
        best: data.metric.values()[0],
        train: match &recipe.task.train {
            None if data.train.is_empty() => {
                ("task.unlabelled", place(&recipe.task.unlabelled, &recipe.task.place))
            }
            train => ("task.train", place(train, &recipe.task.place)),
        },
        validation: ("task.validation", place(&recipe.task.validation, &recipe.task.place)),
    };
    let training = training(recipe, &amount, problems);
    let (moments, grown) = {
        let grown = facts.student.as_ref().and_then(|model| model.grown.as_ref());
        group::decide(recipe, grown, problems)
    };
    let mut training = training?;
    training.groups.splice(0..0, grown);
    let student = StudentPlan { moments, ..student };
    Some(Plan {
        format: FORMAT,
        name: recipe.name(),
        data,
        examples,
        tokenizer,
        student,
        teacher,
        other_teachers: others,
        objective: objective?,
        training,
        output: OutputPlan { dir: recipe.output_dir(), save_model: recipe.output.save_model() },
    })
}

/// The tokens of the first `examples`, by the mean length.
fn limited(facts: &Facts, examples: u64) -> Tokens {
    if examples >= facts.train_examples {
        return facts.train_tokens;
    }
    let all = u128::from(facts.train_tokens.0) * u128::from(examples);
    let tokens = all / u128::from(facts.train_examples.max(1));
    Tokens(u64::try_from(tokens).unwrap_or(u64::MAX))
}

fn labelled(data: DataPlan, recipe: &Recipe, facts: &Facts, problems: &mut Problems) -> DataPlan {
    let names = match &data.labels {
        Labels::Named(names) => names.clone(),
        Labels::Found => facts.labels.clone(),
    };
    if data.kind != TaskKind::Regression && names.len() < 2 {
        let place = place(&recipe.task.label, &recipe.task.place);
        problems.push(place, ProblemKind::TooFewLabels { found: names.clone() });
    }
    DataPlan { labels: Labels::Named(names), ..data }
}

/// What was found of one teacher.
#[derive(Clone, Copy, Default)]
struct Found<'a> {
    model: Option<&'a ModelFacts>,
    tokenizer: Option<TokenizerFacts>,
    difference: Option<&'a TokenDifference>,
    /// Digest of a file of answers.
    answers: Option<Digest>,
}

impl<'a> Found<'a> {
    fn of(facts: &'a TeacherFacts) -> Self {
        let TeacherFacts { model, tokenizer, first_difference } = facts;
        Self {
            model: model.as_ref(),
            tokenizer: *tokenizer,
            difference: first_difference.as_ref(),
            answers: None,
        }
    }
}

fn teacher(
    written: &Teacher,
    recipe: &Recipe,
    facts: Found<'_>,
    data: &DataPlan,
    problems: &mut Problems,
) -> Option<TeacherPlan> {
    if let (Some(at), Some(digest)) = (&written.answers, facts.answers) {
        return Some(TeacherPlan::Answers { path: at.value.clone(), digest });
    }
    let Some(at) = &written.model else { return Some(TeacherPlan::Nobody) };
    let Some(found) = facts.model else {
        problems.push(at.place.clone(), ProblemKind::Unknown { what: at.value.clone() });
        return None;
    };
    check_labels(at, found, data, problems);
    let tokens = match (written.tokenizer(), facts.tokenizer) {
        (TeacherTokenizer::Shared, _) => TeacherTokens::Shared,
        (TeacherTokenizer::Own, Some(own)) => TeacherTokens::Own { digest: own.digest },
        (TeacherTokenizer::Own, None) => {
            let what = format!("a tokenizer in {}", at.value);
            problems.push(at.place.clone(), ProblemKind::Unknown { what });
            return None;
        }
    };
    let hidden = value(&recipe.objective.hidden).unwrap_or_default();
    let logits = if hidden.is_empty() { Logits::Cache } else { Logits::Live };
    Some(TeacherPlan::Model {
        path: at.value.clone(),
        digest: found.digest,
        shape: found.shape,
        logits: value(&written.logits).unwrap_or(logits),
        batch_tokens: written.batch_tokens().max(data.max_length),
        tokens,
    })
}

fn check_labels(at: &At<String>, found: &ModelFacts, data: &DataPlan, problems: &mut Problems) {
    let Labels::Named(task) = &data.labels else { return };
    // A regression's model has one output, whatever it is called.
    let wanted = if data.kind == TaskKind::Regression { 1 } else { task.len() };
    if found.labels.len() != wanted {
        let (teacher, task) = (found.labels.len() as u64, wanted as u64);
        problems.push(at.place.clone(), ProblemKind::LabelCount { teacher, task });
        return;
    }
    // Names that were never given (LABEL_0, LABEL_1) say nothing about their order, and plain
    // numbers little: then labels go by position, unless they are the task's in another order.
    let given = |name: &String| !name.starts_with("LABEL_");
    let word = |name: &String| given(name) && name.parse::<u64>().is_err();
    let differ = data.kind != TaskKind::Regression && found.labels != *task;
    let reordered = found.labels.iter().all(|name| given(name) && task.contains(name));
    let other_words = found.labels.iter().any(word) && task.iter().any(word);
    if differ && (reordered || other_words) {
        let (teacher, task) = (found.labels.clone(), task.clone());
        problems.push(at.place.clone(), ProblemKind::LabelNames { teacher, task });
    }
}

fn student(recipe: &Recipe, facts: &Facts, problems: &mut Problems) -> Option<StudentPlan> {
    let student = &recipe.student;
    let mut known = |at: &At<String>, found: &Option<ModelFacts>| {
        if found.is_none() {
            problems.push(at.place.clone(), ProblemKind::Unknown { what: at.value.clone() });
        }
        found.clone()
    };
    let (source, mut shape) = if let Some(at) = &student.model {
        let found = known(at, &facts.student)?;
        let source = StudentSource::Model { path: at.value.clone(), digest: found.digest };
        (source, found.shape)
    } else if let Some(at) = &student.config {
        (StudentSource::Fresh, fresh_shape(&at.value, facts.tokenizer.vocab_size)?)
    } else {
        let at = recipe.teacher.model.as_ref()?;
        let found = known(at, &facts.teacher)?;
        let source = StudentSource::Teacher { path: at.value.clone(), digest: found.digest };
        (source, found.shape)
    };
    let count = shape.num_hidden_layers;
    let layers = value(&student.layers).unwrap_or_else(|| (0..count).collect());
    for layer in layers.iter().filter(|layer| **layer >= count) {
        let kind = ProblemKind::NoSuchLayer {
            key: "student.layers".to_owned(),
            layer: *layer,
            model: "student's source",
            first: 0,
            last: count.saturating_sub(1),
        };
        problems.push(place(&student.layers, &student.place), kind);
    }
    shape.num_hidden_layers = layers.len() as u64;
    for (part, at) in [
        (&mut shape.hidden_dropout_prob, &student.hidden_dropout_prob),
        (&mut shape.attention_probs_dropout_prob, &student.attention_probs_dropout_prob),
        (&mut shape.classifier_dropout, &student.classifier_dropout),
    ] {
        *part = value(at).unwrap_or(*part);
    }
    Some(StudentPlan { source, layers, shape, moments: Moments::Zero })
}

pub(crate) fn fresh_shape(config: &StudentConfig, vocab_size: u64) -> Option<ModelShape> {
    let model_type = value(&config.model_type)?.encoder()?;
    let hidden_size = value(&config.hidden_size)?;
    let (positions, segments, epsilon) = match model_type {
        ModelType::Bert | ModelType::Distilbert => (512, 2, 1e-12),
        ModelType::Roberta => (514, 1, 1e-5),
    };
    Some(ModelShape {
        model_type,
        vocab_size,
        hidden_size,
        num_hidden_layers: value(&config.num_hidden_layers)?,
        num_attention_heads: value(&config.num_attention_heads)?,
        intermediate_size: value(&config.intermediate_size).unwrap_or(4 * hidden_size),
        hidden_act: config.hidden_act(),
        max_position_embeddings: value(&config.max_position_embeddings).unwrap_or(positions),
        type_vocab_size: value(&config.type_vocab_size).unwrap_or(segments),
        layer_norm_eps: value(&config.layer_norm_eps).unwrap_or(epsilon),
        initializer_range: config.initializer_range(),
        hidden_dropout_prob: USUAL_DROPOUT,
        attention_probs_dropout_prob: USUAL_DROPOUT,
        classifier_dropout: USUAL_DROPOUT,
    })
}

/// Dropout of a fresh model: BERT's (Devlin et al. 2019, arXiv:1810.04805, appendix A.2).
pub(crate) const USUAL_DROPOUT: f64 = 0.1;

pub(crate) fn tokenizer(
    recipe: &Recipe,
    facts: TokenizerFacts,
    problems: &mut Problems,
) -> Option<TokenizerPlan> {
    let Some(path) = recipe.tokenizer_path() else {
        let (key, meaning) = ("tokenizer.path".to_owned(), "where the tokens are".to_owned());
        problems.push(Place::Whole, ProblemKind::Missing { key, meaning });
        return None;
    };
    Some(TokenizerPlan {
        path: path.to_owned(),
        lowercase: recipe.tokenizer.lowercase(),
        vocab_size: facts.vocab_size,
        digest: facts.digest,
    })
}

/// Says so where a teacher reads tokens that are not its own, or a model has no embeddings for some.
fn check_vocabulary(
    written: &Teacher,
    recipe: &Recipe,
    facts: &Facts,
    student: &StudentPlan,
    (teacher, found): (&TeacherPlan, Found<'_>),
    problems: &mut Problems,
) {
    let ours = facts.tokenizer;
    let place = place(&written.model, &written.place);
    let own = written.tokenizer() == TeacherTokenizer::Own;
    let difference = found.difference.map(TokenDifference::words);
    let other = found.tokenizer.filter(|theirs| !own && theirs.digest != ours.digest);
    if let Some(theirs) = other {
        let (teacher, student) = (theirs.vocab_size, ours.vocab_size);
        let kind = if teacher == student {
            ProblemKind::Tokenizer { tokens: student, difference }
        } else {
            ProblemKind::Vocabulary { teacher, student, difference }
        };
        problems.push(place, kind);
        return;
    }
    let theirs = found.tokenizer.filter(|_| own).unwrap_or(ours);
    let models = [
        Some(("student", ours, &student.shape)),
        shape(teacher).map(|shape| ("teacher", theirs, shape)),
    ];
    for (model, reads, shape) in models.into_iter().flatten() {
        if reads.vocab_size > shape.vocab_size {
            let (tokenizer, embeddings) = (reads.vocab_size, shape.vocab_size);
            let kind = ProblemKind::TokenizerTooLarge { tokenizer, model, embeddings };
            let tokenizer = &recipe.tokenizer;
            problems.push(self::place(&tokenizer.path, &tokenizer.place), kind);
        }
    }
}

fn shape(teacher: &TeacherPlan) -> Option<&ModelShape> {
    match teacher {
        TeacherPlan::Nobody | TeacherPlan::Answers { .. } => None,
        TeacherPlan::Model { shape, .. } => Some(shape),
    }
}

fn objective(
    recipe: &Recipe,
    data: &DataPlan,
    student: &ModelShape,
    teacher: &TeacherPlan,
    problems: &mut Problems,
) -> Option<ObjectivePlan> {
    let objective = &recipe.objective;
    if let Labels::Named(names) = &data.labels {
        divergence::check_labels(objective, names.len(), problems);
    }
    let (usual_alpha, terms) = match teacher {
        TeacherPlan::Nobody => (0.0, Some(Vec::new())),
        TeacherPlan::Answers { .. } => (0.5, Some(Vec::new())),
        TeacherPlan::Model { shape, .. } => {
            (0.5, hidden_terms(recipe, [student, shape].map(InsideShape::of), problems))
        }
    };
    // Where no training text has a label, there is the teacher alone.
    let usual_alpha = if data.train.is_empty() { 1.0 } else { usual_alpha };
    Some(ObjectivePlan {
        alpha: value(&objective.alpha).unwrap_or(usual_alpha),
        teacher_parts: teacher_parts(recipe),
        temperature: objective.temperature(),
        scale_by_temperature_squared: objective.scale_by_temperature_squared(),
        divergence: divergence::divergence(objective),
        label_loss: value(&objective.label_loss).unwrap_or_else(|| label_loss(data.kind)),
        hidden: terms?,
        balance: recipe.balance(),
        regularizer: recipe.regularizer(),
        regularizer_meta: recipe.regularizer_meta(),
    })
}

/// Weights of several teachers over their sum; none where there is one.
pub(crate) fn teacher_parts(recipe: &Recipe) -> Vec<f64> {
    if recipe.other_teachers.is_empty() {
        return Vec::new();
    }
    let weights: Vec<f64> = recipe.teachers().iter().map(|(_, teacher)| teacher.weight()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// What terms on the inside must know of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InsideShape {
    pub(crate) hidden_size: u64,
    pub(crate) num_hidden_layers: u64,
    pub(crate) num_attention_heads: u64,
}

impl InsideShape {
    fn of(shape: &ModelShape) -> Self {
        Self {
            hidden_size: shape.hidden_size,
            num_hidden_layers: shape.num_hidden_layers,
            num_attention_heads: shape.num_attention_heads,
        }
    }
}

/// The terms of `[[objective.hidden]]` between student and teacher.
pub(crate) fn hidden_terms(
    recipe: &Recipe,
    [student, teacher]: [InsideShape; 2],
    problems: &mut Problems,
) -> Option<Vec<HiddenTermPlan>> {
    let terms = value(&recipe.objective.hidden).unwrap_or_default();
    let term = |(index, term): (usize, &Hidden)| {
        hidden(&format!("objective.hidden.{index}"), term, &student, &teacher, problems)
    };
    // All of them, so that each one's problems are told.
    let terms: Vec<Option<HiddenTermPlan>> = terms.iter().enumerate().map(term).collect();
    terms.into_iter().collect()
}

fn hidden(
    path: &str,
    term: &Hidden,
    student: &InsideShape,
    teacher: &InsideShape,
    problems: &mut Problems,
) -> Option<HiddenTermPlan> {
    let kind = value(&term.kind)?;
    let layers = pairs(path, term, kind, student, teacher, problems);
    let relates = kind == HiddenKind::AttentionRelation;
    let widths_differ = student.hidden_size != teacher.hidden_size;
    let projection = value(&term.projection).unwrap_or(widths_differ);
    if !relates && widths_differ && !projection {
        let key = format!("{path}.projection");
        let (student, teacher) = (student.hidden_size, teacher.hidden_size);
        let kind = ProblemKind::WidthsDiffer { key, student, teacher };
        problems.push(place(&term.projection, &term.place), kind);
    }
    let heads = value(&term.relation_heads).unwrap_or(student.num_attention_heads);
    if relates {
        let (at, key) =
            (place(&term.relation_heads, &term.place), format!("{path}.relation_heads"));
        heads_divide(&at, &key, heads, "student", student.hidden_size, problems);
        heads_divide(&at, &key, heads, "teacher", teacher.hidden_size, problems);
    }
    let compare = match kind {
        HiddenKind::Mse => Compare::Mse { projection },
        HiddenKind::Cosine => Compare::Cosine { projection },
        HiddenKind::NormalizedMse => Compare::NormalizedMse { projection },
        HiddenKind::AttentionRelation => {
            let relation = value(&term.relation).unwrap_or(Relation::Value);
            Compare::AttentionRelation { relation, heads }
        }
    };
    Some(HiddenTermPlan {
        weight: term.weight(),
        layers: layers?,
        position: term.position(),
        compare,
    })
}

fn pairs(
    path: &str,
    term: &Hidden,
    kind: HiddenKind,
    student: &InsideShape,
    teacher: &InsideShape,
    problems: &mut Problems,
) -> Option<Vec<[u64; 2]>> {
    let key = format!("{path}.layers");
    let (deep, deeper) = (student.num_hidden_layers, teacher.num_hidden_layers);
    let relates = kind == HiddenKind::AttentionRelation;
    let Some(at) = &term.layers else {
        if relates {
            return Some(vec![[deep, deeper]]);
        }
        if deep == 0 || !deeper.is_multiple_of(deep) {
            let kind = ProblemKind::NoLayerMap { key, student: deep, teacher: deeper };
            problems.push(term.place.clone().unwrap_or(Place::Whole), kind);
            return None;
        }
        return Some((0..=deep).map(|layer| [layer, layer * (deeper / deep)]).collect());
    };
    let first = u64::from(relates);
    let pairs = at.value.iter().filter_map(|pair| <[u64; 2]>::try_from(pair.as_slice()).ok());
    let pairs: Vec<[u64; 2]> = pairs.collect();
    for [student, teacher] in &pairs {
        for (layer, model, last) in [(student, "student", deep), (teacher, "teacher", deeper)] {
            if !(first..=last).contains(layer) {
                let (key, layer) = (key.clone(), *layer);
                let kind = ProblemKind::NoSuchLayer { key, layer, model, first, last };
                problems.push(at.place.clone(), kind);
            }
        }
    }
    Some(pairs)
}

/// How much there is to train on, and what steps follow from it.
pub(crate) struct Amount<'a> {
    /// Examples, or rows of a language model.
    pub(crate) examples: &'a Examples,
    /// As counted by packing, where somebody did.
    pub(crate) steps_per_epoch: Option<u64>,
    /// Cores available.
    pub(crate) threads: u64,
    /// The metric that decides where none is named.
    pub(crate) best: &'static str,
    /// The key that names the training set, and its place.
    pub(crate) train: (&'static str, Place),
    /// The key that names the validation set, and its place.
    pub(crate) validation: (&'static str, Place),
}

pub(crate) fn training(
    recipe: &Recipe,
    amount: &Amount<'_>,
    problems: &mut Problems,
) -> Option<TrainingPlan> {
    let training = &recipe.training;
    let (batch, micro_batch) = batches(recipe);
    let evaluate = evaluate(recipe);
    let steps_per_epoch = steps_per_epoch(recipe, amount, batch, problems);
    if evaluate != Evaluate::Never && amount.examples.validation == 0 {
        let (key, place) = amount.validation.clone();
        problems.push(place, ProblemKind::NoExamples { set: "validation", key });
    }
    let length = length(recipe);
    let total_steps = total_steps(recipe, length, steps_per_epoch?, problems)?;
    stage::check_length(recipe, total_steps, problems);
    let warmup_steps = value(&training.warmup_steps).unwrap_or_else(|| {
        let ratio = value(&training.warmup_ratio).unwrap_or(0.1);
        (total_steps as f64 * ratio).ceil() as u64
    });
    let best = || amount.best.to_owned();
    Some(TrainingPlan {
        length,
        total_steps,
        steps_per_epoch: steps_per_epoch?,
        batch,
        micro_batch,
        activation_checkpointing: training.activation_checkpointing(),
        learning_rate: training.learning_rate(),
        lr_scheduler_type: training.lr_scheduler_type(),
        warmup_steps: warmup_steps.min(total_steps),
        weight_decay: training.weight_decay(),
        adam_beta1: training.adam_beta1(),
        adam_beta2: training.adam_beta2(),
        adam_epsilon: training.adam_epsilon(),
        max_grad_norm: training.max_grad_norm(),
        groups: group::of_recipe(recipe),
        stages: stage::decide(recipe),
        average: average(recipe, total_steps, steps_per_epoch?),
        seed: recipe.seeds()[0],
        evaluate,
        save: value(&training.save_steps).map_or(Save::WithEvaluation, Save::EverySteps),
        save_total_limit: training.save_total_limit(),
        early_stopping: value(&training.early_stopping_patience)
            .map_or(EarlyStopping::Never, EarlyStopping::After),
        metric_for_best: value(&training.metric_for_best).unwrap_or_else(best),
        on_nonfinite: training.on_nonfinite(),
        nonfinite_limit: training.nonfinite_limit(),
        precision: training.precision(),
        threads: match training.threads() {
            0 => amount.threads,
            threads => threads,
        },
    })
}

/// Weights that SWA takes at least, where nobody says how often: fewer hardly average.
const LEAST_AVERAGED: u64 = 10;

fn average(recipe: &Recipe, total_steps: u64, steps_per_epoch: u64) -> Average {
    let training = &recipe.training;
    match training.average() {
        AverageKind::None => Average::None,
        AverageKind::Ema => Average::Ema { decay: value(&training.average_decay).unwrap_or(0.999) },
        AverageKind::Swa => {
            let share = value(&training.average_from).unwrap_or(0.5);
            let from_step = ((total_steps as f64 * share).ceil() as u64).min(total_steps);
            let usual = steps_per_epoch.min((total_steps - from_step) / LEAST_AVERAGED).max(1);
            Average::Swa { from_step, every: value(&training.average_every).unwrap_or(usual) }
        }
    }
}

pub(crate) fn steps_per_epoch(
    recipe: &Recipe,
    amount: &Amount<'_>,
    batch: Batch,
    problems: &mut Problems,
) -> Option<u64> {
    let (examples, training) = (amount.examples, &recipe.training);
    let (at, key, size, unit, train) = match batch {
        Batch::Sequences(size) => {
            (&training.batch_size, "training.batch_size", size, "examples", examples.train)
        }
        Batch::Tokens(size) => {
            let train = examples.train_tokens.0;
            (&training.batch_tokens, "training.batch_tokens", size, "tokens", train)
        }
    };
    if examples.train == 0 || train == 0 {
        let (key, place) = amount.train.clone();
        problems.push(place, ProblemKind::NoExamples { set: "training", key });
        return None;
    }
    if train < size {
        let kind = ProblemKind::LessThanOneBatch { key, batch: size, unit, train };
        problems.push(place(at, &training.place), kind);
        return None;
    }
    let estimate = train.div_ceil(size);
    Some(match batch {
        Batch::Sequences(_) => estimate,
        // Texts are not cut where a step is full, so only packing tells.
        Batch::Tokens(_) => amount.steps_per_epoch.map_or(estimate, |steps| steps.max(1)),
    })
}

/// Most steps of a run: the address of a random word has 32 bits for them.
const MOST_STEPS: u64 = u32::MAX as u64;

pub(crate) fn total_steps(
    recipe: &Recipe,
    length: Length,
    steps_per_epoch: u64,
    problems: &mut Problems,
) -> Option<u64> {
    let (key, steps) = match length {
        Length::Epochs(epochs) => {
            // A conversion that saturates; the comparison below then refuses.
            ("training.epochs", (epochs * steps_per_epoch as f64).ceil() as u64)
        }
        Length::Steps(steps) => ("training.max_steps", steps),
    };
    if steps > MOST_STEPS {
        let place = place(&recipe.training.epochs, &recipe.training.place);
        problems.push(place, ProblemKind::TooManySteps { key, steps, most: MOST_STEPS });
        return None;
    }
    Some(steps)
}

/// The place of a key, or of its section where the key is not written.
pub(crate) fn place<T>(at: &Option<At<T>>, section: &Option<Place>) -> Place {
    at.as_ref().map(|at| at.place.clone()).or_else(|| section.clone()).unwrap_or(Place::Whole)
}
