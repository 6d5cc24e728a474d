//! The entropic family: the distribution near to the student and to anchors at once.
//!
//! For anchors `πₘ` with strengths `bₘ`, over distributions `P`,
//!
//! ```text
//! argmin CE(P, s) + Σ bₘ·KL(P ‖ πₘ) = softmax((ln s + Σ bₘ·ln πₘ) / Σ bₘ).
//! ```
//!
//! The even anchor with strength τ is the softened student of LABO (Lu et al. 2023,
//! arXiv:2305.04971); the teacher alone, with strength b, is `s^(1/b)·t` scaled to sum 1; a smoothed
//! label or a class's memory may stand beside them. A plain geometric mix of student and teacher,
//! `s^(1−λ)·t^λ`, is a [`GeometricMix`] with those exponents.

use crate::{GeometricMix, Schedule, SoftTarget, Student};

/// The minimum, as a geometric mix: student with exponent `1/Σb`, anchors with `bₘ/Σb`.
///
/// # Panics
/// Where a strength is negative or all are 0.
pub fn entropic(anchors: Vec<(f64, Box<dyn SoftTarget>)>) -> GeometricMix {
    let total: f64 = anchors.iter().map(|(strength, _)| strength).sum();
    let sound = total > 0.0 && anchors.iter().all(|&(strength, _)| strength >= 0.0);
    assert!(sound, "strengths of anchors are at least 0 and not all 0");
    let student: Box<dyn SoftTarget> = Box::new(Student { temperature: 1.0 });
    let scaled = anchors.into_iter().map(|(b, anchor)| (Schedule::from(b / total), anchor));
    let parts = std::iter::once((Schedule::from(1.0 / total), student)).chain(scaled).collect();
    GeometricMix { parts }
}
