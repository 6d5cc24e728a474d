//! Weights of rows: they scale gradients, not losses, and zero means untouched.

use heirloom_engine::{
    Cpu, Device, Divergence, HiddenDistance, Ids, Reference, RowLoss, Target, View,
};

use crate::rows::{BEFORE, ids, input, new};
use crate::soft::{EVERY, SCALE, Soft};

const WEIGHTS: [f64; 5] = [0.25, 0.0, 1.0, 2.5, -0.5];

fn weighted(divergence: Divergence) -> Soft {
    let weights = Some(WEIGHTS.to_vec());
    Soft { weights, ..Soft::random(divergence, WEIGHTS.len(), 7, 2.0) }
}

#[test]
fn each_row_has_its_gradient_times_its_weight_and_its_loss_as_before() {
    for divergence in EVERY {
        let plain = Soft { weights: None, ..weighted(divergence) };
        for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(2)] {
            let ((losses, gradient), (all, whole)) =
                (weighted(divergence).run(device), plain.run(device));
            assert_eq!(losses, all, "{divergence:?}");
            for (row, weight) in WEIGHTS.into_iter().enumerate() {
                for column in row * 7..(row + 1) * 7 {
                    let want = weight * whole[column];
                    // Roundings of `f32` around what the gradient held before.
                    let near = (gradient[column] - want).abs() <= 1e-6;
                    assert!(near, "{divergence:?}: row {row}, {} is not {want}", gradient[column]);
                }
            }
        }
    }
}

#[test]
fn the_gradient_is_that_of_the_weighted_sum_by_finite_differences() {
    let step = 1e-5;
    for divergence in EVERY {
        let mut soft = weighted(divergence);
        let (_, gradient) = soft.run(&mut Reference::<f64>::new());
        for (at, got) in gradient.into_iter().enumerate() {
            let before = soft.x[at];
            let mut total = |x: f64| {
                soft.x[at] = x;
                let losses = soft.run(&mut Reference::<f64>::new()).0;
                SCALE * losses.iter().zip(WEIGHTS).map(|(loss, weight)| loss * weight).sum::<f64>()
            };
            let want = (total(before + step) - total(before - step)) / (2.0 * step);
            soft.x[at] = before;
            let near = (got - want).abs() <= 1e-6 * want.abs().max(1.0);
            assert!(near, "{divergence:?}: [{at}] is {got}, should be {want}");
        }
    }
}

/// Every other kind of target, on rows of three.
fn targets(device: &mut dyn Device, rows: usize) -> Vec<Target> {
    let labels: Ids = ids(device, &vec![1; rows]);
    let other: View = new(device, rows, 3);
    device.write_f64(other, &input(2, rows, 3).values);
    let distance = |distance| Target::Distance(distance, other);
    vec![
        Target::Labels(labels),
        Target::Binary(other),
        distance(HiddenDistance::MeanSquared),
        distance(HiddenDistance::Cosine),
        distance(HiddenDistance::Normalized),
        given(device, rows),
    ]
}

/// Losses and gradients that were computed elsewhere.
fn given(device: &mut dyn Device, rows: usize) -> Target {
    let (losses, gradients) = (new(device, rows, 1), new(device, rows, 3));
    device.write_f64(losses, &input(4, rows, 1).values);
    device.write_f64(gradients, &input(5, rows, 3).values);
    Target::Given { losses, gradients }
}

#[test]
fn what_is_given_is_added_as_it_is() {
    for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(2)] {
        let target = given(device, 4);
        let (x, dx, losses) = (new(device, 4, 3), new(device, 4, 3), new(device, 4, 1));
        device.fill(dx, BEFORE);
        device.row_loss(&RowLoss { x, target, scale: 0.5, weights: None, losses, dx: Some(dx) });
        assert_eq!(device.read_f64(losses), input(4, 4, 1).values);
        let want = input(5, 4, 3).values.into_iter().map(|d| f64::from(BEFORE) + 0.5 * d);
        let near = |(got, want): (f64, f64)| (got - want).abs() < 1e-6;
        assert!(device.read_f64(dx).into_iter().zip(want).all(near));
    }
}

#[test]
#[should_panic(expected = "one given loss per row")]
fn a_given_loss_for_every_row_is_asked_for() {
    let mut device = Cpu::new(1);
    let (x, losses, gradients) =
        (new(&mut device, 2, 3), new(&mut device, 2, 1), new(&mut device, 2, 3));
    let target = Target::Given { losses: new(&mut device, 3, 1), gradients };
    device.row_loss(&RowLoss { x, target, scale: 1.0, weights: None, losses, dx: None });
}

#[test]
fn a_weight_of_zero_leaves_the_gradient_untouched_even_where_the_row_is_not_finite() {
    for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(1)] {
        let mut all = targets(device, 2);
        let logits = new(device, 2, 3);
        let labels = Some(ids(device, &[0, 1]));
        all.extend(EVERY.map(|divergence| Target::Teacher {
            logits,
            divergence,
            temperature: 1.0,
            factor: 1.0,
            labels,
        }));
        for target in all {
            for bad in [f64::NAN, f64::INFINITY] {
                let (x, dx) = (new(device, 2, 3), new(device, 2, 3));
                let (losses, weights) = (new(device, 2, 1), new(device, 2, 1));
                device.write_f64(x, &[0.1, bad, 0.3, 0.4, 0.5, 0.6]);
                device.write_f64(weights, &[0.0, 1.0]);
                device.fill(dx, BEFORE);
                let weights = Some(weights);
                device.row_loss(&RowLoss { x, target, scale: 1.0, weights, losses, dx: Some(dx) });
                let gradient = device.read_f64(dx);
                assert_eq!(gradient[..3], [f64::from(BEFORE); 3], "{target:?}");
                assert!(gradient[3..].iter().all(|d| d.is_finite()), "{target:?}");
            }
        }
    }
}

#[test]
fn other_targets_are_weighted_alike_on_both_devices() {
    let run = |device: &mut dyn Device, weights: Option<[f64; 4]>| {
        let mut found = Vec::new();
        for target in targets(device, 4) {
            let (x, dx, losses) = (new(device, 4, 3), new(device, 4, 3), new(device, 4, 1));
            device.write_f64(x, &input(1, 4, 3).values);
            let weights = weights.map(|weights| {
                let view = new(device, 4, 1);
                device.write_f64(view, &weights);
                view
            });
            device.row_loss(&RowLoss { x, target, scale: SCALE, weights, losses, dx: Some(dx) });
            found.push((device.read_f64(losses), device.read_f64(dx)));
        }
        found
    };
    let weights = [0.5, 0.0, 2.0, 1.0];
    let plain = run(&mut Reference::<f64>::new(), None);
    for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(2)] {
        for ((losses, gradient), (all, whole)) in run(device, Some(weights)).iter().zip(&plain) {
            let near = |a: &f64, b: f64| (a - b).abs() <= 1e-6;
            assert!(losses.iter().zip(all).all(|(a, &b)| near(a, b)));
            let want = whole.iter().enumerate().map(|(at, d)| d * weights[at / 3]);
            assert!(gradient.iter().zip(want).all(|(a, b)| near(a, b)));
        }
    }
}

#[test]
#[should_panic(expected = "one weight per row")]
fn weights_of_another_length_are_refused() {
    let mut device = Cpu::new(1);
    let (x, losses, weights) =
        (new(&mut device, 2, 3), new(&mut device, 2, 1), new(&mut device, 3, 1));
    let target = targets(&mut device, 2)[0];
    let weights = Some(weights);
    device.row_loss(&RowLoss { x, target, scale: 1.0, weights, losses, dx: None });
}
