//! One trained model into another of a different size: a map is data, applied to parameters by
//! name.
//!
//! In: a layer map and the source's config. Out: the target's config, and for each of its
//! parameters the source's that fills it. Never: a number read or written; the models crate does
//! that, with this crate's names.

mod layers;

pub use layers::{Error, LayerMap};
