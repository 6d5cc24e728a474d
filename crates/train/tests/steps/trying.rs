//! Several ways of growing are tried, and one is kept.

use std::path::Path;

use heirloom_recipe::{Lag, Size, StagePlan, When};
use heirloom_store::RealDisk;
use heirloom_train::{GrowthRecord, Job, Trainer};

use crate::growing::{Dying, deeper, go_on, outcome, plain, stage, trainer_of, walk, wider, with};
use crate::tiny::{double, single};

fn tries(names: &[&str], steps: u64, stage: StagePlan) -> StagePlan {
    let candidates = names.iter().map(|name| (*name).to_owned()).collect();
    StagePlan { lag: Some(Lag { candidates, steps }), ..stage }
}

fn only(growths: Vec<GrowthRecord>) -> GrowthRecord {
    let [growth] = <[GrowthRecord; 1]>::try_from(growths).expect("one growth");
    growth
}

/// A run whose stage tries three methods is that of the one it keeps, bit for bit, and what it foretold
/// of the steps to come is what they are.
#[test]
fn the_way_with_the_lowest_loss_is_kept_and_its_steps_are_those_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["stack", "interleave", "preserve"];
    let four = deeper(When::Step(6), 4, "lag");
    for device in [single, double] {
        let mut run = trainer_of(plain(&[tries(&names, 9, four.clone())], folder.path()), device);
        let (steps, growths) = walk(&mut run, 30, device);
        let growth = only(growths);
        let tried: Vec<&str> = growth.candidates.iter().map(|one| one.method.as_str()).collect();
        assert_eq!(tried, names);
        let loss = |at: usize| growth.candidates[at].loss.unwrap();
        let best = (0..3).min_by(|&a, &b| loss(a).total_cmp(&loss(b))).unwrap();
        assert!((0..3).all(|at| at == best || loss(at) > loss(best)), "{growth:?}");
        assert_eq!(growth.method, names[best]);
        // The last quarter of nine steps.
        let last: f64 = steps[12..15].iter().map(|step| step.loss).sum::<f64>() / 3.0;
        assert_eq!(loss(best), last);
        let spent: u64 = steps[6..15].iter().map(|step| step.flops).sum();
        assert_eq!(growth.candidates[best].flops, spent);
        assert_eq!(growth.flops, growth.candidates.iter().map(|one| one.flops).sum::<u64>());
        let read: u64 = steps[6..15].iter().map(|step| step.tokens).sum();
        assert!(growth.candidates.iter().all(|one| (one.tokens, one.steps) == (read, 9)));
        let alone = StagePlan { method: names[best].to_owned(), ..four.clone() };
        let mut alone = trainer_of(plain(&[alone], folder.path()), device);
        let (want, growths) = walk(&mut alone, 30, device);
        assert!(run.weights() == alone.weights() && steps == want);
        let plain = only(growths);
        assert_eq!((plain.plan, plain.largest_change), (growth.plan, growth.largest_change));
        // Whoever would have lost is another model.
        let other = StagePlan { method: names[(best + 1) % 3].to_owned(), ..four.clone() };
        let mut other = trainer_of(plain_of(&other, folder.path()), device);
        walk(&mut other, 30, device);
        assert!(run.weights() != other.weights());
    }
}

fn plain_of(stage: &StagePlan, folder: &Path) -> Job {
    plain(std::slice::from_ref(stage), folder)
}

#[test]
fn a_trial_ends_where_the_run_does_and_a_candidate_without_finite_losses_loses() {
    let folder = tempfile::tempdir().unwrap();
    let late = tries(&["stack", "interleave"], 50, deeper(When::Step(68), 4, "lag"));
    let mut run = trainer_of(plain_of(&late, folder.path()), single);
    let growth = only(walk(&mut run, 70, single).1);
    assert!(growth.candidates.iter().all(|one| one.steps == 2 && one.loss.is_some()));
    // A step that no model survives; what has grown from it diverges.
    let sets = ["training.max_grad_norm=0", "training.warmup_steps=0"];
    let wild = tries(&["stack", "interleave"], 40, deeper(When::Step(1), 4, "lag"));
    let mut job = with(&[wild], &sets, folder.path());
    job.plan.training.learning_rate = 1e30;
    let mut run = trainer_of(job, single);
    run.step().unwrap();
    assert!(run.grows_now());
    let growth = run.grow(&RealDisk, &mut |_| single()).unwrap();
    assert!(growth.candidates.iter().all(|one| one.loss.is_none()), "{growth:?}");
    assert_eq!(growth.method, "stack", "the first, where none is better");
}

/// The second stage grows from whatever the first has kept, which a resumed run must know.
fn staged(folder: &Path) -> Job {
    let first = tries(&["stack", "interleave", "llama-pro"], 2, deeper(When::Step(3), 3, "lag"));
    let second = StagePlan { hidden_size: Size::To(32), ..stage(When::Step(6), "lag") };
    let second = tries(&["hypercloning", "bert2bert-fpi"], 2, second);
    let sets = ["training.max_steps=9", "training.save_steps=2", "training.average=ema"];
    with(&[first, second], &sets, folder)
}

#[test]
fn a_run_that_tries_and_is_killed_at_an_operation_of_the_disk_ends_as_one_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let job = staged(root.path());
    let path = |name: &str| root.path().join(name);
    go_on(&path("alone"), &job, &RealDisk).unwrap();
    let want = outcome(&path("alone"));
    let text = String::from_utf8(want[2].clone()).unwrap();
    assert_eq!(text.matches(r#""candidates":[{"#).count(), 2, "{text}");
    let mut deaths = 0;
    // Every fourth operation; those around both growths are among them.
    for operations in (0..).step_by(4) {
        let name = format!("round-{operations}");
        if go_on(&path(&name), &job, &Dying::after(operations)).is_ok() {
            break;
        }
        deaths += 1;
        go_on(&path(&name), &job, &Dying::after(usize::MAX)).unwrap();
        assert!(outcome(&path(&name)) == want, "killed after {operations} operations");
        std::fs::remove_dir_all(path(&name)).unwrap();
    }
    assert!(deaths > 15, "only {deaths} deaths");
}

#[test]
fn a_candidate_that_cannot_be_is_refused_by_its_name_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |stages: &[StagePlan]| {
        let job = with(stages, &[], folder.path());
        let (first, training) = (&job.student_config, &job.plan.training);
        let error = heirloom_train::growth_plans(training, first).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2, "{text}");
        text
    };
    let five = deeper(When::Step(3), 5, "lag");
    assert_eq!(
        refused(&[tries(&["stack", "solar"], 5, five)]),
        "`stage.0.candidates`: `solar`: the number of layers cannot go from 2 to 5: two halves of the \
         model need an even number, at most twice as many"
    );
    let wide = tries(&["preserve", "stack"], 5, wider(When::Step(3)));
    assert!(refused(&[wide]).starts_with("`stage.0.candidates`: `stack`: the hidden size"));
    let three = deeper(When::Step(3), 3, "lag");
    assert!(refused(&[tries(&["stack", "stak"], 5, three)]).contains("there is no method `stak`"));
}

#[test]
fn a_checkpoint_of_a_candidate_that_the_plan_does_not_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let job = staged(folder.path());
    let text = r#"{"grown":1,"chosen":{"0":7},"tokens":1,"examples":1,"recent":[],"treated":{}}"#;
    let state = serde_json::from_str(text).unwrap();
    let error = Trainer::at_stage(job, state, &RealDisk, &mut |_| single()).unwrap_err();
    assert!(error.to_string().contains("candidate 7 of stage 0"), "{error}");
}
