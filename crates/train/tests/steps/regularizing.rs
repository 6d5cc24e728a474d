//! Labels that are regularized: against closed forms, cut or whole, and over a resume. What each
//! method is, its own crate's tests say.

use heirloom_base::Step;
use heirloom_store::{Holder, RealDisk};
use heirloom_train::RunFolder;
use tempfile::tempdir;

use crate::tiny::{Run, Task, double, job, run, single, trainer};

/// A run of these changes to the recipe, `whole` ones or of `[objective.regularizer]`, in double
/// precision.
fn ran(regularizer: &[&str], whole: &[&str]) -> Run {
    let folder = tempdir().unwrap();
    let keys = regularizer.iter().map(|key| format!("objective.regularizer.{key}"));
    let sets: Vec<String> = std::iter::once("training.batch_size=6".to_owned())
        .chain(keys)
        .chain(whole.iter().map(|&set| set.to_owned()))
        .collect();
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let teacher = whole.iter().any(|set| set.starts_with("objective.alpha"));
    run(job(Task::Classification, teacher, &sets, folder.path()), double)
}

#[track_caller]
fn near(got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-9 * want.abs().max(1e-3), "{got} is not {want}");
}

/// The mean of the label's term in the first step, and the size of its gradient.
fn first(run: &Run) -> (f64, f64) {
    (run.steps[0].terms["label"].mean.unwrap(), run.steps[0].gradient_norm)
}

#[test]
fn labo_at_temperature_one_leaves_a_part_of_the_plain_gradient() {
    let (_, plain) = first(&ran(&[], &[]));
    let (_, got) = first(&ran(&["method=labo", "alpha=0.3", "temperature=1"], &[]));
    near(got, 0.7 * plain);
}

#[test]
fn labo_at_a_high_temperature_is_label_smoothing() {
    let (smoothed, norm) = first(&ran(&["method=label_smoothing", "alpha=0.3"], &[]));
    let (got, got_norm) = first(&ran(&["method=labo", "alpha=0.3", "temperature=1e12"], &[]));
    near(got, smoothed);
    near(got_norm, norm);
}

#[test]
fn a_regularizer_of_no_strength_changes_nothing() {
    let plain = ran(&[], &[]);
    let none = [
        &["method=label_smoothing", "alpha=0"][..],
        &["method=label_smoothing", "alpha=0", "alpha_end=0.0"],
        &["method=confidence_penalty", "weight=0"],
        &["method=max_sup", "weight=0"],
        &["method=entropic", "alpha=0"],
    ];
    for keys in none {
        let got = ran(keys, &[]);
        for (got, want) in got.steps.iter().zip(&plain.steps) {
            near(got.loss, want.loss);
            near(got.gradient_norm, want.gradient_norm);
            assert_eq!(got.terms["label"].count, want.terms["label"].count, "{keys:?}");
        }
    }
}

#[test]
fn a_strength_goes_to_its_end_in_a_line() {
    // Weights that stay where they are: the same loss at the same strength.
    let level = ["training.learning_rate=1e-30", "training.max_steps=3"];
    let methods =
        [("label_smoothing", "alpha"), ("confidence_penalty", "weight"), ("labo", "alpha")];
    for (method, key) in methods {
        let method = format!("method={method}");
        let [from, middle, end] = ["=0.1", "=0.3", "_end=0.5"].map(|value| format!("{key}{value}"));
        let line = ran(&[&method, &from, &end], &level);
        near(line.steps[0].loss, ran(&[&method, &from], &level).steps[0].loss);
        near(line.steps[1].loss, ran(&[&method, &middle], &level).steps[1].loss);
        let different = (line.steps[1].loss - ran(&[&method, &from], &level).steps[1].loss).abs();
        assert!(different > 1e-4, "{method}: the strength matters");
    }
}

#[test]
fn a_step_does_not_depend_on_how_it_is_cut() {
    let teacher = ["objective.alpha=0.4", "objective.regularizer.teacher=0.5"];
    let methods: [(&[&str], &[&str]); 4] = [
        (&["method=labo"], &[]),
        (&["method=online_label_smoothing"], &[]),
        (&["method=margin", "margin=0"], &[]),
        (&["method=entropic", "prior=0.5"], &teacher),
    ];
    for (keys, rest) in methods {
        let cut = |size: &str| {
            let sizes = ["training.max_steps=9", size];
            ran(keys, &[&sizes, rest].concat())
        };
        let (whole, cut) = (cut("training.micro_batch_size=6"), cut("training.micro_batch_size=2"));
        for (got, want) in cut.steps.iter().zip(&whole.steps) {
            near(got.loss, want.loss);
            near(got.gradient_norm, want.gradient_norm);
        }
    }
}

#[test]
fn what_a_class_remembers_begins_to_count_after_a_pass() {
    let sets = ["training.max_steps=8"];
    let memory = ran(&["method=online_label_smoothing", "alpha=0.5"], &sets);
    let uniform = ran(&["method=label_smoothing", "alpha=0.5"], &sets);
    let same = |at: usize| (memory.steps[at].loss - uniform.steps[at].loss).abs() < 1e-9;
    assert!((0..4).all(same), "nothing is remembered in the first pass of four steps");
    assert!((4..8).all(|at| !same(at)), "and something in the second");
}

#[test]
fn a_run_resumed_in_the_middle_of_a_pass_ends_in_the_same_bits() {
    same_bits_after_a_resume(&["method=online_label_smoothing", "alpha_end=0.2"]);
}

#[test]
fn what_was_learnt_and_where_in_the_second_set_survives_a_resume() {
    for method in ["learned_smoothing", "learned_labo", "per_class", "per_instance"] {
        let method = format!("method={method}");
        let meta = "meta={ source = \"train\", every = 4, batch_size = 5 }";
        same_bits_after_a_resume(&[&method, meta, "learning_rate=0.1"]);
    }
}

#[test]
fn a_target_that_learns_changes_the_run_and_only_after_it_was_taught() {
    let meta = "meta={ source = \"train\", warmup_steps = 2 }";
    let steps = ["training.max_steps=5"];
    let learnt = ran(&["method=learned_smoothing", "alpha=0.2", meta, "learning_rate=0.5"], &steps);
    let fixed = ran(&["method=label_smoothing", "alpha=0.2"], &steps);
    for (at, (got, want)) in learnt.steps.iter().zip(&fixed.steps).enumerate() {
        let same = (got.loss - want.loss).abs() < 1e-9;
        assert_eq!(same, at <= 2, "step {at}: {} and {}", got.loss, want.loss);
    }
}

fn same_bits_after_a_resume(regularizer: &[&str]) {
    let folder = tempdir().unwrap();
    let begin = || {
        let keys = regularizer.iter().map(|key| format!("objective.regularizer.{key}"));
        let sizes = ["training.max_steps=10", "training.batch_size=6"].map(str::to_owned);
        let sets: Vec<String> = sizes.into_iter().chain(keys).collect();
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        trainer(job(Task::Classification, false, &sets, folder.path()), single)
    };
    let mut whole = begin();
    let mut records = Vec::new();
    let mut run = None;
    while !whole.progress().finished {
        records.push(whole.step().unwrap());
        if whole.progress().cursor.step == 6 {
            let holder = Holder::this_process("now");
            let path = folder.path().join("run");
            let mut folder = RunFolder::create(&RealDisk, &path, &holder, "plan").unwrap();
            folder.commit(&mut whole).unwrap();
            run = Some(folder);
        }
    }
    let mut resumed = begin();
    run.unwrap().restore(&mut resumed, Step(6)).unwrap();
    let mut after = Vec::new();
    while !resumed.progress().finished {
        after.push(resumed.step().unwrap());
    }
    assert_eq!(after, records[6..]);
    assert!(resumed.weights() == whole.weights());
}
