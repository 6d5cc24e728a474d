//! The label itself: `q = y`, plain cross-entropy.

use crate::divergence::detached;
use crate::{Needs, Row, SoftTarget, Target};

/// All on the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneHot;

impl Target for OneHot {
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for OneHot {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        toward_label(label, 1.0, q);
        true
    }
}

/// Writes `share` at the label and 0 elsewhere.
pub(crate) fn toward_label(label: usize, share: f64, q: &mut [f64]) {
    q.fill(0.0);
    q[label] = share;
}

/// Turns `π` into `(1 − α)·y + α·π`.
pub(crate) fn mix_label(label: usize, alpha: f64, q: &mut [f64]) {
    q.iter_mut().for_each(|q| *q *= alpha);
    q[label] += 1.0 - alpha;
}
