//! Text to packed batches: sources, tokens, order, packing, the teacher cache.
//!
//! ```text
//! source ─▶ rows ─▶ tokens ─▶ dataset ─▶ order ─▶ pack ─▶ batches
//! ```
//!
//! Nothing here writes to disk, and nothing here knows a model.

pub mod cache;
pub mod dataset;
mod error;
mod jsonl;
pub mod label;
mod lines;
pub mod order;
pub mod pack;
mod parquet;
pub mod presets;
mod separated;
pub mod source;
pub mod synthetic;
pub mod tokens;

pub use error::{BadRow, Damage, Error, Problem};
