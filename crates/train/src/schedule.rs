//! The learning rate as a function of the steps done.
//!
//! The same functions as `get_linear_schedule_with_warmup` and its siblings in `transformers`, so
//! that a run there can be repeated here: the rate of step `n` (from 0) is that after `n` steps, so
//! with a warm-up the first step has rate 0.

use heirloom_base::Step;
use heirloom_recipe::{Schedule, TrainingPlan};

/// The learning rate of the step that follows `done` steps.
pub fn learning_rate(training: &TrainingPlan, done: Step) -> f64 {
    let (done, warmup) = (done.0 as f64, training.warmup_steps as f64);
    if done < warmup {
        return training.learning_rate * done / warmup;
    }
    let rest = (training.total_steps as f64 - warmup).max(1.0);
    let past = ((done - warmup) / rest).min(1.0);
    training.learning_rate
        * match training.lr_scheduler_type {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - past,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * past).cos()),
        }
}
