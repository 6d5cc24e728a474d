//! What a timed language model hears of its teacher: nothing, all logits, or the likeliest tokens.

use heirloom_engine::{Device, Divergence, IGNORED, Ids, Missing, SparseLoss, View};
use heirloom_objective::{
    KnownTokens, SparseTerm, TeacherTerm, TeacherTokens, TokenLoss, TokenTerm,
};

use super::{ALPHA, TEMPERATURE, teacher_logits};
use crate::args::{BenchStepArgs, BenchTeacher};

/// The terms of a step.
pub(super) fn terms(teacher: BenchTeacher) -> Vec<TokenTerm> {
    let loss = match teacher {
        BenchTeacher::None => return vec![TokenTerm { weight: 1.0, loss: TokenLoss::Label }],
        BenchTeacher::Full => TokenLoss::Teacher(TeacherTerm {
            divergence: Divergence::ForwardKl,
            temperature: TEMPERATURE,
            scale_by_temperature_squared: true,
        }),
        BenchTeacher::Kept => TokenLoss::Known(SparseTerm {
            loss: SparseLoss::Divergence(Divergence::ForwardKl),
            missing: Missing::TailBucket,
            temperature: TEMPERATURE,
            scale_by_temperature_squared: true,
        }),
    };
    vec![
        TokenTerm { weight: 1.0 - ALPHA, loss: TokenLoss::Label },
        TokenTerm { weight: ALPHA, loss },
    ]
}

/// The answers to `tokens` tokens of a vocabulary of `width`, on the device.
pub(super) fn answers(
    device: &mut dyn Device,
    args: &BenchStepArgs,
    tokens: usize,
    width: usize,
) -> Option<TeacherTokens> {
    match args.teacher {
        BenchTeacher::None => None,
        BenchTeacher::Full => {
            let logits = View::matrix(device.alloc(tokens * width), 0, tokens, width);
            device.write(logits, &teacher_logits(tokens * width));
            Some(TeacherTokens::Logits(logits))
        }
        BenchTeacher::Kept => {
            let known = args.top_k;
            let place = |device: &mut dyn Device, columns| {
                View::matrix(device.alloc(tokens * columns), 0, tokens, columns)
            };
            let (probabilities, rest) = (place(device, known), place(device, 1));
            let ids = Ids::at(device.alloc_ids(tokens * known), 0, tokens * known);
            let logits = teacher_logits(tokens * width);
            let kept: Vec<Kept> =
                logits.chunks_exact(width).map(|logits| Kept::of(logits, known)).collect();
            let flat = |row: fn(&Kept) -> &[f32]| -> Vec<f32> {
                kept.iter().flat_map(row).copied().collect()
            };
            device.write(probabilities, &flat(|kept| &kept.probabilities));
            device.write(rest, &flat(|kept| std::slice::from_ref(&kept.rest)));
            let words: Vec<u32> = kept.iter().flat_map(|kept| &kept.ids).copied().collect();
            device.write_ids(ids, &words);
            Some(TeacherTokens::Known(KnownTokens { ids, probabilities, rest }))
        }
    }
}

/// The likeliest tokens of one answer.
struct Kept {
    ids: Vec<u32>,
    probabilities: Vec<f32>,
    rest: f32,
}

impl Kept {
    /// The `known` likeliest of a row of logits, at [`TEMPERATURE`], by ascending number.
    fn of(logits: &[f32], known: usize) -> Self {
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]);
        if known < ids.len() {
            ids.select_nth_unstable_by(known, by_logit);
            ids.truncate(known);
        }
        ids.sort_unstable();
        ids.resize(known, IGNORED);
        let weight = |logit: f32| (f64::from(logit) / TEMPERATURE).exp();
        let whole: f64 = logits.iter().map(|&logit| weight(logit)).sum();
        let probability = |&id: &u32| {
            logits.get(id as usize).map_or(0.0, |&logit| (weight(logit) / whole) as f32)
        };
        let probabilities: Vec<f32> = ids.iter().map(probability).collect();
        let sum: f64 = probabilities.iter().copied().map(f64::from).sum();
        // Where nothing is left out, what rounding leaves would be the mass of no class at all.
        let rest = if known < logits.len() { (1.0 - sum).max(0.0) as f32 } else { 0.0 };
        Self { ids, probabilities, rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_are_kept_with_what_the_others_have() {
        let logits = [0.0, 4.0, -8.0, 2.0].map(|power: f32| power * std::f32::consts::LN_2);
        // At T = 2: 1, 4, 1/16 and 2 of 113/16.
        let kept = Kept::of(&logits, 2);
        assert_eq!(kept.ids, [1, 3]);
        let want = [64.0 / 113.0, 32.0 / 113.0, 17.0 / 113.0];
        let got = [kept.probabilities[0], kept.probabilities[1], kept.rest];
        assert!(want.iter().zip(got).all(|(want, got)| (want - got).abs() < 1e-6), "{got:?}");
    }

    #[test]
    fn more_than_there_are_leaves_places_empty() {
        let kept = Kept::of(&[0.0, 0.0], 3);
        assert_eq!(kept.ids[2], IGNORED);
        assert_eq!((kept.probabilities[2], kept.rest), (0.0, 0.0));
    }
}
