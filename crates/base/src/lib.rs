//! Words that every other crate speaks: units, the glossary of axis letters, random words with an
//! address, digests.
//!
//! Glossary, used everywhere and defined only here:
//!
//! | letter | meaning |
//! |---|---|
//! | **B** | sequences in a padded batch |
//! | **S** | sequences in a packed batch |
//! | **T** | positions in one sequence |
//! | **N** | tokens in a packed batch |
//! | **V** | vocabulary, or classes |
//! | **C** | hidden width |
//! | **F** | width of the feed-forward layer |
//! | **H** | attention heads |
//! | **D** | width of one head |
//! | **L** | layers |
//! | **K** | teacher ids kept per position |
//!
//! Losses are in nats, learning happens in steps, text is counted in tokens, files in bytes.

mod digest;
mod random;
mod units;

pub use digest::{Digest, Hasher, ParseDigestError};
pub use random::{Purpose, Words, permutation, uniform, word};
pub use units::{Bytes, Nats, Step, Tokens};
