//! Probabilities compared by rank (Boizard et al. 2024, arXiv:2402.12030): sorted, subtracted,
//! summed.

use super::Real;
use super::losses::ln_softmax;

/// Loss of a row of logits `x` against the teacher's `t`, which may be of another width, and its
/// gradient by `x`; see [`Target::Sorted`](crate::Target::Sorted).
pub(super) fn sorted_of<T: Real>(x: &[T], t: &[T], temperature: f64, top: usize) -> (T, Vec<T>) {
    let (zero, one) = (T::default(), T::of(1.0));
    let sign = |d: T| {
        if d > zero {
            one
        } else if d < zero {
            -one
        } else {
            zero
        }
    };
    let probabilities = |logits: &[T]| -> Vec<T> {
        ln_softmax(logits, temperature).into_iter().map(T::exp).collect()
    };
    let descending = |values: &[T]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| {
            values[b].partial_cmp(&values[a]).unwrap_or(std::cmp::Ordering::Equal)
        });
        order
    };
    let (q, p) = (probabilities(x), probabilities(t));
    let (of_q, of_p) = (descending(x), descending(t));
    let ranks = x.len().max(t.len());
    let at = |values: &[T], order: &[usize], rank: usize| {
        order.get(rank).map_or(zero, |&class| values[class])
    };
    let apart: Vec<T> = (0..ranks).map(|k| at(&q, &of_q, k) - at(&p, &of_p, k)).collect();
    let top = top.min(ranks);
    let rest = apart[top..].iter().copied().sum::<T>();
    let size = |d: T| sign(d) * d;
    let loss = apart[..top].iter().map(|&d| size(d)).sum::<T>() + size(rest);
    let slope_of_rank = |k: usize| sign(if k < top { apart[k] } else { rest });

    // Equal logits are one run of ranks, and each has the mean of their slopes.
    let mut slopes = vec![zero; x.len()];
    let mut first = 0;
    while first < x.len() {
        let run = of_q[first..].iter().take_while(|&&class| x[class] == x[of_q[first]]).count();
        // Of what is no number there is no run.
        let run = run.max(1);
        let mean = (first..first + run).map(slope_of_rank).sum::<T>() / T::of(run as f64);
        of_q[first..first + run].iter().for_each(|&class| slopes[class] = mean);
        first += run;
    }
    let total = slopes.iter().zip(&q).map(|(&s, &q)| s * q).sum::<T>();
    let scale = T::of(1.0 / temperature);
    (loss, slopes.iter().zip(&q).map(|(&s, &q)| scale * q * (s - total)).collect())
}
