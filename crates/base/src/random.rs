//! Random numbers with an address: the word *for this purpose, at this step, at this place*.
//!
//! There is no random state to save or restore, and no reader can disturb another. The generator
//! is Philox4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3",
//! SC 2011), a counter-based function: 128 bits of address and 64 bits of key give 128 random bits.

/// What a random number is for. One purpose per variant, never reused, never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Order of the examples of an epoch.
    Shuffle = 1,
    /// Dropout masks.
    Dropout = 2,
    /// Fresh weights.
    Init = 3,
    /// Which examples are held out of the training set.
    Split = 4,
    /// Generated text (the demo's task).
    Synthetic = 5,
    /// Which tokens a masked language model must guess.
    Masking = 6,
    /// Resampling for intervals.
    Bootstrap = 7,
    /// Fresh weights of a balance policy's own network.
    Policy = 8,
    /// Which labels an experiment makes wrong, and how.
    LabelNoise = 9,
    /// Which units a grown model copies, in which shares, and what its new entries start from.
    Growth = 10,
    /// Tokens of generated text.
    Generation = 11,
    /// Which of a teacher's tokens are kept.
    Answers = 12,
    /// Which batches a student writes itself, and which of those it wrote come again.
    OnPolicy = 15,
}

/// The words of one purpose at one step and one site (a layer's dropout, say), by row and column.
///
/// `step` and `site` are folded into the counter, `seed` and `purpose` into the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    key: [u32; 2],
    site: u32,
    step: u32,
}

impl Words {
    /// The words at (`seed`, `purpose`, `step`, `site`). Steps beyond 2³² wrap.
    pub fn at(seed: u64, purpose: Purpose, step: u64, site: u32) -> Self {
        // The purpose changes the key by an odd multiple of the golden ratio, so that two purposes
        // of one seed share no stream.
        let key = seed ^ (purpose as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self { key: [key as u32, (key >> 32) as u32], site, step: step as u32 }
    }

    /// Four words: columns `4·block .. 4·block + 4` of `row`.
    #[inline(always)]
    pub fn block(&self, row: u32, block: u32) -> [u32; 4] {
        philox([block, row, self.site, self.step], self.key)
    }

    /// The words of columns `first..first + words.len()` of `row`; `first` is a multiple of 4.
    #[inline(always)]
    pub fn fill(&self, row: u32, first: u32, words: &mut [u32]) {
        debug_assert!(first.is_multiple_of(4), "column {first} is inside a block");
        for (block, four) in (first / 4..).zip(words.chunks_mut(4)) {
            four.copy_from_slice(&self.block(row, block)[..four.len()]);
        }
    }
}

#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let left = u64::from(counter[0]) * 0xD251_1F53;
        let right = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (right >> 32) as u32 ^ counter[1] ^ key[0],
            right as u32,
            (left >> 32) as u32 ^ counter[3] ^ key[1],
            left as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// The random word at an address: same address, same word, on any machine.
pub fn word(seed: u64, purpose: Purpose, step: u64, index: u64) -> u64 {
    let [low, high, ..] =
        Words::at(seed, purpose, step, (index >> 32) as u32).block(index as u32, u32::MAX);
    u64::from(high) << 32 | u64::from(low)
}

/// A number in `[0, 1)` from a word: its upper 53 bits.
pub fn uniform(word: u64) -> f64 {
    (word >> 11) as f64 / (1u64 << 53) as f64
}

/// A permutation of `0..len`: for every address the same one, each equally likely (Fisher–Yates).
pub fn permutation(seed: u64, purpose: Purpose, step: u64, len: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    for last in (1..len).rev() {
        // A 64-bit word scaled to last + 1 values: the bias is below 2⁻³².
        let pick = (u128::from(word(seed, purpose, step, last as u64)) * (last as u128 + 1)) >> 64;
        order.swap(last, pick as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        // Known-answer vectors distributed with Random123.
        let zero = philox([0; 4], [0; 2]);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn the_data_order_of_published_runs_never_changes() {
        assert_eq!(permutation(7, Purpose::Shuffle, 0, 8), PINNED_ORDER);
    }

    #[test]
    fn a_permutation_holds_each_index_once() {
        let mut order = permutation(1, Purpose::Shuffle, 3, 1000);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }

    #[test]
    fn words_are_uniform_and_purposes_do_not_share_them() {
        let count = 100_000;
        let mean = |purpose| {
            (0..count).map(|index| uniform(word(5, purpose, 0, index))).sum::<f64>() / count as f64
        };
        // Standard error of the mean is 1/√(12·100000) ≈ 0.0009; the seed is arbitrary and fixed.
        assert!((mean(Purpose::Shuffle) - 0.5).abs() < 0.004);
        assert!((mean(Purpose::Dropout) - 0.5).abs() < 0.004);
        let equal = (0..count)
            .filter(|&i| word(5, Purpose::Shuffle, 0, i) == word(5, Purpose::Dropout, 0, i))
            .count();
        assert_eq!(equal, 0);
    }

    const PINNED_ORDER: [u32; 8] = [4, 2, 5, 0, 1, 7, 6, 3];
}
