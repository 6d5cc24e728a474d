//! The training of language models: rows of tokens in place of labelled examples.
//!
//! In: a [`LanguageJob`]: a plan, rows, and where weights come from. Out: steps, and how well the
//! validation text was foreseen. Never: the logits of all tokens at once, or a mean of means: every
//! token of an optimiser step counts the same, however the step is cut.

mod as_run;
mod balance;
mod batch;
mod beside;
mod capacity;
mod evaluate;
mod growing;
mod inside;
mod job;
mod judged;
mod masking;
mod network;
mod objective;
mod other_tokens;
mod pass;
mod rows;
mod second;
mod teaching;
mod trainer;
mod written;

pub use evaluate::{Foreseen, foresee};
pub use job::{LanguageConfig, LanguageJob, LanguageTeacher, LanguageWeights, TeacherReads};
pub use judged::JudgedToken;
pub use objective::kept_term;
pub use rows::{rows_of_run, rows_read};
pub use trainer::{LanguageTrainer, language_memory};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_other_tokens;
