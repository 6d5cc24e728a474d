//! What a document's text is, and which of it is to be foreseen.
//!
//! In: what a file holds. Out: one text, and the parts of it that are learnt.
//! Never: tokens; they come later, and a part is bytes of the text.

use std::ops::Range;

use serde_json::{Map, Value, json};

use super::chat::{self, Chat};
use super::documents::Content;
use super::{Reading, Shape, TextError};
use crate::error::{Error, Problem};

/// A text, and what is learnt of it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) text: String,
    /// Bytes that are to be foreseen; without it all are.
    pub(crate) learnt: Option<Vec<Range<usize>>>,
}

/// Makes texts of what files hold.
pub(crate) struct Prepare {
    shape: Shape,
    chat: Option<Chat>,
}

impl Prepare {
    pub(crate) fn new(reading: &Reading) -> Result<Self, Error> {
        let chat = reading.template.as_ref().map(Chat::new).transpose()?;
        let needs_one = matches!(reading.shape, Shape::Messages { .. } | Shape::Instruction { .. });
        if needs_one && chat.is_none() {
            return Err(TextError::NoTemplate { known: chat::names() }.into());
        }
        if matches!(reading.shape, Shape::Text { .. }) && chat.is_some() {
            return Err(TextError::NoConversation.into());
        }
        Ok(Self { shape: reading.shape.clone(), chat })
    }

    pub(crate) fn document(&self, content: &Content) -> Result<Prepared, Problem> {
        let fields = match content {
            Content::Text(text) => return Ok(Prepared { text: text.clone(), learnt: None }),
            Content::Fields(fields) => fields,
        };
        match &self.shape {
            Shape::Text { field } => {
                Ok(Prepared { text: text(fields, field).to_owned(), learnt: None })
            }
            Shape::Messages { field } => {
                let messages = fields.get(field).and_then(Value::as_array);
                self.chat(messages.map_or(&[], Vec::as_slice), 0)
            }
            Shape::Instruction { instruction, input, output } => {
                let [instruction, input, output] =
                    [instruction, input, output].map(|field| text(fields, field));
                self.chat(&chat::instruction(instruction, input, output), 0)
            }
            Shape::Completion { prompt, completion } => {
                self.completion(&fields[prompt], &fields[completion])
            }
        }
    }

    fn chat(&self, messages: &[Value], from: usize) -> Result<Prepared, Problem> {
        let chat = self.chat.as_ref().ok_or(Problem::NoTemplate)?;
        chat.text(messages, from)
    }

    /// Without a template the completion follows the prompt as it is; with one, both are messages.
    fn completion(&self, prompt: &Value, completion: &Value) -> Result<Prepared, Problem> {
        if let (Some(prompt), Some(completion), None) =
            (prompt.as_str(), completion.as_str(), &self.chat)
        {
            let text = format!("{prompt}{completion}");
            let learnt = prompt.len()..text.len();
            if learnt.is_empty() {
                return Err(Problem::NothingLearnt);
            }
            return Ok(Prepared { text, learnt: Some(vec![learnt]) });
        }
        let messages = |value: &Value, role: &str| match value {
            Value::Array(messages) => messages.clone(),
            text => vec![json!({ "role": role, "content": text })],
        };
        let mut all = messages(prompt, "user");
        let from = all.len();
        all.extend(messages(completion, "assistant"));
        self.chat(&all, from)
    }
}

/// A field's text; a field that may be absent is then empty.
fn text<'a>(fields: &'a Map<String, Value>, field: &str) -> &'a str {
    fields.get(field).and_then(Value::as_str).unwrap_or_default()
}
