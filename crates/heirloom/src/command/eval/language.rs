//! `heirloom eval` of language models: how well they foresee a text.

use std::path::{Path, PathBuf};

use heirloom::failure::Failure;
use heirloom::language::{KeptTokens, masker, open_config, open_validation, shape_of};
use heirloom::places::Places;
use heirloom_data::tokens::Tokenizer;
use heirloom_engine::Cpu;
use heirloom_recipe::{
    DocumentShape, Documents, LanguageShape, Limit, Masking, OnLong, Packing, Split, TextKind,
    TextPlan,
};
use heirloom_report::language::Foresight;
use heirloom_report::seeds::Seeds;
use heirloom_report::table::{Cell, Table};
use heirloom_train::{LanguageConfig, foresee};
use serde::Serialize;
use serde_json::json;

use super::Candidate;
use crate::command::thrown_away::ThrownAway;
use crate::show::Show;

/// Where the text comes from.
pub(super) enum Asked {
    /// From a recipe or a run's plan, whose kept tokens lie where the second says.
    Plan(Box<TextPlan>, Option<PathBuf>),
    /// These files, in rows of so many tokens.
    Files(Vec<PathBuf>, u64),
}

/// One model.
#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    model: PathBuf,
    evaluation: Foresight,
}

/// Judges all models on the text.
pub(super) fn run(
    models: &[Candidate],
    asked: &Asked,
    threads: usize,
    show: Show,
) -> Result<u8, Failure> {
    let thrown_away = ThrownAway::new("eval")?;
    let mut lines = Vec::new();
    for model in models {
        let evaluation = one(&model.folder, asked, thrown_away.path(), threads)?;
        lines.push(Line { seed: model.seed, model: model.folder.clone(), evaluation });
    }
    let over_seeds = over_seeds(&lines);
    if show.json {
        let spreads: serde_json::Map<_, _> =
            over_seeds.iter().map(|(name, seeds)| ((*name).to_owned(), json!(seeds))).collect();
        show.json(&json!({
            "evaluations": lines,
            "over_seeds": (lines.len() > 1).then_some(spreads),
        }));
        return Ok(0);
    }
    show.data(&table(&lines, &over_seeds).text());
    Ok(0)
}

fn one(
    folder: &Path,
    asked: &Asked,
    thrown_away: &Path,
    threads: usize,
) -> Result<Foresight, Failure> {
    let config = open_config(folder)?;
    if let LanguageConfig::Encoder(encoder) = &config
        && encoder.architecture.as_deref().is_some_and(|name| name.ends_with("Classification"))
    {
        return Err(Failure::usage(format!(
            "`{}` is a classifier ({}) and foresees no text; judge it on labels: heirloom eval {0} \
             --recipe RECIPE",
            folder.display(),
            encoder.architecture.as_deref().unwrap_or_default(),
        )));
    }
    let shape = shape_of(&config)?;
    let tokenizer = Tokenizer::open(folder)?;
    let places = Places::from_environment();
    let (text, root, kept) = match asked {
        Asked::Plan(text, kept) => {
            let root = places.data("text.path", &text.path)?;
            ((**text).clone(), root, kept.clone())
        }
        Asked::Files(files, length) => {
            let found = files.iter().map(|file| {
                let file = places.data("--text", &file.display().to_string())?;
                let file = std::path::absolute(&file).unwrap_or(file);
                Ok(file.display().to_string())
            });
            let files: Vec<String> = found.collect::<Result<_, Failure>>()?;
            let length = (*length).min(shape.longest_input());
            (plain(&shape, files, length), PathBuf::from("/"), None)
        }
    };
    check(&text, &shape)?;
    let kept = KeptTokens {
        at: kept.unwrap_or_else(|| thrown_away.to_owned()),
        new: Some(thrown_away.to_owned()),
    };
    let masking = text.masking;
    let masker = masker(&text, &tokenizer)?;
    let rows = open_validation(text, &root, &tokenizer, &kept)?;
    let mut device = Cpu::new(threads);
    let how = (masker.as_ref(), masking);
    let found = foresee(&mut device, (folder, &config), &*rows, how)?;
    Ok(Foresight::of(found.tokens, found.bytes, found.nats, found.misses))
}

/// Files as they are: each a document, in rows of `length` tokens.
fn plain(shape: &LanguageShape, files: Vec<String>, length: u64) -> TextPlan {
    let (kind, masking) = match shape {
        LanguageShape::Decoder(_) => (TextKind::Causal, None),
        LanguageShape::Encoder(_) => {
            (TextKind::Masked, Some(Masking { probability: 0.15, whole_words: false }))
        }
    };
    TextPlan {
        kind,
        path: "/".to_owned(),
        train: Vec::new(),
        validation: files,
        validation_split: Split::Nothing,
        format: None,
        documents: Documents::File,
        marker: String::new(),
        shape: DocumentShape::Text,
        field: "text".to_owned(),
        template: None,
        date: String::new(),
        begin: None,
        end: None,
        sequence_length: length,
        pack: Packing::Documents,
        on_long: OnLong::Error,
        train_limit: Limit::All,
        validation_limit: Limit::All,
        first: None,
        masking,
    }
}

/// Refuses a model of the other kind, and rows longer than it reads.
fn check(text: &TextPlan, shape: &LanguageShape) -> Result<(), Failure> {
    let (is, wants) = match (shape, text.kind) {
        (LanguageShape::Decoder(_), TextKind::Masked) => ("a decoder", "encoders"),
        (LanguageShape::Encoder(_), TextKind::Causal) => ("an encoder", "decoders"),
        _ => {
            let (length, longest) = (text.sequence_length, shape.longest_input());
            return if length <= longest {
                Ok(())
            } else {
                Err(Failure::usage(format!(
                    "rows have {length} tokens, and the model reads at most {longest}; lower \
                     `text.sequence_length`"
                )))
            };
        }
    };
    let kind = text.kind;
    Err(Failure::usage(format!("the model is {is}, and a text of kind \"{kind}\" is for {wants}")))
}

/// Each number's mean and spread, where every model has it.
fn over_seeds(lines: &[Line]) -> Vec<(&'static str, Option<Seeds>)> {
    let all: Vec<_> = lines.iter().map(|line| line.evaluation.numbers()).collect();
    let spread = |at: usize| {
        let values: Option<Vec<f64>> = all.iter().map(|numbers| numbers[at].1).collect();
        Seeds::of(&values?)
    };
    let Some(first) = all.first() else { return Vec::new() };
    first.iter().enumerate().map(|(at, (name, _))| (*name, spread(at))).collect()
}

fn table(lines: &[Line], over_seeds: &[(&'static str, Option<Seeds>)]) -> Table {
    let names = over_seeds.iter().map(|(name, _)| name.replace('_', " "));
    let several = lines.len() > 1;
    let head = if several { vec!["seed", "tokens"] } else { vec!["tokens"] };
    let mut table = Table::new(head.into_iter().map(str::to_owned).chain(names));
    for line in lines {
        let seed = line.seed.map_or(Cell::Missing, |seed| Cell::Text(seed.to_string()));
        let mut cells = Vec::from_iter(several.then_some(seed));
        cells.push(Cell::Count(line.evaluation.tokens));
        let number = |(_, value): (_, Option<f64>)| {
            value.map_or(Cell::Missing, |value| Cell::Number { value, decimals: 4 })
        };
        cells.extend(line.evaluation.numbers().map(number));
        table.row(cells);
    }
    if several {
        let mut cells = vec![Cell::from("all"), Cell::Missing];
        cells.extend(over_seeds.iter().map(|(_, seeds)| seeds.map_or(Cell::Missing, Cell::Seeds)));
        table.row(cells);
    }
    table
}
