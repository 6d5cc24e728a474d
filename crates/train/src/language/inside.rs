//! Terms on what is inside student and teacher: hidden states, and relations between tokens.
//!
//! In: a plan's list of them. Out: an objective that stands beside the losses on tokens. Never: a
//! token that counts more or less by its label: every token of a step's rows has hidden states.

use heirloom_base::Bytes;
use heirloom_data::text::Row;
use heirloom_engine::{Device, Grads, Space};
use heirloom_models::{Noise, Taps};
use heirloom_objective::{Counts, Objective, Term, TokenCounts};
use heirloom_recipe::LanguagePlan;

use super::capacity::LanguageCapacity;
use crate::terms::inside_terms;

/// The terms of a plan, and which of them learn a projection.
#[derive(Clone, Debug)]
pub(super) struct InsideTerms {
    terms: Vec<Term>,
    projected: Vec<bool>,
}

impl InsideTerms {
    /// `None` where the plan compares outputs alone.
    pub(super) fn of(plan: &LanguagePlan) -> Option<Self> {
        let (terms, projected): (Vec<_>, Vec<_>) =
            inside_terms(&plan.objective.hidden).into_iter().unzip();
        (!terms.is_empty()).then_some(Self { terms, projected })
    }

    /// How records call them, in their order.
    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.terms.iter().map(|term| term.name.clone())
    }

    /// Where the student's inside gets a gradient.
    pub(super) fn taps(all: Option<&Self>) -> Taps {
        all.map(|all| Objective::taps(&all.terms)).unwrap_or_default()
    }

    /// The objective for micro-batches up to `capacity` of a student and a teacher of these widths.
    pub(super) fn objective(
        &self,
        device: &mut dyn Device,
        widths: [usize; 2],
        capacity: LanguageCapacity,
    ) -> Objective {
        let capacity = capacity.of_models();
        Objective::of_widths(device, self.terms.clone(), &self.projected, widths, capacity)
    }

    /// Its memory: scratch, and the weights, gradients and moments of projections.
    pub(super) fn bytes(&self, widths: [usize; 2], capacity: LanguageCapacity) -> Bytes {
        let capacity = capacity.of_models();
        let scratch = Objective::scratch_bytes(&self.terms, &self.projected, widths, capacity);
        let learned = self.projected.iter().filter(|projected| **projected).count();
        Bytes(scratch.0 + (4 * 4 * learned * widths[0] * widths[1]) as u64)
    }
}

/// What a step holds of all that is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepCounts {
    /// Tokens with a loss.
    pub(super) tokens: TokenCounts,
    /// All tokens and documents, where terms on the inside are asked.
    pub(super) inside: Option<Counts>,
    /// Whether a policy weighs its tokens.
    pub(super) weighed: bool,
}

impl StepCounts {
    /// Of losses on tokens alone.
    pub(super) fn of_tokens(tokens: TokenCounts) -> Self {
        Self { tokens, inside: None, weighed: false }
    }
}

/// Where the gradients of a micro-batch go, and with which random words it is read; nowhere and
/// without any where only losses are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gradients<'a> {
    /// Of the student's parameters.
    pub(super) student: Option<Grads<'a>>,
    /// A twin of the projections.
    pub(super) projections: Option<Space>,
    /// Of dropout.
    pub(super) noise: Option<Noise>,
}

/// The tokens and documents of `rows`.
pub(super) fn counts(rows: &[Row]) -> Counts {
    let documents = |row: &Row| row.starts.len().saturating_sub(1) as u64;
    Counts {
        labelled: 0,
        sequences: rows.iter().map(documents).sum(),
        tokens: rows.iter().map(|row| row.ids.len() as u64).sum(),
    }
}
