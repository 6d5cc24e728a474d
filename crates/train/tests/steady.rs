//! The steady state of a step: its operations ask for no memory, and touch none that is new.
//!
//! What a step of the trainer asks for by design: the order of its examples, the ranges of its
//! micro-batches, the sums of the terms, and its record. How often it asks depends on the number of
//! micro-batches and of terms alone, and the bytes on nothing but the examples' numbers.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

#[expect(dead_code, reason = "the tests of the step use the rest")]
#[path = "steps/tiny.rs"]
mod tiny;

use std::path::Path;

use heirloom_engine::{
    AdamW, Cpu, Device, Divergence, HiddenDistance, Ids, RelationMeasure, Space, Span, View,
};
use heirloom_models::{
    Buffers, Capacity, DeviceBatch, EncoderConfig, Head, Inputs, Model, Noise, Purpose,
};
use heirloom_objective::{
    Counts, HiddenTerm, LabelLoss, Labels, Objective, RelationTerm, Rows, Side, Signals,
    TeacherSignals, TeacherTerm, Term, TermKind,
};
use heirloom_testkit::{Allocations, Counting, minor_faults};
use serde_json::json;
use tiny::{Task, job, single, trainer};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LABELS: usize = 3;
/// Steps before counting, and steps counted.
const WARM_UP: usize = 3;
const STEPS: usize = 50;

/// The lengths of a batch's sequences. The first batch is the largest in every respect.
const BATCHES: [&[usize]; 5] =
    [&[40, 24, 24, 24, 24, 24, 16], &[40], &[7, 1, 24], &[24; 7], &[1, 2, 3, 4, 5]];

fn config(width: usize, layers: usize) -> EncoderConfig {
    let json = json!({
        "model_type": "bert", "vocab_size": 300, "max_position_embeddings": 64,
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4,
        "intermediate_size": 4 * width, "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "classifier_dropout": 0.1,
    });
    EncoderConfig::from_map(Path::new("config.json"), json.as_object().unwrap().clone()).unwrap()
}

/// Terms of every kind.
fn terms() -> Vec<Term> {
    let hidden = |distance, rows| {
        TermKind::Hidden(HiddenTerm { distance, student: 1, teacher: 2, rows, projection: None })
    };
    let sides = (Side::Query, Side::Key);
    let relation = |heads, measure| {
        TermKind::Relation(RelationTerm { sides, student: 2, teacher: 2, heads, measure })
    };
    let soft = TeacherTerm {
        temperature: 2.0,
        scale_by_temperature_squared: true,
        divergence: Divergence::ForwardKl,
    };
    [
        TermKind::Label(LabelLoss::CrossEntropy),
        TermKind::Teacher(soft),
        TermKind::TeacherNumbers,
        hidden(HiddenDistance::MeanSquared, Rows::All),
        hidden(HiddenDistance::Cosine, Rows::First),
        relation(8, RelationMeasure::Kl),
        relation(4, RelationMeasure::ScoresMse),
    ]
    .map(|kind| Term { name: "term".to_owned(), weight: 0.5, kind })
    .to_vec()
}

/// Student, live teacher, objective and optimiser on one device.
struct Bench {
    device: Cpu,
    student: (Model, Buffers, DeviceBatch),
    teacher: (Model, Buffers, DeviceBatch),
    objective: Objective,
    labels: Ids,
    learned: Vec<([Space; 4], Vec<Span>)>,
}

impl Bench {
    fn new(threads: usize) -> Self {
        let mut device = Cpu::new(threads);
        let capacity = Capacity { tokens: 176, sequences: 7, masked: 0 };
        let head = Head::SingleLabel { labels: LABELS };
        let terms = terms();
        let mut model = |width, layers, purpose: &Purpose, seed| {
            let model = Model::new(&mut device, config(width, layers), head);
            model.init(&mut device, seed);
            let buffers = model.buffers(&mut device, capacity, purpose);
            let batch = model.batch(&mut device, capacity);
            (model, buffers, batch)
        };
        let student = model(64, 2, &Purpose::Train(Objective::taps(&terms)), 1);
        let teacher = model(96, 3, &Purpose::Inspect, 2);
        let projected = terms.iter().map(|term| matches!(term.kind, TermKind::Hidden(_)));
        let projected: Vec<bool> = projected.collect();
        let configs = (student.0.config().clone(), teacher.0.config().clone());
        let (ours, theirs) = (&configs.0, Some(&configs.1));
        let objective = Objective::new(&mut device, terms, &projected, ours, theirs, capacity);
        objective.params().init(&mut device, 3);
        let learned = [student.0.params(), objective.params()].map(|params| {
            let [grads, first, second] = [(); 3].map(|()| device.alloc(params.len()));
            ([params.weights(), grads, first, second], params.spans(0.01))
        });
        let labels = Ids::at(device.alloc_ids(capacity.sequences), 0, capacity.sequences);
        Self { device, student, teacher, objective, labels, learned: learned.into() }
    }

    /// One step; what everything but the objective asked for, and what the objective did.
    fn step(&mut self, inputs: &Inputs<'_>, step: u64) -> [Allocations; 2] {
        let Self { device, student, teacher, objective, labels, learned } = self;
        let (model, buffers, batch) = student;
        let (teacher_model, teacher_buffers, teacher_batch) = teacher;
        let (sequences, tokens) = (inputs.starts.len() - 1, inputs.ids.len());
        let noise = Some(Noise { seed: 7, step });
        let ((output, d_output, logits), forward) = Allocations::of(|| {
            batch.upload(device, inputs);
            teacher_batch.upload(device, inputs);
            device.write_ids(labels.first(sequences), &[2, 0, 1, 1, 2, 0, 1][..sequences]);
            let logits = teacher_model.forward(device, teacher_batch, teacher_buffers, None);
            let output = model.forward(device, batch, buffers, noise);
            let d_output: View = model.d_output(buffers, output.rows());
            device.fill(d_output, 0.0);
            buffers.clear_taps(device, tokens);
            (output, d_output, logits)
        });
        let signals = Signals {
            output,
            d_output: Some(d_output),
            labels: Labels::Classes(labels.first(sequences)),
            labelled: sequences as u64,
            regularized: None,
            teacher: Some(TeacherSignals { logits, inside: Some(teacher_buffers) }),
            balance: None,
            inside: buffers,
            batch,
        };
        let (sequences, tokens) = (sequences as u64, tokens as u64);
        let counts = Counts { labelled: sequences, sequences, tokens };
        let projections = learned[1].0[1];
        let (parts, judged) =
            Allocations::of(|| objective.evaluate(device, &signals, counts, Some(projections)));
        assert!(objective.total(&parts).is_finite());
        let ((), backward) = Allocations::of(|| {
            model.backward(device, batch, buffers, learned[0].0[1], noise);
            let squares: f64 = [model.params(), objective.params()]
                .iter()
                .zip(&*learned)
                .map(|(params, (spaces, _))| device.sum_of_squares(params.flat(spaces[1])))
                .sum();
            for (spaces, spans) in learned {
                device.adamw(&AdamW {
                    spaces: *spaces,
                    spans,
                    learning_rate: 1e-3,
                    beta1: 0.9,
                    beta2: 0.999,
                    epsilon: 1e-8,
                    step: step + 1,
                    gradient_scale: 1.0 / (squares.sqrt() + 1.0),
                });
            }
        });
        let calls = forward.calls + backward.calls;
        [Allocations { calls, bytes: forward.bytes + backward.bytes }, judged]
    }
}

/// A batch in the host's memory.
struct Host {
    ids: Vec<u32>,
    types: Vec<u32>,
    positions: Vec<u32>,
    rows: Vec<u32>,
    starts: Vec<u32>,
}

impl Host {
    fn new(lengths: &[usize]) -> Self {
        let places =
            || (0u32..).zip(lengths).flat_map(|(s, &n)| (0..n as u32).map(move |at| (s, at)));
        let mut starts = vec![0];
        lengths.iter().for_each(|&n| starts.push(starts[starts.len() - 1] + n as u32));
        Self {
            ids: places().map(|(s, at)| (31 * s + 17 * at) % 300).collect(),
            types: places().map(|(_, at)| at % 2).collect(),
            positions: places().map(|(_, at)| at).collect(),
            rows: places().map(|(s, at)| s << 16 | at).collect(),
            starts,
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            ids: &self.ids,
            types: &self.types,
            positions: &self.positions,
            rows: &self.rows,
            starts: &self.starts,
            masked: &[],
        }
    }
}

/// Steps through the batches in turn, after a warm-up with the largest. The operations ask for
/// nothing; each evaluation of the objective asks once, for its sums. New pages per step.
fn steady(threads: usize, batches: &[&[usize]]) -> f64 {
    let mut bench = Bench::new(threads);
    let hosts: Vec<Host> = batches.iter().map(|lengths| Host::new(lengths)).collect();
    for step in 0..WARM_UP {
        bench.step(&hosts[0].inputs(), step as u64);
    }
    let once = Allocations { calls: 2, bytes: 24 * terms().len() as u64 };
    let before = minor_faults();
    for step in WARM_UP..WARM_UP + STEPS {
        let host = &hosts[step % hosts.len()];
        let [operations, objective] = bench.step(&host.inputs(), step as u64);
        assert_eq!(operations, Allocations::default(), "step {step}, {threads} threads");
        assert_eq!(objective, once, "step {step}: the sums of the terms");
    }
    let faults = minor_faults().zip(before).map_or(0, |(after, before)| after - before);
    faults as f64 / STEPS as f64
}

/// Reading the counter and the kernel's own moods cost a page now and then; a buffer that were
/// touched anew in every step would cost one for each 4 KiB, here some hundreds.
const FEW_FAULTS: f64 = 2.0;

/// The counters are the process's, so there is one test only.
#[test]
fn a_steady_step_asks_for_no_memory_and_the_trainer_for_a_fixed_few() {
    for threads in [1, 2, 3] {
        for batches in [&BATCHES[..1], &BATCHES] {
            let faults = steady(threads, batches);
            assert!(faults <= FEW_FAULTS, "{faults} new pages per step with {threads} threads");
        }
    }
    the_trainer_asks_as_often_whatever_the_batch_and_the_model();
}

/// Calls of each step of the trainer, once two epochs are past.
fn calls_of_steps(task: Task, teacher: bool, batch: usize, layers: usize) -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["training.max_steps=60", &format!("training.batch_size={batch}")];
    let mut job = job(task, teacher, &sets, folder.path());
    job.student_config.layers = layers;
    let mut trainer = trainer(job, single);
    let (mut calls, mut largest) = (Vec::new(), 0);
    while !trainer.progress().finished {
        let cursor = trainer.progress().cursor;
        let (step, asked) = Allocations::of(|| trainer.step().unwrap());
        // The first step of an epoch also draws the epoch's order, and room for a product grows with
        // the largest batch, by how much is the processor's.
        if cursor.position > 0 && cursor.epoch >= 2 && step.tokens <= largest {
            calls.push(asked.calls);
        }
        largest = largest.max(step.tokens);
    }
    assert!(!calls.is_empty());
    calls
}

/// Of a step with one micro-batch: its examples, their ranges, two pairs of lists of sums, the record's
/// kind and its map, whose entries are sorted in a list first; and a name for each term.
const CALLS: u64 = 9;

fn the_trainer_asks_as_often_whatever_the_batch_and_the_model() {
    let (labelled, multi, regression) = (Task::Labelled, Task::MultiLabel, Task::Regression);
    for (task, teacher) in [(labelled, false), (labelled, true), (multi, true), (regression, true)]
    {
        let want = CALLS + 1 + u64::from(teacher);
        for (batch, layers) in [(2, 1), (2, 2), (8, 1), (8, 4)] {
            for calls in calls_of_steps(task, teacher, batch, layers) {
                assert_eq!(calls, want, "batches of {batch}, {layers} layers, {teacher}");
            }
        }
    }
}
