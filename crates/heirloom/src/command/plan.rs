//! `heirloom plan`: what would be done, and what it would need.

use heirloom::failure::Failure;
use heirloom::gather::gather;
use heirloom::places::Places;
use serde_json::json;

use super::read_recipe;
use crate::args::RecipeArgs;
use crate::show::Show;

pub(crate) fn run(args: &RecipeArgs, threads: usize, show: Show) -> Result<u8, Failure> {
    let recipe = read_recipe(args)?;
    let gathered = gather(&recipe, &Places::from_environment(), threads, false)?;
    let (plan, cost) = (&gathered.job.plan, &gathered.cost);
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
            "notes": gathered.notes,
        }));
        return Ok(0);
    }
    for note in &gathered.notes {
        show.say(&format!("note: {note}"));
    }
    let seeds: Vec<String> = recipe.seeds().iter().map(u64::to_string).collect();
    show.data(&format!("{}\n", plan.to_string().trim_end()));
    let average = match plan.training.average.is_none() {
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
