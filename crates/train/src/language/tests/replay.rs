//! A student that reads again what it wrote before.

use super::*;
use crate::Source;

const AGAIN: [&str; 4] = [
    OWN_WORDS[0],
    "objective.on_policy={ share = 0.6, max_new_tokens = 5, replay = { capacity = 4, ratio = \"constant\", rise = 0.2, margin = 0.0 } }",
    "objective.alpha=0.5",
    "training.max_steps=16",
];

#[test]
fn a_run_that_reads_its_texts_again_ends_in_the_same_bits_wherever_it_was_cut() {
    let sets = [&AGAIN[..], &["training.micro_batch_size=2", "training.save_steps=1"]].concat();
    cut_off_ends_alike("llama", &sets, |threads| Box::new(Cpu::new(threads)));

    // From each of its checkpoints, by another process.
    let job = || {
        let mut job = job(Setting { student: "gpt2", sets: &sets, ..TAUGHT }, pairs());
        job.plan.training.save_total_limit = 20;
        job
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (holder, dir) = (Holder::this_process("now"), folder.path().join("run"));
    let mut whole = trainer(job(), single);
    let mut run_folder = RunFolder::create(&RealDisk, &dir, &holder, "plan").expect("a run folder");
    run(&mut whole, &mut run_folder, &mut World::default()).expect("a run");
    drop(run_folder);
    let want = bits(&mut whole);
    for step in [3, 8, 13] {
        let found = RunFolder::open(&RealDisk, &dir, &holder).expect("the run folder");
        let mut run_folder = found.folder;
        let mut cut = trainer(job(), single);
        run_folder.restore(&mut cut, heirloom_base::Step(step)).expect("a checkpoint");
        run(&mut cut, &mut run_folder, &mut World::default()).expect("the rest");
        assert!(bits(&mut cut) == want, "from step {step}");
    }
}

#[test]
fn steps_come_from_the_data_from_new_texts_and_from_old_ones() {
    let job = job(Setting { sets: &AGAIN, ..TAUGHT }, pairs());
    let mut trainer = trainer(job, single);
    let (mut sources, mut terms) = (Vec::new(), Vec::new());
    while !trainer.progress.finished {
        let writer = trainer.writer.as_mut().expect("it writes");
        // A loss that rises before every step: more and more of them are its own.
        writer.hear(sources.len() as f64);
        sources.push(writer.source(trainer.progress.cursor.step));
        let record = trainer.take_step().expect("a step");
        let prompts = trainer.rows[..trainer.held].iter().flat_map(crate::prompts_of).count();
        terms.push((record.terms.contains_key("label"), prompts));
    }
    for source in [Source::Data, Source::Written, Source::Kept] {
        assert!(sources.contains(&source), "{source:?} in {sources:?}");
    }
    for (source, &(label, prompts)) in sources.iter().zip(&terms) {
        // Rows without a prompt are learnt as they are, whoever should have written.
        let own = *source != Source::Data && prompts > 0;
        assert_eq!(label, !own, "{source:?}, {prompts} prompts: {sources:?}");
    }
    let first = sources.iter().position(|source| *source == Source::Kept);
    let written = sources.iter().position(|source| *source == Source::Written);
    assert!(written < first, "{sources:?}");
}
