//! Every policy with arithmetic of its own against `fixtures/policies.json`, worked out by
//! `fixtures/make_policies.py` from derivatives of the losses themselves.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use heirloom_balance::{
    AdaKd, Adam, Adoption, Alignments, At, Ctkd, Decision, Doubt, DynamicKd, GradNorm, L2rw,
    MetaWeightNet, Normalize, Output, Policy, RwKd, Samples, Sight, TgeoKd, Uncertainty, Wsl,
};
use serde_json::Value;

const STEPS: usize = 5;
const CLASSES: usize = 3;
/// As many as the fixture's rows.
const EXAMPLES: usize = 6;

/// Sums of a few dozen terms of size 1 in another order, over five steps; Adam divides by roots of
/// small gradients, which costs two digits.
const BOUND: f64 = 1e-12;

struct Fixture {
    file: Value,
    ids: Vec<u32>,
    labels: Vec<Option<u32>>,
    student: Vec<f32>,
    teacher: Vec<f32>,
    features: Vec<f32>,
    losses: Vec<f64>,
    alignments: Vec<f64>,
}

/// All numbers below a value, in order.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

impl Fixture {
    fn open() -> Self {
        let file: Value = serde_json::from_str(include_str!("../fixtures/policies.json")).unwrap();
        let wide = |name: &str| numbers(&file[name]);
        let single = |name| wide(name).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        let labels = file["labels"].as_array().unwrap();
        let labels = labels.iter().map(|label| label.as_u64().map(|label| label as u32));
        Self {
            ids: (0..EXAMPLES as u32).collect(),
            labels: labels.collect(),
            student: single("student"),
            teacher: single("teacher"),
            features: single("features"),
            losses: wide("losses"),
            alignments: wide("alignments"),
            file,
        }
    }

    fn samples(&self, step: usize) -> Samples<'_> {
        let of_step = step * 2 * EXAMPLES..(step + 1) * 2 * EXAMPLES;
        Samples {
            ids: &self.ids,
            labels: &self.labels,
            classes: CLASSES,
            student: &self.student,
            teacher: &self.teacher,
            losses: &self.losses[of_step],
            features: &self.features,
        }
    }

    /// Mean losses of a step, the label's over those that have one.
    fn means(&self, step: usize) -> [f64; 2] {
        let samples = self.samples(step);
        let mut sums = [(0.0, 0.0); 2];
        for (row, label) in self.labels.iter().enumerate() {
            for (loss, (sum, count)) in sums.iter_mut().enumerate() {
                if loss == 1 || label.is_some() {
                    *sum += samples.losses(row)[loss];
                    *count += 1.0;
                }
            }
        }
        sums.map(|(sum, count)| sum / count)
    }

    /// What a policy decides at each step of the run.
    fn run(&self, policy: &mut dyn Policy) -> Vec<Decision> {
        let step = |step: usize| {
            let at = At { step: step as u64, total: STEPS as u64, learning_rate: 0.01 };
            let samples = self.samples(step);
            if policy.needs().alignments {
                let values = &self.alignments[step * 2 * EXAMPLES..(step + 1) * 2 * EXAMPLES];
                policy.align(&Alignments { samples, values }, at);
            }
            let decision = policy.decide(&samples, at);
            policy.observe(&samples, at);
            policy.learn(&self.means(step), at);
            decision
        };
        (0..STEPS).map(step).collect()
    }

    #[track_caller]
    fn check(&self, got: &[f64], want: &Value) {
        let want = numbers(want);
        assert_eq!(got.len(), want.len());
        for (at, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((got - want).abs() < BOUND, "number {at}: {got}, should be {want}");
        }
    }

    /// The weights of the first step.
    #[track_caller]
    fn first(&self, mut policy: impl Policy, want: &Value) {
        self.check(&self.run(&mut policy)[0].weights, want);
    }

    /// The weights of every step.
    #[track_caller]
    fn all(&self, policy: &mut dyn Policy, want: &str) {
        let weights = self.run(policy).into_iter().flat_map(|decision| decision.weights);
        self.check(&weights.collect::<Vec<_>>(), &self.file[want]);
    }
}

#[test]
fn weights_from_one_sample_at_a_time() {
    let fixture = Fixture::open();
    fixture.first(Wsl { alpha: 2.5 }, &fixture.file["wsl"]);
    fixture.first(AdaKd { temperature: 1.5 }, &fixture.file["ada_kd"]);
}

#[test]
fn weights_from_the_students_doubt() {
    let fixture = Fixture::open();
    let select = |by| Adoption::Select { share: 0.25, by };
    for (name, adoption) in [
        ("sample", Adoption::Sample),
        ("batch", Adoption::Batch),
        // Of six samples a quarter is two.
        ("entropy", select(Doubt::Entropy)),
        ("margin", select(Doubt::Margin)),
        ("confidence", select(Doubt::LeastConfidence)),
    ] {
        let want = &fixture.file["dynamic_kd"][name];
        fixture.first(DynamicKd { alpha: 0.7, adoption }, want);
    }
}

#[test]
fn weights_from_alignments() {
    let fixture = Fixture::open();
    let rw_kd = RwKd::new(EXAMPLES, Normalize::Terms, 1e-8, [0.0, 1.0], 0.0, 0.5);
    fixture.first(rw_kd, &fixture.file["rw_kd"]);
    fixture.first(L2rw::new(EXAMPLES, 0.4, 0.0), &fixture.file["l2rw"]);
}

#[test]
fn a_temperature_that_goes_up_the_loss() {
    let fixture = Fixture::open();
    let decisions = fixture.run(&mut Ctkd::new(0.9, [1.0, 20.0], 0.5, 0.6));
    let got = decisions.into_iter().map(|decision| decision.temperature.unwrap());
    fixture.check(&got.collect::<Vec<_>>(), &fixture.file["ctkd"]);
}

/// The fixture has one pair of weights per step, which all samples share.
#[test]
fn weights_learnt_from_the_steps_means() {
    let fixture = Fixture::open();
    let uncertainty = &mut Uncertainty::new(0.3, 1.0);
    let gradnorm = &mut GradNorm::new(1.5, 0.1, 2.0);
    let policies: [(&mut dyn Policy, _); 2] =
        [(uncertainty, "uncertainty"), (gradnorm, "gradnorm")];
    for (policy, want) in policies {
        let pairs = fixture.run(policy).into_iter().flat_map(|decision| {
            let pair = decision.of(0);
            assert_eq!(decision, Decision::uniform(EXAMPLES, pair[0], pair[1]));
            pair
        });
        fixture.check(&pairs.collect::<Vec<_>>(), &fixture.file[want]);
    }
}

/// The first parameters of the fixture's networks, as they lie in a state.
fn begin(policy: &mut dyn Policy, widths: &[usize]) {
    let count: usize = widths.windows(2).map(|pair| pair[1] * (pair[0] + 1)).sum();
    let mut state = policy.state();
    for (at, parameter) in state[1..=count].iter_mut().enumerate() {
        *parameter = ((at * 7919) % 1009) as f64 / 1009.0 - 0.5;
    }
    policy.restore(&state).unwrap();
}

#[test]
fn networks_that_learn_what_helps_a_second_set() {
    let fixture = Fixture::open();
    let adam = Adam { learning_rate: 0.05, weight_decay: 0.1 };
    for (name, sight, output, widths) in [
        ("meta_weight_net", Sight::Losses, Output::Weights, [2, 100, 2]),
        ("meta_weight_net_share", Sight::Losses, Output::Share, [2, 100, 1]),
        ("meta_weight_net_logits", Sight::TeacherLogits, Output::Share, [CLASSES, 100, 1]),
    ] {
        let mut policy = MetaWeightNet::new(sight, output, CLASSES, 1, adam);
        begin(&mut policy, &widths);
        fixture.all(&mut policy, name);
    }
    let mut policy = TgeoKd::new(CLASSES, 1, adam);
    begin(&mut policy, &[4 * CLASSES + 5, 32, 16, 1]);
    fixture.all(&mut policy, "tgeo_kd");
}
