//! Attention with every score written out.

use super::{Mat, Real, Reference, dot};
use crate::device::{Attention, AttentionBackward};

/// One head of one sequence: where its rows and columns lie.
struct Head {
    rows: std::ops::Range<usize>,
    query: std::ops::Range<usize>,
    key: std::ops::Range<usize>,
    value: std::ops::Range<usize>,
    head: usize,
}

impl<T: Real> Reference<T> {
    fn heads(&self, op: &Attention) -> Vec<Head> {
        let each = op.each();
        let starts = self.load_ids(op.starts);
        let mut heads = Vec::new();
        for bounds in starts.windows(2) {
            for head in 0..op.heads {
                let column = |head: usize| head * each..(head + 1) * each;
                let key = head * op.key_heads / op.heads;
                heads.push(Head {
                    rows: bounds[0] as usize..bounds[1] as usize,
                    query: column(head),
                    key: column(op.heads + key),
                    value: column(op.heads + op.key_heads + key),
                    head,
                });
            }
        }
        heads
    }

    /// Rows of the keys that the query in `row` sees.
    fn seen(op: &Attention, head: &Head, row: usize) -> std::ops::Range<usize> {
        let (first, length) = (head.rows.start, head.rows.len());
        let keys = op.mask.keys(row - first, length);
        first + keys.start..first + keys.end
    }

    /// Scores of one query row, one for each key it sees.
    fn scores(&self, op: &Attention, qkv: &Mat<T>, head: &Head, row: usize) -> Vec<T> {
        let query = &qkv.row(row)[head.query.clone()];
        let score = |key: usize| dot(query, &qkv.row(key)[head.key.clone()]) * T::of(op.scale);
        Self::seen(op, head, row).map(score).collect()
    }

    fn attention_dropout(&self, op: &Attention, head: &Head, row: usize) -> Vec<T> {
        let factor = |key: usize| match &op.dropout {
            None => T::of(1.0),
            Some(dropout) => {
                let address = self.load_ids(dropout.rows)[row];
                let position = key - head.rows.start;
                self.dropout_factor(dropout, address, (head.head << 16 | position) as u32)
            }
        };
        Self::seen(op, head, row).map(factor).collect()
    }

    pub(super) fn attention_forward(&mut self, op: &Attention) {
        let qkv = self.load(op.qkv);
        let mut out = Mat::zeros(op.out.rows, op.out.cols);
        let mut lse = Mat::zeros(op.lse.rows, op.lse.cols);
        for head in self.heads(op) {
            for row in head.rows.clone() {
                let scores = self.scores(op, &qkv, &head, row);
                let max = scores.iter().copied().fold(scores[0], T::max);
                let total = scores.iter().map(|&score| (score - max).exp()).sum::<T>();
                let log_total = max + total.ln();
                lse.row_mut(row)[head.head] = log_total;
                let factors = self.attention_dropout(op, &head, row);
                for (at, key) in Self::seen(op, &head, row).enumerate() {
                    let weight = (scores[at] - log_total).exp() * factors[at];
                    for (at, value) in head.query.clone().zip(head.value.clone()) {
                        out.row_mut(row)[at] += weight * qkv.at(key, value);
                    }
                }
            }
        }
        self.store(op.out, &out);
        self.store(op.lse, &lse);
    }

    pub(super) fn attention_gradient(&mut self, op: &AttentionBackward) {
        let forward = &op.forward;
        let (qkv, d_out, lse) =
            (self.load(forward.qkv), self.load(op.d_out), self.load(forward.lse));
        let mut d_qkv = Mat::zeros(qkv.rows(), qkv.cols);
        let scale = T::of(forward.scale);
        for head in self.heads(forward) {
            for row in head.rows.clone() {
                let scores = self.scores(forward, &qkv, &head, row);
                let factors = self.attention_dropout(forward, &head, row);
                let d_row = &d_out.row(row)[head.query.clone()];
                let p: Vec<T> =
                    scores.iter().map(|&score| (score - lse.at(row, head.head)).exp()).collect();
                let dp: Vec<T> = Self::seen(forward, &head, row)
                    .zip(&factors)
                    .map(|(key, &factor)| dot(d_row, &qkv.row(key)[head.value.clone()]) * factor)
                    .collect();
                let mean = dot(&p, &dp);
                for (place, key) in Self::seen(forward, &head, row).enumerate() {
                    let d_score = p[place] * (dp[place] - mean) * scale;
                    let kept = p[place] * factors[place];
                    let columns = head.query.clone().zip(head.key.clone()).zip(head.value.clone());
                    for (at, ((q, k), v)) in columns.enumerate() {
                        d_qkv.row_mut(row)[q] += d_score * qkv.at(key, k);
                        d_qkv.row_mut(key)[k] += d_score * qkv.at(row, q);
                        d_qkv.row_mut(key)[v] += kept * d_row[at];
                    }
                }
            }
        }
        self.store(op.d_qkv, &d_qkv);
    }
}
