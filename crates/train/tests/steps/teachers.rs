//! The same teacher several times, in any parts, is the teacher once: losses and weights.

use heirloom_train::{Device, Job};
use tempfile::tempdir;

use crate::tiny::{Run, Task, double, job, run, single};

/// The job's teacher once more for each further part.
fn several(mut job: Job, parts: &[f64]) -> Job {
    for _ in 1..parts.len() {
        job.other_teachers.extend(job.teacher.clone());
        job.plan.other_teachers.push(job.plan.teacher.clone());
    }
    job.plan.objective.teacher_parts = parts.to_vec();
    job
}

#[track_caller]
fn check(device: fn() -> Device, task: Task, sets: &[&str], tolerance: f64) {
    let folder = tempdir().unwrap();
    let sets = [&["training.batch_size=8", "training.micro_batch_size=3"], sets].concat();
    let begun = || job(task, true, &sets, folder.path());
    let once: Run = run(begun(), device);
    for parts in [&[0.25, 0.75][..], &[0.5, 0.3, 0.2]] {
        let more = run(several(begun(), parts), device);
        for (once, more) in once.steps.iter().zip(&more.steps) {
            let size = once.loss.abs();
            assert!((once.loss - more.loss).abs() <= tolerance * size, "{once:?}\n{more:?}");
            for at in 0..parts.len() {
                let mean = |terms: &std::collections::BTreeMap<String, _>, name: &str| {
                    let term: &heirloom_train::TermRecord = &terms[name];
                    term.mean.unwrap()
                };
                let want = mean(&once.terms, "teacher");
                let got = mean(&more.terms, &format!("teacher[{at}]"));
                assert!((got - want).abs() <= tolerance * want.abs(), "{got}, should be {want}");
            }
        }
    }
}

#[test]
fn a_teacher_in_parts_is_the_teacher() {
    const LIVE: &str = "teacher.logits=live";
    for task in [Task::Classification, Task::MultiLabel, Task::Regression] {
        // Sums of several terms round otherwise; steps of AdamW make more of it.
        check(double, task, &[], 1e-8);
        check(double, task, &[LIVE], 1e-8);
        check(single, task, &[], 1e-3);
    }
    let fixed = "objective.balance={ policy = \"fixed\" }";
    check(double, Task::Classification, &[fixed], 1e-8);
    check(double, Task::Classification, &[fixed, LIVE], 1e-8);
}
