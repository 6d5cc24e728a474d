//! Parameters that the optimiser treats in a way of their own: at another rate, late, or never.

use std::path::Path;

use heirloom_base::Step;
use heirloom_recipe::{Frozen, GroupPlan};
use heirloom_store::{Holder, RealDisk};
use heirloom_train::{Device, Error, Job, RunFolder, Trainer};

use crate::tiny::{Run, Task, double, job, run, single, trainer};

const TABLE: &str = "bert.embeddings.word_embeddings.weight";

fn with(groups: &[GroupPlan], sets: &[&str], folder: &Path) -> Job {
    let sets = [&["training.max_steps=8", "training.batch_size=5"], sets].concat();
    let mut job = job(Task::Labelled, false, &sets, folder);
    job.plan.training.groups = groups.to_vec();
    job
}

fn frozen(pattern: &str, frozen: Frozen) -> GroupPlan {
    GroupPlan { frozen, ..GroupPlan::of(pattern, 1.0) }
}

fn weights_of<'r>(run: &'r Run, name: &str) -> &'r [f32] {
    &run.weights.iter().find(|(other, ..)| other == name).expect("a parameter").2
}

const DEVICES: [fn() -> Device; 2] = [double, single];

#[test]
fn half_the_rate_of_everything_is_a_run_at_half_the_rate() {
    let folder = tempfile::tempdir().unwrap();
    let half = [GroupPlan::of("*", 0.5)];
    for device in DEVICES {
        let grouped = run(with(&half, &[], folder.path()), device);
        let mut job = with(&[], &[], folder.path());
        job.plan.training.learning_rate *= 0.5;
        let plain = run(job, device);
        assert!(grouped.weights == plain.weights, "powers of two multiply exactly");
        let [first, ..] = grouped.steps.as_slice() else { panic!("no step") };
        assert_eq!(first.group_learning_rates, [first.learning_rate * 0.5]);
    }
}

#[test]
fn what_is_frozen_keeps_its_bits_and_is_no_part_of_the_gradient() {
    let folder = tempfile::tempdir().unwrap();
    for pattern in ["*.layer.0.*", TABLE, "bert.embeddings.*"] {
        for device in DEVICES {
            let job = with(&[frozen(pattern, Frozen::Always)], &[], folder.path());
            let before = trainer(job.clone(), device).weights();
            let after = run(job, device);
            let mut kept = 0;
            for ((name, _, old), (_, _, new)) in before.iter().zip(&after.weights) {
                let same = heirloom_train::matches(pattern, name);
                assert_eq!(old == new, same, "{name} under {pattern}");
                kept += usize::from(same);
            }
            assert!(kept > 0);
            assert!(after.steps.iter().all(|step| step.group_learning_rates == [0.0]));
            // A gradient that moves nothing would shorten the others' where it is clipped.
            let alone = run(with(&[], &[], folder.path()), device);
            let [with, without] = [&after, &alone].map(|run| run.steps[0].gradient_norm);
            assert!(with < without, "{with} is not below {without}");
        }
    }
}

/// Before it moves, a parameter is as it was; from there on it moves as one whose optimiser begins
/// there: its moments' corrections count from its own first step.
#[test]
fn what_thaws_first_moves_as_far_as_in_a_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let until = |steps| [frozen("classifier.weight", Frozen::Until(steps))];
    for device in DEVICES {
        let start = trainer(with(&[], &[], folder.path()), device).weights();
        let old = &start.iter().find(|(name, ..)| name == "classifier.weight").unwrap().2;
        let level = ["training.lr_scheduler_type=constant", "training.weight_decay=0"];
        let mut trainer = trainer(with(&until(3), &level, folder.path()), device);
        for step in 1..=4 {
            trainer.step().unwrap();
            let weights = trainer.weights();
            let new = &weights.iter().find(|(name, ..)| name == "classifier.weight").unwrap().2;
            if step <= 3 {
                assert_eq!(new, old, "step {step}");
                continue;
            }
            // With moments of one step, m̂/√v̂ is the gradient's sign.
            let rate = crate::tiny::LEARNING_RATE;
            for (new, old) in new.iter().zip(old) {
                let moved = (new - old).abs();
                assert!((moved - rate).abs() < 1e-3 * rate, "moved by {moved}");
            }
        }
    }
}

/// A group that holds everything and freezes nothing changes no bit of the run; one that is warmed
/// up does.
#[test]
fn a_group_without_a_factor_is_no_group() {
    let folder = tempfile::tempdir().unwrap();
    let plain = run(with(&[], &[], folder.path()), single);
    let usual = run(with(&[GroupPlan::of("*", 1.0)], &[], folder.path()), single);
    assert!(plain.weights == usual.weights);
    let rising = GroupPlan { warmup_steps: 4, ..GroupPlan::of("*", 1.0) };
    let rising = run(with(&[rising], &[], folder.path()), single);
    assert!(plain.weights != rising.weights);
    let rates: Vec<f64> =
        rising.steps.iter().map(|step| step.group_learning_rates[0] / step.learning_rate).collect();
    assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn a_run_with_groups_resumed_at_any_step_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let groups = [
        frozen("*.layer.0.*", Frozen::Always),
        frozen(TABLE, Frozen::Until(3)),
        GroupPlan { warmup_steps: 3, ..frozen("*.layer.1.*", Frozen::Until(2)) },
        GroupPlan::of("classifier.*", 3.0),
    ];
    let job = || with(&groups, &["training.save_steps=1"], folder.path());
    let whole = run(job(), single);
    assert_ne!(
        weights_of(&whole, TABLE),
        weights_of(&run(with(&[], &[], folder.path()), single), TABLE)
    );
    for stop in 0..8 {
        let path = folder.path().join(format!("stop-{stop}"));
        let holder = Holder::this_process("2000-01-01T00:00:00Z");
        let mut first = trainer(job(), single);
        let plan = first.plan().to_toml();
        let mut kept = RunFolder::create(&RealDisk, &path, &holder, &plan).unwrap();
        for _ in 0..stop {
            first.step().unwrap();
        }
        kept.commit(&mut first).unwrap();
        drop((first, kept));
        let mut second: Trainer = trainer(job(), single);
        let mut found = RunFolder::open(&RealDisk, &path, &holder).unwrap();
        found.folder.restore(&mut second, Step(stop)).unwrap();
        while !second.progress().finished {
            second.step().unwrap();
        }
        assert!(second.weights() == whole.weights, "stopped after {stop}");
    }
}

#[test]
fn a_pattern_without_a_parameter_is_refused_with_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    let job = with(&[GroupPlan::of("classifier.wieght", 2.0)], &[], folder.path());
    let error = Trainer::new(job, &RealDisk, &mut |_| single()).unwrap_err();
    assert!(matches!(error, Error::NoSuchParameter { .. }) && error.exit_code() == 2);
    assert_eq!(
        error.to_string(),
        "`classifier.wieght` of `training.group` matches none of the student's 41 parameters; the \
         nearest is `classifier.weight`, and `*` stands for any text"
    );
}
