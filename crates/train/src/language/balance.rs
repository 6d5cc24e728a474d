//! Policies that weigh label and teacher token by token, in the place of a share for all.
//!
//! In: one or two numbers of each token of a step, or the step's mean losses. Out: weights. Never: the
//! logits of a token on the host, or a weight that depends on how a step is cut.
//!
//! The policies are those of `heirloom_balance` that need no second set and no more of a token than
//! its losses and its entropy: of V logits for each token the host sees none.

use heirloom_balance::{
    AdaKd, Adoption, At, DynamicKd, Policy, Samples, Summary, Uncertainty, Wsl,
};
use heirloom_engine::Device;
use heirloom_objective::{TokenMeasure, TokenWeights, WeighTokens};
use heirloom_recipe::{LanguageObjective, LanguagePlan, PolicyPlan};

use crate::BalanceRecord;

/// The policy of a plan at work.
#[derive(Clone, Debug)]
pub(super) struct TokenBalance {
    policy: Weighs,
    /// V.
    classes: usize,
    /// The teacher's share of each token of the step under way.
    shares: Vec<f64>,
}

/// What decides.
#[derive(Clone, Debug)]
enum Weighs {
    /// From the step's mean losses.
    Uncertainty(Uncertainty),
    /// From what is measured of each token.
    Wsl(Wsl),
    AdaKd,
    DynamicKd(DynamicKd),
}

impl TokenBalance {
    /// `None` where a share or its schedule is all there is.
    pub(super) fn of(plan: &LanguagePlan, classes: usize) -> Option<Self> {
        let LanguageObjective { alpha, balance, .. } = &plan.objective;
        let policy = match balance.as_ref()?.policy {
            PolicyPlan::Uncertainty { learning_rate, bound } => {
                let teachers = plan.teachers().count();
                let policy = Uncertainty::new(learning_rate, bound);
                Weighs::Uncertainty(policy.with_teachers(teachers))
            }
            PolicyPlan::Wsl { weight } => Weighs::Wsl(Wsl { alpha: weight }),
            PolicyPlan::AdaKd { .. } => Weighs::AdaKd,
            PolicyPlan::DynamicKd { .. } => {
                Weighs::DynamicKd(DynamicKd { alpha: *alpha, adoption: Adoption::Sample })
            }
            _ => return None,
        };
        Some(Self { policy, classes, shares: Vec::new() })
    }

    /// Weights of the label's and each teacher's term as wholes: 1 each where tokens have their own.
    pub(super) fn whole(&self) -> Vec<f64> {
        match &self.policy {
            Weighs::Uncertainty(policy) => {
                let terms = policy.state().len();
                let (ids, labels, losses) = (&[0][..], &[None][..], &vec![0.0; terms][..]);
                let (student, teacher, features) = (&[][..], &[][..], &[][..]);
                let one = Samples { ids, labels, classes: 0, student, teacher, losses, features };
                let at = At { step: 0, total: 1, learning_rate: 0.0 };
                policy.decide(&one, at).weights
            }
            Weighs::Wsl(_) | Weighs::AdaKd | Weighs::DynamicKd(_) => vec![1.0; 2],
        }
    }

    /// Whether tokens have weights of their own.
    pub(super) fn weighs_tokens(&self) -> bool {
        !self.measures().is_empty()
    }

    /// Forgets what was noted of a step that did not come to its end.
    pub(super) fn begin(&mut self) {
        self.shares.clear();
    }

    /// Ends a step in which the terms had these means, label and teachers, 0 where one was not there.
    pub(super) fn learn(&mut self, means: &[f64], at: At) {
        if let Weighs::Uncertainty(policy) = &mut self.policy {
            policy.learn(means, at);
        }
    }

    /// What a step says of itself; `None` where no token was weighed. `whole` are the weights of the
    /// terms where tokens have none of their own, 0 of a teacher that was silent.
    pub(super) fn record(&mut self, whole: Option<Vec<f64>>) -> Option<BalanceRecord> {
        let mut teachers = Vec::new();
        if let Some((label, taught)) = whole.as_deref().and_then(<[f64]>::split_first) {
            let sum: f64 = taught.iter().sum();
            self.shares.push(sum / (label + sum));
            if taught.len() > 1 {
                teachers = taught.iter().map(|weight| weight / (label + sum)).collect();
            }
        }
        let summary = Summary::of(std::mem::take(&mut self.shares))?;
        Some(BalanceRecord {
            mean: summary.mean,
            quantiles: summary.quantiles,
            label_alone: summary.label_alone,
            teacher_alone: summary.teacher_alone,
            teachers,
            measured: false,
            check: None,
            temperature: None,
        })
    }

    /// What it has learnt; `None` where it learns nothing.
    pub(super) fn state(&self) -> Option<Vec<f64>> {
        match &self.policy {
            Weighs::Uncertainty(policy) => Some(policy.state()),
            Weighs::Wsl(_) | Weighs::AdaKd | Weighs::DynamicKd(_) => None,
        }
    }

    /// Puts it back; `false` where it is another policy's.
    pub(super) fn restore(&mut self, state: &[f64]) -> bool {
        match &mut self.policy {
            Weighs::Uncertainty(policy) => policy.restore(state).is_ok(),
            Weighs::Wsl(_) | Weighs::AdaKd | Weighs::DynamicKd(_) => false,
        }
    }

    /// Room for the weights of micro-batches of up to `tokens`, where tokens have some.
    pub(super) fn room(&self, device: &mut dyn Device, tokens: usize) -> Option<TokenWeights> {
        self.weighs_tokens().then(|| TokenWeights::new(device, tokens))
    }
}

impl WeighTokens for TokenBalance {
    fn measures(&self) -> &[TokenMeasure] {
        match &self.policy {
            Weighs::Uncertainty(_) => &[],
            Weighs::Wsl(_) => &[TokenMeasure::StudentLoss, TokenMeasure::TeacherLoss],
            Weighs::AdaKd => &[TokenMeasure::TeacherLoss],
            Weighs::DynamicKd(_) => &[TokenMeasure::StudentEntropy],
        }
    }

    fn weigh(&mut self, measured: &[Vec<f64>]) -> Vec<[f64; 2]> {
        let (policy, classes) = (&self.policy, self.classes);
        let weights: Vec<[f64; 2]> = match (policy, measured) {
            (Weighs::Wsl(policy), [student, teacher]) => {
                student.iter().zip(teacher).map(|(&s, &t)| policy.of_losses(s, t)).collect()
            }
            (Weighs::AdaKd, [teacher]) => {
                teacher.iter().map(|&loss| AdaKd::of_loss(loss, classes)).collect()
            }
            (Weighs::DynamicKd(policy), [entropy]) => {
                entropy.iter().map(|&entropy| policy.of_entropy(entropy, classes)).collect()
            }
            _ => unreachable!("as many rows as it asked for"),
        };
        let share = |&[label, teacher]: &[f64; 2]| {
            let sum = label + teacher;
            if sum > 0.0 { teacher / sum } else { 0.5 }
        };
        self.shares.extend(weights.iter().map(share));
        weights
    }
}
