//! Heirloom passes knowledge between language models.
//!
//! This crate is the façade: each part under its own name, and [`gather`] and [`mod@language`], which
//! open what a recipe names and turn it into a job that [`train`] can run. The command `heirloom` is a thin
//! layer over it.
//!
//! The way of the data: `recipe.toml` → [`recipe::Recipe`] → [`recipe::Plan`] →
//! [`data::pack::Batch`] → outputs ([`models::Model`]) → [`objective::Objective`] → (state, record)
//! ([`train::Trainer`]) → run folder ([`train::RunFolder`]).

pub use heirloom_balance as balance;
pub use heirloom_base as base;
pub use heirloom_data as data;
pub use heirloom_engine as engine;
pub use heirloom_growth as growth;
pub use heirloom_models as models;
pub use heirloom_objective as objective;
pub use heirloom_recipe as recipe;
pub use heirloom_regularize as regularize;
pub use heirloom_report as report;
pub use heirloom_store as store;
pub use heirloom_train as train;

pub mod answer;
pub mod examine;
pub mod explain;
pub mod failure;
pub mod gather;
pub mod grow;
pub mod judge;
pub mod language;
pub mod opened;
pub mod places;
pub mod prepared;
pub mod process;
pub mod processor;
pub mod second_set;
