//! When a student writes anew, reads again what it wrote before, or reads the data: adaptive
//! off-policy replay (DistiLLM; Ko et al. 2024, arXiv:2402.03898, algorithm 1).
//!
//! In: losses on held-out data, and the texts that were written. Out: at each step one of the three,
//! and which of the kept texts come again. Never: a random state.
//!
//! φ, the share of steps on the student's own texts, begins at `first` and rises by `rise` whenever the
//! held-out loss is `margin` above what it was at the last rise (at first: when it was first heard, as
//! the authors' program does it): the student then meets too little of its own
//! mistakes. Of these steps a part that falls from φ to 0 over the run (or rises, or stays at
//! half) writes anew; the others take from the last `capacity` texts, since a text costs much more
//! to write than to read again.

use std::collections::VecDeque;

use heirloom_base::{Purpose, uniform, word};
use heirloom_data::text::Row;

/// How the share of new texts among the student's own goes over a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayRatio {
    /// `φ · (1 − t/T)`.
    Falling,
    /// `φ / 2`.
    Constant,
    /// `φ · t/T`.
    Rising,
}

/// The numbers of a replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReplayPlan {
    /// Texts that are kept.
    pub capacity: usize,
    /// φ at the beginning, `0.0..=1.0`.
    pub first: f64,
    /// What φ rises by, 0.1 as published.
    pub rise: f64,
    /// By how much the held-out loss must be higher for that, in nats; 0.1 as published.
    pub margin: f64,
    /// Of the new texts.
    pub ratio: ReplayRatio,
    /// Of the random words.
    pub seed: u64,
}

/// Where a step's batch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The data.
    Data,
    /// The student writes; its texts are kept, and the batch is taken from what is kept.
    Written,
    /// What was kept.
    Kept,
}

/// A replay under way: everything in it is part of a run's state.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    plan: ReplayPlan,
    /// φ.
    share: f64,
    /// The held-out loss at the last rise, or the first one.
    level: Option<f64>,
    kept: VecDeque<Row>,
}

impl Replay {
    /// One that has kept nothing yet.
    pub fn new(plan: ReplayPlan) -> Self {
        Self { plan, share: plan.first, level: None, kept: VecDeque::new() }
    }

    /// Its numbers.
    pub fn plan(&self) -> ReplayPlan {
        self.plan
    }

    /// φ.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// How many texts are kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Hears the loss on held-out data. One that is no number changes nothing.
    pub fn hear(&mut self, loss: f64) {
        if !loss.is_finite() {
            return;
        }
        match self.level {
            Some(level) if loss < level + self.plan.margin => return,
            Some(_) => self.share = (self.share + self.plan.rise).min(1.0),
            None => {}
        }
        self.level = Some(loss);
    }

    /// Where the batch of `step` of `steps` comes from. While fewer texts are kept than there is room
    /// for, the student writes wherever it would read its own.
    pub fn source(&self, step: u64, steps: u64) -> Source {
        let gone = (step as f64 / steps.max(1) as f64).min(1.0);
        let new = match self.plan.ratio {
            ReplayRatio::Falling => 1.0 - gone,
            ReplayRatio::Constant => 0.5,
            ReplayRatio::Rising => gone,
        };
        let drawn = uniform(word(self.plan.seed, Purpose::OnPolicy, step, 0));
        if drawn >= self.share {
            Source::Data
        } else if drawn < self.share * new || self.kept.len() < self.plan.capacity {
            Source::Written
        } else {
            Source::Kept
        }
    }

    /// Keeps a text; of more than there is room for the oldest goes.
    pub fn keep(&mut self, text: Row) {
        self.kept.push_back(text);
        while self.kept.len() > self.plan.capacity {
            self.kept.pop_front();
        }
    }

    /// `count` of the kept texts for `step`, each as likely as another; the same one may come twice.
    pub fn take(&self, step: u64, count: usize) -> impl Iterator<Item = &Row> {
        let count = if self.kept.is_empty() { 0 } else { count };
        (1..=count as u64).map(move |at| {
            let drawn = u128::from(word(self.plan.seed, Purpose::OnPolicy, step, at));
            &self.kept[((drawn * self.kept.len() as u128) >> 64) as usize]
        })
    }

    /// φ, the loss it was last raised at (NaN: none yet) and the kept texts, for a checkpoint: numbers below 2⁵³ and
    /// two shares, all exact.
    pub fn state(&self) -> Vec<f64> {
        let mut numbers = vec![self.share, self.level.unwrap_or(f64::NAN), self.kept.len() as f64];
        let mut add = |values: &[u32]| {
            numbers.push(values.len() as f64);
            numbers.extend(values.iter().map(|&value| f64::from(value)));
        };
        for row in &self.kept {
            add(&row.ids);
            add(&row.starts);
            add(&row.labels);
        }
        numbers
    }

    /// Goes on from what [`Replay::state`] gave.
    ///
    /// # Errors
    /// Where that is not what the numbers are.
    pub fn restore(plan: ReplayPlan, state: &[f64]) -> Result<Self, ReplayDamage> {
        let mut rest = state.iter().copied();
        let mut next = || rest.next().ok_or(ReplayDamage::Short { found: state.len() });
        let whole = |number: f64, end: f64| {
            let fits = number.fract() == 0.0 && (0.0..=end).contains(&number);
            fits.then_some(number).ok_or(ReplayDamage::NoCount { found: number.to_string() })
        };
        let (share, level) = (next()?, next()?);
        if !(0.0..=1.0).contains(&share) {
            return Err(ReplayDamage::NoShare { found: share.to_string() });
        }
        let texts = whole(next()?, plan.capacity as f64)? as usize;
        let mut kept = VecDeque::new();
        for _ in 0..texts {
            let mut row = Row::default();
            for part in [&mut row.ids, &mut row.starts, &mut row.labels] {
                let length = whole(next()?, state.len() as f64)? as usize;
                for _ in 0..length {
                    part.push(whole(next()?, f64::from(u32::MAX))? as u32);
                }
            }
            kept.push_back(row);
        }
        match rest.next() {
            None => {
                let level = (!level.is_nan()).then_some(level);
                Ok(Self { plan, share, level, kept })
            }
            Some(_) => Err(ReplayDamage::Long { found: state.len() }),
        }
    }
}

/// Why numbers are not a replay's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayDamage {
    /// They end early.
    #[error("the kept texts end after {found} numbers, in the middle of one")]
    Short {
        /// How many there are.
        found: usize,
    },
    /// There are more.
    #[error("of {found} numbers some are behind the last kept text")]
    Long {
        /// How many there are.
        found: usize,
    },
    /// A count, id or number of texts that cannot be one.
    #[error("{found} is no token, and no number of texts that are kept")]
    NoCount {
        /// What is there.
        found: String,
    },
    /// φ outside `0.0..=1.0`.
    #[error("{found} is no share of steps")]
    NoShare {
        /// What is there.
        found: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::add_written;

    fn plan(ratio: ReplayRatio) -> ReplayPlan {
        ReplayPlan { capacity: 4, first: 0.4, rise: 0.1, margin: 0.1, ratio, seed: 5 }
    }

    fn text(token: u32) -> Row {
        let mut row = Row::default();
        add_written(&mut row, &[1, 2], &[token, token + 1]);
        row
    }

    fn full(ratio: ReplayRatio) -> Replay {
        let mut replay = Replay::new(plan(ratio));
        (0..6).for_each(|at| replay.keep(text(10 + at)));
        replay
    }

    /// Steps of a long run that come from each source, in thousandths.
    fn shares(replay: &Replay, steps: std::ops::Range<u64>, of: u64) -> [i64; 3] {
        let count = (steps.end - steps.start) as f64;
        let mut found = [0.0; 3];
        for step in steps {
            found[replay.source(step, of) as usize] += 1000.0 / count;
        }
        found.map(|x| x as i64)
    }

    #[track_caller]
    fn near(found: [i64; 3], want: [i64; 3]) {
        // Twenty thousand steps: three standard deviations are 11 thousandths.
        let apart = found.iter().zip(want).map(|(a, b)| (a - b).abs()).max();
        assert!(apart <= Some(12), "{found:?}, expected {want:?}");
    }

    #[test]
    fn new_texts_become_fewer_or_more_as_the_ratio_says() {
        // Over the first tenth and the last tenth of a run; data, written, kept.
        let (early, late, of) = (0..20_000, 180_000..200_000, 200_000);
        for (ratio, first, last) in [
            (ReplayRatio::Falling, [600, 380, 20], [600, 20, 380]),
            (ReplayRatio::Constant, [600, 200, 200], [600, 200, 200]),
            (ReplayRatio::Rising, [600, 20, 380], [600, 380, 20]),
        ] {
            near(shares(&full(ratio), early.clone(), of), first);
            near(shares(&full(ratio), late.clone(), of), last);
        }
    }

    #[test]
    fn until_there_is_something_to_take_the_student_writes() {
        let mut replay = Replay::new(plan(ReplayRatio::Rising));
        near(shares(&replay, 0..20_000, 200_000), [600, 400, 0]);
        (0..3).for_each(|at| replay.keep(text(at)));
        near(shares(&replay, 0..20_000, 200_000), [600, 400, 0]);
        replay.keep(text(3));
        near(shares(&replay, 0..20_000, 200_000), [600, 20, 380]);
    }

    #[test]
    fn a_worse_held_out_loss_raises_the_share_of_the_students_texts() {
        let mut replay = Replay::new(plan(ReplayRatio::Falling));
        let mut heard = |loss| {
            replay.hear(loss);
            (replay.share() * 10.0).round() as u32
        };
        let losses = [2.0, 1.5, 2.05, 2.125, 2.2, 2.25, f64::NAN, 2.0];
        assert_eq!(losses.map(&mut heard), [4, 4, 4, 5, 5, 6, 6, 6]);
        (3..12).for_each(|loss| replay.hear(f64::from(loss)));
        assert_eq!(replay.share(), 1.0);
    }

    #[test]
    fn the_oldest_text_goes_and_all_that_are_kept_come_again() {
        let replay = full(ReplayRatio::Falling);
        assert_eq!(replay.kept(), 4);
        let mut seen: Vec<u32> = replay.take(3, 200).map(|row| row.ids[2]).collect();
        assert_eq!(replay.take(3, 200).map(|row| row.ids[2]).collect::<Vec<_>>(), seen);
        assert_ne!(replay.take(4, 200).map(|row| row.ids[2]).collect::<Vec<_>>(), seen);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [12, 13, 14, 15]);
        assert_eq!(Replay::new(plan(ReplayRatio::Falling)).take(0, 5).count(), 0);
    }

    #[test]
    fn a_replay_goes_on_from_its_state_and_refuses_what_is_none() {
        let mut replay = full(ReplayRatio::Falling);
        for again in [Replay::new(replay.plan), replay.clone()] {
            let back = Replay::restore(again.plan, &again.state()).unwrap();
            assert_eq!(back, again);
        }
        replay.hear(2.0);
        replay.hear(3.0);
        let state = replay.state();
        assert_eq!(Replay::restore(replay.plan, &state).unwrap(), replay);
        let refused = |state: &[f64]| Replay::restore(replay.plan, state).unwrap_err().to_string();
        assert_eq!(
            refused(&state[..7]),
            "the kept texts end after 7 numbers, in the middle of one"
        );
        let with = |at: usize, value: f64| {
            let mut changed = state.clone();
            changed[at] = value;
            refused(&changed)
        };
        assert_eq!(with(0, 1.5), "1.5 is no share of steps");
        assert_eq!(with(2, 5.0), "5 is no token, and no number of texts that are kept");
        assert_eq!(with(4, 0.5), "0.5 is no token, and no number of texts that are kept");
        let more = [&state[..], &[1.0]].concat();
        let count = more.len();
        assert_eq!(
            refused(&more),
            format!("of {count} numbers some are behind the last kept text")
        );
    }
}
