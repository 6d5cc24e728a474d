//! How far the student's distribution is from the teacher's: the choices, and what each does where
//! a logarithm would not exist.

/// A distance of the student's distribution `q = softmax(x/T)` from the teacher's
/// `p = softmax(t/T)`, over the classes of one row, in nats. Not negative; 0 where the two are
/// equal, for parameters in the ranges given.
///
/// A class is *forbidden* by a side whose logit is −∞. One that both forbid counts nowhere: the
/// loss is that of the row without it. One that the teacher alone forbids has `p = 0`; where its
/// logarithm is asked for (reverse, symmetric, α-β) it is raised to the smaller of −103, about that
/// of the smallest number of `f32`, and `ln q`, as is that of every `p` below: reverse divergences
/// would be infinite there. One that the student alone forbids has an infinite loss by the
/// divergences that are infinite there. Squared differences of logits leave out what either side
/// forbids. A row needs one class that both allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// `KL(p ‖ q) = Σ p ln(p/q)` (Hinton et al. 2015, arXiv:1503.02531).
    ForwardKl,
    /// `KL(q ‖ p) = Σ q ln(q/p)` (MiniLLM; Gu et al. 2024, arXiv:2306.08543).
    ReverseKl,
    /// `½ KL(p ‖ q) + ½ KL(q ‖ p)`: half of Jeffreys' sum.
    Symmetric,
    /// `β KL(p ‖ m) + (1 − β) KL(q ‖ m)` with `m = β p + (1 − β) q` (GKD; Agarwal et al. 2024,
    /// arXiv:2306.13649). At β = ½ the divergence of Jensen and Shannon. It is 0 at β = 0 and
    /// β = 1; divided by β it tends to `KL(p ‖ q)` as β → 0, divided by 1 − β to `KL(q ‖ p)` as
    /// β → 1.
    JensenShannon {
        /// β, `0.0..=1.0`.
        beta: f64,
    },
    /// `KL(p ‖ α p + (1 − α) q)` (DistiLLM; Ko et al. 2024, arXiv:2402.03898). α = 0 is
    /// `KL(p ‖ q)`. At most `−ln α`.
    SkewKl {
        /// α, `0.0..=1.0`.
        alpha: f64,
    },
    /// `KL(q ‖ (1 − α) p + α q)` (the same paper). α = 0 is `KL(q ‖ p)`. At most `−ln α`.
    SkewReverseKl {
        /// α, `0.0..=1.0`.
        alpha: f64,
    },
    /// With `s = α + β`: `Σ p^s/(β s) + q^s/(α s) − p^α q^β/(α β)` (Cichocki, Cruces & Amari 2011,
    /// doi:10.3390/e13010134; for distillation ABKD; Wang et al. 2025, arXiv:2505.04560), and its
    /// limits where α, β or s is 0. (1, 0) is `KL(p ‖ q)`, (0, 1) is `KL(q ‖ p)`, (½, ½) is
    /// `2 Σ (√p − √q)²`, (0, 0) is `½ Σ (ln p − ln q)²`.
    ///
    /// Any finite α and β. Where one is negative the loss grows with a power of 1/p or 1/q and may
    /// leave the range of numbers.
    AlphaBeta {
        /// α: the larger, the less a class counts that the teacher finds unlikely.
        alpha: f64,
        /// β: the larger, the less a class counts that the student finds unlikely.
        beta: f64,
    },
    /// `½ Σ |p − q|`. Its slope at a class with `p = q` is taken to be 0.
    TotalVariation,
    /// `α KL((p_y, 1 − p_y) ‖ (q_y, 1 − q_y)) + β KL(p̂ ‖ q̂)`, where y is the row's label and p̂, q̂
    /// are the distributions over the other classes (decoupled distillation; Zhao et al. 2022,
    /// arXiv:2203.08679). α = 1 and β = 1 − p_y is `KL(p ‖ q)`, whichever class y is; with two
    /// classes the second part is 0. A row whose label is [`IGNORED`](crate::IGNORED) has
    /// `KL(p ‖ q)`: what the two parts come to before they are weighed apart. Where the teacher
    /// forbids every other class, the second part is 0.
    Decoupled {
        /// α, at least 0.
        alpha: f64,
        /// β, at least 0.
        beta: f64,
    },
    /// Mean over the K classes of `(x − t)²`, where `centred` each side less its mean over the
    /// classes (Ba & Caruana 2014, arXiv:1312.6184). The temperature has no part in it. Centred,
    /// half of it, `Σ (…)²/(2 K)`, is the limit of `T² KL(p ‖ q)` as T → ∞.
    MeanSquaredLogits {
        /// Whether a number added to all logits of a side changes nothing, as in a softmax.
        centred: bool,
    },
}

/// The least logarithm that a teacher's probability has where it is asked for: about that of the
/// smallest number above 0 of `f32`, 2⁻¹⁴⁹.
pub(crate) const LEAST_LN: f64 = -103.0;
