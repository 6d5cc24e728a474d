//! From a recipe to a job: opens what the recipe names, decides the plan, and refuses what cannot
//! work before anything is created.
//!
//! In: a recipe, or the plan of a run folder. Out: a [`Job`] and what a person should hear first.
//! Never: a file written, or a model's weights read.

use std::path::{Path, PathBuf};

use heirloom_base::{Bytes, Digest, Hasher, Tokens};
use heirloom_data::dataset::{Dataset, KeepTexts, NoiseKind, overlap};
use heirloom_data::presets::Preset;
use heirloom_data::tokens::{Tokenizer, first_difference};
use heirloom_engine::Cpu;
use heirloom_growth::LayerMap;
use heirloom_models::{Buffers, Capacity, EncoderConfig, Purpose};
use heirloom_objective::Objective;
use heirloom_recipe::{
    Cost, Counts, DataPlan, Evaluate, EvaluateOn, Facts, LabelNoise, LabelNoiseKind, MetaSource,
    ModelFacts, Plan, Recipe, Split, StudentSource, TeacherFacts, TeacherPlan, TeacherTokenizer,
    TeacherTokens, TokenDifference, TokenizerFacts, Unlabelled, cost, resolve,
};
use heirloom_train::{
    EVALUATION_TOKENS, Job, Own, OwnTokens, Predictor, StudentWeights, TeacherJob, TeacherModel,
    Trainer, head_of, student_purpose, terms,
};

use crate::failure::Failure;
use crate::given::{self, Given};
use crate::opened::{
    apply_layout, config_of_shape, dataset, known_labels, labels, model_facts, rows,
    unlabelled_rows,
};
use crate::places::Places;
use crate::process;
use crate::second_set;

/// How the note of label noise begins, which a run says again whenever it goes on.
pub const LABEL_NOISE: &str = "LABEL NOISE";

/// A run that can start.
#[derive(Debug)]
pub struct Gathered {
    /// The run.
    pub job: Job,
    /// Memory, part by part.
    pub cost: Cost,
    /// What a person should hear before it starts: truncated texts, skipped lines, overlap.
    pub notes: Vec<String>,
}

/// What was opened, before and after there is a plan.
struct Opened {
    data: DataPlan,
    tokenizer: Tokenizer,
    train: Dataset,
    validation: Option<Dataset>,
    /// The second set of a balance policy, where it is not the training set itself.
    meta: Option<Dataset>,
    /// For each teacher, the same examples in its own tokens, where it reads those.
    own: Vec<Option<OwnTokens>>,
    /// For each teacher, what its file says, where it has one in place of a model.
    given: Vec<Option<Given>>,
    notes: Vec<String>,
}

/// The part of the training set that is held out is drawn by a seed of its own, so that the runs
/// of several seeds hold out the same examples.
pub(crate) const SPLIT_SEED: u64 = 0;
/// Likewise for limits.
const LIMIT_SEED: u64 = 1;

/// Opens what `recipe` names and decides its plan. `smoke` cuts the run down to a minute. The plan
/// is the first seed's.
pub fn gather(
    recipe: &Recipe,
    places: &Places,
    threads: usize,
    smoke: bool,
) -> Result<Gathered, Failure> {
    let mut data = recipe.data()?;
    let folder = places.data("task.path", &data.path)?;
    if let Some(preset) = recipe.preset_layout() {
        let found = Preset::named(preset.name())?.find(&folder)?;
        apply_layout(&mut data, &found, &folder);
    }
    let model = |key: &str, path: Option<&str>| -> Result<Option<PathBuf>, Failure> {
        path.map(|path| places.model(key, path)).transpose()
    };
    let student_path = model("student.model", recipe.student_path())?;
    // Of each teacher, the folder of its model or the file of its answers.
    let (mut teacher_paths, mut answers) = (Vec::new(), Vec::new());
    for (path, teacher) in recipe.teachers() {
        let [written, given] =
            [&teacher.model, &teacher.answers].map(|at| at.as_ref().map(|at| at.value.as_str()));
        let file = |given| places.data(&format!("{path}.answers"), given);
        answers.push(given.map(file).transpose()?);
        teacher_paths.push(model(&format!("{path}.model"), written)?);
    }
    let tokenizer_path = tokenizer_path(recipe, places)?;
    // Configs and tokenizers first: what is wrong with them is known within a moment.
    let student = student_path.as_deref().map(model_facts).transpose()?;
    let mut teachers = Vec::new();
    for path in &teacher_paths {
        teachers.push(path.as_deref().map(model_facts).transpose()?);
    }
    let tokenizer = Tokenizer::open(&tokenizer_path)?;
    let theirs: Vec<Option<Tokenizer>> =
        teacher_paths.iter().map(|path| Tokenizer::open(path.as_deref()?).ok()).collect();
    let own = recipe.teachers().into_iter().zip(&theirs).map(|((_, teacher), tokenizer)| {
        tokenizer.as_ref().filter(|_| teacher.tokenizer() == TeacherTokenizer::Own)
    });
    let own: Vec<Option<&Tokenizer>> = own.collect();

    if smoke {
        // As `heirloom_recipe::smoke` does to the plan, but before anything is tokenised.
        data.train_limit = heirloom_recipe::Limit::First(data.train_limit.of(200));
        data.validation_limit = heirloom_recipe::Limit::First(data.validation_limit.of(200));
        if let Unlabelled::Some { limit, .. } = &mut data.unlabelled {
            *limit = heirloom_recipe::Limit::First(limit.of(200));
        }
    }
    let meta = recipe.meta();
    let second = meta.as_ref().map(|meta| &meta.source);
    let both = (own.as_slice(), answers.as_slice());
    let opened = open_data(data, second, &folder, tokenizer, both, KeepTexts::No)?;
    let lengths = opened.train.lengths();
    let facts = Facts {
        train_examples: opened.train.len() as u64,
        unlabelled_examples: opened.train.unlabelled() as u64,
        train_tokens: lengths.map_or(Tokens(0), |lengths| lengths.total),
        validation_examples: opened.validation.as_ref().map_or(0, |set| set.len() as u64),
        labels: opened.train.labels().names.clone(),
        data: data_digest(&opened),
        tokenizer: tokenizer_facts(&opened.tokenizer),
        first_difference: theirs
            .first()
            .and_then(|one| difference(&opened.tokenizer, one.as_ref())),
        teacher_tokenizer: theirs.first().and_then(|one| one.as_ref().map(tokenizer_facts)),
        student: student.as_ref().map(|(_, facts)| facts.clone()),
        teacher: teachers.first().and_then(|one| Some(one.as_ref()?.1.clone())),
        other_teachers: teachers
            .iter()
            .zip(&theirs)
            .skip(1)
            .map(|(model, tokenizer)| TeacherFacts {
                model: model.as_ref().map(|(_, facts)| facts.clone()),
                tokenizer: tokenizer.as_ref().map(tokenizer_facts),
                first_difference: difference(&opened.tokenizer, tokenizer.as_ref()),
            })
            .collect(),
        answers: opened.given.iter().map(|one| Some(one.as_ref()?.digest)).collect(),
        memory: available_memory(),
        threads: threads as u64,
        steps_per_epoch: None,
    };
    let mut plan = resolve(recipe, &facts)?;
    let named = plan.data.labels.clone();
    plan.data = DataPlan { labels: named, ..opened.data.clone() };
    if smoke {
        heirloom_recipe::smoke(&mut plan);
    }
    let student_config = match &student {
        Some((config, _)) => config.clone(),
        None => match (&plan.student.source, teachers.first()) {
            (StudentSource::Teacher { .. }, Some(Some((config, _)))) => config.clone(),
            _ => config_of_shape(&plan.student.shape, opened.tokenizer.special().pad.unwrap_or(0))?,
        },
    };
    let models = Models {
        student: student_path,
        teachers: teacher_paths
            .into_iter()
            .zip(teachers)
            .map(|(path, facts)| Some((path?, facts?.0)))
            .collect(),
    };
    let (job, notes) = joined(plan, opened, student_config, models)?;
    let cost = memory_of_all_stages(&job)?;
    Ok(Gathered { job, cost, notes })
}

/// Where the recipe's tokenizer lies.
pub(crate) fn tokenizer_path(recipe: &Recipe, places: &Places) -> Result<PathBuf, Failure> {
    let path = recipe.tokenizer_path().ok_or_else(|| {
        Failure::usage(
            "no tokenizer: name one in `tokenizer.path` (a folder with tokenizer.json or \
             vocab.txt), or start the student from a model folder that has one",
        )
    })?;
    places.model("tokenizer.path", path)
}

/// Opens again what the plan of a run folder names, and refuses what has changed since. Texts are
/// kept for whoever shows examples.
pub fn reopen(plan: &Plan, places: &Places, keep: KeepTexts) -> Result<Gathered, Failure> {
    let (job, notes) = reopen_to_read(plan, places, keep)?;
    let cost = memory_of_all_stages(&job)?;
    Ok(Gathered { job, cost, notes })
}

/// The same for whoever does not train, and so needs no room for it: the job, and what a person should
/// hear of it.
pub fn reopen_to_read(
    plan: &Plan,
    places: &Places,
    keep: KeepTexts,
) -> Result<(Job, Vec<String>), Failure> {
    let folder = places.data("task.path", &plan.data.path)?;
    let tokenizer_path = places.model("tokenizer.path", &plan.tokenizer.path)?;
    let tokenizer = Tokenizer::open(&tokenizer_path)?;
    if tokenizer.digest() != plan.tokenizer.digest {
        return Err(Failure::changed(
            "tokenizer",
            &tokenizer_path,
            plan.tokenizer.digest,
            tokenizer.digest(),
        ));
    }
    let second = plan.objective.meta().map(|meta| &meta.source);
    let own = own_tokenizers(plan, places)?;
    let own: Vec<Option<&Tokenizer>> = own.iter().map(Option::as_ref).collect();
    let answers = plan.teachers().map(|teacher| match teacher {
        TeacherPlan::Answers { path, .. } => places.data("teacher.answers", path).map(Some),
        TeacherPlan::Nobody | TeacherPlan::Model { .. } => Ok(None),
    });
    let answers = answers.collect::<Result<Vec<_>, Failure>>()?;
    let both = (own.as_slice(), answers.as_slice());
    let opened = open_data(plan.data.clone(), second, &folder, tokenizer, both, keep)?;
    let digest = data_digest(&opened);
    if digest != plan.examples.digest {
        return Err(Failure::changed("data in", &folder, plan.examples.digest, digest));
    }
    let check = |key: &str, path: &str, was: Digest| -> Result<(PathBuf, EncoderConfig), Failure> {
        let path = places.model(key, path)?;
        let (config, ModelFacts { digest, .. }) = model_facts(&path)?;
        if digest != was {
            return Err(Failure::changed("model", &path, was, digest));
        }
        Ok((path, config))
    };
    let mut teachers = Vec::new();
    for (teacher, given) in plan.teachers().zip(&opened.given) {
        teachers.push(match (teacher, given) {
            (TeacherPlan::Model { path, digest, .. }, _) => {
                Some(check("teacher.model", path, *digest)?)
            }
            (TeacherPlan::Answers { digest, .. }, Some(given)) if given.digest != *digest => {
                return Err(Failure::changed("answers in", &given.path, *digest, given.digest));
            }
            (TeacherPlan::Answers { .. } | TeacherPlan::Nobody, _) => None,
        });
    }
    let (student_config, student) = match &plan.student.source {
        StudentSource::Fresh => {
            let pad = opened.tokenizer.special().pad.unwrap_or(0);
            (config_of_shape(&plan.student.shape, pad)?, None)
        }
        StudentSource::Model { path, digest } => {
            let (path, config) = check("student.model", path, *digest)?;
            (config, Some(path))
        }
        StudentSource::Teacher { .. } => {
            let first = teachers.iter().flatten().next();
            let (_, config) = first.expect("a student from a teacher has a teacher");
            (config.clone(), None)
        }
    };
    joined(plan.clone(), opened, student_config, Models { student, teachers })
}

/// Folders of models.
struct Models {
    student: Option<PathBuf>,
    /// Of each teacher; `None` where it is a file of answers.
    teachers: Vec<Option<(PathBuf, EncoderConfig)>>,
}

/// The job, and what a person should hear of it.
fn joined(
    plan: Plan,
    opened: Opened,
    source_config: EncoderConfig,
    models: Models,
) -> Result<(Job, Vec<String>), Failure> {
    let student = &plan.student;
    let layers: Vec<usize> = student.layers.iter().map(|&layer| layer as usize).collect();
    let folder = match &student.source {
        StudentSource::Fresh => None,
        StudentSource::Model { .. } => models.student,
        StudentSource::Teacher { .. } => {
            models.teachers.iter().flatten().next().map(|(path, _)| path.clone())
        }
    };
    let (student_weights, config) = match folder {
        None => (StudentWeights::Fresh, source_config),
        Some(path) => {
            let map = LayerMap::select(&layers, source_config.layers)?;
            let config = map.target_config(&source_config);
            (StudentWeights::Folder { path, layers }, config)
        }
    };
    let student_config = EncoderConfig {
        hidden_dropout: student.shape.hidden_dropout_prob as f32,
        attention_dropout: student.shape.attention_probs_dropout_prob as f32,
        classifier_dropout: student.shape.classifier_dropout as f32,
        ..config
    };
    let teachers = models.teachers.into_iter().zip(opened.own).zip(opened.given);
    let mut teachers = teachers.filter_map(|((model, own), given)| {
        let given = given.map(|given| TeacherJob::Answers(given.answers));
        let model = model.map(|(path, config)| TeacherModel { path, config, own });
        given.or(model.map(TeacherJob::Model))
    });
    let cache_dir = cache_dir(&plan);
    let job = Job {
        train: opened.train.into(),
        validation: opened.validation.map(Into::into),
        meta: opened.meta.map(Into::into),
        student_config,
        student_weights,
        teacher: teachers.next(),
        other_teachers: teachers.collect(),
        tokenizer_files: opened.tokenizer.files().clone(),
        cache_dir,
        own: Own::default(),
        plan,
    };
    Ok((job, opened.notes))
}

/// Beside the run folder, shared by all runs there; the seeds of one recipe lie one level deeper.
fn cache_dir(plan: &Plan) -> PathBuf {
    let dir = Path::new(&plan.output.dir);
    let seed = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"));
    let run = if seed { dir.parent().unwrap_or(dir) } else { dir };
    run.parent().unwrap_or(Path::new(".")).join("teacher-logits")
}

fn tokenizer_facts(tokenizer: &Tokenizer) -> TokenizerFacts {
    TokenizerFacts { vocab_size: tokenizer.vocab_size() as u64, digest: tokenizer.digest() }
}

fn data_digest(opened: &Opened) -> Digest {
    let mut hasher = Hasher::new();
    for set in [Some(&opened.train), opened.validation.as_ref()].into_iter().flatten() {
        hasher.part(set.digest().to_string().as_bytes());
    }
    if let Some(set) = &opened.meta {
        // So that it is not taken for a validation set where there is none.
        hasher.part(b"meta").part(set.digest().to_string().as_bytes());
    }
    hasher.digest()
}

fn open_data(
    data: DataPlan,
    second: Option<&MetaSource>,
    folder: &Path,
    tokenizer: Tokenizer,
    (own, answers): (&[Option<&Tokenizer>], &[Option<PathBuf>]),
    keep: KeepTexts,
) -> Result<Opened, Failure> {
    let mut notes = Vec::new();
    let known = known_labels(&data);
    let max_length = data.max_length as usize;
    let train_rows = rows(&data, folder, &data.train, known.as_ref())?;
    let labels = labels(&data, &train_rows)?;
    let whole = Dataset::build(&train_rows, labels.clone(), &tokenizer, max_length, keep)?;
    let (train, held) = match data.validation_split {
        Split::Nothing => (with_label_noise(whole, &data), None),
        Split::Share(share) => {
            let (train, held) = whole.split_indexes(share, SPLIT_SEED);
            // Noise goes by an example's place in the file, and what is held out stays as it is.
            let held = whole.select(&held);
            (with_label_noise(whole, &data).select(&train), Some(held))
        }
    };
    let train = if train.is_empty() { train } else { limited(train, data.train_limit) };
    let read = |file: &String| {
        let files = std::slice::from_ref(file);
        dataset(&data, folder, files, &labels, &tokenizer, KeepTexts::No)
    };
    let (train, meta) = second_set::take(train, second, read)?;
    notes.extend(meta.as_ref().map(|set| second_set::about(set, &train)));
    let labelled = train.len();
    let (train, more) = match &data.unlabelled {
        Unlabelled::Nothing => (train, Vec::new()),
        Unlabelled::Some { file, limit } => {
            let rows = unlabelled_rows(&data, folder, file)?;
            let set = Dataset::build(&rows, labels.clone(), &tokenizer, max_length, keep)?;
            (train.followed_by(&limited(set, *limit)), rows.rows)
        }
    };
    let sets = (&train, meta.as_ref());
    let rows_of = [train_rows.rows.as_slice(), more.as_slice()];
    let given = given::read(answers, &data, sets, &rows_of, tokenizer.digest())?;
    let own = own.iter().map(|tokenizer| {
        let Some(tokenizer) = tokenizer else { return Ok(None) };
        let whole = Dataset::build(&train_rows, labels.clone(), tokenizer, max_length, keep)?;
        own_tokens(whole, &data, second, folder, &labels, tokenizer).map(Some)
    });
    let own: Vec<Option<OwnTokens>> = own.collect::<Result<_, Failure>>()?;
    if train.has_label_noise() {
        notes.push(format!(
            "{LABEL_NOISE}: {} of {} training labels are wrong on purpose (`task.label_noise`)",
            train.noisy_labels(),
            labelled,
        ));
    }
    let validation = match (data.evaluate_on, data.validation.first()) {
        (EvaluateOn::Split, _) => held,
        (EvaluateOn::Validation, None) => held,
        (EvaluateOn::Validation, Some(file)) => {
            let files = std::slice::from_ref(file);
            let rows = rows(&data, folder, files, Some(&labels))?;
            Some(Dataset::build(&rows, labels.clone(), &tokenizer, max_length, keep)?)
        }
    };
    let validation = validation.map(|set| limited(set, data.validation_limit));
    let sets = [
        ("training", Some(&train)),
        ("validation", validation.as_ref()),
        // What is split off the training set was read with it.
        ("second set's", meta.as_ref().filter(|_| matches!(second, Some(MetaSource::File(_))))),
    ];
    for (name, set) in sets {
        let Some(set) = set else { continue };
        if set.skipped() > 0 {
            notes.push(format!("{} lines of the {name} files were skipped", set.skipped()));
        }
        if set.truncated() > 0 {
            notes.push(format!(
                "{} of {} {name} examples are longer than max_length = {max_length} and were cut",
                set.truncated(),
                set.len(),
            ));
        }
    }
    let without = train.classes_without_examples();
    if labelled > 0 && !without.is_empty() {
        notes.push(format!("no training example has the label {}", without.join(", ")));
    }
    let trained_on = [("training set", Some(&train)), ("second set", meta.as_ref())];
    for (name, set) in trained_on {
        let (Some(validation), Some(set)) = (&validation, set) else { continue };
        let both = overlap(set, validation);
        if both.count > 0 {
            let text = format!(
                "{} of {} validation examples have a text that is also in the {name}",
                both.count,
                validation.len(),
            );
            if !data.allow_overlap {
                return Err(Failure::input(format!(
                    "{text}; remove them, or set `task.allow_overlap = true`"
                )));
            }
            notes.push(text);
        }
    }
    Ok(Opened { data, tokenizer, train, validation, meta, own, given, notes })
}

/// The examples of the run as another tokenizer reads them: cut, limited and set apart by the same
/// places in the file. Labels are left as they are, since only answers are asked for.
fn own_tokens(
    whole: Dataset,
    data: &DataPlan,
    second: Option<&MetaSource>,
    folder: &Path,
    labels: &heirloom_data::label::Labels,
    tokenizer: &Tokenizer,
) -> Result<OwnTokens, Failure> {
    let train = match data.validation_split {
        Split::Nothing => whole,
        Split::Share(share) => whole.select(&whole.split_indexes(share, SPLIT_SEED).0),
    };
    let read = |file: &String| {
        let files = std::slice::from_ref(file);
        dataset(data, folder, files, labels, tokenizer, KeepTexts::No)
    };
    let (mut train, meta) = second_set::take(limited(train, data.train_limit), second, read)?;
    if let Unlabelled::Some { file, limit } = &data.unlabelled {
        let (rows, keep) = (unlabelled_rows(data, folder, file)?, KeepTexts::No);
        let length = data.max_length as usize;
        let set = Dataset::build(&rows, labels.clone(), tokenizer, length, keep)?;
        train = train.followed_by(&limited(set, *limit));
    }
    Ok(OwnTokens { train: train.into(), meta: meta.map(Into::into) })
}

/// The tokenizers that teachers of a plan read with in place of the run's, which must be those it
/// began with.
fn own_tokenizers(plan: &Plan, places: &Places) -> Result<Vec<Option<Tokenizer>>, Failure> {
    let open = |teacher: &TeacherPlan| {
        let TeacherPlan::Model { path, tokens: TeacherTokens::Own { digest }, .. } = teacher else {
            return Ok(None);
        };
        let path = places.model("teacher.model", path)?;
        let tokenizer = Tokenizer::open(&path)?;
        if tokenizer.digest() != *digest {
            return Err(Failure::changed("tokenizer", &path, *digest, tokenizer.digest()));
        }
        Ok(Some(tokenizer))
    };
    plan.teachers().map(open).collect()
}

/// The first token at which a teacher's tokenizer differs from the run's.
fn difference(ours: &Tokenizer, theirs: Option<&Tokenizer>) -> Option<TokenDifference> {
    let difference = first_difference(ours, theirs?)?;
    let (id, student, teacher) = (difference.id, difference.left, difference.right);
    Some(TokenDifference { id: u64::from(id), student, teacher })
}

/// The training set as the plan's label noise leaves it.
fn with_label_noise(set: Dataset, data: &DataPlan) -> Dataset {
    let LabelNoise::Some { share, kind, seed } = data.label_noise else { return set };
    let kind = match kind {
        LabelNoiseKind::Symmetric => NoiseKind::Symmetric,
        LabelNoiseKind::Asymmetric => NoiseKind::Asymmetric,
    };
    set.with_label_noise(heirloom_data::dataset::LabelNoise { share, kind, seed })
}

fn limited(set: Dataset, limit: heirloom_recipe::Limit) -> Dataset {
    match within_limit(set.len(), limit) {
        None => set,
        Some(chosen) => set.select(&chosen),
    }
}

/// Which of `len` examples a limit keeps, in their order; `None` for all of them.
pub(crate) fn within_limit(len: usize, limit: heirloom_recipe::Limit) -> Option<Vec<u32>> {
    let count = limit.of(len as u64) as usize;
    if count == len {
        return None;
    }
    let order = heirloom_base::permutation(LIMIT_SEED, heirloom_base::Purpose::Split, 0, len);
    let mut chosen = order[..count].to_vec();
    chosen.sort_unstable();
    Some(chosen)
}

/// What the run needs of memory where its student is largest, refused where there is not enough, and
/// where a stage cannot be.
fn memory_of_all_stages(job: &Job) -> Result<Cost, Failure> {
    let (_, configs) = heirloom_train::growth_plans(&job.plan.training, &job.student_config)?;
    let [small @ .., large] = configs.as_slice() else { return memory(job, 0) };
    let Some(small) = small.last() else { return memory(job, 0) };
    // What the small one's step took is there until the large one's is.
    let beside = memory(&Job { student_config: small.clone(), ..job.clone() }, 0)?.activations.0;
    // The small model's state, and for a moment both models' moments in double precision.
    let head = head_of(&job.plan);
    let (before, after) = (parameters(small, head), parameters(large, head));
    let growing = beside + 4 * FLOAT * before + 4 * FLOAT * (before + after);
    memory(&Job { student_config: large.clone(), ..job.clone() }, growing)
}

/// What the run needs of memory, `more` besides, refused where there is not enough.
fn memory(job: &Job, more: u64) -> Result<Cost, Failure> {
    let (plan, student) = (&job.plan, &job.student_config);
    let head = head_of(plan);
    let (terms, projected) = terms(&plan.objective);
    let inside = Objective::looks_inside(&terms);
    let capacity = Trainer::capacity(job);
    let (tokens, sequences) = (capacity.tokens as u64, capacity.sequences as u64);
    let threads = plan.training.threads as usize;
    let taps = Objective::taps(&terms);
    let buffers = |config: &EncoderConfig, capacity, purpose| {
        Buffers::bytes_needed(config, &head, capacity, &purpose).0
    };
    let (mut live, mut answering) = (Vec::new(), 0);
    let mut other = process::resident_memory().unwrap_or(Bytes(5 * plan.examples.train_tokens.0)).0;
    for (plan_of, teacher) in job.teachers() {
        let (TeacherPlan::Model { logits, batch_tokens, .. }, TeacherJob::Model(teacher)) =
            (plan_of, teacher)
        else {
            other += FLOAT * (job.train.len() * head.width(student)) as u64;
            continue;
        };
        if *logits == heirloom_recipe::Logits::Live || inside {
            live.push(teacher);
        } else {
            let read = teacher.own.as_ref().map_or(&job.train, |own| &own.train);
            let capacity = Predictor::capacity(*batch_tokens as usize, read);
            // One after the other, each on a device of its own.
            answering = answering.max(
                FLOAT * parameters(&teacher.config, head)
                    + buffers(&teacher.config, capacity, Purpose::Infer)
                    + room(&teacher.config, capacity, threads),
            );
            // The answers, in memory and as the bytes of their file.
            other += 2 * FLOAT * (job.train.len() * head.width(student)) as u64;
        }
    }
    // A batch's indices on the device and in the host's memory; labels and a teacher's answers.
    let mut activations = room(student, capacity, threads)
        + FLOAT * (10 * tokens + 4 * sequences + 4 * sequences * head.width(student) as u64);
    // Further teachers' answers and weights of rows.
    activations +=
        FLOAT * sequences * (job.other_teachers.len() * (1 + head.width(student))) as u64;
    let mut projections = 0;
    for teacher in &live {
        let purpose = if inside { Purpose::Inspect } else { Purpose::Infer };
        activations += buffers(&teacher.config, capacity, purpose);
        let (ours, theirs) = (student.hidden_size as u64, teacher.config.hidden_size as u64);
        let learned = projected.iter().filter(|projected| **projected).count() as u64;
        projections = learned * ours * theirs;
        // Gathered and projected states and their gradients.
        activations += if learned > 0 { 3 * FLOAT * tokens * ours.max(theirs) } else { 0 };
    }
    if let (Some(validation), true) = (&job.validation, plan.training.evaluate != Evaluate::Never) {
        let capacity = Predictor::capacity(EVALUATION_TOKENS, validation);
        other += buffers(student, capacity, Purpose::Infer);
    }
    let kept = buffers(student, capacity, student_purpose(plan, taps.clone()));
    let recomputed = buffers(student, capacity, Purpose::Recompute(taps));
    let table = (student.vocab_size * student.hidden_size) as u64;
    other += more;
    other += second_set::memory(plan, parameters(student, head) - table, table);
    let counts = Counts {
        student_parameters: parameters(student, head) + projections,
        teacher_parameters: live.iter().map(|teacher| parameters(&teacher.config, head)).sum(),
        activations: Bytes(activations + kept),
        activations_recomputed: Bytes(activations + recomputed),
        answering: Bytes(answering),
        other: Bytes(other),
    };
    // What is resident already is not taken from what is available now.
    let available =
        available_memory().0.saturating_add(process::resident_memory().map_or(0, |m| m.0));
    Ok(cost(plan, &counts, Bytes(available))?)
}

/// Bytes of a 32-bit float.
const FLOAT: u64 = 4;

/// Memory of the device's own: panels of the largest product. The right factor of a layer's forward
/// pass is its weights, that of its weights' gradient the layer's input.
fn room(config: &EncoderConfig, capacity: Capacity, threads: usize) -> u64 {
    let (c, f) = (config.hidden_size, config.intermediate_size);
    let widest = f.max(3 * c);
    [(c, widest), (capacity.tokens, f.max(c))]
        .into_iter()
        .map(|(inner, columns)| Cpu::product_room(inner, columns, threads))
        .max()
        .unwrap_or(0)
}

/// Parameters of a model, counted on a device that holds nothing else for a moment.
fn parameters(config: &EncoderConfig, head: heirloom_models::Head) -> u64 {
    let layer = 4 * (config.hidden_size * config.hidden_size + config.hidden_size)
        + 2 * config.hidden_size * config.intermediate_size
        + config.intermediate_size
        + 5 * config.hidden_size;
    let tables = config.vocab_size + config.max_positions + config.token_types + 2;
    let head = (config.hidden_size + 1) * (config.hidden_size + head.width(config));
    (tables * config.hidden_size + config.layers * layer + head) as u64
}

/// Memory that the system says is available, or a guess of 8 GB where it does not say.
pub fn available_memory() -> Bytes {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<u64>().ok()
    });
    kilobytes.map_or(Bytes(8_000_000_000), |kilobytes| Bytes(kilobytes * 1024))
}
