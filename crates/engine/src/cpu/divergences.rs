//! The teacher's distribution held against the student's, one row at a time.
//!
//! Most divergences are sums over classes of a function of `ln p` and `ln q`. A class gives its
//! part of the sum and a slope `g`, so that the gradient by `x/T` is `g − q Σ g`: the derivative by
//! `ln q`, less a multiple of `q`, which that difference does not see, chosen so that `g` is
//! exactly 0 where `p = q`.
//!
//! Probabilities are `f32` exponentials; logarithms, what is made of them, and sums are `f64`.
//! Nothing here branches on a number, so that a row of a vocabulary's length is vector instructions.

use super::double::{exp_f64, exp_m1, ln_1p};
use super::lanes::{max, sum2_f64, sums2_f64};
use super::losses::{kl, ln_total};
use super::math::exp;
use crate::divergence::LEAST_LN;
use crate::{Divergence, IGNORED};

/// What a row of logits is held against, besides the teacher's row.
#[derive(Clone, Copy)]
pub(super) struct Soft {
    pub(super) divergence: Divergence,
    pub(super) temperature: f64,
    pub(super) factor: f64,
    /// Factor of the gradient.
    pub(super) scale: f64,
    /// Label of the row, for [`Divergence::Decoupled`].
    pub(super) label: u32,
}

/// Loss of the row `x` against `teacher`; adds to `dx` where given.
#[inline(always)]
pub(super) fn teacher_loss(x: &[f32], teacher: &[f32], dx: Option<&mut [f32]>, by: Soft) -> f64 {
    match by.divergence {
        Divergence::ForwardKl | Divergence::SkewKl { alpha: 0.0 } => forward(x, teacher, dx, by),
        Divergence::ReverseKl | Divergence::SkewReverseKl { alpha: 0.0 } => {
            over_classes(x, teacher, dx, by, reverse)
        }
        Divergence::Symmetric => over_classes(x, teacher, dx, by, symmetric),
        Divergence::JensenShannon { beta } => over_classes(
            x,
            teacher,
            dx,
            by,
            #[inline(always)]
            |class| jensen_shannon(class, beta),
        ),
        Divergence::SkewKl { alpha } => over_classes(
            x,
            teacher,
            dx,
            by,
            #[inline(always)]
            |class| skew(class, alpha),
        ),
        Divergence::SkewReverseKl { alpha } => over_classes(
            x,
            teacher,
            dx,
            by,
            #[inline(always)]
            |class| skew_reverse(class, alpha),
        ),
        Divergence::AlphaBeta { alpha, beta } => over_classes(
            x,
            teacher,
            dx,
            by,
            #[inline(always)]
            |class| alpha_beta(class, alpha, beta),
        ),
        Divergence::TotalVariation => over_classes(x, teacher, dx, by, total_variation),
        Divergence::Decoupled { .. } if by.label == IGNORED => forward(x, teacher, dx, by),
        Divergence::Decoupled { alpha, beta } => decoupled(x, teacher, dx, by, alpha, beta),
        Divergence::MeanSquaredLogits { centred } => squared(x, teacher, dx, by, centred),
    }
}

#[inline(always)]
fn forward(x: &[f32], teacher: &[f32], dx: Option<&mut [f32]>, by: Soft) -> f64 {
    let inverse = (1.0 / by.temperature) as f32;
    let (x_largest, x_total) = ln_total(x, inverse);
    let (t_largest, t_total) = ln_total(teacher, inverse);
    let (x_ln, t_ln) = (x_total as f32, t_total as f32);
    if let Some(dx) = dx {
        let scale = (by.scale * by.factor / by.temperature) as f32;
        for ((dx, &x), &t) in dx.iter_mut().zip(x).zip(teacher) {
            let q = exp((x - x_largest) * inverse - x_ln);
            let p = exp((t - t_largest) * inverse - t_ln);
            *dx += scale * (q - p);
        }
    }
    by.factor * kl(x, teacher, inverse, (x_largest, x_ln), (t_largest, t_ln))
}

/// One class of a row.
#[derive(Clone, Copy)]
pub(super) struct Class {
    pub(super) p: f64,
    pub(super) q: f64,
    pub(super) ln_p: f64,
    pub(super) ln_q: f64,
}

/// What a class gives to the loss, and its slope.
pub(super) type Part = (f64, f64);

/// What turns two logits of a row into a [`Class`].
#[derive(Clone, Copy)]
struct Sides {
    /// 1/T.
    inverse: f64,
    /// The student's largest logit, and `ln Σ exp((x − largest)/T)`; then the teacher's.
    x: (f64, f64),
    t: (f64, f64),
}

impl Sides {
    #[inline(always)]
    fn of(x: &[f32], teacher: &[f32], temperature: f64) -> Self {
        let inverse = 1.0 / temperature;
        let (x_largest, x_total) = ln_total(x, inverse as f32);
        let (t_largest, t_total) = ln_total(teacher, inverse as f32);
        Self { inverse, x: (x_largest.into(), x_total), t: (t_largest.into(), t_total) }
    }

    #[inline(always)]
    fn class(self, x: f32, t: f32) -> Class {
        let ln_q = (f64::from(x) - self.x.0) * self.inverse - self.x.1;
        let ln_p = (f64::from(t) - self.t.0) * self.inverse - self.t.1;
        Class { p: exp(ln_p as f32).into(), q: exp(ln_q as f32).into(), ln_p, ln_q }
    }

    /// `part` of a class, or nothing of one that both sides forbid.
    #[inline(always)]
    fn part(self, x: f32, t: f32, part: impl Fn(Class) -> Part) -> Part {
        let (loss, slope) = part(self.class(x, t));
        let nowhere = x == f32::NEG_INFINITY && t == f32::NEG_INFINITY;
        if nowhere { (0.0, 0.0) } else { (loss, slope) }
    }
}

/// `part` must be `#[inline(always)]`: a call for each class is a hundred times slower.
#[inline(always)]
fn over_classes(
    x: &[f32],
    teacher: &[f32],
    dx: Option<&mut [f32]>,
    by: Soft,
    part: impl Fn(Class) -> Part + Copy,
) -> f64 {
    let sides = Sides::of(x, teacher, by.temperature);
    let [loss, slopes] = sums2_f64(
        x,
        teacher,
        #[inline(always)]
        |x, t| {
            let (loss, slope) = sides.part(x, t, part);
            [loss, slope]
        },
    );
    if let Some(dx) = dx {
        let scale = by.scale * by.factor / by.temperature;
        for ((dx, &x), &t) in dx.iter_mut().zip(x).zip(teacher) {
            let slope = sides.part(x, t, part).1;
            *dx += (scale * (slope - sides.class(x, t).q * slopes)) as f32;
        }
    }
    by.factor * loss
}

/// `a · b`, where nothing times anything is nothing, an infinite `b` too.
#[inline(always)]
pub(super) fn times(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a * b }
}

impl Class {
    /// `ln p`, raised to the smaller of [`LEAST_LN`] and `ln q`: finite, and 0 away from the
    /// student where neither thinks that the class can be. Comparisons, so that a NaN goes through.
    #[inline(always)]
    fn raised_ln_p(self) -> f64 {
        let least = if self.ln_q < LEAST_LN { self.ln_q } else { LEAST_LN };
        if self.ln_p < least { least } else { self.ln_p }
    }
}

#[inline(always)]
pub(super) fn reverse(class: Class) -> Part {
    let part = times(class.q, class.ln_q - class.raised_ln_p());
    (part, part)
}

#[inline(always)]
pub(super) fn symmetric(class: Class) -> Part {
    let (reversed, slope) = reverse(class);
    let forward = times(class.p, class.ln_p - class.ln_q);
    (0.5 * (forward + reversed), 0.5 * (class.q - class.p + slope))
}

/// `ln(p/m)` and `ln(q/m)` for `m = share p + (1 − share) q`, `0 < share < 1`: each exact to
/// rounding where p = q, and without overflow however far apart the two are.
#[inline(always)]
fn against_mixture(class: Class, share: f64) -> (f64, f64) {
    let ratio = class.ln_p - class.ln_q;
    let teacher_more = ratio > 0.0;
    // m/p = 1 + (1 − share)(q/p − 1), or m/q = 1 + share (p/q − 1): what is above 1 is left out.
    let of_smaller = if teacher_more { 1.0 - share } else { share };
    let of_larger = -ln_1p(of_smaller * exp_m1(-ratio.abs()));
    if teacher_more { (of_larger, of_larger - ratio) } else { (of_larger + ratio, of_larger) }
}

#[inline(always)]
pub(super) fn jensen_shannon(class: Class, beta: f64) -> Part {
    if beta == 0.0 || beta == 1.0 {
        return (0.0, 0.0);
    }
    let (of_p, of_q) = against_mixture(class, beta);
    // What m adds to the slope by varying with q cancels.
    let slope = (1.0 - beta) * times(class.q, of_q);
    (beta * times(class.p, of_p) + slope, slope)
}

#[inline(always)]
pub(super) fn skew(class: Class, alpha: f64) -> Part {
    if alpha == 1.0 {
        return (0.0, 0.0);
    }
    let (of_p, _) = against_mixture(class, alpha);
    (times(class.p, of_p), -(1.0 - alpha) * times(class.q, exp_m1(of_p)))
}

#[inline(always)]
pub(super) fn skew_reverse(class: Class, alpha: f64) -> Part {
    if alpha == 1.0 {
        return (0.0, 0.0);
    }
    let (_, of_q) = against_mixture(class, 1.0 - alpha);
    (times(class.q, of_q), times(class.q, of_q - alpha * exp_m1(of_q)))
}

/// With `s = α + β`, `d = ln p − ln q` and `φ(c, d) = (eᶜᵈ − 1)/c`, `φ(0, d) = d`, the part of a
/// class is `q^s (φ(s, d) − φ(α, d))/β`, and by symmetry `p^s (φ(s, −d) − φ(β, −d))/α`. Written so,
/// every limit is a value of φ and nothing is divided by a difference; of the two the one that
/// divides by the larger number is taken.
#[inline(always)]
pub(super) fn alpha_beta(class: Class, alpha: f64, beta: f64) -> Part {
    /// In place of −∞, so that 0 · ln 0 below is 0.
    const LOWEST: f64 = -1e30;
    let ln_p = class.raised_ln_p();
    let ln_q = if class.ln_q < LOWEST { LOWEST } else { class.ln_q };
    let (s, d) = (alpha + beta, ln_p - ln_q);
    let part = if alpha == 0.0 && beta == 0.0 {
        0.5 * d * d
    } else if beta.abs() > alpha.abs() {
        (grown(s * ln_q, s, d) - grown(s * ln_q, alpha, d)) / beta
    } else {
        (grown(s * ln_p, s, -d) - grown(s * ln_p, beta, -d)) / alpha
    };
    (part, -grown(s * ln_q, alpha, d))
}

/// `e^ln · φ(c, d)`, without overflow where the product has none.
#[inline(always)]
fn grown(ln: f64, c: f64, d: f64) -> f64 {
    if c == 0.0 {
        return times(exp_f64(ln), d);
    }
    let by = c * d;
    let near = exp_f64(ln) * exp_m1(by);
    let far = exp_f64(ln + by) - exp_f64(ln);
    (if by.abs() < 1.0 { near } else { far }) / c
}

#[inline(always)]
pub(super) fn total_variation(class: Class) -> Part {
    let Class { p, q, .. } = class;
    let slope = if q > p { 0.5 * q } else { -0.5 * q };
    (0.5 * (q - p).abs(), if q == p { 0.0 } else { slope })
}

/// A row seen from one of its classes: the odds of that class, and the distribution of the rest.
struct Rest {
    /// `ln` of the class's probability and of all others' together.
    ln_share: [f64; 2],
    /// The largest of the other logits, and `ln Σ exp((x − largest)/T)` over them; `None` where
    /// the rest is empty or forbidden.
    rest: Option<(f64, f64)>,
}

impl Rest {
    #[inline(always)]
    fn of(x: &[f32], label: usize, inverse: f64) -> Self {
        let (before, after) = (&x[..label], &x[label + 1..]);
        let largest = max(before).max(max(after));
        if largest == f32::NEG_INFINITY {
            return Self { ln_share: [0.0, f64::NEG_INFINITY], rest: None };
        }
        let part = |x| sum2_f64(x, x, |x, _| exp((x - largest) * inverse as f32).into());
        let (total, largest) = (libm::log(part(before) + part(after)), f64::from(largest));
        let odds = (f64::from(x[label]) - largest) * inverse - total;
        let tail = libm::log1p(libm::exp(-odds.abs()));
        // −ln(1 + e^−odds) and −ln(1 + e^odds).
        let ln_share = [odds.min(0.0) - tail, -odds.max(0.0) - tail];
        Self { ln_share, rest: Some((largest, total)) }
    }

    /// `ln` of a class's share of the rest.
    #[inline(always)]
    fn ln(&self, x: f32, inverse: f64) -> f64 {
        match self.rest {
            Some((largest, total)) => (f64::from(x) - largest) * inverse - total,
            None => f64::NEG_INFINITY,
        }
    }
}

#[inline(always)]
fn decoupled(
    x: &[f32],
    teacher: &[f32],
    dx: Option<&mut [f32]>,
    by: Soft,
    alpha: f64,
    beta: f64,
) -> f64 {
    let (label, inverse) = (by.label as usize, 1.0 / by.temperature);
    let (of_x, of_t) = (Rest::of(x, label, inverse), Rest::of(teacher, label, inverse));
    let beta = if of_t.rest.is_some() { beta } else { 0.0 };
    let (q, p) = (libm::exp(of_x.ln_share[0]), libm::exp(of_t.ln_share[0]));
    if let Some(dx) = dx {
        let scale = by.scale * by.factor / by.temperature;
        let of_label = dx[label];
        for ((dx, &x), &t) in dx.iter_mut().zip(x).zip(teacher) {
            let q_rest = f64::from(exp(of_x.ln(x, inverse) as f32));
            let p_rest = f64::from(exp(of_t.ln(t, inverse) as f32));
            *dx += (scale * (alpha * (p - q) * q_rest + beta * (q_rest - p_rest))) as f32;
        }
        dx[label] = of_label + (scale * alpha * (q - p)) as f32;
    }
    let binary: f64 = std::iter::zip(of_t.ln_share, of_x.ln_share)
        .map(|(ln_p, ln_q)| times(libm::exp(ln_p), ln_p - ln_q))
        .sum();
    let rest = |x: &[f32], t: &[f32]| {
        sum2_f64(x, t, |x, t| {
            let (ln_p, ln_q) = (of_t.ln(t, inverse), of_x.ln(x, inverse));
            times(exp(ln_p as f32).into(), ln_p - ln_q)
        })
    };
    let others =
        rest(&x[..label], &teacher[..label]) + rest(&x[label + 1..], &teacher[label + 1..]);
    by.factor * (alpha * binary + times(beta, others))
}

#[inline(always)]
fn squared(x: &[f32], teacher: &[f32], dx: Option<&mut [f32]>, by: Soft, centred: bool) -> f64 {
    let counts = |x: f32, t: f32| x != f32::NEG_INFINITY && t != f32::NEG_INFINITY;
    let apart = |x: f32, t: f32| if counts(x, t) { f64::from(x) - f64::from(t) } else { 0.0 };
    let count = sum2_f64(x, teacher, |x, t| if counts(x, t) { 1.0 } else { 0.0 }).max(1.0);
    let mean = if centred { sum2_f64(x, teacher, apart) / count } else { 0.0 };
    if let Some(dx) = dx {
        let scale = 2.0 * by.scale * by.factor / count;
        for ((dx, &x), &t) in dx.iter_mut().zip(x).zip(teacher) {
            let slope = if counts(x, t) { apart(x, t) - mean } else { 0.0 };
            *dx += (scale * slope) as f32;
        }
    }
    let part = |x, t| if counts(x, t) { (apart(x, t) - mean) * (apart(x, t) - mean) } else { 0.0 };
    by.factor * sum2_f64(x, teacher, part) / count
}
