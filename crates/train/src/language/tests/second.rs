//! Alignments of tokens with other rows against what they stand for, and policies that learn from them.

use heirloom_balance::{MetaWeightNet, Policy, Samples};

use super::*;
use crate::policy::network;

const STEP: [u32; 5] = [0, 1, 2, 3, 4];
const OTHERS: [u32; 3] = [7, 5, 9];

fn rw_kd(meta: &str) -> String {
    format!("objective.balance={{ policy = \"rw_kd\", meta = {{ batch_size = 3, {meta} }} }}")
}

fn taught(student: &'static str, set: &str, dropout: f32, rows: Vec<Row>) -> LanguageTrainer {
    trainer(job(Setting { student, sets: &[set], dropout, ..TAUGHT }, rows), double)
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `row`, of which the token at `place` alone is learnt.
fn only(row: &Row, place: usize) -> Row {
    let mut row = row.clone();
    let label = row.labels[place];
    row.labels.fill(NOT_LEARNT);
    row.labels[place] = label;
    row
}

/// Every token's two alignments against inner products of gradients, each from a run of its own in
/// which that token is all there is to learn.
#[test]
fn alignments_of_tokens_are_inner_products_of_gradients() {
    let gradient = |student, set: &str, rows: Vec<Row>, chosen: &[u32]| {
        loss_and_gradient(&mut taught(student, set, 0.0, rows), chosen).1
    };
    for (student, loss) in [("gpt2", "mix"), ("gpt2", "soft"), ("llama", "mix"), ("llama", "hard")]
    {
        // Half of each, so twice the gradient is that of their sum.
        let [set, factor] = match loss {
            "hard" => ["objective.alpha=0.0", "1"],
            "soft" => ["objective.alpha=1.0", "1"],
            _ => ["objective.alpha=0.5", "2"],
        };
        let factor: f64 = factor.parse().expect("a number");
        let v: Vec<f64> =
            gradient(student, set, pairs(), &OTHERS).iter().map(|x| factor * x).collect();
        let mut want = Vec::new();
        for row in &pairs()[..STEP.len()] {
            for place in (0..row.ids.len()).filter(|&at| row.labels[at] != NOT_LEARNT) {
                for set in ["objective.alpha=0.0", "objective.alpha=1.0"] {
                    // As many rows as a step has, of which it reads one.
                    let rows = vec![only(row, place); STEP.len()];
                    let alone = gradient(student, set, rows, &[0]);
                    want.push(inner(&v, &alone));
                }
            }
        }
        let meta = format!("loss = \"{loss}\", radius = 1e-4");
        for more in ["training.micro_batch_size=5", "training.micro_batch_size=2"] {
            let sets = [rw_kd(&meta), more.to_owned()];
            let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
            let job = job(Setting { student, sets: &sets, ..TAUGHT }, pairs());
            let mut trainer = trainer(job, double);
            let before = bits(&mut trainer);
            let found = trainer.measure(&STEP, &OTHERS).expect("a gradient");
            assert!(bits(&mut trainer) == before, "{student}: the weights are as they were");
            assert!(trainer.gradient().iter().all(|(_, of)| of.iter().all(|x| *x == 0.0)));
            let apart = apart(&found.values, &want);
            assert!(want.len() > 20 && apart < 1e-6, "{student} {loss} {more}: {apart:e}");
        }
    }
}

/// With dropout the losses heard are those of the coming step, and AdamW's direction is another one.
#[test]
fn losses_heard_are_the_steps_own() {
    for (student, scaled) in [("gpt2", "none"), ("llama", "none"), ("llama", "adam")] {
        let set = rw_kd(&format!("radius = 1e-4, preconditioner = \"{scaled}\""));
        let mut trainer = taught(student, &set, 0.2, pairs());
        for _ in 0..2 {
            trainer.take_step().expect("a step");
        }
        let found = trainer.measure(&STEP, &OTHERS).expect("a gradient");
        let (names, parts, _) = trainer.accumulate(&STEP);
        trainer.clear_gradients();
        assert_eq!(names, ["label", "teacher"]);
        for (place, part) in parts.terms().iter().enumerate() {
            let heard: f64 = found.losses.iter().skip(place).step_by(2).sum();
            let mean = heard / part.count() as f64;
            let want = part.mean().expect("a loss");
            assert!((mean - want).abs() < 1e-6 * want, "{student} {place}: {mean}, {want}");
        }
        // AdamW follows a gradient by less than its own size or more, but not by its sign.
        assert!(found.values.iter().any(|value| *value > 0.0));
    }
}

#[test]
fn steps_do_not_depend_on_how_they_are_cut() {
    for policy in ["rw_kd\", normalize = \"batch", "rw_kd", "meta_weight_net"] {
        let set = format!(
            "objective.balance={{ policy = \"{policy}\", meta = {{ batch_size = 3, every = 2 }} }}"
        );
        let after = |micro: &str| {
            let sets = [set.as_str(), micro];
            let job = job(Setting { sets: &sets, dropout: 0.1, ..TAUGHT }, pairs());
            let mut trainer = trainer(job, double);
            for _ in 0..4 {
                trainer.take_step().expect("a step");
            }
            trainer.weights().into_iter().flat_map(|(_, values)| values).collect::<Vec<f64>>()
        };
        let whole = after("training.micro_batch_size=5");
        let cut = after("training.micro_batch_size=2");
        assert!(apart(&whole, &cut) < 1e-9, "{policy}: {:e}", apart(&whole, &cut));
    }
}

#[test]
fn between_measurements_tokens_have_the_mean_of_what_was_decided() {
    let mut trainer = taught("gpt2", &rw_kd("every = 2, warmup_steps = 1"), 0.1, pairs());
    let mut step = || trainer.take_step().expect("a step").balance.expect("tokens were weighed");
    let first = step();
    // Before anything was measured: the share of the recipe.
    assert!(!first.measured && (first.mean - 0.5).abs() < 1e-12, "{first:?}");
    let second = step();
    assert!(second.measured && second.quantiles[0] < second.quantiles[2], "{second:?}");
    let third = step();
    assert!(!third.measured && (third.mean - second.mean).abs() < 1e-12, "{third:?}");
    assert!((third.quantiles[2] - third.quantiles[0]).abs() < 1e-12, "{third:?}");
}

#[test]
fn a_network_sees_both_losses_of_each_token_and_learns() {
    let set = "objective.balance={ policy = \"meta_weight_net\", output = \"share\", learning_rate = 0.1, \
               meta = { batch_size = 3, warmup_steps = 1 } }";
    let mut trainer = taught("gpt2", set, 0.0, pairs());
    let found = trainer.measure(&STEP, &OTHERS).expect("a gradient");
    let plan = trainer.job.plan.objective.balance.clone().expect("a policy");
    let seed = trainer.job.plan.training.seed;
    let fresh: MetaWeightNet = network(&plan, 0, seed).expect("its plan");
    let count = found.losses.len() / 2;
    let (ids, labels) = (vec![0; count], vec![Some(0); count]);
    let samples = Samples {
        ids: &ids,
        labels: &labels,
        classes: 0,
        student: &[],
        teacher: &[],
        losses: &found.losses,
        features: &[],
    };
    let at = heirloom_balance::At { step: 0, total: 8, learning_rate: 0.0 };
    let shares: Vec<f64> = fresh.decide(&samples, at).shares().collect();
    let want = shares.iter().sum::<f64>() / count as f64;
    trainer.accumulate(&STEP);
    trainer.clear_gradients();
    let (balance, _) = trainer.pass.balance.as_mut().expect("a policy");
    let record = balance.record(None).expect("tokens were weighed");
    // At the middle of two steps of 0.01 losses are what they are but for a hundred-thousandth.
    assert!((record.mean - want).abs() < 1e-4, "{record:?}, {want}");
    assert!(record.quantiles[0] < record.quantiles[2], "{record:?}");
    let first = trainer.take_step().expect("a step").balance.expect("tokens were weighed");
    let second = trainer.take_step().expect("a step").balance.expect("tokens were weighed");
    assert!(!first.measured && second.measured && (first.mean - second.mean).abs() > 1e-3);
}

#[test]
fn a_silent_teacher_is_not_measured() {
    let mut trainer = taught("gpt2", &rw_kd("every = 1"), 0.0, pairs());
    trainer.progress.overtaken = Some(1);
    assert!(trainer.take_step().expect("a step").balance.is_none());
    assert_eq!(trainer.progress.second, heirloom_data::order::Cursor::default());
}

/// Hidden tokens are learnt where the masker hides some, so their alignments are held to the inner
/// product of the whole step's gradient, of each term alone.
#[test]
fn alignments_of_hidden_tokens_sum_to_those_of_the_step() {
    let [set, radius] = [rw_kd("radius = 1e-4"), "training.batch_size=5".to_owned()];
    let mut measuring = trainer(masked_job(&[&set, &radius], true), double);
    let found = measuring.measure(&STEP, &OTHERS).expect("a gradient");
    let v = {
        measuring.direction(&OTHERS).expect("a gradient");
        let v: Vec<f64> = measuring.gradient().into_iter().flat_map(|(_, values)| values).collect();
        measuring.clear_gradients();
        v
    };
    for (place, alpha) in ["objective.alpha=0.0", "objective.alpha=1.0"].into_iter().enumerate() {
        let mut alone = trainer(masked_job(&[alpha], true), double);
        let want = inner(&v, &loss_and_gradient(&mut alone, &STEP).1);
        let values = found.values.iter().skip(place).step_by(2);
        let got = values.sum::<f64>() / (found.values.len() / 2) as f64;
        assert!((got - want).abs() < 1e-6 * want.abs(), "{place}: {got}, {want}");
    }
    // Other rows have other tokens hidden than the step's: their order and their words are their own.
    let step = measuring.take_step().expect("a step");
    assert!(step.balance.expect("tokens were weighed").measured);
}
