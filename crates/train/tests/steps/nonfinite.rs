//! A step that is not finite never reaches the weights, and says where it came from.

use std::path::Path;

use heirloom_recipe::OnNonfinite;
use heirloom_train::{Error, Job, StudentWeights, TeacherJob, Trainer};
use serde_json::Value;
use tempfile::tempdir;

use crate::tiny::{Task, first_word, job, single, trainer};

/// The table of words, in the fixture's folder.
const WORDS: &str = "bert.embeddings.word_embeddings.weight";
/// The pooler's tanh is finite whatever comes out of this norm: the loss is, the gradient is not.
const NORM: &str = "bert.encoder.layer.1.output.LayerNorm.weight";

/// A copy of the fixture's folder in which one number is another.
fn with_number(job: &Job, folder: &Path, name: &str, at: usize, value: f32) -> StudentWeights {
    let source = &job.teacher.as_ref().and_then(TeacherJob::model).expect("the fixture").path;
    let mut bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let begin = header[name]["data_offsets"][0].as_u64().expect("the tensor is there") as usize;
    let place = 8 + header_len + begin + 4 * at;
    bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    StudentWeights::Folder { path: folder.to_owned(), layers: vec![0, 1] }
}

fn broken(name: &str, at: usize, sets: &[&str]) -> Trainer {
    let folder = tempdir().unwrap();
    let mut job = job(Task::Labelled, true, sets, folder.path());
    job.student_weights = with_number(&job, folder.path(), name, at, f32::INFINITY);
    trainer(job, single)
}

/// The weights as bits, so that what is no number can be compared.
fn bits(trainer: &mut Trainer) -> Vec<u32> {
    trainer.weights().iter().flat_map(|(_, _, values)| values.iter().map(|x| x.to_bits())).collect()
}

#[test]
fn a_run_that_stops_names_step_terms_parameter_and_examples() {
    let mut trainer = broken("classifier.weight", 3, &["training.batch_size=10"]);
    let before = bits(&mut trainer);
    let error = trainer.step().unwrap_err();
    insta::assert_snapshot!(error, @r#"step 1 is not finite: term `label`, term `teacher`; first gradient that is not finite: `bert.embeddings.word_embeddings.weight`; training examples 21, 22, 5, 8, 2, 0, 1, 12 and 2 more; the weights are those before this step; lower `training.learning_rate`, or set `training.on_nonfinite = "skip"` to leave such steps out"#);
    assert_eq!(error.exit_code(), 5);
    let Error::Diverged(what) = &error else { panic!("{error:?}") };
    assert_eq!((what.step.0, what.examples.len()), (1, 10));
    assert!(bits(&mut trainer) == before, "the weights are those before the step");
    assert_eq!(trainer.progress().updates, 0);
}

#[test]
fn a_learning_rate_beyond_all_measure_stops_before_it_spoils_the_weights() {
    let folder = tempdir().unwrap();
    let mut job = job(Task::Labelled, false, &["training.batch_size=8"], folder.path());
    job.plan.training.learning_rate = 1e30;
    let mut trainer = trainer(job, single);
    trainer.step().unwrap();
    let before = bits(&mut trainer);
    let error = trainer.step().unwrap_err();
    let Error::Diverged(what) = &error else { panic!("{error:?}") };
    assert_eq!(what.step.0, 2);
    assert!(bits(&mut trainer) == before);
    assert!(before.iter().all(|&bits| f32::from_bits(bits).is_finite()));
}

#[test]
fn a_step_left_out_leaves_the_weights_and_the_next_goes_on() {
    let sets = ["training.batch_size=1", "training.max_steps=24", "training.on_nonfinite=\"skip\""];
    // Some examples hold this word, and most do not.
    let mut trainer = broken(WORDS, 16 * first_word(1), &sets);
    assert_eq!(trainer.plan().training.on_nonfinite, OnNonfinite::Skip);
    let (mut left_out, mut taken) = (0, 0);
    while !trainer.progress().finished {
        let before = bits(&mut trainer);
        let step = trainer.step().unwrap();
        if step.skipped {
            left_out += 1;
            assert!(!step.loss.is_finite() || !step.gradient_norm.is_finite());
            assert!(bits(&mut trainer) == before, "step {} was left out", step.step);
        } else {
            taken += 1;
            assert!(step.loss.is_finite() && step.gradient_norm.is_finite());
            assert!(bits(&mut trainer) != before, "step {} moves the weights", step.step);
        }
    }
    assert!(left_out > 0 && taken > 12, "{left_out} left out, {taken} taken");
    let progress = trainer.progress();
    assert_eq!((progress.skipped, progress.updates), (left_out, taken));
}

#[test]
fn a_run_that_skips_stops_at_its_limit() {
    let sets = [
        "training.batch_size=2",
        "training.max_steps=9",
        "training.on_nonfinite=\"skip\"",
        "training.nonfinite_limit=2",
    ];
    let mut trainer = broken(NORM, 0, &sets);
    let before = bits(&mut trainer);
    for _ in 0..2 {
        let step = trainer.step().unwrap();
        assert!(step.skipped && step.loss.is_finite() && !step.gradient_norm.is_finite());
    }
    let error = trainer.step().unwrap_err();
    insta::assert_snapshot!(error, @"step 3 is not finite; first gradient that is not finite: `bert.embeddings.word_embeddings.weight`; training examples 2, 0; 2 steps were left out, which is the plan's `training.nonfinite_limit`");
    assert!(matches!(error, Error::TooManySkipped(_, 2)));
    assert_eq!(error.exit_code(), 5);
    assert!(bits(&mut trainer) == before);
}
