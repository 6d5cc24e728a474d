//! A run that grows by the command: its checkpoint into a model with moments, and in the middle of
//! itself.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use heirloom_base::{Purpose, uniform, word};
use serde_json::Value;

mod place;

use place::Place;

impl Place {
    /// Exit code, stdout and stderr.
    fn run(&self, line: &str) -> (i32, String, String) {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self.command(&arguments).args(["--threads", "1"]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn done(&self, line: &str) -> String {
        let (code, said, why) = self.run(line);
        assert_eq!(code, 0, "{line}\n{said}{why}");
        said
    }

    #[track_caller]
    fn refuses(&self, line: &str) -> (i32, String) {
        let (code, said, why) = self.run(line);
        assert_ne!(code, 0, "{line}\n{said}");
        (code, why.trim_end().to_owned())
    }

    fn records(&self, run: &str, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("run.jsonl")).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.filter(|record| record["kind"] == kind).collect()
    }
}

fn recipe(student: &str, rest: &str, steps: u64) -> String {
    format!(
        "[task]\nkind = \"classification\"\npath = \".\"\ntrain = \"train.tsv\"\n\
         validation = \"dev.tsv\"\ntext = \"sentence\"\nlabel = \"label\"\nmax_length = 32\n\
         allow_overlap = true\n[tokenizer]\npath = \"words\"\n[student]\n{student}\n{rest}\
         [training]\nmax_steps = {steps}\nbatch_size = 12\nlearning_rate = 1e-3\nwarmup_steps = 0\n\
         lr_scheduler_type = \"constant\"\nmax_grad_norm = 0\nadam_epsilon = 1e-12\nsave_steps = 5\n\
         eval_steps = 10\nseed = 7\n",
    )
}

const SMALL: &str = "config = { model_type = \"bert\", hidden_size = 16, num_hidden_layers = 2, \
     num_attention_heads = 2, intermediate_size = 32, max_position_embeddings = 32 }\n\
     hidden_dropout_prob = 0\nattention_probs_dropout_prob = 0\nclassifier_dropout = 0";
const GROWN: &str = "model = \"grown\"\nhidden_dropout_prob = 0\nattention_probs_dropout_prob = 0\n\
     classifier_dropout = 0";

#[test]
fn a_checkpoint_grows_with_its_moments_and_training_begins_from_them() {
    let place = Place::with_data();
    place.write("small.toml", &recipe(SMALL, "", 20));
    place.done("train small.toml --into small");
    let said =
        place.done("grow small --hidden 32 --method hypercloning --moments exact --out grown");
    assert!(said.contains("moments of 20 steps grow with it"), "{said}");
    place.done("verify grown");
    let more = format!("{GROWN}\nmoments = true\nrates = true");
    place.write("grown.toml", &recipe(&more, "", 20));
    let plan = place.done("plan grown.toml");
    assert!(plan.contains("with the optimiser's moments after 20 steps"), "{plan}");
    assert!(plan.contains("learning rate × 0.5, decay × 2"), "{plan}");
    place.done("train grown.toml --into large");
    // The same data from the start, by the small model with its own moments.
    place.done("grow small --layers 3 --method stack --moments exact --out stacked");
    let (own, grown) = (place.records("small", "step"), place.records("large", "step"));
    let loss = |records: &[Value], at: usize| records[at]["loss"].as_f64().unwrap();
    assert!(loss(&grown, 0) < loss(&own, 0), "it knows what the small one had learnt");
    // Without moments the first steps are those of a fresh optimiser: longer.
    place.write("without.toml", &recipe(GROWN, "", 20));
    place.done("train without.toml --into without");
    let without = place.records("without", "step");
    assert_eq!(loss(&grown, 0), loss(&without, 0));
    assert_ne!(loss(&grown, 1), loss(&without, 1));
    assert_eq!(grown[0]["group_learning_rates"].as_array().unwrap().len(), 1);
    // A resumed run has the same bits.
    place.done("train grown.toml --into again --set training.max_steps=20");
    let want = fs::read(place.path("large/last/model.safetensors")).unwrap();
    assert!(fs::read(place.path("again/last/model.safetensors")).unwrap() == want);
    fs::remove_dir_all(place.path("again/step-000000020")).unwrap();
    place.done("resume again");
    assert!(fs::read(place.path("again/last/model.safetensors")).unwrap() == want);
}

/// A recipe of a language model whose every step reads all rows.
fn language(kind: &str, student: &str, rest: &str, (steps, rows): (u64, &str)) -> String {
    format!(
        "[text]\nkind = \"{kind}\"\npath = \"texts\"\ntrain = [\"train.txt\"]\n\
         validation = [\"dev.txt\"]\ndocuments = \"blank_line\"\nsequence_length = 32\n\
         [tokenizer]\npath = \"words\"\n[student]\n{student}\nhidden_dropout_prob = 0\n\
         attention_probs_dropout_prob = 0\n[training]\nmax_steps = {steps}\nbatch_size = {rows}\n\
         learning_rate = 1e-3\nwarmup_steps = 0\nlr_scheduler_type = \"constant\"\n\
         max_grad_norm = 0\nadam_epsilon = 1e-12\nsave_steps = 2\neval_strategy = \"end\"\n\
         seed = 7\n{rest}"
    )
}

/// GPT-2's matrices lie transposed in files, and so do their moments. A run that begins from grown
/// weights and moments goes on as one that grows on its way, where both read all the text in each step.
#[test]
fn moments_of_a_decoder_grow_and_a_run_goes_on_from_them() {
    let place = Place::with_data();
    fs::create_dir(place.path("texts")).unwrap();
    for (name, seed, count) in [("train", 11, 24), ("dev", 12, 6)] {
        let texts = heirloom_data::synthetic::generate(seed, count).into_iter();
        let texts: Vec<String> = texts.map(|example| example.text).collect();
        place.write(&format!("texts/{name}.txt"), &texts.join("\n\n"));
    }
    let small = "config = { model_type = \"gpt2\", hidden_size = 16, num_hidden_layers = 2, \
                 num_attention_heads = 2, intermediate_size = 32 }";
    place.write("small.toml", &language("causal", small, "", (10, "1")));
    let plan = place.done("plan small.toml");
    let (before, _) = plan.split_once(" rows").unwrap();
    let rows = before.rsplit(' ').next().unwrap();
    place.write("small.toml", &language("causal", small, "", (10, rows)));
    place.done("train small.toml --into small");
    let stage = "[[stage]]\nat_step = 10\nmethod = \"hypercloning\"\nhidden_size = 32\n\
                 moments = \"exact\"\n";
    place.write("staged.toml", &language("causal", small, stage, (16, rows)));
    place.done("train staged.toml --into staged");
    let said =
        place.done("grow small --hidden 32 --method hypercloning --moments exact --out grown");
    assert!(said.contains("moments of 10 steps grow with it"), "{said}");
    let grown = "model = \"grown\"\nmoments = true\nrates = true";
    place.write("grown.toml", &language("causal", grown, "", (6, rows)));
    let plan = place.done("plan grown.toml");
    assert!(plan.contains("with the optimiser's moments after 10 steps"), "{plan}");
    assert!(plan.contains("learning rate × 0.5, decay × 2"), "{plan}");
    place.done("train grown.toml --into large");
    place.write("bare.toml", &language("causal", "model = \"grown\"", "", (6, rows)));
    place.done("train bare.toml --into bare");
    let losses = |run: &str| -> Vec<f64> {
        let records = place.records(run, "step");
        records.iter().map(|record| record["loss"].as_f64().unwrap()).collect()
    };
    let (want, got, bare) = (losses("staged").split_off(10), losses("large"), losses("bare"));
    assert_eq!(want.len(), got.len());
    let gap = |got: &[f64]| want.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(gap(&got) < 1e-5, "{want:?} {got:?}");
    assert!(gap(&bare) > 1e-3, "{want:?} {bare:?}");
    // It grows once more, and goes on with all the steps that its moments have heard of.
    let said = place.done("grow large --layers 3 --out larger");
    assert!(said.contains("moments of 16 steps grow with it"), "{said}");
    let want = fs::read(place.path("large/last/model.safetensors")).unwrap();
    fs::remove_dir_all(place.path("large/step-000000006")).unwrap();
    place.done("resume large");
    assert!(fs::read(place.path("large/last/model.safetensors")).unwrap() == want);
    // A masked encoder's run, with its head.
    let encoder = "config = { model_type = \"bert\", hidden_size = 16, num_hidden_layers = 2, \
                   num_attention_heads = 2, intermediate_size = 32, max_position_embeddings = 32 }";
    place.write("masked.toml", &language("masked", encoder, "", (4, "4")));
    place.done("train masked.toml --into masked");
    place.done("grow masked --layers 3 --method stack --out deeper");
    let deeper = "model = \"deeper\"\nmoments = true\nrates = true";
    place.write("deeper.toml", &language("masked", deeper, "", (2, "4")));
    place.done("train deeper.toml --into deeper-run");
    let steps = place.records("deeper-run", "step");
    assert!(steps[0]["loss"].as_f64().unwrap().is_finite(), "{steps:?}");
    // A model that nobody grew.
    let plain = "model = \"small/last\"\nmoments = true";
    place.write("plain.toml", &language("causal", plain, "", (2, rows)));
    let (code, said) = place.refuses("train plain.toml --into refused");
    assert!(code == 2 && said.contains("`student.moments` needs a model that"), "{said}");
}

#[test]
fn what_moments_do_not_belong_to_is_refused() {
    let place = Place::with_data();
    place.write("small.toml", &recipe(SMALL, "", 5));
    place.done("train small.toml --into small");
    let (code, said) = place.refuses("grow small --layers 3 --step 4 --out grown");
    assert_eq!(
        (code, said.as_str()),
        (2, "error: `small` has no checkpoint of step 4; it has those of steps 5")
    );
    let (code, said) = place.refuses("grow small --layers 3 --moments all --out grown");
    assert_eq!(
        (code, said.as_str()),
        (2, "error: --moments is `all`, expected one of exact, asymmetric, drop")
    );
    let (code, said) = place.refuses("grow small/best --layers 3 --moments exact --out grown");
    assert!(
        code == 2 && said.contains("--moments is for run folders, and `small/best` is none"),
        "{said}"
    );
    place.done("grow small --layers 3 --method llama-pro --out grown");
    place.done("grow small --layers 4 --method llama-pro --out deeper");
    let with = |key: &str| format!("{GROWN}\n{key} = true");
    // The weights of another growth beside these moments.
    let weights = "model.safetensors";
    fs::rename(place.path("grown").join(weights), place.path("kept")).unwrap();
    fs::copy(place.path("deeper").join(weights), place.path("grown").join(weights)).unwrap();
    place.write("grown.toml", &recipe(&with("moments"), "", 5));
    let (code, said) = place.refuses("train grown.toml --into large");
    assert!(code == 3 && said.contains("belongs to weights with digest"), "{said}");
    fs::rename(place.path("kept"), place.path("grown").join(weights)).unwrap();
    // A model that nobody grew.
    place.write("plain.toml", &recipe(&with("moments").replace("grown", "small/best"), "", 5));
    let (code, said) = place.refuses("train plain.toml --into large");
    assert!(
        code == 2 && said.contains("`student.moments` needs a model that `heirloom grow RUN`"),
        "{said}"
    );
    // Only the added layer is trained.
    place.write("grown.toml", &recipe(&with("freezing"), "", 5));
    place.done("train grown.toml --into large");
    let [before, after] = ["grown", "large/last"].map(|folder| {
        let file = heirloom_store::TensorFolder::open(&place.path(folder)).unwrap();
        ["layer.0", "layer.2"].map(|layer| {
            file.read_f32(&format!("bert.encoder.{layer}.output.dense.weight")).unwrap()
        })
    });
    assert!(before[0] == after[0] && before[1] != after[1]);
}

fn staged() -> String {
    let stages = "[[stage]]\nat_step = 8\nmethod = \"stack\"\nnum_hidden_layers = 4\n\
                  [[stage]]\nat_examples = 190\nhidden_size = 32\nnum_attention_heads = 4\n";
    let student = SMALL.replace("_prob = 0", "_prob = 0.1");
    recipe(&student, stages, 30)
}

#[test]
fn a_recipe_with_stages_grows_in_one_run_and_says_so() {
    let place = Place::with_data();
    place.write("staged.toml", &staged());
    let plan = place.done("plan staged.toml");
    assert!(
        plan.contains(
            "after 8 steps it grows by `stack` to layers 4; moments asymmetric, what is \
                       new warmed up for 50 steps"
        ),
        "{plan}"
    );
    place.done("train staged.toml --into run");
    let growths = place.records("run", "growth");
    let [depth, width] = growths.as_slice() else { panic!("{growths:?}") };
    assert_eq!((&depth["step"], &depth["predicted"]), (&8.into(), &"not".into()));
    assert_eq!((&width["step"], &width["predicted"]), (&17.into(), &"exact".into()));
    assert!(width["largest_change"].as_f64().unwrap() < 1e-5, "{width}");
    let config = fs::read_to_string(place.path("run/last/config.json")).unwrap();
    assert!(config.contains("\"num_hidden_layers\": 4") && config.contains("\"hidden_size\": 32"));
    let gap = place.records("run", "evaluation").last().unwrap()["clone_gap"].as_f64().unwrap();
    assert!(gap > 0.0, "copies learn apart by default");
    // The small models of the way are models of their own.
    for small in ["small-0", "small-1"] {
        place.done(&format!("verify run/{small}"));
        place.done(&format!("grow run/{small} --layers 5 --out five-{small}"));
    }
    // A run that has grown grows by the command as well.
    let said = place.done("grow run --layers 5 --out more");
    assert!(said.contains("moments of 30 steps grow with it"), "{said}");
}

#[test]
fn a_stage_that_tries_several_ways_says_what_they_came_to_and_the_ledger_counts_them() {
    let place = Place::with_data();
    let stage = "[[stage]]\nat_step = 8\ncandidates = [\"stack\", \"interleave\", \"preserve\"]\n\
                 lag_steps = 6\nnum_hidden_layers = 4\n";
    place.write("tried.toml", &recipe(SMALL, stage, 20));
    let plan = place.done("plan tried.toml");
    let words = "after 8 steps it tries `stack`, `interleave` and `preserve` for 6 steps each, and grows \
                 by the one with the lowest loss to layers 4; moments asymmetric";
    assert!(plan.contains(words), "{plan}");
    let (code, _, said) = place.run("train tried.toml --into run");
    assert_eq!(code, 0, "{said}");
    let growths = place.records("run", "growth");
    let [growth] = growths.as_slice() else { panic!("{growths:?}") };
    let tried = growth["candidates"].as_array().unwrap();
    assert_eq!(tried.len(), 3);
    let spent: f64 = tried.iter().map(|one| one["flops"].as_f64().unwrap()).sum();
    for one in tried {
        let method = one["method"].as_str().unwrap();
        let loss = one["loss"].as_f64().unwrap();
        let line = format!("step 8: tried `{method}` for 6 steps: loss {loss:.4}");
        assert!(said.contains(&line), "{said}");
    }
    let name = growth["method"].as_str().unwrap();
    assert!(said.contains(&format!("step 8: grown by `{name}` from 2 layers")), "{said}");
    let losses = place.records("run", "evaluation");
    let target = losses.last().unwrap()["evaluation"]["loss"].as_f64().unwrap() + 1e-3;
    let ledger = format!("ledger run --baseline run --target {target} --json");
    let found: Value = serde_json::from_str(&place.done(&ledger)).unwrap();
    assert_eq!(found["operator"]["flops"].as_f64(), Some(spent));
    let tokens: f64 = tried.iter().map(|one| one["tokens"].as_f64().unwrap()).sum();
    assert_eq!(found["operator"]["tokens"].as_f64(), Some(tokens));
    // It goes on from a checkpoint after growing, and says what it is.
    place.done("verify run/last");
    fs::remove_dir_all(place.path("run/step-000000020")).unwrap();
    let want = fs::read(place.path("run/last/model.safetensors")).unwrap();
    place.done("resume run");
    assert!(fs::read(place.path("run/last/model.safetensors")).unwrap() == want);
}

#[test]
fn a_mask_over_what_is_new_opens_and_what_is_saved_behind_it_is_what_the_run_computes() {
    let place = Place::with_data();
    let stage = "[[stage]]\nat_step = 8\nmethod = \"msg\"\nmask_steps = 40\nnum_hidden_layers = 4\n\
                 intermediate_size = 48\n";
    place.write("masked.toml", &recipe(SMALL, stage, 20));
    let plan = place.done("plan masked.toml");
    let words = "after 8 steps it grows by `msg` to layers 4, feed-forward width 48; moments \
                 asymmetric, a mask over what is new opens in 40 steps";
    assert!(plan.contains(words), "{plan}");
    place.done("train masked.toml --into run");
    let growth = place.records("run", "growth").remove(0);
    assert_eq!(growth["predicted"], "exact");
    assert!(growth["largest_change"].as_f64().unwrap() < 1e-6, "{growth}");
    let c: Vec<f64> =
        place.records("run", "step").iter().filter_map(|r| r["mask"].as_f64()).collect();
    assert_eq!((c.len(), c[0], c[11]), (12, 0.0, 0.275));
    let evaluations = place.records("run", "evaluation");
    let best = evaluations.iter().rfind(|record| record["best"] == true).unwrap();
    assert!(best["step"].as_u64() >= Some(10), "it has grown: {best}");
    let said: Value = serde_json::from_str(&place.done("eval run --json")).unwrap();
    let [want, got] = [&best["evaluation"]["loss"], &said["evaluations"][0]["evaluation"]["loss"]]
        .map(|loss| loss.as_f64().unwrap());
    assert!((want - got).abs() < 1e-6, "{want}, {got}");
    let (code, said) = place.refuses("grow run --layers 5 --out more");
    assert!(code == 2 && said.contains("take a checkpoint after 48 steps"), "{said}");
    place.done("grow run/last --layers 5 --out more");
}

#[test]
fn a_staged_run_killed_at_random_moments_ends_with_the_bits_of_one_left_alone() {
    let place = Place::with_data();
    place.write("staged.toml", &staged());
    let begun = std::time::Instant::now();
    place.done("train staged.toml --into alone");
    let whole = begun.elapsed();
    let outcome = |run: &str| {
        ["last/model.safetensors", "run.jsonl", "best/model.safetensors"]
            .map(|file| fs::read(place.path(run).join(file)).unwrap())
    };
    let want = outcome("alone");
    let mut kills = 0;
    for round in 0..30 {
        if kills >= 8 {
            break;
        }
        let run = format!("round-{round}");
        let killed = |verb: &[&str], share: f64| {
            let mut child = place
                .command(verb)
                .args(["--threads", "1"])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            sleep(Duration::from_secs_f64(whole.as_secs_f64() * share));
            let _ = child.kill();
            u32::from(!child.wait().unwrap().success())
        };
        let moment = |index| uniform(word(round, Purpose::Bootstrap, 0, index));
        kills += killed(&["train", "staged.toml", "--into", &run], moment(0));
        if !place.path(&run).join("plan.toml").is_file() {
            place.done(&format!("train staged.toml --into {run}"));
        } else {
            kills += killed(&["resume", &run], moment(1));
            place.done(&format!("resume {run}"));
        }
        assert!(outcome(&run) == want, "round {round}");
        fs::remove_dir_all(place.path(&run)).unwrap();
    }
    assert!(kills >= 8, "only {kills} kills met a running process");
}

#[test]
fn the_ledger_counts_the_small_model_and_refuses_what_was_not_reached() {
    let place = Place::with_data();
    place.write("staged.toml", &staged());
    place.done("train staged.toml --into run");
    let large = SMALL.replace(
        "hidden_size = 16, num_hidden_layers = 2",
        "hidden_size = 32, num_hidden_layers = 4",
    );
    let large = large.replace(
        "num_attention_heads = 2, intermediate_size = 32",
        "num_attention_heads = 4, intermediate_size = 64",
    );
    place.write("scratch.toml", &recipe(&large, "", 30));
    place.done("train scratch.toml --into scratch");
    let losses = |run: &str| -> Vec<f64> {
        let records = place.records(run, "evaluation");
        records.iter().map(|record| record["evaluation"]["loss"].as_f64().unwrap()).collect()
    };
    let smallest = |run: &str| losses(run).into_iter().fold(f64::INFINITY, f64::min);
    let target = smallest("run").max(smallest("scratch")) + 1e-4;
    let ledger = format!("ledger run --baseline scratch --target {target} --reuses 4");
    let found: Value = serde_json::from_str(&place.done(&format!("{ledger} --json"))).unwrap();
    let flops = &found["savings"][0];
    let number = |key: &str| flops[key].as_f64().unwrap();
    let records = place.records("run", "step");
    let small: f64 = records[..17].iter().map(|step| step["flops"].as_f64().unwrap()).sum();
    assert_eq!(number("small"), small);
    let counted = 1.0 - (small + number("grown")) / number("baseline");
    assert!((number("counted") - counted).abs() < 1e-12, "{flops}");
    let amortised = 1.0 - (small / 4.0 + number("grown")) / number("baseline");
    assert!((number("amortised") - amortised).abs() < 1e-12, "{flops}");
    let seconds = &found["savings"][2];
    assert!(seconds["measure"] == "seconds" && seconds["baseline"].as_f64().unwrap() > 0.0);
    let said = place.done(&ledger);
    assert!(said.contains("amortised over 4") && said.contains("break-even"), "{said}");
    // A step of the model of the second stage is that of the model from scratch.
    let last = |run: &str| place.records(run, "step")[25]["flops"].clone();
    assert_eq!(last("run"), last("scratch"));
    let (code, said) = place.refuses("ledger run --baseline scratch --target 0.0001");
    assert!(
        code == 2 && said.contains("never reaches a loss of 0.0001; its smallest is"),
        "{said}"
    );
    let (code, said) =
        place.refuses(&format!("ledger scratch --baseline scratch --target {target}"));
    assert!(
        code == 2 && said.contains("`scratch` did not grow; name the small model's run before it"),
        "{said}"
    );
    // A chain of two runs, and one that is taken whole.
    let chain = format!("ledger scratch scratch --baseline scratch --target {target} --json");
    let found: Value = serde_json::from_str(&place.done(&chain)).unwrap();
    assert!(found["savings"][0]["uncounted"].as_f64().unwrap().abs() < 1e-12, "{found}");
    assert_eq!(found["savings"][0]["break_even"], Value::Null);
    place.done(&format!("ledger scratch --whole --baseline scratch --target {target}"));
    // A picture of all of them; it replaces nothing.
    let drawn =
        format!("ledger run --baseline scratch --target {target} --curve all.svg --beside run");
    place.done(&drawn);
    let svg = std::fs::read_to_string(place.path("all.svg")).unwrap();
    assert_eq!(svg.matches("<polyline").count(), 3, "{svg}");
    assert_eq!(svg.matches("class=\"grown\"").count(), 2 * place.records("run", "growth").len());
    let (code, said) = place.refuses(&drawn);
    assert!(
        code == 2 && said.contains("`all.svg` exists already, and --curve replaces nothing"),
        "{said}"
    );
}

#[test]
fn stages_that_cannot_be_are_refused_before_a_folder_is_made() {
    let place = Place::with_data();
    let with = |stage: &str| recipe(SMALL, &format!("[[stage]]\n{stage}\n"), 30);
    for (stage, want) in [
        (
            "at_step = 8\nnum_hidden_layers = 1",
            "`stage.0`: the number of layers cannot go from 2 to 1",
        ),
        (
            "at_step = 30\nnum_hidden_layers = 4",
            "`stage.0.at_step` is 30, expected a step before the run's last, 30",
        ),
        (
            "at_step = 8\nat_tokens = 9\nhidden_size = 32",
            "`stage.0.at_tokens` and `stage.0.at_step` contradict each other",
        ),
        ("at_step = 8", "`stage.0.num_hidden_layers` is missing"),
        (
            "hidden_size = 32",
            "one of `stage.0.at_step`, `stage.0.at_tokens`, `stage.0.at_examples`, `stage.0.at_slope` is missing",
        ),
        ("at_step = 8\nhidden_size = 32\nwindow = 9", "`stage.0.window` needs `at_slope`"),
        (
            "at_step = 8\nhidden_size = 32\nmethod = \"stak\"",
            "`stage.0`: there is no method `stak`",
        ),
        (
            "at_step = 8\nhidden_size = 40\nmethod = \"hypercloning\"",
            "whole copies need a multiple",
        ),
        (
            "at_step = 8\nnum_hidden_layers = 4\ncandidates = [\"stack\"]",
            "`stage.0.candidates` is [\"stack\"], expected a list of at least two different methods",
        ),
        (
            "at_step = 8\nnum_hidden_layers = 4\ncandidates = [\"stack\", \"solar\"]\n\
             method = \"stack\"",
            "`stage.0.method` and `stage.0.candidates` contradict each other",
        ),
        (
            "at_step = 8\nnum_hidden_layers = 5\ncandidates = [\"stack\", \"solar\"]\nlag_steps = 9",
            "`stage.0.candidates`: `solar`: the number of layers cannot go from 2 to 5",
        ),
        (
            "at_step = 8\nnum_hidden_layers = 4\ncandidates = [\"stack\", \"stak\"]\nlag_steps = 9",
            "`stage.0.candidates`: `stak`: there is no method `stak`; the nearest is `stack`",
        ),
        (
            "at_step = 8\nnum_hidden_layers = 4\ncandidates = [\"stack\", \"ligo\"]",
            "`stage.0.candidates` needs methods whose map is fixed",
        ),
        (
            "at_step = 8\nnum_hidden_layers = 4\nlag_steps = 4",
            "`stage.0.lag_steps` needs `candidates`",
        ),
        (
            "at_step = 8\nnum_hidden_layers = 4\ncandidates = [\"stack\", \"solar\"]\nlag_steps = 23",
            "`stage.0.lag_steps` is 23, expected at most the 22 steps that the run has left by then",
        ),
        (
            "at_step = 8\nnum_hidden_layers = 4\nmask_steps = 9",
            "`stage.0.mask_steps` needs `method = \"msg\"`",
        ),
        (
            "at_step = 8\nhidden_size = 32\nmethod = \"msg\"\nmask_steps = 9",
            "`stage.0`: the hidden size cannot go from 16 to 32: norms see new units",
        ),
        (
            "at_step = 8\nnum_hidden_layers = 4\nmethod = \"msg\"\nmask_steps = 9\n[[stage]]\n\
             at_step = 12\nhidden_size = 32",
            "`stage.0.mask_steps` is 9, expected at most 4, as the next stage is at step 12",
        ),
        (
            "at_slope = 0.5\nhidden_size = 32",
            "`stage.0.at_slope` is 0.5, expected a number below 0",
        ),
    ] {
        place.write("bad.toml", &with(stage));
        let (code, said) = place.refuses("train bad.toml --into run");
        assert!(code == 2 && said.contains(want), "{stage}: {said}");
        assert!(!place.path("run").exists());
    }
}
