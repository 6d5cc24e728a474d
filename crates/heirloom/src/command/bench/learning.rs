//! What a timed step does with its gradient: AdamW, after clipping where that was asked for.

use heirloom_engine::{Device, Move, Params, View};
use heirloom_train::{Adam, Learned};

use crate::args::BenchStepArgs;

/// The optimiser's settings, those of the script; the rest are PyTorch's defaults.
const LEARNING_RATE: f64 = 2e-5;
const WEIGHT_DECAY: f64 = 0.01;

/// Gradient and moments.
pub(super) struct Learning {
    pub(super) learned: Learned,
    /// The words of the batch, each once.
    words: Vec<u32>,
    /// To which length the gradient is clipped; 0 leaves it unmeasured.
    largest_norm: f64,
}

impl Learning {
    /// `table` is a matrix of which a step sees only the rows of `words`, where there is one.
    pub(super) fn new(
        device: &mut dyn Device,
        params: &Params,
        table: Option<View>,
        mut words: Vec<u32>,
        args: &BenchStepArgs,
    ) -> Self {
        let adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: WEIGHT_DECAY };
        let learned = Learned::new(device, params.clone(), adam, table);
        words.sort_unstable();
        words.dedup();
        Self { learned, words, largest_norm: args.max_grad_norm }
    }

    /// To be called before the weights are read.
    pub(super) fn see(&mut self, device: &mut dyn Device) {
        self.learned.see(device, &self.words);
    }

    /// Takes step number `at`, from 0.
    pub(super) fn step(&mut self, device: &mut dyn Device, at: u64) {
        let gradient_scale = if self.largest_norm > 0.0 {
            let norm = self.learned.squares(device).sqrt();
            (self.largest_norm / (norm + 1e-6)).min(1.0)
        } else {
            1.0
        };
        self.learned
            .step(device, Move { step: at + 1, learning_rate: LEARNING_RATE, gradient_scale });
    }
}
