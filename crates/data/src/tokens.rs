//! Tokenizers: text to ids, exactly as `transformers` does it.
//!
//! In: `tokenizer.json` of any age, or a `vocab.txt` of BERT.
//! Out: ids and type ids with special tokens, cut to a length; a digest; files for a saved model.
//! Never: pads, and never cuts because the file says so. Both are decided by the caller.

mod long;
mod spans;
mod train;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use heirloom_base::{Digest, Hasher};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use tokenizers::utils::truncation::{TruncationParams, truncate_encodings};
use tokenizers::{EncodeInput, Encoding as Raw, PostProcessor};

use crate::error::{Error, reading};
use crate::pack::LONGEST_SEQUENCE;

pub use spans::{Pieces, TextTokens};
pub use train::{TokenizerKind, Training, train};

/// A tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Token by id, the added ones too.
    vocabulary: BTreeMap<u32, String>,
    special: Special,
    config: Value,
    files: BTreeMap<String, Vec<u8>>,
    digest: Digest,
}

/// Ids of the tokens that mean something to a model; `None` where the tokenizer has no such token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// Fills up; packed batches never hold it.
    pub pad: Option<u32>,
    /// Begins a sequence; classifiers read its output.
    pub cls: Option<u32>,
    /// Ends a sequence.
    pub sep: Option<u32>,
    /// Stands for a token to guess.
    pub mask: Option<u32>,
    /// Stands for text outside the vocabulary.
    pub unk: Option<u32>,
}

/// A tokenised text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Ids, special tokens included.
    pub ids: Vec<u32>,
    /// 0 for the first text and 1 for the second, where the tokenizer tells them apart.
    pub type_ids: Vec<u8>,
    /// Tokens were cut off.
    pub truncated: bool,
}

/// The first id at which two tokenizers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The id.
    pub id: u32,
    /// The token of the first tokenizer; `None` beyond its vocabulary.
    pub left: Option<String>,
    /// The token of the second.
    pub right: Option<String>,
}

impl Tokenizer {
    /// Opens a tokenizer from a folder of a model, or from `tokenizer.json` or `vocab.txt` itself.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let file = if path.is_dir() { find(path)? } else { path.to_owned() };
        let bytes = fs::read(&file).map_err(reading(&file))?;
        let config = optional(folder, CONFIG)?;
        let map = optional(folder, SPECIAL_MAP)?;
        let settings = settings(&folder.join(CONFIG), config.as_deref())?;
        let built = if file.extension().is_some_and(|extension| extension == "txt") {
            let lowercase = settings["do_lower_case"].as_bool().unwrap_or(true);
            from_vocabulary(&bytes, lowercase).and_then(|json| Self::build(json, settings, None))
        } else {
            modern(&bytes).and_then(|(json, changed)| {
                Self::build(json, settings, (!changed).then_some(bytes))
            })
        };
        let mut tokenizer = built.map_err(|reason| Error::Tokenizer { file, reason })?;
        if let Some(config) = config {
            tokenizer.files.insert(CONFIG.to_owned(), config);
        }
        if let Some(map) = map {
            tokenizer.files.insert(SPECIAL_MAP.to_owned(), map);
        }
        if let Some(template) = optional(folder, CHAT_TEMPLATE)? {
            tokenizer.files.insert(CHAT_TEMPLATE.to_owned(), template);
        }
        Ok(tokenizer)
    }

    /// The tokenizer of BERT for a vocabulary of one token a line.
    pub fn from_vocabulary(vocabulary: &str, lowercase: bool) -> Result<Self, Error> {
        from_vocabulary(vocabulary.as_bytes(), lowercase)
            .and_then(|json| Self::build(json, json!({ "do_lower_case": lowercase }), None))
            .map_err(|reason| Error::Tokenizer { file: VOCABULARY.into(), reason })
    }

    fn build(json: Value, config: Value, original: Option<Vec<u8>>) -> Result<Self, String> {
        check_templates(&json["post_processor"])?;
        let text = json.to_string();
        let mut inner: tokenizers::Tokenizer =
            text.parse().map_err(|error: tokenizers::Error| error.to_string())?;
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        let vocabulary: BTreeMap<u32, String> =
            inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        match vocabulary.last_key_value() {
            None => return Err("the vocabulary is empty".to_owned()),
            Some((&id, token)) if id >= MOST_IDS => {
                return Err(format!("token {token:?} has id {id}, expected less than {MOST_IDS}"));
            }
            Some(_) => {}
        }
        let special = Special::find(&inner, &config);
        let digest = digest_of(&inner, &vocabulary)?;
        let mut files = BTreeMap::new();
        let bytes = original.unwrap_or_else(|| text.into_bytes());
        files.insert(TOKENIZER.to_owned(), bytes);
        if json["model"]["type"] == "WordPiece" {
            files.insert(VOCABULARY.to_owned(), lines_of(&vocabulary));
        }
        let own = own_config(&config, &special, &vocabulary);
        files.insert(CONFIG.to_owned(), own.to_string().into_bytes());
        Ok(Self { inner, vocabulary, special, config, files, digest })
    }

    /// Encodes a text or a pair, cut to `max_length` tokens with the special ones.
    ///
    /// Of a pair the longer text is cut first, then both evenly, as `longest_first` does.
    pub fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
    ) -> Result<Encoding, Error> {
        let room = self.room(pair.is_some(), max_length)?;
        let raw = |text: &str| self.inner.encode_fast(EncodeInput::from(text), false);
        let first = raw(text).map_err(refused)?;
        let second = pair.map(raw).transpose().map_err(refused)?;
        let length = first.len() + second.as_ref().map_or(0, Raw::len);
        let cut = TruncationParams { max_length: room, ..TruncationParams::default() };
        let (first, second) = truncate_encodings(first, second, &cut).map_err(refused)?;
        let whole = self.inner.post_process(first, second, true).map_err(refused)?;
        Ok(Encoding {
            ids: whole.get_ids().to_vec(),
            type_ids: whole.get_type_ids().iter().map(|&id| id as u8).collect(),
            truncated: length > room,
        })
    }

    /// Encodes many, on all threads, in their order.
    pub fn encode_batch(
        &self,
        texts: &[(&str, Option<&str>)],
        max_length: usize,
    ) -> Result<Vec<Encoding>, Error> {
        texts.par_iter().map(|(text, pair)| self.encode(text, *pair, max_length)).collect()
    }

    /// Tokens of text that fit beside the special ones.
    fn room(&self, pair: bool, max_length: usize) -> Result<usize, Error> {
        if max_length > LONGEST_SEQUENCE {
            return Err(Error::TooLong { max_length });
        }
        let special =
            self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair));
        match max_length.checked_sub(special) {
            Some(room) if room > 0 => Ok(room),
            _ => Err(Error::NoRoom { max_length, special }),
        }
    }

    /// The text of ids, special tokens left out.
    ///
    /// # Errors
    /// Where the tokenizer's decoder says no.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.inner
            .decode(ids, true)
            .map_err(|error| Error::Tokenizer { file: TOKENIZER.into(), reason: error.to_string() })
    }

    /// A digest of what the tokenizer does: vocabulary, merges, normaliser, pre-tokenizer,
    /// post-processor. How the file was formatted, and its padding and truncation, do not count.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.last_key_value().map_or(0, |(&id, _)| id as usize + 1)
    }

    /// How many tokens there are; fewer than [`Tokenizer::vocab_size`] where ids have holes.
    pub fn count(&self) -> usize {
        self.vocabulary.len()
    }

    /// The rule by which tokens spell text: the kind of decoder, or kinds of its parts.
    pub fn spelling(&self) -> String {
        let decoder = as_json(&self.inner.get_decoder()).unwrap_or_default();
        let kind = |part: &Value| part["type"].as_str().unwrap_or("no decoder").to_owned();
        match decoder["decoders"].as_array() {
            Some(parts) => parts.iter().map(kind).collect::<Vec<_>>().join(" + "),
            None => kind(&decoder),
        }
    }

    /// The tokenizer of the crate `tokenizers`, without truncation and padding.
    pub(crate) fn raw(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.vocabulary.get(&id).map(String::as_str)
    }

    /// The special ids.
    pub fn special(&self) -> Special {
        self.special
    }

    /// The longest sequence that the model takes, where `tokenizer_config.json` says so.
    pub fn model_max_length(&self) -> Option<usize> {
        // Files without a limit say 10³⁰.
        let length = self.config["model_max_length"].as_u64()?;
        usize::try_from(length).ok().filter(|&length| length <= LONGEST_SEQUENCE)
    }

    /// Files of a saved model folder, by name, that `AutoTokenizer` loads.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }
}

/// The first id at which `left` and `right` differ; `None` if they have one vocabulary.
pub fn first_difference(left: &Tokenizer, right: &Tokenizer) -> Option<Difference> {
    let size = left.vocab_size().max(right.vocab_size()) as u32;
    (0..size).find(|&id| left.token(id) != right.token(id)).map(|id| Difference {
        id,
        left: left.token(id).map(str::to_owned),
        right: right.token(id).map(str::to_owned),
    })
}

impl Special {
    fn find(inner: &tokenizers::Tokenizer, config: &Value) -> Self {
        let id = |key: &str, usual: &[&str]| {
            // A special token is a string, or an object with its content.
            let named = config[key].as_str().or_else(|| config[key]["content"].as_str());
            named.iter().chain(usual).find_map(|token| inner.token_to_id(token))
        };
        Self {
            pad: id("pad_token", &["[PAD]", "<pad>"]),
            cls: id("cls_token", &["[CLS]", "<s>"]),
            sep: id("sep_token", &["[SEP]", "</s>"]),
            mask: id("mask_token", &["[MASK]", "<mask>"]),
            unk: id("unk_token", &["[UNK]", "<unk>"]),
        }
    }
}

const TOKENIZER: &str = "tokenizer.json";
const VOCABULARY: &str = "vocab.txt";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_MAP: &str = "special_tokens_map.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Ids from here on are damage: the largest vocabularies of today have 2¹⁸ tokens, and a table
/// over all ids must fit in memory.
const MOST_IDS: u32 = 1 << 24;

/// Longest word that WordPiece takes apart, in characters; `max_input_chars_per_word` of BERT.
const LONGEST_WORD: u32 = 100;

fn find(folder: &Path) -> Result<PathBuf, Error> {
    let files = [TOKENIZER, VOCABULARY].map(|name| folder.join(name));
    let found = files.into_iter().find(|file| file.is_file());
    found.ok_or_else(|| Error::NoTokenizer { folder: folder.to_owned() })
}

fn optional(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let file = folder.join(name);
    match fs::read(&file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(reading(&file)(error)),
    }
}

fn settings(file: &Path, config: Option<&[u8]>) -> Result<Value, Error> {
    let Some(bytes) = config else { return Ok(json!({})) };
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Tokenizer { file: file.to_owned(), reason: error.to_string() })
}

pub(crate) fn refused(error: tokenizers::Error) -> Error {
    Error::Encode { reason: error.to_string() }
}

/// The JSON of a tokenizer with `model.type`, and whether it had to be put in.
fn modern(bytes: &[u8]) -> Result<(Value, bool), String> {
    let mut json: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let Some(model) = json.get_mut("model").and_then(Value::as_object_mut) else {
        return Err("it has no `model`".to_owned());
    };
    if model.contains_key("type") {
        return Ok((json, false));
    }
    // Files written before 2020 leave the type to the keys.
    let word_piece = ["continuing_subword_prefix", "max_input_chars_per_word"];
    let kind = if model.contains_key("merges") {
        "BPE"
    } else if word_piece.iter().any(|key| model.contains_key(*key)) {
        "WordPiece"
    } else {
        return Err("`model.type` is missing, and the keys of `model` do not tell it".to_owned());
    };
    model.insert("type".to_owned(), kind.into());
    Ok((json, true))
}

/// Refuses a template with a special token that it does not define: the `tokenizers` crate takes it
/// and panics at the first text.
fn check_templates(processor: &Value) -> Result<(), String> {
    for part in processor["processors"].as_array().into_iter().flatten() {
        check_templates(part)?;
    }
    let pieces = ["single", "pair"].map(|form| processor[form].as_array());
    for piece in pieces.into_iter().flatten().flatten() {
        let token = &piece["SpecialToken"]["id"];
        let defined = token.as_str().is_none_or(|id| processor["special_tokens"].get(id).is_some());
        if !defined {
            return Err(format!("the post-processor uses {token} without defining it"));
        }
    }
    Ok(())
}

/// The JSON of the tokenizer of BERT for the lines of a `vocab.txt`.
fn from_vocabulary(bytes: &[u8], lowercase: bool) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut vocabulary = serde_json::Map::new();
    for (line, id) in text.lines().zip(0u32..) {
        let token = line.trim_end_matches('\r');
        // A token on two lines means the later one, as in BERT's own reader.
        vocabulary.insert(token.to_owned(), id.into());
    }
    let id = |token: &str| vocabulary.get(token).and_then(Value::as_u64);
    let ids: Option<Vec<u64>> = ["[CLS]", "[SEP]", "[UNK]"].into_iter().map(id).collect();
    let Some([cls, sep, _]) = ids.as_deref() else {
        return Err("it needs the lines [CLS], [SEP] and [UNK]".to_owned());
    };
    let added: Vec<Value> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .into_iter()
        .filter_map(|token| id(token).map(|id| (token, id)))
        .map(|(token, id)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let mut added = added;
    added.sort_by_key(|token| token["id"].as_u64());
    let special = |token: &str, part: u32| json!({"SpecialToken": {"id": token, "type_id": part}});
    let sequence = |name: &str, part: u32| json!({"Sequence": {"id": name, "type_id": part}});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)],
            "pair": [
                special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0),
                sequence("B", 1), special("[SEP]", 1),
            ],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [cls], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [sep], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": LONGEST_WORD, "vocab": vocabulary,
        },
    }))
}

fn lines_of(vocabulary: &BTreeMap<u32, String>) -> Vec<u8> {
    let size = vocabulary.last_key_value().map_or(0, |(&id, _)| id + 1);
    // A hole in the ids needs a line of its own, or all later tokens move.
    let line =
        |id| vocabulary.get(&id).map_or_else(|| format!("[unused_hole_{id}]"), String::clone);
    (0..size).flat_map(|id| (line(id) + "\n").into_bytes()).collect()
}

/// A `tokenizer_config.json` for a tokenizer that came without one.
fn own_config(config: &Value, special: &Special, vocabulary: &BTreeMap<u32, String>) -> Value {
    let mut own = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
    if let Some(lowercase) = config["do_lower_case"].as_bool() {
        own["do_lower_case"] = lowercase.into();
        own["tokenizer_class"] = "BertTokenizer".into();
    }
    let tokens = [
        ("pad_token", special.pad),
        ("cls_token", special.cls),
        ("sep_token", special.sep),
        ("mask_token", special.mask),
        ("unk_token", special.unk),
    ];
    for (key, id) in tokens {
        if let Some(token) = id.and_then(|id| vocabulary.get(&id)) {
            own[key] = token.as_str().into();
        }
    }
    own
}

fn digest_of(
    inner: &tokenizers::Tokenizer,
    vocabulary: &BTreeMap<u32, String>,
) -> Result<Digest, String> {
    let mut hasher = Hasher::new();
    for (id, token) in vocabulary {
        hasher.part(&id.to_le_bytes()).part(token.as_bytes());
    }
    let added: BTreeMap<u32, tokenizers::AddedToken> =
        inner.get_added_tokens_decoder().into_iter().collect();
    let mut model = as_json(inner.get_model())?;
    if let Some(model) = model.as_object_mut() {
        // The vocabulary is in already, without regard to its order in the file.
        model.remove("vocab");
    }
    let parts = [
        model,
        as_json(&inner.get_normalizer())?,
        as_json(&inner.get_pre_tokenizer())?,
        as_json(&inner.get_post_processor())?,
        as_json(&added)?,
    ];
    for part in &parts {
        hasher.part(sorted(part).to_string().as_bytes());
    }
    Ok(hasher.digest())
}

fn as_json(part: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(part).map_err(|error| error.to_string())
}

/// `value` with the keys of all objects in alphabetical order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let ordered: BTreeMap<&String, Value> =
                object.iter().map(|(key, value)| (key, sorted(value))).collect();
            ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect()
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
