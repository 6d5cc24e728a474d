//! Alignments with a second set against what they stand for: inner products of gradients, and the
//! second set's loss after a step. In double precision, on a model of two layers with dropout.

#[path = "../../tests/steps/tiny.rs"]
#[expect(dead_code, reason = "shared with the tests of whole runs")]
mod tiny;

use heirloom_balance::{LABEL, TEACHER};
use heirloom_engine::{Ahead, Update, View};
use heirloom_recipe::{
    BalancePlan, Estimator, MetaLoss, MetaPlan, MetaSource, PolicyPlan, Preconditioner,
};

use super::*;
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
}

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
        let at = At { step: cursor.step, total: training.total_steps, learning_rate: 0.0 };
        let second = trainer.second(at).expect("every step is measured");
        trainer.see(&examples, Some(&second));
        let noise = trainer.noise(at);
        Self { trainer, examples, ranges, second, noise }
    }

    fn measured(&mut self) -> Measured {
        let Self { trainer, examples, ranges, second, noise } = self;
        let (train, teacher) = (&*trainer.job.train, &mut trainer.teacher);
        let mut coming = Coming { train, teacher, examples, ranges, noise: *noise };
        let balancing = trainer.balancing.as_mut().expect("a policy");
        let hypergradient = balancing.second.as_mut().expect("a second set");
        let update = trainer.progress.updates + 1;
        let (device, pass) = (&mut *trainer.device, &mut trainer.pass);
        hypergradient
            .measure(device, pass, &trainer.student, &mut coming, second, update)
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
            at_five = Some(whole.progress);
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
