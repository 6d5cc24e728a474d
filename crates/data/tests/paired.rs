//! Rows of two models: positions that are held against one another have read the same bytes, and
//! nothing is lost without being counted.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use heirloom_data::align::UNMATCHED;
use heirloom_data::text::{
    Corpus, NOT_LEARNT, Paired, PairedRows, Reading, Rows, Separator, Shape,
};
use heirloom_data::tokens::Tokenizer;
use proptest::prelude::*;

mod byte_level;

const MERGES: [&str; 7] = ["h e", "T he", "a t", "Ġ c", "Ġc at", "Ġ s", "Ġs at"];

fn letters() -> Tokenizer {
    byte_level::open(&byte_level::json(&[], &["<s>", "</s>"], false))
}

fn merged() -> Tokenizer {
    byte_level::open(&byte_level::json(&MERGES, &["</s>"], false))
}

fn words() -> Tokenizer {
    let tokens = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\nsat\n.\na\n##a";
    Tokenizer::from_vocabulary(tokens, true).unwrap()
}

/// The rows of one document a line.
fn rows(
    text: &str,
    reading: Reading,
    tokenizers: [&Tokenizer; 2],
    lengths: [usize; 2],
) -> Result<PairedRows, String> {
    let folder = tempfile::tempdir().unwrap();
    let name = if matches!(reading.shape, Shape::Text { .. }) { "a.txt" } else { "a.jsonl" };
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    let corpus = Corpus::open(&[file], reading).map_err(|error| error.to_string())?;
    PairedRows::build(&corpus, tokenizers, lengths).map_err(|error| error.to_string())
}

fn paragraphs() -> Reading {
    Reading { separator: Separator::BlankLine, ..Reading::plain() }
}

fn pair(rows: &PairedRows, row: usize) -> Paired {
    let mut pair = Paired::default();
    rows.read_pair(row, &mut pair);
    pair
}

#[test]
fn a_position_is_beside_the_one_that_has_read_the_same_bytes() {
    let (student, teacher) = (merged(), words());
    let found =
        rows("The cats\n\nThe cat sat", paragraphs(), [&student, &teacher], [20, 20]).unwrap();
    assert_eq!((found.len(), found.dropped(), found.matched()), (1, 0, [4, 4]));
    let pair = pair(&found, 0);
    // The| cat|s and The| cat| sat against the|cat|##s and the|cat|sat.
    assert_eq!((pair.student.starts, pair.teacher.starts), (vec![0, 3, 6], vec![0, 3, 6]));
    assert_eq!(pair.teacher.ids, [5, 6, 7, 5, 6, 8]);
    // The last of each document foresees nothing.
    assert_eq!(pair.matched, [0, 1, UNMATCHED, 3, 4, UNMATCHED]);
    assert_eq!(pair.student.labels[..3], [pair.student.ids[1], pair.student.ids[2], NOT_LEARNT]);
    // ` cat`, `s`, ` cat`, ` sat`.
    assert_eq!(pair.student.bytes, 4 + 1 + 4 + 4);
}

#[test]
fn special_tokens_are_put_to_the_model_that_has_them() {
    let (student, teacher) = (letters(), merged());
    let reading =
        Reading { begin: Some("<s>".to_owned()), end: Some("</s>".to_owned()), ..paragraphs() };
    let found = rows("The cat", reading, [&student, &teacher], [20, 20]).unwrap();
    let pair = pair(&found, 0);
    // <s>|T|h|e| |c|a|t|</s> against The| cat|</s>: the beginning is the student's alone.
    assert_eq!((pair.student.ids.len(), pair.teacher.ids.len()), (9, 3));
    let mut want = [UNMATCHED; 9];
    (want[3], want[7]) = (0, 1);
    assert_eq!(pair.matched, want);
    assert_eq!(pair.student.labels[7], student.id("</s>").unwrap());
}

#[test]
fn what_is_given_is_not_held_against_the_teacher() {
    let (student, teacher) = (merged(), words());
    let reading = Reading { shape: Shape::completion(), ..Reading::plain() };
    let text = r#"{"prompt": "The cat", "completion": " sat."}"#;
    let found = rows(text, reading, [&student, &teacher], [20, 20]).unwrap();
    let pair = pair(&found, 0);
    // The| cat| sat|. : ` sat` and `.` are learnt.
    assert_eq!(pair.matched, [UNMATCHED, 1, 2, UNMATCHED]);
    assert_eq!((pair.student.learnt(), pair.student.bytes), (2, 5));
}

#[test]
fn long_documents_are_cut_where_both_have_an_end() {
    let (student, teacher) = (letters(), words());
    let text = "The cats sat. The cat sat.";
    let found = rows(text, paragraphs(), [&student, &teacher], [9, 4]).unwrap();
    let mut all = Vec::new();
    for row in 0..found.len() {
        let pair = pair(&found, row);
        assert!(pair.student.ids.len() <= 9 && pair.teacher.ids.len() <= 4, "row {row}");
        assert_eq!(
            (found.length(row), found.teacher_length(row)),
            (pair.student.ids.len(), pair.teacher.ids.len())
        );
        all.extend(pair.student.ids);
    }
    assert_eq!((found.len(), found.dropped()), (3, 0));
    assert_eq!(student.decode(&all).unwrap(), text);
    // The last position of a piece is held against the teacher too: both foresee what comes next.
    let first = pair(&found, 0);
    assert_eq!(first.matched.last(), Some(&2));
}

#[test]
fn what_fits_no_row_is_left_out_and_counted() {
    let (student, teacher) = (letters(), words());
    let text = "The bbbbbbbbbbbb The";
    let found = rows(text, paragraphs(), [&student, &teacher], [6, 20]).unwrap();
    // ` bbbbbbbbbbbb` has thirteen letters and one end.
    assert_eq!(found.dropped(), 13);
    let refused = rows("bbbbbbbbbbbb", paragraphs(), [&student, &teacher], [6, 20]).unwrap_err();
    assert!(refused.contains("12") || refused.contains("no document"), "{refused}");
    let refused = rows("The", paragraphs(), [&student, &teacher], [1, 20]).unwrap_err();
    assert!(refused.contains('1'), "{refused}");
}

#[test]
fn equal_rows_have_equal_digests_and_others_not() {
    let (student, teacher) = (letters(), words());
    let digest = |text: &str, lengths| {
        rows(text, paragraphs(), [&student, &teacher], lengths).unwrap().digest()
    };
    let one = digest("The cat\n\nThe cat", [20, 20]);
    assert_eq!(digest("The cat\n\nThe cat", [20, 20]), one);
    assert_ne!(digest("The cat\n\nThe cat", [10, 20]), one);
    assert_ne!(digest("The cat\n\nThe sat", [20, 20]), one);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn matched_positions_have_read_the_same_bytes_of_their_piece(
        text in "(The|cat|s|sat| |\\.|é|你|🤗|a|\n\n){1,40}",
        lengths in (3usize..30, 3usize..30),
    ) {
        // Both byte-level, so that tokens say which bytes they are.
        let (student, teacher) = (merged(), letters());
        let Ok(found) = rows(&text, paragraphs(), [&student, &teacher], [lengths.0, lengths.1]) else {
            return Ok(());
        };
        let alphabet = byte_level::alphabet();
        let bytes_of = |tokenizer: &Tokenizer, ids: &[u32]| -> Vec<u8> {
            let chars = ids.iter().flat_map(|&id| tokenizer.token(id).unwrap().chars());
            chars.map(|c| alphabet.iter().position(|&a| a == c).unwrap() as u8).collect()
        };
        for row in 0..found.len() {
            let pair = pair(&found, row);
            prop_assert_eq!(pair.student.starts.len(), pair.teacher.starts.len());
            let pieces = pair.student.starts.windows(2).zip(pair.teacher.starts.windows(2));
            for (of_student, of_teacher) in pieces {
                for at in of_student[0]..of_student[1] {
                    let other = pair.matched[at as usize];
                    if other == UNMATCHED {
                        continue;
                    }
                    prop_assert!((of_teacher[0]..of_teacher[1]).contains(&other));
                    let left = &pair.student.ids[of_student[0] as usize..=at as usize];
                    let right = &pair.teacher.ids[of_teacher[0] as usize..=other as usize];
                    prop_assert_eq!(bytes_of(&student, left), bytes_of(&teacher, right));
                }
            }
        }
    }
}
