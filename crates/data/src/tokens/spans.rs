//! Tokens of a running text, and which of its bytes each stands for.
//!
//! In: one text. Out: its tokens without special ones, where each lies, and bytes that add up to
//! the text's.
//! Never: counts a byte twice, or leaves one out.

use std::collections::BTreeMap;

use serde_json::Value;

use super::long::{self, Run};
use super::{CHAT_TEMPLATE, SPECIAL_MAP, Tokenizer, as_json};
use crate::error::Error;

/// A text's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextTokens {
    /// Tokens, `[n]`.
    pub ids: Vec<u32>,
    /// First byte of each token's characters in the text and one past the last, `[n]`. Tokens that
    /// are parts of one character all have the whole character.
    pub spans: Vec<(usize, usize)>,
    /// Bytes of the text that each token stands for, `[n]`. What lies between two tokens (blanks,
    /// in a tokenizer that drops them) is the later one's, what follows the last is the last's, and
    /// a character of several tokens is the first one's; so the sum is the length of the text.
    pub bytes: Vec<usize>,
}

impl Tokenizer {
    /// The tokens of `text` as it stands: nothing is cut, and no special token is added. One that
    /// is written out in the text is found, as in `transformers`. A long text is taken apart, on
    /// all threads, and has the tokens that it has as a whole.
    ///
    /// # Errors
    /// Where the tokenizer says no.
    pub fn encode_text(&self, text: &str) -> Result<TextTokens, Error> {
        let Run { ids, spans } = long::run(self, text, long::Parts::USUAL)?;
        let mut reached = 0;
        let mut bytes: Vec<usize> = spans
            .iter()
            .map(|&(_, end)| {
                let before = reached;
                reached = reached.max(end);
                reached - before
            })
            .collect();
        if let Some(last) = bytes.last_mut() {
            *last += text.len() - reached;
        }
        Ok(TextTokens { ids, spans, bytes })
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The special token under a name of `tokenizer_config.json` or `special_tokens_map.json`, as
    /// `eos_token`.
    pub fn named(&self, key: &str) -> Option<String> {
        let of = |value: &Value| {
            value[key].as_str().or_else(|| value[key]["content"].as_str()).map(str::to_owned)
        };
        let map = || serde_json::from_slice(self.files.get(SPECIAL_MAP)?).ok();
        of(&self.config).or_else(|| of(&map()?))
    }

    /// The chat template: a file beside the tokenizer, or what `tokenizer_config.json` says; of
    /// several the one called `default`.
    pub fn chat_template(&self) -> Option<String> {
        if let Some(bytes) = self.files.get(CHAT_TEMPLATE) {
            return Some(String::from_utf8_lossy(bytes).into_owned());
        }
        let found = &self.config["chat_template"];
        let named = found.as_array().into_iter().flatten();
        let default =
            named.filter(|one| one["name"] == "default").find_map(|one| one["template"].as_str());
        found.as_str().or(default).map(str::to_owned)
    }

    /// Tokens that are added to the vocabulary for their meaning, by id.
    pub fn special_tokens(&self) -> BTreeMap<u32, String> {
        let added = self.inner.get_added_tokens_decoder();
        added
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, t)| (id, t.content))
            .collect()
    }

    /// How the vocabulary writes the pieces of a word.
    pub fn pieces(&self) -> Pieces {
        if let tokenizers::ModelWrapper::WordPiece(model) = self.inner.get_model() {
            return Pieces::Prefix(model.continuing_subword_prefix.clone());
        }
        let parts = [as_json(&self.inner.get_pre_tokenizer()), as_json(&self.inner.get_decoder())];
        let says = |kind: &str| {
            parts.iter().flatten().any(|part| part.to_string().contains(&format!("\"{kind}\"")))
        };
        if says("ByteLevel") {
            Pieces::Bytes
        } else if says("Metaspace") {
            Pieces::Blanks('▁')
        } else {
            Pieces::Unknown
        }
    }
}

/// How a vocabulary writes the pieces of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// All but the first have a prefix, as `##`.
    Prefix(String),
    /// Bytes as characters: a blank before a word is part of its first piece.
    Bytes,
    /// A word's first piece begins with this mark of a blank.
    Blanks(char),
    /// In a way that is not known here: each token counts as a word.
    Unknown,
}
