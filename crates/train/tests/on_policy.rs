//! A student that writes its own batches, from generation to the moved weights: its gradient, how a
//! step is cut, how it goes on after a stop, and that it comes nearer to its teacher.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::ops::Range;
use std::path::Path;

use heirloom_base::Bytes;
use heirloom_data::text::{NOT_LEARNT, Row};
use heirloom_engine::{Cpu, Device, Divergence, Ids, Reference, Space, View};
use heirloom_models::{
    Capacity, Decoder, DecoderBuffers, DecoderConfig, DeviceBatch, GenerateRoom, Generator, Inputs,
    Purpose, Taps,
};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, TeacherTerm, TeacherTokens, TokenCounts, TokenGradients, TokenLoss,
    TokenSignals, TokenTerm,
};
use heirloom_store::TensorFolder;
use heirloom_train::{OnPolicy, Replay, ReplayPlan, ReplayRatio, Source, add_written, prompts_of};

const CAPACITY: Capacity = Capacity { tokens: 120, sequences: 6, masked: 0 };
/// Words of the fixtures' models.
const WORDS: usize = 60;
/// Tokens that are written after a prompt.
const NEW: usize = 7;

/// A student, its teacher, and room for both.
struct Pair {
    student: Decoder,
    teacher: Decoder,
    generator: Generator,
    batches: [DeviceBatch; 2],
    buffers: [DecoderBuffers; 2],
    labels: Ids,
    weights: View,
    head: ChunkedHead,
    grads: Space,
}

fn open(device: &mut dyn Device, case: &str) -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(case);
    let model = Decoder::new(device, DecoderConfig::open(&folder).unwrap());
    assert_eq!(model.config().vocab_size, WORDS);
    model.load(device, &TensorFolder::open(&folder).unwrap(), &|name| name.to_owned()).unwrap();
    model
}

impl Pair {
    fn new(device: &mut dyn Device, divergence: Divergence) -> Self {
        let (student, teacher) = (open(device, "llama"), open(device, "qwen3"));
        let room = GenerateRoom { sequences: 6, prompt_tokens: 40, length: 20 };
        let generator = Generator::new(&student, device, room);
        let buffers = |device: &mut dyn Device, model: &Decoder, purpose| {
            DecoderBuffers::new(device, model.config(), CAPACITY, 0, &purpose)
        };
        let buffers = [
            buffers(device, &student, Purpose::Train(Taps::default())),
            buffers(device, &teacher, Purpose::Infer),
        ];
        let batches = [student.batch(device, CAPACITY), teacher.batch(device, CAPACITY)];
        let n = CAPACITY.tokens;
        let labels = Ids::at(device.alloc_ids(n), 0, n);
        let weights = View::matrix(device.alloc(n), 0, n, 1);
        let term = TeacherTerm { divergence, temperature: 1.0, scale_by_temperature_squared: true };
        let terms = vec![TokenTerm { weight: 1.0, loss: TokenLoss::Teacher(term) }];
        let plan = ChunkPlan {
            tokens: n,
            vocabulary: WORDS,
            computes_teacher: true,
            train: true,
            budget: Bytes(50 * 3 * 60 * 4),
        };
        let head = ChunkedHead::new(device, terms, plan);
        let grads = device.alloc(student.params().len());
        Self { student, teacher, generator, batches, buffers, labels, weights, head, grads }
    }

    /// What the student writes after the prompts at these places of a step.
    fn write(
        &mut self,
        device: &mut dyn Device,
        by: &OnPolicy,
        step: u64,
        prompts: &[Vec<u32>],
        places: Range<u32>,
    ) -> Row {
        let part = &prompts[places.start as usize..places.end as usize];
        let addresses: Vec<u64> = places.map(|place| OnPolicy::address(step, place)).collect();
        let ask = by.ask(vec![2], Some(WORDS));
        let texts = self.generator.generate(&self.student, device, part, &addresses, &ask);
        let mut row = Row::default();
        for (prompt, text) in part.iter().zip(&texts) {
            add_written(&mut row, prompt, &text.tokens);
        }
        row
    }

    /// The divergence at the row's marked tokens, over the counts of a whole step; gradients are
    /// added to where `learn`.
    fn judge(&mut self, device: &mut dyn Device, row: &Row, taught: u64, learn: bool) -> f64 {
        let n = row.ids.len();
        let positions: Vec<u32> =
            row.starts.windows(2).flat_map(|bounds| 0..bounds[1] - bounds[0]).collect();
        let inputs = Inputs {
            ids: &row.ids,
            types: &vec![0; n],
            positions: &positions,
            rows: &positions,
            starts: &row.starts,
            masked: &[],
        };
        self.batches.iter_mut().for_each(|batch| batch.upload(device, &inputs));
        let [batch, of_teacher] = &self.batches;
        let [buffers, teacher_buffers] = &self.buffers;
        let (labels, weights) = (self.labels.first(n), self.weights.first_rows(n));
        device.write_ids(labels, &vec![heirloom_engine::IGNORED; n]);
        let counts = |label: &u32| if *label == NOT_LEARNT { 0.0 } else { 1.0 };
        device.write_f64(weights, &row.labels.iter().map(counts).collect::<Vec<f64>>());
        let grads = self.grads;
        let signals = TokenSignals {
            states: self.student.forward_states(device, batch, buffers, None),
            head: self.student.head(),
            labels,
            teacher: Some(TeacherTokens::States {
                states: self.teacher.forward_states(device, of_teacher, teacher_buffers, None),
                head: self.teacher.head(),
            }),
            label_weights: None,
            teacher_weights: Some(weights),
            counts: TokenCounts { labelled: 0, taught: row.learnt() as u64 },
            gradients: learn.then(|| TokenGradients {
                d_states: self.student.d_states(buffers, n),
                d_head: Some(heirloom_engine::Params::twin(self.student.head(), grads)),
            }),
        };
        let step = TokenCounts { labelled: 0, taught };
        let parts = self.head.evaluate(device, &signals, step);
        if learn {
            self.student.backward_states(device, batch, buffers, grads, None);
        }
        parts.terms()[0].sum_of_parts()
    }

    /// Moves the weights against the gradient, and clears it.
    fn descend(&self, device: &mut dyn Device, rate: f64) {
        let params = self.student.params();
        device.add_scaled(-rate, params.flat(self.grads), params.flat(params.weights()));
        device.fill(params.flat(self.grads), 0.0);
    }

    fn weights(&self, device: &dyn Device) -> Vec<f64> {
        let params = self.student.params();
        device.read_f64(params.flat(params.weights()))
    }
}

fn prompts() -> Vec<Vec<u32>> {
    (0..6_u32).map(|at| (0..3 + at % 3).map(|k| 5 + (at * 11 + k * 7) % 55).collect()).collect()
}

fn on_policy(share: f64) -> OnPolicy {
    OnPolicy { share, new_tokens: NEW, temperature: 1.0, seed: 4 }
}

const JSD: Divergence = Divergence::JensenShannon { beta: 0.5 };

#[test]
fn the_gradient_is_that_of_the_judgement_of_texts_that_are_given() {
    for divergence in [JSD, Divergence::JensenShannon { beta: 0.1 }, Divergence::ReverseKl] {
        let mut device = Reference::<f64>::new();
        let mut pair = Pair::new(&mut device, divergence);
        let row = pair.write(&mut device, &on_policy(1.0), 3, &prompts(), 0..6);
        let taught = row.learnt() as u64;
        assert!(taught > 6, "the student wrote something");
        pair.judge(&mut device, &row, taught, true);
        let params = pair.student.params().clone();
        for param in params.index() {
            let view = params.view(param, params.weights());
            let at = param.len() / 3;
            let got = device.read_f64(params.view(param, pair.grads))[at];
            let before = device.read_f64(view);
            let mut loss = |by: f64| {
                let mut moved = before.clone();
                moved[at] += by;
                device.write_f64(view, &moved);
                pair.judge(&mut device, &row, taught, false) / taught as f64
            };
            let (up, down) = (loss(1e-5), loss(-1e-5));
            loss(0.0);
            let want = (up - down) / 2e-5;
            assert!((got - want).abs() < 1e-8, "{divergence:?} {}: {got}, not {want}", param.name);
        }
    }
}

#[test]
fn a_step_cut_into_micro_batches_writes_the_same_and_learns_the_same() {
    let mut device = Cpu::new(2);
    let mut pair = Pair::new(&mut device, JSD);
    let (by, prompts) = (on_policy(1.0), prompts());
    let whole = pair.write(&mut device, &by, 9, &prompts, 0..6);
    let taught = whole.learnt() as u64;
    let loss = pair.judge(&mut device, &whole, taught, true);
    let params = pair.student.params().clone();
    let want = device.read_f64(params.flat(pair.grads));
    device.fill(params.flat(pair.grads), 0.0);
    let (mut ids, mut sum) = (Vec::new(), 0.0);
    for places in [0..1, 1..4, 4..6] {
        let row = pair.write(&mut device, &by, 9, &prompts, places);
        ids.extend_from_slice(&row.ids);
        sum += pair.judge(&mut device, &row, taught, true);
    }
    assert_eq!(ids, whole.ids);
    assert!((sum - loss).abs() < 1e-5 * loss, "{sum}, not {loss}");
    let size = want.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
    for (got, want) in device.read_f64(params.flat(pair.grads)).iter().zip(&want) {
        assert!((got - want).abs() < 2e-5 * size, "{got}, not {want}");
    }
}

/// Rows as data would give them: the prompts with completions that nobody's model wrote.
fn data() -> Row {
    let mut row = Row::default();
    for (at, prompt) in (0_u32..).zip(prompts()) {
        add_written(&mut row, &prompt, &[6 + at, 20 + at, 2]);
    }
    row
}

/// Steps of a run with replay; what it has is its weights and its replay.
fn run(
    device: &mut dyn Device,
    pair: &mut Pair,
    replay: &mut Replay,
    steps: Range<u64>,
) -> Vec<Source> {
    const TOTAL: u64 = 24;
    let by = on_policy(1.0);
    let mut sources = Vec::new();
    for step in steps {
        let source = replay.source(step, TOTAL);
        sources.push(source);
        let given = data();
        let prompts: Vec<Vec<u32>> = prompts_of(&given).map(<[u32]>::to_vec).collect();
        if source == Source::Written {
            for place in 0..prompts.len() as u32 {
                replay.keep(pair.write(device, &by, step, &prompts, place..place + 1));
            }
        }
        let mut row = given;
        if source != Source::Data {
            row.clear();
            for text in replay.take(step, prompts.len()) {
                let prompt = prompts_of(text).next().map_or(&text.ids[..], |prompt| prompt);
                add_written(&mut row, prompt, &text.ids[prompt.len()..]);
            }
        }
        let taught = row.learnt() as u64;
        let loss = pair.judge(device, &row, taught, true) / taught as f64;
        pair.descend(device, 0.5);
        // A made-up held-out loss that rises now and then.
        replay.hear(loss + (step % 5) as f64);
    }
    sources
}

fn replay() -> Replay {
    let ratio = ReplayRatio::Constant;
    Replay::new(ReplayPlan { capacity: 12, first: 0.6, rise: 0.1, margin: 0.1, ratio, seed: 8 })
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_weights() {
    let mut device = Cpu::new(2);
    let mut pair = Pair::new(&mut device, JSD);
    let mut whole = replay();
    let sources = run(&mut device, &mut pair, &mut whole, 0..16);
    for source in [Source::Data, Source::Written, Source::Kept] {
        assert!(sources.contains(&source), "{source:?} in {sources:?}");
    }
    let want = pair.weights(&device);

    let mut device = Cpu::new(1);
    let mut pair = Pair::new(&mut device, JSD);
    let mut first = replay();
    run(&mut device, &mut pair, &mut first, 0..7);
    let (weights, state) = (pair.weights(&device), first.state());
    // Another process, with what a checkpoint holds.
    let mut device = Cpu::new(3);
    let mut pair = Pair::new(&mut device, JSD);
    let params = pair.student.params().clone();
    device.write_f64(params.flat(params.weights()), &weights);
    let plan = ReplayPlan {
        capacity: 12,
        first: 0.6,
        rise: 0.1,
        margin: 0.1,
        ratio: ReplayRatio::Constant,
        seed: 8,
    };
    let mut again = Replay::restore(plan, &state).unwrap();
    assert_eq!(run(&mut device, &mut pair, &mut again, 7..16), sources[7..]);
    assert!(pair.weights(&device) == want, "the same bits");
    assert_eq!(again, whole);
}

#[test]
fn a_student_that_hears_of_its_own_texts_comes_nearer_to_its_teacher() {
    for divergence in [JSD, Divergence::ReverseKl] {
        let mut device = Cpu::new(2);
        let mut pair = Pair::new(&mut device, divergence);
        let mut losses = Vec::new();
        for step in 0..40 {
            let row = pair.write(&mut device, &on_policy(1.0), step, &prompts(), 0..6);
            let taught = row.learnt() as u64;
            losses.push(pair.judge(&mut device, &row, taught, true) / taught as f64);
            pair.descend(&mut device, 0.5);
        }
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (before, after) = (mean(&losses[..5]), mean(&losses[35..]));
        assert!(after < 0.8 * before, "{divergence:?}: {before} became {after}");
    }
}

#[test]
fn a_student_that_is_its_teacher_has_nothing_to_learn_of_its_own_texts() {
    let mut device = Cpu::new(1);
    let mut pair = Pair::new(&mut device, JSD);
    pair.teacher = pair.student.clone();
    // The teacher's buffers are those of its shape.
    pair.batches[1] = pair.teacher.batch(&mut device, CAPACITY);
    pair.buffers[1] =
        DecoderBuffers::new(&mut device, pair.teacher.config(), CAPACITY, 0, &Purpose::Infer);
    let row = pair.write(&mut device, &on_policy(1.0), 0, &prompts(), 0..6);
    let loss = pair.judge(&mut device, &row, row.learnt() as u64, true);
    assert!(loss.abs() < 1e-9, "{loss}");
    let params = pair.student.params().clone();
    let largest =
        device.read_f64(params.flat(pair.grads)).into_iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    assert!(largest < 1e-6, "{largest}");
}
