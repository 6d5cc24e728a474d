//! `heirloom bench`: how fast and how large one distillation step is on this machine.
//!
//! In: a shape, a batch size, a sequence length. Out: times, memory, page faults, and the losses
//! computed; where asked, a folder from which another program can compute the same steps.
//! Never: reads weights or text; weights, ids, labels and the teacher's logits come from a fixed
//! seed, and every step sees the same batch.
//!
//! The step is that of `bench/peers/step_torch.py`: forward, ½ · 4 · KL(teacher ‖ student) at
//! temperature 2 + ½ · cross-entropy, of two classes or of every token's next one, backward, AdamW that
//! clears the gradient. Measuring and clipping the gradient's length, which every step of a run does,
//! is left out by both unless asked.

mod cache;
mod classifier;
mod dump;
mod head;
mod language;
mod learning;
mod products;
mod taught;

use std::path::Path;

use heirloom::failure::Failure;
use heirloom::process::{minor_faults, peak_memory};
use heirloom::processor;
use heirloom_base::{Bytes, Purpose, uniform, word};
use heirloom_engine::{Cpu, Device, Precision, Profiled};
use heirloom_models::{DeviceBatch, Inputs, Purpose as BuffersFor, Taps};
use heirloom_report::table::{Cell, Table};
use serde::Serialize;
use serde_json::{Map, Value};

use self::classifier::Classifier;
use self::language::LanguageModel;
use crate::args::{BenchArgs, BenchCommand, BenchPrecision, BenchStepArgs, BenchTeacher};
use crate::clock::{Clock, stopwatch};
use crate::show::Show;

/// A shape that is timed.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    kind: Kind,
    layers: usize,
    hidden: usize,
    heads: usize,
    inner: usize,
}

/// What a model does with its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An encoder tells two classes of sequences apart.
    Classifier,
    /// A decoder foresees the next token of each; its head is tied to the word embeddings.
    LanguageModel,
}

/// All shapes, in the order of [`BenchModel`](crate::args::BenchModel).
const SHAPES: [Shape; 4] = [
    Shape::of("bert-mini", Kind::Classifier, [4, 256, 4, 1024]),
    Shape::of("distilbert", Kind::Classifier, [6, 768, 12, 3072]),
    Shape::of("bert-base", Kind::Classifier, [12, 768, 12, 3072]),
    Shape::of("gpt-small-v16k", Kind::LanguageModel, [6, 384, 6, 1536]),
];

impl Shape {
    const fn of(name: &'static str, kind: Kind, sizes: [usize; 4]) -> Self {
        let [layers, hidden, heads, inner] = sizes;
        Self { name, kind, layers, hidden, heads, inner }
    }

    /// Ids that there are.
    fn vocabulary(self) -> u32 {
        match self.kind {
            Kind::Classifier => classifier::VOCABULARY,
            Kind::LanguageModel => language::VOCABULARY,
        }
    }
}

/// A model with its batch, whose steps are timed.
trait Steps {
    /// Numbers that are trained.
    fn parameters(&self) -> usize;

    /// The forward pass and the loss.
    fn infer(&mut self, device: &mut dyn Device) -> f64;

    /// A whole step, number `at` from 0; the loss before it.
    fn train(&mut self, device: &mut dyn Device, at: u64) -> f64;

    /// Writes model and batch into a new folder.
    fn dump(&self, device: &dyn Device, args: &BenchStepArgs, folder: &Path)
    -> Result<(), Failure>;
}

/// The longest sequence.
const LONGEST: usize = 512;
/// The first id that is a word; those before it are special or unused.
const FIRST_WORD: u32 = 1000;

/// The mixture of the two losses.
const ALPHA: f64 = 0.5;
const TEMPERATURE: f64 = 2.0;

/// The seed of weights, batch and dropout.
const SEED: u64 = 0;

pub(crate) fn run(args: &BenchArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let precision = match &args.what {
        BenchCommand::Step(args) => args.precision,
        BenchCommand::Products(args) => args.precision,
        BenchCommand::Head(_) | BenchCommand::Cache(_) => BenchPrecision::F32,
    };
    if let Some(note) = processor::note(of(precision)) {
        show.say(note);
    }
    match &args.what {
        BenchCommand::Step(args) => {
            let timed = step(args, threads)?;
            show_result(show, &timed, timed.table());
            if let (false, Some(profile)) = (show.json, timed.profile_table()) {
                show.data(&profile.text());
            }
        }
        BenchCommand::Products(args) => {
            let rates = products::measure(args, threads)?;
            show_result(show, &rates, rates.table());
        }
        BenchCommand::Head(args) => {
            let heads = head::measure(args, threads)?;
            show_result(show, &heads, heads.table());
        }
        BenchCommand::Cache(args) => {
            let kept = cache::measure(args)?;
            show_result(show, &kept, kept.table());
        }
    }
    Ok(0)
}

/// The engine's name for a precision.
fn of(precision: BenchPrecision) -> Precision {
    match precision {
        BenchPrecision::F32 => Precision::F32,
        BenchPrecision::Bf16 => Precision::Bf16,
    }
}

fn show_result(show: Show, result: &impl Serialize, table: Table) {
    if show.json {
        show.json(result);
    } else {
        show.data(&table.text());
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Timed {
    model: &'static str,
    batch: usize,
    seq: usize,
    infer: bool,
    activation_checkpointing: bool,
    precision: BenchPrecision,
    teacher: BenchTeacher,
    threads: usize,
    dropout: f32,
    max_grad_norm: f64,
    steps: usize,
    parameters: usize,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    tokens_per_second: f64,
    /// Pages touched for the first time, per timed step; `None` where the system does not say.
    minor_faults_per_step: Option<f64>,
    /// The most that was resident, in MiB; `None` where the system does not say.
    peak_memory_mb: Option<f64>,
    /// What the device holds, in MiB.
    planned_memory_mb: f64,
    loss_first: f64,
    loss_last: f64,
    /// The loss of every step, those before the timed ones too.
    losses: Vec<f64>,
    /// Floating-point operations that the products need, over the median time.
    gflops: f64,
    /// Milliseconds of a step, on average, by kind of operation; where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Map<String, Value>>,
}

impl Timed {
    fn table(&self) -> Table {
        let number = |value, decimals| Cell::Number { value, decimals };
        let mut table = Table::new([
            "model",
            "batch",
            "tokens each",
            "median ms",
            "min ms",
            "max ms",
            "tokens/s",
            "GFLOP/s",
            "faults/step",
            "peak MiB",
            "planned MiB",
            "first loss",
            "last loss",
        ]);
        table.row([
            self.model.into(),
            Cell::Count(self.batch as u64),
            Cell::Count(self.seq as u64),
            number(self.median_ms, 1),
            number(self.min_ms, 1),
            number(self.max_ms, 1),
            number(self.tokens_per_second, 0),
            number(self.gflops, 1),
            self.minor_faults_per_step.map_or(Cell::Missing, |faults| number(faults, 1)),
            self.peak_memory_mb.map_or(Cell::Missing, |peak| number(peak, 1)),
            number(self.planned_memory_mb, 1),
            number(self.loss_first, 4),
            number(self.loss_last, 4),
        ]);
        table
    }
}

impl Timed {
    /// Kinds of operations, the longest first.
    fn profile_table(&self) -> Option<Table> {
        let mut rows: Vec<(&str, f64)> = self
            .profile
            .as_ref()?
            .iter()
            .filter_map(|(kind, value)| Some((kind.as_str(), value.as_f64()?)))
            .collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        let total: f64 = rows.iter().map(|(_, time)| time).sum();
        let mut table = Table::new(["operation", "ms per step", "% of the step"]);
        for (kind, time) in rows {
            table.row([
                kind.into(),
                Cell::Number { value: time, decimals: 2 },
                Cell::Number { value: 100.0 * time / total, decimals: 1 },
            ]);
        }
        Some(table)
    }
}

fn step(args: &BenchStepArgs, threads: usize) -> Result<Timed, Failure> {
    check(args)?;
    let shape = SHAPES[args.model as usize];
    let precision = of(args.precision);
    let mut device = Profiled::new(Cpu::new(threads).with_precision(precision), stopwatch);
    let mut student: Box<dyn Steps> = match shape.kind {
        Kind::Classifier => Box::new(Classifier::new(&mut device, shape, args)?),
        Kind::LanguageModel => Box::new(LanguageModel::new(&mut device, shape, args)?),
    };
    if let Some(folder) = &args.dump {
        student.dump(&device, args, folder)?;
    }
    let mut losses = Vec::new();
    let mut times = Vec::new();
    let mut faults_before = None;
    for at in 0..args.warmup + args.steps {
        if at == args.warmup {
            device.reset();
            faults_before = minor_faults();
        }
        let clock = Clock::start();
        losses.push(if args.infer {
            student.infer(&mut device)
        } else {
            student.train(&mut device, at as u64)
        });
        if at >= args.warmup {
            times.push(1000.0 * clock.seconds());
        }
    }
    let faults = minor_faults().zip(faults_before).map(|(after, before)| after - before);
    let profile = args.profile.then(|| profile(&device, &times));
    times.sort_by(f64::total_cmp);
    let median = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
    let tokens = (args.batch * args.seq) as f64;
    Ok(Timed {
        model: shape.name,
        batch: args.batch,
        seq: args.seq,
        infer: args.infer,
        activation_checkpointing: args.activation_checkpointing,
        precision: args.precision,
        teacher: args.teacher,
        threads,
        dropout: args.dropout,
        max_grad_norm: args.max_grad_norm,
        steps: args.steps,
        parameters: student.parameters(),
        median_ms: median,
        min_ms: times[0],
        max_ms: times[times.len() - 1],
        tokens_per_second: tokens / median * 1000.0,
        minor_faults_per_step: faults.map(|faults| faults as f64 / args.steps as f64),
        peak_memory_mb: peak_memory().map(mebibytes),
        planned_memory_mb: mebibytes(Bytes(device.bytes())),
        loss_first: losses[0],
        loss_last: losses[losses.len() - 1],
        losses,
        gflops: operations(shape, args) / median / 1e6,
        profile,
    })
}

fn mebibytes(bytes: Bytes) -> f64 {
    bytes.0 as f64 / f64::from(1 << 20)
}

/// Milliseconds of a step by kind of operation; what no operation took is said too.
fn profile(device: &Profiled<Cpu>, times: &[f64]) -> Map<String, Value> {
    let steps = times.len() as f64;
    let mut rest = times.iter().sum::<f64>() / steps;
    let mut profile = Map::new();
    for (kind, seconds) in device.seconds() {
        let milliseconds = 1000.0 * seconds / steps;
        rest -= milliseconds;
        profile.insert(kind.to_owned(), milliseconds.into());
    }
    profile.insert("between operations".to_owned(), rest.into());
    profile
}

fn check(args: &BenchStepArgs) -> Result<(), Failure> {
    at_least_one(&[("--batch", args.batch), ("--seq", args.seq), ("--steps", args.steps)])?;
    if args.seq > LONGEST {
        return Err(Failure::usage(format!("--seq is {}, expected at most {LONGEST}", args.seq)));
    }
    // A sequence's place in its step takes 16 bits of a dropout address.
    if args.batch > heirloom_data::order::LARGEST_STEP {
        return Err(Failure::usage(format!(
            "--batch is {}, expected at most {}",
            args.batch,
            heirloom_data::order::LARGEST_STEP
        )));
    }
    check_teacher(args)?;
    if !(0.0..1.0).contains(&args.dropout) {
        let found = args.dropout;
        return Err(Failure::usage(format!("--dropout is {found}, expected 0 or more, below 1")));
    }
    if !(args.max_grad_norm >= 0.0 && args.max_grad_norm.is_finite()) {
        let found = args.max_grad_norm;
        return Err(Failure::usage(format!("--max-grad-norm is {found}, expected 0 or more")));
    }
    Ok(())
}

fn check_teacher(args: &BenchStepArgs) -> Result<(), Failure> {
    if args.teacher == BenchTeacher::Full {
        return Ok(());
    }
    let Shape { name, kind, .. } = SHAPES[args.model as usize];
    if kind == Kind::Classifier {
        return Err(Failure::usage(format!(
            "--teacher is for language models, and `{name}` is a classifier; leave it out"
        )));
    }
    if args.dump.is_some() {
        return Err(Failure::usage("--dump writes the teacher's logits; leave --teacher out"));
    }
    let (most, found) = (language::VOCABULARY as usize, args.top_k);
    if args.teacher == BenchTeacher::Kept && !(1..=most).contains(&found) {
        return Err(Failure::usage(format!("--top-k is {found}, expected 1 to {most}")));
    }
    Ok(())
}

fn at_least_one(flags: &[(&str, usize)]) -> Result<(), Failure> {
    match flags.iter().find(|(_, value)| *value == 0) {
        Some((name, _)) => Err(Failure::usage(format!("{name} is 0, expected at least 1"))),
        None => Ok(()),
    }
}

/// Floating-point operations of the products that the step needs, two for each multiplication:
/// what a layer's matrices and its attention do to each token, and the head to each sequence of a
/// classifier or each token of a language model. The backward pass has two products for each of the
/// forward pass. What is computed again to save memory does not count, and what a causal mask saves
/// is not taken off.
fn operations(shape: Shape, args: &BenchStepArgs) -> f64 {
    let (c, f) = (shape.hidden as f64, shape.inner as f64);
    let (batch, seq) = (args.batch as f64, args.seq as f64);
    let layer = 2.0 * (4.0 * c * c + 2.0 * c * f) + 4.0 * seq * c;
    let head = match shape.kind {
        Kind::Classifier => batch * 2.0 * (c * c + c * classifier::LABELS as f64),
        Kind::LanguageModel => batch * seq * 2.0 * c * f64::from(language::VOCABULARY),
    };
    let forward = batch * seq * shape.layers as f64 * layer + head;
    if args.infer { forward } else { 3.0 * forward }
}

/// What is kept of a forward pass.
fn buffers_for(args: &BenchStepArgs) -> BuffersFor {
    match (args.infer, args.activation_checkpointing) {
        (true, _) => BuffersFor::Infer,
        (false, false) => BuffersFor::Train(Taps::default()),
        (false, true) => BuffersFor::Recompute(Taps::default()),
    }
}

/// The largest logit of the teacher, uniform in ±2√3: as wide a spread as the script's, which is 2.
const WIDEST_LOGIT: f64 = 3.464_101_615_137_754_6;

/// What is drawn; each has words of its own.
#[derive(Clone, Copy)]
enum Drawn {
    Ids,
    Labels,
    Teacher,
}

/// `count` numbers in `[0, 1)`.
fn random(what: Drawn, count: usize) -> impl Iterator<Item = f64> {
    let number = move |at| uniform(word(SEED, Purpose::Synthetic, what as u64, at as u64));
    (0..count).map(number)
}

/// The ids of `count` tokens, of a vocabulary.
fn words(vocabulary: u32, count: usize) -> Vec<u32> {
    let words = f64::from(vocabulary - FIRST_WORD);
    random(Drawn::Ids, count).map(|number| FIRST_WORD + (words * number) as u32).collect()
}

/// `count` logits of the teacher.
fn teacher_logits(count: usize) -> Vec<f32> {
    let logit = |number| (WIDEST_LOGIT * (2.0 * number - 1.0)) as f32;
    random(Drawn::Teacher, count).map(logit).collect()
}

/// Copies a batch of `sequences` sequences of `length` tokens in.
fn upload(
    device: &mut dyn Device,
    batch: &mut DeviceBatch,
    ids: &[u32],
    sequences: usize,
    length: usize,
) {
    let places = || (0..sequences as u32).flat_map(|s| (0..length as u32).map(move |at| (s, at)));
    let positions: Vec<u32> = places().map(|(_, at)| at).collect();
    let rows: Vec<u32> = places().map(|(sequence, at)| sequence << 16 | at).collect();
    let starts: Vec<u32> = (0..=sequences).map(|sequence| (sequence * length) as u32).collect();
    let types = vec![0; ids.len()];
    let inputs = Inputs {
        ids,
        types: &types,
        positions: &positions,
        rows: &rows,
        starts: &starts,
        masked: &[],
    };
    batch.upload(device, &inputs);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::BenchModel;

    fn args(infer: bool) -> BenchStepArgs {
        BenchStepArgs {
            model: BenchModel::BertMini,
            batch: 2,
            seq: 8,
            infer,
            precision: BenchPrecision::F32,
            teacher: BenchTeacher::Full,
            top_k: 64,
            dropout: 0.0,
            steps: 1,
            warmup: 0,
            activation_checkpointing: false,
            profile: false,
            max_grad_norm: 0.0,
            dump: None,
        }
    }

    #[test]
    fn shapes_stand_in_the_order_of_their_names() {
        let rows = [
            (BenchModel::BertMini, "bert-mini"),
            (BenchModel::Distilbert, "distilbert"),
            (BenchModel::BertBase, "bert-base"),
            (BenchModel::GptSmallV16k, "gpt-small-v16k"),
        ];
        for (model, name) in rows {
            assert_eq!(SHAPES[model as usize].name, name);
        }
    }

    #[test]
    fn operations_are_those_counted_by_hand() {
        // 16 tokens · 4 layers · (2·12·256² + 4·8·256) + 2 sequences · 2·(256² + 512).
        let forward = 16.0 * 4.0 * 1_581_056.0 + 2.0 * 132_096.0;
        assert_eq!(operations(SHAPES[0], &args(true)), forward);
        assert_eq!(operations(SHAPES[0], &args(false)), 3.0 * forward);
        // 16 tokens · (6 layers · (2·12·384² + 4·8·384) + 2·384·16384).
        let language = 16.0 * (6.0 * 3_551_232.0 + 12_582_912.0);
        assert_eq!(operations(SHAPES[3], &args(true)), language);
    }

    #[test]
    fn what_cannot_be_timed_is_refused() {
        let rows = [
            (BenchStepArgs { steps: 0, ..args(true) }, "--steps is 0, expected at least 1"),
            (BenchStepArgs { seq: 513, ..args(true) }, "--seq is 513, expected at most 512"),
            (
                BenchStepArgs { dropout: 1.0, ..args(true) },
                "--dropout is 1, expected 0 or more, below 1",
            ),
            (
                BenchStepArgs { max_grad_norm: -1.0, ..args(true) },
                "--max-grad-norm is -1, expected 0 or more",
            ),
            (
                BenchStepArgs { max_grad_norm: f64::NAN, ..args(true) },
                "--max-grad-norm is NaN, expected 0 or more",
            ),
            (
                BenchStepArgs { teacher: BenchTeacher::None, ..args(true) },
                "--teacher is for language models, and `bert-mini` is a classifier; leave it out",
            ),
            (
                BenchStepArgs {
                    model: BenchModel::GptSmallV16k,
                    teacher: BenchTeacher::Kept,
                    top_k: 16_385,
                    ..args(true)
                },
                "--top-k is 16385, expected 1 to 16384",
            ),
            (
                BenchStepArgs {
                    model: BenchModel::GptSmallV16k,
                    teacher: BenchTeacher::Kept,
                    dump: Some("dump".into()),
                    ..args(true)
                },
                "--dump writes the teacher's logits; leave --teacher out",
            ),
        ];
        for (args, want) in rows {
            assert_eq!(check(&args).unwrap_err(), Failure::usage(want));
        }
    }

    #[test]
    fn a_step_lowers_the_loss_of_its_own_batch_whichever_the_model() {
        for model in [BenchModel::BertMini, BenchModel::GptSmallV16k] {
            let timed = step(&BenchStepArgs { model, steps: 3, ..args(false) }, 2).unwrap();
            assert!(timed.losses.is_sorted_by(|a, b| a > b), "{:?}", timed.losses);
        }
    }

    #[test]
    fn all_tokens_kept_are_worth_what_all_logits_are_and_none_what_the_label_is() {
        let of = |teacher| {
            let model = BenchModel::GptSmallV16k;
            step(&BenchStepArgs { model, teacher, top_k: 16_384, ..args(true) }, 2).unwrap().losses
        };
        let (full, kept, label) =
            (of(BenchTeacher::Full)[0], of(BenchTeacher::Kept)[0], of(BenchTeacher::None)[0]);
        assert!((full - kept).abs() < 1e-5 * full, "{full} {kept}");
        // Half of the label's loss, and a divergence that is above 0.
        assert!(full > 0.5 * label && label > 9.0, "{full} {label}");
    }
}
