//! The command `grow` on decoders: what it predicts is measured, and what it writes goes on with the
//! same text.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;

use heirloom::grow::{Change, Small};
use heirloom_growth::{GrowthPlan, Level, Method, Target};
use serde_json::Value;

mod place;

use place::Place;

/// Every family, tied and untied, one or several queries per key head, with windows and scaled
/// positions. Hidden size 16, 2 layers.
const CASES: [&str; 10] = [
    "gpt2",
    "gpt2-untied",
    "llama",
    "llama-biases",
    "llama-yarn",
    "llama3-tied",
    "mistral-window",
    "qwen2-tied",
    "qwen2-windows",
    "qwen3",
];

/// A place with `m/`: a decoder of the fixtures and a tokenizer that takes words apart into letters.
fn place(case: &str) -> Place {
    let place = Place::with_data();
    fs::create_dir(place.path("m")).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(case);
    for name in ["config.json", "model.safetensors"] {
        fs::copy(from.join(name), place.path("m").join(name)).unwrap();
    }
    let mut words: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "the"].map(String::from).into();
    words.extend(('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]));
    place.write("m/vocab.txt", &(words.join("\n") + "\n"));
    place
}

/// Exit code, stdout, stderr.
fn run(place: &Place, line: &str) -> (i32, String, String) {
    let arguments: Vec<&str> = line.split_whitespace().chain(["--threads", "1"]).collect();
    let output = place.command(&arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn json(place: &Place, line: &str) -> Value {
    let (code, out, err) = run(place, &format!("{line} --json"));
    assert_eq!((code, err.as_str()), (0, ""), "{line}\n{out}");
    serde_json::from_str(&out).unwrap()
}

fn config(place: &Place, folder: &str) -> Value {
    let text = fs::read_to_string(place.path(folder).join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// How large a change is against the outputs.
fn relative(change: &Change) -> f64 {
    change.largest_change / change.largest_output
}

fn measured(small: &Small, plan: &GrowthPlan, out: &Path) -> Change {
    let before = small.outputs(1).unwrap();
    small.grow(plan, out).unwrap();
    small.measure(&before, plan, out, 1).unwrap()
}

#[test]
fn every_method_changes_every_family_as_it_predicts() {
    let none = Target::default();
    let targets = [
        Target { hidden: Some(32), layers: Some(4), ..none },
        Target { hidden: Some(24), intermediate: Some(80), ..none },
        Target { layers: Some(3), ..none },
        Target { layers: Some(4), ..none },
    ];
    let (mut exact, mut other) = (0, 0);
    for case in CASES {
        let place = place(case);
        let small = Small::open(&place.path("m")).unwrap();
        for (method, name) in Method::NAMES {
            for (at, target) in targets.iter().enumerate() {
                // Some grow depth alone, some by whole copies alone.
                let Ok(plan) = method.plan(small.anatomy(), target, 1) else { continue };
                let level = plan.predict(small.anatomy()).level;
                let change = measured(&small, &plan, &place.path(&format!("{name}-{at}")));
                let what = format!("{case} {name} {target:?}: {level:?}, {change:?}");
                assert!(change.largest_output > 0.05, "{what}");
                if level == Level::Exact {
                    // Single precision over four small layers.
                    assert!(relative(&change) < 1e-5, "{what}");
                    exact += 1;
                } else {
                    assert!(relative(&change) > 1e-4, "{what}");
                    other += 1;
                }
            }
        }
    }
    assert!(exact >= 15 * CASES.len() && other >= 10 * CASES.len(), "{exact} exact, {other} not");
}

#[test]
fn a_grown_decoder_goes_on_with_the_same_text() {
    for case in CASES {
        let place = place(case);
        let result = json(&place, "grow m --hidden 32 --layers 5 --out grown");
        assert_eq!(result["predicted"]["level"], "exact", "{case}");
        let next = &result["measured"]["next_tokens"];
        assert!(next["places"].as_u64().unwrap() > 100, "{case}: {result}");
        assert_eq!(next["same"], next["places"], "{case}");
        let (code, said, _) = run(&place, "verify grown");
        assert!(code == 0 && said.contains("`grown` is whole"), "{case}: {said}");
        let text = |model: &str| {
            let flags = "--prompt the --prompt abc --new-tokens 24 --json";
            run(&place, &format!("generate {model} {flags}"))
        };
        let (small, grown) = (text("m"), text("grown"));
        assert_eq!((small.0, small.2.as_str()), (0, ""), "{case}");
        assert_eq!(small, grown, "{case}");
        // What has grown grows again.
        json(&place, "grow grown --hidden 64 --method pad --out twice");
        assert_eq!(small, text("twice"), "{case}");
    }
}

#[test]
fn the_config_says_what_the_decoder_has_become() {
    let rows = [
        ("gpt2", "n_layer n_embd n_head", "3 32 8"),
        ("gpt2-untied", "n_inner n_embd tie_word_embeddings", "80 32 false"),
        ("llama", "num_attention_heads num_key_value_heads head_dim", "8 4 4"),
        ("llama-yarn", "num_attention_heads num_key_value_heads head_dim", "8 4 8"),
        ("mistral-window", "num_attention_heads num_key_value_heads sliding_window", "8 2 4"),
        ("qwen2-tied", "intermediate_size tie_word_embeddings rms_norm_eps", "48 true 1e-6"),
        ("qwen3", "num_hidden_layers head_dim dtype", "3 8 \"float32\""),
    ];
    for (case, keys, want) in rows {
        let place = place(case);
        json(&place, "grow m --hidden 32 --layers 3 --out grown");
        let config = config(&place, "grown");
        let found: Vec<String> = keys.split(' ').map(|key| config[key].to_string()).collect();
        assert_eq!(found.join(" "), want, "{case}: {keys}");
    }
    // Layer by layer, as the plan has them: the second is copied.
    let place = place("qwen2-windows");
    json(&place, "grow m --layers 3 --out grown");
    let windows = ["full_attention", "sliding_attention", "sliding_attention"];
    assert_eq!(config(&place, "grown")["layer_types"], serde_json::json!(windows));
    // A padded layer norm needs a head of its own, and its ε makes up for zeros.
    let place = self::place("gpt2");
    json(&place, "grow m --hidden 24 --method pad --out grown");
    let config = config(&place, "grown");
    assert_eq!(config["tie_word_embeddings"], false);
    assert!((config["layer_norm_epsilon"].as_f64().unwrap() - 1e-5 * 16.0 / 24.0).abs() < 1e-12);
}

#[test]
fn key_heads_grow_apart_from_query_heads() {
    let place = place("llama");
    let result = json(&place, "grow m --heads 8 --kv-heads 2 --out grown");
    assert_eq!((&result["to"]["kv_heads"], &result["to"]["group"]), (&2.into(), &4.into()));
    assert_eq!(result["predicted"]["level"], "exact");
    assert!(result["measured"]["largest_change"].as_f64().unwrap() < 1e-5, "{result}");
    let config = config(&place, "grown");
    assert_eq!(
        (&config["num_attention_heads"], &config["num_key_value_heads"]),
        (&8.into(), &2.into())
    );
}

#[test]
fn a_decoder_is_measured_by_its_next_tokens() {
    let place = place("mistral-window");
    let (code, said, err) = run(&place, "grow m --layers 4 --method stack --out grown");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        said.starts_with("from 2 layers, hidden 16, 4 heads of 4 (1 of keys and values), "),
        "{said}"
    );
    assert!(said.contains("\npredicted: it does not compute what the small model did\n"), "{said}");
    assert!(said.contains("\nmeasured on 6 sentences: next-token logits up to "), "{said}");
    assert!(said.contains("; the most probable token is the same at "), "{said}");
    assert!(said.ends_with(" places\nwrote `grown`\n"), "{said}");
}

#[test]
fn how_a_decoder_generates_is_kept() {
    let place = place("llama");
    place.write("m/generation_config.json", "{\"eos_token_id\": 3}\n");
    json(&place, "grow m --layers 3 --out grown");
    let kept = fs::read_to_string(place.path("grown/generation_config.json")).unwrap();
    assert_eq!(kept, "{\"eos_token_id\": 3}\n");
}

#[test]
fn decoders_that_cannot_grow_are_refused_with_both_sizes() {
    let rows = [
        (
            "llama",
            "--layers 1",
            "the number of layers cannot go from 2 to 1: growing takes no layers away",
        ),
        (
            "qwen3",
            "--hidden 8",
            "the hidden size cannot go from 16 to 8: growing takes no units away",
        ),
        (
            "llama",
            "--kv-heads 1",
            "the number of key and value heads cannot go from 2 to 1: key and value heads must divide the 4 heads and not shrink",
        ),
        (
            "llama",
            "--hidden 32 --heads 6 --kv-heads 3",
            "the hidden size cannot go from 16 to 32: in LLaMA it is a multiple of the 6 heads; name others",
        ),
        (
            "gpt2",
            "--hidden 32 --kv-heads 4",
            "the number of key and value heads cannot go from 4 to 4: in this family they are as many as the heads of queries, 8",
        ),
        (
            "gpt2",
            "--hidden 18",
            "the hidden size cannot go from 16 to 18: it is no multiple of the head size 4; name the heads",
        ),
        (
            "mistral-window",
            "--hidden 24 --method hypercloning",
            "the hidden size cannot go from 16 to 24: whole copies need a multiple; use `select`, `split` or `pad`",
        ),
    ];
    for (case, flags, want) in rows {
        let place = place(case);
        let (code, out, err) = run(&place, &format!("grow m {flags} --out grown"));
        assert_eq!(
            (code, out.as_str(), err.as_str()),
            (2, "", format!("error: {want}\n").as_str())
        );
        assert!(!place.path("grown").exists(), "{case} {flags}");
    }
}

#[test]
fn what_is_no_model_that_grows_is_refused_with_the_families() {
    let place = place("llama");
    place.write("m/config.json", "{\"model_type\": \"t5\"}");
    let (code, _, err) = run(&place, "grow m --layers 3 --out grown");
    let want = "`model_type` is \"t5\", expected one of bert, roberta, distilbert, xlm-roberta, camembert, gpt2, llama, mistral, qwen2, qwen3\n";
    assert!(code == 3 && err.ends_with(want), "{err}");
    place.write("m/config.json", "[]");
    let (code, _, err) = run(&place, "grow m --layers 3 --out grown");
    assert!(code == 3 && err.contains("not a model config: expected an object"), "{err}");
    fs::remove_file(place.path("m/config.json")).unwrap();
    let (code, _, err) = run(&place, "grow m --layers 3 --out grown");
    assert!(code == 3 && err.contains("cannot read `m/config.json`"), "{err}");
}
