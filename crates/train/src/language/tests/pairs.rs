//! A decoder that grows in the middle of its run beside a teacher: what it writes itself, a teacher
//! that is overtaken, a policy that learns, each cut off after every step.

use heirloom_recipe::{Frozen, GrownMoments, Operator, Size, StagePlan, When};

use super::*;
use crate::Trains;

/// Twice as wide from step 4 on, by whole copies.
fn wider(config: &LanguageConfig) -> StagePlan {
    StagePlan {
        when: When::Step(4),
        method: "hypercloning".to_owned(),
        num_hidden_layers: Size::Follows,
        hidden_size: Size::To(2 * config.hidden_size() as u64),
        num_attention_heads: Size::Follows,
        intermediate_size: Size::Follows,
        moments: GrownMoments::Exact,
        rates: true,
        warmup_steps: 0,
        freezing: Frozen::Always,
        noise: 0.0,
        seed: 1,
        operator: Operator::Fixed,
        lag: None,
        mask_steps: 0,
    }
}

#[test]
fn a_student_that_grows_beside_its_teacher_resumes_from_every_step_to_the_same_bits() {
    let kept = ["training.save_steps=1", "training.micro_batch_size=2"];
    const OWN: [&str; 3] = [OWN_WORDS[0], OWN_WORDS[1], "objective.alpha=0.5"];
    for more in [
        &OWN[..],
        // The map from small to large is learnt from batches of which some are its own words.
        &[OWN[0], OWN[1], OWN[2], "training.batch_size=6"],
        &[
            "objective.until_overtaken=true",
            "training.eval_steps=3",
            "training.learning_rate=0.003",
        ],
        &["objective.balance={ policy = \"uncertainty\", learning_rate = 0.2 }"],
        &["objective.balance={ policy = \"wsl\" }"],
    ] {
        let overtakes = more[0].contains("overtaken");
        let sets = [&kept[..], more].concat();
        let job = || {
            let mut job = job(Setting { sets: &sets, ..TAUGHT }, pairs());
            let stage = wider(&job.student);
            job.plan.training.stages = vec![match more.last() {
                Some(&"training.batch_size=6") => StagePlan {
                    method: "ligo".to_owned(),
                    moments: GrownMoments::Drop,
                    operator: Operator::Learnt { steps: 5, learning_rate: 3e-3 },
                    ..stage
                },
                _ => stage,
            }];
            job.plan.training.save_total_limit = 9;
            if overtakes {
                // It begins as its teacher, and reads what it is judged by.
                job.weights = LanguageWeights::Folder(fixture("gpt2"));
                job.train = job.validation.clone().expect("a validation text");
            }
            job
        };
        let folder = tempfile::tempdir().expect("a folder");
        let holder = Holder::this_process("now");
        let dir = folder.path().join("run");
        let mut whole = trainer(job(), single);
        let mut run_folder =
            RunFolder::create(&RealDisk, &dir, &holder, "plan").expect("a run folder");
        run(&mut whole, &mut run_folder, &mut World::default()).expect("a run");
        drop(run_folder);
        let want = bits(&mut whole);
        let record = std::fs::read_to_string(dir.join("run.jsonl")).expect("a record");
        assert_eq!(record.matches(r#""kind":"growth""#).count(), 1, "{record}");
        if overtakes {
            let overtaken = whole.progress().overtaken;
            assert_eq!(overtaken, Some(3), "before it grows, and it stays so: {record}");
        }
        let steps = RunFolder::steps(&RealDisk, &dir).expect("checkpoints");
        assert_eq!(steps.len(), 8);
        for step in steps.into_iter().rev() {
            let found = RunFolder::open(&RealDisk, &dir, &holder).expect("the run folder");
            let mut run_folder = found.folder;
            let committed = heirloom_store::Committed::open_step(&RealDisk, &dir, step);
            let state = RunFolder::stages(&committed.expect("a checkpoint")).expect("its stage");
            let mut cut =
                LanguageTrainer::at_stage(job(), state, &mut |_| single()).expect("a trainer");
            run_folder.restore(&mut cut, step).expect("a checkpoint");
            run(&mut cut, &mut run_folder, &mut World::default()).expect("the rest");
            assert!(bits(&mut cut) == want, "{more:?} from step {}", step.0);
            drop(run_folder);
            let again = std::fs::read_to_string(dir.join("run.jsonl")).expect("a record");
            assert!(again == record, "{more:?} from step {}", step.0);
        }
    }
}
