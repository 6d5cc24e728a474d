//! Kept tokens: the same bytes from any number of threads, found again, and refused where anything
//! is not what it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::place::{Place, word_piece};
use heirloom_base::Bytes;
use heirloom_data::Error;
use heirloom_data::text::{Corpus, Reading, Separator, Shards, find_or_write, open, write};
use heirloom_data::tokens::Tokenizer;
use heirloom_store::{About, Disk, DiskError, Doing, Entry, RealDisk, commit_folder};

const TEXT: &str = "the cat sat.\n\n naïve  cats\n\n\u{200b}\n\n日本 the\n\nthe café zzz\n";

fn reading() -> Reading {
    Reading { separator: Separator::BlankLine, ..Reading::plain() }
}

fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn tokens_bytes_and_documents_are_those_of_the_text() {
    let place = Place::new();
    let file = place.write("a.txt", TEXT);
    let shards = place.shards("tokens", &[file], &reading().with_end("[SEP]"), &word_piece());
    let counts = shards.about().counts;
    assert_eq!((counts.documents, counts.empty), (4, 1));
    let ids = |document: u32| -> Vec<u32> {
        shards.range(document).map(|at| shards.token(at).id).collect()
    };
    let bytes = |document: u32| -> Vec<u64> {
        shards.range(document).map(|at| shards.token(at).bytes).collect()
    };
    assert_eq!(ids(0), [5, 6, 8, 11, 3]);
    assert_eq!(bytes(0), [3, 4, 4, 1, 0]);
    // Blanks belong to the token after them, and what a normaliser drops does too.
    assert_eq!((ids(1), bytes(1)), (vec![9, 10, 6, 7, 3], vec![3, 4, 5, 1, 0]));
    assert_eq!((ids(2), bytes(2)), (vec![1, 1, 5, 3], vec![3, 3, 4, 0]));
    assert_eq!((ids(3), bytes(3)), (vec![5, 13, 1, 3], vec![3, 6, 5, 0]));
    assert_eq!((counts.tokens, counts.text_tokens, counts.unknown), (18, 14, 3));
    let expected = ["the cat sat.", " naïve  cats", "日本 the", "the café zzz\n"];
    assert_eq!(counts.bytes, expected.iter().map(|text| text.len() as u64).sum::<u64>());
    assert_eq!(counts.learnt, 18);
    assert_eq!((shards.about().id_bytes, shards.about().sources.len()), (2, 1));
}

#[test]
fn a_token_that_the_text_writes_out_is_not_unknown() {
    let place = Place::new();
    place.bytes(&[]);
    place.write("bytes/tokenizer_config.json", "{\"unk_token\": \"<|endoftext|>\"}");
    let tokenizer = Tokenizer::open(&place.path("bytes")).unwrap();
    let file = place.write("a.txt", "one<|endoftext|>two");
    let shards = place.shards("tokens", &[file], &Reading::plain(), &tokenizer);
    let counts = shards.about().counts;
    assert_eq!((counts.text_tokens, counts.unknown), (7, 0));
    let file = place.write("b.txt", "the [UNK] zzz");
    let shards = place.shards("words", &[file], &Reading::plain(), &word_piece());
    assert_eq!(shards.about().counts.unknown, 1);
}

#[test]
fn a_token_of_many_bytes_keeps_their_number() {
    let place = Place::new();
    let long = format!("{}the{}", " ".repeat(300), " ".repeat(70_000));
    let file = place.write("a.txt", format!("the\n{long}"));
    let shards = place.shards("tokens", &[file], &Reading::plain(), &word_piece());
    let bytes: Vec<u64> = (0..2).map(|at| shards.token(at).bytes).collect();
    assert_eq!(bytes, [3, 1 + long.len() as u64]);
    let exact = [126, 127, 128].map(|blanks| {
        let text = format!("the{}cat", " ".repeat(blanks - 3));
        let name = format!("{blanks}");
        let file = place.write(&format!("{blanks}.txt"), text);
        let shards = place.shards(&name, &[file], &Reading::plain(), &word_piece());
        shards.token(1).bytes
    });
    assert_eq!(exact, [126, 127, 128]);
}

#[test]
fn ids_take_four_bytes_where_two_do_not_hold_them() {
    let place = Place::new();
    let words: String = (0..65_540).map(|at| format!("w{at}\n")).collect();
    let tokenizer = Tokenizer::from_vocabulary(&format!("[CLS]\n[SEP]\n[UNK]\n{words}"), true);
    let file = place.write("a.txt", "w65539 w0 w65532");
    let shards = place.shards("tokens", &[file], &Reading::plain(), &tokenizer.unwrap());
    assert_eq!(shards.about().id_bytes, 4);
    let ids: Vec<u32> = (0..3).map(|at| shards.token(at).id).collect();
    assert_eq!(ids, [65_542, 3, 65_535]);
}

#[test]
fn any_number_of_threads_writes_the_same_bytes() {
    let place = Place::new();
    let tokenizer = word_piece();
    let many: String =
        (0..300).map(|n| format!("the cat {} sat\n\n", "cats ".repeat(n % 7))).collect();
    let file = place.write("a.txt", many);
    let corpus = Corpus::open(&[file], reading()).unwrap();
    let written = [1, 2, 5].map(|threads| {
        let folder = place.path(&format!("tokens-{threads}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            write(&RealDisk, &folder, &corpus, &tokenizer, &mut |_| ()).unwrap();
        });
        files_of(&folder)
    });
    assert_eq!(written[0], written[1]);
    assert_eq!(written[0], written[2]);
}

#[test]
fn tokens_are_found_again_and_not_written_twice() {
    let place = Place::new();
    let file = place.write("a.txt", TEXT);
    let (parent, tokenizer) = (place.path("deep/kept"), word_piece());
    let found = |reading: Reading| {
        let corpus = Corpus::open(std::slice::from_ref(&file), reading).unwrap();
        let (shards, new) =
            find_or_write(&RealDisk, &parent, &corpus, &tokenizer, &mut |_| ()).unwrap();
        (shards.about().content, new)
    };
    let (first, new) = found(reading());
    assert!(new);
    assert_eq!(found(reading()), (first, false));
    let (other, new) = found(reading().with_end("[SEP]"));
    assert!(new && other != first);
    let mut names: Vec<_> =
        fs::read_dir(&parent).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !name.to_string_lossy().ends_with(".lock"));
    assert_eq!(names.len(), 2);
}

#[test]
fn of_many_that_want_the_same_tokens_at_once_one_writes_them() {
    let place = Place::new();
    let file = place.write("a.txt", TEXT);
    let (parent, tokenizer) = (place.path("deep/kept"), word_piece());
    let corpus = Corpus::open(std::slice::from_ref(&file), reading()).unwrap();
    let one = || {
        let found = find_or_write(&RealDisk, &parent, &corpus, &tokenizer, &mut |_| ()).unwrap();
        (found.0.about().content, found.1)
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(found.iter().all(|(content, _)| *content == found[0].0));
    assert_eq!(found.iter().filter(|(_, new)| *new).count(), 1);
}

#[test]
fn tokens_of_other_text_another_tokenizer_or_other_options_are_refused() {
    let place = Place::new();
    let file = place.write("a.txt", TEXT);
    let folder = place.path("tokens");
    let tokenizer = word_piece();
    place.shards("tokens", std::slice::from_ref(&file), &reading(), &tokenizer);
    let refused = |files: &[std::path::PathBuf], reading: Reading| {
        let corpus = Corpus::open(files, reading).unwrap();
        let error = open(&RealDisk, &folder, Some(&corpus), &tokenizer).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    };
    let corpus = Corpus::open(std::slice::from_ref(&file), reading()).unwrap();
    assert!(open(&RealDisk, &folder, Some(&corpus), &tokenizer).is_ok());
    assert!(open(&RealDisk, &folder, None, &tokenizer).is_ok());
    let said = refused(std::slice::from_ref(&file), reading().with_end("[SEP]"));
    assert!(
        said.contains(
            "made with another way of reading (end = null, this run has end = \"[SEP]\")"
        ),
        "{said}"
    );
    let more = place.write("b.txt", "more");
    let said = refused(&[file.clone(), more], reading());
    assert!(said.contains("made with another text (1 file, this run has 2 files)"), "{said}");
    let changed = place.write("a.txt", "the cat");
    let said = refused(&[changed], reading());
    assert!(said.contains("another text (a.txt of 60 bytes, "), "{said}");
    assert!(said.contains("write them again, into a new folder"), "{said}");
    let other = place.bytes(&[]);
    let said = open(&RealDisk, &folder, None, &other).unwrap_err().to_string();
    assert!(said.contains("made with another tokenizer ("), "{said}");
}

#[test]
fn a_flipped_bit_and_a_cut_are_noticed_in_every_file() {
    let place = Place::new();
    let file = place.write("a.txt", TEXT);
    place.shards("tokens", &[file], &reading(), &word_piece());
    let folder = place.path("tokens");
    for (name, bytes) in files_of(&folder) {
        for at in [0, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            if bytes.is_empty() {
                continue;
            }
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            for wrong in [&flipped[..], &bytes[..at]] {
                fs::write(folder.join(&name), wrong).unwrap();
                let error = Shards::open(&RealDisk, &folder).unwrap_err();
                assert!(error.to_string().contains(&name), "{name}: {error}");
                assert_eq!(error.exit_code(), 3, "{error}");
            }
        }
        fs::remove_file(folder.join(&name)).unwrap();
        let error = Shards::open(&RealDisk, &folder).unwrap_err();
        assert!(matches!(error, Error::Store(_)), "{name}: {error}");
        fs::write(folder.join(&name), bytes).unwrap();
    }
    assert!(Shards::open(&RealDisk, &folder).is_ok());
}

#[test]
fn what_cannot_be_written_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let folder = place.path("tokens");
    let empty = place.write("empty.txt", " \n\n \u{200b}\n");
    let bad = place.write("bad.jsonl", "{\"text\": \"the\"}\n{\"text\": 3}\n");
    let file = place.write("a.txt", TEXT);
    let rows = [
        (empty, reading(), "there is no document in `empty.txt`: all 1 are empty"),
        (bad, Reading::plain(), "bad.jsonl:2:10: field `text` is a number, expected text"),
        (
            file.clone(),
            reading().with_end("[SEPP]"),
            "the tokenizer has no token \"[SEPP]\"; did you mean `[SEP]`?",
        ),
    ];
    for (file, reading, want) in rows {
        let corpus = Corpus::open(&[file], reading).unwrap();
        let error = write(&RealDisk, &folder, &corpus, &word_piece(), &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert!(!folder.exists() && !place.path("tokens.draft").exists());
    }
    let corpus = Corpus::open(&[file], reading()).unwrap();
    place.write("tokens/mine.txt", "a user's own");
    let error = write(&RealDisk, &folder, &corpus, &word_piece(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("mine.txt"), "{error}");
}

#[test]
fn text_that_changes_meanwhile_is_noticed() {
    let place = Place::new();
    let file = place.write("a.txt", TEXT);
    let corpus = Corpus::open(std::slice::from_ref(&file), reading()).unwrap();
    let mut touch = |_: &_| fs::write(&file, "the cat").unwrap();
    let folder = place.path("tokens");
    let error = write(&RealDisk, &folder, &corpus, &word_piece(), &mut touch).unwrap_err();
    assert!(error.to_string().contains("a.txt` changed while it was being read"), "{error}");
    assert!(!folder.exists());
}

#[test]
fn documents_keep_their_side_of_a_split_whatever_stands_around_them() {
    let place = Place::new();
    let texts: Vec<String> = (0..200).map(|n| format!("the {}", "cat ".repeat(n + 1))).collect();
    let split = |name: &str, texts: &[String], share: f64| {
        let file = place.write(&format!("{name}.txt"), texts.join("\n\n"));
        let shards = place.shards(name, &[file], &reading(), &word_piece());
        let (kept, held) = shards.split(7, share).unwrap();
        assert_eq!(kept.len() + held.len(), texts.len());
        let lengths = |documents: &[u32]| -> Vec<u64> {
            let mut lengths: Vec<u64> = documents
                .iter()
                .map(|&document| shards.range(document).end - shards.range(document).start)
                .collect();
            lengths.sort_unstable();
            lengths
        };
        (lengths(kept.documents()), lengths(held.documents()))
    };
    let (kept, held) = split("all", &texts, 0.1);
    assert_eq!((kept.len(), held.len()), (180, 20));
    let reversed: Vec<String> = texts.iter().rev().cloned().collect();
    // The last document of a file keeps its line end only in one order; here there is none.
    assert_eq!(split("reversed", &reversed, 0.1), (kept, held.clone()));
    let more: Vec<String> = texts
        .iter()
        .cloned()
        .chain((0..20).map(|n| format!("cats {}", "sat ".repeat(n))))
        .collect();
    let (_, after) = split("more", &more, 0.1);
    let stayed = held.iter().filter(|length| after.contains(length)).count();
    assert!(stayed >= 15, "{stayed} of 20 held-out documents stayed so");
    // Equal documents are on one side, and one document cannot be parted.
    let same = vec!["the cat".to_owned(); 8];
    let file = place.write("same.txt", same.join("\n\n"));
    let shards = place.shards("same", &[file], &reading(), &word_piece());
    let said = shards.split(7, 0.5).unwrap_err().to_string();
    assert!(said.contains("cannot be held out of 8: a document is never on both sides"), "{said}");
    let said = shards.split(7, 1.0).unwrap_err().to_string();
    assert!(said.contains("a share of 1 documents cannot be held out"), "{said}");
}

#[test]
fn a_whole_folder_that_no_writer_writes_is_refused_with_the_reason() {
    let place = Place::new();
    let file = place.write("a.txt", TEXT);
    place.shards("good", &[file], &reading(), &word_piece());
    let good = files_of(&place.path("good"));
    let about: serde_json::Value = serde_json::from_slice(&good["tokens.json"]).unwrap();
    let changed = |pointer: &str, value: serde_json::Value| {
        let mut about = about.clone();
        *about.pointer_mut(pointer).unwrap() = value;
        ("tokens.json", about.to_string().into_bytes())
    };
    let mut ends = good["documents.bin"].clone();
    ends.swap(0, 16);
    let shard = &good["shard-0000.bin"];
    let rows = [
        (changed("/format", 2.into()), "have format 2, this build reads format 1"),
        (changed("/id_bytes", 3.into()), "sizes that no writer gives"),
        (changed("/shard_tokens", 0.into()), "sizes that no writer gives"),
        (changed("/counts/tokens", 13.into()), "documents end at 14 of 13 tokens"),
        (changed("/counts/tokens", 0.into()), "sizes that no writer gives"),
        (changed("/counts/documents", 3.into()), "4 documents where 3 were counted"),
        (changed("/id_bytes", 4.into()), "a shard has 42 bytes, expected 70"),
        (changed("/shard_tokens", 10.into()), "shard-0001.bin"),
        (changed("/counts", "x".into()), "tokens.json: invalid type"),
        (("tokens.json", b"{}".to_vec()), "tokens.json: missing field"),
        (("tokens.json", b"not JSON".to_vec()), "tokens.json: expected"),
        (("documents.bin", ends), "a document ends before it begins"),
        (("shard-0000.bin", shard[1..].to_vec()), "a shard has 41 bytes, expected 42"),
    ];
    for (number, ((name, bytes), want)) in rows.into_iter().enumerate() {
        let mut files = good.clone();
        files.remove("manifest.json");
        files.insert(name.to_owned(), bytes);
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let folder = place.path(&format!("bad-{number}"));
        commit_folder(&RealDisk, &folder, &files, About::default()).unwrap();
        let error = Shards::open(&RealDisk, &folder).unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
        assert_eq!(error.exit_code(), 3, "{error}");
    }
}

/// The machine's disk, on which one operation fails.
struct Failing {
    left: AtomicUsize,
}

impl Failing {
    fn may(&self, path: &Path) -> Result<(), DiskError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let source = std::io::Error::other("broken");
        Err(DiskError { doing: Doing::Write, path: path.to_owned(), source })
    }
}

impl Disk for Failing {
    fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.may(path).and_then(|()| RealDisk.create_dir(path))
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.may(path).and_then(|()| RealDisk.write(path, bytes))
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.may(path).and_then(|()| RealDisk.append(path, bytes))
    }
    fn truncate(&self, path: &Path, len: u64) -> Result<(), DiskError> {
        self.may(path).and_then(|()| RealDisk.truncate(path, len))
    }
    fn sync(&self, path: &Path) -> Result<(), DiskError> {
        self.may(path).and_then(|()| RealDisk.sync(path))
    }
    fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.may(path).and_then(|()| RealDisk.sync_dir(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.may(from).and_then(|()| RealDisk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.may(path).and_then(|()| RealDisk.remove(path))
    }
    fn remove_dir(&self, path: &Path) -> Result<(), DiskError> {
        self.may(path).and_then(|()| RealDisk.remove_dir(path))
    }
    fn read_pieces(&self, path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<(), DiskError> {
        self.may(path).and_then(|()| RealDisk.read_pieces(path, each))
    }
    fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        self.may(path).and_then(|()| RealDisk.list(path))
    }
    fn free(&self, path: &Path) -> Result<Bytes, DiskError> {
        self.may(path).and_then(|()| RealDisk.free(path))
    }
}

#[test]
fn whichever_operation_fails_tokens_are_whole_or_absent_and_can_be_written_again() {
    let place = Place::new();
    let tokenizer = word_piece();
    let file = place.write("a.txt", TEXT);
    let corpus = Corpus::open(&[file], reading()).unwrap();
    let mut failures = 0;
    for after in 0.. {
        let folder = place.path(&format!("kept/{after}/tokens"));
        let disk = Failing { left: AtomicUsize::new(after) };
        let written = write(&disk, &folder, &corpus, &tokenizer, &mut |_| ());
        let Err(error) = written else { break };
        failures += 1;
        assert!(error.to_string().contains("broken"), "{error}");
        if folder.exists() {
            Shards::open(&RealDisk, &folder).unwrap();
        } else {
            write(&RealDisk, &folder, &corpus, &tokenizer, &mut |_| ()).unwrap();
        }
    }
    // A folder, five files, a manifest, their syncs, two renames: fewer would mean that the
    // failures never reached the writer.
    assert!(failures > 15, "{failures}");
}
