//! `heirloom bench products`: how fast this machine multiplies the matrices of a layer.
//!
//! In: a shape, a batch size, a sequence length. Out: per linear layer the billions of operations
//! per second of its forward product (`x wᵀ`) and of the gradients of its input (`dy w`) and its
//! weights (`dyᵀ x`), and the best of all. A step whose products all ran at the best rate, and which
//! did nothing else, would take the least time that a step can.
//! Never: bias, activation or dropout; the products alone.

use heirloom::failure::Failure;
use heirloom_engine::{Cpu, Device, Linear, LinearBackward, View};
use heirloom_report::table::{Cell, Table};
use serde::Serialize;

use super::{Kind, SHAPES, at_least_one, of};
use crate::args::{BenchPrecision, BenchProductsArgs};
use crate::clock::Clock;

/// What was measured, in GFLOP/s.
#[derive(Debug, Serialize)]
pub(super) struct Rates {
    model: &'static str,
    tokens: usize,
    threads: usize,
    precision: BenchPrecision,
    products: Vec<Rate>,
    best: f64,
}

/// The rates of one linear layer.
#[derive(Debug, Serialize)]
struct Rate {
    inputs: usize,
    outputs: usize,
    forward: f64,
    input_gradient: f64,
    weight_gradient: f64,
}

impl Rate {
    fn best(&self) -> f64 {
        self.forward.max(self.input_gradient).max(self.weight_gradient)
    }
}

impl Rates {
    pub(super) fn table(&self) -> Table {
        let number = |value| Cell::Number { value, decimals: 1 };
        let mut table =
            Table::new(["tokens", "inputs", "outputs", "x wᵀ", "dy w", "dyᵀ x", "best"]);
        for rate in &self.products {
            table.row([
                Cell::Count(self.tokens as u64),
                Cell::Count(rate.inputs as u64),
                Cell::Count(rate.outputs as u64),
                number(rate.forward),
                number(rate.input_gradient),
                number(rate.weight_gradient),
                number(rate.best()),
            ]);
        }
        table
    }
}

pub(super) fn measure(args: &BenchProductsArgs, threads: usize) -> Result<Rates, Failure> {
    at_least_one(&[("--batch", args.batch), ("--seq", args.seq), ("--repeats", args.repeats)])?;
    let shape = SHAPES[args.model as usize];
    let tokens = args.batch * args.seq;
    let (width, inner) = (shape.hidden, shape.inner);
    let mut bench =
        Bench { cpu: Cpu::new(threads).with_precision(of(args.precision)), repeats: args.repeats };
    let mut layers = vec![(width, 3 * width), (width, width), (width, inner), (inner, width)];
    if shape.kind == Kind::LanguageModel {
        layers.push((width, shape.vocabulary() as usize));
    }
    let products: Vec<Rate> =
        layers.into_iter().map(|(inputs, outputs)| bench.rate(tokens, inputs, outputs)).collect();
    let best = products.iter().map(Rate::best).fold(0.0, f64::max);
    Ok(Rates { model: shape.name, tokens, threads, precision: args.precision, products, best })
}

struct Bench {
    cpu: Cpu,
    repeats: usize,
}

impl Bench {
    /// The time of the fastest repeat.
    fn seconds(&mut self, mut work: impl FnMut(&mut Cpu)) -> f64 {
        let mut once = || {
            let clock = Clock::start();
            work(&mut self.cpu);
            clock.seconds()
        };
        (0..self.repeats).map(|_| once()).fold(f64::INFINITY, f64::min)
    }

    /// A matrix of numbers that are neither zero nor alike.
    fn matrix(&mut self, rows: usize, columns: usize) -> View {
        let space = self.cpu.alloc(rows * columns);
        let view = View::matrix(space, 0, rows, columns);
        let values: Vec<f32> = (0..view.len()).map(|at| (at % 1013) as f32 / 506.0 - 1.0).collect();
        self.cpu.write(view, &values);
        view
    }

    fn rate(&mut self, tokens: usize, inputs: usize, outputs: usize) -> Rate {
        let (x, dx) = (self.matrix(tokens, inputs), self.matrix(tokens, inputs));
        let (y, dy) = (self.matrix(tokens, outputs), self.matrix(tokens, outputs));
        let (w, dw) = (self.matrix(outputs, inputs), self.matrix(outputs, inputs));
        let forward = Linear { x, w, b: None, y, activated: None };
        let backward = LinearBackward {
            x,
            w,
            dy,
            dx: None,
            add_to_dx: false,
            through: None,
            dw: None,
            db: None,
        };
        let input = LinearBackward { dx: Some(dx), ..backward };
        let weight = LinearBackward { dw: Some(dw), ..backward };
        let operations = 2e-9 * (tokens * inputs * outputs) as f64;
        Rate {
            inputs,
            outputs,
            forward: operations / self.seconds(|cpu| cpu.linear(&forward)),
            input_gradient: operations / self.seconds(|cpu| cpu.linear_backward(&input)),
            weight_gradient: operations / self.seconds(|cpu| cpu.linear_backward(&weight)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::BenchModel;

    #[test]
    fn nothing_cannot_be_multiplied() {
        let (model, precision) = (BenchModel::BertMini, BenchPrecision::F32);
        let args = BenchProductsArgs { model, batch: 1, seq: 8, precision, repeats: 1 };
        let rows = [
            (BenchProductsArgs { batch: 0, ..args }, "--batch is 0, expected at least 1"),
            (BenchProductsArgs { seq: 0, ..args }, "--seq is 0, expected at least 1"),
            (BenchProductsArgs { repeats: 0, ..args }, "--repeats is 0, expected at least 1"),
        ];
        for (args, want) in rows {
            assert_eq!(measure(&args, 1).unwrap_err(), Failure::usage(want));
        }
    }
}
