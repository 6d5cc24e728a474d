//! The teacher cache: what it refuses, and what it says.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use heirloom_base::Digest;
use heirloom_data::cache::{CacheKey, TeacherCache};
use proptest::prelude::*;

fn key() -> CacheKey {
    CacheKey {
        teacher: Digest::of(b"teacher"),
        tokenizer: Digest::of(b"tokenizer"),
        text: Digest::of(b"text"),
        max_length: 128,
    }
}

fn cache() -> TeacherCache {
    let logits = (0..5000 * 3).map(|value| value as f32 / 7.0 - 1000.0).collect();
    TeacherCache::new(key(), 5000, 3, logits).unwrap()
}

#[test]
fn a_cache_survives_being_written_and_read() {
    let read = TeacherCache::from_bytes(&cache().to_bytes()).unwrap();
    assert_eq!(read, cache());
    assert_eq!(read.to_bytes(), cache().to_bytes());
    assert_eq!(read.row(1), &cache().logits()[3..6]);
    assert!(read.check(&key(), 5000, 3).is_ok());
}

#[test]
fn a_cache_of_something_else_says_of_what() {
    let refused = |key: CacheKey, examples, classes| {
        let error = cache().check(&key, examples, classes).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    };
    let other = Digest::of(b"other");
    insta::assert_snapshot!(refused(CacheKey { teacher: other, ..key() }, 5000, 3), @"the teacher cache was made with another teacher (b438c30f3122, this run has 3f796163ebf9); delete it, and the next run makes the right one");
    insta::assert_snapshot!(refused(CacheKey { tokenizer: other, ..key() }, 5000, 3), @"the teacher cache was made with another tokenizer (dcd7fa975da8, this run has 3f796163ebf9); delete it, and the next run makes the right one");
    insta::assert_snapshot!(refused(CacheKey { text: other, ..key() }, 5000, 3), @"the teacher cache was made with another text (831c6831fdc9, this run has 3f796163ebf9); delete it, and the next run makes the right one");
    insta::assert_snapshot!(refused(CacheKey { max_length: 64, ..key() }, 5000, 3), @"the teacher cache was made with another max_length (128, this run has 64); delete it, and the next run makes the right one");
    insta::assert_snapshot!(refused(key(), 4999, 3), @"the teacher cache was made with another number of examples (5000, this run has 4999); delete it, and the next run makes the right one");
    insta::assert_snapshot!(refused(key(), 5000, 2), @"the teacher cache was made with another number of classes (3, this run has 2); delete it, and the next run makes the right one");
}

#[test]
fn damage_is_found_and_named() {
    let refused = |bytes: &[u8]| TeacherCache::from_bytes(bytes).unwrap_err().to_string();
    let bytes = cache().to_bytes();
    let changed = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    insta::assert_snapshot!(refused(&bytes[..bytes.len() - 1]), @"the teacher cache is damaged: it has 60534 bytes, expected 60535; delete it, and the next run makes it again");
    insta::assert_snapshot!(refused(&[&bytes[..], b"x"].concat()), @"the teacher cache is damaged: it has 60536 bytes, expected 60535; delete it, and the next run makes it again");
    insta::assert_snapshot!(refused(&changed(bytes.len() - 1)), @"the teacher cache is damaged: block 1 (examples 4096..5000) was changed: digest 1fe7acd4d968, expected d31b751ea188; delete it, and the next run makes it again");
    insta::assert_snapshot!(refused(&changed(40)), @"the teacher cache is damaged: its header was changed; delete it, and the next run makes it again");
    insta::assert_snapshot!(refused(&changed(16)), @"the teacher cache is damaged: it has format 0, this build reads format 1; delete it, and the next run makes it again");
    insta::assert_snapshot!(refused(&changed(0)), @"the teacher cache is damaged: it does not begin as a teacher cache does; delete it, and the next run makes it again");
    insta::assert_snapshot!(refused(&bytes[..20]), @"the teacher cache is damaged: it has 20 bytes, expected 24; delete it, and the next run makes it again");
}

#[test]
fn logits_must_be_finite_and_fill_the_shape() {
    let refused =
        |logits: Vec<f32>| TeacherCache::new(key(), 2, 2, logits).unwrap_err().to_string();
    insta::assert_snapshot!(refused(vec![0.0, 1.0, f32::NAN, 0.0]), @"the teacher cache is damaged: example 1 has a logit that is NaN; delete it, and the next run makes it again");
    insta::assert_snapshot!(refused(vec![0.0; 3]), @"the teacher cache is damaged: 3 logits do not fill [2, 2]; delete it, and the next run makes it again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_changed_byte_goes_unseen(at: prop::sample::Index, flip in 1u8..) {
        let logits = (0..12).map(|value| value as f32).collect();
        let mut bytes = TeacherCache::new(key(), 4, 3, logits).unwrap().to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(TeacherCache::from_bytes(&bytes).is_err());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(tail in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..600) {
        let bytes = cache().to_bytes();
        let broken = [&bytes[..cut], &tail].concat();
        prop_assert!(TeacherCache::from_bytes(&broken).is_err());
    }
}
