//! `heirloom bench` says what it should; how fast it is, is nobody's promise.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::process::Command;

use heirloom_store::TensorFile;
use serde_json::Value;

fn bench(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_heirloom")).arg("bench").args(args).output().unwrap()
}

const KEYS: [&str; 23] = [
    "activation_checkpointing",
    "batch",
    "dropout",
    "gflops",
    "infer",
    "loss_first",
    "loss_last",
    "losses",
    "max_grad_norm",
    "max_ms",
    "median_ms",
    "min_ms",
    "minor_faults_per_step",
    "model",
    "parameters",
    "peak_memory_mb",
    "planned_memory_mb",
    "precision",
    "seq",
    "steps",
    "teacher",
    "threads",
    "tokens_per_second",
];

#[test]
fn a_step_is_described_whole() {
    let small = ["step", "--model", "bert-mini", "--batch", "2", "--seq", "8", "--steps", "2"];
    let output = bench(&[&small[..], &["--warmup", "1", "--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let timed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut keys: Vec<&str> = timed.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, KEYS);
    for key in ["loss_first", "loss_last"] {
        let loss = timed[key].as_f64().unwrap();
        assert!(loss > 0.0 && loss < 10.0, "{key} {loss}");
    }
    assert_ne!(timed["loss_first"], timed["loss_last"], "a step moved no weight");
    let losses = timed["losses"].as_array().unwrap();
    assert_eq!((losses.len(), &losses[0]), (3, &timed["loss_first"]));
    let time = |key: &str| timed[key].as_f64().unwrap();
    assert!(time("min_ms") <= time("median_ms") && time("median_ms") <= time("max_ms"));
    // BertForSequenceClassification of this shape has as many.
    assert_eq!(timed["parameters"], 11_171_074);
}

#[test]
fn layers_computed_again_take_less_memory_and_give_the_same_losses() {
    let timed = |flags: &[&str]| -> Value {
        let small = ["step", "--model", "bert-mini", "--batch", "8", "--seq", "64", "--steps", "2"];
        let output = bench(&[&small[..], &["--warmup", "1", "--json"], flags].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (kept, again) = (timed(&[]), timed(&["--activation-checkpointing"]));
    assert_eq!(again["losses"], kept["losses"]);
    let planned = |timed: &Value| timed["planned_memory_mb"].as_f64().unwrap();
    // Three of four blocks have no inside of their own: 3 C for queries, keys and values, 4 C around
    // the norms, 8 C in the feed-forward layer, and 8 numbers of heads and norms.
    let saved = (3 * 8 * 64 * (15 * 256 + 8) * 4) as f64 / f64::from(1 << 20);
    let found = planned(&kept) - planned(&again);
    assert!((found - saved).abs() < 0.01 * saved, "{found} MiB saved, of {saved}");
}

#[test]
fn a_forward_pass_alone_moves_no_weight() {
    let small =
        ["step", "--model", "bert-mini", "--batch", "1", "--seq", "4", "--steps", "2", "--infer"];
    let output = bench(&[&small[..], &["--warmup", "0", "--json"]].concat());
    let timed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(timed["loss_first"], timed["loss_last"]);
}

/// Losses of a few steps without dropout.
fn losses(more: &[&str]) -> Value {
    let small = ["step", "--model", "bert-mini", "--batch", "2", "--seq", "8", "--steps", "3"];
    let plain = ["--warmup", "0", "--dropout", "0", "--json"];
    let output = bench(&[&small[..], &plain, more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let timed: Value = serde_json::from_slice(&output.stdout).unwrap();
    timed["losses"].clone()
}

#[test]
fn the_gradient_is_clipped_only_where_asked() {
    let free = losses(&[]);
    assert_eq!(losses(&["--max-grad-norm", "1e9"]), free, "no gradient is that long");
    let clipped = losses(&["--max-grad-norm", "1e-9"]);
    assert_eq!(clipped[0], free[0]);
    assert_ne!(clipped[2], free[2]);
}

#[test]
fn what_another_program_needs_is_written_to_an_empty_folder_only() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("deep/dump");
    let name = folder.to_str().unwrap();
    assert_eq!(losses(&["--dump", name]), losses(&[]), "writing changed the steps");
    for file in ["config.json", "model.safetensors", "batch.safetensors"] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    let batch = TensorFile::open(&folder.join("batch.safetensors")).unwrap();
    let shapes = [("ids", &[2, 8][..]), ("labels", &[2]), ("teacher_logits", &[2, 2])];
    for (array, shape) in shapes {
        assert_eq!(batch.shape(array).unwrap(), shape, "{array}");
    }
    let again = bench(&["step", "--model", "bert-mini", "--dump", name]);
    assert_eq!(again.status.code(), Some(2), "{}", String::from_utf8_lossy(&again.stderr));
}

#[test]
fn products_have_a_rate_each() {
    let small = ["products", "--model", "bert-mini", "--batch", "1", "--seq", "8"];
    let output = bench(&[&small[..], &["--repeats", "1", "--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rates: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rates["products"].as_array().unwrap().len(), 4);
    assert!(rates["best"].as_f64().unwrap() > 0.0);
}

#[test]
fn rounded_factors_give_other_losses_near_by() {
    let (single, rounded) = (losses(&[]), losses(&["--precision", "bf16"]));
    assert_ne!(single, rounded, "nothing was rounded");
    for (single, rounded) in single.as_array().unwrap().iter().zip(rounded.as_array().unwrap()) {
        let (single, rounded) = (single.as_f64().unwrap(), rounded.as_f64().unwrap());
        // A factor is off by 2⁻⁹ of itself at most; a loss of fresh weights by less.
        assert!((single - rounded).abs() < 0.01 * single, "{single} {rounded}");
    }
}

#[test]
fn another_precision_is_refused() {
    let output = bench(&["step", "--model", "bert-mini", "--precision", "fp16"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("possible values: f32, bf16"), "{said}");
}

#[test]
fn a_head_is_described_dense_and_in_chunks() {
    let small = ["head", "--tokens", "100", "--vocab", "4096", "--width", "8", "--repeats", "2"];
    let output = bench(&[&small[..], &["--budget", "3", "--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let heads: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ways = heads["ways"].as_array().unwrap();
    let of = |key: &str| -> Vec<&Value> { ways.iter().map(|way| &way[key]).collect() };
    assert_eq!(of("name"), ["chunked", "dense"]);
    // 3 MiB hold 64 rows of three matrices, of which a chunk has a multiple of 42.
    assert_eq!(of("rows"), [42, 100]);
    let number = |key: &str| of(key).into_iter().map(|value| value.as_f64().unwrap());
    let losses: Vec<f64> = number("loss").collect();
    assert!((losses[0] - losses[1]).abs() <= 1e-5 * losses[1], "{losses:?}");
    let saved = f64::from((100 - 42) * 3 * 4096 * 4) / f64::from(1 << 20);
    let between = |key| number(key).next_back().unwrap() - number(key).next().unwrap();
    assert!((between("logits_mb") - saved).abs() < 1e-9, "{heads}");
    // What products copy differs a little besides.
    assert!((between("planned_memory_mb") - saved).abs() < 0.1 * saved, "{heads}");
    let output = bench(&[&small[..], &["--chunked-only"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("chunked") && !text.contains("dense"), "{text}");
}
