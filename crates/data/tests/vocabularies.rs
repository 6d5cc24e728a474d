//! Vocabularies compared before anything is loaded: how they relate, what is said of it, and what each
//! choice makes of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use heirloom_data::tokens::Tokenizer;
use heirloom_data::vocabulary::{Choice, Comparison, NOT_SHARED, Relation, Side, compare};

mod byte_level;

const MERGES: [&str; 3] = ["h e", "T he", "a t"];

fn level(merges: &[&str], added: &[&str]) -> Tokenizer {
    byte_level::open(&byte_level::json(merges, added, false))
}

/// The same tokens, two of them by one another's ids.
fn permuted() -> Tokenizer {
    let mut json = byte_level::json(&MERGES, &[], false);
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    (vocab["a"], vocab["b"]) = (98.into(), 97.into());
    byte_level::open(&json)
}

fn words(more: &str) -> Tokenizer {
    let tokens = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\nsat\n.";
    Tokenizer::from_vocabulary(&format!("{tokens}{more}"), true).unwrap()
}

fn held(left: &Tokenizer, right: &Tokenizer, rows: [Option<usize>; 2]) -> Comparison {
    compare([Side { tokenizer: left, rows: rows[0] }, Side { tokenizer: right, rows: rows[1] }])
}

const UNKNOWN: [Option<usize>; 2] = [None; 2];

#[test]
fn equal_vocabularies_are_the_same_and_nothing_is_put_in_its_place() {
    let found = held(&level(&MERGES, &[]), &level(&MERGES, &[]), UNKNOWN);
    assert_eq!((found.relation, found.shared, found.in_place), (Relation::Same, 259, 259));
    assert!(found.same_tokenizer && found.first.is_none());
    assert_eq!(found.to_string(), "the vocabularies are the same, 259 words");
    let map = found.map(Choice::Refuse).unwrap();
    assert!(map.is_whole());
    assert_eq!(map.read(&[5, 258, 0]), (vec![5, 258, 0], 3));
    // Padded alike: every column takes part, unless padding is to be left out.
    let found = held(&level(&MERGES, &[]), &level(&MERGES, &[]), [Some(264); 2]);
    assert_eq!(found.relation, Relation::Same);
    assert!(found.map(Choice::Refuse).unwrap().is_whole());
    let padded = found.map(Choice::Pad).unwrap();
    assert!(!padded.is_whole());
    assert_eq!(
        padded.to_teacher()[257..],
        [257, 258, NOT_SHARED, NOT_SHARED, NOT_SHARED, NOT_SHARED, NOT_SHARED]
    );
}

#[test]
fn padding_is_told_from_tokens_and_left_out_by_choice_alone() {
    // As Qwen's models of 151,936 and 152,064 words for 151,665 tokens.
    let tokenizer = level(&MERGES, &["<|im_end|>"]);
    let found = held(&tokenizer, &tokenizer, [Some(264), Some(272)]);
    assert_eq!(
        (found.relation, found.sizes, found.tokens),
        (Relation::Padded, [264, 272], [260; 2])
    );
    assert_eq!(format!("{:?}", found.padding), "[[260..264], [260..272]]");
    assert_eq!(found.to_string(), "the same 260 tokens, padded to 264 and 272 words");
    insta::assert_snapshot!(found.map(Choice::Refuse).unwrap_err(), @r"
    the same 260 tokens, padded to 264 and 272 words
      choose: `pad` leaves the padding out
    ");
    let map = found.map(Choice::Pad).unwrap();
    assert_eq!((map.to_teacher().len(), map.to_student().len(), map.shared()), (264, 272, 260));
    assert!(map.to_teacher()[260..].iter().all(|&id| id == NOT_SHARED));
    assert!(map.to_student()[260..].iter().all(|&id| id == NOT_SHARED));
    assert!((0..260).all(|id| map.to_teacher()[id] == id as u32));
    // The larger model may be either.
    let turned = held(&tokenizer, &tokenizer, [Some(272), Some(264)]).map(Choice::Pad).unwrap();
    assert_eq!(turned.to_teacher(), map.to_student());
}

#[test]
fn tokens_added_at_the_end_make_a_prefix_which_is_more_than_padding() {
    let (base, chat) = (level(&MERGES, &[]), level(&MERGES, &["<|im_start|>", "<|im_end|>"]));
    for (left, right) in [(&base, &chat), (&chat, &base)] {
        let found = held(left, right, [Some(264), Some(264)]);
        assert_eq!((found.relation, found.shared), (Relation::Prefix, 259));
        assert_eq!(found.first.as_ref().unwrap().id, 259);
    }
    let found = held(&base, &chat, UNKNOWN);
    insta::assert_snapshot!(found.map(Choice::Pad).unwrap_err(), @r#"
    all 259 tokens of one are in the other by the same ids, which has 261; they differ first at id 259, no token and "<|im_start|>"
      `pad` is for vocabularies that differ by padding alone; choose: `intersect` compares over the shared tokens
    "#);
    let map = held(&chat, &base, UNKNOWN).map(Choice::Intersect).unwrap();
    assert_eq!(map.to_teacher()[258..], [258, NOT_SHARED, NOT_SHARED]);
    // The teacher does not know the third token: what follows has another past.
    assert_eq!(map.read(&[5, 6, 259, 7]), (vec![5, 6, 0, 0], 2));
    assert_eq!(map.read(&[5, 4000]), (vec![5, 0], 1));
}

#[test]
fn the_same_tokens_by_other_ids_are_found_by_their_names() {
    let found = held(&level(&MERGES, &[]), &permuted(), UNKNOWN);
    assert_eq!((found.relation, found.shared, found.in_place), (Relation::Permuted, 259, 257));
    insta::assert_snapshot!(found.map(Choice::Refuse).unwrap_err(), @r#"
    the same 259 tokens, 2 of them by other ids; they differ first at id 97, "a" and "b"
      choose: `intersect` compares over the shared tokens
    "#);
    let map = found.map(Choice::Intersect).unwrap();
    assert_eq!(map.to_teacher()[96..99], [96, 98, 97]);
    assert_eq!(map.read(&[97, 98, 99]).0, [98, 97, 99]);
    assert_eq!(map.to_student()[96..99], [96, 98, 97]);
}

#[test]
fn tokens_of_one_alone_are_left_out_of_the_intersection() {
    let (left, right) = (level(&MERGES, &[]), level(&["a t", "o n"], &[]));
    let found = held(&left, &right, UNKNOWN);
    assert_eq!((found.relation, found.shared, found.in_place), (Relation::Different, 257, 256));
    insta::assert_snapshot!(found, @r#"different vocabularies: 259 and 258 tokens, 257 of them shared; they differ first at id 256, "he" and "at""#);
    let map = found.map(Choice::Intersect).unwrap();
    assert_eq!(map.to_teacher()[256..], [NOT_SHARED, NOT_SHARED, 256]);
    assert_eq!(map.to_student()[256..], [258, NOT_SHARED]);
}

#[test]
fn tokens_that_spell_text_differently_are_not_taken_for_one_another() {
    let found = held(&level(&MERGES, &[]), &words(""), UNKNOWN);
    assert_eq!(found.spelling, ["ByteLevel", "WordPiece"]);
    insta::assert_snapshot!(found.map(Choice::Intersect).unwrap_err(), @r#"
    different vocabularies: 259 and 10 tokens, 1 of them shared; they differ first at id 0, "Ā" and "[PAD]"
      tokens spelled by ByteLevel and by WordPiece may look alike and mean different text, so there is nothing to intersect; compare by rank (`uld`), which needs no common token
    "#);
    let refused = found.map(Choice::Refuse).unwrap_err().to_string();
    assert!(refused.ends_with("choose: compare by rank (`uld`)"), "{refused}");
}

#[test]
fn a_model_that_knows_fewer_words_than_its_tokenizer_is_refused() {
    let tokenizer = words("\nmore");
    let found = held(&tokenizer, &words(""), [Some(10), Some(10)]);
    // What the model does not know is not compared.
    assert_eq!((found.relation, found.unknown), (Relation::Same, [1, 0]));
    insta::assert_snapshot!(found.map(Choice::Refuse).unwrap_err(), @"the student's tokenizer has 1 tokens that its model, of 10 words, does not know; it is another model's");
}

#[test]
fn one_vocabulary_with_other_merges_is_the_same_and_said_to_read_otherwise() {
    let mut json = byte_level::json(&MERGES, &[], false);
    json["model"]["merges"] = serde_json::json!(["a t", "h e", "T he"]);
    let found = held(&level(&MERGES, &[]), &byte_level::open(&json), UNKNOWN);
    assert_eq!((found.relation, found.same_tokenizer), (Relation::Same, false));
}

#[test]
fn a_text_shows_how_much_of_it_is_in_both() {
    let (left, right) = (level(&MERGES, &[]), level(&["a t"], &[]));
    let found = held(&left, &right, UNKNOWN);
    // The| |c|at against T|h|e| |c|at.
    let sample = found.sample([&left, &right], "The cat").unwrap();
    assert_eq!((sample.bytes, sample.tokens, sample.covered), (7, [4, 6], [3, 6]));
    assert_eq!(sample.aligned, 4);
    let other = held(&left, &words(""), UNKNOWN).sample([&left, &words("")], "The cat").unwrap();
    assert_eq!((other.tokens, other.covered, other.aligned), ([4, 2], [0, 0], 2));
}

#[test]
fn choices_have_names() {
    let named = Choice::NAMES.map(|name| Choice::find(name).unwrap());
    assert_eq!(named, [Choice::Refuse, Choice::Intersect, Choice::Pad]);
    assert_eq!(Choice::find("truncate"), None);
}

#[test]
fn the_vocabularies_of_gpt2_and_bert_are_different() {
    let Some(data) = std::env::var_os("HEIRLOOM_DATA") else {
        println!("skipped: set HEIRLOOM_DATA to the folder of the real data sets");
        return;
    };
    let open = |name: &str| {
        Tokenizer::open(&std::path::Path::new(&data).join("tokenizers").join(name)).unwrap()
    };
    let (gpt2, bert) = (open("gpt2"), open("bert-base-uncased"));
    let found = held(&gpt2, &bert, [Some(50_257), Some(30_522)]);
    assert_eq!((found.relation, found.tokens), (Relation::Different, [50_257, 30_522]));
    assert!(found.map(Choice::Intersect).is_err());
    let padded = held(&gpt2, &gpt2, [Some(50_257), Some(50_304)]);
    assert_eq!((padded.relation, padded.padding[1].len()), (Relation::Padded, 1));
    assert_eq!(padded.padding[1][0], 50_257..50_304);
}
