//! Policies that weigh tokens one by one: as they weigh samples, and never dependent on chunks.

use heirloom_balance::{
    AdaKd, Adoption, At, Decision, DynamicKd, Needs, Policy, Restored, Samples, Wsl,
};
use heirloom_base::Bytes;
use heirloom_engine::{Device, Divergence, IGNORED, Ids, View};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, LOGITS_BUDGET, TeacherTerm, TeacherTokens, TokenCounts, TokenGradients,
    TokenLoss, TokenSignals, TokenTerm, TokenWeights, Weighing,
};

use super::super::balance::TokenBalance;
use super::*;

const N: usize = 9;
const C: usize = 4;
const V: usize = 6;

fn filled(device: &mut dyn Device, rows: usize, cols: usize, seed: u64) -> View {
    let view = View::matrix(device.alloc(rows * cols), 0, rows, cols);
    let number = |at| heirloom_base::uniform(word(seed, Words::Synthetic, 0, at)) * 4.0 - 2.0;
    device.write_f64(view, &(0..(rows * cols) as u64).map(number).collect::<Vec<f64>>());
    view
}

#[test]
fn a_token_is_weighed_as_a_sample_of_its_logits() {
    let policies: [(&str, Box<dyn Policy>); 3] = [
        ("objective.balance={ policy = \"wsl\", weight = 1.7 }", Box::new(Wsl { alpha: 1.7 })),
        ("objective.balance={ policy = \"ada_kd\" }", Box::new(AdaKd { temperature: 1.0 })),
        (
            "objective.balance={ policy = \"dynamic_kd\" }",
            Box::new(DynamicKd { alpha: 0.5, adoption: Adoption::Sample }),
        ),
    ];
    for (set, policy) in policies {
        let plan = job(Setting { sets: &[set], ..TAUGHT }, pairs()).plan;
        let mut device = Reference::<f64>::new();
        let device: &mut dyn Device = &mut device;
        let (states, head) = (filled(device, N, C, 1), filled(device, V, C, 2));
        // Its own logits are what the teacher's are near to, so that some margins are not 0.
        let teacher = filled(device, N, V, 3);
        let given: Vec<u32> =
            (0..N as u32).map(|at| if at % 4 == 1 { IGNORED } else { at * 5 % V as u32 }).collect();
        let labels = Ids::at(device.alloc_ids(N), 0, N);
        device.write_ids(labels, &given);
        let learnt = given.iter().filter(|&&label| label != IGNORED).count() as u64;
        let counts = TokenCounts { labelled: learnt, taught: learnt };
        let divergence = Divergence::ForwardKl;
        let term = TeacherTerm { divergence, temperature: 2.0, scale_by_temperature_squared: true };
        let terms = vec![
            TokenTerm { weight: 1.0, loss: TokenLoss::Label },
            TokenTerm { weight: 1.0, loss: TokenLoss::Teacher(term) },
        ];
        // On the host, from whole matrices.
        let matrix = device.read_f64(head);
        let logits: Vec<f32> = device
            .read_f64(states)
            .chunks(C)
            .flat_map(|state| {
                let dot = |row: &[f64]| row.iter().zip(state).map(|(a, b)| a * b).sum::<f64>();
                matrix.chunks(C).map(dot).collect::<Vec<f64>>()
            })
            .map(|logit| logit as f32)
            .collect();
        let ids: Vec<u32> = (0..N as u32).collect();
        let classes: Vec<Option<u32>> =
            given.iter().map(|&label| (label != IGNORED).then_some(label)).collect();
        let theirs = device.read(teacher);
        let samples = Samples {
            ids: &ids,
            labels: &classes,
            classes: V,
            student: &logits,
            teacher: &theirs,
            losses: &[0.0; 2 * N],
            features: &[],
        };
        let decided = policy.decide(&samples, At { step: 0, total: 1, learning_rate: 0.0 });
        let column = |device: &mut dyn Device, of: usize| {
            let view = View::matrix(device.alloc(N), 0, N, 1);
            let weight = |at: usize| if classes[at].is_some() { decided.of(at)[of] } else { 0.0 };
            device.write_f64(view, &(0..N).map(weight).collect::<Vec<f64>>());
            view
        };
        let given_weights = [column(device, 0), column(device, 1)];
        let weights = device.read_f64(given_weights[1]);
        assert!(weights.iter().any(|weight| *weight > 0.01), "{set}: {weights:?}");
        let mut runs = Vec::new();
        // Weights given; decided all at once; decided two tokens at a time.
        for (rows, decides) in [(N, false), (N, true), (2, true)] {
            let budget = Bytes((rows * 2 * V * 4) as u64);
            let plan_of = ChunkPlan {
                tokens: N,
                vocabulary: V,
                computes_teacher: false,
                train: true,
                budget: if rows == N { LOGITS_BUDGET } else { budget },
            };
            assert_eq!(plan_of.rows(), rows);
            let chunked = ChunkedHead::new(device, terms.clone(), plan_of);
            let d_states = View::matrix(device.alloc(N * C), 0, N, C);
            let d_head = View::matrix(device.alloc(V * C), 0, V, C);
            let signals = TokenSignals {
                states,
                head,
                labels,
                teacher: Some(TeacherTokens::Logits(teacher)),
                label_weights: (!decides).then_some(given_weights[0]),
                teacher_weights: (!decides).then_some(given_weights[1]),
                counts,
                gradients: Some(TokenGradients { d_states, d_head: Some(d_head) }),
            };
            let parts = if decides {
                let mut by = TokenBalance::of(&plan, V, &crate::Own::default()).expect("a policy");
                let room = TokenWeights::new(device, N);
                let mut weighing = Weighing { room, labels: &given, by: &mut by };
                let parts = chunked.evaluate_weighed(device, &signals, counts, Some(&mut weighing));
                let record = by.record(None).expect("tokens were weighed");
                let shares: Vec<f64> = decided
                    .shares()
                    .zip(&classes)
                    .filter_map(|(share, class)| class.map(|_| share))
                    .collect();
                let mean = shares.iter().sum::<f64>() / shares.len() as f64;
                assert!((record.mean - mean).abs() < 1e-5, "{set}: {record:?}, {mean}");
                parts
            } else {
                chunked.evaluate(device, &signals, counts)
            };
            let gradients = [device.read_f64(d_states), device.read_f64(d_head)].concat();
            runs.push((chunked.total(&parts), gradients));
        }
        let [want, once, twice] = runs.as_slice() else { unreachable!("three runs") };
        // The host's logits are rounded to f32.
        assert!((want.0 - once.0).abs() < 1e-5, "{set}: {} and {}", want.0, once.0);
        assert!(apart(&want.1, &once.1) < 1e-5, "{set}");
        assert!((once.0 - twice.0).abs() < 1e-12 && apart(&once.1, &twice.1) < 1e-12, "{set}");
    }
}

#[test]
fn a_step_says_how_its_tokens_were_weighed() {
    for policy in ["wsl", "ada_kd", "dynamic_kd", "uncertainty"] {
        let set = format!("objective.balance={{ policy = \"{policy}\" }}");
        let job = job(Setting { sets: &[&set], ..TAUGHT }, pairs());
        let mut trainer = trainer(job, single);
        let record = trainer.take_step().expect("a step").balance.expect("it was weighed");
        assert!((0.0..=1.0).contains(&record.mean), "{policy}: {record:?}");
        if policy == "uncertainty" {
            assert!((record.mean - 0.5).abs() < 1e-12, "{record:?}");
            let next = trainer.take_step().expect("a step").balance.expect("it was weighed");
            assert!((next.mean - 0.5).abs() > 1e-6, "it has learnt: {next:?}");
        }
        trainer.progress.overtaken = Some(1);
        assert!(trainer.take_step().expect("a step").balance.is_none(), "{policy}");
    }
}

/// A program's own: the teacher's share is half of the label's loss over the largest so far, at most 0.8.
#[derive(Debug, Default)]
struct ByLoss {
    largest: f64,
    heard: f64,
}

impl Policy for ByLoss {
    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        assert!(samples.student.is_empty() && samples.labels.iter().all(Option::is_some));
        let share = |row| (0.5 * samples.losses(row)[0] / self.largest.max(1.0)).min(0.8);
        let weights = (0..samples.len()).flat_map(|row| [1.0 - share(row), share(row)]).collect();
        Decision { weights, ..Decision::default() }
    }
    fn observe(&mut self, samples: &Samples<'_>, _: At) {
        let losses = (0..samples.len()).map(|row| samples.losses(row)[0]);
        self.heard = losses.fold(self.heard, f64::max);
    }
    fn learn(&mut self, means: &[f64], _: At) {
        assert_eq!(means.len(), 2);
        self.largest = self.largest.max(std::mem::take(&mut self.heard));
    }
    fn leave_out(&mut self) {
        self.heard = 0.0;
    }
    fn state(&self) -> Vec<f64> {
        vec![self.largest]
    }
    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let &[largest] = state else { return Err(Restored { expected: 1, found: state.len() }) };
        self.largest = largest;
        Ok(())
    }
}

const BY_LOSS: &str = "objective.balance={ policy = \"own\", called = \"by_loss\" }";

fn by_loss(rows: Vec<Row>, more: &str) -> LanguageJob {
    let mut job = job(Setting { sets: &[BY_LOSS, more], dropout: 0.1, ..TAUGHT }, rows);
    job.own = crate::Own::default().with_policy("by_loss", ByLoss::default);
    job
}

#[test]
fn a_programs_own_policy_weighs_tokens_and_goes_on_with_its_bits() {
    let cpu = |threads| -> crate::Device { Box::new(Cpu::new(threads)) };
    let steps = ends_alike("own", &|| by_loss(pairs(), "training.micro_batch_size=2"), cpu);
    let shares: Vec<f64> =
        steps.iter().filter_map(|step| Some(step.balance.as_ref()?.mean)).collect();
    assert_eq!(shares.len(), steps.len(), "tokens were weighed in every step");
    assert!(shares[0] > shares[1], "it has learnt which loss is large: {shares:?}");
    // However the step is cut.
    let of = |micro: &str| {
        loss_and_gradient(&mut trainer(by_loss(pairs(), micro), double), &[0, 1, 2, 3, 4])
    };
    let (whole, cut) = (of("training.micro_batch_size=5"), of("training.micro_batch_size=2"));
    assert!(apart(&[whole.0], &[cut.0]) < 1e-12 && apart(&whole.1, &cut.1) < 1e-11);
}

#[test]
fn a_policy_that_is_not_brought_or_asks_for_more_than_a_token_has_is_refused() {
    #[derive(Debug)]
    struct Asks(Needs);
    impl Policy for Asks {
        fn needs(&self) -> Needs {
            self.0
        }
        fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
            Decision::uniform(samples.len(), 1.0, 1.0)
        }
    }
    let refused = |own: crate::Own| {
        let mut job = by_loss(pairs(), "training.micro_batch_size=5");
        job.own = own;
        let made = LanguageTrainer::new(job, &mut |_| single());
        made.map(|_| ()).expect_err("what cannot be").to_string()
    };
    let asks =
        |needs: Needs| refused(crate::Own::default().with_policy("by_loss", move || Asks(needs)));
    for (said, part) in [
        (refused(crate::Own::default()), "by_loss"),
        (refused(crate::Own::default().with_policy("other", ByLoss::default)), "other"),
        (asks(Needs { alignments: true, ..Needs::default() }), "[objective.balance.meta]"),
        (asks(Needs { features: true, ..Needs::default() }), "a token does not have"),
        (asks(Needs { together: true, ..Needs::default() }), "all tokens of a step at once"),
    ] {
        assert!(said.contains(part), "`{part}` in: {said}");
    }
}
