//! An encoder with a head: what is trained, distilled, evaluated and saved.

use heirloom_engine::{Device, Grads, Params, ParamsBuilder, View};

use crate::buffers::{Buffers, Purpose};
use crate::encoder::{Encoder, Noise, prefix};
use crate::head::HeadParams;
use crate::{Capacity, DeviceBatch, EncoderConfig, Head};

/// A model on a device.
#[derive(Clone, Debug)]
pub struct Model {
    config: EncoderConfig,
    head: Head,
    params: Params,
    encoder_params: usize,
    encoder: Encoder,
    head_params: HeadParams,
}

impl Model {
    /// Lays the parameters out on `device`, all zero. Follow with [`Model::init`] or a load.
    pub fn new(device: &mut dyn Device, config: EncoderConfig, head: Head) -> Self {
        let mut builder = ParamsBuilder::new(device);
        let prefix = prefix(config.model_type, head != Head::Embedding);
        let encoder = Encoder::new(&mut builder, &config, prefix);
        let encoder_params = builder.count();
        let head_params = HeadParams::new(&mut builder, &config, head);
        let params = builder.finish(device);
        Self { config, head, params, encoder_params, encoder, head_params }
    }

    /// Fills every parameter from the words of `seed`.
    pub fn init(&self, device: &mut dyn Device, seed: u64) {
        self.params.init(device, seed);
    }

    /// The encoder's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The head.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The flat buffer and its index.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The weights of the word embeddings, `[V, C]`, which are only ever looked up by row: a step
    /// has a gradient for the rows of its words and no other.
    pub fn word_embeddings(&self) -> View {
        self.encoder.word_embeddings
    }

    /// How many entries of the index, from the first, belong to the encoder.
    pub(crate) fn encoder_params(&self) -> usize {
        self.encoder_params
    }

    /// Activations for batches up to `capacity`.
    pub fn buffers(
        &self,
        device: &mut dyn Device,
        capacity: Capacity,
        purpose: &Purpose,
    ) -> Buffers {
        Buffers::new(device, &self.config, &self.head, capacity, purpose)
    }

    /// Room for batches of this model.
    pub fn batch(&self, device: &mut dyn Device, capacity: Capacity) -> DeviceBatch {
        DeviceBatch::new(device, capacity, self.config.first_position())
    }

    /// Runs the model on `batch`; dropout is applied where `noise` is given. The result is the
    /// head's output, as [`Head`] documents its shape.
    pub fn forward(
        &self,
        device: &mut dyn Device,
        batch: &DeviceBatch,
        buffers: &Buffers,
        noise: Option<Noise>,
    ) -> View {
        self.encoder.forward(device, &self.config, batch, buffers, noise);
        self.head_params.forward(device, &self.config, &self.encoder, batch, buffers, noise)
    }

    /// What the last layer of a classifier saw in the forward pass, dropout included, `[rows, C]`;
    /// `None` for a head without one.
    pub fn features(&self, buffers: &Buffers, rows: usize) -> Option<View> {
        match self.head {
            Head::SingleLabel { .. } | Head::MultiLabel { .. } | Head::Regression => {
                Some(buffers.head.active.first_rows(rows))
            }
            Head::MaskedLm | Head::Embedding => None,
        }
    }

    /// The gradient of the head's output, to be written before [`Model::backward`]; `rows` as the
    /// forward pass returned.
    pub fn d_output(&self, buffers: &Buffers, rows: usize) -> View {
        buffers.head.d_output.first_rows(rows)
    }

    /// Adds the gradient of every parameter to `grads`, a twin of the weights' space, or of those that
    /// it has a place for. `noise` must be the forward pass's.
    pub fn backward<'g>(
        &self,
        device: &mut dyn Device,
        batch: &DeviceBatch,
        buffers: &Buffers,
        grads: impl Into<Grads<'g>>,
        noise: Option<Noise>,
    ) {
        let grads = grads.into();
        let (config, encoder) = (&self.config, &self.encoder);
        self.head_params.backward(device, config, encoder, batch, buffers, grads, noise);
        self.encoder.backward(device, config, batch, buffers, grads, noise);
    }
}
