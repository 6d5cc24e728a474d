//! What is computed again in the backward pass is the same, bit for bit.

use heirloom_train::{Device, StepRecord};
use tempfile::tempdir;

use crate::tiny::{Run, Task, double, job, run, single};

const AGAIN: &str = "training.activation_checkpointing=true";
const STEPS_OF_EIGHT: &str = "training.batch_size=8";
/// Terms on hidden states and on what is inside a block.
const HIDDEN: &str = "objective.hidden=[{ kind = \"mse\", projection = true }, \
                      { kind = \"cosine\", position = \"first\" }, \
                      { kind = \"attention_relation\", layers = [[1, 1], [2, 2]] }]";

/// Runs with dropout, of a student with `layers` layers, whose blocks are kept and computed again.
#[track_caller]
fn check(device: fn() -> Device, task: Task, layers: usize, sets: &[&str]) {
    let folder = tempdir().unwrap();
    let of = |sets: &[&str]| -> Run {
        let mut job = job(task, sets.contains(&HIDDEN), sets, folder.path());
        job.student_config.layers = layers;
        run(job, device)
    };
    let (kept, again) = (of(sets), of(&[sets, &[AGAIN]].concat()));
    // Only the work is more, but for the last layer, whose inside is still there.
    let work = |run: &Run| run.steps.iter().map(|step| step.flops).sum::<u64>();
    assert_eq!(work(&again) > work(&kept), layers > 1, "{sets:?}");
    let said = |run: &Run| -> Vec<StepRecord> {
        run.steps.iter().map(|step| StepRecord { flops: 0, ..step.clone() }).collect()
    };
    assert_eq!(said(&again), said(&kept), "{sets:?}");
    assert!(again.weights == kept.weights, "weights with {sets:?}");
}

#[test]
fn a_step_whose_blocks_are_computed_again_has_the_same_bits() {
    for device in [single as fn() -> Device, double] {
        for micro in ["training.micro_batch_size=8", "training.micro_batch_size=3"] {
            for layers in [1, 2, 4] {
                check(device, Task::Classification, layers, &[STEPS_OF_EIGHT, micro]);
            }
            check(device, Task::Classification, 2, &[STEPS_OF_EIGHT, micro, HIDDEN]);
            check(device, Task::Regression, 3, &[STEPS_OF_EIGHT, micro]);
        }
    }
}
