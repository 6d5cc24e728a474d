//! What tests of whole runs ask of a [`Place`]: that a command succeeds, and what a run recorded.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::place::Place;

impl Place {
    pub(crate) fn heirloom(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it printed.
    #[track_caller]
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.heirloom(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} ended with {}: {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn record(&self, run: &str) -> String {
        fs::read_to_string(self.path(run).join("run.jsonl")).unwrap()
    }

    pub(crate) fn steps(&self, run: &str) -> Vec<Value> {
        let record = self.record(run);
        let lines = record.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &Value| line["kind"] == "step").collect()
    }
}
