//! Conversations: the text of `transformers` to the character, and only replies are learnt.

use std::path::{Path, PathBuf};

use heirloom_data::text::{
    ChatTemplate, Corpus, NOT_LEARNT, OnLong, Pack, PackedRows, Reading, Shape, Shards,
};
use heirloom_data::tokens::Tokenizer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::place::{Place, rows};

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

/// What `transformers` makes of a conversation under a template.
#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    messages: Vec<Value>,
    date: String,
    tokens: std::collections::BTreeMap<String, String>,
    refused: Option<String>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    ids: Vec<u32>,
    mask: Option<Vec<u8>>,
}

fn fixture() -> (Tokenizer, Vec<Case>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat");
    let bytes = std::fs::read(folder.join("cases.json")).unwrap();
    let Fixture { cases } = serde_json::from_slice(&bytes).unwrap();
    (Tokenizer::open(&folder).unwrap(), cases)
}

/// One conversation a line.
fn conversations(place: &Place, all: &[&[Value]]) -> PathBuf {
    let line = |messages: &&[Value]| json!({ "messages": messages }).to_string() + "\n";
    place.write("chat.jsonl", all.iter().map(line).collect::<String>())
}

fn ids(shards: &Shards) -> Vec<u32> {
    (0..shards.about().counts.tokens).map(|at| shards.token(at).id).collect()
}

/// The text that is learnt, a part for each run of tokens.
fn learnt(shards: &Shards, tokenizer: &Tokenizer) -> Vec<String> {
    let mut parts: Vec<Vec<u32>> = vec![vec![]];
    for at in 0..shards.about().counts.tokens {
        let token = shards.token(at);
        match token.learnt {
            true => parts.last_mut().unwrap().push(token.id),
            false => parts.push(vec![]),
        }
    }
    let text = |ids: &Vec<u32>| -> String {
        let text = |id: &u32| match tokenizer.special_tokens().get(id) {
            Some(special) => special.clone(),
            None => tokenizer.decode(&[*id]).unwrap(),
        };
        ids.iter().map(text).collect()
    };
    parts.iter().filter(|part| !part.is_empty()).map(text).collect()
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let (_, cases) = fixture();
    assert!(cases.len() >= 30);
    let mut refused = 0;
    for case in cases {
        let Case { template: source, tokens, date, .. } = case;
        let template = ChatTemplate { source, tokens, date: Some(date) };
        match case.refused {
            Some(reason) => {
                let error = said(template.render(&case.messages, false).unwrap_err());
                assert!(error.contains(&reason), "{}: {error}", case.name);
                refused += 1;
            }
            None => {
                let render = |prompt| template.render(&case.messages, prompt).unwrap();
                assert_eq!(render(false), case.text, "{}", case.name);
                assert_eq!(render(true), case.prompt, "{}", case.name);
            }
        }
    }
    assert_eq!(refused, 1);
}

#[test]
fn marked_replies_are_the_tokens_that_transformers_marks() {
    let (tokenizer, cases) = fixture();
    let mut marked = 0;
    for case in cases {
        let Some(mask) = case.mask else { continue };
        let place = Place::new();
        let file = conversations(&place, &[&case.messages]);
        let Case { template: source, tokens, date, .. } = case;
        let template = ChatTemplate { source, tokens, date: Some(date) };
        let reading = Reading::chat(Shape::messages(), template);
        let shards = place.shards("tokens", &[file], &reading, &tokenizer);
        assert_eq!(ids(&shards), case.ids, "{}", case.name);
        let found: Vec<u8> =
            (0..case.ids.len() as u64).map(|at| shards.token(at).learnt.into()).collect();
        assert_eq!(found, mask, "{}", case.name);
        assert!(mask.contains(&1), "{}", case.name);
        marked += 1;
    }
    assert_eq!(marked, 15);
}

#[test]
fn without_marks_replies_are_what_a_longer_rendering_adds() {
    let (tokenizer, cases) = fixture();
    let want = |name: &str| -> Option<&[&str]> {
        Some(match name {
            "chatml · one" => &["Eight.<|im_end|>"],
            "chatml · turns" => &[
                "4<|im_end|>",
                " It is \"8\" <b>& more</b>. <|im_end|>",
                "You are welcome.<|im_end|>",
            ],
            "llama3 · turns" => &[
                "4<|eot_id|>",
                "It is \"8\" <b>& more</b>.<|eot_id|>",
                "You are welcome.<|eot_id|>",
            ],
            "mistral · system" => &[" Hello, world!</s>"],
            "mistral · turns" => {
                &[" 4</s>", " It is \"8\" <b>& more</b>.</s>", " You are welcome.</s>"]
            }
            _ => return None,
        })
    };
    let mut compared = 0;
    for case in cases {
        let Some(want) = want(&case.name) else { continue };
        let place = Place::new();
        let file = conversations(&place, &[&case.messages]);
        let Case { template: source, tokens, date, .. } = case;
        let template = ChatTemplate { source, tokens, date: Some(date) };
        let reading = Reading::chat(Shape::messages(), template);
        let shards = place.shards("tokens", &[file], &reading, &tokenizer);
        assert_eq!(ids(&shards), case.ids, "{}", case.name);
        assert_eq!(learnt(&shards, &tokenizer), want, "{}", case.name);
        compared += 1;
    }
    assert_eq!(compared, 5);
}

#[test]
fn alpaca_prompts_and_completions_become_examples() {
    let place = Place::new();
    let tokenizer = place.bytes(&[]);
    let file = place.write(
        "alpaca.json",
        r#"[{"instruction": "Add.", "input": "1 1", "output": "2"},
            {"instruction": "Greet.", "input": "", "output": " Hi  you"},
            {"instruction": "Bow.", "output": "é"}]"#,
    );
    let alpaca = ChatTemplate::named("alpaca", &tokenizer).unwrap();
    let reading = Reading::chat(Shape::alpaca(), alpaca);
    let texts = |reading: &Reading| -> Vec<String> {
        let corpus = Corpus::open(std::slice::from_ref(&file), reading.clone()).unwrap();
        corpus.texts().unwrap().map(Result::unwrap).collect()
    };
    let found = texts(&reading);
    assert_eq!(
        found[0],
        "Below is an instruction that describes a task, paired with an input that provides further \
         context. Write a response that appropriately completes the request.\n\n### Instruction:\n\
         Add.\n\n### Input:\n1 1\n\n### Response:\n2<|endoftext|>"
    );
    assert_eq!(
        found[2],
        "Below is an instruction that describes a task. Write a response that appropriately \
         completes the request.\n\n### Instruction:\nBow.\n\n### Response:\né<|endoftext|>"
    );
    let shards = place.shards("alpaca", std::slice::from_ref(&file), &reading, &tokenizer);
    // Blanks at a reply's beginning are learnt too, though this tokenizer's offsets leave them out;
    // a token that is a part of a character cannot be printed alone.
    let want = ["2<|endoftext|>", " Hi  you<|endoftext|>", "\u{fffd}\u{fffd}<|endoftext|>"];
    assert_eq!(learnt(&shards, &tokenizer), want);
    let chatml = ChatTemplate::named("chatml", &tokenizer).unwrap();
    let chatml = Reading::chat(Shape::alpaca(), chatml);
    let found_chatml = texts(&chatml);
    assert_eq!(
        found_chatml[0],
        "<|im_start|>user\nAdd.\n\n1 1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
    );

    let file = place.write("pairs.jsonl", "{\"q\": \"1 + 1 =\", \"a\": \" 2\"}\n");
    let shape = Shape::Completion { prompt: "q".to_owned(), completion: "a".to_owned() };
    let plain = Reading { shape, ..Reading::plain() }.with_end("<|endoftext|>");
    let shards = place.shards("pairs", &[file], &plain, &tokenizer);
    assert_eq!(learnt(&shards, &tokenizer), [" 2<|endoftext|>"]);
    let user = json!({ "role": "user", "content": "a" });
    let reply = |text: &str| json!({ "role": "assistant", "content": text });
    let asked = json!({
        "prompt": [user, reply("earlier"), user], "completion": [reply("later")],
    });
    let file = place.write("lists.jsonl", asked.to_string());
    let chatml = ChatTemplate::named("chatml", &tokenizer).unwrap();
    let reading = Reading::chat(Shape::completion(), chatml);
    let shards = place.shards("lists", std::slice::from_ref(&file), &reading, &tokenizer);
    assert_eq!(learnt(&shards, &tokenizer), ["later<|im_end|>"]);
    // The same without marks in the template.
    let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}\
                  {% if add_generation_prompt %}<assistant>{% endif %}";
    let reading = Reading::chat(Shape::completion(), ChatTemplate::new(source, &tokenizer));
    let shards = place.shards("plain-lists", &[file], &reading, &tokenizer);
    assert_eq!(learnt(&shards, &tokenizer), ["later</>"]);
}

#[test]
fn labels_of_rows_are_replies_and_nothing_else() {
    let place = Place::new();
    let tokenizer = place.bytes(&[]);
    let file =
        place.write("a.jsonl", "{\"q\": \"ab\", \"a\": \"cd\"}\n{\"q\": \"e\", \"a\": \"f\"}\n");
    let shape = Shape::Completion { prompt: "q".to_owned(), completion: "a".to_owned() };
    let reading = Reading { shape, ..Reading::plain() }.with_end("<|endoftext|>");
    let shards = place.shards("tokens", &[file], &reading, &tokenizer);
    let pack = Pack::Whole { on_long: OnLong::Error };
    let packed = PackedRows::new(shards.clone(), &shards.all(), pack, 8).unwrap();
    let found = rows(&packed);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].starts, [0, 5, 8]);
    let none = NOT_LEARNT;
    assert_eq!(found[0].labels, [none, 99, 100, 256, none, 102, 256, none]);
    assert_eq!((found[0].bytes, found[0].learnt()), (3, 5));
}

#[test]
fn conversations_that_cannot_be_used_are_refused_with_their_place() {
    let place = Place::new();
    let tokenizer = place.bytes(&[]);
    let user = |text: &str| json!({ "role": "user", "content": text });
    let reply = |text: &str| json!({ "role": "assistant", "content": text });
    let chatml = ChatTemplate::named("chatml", &tokenizer).unwrap();
    let own = |source: &str| ChatTemplate::new(source, &tokenizer);
    // As templates that drop the thoughts of earlier turns: the last message is written otherwise.
    let rewriting =
        own("{% for m in messages %}[{{ m.role }}]{% if loop.last %}!{% endif %}{{ m.content }};\
         {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}");
    let good = vec![user("a"), reply("b")];
    let rows: [(ChatTemplate, Vec<Value>, &str); 8] = [
        (chatml.clone(), vec![user("a")], "chat.jsonl:2: nothing to learn: there is no reply"),
        (chatml.clone(), vec![], "chat.jsonl:2: nothing to learn"),
        (own("{{ messages[0].content }}"), vec![user("a")], "nothing to learn"),
        (
            chatml.clone(),
            vec![json!({ "content": "a" })],
            "chat.jsonl:2: message 1: `role` is not text",
        ),
        (
            chatml,
            vec![user("a"), reply("b\u{fdd0}")],
            "chat.jsonl:2: message 2: U+FDD0 or U+FDD1 in it",
        ),
        (
            rewriting,
            vec![user("a"), reply("b"), user("c"), reply("d")],
            "message 2 cannot be found in the rendered conversation: what comes before it has \
             \"!a;[assistant]\" at character 7, the whole has \"a;[assistant]!b;\"; the template \
             rewrites earlier messages, so mark its replies with {% generation %}",
        ),
        (
            own("{{ raise_exception('no ' + messages[0].content) }}"),
            good.clone(),
            "chat.jsonl:1: the chat template refuses the conversation: no a (line 1)",
        ),
        (
            own("{{ strftime_now('%Y') }}"),
            good.clone(),
            "the template asks for the date, and none is given; give one, as 2024-07-26",
        ),
    ];
    for (template, messages, want) in rows {
        let file = conversations(&place, &[&good, &messages]);
        let corpus = Corpus::open(&[file], Reading::chat(Shape::messages(), template)).unwrap();
        let folder = place.path("tokens");
        let disk = &heirloom_store::RealDisk;
        let error = said(
            heirloom_data::text::write(disk, &folder, &corpus, &tokenizer, &mut |_| ())
                .unwrap_err(),
        );
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn templates_that_cannot_be_used_are_refused() {
    let place = Place::new();
    let tokenizer = place.bytes(&[]);
    let no_template = "the tokenizer has no chat template; put `chat_template.jinja` beside it, or \
                       name one of `chatml`, `alpaca`";
    assert_eq!(said(ChatTemplate::of(&tokenizer).unwrap_err()), no_template);
    let error = said(ChatTemplate::named("chatlm", &tokenizer).unwrap_err());
    assert_eq!(error, "no chat template is called \"chatlm\"; did you mean `chatml`?");
    let own = |source: &str| ChatTemplate::new(source, &tokenizer);
    let error = said(own("{% for %}").render(&[], false).unwrap_err());
    assert!(error.starts_with("the chat template cannot be used: "), "{error}");
    let error = said(own("x").on("26.7.2024").render(&[], false).unwrap_err());
    assert!(error.contains("the date \"26.7.2024\" is none"), "{error}");
    let endless = "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}x\
                   {% endfor %}{% endfor %}{% endfor %}";
    assert!(own(endless).render(&[], false).is_err());
    assert!(own("{% include '/etc/passwd' %}").render(&[], false).is_err());

    let file = place.write("a.jsonl", "{\"text\": \"x\", \"messages\": []}\n");
    let texts = |reading: Reading| {
        let corpus = Corpus::open(std::slice::from_ref(&file), reading).unwrap();
        said(corpus.texts().err().unwrap())
    };
    let without = Reading { shape: Shape::messages(), ..Reading::plain() };
    assert_eq!(texts(without), no_template);
    let error = texts(Reading::chat(Shape::text(), own("x")));
    assert!(
        error.starts_with("a chat template is given, but documents are plain texts"),
        "{error}"
    );
}

#[test]
fn a_tokenizers_template_is_found_where_it_lies_and_saved_with_it() {
    let place = Place::new();
    place.bytes(&[]);
    let open = || Tokenizer::open(&place.path("bytes")).unwrap();
    let of = || ChatTemplate::of(&open()).unwrap().source;
    let digest = open().digest();
    place.write("bytes/tokenizer_config.json", json!({ "chat_template": "one" }).to_string());
    assert_eq!(of(), "one");
    let several = json!([
        { "name": "tool_use", "template": "two" }, { "name": "default", "template": "three" },
    ]);
    place.write("bytes/tokenizer_config.json", json!({ "chat_template": several }).to_string());
    assert_eq!(of(), "three");
    place.write("bytes/chat_template.jinja", "four");
    assert_eq!(of(), "four");
    assert_eq!(open().files()["chat_template.jinja"], b"four");
    assert_eq!(open().digest(), digest);
    let map = json!({ "eos_token": { "content": "<|other|>" } });
    place.write("bytes/special_tokens_map.json", map.to_string());
    assert_eq!(open().named("eos_token").as_deref(), Some("<|other|>"));
}
