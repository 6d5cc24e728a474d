//! Alignments with a second set against what they stand for: inner products of gradients, and the
//! second set's loss after a step. In double precision, on a model of two layers with dropout.

#[path = "../../tests/steps/tiny.rs"]
#[expect(dead_code, reason = "shared with the tests of whole runs")]
mod tiny;

use heirloom_balance::{LABEL, TEACHER};
use heirloom_engine::{Ahead, Update, View};
use heirloom_recipe::{
    BalancePlan, Estimator, MetaAt, MetaLoss, MetaPlan, MetaSource, PolicyPlan, Preconditioner,
};

use super::*;
use crate::Trains;
use tiny::{Task, double, job, single};

fn plan(estimator: Estimator, preconditioner: Preconditioner, loss: MetaLoss) -> BalancePlan {
    let policy = PolicyPlan::RwKd {
        normalize: heirloom_recipe::Normalize::Terms,
        floor: 1e-8,
        bounds: [0.0, 1.0],
        ema: 0.0,
    };
    let meta = MetaPlan {
        source: MetaSource::Train,
        batch_size: 6,
        every: 1,
        warmup_steps: 0,
        loss,
        estimator,
        preconditioner,
        at: MetaAt::Here,
        check: false,
        lr_scheduler_type: heirloom_recipe::Schedule::Constant,
        max_grad_norm: 0.0,
    };
    BalancePlan { policy, meta: Some(meta) }
}

/// A trainer that has taken three steps, and everything about its fourth.
struct Fourth {
    trainer: Trainer,
    examples: Vec<u32>,
    ranges: Vec<Range<usize>>,
    second: Vec<u32>,
    noise: Option<Noise>,
    at: At,
}

/// Of the fourth step: large enough that the second set's gradient is another one where it leads.
const RATE: f64 = 3e-2;

impl Fourth {
    fn new(device: fn() -> crate::Device, balance: BalancePlan) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let sets = [
            "training.max_steps=9",
            "training.batch_size=5",
            "training.micro_batch_size=3",
            "objective.temperature=2.0",
        ];
        let mut job = job(Task::Classification, true, &sets, folder.path());
        job.plan.objective.balance = Some(balance);
        let disk = heirloom_store::RealDisk;
        let mut trainer = Trainer::new(job, &disk, &mut |_| device()).expect("a trainer");
        for _ in 0..3 {
            trainer.step().expect("a step");
        }
        let training = &trainer.job.plan.training;
        let cursor = trainer.progress.cursor;
        let (examples, _) =
            trainer.order.next_step(&trainer.job.train, cursor, rule(training.batch));
        let ranges = micro_ranges(&trainer.job.train, &examples, rule(training.micro_batch));
        assert!(ranges.len() > 1, "the step is cut");
        let at = At { step: cursor.step, total: training.total_steps, learning_rate: RATE };
        let second = trainer.second(at).expect("every step is measured");
        trainer.see(&examples, Some(&second));
        let noise = trainer.noise(at);
        Self { trainer, examples, ranges, second, noise, at }
    }

    fn measured(&mut self) -> Measured {
        let Self { trainer, examples, ranges, second, noise, at } = self;
        let (train, teacher) = (&*trainer.job.train, &mut trainer.teacher);
        let mut coming = Coming { train, teacher, examples, ranges, noise: *noise };
        let balancing = trainer.balancing.as_mut().expect("a policy");
        let hypergradient = balancing.second.as_mut().expect("a second set");
        let trial = Trial {
            policy: &*balancing.policy,
            at: *at,
            update: trainer.progress.updates + 1,
            max_grad_norm: trainer.job.plan.training.max_grad_norm,
            words: &trainer.words,
        };
        let (device, pass) = (&mut *trainer.device, &mut trainer.pass);
        hypergradient
            .measure(device, pass, &trainer.student, &mut coming, second, trial)
            .expect("its gradient is not zero")
    }

    fn flat(&self, space: heirloom_engine::Space) -> Vec<f64> {
        self.trainer.device.read_f64(self.view(space))
    }

    fn view(&self, space: heirloom_engine::Space) -> View {
        self.trainer.student.params.flat(space)
    }

    /// The gradient of one loss of one sample of the step.
    fn gradient(&mut self, sample: usize, place: usize) -> Vec<f64> {
        let example = [self.examples[sample]];
        let one = Counts { labelled: 1, sequences: 1, tokens: 1 };
        self.gradient_of(&example, sample, self.noise, one, place..place + 1)
    }

    /// The gradient of the second set's mean loss.
    fn second_gradient(&mut self, places: Range<usize>) -> Vec<f64> {
        let second = self.second.clone();
        let counts = counts(&self.trainer.job.train, &second);
        self.gradient_of(&second, 0, None, counts, places)
    }

    fn gradient_of(
        &mut self,
        examples: &[u32],
        first: usize,
        noise: Option<Noise>,
        counts: Counts,
        places: Range<usize>,
    ) -> Vec<f64> {
        let trainer = &mut self.trainer;
        let (device, pass) = (&mut *trainer.device, &mut trainer.pass);
        trainer.student.clear(device);
        for (at, example) in examples.iter().enumerate() {
            let (train, teacher) = (&trainer.job.train, &mut trainer.teacher);
            let uploaded = pass.upload(device, train, &[*example], first + at, teacher);
            let output = pass.forward(device, noise);
            let d_output = pass.clear(device, output);
            let signals = pass.signals(uploaded, output, Some(d_output), None, None);
            pass.objective.evaluate_some(device, &signals, counts, None, places.clone());
            pass.backward(device, trainer.student.grads, noise);
        }
        let gradient = self.flat(self.trainer.student.grads);
        self.trainer.student.clear(&mut *self.trainer.device);
        gradient
    }

    /// The second set's mean loss at weights moved by `size` times `direction`.
    fn second_loss(&mut self, weights: &[f64], size: f64, direction: &[f64]) -> f64 {
        let moved: Vec<f64> = weights.iter().zip(direction).map(|(w, d)| w + size * d).collect();
        let view = self.view(self.trainer.student.params.weights());
        let trainer = &mut self.trainer;
        let (device, pass) = (&mut *trainer.device, &mut trainer.pass);
        device.write_f64(view, &moved);
        let counts = counts(&trainer.job.train, &self.second);
        let mut sums = [0.0; 2];
        for &example in &self.second {
            let (train, teacher) = (&trainer.job.train, &mut trainer.teacher);
            let uploaded = pass.upload(device, train, &[example], 0, teacher);
            let output = pass.forward(device, None);
            let losses = pass.row_losses(device, uploaded, output);
            sums.iter_mut().zip(losses).for_each(|(sum, loss)| *sum += loss);
        }
        device.write_f64(view, weights);
        sums[LABEL] / counts.labelled as f64 + sums[TEACHER] / counts.sequences as f64
    }
}

#[track_caller]
fn near(what: &str, got: f64, want: f64, relative: f64, size: f64) {
    let bound = relative * want.abs().max(0.1 * size);
    assert!((got - want).abs() <= bound, "{what}: {got}, should be {want}");
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()))
}

const FINITE: Estimator = Estimator::FiniteDifference { radius: 1e-4 };

/// Differentiating twice gives exactly the inner product of two gradients.
#[test]
fn two_forward_passes_give_the_inner_products_of_gradients() {
    for (loss, places) in [(MetaLoss::Mix, 0..2), (MetaLoss::Hard, 0..1), (MetaLoss::Soft, 1..2)] {
        let mut fourth = Fourth::new(double, plan(FINITE, Preconditioner::None, loss));
        let got = fourth.measured().values;
        let v = fourth.second_gradient(places);
        assert!(dot(&v, &v) > 0.0);
        for (at, &value) in got.iter().enumerate() {
            let want = dot(&v, &fourth.gradient(at / 2, at % 2));
            near(&format!("alignment {at}"), value, want, 1e-6, largest(&got));
        }
    }
}

/// A step of plain gradient descent down one loss of one sample changes the second set's loss by
/// minus its alignment.
#[test]
fn an_alignment_is_what_a_step_down_one_loss_does_to_the_second_set() {
    let mut fourth = Fourth::new(double, plan(FINITE, Preconditioner::None, MetaLoss::Mix));
    let got = fourth.measured().values;
    let weights = fourth.flat(fourth.trainer.student.params.weights());
    for (at, &value) in got.iter().enumerate() {
        let gradient = fourth.gradient(at / 2, at % 2);
        let h = 1e-4 / dot(&gradient, &gradient).sqrt().max(1e-3);
        let [more, less] = [h, -h].map(|h| fourth.second_loss(&weights, -h, &gradient));
        near(&format!("{at}"), value, -(more - less) / (2.0 * h), 1e-6, largest(&got));
    }
}

/// The same for the part of AdamW's step that is due to the sample's gradient, its moments those of
/// three real steps.
#[test]
fn with_adamws_diagonal_it_is_what_a_step_of_adamw_does() {
    let mut fourth = Fourth::new(double, plan(FINITE, Preconditioner::Adam, MetaLoss::Mix));
    // The trial steps below move all rows of the table; so do those of a real one.
    fourth.trainer.catch_up();
    let got = fourth.measured().values;
    let (weights_space, grads) =
        (fourth.trainer.student.params.weights(), fourth.trainer.student.grads);
    let (first, second) = (fourth.trainer.student.first, fourth.trainer.student.second);
    let weights = fourth.flat(weights_space);
    let settled: Vec<bool> = fourth.flat(second).iter().map(|&v| v > 0.0).collect();
    let training = &fourth.trainer.job.plan.training;
    let at =
        Move { step: fourth.trainer.progress.updates + 1, learning_rate: 1.0, gradient_scale: 1.0 };
    let (beta1, beta2, epsilon) = (training.adam_beta1, training.adam_beta2, training.adam_epsilon);
    let update = Update::AdamW { beta1, beta2, epsilon, at };
    let spans = fourth.trainer.student.params.spans(0.01);
    for (place, &value) in got.iter().enumerate() {
        let gradient = fourth.gradient(place / 2, place % 2);
        // How a step follows the gradient, by two trial steps.
        let h = 1e-7;
        let [more, less] = [h, -h].map(|h| {
            let small: Vec<f64> = gradient.iter().map(|g| h * g).collect();
            let (to, from) = (fourth.view(weights_space), fourth.view(grads));
            fourth.trainer.device.write_f64(from, &small);
            let spaces = [weights_space, grads, first, second];
            fourth.trainer.device.step_ahead(&Ahead { spaces, spans: &spans, update });
            let moved = fourth.flat(weights_space);
            fourth.trainer.device.write_f64(to, &weights);
            moved
        });
        fourth.trainer.student.clear(&mut *fourth.trainer.device);
        // Numbers without a second moment count as zero; see `Slope`.
        let direction: Vec<f64> = (0..weights.len())
            .map(|at| if settled[at] { (more[at] - less[at]) / (2.0 * h) } else { 0.0 })
            .collect();
        let size = 1e-5 / dot(&direction, &direction).sqrt().max(1e-3);
        let [more, less] = [size, -size].map(|h| fourth.second_loss(&weights, h, &direction));
        let want = -(more - less) / (2.0 * size);
        near(&format!("alignment {place}"), value, want, 1e-4, largest(&got));
    }
}

/// Ahead of the step: the derivative of the second set's loss after a real step with respect to the
/// weight of each loss of each sample, by differences of that weight, the clipping held constant.
#[test]
fn ahead_it_is_the_derivative_of_the_loss_after_a_real_step_with_respect_to_each_weight() {
    for preconditioner in [Preconditioner::None, Preconditioner::Adam] {
        let mut balance = plan(FINITE, preconditioner, MetaLoss::Mix);
        let here = Fourth::new(double, balance.clone()).measured().values;
        balance.meta.as_mut().expect("made above").at = MetaAt::Ahead;
        let mut fourth = Fourth::new(double, balance);
        fourth.trainer.catch_up();
        let before = fourth.flat(fourth.trainer.student.params.weights());
        let got = fourth.measured().values;
        let student = &fourth.trainer.student;
        let (space, grads) = (student.params.weights(), student.grads);
        let moments = [student.first, student.second];
        let weights = fourth.flat(space);
        assert!(before == weights, "the weights are back");
        assert!(fourth.flat(grads).iter().all(|&g| g == 0.0), "no gradient is left");
        let kept = moments.map(|space| fourth.flat(space));

        let gradients: Vec<Vec<f64>> =
            (0..got.len()).map(|at| fourth.gradient(at / 2, at % 2)).collect();
        let balancing = fourth.trainer.balancing.as_ref().expect("a policy");
        let labels = vec![Some(0); fourth.examples.len()];
        let losses = vec![0.0; got.len()];
        let ids = &fourth.examples;
        let nothing: &[f32] = &[];
        let decided = balancing.policy.decide(
            &Samples {
                ids,
                labels: &labels,
                classes: 0,
                student: nothing,
                teacher: nothing,
                losses: &losses,
                features: nothing,
            },
            fourth.at,
        );
        let counts = counts(&fourth.trainer.job.train, &fourth.examples);
        let count = |at: usize| [counts.labelled, counts.sequences][at % 2] as f64;
        let whole = |changed: usize, by: f64| -> Vec<f64> {
            let mut sum = vec![0.0; weights.len()];
            for (at, gradient) in gradients.iter().enumerate() {
                let by = if at == changed { by } else { 0.0 };
                let weight = (decided.weights[at] + by) / count(at);
                sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += weight * g);
            }
            sum
        };
        let all = whole(0, 0.0);
        let training = &fourth.trainer.job.plan.training;
        let clip = clip(training.max_grad_norm, dot(&all, &all).sqrt());
        let (beta1, beta2, epsilon) =
            (training.adam_beta1, training.adam_beta2, training.adam_epsilon);
        let spans = fourth.trainer.student.params.spans(training.weight_decay);
        let step = fourth.trainer.progress.updates + 1;
        let mut lost = |gradient: &[f64]| {
            let moved = match preconditioner {
                Preconditioner::None => {
                    weights.iter().zip(gradient).map(|(w, g)| w - RATE * clip * g).collect()
                }
                Preconditioner::Adam => {
                    let (view, from) = (fourth.view(space), fourth.view(grads));
                    let views = moments.map(|space| fourth.view(space));
                    let device = &mut *fourth.trainer.device;
                    device.write_f64(from, gradient);
                    device.adamw(&heirloom_engine::AdamW {
                        spaces: [space, grads, moments[0], moments[1]],
                        spans: &spans,
                        learning_rate: RATE,
                        beta1,
                        beta2,
                        epsilon,
                        step,
                        gradient_scale: clip,
                    });
                    let moved = device.read_f64(view);
                    device.write_f64(view, &weights);
                    views.iter().zip(&kept).for_each(|(view, kept)| device.write_f64(*view, kept));
                    device.fill(from, 0.0);
                    moved
                }
            };
            fourth.second_loss(&weights, 1.0, &difference(&moved, &weights))
        };
        for (at, &value) in got.iter().enumerate() {
            let h = 1e-4;
            let [more, less] = [h, -h].map(|h| lost(&whole(at, h)));
            let slope = (more - less) / (2.0 * h);
            let want = -slope * count(at) / RATE;
            near(&format!("{preconditioner}: {at}"), value, want, 1e-4, largest(&got));
        }
        let apart = largest(&difference(&got, &here));
        assert!(apart > 1e-2 * largest(&got), "ahead of the step is another place: {apart}");
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// The first measurement of a run is held against differences of the second set's loss; one that is
/// not its slope, and one of nothing, are told apart from a good one.
#[test]
fn the_first_measurement_is_checked() {
    for (device, radius, double) in [(single as fn() -> _, 1e-2, false), (double, 1e-4, true)] {
        for at in [MetaAt::Here, MetaAt::Ahead] {
            for preconditioner in [Preconditioner::None, Preconditioner::Adam] {
                for loss in [MetaLoss::Mix, MetaLoss::Hard] {
                    let mut balance = plan(FINITE, preconditioner, loss);
                    let meta = balance.meta.as_mut().expect("made above");
                    (meta.at, meta.warmup_steps, meta.check) = (at, 3, true);
                    meta.estimator = Estimator::FiniteDifference { radius };
                    let mut fourth = Fourth::new(device, balance);
                    let spaces =
                        [fourth.trainer.student.params.weights(), fourth.trainer.student.grads];
                    let before = spaces.map(|space| fourth.flat(space));
                    let check = fourth.measured().check.expect("asked for");
                    assert!(spaces.map(|space| fourth.flat(space)) == before, "all as it was");
                    assert!(check.said > 0.0 && check.holds(), "{at} {preconditioner}: {check:?}");
                    if double {
                        near("slope", check.said, check.found, 1e-4, check.said);
                    }
                    let off = Check { found: 0.85 * check.said, ..check };
                    let turned = Check { found: -check.said, ..check };
                    assert!(!off.holds() && !turned.holds());
                }
            }
        }
    }
}

/// With AdamW's scale and no step before, nothing is known of any number's size: the first
/// measurement is of nothing, and a run that checks it does not begin.
#[test]
fn a_hypergradient_of_nothing_ends_the_run_with_its_own_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let sets = ["training.max_steps=4", "training.batch_size=5"];
    let mut job = job(Task::Classification, true, &sets, folder.path());
    let mut balance = plan(FINITE, Preconditioner::Adam, MetaLoss::Mix);
    balance.meta.as_mut().expect("made above").check = true;
    job.plan.objective.balance = Some(balance);
    let disk = heirloom_store::RealDisk;
    let mut trainer = Trainer::new(job, &disk, &mut |_| double()).expect("a trainer");
    let error = trainer.step().expect_err("nothing to go by");
    assert!(matches!(error, Error::NoHypergradient { step: Step(1) }), "{error}");
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().contains("of step 1 is zero"), "{error}");
    let (step, bound) = (Step(3), Check::BOUND);
    let wrong = Error::WrongHypergradient { step, said: 1.5, found: -0.25, bound };
    assert_eq!(wrong.exit_code(), 5);
    let said = wrong.to_string();
    assert!(said.contains("by 1.500e0 along it, finite differences say -2.500e-1"), "{said}");
    assert!(said.contains("more than 10 %"), "{said}");
}

/// On the classifier's own weights the closed form is the whole inner product.
#[test]
fn the_last_layers_closed_form_is_the_inner_product_over_the_last_layer() {
    let last = plan(Estimator::LastLayer, Preconditioner::None, MetaLoss::Mix);
    let mut fourth = Fourth::new(double, last);
    let got = fourth.measured().values;
    let v = fourth.second_gradient(0..2);
    let params = fourth.trainer.student.params.clone();
    let layer = ["classifier.weight", "classifier.bias"].map(|name| {
        let param = params.find(name).expect("the classifier");
        param.offset..param.offset + param.len()
    });
    for (at, &value) in got.iter().enumerate() {
        let gradient = fourth.gradient(at / 2, at % 2);
        let parts = layer.clone().map(|range| dot(&v[range.clone()], &gradient[range]));
        // Features and logits pass through single precision.
        near(&format!("{at}"), value, parts[0] + parts[1], 1e-5, largest(&got));
    }
}

#[test]
fn measuring_leaves_weights_and_gradient_in_every_bit() {
    for device in [single, double] {
        for preconditioner in [Preconditioner::None, Preconditioner::Adam] {
            let mut fourth = Fourth::new(device, plan(FINITE, preconditioner, MetaLoss::Mix));
            let spaces = [fourth.trainer.student.params.weights(), fourth.trainer.student.grads];
            let before = spaces.map(|space| fourth.flat(space));
            assert!(before[1].iter().all(|&g| g == 0.0), "no gradient between steps");
            let first = fourth.measured();
            assert!(spaces.map(|space| fourth.flat(space)) == before);
            assert!(fourth.measured() == first, "measured again");
        }
    }
}

/// In single precision the differences of two losses keep few digits; these are the ones that count.
#[test]
fn single_precision_measures_what_double_does() {
    let radius = Estimator::FiniteDifference { radius: 1e-2 };
    let balance = || plan(radius, Preconditioner::None, MetaLoss::Mix);
    let want = Fourth::new(double, balance()).measured().values;
    let got = Fourth::new(single, balance()).measured().values;
    let size = largest(&want);
    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((got - want).abs() <= 2e-3 * size, "alignment {at}: {got}, should be {want}");
    }
}

/// Shares follow the alignments, and reach the loss: with all of the teacher's the step is that of
/// the teacher's term alone.
#[test]
fn a_step_reports_its_shares() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut job = job(
        Task::Labelled,
        true,
        &["training.max_steps=4", "training.batch_size=8"],
        folder.path(),
    );
    job.plan.objective.balance = Some(plan(FINITE, Preconditioner::None, MetaLoss::Mix));
    let disk = heirloom_store::RealDisk;
    let mut trainer = Trainer::new(job, &disk, &mut |_| single()).expect("a trainer");
    while !trainer.progress.finished {
        let record = trainer.step().expect("a step");
        let balance = record.balance.expect("a policy reports");
        assert!(balance.measured);
        assert!((0.0..=1.0).contains(&balance.mean), "{balance:?}");
        let [low, middle, high] = balance.quantiles;
        assert!(low <= middle && middle <= high);
        let terms = ["label", "teacher"].map(|name| record.terms[name].mean.expect("counted"));
        let most = terms[0].max(terms[1]) * 2.0;
        assert!(record.loss > 0.0 && record.loss < most, "{} of {terms:?}", record.loss);
    }
}

/// Between two measurements, everything that a policy has learnt goes on: cursor, weights per
/// example, shares.
#[test]
fn a_run_resumed_between_two_measurements_ends_in_the_same_bits() {
    let balance = || {
        let mut plan = plan(FINITE, Preconditioner::Adam, MetaLoss::Mix);
        let PolicyPlan::RwKd { ema, .. } = &mut plan.policy else { unreachable!("made above") };
        *ema = 0.5;
        let meta = plan.meta.as_mut().expect("made above");
        (meta.every, meta.warmup_steps, meta.batch_size) = (3, 1, 7);
        (meta.at, meta.estimator) = (MetaAt::Ahead, Estimator::FiniteDifference { radius: 1e-2 });
        plan
    };
    let folder = tempfile::tempdir().expect("a folder");
    let begin = || {
        let sets = ["training.max_steps=9", "training.batch_size=5", "training.save_steps=5"];
        let mut job = job(Task::Classification, true, &sets, folder.path());
        job.plan.objective.balance = Some(balance());
        let disk = heirloom_store::RealDisk;
        Trainer::new(job, &disk, &mut |_| single()).expect("a trainer")
    };
    let mut whole = begin();
    let mut records = Vec::new();
    let (mut run, mut at_five) = (None, None);
    while !whole.progress.finished {
        records.push(whole.step().expect("a step"));
        if whole.progress.cursor.step == 5 {
            let holder = heirloom_store::Holder::this_process("now");
            let path = folder.path().join("run");
            let disk = &heirloom_store::RealDisk;
            let mut folder =
                crate::RunFolder::create(disk, &path, &holder, "plan").expect("a run folder");
            folder.commit(&mut whole).expect("a checkpoint");
            at_five = Some(whole.progress.clone());
            run = Some(folder);
        }
    }
    let mut resumed = begin();
    let mut run = run.expect("five steps were taken");
    run.restore(&mut resumed, Step(5)).expect("its checkpoint");
    assert_eq!(Some(&resumed.progress), at_five.as_ref());
    assert!(resumed.progress.second.step > 0, "the second set's cursor moved");
    shares_of_the_checkpoint_are_those_of(&resumed, &folder.path().join("run"));
    let mut after = Vec::new();
    while !resumed.progress.finished {
        after.push(resumed.step().expect("a step"));
    }
    let measured = records.iter().map(|record| record.balance.as_ref().expect("policy").measured);
    let want = (0..9).map(|step| step >= 1 && (step - 1) % 3 == 0);
    assert_eq!(measured.collect::<Vec<_>>(), want.collect::<Vec<_>>());
    assert_eq!(after, records[5..]);
    assert!(resumed.weights() == whole.weights());
    let shares = |trainer: &Trainer| -> Vec<u64> {
        let balancing = trainer.balancing.as_ref().expect("a policy");
        balancing.state().iter().map(|x| x.to_bits()).collect()
    };
    assert_eq!(shares(&resumed), shares(&whole));
}

/// What is read of a checkpoint without a trainer: the shares, and no more of them than there are.
fn shares_of_the_checkpoint_are_those_of(trainer: &Trainer, run: &std::path::Path) {
    let disk = &heirloom_store::RealDisk;
    assert_eq!(crate::RunFolder::steps(disk, run).expect("a run folder"), [Step(5)]);
    let committed = heirloom_store::Committed::open_step(disk, run, Step(5)).expect("whole");
    let shares = trainer.shares().expect("a policy");
    let read = crate::RunFolder::shares(&committed, shares.len()).expect("one for each example");
    let bits = |shares: &[f64]| shares.iter().map(|share| share.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read), bits(shares));
    assert!(read.iter().any(|share| (0.0..=1.0).contains(share)), "some were trained on");
    let more = crate::RunFolder::shares(&committed, 1000).expect_err("there are not so many");
    assert!(more.to_string().contains("expected one for each of 1000"), "{more}");
}

/// The mean of `CE(q, s)` over the step's samples is stepped down, for a target that a second set
/// teaches; how the second set's loss then moves with each parameter of the target is held against
/// central differences of it.
#[test]
fn the_slope_of_each_learnt_target_is_that_of_the_second_sets_loss_after_a_step() {
    /// Small, so that the step is straight enough; what is found is divided by it.
    const RATE: f64 = 1e-6;
    for method in ["learned_smoothing", "learned_labo", "per_class", "per_instance"] {
        let folder = tempfile::tempdir().expect("a folder");
        let method = format!("objective.regularizer.method={method}");
        let sets = [
            "training.max_steps=9",
            "training.batch_size=5",
            "training.micro_batch_size=3",
            "objective.regularizer.meta={ source = \"train\", batch_size = 6, radius = 1e-3 }",
            &method,
        ];
        let job = job(Task::Labelled, false, &sets, folder.path());
        let disk = heirloom_store::RealDisk;
        let mut trainer = Trainer::new(job, &disk, &mut |_| double()).expect("a trainer");
        for _ in 0..2 {
            trainer.step().expect("a step");
        }
        let cursor = trainer.progress.cursor;
        let training = trainer.job.plan.training.clone();
        let (examples, _) =
            trainer.order.next_step(&trainer.job.train, cursor, rule(training.batch));
        let ranges = micro_ranges(&trainer.job.train, &examples, rule(training.micro_batch));
        let at = At { step: cursor.step, total: training.total_steps, learning_rate: 0.0 };
        let second = trainer.taught(at).expect("every step is measured");
        trainer.see(&examples, Some(&second));
        let state =
            |trainer: &Trainer| trainer.pass.regularizing.as_ref().expect("made above").state();
        let before = state(&trainer);

        // Adam's first moment after one step is a tenth of the gradient that it was given.
        trainer.teach(&examples, &ranges, &second, at);
        trainer.pass.regularizing.as_mut().expect("made above").stepped(false);
        let after = state(&trainer);
        let count = (before.len() - 1) / 3;
        let moments = 1 + count..1 + 2 * count;
        let got: Vec<f64> = after[moments.clone()]
            .iter()
            .zip(&before[moments])
            .map(|(after, before)| (after - 0.9 * before) / 0.1)
            .collect();

        let weights = trainer.student.params.flat(trainer.student.params.weights());
        let kept = trainer.device.read_f64(weights);
        let mut second_loss = |state: &[f64]| {
            assert!(trainer.pass.regularizing.as_mut().expect("made above").restore(state));
            let counts = counts(&trainer.job.train, &examples);
            let noise = trainer.noise(at);
            let (device, pass) = (&mut *trainer.device, &mut trainer.pass);
            trainer.student.clear(device);
            for range in &ranges {
                let (train, teacher) = (&trainer.job.train, &mut trainer.teacher);
                let chosen = &examples[range.clone()];
                let uploaded = pass.upload(device, train, chosen, range.start, teacher);
                let output = pass.forward(device, noise);
                let uploaded = pass.regularize(device, uploaded, output);
                let d_output = pass.clear(device, output);
                let signals = pass.signals(uploaded, output, Some(d_output), None, None);
                pass.objective.evaluate_some(device, &signals, counts, None, 0..1);
                pass.backward(device, trainer.student.grads, noise);
            }
            let gradient = trainer.student.params.flat(trainer.student.grads);
            device.add_scaled(-RATE, gradient, weights);
            trainer.student.clear(device);
            let mut sum = 0.0;
            for &example in &second {
                let (train, teacher) = (&trainer.job.train, &mut trainer.teacher);
                let uploaded = pass.upload(device, train, &[example], 0, teacher);
                let output = pass.forward(device, None);
                let signals = pass.signals(uploaded, output, None, None, None);
                let losses = pass.objective.row_losses(device, &signals, 0);
                sum += device.read_f64(losses)[0];
            }
            device.write_f64(weights, &kept);
            sum / second.len() as f64
        };
        let mut changed = after.clone();
        changed[1..=count].copy_from_slice(&before[1..=count]);
        let size = largest(&got);
        assert!(size > 0.0, "{method}: something is to be learnt");
        // A network has thousands of parameters; some of each layer stand for the others.
        for parameter in (0..count).step_by((count / 24).max(1)) {
            let step = 1e-2;
            let mut at = |by: f64| {
                let mut state = changed.clone();
                state[1 + parameter] += by;
                second_loss(&state)
            };
            let want = (at(step) - at(-step)) / (2.0 * step) / RATE;
            near(&format!("{method}, {parameter}"), got[parameter], want, 1e-4, size);
        }
    }
}

/// What is frozen needs no gradient: without one each step is the same, to the bit, and computes less.
#[test]
fn gradients_of_what_is_frozen_are_left_out_and_no_bit_changes() {
    use heirloom_recipe::{Frozen, GroupPlan};
    let frozen = |pattern: &str, frozen| GroupPlan { frozen, ..GroupPlan::of(pattern, 1.0) };
    let own = |at| {
        let loss = MetaLoss::Mix;
        let mut balance =
            plan(Estimator::FiniteDifference { radius: 1e-2 }, Preconditioner::Adam, loss);
        balance.meta.as_mut().expect("a second set").at = at;
        Some(balance)
    };
    let sets = ["training.max_steps=6", "training.batch_size=5", "training.micro_batch_size=3"];
    let below =
        [frozen("bert.embeddings.*", Frozen::Always), frozen("*.layer.0.*", Frozen::Until(4))];
    let probe = [frozen("bert.*", Frozen::Always)];
    let between = [frozen("*.layer.1.*", Frozen::Always)];
    // One matrix with keys and values, whose products are one: its gradient is computed and dropped,
    // until it moves.
    let part = [frozen("*.query.weight", Frozen::Until(3))];
    for groups in [&below[..], &probe, &between, &part] {
        for balance in [None, own(MetaAt::Here), own(MetaAt::Ahead)] {
            for device in [double, single] {
                let run = |all: bool| {
                    let folder = tempfile::tempdir().expect("a folder");
                    let mut job = job(Task::Classification, true, &sets, folder.path());
                    job.plan.training.groups = groups.to_vec();
                    job.plan.objective.balance.clone_from(&balance);
                    let disk = heirloom_store::RealDisk;
                    let mut trainer =
                        Trainer::new(job, &disk, &mut |_| device()).expect("a trainer");
                    trainer.student.ask_all(all);
                    let steps: Vec<_> = (0..6)
                        .map(|_| {
                            let step = trainer.step().expect("a step");
                            (step.loss, step.gradient_norm)
                        })
                        .collect();
                    let space = trainer.student.params.weights();
                    trainer.student.catch_up(&mut *trainer.device);
                    let weights = trainer.device.read_f64(trainer.student.params.flat(space));
                    (steps, weights, trainer.device.operations())
                };
                let ((steps, weights, took), (all_steps, all_weights, whole)) =
                    (run(false), run(true));
                assert_eq!(steps, all_steps, "{groups:?} {balance:?}");
                assert!(weights == all_weights, "{groups:?} {balance:?}");
                assert_eq!(took < whole, groups != part, "{took} of {whole}: {groups:?}");
            }
        }
    }
}
