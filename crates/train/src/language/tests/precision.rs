//! bfloat16 through a language model's step: it trains as f32 does, resumes to its own bits, and the
//! head in chunks is the head.

use heirloom_base::Bytes;
use heirloom_engine::{Device, Divergence, Ids, Precision, View};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, LOGITS_BUDGET, TeacherTerm, TeacherTokens, TokenCounts, TokenGradients,
    TokenLoss, TokenSignals, TokenTerm,
};

use super::*;

pub(super) fn half(threads: usize) -> crate::Device {
    Box::new(Cpu::new(threads).with_precision(Precision::Bf16))
}

#[test]
fn losses_in_bf16_are_near_those_in_f32() {
    let sets =
        ["training.max_steps=40", "objective.alpha=0.5", "training.precision=\"bf16\"", INSIDE];
    for student in ["gpt2", "llama"] {
        let losses = |device: fn() -> crate::Device| -> Vec<f64> {
            let job = job(Setting { student, sets: &sets, ..TAUGHT }, pairs());
            let mut trainer = trainer(job, device);
            std::iter::from_fn(|| {
                (!trainer.progress.finished).then(|| trainer.take_step().expect("a step").loss)
            })
            .collect()
        };
        let (full, half) = (losses(single), losses(|| half(1)));
        assert_eq!((full.len(), half.len()), (40, 40));
        assert!(full != half, "{student}: factors are rounded");
        // A factor is off by 2⁻⁹ at most; forty steps of Adam, which divides small gradients by their
        // size, let that grow to some percent of a loss.
        for (step, (full, half)) in full.iter().zip(&half).enumerate() {
            let bound = if step == 0 { 0.005 } else { 0.05 };
            assert!(
                (full - half).abs() < bound * full.abs(),
                "{student}, step {step}: {full} in f32, {half} in bf16"
            );
        }
        assert!(half[39] < 0.9 * half[0], "{student}: something was learnt: {half:?}");
    }
}

/// What a head gives in chunks of `rows` of its tokens: total, then both gradients.
fn of_head(device: &mut dyn Device, rows: usize) -> (f64, Vec<f64>) {
    const N: usize = 100;
    const C: usize = 48;
    const V: usize = 130;
    let mut filled = |rows: usize, cols: usize, seed: u64| {
        let view = View::matrix(device.alloc(rows * cols), 0, rows, cols);
        let number = |at| heirloom_base::uniform(word(seed, Words::Synthetic, 0, at)) - 0.5;
        device.write_f64(view, &(0..(rows * cols) as u64).map(number).collect::<Vec<f64>>());
        view
    };
    let [states, theirs] = [1, 2].map(|seed| filled(N, C, seed));
    let [head, their_head] = [3, 4].map(|seed| filled(V, C, seed));
    let labels = Ids::at(device.alloc_ids(N), 0, N);
    device.write_ids(labels, &(0..N as u32).map(|at| at * 7 % V as u32).collect::<Vec<u32>>());
    let divergence = Divergence::ForwardKl;
    let term = TeacherTerm { divergence, temperature: 1.5, scale_by_temperature_squared: true };
    let terms = vec![
        TokenTerm { weight: 0.4, loss: TokenLoss::Label },
        TokenTerm { weight: 0.6, loss: TokenLoss::Teacher(term) },
    ];
    let budget = if rows < N { Bytes((rows * 3 * V * 4) as u64) } else { LOGITS_BUDGET };
    let plan = ChunkPlan { tokens: N, vocabulary: V, computes_teacher: true, train: true, budget };
    assert_eq!(plan.rows(), rows);
    let chunked = ChunkedHead::new(device, terms, plan);
    let d_states = View::matrix(device.alloc(N * C), 0, N, C);
    let d_head = View::matrix(device.alloc(V * C), 0, V, C);
    let counts = TokenCounts { labelled: N as u64, taught: N as u64 };
    let signals = TokenSignals {
        states,
        head,
        labels,
        teacher: Some(TeacherTokens::States { states: theirs, head: their_head }),
        label_weights: None,
        teacher_weights: None,
        counts,
        gradients: Some(TokenGradients { d_states, d_head: Some(d_head) }),
    };
    let parts = chunked.evaluate(device, &signals, counts);
    let gradients = [device.read_f64(d_states), device.read_f64(d_head)].concat();
    (chunked.total(&parts), gradients)
}

#[test]
fn a_head_in_chunks_is_the_whole_head_in_bf16() {
    let half = |rows| of_head(&mut *half(1), rows);
    let full = of_head(&mut Cpu::new(1), 100);
    let whole = half(100);
    for rows in [1, 7, 42, 84] {
        let cut = half(rows);
        // The same factors are rounded; only the order of f32 sums is another.
        let (loss, gradient) = (apart(&[cut.0], &[whole.0]), apart(&cut.1, &whole.1));
        assert!(loss < 1e-6 && gradient < 1e-5, "{rows} rows: {loss:e} {gradient:e}");
        // Factors are off by 2⁻⁹, and a sum of many by less than that of its largest.
        let (loss, gradient) = (apart(&[cut.0], &[full.0]), apart(&cut.1, &full.1));
        assert!(loss < 2e-3 && gradient < 1e-2, "{rows} rows from f32: {loss:e} {gradient:e}");
        assert!(gradient > 0.0, "factors are rounded");
    }
}

#[test]
fn a_run_in_bf16_that_was_cut_off_ends_in_the_bits_of_one_that_was_not() {
    let sets = ["training.micro_batch_size=2", "training.precision=\"bf16\"", INSIDE];
    cut_off_ends_alike("llama", &sets, half);
    let own_words = [OWN_WORDS[0], OWN_WORDS[1], sets[0], sets[1]];
    cut_off_ends_alike("gpt2", &own_words, half);
}

/// The second forward passes are at weights that differ by less than bfloat16 tells apart.
#[test]
fn alignments_in_a_run_that_rounds_are_those_of_one_that_does_not() {
    let set = "objective.balance={ policy = \"rw_kd\", meta = { batch_size = 3 } }";
    for student in ["gpt2", "llama"] {
        let measured = |device: fn() -> crate::Device| {
            let sets = [set, "training.precision=\"bf16\""];
            let job = job(Setting { student, sets: &sets, ..TAUGHT }, pairs());
            let found = trainer(job, device).measure(&[0, 1, 2, 3, 4], &[7, 5, 9]);
            found.expect("a gradient").values
        };
        let apart = apart(&measured(single), &measured(|| half(1)));
        assert!(apart > 0.0 && apart < 0.02, "{student}: {apart}");
    }
}
