//! The fast device against the reference in double precision, and against itself with other
//! numbers of threads.

use heirloom_engine::{
    Activation, AdamW, AdamWRows, Ahead, Cpu, Device, HiddenDistance, IGNORED, Ids, Linear,
    LinearBackward, Move, Precision, Reference, RelationMeasure, Slope, Span, Update, View,
};
use proptest::prelude::*;

use crate::rows::{
    self, Att, Drop, Emb, Held, Lin, Loss, Mean, Norm, Op, Rel, Sides, Through, run,
};

/// Largest difference allowed, relative to the largest number of the same matrix: about a hundred
/// roundings of `f32`, for sums over up to a few thousand terms.
const TOLERANCE: f64 = 1e-5;

/// A result counts as at least this large: a divergence is a difference of numbers of unit size,
/// so a small one keeps their absolute error.
const UNIT: f64 = 0.05;

fn close(name: &str, what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{name}: {what}");
    let least = if what.starts_with("result") { UNIT } else { 1e-3 };
    let largest = want.iter().fold(least, |largest: f64, x| largest.max(x.abs()));
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let near = (got - want).abs() <= TOLERANCE * largest;
        assert!(near, "{name}: {what}[{at}] is {got}, should be {want} (largest {largest})");
    }
}

pub(crate) fn agree(op: &dyn Op) {
    agree_in(Precision::F32, op);
}

/// Both devices round the same numbers, so that the tolerance need not be wider for a lower
/// precision: where a factor was computed, and not given, it must be the same number in both.
fn agree_in(precision: Precision, op: &dyn Op) {
    let name = format!("{precision:?} {}", op.name());
    let want = run(&mut Reference::<f64>::new().with_precision(precision), op);
    let cpu = |threads| Cpu::new(threads).with_precision(precision);
    let got = run(&mut cpu(1), op);
    for (at, (got, want)) in got.results.iter().zip(&want.results).enumerate() {
        close(&name, &format!("result {at}"), got, want);
    }
    for (at, (got, want)) in got.kept.iter().zip(&want.kept).enumerate() {
        close(&name, &format!("kept {at}"), got, want);
    }
    for (at, (got, want)) in got.gradients.iter().zip(&want.gradients).enumerate() {
        match (got, want) {
            (Some(got), Some(want)) => close(&name, &format!("gradient {at}"), got, want),
            _ => assert!(got.is_none() && want.is_none(), "{name}: gradient {at}"),
        }
    }
    for threads in [1, 2, 2, 3] {
        let again = run(&mut cpu(threads), op);
        assert!(again.results == got.results, "{name}: results with {threads} threads");
        assert!(again.kept == got.kept, "{name}: what is kept with {threads} threads");
        assert!(again.gradients == got.gradients, "{name}: gradients with {threads} threads");
    }
}

const ACTIVATIONS: [Activation; 5] =
    [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu, Activation::Tanh];

#[test]
fn linear_agrees() {
    let shapes = [
        (1, 8, 24),
        (7, 24, 8),
        (33, 384, 33),
        (130, 384, 384),
        (1, 384, 2),
        (420, 64, 100),
        (600, 300, 500),
    ];
    for (at, (rows, from, to)) in shapes.into_iter().enumerate() {
        let activation = ACTIVATIONS.get(at).copied();
        agree(&Lin { rows, from, to, bias: at % 2 == 0, activation, add_to_dx: at % 3 == 0 });
    }
}

#[test]
fn a_gradient_through_an_activation_agrees() {
    for (at, activation) in ACTIVATIONS.into_iter().enumerate() {
        let (rows, inner) = [(1, 8), (7, 33), (33, 300), (130, 100), (200, 600)][at];
        agree(&Through { rows, from: 24, inner, to: 40, activation });
    }
}

#[test]
fn products_of_every_remainder_agree() {
    // Around the sizes of tiles, strips, blocks and depths.
    for rows in [1, 5, 6, 7, 14, 15, 95, 97, 193] {
        agree(&Lin { rows, from: 17, to: 31, bias: true, activation: None, add_to_dx: true });
    }
    for to in [1, 15, 16, 17, 33, 255, 257] {
        agree(&Lin { rows: 13, from: 40, to, bias: true, activation: None, add_to_dx: false });
    }
    for from in [1, 7, 9, 511, 512, 513, 1030] {
        agree(&Lin { rows: 9, from, to: 35, bias: false, activation: None, add_to_dx: true });
    }
}

/// A slope of 0 or 1 leaves a gradient, the factor of the backward products, the same number.
const EXACT: Option<Activation> = Some(Activation::Relu);

#[test]
fn linear_agrees_where_factors_are_rounded() {
    for (at, (rows, from, to)) in
        [(1, 8, 24), (7, 24, 8), (33, 384, 33), (130, 385, 383), (1, 384, 2), (420, 64, 100)]
            .into_iter()
            .enumerate()
    {
        let (bias, add_to_dx) = (at % 2 == 0, at % 3 == 0);
        for activation in [None, EXACT] {
            agree_in(Precision::Bf16, &Lin { rows, from, to, bias, activation, add_to_dx });
        }
    }
    let (bias, activation) = (true, None);
    for odd in [1, 5, 15, 33, 97, 193, 257, 513, 1031] {
        for (rows, from, to) in [(odd, 17, 31), (13, odd, 35), (13, 41, odd)] {
            let op = Lin { rows, from, to, bias, activation, add_to_dx: true };
            agree_in(Precision::Bf16, &op);
        }
    }
}

#[test]
fn a_gradient_through_an_activation_agrees_where_factors_are_rounded() {
    let shapes = [(1, 8, 3), (7, 33, 40), (33, 300, 16), (130, 100, 57), (200, 600, 40)];
    for (f, (rows, inner, to)) in ACTIVATIONS.into_iter().zip(shapes) {
        let backward = |device: &mut dyn Device| {
            let numbers = [(rows, inner), (rows, inner), (to, inner), (rows, to)];
            let mut seed = 30;
            let [x, z, w, dy] = numbers.map(|(rows, cols)| {
                seed += 1;
                let view = rows::new(device, rows, cols);
                device.write_f64(view, &rows::input(seed, rows, cols).values);
                view
            });
            let [dz, dw] = [(rows, inner), (to, inner)].map(|(r, c)| rows::new(device, r, c));
            device.linear_backward(&LinearBackward {
                x,
                w,
                dy,
                dx: Some(dz),
                add_to_dx: false,
                through: Some((f, z)),
                dw: Some(dw),
                db: None,
            });
            [dz, dw].map(|view| device.read_f64(view))
        };
        let want = backward(&mut Reference::<f64>::new().with_precision(Precision::Bf16));
        let got = backward(&mut Cpu::new(2).with_precision(Precision::Bf16));
        for (what, (got, want)) in ["dz", "dw"].into_iter().zip(got.iter().zip(&want)) {
            close(&format!("bf16 through {f:?}"), what, got, want);
        }
    }
}

#[test]
fn factors_alone_are_rounded() {
    let op = Lin { rows: 9, from: 40, to: 17, bias: true, activation: None, add_to_dx: false };
    let single = run(&mut Reference::<f64>::new(), &op);
    let rounded = run(&mut Reference::<f64>::new().with_precision(Precision::Bf16), &op);
    let off = |got: &[f64], want: &[f64]| {
        got.iter().zip(want).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
    };
    // A factor is off by 2⁻⁹ at most; forty products of unit size, so within a tenth, yet visible.
    assert!((1e-3..0.1).contains(&off(&rounded.results[0], &single.results[0])));
    for at in [0, 1] {
        let [got, want] = [&rounded, &single].map(|of| of.gradients[at].as_deref().expect("one"));
        assert!((1e-3..0.1).contains(&off(got, want)), "gradient {at}");
    }
    // The bias's gradient is a sum without products.
    assert_eq!(rounded.gradients[2], single.gradients[2]);
}

#[test]
fn numbers_with_eight_significant_bits_give_the_same_product_in_both_precisions() {
    let product = |precision| {
        let mut cpu = Cpu::new(1).with_precision(precision);
        let [x, w, y] = [(5, 33), (7, 33), (5, 7)].map(|(r, c)| rows::new(&mut cpu, r, c));
        for view in [x, w] {
            // Whole numbers, so that every order of the sums gives the same.
            let values: Vec<f32> = (0..view.len()).map(|at| (at * 37 % 511) as f32 / 2.0).collect();
            let whole: Vec<f32> = values.iter().map(|x| x.floor() - 128.0).collect();
            cpu.write(view, &whole);
        }
        cpu.linear(&Linear { x, w, b: None, y, activated: None });
        cpu.read(y)
    };
    assert_eq!(product(Precision::Bf16), product(Precision::F32));
}

#[test]
fn a_device_that_is_set_to_a_precision_computes_as_one_made_with_it_and_can_be_set_back() {
    let product = |device: &mut dyn Device| {
        let [x, w, y] = [(5, 33), (7, 33), (5, 7)].map(|(r, c)| rows::new(device, r, c));
        for (at, view) in [x, w].into_iter().enumerate() {
            let values: Vec<f32> = (0..view.len()).map(|i| ((i + at) as f32).sin()).collect();
            device.write(view, &values);
        }
        device.linear(&Linear { x, w, b: None, y, activated: None });
        device.read_f64(y)
    };
    let made = |precision| -> [Box<dyn Device>; 2] {
        [
            Box::new(Cpu::new(1).with_precision(precision)),
            Box::new(Reference::<f64>::new().with_precision(precision)),
        ]
    };
    let (singles, halves) = (made(Precision::F32), made(Precision::Bf16));
    for (mut single, mut half) in singles.into_iter().zip(halves) {
        let [exact, rounded] = [&mut single, &mut half].map(|device| product(&mut **device));
        assert!(exact != rounded, "these numbers have more digits than bfloat16");
        assert_eq!(half.set_precision(Precision::F32), Precision::Bf16);
        assert_eq!(product(&mut *half), exact);
        assert_eq!(half.set_precision(Precision::Bf16), Precision::F32);
        assert_eq!(product(&mut *half), rounded);
    }
}

#[test]
fn add_norm_agrees() {
    for (rows, cols) in [(1, 8), (7, 24), (33, 384), (130, 100)] {
        for flags in 0..8 {
            let (residual, dropout, in_place) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
            agree(&Norm { rows, cols, residual, dropout, in_place });
        }
    }
}

#[test]
fn dropout_embedding_and_means_agree() {
    for (rows, cols) in [(1, 8), (7, 24), (33, 384), (130, 130)] {
        agree(&Drop { rows, cols });
        agree(&Emb { rows, cols, table: 50 });
    }
    agree(&Mean { lengths: vec![1, 7, 130], cols: 384 });
    agree(&Mean { lengths: vec![3], cols: 5 });
}

#[test]
fn attention_agrees() {
    for dropout in [false, true] {
        for (lengths, heads, each) in [
            (vec![1], 1, 8),
            (vec![7, 1, 33], 3, 8),
            (vec![130, 5, 16, 64], 2, 24),
            (vec![31, 32, 33, 40], 12, 32),
        ] {
            agree(&Att::full(lengths, heads, each, dropout));
        }
    }
}

#[test]
fn row_losses_agree() {
    use HiddenDistance::{Cosine, MeanSquared, Normalized};
    for (rows, cols) in [(1, 2), (33, 3), (7, 384), (5, 30522)] {
        let labels: Vec<u32> =
            (0..rows as u32).map(|row| if row == 1 { IGNORED } else { row % 2 }).collect();
        let softened = |temperature| {
            let labels = labels.clone();
            Held::Softened { labels, share: 0.3, temperature }
        };
        for held in [
            softened(f64::INFINITY),
            softened(1.5),
            Held::Misses(labels.clone()),
            Held::Labels(labels),
            Held::Teacher { temperature: 2.5 },
            Held::Binary,
            Held::Distance(MeanSquared),
            Held::Distance(Cosine),
            Held::Distance(Normalized),
        ] {
            agree(&Loss { rows, cols, held, size: 3.0 });
        }
    }
}

#[test]
fn relations_agree() {
    for measure in [RelationMeasure::Kl, RelationMeasure::ScoresMse] {
        for sides in [Sides::Apart, Sides::Same, Sides::Columns] {
            let lengths = vec![1, 7, 130, 20];
            agree(&Rel { lengths, heads: 4, width: 96, teacher_width: 128, measure, sides });
        }
    }
}

#[test]
fn interpolation_ends_where_it_should_and_leaves_equal_numbers_alone() {
    let numbers = rows::input(1, 1, 1003).values;
    let ends = |device: &mut dyn Device| {
        let views: Vec<View> = (0..2).map(|_| rows::new(device, 1, numbers.len())).collect();
        device.write_f64(views[0], &numbers);
        let given = device.read_f64(views[0]);
        device.lerp(0.25, views[0], views[1]);
        let quarter = device.read_f64(views[1]);
        assert!(quarter == given.iter().map(|x| 0.25 * x).collect::<Vec<_>>(), "a quarter from 0");
        device.fill(views[1], 0.0);
        device.lerp(1.0, views[0], views[1]);
        assert!(device.read_f64(views[1]) == given, "all of it");
        device.lerp(0.001, views[0], views[1]);
        assert!(device.read_f64(views[1]) == given, "equal numbers");
    };
    ends(&mut Reference::<f64>::new());
    ends(&mut Reference::<f32>::new());
    ends(&mut Cpu::new(2));
}

#[test]
fn passes_over_whole_buffers_agree() {
    let numbers = rows::input(1, 1, 100_003).values;
    let passes = |device: &mut dyn Device| {
        let views: Vec<View> = (0..2).map(|_| rows::new(device, 1, numbers.len())).collect();
        device.write_f64(views[0], &numbers);
        device.fill(views[1], 0.5);
        device.add_scaled(-0.75, views[0], views[1]);
        device.scale(1.5, views[1]);
        device.lerp(0.3, views[0], views[1]);
        // Columns of a matrix, which are not contiguous.
        let block = views[1].columns(0..100_000).reshaped(100, 1000).columns(3..500);
        device.scale(2.0, block);
        device.copy(block.row_range(0..50), block.row_range(50..100));
        let sums = vec![device.sum(views[1]), device.sum_of_squares(views[1]), device.sum(block)];
        (device.read_f64(views[1]), sums)
    };
    let (want, want_sums) = passes(&mut Reference::<f64>::new());
    let (got, sums) = passes(&mut Cpu::new(1));
    close("passes", "numbers", &got, &want);
    close("passes", "sums", &sums, &want_sums);
    for threads in [2, 3] {
        assert!(passes(&mut Cpu::new(threads)) == (got.clone(), sums.clone()), "{threads} threads");
    }
}

#[test]
fn adamw_agrees_over_several_steps_and_spares_what_no_span_covers() {
    let len = 50_000;
    let steps = |device: &mut dyn Device| {
        let spaces = [(); 4].map(|()| device.alloc(len));
        let flat = |space| View::matrix(space, 0, 1, len);
        device.write_f64(flat(spaces[0]), &rows::input(1, 1, len).values);
        let spans = [
            Span::new(0, 17, 0.0),
            Span { rate: 0.3, ..Span::new(32, 20_000, 0.1) },
            Span { rate: 2.0, since: 4, ..Span::new(20_000, len - 5, 0.1) },
        ];
        for step in 5..=7 {
            device.write_f64(flat(spaces[1]), &rows::input(step - 3, 1, len).values);
            device.adamw(&AdamW {
                spaces,
                spans: &spans,
                learning_rate: 1e-2,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                step,
                gradient_scale: 0.5,
            });
        }
        spaces.map(|space| device.read_f64(flat(space)))
    };
    let want = steps(&mut Reference::<f64>::new());
    let got = steps(&mut Cpu::new(1));
    for (place, (got, want)) in got.iter().zip(&want).enumerate() {
        close("adamw", &format!("space {place}"), got, want);
    }
    assert!(steps(&mut Cpu::new(3)) == got, "three threads");
}

/// A factor of the learning rate is another learning rate, and a run that began late moves as one
/// whose optimiser did, bit for bit.
#[test]
fn a_span_moves_as_an_optimiser_of_its_own_would() {
    let len = 300;
    let steps = |device: &mut dyn Device, span: Span, before: u64, rate: f64| {
        let spaces = [(); 4].map(|()| device.alloc(len));
        let flat = |space| View::matrix(space, 0, 1, len);
        device.write_f64(flat(spaces[0]), &rows::input(1, 1, len).values);
        for step in 1..=5 {
            device.write_f64(flat(spaces[1]), &rows::input(1 + step, 1, len).values);
            device.adamw(&AdamW {
                spaces,
                spans: &[span],
                learning_rate: rate * step as f64,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                step: before + step,
                gradient_scale: 0.5,
            });
        }
        spaces.map(|space| device.read_f64(flat(space)))
    };
    let usual = Span::new(0, len, 0.1);
    let late = Span { rate: 0.125, since: 30, ..usual };
    let devices: [fn() -> Box<dyn Device>; 2] =
        [|| Box::new(Reference::<f64>::new()), || Box::new(Cpu::new(2))];
    for device in devices {
        // Powers of two multiply exactly.
        let want = steps(&mut *device(), usual, 0, 1e-2 / 8.0);
        assert_eq!(steps(&mut *device(), late, 30, 1e-2), want);
        assert_ne!(steps(&mut *device(), usual, 30, 1e-2), want);
    }
}

/// AdamW of `rows` of a table, with a gradient in the last of `moves` or none at all.
fn of_rows<'a>(
    (tables, reached): ([View; 4], Ids),
    moves: &'a [Move],
    rows: Option<Ids>,
    has_gradient: bool,
    weight_decay: f64,
) -> AdamWRows<'a> {
    let (beta1, beta2, epsilon) = (0.9, 0.99, 1e-8);
    AdamWRows { tables, rows, reached, moves, has_gradient, weight_decay, beta1, beta2, epsilon }
}

/// Twelve rows of a table, of which each step sees a few, one sees none, and two are never seen.
/// Taken along only when they are seen, all must end as a pass over everything at every step
/// leaves them, whatever the device, the threads, and the moment at which all are caught up.
#[test]
fn rows_taken_along_late_end_as_rows_moved_at_every_step() {
    let (rows, cols, steps) = (12, 71, 40);
    let seen = |step: u64| -> Vec<u32> {
        (0..10).filter(|row| step != 7 && (step * 7 + row * 5) % 11 < 3).map(|x| x as u32).collect()
    };
    let passes = |device: &mut dyn Device, weight_decay: f64, late: Option<u64>| {
        let spaces = [(); 4].map(|()| device.alloc(rows * cols));
        let tables = spaces.map(|space| View::matrix(space, 0, rows, cols));
        device.write_f64(tables[0], &rows::input(1, rows, cols).values);
        let [reached, touched] = [(); 2].map(|()| device.alloc_ids(rows));
        let table = (tables, Ids::at(reached, 0, rows));
        let mut moves = Vec::new();
        let mut norms = Vec::new();
        for step in 1..=steps {
            let here = seen(step);
            let touched = Ids::at(touched, 0, here.len());
            device.write_ids(touched, &here);
            if late.is_some() {
                device.adamw_rows(&of_rows(table, &moves, Some(touched), false, weight_decay));
            }
            let gradient = rows::input(1 + step, rows, cols).values;
            for &row in &here {
                let row = row as usize;
                let numbers = &gradient[row * cols..(row + 1) * cols];
                device.write_f64(tables[1].row_range(row..row + 1), numbers);
            }
            let squares = device.sum_of_squares_of_rows(tables[1], touched);
            let all = device.sum_of_squares(tables[1]);
            assert!((squares - all).abs() <= 1e-12 * all, "{squares}, should be {all}");
            norms.push(squares);
            let at = Move {
                step,
                learning_rate: 1e-2 / step as f64,
                gradient_scale: 1.0 / (1 + step % 3) as f64,
            };
            match late {
                Some(every) => {
                    moves.push(at);
                    device.adamw_rows(&of_rows(table, &moves, Some(touched), true, weight_decay));
                    if step % every == 0 || step == steps {
                        device.adamw_rows(&of_rows(table, &moves, None, false, weight_decay));
                        moves.clear();
                    }
                }
                None => device.adamw(&AdamW {
                    spaces,
                    spans: &[Span::new(0, rows * cols, weight_decay)],
                    learning_rate: at.learning_rate,
                    beta1: 0.9,
                    beta2: 0.99,
                    epsilon: 1e-8,
                    step,
                    gradient_scale: at.gradient_scale,
                }),
            }
        }
        (tables.map(|table| device.read_f64(table)), norms)
    };
    for weight_decay in [0.0, 0.1] {
        let want = passes(&mut Reference::<f64>::new(), weight_decay, None);
        assert!(want.0[0] != rows::input(1, rows, cols).values, "something moved");
        let want32 = passes(&mut Cpu::new(1), weight_decay, None);
        for every in [1, 9, 1000] {
            let late = Some(every);
            assert_eq!(passes(&mut Reference::<f64>::new(), weight_decay, late), want);
            for threads in [1, 3] {
                assert_eq!(passes(&mut Cpu::new(threads), weight_decay, late), want32);
            }
        }
    }
}

/// A step on trial moves as a real one and leaves gradient and moments alone; its slope is that of
/// finite differences, in double precision; and both devices agree.
#[test]
fn a_step_on_trial_moves_as_a_real_one_and_has_the_slope_of_finite_differences() {
    let len = 4_000;
    let at = Move { step: 3, learning_rate: 1e-2, gradient_scale: 0.5 };
    let adam = Update::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-4, at };
    let updates = [adam, Update::Sgd { learning_rate: 0.3 }];
    let spans =
        [Span::new(0, 70, 0.1), Span { rate: 0.25, since: 2, ..Span::new(70, len - 3, 0.1) }];
    let filled = |device: &mut dyn Device, more: f64| {
        let spaces = [(); 5].map(|()| device.alloc(len));
        for (seed, space) in (1..).zip(spaces) {
            let mut numbers = rows::input(seed, 1, len).values;
            match seed {
                2 => numbers.iter_mut().for_each(|g| *g += more),
                4 => numbers.iter_mut().for_each(|v| *v *= *v),
                _ => (),
            }
            device.write_f64(View::matrix(space, 0, 1, len), &numbers);
        }
        spaces
    };
    let read = |device: &dyn Device, space| device.read_f64(View::matrix(space, 0, 1, len));
    let ahead = |device: &mut dyn Device, update, more| {
        let [weights, gradient, first, second, _] = filled(device, more);
        let spaces = [weights, gradient, first, second];
        device.step_ahead(&Ahead { spaces, spans: &spans, update });
        spaces.map(|space| read(device, space))
    };
    let slope = |device: &mut dyn Device, update, zero: bool| {
        let [_, gradient, first, second, direction] = filled(device, 0.0);
        let gradient = (!zero).then_some(gradient);
        let moments = [first, second];
        device.slope(&Slope { direction, gradient, moments, spans: &spans, update });
        read(device, direction)
    };
    for update in updates {
        let want = ahead(&mut Reference::<f64>::new(), update, 0.0);
        let got = ahead(&mut Cpu::new(2), update, 0.0);
        for place in 0..4 {
            close("ahead", &format!("space {place}"), &got[place], &want[place]);
            assert!(place == 0 || got[place] != want[0], "gradient and moments are themselves");
        }
        for zero in [false, true] {
            let want = slope(&mut Reference::<f64>::new(), update, zero);
            close("slope", "direction", &slope(&mut Cpu::new(2), update, zero), &want);
        }
        let slopes = slope(&mut Reference::<f64>::new(), update, false);
        let h = 1e-6;
        let [more, less] = [h, -h].map(|h| ahead(&mut Reference::<f64>::new(), update, h));
        let direction = rows::input(5, 1, len).values;
        for number in 0..len - 3 {
            let want = direction[number] * (more[0][number] - less[0][number]) / (2.0 * h);
            let near = (slopes[number] - want).abs() <= 1e-6 * want.abs().max(1e-2);
            assert!(near, "slope {number} is {}, should be {want}", slopes[number]);
        }
    }
    let mut device = Reference::<f64>::new();
    let [weights, gradient, first, second, _] = filled(&mut device, 0.0);
    device.adamw(&AdamW {
        spaces: [weights, gradient, first, second],
        spans: &spans,
        learning_rate: at.learning_rate,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-4,
        step: at.step,
        gradient_scale: at.gradient_scale,
    });
    let want = read(&device, weights);
    let got = ahead(&mut Reference::<f64>::new(), adam, 0.0);
    close("ahead", "real step", &got[0], &want);
}

#[test]
fn rows_are_set_where_they_belong() {
    for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(2)] {
        let [table, from] = [4, 2].map(|rows| View::matrix(device.alloc(3 * rows), 0, rows, 3));
        let ids = Ids::at(device.alloc_ids(2), 0, 2);
        device.write_ids(ids, &[3, 1]);
        device.write(from, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        device.set_rows(from, table, ids);
        let want = [0.0, 0.0, 0.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0];
        assert_eq!(device.read(table), want);
        let of_row = device.sum_of_squares_of_rows(table, ids.first(1));
        assert_eq!(of_row, 1.0 + 4.0 + 9.0, "row 3 alone");
        device.clear_rows(table, ids.first(1));
        let want = [0.0, 0.0, 0.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(device.read(table), want);
    }
}

#[test]
#[should_panic(expected = "of moves from 5")]
fn a_step_that_a_row_missed_and_nobody_remembers_is_refused() {
    let mut cpu = Cpu::new(1);
    let spaces = [(); 4].map(|()| cpu.alloc(8));
    let reached = Ids::at(cpu.alloc_ids(2), 0, 2);
    let tables = spaces.map(|space| View::matrix(space, 0, 2, 4));
    let moves = [Move { step: 5, learning_rate: 0.1, gradient_scale: 1.0 }];
    cpu.adamw_rows(&of_rows((tables, reached), &moves, None, false, 0.0));
}

#[test]
fn empty_batches_are_no_work_and_no_fault() {
    let mut cpu = Cpu::new(2);
    for op in [
        &Lin { rows: 0, from: 8, to: 3, bias: true, activation: None, add_to_dx: false } as &dyn Op,
        &Norm { rows: 0, cols: 8, residual: true, dropout: true, in_place: false },
        &Att::full(vec![], 2, 4, true),
        &Mean { lengths: vec![], cols: 4 },
        &Loss { rows: 0, cols: 4, held: Held::Binary, size: 1.0 },
    ] {
        assert!(run(&mut cpu, op).results[0].is_empty(), "{}", op.name());
    }
    let op = Lin { rows: 0, from: 8, to: 3, bias: true, activation: None, add_to_dx: true };
    agree_in(Precision::Bf16, &op);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear_and_norm_agree_for_any_shape(rows in 1usize..70, from in 1usize..70, to in 1usize..70) {
        agree(&Lin { rows, from, to, bias: true, activation: None, add_to_dx: true });
        agree(&Norm { rows, cols: from + 8, residual: true, dropout: true, in_place: false });
    }

    #[test]
    fn linear_agrees_for_any_shape_where_factors_are_rounded(
        rows in 1usize..70, from in 1usize..70, to in 1usize..70, bias: bool, add_to_dx: bool,
    ) {
        agree_in(Precision::Bf16, &Lin { rows, from, to, bias, activation: None, add_to_dx });
    }

    #[test]
    fn attention_and_relations_agree_for_any_lengths(
        lengths in prop::collection::vec(1usize..50, 1..5),
        heads in 1usize..4,
        each in 1usize..20,
    ) {
        let width = heads * each;
        agree(&Att::full(lengths.clone(), heads, each, true));
        let measure = RelationMeasure::Kl;
        agree(&Rel { lengths, heads, width, teacher_width: width, measure, sides: Sides::Columns });
    }
}
