//! A tokenizer of one's own, from text.
//!
//! In: a corpus, a kind, a size. Out: a tokenizer whose files `transformers` loads.
//! Never: another vocabulary from the same text, whatever the threads: pairs are merged by count,
//! and equal counts by ids, which are given in the order of the characters.
//!
//! Byte pairs (Sennrich et al. 2016, arXiv:1508.07909) over bytes, as GPT-2 has them: any text can be
//! written, and nothing is unknown. WordPiece as BERT has it: words of a basic tokenizer, pieces with
//! `##`; what has a character beyond the alphabet is `[UNK]`. Its vocabulary is found by merging pairs
//! by their count, as by every open trainer.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::json;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    AddedToken, Model, ModelWrapper, NormalizedString, Normalizer, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer,
};

use super::{CONFIG, Tokenizer};
use crate::error::Error;
use crate::text::{Corpus, TextError};

/// What a tokenizer is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Training {
    /// How text is taken apart.
    pub kind: TokenizerKind,
    /// Tokens, with the special ones.
    pub vocab_size: usize,
    /// How often a pair must occur to become a token.
    pub min_frequency: u64,
    /// Special tokens besides those of the kind, as those of a chat template.
    pub special: Vec<String>,
}

/// How text is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// Byte pairs as GPT-2; the special token `<|endoftext|>`.
    Bpe,
    /// WordPiece as BERT; the special tokens `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`.
    WordPiece {
        /// Text is written small and without accents.
        lowercase: bool,
    },
}

/// The special tokens of a byte-level vocabulary.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Those of BERT.
const BERT: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Characters in the alphabet of a WordPiece vocabulary: the most frequent ones. As BERT's own
/// trainer, so that a text with many scripts leaves room for words.
const ALPHABET: usize = 1000;

/// Trains a tokenizer on `corpus`. `progress` hears how many bytes of text were read, once or,
/// for WordPiece, whose alphabet is counted first, twice.
///
/// # Errors
/// Where a document is not as it should be, or the size does not even hold the alphabet.
pub fn train(
    corpus: &Corpus,
    training: &Training,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Tokenizer, Error> {
    match training.kind {
        TokenizerKind::Bpe => byte_pairs(corpus, training, progress),
        TokenizerKind::WordPiece { lowercase } => {
            word_pieces(corpus, training, lowercase, progress)
        }
    }
}

fn byte_pairs(
    corpus: &Corpus,
    training: &Training,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Tokenizer, Error> {
    let special = special(&[END_OF_TEXT], &training.special);
    check_size(training.vocab_size, special.len() + 256)?;
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(training.vocab_size)
        .min_frequency(training.min_frequency)
        .show_progress(false)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .into();
    // Offsets with their blanks, so that every byte of a text has a token that says it.
    let bytes = ByteLevel::new(false, false, true);
    let mut inner = tokenizers::Tokenizer::new(ModelWrapper::BPE(BPE::default()));
    inner.with_pre_tokenizer(Some(bytes));
    inner.with_post_processor(Some(bytes));
    inner.with_decoder(Some(bytes));
    feed(corpus, &mut inner, &mut trainer, progress)?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": false,
    });
    let json = serde_json::to_value(&inner).map_err(|error| refused(&error.to_string()))?;
    let mut tokenizer = Tokenizer::build(json, config.clone(), None).map_err(|e| refused(&e))?;
    tokenizer.files.insert(CONFIG.to_owned(), pretty(&config));
    Ok(tokenizer)
}

fn word_pieces(
    corpus: &Corpus,
    training: &Training,
    lowercase: bool,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Tokenizer, Error> {
    let normalizer = BertNormalizer::new(true, true, None, lowercase);
    let alphabet = alphabet(corpus, &normalizer, progress)?;
    let mut special = special(&BERT, &training.special);
    check_size(training.vocab_size, special.len() + 2 * alphabet.len())?;
    let own: Vec<String> = special.iter().map(|token| token.content.clone()).collect();
    // The trainer numbers pieces in the order in which it meets words, which differs from run to
    // run, and equal counts are merged by number. Given as special tokens they have theirs before.
    special.extend(alphabet.iter().map(|char| AddedToken::from(format!("##{char}"), true)));
    let mut trainer: TrainerWrapper = WordPieceTrainer::builder()
        .vocab_size(training.vocab_size)
        .min_frequency(training.min_frequency)
        .show_progress(false)
        .special_tokens(special)
        .limit_alphabet(alphabet.len())
        .initial_alphabet(alphabet.into_iter().collect())
        .build()
        .into();
    let mut inner = tokenizers::Tokenizer::new(ModelWrapper::WordPiece(WordPiece::default()));
    inner.with_normalizer(Some(normalizer)).map_err(|error| refused(&error.to_string()))?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    feed(corpus, &mut inner, &mut trainer, progress)?;
    let by_id: BTreeMap<u32, String> =
        inner.get_model().get_vocab().into_iter().map(|(token, id)| (id, token)).collect();
    let lines: String = by_id.values().map(|token| format!("{token}\n")).collect();
    let mut tokenizer = Tokenizer::from_vocabulary(&lines, lowercase)?;
    if own.len() > BERT.len() {
        let more = own[BERT.len()..].iter().map(|token| AddedToken::from(token.clone(), true));
        tokenizer.inner.add_special_tokens(more).map_err(|error| refused(&error.to_string()))?;
        let json =
            serde_json::to_value(&tokenizer.inner).map_err(|error| refused(&error.to_string()))?;
        let config = json!({ "do_lower_case": lowercase });
        tokenizer = Tokenizer::build(json, config, None).map_err(|error| refused(&error))?;
    }
    Ok(tokenizer)
}

/// Tokens of the kind and those asked for, once each.
fn special(own: &[&str], more: &[String]) -> Vec<AddedToken> {
    let mut all: Vec<String> = own.iter().map(|&token| token.to_owned()).collect();
    for token in more {
        if !all.contains(token) {
            all.push(token.clone());
        }
    }
    all.into_iter().map(|token| AddedToken::from(token, true)).collect()
}

fn check_size(asked: usize, least: usize) -> Result<(), Error> {
    if asked > least {
        return Ok(());
    }
    Err(TextError::VocabularyTooSmall { asked, least: least + 1 }.into())
}

fn refused(reason: &str) -> Error {
    TextError::NotTrained { reason: reason.to_owned() }.into()
}

fn pretty(value: &serde_json::Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// Shows all texts to the trainer.
fn feed(
    corpus: &Corpus,
    inner: &mut tokenizers::Tokenizer,
    trainer: &mut TrainerWrapper,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<(), Error> {
    let mut failed = None;
    let (mut read, mut documents) = (0, 0u64);
    let mut texts = corpus.texts()?;
    let heard = std::iter::from_fn(|| match texts.next()? {
        Ok(text) => {
            read += text.len() as u64;
            documents += 1;
            progress(read);
            Some(text)
        }
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let trained = inner.train(trainer, heard.fuse().flat_map(|text| parts(&text, PART)));
    if let Some(error) = failed {
        return Err(error);
    }
    trained.map_err(|error| refused(&error.to_string()))?;
    if documents == 0 {
        return Err(corpus.no_documents(0));
    }
    Ok(())
}

/// Bytes of a text whose words are counted at a time: a book takes no more memory than its parts, and
/// all threads have some.
const PART: usize = 1 << 17;

/// `text` in parts of about so many bytes, cut before blanks between letters or digits of ASCII, where
/// both kinds of tokenizer part words whatever stands around.
fn parts(text: &str, length: usize) -> Vec<String> {
    let bytes = text.as_bytes();
    let parts_words = |&at: &usize| {
        let is = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
        bytes[at] == b' ' && is(at - 1) && is(at + 1)
    };
    let (mut parts, mut start) = (Vec::new(), 0);
    while let Some(cut) = (start + length.max(1)..bytes.len()).find(parts_words) {
        parts.push(text[start..cut].to_owned());
        start = cut;
    }
    parts.push(text[start..].to_owned());
    parts
}

/// The characters of the words, the most frequent ones, ascending.
fn alphabet(
    corpus: &Corpus,
    normalizer: &BertNormalizer,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Vec<char>, Error> {
    let mut read = 0;
    let heard = corpus.texts()?.inspect(|text| {
        read += text.as_ref().map_or(0, |text| text.len() as u64);
        progress(read);
    });
    // Sums of counts, so the order in which texts come does not matter.
    let add = |mut all: BTreeMap<char, u64>, more: BTreeMap<char, u64>| {
        more.into_iter().for_each(|(char, count)| *all.entry(char).or_default() += count);
        Ok(all)
    };
    let counts = heard.par_bridge().map(|text| {
        let parts = parts(&text?, PART);
        parts.par_iter().map(|part| characters(part, normalizer)).try_reduce(BTreeMap::new, add)
    });
    let counts = counts.try_reduce(BTreeMap::new, add)?;
    let mut chars: Vec<(char, u64)> = counts.into_iter().collect();
    // Stable: of equal counts the first characters stay.
    chars.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    chars.truncate(ALPHABET);
    let mut kept: Vec<char> = chars.into_iter().map(|(char, _)| char).collect();
    kept.sort_unstable();
    Ok(kept)
}

/// How often each character stands in a word of `text`.
fn characters(text: &str, normalizer: &BertNormalizer) -> Result<BTreeMap<char, u64>, Error> {
    let mut counts = BTreeMap::new();
    let mut count = || -> tokenizers::Result<()> {
        let mut normalized = NormalizedString::from(text);
        normalizer.normalize(&mut normalized)?;
        let mut words = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut words)?;
        for (word, _, _) in words.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            word.chars().for_each(|char| *counts.entry(char).or_default() += 1);
        }
        Ok(())
    };
    count().map_err(|error| refused(&error.to_string()))?;
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that are counted: of `text` as a whole, and of its parts.
    #[test]
    fn parts_have_the_words_of_the_whole() {
        let byte_level = ByteLevel::new(false, false, true);
        let text =
            "The cat's 12 cats,\r\nnaïve  cats \t sat\n\non the mat; 日本 cats . a b c\u{a0}d \
                    and some more of the same kind , e f"
                .repeat(5);
        let words = |part: &str, bytes: bool| -> Vec<String> {
            let mut found = PreTokenizedString::from(part);
            match bytes {
                true => byte_level.pre_tokenize(&mut found).expect("words"),
                false => BertPreTokenizer.pre_tokenize(&mut found).expect("words"),
            }
            let splits = found.get_splits(OffsetReferential::Original, OffsetType::Byte);
            splits.into_iter().map(|(word, _, _)| word.to_owned()).collect()
        };
        for length in [0, 1, 7, 40, 10_000] {
            let parts = parts(&text, length);
            assert_eq!(parts.concat(), text);
            assert!((parts.len() == 1) == (length > text.len()), "{} of {length}", parts.len());
            for bytes in [true, false] {
                let found: Vec<String> = parts.iter().flat_map(|part| words(part, bytes)).collect();
                assert_eq!(found, words(&text, bytes), "{length}");
            }
        }
        assert_eq!(self::parts("", 3), [""]);
    }
}
