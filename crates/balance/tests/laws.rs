//! What holds for every policy, whatever it is given: weights are finite and not negative; a run
//! that was interrupted decides what one that was not would; a step may be cut anywhere unless the
//! policy asks for it at once; the numbers of another policy are refused.

use heirloom_balance::{
    AdaKd, Adam, Adoption, Alignments, AnnealingKd, At, ContinuationKd, Course, Ctkd, Decision,
    Doubt, DynamicKd, Fixed, GradNorm, L2rw, MetaWeightNet, Normalize, Output, Policy, RwKd,
    Samples, Schedule, Sight, TgeoKd, Uncertainty, Wsl,
};
use proptest::prelude::*;

const EXAMPLES: usize = 6;
const WIDTH: usize = 3;
const TOTAL: u64 = 8;

/// Every policy, fresh, and its extremes.
fn policies(classes: usize) -> Vec<Box<dyn Policy>> {
    let adam = Adam { learning_rate: 0.1, weight_decay: 0.01 };
    let rw_kd = |normalize, floor| RwKd::new(EXAMPLES, normalize, floor, [0.0, 1.0], 0.5, 0.5);
    let net = |sight, output| MetaWeightNet::new(sight, output, classes, 3, adam);
    let dynamic = |alpha, adoption| DynamicKd { alpha, adoption };
    let select = |share, by| dynamic(1.0, Adoption::Select { share, by });
    vec![
        Box::new(Fixed { alpha: 0.0 }),
        Box::new(Fixed { alpha: 1.0 }),
        Box::new(Schedule { from: 1.0, to: 0.0, course: Course::Cosine }),
        Box::new(AnnealingKd { phase_one: 0.6, levels: 3 }),
        Box::new(ContinuationKd { levels: 4, margin: 2.0 }),
        Box::new(Uncertainty::new(1.0, 3.0)),
        Box::new(GradNorm::new(1.5, 0.5, 2.0)),
        Box::new(GradNorm::new(0.0, 1e6, 20.0)),
        Box::new(Wsl { alpha: 2.5 }),
        Box::new(AdaKd { temperature: 1.0 }),
        Box::new(AdaKd { temperature: 1e30 }),
        Box::new(dynamic(0.5, Adoption::Sample)),
        Box::new(dynamic(0.0, Adoption::Batch)),
        Box::new(select(0.5, Doubt::Entropy)),
        Box::new(select(0.0, Doubt::Margin)),
        Box::new(select(1.0, Doubt::LeastConfidence)),
        Box::new(Ctkd::new(0.9, [1.0, 20.0], 10.0, 0.5)),
        Box::new(rw_kd(Normalize::Terms, 1e-8)),
        Box::new(rw_kd(Normalize::Batch, 0.0)),
        Box::new(rw_kd(Normalize::None, 0.0)),
        Box::new(L2rw::new(EXAMPLES, 0.0, 0.0)),
        Box::new(L2rw::new(EXAMPLES, 0.4, 0.5)),
        Box::new(net(Sight::Losses, Output::Weights)),
        Box::new(net(Sight::Losses, Output::Share)),
        Box::new(net(Sight::TeacherLogits, Output::Weights)),
        Box::new(TgeoKd::new(classes, 3, adam)),
    ]
}

/// A step's samples, owned.
#[derive(Clone, Debug)]
struct Step {
    classes: usize,
    ids: Vec<u32>,
    labels: Vec<Option<u32>>,
    student: Vec<f32>,
    teacher: Vec<f32>,
    features: Vec<f32>,
    losses: Vec<f64>,
    alignments: Vec<f64>,
}

impl Step {
    fn samples(&self, rows: std::ops::Range<usize>) -> Samples<'_> {
        let (from, to) = (rows.start, rows.end);
        Samples {
            ids: &self.ids[rows.clone()],
            labels: &self.labels[rows],
            classes: self.classes,
            student: &self.student[from * self.classes..to * self.classes],
            teacher: &self.teacher[from * self.classes..to * self.classes],
            losses: &self.losses[2 * from..2 * to],
            features: &self.features[from * WIDTH..to * WIDTH],
        }
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    /// One step in parts of `cut` rows; the weights of all, and what was decided of the whole step.
    fn run(&self, policy: &mut dyn Policy, step: u64, cut: usize) -> Decision {
        let at = At { step, total: TOTAL, learning_rate: 1e-2 };
        if policy.needs().alignments {
            let samples = self.samples(0..self.len());
            policy.align(&Alignments { samples, values: &self.alignments }, at);
        }
        let mut whole = Decision::default();
        for from in (0..self.len()).step_by(cut) {
            let samples = self.samples(from..(from + cut).min(self.len()));
            let part = policy.decide(&samples, at);
            assert_eq!(part.weights.len(), 2 * samples.len());
            whole.weights.extend(part.weights);
            (whole.temperature, whole.teacher_scale) = (part.temperature, part.teacher_scale);
            policy.observe(&samples, at);
        }
        let mean = |loss: usize| {
            let losses = self.losses.iter().skip(loss).step_by(2);
            losses.sum::<f64>() / self.len() as f64
        };
        policy.learn(&[mean(0), mean(1)], at);
        whole
    }
}

/// Logits of ordinary and of great size; all but the first of a row may be −∞.
fn logits(rows: usize, classes: usize) -> impl Strategy<Value = Vec<f32>> {
    let finite = prop_oneof![6 => -5.0f32..5.0, 1 => -1e4f32..1e4];
    let number = (finite, prop::bool::weighted(0.1));
    prop::collection::vec(number, rows * classes).prop_map(move |numbers| {
        let of = |(at, (number, gone)): (usize, (f32, bool))| {
            if gone && at % classes > 0 { f32::NEG_INFINITY } else { number }
        };
        numbers.into_iter().enumerate().map(of).collect()
    })
}

fn step(classes: usize) -> impl Strategy<Value = Step> {
    (0..=EXAMPLES).prop_flat_map(move |rows| {
        let ids = Just((0..EXAMPLES as u32).collect::<Vec<_>>()).prop_shuffle();
        let label = prop::option::weighted(0.7, 0..classes as u32);
        let loss = prop_oneof![8 => 0.0..5.0, 1 => Just(0.0), 1 => Just(f64::INFINITY)];
        (
            ids,
            prop::collection::vec(label, rows),
            (logits(rows, classes), logits(rows, classes)),
            prop::collection::vec(-3.0f32..3.0, rows * WIDTH),
            prop::collection::vec(loss, 2 * rows),
            prop::collection::vec(prop_oneof![4 => -5.0..5.0, 1 => Just(0.0)], 2 * rows),
        )
            .prop_map(move |(mut ids, labels, logits, features, losses, alignments)| {
                ids.truncate(rows);
                let (student, teacher) = logits;
                Step { classes, ids, labels, student, teacher, features, losses, alignments }
            })
    })
}

fn run() -> impl Strategy<Value = (usize, Vec<Step>)> {
    (1..=4usize).prop_flat_map(|classes| {
        (Just(classes), prop::collection::vec(step(classes), TOTAL as usize))
    })
}

proptest! {
    #[test]
    fn weights_are_finite_and_not_negative((classes, steps) in run()) {
        for mut policy in policies(classes) {
            for (at, step) in steps.iter().enumerate() {
                let decision = step.run(&mut *policy, at as u64, EXAMPLES);
                let sound = decision.weights.iter().all(|&weight| weight.is_finite() && weight >= 0.0);
                prop_assert!(sound, "{policy:?} decided {decision:?}");
                let positive = |value: Option<f64>| value.is_none_or(|x| x > 0.0 && x.is_finite());
                prop_assert!(positive(decision.temperature) && positive(decision.teacher_scale));
            }
        }
    }

    #[test]
    fn an_interrupted_run_decides_what_another_would((classes, steps) in run(), half in 0..8usize) {
        for (mut policy, mut resumed) in policies(classes).into_iter().zip(policies(classes)) {
            for (at, step) in steps[..half].iter().enumerate() {
                step.run(&mut *policy, at as u64, EXAMPLES);
            }
            prop_assert_eq!(resumed.restore(&policy.state()), Ok(()));
            for (at, step) in steps.iter().enumerate().skip(half) {
                let decisions = [&mut policy, &mut resumed]
                    .map(|policy| step.run(&mut **policy, at as u64, EXAMPLES));
                prop_assert_eq!(&decisions[0], &decisions[1], "{:?}", policy);
            }
        }
    }

    /// Its numbers are no numbers, and would spoil every later step that they joined.
    #[test]
    fn a_step_that_was_left_out_leaves_no_trace((classes, steps) in run(), left_out in 0..8usize) {
        for (mut policy, mut other) in policies(classes).into_iter().zip(policies(classes)) {
            for (at, step) in steps.iter().enumerate() {
                if at == left_out {
                    let mut broken = step.clone();
                    broken.student.fill(f32::NAN);
                    broken.losses.fill(f64::NAN);
                    let samples = broken.samples(0..broken.len());
                    let at = At { step: at as u64, total: TOTAL, learning_rate: 1e-2 };
                    policy.decide(&samples, at);
                    policy.observe(&samples, at);
                    policy.leave_out();
                }
                let decisions = [&mut policy, &mut other]
                    .map(|policy| step.run(&mut **policy, at as u64, EXAMPLES));
                prop_assert_eq!(&decisions[0], &decisions[1], "{:?}", policy);
            }
        }
    }

    #[test]
    fn how_a_step_is_cut_changes_nothing((classes, steps) in run(), cut in 1..4usize) {
        for (mut policy, mut other) in policies(classes).into_iter().zip(policies(classes)) {
            if policy.needs().together {
                continue;
            }
            for (at, step) in steps.iter().enumerate() {
                let whole = step.run(&mut *policy, at as u64, EXAMPLES);
                let parts = step.run(&mut *other, at as u64, cut);
                prop_assert_eq!(&whole, &parts, "{:?}", policy);
            }
        }
    }
}

#[test]
fn the_numbers_of_another_policy_are_refused() {
    for mut policy in policies(2) {
        let mut state = policy.state();
        state.push(0.5);
        let wrong = policy.restore(&state).expect_err("one number too many");
        assert_eq!((wrong.expected, wrong.found), (state.len() - 1, state.len()), "{policy:?}");
    }
}
