//! Two tokenizations of one text, matched by the bytes of the text that was given, whatever the
//! tokenizers make of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use heirloom_data::align::{Group, NO_END, Spans, UNMATCHED, align, groups};
use heirloom_data::tokens::Tokenizer;
use proptest::prelude::*;

mod byte_level;

/// BERT's, lower-casing, without accents.
fn words() -> Tokenizer {
    let tokens = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\nsat\n.\nthecat\ncafe\nc\n##a\n##t\n你\nistan\n##bul";
    Tokenizer::from_vocabulary(tokens, true).unwrap()
}

const MERGES: [&str; 7] = ["h e", "T he", "a t", "Ġ c", "Ġc at", "Ġ s", "Ġs at"];

fn bytes() -> Tokenizer {
    byte_level::open(&byte_level::json(&[], &[], false))
}

fn merged() -> Tokenizer {
    byte_level::open(&byte_level::json(&MERGES, &[], false))
}

fn begun() -> Tokenizer {
    byte_level::open(&byte_level::json(&MERGES, &["<s>"], true))
}

fn ends(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    Spans::of(tokenizer, text, 1000).unwrap().ends
}

const NONE: u32 = NO_END;

#[test]
fn a_token_ends_where_the_original_text_says() {
    let text = "The cats sat.";
    // The| cat|s| sat|.
    assert_eq!(ends(&merged(), text), [3, 7, 8, 12, 13]);
    // [CLS] the cat ##s sat . [SEP]: the first is before all text, the last after it.
    assert_eq!(ends(&words(), text), [0, 3, 7, 8, 12, 13, NONE]);
    assert_eq!(ends(&begun(), text), [0, 3, 7, 8, 12, 13]);
    assert_eq!(ends(&bytes(), "ab c"), [1, 2, 3, 4]);
}

#[test]
fn of_a_character_in_pieces_only_the_last_piece_ends_it() {
    // é has two bytes, 你 three, 🤗 four.
    assert_eq!(ends(&bytes(), "é"), [NONE, 2]);
    assert_eq!(ends(&bytes(), "a你🤗b"), [1, NONE, NONE, 4, NONE, NONE, NONE, 8, 9]);
    // A token for two of the three bytes does not end the character either.
    let pieces = byte_level::open(&byte_level::json(&["ä ½"], &[], false));
    assert_eq!(ends(&pieces, "你"), [NONE, 3]);
}

#[test]
fn cutting_inside_a_character_leaves_it_without_an_end() {
    let cut = |length| Spans::of(&bytes(), "a你b", length).unwrap().ends;
    assert_eq!(cut(2), [1, NONE]);
    assert_eq!(cut(3), [1, NONE, NONE]);
    assert_eq!(cut(4), [1, NONE, NONE, 4]);
}

#[test]
fn what_a_tokenizer_changes_in_a_text_does_not_move_its_ends() {
    // Capitals and accents go, the dot above ı goes, full-width letters stay as they are unknown.
    let text = "Café THE ISTANBUL cats";
    assert_eq!(ends(&words(), text), [0, 5, 9, 15, 18, 22, 23, NONE]);
    // An accent of its own belongs to no token of BERT's.
    assert_eq!(ends(&words(), "cafe\u{301} the"), [0, 4, 10, NONE]);
    // Two characters that the tokenizer sets apart by blanks which are not there.
    assert_eq!(ends(&words(), "你你"), [0, 3, 6, NONE]);
    // What it does not know is one token as long as the word.
    assert_eq!(ends(&words(), "the Ωmega the"), [0, 3, 10, 14, NONE]);
}

#[test]
fn positions_are_matched_where_both_have_read_the_same_bytes() {
    let text = "The cats sat.";
    let (student, teacher) = (ends(&merged(), text), ends(&words(), text));
    assert_eq!(align(&student, &teacher), [1, 2, 3, 4, 5]);
    assert_eq!(align(&teacher, &student), [UNMATCHED, 0, 1, 2, 3, 4, UNMATCHED]);
    // Bytes against words: every end of a word is an end of a byte.
    let letters = ends(&bytes(), text);
    let matched = align(&letters, &teacher);
    let where_matched: Vec<usize> =
        (0..13).filter(|&at| matched[at] != UNMATCHED).map(|at| at + 1).collect();
    assert_eq!(where_matched, [3, 7, 8, 12, 13]);
}

#[test]
fn one_side_alone_beginning_with_a_special_token_moves_nothing() {
    let text = "The cats sat on é.";
    let (with, without) = (ends(&begun(), text), ends(&merged(), text));
    let matched = align(&without, &with);
    let length = without.len() as u32;
    for (at, (&end, &other)) in without.iter().zip(&matched).enumerate() {
        let want = if end == NO_END { UNMATCHED } else { at as u32 + 1 };
        assert_eq!(other, want);
    }
    assert_eq!(with.len() as u32, length + 1);
    assert_eq!(align(&with, &without)[0], UNMATCHED);
    // Both beginning: the first tokens foresee the same.
    assert_eq!(align(&with, &ends(&words(), text))[0], 0);
}

#[test]
fn groups_are_the_tokens_between_common_ends() {
    let text = "The cats";
    let (letters, pieces) = (ends(&bytes(), text), ends(&words(), text));
    // After `The`: ` cat` and `s` against `cat` and `##s`.
    let want = [Group { student: 3..7, teacher: 2..3 }, Group { student: 7..8, teacher: 3..4 }];
    assert_eq!(groups(&letters, &pieces), want);
    let with = groups(&ends(&begun(), text), &pieces);
    assert_eq!(with[0], Group { student: 1..2, teacher: 1..2 }, "both begin, so `The` is a group");
    assert_eq!(groups(&[1, 2], &[3]), []);
    assert_eq!(groups(&[], &[]), []);
}

#[test]
fn truncated_texts_match_as_far_as_both_go() {
    let text = "The cats sat. The cats sat.";
    let cut = |tokenizer: &Tokenizer, length| Spans::of(tokenizer, text, length).unwrap().ends;
    let (student, teacher) = (cut(&merged(), 9), cut(&words(), 4));
    let matched = align(&student, &teacher);
    assert_eq!(matched[..4], [1, 2, 3, UNMATCHED]);
    assert!(matched[3..].iter().all(|&at| at == UNMATCHED));
}

#[test]
fn an_added_token_in_the_text_is_a_token_like_others() {
    let tokenizer = byte_level::open(&byte_level::json(&MERGES, &["<|end|>"], false));
    assert_eq!(ends(&tokenizer, "The<|end|> cat"), [3, 10, 14]);
    assert_eq!(ends(&bytes(), "The<|end|> cat").len(), 14);
}

#[test]
fn a_text_of_nothing_has_nothing_to_match() {
    assert!(ends(&merged(), "").is_empty());
    assert_eq!(ends(&begun(), ""), [0]);
    assert!(align(&ends(&merged(), ""), &ends(&words(), "")).is_empty());
}

#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn real(name: &str) -> Option<Tokenizer> {
    let Some(data) = std::env::var_os("HEIRLOOM_DATA") else {
        println!("skipped: set HEIRLOOM_DATA to the folder of the real data sets");
        return None;
    };
    Some(Tokenizer::open(&std::path::Path::new(&data).join("tokenizers").join(name)).unwrap())
}

const TEXT: &str = "It was a bright cold day in April, and the clocks were striking thirteen — \
     naïve Café-goers paid 1,234.50 € for 你好 🤗🤗!\n\n\tThe ﬁne İstanbul cafe\u{301} said: \u{201c}don\u{2019}t\u{201d}.  ";

#[test]
fn the_tokenizers_of_gpt2_and_bert_meet_at_the_ends_of_words() {
    let (Some(gpt2), Some(bert)) = (real("gpt2"), real("bert-base-uncased")) else { return };
    for (student, teacher) in [(&gpt2, &bert), (&bert, &gpt2), (&gpt2, &bytes()), (&bert, &bytes())]
    {
        let (of_student, of_teacher) = (ends(student, TEXT), ends(teacher, TEXT));
        let matched = align(&of_student, &of_teacher);
        for (at, &other) in matched.iter().enumerate().filter(|(_, at)| **at != UNMATCHED) {
            assert_eq!(of_student[at], of_teacher[other as usize]);
            assert!(TEXT.is_char_boundary(of_student[at] as usize));
        }
        let words = [" bright", " clocks", " thirteen", "1,234.50", "Café", "你好", "said"];
        for word in words {
            let end = (TEXT.find(word).unwrap() + word.len()) as u32;
            let at = of_student.iter().position(|&other| other == end);
            assert!(at.is_some_and(|at| matched[at] != UNMATCHED), "after {word:?}");
        }
    }
    // Bytes end wherever anybody does, but for the mark of nobody's token.
    let (of_gpt2, of_bytes) = (ends(&gpt2, TEXT), ends(&bytes(), TEXT));
    let matched = align(&of_gpt2, &of_bytes);
    assert!(of_gpt2.iter().zip(&matched).all(|(&end, &at)| (end == NO_END) == (at == UNMATCHED)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn ends_ascend_and_matches_have_read_the_same_bytes(
        text in "(The|cat|s|sat| |\\.|é|e\u{301}|ß|你|🤗|ﬁ|İ|\n|\u{0}|\\PC){0,20}",
    ) {
        let all = [bytes(), merged(), begun(), words()].map(|t| ends(&t, &text));
        for ends in &all {
            let known: Vec<u32> = ends.iter().copied().filter(|&end| end != NO_END).collect();
            prop_assert!(known.is_sorted_by(|a, b| a < b), "{ends:?}");
            prop_assert!(known.iter().all(|&end| text.is_char_boundary(end as usize)));
        }
        for left in &all {
            for right in &all {
                let (there, back) = (align(left, right), align(right, left));
                for (at, &other) in there.iter().enumerate() {
                    if other == UNMATCHED {
                        prop_assert!(left[at] == NO_END || !right.contains(&left[at]));
                    } else {
                        prop_assert_eq!(left[at], right[other as usize]);
                        prop_assert_eq!(back[other as usize], at as u32);
                    }
                }
                let groups = groups(left, right);
                for group in &groups {
                    prop_assert!(!group.student.is_empty() && !group.teacher.is_empty());
                    prop_assert_eq!(left[group.student.end - 1], right[group.teacher.end - 1]);
                }
                for two in groups.windows(2) {
                    prop_assert_eq!(two[0].student.end, two[1].student.start);
                    prop_assert_eq!(two[0].teacher.end, two[1].teacher.start);
                }
            }
        }
    }

    #[test]
    fn a_byte_level_token_ends_after_as_many_bytes_as_its_tokens_hold(
        text in "(The|cat|s|sat| |é|你|🤗|\\PC){0,20}",
    ) {
        for tokenizer in [bytes(), merged()] {
            let spans = Spans::of(&tokenizer, &text, 1000).unwrap();
            let mut read = 0;
            for (id, &end) in spans.ids.iter().zip(&spans.ends) {
                // One character of a token stands for one byte.
                read += tokenizer.token(*id).unwrap().chars().count();
                prop_assert!(end == NO_END || end as usize == read, "{spans:?}");
                prop_assert_eq!(end == NO_END, !text.is_char_boundary(read));
            }
            prop_assert_eq!(read, text.len());
        }
    }
}
