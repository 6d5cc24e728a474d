//! Attention of one new token per sequence over kept keys and values.

use super::Cpu;
use super::attention::softmax;
use super::lanes::{sum2, vectorised};
use crate::device::CachedAttention;

impl Cpu {
    pub(super) fn attention_of_new(&mut self, op: &CachedAttention) {
        let (each, room) = op.each_and_room();
        let lengths = self.ids.read(op.lengths);
        let ([q, keys, values], [out]) = self.memory.borrow([op.q, op.keys, op.values], [op.out]);
        self.threads.reserve(room);
        let (rows, cost, scale) = (0..out.rows, 2 * room * q.cols, op.scale as f32);
        self.threads.over((rows, out), cost, |(rows, mut out)| {
            let mut scratch = self.threads.scratch(room);
            for (row, sequence) in rows.enumerate() {
                let seen = op.seen(lengths[sequence] as usize, room);
                let scores = &mut scratch[..seen.len()];
                for head in 0..op.heads {
                    let columns = head * each..(head + 1) * each;
                    let first = head * op.key_heads / op.heads * each;
                    vectorised(
                        #[inline(always)]
                        || {
                            let query = &q.row(sequence)[columns.clone()];
                            for (score, at) in scores.iter_mut().zip(seen.clone()) {
                                let key = &keys.row(sequence * room + at)[first..first + each];
                                *score = scale * sum2(query, key, |q, k| q * k);
                            }
                            softmax(scores, 0..seen.len());
                            let out = &mut out.row(row)[columns];
                            out.fill(0.0);
                            for (&weight, at) in scores.iter().zip(seen.clone()) {
                                let value = &values.row(sequence * room + at)[first..first + each];
                                let pairs = out.iter_mut().zip(value);
                                pairs.for_each(|(out, &value)| *out = weight.mul_add(value, *out));
                            }
                        },
                    );
                }
            }
        });
    }
}
