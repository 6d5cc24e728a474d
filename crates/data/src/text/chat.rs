//! Chat templates: which there are, and what a conversation becomes under one.
//!
//! In: a template and a conversation. Out: its text, and which of it the assistant said.
//! Never: a guess. Where the two renderings that a mask is read from do not fit, the example is
//! refused with the place.
//!
//! What the assistant said is found in one of two ways. A template with `{% generation %}` says it
//! itself. Under any other, the messages before a reply are rendered with the prompt for a
//! generation, then those and the reply without: what the second text has more than the first is
//! the reply, with the token that ends it. Blanks after that are not learnt.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::TextError;
use super::prepare::Prepared;
use super::template::{BEGIN, END, Template};
use crate::error::{Error, Problem};
use crate::tokens::Tokenizer;

/// A chat template with what it may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatTemplate {
    /// The template, in Jinja.
    pub source: String,
    /// Special tokens by the names that templates use, as `eos_token`.
    pub tokens: BTreeMap<String, String>,
    /// Today, for templates that say the date: `2024-07-26`. Without it they are refused, since
    /// what a model reads would depend on the day.
    pub date: Option<String>,
}

/// Templates that come with the program.
const BUILT_IN: [(&str, &str); 2] = [
    (
        "chatml",
        "{% for message in messages %}\
         {{ '<|im_start|>' + message['role'] + '\\n' }}\
         {% if message['role'] == 'assistant' %}\
         {% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}\
         {% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}\
         {{ '\\n' }}\
         {% endfor %}\
         {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    ),
    // The prompt of Alpaca (Taori et al. 2023), with and without input.
    (
        "alpaca",
        "{% for message in messages %}\
         {% if message['role'] == 'assistant' %}\
         {% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}\
         {% if not loop.last %}{{ '\\n\\n' }}{% endif %}\
         {% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}\
         {% else %}\
         {% if loop.first %}\
         {% if message['input'] %}\
         {{ 'Below is an instruction that describes a task, paired with an input that provides \
         further context. Write a response that appropriately completes the request.\\n\\n' }}\
         {% else %}\
         {{ 'Below is an instruction that describes a task. Write a response that appropriately \
         completes the request.\\n\\n' }}\
         {% endif %}{% endif %}\
         {{ '### Instruction:\\n' + (message['instruction'] or message['content']) + '\\n\\n' }}\
         {% if message['input'] %}{{ '### Input:\\n' + message['input'] + '\\n\\n' }}{% endif %}\
         {{ '### Response:\\n' }}\
         {% endif %}{% endfor %}",
    ),
];

impl ChatTemplate {
    /// The template of a tokenizer: `chat_template.jinja` beside it, or `chat_template` of its
    /// `tokenizer_config.json`, of several the one called `default`.
    ///
    /// # Errors
    /// Where it has none.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, Error> {
        match tokenizer.chat_template() {
            Some(source) => Ok(Self::new(source, tokenizer)),
            None => Err(TextError::NoTemplate { known: names() }.into()),
        }
    }

    /// A template that comes with the program: `chatml` or `alpaca`.
    ///
    /// # Errors
    /// Where none has this name.
    pub fn named(name: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, source)) => Ok(Self::new(*source, tokenizer)),
            None => {
                let name = name.to_owned();
                Err(TextError::UnknownTemplate { name, known: names() }.into())
            }
        }
    }

    /// A template of one's own.
    pub fn new(source: impl Into<String>, tokenizer: &Tokenizer) -> Self {
        let keys = [
            "bos_token",
            "eos_token",
            "unk_token",
            "sep_token",
            "pad_token",
            "cls_token",
            "mask_token",
        ];
        let token = |key: &str| Some((key.to_owned(), tokenizer.named(key)?));
        let tokens = keys.into_iter().filter_map(token).collect();
        Self { source: source.into(), tokens, date: None }
    }

    /// The text of a conversation, with the beginning of a reply where `prompt` says so: what a
    /// model is asked to go on with.
    ///
    /// # Errors
    /// Where the template cannot be used or refuses the conversation.
    pub fn render(&self, messages: &[Value], prompt: bool) -> Result<String, Error> {
        let template = Template::new(self).map_err(|reason| TextError::Template { reason })?;
        let text = template.render(messages, prompt);
        let text = text.map_err(|problem| TextError::Conversation(Box::new(problem)))?;
        Ok(text.replace([BEGIN, END], ""))
    }

    /// The same with a date.
    pub fn on(self, date: impl Into<String>) -> Self {
        Self { date: Some(date.into()), ..self }
    }
}

/// Names of the templates that come with the program.
pub(crate) fn names() -> Vec<String> {
    BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// Conversations to texts.
pub(crate) struct Chat {
    template: Template,
}

impl Chat {
    pub(crate) fn new(template: &ChatTemplate) -> Result<Self, Error> {
        Template::new(template)
            .map(|template| Self { template })
            .map_err(|reason| TextError::Template { reason }.into())
    }

    /// The text of `messages`; what is learnt is what the assistant says from message number
    /// `from` on.
    pub(crate) fn text(&self, messages: &[Value], from: usize) -> Result<Prepared, Problem> {
        for (message, number) in messages.iter().zip(1..) {
            let wrong = |reason: &str| Problem::Message { number, reason: reason.to_owned() };
            if !message["role"].is_string() {
                return Err(wrong("`role` is not text"));
            }
            if message["content"].as_str().is_some_and(|text| text.contains([BEGIN, END])) {
                return Err(wrong("U+FDD0 or U+FDD1 in it, which are no characters"));
            }
        }
        let replies = (from..messages.len()).filter(|&at| messages[at]["role"] == "assistant");
        let prepared = if self.template.marks() {
            let marked = self.template.render(messages, false)?;
            let before = match from {
                0 => 0,
                // Marks of the earlier messages are the first ones.
                _ => messages[..from].iter().filter(|m| m["role"] == "assistant").count(),
            };
            let Prepared { text, learnt } = unmarked(&marked);
            let learnt = learnt.map(|spans| spans.into_iter().skip(before).collect());
            Prepared { text, learnt }
        } else {
            let text = self.template.render(messages, false)?;
            let learnt =
                replies.map(|at| self.reply(messages, at, &text)).collect::<Result<_, _>>()?;
            Prepared { text, learnt: Some(learnt) }
        };
        let spans = prepared.learnt.iter().flatten();
        if spans.map(Range::len).sum::<usize>() == 0 {
            return Err(Problem::NothingLearnt);
        }
        Ok(prepared)
    }

    /// Where in the whole `text` the reply number `at` is.
    fn reply(&self, messages: &[Value], at: usize, text: &str) -> Result<Range<usize>, Problem> {
        let before = self.template.render(&messages[..at], true)?;
        let after = self.template.render(&messages[..=at], false)?;
        fits(&before, &after, at)?;
        fits(&after, text, at)?;
        let said = &after[before.len()..];
        Ok(before.len()..before.len() + said.trim_end().len())
    }
}

/// Refuses a `part` that is not the beginning of `whole`.
fn fits(part: &str, whole: &str, at: usize) -> Result<(), Problem> {
    if whole.starts_with(part) {
        return Ok(());
    }
    let same = part.chars().zip(whole.chars()).take_while(|(left, right)| left == right).count();
    let shown = |text: &str| text.chars().skip(same).take(20).collect();
    Err(Problem::Prefix {
        number: at + 1,
        character: same + 1,
        found: shown(whole),
        expected: shown(part),
    })
}

/// `marked` without its marks, and what lay between them.
fn unmarked(marked: &str) -> Prepared {
    let (mut text, mut spans, mut begin) = (String::with_capacity(marked.len()), Vec::new(), None);
    for char in marked.chars() {
        match char {
            BEGIN => begin = Some(text.len()),
            END => spans.extend(begin.take().map(|begin| begin..text.len())),
            char => text.push(char),
        }
    }
    Prepared { text, learnt: Some(spans) }
}

/// Alpaca's fields as a conversation: instruction and input are one message, which keeps both
/// apart for templates that ask.
pub(crate) fn instruction(instruction: &str, input: &str, output: &str) -> Vec<Value> {
    let input = input.trim();
    let content = match input {
        "" => instruction.to_owned(),
        input => format!("{instruction}\n\n{input}"),
    };
    let asked =
        json!({ "role": "user", "content": content, "instruction": instruction, "input": input });
    vec![asked, json!({ "role": "assistant", "content": output })]
}
