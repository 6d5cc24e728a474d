//! Encoders and decoders in the layout of Hugging Face: forward, backward, load, save, and
//! generation.
//!
//! In: a model folder or a config, and packed batches. Out: logits, numbers or embeddings, the
//! gradient of every parameter, and a folder that `transformers` loads.
//! Never: a label, a loss, or text.

mod batch;
mod buffers;
mod config;
mod decoder;
mod encoder;
mod error;
mod head;
mod model;
mod names;
mod operations;
mod weights;

pub use batch::{Capacity, DeviceBatch, Inputs};
pub use buffers::{Buffers, Purpose, Taps};
pub use config::{EncoderConfig, ModelType, activation};
pub use decoder::{
    Decoder, DecoderBuffers, DecoderConfig, DecoderType, Generate, Generated, Positions, Rope,
    RopeScaling, Sampling, Stopped,
};
pub use encoder::Noise;
pub use error::Error;
pub use head::Head;
pub use model::Model;
pub use names::split_layer;
pub use weights::{Loaded, Mismatch, transposed};
