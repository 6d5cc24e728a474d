//! The reference's gradients in double precision against central finite differences.

use heirloom_engine::{
    Activation, AdamW, Cpu, Device, HiddenDistance, IGNORED, Reference, RelationMeasure, RowLoss,
    Span, Target, View,
};

use crate::rows::{
    Att, Drop, Emb, Held, Input, Lin, Loss, Mean, Norm, Op, Rel, Sides, Through, ids, new, place,
    run, weights,
};

/// Half the distance of the two points of a difference. Its square times a third derivative of
/// unit size is 1e-12; the rounding of a loss of size 100 over it is 1e-8.
const STEP: f64 = 1e-6;
/// Largest difference allowed, relative to the largest gradient of the same matrix or to 1: ten
/// times the rounding above.
const TOLERANCE: f64 = 1e-7;

/// The loss: results, weighted and summed.
fn loss(op: &dyn Op, inputs: &[Input]) -> f64 {
    let mut device = Reference::<f64>::new();
    let x = place(&mut device, inputs);
    let y = op.forward(&mut device, &x);
    let parts = y.results.iter().enumerate().map(|(at, &view)| {
        let weights = weights(op, at, view.len());
        device.read_f64(view).iter().zip(weights).map(|(y, weight)| y * weight).sum::<f64>()
    });
    parts.sum()
}

pub(crate) fn check(op: &dyn Op) {
    let name = op.name();
    let gradients = run(&mut Reference::<f64>::new(), op).gradients;
    let mut inputs = op.inputs();
    for (which, gradient) in gradients.iter().enumerate() {
        let Some(gradient) = gradient else { continue };
        let largest = gradient.iter().fold(1.0, |largest: f64, d| largest.max(d.abs()));
        assert!(gradient.iter().any(|&d| d != 0.0), "{name}: input {which} has a gradient");
        for (at, &got) in gradient.iter().enumerate() {
            let value = inputs[which].values[at];
            let mut at_point = |x| {
                inputs[which].values[at] = x;
                loss(op, &inputs)
            };
            let want = (at_point(value + STEP) - at_point(value - STEP)) / (2.0 * STEP);
            at_point(value);
            let near = (got - want).abs() <= TOLERANCE * largest;
            assert!(near, "{name}: input {which}[{at}] has gradient {got}, should be {want}");
        }
    }
}

#[test]
fn of_linear_with_and_without_bias_and_on_top_of_another_branch() {
    for (bias, add_to_dx) in [(true, false), (false, true)] {
        check(&Lin { rows: 3, from: 4, to: 5, bias, activation: None, add_to_dx });
    }
}

#[test]
fn of_each_activation() {
    use Activation::{Gelu, GeluTanh, Relu, Silu, Tanh};
    for f in [Gelu, GeluTanh, Relu, Silu, Tanh] {
        let activation = Some(f);
        check(&Lin { rows: 4, from: 3, to: 5, bias: true, activation, add_to_dx: false });
        check(&Through { rows: 4, from: 3, inner: 5, to: 2, activation: f });
    }
}

#[test]
fn of_add_norm_with_every_choice() {
    for flags in 0..8 {
        let (residual, dropout, in_place) = (flags & 1 > 0, flags & 2 > 0, flags & 4 > 0);
        check(&Norm { rows: 3, cols: 6, residual, dropout, in_place });
    }
}

#[test]
fn of_dropout_embedding_and_means() {
    check(&Drop { rows: 4, cols: 7 });
    check(&Emb { rows: 9, cols: 3, table: 4 });
    check(&Mean { lengths: vec![1, 3, 2], cols: 3 });
}

#[test]
fn of_attention_over_sequences_of_unequal_lengths() {
    for dropout in [false, true] {
        check(&Att::full(vec![3, 1, 5], 2, 3, dropout));
    }
}

#[test]
fn of_each_row_loss() {
    use HiddenDistance::{Cosine, MeanSquared, Normalized};
    for held in [
        Held::Labels(vec![2, IGNORED, 0, 3]),
        Held::Softened { labels: vec![2, IGNORED, 0, 3], share: 0.2, temperature: f64::INFINITY },
        Held::Teacher { temperature: 1.0 },
        Held::Teacher { temperature: 3.0 },
        Held::Binary,
        Held::Distance(MeanSquared),
        Held::Distance(Cosine),
        Held::Distance(Normalized),
    ] {
        check(&Loss { rows: 4, cols: 5, held, size: 1.0 });
    }
}

#[test]
fn of_relations_between_two_matrices_one_and_columns() {
    for measure in [RelationMeasure::Kl, RelationMeasure::ScoresMse] {
        for sides in [Sides::Apart, Sides::Same, Sides::Columns] {
            let lengths = vec![3, 1, 4];
            check(&Rel { lengths, heads: 2, width: 4, teacher_width: 6, measure, sides });
        }
    }
}

/// The gradient with the softened part held fixed is that of the minimum over distributions P of
/// `CE(P, s) + T·KL(P ‖ even)`, which is `−T ln Σ s^(1/T) + T ln V`, by the envelope theorem.
#[test]
fn of_the_own_softened_answer_is_the_slope_of_the_inner_minimum() {
    let (rows, cols, share, temperature) = (4, 5, 0.3, 1.7);
    let labels = vec![2, IGNORED, 0, 3];
    let loss = Loss {
        rows,
        cols,
        held: Held::Softened { labels: labels.clone(), share, temperature },
        size: 1.0,
    };
    let found = run(&mut Reference::<f64>::new(), &loss);
    let gradient = found.gradients[0].as_deref().expect("logits have a gradient");
    let x = loss.inputs()[0].values.clone();
    let total = |x: &[f64]| -> f64 {
        let row = |(x, &label): (&[f64], &u32)| {
            if label == IGNORED {
                return 0.0;
            }
            let ln_total = x.iter().map(|x| x.exp()).sum::<f64>().ln();
            let power = x.iter().map(|x| ((x - ln_total) / temperature).exp()).sum::<f64>();
            let inner = -temperature * power.ln() + temperature * (cols as f64).ln();
            (1.0 - share) * (ln_total - x[label as usize]) + share * inner
        };
        0.7 * x.chunks(cols).zip(&labels).map(row).sum::<f64>()
    };
    for at in 0..x.len() {
        let moved = |by: f64| {
            let mut x = x.clone();
            x[at] += by;
            total(&x)
        };
        let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assert!((slope - gradient[at]).abs() < 1e-8, "{at}: {slope}, found {}", gradient[at]);
    }
}

#[test]
fn a_share_of_nothing_is_the_label_and_an_endless_temperature_is_even() {
    let labels = vec![2, 4, 0, 3];
    let of = |held| run(&mut Reference::<f64>::new(), &Loss { rows: 4, cols: 5, held, size: 1.0 });
    let softened = |share, temperature| {
        of(Held::Softened { labels: labels.clone(), share, temperature }).results[0].clone()
    };
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    let plain = of(Held::Labels(labels.clone())).results[0].clone();
    assert!(near(&softened(0.0, 2.0), &plain));
    assert!(near(&softened(0.1, f64::INFINITY), &softened(0.1, 1e15)));
    assert!(!near(&softened(0.1, f64::INFINITY), &plain));
}

#[test]
fn a_miss_is_a_label_that_is_not_the_first_of_the_largest() {
    let rows: [(&[f64], u32, f64); 6] = [
        (&[1.0, 3.0, 2.0], 1, 0.0),
        (&[1.0, 3.0, 2.0], 2, 1.0),
        (&[3.0, 3.0, 2.0], 0, 0.0),
        (&[3.0, 3.0, 2.0], 1, 1.0),
        (&[3.0, f64::NAN, 2.0], 0, 1.0),
        (&[1.0, 3.0, 2.0], IGNORED, 0.0),
    ];
    let devices: [Box<dyn Device>; 2] = [Box::new(Reference::<f64>::new()), Box::new(Cpu::new(1))];
    for mut device in devices {
        for (x, label, want) in rows {
            let (view, losses) = (new(&mut *device, 1, 3), new(&mut *device, 1, 1));
            let dx = new(&mut *device, 1, 3);
            device.write_f64(view, x);
            device.fill(dx, 0.5);
            let target = Target::Misses(ids(&mut *device, &[label]));
            device.row_loss(&RowLoss {
                x: view,
                target,
                scale: 1.0,
                weights: None,
                losses,
                dx: Some(dx),
            });
            assert_eq!(device.read_f64(losses), [want], "{x:?} labelled {label}");
            assert_eq!(device.read_f64(dx), [0.5; 3], "a step has no slope");
        }
    }
}

#[test]
fn an_ignored_row_has_loss_and_gradient_zero() {
    let labels = Held::Labels(vec![1, IGNORED]);
    let numbers =
        run(&mut Reference::<f64>::new(), &Loss { rows: 2, cols: 3, held: labels, size: 1.0 });
    assert_eq!(numbers.results[0][1], 0.0);
    let gradient = numbers.gradients[0].as_deref().expect("logits have a gradient");
    assert_eq!(gradient[3..], [0.0; 3]);
}

#[test]
fn huge_logits_give_finite_losses_and_gradients_on_both_devices() {
    for held in [
        Held::Labels(vec![0, 1, 2]),
        Held::Teacher { temperature: 1.0 },
        Held::Binary,
        Held::Distance(HiddenDistance::Cosine),
        Held::Distance(HiddenDistance::Normalized),
    ] {
        for size in [1e4, 0.0] {
            let op = Loss { rows: 3, cols: 4, held: held.clone(), size };
            for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(1)] {
                let numbers = run(device, &op);
                let gradient = numbers.gradients[0].as_deref().expect("logits have a gradient");
                let all = numbers.results[0].iter().chain(gradient);
                assert!(all.clone().all(|x| x.is_finite()), "{}", op.name());
            }
        }
    }
}

/// One weight 1, gradient 0.5, first step: m = 0.05, v = 0.00025, and after the corrections
/// m̂ = 0.5 and √v̂ = 0.5, so w = 1 − 0.1·0.01·1 − 0.1·0.5/0.5 = 0.899 but for ε.
#[test]
fn adamw_does_what_can_be_worked_out_by_hand_and_clears_the_gradient() {
    let mut device = Reference::<f64>::new();
    let spaces = [(); 4].map(|()| device.alloc(1));
    let one = |space| View::matrix(space, 0, 1, 1);
    device.write_f64(one(spaces[0]), &[1.0]);
    device.write_f64(one(spaces[1]), &[1.0]);
    device.adamw(&AdamW {
        spaces,
        spans: &[Span::new(0, 1, 0.01)],
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 0.0,
        step: 1,
        gradient_scale: 0.5,
    });
    let [weight, gradient, first, second] = spaces.map(|space| device.read_f64(one(space))[0]);
    assert!((weight - 0.899).abs() < 1e-12, "{weight}");
    assert_eq!(gradient, 0.0);
    assert!((first - 0.05).abs() < 1e-12 && (second - 0.00025).abs() < 1e-12, "{first} {second}");
}
