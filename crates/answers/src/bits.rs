//! Numbers of any number of bits, one behind the other, the lowest bit first.

/// The least number of bits that tells `count` things apart.
pub(crate) fn bits_for(count: u64) -> u32 {
    count.saturating_sub(1).checked_ilog2().map_or(0, |highest| highest + 1)
}

/// Bits being written.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, and how many.
    waiting: u64,
    count: u32,
}

impl BitWriter {
    /// Adds the lowest `bits` of `value`, at most 32.
    pub(crate) fn put(&mut self, value: u32, bits: u32) {
        debug_assert!(bits <= 32 && u64::from(value) >> bits == 0, "{value} in {bits} bits");
        self.waiting |= u64::from(value) << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.bytes.push(self.waiting as u8);
            self.waiting >>= 8;
            self.count -= 8;
        }
    }

    /// Adds `value` zeros and a one.
    pub(crate) fn put_unary(&mut self, mut value: u32) {
        while value >= 32 {
            self.put(0, 32);
            value -= 32;
        }
        self.put(0, value);
        self.put(1, 1);
    }

    /// The bytes, the last filled up with zeros.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.waiting as u8);
        }
        self.bytes
    }
}

/// Bits being read; `None` behind the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits that were read.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `bits`, at most 32.
    pub(crate) fn take(&mut self, bits: u32) -> Option<u32> {
        let (first, shift) = (self.at / 8, self.at % 8);
        self.at += bits as usize;
        if self.at > self.bytes.len() * 8 {
            return None;
        }
        let mut eight = [0; 8];
        let there = &self.bytes[first..self.bytes.len().min(first + 8)];
        eight[..there.len()].copy_from_slice(there);
        let mask = (1u64 << bits) - 1;
        Some((u64::from_le_bytes(eight) >> shift & mask) as u32)
    }

    /// How many zeros stand before the next one.
    pub(crate) fn take_unary(&mut self) -> Option<u32> {
        let mut zeros = 0;
        loop {
            let left = self.bytes.len() * 8 - self.at.min(self.bytes.len() * 8);
            let bits = left.min(32) as u32;
            if bits == 0 {
                return None;
            }
            let (before, next) = (self.at, self.take(bits)?);
            if next == 0 {
                zeros += bits;
                continue;
            }
            self.at = before + next.trailing_zeros() as usize + 1;
            return Some(zeros + next.trailing_zeros());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_many_bits_as_tell_things_apart() {
        let rows = [(1, 0), (2, 1), (3, 2), (4, 2), (50_257, 16), (65_536, 16), (151_936, 18)];
        for (count, bits) in rows {
            assert_eq!(bits_for(count), bits, "{count}");
        }
    }

    #[test]
    fn behind_the_end_is_nothing() {
        let mut bits = BitReader::new(&[0b1010_0000]);
        assert_eq!(bits.take_unary(), Some(5));
        assert_eq!(bits.take_unary(), Some(1));
        assert_eq!(bits.take_unary(), None);
        assert_eq!(BitReader::new(&[0]).take_unary(), None);
        assert_eq!(BitReader::new(&[0]).take(9), None);
    }

    proptest! {
        #[test]
        fn what_was_put_is_taken(numbers in prop::collection::vec((any::<u32>(), 0u32..=32, any::<bool>()), 0..80)) {
            let mut writer = BitWriter::default();
            let low = |value: u32, bits: u32| (u64::from(value) & ((1u64 << bits) - 1)) as u32;
            for &(value, bits, unary) in &numbers {
                if unary { writer.put_unary(value % 100) } else { writer.put(low(value, bits), bits) }
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for &(value, bits, unary) in &numbers {
                if unary {
                    prop_assert_eq!(reader.take_unary(), Some(value % 100));
                } else {
                    prop_assert_eq!(reader.take(bits), Some(low(value, bits)));
                }
            }
            prop_assert!(bytes.len() * 8 - reader.at < 8);
        }
    }
}
