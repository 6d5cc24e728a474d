//! The training of language models: rows of tokens in place of labelled examples.
//!
//! In: a [`LanguageJob`]: a plan, rows, and where weights come from. Out: steps, and how well the
//! validation text was foreseen. Never: the logits of all tokens at once, or a mean of means: every
//! token of an optimiser step counts the same, however the step is cut.

mod as_run;
mod batch;
mod evaluate;
mod growing;
mod job;
mod network;
mod objective;
mod trainer;

pub use evaluate::Foreseen;
pub use job::{LanguageConfig, LanguageJob, LanguageTeacher, LanguageWeights};
pub use trainer::{LanguageTrainer, language_memory};

#[cfg(test)]
mod tests;
