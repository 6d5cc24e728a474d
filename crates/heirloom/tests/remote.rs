//! Kept answers at an address: filled from two machines, learnt from, gone on with, refused.

#![cfg(feature = "remote")]
#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use heirloom_testkit::Bucket;
use serde_json::Value;

#[path = "place/decoders.rs"]
mod decoders;
mod place;

use place::Place;

const AT: &str = "s3://shelf/novels/kept";

fn recipe(teacher: &str) -> String {
    let rest = "[training]\nmax_steps = 6\nbatch_size = 2\nlearning_rate = 0.01\nsave_steps = 2\n\
                save_total_limit = 9\neval_strategy = \"never\"\nseeds = [7]\n";
    decoders::recipe(("model", 48), &format!("[teacher]\n{teacher}\n"), Some(rest))
}

/// A place with recipes that learn from the teacher and from its answers at an address.
fn place() -> Place {
    let place = decoders::place(["model", "other"]);
    place.write("live.toml", &recipe("model = \"model\""));
    place.write("kept.toml", &recipe(&format!("cache = \"{AT}\"")));
    place
}

/// The command, of a user whose environment says where the bucket is.
fn command(place: &Place, bucket: &Bucket, arguments: &[&str]) -> Command {
    let mut command = place.command(arguments);
    command.envs(bucket.environment());
    command
}

/// Exit code, stdout, stderr.
fn run(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn succeeds(command: Command) -> (String, String) {
    let (code, out, err) = run(command);
    assert_eq!(code, 0, "{err}");
    (out, err)
}

fn keep<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let what = ["cache", "--teacher", "model", "--recipe", "live.toml", "--out", out];
    [&what[..], &["--top-k", "8"], more].concat()
}

/// The losses of every step.
fn losses(place: &Place, run: &str) -> Vec<f64> {
    let record = fs::read_to_string(place.path(run).join("run.jsonl")).unwrap();
    let lines = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "step").map(|line| line["loss"].as_f64().unwrap()).collect()
}

/// The files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
    };
    entries.filter(|path| path.is_file()).map(named).collect()
}

/// What is in the bucket, by name.
fn kept(bucket: &Bucket) -> BTreeMap<String, Vec<u8>> {
    let name = |path: String| path.strip_prefix("/shelf/novels/kept/").unwrap().to_owned();
    bucket.files().into_iter().map(|(path, bytes)| (name(path), bytes)).collect()
}

#[test]
fn what_two_machines_keep_at_an_address_teaches_as_a_folder_does() {
    let (one, two, bucket) = (place(), place(), Bucket::new());
    // Two seeds, two lists, two files: one for each machine.
    for seeds in ["7", "7,8"] {
        succeeds(command(&one, &bucket, &keep("folder", &["--seeds", seeds])));
        let more = ["--seeds", seeds, "--shard", "2/2"];
        let (_, said) = succeeds(command(&two, &bucket, &keep(AT, &more)));
        let missing =
            format!("note: shard 2/2 is done; of {} files 1 are missing", seeds.len().div_ceil(2));
        assert!(said.contains(&missing), "{said}");
    }
    let (_, said) =
        succeeds(command(&one, &bucket, &keep(AT, &["--seeds", "7,8", "--shard", "1/2"])));
    assert!(said.contains("all 2 files are there; `heirloom cache verify s3://"), "{said}");
    let mut want = files(&one.path("folder"));
    want.retain(|name, _| !name.contains("filling"));
    assert_eq!(kept(&bucket), want);

    let whole =
        |name: &str| succeeds(command(&one, &bucket, &["cache", "verify", name, "--json"])).0;
    let digest = |text: String| serde_json::from_str::<Value>(&text).unwrap()["digest"].clone();
    assert_eq!(digest(whole(AT)), digest(whole("folder")));

    let learn = |place: &Place, recipe: &str, into: &str, more: &[&str]| {
        let arguments = [&["train", recipe, "--into", into], more].concat();
        succeeds(command(place, &bucket, &arguments)).1
    };
    learn(&one, "kept.toml", "from-folder", &["--set", "teacher.cache=\"folder\""]);
    bucket.asked();
    let said = learn(&one, "kept.toml", "from-bucket", &[]);
    assert!(
        said.contains("note: `teacher.cache` is at s3://shelf/novels/kept; what is not"),
        "{said}"
    );
    assert_eq!(losses(&one, "from-bucket"), losses(&one, "from-folder"));
    assert!(bucket.asked().iter().all(|asked| !asked.contains("part-")), "fetched before");

    // A machine that has nothing yet, on which runs begin at once: one of them fetches.
    fs::remove_dir_all(two.path("copies")).unwrap();
    let runs = ["from-bucket", "beside", "beside-both"];
    let begun = runs.map(|into| {
        let mut command = command(&two, &bucket, &["train", "kept.toml", "--into", into]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for (child, run) in begun.into_iter().zip(runs) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(losses(&two, run), losses(&one, "from-folder"));
    }
    let parts = bucket.asked().iter().filter(|asked| asked.contains("part-")).count();
    assert_eq!(parts, 2, "each file once");
    // From a web server too, and where a run is gone on with.
    let web = format!("teacher.cache=\"{}/shelf/novels/kept\"", bucket.address());
    learn(&two, "kept.toml", "from-web", &["--set", &web]);
    assert_eq!(losses(&two, "from-web"), losses(&one, "from-folder"));
    fs::remove_dir_all(two.path("copies")).unwrap();
    fs::remove_dir_all(two.path("from-bucket/step-000000006")).unwrap();
    fs::remove_dir_all(two.path("from-bucket/last")).ok();
    succeeds(command(&two, &bucket, &["resume", "from-bucket"]));
    assert_eq!(losses(&two, "from-bucket"), losses(&one, "from-folder"));
}

#[test]
fn what_cannot_be_read_or_kept_there_is_refused() {
    let (place, bucket) = (place(), Bucket::new());
    let refused = |arguments: &[&str], want: i32, message: &str| {
        let (code, out, err) = run(command(&place, &bucket, arguments));
        assert_eq!((code, out.as_str()), (want, ""), "{arguments:?}: {err}");
        assert!(err.contains(message), "{err}");
        assert!(!place.path("new").exists());
    };
    let train = ["train", "kept.toml", "--into", "new"];
    refused(&train, 3, "`s3://shelf/novels/kept` holds no kept answers: it has no cache.json");
    let web = format!("{}/kept", bucket.address());
    refused(&keep(&web, &[]), 2, "a web server is read from alone");
    refused(&keep("ftp://shelf/kept", &[]), 2, "expected s3://BUCKET/FOLDER");
    refused(&["cache", "verify", "s3:///kept"], 2, "expected s3://BUCKET/FOLDER");

    succeeds(command(&place, &bucket, &keep(AT, &[])));
    fs::remove_dir_all(place.path("copies")).unwrap();
    let hotter = [&train[..], &["--set", "objective.temperature=3"]].concat();
    refused(&hotter, 3, "the answers in `s3://shelf/novels/kept` were kept of another temperature");
    let other = [&train[..], &["--set", "teacher.model=\"other\""]].concat();
    refused(&other, 3, "were kept of another teacher");
    assert!(
        bucket.asked().iter().all(|asked| !asked.starts_with("GET") || !asked.contains("part-"))
    );

    let part = "/shelf/novels/kept/part-00000.answers";
    bucket.change(|files| files.get_mut(part).unwrap()[200] ^= 4);
    refused(&train, 3, "`s3://shelf/novels/kept/part-00000.answers` was changed in block 0");
    bucket.change(|files| files.get_mut(part).unwrap()[200] ^= 4);
    bucket.forbid(Some("part-"));
    refused(&train, 4, "cannot read `s3://shelf/novels/kept/part-00000.answers`");
    bucket.forbid(None);
    let mut nowhere = command(&place, &bucket, &train);
    let (code, _, err) = run({
        nowhere.env_remove("HEIRLOOM_CACHE").env_remove("HOME").env_remove("XDG_CACHE_HOME");
        nowhere
    });
    assert!(code == 2 && err.contains("set the variable HEIRLOOM_CACHE"), "{err}");

    // The copy is whole again, and of what is there no more.
    succeeds(command(&place, &bucket, &["train", "kept.toml", "--into", "run"]));
    bucket.change(BTreeMap::clear);
    refused(&train, 3, "was copied from `s3://shelf/novels/kept`, which holds no answers any more");
}
