//! Several teachers: a mixture is the sum of what each would say alone, however a step is cut; each falls
//! silent by itself; and a run that was cut off ends in the same bits.

use super::*;
use crate::language::evaluate::foresee;

/// A job with these two teachers, each with its part of the teachers' weight.
fn taught_by(names: [&str; 2], parts: [f64; 2], sets: &[&str]) -> LanguageJob {
    let mut job = job(Setting { teacher: Some(names[0]), sets, ..PLAIN }, pairs());
    second(&mut job, parts, decoder_of(names[1]));
    job
}

/// Puts a second teacher beside the first.
fn second(job: &mut LanguageJob, parts: [f64; 2], teacher: LanguageTeacher) {
    job.plan.other_teachers = vec![job.plan.teacher.clone()];
    job.plan.objective.teacher_parts = parts.to_vec();
    job.teachers.push(teacher);
}

const TWO: [&str; 2] = ["gpt2", "llama"];
const PARTS: [f64; 2] = [0.25, 0.75];
const CHOSEN: [u32; 5] = [3, 0, 4, 2, 1];

/// Divergences, a course, and a policy.
const OBJECTIVES: [&[&str]; 5] = [
    &[],
    &["objective.divergence=reverse_kl"],
    &["objective.divergence=mse_logits"],
    &[
        "objective.balance={ policy = \"schedule\", from = 0.9, to = 0.1 }",
        "objective.temperature_end=1.0",
    ],
    &["objective.balance={ policy = \"uncertainty\", learning_rate = 0.1 }"],
];

#[test]
fn the_gradient_of_a_mixture_is_the_sum_of_its_parts() {
    for sets in &OBJECTIVES[..3] {
        let of = |alpha: &str, name: &str| {
            let sets: Vec<&str> = sets.iter().copied().chain([alpha]).collect();
            let setting = Setting { teacher: Some(name), sets: &sets, ..PLAIN };
            loss_and_gradient(&mut trainer(job(setting, pairs()), double), &CHOSEN)
        };
        let label = of("objective.alpha=0.0", TWO[0]);
        let [one, two] = TWO.map(|name| of("objective.alpha=1.0", name));
        assert!(apart(&one.1, &two.1) > 1e-3, "the teachers differ");
        let sets: Vec<&str> = sets.iter().copied().chain(["objective.alpha=0.6"]).collect();
        let job = taught_by(TWO, PARTS, &sets);
        let (loss, gradient) = loss_and_gradient(&mut trainer(job, double), &CHOSEN);
        let mixed =
            |label: f64, one: f64, two: f64| 0.4 * label + 0.6 * (PARTS[0] * one + PARTS[1] * two);
        let want = mixed(label.0, one.0, two.0);
        assert!((loss - want).abs() < 1e-12 * want, "{sets:?}: {loss}, should be {want}");
        let parts = label.1.iter().zip(&one.1).zip(&two.1);
        let want: Vec<f64> = parts.map(|((&label, &one), &two)| mixed(label, one, two)).collect();
        assert!(apart(&gradient, &want) < 1e-11, "{sets:?}: {:e}", apart(&gradient, &want));
    }
}

#[test]
fn a_mixture_does_not_depend_on_micro_batches_or_the_device() {
    for sets in OBJECTIVES {
        let of = |micro: &str, device: fn() -> crate::Device| {
            let sets: Vec<&str> = sets.iter().copied().chain([micro]).collect();
            let job = taught_by(TWO, PARTS, &sets);
            loss_and_gradient(&mut trainer(job, device), &CHOSEN)
        };
        let whole = of("training.micro_batch_size=5", double);
        assert!(whole.1.iter().any(|x| x.abs() > 1e-4), "{sets:?} has a gradient");
        for micro in ["training.micro_batch_size=1", "training.micro_batch_size=2"] {
            let cut = of(micro, double);
            let (loss, gradient) = (apart(&[cut.0], &[whole.0]), apart(&cut.1, &whole.1));
            assert!(loss < 1e-12 && gradient < 1e-11, "{sets:?} {micro}: {loss:e} {gradient:e}");
        }
        let fast = of("training.micro_batch_size=5", single);
        assert!((fast.0 - whole.0).abs() < 1e-5 * whole.0.abs().max(0.1), "{sets:?}");
        assert!(apart(&fast.1, &whole.1) < 1e-4, "{sets:?}: {:e}", apart(&fast.1, &whole.1));
    }
}

#[test]
fn masked_models_learn_from_several_as_from_each() {
    let masked = |sets: &[&str], teachers: &[bool]| {
        let mut job = masked_job(sets, true);
        let Some(LanguageTeacher::Model { path, config, .. }) = job.teachers.pop() else {
            panic!("a teacher that reads");
        };
        let named = |other: &bool| {
            let path = if *other { path.with_file_name("distilbert-mlm") } else { path.clone() };
            let config = match other {
                false => config.clone(),
                true => LanguageConfig::Encoder(
                    heirloom_models::EncoderConfig::open(&path).expect("a fixture"),
                ),
            };
            LanguageTeacher::Model { path, config, reads: TeacherReads::Same }
        };
        job.teachers = teachers.iter().map(named).collect();
        if teachers.len() > 1 {
            job.plan.other_teachers = vec![job.plan.teacher.clone()];
            job.plan.objective.teacher_parts = PARTS.to_vec();
        }
        job
    };
    let of = |sets: &[&str], teachers: &[bool]| {
        loss_and_gradient(&mut trainer(masked(sets, teachers), double), &CHOSEN)
    };
    let alone = ["objective.alpha=1.0"];
    let [one, two] = [false, true].map(|other| of(&alone, &[other]));
    assert!(apart(&one.1, &two.1) > 1e-3, "the teachers differ");
    for micro in ["training.micro_batch_size=5", "training.micro_batch_size=2"] {
        let both = of(&[alone[0], micro], &[false, true]);
        let want = PARTS[0] * one.0 + PARTS[1] * two.0;
        assert!((both.0 - want).abs() < 1e-12 * want, "{micro}: {}, should be {want}", both.0);
        let parts = one.1.iter().zip(&two.1);
        let want: Vec<f64> = parts.map(|(a, b)| PARTS[0] * a + PARTS[1] * b).collect();
        assert!(apart(&both.1, &want) < 1e-11, "{micro}");
    }
}

#[test]
fn records_name_each_teacher_and_a_policy_says_each_ones_share() {
    let sets = ["objective.balance={ policy = \"uncertainty\", learning_rate = 0.2 }"];
    let mut trainer = trainer(taught_by(TWO, PARTS, &sets), single);
    let steps: Vec<StepRecord> = (0..3).map(|_| trainer.take_step().expect("a step")).collect();
    for record in &steps {
        let names: Vec<&str> = record.terms.keys().map(String::as_str).collect();
        assert_eq!(names, ["label", "teacher[0]", "teacher[1]"]);
        let counts: Vec<u64> = record.terms.values().map(|term| term.count).collect();
        assert!(counts.iter().all(|&count| count == counts[0] && count > 0), "{counts:?}");
        let balance = record.balance.as_ref().expect("a policy");
        let sum: f64 = balance.teachers.iter().sum();
        assert!(balance.teachers.len() == 2 && (sum - balance.mean).abs() < 1e-12, "{balance:?}");
    }
    // All begin alike, and each learns from its own mean.
    let shares = |at: usize| steps[at].balance.as_ref().expect("a policy").teachers.clone();
    assert!(shares(0).iter().all(|share| (share - 1.0 / 3.0).abs() < 1e-12), "{:?}", shares(0));
    assert!((shares(2)[0] - shares(2)[1]).abs() > 1e-6, "{:?}", shares(2));
}

#[test]
fn a_run_with_two_teachers_that_was_cut_off_ends_in_the_bits_of_one_that_was_not() {
    for more in [
        &["training.micro_batch_size=2"][..],
        &["objective.balance={ policy = \"uncertainty\", learning_rate = 0.2 }"],
        &OWN_WORDS,
    ] {
        let job = || taught_by(TWO, PARTS, more);
        ends_alike(&format!("{more:?}"), &job, |threads| Box::new(Cpu::new(threads)));
    }
}

/// How well a fixture foresees the validation text.
fn loss_of(name: &str) -> f64 {
    let job = job(PLAIN, pairs());
    let teacher = decoder_of(name);
    let rows = job.validation.expect("a validation text");
    let model = teacher.model().expect("a model");
    foresee(&mut *single(), model, &*rows, (None, None)).expect("a model").nats
}

#[test]
fn each_teacher_falls_silent_by_itself_and_leaves_its_part_to_the_text() {
    // The student is the better one of the two and does not learn: it overtakes the other alone.
    let better = usize::from(loss_of(TWO[1]) < loss_of(TWO[0]));
    let sets =
        ["objective.until_overtaken=true", "objective.alpha=0.5", "training.learning_rate=1e-12"];
    let job = || {
        let sets: Vec<&str> = sets.to_vec();
        let setting =
            Setting { student: TWO[better], teacher: Some(TWO[0]), sets: &sets, dropout: 0.0 };
        let mut job = job(setting, pairs());
        second(&mut job, PARTS, decoder_of(TWO[1]));
        job.weights = LanguageWeights::Folder(fixture(TWO[better]));
        job
    };
    let steps = ends_alike("silent", &job, |threads| Box::new(Cpu::new(threads)));
    let (speaks, falls) = (format!("teacher[{better}]"), format!("teacher[{}]", 1 - better));
    for record in &steps {
        let silent = record.step > 4;
        assert_eq!(record.terms.contains_key(&falls), !silent, "{record:?}");
        let mean = |name: &str| record.terms[name].mean.expect("it is heard");
        let part = 0.5 * PARTS[better];
        let other = if silent { 0.0 } else { 0.5 * PARTS[1 - better] };
        let heard = if silent { 0.0 } else { other * mean(&falls) };
        let want = (1.0 - part - other) * mean("label") + part * mean(&speaks) + heard;
        assert!((record.loss - want).abs() < 1e-5, "{record:?}, should be {want}");
    }
    let mut progress = crate::Progress::default();
    progress.cursor.step = 4;
    progress.overtake(1, 3);
    assert_eq!(
        (progress.overtaken, progress.is_silent(0), progress.is_silent(1)),
        (None, false, true)
    );
    progress.cursor.step = 8;
    progress.overtake(0, 3);
    progress.cursor.step = 12;
    progress.overtake(2, 3);
    assert_eq!(progress.overtaken, Some(12), "the last of them");
    assert_eq!(progress.overtaken_teachers, [Some(8), Some(4), Some(12)]);
}
