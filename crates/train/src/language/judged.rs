//! Tokens that a policy weighs, one by one, for people to look at.
//!
//! In: a trainer where a checkpoint was. Out: the tokens of the rows that come next, each with its share
//! and what both models think of it. Never: a step; the trainer is for nothing else afterwards.

use heirloom_data::order::BatchRule;
use heirloom_data::text::NOT_LEARNT;

use super::balance::Heard;
use super::inside::{Gradients, StepCounts};
use super::second::live;
use super::trainer::LanguageTrainer;

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
    /// Probability that the teacher gives it, likewise.
    pub teacher: f64,
}

impl JudgedToken {
    /// Tokens that are shown on either side.
    pub const BESIDE: usize = 16;
}

impl LanguageTrainer {
    /// The tokens of the next `count` rows as the policy weighs them now, without dropout; `None` where
    /// no policy weighs tokens. `rw_kd` is measured with other rows, as in a step.
    pub fn judge(&mut self, count: usize) -> Option<Vec<JudgedToken>> {
        self.pass.balance.as_ref().filter(|(balance, _)| balance.weighs_tokens())?;
        let rule = BatchRule::Sequences(count);
        let (chosen, _) = self.order.next_step(&self.job.train, self.progress.cursor, rule);
        if let Some(second) = &mut self.second {
            let (others, _) = second.next(&self.job.train, self.progress.second);
            let (at, found) = (self.at(), self.measure(&chosen, &others));
            if let (Some(found), Some((balance, _))) = (found, &mut self.pass.balance) {
                balance.align_alone(&found, at);
            }
        }
        let probabilities = self.read_through(&chosen, Some(Heard::Labels));
        self.read_through(&chosen, None);
        let (balance, _) = self.pass.balance.as_ref()?;
        let mut numbers = probabilities.into_iter().zip(balance.shares().to_vec());
        let mut judged = Vec::new();
        for (row, &number) in self.rows[..self.held].iter().zip(&chosen) {
            for place in (0..row.ids.len()).filter(|&place| row.labels[place] != NOT_LEARNT) {
                let ([student, teacher], share) = numbers.next()?;
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
                    teacher: (-teacher).exp(),
                });
            }
        }
        Some(judged)
    }

    /// Reads the rows with both models, and weighs their tokens, or hears `heard` of them.
    fn read_through(&mut self, chosen: &[u32], heard: Option<Heard>) -> Vec<[f64; 2]> {
        self.read(chosen, true);
        let (counts, ranges) = self.begin_measured(|_| true);
        let counts = StepCounts { weighed: true, ..counts };
        let teachers = live(&self.teachers, true);
        if let Some((balance, _)) = &mut self.pass.balance {
            balance.begin();
        }
        self.pass.listen(heard);
        for range in ranges {
            let rows = &self.rows[range.clone()];
            if rows.iter().all(|row| row.learnt() == 0) {
                continue;
            }
            self.pass.host.refill(rows, range.start, self.network.masked());
            let device = &mut *self.device;
            self.pass.run(device, &self.network, &teachers, counts, Gradients::default());
        }
        self.pass.heard()
    }
}
