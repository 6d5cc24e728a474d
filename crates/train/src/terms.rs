//! From the plan's objective to terms with names and weights.

use heirloom_engine::{Divergence, HiddenDistance, RelationMeasure};
use heirloom_objective::{
    HiddenTerm, LabelLoss, RelationTerm, Rows, Side, TeacherTerm, Term, TermKind,
};
use heirloom_recipe::{Compare, HiddenTermPlan, ObjectivePlan, Position, Relation};

/// The terms of an objective, and for each whether it learns a projection. Terms of weight zero
/// are left out, so that what has no effect costs nothing.
pub fn terms(objective: &ObjectivePlan) -> (Vec<Term>, Vec<bool>) {
    let label = match objective.label_loss {
        heirloom_recipe::LabelLoss::CrossEntropy => LabelLoss::CrossEntropy,
        heirloom_recipe::LabelLoss::Mse => LabelLoss::MeanSquaredError,
        heirloom_recipe::LabelLoss::Bce => LabelLoss::BinaryCrossEntropy,
    };
    let teacher = match label {
        LabelLoss::CrossEntropy => TermKind::Teacher(TeacherTerm {
            divergence: divergence(objective.divergence),
            temperature: objective.temperature,
            scale_by_temperature_squared: objective.scale_by_temperature_squared,
        }),
        LabelLoss::BinaryCrossEntropy | LabelLoss::MeanSquaredError => TermKind::TeacherNumbers,
    };
    // A policy's weights are whole: label and teacher themselves weigh one each.
    let (label_weight, teacher_weight) = match objective.balance {
        Some(_) => (1.0, 1.0),
        None => (1.0 - objective.alpha, objective.alpha),
    };
    let label = Term { name: "label".into(), weight: label_weight, kind: TermKind::Label(label) };
    let mut terms = vec![(label, false)];
    if objective.teacher_parts.is_empty() {
        terms.push((Term { name: "teacher".into(), weight: teacher_weight, kind: teacher }, false));
    }
    for (at, part) in objective.teacher_parts.iter().enumerate() {
        // A policy's weights say each teacher's part themselves.
        let weight = if objective.balance.is_some() { 1.0 } else { teacher_weight * part };
        terms.push((Term { name: format!("teacher[{at}]"), weight, kind: teacher }, false));
    }
    terms.extend(inside_terms(&objective.hidden));
    terms.into_iter().filter(|(term, _)| term.weight > 0.0).unzip()
}

/// The terms on what is inside both models, and for each whether it learns a projection.
pub(crate) fn inside_terms(plans: &[HiddenTermPlan]) -> Vec<(Term, bool)> {
    let mut terms = Vec::new();
    for (at, hidden) in plans.iter().enumerate() {
        for [student, teacher] in &hidden.layers {
            let pair = (*student as usize, *teacher as usize);
            let name = format!("hidden[{at}].{student}-{teacher}");
            // The weight is the whole list's: each pair has an equal share of it.
            let weight = hidden.weight / hidden.layers.len() as f64;
            let (kind, projected) = kind(&hidden.compare, hidden.position, pair);
            terms.push((Term { name, weight, kind }, projected));
        }
    }
    terms
}

/// The engine's divergence of the plan's name.
pub(crate) fn divergence(plan: heirloom_recipe::Divergence) -> Divergence {
    use heirloom_recipe::Divergence as Plan;
    match plan {
        Plan::ForwardKl => Divergence::ForwardKl,
        Plan::ReverseKl => Divergence::ReverseKl,
        Plan::SymmetricKl => Divergence::Symmetric,
        Plan::JensenShannon { beta } => Divergence::JensenShannon { beta },
        Plan::SkewKl { alpha } => Divergence::SkewKl { alpha },
        Plan::SkewReverseKl { alpha } => Divergence::SkewReverseKl { alpha },
        Plan::AlphaBeta { alpha, beta } => Divergence::AlphaBeta { alpha, beta },
        Plan::TotalVariation => Divergence::TotalVariation,
        Plan::Dkd { alpha, beta } => Divergence::Decoupled { alpha, beta },
        Plan::MseLogits { centred } => Divergence::MeanSquaredLogits { centred },
    }
}

fn kind(
    compare: &Compare,
    position: Position,
    (student, teacher): (usize, usize),
) -> (TermKind, bool) {
    let rows = match position {
        Position::All => Rows::All,
        Position::First => Rows::First,
    };
    let hidden = |distance, projection| {
        let term = HiddenTerm { distance, student, teacher, rows, projection: None };
        (TermKind::Hidden(term), projection)
    };
    match *compare {
        Compare::Mse { projection } => hidden(HiddenDistance::MeanSquared, projection),
        Compare::Cosine { projection } => hidden(HiddenDistance::Cosine, projection),
        Compare::NormalizedMse { projection } => hidden(HiddenDistance::Normalized, projection),
        Compare::AttentionRelation { relation, heads } => {
            let sides = match relation {
                Relation::Query => (Side::Query, Side::Query),
                Relation::Key => (Side::Key, Side::Key),
                Relation::Value => (Side::Value, Side::Value),
                Relation::QueryKey => (Side::Query, Side::Key),
            };
            let measure = RelationMeasure::Kl;
            let heads = heads as usize;
            (TermKind::Relation(RelationTerm { sides, student, teacher, heads, measure }), false)
        }
    }
}
