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

/// Terms of the objective of a plan with so many teachers at most: the text's and theirs.
pub(super) fn most_terms(teachers: usize) -> usize {
    1 + teachers.max(1)
}

/// A term, how records call it, and which teacher it hears.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) term: TokenTerm,
    pub(super) teacher: Option<usize>,
}

/// How records call the term of the text, and those of so many teachers.
pub(super) fn names(teachers: usize) -> Vec<String> {
    let each = (0..teachers).map(|at| match teachers {
        1 => "teacher".to_owned(),
        _ => format!("teacher[{at}]"),
    });
    std::iter::once("label".to_owned()).chain(each).collect()
}

/// The term that compares with the kept answers of this teacher of the plan, where they name tokens.
pub fn kept_term(plan: &LanguagePlan, teacher: &LanguageTeacherPlan) -> Option<SparseTerm> {
    // Of hidden states the head makes whole answers.
    let LanguageTeacherPlan::Kept { drawn, missing, head: None, .. } = *teacher else {
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

/// The terms of the step `at`, of a vocabulary of `classes` tokens; `silent` says of each teacher
/// whether it has been overtaken.
///
/// `balanced` are the weights of label and teachers where a policy decides them.
pub(super) fn terms(
    plan: &LanguagePlan,
    at: At,
    (silent, balanced): (&[bool], Option<Vec<f64>>),
    classes: usize,
) -> Vec<Named> {
    let objective = &plan.objective;
    let nobody = objective.is_without_teacher() || silent.iter().all(|silent| *silent);
    let weights = match balanced {
        _ if nobody => vec![1.0],
        Some(weights) => weights,
        None => fixed(objective, alpha(objective, at), silent),
    };
    let label = TokenTerm { weight: weights[0], loss: label(objective, at, classes) };
    let teacher = |teacher: &LanguageTeacherPlan| {
        let term = TeacherTerm {
            divergence: divergence(objective.divergence),
            temperature: objective.temperature.at(at.progress()),
            scale_by_temperature_squared: objective.scale_by_temperature_squared,
        };
        match (kept_term(plan, teacher), objective.uld) {
            (Some(term), _) => TokenLoss::Known(term),
            (None, None) => TokenLoss::Teacher(term),
            (None, Some(UldPlan { top, .. })) => {
                let (temperature, top) =
                    (term.temperature, usize::try_from(top).unwrap_or(usize::MAX));
                TokenLoss::Sorted(SortedTerm { temperature, top })
            }
        }
    };
    let names = names(silent.len());
    let taught = plan.teachers().zip(&weights[1..]).zip(silent).enumerate();
    let taught =
        taught.filter(|(_, (_, silent))| !**silent).map(|(at, ((of, &weight), _))| Named {
            name: names[1 + at].clone(),
            term: TokenTerm { weight, loss: teacher(of) },
            teacher: Some(at),
        });
    let label = Named { name: names[0].clone(), term: label, teacher: None };
    let all = std::iter::once(label).chain(taught);
    all.filter(|named| named.term.weight > 0.0).collect()
}

/// Weights of label and teachers where the teachers that speak have their parts of `share`; those of the
/// others are the text's.
fn fixed(objective: &LanguageObjective, share: f64, silent: &[bool]) -> Vec<f64> {
    let parts = match objective.teacher_parts.as_slice() {
        [] => &[1.0],
        parts => parts,
    };
    let each = parts.iter().zip(silent);
    let each: Vec<f64> =
        each.map(|(part, silent)| if *silent { 0.0 } else { part * share }).collect();
    // Rounded parts sum to no more than nearly the share.
    let taught = if silent.contains(&true) { each.iter().sum() } else { share };
    std::iter::once(1.0 - taught).chain(each).collect()
}

/// The weight of the teacher, or of all together.
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
