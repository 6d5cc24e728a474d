//! Margin-based label smoothing: logits may differ by a margin, and what is beyond it costs.
//!
//! Liu, Ben Ayed, Galdran & Dolz 2022, "The Devil is in the Margin: Margin-based Label Smoothing for
//! Network Calibration", CVPR, arXiv:2111.15430:
//! `CE(y, s) + α·meanₖ max(0, max z − zₖ − m)`; the mean over classes is the authors' code's, the
//! paper has the sum. The gradient goes through the largest logit too, of equals the first.

use crate::numbers::{largest, times};
use crate::{Needs, OneHot, Row, Target};

/// α and the margin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mbls {
    /// α, at least 0; the authors' is 0.1.
    pub alpha: f64,
    /// m, at least 0; the authors' is 10 on images.
    pub margin: f64,
}

impl Target for Mbls {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        let label = OneHot.loss(row, d_logits);
        if row.label.is_none() {
            return 0.0;
        }
        let (top, share) = (largest(row.logits), self.alpha / row.classes() as f64);
        let mut excess = 0.0;
        for (class, &z) in row.logits.iter().enumerate() {
            let beyond = row.logits[top] - z - self.margin;
            if beyond > 0.0 {
                excess += beyond;
                d_logits[class] -= share;
                d_logits[top] += share;
            }
        }
        label + times(share, excess)
    }
}
