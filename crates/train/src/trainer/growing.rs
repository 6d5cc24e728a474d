//! A trainer whose student grows: the whole state of the small model's training goes on in the large
//! one's.
//!
//! In: a trainer between two steps, and its next stage. Out: a trainer of the grown student, with
//! weights, moments and average by the same plan, and every count as it was. Never: a random number
//! without an address: growing again from the same state gives the same bits.

use heirloom_growth::{
    Anatomy, GrowthPlan, Level, Map, Moments, Operator, Tensor, Tensors, clone_gap, grow,
    grow_moments,
};
use heirloom_recipe as recipe;

use super::*;
use crate::stages::{anatomy, moments_mode};
use crate::{GrowthRecord, Learnt, StagesState, Trains};

/// β₁ and β₂ of the optimiser that learns an operator.
const ADAM: [f64; 2] = [0.9, 0.999];
/// Its ε.
const EPSILON: f64 = 1e-8;

impl Trainer {
    /// Whether the student grows before the coming step.
    pub fn grows_now(&self) -> bool {
        !self.progress.finished && self.stages.is_due(self.progress.cursor.step)
    }

    /// Where the run's growth is; `None` where the plan has no stage.
    pub fn stages(&self) -> Option<&StagesState> {
        (!self.job.plan.stages.is_empty()).then_some(&self.stages.state)
    }

    /// Grows the student by the coming stage of the plan. `new_device` is called as
    /// [`Trainer::new`] calls it.
    ///
    /// # Errors
    /// As [`Trainer::new`]; the trainer is then as it was.
    ///
    /// # Panics
    /// Where no stage is left.
    pub fn grow(
        &mut self,
        disk: &dyn Disk,
        new_device: &mut dyn FnMut(crate::Work) -> crate::Device,
    ) -> Result<GrowthRecord, Error> {
        self.catch_up();
        let before = self.sample();
        let (stage, plan) = self.stages.next().expect("a stage is left");
        let (stage, plan) = (stage.clone(), plan.clone());
        let small = anatomy(self.stages.config());
        let state = self.stages.after(self.pass.model.params(), self.progress.updates)?;
        let job = Job { student_config: self.stages.first().clone(), ..self.job.clone() };
        let mut large = Self::at_stage(job, state, disk, new_device)?;
        let old = self.tensors(self.student.params.weights());
        let (grown, learnt, flops) = match stage.operator {
            recipe::Operator::Fixed => (grow(&plan, &small, &old)?.tensors, None, 0),
            recipe::Operator::Learnt { steps, learning_rate } => {
                let shapes = old.iter().map(|(name, tensor)| (name.as_str(), &*tensor.shape));
                let mut operator = Operator::of(&plan, &small, shapes)?;
                self.hand_over(&mut large);
                let (learnt, flops) = large.learn(&mut operator, &old, steps, learning_rate);
                (operator.apply(&old), Some(learnt), flops)
            }
        };
        let gap = clone_gap(&plan, &small, &old, &grown)?;
        drop(old);
        let [large_weights, first, second] =
            [large.student.params.weights(), large.student.first, large.student.second];
        large.put(large_weights, &grown);
        drop(grown);
        let moments = Moments {
            first: self.tensors(self.student.first),
            second: self.tensors(self.student.second),
        };
        let moments = grow_moments(&plan, &small, &moments, moments_mode(stage.moments))?;
        large.put(first, &moments.first);
        large.put(second, &moments.second);
        drop(moments);
        if let (Some(old), Some(new)) = (self.averaging, large.averaging) {
            // An average of weights grows as they do, since every map is linear.
            let average = grow(&plan, &small, &self.tensors(old.space))?.tensors;
            large.put(new.space, &average);
        }
        self.hand_over(&mut large);
        let after = large.sample();
        let origin = large.stages.state.grown as u64;
        let record = GrowthRecord {
            kind: "growth".to_owned(),
            step: self.progress.cursor.step,
            stage: origin,
            method: stage.method,
            plan: plan.digest(),
            moments: stage.moments,
            from: small.shape,
            to: plan.grown(&small).shape,
            parameters_before: self.student.params.count() as u64,
            parameters_after: large.student.params.count() as u64,
            predicted: match learnt {
                None => plan.predict(&small).level,
                Some(_) => Level::Not,
            },
            largest_change: largest(before.iter().zip(&after).map(|(old, new)| old - new)),
            largest_output: largest(before.iter().copied()),
            clone_gap: gap,
            tokens: self.stages.state.tokens,
            examples: self.stages.state.examples,
            flops,
            learnt,
        };
        *self = large;
        Ok(record)
    }

    /// Learns the operator by which the student, whose parameters are its, has grown from `old`: Adam
    /// over its numbers, on the batches that come, which training reads again. The student's gradient
    /// is left clear; its weights are those of the last step but one.
    fn learn(
        &mut self,
        operator: &mut Operator,
        old: &Tensors<f64>,
        steps: u64,
        learning_rate: f64,
    ) -> (Learnt, u64) {
        let before = self.device.operations();
        let (weights, grads) = (self.student.params.weights(), self.student.grads);
        let mut moments = vec![[0.0; 2]; operator.count()];
        let (mut losses, mut tokens) = (Vec::new(), 0);
        let mut cursor = self.progress.cursor;
        for step in 1..=steps {
            self.put(weights, &operator.apply(old));
            let (loss, counts, after) = self.gradient_of_step(cursor);
            cursor = after;
            losses.push(loss);
            tokens += counts.tokens;
            let gradient = operator.gradient(old, &self.tensors(grads));
            self.student.clear(&mut *self.device);
            self.projections.clear(&mut *self.device);
            let correct = ADAM.map(|beta| 1.0 - beta.powf(step as f64));
            let numbers = operator.values_mut().zip(gradient.values()).zip(&mut moments);
            for ((value, g), [m, v]) in numbers {
                if !g.is_finite() {
                    continue;
                }
                *m += (1.0 - ADAM[0]) * (g - *m);
                *v += (1.0 - ADAM[1]) * (g * g - *v);
                *value -= learning_rate * (*m / correct[0]) / ((*v / correct[1]).sqrt() + EPSILON);
            }
        }
        let tenth = losses.len().div_ceil(10);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let learnt = Learnt {
            steps,
            tokens,
            numbers: operator.count() as u64,
            first_loss: mean(&losses[..tenth]),
            last_loss: mean(&losses[losses.len() - tenth..]),
        };
        (learnt, self.device.operations() - before + steps * operator.operations())
    }

    /// Adds up the gradient of the step at `cursor`: its loss, what it holds, and what comes after.
    fn gradient_of_step(&mut self, cursor: Cursor) -> (f64, Counts, Cursor) {
        let training = &self.job.plan.training;
        let (examples, after) = self.order.next_step(&self.job.train, cursor, rule(training.batch));
        let ranges = micro_ranges(&self.job.train, &examples, rule(training.micro_batch));
        let counts = counts(&self.job.train, &examples);
        let learning_rate = learning_rate(training, Step(cursor.step));
        let at = At { step: cursor.step, total: training.total_steps, learning_rate };
        self.see(&examples, None);
        let together = self.decide_together(&examples, &ranges, at);
        let mut parts = Parts::default();
        for range in &ranges {
            let examples = &examples[range.clone()];
            let decided = together.as_ref().map(|all| all.part(range.clone()));
            parts.add(&self.micro_batch(examples, range.start, counts, at, decided));
        }
        (self.pass.objective.total(&parts), counts, after)
    }

    /// How far copies of the last growth are apart, over the parameters of the blocks; `None` where
    /// nothing was copied along a width.
    pub fn clone_gap(&mut self) -> Result<Option<f64>, Error> {
        let Some((plan, config)) = self.stages.last() else { return Ok(None) };
        if !copies(plan) {
            return Ok(None);
        }
        let (plan, small) = (plan.clone(), anatomy(config));
        let old = shapes(config, &self.job.plan);
        self.catch_up();
        let grown = self.tensors(self.student.params.weights());
        Ok(Some(clone_gap(&plan, &small, &old, &grown)?))
    }

    /// Counts, and all state that does not depend on the student's size.
    fn hand_over(&mut self, large: &mut Self) {
        let (ours, theirs) = (&self.projections, &large.projections);
        for (from, to) in [
            (ours.params.weights(), theirs.params.weights()),
            (ours.first, theirs.first),
            (ours.second, theirs.second),
        ] {
            let numbers = self.device.read_f64(ours.params.flat(from));
            large.device.write_f64(theirs.params.flat(to), &numbers);
        }
        if let (Some(old), Some(new)) = (&self.balancing, &mut large.balancing) {
            assert!(new.restore(&old.state()), "a policy's state has no size of the student");
        }
        if let (Some(old), Some(new)) = (&self.pass.regularizing, &mut large.pass.regularizing) {
            assert!(new.restore(&old.state()), "a regularizer that sees widths was refused");
        }
        large.loaded = self.loaded.clone();
        large.resumed(self.progress);
    }

    /// The student's outputs on the first of the coming step's examples, without dropout.
    fn sample(&mut self) -> Vec<f64> {
        let training = &self.job.plan.training;
        let cursor = self.progress.cursor;
        let (examples, _) = self.order.next_step(&self.job.train, cursor, rule(training.batch));
        let ranges = micro_ranges(&self.job.train, &examples, rule(training.micro_batch));
        let Some(range) = ranges.first() else { return Vec::new() };
        let (device, pass) = (&mut *self.device, &mut self.pass);
        let examples = &examples[range.clone()];
        pass.upload(device, &self.job.train, examples, range.start, &mut self.teacher);
        let output = pass.forward(device, None);
        device.read_f64(output)
    }

    /// A twin of the student's weights, by name.
    fn tensors(&self, space: heirloom_engine::Space) -> Tensors<f64> {
        let params = &self.student.params;
        let tensor = |param: &heirloom_engine::Param| {
            let data = self.device.read_f64(params.view(param, space));
            (param.name.clone(), Tensor::new(&param.shape, data))
        };
        params.index().iter().map(tensor).collect()
    }

    fn put(&mut self, space: heirloom_engine::Space, tensors: &Tensors<f64>) {
        let params = &self.student.params;
        for param in params.index() {
            // What only checkpoints carry has no place in growth, and no number that matters.
            if let Some(tensor) = tensors.get(&param.name) {
                self.device.write_f64(params.view(param, space), &tensor.data);
            }
        }
    }
}

/// The parameters of a plan's student with this config: their names and shapes alone.
pub(crate) fn shapes(config: &heirloom_models::EncoderConfig, plan: &Plan) -> Tensors<f64> {
    let mut nowhere = heirloom_engine::Reference::<f32>::new();
    let model = Model::new(&mut nowhere, config.clone(), head_of(plan));
    let tensor = |param: &heirloom_engine::Param| {
        (param.name.clone(), Tensor { shape: param.shape.clone(), data: Vec::new() })
    };
    model.params().index().iter().map(tensor).collect()
}

/// Whether some units of the grown model are copies of others.
fn copies(plan: &GrowthPlan) -> bool {
    let copies = |map| matches!(map, Map::Tile | Map::Select | Map::Split | Map::Average);
    plan.axes.iter().any(|axis| copies(axis.map) && axis.to > axis.from)
}

fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |most, number| most.max(number.abs()))
}

/// The anatomy of a plan's student with this config.
pub fn student_anatomy(config: &heirloom_models::EncoderConfig) -> Anatomy {
    anatomy(config)
}
