//! The demo in words and in a table; every statement is computed from the numbers.

use heirloom_data::synthetic::CLASSES;
use heirloom_report::compare::{SeedDifference, across_seeds};
use heirloom_report::seeds::Seeds;
use heirloom_report::table::{Cell, Table};
use serde::Serialize;
use serde_json::{Value, json};

use super::judged::Judged;
use super::sizes::Sizes;

/// The models of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Truth,
    Teacher,
    LabelsOnly,
    Smoothed,
    Labo,
    Distilled,
    Balanced,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Truth => "best possible (Bayes)",
            Self::Teacher => "teacher",
            Self::LabelsOnly => "student, labels only",
            Self::Smoothed => "student, label smoothing",
            Self::Labo => "student, LABO",
            Self::Distilled => "student, distilled",
            Self::Balanced => "student, RW-KD",
        }
    }
}

/// All that was found.
pub(super) struct Story {
    pub(super) sizes: Sizes,
    pub(super) teacher_parameters: u64,
    pub(super) student_parameters: u64,
    /// Every run of every kind, in the order of the table.
    pub(super) rows: Vec<(Kind, Vec<Judged>)>,
    /// Seconds in which the teacher answered the students' texts.
    pub(super) answering_seconds: f64,
    pub(super) seconds: f64,
}

/// What is measured: the key in JSON, and how it is read.
type Measure = (&'static str, fn(&Judged) -> Option<f64>);

const MEASURES: [Measure; 7] = [
    ("accuracy", |judged| judged.accuracy),
    ("nll", |judged| judged.nll),
    ("calibration_error", |judged| judged.calibration_error),
    ("agreement_with_teacher", |judged| judged.agreement),
    ("distance_to_truth", |judged| judged.distance),
    ("target_to_truth", |judged| judged.target),
    ("seconds", |judged| judged.seconds),
];

/// What happens, told before it does.
pub(super) fn before(sizes: &Sizes) -> String {
    let Sizes { teacher_texts, student_texts, test_texts, seeds, .. } = sizes;
    format!(
        "\
This demo invents a language of 2000 words and writes sentences in it. Each belongs to one of {CLASSES}
classes. Words speak for some classes and against others; some work like \"not\", \"very\" or \"but\" and
change what the words beside them say. The label is then drawn at random, with probabilities that are
known exactly: even a model that knew all the rules would sometimes be wrong.

A teacher learns from {teacher_texts} labelled sentences. Then small students learn from {student_texts} other ones:
{seeds} from the labels alone, {seeds} each from labels that are smoothed or mixed with what the student itself
answers at that moment (LABO), {seeds} from the labels and from the probabilities that the teacher gives to
every class (distillation), and {seeds} for which what helps on other sentences decides, for each sentence
apart, how much the label counts and how much the teacher (RW-KD). Else they are equal: first weights,
order of sentences, number of steps. All are judged on {test_texts} sentences that none of them has seen.

"
    )
}

impl Story {
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new([
            "model",
            "parameters",
            "accuracy",
            "NLL",
            "ECE",
            "agreement",
            "to truth",
            "target to truth",
            "seconds",
        ]);
        for (kind, runs) in &self.rows {
            let mut cells =
                vec![kind.name().into(), self.parameters(*kind).map_or(Cell::Missing, Cell::Count)];
            for (key, measure) in MEASURES {
                let decimals = if key == "seconds" { 1 } else { 3 };
                let own = key == "agreement_with_teacher" && *kind == Kind::Teacher;
                let seeds = seeds(runs, measure).filter(|_| !own);
                cells.push(seeds.map_or(Cell::Missing, |seeds| cell(seeds, decimals)));
            }
            table.row(cells);
        }
        table
    }

    pub(super) fn json(&self) -> Value {
        let row = |(kind, runs): &(Kind, Vec<Judged>)| {
            let mut row =
                json!({ "model": kind, "parameters": self.parameters(*kind), "runs": runs });
            for (key, measure) in MEASURES {
                row[key] = json!(seeds(runs, measure));
            }
            row
        };
        json!({
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "teacher_texts": self.sizes.teacher_texts,
            "student_texts": self.sizes.student_texts,
            "test_texts": self.sizes.test_texts,
            "answering_seconds": self.answering_seconds,
            "seconds": self.seconds,
        })
    }

    /// What the table says.
    pub(super) fn after(&self) -> String {
        let mut text = format!(
            "
NLL is the price in nats of the probabilities that a model gives, and ECE how far they are from being
right as often as they say. Agreement is the share of sentences answered as the teacher answers them,
and to truth is the mean divergence KL(truth ‖ model) in nats. Target to truth is the same of what a
student is taught of a sentence in place of its label; a label alone is infinitely far, and distillation
at a temperature is taught something that is no distribution. Lower is better, except for accuracy and
agreement. Students are shown as mean ± standard deviation over {} seeds.

",
            self.sizes.seeds
        );
        let statements = [
            self.regularized(),
            self.gain(),
            self.share(),
            self.distance(),
            self.balance(),
            Some(self.cost()),
        ];
        for statement in statements {
            text.extend(statement.map(|statement| statement + "\n"));
        }
        text
    }

    /// How near regularized labels, and those who learnt from them, come to the truth.
    fn regularized(&self) -> Option<String> {
        let mean = |kind, measure| Some(seeds(self.runs(kind)?, measure)?.mean);
        let distance = |kind| mean(kind, |judged| judged.distance);
        let target = |kind| mean(kind, |judged| judged.target);
        let (plain, smoothed, labo) =
            (distance(Kind::LabelsOnly)?, distance(Kind::Smoothed)?, distance(Kind::Labo)?);
        let nearer =
            if target(Kind::Labo)? < target(Kind::Smoothed)? { "nearer" } else { "farther" };
        Some(format!(
            "- Without a teacher, from labels alone students end {plain:.3} nats from the truth, from smoothed \
             ones\n  {smoothed:.3}, with LABO {labo:.3}. LABO's labels themselves are {nearer} than \
             smoothed ones:\n  {:.3} and {:.3} nats.",
            target(Kind::Labo)?,
            target(Kind::Smoothed)?,
        ))
    }

    /// Whether distillation helped, and whether that is more than chance.
    fn gain(&self) -> Option<String> {
        let [alone, taught] = [Kind::LabelsOnly, Kind::Distilled]
            .map(|kind| self.scores(kind, |judged| judged.accuracy));
        let difference = across_seeds(&taught?, &alone?)?;
        let points = 100.0 * difference.mean;
        let verdict = verdict(&difference);
        let interval = difference.interval.map_or(String::new(), |interval| {
            format!(" (95 %: {:+.1} to {:+.1})", 100.0 * interval.low, 100.0 * interval.high,)
        });
        Some(format!(
            "- The teacher's probabilities changed the students' accuracy by {points:+.1} points{interval}.
  {verdict}"
        ))
    }

    /// Whether probabilities became better, which accuracy does not see.
    fn distance(&self) -> Option<String> {
        let mean = |kind| Some(seeds(self.runs(kind)?, |judged| judged.distance)?.mean);
        let (alone, taught) = (mean(Kind::LabelsOnly)?, mean(Kind::Distilled)?);
        let word = if taught < alone { "nearer to" } else { "farther from" };
        Some(format!(
            "- Their probabilities are {word} the truth: {taught:.3} nats instead of {alone:.3}."
        ))
    }

    /// How much of the way from the student to the teacher was covered, where there is a way and
    /// the students did get ahead.
    fn share(&self) -> Option<String> {
        let mean = |kind| Some(seeds(self.runs(kind)?, |judged| judged.accuracy)?.mean);
        let (alone, taught) = (mean(Kind::LabelsOnly)?, mean(Kind::Distilled)?);
        let (teacher, best) = (mean(Kind::Teacher)?, mean(Kind::Truth)?);
        if teacher <= alone {
            return Some(format!(
                "- The teacher ({teacher:.3}) is no better than students on labels alone ({alone:.3}): \
                 it had little\n  to pass on."
            ));
        }
        (taught > alone).then(|| {
            format!(
                "- That is {:.0} % of the way from labels alone ({alone:.3}) to the teacher \
                 ({teacher:.3}). Knowing\n  the truth would give {best:.3}.",
                100.0 * (taught - alone) / (teacher - alone)
            )
        })
    }

    /// Whether shares that were learnt did better than the fixed one.
    fn balance(&self) -> Option<String> {
        let [fixed, learnt] = [Kind::Distilled, Kind::Balanced]
            .map(|kind| self.scores(kind, |judged| judged.accuracy));
        let difference = across_seeds(&learnt?, &fixed?)?;
        let points = 100.0 * difference.mean;
        let interval = difference.interval.map_or(String::new(), |interval| {
            format!(" (95 %: {:+.1} to {:+.1})", 100.0 * interval.low, 100.0 * interval.high)
        });
        Some(format!(
            "- Against that fixed share, shares learnt for each sentence changed accuracy by\n  \
             {points:+.1} points{interval}."
        ))
    }

    /// What it cost, the teacher included.
    fn cost(&self) -> String {
        let total = |kind| -> f64 {
            let runs = self.runs(kind).unwrap_or_default();
            runs.iter().filter_map(|judged| judged.seconds).sum()
        };
        let share = 100.0 * self.student_parameters as f64 / self.teacher_parameters as f64;
        let (teacher_texts, student_texts) = (self.sizes.teacher_texts, self.sizes.student_texts);
        format!(
            "- A student has {share:.0} % of the teacher's parameters. The price is the teacher: {:.1} s to train it
  on {teacher_texts} labels and {:.1} s for its answers, against {:.1} s for all distilled students. What
  it passes on is what it learnt from those labels; with only {student_texts} there would be less to pass on.
- The whole demo took {:.0} s.",
            total(Kind::Teacher),
            self.answering_seconds,
            total(Kind::Distilled),
            self.seconds,
        )
    }

    fn runs(&self, kind: Kind) -> Option<&[Judged]> {
        let row = self.rows.iter().find(|(of, _)| *of == kind)?;
        Some(&row.1)
    }

    fn scores(&self, kind: Kind, measure: fn(&Judged) -> Option<f64>) -> Option<Vec<f64>> {
        self.runs(kind)?.iter().map(measure).collect()
    }

    fn parameters(&self, kind: Kind) -> Option<u64> {
        match kind {
            Kind::Truth => None,
            Kind::Teacher => Some(self.teacher_parameters),
            Kind::LabelsOnly | Kind::Smoothed | Kind::Labo | Kind::Distilled | Kind::Balanced => {
                Some(self.student_parameters)
            }
        }
    }
}

/// What a difference of accuracies means.
fn verdict(difference: &SeedDifference) -> &'static str {
    match difference.interval {
        Some(interval) if interval.low > 0.0 => "Distillation helped, by more than seeds differ.",
        Some(interval) if interval.high < 0.0 => "Distillation hurt, by more than seeds differ.",
        _ => "Chance alone may do as much: no difference in accuracy is shown.",
    }
}

fn seeds(runs: &[Judged], measure: fn(&Judged) -> Option<f64>) -> Option<Seeds> {
    let scores: Option<Vec<f64>> = runs.iter().map(measure).collect();
    Seeds::of(&scores?)
}

/// Mean and spread in as little room as will do; how many seeds there are, the words say.
fn cell(seeds: Seeds, decimals: usize) -> Cell {
    match seeds.sd {
        Some(sd) => format!("{:.decimals$} ± {sd:.decimals$}", seeds.mean).into(),
        None => format!("{:.decimals$}", seeds.mean).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(accuracy: f64, distance: f64) -> Judged {
        Judged {
            accuracy: Some(accuracy),
            nll: Some(1.0),
            calibration_error: Some(0.1),
            agreement: Some(0.5),
            distance: Some(distance),
            target: Some(distance + 0.1),
            seconds: Some(2.0),
        }
    }

    fn story(alone: [f64; 3], taught: [f64; 3]) -> Story {
        let runs =
            |scores: [f64; 3], distance| scores.map(|score| judged(score, distance)).to_vec();
        Story {
            sizes: Sizes::of(1.0),
            teacher_parameters: 600,
            student_parameters: 200,
            rows: vec![
                (Kind::Truth, vec![judged(0.85, 0.0)]),
                (Kind::Teacher, vec![judged(0.70, 0.3)]),
                (Kind::LabelsOnly, runs(alone, 0.9)),
                (Kind::Smoothed, runs(alone, 0.8)),
                (Kind::Labo, runs(alone, 0.7)),
                (Kind::Distilled, runs(taught, 0.4)),
                (Kind::Balanced, runs(taught.map(|score| score - 0.05), 0.5)),
            ],
            answering_seconds: 1.0,
            seconds: 60.0,
        }
    }

    #[test]
    fn the_words_follow_the_numbers() {
        let rows = [
            ([0.50, 0.51, 0.52], [0.60, 0.61, 0.62], "by +10.0 points"),
            ([0.50, 0.51, 0.52], [0.601, 0.61, 0.619], "Distillation helped"),
            ([0.50, 0.51, 0.52], [0.401, 0.41, 0.419], "Distillation hurt"),
            ([0.50, 0.51, 0.52], [0.40, 0.50, 0.64], "no difference in accuracy is shown"),
            (
                [0.50, 0.51, 0.52],
                [0.60, 0.61, 0.62],
                "nearer to the truth: 0.400 nats instead of 0.900",
            ),
            (
                [0.50, 0.51, 0.52],
                [0.60, 0.61, 0.62],
                "from labels alone students end 0.900 nats from the truth, from smoothed ones 0.800, \
                 with LABO 0.700. LABO's labels themselves are nearer than smoothed ones: 0.800 and \
                 0.900 nats.",
            ),
            ([0.60, 0.60, 0.60], [0.65, 0.65, 0.65], "50 % of the way"),
            ([0.70, 0.71, 0.72], [0.71, 0.71, 0.71], "had little to pass on"),
            (
                [0.50, 0.51, 0.52],
                [0.60, 0.61, 0.62],
                "shares learnt for each sentence changed accuracy by -5.0 points",
            ),
            ([0.50, 0.51, 0.52], [0.60, 0.61, 0.62], "33 % of the teacher's parameters"),
        ];
        for (alone, taught, want) in rows {
            // Where lines end is no matter of the numbers.
            let after = story(alone, taught).after();
            let after = after.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(after.contains(want), "{want}:\n{after}");
        }
    }

    #[test]
    fn a_teacher_is_not_said_to_agree_with_itself() {
        let table = story([0.5; 3], [0.6; 3]).table().json();
        assert!(table[1]["agreement"].is_null());
        assert_eq!(table[5]["accuracy"], "0.600 ± 0.000");
    }
}
