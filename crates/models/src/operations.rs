//! How many floating-point operations an encoder's forward pass takes, from its shapes.
//!
//! ```text
//! layers · (2 N (4 C² + 2 C F) + 4 C Σ T²) + head
//! ```
//!
//! N tokens in sequences of T; a classifier is `2 S (C² + C K)` on S sequences of K outputs, a
//! language model's head `2 M (C² + C V)` on M masked tokens. Products alone, a multiplication and
//! an addition being two; embeddings are looked up. The backward pass has `2 · 2 N …` for the two
//! gradients of each product, and `10 C Σ T²` for attention, whose scores it computes again.

use crate::{EncoderConfig, Head};

impl EncoderConfig {
    /// Floating-point operations of a forward pass over sequences of these lengths, `masked` of
    /// whose tokens a language model's head predicts.
    pub fn operations(&self, head: Head, lengths: &[u32], masked: usize) -> u64 {
        let (c, f) = (self.hidden_size as u64, self.intermediate_size as u64);
        let tokens: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        let pairs: u64 = lengths.iter().map(|&length| u64::from(length) * u64::from(length)).sum();
        let layer = 2 * tokens * (4 * c * c + 2 * c * f) + 4 * c * pairs;
        let width = head.width(self) as u64;
        let head = match head {
            Head::SingleLabel { .. } | Head::MultiLabel { .. } | Head::Regression => {
                2 * lengths.len() as u64 * (c * c + c * width)
            }
            Head::MaskedLm => 2 * masked as u64 * (c * c + c * width),
            Head::Embedding => 0,
        };
        self.layers as u64 * layer + head
    }
}
