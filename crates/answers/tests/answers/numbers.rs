//! What is kept is what the teacher said, to the stated bound, for every token and no other.

use heirloom_answers::{Held, Kept, Kind, KnownRows, Shard, Values, distance};
use heirloom_data::text::NOT_LEARNT;
use heirloom_engine::IGNORED;
use heirloom_store::RealDisk;

use crate::tiny::{Texts, VOCABULARY, about, answers, files, fill, filled, texts};

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let parts: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / temperature).exp()).collect();
    let total: f64 = parts.iter().sum();
    parts.into_iter().map(|part| part / total).collect()
}

fn row_of(kept: &Kept, row: usize) -> KnownRows {
    let mut known = KnownRows::default();
    kept.read_known(row, 0..kept.length(row).unwrap(), &mut known).unwrap();
    known
}

#[test]
fn the_likeliest_tokens_are_the_teachers_at_the_temperature_to_the_bound() {
    let rows = texts(35);
    for (k, values) in [(8, Values::Byte), (8, Values::Bf16), (60, Values::F32), (1, Values::F32)] {
        let about = about(&rows, Kind::TopK { k }, values);
        let folder = filled(&rows, &about);
        let kept = Kept::open_any(folder.path()).unwrap();
        let k = k as usize;
        for row in [0, 7, 29, 30, 34] {
            let (known, logits) = (row_of(&kept, row), answers(&rows.0[row]).1);
            assert_eq!(known.rest.len(), rows.0[row].ids.len());
            for (at, logits) in logits.iter().enumerate() {
                let ids = &known.ids[at * k..(at + 1) * k];
                let p = &known.probabilities[at * k..(at + 1) * k];
                if rows.0[row].labels[at] == NOT_LEARNT {
                    assert!(ids.iter().all(|&id| id == IGNORED) && known.rest[at] == 1.0);
                    continue;
                }
                let want = softmax(logits, 2.0);
                let least = ids.iter().map(|&id| want[id as usize]).fold(1.0, f64::min);
                let others = (0..VOCABULARY).filter(|id| !ids.contains(id));
                assert!(others.clone().all(|id| want[id as usize] <= least + 1e-9));
                let rest: f64 = others.map(|id| want[id as usize]).sum();
                let kept = ids.iter().zip(p).map(|(&id, &p)| (f64::from(p), want[id as usize]));
                for (got, want) in kept.chain([(f64::from(known.rest[at]), rest)]) {
                    // The number, and the sum it is divided by; a batch packs rows otherwise.
                    let bound = 2.0 * values.error_bound() + 1e-5;
                    assert!((got.ln() - want.ln()).abs() <= bound || want < 1e-11, "{got} {want}");
                }
                let distance = distance(logits, 2.0, (ids, p, known.rest[at]));
                if k == 60 {
                    assert!(distance.forward.abs() < 1e-5, "{distance:?}");
                }
            }
        }
    }
}

#[test]
fn hidden_states_are_the_teachers() {
    let rows = texts(12);
    let width = (answers(&rows.0[0]).0.len() / rows.0[0].ids.len()) as u32;
    for (values, bound) in [(Values::F32, 1e-5), (Values::Bf16, 1.0 / 256.0)] {
        let folder = filled(&rows, &about(&rows, Kind::States { width }, values));
        let kept = Kept::open_any(folder.path()).unwrap();
        for row in [0, 5, 11] {
            let mut got = Vec::new();
            kept.read_states(row, 0..kept.length(row).unwrap(), &mut got).unwrap();
            let want = answers(&rows.0[row]).0;
            for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                let learnt = rows.0[row].labels[at / width as usize] != NOT_LEARNT;
                let want = if learnt { *want } else { 0.0 };
                assert!((got - want).abs() <= bound * want.abs().max(1.0), "{got} {want}");
            }
        }
    }
}

/// The teacher's distribution, averaged over all tokens, against the mean of what was drawn: the
/// difference of each token's share has a variance below its mean over the number of draws.
#[test]
fn draws_have_the_mean_of_the_teacher() {
    let rows = texts(40);
    for (draws, proposal) in [(1, 1.0), (12, 1.0), (50, 1.0)] {
        let about = about(&rows, Kind::Samples { draws, proposal }, Values::Byte);
        let folder = filled(&rows, &about);
        let kept = Kept::open_any(folder.path()).unwrap();
        let (mut got, mut want, mut tokens) = ([0.0; 60], [0.0; 60], 0.0);
        for (row, text) in rows.0.iter().enumerate() {
            let (known, logits) = (row_of(&kept, row), answers(text).1);
            let all = logits.iter().zip(&text.labels).enumerate();
            for (at, (logits, _)) in all.filter(|(_, (_, label))| **label != NOT_LEARNT) {
                let places = at * about.width()..(at + 1) * about.width();
                let (ids, p) = (&known.ids[places.clone()], &known.probabilities[places]);
                let there = ids.iter().zip(p).filter(|(id, _)| **id != IGNORED);
                there.for_each(|(&id, &p)| got[id as usize] += f64::from(p));
                assert_eq!(known.rest[at], 0.0);
                softmax(logits, 2.0).iter().zip(&mut want).for_each(|(p, want)| *want += p);
                tokens += 1.0;
            }
        }
        for (id, (got, want)) in got.iter().zip(&want).enumerate() {
            // 4.5 standard deviations, passed by chance once in 2,500 times for sixty tokens; the
            // seed is fixed.
            let z = (got - want) / (want / f64::from(draws)).sqrt();
            assert!(z.abs() < 4.5, "token {id} of {tokens}: {got}, should be {want}, z = {z}");
        }
    }
}

#[test]
fn a_proposal_changes_what_is_drawn_and_weights_take_it_back() {
    let rows = texts(10);
    let about = about(&rows, Kind::Samples { draws: 4000, proposal: 1.7 }, Values::F32);
    let folder = filled(&rows, &about);
    let kept = Kept::open_any(folder.path()).unwrap();
    let (known, logits) = (row_of(&kept, 3), answers(&rows.0[3]).1);
    for at in (0..logits.len()).filter(|&at| rows.0[3].labels[at] != NOT_LEARNT) {
        let want = softmax(&logits[at], 2.0);
        for place in at * about.width()..(at + 1) * about.width() {
            if let Some(&want) = want.get(known.ids[place] as usize) {
                // Weights of at most a few: four standard deviations of 4,000 draws.
                let off = (f64::from(known.probabilities[place]) - want).abs();
                assert!(off < 4.0 * (3.0 * want / 4000.0).sqrt() + 1e-3, "{off} of {want}");
            }
        }
    }
}

#[test]
fn any_token_can_be_asked_for_alone() {
    let rows = texts(35);
    for kind in [Kind::TopK { k: 5 }, Kind::Samples { draws: 9, proposal: 1.0 }] {
        let folder = filled(&rows, &about(&rows, kind, Values::Byte));
        let kept = Kept::open_any(folder.path()).unwrap();
        let k = kept.about().width();
        // Rows 17 and 18 lie on both sides of the first thousand tokens.
        for row in (0..35).rev() {
            let whole = row_of(&kept, row);
            for at in (0..kept.length(row).unwrap()).rev().step_by(3) {
                let mut one = KnownRows::default();
                kept.read_known(row, at..at + 1, &mut one).unwrap();
                assert_eq!(one.ids, whole.ids[at * k..(at + 1) * k]);
                assert_eq!(one.probabilities, whole.probabilities[at * k..(at + 1) * k]);
                assert_eq!(one.rest, [whole.rest[at]]);
            }
        }
    }
}

#[test]
fn many_machines_make_the_same_bytes_as_one() {
    let rows: Texts = texts(100);
    for kind in [Kind::TopK { k: 6 }, Kind::Samples { draws: 12, proposal: 1.0 }] {
        let about = about(&rows, kind, Values::Byte);
        let one = filled(&rows, &about);
        assert_eq!(Held::open(&RealDisk, one.path()).unwrap().parts(), 4);
        for of in [2, 3, 5] {
            let many = tempfile::tempdir().unwrap();
            // In any order.
            for number in (1..=of).rev() {
                let shard = Shard { number, of };
                assert!(fill(&RealDisk, many.path(), &rows, &about, shard, usize::MAX).unwrap());
            }
            assert_eq!(files(many.path()), files(one.path()), "{of} machines");
            let digest = |folder: &std::path::Path| Kept::open_any(folder).unwrap().digest();
            assert_eq!(digest(many.path()), digest(one.path()));
        }
    }
}
