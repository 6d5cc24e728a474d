//! From a plan's balance to the policy that decides.
//!
//! In: the plan's words and numbers, and the sizes of the run. Out: a policy as it is before the
//! first step. Never: a default; the recipe has decided them all.

use heirloom_balance as balance;
use heirloom_balance::Policy;
use heirloom_recipe::{
    Adoption, BalancePlan, Course, Doubt, NetworkOutput, Normalize, ObjectivePlan, PolicyPlan,
    Schedule, Sight,
};

/// How a share goes from its first value to its last; `at` is the part of the run before a step.
pub(crate) fn course(course: Course, at: f64) -> balance::Course {
    match course {
        Course::Linear => balance::Course::Linear,
        Course::Cosine => balance::Course::Cosine,
        Course::Step => balance::Course::Step { at },
    }
}

/// The policy of a plan, before it has learnt anything.
///
/// `examples` are those of the training set, by which some policies remember; `classes` the logits.
/// What a policy draws at random follows from `seed`. No policy of today looks at `_total_steps`: each
/// is told at every step how long the run is ([`At`](balance::At)), so that a run that was made longer
/// goes on with it.
///
/// # Panics
/// Where the plan's policy is a program's own, which no plan can make ([`crate::Own`]).
pub fn policy(
    plan: &BalancePlan,
    objective: &ObjectivePlan,
    examples: usize,
    classes: usize,
    _total_steps: u64,
    seed: u64,
) -> Box<dyn Policy> {
    let (alpha, parts) = (objective.alpha, &objective.teacher_parts);
    let several = parts.len() > 1;
    // The teacher's weight, cut among several teachers.
    let parted = |policy: Box<dyn Policy>| -> Box<dyn Policy> {
        if several { Box::new(balance::Parted::new(policy, parts.clone())) } else { policy }
    };
    match plan.policy {
        PolicyPlan::Fixed => parted(Box::new(balance::Fixed { alpha })),
        PolicyPlan::Schedule { from, to, course, at } => {
            let course = self::course(course, at);
            parted(Box::new(balance::Schedule { from, to, course }))
        }
        PolicyPlan::AnnealingKd { phase_one, levels } => {
            Box::new(balance::AnnealingKd { phase_one, levels })
        }
        PolicyPlan::ContinuationKd { levels, margin } => {
            Box::new(balance::ContinuationKd { levels, margin })
        }
        PolicyPlan::Uncertainty { learning_rate, bound } => {
            let policy = balance::Uncertainty::new(learning_rate, bound);
            Box::new(if several { policy.with_teachers(parts.len()) } else { policy })
        }
        PolicyPlan::GradNorm { asymmetry, learning_rate } => {
            let policy = balance::GradNorm::new(asymmetry, learning_rate, objective.temperature);
            Box::new(if several { policy.with_teachers(parts.len()) } else { policy })
        }
        PolicyPlan::Wsl { weight } => Box::new(balance::Wsl { alpha: weight }),
        PolicyPlan::AdaKd { temperature } => Box::new(balance::AdaKd { temperature }),
        PolicyPlan::DynamicKd { adoption, share, doubt } => {
            let by = match doubt {
                Doubt::Entropy => balance::Doubt::Entropy,
                Doubt::Margin => balance::Doubt::Margin,
                Doubt::LeastConfidence => balance::Doubt::LeastConfidence,
            };
            let adoption = match adoption {
                Adoption::Sample => balance::Adoption::Sample,
                Adoption::Batch => balance::Adoption::Batch,
                Adoption::Select => balance::Adoption::Select { share, by },
            };
            Box::new(balance::DynamicKd { alpha, adoption })
        }
        PolicyPlan::Ctkd { range, learning_rate, ramp } => {
            Box::new(balance::Ctkd::new(alpha, range, learning_rate, ramp))
        }
        PolicyPlan::RwKd { normalize, floor, bounds, ema } => {
            let normalize = self::normalize(normalize);
            let policy = balance::RwKd::new(examples, normalize, floor, bounds, ema, alpha);
            Box::new(if several { policy.with_teachers(parts) } else { policy })
        }
        PolicyPlan::L2rw { ema } => Box::new(balance::L2rw::new(examples, alpha, ema)),
        PolicyPlan::MetaWeightNet { .. } => {
            Box::new(network(plan, classes, seed).expect("it is this policy's plan"))
        }
        PolicyPlan::TgeoKd { learning_rate, weight_decay } => {
            let adam = balance::Adam { learning_rate, weight_decay };
            Box::new(balance::TgeoKd::new(classes, seed, adam).with_pace(pace(plan)))
        }
        PolicyPlan::Own { .. } => unreachable!("a program's own policy is the program's to make"),
    }
}

pub(crate) fn normalize(normalize: Normalize) -> balance::Normalize {
    match normalize {
        Normalize::Terms => balance::Normalize::Terms,
        Normalize::Batch => balance::Normalize::Batch,
        Normalize::None => balance::Normalize::None,
    }
}

/// The network of a plan whose policy is `meta_weight_net`.
pub(crate) fn network(
    plan: &BalancePlan,
    classes: usize,
    seed: u64,
) -> Option<balance::MetaWeightNet> {
    let PolicyPlan::MetaWeightNet { sight, output, learning_rate, weight_decay } = plan.policy
    else {
        return None;
    };
    let sight = match sight {
        Sight::Losses => balance::Sight::Losses,
        Sight::TeacherLogits => balance::Sight::TeacherLogits,
    };
    let output = match output {
        NetworkOutput::Weights => balance::Output::Weights,
        NetworkOutput::Share => balance::Output::Share,
    };
    let adam = balance::Adam { learning_rate, weight_decay };
    let policy = balance::MetaWeightNet::new(sight, output, classes, seed, adam);
    Some(policy.with_pace(pace(plan)))
}

/// How a network's steps go over the run.
fn pace(plan: &BalancePlan) -> balance::Pace {
    let Some(meta) = &plan.meta else { return balance::Pace::default() };
    let course = match meta.lr_scheduler_type {
        Schedule::Constant => balance::Pacing::Constant,
        Schedule::Linear => balance::Pacing::Linear,
        Schedule::Cosine => balance::Pacing::Cosine,
    };
    balance::Pace { course, max_norm: meta.max_grad_norm }
}

#[cfg(test)]
mod tests {
    use heirloom_recipe::{Divergence, LabelLoss, PolicyKind, parse};

    use super::*;

    const EXAMPLES: usize = 5;
    const CLASSES: usize = 3;
    const SEED: u64 = 7;

    /// The policy of a small recipe with these keys, and whether the recipe has a second set for it.
    fn made(sets: &[&str]) -> Result<(Box<dyn Policy>, bool), String> {
        let text = "[task]\npreset = \"sst2\"\npath = \"d\"\n[student]\nmodel = \"s\"\n\
                    [teacher]\nmodel = \"t\"\n";
        let sets: Vec<String> = sets.iter().map(|set| format!("objective.{set}")).collect();
        let recipe = parse("r.toml", text, &sets).map_err(|problems| problems.to_string())?;
        let objective = ObjectivePlan {
            alpha: 0.3,
            teacher_parts: Vec::new(),
            temperature: 4.0,
            scale_by_temperature_squared: true,
            divergence: Divergence::default(),
            label_loss: LabelLoss::CrossEntropy,
            hidden: Vec::new(),
            balance: None,
            regularizer: None,
            regularizer_meta: None,
        };
        let plan = recipe.balance().ok_or("no policy")?;
        let policy = policy(&plan, &objective, EXAMPLES, CLASSES, 100, SEED);
        Ok((policy, plan.meta.is_some()))
    }

    /// `RwKd { … }` is `rw_kd`.
    fn name_of(policy: &dyn Policy) -> String {
        let shown = format!("{policy:?}");
        let name = shown.chars().take_while(|letter| letter.is_alphanumeric());
        let words = name.enumerate().map(|(at, letter)| {
            let gap = if at > 0 && letter.is_uppercase() { "_" } else { "" };
            format!("{gap}{}", letter.to_lowercase())
        });
        words.collect()
    }

    #[test]
    fn every_name_becomes_its_policy_and_whoever_asks_for_a_second_set_has_one() {
        for kind in PolicyKind::ALL.iter().filter(|kind| **kind != PolicyKind::Own) {
            let name = format!("balance.policy={kind}");
            let mut sets = vec![name.as_str()];
            if matches!(kind, PolicyKind::AnnealingKd | PolicyKind::ContinuationKd) {
                sets.extend(["divergence=mse_logits", "divergence_centred=false"]);
            }
            let (policy, second_set) = made(&sets).expect("the recipe is good");
            assert_eq!(name_of(&*policy), kind.name());
            assert_eq!(policy.needs().alignments, second_set, "{kind}");
            assert!(!policy.needs().together, "{kind}: steps may be cut as they are by default");
        }
    }

    #[test]
    fn whoever_looks_at_whole_steps_is_refused_where_they_are_cut() {
        for adoption in Adoption::ALL {
            let set = format!("balance.adoption={adoption}");
            let (policy, _) = made(&["balance.policy=dynamic_kd", &set]).expect("one micro-batch");
            let text = "[task]\npreset = \"sst2\"\npath = \"d\"\n[student]\nmodel = \"s\"\n\
                        [teacher]\nmodel = \"t\"\n[training]\nmicro_batch_size = 4\n";
            let sets = ["objective.balance.policy=dynamic_kd", &format!("objective.{set}")];
            let cut = parse("r.toml", text, &sets.map(str::to_owned));
            assert_eq!(cut.is_err(), policy.needs().together, "{adoption}");
        }
    }

    #[test]
    fn each_number_reaches_its_place() {
        let adam = balance::Adam { learning_rate: 0.02, weight_decay: 0.003 };
        let select = balance::Adoption::Select { share: 0.2, by: balance::Doubt::LeastConfidence };
        let rate = "balance.learning_rate=0.02";
        let decay = "balance.weight_decay=0.003";
        let logits = ["divergence=mse_logits", "divergence_centred=false"];
        let rows: Vec<(Vec<&str>, Box<dyn Policy>)> =
            vec![
                (vec!["balance.policy=fixed"], Box::new(balance::Fixed { alpha: 0.3 })),
                (
                    vec![
                        "balance.policy=schedule",
                        "balance.from=0.9",
                        "balance.to=0.2",
                        "balance.course=step",
                        "balance.at=0.6",
                    ],
                    Box::new(balance::Schedule {
                        from: 0.9,
                        to: 0.2,
                        course: balance::Course::Step { at: 0.6 },
                    }),
                ),
                (
                    vec![
                        "balance.policy=annealing_kd",
                        "balance.phase_one=0.7",
                        "balance.levels=4",
                        logits[0],
                        logits[1],
                    ],
                    Box::new(balance::AnnealingKd { phase_one: 0.7, levels: 4 }),
                ),
                (
                    vec![
                        "balance.policy=continuation_kd",
                        "balance.margin=2",
                        "balance.levels=4",
                        logits[0],
                        logits[1],
                    ],
                    Box::new(balance::ContinuationKd { levels: 4, margin: 2.0 }),
                ),
                (
                    vec!["balance.policy=uncertainty", rate, "balance.bound=3"],
                    Box::new(balance::Uncertainty::new(0.02, 3.0)),
                ),
                (
                    vec!["balance.policy=grad_norm", rate, "balance.asymmetry=0.5"],
                    Box::new(balance::GradNorm::new(0.5, 0.02, 4.0)),
                ),
                (
                    vec!["balance.policy=wsl", "balance.weight=2.5"],
                    Box::new(balance::Wsl { alpha: 2.5 }),
                ),
                (
                    vec!["balance.policy=ada_kd", "balance.temperature=3"],
                    Box::new(balance::AdaKd { temperature: 3.0 }),
                ),
                (
                    vec![
                        "balance.policy=dynamic_kd",
                        "balance.adoption=select",
                        "balance.share=0.2",
                        "balance.doubt=least_confidence",
                    ],
                    Box::new(balance::DynamicKd { alpha: 0.3, adoption: select }),
                ),
                (
                    vec!["balance.policy=ctkd", "balance.range=[2, 5]", rate, "balance.ramp=0.4"],
                    Box::new(balance::Ctkd::new(0.3, [2.0, 5.0], 0.02, 0.4)),
                ),
                (
                    vec![
                        "balance.policy=rw_kd",
                        "balance.bounds=[0.1, 0.8]",
                        "balance.floor=0.01",
                        "balance.ema=0.5",
                    ],
                    Box::new(balance::RwKd::new(
                        EXAMPLES,
                        balance::Normalize::Terms,
                        0.01,
                        [0.1, 0.8],
                        0.5,
                        0.3,
                    )),
                ),
                (
                    vec!["balance.policy=l2rw", "balance.ema=0.5"],
                    Box::new(balance::L2rw::new(EXAMPLES, 0.3, 0.5)),
                ),
                (
                    vec![
                        "balance.policy=meta_weight_net",
                        "balance.sight=teacher_logits",
                        "balance.output=share",
                        rate,
                        decay,
                    ],
                    Box::new(balance::MetaWeightNet::new(
                        balance::Sight::TeacherLogits,
                        balance::Output::Share,
                        CLASSES,
                        SEED,
                        adam,
                    )),
                ),
                (
                    vec![
                        "balance.policy=tgeo_kd",
                        "balance.meta.lr_scheduler_type=cosine",
                        "balance.meta.max_grad_norm=2",
                        rate,
                        decay,
                    ],
                    Box::new(balance::TgeoKd::new(CLASSES, SEED, adam).with_pace(balance::Pace {
                        course: balance::Pacing::Cosine,
                        max_norm: 2.0,
                    })),
                ),
            ];
        for (sets, want) in rows {
            let (got, _) = made(&sets).expect("the recipe is good");
            assert_eq!(format!("{got:?}"), format!("{want:?}"), "{sets:?}");
        }
    }
}
