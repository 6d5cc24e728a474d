//! Every message a recipe can cause before anything outside is looked at, word for word.

use heirloom_recipe::parse;

/// What is said about a recipe, or that it is fine.
fn said(text: &str, sets: &[&str]) -> String {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    match parse("recipe.toml", text, &sets) {
        Ok(_) => "fine".to_owned(),
        Err(problems) => {
            assert_eq!(problems.exit_code(), 2);
            problems.to_string()
        }
    }
}

const GOOD: &str = r#"
[task]
preset = "sst2"
path = "data/SST-2"

[student]
model = "models/small"

[teacher]
model = "models/large"

[objective]
alpha = 0.7

[training]
epochs = 2
seed = 7
"#;

#[test]
fn a_good_recipe_is_fine() {
    assert_eq!(said(GOOD, &[]), "fine");
}

#[test]
fn all_problems_are_told_at_once() {
    let text = r#"
[task]
preset = "sst"
pth = "data/SST-2"
max_length = 9000
labels = ["a", 7]

[student]
model = 3

[objective]
alpha = 1.5
temperatur = 2.0

objectve.alpha = 0.5

[training]
epochs = 2
max_steps = 100
seed = "three"
lr_scheduler_type = "cosin"
precision = "fp16"
learning_rat = 1e-4
num_train_epochs = 3
temperature = 2.0
"#;
    insta::assert_snapshot!(said(text, &[]), @r#"
        recipe.toml:2:2: `task.path` is missing: the folder with the data files
        recipe.toml:3:10: `task.preset` is "sst", expected one of `cola`, `sst2`, `mrpc`, `stsb`, `qqp`, `mnli`, `qnli`, `rte`, `wnli`; did you mean `sst2`?
        recipe.toml:4:1: unknown key `task.pth`; did you mean `path`?
        recipe.toml:5:14: `task.max_length` is 9000, expected a whole number from 2 to 8192
        recipe.toml:6:16: `task.labels.1` is 7, expected an element of a list of at least two different label names
        recipe.toml:9:9: `student.model` is 3, expected a path, in which `~` is not expanded
        recipe.toml:12:9: `objective.alpha` is 1.5, expected a number from 0 to 1
        recipe.toml:13:1: unknown key `objective.temperatur`; did you mean `temperature`?
        recipe.toml:15:1: unknown key `objective.objectve`
        recipe.toml:19:1: `training.max_steps` and `training.epochs` contradict each other; keep one
        recipe.toml:20:8: `training.seed` is "three", expected a whole number from 0
        recipe.toml:21:21: `training.lr_scheduler_type` is "cosin", expected one of `linear`, `cosine`, `constant`; did you mean `cosine`?
        recipe.toml:22:13: `training.precision` is "fp16", expected one of `f32`, `bf16`; did you mean `bf16`?
        recipe.toml:23:1: unknown key `training.learning_rat`; did you mean `learning_rate`?
        recipe.toml:24:1: unknown key `training.num_train_epochs`; did you mean `epochs`?
        recipe.toml:25:1: unknown key `training.temperature`; did you mean `objective.temperature`?
        16 problems
    "#);
}

#[test]
fn an_unknown_table_is_an_unknown_key() {
    let text = format!("objectve.alpha = 0.5\nwarmup = 3\nxyzzy = 1\n{GOOD}\n[trainings]\n");
    insta::assert_snapshot!(said(&text, &[]), @r#"
        recipe.toml:1:1: unknown key `objectve`; did you mean `objective`?
        recipe.toml:2:1: unknown key `warmup`; did you mean `training.warmup_ratio`?
        recipe.toml:3:1: unknown key `xyzzy`
        recipe.toml:22:2: unknown key `trainings`; did you mean `training`?
        4 problems
    "#);
}

#[test]
fn wrong_types_say_what_was_found() {
    let text = r#"
name = "a/b"
task = 3
output = []

[student]
config = { model_type = "gpt2", hidden_size = 10, num_attention_heads = 3, layers = 2 }
layers = [0, 2, 1]

[training]
seed = -1
epochs = nan
batch_size = 0
threads = 2020-01-01
seeds = [1, 1]
"#;
    insta::assert_snapshot!(said(text, &[]), @r#"
        recipe.toml:2:8: `name` is "a/b", expected a name without `/`
        recipe.toml:3:8: `task` is 3, expected a table
        recipe.toml:4:10: `output` is [], expected a table
        recipe.toml:7:1: `student.config` needs `tokenizer.path`, as it comes without tokens
        recipe.toml:7:10: `student.config.num_hidden_layers` is missing: how many layers
        recipe.toml:7:12: `student.config.model_type` is "gpt2", expected one of bert, roberta or distilbert
        recipe.toml:7:51: `student.config.num_attention_heads` is 3, which does not divide the student's width 10; 2 or 5 would
        recipe.toml:7:76: unknown key `student.config.layers`; did you mean `student.layers`?
        recipe.toml:8:1: `student.layers` and `student.config` contradict each other; keep one
        recipe.toml:8:10: `student.layers` is [0, 2, 1], expected a list of layer numbers from 0, each above the one before
        recipe.toml:11:8: `training.seed` is -1, expected a whole number from 0
        recipe.toml:12:10: `training.epochs` is NaN, expected a number above 0
        recipe.toml:13:14: `training.batch_size` is 0, expected a whole number from 1 to 4294967295
        recipe.toml:14:11: `training.threads` is 2020-01-01, expected a whole number from 0 to 4294967295
        recipe.toml:15:1: `training.seeds` and `training.seed` contradict each other; keep one
        recipe.toml:15:9: `training.seeds` is [1, 1], expected a list of different whole numbers from 0
        16 problems
    "#);
}

#[test]
fn what_is_missing_is_named() {
    insta::assert_snapshot!(said("[task]\nkind = \"classification\"\n[student]\n[teacher]\n", &[]), @r#"
        recipe.toml:1:2: `task.path` is missing: the folder with the data files
        recipe.toml:1:2: `task.train` is missing: the file to train on
        recipe.toml:1:2: `task.text` is missing: the column with the text
        recipe.toml:1:2: `task.label` is missing: the column with the label
        recipe.toml:1:2: one of `task.validation`, `task.validation_split` is missing: a file to evaluate on, or a share of the training file
        recipe.toml:3:2: one of `student.model`, `student.config`, `student.from_teacher` is missing: where the student's weights come from
        recipe.toml:4:2: `teacher.model` is missing: the folder of a model fine-tuned on the task, or in its place `answers`, a file of them; or remove [teacher]
        7 problems
    "#);
    insta::assert_snapshot!(said("[output]\nsave_model = true\n", &[]), @r#"
        recipe.toml: one of `task.preset`, `task.kind` is missing: a GLUE task's name, or what is predicted from your own files
        recipe.toml: `task.path` is missing: the folder with the data files
        recipe.toml: one of `student.model`, `student.config`, `student.from_teacher` is missing: where the student's weights come from
        3 problems
    "#);
    let odd = GOOD.replace(
        "preset = \"sst2\"",
        "kind = \"regression\"\ntrain = \"a.txt\"\ntext = 0\nlabel = 1\nvalidation = \"b.txt\"",
    );
    insta::assert_snapshot!(said(&odd, &[]), @r#"
        recipe.toml:2:2: `task.format` is missing: the extension of `a.txt` does not tell; one of `tsv`, `csv`, `jsonl`, `parquet`, `label_first`
        1 problem
    "#);
    let fresh = "[task]\npreset = \"rte\"\npath = \"d\"\n[student]\nconfig = { hidden_size = 8 }\n";
    insta::assert_snapshot!(said(fresh, &[]), @r#"
        recipe.toml:5:1: `student.config` needs `tokenizer.path`, as it comes without tokens
        recipe.toml:5:10: `student.config.model_type` is missing: bert, roberta or distilbert
        recipe.toml:5:10: `student.config.num_hidden_layers` is missing: how many layers
        recipe.toml:5:10: `student.config.num_attention_heads` is missing: how many heads
        4 problems
    "#);
}

#[test]
fn keys_that_decide_the_same_thing_contradict() {
    let text = r#"
[task]
preset = "rte"
kind = "classification"
path = "d"
[student]
model = "m"
config = { model_type = "bert", hidden_size = 8, num_hidden_layers = 2, num_attention_heads = 2 }
layers = [0]
[training]
warmup_ratio = 0.1
warmup_steps = 10
batch_size = 8
batch_tokens = 100
micro_batch_size = 2
gradient_accumulation_steps = 4
seed = 1
seeds = [1, 2]
"#;
    insta::assert_snapshot!(said(text, &[]), @r#"
        recipe.toml:4:1: `task.kind` and `task.preset` contradict each other; keep one
        recipe.toml:8:1: `student.config` and `student.model` contradict each other; keep one
        recipe.toml:9:1: `student.layers` and `student.config` contradict each other; keep one
        recipe.toml:12:1: `training.warmup_steps` and `training.warmup_ratio` contradict each other; keep one
        recipe.toml:14:1: `training.batch_tokens` and `training.batch_size` contradict each other; keep one
        recipe.toml:14:1: `training.batch_tokens` is 100, expected at least `task.max_length`, 128
        recipe.toml:16:1: `training.gradient_accumulation_steps` and `training.micro_batch_size` contradict each other; keep one
        recipe.toml:16:1: `training.gradient_accumulation_steps` and `training.batch_tokens` contradict each other; keep one
        recipe.toml:18:1: `training.seeds` and `training.seed` contradict each other; keep one
        9 problems
    "#);
}

#[test]
fn keys_that_need_others_say_which() {
    let text = r#"
[task]
kind = "regression"
path = "d"
train = "train.jsonl"
validation_split = 0.1
evaluate_on = "validation"
text = 0
label = "score"
header = true
labels = ["a", "b"]
metric = "f1"
bad_line_limit = 3

[student]
from_teacher = true

[objective]
alpha = 0.5
temperature = 4
scale_by_temperature_squared = false
label_loss = "bce"
[[objective.hidden]]
weight = 2
[[objective.hidden]]
kind = "mse"
relation = "value"
relation_heads = 3
[[objective.hidden]]
kind = "attention_relation"
position = "first"
projection = true

[training]
eval_strategy = "never"
eval_steps = 10
early_stopping_patience = 2
metric_for_best = "pearsn"
nonfinite_limit = 3
micro_batch_tokens = 100
"#;
    insta::assert_snapshot!(said(text, &[]), @r#"
        recipe.toml:7:1: `task.evaluate_on` needs `task.validation`, the file to evaluate on
        recipe.toml:8:1: `task.text` is 0, expected the name of a field, as this format has no order of them
        recipe.toml:10:1: `task.header` needs `format = "tsv"` or `"csv"`
        recipe.toml:11:1: `task.labels` needs a task with labels, but a regression has none
        recipe.toml:12:1: `task.metric` is "f1", expected one of `pearson_spearman`, `mse` for a regression task
        recipe.toml:13:1: `task.bad_line_limit` needs `on_bad_line = "skip"`
        recipe.toml:16:1: `student.from_teacher` needs `teacher.model`
        recipe.toml:19:1: `objective.alpha` needs a `[teacher]`; without one it is 0
        recipe.toml:20:1: `objective.temperature` needs a `[teacher]`; without one it changes nothing
        recipe.toml:21:1: `objective.scale_by_temperature_squared` needs a `[teacher]`; without one it changes nothing
        recipe.toml:22:1: `objective.label_loss` is "bce", expected `mse` for a regression task
        recipe.toml:23:1: `objective.hidden.0.kind` is missing: mse, cosine, normalized_mse or attention_relation
        recipe.toml:23:13: `objective.hidden` needs a `[teacher]` to compare with
        recipe.toml:27:1: `objective.hidden.1.relation` needs `kind = "attention_relation"`
        recipe.toml:28:1: `objective.hidden.1.relation_heads` needs `kind = "attention_relation"`
        recipe.toml:31:1: `objective.hidden.2.position` needs another `kind`; attention_relation compares all positions, without a map
        recipe.toml:32:1: `objective.hidden.2.projection` needs another `kind`; attention_relation compares all positions, without a map
        recipe.toml:36:1: `training.eval_steps` needs `eval_strategy = "steps"`, or none
        recipe.toml:37:1: `training.early_stopping_patience` needs evaluations, but `eval_strategy` is "never"
        recipe.toml:38:1: `training.metric_for_best` needs evaluations, but `eval_strategy` is "never"
        recipe.toml:38:1: `training.metric_for_best` is "pearsn", expected one of `f1`, `loss`
        recipe.toml:39:1: `training.nonfinite_limit` needs `on_nonfinite = "skip"`
        recipe.toml:40:1: `training.micro_batch_tokens` is 100, expected at least `task.max_length`, 128
        23 problems
    "#);
    let text = GOOD.replace("epochs = 2", "eval_strategy = \"steps\"");
    insta::assert_snapshot!(said(&text, &["teacher.logits=cache", "objective.hidden=[{kind='mse'}]", "task.evaluate_on=split"]), @r#"
        recipe.toml:16:1: `training.eval_strategy` needs `training.eval_steps`, how many
        --set teacher.logits=cache: `teacher.logits` needs no `[[objective.hidden]]`; hidden states are not cached, so write `logits = "live"`
        --set task.evaluate_on=split: `task.evaluate_on` needs `task.validation_split`, the share to hold out
        3 problems
    "#);
    let text = GOOD.replace("preset = \"sst2\"", "preset = \"cola\"\ntext = \"sentence\"");
    insta::assert_snapshot!(said(&text, &[]), @r#"
        recipe.toml:4:1: `task.text` is "sentence", expected a column's number from 0, as there is no header
        1 problem
    "#);
}

#[test]
fn keys_of_an_average_belong_to_the_average_that_has_them() {
    let text = GOOD.to_owned();
    let all =
        ["training.average_decay=0.9", "training.average_from=0.5", "training.average_every=3"];
    insta::assert_snapshot!(said(&text, &all), @r#"
        --set training.average_decay=0.9: `training.average_decay` needs `average = "ema"`
        --set training.average_from=0.5: `training.average_from` needs `average = "swa"`
        --set training.average_every=3: `training.average_every` needs `average = "swa"`
        3 problems
    "#);
    let sets = [&["training.average=swa"], &all[..]].concat();
    insta::assert_snapshot!(said(&text, &sets), @r#"
        --set training.average_decay=0.9: `training.average_decay` needs `average = "ema"`
        1 problem
    "#);
    let sets = [&["training.average=ema"], &all[..]].concat();
    insta::assert_snapshot!(said(&text, &sets), @r#"
        --set training.average_from=0.5: `training.average_from` needs `average = "swa"`
        --set training.average_every=3: `training.average_every` needs `average = "swa"`
        2 problems
    "#);
    let wrong = [
        "training.average=polyak",
        "training.average_decay=1",
        "training.average_from=1.5",
        "training.average_every=0",
    ];
    insta::assert_snapshot!(said(&text, &wrong), @r#"
        --set training.average=polyak: `training.average` is "polyak", expected one of `none`, `swa`, `ema`
        --set training.average_decay=1: `training.average_decay` is 1, expected a number from 0 to below 1
        --set training.average_from=1.5: `training.average_from` is 1.5, expected a number from 0 to 1
        --set training.average_every=0: `training.average_every` is 0, expected a whole number from 1 to 4294967295
        4 problems
    "#);
}

#[test]
fn a_line_that_begins_with_its_label_has_no_columns() {
    let text = r#"
[task]
kind = "classification"
path = "trec"
train = "train.txt"
validation = "test.txt"
format = "label_first"
label_separator = ":"
[student]
model = "m"
"#;
    assert_eq!(said(text, &[]), "fine");
    let sets = [
        "task.text=1",
        "task.text_pair=b",
        "task.label='label'",
        "task.header=false",
        "task.label_separator='::'",
    ];
    insta::assert_snapshot!(said(text, &sets), @r#"
        --set task.text=1: `task.text` needs a `format` with columns; in label_first each line is a label, a space and a text
        --set task.text_pair=b: `task.text_pair` needs a `format` with columns; in label_first each line is a label, a space and a text
        --set task.label='label': `task.label` needs a `format` with columns; in label_first each line is a label, a space and a text
        --set task.header=false: `task.header` needs `format = "tsv"` or `"csv"`
        --set task.label_separator='::': `task.label_separator` is "::", expected one character
        5 problems
    "#);
}

#[test]
fn a_separator_would_cut_the_labels_of_a_multi_label_task() {
    let text = r#"
[task]
kind = "multi_label"
path = "d"
train = "train.csv"
validation = "test.csv"
text = "a"
label = "b"
label_separator = ";"
[student]
model = "m"
"#;
    insta::assert_snapshot!(said(text, &[]), @r#"
        recipe.toml:9:1: `task.label_separator` needs one label per example; in a multi_label task it would cut off all but the first
        1 problem
    "#);
}

#[test]
fn a_step_has_as_many_sequences_as_dropout_can_number() {
    assert_eq!(said(GOOD, &["training.batch_size=65536"]), "fine");
    let sets = ["training.batch_size=65537"];
    insta::assert_snapshot!(said(GOOD, &sets), @r#"
        --set training.batch_size=65537: `training.batch_size` gives steps of 65537 sequences, expected at most 65536, as dropout numbers the sequences of a step with 16 bits; lower it and take more steps
        1 problem
    "#);
    let sets = ["training.batch_size=256", "training.gradient_accumulation_steps=257"];
    insta::assert_snapshot!(said(GOOD, &sets), @r#"
        --set training.gradient_accumulation_steps=257: `training.gradient_accumulation_steps` gives steps of 65792 sequences, expected at most 65536, as dropout numbers the sequences of a step with 16 bits; lower it and take more steps
        1 problem
    "#);
}

#[test]
fn an_override_wins_over_the_file() {
    let recipe = parse("recipe.toml", GOOD, &["training.max_steps=9".to_owned()]).unwrap();
    assert_eq!(recipe.training.max_steps.as_ref().map(|at| at.value), Some(9));
    // It decides what `epochs` decided, so that one gives way.
    assert_eq!(recipe.training.epochs, None);
}

#[test]
fn an_override_does_not_change_what_another_key_means() {
    // Without the accumulation, `batch_size` would be the size of a step and no longer of a part.
    let text = GOOD.replace("epochs = 2", "batch_size = 8\ngradient_accumulation_steps = 4");
    insta::assert_snapshot!(said(&text, &["training.micro_batch_size=2"]), @r#"
        --set training.micro_batch_size=2: `training.micro_batch_size` and `training.gradient_accumulation_steps` contradict each other; keep one
        1 problem
    "#);
}

#[test]
fn a_name_with_a_line_break_stays_on_one_line() {
    let text = GOOD.replace("epochs = 2", "\"a\\nb\" = 2");
    insta::assert_snapshot!(said(&text, &["training.seed=\"\n\""]), @r#"
        recipe.toml:16:1: unknown key `training.a\nb`
        --set training.seed="\n": `training.seed` is "\"\n\"", expected a whole number from 0
        2 problems
    "#);
}

#[test]
fn an_override_reaches_into_a_list() {
    let text = format!("{GOOD}\n[[objective.hidden]]\nkind = \"mse\"\n");
    let recipe = parse("r", &text, &["objective.hidden.0.weight=3".to_owned()]).unwrap();
    let hidden = &recipe.objective.hidden.as_ref().unwrap().value[0];
    assert_eq!(hidden.weight(), 3.0);
}

#[test]
fn wrong_overrides_are_told_like_wrong_lines() {
    let sets = [
        "training.seed=x",
        "training.seed",
        "training.epochs=1",
        "training.epochs=2",
        "training.max_steps=3",
        "training.sed=2",
        "task.path.deep=2",
        "=3",
        "objective.hidden=[]",
        "objective.hidden.0.weight=3",
    ];
    insta::assert_snapshot!(said(GOOD, &sets), @r#"
        --set training.seed=x: `training.seed` is "x", expected a whole number from 0
        --set training.seed: expected --set key=value, for example --set training.seed=7
        --set training.epochs=2: `training.epochs` is set twice; keep one --set for it
        --set training.max_steps=3: `training.max_steps` and `training.epochs` contradict each other; keep one
        --set training.sed=2: unknown key `training.sed`; did you mean `seed`?
        --set task.path.deep=2: `task.path` is "data/SST-2", expected a table or a list that has `deep`
        --set =3: expected --set key=value, for example --set training.seed=7
        --set objective.hidden.0.weight=3: `objective.hidden` is [], expected a table or a list that has `0`
        8 problems
    "#);
}

#[test]
fn what_is_not_a_recipe_is_refused_at_once() {
    insta::assert_snapshot!(said("", &[]), @r#"
        recipe.toml: the recipe is empty; a small one is: [task] preset = "sst2", path = "…"; [student] model = "…"
        1 problem
    "#);
    insta::assert_snapshot!(said("# nothing\n", &[]), @r#"
        recipe.toml: the recipe is empty; a small one is: [task] preset = "sst2", path = "…"; [student] model = "…"
        1 problem
    "#);
    insta::assert_snapshot!(said("[task]\npath = \n", &[]), @r#"
        recipe.toml:2:8: not TOML: string values must be quoted, expected literal string
        1 problem
    "#);
    insta::assert_snapshot!(said("[task]\npath = 'a'\npath = 'b'\n", &[]), @r#"
        recipe.toml:3:1: not TOML: duplicate key
        1 problem
    "#);
    insta::assert_snapshot!(said(&"[".repeat(10_000_000), &[]), @r#"
        recipe.toml: the recipe has 10000000 bytes, expected at most 1048576; is this the right file?
        1 problem
    "#);
    insta::assert_snapshot!(said("recipe_version = 2\nfuture = true\n", &[]), @r#"
        recipe.toml:1:1: `recipe_version` is 2, this program reads 1; use a newer heirloom, or write `recipe_version = 1` and see what no longer fits
        1 problem
    "#);
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    let rows = [
        format!("a = {}", "[".repeat(500_000)),
        format!("a = {}", "{a=".repeat(300_000)),
        format!("[{}a]", "a.".repeat(500_000)),
        format!("{}a = 1", "a.".repeat(500_000)),
        format!("a = {}{}", "[".repeat(400_000), "]".repeat(400_000)),
    ];
    for text in rows {
        let said = said(&text, &[]);
        assert!(said.contains("recurs"), "{}", &said[..said.len().min(300)]);
    }
    let deep = format!("a={}", "[".repeat(10_000_000));
    assert!(said(GOOD, &[&deep]).contains("expected --set key=value"));
    let deep = format!("training.seed={}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert!(said(GOOD, &[&deep]).contains("expected a whole number"));
}

#[test]
fn the_longest_recipe_is_answered_within_a_second() {
    // A single line of many values is the worst case for counting columns.
    let text = format!("a = [{}]\nb = {{{}}}", "1, ".repeat(200_000), many_keys(20_000));
    let begin = std::time::Instant::now();
    assert!(said(&text, &[]).contains("unknown key `a`"));
    let text = "[a]\n[[b]]\n".to_owned() + &"[[b.c]]\n".repeat(100_000);
    assert!(said(&text, &[]).contains("unknown key `b`"));
    assert!(begin.elapsed().as_secs_f64() < 5.0, "{:?}", begin.elapsed());
}

fn many_keys(count: usize) -> String {
    (0..count).map(|key| format!("k{key} = 1")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_temperature_needs_classes() {
    let sets = ["task.preset=\"stsb\"", "objective.temperature=3"];
    insta::assert_snapshot!(said(GOOD, &sets), @r#"
        --set objective.temperature=3: `objective.temperature` needs `task.kind = "classification"`; the outputs of other tasks are compared as they are
        1 problem
    "#);
}

#[test]
fn a_divergence_needs_a_teacher_and_classes() {
    let sets = [
        "objective.divergence=\"dkd\"",
        "objective.divergence_alpha=1",
        "objective.divergence_beta=2",
        "objective.divergence_centred=true",
    ];
    let alone = GOOD.replace("[teacher]\nmodel = \"models/large\"\n", "").replace("0.7", "0");
    insta::assert_snapshot!(said(&alone, &sets), @r#"
        --set objective.divergence="dkd": `objective.divergence` needs a `[teacher]`; without one it changes nothing
        --set objective.divergence_alpha=1: `objective.divergence_alpha` needs a `[teacher]`; without one it changes nothing
        --set objective.divergence_beta=2: `objective.divergence_beta` needs a `[teacher]`; without one it changes nothing
        --set objective.divergence_centred=true: `objective.divergence_centred` needs a `[teacher]`; without one it changes nothing
        4 problems
    "#);
    let numbers = [&["task.preset=\"stsb\""][..], &sets[..2]].concat();
    insta::assert_snapshot!(said(GOOD, &numbers), @r#"
        --set objective.divergence="dkd": `objective.divergence` needs `task.kind = "classification"`; the outputs of other tasks are compared as they are
        --set objective.divergence_alpha=1: `objective.divergence_alpha` needs `task.kind = "classification"`; the outputs of other tasks are compared as they are
        2 problems
    "#);
}

#[test]
fn a_parameter_that_its_divergence_does_not_have_is_refused() {
    // Each key: with which divergences it is fine, and what is said with all others.
    let mut found = String::new();
    for key in [
        "divergence_alpha=0.3",
        "divergence_beta=0.3",
        "divergence_centred=false",
        "temperature=3",
        "scale_by_temperature_squared=false",
    ] {
        let set = format!("objective.{key}");
        let (mut fine, mut refused) = (Vec::new(), std::collections::BTreeSet::new());
        for kind in heirloom_recipe::DivergenceKind::ALL {
            let said = said(GOOD, &[&format!("objective.divergence={kind}"), &set]);
            match said.lines().next() {
                Some("fine") => fine.push(kind.name()),
                first => _ = refused.insert(first.unwrap_or_default().to_owned()),
            }
        }
        let refused: Vec<String> = refused.into_iter().collect();
        found += &format!("{}\n{}\n", fine.join(", "), refused.join("\n"));
    }
    insta::assert_snapshot!(found, @r#"
    skew_kl, skew_reverse_kl, alpha_beta, dkd
    --set objective.divergence_alpha=0.3: `objective.divergence_alpha` needs `divergence = "skew_kl"`, `"skew_reverse_kl"`, `"alpha_beta"` or `"dkd"`
    jensen_shannon, alpha_beta, dkd
    --set objective.divergence_beta=0.3: `objective.divergence_beta` needs `divergence = "jensen_shannon"`, `"alpha_beta"` or `"dkd"`
    mse_logits
    --set objective.divergence_centred=false: `objective.divergence_centred` needs `divergence = "mse_logits"`
    forward_kl, reverse_kl, symmetric_kl, jensen_shannon, skew_kl, skew_reverse_kl, alpha_beta, total_variation, dkd
    --set objective.temperature=3: `objective.temperature` needs another `divergence`; mse_logits compares logits as they are
    forward_kl, reverse_kl, symmetric_kl, jensen_shannon, skew_kl, skew_reverse_kl, alpha_beta, total_variation, dkd
    --set objective.scale_by_temperature_squared=f…: `objective.scale_by_temperature_squared` needs another `divergence`; mse_logits compares logits as they are
    "#);
}

#[test]
fn a_parameter_of_a_divergence_has_a_range() {
    let refused = |kind: &str, parameter: &str| {
        let said = said(GOOD, &[&format!("objective.divergence={kind}"), parameter]);
        said.lines().next().unwrap().to_owned()
    };
    insta::assert_snapshot!(refused("skew_kl", "objective.divergence_alpha=1"), @r#"--set objective.divergence_alpha=1: `objective.divergence_alpha` is 1, expected a number from 0 to below 1 for skew_kl"#);
    insta::assert_snapshot!(refused("skew_reverse_kl", "objective.divergence_alpha=1.5"), @r#"--set objective.divergence_alpha=1.5: `objective.divergence_alpha` is 1.5, expected a number from 0 to below 1 for skew_reverse_kl"#);
    insta::assert_snapshot!(refused("alpha_beta", "objective.divergence_alpha=-0.5"), @r#"--set objective.divergence_alpha=-0.5: `objective.divergence_alpha` is -0.5, expected a number from 0"#);
    insta::assert_snapshot!(refused("jensen_shannon", "objective.divergence_beta=0"), @r#"--set objective.divergence_beta=0: `objective.divergence_beta` is 0, expected a number above 0 and below 1 for jensen_shannon, whose ends are forward_kl and reverse_kl"#);
    insta::assert_snapshot!(refused("jensen_shannon", "objective.divergence_beta=1"), @r#"--set objective.divergence_beta=1: `objective.divergence_beta` is 1, expected a number above 0 and below 1 for jensen_shannon, whose ends are forward_kl and reverse_kl"#);
    insta::assert_snapshot!(refused("dkd", "objective.divergence_beta=inf"), @r#"--set objective.divergence_beta=inf: `objective.divergence_beta` is inf, expected a number from 0"#);
    insta::assert_snapshot!(refused("reverse", "objective.alpha=0.5"), @r#"--set objective.divergence=reverse: `objective.divergence` is "reverse", expected one of `forward_kl`, `reverse_kl`, `symmetric_kl`, `jensen_shannon`, `skew_kl`, `skew_reverse_kl`, `alpha_beta`, `total_variation`, `dkd`, `mse_logits`; did you mean `reverse_kl`?"#);
    assert_eq!(refused("skew_kl", "objective.divergence_alpha=0"), "fine");
    assert_eq!(refused("alpha_beta", "objective.divergence_alpha=1.5"), "fine");
}

/// The good recipe without a share, which most policies decide.
fn shareless() -> String {
    GOOD.replace("alpha = 0.7\n", "")
}

/// What `policy` must have beside it.
fn with(policy: &str) -> Vec<String> {
    let mut sets = vec![format!("objective.balance.policy={policy}")];
    if matches!(policy, "annealing_kd" | "continuation_kd") {
        sets.push("objective.divergence=mse_logits".to_owned());
        sets.push("objective.divergence_centred=false".to_owned());
    }
    if policy == "own" {
        sets.push("objective.balance.called=mine".to_owned());
    }
    sets
}

#[test]
fn every_policy_is_fine_by_itself() {
    for policy in heirloom_recipe::PolicyKind::ALL {
        let sets = with(policy.name());
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        assert_eq!(said(&shareless(), &sets), "fine", "{policy}");
    }
}

#[test]
fn a_policy_needs_a_teacher_one_label_and_a_name() {
    let alone = shareless().replace("[teacher]\nmodel = \"models/large\"\n", "");
    insta::assert_snapshot!(said(&alone, &["objective.balance.policy=wsl"]), @r#"
        --set objective.balance.policy=wsl: `objective.balance` needs a `[teacher]`, whom it weighs against the labels
        1 problem
    "#);
    let sets = ["task.preset=\"stsb\"", "objective.balance.policy=wsl"];
    insta::assert_snapshot!(said(&shareless(), &sets), @r#"
        --set objective.balance.policy=wsl: `objective.balance` needs `task.kind = "classification"`, as policies weigh one label against one distribution
        1 problem
    "#);
    let text = format!("{}\n[objective.balance]\nema = 0.5\n", shareless());
    insta::assert_snapshot!(said(&text, &[]), @r#"
        recipe.toml:18:1: `objective.balance.policy` is missing: how label and teacher are weighed, such as "rw_kd"; or remove [objective.balance]
        1 problem
    "#);
    let sets = ["objective.balance.policy=rwkd", "objective.balance.emma=0.5"];
    insta::assert_snapshot!(said(&shareless(), &sets), @r#"
        --set objective.balance.policy=rwkd: `objective.balance.policy` is "rwkd", expected one of `fixed`, `schedule`, `annealing_kd`, `continuation_kd`, `uncertainty`, `grad_norm`, `wsl`, `ada_kd`, `dynamic_kd`, `ctkd`, `rw_kd`, `l2rw`, `meta_weight_net`, `tgeo_kd`, `own`; did you mean `rw_kd`?
        --set objective.balance.emma=0.5: unknown key `objective.balance.emma`; did you mean `ema`?
        2 problems
    "#);
}

#[test]
fn a_parameter_that_its_policy_does_not_have_is_refused() {
    // Each key: with which policies it is fine, and what is said with all others.
    let mut found = String::new();
    for key in [
        "objective.alpha=0.7",
        "objective.balance.from=0.9",
        "objective.balance.to=0.1",
        "objective.balance.course=linear",
        "objective.balance.phase_one=0.5",
        "objective.balance.levels=4",
        "objective.balance.margin=2",
        "objective.balance.learning_rate=0.1",
        "objective.balance.bound=3",
        "objective.balance.asymmetry=1",
        "objective.balance.weight=2",
        "objective.balance.temperature=2",
        "objective.balance.adoption=sample",
        "objective.balance.range=[1, 4]",
        "objective.balance.ramp=0.2",
        "objective.balance.normalize=batch",
        "objective.balance.floor=0",
        "objective.balance.bounds=[0.1, 0.9]",
        "objective.balance.ema=0.5",
        "objective.balance.sight=losses",
        "objective.balance.output=share",
        "objective.balance.weight_decay=0",
        "objective.balance.meta.every=4",
    ] {
        let (mut fine, mut refused) = (Vec::new(), std::collections::BTreeSet::new());
        for policy in heirloom_recipe::PolicyKind::ALL {
            let mut sets = with(policy.name());
            sets.push(key.to_owned());
            let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
            match said(&shareless(), &sets).lines().next() {
                Some("fine") => fine.push(policy.name()),
                // Who decides the share is named, so these differ.
                Some(first) if key.contains("alpha") => {
                    let end = format!("; {policy} decides it");
                    assert!(first.ends_with(&end), "{first}");
                    refused.insert(first.trim_end_matches(&end).to_owned());
                }
                first => _ = refused.insert(first.unwrap_or_default().to_owned()),
            }
        }
        let refused: Vec<String> = refused.into_iter().collect();
        found += &format!("{}\n{}\n", fine.join(", "), refused.join("\n"));
    }
    insta::assert_snapshot!(found, @r#"
        fixed, dynamic_kd, ctkd, rw_kd, l2rw
        --set objective.alpha=0.7: `objective.alpha` needs a policy that keeps a share or begins with one
        schedule
        --set objective.balance.from=0.9: `objective.balance.from` needs `policy = "schedule"`
        schedule
        --set objective.balance.to=0.1: `objective.balance.to` needs `policy = "schedule"`
        schedule
        --set objective.balance.course=linear: `objective.balance.course` needs `policy = "schedule"`
        annealing_kd
        --set objective.balance.phase_one=0.5: `objective.balance.phase_one` needs `policy = "annealing_kd"`
        annealing_kd, continuation_kd
        --set objective.balance.levels=4: `objective.balance.levels` needs `policy = "annealing_kd"` or `"continuation_kd"`
        continuation_kd
        --set objective.balance.margin=2: `objective.balance.margin` needs `policy = "continuation_kd"`
        uncertainty, grad_norm, ctkd, meta_weight_net, tgeo_kd
        --set objective.balance.learning_rate=0.1: `objective.balance.learning_rate` needs `policy = "uncertainty"`, `"grad_norm"`, `"ctkd"`, `"meta_weight_net"` or `"tgeo_kd"`
        uncertainty
        --set objective.balance.bound=3: `objective.balance.bound` needs `policy = "uncertainty"`
        grad_norm
        --set objective.balance.asymmetry=1: `objective.balance.asymmetry` needs `policy = "grad_norm"`
        wsl
        --set objective.balance.weight=2: `objective.balance.weight` needs `policy = "wsl"`
        ada_kd
        --set objective.balance.temperature=2: `objective.balance.temperature` needs `policy = "ada_kd"`
        dynamic_kd
        --set objective.balance.adoption=sample: `objective.balance.adoption` needs `policy = "dynamic_kd"`
        ctkd
        --set objective.balance.range=[1, 4]: `objective.balance.range` needs `policy = "ctkd"`
        ctkd
        --set objective.balance.ramp=0.2: `objective.balance.ramp` needs `policy = "ctkd"`
        rw_kd
        --set objective.balance.normalize=batch: `objective.balance.normalize` needs `policy = "rw_kd"`
        rw_kd
        --set objective.balance.floor=0: `objective.balance.floor` needs `policy = "rw_kd"`
        rw_kd
        --set objective.balance.bounds=[0.1, 0.9]: `objective.balance.bounds` needs `policy = "rw_kd"`
        rw_kd, l2rw
        --set objective.balance.ema=0.5: `objective.balance.ema` needs `policy = "rw_kd"` or `"l2rw"`
        meta_weight_net
        --set objective.balance.sight=losses: `objective.balance.sight` needs `policy = "meta_weight_net"`
        meta_weight_net
        --set objective.balance.output=share: `objective.balance.output` needs `policy = "meta_weight_net"`
        meta_weight_net, tgeo_kd
        --set objective.balance.weight_decay=0: `objective.balance.weight_decay` needs `policy = "meta_weight_net"` or `"tgeo_kd"`
        rw_kd, l2rw, meta_weight_net, tgeo_kd, own
        --set objective.balance.meta.every=4: `objective.balance.meta` needs `policy = "rw_kd"`, `"l2rw"`, `"meta_weight_net"`, `"tgeo_kd"` or `"own"`
    "#);
}

#[test]
fn what_a_program_brings_has_a_name_and_nothing_else() {
    insta::assert_snapshot!(said(&shareless(), &["objective.balance.policy=own"]), @r#"
        --set objective.balance.policy=own: `objective.balance.called` is missing: the name that the program gives its policy, such as "doubt"
        1 problem
    "#);
    let sets = ["objective.balance.policy=wsl", "objective.balance.called=doubt"];
    insta::assert_snapshot!(said(&shareless(), &sets), @r#"
        --set objective.balance.called=doubt: `objective.balance.called` needs `policy = "own"`
        1 problem
    "#);
    insta::assert_snapshot!(said(&shareless(), &["objective.regularizer.method=own"]), @r#"
        --set objective.regularizer.method=own: `objective.regularizer.called` is missing: the name that the program gives its regularizer, such as "nearby"
        1 problem
    "#);
    // One second set for a run, also where both are a program's own.
    let sets = [
        "objective.balance={ policy = \"own\", called = \"a\", meta = { split = 0.1 } }",
        "objective.regularizer={ method = \"own\", called = \"b\", meta = { split = 0.1 } }",
    ];
    assert!(said(&shareless(), &sets).contains("as a run has one such set"));
    assert_eq!(said(&shareless(), &sets[..1]), "fine");
}

#[test]
fn a_parameter_that_another_key_leaves_without_effect_is_refused() {
    let refused = |policy: &str, keys: &[&str]| {
        let mut sets = with(policy);
        sets.extend(keys.iter().map(|key| format!("objective.balance.{key}")));
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        said(&shareless(), &sets)
    };
    assert_eq!(refused("schedule", &["course=step", "at=0.3"]), "fine");
    assert_eq!(refused("dynamic_kd", &["adoption=select", "share=0.3", "doubt=margin"]), "fine");
    assert_eq!(refused("rw_kd", &["bounds=[0.2, 0.2]"]), "fine");
    insta::assert_snapshot!(refused("schedule", &["at=0.3"]), @r#"
        --set objective.balance.at=0.3: `objective.balance.at` needs `course = "step"`
        1 problem
    "#);
    insta::assert_snapshot!(refused("dynamic_kd", &["share=0.3", "doubt=margin"]), @r#"
        --set objective.balance.share=0.3: `objective.balance.share` needs `adoption = "select"`
        --set objective.balance.doubt=margin: `objective.balance.doubt` needs `adoption = "select"`
        2 problems
    "#);
    insta::assert_snapshot!(refused("rw_kd", &["normalize=batch", "bounds=[0.1, 0.9]"]), @r#"
        --set objective.balance.bounds=[0.1, 0.9]: `objective.balance.bounds` needs `normalize = "terms"`, as shares are what it bounds
        1 problem
    "#);
}

#[test]
fn a_parameter_of_a_policy_has_a_range() {
    let sets = [
        "from=1.5",
        "phase_one=-0.1",
        "levels=0",
        "margin=-1",
        "learning_rate=0",
        "bound=0",
        "asymmetry=-1",
        "weight=-1",
        "temperature=0",
        "share=2",
        "range=[1, 0]",
        "ramp=2",
        "floor=-1",
        "bounds=[0.9, 0.1]",
        "ema=1",
        "weight_decay=-1",
        "meta.split=1",
        "meta.batch_size=0",
        "meta.every=0",
        "meta.radius=0",
        "meta.loss=both",
    ];
    let sets = sets.map(|set| format!("objective.balance.{set}"));
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    insta::assert_snapshot!(said(&shareless(), &sets), @r#"
        --set objective.balance.from=1.5: `objective.balance.from` is 1.5, expected a number from 0 to 1
        --set objective.balance.from=1.5: `objective.balance.policy` is missing: how label and teacher are weighed, such as "rw_kd"; or remove [objective.balance]
        --set objective.balance.phase_one=-0.1: `objective.balance.phase_one` is -0.1, expected a number from 0 to 1
        --set objective.balance.levels=0: `objective.balance.levels` is 0, expected a whole number from 1 to 4294967295
        --set objective.balance.margin=-1: `objective.balance.margin` is -1, expected a number from 0
        --set objective.balance.learning_rate=0: `objective.balance.learning_rate` is 0, expected a number above 0
        --set objective.balance.bound=0: `objective.balance.bound` is 0, expected a number above 0
        --set objective.balance.asymmetry=-1: `objective.balance.asymmetry` is -1, expected a number from 0
        --set objective.balance.weight=-1: `objective.balance.weight` is -1, expected a number from 0
        --set objective.balance.temperature=0: `objective.balance.temperature` is 0, expected a number above 0
        --set objective.balance.share=2: `objective.balance.share` is 2, expected a number above 0 and at most 1
        --set objective.balance.range=[1, 0]: `objective.balance.range` is [1, 0], expected a list of two numbers above 0
        --set objective.balance.ramp=2: `objective.balance.ramp` is 2, expected a number from 0 to 1
        --set objective.balance.floor=-1: `objective.balance.floor` is -1, expected a number from 0
        --set objective.balance.bounds=[0.9, 0.1]: `objective.balance.bounds` is [0.9, 0.1], expected a list of two numbers from 0 to 1, the lower first
        --set objective.balance.ema=1: `objective.balance.ema` is 1, expected a number from 0 to below 1
        --set objective.balance.weight_decay=-1: `objective.balance.weight_decay` is -1, expected a number from 0
        --set objective.balance.meta.split=1: `objective.balance.meta.split` is 1, expected a number above 0 and below 1
        --set objective.balance.meta.batch_size=0: `objective.balance.meta.batch_size` is 0, expected a whole number from 1 to 4294967295
        --set objective.balance.meta.every=0: `objective.balance.meta.every` is 0, expected a whole number from 1 to 4294967295
        --set objective.balance.meta.radius=0: `objective.balance.meta.radius` is 0, expected a number above 0
        --set objective.balance.meta.loss=both: `objective.balance.meta.loss` is "both", expected one of `mix`, `hard`, `soft`
        22 problems
    "#);
}

#[test]
fn policies_that_change_the_teachers_logits_need_a_divergence_that_bears_it() {
    let said = |sets: &[&str]| said(&shareless(), sets);
    insta::assert_snapshot!(said(&["objective.balance.policy=annealing_kd"]), @r#"
        --set objective.balance.policy=annealing_kd: `objective.balance.policy` needs `objective.divergence = "mse_logits"` for annealing_kd, whose teacher grows by a factor on its logits
        1 problem
    "#);
    insta::assert_snapshot!(said(&["objective.balance.policy=continuation_kd"]), @r#"
        --set objective.balance.policy=continuation_kd: `objective.balance.policy` needs `objective.divergence = "mse_logits"` for continuation_kd, whose teacher grows by a factor on its logits
        1 problem
    "#);
    let logits = "objective.divergence=mse_logits";
    assert_eq!(said(&["objective.balance.policy=annealing_kd", logits]), "fine");
    insta::assert_snapshot!(said(&["objective.balance.policy=continuation_kd", logits]), @r#"
        --set objective.balance.policy=continuation_kd: `objective.balance.policy` needs `objective.divergence_centred = false` for continuation_kd, whose margin is around the logits as they are
        1 problem
    "#);
    insta::assert_snapshot!(said(&["objective.balance.policy=ctkd", logits]), @r#"
        --set objective.balance.policy=ctkd: `objective.balance.policy` needs `objective.divergence = "forward_kl"` for ctkd, whose temperature climbs that divergence, times T²
        1 problem
    "#);
    let sets = [
        "objective.balance.policy=ctkd",
        "objective.temperature=4",
        "objective.scale_by_temperature_squared=false",
    ];
    insta::assert_snapshot!(said(&sets), @r#"
        --set objective.balance.policy=ctkd: `objective.balance.policy` needs `objective.scale_by_temperature_squared = true` for ctkd, whose temperature climbs that divergence, times T²
        --set objective.temperature=4: `objective.temperature` needs another policy; ctkd decides it, within `objective.balance.range`
        2 problems
    "#);
}

#[test]
fn a_policy_that_looks_at_a_whole_step_needs_it_in_one_piece() {
    let policy = ["objective.balance.policy=dynamic_kd", "objective.balance.adoption=batch"];
    let said = |sets: &[&str]| said(&shareless(), &[&policy[..], sets].concat());
    for sets in [
        &[][..],
        &["training.batch_size=64"],
        &["training.batch_size=100", "training.micro_batch_size=100"],
        &["training.batch_tokens=4096"],
        &["training.batch_size=64", "training.gradient_accumulation_steps=1"],
    ] {
        assert_eq!(said(sets), "fine", "{sets:?}");
    }
    insta::assert_snapshot!(said(&["training.batch_size=65"]), @r#"
        --set objective.balance.adoption=batch: `objective.balance.adoption` needs steps of one micro-batch, as "batch" looks at a whole step at once; raise `training.micro_batch_tokens`, or lower the batch
        1 problem
    "#);
    for sets in [
        &["training.micro_batch_size=31"][..],
        &["training.batch_tokens=8193"],
        &["training.batch_tokens=4096", "training.micro_batch_size=4096"],
        &["training.gradient_accumulation_steps=2"],
    ] {
        assert!(said(sets).contains("needs steps of one micro-batch"), "{sets:?}");
    }
    let alone = ["objective.balance.policy=dynamic_kd", "training.batch_size=65"];
    assert_eq!(crate::said(&shareless(), &alone), "fine");
}

#[test]
fn a_second_set_says_where_it_comes_from_once() {
    let said = |keys: &[&str]| {
        let mut sets = with("rw_kd");
        sets.extend(keys.iter().map(|key| format!("objective.balance.meta.{key}")));
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        said(&shareless(), &sets)
    };
    assert_eq!(said(&["source=file", "path=second.tsv"]), "fine");
    assert_eq!(said(&["source=train", "every=4", "warmup_steps=10", "loss=hard"]), "fine");
    assert_eq!(said(&["preconditioner=adam", "radius=0.1"]), "fine");
    insta::assert_snapshot!(said(&["source=train", "split=0.2", "path=a.tsv"]), @r#"
        --set objective.balance.meta.split=0.2: `objective.balance.meta.split` needs `source = "split"`
        --set objective.balance.meta.path=a.tsv: `objective.balance.meta.path` needs `source = "file"`
        2 problems
    "#);
    insta::assert_snapshot!(said(&["source=file"]), @r#"
        --set objective.balance.meta.source=file: `objective.balance.meta.path` is missing: the file with the second set, in `task.path`
        1 problem
    "#);
    insta::assert_snapshot!(said(&["source=file", "path=dev.tsv"]), @r#"
        --set objective.balance.meta.path=dev.tsv: `objective.balance.meta.path` needs a file that models are not compared on, as the second set decides what the student learns
        1 problem
    "#);
    insta::assert_snapshot!(said(&["source=file", "path=train.tsv", "batch_size=65537"]), @r#"
        --set objective.balance.meta.path=train.tsv: `objective.balance.meta.path` needs another file than `task.train`, or `source = "train"`
        --set objective.balance.meta.batch_size=65537: `objective.balance.meta.batch_size` is 65537, expected at most 65536
        2 problems
    "#);
    let sets = ["estimator=last_layer", "radius=0.1", "preconditioner=adam"];
    insta::assert_snapshot!(said(&sets), @r#"
        --set objective.balance.meta.radius=0.1: `objective.balance.meta.radius` needs `estimator = "finite_difference"`
        --set objective.balance.meta.preconditioner=ad…: `objective.balance.meta.preconditioner` needs `estimator = "finite_difference"`
        2 problems
    "#);
}

#[test]
fn the_last_layers_closed_form_is_that_of_the_forward_divergence() {
    let sets = ["objective.balance.policy=l2rw", "objective.balance.meta.estimator=last_layer"];
    let said = |set: &str| said(&shareless(), &[sets[0], sets[1], set]);
    assert_eq!(said("objective.temperature=4"), "fine");
    insta::assert_snapshot!(said("objective.divergence=reverse_kl"), @r#"
        --set objective.balance.meta.estimator=last_la…: `objective.balance.meta.estimator` needs `objective.divergence = "forward_kl"` for last_layer, whose closed form is that divergence's, times T²
        1 problem
    "#);
    insta::assert_snapshot!(said("objective.scale_by_temperature_squared=false"), @r#"
        --set objective.balance.meta.estimator=last_la…: `objective.balance.meta.estimator` needs `objective.scale_by_temperature_squared = true` for last_layer, whose closed form is that divergence's, times T²
        1 problem
    "#);
}

#[test]
fn label_noise_is_a_share_of_single_labels() {
    let three = ["task.label_noise=1.5", "task.label_noise_kind=sym", "task.label_noise_seed=-1"];
    insta::assert_snapshot!(said(GOOD, &three), @r#"
        --set task.label_noise=1.5: `task.label_noise` is 1.5, expected a number from 0 to 1
        --set task.label_noise_kind=sym: `task.label_noise_kind` is "sym", expected one of `symmetric`, `asymmetric`; did you mean `symmetric`?
        --set task.label_noise_seed=-1: `task.label_noise_seed` is -1, expected a whole number from 0
        3 problems
    "#);
    let alone = ["task.label_noise_kind=asymmetric", "task.label_noise_seed=2"];
    insta::assert_snapshot!(said(GOOD, &alone), @r#"
        --set task.label_noise_kind=asymmetric: `task.label_noise_kind` needs `task.label_noise`, the share of labels to make wrong
        --set task.label_noise_seed=2: `task.label_noise_seed` needs `task.label_noise`, the share of labels to make wrong
        2 problems
    "#);
    let regression = GOOD.replace("sst2", "stsb");
    insta::assert_snapshot!(said(&regression, &["task.label_noise=0.2"]), @r#"
        --set task.label_noise=0.2: `task.label_noise` needs `kind = "classification"`, one label of several
        1 problem
    "#);
    assert_eq!(said(&regression, &["task.label_noise=0"]), "fine");
    assert_eq!(said(GOOD, &["task.label_noise=0", alone[0]]), "fine");
}

/// Two teachers in place of the one.
fn two_teachers() -> String {
    let two = "[[teacher]]\nmodel = \"models/large\"\n\n[[teacher]]\nmodel = \"models/other\"\n";
    GOOD.replace("[teacher]\nmodel = \"models/large\"\n", two)
}

#[test]
fn several_teachers_are_a_list_whose_problems_name_the_one() {
    assert_eq!(said(&two_teachers(), &[]), "fine");
    assert_eq!(said(&two_teachers(), &["teacher.0.weight=3", "teacher.1.tokenizer=own"]), "fine");
    insta::assert_snapshot!(said(&two_teachers(), &["teacher.1.weight=0", "teacher.0.modle=x"]), @r#"
    --set teacher.1.weight=0: `teacher.1.weight` is 0, expected a number above 0
    --set teacher.0.modle=x: unknown key `teacher.0.modle`; did you mean `model`?
    2 problems
    "#);
    insta::assert_snapshot!(said(&two_teachers().replace("model = \"models/other\"", ""), &[]), @r#"
        recipe.toml:12:1: `teacher.1.model` is missing: the folder of a model fine-tuned on the task, or in its place `answers`, a file of them; or remove [teacher]
        1 problem
    "#);
    insta::assert_snapshot!(said(&two_teachers(), &["teacher.1.logits=live"]), @r#"
    --set teacher.1.logits=live: `teacher.1.logits` needs the same of every teacher: all are asked beforehand, or all at every step
    1 problem
    "#);
    insta::assert_snapshot!(said(&two_teachers(), &["objective.hidden=[{kind='mse'}]"]), @r#"
    --set objective.hidden=[{kind='mse'}]: `objective.hidden` needs one `[teacher]`, into which it looks
    1 problem
    "#);
    let copy = two_teachers().replace("model = \"models/small\"", "from_teacher = true");
    insta::assert_snapshot!(said(&copy, &[]), @r#"
    recipe.toml:7:1: `student.from_teacher` needs one `[teacher]`; of several, name the folder to start from in `student.model`
    1 problem
    "#);
    insta::assert_snapshot!(said(GOOD, &["teacher.weight=2"]), @r#"
    --set teacher.weight=2: `teacher.weight` needs several teachers, each under `[[teacher]]`; the weight of one against the labels is `objective.alpha`
    1 problem
    "#);
    insta::assert_snapshot!(said(GOOD, &["teacher.tokenizer=own", "teacher.logits=live"]), @r#"
    --set teacher.tokenizer=own: `teacher.tokenizer` needs `logits = "cache"` and no `[[objective.hidden]]`; a teacher that answers at every step reads the student's tokens
    1 problem
    "#);
    insta::assert_snapshot!(said(GOOD, &["teacher=3"]), @r#"
    recipe.toml:13:1: `objective.alpha` needs a `[teacher]`; without one it is 0
    --set teacher=3: `teacher` is 3, expected a table, or a list of tables
    2 problems
    "#);
    insta::assert_snapshot!(said(GOOD, &["teacher=[]"]), @r#"
    recipe.toml:13:1: `objective.alpha` needs a `[teacher]`; without one it is 0
    --set teacher=[]: `teacher` is [], expected a table, or a list of tables
    2 problems
    "#);
}

#[test]
fn policies_of_one_teacher_refuse_several_and_say_which_do_not() {
    let text = two_teachers().replace("alpha = 0.7", "");
    for policy in ["fixed", "schedule", "uncertainty", "grad_norm", "rw_kd"] {
        assert_eq!(said(&text, &[&format!("objective.balance.policy={policy}")]), "fine");
    }
    for policy in ["wsl", "ada_kd", "dynamic_kd", "ctkd", "l2rw", "meta_weight_net", "tgeo_kd"] {
        let said = said(&text, &[&format!("objective.balance.policy={policy}")]);
        assert!(said.contains(&format!("needs one `[teacher]` for {policy}; several")), "{said}");
    }
    insta::assert_snapshot!(said(&text, &["objective.balance.policy=wsl"]), @r#"
    --set objective.balance.policy=wsl: `objective.balance.policy` needs one `[teacher]` for wsl; several can be weighed by `"fixed"`, `"schedule"`, `"uncertainty"`, `"grad_norm"`, `"rw_kd"` or `"own"`
    1 problem
    "#);
    insta::assert_snapshot!(said(&text, &["objective.balance.policy=uncertainty", "teacher.1.weight=2"]), @r#"
    --set teacher.1.weight=2: `teacher.1.weight` needs a policy that keeps it or begins with it; uncertainty decides it
    1 problem
    "#);
}

#[test]
fn looking_ahead_and_checking_need_differences_and_a_pace_needs_a_network() {
    let said = |policy: &str, keys: &[&str]| {
        let mut sets = vec![format!("objective.balance.policy={policy}")];
        sets.extend(keys.iter().map(|key| key.replace("meta.", "objective.balance.meta.")));
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        said(&shareless(), &sets)
    };
    let network = ["meta.at=ahead", "meta.check=true", "meta.lr_scheduler_type=cosine"];
    assert_eq!(said("tgeo_kd", &network), "fine");
    assert_eq!(said("meta_weight_net", &["meta.max_grad_norm=1"]), "fine");
    assert_eq!(said("rw_kd", &network[..2]), "fine");
    let last = ["meta.estimator=last_layer", network[0], network[1]];
    insta::assert_snapshot!(said("rw_kd", &last), @r#"
    --set objective.balance.meta.at=ahead: `objective.balance.meta.at` needs `estimator = "finite_difference"`
    --set objective.balance.meta.check=true: `objective.balance.meta.check` needs `estimator = "finite_difference"`
    2 problems
    "#);
    insta::assert_snapshot!(said("l2rw", &[network[2], "meta.max_grad_norm=1"]), @r#"
    --set objective.balance.meta.lr_scheduler_type…: `objective.balance.meta.lr_scheduler_type` needs `policy = "meta_weight_net"` or `"tgeo_kd"`, whose network it is for
    --set objective.balance.meta.max_grad_norm=1: `objective.balance.meta.max_grad_norm` needs `policy = "meta_weight_net"` or `"tgeo_kd"`, whose network it is for
    2 problems
    "#);
    insta::assert_snapshot!(said("tgeo_kd", &[network[0], "objective.hidden=[{kind='mse'}]"]), @r#"
    --set objective.balance.meta.at=ahead: `objective.balance.meta.at` needs no `[[objective.hidden]]`; the step it looks ahead to is label's and teacher's
    1 problem
    "#);
    insta::assert_snapshot!(said("tgeo_kd", &["meta.at=theta", "meta.max_grad_norm=-1"]), @r#"
    --set objective.balance.meta.at=theta: `objective.balance.meta.at` is "theta", expected one of `here`, `ahead`
    --set objective.balance.meta.max_grad_norm=-1: `objective.balance.meta.max_grad_norm` is -1, expected a number from 0
    2 problems
    "#);
}

#[test]
fn groups_of_parameters_and_what_a_growth_leaves_are_checked() {
    let text = format!(
        "{GOOD}[[training.group]]\nlearning_rate_factor = 0\nfrozen_steps = 3\nfrozen = true\n\
         [[training.group]]\nmatch = [\"a.*\", \"\"]\nfroze = true\n"
    );
    insta::assert_snapshot!(said(&text, &["student.layers=[0]", "student.moments=true"]), @r#"
        recipe.toml:18:1: `training.group.0.match` is missing: the parameters' names, with `*` for any text
        recipe.toml:19:24: `training.group.0.learning_rate_factor` is 0, expected a number above 0
        recipe.toml:20:1: `training.group.0.frozen_steps` needs no `frozen = true`, which holds for ever
        recipe.toml:23:9: `training.group.1.match` is ["a.*", ""], expected a parameter's name, or a list of them; `*` stands for any text
        recipe.toml:24:1: unknown key `training.group.1.froze`; did you mean `frozen`?
        --set student.moments=true: `student.moments` needs all layers of the model; remove `student.layers`
        6 problems
    "#);
    let fresh = GOOD.replace("model = \"models/small\"", "from_teacher = true\nrates = true");
    insta::assert_snapshot!(said(&fresh, &[]), @r"
        recipe.toml:8:1: `student.rates` needs `student.model`, a folder that `heirloom grow` wrote
        1 problem
    ");
}

#[test]
fn texts_without_labels_need_somebody_who_answers() {
    let sets = ["task.unlabelled=more.tsv", "task.unlabelled_limit=10"];
    assert_eq!(said(GOOD, &sets), "fine");
    let needed = [
        said(GOOD, &sets[1..]),
        said(GOOD, &[sets[0], "objective.alpha=0"]),
        said(&GOOD.replace("sst2", "stsb"), &sets),
    ];
    insta::assert_snapshot!(needed.join("\n"), @r#"
        --set task.unlabelled_limit=10: `task.unlabelled_limit` needs `task.unlabelled`, the file whose texts it limits
        1 problem
        --set task.unlabelled=more.tsv: `task.unlabelled` needs a `[teacher]` and an `objective.alpha` above 0; its answers are all that such texts teach
        1 problem
        --set task.unlabelled=more.tsv: `task.unlabelled` needs `kind = "classification"`, one label of several
        1 problem
    "#);
    let alone = GOOD.replace("[teacher]\nmodel = \"models/large\"\n", "");
    insta::assert_snapshot!(said(&alone, &[sets[0]]), @r#"
        recipe.toml:11:1: `objective.alpha` needs a `[teacher]`; without one it is 0
        --set task.unlabelled=more.tsv: `task.unlabelled` needs a `[teacher]` and an `objective.alpha` above 0; its answers are all that such texts teach
        2 problems
    "#);
}

#[test]
fn texts_without_labels_alone_need_names_of_the_classes() {
    let own = GOOD.replace(
        "preset = \"sst2\"\n",
        "kind = \"classification\"\nunlabelled = \"more.tsv\"\nvalidation = \"dev.tsv\"\ntext = 0\n\
         label = 1\nheader = false\n",
    );
    let labels = "task.labels=['no', 'yes']";
    assert_eq!(said(&own.replace("alpha = 0.7\n", ""), &[labels]), "fine");
    assert_eq!(said(&own, &[labels, "objective.alpha=1"]), "fine");
    assert_eq!(said(&own, &[labels, "task.train=train.tsv"]), "fine");
    let sets =
        ["task.validation_split=0.1", "task.label_noise=0.2", "objective.balance.policy=wsl"];
    insta::assert_snapshot!(said(&own, &sets), @r#"
        recipe.toml:2:2: `task.labels` is missing: names of the classes, in the order of outputs: without `task.train` there is no label to find them by
        recipe.toml:18:1: `objective.alpha` needs `task.train`, a file with labels
        recipe.toml:18:1: `objective.alpha` needs a policy that keeps a share or begins with one; wsl decides it
        --set task.validation_split=0.1: `task.validation_split` needs `task.train`, a file with labels
        --set task.label_noise=0.2: `task.label_noise` needs `task.train`, a file with labels
        --set objective.balance.policy=wsl: `objective.balance` needs `task.train`, a file with labels
        6 problems
    "#);
}

#[test]
fn a_file_of_answers_stands_in_the_place_of_a_model() {
    // An override takes the model's place.
    let answers = "teacher.answers=answers.jsonl";
    assert_eq!(said(GOOD, &[answers]), "fine");
    let both = GOOD.replace("[teacher]\n", "[teacher]\nanswers = \"answers.jsonl\"\n");
    insta::assert_snapshot!(said(&both, &[]), @r#"
        recipe.toml:11:1: `teacher.model` and `teacher.answers` contradict each other; keep one
        1 problem
    "#);
    let second = two_teachers().replace("model = \"models/other\"", "answers = \"a.jsonl\"");
    assert_eq!(said(&second, &[]), "fine");
    insta::assert_snapshot!(said(&two_teachers(), &["teacher.1.answers=a.jsonl"]), @r#"
        recipe.toml:13:1: `teacher.1.model` needs no `answers`; a file of answers stands in the place of a model
        1 problem
    "#);
    let keys = ["teacher.batch_tokens=512", "teacher.tokenizer=own", "teacher.logits=live"];
    insta::assert_snapshot!(said(GOOD, &[&[answers][..], &keys].concat()), @r#"
        --set teacher.batch_tokens=512: `teacher.batch_tokens` needs no `answers`; a file of answers stands in the place of a model
        --set teacher.tokenizer=own: `teacher.tokenizer` needs no `answers`; a file of answers stands in the place of a model
        --set teacher.logits=live: `teacher.logits` needs no `answers`; a file of answers stands in the place of a model
        3 problems
    "#);
    insta::assert_snapshot!(said(GOOD, &[answers, "objective.hidden=[{kind='mse'}]"]), @r#"
        --set objective.hidden=[{kind='mse'}]: `objective.hidden` needs `teacher.model` in place of `teacher.answers`, which have no inside
        1 problem
    "#);
    let copy = GOOD.replace("model = \"models/small\"", "from_teacher = true");
    insta::assert_snapshot!(said(&copy, &[answers]), @r#"
        recipe.toml:7:1: `student.from_teacher` needs `teacher.model`, whose weights it copies
        1 problem
    "#);
}
