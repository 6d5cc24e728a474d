//! Rows of the word embeddings move when their words are seen again; nobody can tell.

use tempfile::tempdir;

use crate::tiny::{Task, double, job, run, single, trainer};

/// Long enough that words come back after steps without them.
const SETS: [&str; 3] =
    ["training.batch_size=2", "training.max_steps=24", "training.max_grad_norm=0.5"];

#[test]
fn reading_the_weights_between_steps_changes_no_bit() {
    for device in [single, double] {
        let folder = tempdir().unwrap();
        let want = run(job(Task::Labelled, false, &SETS, folder.path()), device);
        let mut trainer = trainer(job(Task::Labelled, false, &SETS, folder.path()), device);
        let mut steps = Vec::new();
        let mut weights = trainer.weights();
        while !trainer.progress().finished {
            steps.push(trainer.step().unwrap());
            let before = std::mem::replace(&mut weights, trainer.weights());
            assert!(weights != before, "a step moves something");
        }
        assert_eq!(steps, want.steps);
        assert!(weights == want.weights, "weights at the end");
    }
}
