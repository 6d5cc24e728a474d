//! Groups of parameters that the optimiser treats in a way of their own.
//!
//! In: `[[training.group]]`, and what was found beside a grown student's weights. Out: groups of a
//! plan, each with its factors. Never: knows a parameter's name; only a model does.

use serde::{Deserialize, Serialize};

use crate::decide::{missing, needs, value};
use crate::facts::GrownFacts;
use crate::plan::Moments;
use crate::problem::{Place, Problems};
use crate::recipe::{At, Group, Recipe};
use crate::section::{Read, Wanted};
use crate::tree::{Node, Value};

/// Names of parameters, in which `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns(pub Vec<String>);

impl Read for Patterns {
    fn read(node: Node, wanted: &Wanted<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::List(_) => Vec::read(node, wanted, problems).map(Self),
            Value::String(text) => Some(Self(vec![text])),
            _ => {
                wanted.refuse(&node, None, problems);
                None
            }
        }
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

/// Parameters that the optimiser treats in a way of their own. Of several groups that hold the same
/// parameter all count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// Their names, in which `*` stands for any text.
    pub parameters: Vec<String>,
    /// Factor of the learning rate.
    pub learning_rate_factor: f64,
    /// Factor of the weight decay, which is multiplied by the learning rate besides.
    pub weight_decay_factor: f64,
    /// Until when they stay as they are.
    pub frozen: Frozen,
    /// Optimiser steps in which their learning rate rises from 0, from where they begin to move.
    pub warmup_steps: u64,
    /// Whether they have no moments where the run begins with those of others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
}

/// Until when parameters stay as they are: weights and moments, bit for bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frozen {
    /// They move.
    #[default]
    No,
    /// For so many of the run's optimiser steps, those left out not counted.
    Until(u64),
    /// For all of it.
    Always,
}

impl GroupPlan {
    /// The parameters that `pattern` names, at a factor of the learning rate.
    pub fn of(pattern: &str, learning_rate_factor: f64) -> Self {
        Self {
            parameters: vec![pattern.to_owned()],
            learning_rate_factor,
            weight_decay_factor: 1.0,
            frozen: Frozen::No,
            warmup_steps: 0,
            fresh: false,
        }
    }

    /// What the optimiser does with them, in words.
    pub(crate) fn words(&self) -> String {
        /// Names that fit on a line.
        const MOST: usize = 2;
        let names: Vec<&str> = self.parameters.iter().take(MOST).map(String::as_str).collect();
        let more = match self.parameters.len().saturating_sub(MOST) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let mut said = Vec::new();
        if self.learning_rate_factor != 1.0 {
            said.push(format!("learning rate × {}", self.learning_rate_factor));
        }
        if self.weight_decay_factor != 1.0 {
            said.push(format!("decay × {}", self.weight_decay_factor));
        }
        match self.frozen {
            Frozen::No => (),
            Frozen::Until(steps) => said.push(format!("frozen for {steps} steps")),
            Frozen::Always => said.push("frozen".to_owned()),
        }
        if self.warmup_steps > 0 {
            said.push(format!("{} steps of warm-up", self.warmup_steps));
        }
        if self.fresh {
            said.push("no moments yet".to_owned());
        }
        if said.is_empty() {
            said.push("as the others".to_owned());
        }
        format!("{}{more}: {}", names.join(", "), said.join(", "))
    }
}

pub(crate) fn check(recipe: &Recipe, problems: &mut Problems) {
    let groups = value(&recipe.training.group).unwrap_or_default();
    for (index, group) in groups.iter().enumerate() {
        let key = |name: &str| format!("training.group.{index}.{name}");
        if group.r#match.is_none() {
            let place = group.place.clone().unwrap_or(Place::Whole);
            missing(place, &key("match"), "the parameters' names, with `*` for any text", problems);
        }
        if let (Some(at), true) = (&group.frozen_steps, group.frozen()) {
            needs(at, &key("frozen_steps"), "no `frozen = true`, which holds for ever", problems);
        }
    }
    let student = &recipe.student;
    for (key, at) in
        [("moments", &student.moments), ("rates", &student.rates), ("freezing", &student.freezing)]
    {
        if let Some(at) = at.as_ref().filter(|at| at.value && student.model.is_none()) {
            let needed = "`student.model`, a folder that `heirloom grow` wrote";
            needs(at, &format!("student.{key}"), needed, problems);
        }
        if let Some(at) = at.as_ref().filter(|at| at.value && student.layers.is_some()) {
            let needed = "all layers of the model; remove `student.layers`";
            needs(at, &format!("student.{key}"), needed, problems);
        }
    }
}

/// The moments that the run begins with, and the groups that the student's growth asks for; `grown` is
/// what stands beside its weights.
pub(crate) fn decide(
    recipe: &Recipe,
    grown: Option<&GrownFacts>,
    problems: &mut Problems,
) -> (Moments, Vec<GroupPlan>) {
    let student = &recipe.student;
    let mut asked = |name: &str, at: &Option<At<bool>>| -> Option<&GrownFacts> {
        let at = at.as_ref().filter(|at| at.value)?;
        if grown.is_none() {
            let needed = "a model that `heirloom grow RUN` made of a run's checkpoint: nothing of \
                          its growth stands beside these weights";
            needs(at, &format!("student.{name}"), needed, problems);
        }
        grown
    };
    let mut groups = Vec::new();
    for rate in asked("rates", &student.rates).into_iter().flat_map(|grown| &grown.rates) {
        groups.push(GroupPlan {
            parameters: rate.parameters.clone(),
            // Their product is what decays a weight, and stays.
            weight_decay_factor: 1.0 / rate.factor,
            ..GroupPlan::of("", rate.factor)
        });
    }
    if let Some(grown) =
        asked("freezing", &student.freezing).filter(|grown| !grown.frozen.is_empty())
    {
        let (parameters, frozen) = (grown.frozen.clone(), Frozen::Always);
        groups.push(GroupPlan { parameters, frozen, ..GroupPlan::of("", 1.0) });
    }
    let moments = match asked("moments", &student.moments) {
        None => Moments::Zero,
        Some(grown) => {
            if !grown.fresh.is_empty() && grown.updates > 0 {
                let parameters = grown.fresh.clone();
                groups.push(GroupPlan { parameters, fresh: true, ..GroupPlan::of("", 1.0) });
            }
            Moments::Kept { updates: grown.updates }
        }
    };
    (moments, groups)
}

/// The groups that a recipe names.
pub(crate) fn of_recipe(recipe: &Recipe) -> Vec<GroupPlan> {
    value(&recipe.training.group).unwrap_or_default().iter().map(of_one).collect()
}

fn of_one(group: &Group) -> GroupPlan {
    GroupPlan {
        parameters: value(&group.r#match).map(|patterns| patterns.0).unwrap_or_default(),
        learning_rate_factor: group.learning_rate_factor(),
        weight_decay_factor: group.weight_decay_factor(),
        frozen: match (group.frozen(), value(&group.frozen_steps)) {
            (true, _) => Frozen::Always,
            (false, Some(steps)) => Frozen::Until(steps),
            (false, None) => Frozen::No,
        },
        warmup_steps: group.warmup_steps(),
        fresh: false,
    }
}
