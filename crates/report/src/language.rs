//! How well a language model foresees text: from sums over its tokens to the numbers that are
//! reported.

use serde::Serialize;

/// What a language model foresaw of a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Foresight {
    /// Tokens that had something to foresee.
    pub tokens: u64,
    /// Mean of `−ln p` over them, in nats; `None` without a token, or where it is not finite.
    pub loss: Option<f64>,
    /// `exp(loss)`: among how many equally likely tokens the model is undecided, on the mean.
    pub perplexity: Option<f64>,
    /// The sum of `−log₂ p` over the bytes of the text that the tokens stand for, which does not
    /// depend on how a tokenizer cuts it; `None` where nobody counted bytes.
    pub bits_per_byte: Option<f64>,
    /// Share of tokens that were the likeliest.
    pub accuracy: Option<f64>,
}

impl Foresight {
    /// From sums: `tokens` that stand for `bytes` of text, their losses' sum `nats`, and how many of
    /// them were `misses`.
    ///
    /// ```
    /// use heirloom_report::language::Foresight;
    /// // Four tokens for eight bytes, each with probability 1/4.
    /// let found = Foresight::of(4, 8, 4.0 * 4f64.ln(), 1);
    /// assert_eq!(found.perplexity.map(|p| (p * 1e9).round() / 1e9), Some(4.0));
    /// assert_eq!((found.bits_per_byte, found.accuracy), (Some(1.0), Some(0.75)));
    /// ```
    pub fn of(tokens: u64, bytes: u64, nats: f64, misses: u64) -> Self {
        let over = |sum: f64, count: u64| (count > 0).then(|| sum / count as f64);
        let finite = |x: &f64| x.is_finite();
        let loss = over(nats, tokens).filter(finite);
        Self {
            tokens,
            loss,
            perplexity: loss.map(libm::exp).filter(finite),
            bits_per_byte: over(nats / std::f64::consts::LN_2, bytes).filter(finite),
            accuracy: over(tokens.saturating_sub(misses) as f64, tokens),
        }
    }

    /// The numbers with their names, the deciding one first.
    pub fn numbers(&self) -> [(&'static str, Option<f64>); 4] {
        [
            ("loss", self.loss),
            ("perplexity", self.perplexity),
            ("bits_per_byte", self.bits_per_byte),
            ("accuracy", self.accuracy),
        ]
    }

    /// The number called `name`, and whether a higher one is better.
    pub fn deciding(&self, name: &str) -> (Option<f64>, bool) {
        let found = self.numbers().into_iter().find(|(known, _)| *known == name);
        (found.and_then(|(_, value)| value), name == "accuracy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_or_bytes_there_is_no_number() {
        let nothing = Foresight::of(0, 0, 0.0, 0);
        assert!(nothing.numbers().iter().all(|(_, value)| value.is_none()));
        let masked = Foresight::of(2, 0, 1.0, 0);
        assert_eq!((masked.loss, masked.bits_per_byte), (Some(0.5), None));
    }

    #[test]
    fn what_is_not_finite_is_said_to_be_no_number() {
        let lost = Foresight::of(2, 4, f64::NAN, 2);
        assert_eq!((lost.loss, lost.perplexity, lost.accuracy), (None, None, Some(0.0)));
        assert_eq!(Foresight::of(1, 1, 1e6, 0).perplexity, None);
    }

    #[test]
    fn lower_is_better_of_all_but_accuracy() {
        let found = Foresight::of(4, 8, 2.0, 1);
        assert_eq!(found.deciding("loss"), (Some(0.5), false));
        assert_eq!(found.deciding("accuracy"), (Some(0.75), true));
        assert_eq!(found.deciding("f1"), (None, false));
    }
}
