//! The recipes that come with the program can be read, and decide their data.

use std::path::{Path, PathBuf};

use heirloom_recipe::{
    Column, Encoding, Format, Labels, Preset, Recipe, TaskKind, TextPlan, parse,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("a recipe is UTF-8")
}

fn recipe(name: &str) -> Recipe {
    parse(name, &text(name), &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("the folder of recipes is there");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("it can be listed").file_name().to_string_lossy().into_owned()
    };
    entries.map(name).filter(|name| name.ends_with(".toml")).collect()
}

#[test]
fn every_recipe_is_read_and_decides_its_data() {
    let names = names();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let recipe = recipe(&name);
        assert_eq!(recipe.name(), name.trim_end_matches(".toml"));
        if recipe.is_language() {
            let text = recipe.text().unwrap_or_else(|problems| panic!("{problems}"));
            assert!(Path::new(&text.path).is_relative(), "{name}");
            continue;
        }
        let data = recipe.data().unwrap_or_else(|problems| panic!("{problems}"));
        assert!(Path::new(&data.path).is_relative(), "{name}");
        assert!(!data.train.is_empty(), "{name}");
    }
}

#[test]
fn every_recipe_says_its_command() {
    for name in names() {
        let text = text(&name);
        assert!(text.contains(&format!("heirloom train recipes/{name}\n")), "{name}");
        assert!(text.contains("HEIRLOOM_DATA"), "{name}");
    }
}

#[test]
fn students_of_one_comparison_differ_in_the_teacher_alone() {
    let students = ["sst2-labels.toml", "sst2-distil.toml", "sst2-distil-hidden.toml"].map(recipe);
    for student in &students {
        let layers = student.student.layers.as_ref().map(|at| at.value.clone());
        assert_eq!(layers, Some(vec![0, 2, 4]));
        assert_eq!(student.seeds(), [1, 2, 3]);
        assert_eq!(student.data(), students[0].data());
        assert_eq!(student.student_path(), students[0].student_path());
        let training = &student.training;
        assert_eq!(training.learning_rate(), students[0].training.learning_rate());
    }
    let teacher = format!("{}/seed-1/best", recipe("sst2-teacher.toml").output_dir());
    assert_eq!(students[0].teacher_path(), None);
    assert_eq!(students[1].teacher_path(), Some(teacher.as_str()));
    assert_eq!(students[2].teacher_path(), Some(teacher.as_str()));
}

#[test]
fn recipes_with_a_policy_differ_from_plain_distillation_in_the_objective_alone() {
    let plain = recipe("sst2-distil.toml");
    let mut found = 0;
    for name in names() {
        let other = recipe(&name);
        if other.balance().is_none() || other.is_language() {
            continue;
        }
        found += 1;
        assert_eq!(other.data(), plain.data(), "{name}");
        assert_eq!(other.student_path(), plain.student_path(), "{name}");
        assert_eq!(other.teacher_path(), plain.teacher_path(), "{name}");
        assert_eq!(other.seeds(), plain.seeds(), "{name}");
        assert_eq!(other.training.epochs.as_ref().map(|at| at.value), Some(1.0), "{name}");
        let rate = plain.training.learning_rate();
        assert_eq!(other.training.learning_rate(), rate, "{name}");
    }
    assert!(found >= 6, "{found} recipes name a policy");
}

#[test]
fn recipes_of_language_models_read_the_same_text_in_the_same_steps() {
    let names =
        ["novels-teacher.toml", "novels-distil.toml", "novels-inherit.toml", "novels-salt.toml"];
    let [teacher, distil, inherit, salt] = names.map(recipe);
    for other in [&distil, &inherit, &salt] {
        // In another order, where a recipe says so.
        let text = other.text().map(|text| TextPlan { first: None, ..text });
        assert_eq!(text, teacher.text());
        assert_eq!(other.seeds(), teacher.seeds());
        assert_eq!(other.batches(), teacher.batches());
        assert_eq!(other.training.learning_rate(), teacher.training.learning_rate());
        assert_eq!(other.tokenizer_path(), teacher.tokenizer_path());
    }
    assert!(salt.text().is_ok_and(|text| text.first.is_some()));
    let hidden = recipe("novels-distil-hidden.toml");
    assert_eq!((hidden.text(), hidden.batches()), (distil.text(), distil.batches()));
    assert_eq!(hidden.teacher_path(), distil.teacher_path());
    let cached = recipe("novels-cached.toml");
    assert_eq!((cached.text(), cached.batches()), (distil.text(), distil.batches()));
    assert_eq!(cached.training.learning_rate(), distil.training.learning_rate());
    assert_eq!(cached.cache_path(), Some("runs/novels-kept"));
    let two = recipe("novels-two-teachers.toml");
    assert_eq!((two.text(), two.batches()), (distil.text(), distil.batches()));
    assert_eq!(two.teacher_path(), distil.teacher_path());
    assert_eq!(two.teachers().len(), 2);
    let weighed = recipe("novels-rw-kd.toml");
    assert_eq!((weighed.text(), weighed.batches()), (distil.text(), distil.batches()));
    assert_eq!(weighed.teacher_path(), distil.teacher_path());
    assert!(weighed.balance().is_some_and(|balance| balance.meta.is_some()));
    let best = |recipe: &Recipe| format!("{}/best", recipe.output_dir());
    assert_eq!(distil.teacher_path(), Some(best(&teacher).as_str()));
    assert_eq!(inherit.teacher_path(), Some(best(&distil).as_str()));
    let config = |recipe: &Recipe| {
        let config = recipe.student.config.clone().expect("a fresh student").value;
        (config.hidden_size.map(|at| at.value), config.num_hidden_layers.map(|at| at.value))
    };
    assert_eq!(config(&inherit), config(&teacher));
    assert_eq!((config(&salt), salt.teacher_path()), (config(&teacher), inherit.teacher_path()));
}

#[test]
fn files_of_ones_own_are_described_as_they_lie() {
    let trec = recipe("trec.toml");
    let data = trec.data().unwrap();
    assert_eq!((data.format, data.encoding), (Format::LabelFirst, Encoding::Latin1));
    assert_eq!((data.label_separator.as_str(), data.labels), (":", Labels::Found));
    assert_eq!((data.train, data.validation), (vec!["train.txt".into()], vec!["test.txt".into()]));
    assert!(!data.header && !data.extra_columns);
    assert_eq!(trec.preset_layout(), None);

    let data = recipe("ag-news.toml").data().unwrap();
    assert_eq!((data.texts, data.label), (vec![Column::Number(0)], Column::Number(1)));
    assert_eq!((data.format, data.header, data.extra_columns), (Format::Tsv, false, true));

    let stsb = recipe("stsb-regression.toml");
    assert_eq!(stsb.preset_layout(), Some(Preset::Stsb));
    assert_eq!(stsb.data().unwrap().kind, TaskKind::Regression);
    assert_eq!(recipe("rte-pairs.toml").data().unwrap().texts.len(), 2);
}
