//! Decoders whose new heads, units and layers stand behind a mask.

use heirloom_recipe::{Size, StagePlan};

use super::growing::stage;
use super::*;
use crate::Trains;
use crate::learning::GradientOf;

/// Heads where the family lets them grow alone, feed-forward units, and a layer, after step 2.
fn masked(student: &str, steps: u64) -> StagePlan {
    let heads = if student == "gpt2" { Size::Follows } else { Size::To(8) };
    StagePlan {
        mask_steps: steps,
        num_hidden_layers: Size::To(3),
        num_attention_heads: heads,
        intermediate_size: Size::To(96),
        ..stage("msg", 2)
    }
}

fn grown(student: &str, steps: u64) -> LanguageTrainer {
    let mut job = job(Setting { student, ..PLAIN }, pairs());
    job.plan.training.stages = vec![masked(student, steps)];
    let mut trainer = LanguageTrainer::new(job, &mut |_| double()).expect("a trainer");
    for _ in 0..2 {
        trainer.take_step().expect("a step");
    }
    assert!(trainer.grows_now());
    let growth = trainer.grow_up(&mut |_| double()).expect("a larger model");
    assert!(growth.largest_change < 1e-10 * growth.largest_output.max(1.0), "{growth:?}");
    assert!(growth.largest_output > 0.01, "{growth:?}");
    trainer
}

#[test]
fn the_gradient_behind_a_mask_is_the_slope_of_the_loss() {
    for student in ["gpt2", "llama", "qwen3"] {
        let mut trainer = grown(student, 5);
        for _ in 0..2 {
            trainer.take_step().expect("a step");
        }
        let params = trainer.student.params.clone();
        let behind = params.flat(trainer.student.behind().expect("a mask"));
        let cursor = trainer.cursor();
        trainer.gradient_of_step(cursor).expect("a gradient");
        assert_eq!(trainer.student.mask(), Some(0.4));
        trainer.student.pull_back(&mut *trainer.device);
        let slopes = trainer.device.read_f64(params.flat(trainer.student.grads));
        trainer.clear();
        let theta = trainer.device.read_f64(behind);
        let mut loss_at = |at: usize, value: f64| {
            let mut moved = theta.clone();
            moved[at] = value;
            trainer.device.write_f64(behind, &moved);
            trainer.student.look_again(&mut *trainer.device);
            let (loss, ..) = trainer.gradient_of_step(cursor).expect("a gradient");
            trainer.clear();
            loss
        };
        let places: Vec<usize> = (0..theta.len()).filter(|&at| theta[at] != 0.0).collect();
        assert!(places.len() > 500, "{student}: {} numbers are masked", places.len());
        let h = 1e-5;
        for &at in places.iter().step_by(places.len() / 20) {
            let slope = (loss_at(at, theta[at] + h) - loss_at(at, theta[at] - h)) / (2.0 * h);
            let apart = (slope - slopes[at]).abs();
            assert!(apart < 1e-7 + 1e-6 * slope.abs(), "{student} {at}: {slope}, {}", slopes[at]);
        }
        assert!(places.iter().any(|&at| slopes[at].abs() > 1e-5), "{student}: no slope");
    }
}

/// What is saved while the mask opens is a model that computes what the run does, without a mask.
#[test]
fn a_model_that_is_saved_behind_a_mask_computes_what_the_run_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let holder = Holder::this_process("now");
    for student in ["gpt2", "llama"] {
        let mut job = job(Setting { student, ..PLAIN }, pairs());
        job.plan.training.stages = vec![masked(student, 100)];
        let mut run_of = LanguageTrainer::new(job.clone(), &mut |_| single()).expect("a trainer");
        let path = folder.path().join(student);
        let mut run_folder =
            RunFolder::create(&RealDisk, &path, &holder, "plan").expect("a folder");
        run(&mut run_of, &mut run_folder, &mut World::default()).expect("a run");
        let c = run_of.student.mask().expect("it is not open yet");
        assert!(c > 0.0 && c < 0.2);
        let cursor = run_of.cursor();
        let (want, ..) = run_of.gradient_of_step(cursor).expect("a gradient");
        let config = DecoderConfig::open(&path.join("last")).expect("a config");
        job.plan.training.stages.clear();
        job.student = LanguageConfig::Decoder(config);
        job.weights = LanguageWeights::Folder(path.join("last"));
        let mut plain = LanguageTrainer::new(job, &mut |_| single()).expect("a trainer");
        let (got, ..) = plain.gradient_of_step(cursor).expect("a gradient");
        assert_eq!(got, want, "{student}");
    }
}
