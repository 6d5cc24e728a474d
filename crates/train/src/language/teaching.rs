//! Teachers at work: their models, and what was kept of their answers to the step under way.
//!
//! In: a job's teachers and the rows of a step. Out: answers where the pass looks for them. Never: a
//! teacher that no step of the plan hears.

use std::ops::Range;
use std::sync::Arc;

use heirloom_answers::{Kept, Kind, KnownRows};
use heirloom_data::text::Rows;
use heirloom_engine::Device;

use super::Foreseen;
use super::beside::Beside;
use super::capacity::LanguageCapacity;
use super::job::{LanguageJob, LanguageTeacher, LanguageWeights, TeacherReads};
use super::network::Network;
use super::other_tokens::TokensOfTeacher;
use super::pass::TextPass;
use super::trainer::capacity;
use crate::Error;

/// One teacher.
#[derive(Debug)]
pub(super) struct Teaching {
    /// Its model, or the head alone of one whose hidden states are kept; none where answers name
    /// tokens.
    pub(super) network: Option<Network>,
    /// How well it foresees the validation text, once that was asked.
    pub(super) foreseen: Option<Foreseen>,
    kept: Option<Arc<Kept>>,
    /// Kept answers to the tokens of the step, or the kept hidden states there, `[tokens, Cₜ]`.
    known: KnownRows,
    states: Vec<f32>,
}

impl Teaching {
    /// Loads what is needed of it.
    pub(super) fn new(device: &mut dyn Device, teacher: &LanguageTeacher) -> Result<Self, Error> {
        let network = match teacher.model() {
            None => None,
            Some((path, config)) => {
                let network = Network::new(device, config);
                network.fill(device, &LanguageWeights::Folder(path.to_owned()), 0, None)?;
                Some(network)
            }
        };
        let (known, states) = (KnownRows::default(), Vec::new());
        Ok(Self { network, foreseen: None, kept: teacher.kept().cloned(), known, states })
    }

    /// Reads what was kept of its answers to the rows of a step.
    pub(super) fn read(&mut self, chosen: &[u32]) -> Result<(), Error> {
        let Some(kept) = &self.kept else { return Ok(()) };
        self.known.clear();
        self.states.clear();
        for &row in chosen {
            let row = row as usize;
            let all = 0..kept.length(row)?;
            match kept.about().kind {
                Kind::States { .. } => kept.read_states(row, all, &mut self.states)?,
                _ => kept.read_known(row, all, &mut self.known)?,
            }
        }
        Ok(())
    }

    /// Hands the pass, where it is teacher number `at`, what was kept of its answers to the tokens at
    /// `places` of the step.
    pub(super) fn recall(
        &self,
        device: &mut dyn Device,
        pass: &mut TextPass,
        at: usize,
        places: Range<usize>,
    ) {
        match self.kept.as_ref().map(|kept| kept.about().kind) {
            Some(Kind::States { width }) => {
                let numbers = places.start * width as usize..places.end * width as usize;
                pass.recall_states(device, at, &self.states[numbers]);
            }
            Some(_) => pass.recall(device, at, &self.known, places),
            None => (),
        }
    }
}

/// The job's teachers; none where no step hears one and no evaluation is held against one.
pub(super) fn asked(job: &LanguageJob) -> &[LanguageTeacher] {
    if job.plan.objective.is_without_teacher() { &[] } else { &job.teachers }
}

/// How each of these teachers stands beside the student; `models` has one for each that has a model.
pub(super) fn beside<'a, M>(
    job: &'a LanguageJob,
    models: impl Iterator<Item = Option<&'a M>>,
) -> Vec<Beside<'a, M>> {
    let one = |(teacher, model): (&'a LanguageTeacher, Option<&'a M>)| match (teacher, model) {
        (LanguageTeacher::Model { reads, .. }, Some(model)) => {
            Beside::Model(model, tokens(job, reads))
        }
        (LanguageTeacher::States { .. }, Some(model)) => Beside::States(model),
        (LanguageTeacher::Answers(kept), None) => Beside::Known(kept.about().width()),
        _ => unreachable!("what has a model brings one"),
    };
    asked(job).iter().zip(models).map(one).collect()
}

/// How a teacher's tokens are the student's.
fn tokens<'a>(job: &LanguageJob, reads: &'a TeacherReads) -> TokensOfTeacher<'a> {
    match reads {
        TeacherReads::Same => TokensOfTeacher::Same,
        TeacherReads::Mapped(map) => TokensOfTeacher::Mapped(map),
        TeacherReads::Own(paired) => {
            // As many for each of the student's as in the row that has most.
            let length = |row: usize| [paired.length(row), paired.teacher_length(row)];
            let lengths: Vec<[usize; 2]> = (0..paired.len()).map(length).collect();
            let most = lengths.iter().map(|[ours, theirs]| theirs.div_ceil((*ours).max(1))).max();
            let all: usize = lengths.iter().map(|[_, theirs]| theirs).sum();
            let tokens = capacity(job).tokens.saturating_mul(most.unwrap_or(1));
            TokensOfTeacher::Own(LanguageCapacity { tokens: tokens.min(all).max(1), masked: 0 })
        }
    }
}
