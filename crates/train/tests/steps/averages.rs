//! Averages of weights against plain sums, also over rows of words that were not seen; and a run
//! with one is, in its steps, the run without.

use heirloom_recipe::Average;
use heirloom_train::{Device, NamedTensor, Trainer};
use tempfile::tempdir;

use crate::tiny::{Task, double, job, run, single, trainer};

const SETS: [&str; 3] =
    ["training.batch_size=2", "training.max_steps=24", "training.max_grad_norm=0.5"];

type Weights = Vec<NamedTensor>;

fn averaging(sets: &[&str], device: fn() -> Device) -> Trainer {
    let folder = tempdir().unwrap();
    let sets = [&SETS, sets].concat();
    trainer(job(Task::Labelled, false, &sets, folder.path()), device)
}

/// The weights after each step of a run without an average.
fn walk(device: fn() -> Device) -> Vec<Weights> {
    let mut trainer = averaging(&[], device);
    let mut walk = Vec::new();
    while !trainer.progress().finished {
        trainer.step().unwrap();
        walk.push(trainer.weights());
    }
    walk
}

/// The mean of all weights, each with what it counts, in double precision.
fn mean(walk: &[Weights], counts: impl Fn(usize) -> f64) -> Vec<f64> {
    let total: f64 = (1..=walk.len()).map(&counts).sum();
    let mut mean = Vec::new();
    for (at, weights) in walk.iter().enumerate() {
        let numbers = weights.iter().flat_map(|(_, _, numbers)| numbers);
        mean.resize(numbers.clone().count(), 0.0);
        for (sum, &number) in mean.iter_mut().zip(numbers) {
            *sum += counts(at + 1) / total * f64::from(number);
        }
    }
    mean
}

#[track_caller]
fn near(average: &Weights, want: &[f64]) {
    let found: Vec<f64> =
        average.iter().flat_map(|(_, _, numbers)| numbers).map(|&x| f64::from(x)).collect();
    assert_eq!(found.len(), want.len());
    for (found, want) in found.iter().zip(want) {
        // Two dozen roundings of single precision.
        assert!((found - want).abs() <= 2e-6 * want.abs().max(0.1), "{found}, expected {want}");
    }
}

#[test]
fn the_average_is_that_of_the_weights_after_the_steps_that_count() {
    for device in [single, double] {
        let walk = walk(device);
        let swa =
            ["training.average=swa", "training.average_from=0.25", "training.average_every=4"];
        let mut trainer = averaging(&swa, device);
        assert_eq!(
            trainer.plan().training.average,
            Average::Swa { from_step: 6, every: 4 },
            "the plan says steps"
        );
        let mut steps = 0;
        while !trainer.progress().finished {
            trainer.step().unwrap();
            steps += 1;
            assert_eq!(trainer.average().is_some(), steps >= 6, "step {steps}");
        }
        let counts = |step: usize| f64::from(step >= 6 && (step - 6).is_multiple_of(4));
        near(&trainer.average().unwrap(), &mean(&walk, counts));
        assert_eq!(trainer.progress().averaged, 5);

        let mut trainer =
            averaging(&["training.average=ema", "training.average_decay=0.8"], device);
        while !trainer.progress().finished {
            trainer.step().unwrap();
        }
        let counts = |step: usize| f64::powi(0.8, walk.len() as i32 - step as i32);
        near(&trainer.average().unwrap(), &mean(&walk, counts));
    }
}

#[test]
fn averaging_and_judging_the_average_change_no_step_and_no_weight() {
    for device in [single, double] {
        let folder = tempdir().unwrap();
        let want = run(job(Task::Labelled, false, &SETS, folder.path()), device);
        for average in ["training.average=swa", "training.average=ema"] {
            let sets = [&SETS[..], &[average]].concat();
            let mut job = job(Task::Labelled, false, &sets, folder.path());
            job.validation = Some(job.train.clone());
            let mut trainer = trainer(job, device);
            let mut steps = Vec::new();
            while !trainer.progress().finished {
                steps.push(trainer.step().unwrap());
                trainer.outputs().unwrap();
            }
            assert_eq!(steps, want.steps, "{average}");
            assert!(trainer.weights() == want.weights, "{average}: the weights themselves");
            assert!(trainer.average().unwrap() != want.weights, "{average}: another model");
        }
    }
}

#[test]
fn outputs_are_those_of_the_average() {
    let judge = |sets: &[&str]| {
        let folder = tempdir().unwrap();
        let mut job = job(Task::Labelled, false, &[&SETS, sets].concat(), folder.path());
        job.validation = Some(job.train.clone());
        let mut trainer = trainer(job, single);
        while !trainer.progress().finished {
            trainer.step().unwrap();
        }
        trainer.outputs().unwrap()
    };
    let plain = judge(&[]);
    // The average of the last weights alone is the last weights.
    let last = ["training.average=swa", "training.average_from=1"];
    assert_eq!(judge(&last), plain);
    assert_eq!(judge(&["training.average=ema", "training.average_decay=0"]), plain);
    assert_ne!(judge(&["training.average=ema"]), plain);
}
