//! Online label smoothing: what the student said of the class an epoch ago.
//!
//! Zhang, Jiang, Hou, Wei, Han, Li & Cheng 2021, "Delving Deep into Label Smoothing", IEEE TIP,
//! arXiv:2011.12562, §3: `q = (1 − α)·y + α·S[y]`, where `S[y]` is the mean of the student's
//! distributions over those samples of class y in the epoch before whose largest logit was y's.
//!
//! A class without such a sample has the even distribution, as in the authors' code. Rows that are
//! not finite are not remembered.

use crate::divergence::detached;
use crate::label_smoothing::{Spread, smooth};
use crate::numbers::{largest, softmax};
use crate::one_hot::mix_label;
use crate::target::replace;
use crate::{Needs, Restored, Row, SoftTarget, Target};

/// The label and its class's memory.
#[derive(Clone, Debug, PartialEq)]
pub struct OnlineLabelSmoothing {
    alpha: f64,
    classes: usize,
    /// `S` `[K, K]`, a distribution in each row; the sums of this epoch `[K, K]`; their counts `[K]`.
    numbers: Vec<f64>,
}

impl OnlineLabelSmoothing {
    /// The memory of the first epoch is the label smoothed by `initial` over all classes: 1 is the
    /// even distribution of the paper. α is the memory's share, ½ in the paper.
    pub fn new(classes: usize, alpha: f64, initial: f64) -> Self {
        let mut numbers = vec![0.0; (2 * classes + 1) * classes];
        for (label, row) in numbers.chunks_exact_mut(classes).take(classes).enumerate() {
            smooth(label, initial, Spread::AllClasses, row);
        }
        Self { alpha, classes, numbers }
    }

    /// `S[label]`, `[K]`.
    pub fn memory(&self, label: usize) -> &[f64] {
        &self.numbers[label * self.classes..][..self.classes]
    }
}

impl Target for OnlineLabelSmoothing {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    fn observe(&mut self, row: &Row<'_>) {
        let Some(label) = row.label.filter(|&label| label == largest(row.logits)) else { return };
        let s = softmax(row.logits, 1.0);
        if !s.iter().all(|s| s.is_finite()) {
            return;
        }
        let classes = self.classes;
        let (sums, counts) = self.numbers[classes * classes..].split_at_mut(classes * classes);
        let sums = &mut sums[label * classes..][..classes];
        sums.iter_mut().zip(s).for_each(|(sum, s)| *sum += s);
        counts[label] += 1.0;
    }

    fn end_of_epoch(&mut self) {
        let classes = self.classes;
        let (memory, rest) = self.numbers.split_at_mut(classes * classes);
        let (sums, counts) = rest.split_at(classes * classes);
        let rows = memory.chunks_exact_mut(classes).zip(sums.chunks_exact(classes));
        for ((memory, sums), &count) in rows.zip(counts) {
            for (memory, sum) in memory.iter_mut().zip(sums) {
                *memory = if count > 0.0 { sum / count } else { 1.0 / classes as f64 };
            }
        }
        rest.fill(0.0);
    }

    fn state(&self) -> Vec<f64> {
        self.numbers.clone()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        replace(&mut self.numbers, state)
    }
}

impl SoftTarget for OnlineLabelSmoothing {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        q.copy_from_slice(self.memory(label));
        mix_label(label, self.alpha, q);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Class 0 is hit by (¾, ¼) and (½, ½); its third row is missed, and class 1 is never hit.
    #[test]
    fn the_memory_is_the_mean_of_what_was_right() {
        let mut target = OnlineLabelSmoothing::new(2, 0.5, 0.1);
        let close = |got: &[f64], want: [f64; 2]| {
            assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-15), "{got:?}");
        };
        close(target.memory(0), [0.95, 0.05]);
        let rows = [[3f64.ln(), 0.0], [0.0, 0.0], [0.0, 4.0], [f64::NAN, 0.0]];
        for logits in &rows {
            target.observe(&Row::new(Some(0), logits));
            target.observe(&Row::new(None, logits));
        }
        target.observe(&Row::new(Some(1), &rows[0]));
        target.end_of_step();
        close(target.memory(0), [0.95, 0.05]);
        target.end_of_epoch();
        close(target.memory(0), [0.625, 0.375]);
        close(target.memory(1), [0.5, 0.5]);
        let mut q = [0.0; 2];
        assert!(target.target(&Row::new(Some(0), &rows[0]), &mut q));
        close(&q, [0.8125, 0.1875]);
    }
}
