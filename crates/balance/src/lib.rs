//! Balance: how much each sample learns from its label and how much from its teacher.
//!
//! In: what is known of the samples of a step: their losses, labels, the student's and the
//! teacher's logits, and, where a policy learns from a second set, how far each loss would help
//! there. Out: a weight per sample and term. Never: a gradient through a weight (weights are
//! constants of the step they are used in), a device, a file.
//!
//! One policy per file, each with its source. All are functions on rows of numbers, tested by hand.
//!
//! With `ℓ₁`, `ℓ₂` the label's and the teacher's loss of a sample, `s` and `t` their distributions,
//! `A₁`, `A₂` the alignments of the two losses with a second set's gradient, and the sample's loss
//! `w₁ℓ₁ + w₂ℓ₂`:
//!
//! | policy | (w₁, w₂) | source | needs |
//! |---|---|---|---|
//! | [`Fixed`] | (1 − α, α) | Hinton et al. 2015 | |
//! | [`Schedule`] | (1 − α(t), α(t)) | Clark et al. 2019 | |
//! | [`AnnealingKd`] | (0, 1) with the teacher's logits times i/T_max, then (1, 0) | Jafari et al. 2021 | squared error on logits |
//! | [`ContinuationKd`] | (1 − ψ, ψ·\[‖z − φu‖² > m\]), the teacher's logits times φ | Jafari et al. 2022 | squared error on logits |
//! | [`Uncertainty`] | exp(−a) of each, `a` down Σ exp(−a)L + a/2 | Kendall et al. 2018 | mean losses |
//! | [`GradNorm`] | w down Σ \|w‖∇L‖ − Ḡ rᵅ\|, sum 2 | Chen et al. 2018 | features, mean losses |
//! | [`Wsl`] | (1, α(1 − exp(−CE(y, s)/CE(y, t)))) | Zhou et al. 2021 | |
//! | [`AdaKd`] | (1 − λ, λ), λ = max(0, t_y − mean of the other t) | Lukasik et al. 2021 | |
//! | [`DynamicKd`] | (1 − α, α·H(s)/ln K), or the most uncertain part alone | Li et al. 2021 | for the batch's forms, a step at once |
//! | [`Ctkd`] | (1 − α, α) at T = t₀ + t₁σ(ρ), ρ up T²KL | Li et al. 2023 | |
//! | [`RwKd`] | max(A, δ) over the sample's sum | Lu et al. 2021 | alignments |
//! | [`L2rw`] | (1 − α, α)·max(0, (1 − α)A₁ + αA₂) over the batch's mean | Ren et al. 2018 | alignments |
//! | [`MetaWeightNet`] | σ of a network of (ℓ₁, ℓ₂) or of the teacher's logits | Shu et al. 2019 | alignments |
//! | [`TgeoKd`] | (1 − λ, λ), λ = σ of a network of s, t, label, class mean | Hu et al. 2024 | alignments |
//!
//! Of several teachers each has a term of its own: [`Uncertainty`], [`GradNorm`] and [`RwKd`] weigh
//! them apart, and [`Parted`] cuts the teacher's weight of [`Fixed`] or [`Schedule`] among them. The
//! others know one teacher.
//!
//! A sample without a label has no label's loss. Where a policy decides sample by sample, its label
//! weighs 0 there, and each file says what the teacher's weight is; the weights that are the same
//! for all stand for such a sample too, and its label's is to be ignored.

mod ada_kd;
mod annealing_kd;
mod continuation_kd;
mod controller;
mod ctkd;
mod dynamic_kd;
mod fixed;
mod gradnorm;
mod l2rw;
mod last_layer;
mod memory;
mod meta_weight_net;
mod network;
mod parted;
mod policy;
mod rows;
mod rw_kd;
mod samples;
mod schedule;
mod summary;
mod tgeo_kd;
mod uncertainty;
mod wsl;

pub use ada_kd::AdaKd;
pub use annealing_kd::AnnealingKd;
pub use continuation_kd::ContinuationKd;
pub use controller::Output;
pub use ctkd::Ctkd;
pub use dynamic_kd::{Adoption, Doubt, DynamicKd};
pub use fixed::Fixed;
pub use gradnorm::GradNorm;
pub use l2rw::L2rw;
pub use last_layer::{
    LastLayer, label_gradient, last_layer_alignments, teacher_gradient, temperature_slope,
};
pub use memory::Memory;
pub use meta_weight_net::{MetaWeightNet, Sight};
pub use network::{Adam, Pace, Pacing};
pub use parted::Parted;
pub use policy::{Needs, Policy, Restored};
pub use rw_kd::{Normalize, RwKd};
pub use samples::{Alignments, At, Decision, LABEL, Samples, TEACHER};
pub use schedule::{Course, Schedule};
pub use summary::{Summary, separation};
pub use tgeo_kd::TgeoKd;
pub use uncertainty::Uncertainty;
pub use wsl::Wsl;
