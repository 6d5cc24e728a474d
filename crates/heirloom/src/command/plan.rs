//! `heirloom plan`: what would be done, and what it would need.

use std::path::Path;

use heirloom::failure::Failure;
use heirloom::language::KeptTokens;
use heirloom::places::Places;
use heirloom::prepared::Prepared;
use serde_json::json;

use super::read_recipe;
use super::thrown_away::ThrownAway;
use crate::args::RecipeArgs;
use crate::show::Show;

pub(crate) fn run(args: &RecipeArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let recipe = read_recipe(args)?;
    // The tokens of a text must be counted; those that no run has kept yet are thrown away again.
    let thrown_away = recipe.is_language().then(|| ThrownAway::new("plan")).transpose()?;
    let kept = KeptTokens {
        new: thrown_away.as_ref().map(|root| root.path().to_owned()),
        ..KeptTokens::beside(Path::new(&recipe.output_dir()))
    };
    let places = Places::from_environment();
    let prepared = Prepared::gather(&recipe, &places, &kept, threads, false)?;
    let (plan, cost) = (&prepared.plan(), prepared.cost());
    if show.json {
        show.json(&json!({
            "plan": plan,
            "digest": plan.digest(),
            "seeds": recipe.seeds(),
            "memory": {
                "weights": cost.weights, "gradients": cost.gradients, "moments": cost.moments,
                "average": cost.average, "teacher": cost.teacher, "activations": cost.activations,
                "answering": cost.answering, "other": cost.other,
                "total": cost.total(),
            },
            "notes": prepared.notes(),
        }));
        return Ok(0);
    }
    for note in prepared.notes() {
        show.say(&format!("note: {note}"));
    }
    let seeds: Vec<String> = recipe.seeds().iter().map(u64::to_string).collect();
    show.data(&format!("{}\n", plan.to_string().trim_end()));
    let average = match plan.training().average.is_none() {
        true => String::new(),
        false => format!(", average {}", cost.average),
    };
    show.data(&format!(
        "memory      {} (weights {}, gradients {}, moments {}{average}, teacher {}, activations {}, other {})\n",
        cost.total(),
        cost.weights,
        cost.gradients,
        cost.moments,
        cost.teacher,
        cost.activations,
        cost.other,
    ));
    show.data(&format!("seeds       {}\n", seeds.join(", ")));
    Ok(0)
}
