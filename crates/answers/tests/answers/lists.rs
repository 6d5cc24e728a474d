//! A folder that answers some rows: the same answers, more rows later, and nothing that is not its own.

use std::fs;
use std::path::Path;

use heirloom_answers::{About, Error, Held, Kept, Kind, KnownRows, Shard, Values, Wanted};
use heirloom_engine::IGNORED;
use heirloom_store::RealDisk;

use crate::tiny::{Texts, about, files, fill_rows, filled, texts};

const ALL: usize = usize::MAX;
const SOME: [u32; 35] = {
    let mut rows = [0; 35];
    let mut at = 0;
    while at < 35 {
        rows[at] = 2 * at as u32 + 1;
        at += 1;
    }
    rows
};

fn setting() -> (Texts, About) {
    let rows = texts(80);
    let about = about(&rows, Kind::TopK { k: 6 }, Values::F32);
    (rows, about)
}

fn add(folder: &Path, wanted: &[u32], shard: Shard, batches: usize) -> Result<bool, Error> {
    let (rows, about) = setting();
    let wanted = Wanted { rows: Some(wanted), teacher: Some("its/folder") };
    fill_rows(&RealDisk, folder, &rows, &about, wanted, shard, batches)
}

fn some() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert!(add(folder.path(), &SOME, Shard::WHOLE, ALL).unwrap());
    folder
}

fn row_of(kept: &Kept, row: u32) -> KnownRows {
    let (mut known, row) = (KnownRows::default(), row as usize);
    kept.read_known(row, 0..kept.length(row).unwrap(), &mut known).unwrap();
    known
}

#[test]
fn rows_of_a_list_have_the_answers_that_they_have_among_all() {
    let (rows, about) = setting();
    let (whole, some) = (filled(&rows, &about), some());
    let kept = [whole.path(), some.path()].map(|folder| Kept::open_any(folder).unwrap());
    assert_eq!((kept[1].held().rows(), kept[1].held().len()), (SOME.to_vec(), SOME.len()));
    assert_eq!(kept[1].held().teacher_folder(), Some("its/folder"));
    assert!(kept[1].tokens() < kept[0].tokens() && kept[0].tokens() == about.token_count);
    for row in SOME {
        let [want, got] = [&kept[0], &kept[1]].map(|kept| row_of(kept, row));
        // The teacher read other rows beside this one, which may change last bits.
        assert!(got.ids.iter().any(|&id| id != IGNORED) && got.ids == want.ids, "row {row}");
        for (got, want) in got.probabilities.iter().zip(&want.probabilities) {
            assert!((got - want).abs() < 1e-6, "row {row}: {got}, want {want}");
        }
    }
    let error = kept[1].read_known(4, 0..1, &mut KnownRows::default()).unwrap_err();
    assert!(matches!(error, Error::NotHeld { row: 4, .. }), "{error}");
    assert!(kept[1].check_rows(&SOME).is_ok());
    let error = kept[1].check_rows(&[1, 2, 3, 4]).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    let said = error.to_string().replace(&some.path().display().to_string(), "DIR");
    insta::assert_snapshot!(said, @"the answers in `DIR` miss 2 of 4 rows that are asked for, row 2 first; add them with `heirloom cache`");
}

#[test]
fn rows_are_added_and_what_was_there_keeps_its_bytes() {
    let folder = some();
    let before = files(folder.path());
    let digests =
        || Kept::open_any(folder.path()).map(|kept| (kept.digest(), kept.lasting_digest()));
    let (bytes, lasting) = digests().unwrap();
    // Nothing is missing, so nothing is done.
    assert!(add(folder.path(), &SOME[3..9], Shard::WHOLE, ALL).unwrap());
    assert_eq!(files(folder.path()), before);
    assert!(add(folder.path(), &[0, 1, 2, 3, 70], Shard::WHOLE, ALL).unwrap());
    let kept = Kept::open_any(folder.path()).unwrap();
    assert_eq!(kept.held().rows(), [&SOME[..], &[0, 2, 70]].concat());
    assert!(kept.check().is_ok() && row_of(&kept, 70) != row_of(&kept, 69));
    let after = files(folder.path());
    assert!(before.iter().all(|file| after.contains(file)));
    let (more_bytes, still) = digests().unwrap();
    assert!(more_bytes != bytes && still == lasting);

    // All others too.
    let (rows, about) = setting();
    let wanted = Wanted::default();
    let done = fill_rows(&RealDisk, folder.path(), &rows, &about, wanted, Shard::WHOLE, ALL);
    assert!(done.unwrap());
    assert_eq!(Kept::open_any(folder.path()).unwrap().held().len(), 80);
}

#[test]
fn many_machines_and_processes_that_stop_make_the_same_bytes() {
    let want = files(some().path());
    let shared = tempfile::tempdir().unwrap();
    for number in [2, 1] {
        assert!(add(shared.path(), &SOME, Shard { number, of: 2 }, ALL).unwrap());
    }
    assert_eq!(files(shared.path()), want);
    let stopped = tempfile::tempdir().unwrap();
    for batches in [1, 9, ALL] {
        add(stopped.path(), &SOME, Shard::WHOLE, batches).unwrap();
    }
    assert_eq!(files(stopped.path()), want);
}

#[test]
fn lists_that_changed_are_missing_or_are_another_folders_are_refused() {
    let folder = some();
    assert!(add(folder.path(), &[0], Shard::WHOLE, ALL).unwrap());
    let list = |number: usize| folder.path().join(format!("rows-0000{number}.list"));
    let bytes = [0, 1].map(|number| fs::read(list(number)).unwrap());
    let refused = || {
        let checked = Kept::open_any(folder.path()).and_then(|kept| kept.check());
        let error = checked.unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string().replace(&folder.path().display().to_string(), "DIR")
    };
    for at in 0..bytes[1].len() {
        let mut changed = bytes[1].clone();
        changed[at] ^= 1;
        fs::write(list(1), changed).unwrap();
        assert!(refused().contains("`DIR/rows-00001.list` was changed or cut"), "byte {at}");
    }
    for cut in [0, 30, 60, bytes[1].len() - 1] {
        fs::write(list(1), &bytes[1][..cut]).unwrap();
        assert!(refused().contains("was changed or cut"), "{cut}");
    }
    fs::write(list(1), &bytes[0]).unwrap();
    insta::assert_snapshot!(refused(), @"`DIR/rows-00001.list` belongs to another folder or another place in it; remove it and go on with the `heirloom cache` that made it");
    fs::write(list(1), &bytes[1]).unwrap();
    fs::remove_file(list(0)).unwrap();
    insta::assert_snapshot!(refused(), @"the answers in `DIR` have lost `rows-00000.list`, without which nobody knows what the files answer; put it back, or keep the answers again in another folder");

    // A list of other rows, whole and of the same answers, beside files that are not to them.
    let other = tempfile::tempdir().unwrap();
    add(other.path(), &[2, 4, 6], Shard::WHOLE, 1).unwrap();
    fs::copy(other.path().join("rows-00000.list"), list(0)).unwrap();
    fs::remove_file(list(1)).unwrap();
    insta::assert_snapshot!(refused(), @"`DIR/part-00000.answers` belongs to another folder or another place in it; remove it and go on with the `heirloom cache` that made it");
}

#[test]
fn a_folder_that_answers_all_rows_stays_one() {
    let (rows, about) = setting();
    let folder = filled(&rows, &about);
    let before = files(folder.path());
    assert!(add(folder.path(), &SOME, Shard::WHOLE, ALL).unwrap());
    assert_eq!(files(folder.path()), before);
    assert!(Held::open(&RealDisk, folder.path()).unwrap().has(79));
}
