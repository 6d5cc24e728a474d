//! `(Recipe, LanguageFacts) → LanguagePlan`, or all problems.

use heirloom_base::{Digest, Tokens};

use crate::choices::{Architecture, TeacherVocabulary, TextKind};
use crate::decide::{check, length, value};
use crate::divergence;
use crate::facts::{GrownFacts, TokenDifference, TokenizerFacts};
use crate::language::{
    DecoderShape, LanguageObjective, LanguagePlan, LanguageShape, LanguageStudent,
    LanguageTeacherPlan, OnPolicyPlan, ReplayTexts, TextPlan, UldPlan,
};
use crate::plan::{Examples, FORMAT, HiddenTermPlan, OutputPlan, StudentSource};
use crate::problem::{ProblemKind, Problems};
use crate::recipe::{At, Recipe, StudentConfig, Teacher};
use crate::resolve::{
    Amount, USUAL_DROPOUT, fresh_shape, hidden_terms, place, steps_per_epoch, teacher_parts,
    tokenizer, total_steps, training,
};
use crate::{Line, Moments, group, text};

/// What was found outside, for a language model.
#[derive(Clone, Debug, PartialEq)]
pub struct LanguageFacts {
    /// The text as [`Recipe::text`] decided it, with the files as they were found.
    pub text: TextPlan,
    /// Rows to train on, after split and limits.
    pub train_rows: u64,
    /// Their tokens.
    pub train_tokens: Tokens,
    /// Steps of one pass over them, for batches of a number of tokens.
    pub steps_per_epoch: Option<u64>,
    /// Rows to evaluate on.
    pub validation_rows: u64,
    /// Digest of all rows.
    pub data: Digest,
    /// The tokenizer that will be used.
    pub tokenizer: TokenizerFacts,
    /// The student's folder, where the recipe names one.
    pub student: Option<LanguageModelFacts>,
    /// How the student has grown, where that was written beside its weights.
    pub grown: Option<GrownFacts>,
    /// The teacher's folder, where the recipe names one.
    pub teacher: Option<LanguageModelFacts>,
    /// The teacher's kept answers, where the recipe names some; they belong to text and tokenizer.
    pub kept: Option<KeptFacts>,
    /// The teacher's own tokenizer, where its folder has one.
    pub teacher_tokenizer: Option<TokenizerFacts>,
    /// The first token at which the two differ.
    pub first_difference: Option<TokenDifference>,
    /// The other teachers, in the recipe's order.
    pub other_teachers: Vec<LanguageTeacherFacts>,
    /// Cores available.
    pub threads: u64,
}

/// One of several teachers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LanguageTeacherFacts {
    /// Its folder, where the recipe names one.
    pub model: Option<LanguageModelFacts>,
    /// Its kept answers, likewise.
    pub kept: Option<KeptFacts>,
    /// Its own tokenizer, where its folder has one.
    pub tokenizer: Option<TokenizerFacts>,
    /// The first token at which that and the run's differ.
    pub first_difference: Option<TokenDifference>,
}

impl LanguageFacts {
    /// What was found of teacher `at`, from 0.
    fn of_teacher(&self, at: usize) -> LanguageTeacherFacts {
        match at.checked_sub(1) {
            None => LanguageTeacherFacts {
                model: self.teacher,
                kept: self.kept.clone(),
                tokenizer: self.teacher_tokenizer,
                first_difference: self.first_difference.clone(),
            },
            Some(other) => self.other_teachers.get(other).cloned().unwrap_or_default(),
        }
    }
}

/// A folder of kept answers.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptFacts {
    /// Digest of all answers.
    pub digest: Digest,
    /// Digest of the weights of the model that gave them.
    pub teacher: Digest,
    /// Tokens of an answer at most.
    pub width: u64,
    /// Whether they were drawn from it.
    pub drawn: bool,
    /// Folder of the teacher, where its hidden states were kept and its head is needed.
    pub head: Option<String>,
}

/// A language model's folder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LanguageModelFacts {
    /// Its shape.
    pub shape: LanguageShape,
    /// Digest of its weights.
    pub digest: Digest,
}

/// Decides everything, or says all that stands against it.
///
/// # Errors
/// All problems at once.
pub fn resolve_language(recipe: &Recipe, facts: &LanguageFacts) -> Result<LanguagePlan, Problems> {
    let mut problems = Problems::new(&recipe.file);
    check(recipe, &mut problems);
    if problems.count() > 0 {
        return problems.or(None);
    }
    let plan = decided(recipe, facts, &mut problems);
    problems.or(plan)
}

/// The optimiser steps of a run of `recipe` over so many rows of so many tokens; `per_epoch` as in
/// [`LanguageFacts::steps_per_epoch`].
///
/// # Errors
/// Where the rows do not fill a batch, or the steps are too many.
pub fn language_steps(
    recipe: &Recipe,
    (rows, tokens): (u64, Tokens),
    per_epoch: Option<u64>,
) -> Result<u64, Problems> {
    let mut problems = Problems::new(&recipe.file);
    let digest = Digest::of(b"");
    let examples =
        Examples { train: rows, unlabelled: 0, train_tokens: tokens, validation: 0, digest };
    let amount = amount(recipe, &examples, per_epoch, 0);
    let batch = recipe.batches().0;
    let steps = steps_per_epoch(recipe, &amount, batch, &mut problems)
        .and_then(|per_epoch| total_steps(recipe, length(recipe), per_epoch, &mut problems));
    problems.or(steps)
}

fn amount<'a>(
    recipe: &Recipe,
    examples: &'a Examples,
    steps_per_epoch: Option<u64>,
    threads: u64,
) -> Amount<'a> {
    Amount {
        examples,
        steps_per_epoch,
        threads,
        best: text::MEASURES[0],
        train: ("text.train", place(&recipe.text.train, &recipe.text.place)),
        validation: ("text.validation", place(&recipe.text.validation, &recipe.text.place)),
    }
}

fn decided(
    recipe: &Recipe,
    facts: &LanguageFacts,
    problems: &mut Problems,
) -> Option<LanguagePlan> {
    let text = facts.text.clone();
    let teachers = teachers(recipe, facts, problems);
    let student = student(recipe, facts, problems);
    let tokenizer = tokenizer(recipe, facts.tokenizer, problems);
    let (teachers, student, tokenizer) = (teachers?, student?, tokenizer?);
    check_vocabulary(recipe, facts.tokenizer, &student, &teachers, problems);
    let of_rows = || place(&recipe.text.sequence_length, &recipe.text.place);
    let several = teachers.len() > 1;
    let shapes = teachers.iter().filter_map(|Learnt { written, plan, .. }| {
        // Which one it is its own lines say.
        let place = if several { place(&written.model, &written.place) } else { of_rows() };
        Some(("teacher", place, shape(plan)?))
    });
    for (model, place, shape) in
        std::iter::once(("student", of_rows(), student.shape)).chain(shapes)
    {
        let (length, longest) = (text.sequence_length, shape.longest_input());
        if length > longest {
            problems.push(place, ProblemKind::RowTooLong { length, model, longest });
        }
    }
    let examples = Examples {
        unlabelled: 0,
        train: facts.train_rows,
        train_tokens: facts.train_tokens,
        validation: facts.validation_rows,
        digest: facts.data,
    };
    let amount = amount(recipe, &examples, facts.steps_per_epoch, facts.threads);
    let training = training(recipe, &amount, problems);
    let (moments, grown) = group::decide(recipe, facts.grown.as_ref(), problems);
    let mut training = training?;
    training.groups.splice(0..0, grown);
    let student = LanguageStudent { moments, ..student };
    let mut plans = teachers.into_iter().map(|learnt| learnt.plan);
    let teacher = plans.next()?;
    let hidden = match shape(&teacher) {
        None => Some(Vec::new()),
        Some(shape) => {
            hidden_terms(recipe, [student.shape, shape].map(|shape| shape.inside()), problems)
        }
    };
    let objective = objective(recipe, &teacher, hidden?);
    Some(LanguagePlan {
        format: FORMAT,
        name: recipe.name(),
        text,
        examples,
        tokenizer,
        student,
        teacher,
        other_teachers: plans.collect(),
        objective,
        training,
        output: OutputPlan { dir: recipe.output_dir(), save_model: recipe.output.save_model() },
    })
}

fn objective(
    recipe: &Recipe,
    teacher: &LanguageTeacherPlan,
    hidden: Vec<HiddenTermPlan>,
) -> LanguageObjective {
    let objective = &recipe.objective;
    let usual = if *teacher == LanguageTeacherPlan::Nobody { 0.0 } else { 0.5 };
    let from = objective.temperature();
    LanguageObjective {
        alpha: value(&objective.alpha).unwrap_or(usual),
        teacher_parts: teacher_parts(recipe),
        balance: recipe.balance(),
        until_overtaken: value(&objective.until_overtaken).unwrap_or(false),
        temperature: Line { from, to: value(&objective.temperature_end).unwrap_or(from) },
        scale_by_temperature_squared: objective.scale_by_temperature_squared(),
        divergence: divergence::divergence(objective),
        uld: objective.uld.as_ref().map(|at| UldPlan {
            top: at.value.top(),
            sequence_length: value(&at.value.sequence_length)
                .unwrap_or_else(|| recipe.text.sequence_length()),
        }),
        on_policy: objective.on_policy.as_ref().map(|at| OnPolicyPlan {
            share: value(&at.value.share).unwrap_or_default(),
            max_new_tokens: at.value.max_new_tokens(),
            temperature: at.value.temperature(),
            replay: at.value.replay.as_ref().map(|at| ReplayTexts {
                capacity: at.value.capacity(),
                ratio: at.value.ratio(),
                rise: at.value.rise(),
                margin: at.value.margin(),
            }),
        }),
        hidden,
        regularizer: recipe.regularizer(),
    }
}

/// What was found of the model named `at`, where it is of the recipe's kind.
fn known(
    at: &At<String>,
    model: &'static str,
    found: Option<&LanguageModelFacts>,
    kind: TextKind,
    problems: &mut Problems,
) -> Option<LanguageModelFacts> {
    let Some(found) = found else {
        problems.push(at.place.clone(), ProblemKind::Unknown { what: at.value.clone() });
        return None;
    };
    let (is, wanted) = match (found.shape, kind) {
        (LanguageShape::Decoder(_), TextKind::Causal)
        | (LanguageShape::Encoder(_), TextKind::Masked) => return Some(*found),
        (LanguageShape::Encoder(_), TextKind::Causal) => ("an encoder", "decoders"),
        (LanguageShape::Decoder(_), TextKind::Masked) => ("a decoder", "encoders"),
    };
    let kind = kind.name();
    problems.push(at.place.clone(), ProblemKind::NotTheKind { model, found: is, kind, wanted });
    None
}

/// All teachers; the only one is nobody where the recipe has none.
fn teachers<'a>(
    recipe: &'a Recipe,
    facts: &LanguageFacts,
    problems: &mut Problems,
) -> Option<Vec<Learnt<'a>>> {
    let all = std::iter::once(&recipe.teacher).chain(&recipe.other_teachers).enumerate();
    let learnt = |(at, written): (usize, &'a Teacher)| {
        let found = facts.of_teacher(at);
        let plan = teacher(written, recipe, (facts.text.kind, &found), problems)?;
        Some(Learnt { written, found, plan })
    };
    // All of them, so that each one's problems are told.
    let each: Vec<Option<Learnt<'_>>> = all.map(learnt).collect();
    each.into_iter().collect()
}

fn teacher(
    written: &Teacher,
    recipe: &Recipe,
    (kind, found): (TextKind, &LanguageTeacherFacts),
    problems: &mut Problems,
) -> Option<LanguageTeacherPlan> {
    if let (Some(at), Some(kept)) = (&written.cache, found.kept.clone()) {
        let KeptFacts { digest, teacher, width, drawn, head } = kept;
        let (path, missing) = (at.value.clone(), recipe.objective.missing());
        let kept = LanguageTeacherPlan::Kept { path, digest, teacher, width, drawn, missing, head };
        return Some(kept);
    }
    let Some(at) = &written.model else { return Some(LanguageTeacherPlan::Nobody) };
    let found = known(at, "the teacher", found.model.as_ref(), kind, problems)?;
    let (path, digest, shape) = (at.value.clone(), found.digest, found.shape);
    let vocabulary = written.vocabulary();
    Some(LanguageTeacherPlan::Model { path, digest, shape, vocabulary })
}

fn student(
    recipe: &Recipe,
    facts: &LanguageFacts,
    problems: &mut Problems,
) -> Option<LanguageStudent> {
    let student = &recipe.student;
    let kind = facts.text.kind;
    let (source, mut shape) = if let Some(at) = &student.model {
        let found = known(at, "the student", facts.student.as_ref(), kind, problems)?;
        let source = StudentSource::Model { path: at.value.clone(), digest: found.digest };
        (source, found.shape)
    } else if let Some(at) = &student.config {
        (StudentSource::Fresh, fresh(&at.value, facts)?)
    } else {
        let at = recipe.teacher.model.as_ref()?;
        let found = known(at, "the teacher", facts.teacher.as_ref(), kind, problems)?;
        let source = StudentSource::Teacher { path: at.value.clone(), digest: found.digest };
        (source, found.shape)
    };
    let (hidden, attention) = match &mut shape {
        LanguageShape::Decoder(shape) => {
            (&mut shape.hidden_dropout_prob, &mut shape.attention_probs_dropout_prob)
        }
        LanguageShape::Encoder(shape) => {
            (&mut shape.hidden_dropout_prob, &mut shape.attention_probs_dropout_prob)
        }
    };
    *hidden = value(&student.hidden_dropout_prob).unwrap_or(*hidden);
    *attention = value(&student.attention_probs_dropout_prob).unwrap_or(*attention);
    Some(LanguageStudent { source, shape, moments: Moments::Zero })
}

fn fresh(config: &StudentConfig, facts: &LanguageFacts) -> Option<LanguageShape> {
    let (model_type, vocab_size) = (value(&config.model_type)?, facts.tokenizer.vocab_size);
    if model_type.encoder().is_some() {
        return Some(LanguageShape::Encoder(fresh_shape(config, vocab_size)?));
    }
    let gpt2 = model_type == Architecture::Gpt2;
    let (hidden_size, heads) = (value(&config.hidden_size)?, value(&config.num_attention_heads)?);
    let dropout = if gpt2 { USUAL_DROPOUT } else { 0.0 };
    Some(LanguageShape::Decoder(DecoderShape {
        model_type,
        vocab_size,
        hidden_size,
        num_hidden_layers: value(&config.num_hidden_layers)?,
        num_attention_heads: heads,
        num_key_value_heads: value(&config.num_key_value_heads).unwrap_or(heads),
        head_dim: value(&config.head_dim).unwrap_or(hidden_size / heads),
        intermediate_size: value(&config.intermediate_size).unwrap_or(4 * hidden_size),
        max_position_embeddings: value(&config.max_position_embeddings)
            .unwrap_or(facts.text.sequence_length),
        rope_theta: if gpt2 { 0.0 } else { value(&config.rope_theta).unwrap_or(1e4) },
        tie_word_embeddings: value(&config.tie_word_embeddings).unwrap_or(true),
        layer_norm_eps: value(&config.layer_norm_eps).unwrap_or(if gpt2 { 1e-5 } else { 1e-6 }),
        initializer_range: config.initializer_range(),
        hidden_dropout_prob: dropout,
        attention_probs_dropout_prob: dropout,
    }))
}

fn shape(teacher: &LanguageTeacherPlan) -> Option<LanguageShape> {
    match teacher {
        LanguageTeacherPlan::Nobody | LanguageTeacherPlan::Kept { .. } => None,
        LanguageTeacherPlan::Model { shape, .. } => Some(*shape),
    }
}

/// A teacher: as it is written, what was found of it, and what becomes of it.
struct Learnt<'a> {
    written: &'a Teacher,
    found: LanguageTeacherFacts,
    plan: LanguageTeacherPlan,
}

/// Says so where a model has no embeddings for some tokens, or a teacher reads other ones.
fn check_vocabulary(
    recipe: &Recipe,
    ours: TokenizerFacts,
    student: &LanguageStudent,
    teachers: &[Learnt<'_>],
    problems: &mut Problems,
) {
    // Where the recipe says what is done, tokens are compared one by one when both are opened.
    let chosen = |written: &Teacher| {
        written.vocabulary() != TeacherVocabulary::Refuse || recipe.objective.uld.is_some()
    };
    let at = |written: &Teacher| place(&written.model, &written.place);
    let before = problems.count();
    for Learnt { written, found, .. } in teachers {
        let theirs = found.tokenizer.filter(|theirs| theirs.digest != ours.digest);
        if let Some(theirs) = theirs.filter(|_| !chosen(written)) {
            let (teacher, student) = (theirs.vocab_size, ours.vocab_size);
            let difference = found.first_difference.as_ref().map(TokenDifference::words);
            problems.push(at(written), ProblemKind::OtherTokens { teacher, student, difference });
        }
    }
    if problems.count() > before {
        return;
    }
    let theirs = |learnt: &Learnt<'_>| shape(&learnt.plan).filter(|_| !chosen(learnt.written));
    let shapes = teachers.iter().filter_map(theirs).map(|shape| ("teacher", shape));
    for (model, shape) in std::iter::once(("student", student.shape)).chain(shapes) {
        let (tokenizer, embeddings) = (ours.vocab_size, shape.vocab_size());
        if tokenizer > embeddings {
            let kind = ProblemKind::TokenizerTooLarge { tokenizer, model, embeddings };
            let of = &recipe.tokenizer;
            problems.push(place(&of.path, &of.place), kind);
            return;
        }
    }
    let student = student.shape.vocab_size();
    for learnt in teachers {
        let teacher = theirs(learnt).map(|shape| shape.vocab_size());
        if let Some(teacher) = teacher.filter(|&theirs| theirs != student) {
            problems.push(
                at(learnt.written),
                match teachers.len() {
                    1 => ProblemKind::FewerTokens { teacher, student },
                    _ => ProblemKind::FewerTokensAmong { teacher, student },
                },
            );
        }
    }
}
