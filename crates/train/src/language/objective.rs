//! What a language model is trained to do at a step: terms with the weights and temperatures of that
//! moment.
//!
//! In: the plan's objective, and how far the run is. Out: token terms. Never: a term of weight 0, so
//! that what has no effect costs nothing, and a step without the teacher is one of plain training to
//! the bit.

use heirloom_balance::{At, Schedule};
use heirloom_engine::SparseLoss;
use heirloom_objective::{SortedTerm, SparseTerm, TeacherTerm, TokenLoss, TokenTerm};
use heirloom_recipe::{
    LanguageObjective, LanguagePlan, LanguageTeacherPlan, Missing, PolicyPlan, RegularizerPlan,
    Smoothed, UldPlan,
};

use crate::policy::course;
use crate::terms::divergence;

/// Terms of an objective at most: the text's and the teacher's.
pub(super) const MOST_TERMS: usize = 2;

/// A term and how records call it.
pub(super) type Named = (&'static str, TokenTerm);

/// The term that compares with kept answers, where the plan has some.
pub fn kept_term(plan: &LanguagePlan) -> Option<SparseTerm> {
    // Of hidden states the head makes whole answers.
    let LanguageTeacherPlan::Kept { drawn, missing, head: None, .. } = plan.teacher else {
        return None;
    };
    let objective = &plan.objective;
    let loss = match divergence(objective.divergence) {
        // Its value has the teacher's mean, too.
        heirloom_engine::Divergence::ForwardKl if drawn => SparseLoss::CrossEntropy,
        divergence => SparseLoss::Divergence(divergence),
    };
    Some(SparseTerm {
        loss,
        missing: match missing {
            // Draws leave nothing: their shares sum to 1.
            _ if drawn => heirloom_engine::Missing::Renormalise,
            Missing::TailBucket => heirloom_engine::Missing::TailBucket,
            Missing::Renormalise => heirloom_engine::Missing::Renormalise,
            Missing::Zero => heirloom_engine::Missing::Zero,
        },
        temperature: objective.temperature.from,
        scale_by_temperature_squared: objective.scale_by_temperature_squared,
    })
}

/// The terms of the step `at`, of a vocabulary of `classes` tokens; `silent` where the teacher has
/// been overtaken.
///
/// `balanced` are the weights of label and teacher where a policy decides them.
pub(super) fn terms(
    plan: &LanguagePlan,
    at: At,
    (silent, balanced): (bool, Option<[f64; 2]>),
    classes: usize,
) -> Vec<Named> {
    let objective = &plan.objective;
    let [of_label, share] = match (silent, balanced) {
        _ if objective.is_without_teacher() => [1.0, 0.0],
        (true, _) => [1.0, 0.0],
        (false, Some(weights)) => weights,
        (false, None) => {
            let share = alpha(objective, at);
            [1.0 - share, share]
        }
    };
    let label = TokenTerm { weight: of_label, loss: label(objective, at, classes) };
    let teacher = TeacherTerm {
        divergence: divergence(objective.divergence),
        temperature: objective.temperature.at(at.progress()),
        scale_by_temperature_squared: objective.scale_by_temperature_squared,
    };
    let loss = match (kept_term(plan), objective.uld) {
        (Some(term), _) => TokenLoss::Known(term),
        (None, None) => TokenLoss::Teacher(teacher),
        (None, Some(UldPlan { top, .. })) => {
            let (temperature, top) =
                (teacher.temperature, usize::try_from(top).unwrap_or(usize::MAX));
            TokenLoss::Sorted(SortedTerm { temperature, top })
        }
    };
    let teacher = TokenTerm { weight: share, loss };
    let all = [("label", label), ("teacher", teacher)];
    all.into_iter().filter(|(_, term)| term.weight > 0.0).collect()
}

/// The teacher's weight.
fn alpha(objective: &LanguageObjective, at: At) -> f64 {
    match objective.balance.as_ref().map(|balance| &balance.policy) {
        Some(&PolicyPlan::Schedule { from, to, course: how, at: when }) => {
            Schedule { from, to, course: course(how, when) }.alpha(at)
        }
        _ => objective.alpha,
    }
}

/// What the next token is learnt as.
fn label(objective: &LanguageObjective, at: At, classes: usize) -> TokenLoss {
    let progress = at.progress();
    let (share, temperature) = match objective.regularizer {
        None => return TokenLoss::Label,
        Some(RegularizerPlan::LabelSmoothing { alpha, smoothed: Smoothed::All }) => {
            (alpha.at(progress), f64::INFINITY)
        }
        // ε over the others is ε·V/(V − 1) over all.
        Some(RegularizerPlan::LabelSmoothing { alpha, smoothed: Smoothed::Others }) => {
            let others = classes.saturating_sub(1).max(1) as f64;
            (alpha.at(progress) * classes as f64 / others, f64::INFINITY)
        }
        Some(RegularizerPlan::Labo { alpha, temperature }) => {
            (alpha.at(progress), temperature.at(progress))
        }
        Some(_) => unreachable!("a language model's plan has no other regularizer"),
    };
    if share == 0.0 { TokenLoss::Label } else { TokenLoss::Softened { share, temperature } }
}
