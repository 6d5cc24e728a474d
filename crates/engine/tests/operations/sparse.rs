//! Losses on a few classes: the fast device against the reference, the reference against finite
//! differences and the dense losses, and what each way with the rest does to the gradient.

use heirloom_engine::{
    Cpu, Device, Divergence, IGNORED, Missing, Reference, RowLoss, SparseLoss, SparseTarget, Target,
};
use proptest::prelude::*;

use crate::rows::{BEFORE, ids, input, new};
use crate::soft::{EVERY, SCALE, Soft};

/// As for the other operations (`agreement.rs`): about a hundred roundings of `f32`.
const TOLERANCE: f64 = 1e-5;

const WAYS: [Missing; 3] = [Missing::TailBucket, Missing::Renormalise, Missing::Zero];
const FORWARD: SparseLoss = SparseLoss::Divergence(Divergence::ForwardKl);

/// Every loss that a way with the rest allows.
fn allowed() -> impl Iterator<Item = (SparseLoss, Missing)> {
    let losses = EVERY.map(SparseLoss::Divergence).into_iter().chain([SparseLoss::CrossEntropy]);
    losses
        .flat_map(|loss| WAYS.map(|missing| (loss, missing)))
        .filter(|&(loss, missing)| SparseTarget::refusal(loss, missing).is_none())
}

/// One batch of rows, and what a teacher's row knows.
#[derive(Clone, Debug)]
struct Sparse {
    loss: SparseLoss,
    missing: Missing,
    temperature: f64,
    cols: usize,
    x: Vec<f64>,
    /// K places of each row.
    width: usize,
    ids: Vec<u32>,
    p: Vec<f64>,
    rest: Vec<f64>,
    weights: Option<Vec<f64>>,
}

fn softmax(x: &[f64], temperature: f64) -> Vec<f64> {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts: Vec<f64> = x.iter().map(|x| ((x - largest) / temperature).exp()).collect();
    let total: f64 = parts.iter().sum();
    parts.into_iter().map(|part| part / total).collect()
}

impl Sparse {
    /// The likeliest `width` classes of each of the teacher's rows, in the logits of [`Soft`].
    fn of(soft: &Soft, width: usize, loss: SparseLoss, missing: Missing) -> Self {
        let (mut ids, mut p, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for logits in soft.teacher.chunks(soft.cols) {
            let all = softmax(logits, soft.temperature);
            let mut order: Vec<usize> = (0..soft.cols).collect();
            order.sort_by(|&a, &b| all[b].total_cmp(&all[a]));
            let (known, others) = order.split_at(width);
            let mut known = known.to_vec();
            known.sort_unstable();
            ids.extend(known.iter().map(|&id| id as u32));
            p.extend(known.iter().map(|&id| all[id]));
            rest.push(others.iter().map(|&id| all[id]).sum());
        }
        let Soft { temperature, cols, ref x, ref weights, .. } = *soft;
        let (x, weights) = (x.clone(), weights.clone());
        Self { loss, missing, temperature, cols, x, width, ids, p, rest, weights }
    }

    fn random(
        loss: SparseLoss,
        missing: Missing,
        (rows, cols, width): (usize, usize, usize),
    ) -> Self {
        Self::of(&Soft::random(Divergence::ForwardKl, rows, cols, 2.0), width, loss, missing)
    }

    /// Loss of each row, and the gradient of `x`.
    fn run(&self, device: &mut dyn Device) -> (Vec<f64>, Vec<f64>) {
        let rows = self.rest.len();
        let [x, dx] = [(); 2].map(|()| new(device, rows, self.cols));
        let (probabilities, rest) = (new(device, rows, self.width), new(device, rows, 1));
        device.write_f64(x, &self.x);
        device.write_f64(probabilities, &self.p);
        device.write_f64(rest, &self.rest);
        device.fill(dx, BEFORE);
        let losses = new(device, rows, 1);
        let weights = self.weights.as_ref().map(|weights| {
            let view = new(device, rows, 1);
            device.write_f64(view, weights);
            view
        });
        let target = Target::Sparse(SparseTarget {
            ids: ids(device, &self.ids),
            probabilities,
            rest,
            loss: self.loss,
            missing: self.missing,
            temperature: self.temperature,
            factor: self.temperature * self.temperature,
        });
        device.row_loss(&RowLoss { x, target, scale: SCALE, weights, losses, dx: Some(dx) });
        let gradient = device.read_f64(dx).iter().map(|d| d - f64::from(BEFORE)).collect();
        (device.read_f64(losses), gradient)
    }

    fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        self.run(&mut Reference::<f64>::new())
    }
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

#[track_caller]
fn agree(sparse: &Sparse) {
    let Sparse { loss, missing, cols, width, temperature, .. } = *sparse;
    let what = format!("{loss:?}, {missing:?}, {width} of {cols}, T {temperature}");
    let (losses, gradient) = sparse.reference();
    let got = sparse.run(&mut Cpu::new(1));
    let unit = temperature.max(1.0);
    close(&format!("{what}: loss"), &got.0, &losses, TOLERANCE, 0.05 * unit * unit);
    close(&format!("{what}: gradient"), &got.1, &gradient, TOLERANCE, 0.01 * unit);
    for threads in [2, 3] {
        assert!(sparse.run(&mut Cpu::new(threads)) == got, "{what}: {threads} threads");
    }
}

#[test]
fn both_devices_agree_for_every_loss_and_every_way_with_the_rest() {
    for (loss, missing) in allowed() {
        for shape in [(3, 1, 1), (33, 2, 1), (7, 5, 3), (5, 17, 17), (6, 400, 9)] {
            for temperature in [0.5, 1.0, 4.0] {
                let soft = Soft::random(Divergence::ForwardKl, shape.0, shape.1, 2.0);
                agree(&Sparse::of(&soft.at(temperature), shape.2, loss, missing));
            }
        }
        agree(&Sparse::random(loss, missing, (2, 50_257, 64)));
    }
}

#[test]
fn both_devices_agree_where_the_student_puts_all_but_nothing_on_the_others_or_on_the_known() {
    for missing in WAYS {
        for size in [-60.0, 60.0] {
            for loss in [SparseLoss::CrossEntropy, FORWARD] {
                let mut sparse = Sparse::random(loss, missing, (4, 40, 5));
                for (row, x) in sparse.x.chunks_mut(40).enumerate() {
                    sparse.ids[5 * row..5 * row + 5].iter().for_each(|&id| x[id as usize] += size);
                }
                agree(&sparse);
            }
        }
    }
}

/// Half the distance of two points; see `divergences.rs`.
const STEP: f64 = 1e-5;

#[test]
fn gradients_are_those_of_finite_differences() {
    for (loss, missing) in allowed() {
        for temperature in [0.7, 1.0, 3.0] {
            let soft = Soft::random(Divergence::ForwardKl, 4, 7, 1.0).at(temperature);
            let mut sparse = Sparse::of(&soft, 3, loss, missing);
            // Samples: probabilities that are not the softmax of anything, and a place not used.
            sparse.p[..3].copy_from_slice(&[0.75, 0.25, f64::NAN]);
            (sparse.ids[2], sparse.rest[0]) = (IGNORED, 0.0);
            let gradient = sparse.reference().1;
            let mut want = Vec::new();
            for at in 0..sparse.x.len() {
                let before = sparse.x[at];
                let mut total = |x| {
                    sparse.x[at] = x;
                    sparse.reference().0.iter().sum::<f64>()
                };
                let difference = total(before + STEP) - total(before - STEP);
                want.push(SCALE * difference / (2.0 * STEP));
                sparse.x[at] = before;
            }
            let what = format!("{loss:?}, {missing:?} at T {temperature}");
            let there = gradient.iter().any(|d| d.abs() > 1e-3);
            let none = matches!(loss, SparseLoss::Divergence(Divergence::SkewKl { alpha: 1.0 }));
            assert!(there || none, "{what}: there is a gradient");
            close(&what, &gradient, &want, 1e-6, 0.0);
        }
    }
}

#[test]
fn all_classes_known_is_the_dense_loss() {
    for (loss, missing) in allowed() {
        for temperature in [0.5, 1.0, 4.0] {
            let divergence = match loss {
                SparseLoss::Divergence(divergence) => divergence,
                SparseLoss::CrossEntropy => Divergence::ForwardKl,
            };
            let soft = Soft::random(divergence, 5, 9, 2.0).at(temperature);
            let want = soft.run(&mut Reference::<f64>::new());
            let sparse = Sparse::of(&soft, 9, loss, missing);
            let mut got = sparse.reference();
            if loss == SparseLoss::CrossEntropy {
                for (loss, p) in got.0.iter_mut().zip(sparse.p.chunks(9)) {
                    *loss += temperature * temperature * p.iter().map(|p| p * p.ln()).sum::<f64>();
                }
            }
            let what = format!("{loss:?}, {missing:?} at T {temperature}");
            close(&what, &got.0, &want.0, 1e-10, 1.0);
            close(&what, &got.1, &want.1, 1e-10, 1.0);
        }
    }
}

/// A teacher with these probabilities of the first classes and the student that agrees with it over
/// all: `rest` is spread evenly over four more classes.
fn agreeing(missing: Missing, p: [f64; 2], rest: f64) -> Sparse {
    let q: Vec<f64> = p.into_iter().chain([rest / 4.0; 4]).collect();
    Sparse {
        loss: FORWARD,
        missing,
        temperature: 1.0,
        cols: 6,
        x: q.iter().map(|q| q.ln()).collect(),
        width: 2,
        ids: vec![0, 1],
        p: p.to_vec(),
        rest: vec![rest],
        weights: None,
    }
}

#[test]
fn what_becomes_of_the_rest_is_what_a_student_that_agrees_still_hears() {
    let (p, rest) = ([0.5, 0.3], 0.2);
    let gradient = |missing| {
        let gradient = agreeing(missing, p, rest).reference().1;
        gradient.into_iter().map(|d| d / SCALE).collect::<Vec<_>>()
    };
    close("one class for the rest", &gradient(Missing::TailBucket), &[0.0; 6], 1e-14, 1.0);
    // q − p/(1 − r): up with what is known, down with the rest.
    let away: Vec<f64> = p.iter().map(|p| p - p / 0.8).chain([0.05; 4]).collect();
    close("shared out", &gradient(Missing::Renormalise), &away, 1e-14, 1.0);
    let shorter: Vec<f64> = away.iter().map(|d| 0.8 * d).collect();
    close("left out", &gradient(Missing::Zero), &shorter, 1e-14, 1.0);
    // Losses: none; −ln of what is known; negative, since what is left does not sum to 1.
    let loss = |missing| agreeing(missing, p, rest).reference().0[0];
    close("losses", &WAYS.map(loss), &[0.0, -0.8f64.ln(), 0.0], 1e-14, 1.0);
}

#[test]
fn one_class_for_the_rest_does_not_hear_how_the_student_spreads_it() {
    for loss in [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::TotalVariation] {
        let even = Sparse {
            loss: SparseLoss::Divergence(loss),
            ..agreeing(Missing::TailBucket, [0.4, 0.1], 0.5)
        };
        let mut uneven = even.clone();
        uneven.x[0] += 1.0;
        let mut even = uneven.clone();
        for (x, q) in uneven.x[2..].iter_mut().zip([0.3f64, 0.15, 0.04, 0.01]) {
            *x = q.ln();
        }
        let (left, right) = (even.reference(), uneven.reference());
        close("loss", &left.0, &right.0, 1e-13, 1.0);
        close("known", &left.1[..2], &right.1[..2], 1e-13, 1.0);
        // And each of the others moves by its share of them.
        let total: f64 = left.1[2..].iter().sum();
        let shares: Vec<f64> = [0.6, 0.3, 0.08, 0.02].iter().map(|share| share * total).collect();
        close("others", &right.1[2..], &shares, 1e-13, 1.0);
        even.x.swap(2, 5);
    }
}

/// Gradients of every way to draw `n` of the teacher's classes, each with its probability.
fn expected(soft: &Soft, n: usize, loss: SparseLoss, missing: Missing) -> (f64, Vec<f64>) {
    let cols = soft.cols;
    let p = softmax(&soft.teacher, soft.temperature);
    let (mut loss_mean, mut mean) = (0.0, vec![0.0; cols]);
    for way in 0..cols.pow(n as u32) {
        let drawn: Vec<usize> = (0..n).map(|at| way / cols.pow(at as u32) % cols).collect();
        let chance: f64 = drawn.iter().map(|&id| p[id]).product();
        let counts: Vec<usize> =
            (0..cols).map(|id| drawn.iter().filter(|&&other| other == id).count()).collect();
        let known: Vec<usize> = (0..cols).filter(|&id| counts[id] > 0).collect();
        let mut ids: Vec<u32> = known.iter().map(|&id| id as u32).collect();
        let mut shares: Vec<f64> = known.iter().map(|&id| counts[id] as f64 / n as f64).collect();
        ids.resize(n, IGNORED);
        shares.resize(n, f64::NAN);
        let sparse = Sparse {
            loss,
            missing,
            temperature: soft.temperature,
            cols,
            x: soft.x.clone(),
            width: n,
            ids,
            p: shares,
            rest: vec![0.0],
            weights: None,
        };
        let (losses, gradient) = sparse.reference();
        loss_mean += chance * losses[0];
        mean.iter_mut().zip(&gradient).for_each(|(mean, d)| *mean += chance * d);
    }
    (loss_mean, mean)
}

#[test]
fn the_mean_over_every_draw_is_the_dense_gradient_and_the_dense_cross_entropy() {
    for temperature in [0.5, 1.0, 3.0] {
        let soft = Soft::random(Divergence::ForwardKl, 1, 5, 2.0).at(temperature);
        let dense = soft.run(&mut Reference::<f64>::new());
        let p = softmax(&soft.teacher, temperature);
        let entropy = -temperature * temperature * p.iter().map(|p| p * p.ln()).sum::<f64>();
        for n in [1, 2, 3] {
            for missing in WAYS {
                let (loss, mean) = expected(&soft, n, SparseLoss::CrossEntropy, missing);
                close("gradient", &mean, &dense.1, 1e-12, 1.0);
                close("cross-entropy", &[loss], &[dense.0[0] + entropy], 1e-12, 1.0);
            }
            // A function that is not linear in the teacher's probabilities has another mean.
            let (reverse, _) = expected(
                &soft,
                n,
                SparseLoss::Divergence(Divergence::ReverseKl),
                Missing::TailBucket,
            );
            assert!(reverse > 2.0 * dense.0[0], "{reverse}");
        }
    }
}

#[test]
fn a_row_that_knows_nothing_teaches_nothing() {
    for (loss, missing) in allowed() {
        let mut sparse = Sparse::random(loss, missing, (3, 6, 2));
        sparse.ids[2..4].fill(IGNORED);
        sparse.p[2..4].fill(f64::NAN);
        sparse.rest[1] = 1.0;
        for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(2)] {
            let (losses, gradient) = sparse.run(device);
            assert_eq!(losses[1], 0.0, "{loss:?} {missing:?}");
            assert!(gradient[6..12].iter().all(|&d| d == 0.0), "{loss:?} {missing:?}");
            assert!(losses[0].is_finite() && gradient.iter().all(|d| d.is_finite()));
        }
    }
}

#[test]
fn weights_multiply_rows_and_a_weight_of_zero_hides_what_is_not_finite() {
    for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(2)] {
        let mut sparse = Sparse::random(FORWARD, Missing::TailBucket, (3, 6, 2));
        let plain = sparse.run(device).1;
        sparse.weights = Some(vec![0.5, 0.0, 2.0]);
        sparse.x[6..12].fill(f64::NAN);
        let want: Vec<f64> = (0..18).map(|at| [0.5, 0.0, 2.0][at / 6] * plain[at % 18]).collect();
        close("weighted", &sparse.run(device).1, &want, 1e-5, 0.0);
    }
}

#[test]
fn forbidden_classes_of_either_side_are_where_they_should_be() {
    for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(2)] {
        // The student forbids one of the others, and one that the teacher does not have either.
        let mut sparse = Sparse::random(FORWARD, Missing::TailBucket, (1, 6, 3));
        let with =
            Sparse { x: [&sparse.x[..], &[f64::NEG_INFINITY]].concat(), cols: 7, ..sparse.clone() };
        let (mut got, want) = (with.run(device), sparse.run(device));
        assert_eq!(got.1.pop(), Some(0.0));
        close("loss", &got.0, &want.0, 1e-5, 0.0);
        close("gradient", &got.1, &want.1, 1e-5, 0.0);
        // All of the others, which the teacher gives nothing.
        sparse.rest[0] = 0.0;
        for (id, x) in sparse.x.iter_mut().enumerate() {
            *x = if sparse.ids.contains(&(id as u32)) { *x } else { f64::NEG_INFINITY };
        }
        let (losses, gradient) = sparse.run(device);
        assert!(losses[0].is_finite() && gradient.iter().all(|d| d.is_finite()));
        // And which the teacher gives something: no student is farther.
        sparse.rest[0] = 0.1;
        assert_eq!(sparse.run(device).0[0], f64::INFINITY);
    }
}

#[test]
fn what_makes_no_sense_on_a_few_classes_is_refused_with_its_reason() {
    let refused = |divergence, missing| {
        SparseTarget::refusal(SparseLoss::Divergence(divergence), missing).unwrap_or("allowed")
    };
    let (reverse, jsd) = (Divergence::ReverseKl, Divergence::JensenShannon { beta: 0.5 });
    assert_eq!(refused(reverse, Missing::TailBucket), "allowed");
    assert!(refused(reverse, Missing::Renormalise).contains("infinite"));
    assert!(refused(reverse, Missing::Zero).contains("does not sum to 1"));
    assert_eq!(refused(jsd, Missing::Renormalise), "allowed");
    assert!(refused(jsd, Missing::Zero).contains("does not sum to 1"));
    let squared = Divergence::MeanSquaredLogits { centred: true };
    assert!(refused(squared, Missing::TailBucket).contains("every logit"));
    let decoupled = Divergence::Decoupled { alpha: 1.0, beta: 1.0 };
    assert!(refused(decoupled, Missing::TailBucket).contains("the label"));
}

#[test]
#[should_panic(expected = "it is infinite where the teacher has 0")]
fn a_refused_loss_is_not_computed() {
    let loss = SparseLoss::Divergence(Divergence::ReverseKl);
    Sparse::random(loss, Missing::Renormalise, (2, 5, 2)).run(&mut Cpu::new(1));
}

#[test]
#[should_panic(expected = "one id beside each known probability")]
fn ids_and_probabilities_belong_together() {
    let mut sparse = Sparse::random(FORWARD, Missing::Zero, (2, 5, 2));
    sparse.ids.pop();
    sparse.run(&mut Cpu::new(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Making one class of several never makes two distributions more different.
    #[test]
    fn fewer_known_classes_are_never_farther_apart(
        seed in 0u64..1000,
        width in 1usize..12,
        temperature in 0.5f64..4.0,
    ) {
        for divergence in [Divergence::ForwardKl, Divergence::ReverseKl, Divergence::TotalVariation] {
            let mut soft = Soft::random(divergence, 1, 12, 3.0).at(temperature);
            soft.x = input(seed + 10, 1, 12).values;
            let dense = soft.run(&mut Reference::<f64>::new()).0[0];
            let loss = SparseLoss::Divergence(divergence);
            let few = Sparse::of(&soft, width, loss, Missing::TailBucket).reference().0[0];
            prop_assert!((-1e-12..=dense + 1e-12).contains(&few), "{divergence:?}: {few} of {dense}");
        }
    }
}
