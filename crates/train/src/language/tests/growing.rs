//! A language model that grows in the middle of its run, as a classifier does.

use heirloom_recipe::{Frozen, GroupPlan, GrownMoments, Lag, Operator, Size, StagePlan, When};

use super::*;
use crate::{StagesState, Trains};

pub(super) fn stage(method: &str, at: u64) -> StagePlan {
    StagePlan {
        when: When::Step(at),
        method: method.to_owned(),
        lag: None,
        mask_steps: 0,
        num_hidden_layers: Size::Follows,
        hidden_size: Size::Follows,
        num_attention_heads: Size::Follows,
        intermediate_size: Size::Follows,
        moments: GrownMoments::Exact,
        rates: true,
        warmup_steps: 0,
        freezing: Frozen::Always,
        noise: 0.0,
        seed: 1,
        operator: Operator::Fixed,
    }
}

/// Whole copies of everything.
fn wider(config: &LanguageConfig, at: u64) -> StagePlan {
    let LanguageConfig::Decoder(config) = config else { unreachable!("a decoder") };
    let hidden_size = Size::To(2 * config.hidden_size as u64);
    StagePlan { hidden_size, ..stage("hypercloning", at) }
}

const LONG: [&str; 5] = [
    "training.max_steps=60",
    "training.max_grad_norm=0",
    "training.adam_epsilon=1e-14",
    "training.learning_rate=0.002",
    "training.weight_decay=0.05",
];

#[test]
fn the_grown_decoder_follows_the_small_one_for_fifty_steps() {
    for student in ["gpt2", "gpt2-untied", "llama", "qwen2-tied", "mistral-window"] {
        let setting = Setting { student, sets: &LONG, ..PLAIN };
        let walk = |grows: bool| {
            let mut job = job(setting, pairs());
            if grows {
                job.plan.training.stages = vec![wider(&job.student, 10)];
            }
            let mut trainer = trainer(job, double);
            let (mut losses, mut growths) = (Vec::new(), Vec::new());
            while !trainer.progress().finished {
                losses.push(trainer.take_step().expect("a step").loss);
                if trainer.grows_now() {
                    growths.push(trainer.grow_up(&mut |_| double()).expect("a larger model"));
                }
            }
            (losses, growths, trainer)
        };
        let (want, ..) = walk(false);
        let (got, growths, mut grown) = walk(true);
        let [growth] = growths.as_slice() else { panic!("{student}: {growths:?}") };
        assert!(growth.largest_change < 1e-10 * growth.largest_output.max(1.0), "{growth:?}");
        assert!(growth.largest_output > 0.01, "{growth:?}");
        let gap = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(gap < 1e-9, "{student}: losses are {gap:e} apart");
        assert_eq!(grown.gap().expect("copies"), Some(0.0), "{student}");
        assert!(want[59] < want[9] - 0.01, "{student}: something was learnt");
    }
}

#[test]
fn a_run_that_grows_twice_and_was_cut_off_anywhere_ends_in_the_same_bits() {
    let sets = ["training.micro_batch_size=2", "training.save_steps=1", "training.average=\"ema\""];
    for student in ["gpt2", "llama"] {
        let job = || {
            let mut job = job(Setting { student, sets: &sets, dropout: 0.1, ..PLAIN }, pairs());
            let candidates = ["interleave", "stack"].map(str::to_owned).to_vec();
            let deeper = StagePlan {
                num_hidden_layers: Size::To(3),
                lag: Some(Lag { candidates, steps: 2 }),
                ..stage("lag", 3)
            };
            let wider = StagePlan {
                moments: GrownMoments::Asymmetric,
                warmup_steps: 2,
                ..wider(&job.student, 5)
            };
            job.plan.training.stages = vec![deeper, wider];
            job.plan.training.save_total_limit = 9;
            job
        };
        let folder = tempfile::tempdir().expect("a folder");
        let holder = Holder::this_process("now");
        let dir = |name: &str| folder.path().join(name);
        let mut whole = trainer(job(), single);
        let mut run_folder =
            RunFolder::create(&RealDisk, &dir("whole"), &holder, "plan").expect("a run folder");
        run(&mut whole, &mut run_folder, &mut World::default()).expect("a run");
        drop(run_folder);
        // The loop holds the grown trainer in the small one's place.
        let want = bits(&mut whole);
        let record = std::fs::read(dir("whole/run.jsonl")).expect("a record");
        let text = String::from_utf8(record.clone()).expect("JSON");
        assert_eq!(text.matches(r#""kind":"growth""#).count(), 2, "{text}");
        assert_eq!(text.matches(r#""candidates":[{"#).count(), 1, "{text}");
        let steps = RunFolder::steps(&RealDisk, &dir("whole")).expect("checkpoints");
        assert_eq!(steps.len(), 8);
        for step in steps.into_iter().rev() {
            let found = RunFolder::open(&RealDisk, &dir("whole"), &holder).expect("the run folder");
            let mut run_folder = found.folder;
            let committed = heirloom_store::Committed::open_step(&RealDisk, &dir("whole"), step);
            let state = RunFolder::stages(&committed.expect("a checkpoint")).expect("its stage");
            assert_eq!(state.grown, usize::from(step.0 >= 3) + usize::from(step.0 >= 5));
            let mut cut =
                LanguageTrainer::at_stage(job(), state, &mut |_| single()).expect("a trainer");
            run_folder.restore(&mut cut, step).expect("a checkpoint");
            run(&mut cut, &mut run_folder, &mut World::default()).expect("the rest");
            assert!(bits(&mut cut) == want, "{student} from step {}", step.0);
            drop(run_folder);
            let again = std::fs::read(dir("whole/run.jsonl")).expect("a record");
            assert!(again == record, "{student} from step {}", step.0);
        }
        // What was saved is the model that grew: it loads by its own config.
        let mut last = job();
        let config = DecoderConfig::open(&dir("whole/last")).expect("a config");
        assert_eq!(config.layers, 3);
        last.plan.training.stages.clear();
        last.student = LanguageConfig::Decoder(config);
        last.weights = LanguageWeights::Folder(dir("whole/last"));
        trainer(last, single);
    }
}

#[test]
fn groups_and_learnt_maps_hold_for_decoders_too() {
    let mut frozen = job(PLAIN, pairs());
    let group = GroupPlan { frozen: Frozen::Always, ..GroupPlan::of("*h.0.*", 1.0) };
    frozen.plan.training.groups = vec![group];
    let mut trained = trainer(frozen, single);
    let before = trained.weights();
    let record = trained.take_step().expect("a step");
    trained.take_step().expect("a step");
    assert_eq!(record.group_learning_rates, [0.0]);
    assert!(record.flops > 0);
    let mut kept = 0;
    for ((name, old), (_, new)) in before.iter().zip(trained.weights()) {
        let same = name.contains("h.0.");
        assert_eq!(*old == new, same, "{name}");
        kept += usize::from(same);
    }
    assert!(kept > 0);
    let mut job = job(Setting { sets: &LONG[..2], ..PLAIN }, pairs());
    job.plan.training.stages = vec![StagePlan {
        num_hidden_layers: Size::To(3),
        moments: GrownMoments::Drop,
        operator: Operator::Learnt { steps: 30, learning_rate: 3e-3 },
        ..StagePlan { method: "ligo".to_owned(), ..wider(&job.student, 2) }
    }];
    let mut learning = LanguageTrainer::at_stage(job, StagesState::default(), &mut |_| double())
        .expect("a trainer");
    learning.take_step().expect("a step");
    learning.take_step().expect("a step");
    assert!(learning.grows_now());
    let growth = learning.grow_up(&mut |_| double()).expect("a larger model");
    let learnt = growth.learnt.expect("it was learnt");
    assert!(learnt.last_loss < learnt.first_loss - 0.01, "{learnt:?}");
    assert!(growth.flops > 0 && learnt.tokens > 0, "{growth:?}");
}
