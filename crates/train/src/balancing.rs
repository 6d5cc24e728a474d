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
    /// Mean share of each teacher, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub teachers: Vec<f64>,
    /// Whether alignments with a second set were measured in this step.
    pub measured: bool,
    /// The first measurement against finite differences, where the plan checks it: the slope of the
    /// second set's loss that it says, and the one found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<[f64; 2]>,
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
    /// Each teacher's share, likewise, where there are several.
    by_teacher: Vec<Memory>,
    /// Of the step under way: shares, and the sum of each teacher's.
    step: Vec<f64>,
    sums: Vec<f64>,
    measured: bool,
    check: Option<[f64; 2]>,
    temperature: Option<f64>,
}

impl Balancing {
    pub(crate) fn new(
        policy: Box<dyn Policy>,
        second: Option<Hypergradient>,
        examples: usize,
        teachers: usize,
    ) -> Self {
        let shares = Memory::new(examples, 0.0);
        let several = if teachers > 1 { teachers } else { 0 };
        Self {
            policy,
            second,
            by_teacher: vec![shares.clone(); several],
            shares,
            step: Vec::new(),
            sums: vec![0.0; several],
            measured: false,
            check: None,
            temperature: None,
        }
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
        let Measured { labels, values, losses, student, teacher, check } = measured;
        self.check = check.map(|check| [check.said, check.found]);
        let samples = Samples { ids, labels, classes, student, teacher, losses, features: &[] };
        self.policy.align(&Alignments { samples, values }, at);
        self.measured = true;
    }

    /// The weights of a micro-batch, noted for the record.
    pub(crate) fn decide(&mut self, samples: &Samples<'_>, at: At) -> Decision {
        let decision = self.policy.decide(samples, at);
        let (rows, terms) = (samples.len(), 1 + samples.teachers());
        assert!(
            decision.terms == terms && decision.weights.len() == rows * terms,
            "a policy decides {rows} × {terms} weights, samples by losses; {:?} gave {} by {}",
            self.policy,
            decision.weights.len(),
            decision.terms,
        );
        self.policy.observe(samples, at);
        self.temperature = decision.temperature;
        for (&id, share) in samples.ids.iter().zip(decision.shares()) {
            self.shares.note(id, share);
            self.step.push(share);
        }
        for (at, (memory, sum)) in self.by_teacher.iter_mut().zip(&mut self.sums).enumerate() {
            for (&id, share) in samples.ids.iter().zip(decision.shares_of(at)) {
                memory.note(id, share);
                *sum += share;
            }
        }
        decision
    }

    /// Ends the step.
    pub(crate) fn record(&mut self) -> Option<BalanceRecord> {
        let count = self.step.len() as f64;
        let summary = Summary::of(std::mem::take(&mut self.step))?;
        let teachers = self.sums.iter_mut().map(|sum| std::mem::take(sum) / count).collect();
        Some(BalanceRecord {
            mean: summary.mean,
            quantiles: summary.quantiles,
            label_alone: summary.label_alone,
            teacher_alone: summary.teacher_alone,
            teachers,
            measured: std::mem::take(&mut self.measured),
            check: self.check.take(),
            temperature: self.temperature,
        })
    }

    /// λ of each example when it was last trained on; NaN where it never was.
    pub(crate) fn shares(&self) -> &[f64] {
        self.shares.values()
    }

    /// All that must survive a crash: shares, of several teachers those of each, and what the policy
    /// has learnt.
    pub(crate) fn state(&self) -> Vec<f64> {
        let mut state = self.shares.values().to_vec();
        self.by_teacher.iter().for_each(|memory| state.extend_from_slice(memory.values()));
        state.extend(self.policy.state());
        state
    }

    /// Puts it back; `false` where it is another policy's, or of another set.
    pub(crate) fn restore(&mut self, state: &[f64]) -> bool {
        let examples = self.shares.values().len();
        let memories = std::iter::once(&mut self.shares).chain(&mut self.by_teacher);
        let mut rest = state;
        for memory in memories {
            let Some((values, after)) = rest.split_at_checked(examples) else { return false };
            if !memory.replace(values) {
                return false;
            }
            rest = after;
        }
        self.policy.restore(rest).is_ok()
    }
}
