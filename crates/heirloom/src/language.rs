//! From a recipe with a `[text]` to the job of a language model: opens what the recipe names, decides
//! the plan, and refuses what cannot work before a run folder is created.
//!
//! In: a recipe, or the plan of a run folder. Out: a [`LanguageJob`] and what a person should hear
//! first. What is written is the text's tokens, once, where the caller says; never a run.

mod kept;
mod limited;
mod shapes;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use heirloom_answers::{Expected, Kept, Kind};
use heirloom_base::{Bytes, Digest, Hasher, Tokens};
use heirloom_data::order::{BatchRule, Order};
use heirloom_data::text::{Masker, Masking, PairedRows, Rows};
use heirloom_data::tokens::{Tokenizer, first_difference};
use heirloom_data::vocabulary::{Choice, Side, compare};
use heirloom_engine::Cpu;
use heirloom_models::DecoderConfig;
use heirloom_recipe::{
    Batch, Cost, Counts, KeptFacts, LanguageFacts, LanguageModelFacts, LanguagePlan,
    LanguageTeacherPlan, Limit, Recipe, StudentSource, TeacherVocabulary, TextPlan,
    TokenDifference, TokenizerFacts, cost_of, resolve_language, smoke_language,
};
use heirloom_train::{
    LanguageConfig, LanguageJob, LanguageTeacher, LanguageWeights, TeacherReads, kept_term,
    language_memory,
};

pub use kept::{BATCH_TOKENS, rows_of_runs};
pub use shapes::{config_of, open_config, shape_of};
pub use text::{KeptTokens, OpenedText, open_text, open_validation};

use crate::failure::Failure;
use crate::gather::available_memory;
use crate::grow::beside;
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
    let tokenizer_path = crate::gather::tokenizer_path(recipe, places)?;
    // Configs and tokenizers first: what is wrong with them is known within a moment.
    let student = student_path.as_deref().map(facts_of).transpose()?;
    let teacher = teacher_path.as_deref().map(facts_of).transpose()?;
    let tokenizer = Tokenizer::open(&tokenizer_path)?;
    let theirs = teacher_path.as_deref().and_then(|path| Tokenizer::open(path).ok());
    let kept_path =
        recipe.cache_path().map(|path| places.model("teacher.cache", path)).transpose()?;
    let uld = recipe.objective.uld.is_some();
    if let (true, None, Some(path)) = (uld, &theirs, &teacher_path) {
        return Err(Failure::usage(format!(
            "`objective.uld` needs the teacher's own tokenizer, and `{}` holds none",
            path.display()
        )));
    }
    // Kept answers are by a row's number among all, of which a smoke run sees few anyway.
    if smoke && recipe.cache_path().is_some() {
        wanted.validation_limit = heirloom_recipe::Limit::First(wanted.validation_limit.of(200));
    } else if smoke {
        wanted.train_limit = heirloom_recipe::Limit::First(wanted.train_limit.of(200));
        wanted.validation_limit = heirloom_recipe::Limit::First(wanted.validation_limit.of(200));
    }
    let OpenedText { text, mut train, validation, mut notes, template } =
        open_text(wanted, &folder, &tokenizer, kept)?;
    let pairs = match (&recipe.objective.uld, &theirs, &teacher) {
        (Some(uld), Some(theirs), Some((_, teacher))) => {
            let length =
                uld.value.sequence_length.as_ref().map_or(text.sequence_length, |at| at.value);
            let longest = teacher.shape.longest_input();
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
    let answers = kept_path
        .map(|path| {
            let expected = Expected {
                teacher: teacher.as_ref().map(|(_, facts)| facts.digest),
                tokenizer: tokenizer.digest(),
                rows: train.digest(),
                chat_template: template,
                temperature: recipe.objective.temperature(),
                vocabulary: vocabulary(recipe, &tokenizer, student.as_ref(), teacher.as_ref()),
            };
            open_kept(&path, &expected)
        })
        .transpose()?;
    let head = answers.as_ref().map(|kept| kept::head_of(kept, places, recipe.teacher_path()));
    let head = head.transpose()?.flatten();
    if head.is_some() && recipe.objective.missing.is_some() {
        return Err(Failure::usage(
            "`objective.missing` is written, and the answers are hidden states, which name every token; \
             leave it out",
        ));
    }
    let facts = LanguageFacts {
        train_rows: train.len() as u64,
        train_tokens: Tokens(tokens),
        steps_per_epoch: steps_per_epoch(recipe, &*train, recipe.seeds()[0]),
        validation_rows: validation.as_ref().map_or(0, |rows| rows.len() as u64),
        data: digest(&*train, validation.as_deref()),
        tokenizer: tokenizer_facts(&tokenizer),
        student: student.as_ref().map(|(_, facts)| *facts),
        grown: student_path.as_deref().map(beside::facts).transpose()?.flatten(),
        teacher: teacher.as_ref().map(|(_, facts)| *facts),
        kept: answers.as_ref().map(|kept| {
            let name = head.as_ref().map(|(name, ..)| name.clone());
            kept_facts(kept, name)
        }),
        teacher_tokenizer: theirs.as_ref().map(tokenizer_facts),
        first_difference: theirs.as_ref().and_then(|theirs| difference(&tokenizer, theirs)),
        threads: threads as u64,
        text,
    };
    let mut plan = resolve_language(recipe, &facts)?;
    check_kept_term(&plan)?;
    if smoke {
        smoke_language(&mut plan);
    }
    if let Some(kept) = &answers {
        let seeds = if smoke { vec![plan.training.seed] } else { recipe.seeds() };
        kept::check_rows(kept, &*train, &plan.training, &seeds, Some(&recipe.file))?;
    }
    let opened = Opened {
        train,
        validation,
        student: student.map(|(config, _)| config),
        student_path,
        teacher: teacher.zip(teacher_path).map(|((config, _), path)| (path, config)),
        pairs,
        kept: answers,
        head: head.map(|(_, folder, config)| (folder, config)),
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
        LanguageTeacherPlan::Nobody | LanguageTeacherPlan::Kept { .. } => None,
        LanguageTeacherPlan::Model { path, digest, .. } => {
            Some(check("teacher.model", path, *digest)?)
        }
    };
    let student = match &plan.student.source {
        StudentSource::Model { path, digest } => Some(check("student.model", path, *digest)?),
        StudentSource::Fresh | StudentSource::Teacher { .. } => None,
    };
    let (student_path, student) = student.unzip();
    let kept = match &plan.teacher {
        LanguageTeacherPlan::Kept { path, digest, teacher, head, .. } => {
            let path = places.model("teacher.cache", path)?;
            let expected = Expected {
                teacher: Some(*teacher),
                tokenizer: tokenizer.digest(),
                rows: train.digest(),
                chat_template: template,
                temperature: plan.objective.temperature.from,
                vocabulary: plan.student.shape.vocab_size() as u32,
            };
            let kept = open_kept(&path, &expected)?;
            let found = kept.lasting_digest();
            if found != *digest {
                return Err(changed("teacher's kept answers", &path, *digest, found));
            }
            kept::check_rows(&kept, &*train, &plan.training, &[plan.training.seed], None)?;
            let head = kept::head_of(&kept, places, head.as_deref())?;
            Some((kept, head.map(|(_, folder, config)| (folder, config))))
        }
        LanguageTeacherPlan::Nobody | LanguageTeacherPlan::Model { .. } => None,
    };
    let (kept, head) = kept.unzip();
    let head = head.flatten();
    let opened = Opened { train, validation, student, student_path, teacher, pairs, kept, head };
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
    teacher: Option<(PathBuf, LanguageConfig)>,
    /// The teacher's rows, where it reads tokens of its own.
    pairs: Option<Arc<PairedRows>>,
    kept: Option<Arc<Kept>>,
    /// The folder with the head of kept hidden states, and its config without layers.
    head: Option<(PathBuf, DecoderConfig)>,
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

/// What the teacher in `folder` reads where the student reads a row.
fn reads(
    plan: &LanguagePlan,
    tokenizer: &Tokenizer,
    student: usize,
    (folder, config): (&Path, &LanguageConfig),
    pairs: Option<Arc<PairedRows>>,
) -> Result<TeacherReads, Failure> {
    if let Some(pairs) = pairs {
        return Ok(TeacherReads::Own(pairs));
    }
    let choice = match &plan.teacher {
        LanguageTeacherPlan::Model { vocabulary: TeacherVocabulary::Pad, .. } => Choice::Pad,
        LanguageTeacherPlan::Model { vocabulary: TeacherVocabulary::Intersect, .. } => {
            Choice::Intersect
        }
        _ => return Ok(TeacherReads::Same),
    };
    // A folder without a tokenizer is taken to have the run's.
    let own = Tokenizer::open(folder).ok();
    let found = compare([
        Side { tokenizer, rows: Some(student) },
        Side { tokenizer: own.as_ref().unwrap_or(tokenizer), rows: Some(config.vocab_size()) },
    ]);
    let map = found.map(choice).map_err(|refused| {
        let refused = heirloom_data::Error::from(refused);
        Failure { code: refused.exit_code(), message: format!("`teacher.vocabulary`: {refused}") }
    })?;
    Ok(TeacherReads::Mapped(Arc::new(map.to_teacher().to_vec())))
}

/// Opens kept answers that a run can learn from.
fn open_kept(path: &Path, expected: &Expected) -> Result<Arc<Kept>, Failure> {
    Ok(Arc::new(Kept::open(path, expected)?))
}

fn kept_facts(kept: &Kept, head: Option<String>) -> KeptFacts {
    let about = kept.about();
    KeptFacts {
        digest: kept.lasting_digest(),
        teacher: about.teacher,
        width: about.width() as u64,
        drawn: matches!(about.kind, Kind::Samples { .. }),
        head,
    }
}

/// V of the student to be.
fn vocabulary(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    student: Option<&(LanguageConfig, LanguageModelFacts)>,
    teacher: Option<&(LanguageConfig, LanguageModelFacts)>,
) -> u32 {
    let model = match (&recipe.student.config, student) {
        (_, Some(student)) => Some(student),
        (Some(_), None) => None,
        (None, None) => teacher,
    };
    model.map_or(tokenizer.vocab_size(), |(config, _)| config.vocab_size()) as u32
}

/// Refuses a loss that kept answers cannot give.
fn check_kept_term(plan: &LanguagePlan) -> Result<(), Failure> {
    let LanguageTeacherPlan::Kept { path, drawn, .. } = &plan.teacher else { return Ok(()) };
    let why = kept_term(plan).and_then(|term| term.refusal(*drawn));
    why.map_or(Ok(()), |why| {
        Err(Failure::usage(format!(
            "`objective.divergence` cannot be taken of the answers in `{path}`: {why}; see \
             `objective.missing`, or take \"forward_kl\""
        )))
    })
}

fn joined(
    plan: LanguagePlan,
    opened: Opened,
    tokenizer: &Tokenizer,
    notes: Vec<String>,
) -> Result<GatheredLanguage, Failure> {
    let Opened { train, validation, student, student_path, teacher, pairs, kept, head } = opened;
    let shape = &plan.student.shape;
    let (config, weights) = match (&plan.student.source, student, &teacher) {
        (StudentSource::Model { .. }, Some(config), _) => (config, student_path),
        (StudentSource::Teacher { .. }, _, Some((path, config))) => {
            (config.clone(), Some(path.clone()))
        }
        _ => (config_of(shape, tokenizer)?, None),
    };
    let teacher = match teacher {
        None => None,
        Some((path, teacher)) => {
            let reads = reads(&plan, tokenizer, config.vocab_size(), (&path, &teacher), pairs)?;
            Some(LanguageTeacher { path, config: teacher, reads })
        }
    };
    let job = LanguageJob {
        masker: masker(&plan.text, tokenizer)?,
        student: shapes::with_dropout(config, shape),
        weights: weights.map_or(LanguageWeights::Fresh, LanguageWeights::Folder),
        teacher: match head {
            Some((path, config)) => {
                let config = LanguageConfig::Decoder(config);
                Some(LanguageTeacher { path, config, reads: TeacherReads::Kept })
            }
            None => teacher.filter(|_| kept.is_none()),
        },
        kept,
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
fn steps_per_epoch(recipe: &Recipe, train: &dyn Rows, seed: u64) -> Option<u64> {
    let Batch::Tokens(tokens) = recipe.batches().0 else { return None };
    let mut order = Order::new(seed, train.len());
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
        // What the small one's step, evaluation and teacher took is there until the large one's is.
        [.., small, large] => {
            let small = &LanguageJob { student: small.clone(), ..job.clone() };
            let [activations, _, evaluation] = language_memory(small);
            let teacher = job.teacher.as_ref().filter(|_| !job.plan.objective.is_without_teacher());
            let teacher = teacher.map_or(0, |teacher| shapes::parameters(&teacher.config));
            let small = shapes::parameters(&small.student);
            16 * (2 * small + shapes::parameters(large))
                + activations.0
                + evaluation.0
                + 4 * teacher
                + shapes::room(large, job.plan.training.threads as usize).0
        }
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
        other: Bytes(resident + evaluation.0 + of_the_host(job) + growing),
    };
    // What opening text and tokenizers took for a moment may have been more than the run will take.
    let parts = 4 * (4 * counts.student_parameters + counts.teacher_parameters)
        + counts.activations.0
        + counts.other.0;
    let before = process::peak_memory().map_or(0, |memory| memory.0).saturating_sub(parts);
    let counts = Counts { other: Bytes(counts.other.0 + before), ..counts };
    // What is resident already is not taken from what is available now.
    let available = Bytes(available_memory().0.saturating_add(resident));
    Ok(cost_of(&plan.training, plan.text.sequence_length, &counts, available)?)
}

/// Memory of the host's own while a run goes on: the rows of a step, pieces of the largest tensor on
/// their way into a checkpoint, and a little for threads and files.
fn of_the_host(job: &LanguageJob) -> u64 {
    /// Numbers of a tensor that are written at a time; a transposed one is held twice.
    const PIECE: u64 = 1 << 20;
    /// Stacks of threads, buffers of files, text of records.
    const LITTLE: u64 = 2 << 20;
    let (training, length) = (&job.plan.training, job.plan.text.sequence_length);
    let tokens = match training.batch {
        Batch::Tokens(tokens) => tokens,
        Batch::Sequences(rows) => rows * length,
    };
    // Tokens and labels, of rows and of a batch.
    let rows = 2 * 8 * tokens;
    let states = match job.kept.as_ref().map(|kept| kept.about().kind) {
        Some(Kind::States { width }) => 4 * tokens * u64::from(width),
        _ => 0,
    };
    rows + states + 3 * 4 * shapes::largest(&job.student).min(PIECE) + LITTLE
}

/// Memory of the device's own for the largest product of `inner` by `columns`.
pub(crate) fn product_room(inner: usize, columns: usize, threads: usize) -> u64 {
    Cpu::product_room(inner, columns, threads)
}
