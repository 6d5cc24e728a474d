//! A plan in words, for people.
//!
//! In: a plan. Out: a table of two columns. Never: a number that is not in the plan.

use std::fmt;

use crate::balance::PolicyPlan;
use crate::choices::{Format, LabelNoiseKind, Logits, OnBadLine, OnNonfinite, TaskKind};
use crate::divergence::{Divergence, rounded};
use crate::plan::{
    Average, Batch, Compare, EarlyStopping, Evaluate, HiddenTermPlan, LabelNoise, Length, Limit,
    ModelShape, Moments, Plan, Save, Split, StudentSource, TeacherPlan, TeacherTokens,
    TrainingPlan, Unlabelled,
};
use crate::show_language::each_teacher;
use crate::stage::StagePlan;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("plan", vec![format!("{}, digest {}", self.name, self.digest().short())]),
            ("data", data(self)),
            ("student", student(self)),
            ("teacher", teachers(self)),
            ("objective", objective(self)),
            ("training", training(&self.training)),
            ("output", output(&self.output.dir, self.output.save_model)),
        ];
        self::rows(f, rows)
    }
}

/// Each part's name before the first of its lines.
pub(crate) fn rows<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    rows: [(&str, Vec<String>); N],
) -> fmt::Result {
    let lines = rows.into_iter().flat_map(|(name, lines)| {
        let names = std::iter::once(name).chain(std::iter::repeat(""));
        names.zip(lines).map(|(name, line)| format!("{name:9}  {line}")).collect::<Vec<_>>()
    });
    f.write_str(&lines.collect::<Vec<_>>().join("\n"))
}

fn data(plan: &Plan) -> Vec<String> {
    let (data, examples) = (&plan.data, &plan.examples);
    let mut lines = Vec::new();
    let (train, tokens) = (thousands(examples.train), thousands(examples.train_tokens.0));
    let files = match &data.unlabelled {
        Unlabelled::Some { file, .. } if data.train.is_empty() => file.clone(),
        _ => data.train.join(", "),
    };
    lines.push(format!("{}/{files}: {train} examples, {tokens} tokens", data.path));
    if let Limit::First(limit) = data.train_limit {
        let of = if examples.unlabelled > 0 { format!(" of {files}") } else { String::new() };
        lines.push(format!("  the first {} after the shuffle{of}", thousands(limit)));
    }
    if let (Unlabelled::Some { limit, .. }, true) = (&data.unlabelled, data.train.is_empty()) {
        let first = match limit {
            Limit::First(_) => "; the first after the shuffle",
            Limit::All => "",
        };
        lines.push(format!("  none of them has a label{first}"));
    } else if let Unlabelled::Some { file, limit } = &data.unlabelled {
        let count = thousands(examples.unlabelled);
        let first = match limit {
            Limit::First(_) => ", the first after the shuffle",
            Limit::All => "",
        };
        lines.push(format!("  {count} of them without a label: the texts of {file}{first}"));
    }
    if let LabelNoise::Some { share, kind, seed } = data.label_noise {
        let to = match kind {
            LabelNoiseKind::Symmetric => "another one",
            LabelNoiseKind::Asymmetric => "the next one",
        };
        lines.push(format!("  LABEL NOISE: {share} of its labels are made {to}, by seed {seed}"));
    }
    if let Split::Share(share) = data.validation_split {
        lines.push(format!("  {share} of it is held out"));
    }
    if plan.training.evaluate != Evaluate::Never {
        let of = match data.evaluate_on {
            crate::choices::EvaluateOn::Split => "the part held out".to_owned(),
            crate::choices::EvaluateOn::Validation => data.validation.join(", "),
        };
        lines.push(format!("evaluated on {of}: {} examples", thousands(examples.validation)));
    }
    if !data.test.is_empty() {
        lines.push(format!("tested on {} after training", data.test.join(", ")));
    }
    let texts: Vec<String> = data.texts.iter().map(ToString::to_string).collect();
    let columns = match data.format {
        Format::LabelFirst => "a label and a text on each line".to_owned(),
        _ => format!("text in {}, label in {}", texts.join(" and "), data.label),
    };
    lines.push(match data.label_separator.as_str() {
        "" => columns,
        separator => format!("{columns}; labels end at {separator:?}"),
    });
    let labels = plan.labels();
    lines.push(match data.kind {
        TaskKind::Regression => "predicts a number".to_owned(),
        TaskKind::Classification => format!("predicts one of {}", few(labels)),
        TaskKind::MultiLabel => format!("predicts any of {}", few(labels)),
    });
    lines.push(format!("measured by {}", data.metric.values().join(" and ")));
    lines.push(format!(
        "inputs of up to {} tokens of {} ({})",
        data.max_length,
        thousands(plan.tokenizer.vocab_size),
        plan.tokenizer.path
    ));
    if data.on_bad_line == OnBadLine::Skip {
        let limit = thousands(data.bad_line_limit);
        lines.push(format!("skips up to {limit} lines per file that cannot be read"));
    }
    lines
}

/// Labels by name, or how many they are.
fn few(labels: &[String]) -> String {
    /// Names that fit on a line.
    const MOST: usize = 8;
    let named = labels.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if labels.len() > MOST { format!("{} labels: {named}, …", labels.len()) } else { named }
}

/// The moments that a run begins with, where there are some.
pub(crate) fn moments(moments: Moments) -> Option<String> {
    let Moments::Kept { updates } = moments else { return None };
    Some(format!("with the optimiser's moments after {} steps", thousands(updates)))
}

fn student(plan: &Plan) -> Vec<String> {
    let student = &plan.student;
    let source = match &student.source {
        StudentSource::Model { path, .. } => format!("weights of {path}"),
        StudentSource::Fresh => "random weights".to_owned(),
        StudentSource::Teacher { path, .. } => format!("a copy of the teacher, {path}"),
    };
    let kept = !student.layers.iter().copied().eq(0..student.layers.len() as u64);
    let mut lines = vec![self::shape(&student.shape), source];
    lines.extend(moments(student.moments));
    if kept {
        let layers: Vec<String> = student.layers.iter().map(ToString::to_string).collect();
        lines.push(format!("keeps layers {} of it", layers.join(", ")));
    }
    let shape = &student.shape;
    lines.push(format!(
        "dropout {} hidden, {} attention, {} classifier",
        shape.hidden_dropout_prob, shape.attention_probs_dropout_prob, shape.classifier_dropout
    ));
    lines
}

fn teachers(plan: &Plan) -> Vec<String> {
    if plan.other_teachers.is_empty() {
        return teacher(&plan.teacher);
    }
    numbered(plan.teachers().map(teacher), &plan.objective.teacher_parts)
}

/// The lines of several teachers, each with its number and its part of their weight.
pub(crate) fn numbered(teachers: impl Iterator<Item = Vec<String>>, parts: &[f64]) -> Vec<String> {
    let each = teachers.zip(parts).enumerate().flat_map(|(at, (mut lines, part))| {
        lines[0] = format!("[{at}] {}", lines[0]);
        lines.push(format!("{} of the teachers' weight", rounded(*part)));
        lines
    });
    each.collect()
}

fn teacher(teacher: &TeacherPlan) -> Vec<String> {
    match teacher {
        TeacherPlan::Nobody => vec!["none: the student learns from labels alone".to_owned()],
        TeacherPlan::Answers { path, .. } => vec![format!("answers found by their text in {path}")],
        TeacherPlan::Model { path, shape, logits, batch_tokens, tokens, .. } => {
            let answers = match logits {
                Logits::Cache => "answers computed once and kept",
                Logits::Live => "answers computed at every step",
            };
            let own = match tokens {
                TeacherTokens::Shared => "",
                TeacherTokens::Own { .. } => " of its own tokenizer",
            };
            let tokens = thousands(*batch_tokens);
            vec![
                self::shape(shape),
                format!("weights of {path}"),
                format!("{answers}, {tokens} tokens{own} at once"),
            ]
        }
    }
}

pub(crate) fn shape(shape: &ModelShape) -> String {
    format!(
        "{}, {} layers, width {}, {} heads",
        shape.model_type, shape.num_hidden_layers, shape.hidden_size, shape.num_attention_heads
    )
}

fn objective(plan: &Plan) -> Vec<String> {
    let objective = &plan.objective;
    let labels = objective.label_loss.name().replace('_', " ");
    let alpha = objective.alpha;
    let labels = match &objective.regularizer {
        None => format!("{labels} with the labels"),
        Some(regularizer) => regularizer.formula(),
    };
    let mut lines = if plan.teacher == TeacherPlan::Nobody {
        vec![labels]
    } else {
        let scale = if objective.scale_by_temperature_squared { ", times T²" } else { "" };
        let balance = objective.balance.as_ref();
        let learnt = matches!(balance.map(|b| &b.policy), Some(PolicyPlan::Ctkd { .. }));
        let temperature =
            if learnt { "a learnt T".to_owned() } else { format!("T = {}", objective.temperature) };
        let teacher = match plan.data.kind {
            TaskKind::Classification => {
                let divergence = objective.divergence;
                match divergence {
                    Divergence::MseLogits { .. } => divergence.to_string(),
                    _ => format!(
                        "{divergence} at {temperature}{scale}; p the teacher's, q the student's"
                    ),
                }
            }
            TaskKind::MultiLabel | TaskKind::Regression => {
                "mean squared difference from the teacher's outputs".to_owned()
            }
        };
        let teacher = match plan.other_teachers.len() {
            0 => teacher,
            more => format!("{teacher}, the weighted mean over {} teachers", more + 1),
        };
        match balance {
            None => vec![
                format!("{alpha} × {teacher}"),
                format!("{} × {}", rounded(1.0 - alpha), one_term(&labels)),
            ],
            Some(balance) => {
                let mut lines = vec![
                    format!("w₂ × {teacher}"),
                    format!("w₁ × {}", one_term(&labels)),
                    balance.policy.words(alpha),
                ];
                if !plan.other_teachers.is_empty() {
                    lines.push(each_teacher(&balance.policy));
                }
                let meta = balance.meta.as_ref().map(ToString::to_string).unwrap_or_default();
                lines.extend(meta.lines().map(str::to_owned));
                lines
            }
        }
    };
    if let Some(meta) = &objective.regularizer_meta {
        lines.extend(meta.to_string().lines().map(str::to_owned));
    }
    lines.extend(objective.hidden.iter().map(hidden));
    lines
}

/// A term on what is inside both models.
pub(crate) fn hidden(term: &HiddenTermPlan) -> String {
    let mapped = |projection: bool| if projection { ", through a learned map" } else { "" };
    let how = match term.compare {
        Compare::Mse { projection } => format!("mse{}", mapped(projection)),
        Compare::Cosine { projection } => format!("cosine{}", mapped(projection)),
        Compare::NormalizedMse { projection } => {
            format!("normalized mse{}", mapped(projection))
        }
        Compare::AttentionRelation { relation, heads } => {
            format!("relations of {relation} in {heads} heads")
        }
    };
    let pairs: Vec<String> = term.layers.iter().map(|[s, t]| format!("{s}–{t}")).collect();
    let (weight, position) = (term.weight, term.position);
    let pairs = pairs.join(" ");
    format!("{weight} × {how}; layers {pairs}, {position} positions")
}

/// A sum in brackets, so that what stands before it is a factor of all of it.
pub(crate) fn one_term(formula: &str) -> String {
    let (sum, letters) = formula.split_at(formula.find("; ").unwrap_or(formula.len()));
    if sum.contains(" + ") || sum.contains(" − ") {
        return format!("({sum}){letters}");
    }
    formula.to_owned()
}

pub(crate) fn training(training: &TrainingPlan) -> Vec<String> {
    let steps = thousands(training.total_steps);
    let length = match training.length {
        Length::Epochs(epochs) => format!("{epochs} epochs = {steps} steps"),
        Length::Steps(_) => format!("{steps} steps"),
    };
    let mut lines = vec![
        format!("{length}, {} a pass", thousands(training.steps_per_epoch)),
        format!(
            "{} a step, {} at once{}",
            batch(training.batch),
            batch(training.micro_batch),
            if training.activation_checkpointing { ", layers computed again" } else { "" },
        ),
        format!(
            "learning rate {:e}, {}, {} steps of warm-up",
            training.learning_rate,
            training.lr_scheduler_type,
            thousands(training.warmup_steps)
        ),
        format!(
            "AdamW β {} {}, ε {:e}, decay {}, gradients {}",
            training.adam_beta1,
            training.adam_beta2,
            training.adam_epsilon,
            training.weight_decay,
            match training.max_grad_norm {
                0.0 => "not clipped".to_owned(),
                norm => format!("clipped at {norm}"),
            }
        ),
    ];
    lines.extend(average(training));
    lines.extend(training.stages.iter().map(StagePlan::words));
    lines.extend(training.groups.iter().map(|group| format!("  {}", group.words())));
    let evaluate = match training.evaluate {
        Evaluate::Never => "never evaluated".to_owned(),
        Evaluate::AtEnd => "evaluated at the end".to_owned(),
        Evaluate::EveryEpoch => "evaluated after every pass".to_owned(),
        Evaluate::EverySteps(steps) => format!("evaluated every {} steps", thousands(steps)),
    };
    let save = match training.save {
        Save::WithEvaluation if training.evaluate == Evaluate::Never => {
            "saved at the end".to_owned()
        }
        Save::WithEvaluation => "saved then".to_owned(),
        Save::EverySteps(steps) => format!("saved every {} steps", thousands(steps)),
    };
    let best = match training.evaluate {
        Evaluate::Never => String::new(),
        _ => format!("best by {}, ", training.metric_for_best),
    };
    let kept = training.save_total_limit;
    lines.push(format!("{evaluate}, {save}; {best}last {kept} kept"));
    if let EarlyStopping::After(patience) = training.early_stopping {
        lines.push(format!("stops after {patience} evaluations without a better one"));
    }
    lines.push(match training.on_nonfinite {
        OnNonfinite::Stop => "stops at a loss that is not finite".to_owned(),
        OnNonfinite::Skip => {
            format!("skips up to {} steps that are not finite", training.nonfinite_limit)
        }
    });
    let (seed, precision, threads) = (training.seed, training.precision, training.threads);
    lines.push(format!("seed {seed}, {precision}, {threads} threads"));
    lines
}

/// What is averaged, if anything is.
fn average(training: &TrainingPlan) -> Option<String> {
    let what = match training.average {
        Average::None => return None,
        Average::Swa { from_step, every } => {
            let steps = match every {
                1 => "every step".to_owned(),
                every => format!("every {} steps", thousands(every)),
            };
            format!(
                "the mean of the weights of {steps} from step {} on (swa)",
                thousands(from_step)
            )
        }
        Average::Ema { decay } => {
            format!("the mean of the weights of all steps, each weighing {decay} of the next (ema)")
        }
    };
    Some(format!("evaluated and kept: {what}"))
}

pub(crate) fn output(dir: &str, save_model: bool) -> Vec<String> {
    let model = if save_model { "with" } else { "without" };
    vec![format!("{dir}, {model} the best model")]
}

fn batch(batch: Batch) -> String {
    match batch {
        Batch::Sequences(size) => format!("{} sequences", thousands(size)),
        Batch::Tokens(size) => format!("{} tokens", thousands(size)),
    }
}

/// `12 345`, as a person groups it.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits are ASCII"))
        .collect();
    groups.join(" ")
}
