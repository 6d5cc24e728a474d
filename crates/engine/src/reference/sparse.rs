//! Losses on the classes that a teacher's row knows: one class is made of all others, and the loss
//! is that of the smaller distribution.

use super::divergences::{forward, over_classes};
use super::losses::ln_softmax;
use super::{Real, Reference};
use crate::device::IGNORED;
use crate::{Divergence, Missing, SparseLoss, SparseTarget};

impl<T: Real> Reference<T> {
    /// Loss of row `row`, whose logits are `x`, and its gradient.
    pub(super) fn sparse_row(&self, target: &SparseTarget, row: usize, x: &[T]) -> (T, Vec<T>) {
        let (zero, lowest) = (T::default(), T::of(f64::NEG_INFINITY));
        let width = target.width(target.probabilities.rows());
        let ids = self.load_ids(target.ids.range(row * width..(row + 1) * width));
        let ids: Vec<usize> =
            ids.iter().take_while(|&&id| id != IGNORED).map(|&id| id as usize).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "known classes ascend: {ids:?}");
        if ids.is_empty() {
            return (zero, vec![zero; x.len()]);
        }
        let known = self.load(target.probabilities.row_range(row..row + 1));
        let mut p = known.values[..ids.len()].to_vec();
        p.push(match target.missing {
            Missing::TailBucket => self.load(target.rest.row_range(row..row + 1)).values[0],
            Missing::Renormalise | Missing::Zero => zero,
        });
        let mass = p.iter().copied().sum::<T>();
        if target.missing == Missing::Renormalise {
            p.iter_mut().for_each(|p| *p = *p / mass);
        }

        let ln_softmax = ln_softmax(x, target.temperature);
        let others: Vec<usize> = (0..x.len()).filter(|at| !ids.contains(at)).collect();
        let largest = others.iter().map(|&at| ln_softmax[at]).fold(lowest, T::max);
        let ln_rest = if largest == lowest {
            lowest
        } else {
            let total = others.iter().map(|&at| (ln_softmax[at] - largest).exp()).sum::<T>();
            largest + total.ln()
        };
        let mut ln_q: Vec<T> = ids.iter().map(|&id| ln_softmax[id]).collect();
        ln_q.push(ln_rest);
        let ln_p: Vec<T> = p.iter().map(|&p| if p > zero { p.ln() } else { lowest }).collect();

        // What neither side has is not there.
        let there: Vec<usize> =
            (0..p.len()).filter(|&at| ln_p[at] != lowest || ln_q[at] != lowest).collect();
        let of = |all: &[T]| there.iter().map(|&at| all[at]).collect::<Vec<T>>();
        let (p, ln_p, ln_q) = (of(&p), of(&ln_p), of(&ln_q));
        let (loss, gradient) = match target.loss {
            // `p` may sum to less than 1.
            SparseLoss::CrossEntropy | SparseLoss::Divergence(Divergence::ForwardKl) => {
                let mass = p.iter().copied().sum::<T>();
                let slope = ln_q.iter().zip(&p).map(|(ln_q, &p)| mass * ln_q.exp() - p).collect();
                let cross = |(&p, &ln_q): (&T, &T)| if p > zero { -(p * ln_q) } else { zero };
                match target.loss {
                    SparseLoss::CrossEntropy => (p.iter().zip(&ln_q).map(cross).sum(), slope),
                    SparseLoss::Divergence(_) => (forward(&ln_p, &ln_q).0, slope),
                }
            }
            SparseLoss::Divergence(divergence) => over_classes(divergence, &ln_p, &ln_q),
        };

        let factor = T::of(target.factor);
        let scale = factor / T::of(target.temperature);
        let mut all = vec![zero; x.len()];
        for (&at, &d) in there.iter().zip(&gradient) {
            if at < ids.len() {
                all[ids[at]] = scale * d;
                continue;
            }
            // The one class's logit is ln Σ exp over the others.
            for &other in &others {
                all[other] = scale * d * (ln_softmax[other] - ln_rest).exp();
            }
        }
        (factor * loss, all)
    }
}
