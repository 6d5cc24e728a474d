//! `heirloom ledger`: what growing saved against training from scratch, at equal loss.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use heirloom::failure::Failure;
use heirloom_report::courses::{Course, courses};
use heirloom_report::ledger::{Account, Point, Saving, Spent, savings};
use heirloom_report::table::{Cell, Table};
use heirloom_store::{RealDisk, write_atomic};
use serde_json::{Value, json};

use crate::args::LedgerArgs;
use crate::picture::can_be_new;
use crate::show::Show;

pub(crate) fn run(args: &LedgerArgs, show: Show) -> Result<u8, Failure> {
    if let Some(file) = &args.curve {
        can_be_new(file, "--curve")?;
    }
    let open = |runs: &[PathBuf]| -> Result<Vec<Run>, Failure> {
        runs.iter().map(|run| Run::open(run)).collect()
    };
    let (runs, beside) = (open(&args.runs)?, open(&args.beside)?);
    let scratch = Run::open(&args.baseline)?;
    let grown = account(&runs, args.whole)?;
    let baseline = account(std::slice::from_ref(&scratch), true)?;
    let mut rows = Vec::new();
    for &target in &args.target {
        let saved = savings(&grown, &baseline, target, args.reuses);
        rows.extend(saved.map_err(|refusal| Failure::usage(refusal.to_string()))?);
    }
    if let Some(file) = &args.curve {
        let mut all = vec![course(std::slice::from_ref(&scratch)), course(&runs)];
        all.extend(beside.iter().map(|run| course(std::slice::from_ref(run))));
        if all.iter().all(|course| course.points.is_empty()) {
            return Err(Failure::usage("no run has an evaluation, so there is nothing to draw"));
        }
        let svg = courses("Validation loss", "operations", &all);
        write_atomic(&RealDisk, file, svg.as_bytes())?;
    }
    if show.json {
        show.json(&json!({
            "small": grown.small,
            "operator": grown.operator,
            "reuses": args.reuses,
            "savings": rows,
        }));
        return Ok(0);
    }
    show.data(&table(&rows, args.reuses).text());
    Ok(0)
}

fn table(rows: &[Saving], reuses: u64) -> Table {
    let amortised = format!("amortised over {reuses}");
    let mut table = Table::new([
        "loss",
        "measure",
        "baseline",
        "grown",
        "small",
        "uncounted",
        "counted",
        &amortised,
        "break-even",
    ]);
    for row in rows {
        let amount = |value: f64| Cell::Text(format!("{value:.3e}"));
        let share = |value: f64| Cell::Text(format!("{:+.1} %", 100.0 * value));
        table.row([
            Cell::Text(row.target.to_string()),
            row.measure.into(),
            amount(row.baseline),
            amount(row.grown),
            amount(row.small),
            share(row.uncounted),
            share(row.counted),
            share(row.amortised),
            row.break_even.map_or_else(|| "never".into(), Cell::Count),
        ]);
    }
    table
}

/// What a run's records say.
struct Run {
    name: String,
    /// What each step spent.
    steps: BTreeMap<u64, Spent>,
    /// Validation losses, by step.
    losses: BTreeMap<u64, f64>,
    /// Steps after which the student grew, and what growing spent.
    growths: Vec<(u64, Spent)>,
    /// What teachers' kept answers took.
    teacher: Spent,
}

impl Run {
    fn open(folder: &Path) -> Result<Self, Failure> {
        let name = folder.display().to_string();
        if !folder.join("run.jsonl").is_file() {
            return Err(Failure::usage(format!(
                "`{name}` is not a run folder: it has no run.jsonl"
            )));
        }
        let seconds = seconds(&lines(&folder.join("times.jsonl"))?);
        let (mut steps, mut losses) = (BTreeMap::new(), BTreeMap::new());
        let (mut growths, mut teacher) = (Vec::new(), Spent::default());
        for record in lines(&folder.join("run.jsonl"))? {
            let number = |name: &str| record[name].as_f64().unwrap_or_default();
            let step = record["step"].as_u64().unwrap_or_default();
            match record["kind"].as_str().unwrap_or_default() {
                "step" => {
                    let seconds = seconds.get(&step).copied().unwrap_or_default();
                    let (flops, tokens) = (number("flops"), number("tokens"));
                    steps.insert(step, Spent { flops, tokens, seconds });
                }
                "evaluation" => {
                    if let Some(loss) = record["evaluation"]["loss"].as_f64() {
                        losses.insert(step, loss);
                    }
                }
                "growth" => {
                    let tried = record["candidates"].as_array().into_iter().flatten();
                    let tried = tried.filter_map(|candidate| candidate["tokens"].as_f64());
                    let learnt = record["learnt"]["tokens"].as_f64().unwrap_or_default();
                    let tokens = learnt + tried.sum::<f64>();
                    growths.push((step, Spent { flops: number("flops"), tokens, seconds: 0.0 }));
                }
                "teacher" => {
                    let (flops, tokens) = (number("flops"), number("tokens"));
                    teacher = teacher.and(Spent { flops, tokens, seconds: 0.0 });
                }
                _ => (),
            }
        }
        Ok(Self { name, steps, losses, growths, teacher })
    }

    /// All that was spent in steps after `from` up to `to`.
    fn spent(&self, from: u64, to: u64) -> Spent {
        let steps = self.steps.range((Bound::Excluded(from), Bound::Included(to)));
        steps.fold(Spent::default(), |all, (_, one)| all.and(*one))
    }
}

/// The lines of a record; none where there is no such file.
fn lines(path: &Path) -> Result<Vec<Value>, Failure> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(Vec::new()) };
    let read = |(at, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| Failure::input(format!("`{}`:{}: {error}", path.display(), at + 1)))
    };
    text.lines().enumerate().map(read).collect()
}

/// Seconds of each step: from the line before it, or from where its process began. Of steps taken twice
/// the last time counts.
fn seconds(times: &[Value]) -> BTreeMap<u64, f64> {
    let mut seconds = BTreeMap::new();
    let mut before = 0.0;
    for line in times {
        if !line["process"].is_null() {
            before = 0.0;
        }
        let (Some(step), Some(now)) = (line["step"].as_u64(), line["seconds"].as_f64()) else {
            continue;
        };
        seconds.insert(step, now - before);
        before = now;
    }
    seconds
}

/// Losses of runs that follow one another, over all operations before them.
fn course(runs: &[Run]) -> Course {
    let name = runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(" + ");
    let (mut points, mut grown) = (Vec::new(), Vec::new());
    let mut before = 0.0;
    for run in runs {
        let begins = before + run.teacher.flops;
        let spent = |step: u64| {
            let of_growth = run.growths.iter().filter(|(at, _)| *at < step);
            begins + run.spent(0, step).flops + of_growth.map(|(_, spent)| spent.flops).sum::<f64>()
        };
        points.extend(run.losses.iter().map(|(&step, &loss)| [spent(step), loss]));
        grown.extend(run.growths.iter().map(|(step, _)| spent(*step)));
        before = spent(u64::MAX);
    }
    Course { name, points, grown }
}

/// One account of runs that follow one another: what comes before the last growth, or before the last
/// run, is the small model's. `whole` counts no growth of the last run.
fn account(runs: &[Run], whole: bool) -> Result<Account, Failure> {
    let Some((last, before)) = runs.split_last() else {
        return Err(Failure::usage("name a run"));
    };
    let mut small = last.teacher;
    let mut operator = Spent::default();
    for run in before {
        small = small.and(run.spent(0, u64::MAX)).and(run.teacher);
        small = run.growths.iter().fold(small, |all, (_, spent)| all.and(*spent));
    }
    let mut from = 0;
    if !whole {
        match last.growths.split_last() {
            Some(((step, spent), earlier)) => {
                from = *step;
                operator = *spent;
                small = earlier.iter().fold(small, |all, (_, spent)| all.and(*spent));
            }
            None if before.is_empty() => {
                return Err(Failure::usage(format!(
                    "`{}` did not grow; name the small model's run before it, or --whole where there \
                     is none",
                    last.name
                )));
            }
            None => (),
        }
    }
    small = small.and(last.spent(0, from));
    let after = last.losses.iter().filter(|(step, _)| **step > from);
    let points =
        after.map(|(&step, &loss)| Point { step, loss, spent: last.spent(from, step) }).collect();
    Ok(Account { name: last.name.clone(), small, operator, points })
}
