//! Zipf's label smoothing: the classes that are not the label share by their rank.
//!
//! Liang et al. 2022, "Efficient One Pass Self-distillation with Zipf's Label Smoothing", ECCV,
//! arXiv:2207.12980: `CE(y, s) + λ·KL(p ‖ s′)`, `s′` the student's distribution over the classes that
//! are not the label and `p ∝ 1/rank` by the student's own logits, held fixed; the largest has rank 1,
//! of equals the first has the smaller rank.
//!
//! Here the ranks are those of the sample's own logits; the paper counts votes of the positions of
//! a feature map, which text classifiers lack. With two classes there is no penalty.

use crate::numbers::ln_softmax;
use crate::{Divergence, Needs, Row, Target};

/// λ of the divergence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zipf {
    /// λ, at least 0; the authors' is 0.1.
    pub lambda: f64,
}

impl Target for Zipf {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        let Some(label) = row.label else {
            d_logits.fill(0.0);
            return 0.0;
        };
        let ln_s = ln_softmax(row.logits, 1.0);
        d_logits.iter_mut().zip(&ln_s).for_each(|(d, &ln_s)| *d = libm::exp(ln_s));
        d_logits[label] -= 1.0;
        let loss = -ln_s[label];
        if row.classes() < 3 || self.lambda == 0.0 {
            return loss;
        }
        let others: Vec<usize> = (0..row.classes()).filter(|&class| class != label).collect();
        let logits: Vec<f64> = others.iter().map(|&class| row.logits[class]).collect();
        let mut slope = vec![0.0; logits.len()];
        let kl = Divergence::Kl { temperature: 1.0 }.of(&by_rank(&logits), &logits, &mut slope);
        for (class, slope) in others.into_iter().zip(slope) {
            d_logits[class] += self.lambda * slope;
        }
        loss + self.lambda * kl
    }
}

/// `1/rank` over their sum.
fn by_rank(logits: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let total: f64 = (1..=logits.len()).map(|rank| 1.0 / rank as f64).sum();
    let mut p = vec![0.0; logits.len()];
    for (rank, class) in order.into_iter().enumerate() {
        p[class] = 1.0 / ((rank + 1) as f64 * total);
    }
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_by_hand() {
        let want = [3.0 / 11.0, 6.0 / 11.0, 2.0 / 11.0];
        for (got, want) in by_rank(&[1.0, 1.5, 1.0]).into_iter().zip(want) {
            assert!((got - want).abs() < 1e-15, "{got}, should be {want}");
        }
    }
}
