//! `heirloom demo`, shrunk to seconds: the story is whole, whatever its numbers are.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::process::{Command, Output};

use serde_json::Value;

fn demo(args: &[&str]) -> Output {
    let temporary = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_heirloom"))
        .arg("demo")
        .args(args)
        .current_dir(temporary.path())
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "a file was left behind");
    output
}

const MODELS: [&str; 7] =
    ["truth", "teacher", "labels_only", "smoothed", "labo", "distilled", "balanced"];
const MEASURES: [&str; 5] =
    ["accuracy", "nll", "calibration_error", "agreement_with_teacher", "distance_to_truth"];

#[test]
fn all_models_are_judged_and_none_beats_the_truth() {
    let output = demo(&["--scale", "0.05", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let story: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = story["rows"].as_array().unwrap();
    let models: Vec<&str> = rows.iter().map(|row| row["model"].as_str().unwrap()).collect();
    assert_eq!(models, MODELS);
    for row in rows {
        for measure in MEASURES {
            assert!(row[measure]["mean"].is_f64(), "{measure} of {row}");
        }
    }
    let mean = |at: usize, measure: &str| rows[at][measure]["mean"].as_f64().unwrap();
    assert!((1..7).all(|at| mean(0, "nll") < mean(at, "nll")), "{rows:?}");
    assert!((1..7).all(|at| mean(at, "distance_to_truth") > 0.0), "{rows:?}");
    assert_eq!(mean(0, "distance_to_truth"), 0.0);
    let target = |at: usize| rows[at]["target_to_truth"]["mean"].as_f64();
    let has_target: Vec<bool> = (0..7).map(|at| target(at).is_some()).collect();
    assert_eq!(has_target, [false, false, false, true, true, false, false]);
    assert_eq!(mean(1, "agreement_with_teacher"), 1.0);
    let seeds = |at: usize| rows[at]["runs"].as_array().unwrap().len();
    assert_eq!([0, 1, 2, 3].map(seeds), [1, 1, 3, 3]);
    assert!(rows[1]["parameters"].as_u64() > rows[2]["parameters"].as_u64());
}

#[test]
fn a_scale_of_nothing_is_refused() {
    for scale in ["0", "-1", "2", "NaN"] {
        let output = demo(&[&format!("--scale={scale}")]);
        assert_eq!(output.status.code(), Some(2), "{scale}");
    }
}
