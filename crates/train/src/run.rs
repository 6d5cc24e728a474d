//! The loop. Whoever asks what a run does is shown this file.

use heirloom_data::dataset::Dataset;
use serde_json::Value;

use crate::{
    Device, Error, EvaluationRecord, Foreseen, GrowthRecord, RunFolder, StepRecord, Trains, Work,
};

/// Everything that touches the world: the clock, signals, the screen, and the metrics.
pub trait Outside {
    /// Hears of a step.
    fn step(&mut self, record: &StepRecord);
    /// Judges outputs `[examples, width]` for the validation set.
    ///
    /// # Errors
    /// Where the outputs cannot be judged (not finite).
    fn judge(&mut self, outputs: Vec<f32>, validation: &Dataset) -> Result<Judged, Error>;
    /// Judges how well a language model foresaw the validation text.
    ///
    /// # Errors
    /// As [`Outside::judge`].
    fn judge_text(&mut self, foreseen: &Foreseen) -> Result<Judged, Error>;
    /// Hears of an evaluation.
    fn evaluated(&mut self, record: &EvaluationRecord);
    /// A device for a student that has grown.
    fn device(&mut self, work: Work) -> Device;
    /// Hears that the student has grown.
    fn grown(&mut self, record: &GrowthRecord);
    /// Whether somebody asked the run to stop.
    fn asked_to_stop(&mut self) -> bool;
}

/// What evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The value that decides which step is best; `None` where it has no meaning.
    pub score: Option<f64>,
    /// Whether a larger one is better.
    pub higher_is_better: bool,
    /// Everything that was measured.
    pub evaluation: Value,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By its plan.
    Finished,
    /// On request; saved, and can go on.
    Stopped,
}

/// Trains until the plan is done or somebody asks to stop. A trainer whose run had already
/// finished only writes its model folders again where they are missing.
pub fn run(
    trainer: &mut dyn Trains,
    folder: &mut RunFolder<'_>,
    outside: &mut dyn Outside,
) -> Result<Ending, Error> {
    if trainer.progress().cursor.step == 0 {
        if let Some(record) = trainer.own() {
            folder.note(&record)?;
        }
        for record in trainer.teachers() {
            folder.note(&record)?;
        }
    }
    while !trainer.progress().finished {
        let record = trainer.step()?;
        folder.note(&record)?;
        outside.step(&record);
        let evaluates = trainer.evaluates_now();
        if evaluates {
            evaluate(trainer, folder, outside)?;
        }
        let grows = trainer.grows_now();
        if grows {
            grow(trainer, folder, outside)?;
        }
        let stopping = outside.asked_to_stop();
        if stopping || grows || trainer.saves_now(evaluates) {
            folder.commit(trainer)?;
        }
        if stopping && !trainer.progress().finished {
            return Ok(Ending::Stopped);
        }
    }
    if trainer.output().save_model {
        folder.save_model(trainer, "last")?;
    }
    Ok(Ending::Finished)
}

/// Grows the student. It happens between two checkpoints: a run that is killed before the next one
/// does it again, to the same bits.
fn grow(
    trainer: &mut dyn Trains,
    folder: &mut RunFolder<'_>,
    outside: &mut dyn Outside,
) -> Result<(), Error> {
    if trainer.output().save_model {
        let stage = trainer.stages().map_or(0, |stages| stages.grown);
        folder.save_model(trainer, &format!("small-{stage}"))?;
    }
    let record = trainer.grow(folder.disk(), &mut |work| outside.device(work))?;
    folder.note(&record)?;
    outside.grown(&record);
    Ok(())
}

fn evaluate(
    trainer: &mut dyn Trains,
    folder: &mut RunFolder<'_>,
    outside: &mut dyn Outside,
) -> Result<(), Error> {
    let judged = trainer.evaluate(outside)?;
    let best = trainer.judged(judged.score, judged.higher_is_better);
    let record = EvaluationRecord {
        kind: "evaluation".to_owned(),
        step: trainer.progress().cursor.step,
        score: judged.score,
        best,
        averaged: trainer.averaged(),
        clone_gap: trainer.clone_gap()?,
        evaluation: judged.evaluation,
    };
    folder.note(&record)?;
    outside.evaluated(&record);
    if best && trainer.output().save_model {
        folder.save_model(trainer, "best")?;
    }
    Ok(())
}
