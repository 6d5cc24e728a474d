//! One share for all teachers together, cut among them in fixed parts: `w₂ⱼ = pⱼ w₂`.
//!
//! The weighted mean of the teachers' losses takes the place of the one teacher's. For policies that
//! decide without looking at a sample, such as [`Fixed`](crate::Fixed) and
//! [`Schedule`](crate::Schedule), nothing else changes.

use crate::{At, Decision, LABEL, Policy, Restored, Samples, TEACHER};

/// A policy of two weights, the second of which is cut among several teachers.
#[derive(Debug)]
pub struct Parted {
    policy: Box<dyn Policy>,
    parts: Vec<f64>,
}

impl Parted {
    /// `policy` looks at no sample; `parts`, one per teacher, are not negative and sum to one.
    pub fn new(policy: Box<dyn Policy>, parts: Vec<f64>) -> Self {
        Self { policy, parts }
    }
}

impl Policy for Parted {
    fn decide(&self, samples: &Samples<'_>, at: At) -> Decision {
        let decision = self.policy.decide(samples, at);
        let cut = |pair: &[f64]| {
            let teacher = pair[TEACHER];
            let parts = self.parts.iter().map(move |part| part * teacher);
            [pair[LABEL]].into_iter().chain(parts).collect::<Vec<_>>()
        };
        let weights = decision.weights.chunks(2).flat_map(cut).collect();
        Decision { weights, terms: 1 + self.parts.len(), ..decision }
    }

    fn state(&self) -> Vec<f64> {
        self.policy.state()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        self.policy.restore(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fixed;

    #[test]
    fn parts_of_a_fixed_share_by_hand() {
        let policy = Parted::new(Box::new(Fixed { alpha: 0.8 }), vec![0.25, 0.75]);
        let samples = Samples {
            ids: &[0, 1],
            labels: &[None, Some(0)],
            classes: 1,
            student: &[0.0; 2],
            teacher: &[0.0; 4],
            losses: &[0.0; 6],
            features: &[],
        };
        let decision = policy.decide(&samples, At { step: 0, total: 1, learning_rate: 1.0 });
        for (got, want) in decision.weights.iter().zip([0.2, 0.2, 0.6, 0.2, 0.2, 0.6]) {
            assert!((got - want).abs() < 1e-15, "{got}, should be {want}");
        }
        assert_eq!((decision.terms, decision.weights.len()), (3, 6));
    }
}
