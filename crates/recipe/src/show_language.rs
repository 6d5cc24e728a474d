//! A language model's plan in words, for people.

use std::fmt;

use crate::balance::{MetaPlan, PolicyPlan};
use crate::choices::{DocumentShape, Documents, Missing, Packing, ReplayRatio, TextKind};
use crate::divergence::{Divergence, rounded};
use crate::language::{
    AnyPlan, DecoderShape, FirstPlan, LanguagePlan, LanguageShape, LanguageTeacherPlan, TextPlan,
};
use crate::plan::{Evaluate, Limit, OutputPlan, Split, StudentSource};
use crate::show::{
    hidden, numbered, one_term, output, rows, shape as encoder, thousands, training,
};

impl fmt::Display for LanguagePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutputPlan { dir, save_model } = &self.output;
        rows(
            f,
            [
                ("plan", vec![format!("{}, digest {}", self.name, self.digest().short())]),
                ("text", text(self)),
                ("student", student(self)),
                ("teacher", teachers(self)),
                ("objective", objective(self)),
                ("training", training(&self.training)),
                ("output", output(dir, *save_model)),
            ],
        )
    }
}

impl fmt::Display for AnyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(plan) => plan.fmt(f),
            Self::Language(plan) => plan.fmt(f),
        }
    }
}

fn text(plan: &LanguagePlan) -> Vec<String> {
    let (text, examples) = (&plan.text, &plan.examples);
    let (train, tokens) = (thousands(examples.train), thousands(examples.train_tokens.0));
    let mut lines = vec![format!("{}: {train} rows, {tokens} tokens", files(text))];
    if let Limit::First(limit) = text.train_limit {
        lines.push(format!("  the first {} rows", thousands(limit)));
    }
    if plan.training.evaluate != Evaluate::Never {
        let of = match text.validation_split {
            Split::Share(share) => format!("{share} of the documents, held out"),
            Split::Nothing => text.validation.join(", "),
        };
        lines.push(format!("evaluated on {of}: {} rows", thousands(examples.validation)));
    }
    if let Some(FirstPlan { share, top_k, rows, .. }) = &text.first {
        let found = rows.map_or(String::new(), |rows| format!(" ({} rows)", thousands(rows.count)));
        lines.push(format!(
            "first the {share} of them that are hardest for a small model{found}, by the median loss of its \
             {top_k} likeliest tokens"
        ));
    }
    let documents = match (text.shape, text.documents) {
        (DocumentShape::Text, Documents::File) => "each file or row is a document".to_owned(),
        (DocumentShape::Text, Documents::BlankLine) => "blank lines part documents".to_owned(),
        (DocumentShape::Text, Documents::Marker) => {
            format!("lines of {:?} part documents", text.marker)
        }
        (shape, _) => format!("{shape}, of which the reply is learnt"),
    };
    let set = |token: &Option<String>| token.clone().filter(|token| !token.is_empty());
    let around = match (set(&text.begin), set(&text.end)) {
        (None, None) => String::new(),
        (None, Some(end)) => format!(", each ends with {end:?}"),
        (Some(begin), None) => format!(", each begins with {begin:?}"),
        (Some(begin), Some(end)) => format!(", each begins with {begin:?} and ends with {end:?}"),
    };
    lines.push(format!("{documents}{around}"));
    let pack = match text.pack {
        Packing::Documents => "documents end to end, which do not see one another",
        Packing::Stream => "one stream, in which documents are not told apart",
    };
    lines.push(format!(
        "rows of {} tokens of {} ({}), {pack}",
        thousands(text.sequence_length),
        thousands(plan.tokenizer.vocab_size),
        plan.tokenizer.path
    ));
    lines.push(match (text.kind, &text.masking) {
        (TextKind::Masked, Some(masking)) => {
            let of = if masking.whole_words { "words" } else { "tokens" };
            format!("guesses {} of the {of}, hidden", masking.probability)
        }
        _ => "foresees the next token".to_owned(),
    });
    lines
}

fn files(text: &TextPlan) -> String {
    /// Names that fit on a line.
    const MOST: usize = 3;
    let named = text.train.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    match text.train.len() {
        0 => text.path.clone(),
        count if count > MOST => format!("{}/{named} and {} more", text.path, count - MOST),
        _ => format!("{}/{named}", text.path),
    }
}

fn student(plan: &LanguagePlan) -> Vec<String> {
    let source = match &plan.student.source {
        StudentSource::Model { path, .. } => format!("weights of {path}"),
        StudentSource::Fresh => "random weights".to_owned(),
        StudentSource::Teacher { path, .. } => format!("a copy of the teacher, {path}"),
    };
    let (hidden, attention) = match &plan.student.shape {
        LanguageShape::Decoder(shape) => {
            (shape.hidden_dropout_prob, shape.attention_probs_dropout_prob)
        }
        LanguageShape::Encoder(shape) => {
            (shape.hidden_dropout_prob, shape.attention_probs_dropout_prob)
        }
    };
    let mut lines = vec![shape(&plan.student.shape), source];
    lines.extend(crate::show::moments(plan.student.moments));
    lines.push(format!("dropout {hidden} hidden, {attention} attention"));
    lines
}

fn shape(shape: &LanguageShape) -> String {
    let of: &DecoderShape = match shape {
        LanguageShape::Encoder(shape) => return encoder(shape),
        LanguageShape::Decoder(shape) => shape,
    };
    let keys = match of.num_key_value_heads {
        keys if keys == of.num_attention_heads => String::new(),
        keys => format!(" ({keys} of keys)"),
    };
    format!(
        "{}, {} layers, width {}, {} heads{keys}, {} tokens",
        of.model_type,
        of.num_hidden_layers,
        of.hidden_size,
        of.num_attention_heads,
        thousands(of.vocab_size)
    )
}

fn teachers(plan: &LanguagePlan) -> Vec<String> {
    if plan.other_teachers.is_empty() {
        return teacher(&plan.teacher);
    }
    numbered(plan.teachers().map(teacher), &plan.objective.teacher_parts)
}

fn teacher(teacher: &LanguageTeacherPlan) -> Vec<String> {
    match teacher {
        LanguageTeacherPlan::Nobody => vec!["none: the student learns from text alone".to_owned()],
        LanguageTeacherPlan::Model { path, shape, .. } => vec![
            self::shape(shape),
            format!("weights of {path}"),
            "answers computed with every batch".to_owned(),
        ],
        LanguageTeacherPlan::Kept { path, teacher, head: Some(head), .. } => vec![
            format!("hidden states kept in {path}, of weights {}", teacher.short()),
            format!("answers computed from them with the head of {head}"),
        ],
        LanguageTeacherPlan::Kept { path, teacher, width, drawn, missing, .. } => {
            let what = if *drawn { "draws from" } else { "likeliest tokens of" };
            let rest = match (drawn, missing) {
                (true, _) => "",
                (false, Missing::TailBucket) => ", all others as one",
                (false, Missing::Renormalise) => ", what all others have shared out among them",
                (false, Missing::Zero) => ", all others left out",
            };
            vec![
                format!("answers kept in {path}, of weights {}", teacher.short()),
                format!("{} {what} each{rest}", thousands(*width)),
            ]
        }
    }
}

/// What is said of policies that decide token by token.
fn of_tokens(policy: &PolicyPlan) -> Option<String> {
    let each = !matches!(
        policy,
        PolicyPlan::Fixed | PolicyPlan::Schedule { .. } | PolicyPlan::Uncertainty { .. }
    );
    each.then(|| "each token is weighed by itself".to_owned())
}

/// The other rows that a policy learns from, and what asking them costs.
fn second(meta: &MetaPlan) -> Vec<String> {
    meta.to_string().lines().map(str::to_owned).collect()
}

/// What each of several teachers has of w₂.
pub(crate) fn each_teacher(policy: &PolicyPlan) -> String {
    let whose = match policy {
        PolicyPlan::Fixed | PolicyPlan::Schedule { .. } => "its fixed part of it",
        _ => "a w₂ of its own from the policy",
    };
    format!("each teacher has {whose}")
}

fn objective(plan: &LanguagePlan) -> Vec<String> {
    let objective = &plan.objective;
    let label = match &objective.regularizer {
        None if plan.text.kind == TextKind::Masked => {
            "cross entropy with the hidden tokens".to_owned()
        }
        None => "cross entropy with the next token".to_owned(),
        Some(regularizer) => regularizer.formula(),
    };
    if plan.teacher == LanguageTeacherPlan::Nobody {
        return vec![label];
    }
    let scale = if objective.scale_by_temperature_squared { ", times T²" } else { "" };
    let temperature = format!("T = {}", objective.temperature);
    let teacher = match objective.divergence {
        _ if let Some(uld) = &objective.uld => format!(
            "Σ |q₍ₖ₎ − p₍ₖ₎| at {temperature}, the {} largest by rank and the others as one sum, where both \
             have read the same bytes",
            uld.top
        ),
        other @ Divergence::MseLogits { .. } => other.to_string(),
        other => format!("{other} at {temperature}{scale}; p the teacher's, q the student's"),
    };
    let several = plan.other_teachers.len();
    let teacher = match several {
        0 => teacher,
        more => match objective.balance.as_ref().map(|balance| &balance.policy) {
            None | Some(PolicyPlan::Fixed | PolicyPlan::Schedule { .. }) => {
                format!("{teacher}, the weighted mean over {} teachers", more + 1)
            }
            Some(_) => format!("{teacher}, of each of {} teachers", more + 1),
        },
    };
    let alpha = objective.alpha;
    let mut lines = match &objective.balance {
        None => vec![
            format!("{alpha} × {teacher}"),
            format!("{} × {}", rounded(1.0 - alpha), one_term(&label)),
        ],
        Some(balance) => vec![
            format!("w₂ × {teacher}"),
            format!("w₁ × {}", one_term(&label)),
            balance.policy.words(alpha),
        ]
        .into_iter()
        .chain(of_tokens(&balance.policy))
        .chain(balance.meta.iter().flat_map(second))
        .chain((several > 0).then(|| each_teacher(&balance.policy)))
        .collect(),
    };
    lines.extend(objective.hidden.iter().map(hidden));
    if let Some(own) = &objective.on_policy {
        let alone = match objective.hidden.is_empty() {
            true => "the teacher's term alone counts",
            false => "the teacher's terms alone count",
        };
        lines.push(format!(
            "in {} of the steps the student writes the replies, up to {} tokens at temperature {}, and \
             {alone}",
            own.share, own.max_new_tokens, own.temperature
        ));
    }
    if let Some(replay) = objective.on_policy.as_ref().and_then(|own| own.replay.as_ref()) {
        let new = match replay.ratio {
            ReplayRatio::Falling => "a part that falls from all to none",
            ReplayRatio::Constant => "half",
            ReplayRatio::Rising => "a part that rises from none to all",
        };
        lines.push(format!(
            "of these steps {new} writes anew, the others read again of the last {} texts; their share rises \
             by {} where the validation loss has risen by {}",
            thousands(replay.capacity),
            replay.rise,
            replay.margin
        ));
    }
    let insides =
        if objective.hidden.is_empty() { "" } else { "; of hidden states over all of them" };
    lines.push(format!("means over all tokens of a step that are learnt{insides}"));
    if objective.until_overtaken {
        lines.push(match several {
            0 => "the teacher falls silent once the student is better than it".to_owned(),
            _ => "each teacher falls silent once the student is better than it; its part is the text's"
                .to_owned(),
        });
    }
    lines
}
