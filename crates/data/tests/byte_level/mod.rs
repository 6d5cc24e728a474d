//! Small byte-level tokenizers, as GPT-2's files describe them.

use std::path::Path;

use heirloom_data::tokens::Tokenizer;
use serde_json::{Value, json};

/// The character that stands for each byte: itself where it can be seen, else one from 256 on.
pub(crate) fn alphabet() -> Vec<char> {
    let mut hidden = 256;
    (0..=255_u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                hidden += 1;
                char::from_u32(hidden - 1).unwrap()
            }
        })
        .collect()
}

/// `tokenizer.json` of the 256 bytes, these merges, and added tokens behind them; the first added
/// token begins every text where `begins`.
pub(crate) fn json(merges: &[&str], added: &[&str], begins: bool) -> Value {
    let mut vocabulary: Vec<String> = alphabet().into_iter().map(String::from).collect();
    vocabulary.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let vocab: serde_json::Map<String, Value> =
        (0_u32..).zip(&vocabulary).map(|(id, token)| (token.clone(), id.into())).collect();
    let added: Vec<Value> = (vocabulary.len()..)
        .zip(added)
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let processor = match added.first() {
        Some(first) if begins => json!({
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": first["content"], "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {
                first["content"].as_str().unwrap():
                    {"id": first["content"], "ids": [first["id"]], "tokens": [first["content"]]},
            },
        }),
        _ => level.clone(),
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": level, "post_processor": processor, "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab, "merges": merges,
        },
    })
}

/// The tokenizer of such a file.
pub(crate) fn open(json: &Value) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let file: &Path = &folder.path().join("tokenizer.json");
    std::fs::write(file, json.to_string()).unwrap();
    Tokenizer::open(file).unwrap()
}
