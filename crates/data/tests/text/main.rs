//! Text for language models: documents, kept tokens, packed rows.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod documents;
mod packed;
mod place;
mod shards;
