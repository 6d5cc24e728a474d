//! `heirloom demo`: distillation from beginning to end, on texts whose truth is known.
//!
//! In: a seed. Out: a table of models, and what it says in words.
//! Never: needs a file, leaves one behind, or picks a run by its result; every run made is shown.

mod judged;
mod recipes;
mod sizes;
mod texts;
mod told;

use std::path::{Path, PathBuf};

use heirloom::failure::Failure;
use heirloom::opened::{config_of_shape, model_facts};
use heirloom_data::dataset::Dataset;
use heirloom_engine::Cpu;
use heirloom_recipe::{ModelFacts, Plan};
use heirloom_store::{Holder, RealDisk};
use heirloom_train::{Job, Own, RunFolder, StudentWeights, TeacherJob, TeacherModel, Trainer};

use crate::args::DemoArgs;
use crate::clock::{Clock, now};
use crate::show::Show;
use judged::{Judge, Judged};
use sizes::Sizes;
use texts::Texts;
use told::{Kind, Story};

pub(crate) fn run(args: &DemoArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    if !(args.scale > 0.0 && args.scale <= 1.0) {
        let found = args.scale;
        return Err(Failure::usage(format!("--scale is {found}, expected above 0, at most 1")));
    }
    let clock = Clock::start();
    let sizes = Sizes::of(args.scale);
    if !show.json {
        show.data(&told::before(&sizes));
    }
    let demo = Demo { seed: args.seed, sizes, threads, show };
    let story = demo.play(clock)?;
    if show.json {
        show.json(&story.json());
    } else {
        show.data(&story.table().text());
        show.data(&story.after());
    }
    Ok(0)
}

/// One showing.
struct Demo {
    seed: u64,
    sizes: Sizes,
    threads: usize,
    show: Show,
}

impl Demo {
    fn play(&self, clock: Clock) -> Result<Story, Failure> {
        let Self { seed, sizes, show, .. } = self;
        let texts = Texts::generate(*seed, sizes)?;
        let truth: Vec<f32> =
            texts.truth.iter().flat_map(|example| example.probabilities).map(logit).collect();

        let recipe = recipes::teacher(*seed, sizes);
        let plan = recipes::plan(&recipe, &texts, &texts.teacher, None, self.threads)?;
        let mut teacher = self.trainer(plan, &texts, &texts.teacher, None)?;
        let teacher_seconds = self.train(&mut teacher, "teacher")?;
        let teacher_outputs = outputs(&mut teacher);
        let judge = Judge {
            test: &texts.test,
            truth: &truth,
            teacher: &teacher_outputs,
            examples: &texts.truth,
        };

        // Students of a kind differ in their seeds; those of two kinds have the same seeds, hence
        // the same first weights and the same order of texts.
        let seeds = (1..=sizes.seeds).map(|nth| seed.wrapping_add(nth));
        let answering = Clock::start();
        let students = self.students(&mut teacher, &texts, seeds)?;
        let answering = answering.seconds();
        show.say(&format!(
            "teacher answered the students' {} texts: {answering:.1} s",
            texts.student.len()
        ));
        let parameters = |trainer: &Trainer| trainer.model().params().count() as u64;
        let mut story = Story {
            sizes: *sizes,
            student_parameters: students[0].1.first().map_or(0, parameters),
            teacher_parameters: parameters(&teacher),
            rows: vec![
                (Kind::Truth, vec![judge.of(&truth, None, None)?]),
                (Kind::Teacher, vec![judge.of(&teacher_outputs, Some(teacher_seconds), None)?]),
            ],
            answering_seconds: answering,
            seconds: 0.0,
        };
        for (kind, trainers) in students {
            let judged = trainers.into_iter().map(|mut trainer| {
                let seconds = self.train(&mut trainer, kind.name())?;
                let regularizer = trainer.plan().objective.regularizer.clone();
                judge.of(&outputs(&mut trainer), Some(seconds), regularizer.as_ref())
            });
            story.rows.push((kind, judged.collect::<Result<Vec<Judged>, Failure>>()?));
        }
        story.seconds = clock.seconds();
        Ok(story)
    }

    /// All students, ready to train: on labels alone, plain or regularized, distilled, and
    /// balanced.
    ///
    /// A teacher is a folder for its students, so it is written to one of the system's temporary
    /// folders, which is gone before the first student takes a step: the teacher has answered by
    /// then.
    fn students(
        &self,
        teacher: &mut Trainer,
        texts: &Texts,
        seeds: impl Iterator<Item = u64>,
    ) -> Result<[(Kind, Vec<Trainer>); 5], Failure> {
        let folder = Temporary::new()?;
        let (job, facts) = save(teacher, folder.path())?;
        let kinds = [Kind::LabelsOnly, Kind::Smoothed, Kind::Labo, Kind::Distilled, Kind::Balanced];
        let mut students = kinds.map(|kind| (kind, Vec::new()));
        for seed in seeds {
            for (kind, trainers) in &mut students {
                let recipe = match kind {
                    Kind::LabelsOnly => recipes::labels_only(seed, &self.sizes),
                    Kind::Smoothed => recipes::smoothed(seed, &self.sizes),
                    Kind::Labo => recipes::labo(seed, &self.sizes),
                    Kind::Balanced => recipes::balanced(seed, &self.sizes),
                    _ => recipes::distilled(seed, &self.sizes),
                };
                let taught = matches!(kind, Kind::Distilled | Kind::Balanced)
                    .then(|| (job.clone(), folder.path()));
                let facts = taught.as_ref().map(|_| facts.clone());
                let plan = recipes::plan(&recipe, texts, &texts.student, facts, self.threads)?;
                trainers.push(self.trainer(plan, texts, &texts.student, taught)?);
            }
        }
        Ok(students)
    }

    /// A run in memory. `teacher` comes with the folder for its answers.
    fn trainer(
        &self,
        plan: Plan,
        texts: &Texts,
        train: &Dataset,
        teacher: Option<(TeacherJob, &Path)>,
    ) -> Result<Trainer, Failure> {
        let shape = &plan.student.shape;
        let config = config_of_shape(shape, 0)?;
        let (teacher, answers) = teacher.unzip();
        let job = Job {
            train: train.clone().into(),
            validation: Some(texts.test.clone().into()),
            meta: None,
            student_config: heirloom_models::EncoderConfig {
                hidden_dropout: shape.hidden_dropout_prob as f32,
                attention_dropout: shape.attention_probs_dropout_prob as f32,
                classifier_dropout: shape.classifier_dropout as f32,
                ..config
            },
            student_weights: StudentWeights::Fresh,
            teacher,
            other_teachers: Vec::new(),
            tokenizer_files: texts.tokenizer_files.clone(),
            cache_dir: answers.map(PathBuf::from).unwrap_or_default(),
            own: Own::default(),
            plan,
        };
        Ok(Trainer::new(job, &RealDisk, &mut |_| Box::new(Cpu::new(self.threads)))?)
    }

    /// Trains to the end of the plan; says how far it is, and how many seconds it took.
    fn train(&self, trainer: &mut Trainer, name: &str) -> Result<f64, Failure> {
        /// Lines of progress of one run.
        const LINES: u64 = 5;
        let clock = Clock::start();
        let total = trainer.plan().training.total_steps;
        let seed = trainer.plan().training.seed;
        let every = total.div_ceil(LINES).max(1);
        let (mut loss, mut steps) = (0.0, 0.0);
        while !trainer.progress().finished {
            let record = trainer.step()?;
            loss += record.loss;
            steps += 1.0;
            if record.step.is_multiple_of(every) || record.step == total {
                self.show.say(&format!(
                    "{name}, seed {seed}: step {}/{total} · loss {:.3} · {:.1} s",
                    record.step,
                    loss / steps,
                    clock.seconds(),
                ));
                (loss, steps) = (0.0, 0.0);
            }
        }
        Ok(clock.seconds())
    }
}

/// The logits of a model that answers with these probabilities. Those too small to write as they
/// are become the smallest that can be written, since a logit must be a number.
fn logit(probability: f64) -> f32 {
    probability.max(f64::MIN_POSITIVE).ln() as f32
}

fn outputs(trainer: &mut Trainer) -> Vec<f32> {
    trainer.outputs().expect("every job of the demo has the test texts for validation")
}

/// Writes the teacher as a model folder, the way every run does, and reads back what a student's
/// plan needs to know of it.
fn save(teacher: &mut Trainer, folder: &Path) -> Result<(TeacherJob, ModelFacts), Failure> {
    let path = folder.join("teacher");
    let holder = Holder::this_process(&now());
    let plan = teacher.plan().to_toml();
    let mut run = RunFolder::create(&RealDisk, &path, &holder, &plan)?;
    run.save_model(teacher, "last")?;
    let path = path.join("last");
    let (config, facts) = model_facts(&path)?;
    Ok((TeacherJob::Model(TeacherModel { path, config, own: None }), facts))
}

/// A folder of the system's for temporary things, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self, Failure> {
        let root = std::env::temp_dir().join(format!("heirloom-demo-{}", std::process::id()));
        heirloom_store::new_folder(&RealDisk, &root)?;
        Ok(Self(root))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The system clears its temporary folders anyway, and there is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
