//! What the loop may not know: the clock, signals, the progress bar, and the metrics.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heirloom::failure::Failure;
use heirloom::judge::{deciding, judge};
use heirloom::processor;
use heirloom_base::Bytes;
use heirloom_data::dataset::Dataset;
use heirloom_recipe::{Metric, TrainingPlan};
use heirloom_report::evaluate::Evaluation;
use heirloom_report::language::Foresight;
use heirloom_store::{Log, RealDisk};
use heirloom_train::{
    BalanceRecord, Candidate, Device, Error, EvaluationRecord, Foreseen, GrowthRecord, Judged,
    Outside, StepRecord, Trains, Work,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::clock::Clock;
use crate::show::Show;

/// Set by SIGTERM, SIGINT or SIGHUP; a second one ends the program at once.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in
            [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP]
        {
            // Registered first, so that it acts only when the flag is already set.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
                .map_err(|error| Failure::bug(format!("cannot listen for signals: {error}")))?;
        }
        Ok(Self(asked))
    }

    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The world of one run.
pub(crate) struct World<'a> {
    show: Show,
    stop: &'a Stop,
    training: TrainingPlan,
    threads: usize,
    /// What is measured of labels; a language model has none.
    metric: Option<Metric>,
    clock: Clock,
    bar: Option<ProgressBar>,
    times: Log<'static>,
    tokens: u64,
    /// Steps between lines, where there is no bar.
    every: u64,
    loss: Smoothed,
    shares: Shares,
    /// The last evaluation of labels.
    last: Option<Evaluation>,
    /// The last evaluation of a language model.
    foresight: Option<Foresight>,
    failure: Option<Failure>,
}

/// An exponential mean that starts at its first value.
#[derive(Clone, Copy, Debug, Default)]
struct Smoothed(Option<f64>);

impl Smoothed {
    /// Share of the newest value: a memory of about fifty steps.
    const SHARE: f64 = 0.02;

    fn add(&mut self, value: f64) -> f64 {
        let mean = self.0.map_or(value, |mean| mean + Self::SHARE * (value - mean));
        self.0 = Some(mean);
        mean
    }
}

/// How a balance policy shares out the samples of late.
#[derive(Debug, Default)]
struct Shares {
    /// The teacher's share, λ.
    mean: Smoothed,
    /// Part of the samples that hear the label alone, and the teacher alone.
    alone: [Smoothed; 2],
    /// Whether a second set has a say.
    learnt: bool,
    warned: bool,
}

impl Shares {
    /// With more than this part of the samples on one side nothing is balanced any more.
    const ALONE: f64 = 0.95;

    fn hear(&mut self, record: &BalanceRecord) {
        self.mean.add(record.mean);
        self.alone[0].add(record.label_alone);
        self.alone[1].add(record.teacher_alone);
        self.learnt |= record.measured;
    }

    /// For a line that is printed anyway.
    fn shown(&self) -> String {
        self.mean.0.map_or(String::new(), |mean| format!(" · λ {mean:.2}"))
    }

    /// Said once, where what is learnt has come to an end on one side.
    fn warning(&mut self) -> Option<String> {
        let sides =
            self.alone.iter().zip([("below 0.05", "labels"), ("above 0.95", "the teacher")]);
        let (part, (bound, who)) = sides
            .filter_map(|(part, side)| Some((part.0?, side)))
            .find(|(part, _)| self.learnt && !self.warned && *part > Self::ALONE)?;
        self.warned = true;
        Some(format!(
            "note: λ is {bound} for {:.0} % of the samples: they hear {who} alone. If the second set \
             should not have said so, give the policy a smaller step size or more samples at once",
            100.0 * part
        ))
    }
}

impl<'a> World<'a> {
    /// The world of the run in `folder`, which already took `done` steps.
    pub(crate) fn new(
        show: Show,
        stop: &'a Stop,
        trainer: &dyn Trains,
        metric: Option<Metric>,
        folder: &Path,
        threads: usize,
    ) -> Result<Self, Failure> {
        let training = trainer.training().clone();
        let (done, total) = (trainer.progress().step().0, training.total_steps);
        let path = folder.join("times.jsonl");
        let mut times = if path.exists() {
            Log::open(&RealDisk, &path)
        } else {
            Log::create(&RealDisk, &path)
        }?;
        // Seconds are counted anew from here.
        let _ = times.append(&json!({ "process": "begins", "step": done }));
        let bar = show.has_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(done);
            let template = "{bar:24} {pos}/{len} {msg} · {eta} left";
            let style = ProgressStyle::with_template(template).expect("a fixed template");
            bar.set_style(style.progress_chars("━╸ "));
            bar
        });
        Ok(Self {
            show,
            stop,
            training,
            threads,
            metric,
            clock: Clock::start(),
            bar,
            times,
            tokens: 0,
            every: (total / 10).max(1),
            loss: Smoothed::default(),
            shares: Shares::default(),
            last: None,
            foresight: None,
            failure: None,
        })
    }

    /// Seconds since the run (or its resumption) began.
    pub(crate) fn seconds(&self) -> f64 {
        self.clock.seconds()
    }

    /// Writes beside the times what memory was foreseen and what was taken.
    pub(crate) fn note_memory(&mut self, planned: Bytes, peak: Option<Bytes>) {
        // As with times, nothing depends on it.
        let _ = self.times.append(&json!({ "planned_memory": planned, "peak_memory": peak }));
    }

    /// The failure behind an [`Error`] that only says that judging failed.
    pub(crate) fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => self.show.say(text),
        }
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Outside for World<'_> {
    fn step(&mut self, record: &StepRecord) {
        self.tokens += record.tokens;
        let seconds = self.clock.seconds();
        let speed = self.tokens as f64 / seconds.max(1e-9);
        let loss = self.loss.add(record.loss);
        if let Some(balance) = &record.balance {
            self.shares.hear(balance);
        }
        let shares = self.shares.shown();
        let message = format!("loss {loss:.4}{shares} · {speed:.0} tokens/s");
        // A record of times that cannot be written is no reason to stop: nothing depends on it.
        let _ = self.times.append(&json!({
            "step": record.step, "seconds": seconds, "tokens_per_second": speed,
        }));
        if record.skipped {
            self.line(&format!("step {} was not finite and was left out", record.step));
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position(record.step);
                bar.set_message(message);
            }
            None if record.step.is_multiple_of(self.every) => {
                let total = self.training.total_steps;
                self.show.say(&format!("step {}/{total} · {message}", record.step));
            }
            None => (),
        }
    }

    fn judge(&mut self, outputs: Vec<f32>, validation: &Dataset) -> Result<Judged, Error> {
        let metric = self.metric.expect("a task says what is measured");
        match judge(&outputs, validation, metric) {
            Ok(evaluation) => {
                let (score, higher_is_better) =
                    deciding(&evaluation, &self.training.metric_for_best);
                let value = serde_json::to_value(&evaluation).expect("an evaluation is JSON");
                self.last = Some(evaluation);
                Ok(Judged { score, higher_is_better, evaluation: value })
            }
            Err(failure) => {
                // Outputs that cannot be judged are a model that left the numbers behind.
                let judged = json!({ "failure": failure.message });
                self.failure = Some(failure);
                Ok(Judged { score: None, higher_is_better: true, evaluation: judged })
            }
        }
    }

    fn judge_text(&mut self, foreseen: &Foreseen) -> Result<Judged, Error> {
        let Foreseen { tokens, bytes, nats, misses } = *foreseen;
        let found = Foresight::of(tokens, bytes, nats, misses);
        let (score, higher_is_better) = found.deciding(&self.training.metric_for_best);
        self.foresight = Some(found);
        let evaluation = serde_json::to_value(found).expect("an evaluation is JSON");
        Ok(Judged { score, higher_is_better, evaluation })
    }

    fn evaluated(&mut self, record: &EvaluationRecord) {
        if let Some(warning) = self.shares.warning() {
            self.line(&warning);
        }
        let shares = self.shares.shown();
        let best = if record.best { " · best so far" } else { "" };
        let of = record.averaged.map_or(String::new(), |n| format!(" · average of {n}"));
        if let Some(found) = &self.foresight {
            let said = found.numbers().map(|(name, value)| match value {
                Some(value) => format!("{} {value:.4}", name.replace('_', " ")),
                None => format!("{} has no value", name.replace('_', " ")),
            });
            self.line(&format!("step {}: {}{shares}{of}{best}", record.step, said.join(" · ")));
            return;
        }
        let Some(evaluation) = &self.last else { return };
        let scores: Vec<String> = evaluation
            .scores
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name} {value:.4}"),
                None => format!("{name} has no value"),
            })
            .collect();
        let loss = evaluation.loss.map_or(String::new(), |loss| format!(" · loss {loss:.4}"));
        let scores = scores.join(" · ");
        self.line(&format!("step {}: {scores}{loss}{shares}{of}{best}", record.step));
    }

    fn device(&mut self, work: Work) -> Device {
        processor::device(work, self.training.precision, self.threads)
    }

    fn grown(&mut self, record: &GrowthRecord) {
        let GrowthRecord { step, method, from, to, candidates, .. } = record;
        for Candidate { method, loss, steps, .. } in candidates {
            let loss = loss.map_or("no finite loss".to_owned(), |loss| format!("loss {loss:.4}"));
            self.line(&format!("step {step}: tried `{method}` for {steps} steps: {loss}"));
        }
        self.line(&format!(
            "step {step}: grown by `{method}` from {from} to {to}; outputs up to {:.3} change by at \
             most {:.1e}",
            record.largest_output, record.largest_change
        ));
    }

    fn asked_to_stop(&mut self) -> bool {
        self.stop.asked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mean: f64, label_alone: f64, measured: bool) -> BalanceRecord {
        BalanceRecord {
            mean,
            quantiles: [mean; 3],
            label_alone,
            teacher_alone: 0.0,
            teachers: Vec::new(),
            measured,
            check: None,
            temperature: None,
        }
    }

    #[test]
    fn a_balance_that_has_come_to_an_end_is_said_once_and_only_where_it_was_learnt() {
        let mut shares = Shares::default();
        assert_eq!((shares.shown(), shares.warning()), (String::new(), None));
        // A course that ends with the labels was asked for.
        shares.hear(&record(0.0, 1.0, false));
        assert_eq!((shares.shown().as_str(), shares.warning()), (" · λ 0.00", None));
        shares.hear(&record(0.0, 1.0, true));
        insta::assert_snapshot!(shares.warning().unwrap(), @"note: λ is below 0.05 for 100 % of the samples: they hear labels alone. If the second set should not have said so, give the policy a smaller step size or more samples at once");
        assert_eq!(shares.warning(), None);
        // Samples at both ends are what a policy is for.
        let mut shares = Shares::default();
        (0..200).for_each(|_| shares.hear(&record(0.5, 0.5, true)));
        assert_eq!(shares.warning(), None);
    }
}
