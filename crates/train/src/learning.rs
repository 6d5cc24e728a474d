//! Weights, moments and average of a small student grown into a large one's, by a map that is fixed or
//! learnt.
//!
//! In: the stages of a run, the small student, and the trainer of the large one. Out: the large one's
//! buffers filled, and what is to be said of it. Never: a step of the run.

use heirloom_data::order::Cursor;
use heirloom_growth::{Anatomy, GrowthPlan, Level, Operator, behind_masks, clone_gap, grow};
use heirloom_recipe as recipe;

use crate::grows::{Grows, Student, largest};
use crate::map::DeviceOperator;
use crate::stages::{Stages, moments_mode};
use crate::{Candidate, Error, GrowthRecord, Learnt};

/// A trainer that can say the gradient of a step without taking it.
pub(crate) trait GradientOf {
    /// Its student.
    fn as_student(&mut self) -> Student<'_>;
    /// Where it is in the data.
    fn cursor(&self) -> Cursor;
    /// What its device has computed.
    fn operations(&self) -> u64;
    /// Adds up the gradient of the step at a cursor: its loss, its tokens, and what comes after.
    ///
    /// # Errors
    /// Where a teacher's kept answers cannot be read.
    fn gradient_of_step(&mut self, cursor: Cursor) -> Result<(f64, u64, Cursor), Error>;
    /// Drops the gradient.
    fn clear(&mut self);
}

/// What growing came to, but for what the two models say.
pub(crate) struct Raised {
    plan: GrowthPlan,
    small: Anatomy,
    stage: recipe::StagePlan,
    clone_gap: f64,
    learnt: Option<Learnt>,
    flops: u64,
}

/// Grows `small` by the coming stage into the student of `large`.
///
/// # Errors
/// Where a parameter has no role in growth, or the plan's map cannot be learnt.
///
/// # Panics
/// Where no stage is left.
pub(crate) fn raise<C: Grows>(
    stages: &Stages<C>,
    small: &mut Student<'_>,
    large: &mut impl GradientOf,
) -> Result<Raised, Error> {
    let (stage, plan) = stages.next().expect("a stage is left");
    let anatomy = stages.config().anatomy();
    let old = small.weights();
    let (grown, learnt, flops) = match stage.operator {
        recipe::Operator::Fixed => (grow(plan, &anatomy, &old)?.tensors, None, 0),
        recipe::Operator::Learnt { steps, learning_rate } => {
            let shapes = old.iter().map(|(name, tensor)| (name.as_str(), &*tensor.shape));
            let operator = Operator::of(plan, &anatomy, shapes)?;
            let (learnt, flops) = learn(large, &operator, small, steps, learning_rate)?;
            (large.as_student().weights(), Some(learnt), flops)
        }
    };
    let gap = clone_gap(plan, &anatomy, &old, &grown)?;
    drop(old);
    let mut to = large.as_student();
    to.put_weights(&grown);
    drop(grown);
    if let Some(space) = to.learned.behind() {
        to.put(space, &behind_masks(plan, &anatomy, &small.weights())?);
    }
    to.grow_from(small, plan, &anatomy, moments_mode(stage.moments))?;
    let (plan, stage) = (plan.clone(), stage.clone());
    Ok(Raised { plan, small: anatomy, stage, clone_gap: gap, learnt, flops })
}

impl Raised {
    /// The record of a growth after `step` steps: numbers in both models' parameters, what both say to
    /// the same examples, and what was tried.
    pub(crate) fn record<C: Grows>(
        self,
        stages: &Stages<C>,
        step: u64,
        [parameters_before, parameters_after]: [u64; 2],
        [before, after]: [&[f64]; 2],
        tried: Vec<Candidate>,
    ) -> GrowthRecord {
        let predicted = match self.learnt {
            None => self.plan.predict(&self.small).level,
            Some(_) => Level::Not,
        };
        GrowthRecord {
            kind: "growth".to_owned(),
            step,
            stage: stages.state.grown as u64 + 1,
            method: self.plan.method.clone(),
            plan: self.plan.digest(),
            moments: self.stage.moments,
            from: self.small.shape,
            to: self.plan.grown(&self.small).shape,
            parameters_before,
            parameters_after,
            predicted,
            largest_change: largest(before.iter().zip(after).map(|(old, new)| old - new)),
            largest_output: largest(before.iter().copied()),
            clone_gap: self.clone_gap,
            tokens: stages.state.tokens,
            examples: stages.state.examples,
            flops: self.flops + tried.iter().map(|tried| tried.flops).sum::<u64>(),
            candidates: tried,
            learnt: self.learnt,
        }
    }
}

/// Learns the operator by which the student of `trainer` grows from `small`: Adam over its numbers, on
/// the batches that come, which training reads again. The student's gradient is left clear; its
/// weights are those that the operator gives in the end.
pub(crate) fn learn(
    trainer: &mut impl GradientOf,
    operator: &Operator,
    small: &Student<'_>,
    steps: u64,
    learning_rate: f64,
) -> Result<(Learnt, u64), Error> {
    let before = trainer.operations();
    let on_device = DeviceOperator::new(operator, small, &mut trainer.as_student());
    on_device.apply(trainer.as_student().device);
    let (mut losses, mut tokens) = (Vec::new(), 0);
    let mut cursor = trainer.cursor();
    for step in 1..=steps {
        let (loss, read, after) = trainer.gradient_of_step(cursor)?;
        cursor = after;
        losses.push(loss);
        tokens += read;
        on_device.gradient(trainer.as_student().device);
        trainer.clear();
        let device = trainer.as_student().device;
        on_device.step(device, step, learning_rate);
        on_device.apply(device);
    }
    on_device.free(trainer.as_student().device);
    let tenth = losses.len().div_ceil(10);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    let learnt = Learnt {
        steps,
        tokens,
        numbers: operator.count() as u64,
        first_loss: mean(&losses[..tenth]),
        last_loss: mean(&losses[losses.len() - tenth..]),
    };
    Ok((learnt, trainer.operations() - before))
}
