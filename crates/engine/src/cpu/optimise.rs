//! AdamW: in one pass over the flat buffers, or row by row with the steps that a row has missed.

use super::Cpu;
use super::lanes::vectorised;
use super::memory::Grid;
use crate::View;
use crate::device::{AdamW, AdamWRows, Move};

/// What is the same for every number of a span.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    gradient: f32,
    beta1: f32,
    beta2: f32,
    grow1: f32,
    grow2: f32,
    /// `lr/(1 − β₁ᵗ)`.
    step: f32,
    /// `1/√(1 − β₂ᵗ)`.
    root: f32,
    epsilon: f32,
    decay: f32,
}

impl Factors {
    fn of([beta1, beta2]: [f64; 2], epsilon: f64, at: Move, weight_decay: f64) -> Self {
        let correct1 = 1.0 - beta1.powf(at.step as f64);
        let correct2 = 1.0 - beta2.powf(at.step as f64);
        Self {
            gradient: at.gradient_scale as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            grow1: (1.0 - beta1) as f32,
            grow2: (1.0 - beta2) as f32,
            step: (at.learning_rate / correct1) as f32,
            root: (1.0 / correct2.sqrt()) as f32,
            epsilon: epsilon as f32,
            decay: (at.learning_rate * weight_decay) as f32,
        }
    }

    /// The number's weight and moments after a step. Both ways to take a step are this function, so
    /// they agree in every bit.
    #[inline(always)]
    fn moved(&self, weight: f32, gradient: f32, first: f32, second: f32) -> (f32, f32, f32) {
        let g = gradient * self.gradient;
        let m = self.beta1.mul_add(first, self.grow1 * g);
        let v = self.beta2.mul_add(second, self.grow2 * g * g);
        let change = self.step * m / v.sqrt().mul_add(self.root, self.epsilon);
        (weight - self.decay.mul_add(weight, change), m, v)
    }
}

impl Cpu {
    pub(super) fn adamw_spans(&mut self, op: &AdamW<'_>) {
        for span in op.spans {
            let at = Move {
                step: op.step,
                learning_rate: op.learning_rate,
                gradient_scale: op.gradient_scale,
            };
            let (at, decay) = (span.of(at), span.weight_decay);
            let factors = Factors::of([op.beta1, op.beta2], op.epsilon, at, decay);
            let len = span.len();
            let views = op.spaces.map(|space| View::matrix(space, span.start, len, 1));
            let ([], [weights, gradient, first, second]) = self.memory.borrow([], views);
            let cut = ((weights, gradient), (first, second));
            self.threads.over(cut, 4, |((weights, gradient), (first, second))| {
                vectorised(
                    #[inline(always)]
                    || step(factors, [weights, gradient, first, second].map(|rows| rows.values)),
                );
            });
        }
    }

    pub(super) fn adamw_of_rows(&mut self, op: &AdamWRows<'_>) {
        let Some(last_move) = op.moves.last() else { return };
        let [table, ..] = op.tables;
        assert_eq!(op.reached.len, table.rows(), "one step per row");
        self.factors.clear();
        let betas = [op.beta1, op.beta2];
        let factors = |&at: &Move| Factors::of(betas, op.epsilon, at, op.weight_decay);
        self.factors.extend(op.moves.iter().map(factors));
        let factors = &self.factors;
        let rows = op.rows.map(|rows| self.ids.read(rows));
        let reached = self.ids.read(op.reached);
        let count = rows.map_or(table.rows(), <[u32]>::len);
        let ends = [0, table.rows() as u32];
        let ([], tables) = self.memory.borrow([], op.tables);
        let [m0, m1, m2, m3] = &mut self.marks;
        let mut marks = [m0, m1, m2, m3].into_iter();
        let grids = tables.map(|table| {
            Grid::new(table, &ends, COLUMNS, marks.next().expect("as many marks as tables"))
        });
        // As if each row had missed a few steps.
        let cost = 8 * count * COLUMNS;
        self.threads.each(table.cols().div_ceil(COLUMNS), cost, |block| {
            let mut tiles = grids.each_ref().map(|grid| grid.tile(0, block));
            vectorised(
                #[inline(always)]
                || {
                    for at in 0..count {
                        let row = rows.map_or(at, |rows| rows[at] as usize);
                        let missed = &factors[op.missed(reached[row])];
                        let [weights, gradient, first, second] =
                            tiles.each_mut().map(|tile| tile.row(row));
                        match missed.split_last() {
                            Some((last, missed)) if op.has_gradient => {
                                replay(missed, weights, first, second);
                                step(*last, [weights, gradient, first, second]);
                            }
                            _ => replay(missed, weights, first, second),
                        }
                    }
                },
            );
        });
        self.ids.set(op.reached, op.rows, last_move.step as u32);
    }
}

/// Columns of a table that one thread moves at a time.
const COLUMNS: usize = 64;
/// Numbers taken through many steps at once: as many as leave the registers room for factors.
const TOGETHER: usize = 16;

#[inline(always)]
fn step(by: Factors, [weights, gradient, first, second]: [&mut [f32]; 4]) {
    let len = weights.len();
    let (gradient, first, second) = (&mut gradient[..len], &mut first[..len], &mut second[..len]);
    for at in 0..len {
        (weights[at], first[at], second[at]) =
            by.moved(weights[at], gradient[at], first[at], second[at]);
        gradient[at] = 0.0;
    }
}

/// Steps without a gradient.
#[inline(always)]
fn replay(missed: &[Factors], weights: &mut [f32], first: &mut [f32], second: &mut [f32]) {
    let (weights, rest) = weights.as_chunks_mut::<TOGETHER>();
    let (first, first_rest) = first.as_chunks_mut::<TOGETHER>();
    let (second, second_rest) = second.as_chunks_mut::<TOGETHER>();
    for ((w, m), v) in weights.iter_mut().zip(first).zip(second) {
        replay_few(missed, w, m, v);
    }
    for ((w, m), v) in rest.iter_mut().zip(first_rest).zip(second_rest) {
        let (mut one, mut its_m, mut its_v) = ([*w], [*m], [*v]);
        replay_few(missed, &mut one, &mut its_m, &mut its_v);
        ([*w], [*m], [*v]) = (one, its_m, its_v);
    }
}

#[inline(always)]
fn replay_few<const N: usize>(
    missed: &[Factors],
    weights: &mut [f32; N],
    first: &mut [f32; N],
    second: &mut [f32; N],
) {
    let (mut w, mut m, mut v) = (*weights, *first, *second);
    let Some(any) = missed.first() else { return };
    let still = |x: &[f32; N]| x.iter().all(|&x| x == 0.0);
    if any.epsilon > 0.0 && still(&m) && still(&v) {
        // Never seen: the moments stay zero, and 0/ε moves nothing.
        (m, v) = ([0.0; N], [0.0; N]);
        if any.decay != 0.0 || missed.iter().any(|by| by.decay != 0.0) {
            for by in missed {
                w.iter_mut().for_each(|w| *w -= by.decay * *w);
            }
        }
    } else {
        for by in missed {
            for at in 0..N {
                (w[at], m[at], v[at]) = by.moved(w[at], 0.0, m[at], v[at]);
            }
        }
    }
    (*weights, *first, *second) = (w, m, v);
}
