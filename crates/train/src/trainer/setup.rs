//! What a run begins with: the teachers' answers or the teachers, a policy, the student's weights.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use heirloom_data::cache::TeacherCache;
use heirloom_data::dataset::Dataset;
use heirloom_engine::{Device, Role};
use heirloom_models::{Capacity, Head, Loaded, Model, transposed};
use heirloom_recipe::{Plan, TeacherPlan};
use heirloom_store::{Disk, TensorFile, TensorFolder};

use super::growing::shapes;
use super::rule;
use crate::balancing::Balancing;
use crate::hypergradient::Hypergradient;
use crate::stages::Stages;
use crate::teacher::{LiveTeacher, runs_live};
use crate::{
    Error, Job, Learned, StudentWeights, TeacherAnswers, TeacherJob, TeacherModel, answer_all,
    check_groups, policy,
};

/// A teacher's answers to the training set, and to a second set where there is one of its own.
pub(super) type Kept = (TeacherAnswers, Option<TeacherAnswers>);

/// What one teacher answers beforehand; `None` where it answers at every step.
pub(super) fn kept_answers(
    job: &Job,
    plan: &TeacherPlan,
    teacher: &TeacherJob,
    head: Head,
    disk: &dyn Disk,
    new_device: &mut dyn FnMut(crate::Work) -> crate::Device,
) -> Result<Option<Kept>, Error> {
    if runs_live(&job.plan, plan) {
        return Ok(None);
    }
    let teacher = match teacher {
        TeacherJob::Model(model) => model,
        TeacherJob::Answers(given) => {
            let kept = |answers: &Arc<TeacherCache>| TeacherAnswers::Cached(answers.clone());
            return Ok(Some((kept(&given.train), given.meta.as_ref().map(kept))));
        }
    };
    let (train, meta) = match &teacher.own {
        Some(own) => (&own.train, &own.meta),
        None => (&job.train, &job.meta),
    };
    let mut answers = |data: &Dataset| {
        let (both, dir) = ((plan, teacher), &job.cache_dir);
        let cache = answer_all(&job.plan, both, head, data, dir, disk, new_device)?;
        Ok::<_, Error>(TeacherAnswers::Cached(cache.into()))
    };
    let train = answers(train)?;
    Ok(Some((train, meta.as_deref().map(answers).transpose()?)))
}

pub(super) fn live(
    device: &mut dyn Device,
    job: &TeacherModel,
    head: Head,
    capacity: Capacity,
    inside: bool,
) -> Result<TeacherAnswers, Error> {
    Ok(TeacherAnswers::Live(Box::new(LiveTeacher::new(device, job, head, capacity, inside)?)))
}

/// The second set of a plan's regularizer.
pub(super) fn teaching(
    device: &mut dyn Device,
    job: &Job,
    answers: &mut Option<TeacherAnswers>,
) -> Option<Hypergradient> {
    let meta = job.plan.objective.regularizer_meta.clone()?;
    let (training, examples) = (&job.plan.training, job.train.len());
    let (data, micro) = (job.meta.clone(), rule(training.micro_batch));
    let answers = answers.take();
    Some(Hypergradient::new(device, meta, data, answers, training.seed, examples, micro))
}

/// The plan's policy, ready to decide.
pub(super) fn balancing(
    device: &mut dyn Device,
    job: &Job,
    head: Head,
    answers: Option<TeacherAnswers>,
) -> Option<Balancing> {
    let plan = job.plan.objective.balance.as_ref()?;
    let (training, examples) = (&job.plan.training, job.train.len());
    let classes = head.width(&job.student_config);
    let (objective, steps) = (&job.plan.objective, training.total_steps);
    let own = job.own.policy();
    let policy =
        own.unwrap_or_else(|| policy(plan, objective, examples, classes, steps, training.seed));
    let second = plan.meta.clone().map(|meta| {
        let (data, micro) = (job.meta.clone(), rule(training.micro_batch));
        Hypergradient::new(device, meta, data, answers, training.seed, examples, micro)
    });
    let teachers = 1 + job.other_teachers.len();
    Some(Balancing::new(policy, second, examples, teachers))
}

/// Fills the student's weights.
pub(super) fn load_student(
    device: &mut dyn Device,
    job: &Job,
    model: &Model,
) -> Result<Loaded, Error> {
    let seed = job.plan.training.seed;
    match &job.student_weights {
        StudentWeights::Fresh => {
            model.init(device, seed);
            Ok(Loaded::default())
        }
        StudentWeights::Later => Ok(Loaded::default()),
        StudentWeights::Folder { path, layers } => {
            let folder = TensorFolder::open(path)?;
            let map = heirloom_growth::LayerMap::of(layers);
            Ok(model.load(device, &folder, &|name| map.source_name(name), Some(seed))?)
        }
    }
}

/// The file beside a grown model's weights with the optimiser's moments.
pub const MOMENTS: &str = "moments.safetensors";

/// Puts the moments beside the weights in `path` into `student`; `is_transposed` says of which
/// parameters files hold the transpose.
pub(crate) fn load_moments(
    device: &mut dyn Device,
    path: &Path,
    student: &Learned,
    is_transposed: &dyn Fn(&str) -> bool,
) -> Result<(), Error> {
    let file = TensorFile::open(&path.join(MOMENTS))?;
    for (order, space) in [("first", student.first), ("second", student.second)] {
        for param in student.params.index().iter().filter(|param| param.role != Role::Carried) {
            let name = format!("{order}.{}", param.name);
            let turned = is_transposed(&param.name);
            let mut shape = param.shape.clone();
            if turned {
                shape.reverse();
            }
            let refuse = |found: String| Error::Moments {
                file: file.path().display().to_string(),
                name: param.name.clone(),
                found,
                expected: shape.clone(),
            };
            if !file.has(&name) {
                return Err(refuse("no moment".to_owned()));
            }
            if file.shape(&name)? != shape {
                return Err(refuse(format!("a moment of shape {:?}", file.shape(&name)?)));
            }
            let mut numbers = file.read_f32(&name)?;
            if turned {
                numbers = transposed(&numbers, param.shape[0]);
            }
            device.write(student.params.view(param, space), &numbers);
        }
    }
    Ok(())
}

/// Whether the plan's groups name parameters of the student, before or after it has grown.
pub(super) fn check_names(
    job: &Job,
    stages: &Stages<heirloom_models::EncoderConfig>,
) -> Result<(), Error> {
    let groups = &job.plan.training.groups;
    if groups.is_empty() || stages.state.grown > 0 {
        return Ok(());
    }
    let configs = [stages.first(), stages.largest()];
    let names: BTreeSet<String> =
        configs.into_iter().flat_map(|config| shapes(config, &job.plan).into_keys()).collect();
    check_groups(groups, names.iter().map(String::as_str))
}

/// Steps that the optimiser had taken before the run: those of the moments that it begins with.
pub fn begun(plan: &Plan) -> u64 {
    plan.student.moments.updates()
}
