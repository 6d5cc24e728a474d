//! `heirloom bench head`: what a language model's head with its losses costs, with all logits at once
//! and in chunks of rows.
//!
//! In: tokens, vocabulary, width, a budget. Out: for each way the rows of a chunk, times, memory, and
//! the loss, which is the same. The work is that of distillation: the logits of student and teacher
//! from hidden states of one width, the losses of `bench step`, the gradients of hidden states and
//! head.
//! Never: the layers before the head, or the optimiser.

use heirloom::failure::Failure;
use heirloom::process::peak_memory;
use heirloom_base::Bytes;
use heirloom_engine::{Cpu, Device, Divergence, Ids, View};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, TeacherTerm, TeacherTokens, TokenCounts, TokenGradients, TokenLoss,
    TokenSignals, TokenTerm,
};
use heirloom_report::table::{Cell, Table};
use serde::Serialize;

use super::{ALPHA, TEMPERATURE, at_least_one, mebibytes};
use crate::args::BenchHeadArgs;
use crate::clock::Clock;

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Heads {
    tokens: usize,
    vocab: usize,
    width: usize,
    threads: usize,
    repeats: usize,
    ways: Vec<Way>,
}

/// One way to compute the same.
#[derive(Debug, Serialize)]
struct Way {
    name: &'static str,
    /// Rows whose logits exist at once.
    rows: usize,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    /// Floating-point operations of the products, over the median time.
    gflops: f64,
    /// What logits, their gradient and losses take, in MiB.
    logits_mb: f64,
    /// What the device holds, in MiB: hidden states, heads and their gradients too.
    planned_memory_mb: f64,
    /// The most that was resident until now, in MiB; `None` where the system does not say.
    peak_memory_mb: Option<f64>,
    loss: f64,
}

impl Heads {
    pub(super) fn table(&self) -> Table {
        let number = |value, decimals| Cell::Number { value, decimals };
        let mut table = Table::new([
            "head",
            "rows",
            "median ms",
            "min ms",
            "max ms",
            "GFLOP/s",
            "logits MiB",
            "planned MiB",
            "peak MiB",
            "loss",
        ]);
        for way in &self.ways {
            table.row([
                way.name.into(),
                Cell::Count(way.rows as u64),
                number(way.median_ms, 1),
                number(way.min_ms, 1),
                number(way.max_ms, 1),
                number(way.gflops, 1),
                number(way.logits_mb, 1),
                number(way.planned_memory_mb, 1),
                way.peak_memory_mb.map_or(Cell::Missing, |peak| number(peak, 1)),
                number(way.loss, 4),
            ]);
        }
        table
    }
}

/// The chunked way comes first: the most that was resident is then its own, not the dense one's.
pub(super) fn measure(args: &BenchHeadArgs, threads: usize) -> Result<Heads, Failure> {
    let BenchHeadArgs { tokens, vocab, width, budget, repeats, chunked_only } = *args;
    at_least_one(&[
        ("--tokens", tokens),
        ("--vocab", vocab),
        ("--width", width),
        ("--repeats", repeats),
    ])?;
    let mut ways =
        vec![way("chunked", args, Bytes((budget as u64).saturating_mul(1 << 20)), threads)];
    if !chunked_only {
        ways.push(way("dense", args, Bytes(u64::MAX), threads));
    }
    Ok(Heads { tokens, vocab, width, threads, repeats, ways })
}

fn way(name: &'static str, args: &BenchHeadArgs, budget: Bytes, threads: usize) -> Way {
    let BenchHeadArgs { tokens, vocab, width, repeats, .. } = *args;
    let mut cpu = Cpu::new(threads);
    let (terms, plan) = (terms(), plan(args, budget));
    let logits = plan.bytes_needed(terms.len());
    let head = ChunkedHead::new(&mut cpu, terms, plan);
    let signals = signals(&mut cpu, args);
    let mut loss = 0.0;
    let mut once = |cpu: &mut Cpu| {
        let clock = Clock::start();
        let parts = head.evaluate(cpu, &signals, signals.counts);
        loss = head.total(&parts);
        1000.0 * clock.seconds()
    };
    // Once before it counts: memory is touched for the first time.
    once(&mut cpu);
    let mut times: Vec<f64> = (0..repeats).map(|_| once(&mut cpu)).collect();
    times.sort_by(f64::total_cmp);
    let median = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
    // Two products forward, two backward, two operations for each multiplication.
    let operations = 8.0 * tokens as f64 * vocab as f64 * width as f64;
    Way {
        name,
        rows: plan.rows(),
        median_ms: median,
        min_ms: times[0],
        max_ms: times[times.len() - 1],
        gflops: operations / median / 1e6,
        logits_mb: mebibytes(logits),
        planned_memory_mb: mebibytes(Bytes(cpu.bytes())),
        peak_memory_mb: peak_memory().map(mebibytes),
        loss,
    }
}

fn plan(args: &BenchHeadArgs, budget: Bytes) -> ChunkPlan {
    let BenchHeadArgs { tokens, vocab: vocabulary, .. } = *args;
    ChunkPlan { tokens, vocabulary, computes_teacher: true, train: true, budget }
}

fn terms() -> Vec<TokenTerm> {
    let teacher = TeacherTerm {
        divergence: Divergence::ForwardKl,
        temperature: TEMPERATURE,
        scale_by_temperature_squared: true,
    };
    vec![
        TokenTerm { weight: 1.0 - ALPHA, loss: TokenLoss::Label },
        TokenTerm { weight: ALPHA, loss: TokenLoss::Teacher(teacher) },
    ]
}

/// Hidden states, heads and labels, the same ones for every way.
fn signals(cpu: &mut Cpu, args: &BenchHeadArgs) -> TokenSignals {
    let BenchHeadArgs { tokens, vocab, width, .. } = *args;
    let labels = Ids::at(cpu.alloc_ids(tokens), 0, tokens);
    let drawn: Vec<u32> = (0..tokens).map(|at| (at * 7919 % vocab) as u32).collect();
    cpu.write_ids(labels, &drawn);
    // Logits of a few nats.
    let size = 3.0 / (width as f32).sqrt();
    let counts = TokenCounts { labelled: tokens as u64, taught: tokens as u64 };
    TokenSignals {
        states: matrix(cpu, tokens, width, 2.0, 0),
        head: matrix(cpu, vocab, width, size, 1),
        labels,
        teacher: Some(TeacherTokens::States {
            states: matrix(cpu, tokens, width, 2.0, 2),
            head: matrix(cpu, vocab, width, size, 3),
        }),
        label_weights: None,
        teacher_weights: None,
        counts,
        gradients: Some(TokenGradients {
            d_states: matrix(cpu, tokens, width, 0.0, 4),
            d_head: Some(matrix(cpu, vocab, width, 0.0, 5)),
        }),
    }
}

/// Numbers spread over `−size..size` by multiples of the golden ratio.
fn matrix(cpu: &mut Cpu, rows: usize, cols: usize, size: f32, which: u32) -> View {
    let view = View::matrix(cpu.alloc(rows * cols), 0, rows, cols);
    let place = |at: usize| (at as u32).wrapping_add(which << 28).wrapping_mul(0x9e37_79b9);
    let unit = |at| place(at) as f32 / u32::MAX as f32;
    let values: Vec<f32> = (0..view.len()).map(|at| size * (2.0 * unit(at) - 1.0)).collect();
    cpu.write(view, &values);
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: BenchHeadArgs = BenchHeadArgs {
        tokens: 90,
        vocab: 8192,
        width: 12,
        budget: 5,
        repeats: 1,
        chunked_only: false,
    };

    #[test]
    fn both_ways_have_one_loss_and_the_dense_one_all_logits() {
        let heads = measure(&SMALL, 1).unwrap();
        let [chunked, dense] = &heads.ways[..] else { unreachable!("two ways") };
        // 5 MiB hold 53 rows of three matrices.
        assert_eq!((chunked.rows, dense.rows), (42, 90));
        assert!((chunked.loss - dense.loss).abs() <= 1e-5 * dense.loss, "{heads:?}");
        let saved = f64::from((90 - 42) * 3 * 8192 * 4) / f64::from(1 << 20);
        assert!((dense.logits_mb - chunked.logits_mb - saved).abs() < 1e-9, "{heads:?}");
    }

    #[test]
    fn the_dense_way_can_be_left_out() {
        let heads = measure(&BenchHeadArgs { chunked_only: true, ..SMALL }, 1).unwrap();
        assert_eq!(heads.ways.len(), 1);
    }

    #[test]
    fn a_head_of_nothing_is_refused() {
        let rows = [
            (BenchHeadArgs { tokens: 0, ..SMALL }, "--tokens is 0, expected at least 1"),
            (BenchHeadArgs { vocab: 0, ..SMALL }, "--vocab is 0, expected at least 1"),
            (BenchHeadArgs { width: 0, ..SMALL }, "--width is 0, expected at least 1"),
            (BenchHeadArgs { repeats: 0, ..SMALL }, "--repeats is 0, expected at least 1"),
        ];
        for (args, want) in rows {
            assert_eq!(measure(&args, 1).unwrap_err(), Failure::usage(want));
        }
    }
}
