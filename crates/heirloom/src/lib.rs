//! Heirloom passes knowledge between language models: this is the library, of which the command
//! `heirloom` is a thin layer.
//!
//! # Where to start
//!
//! | to | begin with |
//! |---|---|
//! | run a recipe from a program | [`Training`] |
//! | bring a balance policy of one's own | [`balance::Policy`], [`Training::with_policy`], `examples/own_policy.rs` |
//! | bring a label regularizer of one's own | [`regularize::Target`], [`Training::with_regularizer`], `examples/own_regularizer.rs` |
//! | take the steps of a run one by one | [`Training::trainer`], [`train::Trains`] |
//! | hold data in memory in place of files | [`train::Job`], [`train::Trainer`] |
//! | load a model, ask it, differentiate it | [`models::Model`], [`engine::Device`], `examples/pieces.rs` |
//! | grow a model | [`growth::GrowthPlan`], [`mod@grow`] |
//! | judge outputs | [`mod@judge`], [`report`] |
//!
//! A run takes a recipe, some folders to look in ([`Places`]) and a new folder to write to:
//!
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! use heirloom::{Places, Training, generated};
//!
//! generated::write(folder, 1, 96, 32)?; // a task to try things on
//! let recipe = generated::recipe(&["training.epochs=1"])?; // or recipe::parse(file, text, &sets)
//! let training = Training::new(&recipe, &Places::at(folder), &folder.join("run"))?;
//! let ended = training.run(&mut ())?; // a Watch hears of steps; () does not listen
//! assert_eq!(ended.progress.step().0, 3);
//! assert!(folder.join("run/best/model.safetensors").is_file());
//! # Ok::<(), heirloom::Failure>(())
//! ```
//!
//! A policy or a regularizer of one's own is named in the recipe and brought by the program. The run
//! folder says so, what it learns is part of every checkpoint, and nobody else can go on with the run:
//!
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! use heirloom::regularize::{Needs, Row, Target, ln_softmax, softmax};
//! use heirloom::{Places, Training, generated};
//!
//! /// Cross-entropy with the label, and nothing at all where the student is sure of it already.
//! #[derive(Debug)]
//! struct EnoughIsEnough;
//!
//! impl Target for EnoughIsEnough {
//!     fn needs(&self) -> Needs {
//!         Needs { label: true, ..Needs::default() }
//!     }
//!
//!     fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
//!         d_logits.fill(0.0);
//!         let Some(label) = row.label else { return 0.0 };
//!         let ln_p = ln_softmax(row.logits, 1.0)[label];
//!         if ln_p > -0.1 {
//!             return 0.0;
//!         }
//!         d_logits.copy_from_slice(&softmax(row.logits, 1.0));
//!         d_logits[label] -= 1.0;
//!         -ln_p
//!     }
//! }
//!
//! generated::write(folder, 1, 96, 32)?;
//! let own = "objective.regularizer={ method = \"own\", called = \"enough\" }";
//! let recipe = generated::recipe(&["training.epochs=1", own])?;
//! let training = Training::new(&recipe, &Places::at(folder), &folder.join("run"))?;
//! let refused = training.run(&mut ()).unwrap_err();
//! assert!(refused.message.contains("brings `enough`, and this one brings none"), "{refused}");
//! training.with_regularizer("enough", || EnoughIsEnough).run(&mut ())?;
//! # Ok::<(), heirloom::Failure>(())
//! ```
//!
//! Steps can be taken one by one, in memory:
//!
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! use heirloom::{Places, Training, generated};
//!
//! generated::write(folder, 1, 96, 32)?;
//! let recipe = generated::recipe(&["training.epochs=1"])?;
//! let training = Training::new(&recipe, &Places::at(folder), &folder.join("run"))?;
//! let mut trainer = training.trainer()?;
//! while !trainer.progress().finished {
//!     let record = trainer.step()?;
//!     assert!(record.loss.is_finite() && record.tokens > 0);
//! }
//! assert!(!folder.join("run").exists());
//! # Ok::<(), heirloom::Failure>(())
//! ```
//!
//! # What is where
//!
//! The way of the data: `recipe.toml` → [`recipe::Recipe`] → [`recipe::Plan`] →
//! [`data::pack::Batch`] → outputs ([`models::Model`]) → [`objective::Objective`] → (state, record)
//! ([`train::Trainer`]) → run folder ([`train::RunFolder`]). Each crate knows those above it alone:
//!
//! | crate | holds |
//! |---|---|
//! | [`base`] | units, digests, random words with an address |
//! | [`store`] | the disk: folders that are whole or absent, locks, records, safetensors |
//! | [`recipe`] | TOML into plans, all problems at once, memory foreseen |
//! | [`engine`] | numerics: devices, views, parameters, operations forward and backward |
//! | [`balance`] | policies that weigh label and teacher, sample by sample |
//! | [`regularize`] | what a label becomes before it is learnt: losses on a row, and their targets |
//! | [`data`] | sources, tokens, order, packed batches; text and conversations for language models |
//! | [`models`] | encoders, decoders and heads in the layout of Hugging Face |
//! | [`objective`] | from logits, labels and teachers to sums with counts, and gradients |
//! | [`answers`] | a language model teacher's answers on disk |
//! | [`growth`] | a model into a larger one: plans, operators, predictions |
//! | [`train`] | the step, the state that survives a crash, the loop, the run folder |
//! | [`report`] | metrics, calibration, comparison, tables |
//!
//! The modules of this crate open what recipes name and put the crates together; every one of their
//! errors is a [`Failure`], with the exit code that the command ends with.

pub use heirloom_answers as answers;
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
pub mod elsewhere;
pub mod examine;
pub mod explain;
pub mod failure;
pub mod gather;
pub mod generated;
pub mod given;
pub mod grow;
pub mod judge;
pub mod language;
pub mod opened;
pub mod places;
pub mod prepared;
pub mod process;
pub mod processor;
pub mod second_set;
pub mod training;

pub use failure::Failure;
pub use places::Places;
pub use training::{Ended, Training, Watch};
