//! Optimiser steps of tiny runs: how a step is cut, what is not finite, and the learning rate.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

mod averages;
mod cutting;
mod groups;
mod growing;
mod masking;
mod nonfinite;
mod own;
mod recomputing;
mod regularizing;
mod schedule;
mod teachers;
mod tiny;
mod trying;
mod words;
