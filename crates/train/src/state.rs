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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// silent from then on; of several than the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overtaken: Option<u64>,
    /// The same of each of several teachers. Not written, and empty, until one is silent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overtaken_teachers: Vec<Option<u64>>,
    /// Whether the run has ended, by its length or early.
    pub finished: bool,
}

impl Progress {
    /// Steps done.
    pub fn step(&self) -> Step {
        Step(self.cursor.step)
    }

    /// Whether teacher number `at` has been overtaken.
    pub fn is_silent(&self, at: usize) -> bool {
        let of_one = self.overtaken_teachers.get(at).copied().flatten();
        self.overtaken.is_some() || of_one.is_some()
    }

    /// Notes that teacher number `at` of `teachers` has been overtaken now.
    pub fn overtake(&mut self, at: usize, teachers: usize) {
        let now = Some(self.cursor.step);
        if teachers > 1 {
            self.overtaken_teachers.resize(teachers, None);
            self.overtaken_teachers[at] = now;
        }
        if (0..teachers).all(|other| other == at || self.is_silent(other)) {
            self.overtaken = now;
        }
    }
}
