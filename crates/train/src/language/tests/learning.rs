//! A map that is learnt on the device is the one that plain loops on the host learn.

use heirloom_growth::Operator as Map;
use heirloom_recipe::{GrownMoments, Operator, Size, StagePlan};

use super::growing::stage;
use super::*;
use crate::Trains;
use crate::grows::Grows;
use crate::learning::{GradientOf, learn};

const STEPS: u64 = 6;
const RATE: f64 = 3e-3;

/// A trainer after two steps, and that of the student that it grows into by copies.
fn pair(student: &str, device: fn() -> crate::Device) -> (LanguageTrainer, LanguageTrainer) {
    let mut job = job(Setting { student, ..PLAIN }, pairs());
    let hidden_size = Size::To(2 * job.student.hidden_size() as u64);
    job.plan.training.stages = vec![StagePlan {
        num_hidden_layers: Size::To(3),
        hidden_size,
        moments: GrownMoments::Drop,
        operator: Operator::Learnt { steps: STEPS, learning_rate: RATE },
        ..stage("ligo", 2)
    }];
    let mut small = trainer(job, device);
    for _ in 0..2 {
        small.take_step().expect("a step");
    }
    small.catch_up();
    let shapes = small.as_student().weights();
    let state = small.stages.after(&shapes, small.progress.updates).expect("a state");
    let job = LanguageJob { student: small.stages.first().clone(), ..small.job.clone() };
    let mut large = LanguageTrainer::at_stage(job, state, &mut |_| device()).expect("a trainer");
    large.resumed(small.progress.clone());
    (small, large)
}

fn map_of(small: &mut LanguageTrainer) -> Map {
    let stages = small.stages.clone();
    let (_, plan) = stages.next().expect("a stage");
    let old = small.as_student().weights();
    let shapes = old.iter().map(|(name, tensor)| (name.as_str(), &*tensor.shape));
    Map::of(plan, &stages.config().anatomy(), shapes).expect("a map")
}

/// The losses of the steps, and the weights in the end: Adam as its authors write it, in double
/// precision.
fn on_the_host(small: &mut LanguageTrainer, large: &mut LanguageTrainer) -> (Vec<f64>, Vec<f64>) {
    let (mut map, old) = (map_of(small), small.as_student().weights());
    let (mut moments, mut losses) = (vec![[0.0; 2]; map.count()], Vec::new());
    let mut cursor = large.cursor();
    for step in 1..=STEPS {
        large.as_student().put_weights(&map.apply(&old));
        let (loss, _, after) = large.gradient_of_step(cursor).expect("a gradient");
        (cursor, losses) = (after, [losses, vec![loss]].concat());
        let student = large.as_student();
        let gradient = map.gradient(&old, &student.tensors(student.learned.grads));
        large.clear();
        for ((value, g), [m, v]) in map.values_mut().zip(gradient.values()).zip(&mut moments) {
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            let t = step as f64;
            let (mean, square) = (*m / (1.0 - 0.9_f64.powf(t)), *v / (1.0 - 0.999_f64.powf(t)));
            *value -= RATE * mean / (square.sqrt() + 1e-8);
        }
    }
    large.as_student().put_weights(&map.apply(&old));
    (losses, flat(large))
}

fn flat(trainer: &mut LanguageTrainer) -> Vec<f64> {
    trainer.weights().into_iter().flat_map(|(_, values)| values).collect()
}

#[test]
fn a_map_learnt_on_the_device_is_the_one_that_the_host_learns() {
    for student in ["gpt2", "llama", "qwen2-tied"] {
        // A first step of Adam goes by the sign of a slope: one that is rounding alone, of which f32
        // has some, moves a number by the whole rate.
        for (device, bound) in [(double as fn() -> crate::Device, 1e-9), (single, 2e-2)] {
            let (mut small, mut large) = pair(student, device);
            let (losses, want) = on_the_host(&mut small, &mut large);
            let (mut small, mut large) = pair(student, device);
            let map = map_of(&mut small);
            let (learnt, flops) =
                learn(&mut large, &map, &small.as_student(), STEPS, RATE).expect("a map");
            let far = apart(&flat(&mut large), &want);
            assert!(far < bound, "{student}: {far:e}");
            // A tenth of six steps is one.
            let (first, last) = (learnt.first_loss, learnt.last_loss);
            let far = apart(&[first, last], &[losses[0], losses[5]]);
            assert!(far < bound, "{student}: {losses:?}, and {learnt:?}");
            assert!(losses[0] - losses[5] > 0.01, "{student}: {losses:?}");
            assert!(flops > 0 && learnt.numbers == map.count() as u64, "{learnt:?}");
        }
    }
}
