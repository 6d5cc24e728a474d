//! One number per example of the training set, smoothed over the times it is seen.

/// An exponential moving average per example.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Weight of what was there before, `0.0..1.0`; 0 keeps the newest alone.
    decay: f64,
    /// NaN where nothing was noted yet.
    values: Vec<f64>,
}

impl Memory {
    /// A memory of nothing, for `examples`.
    pub fn new(examples: usize, decay: f64) -> Self {
        assert!((0.0..1.0).contains(&decay), "decay {decay} is at least 0 and below 1");
        Self { decay, values: vec![f64::NAN; examples] }
    }

    /// Notes a number; the first is taken as it is, and that of an example beyond those that there is
    /// memory for is forgotten.
    pub fn note(&mut self, example: u32, value: f64) {
        let Some(kept) = self.values.get_mut(example as usize) else { return };
        *kept = if kept.is_nan() { value } else { self.decay * *kept + (1.0 - self.decay) * value };
    }

    /// What is remembered of an example.
    pub fn of(&self, example: u32) -> Option<f64> {
        self.values.get(example as usize).copied().filter(|value| !value.is_nan())
    }

    /// Everything, NaN where nothing was noted.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Everything at once; `false` where it is not as many numbers.
    pub fn replace(&mut self, values: &[f64]) -> bool {
        if values.len() != self.values.len() {
            return false;
        }
        self.values.copy_from_slice(values);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_is_kept_and_later_ones_join_it() {
        let mut memory = Memory::new(2, 0.75);
        assert_eq!(memory.of(1), None);
        memory.note(1, 8.0);
        assert_eq!(memory.of(1), Some(8.0));
        memory.note(1, 4.0);
        assert_eq!(memory.of(1), Some(7.0));
        assert_eq!(memory.of(0), None);
        memory.note(7, 1.0);
        assert_eq!((memory.of(7), memory.values().len()), (None, 2));
    }
}
