//! `heirloom explain`: whom a run's balance policy trusts, or what its regularizer teaches, example by
//! example.

use std::path::Path;

use heirloom::explain::{
    Explanation, Noise, Row, Said, Spread, TargetRow, Targets, TokenExplanation, TokenRow, explain,
    has_targets_alone, is_of_tokens, targets, tokens,
};
use heirloom::failure::Failure;
use heirloom::places::Places;
use heirloom_report::table::{Cell, Table};
use heirloom_train::Own;

use super::train::{SEEDS, SeedList};
use crate::args::ExplainArgs;
use crate::show::Show;

/// Characters of a text in the table; JSON has all of it.
const TEXT_SHOWN: usize = 72;

pub(crate) fn run(args: &ExplainArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    refuse_several(&args.run)?;
    if is_of_tokens(&args.run)? {
        let told = tokens(&args.run, &Places::from_environment(), threads, args.top)?;
        if show.json {
            show.json(&told);
        } else {
            show.data(&text_of_tokens(&told));
        }
        return Ok(0);
    }
    if has_targets_alone(&args.run)? {
        let places = Places::from_environment();
        let told = targets(&args.run, &places, threads, args.top, &Own::default())?;
        if show.json {
            show.json(&told);
        } else {
            show.data(&text_of_targets(&told));
        }
        return Ok(0);
    }
    let explained = explain(&args.run, &Places::from_environment(), threads, args.top)?;
    if show.json {
        show.json(&explained);
    } else {
        show.data(&text(&explained));
    }
    Ok(0)
}

/// The folder over several seeds has no policy of its own: each of its runs has one.
fn refuse_several(run: &Path) -> Result<(), Failure> {
    let Ok(bytes) = std::fs::read(run.join(SEEDS)) else { return Ok(()) };
    let seeds = serde_json::from_slice::<SeedList>(&bytes).map_or(Vec::new(), |list| list.seeds);
    let named: Vec<String> = seeds
        .iter()
        .map(|seed| format!("`{}`", run.join(format!("seed-{seed}")).display()))
        .collect();
    Err(Failure::usage(format!(
        "`{}` holds a run per seed; name one of them: {}",
        run.display(),
        named.join(", "),
    )))
}

fn text_of_tokens(told: &TokenExplanation) -> String {
    let TokenExplanation { step, policy_words, rows, tokens, shares, .. } = told;
    let mut text = format!("step {}, {policy_words}\n", step.0);
    text +=
        "λ = w₂ / (w₁ + w₂), the teacher's share of a token at the checkpoint, without dropout\n\n";
    text += &format!("{tokens} tokens of {rows} rows of the text\n");
    text += &spread("λ", shares);
    if shares.smallest == shares.largest {
        text += "\nλ is the same for every token: none is trusted more than another\n";
        return text;
    }
    for (title, rows, equal) in [
        ("the teacher is trusted most", &told.most, shares.at_largest),
        ("the teacher is trusted least", &told.least, shares.at_smallest),
    ] {
        if !rows.is_empty() {
            let more = more_alike(rows.len(), equal, "tokens");
            text += &format!("\n{title}{more}\n{}", table_of_tokens(rows).text());
        }
    }
    text
}

/// Tokens in rows: p, how probable each model finds it, and what stands beside it.
fn table_of_tokens(rows: &[TokenRow]) -> Table {
    let mut table = Table::new(["λ", "row", "token", "teacher", "student", "text"]);
    for row in rows {
        let beside = match row.after.is_empty() {
            true => format!("{}▁", row.before.trim_start()),
            false => format!("{} ▁ {}", row.before.trim(), row.after.trim()),
        };
        table.row([
            Cell::score(Some(row.share)),
            Cell::Count(u64::from(row.row)),
            Cell::Text(format!("{:?}", row.token)),
            Cell::score(row.teacher),
            Cell::score(Some(row.student)),
            Cell::Text(in_one_line(&beside)),
        ]);
    }
    table
}

/// A text without its line ends, and of a long one the end.
fn in_one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let count = line.chars().count();
    match count > TEXT_SHOWN {
        true => format!("…{}", line.chars().skip(count - TEXT_SHOWN).collect::<String>()),
        false => line,
    }
}

fn text_of_targets(told: &Targets) -> String {
    let Targets { step, formula, examples, mean_moved, quantiles: [low, middle, high], .. } = told;
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    let mut text = format!("step {}, the label's loss: {formula}\n", step.0);
    text += &format!(
        "the target is q = s − ∂loss/∂z; entries in the order {}\n\n{examples} training examples\n\
         ½ Σ |q − y|: mean {mean_moved:.3}; a tenth up to {low:.3}, half up to {middle:.3}, nine tenths \
         up to {high:.3}\n   the target's largest entry is not the label's class: {:.1} %\n",
        told.classes.join(", "),
        100.0 * told.turned,
    );
    if let Some(noise) = &told.label_noise {
        text += &format!(
            "label noise: mean {} over {} wrong labels, {} over {} clean ones; AUC {} (0.5: the same, \
             1: always farther where the label is wrong)\n",
            number(noise.mean_wrong),
            noise.wrong,
            number(noise.mean_clean),
            noise.clean,
            number(noise.auc),
        );
    }
    for (title, rows) in
        [("targets farthest from their label", &told.most), ("targets nearest to it", &told.least)]
    {
        if !rows.is_empty() {
            text += &format!("\n{title}\n{}", table_of_targets(rows, &told.classes).text());
        }
    }
    text
}

/// Examples in rows, each distribution in a cell; of many classes the three largest by name.
fn table_of_targets(rows: &[TargetRow], classes: &[String]) -> Table {
    let mut table =
        Table::new(["½ Σ|q − y|", "example", "label", "target q", "teacher", "student", "text"]);
    for row in rows {
        let label = match &row.label_before_noise {
            None => row.label.clone(),
            Some(before) => format!("{} (was {before})", row.label),
        };
        let whole = match &row.pair {
            None => row.text.clone(),
            Some(pair) => format!("{} | {pair}", row.text),
        };
        table.row([
            Cell::Text(format!("{:.3}", row.moved)),
            Cell::Count(row.example as u64),
            Cell::Text(label),
            Cell::Text(distribution(&row.target, classes)),
            row.teacher
                .as_ref()
                .map_or(Cell::Missing, |teacher| Cell::Text(distribution(teacher, classes))),
            Cell::Text(distribution(&row.student, classes)),
            Cell::Text(shortened(&whole)),
        ]);
    }
    table
}

/// All entries of a few classes, the three largest of many.
fn distribution(q: &[f64], classes: &[String]) -> String {
    const FEW: usize = 6;
    if q.len() <= FEW {
        return q.iter().map(|q| format!("{q:.2}")).collect::<Vec<_>>().join(" ");
    }
    let mut order: Vec<usize> = (0..q.len()).collect();
    order.sort_by(|&a, &b| q[b].total_cmp(&q[a]));
    let named = order[..3].iter().map(|&at| format!("{} {:.2}", classes[at], q[at]));
    named.collect::<Vec<_>>().join(", ")
}

fn text(explained: &Explanation) -> String {
    let Explanation { step, policy_words, examples, never_judged, shares, .. } = explained;
    let judged = examples - never_judged;
    let mut text = format!("step {}, {policy_words}\n", step.0);
    text += "λ = w₂ / (w₁ + w₂), the teacher's share of an example when it was last trained on\n\n";
    text += &format!("{judged} of {examples} training examples were trained on\n");
    text += &spread("λ", shares);
    for (at, shares) in explained.teachers.iter().enumerate() {
        text += &spread(&format!("λ of teacher[{at}]"), shares);
    }
    if let Some(noise) = &explained.label_noise {
        text += &about_noise(noise);
    }
    if shares.smallest == shares.largest {
        text += "\nλ is the same for every example: none is trusted more than another\n";
        return text;
    }
    for (title, rows, equal) in [
        ("the teacher is trusted most", &explained.most, shares.at_largest),
        ("the teacher is trusted least", &explained.least, shares.at_smallest),
    ] {
        if !rows.is_empty() {
            let more = more_alike(rows.len(), equal, "examples");
            text += &format!("\n{title}{more}\n{}", table(rows).text());
        }
    }
    text
}

/// Said where the examples shown are only some of those at the very end.
fn more_alike(shown: usize, equal: usize, what: &str) -> String {
    match equal > shown {
        true => format!(": {shown} of the {equal} {what} that share this λ"),
        false => String::new(),
    }
}

fn spread(name: &str, shares: &Spread) -> String {
    let Spread { mean, smallest, quantiles: [low, middle, high], largest, .. } = shares;
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    format!(
        "{name}: mean {mean:.3}; {smallest:.3} at least, a tenth up to {low:.3}, half up to {middle:.3}, \
         nine tenths up to {high:.3}, {largest:.3} at most\n   below 0.05 (label alone): {}; above \
         0.95 (teacher alone): {}\n",
        percent(shares.label_alone),
        percent(shares.teacher_alone),
    )
}

fn about_noise(noise: &Noise) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    let means = match noise.auc {
        Some(auc) if auc < 0.5 => "below 0.5: the label is trusted more where it is wrong",
        _ => "0.5: not at all, 1: always",
    };
    format!(
        "label noise: mean λ {} over {} wrong labels, {} over {} clean ones; λ tells them apart with \
         AUC {} ({means})\n",
        number(noise.mean_wrong),
        noise.wrong,
        number(noise.mean_clean),
        noise.clean,
        number(noise.auc),
    )
}

/// Examples in rows: what each model says, and p, how probable it finds the label.
fn table(rows: &[Row]) -> Table {
    let several = rows.first().map_or(0, |row| row.teacher_shares.len());
    let mut head = vec!["λ".to_owned()];
    head.extend((0..several).map(|at| format!("λ[{at}]")));
    head.extend(["example", "label"].map(str::to_owned));
    match several {
        0 => head.extend(["teacher", "p(label)"].map(str::to_owned)),
        _ => head.extend((0..several).map(|at| format!("teacher[{at}]"))),
    }
    head.extend(["student", "p(label)", "text"].map(str::to_owned));
    let mut table = Table::new(head);
    let answer = |said: &Said| Cell::Text(format!("{} ({:.2})", said.answer, said.probability));
    for row in rows {
        let label = match (&row.label, &row.label_before_noise) {
            (None, _) => Cell::Missing,
            (Some(label), None) => Cell::Text(label.clone()),
            (Some(label), Some(before)) => Cell::Text(format!("{label} (was {before})")),
        };
        let whole = match &row.pair {
            None => row.text.clone(),
            Some(pair) => format!("{} | {pair}", row.text),
        };
        let mut cells = vec![Cell::score(Some(row.share))];
        cells.extend(row.teacher_shares.iter().map(|&share| Cell::score(Some(share))));
        cells.extend([Cell::Count(row.example as u64), label, answer(&row.teacher)]);
        match several {
            0 => cells.push(Cell::score(row.teacher.of_label)),
            _ => cells.extend(row.other_teachers.iter().map(answer)),
        }
        cells.extend([answer(&row.student), Cell::score(row.student.of_label)]);
        cells.push(Cell::Text(shortened(&whole)));
        table.row(cells);
    }
    table
}

fn shortened(text: &str) -> String {
    let mut characters = text.chars();
    let shown: String = characters.by_ref().take(TEXT_SHOWN).collect();
    if characters.next().is_some() { format!("{}…", shown.trim_end()) } else { shown }
}
