//! Growth in the middle of a run: what is decided before it, and what must survive a crash of it.
//!
//! In: the stages of a plan, and the student's config. Out: the growth plan and the config of each
//! stage, whether the next one is due, and how the optimiser treats what has grown. Never: a number
//! that is not in the plan or in [`StagesState`]; growing again from the same state gives the same
//! bits.

use std::collections::{BTreeMap, VecDeque};

use heirloom_engine::{Params, View};
use heirloom_growth::{
    Descent, GrowthPlan, Level, Masked, Method, MomentsMode, Shape, Target, Tensors, descents,
    masks,
};
use heirloom_recipe::{Frozen, GrownMoments, Operator, StagePlan, TrainingPlan, When};
use serde::{Deserialize, Serialize};

use crate::grows::Grows;
use crate::{Candidate, Error, MaskCourse, StepRecord, Treatment};

/// The stages of a run.
#[derive(Clone, Debug)]
pub(crate) struct Stages<C> {
    plans: Vec<StagePlan>,
    /// How the student grows at the end of each but the last.
    growths: Vec<GrowthPlan>,
    /// The student's config in each.
    configs: Vec<C>,
    pub(crate) state: StagesState,
}

/// Where a run's growth is: all of it that must survive a crash.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StagesState {
    /// Growths done.
    pub grown: usize,
    /// Which of its candidates each stage has kept that tried several, by the stage's number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chosen: BTreeMap<usize, usize>,
    /// Tokens read.
    pub tokens: u64,
    /// Examples read.
    pub examples: u64,
    /// Tokens read and loss after each of the last steps, since the last growth.
    recent: VecDeque<[f64; 2]>,
    /// How the optimiser treats parameters that are not treated as usual, by name; before the
    /// groups of the plan.
    treated: BTreeMap<String, Treatment>,
    /// The course of the mask over what the last growth added, while it is not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskCourse>,
}

/// A growth in the middle of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrowthRecord {
    /// Always `growth`.
    pub kind: String,
    /// Steps done before it.
    pub step: u64,
    /// Which one, from 1.
    pub stage: u64,
    /// The method's name.
    pub method: String,
    /// Digest of the growth plan.
    pub plan: heirloom_base::Digest,
    /// What becomes of the moments.
    pub moments: GrownMoments,
    /// The small model's sizes.
    pub from: Shape,
    /// The grown model's.
    pub to: Shape,
    /// Numbers in the small model's parameters.
    pub parameters_before: u64,
    /// In the grown model's.
    pub parameters_after: u64,
    /// How close the plan says the two functions are.
    pub predicted: Level,
    /// The largest difference of an output on the examples of the coming step, without dropout.
    pub largest_change: f64,
    /// The small model's largest output there, to hold it against.
    pub largest_output: f64,
    /// How far copies are apart.
    pub clone_gap: f64,
    /// Tokens read before it.
    pub tokens: u64,
    /// Examples read before it.
    pub examples: u64,
    /// Floating-point operations that learning how to grow took, or trying candidates; 0 where
    /// nothing was learnt or tried.
    pub flops: u64,
    /// What was tried, in the plan's order, where a stage tries several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// How the operator was learnt, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learnt: Option<Learnt>,
}

/// How an operator was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learnt {
    /// Steps of its optimiser.
    pub steps: u64,
    /// Tokens read; training reads them again.
    pub tokens: u64,
    /// Numbers that were learnt.
    pub numbers: u64,
    /// Mean loss of the grown model in the first tenth of the steps.
    pub first_loss: f64,
    /// In the last tenth.
    pub last_loss: f64,
}

/// How the student of a plan, whose config is `first`, grows on the way; by the first of its
/// candidates where a stage tries several.
///
/// # Errors
/// Where a stage's method or sizes cannot be, whichever candidate an earlier stage keeps.
pub fn growth_plans<C: Grows>(
    training: &TrainingPlan,
    first: &C,
) -> Result<(Vec<GrowthPlan>, Vec<C>), Error> {
    let mut reached = vec![first.clone()];
    for (index, stage) in training.stages.iter().enumerate() {
        let mut next = Vec::new();
        for (config, method) in
            reached.iter().flat_map(|config| stage.methods().iter().map(move |m| (config, m)))
        {
            let (_, grown) = growth(index, stage, method, config)?;
            if !next.contains(&grown) {
                next.push(grown);
            }
        }
        reached = next;
    }
    along(&training.stages, first, &BTreeMap::new())
}

/// How it grows where each stage of `chosen` keeps that one of its candidates, and others their first.
fn along<C: Grows>(
    stages: &[StagePlan],
    first: &C,
    chosen: &BTreeMap<usize, usize>,
) -> Result<(Vec<GrowthPlan>, Vec<C>), Error> {
    let (mut growths, mut configs) = (Vec::new(), vec![first.clone()]);
    for (index, stage) in stages.iter().enumerate() {
        let at = chosen.get(&index).copied().unwrap_or_default();
        let Some(method) = stage.methods().get(at) else {
            return Err(Error::Foreign {
                folder: "the checkpoint".to_owned(),
                found: format!("candidate {at} of stage {index}"),
                expected: format!("one of {}", stage.methods().len()),
            });
        };
        let (growth, config) = growth(index, stage, method, &configs[index])?;
        growths.push(growth);
        configs.push(config);
    }
    Ok((growths, configs))
}

/// How a student with this config grows by stage `index`, by one of its methods.
fn growth<C: Grows>(
    index: usize,
    stage: &StagePlan,
    name: &str,
    config: &C,
) -> Result<(GrowthPlan, C), Error> {
    let small = config.anatomy();
    let size = |size: heirloom_recipe::Size| size.said().map(|size| size as usize);
    let target = Target {
        layers: size(stage.num_hidden_layers),
        hidden: size(stage.hidden_size),
        heads: size(stage.num_attention_heads),
        kv_heads: None,
        intermediate: size(stage.intermediate_size),
    };
    // What is learnt begins as copies and whole layers.
    let (method, learns) = match stage.operator {
        Operator::Fixed => (name, false),
        Operator::Learnt { .. } => (Method::Bert2BertFpi.name(), true),
    };
    let growth = Method::find(method)
        // Behind a mask it is zeros that begin, also where no weights alone are msg's.
        .map(|method| if stage.mask_steps > 0 { Method::Pad } else { method })
        .and_then(|method| method.plan(&small, &target, stage.seed))
        .map(|growth| {
            let renamed = learns || stage.mask_steps > 0;
            if renamed { GrowthPlan { method: name.to_owned(), ..growth } } else { growth }
        })
        .map(|growth| GrowthPlan { noise: stage.noise, ..growth })
        .and_then(|growth| growth.check(&small).map(|()| growth));
    let refuse = |source| match &stage.lag {
        None => Error::Stage { stage: index, source },
        Some(_) => Error::Candidate { stage: index, method: name.to_owned(), source },
    };
    let growth = growth.map_err(refuse)?;
    if stage.mask_steps > 0 {
        masks(&growth, &small, []).map_err(refuse)?;
    }
    let grown = config.grown(&growth).map_err(refuse)?;
    Ok((growth, grown))
}

/// The growth crate's name of a choice in a plan.
pub fn moments_mode(moments: GrownMoments) -> MomentsMode {
    match moments {
        GrownMoments::Exact => MomentsMode::Mapped,
        GrownMoments::Asymmetric => MomentsMode::Asymmetric,
        GrownMoments::Drop => MomentsMode::Dropped,
    }
}

impl StagesState {
    /// How each of `params` is treated, in their order, before the plan's groups.
    pub fn treatments(&self, params: &Params) -> Vec<Treatment> {
        let of = |name: &String| self.treated.get(name).copied().unwrap_or(Treatment::USUAL);
        params.index().iter().map(|param| of(&param.name)).collect()
    }
}

/// The student's config at a checkpoint of its run.
///
/// # Errors
/// As [`growth_plans`].
pub fn config_at<C: Grows>(
    training: &TrainingPlan,
    first: &C,
    state: &StagesState,
) -> Result<C, Error> {
    Ok(Stages::new(training, first, state.clone())?.config().clone())
}

impl<C: Grows> Stages<C> {
    pub(crate) fn new(
        training: &TrainingPlan,
        first: &C,
        state: StagesState,
    ) -> Result<Self, Error> {
        Self::of(&training.stages, first, state)
    }

    fn of(plans: &[StagePlan], first: &C, state: StagesState) -> Result<Self, Error> {
        let (growths, configs) = along(plans, first, &state.chosen)?;
        if state.grown > growths.len() {
            return Err(Error::Foreign {
                folder: "the checkpoint".to_owned(),
                found: format!("a student that has grown {} times", state.grown),
                expected: format!("at most {}", growths.len()),
            });
        }
        Ok(Self { plans: plans.to_vec(), growths, configs, state })
    }

    /// The same where the coming stage keeps its candidate number `at`.
    pub(crate) fn keeping(&self, at: usize) -> Result<Self, Error> {
        let mut state = self.state.clone();
        state.chosen.insert(state.grown, at);
        Self::of(&self.plans, self.first(), state)
    }

    /// The student's config before any growth.
    pub(crate) fn first(&self) -> &C {
        &self.configs[0]
    }

    /// Its config after all growth.
    pub(crate) fn largest(&self) -> &C {
        &self.configs[self.growths.len()]
    }

    /// Its config now.
    pub(crate) fn config(&self) -> &C {
        &self.configs[self.state.grown]
    }

    /// The coming growth.
    pub(crate) fn next(&self) -> Option<(&StagePlan, &GrowthPlan)> {
        self.plans.get(self.state.grown).zip(self.growths.get(self.state.grown))
    }

    /// The last growth and the config before it.
    pub(crate) fn last(&self) -> Option<(&GrowthPlan, &C)> {
        let before = self.state.grown.checked_sub(1)?;
        Some((&self.growths[before], &self.configs[before]))
    }

    /// Hears of a step.
    pub(crate) fn hear(&mut self, record: &StepRecord) {
        if self.plans.is_empty() {
            return;
        }
        self.state.tokens += record.tokens;
        self.state.examples += record.sequences;
        let Some((StagePlan { when: When::Slope { window, .. }, .. }, _)) = self.next() else {
            return;
        };
        let window = *window as usize;
        if !record.skipped && record.loss > 0.0 {
            self.state.recent.push_back([self.state.tokens as f64, record.loss]);
            while self.state.recent.len() > window {
                self.state.recent.pop_front();
            }
        }
    }

    /// The masked parts of `params`, where the mask of the last growth is not open; `shapes` gives
    /// the parameters of a config as files hold them.
    ///
    /// # Errors
    /// Where a mask cannot hide what is new.
    pub(crate) fn mask(
        &self,
        params: &Params,
        shapes: &dyn Fn(&C) -> Tensors<f64>,
    ) -> Result<Option<(Vec<View>, MaskCourse)>, Error> {
        let (Some(course), Some((growth, config))) = (self.state.mask, self.last()) else {
            return Ok(None);
        };
        let shapes = shapes(config);
        let shapes = shapes.iter().map(|(name, tensor)| (name.as_str(), &*tensor.shape));
        let masks = masks(growth, &config.anatomy(), shapes)?;
        let mut parts = Vec::new();
        for param in params.index() {
            let view = params.view(param, params.weights());
            match masks.get(&param.name) {
                None => (),
                Some(Masked::Whole) => parts.push(view),
                Some(Masked::Inputs(inputs)) => {
                    // On the device inputs are columns, whatever files hold.
                    let view = view.reshaped(param.shape[0], param.shape[1]);
                    parts.extend(inputs.iter().map(|range| view.columns(range.clone())));
                }
            }
        }
        Ok(Some((parts, course)))
    }

    /// Whether the student grows now, after `step` steps. Whatever is behind a mask opens first.
    pub(crate) fn is_due(&self, step: u64) -> bool {
        let Some((stage, _)) = self.next().filter(|_| self.state.mask.is_none()) else {
            return false;
        };
        match stage.when {
            When::Step(at) => step >= at,
            When::Tokens(at) => self.state.tokens >= at,
            When::Examples(at) => self.state.examples >= at,
            When::Slope { above, window, not_before } => {
                let full = self.state.recent.len() as u64 >= window;
                full && step >= not_before
                    && slope(self.state.recent.iter()).is_some_and(|slope| slope > above)
            }
        }
    }

    /// How each of `params` is treated before the plan's groups.
    pub(crate) fn treatments(&self, params: &Params) -> Vec<Treatment> {
        self.state.treatments(params)
    }

    /// The state after the coming growth, after `updates` steps of the optimiser.
    /// `shapes` are the parameters' as files hold them.
    pub(crate) fn after(&self, shapes: &Tensors<f64>, updates: u64) -> Result<StagesState, Error> {
        let Some((stage, growth)) = self.next() else { return Ok(self.state.clone()) };
        let small = self.config().anatomy();
        let old = |name: &str| self.state.treated.get(name).copied().unwrap_or(Treatment::USUAL);
        let mut treated = BTreeMap::new();
        let shapes = shapes.iter().map(|(name, tensor)| (name.as_str(), &*tensor.shape));
        for (name, descent) in descents(growth, &small, shapes)? {
            let frozen = growth.freezes(small.family, &name);
            let treatment = grown(old(&descent.from), stage, &descent, frozen, updates);
            if treatment != Treatment::USUAL {
                treated.insert(name, treatment);
            }
        }
        let grown = self.state.grown + 1;
        let mask = MaskCourse { from: updates, over: stage.mask_steps };
        let mask = (mask.over > 0).then_some(mask);
        Ok(StagesState { grown, recent: VecDeque::new(), treated, mask, ..self.state.clone() })
    }
}

/// How a parameter is treated that has grown, after `updates` steps of the optimiser, from one that
/// was treated as `old`.
fn grown(
    old: Treatment,
    stage: &StagePlan,
    descent: &Descent,
    frozen: bool,
    updates: u64,
) -> Treatment {
    let factor = if stage.rates { descent.rate } else { 1.0 };
    let dropped = descent.fresh || stage.moments == GrownMoments::Drop;
    let warmed = descent.has_new && stage.warmup_steps > 0;
    let until = match (frozen, stage.freezing) {
        (false, _) | (true, Frozen::No) => 0,
        (true, Frozen::Until(steps)) => updates.saturating_add(steps),
        (true, Frozen::Always) => Treatment::NEVER,
    };
    Treatment {
        rate: old.rate * factor,
        // Their product decays a weight, and stays.
        decay: old.decay / factor,
        // What an earlier stage froze, a later one may train again.
        frozen_until: until.max(if old.is_frozen(updates) { 0 } else { old.frozen_until }),
        born: if dropped || old.is_frozen(updates) { updates } else { old.born },
        rises_from: if warmed { updates } else { old.rises_from },
        rises_over: if warmed { stage.warmup_steps } else { old.rises_over },
    }
}

/// The slope of the least-squares line of `ln(loss)` over `ln(tokens)`; `None` where all tokens are
/// the same. Of a power law `loss = a · tokensᵇ` it is b. Shen et al. 2022 (arXiv:2203.06211) grow
/// where it rises above a threshold, since the grown model's is then steeper.
fn slope<'a>(points: impl Iterator<Item = &'a [f64; 2]> + Clone) -> Option<f64> {
    let ln = points.map(|[tokens, loss]| (tokens.ln(), loss.ln()));
    let count = ln.clone().count() as f64;
    let (x, y) = ln.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let (mut both, mut square) = (0.0, 0.0);
    for point in ln {
        both += (point.0 - x) * (point.1 - y);
        square += (point.0 - x) * (point.0 - x);
    }
    (square > 0.0).then_some(both / square)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_power_law_is_its_exponent() {
        for exponent in [-0.5, -0.05, 0.2] {
            let point = |at: u32| {
                let tokens = 1000.0 * f64::from(at);
                [tokens, 7.0 * tokens.powf(exponent)]
            };
            let points: Vec<[f64; 2]> = (3..40).map(point).collect();
            let found = slope(points.iter()).unwrap();
            assert!((found - exponent).abs() < 1e-12, "{found}");
        }
        assert_eq!(slope([[5.0, 1.0], [5.0, 2.0]].iter()), None);
    }

    #[test]
    fn what_has_grown_keeps_its_product_of_rate_and_decay() {
        let stage = StagePlan {
            when: When::Step(1),
            method: String::new(),
            lag: None,
            mask_steps: 0,
            num_hidden_layers: heirloom_recipe::Size::Follows,
            hidden_size: heirloom_recipe::Size::Follows,
            num_attention_heads: heirloom_recipe::Size::Follows,
            intermediate_size: heirloom_recipe::Size::Follows,
            moments: GrownMoments::Exact,
            rates: true,
            warmup_steps: 5,
            freezing: Frozen::Until(10),
            noise: 0.0,
            seed: 1,
            operator: Operator::Fixed,
        };
        let descent = Descent { from: String::new(), rate: 0.5, fresh: false, has_new: false };
        let old = Treatment { rate: 0.5, decay: 2.0, ..Treatment::USUAL };
        let plain = grown(old, &stage, &descent, false, 7);
        assert_eq!(plain, Treatment { rate: 0.25, decay: 4.0, ..Treatment::USUAL });
        let fresh = Descent { fresh: true, has_new: true, ..descent };
        let of = grown(old, &stage, &fresh, true, 7);
        assert_eq!((of.frozen_until, of.born, of.rises_from, of.rises_over), (17, 7, 7, 5));
        let never = Treatment { frozen_until: Treatment::NEVER, ..old };
        assert_eq!(grown(never, &stage, &fresh, false, 7).frozen_until, 0, "trained again");
    }
}
