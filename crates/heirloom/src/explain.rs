//! Whom a balance policy trusts: λ, the teacher's share, over a run's training set.
//!
//! In: a run folder with a checkpoint. Out: how λ is spread, the examples at both ends of it with
//! what teacher and student say of them, and, where label noise is known, whether λ sees it.
//! Never: writes, sweeps or locks anything; a run under way may be looked at.

mod targets;
mod tokens;

use std::path::Path;

use heirloom_balance::{Summary, separation};
use heirloom_base::Step;
use heirloom_data::dataset::{Dataset, KeepTexts};
use heirloom_data::label::Label;
use heirloom_engine::Cpu;
use heirloom_models::{EncoderConfig, Model};
use heirloom_recipe::{AnyPlan, Plan, PolicyPlan};
use heirloom_report::probability::{answer, softmax};
use heirloom_store::{Committed, RealDisk, TensorFolder};
use heirloom_train::{Job, Predictor, RunFolder, TeacherJob, head_of};
use serde::Serialize;

use crate::answer::PLAN;
use crate::failure::Failure;
use crate::gather::reopen_to_read;
use crate::places::Places;

pub use targets::{Noise as TargetNoise, TargetRow, Targets, targets};
pub use tokens::{TokenExplanation, TokenRow, is_of_tokens, tokens};

/// Tokens that teacher and student read at once.
const TOKENS_AT_ONCE: usize = 2048;

/// What is known of a run's shares at one checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Steps done at the checkpoint.
    pub step: Step,
    /// The policy and its numbers.
    pub policy: PolicyPlan,
    /// The policy in words.
    pub policy_words: String,
    /// Training examples.
    pub examples: usize,
    /// Those that no step has trained on, so that nothing is known of their share.
    pub never_judged: usize,
    /// Where the others' shares lie.
    pub shares: Spread,
    /// Where each teacher's share lies, of several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub teachers: Vec<Spread>,
    /// What λ makes of label noise; `None` where the plan has none.
    pub label_noise: Option<Noise>,
    /// The largest shares, largest first.
    pub most: Vec<Row>,
    /// The smallest, smallest first. No example is in both.
    pub least: Vec<Row>,
}

/// Where shares lie, `0.0..=1.0` all.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// The smallest.
    pub smallest: f64,
    /// Examples that have exactly it.
    pub at_smallest: usize,
    /// The values that a tenth, a half and nine tenths of the examples do not exceed.
    pub quantiles: [f64; 3],
    /// The largest.
    pub largest: f64,
    /// Examples that have exactly it.
    pub at_largest: usize,
    /// Part of the examples below 0.05.
    pub label_alone: f64,
    /// Part of the examples above 0.95.
    pub teacher_alone: f64,
}

/// λ of examples whose label was made wrong against that of the others, all of them judged.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Noise {
    /// Examples with a wrong label.
    pub wrong: usize,
    /// Their mean λ; `None` without any.
    pub mean_wrong: Option<f64>,
    /// Examples with the file's label.
    pub clean: usize,
    /// Their mean λ; `None` without any.
    pub mean_clean: Option<f64>,
    /// Probability that λ is larger for a wrong label than for a clean one, ties counted half: ½
    /// where λ knows nothing, less where the label is trusted more where it is wrong. `None` where one of both is missing.
    pub auc: Option<f64>,
}

/// One training example.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its number in the training set, from 0.
    pub example: usize,
    /// λ when it was last trained on.
    pub share: f64,
    /// The label it is trained with; `None` where it has none.
    pub label: Option<String>,
    /// The label in the file, where label noise changed it.
    pub label_before_noise: Option<String>,
    /// λ of each teacher, of several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub teacher_shares: Vec<f64>,
    /// What the teacher says; of several the first.
    pub teacher: Said,
    /// What the other teachers say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_teachers: Vec<Said>,
    /// What the student says at the checkpoint.
    pub student: Said,
    /// The text.
    pub text: String,
    /// The second of a pair.
    pub pair: Option<String>,
}

/// A model's answer, at temperature 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Said {
    /// The most probable class.
    pub answer: String,
    /// Its probability.
    pub probability: f64,
    /// The probability of the label that is trained with; `None` where there is none.
    pub of_label: Option<f64>,
}

/// Explains the newest checkpoint of the run in `path`, with `top` examples at each end.
///
/// # Errors
/// Where `path` is no run folder, its run has no balance policy or no checkpoint yet, or what it was
/// made from is no longer there.
pub fn explain(
    path: &Path,
    places: &Places,
    threads: usize,
    top: usize,
) -> Result<Explanation, Failure> {
    let (plan, step) = at_checkpoint(path)?;
    let shown = path.display().to_string();
    let Some(balance) = plan.objective.balance.clone() else {
        return Err(Failure::usage(format!(
            "`{shown}` was trained without a balance policy: the teacher's share is \
             {} for every example (`objective.alpha`); a recipe with [objective.balance] or \
             [objective.regularizer] has more to explain",
            plan.objective.alpha,
        )));
    };
    let committed = Committed::open_step(&RealDisk, path, step)?;
    let (job, _) = reopen_to_read(&plan, places, KeepTexts::Yes)?;
    let several = plan.objective.teacher_parts.len();
    let mut shares = RunFolder::shares_and_teachers(&committed, job.train.len(), several)?;
    let by_teacher = shares.split_off(1);
    let shares = shares.remove(0);
    let judged = judged(&shares);
    let Some(spread) = spread(&judged) else {
        return Err(Failure::usage(format!(
            "the checkpoint of step {} in `{shown}` has trained on no example yet",
            step.0
        )));
    };
    let (most, least) = ends(&judged, top);
    let chosen = [most.as_slice(), &least].concat();
    let rows = rows(&job, &committed, threads, &chosen, &by_teacher)?;
    let (most, least) = rows.split_at(most.len());
    Ok(Explanation {
        step,
        policy_words: balance.policy.words(plan.objective.alpha),
        policy: balance.policy,
        examples: shares.len(),
        never_judged: shares.len() - judged.len(),
        shares: spread,
        teachers: by_teacher
            .iter()
            .filter_map(|shares| self::spread(&self::judged(shares)))
            .collect(),
        label_noise: job.train.has_label_noise().then(|| noise(&judged, &job.train)),
        most: most.to_vec(),
        least: least.to_vec(),
    })
}

/// Which of the two a run has to explain: shares where it has a balance policy, else targets where it
/// has a regularizer.
pub fn has_targets_alone(path: &Path) -> Result<bool, Failure> {
    let objective = plan_of(path)?.objective;
    Ok(objective.balance.is_none() && objective.regularizer.is_some())
}

/// A run's plan and its newest checkpoint's step.
fn at_checkpoint(path: &Path) -> Result<(Plan, Step), Failure> {
    let mut plan = plan_of(path)?;
    let shown = path.display().to_string();
    let steps = RunFolder::steps(&RealDisk, path)?;
    if plan.objective.balance.is_none() && plan.objective.regularizer.is_none() {
        // Nothing to explain, with a checkpoint or without.
        return Ok((plan, steps.last().copied().unwrap_or_default()));
    }
    // The folder may have been moved since.
    plan.output.dir.clone_from(&shown);
    Ok((plan, newest(path)?))
}

/// The step of a run's newest checkpoint.
fn newest(path: &Path) -> Result<Step, Failure> {
    let steps = RunFolder::steps(&RealDisk, path)?;
    steps.last().copied().ok_or_else(|| {
        let shown = path.display();
        Failure::usage(format!(
            "`{shown}` has no checkpoint yet; wait for its first, or go on with: heirloom resume \
             {shown}"
        ))
    })
}

/// The student's config at a checkpoint; it may have grown later or before.
fn config_then(job: &Job, committed: &Committed) -> Result<EncoderConfig, Failure> {
    let stages = RunFolder::stages(committed)?;
    Ok(heirloom_train::config_at(&job.plan.training, &job.student_config, &stages)?)
}

/// What the model in `folder` answers to `set`, `[N, K]`.
fn answers_of(
    job: &Job,
    folder: &Path,
    config: &EncoderConfig,
    set: &Dataset,
    threads: usize,
) -> Result<Vec<f32>, Failure> {
    let mut device = Cpu::new(threads);
    let model = Model::new(&mut device, config.clone(), head_of(&job.plan));
    model.load(&mut device, &TensorFolder::open(folder)?, &str::to_owned, None)?;
    let mut predictor = Predictor::for_dataset(&mut device, &model, TOKENS_AT_ONCE, set);
    Ok(predictor.outputs(&mut device, &model, set))
}

fn plan_of(path: &Path) -> Result<Plan, Failure> {
    match any_plan(path)? {
        AnyPlan::Task(plan) => Ok(*plan),
        AnyPlan::Language(_) => Err(Failure::usage(format!(
            "the run in `{}` is of a language model, which has no labelled examples",
            path.display(),
        ))),
    }
}

fn any_plan(path: &Path) -> Result<AnyPlan, Failure> {
    let file = path.join(PLAN);
    if !file.is_file() {
        return Err(Failure::usage(format!(
            "`{}` is not a run folder: it has no {PLAN}",
            path.display()
        )));
    }
    AnyPlan::from_toml(&RunFolder::plan_text(&RealDisk, path)?)
        .map_err(|error| Failure::input(format!("`{}` holds no plan: {error}", file.display())))
}

/// An example and its share.
type Judged = (u32, f64);

/// The examples that have a share, smallest first; equal ones in their order.
fn judged(shares: &[f64]) -> Vec<Judged> {
    let mut judged: Vec<Judged> =
        (0..).zip(shares.iter().copied()).filter(|(_, share)| !share.is_nan()).collect();
    judged.sort_by(|a, b| a.1.total_cmp(&b.1));
    judged
}

fn spread(judged: &[Judged]) -> Option<Spread> {
    let summary = Summary::of(judged.iter().map(|(_, share)| *share).collect())?;
    let (smallest, largest) = (judged.first()?.1, judged.last()?.1);
    let at = |value: f64| judged.iter().filter(|(_, share)| *share == value).count();
    Some(Spread {
        mean: summary.mean,
        smallest,
        at_smallest: at(smallest),
        quantiles: summary.quantiles,
        largest,
        at_largest: at(largest),
        label_alone: summary.label_alone,
        teacher_alone: summary.teacher_alone,
    })
}

/// The largest and the smallest shares, `top` of each or as many as there are without taking one
/// twice.
fn ends(judged: &[Judged], top: usize) -> (Vec<Judged>, Vec<Judged>) {
    let most = judged.iter().rev().take(top.min(judged.len().div_ceil(2)));
    let least = judged.iter().take(top.min(judged.len() / 2));
    (most.copied().collect(), least.copied().collect())
}

fn noise(judged: &[Judged], train: &Dataset) -> Noise {
    let is_wrong = |example: u32| train.class_before_noise(example as usize).is_some();
    let shares = |of_wrong: bool| -> Vec<f64> {
        let chosen = judged.iter().filter(|(example, _)| is_wrong(*example) == of_wrong);
        chosen.map(|(_, share)| *share).collect()
    };
    let (wrong, clean) = (shares(true), shares(false));
    let mean = |shares: &[f64]| {
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    };
    Noise {
        wrong: wrong.len(),
        mean_wrong: mean(&wrong),
        clean: clean.len(),
        mean_clean: mean(&clean),
        auc: separation(&wrong, &clean),
    }
}

/// The examples with what is said of them, in the order of `chosen`.
fn rows(
    job: &Job,
    committed: &Committed,
    threads: usize,
    chosen: &[Judged],
    by_teacher: &[Vec<f64>],
) -> Result<Vec<Row>, Failure> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let examples: Vec<u32> = chosen.iter().map(|(example, _)| *example).collect();
    let set = job.train.select(&examples);
    let student =
        answers_of(job, committed.folder(), &config_then(job, committed)?, &set, threads)?;
    let mut teachers = Vec::new();
    for (_, teacher) in job.teachers() {
        teachers.push(match teacher {
            TeacherJob::Model(teacher) => {
                let own = teacher.own.as_ref().map(|own| own.train.select(&examples));
                let set = own.as_ref().unwrap_or(&set);
                answers_of(job, &teacher.path, &teacher.config, set, threads)?
            }
            TeacherJob::Answers(given) => {
                let row = |&example: &u32| given.train.row(example as usize);
                examples.iter().flat_map(row).copied().collect()
            }
        });
    }
    let Some((teacher, others)) = teachers.split_first() else {
        return Err(Failure::input("the plan has a balance policy and no teacher; it was edited"));
    };
    let names = &set.labels().names;
    let rows = chosen.iter().enumerate().map(|(at, &(example, share))| {
        let label = match *set.example(at).label {
            Label::Class(class) => Some(class),
            Label::None | Label::Score(_) | Label::Multi(_) => None,
        };
        let name = |class: u32| names[class as usize].clone();
        let said = |logits: &[f32]| {
            let logits = &logits[at * names.len()..][..names.len()];
            let (answer, probabilities) = (answer(logits), softmax(logits));
            Said {
                answer: name(answer),
                probability: probabilities[answer as usize],
                of_label: label.map(|class| probabilities[class as usize]),
            }
        };
        let text = set.text(at);
        Row {
            example: example as usize,
            share,
            label: label.map(name),
            label_before_noise: set.class_before_noise(at).map(name),
            teacher_shares: by_teacher.iter().map(|shares| shares[example as usize]).collect(),
            teacher: said(teacher),
            other_teachers: others.iter().map(|logits| said(logits)).collect(),
            student: said(&student),
            text: text.map(|text| text.text.clone()).unwrap_or_default(),
            pair: text.and_then(|text| text.pair.clone()),
        }
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_judged_has_no_place_and_the_rest_are_sorted() {
        let judged = judged(&[0.5, f64::NAN, 0.1, 0.5, 1.0]);
        assert_eq!(judged, [(2, 0.1), (0, 0.5), (3, 0.5), (4, 1.0)]);
        let spread = spread(&judged).expect("some were judged");
        assert_eq!((spread.smallest, spread.largest, spread.mean), (0.1, 1.0, 0.525));
        assert_eq!((spread.at_smallest, spread.at_largest), (1, 1));
        assert!(super::spread(&[]).is_none());
    }

    #[test]
    fn no_example_is_at_both_ends() {
        let all = [(0, 0.1), (1, 0.2), (2, 0.3)];
        let (most, least) = ends(&all, 2);
        assert_eq!((most, least), (vec![all[2], all[1]], vec![all[0]]));
        let (most, least) = ends(&all, 1);
        assert_eq!((most, least), (vec![all[2]], vec![all[0]]));
        assert_eq!(ends(&all, 0), (vec![], vec![]));
        assert_eq!(ends(&all[..1], 5), (vec![all[0]], vec![]));
    }
}
