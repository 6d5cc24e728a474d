//! `heirloom bench`: how fast and how large one distillation step is on this machine.
//!
//! In: a shape, a batch size, a sequence length. Out: times, memory, page faults, and the losses
//! computed; where asked, a folder from which another program can compute the same steps.
//! Never: reads weights or text; weights, ids, labels and the teacher's logits come from a fixed
//! seed, and every step sees the same batch.
//!
//! The step is that of `bench/peers/step_torch.py`: forward, ½ · 4 · KL(teacher ‖ student) at
//! temperature 2 + ½ · cross-entropy, backward, AdamW that clears the gradient. Measuring and
//! clipping the gradient's length, which every step of a run does, is left out by both unless asked.

mod cache;
mod decoder;
mod dump;
mod head;
mod products;

use heirloom::failure::Failure;
use heirloom::process::{minor_faults, peak_memory};
use heirloom::processor;
use heirloom_base::{Bytes, Purpose, uniform, word};
use heirloom_engine::{Cpu, Device, Divergence, IdSpace, Ids, Move, Precision, Profiled, View};
use heirloom_models::{
    Buffers, Capacity, DeviceBatch, EncoderConfig, Head, Inputs, Model, Noise,
    Purpose as BuffersFor, Taps,
};
use heirloom_objective::{
    Counts, LabelLoss, Labels, Objective, Signals, TeacherSignals, TeacherTerm, Term, TermKind,
};
use heirloom_report::table::{Cell, Table};
use heirloom_train::{Adam, Learned};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::{BenchArgs, BenchCommand, BenchModel, BenchPrecision, BenchStepArgs};
use crate::clock::{Clock, stopwatch};
use crate::show::Show;

/// A shape that is timed.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    layers: usize,
    hidden: usize,
    heads: usize,
    inner: usize,
}

/// All shapes, in the order of [`BenchModel`].
const SHAPES: [Shape; 4] = [
    Shape { name: "bert-mini", layers: 4, hidden: 256, heads: 4, inner: 1024 },
    Shape { name: "distilbert", layers: 6, hidden: 768, heads: 12, inner: 3072 },
    Shape { name: "bert-base", layers: 12, hidden: 768, heads: 12, inner: 3072 },
    Shape { name: "gpt-small-v16k", layers: 6, hidden: 384, heads: 6, inner: 1536 },
];

/// BERT's vocabulary and longest input (Devlin et al. 2019, arXiv:1810.04805).
const VOCABULARY: u32 = 30_522;
const LONGEST: usize = 512;
/// The first id that is a word; those before it are special or unused.
const FIRST_WORD: u32 = 1000;
const LABELS: usize = 2;

/// The mixture of the two losses.
const ALPHA: f64 = 0.5;
const TEMPERATURE: f64 = 2.0;

/// The optimiser's settings, those of the script above; the rest are PyTorch's defaults.
const LEARNING_RATE: f64 = 2e-5;
const WEIGHT_DECAY: f64 = 0.01;

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
    let mut student: Box<dyn Timeable> = if args.model == BenchModel::GptSmallV16k {
        Box::new(decoder::Student::new(&mut device, shape, args)?)
    } else {
        let student = Student::new(&mut device, shape, args)?;
        if let Some(folder) = &args.dump {
            dump::write(&student.model, &device, args, folder)?;
        }
        Box::new(student)
    };
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
    if args.model == BenchModel::GptSmallV16k && args.dump.is_some() {
        return Err(Failure::usage(
            "--dump writes encoders; gpt-small-v16k is timed here alone".to_owned(),
        ));
    }
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

fn at_least_one(flags: &[(&str, usize)]) -> Result<(), Failure> {
    match flags.iter().find(|(_, value)| *value == 0) {
        Some((name, _)) => Err(Failure::usage(format!("{name} is 0, expected at least 1"))),
        None => Ok(()),
    }
}

/// Floating-point operations of the products that the step needs, two for each multiplication:
/// what a layer's matrices and its attention do to each token, and the classifier to each sequence.
/// The backward pass has two products for each of the forward pass. What is computed again to save
/// memory does not count.
fn operations(shape: Shape, args: &BenchStepArgs) -> f64 {
    let (c, f) = (shape.hidden as f64, shape.inner as f64);
    let (batch, seq) = (args.batch as f64, args.seq as f64);
    let layer = 2.0 * (4.0 * c * c + 2.0 * c * f) + 4.0 * seq * c;
    let head = match args.model {
        BenchModel::GptSmallV16k => batch * seq * 2.0 * c * f64::from(decoder::VOCABULARY),
        _ => batch * 2.0 * (c * c + c * LABELS as f64),
    };
    let forward = batch * seq * shape.layers as f64 * layer + head;
    if args.infer { forward } else { 3.0 * forward }
}

fn config(shape: Shape, dropout: f32) -> Result<EncoderConfig, Failure> {
    let keys = json!({
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LONGEST,
        "type_vocab_size": 2,
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
    });
    let keys: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
    let config = EncoderConfig::from_map(std::path::Path::new(shape.name), keys)?;
    Ok(EncoderConfig {
        hidden_dropout: dropout,
        attention_dropout: dropout,
        classifier_dropout: dropout,
        ..config
    })
}

/// A model whose steps can be timed.
trait Timeable {
    /// The forward pass and the loss.
    fn infer(&mut self, device: &mut dyn Device) -> f64;
    /// A whole step, number `at` from 0.
    fn train(&mut self, device: &mut dyn Device, at: u64) -> f64;
    /// How many parameters it has.
    fn parameters(&self) -> usize;
}

/// A student with its optimiser, its batch, and what it is held against.
struct Student {
    model: Model,
    objective: Objective,
    buffers: Buffers,
    batch: DeviceBatch,
    labels: Ids,
    teacher: View,
    counts: Counts,
    /// Where gradient and moments are; `None` where only the forward pass is timed.
    learning: Option<Learning>,
}

/// Gradient and moments.
struct Learning {
    learned: Learned,
    /// The words of the batch, each once.
    words: Vec<u32>,
    /// To which length the gradient is clipped; 0 leaves it unmeasured.
    largest_norm: f64,
}

impl Student {
    fn new(device: &mut dyn Device, shape: Shape, args: &BenchStepArgs) -> Result<Self, Failure> {
        let (batch, seq) = (args.batch, args.seq);
        let capacity = Capacity { tokens: batch * seq, sequences: batch, masked: 0 };
        let config = config(shape, args.dropout)?;
        let model = Model::new(device, config, Head::SingleLabel { labels: LABELS });
        model.init(device, SEED);
        let learning = (!args.infer).then(|| {
            let adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: WEIGHT_DECAY };
            let table = Some(model.word_embeddings());
            let learned = Learned::new(device, model.params().clone(), adam, table);
            let mut words = words(batch * seq);
            words.sort_unstable();
            words.dedup();
            Learning { learned, words, largest_norm: args.max_grad_norm }
        });
        let purpose = match (args.infer, args.activation_checkpointing) {
            (true, _) => BuffersFor::Infer,
            (false, false) => BuffersFor::Train(Taps::default()),
            (false, true) => BuffersFor::Recompute(Taps::default()),
        };
        let buffers = model.buffers(device, capacity, &purpose);
        let objective =
            Objective::new(device, terms(), &[false; 2], model.config(), None, capacity);
        let mut room = model.batch(device, capacity);
        upload(device, &mut room, batch, seq);
        let ids: IdSpace = device.alloc_ids(batch);
        let labels = Ids::at(ids, 0, batch);
        device.write_ids(labels, &classes(batch));
        let space = device.alloc(batch * LABELS);
        let teacher = View::matrix(space, 0, batch, LABELS);
        device.write(teacher, &teacher_logits(batch));
        let tokens = (batch * seq) as u64;
        let counts = Counts { labelled: batch as u64, sequences: batch as u64, tokens };
        Ok(Self { model, objective, buffers, batch: room, labels, teacher, counts, learning })
    }

    fn loss(&self, device: &mut dyn Device, output: View, d_output: Option<View>) -> f64 {
        let signals = Signals {
            output,
            d_output,
            labels: Labels::Classes(self.labels),
            labelled: self.counts.labelled,
            regularized: None,
            teacher: Some(TeacherSignals { logits: self.teacher, inside: None }),
            balance: None,
            inside: &self.buffers,
            batch: &self.batch,
        };
        let parts = self.objective.evaluate(device, &signals, self.counts, None);
        self.objective.total(&parts)
    }
}

impl Timeable for Student {
    fn parameters(&self) -> usize {
        self.model.params().count()
    }

    fn infer(&mut self, device: &mut dyn Device) -> f64 {
        let output = self.model.forward(device, &self.batch, &self.buffers, None);
        self.loss(device, output, None)
    }

    fn train(&mut self, device: &mut dyn Device, at: u64) -> f64 {
        let noise = Some(Noise { seed: SEED, step: at });
        let mut learning = self.learning.take().expect("a step that trains has its moments");
        let Learning { learned, words, largest_norm } = &mut learning;
        learned.see(device, words);
        let output = self.model.forward(device, &self.batch, &self.buffers, noise);
        let d_output = self.model.d_output(&self.buffers, output.rows());
        device.fill(d_output, 0.0);
        let loss = self.loss(device, output, Some(d_output));
        self.model.backward(device, &self.batch, &self.buffers, learned.grads, noise);
        let gradient_scale = if *largest_norm > 0.0 {
            let norm = learned.squares(device).sqrt();
            (*largest_norm / (norm + 1e-6)).min(1.0)
        } else {
            1.0
        };
        let at = Move { step: at + 1, learning_rate: LEARNING_RATE, gradient_scale };
        learned.step(device, at);
        self.learning = Some(learning);
        loss
    }
}

fn terms() -> Vec<Term> {
    let teacher = TeacherTerm {
        divergence: Divergence::ForwardKl,
        temperature: TEMPERATURE,
        scale_by_temperature_squared: true,
    };
    let label = TermKind::Label(LabelLoss::CrossEntropy);
    vec![
        Term { name: "label".to_owned(), weight: 1.0 - ALPHA, kind: label },
        Term { name: "teacher".to_owned(), weight: ALPHA, kind: TermKind::Teacher(teacher) },
    ]
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

/// The ids of `count` tokens.
fn words(count: usize) -> Vec<u32> {
    let words = f64::from(VOCABULARY - FIRST_WORD);
    random(Drawn::Ids, count).map(|number| FIRST_WORD + (words * number) as u32).collect()
}

/// The labels of `batch` sequences.
fn classes(batch: usize) -> Vec<u32> {
    random(Drawn::Labels, batch).map(|number| (LABELS as f64 * number) as u32).collect()
}

/// The teacher's logits of `batch` sequences.
fn teacher_logits(batch: usize) -> Vec<f32> {
    let logit = |number| (WIDEST_LOGIT * (2.0 * number - 1.0)) as f32;
    random(Drawn::Teacher, batch * LABELS).map(logit).collect()
}

/// Copies a batch of `sequences` sequences of `length` tokens in.
fn upload(device: &mut dyn Device, batch: &mut DeviceBatch, sequences: usize, length: usize) {
    let ids = words(sequences * length);
    let places = || (0..sequences as u32).flat_map(|s| (0..length as u32).map(move |at| (s, at)));
    let positions: Vec<u32> = places().map(|(_, at)| at).collect();
    let rows: Vec<u32> = places().map(|(sequence, at)| sequence << 16 | at).collect();
    let starts: Vec<u32> = (0..=sequences).map(|sequence| (sequence * length) as u32).collect();
    let types = vec![0; ids.len()];
    let inputs = Inputs {
        ids: &ids,
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
        let decoder = BenchStepArgs { model: BenchModel::GptSmallV16k, ..args(true) };
        let forward = 16.0 * (6.0 * 3_551_232.0 + 12_582_912.0);
        assert_eq!(operations(SHAPES[3], &decoder), forward);
    }

    #[test]
    fn what_cannot_be_timed_is_refused() {
        let rows = [
            (BenchStepArgs { steps: 0, ..args(true) }, "--steps is 0, expected at least 1"),
            (
                BenchStepArgs {
                    model: BenchModel::GptSmallV16k,
                    dump: Some("d".into()),
                    ..args(true)
                },
                "--dump writes encoders; gpt-small-v16k is timed here alone",
            ),
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
        ];
        for (args, want) in rows {
            assert_eq!(check(&args).unwrap_err(), Failure::usage(want));
        }
    }
}
