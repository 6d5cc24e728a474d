//! A chunked head against kept answers: its dense twin, the laws that cutting must keep, memory.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::ops::Range;

use heirloom_base::{Bytes, Purpose, uniform, word};
use heirloom_engine::{
    Cpu, Device, Divergence, IGNORED, Ids, Missing, Reference, SparseLoss, View,
};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, KnownTokens, Parts, SparseTerm, TeacherTerm, TeacherTokens,
    TokenCounts, TokenGradients, TokenLoss, TokenSignals, TokenTerm,
};
use heirloom_testkit::close;

const VOCABULARY: usize = 97;
const WIDTH: usize = 6;
const TEMPERATURE: f64 = 2.0;

const LOSSES: [(SparseLoss, Missing); 6] = [
    (SparseLoss::CrossEntropy, Missing::TailBucket),
    (SparseLoss::Divergence(Divergence::ForwardKl), Missing::TailBucket),
    (SparseLoss::Divergence(Divergence::ForwardKl), Missing::Renormalise),
    (SparseLoss::Divergence(Divergence::ForwardKl), Missing::Zero),
    (SparseLoss::Divergence(Divergence::ReverseKl), Missing::TailBucket),
    (SparseLoss::Divergence(Divergence::JensenShannon { beta: 0.3 }), Missing::Renormalise),
];

fn spread(len: usize, seed: u64, size: f64) -> Vec<f64> {
    let number = |at| uniform(word(seed, Purpose::Init, 9, at as u64));
    (0..len).map(|at| size * (2.0 * number(at) - 1.0)).collect()
}

fn matrix(device: &mut dyn Device, rows: usize, cols: usize, values: &[f64]) -> View {
    let view = View::matrix(device.alloc(rows * cols), 0, rows, cols);
    device.write_f64(view, values);
    view
}

fn term(loss: SparseLoss, missing: Missing) -> SparseTerm {
    SparseTerm { loss, missing, temperature: TEMPERATURE, scale_by_temperature_squared: true }
}

fn with_label(loss: TokenLoss) -> Vec<TokenTerm> {
    vec![TokenTerm { weight: 0.3, loss: TokenLoss::Label }, TokenTerm { weight: 0.7, loss }]
}

fn plan(rows: usize, chunk: usize) -> ChunkPlan {
    ChunkPlan {
        tokens: rows,
        vocabulary: VOCABULARY,
        computes_teacher: false,
        train: true,
        budget: Bytes((chunk * 2 * VOCABULARY * 4) as u64),
    }
}

/// Rows of every kind: every third without a label, every fifth masked, every seventh without an
/// answer; the likeliest `k` tokens of random logits. The logits come too.
fn signals(device: &mut dyn Device, n: usize, k: usize) -> (TokenSignals, View) {
    let v = VOCABULARY;
    let states = matrix(device, n, WIDTH, &spread(n * WIDTH, 1, 2.0));
    let head = matrix(device, v, WIDTH, &spread(v * WIDTH, 2, 1.0));
    let mut logits = spread(n * v, 3, 4.0);
    logits.iter_mut().for_each(|x| *x = f64::from(*x as f32));
    let (mut ids, mut p, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for (row, logits) in logits.chunks(v).enumerate() {
        let parts: Vec<f64> = logits.iter().map(|x| (x / TEMPERATURE).exp()).collect();
        let total: f64 = parts.iter().sum();
        let mut order: Vec<usize> = (0..v).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let mut known = if row % 7 == 6 { Vec::new() } else { order[..k].to_vec() };
        known.sort_unstable();
        ids.extend((0..k).map(|at| known.get(at).map_or(IGNORED, |&id| id as u32)));
        p.extend((0..k).map(|at| known.get(at).map_or(0.0, |&id| parts[id] / total)));
        rest.push(1.0 - known.iter().map(|&id| parts[id] / total).sum::<f64>());
    }
    if k == v {
        rest.fill(0.0);
    }
    let known = KnownTokens {
        ids: Ids::at(device.alloc_ids(n * k), 0, n * k),
        probabilities: matrix(device, n, k, &p),
        rest: matrix(device, n, 1, &rest),
    };
    device.write_ids(known.ids, &ids);
    let labels = Ids::at(device.alloc_ids(n), 0, n);
    let label = |row: usize| if row % 3 == 2 { IGNORED } else { (row * 7919 % v) as u32 };
    device.write_ids(labels, &(0..n).map(label).collect::<Vec<_>>());
    let taught = |row: usize| row % 5 != 3 && row % 7 != 6;
    let weights: Vec<f64> =
        (0..n).map(|row| if taught(row) { 1.25 - (row % 3) as f64 / 4.0 } else { 0.0 }).collect();
    let signals = TokenSignals {
        states,
        head,
        labels,
        teacher: Some(TeacherTokens::Known(known)),
        label_weights: None,
        teacher_weights: Some(matrix(device, n, 1, &weights)),
        counts: counts(0..n),
        gradients: Some(TokenGradients {
            d_states: matrix(device, n, WIDTH, &vec![f64::NAN; n * WIDTH]),
            d_head: Some(matrix(device, v, WIDTH, &vec![0.0; v * WIDTH])),
        }),
    };
    let logits = matrix(device, n, v, &logits);
    (signals, logits)
}

fn counts(rows: Range<usize>) -> TokenCounts {
    TokenCounts {
        labelled: rows.clone().filter(|row| row % 3 != 2).count() as u64,
        taught: rows.filter(|row| row % 5 != 3 && row % 7 != 6).count() as u64,
    }
}

/// Total, gradients of states and head.
fn run(
    device: &mut dyn Device,
    terms: Vec<TokenTerm>,
    signals: &TokenSignals,
    plan: ChunkPlan,
) -> Vec<f64> {
    let head = ChunkedHead::new(device, terms, plan);
    let parts = head.evaluate(device, signals, signals.counts);
    found(device, head.total(&parts), signals)
}

fn found(device: &dyn Device, total: f64, signals: &TokenSignals) -> Vec<f64> {
    let TokenGradients { d_states, d_head } = signals.gradients.unwrap();
    [vec![total], device.read_f64(d_states), device.read_f64(d_head.unwrap())].concat()
}

#[test]
fn all_tokens_known_is_the_dense_head() {
    for divergence in [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::TotalVariation] {
        for missing in [Missing::TailBucket, Missing::Renormalise, Missing::Zero] {
            let sparse = term(SparseLoss::Divergence(divergence), missing);
            if sparse.refusal(false).is_some() {
                continue;
            }
            let mut device = Reference::<f64>::new();
            let (signals, _) = signals(&mut device, 23, VOCABULARY);
            let got = run(&mut device, with_label(TokenLoss::Known(sparse)), &signals, plan(23, 5));

            let mut device = Reference::<f64>::new();
            let (signals, logits) = self::signals(&mut device, 23, VOCABULARY);
            let signals = TokenSignals { teacher: Some(TeacherTokens::Logits(logits)), ..signals };
            let dense = TeacherTerm {
                divergence,
                temperature: TEMPERATURE,
                scale_by_temperature_squared: true,
            };
            let terms = with_label(TokenLoss::Teacher(dense));
            close(&got, &run(&mut device, terms, &signals, plan(23, 23)), 1e-10, 1e-10);
        }
    }
}

#[test]
fn chunks_micro_batches_and_devices_change_nothing() {
    for (loss, missing) in LOSSES {
        let terms = || with_label(TokenLoss::Known(term(loss, missing)));
        let mut device = Reference::<f64>::new();
        let (whole, _) = signals(&mut device, 47, 9);
        let want = run(&mut device, terms(), &whole, plan(47, 47));

        let mut device = Reference::<f64>::new();
        let (whole, _) = signals(&mut device, 47, 9);
        close(&run(&mut device, terms(), &whole, plan(47, 8)), &want, 1e-12, 1e-12);

        for chunk in [1, 42, 47] {
            let mut device = Cpu::new(2);
            let (whole, _) = signals(&mut device, 47, 9);
            close(&run(&mut device, terms(), &whole, plan(47, chunk)), &want, 2e-5, 1e-5);
        }

        let mut device = Reference::<f64>::new();
        let (whole, _) = signals(&mut device, 47, 9);
        let head = ChunkedHead::new(&mut device, terms(), plan(47, 8));
        let mut parts = Parts::default();
        for range in [0..1, 1..20, 20..23, 23..47] {
            let part = part(&whole, range);
            parts.add(&head.evaluate(&mut device, &part, whole.counts));
        }
        let counted = parts.terms().iter().map(|nats| nats.count());
        assert!(counted.eq([whole.counts.labelled, whole.counts.taught]));
        close(&found(&device, head.total(&parts), &whole), &want, 1e-12, 1e-12);
    }
}

/// The rows of `range`, as a micro-batch of their own.
fn part(whole: &TokenSignals, range: Range<usize>) -> TokenSignals {
    let Some(TeacherTokens::Known(known)) = whole.teacher else { unreachable!() };
    let (k, rows) = (known.probabilities.cols(), |view: View| view.row_range(range.clone()));
    let gradients = whole.gradients.unwrap();
    TokenSignals {
        states: rows(whole.states),
        labels: whole.labels.range(range.clone()),
        teacher: Some(TeacherTokens::Known(KnownTokens {
            ids: known.ids.range(range.start * k..range.end * k),
            probabilities: rows(known.probabilities),
            rest: rows(known.rest),
        })),
        teacher_weights: whole.teacher_weights.map(rows),
        counts: counts(range.clone()),
        gradients: Some(TokenGradients { d_states: rows(gradients.d_states), ..gradients }),
        ..*whole
    }
}

#[test]
fn gradients_are_those_of_the_total_by_finite_differences() {
    // As in `chunked.rs`.
    let step = 1e-5;
    for (loss, missing) in LOSSES {
        let mut device = Reference::<f64>::new();
        let (signals, _) = signals(&mut device, 7, 4);
        let terms = with_label(TokenLoss::Known(term(loss, missing)));
        let head = ChunkedHead::new(&mut device, terms, plan(7, 3));
        head.evaluate(&mut device, &signals, signals.counts);
        let TokenGradients { d_states, d_head } = signals.gradients.unwrap();
        let gradients = [device.read_f64(d_states), device.read_f64(d_head.unwrap())];
        let plain = TokenSignals { gradients: None, ..signals };
        for (view, gradient) in [signals.states, signals.head].into_iter().zip(gradients) {
            let before = device.read_f64(view);
            for at in (0..gradient.len()).step_by(3) {
                let mut total = |by: f64| {
                    let mut moved = before.clone();
                    moved[at] += by;
                    device.write_f64(view, &moved);
                    head.total(&head.evaluate(&mut device, &plain, signals.counts))
                };
                let want = (total(step) - total(-step)) / (2.0 * step);
                close(&[gradient[at]], &[want], 1e-7, 1e-7);
            }
            device.write_f64(view, &before);
        }
    }
}

/// Tokens drawn from the teacher: the mean gradient over many draws is the dense one.
#[test]
fn the_gradient_of_draws_has_the_mean_of_the_dense_one() {
    let (n, draws, times) = (3, 12, 3000);
    let mut device = Cpu::new(1);
    let (dense, logits) = signals(&mut device, n, VOCABULARY);
    let values = device.read_f64(logits);
    let teacher = TeacherTerm {
        divergence: Divergence::ForwardKl,
        temperature: TEMPERATURE,
        scale_by_temperature_squared: true,
    };
    let sparse = term(SparseLoss::CrossEntropy, Missing::Renormalise);
    assert_eq!(sparse.refusal(true), None);
    let alone = |loss| vec![TokenTerm { weight: 1.0, loss }];
    let signals = TokenSignals { teacher: Some(TeacherTokens::Logits(logits)), ..dense };
    let want = run(&mut device, alone(TokenLoss::Teacher(teacher)), &signals, plan(n, n));

    let head = ChunkedHead::new(&mut device, alone(TokenLoss::Known(sparse)), plan(n, n));
    let width = draws.min(VOCABULARY);
    let known = KnownTokens {
        ids: Ids::at(device.alloc_ids(n * width), 0, n * width),
        probabilities: matrix(&mut device, n, width, &vec![0.0; n * width]),
        rest: matrix(&mut device, n, 1, &vec![0.0; n]),
    };
    let signals = TokenSignals { teacher: Some(TeacherTokens::Known(known)), ..dense };
    let (mut sums, mut squares) = (vec![0.0; n * WIDTH], vec![0.0; n * WIDTH]);
    for time in 0..times {
        let (mut ids, mut p) = (Vec::new(), Vec::new());
        for (row, logits) in values.chunks(VOCABULARY).enumerate() {
            let parts: Vec<f64> = logits.iter().map(|x| (x / TEMPERATURE).exp()).collect();
            let total: f64 = parts.iter().sum();
            let mut counts = [0u32; VOCABULARY];
            for draw in 0..draws {
                let at = ((time * n + row) * draws + draw) as u64;
                let mut left = total * uniform(word(4, Purpose::Answers, 0, at));
                let id = parts.iter().position(|part| {
                    left -= part;
                    left < 0.0
                });
                counts[id.unwrap_or(VOCABULARY - 1)] += 1;
            }
            let drawn = counts.iter().enumerate().filter(|(_, count)| **count > 0);
            let mut places: Vec<(u32, f64)> =
                drawn.map(|(id, &count)| (id as u32, f64::from(count) / draws as f64)).collect();
            places.resize(width, (IGNORED, 0.0));
            ids.extend(places.iter().map(|place| place.0));
            p.extend(places.iter().map(|place| place.1));
        }
        device.write_ids(known.ids, &ids);
        device.write_f64(known.probabilities, &p);
        head.evaluate(&mut device, &signals, signals.counts);
        for (at, d) in device.read_f64(signals.gradients.unwrap().d_states).iter().enumerate() {
            sums[at] += d;
            squares[at] += d * d;
        }
    }
    let times = times as f64;
    for (at, (sum, square)) in sums.iter().zip(&squares).enumerate() {
        let (mean, want) = (sum / times, want[1 + at]);
        let error = ((square / times - mean * mean) / times).sqrt();
        // Five standard errors, passed by chance once in two million times; words are fixed.
        assert!((mean - want).abs() <= 5.0 * error + 1e-7, "[{at}]: {mean} ± {error}, want {want}");
    }
    // The bound can fail: the likeliest tokens in their shares are farther off than that.
    let mut device = Cpu::new(1);
    let (few, _) = self::signals(&mut device, n, draws);
    let biased = run(&mut device, alone(TokenLoss::Known(sparse)), &few, plan(n, n));
    let off = |at: usize| {
        let mean = sums[at] / times;
        let error = ((squares[at] / times - mean * mean) / times).sqrt();
        (biased[1 + at] - want[1 + at]).abs() > 5.0 * error + 1e-7
    };
    assert!((0..WIDTH).any(off));
}

#[test]
fn kept_answers_need_no_room_for_the_teachers_logits() {
    let plan = plan(1000, 42);
    let live = ChunkPlan { computes_teacher: true, budget: Bytes(u64::MAX), ..plan };
    let kept = ChunkPlan { budget: Bytes(u64::MAX), ..plan };
    // Slots end at lines of 64 bytes.
    let matrix = (1000 * VOCABULARY as u64 * 4).next_multiple_of(64);
    assert_eq!(live.bytes_needed(2).0 - kept.bytes_needed(2).0, matrix);
    assert_eq!(plan.rows(), 42);
}

#[test]
fn what_draws_cannot_give_is_refused() {
    let reverse = term(SparseLoss::Divergence(Divergence::ReverseKl), Missing::TailBucket);
    assert_eq!(reverse.refusal(false), None);
    assert!(reverse.refusal(true).unwrap().starts_with("of draws only the cross-entropy"));
    let forward = term(SparseLoss::Divergence(Divergence::ForwardKl), Missing::Zero);
    assert_eq!(forward.refusal(true), None);
}

#[test]
#[should_panic(expected = "a term compares with kept answers")]
fn a_term_without_its_answers_is_refused() {
    let mut device = Cpu::new(1);
    let (signals, logits) = signals(&mut device, 4, 3);
    let signals = TokenSignals { teacher: Some(TeacherTokens::Logits(logits)), ..signals };
    let (loss, missing) = LOSSES[0];
    run(&mut device, with_label(TokenLoss::Known(term(loss, missing))), &signals, plan(4, 4));
}
