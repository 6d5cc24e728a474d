//! Terms on what is inside both models: as the laws of the other objectives, for what they add to them.

use heirloom_recipe::{Compare, HiddenTermPlan, Position, Relation};

use super::*;

const PROJECTED: [&str; 2] = [
    "objective.hidden=[{ kind = \"mse\", projection = true }, { kind = \"cosine\", projection = true, layers = [[2, 2]] }]",
    "objective.alpha=0.3",
];

#[test]
fn gradients_of_projections_are_slopes() {
    for student in ["gpt2", "llama"] {
        let setting = Setting { student, sets: &PROJECTED, ..TAUGHT };
        let mut trainer = trainer(job(setting, pairs()), double);
        let chosen = [3, 1, 4];
        let learned = trainer.projections.as_ref().expect("projections");
        let (params, grads) = (learned.params.clone(), learned.grads);
        // Three of the first term, one of the second.
        assert_eq!(params.index().len(), 4);
        trainer.accumulate(&chosen);
        let flat = params.flat(grads);
        let gradient = trainer.device.read_f64(flat);
        trainer.clear_gradients();
        assert!(trainer.device.read_f64(flat).iter().all(|x| *x == 0.0), "it is dropped");
        for at in (0..flat.len()).step_by(flat.len() / 30) {
            let view = params.flat(params.weights()).columns(at..at + 1);
            let was = trainer.device.read_f64(view)[0];
            let mut moved = |by: f64| {
                trainer.device.write_f64(view, &[was + by]);
                loss_and_gradient(&mut trainer, &chosen).0
            };
            let step = 1e-5;
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            trainer.device.write_f64(view, &[was]);
            let bound = 1e-6 * gradient[at].abs().max(0.1);
            assert!((slope - gradient[at]).abs() < bound, "{student} [{at}]: {slope:e}");
        }
    }
}

#[test]
fn the_inside_of_ones_own_copy_is_ones_own() {
    for kind in ["mse", "cosine", "normalized_mse"] {
        let hidden = format!("objective.hidden=[{{ kind = \"{kind}\" }}]");
        let sets = [hidden.as_str(), "objective.alpha=1.0"];
        let mut job = job(Setting { sets: &sets, ..TAUGHT }, pairs());
        job.weights = LanguageWeights::Folder(fixture("gpt2"));
        let (loss, gradient) = loss_and_gradient(&mut trainer(job, double), &[0, 1, 2]);
        let most = gradient.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        // A cosine of 1 is one rounding away from it, and its slope that over the state's length.
        assert!(loss.abs() < 1e-12 && most < 1e-11, "{kind}: {loss:e}, {most:e}");
    }
}

#[test]
fn every_token_has_an_inside_also_where_nothing_is_learnt() {
    let mut silent = row(&[1, 2]);
    silent.labels.fill(NOT_LEARNT);
    let rows = vec![row(&[4, 5]), silent, row(&[7])];
    let tokens: usize = rows.iter().map(|row| row.ids.len()).sum();
    let of = |micro: &str| {
        let sets = [PROJECTED[0], PROJECTED[1], "training.batch_size=3", micro];
        let mut trainer = trainer(job(Setting { sets: &sets, ..TAUGHT }, rows.clone()), double);
        let (names, parts, _) = trainer.accumulate(&[0, 1, 2]);
        assert_eq!(
            names,
            [
                "label",
                "teacher",
                "hidden[0].0-0",
                "hidden[0].1-1",
                "hidden[0].2-2",
                "hidden[1].2-2"
            ]
        );
        for nats in &parts.terms()[2..] {
            assert_eq!(nats.count(), tokens as u64);
        }
        trainer.clear_gradients();
        loss_and_gradient(&mut trainer, &[0, 1, 2])
    };
    let (whole, cut) = (of("training.micro_batch_size=3"), of("training.micro_batch_size=1"));
    assert!(apart(&[whole.0], &[cut.0]) < 1e-12 && apart(&whole.1, &cut.1) < 1e-11);
}

#[test]
fn a_teacher_that_was_overtaken_shows_nothing_of_its_inside() {
    let sets = [PROJECTED[0], PROJECTED[1], "objective.until_overtaken=true"];
    let mut trainer = trainer(job(Setting { sets: &sets, ..TAUGHT }, pairs()), single);
    trainer.progress.overtaken = Some(0);
    let record = trainer.take_step().expect("a step");
    assert_eq!(record.terms.keys().collect::<Vec<_>>(), ["label"]);
}

#[test]
fn blocks_computed_again_give_the_same_bits_of_what_is_inside() {
    let of = |again: &str| {
        let sets = [PROJECTED[0], PROJECTED[1], again];
        finished(job(Setting { sets: &sets, dropout: 0.1, ..TAUGHT }, pairs()))
    };
    let kept = of("training.activation_checkpointing=false");
    assert!(of("training.activation_checkpointing=true") == kept);
}

/// Every kind of term that encoders have.
fn of_encoders() -> Vec<HiddenTermPlan> {
    let term = |compare, position, layers: &[[u64; 2]]| HiddenTermPlan {
        weight: 0.7,
        layers: layers.to_vec(),
        position,
        compare,
    };
    let relation = |relation| Compare::AttentionRelation { relation, heads: 2 };
    vec![
        term(Compare::Mse { projection: true }, Position::All, &[[0, 0], [1, 2]]),
        term(Compare::Cosine { projection: false }, Position::First, &[[2, 2]]),
        term(Compare::NormalizedMse { projection: false }, Position::All, &[[1, 1]]),
        term(relation(Relation::Value), Position::All, &[[2, 2]]),
        term(relation(Relation::QueryKey), Position::All, &[[1, 2]]),
    ]
}

#[test]
fn an_encoders_inside_is_learnt_alike_however_its_steps_are_cut() {
    for hidden in of_encoders() {
        let of = |micro: &str, device: fn() -> crate::Device| {
            let mut job = masked_job(&[micro, "objective.alpha=0.5"], true);
            job.plan.objective.hidden = vec![hidden.clone()];
            let mut trainer = trainer(job, device);
            let alone = trainer.job.plan.objective.hidden.len();
            assert_eq!(alone, 1);
            loss_and_gradient(&mut trainer, &[0, 1, 2, 3, 4])
        };
        let whole = of("training.micro_batch_size=5", double);
        let without = {
            let job = masked_job(&["training.micro_batch_size=5", "objective.alpha=0.5"], true);
            loss_and_gradient(&mut trainer(job, double), &[0, 1, 2, 3, 4])
        };
        assert!(apart(&whole.1, &without.1) > 1e-4, "{hidden:?} is heard");
        for micro in ["training.micro_batch_size=1", "training.micro_batch_size=3"] {
            let cut = of(micro, double);
            let (loss, gradient) = (apart(&[cut.0], &[whole.0]), apart(&cut.1, &whole.1));
            assert!(loss < 1e-12 && gradient < 1e-11, "{hidden:?} {micro}: {loss:e} {gradient:e}");
        }
        let fast = of("training.micro_batch_size=5", single);
        assert!((fast.0 - whole.0).abs() < 1e-5 * whole.0.abs().max(0.1), "{hidden:?}");
        assert!(apart(&fast.1, &whole.1) < 1e-4, "{hidden:?}: {:e}", apart(&fast.1, &whole.1));
    }
}

#[test]
fn gradients_of_a_masked_model_with_its_inside_are_slopes() {
    let mut job = masked_job(&["objective.alpha=0.5"], true);
    job.plan.objective.hidden = of_encoders();
    let mut trainer = trainer(job, double);
    let chosen = [3, 1, 4];
    let (_, gradient) = loss_and_gradient(&mut trainer, &chosen);
    let params = trainer.network.params().clone();
    let mut first = 0;
    for param in params.index() {
        let at = param.len() / 3;
        let view = params.view(param, params.weights()).columns(at..at + 1);
        let was = trainer.device.read_f64(view)[0];
        let mut moved = |by: f64| {
            trainer.device.write_f64(view, &[was + by]);
            loss_and_gradient(&mut trainer, &chosen).0
        };
        let step = 1e-5;
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        trainer.device.write_f64(view, &[was]);
        let found = gradient[first + at];
        let bound = 1e-6 * found.abs().max(0.1);
        assert!((slope - found).abs() < bound, "{}[{at}]: {found:e}, {slope:e}", param.name);
        first += param.len();
    }
}

#[test]
fn memory_is_told_with_what_the_inside_takes() {
    let of = |sets: &[&str]| {
        let job = job(Setting { sets, ..TAUGHT }, pairs());
        let [step, again, _] = language_memory(&job);
        (step.0, again.0)
    };
    let plain = of(&PROJECTED[1..]);
    let inside = of(&PROJECTED);
    assert!(inside.0 > plain.0 && inside.1 > plain.1, "{plain:?}, then {inside:?}");
}
