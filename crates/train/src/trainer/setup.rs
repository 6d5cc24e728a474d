//! What a run begins with: the teachers' answers or the teachers, a policy, the student's weights.

use heirloom_data::dataset::Dataset;
use heirloom_engine::Device;
use heirloom_models::{Capacity, Head, Loaded, Model};
use heirloom_recipe::TeacherPlan;
use heirloom_store::{Disk, TensorFolder};

use super::rule;
use crate::balancing::Balancing;
use crate::hypergradient::Hypergradient;
use crate::teacher::{LiveTeacher, runs_live};
use crate::{Error, Job, StudentWeights, TeacherAnswers, TeacherJob, answer_all, policy};

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
    let (train, meta) = match &teacher.own {
        Some(own) => (&own.train, &own.meta),
        None => (&job.train, &job.meta),
    };
    let mut answers = |data: &Dataset| {
        let (both, dir) = ((plan, teacher), &job.cache_dir);
        let cache = answer_all(&job.plan, both, head, data, dir, disk, new_device)?;
        Ok::<_, Error>(TeacherAnswers::Cached(cache))
    };
    let train = answers(train)?;
    Ok(Some((train, meta.as_deref().map(answers).transpose()?)))
}

pub(super) fn live(
    device: &mut dyn Device,
    job: &TeacherJob,
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
    let policy =
        policy(plan, &job.plan.objective, examples, classes, training.total_steps, training.seed);
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
        StudentWeights::Folder { path, layers } => {
            let folder = TensorFolder::open(path)?;
            let map = heirloom_growth::LayerMap::of(layers);
            Ok(model.load(device, &folder, &|name| map.source_name(name), Some(seed))?)
        }
    }
}
