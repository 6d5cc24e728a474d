//! What the label becomes before the student learns from it, with all its numbers.
//!
//! In: `[objective.regularizer]`, and the keys it must go together with. Out: a
//! [`RegularizerPlan`], the formula of its target, and what is said about keys without effect.
//! Never: computes a target; `heirloom-regularize` does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::balance::{Estimator, MetaLoss, MetaPlan, MetaSource};
use crate::choices::{MetaAt, MetaFrom, RegularizerKind, Schedule, Smoothed, Softening, TaskKind};
use crate::decide::{LARGEST_STEP, missing, needs, value, wrong};
use crate::policy::check_path;
use crate::problem::{Place, ProblemKind, Problems};
use crate::recipe::{At, Recipe, Regularizer};
use crate::task::kind;

use RegularizerKind::{
    Bootstrap, ConfidencePenalty, Entropic, GeneralizedEntropy, LabelSmoothing, Labo, LearnedLabo,
    LearnedSmoothing, Margin, MaxSup, OnlineLabelSmoothing, Own, PerClass, PerInstance, Prior,
    TfKd, Zipf,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Label smoothing whose share is learnt.
    LearnedSmoothing {
        /// The share at first, between 0 and 1.
        alpha: f64,
        /// How it learns.
        learning: Learning,
    },
    /// LABO whose share and temperature are learnt.
    LearnedLabo {
        /// The share at first, between 0 and 1.
        alpha: f64,
        /// τ at first, above 1.
        temperature: f64,
        /// How both learn.
        learning: Learning,
    },
    /// A distribution for each label, learnt.
    PerClass {
        /// What it begins with: label smoothing of this share, above 0.
        alpha: f64,
        /// How it learns.
        learning: Learning,
    },
    /// A distribution for each example by a network of what the classifier sees and the label.
    PerInstance {
        /// How it learns.
        learning: Learning,
    },
    /// A loss that a program brings with the library.
    Own {
        /// Its name.
        called: String,
    },
}

/// How a learnt target moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learning {
    /// Step size, above 0.
    pub learning_rate: f64,
    /// Decay per step, times the step size; from 0.
    pub weight_decay: f64,
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
            Self::LearnedSmoothing { alpha, learning } => format!(
                "CE(q, s); q = (1 − ε) y + ε (1/K), ε learnt from {alpha}{}",
                at_rate(learning)
            ),
            Self::LearnedLabo { alpha, temperature, learning } => format!(
                "CE(q, s); q = (1 − α) y + α softmax(z/τ), not differentiated, α learnt from {alpha} \
                 and τ from {temperature}{}",
                at_rate(learning)
            ),
            Self::PerClass { alpha, learning } => format!(
                "CE(q, s); q = softmax(φ(y)), φ learnt from smoothing by {alpha}{}",
                at_rate(learning)
            ),
            Self::PerInstance { learning } => format!(
                "CE(q, s); q a network of the example's features and y, learnt{}",
                at_rate(learning)
            ),
            Self::Own { called } => {
                format!("L(y, z); L the regularizer `{called}`, which the program brings")
            }
        }
    }

    /// Whether the target is learnt from a second set.
    pub fn learns(&self) -> bool {
        matches!(
            self,
            Self::LearnedSmoothing { .. }
                | Self::LearnedLabo { .. }
                | Self::PerClass { .. }
                | Self::PerInstance { .. }
        )
    }

    /// Whether the teacher's answer is a part of the target.
    pub fn needs_teacher(&self) -> bool {
        matches!(self, Self::Entropic { teacher, .. } if *teacher > 0.0)
    }
}

fn at_rate(learning: &Learning) -> String {
    let Learning { learning_rate, weight_decay } = learning;
    match weight_decay {
        0.0 => format!(" at rate {learning_rate}"),
        _ => format!(" at rate {learning_rate}, decay {weight_decay}"),
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

    /// The run's second set, whoever learns from it.
    pub fn meta(&self) -> Option<MetaPlan> {
        self.balance().and_then(|balance| balance.meta).or_else(|| self.regularizer_meta())
    }

    /// The second set that the regularizer learns from; `None` where it does not learn.
    pub fn regularizer_meta(&self) -> Option<MetaPlan> {
        let method = self.regularizer()?;
        let written = value(&value(&self.objective.regularizer)?.meta);
        let is_own = matches!(method, RegularizerPlan::Own { .. });
        let has_one = method.learns() || (is_own && written.is_some());
        if !has_one {
            return None;
        }
        let keys = written.unwrap_or_default();
        Some(MetaPlan {
            source: match keys.source() {
                MetaFrom::Split => MetaSource::Split(keys.split()),
                MetaFrom::Train => MetaSource::Train,
                MetaFrom::File => MetaSource::File(value(&keys.path).unwrap_or_default()),
            },
            batch_size: keys.batch_size(),
            every: keys.every(),
            warmup_steps: keys.warmup_steps(),
            // Held against plain labels: a target that judges itself would learn to say nothing.
            loss: MetaLoss::Hard,
            estimator: Estimator::FiniteDifference { radius: keys.radius() },
            preconditioner: keys.preconditioner(),
            at: MetaAt::Here,
            check: false,
            lr_scheduler_type: Schedule::Constant,
            max_grad_norm: 0.0,
        })
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
        LearnedSmoothing => RegularizerPlan::LearnedSmoothing {
            alpha: value(&keys.alpha).unwrap_or(0.1),
            learning: learning(keys, 0.01),
        },
        LearnedLabo => RegularizerPlan::LearnedLabo {
            alpha: value(&keys.alpha).unwrap_or(0.5),
            temperature: value(&keys.temperature).unwrap_or(2.0),
            learning: learning(keys, 0.01),
        },
        PerClass => RegularizerPlan::PerClass {
            alpha: value(&keys.alpha).unwrap_or(0.1),
            learning: learning(keys, 0.01),
        },
        PerInstance => RegularizerPlan::PerInstance { learning: learning(keys, 0.001) },
        Own => RegularizerPlan::Own { called: value(&keys.called).unwrap_or_default() },
    }
}

fn learning(keys: &Regularizer, usual: f64) -> Learning {
    let learning_rate = value(&keys.learning_rate).unwrap_or(usual);
    Learning { learning_rate, weight_decay: keys.weight_decay() }
}

/// Methods with a share of a distribution.
const SHARES: &[RegularizerKind] = &[
    LabelSmoothing,
    Prior,
    TfKd,
    OnlineLabelSmoothing,
    Bootstrap,
    Labo,
    Entropic,
    LearnedSmoothing,
    LearnedLabo,
    PerClass,
];

/// Methods whose share may go along a line.
const LINES: &[RegularizerKind] =
    &[LabelSmoothing, Prior, TfKd, OnlineLabelSmoothing, Bootstrap, Labo, Entropic];

/// Methods that learn from a second set.
const LEARN: &[RegularizerKind] = &[LearnedSmoothing, LearnedLabo, PerClass, PerInstance];

/// Methods that may have one; a program's own has it where the recipe says so.
const MAY_HAVE_A_SECOND_SET: &[RegularizerKind] =
    &[LearnedSmoothing, LearnedLabo, PerClass, PerInstance, Own];

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
    if method.value == Own && keys.called.is_none() {
        let meaning = "the name that the program gives its regularizer, such as \"nearby\"";
        missing(method.place.clone(), &name("called"), meaning, problems);
    }
    if LEARN.contains(&method.value) || (method.value == Own && keys.meta.is_some()) {
        check_learning(recipe, keys, method, problems);
    }
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

/// What a target that is learnt asks of its beginning and of the rest of the recipe.
fn check_learning(
    recipe: &Recipe,
    keys: &Regularizer,
    method: &At<RegularizerKind>,
    problems: &mut Problems,
) {
    let name = |key: &str| format!("objective.regularizer.{key}");
    if let Some(at) = keys.alpha.as_ref().filter(|at| at.value <= 0.0 || at.value >= 1.0) {
        let needed = "a number above 0 and below 1, as a share at an end could not be learnt";
        needs(at, &name("alpha"), needed, problems);
    }
    let cold = keys.temperature.as_ref().filter(|at| at.value <= 1.0);
    if let Some(at) = cold.filter(|_| method.value == LearnedLabo) {
        needs(at, &name("temperature"), "a number above 1, where it begins to learn", problems);
    }
    if recipe.balance().is_some_and(|balance| balance.meta.is_some()) {
        let needed = "a balance policy that learns from no second set, as a run has one such set; or \
                      a method that does not learn";
        needs(method, &name("method"), needed, problems);
    }
    let Some(meta) = &keys.meta else { return };
    let source = meta.value.source();
    if let Some(split) = meta.value.split.as_ref().filter(|_| source != MetaFrom::Split) {
        needs(split, &name("meta.split"), "`source = \"split\"`", problems);
    }
    match (&meta.value.path, source) {
        (Some(path), MetaFrom::File) => {
            check_path(recipe, path, &name("meta.path"), problems);
        }
        (Some(path), _) => needs(path, &name("meta.path"), "`source = \"file\"`", problems),
        (None, MetaFrom::File) => {
            let place = meta.value.place.clone().unwrap_or(Place::Whole);
            let meaning = "the file with the second set, in `task.path`";
            missing(place, &name("meta.path"), meaning, problems);
        }
        (None, _) => {}
    }
    if let Some(size) = meta.value.batch_size.as_ref().filter(|size| size.value > LARGEST_STEP) {
        let (found, expected) = (size.value.to_string(), format!("at most {LARGEST_STEP}"));
        wrong(size, &name("meta.batch_size"), found, expected, None, problems);
    }
}

/// Names keys that the method leaves without effect.
fn check_keys(keys: &Regularizer, method: RegularizerKind, problems: &mut Problems) {
    let belong: [(&str, Option<&Place>, &[RegularizerKind]); 18] = [
        ("called", place(&keys.called), &[Own]),
        ("alpha", place(&keys.alpha), SHARES),
        ("alpha_end", place(&keys.alpha_end), LINES),
        ("learning_rate", place(&keys.learning_rate), LEARN),
        ("weight_decay", place(&keys.weight_decay), LEARN),
        ("meta", place(&keys.meta), MAY_HAVE_A_SECOND_SET),
        ("weight", place(&keys.weight), PENALTIES),
        ("weight_end", place(&keys.weight_end), PENALTIES),
        ("temperature", place(&keys.temperature), &[TfKd, Labo, LearnedLabo]),
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
