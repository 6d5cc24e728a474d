//! Growth in the middle of a run: what a recipe says of it, decided.
//!
//! In: `[[stage]]`. Out: when the student grows, by which method, to which sizes. Never: knows what a
//! method does; only the crate that grows does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::choices::{GrownMoments, RegularizerKind};
use crate::decide::{missing, needs, value, wrong};
use crate::group::Frozen;
use crate::plan::TrainingPlan;
use crate::problem::{Place, ProblemKind, Problems};
use crate::recipe::{At, Recipe, Stage};

/// One growth of the student.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// When it grows.
    pub when: When,
    /// By which method, by its name; [`LAG`] where several are tried.
    pub method: String,
    /// The methods that are tried, and how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// L.
    pub num_hidden_layers: Size,
    /// C.
    pub hidden_size: Size,
    /// Heads.
    pub num_attention_heads: Size,
    /// F.
    pub intermediate_size: Size,
    /// What becomes of the optimiser's moments.
    pub moments: GrownMoments,
    /// Whether learning rates are multiplied by what copies ask for.
    pub rates: bool,
    /// Optimiser steps in which the learning rate of what is new rises from 0.
    pub warmup_steps: u64,
    /// Optimiser steps in which the mask over what is new goes from 0 to 1; 0 where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mask_steps: u64,
    /// How long what the method does not want trained stays as it is.
    pub freezing: Frozen,
    /// Noise between copies.
    pub noise: f64,
    /// Decides what is drawn.
    pub seed: u64,
    /// Whether the map from small to large is learnt.
    #[serde(default, skip_serializing_if = "Operator::is_fixed")]
    pub operator: Operator,
}

/// The method whose map is learnt.
pub const LIGO: &str = "ligo";

/// The method whose new parts may stand behind a mask.
pub const MSG: &str = "msg";

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a stage's method is called that tries several.
pub const LAG: &str = "lag";

/// Several ways of growing, of which one is kept (Karp et al. 2024, arXiv:2406.02469).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// Their names, at least two.
    pub candidates: Vec<String>,
    /// Optimiser steps that each is tried for.
    pub steps: u64,
}

/// Where the map from the small model's parameters to the large one's comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// The method.
    #[default]
    Fixed,
    /// It is learnt from copies and whole layers on.
    Learnt {
        /// Steps of its optimiser.
        steps: u64,
        /// Their size.
        learning_rate: f64,
    },
}

impl Operator {
    fn is_fixed(&self) -> bool {
        *self == Self::Fixed
    }
}

/// When the student grows: after the first step for which this holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// So many optimiser steps are done.
    Step(u64),
    /// So many tokens were read.
    Tokens(u64),
    /// So many examples were read.
    Examples(u64),
    /// The line through the last losses, `ln(loss)` over `ln(tokens)`, rises above this slope.
    Slope {
        /// Below 0.
        above: f64,
        /// Optimiser steps whose losses count.
        window: u64,
        /// Optimiser steps that are done first.
        not_before: u64,
    },
}

/// One of the grown model's sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// What follows from the others; the small model's where nothing does.
    Follows,
    /// This.
    To(u64),
}

impl Size {
    fn of(at: &Option<At<u64>>) -> Self {
        value(at).map_or(Self::Follows, Self::To)
    }

    /// The size, where it is said.
    pub fn said(self) -> Option<u64> {
        match self {
            Self::Follows => None,
            Self::To(size) => Some(size),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(steps) => write!(f, "after {steps} steps"),
            Self::Tokens(tokens) => write!(f, "after {tokens} tokens"),
            Self::Examples(examples) => write!(f, "after {examples} examples"),
            Self::Slope { above, window, not_before } => write!(
                f,
                "when the slope of ln(loss) over ln(tokens) in {window} steps is above {above}, not \
                 before step {not_before}"
            ),
        }
    }
}

impl StagePlan {
    /// The methods by which it may grow.
    pub fn methods(&self) -> &[String] {
        self.lag.as_ref().map_or(std::slice::from_ref(&self.method), |lag| &lag.candidates)
    }

    /// By what it grows.
    fn by(&self) -> String {
        let Some(Lag { candidates, steps }) = &self.lag else {
            return format!("grows by `{}`", self.method);
        };
        let names: Vec<String> = candidates.iter().map(|name| format!("`{name}`")).collect();
        let (last, others) = names.split_last().expect("at least two methods");
        format!(
            "tries {} and {last} for {steps} steps each, and grows by the one with the lowest loss",
            others.join(", ")
        )
    }

    pub(crate) fn words(&self) -> String {
        let sizes = [
            ("layers", self.num_hidden_layers),
            ("width", self.hidden_size),
            ("heads", self.num_attention_heads),
            ("feed-forward width", self.intermediate_size),
        ];
        let sizes =
            sizes.iter().filter_map(|(name, size)| Some(format!("{name} {}", size.said()?)));
        let mut said = format!(
            "{} it {} to {}; moments {}",
            self.when,
            self.by(),
            sizes.collect::<Vec<_>>().join(", "),
            self.moments
        );
        if !self.rates {
            said += ", rates as before";
        }
        if let Operator::Learnt { steps, learning_rate } = self.operator {
            said += &format!(", its map learnt in {steps} steps of {learning_rate}");
        }
        if self.mask_steps > 0 {
            said += &format!(", a mask over what is new opens in {} steps", self.mask_steps);
        }
        if self.warmup_steps > 0 {
            said += &format!(", what is new warmed up for {} steps", self.warmup_steps);
        }
        match self.freezing {
            Frozen::No => said += ", everything trained",
            Frozen::Until(steps) => said += &format!(", what the method freezes for {steps} steps"),
            Frozen::Always => (),
        }
        said
    }
}

/// Steps of warm-up where copies begin without moments and nobody says how many. Their first updates
/// are longer than a learning rate otherwise.
const USUAL_WARMUP: u64 = 50;

pub(crate) fn check(recipe: &Recipe, problems: &mut Problems) {
    let mut before: Option<u64> = None;
    for (index, stage) in recipe.stages.iter().enumerate() {
        let place = || stage.place.clone().unwrap_or(Place::Whole);
        let key = |name: &str| format!("stage.{index}.{name}");
        let whens: Vec<(&str, &Place)> = [
            ("at_step", stage.at_step.as_ref().map(|at| &at.place)),
            ("at_tokens", stage.at_tokens.as_ref().map(|at| &at.place)),
            ("at_examples", stage.at_examples.as_ref().map(|at| &at.place)),
            ("at_slope", stage.at_slope.as_ref().map(|at| &at.place)),
        ]
        .into_iter()
        .filter_map(|(name, place)| Some((name, place?)))
        .collect();
        match whens.as_slice() {
            [] => {
                let keys = ["at_step", "at_tokens", "at_examples", "at_slope"].map(key).to_vec();
                let meaning = "when the student grows".to_owned();
                problems.push(place(), ProblemKind::NoneOf { keys, meaning });
            }
            [(first, _), others @ ..] => {
                for (name, place) in others {
                    let (key, other) = (key(name), key(first));
                    problems.push((*place).clone(), ProblemKind::Together { key, other });
                }
            }
        }
        let sizes = [
            &stage.num_hidden_layers,
            &stage.hidden_size,
            &stage.num_attention_heads,
            &stage.intermediate_size,
        ];
        if sizes.iter().all(|size| size.is_none()) {
            let meaning = "what grows: also hidden_size, num_attention_heads or intermediate_size";
            missing(place(), &key("num_hidden_layers"), meaning, problems);
        }
        for (name, at) in [("window", &stage.window), ("not_before", &stage.not_before)] {
            if let Some(at) = at.as_ref().filter(|_| stage.at_slope.is_none()) {
                needs(at, &key(name), "`at_slope`", problems);
            }
        }
        if let (Some(_), Some(method)) = (&stage.candidates, &stage.method) {
            let (key, other) = (key("method"), key("candidates"));
            problems.push(method.place.clone(), ProblemKind::Together { key, other });
        }
        if let Some(at) = stage.candidates.as_ref().filter(|at| at.value.iter().any(|m| m == LIGO))
        {
            let needed = "methods whose map is fixed; `ligo`, whose map is learnt, stands alone";
            needs(at, &key("candidates"), needed, problems);
        }
        if let Some(at) = stage.lag_steps.as_ref().filter(|_| stage.candidates.is_none()) {
            needs(at, &key("lag_steps"), "`candidates`, which are tried for that long", problems);
        }
        if let Some(at) = &stage.mask_steps {
            let meta = recipe.objective.balance.as_ref().is_some_and(|b| b.value.meta.is_some());
            let meta = meta
                || recipe.objective.regularizer.as_ref().is_some_and(|r| r.value.meta.is_some());
            if stage.method() != MSG || stage.candidates.is_some() {
                needs(
                    at,
                    &key("mask_steps"),
                    "`method = \"msg\"`, whose new parts it hides",
                    problems,
                );
            } else if meta {
                let needed = "no second set (`meta`), whose steps on trial know no mask";
                needs(at, &key("mask_steps"), needed, problems);
            }
            let next = recipe.stages.get(index + 1).and_then(|next| next.at_step.as_ref());
            if let (Some(this), Some(next)) = (&stage.at_step, next)
                && next.value < this.value.saturating_add(at.value)
                && next.value > this.value
            {
                let expected = format!(
                    "at most {}, as the next stage is at step {}",
                    next.value - this.value,
                    next.value
                );
                wrong(at, &key("mask_steps"), at.value.to_string(), expected, None, problems);
            }
        }
        if stage.method() != LIGO {
            let needed = "`method = \"ligo\"`, whose map is learnt";
            if let Some(at) = &stage.operator_steps {
                needs(at, &key("operator_steps"), needed, problems);
            }
            if let Some(at) = &stage.operator_learning_rate {
                needs(at, &key("operator_learning_rate"), needed, problems);
            }
        }
        if let Some(at) = stage.freezing_steps.as_ref().filter(|_| !stage.freezing()) {
            needs(at, &key("freezing_steps"), "`freezing = true`", problems);
        }
        if let Some(at) = &stage.at_step {
            if before.is_some_and(|before| before >= at.value) {
                let expected = "a later step than the stage before".to_owned();
                wrong(at, &key("at_step"), at.value.to_string(), expected, None, problems);
            }
            before = Some(at.value);
        }
        let objective = &recipe.objective;
        if objective.hidden.as_ref().is_some_and(|hidden| !hidden.value.is_empty()) {
            let needs =
                "no `[[objective.hidden]]`, whose layers and projections belong to one size \
                         of the student"
                    .to_owned();
            problems.push(place(), ProblemKind::Needs { key: format!("stage.{index}"), needs });
        }
        let per_instance = objective.regularizer.as_ref().is_some_and(|regularizer| {
            value(&regularizer.value.method) == Some(RegularizerKind::PerInstance)
        });
        if let Some(at) = stage.hidden_size.as_ref().filter(|_| per_instance) {
            let needed = "a regularizer other than per_instance, whose network sees hidden states";
            needs(at, &key("hidden_size"), needed, problems);
        }
    }
}

pub(crate) fn decide(recipe: &Recipe) -> Vec<StagePlan> {
    recipe.stages.iter().map(of_recipe).collect()
}

fn of_recipe(stage: &Stage) -> StagePlan {
    let window = stage.window();
    let when = match (&stage.at_step, &stage.at_tokens, &stage.at_examples, &stage.at_slope) {
        (Some(at), ..) => When::Step(at.value),
        (_, Some(at), ..) => When::Tokens(at.value),
        (_, _, Some(at), _) => When::Examples(at.value),
        (_, _, _, at) => When::Slope {
            above: value(at).unwrap_or_default(),
            window,
            not_before: value(&stage.not_before).unwrap_or(2 * window),
        },
    };
    let learns = stage.method() == LIGO;
    // Moments and rates of copies say nothing of a map that is learnt.
    let unsaid = if learns { GrownMoments::Drop } else { stage.moments() };
    let moments = value(&stage.moments).unwrap_or(unsaid);
    let mask_steps = value(&stage.mask_steps).unwrap_or_default();
    let usual = if moments == GrownMoments::Exact || mask_steps > 0 { 0 } else { USUAL_WARMUP };
    let lag = value(&stage.candidates);
    let lag = lag.map(|candidates| Lag { candidates, steps: stage.lag_steps() });
    StagePlan {
        when,
        method: if lag.is_some() { LAG.to_owned() } else { stage.method() },
        lag,
        num_hidden_layers: Size::of(&stage.num_hidden_layers),
        hidden_size: Size::of(&stage.hidden_size),
        num_attention_heads: Size::of(&stage.num_attention_heads),
        intermediate_size: Size::of(&stage.intermediate_size),
        moments,
        rates: value(&stage.rates).unwrap_or(!learns),
        warmup_steps: value(&stage.warmup_steps).unwrap_or(usual),
        mask_steps,
        freezing: match (stage.freezing(), value(&stage.freezing_steps)) {
            (false, _) => Frozen::No,
            (true, None) => Frozen::Always,
            (true, Some(steps)) => Frozen::Until(steps),
        },
        noise: stage.noise(),
        seed: stage.seed(),
        operator: if learns {
            let (steps, learning_rate) = (stage.operator_steps(), stage.operator_learning_rate());
            Operator::Learnt { steps, learning_rate }
        } else {
            Operator::Fixed
        },
    }
}

/// Says so where a stage comes after the run's last step.
pub(crate) fn check_length(recipe: &Recipe, total_steps: u64, problems: &mut Problems) {
    for (index, stage) in recipe.stages.iter().enumerate() {
        if let Some(at) = stage.at_step.as_ref().filter(|at| at.value >= total_steps) {
            let key = format!("stage.{index}.at_step");
            let expected = format!("a step before the run's last, {total_steps}");
            wrong(at, &key, at.value.to_string(), expected, None, problems);
        }
        let left = stage.at_step.as_ref().and_then(|at| total_steps.checked_sub(at.value));
        let lag = stage.lag_steps();
        if let (Some(at), Some(left)) =
            (&stage.candidates, left.filter(|left| (1..lag).contains(left)))
        {
            let key = format!("stage.{index}.lag_steps");
            let expected = format!("at most the {left} steps that the run has left by then");
            wrong(at, &key, lag.to_string(), expected, None, problems);
        }
    }
}

/// Stages of a run that is cut to `share` of its steps.
pub(crate) fn shorten(training: &mut TrainingPlan, share: f64) {
    let scaled = |count: &mut u64| *count = ((*count as f64 * share) as u64).max(1);
    for stage in &mut training.stages {
        match &mut stage.when {
            When::Step(count) | When::Tokens(count) | When::Examples(count) => scaled(count),
            When::Slope { window, not_before, .. } => {
                scaled(window);
                *window = (*window).max(2);
                scaled(not_before);
            }
        }
        if let Frozen::Until(steps) = &mut stage.freezing {
            scaled(steps);
        }
        if let Operator::Learnt { steps, .. } = &mut stage.operator {
            scaled(steps);
        }
        if stage.mask_steps > 0 {
            scaled(&mut stage.mask_steps);
        }
        if let Some(lag) = &mut stage.lag {
            scaled(&mut lag.steps);
        }
    }
}
