//! Mistakes of whoever begins: each is refused with what was found, where, and what to do next, and with
//! the exit code that README gives it.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::process::Output;

mod place;

use place::Place;

const RECIPE: &str = "[task]\nkind = \"classification\"\npath = \".\"\ntrain = \"train.tsv\"\n\
    validation = \"dev.tsv\"\ntext = \"sentence\"\nlabel = \"label\"\nmax_length = 32\n\
    allow_overlap = true\n[tokenizer]\npath = \"words\"\n[student]\nconfig = { model_type = \"bert\", \
    hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 32 }\n\
    [training]\nmax_steps = 2\nbatch_size = 8\neval_strategy = \"end\"\n";

impl Place {
    /// With a recipe, and a run of it.
    fn with_run() -> Self {
        let place = Self::with_data();
        place.write("recipe.toml", RECIPE);
        let output = place.says(&["train", "recipe.toml", "--into", "run"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        place
    }

    fn says(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, expected: &str) {
        let output = self.says(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }

    /// The same for `heirloom plan` with these keys.
    #[track_caller]
    fn no_plan(&self, sets: &[&str], code: i32, expected: &str) {
        let mut arguments = vec!["plan", "recipe.toml"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        self.refused(&arguments, code, expected);
    }
}

#[test]
fn a_name_that_is_not_there_has_its_neighbour_named() {
    let place = Place::with_data();
    place.write("recipe.toml", RECIPE);
    place.refused(&["plan", "recipe.tml"], 2, "; the nearest name there is `recipe.toml`");
    let expected = "`tokenizer.path` is \"wrds\", which is not there; looked at `wrds` (the variable \
                    HEIRLOOM_MODELS is not set); the nearest name there is `words`";
    place.no_plan(&["tokenizer.path=wrds"], 2, expected);
}

#[test]
fn columns_that_are_not_there_are_the_recipes_mistake_and_not_a_rows() {
    let place = Place::with_data();
    place.write("recipe.toml", RECIPE);
    let numbers = ["task.header=false", "task.text=0", "task.label=7"];
    let expected = "train.tsv`: column number 7 cannot be found this way: the first row has fewer; they \
                    are numbered from 0";
    place.no_plan(&numbers, 3, expected);
    let expected =
        "has no column `sentence`; its first line has tabs: is it `task.format = \"tsv\"`?";
    place.no_plan(&["task.format=csv"], 3, expected);
}

#[test]
fn a_model_that_is_no_classifier_says_what_it_is_for() {
    let place = Place::with_run();
    fs::create_dir(place.path("gpt")).unwrap();
    place.write("gpt/config.json", "{\"model_type\": \"gpt2\", \"n_layer\": 1}");
    let expected = "expected one of bert, roberta, distilbert, xlm-roberta, camembert; decoders are trained by a recipe with \
                    [text] in the place of [task]";
    place.no_plan(&["teacher.model=gpt"], 3, expected);
    place.write("gpt/config.json", "{\"model_type\": \"resnet\"}");
    place.no_plan(
        &["teacher.model=gpt"],
        3,
        "expected one of bert, roberta, distilbert, xlm-roberta, camembert\n",
    );

    fs::create_dir(place.path("bare")).unwrap();
    for entry in fs::read_dir(place.path("run/last")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, place.path("bare").join(path.file_name().unwrap())).unwrap();
    }
    let config = fs::read_to_string(place.path("bare/config.json")).unwrap();
    place.write("bare/config.json", &config.replace("BertForSequenceClassification", "BertModel"));
    let expected = "the teacher is an encoder without a classifier, and cannot teach the task's 4 \
                    labels; train it on them first";
    place.no_plan(&["teacher.model=bare"], 2, expected);

    let expected = "is a classifier (BertForSequenceClassification) and foresees no text; judge it on \
                    labels: heirloom eval run/best --recipe RECIPE";
    place.refused(&["eval", "run", "--text", "train.tsv"], 2, expected);
}

#[test]
fn a_run_folder_that_is_a_file_is_named_before_anything_is_computed() {
    let place = Place::with_data();
    place.write("recipe.toml", RECIPE);
    for into in ["recipe.toml", "recipe.toml/run"] {
        let expected = format!(
            "`{into}` cannot be a run's folder: `recipe.toml` is a file; name another with `--into` \
             or `output.dir`"
        );
        place.refused(&["train", "recipe.toml", "--into", into], 2, &expected);
    }
    let expected = "`recipe.toml` is a file; resume takes the folder of a run, as `heirloom train` \
                    leaves it. A recipe is begun with: heirloom train recipe.toml";
    place.refused(&["resume", "recipe.toml"], 2, expected);
}

#[test]
fn a_run_that_goes_on_says_what_it_was_not_asked_rightly() {
    let place = Place::with_run();
    let expected = "--set training.learningrate: the plan has no such key; did you mean \
                    `learning_rate`? `plan.toml` of the run shows them all";
    place.refused(&["resume", "run", "--set", "training.learningrate=1e-3"], 2, expected);
    let ended = place.says(&["resume", "run"]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    let expected = "the run has ended at step 2; for more steps: heirloom resume run --set \
                    training.total_steps=N";
    assert!(said.contains(expected), "{said}");
    let more = place.says(&["resume", "run", "--set", "training.total_steps=3"]);
    let said = String::from_utf8_lossy(&more.stderr).into_owned();
    assert!(more.status.success() && said.contains("continuing from step 2"), "{said}");
    let plan = fs::read_to_string(place.path("run/plan.toml")).unwrap();
    place.write("run/plan.toml", &plan.replace("total_steps = 3", "total_steps = many"));
    place.refused(&["resume", "run"], 3, "error: `run/plan.toml`: not a plan: ");
}
