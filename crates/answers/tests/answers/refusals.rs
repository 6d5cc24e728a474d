//! What is not whole, or not what was asked for, is refused with what differs.

use std::fs;
use std::path::Path;

use heirloom_answers::{
    About, Error, Expected, Held, Kept, Kind, KnownRows, Shard, Values, Wanted, keep,
};
use heirloom_base::Digest;
use heirloom_engine::{Cpu, Device};
use heirloom_store::RealDisk;
use proptest::prelude::*;

use crate::tiny::{Texts, about, fill, filled, texts};

fn setting() -> (Texts, About) {
    let rows = texts(40);
    let about = about(&rows, Kind::TopK { k: 6 }, Values::Byte);
    (rows, about)
}

fn begin(folder: &Path, about: &About) -> Result<Held, Error> {
    Held::begin(&RealDisk, folder, about, Wanted::default())
}

fn expected(about: &About) -> Expected {
    Expected {
        teacher: Some(about.teacher),
        tokenizer: about.tokenizer,
        rows: about.rows,
        chat_template: about.chat_template,
        temperature: about.temperature,
        vocabulary: about.vocabulary,
    }
}

/// The message, without the folder's path.
fn said(folder: &Path, error: &Error) -> String {
    error.to_string().replace(&folder.display().to_string(), "DIR")
}

#[test]
fn answers_of_something_else_are_refused_with_what_differs() {
    let (rows, about) = setting();
    let folder = filled(&rows, &about);
    let want = expected(&about);
    assert!(Kept::open(folder.path(), &want).is_ok());
    assert!(Kept::open(folder.path(), &Expected { teacher: None, ..want.clone() }).is_ok());
    let refused = |expected: Expected| {
        let error = Kept::open(folder.path(), &expected).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        said(folder.path(), &error)
    };
    let other = Digest::of(b"other");
    let rows_digest = about.rows.short();
    insta::assert_snapshot!(refused(Expected { teacher: Some(other), ..want.clone() }), @"the answers in `DIR` were kept of another teacher (b438c30f3122, expected 3f796163ebf9); name the folder that belongs to this run, or make one with `heirloom cache`");
    insta::assert_snapshot!(refused(Expected { tokenizer: other, ..want.clone() }), @"the answers in `DIR` were kept of another tokenizer (dcd7fa975da8, expected 3f796163ebf9); name the folder that belongs to this run, or make one with `heirloom cache`");
    insta::assert_snapshot!(refused(Expected { rows: other, ..want.clone() }).replace(&rows_digest, "ROWS"), @"the answers in `DIR` were kept of another text (ROWS, expected 3f796163ebf9); name the folder that belongs to this run, or make one with `heirloom cache`");
    insta::assert_snapshot!(refused(Expected { chat_template: Some(other), ..want.clone() }), @"the answers in `DIR` were kept of another chat template (none, expected 3f796163ebf9); name the folder that belongs to this run, or make one with `heirloom cache`");
    insta::assert_snapshot!(refused(Expected { temperature: 1.0, ..want.clone() }), @"the answers in `DIR` were kept of another temperature (2, expected 1); name the folder that belongs to this run, or make one with `heirloom cache`");
    insta::assert_snapshot!(refused(Expected { vocabulary: 64, ..want.clone() }), @"the answers in `DIR` were kept of another vocabulary (60, expected 64); name the folder that belongs to this run, or make one with `heirloom cache`");
}

#[test]
fn a_folder_is_not_filled_with_answers_of_two_kinds() {
    let (rows, about) = setting();
    let folder = filled(&rows, &about);
    let refused = |about: About| said(folder.path(), &begin(folder.path(), &about).unwrap_err());
    assert!(begin(folder.path(), &about).is_ok());
    insta::assert_snapshot!(refused(About { kind: Kind::TopK { k: 7 }, ..about.clone() }), @r#"the answers in `DIR` were kept of another kind of answer ({"keeps":"top_k","k":6}, expected {"keeps":"top_k","k":7}); name the folder that belongs to this run, or make one with `heirloom cache`"#);
    insta::assert_snapshot!(refused(About { values: Values::F32, ..about.clone() }), @"the answers in `DIR` were kept of another kind of number (Byte, expected F32); name the folder that belongs to this run, or make one with `heirloom cache`");
    insta::assert_snapshot!(refused(About { batch_tokens: 7, ..about.clone() }), @"the answers in `DIR` were kept of another number of tokens at a time (150, expected 7); name the folder that belongs to this run, or make one with `heirloom cache`");
    let empty = tempfile::tempdir().unwrap();
    let refused = |about: About| {
        let error = begin(empty.path(), &about).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    insta::assert_snapshot!(refused(About { kind: Kind::TopK { k: 61 }, ..about.clone() }), @"answers cannot be kept: 61 likeliest of 60 tokens");
    insta::assert_snapshot!(refused(About { kind: Kind::Samples { draws: 0, proposal: 1.0 }, ..about.clone() }), @"answers cannot be kept: 0 draws; from 1 to 65536 can be kept");
    insta::assert_snapshot!(refused(About { kind: Kind::Samples { draws: 9, proposal: 0.0 }, ..about.clone() }), @"answers cannot be kept: the proposal's temperature is 0");
    insta::assert_snapshot!(refused(About { kind: Kind::States { width: 8 }, ..about.clone() }), @"answers cannot be kept: hidden states are kept as bf16 or f32");
    insta::assert_snapshot!(refused(About { temperature: -1.0, ..about.clone() }), @"answers cannot be kept: the temperature is -1");
}

#[test]
fn what_is_missing_changed_or_cut_is_named() {
    let (rows, about) = setting();
    let folder = filled(&rows, &about);
    let path = folder.path().join("part-00001.answers");
    let bytes = fs::read(&path).unwrap();
    let first = fs::read(folder.path().join("part-00000.answers")).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let checked = Kept::open_any(folder.path()).and_then(|kept| kept.check());
        let error = checked.unwrap_err();
        assert_eq!(error.exit_code(), 3);
        said(folder.path(), &error)
    };
    let changed = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    insta::assert_snapshot!(refused(&changed(200)), @"`DIR/part-00001.answers` was changed in block 0 (tokens 0..554 of the file); remove it and go on with the `heirloom cache` that made it");
    insta::assert_snapshot!(refused(&changed(bytes.len() - 1)), @"`DIR/part-00001.answers` was cut or is no file of answers; remove it and go on with the `heirloom cache` that made it");
    insta::assert_snapshot!(refused(&changed(16)), @"`DIR/part-00001.answers` has format 0, this build reads format 1; remove it and go on with the `heirloom cache` that made it");
    insta::assert_snapshot!(refused(&changed(30)), @"`DIR/part-00001.answers` belongs to another folder or another place in it; remove it and go on with the `heirloom cache` that made it");
    insta::assert_snapshot!(refused(&first), @"`DIR/part-00001.answers` belongs to another folder or another place in it; remove it and go on with the `heirloom cache` that made it");
    for cut in [0, 10, 56, 100, bytes.len() / 2, bytes.len() - 40, bytes.len() - 1] {
        assert!(refused(&bytes[..cut]).contains("was cut or is no file of answers"), "{cut}");
    }
    assert!(refused(&[&bytes[..], b"more"].concat()).contains("was cut"));

    fs::remove_file(&path).unwrap();
    let error = Kept::open_any(folder.path()).unwrap_err();
    insta::assert_snapshot!(said(folder.path(), &error), @"the answers in `DIR` are not all there: 1 of 2 files are missing, `part-00001.answers` first; go on with the `heirloom cache` that began them");
    assert_eq!(error.exit_code(), 3);
    // Which is what mends it.
    assert!(fill(&RealDisk, folder.path(), &rows, &about, Shard::WHOLE, usize::MAX).unwrap());
    assert_eq!(fs::read(&path).unwrap(), bytes);

    let nowhere = tempfile::tempdir().unwrap();
    let error = Kept::open_any(nowhere.path()).unwrap_err();
    insta::assert_snapshot!(said(nowhere.path(), &error), @"`DIR` holds no kept answers: it has no cache.json; make them with `heirloom cache`");
}

#[test]
fn a_changed_block_is_refused_when_it_is_read_and_the_others_are_read() {
    let (rows, about) = setting();
    let folder = filled(&rows, &about);
    let path = folder.path().join("part-00000.answers");
    let mut bytes = fs::read(&path).unwrap();
    bytes[300] ^= 64;
    fs::write(&path, bytes).unwrap();
    let kept = Kept::open_any(folder.path()).unwrap();
    let read = |row: usize| kept.read_known(row, 0..3, &mut KnownRows::default());
    assert!(read(29).is_ok() && read(31).is_ok());
    let error = read(2).unwrap_err();
    assert!(error.to_string().contains("was changed in block 0 (tokens 0..1024"), "{error}");
}

#[test]
fn no_bit_of_cache_json_goes_unseen() {
    let (rows, about) = setting();
    let folder = filled(&rows, &about);
    let path = folder.path().join("cache.json");
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&path, changed).unwrap();
        match Kept::open_any(folder.path()) {
            Err(error) => assert_eq!(error.exit_code(), 3),
            // Between the tokens of JSON another blank changes nothing.
            Ok(kept) => assert_eq!(*kept.about(), about, "byte {at}"),
        }
    }
}

#[test]
fn rows_that_the_teacher_cannot_read_are_named() {
    let refused = |change: &dyn Fn(&mut Texts)| {
        let mut rows = texts(5);
        change(&mut rows);
        let about = about(&rows, Kind::TopK { k: 3 }, Values::Byte);
        let folder = tempfile::tempdir().unwrap();
        let error =
            fill(&RealDisk, folder.path(), &rows, &about, Shard::WHOLE, usize::MAX).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    };
    insta::assert_snapshot!(refused(&|rows| rows.0[3].ids[5] = 60), @"row 3 cannot be answered: token 60, and the teacher knows 60; its tokenizer is another");
    insta::assert_snapshot!(refused(&|rows| {
        let long = &mut rows.0[2];
        long.ids = vec![1; 97];
        long.labels = vec![1; 97];
        long.starts = vec![0, 97];
    }), @"row 2 cannot be answered: a document of 97 tokens, and the teacher has 96 positions; cut rows shorter");
}

#[test]
fn an_answer_that_is_no_number_is_never_kept() {
    let (rows, about) = setting();
    let folder = tempfile::tempdir().unwrap();
    let held = begin(folder.path(), &about).unwrap();
    let mut device = Cpu::new(1);
    let teacher = crate::tiny::teacher(&mut device);
    device.fill(teacher.head().row_range(3..4), f32::NAN);
    let place = (&RealDisk as &dyn heirloom_store::Disk, folder.path(), Shard::WHOLE);
    let error = keep(&mut device, &teacher, &rows, &held, place, &mut |_| true).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("the teacher's answer to its token 1 is no number"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_changed_byte_of_a_file_goes_unseen(at in any::<prop::sample::Index>(), flip in 1u8..) {
        thread_local! {
            static WHOLE: (tempfile::TempDir, Vec<u8>) = {
                let rows = texts(20);
                let about = about(&rows, Kind::Samples { draws: 5, proposal: 0.7 }, Values::Byte);
                let folder = filled(&rows, &about);
                let bytes = fs::read(folder.path().join("part-00000.answers")).unwrap();
                (folder, bytes)
            };
        }
        WHOLE.with(|(folder, bytes)| {
            let mut bytes = bytes.clone();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            fs::write(folder.path().join("part-00000.answers"), bytes).unwrap();
            let checked = Kept::open_any(folder.path()).and_then(|kept| kept.check());
            prop_assert!(checked.is_err(), "byte {}", at);
            Ok(())
        })?;
    }
}
