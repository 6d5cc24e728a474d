//! Probabilities of two rows compared by rank, of which only the first `top` are put in order.
//!
//! A class's slope is found by looking its logit up among the sorted ones, so no class number is
//! moved: what is sorted are bare logits, in scratch memory of the thread.

use super::lanes::sum2_f64;
use super::losses::ln_total;
use super::math::exp;

/// How two rows are compared.
#[derive(Clone, Copy)]
pub(super) struct Sorted {
    pub(super) temperature: f64,
    pub(super) factor: f64,
    pub(super) top: usize,
    /// Factor of the gradient.
    pub(super) scale: f64,
}

impl Sorted {
    /// Numbers of scratch for rows of these widths: both, and a running sum of slopes.
    pub(super) fn room(x: usize, teacher: usize) -> usize {
        2 * x + teacher + 1
    }
}

/// One side: its largest logits in descending order, and what the others come to.
struct Side<'a> {
    top: &'a [f32],
    /// The largest logit, and `ln Σ exp((x − largest)/T)`.
    largest: f32,
    ln_total: f64,
    inverse: f64,
    /// How many of the row equal the least of `top` beyond those in it.
    equal_outside: usize,
    /// The probability of all that is not in `top`.
    rest: f64,
}

impl<'a> Side<'a> {
    #[inline(always)]
    fn new(x: &[f32], scratch: &'a mut [f32], top: usize, temperature: f64) -> Self {
        let (inverse, top) = (1.0 / temperature, top.min(x.len()));
        let (largest, ln_total) = ln_total(x, inverse as f32);
        scratch.copy_from_slice(x);
        let descending = |a: &f32, b: &f32| b.total_cmp(a);
        if top < x.len() {
            scratch.select_nth_unstable_by(top - 1, descending);
        }
        let scratch = &mut scratch[..top];
        scratch.sort_unstable_by(descending);
        let mut side =
            Self { top: scratch, largest, ln_total, inverse, equal_outside: 0, rest: 0.0 };
        let least = side.top[top - 1];
        let equal = |x: f32, _| if x == least { 1.0 } else { 0.0 };
        let inside = side.top.len() - side.top.partition_point(|&x| x > least);
        side.equal_outside = (sum2_f64(x, x, equal) as usize).saturating_sub(inside);
        let below = |x, _| if x < least { side.probability(x) } else { 0.0 };
        side.rest = sum2_f64(x, x, below) + side.equal_outside as f64 * side.probability(least);
        side
    }

    #[inline(always)]
    fn ln(&self, x: f32) -> f64 {
        (f64::from(x) - f64::from(self.largest)) * self.inverse - self.ln_total
    }

    #[inline(always)]
    fn probability(&self, x: f32) -> f64 {
        exp(self.ln(x) as f32).into()
    }

    /// `ln` of the probability of a rank, and the probability.
    #[inline(always)]
    fn rank(&self, rank: usize) -> (f64, f64) {
        match self.top.get(rank) {
            Some(&x) => (self.ln(x), self.probability(x)),
            None => (f64::NEG_INFINITY, 0.0),
        }
    }
}

#[inline(always)]
fn sign(larger: f64, smaller: f64) -> f32 {
    if larger > smaller {
        1.0
    } else if larger < smaller {
        -1.0
    } else {
        0.0
    }
}

/// Loss of the row `x` against `teacher`; adds to `dx` where given. `scratch` is [`Sorted::room`]
/// long.
#[inline(always)]
pub(super) fn sorted_loss(
    x: &[f32],
    teacher: &[f32],
    dx: Option<&mut [f32]>,
    by: Sorted,
    scratch: &mut [f32],
) -> f64 {
    let ranks = by.top.min(x.len().max(teacher.len()));
    let (of_x, scratch) = scratch.split_at_mut(x.len());
    let (of_teacher, running) = scratch.split_at_mut(teacher.len());
    let student = Side::new(x, of_x, ranks, by.temperature);
    let teacher = Side::new(teacher, of_teacher, ranks, by.temperature);

    // Sums of slopes up to each of the student's ranks: whole numbers, exact in `f32`.
    running[0] = 0.0;
    let (mut loss, mut total) = ((student.rest - teacher.rest).abs(), 0.0);
    let of_rest = sign(student.rest, teacher.rest);
    for rank in 0..ranks {
        let ((ln_q, q), (ln_p, p)) = (student.rank(rank), teacher.rank(rank));
        loss += (q - p).abs();
        // By logarithms: they are told apart where probabilities are too small to be.
        let slope = sign(ln_q, ln_p);
        total += f64::from(slope) * q;
        if rank < student.top.len() {
            running[rank + 1] = running[rank] + slope;
        }
    }
    total += f64::from(of_rest) * student.rest;

    if let Some(dx) = dx {
        let scale = by.scale * by.factor / by.temperature;
        let least = student.top[student.top.len() - 1];
        for (dx, &x) in dx.iter_mut().zip(x) {
            let slope = if x < least {
                of_rest
            } else {
                let first = student.top.partition_point(|&other| other > x);
                let end = first + student.top[first..].partition_point(|&other| other >= x);
                let outside = if x == least { student.equal_outside } else { 0 };
                let sum = running[end] - running[first] + outside as f32 * of_rest;
                sum / (end - first + outside) as f32
            };
            *dx += (scale * student.probability(x) * (f64::from(slope) - total)) as f32;
        }
    }
    by.factor * loss
}
