//! From a recipe to a job: opens what the recipe names, decides the plan, and refuses what cannot
//! work before anything is created.
//!
//! In: a recipe, or the plan of a run folder. Out: a [`Job`] and what a person should hear first.
//! Never: a file written, or a model's weights read.

mod data;
mod memory;

use std::path::{Path, PathBuf};

use heirloom_base::{Digest, Tokens};
use heirloom_data::dataset::KeepTexts;
use heirloom_data::presets::Preset;
use heirloom_data::tokens::{Tokenizer, first_difference};
use heirloom_growth::LayerMap;
use heirloom_models::EncoderConfig;
use heirloom_recipe::{
    Cost, DataPlan, Facts, ModelFacts, Plan, Recipe, StudentSource, TeacherFacts, TeacherPlan,
    TeacherTokenizer, TeacherTokens, TokenDifference, TokenizerFacts, Unlabelled, resolve,
};
use heirloom_train::{Job, Own, StudentWeights, TeacherJob, TeacherModel};

use crate::failure::Failure;
use crate::opened::{apply_layout, config_of_shape, model_facts};
use crate::places::Places;

pub use data::LABEL_NOISE;
use data::{Opened, data_digest, open_data};
pub(crate) use data::{SPLIT_SEED, within_limit};
pub use memory::available_memory;
use memory::memory_of_all_stages;

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
