//! A step's loss, gradient and weights do not depend on how it is cut into micro-batches, nor on
//! which examples are computed together.
//!
//! The models' parity tests hold packed batches against padded ones; here packed ones are held
//! against their examples one by one.

use heirloom_data::order::{BatchRule, Order};
use heirloom_data::pack::micro_batches;
use heirloom_train::{Device, Trainer, micro_capacity};
use tempfile::tempdir;

use crate::tiny::{LEARNING_RATE, Run, Task, double, job, run, single};

const CACHED: &str = "teacher.logits=\"cache\"";
const LIVE: &str = "teacher.logits=\"live\"";
const HIDDEN: &str = "objective.hidden=[{ kind = \"mse\", projection = true }, \
                      { kind = \"cosine\", position = \"first\" }, \
                      { kind = \"attention_relation\", relation = \"query_key\" }]";
const STEP_OF_EIGHT: [&str; 1] = ["training.batch_size=8"];
const EIGHTS: [(&str, u64); 4] = [
    ("training.micro_batch_size=8", 1),
    ("training.micro_batch_size=4", 2),
    ("training.micro_batch_size=2", 4),
    ("training.micro_batch_size=1", 8),
];

/// How far runs of one device may be apart, relative to the number itself.
struct Bounds {
    loss: f64,
    norm: f64,
    /// Relative to the largest of a tensor, or to a move of the optimiser if that is larger; `None`
    /// where rounding decides: the gradient of a key's bias is zero, and Adam divides what rounding
    /// makes of it by itself.
    weights: Option<f32>,
}

/// Weights are read in single precision.
const DOUBLE: Bounds = Bounds { loss: 1e-10, norm: 1e-10, weights: Some(1e-6) };
const SINGLE: Bounds = Bounds { loss: 1e-5, norm: 1e-4, weights: None };
const DEVICES: [(fn() -> Device, Bounds); 2] = [(single, SINGLE), (double, DOUBLE)];

#[track_caller]
fn near(what: &str, got: f64, want: f64, bound: f64) {
    assert!((got - want).abs() <= bound * want.abs(), "{what}: {got} is not {want}");
}

#[track_caller]
fn same(what: &str, got: &Run, want: &Run, bounds: &Bounds) {
    assert_eq!(got.steps.len(), want.steps.len(), "{what}");
    for (got, want) in got.steps.iter().zip(&want.steps) {
        let what = format!("{what}, step {}", want.step);
        near(&format!("{what}: loss"), got.loss, want.loss, bounds.loss);
        let norms = (got.gradient_norm, want.gradient_norm);
        near(&format!("{what}: gradient norm"), norms.0, norms.1, bounds.norm);
        assert_eq!((got.sequences, got.tokens), (want.sequences, want.tokens), "{what}");
    }
    let Some(bound) = bounds.weights else { return };
    for ((name, _, got), (_, _, want)) in got.weights.iter().zip(&want.weights) {
        let size = want.iter().fold(LEARNING_RATE, |size, x| size.max(x.abs()));
        let far = got.iter().zip(want).find(|(got, want)| (*got - *want).abs() > bound * size);
        assert_eq!(far, None, "{what}: {name}");
    }
}

/// Every cut of the same steps, on both devices. Returns the run that was not cut.
#[track_caller]
fn check(task: Task, teacher: bool, sets: &[&str], cuts: &[(&str, u64)]) -> Run {
    let mut last = None;
    for (device, bounds) in DEVICES {
        // Each device keeps its own teacher's answers: those computed in single precision differ
        // from the others by more than what keeping them costs.
        let folder = tempdir().unwrap();
        let cut = |micro: &str| {
            let sets: Vec<&str> = sets.iter().copied().chain([micro]).collect();
            run(job(task, teacher, &sets, folder.path()), device)
        };
        let whole = cut(cuts[0].0);
        assert!(whole.steps.iter().all(|step| step.loss.is_finite() && step.loss > 0.0));
        for &(micro, parts) in cuts {
            let run = cut(micro);
            assert_eq!(run.steps[0].micro_batches, parts, "{micro}");
            same(micro, &run, &whole, &bounds);
        }
        last = Some(whole);
    }
    last.unwrap()
}

#[test]
fn labels_alone_however_the_step_is_cut() {
    check(Task::Classification, false, &STEP_OF_EIGHT, &EIGHTS);
    check(Task::MultiLabel, false, &STEP_OF_EIGHT, &EIGHTS);
    check(Task::Regression, false, &STEP_OF_EIGHT, &EIGHTS);
}

#[test]
fn with_a_teacher_cached_or_live_however_the_step_is_cut() {
    for task in [Task::Classification, Task::MultiLabel, Task::Regression] {
        let cached = check(task, true, &[STEP_OF_EIGHT[0], CACHED], &EIGHTS);
        let live = check(task, true, &[STEP_OF_EIGHT[0], LIVE], &EIGHTS);
        // A cache holds single precision.
        let bounds = Bounds { loss: 1e-6, norm: 1e-6, weights: Some(1e-5) };
        same("live", &live, &cached, &bounds);
        let teacher = &cached.steps[0].terms["teacher"];
        assert!(teacher.mean.unwrap() > 1e-4, "the teacher is not the student: {teacher:?}");
    }
}

#[test]
fn by_each_divergence_however_the_step_is_cut_labels_missing_or_not() {
    let mut means = Vec::new();
    for kind in heirloom_recipe::DivergenceKind::ALL {
        let divergence = format!("objective.divergence={kind}");
        let run = check(Task::Classification, true, &[STEP_OF_EIGHT[0], &divergence], &EIGHTS);
        means.push(run.steps[0].terms["teacher"].mean.unwrap());
    }
    // Ten names, ten numbers: none stands for another.
    for (at, mean) in means.iter().enumerate() {
        assert!(means[..at].iter().all(|other| (other - mean).abs() > 1e-9), "{means:?}");
    }
}

#[test]
fn with_terms_inside_however_the_step_is_cut() {
    let run = check(Task::Classification, true, &[STEP_OF_EIGHT[0], HIDDEN], &EIGHTS);
    assert!(run.steps[0].terms.len() > 5, "{:?}", run.steps[0].terms);
}

#[test]
fn steps_of_a_number_of_tokens_however_they_are_cut() {
    let micro = ["training.micro_batch_tokens=60", "training.micro_batch_tokens=16"];
    let folder = tempdir().unwrap();
    for (device, bounds) in DEVICES {
        let cut = |micro: &str| {
            let sets = ["training.batch_tokens=60", HIDDEN, micro];
            run(job(Task::Classification, true, &sets, folder.path()), device)
        };
        let whole = cut(micro[0]);
        for micro in [micro[1], "training.micro_batch_size=1"] {
            let run = cut(micro);
            same(micro, &run, &whole, &bounds);
            assert_eq!(whole.steps[0].micro_batches, 1);
            assert!(run.steps[0].micro_batches > 2);
        }
    }
}

/// Without dropout, whose words depend on an example's place in its step.
#[test]
fn a_step_is_worth_the_mean_of_its_examples_one_by_one() {
    let folder = tempdir().unwrap();
    let sets = [
        "student.hidden_dropout_prob=0",
        "student.attention_probs_dropout_prob=0",
        "student.classifier_dropout=0",
        "training.max_steps=1",
        "training.batch_size=24",
    ];
    for task in [Task::Labelled, Task::MultiLabel, Task::Regression] {
        let together = job(task, true, &sets, folder.path());
        let alone = |example: usize| {
            let mut job = together.clone();
            job.train = together.train.select(&[example as u32]).into();
            run(job, double).steps[0].loss
        };
        let examples = together.train.len();
        let mean = (0..examples).map(alone).sum::<f64>() / examples as f64;
        let step = &run(together.clone(), double).steps[0];
        assert_eq!(step.sequences, examples as u64);
        // The teacher's answers are kept in single precision; batches differ in their rounding.
        near("loss", step.loss, mean, 1e-6);
    }
}

#[test]
fn room_is_planned_for_the_largest_micro_batch_that_comes_and_no_more() {
    let folder = tempdir().unwrap();
    for micro in ["training.micro_batch_tokens=16", "training.micro_batch_size=3"] {
        let sets = ["training.batch_size=7", "training.max_steps=9", micro];
        let job = job(Task::Classification, false, &sets, folder.path());
        let (step, micro) = (
            BatchRule::Sequences(7),
            match micro {
                "training.micro_batch_size=3" => BatchRule::Sequences(3),
                _ => BatchRule::Tokens(16),
            },
        );
        let (mut tokens, mut sequences) = (0, 0);
        // Two epochs of four steps, and one step of the third.
        for (epoch, steps) in [(0, 4), (1, 4), (2, 1)] {
            let mut order = Order::new(job.plan.training.seed, job.train.len());
            for examples in order.epoch(epoch).chunks(7).take(steps) {
                for batch in micro_batches(&job.train, examples, micro) {
                    tokens = tokens.max(batch.tokens());
                    sequences = sequences.max(batch.sequences());
                }
            }
        }
        let capacity = Trainer::capacity(&job);
        assert_eq!((capacity.tokens, capacity.sequences), (tokens, sequences));
        let bound = micro_capacity(&job.train, step, micro);
        assert!(tokens <= bound.tokens && sequences <= bound.sequences);
    }
}
