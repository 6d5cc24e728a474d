//! Laws of training beside a teacher with other tokens, and on the student's own words: how a step is
//! cut, slopes, what is counted, and a run that was stopped.

use std::sync::Arc;

use heirloom_data::text::{Corpus, PairedRows, Reading, Rows, Separator};
use heirloom_data::tokens::Tokenizer;
use heirloom_data::vocabulary::NOT_SHARED;
use heirloom_recipe::UldPlan;

use super::tests::{
    OWN_WORDS, PLAIN, Setting, TAUGHT, apart, bits, double, job, loss_and_gradient, pairs, single,
    trainer,
};
use super::{LanguageJob, LanguageTeacher, LanguageTrainer, TeacherReads};

const ALL: [u32; 5] = [0, 1, 2, 3, 4];

/// A job whose teacher has these ids for the student's tokens.
fn mapped(sets: &[&str], to_teacher: Vec<u32>) -> LanguageJob {
    let mut job = job(Setting { sets, ..TAUGHT }, pairs());
    reads(&mut job, TeacherReads::Mapped(Arc::new(to_teacher)));
    job
}

/// Gives the job's only teacher these tokens to read.
fn reads(job: &mut LanguageJob, what: TeacherReads) {
    let [LanguageTeacher::Model { reads, .. }] = job.teachers.as_mut_slice() else {
        panic!("a teacher that reads");
    };
    *reads = what;
}

/// Slopes of the loss along a few numbers of every parameter.
#[track_caller]
fn has_slopes(trainer: &mut LanguageTrainer, chosen: &[u32]) {
    let (_, gradient) = loss_and_gradient(trainer, chosen);
    assert!(gradient.iter().any(|x| x.abs() > 1e-4), "there is a gradient");
    let params = trainer.network.params().clone();
    let mut first = 0;
    for param in params.index() {
        let at = param.len() / 3;
        let view = params.view(param, params.weights()).columns(at..at + 1);
        let was = trainer.device.read_f64(view)[0];
        let mut moved = |by: f64| {
            trainer.device.write_f64(view, &[was + by]);
            loss_and_gradient(trainer, chosen).0
        };
        let step = 1e-5;
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        trainer.device.write_f64(view, &[was]);
        let found = gradient[first + at];
        // The square of the step times a third derivative, and rounding over the step.
        let bound = 1e-6 * found.abs().max(0.1);
        assert!((slope - found).abs() < bound, "{}: {found:e}, not {slope:e}", param.name);
        first += param.len();
    }
}

#[test]
fn a_map_of_each_token_to_itself_is_no_map() {
    for sets in
        [&["objective.alpha=0.6"][..], &["objective.alpha=1.0", "objective.divergence=reverse_kl"]]
    {
        let of = |job: LanguageJob| loss_and_gradient(&mut trainer(job, double), &ALL);
        let plain = of(job(Setting { sets, ..TAUGHT }, pairs()));
        let through = of(mapped(sets, (0..60).collect()));
        assert!(apart(&[through.0], &[plain.0]) < 1e-12 && apart(&through.1, &plain.1) < 1e-11);
    }
}

/// Some tokens moved, some not shared.
fn some() -> Vec<u32> {
    let id = |id: u32| match id {
        7 | 31 => NOT_SHARED,
        10 => 50,
        50 => 10,
        id => id,
    };
    (0..60).map(id).collect()
}

#[test]
fn a_teacher_of_another_vocabulary_is_heard_where_it_knows_the_text_and_its_gradient_is_a_slope() {
    let sets = ["objective.alpha=0.6"];
    let mut trainer = trainer(mapped(&sets, some()), double);
    let (_, parts, _) = trainer.accumulate(&ALL);
    let [label, teacher] = [0, 1].map(|at| parts.terms()[at].count());
    assert!(teacher < label && teacher > label / 3, "{teacher} of {label}");
    trainer.student.clear(&mut *trainer.device);
    has_slopes(&mut trainer, &ALL);
}

#[test]
fn cutting_a_step_changes_nothing_beside_a_teacher_of_another_vocabulary() {
    let of = |micro: &str| {
        let sets = ["objective.alpha=0.6", micro];
        loss_and_gradient(&mut trainer(mapped(&sets, some()), double), &ALL)
    };
    let whole = of("training.micro_batch_size=5");
    for micro in ["training.micro_batch_size=1", "training.micro_batch_size=2"] {
        let cut = of(micro);
        assert!(apart(&[cut.0], &[whole.0]) < 1e-12 && apart(&cut.1, &whole.1) < 1e-11, "{micro}");
    }
}

/// A tokenizer of letters and these words, sixty tokens at most.
fn letters_and(words: &[&str]) -> Tokenizer {
    let mut tokens: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).into();
    for letter in 'a'..='z' {
        tokens.push(letter.to_string());
        tokens.push(format!("##{letter}"));
    }
    tokens.extend(words.iter().map(|&word| word.to_owned()));
    assert!(tokens.len() <= 60);
    Tokenizer::from_vocabulary(&tokens.join("\n"), true).expect("a tokenizer")
}

/// A job whose teacher reads tokens of its own.
fn by_rank(sets: &[&str], top: u64) -> LanguageJob {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("text.txt");
    let text = "the cat sat on a mat\n\nthe dog\n\na bee sat on the dog and the cat\n\nmat cat\n\n\
                zoo the zebra\n\ncats and dogs\n\non and on\n\nthe mat";
    std::fs::write(&file, text).expect("a file");
    let reading = Reading { separator: Separator::BlankLine, ..Reading::plain() };
    let corpus = Corpus::open(&[file], reading).expect("a corpus");
    let tokenizers = [&letters_and(&["the", "cat"]), &letters_and(&["the", "##at", "dog"])];
    let rows = PairedRows::build(&corpus, tokenizers, [20, 18]).expect("rows");
    assert!(rows.len() >= 4 && rows.dropped() == 0, "{} rows", rows.len());
    let mut job = job(Setting { sets, ..TAUGHT }, pairs());
    // As wide as no teacher is.
    if let crate::LanguageConfig::Decoder(config) = &mut job.student {
        (config.hidden_size, config.head_size, config.intermediate_size) = (24, 6, 48);
    }
    let rows = Arc::new(rows);
    job.train = Arc::clone(&rows) as Arc<dyn Rows>;
    job.plan.objective.uld = Some(UldPlan { top, sequence_length: 18 });
    reads(&mut job, TeacherReads::Own(rows));
    job
}

#[test]
fn a_teacher_with_tokens_of_its_own_is_heard_at_common_ends_and_its_gradient_is_a_slope() {
    for top in [3, 64] {
        let mut trainer = trainer(by_rank(&["objective.alpha=0.6"], top), double);
        let (_, parts, _) = trainer.accumulate(&ALL[..4]);
        let [label, teacher] = [0, 1].map(|at| parts.terms()[at].count());
        // `cat` is one token for the student and two for the teacher, `dog` the other way round.
        assert!(teacher < label && teacher > label / 3, "{teacher} of {label}");
        trainer.student.clear(&mut *trainer.device);
        has_slopes(&mut trainer, &ALL[..4]);
    }
}

#[test]
fn cutting_a_step_changes_nothing_beside_a_teacher_with_tokens_of_its_own() {
    let of = |micro: &str, device: fn() -> crate::Device| {
        let sets = ["objective.alpha=0.6", micro];
        loss_and_gradient(&mut trainer(by_rank(&sets, 5), device), &ALL[..4])
    };
    let whole = of("training.micro_batch_size=5", double);
    for micro in ["training.micro_batch_size=1", "training.micro_batch_size=2"] {
        let cut = of(micro, double);
        assert!(apart(&[cut.0], &[whole.0]) < 1e-12 && apart(&cut.1, &whole.1) < 1e-11, "{micro}");
    }
    let fast = of("training.micro_batch_size=2", single);
    assert!(apart(&[fast.0], &[whole.0]) < 1e-5 && apart(&fast.1, &whole.1) < 1e-4);
}

#[test]
fn training_by_rank_goes_down() {
    let mut trainer =
        trainer(by_rank(&["objective.alpha=1.0", "training.max_steps=30"], 64), single);
    let mut losses = Vec::new();
    while !trainer.progress.finished {
        losses.push(trainer.take_step().expect("a step").loss);
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (before, after) = (mean(&losses[..5]), mean(&losses[losses.len() - 5..]));
    assert!(after < 0.9 * before, "{before} became {after}");
}

/// All steps are the student's own words.
const ALWAYS: [&str; 2] =
    ["text.shape=\"completion\"", "objective.on_policy={ share = 1.0, max_new_tokens = 5 }"];

#[test]
fn what_the_student_wrote_is_judged_and_not_learnt_however_the_step_is_cut() {
    let of = |micro: &str, device: fn() -> crate::Device| {
        let sets = [ALWAYS[0], ALWAYS[1], "objective.alpha=0.6", micro];
        let mut trainer = trainer(job(Setting { sets: &sets, ..TAUGHT }, pairs()), device);
        let (named, parts, cuts) = trainer.accumulate(&ALL);
        let names: Vec<&str> = named.iter().map(String::as_str).collect();
        assert_eq!(names, ["teacher"]);
        let written: Vec<u32> =
            trainer.rows[..trainer.held].iter().flat_map(|row| row.ids.clone()).collect();
        let gradient: Vec<f64> = trainer.gradient().into_iter().flat_map(|(_, g)| g).collect();
        (trainer.total(&parts), gradient, written, parts.terms()[0].count(), cuts)
    };
    let whole = of("training.micro_batch_size=5", double);
    assert!(whole.3 > 5 && whole.1.iter().any(|x| x.abs() > 1e-4));
    for micro in ["training.micro_batch_size=1", "training.micro_batch_tokens=21"] {
        let cut = of(micro, double);
        assert_eq!((&cut.2, cut.3), (&whole.2, whole.3), "{micro}: the same texts");
        assert!(apart(&[cut.0], &[whole.0]) < 1e-12 && apart(&cut.1, &whole.1) < 1e-11, "{micro}");
    }
    let fast = of("training.micro_batch_size=2", single);
    assert_eq!(fast.2, whole.2, "the fast device writes the same");
    assert!(apart(&fast.1, &whole.1) < 1e-4);
}

#[test]
fn as_many_steps_are_the_students_as_the_share_says_and_others_are_as_ever() {
    let sets = [OWN_WORDS[0], OWN_WORDS[1], "training.max_steps=30", "objective.alpha=0.5"];
    let mut own = trainer(job(Setting { sets: &sets, ..TAUGHT }, pairs()), single);
    let mut written = 0;
    while !own.progress.finished {
        let record = own.take_step().expect("a step");
        written += usize::from(!record.terms.contains_key("label"));
        assert!(record.loss.is_finite());
    }
    assert!((8..=22).contains(&written), "{written} of 30");
    // No share is no change, to the bit.
    let run_of = |sets: &[&str]| {
        let mut trainer = trainer(job(Setting { sets, ..TAUGHT }, pairs()), single);
        while !trainer.progress.finished {
            trainer.take_step().expect("a step");
        }
        bits(&mut trainer)
    };
    let none = "objective.on_policy={ share = 0.0, max_new_tokens = 5 }";
    assert!(run_of(&[OWN_WORDS[0], none]) == run_of(&[OWN_WORDS[0]]));
    // Without a teacher's term nobody judges, and nothing is written.
    let silent = ["objective.alpha=0.0", OWN_WORDS[0], OWN_WORDS[1]];
    let plain = Setting { sets: &[OWN_WORDS[0]], ..PLAIN };
    let mut plain = trainer(job(plain, pairs()), single);
    while !plain.progress.finished {
        plain.take_step().expect("a step");
    }
    assert!(run_of(&silent) == bits(&mut plain));
}

#[test]
fn the_students_own_words_fit_what_was_planned() {
    let sets = [ALWAYS[0], ALWAYS[1], "training.micro_batch_tokens=20", "training.max_steps=12"];
    let mut trainer = trainer(job(Setting { sets: &sets, ..TAUGHT }, pairs()), double);
    trainer.take_step().expect("a step");
    let bytes = trainer.bytes();
    while !trainer.progress.finished {
        trainer.take_step().expect("a step");
        assert!(trainer.rows[..trainer.held].iter().all(|row| row.ids.len() <= 20));
    }
    assert_eq!(trainer.bytes(), bytes, "room is asked for once");
}
