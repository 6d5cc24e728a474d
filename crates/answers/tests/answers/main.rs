//! Kept answers: that they are the teacher's, that they go on after a crash, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

mod crashes;
mod elsewhere;
mod lists;
mod numbers;
mod refusals;
mod tiny;
