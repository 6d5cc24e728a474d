//! A balance policy at work: what it is told in a step, what it decides, and what a step says of it.

use heirloom_balance::{Alignments, At, Decision, Memory, Policy, Samples, Summary};
use serde::{Deserialize, Serialize};

use crate::hypergradient::{Hypergradient, Measured};

/// The teacher's shares in one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalanceRecord {
    /// Mean of λ, the teacher's share of a sample's weight.
    pub mean: f64,
    /// The values that a tenth, a half and nine tenths of the samples do not exceed.
    pub quantiles: [f64; 3],
    /// Part of the samples with λ below 0.05.
    pub label_alone: f64,
    /// Part of the samples with λ above 0.95.
    pub teacher_alone: f64,
    /// Whether alignments with a second set were measured in this step.
    pub measured: bool,
    /// Temperature of the teacher's term, where the policy sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// A policy, its second set, and the last share of each example.
pub(crate) struct Balancing {
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) second: Option<Hypergradient>,
    /// λ of each example when it was last trained on.
    shares: Memory,
    /// Of the step under way.
    step: Vec<f64>,
    measured: bool,
    temperature: Option<f64>,
}

impl Balancing {
    pub(crate) fn new(
        policy: Box<dyn Policy>,
        second: Option<Hypergradient>,
        examples: usize,
    ) -> Self {
        let shares = Memory::new(examples, 0.0);
        Self { policy, second, shares, step: Vec::new(), measured: false, temperature: None }
    }

    /// Whether alignments are measured in a step.
    pub(crate) fn measures(&self, at: At) -> bool {
        self.second.as_ref().is_some_and(|second| {
            let plan = second.plan();
            let past = at.step.checked_sub(plan.warmup_steps);
            past.is_some_and(|past| past.is_multiple_of(plan.every))
        })
    }

    pub(crate) fn align(&mut self, ids: &[u32], classes: usize, measured: &Measured, at: At) {
        let Measured { labels, values, losses, student, teacher } = measured;
        let samples = Samples { ids, labels, classes, student, teacher, losses, features: &[] };
        self.policy.align(&Alignments { samples, values }, at);
        self.measured = true;
    }

    /// The weights of a micro-batch, noted for the record.
    pub(crate) fn decide(&mut self, samples: &Samples<'_>, at: At) -> Decision {
        let decision = self.policy.decide(samples, at);
        self.policy.observe(samples, at);
        self.temperature = decision.temperature;
        for (&id, share) in samples.ids.iter().zip(decision.shares()) {
            self.shares.note(id, share);
            self.step.push(share);
        }
        decision
    }

    /// Ends the step.
    pub(crate) fn record(&mut self) -> Option<BalanceRecord> {
        let summary = Summary::of(std::mem::take(&mut self.step))?;
        Some(BalanceRecord {
            mean: summary.mean,
            quantiles: summary.quantiles,
            label_alone: summary.label_alone,
            teacher_alone: summary.teacher_alone,
            measured: std::mem::take(&mut self.measured),
            temperature: self.temperature,
        })
    }

    /// λ of each example when it was last trained on; NaN where it never was.
    pub(crate) fn shares(&self) -> &[f64] {
        self.shares.values()
    }

    /// All that must survive a crash.
    pub(crate) fn state(&self) -> Vec<f64> {
        [self.shares.values(), &self.policy.state()].concat()
    }

    /// Puts it back; `false` where it is another policy's, or of another set.
    pub(crate) fn restore(&mut self, state: &[f64]) -> bool {
        let examples = self.shares.values().len();
        state.len() >= examples
            && self.shares.replace(&state[..examples])
            && self.policy.restore(&state[examples..]).is_ok()
    }
}
