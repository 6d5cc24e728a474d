//! How fast the products and the row operations of an encoder's layer are on this machine.
//!
//! `cargo run --release -p heirloom-engine --example products -- [threads] [repeats]`
//!
//! Prints, per shape, the billions of multiplications and additions per second of a linear layer's
//! forward product (`x wᵀ`), of the gradient of its input (`dy w`) and of its weights (`dyᵀ x`);
//! then the milliseconds of each other operation. The best of all repeats counts.

#![expect(clippy::print_stdout, reason = "a tool whose result is what it prints")]

use std::time::Instant;

use heirloom_base::{Purpose, Words};
use heirloom_engine::{
    Activation, AdamW, AddNorm, AddNormBackward, Attention, AttentionBackward, Cpu, Device,
    Dropout, Ids, Linear, LinearBackward, Mask, Span, View,
};

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let mut bench =
        Bench { cpu: Cpu::new(numbers.next().unwrap_or(0)), repeats: numbers.next().unwrap_or(20) };
    println!("{} threads", bench.cpu.threads());
    println!("{:>6} {:>6} {:>6} {:>9} {:>9} {:>9}", "N", "I", "O", "x·wᵀ", "dy·w", "dyᵀ·x");
    for (tokens, width, inner) in [(420, 384, 1536), (2048, 256, 1024), (2048, 768, 3072)] {
        for (from, to) in [(width, 3 * width), (width, width), (width, inner), (inner, width)] {
            bench.products(tokens, from, to);
        }
    }
    for (tokens, width, inner) in [(420, 384, 1536), (2048, 768, 3072)] {
        bench.rows(tokens, width, inner);
        bench.attention(tokens, width, 42);
    }
    bench.attention(2048, 768, 256);
    bench.adamw(22_000_000);
}

struct Bench {
    cpu: Cpu,
    repeats: usize,
}

impl Bench {
    fn seconds(&mut self, mut work: impl FnMut(&mut Cpu)) -> f64 {
        let mut best = f64::INFINITY;
        for _ in 0..self.repeats {
            let start = Instant::now();
            work(&mut self.cpu);
            best = best.min(start.elapsed().as_secs_f64());
        }
        best
    }

    fn show(&mut self, what: &str, work: impl FnMut(&mut Cpu)) {
        let milliseconds = 1e3 * self.seconds(work);
        println!("  {what:<36} {milliseconds:8.3} ms");
    }

    /// A matrix of numbers that are neither zero nor alike.
    fn matrix(&mut self, rows: usize, cols: usize) -> View {
        let space = self.cpu.alloc(rows * cols);
        let view = View::matrix(space, 0, rows, cols);
        let values: Vec<f32> = (0..view.len()).map(|at| (at % 1013) as f32 / 506.0 - 1.0).collect();
        self.cpu.write(view, &values);
        view
    }

    fn ids(&mut self, values: &[u32]) -> Ids {
        let ids = Ids::at(self.cpu.alloc_ids(values.len()), 0, values.len());
        self.cpu.write_ids(ids, values);
        ids
    }

    fn dropout(&mut self, rows: usize) -> Dropout {
        let rows: Vec<u32> = (0..rows as u32).collect();
        Dropout { p: 0.1, words: Words::at(1, Purpose::Dropout, 1, 1), rows: self.ids(&rows) }
    }

    fn products(&mut self, tokens: usize, from: usize, to: usize) {
        let (x, y) = (self.matrix(tokens, from), self.matrix(tokens, to));
        let (w, dw) = (self.matrix(to, from), self.matrix(to, from));
        let dx = self.matrix(tokens, from);
        let backward = LinearBackward {
            x,
            w,
            dy: y,
            dx: None,
            add_to_dx: false,
            through: None,
            dw: None,
            db: None,
        };
        let times = [
            self.seconds(|cpu| cpu.linear(&Linear { x, w, b: None, y, activated: None })),
            self.seconds(|cpu| cpu.linear_backward(&LinearBackward { dx: Some(dx), ..backward })),
            self.seconds(|cpu| cpu.linear_backward(&LinearBackward { dw: Some(dw), ..backward })),
        ];
        let [forward, input, weights] = times.map(|time| 2e-9 * (tokens * from * to) as f64 / time);
        println!("{tokens:>6} {from:>6} {to:>6} {forward:>9.1} {input:>9.1} {weights:>9.1}");
    }

    fn rows(&mut self, tokens: usize, width: usize, inner: usize) {
        println!("{tokens} tokens, width {width}, inner {inner}");
        let (x, residual) = (self.matrix(tokens, width), self.matrix(tokens, width));
        let (sum, y, dx) =
            (self.matrix(tokens, width), self.matrix(tokens, width), self.matrix(tokens, width));
        let (stats, gamma, beta) =
            (self.matrix(tokens, 2), self.matrix(1, width), self.matrix(1, width));
        let dropout = self.dropout(tokens);
        for (what, dropout) in [("", None), (", dropout", Some(dropout))] {
            let op = AddNorm {
                x,
                residual: Some(residual),
                dropout,
                gamma,
                beta,
                eps: 1e-12,
                sum,
                stats,
                y,
            };
            self.show(&format!("add_norm{what}"), |cpu| cpu.add_norm(&op));
            let op = AddNormBackward {
                dy: y,
                sum,
                stats,
                gamma,
                d_sum: residual,
                dx: dropout.map(|dropout| (dropout, dx)),
                d_gamma: Some(beta),
                d_beta: Some(beta),
            };
            self.show(&format!("add_norm_backward{what}"), |cpu| cpu.add_norm_backward(&op));
        }
        let (narrow, wide, active) =
            (self.matrix(inner, 1), self.matrix(tokens, inner), self.matrix(tokens, inner));
        let (thin, bias) = (self.matrix(tokens, 1), self.matrix(1, inner));
        for f in [Activation::Gelu, Activation::GeluTanh] {
            let op =
                Linear { x: thin, w: narrow, b: Some(bias), y: wide, activated: Some((f, active)) };
            self.show(&format!("bias and {f:?} of a thin product"), |cpu| cpu.linear(&op));
            self.show(&format!("slope of {f:?}"), |cpu| {
                cpu.activation_backward(f, wide, active, active);
            });
        }
        let sums = LinearBackward {
            x: thin,
            w: narrow,
            dy: wide,
            dx: None,
            add_to_dx: false,
            through: None,
            dw: None,
            db: Some(bias),
        };
        self.show("gradient of the bias", |cpu| cpu.linear_backward(&sums));
    }

    fn attention(&mut self, tokens: usize, width: usize, length: usize) {
        println!("{tokens} tokens in sequences of {length}, width {width}, heads of 32 numbers");
        let mut starts: Vec<u32> = (0..tokens as u32).step_by(length).collect();
        starts.push(tokens as u32);
        let starts = self.ids(&starts);
        let heads = width / 32;
        let (qkv, d_qkv) = (self.matrix(tokens, 3 * width), self.matrix(tokens, 3 * width));
        let (out, lse) = (self.matrix(tokens, width), self.matrix(tokens, heads));
        let d_out = self.matrix(tokens, width);
        let dropout = self.dropout(tokens);
        for (what, dropout) in [("", None), (", dropout", Some(dropout))] {
            let forward = Attention {
                qkv,
                heads,
                key_heads: heads,
                mask: Mask::Full,
                starts,
                longest: length,
                scale: 0.2,
                dropout,
                out,
                lse,
            };
            self.show(&format!("attention{what}"), |cpu| cpu.attention(&forward));
            let op = AttentionBackward { forward, d_out, d_qkv };
            self.show(&format!("attention_backward{what}"), |cpu| cpu.attention_backward(&op));
        }
    }

    fn adamw(&mut self, len: usize) {
        let spaces = [(); 4].map(|()| self.cpu.alloc(len));
        self.show("adamw of 22 million numbers", |cpu| {
            cpu.adamw(&AdamW {
                spaces,
                spans: &[Span::new(0, len, 0.01)],
                learning_rate: 1e-4,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                step: 10,
                gradient_scale: 1.0,
            });
        });
    }
}
