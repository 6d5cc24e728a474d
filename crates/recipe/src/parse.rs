//! Text to [`Recipe`].
//!
//! In: the text of a recipe and its `--set` overrides. Out: a recipe whose keys exist, have their
//! types and ranges, and do not contradict each other; or all problems.
//! Never: looks at anything outside the text.

use crate::decide;
use crate::problem::{Place, ProblemKind, Problems};
use crate::recipe::{
    NEWEST_VERSION, Objective, Output, Recipe, Stage, Student, Task, Teacher, Text, Tokenizer, Top,
    Training,
};
use crate::section::Section;
use crate::tree::{self, Node, Table, Value};

/// Longest recipe in bytes: a long one has some thousands, so this is another file.
const LONGEST: usize = 1 << 20;

/// Reads a recipe. `name` is its file, for messages and as default for the run's name; each of
/// `sets` is `key=value`, where the key is dotted and the value TOML or a bare word.
pub fn parse(name: &str, text: &str, sets: &[String]) -> Result<Recipe, Problems> {
    let mut problems = Problems::new(name);
    let recipe = read(name, text, sets, &mut problems);
    if let Some(recipe) = &recipe {
        decide::check(recipe, &mut problems);
    }
    problems.or(recipe)
}

fn read(name: &str, text: &str, sets: &[String], problems: &mut Problems) -> Option<Recipe> {
    if text.len() > LONGEST {
        let kind = ProblemKind::TooLong { bytes: text.len(), limit: LONGEST };
        problems.push(Place::Whole, kind);
        return None;
    }
    let mut root = tree::read(text, problems)?;
    if root.is_empty() && sets.is_empty() {
        problems.push(Place::Whole, ProblemKind::Empty);
        return None;
    }
    tree::overrule(&mut root, sets, decide::ALTERNATIVES, problems);
    if let Some((place, found)) = newer(&root) {
        // Its keys may mean other things, so nothing more can be said about them.
        problems.push(place, ProblemKind::NewerVersion { found, newest: NEWEST_VERSION });
        return None;
    }
    together(&root, problems);
    // `--set stage=[]` takes a recipe's stages away.
    if let Some(Node { value: Value::List(stages), .. }) = root.get("stage")
        && stages.is_empty()
    {
        root.remove("stage");
    }
    let mut top = Section::new("", root, problems);
    let teachers = top.tables("teacher");
    let stages = top.tables("stage");
    let mut take = |name: &str| match top.table(name) {
        Some((place, table)) => (Some(place), table),
        None => (None, Table::new()),
    };
    let tables = crate::recipe::TABLES.map(&mut take);
    let top = Top::read(Some(Place::Whole), top);
    // The teacher's was taken as a list before.
    let [task, text, tokenizer, student, _, objective, training, output] = tables;
    let mut teachers = teachers.into_iter().map(|(path, place, table)| {
        Teacher::read(Some(place), Section::new(&path, table, problems))
    });
    let teacher = teachers.next().unwrap_or_default();
    let other_teachers = teachers.collect();
    let mut stage = |(path, place, table): (String, Place, Table)| -> Stage {
        Stage::read(Some(place), Section::new(&path, table, problems))
    };
    let stages = stages.into_iter().map(&mut stage).collect();
    Some(Recipe {
        file: name.to_owned(),
        top,
        task: Task::read(task.0, Section::new("task", task.1, problems)),
        text: Text::read(text.0, Section::new("text", text.1, problems)),
        tokenizer: Tokenizer::read(tokenizer.0, Section::new("tokenizer", tokenizer.1, problems)),
        student: Student::read(student.0, Section::new("student", student.1, problems)),
        teacher,
        other_teachers,
        objective: Objective::read(objective.0, Section::new("objective", objective.1, problems)),
        training: Training::read(training.0, Section::new("training", training.1, problems)),
        stages,
        output: Output::read(output.0, Section::new("output", output.1, problems)),
    })
}

fn newer(root: &Table) -> Option<(Place, u64)> {
    let node = root.get("recipe_version")?;
    match node.value {
        Value::Integer(found) if found > NEWEST_VERSION as i64 => {
            Some((node.key_place.clone(), found.unsigned_abs()))
        }
        _ => None,
    }
}

/// Names keys that decide the same thing.
fn together(root: &Table, problems: &mut Problems) {
    for (section, keys) in decide::ALTERNATIVES.iter().chain(decide::CONFLICTS) {
        let Some(Node { value: Value::Table(table), .. }) = root.get(*section) else { continue };
        let mut written: Vec<(&Place, &str)> = keys
            .iter()
            .filter_map(|key| table.get(*key).map(|node| (&node.key_place, *key)))
            .collect();
        written.sort();
        if let [(_, first), others @ ..] = written.as_slice() {
            for (place, key) in others {
                let (key, other) = (format!("{section}.{key}"), format!("{section}.{first}"));
                problems.push((*place).clone(), ProblemKind::Together { key, other });
            }
        }
    }
}
