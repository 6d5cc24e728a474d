//! A language model's head in chunks against its dense twin, which is written here from the engine's
//! operations on whole matrices: losses, the gradient of the hidden states and that of the head; and
//! the laws that cutting must keep.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::path::Path;

use heirloom_base::Bytes;
use heirloom_engine::{
    Cpu, Device, Divergence, IGNORED, Ids, Linear, LinearBackward, Params, Reference, RowLoss,
    Target, View,
};
use heirloom_models::{Capacity, Decoder, DecoderBuffers, DecoderConfig, Inputs, Purpose, Taps};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, TeacherTerm, TeacherTokens, TokenCounts, TokenGradients, TokenLoss,
    TokenSignals, TokenTerm,
};

/// Farthest allowed of the largest number: the order of sums over chunks, in each precision.
const DOUBLE: f64 = 1e-10;
const SINGLE: f64 = 1e-5;

const FORWARD: Divergence = Divergence::ForwardKl;

/// A batch of tokens, of every kind of row: every third without a label, every fifth masked for the
/// teacher, and weights that differ.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    vocabulary: usize,
    width: usize,
    /// Rows of a chunk.
    chunk: usize,
    divergence: Divergence,
    temperature: f64,
    /// Whether the teacher is given by its logits, of which some are −∞.
    given: bool,
}

impl Case {
    fn new(rows: usize, vocabulary: usize, width: usize, chunk: usize) -> Self {
        let (divergence, temperature, given) = (FORWARD, 2.0, false);
        Self { rows, vocabulary, width, chunk, divergence, temperature, given }
    }

    fn plan(&self) -> ChunkPlan {
        let matrices = if self.given { 2 } else { 3 };
        ChunkPlan {
            tokens: self.rows,
            vocabulary: self.vocabulary,
            computes_teacher: !self.given,
            train: true,
            budget: Bytes((self.chunk * matrices * self.vocabulary * 4) as u64),
        }
    }

    fn terms(&self) -> Vec<TokenTerm> {
        vec![
            TokenTerm { weight: 0.3, loss: TokenLoss::Label },
            TokenTerm { weight: 0.7, loss: TokenLoss::Teacher(self.teacher()) },
        ]
    }

    fn teacher(&self) -> TeacherTerm {
        TeacherTerm {
            divergence: self.divergence,
            temperature: self.temperature,
            scale_by_temperature_squared: true,
        }
    }
}

/// Numbers spread over −1..1, the same on every machine.
fn spread(len: usize, seed: u64) -> Vec<f64> {
    let word = |at| heirloom_base::word(seed, heirloom_base::Purpose::Init, 9, at as u64);
    (0..len).map(|at| 2.0 * heirloom_base::uniform(word(at)) - 1.0).collect()
}

fn matrix(device: &mut dyn Device, rows: usize, cols: usize, values: &[f64]) -> View {
    let view = View::matrix(device.alloc(rows * cols), 0, rows, cols);
    device.write_f64(view, values);
    view
}

/// Everything of a case on a device; logits of a few nats.
fn signals(device: &mut dyn Device, case: &Case) -> TokenSignals {
    let Case { rows: n, vocabulary: v, width: c, .. } = *case;
    let drawn = |seed, len, size: f64| -> Vec<f64> {
        spread(len, seed).into_iter().map(|x| size * x).collect()
    };
    let states = matrix(device, n, c, &drawn(1, n * c, 2.0));
    let head = matrix(device, v, c, &drawn(2, v * c, 1.0));
    let teacher = if case.given {
        let mut logits = drawn(3, n * v, 5.0);
        // Every row keeps some that it allows.
        logits.iter_mut().skip(1).step_by(3).for_each(|logit| *logit = f64::NEG_INFINITY);
        TeacherTokens::Logits(matrix(device, n, v, &logits))
    } else {
        let (states, head) = (drawn(4, n * (c + 1), 2.0), drawn(5, v * (c + 1), 1.0));
        TeacherTokens::States {
            states: matrix(device, n, c + 1, &states),
            head: matrix(device, v, c + 1, &head),
        }
    };
    let label = |row: usize| if row % 3 == 2 { IGNORED } else { (row * 7919 % v) as u32 };
    let labels: Vec<u32> = (0..n).map(label).collect();
    let of_labels: Vec<f64> = (0..n).map(|row| 0.5 + (row % 4) as f64 / 4.0).collect();
    let masked = |row: usize| row % 5 == 3;
    let of_teacher: Vec<f64> =
        (0..n).map(|row| if masked(row) { 0.0 } else { 1.25 - (row % 3) as f64 / 4.0 }).collect();
    let ids = Ids::at(device.alloc_ids(n), 0, n);
    device.write_ids(ids, &labels);
    TokenSignals {
        states,
        head,
        labels: ids,
        teacher: Some(teacher),
        label_weights: Some(matrix(device, n, 1, &of_labels)),
        teacher_weights: Some(matrix(device, n, 1, &of_teacher)),
        counts: TokenCounts {
            labelled: labels.iter().filter(|&&label| label != IGNORED).count() as u64,
            taught: (0..n).filter(|&row| !masked(row)).count() as u64,
        },
        gradients: Some(TokenGradients {
            // What is written, not added to, may hold anything before.
            d_states: matrix(device, n, c, &vec![f64::NAN; n * c]),
            d_head: Some(matrix(device, v, c, &vec![0.0; v * c])),
        }),
    }
}

/// Loss, gradient of the states, gradient of the head.
struct Found {
    total: f64,
    d_states: Vec<f64>,
    d_head: Vec<f64>,
}

impl Found {
    fn read(device: &dyn Device, total: f64, signals: &TokenSignals) -> Self {
        let TokenGradients { d_states, d_head } = signals.gradients.unwrap();
        let (d_states, d_head) = (device.read_f64(d_states), device.read_f64(d_head.unwrap()));
        Self { total, d_states, d_head }
    }
}

fn chunked(device: &mut dyn Device, case: &Case) -> Found {
    let signals = signals(device, case);
    let head = ChunkedHead::new(device, case.terms(), case.plan());
    let parts = head.evaluate(device, &signals, signals.counts);
    Found::read(device, head.total(&parts), &signals)
}

/// The same from whole matrices.
fn dense(device: &mut dyn Device, case: &Case) -> Found {
    let Case { rows: n, vocabulary: v, temperature, divergence, .. } = *case;
    let signals = signals(device, case);
    let mut whole = || View::matrix(device.alloc(n * v), 0, n, v);
    let (z, dz) = (whole(), whole());
    device.linear(&Linear { x: signals.states, w: signals.head, b: None, y: z, activated: None });
    let logits = match signals.teacher.unwrap() {
        TeacherTokens::Logits(logits) => logits,
        TeacherTokens::States { states, head } => {
            let y = View::matrix(device.alloc(n * v), 0, n, v);
            device.linear(&Linear { x: states, w: head, b: None, y, activated: None });
            y
        }
        TeacherTokens::Known(_) => unreachable!("`sparse.rs` has these"),
    };
    let factor = match divergence {
        Divergence::MeanSquaredLogits { .. } => 1.0,
        _ => temperature * temperature,
    };
    let labels = Some(signals.labels);
    let targets = [
        (Target::Labels(signals.labels), 0.3, signals.counts.labelled, signals.label_weights),
        (
            Target::Teacher { logits, divergence, temperature, factor, labels },
            0.7,
            signals.counts.taught,
            signals.teacher_weights,
        ),
    ];
    let losses = View::matrix(device.alloc(n), 0, n, 1);
    let mut total = 0.0;
    for (target, weight, count, weights) in targets {
        let scale = if count == 0 { 0.0 } else { weight / count as f64 };
        device.row_loss(&RowLoss { x: z, target, scale, weights, losses, dx: Some(dz) });
        let pairs = device.read_f64(losses).into_iter().zip(device.read_f64(weights.unwrap()));
        let sum: f64 = pairs.filter(|pair| pair.1 != 0.0).map(|(loss, weight)| loss * weight).sum();
        total += scale * sum;
    }
    let TokenGradients { d_states, d_head } = signals.gradients.unwrap();
    device.linear_backward(&LinearBackward {
        x: signals.states,
        w: signals.head,
        dy: dz,
        dx: Some(d_states),
        add_to_dx: false,
        through: None,
        dw: d_head,
        db: None,
    });
    Found::read(device, total, &signals)
}

#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let size = want.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
    assert!(size.is_finite(), "{what}: not finite");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (got - want).abs();
        assert!(off <= bound * size, "{what}[{at}]: {got} is not {want}; {off:e}, size {size}");
    }
}

#[track_caller]
fn same(case: &Case, got: &Found, want: &Found, bound: f64) {
    close(&format!("{case:?}: loss"), &[got.total], &[want.total], bound);
    close(&format!("{case:?}: states"), &got.d_states, &want.d_states, bound);
    close(&format!("{case:?}: head"), &got.d_head, &want.d_head, bound);
}

#[track_caller]
fn agrees_in_double(case: Case) {
    let device = || Reference::<f64>::new();
    same(&case, &chunked(&mut device(), &case), &dense(&mut device(), &case), DOUBLE);
}

#[track_caller]
fn agrees_in_single(case: Case) {
    same(&case, &chunked(&mut Cpu::new(2), &case), &dense(&mut Cpu::new(2), &case), SINGLE);
}

const EVERY: [Divergence; 10] = [
    FORWARD,
    Divergence::ReverseKl,
    Divergence::Symmetric,
    Divergence::JensenShannon { beta: 0.3 },
    Divergence::SkewKl { alpha: 0.1 },
    Divergence::SkewReverseKl { alpha: 0.1 },
    Divergence::AlphaBeta { alpha: 0.4, beta: 0.7 },
    Divergence::TotalVariation,
    Divergence::Decoupled { alpha: 1.0, beta: 4.0 },
    Divergence::MeanSquaredLogits { centred: true },
];

#[test]
fn every_divergence_is_that_of_the_dense_head_whatever_the_teacher_comes_from() {
    for divergence in EVERY {
        for given in [false, true] {
            let case = Case { divergence, given, ..Case::new(23, 64, 5, 4) };
            agrees_in_double(case);
            agrees_in_single(case);
        }
    }
}

#[test]
fn temperatures_and_numbers_of_rows_change_nothing_about_it() {
    for (rows, chunk) in [(1, 1), (2, 1), (7, 7), (42, 41), (43, 42), (97, 42), (300, 84)] {
        for (temperature, given) in [(0.5, true), (1.0, false), (8.0, true)] {
            let case = Case { temperature, given, ..Case::new(rows, 512, 8, chunk) };
            agrees_in_single(case);
            if rows <= 43 || temperature == 1.0 {
                agrees_in_double(case);
            }
        }
    }
}

#[test]
fn vocabularies_of_real_models_agree_too() {
    agrees_in_double(Case::new(5, 32_000, 4, 2));
    agrees_in_double(Case { temperature: 0.5, given: true, ..Case::new(4, 32_000, 4, 1) });
    agrees_in_double(Case::new(3, 152_064, 3, 1));
    agrees_in_single(Case { temperature: 8.0, ..Case::new(300, 32_000, 8, 42) });
    agrees_in_single(Case { given: true, ..Case::new(50, 32_000, 8, 42) });
    agrees_in_single(Case::new(7, 152_064, 4, 2));
    agrees_in_single(Case::new(8192, 512, 4, 462));
}

#[test]
fn what_fits_the_budget_is_the_dense_head_to_the_bit() {
    let case = Case { chunk: 60, ..Case::new(60, 512, 16, 0) };
    let (got, want) = (chunked(&mut Cpu::new(2), &case), dense(&mut Cpu::new(2), &case));
    assert_eq!((got.d_states, got.d_head), (want.d_states, want.d_head));
}

#[test]
fn the_fast_device_in_chunks_agrees_with_the_slow_one_without() {
    for temperature in [0.5, 2.0, 8.0] {
        for given in [false, true] {
            let case = Case { temperature, given, ..Case::new(61, 512, 16, 9) };
            let slow = dense(&mut Reference::<f64>::new(), &case);
            same(&case, &chunked(&mut Cpu::new(2), &case), &slow, SINGLE);
        }
    }
}

#[test]
fn gradients_are_those_of_the_total_by_finite_differences() {
    // Its square times a third derivative of size 10, and the rounding of a loss of size 1 over it,
    // are both below 1e-9.
    let step = 1e-5;
    for divergence in EVERY {
        let case = Case { divergence, ..Case::new(5, 7, 3, 2) };
        let mut device = Reference::<f64>::new();
        let signals = signals(&mut device, &case);
        let head = ChunkedHead::new(&mut device, case.terms(), case.plan());
        head.evaluate(&mut device, &signals, signals.counts);
        let found = Found::read(&device, 0.0, &signals);
        let plain = TokenSignals { gradients: None, ..signals };
        for (view, gradient) in [(signals.states, found.d_states), (signals.head, found.d_head)] {
            let before = device.read_f64(view);
            for (at, got) in gradient.into_iter().enumerate() {
                let mut total = |by: f64| {
                    let mut moved = before.clone();
                    moved[at] += by;
                    device.write_f64(view, &moved);
                    head.total(&head.evaluate(&mut device, &plain, signals.counts))
                };
                let want = (total(step) - total(-step)) / (2.0 * step);
                let near = (got - want).abs() <= 1e-7 * want.abs().max(1.0);
                assert!(near, "{divergence:?}: [{at}] is {got}, should be {want}");
            }
            device.write_f64(view, &before);
        }
    }
}

/// The rows of `range`, as a micro-batch of their own.
fn part(
    whole: &TokenSignals,
    labels: &[u32],
    weights: &[f64],
    range: std::ops::Range<usize>,
) -> TokenSignals {
    let rows = |view: View| view.row_range(range.clone());
    let gradients = whole.gradients.unwrap();
    TokenSignals {
        states: rows(whole.states),
        labels: whole.labels.range(range.clone()),
        teacher: whole.teacher.map(|teacher| match teacher {
            TeacherTokens::Logits(logits) => TeacherTokens::Logits(rows(logits)),
            TeacherTokens::States { states, head } => {
                TeacherTokens::States { states: rows(states), head }
            }
            TeacherTokens::Known(_) => unreachable!("`sparse.rs` cuts these"),
        }),
        label_weights: whole.label_weights.map(rows),
        teacher_weights: whole.teacher_weights.map(rows),
        counts: TokenCounts {
            labelled: labels[range.clone()].iter().filter(|&&label| label != IGNORED).count()
                as u64,
            taught: weights[range.clone()].iter().filter(|&&weight| weight != 0.0).count() as u64,
        },
        gradients: Some(TokenGradients { d_states: rows(gradients.d_states), ..gradients }),
        ..*whole
    }
}

#[test]
fn micro_batches_come_to_what_the_step_does() {
    for given in [false, true] {
        let case = Case { given, ..Case::new(40, 31, 6, 9) };
        let mut device = Reference::<f64>::new();
        let want = chunked(&mut Reference::<f64>::new(), &case);
        let whole = signals(&mut device, &case);
        let labels: Vec<u32> = (0..40).map(|row| if row % 3 == 2 { IGNORED } else { 0 }).collect();
        let weights = device.read_f64(whole.teacher_weights.unwrap());
        let head = ChunkedHead::new(&mut device, case.terms(), case.plan());
        let mut parts = heirloom_objective::Parts::default();
        for range in [0..1, 1..20, 20..23, 23..40] {
            let here = part(&whole, &labels, &weights, range);
            parts.add(&head.evaluate(&mut device, &here, whole.counts));
        }
        let counts = parts.terms().iter().map(|nats| nats.count());
        assert!(counts.eq([whole.counts.labelled, whole.counts.taught]));
        same(&case, &Found::read(&device, head.total(&parts), &whole), &want, DOUBLE);
    }
}

#[test]
fn a_step_that_counts_nothing_has_loss_zero_and_gradient_zero() {
    let case = Case::new(6, 11, 3, 4);
    let mut device = Cpu::new(1);
    let signals = signals(&mut device, &case);
    device.write_ids(signals.labels, &[IGNORED; 6]);
    device.fill(signals.teacher_weights.unwrap(), 0.0);
    let signals = TokenSignals { counts: TokenCounts::default(), ..signals };
    let head = ChunkedHead::new(&mut device, case.terms(), case.plan());
    let parts = head.evaluate(&mut device, &signals, signals.counts);
    let found = Found::read(&device, head.total(&parts), &signals);
    assert_eq!(found.total, 0.0);
    assert!(found.d_states.iter().chain(&found.d_head).all(|&d| d == 0.0));
}

#[test]
fn a_masked_row_takes_no_part_even_where_its_teacher_is_not_finite() {
    let case = Case { given: true, ..Case::new(8, 11, 3, 3) };
    for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(1)] {
        let want = chunked(device, &case);
        let signals = signals(device, &case);
        let Some(TeacherTokens::Logits(logits)) = signals.teacher else { unreachable!() };
        device.fill(logits.row_range(3..4), f32::NAN);
        let head = ChunkedHead::new(device, case.terms(), case.plan());
        let parts = head.evaluate(device, &signals, signals.counts);
        assert!(parts.terms()[1].mean().unwrap().is_finite());
        let got = Found::read(device, head.total(&parts), &signals);
        same(&case, &got, &want, 0.0);
    }
}

#[test]
fn memory_grows_with_the_tokens_by_their_losses_alone() {
    let taken = |tokens: usize, chunk: usize| {
        let case = Case { rows: tokens, ..Case::new(0, 32_000, 0, chunk) };
        let mut device = Cpu::new(1);
        let before = device.bytes();
        ChunkedHead::new(&mut device, case.terms(), case.plan());
        let taken = device.bytes() - before;
        assert_eq!(Bytes(taken), case.plan().bytes_needed(2), "{tokens} tokens");
        taken
    };
    let of_a_chunk = 3 * 42 * 32_000 * 4;
    for tokens in [49, 304, 8192, 1 << 20] {
        // A loss of each of two terms, 4 bytes each; slots end at lines of 64 bytes.
        let losses = (2 * tokens as u64 * 4).next_multiple_of(64);
        assert_eq!(taken(tokens, 42), of_a_chunk + losses, "{tokens} tokens");
    }
    // What fits is one chunk, as dense as ever.
    assert_eq!(taken(16, 42), 3 * 16 * 32_000 * 4 + 2 * 16 * 4);
}

#[test]
fn a_decoder_with_tied_embeddings_has_the_gradient_of_the_dense_way() {
    for (folder, tied) in [("llama3-tied", true), ("gpt2-untied", false)] {
        let fast = decoder_gradients(&mut Cpu::new(2), folder, tied, SINGLE);
        let slow = decoder_gradients(&mut Reference::<f64>::new(), folder, tied, DOUBLE);
        close(folder, &fast, &slow, 2e-5);
    }
}

/// The gradient of all parameters in chunks, after it was found to be that of the dense head.
fn decoder_gradients(device: &mut dyn Device, folder: &str, tied: bool, bound: f64) -> Vec<f64> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(folder);
    let model = Decoder::new(device, DecoderConfig::open(&folder).unwrap());
    assert_eq!(model.config().tied, tied);
    model.init(device, 3);
    let (n, v) = (11, model.config().vocab_size);
    let capacity = Capacity { tokens: n, sequences: 2, masked: 0 };
    let ids: Vec<u32> = (0..n as u32).map(|at| at * 5 % v as u32).collect();
    let positions = [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6];
    let mut batch = model.batch(device, capacity);
    let inputs = Inputs {
        ids: &ids,
        types: &[0; 11],
        positions: &positions,
        rows: &positions,
        starts: &[0, 4, 11],
        masked: &[],
    };
    batch.upload(device, &inputs);
    let mut following: Vec<u32> = ids[1..].iter().copied().chain([IGNORED]).collect();
    following[3] = IGNORED;
    let labels = Ids::at(device.alloc_ids(n), 0, n);
    device.write_ids(labels, &following);

    let purpose = Purpose::Train(Taps::default());
    let buffers = model.buffers(device, capacity, &purpose);
    let x = model.forward(device, &batch, &buffers, None);
    let dx = model.d_logits(&buffers, n);
    device.fill(dx, 0.0);
    let losses = View::matrix(device.alloc(n), 0, n, 1);
    let (target, scale) = (Target::Labels(labels), 1.0 / 9.0);
    device.row_loss(&RowLoss { x, target, scale, weights: None, losses, dx: Some(dx) });
    let dense = device.alloc(model.params().len());
    model.backward(device, &batch, &buffers, dense, None);
    let dense = device.read_f64(model.params().flat(dense));

    // No room for logits.
    let buffers = DecoderBuffers::new(device, model.config(), capacity, 0, &purpose);
    let plan = ChunkPlan {
        tokens: n,
        vocabulary: v,
        computes_teacher: false,
        train: true,
        budget: Bytes((4 * 2 * v * 4) as u64),
    };
    assert_eq!(plan.rows(), 4);
    let terms = vec![TokenTerm { weight: 1.0, loss: TokenLoss::Label }];
    let head = ChunkedHead::new(device, terms, plan);
    let grads = device.alloc(model.params().len());
    let counts = TokenCounts { labelled: 9, taught: 0 };
    let signals = TokenSignals {
        states: model.forward_states(device, &batch, &buffers, None),
        head: model.head(),
        labels,
        teacher: None,
        label_weights: None,
        teacher_weights: None,
        counts,
        gradients: Some(TokenGradients {
            d_states: model.d_states(&buffers, n),
            d_head: Some(Params::twin(model.head(), grads)),
        }),
    };
    let parts = head.evaluate(device, &signals, counts);
    close("loss", &[head.total(&parts)], &[device.sum(losses) * scale], bound);
    model.backward_states(device, &batch, &buffers, grads, None);
    let found = device.read_f64(model.params().flat(grads));
    close("parameters", &found, &dense, bound);
    found
}

#[test]
#[should_panic(expected = "6 tokens, planned for 5")]
fn more_tokens_than_planned_are_refused() {
    let case = Case::new(6, 11, 3, 4);
    let mut device = Cpu::new(1);
    let signals = signals(&mut device, &case);
    let plan = ChunkPlan { tokens: 5, ..case.plan() };
    let head = ChunkedHead::new(&mut device, case.terms(), plan);
    head.evaluate(&mut device, &signals, signals.counts);
}

#[test]
#[should_panic(expected = "rows of the teacher's head")]
fn a_teacher_of_another_vocabulary_is_refused() {
    let case = Case::new(6, 11, 3, 4);
    let mut device = Cpu::new(1);
    let mut signals = signals(&mut device, &case);
    let Some(TeacherTokens::States { head, .. }) = &mut signals.teacher else { unreachable!() };
    *head = head.first_rows(10);
    let head = ChunkedHead::new(&mut device, case.terms(), case.plan());
    head.evaluate(&mut device, &signals, signals.counts);
}

#[test]
#[should_panic(expected = "a term compares with a teacher")]
fn a_term_without_its_teacher_is_refused() {
    let case = Case::new(6, 11, 3, 4);
    let mut device = Cpu::new(1);
    let signals = TokenSignals { teacher: None, ..signals(&mut device, &case) };
    let head = ChunkedHead::new(&mut device, case.terms(), case.plan());
    head.evaluate(&mut device, &signals, signals.counts);
}

#[test]
#[should_panic(expected = "the plan is for losses without gradients")]
fn a_gradient_that_was_not_planned_is_refused() {
    let case = Case::new(6, 11, 3, 4);
    let mut device = Cpu::new(1);
    let signals = signals(&mut device, &case);
    let plan = ChunkPlan { train: false, ..case.plan() };
    let head = ChunkedHead::new(&mut device, case.terms(), plan);
    head.evaluate(&mut device, &signals, signals.counts);
}
