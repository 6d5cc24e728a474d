//! Killed, stopped, resumed: the bits at the end are those of a run that was left alone.
//!
//! A tiny distillation run (teacher, cached answers, dropout, micro-batches, an epoch end inside,
//! checkpoints every second step) is killed with SIGKILL at random moments, also while it writes.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use heirloom_base::{Digest, Purpose, uniform, word};

mod place;

use place::Place;

impl Place {
    fn new() -> Self {
        let place = Self::with_data();
        place.write("teacher.toml", &recipe("num_hidden_layers = 2", "", 20));
        let teacher = "[teacher]\nmodel = \"teacher/last\"\n[objective]\nalpha = 0.5\n";
        place.write("student.toml", &recipe("num_hidden_layers = 1", teacher, 24));
        place
    }

    fn heirloom(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) {
        let output = self.heirloom(arguments).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} ended with {}: {said}", output.status);
    }

    /// What must not depend on interruptions: final weights, the record, the best model.
    fn outcome(&self, run: &str) -> Outcome {
        let digest = |name: &str| Digest::of(&fs::read(self.path(run).join(name)).unwrap());
        Outcome {
            weights: digest("last/model.safetensors"),
            best: digest("best/model.safetensors"),
            record: fs::read_to_string(self.path(run).join("run.jsonl")).unwrap(),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Outcome {
    weights: Digest,
    best: Digest,
    record: String,
}

fn recipe(layers: &str, rest: &str, steps: u64) -> String {
    format!(
        "[task]\nkind = \"classification\"\npath = \".\"\ntrain = \"train.tsv\"\n\
         validation = \"dev.tsv\"\ntext = \"sentence\"\nlabel = \"label\"\nmax_length = 32\n\
         allow_overlap = true\n[tokenizer]\npath = \"words\"\n[student]\n\
         config = {{ model_type = \"bert\", hidden_size = 32, {layers}, \
         num_attention_heads = 2, intermediate_size = 64, max_position_embeddings = 32 }}\n{rest}\
         [training]\nmax_steps = {steps}\nbatch_size = 12\nmicro_batch_size = 5\n\
         learning_rate = 1e-3\nsave_steps = 2\neval_steps = 4\neval_strategy = \"steps\"\n\
         seed = 7\n",
    )
}

fn killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(9)
}

/// Kills the child after a share of `longest`; says whether it was still running.
fn kill_after(mut child: Child, longest: Duration, share: f64) -> bool {
    sleep(longest.mul_f64(share));
    // It may have ended by itself; then there is nothing to kill.
    let _ = child.kill();
    killed(child.wait().unwrap())
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_bits_of_one_left_alone() {
    let place = Place::new();
    place.succeeds(&["train", "teacher.toml", "--into", "teacher"]);
    let begun = std::time::Instant::now();
    place.succeeds(&["train", "student.toml", "--into", "alone"]);
    let whole = begun.elapsed();
    let want = place.outcome("alone");

    // A kill that comes after the end proves nothing: rounds go on until twenty have met a running
    // process. One round in two does on a quiet machine, so sixty are far more than enough.
    let mut kills = 0;
    for round in 0..60 {
        if kills >= 20 {
            break;
        }
        let run = format!("round-{round}");
        let moment = |index| uniform(word(round, Purpose::Bootstrap, 0, index));
        let child = place.heirloom(&["train", "student.toml", "--into", &run]);
        kills += u32::from(kill_after(child, whole, moment(0)));
        if !place.path(&run).join("plan.toml").is_file() {
            // Killed before the run existed: there is nothing to resume, and `train` begins anew.
            place.succeeds(&["train", "student.toml", "--into", &run]);
            assert_eq!(place.outcome(&run), want, "round {round}, begun again");
            continue;
        }
        // A second kill, while it resumes.
        let child = place.heirloom(&["resume", &run]);
        kills += u32::from(kill_after(child, whole, moment(1)));
        place.succeeds(&["resume", &run]);
        assert_eq!(place.outcome(&run), want, "round {round}");
        place.succeeds(&["verify", &run]);
        fs::remove_dir_all(place.path(&run)).unwrap();
    }
    assert!(kills >= 20, "only {kills} kills met a running process");
}

#[test]
fn an_average_of_weights_survives_stops_and_kills() {
    let place = Place::new();
    for (kind, more) in [("swa", "average_from=0.3"), ("ema", "average_decay=0.9")] {
        let average = format!("training.average={kind}");
        let more = format!("training.{more}");
        let train = |run: &str| {
            let into = [run].map(|run| format!("{kind}-{run}"));
            let arguments =
                ["train", "teacher.toml", "--into", &into[0], "--set", &average, "--set", &more];
            (into[0].clone(), place.heirloom(&arguments))
        };
        let (alone, child) = train("alone");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("average of "), "the log says what is judged: {said}");
        let want = place.outcome(&alone);
        assert!(want.record.contains("\"averaged\":"), "{}", want.record);
        // Stopped, killed, stopped, as soon as it notes a step: each piece is a few steps long.
        let (run, mut child) = train("pieces");
        let (mut pieces, mut noted) = (0, 0);
        loop {
            wait_for_more(&place.path(&run), noted, &mut child);
            let signal = if pieces % 2 == 0 { "-TERM" } else { "-KILL" };
            let pid = child.id().to_string();
            // It may have ended by itself.
            let _ = Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status();
            let output = child.wait_with_output().unwrap();
            if output.status.code() != Some(75) && !killed(output.status) {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{said}");
                break;
            }
            pieces += 1;
            noted = fs::metadata(place.path(&run).join("run.jsonl")).unwrap().len();
            assert!(pieces < 100, "each piece takes one step at least");
            child = place.heirloom(&["resume", &run]);
        }
        assert!(pieces > 1, "the run was stopped and killed once at least");
        assert_eq!(place.outcome(&run), want, "{kind} in {pieces} pieces");
        place.succeeds(&["verify", &run]);

        // What is kept is the average, and what a checkpoint trains on is not.
        let bytes = |name: &str| fs::read(place.path(&alone).join(name)).unwrap();
        let (last, step) =
            (bytes("last/model.safetensors"), bytes("step-000000020/model.safetensors"));
        assert_eq!(last.len(), step.len());
        assert!(last != step, "{kind}");
        let evaluated = place.command(&["eval", &alone, "--json"]).output().unwrap();
        assert!(evaluated.status.success());
    }
    let refused =
        place.heirloom(&["resume", "ema-alone", "--set", "training.average.ema.decay=0.5"]);
    let output = refused.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the average so far was gathered by the old one"), "{said}");
}

#[test]
fn a_run_asked_to_stop_saves_says_75_and_goes_on_with_the_same_bits() {
    let place = Place::new();
    place.succeeds(&["train", "teacher.toml", "--into", "teacher"]);
    place.succeeds(&["train", "student.toml", "--into", "alone"]);
    let child = place.heirloom(&["train", "student.toml", "--into", "run"]);
    wait_for_record(&place.path("run"));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("saved; to go on: heirloom resume run"), "{said}");
    place.succeeds(&["resume", "run"]);
    assert_eq!(place.outcome("run"), place.outcome("alone"));
}

/// Returns when the record is longer than `noted`, or when the child has ended. Bounded, as below.
fn wait_for_more(run: &Path, noted: u64, child: &mut Child) {
    for _ in 0..20_000 {
        let length = fs::metadata(run.join("run.jsonl")).map_or(0, |record| record.len());
        if length > noted || child.try_wait().unwrap().is_some() {
            return;
        }
        sleep(Duration::from_millis(1));
    }
    panic!("no step was noted within twenty seconds");
}

/// Returns when the run has noted its first step. Bounded: a run that never begins fails the test.
fn wait_for_record(run: &Path) {
    for _ in 0..2000 {
        if fs::metadata(run.join("run.jsonl")).is_ok_and(|record| record.len() > 0) {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("no step was noted within twenty seconds");
}

#[test]
fn more_steps_are_allowed_on_resume_and_another_seed_is_not() {
    let place = Place::new();
    place.succeeds(&["train", "teacher.toml", "--into", "teacher"]);
    place.succeeds(&["resume", "teacher", "--set", "training.total_steps=24"]);
    let record = fs::read_to_string(place.path("teacher/run.jsonl")).unwrap();
    assert!(record.lines().last().unwrap().contains("\"step\":24"), "{record}");
    let refused = place.heirloom(&["resume", "teacher", "--set", "training.seed=8"]);
    let output = refused.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("seed"), "{said}");
}
