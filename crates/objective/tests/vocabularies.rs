//! A head beside a teacher of another vocabulary: over shared tokens it is the head of a model that
//! has no others; by rank it is the engine's operation; gradients are those of finite differences.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::path::Path;

use heirloom_base::{Bytes, Purpose, uniform, word};
use heirloom_engine::{
    Cpu, Device, Divergence, IGNORED, Ids, Linear, Reference, RowLoss, Target, View,
};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, SortedTerm, TeacherTerm, TeacherTokens, TeacherVocabulary, TokenCounts,
    TokenGradients, TokenLoss, TokenSignals, TokenTerm,
};

use heirloom_store::TensorFile;

/// Farthest allowed of the largest number: the order of sums over chunks, in each precision.
const DOUBLE: f64 = 1e-10;
const SINGLE: f64 = 1e-5;

const ROWS: usize = 11;
const WIDTH: usize = 4;
/// Words of student and teacher.
const WORDS: [usize; 2] = [13, 17];
/// The teacher's number of each of the student's words: some moved, some missing.
const SHARED: [u32; 13] = [0, 1, 16, 3, IGNORED, 5, 6, IGNORED, 2, 9, 10, 4, IGNORED];

fn spread(len: usize, seed: u64, size: f64) -> Vec<f64> {
    let number = |at| 2.0 * uniform(word(seed, Purpose::Init, 9, at as u64)) - 1.0;
    (0..len).map(|at| size * number(at)).collect()
}

fn matrix(device: &mut dyn Device, rows: usize, cols: usize, values: &[f64]) -> View {
    let view = View::matrix(device.alloc(rows * cols), 0, rows, cols);
    device.write_f64(view, values);
    view
}

fn ids(device: &mut dyn Device, values: &[u32]) -> Ids {
    let ids = Ids::at(device.alloc_ids(values.len()), 0, values.len());
    device.write_ids(ids, values);
    ids
}

/// Rows of a matrix by their numbers.
fn rows_of(values: &[f64], width: usize, rows: &[usize]) -> Vec<f64> {
    rows.iter().flat_map(|&row| values[row * width..(row + 1) * width].to_vec()).collect()
}

/// Heads of student and teacher, and labels.
struct Sides {
    heads: [Vec<f64>; 2],
    labels: Vec<u32>,
    given: bool,
}

impl Sides {
    fn new(given: bool) -> Self {
        let heads = [spread(WORDS[0] * WIDTH, 2, 1.0), spread(WORDS[1] * (WIDTH + 1), 5, 1.0)];
        let label = |row: usize| if row % 4 == 3 { IGNORED } else { (row * 5 % 13) as u32 };
        Self { heads, labels: (0..ROWS).map(label).collect(), given }
    }

    /// Of the shared words alone, in the order of the student's.
    fn shared_alone(given: bool) -> Self {
        let whole = Self::new(given);
        let kept: Vec<usize> = (0..WORDS[0]).filter(|&at| SHARED[at] != IGNORED).collect();
        let of_teacher: Vec<usize> = kept.iter().map(|&at| SHARED[at] as usize).collect();
        let heads = [
            rows_of(&whole.heads[0], WIDTH, &kept),
            rows_of(&whole.heads[1], WIDTH + 1, &of_teacher),
        ];
        Self { heads, labels: vec![IGNORED; ROWS], given }
    }

    fn signals(&self, device: &mut dyn Device) -> TokenSignals {
        let words = [self.heads[0].len() / WIDTH, self.heads[1].len() / (WIDTH + 1)];
        let states = matrix(device, ROWS, WIDTH, &spread(ROWS * WIDTH, 1, 2.0));
        let head = matrix(device, words[0], WIDTH, &self.heads[0]);
        let teacher_states = matrix(device, ROWS, WIDTH + 1, &spread(ROWS * (WIDTH + 1), 4, 2.0));
        let teacher_head = matrix(device, words[1], WIDTH + 1, &self.heads[1]);
        let teacher = if self.given {
            let y = View::matrix(device.alloc(ROWS * words[1]), 0, ROWS, words[1]);
            let (x, w) = (teacher_states, teacher_head);
            device.linear(&Linear { x, w, b: None, y, activated: None });
            TeacherTokens::Logits(y)
        } else {
            TeacherTokens::States { states: teacher_states, head: teacher_head }
        };
        let weights: Vec<f64> =
            (0..ROWS).map(|row| if row % 5 == 2 { 0.0 } else { 1.5 - row as f64 / 8.0 }).collect();
        TokenSignals {
            states,
            head,
            labels: ids(device, &self.labels),
            teacher: Some(teacher),
            label_weights: None,
            teacher_weights: Some(matrix(device, ROWS, 1, &weights)),
            counts: TokenCounts {
                labelled: self.labels.iter().filter(|&&label| label != IGNORED).count() as u64,
                taught: 9,
            },
            gradients: Some(TokenGradients {
                d_states: matrix(device, ROWS, WIDTH, &[f64::NAN; ROWS * WIDTH]),
                d_head: Some(matrix(device, words[0], WIDTH, &vec![0.0; words[0] * WIDTH])),
            }),
        }
    }

    fn plan(&self, chunk: usize) -> ChunkPlan {
        ChunkPlan {
            tokens: ROWS,
            vocabulary: self.heads[0].len() / WIDTH,
            computes_teacher: !self.given,
            train: true,
            budget: Bytes((chunk * 4 * 17 * 4) as u64),
        }
    }
}

fn teacher_term(divergence: Divergence) -> TokenTerm {
    let (temperature, scale_by_temperature_squared) = (2.0, true);
    let term = TeacherTerm { divergence, temperature, scale_by_temperature_squared };
    TokenTerm { weight: 0.7, loss: TokenLoss::Teacher(term) }
}

const LABEL: TokenTerm = TokenTerm { weight: 0.3, loss: TokenLoss::Label };

/// Loss, gradient of the states, gradient of the head.
type Found = (f64, Vec<f64>, Vec<f64>);

fn evaluate(device: &mut dyn Device, head: &ChunkedHead, signals: &TokenSignals) -> Found {
    let parts = head.evaluate(device, signals, signals.counts);
    let TokenGradients { d_states, d_head } = signals.gradients.unwrap();
    (head.total(&parts), device.read_f64(d_states), device.read_f64(d_head.unwrap()))
}

fn between(device: &mut dyn Device, terms: Vec<TokenTerm>, sides: &Sides, chunk: usize) -> Found {
    let signals = sides.signals(device);
    let shared = Some(ids(device, &SHARED));
    let other = TeacherVocabulary { size: WORDS[1], shared };
    let head = ChunkedHead::between(device, terms, sides.plan(chunk), other);
    evaluate(device, &head, &signals)
}

fn plain(device: &mut dyn Device, terms: Vec<TokenTerm>, sides: &Sides) -> Found {
    let signals = sides.signals(device);
    let head = ChunkedHead::new(device, terms, sides.plan(100));
    evaluate(device, &head, &signals)
}

#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let size = want.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= bound * size, "{what}[{at}]: {got} is not {want}");
    }
}

#[track_caller]
fn same(what: &str, got: &Found, want: &Found, bound: f64) {
    close(&format!("{what}: loss"), &[got.0], &[want.0], bound);
    close(&format!("{what}: states"), &got.1, &want.1, bound);
    close(&format!("{what}: head"), &got.2, &want.2, bound);
}

const DIVERGENCES: [Divergence; 7] = [
    Divergence::ForwardKl,
    Divergence::ReverseKl,
    Divergence::Symmetric,
    Divergence::JensenShannon { beta: 0.3 },
    Divergence::SkewKl { alpha: 0.1 },
    Divergence::TotalVariation,
    Divergence::MeanSquaredLogits { centred: true },
];

fn devices() -> [(Box<dyn Device>, f64); 2] {
    [(Box::new(Reference::<f64>::new()), DOUBLE), (Box::new(Cpu::new(2)), SINGLE)]
}

#[test]
fn over_shared_tokens_a_head_is_that_of_a_model_without_the_others() {
    for divergence in DIVERGENCES {
        for given in [false, true] {
            for (mut device, bound) in devices() {
                let (whole, alone) = (Sides::new(given), Sides::shared_alone(given));
                let terms = vec![teacher_term(divergence)];
                let got = between(&mut *device, terms.clone(), &whole, 3);
                let want = plain(&mut *device, terms, &alone);
                let what = format!("{divergence:?}");
                close(&what, &[got.0], &[want.0], bound);
                close(&what, &got.1, &want.1, bound);
                let mut rows = want.2.chunks(WIDTH);
                for (token, got) in got.2.chunks(WIDTH).enumerate() {
                    match SHARED[token] {
                        IGNORED => assert_eq!(got, [0.0; WIDTH], "{what}: token {token}"),
                        _ => close(&what, got, rows.next().unwrap(), bound * 10.0),
                    }
                }
            }
        }
    }
}

#[test]
fn labels_see_the_whole_vocabulary_in_whatever_order_terms_are_given() {
    for (mut device, bound) in devices() {
        let (sides, kl) = (Sides::new(false), teacher_term(Divergence::ForwardKl));
        let device = &mut *device;
        let both = between(device, vec![kl, LABEL], &sides, 3);
        let turned = between(device, vec![LABEL, kl], &sides, 3);
        same("order", &both, &turned, bound);
        let of_label = label_alone(device);
        let of_teacher = between(device, vec![kl], &sides, 3);
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
        let want = (
            of_label.0 + of_teacher.0,
            sum(&of_label.1, &of_teacher.1),
            sum(&of_label.2, &of_teacher.2),
        );
        same("sum", &both, &want, bound);
    }
}

/// The loss of labels without a teacher.
fn label_alone(device: &mut dyn Device) -> Found {
    let sides = Sides::new(true);
    let signals = TokenSignals { teacher: None, ..sides.signals(device) };
    let head = ChunkedHead::new(device, vec![LABEL], sides.plan(100));
    evaluate(device, &head, &signals)
}

#[test]
fn all_tokens_in_their_own_places_are_the_plain_head() {
    for (mut device, bound) in devices() {
        let mut sides = Sides::new(false);
        sides.heads[1].truncate(WORDS[0] * (WIDTH + 1));
        let terms = vec![LABEL, teacher_term(Divergence::ReverseKl)];
        let want = plain(&mut *device, terms.clone(), &sides);
        let signals = sides.signals(&mut *device);
        let shared = Some(ids(&mut *device, &(0..13).collect::<Vec<u32>>()));
        let other = TeacherVocabulary { size: WORDS[0], shared };
        let head = ChunkedHead::between(&mut *device, terms, sides.plan(4), other);
        same("plain", &evaluate(&mut *device, &head, &signals), &want, bound);
    }
}

fn sorted(top: usize) -> TokenTerm {
    TokenTerm { weight: 0.7, loss: TokenLoss::Sorted(SortedTerm { temperature: 1.5, top }) }
}

fn by_rank(device: &mut dyn Device, top: usize, given: bool, chunk: usize) -> Found {
    let sides = Sides::new(given);
    let signals = sides.signals(device);
    let other = TeacherVocabulary { size: WORDS[1], shared: None };
    let head = ChunkedHead::between(device, vec![LABEL, sorted(top)], sides.plan(chunk), other);
    evaluate(device, &head, &signals)
}

#[test]
fn by_rank_a_head_in_chunks_is_the_operation_on_whole_matrices() {
    for top in [1, 6, 100] {
        for given in [false, true] {
            for (mut device, bound) in devices() {
                let device = &mut *device;
                let got = by_rank(device, top, given, 2);
                let label = label_alone(device);
                let signals = Sides::new(true).signals(device);
                let mut whole =
                    |words: usize| View::matrix(device.alloc(ROWS * words), 0, ROWS, words);
                let (z, dz, losses) = (whole(WORDS[0]), whole(WORDS[0]), whole(1));
                let (x, w) = (signals.states, signals.head);
                device.linear(&Linear { x, w, b: None, y: z, activated: None });
                let TeacherTokens::Logits(logits) = signals.teacher.unwrap() else {
                    unreachable!()
                };
                let target = Target::Sorted { logits, temperature: 1.5, factor: 1.0, top };
                let (scale, weights) = (0.7 / 9.0, signals.teacher_weights);
                device.row_loss(&RowLoss { x: z, target, scale, weights, losses, dx: Some(dz) });
                let pairs = device.read_f64(losses).into_iter();
                let pairs = pairs.zip(device.read_f64(weights.unwrap()));
                let sum: f64 = pairs.map(|(loss, weight)| loss * weight).sum();
                close("loss", &[got.0], &[label.0 + scale * sum], bound);
                let (dz, w) = (device.read_f64(dz), device.read_f64(w));
                for row in 0..ROWS {
                    for column in 0..WIDTH {
                        let part = |at: usize| dz[row * WORDS[0] + at] * w[at * WIDTH + column];
                        let at = row * WIDTH + column;
                        let want = label.1[at] + (0..WORDS[0]).map(part).sum::<f64>();
                        assert!((got.1[at] - want).abs() < bound, "top {top}: [{at}]");
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_are_those_of_the_total_by_finite_differences() {
    // Its square times a third derivative of size 10, and the rounding of a loss of size 1 over it,
    // are both below 1e-9. No two ranks change places within a step: logits are 1e-3 apart.
    let step = 1e-5;
    let over = DIVERGENCES.map(|divergence| (teacher_term(divergence), true));
    for (term, shares) in over.into_iter().chain([(sorted(3), false), (sorted(100), false)]) {
        let sides = Sides::new(false);
        let mut device = Reference::<f64>::new();
        let signals = sides.signals(&mut device);
        let shared = shares.then(|| ids(&mut device, &SHARED));
        let other = TeacherVocabulary { size: WORDS[1], shared };
        let head = ChunkedHead::between(&mut device, vec![LABEL, term], sides.plan(4), other);
        let (_, d_states, d_head) = evaluate(&mut device, &head, &signals);
        let plain = TokenSignals { gradients: None, ..signals };
        for (view, gradient) in [(signals.states, d_states), (signals.head, d_head)] {
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
                assert!(near, "{term:?}: [{at}] is {got}, should be {want}");
            }
            device.write_f64(view, &before);
        }
    }
}

#[test]
fn losses_between_vocabularies_are_those_of_pytorch() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sorted.safetensors");
    let file = TensorFile::open(&file).unwrap();
    let numbers = |name: &str| file.read::<f64>(name).unwrap();
    let shared: Vec<u32> =
        file.read::<i64>("shared").unwrap().into_iter().map(|id| id as u32).collect();
    for (mut device, bound) in devices() {
        let device = &mut *device;
        for (name, temperature) in [("t1", 1.0), ("t2", 2.0)] {
            let (x, dx) =
                (matrix(device, 6, 9, &numbers("student")), matrix(device, 6, 9, &[0.0; 54]));
            let logits = matrix(device, 6, 12, &numbers("teacher"));
            let losses = matrix(device, 6, 1, &[0.0; 6]);
            let check = |device: &mut dyn Device, what: &str, target| {
                device.fill(dx, 0.0);
                let scale = 1.0 / 6.0;
                device.row_loss(&RowLoss { x, target, scale, weights: None, losses, dx: Some(dx) });
                let name = format!("{what}.{name}");
                close(&name, &device.read_f64(losses), &numbers(&format!("{name}.rows")), bound);
                close(&name, &device.read_f64(dx), &numbers(&format!("{name}.grad")), bound);
            };
            for (what, top) in [("sorted", 12), ("sorted", usize::MAX), ("sorted.top3", 3)] {
                check(device, what, Target::Sorted { logits, temperature, factor: 1.0, top });
            }
            let (columns, placed) = (ids(device, &shared), matrix(device, 6, 9, &[0.0; 54]));
            device.pick_columns(logits, columns, placed);
            device.forbid_columns(x, columns);
            for (what, divergence) in
                [("shared.kl", Divergence::ForwardKl), ("shared.reverse", Divergence::ReverseKl)]
            {
                let (factor, labels) = (temperature * temperature, None);
                let logits = placed;
                let target = Target::Teacher { logits, divergence, temperature, factor, labels };
                check(device, what, target);
            }
        }
    }
}

#[test]
fn chunks_and_micro_batches_change_nothing_about_it() {
    for (mut device, bound) in devices() {
        let device = &mut *device;
        let want = by_rank(device, 5, false, 100);
        for chunk in [1, 2, 5] {
            same("chunk", &by_rank(device, 5, false, chunk), &want, bound);
        }
        // The same rows in two parts: sums and gradients add up, and so does the loss.
        let sides = Sides::new(false);
        let signals = sides.signals(device);
        let other = TeacherVocabulary { size: WORDS[1], shared: None };
        let head = ChunkedHead::between(device, vec![LABEL, sorted(5)], sides.plan(3), other);
        let Some(TeacherTokens::States { states, head: matrix }) = signals.teacher else {
            unreachable!()
        };
        let TokenGradients { d_states, d_head } = signals.gradients.unwrap();
        let mut all = None;
        for (range, labelled, taught) in [(0..4, 3, 3), (4..ROWS, 6, 6)] {
            let rows = |view: View| view.row_range(range.clone());
            let part = TokenSignals {
                states: rows(signals.states),
                labels: signals.labels.range(range.clone()),
                teacher: Some(TeacherTokens::States { states: rows(states), head: matrix }),
                teacher_weights: signals.teacher_weights.map(rows),
                counts: TokenCounts { labelled, taught },
                gradients: Some(TokenGradients { d_states: rows(d_states), d_head }),
                ..signals
            };
            let parts = head.evaluate(device, &part, signals.counts);
            match &mut all {
                None => all = Some(parts),
                Some(all) => all.add(&parts),
            }
        }
        let total = head.total(&all.unwrap());
        let found = (total, device.read_f64(d_states), device.read_f64(d_head.unwrap()));
        same("two parts", &found, &want, bound);
    }
}

#[test]
#[should_panic(expected = "a term compares tokens, and none is shared")]
fn token_by_token_without_shared_tokens_is_refused() {
    let mut device = Cpu::new(1);
    let (sides, terms) = (Sides::new(false), vec![teacher_term(Divergence::ForwardKl)]);
    let other = TeacherVocabulary { size: WORDS[1], shared: None };
    ChunkedHead::between(&mut device, terms, sides.plan(3), other);
}

#[test]
#[should_panic(expected = "one number for each of the student's tokens")]
fn numbers_for_another_vocabulary_are_refused() {
    let mut device = Cpu::new(1);
    let (sides, terms) = (Sides::new(false), vec![teacher_term(Divergence::ForwardKl)]);
    let shared = Some(ids(&mut device, &SHARED[..12]));
    let other = TeacherVocabulary { size: WORDS[1], shared };
    ChunkedHead::between(&mut device, terms, sides.plan(3), other);
}

#[test]
#[should_panic(expected = "rows of the teacher's head")]
fn a_teacher_of_another_size_than_said_is_refused() {
    let mut device = Cpu::new(1);
    let sides = Sides::new(false);
    let signals = sides.signals(&mut device);
    let other = TeacherVocabulary { size: WORDS[1] - 1, shared: None };
    let head = ChunkedHead::between(&mut device, vec![sorted(3)], sides.plan(3), other);
    head.evaluate(&mut device, &signals, signals.counts);
}
