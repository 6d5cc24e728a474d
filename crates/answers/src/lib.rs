//! A language model teacher's answers, kept on disk: a few tokens of each distribution, or its last
//! hidden states.
//!
//! In: a decoder and rows of tokens, once. Out: a folder that any run over the same rows reads in
//! the teacher's place, memory-mapped, by row and position. The folder may be a copy of one elsewhere,
//! which many machines fill.
//! Never: an answer of another teacher, tokenizer, text, chat template, temperature or vocabulary; a
//! byte that changed since it was written; a distribution whose missing part is not spoken of.
//!
//! ```text
//! cache.json          what the answers are: digests, kind, temperature, error bound; its own digest
//! rows-00000.list     which rows are answered, where not all are; another list for each addition
//! part-00000.answers  some rows each; blocks with digests
//! part-00001.answers.filling-1-of-1    one that a machine has begun and not finished
//! ```

mod about;
mod bits;
mod choose;
mod error;
mod fetch;
mod held;
mod keep;
mod kept;
mod measure;
mod part;
mod record;
mod values;

pub use about::{ABOUT, About, Expected, FORMAT, Kind};
pub use choose::{Room, samples, top_k};
pub use error::{Damage, Difference, Error};
pub use fetch::{Fetched, fetch, fetch_about, is_part};
pub use held::{Held, Wanted};
pub use keep::{Progress, Shard, keep};
pub use kept::{Kept, KnownRows};
pub use measure::{Distance, Measured, Trial, distance, each_answer, measure, trial};
pub use part::{BLOCK_TOKENS, block_bytes};
pub use record::Known;
pub use values::Values;
