//! From a teacher's logits to what is kept of them: the likeliest tokens, or draws.

use std::cmp::Ordering;

use heirloom_base::{Purpose, Words, uniform};
use heirloom_engine::{exponentials, sum};

use crate::{Kind, Known};

/// Room for a row of logits; what is in it between two calls means nothing.
#[derive(Clone, Debug, Default)]
pub struct Room {
    exponentials: Vec<f32>,
    ordered: Vec<f32>,
}

impl Room {
    /// Fills in the exponentials of a row: the logarithm of their sum as probabilities are divided by
    /// it, and the sum.
    fn fill(&mut self, logits: &[f32], temperature: f64) -> (f64, f64) {
        self.exponentials.resize(logits.len(), 0.0);
        let (largest, sum) = exponentials(logits, temperature, &mut self.exponentials);
        (f64::from(largest) / temperature, sum)
    }

    /// The `k` likeliest tokens, ids ascending; of equal ones the first.
    fn likeliest(&mut self, logits: &[f32], k: usize) -> Vec<u32> {
        if k >= logits.len() {
            return (0..logits.len() as u32).collect();
        }
        if k == 0 {
            return Vec::new();
        }
        self.ordered.clear();
        self.ordered.extend_from_slice(logits);
        let (.., last, _) = self.ordered.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        let (last, above) = (*last, logits.iter().filter(|x| x.total_cmp(last).is_gt()).count());
        let mut equal = k - above;
        let mut ids = Vec::with_capacity(k);
        for (id, x) in (0..).zip(logits) {
            let is_one = match x.total_cmp(&last) {
                Ordering::Greater => true,
                Ordering::Equal if equal > 0 => {
                    equal -= 1;
                    true
                }
                _ => false,
            };
            if is_one {
                ids.push(id);
            }
        }
        ids
    }
}

/// The likeliest `k` tokens of `softmax(logits / temperature)`, ids ascending; of equal ones the
/// first. `logits` holds V finite numbers or −∞, one finite at least.
pub fn top_k(room: &mut Room, logits: &[f32], temperature: f64, k: usize) -> Known {
    let ids = room.likeliest(logits, k);
    let (largest, _) = room.fill(logits, temperature);
    // What is left is summed, and not what is known taken from 1: there it would be lost in rounding.
    let taken = |&id: &u32| f64::from(std::mem::take(&mut room.exponentials[id as usize]));
    let known: f64 = ids.iter().map(taken).sum();
    let rest = sum(&room.exponentials);
    let ln_sum = libm::log(known + rest);
    let ln_total = largest + ln_sum;
    Known {
        ln_p: ids
            .iter()
            .map(|&id| (f64::from(logits[id as usize]) / temperature - ln_total) as f32)
            .collect(),
        ids,
        draws: Vec::new(),
        ln_rest: (libm::log(rest) - ln_sum) as f32,
    }
}

/// `draws` tokens of `softmax(logits / (temperature · proposal))`, with replacement, by `words` of
/// address `(row, 0..)`; `ln_p` is at `temperature`.
pub fn samples(
    room: &mut Room,
    logits: &[f32],
    temperature: f64,
    proposal: f64,
    draws: usize,
    (words, row): (&Words, u32),
) -> Known {
    let (largest, sum_p) = room.fill(logits, temperature);
    let ln_total_p = largest + libm::log(sum_p);
    let sum = if proposal == 1.0 { sum_p } else { room.fill(logits, temperature * proposal).1 };
    let mut drawn: Vec<f64> = (0..draws)
        .map(|draw| {
            let [low, high, ..] = words.block(row, draw as u32);
            uniform(u64::from(high) << 32 | u64::from(low)) * sum
        })
        .collect();
    drawn.sort_unstable_by(f64::total_cmp);
    let mut known = Known { ln_rest: f32::NEG_INFINITY, ..Known::default() };
    // The exponentials laid end to end; each draw falls into one. Rounding may leave the last end
    // below their sum: what falls behind it belongs to the last token that can be.
    let (mut end, mut next, mut last) = (0.0, 0, 0);
    let mut take = |id: usize, count: usize| {
        if known.ids.last() == Some(&(id as u32)) {
            *known.draws.last_mut().expect("an id has draws") += count as u32;
            return;
        }
        known.ids.push(id as u32);
        known.draws.push(count as u32);
        known.ln_p.push((f64::from(logits[id]) / temperature - ln_total_p) as f32);
    };
    for (id, &share) in room.exponentials.iter().enumerate() {
        if share == 0.0 {
            continue;
        }
        end += f64::from(share);
        last = id;
        let first = next;
        while next < draws && drawn[next] < end {
            next += 1;
        }
        if next > first {
            take(id, next - first);
        }
        if next == draws {
            break;
        }
    }
    if next < draws {
        take(last, draws - next);
    }
    known
}

/// The words that a row of rows draws with.
pub(crate) fn words(seed: u64, row: usize) -> Words {
    Words::at(seed, Purpose::Answers, row as u64, 0)
}

/// What `kind` keeps of the answer of the token at `position` of row `row`.
pub(crate) fn choose(
    room: &mut Room,
    kind: Kind,
    logits: &[f32],
    temperature: f64,
    seed: u64,
    (row, position): (usize, usize),
) -> Known {
    match kind {
        Kind::TopK { k } => top_k(room, logits, temperature, k as usize),
        Kind::Samples { draws, proposal } => {
            let words = words(seed, row);
            let place = (&words, position as u32);
            samples(room, logits, temperature, proposal, draws as usize, place)
        }
        Kind::States { .. } => unreachable!("hidden states are kept whole"),
    }
}

/// `ln Σ exp(logits / temperature)`.
pub(crate) fn ln_total(logits: &[f32], temperature: f64) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest) / temperature;
    let sum: f64 = logits.iter().map(|&x| libm::exp(f64::from(x) / temperature - largest)).sum();
    largest + libm::log(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: f32 = f32::NEG_INFINITY;

    #[test]
    fn the_likeliest_come_with_what_is_left() {
        let logits = [0.0, 2.0, NEVER, 1.0, 2.0];
        let total = 1.0 + 2.0 * 2f64.exp() + 1f64.exp();
        let known = top_k(&mut Room::default(), &logits, 1.0, 2);
        assert_eq!(known.ids, [1, 4]);
        assert!((f64::from(known.ln_p[0]).exp() - 2f64.exp() / total).abs() < 1e-7);
        assert!((f64::from(known.ln_rest).exp() - (1.0 + 1f64.exp()) / total).abs() < 1e-7);
        // Of equal ones the first; all of them, and then nothing is left.
        assert_eq!(top_k(&mut Room::default(), &logits, 1.0, 1).ids, [1]);
        let all = top_k(&mut Room::default(), &logits, 2.0, 5);
        assert_eq!((all.ids.len(), all.ln_rest, all.ln_p[2]), (5, NEVER, NEVER));
        // Colder: nearly all on one.
        assert!(top_k(&mut Room::default(), &[0.0, 10.0], 0.1, 1).ln_p[0] > -1e-6);
    }

    #[test]
    fn draws_come_as_often_as_their_probability_says() {
        // Z of each count of a token is normal for so many draws; 4.5 is passed by chance once in
        // 150,000 times, and the seed is fixed.
        let logits: Vec<f32> = (0..6).map(|at| [0.3, -1.0, 2.0, NEVER, 1.2, -3.0][at]).collect();
        let n = 200_000;
        for (temperature, proposal) in [(1.0, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 2.0)] {
            let known = samples(
                &mut Room::default(),
                &logits,
                temperature,
                proposal,
                n,
                (&words(7, 3), 11),
            );
            assert_eq!(known.draws.iter().sum::<u32>() as usize, n);
            let of = temperature * proposal;
            let ln_total = ln_total(&logits, of);
            assert!(!known.ids.contains(&3));
            for (&id, &count) in known.ids.iter().zip(&known.draws) {
                let q = (f64::from(logits[id as usize]) / of - ln_total).exp();
                let z = (f64::from(count) - n as f64 * q) / (n as f64 * q * (1.0 - q)).sqrt();
                assert!(z.abs() < 4.5, "{id}: {count} draws at q = {q}, z = {z}");
            }
        }
    }

    #[test]
    fn every_token_has_draws_of_its_own_and_always_the_same() {
        let logits = vec![0.0; 1000];
        let at = |row, position| {
            samples(&mut Room::default(), &logits, 1.0, 1.0, 12, (&words(5, row), position)).ids
        };
        assert_eq!(at(2, 7), at(2, 7));
        assert_ne!(at(2, 7), at(2, 8));
        assert_ne!(at(2, 7), at(3, 7));
    }

    #[test]
    fn one_token_that_can_be_gets_every_draw() {
        let known =
            samples(&mut Room::default(), &[NEVER, 1e4, NEVER], 1.0, 1.0, 9, (&words(1, 0), 0));
        assert_eq!((known.ids, known.draws), (vec![1], vec![9]));
    }
}
