//! The text of a language model, as `[text]` decides it, and which keys of the other tables go with
//! it.
//!
//! In: a [`Recipe`] with a `[text]`. Out: the [`TextPlan`], or what is wrong. Never: looks at a
//! file.

use crate::balance::MetaLoss;
use crate::choices::{
    Adoption, Architecture, DocumentShape, Documents, EstimatorKind, EvalStrategy, HiddenKind,
    MetaAt, MetaFrom, OnLong, Packing, PolicyKind, Position, RegularizerKind, Sight,
    TeacherVocabulary, TextFormat, TextKind,
};
use crate::decide::{check_terms, missing, needs, value, wrong};
use crate::language::{FirstPlan, Masking, TextPlan};
use crate::plan::{Limit, Split};
use crate::problem::{Place, ProblemKind, Problems};
use crate::recipe::{At, Balance, Recipe, StudentConfig, Teacher};
use crate::{divergence, policy, regularizer};

/// What evaluation measures, the deciding one first.
pub(crate) const MEASURES: [&str; 4] = ["loss", "perplexity", "bits_per_byte", "accuracy"];

impl Recipe {
    /// The text as decided.
    ///
    /// # Errors
    /// What is wrong with `[text]`.
    pub fn text(&self) -> Result<TextPlan, Problems> {
        let mut problems = Problems::new(&self.file);
        check(self, &mut problems);
        problems.or(text(self))
    }
}

/// The text; `None` where a key is missing that [`check`] speaks of.
fn text(recipe: &Recipe) -> Option<TextPlan> {
    let text = &recipe.text;
    let shape = text.shape();
    let masked = value(&text.kind)? == TextKind::Masked;
    let masking = Masking {
        probability: value(&text.mask_probability).unwrap_or(USUAL_MASKED),
        whole_words: value(&text.whole_words).unwrap_or(false),
    };
    let field = match shape {
        DocumentShape::Messages => "messages",
        DocumentShape::Text | DocumentShape::Instruction | DocumentShape::Completion => "text",
    };
    Some(TextPlan {
        kind: value(&text.kind)?,
        path: value(&text.path)?,
        train: value(&text.train).unwrap_or_default(),
        validation: value(&text.validation).unwrap_or_default(),
        validation_split: value(&text.validation_split).map_or(Split::Nothing, Split::Share),
        format: value(&text.format),
        documents: text.documents(),
        marker: value(&text.marker).unwrap_or_default(),
        shape,
        field: value(&text.field).unwrap_or_else(|| field.to_owned()),
        template: value(&text.template),
        date: value(&text.date).unwrap_or_default(),
        begin: value(&text.begin),
        end: value(&text.end),
        sequence_length: text.sequence_length(),
        pack: text.pack(),
        on_long: value(&text.on_long).unwrap_or(OnLong::Error),
        train_limit: value(&text.train_limit).map_or(Limit::All, Limit::First),
        validation_limit: value(&text.validation_limit).map_or(Limit::All, Limit::First),
        first: match &text.first {
            None => None,
            Some(first) => Some(FirstPlan {
                answers: value(&first.value.answers)?,
                share: value(&first.value.share)?,
                top_k: first.value.top_k(),
                rows: None,
            }),
        },
        masking: masked.then_some(masking),
    })
}

/// Share of tokens that are to be guessed (Devlin et al. 2019, arXiv:1810.04805, §3.1).
const USUAL_MASKED: f64 = 0.15;

/// Says all that can be said about `[text]` without facts.
pub(crate) fn check(recipe: &Recipe, problems: &mut Problems) {
    let text = &recipe.text;
    let here = || text.place.clone().unwrap_or(Place::Whole);
    if let Some(place) = &recipe.task.place {
        let (key, other) = ("task".to_owned(), "text".to_owned());
        problems.push(place.clone(), ProblemKind::Together { key, other });
    }
    if text.kind.is_none() && !problems.is_wrong("text.kind") {
        missing(here(), "text.kind", "causal, or masked for encoders", problems);
    }
    if text.path.is_none() && !problems.is_wrong("text.path") {
        missing(here(), "text.path", "the folder with the text files", problems);
    }
    let never = value(&recipe.training.eval_strategy) == Some(EvalStrategy::Never);
    if !never && text.validation.is_none() && text.validation_split.is_none() {
        let keys = ["text.validation", "text.validation_split"].map(str::to_owned).to_vec();
        let meaning = "files to evaluate on, or a share of the documents".to_owned();
        problems.push(here(), ProblemKind::NoneOf { keys, meaning });
    }
    if let (Some(at), Some(_)) = (&text.validation_split, &text.validation) {
        let (key, other) = ("text.validation_split".to_owned(), "text.validation".to_owned());
        problems.push(at.place.clone(), ProblemKind::Together { key, other });
    }
    let plain = value(&text.format).is_none_or(|format| format == TextFormat::Plain);
    if let Some(at) = text.documents.as_ref().filter(|_| !plain) {
        needs(
            at,
            "text.documents",
            "`format = \"plain\"`; the others have a document a row",
            problems,
        );
    }
    match (text.documents(), &text.marker) {
        (Documents::Marker, None) => {
            missing(here(), "text.marker", "the line between two documents", problems);
        }
        (Documents::File | Documents::BlankLine, Some(at)) => {
            needs(at, "text.marker", "`documents = \"marker\"`", problems);
        }
        _ => {}
    }
    let shape = text.shape();
    let running = shape == DocumentShape::Text;
    if let Some(at) = text.shape.as_ref().filter(|_| !running) {
        if value(&text.format) == Some(TextFormat::Plain) {
            needs(at, "text.shape", "a `format` with fields", problems);
        }
        if value(&text.kind) == Some(TextKind::Masked) {
            needs(at, "text.shape", "`kind = \"causal\"`, as a reply follows a question", problems);
        }
    }
    if let Some(at) = text
        .field
        .as_ref()
        .filter(|_| matches!(shape, DocumentShape::Instruction | DocumentShape::Completion))
    {
        needs(at, "text.field", "`shape = \"text\"` or `\"messages\"`", problems);
    }
    let reply = "a `shape` with a reply";
    if let Some(at) = text.template.as_ref().filter(|_| running) {
        needs(at, "text.template", reply, problems);
    }
    if let Some(at) = text.date.as_ref().filter(|_| running) {
        needs(at, "text.date", reply, problems);
    }
    if let Some(at) = text.on_long.as_ref().filter(|_| running) {
        let needed = "a `shape` with a reply; running text goes on in the next row";
        needs(at, "text.on_long", needed, problems);
    }
    if let Some(at) = text.pack.as_ref().filter(|at| !running && at.value == Packing::Stream) {
        needs(at, "text.pack", "`shape = \"text\"`; an example is a document of its own", problems);
    }
    check_first(recipe, problems);
    if value(&text.kind) == Some(TextKind::Causal) {
        let needed = "`kind = \"masked\"`";
        if let Some(at) = &text.mask_probability {
            needs(at, "text.mask_probability", needed, problems);
        }
        if let Some(at) = &text.whole_words {
            needs(at, "text.whole_words", needed, problems);
        }
    }
    check_models(recipe, problems);
}

fn check_first(recipe: &Recipe, problems: &mut Problems) {
    let Some(first) = &recipe.text.first else { return };
    for (key, wrong, meaning) in [
        (
            "answers",
            first.value.answers.is_none(),
            "the folder of a small model's answers to all rows",
        ),
        ("share", first.value.share.is_none(), "of the rows, above 0 and below 1"),
    ] {
        let key = format!("text.first.{key}");
        if wrong && !problems.is_wrong(&key) {
            missing(first.place.clone(), &key, meaning, problems);
        }
    }
    if value(&recipe.text.kind) == Some(TextKind::Masked) {
        needs(first, "text.first", "`kind = \"causal\"`; hidden tokens change", problems);
    }
    if recipe.objective.uld.is_some() {
        let needed = "no `objective.uld`, whose rows are cut for two tokenizers";
        needs(first, "text.first", needed, problems);
    }
}

fn check_models(recipe: &Recipe, problems: &mut Problems) {
    let student = &recipe.student;
    if let Some(at) = &student.layers {
        needs(at, "student.layers", "a `[task]`; a language model keeps all layers", problems);
    }
    if let Some(at) = &student.classifier_dropout {
        needs(at, "student.classifier_dropout", "a `[task]`, whose head it is", problems);
    }
    for (path, teacher) in recipe.teachers() {
        check_teacher(recipe, &path, teacher, problems);
    }
}

fn check_teacher(recipe: &Recipe, path: &str, teacher: &Teacher, problems: &mut Problems) {
    let key = |name: &str| format!("{path}.{name}");
    if let Some(at) = &teacher.tokenizer {
        let needed = "a `[task]`; a language model's teacher reads the run's";
        needs(at, &key("tokenizer"), needed, problems);
    }
    if let Some(at) = &teacher.logits
        && at.value == crate::choices::Logits::Cache
    {
        let needed = "a `[task]`; a language model's teacher answers with every batch";
        needs(at, &key("logits"), needed, problems);
    }
    if let Some(at) = &teacher.batch_tokens {
        let needed = "a `[task]`; a language model's teacher reads what the student reads";
        needs(at, &key("batch_tokens"), needed, problems);
    }
    let other = teacher.vocabulary.as_ref().filter(|at| at.value != TeacherVocabulary::Refuse);
    if let Some(at) = other.filter(|_| !recipe.other_teachers.is_empty()) {
        needs(at, &key("vocabulary"), IN_ONE_VOCABULARY, problems);
    }
}

/// What is needed of a teacher that reads other tokens than the student.
const IN_ONE_VOCABULARY: &str =
    "one `[teacher]`; several are heard at the same tokens, in the student's own vocabulary";

/// The architectures that the recipe's kind of run can start afresh from.
pub(crate) fn architectures(recipe: &Recipe) -> &'static str {
    match value(&recipe.text.kind) {
        Some(TextKind::Causal) => "gpt2, llama, mistral, qwen2 or qwen3",
        Some(TextKind::Masked) | None => "bert, roberta or distilbert",
    }
}

/// Says so where a shape is of another kind than the run's, or a key is of another family's.
pub(crate) fn check_config(recipe: &Recipe, config: &StudentConfig, problems: &mut Problems) {
    let Some(at) = &config.model_type else { return };
    let decoder = at.value.encoder().is_none();
    let causal = value(&recipe.text.kind) == Some(TextKind::Causal);
    if decoder != causal && (!recipe.is_language() || recipe.text.kind.is_some()) {
        let found = format!("\"{}\"", at.value);
        let expected = format!("one of {}", architectures(recipe));
        return wrong(at, "student.config.model_type", found, expected, None, problems);
    }
    let mut only = |key: &str, place: Option<&Place>, fits: bool, needed: &str| {
        if let Some(place) = place.filter(|_| !fits) {
            let (key, needs) = (format!("student.config.{key}"), needed.to_owned());
            problems.push(place.clone(), ProblemKind::Needs { key, needs });
        }
    };
    let gated = decoder && at.value != Architecture::Gpt2;
    let rotary = "`model_type` of llama, mistral, qwen2 or qwen3";
    only("num_key_value_heads", place(&config.num_key_value_heads), gated, rotary);
    only("head_dim", place(&config.head_dim), gated, rotary);
    only("rope_theta", place(&config.rope_theta), gated, rotary);
    only("tie_word_embeddings", place(&config.tie_word_embeddings), decoder, "a decoder");
    only("hidden_act", place(&config.hidden_act), !decoder, "an encoder");
    only("type_vocab_size", place(&config.type_vocab_size), !decoder, "an encoder");
    if let (Some(at), Some(heads)) =
        (&config.num_key_value_heads, value(&config.num_attention_heads))
        && !heads.is_multiple_of(at.value)
    {
        let (found, expected) = (at.value.to_string(), format!("a divisor of {heads}"));
        wrong(at, "student.config.num_key_value_heads", found, expected, None, problems);
    }
    let dropout = recipe.student.hidden_dropout_prob.as_ref();
    if let Some(at) = dropout.filter(|at| gated && at.value > 0.0) {
        needs(
            at,
            "student.hidden_dropout_prob",
            "a family that has it: gpt2, or an encoder",
            problems,
        );
    }
}

fn place<T>(at: &Option<At<T>>) -> Option<&Place> {
    at.as_ref().map(|at| &at.place)
}

/// What cannot be where a teacher's answers were kept, or needs that they were.
fn check_kept(recipe: &Recipe, problems: &mut Problems) {
    let objective = &recipe.objective;
    let teachers = recipe.teachers();
    let kept = || teachers.iter().filter(|(_, teacher)| teacher.cache.is_some());
    if kept().next().is_none() {
        if let Some(at) = &objective.missing {
            needs(at, "objective.missing", "`teacher.cache`; a model names every token", problems);
        }
        return;
    }
    for (path, teacher) in kept() {
        let masked = value(&recipe.text.kind) == Some(TextKind::Masked);
        if let Some(at) = teacher.cache.as_ref().filter(|_| masked) {
            let needed = "`kind = \"causal\"`; hidden tokens change";
            needs(at, &format!("{path}.cache"), needed, problems);
        }
        if let Some(at) = &teacher.logits {
            needs(at, &format!("{path}.logits"), "no `teacher.cache`, which says it", problems);
        }
        if let Some(at) = teacher.vocabulary.as_ref().filter(|_| teachers.len() == 1) {
            needs(at, "teacher.vocabulary", IN_PLACE_OF_KEPT, problems);
        }
    }
    let needed = "a teacher that answers with every batch; what is kept has one temperature";
    if let Some(at) = &objective.temperature_end {
        needs(at, "objective.temperature_end", needed, problems);
    }
    let needed = "a teacher that answers with every batch; of the validation text nothing is kept";
    if let Some(at) = objective.until_overtaken.as_ref().filter(|at| at.value) {
        needs(at, "objective.until_overtaken", needed, problems);
    }
    if let Some(at) = &objective.on_policy {
        needs(at, "objective.on_policy", IN_PLACE_OF_KEPT, problems);
    }
    if let Some(at) = objective.uld.as_ref().filter(|_| teachers.len() == 1) {
        needs(at, "objective.uld", IN_PLACE_OF_KEPT, problems);
    }
}

/// What is needed where a teacher must answer to other tokens than the data's.
const IN_PLACE_OF_KEPT: &str =
    "`teacher.model` in place of `teacher.cache`, whose answers are to the data's tokens";

/// What the objective of a language model can have.
pub(crate) fn check_objective(recipe: &Recipe, problems: &mut Problems) {
    let objective = &recipe.objective;
    let no_teacher = recipe.teacher.place.is_none();
    if let Some(at) = objective.alpha.as_ref().filter(|at| no_teacher && at.value > 0.0) {
        needs(at, "objective.alpha", "a `[teacher]`; without one it is 0", problems);
    }
    let without = "a `[teacher]`; without one it changes nothing";
    divergence::check(objective, no_teacher.then_some(without), problems);
    if let Some(at) = &objective.temperature_end {
        if no_teacher {
            needs(at, "objective.temperature_end", without, problems);
        } else if objective.divergence() == crate::choices::DivergenceKind::MseLogits {
            let needed = "another `divergence`; mse_logits compares logits as they are";
            needs(at, "objective.temperature_end", needed, problems);
        }
    }
    check_kept(recipe, problems);
    if let Some(at) = objective.until_overtaken.as_ref().filter(|at| at.value) {
        if no_teacher {
            needs(at, "objective.until_overtaken", without, problems);
        }
        if value(&recipe.training.eval_strategy) == Some(EvalStrategy::Never) {
            let needed = "evaluations, but `eval_strategy` is \"never\"";
            needs(at, "objective.until_overtaken", needed, problems);
        }
    }
    check_own_words(recipe, problems);
    check_uld(recipe, problems);
    if let Some(at) = &objective.label_loss
        && at.value != crate::choices::LabelLoss::CrossEntropy
    {
        let (found, expected) =
            (format!("\"{}\"", at.value), "`cross_entropy` for a language model".to_owned());
        wrong(at, "objective.label_loss", found, expected, None, problems);
    }
    check_inside(recipe, problems);
    policy::check(recipe, problems);
    check_balance(recipe, problems);
    regularizer::check(recipe, problems);
    if let Some(at) = objective.regularizer.as_ref().and_then(|at| at.value.method.as_ref())
        && !matches!(at.value, RegularizerKind::LabelSmoothing | RegularizerKind::Labo)
    {
        let needed = "a `[task]`; for a language model it is \"label_smoothing\" or \"labo\"";
        needs(at, "objective.regularizer.method", needed, problems);
    }
}

/// Says what stands against a policy that weighs tokens.
fn check_balance(recipe: &Recipe, problems: &mut Problems) {
    const KEY: &str = "objective.balance.policy";
    let Some(balance) = &recipe.objective.balance else { return };
    let balance = &balance.value;
    let Some(at) = &balance.policy else { return };
    let kind = at.value;
    match kind {
        PolicyKind::Fixed | PolicyKind::Schedule => return,
        PolicyKind::Uncertainty | PolicyKind::Wsl | PolicyKind::AdaKd | PolicyKind::DynamicKd => {}
        PolicyKind::RwKd | PolicyKind::MetaWeightNet | PolicyKind::Own => {
            check_second(balance, problems);
        }
        _ => {
            let needed = "a `[task]`; for a language model it is fixed, schedule, uncertainty, wsl, ada_kd, \
                          dynamic_kd, rw_kd, meta_weight_net or own, which need of each token no more than its \
                          losses, its entropy, and how far these would help other rows";
            return needs(at, KEY, needed, problems);
        }
    }
    if recipe.objective.on_policy.is_some() {
        let needed =
            format!("no `objective.on_policy` for {kind}; what the student wrote has no label");
        needs(at, KEY, &needed, problems);
    }
    // Where there are several, it was said that the others know one.
    if kind == PolicyKind::Uncertainty || !recipe.other_teachers.is_empty() {
        return;
    }
    let of_tokens = "whose logits are those of the student's tokens";
    let learns = matches!(kind, PolicyKind::RwKd | PolicyKind::MetaWeightNet | PolicyKind::Own);
    if recipe.teacher.cache.is_some() && !learns {
        let needed = format!(
            "`teacher.model` in place of `teacher.cache` for {kind}; it weighs token by token"
        );
        needs(at, KEY, &needed, problems);
    }
    let hard = match value(&balance.meta) {
        Some(meta) => meta.loss() == MetaLoss::Hard,
        None => kind == PolicyKind::Own,
    };
    if recipe.teacher.cache.is_some() && learns && !hard {
        let needed = format!(
            "`meta = {{ loss = \"hard\" }}` for {kind} beside `teacher.cache`; no answers to other rows \
             were kept"
        );
        needs(at, KEY, &needed, problems);
    }
    if recipe.objective.uld.is_some() || recipe.teacher.vocabulary() != TeacherVocabulary::Refuse {
        let needed = format!(
            "a teacher {of_tokens} for {kind}: no `objective.uld`, and `teacher.vocabulary = \"refuse\"`"
        );
        needs(at, KEY, &needed, problems);
    }
    if let Some(adoption) = balance.adoption.as_ref().filter(|at| at.value != Adoption::Sample) {
        let needed = "\"sample\" for a language model; tokens are not ranked against one another";
        needs(adoption, "objective.balance.adoption", needed, problems);
    }
    if let Some(temperature) = balance.temperature.as_ref().filter(|at| at.value != 1.0) {
        let needed = "to be 1 for a language model, the temperature of the paper";
        needs(temperature, "objective.balance.temperature", needed, problems);
    }
}

/// Says what a policy of tokens that learns from other rows cannot have: a token is read once, its
/// logits stay on the device, and other rows are those of the text.
fn check_second(balance: &Balance, problems: &mut Problems) {
    let name = |key: &str| format!("objective.balance.{key}");
    if let Some(at) = balance.ema.as_ref().filter(|at| at.value != 0.0) {
        let needed = "to be 0 for a language model, whose tokens are not remembered one by one";
        needs(at, &name("ema"), needed, problems);
    }
    if let Some(at) = balance.sight.as_ref().filter(|at| at.value != Sight::Losses) {
        let needed = "\"losses\" for a language model, whose logits are never all there";
        needs(at, &name("sight"), needed, problems);
    }
    let Some(meta) = &balance.meta else { return };
    let meta = &meta.value;
    if let Some(at) = meta.source.as_ref().filter(|at| at.value != MetaFrom::Train) {
        let needed = "\"train\" for a language model: other rows of its text";
        needs(at, &name("meta.source"), needed, problems);
    }
    if let Some(at) =
        meta.estimator.as_ref().filter(|at| at.value != EstimatorKind::FiniteDifference)
    {
        let needed =
            "\"finite_difference\" for a language model, whose last layer is the vocabulary";
        needs(at, &name("meta.estimator"), needed, problems);
    }
    if let Some(at) = meta.at.as_ref().filter(|at| at.value != MetaAt::Here) {
        needs(at, &name("meta.at"), "\"here\" for a language model", problems);
    }
    if let Some(at) = meta.check.as_ref().filter(|at| at.value) {
        needs(at, &name("meta.check"), "a `[task]`; it compares losses of samples", problems);
    }
}

/// Says what stands against terms on what is inside student and teacher.
fn check_inside(recipe: &Recipe, problems: &mut Problems) {
    const KEY: &str = "objective.hidden";
    let Some(at) = recipe.objective.hidden.as_ref().filter(|at| !at.value.is_empty()) else {
        return;
    };
    if recipe.teacher.place.is_none() {
        needs(at, KEY, "a `[teacher]` to compare with", problems);
    }
    if !recipe.other_teachers.is_empty() {
        return needs(at, KEY, "one `[teacher]`, into which it looks", problems);
    }
    if recipe.teacher.cache.is_some() {
        let needed = "`teacher.model` in place of `teacher.cache`, whose answers have no inside";
        needs(at, KEY, needed, problems);
    }
    if recipe.objective.uld.is_some() {
        let needed = "no `objective.uld`; a teacher with tokens of its own has no hidden state beside each \
                      of the student's";
        needs(at, KEY, needed, problems);
    }
    if recipe.teacher.vocabulary() == TeacherVocabulary::Intersect {
        let needed = "a `teacher.vocabulary` other than \"intersect\"; behind a token that it does not know \
                      the teacher has read another text";
        needs(at, KEY, needed, problems);
    }
    check_terms(&at.value, problems);
    if value(&recipe.text.kind) != Some(TextKind::Causal) {
        return;
    }
    for (index, term) in at.value.iter().enumerate() {
        if let Some(kind) =
            term.kind.as_ref().filter(|at| at.value == HiddenKind::AttentionRelation)
        {
            let key = format!("{KEY}.{index}.kind");
            let needed = "`text.kind = \"masked\"`; its relations look ahead, where a decoder sees \
                          nothing: take mse, cosine or normalized_mse";
            needs(kind, &key, needed, problems);
        }
        if let Some(position) = term.position.as_ref().filter(|at| at.value == Position::First) {
            let key = format!("{KEY}.{index}.position");
            let needed =
                "`text.kind = \"masked\"`; a decoder's first token has seen nothing of its text";
            needs(position, &key, needed, problems);
        }
    }
}

/// Says what stands against batches whose replies the student writes.
fn check_own_words(recipe: &Recipe, problems: &mut Problems) {
    const KEY: &str = "objective.on_policy";
    let Some(at) = &recipe.objective.on_policy else { return };
    if recipe.teacher.place.is_none() {
        needs(at, KEY, "a `[teacher]`, which judges what the student writes", problems);
    }
    if value(&recipe.text.kind) == Some(TextKind::Masked) {
        needs(at, KEY, "`kind = \"causal\"`; an encoder does not write", problems);
    } else if recipe.text.shape() == DocumentShape::Text {
        let needed = "a `text.shape` with a reply, whose prompts the student goes on with";
        needs(at, KEY, needed, problems);
    }
    if recipe.objective.uld.is_some() {
        let needed =
            "no `objective.uld`; a teacher with tokens of its own cannot read the student's";
        needs(at, KEY, needed, problems);
    }
    if at.value.share.is_none() && !problems.is_wrong("objective.on_policy.share") {
        let meaning = "the share of steps that the student writes for, as 0.5";
        missing(at.place.clone(), "objective.on_policy.share", meaning, problems);
    }
    if let Some(replay) = &at.value.replay {
        const KEY: &str = "objective.on_policy.replay";
        if value(&recipe.training.eval_strategy) == Some(EvalStrategy::Never) {
            let needed =
                "evaluations, whose loss its share follows, but `eval_strategy` is \"never\"";
            needs(replay, KEY, needed, problems);
        }
        if !recipe.stages.is_empty() {
            let needed = "no `[[stage]]`; what a smaller student wrote is not the larger one's own";
            needs(replay, KEY, needed, problems);
        }
    }
    let (most, length) = (at.value.max_new_tokens(), recipe.text.sequence_length());
    if most >= length {
        let expected =
            format!("less than `text.sequence_length`, {length}, to leave room for prompts");
        let key = "objective.on_policy.max_new_tokens";
        let place = at.value.max_new_tokens.as_ref().map_or(&at.place, |at| &at.place);
        let at = At { value: most, place: place.clone() };
        wrong(&at, key, most.to_string(), expected, None, problems);
    }
}

/// Says what stands against comparing by size.
fn check_uld(recipe: &Recipe, problems: &mut Problems) {
    const KEY: &str = "objective.uld";
    let Some(at) = &recipe.objective.uld else { return };
    if recipe.teacher.place.is_none() {
        needs(at, KEY, "a `[teacher]`", problems);
    }
    if !recipe.other_teachers.is_empty() {
        return needs(at, KEY, IN_ONE_VOCABULARY, problems);
    }
    if value(&recipe.text.kind) == Some(TextKind::Masked) {
        needs(at, KEY, "`kind = \"causal\"`", problems);
    }
    if recipe.text.validation_split.is_some() {
        let needed = "`text.validation` in place of `validation_split`, whose documents are not parted \
                      for two tokenizers";
        needs(at, KEY, needed, problems);
    }
    let needed = "no `objective.uld`, which compares by size alone";
    if let Some(at) = &recipe.objective.divergence {
        needs(at, "objective.divergence", needed, problems);
    }
    if let Some(at) = &recipe.objective.scale_by_temperature_squared {
        needs(at, "objective.scale_by_temperature_squared", needed, problems);
    }
    if let Some(at) = &recipe.teacher.vocabulary {
        needs(at, "teacher.vocabulary", needed, problems);
    }
    if let Some(at) = recipe.objective.until_overtaken.as_ref().filter(|at| at.value) {
        let needed = "a teacher with the student's tokens; losses of others are not comparable";
        needs(at, "objective.until_overtaken", needed, problems);
    }
}
