//! A folder with texts, and tokenizers small enough to check by hand.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use heirloom_data::text::{Corpus, Reading, Row, Rows, Shards, write};
use heirloom_data::tokens::Tokenizer;
use heirloom_store::RealDisk;
use serde_json::json;

pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The tokens of `files`, written into `folder`.
    pub(crate) fn shards(
        &self,
        folder: &str,
        files: &[PathBuf],
        reading: &Reading,
        tokenizer: &Tokenizer,
    ) -> Arc<Shards> {
        let corpus = Corpus::open(files, reading.clone()).unwrap();
        let folder = self.path(folder);
        Arc::new(write(&RealDisk, &folder, &corpus, tokenizer, &mut |_| ()).unwrap())
    }

    /// A tokenizer of bytes as GPT-2 writes them, without merges but for `merges`, and with
    /// `<|endoftext|>` (id 256) and `<|other|>` (257).
    pub(crate) fn bytes(&self, merges: &[(&str, &str)]) -> Tokenizer {
        let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let mut moved = 0x100;
        let mut vocabulary = serde_json::Map::new();
        for byte in 0..=255u8 {
            let char = if printable(byte) {
                char::from(byte)
            } else {
                moved += 1;
                char::from_u32(moved - 1).unwrap()
            };
            vocabulary.insert(char.to_string(), byte.into());
        }
        for ((left, right), id) in merges.iter().zip(258..) {
            vocabulary.insert(format!("{left}{right}"), id.into());
        }
        let merges: Vec<String> = merges.iter().map(|(l, r)| format!("{l} {r}")).collect();
        let added = |id: u32, content: &str| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        };
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true,
        });
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [added(256, "<|endoftext|>"), added(257, "<|other|>")],
            "pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level,
            "model": { "type": "BPE", "vocab": vocabulary, "merges": merges },
        });
        self.write("bytes/tokenizer.json", json.to_string());
        let config = json!({ "eos_token": "<|endoftext|>" });
        self.write("bytes/tokenizer_config.json", config.to_string());
        Tokenizer::open(&self.path("bytes")).unwrap()
    }
}

/// Words and pieces of BERT; what is not among them is `[UNK]`.
pub(crate) fn word_piece() -> Tokenizer {
    let vocabulary =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\nsat\nna\n##ive\n.\n##t\ncafe\n";
    Tokenizer::from_vocabulary(vocabulary, true).unwrap()
}

/// All rows, read one after another into one row's memory.
pub(crate) fn rows(rows: &dyn Rows) -> Vec<Row> {
    let mut row = Row::default();
    (0..rows.len())
        .map(|number| {
            rows.read(number, &mut row);
            assert_eq!(row.ids.len(), rows.length(number));
            assert_eq!(row.labels.len(), row.ids.len());
            assert_eq!(row.starts.last().map(|&end| end as usize), Some(row.ids.len()));
            row.clone()
        })
        .collect()
}
