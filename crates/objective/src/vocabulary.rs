//! A teacher whose vocabulary is not the student's: over which tokens the two are compared.

use heirloom_engine::{Ids, Target, View};

/// The teacher's vocabulary, where it is another than the student's.
#[derive(Clone, Copy, Debug)]
pub struct TeacherVocabulary {
    /// Vₜ, columns of the teacher's logits.
    pub size: usize,
    /// The teacher's number of each of the student's tokens, or
    /// [`IGNORED`](heirloom_engine::IGNORED) where it has none, `[V]`.
    ///
    /// A divergence is then between the two distributions over the tokens that both have, each
    /// renormalised: `q̂ = q / Σ q` and `p̂ = p / Σ p` over these, as if all other logits of both
    /// sides were −∞. The loss of labels still sees the student's whole vocabulary. At least one
    /// token must be shared, and a row needs one that the teacher allows.
    ///
    /// `None` where the two are compared by rank alone ([`SortedTerm`]).
    pub shared: Option<Ids>,
}

/// Probabilities of student and teacher compared by rank, whatever tokens they belong to: universal
/// logit distillation (Boizard et al. 2024, arXiv:2402.12030, eq. 3), `Σₖ |q₍ₖ₎ − p₍ₖ₎|`, which is
/// twice the Wasserstein distance where each token costs the same to leave. In `0.0..=2.0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SortedTerm {
    /// T, positive, of both sides. The loss carries no T².
    pub temperature: f64,
    /// How many ranks are compared one by one; the others of a side count as one sum. See
    /// [`Target::Sorted`] for what that loses.
    pub top: usize,
}

impl SortedTerm {
    /// The engine's target.
    pub(crate) fn target(self, logits: View) -> Target {
        let Self { temperature, top } = self;
        Target::Sorted { logits, temperature, factor: 1.0, top }
    }
}
