//! Divergences as their papers write them, one branch per limit, and their gradients by the chain
//! rule through the softmax: `∂L/∂x_j = (e_j − q_j Σ e)/T` with `e_k = q_k ∂L/∂q_k`.

use super::Real;
use super::losses::{kl, ln_softmax};
use crate::divergence::LEAST_LN;
use crate::{Divergence, IGNORED};

/// Loss of a row of logits `x` against the teacher's `t`, and its gradient by `x`.
pub(super) fn divergence_of<T: Real>(
    divergence: Divergence,
    x: &[T],
    t: &[T],
    temperature: f64,
    label: u32,
) -> (T, Vec<T>) {
    let (zero, lowest) = (T::default(), T::of(f64::NEG_INFINITY));
    // What both forbid is not there.
    let kept: Vec<usize> = (0..x.len()).filter(|&k| x[k] != lowest || t[k] != lowest).collect();
    let of = |logits: &[T]| {
        let logits: Vec<T> = kept.iter().map(|&k| logits[k]).collect();
        ln_softmax(&logits, temperature)
    };
    let (ln_p, ln_q) = (of(t), of(x));
    let scale = T::of(1.0 / temperature);
    let (loss, gradient) = match divergence {
        Divergence::MeanSquaredLogits { centred } => return squared(x, t, centred),
        Divergence::Decoupled { alpha, beta } if label != IGNORED => {
            let label = kept.iter().position(|&k| k == label as usize);
            match label {
                Some(label) => decoupled(&ln_p, &ln_q, label, T::of(alpha), T::of(beta)),
                // Both say that the label cannot be: all mass is on the rest.
                None => {
                    let (loss, gradient) = forward(&ln_p, &ln_q);
                    let beta = T::of(beta);
                    (beta * loss, gradient.into_iter().map(|d| beta * d).collect())
                }
            }
        }
        Divergence::ForwardKl | Divergence::Decoupled { .. } => forward(&ln_p, &ln_q),
        _ => over_classes(divergence, &ln_p, &ln_q),
    };
    let mut all = vec![zero; x.len()];
    kept.iter().zip(gradient).for_each(|(&k, d)| all[k] = scale * d);
    (loss, all)
}

pub(super) fn forward<T: Real>(ln_p: &[T], ln_q: &[T]) -> (T, Vec<T>) {
    (kl(ln_p, ln_q), ln_q.iter().zip(ln_p).map(|(q, p)| q.exp() - p.exp()).collect())
}

/// `a · b`, where nothing times anything is nothing.
fn times<T: Real>(a: T, b: T) -> T {
    if a == T::default() { a } else { a * b }
}

/// `ln(share p + (1 − share) q)`.
fn ln_mixture<T: Real>(share: f64, ln_p: T, ln_q: T) -> T {
    let (a, b) = (T::of(libm::log(share)) + ln_p, T::of(libm::log(1.0 - share)) + ln_q);
    let larger = a.max(b);
    larger + ((a - larger).exp() + (b - larger).exp()).ln()
}

pub(super) fn over_classes<T: Real>(divergence: Divergence, ln_p: &[T], ln_q: &[T]) -> (T, Vec<T>) {
    let (mut loss, mut e) = (T::default(), Vec::new());
    for (&ln_p, &ln_q) in ln_p.iter().zip(ln_q) {
        let (part, slope) = of_class(divergence, ln_p, ln_q);
        loss += part;
        e.push(slope);
    }
    let total = e.iter().copied().sum::<T>();
    (loss, e.iter().zip(ln_q).map(|(&e, ln_q)| e - times(ln_q.exp(), total)).collect())
}

/// One class's part of the loss, and `q ∂L/∂q`.
fn of_class<T: Real>(divergence: Divergence, ln_p: T, ln_q: T) -> (T, T) {
    let one = T::of(1.0);
    let (p, q) = (ln_p.exp(), ln_q.exp());
    let least = if ln_q < T::of(LEAST_LN) { ln_q } else { T::of(LEAST_LN) };
    let raised_ln_p = ln_p.max(least);
    match divergence {
        Divergence::ReverseKl => {
            let part = times(q, ln_q - raised_ln_p);
            (part, part + q)
        }
        Divergence::Symmetric => {
            let reverse = times(q, ln_q - raised_ln_p);
            let half = T::of(0.5);
            (half * (times(p, ln_p - ln_q) + reverse), half * (reverse + q - p))
        }
        // m is one of the two.
        Divergence::JensenShannon { beta: 0.0 | 1.0 }
        | Divergence::SkewKl { alpha: 1.0 }
        | Divergence::SkewReverseKl { alpha: 1.0 } => (T::default(), T::default()),
        Divergence::JensenShannon { beta } => {
            let ln_m = ln_mixture(beta, ln_p, ln_q);
            let (share, rest) = (T::of(beta), T::of(1.0 - beta));
            let (of_p, of_q) = (times(p, ln_p - ln_m), times(q, ln_q - ln_m));
            (share * of_p + rest * of_q, rest * of_q)
        }
        Divergence::SkewKl { alpha } => {
            let ln_m = ln_mixture(alpha, ln_p, ln_q);
            let within = T::of(1.0 - alpha) * (ln_q + ln_p - ln_m).exp();
            (times(p, ln_p - ln_m), -within)
        }
        Divergence::SkewReverseKl { alpha: 0.0 } => of_class(Divergence::ReverseKl, ln_p, ln_q),
        Divergence::SkewReverseKl { alpha } => {
            let ln_m = ln_mixture(1.0 - alpha, ln_p, ln_q);
            let part = times(q, ln_q - ln_m);
            (part, part + q - T::of(alpha) * (ln_q + ln_q - ln_m).exp())
        }
        Divergence::AlphaBeta { alpha, beta } => alpha_beta(raised_ln_p, ln_q, alpha, beta),
        Divergence::TotalVariation => {
            let half = T::of(0.5);
            let sign = if q > p {
                one
            } else if q < p {
                -one
            } else {
                T::default()
            };
            (half * sign * (q - p), half * sign * q)
        }
        Divergence::ForwardKl
        | Divergence::Decoupled { .. }
        | Divergence::MeanSquaredLogits { .. } => unreachable!("not class by class"),
    }
}

/// Cichocki, Cruces & Amari 2011, doi:10.3390/e13010134, eq. 19 and 20.
fn alpha_beta<T: Real>(ln_p: T, ln_q: T, alpha: f64, beta: f64) -> (T, T) {
    let (sum, one) = (T::of(alpha + beta), T::of(1.0));
    let power = |of_p: f64, of_q: f64| (times(T::of(of_p), ln_p) + times(T::of(of_q), ln_q)).exp();
    let ratio = ln_p - ln_q;
    let (a, b) = (T::of(alpha), T::of(beta));
    if alpha == 0.0 && beta == 0.0 {
        (T::of(0.5) * ratio * ratio, -ratio)
    } else if beta == 0.0 {
        let (p, q) = (power(alpha, 0.0), power(0.0, alpha));
        ((times(p, a * ratio) - p + q) / (a * a), (q - p) / a)
    } else if alpha == 0.0 {
        let (p, q) = (power(beta, 0.0), power(0.0, beta));
        ((times(q, -b * ratio) - q + p) / (b * b), times(q, -ratio))
    } else if alpha + beta == 0.0 {
        let quotient = power(alpha, beta);
        ((quotient - one - a * ratio) / (a * a), (one - quotient) / a)
    } else {
        let (p, q) = (power(alpha + beta, 0.0), power(0.0, alpha + beta));
        let both = power(alpha, beta);
        (p / (b * sum) + q / (a * sum) - both / (a * b), (q - both) / a)
    }
}

fn decoupled<T: Real>(ln_p: &[T], ln_q: &[T], label: usize, alpha: T, beta: T) -> (T, Vec<T>) {
    let without = |ln: &[T]| {
        let mut rest = ln.to_vec();
        rest.remove(label);
        rest
    };
    let (p_rest, q_rest) = (without(ln_p), without(ln_q));
    let largest = |ln: &[T]| ln.iter().copied().fold(T::of(f64::NEG_INFINITY), T::max);
    let ln_sum = |ln: &[T]| {
        let largest = largest(ln);
        if largest == T::of(f64::NEG_INFINITY) {
            return largest;
        }
        largest + ln.iter().map(|&ln| (ln - largest).exp()).sum::<T>().ln()
    };
    let (p_others, q_others) = (ln_sum(&p_rest), ln_sum(&q_rest));
    let binary = kl(&[ln_p[label], p_others], &[ln_q[label], q_others]);
    let (p, q) = (ln_p[label].exp(), ln_q[label].exp());
    let empty = largest(&p_rest) == T::of(f64::NEG_INFINITY);
    let (mut loss, mut gradient) = (alpha * binary, Vec::new());
    if !empty {
        loss += times(beta, kl(&ln_softmax(&p_rest, 1.0), &ln_softmax(&q_rest, 1.0)));
    }
    for k in 0..ln_q.len() {
        if k == label {
            gradient.push(alpha * (q - p));
            continue;
        }
        let within = (ln_q[k] - q_others).exp();
        let teacher_within = if empty { within } else { (ln_p[k] - p_others).exp() };
        gradient.push(alpha * (p - q) * within + beta * (within - teacher_within));
    }
    (loss, gradient)
}

fn squared<T: Real>(x: &[T], t: &[T], centred: bool) -> (T, Vec<T>) {
    let lowest = T::of(f64::NEG_INFINITY);
    let apart: Vec<Option<T>> =
        x.iter().zip(t).map(|(&x, &t)| (x != lowest && t != lowest).then(|| x - t)).collect();
    let count = T::of(apart.iter().flatten().count().max(1) as f64);
    let mean =
        if centred { apart.iter().flatten().copied().sum::<T>() / count } else { T::of(0.0) };
    let square = |d: &T| (*d - mean) * (*d - mean);
    let loss = apart.iter().flatten().map(square).sum::<T>() / count;
    let slope = |d: &Option<T>| d.map_or(T::of(0.0), |d| T::of(2.0) * (d - mean) / count);
    (loss, apart.iter().map(slope).collect())
}
