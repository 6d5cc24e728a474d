//! Which rows a run reads.

use heirloom_data::order::Order;
use heirloom_data::text::Rows;
use heirloom_recipe::{Batch, TrainingPlan};

use crate::trainer::rule;

/// The rows that the first `steps` steps of a run read under `seed`, ascending, each once.
pub fn rows_read(rows: &dyn Rows, batch: Batch, steps: u64, seed: u64) -> Vec<u32> {
    Order::of_rows(seed, rows).read_within(rows, steps, rule(batch))
}

/// The same of a whole run.
pub fn rows_of_run(rows: &dyn Rows, training: &TrainingPlan) -> Vec<u32> {
    rows_read(rows, training.batch, training.total_steps, training.seed)
}
