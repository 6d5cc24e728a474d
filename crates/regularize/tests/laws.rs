//! What holds for every target, whatever it is given: gradients are slopes; a constant added to the
//! logits changes nothing; effective targets sum to 1; a row without a label is left out where it
//! must be; extremes give no NaN; a state that was put back decides what the other would.

mod zoo;

use heirloom_regularize::{Against, Divergence, Row, Target, cross_entropy, ln_softmax, softmax};
use proptest::prelude::*;
use zoo::{Sample, WIDTH, all, learned, learners, losses, pairs, soft};

fn sample(
    classes: usize,
    label: impl Strategy<Value = Option<usize>>,
) -> impl Strategy<Value = Sample> {
    let logits = || prop::collection::vec(-4.0..4.0, classes);
    let features = prop::collection::vec(-2.0..2.0, WIDTH);
    (label, logits(), logits(), logits(), features, 0.0..=1.0).prop_map(
        |(label, logits, teacher, earlier, features, progress)| Sample {
            label,
            logits,
            teacher,
            earlier,
            features,
            progress,
        },
    )
}

fn labelled() -> impl Strategy<Value = Sample> {
    (2..=5usize).prop_flat_map(|classes| sample(classes, (0..classes).prop_map(Some)))
}

/// Numbers of size 1, `2h` apart by differences: `h²` of the slope's own slopes and rounding over h.
const STEP: f64 = 1e-5;
const SLOPE: f64 = 1e-8;

/// Central differences of a function of a few numbers.
fn slopes(at: &[f64], mut of: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut moved = at.to_vec();
    let mut slope = |place: usize| {
        let mut value = |by: f64| {
            moved[place] = at[place] + by;
            of(&moved)
        };
        let slope = (value(STEP) - value(-STEP)) / (2.0 * STEP);
        moved[place] = at[place];
        slope
    };
    (0..at.len()).map(&mut slope).collect()
}

fn near(got: &[f64], want: &[f64], bound: f64) -> bool {
    got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() <= bound)
}

/// No two logits, and no logit and a margin, so near that a step might change their order.
fn apart(logits: &[f64]) -> bool {
    let pairs =
        logits.iter().enumerate().flat_map(|(at, a)| logits[..at].iter().map(move |b| a - b));
    pairs.into_iter().all(|gap| gap.abs() > 1e-3 && (gap.abs() - 0.5).abs() > 1e-3)
}

proptest! {
    #[test]
    fn gradients_are_slopes_of_the_loss(sample in labelled()) {
        prop_assume!(apart(&sample.logits));
        for target in losses() {
            let mut d = vec![f64::NAN; sample.logits.len()];
            target.loss(&sample.row(), &mut d);
            let want = slopes(&sample.logits, |logits| {
                let moved = Sample { logits: logits.to_vec(), ..sample.clone() };
                target.loss(&moved.row(), &mut vec![0.0; logits.len()])
            });
            prop_assert!(near(&d, &want, SLOPE), "{target:?}: {d:?}, should be {want:?}");
        }
    }

    /// What is held fixed is the distribution.
    #[test]
    fn gradients_of_distributions_are_slopes_with_the_distribution_held_fixed(sample in labelled()) {
        for target in soft(sample.logits.len()).into_iter().chain(pairs(sample.logits.len())) {
            let (mut d, mut q) = (vec![f64::NAN; sample.logits.len()], vec![0.0; sample.logits.len()]);
            let loss = target.loss(&sample.row(), &mut d);
            prop_assert!(target.target(&sample.row(), &mut q), "{target:?}");
            let of = |logits: &[f64]| cross_entropy(&q, &ln_softmax(logits, 1.0));
            prop_assert!((loss - of(&sample.logits)).abs() < 1e-14, "{target:?}");
            let want = slopes(&sample.logits, of);
            prop_assert!(near(&d, &want, SLOPE), "{target:?}: {d:?}, should be {want:?}");
        }
    }

    #[test]
    fn distributions_are_distributions(sample in labelled()) {
        for target in soft(sample.logits.len()).into_iter().chain(pairs(sample.logits.len())) {
            let mut q = vec![f64::NAN; sample.logits.len()];
            prop_assert!(target.target(&sample.row(), &mut q));
            let sound = q.iter().all(|&q| q >= 0.0) && (q.iter().sum::<f64>() - 1.0).abs() < 1e-12;
            prop_assert!(sound, "{target:?}: {q:?}");
            let mut ln_q = vec![f64::NAN; q.len()];
            prop_assert!(target.ln_target(&sample.row(), &mut ln_q));
            ln_q.iter_mut().for_each(|q| *q = q.exp());
            prop_assert!(near(&ln_q, &q, 1e-14), "{target:?}: {ln_q:?}, should be {q:?}");
        }
    }

    #[test]
    fn effective_targets_sum_to_one_and_a_constant_changes_nothing(
        sample in labelled(), constant in -100.0..100.0,
    ) {
        prop_assume!(apart(&sample.logits));
        let mut moved = sample.clone();
        moved.logits.iter_mut().for_each(|z| *z += constant);
        moved.teacher.iter_mut().for_each(|z| *z -= constant);
        for target in all(sample.logits.len()) {
            let (mut d, mut other) = (vec![0.0; moved.logits.len()], vec![0.0; moved.logits.len()]);
            let loss = target.loss(&sample.row(), &mut d);
            let same = target.loss(&moved.row(), &mut other);
            prop_assert!((loss - same).abs() < 1e-11, "{target:?}: {loss}, then {same}");
            prop_assert!(near(&d, &other, 1e-11), "{target:?}: {d:?}, then {other:?}");
            let mut q = vec![f64::NAN; d.len()];
            target.effective_target(&sample.row(), &mut q);
            prop_assert!((q.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{target:?}: {q:?}");
            let want: Vec<f64> =
                softmax(&sample.logits, 1.0).iter().zip(&d).map(|(s, d)| s - d).collect();
            prop_assert_eq!(&q, &want);
            // The effective target, held fixed, has the same gradient.
            let mut again = vec![f64::NAN; d.len()];
            Divergence::CrossEntropy.of(&q, &sample.logits, &mut again);
            prop_assert!(near(&again, &d, 1e-12), "{target:?}: {again:?}, should be {d:?}");
        }
    }

    #[test]
    fn rows_without_a_label_are_left_out(sample in sample(3, Just(None))) {
        for target in all(3) {
            let mut d = vec![f64::NAN; 3];
            let loss = target.loss(&sample.row(), &mut d);
            if target.needs().label {
                prop_assert_eq!((loss, &d), (0.0, &vec![0.0; 3]), "{:?}", target);
                let mut q = vec![f64::NAN; 3];
                target.effective_target(&sample.row(), &mut q);
                prop_assert_eq!(q, softmax(&sample.logits, 1.0), "{:?}", target);
            } else {
                prop_assert!(d.iter().any(|&d| d != 0.0), "{target:?} does not hear this row");
            }
        }
    }

    #[test]
    fn what_was_put_back_goes_on_as_the_other_would(
        rows in prop::collection::vec(sample(3, prop::option::weighted(0.9, 0..3usize)), 12),
        half in 0..12usize,
    ) {
        for (mut target, mut resumed) in all(3).into_iter().zip(all(3)) {
            let step = |target: &mut dyn Target, at: usize| {
                let mut d = vec![0.0; 3];
                let loss = target.loss(&rows[at].row(), &mut d);
                target.observe(&rows[at].row());
                if at.is_multiple_of(2) {
                    target.hear(&rows[at].row(), &[0.1, -0.3, at as f64]);
                }
                target.end_of_step();
                if at % 4 == 3 {
                    target.end_of_epoch();
                }
                (loss, d)
            };
            (0..half).for_each(|at| drop(step(&mut *target, at)));
            prop_assert_eq!(resumed.restore(&target.state()), Ok(()));
            for at in half..rows.len() {
                let (one, other) = (step(&mut *target, at), step(&mut *resumed, at));
                prop_assert_eq!(one, other, "{:?}", target);
            }
        }
    }

    /// ∂/∂φ of `Σ d·q(φ)`, which is what a loss that moves with q by d has along φ.
    #[test]
    fn pulled_back_gradients_are_slopes(
        sample in labelled(), seed in prop::collection::vec(-2.0..2.0, 5),
    ) {
        let classes = sample.logits.len();
        let d_q = &seed[..classes];
        for mut target in learned(classes) {
            let before = target.parameters().to_vec();
            // What was there stays.
            let mut gradient = vec![0.25; before.len()];
            target.pull_back(&sample.row(), d_q, &mut gradient);
            let want = slopes(&before, |parameters| {
                target.parameters_mut().copy_from_slice(parameters);
                let mut q = vec![0.0; classes];
                assert!(target.target(&sample.row(), &mut q));
                q.iter().zip(d_q).map(|(q, d)| q * d).sum()
            });
            let got: Vec<f64> = gradient.iter().map(|d| d - 0.25).collect();
            prop_assert!(near(&got, &want, SLOPE), "{target:?}: {got:?}, should be {want:?}");
            prop_assert!(got.iter().any(|&d| d != 0.0), "{target:?} would never learn");
        }
    }

    /// What a learner hears through a combinator, from its first moment after one step.
    #[test]
    fn slopes_reach_a_learner_wherever_it_stands(
        sample in labelled(), seed in prop::collection::vec(-2.0..2.0, 5),
    ) {
        let classes = sample.logits.len();
        let d_q = &seed[..classes];
        for mut target in learners(classes) {
            prop_assert!(target.needs().second_set, "{target:?}");
            let state = target.state();
            let count = (state.len() - 1) / 3;
            let want = slopes(&state[1..=count], |parameters| {
                let moved = [&state[..1], parameters, &state[1 + count..]].concat();
                target.restore(&moved).expect("as many numbers");
                let mut q = vec![0.0; classes];
                assert!(target.target(&sample.row(), &mut q));
                q.iter().zip(d_q).map(|(q, d)| q * d).sum()
            });
            target.restore(&state).expect("its own numbers");
            target.hear(&sample.row(), d_q);
            target.end_of_step();
            let first = &target.state()[1 + count..1 + 2 * count];
            let got: Vec<f64> = first.iter().map(|m| m / 0.1).collect();
            prop_assert!(near(&got, &want, SLOPE), "{target:?}: {got:?}, should be {want:?}");
        }
    }
}

#[test]
#[should_panic(expected = "through a cross-entropy alone")]
fn a_learner_behind_another_divergence_is_refused() {
    let target = learners(2).remove(0);
    let mut against = Against { target, divergence: Divergence::Kl { temperature: 2.0 } };
    against.hear(&Row::new(Some(0), &[0.0, 1.0]), &[0.1, 0.2]);
}

/// Logits that a softmax cannot hold, and classes that are ruled out; K of a class, a pair, a
/// vocabulary.
#[test]
fn extremes_give_finite_gradients_and_no_loss_that_is_no_number() {
    for classes in [1, 2, 3, 50_000] {
        let great = |at: usize| [1e4, -1e4, f64::NEG_INFINITY, 0.5][at % 4];
        let row = |shift: usize| -> Vec<f64> {
            let of = |class| if class == 0 { 1.0 } else { great(class + shift) };
            (0..classes).map(of).collect()
        };
        let mut targets = losses();
        targets.extend(soft(classes).into_iter().map(|target| target as Box<dyn Target>));
        if classes < 50 {
            targets.extend(pairs(classes).into_iter().map(|target| target as Box<dyn Target>));
        }
        for (shift, label) in (0..4).flat_map(|shift| [0, classes - 1].map(|label| (shift, label)))
        {
            let sample = Sample {
                label: Some(label),
                logits: row(shift),
                teacher: row(shift + 1),
                earlier: row(2 * shift),
                features: vec![0.5; WIDTH],
                progress: 0.5,
            };
            for target in &targets {
                let (mut d, mut q) = (vec![f64::NAN; classes], vec![f64::NAN; classes]);
                let loss = target.loss(&sample.row(), &mut d);
                target.effective_target(&sample.row(), &mut q);
                let sound = !loss.is_nan() && d.iter().chain(&q).all(|x| x.is_finite());
                assert!(sound, "{classes} classes, {shift}, {label}, {target:.200?}: {loss}");
                // Sums of 50,000 terms of 1e4 and their like.
                assert!((q.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{classes}: {target:.200?}");
            }
        }
    }
}

#[test]
fn the_numbers_of_another_target_are_refused() {
    for mut target in all(3) {
        let mut state = target.state();
        state.push(0.5);
        let wrong = target.restore(&state).expect_err("one number too many");
        assert_eq!((wrong.expected, wrong.found), (state.len() - 1, state.len()), "{target:?}");
        assert_eq!(target.state(), state[..state.len() - 1], "{target:?}");
    }
}

#[test]
#[should_panic(expected = "needs the teacher's logits")]
fn a_teacher_that_is_missing_is_named() {
    let logits = [0.0, 1.0];
    let row = Row::new(Some(0), &logits);
    heirloom_regularize::Teacher { temperature: 1.0 }.loss(&row, &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "temperature is at least 1")]
fn labo_below_one_is_refused() {
    heirloom_regularize::Labo::new(0.5, 0.9);
}
