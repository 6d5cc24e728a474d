//! What each loss on rows of logits takes for an element, with its gradient: nanoseconds on one thread,
//! the best of eight, 256 rows of 16,384 classes. A loss that takes several times as long as its like
//! has lost its vector instructions.
//!
//!     cargo run --release -p heirloom-engine --example loss_times

#![expect(clippy::print_stdout, reason = "an example speaks to whoever runs it")]

use std::time::Instant;

use heirloom_engine::{
    Cpu, Device, Divergence, Ids, Missing, RowLoss, SparseLoss, SparseTarget, Target, View,
};

const ROWS: usize = 256;
const CLASSES: usize = 16_384;
/// Classes that a row of kept answers knows.
const KNOWN: usize = 64;
const TEMPERATURE: f64 = 2.0;
const FACTOR: f64 = 4.0;

fn main() {
    let mut cpu = Cpu::new(1);
    let device: &mut dyn Device = &mut cpu;
    let mut matrix = |columns| View::matrix(device.alloc(ROWS * columns), 0, ROWS, columns);
    let [x, dx, logits] = [(); 3].map(|()| matrix(CLASSES));
    let (probabilities, rest, losses) = (matrix(KNOWN), matrix(1), matrix(1));
    let some = |step: usize| -> Vec<f32> {
        (0..ROWS * CLASSES).map(|at| (at * step % 1000) as f32 / 250.0).collect()
    };
    device.write(x, &some(7919));
    device.write(logits, &some(6271));
    device.write(probabilities, &[0.5 / KNOWN as f32; ROWS * KNOWN]);
    device.write(rest, &[0.5; ROWS]);
    let mut ids = |numbers: Vec<u32>| {
        let ids = Ids::at(device.alloc_ids(numbers.len()), 0, numbers.len());
        device.write_ids(ids, &numbers);
        ids
    };
    let labels = ids((0..ROWS as u32).collect());
    let apart = CLASSES / KNOWN;
    let known =
        ids((0..ROWS * KNOWN).map(|at| (at % KNOWN * apart + at / KNOWN % 97) as u32).collect());

    let teacher = |divergence| Target::Teacher {
        logits,
        divergence,
        temperature: TEMPERATURE,
        factor: FACTOR,
        labels: Some(labels),
    };
    let kept = |loss, missing| {
        let (temperature, factor) = (TEMPERATURE, FACTOR);
        Target::Sparse(SparseTarget {
            ids: known,
            probabilities,
            rest,
            loss,
            missing,
            temperature,
            factor,
        })
    };
    let divergences = [
        Divergence::ForwardKl,
        Divergence::ReverseKl,
        Divergence::Symmetric,
        Divergence::JensenShannon { beta: 0.5 },
        Divergence::SkewKl { alpha: 0.1 },
        Divergence::SkewReverseKl { alpha: 0.1 },
        Divergence::AlphaBeta { alpha: 0.5, beta: 0.5 },
        Divergence::TotalVariation,
        Divergence::Decoupled { alpha: 1.0, beta: 8.0 },
        Divergence::MeanSquaredLogits { centred: true },
    ];
    let mut all = vec![
        ("labels".to_owned(), Target::Labels(labels)),
        (
            "labels, smoothed".to_owned(),
            Target::Softened { labels, share: 0.1, temperature: f64::INFINITY },
        ),
        ("labels, LABO".to_owned(), Target::Softened { labels, share: 0.5, temperature: 2.0 }),
    ];
    all.extend(divergences.map(|divergence| (format!("{divergence:?}"), teacher(divergence))));
    for divergence in divergences {
        let loss = SparseLoss::Divergence(divergence);
        if SparseTarget::refusal(loss, Missing::TailBucket).is_none() {
            all.push((format!("64 known, {divergence:?}"), kept(loss, Missing::TailBucket)));
        }
    }
    all.push(("64 drawn".to_owned(), kept(SparseLoss::CrossEntropy, Missing::Zero)));
    for top in [64, CLASSES] {
        let sorted = Target::Sorted { logits, temperature: TEMPERATURE, factor: 1.0, top };
        all.push((format!("by rank, the {top} largest"), sorted));
    }
    for (name, target) in all {
        let best = (0..8).map(|_| {
            let start = Instant::now();
            let scale = 1.0 / ROWS as f64;
            device.row_loss(&RowLoss { x, target, scale, weights: None, losses, dx: Some(dx) });
            start.elapsed().as_secs_f64()
        });
        let best = best.fold(f64::INFINITY, f64::min);
        println!("{:8.2}  {name}", best * 1e9 / (ROWS * CLASSES) as f64);
    }
}
