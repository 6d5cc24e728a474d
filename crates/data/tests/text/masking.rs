//! Masks of a masked language model: shares as the law says, whole words, and nothing but the
//! address decides.

use std::collections::BTreeSet;

use heirloom_data::text::{Masked, Masker, Masking, NOT_LEARNT};
use heirloom_data::tokens::Tokenizer;
use proptest::prelude::*;

use crate::place::{Place, word_piece};

fn masked(masker: &Masker, step: u64, row: u32, ids: &[u32], starts: &[u32]) -> Masked {
    let mut masked = Masked::default();
    masker.apply(step, row, ids, starts, &mut masked);
    masked
}

fn masker(tokenizer: &Tokenizer, masking: Masking) -> Masker {
    Masker::new(tokenizer, masking, 7).unwrap()
}

/// How far a share may be from its law: four standard errors of that many draws.
fn margin(share: f64, draws: usize) -> f64 {
    4.0 * (share * (1.0 - share) / draws as f64).sqrt()
}

#[test]
fn shares_are_those_of_the_law() {
    let tokenizer = word_piece();
    let masker = masker(&tokenizer, Masking::default());
    // Each row is [CLS], 126 pieces of text, [SEP]; the tokens of the vocabulary in turn.
    let row: Vec<u32> = [2].into_iter().chain((0..126).map(|at| 5 + at % 9)).chain([3]).collect();
    let (mut tokens, mut chosen, mut masks, mut same) = (0, 0, 0, 0);
    let mut put_in = [0usize; 14];
    for number in 0..2000 {
        let Masked { ids, labels, positions } = masked(&masker, 3, number, &row, &[0, 128]);
        tokens += 126;
        chosen += positions.len();
        let labelled: Vec<u32> =
            (0..).zip(&labels).filter(|(_, l)| **l != NOT_LEARNT).map(|(at, _)| at).collect();
        assert_eq!(labelled, positions);
        for (at, (&seen, &was)) in ids.iter().zip(&row).enumerate() {
            if labels[at] == NOT_LEARNT {
                assert_eq!(seen, was);
                continue;
            }
            assert_eq!(labels[at], was);
            assert!((5..14).contains(&was), "a special token was chosen");
            match seen {
                4 => masks += 1,
                _ if seen == was => same += 1,
                _ => put_in[seen as usize] += 1,
            }
        }
    }
    let near = |found: usize, of: usize, share: f64| {
        let found = found as f64 / of as f64;
        assert!((found - share).abs() < margin(share, of), "{found} for {share}");
    };
    near(chosen, tokens, 0.15);
    near(masks, chosen, 0.8);
    // A random token is the old one in one of nine draws.
    near(same, chosen, 0.1 + 0.1 / 9.0);
    assert_eq!(put_in[..5], [0; 5], "a special token was put in");
    for &count in &put_in[5..] {
        near(count, chosen, 0.1 / 9.0 * 8.0 / 9.0);
    }
}

#[test]
fn extreme_shares_do_what_they_say() {
    let tokenizer = word_piece();
    let ids: Vec<u32> = (0..14).collect();
    let all = |mask, random| {
        let masking = Masking { share: 1.0, mask, random, whole_words: false };
        masked(&masker(&tokenizer, masking), 0, 0, &ids, &[0, 14])
    };
    let masks = all(1.0, 0.0);
    assert_eq!(masks.positions, (5..14).collect::<Vec<u32>>());
    assert_eq!(masks.ids, [&ids[..5], &[4; 9]].concat());
    assert_eq!(all(0.0, 0.0).ids, ids);
    assert!(all(0.0, 1.0).ids[5..].iter().all(|id| (5..14).contains(id)));
}

#[test]
fn pieces_of_a_word_are_chosen_together() {
    let tokenizer = word_piece();
    let masking = Masking { share: 0.4, mask: 1.0, random: 0.0, whole_words: true };
    let masker = masker(&tokenizer, masking);
    // [CLS] the | na ##ive ##s | . | cat [SEP] — and ##t begins a document, so it is a word.
    let row = [2, 5, 9, 10, 7, 11, 6, 3, 12, 7];
    let words: [&[u32]; 5] = [&[1], &[2, 3, 4], &[5], &[6], &[8, 9]];
    let mut chosen = [0; 5];
    for number in 0..4000 {
        let found: BTreeSet<u32> =
            masked(&masker, 0, number, &row, &[0, 8, 10]).positions.into_iter().collect();
        for (count, word) in chosen.iter_mut().zip(words) {
            let inside = word.iter().filter(|at| found.contains(at)).count();
            assert!(inside == 0 || inside == word.len(), "half a word was chosen: {found:?}");
            *count += usize::from(inside > 0);
        }
    }
    for count in chosen {
        let share = count as f64 / 4000.0;
        assert!((share - 0.4).abs() < margin(0.4, 4000), "{share}");
    }
}

#[test]
fn words_of_a_byte_level_vocabulary_begin_at_blanks_and_signs() {
    let place = Place::new();
    let tokenizer = with_mask(&place);
    let masking = Masking { share: 0.5, mask: 1.0, random: 0.0, whole_words: true };
    let masker = masker(&tokenizer, masking);
    let ids = tokenizer.encode_text("ab cd(été\n1").unwrap().ids;
    // a b | Ġ | c d | ( | Ã © t Ã © | Ċ | 1: these merges make no token of a blank and a letter.
    let words: [&[u32]; 7] = [&[0, 1], &[2], &[3, 4], &[5], &[6, 7, 8, 9, 10], &[11], &[12]];
    assert_eq!(ids.len(), 13);
    let mut partings = BTreeSet::new();
    for number in 0..300 {
        let found = masked(&masker, 0, number, &ids, &[0, 13]).positions;
        for word in words {
            let inside = word.iter().filter(|at| found.contains(at)).count();
            assert!(inside == 0 || inside == word.len(), "{found:?}");
        }
        for pair in words.windows(2) {
            if found.contains(&pair[0][0]) != found.contains(&pair[1][0]) {
                partings.insert(pair[1][0]);
            }
        }
    }
    assert_eq!(partings.len(), 6, "two words were always chosen together: {partings:?}");
}

/// The bytes of [`Place::bytes`], with `<|other|>` as mask token.
fn with_mask(place: &Place) -> Tokenizer {
    place.bytes(&[]);
    place.write("bytes/tokenizer_config.json", "{\"mask_token\": \"<|other|>\"}");
    Tokenizer::open(&place.path("bytes")).unwrap()
}

proptest! {
    #[test]
    fn masks_depend_on_seed_step_row_and_position_alone(
        ids in prop::collection::vec(0u32..14, 1..40),
        step in 0u64..5,
        row in 0u32..50,
        whole_words in any::<bool>(),
    ) {
        let tokenizer = word_piece();
        let masker = masker(&tokenizer, Masking { share: 0.5, whole_words, ..Masking::default() });
        let starts = [0, ids.len() as u32];
        let alone = masked(&masker, step, row, &ids, &starts);
        // Whatever was masked before, in whatever order, and into used memory.
        let mut used = Masked::default();
        for other in [3, row, 1] {
            masker.apply(step + 1, other, &ids[..ids.len() / 2], &[0], &mut used);
        }
        masker.apply(step, row, &ids, &starts, &mut used);
        prop_assert_eq!(&used, &alone);
        // A row that was cut keeps the masks of what is left.
        let half = ids.len() / 2;
        let cut = masked(&masker, step, row, &ids[..half], &[0, half as u32]);
        prop_assert_eq!(&cut.ids[..], &alone.ids[..half]);
    }
}

#[test]
fn other_steps_rows_and_seeds_have_other_masks() {
    let tokenizer = word_piece();
    let ids: Vec<u32> = (0..100).map(|at| 5 + at % 9).collect();
    let one = masker(&tokenizer, Masking::default());
    let other = Masker::new(&tokenizer, Masking::default(), 8).unwrap();
    let found = [
        masked(&one, 0, 0, &ids, &[0, 100]),
        masked(&one, 1, 0, &ids, &[0, 100]),
        masked(&one, 0, 1, &ids, &[0, 100]),
        masked(&other, 0, 0, &ids, &[0, 100]),
    ];
    for (at, left) in found.iter().enumerate() {
        assert!(found[..at].iter().all(|right| left.positions != right.positions));
    }
}

#[test]
fn what_cannot_be_masked_is_refused() {
    let place = Place::new();
    let said = Masker::new(&place.bytes(&[]), Masking::default(), 1).unwrap_err().to_string();
    assert_eq!(
        said,
        "the tokenizer has no mask token; a masked language model needs one, as `[MASK]`"
    );
    let wrong = [
        (0.0, 0.8, 0.1),
        (1.1, 0.8, 0.1),
        (0.15, 0.95, 0.1),
        (0.15, -0.1, 0.1),
        (0.15, 0.8, f64::NAN),
    ];
    for (share, mask, random) in wrong {
        let masking = Masking { share, mask, random, whole_words: false };
        let error = Masker::new(&word_piece(), masking, 1).unwrap_err();
        assert!(error.to_string().starts_with("masking cannot choose a share of"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
