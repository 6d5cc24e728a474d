//! A model that only answers: evaluation, prediction, and a teacher's answers.

use heirloom_data::dataset::Dataset;
use heirloom_data::pack::{Batch, evaluation_batches, scatter};
use heirloom_engine::Device;
use heirloom_models::{Buffers, Capacity, DeviceBatch, Inputs, Model, Purpose};

/// Borrows a packed batch as a model's inputs.
pub fn inputs(batch: &Batch) -> Inputs<'_> {
    Inputs {
        ids: &batch.ids,
        types: &batch.type_ids,
        positions: &batch.positions,
        rows: &batch.rows,
        starts: &batch.starts,
        masked: &[],
    }
}

/// Room for a model's answers to any batch of so many tokens.
#[derive(Debug)]
pub struct Predictor {
    tokens: usize,
    buffers: Buffers,
    batch: DeviceBatch,
}

impl Predictor {
    /// Plans memory for batches of `tokens` tokens, or of the longest sequence if that is longer.
    /// Every sequence has at least one token, so no batch has more sequences than tokens.
    pub fn new(device: &mut dyn Device, model: &Model, tokens: usize, longest: usize) -> Self {
        let room = tokens.max(longest);
        Self::within(device, model, tokens, Capacity { tokens: room, sequences: room, masked: 0 })
    }

    /// Plans memory for the examples of `dataset` alone, in batches of `tokens` tokens.
    pub fn for_dataset(
        device: &mut dyn Device,
        model: &Model,
        tokens: usize,
        dataset: &Dataset,
    ) -> Self {
        Self::within(device, model, tokens, Self::capacity(tokens, dataset))
    }

    /// The largest of the batches of `tokens` tokens that `dataset` is answered in.
    pub fn capacity(tokens: usize, dataset: &Dataset) -> Capacity {
        let nothing = Capacity { tokens: 1, sequences: 1, masked: 0 };
        evaluation_batches(dataset, tokens).fold(nothing, |largest, batch| Capacity {
            tokens: largest.tokens.max(batch.tokens()),
            sequences: largest.sequences.max(batch.sequences()),
            masked: 0,
        })
    }

    fn within(device: &mut dyn Device, model: &Model, tokens: usize, capacity: Capacity) -> Self {
        let buffers = model.buffers(device, capacity, &Purpose::Infer);
        Self { tokens, buffers, batch: model.batch(device, capacity) }
    }

    /// The head's output for every example of `dataset`, `[examples, width]`, in its order.
    pub fn outputs(
        &mut self,
        device: &mut dyn Device,
        model: &Model,
        dataset: &Dataset,
    ) -> Vec<f32> {
        let width = model.head().width(model.config());
        let mut all = vec![0.0; dataset.len() * width];
        for batch in evaluation_batches(dataset, self.tokens) {
            self.batch.upload(device, &inputs(&batch));
            let output = model.forward(device, &self.batch, &self.buffers, None);
            scatter(&batch, &device.read(output), width, &mut all);
        }
        all
    }
}
