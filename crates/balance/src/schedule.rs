//! A share of the teacher that changes over the run, the same for every sample.
//!
//! From 1 to 0 in a line is the teacher annealing of BAM (Clark, Luong, Khandelwal, Manning & Le
//! 2019, arXiv:1907.04829, §3.2): first the teacher alone, last the labels alone.

use crate::{At, Decision, Policy, Samples};

/// How the share goes from its first value to its last.
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

/// The teacher's share α over the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// α of the first step.
    pub from: f64,
    /// α of the last.
    pub to: f64,
    /// How it gets there.
    pub course: Course,
}

impl Schedule {
    /// α.
    pub fn alpha(&self, at: At) -> f64 {
        let done = at.progress();
        let part = match self.course {
            Course::Linear => done,
            Course::Cosine => 0.5 - 0.5 * libm::cos(std::f64::consts::PI * done),
            Course::Step { at } => f64::from(u8::from(done >= at)),
        };
        self.from + (self.to - self.from) * part
    }
}

impl Policy for Schedule {
    fn decide(&self, samples: &Samples<'_>, at: At) -> Decision {
        let alpha = self.alpha(at);
        Decision::uniform(samples.len(), 1.0 - alpha, alpha)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_at_the_ends_and_in_the_middle() {
        let at = |step| At { step, total: 5, learning_rate: 0.0 };
        let alphas = |course| {
            [0, 1, 2, 4, 9].map(|step| Schedule { from: 1.0, to: 0.0, course }.alpha(at(step)))
        };
        assert_eq!(alphas(Course::Linear), [1.0, 0.75, 0.5, 0.0, 0.0]);
        let want = [1.0, 0.5 + 0.5 * 0.5f64.sqrt(), 0.5, 0.0, 0.0];
        for (got, want) in alphas(Course::Cosine).into_iter().zip(want) {
            assert!((got - want).abs() < 1e-15, "{got}, should be {want}");
        }
        assert_eq!(alphas(Course::Step { at: 0.5 }), [1.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_run_of_one_step_ends_with_it() {
        let at = At { step: 0, total: 1, learning_rate: 0.0 };
        assert_eq!(Schedule { from: 1.0, to: 0.25, course: Course::Linear }.alpha(at), 0.25);
    }
}
