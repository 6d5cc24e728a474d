//! What a program brings of its own: the examples run, runs go on with the same bits after a stop, and
//! the command says what it cannot do with them.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use heirloom::regularize::{Row, Target, detached};
use heirloom::train::{Ending, StepRecord};
use heirloom::{Failure, Places, Training, Watch, generated};

#[expect(dead_code, reason = "its `main` is for whoever runs it")]
#[path = "../examples/own_policy.rs"]
mod own_policy;
#[expect(dead_code, reason = "as above")]
#[path = "../examples/own_regularizer.rs"]
mod own_regularizer;
#[expect(dead_code, reason = "as above")]
#[path = "../examples/pieces.rs"]
mod pieces;

fn heirloom(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heirloom"))
        .args(arguments)
        .current_dir(folder)
        .env("HEIRLOOM_DATA", folder)
        .env("HEIRLOOM_MODELS", folder)
        .output()
        .unwrap()
}

/// Stops after so many steps.
struct For(u64);

impl Watch for For {
    fn step(&mut self, _: &StepRecord) {
        self.0 -= 1;
    }

    fn stops(&mut self) -> bool {
        self.0 == 0
    }
}

#[test]
fn the_policy_of_the_example_learns_is_named_and_goes_on_with_the_same_bits() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let ended = own_policy::play(folder).unwrap();
    assert_eq!((ended.ending, ended.progress.step().0), (Ending::Finished, 30));

    // Named in plan and record, and explained by the command.
    let plan = fs::read_to_string(folder.join("student/plan.toml")).unwrap();
    assert!(plan.contains("called = \"by_doubt\""), "{plan}");
    let record = fs::read_to_string(folder.join("student/run.jsonl")).unwrap();
    let own = "{\"kind\":\"own\",\"policy\":\"by_doubt\"}";
    assert_eq!(record.lines().filter(|line| *line == own).count(), 1, "{record}");
    let shares: Vec<f64> = record
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["balance"]["mean"].as_f64()
        })
        .collect();
    assert_eq!(shares.len(), 30);
    assert!((shares[0] - 0.37).abs() < 0.05, "four classes, usual doubt 1: {}", shares[0]);
    assert!(shares[1..].iter().all(|share| (share - 0.5).abs() < 0.2), "{shares:?}");
    let explained = heirloom(folder, &["explain", "student"]);
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.status.success() && said.contains("by `by_doubt`"), "{said}");

    // The same run in two parts, with another number of threads.
    let balance = "objective.balance={ policy = \"own\", called = \"by_doubt\" }";
    let recipe = generated::recipe(&["teacher.model=teacher/best", balance]).unwrap();
    let (places, parts) = (Places::at(folder), folder.join("parts"));
    let make = || own_policy::ByDoubt { usual: 1.0, heard: (0.0, 0.0) };
    let training = Training::new(&recipe, &places, &parts).unwrap();
    let ended = training.with_policy("by_doubt", make).with_threads(1).run(&mut For(7)).unwrap();
    assert_eq!((ended.ending, ended.progress.step().0), (Ending::Stopped, 7));

    // Nobody else goes on with it: not the command, not a program with another policy or none.
    let refused = heirloom(folder, &["resume", "parts"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("brings `by_doubt`, and this one brings none"), "{said}");
    let other = Training::resume(&parts, &places).unwrap().with_policy("by_mood", make);
    let Failure { code, message } = other.run(&mut ()).unwrap_err();
    assert_eq!(code, 2);
    assert_eq!(
        message,
        "`objective.balance.policy` is \"own\": the plan was made for a program that brings \
         `by_doubt`, and this one brings `by_mood`; run that program, or name one of Heirloom's"
    );

    let ended =
        Training::resume(&parts, &places).unwrap().with_policy("by_doubt", make).run(&mut ());
    assert_eq!(ended.unwrap().ending, Ending::Finished);
    assert_eq!(fs::read_to_string(parts.join("run.jsonl")).unwrap(), record);
    let weights = |run: &Path| fs::read(run.join("last/model.safetensors")).unwrap();
    assert!(weights(&parts) == weights(&folder.join("student")));
}

#[test]
fn the_regularizer_of_the_example_trains_and_its_slope_is_that_of_its_loss() {
    let root = tempfile::tempdir().unwrap();
    let losses = own_regularizer::play(root.path()).unwrap();
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
    let record = fs::read_to_string(root.path().join("student/run.jsonl")).unwrap();
    assert!(record.starts_with("{\"kind\":\"own\",\"regularizer\":\"nearby\"}\n"), "{record}");

    // The command cannot know its targets; whoever brings it can ask.
    let refused = heirloom(root.path(), &["explain", "student"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("brings `nearby`, and this one brings none"), "{said}");
    let own = heirloom::train::Own::default()
        .with_regularizer("nearby", || own_regularizer::Nearby { width: 0.5 });
    let places = Places::at(root.path());
    let told = heirloom::explain::targets(&root.path().join("student"), &places, 1, 2, &own);
    let told = told.unwrap();
    // Of a class in the middle: 1/(1 + 2e⁻² + e⁻⁴) is the label's; of one at an end less is lost.
    assert!(told.mean_moved > 0.1 && told.mean_moved < 0.25, "{}", told.mean_moved);

    let nearby = own_regularizer::Nearby { width: 0.5 };
    let logits = [0.3, -1.2, 0.8, 0.1];
    let mut slope = [0.0; 4];
    nearby.loss(&Row::new(Some(1), &logits), &mut slope);
    for at in 0..4 {
        // Central differences: error h² · f‴ plus rounding 1e-16 / h, both far below 1e-8.
        let loss = |step: f64| {
            let mut logits = logits;
            logits[at] += step;
            detached(&nearby, &Row::new(Some(1), &logits), &mut [0.0; 4])
        };
        let found = (loss(1e-5) - loss(-1e-5)) / 2e-5;
        assert!((found - slope[at]).abs() < 1e-8, "{found} {}", slope[at]);
    }
    let mut none = [1.0; 4];
    assert_eq!(nearby.loss(&Row::new(None, &logits), &mut none), 0.0);
    assert_eq!(none, [0.0; 4]);
}

#[test]
fn pieces_alone_load_a_model_and_find_a_loss_and_its_gradient() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    generated::write(folder, 3, 64, 16).unwrap();
    let recipe = generated::recipe(&["training.max_steps=2"]).unwrap();
    let model = folder.join("run/last");
    Training::new(&recipe, &Places::at(folder), &folder.join("run")).unwrap().run(&mut ()).unwrap();
    let dev = fs::read_to_string(folder.join("task/dev.tsv")).unwrap();
    let texts: Vec<String> = dev
        .lines()
        .skip(1)
        .take(3)
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect();
    let (loss, gradient) = pieces::play(&model, &texts, 2).unwrap();
    assert!(loss > 1.0 && loss < 2.0, "near ln 4 after two steps: {loss}");
    // The classifier's bias: its gradient is the mean of s − q over the texts, below √2 in length.
    let bias = gradient.iter().find(|(name, _)| name == "classifier.bias").unwrap();
    assert!(bias.1 > 0.1 && bias.1 < 2f64.sqrt(), "{bias:?}");
    let words = gradient.iter().find(|(name, _)| name.contains("word_embeddings")).unwrap();
    assert!(words.1 > 0.0, "{words:?}");
}

#[test]
fn what_is_brought_and_what_the_recipe_asks_for_must_agree() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    generated::write(folder, 3, 64, 16).unwrap();
    let nearby = || own_regularizer::Nearby { width: 0.5 };
    let run = folder.join("run");
    let of = |sets: &[&str]| {
        Training::new(&generated::recipe(sets).unwrap(), &Places::at(folder), &run).unwrap()
    };
    let refused = |training: Training| {
        let Failure { code, message } = training.run(&mut ()).unwrap_err();
        assert_eq!(code, 2, "{message}");
        assert!(!run.exists(), "nothing is created");
        message
    };
    assert_eq!(
        refused(of(&[]).with_regularizer("nearby", nearby)),
        "the program brings `nearby`, but `objective.regularizer.method` of the plan does not ask \
         for it; write \"own\" there, and `called = \"nearby\"` beside it"
    );
    let own = "objective.regularizer={ method = \"own\", called = \"learned\" }";
    let learned = || {
        let target = Box::new(heirloom::regularize::LearnedSmoothing::shared(0.1));
        let adam = heirloom::regularize::Adam { learning_rate: 0.01, weight_decay: 0.0 };
        heirloom::regularize::Learner::new(target, adam)
    };
    assert_eq!(
        refused(of(&[own]).with_regularizer("learned", learned)),
        "`learned`, the program's own for `objective.regularizer.method`, needs a second set, \
         [objective.regularizer.meta]"
    );
    // The command plans such a run in words, and creates nothing when it cannot train it.
    let recipe = format!(
        "{}\n[objective]\nregularizer = {{ method = \"own\", called = \"x\" }}\n",
        generated::RECIPE
    );
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
    let planned = heirloom(folder, &["plan", "recipe.toml"]);
    let said = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(said.contains("L the regularizer `x`, which the program brings"), "{said}");
    let trained = heirloom(folder, &["train", "recipe.toml", "--into", "run"]);
    assert_eq!(trained.status.code(), Some(2));
    assert!(!run.exists());
}
