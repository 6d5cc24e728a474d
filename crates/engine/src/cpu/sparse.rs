//! Losses on the classes that a teacher's row knows.
//!
//! A row's known classes cut it into runs of others, whose exponentials are summed run by run: what
//! the others have together is never a difference of two numbers near 1. In the gradient every one
//! of them has the same factor of its exponential.

use super::Cpu;
use super::divergences::{self as on, Class, Part, times};
use super::lanes::{max, sum2_f64, vectorised};
use super::math::exp;
use super::memory::nothing;
use crate::device::{IGNORED, RowLoss};
use crate::{Divergence, Missing, SparseLoss, SparseTarget};

/// The known classes of one row, after the rest was dealt with.
#[derive(Clone, Copy)]
struct Known<'a> {
    ids: &'a [u32],
    p: &'a [f32],
    /// Factor of `p`.
    share: f64,
    /// The probability of all others.
    rest: f64,
}

/// How a row is measured.
#[derive(Clone, Copy)]
struct By {
    loss: SparseLoss,
    temperature: f64,
    factor: f64,
    /// Factor of the gradient.
    scale: f64,
}

impl Cpu {
    pub(super) fn sparse_losses(&mut self, op: &RowLoss, target: &SparseTarget) {
        let width = target.width(op.x.rows());
        let ids = self.ids.read(target.ids);
        let weights = op.weights.unwrap_or_else(nothing);
        let ([x, p, rest, weights], [losses, dx]) = self.memory.borrow(
            [op.x, target.probabilities, target.rest, weights],
            [op.losses, op.dx.unwrap_or_else(nothing)],
        );
        assert_eq!((losses.rows, losses.cols), (x.rows, 1), "one loss per row");
        let per_row = op.weights.is_none() || (weights.rows, weights.cols) == (x.rows, 1);
        assert!(per_row, "one weight per row");
        assert!(op.dx.is_none() || (dx.rows, dx.cols) == (x.rows, x.cols), "shape of the gradient");
        let dx = op.dx.map(|_| dx);
        let SparseTarget { loss, missing, temperature, factor, .. } = *target;
        self.threads.over((0..x.rows, losses, dx), 20 * x.cols, |(rows, mut losses, mut dx)| {
            vectorised(
                #[inline(always)]
                || {
                    for (at, row) in rows.enumerate() {
                        let weight = op.weights.map_or(1.0, |_| f64::from(weights.row(row)[0]));
                        let dx = dx.as_mut().filter(|_| weight != 0.0).map(|dx| dx.row(at));
                        let ids = &ids[row * width..(row + 1) * width];
                        let ids = &ids[..ids.iter().take_while(|&&id| id != IGNORED).count()];
                        let p = &p.row(row)[..ids.len()];
                        let sum = || p.iter().map(|&p| f64::from(p)).sum::<f64>();
                        let (share, rest) = match missing {
                            Missing::TailBucket => (1.0, rest.row(row)[0].into()),
                            Missing::Renormalise => (1.0 / sum(), 0.0),
                            Missing::Zero => (1.0, 0.0),
                        };
                        let known = Known { ids, p, share, rest };
                        let by = By { loss, temperature, factor, scale: op.scale * weight };
                        losses.row(at)[0] = sparse_loss(x.row(row), known, dx, by) as f32;
                    }
                },
            );
        });
    }
}

#[inline(always)]
fn sparse_loss(x: &[f32], known: Known<'_>, dx: Option<&mut [f32]>, by: By) -> f64 {
    if known.ids.is_empty() {
        return 0.0;
    }
    let SparseLoss::Divergence(divergence) = by.loss else {
        let mass = mass(known);
        return over_known(x, known, dx, by, |class| {
            (times(class.p, -class.ln_q), mass * class.q - class.p)
        });
    };
    match divergence {
        Divergence::ForwardKl | Divergence::SkewKl { alpha: 0.0 } => {
            let mass = mass(known);
            over_known(x, known, dx, by, |class| {
                (times(class.p, class.ln_p - class.ln_q), mass * class.q - class.p)
            })
        }
        Divergence::ReverseKl | Divergence::SkewReverseKl { alpha: 0.0 } => {
            over_known(x, known, dx, by, on::reverse)
        }
        Divergence::Symmetric => over_known(x, known, dx, by, on::symmetric),
        Divergence::JensenShannon { beta } => {
            over_known(x, known, dx, by, |class| on::jensen_shannon(class, beta))
        }
        Divergence::SkewKl { alpha } => {
            over_known(x, known, dx, by, |class| on::skew(class, alpha))
        }
        Divergence::SkewReverseKl { alpha } => {
            over_known(x, known, dx, by, |class| on::skew_reverse(class, alpha))
        }
        Divergence::AlphaBeta { alpha, beta } => {
            over_known(x, known, dx, by, |class| on::alpha_beta(class, alpha, beta))
        }
        Divergence::TotalVariation => over_known(x, known, dx, by, on::total_variation),
        Divergence::Decoupled { .. } | Divergence::MeanSquaredLogits { .. } => {
            unreachable!("refused with the target's shapes")
        }
    }
}

/// What the teacher's probabilities sum to.
#[inline(always)]
fn mass(known: Known<'_>) -> f64 {
    known.share * known.p.iter().map(|&p| f64::from(p)).sum::<f64>() + known.rest
}

/// The runs of classes between known ones, `place` from 0 to as many as there are known: what lies
/// before that one, or behind the last.
///
/// Loops over these and no closure that is handed around: one that the compiler did not inline would
/// be code for any processor, in which a fused multiplication is a call.
#[inline(always)]
fn run_before(ids: &[u32], place: usize, classes: usize) -> std::ops::Range<usize> {
    let from = if place == 0 { 0 } else { ids[place - 1] as usize + 1 };
    let to = if place == ids.len() { classes } else { ids[place] as usize };
    from..to
}

#[inline(always)]
fn over_known(
    x: &[f32],
    known: Known<'_>,
    dx: Option<&mut [f32]>,
    by: By,
    part: impl Fn(Class) -> Part,
) -> f64 {
    let inverse = 1.0 / by.temperature;
    let mut rest_largest = f32::NEG_INFINITY;
    for place in 0..=known.ids.len() {
        rest_largest = rest_largest.max(max(&x[run_before(known.ids, place, x.len())]));
    }
    let mut rest_total = 0.0;
    if rest_largest > f32::NEG_INFINITY {
        for place in 0..=known.ids.len() {
            let run = &x[run_before(known.ids, place, x.len())];
            rest_total +=
                sum2_f64(run, run, |x, _| exp((x - rest_largest) * inverse as f32).into());
        }
    }
    let of = |id: &u32| f64::from(x[*id as usize]);
    let largest = known.ids.iter().map(of).fold(rest_largest.into(), f64::max);
    let rest_ln = if rest_total > 0.0 {
        (f64::from(rest_largest) - largest) * inverse + libm::log(rest_total)
    } else {
        f64::NEG_INFINITY
    };
    let known_total: f64 = known.ids.iter().map(|id| libm::exp((of(id) - largest) * inverse)).sum();
    let ln_total = libm::log(known_total + libm::exp(rest_ln));

    let class = |p: f64, ln_q: f64| Class {
        p,
        q: libm::exp(ln_q),
        ln_p: if p > 0.0 { libm::log(p) } else { f64::NEG_INFINITY },
        ln_q,
    };
    let of_class = |class: Class| {
        // What neither side has.
        let nowhere = class.ln_p == f64::NEG_INFINITY && class.ln_q == f64::NEG_INFINITY;
        if nowhere { (0.0, 0.0) } else { part(class) }
    };
    let at = |place: usize| {
        let ln_q = (of(&known.ids[place]) - largest) * inverse - ln_total;
        class(known.share * f64::from(known.p[place]), ln_q)
    };
    let others = class(known.rest, rest_ln - ln_total);
    let (rest_loss, rest_slope) = of_class(others);
    let (mut loss, mut slopes) = (rest_loss, rest_slope);
    for place in 0..known.ids.len() {
        let (more, slope) = of_class(at(place));
        loss += more;
        slopes += slope;
    }
    if let Some(dx) = dx {
        let scale = by.scale * by.factor * inverse;
        if rest_total > 0.0 {
            // The share of each among the others is its exponential over their sum.
            let factor = (scale * (rest_slope - others.q * slopes) / rest_total) as f32;
            for place in 0..=known.ids.len() {
                let run = run_before(known.ids, place, x.len());
                for (dx, &x) in dx[run.clone()].iter_mut().zip(&x[run]) {
                    *dx += factor * exp((x - rest_largest) * inverse as f32);
                }
            }
        }
        for (place, &id) in known.ids.iter().enumerate() {
            let class = at(place);
            dx[id as usize] += (scale * (of_class(class).1 - class.q * slopes)) as f32;
        }
    }
    by.factor * loss
}
