//! Where the teacher's answers come from: computed once and kept, or computed with every batch.

use std::path::Path;
use std::sync::Arc;

use heirloom_base::Digest;
use heirloom_data::cache::{CacheKey, TeacherCache};
use heirloom_data::dataset::Dataset;
use heirloom_engine::{Device, View};
use heirloom_models::{Buffers, Capacity, DeviceBatch, Head, Model, Purpose};
use heirloom_recipe::{Logits, Plan, TeacherPlan, TeacherTokens};
use heirloom_store::{Disk, TensorFolder, write_atomic};

use crate::predict::{Predictor, inputs};
use crate::{Error, TeacherModel, Work};

/// The teacher of a run, or its teachers.
#[derive(Debug)]
pub enum TeacherAnswers {
    /// No teacher.
    Nobody,
    /// One row of logits per training example.
    Cached(Arc<TeacherCache>),
    /// A model beside the student; boxed because it is much larger than the others.
    Live(Box<LiveTeacher>),
    /// At least two, each of them cached or live.
    Several(Vec<TeacherAnswers>),
}

impl TeacherAnswers {
    /// Those of none, one or several.
    pub(crate) fn of(mut all: Vec<Self>) -> Self {
        match all.len() {
            0 => Self::Nobody,
            1 => all.remove(0),
            _ => Self::Several(all),
        }
    }
}

/// A teacher that answers every batch.
#[derive(Debug)]
pub struct LiveTeacher {
    model: Model,
    batch: DeviceBatch,
    buffers: Buffers,
}

impl LiveTeacher {
    /// Loads the teacher beside the student. `inside` keeps its hidden states readable.
    pub(crate) fn new(
        device: &mut dyn Device,
        job: &TeacherModel,
        head: Head,
        capacity: Capacity,
        inside: bool,
    ) -> Result<Self, Error> {
        let model = load(device, job, head)?;
        let purpose = if inside { Purpose::Inspect } else { Purpose::Infer };
        let buffers = model.buffers(device, capacity, &purpose);
        let batch = model.batch(device, capacity);
        Ok(Self { model, batch, buffers })
    }

    /// Answers a batch; the logits stay on the device.
    pub(crate) fn answer(
        &mut self,
        device: &mut dyn Device,
        batch: &heirloom_data::pack::Batch,
    ) -> View {
        self.batch.upload(device, &inputs(batch));
        self.model.forward(device, &self.batch, &self.buffers, None)
    }

    pub(crate) fn inside(&self) -> &Buffers {
        &self.buffers
    }
}

fn load(device: &mut dyn Device, job: &TeacherModel, head: Head) -> Result<Model, Error> {
    let model = Model::new(device, job.config.clone(), head);
    let folder = TensorFolder::open(&job.path)?;
    model.load(device, &folder, &|name| name.to_owned(), None)?;
    Ok(model)
}

/// The teacher's logits for every example of `train`: from `cache_dir` where they are already
/// kept, else computed on a device of their own and kept there.
///
/// A file is found by the digests of teacher, tokenizer, text and length, and these are compared
/// again with what the file says of itself. `train` is in the tokens that the teacher reads.
pub fn answer_all(
    plan: &Plan,
    (teacher, job): (&TeacherPlan, &TeacherModel),
    head: Head,
    train: &Dataset,
    cache_dir: &Path,
    disk: &dyn Disk,
    new_device: &mut dyn FnMut(Work) -> crate::Device,
) -> Result<TeacherCache, Error> {
    let TeacherPlan::Model { digest, batch_tokens, tokens, .. } = teacher else {
        unreachable!("a job with a teacher has a plan with a teacher")
    };
    let key = CacheKey {
        teacher: *digest,
        tokenizer: match tokens {
            TeacherTokens::Shared => plan.tokenizer.digest,
            TeacherTokens::Own { digest } => *digest,
        },
        text: train.tokens_digest(),
        max_length: plan.data.max_length as usize,
    };
    let classes = head.width(&job.config);
    let path = cache_dir.join(format!("{}.logits", digest_of(&key).short()));
    if let Ok(bytes) = std::fs::read(&path) {
        let named =
            |source| Error::Cache { file: path.display().to_string(), source: Box::new(source) };
        let cache = TeacherCache::from_bytes(&bytes).map_err(named)?;
        cache.check(&key, train.len(), classes).map_err(named)?;
        return Ok(cache);
    }
    let mut device = new_device(Work::KeptAnswers);
    let model = load(&mut *device, job, head)?;
    let at_once = *batch_tokens as usize;
    let mut predictor = Predictor::for_dataset(&mut *device, &model, at_once, train);
    let logits = predictor.outputs(&mut *device, &model, train);
    let cache = TeacherCache::new(key, train.len(), classes, logits)?;
    write_atomic(disk, &path, &cache.to_bytes())?;
    Ok(cache)
}

fn digest_of(key: &CacheKey) -> Digest {
    let mut hasher = heirloom_base::Hasher::new();
    for digest in [key.teacher, key.tokenizer, key.text] {
        hasher.part(digest.to_string().as_bytes());
    }
    hasher.part(&(key.max_length as u64).to_le_bytes()).digest()
}

/// Whether a teacher of the plan runs beside the student: because it says so, or because a term
/// looks into it.
pub(crate) fn runs_live(plan: &Plan, teacher: &TeacherPlan) -> bool {
    match teacher {
        TeacherPlan::Nobody | TeacherPlan::Answers { .. } => false,
        TeacherPlan::Model { logits, .. } => {
            *logits == Logits::Live || !plan.objective.hidden.is_empty()
        }
    }
}
