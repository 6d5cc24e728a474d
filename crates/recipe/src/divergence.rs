//! The teacher's term: how far the student's distribution is from the teacher's.
//!
//! In: the keys `divergence` and `divergence_…` of `[objective]`. Out: [`Divergence`], what is said
//! about keys without effect, and the formula in numbers. Never: computes one; the engine does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::choices::DivergenceKind;
use crate::decide::{needs, value, wrong};
use crate::problem::{Place, ProblemKind, Problems};
use crate::recipe::{At, Objective};

/// A divergence with its parameters: p the teacher's distribution, q the student's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// `KL(p ‖ q)`.
    #[default]
    ForwardKl,
    /// `KL(q ‖ p)`.
    ReverseKl,
    /// The mean of the two.
    SymmetricKl,
    /// `β KL(p ‖ m) + (1 − β) KL(q ‖ m)`, `m = β p + (1 − β) q`.
    JensenShannon {
        /// β, above 0 and below 1.
        beta: f64,
    },
    /// `KL(p ‖ α p + (1 − α) q)`.
    SkewKl {
        /// α, from 0 to below 1.
        alpha: f64,
    },
    /// `KL(q ‖ (1 − α) p + α q)`.
    SkewReverseKl {
        /// α, from 0 to below 1.
        alpha: f64,
    },
    /// The α-β divergence.
    AlphaBeta {
        /// α, from 0.
        alpha: f64,
        /// β, from 0.
        beta: f64,
    },
    /// `½ Σ |p − q|`.
    TotalVariation,
    /// Label against the rest, and the rest by itself, weighed apart.
    Dkd {
        /// Weight of the first.
        alpha: f64,
        /// Weight of the second.
        beta: f64,
    },
    /// Mean squared difference of the logits.
    MseLogits {
        /// Whether each side's mean is taken from it first.
        centred: bool,
    },
}

impl Divergence {
    /// Whether it is what a plan means that does not say. Plans of forward runs are then those of
    /// the versions that had nothing else, with their digests.
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// What is written, with the usual parameters where they are not.
pub(crate) fn divergence(objective: &Objective) -> Divergence {
    let alpha = |usual| value(&objective.divergence_alpha).unwrap_or(usual);
    let beta = |usual| value(&objective.divergence_beta).unwrap_or(usual);
    match objective.divergence() {
        DivergenceKind::ForwardKl => Divergence::ForwardKl,
        DivergenceKind::ReverseKl => Divergence::ReverseKl,
        DivergenceKind::SymmetricKl => Divergence::SymmetricKl,
        DivergenceKind::JensenShannon => Divergence::JensenShannon { beta: beta(0.5) },
        // The α of DistiLLM, the (α, β) of ABKD, those of decoupled distillation: the papers' own.
        DivergenceKind::SkewKl => Divergence::SkewKl { alpha: alpha(0.1) },
        DivergenceKind::SkewReverseKl => Divergence::SkewReverseKl { alpha: alpha(0.1) },
        DivergenceKind::AlphaBeta => Divergence::AlphaBeta { alpha: alpha(0.2), beta: beta(0.7) },
        DivergenceKind::TotalVariation => Divergence::TotalVariation,
        DivergenceKind::Dkd => Divergence::Dkd { alpha: alpha(1.0), beta: beta(8.0) },
        DivergenceKind::MseLogits => {
            Divergence::MseLogits { centred: value(&objective.divergence_centred).unwrap_or(true) }
        }
    }
}

/// Says so where a key changes nothing, or is out of its divergence's range. `without` is what all
/// of them need where there is no distribution to compare.
pub(crate) fn check(objective: &Objective, without: Option<&str>, problems: &mut Problems) {
    use DivergenceKind::{AlphaBeta, Dkd, JensenShannon, MseLogits, SkewKl, SkewReverseKl};
    let kind = objective.divergence();
    let one_of = |kinds: &[DivergenceKind]| {
        let rest: Vec<String> = kinds[1..].iter().map(|kind| format!("`\"{kind}\"`")).collect();
        let others = match rest.split_last() {
            Some((last, [])) => format!(" or {last}"),
            Some((last, some)) => format!(", {} or {last}", some.join(", ")),
            None => String::new(),
        };
        (!kinds.contains(&kind)).then(|| format!("`divergence = \"{}\"`{others}", kinds[0]))
    };
    let softened = (kind == MseLogits)
        .then(|| "another `divergence`; mse_logits compares logits as they are".to_owned());
    let (alpha, beta) = (&objective.divergence_alpha, &objective.divergence_beta);
    let keys = [
        ("temperature", place(&objective.temperature), softened.clone()),
        ("scale_by_temperature_squared", place(&objective.scale_by_temperature_squared), softened),
        ("divergence", place(&objective.divergence), None),
        ("divergence_alpha", place(alpha), one_of(&[SkewKl, SkewReverseKl, AlphaBeta, Dkd])),
        ("divergence_beta", place(beta), one_of(&[JensenShannon, AlphaBeta, Dkd])),
        ("divergence_centred", place(&objective.divergence_centred), one_of(&[MseLogits])),
    ];
    for (key, place, needed) in keys {
        let needed = without.map(str::to_owned).or(needed);
        if let (Some(place), Some(needs)) = (place, needed) {
            let key = format!("objective.{key}");
            problems.push(place.clone(), ProblemKind::Needs { key, needs });
        }
    }
    let skewed = matches!(kind, SkewKl | SkewReverseKl);
    if let Some(at) = alpha.as_ref().filter(|at| skewed && at.value >= 1.0) {
        let expected = format!("a number from 0 to below 1 for {kind}");
        let found = at.value.to_string();
        wrong(at, "objective.divergence_alpha", found, expected, None, problems);
    }
    let inside = |x: f64| x > 0.0 && x < 1.0;
    if let Some(at) = beta.as_ref().filter(|at| kind == JensenShannon && !inside(at.value)) {
        let expected = "a number above 0 and below 1 for jensen_shannon, whose ends are forward_kl \
                        and reverse_kl";
        let (found, expected) = (at.value.to_string(), expected.to_owned());
        wrong(at, "objective.divergence_beta", found, expected, None, problems);
    }
}

fn place<T>(at: &Option<At<T>>) -> Option<&Place> {
    at.as_ref().map(|at| &at.place)
}

/// Says so where the labels leave a weight without effect, which only the data tell.
pub(crate) fn check_labels(objective: &Objective, labels: usize, problems: &mut Problems) {
    if objective.divergence() == DivergenceKind::Dkd && labels == 2 {
        let needed = "three labels or more; over two, dkd is `divergence_alpha` times forward_kl";
        if let Some(at) = &objective.divergence_beta {
            needs(at, "objective.divergence_beta", needed, problems);
        }
    }
}

/// The formula, in numbers.
impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ForwardKl => f.write_str("KL(p ‖ q)"),
            Self::ReverseKl => f.write_str("KL(q ‖ p)"),
            Self::SymmetricKl => f.write_str("(½ KL(p ‖ q) + ½ KL(q ‖ p))"),
            Self::JensenShannon { beta } => {
                let rest = rounded(1.0 - beta);
                write!(f, "({beta} KL(p ‖ m) + {rest} KL(q ‖ m)), m = {beta} p + {rest} q,")
            }
            Self::SkewKl { alpha } => {
                write!(f, "KL(p ‖ {alpha} p + {} q)", rounded(1.0 - alpha))
            }
            Self::SkewReverseKl { alpha } => {
                write!(f, "KL(q ‖ {} p + {alpha} q)", rounded(1.0 - alpha))
            }
            Self::AlphaBeta { alpha: 0.0, beta: 0.0 } => f.write_str("½ Σ (ln p − ln q)²"),
            Self::AlphaBeta { alpha: a, beta: 0.0 } => {
                write!(f, "Σ ({a} p^{a} ln(p/q) − p^{a} + q^{a})/{}", rounded(a * a))
            }
            Self::AlphaBeta { alpha: 0.0, beta: b } => {
                write!(f, "Σ ({b} q^{b} ln(q/p) − q^{b} + p^{b})/{}", rounded(b * b))
            }
            Self::AlphaBeta { alpha, beta } => {
                let (sum, both) = (rounded(alpha + beta), rounded(alpha * beta));
                let (of_p, of_q) = (rounded(beta * sum), rounded(alpha * sum));
                write!(f, "Σ (p^{sum}/{of_p} + q^{sum}/{of_q} − p^{alpha} q^{beta}/{both})")
            }
            Self::TotalVariation => f.write_str("½ Σ |p − q|"),
            Self::Dkd { alpha, beta } => write!(
                f,
                "({alpha} KL of the label against the rest + {beta} KL within the rest), KL(p ‖ q) \
                 without a label,"
            ),
            Self::MseLogits { centred } => {
                let centred = if centred { ", each side less its mean" } else { "" };
                write!(f, "mean squared difference from the teacher's logits{centred}")
            }
        }
    }
}

/// As it would be written: 1 − 0.9 is 0.09999999999999998 in binary.
pub(crate) fn rounded(x: f64) -> f64 {
    (x * 1e12).round() / 1e12
}
