//! From a recipe with a `[text]` to the job of a language model: opens what the recipe names, decides
//! the plan, and refuses what cannot work before a run folder is created.
//!
//! In: a recipe, or the plan of a run folder. Out: a [`LanguageJob`] and what a person should hear
//! first. What is written is the text's tokens, once, where the caller says; never a run.

mod limited;
mod shapes;
mod text;

use std::path::{Path, PathBuf};

use heirloom_base::{Bytes, Digest, Hasher, Tokens};
use heirloom_data::order::{BatchRule, Order};
use heirloom_data::text::Rows;
use heirloom_data::tokens::{Tokenizer, first_difference};
use heirloom_engine::Cpu;
use heirloom_recipe::{
    Batch, Cost, Counts, LanguageFacts, LanguageModelFacts, LanguagePlan, LanguageTeacherPlan,
    Recipe, StudentSource, TokenDifference, TokenizerFacts, cost_of, resolve_language,
    smoke_language,
};
use heirloom_train::{
    LanguageConfig, LanguageJob, LanguageTeacher, LanguageWeights, language_memory,
};

pub use shapes::{config_of, open_config, shape_of};
pub use text::{KeptTokens, OpenedText, open_text};

use crate::failure::Failure;
use crate::gather::available_memory;
use crate::opened::weights_digest;
use crate::places::Places;
use crate::process;

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
    let teacher_path = model("teacher.model", recipe.teacher_path())?;
    let tokenizer_path = model("tokenizer.path", recipe.tokenizer_path())?.ok_or_else(|| {
        Failure::usage(
            "no tokenizer: name one in `tokenizer.path` (a folder with tokenizer.json or \
             vocab.txt), or start the student from a model folder that has one",
        )
    })?;
    // Configs and tokenizers first: what is wrong with them is known within a moment.
    let student = student_path.as_deref().map(facts_of).transpose()?;
    let teacher = teacher_path.as_deref().map(facts_of).transpose()?;
    let tokenizer = Tokenizer::open(&tokenizer_path)?;
    let theirs = teacher_path.as_deref().and_then(|path| Tokenizer::open(path).ok());
    if smoke {
        wanted.train_limit = heirloom_recipe::Limit::First(wanted.train_limit.of(200));
        wanted.validation_limit = heirloom_recipe::Limit::First(wanted.validation_limit.of(200));
    }
    let OpenedText { text, train, validation, notes } =
        open_text(wanted, &folder, &tokenizer, kept)?;
    let tokens: u64 = (0..train.len()).map(|row| train.length(row) as u64).sum();
    let facts = LanguageFacts {
        train_rows: train.len() as u64,
        train_tokens: Tokens(tokens),
        steps_per_epoch: steps_per_epoch(recipe, &*train),
        validation_rows: validation.as_ref().map_or(0, |rows| rows.len() as u64),
        data: digest(&*train, validation.as_deref()),
        tokenizer: tokenizer_facts(&tokenizer),
        student: student.as_ref().map(|(_, facts)| *facts),
        teacher: teacher.as_ref().map(|(_, facts)| *facts),
        teacher_tokenizer: theirs.as_ref().map(tokenizer_facts),
        first_difference: theirs.as_ref().and_then(|theirs| difference(&tokenizer, theirs)),
        threads: threads as u64,
        text,
    };
    let mut plan = resolve_language(recipe, &facts)?;
    if smoke {
        smoke_language(&mut plan);
    }
    let opened = Opened {
        train,
        validation,
        student: student.map(|(config, _)| config),
        student_path,
        teacher: teacher.zip(teacher_path).map(|((config, _), path)| (path, config)),
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
        return Err(changed("tokenizer", &tokenizer_path, was, tokenizer.digest()));
    }
    let OpenedText { train, validation, notes, .. } =
        open_text(plan.text.clone(), &folder, &tokenizer, kept)?;
    let found = digest(&*train, validation.as_deref());
    if found != plan.examples.digest {
        return Err(changed("text in", &folder, plan.examples.digest, found));
    }
    let check = |key: &str, path: &str, was: Digest| {
        let path = places.model(key, path)?;
        let (config, LanguageModelFacts { digest, .. }) = facts_of(&path)?;
        if digest != was {
            return Err(changed("model", &path, was, digest));
        }
        Ok::<_, Failure>((path, config))
    };
    let teacher = match &plan.teacher {
        LanguageTeacherPlan::Nobody => None,
        LanguageTeacherPlan::Model { path, digest, .. } => {
            Some(check("teacher.model", path, *digest)?)
        }
    };
    let student = match &plan.student.source {
        StudentSource::Model { path, digest } => Some(check("student.model", path, *digest)?),
        StudentSource::Fresh | StudentSource::Teacher { .. } => None,
    };
    let (student_path, student) = student.unzip();
    let opened = Opened { train, validation, student, student_path, teacher };
    joined(plan.clone(), opened, &tokenizer, notes)
}

/// What was opened.
struct Opened {
    train: std::sync::Arc<dyn Rows>,
    validation: Option<std::sync::Arc<dyn Rows>>,
    student: Option<LanguageConfig>,
    student_path: Option<PathBuf>,
    teacher: Option<(PathBuf, LanguageConfig)>,
}

fn joined(
    plan: LanguagePlan,
    opened: Opened,
    tokenizer: &Tokenizer,
    notes: Vec<String>,
) -> Result<GatheredLanguage, Failure> {
    let Opened { train, validation, student, student_path, teacher } = opened;
    let shape = &plan.student.shape;
    let (config, weights) = match (&plan.student.source, student, &teacher) {
        (StudentSource::Model { .. }, Some(config), _) => (config, student_path),
        (StudentSource::Teacher { .. }, _, Some((path, config))) => {
            (config.clone(), Some(path.clone()))
        }
        _ => (config_of(shape, tokenizer)?, None),
    };
    let job = LanguageJob {
        student: shapes::with_dropout(config, shape),
        weights: weights.map_or(LanguageWeights::Fresh, LanguageWeights::Folder),
        teacher: teacher.map(|(path, config)| LanguageTeacher { path, config }),
        tokenizer_files: tokenizer.files().clone(),
        train,
        validation,
        plan,
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
fn steps_per_epoch(recipe: &Recipe, train: &dyn Rows) -> Option<u64> {
    let Batch::Tokens(tokens) = recipe.batches().0 else { return None };
    let mut order = Order::new(recipe.seeds()[0], train.len());
    Some(order.steps_per_epoch(train, 0, BatchRule::Tokens(tokens as usize)))
}

/// What a run folder's plan names is there and is another thing.
fn changed(what: &str, path: &Path, was: Digest, is: Digest) -> Failure {
    Failure::input(format!(
        "{what} `{}` is not the one this run began with (digest {}, was {}); put it back, or begin \
         a new run",
        path.display(),
        is.short(),
        was.short(),
    ))
}

/// What the run needs of memory, refused where there is not enough.
fn memory(job: &LanguageJob) -> Result<Cost, Failure> {
    // Where the student is largest; for a moment both models' moments in double precision besides.
    let (_, configs) = heirloom_train::growth_plans(&job.plan.training, &job.student)?;
    let growing = match configs.as_slice() {
        [.., small, large] => 16 * (2 * shapes::parameters(small) + shapes::parameters(large)),
        _ => 0,
    };
    let largest = configs.last().unwrap_or(&job.student).clone();
    let job = &LanguageJob { student: largest, ..job.clone() };
    let (plan, threads) = (&job.plan, job.plan.training.threads as usize);
    let [activations, recomputed, evaluation] = language_memory(job);
    let resident = process::resident_memory().map_or(0, |memory| memory.0);
    let room = shapes::room(&job.student, threads);
    // A batch's indices on the device, and its rows in the host's memory.
    let tokens = plan.text.sequence_length.max(match plan.training.micro_batch {
        Batch::Tokens(tokens) => tokens,
        Batch::Sequences(rows) => rows * plan.text.sequence_length,
    });
    let indices = Bytes(4 * 16 * tokens);
    let with = |part: Bytes| Bytes(part.0 + room.0 + indices.0);
    let teacher = job.teacher.as_ref().filter(|_| !plan.objective.is_without_teacher());
    let counts = Counts {
        student_parameters: shapes::parameters(&job.student),
        teacher_parameters: teacher.map_or(0, |teacher| shapes::parameters(&teacher.config)),
        activations: with(activations),
        activations_recomputed: with(recomputed),
        answering: Bytes(0),
        other: Bytes(resident + evaluation.0 + growing),
    };
    // What is resident already is not taken from what is available now.
    let available = Bytes(available_memory().0.saturating_add(resident));
    Ok(cost_of(&plan.training, plan.text.sequence_length, &counts, available)?)
}

/// Memory of the device's own for the largest product of `inner` by `columns`.
pub(crate) fn product_room(inner: usize, columns: usize, threads: usize) -> u64 {
    Cpu::product_room(inner, columns, threads)
}
