//! The steady state of a chunked head: neither its chunks nor its tokens ask for memory.
//!
//! What it asks for by design: the sums it returns, a number for each term.

use heirloom_base::Bytes;
use heirloom_engine::{Cpu, Device, Divergence, Ids, View};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, SortedTerm, TeacherTerm, TeacherTokens, TeacherVocabulary, TokenCounts,
    TokenGradients, TokenLoss, TokenSignals, TokenTerm,
};
use heirloom_testkit::{Allocations, Counting};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const VOCABULARY: usize = 700;
const WIDTH: usize = 24;
/// Most tokens.
const TOKENS: usize = 200;

#[test]
fn after_the_first_step_only_the_sums_are_asked_for() {
    let device = &mut Cpu::new(2);
    let soft = TeacherTerm {
        divergence: Divergence::ForwardKl,
        temperature: 2.0,
        scale_by_temperature_squared: true,
    };
    let terms = vec![
        TokenTerm { weight: 0.5, loss: TokenLoss::Label },
        TokenTerm { weight: 0.5, loss: TokenLoss::Teacher(soft) },
    ];
    let plan = ChunkPlan {
        tokens: TOKENS,
        vocabulary: VOCABULARY,
        computes_teacher: true,
        train: true,
        budget: Bytes((42 * 3 * VOCABULARY * 4) as u64),
    };
    assert_eq!(plan.rows(), 42);
    let plain = ChunkedHead::new(device, terms.clone(), plan);
    // Beside a teacher whose tokens have other numbers, and one that is compared by rank.
    let shared = Ids::at(device.alloc_ids(VOCABULARY), 0, VOCABULARY);
    let numbers = |at: u32| if at % 7 == 2 { heirloom_engine::IGNORED } else { at };
    device.write_ids(shared, &(0..VOCABULARY as u32).map(numbers).collect::<Vec<u32>>());
    let other = TeacherVocabulary { size: VOCABULARY, shared: Some(shared) };
    let over_shared = ChunkedHead::between(device, terms.clone(), plan, other);
    let rank = TokenLoss::Sorted(SortedTerm { temperature: 1.0, top: 50 });
    let by_rank = vec![terms[0], TokenTerm { weight: 0.5, loss: rank }];
    let other = TeacherVocabulary { size: VOCABULARY, shared: None };
    let by_rank = ChunkedHead::between(device, by_rank, plan, other);
    for head in [plain, over_shared, by_rank] {
        steps(device, &head);
    }
}

fn steps(device: &mut Cpu, head: &ChunkedHead) {
    let mut matrix = |rows, cols| View::matrix(device.alloc(rows * cols), 0, rows, cols);
    let (states, d_states) = (matrix(TOKENS, WIDTH), matrix(TOKENS, WIDTH));
    let (w, dw) = (matrix(VOCABULARY, WIDTH), matrix(VOCABULARY, WIDTH));
    let labels = Ids::at(device.alloc_ids(TOKENS), 0, TOKENS);
    // The first step is the largest.
    for (step, tokens) in [TOKENS, TOKENS, 1, 42, 43, 85, 199].into_iter().enumerate() {
        let counts = TokenCounts { labelled: tokens as u64, taught: tokens as u64 };
        let signals = TokenSignals {
            states: states.first_rows(tokens),
            head: w,
            labels: labels.first(tokens),
            teacher: Some(TeacherTokens::States { states: states.first_rows(tokens), head: w }),
            label_weights: None,
            teacher_weights: None,
            counts,
            gradients: Some(TokenGradients {
                d_states: d_states.first_rows(tokens),
                d_head: Some(dw),
            }),
        };
        let (parts, asked) = Allocations::of(|| head.evaluate(device, &signals, counts));
        assert!(head.total(&parts) > 0.0);
        if step > 0 {
            // Two lists of two numbers each: sums with counts, sums with weights.
            let want = Allocations { calls: 2, bytes: 2 * 16 + 2 * 8 };
            assert_eq!(asked, want, "{tokens} tokens");
        }
    }
}
