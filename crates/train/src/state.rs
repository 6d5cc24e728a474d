//! All that survives a crash: the progress here, and the flat buffers of weights and moments.

use heirloom_base::Step;
use heirloom_data::order::Cursor;
use serde::{Deserialize, Serialize};

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps done when it was made.
    pub step: Step,
    /// Its score.
    pub score: f64,
}

/// Where a run is. What is neither here nor in the buffers may be lost at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Which examples come next.
    pub cursor: Cursor,
    /// Which examples of a balance policy's second set come next.
    #[serde(default)]
    pub second: Cursor,
    /// Optimiser moves: steps done, less those left out.
    pub updates: u64,
    /// Steps left out because they were not finite.
    pub skipped: u64,
    /// Weights in the average; 0 where there is none yet, or the plan has none.
    #[serde(default)]
    pub averaged: u64,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Evaluations since the best one.
    pub since_best: u64,
    /// Steps done when a language model's student was first found better than its teacher, who is
    /// silent from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overtaken: Option<u64>,
    /// Whether the run has ended, by its length or early.
    pub finished: bool,
}

impl Progress {
    /// Steps done.
    pub fn step(&self) -> Step {
        Step(self.cursor.step)
    }
}
