//! Tokenizers trained on text: the same ones every time, opened again with the same digest, and
//! every text written.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use heirloom_data::text::{Corpus, Masker, Masking, Reading, Separator};
use heirloom_data::tokens::{Tokenizer, TokenizerKind, Training, train};

const TEXT: &str = "The cat sat on the mat; the cats sat on the mats.\nNaïve cafés, naïve cats!\n\n\
                    the theatre of the absurd: a cat, another cat, 12 cats and 日本 cats\n";

fn corpus(folder: &Path, text: &str) -> Corpus {
    let file = folder.join("a.txt");
    std::fs::write(&file, text).unwrap();
    let reading = Reading { separator: Separator::BlankLine, ..Reading::plain() };
    Corpus::open(&[file], reading).unwrap()
}

fn training(kind: TokenizerKind, vocab_size: usize) -> Training {
    Training { kind, vocab_size, min_frequency: 2, special: vec![] }
}

const WORD_PIECE: TokenizerKind = TokenizerKind::WordPiece { lowercase: true };

fn saved(tokenizer: &Tokenizer) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in tokenizer.files() {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn the_same_text_gives_the_same_files_from_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let words: String = (0..2000)
        .map(|n: u32| format!("w{} {}{}\n\n", n % 97, "ab".repeat(n as usize % 5), n * 7919 % 1000))
        .collect();
    let corpus = corpus(folder.path(), &(TEXT.repeat(3) + &words));
    for (kind, size) in [(TokenizerKind::Bpe, 400), (WORD_PIECE, 200)] {
        let files = [1, 1, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let trained =
                pool.install(|| train(&corpus, &training(kind, size), &mut |_| ()).unwrap());
            assert_eq!(trained.vocab_size(), size);
            trained.files().clone()
        });
        assert_eq!(files[0], files[1], "{kind:?}: twice on one thread");
        assert_eq!(files[0], files[2], "{kind:?}: one thread and four");
    }
}

#[test]
fn byte_pairs_write_every_text_and_end_one_with_their_token() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), TEXT);
    let own = Training {
        special: vec!["<|im_start|>".to_owned(), "<|endoftext|>".to_owned()],
        ..training(TokenizerKind::Bpe, 270)
    };
    let tokenizer = train(&corpus, &own, &mut |_| ()).unwrap();
    assert_eq!(tokenizer.id("<|endoftext|>"), Some(0));
    assert_eq!(tokenizer.id("<|im_start|>"), Some(1));
    assert_eq!(tokenizer.named("eos_token").as_deref(), Some("<|endoftext|>"));
    assert_eq!(tokenizer.vocab_size(), 270);
    for text in [TEXT, "\u{0}\u{7f} 👩‍🚀 \r\n", "  two  blanks ", "<|im_start|>x"] {
        let tokens = tokenizer.encode_text(text).unwrap();
        assert_eq!(tokens.bytes.iter().sum::<usize>(), text.len());
        let special = tokenizer.special_tokens();
        if !tokens.ids.iter().any(|id| special.contains_key(id)) {
            assert_eq!(tokenizer.decode(&tokens.ids).unwrap(), text);
        }
    }
    let again = Tokenizer::open(saved(&tokenizer).path()).unwrap();
    assert_eq!(again.digest(), tokenizer.digest());
    assert_eq!(again.encode_text(TEXT).unwrap(), tokenizer.encode_text(TEXT).unwrap());
    // " the" is the most frequent of the longer pairs.
    assert!(tokenizer.id("Ġthe").is_some() && tokenizer.id("Ġcat").is_some());
}

#[test]
fn word_pieces_are_berts_and_can_be_masked() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), TEXT);
    let tokenizer = train(&corpus, &training(WORD_PIECE, 110), &mut |_| ()).unwrap();
    let special = tokenizer.special();
    let ids = [special.pad, special.unk, special.cls, special.sep, special.mask];
    assert_eq!(ids, [0, 1, 2, 3, 4].map(Some));
    let tokens = |text: &str| -> Vec<String> {
        let ids = tokenizer.encode_text(text).unwrap().ids;
        ids.iter().map(|&id| tokenizer.token(id).unwrap().to_owned()).collect()
    };
    assert_eq!(tokens("The CATS"), ["the", "cats"]);
    assert_eq!(tokens("naïve"), tokens("naive"));
    assert!(tokens("thecat").len() > 1 && tokens("thecat")[1].starts_with("##"));
    assert_eq!(tokens("Ω"), ["[UNK]"]);
    assert!(Masker::new(&tokenizer, Masking::default(), 1).is_ok());
    let again = Tokenizer::open(saved(&tokenizer).path()).unwrap();
    assert_eq!(again.digest(), tokenizer.digest());
    let cased = TokenizerKind::WordPiece { lowercase: false };
    let own = Training { special: vec!["[USER]".to_owned()], ..training(cased, 110) };
    let cased = train(&corpus, &own, &mut |_| ()).unwrap();
    assert!(cased.encode_text("The").unwrap().ids != cased.encode_text("the").unwrap().ids);
    let user = cased.encode_text("[USER] the").unwrap().ids[0];
    assert_eq!(cased.special_tokens().get(&user).map(String::as_str), Some("[USER]"));
    let again = Tokenizer::open(saved(&cased).path()).unwrap();
    assert_eq!(again.encode_text("[USER] the").unwrap(), cased.encode_text("[USER] the").unwrap());
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let small = corpus(folder.path(), TEXT);
    let said = |corpus: &Corpus, kind, size| {
        let error = train(corpus, &training(kind, size), &mut |_| ()).unwrap_err();
        (error.exit_code(), error.to_string())
    };
    let (code, text) = said(&small, TokenizerKind::Bpe, 257);
    assert_eq!(code, 2);
    assert_eq!(
        text,
        "a vocabulary of 257 tokens holds nothing but special tokens and single characters, if \
         those; ask for 258 at least"
    );
    let (_, text) = said(&small, WORD_PIECE, 20);
    assert!(text.contains("a vocabulary of 20 tokens") && text.contains("ask for"), "{text}");
    let bad = folder.path().join("bad.jsonl");
    std::fs::write(&bad, "{\"text\": \"the\"}\n{\"text\": 1}\n").unwrap();
    let bad = Corpus::open(&[bad], Reading::plain()).unwrap();
    for kind in [TokenizerKind::Bpe, WORD_PIECE] {
        let (code, text) = said(&bad, kind, 400);
        assert!(code == 3 && text.contains("bad.jsonl:2:10: field `text` is a number"), "{text}");
    }
    let empty = corpus(folder.path(), "\n");
    let (_, text) = said(&empty, TokenizerKind::Bpe, 400);
    assert!(text.contains("there is no document in `a.txt`"), "{text}");
}
