//! Rows of packed documents: every token once, every label where it should be, every byte counted.

use std::sync::Arc;

use crate::place::{Place, rows, word_piece};
use heirloom_data::text::{
    NOT_LEARNT, OnLong, Pack, PackedRows, Reading, Row, Rows, Separator, Shards,
};
use heirloom_data::tokens::Tokenizer;
use proptest::prelude::*;

const N: u32 = NOT_LEARNT;

/// One document a line, each character of `a` to `i` a token of its own (id 97 and on).
fn shards(place: &Place, documents: &[&str]) -> Arc<Shards> {
    let tokenizer = place.bytes(&[]);
    let file = place.write("a.txt", documents.join("\n\n"));
    let reading = Reading { separator: Separator::BlankLine, ..Reading::plain() };
    place.shards("tokens", &[file], &reading.with_end("<|endoftext|>"), &tokenizer)
}

fn packed(shards: &Arc<Shards>, pack: Pack, length: usize) -> PackedRows {
    PackedRows::new(Arc::clone(shards), &shards.all(), pack, length).unwrap()
}

fn row(ids: &[u32], starts: &[u32], labels: &[u32], bytes: u64) -> Row {
    Row { ids: ids.into(), starts: starts.into(), labels: labels.into(), bytes }
}

#[test]
fn boundaries_are_kept_and_long_documents_go_on_in_the_next_row() {
    let place = Place::new();
    let shards = shards(&place, &["abc", "d", "efghi"]);
    let found = rows(&packed(&shards, Pack::Documents, 4));
    let want = [
        row(&[97, 98, 99, 256], &[0, 4], &[98, 99, 256, N], 2),
        // The row ends inside a document: the last label is a token of the next row.
        row(&[100, 256, 101, 102], &[0, 2, 4], &[256, N, 102, 103], 2),
        row(&[103, 104, 105, 256], &[0, 4], &[104, 105, 256, N], 2),
    ];
    assert_eq!(found, want);
    let found = rows(&packed(&shards, Pack::Documents, 5));
    assert_eq!(found[0].starts, [0, 4, 5]);
    assert_eq!(found[2], row(&[105, 256], &[0, 2], &[256, N], 0));
}

#[test]
fn a_stream_knows_no_boundaries() {
    let place = Place::new();
    let found = rows(&packed(&shards(&place, &["abc", "d", "efghi"]), Pack::Stream, 5));
    let want = [
        row(&[97, 98, 99, 256, 100], &[0, 5], &[98, 99, 256, 100, 256], 3),
        row(&[256, 101, 102, 103, 104], &[0, 5], &[101, 102, 103, 104, 105], 5),
        row(&[105, 256], &[0, 2], &[256, N], 0),
    ];
    assert_eq!(found, want);
}

#[test]
fn whole_documents_share_a_row_while_they_fit_and_long_ones_are_counted() {
    let place = Place::new();
    let shards = shards(&place, &["ab", "cd", "efghi", "a"]);
    let whole = |on_long| Pack::Whole { on_long };
    let cut = packed(&shards, whole(OnLong::Cut), 5);
    assert_eq!((cut.long().documents, cut.long().tokens), (1, 1));
    let found = rows(&cut);
    let want = [
        row(&[97, 98, 256], &[0, 3], &[98, 256, N], 1),
        row(&[99, 100, 256], &[0, 3], &[100, 256, N], 1),
        row(&[101, 102, 103, 104, 105], &[0, 5], &[102, 103, 104, 105, 256], 4),
        row(&[97, 256], &[0, 2], &[256, N], 0),
    ];
    assert_eq!(found, want);
    let dropped = packed(&shards, whole(OnLong::Drop), 5);
    assert_eq!((dropped.long().documents, dropped.long().tokens), (1, 6));
    let found = rows(&dropped);
    assert_eq!(
        found.iter().map(|row| row.starts.clone()).collect::<Vec<_>>(),
        [vec![0, 3], vec![0, 3, 5]]
    );
    let refused = PackedRows::new(Arc::clone(&shards), &shards.all(), whole(OnLong::Error), 5);
    let said = refused.unwrap_err().to_string();
    assert!(
        said.contains("document 2 has 6 tokens, and a row has 5; raise `sequence_length`"),
        "{said}"
    );
    let fits = packed(&shards, whole(OnLong::Error), 6);
    assert_eq!(fits.long().documents, 0);
    assert_eq!(rows(&fits)[0].starts, [0, 3, 6]);
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let place = Place::new();
    let shards = shards(&place, &["abc"]);
    for length in [0, 1, 65_537] {
        let refused = PackedRows::new(Arc::clone(&shards), &shards.all(), Pack::Stream, length);
        let said = refused.unwrap_err().to_string();
        assert_eq!(said, format!("`sequence_length = {length}` cannot be: expected 2 to 65536"));
    }
    let whole = Pack::Whole { on_long: OnLong::Drop };
    let said = PackedRows::new(Arc::clone(&shards), &shards.all(), whole, 2).unwrap_err();
    assert_eq!(
        said.to_string(),
        "no document is left to make rows of: all 1 are longer than a row"
    );
}

#[test]
fn equal_digests_mean_equal_rows() {
    let place = Place::new();
    let shards = shards(&place, &["abc", "d", "efghi", "ab"]);
    let all = shards.all();
    let (kept, held) = shards.split(3, 0.5).unwrap();
    let of = |selection, pack, length| {
        PackedRows::new(Arc::clone(&shards), selection, pack, length).unwrap().digest()
    };
    let whole = |on_long| Pack::Whole { on_long };
    let digests = [
        of(&all, Pack::Documents, 4),
        of(&all, Pack::Documents, 5),
        of(&all, Pack::Stream, 4),
        of(&kept, Pack::Stream, 4),
        of(&held, Pack::Stream, 4),
        of(&all, whole(OnLong::Cut), 4),
        of(&all, whole(OnLong::Drop), 4),
    ];
    for (at, left) in digests.iter().enumerate() {
        assert!(digests[..at].iter().all(|right| left != right), "number {at}");
    }
    assert_eq!(of(&all, Pack::Documents, 4), digests[0]);
    // Other names and other folders of the same text are the same rows.
    let again = Place::new();
    let file = again.write("other name.txt", "abc\n\n\nd\n\nefghi\n\nab");
    let reading = Reading { separator: Separator::BlankLine, ..Reading::plain() };
    let again = again.shards("t", &[file], &reading.with_end("<|endoftext|>"), &again.bytes(&[]));
    assert_eq!(packed(&again, Pack::Documents, 4).digest(), digests[0]);
}

/// Sum of all rows' bytes, with the bytes of each document's first token, which no label stands for.
fn bytes_and_firsts(shards: &Arc<Shards>, pack: Pack, length: usize) -> (u64, u64) {
    let packed = packed(shards, pack, length);
    let bytes = rows(&packed).iter().map(|row| row.bytes).sum();
    let documents = 0..shards.documents() as u32;
    let firsts = match pack {
        Pack::Stream => shards.token(0).bytes,
        _ => documents.map(|document| shards.token(shards.range(document).start).bytes).sum(),
    };
    (bytes, firsts)
}

fn check_bytes(texts: &[String], tokenizer: &Tokenizer, end: &str) {
    let place = Place::new();
    let lines: String =
        texts.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect();
    let file = place.write("a.jsonl", lines);
    let reading = Reading::plain();
    for (name, reading) in [("plain", reading.clone()), ("end", reading.with_end(end))] {
        let shards = place.shards(name, std::slice::from_ref(&file), &reading, tokenizer);
        let kept = texts.iter().filter(|text| !tokenizer.encode_text(text).unwrap().ids.is_empty());
        let all: u64 = kept.map(|text| text.len() as u64).sum();
        assert_eq!(shards.about().counts.bytes, all);
        for pack in [Pack::Documents, Pack::Stream, Pack::Whole { on_long: OnLong::Cut }] {
            for length in [2, 3, 7, 64] {
                let (bytes, firsts) = bytes_and_firsts(&shards, pack, length);
                if !matches!(pack, Pack::Whole { .. }) || length == 64 {
                    assert_eq!(bytes + firsts, all, "{pack:?} {length}");
                }
            }
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-z]{1,5}",
        Just("naïve".to_owned()),
        Just("日本".to_owned()),
        Just("👩‍🚀".to_owned()),
        Just("e\u{301}".to_owned()),
        Just(" \n\t ".to_owned()),
        Just("\u{a0}".to_owned()),
        Just("<|endoftext|>".to_owned()),
        Just("[SEP]".to_owned()),
        Just("the cats sat.".to_owned()),
    ];
    // At most 60 tokens, so that a row of 64 holds any document whole.
    prop::collection::vec(part, 1..5)
        .prop_map(|parts| parts.concat())
        .prop_filter("short", |t| t.len() <= 60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_of_all_rows_are_the_bytes_of_the_text(texts in prop::collection::vec(text(), 1..6)) {
        let place = Place::new();
        let bytes = place.bytes(&[("a", "b"), ("Ġ", "t"), ("æ", "Ĺ"), ("Ġt", "h")]);
        if texts.iter().any(|text| !bytes.encode_text(text).unwrap().ids.is_empty()) {
            check_bytes(&texts, &bytes, "<|endoftext|>");
        }
        let words = word_piece();
        if texts.iter().any(|text| !words.encode_text(text).unwrap().ids.is_empty()) {
            check_bytes(&texts, &words, "[SEP]");
        }
    }

    #[test]
    fn rows_hold_every_token_once_and_labels_are_what_follows(
        lengths in prop::collection::vec(1usize..9, 1..9),
        length in 2usize..12,
        stream in any::<bool>(),
    ) {
        let place = Place::new();
        let texts: Vec<String> =
            lengths.iter().enumerate().map(|(at, &n)| "abcdefghi"[at..at + 1].repeat(n)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let shards = shards(&place, &texts);
        let pack = if stream { Pack::Stream } else { Pack::Documents };
        let found = rows(&packed(&shards, pack, length));
        let all: Vec<u32> = found.iter().flat_map(|row| row.ids.clone()).collect();
        let labels: Vec<u32> = found.iter().flat_map(|row| row.labels.clone()).collect();
        let count = shards.about().counts.tokens;
        prop_assert_eq!(&all, &(0..count).map(|at| shards.token(at).id).collect::<Vec<_>>());
        prop_assert!(found[..found.len() - 1].iter().all(|row| row.ids.len() == length));
        for (at, &label) in labels.iter().enumerate() {
            let last = at + 1 == all.len() || (!stream && all[at] == 256);
            prop_assert_eq!(label, if last { N } else { all[at + 1] });
        }
    }
}
