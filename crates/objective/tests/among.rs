//! Several teachers at once: a head in chunks against its dense twins, one written here from the
//! engine's operations on whole matrices, the other [`DenseLosses`]; and the laws of a mixture.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use heirloom_base::{Bytes, Purpose, uniform, word};
use heirloom_engine::{
    Cpu, Device, Divergence, IGNORED, Ids, Linear, LinearBackward, Missing, Reference, RowLoss,
    SparseLoss, SparseTarget, Target, View,
};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, DenseLosses, DenseSignals, KnownTokens, Parts, SparseTerm, TeacherTerm,
    TeacherTokens, TokenCounts, TokenGradients, TokenLoss, TokenSignals, TokenTerm,
};

const ROWS: usize = 47;
const VOCABULARY: usize = 61;
const WIDTH: usize = 5;
/// Tokens of a kept answer.
const KNOWN: usize = 7;

/// Farthest allowed of the largest number: the order of sums over chunks, in each precision.
const DOUBLE: f64 = 1e-10;
const SINGLE: f64 = 1e-5;

/// Where a teacher's answers come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// Its hidden states, so wide, and its head.
    States(usize),
    /// Its logits, of which some are −∞.
    Logits,
    /// Some tokens of each answer.
    Kept,
}

/// A teacher and the term that hears it.
#[derive(Clone, Copy, Debug)]
struct Teacher {
    from: From,
    divergence: Divergence,
    temperature: f64,
    weight: f64,
}

const LIVE: Teacher = Teacher {
    from: From::States(6),
    divergence: Divergence::ForwardKl,
    temperature: 2.0,
    weight: 0.4,
};
const NARROW: Teacher = Teacher { from: From::States(3), weight: 0.25, temperature: 1.0, ..LIVE };
const GIVEN: Teacher = Teacher {
    from: From::Logits,
    divergence: Divergence::ReverseKl,
    temperature: 0.5,
    weight: 0.3,
};
const KEPT: Teacher = Teacher { from: From::Kept, temperature: 4.0, weight: 0.2, ..LIVE };
const OTHER_KEPT: Teacher = Teacher { temperature: 1.5, weight: 0.35, ..KEPT };

/// Every kind of mixture, of two and of three.
const MIXTURES: [&[Teacher]; 7] = [
    &[LIVE, NARROW],
    &[LIVE, GIVEN],
    &[KEPT, LIVE],
    &[KEPT, OTHER_KEPT],
    &[LIVE, KEPT, NARROW],
    &[KEPT, GIVEN, OTHER_KEPT],
    &[NARROW, LIVE, GIVEN],
];

/// Which rows have a label, and which are heard.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mask {
    All,
    /// Every third has no label, every fifth hears no teacher, and weights differ.
    Some,
}

fn spread(len: usize, seed: u64, size: f64) -> Vec<f64> {
    let number = |at| uniform(word(seed, Purpose::Init, 9, at as u64));
    (0..len).map(|at| size * (2.0 * number(at) - 1.0)).collect()
}

fn matrix(device: &mut dyn Device, rows: usize, cols: usize, values: &[f64]) -> View {
    let view = View::matrix(device.alloc(rows * cols), 0, rows, cols);
    device.write_f64(view, values);
    view
}

/// The likeliest tokens of drawn logits, at this temperature.
fn kept(device: &mut dyn Device, seed: u64, temperature: f64) -> KnownTokens {
    let (n, v, k) = (ROWS, VOCABULARY, KNOWN);
    let (mut ids, mut p, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for logits in spread(n * v, seed, 4.0).chunks(v) {
        let parts: Vec<f64> = logits.iter().map(|x| (x / temperature).exp()).collect();
        let total: f64 = parts.iter().sum();
        let mut known: Vec<usize> = (0..v).collect();
        known.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        known.truncate(k);
        known.sort_unstable();
        ids.extend(known.iter().map(|&id| id as u32));
        p.extend(known.iter().map(|&id| parts[id] / total));
        rest.push(1.0 - known.iter().map(|&id| parts[id] / total).sum::<f64>());
    }
    let known = KnownTokens {
        ids: Ids::at(device.alloc_ids(n * k), 0, n * k),
        probabilities: matrix(device, n, k, &p),
        rest: matrix(device, n, 1, &rest),
    };
    device.write_ids(known.ids, &ids);
    known
}

fn tokens(device: &mut dyn Device, at: usize, teacher: Teacher) -> TeacherTokens {
    let (n, v, seed) = (ROWS, VOCABULARY, 100 * (1 + at as u64));
    match teacher.from {
        From::States(width) => TeacherTokens::States {
            states: matrix(device, n, width, &spread(n * width, seed, 2.0)),
            head: matrix(device, v, width, &spread(v * width, seed + 1, 1.0)),
        },
        From::Logits => {
            let mut logits = spread(n * v, seed, 5.0);
            logits.iter_mut().skip(1).step_by(3).for_each(|logit| *logit = f64::NEG_INFINITY);
            TeacherTokens::Logits(matrix(device, n, v, &logits))
        }
        From::Kept => TeacherTokens::Known(kept(device, seed, teacher.temperature)),
    }
}

/// The label's term, then each teacher's.
fn terms(teachers: &[Teacher]) -> Vec<(TokenTerm, usize)> {
    let label = (TokenTerm { weight: 0.15, loss: TokenLoss::Label }, 0);
    let each = teachers.iter().enumerate().map(|(at, teacher)| {
        let Teacher { from, divergence, temperature, weight } = *teacher;
        let loss = if from == From::Kept {
            TokenLoss::Known(SparseTerm {
                loss: SparseLoss::Divergence(divergence),
                missing: Missing::TailBucket,
                temperature,
                scale_by_temperature_squared: true,
            })
        } else {
            TokenLoss::Teacher(TeacherTerm {
                divergence,
                temperature,
                scale_by_temperature_squared: true,
            })
        };
        (TokenTerm { weight, loss }, at)
    });
    std::iter::once(label).chain(each).collect()
}

fn plan(teachers: &[Teacher], chunk: usize) -> ChunkPlan {
    let computes = teachers.iter().any(|teacher| matches!(teacher.from, From::States(_)));
    let matrices = 2 + usize::from(computes);
    ChunkPlan {
        tokens: ROWS,
        vocabulary: VOCABULARY,
        computes_teacher: computes,
        train: true,
        budget: Bytes((chunk * matrices * VOCABULARY * 4) as u64),
    }
}

fn signals(device: &mut dyn Device, mask: Mask) -> TokenSignals {
    let (n, v, c) = (ROWS, VOCABULARY, WIDTH);
    let labelled = |row: usize| mask == Mask::All || row % 3 != 2;
    let taught = |row: usize| mask == Mask::All || row % 5 != 3;
    let labels = Ids::at(device.alloc_ids(n), 0, n);
    let label = |row: usize| if labelled(row) { (row * 7919 % v) as u32 } else { IGNORED };
    device.write_ids(labels, &(0..n).map(label).collect::<Vec<_>>());
    let weight = |row: usize| if taught(row) { 1.25 - (row % 3) as f64 / 4.0 } else { 0.0 };
    let weights: Vec<f64> = (0..n).map(weight).collect();
    TokenSignals {
        states: matrix(device, n, c, &spread(n * c, 1, 2.0)),
        head: matrix(device, v, c, &spread(v * c, 2, 1.0)),
        labels,
        teacher: None,
        label_weights: None,
        teacher_weights: (mask == Mask::Some).then(|| matrix(device, n, 1, &weights)),
        counts: TokenCounts {
            labelled: (0..n).filter(|&row| labelled(row)).count() as u64,
            taught: (0..n).filter(|&row| taught(row)).count() as u64,
        },
        gradients: Some(TokenGradients {
            // What is written, not added to, may hold anything before.
            d_states: matrix(device, n, c, &vec![f64::NAN; n * c]),
            d_head: Some(matrix(device, v, c, &vec![0.0; v * c])),
        }),
    }
}

/// Each term's mean, the total, gradients of states and head.
#[derive(Debug, PartialEq)]
struct Found {
    means: Vec<f64>,
    total: f64,
    d_states: Vec<f64>,
    d_head: Vec<f64>,
}

impl Found {
    fn read(device: &dyn Device, parts: &Parts, total: f64, signals: &TokenSignals) -> Self {
        let TokenGradients { d_states, d_head } = signals.gradients.unwrap();
        Self {
            means: parts.terms().iter().map(|nats| nats.mean().unwrap()).collect(),
            total,
            d_states: device.read_f64(d_states),
            d_head: device.read_f64(d_head.unwrap()),
        }
    }

    #[track_caller]
    fn is_near(&self, want: &Self, bound: f64, what: &str) {
        near(&format!("{what}: total"), &[self.total], &[want.total], bound);
        near(&format!("{what}: states"), &self.d_states, &want.d_states, bound);
        near(&format!("{what}: head"), &self.d_head, &want.d_head, bound);
    }
}

#[track_caller]
fn near(what: &str, got: &[f64], want: &[f64], bound: f64) {
    let size = want.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
    assert!(size.is_finite() && size > 0.0 && got.len() == want.len(), "{what}: {size}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (got - want).abs();
        assert!(off <= bound * size, "{what}[{at}]: {got} is not {want}; {off:e}, size {size}");
    }
}

fn all(device: &mut dyn Device, teachers: &[Teacher]) -> Vec<Option<TeacherTokens>> {
    let each = teachers.iter().enumerate();
    each.map(|(at, teacher)| Some(tokens(device, at, *teacher))).collect()
}

fn chunked(device: &mut dyn Device, teachers: &[Teacher], mask: Mask, chunk: usize) -> Found {
    let signals = signals(device, mask);
    let answers = all(device, teachers);
    let head = ChunkedHead::among(device, &terms(teachers), plan(teachers, chunk));
    let parts = head.evaluate_among(device, &signals, &answers, signals.counts);
    Found::read(device, &parts, head.total(&parts), &signals)
}

/// The logits of whole matrices.
fn product(device: &mut dyn Device, x: View, w: View) -> View {
    let y = View::matrix(device.alloc(ROWS * VOCABULARY), 0, ROWS, VOCABULARY);
    device.linear(&Linear { x, w, b: None, y, activated: None });
    y
}

fn backward(device: &mut dyn Device, signals: &TokenSignals, dz: View) {
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
}

/// The same from the engine's operations on whole matrices, with the masks and weights of rows.
fn whole(device: &mut dyn Device, teachers: &[Teacher], mask: Mask) -> Found {
    let signals = signals(device, mask);
    let answers = all(device, teachers);
    let z = product(device, signals.states, signals.head);
    let dz = View::matrix(device.alloc(ROWS * VOCABULARY), 0, ROWS, VOCABULARY);
    let losses = View::matrix(device.alloc(ROWS), 0, ROWS, 1);
    let mut total = 0.0;
    let mut add = |device: &mut dyn Device, target, weight: f64, count: u64, weights| {
        let scale = weight / count as f64;
        device.row_loss(&RowLoss { x: z, target, scale, weights, losses, dx: Some(dz) });
        let of_rows = match weights {
            None => vec![1.0; ROWS],
            Some(weights) => device.read_f64(weights),
        };
        let pairs = device.read_f64(losses).into_iter().zip(of_rows);
        total += scale * pairs.filter(|(_, w)| *w != 0.0).map(|(l, w)| l * w).sum::<f64>();
    };
    let labels = signals.labels;
    add(device, Target::Labels(labels), 0.15, signals.counts.labelled, None);
    for (teacher, answer) in teachers.iter().zip(answers) {
        let Teacher { divergence, temperature, weight, .. } = *teacher;
        let factor = temperature * temperature;
        let logits = match answer.unwrap() {
            TeacherTokens::Logits(logits) => Some(logits),
            TeacherTokens::States { states, head } => Some(product(device, states, head)),
            TeacherTokens::Known(_) => None,
        };
        let target = match (logits, answer.unwrap()) {
            (Some(logits), _) => {
                Target::Teacher { logits, divergence, temperature, factor, labels: Some(labels) }
            }
            (None, TeacherTokens::Known(KnownTokens { ids, probabilities, rest })) => {
                let (loss, missing) = (SparseLoss::Divergence(divergence), Missing::TailBucket);
                Target::Sparse(SparseTarget {
                    ids,
                    probabilities,
                    rest,
                    loss,
                    missing,
                    temperature,
                    factor,
                })
            }
            _ => unreachable!("what is not kept has logits"),
        };
        add(device, target, weight, signals.counts.taught, signals.teacher_weights);
    }
    backward(device, &signals, dz);
    Found::read(device, &Parts::default(), total, &signals)
}

/// The same by [`DenseLosses`], which knows neither hidden states nor masks.
fn dense(device: &mut dyn Device, teachers: &[Teacher]) -> Found {
    let signals = signals(device, Mask::All);
    let answers: Vec<_> = all(device, teachers)
        .into_iter()
        .map(|answer| match answer {
            Some(TeacherTokens::States { states, head }) => {
                Some(TeacherTokens::Logits(product(device, states, head)))
            }
            other => other,
        })
        .collect();
    let logits = product(device, signals.states, signals.head);
    let dz = View::matrix(device.alloc(ROWS * VOCABULARY), 0, ROWS, VOCABULARY);
    let dense = DenseSignals { logits, labels: signals.labels, teacher: None, d_logits: Some(dz) };
    let mut losses = DenseLosses::new(device, 1 + teachers.len(), ROWS);
    losses.set_terms_among(&terms(teachers));
    let parts = losses.evaluate_among(device, &dense, &answers, signals.counts);
    backward(device, &signals, dz);
    Found::read(device, &parts, losses.total(&parts), &signals)
}

#[test]
fn a_mixture_in_chunks_is_that_of_whole_matrices_with_every_mask_and_in_both_precisions() {
    for teachers in MIXTURES {
        for mask in [Mask::All, Mask::Some] {
            let want = whole(&mut Reference::<f64>::new(), teachers, mask);
            for chunk in [1, 4, 42, 60] {
                let what = format!("{teachers:?} {mask:?} by {chunk}");
                let slow = chunked(&mut Reference::<f64>::new(), teachers, mask, chunk);
                slow.is_near(&want, DOUBLE, &what);
                chunked(&mut Cpu::new(2), teachers, mask, chunk).is_near(&want, SINGLE, &what);
            }
        }
    }
}

#[test]
fn a_mixture_in_chunks_is_that_of_the_dense_losses_term_by_term() {
    for teachers in MIXTURES {
        let want = dense(&mut Reference::<f64>::new(), teachers);
        for chunk in [3, 60] {
            let got = chunked(&mut Reference::<f64>::new(), teachers, Mask::All, chunk);
            got.is_near(&want, DOUBLE, &format!("{teachers:?} by {chunk}"));
            near("means", &got.means, &want.means, DOUBLE);
        }
        let fast = dense(&mut Cpu::new(2), teachers);
        fast.is_near(&want, SINGLE, &format!("{teachers:?}"));
    }
}

#[test]
fn gradients_of_a_mixture_are_slopes_of_its_total() {
    let step = 1e-5;
    for teachers in MIXTURES {
        let mut device = Reference::<f64>::new();
        let signals = signals(&mut device, Mask::Some);
        let answers = all(&mut device, teachers);
        let head = ChunkedHead::among(&mut device, &terms(teachers), plan(teachers, 9));
        let parts = head.evaluate_among(&mut device, &signals, &answers, signals.counts);
        let found = Found::read(&device, &parts, 0.0, &signals);
        let plain = TokenSignals { gradients: None, ..signals };
        for (view, gradient) in [(signals.states, found.d_states), (signals.head, found.d_head)] {
            let before = device.read_f64(view);
            for at in (0..before.len()).step_by(13) {
                let mut total = |by: f64| {
                    let mut moved = before.clone();
                    moved[at] += by;
                    device.write_f64(view, &moved);
                    let counts = signals.counts;
                    head.total(&head.evaluate_among(&mut device, &plain, &answers, counts))
                };
                // The square of the step times a third derivative, and rounding over the step.
                let want = (total(step) - total(-step)) / (2.0 * step);
                let off = (gradient[at] - want).abs();
                assert!(off < 1e-8, "{teachers:?}[{at}]: {} is not {want}", gradient[at]);
            }
            device.write_f64(view, &before);
        }
    }
}

#[test]
fn a_teacher_of_several_has_the_loss_it_has_alone_and_order_changes_nothing() {
    let teachers = [LIVE, KEPT, NARROW];
    let mut device = Reference::<f64>::new();
    let signals = signals(&mut device, Mask::Some);
    let answers = all(&mut device, &teachers);
    let listed = terms(&teachers);
    let head = ChunkedHead::among(&mut device, &listed, plan(&teachers, 6));
    let parts = head.evaluate_among(&mut device, &signals, &answers, signals.counts);
    let together = Found::read(&device, &parts, head.total(&parts), &signals);
    for (at, answer) in answers.iter().enumerate() {
        let mut alone = ChunkedHead::new(&mut device, vec![listed[1 + at].0], plan(&teachers, 6));
        alone.set_terms(&[listed[1 + at].0]);
        let one = TokenSignals { teacher: *answer, gradients: None, ..signals };
        let mean = alone.evaluate(&mut device, &one, signals.counts).terms()[0].mean().unwrap();
        assert_eq!(mean.to_bits(), together.means[1 + at].to_bits(), "teacher {at}");
    }
    // The same terms the other way round, whose products are taken in another order.
    let turned: Vec<_> = listed.iter().rev().copied().collect();
    let head = ChunkedHead::among(&mut device, &turned, plan(&teachers, 6));
    device.fill(signals.gradients.unwrap().d_head.unwrap(), 0.0);
    let parts = head.evaluate_among(&mut device, &signals, &answers, signals.counts);
    let back = Found::read(&device, &parts, head.total(&parts), &signals);
    together.is_near(&back, DOUBLE, "turned");
}

#[test]
fn further_teachers_take_a_loss_for_each_token_and_no_room_for_logits() {
    let taken = |teachers: &[Teacher]| {
        let mut device = Cpu::new(1);
        let before = device.bytes();
        let plan = plan(teachers, 9);
        ChunkedHead::among(&mut device, &terms(teachers), plan);
        let taken = device.bytes() - before;
        assert_eq!(Bytes(taken), plan.bytes_needed(1 + teachers.len()));
        taken
    };
    let [one, three] = [&[LIVE][..], &[LIVE, NARROW, LIVE]].map(taken);
    let losses = |terms: usize| (terms * ROWS * 4).next_multiple_of(64) as u64;
    assert_eq!(three - one, losses(4) - losses(2));
}

#[test]
#[should_panic(expected = "a term compares with a teacher")]
fn a_term_whose_teacher_is_silent_is_refused() {
    let mut device = Cpu::new(1);
    let signals = signals(&mut device, Mask::All);
    let answers = [Some(tokens(&mut device, 0, LIVE)), None];
    let teachers = [LIVE, NARROW];
    let head = ChunkedHead::among(&mut device, &terms(&teachers), plan(&teachers, 9));
    head.evaluate_among(&mut device, &signals, &answers, signals.counts);
}

#[test]
#[should_panic(expected = "a term compares with kept answers")]
fn a_term_of_kept_answers_beside_a_live_teacher_is_refused() {
    let mut device = Cpu::new(1);
    let signals = signals(&mut device, Mask::All);
    let answers = [Some(tokens(&mut device, 0, LIVE)), Some(tokens(&mut device, 1, LIVE))];
    let teachers = [LIVE, KEPT];
    let head = ChunkedHead::among(&mut device, &terms(&teachers), plan(&teachers, 9));
    head.evaluate_among(&mut device, &signals, &answers, signals.counts);
}
