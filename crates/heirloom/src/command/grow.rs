//! `heirloom grow`: a larger model of a trained one.

use heirloom::answer::{PLAN, model_folder};
use heirloom::failure::Failure;
use heirloom::gather::available_memory;
use heirloom::grow::beside::Checkpoint;
use heirloom::grow::{Change, Small};
use heirloom::places::Places;
use heirloom_data::tokens::Tokenizer;
use heirloom_growth::{GrowthPlan, Level, Method, Target};
use heirloom_recipe::GrownMoments;
use serde_json::json;

use crate::args::GrowArgs;
use crate::show::Show;

pub(crate) fn run(args: &GrowArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let small = open(args)?;
    let plan = plan(args, &small)?;
    let anatomy = small.anatomy();
    let (from, to) = (anatomy.shape, plan.grown(anatomy).shape);
    let prediction = plan.predict(anatomy);
    let (before, after) = (small.parameters()?, small.parameters_after(&plan)?);
    let mut text = format!("from {from}\nto   {to}\n\nplan `{}`\n", plan.method);
    for line in plan.words() {
        text += &format!("  {line}\n");
    }
    text += &format!("\npredicted: it {}\n", prediction.level.words());
    for reason in &prediction.reasons {
        text += &format!("  {reason}\n");
    }
    text += &format!("\nparameters: {} to {}\n", millions(before as u64), millions(after));
    if !show.json {
        show.data(&text);
    }
    let mut result = json!({
        "method": plan.method,
        "plan": plan,
        "digest": plan.digest(),
        "from": from,
        "to": to,
        "words": plan.words(),
        "predicted": prediction,
        "parameters": { "before": before, "after": after },
    });
    if let Some(out) = args.out.as_ref().filter(|_| !args.dry_run) {
        check_memory(before as u64, after)?;
        let outputs = small.outputs(threads);
        small.grow(&plan, out)?;
        result["out"] = json!(out);
        let mut text = String::new();
        match outputs {
            Ok(outputs) => {
                let change = small.measure(&outputs, &plan, out, threads)?;
                result["measured"] = json!(change);
                text += &measured(&change, plan.output_copies(anatomy));
                if prediction.level == Level::Exact && !is_rounding(&change) {
                    show.say(&format!(
                        "warning: {} changed by {:.1e}, more than single precision rounds; \
                         please report it with the command and the model",
                        change.what(),
                        change.largest_change
                    ));
                }
            }
            // Growing needs no head; answering does.
            Err(why) => {
                result["not_measured"] = json!(why.message);
                let why = why.message.lines().next().unwrap_or_default().to_owned();
                text += &format!("not measured: {why}\n");
            }
        }
        if let Some(updates) = small.updates() {
            result["updates"] = json!(updates);
            text += &format!(
                "moments of {updates} steps grow with it; to go on from there: `[student]` with \
                 `model`, `moments = true`, `rates = true`\n"
            );
        }
        text += &format!("wrote `{}`\n", out.display());
        if !show.json {
            show.data(&text);
        }
    }
    if show.json {
        show.json(&result);
    }
    Ok(0)
}

/// The small model: of a run folder its checkpoint, with moments.
fn open(args: &GrowArgs) -> Result<Small, Failure> {
    let run = &args.model;
    if !run.join(PLAN).is_file() {
        for (flag, given) in
            [("--step", args.step.is_some()), ("--moments", args.moments.is_some())]
        {
            if given {
                return Err(Failure::usage(format!(
                    "{flag} is for run folders, and `{0}` is none: it has no {PLAN}; `{0}` grows \
                     without the optimiser's moments",
                    run.display(),
                )));
            }
        }
        return Small::open(&model_folder(run)?);
    }
    let moments = match args.moments.as_deref() {
        None => GrownMoments::Asymmetric,
        Some(name) => {
            *GrownMoments::ALL.iter().find(|mode| mode.name() == name).ok_or_else(|| {
                let all: Vec<&str> = GrownMoments::ALL.iter().map(|mode| mode.name()).collect();
                Failure::usage(format!("--moments is `{name}`, expected one of {}", all.join(", ")))
            })?
        }
    };
    let checkpoint = Checkpoint::open(run, args.step)?;
    let planned = checkpoint.tokenizer();
    let path = Places::from_environment().model("tokenizer.path", &planned.path)?;
    let tokenizer = Tokenizer::open(&path)?;
    if tokenizer.digest() != planned.digest {
        return Err(Failure::input(format!(
            "tokenizer `{}` is not the one this run began with (digest {}, was {}); put it back",
            path.display(),
            tokenizer.digest().short(),
            planned.digest.short(),
        )));
    }
    Small::of_run(checkpoint, tokenizer, moments)
}

fn plan(args: &GrowArgs, small: &Small) -> Result<GrowthPlan, Failure> {
    if let Some(file) = &args.plan {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("cannot read the plan `{shown}`: {error}")))?;
        let plan = GrowthPlan::from_toml(&text)
            .map_err(|error| Failure::usage(format!("`{shown}`: {error}")))?;
        small.check(&plan)?;
        return Ok(plan);
    }
    let target = Target {
        layers: args.layers,
        hidden: args.hidden,
        heads: args.heads,
        kv_heads: args.kv_heads,
        intermediate: args.intermediate,
    };
    let plan = Method::find(&args.method)?.plan(small.anatomy(), &target, args.seed)?;
    let plan = GrowthPlan { noise: args.noise, ..plan };
    small.check(&plan)?;
    Ok(plan)
}

/// Small and grown model lie in memory together, in single precision.
fn check_memory(before: u64, after: u64) -> Result<(), Failure> {
    let needs = before.saturating_add(after).saturating_mul(4);
    let has = available_memory().0;
    if needs <= has {
        return Ok(());
    }
    let message = format!(
        "does not fit in memory: {} and {} numbers of 4 bytes take {:.1} GB, and {:.1} GB are \
         free; grow to smaller sizes",
        millions(before),
        millions(after),
        needs as f64 / 1e9,
        has as f64 / 1e9,
    );
    Err(Failure { code: 6, message })
}

/// Whether a change is what single precision makes of other orders of summation.
fn is_rounding(change: &Change) -> bool {
    change.largest_change <= 1e-4 * change.largest_output.max(1.0)
}

fn measured(change: &Change, copies: Option<usize>) -> String {
    let Change { sentences, largest_change, largest_output, next_tokens } = change;
    let more = match (next_tokens, copies) {
        (Some(next), _) => format!(
            "; the most probable token is the same at {} of {} places",
            next.same, next.places
        ),
        (None, Some(copies)) if copies > 1 => {
            format!("; hidden states hold each number {copies} times")
        }
        (None, _) => String::new(),
    };
    format!(
        "measured on {sentences} sentences: {} up to {largest_output:.3} change by at most \
         {largest_change:.1e}{more}\n",
        change.what(),
    )
}

fn millions(count: u64) -> String {
    if count < 1_000_000 { count.to_string() } else { format!("{:.1} M", count as f64 / 1e6) }
}
