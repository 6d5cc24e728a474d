//! Top-k distillation: the teacher's likeliest classes alone.
//!
//! Tang et al. 2020, arXiv:2002.03532 (KD-topk): `q` keeps the teacher's k largest probabilities.
//! What the others had is dropped and the rest scaled to sum 1, or is spread evenly over them.

use crate::divergence::detached;
use crate::numbers::softmax;
use crate::{Needs, Row, SoftTarget, Target};

/// What becomes of the classes beyond the k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They have nothing; the k are scaled to sum 1.
    Dropped,
    /// Each has the same part of what they had together.
    Even,
}

/// The teacher's k largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopK {
    /// k, at least 1; of equals the first are kept. K or more is the whole teacher.
    pub k: usize,
    /// T, above 0.
    pub temperature: f64,
    /// What becomes of the others.
    pub rest: Rest,
}

impl Target for TopK {
    fn needs(&self) -> Needs {
        Needs { teacher: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

impl SoftTarget for TopK {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let logits = row.teacher();
        q.copy_from_slice(&softmax(logits, self.temperature));
        if self.k >= q.len() {
            return true;
        }
        let mut order: Vec<usize> = (0..q.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let (kept, others) = order.split_at(self.k);
        let rest: f64 = others.iter().map(|&class| q[class]).sum();
        let (scale, each) = match self.rest {
            Rest::Dropped => (1.0 / kept.iter().map(|&class| q[class]).sum::<f64>(), 0.0),
            Rest::Even => (1.0, rest / others.len() as f64),
        };
        kept.iter().for_each(|&class| q[class] *= scale);
        others.iter().for_each(|&class| q[class] = each);
        true
    }
}
