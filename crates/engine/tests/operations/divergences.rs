//! Divergences: the fast device against the reference, the reference against finite differences,
//! and what the definitions say of one another.

use heirloom_engine::{Cpu, Device, Divergence, IGNORED, Reference};
use proptest::prelude::*;

use crate::soft::{EVERY, SCALE, Soft, UNBOUNDED};

/// As for the other operations (`agreement.rs`): about a hundred roundings of `f32`.
const TOLERANCE: f64 = 1e-5;

fn reference(soft: &Soft) -> (Vec<f64>, Vec<f64>) {
    soft.run(&mut Reference::<f64>::new())
}

/// Equal up to `tolerance` of the largest number, which counts as at least `least`.
#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64], tolerance: f64, least: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(least, |largest: f64, x| largest.max(x.abs()));
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let near = (got - want).abs() <= tolerance * largest;
        assert!(near, "{what}[{at}] is {got}, should be {want} (largest {largest})");
    }
}

/// A loss is a difference of numbers of about `size` and carries T²; a gradient carries T.
fn agree(soft: &Soft, size: f64) {
    let what = format!("{:?}, {} columns, T {}", soft.divergence, soft.cols, soft.temperature);
    let (losses, gradient) = reference(soft);
    let got = soft.run(&mut Cpu::new(1));
    let unit = soft.temperature.max(1.0);
    close(&format!("{what}: loss"), &got.0, &losses, TOLERANCE, 0.05 * size * unit * unit);
    close(&format!("{what}: gradient"), &got.1, &gradient, TOLERANCE, 0.01 * size * unit);
    for threads in [2, 3] {
        assert!(soft.run(&mut Cpu::new(threads)) == got, "{what}: {threads} threads");
    }
}

#[test]
fn both_devices_agree_at_every_width_and_temperature() {
    for divergence in EVERY.into_iter().chain(UNBOUNDED) {
        for (rows, cols) in [(3, 1), (33, 2), (7, 3), (5, 17), (4, 384)] {
            for temperature in [0.5, 1.0, 4.0] {
                agree(&Soft::random(divergence, rows, cols, 2.0).at(temperature), 1.0);
            }
        }
    }
    for divergence in EVERY {
        agree(&Soft::random(divergence, 2, 30522, 3.0).at(1.0), 1.0);
    }
}

#[test]
fn both_devices_agree_where_logits_are_huge() {
    for divergence in EVERY {
        for temperature in [0.5, 1.0, 4.0] {
            // Logarithms of probabilities go to −103 and weigh what they are multiplied with.
            agree(&Soft::random(divergence, 5, 7, 1e4).at(temperature), 103.0);
        }
    }
}

/// Half the distance of two points: its square times a third derivative of unit size is 1e-10, the
/// rounding of a unit loss over it is 1e-11.
const STEP: f64 = 1e-5;

#[test]
fn gradients_are_those_of_finite_differences() {
    for divergence in EVERY.into_iter().chain(UNBOUNDED) {
        for temperature in [0.7, 1.0, 3.0] {
            let mut soft = Soft::random(divergence, 4, 5, 1.0).at(temperature);
            let gradient = reference(&soft).1;
            let mut want = Vec::new();
            for at in 0..soft.x.len() {
                let before = soft.x[at];
                let mut total = |x| {
                    soft.x[at] = x;
                    reference(&soft).0.iter().sum::<f64>()
                };
                let difference = total(before + STEP) - total(before - STEP);
                want.push(SCALE * difference / (2.0 * STEP));
                soft.x[at] = before;
            }
            let what = format!("{divergence:?} at T {temperature}");
            assert!(gradient.iter().any(|d| d.abs() > 1e-3), "{what}: there is a gradient");
            close(&what, &gradient, &want, 1e-6, 0.0);
        }
    }
}

/// Losses and gradients of two divergences on the same rows.
#[track_caller]
fn same(a: Divergence, b: Divergence, (scale_a, scale_b): (f64, f64), tolerance: f64) {
    for temperature in [1.0, 3.0] {
        let of = |divergence, scale: f64| {
            let soft = Soft::random(divergence, 6, 5, 2.0).at(temperature);
            let (losses, gradient) = reference(&soft);
            let all: Vec<f64> = losses.into_iter().chain(gradient).collect();
            all.into_iter().map(|x| scale * x).collect::<Vec<_>>()
        };
        close(&format!("{a:?} is {b:?}"), &of(a, scale_a), &of(b, scale_b), tolerance, 0.0);
    }
}

#[test]
fn special_parameters_give_the_two_kullback_leibler_divergences() {
    use Divergence::{AlphaBeta, ForwardKl, JensenShannon, ReverseKl, SkewKl, SkewReverseKl};
    same(SkewKl { alpha: 0.0 }, ForwardKl, (1.0, 1.0), 1e-13);
    same(SkewReverseKl { alpha: 0.0 }, ReverseKl, (1.0, 1.0), 1e-13);
    same(AlphaBeta { alpha: 1.0, beta: 0.0 }, ForwardKl, (1.0, 1.0), 1e-13);
    same(AlphaBeta { alpha: 0.0, beta: 1.0 }, ReverseKl, (1.0, 1.0), 1e-13);
    // The ends of the interpolation, after division; what is left is of the order of β.
    let small = 1e-6;
    same(JensenShannon { beta: small }, ForwardKl, (1.0 / small, 1.0), 1e-4);
    same(JensenShannon { beta: 1.0 - small }, ReverseKl, (1.0 / small, 1.0), 1e-4);
}

#[test]
fn every_limit_of_alpha_beta_is_approached_from_beside_it() {
    let beside = 1e-5;
    for (alpha, beta) in [(1.0, 0.0), (0.0, 1.0), (0.6, 0.0), (0.0, 0.4), (0.6, -0.6), (-0.3, 0.3)]
    {
        for (da, db) in [(beside, 0.0), (0.0, beside), (-beside, 0.0), (0.0, -beside)] {
            let near = Divergence::AlphaBeta { alpha: alpha + da, beta: beta + db };
            for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(1)] {
                let soft = |divergence| Soft::random(divergence, 6, 5, 1.0);
                let got = soft(near).run(device);
                let want = soft(Divergence::AlphaBeta { alpha, beta }).run(device);
                close(&format!("{near:?}"), &got.0, &want.0, 1e-3, 0.1);
                close(&format!("{near:?}"), &got.1, &want.1, 1e-3, 0.1);
            }
        }
    }
    let both = Divergence::AlphaBeta { alpha: beside, beta: beside };
    same(both, Divergence::AlphaBeta { alpha: 0.0, beta: 0.0 }, (1.0, 1.0), 1e-3);
}

#[test]
fn the_symmetric_one_is_the_mean_of_the_two_and_does_not_mind_which_side_is_which() {
    let rows = |divergence| Soft::random(divergence, 6, 5, 2.0);
    let [both, forward, reverse] =
        [Divergence::Symmetric, Divergence::ForwardKl, Divergence::ReverseKl]
            .map(|divergence| reference(&rows(divergence)));
    let mean =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| 0.5 * (a + b)).collect::<Vec<_>>();
    close("loss", &both.0, &mean(&forward.0, &reverse.0), 1e-14, 0.0);
    close("gradient", &both.1, &mean(&forward.1, &reverse.1), 1e-14, 0.0);
    for symmetric in [
        Divergence::Symmetric,
        Divergence::JensenShannon { beta: 0.5 },
        Divergence::AlphaBeta { alpha: 0.5, beta: 0.5 },
        Divergence::TotalVariation,
    ] {
        let given = rows(symmetric);
        let swapped = Soft { x: given.teacher.clone(), teacher: given.x.clone(), ..given.clone() };
        close("swapped", &reference(&swapped).0, &reference(&given).0, 1e-13, 0.0);
    }
}

#[test]
fn equal_halves_of_alpha_beta_are_twice_the_squared_distance_of_the_roots() {
    let soft = Soft::random(Divergence::AlphaBeta { alpha: 0.5, beta: 0.5 }, 3, 4, 1.0);
    let softmax = |x: &[f64]| {
        let total: f64 = x.iter().map(|x| x.exp()).sum();
        x.iter().map(|x| x.exp() / total).collect::<Vec<_>>()
    };
    let want: Vec<f64> = std::iter::zip(soft.x.chunks(4), soft.teacher.chunks(4))
        .map(|(x, t)| {
            let roots = softmax(x).into_iter().zip(softmax(t));
            2.0 * roots.map(|(q, p)| (p.sqrt() - q.sqrt()).powi(2)).sum::<f64>()
        })
        .collect();
    close("hellinger", &reference(&soft).0, &want, 1e-13, 0.0);
}

/// `ln softmax(teacher/T)` of one class of each row, as a probability.
fn teacher_says(soft: &Soft, row: usize) -> f64 {
    let logits = &soft.teacher[row * soft.cols..(row + 1) * soft.cols];
    let odds =
        |k: usize| ((logits[k] - logits[soft.labels[row] as usize]) / soft.temperature).exp();
    1.0 / (0..soft.cols).map(odds).sum::<f64>()
}

#[test]
fn decoupled_with_the_weights_of_its_derivation_is_the_divergence_itself() {
    for temperature in [1.0, 4.0] {
        for cols in [2, 3, 9] {
            let all = Soft::random(Divergence::ForwardKl, 6, cols, 2.0).at(temperature);
            for row in [0, 2, 3, 4, 5] {
                let part = row * cols..(row + 1) * cols;
                let one = Soft {
                    x: all.x[part.clone()].to_vec(),
                    teacher: all.teacher[part].to_vec(),
                    labels: vec![all.labels[row]],
                    ..all.clone()
                };
                let beta = 1.0 - teacher_says(&all, row);
                let split =
                    Soft { divergence: Divergence::Decoupled { alpha: 1.0, beta }, ..one.clone() };
                let (want, got) = (reference(&one), reference(&split));
                close("loss", &got.0, &want.0, 1e-12, 0.0);
                close("gradient", &got.1, &want.1, 1e-12, 0.0);
            }
        }
    }
}

#[test]
fn decoupled_over_two_classes_is_alpha_times_the_divergence_and_without_a_label_the_divergence() {
    let of = |divergence| Soft::random(divergence, 5, 2, 2.0);
    let (losses, gradient) = reference(&of(Divergence::ForwardKl));
    let got = reference(&of(Divergence::Decoupled { alpha: 3.0, beta: 8.0 }));
    for (row, loss) in losses.into_iter().enumerate() {
        let factor = if row == 1 { 1.0 } else { 3.0 }; // The second has no label.
        close("loss", &[got.0[row]], &[factor * loss], 1e-13, 0.0);
        for column in [2 * row, 2 * row + 1] {
            close("gradient", &[got.1[column]], &[factor * gradient[column]], 1e-13, 0.0);
        }
    }
}

#[test]
fn at_high_temperature_the_scaled_divergence_is_half_the_centred_squared_difference() {
    let rows = |divergence| Soft::random(divergence, 6, 5, 2.0);
    let limit = Soft { temperature: 1.0, ..rows(Divergence::MeanSquaredLogits { centred: true }) };
    let (losses, gradient) = reference(&limit);
    let off = |temperature: f64| {
        let got = reference(&rows(Divergence::ForwardKl).at(temperature));
        let apart = |got: &[f64], want: &[f64]| {
            got.iter().zip(want).map(|(got, want)| (got - 0.5 * want).abs()).fold(0.0, f64::max)
        };
        [apart(&got.0, &losses), apart(&got.1, &gradient)]
    };
    // The next term of the series in 1/T is of first order: twice the temperature, half the gap.
    for temperature in [100.0, 200.0, 400.0] {
        for (near, far) in off(temperature).into_iter().zip(off(2.0 * temperature)) {
            let order = (near / far).log2();
            assert!((order - 1.0).abs() < 0.1, "order {order} at T = {temperature}");
        }
    }
}

/// One row, its label class 0.
fn row(divergence: Divergence, x: &[f64], teacher: &[f64]) -> Soft {
    Soft {
        divergence,
        temperature: 2.0,
        cols: x.len(),
        x: x.to_vec(),
        teacher: teacher.to_vec(),
        labels: vec![0],
        weights: None,
    }
}

fn devices() -> [(Box<dyn Device>, f64); 2] {
    [(Box::new(Reference::<f64>::new()), 1e-12), (Box::new(Cpu::new(1)), TOLERANCE)]
}

const NEVER: f64 = f64::NEG_INFINITY;

#[test]
fn a_class_the_teacher_forbids_is_as_one_it_finds_as_good_as_impossible() {
    let x = [0.3, -1.0, 2.0, 0.5];
    for divergence in EVERY {
        if let Divergence::MeanSquaredLogits { .. } = divergence {
            continue; // Left out; below.
        }
        for (mut device, tolerance) in devices() {
            let forbidden = row(divergence, &x, &[1.0, NEVER, 0.2, NEVER]).run(&mut *device);
            let unlikely = row(divergence, &x, &[1.0, -1e4, 0.2, -1e4]).run(&mut *device);
            assert!(forbidden.0[0].is_finite() && forbidden.0[0] > 0.0, "{divergence:?}");
            close(&format!("{divergence:?}"), &forbidden.0, &unlikely.0, tolerance, 0.0);
            close(&format!("{divergence:?}"), &forbidden.1, &unlikely.1, tolerance, 0.0);
        }
    }
}

#[test]
fn a_class_that_both_forbid_is_not_there() {
    for divergence in EVERY.into_iter().chain(UNBOUNDED) {
        for (mut device, tolerance) in devices() {
            let with = row(divergence, &[0.3, NEVER, 2.0, 0.5], &[1.0, NEVER, 0.2, -0.4]);
            let without = row(divergence, &[0.3, 2.0, 0.5], &[1.0, 0.2, -0.4]);
            let (mut got, want) = (with.run(&mut *device), without.run(&mut *device));
            assert_eq!(got.1.remove(1), 0.0, "{divergence:?}: no gradient where none can act");
            close(&format!("{divergence:?}"), &got.0, &want.0, tolerance, 0.0);
            close(&format!("{divergence:?}"), &got.1, &want.1, tolerance, 0.0);
        }
    }
}

#[test]
fn squared_differences_leave_out_what_either_forbids() {
    for centred in [false, true] {
        let divergence = Divergence::MeanSquaredLogits { centred };
        for (mut device, tolerance) in devices() {
            let with = row(divergence, &[0.3, 9.0, NEVER, 0.5], &[1.0, NEVER, 7.0, -0.4]);
            let without = row(divergence, &[0.3, 0.5], &[1.0, -0.4]);
            let (got, want) = (with.run(&mut *device), without.run(&mut *device));
            close("loss", &got.0, &want.0, tolerance, 0.0);
            close("gradient", &[got.1[0], got.1[3]], &want.1, tolerance, 0.0);
            assert_eq!(got.1[1..3], [0.0; 2]);
        }
    }
}

#[test]
fn decoupled_has_an_answer_where_the_teacher_leaves_one_class_or_forbids_the_label() {
    let divergence = Divergence::Decoupled { alpha: 2.0, beta: 8.0 };
    let x = [0.3, -1.0, 2.0];
    for (mut device, tolerance) in devices() {
        // Only the label: α times −ln q_y, and no shape of the rest to copy.
        let (got, plain) = (
            row(divergence, &x, &[1.0, NEVER, NEVER]).run(&mut *device),
            row(Divergence::ForwardKl, &x, &[1.0, NEVER, NEVER]).run(&mut *device),
        );
        close("loss", &got.0, &[2.0 * plain.0[0]], tolerance, 0.0);
        let doubled: Vec<f64> = plain.1.iter().map(|d| 2.0 * d).collect();
        close("gradient", &got.1, &doubled, tolerance, 0.0);
        // Not the label, by the teacher alone and by both.
        for x in [x, [NEVER, -1.0, 2.0]] {
            let (losses, gradient) = row(divergence, &x, &[NEVER, 0.5, 1.0]).run(&mut *device);
            let numbers = losses.iter().chain(&gradient);
            assert!(numbers.clone().all(|x| x.is_finite()), "{losses:?} {gradient:?}");
        }
    }
}

#[test]
fn a_logit_that_is_not_a_number_is_not_hidden() {
    for divergence in EVERY {
        if let Divergence::ForwardKl | Divergence::SkewKl { alpha: 0.0 } = divergence {
            continue; // Its loss passes over such a class; its gradient does not.
        }
        let bad = row(divergence, &[0.3, f64::NAN, 2.0], &[1.0, 0.5, 0.2]);
        assert!(!bad.run(&mut Cpu::new(1)).0[0].is_finite(), "{divergence:?}");
    }
}

#[test]
#[should_panic(expected = "one label per row")]
fn decoupled_without_labels_is_refused() {
    let divergence = Divergence::Decoupled { alpha: 1.0, beta: 1.0 };
    let row = Soft { labels: vec![], ..row(divergence, &[0.0, 1.0], &[1.0, 0.0]) };
    row.run(&mut Cpu::new(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn none_is_negative_and_all_are_zero_at_equality(
        pairs in prop::collection::vec((-30.0f32..30.0, -30.0f32..30.0), 1..40),
        temperature in 0.3f64..8.0,
    ) {
        let (x, teacher): (Vec<f64>, Vec<f64>) =
            pairs.iter().map(|&(x, t)| (f64::from(x), f64::from(t))).unzip();
        for divergence in EVERY {
            for (mut device, tolerance) in devices() {
                let least = -tolerance * temperature * temperature;
                let apart = Soft { temperature, ..row(divergence, &x, &teacher) };
                let loss = apart.run(&mut *device).0[0];
                prop_assert!(loss >= least, "{divergence:?}: {loss}");
                let equal = Soft { temperature, ..row(divergence, &x, &x) };
                let (losses, gradient) = equal.run(&mut *device);
                prop_assert!(losses[0].abs() <= 1e-12, "{divergence:?}: {}", losses[0]);
                prop_assert!(gradient.iter().all(|d| d.abs() <= 1e-12), "{divergence:?}");
                let missing = Soft { labels: vec![IGNORED], ..apart };
                let loss = missing.run(&mut *device).0[0];
                prop_assert!(loss >= least, "{divergence:?}: {loss}");
            }
        }
    }
}
