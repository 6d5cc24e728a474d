//! What happened, and was it better: metrics, seeds, comparisons, tables.
//!
//! In: logits and labels, or scores of earlier runs, as slices.
//! Out: numbers with how many examples they cover, and text or JSON that shows them.
//! Never: reads or writes a file, runs a model, or answers `NaN`; what is undefined is `None`.
//!
//! All sums are `f64`. The law the tests hold: the order of the examples changes nothing.

pub mod calibration;
pub mod compare;
pub mod courses;
pub mod diagram;
pub mod error;
pub mod evaluate;
pub mod language;
pub mod ledger;
pub mod measure;
pub mod metric;
pub mod predictions;
pub mod probability;
pub mod seeds;
pub mod student;
mod svg;
pub mod table;
pub mod temperature;
