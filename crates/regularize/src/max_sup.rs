//! Max suppression: label smoothing's penalty on the largest logit in place of the label's.
//!
//! Zhou et al. 2025, "MaxSup: Overcoming Representation Collapse in Label Smoothing", NeurIPS,
//! arXiv:2502.15798: `CE(y, s) + α·(max z − mean z)`. Label smoothing is
//! `CE(y, s) + α·(z_y − mean z)`: the two agree where the student is right.

use crate::numbers::{largest, times};
use crate::{Needs, OneHot, Row, Schedule, Target};

/// α of the penalty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxSup {
    /// α, at least 0; the authors' goes from 0.1 to 0.2.
    pub alpha: Schedule,
}

impl Target for MaxSup {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        let label = OneHot.loss(row, d_logits);
        if row.label.is_none() {
            return 0.0;
        }
        let (top, alpha) = (largest(row.logits), self.alpha.at(row.progress));
        let share = 1.0 / row.classes() as f64;
        d_logits.iter_mut().for_each(|d| *d -= alpha * share);
        d_logits[top] += alpha;
        let above = row.logits.iter().map(|&z| row.logits[top] - z).sum::<f64>() * share;
        label + times(alpha, above)
    }
}
