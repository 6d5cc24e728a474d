//! KD-sim: classes that are alike share the label's probability.
//!
//! Tang, Shivanna, Zhao, Lin, Singh, Chi & Jain 2020, "Understanding and Improving Knowledge
//! Distillation", arXiv:2002.03532: the teacher's class geometry without a teacher,
//! `q = (1 − α)·y + α·softmax(cos(w_y, wₖ)/T)`, `wₖ` the classifier's weights of class k.
//!
//! The similarities are constants: who gives the weights decides when they are taken.

use crate::divergence::detached;
use crate::numbers::softmax;
use crate::one_hot::mix_label;
use crate::target::replace;
use crate::{Needs, Restored, Row, SoftTarget, Target};

/// The label and the classes like it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassSimilarity {
    alpha: f64,
    classes: usize,
    /// `[K, K]`, a distribution in each row.
    similar: Vec<f64>,
}

impl ClassSimilarity {
    /// From class vectors `[K, D]`, none of them 0, with α in `0.0..=1.0` and T above 0.
    pub fn new(vectors: &[f64], classes: usize, alpha: f64, temperature: f64) -> Self {
        let width = vectors.len() / classes;
        assert_eq!(vectors.len(), classes * width, "class vectors are [K, D]");
        let rows: Vec<&[f64]> = vectors.chunks_exact(width).collect();
        let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let norms: Vec<f64> = rows.iter().map(|row| libm::sqrt(inner(row, row))).collect();
        let mut similar = Vec::with_capacity(classes * classes);
        for (row, norm) in rows.iter().zip(&norms) {
            let cosines =
                rows.iter().zip(&norms).map(|(other, of)| inner(row, other) / (norm * of));
            similar.extend(softmax(&cosines.collect::<Vec<f64>>(), temperature));
        }
        Self { alpha, classes, similar }
    }
}

impl Target for ClassSimilarity {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    fn state(&self) -> Vec<f64> {
        self.similar.clone()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        replace(&mut self.similar, state)
    }
}

impl SoftTarget for ClassSimilarity {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        q.copy_from_slice(&self.similar[label * self.classes..][..self.classes]);
        mix_label(label, self.alpha, q);
        true
    }
}
