//! `heirloom tokenizer compare`: two vocabularies held against one another, before any weight is read.

use std::path::{Path, PathBuf};

use heirloom::answer::model_folder;
use heirloom::failure::Failure;
use heirloom_data::tokens::{Difference, Tokenizer};
use heirloom_data::vocabulary::{Choice, Comparison, Relation, Sample, Side, compare};
use serde::Serialize;
use serde_json::Value;

use crate::args::TokenizerCompareArgs;
use crate::show::Show;

/// What is printed.
#[derive(Serialize)]
struct Said<'a> {
    relation: Relation,
    same_tokenizer: bool,
    models: [String; 2],
    tokens: [usize; 2],
    words: [usize; 2],
    unknown_to_model: [usize; 2],
    spelling: &'a [String; 2],
    shared: usize,
    same_id: usize,
    /// First and last id of each run.
    padding: [Vec<[u32; 2]>; 2],
    first_difference: Option<First<'a>>,
    text: Option<Sample>,
    choices: Vec<Verdict>,
}

#[derive(Serialize)]
struct First<'a> {
    id: u32,
    tokens: [Option<&'a str>; 2],
}

/// What a choice comes to.
#[derive(Serialize)]
struct Verdict {
    choice: Choice,
    works: bool,
    says: String,
}

pub(crate) fn run(args: &TokenizerCompareArgs, show: Show) -> Result<u8, Failure> {
    let folders = [model_folder(&args.left)?, model_folder(&args.right)?];
    let [left, right] = [Tokenizer::open(&folders[0])?, Tokenizer::open(&folders[1])?];
    let rows = [words_of_model(&folders[0])?, words_of_model(&folders[1])?];
    let found = compare([
        Side { tokenizer: &left, rows: rows[0] },
        Side { tokenizer: &right, rows: rows[1] },
    ]);
    let text = args.text.as_deref().map(read_text).transpose()?;
    let sample = text.map(|text| found.sample([&left, &right], &text)).transpose()?;
    let named = |path: &PathBuf| path.display().to_string();
    let said = Said {
        relation: found.relation,
        same_tokenizer: found.same_tokenizer,
        models: [named(&args.left), named(&args.right)],
        tokens: found.tokens,
        words: found.sizes,
        unknown_to_model: found.unknown,
        spelling: &found.spelling,
        shared: found.shared,
        same_id: found.in_place,
        padding: found
            .padding
            .each_ref()
            .map(|runs| runs.iter().map(|run| [run.start, run.end - 1]).collect()),
        first_difference: found.first.as_ref().map(|Difference { id, left, right }| First {
            id: *id,
            tokens: [left.as_deref(), right.as_deref()],
        }),
        text: sample,
        choices: [Choice::Refuse, Choice::Pad, Choice::Intersect]
            .map(|choice| verdict(&found, choice))
            .into(),
    };
    if show.json {
        show.json(&said);
    } else {
        show.data(&told(&said, &found));
    }
    Ok(0)
}

fn verdict(found: &Comparison, choice: Choice) -> Verdict {
    let (works, says) = match found.map(choice) {
        Ok(map) if map.is_whole() => (true, "every word is compared with itself".to_owned()),
        Ok(map) => (true, format!("compares over {} tokens", map.shared())),
        Err(refused) => {
            let text = refused.to_string();
            // The first line says how the two relate, which is on the page already.
            let (_, reason) = text.split_once("\n  ").unwrap_or(("", &text));
            (false, reason.to_owned())
        }
    };
    Verdict { choice, works, says }
}

fn told(said: &Said<'_>, found: &Comparison) -> String {
    let width = said.models.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for at in 0..2 {
        let (name, tokens, words) = (&said.models[at], said.tokens[at], said.words[at]);
        text += &format!("{name:width$}  {tokens} tokens ({}), {words} words", said.spelling[at]);
        text += &match padding(&said.padding[at]) {
            None => "\n".to_owned(),
            Some(padding) => format!("; without a token: {padding}\n"),
        };
        if said.unknown_to_model[at] > 0 {
            let count = said.unknown_to_model[at];
            text += &format!("{:width$}  {count} more tokens that the model does not know\n", "");
        }
    }
    text += &format!("{found}\n");
    let share = |part: usize, of: usize| 100.0 * part as f64 / of.max(1) as f64;
    let (shared, [left, right]) = (said.shared, said.tokens);
    text += &format!(
        "shared: {shared} tokens ({:.1} % and {:.1} %), {} of them by the same id\n",
        share(shared, left),
        share(shared, right),
        said.same_id
    );
    if said.relation <= Relation::Padded && !said.same_tokenizer {
        text += "the two cut text into tokens by different rules all the same\n";
    }
    if let Some(sample) = &said.text {
        let [left, right] = sample.tokens;
        text += &format!(
            "text of {} bytes: {left} and {right} tokens, of which {:.1} % and {:.1} % are in both; at \
             {:.1} % of the first one's both have read the same bytes\n",
            sample.bytes,
            share(sample.covered[0], left),
            share(sample.covered[1], right),
            share(sample.aligned, left)
        );
    }
    for verdict in &said.choices {
        let name = format!("{:?}", verdict.choice).to_lowercase();
        let works = if verdict.works { "works" } else { "no" };
        text += &format!("{name:9}  {works:5}  {}\n", verdict.says);
    }
    text
}

/// Runs of ids, the first few.
fn padding(runs: &[[u32; 2]]) -> Option<String> {
    const SHOWN: usize = 3;
    let ids = |&[first, last]: &[u32; 2]| {
        if first == last { first.to_string() } else { format!("{first} to {last}") }
    };
    let shown: Vec<String> = runs.iter().take(SHOWN).map(ids).collect();
    let more = runs.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} runs more") } else { String::new() };
    (!runs.is_empty()).then(|| shown.join(", ") + &rest)
}

/// `vocab_size` of the folder's config, where it has one: any model's, so nothing else is read.
fn words_of_model(folder: &Path) -> Result<Option<usize>, Failure> {
    let file = folder.join("config.json");
    if !file.is_file() {
        return Ok(None);
    }
    let bad = |reason: String| Failure::input(format!("`{}`: {reason}", file.display()));
    let bytes = std::fs::read(&file).map_err(|error| bad(error.to_string()))?;
    let config: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    // Models that also see keep their language model's config inside.
    let found = [&config["vocab_size"], &config["text_config"]["vocab_size"]];
    let Some(value) = found.into_iter().find(|value| !value.is_null()) else { return Ok(None) };
    match value.as_u64().and_then(|rows| u32::try_from(rows).ok()) {
        Some(rows) if rows > 0 => Ok(Some(rows as usize)),
        _ => Err(bad(format!("`vocab_size` is {value}, expected a number of words"))),
    }
}

fn read_text(file: &Path) -> Result<String, Failure> {
    let name = file.display();
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::usage(format!("cannot read `{name}`: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::input(format!("`{name}` is not UTF-8: byte {at} begins no character"))
    })
}
