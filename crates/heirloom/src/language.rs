//! From a recipe with a `[text]` to the job of a language model: opens what the recipe names, decides
//! the plan, and refuses what cannot work before a run folder is created.
//!
//! In: a recipe, or the plan of a run folder. Out: a [`LanguageJob`] and what a person should hear
//! first. What is written is the text's tokens, once, where the caller says; never a run.

mod first;
mod kept;
mod limited;
mod memory;
mod shapes;
mod teachers;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use heirloom_answers::Expected;
use heirloom_base::{Digest, Hasher, Tokens};
use heirloom_data::order::{BatchRule, Order};
use heirloom_data::text::{Masker, Masking, PairedRows, Rows};
use heirloom_data::tokens::{Tokenizer, first_difference};
use heirloom_engine::Cpu;
use heirloom_recipe::{
    Batch, Cost, LanguageFacts, LanguageModelFacts, LanguagePlan, LanguageTeacherFacts,
    LanguageTeacherPlan, Limit, Recipe, StudentSource, TextPlan, TokenDifference, TokenizerFacts,
    resolve_language, smoke_language,
};
use heirloom_train::{LanguageConfig, LanguageJob, LanguageTeacher, LanguageWeights};

pub use first::led;
pub use kept::{BATCH_TOKENS, rows_of_runs};
pub use shapes::{config_of, open_config, shape_of};
pub use text::{KeptTokens, OpenedText, open_text, open_validation};

use crate::failure::Failure;
use crate::grow::beside;
use crate::opened::weights_digest;
use crate::places::Places;

use memory::memory;
use teachers::{Beside, NamedTeacher, OpenedTeacher, TeacherModel};

/// The run of a language model, ready to start.
#[derive(Debug)]
pub struct GatheredLanguage {
    /// The run.
    pub job: LanguageJob,
    /// Memory, part by part.
    pub cost: Cost,
    /// What a person should hear before it starts.
    pub notes: Vec<String>,
}

/// Opens what `recipe` names and decides its plan; `kept` says where the text's tokens lie, and
/// `smoke` cuts the run down to a minute. The plan is the first seed's.
///
/// # Errors
/// All that stands against the run.
pub fn gather_language(
    recipe: &Recipe,
    places: &Places,
    kept: &KeptTokens,
    threads: usize,
    smoke: bool,
) -> Result<GatheredLanguage, Failure> {
    let mut wanted = recipe.text()?;
    let folder = places.data("text.path", &wanted.path)?;
    let model = |key: &str, path: Option<&str>| -> Result<Option<PathBuf>, Failure> {
        path.map(|path| places.model(key, path)).transpose()
    };
    let student_path = model("student.model", recipe.student_path())?;
    let tokenizer_path = crate::gather::tokenizer_path(recipe, places)?;
    // Configs and tokenizers first: what is wrong with them is known within a moment.
    let student = student_path.as_deref().map(facts_of).transpose()?;
    let named: Vec<NamedTeacher<'_>> = recipe
        .teachers()
        .into_iter()
        .map(|(key, teacher)| NamedTeacher::find(key, teacher, places))
        .collect::<Result<_, Failure>>()?;
    let tokenizer = Tokenizer::open(&tokenizer_path)?;
    // Recipes that compare by rank have one teacher.
    let first = named.first();
    let first_model = first.and_then(|teacher| teacher.model.as_ref());
    let theirs = first.and_then(|teacher| teacher.tokenizer.as_ref());
    let uld = recipe.objective.uld.is_some();
    if let (true, None, Some(model)) = (uld, theirs, first_model) {
        return Err(Failure::usage(format!(
            "`objective.uld` needs the teacher's own tokenizer, and `{}` holds none",
            model.path.display()
        )));
    }
    // Kept answers are by a row's number among all, of which a smoke run sees few anyway.
    if smoke && (wanted.first.is_some() || named.iter().any(|teacher| teacher.cache.is_some())) {
        wanted.validation_limit = heirloom_recipe::Limit::First(wanted.validation_limit.of(200));
    } else if smoke {
        wanted.train_limit = heirloom_recipe::Limit::First(wanted.train_limit.of(200));
        wanted.validation_limit = heirloom_recipe::Limit::First(wanted.validation_limit.of(200));
    }
    let OpenedText { text, mut train, validation, mut notes, template } =
        open_text(wanted, &folder, &tokenizer, kept)?;
    let pairs = match (&recipe.objective.uld, theirs, first_model) {
        (Some(uld), Some(theirs), Some(teacher)) => {
            let length =
                uld.value.sequence_length.as_ref().map_or(text.sequence_length, |at| at.value);
            let longest = teacher.facts.shape.longest_input();
            if length > longest {
                return Err(Failure::usage(format!(
                    "`objective.uld.sequence_length` is {length}, and the teacher reads at most {longest} \
                     tokens; lower it"
                )));
            }
            let (pairs, note) =
                own_tokens(&text, &folder, [&tokenizer, theirs], length, &mut train)?;
            notes.push(note);
            Some(pairs)
        }
        _ => None,
    };
    let tokens: u64 = (0..train.len()).map(|row| train.length(row) as u64).sum();
    let expected = Expected {
        teacher: None,
        tokenizer: tokenizer.digest(),
        rows: train.digest(),
        chat_template: template,
        temperature: recipe.objective.temperature(),
        vocabulary: vocabulary(recipe, &tokenizer, student.as_ref(), first_model),
    };
    let teachers: Vec<OpenedTeacher> = named
        .into_iter()
        .map(|teacher| teacher.open(places, &expected))
        .collect::<Result<_, Failure>>()?;
    teachers::check_missing(recipe, &teachers)?;
    // The order is no part of what answers are to.
    let mut text = text;
    if let Some(first) = &text.first {
        let (rows, found) = led(first, train, (&tokenizer, template), places)?;
        (train, text.first) = (rows, Some(found));
        notes.push(first_steps(recipe, &*train));
    }
    let found: Vec<LanguageTeacherFacts> =
        teachers.iter().map(|teacher| teacher.facts(&tokenizer)).collect();
    let mut found = found.into_iter();
    let first = found.next().unwrap_or_default();
    let facts = LanguageFacts {
        train_rows: train.len() as u64,
        train_tokens: Tokens(tokens),
        steps_per_epoch: steps_per_epoch(recipe, &*train, recipe.seeds()[0]),
        validation_rows: validation.as_ref().map_or(0, |rows| rows.len() as u64),
        data: digest(&*train, validation.as_deref()),
        tokenizer: tokenizer_facts(&tokenizer),
        student: student.as_ref().map(|(_, facts)| *facts),
        grown: student_path.as_deref().map(beside::facts).transpose()?.flatten(),
        teacher: first.model,
        kept: first.kept,
        teacher_tokenizer: first.tokenizer,
        first_difference: first.first_difference,
        other_teachers: found.collect(),
        threads: threads as u64,
        text,
    };
    let mut plan = resolve_language(recipe, &facts)?;
    teachers::check_kept_terms(&plan)?;
    if smoke {
        smoke_language(&mut plan);
    }
    for kept in teachers.iter().filter_map(|teacher| teacher.kept.as_ref()) {
        let seeds = if smoke { vec![plan.training.seed] } else { recipe.seeds() };
        kept::check_rows(kept, &*train, &plan.training, &seeds, Some(&recipe.file))?;
    }
    let opened = Opened {
        train,
        validation,
        student: student.map(|(config, _)| config),
        student_path,
        teachers,
        pairs,
    };
    joined(plan, opened, &tokenizer, notes)
}

/// Opens again what the plan of a run folder names, and refuses what has changed since.
///
/// # Errors
/// What is no longer there, or another thing.
pub fn reopen_language(
    plan: &LanguagePlan,
    places: &Places,
    kept: &KeptTokens,
) -> Result<GatheredLanguage, Failure> {
    let folder = places.data("text.path", &plan.text.path)?;
    let tokenizer_path = places.model("tokenizer.path", &plan.tokenizer.path)?;
    let tokenizer = Tokenizer::open(&tokenizer_path)?;
    let was = plan.tokenizer.digest;
    if tokenizer.digest() != was {
        return Err(Failure::changed("tokenizer", &tokenizer_path, was, tokenizer.digest()));
    }
    let OpenedText { mut train, validation, mut notes, template, .. } =
        open_text(plan.text.clone(), &folder, &tokenizer, kept)?;
    let pairs = match (plan.objective.uld, &plan.teacher) {
        (Some(uld), LanguageTeacherPlan::Model { path, .. }) => {
            let theirs = Tokenizer::open(&places.model("teacher.model", path)?)?;
            let (both, length) = ([&tokenizer, &theirs], uld.sequence_length);
            let (pairs, note) = own_tokens(&plan.text, &folder, both, length, &mut train)?;
            notes.push(note);
            Some(pairs)
        }
        _ => None,
    };
    let found = digest(&*train, validation.as_deref());
    if found != plan.examples.digest {
        return Err(Failure::changed("text in", &folder, plan.examples.digest, found));
    }
    let check = |key: &str, path: &str, was: Digest| {
        let path = places.model(key, path)?;
        let (config, LanguageModelFacts { digest, .. }) = facts_of(&path)?;
        if digest != was {
            return Err(Failure::changed("model", &path, was, digest));
        }
        Ok::<_, Failure>((path, config))
    };
    let student = match &plan.student.source {
        StudentSource::Model { path, digest } => Some(check("student.model", path, *digest)?),
        StudentSource::Fresh | StudentSource::Teacher { .. } => None,
    };
    let (student_path, student) = student.unzip();
    let expected = Expected {
        teacher: None,
        tokenizer: tokenizer.digest(),
        rows: train.digest(),
        chat_template: template,
        temperature: plan.objective.temperature.from,
        vocabulary: plan.student.shape.vocab_size() as u32,
    };
    let teachers: Vec<OpenedTeacher> = plan
        .teachers()
        .map(|teacher| OpenedTeacher::again(teacher, places, &expected))
        .collect::<Result<_, Failure>>()?;
    if let Some(first) = &plan.text.first {
        train = led(first, train, (&tokenizer, template), places)?.0;
    }
    for kept in teachers.iter().filter_map(|teacher| teacher.kept.as_ref()) {
        kept::check_rows(kept, &*train, &plan.training, &[plan.training.seed], None)?;
    }
    let opened = Opened { train, validation, student, student_path, teachers, pairs };
    joined(plan.clone(), opened, &tokenizer, notes)
}

/// What is hidden in evaluations is the same in all runs, so that they can be compared.
const EVALUATION_SEED: u64 = 0;

/// What hides tokens of evaluations of a masked language model; nothing for a causal one.
///
/// # Errors
/// Where the tokenizer has no token to hide others behind.
pub fn masker(text: &TextPlan, tokenizer: &Tokenizer) -> Result<Option<Masker>, Failure> {
    let of = |masking: heirloom_recipe::Masking| {
        let (share, whole_words) = (masking.probability, masking.whole_words);
        let masking = Masking { share, whole_words, ..Masking::default() };
        Masker::new(tokenizer, masking, EVALUATION_SEED)
    };
    Ok(text.masking.map(of).transpose()?)
}

/// What was opened.
struct Opened {
    train: Arc<dyn Rows>,
    validation: Option<Arc<dyn Rows>>,
    student: Option<LanguageConfig>,
    student_path: Option<PathBuf>,
    teachers: Vec<OpenedTeacher>,
    /// The teacher's rows, where it reads tokens of its own.
    pairs: Option<Arc<PairedRows>>,
}

/// The training text in the tokens of both models, which takes the place of `train`, and what a person
/// should hear of it.
fn own_tokens(
    text: &TextPlan,
    folder: &Path,
    tokenizers: [&Tokenizer; 2],
    teacher_length: u64,
    train: &mut Arc<dyn Rows>,
) -> Result<(Arc<PairedRows>, String), Failure> {
    let pairs = Arc::new(text::open_pairs(text, folder, tokenizers, teacher_length)?);
    let rows = Arc::clone(&pairs) as Arc<dyn Rows>;
    *train = match text.train_limit {
        Limit::All => rows,
        Limit::First(count) => limited::first(rows, count),
    };
    let [matched, learnt] = pairs.matched();
    let left_out = match pairs.dropped() {
        0 => String::new(),
        count => {
            format!("; {count} tokens are left out, between common ends farther apart than a row")
        }
    };
    let note = format!(
        "the teacher is heard at {matched} of {learnt} tokens, where both have read the same bytes{left_out}"
    );
    Ok((pairs, note))
}

/// V of the student to be.
fn vocabulary(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    student: Option<&(LanguageConfig, LanguageModelFacts)>,
    teacher: Option<&TeacherModel>,
) -> u32 {
    let model = match (&recipe.student.config, student) {
        (_, Some((config, _))) => Some(config),
        (Some(_), None) => None,
        (None, None) => teacher.map(|teacher| &teacher.config),
    };
    model.map_or(tokenizer.vocab_size(), LanguageConfig::vocab_size) as u32
}

fn joined(
    plan: LanguagePlan,
    opened: Opened,
    tokenizer: &Tokenizer,
    notes: Vec<String>,
) -> Result<GatheredLanguage, Failure> {
    let Opened { train, validation, student, student_path, teachers, pairs } = opened;
    let shape = &plan.student.shape;
    let first = teachers.first().and_then(|teacher| teacher.model.as_ref());
    let (config, weights) = match (&plan.student.source, student, first) {
        (StudentSource::Model { .. }, Some(config), _) => (config, student_path),
        (StudentSource::Teacher { .. }, _, Some(TeacherModel { path, config, .. })) => {
            (config.clone(), Some(path.clone()))
        }
        _ => (config_of(shape, tokenizer)?, None),
    };
    let beside = Beside { tokenizer, student: config.vocab_size(), pairs: pairs.as_ref() };
    let teachers: Vec<LanguageTeacher> = plan
        .teachers()
        .zip(teachers)
        .map(|(plan, teacher)| teacher.for_job(plan, &beside))
        .collect::<Result<_, Failure>>()?;
    let job = LanguageJob {
        masker: masker(&plan.text, tokenizer)?,
        student: shapes::with_dropout(config, shape),
        weights: weights.map_or(LanguageWeights::Fresh, LanguageWeights::Folder),
        teachers,
        tokenizer_files: tokenizer.files().clone(),
        train,
        validation,
        plan,
        own: heirloom_train::Own::default(),
    };
    let cost = memory(&job)?;
    Ok(GatheredLanguage { job, cost, notes })
}

/// A model folder as a plan speaks of it.
fn facts_of(folder: &Path) -> Result<(LanguageConfig, LanguageModelFacts), Failure> {
    let config = open_config(folder)?;
    heirloom_store::TensorFolder::open(folder)?;
    let (shape, digest) = (shape_of(&config)?, weights_digest(folder)?);
    Ok((config, LanguageModelFacts { shape, digest }))
}

fn tokenizer_facts(tokenizer: &Tokenizer) -> TokenizerFacts {
    TokenizerFacts { vocab_size: tokenizer.vocab_size() as u64, digest: tokenizer.digest() }
}

fn difference(ours: &Tokenizer, theirs: &Tokenizer) -> Option<TokenDifference> {
    let difference = first_difference(ours, theirs)?;
    let (id, student, teacher) = (difference.id, difference.left, difference.right);
    Some(TokenDifference { id: u64::from(id), student, teacher })
}

/// Of all rows that a run reads.
fn digest(train: &dyn Rows, validation: Option<&dyn Rows>) -> Digest {
    let mut hasher = Hasher::new();
    for rows in [Some(train), validation].into_iter().flatten() {
        hasher.part(rows.digest().to_string().as_bytes());
    }
    hasher.digest()
}

/// Counted where rows may be shorter than others: for batches of a number of tokens.
fn steps_per_epoch(recipe: &Recipe, train: &dyn Rows, seed: u64) -> Option<u64> {
    let Batch::Tokens(tokens) = recipe.batches().0 else { return None };
    let mut order = Order::of_rows(seed, train);
    Some(order.steps_per_epoch(train, 0, BatchRule::Tokens(tokens as usize)))
}

/// How long the rows that come first last.
fn first_steps(recipe: &Recipe, rows: &dyn Rows) -> String {
    let first: Vec<usize> = rows.first().iter().map(|&row| row as usize).collect();
    let tokens: usize = first.iter().map(|&row| rows.length(row)).sum();
    let (steps, about) = match recipe.batches().0 {
        Batch::Sequences(batch) => (first.len() as u64 / batch, ""),
        Batch::Tokens(batch) => (tokens as u64 / batch, "about "),
    };
    format!("the {} rows of `text.first` last for {about}{steps} steps", first.len())
}

/// Memory of the device's own for the largest product of `inner` by `columns`.
pub(crate) fn product_room(inner: usize, columns: usize, threads: usize) -> u64 {
    Cpu::product_room(inner, columns, threads)
}
