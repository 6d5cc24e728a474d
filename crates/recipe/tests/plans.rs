//! Plans: what is decided, what is refused, how they read, and what may change.

use heirloom_base::{Bytes, Digest, Tokens};
use heirloom_recipe::{
    Activation, Average, Batch, Counts, Evaluate, Facts, Length, Logits, ModelFacts, ModelShape,
    ModelType, Plan, Preset, Problems, TeacherPlan, TokenDifference, TokenizerFacts, change, cost,
    parse, resolve, smoke,
};

const RECIPE: &str = r#"
[task]
preset = "sst2"
path = "data/SST-2"

[student]
model = "models/small"
layers = [0, 2]

[teacher]
model = "models/large"

[objective]
alpha = 0.7

[[objective.hidden]]
kind = "mse"

[training]
epochs = 2.5
"#;

fn shape(layers: u64, width: u64, heads: u64) -> ModelShape {
    ModelShape {
        model_type: ModelType::Bert,
        vocab_size: 30522,
        hidden_size: width,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        intermediate_size: 4 * width,
        hidden_act: Activation::Gelu,
        max_position_embeddings: 512,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        initializer_range: 0.02,
        hidden_dropout_prob: 0.1,
        attention_probs_dropout_prob: 0.1,
        classifier_dropout: 0.1,
    }
}

fn model(layers: u64, width: u64, heads: u64, labels: &[&str]) -> ModelFacts {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    ModelFacts {
        shape: shape(layers, width, heads),
        labels,
        digest: Digest::of(b"weights"),
        grown: None,
    }
}

fn facts() -> Facts {
    let tokenizer = TokenizerFacts { vocab_size: 30522, digest: Digest::of(b"tokens") };
    Facts {
        train_examples: 67_349,
        unlabelled_examples: 0,
        train_tokens: Tokens(900_000),
        steps_per_epoch: None,
        validation_examples: 872,
        labels: vec!["0".to_owned(), "1".to_owned()],
        data: Digest::of(b"data"),
        tokenizer,
        teacher_tokenizer: Some(tokenizer),
        first_difference: None,
        student: Some(model(4, 384, 12, &[])),
        teacher: Some(model(12, 768, 12, &["LABEL_0", "LABEL_1"])),
        other_teachers: Vec::new(),
        answers: Vec::new(),
        memory: Bytes(16_000_000_000),
        threads: 8,
    }
}

fn plan(text: &str, sets: &[&str], facts: &Facts) -> Result<Plan, Problems> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    resolve(&parse("recipes/sst2-small.toml", text, &sets)?, facts)
}

fn good(sets: &[&str]) -> Plan {
    plan(RECIPE, sets, &facts()).expect("the recipe is good")
}

fn said(text: &str, sets: &[&str], facts: &Facts) -> String {
    plan(text, sets, facts).map_or_else(|problems| problems.to_string(), |_| "fine".to_owned())
}

#[test]
fn a_plan_reads_like_words() {
    insta::assert_snapshot!(good(&[]), @r#"
        plan       sst2-small, digest 00ad676cc53a
        data       data/SST-2/train.tsv: 67 349 examples, 900 000 tokens
                   evaluated on dev.tsv: 872 examples
                   text in `sentence`, label in `label`
                   predicts one of 0, 1
                   measured by accuracy
                   inputs of up to 128 tokens of 30 522 (models/small)
        student    bert, 2 layers, width 384, 12 heads
                   weights of models/small
                   keeps layers 0, 2 of it
                   dropout 0.1 hidden, 0.1 attention, 0.1 classifier
        teacher    bert, 12 layers, width 768, 12 heads
                   weights of models/large
                   answers computed at every step, 8 192 tokens at once
        objective  0.7 × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
                   0.3 × cross entropy with the labels
                   1 × mse, through a learned map; layers 0–0 1–6 2–12, all positions
        training   2.5 epochs = 5 263 steps, 2 105 a pass
                   32 sequences a step, 8 192 tokens at once
                   learning rate 5e-5, linear, 527 steps of warm-up
                   AdamW β 0.9 0.999, ε 1e-8, decay 0.01, gradients clipped at 1
                   evaluated after every pass, saved then; best by accuracy, last 2 kept
                   stops at a loss that is not finite
                   seed 42, f32, 8 threads
        output     runs/sst2-small, with the best model
    "#);
}

#[test]
fn a_plan_without_a_teacher_reads_like_words() {
    let text = r#"
        name = "plain"
        [task]
        kind = "multi_label"
        path = "data"
        train = "train.csv"
        text = "title"
        text_pair = "body"
        label = "topics"
        labels = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
        validation_split = 0.1
        train_limit = 1000
        test = "test.csv"
        on_bad_line = "skip"
        [tokenizer]
        path = "vocab.txt"
        [student]
        config = { model_type = "roberta", hidden_size = 64, num_hidden_layers = 2, num_attention_heads = 4 }
        classifier_dropout = 0
        [training]
        max_steps = 100
        batch_tokens = 1024
        max_grad_norm = 0
        eval_steps = 10
        save_steps = 20
        early_stopping_patience = 3
        on_nonfinite = "skip"
        seeds = [5, 6]
    "#;
    insta::assert_snapshot!(plan(text, &[], &facts()).unwrap(), @r#"
        plan       plain, digest 054a52ed63e2
        data       data/train.csv: 1 000 examples, 13 363 tokens
                     the first 1 000 after the shuffle
                     0.1 of it is held out
                   evaluated on the part held out: 872 examples
                   tested on test.csv after training
                   text in `title` and `body`, label in `topics`
                   predicts any of 9 labels: a, b, c, d, e, f, g, h, …
                   measured by f1_micro
                   inputs of up to 128 tokens of 30 522 (vocab.txt)
                   skips up to 100 lines per file that cannot be read
        student    roberta, 2 layers, width 64, 4 heads
                   random weights
                   dropout 0.1 hidden, 0.1 attention, 0 classifier
        teacher    none: the student learns from labels alone
        objective  bce with the labels
        training   100 steps, 14 a pass
                   1 024 tokens a step, 8 192 tokens at once
                   learning rate 5e-5, linear, 10 steps of warm-up
                   AdamW β 0.9 0.999, ε 1e-8, decay 0.01, gradients not clipped
                   evaluated every 10 steps, saved every 20 steps; best by f1_micro, last 2 kept
                   stops after 3 evaluations without a better one
                   skips up to 10 steps that are not finite
                   seed 5, f32, 8 threads
        output     runs/plain, with the best model
    "#);
}

#[test]
fn a_plan_says_how_the_lines_of_its_files_lie() {
    let own = RECIPE.replace(
        "preset = \"sst2\"",
        "kind = \"classification\"\ntrain = \"t.txt\"\nvalidation = \"v.txt\"\n\
         format = \"label_first\"\nlabel_separator = \":\"",
    );
    let mut plan = plan(&own, &[], &facts()).unwrap();
    let says = |plan: &Plan, words: &str| assert!(plan.to_string().contains(words), "{plan}");
    says(&plan, "a label and a text on each line; labels end at \":\"\n");
    // What the caller puts there where a preset's files come in several parts.
    plan.data.train = vec!["train-0.parquet".to_owned(), "train-1.parquet".to_owned()];
    says(&plan, "data/SST-2/train-0.parquet, train-1.parquet: 67 349 examples");
    assert_eq!(Plan::from_toml(&plan.to_toml()), Ok(plan));
}

#[test]
fn steps_follow_from_epochs_and_batches() {
    let steps = |sets: &[&str]| {
        let plan = good(sets);
        (plan.steps_per_epoch().0, plan.total_steps().0, plan.warmup_steps().0)
    };
    // 67 349 / 32 = 2104.7; 2.5 × 2105 = 5262.5; a tenth of 5263 = 526.3
    assert_eq!(steps(&[]), (2105, 5263, 527));
    assert_eq!(steps(&["training.max_steps=10", "training.warmup_steps=3"]), (2105, 10, 3));
    assert_eq!(steps(&["training.warmup_ratio=0"]), (2105, 5263, 0));
    assert_eq!(steps(&["training.batch_tokens=9000", "training.epochs=1"]), (100, 100, 10));
    // The same, but counted by packing.
    let mut packed = facts();
    packed.steps_per_epoch = Some(104);
    let plan = |sets: &[&str]| plan(RECIPE, sets, &packed).unwrap().steps_per_epoch().0;
    assert_eq!(plan(&["training.batch_tokens=9000"]), 104);
    assert_eq!(plan(&["training.batch_size=32"]), 2105);
    assert_eq!(steps(&["task.train_limit=64", "training.epochs=1"]), (2, 2, 1));
    assert_eq!(steps(&["training.max_steps=10", "training.warmup_steps=30"]), (2105, 10, 10));
}

#[test]
fn accumulation_makes_batch_size_the_micro_batch() {
    let batches = |sets: &[&str]| {
        let plan = good(sets);
        (plan.training.batch, plan.training.micro_batch)
    };
    use Batch::{Sequences, Tokens};
    assert_eq!(batches(&[]), (Sequences(32), Tokens(8192)));
    assert_eq!(
        batches(&["training.batch_size=8", "training.gradient_accumulation_steps=4"]),
        (Sequences(32), Sequences(8))
    );
    assert_eq!(batches(&["training.micro_batch_size=4"]), (Sequences(32), Sequences(4)));
    assert_eq!(batches(&["training.micro_batch_size=64"]), (Sequences(32), Sequences(32)));
}

#[test]
fn a_plan_survives_toml_and_json_with_its_digest() {
    for sets in
        [&[][..], &["task.train_limit=100", "training.eval_steps=7", "training.adam_epsilon=1e-7"]]
    {
        let plan = good(sets);
        let toml: Plan = Plan::from_toml(&plan.to_toml()).unwrap();
        let json: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(toml, plan);
        assert_eq!(toml.digest(), plan.digest());
        assert_eq!(json.digest(), plan.digest());
    }
    assert_ne!(good(&[]).digest(), good(&["training.seed=43"]).digest());
}

#[test]
fn a_plan_of_another_format_or_a_damaged_one_is_refused() {
    let text = good(&[]).to_toml();
    let said = |text: &str| Plan::from_toml(text).unwrap_err().to_string();
    insta::assert_snapshot!(said(&text.replace("format = 1", "format = 2")), @r#"the plan has format 2, this program reads 1; use the version that wrote it"#);
    insta::assert_snapshot!(said(&text.replace("alpha = 0.7", "")), @r#"not a plan: missing field `alpha`; the file is damaged or was edited, so start the run anew"#);
    insta::assert_snapshot!(said(""), @r#"not a plan: missing field `format`; the file is damaged or was edited, so start the run anew"#);
}

#[test]
fn what_is_not_written_is_what_the_reference_says() {
    let text = "[task]\npreset = \"rte\"\npath = \"d\"\n[student]\nmodel = \"s\"\n[teacher]\nmodel = \"t\"\n";
    let mut few = facts();
    let labels = ["entailment", "not_entailment"].map(str::to_owned).to_vec();
    few.labels = labels.clone();
    let plan = plan(text, &[], &few).unwrap();
    assert_eq!(plan.labels(), labels);
    assert_eq!(plan.data.texts.len(), 2);
    assert_eq!(plan.objective.alpha, 0.5);
    assert_eq!(plan.student.layers, [0, 1, 2, 3]);
    assert_eq!(plan.training.length, Length::Epochs(3.0));
    assert_eq!(plan.training.batch, Batch::Sequences(32));
    assert_eq!(plan.training.micro_batch, Batch::Tokens(8192));
    assert_eq!(plan.training.warmup_steps, plan.training.total_steps.div_ceil(10));
    assert_eq!(plan.training.seed, 42);
    assert_eq!(plan.training.evaluate, Evaluate::EveryEpoch);
    assert_eq!(plan.training.metric_for_best, "accuracy");
    assert_eq!(plan.training.threads, 8);
    assert_eq!(plan.output.dir, "runs/sst2-small");
    let TeacherPlan::Model { logits, .. } = plan.teacher else { panic!("there is a teacher") };
    assert_eq!(logits, Logits::Cache);
}

#[test]
fn a_preset_keeps_its_layout_until_a_key_of_it_is_written() {
    let layout = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        parse("r.toml", RECIPE, &sets).unwrap().preset_layout()
    };
    assert_eq!(layout(&[]), Some(Preset::Sst2));
    assert_eq!(layout(&["task.max_length=64", "task.validation_split=0.1"]), Some(Preset::Sst2));
    for set in [
        "task.train=a.tsv",
        "task.validation=a.tsv",
        "task.test=a.tsv",
        "task.format=csv",
        "task.text=a",
        "task.text_pair=a",
        "task.label=a",
        "task.header=true",
        "task.quoting=true",
        "task.encoding=latin-1",
        "task.label_separator=':'",
    ] {
        assert_eq!(layout(&[set]), None, "{set}");
    }
    let own = "[task]\nkind='regression'\npath='d'\ntrain='t.tsv'\ntext='a'\nlabel='b'\n\
               validation_split=0.5\n[student]\nmodel='m'\n";
    assert_eq!(parse("r.toml", own, &[]).unwrap().preset_layout(), None);
}

#[test]
fn official_splits_may_overlap_and_other_files_may_not() {
    let data = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        parse("r.toml", RECIPE, &sets).unwrap().data().unwrap()
    };
    assert!(data(&[]).allow_overlap);
    assert!(!data(&["task.allow_overlap=false"]).allow_overlap);
    let own = ["task.kind=classification", "task.train=a.tsv", "task.text=0", "task.label=1"];
    let own = [&own[..], &["task.validation=b.tsv", "task.header=false"]].concat();
    assert!(!data(&own).allow_overlap);
    assert!(data(&own).extra_columns);
    assert!(!data(&[]).extra_columns);
}

#[test]
fn each_seed_has_a_folder_of_its_own() {
    let sets = ["training.seeds=[3, 4]".to_owned()];
    let recipe = parse("recipes/sst2-small.toml", RECIPE, &sets).unwrap();
    assert_eq!(recipe.seeds(), [3, 4]);
    let plan = resolve(&recipe, &facts()).unwrap().with_seed(4);
    assert_eq!((plan.training.seed, plan.output.dir.as_str()), (4, "runs/sst2-small/seed-4"));
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let mut other = facts();
    other.teacher = Some(model(12, 768, 12, &["negative", "neutral", "positive"]));
    other.teacher_tokenizer = Some(TokenizerFacts { vocab_size: 50257, digest: Digest::of(b"o") });
    let (student, teacher) = (Some("[PAD]".to_owned()), Some("!".to_owned()));
    other.first_difference = Some(TokenDifference { id: 0, student, teacher });
    insta::assert_snapshot!(
        said(RECIPE, &["student.layers=[0, 4]", "task.max_length=1000"], &other),
        @r#"
        recipes/sst2-small.toml:11:1: the teacher tells 3 labels apart, the task has 2; it was trained for another task, or `task.labels` is incomplete
        recipes/sst2-small.toml:11:1: the teacher knows 50257 tokens, the student 30522; distillation of a text classifier reads one tokenisation, so take a student with the teacher's tokenizer, or let the teacher read with its own (`tokenizer = "own"`) (token 0 is "!" for the teacher, "[PAD]" for the student)
        --set student.layers=[0, 4]: `student.layers` names layer 4 of the student's source, which has layers 0..=3
        --set task.max_length=1000: `task.max_length` is 1000, the student reads at most 512 tokens
        --set task.max_length=1000: `task.max_length` is 1000, the teacher reads at most 512 tokens
        5 problems
    "#);
    other.teacher_tokenizer = Some(TokenizerFacts { vocab_size: 30522, digest: Digest::of(b"o") });
    other.first_difference = None;
    other.teacher = Some(model(12, 768, 12, &["1", "0"]));
    insta::assert_snapshot!(said(RECIPE, &[], &other), @r#"
        recipes/sst2-small.toml:11:1: the teacher's labels are `1`, `0`, the task's are `0`, `1`; write `task.labels` in the teacher's order
        recipes/sst2-small.toml:11:1: teacher and student both know 30522 tokens, but not the same ones; distillation of a text classifier reads one tokenisation, so take a student with the teacher's tokenizer, or let the teacher read with its own (`tokenizer = "own"`)
        2 problems
    "#);
    let mut large = facts();
    large.tokenizer.vocab_size = 40_000;
    large.student = None;
    insta::assert_snapshot!(said(RECIPE, &[], &large), @r#"
        recipes/sst2-small.toml:7:1: nothing is known about `models/small`; it must be read before a plan can be made
        1 problem
    "#);
    large = facts();
    large.tokenizer.vocab_size = 40_000;
    insta::assert_snapshot!(said(RECIPE, &[], &large), @r#"
        recipes/sst2-small.toml: the tokenizer knows 40000 tokens, the student has embeddings for 30522; they do not belong together
        recipes/sst2-small.toml: the tokenizer knows 40000 tokens, the teacher has embeddings for 30522; they do not belong together
        2 problems
    "#);
}

#[test]
fn hidden_terms_that_do_not_fit_are_refused() {
    let terms = "objective.hidden=[\
        {kind='mse', layers=[[0, 0], [3, 12]], projection=false},\
        {kind='attention_relation', layers=[[0, 13]], relation_heads=7},\
        {kind='cosine'}]";
    let mut deep = facts();
    deep.teacher = Some(model(13, 768, 12, &["0", "1"]));
    insta::assert_snapshot!(said(RECIPE, &[terms], &deep), @r#"
        --set objective.hidden=[{kind='mse', layers=[[…: `objective.hidden.0.layers` names layer 3 of the student, which has layers 0..=2
        --set objective.hidden=[{kind='mse', layers=[[…: `objective.hidden.0.projection` is false, but the student's hidden states are 384 wide and the teacher's 768; write `projection = true` to learn a map between them
        --set objective.hidden=[{kind='mse', layers=[[…: `objective.hidden.1.layers` names layer 0 of the student, which has layers 1..=2
        --set objective.hidden=[{kind='mse', layers=[[…: `objective.hidden.1.relation_heads` is 7, which does not divide the student's width 384; 6 or 8 would
        --set objective.hidden=[{kind='mse', layers=[[…: `objective.hidden.1.relation_heads` is 7, which does not divide the teacher's width 768; 6 or 8 would
        --set objective.hidden=[{kind='mse', layers=[[…: `objective.hidden.2.layers` is missing: the teacher's 13 layers are no multiple of the student's 2; write the pairs, for example [[0, 0], [2, 13]]
        6 problems
    "#);
}

#[test]
fn too_little_data_is_refused() {
    let mut small = facts();
    small.train_examples = 20;
    small.validation_examples = 0;
    insta::assert_snapshot!(said(RECIPE, &[], &small), @r#"
        recipes/sst2-small.toml:2:2: the validation set has no example; check `task.validation` and the file it names
        recipes/sst2-small.toml:19:2: one step needs 32 examples, the training set has 20; lower `training.batch_size` or bring more data
        2 problems
    "#);
    small.train_tokens = Tokens(300);
    insta::assert_snapshot!(said(RECIPE, &["training.batch_tokens=512"], &small), @r#"
        recipes/sst2-small.toml:2:2: the validation set has no example; check `task.validation` and the file it names
        --set training.batch_tokens=512: one step needs 512 tokens, the training set has 300; lower `training.batch_tokens` or bring more data
        2 problems
    "#);
    small.train_examples = 0;
    insta::assert_snapshot!(said(RECIPE, &["training.eval_strategy=never"], &small), @r#"
        recipes/sst2-small.toml:2:2: the training set has no example; check `task.train` and the file it names
        1 problem
    "#);
    let own = RECIPE.replace(
        "preset = \"sst2\"",
        "kind=\"classification\"\ntrain=\"t.tsv\"\ntext=\"a\"\nlabel=\"b\"\nvalidation=\"v.tsv\"",
    );
    small = facts();
    small.labels = vec!["only".to_owned()];
    insta::assert_snapshot!(said(&own, &[], &small), @r#"
        recipes/sst2-small.toml:6:1: the training file has 1 label (`only`), expected at least 2
        recipes/sst2-small.toml:15:1: the teacher tells 2 labels apart, the task has 1; it was trained for another task, or `task.labels` is incomplete
        2 problems
    "#);
    insta::assert_snapshot!(said(RECIPE, &["training.epochs=1e300"], &facts()), @r#"
        --set training.epochs=1e300: `training.epochs` gives 18446744073709551615 steps, expected at most 4294967295
        1 problem
    "#);
}

#[test]
fn a_smoke_run_is_short_and_still_does_everything() {
    let mut plan = good(&[]);
    smoke(&mut plan);
    assert_eq!(plan.total_steps().0, 20);
    assert_eq!(plan.warmup_steps().0, 3);
    assert_eq!(plan.steps_per_epoch().0, 13);
    assert_eq!((plan.examples.train, plan.examples.validation), (200, 200));
    assert_eq!(plan.training.batch, Batch::Sequences(16));
    assert_eq!(plan.training.evaluate, Evaluate::AtEnd);
    assert_eq!(plan.training.length, Length::Steps(20));
    let once = plan.clone();
    smoke(&mut plan);
    assert_eq!((plan.examples, plan.training.batch), (once.examples, once.training.batch));
}

#[test]
fn what_does_not_fit_in_memory_is_refused_with_numbers() {
    let counts = Counts {
        student_parameters: 225_000_000,
        teacher_parameters: 0,
        activations: Bytes(14_200_000_000),
        activations_recomputed: Bytes(4_100_000_000),
        answering: Bytes(0),
        other: Bytes(0),
    };
    let plan = good(&[]);
    let refused = cost(&plan, &counts, Bytes(16_000_000_000)).unwrap_err();
    assert_eq!(refused.exit_code(), 6);
    insta::assert_snapshot!(refused, @r#"does not fit in memory: weights 0.9, gradients 0.9, moments 1.8, activations 14.2 of 16.0 GB; `training.micro_batch_tokens = 4096` would need 10.7, `training.activation_checkpointing = true` would need 7.7"#);
    let refused = cost(&plan, &counts, Bytes(3_700_000_000)).unwrap_err();
    insta::assert_snapshot!(refused.way_out, @r#"`training.activation_checkpointing = true` with `training.micro_batch_tokens = 128` would need 3.7"#);
    let again = good(&["training.activation_checkpointing=true"]);
    let refused = cost(&again, &counts, Bytes(16_000_000_000)).unwrap_err();
    insta::assert_snapshot!(refused.way_out, @r#"`training.micro_batch_tokens = 4096` would need 10.7"#);
    let refused = cost(&plan, &counts, Bytes(3_000_000_000)).unwrap_err();
    insta::assert_snapshot!(refused, @r#"does not fit in memory: weights 0.9, gradients 0.9, moments 1.8, activations 14.2 of 3.0 GB; no micro-batch is small enough, as 3.6 are needed without it; take a smaller model"#);
    let answering = Counts { answering: Bytes(20_000_000_000), ..counts };
    let refused = cost(&plan, &answering, Bytes(18_000_000_000)).unwrap_err();
    insta::assert_snapshot!(refused.way_out, @"take a smaller `teacher.batch_tokens`, or a smaller teacher");
    let cost = cost(&plan, &counts, Bytes(18_000_000_000)).unwrap();
    assert_eq!(cost.total(), Bytes(17_800_000_000));
}

#[test]
fn a_plan_of_a_version_that_kept_all_activations_is_read_as_such() {
    let text = good(&[]).to_toml();
    let without = text.replace("activation_checkpointing = false\n", "");
    assert_ne!(text, without);
    assert_eq!(Plan::from_toml(&without), Ok(good(&[])));
}

#[test]
fn an_average_is_decided_in_steps_and_a_run_keeps_it() {
    let average = |sets: &[&str]| good(sets).training.average;
    let steps = ["training.max_steps=1000", "training.average=swa"];
    let swa = |from_step, every| Average::Swa { from_step, every };
    assert_eq!(average(&steps), swa(500, 50), "ten of them");
    assert_eq!(average(&[&steps[..], &["training.average_from=0.75"]].concat()), swa(750, 25));
    assert_eq!(average(&[&steps[..], &["training.average_from=1"]].concat()), swa(1000, 1));
    assert_eq!(average(&[&steps[..], &["training.average_every=7"]].concat()), swa(500, 7));
    let long = ["training.epochs=100", "training.average=swa"];
    assert_eq!(average(&long), swa(105_250, 2105), "once a pass");
    assert_eq!(average(&["training.average=ema"]), Average::Ema { decay: 0.999 });
    let decay = ["training.average=ema", "training.average_decay=0.9"];
    assert_eq!(average(&decay), Average::Ema { decay: 0.9 });

    for sets in [&steps[..], &decay] {
        let plan = good(sets);
        assert_eq!(Plan::from_toml(&plan.to_toml()), Ok(plan.clone()));
        let asked = ["training.average".to_owned()];
        let changed = change(&good(&sets[..sets.len() - 1]), &plan, &asked);
        assert!(!changed.is_allowed(), "{changed}");
        assert!(changed.to_string().contains("gathered by the old one"), "{changed}");
    }
    // A plan without one says nothing of it, as plans always did.
    assert!(!good(&[]).to_toml().contains("average"));
    let longer =
        change(&good(&steps), &good(&[&["training.max_steps=2000"], &steps[1..]].concat()), &[]);
    assert!(!longer.is_allowed(), "half of another run begins elsewhere");

    let mut plan = good(&steps);
    smoke(&mut plan);
    assert_eq!(plan.training.average, swa(10, 1));
    let lines = |sets: &[&str]| -> String {
        let shown = good(sets).to_string();
        shown.lines().filter(|line| line.contains("kept: ")).map(str::trim_start).collect()
    };
    insta::assert_snapshot!(lines(&steps), @"evaluated and kept: the mean of the weights of every 50 steps from step 500 on (swa)");
    insta::assert_snapshot!(lines(&decay), @"evaluated and kept: the mean of the weights of all steps, each weighing 0.9 of the next (ema)");
    insta::assert_snapshot!(lines(&[]), @"");
}

#[test]
fn an_average_takes_memory_as_large_as_the_weights() {
    let counts = Counts {
        student_parameters: 225_000_000,
        teacher_parameters: 0,
        activations: Bytes(0),
        activations_recomputed: Bytes(0),
        answering: Bytes(0),
        other: Bytes(0),
    };
    let plan = good(&["training.average=ema"]);
    let found = cost(&plan, &counts, Bytes(4_500_000_000)).unwrap();
    assert_eq!((found.average, found.total()), (found.weights, Bytes(4_500_000_000)));
    let refused = cost(&plan, &counts, Bytes(4_499_999_999)).unwrap_err();
    assert!(refused.parts.contains("moments 1.8, average 0.9"), "{refused}");
}

#[test]
fn a_longer_run_may_go_on_and_another_one_may_not() {
    let old = good(&[]);
    let compare = |sets: &[&str], asked: &[&str]| {
        let asked: Vec<String> = asked.iter().map(|key| (*key).to_owned()).collect();
        change(&old, &good(sets), &asked)
    };
    assert!(compare(&[], &[]).is_same());
    assert!(
        compare(&["training.threads=2", "training.save_steps=5", "training.max_steps=9000"], &[])
            .is_allowed()
    );
    assert!(compare(&["training.activation_checkpointing=true"], &[]).is_allowed());
    for set in [
        "training.learning_rate=1e-4",
        "training.weight_decay=0.1",
        "training.warmup_ratio=0.2",
        "training.warmup_steps=5",
        "objective.alpha=0.6",
        "objective.temperature=3",
        "student.hidden_dropout_prob=0.2",
        "student.attention_probs_dropout_prob=0.2",
        "student.classifier_dropout=0.2",
    ] {
        let key = set.split('=').next().unwrap();
        assert_eq!(compare(&[set], &[]).exit_code(), 2, "{set}");
        assert_eq!(compare(&[set], &[key]).exit_code(), 0, "{set}");
    }
    for set in [
        "training.epochs=7",
        "training.eval_steps=5",
        "training.early_stopping_patience=5",
        "training.save_total_limit=5",
        "output.dir=elsewhere",
        "output.save_model=false",
        "task.test=test.tsv",
    ] {
        assert!(compare(&[set], &[]).is_allowed(), "{set}");
    }
    // Not even when asked for.
    for set in [
        "task.train=other.tsv",
        "task.max_length=64",
        "task.label_separator=':'",
        "task.encoding=latin-1",
        "tokenizer.lowercase=false",
        "student.layers=[0, 1]",
        "training.seed=7",
        "training.batch_size=16",
        "training.precision=bf16",
    ] {
        let key = set.split('=').next().unwrap();
        assert_eq!(compare(&[set], &[key]).exit_code(), 2, "{set}");
    }
    // A longer run warms up for the same share of it, unless the share itself is another.
    assert!(compare(&["training.max_steps=9000"], &[]).is_allowed());
    let both = ["training.max_steps=9000", "training.warmup_steps=527"];
    assert!(compare(&both, &[]).is_allowed());
    let both = ["training.max_steps=9000", "training.warmup_steps=528"];
    assert!(!compare(&both, &[]).is_allowed());
    let mut other = good(&[
        "training.batch_size=16",
        "training.seed=1",
        "training.epochs=1",
        "student.layers=[1, 3]",
        "training.learning_rate=1e-4",
    ]);
    other.tokenizer.digest = Digest::of(b"other");
    other.tokenizer.path = "elsewhere".to_owned();
    insta::assert_snapshot!(change(&old, &other, &[]), @r#"
        field                     was                        is                         why not
        student.layers            [0,2]                      [1,3]                      the saved weights have another shape
        tokenizer.digest          "181c2e9cfd8d68639a001ee…  "3f796163ebf94718de1cd75…  the saved embeddings belong to other tokens
        tokenizer.path            "models/small"             "elsewhere"                allowed
        training.batch.sequences  32                         16                         the order of the data would change
        training.learning_rate    0.00005                    0.0001                     it changes the result; ask for it with --set
        training.length.epochs    2.5                        1.0                        allowed
        training.seed             42                         1                          order and dropout would no longer follow from one seed
        training.steps_per_epoch  2105                       4210                       the order of the data would change
        training.total_steps      5263                       4210                       allowed
        training.warmup_steps     527                        421                        allowed
    "#);
}

#[test]
fn every_field_of_a_plan_has_a_rule() {
    let mut other = toml::Table::try_from(good(&[])).unwrap();
    alter(&mut other);
    // Every leaf was altered, so every one is compared.
    let text = toml::to_string(&other).unwrap();
    let Ok(other) = toml::from_str::<Plan>(&text) else { panic!("{text}") };
    let change = change(&good(&[]), &other, &[]);
    assert!(change.fields.len() > 60, "{}", change.fields.len());
    assert!(!change.to_string().contains("nothing is known"), "{change}");
}

fn alter(table: &mut toml::Table) {
    for (key, value) in table.iter_mut() {
        match value {
            toml::Value::Table(table) => alter(table),
            toml::Value::Integer(number) => *number += 1,
            toml::Value::Float(number) => *number += 0.25,
            toml::Value::Boolean(truth) => *truth = !*truth,
            toml::Value::String(text) => *text = altered(key, text),
            _ => {}
        }
    }
}

/// Another text that the key also accepts: names of choices and digests only have others.
fn altered(key: &str, text: &str) -> String {
    let other = match (key, text) {
        ("kind", _) => "regression",
        ("format", _) => "csv",
        ("encoding", _) => "latin-1",
        ("metric", _) => "f1",
        ("on_bad_line" | "on_nonfinite", _) => "skip",
        ("validation_split", _) => "nothing",
        ("train_limit" | "validation_limit", _) => "all",
        ("evaluate_on", _) => "split",
        ("model_type", _) => "roberta",
        ("hidden_act", _) => "relu",
        ("logits", _) => "cache",
        ("label_loss", _) => "bce",
        ("lr_scheduler_type", _) => "cosine",
        ("evaluate" | "early_stopping", _) => "never",
        ("save", _) => "with_evaluation",
        ("precision", _) => "bf16",
        ("digest", _) => return Digest::of(text.as_bytes()).to_string(),
        _ => return format!("{text}x"),
    };
    other.to_owned()
}

/// The line of the teacher's term.
fn teacher_line(sets: &[&str]) -> String {
    let shown = plan(RECIPE, sets, &three()).expect("the recipe is good").to_string();
    let line = shown.lines().find(|line| line.starts_with("objective")).expect("a line");
    line.trim_start_matches("objective").trim_start().to_owned()
}

/// A task of three labels.
fn three() -> Facts {
    let labels = ["0", "1", "2"];
    let mut facts = facts();
    facts.labels = labels.map(str::to_owned).to_vec();
    facts.teacher = Some(model(12, 768, 12, &labels));
    facts
}

#[test]
fn a_divergence_reads_as_its_formula_in_numbers() {
    let three = "task.labels=[\"0\", \"1\", \"2\"]";
    let cases: [&[&str]; 15] = [
        &["forward_kl"],
        &["reverse_kl"],
        &["symmetric_kl"],
        &["jensen_shannon"],
        &["jensen_shannon", "objective.divergence_beta=0.1"],
        &["skew_kl"],
        &["skew_reverse_kl", "objective.temperature=4"],
        &["alpha_beta"],
        &["alpha_beta", "objective.divergence_alpha=0"],
        &["alpha_beta", "objective.divergence_beta=0"],
        &["alpha_beta", "objective.divergence_alpha=0", "objective.divergence_beta=0"],
        &["total_variation", "objective.scale_by_temperature_squared=false"],
        &["dkd"],
        &["mse_logits"],
        &["mse_logits", "objective.divergence_centred=false"],
    ];
    let lines = cases.map(|case| {
        let set = format!("objective.divergence={}", case[0]);
        teacher_line(&[&[three, &set], &case[1..]].concat())
    });
    insta::assert_snapshot!(lines.join("\n"), @r#"
        0.7 × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        0.7 × KL(q ‖ p) at T = 2, times T²; p the teacher's, q the student's
        0.7 × (½ KL(p ‖ q) + ½ KL(q ‖ p)) at T = 2, times T²; p the teacher's, q the student's
        0.7 × (0.5 KL(p ‖ m) + 0.5 KL(q ‖ m)), m = 0.5 p + 0.5 q, at T = 2, times T²; p the teacher's, q the student's
        0.7 × (0.1 KL(p ‖ m) + 0.9 KL(q ‖ m)), m = 0.1 p + 0.9 q, at T = 2, times T²; p the teacher's, q the student's
        0.7 × KL(p ‖ 0.1 p + 0.9 q) at T = 2, times T²; p the teacher's, q the student's
        0.7 × KL(q ‖ 0.9 p + 0.1 q) at T = 4, times T²; p the teacher's, q the student's
        0.7 × Σ (p^0.9/0.63 + q^0.9/0.18 − p^0.2 q^0.7/0.14) at T = 2, times T²; p the teacher's, q the student's
        0.7 × Σ (0.7 q^0.7 ln(q/p) − q^0.7 + p^0.7)/0.49 at T = 2, times T²; p the teacher's, q the student's
        0.7 × Σ (0.2 p^0.2 ln(p/q) − p^0.2 + q^0.2)/0.04 at T = 2, times T²; p the teacher's, q the student's
        0.7 × ½ Σ (ln p − ln q)² at T = 2, times T²; p the teacher's, q the student's
        0.7 × ½ Σ |p − q| at T = 2; p the teacher's, q the student's
        0.7 × (1 KL of the label against the rest + 8 KL within the rest), KL(p ‖ q) without a label, at T = 2, times T²; p the teacher's, q the student's
        0.7 × mean squared difference from the teacher's logits, each side less its mean
        0.7 × mean squared difference from the teacher's logits
    "#);
}

#[test]
fn over_two_labels_the_second_weight_of_dkd_is_refused_as_it_changes_nothing() {
    let sets = ["objective.divergence=dkd", "objective.divergence_beta=4"];
    insta::assert_snapshot!(said(RECIPE, &sets, &facts()), @r#"
        --set objective.divergence_beta=4: `objective.divergence_beta` needs three labels or more; over two, dkd is `divergence_alpha` times forward_kl
        1 problem
    "#);
    assert_eq!(said(RECIPE, &sets[..1], &facts()), "fine");
}

#[test]
fn a_plan_says_its_divergence_unless_it_is_the_forward_one_and_reads_it_back() {
    let plain = good(&[]);
    assert!(!plain.to_toml().contains("divergence"), "plans from before it had a name are equal");
    assert_eq!(good(&["objective.divergence=forward_kl"]).digest(), plain.digest());
    for kind in heirloom_recipe::DivergenceKind::ALL {
        let plan = good(&[&format!("objective.divergence={kind}")]);
        assert_eq!(Plan::from_toml(&plan.to_toml()).expect("a plan"), plan, "{kind}");
        assert_eq!(plan.digest() == plain.digest(), kind.name() == "forward_kl", "{kind}");
    }
}

#[test]
fn another_divergence_goes_on_where_it_was_asked_for() {
    let old = good(&["objective.divergence=skew_kl"]);
    for (sets, asked) in [
        (
            &["objective.divergence=skew_kl", "objective.divergence_alpha=0.3"][..],
            "divergence_alpha",
        ),
        (&["objective.divergence=reverse_kl"], "divergence"),
        (&[], "divergence"),
    ] {
        let new = good(sets);
        assert_eq!(change(&old, &new, &[]).exit_code(), 2, "{sets:?}");
        assert_eq!(change(&old, &new, &[format!("objective.{asked}")]).exit_code(), 0, "{sets:?}");
    }
}

/// The recipe without a share and with a policy; `keys` are of `[objective.balance]`, or whole.
fn balanced(policy: &str, keys: &[&str]) -> Plan {
    let mut sets = vec![format!("objective.balance.policy={policy}")];
    if policy.starts_with("annealing") || policy.starts_with("continuation") {
        sets.push("objective.divergence=mse_logits".to_owned());
        sets.push("objective.divergence_centred=false".to_owned());
    }
    for key in keys {
        let whole = ["objective.", "training."].iter().any(|section| key.starts_with(section));
        sets.push(if whole { (*key).to_owned() } else { format!("objective.balance.{key}") });
    }
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let text = RECIPE.replace("alpha = 0.7\n", "");
    plan(&text, &sets, &facts()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn a_policy_reads_as_words_with_its_numbers() {
    let mut said = String::new();
    let few = ["meta.source=train", "meta.every=10", "meta.warmup_steps=50", "meta.loss=hard"];
    let cases: &[(&str, &[&str])] = &[
        ("fixed", &["objective.alpha=0.9"]),
        ("schedule", &[]),
        ("schedule", &["from=0.2", "to=0.8", "course=step", "at=0.3"]),
        ("annealing_kd", &["levels=7"]),
        ("continuation_kd", &[]),
        ("uncertainty", &[]),
        ("grad_norm", &[]),
        ("wsl", &["weight=2.5"]),
        ("ada_kd", &[]),
        ("dynamic_kd", &[]),
        ("dynamic_kd", &["adoption=batch"]),
        ("dynamic_kd", &["adoption=select", "share=0.3", "doubt=least_confidence"]),
        ("ctkd", &["range=[1, 9]"]),
        ("rw_kd", &["meta.preconditioner=adam"]),
        ("rw_kd", &["normalize=batch", "ema=0.9", "floor=0", "meta.estimator=last_layer"]),
        ("l2rw", &["meta.source=file", "meta.path=second.tsv", "meta.batch_size=64"]),
        ("meta_weight_net", &few),
        ("tgeo_kd", &["meta.split=0.05", "meta.loss=soft"]),
    ];
    for (policy, keys) in cases {
        let plan = balanced(policy, keys).to_string();
        let lines = plan.lines().skip_while(|line| !line.starts_with("objective"));
        let lines = lines.take_while(|line| !line.contains("through a learned map"));
        for line in lines {
            said += &format!("{}\n", &line[11..]);
        }
    }
    insta::assert_snapshot!(said, @r#"
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        fixed: w₁ = 0.1, w₂ = 0.9
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        schedule: w₂ from 1 to 0, linear; w₁ = 1 − w₂
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        schedule: w₂ = 0.2 for the first 0.3 of the run, then 0.8; w₁ = 1 − w₂
        w₂ × mean squared difference from the teacher's logits
        w₁ × cross entropy with the labels
        annealing_kd: the teacher alone for the first 0.5 of the run, its logits growing in 7 levels; then the labels alone
        w₂ × mean squared difference from the teacher's logits
        w₁ × cross entropy with the labels
        continuation_kd: w₂ from 1 to 0, w₁ = 1 − it; the teacher's logits grow in 10 levels, silent within a margin from 1 to 0
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        uncertainty: both weights learnt from the mean losses at rate 0.01, within exp(±5)
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        grad_norm: both weights learnt from the sizes of gradients at rate 0.025, asymmetry 1.5; their sum is 2
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        wsl: w₁ = 1; w₂ up to 2.5, less where the student knows the label better than the teacher
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        ada_kd: w₂ the teacher's margin for the label at T = 1, w₁ = 1 − w₂
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        dynamic_kd: w₁ = 0.5, w₂ = 0.5 × the student's uncertainty
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        dynamic_kd: w₁ = 0.5, w₂ = 0.5 × its mean uncertainty over the step
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        dynamic_kd: w₁ = 0.5, w₂ = 0.5/0.3 for the 0.3 of a step it is least sure of by confidence, else 0
        w₂ × KL(p ‖ q) at a learnt T, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        ctkd: w₁ = 0.5, w₂ = 0.5; T learnt between 1 and 10 at rate 0.01, which grows over the first 0.1 of the run
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        rw_kd: both weights by how far each loss helps a second set, at least 1e-8, to sum to 1 in a sample, w₂ within 0..1; memory 0, w₂ = 0.5 before
        second set: 0.1 of the training set, not trained on; both losses of 32 sequences at a time
        every step: two more forward passes of the step at a distance of 0.01, scaled as AdamW's, and a forward and a backward pass of the second set
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        rw_kd: both weights by how far each loss helps a second set, at least 0, to sum to a step's size; memory 0.9, w₂ = 0.5 before
        second set: 0.1 of the training set, not trained on; both losses of 32 sequences at a time
        every step: a forward pass of the second set, last layer alone
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        l2rw: w₁ = 0.5, w₂ = 0.5, both times how far the sample helps a second set; memory 0
        second set: second.tsv; both losses of 64 sequences at a time
        every step: two more forward passes of the step at a distance of 0.01, and a forward and a backward pass of the second set
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        meta_weight_net: both weights by a network of both losses, which learns from a second set at rate 0.001, decay 0.0001
        second set: other batches of the training set; the label's loss of 32 sequences at a time
        every 10 steps, but not in the first 50: two more forward passes of the step at a distance of 0.01, and a forward and a backward pass of the second set
        w₂ × KL(p ‖ q) at T = 2, times T²; p the teacher's, q the student's
        w₁ × cross entropy with the labels
        tgeo_kd: w₂ = 1 − w₁ by a network of student, teacher and label, which learns from a second set at rate 0.001, decay 0
        second set: 0.05 of the training set, not trained on; the teacher's loss of 32 sequences at a time
        every step: two more forward passes of the step at a distance of 0.01, and a forward and a backward pass of the second set
    "#);
}

#[test]
fn a_plan_with_a_policy_is_read_back_and_one_without_does_not_speak_of_it() {
    assert!(!good(&[]).to_toml().contains("balance"), "plans from before policies are equal");
    for policy in heirloom_recipe::PolicyKind::ALL {
        let own = (policy.name() == "own").then_some("called=mine");
        let plan = balanced(policy.name(), own.as_slice());
        assert_eq!(Plan::from_toml(&plan.to_toml()), Ok(plan.clone()), "{policy}");
        let balance = plan.objective.balance.as_ref().unwrap();
        let learns = ["rw_kd", "l2rw", "meta_weight_net", "tgeo_kd"].contains(&policy.name());
        assert_eq!(balance.meta.is_some(), learns, "{policy}");
    }
}

#[test]
fn a_resume_keeps_its_policy() {
    let old = balanced("rw_kd", &[]);
    for (policy, keys, field) in [
        ("rw_kd", &["ema=0.5"][..], "objective.balance.policy.ema"),
        ("rw_kd", &["meta.every=2"], "objective.balance.meta.every"),
        ("rw_kd", &["meta.split=0.2"], "objective.balance.meta.source.split"),
        ("l2rw", &["ema=0.5"], "objective.balance.policy.name"),
        ("own", &["called=mine"], "objective.balance.policy.called"),
    ] {
        let asked: Vec<String> =
            keys.iter().map(|key| key.split('=').next().unwrap_or_default().to_owned()).collect();
        let change = change(&old, &balanced(policy, keys), &asked);
        assert_eq!(change.exit_code(), 2, "{change}");
        assert!(change.fields.iter().any(|changed| changed.field == field), "{change}");
    }
}

#[test]
fn a_plan_says_its_label_noise_and_plans_without_any_are_those_of_before() {
    let plain = good(&[]);
    assert!(!plain.to_toml().contains("noise"), "plans from before it had a name are equal");
    assert_eq!(good(&["task.label_noise=0"]).digest(), plain.digest());
    let noisy = good(&["task.label_noise=0.3", "task.label_noise_kind=asymmetric"]);
    let line = "  LABEL NOISE: 0.3 of its labels are made the next one, by seed 1\n";
    assert!(noisy.to_string().contains(line), "{noisy}");
    assert_eq!(Plan::from_toml(&noisy.to_toml()), Ok(noisy.clone()));
    for other in ["task.label_noise=0.2", "task.label_noise_seed=2"] {
        let mut sets = vec!["task.label_noise_kind=asymmetric", other];
        sets.extend((!other.contains("noise=")).then_some("task.label_noise=0.3"));
        let change = change(&noisy, &good(&sets), &[]);
        assert_eq!(change.exit_code(), 2, "{change}");
        assert!(change.to_string().contains("other labels would be wrong"), "{change}");
    }
}

/// The recipe with a regularizer; `keys` are of `[objective.regularizer]`, or whole.
fn regularized(method: &str, keys: &[&str]) -> Result<Plan, String> {
    let mut sets = vec![format!("objective.regularizer.method={method}")];
    for key in keys {
        let whole = key.starts_with("objective.");
        sets.push(if whole { (*key).to_owned() } else { format!("objective.regularizer.{key}") });
    }
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    plan(RECIPE, &sets, &facts()).map_err(|problems| problems.to_string())
}

#[test]
fn a_regularizer_reads_as_a_formula_with_its_numbers() {
    let mut said = String::new();
    let cases: &[(&str, &[&str])] = &[
        ("label_smoothing", &[]),
        ("label_smoothing", &["alpha=0.2", "alpha_end=0", "smoothed=others"]),
        ("prior", &[]),
        ("confidence_penalty", &[]),
        ("generalized_entropy", &["weight=0.3", "skew=0.25"]),
        ("tf_kd", &[]),
        ("tf_kd", &["softening=probabilities", "peak=0.9", "temperature=10"]),
        ("online_label_smoothing", &[]),
        ("zipf", &["weight=0.2"]),
        ("margin", &["margin=5"]),
        ("max_sup", &["weight_end=0.2"]),
        ("bootstrap", &[]),
        ("bootstrap", &["alpha=0.2", "hard=true"]),
        ("labo", &[]),
        ("labo", &["alpha=0.3", "temperature=3", "temperature_end=1.5"]),
        ("entropic", &[]),
        ("entropic", &["uniform=0.5", "teacher=1", "prior=0.25"]),
    ];
    for (method, keys) in cases {
        let plan = regularized(method, keys).unwrap_or_else(|problems| panic!("{problems}"));
        let text = plan.to_string();
        let line = text.lines().find(|line| line.contains("CE(")).expect("the label's term");
        said += &format!("{}\n", &line[11..]);
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_regularizer_and_a_policy_are_one_objective() {
    let keys = ["objective.balance.policy=wsl", "temperature=1.5"];
    let text = RECIPE.replace("alpha = 0.7\n", "");
    let sets =
        ["objective.regularizer.method=labo", keys[0], "objective.regularizer.temperature=1.5"];
    let plan = plan(&text, &sets, &facts()).unwrap_or_else(|problems| panic!("{problems}"));
    let shown = plan.to_string();
    assert!(
        shown.contains("w₁ × CE(q, s); q = 0.5 y + 0.5 softmax(z/1.5), not differentiated"),
        "{shown}"
    );
    assert!(shown.contains("w₂ × KL(p ‖ q)"), "{shown}");
    assert_eq!(Plan::from_toml(&plan.to_toml()), Ok(plan.clone()));
}

#[test]
fn plans_without_a_regularizer_are_those_of_before_and_a_resume_keeps_its_own() {
    assert!(!good(&[]).to_toml().contains("regularizer"));
    for method in heirloom_recipe::RegularizerKind::ALL {
        let own = (method.name() == "own").then_some("called=mine");
        let plan = regularized(method.name(), own.as_slice())
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(Plan::from_toml(&plan.to_toml()), Ok(plan), "{method}");
    }
    let old = regularized("labo", &[]).unwrap();
    let new = regularized("labo", &["temperature=3"]).unwrap();
    let change = change(&old, &new, &["objective.regularizer.temperature".to_owned()]);
    assert_eq!(change.exit_code(), 2, "{change}");
    assert!(change.to_string().contains("the label would become another"), "{change}");
}

#[test]
fn what_a_program_brings_is_named_in_words_and_has_a_second_set_where_it_asks_for_one() {
    let policy = balanced("own", &["called=doubt", "meta.split=0.2"]);
    let shown = policy.to_string();
    assert!(
        shown.contains("own: w₁ and w₂ by `doubt`, a policy that the program brings"),
        "{shown}"
    );
    assert!(shown.contains("second set: 0.2 of the training set, not trained on"), "{shown}");
    assert!(balanced("own", &["called=doubt"]).objective.meta().is_none());
    let other = balanced("own", &["called=trust", "meta.split=0.2"]);
    let change = change(&policy, &other, &["objective.balance.called".to_owned()]);
    assert_eq!(change.exit_code(), 2, "{change}");
    let regularizer = regularized("own", &["called=nearby", "meta.split=0.2"]).unwrap();
    let shown = regularizer.to_string();
    assert!(shown.contains("L(y, z)") && shown.contains("regularizer `nearby`"), "{shown}");
    assert!(regularizer.objective.meta().is_some());
    let without = regularized("own", &["called=nearby"]).unwrap();
    assert!(without.objective.meta().is_none());
    assert_eq!(Plan::from_toml(&without.to_toml()), Ok(without));
}

#[test]
fn what_a_regularizer_has_no_use_for_is_refused() {
    let mut said = String::new();
    let cases: &[(&str, &[&str])] = &[
        ("labo", &["weight=0.1", "smoothed=all"]),
        ("labo", &["temperature=0.5"]),
        ("max_sup", &["alpha=0.1", "temperature=2"]),
        ("entropic", &["uniform=0"]),
        ("label_smoothin", &[]),
        ("label_smoothing", &["alpha=1.5"]),
    ];
    for (method, keys) in cases {
        said += &format!("{}\n", regularized(method, keys).unwrap_err());
    }
    insta::assert_snapshot!(said);
}

#[test]
fn groups_of_a_growth_come_before_those_of_the_recipe_and_both_are_told() {
    let text = format!(
        "{RECIPE}\n[[training.group]]\nmatch = \"classifier.*\"\nlearning_rate_factor = 10\n\
         [[training.group]]\nmatch = [\"a\", \"b\", \"c.*\"]\nfrozen_steps = 50\nwarmup_steps = 20\n"
    );
    let sets = ["student.layers", "student.moments", "student.rates", "student.freezing"];
    let keys: Vec<String> = sets[1..].iter().map(|key| format!("{key}=true")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let whole = text.replace("layers = [0, 2]\n", "");
    assert_ne!(whole, text);
    let found = said(&whole, &keys, &facts());
    assert_eq!(
        found.matches("nothing of its growth stands beside these weights").count(),
        3,
        "{found}"
    );
    let mut facts = facts();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    facts.student.as_mut().unwrap().grown = Some(heirloom_recipe::GrownFacts {
        updates: 1200,
        rates: vec![heirloom_recipe::GrownRate { factor: 0.5, parameters: names(&["x"]) }],
        fresh: names(&["new"]),
        frozen: names(&["old"]),
    });
    let plan = plan(&whole, &keys, &facts).unwrap();
    let said = plan.to_string();
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    for line in [
        "with the optimiser's moments after 1 200 steps",
        "x: learning rate × 0.5, decay × 2",
        "old: frozen",
        "new: no moments yet",
        "classifier.*: learning rate × 10",
        "a, b and 1 more: frozen for 50 steps, 20 steps of warm-up",
    ] {
        assert!(lines.contains(&line), "{line:?} is not in\n{said}");
    }
    assert_eq!(Plan::from_toml(&plan.to_toml()), Ok(plan.clone()));
    let other = good(&[]);
    let refused = change(&plan, &other, &[]).to_string();
    assert!(refused.contains("moments were gathered by the old ones"), "{refused}");
}
