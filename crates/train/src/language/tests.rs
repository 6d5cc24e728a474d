//! Laws of token-level training: nothing depends on how text lies in rows and micro-batches, gradients
//! are slopes, a model learns nothing from itself, and a run goes on after a crash as if there had
//! been none.

use std::path::PathBuf;
use std::sync::Arc;

use heirloom_base::{Digest, Purpose as Words, Tokens, word};
use heirloom_data::text::{NOT_LEARNT, Row, Rows};
use heirloom_engine::{Cpu, Reference};
use heirloom_models::DecoderConfig;
use heirloom_recipe::{
    Architecture, DecoderShape, LanguageFacts, LanguageModelFacts, LanguageShape, TokenizerFacts,
    parse, resolve_language,
};
use heirloom_store::{Holder, RealDisk};

mod balance;
mod frozen;
mod growing;
mod inside;
mod learning;
mod masks;
mod pairs;
mod precision;
mod replay;
mod second;
mod teachers;

use super::*;
use crate::{Error, EvaluationRecord, Judged, Outside, RunFolder, StepRecord, run};

const VOCABULARY: u32 = 60;

/// Rows that are given.
struct Given(Vec<Row>);

impl Rows for Given {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn length(&self, row: usize) -> usize {
        self.0[row].ids.len()
    }
    fn read(&self, row: usize, into: &mut Row) {
        into.clone_from(&self.0[row]);
    }
    fn digest(&self) -> Digest {
        Digest::of(b"given")
    }
}

/// Document number `at`: 1 to 9 tokens, the last of which has nothing to foresee; of every third
/// document the first half is not learnt.
fn document(at: u64) -> (Vec<u32>, Vec<u32>) {
    let len = 1 + word(5, Words::Synthetic, at, 0) % 9;
    let token = |place| (word(6, Words::Synthetic, at, place) % u64::from(VOCABULARY)) as u32;
    let ids: Vec<u32> = (0..len).map(token).collect();
    let mut labels: Vec<u32> = ids[1..].to_vec();
    labels.push(NOT_LEARNT);
    if at.is_multiple_of(3) {
        let half = labels.len() / 2;
        labels[..half].fill(NOT_LEARNT);
    }
    (ids, labels)
}

/// A row of these documents, end to end.
fn row(documents: &[u64]) -> Row {
    let mut row = Row { starts: vec![0], ..Row::default() };
    for &at in documents {
        let (ids, labels) = document(at);
        row.ids.extend(ids);
        row.labels.extend(labels);
        row.starts.push(row.ids.len() as u32);
    }
    row.bytes = 3 * row.learnt() as u64;
    row
}

/// Twelve rows of two documents each.
pub(super) fn pairs() -> Vec<Row> {
    (0..12).map(|at| row(&[2 * at, 2 * at + 1])).collect()
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(name)
}

fn shape(config: &DecoderConfig) -> LanguageShape {
    LanguageShape::Decoder(DecoderShape {
        model_type: Architecture::Gpt2,
        vocab_size: config.vocab_size as u64,
        hidden_size: config.hidden_size as u64,
        num_hidden_layers: config.layers as u64,
        num_attention_heads: config.heads as u64,
        num_key_value_heads: config.key_heads as u64,
        head_dim: config.head_size as u64,
        intermediate_size: config.intermediate_size as u64,
        max_position_embeddings: config.max_positions as u64,
        rope_theta: 0.0,
        tie_word_embeddings: config.tied,
        layer_norm_eps: config.norm_eps,
        initializer_range: config.initializer_range,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
    })
}

/// What a test's run is like.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    /// The fixture whose shape the student has, drawn afresh ten times as wide as usual.
    pub(super) student: &'a str,
    /// The fixture that teaches.
    pub(super) teacher: Option<&'a str>,
    /// Changes to the recipe.
    pub(super) sets: &'a [&'a str],
    /// Dropout everywhere.
    pub(super) dropout: f32,
}

pub(super) const PLAIN: Setting<'_> =
    Setting { student: "gpt2", teacher: None, sets: &[], dropout: 0.0 };
/// Half of the steps are the student's own words.
pub(super) const OWN_WORDS: [&str; 2] =
    ["text.shape=\"completion\"", "objective.on_policy={ share = 0.5, max_new_tokens = 5 }"];
/// Hidden states through learned maps.
const INSIDE: &str = "objective.hidden=[{ kind = \"mse\", projection = true }]";
pub(super) const TAUGHT: Setting<'_> = Setting { teacher: Some("gpt2"), ..PLAIN };

pub(super) fn job(setting: Setting<'_>, rows: Vec<Row>) -> LanguageJob {
    let Setting { student, teacher, sets, dropout } = setting;
    let with_teacher = teacher.map_or("", |_| "[teacher]\nmodel = \"teacher\"\n");
    let recipe = format!(
        "[text]\nkind = \"causal\"\npath = \"text\"\nvalidation_split = 0.5\n\
         sequence_length = 20\n[tokenizer]\npath = \"words\"\n[student]\nmodel = \"student\"\n\
         {with_teacher}[training]\nmax_steps = 8\nbatch_size = 5\nlearning_rate = 0.01\n\
         warmup_steps = 2\nmicro_batch_size = 5\neval_steps = 4\nsave_steps = 2\nthreads = 1\n"
    );
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let recipe = parse("tiny.toml", &recipe, &sets).expect("a recipe");
    let open = |name: &str| DecoderConfig::open(&fixture(name)).expect("a fixture");
    let config = open(student);
    let facts_of = |config: &DecoderConfig| LanguageModelFacts {
        shape: shape(config),
        digest: Digest::of(b"weights"),
    };
    let facts = LanguageFacts {
        text: recipe.text().expect("a text"),
        train_rows: rows.len() as u64,
        train_tokens: Tokens(rows.iter().map(|row| row.ids.len() as u64).sum()),
        steps_per_epoch: None,
        validation_rows: 3,
        data: Digest::of(b"rows"),
        tokenizer: TokenizerFacts {
            vocab_size: u64::from(VOCABULARY),
            digest: Digest::of(b"words"),
        },
        student: Some(facts_of(&config)),
        teacher: teacher.map(|name| facts_of(&open(name))),
        kept: None,
        grown: None,
        teacher_tokenizer: None,
        first_difference: None,
        other_teachers: Vec::new(),
        threads: 1,
    };
    let plan = resolve_language(&recipe, &facts).expect("a plan");
    LanguageJob {
        plan,
        train: Arc::new(Given(rows)),
        validation: Some(Arc::new(Given((40..43).map(|at| row(&[at, at + 9])).collect()))),
        masker: None,
        student: LanguageConfig::Decoder(DecoderConfig {
            initializer_range: 0.2,
            embedding_dropout: dropout,
            hidden_dropout: dropout,
            attention_dropout: dropout,
            ..config
        }),
        weights: LanguageWeights::Fresh,
        teachers: teacher.iter().map(|name| decoder_of(name)).collect(),
        tokenizer_files: [("tokenizer.json".to_owned(), b"{}".to_vec())].into(),
        own: crate::Own::default(),
    }
}

/// A fixture as a teacher that answers with every batch.
fn decoder_of(name: &str) -> LanguageTeacher {
    let path = fixture(name);
    let config = DecoderConfig::open(&path).expect("a fixture");
    let (config, reads) = (LanguageConfig::Decoder(config), TeacherReads::Same);
    LanguageTeacher::Model { path, config, reads }
}

pub(super) fn double() -> crate::Device {
    Box::new(Reference::<f64>::new())
}

pub(super) fn single() -> crate::Device {
    Box::new(Cpu::new(1))
}

pub(super) fn trainer(job: LanguageJob, device: fn() -> crate::Device) -> LanguageTrainer {
    LanguageTrainer::new(job, &mut |_| device()).expect("a trainer")
}

/// Loss and gradient of one step of these rows.
pub(super) fn loss_and_gradient(trainer: &mut LanguageTrainer, chosen: &[u32]) -> (f64, Vec<f64>) {
    let (_, parts, _) = trainer.accumulate(chosen);
    let gradient = trainer.gradient().into_iter().flat_map(|(_, values)| values).collect();
    let loss = trainer.total(&parts);
    trainer.clear_gradients();
    (loss, gradient)
}

/// The farthest difference, relative to the largest number.
pub(super) fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().chain(b).fold(1e-300, |most: f64, x| most.max(x.abs()));
    a.iter().zip(b).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest
}

/// Every objective that a language model can have: the text alone, softened, and each divergence.
fn objectives() -> Vec<(bool, Vec<String>)> {
    let set = |text: &str| text.to_owned();
    let mut all = vec![
        (false, vec![]),
        (false, vec![set("objective.regularizer={ method = \"label_smoothing\", alpha = 0.2 }")]),
        (
            false,
            vec![set(
                "objective.regularizer={ method = \"label_smoothing\", alpha = 0.2, smoothed = \"others\" }",
            )],
        ),
        (
            false,
            vec![set(
                "objective.regularizer={ method = \"labo\", alpha = 0.4, temperature = 1.5 }",
            )],
        ),
        (
            true,
            vec![
                set("objective.balance={ policy = \"schedule\", from = 0.9, to = 0.1 }"),
                set("objective.temperature_end=1.0"),
            ],
        ),
    ];
    for kind in heirloom_recipe::DivergenceKind::ALL {
        all.push((true, vec![format!("objective.divergence={kind}"), set("objective.alpha=0.6")]));
    }
    all.push((
        true,
        vec![set(
            "objective.hidden=[{ kind = \"mse\", projection = true }, { kind = \"cosine\", layers = [[2, 1]] }]",
        )],
    ));
    for policy in
        ["wsl\", weight = 1.5", "ada_kd\"", "dynamic_kd\"", "uncertainty\", learning_rate = 0.1"]
    {
        all.push((true, vec![format!("objective.balance={{ policy = \"{policy} }}")]));
    }
    // The teacher's inside alone.
    all.push((
        true,
        vec![
            set("objective.hidden=[{ kind = \"normalized_mse\", weight = 3.0 }]"),
            set("objective.alpha=0.0"),
        ],
    ));
    all
}

fn setting<'a>(taught: bool, sets: &'a [&'a str]) -> Setting<'a> {
    Setting { sets, ..if taught { TAUGHT } else { PLAIN } }
}

#[test]
fn no_objective_depends_on_micro_batches_packing_or_the_order_within_a_step() {
    // The same ten documents: two in a row, and each in a row of its own, the other way round.
    let together: Vec<Row> = (0..5).map(|at| row(&[2 * at, 2 * at + 1])).collect();
    let apart_rows: Vec<Row> = (0..10).rev().map(|at| row(&[at])).collect();
    let mut losses = Vec::new();
    for (taught, sets) in objectives() {
        let of = |rows: &[Row], more: &[&str], chosen: &[u32]| {
            let sets: Vec<&str> =
                sets.iter().map(String::as_str).chain(more.iter().copied()).collect();
            let job = job(setting(taught, &sets), rows.to_vec());
            loss_and_gradient(&mut trainer(job, double), chosen)
        };
        let whole = of(&together, &[], &[0, 1, 2, 3, 4]);
        assert!(whole.1.iter().any(|x| x.abs() > 1e-4), "{sets:?} has a gradient");
        let cuts = [
            of(&together, &["training.micro_batch_size=1"], &[0, 1, 2, 3, 4]),
            of(&together, &["training.micro_batch_size=2"], &[0, 1, 2, 3, 4]),
            of(&together, &[], &[3, 0, 4, 2, 1]),
            of(&apart_rows, &["training.batch_size=10"], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
            of(
                &apart_rows,
                &["training.batch_size=10", "training.micro_batch_size=3"],
                &[5, 1, 2, 9, 4, 0, 6, 7, 8, 3],
            ),
        ];
        for (at, cut) in cuts.iter().enumerate() {
            let (loss, gradient) = (apart(&[cut.0], &[whole.0]), apart(&cut.1, &whole.1));
            assert!(loss < 1e-12 && gradient < 1e-11, "{sets:?}, way {at}: {loss:e} {gradient:e}");
        }
        losses.push(whole.0);
    }
    // As many objectives, as many losses: none stands for another.
    for (at, loss) in losses.iter().enumerate() {
        assert!(losses[..at].iter().all(|other| (other - loss).abs() > 1e-9), "{losses:?}");
    }
}

#[test]
fn gradients_of_a_whole_decoder_with_its_losses_are_slopes() {
    for student in ["gpt2", "llama", "qwen2-tied", "qwen3"] {
        for (taught, sets) in objectives() {
            // The softened answer is held fixed, and is no slope; the engine's tests hold its own.
            // The total variation has kinks, which a difference meets.
            let text = sets.join(" ");
            let inside = text.contains("hidden");
            let one_of_each_kind = student == "gpt2" || text.contains("schedule") || inside;
            // Nor are weights of tokens part of a slope: they are constants of the step.
            let weighed = ["wsl", "ada_kd", "dynamic_kd"].iter().any(|name| text.contains(name));
            if weighed
                || text.contains("labo")
                || text.contains("total_variation")
                || !one_of_each_kind
            {
                continue;
            }
            let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
            let setting = Setting { student, ..setting(taught, &sets) };
            let mut trainer = trainer(job(setting, pairs()), double);
            let chosen = [3, 1, 4];
            let (_, gradient) = loss_and_gradient(&mut trainer, &chosen);
            let params = trainer.network.params().clone();
            let mut first = 0;
            for param in params.index() {
                // A few of each parameter, spread over it.
                for nth in 0..3 {
                    let at = (nth * 7 + param.len() / 3) % param.len();
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
                    // The square of the step times a third derivative, and rounding over the step.
                    let bound = 1e-6 * found.abs().max(0.1);
                    assert!(
                        (slope - found).abs() < bound,
                        "{student} {sets:?} {}[{at}]: {found:e}, by differences {slope:e}",
                        param.name
                    );
                }
                first += param.len();
            }
        }
    }
}

#[test]
fn both_devices_have_the_same_loss_and_gradient() {
    for (taught, sets) in objectives() {
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let of = |device: fn() -> crate::Device| {
            let job = job(setting(taught, &sets), pairs());
            loss_and_gradient(&mut trainer(job, device), &[0, 5, 7, 2])
        };
        let (fast, slow) = (of(single), of(double));
        assert!((fast.0 - slow.0).abs() < 1e-5 * slow.0.abs().max(0.1), "{sets:?}");
        assert!(apart(&fast.1, &slow.1) < 1e-4, "{sets:?}: {:e}", apart(&fast.1, &slow.1));
    }
}

#[test]
fn a_model_learns_nothing_from_itself() {
    for kind in heirloom_recipe::DivergenceKind::ALL {
        let divergence = format!("objective.divergence={kind}");
        let sets = [divergence.as_str(), "objective.alpha=1.0"];
        let mut job = job(Setting { sets: &sets, ..TAUGHT }, pairs());
        job.weights = LanguageWeights::Folder(fixture("gpt2"));
        let (loss, gradient) = loss_and_gradient(&mut trainer(job, double), &[0, 1, 2]);
        let most = gradient.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        // Squared logits have slopes of their rounding.
        assert!(loss.abs() < 1e-12 && most < 1e-12, "{kind}: {loss:e}, {most:e}");
    }
}

#[test]
fn without_a_share_a_teacher_changes_no_bit() {
    let plain = finished(job(PLAIN, pairs()));
    for sets in [
        &["objective.alpha=0.0"][..],
        &["objective.balance={ policy = \"schedule\", from = 0.0, to = 0.0 }"],
    ] {
        let taught = finished(job(Setting { sets, ..TAUGHT }, pairs()));
        assert!(taught == plain, "{sets:?}");
    }
    let taught = finished(job(Setting { sets: &["objective.alpha=0.1"], ..TAUGHT }, pairs()));
    assert!(taught != plain, "a share is heard");
}

/// The weights after a whole run, as bits.
fn finished(job: LanguageJob) -> Vec<u64> {
    let mut trainer = trainer(job, single);
    while !trainer.progress.finished {
        trainer.take_step().expect("a step");
    }
    bits(&mut trainer)
}

pub(super) fn bits(trainer: &mut LanguageTrainer) -> Vec<u64> {
    let weights = trainer.weights().into_iter();
    weights.flat_map(|(_, values)| values.into_iter().map(f64::to_bits)).collect()
}

/// Judges by the mean loss, and remembers.
#[derive(Default)]
struct World {
    steps: Vec<StepRecord>,
    losses: Vec<f64>,
    /// Asks to stop after so many steps.
    stop_after: Option<usize>,
}

impl Outside for World {
    fn step(&mut self, record: &StepRecord) {
        self.steps.push(record.clone());
    }
    fn judge(&mut self, _: Vec<f32>, _: &heirloom_data::dataset::Dataset) -> Result<Judged, Error> {
        unreachable!("a language model has no labels")
    }
    fn judge_text(&mut self, foreseen: &Foreseen) -> Result<Judged, Error> {
        let loss = foreseen.nats / foreseen.tokens as f64;
        self.losses.push(loss);
        let evaluation = serde_json::json!({ "loss": loss, "misses": foreseen.misses });
        Ok(Judged { score: Some(loss), higher_is_better: false, evaluation })
    }
    fn evaluated(&mut self, _: &EvaluationRecord) {}
    fn device(&mut self, _: crate::Work) -> crate::Device {
        single()
    }
    fn grown(&mut self, _: &crate::GrowthRecord) {}
    fn asked_to_stop(&mut self) -> bool {
        self.stop_after.is_some_and(|after| self.steps.len() >= after)
    }
}

#[test]
fn a_run_that_was_cut_off_ends_in_the_bits_of_one_that_was_not() {
    let sets = ["training.micro_batch_size=2", "objective.alpha=0.3"];
    for (student, more) in [
        ("gpt2", &[][..]),
        // A table whose rows move when they are seen, an average, and blocks computed again.
        ("llama", &["training.average=\"ema\"", "training.average_decay=0.5"]),
        ("llama", &["training.activation_checkpointing=true"]),
        ("llama", &OWN_WORDS),
        // Projections and their moments.
        ("llama", &[INSIDE]),
        ("gpt2", &[INSIDE, OWN_WORDS[0], OWN_WORDS[1]]),
    ] {
        let sets: Vec<&str> = sets.iter().chain(more).copied().collect();
        cut_off_ends_alike(student, &sets, |threads| Box::new(Cpu::new(threads)));
    }
    // What a policy has learnt, also in the middle of the steps between two measurements.
    for (student, learnt) in [
        ("gpt2", "policy = \"uncertainty\", learning_rate = 0.2"),
        ("llama", "policy = \"rw_kd\", meta = { batch_size = 3, every = 3 }"),
        (
            "gpt2",
            "policy = \"meta_weight_net\", learning_rate = 0.1, meta = { batch_size = 2, every = 3, loss = \"hard\" }",
        ),
    ] {
        let learnt = format!("objective.balance={{ {learnt} }}");
        cut_off_ends_alike(student, &[sets[0], &learnt], |threads| Box::new(Cpu::new(threads)));
    }
}

/// Runs on devices of so many threads: left alone, and cut off and gone on with by two threads.
fn cut_off_ends_alike(student: &str, sets: &[&str], device: fn(usize) -> crate::Device) {
    let job = || job(Setting { student, sets, dropout: 0.1, ..TAUGHT }, pairs());
    ends_alike(&format!("{student} {sets:?}"), &job, device);
}

/// The same of runs of this job.
fn ends_alike(
    what: &str,
    job: &dyn Fn() -> LanguageJob,
    device: fn(usize) -> crate::Device,
) -> Vec<StepRecord> {
    let folder = tempfile::tempdir().expect("a folder");
    let holder = Holder::this_process("now");
    let dir = |name: &str| folder.path().join(name);
    let record = |name: &str| std::fs::read(dir(name).join("run.jsonl")).expect("a record");
    let model = |name: &str| {
        let file = dir(name).join("last/model.safetensors");
        Digest::of(&std::fs::read(file).expect("a model"))
    };

    let mut whole = LanguageTrainer::new(job(), &mut |_| device(1)).expect("a trainer");
    let mut run_folder =
        RunFolder::create(&RealDisk, &dir("whole"), &holder, "plan").expect("a run folder");
    let mut alone = World::default();
    run(&mut whole, &mut run_folder, &mut alone).expect("a run");
    drop(run_folder);

    // Stopped after the fifth step, with checkpoints after every second and the last.
    let mut world = World { stop_after: Some(5), ..World::default() };
    let mut cut = LanguageTrainer::new(job(), &mut |_| device(1)).expect("a trainer");
    let mut run_folder =
        RunFolder::create(&RealDisk, &dir("cut"), &holder, "plan").expect("a run folder");
    run(&mut cut, &mut run_folder, &mut world).expect("a run");
    drop((cut, run_folder));
    let found = RunFolder::open(&RealDisk, &dir("cut"), &holder).expect("the run folder");
    let mut run_folder = found.folder;
    // From the checkpoint before the last: what came after it is computed again, with two
    // threads.
    let step = found.steps[found.steps.len() - 2];
    let mut cut = LanguageTrainer::new(job(), &mut |_| device(2)).expect("a trainer");
    run_folder.restore(&mut cut, step).expect("a checkpoint");
    run(&mut cut, &mut run_folder, &mut World::default()).expect("the rest");

    assert!(bits(&mut cut) == bits(&mut whole), "{what}: weights");
    assert!(record("cut") == record("whole"), "{what}: record");
    assert_eq!(model("cut"), model("whole"), "{what}: model folder");
    alone.steps
}

#[test]
fn a_saved_model_loads_as_it_was_saved() {
    // GPT-2's matrices lie transposed in files.
    let folder = tempfile::tempdir().expect("a folder");
    let mut trained = trainer(job(PLAIN, pairs()), single);
    trained.take_step().expect("a step");
    let dir = folder.path().join("run");
    let mut run_folder = RunFolder::create(&RealDisk, &dir, &Holder::this_process("now"), "plan")
        .expect("a run folder");
    run_folder.save_model(&mut trained, "last").expect("a model folder");
    let mut again = job(PLAIN, pairs());
    again.weights = LanguageWeights::Folder(dir.join("last"));
    let config = DecoderConfig::open(&dir.join("last")).expect("a config");
    assert_eq!(config.layers, 2);
    assert!(bits(&mut trainer(again, single)) == bits(&mut trained));
}

#[test]
fn a_teacher_that_was_overtaken_is_silent() {
    let sets = ["objective.until_overtaken=true", "objective.alpha=0.5"];
    let silent = |record: &StepRecord| !record.terms.contains_key("teacher");
    // The student begins as its teacher and learns more: it is overtaken at the first evaluation.
    let run_of = |weights: LanguageWeights, learning_rate: &str| {
        let sets = [sets[0], sets[1], learning_rate];
        let mut job = job(Setting { sets: &sets, ..TAUGHT }, pairs());
        // What is trained on is what is evaluated on.
        job.train = job.validation.clone().expect("a validation text");
        job.weights = weights;
        let mut trainer = trainer(job, single);
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("run");
        let mut run_folder =
            RunFolder::create(&RealDisk, &dir, &Holder::this_process("now"), "plan")
                .expect("a run folder");
        let mut world = World::default();
        run(&mut trainer, &mut run_folder, &mut world).expect("a run");
        (trainer.progress.overtaken, world)
    };
    let (overtaken, world) =
        run_of(LanguageWeights::Folder(fixture("gpt2")), "training.learning_rate=0.003");
    assert_eq!(overtaken, Some(4));
    let heard: Vec<bool> = world.steps.iter().map(silent).collect();
    assert_eq!(heard, [false, false, false, false, true, true, true, true]);
    assert!(world.losses[1] < world.losses[0], "{:?}", world.losses);
    // One that does not learn is never better than itself.
    let (overtaken, world) =
        run_of(LanguageWeights::Folder(fixture("gpt2")), "training.learning_rate=1e-12");
    assert_eq!(overtaken, None);
    assert!(!world.steps.iter().any(silent));
}

#[test]
fn a_share_that_steps_down_leaves_the_text_alone() {
    let sets =
        ["objective.balance={ policy = \"schedule\", from = 0.5, to = 0.0, course = \"step\" }"];
    let mut trainer = trainer(job(Setting { sets: &sets, ..TAUGHT }, pairs()), single);
    let mut taught = Vec::new();
    while !trainer.progress.finished {
        taught.push(trainer.take_step().expect("a step").terms.contains_key("teacher"));
    }
    assert_eq!(taught, [true, true, true, true, false, false, false, false]);
}

/// A run of a masked language model: the fixture's encoder, drawn afresh, and a tokenizer with as
/// many words.
fn masked_job(sets: &[&str], taught: bool) -> LanguageJob {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let words = (0..VOCABULARY - 5).map(|word| format!("w{word}"));
    let vocabulary: Vec<String> = special.into_iter().chain(words).collect();
    let tokenizer = heirloom_data::tokens::Tokenizer::from_vocabulary(&vocabulary.join("\n"), true)
        .expect("a tokenizer");
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoders/bert-mlm");
    let config = heirloom_models::EncoderConfig::open(&folder).expect("a fixture");
    let mut job = job(setting(taught, sets), pairs());
    let masking = heirloom_recipe::Masking { probability: 0.4, whole_words: false };
    job.plan.text.masking = Some(masking);
    let rule = heirloom_data::text::Masking { share: 0.4, ..Default::default() };
    job.masker = Some(heirloom_data::text::Masker::new(&tokenizer, rule, 3).expect("a masker"));
    job.student = LanguageConfig::Encoder(heirloom_models::EncoderConfig {
        initializer_range: 0.2,
        hidden_dropout: 0.0,
        attention_dropout: 0.0,
        ..config.clone()
    });
    let (config, reads) = (LanguageConfig::Encoder(config), TeacherReads::Same);
    let teacher = LanguageTeacher::Model { path: folder, config, reads };
    job.teachers = taught.then_some(teacher).into_iter().collect();
    job
}

#[test]
fn a_masked_language_model_learns_alike_however_its_steps_are_cut() {
    let chosen = [0, 1, 2, 3, 4];
    for (taught, sets) in objectives() {
        let of = |micro: &str, device: fn() -> crate::Device| {
            let sets: Vec<&str> = sets.iter().map(String::as_str).chain([micro]).collect();
            loss_and_gradient(&mut trainer(masked_job(&sets, taught), device), &chosen)
        };
        let whole = of("training.micro_batch_size=5", double);
        assert!(whole.1.iter().any(|x| x.abs() > 1e-4), "{sets:?} has a gradient");
        for micro in ["training.micro_batch_size=1", "training.micro_batch_size=3"] {
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
fn a_masked_language_model_learns_to_guess_and_hides_the_same_in_every_evaluation() {
    let sets = ["training.max_steps=60", "training.learning_rate=0.02"];
    let mut job = masked_job(&sets, false);
    job.train = job.validation.clone().expect("a validation text");
    let mut trainer = trainer(job, single);
    let before = trainer.foresee();
    assert_eq!(trainer.foresee(), before);
    assert!(before.tokens > 0 && before.bytes == 0);
    while !trainer.progress.finished {
        trainer.take_step().expect("a step");
    }
    let after = trainer.foresee();
    assert_eq!(after.tokens, before.tokens);
    assert!(after.nats < 0.8 * before.nats, "{before:?}, then {after:?}");
}

#[test]
fn every_token_of_a_step_counts_once_and_the_teacher_is_heard_at_the_same() {
    let mut trainer = trainer(job(TAUGHT, pairs()), single);
    let record = trainer.take_step().expect("a step");
    let (order, _) = heirloom_data::order::Order::new(42, 12).next_step(
        &trainer.job.train,
        heirloom_data::order::Cursor::default(),
        heirloom_data::order::BatchRule::Sequences(5),
    );
    let all = pairs();
    let learnt: usize = order.iter().map(|&at| all[at as usize].learnt()).sum();
    let tokens: usize = order.iter().map(|&at| all[at as usize].ids.len()).sum();
    assert!(learnt < tokens);
    assert_eq!((record.sequences, record.tokens), (5, tokens as u64));
    assert_eq!(record.terms["label"].count, learnt as u64);
    assert_eq!(record.terms["teacher"].count, learnt as u64);
}

#[test]
fn a_row_with_nothing_to_foresee_adds_nothing() {
    const BATCH: &str = "training.batch_size=3";
    let mut silent = row(&[1, 2]);
    silent.labels.fill(NOT_LEARNT);
    let rows = vec![row(&[4, 5]), silent, row(&[7])];
    let of = |chosen: &[u32], sets: &[&str]| {
        let job = job(Setting { sets, ..TAUGHT }, rows.clone());
        loss_and_gradient(&mut trainer(job, double), chosen)
    };
    let without = of(&[0, 2], &[BATCH]);
    for sets in [&[BATCH][..], &[BATCH, "training.micro_batch_size=1"]] {
        let with = of(&[0, 1, 2], sets);
        assert!(apart(&[with.0], &[without.0]) < 1e-12 && apart(&with.1, &without.1) < 1e-11);
    }
    let nothing = of(&[1], &[BATCH]);
    assert!(nothing.0 == 0.0 && nothing.1.iter().all(|x| *x == 0.0));
}

#[test]
fn a_gradient_that_is_not_finite_stops_the_run_with_its_rows_and_parameter() {
    let mut trainer = trainer(job(PLAIN, pairs()), single);
    let before = bits(&mut trainer);
    let params = trainer.network.params().clone();
    let norm = params.find("transformer.ln_f.weight").expect("GPT-2 has one").clone();
    let view = params.view(&norm, params.weights()).columns(0..1);
    let was = trainer.device.read_f64(view);
    trainer.device.write_f64(view, &[f64::INFINITY]);
    let error = trainer.take_step().expect_err("not a number");
    let said = error.to_string();
    assert!(said.starts_with("step 1 is not finite: term `label`; first gradient"), "{said}");
    assert!(said.contains("training examples"), "{said}");
    assert_eq!(error.exit_code(), 5);
    trainer.device.write_f64(view, &was);
    assert!(bits(&mut trainer) == before, "the weights are those before the step");
}
