//! `heirloom bench` says what it should; how fast it is, is nobody's promise.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::process::Command;

use serde_json::Value;

fn bench(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_heirloom"))
        .args(["bench", "step"])
        .args(args)
        .output()
        .unwrap()
}

const KEYS: [&str; 18] = [
    "batch",
    "dropout",
    "gflops",
    "infer",
    "loss_first",
    "loss_last",
    "max_ms",
    "median_ms",
    "min_ms",
    "model",
    "parameters",
    "peak_memory_mb",
    "planned_memory_mb",
    "precision",
    "seq",
    "steps",
    "threads",
    "tokens_per_second",
];

#[test]
fn a_step_is_described_whole() {
    let small = ["--model", "bert-mini", "--batch", "2", "--seq", "8", "--steps", "2"];
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
    let time = |key: &str| timed[key].as_f64().unwrap();
    assert!(time("min_ms") <= time("median_ms") && time("median_ms") <= time("max_ms"));
    // BertForSequenceClassification of this shape has as many.
    assert_eq!(timed["parameters"], 11_171_074);
}

#[test]
fn a_forward_pass_alone_moves_no_weight() {
    let small = ["--model", "bert-mini", "--batch", "1", "--seq", "4", "--steps", "2", "--infer"];
    let output = bench(&[&small[..], &["--warmup", "0", "--json"]].concat());
    let timed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(timed["loss_first"], timed["loss_last"]);
}

#[test]
fn another_precision_is_refused() {
    let output = bench(&["--model", "bert-mini", "--precision", "bf16"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("this version computes in f32 only"), "{said}");
}
