//! Jinja as chat templates use it.
//!
//! In: a template, as `transformers` takes it. Out: the text of a conversation, to the character.
//! Never: a file, a clock, or a template that runs for ever.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, Value as Jinja};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Value, json};

use super::ChatTemplate;
use super::date::Date;
use crate::error::Problem;

/// Where what the assistant says begins and ends, in a text rendered from a template with
/// `{% generation %}`: code points that Unicode keeps out of texts.
pub(crate) const BEGIN: char = '\u{FDD0}';
pub(crate) const END: char = '\u{FDD1}';

pub(crate) struct Template {
    environment: Environment<'static>,
    /// Special tokens, in the form that `render` wants.
    tokens: serde_json::Map<String, Value>,
    marks: bool,
}

const NAME: &str = "chat";

/// What a rendering may cost, in minijinja's unit: enough for conversations of megabytes.
const FUEL: u64 = 20_000_000;

impl Template {
    /// A template, or why it is none.
    pub(crate) fn new(chat: &ChatTemplate) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Jinja, _> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let date = chat.date.as_deref().map(Date::parse).transpose()?;
        environment.add_function("strftime_now", move |format: String| {
            let refused =
                |why: &str| minijinja::Error::new(ErrorKind::InvalidOperation, why.to_owned());
            let date = date.as_ref().ok_or_else(|| {
                refused(
                    "the template asks for the date, and none is given; give one, as 2024-07-26",
                )
            })?;
            date.format(&format).map_err(|why| refused(&why))
        });
        let marked = mark(&chat.source);
        let marks = marked.is_some();
        let add = |environment: &mut Environment<'static>, name: &'static str, source: String| {
            environment.add_template_owned(name, source).map_err(|error| said(&error))
        };
        add(&mut environment, MARK_BEGIN, BEGIN.to_string())?;
        add(&mut environment, MARK_END, END.to_string())?;
        add(&mut environment, NAME, marked.unwrap_or_else(|| chat.source.clone()))?;
        let tokens = chat.tokens.iter().map(|(key, token)| (key.clone(), token.as_str().into()));
        Ok(Self { environment, tokens: tokens.collect(), marks })
    }

    /// Whether the template says itself what the assistant said.
    pub(crate) fn marks(&self) -> bool {
        self.marks
    }

    /// The text of `messages`, with or without the beginning of a reply.
    pub(crate) fn render(&self, messages: &[Value], prompt: bool) -> Result<String, Problem> {
        let mut context = self.tokens.clone();
        context.insert("messages".to_owned(), messages.into());
        context.insert("add_generation_prompt".to_owned(), prompt.into());
        for absent in ["tools", "documents"] {
            context.insert(absent.to_owned(), json!(null));
        }
        let refused = |error: minijinja::Error| Problem::Template { reason: said(&error) };
        let template = self.environment.get_template(NAME).map_err(refused)?;
        template.render(Jinja::from(Serde(context))).map_err(refused)
    }
}

fn said(error: &minijinja::Error) -> String {
    let place = error.line().map_or(String::new(), |line| format!(" (line {line})"));
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    format!("{what}{place}")
}

const MARK_BEGIN: &str = "generation";
const MARK_END: &str = "endgeneration";

/// `source` with `{% generation %}` and its end as templates to include, which print the marks. A
/// statement in place of a statement leaves all blanks as they would be. `None` where there is
/// none.
fn mark(source: &str) -> Option<String> {
    let (mut marked, mut rest, mut any) = (String::new(), source, false);
    while let Some(open) = rest.find("{%") {
        let inside = &rest[open + 2..];
        let close = inside.find("%}")?;
        let statement = &inside[..close];
        let name = statement.trim_matches(['-', '+']).trim();
        marked.push_str(&rest[..open]);
        if name == MARK_BEGIN || name == MARK_END {
            any = true;
            let sign = |found: bool| if found { "-" } else { "" };
            let (left, right) = (statement.starts_with('-'), statement.ends_with('-'));
            marked += &format!("{{%{} include '{name}' {}%}}", sign(left), sign(right));
        } else {
            marked.push_str(&rest[open..open + 2 + close + 2]);
        }
        rest = &inside[close + 2..];
    }
    marked.push_str(rest);
    any.then_some(marked)
}

/// What Python's `json.dumps` writes, which is what templates are written for.
fn tojson(value: Jinja, options: Kwargs) -> Result<Jinja, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let wrong = |why: String| minijinja::Error::new(ErrorKind::BadSerialization, why);
    let value = serde_json::to_value(&value).map_err(|error| wrong(error.to_string()))?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(wrong("separators are two".to_owned())),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let writer = JsonWriter {
        indent,
        sorted: sorted.unwrap_or(false),
        ascii: ascii.unwrap_or(false),
        item,
        key,
    };
    let mut text = String::new();
    writer.value(&value, 0, &mut text);
    Ok(text.into())
}

struct JsonWriter {
    indent: Option<usize>,
    sorted: bool,
    ascii: bool,
    item: String,
    key: String,
}

impl JsonWriter {
    fn value(&self, value: &Value, depth: usize, into: &mut String) {
        match value {
            Value::String(text) => self.text(text, into),
            Value::Array(values) if values.is_empty() => into.push_str("[]"),
            Value::Object(fields) if fields.is_empty() => into.push_str("{}"),
            Value::Array(values) => {
                into.push('[');
                for (at, value) in values.iter().enumerate() {
                    self.before(at, depth + 1, into);
                    self.value(value, depth + 1, into);
                }
                self.line(depth, into);
                into.push(']');
            }
            Value::Object(fields) => {
                let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
                if self.sorted {
                    fields.sort_by_key(|(name, _)| *name);
                }
                into.push('{');
                for (at, (name, value)) in fields.into_iter().enumerate() {
                    self.before(at, depth + 1, into);
                    self.text(name, into);
                    into.push_str(&self.key);
                    self.value(value, depth + 1, into);
                }
                self.line(depth, into);
                into.push('}');
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => into.push_str(&value.to_string()),
        }
    }

    fn before(&self, at: usize, depth: usize, into: &mut String) {
        if at > 0 {
            into.push_str(&self.item);
        }
        self.line(depth, into);
    }

    fn line(&self, depth: usize, into: &mut String) {
        if let Some(indent) = self.indent {
            into.push('\n');
            into.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn text(&self, text: &str, into: &mut String) {
        let json = Value::from(text).to_string();
        if !self.ascii {
            // DEL is the one character that JSON's escapes leave to taste; both leave it.
            return into.push_str(&json);
        }
        for char in json.chars() {
            if char.is_ascii() {
                into.push(char);
            } else {
                let mut units = [0; 2];
                for unit in char.encode_utf16(&mut units) {
                    *into += &format!("\\u{unit:04x}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_keep_the_signs_of_their_statement() {
        let source = "a{%- generation -%}b{% endgeneration %}{% if x %}c{% endif %}";
        let want = "a{%- include 'generation' -%}b{% include 'endgeneration' %}\
                    {% if x %}c{% endif %}";
        assert_eq!(mark(source).unwrap(), want);
        assert_eq!(mark("{% if generation %}x{% endif %}"), None);
        assert_eq!(mark("plain"), None);
        assert_eq!(mark("{% open"), None);
    }
}
