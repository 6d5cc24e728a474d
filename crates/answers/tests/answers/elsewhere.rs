//! Answers in a folder elsewhere: filled by many machines, brought here, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use heirloom_answers::{
    About, Error, Expected, Fetched, Kept, Kind, Shard, Values, Wanted, fetch, fetch_about, is_part,
};
use heirloom_base::Bytes;
use heirloom_store::{DiskError, Doing, Elsewhere, Entry, Kind as FileKind, Mirror, RealDisk};

use crate::tiny::{Texts, about, files, fill_rows, filled, texts};

const ALL: usize = usize::MAX;

/// A folder elsewhere, in memory.
#[derive(Default)]
struct Shelf {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: Mutex<Vec<String>>,
    /// Puts that succeed before one that fails, which happens `before` or after the file is there.
    failing: Mutex<Option<(usize, bool)>>,
    /// What another machine puts in the instant before this one does.
    rival: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Shelf {
    fn refuses(&self, name: &str) -> DiskError {
        let (path, source) = (self.address_of(name), std::io::Error::other("the line is dead"));
        DiskError { doing: Doing::Write, path, source }
    }

    fn all(&self) -> Vec<(String, Vec<u8>)> {
        self.files.lock().unwrap().clone().into_iter().collect()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.files.lock().unwrap().get_mut(name).unwrap());
    }
}

impl Elsewhere for Shelf {
    fn address(&self) -> &'static str {
        "s3://shelf/kept"
    }

    fn list(&self) -> Result<Vec<Entry>, DiskError> {
        let entry = |(name, bytes): (&String, &Vec<u8>)| Entry {
            name: name.clone(),
            kind: FileKind::File(Bytes(bytes.len() as u64)),
        };
        Ok(self.files.lock().unwrap().iter().map(entry).collect())
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        self.asked.lock().unwrap().push(name.to_owned());
        Ok(self.files.lock().unwrap().get(name).cloned())
    }

    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool, DiskError> {
        let mut failing = self.failing.lock().unwrap();
        let fails = match &mut *failing {
            Some((0, before)) => Some(*before),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if fails == Some(true) {
            return Err(self.refuses(name));
        }
        let mut files = self.files.lock().unwrap();
        if let Some(first) = self.rival.lock().unwrap().remove(name) {
            files.insert(name.to_owned(), first);
        }
        let free = !files.contains_key(name);
        files.entry(name.to_owned()).or_insert(bytes);
        match fails {
            Some(_) => Err(self.refuses(name)),
            None => Ok(free),
        }
    }
}

fn setting() -> (Texts, About) {
    let rows = texts(100);
    let about = about(&rows, Kind::TopK { k: 6 }, Values::Byte);
    (rows, about)
}

fn expected(about: &About) -> Expected {
    Expected {
        teacher: Some(about.teacher),
        tokenizer: about.tokenizer,
        rows: about.rows,
        chat_template: None,
        temperature: about.temperature,
        vocabulary: about.vocabulary,
    }
}

/// What `heirloom cache` does with an address.
fn fill(
    shelf: &Shelf,
    folder: &Path,
    wanted: Wanted<'_>,
    shard: Shard,
    batches: usize,
) -> Result<bool, Error> {
    let (rows, about) = setting();
    let mirror = Mirror::new(&RealDisk, shelf, folder);
    match fetch_about(&RealDisk, shelf, folder) {
        Ok(_) => drop(mirror.catch_up(is_part)?),
        Err(Error::NotThere { .. }) => {}
        Err(error) => return Err(error),
    }
    fill_rows(&mirror, folder, &rows, &about, wanted, shard, batches)
}

fn whole() -> Shelf {
    let shelf = Shelf::default();
    let machine = tempfile::tempdir().unwrap();
    assert!(fill(&shelf, machine.path(), Wanted::default(), Shard::WHOLE, ALL).unwrap());
    shelf
}

fn bring(shelf: &Shelf, folder: &Path) -> Result<bool, Error> {
    fetch(shelf, folder, &fetch_about(&RealDisk, shelf, folder)?, &mut |_| true)
}

#[test]
fn machines_that_share_no_disk_fill_one_folder() {
    let (rows, about) = setting();
    let want = files(filled(&rows, &about).path());
    let shelf = Shelf::default();
    for number in [2, 3, 1] {
        let machine = tempfile::tempdir().unwrap();
        let shard = Shard { number, of: 3 };
        assert!(fill(&shelf, machine.path(), Wanted::default(), shard, ALL).unwrap());
        let own = (0..4).filter(|&part| shard.has(part)).count();
        let parts = files(machine.path()).iter().filter(|(name, _)| is_part(name)).count();
        assert_eq!(parts, own, "a machine holds what it made");
    }
    assert_eq!(shelf.all(), want);

    let here = tempfile::tempdir().unwrap();
    let mut heard = Vec::new();
    let held = fetch_about(&RealDisk, &shelf, here.path()).unwrap();
    assert!(
        fetch(&shelf, here.path(), &held, &mut |at: Fetched| {
            heard.push(at.files);
            true
        })
        .unwrap()
    );
    assert_eq!((files(here.path()), heard), (want, vec![1, 2, 3, 4]));
    let address = Path::new("s3://shelf/kept");
    let kept = Kept::open_copy(here.path(), address, &expected(&about)).unwrap();
    assert_eq!(kept.folder(), address);

    // What is here is not asked for again.
    shelf.asked.lock().unwrap().clear();
    assert!(bring(&shelf, here.path()).unwrap());
    assert_eq!(*shelf.asked.lock().unwrap(), ["cache.json"]);
}

#[test]
fn a_line_that_dies_at_any_file_costs_no_answer_and_changes_no_byte() {
    let (rows, about) = setting();
    let want = files(filled(&rows, &about).path());
    for before in [true, false] {
        for puts in 0..want.len() {
            let (shelf, machine) = (Shelf::default(), tempfile::tempdir().unwrap());
            *shelf.failing.lock().unwrap() = Some((puts, before));
            let run = || fill(&shelf, machine.path(), Wanted::default(), Shard::WHOLE, ALL);
            let error = run().unwrap_err().to_string();
            assert!(error.contains("cannot write `s3://shelf/kept/"), "{error}");
            *shelf.failing.lock().unwrap() = None;
            assert!(run().unwrap());
            assert_eq!(shelf.all(), want, "put {puts} failed, before: {before}");
        }
    }
}

#[test]
fn a_part_that_was_lost_there_and_is_here_is_put_there_again() {
    let (shelf, machine) = (Shelf::default(), tempfile::tempdir().unwrap());
    let run = || fill(&shelf, machine.path(), Wanted::default(), Shard::WHOLE, ALL).unwrap();
    assert!(run());
    let want = shelf.all();
    shelf.files.lock().unwrap().remove("part-00002.answers");
    assert!(run());
    assert_eq!(shelf.all(), want);
}

#[test]
fn rows_that_another_machine_lists_at_the_same_instant_are_listed_once() {
    let rows = |rows| Wanted { rows: Some(rows), teacher: Some("its/folder") };
    let one = Shelf::default();
    let folder = || tempfile::tempdir().unwrap();
    assert!(fill(&one, folder().path(), rows(&[1, 5, 7]), Shard::WHOLE, ALL).unwrap());
    let first: BTreeMap<String, Vec<u8>> =
        one.all().into_iter().filter(|(name, _)| !is_part(name)).collect();

    // Another machine asks for 5 and 9, and is a moment late with both files.
    let shelf = Shelf { rival: Mutex::new(first), ..Shelf::default() };
    let late = folder();
    assert!(fill(&shelf, late.path(), rows(&[5, 9]), Shard::WHOLE, ALL).unwrap());
    let here = folder();
    assert!(bring(&shelf, here.path()).unwrap());
    let held = Kept::open_any(here.path()).unwrap().held().clone();
    assert_eq!(held.rows(), [1, 5, 7, 9]);
}

#[test]
fn who_is_late_with_other_answers_in_mind_is_refused() {
    let other = Shelf::default();
    let (rows, about) = setting();
    let machine = tempfile::tempdir().unwrap();
    let about = About { temperature: 3.0, ..about };
    let mirror = Mirror::new(&RealDisk, &other, machine.path());
    fill_rows(&mirror, machine.path(), &rows, &about, Wanted::default(), Shard::WHOLE, 1).unwrap();
    let rival: BTreeMap<String, Vec<u8>> =
        other.all().into_iter().filter(|(name, _)| name == "cache.json").collect();
    let shelf = Shelf { rival: Mutex::new(rival), ..Shelf::default() };
    let late = tempfile::tempdir().unwrap();
    let error = fill(&shelf, late.path(), Wanted::default(), Shard::WHOLE, ALL).unwrap_err();
    assert!(error.to_string().contains("another temperature (3, expected 2)"), "{error}");
}

#[test]
fn what_is_not_what_was_written_there_has_no_name_here() {
    let part = "part-00001.answers";
    let refused = |change: &dyn Fn(&Shelf), want: &str| {
        let (shelf, here) = (whole(), tempfile::tempdir().unwrap());
        change(&shelf);
        let error = bring(&shelf, here.path()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
        assert!(!here.path().join(part).exists() || !want.contains(part));
        let left = files(here.path());
        assert!(left.iter().all(|(name, _)| !name.ends_with(".fetched")), "{left:?}");
    };
    let at = "`s3://shelf/kept/part-00001.answers` ";
    refused(
        &|shelf| shelf.change(part, |bytes| bytes[300] ^= 1),
        &format!("{at}was changed in block 0"),
    );
    refused(&|shelf| shelf.change(part, |bytes| bytes.truncate(400)), &format!("{at}was cut"));
    refused(
        &|shelf| {
            let first = shelf.files.lock().unwrap()["part-00000.answers"].clone();
            shelf.change(part, |bytes| *bytes = first);
        },
        &format!("{at}belongs to another folder or another place in it"),
    );
    refused(
        &|shelf| drop(shelf.files.lock().unwrap().remove(part)),
        "the answers in `s3://shelf/kept` are not all there: 1 of 4 files are missing, \
         `part-00001.answers` first",
    );
    refused(
        &|shelf| shelf.change("cache.json", |bytes| bytes.truncate(90)),
        "`s3://shelf/kept/cache.json` was changed",
    );
    refused(
        &|shelf| shelf.files.lock().unwrap().clear(),
        "`s3://shelf/kept` holds no kept answers",
    );
}

#[test]
fn a_copy_of_what_is_there_no_more_is_not_added_to() {
    let (shelf, here) = (whole(), tempfile::tempdir().unwrap());
    assert!(bring(&shelf, here.path()).unwrap());
    let want = files(here.path());
    let of_two = |shelf: &Shelf, want: &str| {
        for error in [
            bring(shelf, here.path()).unwrap_err(),
            fill(shelf, here.path(), Wanted::default(), Shard::WHOLE, ALL).unwrap_err(),
        ] {
            assert!(error.to_string().contains(want), "{error}");
            assert_eq!(error.exit_code(), 3);
        }
    };
    shelf.files.lock().unwrap().clear();
    of_two(&shelf, "was copied from `s3://shelf/kept`, which holds no answers any more");
    let rows = Wanted { rows: Some(&[3]), teacher: None };
    fill(&shelf, tempfile::tempdir().unwrap().path(), rows, Shard::WHOLE, ALL).unwrap();
    of_two(&shelf, "which holds other answers now");
    assert_eq!(files(here.path()), want);
}
