//! What recipes of language models say of teachers with other tokens and of the student's own words.

use heirloom_base::{Digest, Tokens};
use heirloom_recipe::{
    Architecture, DecoderShape, LanguageFacts, LanguageModelFacts, LanguagePlan, LanguageShape,
    LanguageTeacherPlan, TeacherVocabulary, TokenizerFacts, parse, resolve_language,
};

const GOOD: &str = "[text]\nkind = \"causal\"\npath = \"text\"\nvalidation = [\"b.jsonl\"]\n\
    format = \"jsonl\"\nshape = \"completion\"\nsequence_length = 64\n[tokenizer]\npath = \"words\"\n\
    [student]\nmodel = \"student\"\n[teacher]\nmodel = \"teacher\"\n[training]\nmax_steps = 8\n\
    threads = 1\n";

fn model(vocab_size: u64) -> LanguageModelFacts {
    LanguageModelFacts {
        shape: LanguageShape::Decoder(DecoderShape {
            model_type: Architecture::Llama,
            vocab_size,
            hidden_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 2,
            head_dim: 8,
            intermediate_size: 32,
            max_position_embeddings: 64,
            rope_theta: 1e4,
            tie_word_embeddings: true,
            layer_norm_eps: 1e-6,
            initializer_range: 0.02,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
        }),
        digest: Digest::of(b"weights"),
    }
}

/// The plan of a teacher of so many words, whose tokenizer is called `theirs`.
fn plan(sets: &[&str], words: u64, theirs: &str) -> Result<LanguagePlan, String> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let recipe = parse("recipe.toml", GOOD, &sets).map_err(|problems| problems.to_string())?;
    let tokens =
        |name: &str| TokenizerFacts { vocab_size: 60, digest: Digest::of(name.as_bytes()) };
    let facts = LanguageFacts {
        text: recipe.text().map_err(|problems| problems.to_string())?,
        train_rows: 100,
        train_tokens: Tokens(6000),
        steps_per_epoch: None,
        validation_rows: 3,
        data: Digest::of(b"rows"),
        tokenizer: tokens("ours"),
        student: Some(model(60)),
        teacher: Some(model(words)),
        teacher_tokenizer: Some(tokens(theirs)),
        kept: None,
        grown: None,
        first_difference: None,
        other_teachers: Vec::new(),
        threads: 1,
    };
    resolve_language(&recipe, &facts).map_err(|problems| problems.to_string())
}

#[track_caller]
fn refused(sets: &[&str], words: u64, theirs: &str, what: &str) {
    let said = plan(sets, words, theirs).expect_err("it is refused");
    assert!(said.contains(what), "{said}");
}

#[test]
fn nothing_is_done_about_a_padded_teacher_unless_the_recipe_says_so() {
    refused(
        &[],
        64,
        "ours",
        "the teacher has logits for 64 words, the student for 60; where ids that stand for no token \
         make the difference, leave them out with `teacher.vocabulary = \"pad\"`",
    );
    refused(&[], 50, "theirs", "they are not the same");
    for choice in ["pad", "intersect"] {
        let set = format!("teacher.vocabulary={choice}");
        for (words, theirs) in [(64, "ours"), (50, "theirs"), (60, "theirs")] {
            let plan = plan(&[&set], words, theirs).expect("a plan");
            let LanguageTeacherPlan::Model { vocabulary, .. } = &plan.teacher else {
                panic!("a teacher");
            };
            assert_eq!(vocabulary.to_string(), choice);
            let again = LanguagePlan::from_toml(&plan.to_toml()).expect("it was written");
            assert_eq!(again, plan);
        }
    }
    // What a plan says that has no choice to make.
    let plain = plan(&[], 60, "ours").expect("a plan");
    assert!(!plain.to_toml().contains("vocabulary = \"refuse\""));
    let again = LanguagePlan::from_toml(&plain.to_toml()).expect("it was written");
    let LanguageTeacherPlan::Model { vocabulary, .. } = again.teacher else { panic!("a teacher") };
    assert_eq!(vocabulary, TeacherVocabulary::Refuse);
}

#[test]
fn comparing_by_size_asks_for_no_common_token() {
    let plan = plan(&["objective.uld={ top = 20 }"], 999, "theirs").expect("a plan");
    let uld = plan.objective.uld.expect("it is in the plan");
    assert_eq!((uld.top, uld.sequence_length), (20, 64));
    assert_eq!(LanguagePlan::from_toml(&plan.to_toml()), Ok(plan.clone()));
    let said = plan.to_string();
    assert!(said.contains("the 20 largest by rank and the others as one sum"), "{said}");
    let set = "objective.uld={ top = 20 }";
    for (other, what) in [
        ("objective.divergence=reverse_kl", "`objective.divergence` needs no `objective.uld`"),
        ("teacher.vocabulary=pad", "`teacher.vocabulary` needs no `objective.uld`"),
        ("objective.until_overtaken=true", "a teacher with the student's tokens"),
        ("objective.on_policy={ share = 0.5, max_new_tokens = 9 }", "cannot read the student's"),
        ("objective.scale_by_temperature_squared=true", "which compares by size alone"),
    ] {
        refused(&[set, other], 60, "theirs", what);
    }
    refused(&["objective.uld={ top = 0 }"], 60, "ours", "`objective.uld.top` is 0");
    refused(&["objective.uld={ tpo = 3 }"], 60, "ours", "unknown key `objective.uld.tpo`");
}

#[test]
fn the_students_own_words_need_a_teacher_a_prompt_and_room_for_one() {
    let set = "objective.on_policy={ share = 0.3, max_new_tokens = 20 }";
    let plan = plan(&[set], 60, "ours").expect("a plan");
    let own = plan.objective.on_policy.expect("it is in the plan");
    assert_eq!((own.share, own.max_new_tokens, own.temperature), (0.3, 20, 1.0));
    assert_eq!(LanguagePlan::from_toml(&plan.to_toml()), Ok(plan.clone()));
    let said = plan.to_string();
    assert!(said.contains("in 0.3 of the steps the student writes the replies"), "{said}");
    for (sets, what) in [
        (
            &["objective.on_policy={ max_new_tokens = 20 }"][..],
            "`objective.on_policy.share` is missing",
        ),
        (
            &["objective.on_policy={ share = 0.5 }"],
            "`objective.on_policy.max_new_tokens` is 128, expected less than `text.sequence_length`, 64",
        ),
        (&["objective.on_policy={ share = 1.5 }"], "expected a number from 0 to 1"),
        (
            &["objective.on_policy={ share = 0.5, temperature = -1.0 }"],
            "`objective.on_policy.temperature` is -1",
        ),
        (&[set, "text.shape=text"], "a `text.shape` with a reply"),
    ] {
        refused(sets, 60, "ours", what);
    }
}

#[test]
fn a_task_with_labels_has_none_of_these() {
    let task = "[task]\npreset = \"sst2\"\npath = \"d\"\n[student]\nmodel = \"m\"\n[teacher]\n\
                model = \"t\"\n";
    for (set, key) in [
        ("objective.uld={ top = 3 }", "`objective.uld` needs `[text]`"),
        ("objective.on_policy={ share = 0.5 }", "`objective.on_policy` needs `[text]`"),
        ("teacher.vocabulary=pad", "`teacher.vocabulary` needs `[text]`"),
    ] {
        let said = parse("recipe.toml", task, &[set.to_owned()]).expect_err("refused").to_string();
        assert!(said.contains(key), "{said}");
    }
}

#[test]
fn kept_answers_are_to_the_words_and_tokens_of_the_data() {
    for (key, set) in [
        ("objective.on_policy", "objective.on_policy={ share = 0.5, max_new_tokens = 9 }"),
        ("objective.uld", "objective.uld={ top = 20 }"),
        ("teacher.vocabulary", "teacher.vocabulary=pad"),
    ] {
        let what = format!("`{key}` needs `teacher.model` in place of `teacher.cache`");
        refused(&["teacher.cache=kept", set], 60, "ours", &what);
    }
}
