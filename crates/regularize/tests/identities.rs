//! Equations between methods: distillation and label regularization are one thing.
//!
//! `y` the label, `s` the student, `t` the teacher, `u` the even distribution, `d` a gradient on the
//! student's logits. What is compared is a few sums of terms of size 1.

use heirloom_regularize::{
    Against, BootstrapSoft, ConfidencePenalty, Divergence, GeneralizedEntropy, LabelSmoothing,
    Labo, MaxSup, Mix, OneHot, OnlineLabelSmoothing, Row, SoftTarget, Spread, Student, Sum, Target,
    Teacher, Temper, TfKdSelf, Uniform, cross_entropy, entropic, entropy, kl, ln_softmax, softmax,
};

const BOUND: f64 = 1e-10;
const STUDENT: [f64; 5] = [0.7, -1.9, 2.3, 0.1, -0.4];
const TEACHER: [f64; 5] = [1.1, 0.6, -0.8, -2.7, 1.9];
const LABEL: usize = 4;

fn row(logits: &[f64]) -> Row<'_> {
    let mut row = Row::new(Some(LABEL), logits);
    row.teacher = Some(&TEACHER);
    row.earlier = Some(&TEACHER);
    row
}

fn run(target: &dyn Target) -> (f64, [f64; 5]) {
    let mut d = [f64::NAN; 5];
    (target.loss(&row(&STUDENT), &mut d), d)
}

fn soft(target: &dyn SoftTarget) -> [f64; 5] {
    let mut q = [f64::NAN; 5];
    assert!(target.target(&row(&STUDENT), &mut q));
    q
}

fn effective(target: &dyn Target) -> [f64; 5] {
    let mut q = [f64::NAN; 5];
    target.effective_target(&row(&STUDENT), &mut q);
    q
}

fn s() -> [f64; 5] {
    array(softmax(&STUDENT, 1.0))
}

fn array(x: Vec<f64>) -> [f64; 5] {
    x.try_into().expect("five classes")
}

fn y(class: usize) -> f64 {
    f64::from(u8::from(class == LABEL))
}

fn each(of: impl Fn(usize) -> f64) -> [f64; 5] {
    std::array::from_fn(of)
}

#[track_caller]
fn close(got: f64, want: f64) {
    assert!((got - want).abs() < BOUND, "{got}, should be {want}");
}

#[track_caller]
fn same(got: [f64; 5], want: [f64; 5]) {
    assert!(
        got.iter().zip(want).all(|(a, b)| (a - b).abs() < BOUND),
        "{got:?}, should be {want:?}"
    );
}

fn teacher(temperature: f64) -> Box<dyn SoftTarget> {
    Box::new(Teacher { temperature })
}

fn distill(temperature: f64) -> Against {
    let divergence = Divergence::Kl { temperature };
    Against { target: teacher(temperature), divergence }
}

fn smoothed(epsilon: f64) -> LabelSmoothing {
    LabelSmoothing { epsilon, spread: Spread::AllClasses }
}

/// Central differences over eight points, exact to the eighth power of the step.
fn slopes(of: impl Fn(&[f64]) -> f64) -> [f64; 5] {
    const STEP: f64 = 0.02;
    const WEIGHTS: [f64; 4] = [4.0 / 5.0, -1.0 / 5.0, 4.0 / 105.0, -1.0 / 280.0];
    each(|class| {
        let value = |by: f64| {
            let mut logits = STUDENT;
            logits[class] += by * STEP;
            of(&logits)
        };
        let terms = (1..).zip(WEIGHTS).map(|(by, weight)| {
            let by = f64::from(by);
            weight * (value(by) - value(-by))
        });
        terms.sum::<f64>() / STEP
    })
}

/// `(1 − α)·CE(y, s) + α·KL(t ‖ s) = CE((1 − α)·y + α·t, s) − α·H(t)`.
#[test]
fn two_losses_are_one_target() {
    let alpha = 0.3;
    let parts: Vec<(_, Box<dyn Target>)> =
        vec![((1.0 - alpha).into(), Box::new(OneHot)), (alpha.into(), Box::new(distill(1.0)))];
    let (two, d_two) = run(&Sum { parts });
    let parts: Vec<(_, Box<dyn SoftTarget>)> =
        vec![((1.0 - alpha).into(), Box::new(OneHot)), (alpha.into(), teacher(1.0))];
    let (one, d_one) = run(&Mix { parts });
    close(two, one - alpha * entropy(&softmax(&TEACHER, 1.0)));
    same(d_two, d_one);
    same(run(&TfKdSelf { alpha, temperature: 1.0 }).1, d_one);
}

/// `q = s + T·(t^T − s^T)`.
#[test]
fn a_temperature_leaves_the_simplex() {
    for temperature in [0.5, 2.0, 20.0] {
        let (t, soft) = (softmax(&TEACHER, temperature), softmax(&STUDENT, temperature));
        let want = each(|class| s()[class] + temperature * (t[class] - soft[class]));
        same(effective(&distill(temperature)), want);
    }
    assert!(effective(&distill(20.0)).iter().any(|&q| q < 0.0));
}

/// The next term is of size 1/T, and T times a difference of shares loses as many digits.
#[test]
fn a_great_temperature_compares_centred_logits() {
    let (_, got) = run(&distill(1e5));
    let mean = |x: &[f64]| x.iter().sum::<f64>() / 5.0;
    for (class, got) in got.into_iter().enumerate() {
        let centred = (STUDENT[class] - mean(&STUDENT)) - (TEACHER[class] - mean(&TEACHER));
        assert!((got - centred / 5.0).abs() < 1e-4, "{got}, should be {}", centred / 5.0);
    }
}

/// `CE((1 − ε)·y + ε·u, s) = CE(y, s) + ε·(z_y − mean z)`; also `(1 − ε)·CE + ε·KL(u ‖ s) + ε·ln K`.
#[test]
fn label_smoothing_is_a_penalty_on_the_labels_logit() {
    let (loss, d) = run(&smoothed(0.2));
    let (plain, d_plain) = run(&OneHot);
    close(loss, plain + 0.2 * (STUDENT[LABEL] - STUDENT.iter().sum::<f64>() / 5.0));
    same(d, each(|class| d_plain[class] + 0.2 * (y(class) - 0.2)));
    close(loss, 0.8 * plain + 0.2 * (kl(&[0.2; 5], &s()) + 5f64.ln()));
}

#[test]
fn the_two_conventions_differ_by_a_factor() {
    let others = LabelSmoothing { epsilon: 0.16, spread: Spread::OtherClasses };
    same(soft(&others), soft(&smoothed(0.2)));
}

/// `q = y − β·s·(ln s + H(s))`, and up to a constant the loss is `CE(y, s) + β·KL(s ‖ u)`.
#[test]
fn the_confidence_penalty_is_a_divergence_to_the_even_distribution() {
    let penalty = ConfidencePenalty { beta: 0.6 };
    let h = entropy(&s());
    same(effective(&penalty), each(|k| y(k) - 0.6 * s()[k] * (s()[k].ln() + h)));
    let to_even = Against {
        target: Box::new(Uniform),
        divergence: Divergence::ReverseKl { temperature: 1.0 },
    };
    let parts: Vec<(_, Box<dyn Target>)> =
        vec![(1.0.into(), Box::new(OneHot)), (0.6.into(), Box::new(to_even))];
    let (loss, d) = run(&Sum { parts });
    close(run(&penalty).0, loss - 0.6 * 5f64.ln());
    same(run(&penalty).1, d);
}

/// `∂KL(s ‖ t)/∂z = s·(ln(s/t) − KL(s ‖ t))`.
#[test]
fn the_reverse_divergence() {
    let divergence = Divergence::ReverseKl { temperature: 1.0 };
    let (loss, d) = run(&Against { target: teacher(1.0), divergence });
    let (s, t) = (s(), softmax(&TEACHER, 1.0));
    close(loss, kl(&s, &t));
    same(d, each(|k| s[k] * ((s[k] / t[k]).ln() - kl(&s, &t))));
    same(d, slopes(|logits| kl(&softmax(logits, 1.0), &t)));
}

/// `KL(t ‖ s) = KL(b_t ‖ b_s) + (1 − t_y)·KL(t′ ‖ s′)`: label or not, and the others among themselves.
#[test]
fn a_teachers_divergence_parts_at_the_label() {
    let (s, t) = (s(), softmax(&TEACHER, 1.0));
    let two = |p: &[f64]| [p[LABEL], 1.0 - p[LABEL]];
    let rest = |p: &[f64]| -> Vec<f64> {
        (0..5).filter(|&k| k != LABEL).map(|k| p[k] / (1.0 - p[LABEL])).collect()
    };
    let parts = kl(&two(&t), &two(&s)) + (1.0 - t[LABEL]) * kl(&rest(&t), &rest(&s));
    close(run(&distill(1.0)).0, parts);
}

#[test]
fn labo_without_end_is_label_smoothing() {
    let (loss, d) = run(&Labo::new(0.3, f64::INFINITY));
    close(loss, run(&smoothed(0.3)).0);
    same(d, run(&smoothed(0.3)).1);
    // A finite one is as near as its softened logits are to each other.
    same(run(&Labo::new(0.3, 1e12)).1, d);
}

#[test]
fn labo_at_one_leaves_part_of_the_plain_gradient() {
    same(run(&Labo::new(0.3, 1.0)).1, run(&OneHot).1.map(|d| 0.7 * d));
}

/// `CE(P, s) + τ·KL(P ‖ u)`.
fn inner(p: &[f64], logits: &[f64], tau: f64) -> f64 {
    cross_entropy(p, &ln_softmax(logits, 1.0)) + tau * kl(p, &[0.2; 5])
}

#[test]
fn the_softened_student_solves_labos_inner_problem() {
    for tau in [1.0, 1.5, 4.0, 30.0] {
        let best = soft(&Labo::new(1.0, tau));
        let least = inner(&best, &STUDENT, tau);
        for other in [s(), array(softmax(&TEACHER, 1.0)), [0.2; 5], soft(&smoothed(0.1))] {
            for part in [1e-3, 0.1, 1.0] {
                let p = each(|k| (1.0 - part) * best[k] + part * other[k]);
                assert!(inner(&p, &STUDENT, tau) >= least - BOUND, "τ = {tau}: {p:?} is better");
            }
        }
    }
}

/// Envelope theorem: the slope of the minimum is that of the loss with the minimiser held fixed; the
/// minimum is an entropy of Rényi's, `τ·ln K − (τ − 1)·H_{1/τ}(s)`.
#[test]
fn labos_gradient_is_that_of_an_entropy_penalty() {
    for tau in [1.5, 2.0, 4.0, 30.0] {
        let minimum = |z: &[f64]| inner(&softmax(z, tau), z, tau);
        same(run(&Student { temperature: tau }).1, slopes(minimum));
        let renyi = |z: &[f64]| {
            let order = 1.0 / tau;
            let sum: f64 = softmax(z, 1.0).iter().map(|s| s.powf(order)).sum();
            sum.ln() / (1.0 - order)
        };
        close(minimum(&STUDENT), tau * 5f64.ln() - (tau - 1.0) * renyi(&STUDENT));
        let alpha = 0.4;
        let whole =
            |z: &[f64]| -(1.0 - alpha) * ln_softmax(z, 1.0)[LABEL] - alpha * (tau - 1.0) * renyi(z);
        same(run(&Labo::new(alpha, tau)).1, slopes(whole));
    }
}

#[test]
fn the_entropic_family_contains_labo_and_minimises_over_its_anchors() {
    same(soft(&entropic(vec![(3.0, Box::new(Uniform))])), soft(&Labo::new(1.0, 3.0)));
    let t = softmax(&TEACHER, 1.0);
    // The teacher alone, strength ½: s²·t.
    let product: [f64; 5] = each(|k| s()[k].powi(2) * t[k]);
    let total: f64 = product.iter().sum();
    same(soft(&entropic(vec![(0.5, teacher(1.0))])), product.map(|p| p / total));
    let memory = || Box::new(OnlineLabelSmoothing::new(5, 1.0, 0.3));
    let label: [f64; 5] = soft(&*memory());
    let anchors: Vec<(f64, Box<dyn SoftTarget>)> =
        vec![(0.7, Box::new(Uniform)), (1.1, teacher(1.0)), (0.4, memory())];
    let best = soft(&entropic(anchors));
    let value = |p: &[f64]| {
        cross_entropy(p, &ln_softmax(&STUDENT, 1.0))
            + 0.7 * kl(p, &[0.2; 5])
            + 1.1 * kl(p, &t)
            + 0.4 * kl(p, &label)
    };
    for other in [s(), array(t.clone()), [0.2; 5], label] {
        for part in [1e-3, 0.1, 1.0] {
            let p = each(|k| (1.0 - part) * best[k] + part * other[k]);
            assert!(value(&p) >= value(&best) - BOUND, "{p:?} is better");
        }
        // Level at the minimum, along every way to another distribution.
        let ahead = each(|k| best[k] + 1e-4 * (other[k] - best[k]));
        let behind = each(|k| best[k] - 1e-4 * (other[k] - best[k]));
        let level = (value(&ahead) - value(&behind)) / 2e-4;
        assert!(level.abs() < 1e-6, "slope {level} at the minimum");
    }
}

#[test]
fn generalized_entropy_ends_in_the_confidence_penalty_and_in_label_smoothing() {
    let ends = |skew| run(&GeneralizedEntropy { beta: 0.5, skew });
    same(ends(0.0).1, run(&ConfidencePenalty { beta: 0.5 }).1);
    close(ends(0.0).0, run(&ConfidencePenalty { beta: 0.5 }).0 + 0.5 * 5f64.ln());
    let to_even =
        Against { target: Box::new(Uniform), divergence: Divergence::Kl { temperature: 1.0 } };
    let parts: Vec<(_, Box<dyn Target>)> =
        vec![(1.0.into(), Box::new(OneHot)), (0.5.into(), Box::new(to_even))];
    let (loss, d) = run(&Sum { parts });
    close(ends(1.0).0, loss);
    same(ends(1.0).1, d);
    // (1 + β) times label smoothing of β/(1 + β).
    same(d, run(&smoothed(0.5 / 1.5)).1.map(|d| 1.5 * d));
    // Near the ends: the next term is of size of the skew.
    for (near, end) in [(1e-7, 0.0), (1.0 - 1e-7, 1.0)] {
        let (near, end) = (ends(near), ends(end));
        assert!((near.0 - end.0).abs() < 1e-6, "{}, then {}", near.0, end.0);
        assert!(near.1.iter().zip(end.1).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn max_suppression_is_label_smoothing_where_the_student_is_right() {
    let right = Row::new(Some(2), &STUDENT);
    let (mut one, mut other) = ([0.0; 5], [0.0; 5]);
    let loss = MaxSup { alpha: 0.2.into() }.loss(&right, &mut one);
    close(loss, smoothed(0.2).loss(&right, &mut other));
    same(one, other);
}

/// With its own distribution held fixed, soft bootstrapping is LABO at τ = 1, part of the plain loss.
#[test]
fn soft_bootstrapping_rewards_confidence_through_the_target_alone() {
    let (_, through) = run(&BootstrapSoft { beta: 0.7 });
    let (_, fixed) = run(&Labo::new(0.3, 1.0));
    let (_, penalty) = run(&ConfidencePenalty { beta: 1.0 });
    let (_, plain) = run(&OneHot);
    // β·CE + (1 − β)·H, and the penalty's part of the gradient is −H's.
    same(through, each(|k| fixed[k] + 0.3 * (plain[k] - penalty[k])));
}

#[test]
fn tempering_a_softmax_divides_its_logits() {
    let tempered = Temper { target: teacher(2.0), temperature: 3.0.into() };
    same(soft(&tempered), array(softmax(&TEACHER, 6.0)));
}
