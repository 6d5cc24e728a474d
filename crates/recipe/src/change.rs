//! An old plan against a new one, when a run is taken up again.
//!
//! In: two plans, and the keys that were asked for with `--set`. Out: each field that differs and
//! whether the run may go on with it. Never: changes a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::LanguagePlan;
use crate::plan::{Plan, TrainingPlan};

/// All fields that differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The fields, in the order of their names.
    pub fields: Vec<Changed>,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Its name in the plan.
    pub field: String,
    /// Its old value, as JSON; empty where it was not there.
    pub was: String,
    /// Its new value, as JSON; empty where it is not there.
    pub is: String,
    /// Whether the run may go on with it.
    pub verdict: Verdict,
}

/// Whether a run may go on with a changed field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may; the change is noted in the record.
    Allowed,
    /// It may not, for this reason.
    Refused(&'static str),
}

impl Change {
    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether the run may go on.
    pub fn is_allowed(&self) -> bool {
        self.fields.iter().all(|field| field.verdict == Verdict::Allowed)
    }

    /// The exit code of a command that met it: 0, or 2 where a field is refused.
    pub fn exit_code(&self) -> u8 {
        if self.is_allowed() { 0 } else { 2 }
    }
}

/// Compares two plans. `asked` are the keys given by `--set`, such as `training.learning_rate`.
pub fn change(old: &Plan, new: &Plan, asked: &[String]) -> Change {
    compare((old, &old.training), (new, &new.training), asked)
}

/// Compares two plans of language models.
pub fn change_language(old: &LanguagePlan, new: &LanguagePlan, asked: &[String]) -> Change {
    compare((old, &old.training), (new, &new.training), asked)
}

fn compare<P: serde::Serialize>(
    (old, old_training): (&P, &TrainingPlan),
    (new, new_training): (&P, &TrainingPlan),
    asked: &[String],
) -> Change {
    let follows = same_warmup_share(old_training, new_training);
    let (old, new) = (fields(old), fields(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changed = Vec::new();
    for field in names {
        let (was, is) = (old.get(field), new.get(field));
        if was != is {
            let text = |value: Option<&String>| value.cloned().unwrap_or_default();
            let verdict = match field.as_str() {
                "training.warmup_steps" if follows => Verdict::Allowed,
                _ => verdict(field, asked),
            };
            changed.push(Changed { field: field.clone(), was: text(was), is: text(is), verdict });
        }
    }
    Change { fields: changed }
}

/// Whether one share of the steps gives the warm-up of both plans: a longer run then warms up
/// longer without being asked to.
fn same_warmup_share(old: &TrainingPlan, new: &TrainingPlan) -> bool {
    let interval = |training: &TrainingPlan| {
        // ⌈share × total⌉ = warm-up where warm-up − 1 < share × total ≤ warm-up.
        let (total, warmup) = (training.total_steps.max(1), training.warmup_steps);
        (i128::from(warmup) - 1, i128::from(warmup), i128::from(total))
    };
    let ((old_low, old_high, old_total), (new_low, new_high, new_total)) =
        (interval(old), interval(new));
    old_low * new_total < new_high * old_total && new_low * old_total < old_high * new_total
}

/// What may become of a field.
enum Rule {
    Free,
    /// Free where one of these keys was given by `--set`.
    Asked(&'static [&'static str]),
    Fixed(&'static str),
}

use Rule::{Asked, Fixed, Free};

const COURSE: &str = "the temperature of the steps so far followed another course";
const DATA: &str = "the order of the data would change";
const MODEL: &str = "the saved weights have another shape";
const TEACHER: &str = "the steps so far learned from another teacher";
const RANDOM: &str = "order and dropout would no longer follow from one seed";
const METRIC: &str = "earlier evaluations could not be compared with later ones";

/// The rule of each field, or of all fields below it; the longest name decides.
const RULES: &[(&str, Rule)] = &[
    ("format", Fixed("the plan was written by another version")),
    ("name", Free),
    ("data", Fixed(DATA)),
    ("data.path", Free),
    ("data.metric", Fixed(METRIC)),
    ("data.test", Free),
    ("data.validation", Fixed(METRIC)),
    ("data.validation_limit", Fixed(METRIC)),
    ("data.evaluate_on", Fixed(METRIC)),
    ("data.allow_overlap", Free),
    ("data.label_noise", Fixed("other labels would be wrong")),
    ("text", Fixed(DATA)),
    ("text.path", Free),
    ("text.first.answers", Free),
    ("text.validation", Fixed(METRIC)),
    ("text.validation_limit", Fixed(METRIC)),
    ("examples", Fixed("the files are not those this run began with")),
    ("tokenizer", Fixed("the saved embeddings belong to other tokens")),
    ("tokenizer.path", Free),
    ("student", Fixed(MODEL)),
    ("student.source", Fixed("the run began from other weights")),
    ("student.source.model.path", Free),
    ("student.source.teacher.path", Free),
    ("student.shape.hidden_dropout_prob", Asked(&["student.hidden_dropout_prob"])),
    (
        "student.shape.attention_probs_dropout_prob",
        Asked(&["student.attention_probs_dropout_prob"]),
    ),
    ("student.shape.classifier_dropout", Asked(&["student.classifier_dropout"])),
    ("student.shape.decoder.hidden_dropout_prob", Asked(&["student.hidden_dropout_prob"])),
    (
        "student.shape.decoder.attention_probs_dropout_prob",
        Asked(&["student.attention_probs_dropout_prob"]),
    ),
    ("teacher", Fixed(TEACHER)),
    ("other_teachers", Fixed(TEACHER)),
    ("teacher.model.path", Free),
    ("teacher.answers.path", Free),
    ("teacher.model.vocabulary", Fixed(TEACHER)),
    ("teacher.kept.path", Free),
    ("teacher.model.logits", Free),
    ("teacher.model.batch_tokens", Free),
    ("objective", Fixed("the saved projections belong to other terms")),
    ("objective.alpha", Asked(&["objective.alpha"])),
    ("objective.teacher_parts", Asked(&["objective.teacher_parts"])),
    ("objective.temperature", Asked(&["objective.temperature"])),
    ("objective.temperature.from", Fixed(COURSE)),
    ("objective.temperature.to", Fixed(COURSE)),
    ("objective.uld", Fixed("the rows would be others")),
    ("objective.on_policy", Fixed("the student would have written other texts, at other steps")),
    ("objective.until_overtaken", Asked(&["objective.until_overtaken"])),
    ("objective.scale_by_temperature_squared", Asked(&["objective.scale_by_temperature_squared"])),
    (
        "objective.divergence",
        Asked(&[
            "objective.divergence",
            "objective.divergence_alpha",
            "objective.divergence_beta",
            "objective.divergence_centred",
        ]),
    ),
    ("objective.balance", Fixed("what its policy has learnt, and on what, belongs to the old one")),
    (
        "objective.regularizer",
        Fixed("the label would become another, and what it gathered with it"),
    ),
    ("objective.regularizer_meta", Fixed("what was learnt from the second set belongs to it")),
    ("objective.label_loss", Fixed("the loss would be another")),
    ("training.length", Free),
    ("training.total_steps", Free),
    ("training.steps_per_epoch", Fixed(DATA)),
    ("training.batch", Fixed(DATA)),
    ("training.micro_batch", Asked(&["training.micro_batch_size", "training.micro_batch_tokens"])),
    // The numbers are the same either way.
    ("training.activation_checkpointing", Free),
    ("training.learning_rate", Asked(&["training.learning_rate"])),
    ("training.lr_scheduler_type", Asked(&["training.lr_scheduler_type"])),
    ("training.warmup_steps", Asked(&["training.warmup_steps", "training.warmup_ratio"])),
    ("training.weight_decay", Asked(&["training.weight_decay"])),
    ("training.adam_beta1", Fixed("the saved moments were gathered with the old one")),
    ("training.adam_beta2", Fixed("the saved moments were gathered with the old one")),
    ("training.adam_epsilon", Asked(&["training.adam_epsilon"])),
    ("training.max_grad_norm", Asked(&["training.max_grad_norm"])),
    ("training.groups", Fixed("moments were gathered by the old ones")),
    ("training.stages", Fixed("the student would be of another size")),
    ("training.average", Fixed("the average so far was gathered by the old one")),
    ("training.seed", Fixed(RANDOM)),
    ("training.evaluate", Free),
    ("training.save", Free),
    ("training.save_total_limit", Free),
    ("training.early_stopping", Free),
    ("training.metric_for_best", Fixed(METRIC)),
    ("training.on_nonfinite", Asked(&["training.on_nonfinite"])),
    ("training.nonfinite_limit", Asked(&["training.nonfinite_limit"])),
    ("training.precision", Fixed("the steps so far were computed in another precision")),
    ("training.threads", Free),
    ("output", Free),
];

fn rule(field: &str) -> Option<&'static Rule> {
    let covers = |name: &str| {
        field.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let fitting = RULES.iter().filter(|(name, _)| covers(name));
    fitting.max_by_key(|(name, _)| name.len()).map(|(_, rule)| rule)
}

fn verdict(field: &str, asked: &[String]) -> Verdict {
    match rule(field) {
        Some(Free) => Verdict::Allowed,
        Some(Asked(keys)) if asked.iter().any(|key| keys.contains(&key.as_str())) => {
            Verdict::Allowed
        }
        Some(Asked(_)) => Verdict::Refused("it changes the result; ask for it with --set"),
        Some(Fixed(why)) => Verdict::Refused(why),
        None => Verdict::Refused("nothing is known about changing it"),
    }
}

/// Every field by its dotted name; a list is one field.
fn fields(plan: &impl serde::Serialize) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let value = serde_json::to_value(plan).expect("a plan has string keys only");
    flatten(String::new(), &value, &mut fields);
    fields
}

fn flatten(name: String, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(name, value, fields);
            }
        }
        value => {
            fields.insert(name, value.to_string());
        }
    }
}

/// The value, cut where it would push the reason off the screen.
fn shortened(value: &str) -> String {
    /// Characters of a value that are shown.
    const MOST: usize = 24;
    let shown: String = value.chars().take(MOST).collect();
    if shown.len() < value.len() { format!("{shown}…") } else { shown }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["field", "was", "is", "why not"].map(str::to_owned)];
        for Changed { field, was, is, verdict } in &self.fields {
            let why_not = match verdict {
                Verdict::Allowed => "allowed",
                Verdict::Refused(why) => why,
            };
            rows.push([field.clone(), shortened(was), shortened(is), why_not.to_owned()]);
        }
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2)];
        let lines = rows.iter().map(|[field, was, is, why_not]| {
            let [a, b, c] = widths;
            format!("{field:a$}  {was:b$}  {is:c$}  {why_not}")
        });
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_decides() {
        let refused = |field| matches!(verdict(field, &[]), Verdict::Refused(_));
        assert!(!refused("data.path"));
        assert!(refused("data.paths"));
        assert!(refused("data.train"));
        assert!(rule("training.unheard_of").is_none());
        assert!(refused("training.batch.sequences"));
        assert!(!refused("output.dir"));
    }
}
