//! A number that may change over the run.

/// How it goes from its first value to its last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Course {
    /// In a line.
    Linear,
    /// Along half a cosine: level at both ends.
    Cosine,
    /// At once, after this part of the run.
    Step {
        /// Part of the run before the change, `0.0..=1.0`.
        at: f64,
    },
}

/// A number over the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Its first value.
    pub from: f64,
    /// Its last value.
    pub to: f64,
    /// How it gets there.
    pub course: Course,
}

impl Schedule {
    /// The same value over the whole run.
    pub fn constant(value: f64) -> Self {
        Self { from: value, to: value, course: Course::Linear }
    }

    /// The value when this part of the run, `0.0..=1.0`, is done.
    pub fn at(&self, progress: f64) -> f64 {
        // An infinite constant has no difference.
        if self.from == self.to {
            return self.from;
        }
        let part = match self.course {
            Course::Linear => progress,
            Course::Cosine => 0.5 - 0.5 * libm::cos(std::f64::consts::PI * progress),
            Course::Step { at } => f64::from(u8::from(progress >= at)),
        };
        self.from + (self.to - self.from) * part
    }
}

/// The same throughout.
impl From<f64> for Schedule {
    fn from(value: f64) -> Self {
        Self { from: value, to: value, course: Course::Linear }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_at_the_ends_and_in_the_middle() {
        let at =
            |course| [0.0, 0.5, 1.0].map(|part| Schedule { from: 4.0, to: 2.0, course }.at(part));
        assert_eq!(at(Course::Linear), [4.0, 3.0, 2.0]);
        let cosine = at(Course::Cosine);
        assert!(cosine[0] == 4.0 && (cosine[1] - 3.0).abs() < 1e-15 && cosine[2] == 2.0);
        assert_eq!(at(Course::Step { at: 0.5 }), [4.0, 2.0, 2.0]);
        assert_eq!(Schedule::from(f64::INFINITY).at(0.3), f64::INFINITY);
    }
}
