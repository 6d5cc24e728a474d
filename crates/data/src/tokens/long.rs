//! The tokens of a long text, found piece by piece.
//!
//! In: one text of any length. Out: the tokens that it has as a whole, in memory that goes by its
//! tokens, on all threads.
//! Never: other tokens than those of the whole text, as far as its tokenizer looks.
//!
//! A tokenizer holds some two hundred bytes for each byte that it has in hand, so a book takes
//! hundreds of megabytes and a large corpus in one file more than there is. Parts overlap: where
//! one ends and the next begins both have tokens for the same characters, and what a tokenizer does
//! far from the end of a text does not depend on that end. Two pieces are joined in the middle of
//! a stretch where both have the same tokens; where there is none, as in a word of a kilobyte,
//! their texts are taken as one piece, and where that fails twice in a row, the text as a whole.

use std::ops::Range;

use rayon::prelude::*;
use tokenizers::EncodeInput;

use super::{Tokenizer, refused};
use crate::error::Error;

/// How a long text is taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// Bytes from one cut to the next.
    pub(super) length: usize,
    /// Bytes on either side of a cut that both pieces have.
    pub(super) overlap: usize,
}

impl Parts {
    /// Long enough that overlaps cost a hundredth, short enough that a piece takes some 25 MB.
    pub(super) const USUAL: Self = Self { length: 1 << 17, overlap: 1 << 10 };

    /// Tokens that two pieces must have in common around a cut.
    const AGREE: usize = 8;
}

/// Tokens of a part of a text, and the bytes of the whole that each lies in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) ids: Vec<u32>,
    pub(super) spans: Vec<(usize, usize)>,
}

impl Run {
    fn of(tokenizer: &Tokenizer, text: &str, part: Range<usize>) -> Result<Self, Error> {
        let input = EncodeInput::from(&text[part.clone()]);
        let encoding = tokenizer.inner.encode(input, false).map_err(refused)?;
        let place = |&(start, end): &(usize, usize)| (start + part.start, end + part.start);
        let spans = encoding.get_offsets().iter().map(place).collect();
        Ok(Self { ids: encoding.get_ids().to_vec(), spans })
    }

    /// Tokens that begin in `part`, as places in this run.
    fn within(&self, part: &Range<usize>) -> Range<usize> {
        let first = |at: usize| self.spans.partition_point(|&(start, _)| start < at);
        first(part.start)..first(part.end)
    }

    /// A token of `self` and the same token of `next`, in the middle of those that begin in
    /// `part`, all of which must be the same in both.
    fn seam(&self, next: &Self, part: &Range<usize>) -> Option<(usize, usize)> {
        let (left, right) = (self.within(part), next.within(part));
        let same = self.ids[left.clone()] == next.ids[right.clone()]
            && self.spans[left.clone()] == next.spans[right.clone()];
        if !same || left.len() < Parts::AGREE {
            return None;
        }
        // Not inside a character of several tokens, nor at a token without characters.
        let begins = |&at: &usize| {
            let ((_, before), (start, end)) = (self.spans[at - 1], self.spans[at]);
            before <= start && start < end
        };
        let at = (left.start + left.len() / 2..left.end).find(begins)?;
        Some((at, right.start + at - left.start))
    }

    /// `self` before `cut`, then `next` from its own.
    fn join(&mut self, next: &Self, (cut, from): (usize, usize)) {
        self.ids.truncate(cut);
        self.ids.extend_from_slice(&next.ids[from..]);
        self.spans.truncate(cut);
        self.spans.extend_from_slice(&next.spans[from..]);
    }
}

/// Tokens of `text`, which is taken apart where it is longer than two pieces.
pub(super) fn run(tokenizer: &Tokenizer, text: &str, rule: Parts) -> Result<Run, Error> {
    let whole = || Run::of(tokenizer, text, 0..text.len());
    let Parts { length, overlap } = rule;
    if text.len() <= 2 * length {
        return whole();
    }
    let inside = |at: usize| floor(text, at.min(text.len()));
    let cuts: Vec<usize> = (0..text.len() / length).map(|piece| piece * length).collect();
    let ends = cuts.iter().skip(1).copied().chain([text.len()]);
    let parts: Vec<Range<usize>> = cuts
        .iter()
        .zip(ends)
        .map(|(&cut, end)| inside(cut.saturating_sub(overlap))..inside(end + overlap))
        .collect();
    let found: Vec<Result<Run, Error>> =
        parts.par_iter().map(|part| Run::of(tokenizer, text, part.clone())).collect();
    let mut joined: Option<Run> = None;
    // Where the last piece that was joined begins in the text, and in the tokens before it.
    let mut last = (0, 0);
    let mut failed = false;
    for ((next, part), &cut) in found.into_iter().zip(&parts).zip(&cuts) {
        let mut next = next?;
        let Some(joined) = &mut joined else {
            joined = Some(next);
            continue;
        };
        let around = inside(cut - overlap / 2)..inside(cut + overlap / 2);
        if let Some(seam) = joined.seam(&next, &around) {
            last = (part.start, seam.0);
            joined.join(&next, seam);
            failed = false;
            continue;
        }
        if failed {
            return whole();
        }
        failed = true;
        // Both as one piece, joined to what lies before as the former of them was.
        next = Run::of(tokenizer, text, last.0..part.end)?;
        let kept = joined.ids.get(last.1).zip(joined.spans.get(last.1));
        match next.ids.iter().zip(&next.spans).position(|token| Some(token) == kept) {
            Some(from) => joined.join(&next, (last.1, from)),
            None => return whole(),
        }
    }
    Ok(joined.unwrap_or_default())
}

/// The nearest start of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;

    /// Byte pairs as GPT-2, word pieces as BERT, and pieces of a unigram model that has blanks as
    /// characters and one before the text, as many multilingual ones.
    fn tokenizers() -> [Tokenizer; 3] {
        let bytes = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut alphabet: Vec<String> = bytes.into_iter().map(String::from).collect();
        alphabet.sort();
        let merges = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["Ċ", "Ċ"], ["Ġ", "Ġ"], ["Ã", "©"]];
        alphabet.extend(merges.iter().map(|pair| pair.concat()));
        let vocabulary: Value =
            alphabet.iter().zip(0..).map(|(t, id)| (t.clone(), json!(id))).collect();
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true,
        });
        let pairs = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": byte_level, "post_processor": byte_level,
            "decoder": byte_level,
            "model": { "type": "BPE", "vocab": vocabulary, "merges": merges.map(|pair| pair.join(" ")) },
        });
        let space = json!({
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false,
        });
        let unigram = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": { "type": "NFKC" }, "pre_tokenizer": space, "post_processor": null,
            "decoder": space,
            "model": { "type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [
                ["<unk>", 0.0], ["▁", -2.0], ["▁the", -3.0], ["the", -4.0], ["▁▁", -2.5], ["e", -3.0],
                ["t", -3.5], ["h", -3.5], ["a", -3.6], ["\n", -3.0], ["\n\n", -4.0], ["x", -5.0],
            ] },
        });
        let build = |json| Tokenizer::build(json, json!({}), None).expect("a tokenizer");
        let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n##the\na\n##a\nx\n##x\n.\n,\ncafe\n";
        [build(pairs), Tokenizer::from_vocabulary(words, true).expect("BERT's"), build(unigram)]
    }

    /// Words, blanks of all kinds and characters of several bytes, in an order that words of a
    /// generator give.
    fn text(words: usize, seed: u64) -> String {
        let parts = [
            "the",
            " ",
            "  ",
            "\n",
            "\n\n",
            "\r\n",
            " the",
            "café",
            "a",
            "x,",
            ".",
            "日本",
            "\u{a0}",
            "👩‍🚀",
        ];
        let mut state = seed;
        let mut text = String::new();
        for _ in 0..words {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let _ = write!(text, "{}", parts[(state >> 33) as usize % parts.len()]);
        }
        text
    }

    fn whole(tokenizer: &Tokenizer, text: &str) -> Run {
        Run::of(tokenizer, text, 0..text.len()).expect("tokens")
    }

    #[test]
    fn pieces_have_the_tokens_of_the_whole() {
        let rule = Parts { length: 512, overlap: 128 };
        for (number, tokenizer) in tokenizers().iter().enumerate() {
            for seed in 1..20 {
                let text = text(3000, seed);
                let found = run(tokenizer, &text, rule).expect("tokens");
                assert_eq!(found, whole(tokenizer, &text), "tokenizer {number}, seed {seed}");
            }
        }
    }

    #[test]
    fn pieces_are_joined_where_they_can_be_and_the_text_is_one_where_they_cannot() {
        let rule = Parts { length: 512, overlap: 128 };
        let long = |bytes: usize| "x".repeat(bytes);
        let usual = text(600, 3);
        // Blanks without a token, a word over one cut, and words over two and over all of them.
        let texts = [
            " ".repeat(4000),
            format!("{usual}{}{usual}", long(600)),
            format!("{usual}{}{usual}", long(1500)),
            long(5000),
            format!("{}{usual}", " ".repeat(1400)),
            String::new(),
        ];
        for (number, tokenizer) in tokenizers().iter().enumerate() {
            for (at, text) in texts.iter().enumerate() {
                let found = run(tokenizer, text, rule).expect("tokens");
                assert_eq!(found, whole(tokenizer, text), "tokenizer {number}, text {at}");
            }
        }
    }

    #[test]
    fn a_seam_needs_the_same_tokens_at_the_same_places() {
        let [pairs, ..] = tokenizers();
        let text = text(200, 5);
        let run = whole(&pairs, &text);
        let around = floor(&text, 200)..floor(&text, 330);
        let (left, right) = run.seam(&run, &around).expect("the same tokens");
        assert_eq!(left, right);
        let mut other = run.clone();
        other.ids[left + 1] += 1;
        assert_eq!(run.seam(&other, &around), None, "another token");
        let mut other = run.clone();
        other.spans[left + 1].1 += 1;
        assert_eq!(run.seam(&other, &around), None, "another place");
        assert_eq!(run.seam(&run, &(200..204)), None, "too few");
    }

    #[test]
    fn a_book_has_the_tokens_that_it_has_as_a_whole() {
        let Some(data) = std::env::var_os("HEIRLOOM_DATA").map(PathBuf::from) else { return };
        let book = data.join("text/novels/Doyle_Hound_1902.txt");
        let Ok(text) = std::fs::read_to_string(book) else { return };
        for name in ["gpt2", "bert-base-uncased"] {
            let tokenizer = Tokenizer::open(&data.join("tokenizers").join(name)).expect("there");
            assert!(text.len() > 2 * Parts::USUAL.length);
            let found = run(&tokenizer, &text, Parts::USUAL).expect("tokens");
            assert_eq!(found, whole(&tokenizer, &text), "{name}");
        }
    }
}
