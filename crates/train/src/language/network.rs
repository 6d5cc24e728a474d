//! A language model of either kind, and the room in which it reads a micro-batch.
//!
//! In: a config, weights, a batch. Out: hidden states and the head, or logits. Never: a label, or the
//! logits of a decoder.

use heirloom_engine::{Device, Params, View};
use heirloom_models::{
    Buffers, Capacity, Decoder, DecoderBuffers, DeviceBatch, Head, Loaded, Model, Noise, Purpose,
};
use heirloom_objective::Inside;
use heirloom_store::TensorFolder;

use super::batch::TextBatch;
use super::capacity::LanguageCapacity;
use super::job::{LanguageConfig, LanguageWeights};
use crate::Error;

/// A model of either kind.
#[derive(Clone, Debug)]
pub(super) enum Network {
    /// It foresees the next token.
    Decoder(Decoder),
    /// It guesses hidden ones.
    Encoder(Model),
}

impl Network {
    pub(super) fn new(device: &mut dyn Device, config: &LanguageConfig) -> Self {
        match config.clone() {
            LanguageConfig::Decoder(config) => Self::Decoder(Decoder::new(device, config)),
            LanguageConfig::Encoder(config) => {
                Self::Encoder(Model::new(device, config, Head::MaskedLm))
            }
        }
    }

    pub(super) fn params(&self) -> &Params {
        match self {
            Self::Decoder(model) => model.params(),
            Self::Encoder(model) => model.params(),
        }
    }

    /// Whether files hold the transpose of the parameter of this name.
    pub(super) fn lies_transposed(&self, name: &str) -> bool {
        match self {
            Self::Decoder(model) => model.lies_transposed(name),
            Self::Encoder(_) => false,
        }
    }

    /// Fills the weights; those of a head that a folder lacks are drawn where `fresh_head` is a seed.
    pub(super) fn fill(
        &self,
        device: &mut dyn Device,
        weights: &LanguageWeights,
        seed: u64,
        fresh_head: Option<u64>,
    ) -> Result<Loaded, Error> {
        let path = match weights {
            LanguageWeights::Fresh => {
                self.params().init(device, seed);
                return Ok(Loaded::default());
            }
            LanguageWeights::Later => return Ok(Loaded::default()),
            LanguageWeights::Folder(path) => path,
        };
        let (folder, same) = (TensorFolder::open(path)?, |name: &str| name.to_owned());
        Ok(match self {
            Self::Decoder(model) => model.load(device, &folder, &same)?,
            Self::Encoder(model) => model.load(device, &folder, &same, fresh_head)?,
        })
    }

    /// A table that is only ever looked up by row. The word embeddings that are the head too have a
    /// gradient for every row.
    pub(super) fn looked_up(&self) -> Option<View> {
        match self {
            Self::Decoder(model) => model.looked_up(),
            Self::Encoder(_) => None,
        }
    }

    pub(super) fn vocabulary(&self) -> usize {
        match self {
            Self::Decoder(model) => model.config().vocab_size,
            Self::Encoder(model) => model.config().vocab_size,
        }
    }

    /// Width of the hidden states.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Decoder(model) => model.config().hidden_size,
            Self::Encoder(model) => model.config().hidden_size,
        }
    }

    pub(super) fn masked(&self) -> bool {
        matches!(self, Self::Encoder(_))
    }
}

/// A model's activations.
#[derive(Clone, Debug)]
pub(super) enum Room {
    Decoder(DecoderBuffers),
    Encoder(Buffers),
}

impl Room {
    fn new(
        device: &mut dyn Device,
        network: &Network,
        capacity: Capacity,
        purpose: &Purpose,
    ) -> Self {
        match network {
            // Its head's logits belong to the losses.
            Network::Decoder(model) => {
                Self::Decoder(DecoderBuffers::new(device, model.config(), capacity, 0, purpose))
            }
            Network::Encoder(model) => Self::Encoder(model.buffers(device, capacity, purpose)),
        }
    }

    pub(super) fn inside(&self) -> Inside<'_> {
        match self {
            Self::Decoder(buffers) => Inside::Decoder(buffers),
            Self::Encoder(buffers) => Inside::Encoder(buffers),
        }
    }

    /// Sets the gradients of all taps to zero, for the first `tokens` rows.
    pub(super) fn clear_taps(&self, device: &mut dyn Device, tokens: usize) {
        match self {
            Self::Decoder(buffers) => buffers.clear_taps(device, tokens),
            Self::Encoder(buffers) => buffers.clear_taps(device, tokens),
        }
    }
}

/// A model that has read a batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read {
    /// The last hidden states, `[N, C]`, and the head's matrix, `[V, C]`.
    States { states: View, head: View },
    /// Logits of the hidden tokens, `[M, V]`.
    Logits(View),
}

/// A model that reads batches.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) room: Room,
    pub(super) batch: DeviceBatch,
}

impl Reader {
    pub(super) fn new(
        device: &mut dyn Device,
        network: &Network,
        capacity: LanguageCapacity,
        purpose: &Purpose,
    ) -> Self {
        let capacity = capacity.of_models();
        let room = Room::new(device, network, capacity, purpose);
        let batch = match network {
            Network::Decoder(model) => model.batch(device, capacity),
            Network::Encoder(model) => model.batch(device, capacity),
        };
        Self { room, batch }
    }

    pub(super) fn read(
        &mut self,
        device: &mut dyn Device,
        network: &Network,
        host: &TextBatch,
        noise: Option<Noise>,
    ) -> Read {
        self.batch.upload(device, &host.inputs());
        match (network, &self.room) {
            (Network::Decoder(model), Room::Decoder(buffers)) => Read::States {
                states: model.forward_states(device, &self.batch, buffers, noise),
                head: model.head(),
            },
            (Network::Encoder(model), Room::Encoder(buffers)) => {
                Read::Logits(model.forward(device, &self.batch, buffers, noise))
            }
            _ => unreachable!("a room is made for its model"),
        }
    }
}
