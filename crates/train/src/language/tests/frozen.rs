//! What is frozen has no gradient to compute, and nothing else changes.

use heirloom_recipe::{Frozen, GroupPlan};

use super::{INSIDE, PLAIN, Setting, TAUGHT, double, job, pairs, single, trainer};

#[test]
fn gradients_of_what_is_frozen_are_left_out_and_no_bit_changes() {
    let group = |pattern: &str, frozen| GroupPlan { frozen, ..GroupPlan::of(pattern, 1.0) };
    // GPT-2's head is its embeddings; LLaMA's is a matrix of its own.
    let gpt2 = [group("*wte*", Frozen::Always), group("*wpe*", Frozen::Until(3))];
    let blocks = [group("*h.*", Frozen::Always)];
    let llama = [group("model.*", Frozen::Until(4))];
    let head = [group("lm_head.weight", Frozen::Always), group("*layers.0.*", Frozen::Always)];
    let other = Setting { student: "llama", ..PLAIN };
    for (setting, groups) in [
        (TAUGHT, &gpt2[..]),
        (PLAIN, &blocks),
        (Setting { sets: &[INSIDE], ..TAUGHT }, &gpt2),
        (other, &llama),
        (other, &head),
    ] {
        for device in [double, single] {
            let run = |all: bool| {
                let mut job = job(setting, pairs());
                job.plan.training.groups = groups.to_vec();
                let mut trainer = trainer(job, device);
                trainer.student.ask_all(all);
                let steps: Vec<_> = (0..6)
                    .map(|_| {
                        let step = trainer.take_step().expect("a step");
                        (step.loss, step.gradient_norm)
                    })
                    .collect();
                trainer.student.catch_up(&mut *trainer.device);
                let space = trainer.student.params.weights();
                let weights = trainer.device.read_f64(trainer.student.params.flat(space));
                (steps, weights, trainer.device.operations())
            };
            let ((steps, weights, took), (all_steps, all_weights, whole)) = (run(false), run(true));
            assert_eq!(steps, all_steps, "{groups:?}");
            assert!(weights == all_weights, "{groups:?}");
            assert!(took < whole, "{groups:?}: {took} is not below {whole}");
        }
    }
}
