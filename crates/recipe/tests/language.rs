//! Recipes with a `[text]`: what they decide, and what is said of those that cannot work.

use heirloom_base::{Digest, Tokens};
use heirloom_recipe::{
    AnyPlan, Architecture, DecoderShape, FirstPlan, LanguageFacts, LanguageModelFacts,
    LanguagePlan, LanguageShape, LanguageTeacherFacts, LanguageTeacherPlan, Problems,
    TokenDifference, TokenizerFacts, Verdict, change_language, parse, resolve_language,
    smoke_language,
};

const RECIPE: &str = r#"
[text]
kind = "causal"
path = "novels"
train = ["a.txt", "b.txt", "c.txt", "d.txt"]
validation = ["e.txt"]
sequence_length = 256
[tokenizer]
path = "words"
[student]
config = { model_type = "llama", hidden_size = 128, num_hidden_layers = 3, num_attention_heads = 4, num_key_value_heads = 2 }
[teacher]
model = "teacher"
[objective]
divergence = "reverse_kl"
until_overtaken = true
temperature_end = 1.0
[objective.balance]
policy = "schedule"
from = 0.9
to = 0.1
[objective.regularizer]
method = "labo"
[training]
epochs = 2
batch_size = 16
"#;

fn teacher() -> DecoderShape {
    DecoderShape {
        model_type: Architecture::Llama,
        vocab_size: 8000,
        hidden_size: 256,
        num_hidden_layers: 6,
        num_attention_heads: 8,
        num_key_value_heads: 8,
        head_dim: 32,
        intermediate_size: 1024,
        max_position_embeddings: 512,
        rope_theta: 1e4,
        tie_word_embeddings: true,
        layer_norm_eps: 1e-6,
        initializer_range: 0.02,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
    }
}

fn facts(recipe: &heirloom_recipe::Recipe) -> LanguageFacts {
    let tokenizer = TokenizerFacts { vocab_size: 8000, digest: Digest::of(b"words") };
    LanguageFacts {
        text: recipe.text().expect("a text"),
        train_rows: 1000,
        train_tokens: Tokens(256_000),
        steps_per_epoch: None,
        validation_rows: 40,
        data: Digest::of(b"rows"),
        tokenizer,
        student: None,
        teacher: Some(LanguageModelFacts {
            shape: LanguageShape::Decoder(teacher()),
            digest: Digest::of(b"teacher"),
        }),
        teacher_tokenizer: Some(tokenizer),
        kept: None,
        grown: None,
        first_difference: None,
        other_teachers: Vec::new(),
        threads: 2,
    }
}

fn plan_with(change: impl Fn(&mut LanguageFacts)) -> Result<LanguagePlan, Problems> {
    let recipe = parse("novels.toml", RECIPE, &[]).expect("a recipe");
    let mut facts = facts(&recipe);
    change(&mut facts);
    resolve_language(&recipe, &facts)
}

fn plan() -> LanguagePlan {
    plan_with(|_| ()).expect("a plan")
}

#[test]
fn a_plan_in_words_has_every_number() {
    insta::assert_snapshot!(plan(), @r#"
    plan       novels, digest 3b15d00a2b39
    text       novels/a.txt, b.txt, c.txt and 1 more: 1 000 rows, 256 000 tokens
               evaluated on e.txt: 40 rows
               each file or row is a document
               rows of 256 tokens of 8 000 (words), documents end to end, which do not see one another
               foresees the next token
    student    llama, 3 layers, width 128, 4 heads (2 of keys), 8 000 tokens
               random weights
               dropout 0 hidden, 0 attention
    teacher    llama, 6 layers, width 256, 8 heads, 8 000 tokens
               weights of teacher
               answers computed with every batch
    objective  w₂ × KL(q ‖ p) at T = (2 → 1), times T²; p the teacher's, q the student's
               w₁ × CE(q, s); q = 0.5 y + 0.5 softmax(z/2), not differentiated
               schedule: w₂ from 0.9 to 0.1, linear; w₁ = 1 − w₂
               means over all tokens of a step that are learnt
               the teacher falls silent once the student is better than it
    training   2 epochs = 126 steps, 63 a pass
               16 sequences a step, 8 192 tokens at once
               learning rate 5e-5, linear, 13 steps of warm-up
               AdamW β 0.9 0.999, ε 1e-8, decay 0.01, gradients clipped at 1
               evaluated after every pass, saved then; best by loss, last 2 kept
               stops at a loss that is not finite
               seed 42, f32, 2 threads
    output     runs/novels, with the best model
    "#);
}

#[test]
fn a_plan_is_read_back_as_it_was_written_and_known_from_a_tasks() {
    let plan = plan();
    let text = plan.to_toml();
    assert_eq!(LanguagePlan::from_toml(&text), Ok(plan.clone()));
    let any = AnyPlan::from_toml(&text).expect("a plan");
    assert_eq!(any, AnyPlan::Language(Box::new(plan.clone())));
    assert_eq!((any.digest(), any.to_toml()), (plan.digest(), text));
    let seed = any.with_seed(9);
    assert_eq!((seed.training().seed, seed.output().dir.as_str()), (9, "runs/novels/seed-9"));
}

#[test]
fn every_field_of_a_language_models_plan_has_a_rule_for_resuming() {
    fn leaves(name: &str, value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                leaves(&name, value, found);
            }),
            _ => found.push(name.to_owned()),
        }
    }
    // A plan that differs in every field: fields that one lacks count as differing.
    let mut new = plan();
    new.text.path = "elsewhere".into();
    new.text.sequence_length = 128;
    new.teacher = LanguageTeacherPlan::Nobody;
    new.objective.until_overtaken = false;
    new.objective.temperature.to = 3.0;
    new.training.threads = 7;
    let change = change_language(&plan(), &new, &[]);
    let unknown = Verdict::Refused("nothing is known about changing it");
    assert!(change.fields.iter().all(|field| field.verdict != unknown), "{change}");
    let free: Vec<&str> = change
        .fields
        .iter()
        .filter(|field| field.verdict == Verdict::Allowed)
        .map(|field| field.field.as_str())
        .collect();
    assert_eq!(free, ["teacher.model.path", "text.path", "training.threads"]);
    let mut all = Vec::new();
    leaves("", &serde_json::to_value(plan()).expect("JSON"), &mut all);
    assert!(all.len() > 60, "{all:?}");
}

#[test]
fn a_smoke_run_has_few_steps() {
    let mut plan = plan();
    smoke_language(&mut plan);
    assert_eq!((plan.training.total_steps, plan.training.warmup_steps), (20, 3));
}

/// All that is said of a recipe with these lines changed.
fn said(changes: &[(&str, &str)]) -> String {
    let mut text = RECIPE.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let found = parse("r.toml", &text, &[]).and_then(|recipe| {
        let facts = facts(&recipe);
        resolve_language(&recipe, &facts)
    });
    found.expect_err("problems").to_string()
}

#[test]
fn keys_that_do_not_go_together_are_named_all_at_once() {
    let everything = said(&[
        (
            "validation = [\"e.txt\"]\n",
            "validation = [\"e.txt\"]\nvalidation_split = 0.1\nmarker = \"---\"\non_long = \"cut\"\nmask_probability = 0.2\nwhole_words = true\ntemplate = \"alpaca\"\ndate = \"2024-07-26\"\n",
        ),
        (
            "[teacher]\n",
            "layers = [0]\n[teacher]\nlogits = \"cache\"\nbatch_tokens = 512\ntokenizer = \"own\"\n",
        ),
        ("policy = \"schedule\"\nfrom = 0.9\nto = 0.1", "policy = \"l2rw\""),
        ("method = \"labo\"", "method = \"margin\""),
        ("[objective]\n", "[objective]\nlabel_loss = \"mse\"\n"),
    ]);
    insta::assert_snapshot!(everything, @r#"
    r.toml:7:1: `text.validation_split` and `text.validation` contradict each other; keep one
    r.toml:8:1: `text.marker` needs `documents = "marker"`
    r.toml:9:1: `text.on_long` needs a `shape` with a reply; running text goes on in the next row
    r.toml:10:1: `text.mask_probability` needs `kind = "masked"`
    r.toml:11:1: `text.whole_words` needs `kind = "masked"`
    r.toml:12:1: `text.template` needs a `shape` with a reply
    r.toml:13:1: `text.date` needs a `shape` with a reply
    r.toml:19:1: `student.layers` and `student.config` contradict each other; keep one
    r.toml:19:1: `student.layers` needs a `[task]`; a language model keeps all layers
    r.toml:21:1: `teacher.logits` needs a `[task]`; a language model's teacher answers with every batch
    r.toml:22:1: `teacher.batch_tokens` needs a `[task]`; a language model's teacher reads what the student reads
    r.toml:23:1: `teacher.tokenizer` needs a `[task]`; a language model's teacher reads the run's
    r.toml:26:1: `objective.label_loss` is "mse", expected `cross_entropy` for a language model
    r.toml:31:1: `objective.balance.policy` needs a `[task]`; for a language model it is fixed, schedule, uncertainty, wsl, ada_kd, dynamic_kd, rw_kd, meta_weight_net or own, which need of each token no more than its losses, its entropy, and how far these would help other rows
    r.toml:33:1: `objective.regularizer.method` needs a `[task]`; for a language model it is "label_smoothing" or "labo"
    15 problems
    "#);
}

#[test]
fn what_a_text_lacks_is_named() {
    let text = "[text]\ndocuments = \"marker\"\n[student]\nconfig = { model_type = \"bert\" }\n";
    let found = parse("r.toml", text, &[]).expect_err("problems").to_string();
    insta::assert_snapshot!(found, @r#"
    r.toml:1:2: `text.kind` is missing: causal, or masked for encoders
    r.toml:1:2: `text.path` is missing: the folder with the text files
    r.toml:1:2: one of `text.validation`, `text.validation_split` is missing: files to evaluate on, or a share of the documents
    r.toml:1:2: `text.marker` is missing: the line between two documents
    r.toml:4:1: `student.config` needs `tokenizer.path`, as it comes without tokens
    r.toml:4:10: `student.config.hidden_size` is missing: the width of the hidden states
    r.toml:4:10: `student.config.num_hidden_layers` is missing: how many layers
    r.toml:4:10: `student.config.num_attention_heads` is missing: how many heads
    8 problems
    "#);
}

#[test]
fn a_task_and_a_text_are_two_recipes() {
    let text = format!("{RECIPE}[task]\npreset = \"sst2\"\n");
    let found = parse("r.toml", &text, &[]).expect_err("problems").to_string();
    assert!(found.contains("`task` and `text` contradict each other; keep one"), "{found}");
    let task = "[task]\npreset = \"sst2\"\npath = \"d\"\n[student]\nmodel = \"m\"\n[objective]\n\
                until_overtaken = true\ntemperature_end = 1.0\n";
    let found = parse("r.toml", task, &[]).expect_err("problems").to_string();
    assert!(found.contains("`objective.until_overtaken` needs `[text]`"), "{found}");
    assert!(found.contains("`objective.temperature_end` needs `[text]`"), "{found}");
}

#[test]
fn shapes_are_of_the_kind_that_is_trained() {
    let bert = said(&[("model_type = \"llama\"", "model_type = \"bert\"")]);
    assert!(
        bert.contains(
            "`student.config.model_type` is \"bert\", expected one of gpt2, llama, mistral, qwen2 \
             or qwen3"
        ),
        "{bert}"
    );
    let gpt2 = said(&[("model_type = \"llama\"", "model_type = \"gpt2\"")]);
    assert!(gpt2.contains("`student.config.num_key_value_heads` needs `model_type` of"), "{gpt2}");
    let heads = said(&[("num_key_value_heads = 2", "num_key_value_heads = 3")]);
    assert!(heads.contains("num_key_value_heads` is 3, expected a divisor of 4"), "{heads}");
    let dropout = said(&[("[teacher]\n", "hidden_dropout_prob = 0.1\n[teacher]\n")]);
    assert!(dropout.contains("needs a family that has it: gpt2, or an encoder"), "{dropout}");
}

/// What is said where these facts are others.
fn refused(change: impl Fn(&mut LanguageFacts)) -> String {
    plan_with(change).expect_err("problems").to_string()
}

#[test]
fn models_that_do_not_belong_together_are_refused_with_numbers() {
    let other = refused(|facts| {
        facts.teacher_tokenizer =
            Some(TokenizerFacts { vocab_size: 8100, digest: Digest::of(b"other") });
        facts.first_difference = Some(TokenDifference {
            id: 300,
            student: Some("ab".to_owned()),
            teacher: Some("abc".to_owned()),
        });
    });
    assert!(
        other.contains("the teacher's tokenizer knows 8100 tokens, the student's 8000")
            && other.contains("token 300 is \"abc\" for the teacher, \"ab\" for the student"),
        "{other}"
    );
    let shape = |change: fn(&mut DecoderShape)| {
        move |facts: &mut LanguageFacts| {
            let mut shape = teacher();
            change(&mut shape);
            if let Some(teacher) = &mut facts.teacher {
                teacher.shape = LanguageShape::Decoder(shape);
            }
        }
    };
    let short = refused(shape(|shape| shape.max_position_embeddings = 128));
    assert!(
        short.contains("`text.sequence_length` is 256, the teacher reads at most 128 tokens"),
        "{short}"
    );
    let few = refused(shape(|shape| shape.vocab_size = 7999));
    assert!(few.contains("the tokenizer knows 8000 tokens, the teacher has embeddings"), "{few}");
    // A student whose embeddings are padded further than its teacher's.
    let recipe = RECIPE.replace(
        "config = { model_type = \"llama\", hidden_size = 128, num_hidden_layers = 3, \
         num_attention_heads = 4, num_key_value_heads = 2 }",
        "model = \"student\"",
    );
    let recipe = parse("r.toml", &recipe, &[]).expect("a recipe");
    let mut facts = facts(&recipe);
    facts.student = Some(LanguageModelFacts {
        shape: LanguageShape::Decoder(DecoderShape { vocab_size: 8200, ..teacher() }),
        digest: Digest::of(b"student"),
    });
    let fewer = resolve_language(&recipe, &facts).expect_err("problems").to_string();
    assert!(
        fewer.contains("the teacher has logits for 8000 words, the student for 8200"),
        "{fewer}"
    );
    let nothing = refused(|facts| facts.validation_rows = 0);
    assert!(
        nothing.contains("the validation set has no example; check `text.validation`"),
        "{nothing}"
    );
}

/// The recipe with these lines in its objective, and its plan or what is said of it.
fn with_objective(lines: &str, changes: &[(&str, &str)]) -> Result<LanguagePlan, String> {
    let mut text = RECIPE.replacen("[objective]\n", &format!("[objective]\n{lines}\n"), 1);
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let found = parse("r.toml", &text, &[]).and_then(|recipe| {
        let facts = facts(&recipe);
        resolve_language(&recipe, &facts)
    });
    found.map_err(|problems| problems.to_string())
}

#[test]
fn hidden_states_are_mapped_layer_to_layer_and_width_to_width() {
    let lines =
        "hidden = [{ kind = \"mse\" }, { kind = \"cosine\", weight = 0.5, layers = [[3, 5]] }]";
    let plan = with_objective(lines, &[]).expect("a plan");
    let [mse, cosine] = plan.objective.hidden.as_slice() else { panic!("{plan}") };
    assert_eq!(mse.layers, [[0, 0], [1, 2], [2, 4], [3, 6]]);
    assert_eq!(mse.compare, heirloom_recipe::Compare::Mse { projection: true });
    assert_eq!((cosine.weight, cosine.layers.as_slice()), (0.5, &[[3, 5]][..]));
    let words = plan.to_string();
    for line in [
        "1 × mse, through a learned map; layers 0–0 1–2 2–4 3–6, all positions",
        "0.5 × cosine, through a learned map; layers 3–5, all positions",
        "means over all tokens of a step that are learnt; of hidden states over all of them",
    ] {
        assert!(words.contains(line), "`{line}` in:\n{words}");
    }
    assert_eq!(LanguagePlan::from_toml(&plan.to_toml()), Ok(plan));
}

#[test]
fn what_has_no_inside_to_compare_is_refused() {
    let said = |lines: &str, changes: &[(&str, &str)]| {
        with_objective(lines, changes).expect_err("problems")
    };
    let mse = "hidden = [{ kind = \"mse\" }]";
    for (found, needed) in [
        (
            said("hidden = [{ kind = \"attention_relation\" }]", &[]),
            "`objective.hidden.0.kind` needs `text.kind = \"masked\"`; its relations look ahead",
        ),
        (
            said("hidden = [{ kind = \"mse\", position = \"first\" }]", &[]),
            "`objective.hidden.0.position` needs `text.kind = \"masked\"`; a decoder's first token",
        ),
        (
            said(mse, &[("model = \"teacher\"", "cache = \"kept\"")]),
            "`objective.hidden` needs `teacher.model` in place of `teacher.cache`",
        ),
        (
            said(
                mse,
                &[("model = \"teacher\"", "model = \"teacher\"\nvocabulary = \"intersect\"")],
            ),
            "`objective.hidden` needs a `teacher.vocabulary` other than \"intersect\"",
        ),
        (
            said(&format!("{mse}\nuld = {{ top = 8 }}"), &[("divergence = \"reverse_kl\"\n", "")]),
            "`objective.hidden` needs no `objective.uld`",
        ),
        (
            said(mse, &[("num_hidden_layers = 3", "num_hidden_layers = 4")]),
            "`objective.hidden.0.layers`",
        ),
        (
            said("hidden = [{ kind = \"mse\", layers = [[4, 6]] }]", &[]),
            "`objective.hidden.0.layers`",
        ),
        (
            said(mse, &[("[teacher]\nmodel = \"teacher\"\n", "")]),
            "`objective.hidden` needs a `[teacher]` to compare with",
        ),
        (
            said(
                mse,
                &[("[training]\n", "[[stage]]\nat_step = 9\nnum_hidden_layers = 4\n[training]\n")],
            ),
            "`stage.0` needs no `[[objective.hidden]]`",
        ),
    ] {
        assert!(found.contains(needed), "`{needed}` in:\n{found}");
    }
}

#[test]
fn rows_that_come_first_are_in_the_plan_and_need_all_that_chooses_them() {
    const FIRST: &str = "text.first={ answers = \"small\", share = 0.25 }";
    let parsed = |sets: &[&str]| {
        parse("novels.toml", RECIPE, &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>())
    };
    let text = parsed(&[FIRST]).expect("a recipe").text().expect("a text");
    let first = text.first.expect("it is in the plan");
    assert_eq!((first.answers.as_str(), first.share, first.top_k), ("small", 0.25, 10));
    let said = |sets: &[&str]| match parsed(sets) {
        Ok(recipe) => recipe.text().expect_err("problems").to_string(),
        Err(problems) => problems.to_string(),
    };
    for (sets, needed) in [
        (&["text.first={ share = 0.25 }"][..], "`text.first.answers` is missing"),
        (&["text.first={ answers = \"small\" }"], "`text.first.share` is missing"),
        (&["text.first={ answers = \"small\", share = 1.0 }"], "`text.first.share` is 1"),
        (
            &["text.first={ answers = \"small\", share = 0.5, top_k = 0 }"],
            "`text.first.top_k` is 0",
        ),
        (
            &["text.first={ answers = \"small\", share = 0.5, topk = 3 }"],
            "unknown key `text.first.topk`",
        ),
        (&["text.first=3"], "`text.first` is 3, expected a table such as"),
        (&[FIRST, "text.kind=masked"], "`text.first` needs `kind = \"causal\"`"),
        (&[FIRST, "objective.uld={ top = 8 }"], "`text.first` needs no `objective.uld`"),
    ] {
        let found = said(sets);
        assert!(found.contains(needed), "`{needed}` in:\n{found}");
    }
    // Where it is may change; what it chose may not.
    let with = |path: &str, share: f64| {
        let mut plan = plan();
        plan.text.first =
            Some(FirstPlan { answers: path.to_owned(), share, top_k: 10, rows: None });
        plan
    };
    let toml = with("small", 0.25).to_toml();
    assert_eq!(LanguagePlan::from_toml(&toml), Ok(with("small", 0.25)));
    let words = with("small", 0.25).to_string();
    assert!(
        words.contains("first the 0.25 of them that are hardest for a small model, by"),
        "{words}"
    );
}

#[test]
fn tokens_are_weighed_by_what_can_be_known_of_each() {
    const SCHEDULE: &str = "policy = \"schedule\"\nfrom = 0.9\nto = 0.1";
    for policy in ["uncertainty", "wsl", "ada_kd", "dynamic_kd", "rw_kd", "meta_weight_net"] {
        let of = format!("policy = \"{policy}\"");
        let plan = with_objective("", &[(SCHEDULE, &of)]).expect("a plan");
        assert!(!plan.objective.is_without_teacher());
        let words = plan.to_string();
        assert!(words.contains("w₂ × KL(q ‖ p)") && words.contains(policy), "{words}");
        assert!(words.contains("each token is weighed") == (policy != "uncertainty"), "{words}");
        let learns = matches!(policy, "rw_kd" | "meta_weight_net");
        assert!(words.contains("second set: other batches") == learns, "{words}");
    }
    let said = |policy: &str, lines: &str, changes: &[(&str, &str)]| {
        let of = format!("policy = \"{policy}\"");
        let changes = [&[(SCHEDULE, of.as_str())], changes].concat();
        with_objective(lines, &changes).expect_err("problems")
    };
    let cached = [("model = \"teacher\"", "cache = \"kept\""), ("until_overtaken = true\n", "")];
    let padded = [("model = \"teacher\"", "model = \"teacher\"\nvocabulary = \"pad\"")];
    for (found, needed) in [
        (
            said("grad_norm", "", &[]),
            "it is fixed, schedule, uncertainty, wsl, ada_kd, dynamic_kd, rw_kd, meta_weight_net or own",
        ),
        (
            said("rw_kd", "", &cached),
            "needs `meta = { loss = \"hard\" }` for rw_kd beside `teacher.cache`",
        ),
        (said("rw_kd\"\nema = 0.5 #\"", "", &[]), "`objective.balance.ema` needs to be 0"),
        (
            said("meta_weight_net\"\nsight = \"teacher_logits", "", &[]),
            "`objective.balance.sight` needs \"losses\" for a language model",
        ),
        (
            said("rw_kd\"\nmeta = { split = 0.2 } #\"", "", &[]),
            "`objective.balance.meta.split` needs `source = \"split\"`",
        ),
        (
            said("rw_kd\"\nmeta = { source = \"file\", path = \"x\" } #\"", "", &[]),
            "`objective.balance.meta.source` needs \"train\" for a language model",
        ),
        (
            said("rw_kd\"\nmeta = { estimator = \"last_layer\" } #\"", "", &[]),
            "`objective.balance.meta.estimator` needs \"finite_difference\"",
        ),
        (
            said("rw_kd\"\nmeta = { at = \"ahead\" } #\"", "", &[]),
            "`objective.balance.meta.at` needs \"here\"",
        ),
        (
            said("rw_kd\"\nmeta = { check = true } #\"", "", &[]),
            "`objective.balance.meta.check` needs a `[task]`",
        ),
        (said("wsl", "", &cached), "needs `teacher.model` in place of `teacher.cache` for wsl"),
        (
            said("ada_kd", "", &padded),
            "needs a teacher whose logits are those of the student's tokens",
        ),
        (
            said("dynamic_kd\"\nadoption = \"batch", "", &[]),
            "`objective.balance.adoption` needs \"sample\" for a language model",
        ),
        (
            said("ada_kd\"\ntemperature = 2.0 #\"", "", &[]),
            "`objective.balance.temperature` needs to be 1 for a language model",
        ),
        (
            said("uncertainty", "on_policy = { share = 0.5 }", &[]),
            "needs no `objective.on_policy` for uncertainty",
        ),
    ] {
        assert!(found.contains(needed), "`{needed}` in:\n{found}");
    }
}

#[test]
fn texts_that_are_read_again_are_told_and_refused_where_nothing_follows_from_them() {
    let replies = [(
        "sequence_length = 256",
        "sequence_length = 256\nshape = \"completion\"\nformat = \"jsonl\"",
    )];
    let lines = "on_policy = { share = 0.2, replay = { capacity = 2000, margin = 0.05 } }";
    let plan = with_objective(lines, &replies).expect("a plan");
    let words = plan.to_string();
    let told = "of these steps a part that falls from all to none writes anew, the others read again of the \
                last 2 000 texts; their share rises by 0.1 where the validation loss has risen by 0.05";
    assert!(words.contains(told), "{words}");
    assert_eq!(LanguagePlan::from_toml(&plan.to_toml()), Ok(plan));
    let said = |from: &str, to: &str| {
        with_objective(lines, &[replies[0], (from, to)]).expect_err("problems")
    };
    let never = said("epochs = 2\n", "epochs = 2\neval_strategy = \"never\"\n");
    assert!(never.contains("`objective.on_policy.replay` needs evaluations"), "{never}");
    let stage = said("[training]\n", "[[stage]]\nat_step = 9\nnum_hidden_layers = 4\n[training]\n");
    assert!(stage.contains("`objective.on_policy.replay` needs no `[[stage]]`"), "{stage}");
    let none = said("capacity = 2000", "capacity = 0");
    assert!(none.contains("`objective.on_policy.replay.capacity` is 0"), "{none}");
}

/// The recipe with a second teacher, these lines in the second one's table, and these changes.
fn with_two(second: &str, changes: &[(&str, &str)]) -> Result<LanguagePlan, String> {
    let mut text = RECIPE.replacen(
        "[teacher]\nmodel = \"teacher\"\n",
        &format!("[[teacher]]\nmodel = \"teacher\"\n[[teacher]]\n{second}\n"),
        1,
    );
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let found = parse("r.toml", &text, &[]).and_then(|recipe| {
        let mut facts = facts(&recipe);
        let shape = LanguageShape::Decoder(DecoderShape { hidden_size: 64, ..teacher() });
        let model = Some(LanguageModelFacts { shape, digest: Digest::of(b"second") });
        let tokenizer = facts.teacher_tokenizer;
        let other = LanguageTeacherFacts { model, tokenizer, ..LanguageTeacherFacts::default() };
        facts.other_teachers = vec![other];
        resolve_language(&recipe, &facts)
    });
    found.map_err(|problems| problems.to_string())
}

#[test]
fn several_teachers_have_parts_of_one_weight_and_each_its_lines() {
    let plan = with_two("model = \"second\"\nweight = 3", &[]).expect("a plan");
    assert_eq!(plan.objective.teacher_parts, [0.25, 0.75]);
    assert_eq!(plan.teachers().count(), 2);
    assert_eq!(LanguagePlan::from_toml(&plan.to_toml()), Ok(plan.clone()));
    let words = plan.to_string();
    let from = words.find("teacher  ").expect("its lines");
    let to = words.find("training  ").expect("those behind");
    insta::assert_snapshot!(words[from..to].trim_end(), @r#"
    teacher    [0] llama, 6 layers, width 256, 8 heads, 8 000 tokens
               weights of teacher
               answers computed with every batch
               0.25 of the teachers' weight
               [1] llama, 6 layers, width 64, 8 heads, 8 000 tokens
               weights of second
               answers computed with every batch
               0.75 of the teachers' weight
    objective  w₂ × KL(q ‖ p) at T = (2 → 1), times T²; p the teacher's, q the student's, the weighted mean over 2 teachers
               w₁ × CE(q, s); q = 0.5 y + 0.5 softmax(z/2), not differentiated
               schedule: w₂ from 0.9 to 0.1, linear; w₁ = 1 − w₂
               each teacher has its fixed part of it
               means over all tokens of a step that are learnt
               each teacher falls silent once the student is better than it; its part is the text's
    "#);
    // Of one nothing is written that was not before.
    assert!(!self::plan().to_toml().contains("teacher_parts"));
    let uncertain = [("policy = \"schedule\"\nfrom = 0.9\nto = 0.1", "policy = \"uncertainty\"")];
    let words = with_two("model = \"second\"", &uncertain).expect("a plan").to_string();
    assert!(words.contains("each teacher has a w₂ of its own from the policy"), "{words}");
    assert!(words.contains(", of each of 2 teachers"), "{words}");
    // Another second teacher is another run.
    let mut other = plan.clone();
    other.other_teachers[0] = other.teacher.clone();
    other.objective.teacher_parts = vec![0.5, 0.5];
    let change = change_language(&plan, &other, &[]).to_string();
    assert!(change.contains("the steps so far learned from another teacher"), "{change}");
    assert!(change.contains("it changes the result; ask for it with --set"), "{change}");
}

#[test]
fn what_several_teachers_cannot_be_asked_is_named_with_the_one() {
    const POLICY: &str = "policy = \"schedule\"\nfrom = 0.9\nto = 0.1";
    let second = "model = \"second\"";
    let said =
        |second: &str, changes: &[(&str, &str)]| with_two(second, changes).expect_err("problems");
    let all = [
        said("model = \"second\"\nvocabulary = \"pad\"\ntokenizer = \"own\"", &[]),
        said(
            second,
            &[("divergence = \"reverse_kl\"\nuntil_overtaken = true", "uld = { top = 8 }")],
        ),
        said(second, &[("[objective]\n", "[objective]\nhidden = [{ kind = \"mse\" }]\n")]),
        said(second, &[(POLICY, "policy = \"ada_kd\"")]),
        said("model = \"second\"\nweight = 2", &[(POLICY, "policy = \"uncertainty\"")]),
        said("cache = \"kept\"\nlogits = \"live\"", &[]),
        said("weight = 2", &[]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    r.toml:16:1: `teacher.1.vocabulary` needs one `[teacher]`; several are heard at the same tokens, in the student's own vocabulary
    r.toml:17:1: `teacher.1.tokenizer` needs a `[task]`; a language model's teacher reads the run's
    2 problems
    r.toml:17:1: `objective.uld` needs one `[teacher]`; several are heard at the same tokens, in the student's own vocabulary
    1 problem
    r.toml:17:1: `objective.hidden` needs one `[teacher]`, into which it looks
    1 problem
    r.toml:21:1: `objective.balance.policy` needs one `[teacher]` for ada_kd; several can be weighed by `"fixed"`, `"schedule"` or `"uncertainty"`
    1 problem
    r.toml:16:1: `teacher.1.weight` needs a policy that keeps it or begins with it; uncertainty decides it
    1 problem
    r.toml:16:1: `teacher.1.logits` needs no `teacher.cache`, which says it
    r.toml:19:1: `objective.until_overtaken` needs a teacher that answers with every batch; of the validation text nothing is kept
    r.toml:20:1: `objective.temperature_end` needs a teacher that answers with every batch; what is kept has one temperature
    3 problems
    r.toml:14:1: `teacher.1.model` is missing: the folder of a trained model, or in its place `cache`, that of kept answers; or remove [teacher]
    1 problem
    "#);
    let masked = [
        ("kind = \"causal\"", "kind = \"masked\""),
        (
            "config = { model_type = \"llama\", hidden_size = 128, num_hidden_layers = 3, num_attention_heads = 4, num_key_value_heads = 2 }",
            "model = \"student\"",
        ),
    ];
    let masked = said("cache = \"kept\"", &masked);
    assert!(masked.contains("`teacher.1.cache` needs `kind = \"causal\"`"), "{masked}");
}

#[test]
fn the_second_teachers_tokens_and_positions_are_checked_too() {
    let found = |change: fn(&mut LanguageTeacherFacts)| {
        let text = RECIPE.replacen(
            "[teacher]\nmodel = \"teacher\"\n",
            "[[teacher]]\nmodel = \"teacher\"\n[[teacher]]\nmodel = \"second\"\n",
            1,
        );
        let recipe = parse("r.toml", &text, &[]).expect("a recipe");
        let mut facts = facts(&recipe);
        let (model, tokenizer) = (facts.teacher, facts.teacher_tokenizer);
        let mut other =
            LanguageTeacherFacts { model, tokenizer, ..LanguageTeacherFacts::default() };
        change(&mut other);
        facts.other_teachers = vec![other];
        resolve_language(&recipe, &facts).expect_err("problems").to_string()
    };
    let other = found(|facts| {
        facts.tokenizer = Some(TokenizerFacts { vocab_size: 8100, digest: Digest::of(b"other") });
    });
    assert!(other.contains("r.toml:15:1: ") && other.contains("they are not the same"), "{other}");
    let short = found(|facts| {
        let shape = DecoderShape { max_position_embeddings: 128, ..teacher() };
        let shape = LanguageShape::Decoder(shape);
        facts.model = Some(LanguageModelFacts { shape, digest: Digest::of(b"second") });
    });
    assert!(short.contains("r.toml:15:1: ") && short.contains("reads at most 128"), "{short}");
    let padded = found(|facts| {
        let shape = LanguageShape::Decoder(DecoderShape { vocab_size: 8200, ..teacher() });
        facts.model = Some(LanguageModelFacts { shape, digest: Digest::of(b"second") });
    });
    let needs = "each of several teachers needs the student's vocabulary";
    assert!(padded.contains("logits for 8200 words") && padded.contains(needs), "{padded}");
    let gone = found(|facts| facts.model = None);
    assert!(gone.contains("second"), "{gone}");
}
