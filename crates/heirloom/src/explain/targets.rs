//! What a run's regularizer teaches in place of the labels: the effective target of each training
//! example, `q = s − ∂loss/∂z`, as the newest checkpoint has it.
//!
//! In: a run folder with a checkpoint. Out: how far targets are from their labels, the examples at
//! both ends, and, where label noise is known, whether targets see it. Never: writes, sweeps or
//! locks anything.

use std::path::Path;

use heirloom_balance::{Summary, separation};
use heirloom_base::Step;
use heirloom_data::dataset::{Dataset, KeepTexts};
use heirloom_data::label::Label;
use heirloom_recipe::RegularizerPlan;
use heirloom_regularize::{Row, Target, softmax};
use heirloom_store::{Committed, RealDisk};
use heirloom_train::{Job, Own, RunFolder, TeacherJob, regularizer};
use serde::Serialize;

use super::{answers_of, at_checkpoint, config_then};
use crate::failure::Failure;
use crate::gather::reopen_to_read;
use crate::places::Places;

/// What is known of a run's targets at one checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Targets {
    /// Steps done at the checkpoint.
    pub step: Step,
    /// The label's loss as a formula.
    pub formula: String,
    /// Class names, in the order of all distributions.
    pub classes: Vec<String>,
    /// Training examples with a label.
    pub examples: usize,
    /// How far targets are from their labels, `½ Σ |q − y|`: the mean, and the values that a tenth, a
    /// half and nine tenths of the examples do not exceed.
    pub mean_moved: f64,
    /// See [`Targets::mean_moved`].
    pub quantiles: [f64; 3],
    /// The part of the examples whose target's largest entry is another class than the label's.
    pub turned: f64,
    /// Whether targets see label noise; `None` where the plan has none.
    pub label_noise: Option<Noise>,
    /// The targets that are farthest from their labels, farthest first.
    pub most: Vec<TargetRow>,
    /// The nearest, nearest first. No example is in both.
    pub least: Vec<TargetRow>,
}

/// Targets of examples whose label was made wrong against those of the others.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Noise {
    /// Examples with a wrong label.
    pub wrong: usize,
    /// How far their targets are from it, on the mean; `None` without any.
    pub mean_wrong: Option<f64>,
    /// Examples with the file's label.
    pub clean: usize,
    /// How far theirs are; `None` without any.
    pub mean_clean: Option<f64>,
    /// Probability that a wrong label's target is farther from it than a clean one's, ties counted
    /// half.
    pub auc: Option<f64>,
}

/// One training example. All distributions are `[K]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetRow {
    /// Its number in the training set, from 0.
    pub example: usize,
    /// `½ Σ |q − y|`.
    pub moved: f64,
    /// The label it is trained with.
    pub label: String,
    /// The label in the file, where label noise changed it.
    pub label_before_noise: Option<String>,
    /// q, which has negative entries where the method leaves the simplex.
    pub target: Vec<f64>,
    /// The teacher's distribution, where there is a teacher; of several the first's.
    pub teacher: Option<Vec<f64>>,
    /// The student's.
    pub student: Vec<f64>,
    /// The text.
    pub text: String,
    /// The second of a pair.
    pub pair: Option<String>,
}

/// Targets of the newest checkpoint of the run in `path`, with `top` examples at each end. A run with a
/// program's regularizer is explained by whoever brings it, in `own`.
///
/// # Errors
/// Where `path` is no run folder, its run has no regularizer or no checkpoint yet, or what it was made
/// from is no longer there; where its regularizer is a program's that `own` does not have.
pub fn targets(
    path: &Path,
    places: &Places,
    threads: usize,
    top: usize,
    own: &Own,
) -> Result<Targets, Failure> {
    let (plan, step) = at_checkpoint(path)?;
    let shown = path.display();
    let Some(regularizer_plan) = &plan.objective.regularizer else {
        return Err(Failure::usage(format!(
            "`{shown}` was trained on its labels as they are; a recipe with [objective.regularizer] \
             has targets to explain"
        )));
    };
    if matches!(regularizer_plan, RegularizerPlan::Own { .. }) || !own.is_empty() {
        own.check(&plan)?;
    }
    let committed = Committed::open_step(&RealDisk, path, step)?;
    let (job, _) = reopen_to_read(&plan, places, KeepTexts::Yes)?;
    let hidden = job.student_config.hidden_size;
    let seed = plan.training.seed;
    let counts = job.train.class_counts();
    let brought = own.regularizer();
    let mut target =
        brought.unwrap_or_else(|| regularizer(regularizer_plan, &counts, hidden, seed));
    if target.needs().features {
        return Err(Failure::usage(format!(
            "`{shown}` has targets that depend on what its classifier saw in each step, which is not \
             kept; other methods than per_instance can be explained"
        )));
    }
    if target.restore(&RunFolder::regularizer_state(&committed)?).is_err() {
        return Err(Failure::input(format!(
            "the checkpoint of step {} in `{shown}` does not hold what its regularizer gathered",
            step.0
        )));
    }
    let all = All::of(&job, &committed, threads)?;
    let total = plan.training.total_steps;
    let progress = if total > 1 { (step.0 as f64 / (total - 1) as f64).min(1.0) } else { 1.0 };
    let mut moved = all.moved(&job.train, &*target, progress);
    let turned = moved.iter().filter(|judged| judged.turned).count() as f64;
    let Some(summary) = Summary::of(moved.iter().map(|judged| judged.moved).collect()) else {
        return Err(Failure::input(format!("`{shown}` has no training example with a label")));
    };
    let label_noise = job.train.has_label_noise().then(|| noise(&moved, &job.train));
    moved.sort_by(|a, b| b.moved.total_cmp(&a.moved));
    let count = moved.len();
    let row = |judged: &Judged| all.row(&job.train, &*target, progress, judged);
    let most = moved[..top.min(count.div_ceil(2))].iter().map(row).collect();
    let least = moved[count - top.min(count / 2)..].iter().rev().map(row).collect();
    Ok(Targets {
        step,
        formula: regularizer_plan.formula(),
        classes: job.train.labels().names.clone(),
        examples: count,
        mean_moved: summary.mean,
        quantiles: summary.quantiles,
        turned: turned / count as f64,
        label_noise,
        most,
        least,
    })
}

/// Logits of all training examples, `[N, K]`.
struct All {
    student: Vec<f64>,
    teacher: Option<Vec<f64>>,
    classes: usize,
}

/// An example and how far its target is from its label.
struct Judged {
    example: usize,
    moved: f64,
    turned: bool,
}

impl All {
    fn of(job: &Job, committed: &Committed, threads: usize) -> Result<Self, Failure> {
        let wide = |logits: Vec<f32>| logits.into_iter().map(f64::from).collect();
        let student = answers_of(
            job,
            committed.folder(),
            &config_then(job, committed)?,
            &job.train,
            threads,
        )?;
        let teacher = match job.teachers().next() {
            None => None,
            Some((_, TeacherJob::Answers(given))) => {
                let rows = (0..job.train.len()).flat_map(|example| given.train.row(example));
                Some(wide(rows.copied().collect()))
            }
            Some((_, TeacherJob::Model(teacher))) => {
                let set = teacher.own.as_ref().map_or(&*job.train, |own| &own.train);
                Some(wide(answers_of(job, &teacher.path, &teacher.config, set, threads)?))
            }
        };
        let classes = job.train.labels().names.len();
        Ok(Self { student: wide(student), teacher, classes })
    }

    fn of_example<'a>(&self, logits: &'a [f64], example: usize) -> &'a [f64] {
        &logits[example * self.classes..][..self.classes]
    }

    fn target(&self, target: &dyn Target, progress: f64, example: usize, label: u32) -> Vec<f64> {
        let row = Row {
            label: Some(label as usize),
            logits: self.of_example(&self.student, example),
            teacher: self.teacher.as_deref().map(|logits| self.of_example(logits, example)),
            earlier: None,
            features: None,
            progress,
        };
        let mut q = vec![0.0; self.classes];
        target.effective_target(&row, &mut q);
        q
    }

    fn moved(&self, train: &Dataset, target: &dyn Target, progress: f64) -> Vec<Judged> {
        let labelled =
            (0..train.len()).filter_map(|example| Some((example, class(train, example)?)));
        labelled
            .map(|(example, label)| {
                let q = self.target(target, progress, example, label);
                let distance = |(class, q): (usize, &f64)| {
                    (q - if class == label as usize { 1.0 } else { 0.0 }).abs()
                };
                let largest = q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                Judged {
                    example,
                    moved: 0.5 * q.iter().enumerate().map(distance).sum::<f64>(),
                    turned: q[label as usize] < largest,
                }
            })
            .collect()
    }

    fn row(
        &self,
        train: &Dataset,
        target: &dyn Target,
        progress: f64,
        judged: &Judged,
    ) -> TargetRow {
        let example = judged.example;
        let label = class(train, example).expect("an example without a label is not judged");
        let name = |class: u32| train.labels().names[class as usize].clone();
        let text = train.text(example);
        TargetRow {
            example,
            moved: judged.moved,
            label: name(label),
            label_before_noise: train.class_before_noise(example).map(name),
            target: self.target(target, progress, example, label),
            teacher: self
                .teacher
                .as_deref()
                .map(|logits| softmax(self.of_example(logits, example), 1.0)),
            student: softmax(self.of_example(&self.student, example), 1.0),
            text: text.map(|text| text.text.clone()).unwrap_or_default(),
            pair: text.and_then(|text| text.pair.clone()),
        }
    }
}

fn class(train: &Dataset, example: usize) -> Option<u32> {
    match *train.example(example).label {
        Label::Class(class) => Some(class),
        Label::None | Label::Score(_) | Label::Multi(_) => None,
    }
}

fn noise(judged: &[Judged], train: &Dataset) -> Noise {
    let moved = |of_wrong: bool| -> Vec<f64> {
        let is_wrong = |example: usize| train.class_before_noise(example).is_some();
        let chosen = judged.iter().filter(|judged| is_wrong(judged.example) == of_wrong);
        chosen.map(|judged| judged.moved).collect()
    };
    let (wrong, clean) = (moved(true), moved(false));
    let mean =
        |moved: &[f64]| (!moved.is_empty()).then(|| moved.iter().sum::<f64>() / moved.len() as f64);
    Noise {
        wrong: wrong.len(),
        mean_wrong: mean(&wrong),
        clean: clean.len(),
        mean_clean: mean(&clean),
        auc: separation(&wrong, &clean),
    }
}
