//! Tokens that a policy weighs, one by one, for people to look at.
//!
//! In: a trainer where a checkpoint was. Out: the tokens of the rows that come next, each with its share
//! and what both models think of it. Never: a step; the trainer is for nothing else afterwards.

use heirloom_data::order::{BatchRule, Cursor};
use heirloom_data::text::NOT_LEARNT;

use super::balance::Heard;
use super::inside::{Gradients, StepCounts};
use super::second::live;
use super::trainer::LanguageTrainer;
use crate::Error;

/// A token that is learnt.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedToken {
    /// The row of the training text, from 0.
    pub row: u32,
    /// The token that is to be foreseen, or is hidden.
    pub token: u32,
    /// What stands before it in its document and row, at most [`JudgedToken::BESIDE`] tokens.
    pub before: Vec<u32>,
    /// What stands behind one that is hidden, likewise; nothing behind one to be foreseen.
    pub after: Vec<u32>,
    /// λ, the teacher's share of its weight, `0.0..=1.0`.
    pub share: f64,
    /// Probability that the student gives it, at temperature 1.
    pub student: f64,
    /// Probability that the teacher gives it, likewise; `None` where its kept answers name a few
    /// tokens.
    pub teacher: Option<f64>,
}

impl JudgedToken {
    /// Tokens that are shown on either side.
    pub const BESIDE: usize = 16;
}

impl LanguageTrainer {
    /// The tokens of the next `count` rows as the policy weighs them now, without dropout, or of the
    /// run's first rows, where the teacher's answers were kept; empty where no policy weighs tokens.
    /// `rw_kd` is measured with other rows, as in a step.
    ///
    /// # Errors
    /// Where kept answers cannot be read.
    pub fn judge(&mut self, count: usize) -> Result<Vec<JudgedToken>, Error> {
        if !self.pass.balance.as_ref().is_some_and(|(balance, _)| balance.weighs_tokens()) {
            return Ok(Vec::new());
        }
        // Answers were kept to the rows that the run reads, and the next may be none of them.
        let kept = self.job.teachers.iter().any(|teacher| teacher.kept().is_some());
        let from = if kept { Cursor::default() } else { self.progress.cursor };
        let chosen = self.rows_from(from, count.min(self.job.train.len()));
        self.recall(&chosen)?;
        if let Some(second) = &mut self.second {
            let (others, _) = second.next(&self.job.train, self.progress.second);
            let (at, found) = (self.at(), self.measure(&chosen, &others));
            if let (Some(found), Some((balance, _))) = (found, &mut self.pass.balance) {
                balance.align_alone(&found, at);
            }
        }
        // An answer that names a few tokens need not name the label.
        let whole = self.job.teachers.iter().all(|teacher| teacher.model().is_some());
        let heard = if whole { Heard::Labels } else { Heard::OwnLabel };
        let losses = self.read_through(&chosen, Some(heard));
        self.read_through(&chosen, None);
        let shares = self.pass.balance.as_ref().map(|(balance, _)| balance.shares().to_vec());
        let mut numbers = losses.into_iter().zip(shares.unwrap_or_default());
        let mut judged = Vec::new();
        for (row, &number) in self.rows[..self.held].iter().zip(&chosen) {
            for place in (0..row.ids.len()).filter(|&place| row.labels[place] != NOT_LEARNT) {
                let ([student, teacher], share) =
                    numbers.next().expect("a pair of losses and a share for each token");
                let starts = row.starts.iter().map(|&start| start as usize);
                let first = starts.clone().filter(|&start| start <= place).max().unwrap_or(0);
                let end = starts.filter(|&start| start > place).min().unwrap_or(row.ids.len());
                let masked = self.network.masked();
                // The next token's label stands at the last one that is known.
                let (known, behind) =
                    if masked { (place, place + 1) } else { (place + 1, row.ids.len()) };
                let from = first.max(known.saturating_sub(JudgedToken::BESIDE));
                let to = end.min(behind + JudgedToken::BESIDE);
                judged.push(JudgedToken {
                    row: number,
                    token: row.labels[place],
                    before: row.ids[from..known].to_vec(),
                    after: row.ids.get(behind..to).unwrap_or_default().to_vec(),
                    share,
                    student: (-student).exp(),
                    teacher: whole.then(|| (-teacher).exp()),
                });
            }
        }
        Ok(judged)
    }

    /// `count` rows, each once, as the run reads them from `cursor` on.
    fn rows_from(&mut self, mut cursor: Cursor, count: usize) -> Vec<u32> {
        let mut chosen: Vec<u32> = Vec::new();
        while chosen.len() < count {
            let rule = BatchRule::Sequences(count - chosen.len());
            let (more, after) = self.order.next_step(&self.job.train, cursor, rule);
            cursor = after;
            let new = more.iter().filter(|row| !chosen.contains(row)).copied();
            chosen.extend(new.collect::<Vec<u32>>());
        }
        chosen
    }

    /// Reads the rows with both models, and weighs their tokens, or hears `heard` of them.
    fn read_through(&mut self, chosen: &[u32], heard: Option<Heard>) -> Vec<[f64; 2]> {
        self.read(chosen, true);
        let (counts, ranges) = self.begin_measured(|_| true);
        let counts = StepCounts { weighed: true, ..counts };
        let at = self.at();
        if let Some((balance, _)) = &mut self.pass.balance {
            balance.begin(at);
        }
        self.pass.listen(heard);
        let mut place = 0;
        for range in ranges {
            if self.load(range, &mut place) {
                let teachers = live(&self.teachers, true);
                let device = &mut *self.device;
                self.pass.run(device, &self.network, &teachers, counts, Gradients::default());
            }
        }
        self.pass.heard()
    }
}
