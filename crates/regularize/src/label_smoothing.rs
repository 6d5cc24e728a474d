//! Label smoothing: a part of the label is spread evenly.
//!
//! Szegedy, Vanhoucke, Ioffe, Shlens & Wojna 2016, "Rethinking the Inception Architecture for
//! Computer Vision", CVPR, arXiv:1512.00567, §7. Two conventions are in use; ε over the others is
//! ε·K/(K − 1) over all.

use crate::divergence::detached;
use crate::one_hot::{mix_label, toward_label};
use crate::{Needs, Row, SoftTarget, Target};

/// Which classes share ε.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// All K, the label too: `(1 − ε)·y + ε/K`, the paper's and PyTorch's.
    AllClasses,
    /// The K − 1 others: `1 − ε` on the label, `ε/(K − 1)` elsewhere.
    OtherClasses,
}

/// The label and the even distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelSmoothing {
    /// ε, `0.0..=1.0`.
    pub epsilon: f64,
    /// Which classes share it.
    pub spread: Spread,
}

impl Target for LabelSmoothing {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for LabelSmoothing {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        smooth(label, self.epsilon, self.spread, q);
        true
    }
}

/// Writes the smoothed label; a single class has no others and keeps everything.
pub(crate) fn smooth(label: usize, epsilon: f64, spread: Spread, q: &mut [f64]) {
    let classes = q.len();
    if classes == 1 {
        return toward_label(label, 1.0, q);
    }
    match spread {
        Spread::AllClasses => {
            q.fill(1.0 / classes as f64);
            mix_label(label, epsilon, q);
        }
        Spread::OtherClasses => {
            q.fill(epsilon / (classes - 1) as f64);
            q[label] = 1.0 - epsilon;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_conventions_by_hand() {
        let target = |spread, classes: usize| {
            let (logits, mut q) = (vec![0.0; classes], vec![0.0; classes]);
            let smoothing = LabelSmoothing { epsilon: 0.25, spread };
            assert!(smoothing.target(&Row::new(Some(0), &logits), &mut q));
            q
        };
        assert_eq!(target(Spread::AllClasses, 2), [0.875, 0.125]);
        assert_eq!(target(Spread::OtherClasses, 2), [0.75, 0.25]);
        assert_eq!(target(Spread::OtherClasses, 3), [0.75, 0.125, 0.125]);
        assert_eq!(target(Spread::AllClasses, 1), [1.0]);
        assert_eq!(target(Spread::OtherClasses, 1), [1.0]);
    }
}
