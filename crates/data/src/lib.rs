//! Text to packed batches: sources, tokens, order, packing, the teacher cache.
//!
//! ```text
//! source ─▶ rows ─▶ tokens ─▶ dataset ─▶ order ─▶ pack ─▶ batches
//! ```
//!
//! A language model reads [`text`] instead: documents ─▶ kept tokens ─▶ packed rows. Those tokens are
//! the only thing that this crate leaves on a disk, through `heirloom-store`. Nothing here knows a
//! model.
//!
//! ```
//! use heirloom_data::dataset::{Dataset, KeepTexts};
//! use heirloom_data::order::{BatchRule, Cursor, Order};
//! use heirloom_data::{pack, synthetic, tokens::Tokenizer};
//!
//! let examples = synthetic::generate(1, 100);
//! let tokenizer = Tokenizer::from_vocabulary(&synthetic::vocabulary(), true)?;
//! let (rows, labels) = (synthetic::rows(&examples), synthetic::labels());
//! let dataset = Dataset::build(&rows, labels, &tokenizer, 64, KeepTexts::No)?;
//!
//! let mut order = Order::new(7, dataset.len());
//! let (step, after) = order.next_step(&dataset, Cursor::default(), BatchRule::Sequences(32));
//! let batches = pack::micro_batches(&dataset, &step, BatchRule::Tokens(256));
//! assert_eq!(batches.iter().map(|batch| batch.sequences()).sum::<usize>(), 32);
//! assert_eq!((after.position, after.step), (32, 1));
//! # Ok::<(), heirloom_data::Error>(())
//! ```

pub mod align;
pub mod cache;
pub mod dataset;
mod error;
pub mod given;
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
pub mod text;
pub mod tokens;
pub mod vocabulary;

pub use error::{BadRow, Damage, Error, Problem};
