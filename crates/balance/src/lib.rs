//! Balance: how much each sample learns from its label and how much from its teacher.
//!
//! In: what is known of the samples of a step: their losses, labels, the student's and the
//! teacher's logits, and, where a policy learns from a second set, how far each loss would help
//! there. Out: a weight per sample and term. Never: a gradient through a weight (weights are
//! constants of the step they are used in), a device, a file.
//!
//! One policy per file, each with its source. All are functions on rows of numbers, tested by hand.

mod fixed;
mod memory;
mod policy;
mod rows;
mod rw_kd;
mod samples;
mod schedule;
mod summary;

pub use fixed::Fixed;
pub use memory::Memory;
pub use policy::{Needs, Policy, Restored};
pub use rw_kd::{Normalize, RwKd};
pub use samples::{Alignments, At, Decision, LABEL, Samples, TEACHER};
pub use schedule::{Course, Schedule};
pub use summary::{Summary, separation};
