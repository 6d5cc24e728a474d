//! A student that grows in the middle of a run: what is kept, what goes on, what survives a crash.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use heirloom_base::Bytes;
use heirloom_recipe::{Frozen, GrownMoments, Operator, Size, StagePlan, When};
use heirloom_store::{Disk, DiskError, Doing, Entry, Holder, RealDisk};
use heirloom_train::{
    Device, Ending, Error, EvaluationRecord, Foreseen, GrowthRecord, Job, Judged, Outside,
    RunFolder, StagesState, StepRecord, Trainer, Treatment, Work, run as run_loop,
};

use crate::tiny::{Task, double, job, single};

pub(crate) fn stage(when: When, method: &str) -> StagePlan {
    StagePlan {
        when,
        method: method.to_owned(),
        lag: None,
        mask_steps: 0,
        num_hidden_layers: Size::Follows,
        hidden_size: Size::Follows,
        num_attention_heads: Size::Follows,
        intermediate_size: Size::Follows,
        moments: GrownMoments::Exact,
        rates: true,
        warmup_steps: 0,
        freezing: Frozen::Always,
        noise: 0.0,
        seed: 1,
        operator: Operator::Fixed,
    }
}

/// Whole copies of everything: width 16 to 32.
pub(crate) fn wider(when: When) -> StagePlan {
    StagePlan { hidden_size: Size::To(32), ..stage(when, "hypercloning") }
}

pub(crate) fn deeper(when: When, layers: u64, method: &str) -> StagePlan {
    StagePlan { num_hidden_layers: Size::To(layers), ..stage(when, method) }
}

pub(crate) fn with(stages: &[StagePlan], sets: &[&str], folder: &Path) -> Job {
    let length = sets.iter().any(|set| set.starts_with("training.max_steps"));
    let usual: &[&str] = if length { &[] } else { &["training.max_steps=70"] };
    let sets = [usual, &["training.batch_size=5"], sets].concat();
    let mut job = job(Task::Labelled, false, &sets, folder);
    job.plan.training.stages = stages.to_vec();
    job
}

/// Without dropout, whose masks are other ones in another width, without clipping, whose length
/// copies change, and with an ε that weighs on no step: a copy's gradient is smaller.
const PLAIN: [&str; 4] = [
    "training.max_grad_norm=0",
    "training.adam_epsilon=1e-14",
    "training.learning_rate=0.002",
    "training.weight_decay=0.05",
];

pub(crate) fn plain(stages: &[StagePlan], folder: &Path) -> Job {
    let mut job = with(stages, &PLAIN, folder);
    let config = &mut job.student_config;
    (config.hidden_dropout, config.attention_dropout, config.classifier_dropout) = (0.0, 0.0, 0.0);
    job
}

pub(crate) fn trainer_of(job: Job, device: fn() -> Device) -> Trainer {
    Trainer::new(job, &RealDisk, &mut |_| device()).unwrap()
}

/// Steps until the run ends or `most` are done, growing on the way.
pub(crate) fn walk(
    trainer: &mut Trainer,
    most: u64,
    device: fn() -> Device,
) -> (Vec<StepRecord>, Vec<GrowthRecord>) {
    let (mut steps, mut growths) = (Vec::new(), Vec::new());
    while !trainer.progress().finished && trainer.progress().cursor.step < most {
        steps.push(trainer.step().unwrap());
        if trainer.grows_now() {
            growths.push(trainer.grow(&RealDisk, &mut |_| device()).unwrap());
        }
    }
    (steps, growths)
}

fn farthest(one: &[StepRecord], two: &[StepRecord]) -> f64 {
    assert_eq!(one.len(), two.len());
    one.iter().zip(two).map(|(a, b)| (a.loss - b.loss).abs()).fold(0.0, f64::max)
}

#[test]
fn the_grown_clone_follows_the_small_model_for_fifty_steps_of_the_real_trainer() {
    let folder = tempfile::tempdir().unwrap();
    let mut small = trainer_of(plain(&[], folder.path()), double);
    let (want, _) = walk(&mut small, 60, double);
    let mut grown = trainer_of(plain(&[wider(When::Step(10))], folder.path()), double);
    let (got, growths) = walk(&mut grown, 60, double);
    let [growth] = growths.as_slice() else { panic!("it grew {} times", growths.len()) };
    assert_eq!((growth.step, growth.from.hidden, growth.to.hidden), (10, 16, 32));
    assert!(growth.largest_change < 1e-10 && growth.largest_output > 0.01, "{growth:?}");
    assert!(growth.parameters_after > 2 * growth.parameters_before);
    let gap = farthest(&want, &got);
    assert!(gap < 1e-9, "losses are {gap:e} apart");
    assert_eq!(grown.clone_gap().unwrap(), Some(0.0), "copies are locked");
    assert!(want[9].loss - want[59].loss > 0.01, "something was learnt");
    // At the rates of before, it does not.
    let other = StagePlan { rates: false, ..wider(When::Step(10)) };
    let mut other = trainer_of(plain(&[other], folder.path()), double);
    let gap = farthest(&want, &walk(&mut other, 60, double).0);
    assert!(gap > 1e-5, "losses are {gap:e} apart");
}

#[test]
fn copies_learn_apart_by_default_and_never_with_exact_moments() {
    let folder = tempfile::tempdir().unwrap();
    for (moments, locked) in
        [(GrownMoments::Exact, true), (GrownMoments::Drop, true), (GrownMoments::Asymmetric, false)]
    {
        let stage = StagePlan { moments, ..wider(When::Step(3)) };
        let mut trainer = trainer_of(plain(&[stage], folder.path()), double);
        let (_, growths) = walk(&mut trainer, 20, double);
        assert_eq!(growths[0].clone_gap, 0.0);
        let gap = trainer.clone_gap().unwrap().unwrap();
        assert_eq!(gap == 0.0, locked, "{moments}: {gap:e}");
        assert!(locked || gap > 1e-4, "{moments}: {gap:e}");
    }
}

#[test]
fn depth_that_keeps_the_function_keeps_it_and_trains_what_its_method_wants() {
    let folder = tempfile::tempdir().unwrap();
    let pro = StagePlan { warmup_steps: 4, ..deeper(When::Step(5), 4, "llama-pro") };
    let mut trainer = trainer_of(plain(&[pro], folder.path()), double);
    let (_, growths) = walk(&mut trainer, 5, double);
    assert!(growths[0].largest_change < 1e-10, "{:?}", growths[0]);
    assert_eq!(trainer.clone_gap().unwrap(), None);
    let before = trainer.weights();
    walk(&mut trainer, 12, double);
    let after = trainer.weights();
    for ((name, _, old), (_, _, new)) in before.iter().zip(&after) {
        let added = ["layer.1.", "layer.3."].iter().any(|layer| name.contains(layer));
        assert_eq!(old != new, added, "{name}");
    }
}

#[test]
fn a_frozen_stage_thaws_and_what_is_new_is_warmed_up() {
    let folder = tempfile::tempdir().unwrap();
    let stage = StagePlan {
        warmup_steps: 4,
        freezing: Frozen::Until(6),
        ..deeper(When::Step(5), 3, "mslt")
    };
    let mut trainer = trainer_of(plain(&[stage], folder.path()), double);
    walk(&mut trainer, 5, double);
    let names: Vec<String> = trainer.weights().into_iter().map(|(name, ..)| name).collect();
    let state = trainer.stages().unwrap();
    let params = trainer.model().params();
    let of = |name: &str| state.treatments(params)[names.iter().position(|n| n == name).unwrap()];
    let old = of("bert.encoder.layer.0.output.dense.weight");
    assert_eq!(old, Treatment { frozen_until: 11, ..Treatment::USUAL });
    let new = of("bert.encoder.layer.2.output.dense.weight");
    assert_eq!(new, Treatment { rises_from: 5, rises_over: 4, ..Treatment::USUAL });
    let before = trainer.weights();
    walk(&mut trainer, 11, double);
    let at =
        names.iter().position(|name| name == "bert.encoder.layer.0.output.dense.weight").unwrap();
    assert!(trainer.weights()[at] == before[at]);
    walk(&mut trainer, 12, double);
    assert!(trainer.weights()[at] != before[at]);
}

#[test]
fn a_run_grows_by_tokens_by_examples_and_when_its_loss_no_longer_falls() {
    let folder = tempfile::tempdir().unwrap();
    let steps = |when| {
        let mut trainer = trainer_of(with(&[deeper(when, 3, "stack")], &[], folder.path()), single);
        let (steps, growths) = walk(&mut trainer, 70, single);
        (steps, growths.into_iter().next())
    };
    let (records, growth) = steps(When::Examples(40));
    let growth = growth.unwrap();
    let read: u64 = records[..growth.step as usize].iter().map(|step| step.sequences).sum();
    let last = records[growth.step as usize - 1].sequences;
    assert!(read >= 40 && read - last < 40 && growth.examples == read, "{growth:?}");
    let (records, growth) = steps(When::Tokens(300));
    let growth = growth.unwrap();
    let read: u64 = records[..growth.step as usize].iter().map(|step| step.tokens).sum();
    assert!(read >= 300 && growth.tokens == read, "{growth:?}");
    // A slope that any loss but a falling one has; one that no loss has.
    let (_, growth) = steps(When::Slope { above: -1e9, window: 8, not_before: 20 });
    assert_eq!(growth.unwrap().step, 20);
    let (_, growth) = steps(When::Slope { above: -1e9, window: 30, not_before: 20 });
    assert_eq!(growth.unwrap().step, 30, "the window is full");
    let (_, growth) = steps(When::Slope { above: 1e9, window: 8, not_before: 20 });
    assert_eq!(growth, None);
}

#[test]
fn what_cannot_grow_is_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |stages: &[StagePlan]| {
        let job = with(stages, &[], folder.path());
        Trainer::new(job, &RealDisk, &mut |_| single()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&[deeper(When::Step(3), 4, "stack"), deeper(When::Step(5), 3, "stack")]),
        "`stage.1`: the number of layers cannot go from 4 to 3: growing takes no layers away"
    );
    assert!(refused(&[deeper(When::Step(3), 4, "stak")]).contains("the nearest is `stack`"));
    assert!(refused(&[wider(When::Step(3)), wider(When::Step(5))]).contains("nothing would grow"));
}

/// The world of a run that nobody watches.
struct Nobody(fn() -> Device);

impl Outside for Nobody {
    fn step(&mut self, _: &StepRecord) {}
    fn judge(&mut self, _: Vec<f32>, _: &heirloom_data::dataset::Dataset) -> Result<Judged, Error> {
        unreachable!("nothing is evaluated")
    }
    fn judge_text(&mut self, _: &Foreseen) -> Result<Judged, Error> {
        unreachable!("nothing is evaluated")
    }
    fn evaluated(&mut self, _: &EvaluationRecord) {}
    fn device(&mut self, _: Work) -> Device {
        self.0()
    }
    fn grown(&mut self, _: &GrowthRecord) {}
    fn asked_to_stop(&mut self) -> bool {
        false
    }
}

/// A disk of a process that is killed after some operations: what was done stays, nothing follows. A
/// kill loses nothing that was written, so nothing is synced.
pub(crate) struct Dying(AtomicUsize);

impl Dying {
    pub(crate) fn after(operations: usize) -> Self {
        Self(AtomicUsize::new(operations))
    }

    fn lives(&self, doing: Doing, path: &Path) -> Result<(), DiskError> {
        let left =
            self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let dead = || std::io::Error::other("the process was killed");
        left.map(drop).map_err(|_| DiskError { doing, path: path.to_owned(), source: dead() })
    }
}

impl Disk for Dying {
    fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.lives(Doing::CreateDir, path)?;
        RealDisk.create_dir(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        if let Err(dead) = self.lives(Doing::Write, path) {
            // Half of it arrived.
            let _ = RealDisk.write(path, &bytes[..bytes.len() / 2]);
            return Err(dead);
        }
        RealDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        if let Err(dead) = self.lives(Doing::Append, path) {
            let _ = RealDisk.append(path, &bytes[..bytes.len() / 2]);
            return Err(dead);
        }
        RealDisk.append(path, bytes)
    }
    fn truncate(&self, path: &Path, len: u64) -> Result<(), DiskError> {
        self.lives(Doing::Truncate, path)?;
        RealDisk.truncate(path, len)
    }
    fn sync(&self, path: &Path) -> Result<(), DiskError> {
        self.lives(Doing::Sync, path)
    }
    fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.lives(Doing::SyncDir, path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.lives(Doing::Rename, from)?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.lives(Doing::Remove, path)?;
        RealDisk.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.lives(Doing::RemoveDir, path)?;
        RealDisk.remove_dir(path)
    }
    fn read_pieces(&self, path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<(), DiskError> {
        RealDisk.read_pieces(path, each)
    }
    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        RealDisk.list(path)
    }
    fn free(&self, path: &Path) -> Result<Bytes, DiskError> {
        RealDisk.free(path)
    }
}

/// Two growths, an average, dropout, and a checkpoint every second step.
fn staged(folder: &Path) -> Job {
    let stages = [
        StagePlan { warmup_steps: 3, ..deeper(When::Step(3), 3, "stack") },
        StagePlan {
            moments: GrownMoments::Asymmetric,
            noise: 0.1,
            ..wider(When::Slope { above: -1e9, window: 2, not_before: 6 })
        },
    ];
    let sets = [
        "training.max_steps=9",
        "training.save_steps=2",
        "training.average=ema",
        "training.average_decay=0.9",
    ];
    with(&stages, &sets, folder)
}

/// Begins or resumes the run in `path`, and goes on as far as the disk lives.
pub(crate) fn go_on(path: &Path, job: &Job, disk: &dyn Disk) -> Result<(), Error> {
    let holder = Holder::this_process("2000-01-01T00:00:00Z");
    let mut new_device = |_| single();
    if !path.join("plan.toml").is_file() {
        let mut trainer = Trainer::new(job.clone(), disk, &mut new_device)?;
        let mut folder = RunFolder::create(disk, path, &holder, &job.plan.to_toml())?;
        let ending = run_loop(&mut trainer, &mut folder, &mut Nobody(single))?;
        assert_eq!(ending, Ending::Finished);
        return Ok(());
    }
    let found = RunFolder::open(disk, path, &holder)?;
    let mut folder = found.folder;
    let committed = |step| heirloom_store::Committed::open_step(disk, path, step);
    let state = match found.steps.last() {
        Some(&step) => RunFolder::stages(&committed(step)?)?,
        None => StagesState::default(),
    };
    let mut trainer = Trainer::at_stage(job.clone(), state, disk, &mut new_device)?;
    match found.steps.last() {
        Some(&step) => folder.restore(&mut trainer, step)?,
        None => folder.restart()?,
    }
    run_loop(&mut trainer, &mut folder, &mut Nobody(single)).map(drop)
}

pub(crate) fn outcome(path: &Path) -> [Vec<u8>; 3] {
    ["last/model.safetensors", "last/config.json", "run.jsonl"]
        .map(|file| std::fs::read(path.join(file)).unwrap())
}

/// The process dies at every operation of the disk, from the first to the last, among them those
/// before, during and after both growths; what resumes ends with the same bits.
#[test]
fn a_run_killed_at_any_operation_of_the_disk_ends_as_one_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let job = staged(root.path());
    let path = |name: &str| -> PathBuf { root.path().join(name) };
    go_on(&path("alone"), &job, &RealDisk).unwrap();
    let want = outcome(&path("alone"));
    let text = String::from_utf8(want[2].clone()).unwrap();
    let grown = text.lines().filter(|line| line.contains(r#""kind":"growth""#)).count();
    assert_eq!(grown, 2, "{text}");
    let mut deaths = 0;
    for operations in 0.. {
        let name = format!("round-{operations}");
        let dying = Dying::after(operations);
        let died = go_on(&path(&name), &job, &dying).is_err();
        if !died {
            break;
        }
        deaths += 1;
        go_on(&path(&name), &job, &Dying::after(usize::MAX)).unwrap();
        assert!(outcome(&path(&name)) == want, "killed after {operations} operations");
        std::fs::remove_dir_all(path(&name)).unwrap();
    }
    assert!(deaths > 50, "only {deaths} deaths");
}

#[test]
fn a_checkpoint_of_another_stage_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let job = staged(root.path());
    let path = root.path().join("run");
    go_on(&path, &job, &RealDisk).unwrap();
    let mut small = trainer_of(job, single);
    let holder = Holder::this_process("2000-01-01T00:00:00Z");
    let mut found = RunFolder::open(&RealDisk, &path, &holder).unwrap();
    let step = *found.steps.last().unwrap();
    let error = found.folder.restore(&mut small, step).unwrap_err().to_string();
    assert!(
        error.contains(
            "a student that has grown 2 times, expected a student that has grown 0 times"
        ),
        "{error}"
    );
}

/// Operations of a step: the model's products by its shapes, forward and backward, and AdamW's.
#[test]
fn a_step_counts_the_operations_of_its_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let job = with(&[], &["training.max_steps=1"], folder.path());
    let mut order = heirloom_data::order::Order::new(job.plan.training.seed, job.train.len());
    let rule = heirloom_data::order::BatchRule::Sequences(5);
    let (examples, _) = order.next_step(&job.train, Default::default(), rule);
    let ids = |at: &u32| job.train.example(*at as usize).ids.to_vec();
    let lengths: Vec<u32> = examples.iter().map(|at| ids(at).len() as u32).collect();
    let mut words: Vec<u32> = examples.iter().flat_map(ids).collect();
    words.sort_unstable();
    words.dedup();
    let config = job.student_config.clone();
    let forward = config.operations(heirloom_models::Head::SingleLabel { labels: 3 }, &lengths, 0);
    let pairs: u64 = lengths.iter().map(|&length| u64::from(length * length)).sum();
    let attention = |factor: u64| 2 * factor * 16 * pairs;
    let backward = 2 * (forward - attention(4)) + attention(10);
    let mut trainer = trainer_of(job, single);
    let params = trainer.model().params();
    // Whatever pads the buffer between parameters is moved with them.
    let dense = params.spans(0.0).iter().map(heirloom_engine::Span::len).sum::<usize>() - 60 * 16;
    let optimiser = 16 * (dense + words.len() * 16) as u64;
    let record = trainer.step().unwrap();
    assert!(record.flops.abs_diff(forward + backward + optimiser) <= 16 * 64, "{record:?}");
}

/// A learnt map begins where bert2BERT's does, and ends at a lower loss; it is the same when it is
/// learnt again, and its cost is in the record.
#[test]
fn an_operator_is_learnt_on_the_way_and_lowers_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = StagePlan {
        num_hidden_layers: Size::To(3),
        moments: GrownMoments::Drop,
        rates: false,
        ..wider(When::Step(6))
    };
    let fixed = StagePlan { method: "bert2bert-fpi".to_owned(), ..sizes.clone() };
    let learnt = |steps, learning_rate| StagePlan {
        method: "ligo".to_owned(),
        operator: Operator::Learnt { steps, learning_rate },
        ..sizes.clone()
    };
    let grown = |stage: StagePlan, device: fn() -> Device| {
        let mut trainer = trainer_of(plain(&[stage], folder.path()), device);
        let (steps, growths) = walk(&mut trainer, 9, device);
        (trainer.weights(), growths.into_iter().next().unwrap(), steps)
    };
    let (unlearnt, ..) = grown(learnt(1, 1e-300), double);
    let (want, growth, _) = grown(fixed, double);
    assert_eq!((growth.flops, growth.learnt), (0, None));
    for ((name, _, want), (_, _, got)) in want.iter().zip(&unlearnt) {
        let near = want.iter().zip(got).all(|(want, got)| (want - got).abs() < 1e-6);
        assert!(near, "{name}");
    }
    for device in [double, single] {
        let (weights, growth, _) = grown(learnt(40, 3e-3), device);
        let how = growth.learnt.unwrap();
        assert!(how.last_loss < how.first_loss - 0.01, "{how:?}");
        assert!(growth.flops > 0 && how.tokens > 0 && how.numbers > 1000, "{growth:?}");
        let (again, ..) = grown(learnt(40, 3e-3), device);
        assert!(weights == again);
    }
}
