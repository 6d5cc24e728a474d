//! A process that ends anywhere leaves what the next one goes on with, to the same bytes.

use std::path::{Path, PathBuf};

use heirloom_answers::{About, Kind, Shard, Values};
use heirloom_store::{Disk, RealDisk};
use heirloom_testkit::{Crash, Fault, FaultDisk};

use crate::tiny::{Texts, about, files, fill, filled, texts};

const ALL: usize = usize::MAX;

fn setting() -> (Texts, About) {
    let rows = texts(25);
    let about = about(&rows, Kind::TopK { k: 6 }, Values::Byte);
    (rows, about)
}

#[test]
fn a_process_that_stops_after_any_batch_is_gone_on_with_to_the_same_bytes() {
    let (rows, about) =
        (texts(70), about(&texts(70), Kind::Samples { draws: 7, proposal: 1.0 }, Values::Byte));
    let want = files(filled(&rows, &about).path());
    for batches in [1, 2, 5, 9] {
        let folder = tempfile::tempdir().unwrap();
        let mut calls = 0;
        while !fill(&RealDisk, folder.path(), &rows, &about, Shard::WHOLE, batches).unwrap() {
            calls += 1;
            // Whole blocks alone are kept: a process that never gets that far never ends.
            if calls > 40 {
                break;
            }
        }
        let done = fill(&RealDisk, folder.path(), &rows, &about, Shard::WHOLE, ALL).unwrap();
        assert!(done && calls > 0);
        assert_eq!(files(folder.path()), want, "{batches} batches at a time");
    }
}

#[test]
fn a_draft_that_ends_anywhere_is_gone_on_with_to_the_same_bytes() {
    let (rows, about) = setting();
    let whole = filled(&rows, &about);
    let want = files(whole.path());
    let part = &want.iter().find(|(name, _)| name.starts_with("part")).unwrap().1;
    let first = 56 + first_block(part);
    let mut cuts = vec![0, 1, 55, 56, 57, 60, 65, first / 2, first - 1, first, first + 1];
    cuts.extend([first + 9, part.len() - 300, part.len() - 37, part.len() - 1, part.len()]);
    for cut in cuts {
        for tail in [&[][..], &[0; 100], b"something else"] {
            let folder = tempfile::tempdir().unwrap();
            fill(&RealDisk, folder.path(), &rows, &about, Shard::WHOLE, 1).unwrap();
            let draft = folder.path().join("part-00000.answers.filling-1-of-1");
            std::fs::write(&draft, [&part[..cut], tail].concat()).unwrap();
            assert!(fill(&RealDisk, folder.path(), &rows, &about, Shard::WHOLE, ALL).unwrap());
            assert_eq!(files(folder.path()), want, "cut at {cut} of {}", part.len());
        }
    }
}

/// Bytes of the first block.
fn first_block(part: &[u8]) -> usize {
    let word = |at: usize| u32::from_le_bytes(part[at..at + 4].try_into().unwrap()) as usize;
    let (tokens, answers, bits) = (word(56), word(60), part[64] as usize);
    assert_eq!(tokens, 1024);
    9 + (tokens * bits).div_ceil(8) + answers + 32
}

#[test]
fn a_draft_of_other_answers_is_not_gone_on_with() {
    let (rows, about) = setting();
    let other = About { temperature: 1.0, ..about.clone() };
    let (folder, want) = (tempfile::tempdir().unwrap(), files(filled(&rows, &about).path()));
    let foreign = files(filled(&rows, &other).path()).pop().unwrap();
    fill(&RealDisk, folder.path(), &rows, &about, Shard::WHOLE, 1).unwrap();
    let draft = folder.path().join(foreign.0 + ".filling-1-of-1");
    std::fs::write(draft, foreign.1).unwrap();
    assert!(fill(&RealDisk, folder.path(), &rows, &about, Shard::WHOLE, ALL).unwrap());
    assert_eq!(files(folder.path()), want);
}

fn root() -> PathBuf {
    PathBuf::from("/kept")
}

fn new_disk() -> FaultDisk {
    let disk = FaultDisk::new();
    disk.create_dir(&root()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn bytes_on(disk: &dyn Disk) -> [Vec<u8>; 2] {
    ["cache.json", "part-00000.answers"].map(|name| disk.read(&root().join(name)).unwrap())
}

#[test]
fn whichever_operation_of_the_disk_fails_and_whatever_a_power_cut_leaves() {
    let (rows, about) = setting();
    let go_on = |disk: &FaultDisk| fill(disk, &root(), &rows, &about, Shard::WHOLE, ALL);
    let disk = new_disk();
    assert!(go_on(&disk).unwrap());
    let want = bytes_on(&disk);
    let (mut after, mut fired) = (0, true);
    while fired {
        fired = false;
        for fault in Fault::all(after) {
            let disk = new_disk();
            disk.fail(fault);
            let outcome = go_on(&disk);
            let failed = disk.fired() > 0;
            fired |= failed;
            assert!(outcome.is_ok() || failed, "{fault:?}");
            disk.mend();
            // Every kind of power cut after an ordinary failure, and the mended disk itself.
            if failed && after % 3 == 0 {
                for crash in Crash::all().into_iter().step_by(7) {
                    let left = disk.after(crash);
                    if left.list(&root()).is_ok() {
                        assert!(go_on(&left).unwrap(), "{fault:?} {crash:?}");
                        assert_eq!(bytes_on(&left), want, "{fault:?} {crash:?}");
                    }
                }
            }
            assert!(go_on(&disk).unwrap(), "{fault:?}");
            assert_eq!(bytes_on(&disk), want, "{fault:?}");
        }
        after += 1;
    }
    assert!(after > 10, "{after} operations");
}

#[test]
fn no_power_cut_takes_back_what_is_done() {
    let (rows, about) = setting();
    let disk = new_disk();
    assert!(fill(&disk, &root(), &rows, &about, Shard::WHOLE, ALL).unwrap());
    for crash in Crash::all() {
        assert_eq!(bytes_on(&disk.after(crash)), bytes_on(&disk), "{crash:?}");
    }
}
