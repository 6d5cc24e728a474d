//! Every operation of every kind of work fails in every way, then the power goes in every way; a
//! reader must find the old state or the new, whole, and the new one where the work said `Ok`.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a helper fails its test")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use heirloom_base::{Bytes, Step};
use heirloom_store::{
    About, Committed, Disk, Doing, Draft, Keep, Log, Result, StoreError, commit_folder, new_folder,
    recover, verify, write_atomic,
};
use heirloom_testkit::{Cause, Crash, Fault, FaultDisk, Lasting};

/// A run folder and something that is done in it.
struct Work {
    /// What was there before, durably.
    prepare: fn(&FaultDisk),
    /// What is interrupted.
    work: fn(&FaultDisk) -> Result<()>,
    /// What must hold after recovery; told whether the work said `Ok`.
    holds: fn(&FaultDisk, bool) -> std::result::Result<(), String>,
}

fn root() -> PathBuf {
    PathBuf::from("runs/x")
}

fn about(step: u64) -> About {
    About { step: Some(Step(step)), ..About::default() }
}

/// Long enough to be torn; different for each step.
fn weights(step: u64) -> Vec<u8> {
    format!("the weights of step {step}").into_bytes()
}

fn save_as(disk: &FaultDisk, folder: &Path, step: u64) -> Result<Committed> {
    let mut draft = Draft::begin(disk, folder, Bytes(1_600_000_000))?;
    draft.put("weights.safetensors", &weights(step))?;
    draft.put("state.safetensors", b"moments, cursor, counters")?;
    draft.commit(about(step))
}

fn save(disk: &FaultDisk, step: u64) -> Result<Committed> {
    save_as(disk, &root().join(format!("step-{step:09}")), step)
}

fn said<T>(outcome: std::result::Result<T, impl ToString>) -> std::result::Result<T, String> {
    outcome.map_err(|error| error.to_string())
}

/// The step whose weights the folder holds, all of it checked.
fn opened(disk: &FaultDisk, folder: &Path) -> std::result::Result<u64, String> {
    let committed = said(Committed::open(disk, folder))?;
    let step = committed.manifest().step.ok_or("no step in the manifest")?.0;
    let have = said(disk.read(&said(committed.file("weights.safetensors"))?))?;
    if have == weights(step) { Ok(step) } else { Err(format!("other weights: {have:?}")) }
}

fn steps(disk: &FaultDisk) -> std::result::Result<Vec<u64>, String> {
    let steps = said(recover(disk, &root()))?.steps.into_iter();
    steps.map(|Step(step)| opened(disk, &root().join(format!("step-{step:09}")))).collect()
}

const SAVE: Work = Work {
    prepare: |disk| {
        new_folder(disk, &root()).unwrap();
        save(disk, 1000).unwrap();
    },
    work: |disk| save(disk, 2000).map(drop),
    holds: |disk, done| match steps(disk)?[..] {
        [1000, 2000] => Ok(()),
        [1000] if !done => Ok(()),
        ref other => Err(format!("steps {other:?}")),
    },
};

const REPLACE: Work = Work {
    prepare: |disk| {
        new_folder(disk, &root()).unwrap();
        save_as(disk, &root().join("best"), 1000).unwrap();
    },
    work: |disk| save_as(disk, &root().join("best"), 2000).map(drop),
    holds: |disk, done| match opened(disk, &root().join("best"))? {
        2000 => Ok(()),
        1000 if !done => Ok(()),
        other => Err(format!("best is of step {other}")),
    },
};

const PRUNE: Work = Work {
    prepare: |disk| {
        new_folder(disk, &root()).unwrap();
        for step in [1000, 2000, 3000] {
            save(disk, step).unwrap();
        }
    },
    work: |disk| {
        let newest = Committed::open_step(disk, &root(), Step(3000))?;
        let keep = Keep { last: NonZeroUsize::MIN, named: [Step(2000)].into() };
        keep.prune(disk, &newest).map(drop)
    },
    holds: |disk, done| match steps(disk)?[..] {
        [2000, 3000] => Ok(()),
        [1000, 2000, 3000] if !done => Ok(()),
        ref other => Err(format!("steps {other:?}")),
    },
};

const FILE: Work = Work {
    prepare: |disk| {
        new_folder(disk, &root()).unwrap();
        write_atomic(disk, &root().join("plan.toml"), b"the old plan").unwrap();
    },
    work: |disk| write_atomic(disk, &root().join("plan.toml"), b"a new plan"),
    holds: |disk, done| match &said(disk.read(&root().join("plan.toml")))?[..] {
        b"a new plan" => Ok(()),
        b"the old plan" if !done => Ok(()),
        other => Err(format!("plan {other:?}")),
    },
};

const RECORD: Work = Work {
    prepare: |disk| {
        new_folder(disk, &root()).unwrap();
        let mut log = Log::create(disk, &root().join("run.jsonl")).unwrap();
        log.append(&1).unwrap();
        log.append(&2).unwrap();
        log.sync().unwrap();
    },
    // As after a resume: cut back to one line, then go on.
    work: |disk| {
        let mut log = Log::open(disk, &root().join("run.jsonl"))?;
        log.truncate_to(2)?;
        log.append(&333_333)?;
        log.append(&444_444)?;
        log.sync()
    },
    holds: |disk, done| {
        let mut log = said(Log::open(disk, &root().join("run.jsonl")))?;
        let len = log.len();
        said(log.truncate_to(2))?;
        if done && len != 16 { Err(format!("{len} bytes in whole lines")) } else { Ok(()) }
    },
};

/// Interrupts the work at every operation, in every way; gives how many faults fired, and the first
/// disk on which the promise is broken.
fn first_broken(work: &Work, forget: Option<(Doing, usize)>) -> (usize, Option<String>) {
    let mut fired = 0;
    for after in 0.. {
        let before = fired;
        for fault in Fault::all(after) {
            let disk = FaultDisk::new();
            (work.prepare)(&disk);
            if let Some((verb, nth)) = forget {
                disk.forget(verb, nth);
            }
            disk.fail(fault);
            let outcome = (work.work)(&disk);
            fired += disk.fired();
            for crash in Crash::all() {
                if let Err(why) = check(work, &disk.after(crash), outcome.is_ok()) {
                    return (fired, Some(format!("{fault:?}, {crash:?}, {outcome:?}: {why}")));
                }
            }
        }
        if fired == before {
            return (fired, None);
        }
    }
    unreachable!("the loop ends with the first work that meets no fault")
}

/// Checks what a crash left.
fn check(work: &Work, left: &FaultDisk, done: bool) -> std::result::Result<(), String> {
    said(recover(left, &root()))?;
    (work.holds)(left, done)?;
    let again = said(recover(left, &root()))?;
    if !again.swept.is_empty() {
        return Err(format!("a second recovery found {:?}", again.swept));
    }
    match said(verify(left, &root()))?.iter().find(|finding| finding.is_damage()) {
        Some(finding) => Err(finding.to_string()),
        None => Ok(()),
    }
}

#[track_caller]
fn survives(work: &Work) {
    let (fired, broken) = first_broken(work, None);
    assert_eq!(broken, None);
    assert!(fired > 10, "only {fired} faults fired");
}

#[test]
fn a_checkpoint_is_whole_or_absent() {
    survives(&SAVE);
}

#[test]
fn a_folder_that_is_replaced_is_the_old_one_or_the_new() {
    survives(&REPLACE);
}

#[test]
fn removing_old_checkpoints_never_leaves_a_part_of_one() {
    survives(&PRUNE);
}

#[test]
fn a_single_file_is_the_old_one_or_the_new() {
    survives(&FILE);
}

#[test]
fn a_record_can_be_cut_back_and_continued_after_any_fault() {
    survives(&RECORD);
}

/// Skips each sync in turn: if nobody notices, either the harness is blind or the sync is idle.
#[track_caller]
fn every_sync_is_needed(work: &Work, verb: Doing) {
    let disk = FaultDisk::new();
    (work.prepare)(&disk);
    disk.forget(verb, usize::MAX);
    (work.work)(&disk).unwrap();
    let calls = disk.calls(verb);
    assert!(calls > 0, "the work never asked to {verb}");
    for nth in 0..calls {
        let (_, broken) = first_broken(work, Some((verb, nth)));
        assert!(broken.is_some(), "nobody missed call {nth} of {calls} to {verb}");
    }
}

#[test]
fn the_harness_notices_a_missing_sync_of_contents() {
    every_sync_is_needed(&SAVE, Doing::Sync);
    every_sync_is_needed(&REPLACE, Doing::Sync);
    every_sync_is_needed(&FILE, Doing::Sync);
}

#[test]
fn the_harness_notices_a_missing_sync_of_names() {
    every_sync_is_needed(&SAVE, Doing::SyncDir);
    every_sync_is_needed(&PRUNE, Doing::SyncDir);
    every_sync_is_needed(&FILE, Doing::SyncDir);
}

#[test]
fn a_crash_during_recovery_is_one_more_crash() {
    let kill = |after| Fault { after, cause: Cause::Broken, lasting: Lasting::ForGood };
    let mut fired = 0;
    for work in [&SAVE, &REPLACE, &PRUNE] {
        for first_kill in 0.. {
            let disk = FaultDisk::new();
            (work.prepare)(&disk);
            disk.fail(kill(first_kill));
            let outcome = (work.work)(&disk);
            for second_kill in 0.. {
                let left = disk.after(Crash::KILL);
                left.fail(kill(second_kill));
                let interrupted = recover(&left, &root()).is_err();
                fired += left.fired();
                for crash in Crash::all() {
                    if let Err(why) = check(work, &left.after(crash), outcome.is_ok()) {
                        panic!("killed at {first_kill}, then {second_kill}, {crash:?}: {why}");
                    }
                }
                if !interrupted {
                    break;
                }
            }
            if disk.fired() == 0 {
                break;
            }
        }
    }
    assert!(fired > 100, "only {fired} faults fired");
}

#[test]
fn a_full_disk_says_how_much_is_missing_and_what_is_intact() {
    let mut full = 0;
    for after in 0.. {
        let disk = FaultDisk::new();
        (SAVE.prepare)(&disk);
        let before = disk.list(&root()).unwrap();
        disk.fail(Fault { after, cause: Cause::NoRoom, lasting: Lasting::ForGood });
        let outcome = save(&disk, 2000);
        if disk.fired() == 0 {
            break;
        }
        full += 1;
        disk.mend();
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::NoRoom { .. }), "{error}");
        assert_eq!(error.exit_code(), 4);
        insta::allow_duplicates! {
            insta::assert_snapshot!(error, @"no room for `runs/x/step-000002000`: needs 1.6 GB, 300.0 MB free; step 1000 is intact; free space and run `heirloom resume runs/x`");
        }
        assert_eq!(disk.list(&root()).unwrap(), before, "the draft is gone, the rest is there");
    }
    assert!(full > 3, "only {full} operations need room");
}

#[test]
fn a_record_that_cannot_be_written_is_an_error() {
    let disk = FaultDisk::new();
    (RECORD.prepare)(&disk);
    let mut log = Log::open(&disk, &root().join("run.jsonl")).unwrap();
    disk.fail(Fault { after: 0, cause: Cause::NoRoom, lasting: Lasting::Once });
    let error = log.append(&"a line that is torn").unwrap_err();
    assert_eq!((error.exit_code(), disk.fired()), (4, 1));
    insta::assert_snapshot!(error, @"no room for `runs/x/run.jsonl`: needs 22 B, 300.0 MB free; free space and run the command again");
    log.append(&3).unwrap();
    assert_eq!(disk.read(&root().join("run.jsonl")).unwrap(), b"1\n2\n3\n");
    assert_eq!(verify(&disk, &root()).unwrap(), []);
}

#[test]
fn recovery_says_what_a_killed_save_left() {
    let disk = FaultDisk::new();
    (SAVE.prepare)(&disk);
    disk.fail(Fault { after: 6, cause: Cause::Broken, lasting: Lasting::ForGood });
    save(&disk, 2500).unwrap_err();
    assert!(disk.fired() > 0);
    disk.mend();
    let findings = verify(&disk, &root()).unwrap();
    insta::assert_snapshot!(findings[0], @"`runs/x/step-000002500.draft` was left by a crash; the next resume sweeps it");
    assert!(!findings[0].is_damage());
    let recovered = recover(&disk, &root()).unwrap();
    assert_eq!(recovered.steps, [Step(1000)]);
    insta::assert_snapshot!(recovered.swept[0], @"found an unfinished checkpoint for step 2500 (crash?); removed it");
    assert_eq!(verify(&disk, &root()).unwrap(), []);
}

#[test]
fn recovery_leaves_what_the_store_did_not_write() {
    let disk = FaultDisk::new();
    (SAVE.prepare)(&disk);
    disk.write(&root().join("notes.draft"), b"mine").unwrap();
    disk.create_dir(&root().join("best.old")).unwrap();
    let before = disk.list(&root()).unwrap();
    assert_eq!(recover(&disk, &root()).unwrap().swept, []);
    assert_eq!(disk.list(&root()).unwrap(), before);
}

#[test]
fn a_draft_that_is_dropped_is_gone() {
    let disk = FaultDisk::new();
    (SAVE.prepare)(&disk);
    let before = disk.list(&root()).unwrap();
    let mut draft = Draft::of_step(&disk, &root(), Step(3000), Bytes(0)).unwrap();
    draft.put("weights.safetensors", b"never finished").unwrap();
    drop(draft);
    assert_eq!(disk.list(&root()).unwrap(), before);
}

#[test]
fn a_new_run_needs_an_empty_folder() {
    let disk = FaultDisk::new();
    new_folder(&disk, &root()).unwrap();
    disk.write(&root().join("lock"), b"").unwrap();
    new_folder(&disk, &root()).unwrap();
    commit_folder(&disk, &root().join("best"), &[("config.json", b"{}")], about(1)).unwrap();
    let error = new_folder(&disk, &root()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    insta::assert_snapshot!(error, @"`runs/x` is not empty (it holds `best`); choose another folder, or continue the run in it with `heirloom resume runs/x`");
}
