//! Tokens of a running text, and which of its bytes each stands for.
//!
//! In: one text. Out: its tokens without special ones, where each lies, and bytes that add up to
//! the text's.
//! Never: counts a byte twice, or leaves one out.

use tokenizers::EncodeInput;

use super::{Tokenizer, refused};
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
    /// is written out in the text is found, as in `transformers`.
    ///
    /// # Errors
    /// Where the tokenizer says no.
    pub fn encode_text(&self, text: &str) -> Result<TextTokens, Error> {
        let encoding = self.inner.encode(EncodeInput::from(text), false).map_err(refused)?;
        let spans = encoding.get_offsets().to_vec();
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
        Ok(TextTokens { ids: encoding.get_ids().to_vec(), spans, bytes })
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// What `tokenizer_config.json` says of the token under `key`, as `eos_token`.
    pub fn named(&self, key: &str) -> Option<&str> {
        self.config[key].as_str().or_else(|| self.config[key]["content"].as_str())
    }

    /// Tokens that are added to the vocabulary for their meaning, by id.
    pub fn special_tokens(&self) -> std::collections::BTreeMap<u32, String> {
        let added = self.inner.get_added_tokens_decoder();
        added
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, t)| (id, t.content))
            .collect()
    }
}
