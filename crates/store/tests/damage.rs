//! What a disk forgot or somebody changed is found, named, and never loaded; and all of it works on
//! the machine's own disk.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a helper fails its test")]

use std::fs;
use std::path::{Path, PathBuf};

use heirloom_base::{Bytes, Digest, Step};
use heirloom_store::{
    About, Committed, Damage, Disk, Draft, DraftFile, Holder, Log, RealDisk, RunLock, StoreError,
    commit_folder, new_folder, recover, step_name, verify, write_atomic,
};
use heirloom_testkit::FaultDisk;

fn root() -> PathBuf {
    PathBuf::from("runs/x")
}

/// A run with the steps 1000 and 2000 and a record of four bytes.
fn run(disk: &dyn Disk, root: &Path) {
    new_folder(disk, root).unwrap();
    let mut log = Log::create(disk, &root.join("run.jsonl")).unwrap();
    for step in [1000, 2000] {
        log.append(&1).unwrap();
        log.sync().unwrap();
        let facts = serde_json::json!({ "plan": "digest of the plan", "loss": 0.25 });
        let about = About {
            step: Some(Step(step)),
            parent: (step > 1000).then_some(Step(1000)),
            record_len: log.len(),
            facts: facts.as_object().unwrap().clone(),
        };
        let mut draft = Draft::of_step(disk, root, Step(step), Bytes(100)).unwrap();
        draft.put("weights.safetensors", format!("weights {step}").as_bytes()).unwrap();
        draft.put("state.safetensors", b"").unwrap();
        draft.commit(about).unwrap();
    }
}

/// Damages one file of step 2000; gives what the user reads, which `verify` must say as well.
#[track_caller]
fn damaged(name: &str, damage: impl FnOnce(&FaultDisk, &Path)) -> String {
    let disk = FaultDisk::new();
    run(&disk, &root());
    assert_eq!(verify(&disk, &root()).unwrap(), []);
    damage(&disk, &root().join(step_name(Step(2000))).join(name));
    let error = Committed::open_step(&disk, &root(), Step(2000)).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(error.exit_code(), 3);
    let findings = verify(&disk, &root()).unwrap();
    assert!(
        findings.iter().any(|finding| finding.to_string() == error.to_string()),
        "{findings:?}"
    );
    assert!(findings.iter().all(|finding| finding.is_damage()), "{findings:?}");
    Committed::open_step(&disk, &root(), Step(1000)).unwrap();
    error.to_string()
}

#[test]
fn a_flipped_bit_is_named() {
    let text =
        damaged("weights.safetensors", |disk, file| disk.damage(file, |bytes| bytes[3] ^= 4));
    let (have, want) =
        (Digest::of(b"wei\x63hts 2000").short(), Digest::of(b"weights 2000").short());
    assert_eq!(
        text,
        format!(
            "`runs/x/step-000002000/weights.safetensors` is damaged: \
             its digest is {have}, and was {want} when it was written"
        )
    );
}

#[test]
fn a_cut_file_is_named() {
    let text = damaged("weights.safetensors", |disk, file| {
        disk.damage(file, |bytes| {
            bytes.pop();
        })
    });
    insta::assert_snapshot!(text, @"`runs/x/step-000002000/weights.safetensors` is truncated: it has 11 bytes of 12");
}

#[test]
fn a_file_that_grew_is_named() {
    let text = damaged("state.safetensors", |disk, file| disk.damage(file, |bytes| bytes.push(0)));
    insta::assert_snapshot!(text, @"`runs/x/step-000002000/state.safetensors` has grown: it has 1 bytes, and was written with 0");
}

#[test]
fn a_deleted_file_is_named() {
    let text = damaged("state.safetensors", |disk, file| disk.remove(file).unwrap());
    insta::assert_snapshot!(text, @"`runs/x/step-000002000/state.safetensors` is missing");
}

#[test]
fn an_empty_manifest_is_named() {
    let text = damaged("manifest.json", |disk, file| disk.damage(file, Vec::clear));
    insta::assert_snapshot!(text, @"`runs/x/step-000002000/manifest.json` cannot be read as a manifest: EOF while parsing a value at line 1 column 0");
}

#[test]
fn an_edited_manifest_is_named() {
    let text = damaged("manifest.json", |disk, file| {
        disk.damage(file, |bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            *bytes = text.replace("0.25", "0.24").into_bytes();
        })
    });
    insta::assert_snapshot!(text, @"`runs/x/step-000002000/manifest.json` is not the manifest that was written");
}

#[test]
fn a_deleted_manifest_is_named() {
    let text = damaged("manifest.json", |disk, file| disk.remove(file).unwrap());
    insta::assert_snapshot!(text, @"`runs/x/step-000002000/manifest.json` is missing");
}

#[test]
fn a_folder_under_another_steps_name_is_refused() {
    let disk = FaultDisk::new();
    run(&disk, &root());
    let step = |step| root().join(step_name(Step(step)));
    disk.rename(&step(2000), &step(3000)).unwrap();
    let error = Committed::open_step(&disk, &root(), Step(3000)).unwrap_err();
    insta::assert_snapshot!(error, @"`runs/x/step-000003000/manifest.json` belongs to step 2000, not to the folder it lies in");
}

#[test]
fn verify_lists_every_finding_of_a_record() {
    let disk = FaultDisk::new();
    run(&disk, &root());
    disk.damage(&root().join("run.jsonl"), |bytes| *bytes = b"x\n1".to_vec());
    let findings = verify(&disk, &root()).unwrap();
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    `runs/x/run.jsonl:1` is not JSON: expected value at line 1 column 1
    `runs/x/run.jsonl:2` has no end; the next resume cuts it off
    `runs/x/run.jsonl` has 3 bytes, but the newest checkpoint was made when it had 4
    ");
}

#[test]
fn a_record_that_was_cut_or_edited_is_refused() {
    let disk = FaultDisk::new();
    run(&disk, &root());
    let path = root().join("run.jsonl");
    let mut log = Log::open(&disk, &path).unwrap();
    insta::assert_snapshot!(log.truncate_to(9).unwrap_err(), @"`runs/x/run.jsonl` ends after 4 bytes, but the checkpoint was made when it had 9; it was cut or replaced, so continue from an older checkpoint or restore the file");
    let error = log.truncate_to(3).unwrap_err();
    insta::assert_snapshot!(error, @"`runs/x/run.jsonl` has no line end at byte 3, where the checkpoint was made; it was edited or replaced, so continue from an older checkpoint or restore the file");
    assert_eq!(error.exit_code(), 3);
    log.truncate_to(2).unwrap();
    assert_eq!(disk.read(&path).unwrap(), b"1\n");
}

#[test]
fn a_file_that_was_never_committed_has_a_nearest_name() {
    let disk = FaultDisk::new();
    run(&disk, &root());
    let committed = Committed::open_step(&disk, &root(), Step(1000)).unwrap();
    let error = committed.file("weight.safetensors").unwrap_err();
    insta::assert_snapshot!(error, @"`runs/x/step-000001000` holds no file `weight.safetensors`; the nearest name is `weights.safetensors`");
}

#[test]
fn the_real_disk_keeps_the_same_promises() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("deep/run");
    run(&RealDisk, &root);
    assert_eq!(verify(&RealDisk, &root).unwrap(), []);

    let committed = Committed::open_step(&RealDisk, &root, Step(2000)).unwrap();
    assert_eq!(committed.manifest().parent, Some(Step(1000)));
    assert_eq!(committed.manifest().record_len, 4);
    assert_eq!(fs::read(committed.file("weights.safetensors").unwrap()).unwrap(), b"weights 2000");

    let about = |step| About { step: Some(Step(step)), ..About::default() };
    let best = root.join("best");
    for step in [1000, 2000] {
        commit_folder(&RealDisk, &best, &[("model", b"x")], about(step)).unwrap();
    }
    assert_eq!(Committed::open(&RealDisk, &best).unwrap().manifest().step, Some(Step(2000)));

    for text in ["one", "two"] {
        write_atomic(&RealDisk, &root.join("plan.toml"), text.as_bytes()).unwrap();
    }
    assert_eq!(fs::read(root.join("plan.toml")).unwrap(), b"two");

    fs::create_dir(root.join("step-000002500.draft")).unwrap();
    fs::write(root.join("step-000002500.draft/weights"), b"torn").unwrap();
    let recovered = recover(&RealDisk, &root).unwrap();
    assert_eq!((recovered.swept.len(), recovered.steps), (1, vec![Step(1000), Step(2000)]));

    fs::write(root.join("step-000002000/weights.safetensors"), b"weights 2001").unwrap();
    let error = Committed::open_step(&RealDisk, &root, Step(2000)).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { damage: Damage::WrongDigest { .. }, .. }));
}

#[test]
fn removing_a_link_leaves_what_it_points_at() {
    let folder = tempfile::tempdir().unwrap();
    let (draft, precious) = (folder.path().join("best.draft"), folder.path().join("precious"));
    fs::create_dir(&draft).unwrap();
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), b"years of work").unwrap();
    std::os::unix::fs::symlink(&precious, draft.join("link")).unwrap();
    assert_eq!(recover(&RealDisk, folder.path()).unwrap().swept.len(), 1);
    assert!(!draft.exists());
    assert_eq!(fs::read(precious.join("file")).unwrap(), b"years of work");
}

#[test]
fn a_file_written_in_pieces_is_the_pieces_joined() {
    let disk = FaultDisk::new();
    new_folder(&disk, &root()).unwrap();
    let mut draft = Draft::begin(&disk, &root().join("best"), Bytes(0)).unwrap();
    let lens = [0, 1, 1 << 20, 3 << 20, 5, (1 << 20) - 5, 6];
    let pieces: Vec<Vec<u8>> = lens.iter().zip(1..).map(|(len, byte)| vec![byte; *len]).collect();
    let fill = |file: &mut DraftFile<'_>| pieces.iter().try_for_each(|piece| file.write(piece));
    draft.put_with("model", fill).unwrap();
    let committed = draft.commit(About::default()).unwrap();
    assert_eq!(disk.read(&committed.file("model").unwrap()).unwrap(), pieces.concat());
    Committed::open(&disk, committed.folder()).unwrap();
}

/// Set for the child of the next test: the folder it locks until it is killed.
const LOCK_AND_WAIT: &str = "HEIRLOOM_TEST_LOCK";

#[test]
fn the_lock_of_a_killed_process_is_free() {
    let holder = |since| Holder::this_process(since);
    if let Some(folder) = std::env::var_os(LOCK_AND_WAIT) {
        let folder = PathBuf::from(folder);
        let _lock = RunLock::take(&folder, &holder("10:42")).unwrap();
        fs::write(folder.join("locked"), b"").unwrap();
        loop {
            std::thread::park();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_lock_of_a_killed_process_is_free"])
        .env(LOCK_AND_WAIT, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !folder.path().join("locked").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "the child ended before it had the lock");
        std::thread::yield_now();
    }
    let error = RunLock::take(folder.path(), &holder("10:43")).unwrap_err();
    let Holder { host, .. } = holder("");
    let expected = format!("is in use by process {} on host {host} since 10:42", child.id());
    assert!(error.to_string().contains(&expected), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    RunLock::take(folder.path(), &holder("10:44")).unwrap();
}
