//! What the label becomes before the student learns from it, with all its numbers.
//!
//! In: `[objective.regularizer]`, and the keys it must go together with. Out: a
//! [`RegularizerPlan`], the formula of its target, and what is said about keys without effect.
//! Never: computes a target; `heirloom-regularize` does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::choices::{RegularizerKind, Smoothed, Softening, TaskKind};
use crate::decide::{missing, needs, value};
use crate::problem::{Place, ProblemKind, Problems};
use crate::recipe::{At, Recipe, Regularizer};
use crate::task::kind;

use RegularizerKind::{
    Bootstrap, ConfidencePenalty, Entropic, GeneralizedEntropy, LabelSmoothing, Labo, Margin,
    MaxSup, OnlineLabelSmoothing, Prior, TfKd, Zipf,
};

/// A number that goes from its first value to its last in a line over the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// At the first step.
    pub from: f64,
    /// At the last.
    pub to: f64,
}

impl Line {
    /// The number at `progress`, `0.0..=1.0`, of the run.
    ///
    /// ```
    /// let line = heirloom_recipe::Line { from: 1.0, to: 3.0 };
    /// assert_eq!([line.at(0.0), line.at(0.5), line.at(1.0)], [1.0, 2.0, 3.0]);
    /// ```
    pub fn at(self, progress: f64) -> f64 {
        self.from + (self.to - self.from) * progress
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            return write!(f, "{}", self.from);
        }
        write!(f, "({} → {})", self.from, self.to)
    }
}

/// A label regularizer and its numbers; see `heirloom-regularize` for what each does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "method")]
pub enum RegularizerPlan {
    /// A share of the label spread over classes.
    LabelSmoothing {
        /// ε, `0.0..=1.0`.
        alpha: Line,
        /// Over which.
        smoothed: Smoothed,
    },
    /// A share of the label spread as the training set's classes are.
    Prior {
        /// The share, `0.0..=1.0`.
        alpha: Line,
    },
    /// The entropy of the answer, rewarded.
    ConfidencePenalty {
        /// β, from 0.
        weight: Line,
    },
    /// A skewed divergence from the uniform answer.
    GeneralizedEntropy {
        /// β, from 0.
        weight: Line,
        /// The skew, between 0 and 1.
        skew: f64,
    },
    /// A teacher made by hand.
    TfKd {
        /// Its share, `0.0..=1.0`.
        alpha: Line,
        /// Its probability of the label before it is softened, between 0 and 1.
        peak: f64,
        /// T, above 0.
        temperature: f64,
        /// What T softens.
        softening: Softening,
    },
    /// The mean of right answers for the label's class.
    OnlineLabelSmoothing {
        /// Its share, `0.0..=1.0`.
        alpha: Line,
    },
    /// A divergence from Zipf's law over the other classes, by their rank.
    Zipf {
        /// λ, from 0.
        weight: Line,
    },
    /// A penalty on logits far below the largest.
    Margin {
        /// Its weight, from 0.
        weight: Line,
        /// How far is free, in logits, from 0.
        margin: f64,
    },
    /// A penalty on the largest logit above the mean.
    MaxSup {
        /// Its weight, from 0.
        weight: Line,
    },
    /// A share of the answer itself.
    Bootstrap {
        /// The share, `0.0..=1.0`.
        alpha: Line,
        /// The most probable class alone.
        hard: bool,
    },
    /// A share of the answer, softened.
    Labo {
        /// The share, `0.0..=1.0`.
        alpha: Line,
        /// τ, from 1.
        temperature: Line,
    },
    /// A share of the best compromise between the answer and chosen distributions.
    Entropic {
        /// The share, `0.0..=1.0`.
        alpha: Line,
        /// Strength of the uniform distribution, from 0.
        uniform: f64,
        /// Of the teacher's, from 0.
        teacher: f64,
        /// Of the training set's classes, from 0.
        prior: f64,
    },
}

impl RegularizerPlan {
    /// The label's loss as a formula, and after `; ` what its letters stand for: y the label, s the student's distribution, z its logits, t the
    /// teacher's distribution, K the number of classes, CE(q, s) = −Σ q ln s.
    pub fn formula(&self) -> String {
        let mixed =
            |alpha: &Line, what: &str| format!("CE(q, s); q = {} y + {alpha} {what}", Rest(*alpha));
        match self {
            Self::LabelSmoothing { alpha, smoothed: Smoothed::All } => mixed(alpha, "(1/K)"),
            Self::LabelSmoothing { alpha, smoothed: Smoothed::Others } => {
                mixed(alpha, "(1 − y)/(K − 1)")
            }
            Self::Prior { alpha } => mixed(alpha, "π, π the classes' shares of the training set"),
            Self::ConfidencePenalty { weight } => format!("CE(y, s) − {weight} H(s)"),
            Self::GeneralizedEntropy { weight, skew } => {
                format!("CE(y, s) + {weight} J(1/K, s); J the Jensen divergence of skew {skew}")
            }
            Self::TfKd { alpha, peak, temperature, softening } => {
                let softened = match softening {
                    Softening::Logits => "softmax(ln p / T)",
                    Softening::Probabilities => "softmax(p / T)",
                };
                format!(
                    "{} CE(y, s) + {alpha} CE({softened}, s); T = {temperature}, p = {peak} at y, \
                     else equal",
                    Rest(*alpha)
                )
            }
            Self::OnlineLabelSmoothing { alpha } => {
                mixed(alpha, "m(y), m(y) the mean of s where y was answered rightly, last pass")
            }
            Self::Zipf { weight } => {
                format!("CE(y, s) + {weight} KL(ζ‖s without y); ζ ∝ 1/rank of the other classes")
            }
            Self::Margin { weight, margin } => {
                format!("CE(y, s) + {weight} mean(max(0, max z − z − {margin}))")
            }
            Self::MaxSup { weight } => format!("CE(y, s) + {weight} (max z − mean z)"),
            Self::Bootstrap { alpha, hard: false } => {
                format!("CE(q, s); q = {} y + {alpha} s, s differentiated too", Rest(*alpha))
            }
            Self::Bootstrap { alpha, hard: true } => mixed(alpha, "onehot(argmax s)"),
            Self::Labo { alpha, temperature } => {
                mixed(alpha, &format!("softmax(z/{temperature}), not differentiated"))
            }
            Self::Entropic { alpha, uniform, teacher, prior } => {
                let anchors = [("1/K", uniform), ("t", teacher), ("π", prior)];
                let present = anchors.iter().filter(|(_, strength)| **strength > 0.0);
                let product: Vec<String> =
                    present.map(|(name, strength)| format!("({name})^{strength}")).collect();
                let sum = uniform + teacher + prior;
                mixed(
                    alpha,
                    &format!("(s · {})^(1/{sum})/Z, not differentiated", product.join(" · ")),
                )
            }
        }
    }

    /// Whether the teacher's answer is a part of the target.
    pub fn needs_teacher(&self) -> bool {
        matches!(self, Self::Entropic { teacher, .. } if *teacher > 0.0)
    }
}

/// `1 − α`, in words.
struct Rest(Line);

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] =
            [self.0.from, self.0.to].map(|share| crate::divergence::rounded(1.0 - share));
        write!(f, "{}", Line { from, to })
    }
}

impl Recipe {
    /// The regularizer with all its numbers; `None` where the recipe names none.
    pub fn regularizer(&self) -> Option<RegularizerPlan> {
        let keys = value(&self.objective.regularizer)?;
        Some(plan(value(&keys.method)?, &keys))
    }
}

fn line(from: &Option<At<f64>>, to: &Option<At<f64>>, usual: f64) -> Line {
    let from = value(from).unwrap_or(usual);
    Line { from, to: value(to).unwrap_or(from) }
}

fn plan(method: RegularizerKind, keys: &Regularizer) -> RegularizerPlan {
    let alpha = |usual| line(&keys.alpha, &keys.alpha_end, usual);
    let weight = line(&keys.weight, &keys.weight_end, 0.1);
    match method {
        LabelSmoothing => {
            RegularizerPlan::LabelSmoothing { alpha: alpha(0.1), smoothed: keys.smoothed() }
        }
        Prior => RegularizerPlan::Prior { alpha: alpha(0.1) },
        ConfidencePenalty => RegularizerPlan::ConfidencePenalty { weight },
        GeneralizedEntropy => RegularizerPlan::GeneralizedEntropy { weight, skew: keys.skew() },
        TfKd => RegularizerPlan::TfKd {
            alpha: alpha(0.9),
            peak: keys.peak(),
            temperature: value(&keys.temperature).unwrap_or(20.0),
            softening: keys.softening(),
        },
        OnlineLabelSmoothing => RegularizerPlan::OnlineLabelSmoothing { alpha: alpha(0.5) },
        Zipf => RegularizerPlan::Zipf { weight },
        Margin => RegularizerPlan::Margin { weight, margin: keys.margin() },
        MaxSup => RegularizerPlan::MaxSup { weight },
        Bootstrap => RegularizerPlan::Bootstrap { alpha: alpha(0.05), hard: keys.hard() },
        Labo => RegularizerPlan::Labo {
            alpha: alpha(0.5),
            temperature: line(&keys.temperature, &keys.temperature_end, 2.0),
        },
        Entropic => RegularizerPlan::Entropic {
            alpha: alpha(0.5),
            uniform: keys.uniform(),
            teacher: keys.teacher(),
            prior: keys.prior(),
        },
    }
}

/// Methods with a share of a distribution.
const SHARES: &[RegularizerKind] =
    &[LabelSmoothing, Prior, TfKd, OnlineLabelSmoothing, Bootstrap, Labo, Entropic];

/// Methods that add a penalty.
const PENALTIES: &[RegularizerKind] =
    &[ConfidencePenalty, GeneralizedEntropy, Zipf, Margin, MaxSup];

/// Says so where the regularizer cannot work, and where a key changes nothing.
pub(crate) fn check(recipe: &Recipe, problems: &mut Problems) {
    let Some(at) = &recipe.objective.regularizer else { return };
    let here = "objective.regularizer";
    if kind(recipe).is_some_and(|kind| kind != TaskKind::Classification) {
        let needed = "`task.kind = \"classification\"`, as it changes one label among classes";
        needs(at, here, needed, problems);
    }
    let keys = &at.value;
    let Some(method) = &keys.method else {
        let place = keys.place.clone().unwrap_or(Place::Whole);
        let meaning = "what the label becomes, such as \"labo\"; or remove [objective.regularizer]";
        return missing(place, "objective.regularizer.method", meaning, problems);
    };
    check_keys(keys, method.value, problems);
    let name = |key: &str| format!("{here}.{key}");
    if method.value == Labo {
        let cold = [("temperature", &keys.temperature), ("temperature_end", &keys.temperature_end)];
        for (key, at) in cold {
            if let Some(at) = at.as_ref().filter(|at| at.value < 1.0) {
                let needed = "a number of at least 1; below it labo would sharpen what the student \
                              already believes";
                needs(at, &name(key), needed, problems);
            }
        }
    }
    if method.value == Entropic {
        let sum = keys.uniform() + keys.teacher() + keys.prior();
        if sum <= 0.0 {
            let needed = "a strength above 0 in `uniform`, `teacher` or `prior`";
            needs(method, &name("method"), needed, problems);
        }
        if let Some(at) = &keys.teacher
            && at.value > 0.0
            && recipe.teacher.place.is_none()
        {
            needs(at, &name("teacher"), "a `[teacher]`, whose distribution it is", problems);
        }
    }
}

/// Names keys that the method leaves without effect.
fn check_keys(keys: &Regularizer, method: RegularizerKind, problems: &mut Problems) {
    let belong: [(&str, Option<&Place>, &[RegularizerKind]); 14] = [
        ("alpha", place(&keys.alpha), SHARES),
        ("alpha_end", place(&keys.alpha_end), SHARES),
        ("weight", place(&keys.weight), PENALTIES),
        ("weight_end", place(&keys.weight_end), PENALTIES),
        ("temperature", place(&keys.temperature), &[TfKd, Labo]),
        ("temperature_end", place(&keys.temperature_end), &[Labo]),
        ("smoothed", place(&keys.smoothed), &[LabelSmoothing]),
        ("skew", place(&keys.skew), &[GeneralizedEntropy]),
        ("peak", place(&keys.peak), &[TfKd]),
        ("softening", place(&keys.softening), &[TfKd]),
        ("margin", place(&keys.margin), &[Margin]),
        ("hard", place(&keys.hard), &[Bootstrap]),
        ("uniform", place(&keys.uniform), &[Entropic]),
        ("teacher", place(&keys.teacher), &[Entropic]),
    ];
    let prior: (&str, Option<&Place>, &[RegularizerKind]) =
        ("prior", place(&keys.prior), &[Entropic]);
    for (key, place, methods) in belong.into_iter().chain([prior]) {
        if let Some(place) = place.filter(|_| !methods.contains(&method)) {
            let names: Vec<String> = methods.iter().map(|kind| format!("\"{kind}\"")).collect();
            let needs = format!("`method` to be one of {}", names.join(", "));
            let key = format!("objective.regularizer.{key}");
            problems.push(place.clone(), ProblemKind::Needs { key, needs });
        }
    }
}

fn place<T>(at: &Option<At<T>>) -> Option<&Place> {
    at.as_ref().map(|at| &at.place)
}
