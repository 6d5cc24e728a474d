//! Policies that weigh label and teacher token by token, in the place of a share for all.
//!
//! In: one or two numbers of each token of a step, or the step's mean losses. Out: weights. Never: the
//! logits of a token on the host, or a weight that depends on how a step is cut.
//!
//! The policies are those of `heirloom_balance` that need no more of a token than its losses, its
//! entropy, and how far its losses would help other rows ([`Second`](super::second::Second)): of V
//! logits for each token the host sees none.

use heirloom_balance::{
    AdaKd, Adoption, Alignments, At, DynamicKd, MetaWeightNet, Policy, RwKd, Samples, Summary,
    Uncertainty, Wsl,
};
use heirloom_engine::Device;
use heirloom_objective::{TokenMeasure, TokenWeights, WeighTokens};
use heirloom_recipe::{LanguageObjective, LanguagePlan, PolicyPlan};

use super::second::Aligned;
use crate::BalanceRecord;
use crate::Own;
use crate::policy::{network, normalize};

/// The policy of a plan at work.
#[derive(Debug)]
pub(super) struct TokenBalance {
    policy: Weighs,
    /// V.
    classes: usize,
    /// The step under way, and the teacher's share of each of its tokens.
    at: At,
    shares: Vec<f64>,
    /// Whether alignments were measured in it.
    measured: bool,
    /// Numbers of tokens that are heard in place of being weighed, and those heard so far, `[2][R]`.
    heard: Option<(Heard, [Vec<f64>; 2])>,
}

/// Which two numbers of a token are heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The label's term and the teacher's.
    Terms,
    /// `−ln s_y` and `−ln t_y`.
    Labels,
    /// `−ln s_y`, twice.
    OwnLabel,
}

/// What decides.
#[derive(Debug)]
enum Weighs {
    /// From the step's mean losses.
    Uncertainty(Uncertainty),
    /// From what is measured of each token.
    Wsl(Wsl),
    AdaKd,
    DynamicKd(DynamicKd),
    /// From how far each loss helps other rows; where a step was measured, the weights of its tokens
    /// that have yet to be handed out, the last first.
    RwKd(RwKd, Vec<[f64; 2]>),
    /// From both losses, by a network that learns from the same.
    Network(Box<MetaWeightNet>),
    /// From both losses, by a policy that the program brings; tokens have neither ids nor logits.
    Own(Box<dyn Policy>),
}

/// Samples that are tokens with these losses, `[R, 2]`, each with a label.
struct Tokens {
    ids: Vec<u32>,
    labels: Vec<Option<u32>>,
    losses: Vec<f64>,
}

impl Tokens {
    fn with(losses: Vec<f64>) -> Self {
        let count = losses.len() / 2;
        Self { ids: vec![u32::MAX; count], labels: vec![Some(0); count], losses }
    }

    fn beside(label: &[f64], teacher: &[f64]) -> Self {
        Self::with(label.iter().zip(teacher).flat_map(|(&a, &b)| [a, b]).collect())
    }

    fn samples(&self) -> Samples<'_> {
        let Self { ids, labels, losses } = self;
        let (student, teacher, features) = (&[][..], &[][..], &[][..]);
        Samples { ids, labels, classes: 0, student, teacher, losses, features }
    }
}

/// What a policy decides for tokens.
fn pairs(policy: &dyn Policy, samples: &Samples<'_>, at: At) -> Vec<[f64; 2]> {
    let decision = policy.decide(samples, at);
    let (found, wanted) = (decision.weights.len(), 2 * samples.len());
    assert!(
        decision.terms == 2 && found == wanted,
        "a policy decides {wanted} weights of tokens, label and teacher; {policy:?} gave {found}"
    );
    assert!(
        decision.temperature.is_none() && decision.teacher_scale.is_none(),
        "a policy of tokens decides weights alone; {policy:?} changes the teacher's term"
    );
    (0..samples.len()).map(|row| decision.of(row)).collect()
}

/// Nothing that a policy of tokens looks at.
const ANY: At = At { step: 0, total: 1, learning_rate: 0.0 };

impl TokenBalance {
    /// `None` where a share or its schedule is all there is.
    pub(super) fn of(plan: &LanguagePlan, classes: usize, own: &Own) -> Option<Self> {
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
            PolicyPlan::RwKd { normalize: to, floor, bounds, .. } => {
                // A token is read once: there is nothing to remember it by.
                let policy = RwKd::new(0, normalize(to), floor, bounds, 0.0, *alpha);
                Weighs::RwKd(policy, Vec::new())
            }
            PolicyPlan::MetaWeightNet { .. } => {
                let policy = network(balance.as_ref()?, classes, plan.training.seed)?;
                Weighs::Network(Box::new(policy))
            }
            PolicyPlan::Own { .. } => Weighs::Own(own.policy()?),
            _ => return None,
        };
        let shares = Vec::new();
        Some(Self { policy, classes, at: ANY, shares, measured: false, heard: None })
    }

    /// Weights of the label's and each teacher's term as wholes: 1 each where tokens have their own.
    pub(super) fn whole(&self) -> Vec<f64> {
        match &self.policy {
            Weighs::Uncertainty(policy) => {
                let terms = policy.state().len();
                let (ids, labels, losses) = (&[0][..], &[None][..], &vec![0.0; terms][..]);
                let (student, teacher, features) = (&[][..], &[][..], &[][..]);
                let one = Samples { ids, labels, classes: 0, student, teacher, losses, features };
                policy.decide(&one, ANY).weights
            }
            _ => vec![1.0; 2],
        }
    }

    /// Whether tokens have weights of their own.
    pub(super) fn weighs_tokens(&self) -> bool {
        !matches!(self.policy, Weighs::Uncertainty(_))
    }

    /// Hears how far the losses of all tokens of the coming step would help other rows.
    pub(super) fn align(&mut self, found: &Aligned, at: At) {
        let tokens = Tokens::with(found.losses.clone());
        let alignments = Alignments { samples: tokens.samples(), values: &found.values };
        match &mut self.policy {
            Weighs::RwKd(policy, decided) => {
                policy.align(&alignments, at);
                let weights = policy.weights(&alignments).into_iter().rev();
                *decided = weights.map(|of| [of[0], of[1]]).collect();
            }
            Weighs::Network(policy) => policy.align(&alignments, at),
            Weighs::Own(policy) => policy.align(&alignments, at),
            _ => return,
        }
        self.measured = true;
    }

    /// The same for a policy that decides by what was measured alone, and not for one that would learn
    /// from it.
    pub(super) fn align_alone(&mut self, found: &Aligned, at: At) {
        if matches!(self.policy, Weighs::RwKd(..)) {
            self.align(found, at);
        }
    }

    /// Which numbers are heard from now on, in place of being weighed; `None` weighs.
    pub(super) fn listen(&mut self, to: Option<Heard>) {
        self.heard = to.map(|to| (to, Default::default()));
    }

    /// What was heard, `[R][2]`.
    pub(super) fn heard(&mut self) -> Vec<[f64; 2]> {
        let (_, [first, second]) = self.heard.take().unwrap_or((Heard::Terms, Default::default()));
        first.into_iter().zip(second).map(|(first, second)| [first, second]).collect()
    }

    /// The teacher's share of each token that was weighed since [`TokenBalance::begin`].
    pub(super) fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// Begins the step `at`, and forgets what was noted of one that did not come to its end.
    pub(super) fn begin(&mut self, at: At) {
        self.at = at;
        self.shares.clear();
    }

    /// Ends a step in which the terms had these means, label and teachers, 0 where one was not there.
    pub(super) fn learn(&mut self, means: &[f64], at: At) {
        match &mut self.policy {
            Weighs::Uncertainty(policy) => policy.learn(means, at),
            Weighs::Own(policy) => policy.learn(means, at),
            _ => (),
        }
    }

    /// The same of a step that was left out.
    pub(super) fn leave_out(&mut self) {
        if let Weighs::Own(policy) = &mut self.policy {
            policy.leave_out();
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
        if let Weighs::RwKd(_, decided) = &mut self.policy {
            decided.clear();
        }
        let measured = std::mem::take(&mut self.measured);
        let summary = Summary::of(std::mem::take(&mut self.shares))?;
        Some(BalanceRecord {
            mean: summary.mean,
            quantiles: summary.quantiles,
            label_alone: summary.label_alone,
            teacher_alone: summary.teacher_alone,
            teachers,
            measured,
            check: None,
            temperature: None,
        })
    }

    /// What it has learnt; `None` where it learns nothing.
    pub(super) fn state(&self) -> Option<Vec<f64>> {
        match &self.policy {
            Weighs::Uncertainty(policy) => Some(policy.state()),
            Weighs::RwKd(policy, _) => Some(policy.state()),
            Weighs::Network(policy) => Some(policy.state()),
            Weighs::Own(policy) => Some(policy.state()),
            Weighs::Wsl(_) | Weighs::AdaKd | Weighs::DynamicKd(_) => None,
        }
    }

    /// Puts it back; `false` where it is another policy's.
    pub(super) fn restore(&mut self, state: &[f64]) -> bool {
        match &mut self.policy {
            Weighs::Uncertainty(policy) => policy.restore(state).is_ok(),
            Weighs::RwKd(policy, _) => policy.restore(state).is_ok(),
            Weighs::Network(policy) => policy.restore(state).is_ok(),
            Weighs::Own(policy) => policy.restore(state).is_ok(),
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
        const LABELS: &[TokenMeasure] = &[TokenMeasure::StudentLoss, TokenMeasure::TeacherLoss];
        match (&self.heard, &self.policy) {
            (Some((Heard::Terms, _)), _) => &[],
            (Some((Heard::Labels, _)), _) => LABELS,
            (Some((Heard::OwnLabel, _)), _) => &[TokenMeasure::StudentLoss; 2],
            (None, Weighs::Uncertainty(_) | Weighs::RwKd(..)) => &[],
            (None, Weighs::Network(_) | Weighs::Own(_)) => {
                &[TokenMeasure::StudentLoss, TokenMeasure::TeacherTerm]
            }
            (None, Weighs::Wsl(_)) => LABELS,
            (None, Weighs::AdaKd) => &[TokenMeasure::TeacherLoss],
            (None, Weighs::DynamicKd(_)) => &[TokenMeasure::StudentEntropy],
        }
    }

    fn weigh(&mut self, tokens: usize, measured: &[Vec<f64>]) -> Vec<[f64; 2]> {
        if let Some((_, heard)) = &mut self.heard {
            heard.iter_mut().zip(measured).for_each(|(heard, row)| heard.extend(row));
            return vec![[1.0; 2]; tokens];
        }
        let classes = self.classes;
        let weights: Vec<[f64; 2]> = match (&mut self.policy, measured) {
            (Weighs::RwKd(policy, decided), []) if decided.is_empty() => {
                let usual = policy.usual();
                vec![[usual[0], usual[1]]; tokens]
            }
            (Weighs::RwKd(_, decided), []) => {
                let next = decided.len().checked_sub(tokens).expect("as many as were measured");
                decided.drain(next..).rev().collect()
            }
            (Weighs::Network(policy), [label, teacher]) => {
                let tokens = Tokens::beside(label, teacher);
                pairs(&**policy, &tokens.samples(), self.at)
            }
            (Weighs::Own(policy), [label, teacher]) => {
                let tokens = Tokens::beside(label, teacher);
                let decided = pairs(&**policy, &tokens.samples(), self.at);
                policy.observe(&tokens.samples(), self.at);
                decided
            }
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

    fn hear(&mut self, place: usize, losses: &[f64]) {
        if let Some((Heard::Terms, heard)) = &mut self.heard {
            heard[place].extend_from_slice(losses);
        }
    }
}
