//! From the plan's policy to one that decides.

use heirloom_balance::{Course, Normalize, Policy, RwKd, Schedule};
use heirloom_recipe::{BalancePlan, ObjectivePlan, PolicyPlan};

/// The policy of a plan, for `examples` of `classes` labels.
pub fn policy(
    plan: &BalancePlan,
    objective: &ObjectivePlan,
    examples: usize,
    _classes: usize,
    _total_steps: u64,
    _seed: u64,
) -> Box<dyn Policy> {
    match &plan.policy {
        PolicyPlan::Schedule { from, to, course, at } => {
            let course = match course.as_str() {
                "cosine" => Course::Cosine,
                "step" => Course::Step { at: *at },
                _ => Course::Linear,
            };
            Box::new(Schedule { from: *from, to: *to, course })
        }
        PolicyPlan::RwKd { normalize, floor, bounds, ema } => {
            let normalize = match normalize.as_str() {
                "batch" => Normalize::Batch,
                "none" => Normalize::None,
                _ => Normalize::Terms,
            };
            Box::new(RwKd::new(examples, normalize, *floor, *bounds, *ema, objective.alpha))
        }
    }
}
