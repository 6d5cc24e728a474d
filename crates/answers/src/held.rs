//! Which rows a folder answers, and in which file each of them is.
//!
//! In: `cache.json`, and lists of rows where not all are answered. Out: the rows of each file, and
//! the place of each row. Never: a file that is read as the answers to other rows than its own.
//!
//! A folder answers all rows of its text, or those of its lists. A list is written before the first of
//! its answers and never changed; who needs more rows adds another list. Each file's digests begin
//! with one of `cache.json` and of the rows that the file answers.
//!
//! ```text
//! rows-00000.list  "HEIRLOOM-ROWLIST"    16 bytes
//!                  format                u32, little-endian, as everything here
//!                  number of the list    u32
//!                  digest of cache.json  32 bytes
//!                  rows                  u32 each, ascending, none of an earlier list
//!                  digest                32 bytes, of the above
//! ```

use std::collections::BTreeSet;
use std::path::Path;

use heirloom_base::{Digest, Hasher};
use heirloom_store::{Disk, write_atomic};

use crate::about::{ABOUT, About, AboutFile, FORMAT};
use crate::error::{Damage, Error};
use crate::part::raw;

const MAGIC: &[u8; 16] = b"HEIRLOOM-ROWLIST";
const HEAD: usize = 16 + 4 + 4 + 32;

/// What a folder is to hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Rows that must have an answer, ascending; all where nothing is said.
    pub rows: Option<&'a [u32]>,
    /// Where the teacher is, for those who look for it later: no part of what the answers are.
    pub teacher: Option<&'a str>,
}

/// Which rows a folder answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    about: About,
    teacher_folder: Option<String>,
    /// None where all rows are answered.
    lists: Vec<List>,
    /// Rows that were listed when the folder was [begun](Held::begin).
    added: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct List {
    rows: Vec<u32>,
    first_part: u64,
}

pub(crate) fn list_name(number: usize) -> String {
    format!("rows-{number:05}.list")
}

impl Held {
    /// Begins the folder, or adds to it the rows it does not answer yet; refuses one that holds
    /// answers of something else. A folder that answers all rows stays one.
    pub fn begin(
        disk: &dyn Disk,
        folder: &Path,
        about: &About,
        wanted: Wanted<'_>,
    ) -> Result<Self, Error> {
        if let Some(why) = about.problem() {
            return Err(Error::Cannot { why });
        }
        match Self::about_of(disk, folder) {
            Ok(_) => {}
            Err(Error::NotThere { .. }) => {
                let about = About { listed: wanted.rows.is_some(), ..about.clone() };
                let teacher_folder = wanted.teacher.map(str::to_owned);
                let bytes = AboutFile { about, teacher_folder }.to_bytes();
                write_atomic(disk, &folder.join(ABOUT), &bytes)?;
            }
            Err(error) => return Err(error),
        }
        // Also what was just written: where several machines share the folder another may have been
        // first, with other answers in mind.
        let mut held = Self::open(disk, folder)?;
        if let Some(difference) = held.about.difference(about) {
            return Err(Error::Other { folder: folder.to_owned(), difference });
        }
        if held.about.listed {
            let all: Vec<u32>;
            let wanted = match wanted.rows {
                Some(rows) => rows,
                None => {
                    all = (0..held.about.row_count as u32).collect();
                    &all
                }
            };
            held.add(disk, folder, wanted)?;
        }
        Ok(held)
    }

    /// Lists what is wanted and not listed. Where another machine takes the list's number, what it lists
    /// counts, and the rest has the next number.
    fn add(&mut self, disk: &dyn Disk, folder: &Path, wanted: &[u32]) -> Result<(), Error> {
        let before = self.len();
        loop {
            let there: BTreeSet<u32> = self.rows().into_iter().collect();
            let rows: Vec<u32> =
                wanted.iter().copied().filter(|row| !there.contains(row)).collect();
            if rows.is_empty() {
                self.added = self.len() - before;
                return Ok(());
            }
            let number = self.lists.len();
            write_atomic(disk, &folder.join(list_name(number)), &self.bytes_of(number, &rows))?;
            *self = Self::open(disk, folder)?;
        }
    }

    /// Opens what `folder` says it answers.
    pub fn open(disk: &dyn Disk, folder: &Path) -> Result<Self, Error> {
        let AboutFile { about, teacher_folder } = Self::about_of(disk, folder)?;
        let mut held = Self { about, teacher_folder, lists: Vec::new(), added: 0 };
        if !held.about.listed {
            return Ok(held);
        }
        let is_list = |name: &String| name.starts_with("rows-") && name.ends_with(".list");
        let names: BTreeSet<String> =
            disk.list(folder)?.into_iter().map(|entry| entry.name).filter(is_list).collect();
        for number in 0..names.len() {
            let name = list_name(number);
            if !names.contains(&name) {
                return Err(Error::NoList { folder: folder.to_owned(), list: name });
            }
            let file = folder.join(&name);
            let bytes = disk.read(&file)?;
            let rows = held.list_of(number, &bytes);
            let rows = rows.map_err(|damage| Error::Damaged { file, damage })?;
            held.lists.push(List { rows, first_part: held.parts() });
        }
        Ok(held)
    }

    pub(crate) fn about_of(disk: &dyn Disk, folder: &Path) -> Result<AboutFile, Error> {
        let file = folder.join(ABOUT);
        match disk.read(&file) {
            Ok(bytes) => {
                AboutFile::from_bytes(&bytes).map_err(|damage| Error::Damaged { file, damage })
            }
            Err(error) if error.is_missing() || error.is_not_a_folder() => {
                Err(Error::NotThere { folder: folder.to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn head(&self, number: usize) -> Vec<u8> {
        let number = u32::try_from(number).expect("fewer lists than 2^32");
        let about = raw(self.about.digest());
        [&MAGIC[..], &FORMAT.to_le_bytes(), &number.to_le_bytes(), &about].concat()
    }

    fn bytes_of(&self, number: usize, rows: &[u32]) -> Vec<u8> {
        let mut bytes = self.head(number);
        rows.iter().for_each(|row| bytes.extend_from_slice(&row.to_le_bytes()));
        let seal = raw(Digest::of(&bytes));
        bytes.extend_from_slice(&seal);
        bytes
    }

    pub(crate) fn list_of(&self, number: usize, bytes: &[u8]) -> Result<Vec<u32>, Damage> {
        let (inside, seal) = bytes
            .split_last_chunk::<32>()
            .filter(|(inside, _)| inside.len() > HEAD)
            .ok_or(Damage::List)?;
        if raw(Digest::of(inside)) != *seal {
            return Err(Damage::List);
        }
        if !inside.starts_with(&self.head(number)) {
            return Err(Damage::Elsewhere);
        }
        let (fours, rest) = inside[HEAD..].as_chunks::<4>();
        let rows: Vec<u32> = fours.iter().map(|&four| u32::from_le_bytes(four)).collect();
        let known = rows.last().is_some_and(|&last| u64::from(last) < self.about.row_count);
        let whole = rest.is_empty() && known && rows.is_sorted_by(|a, b| a < b);
        if whole { Ok(rows) } else { Err(Damage::List) }
    }

    /// What the answers are.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Where the teacher was when the folder was begun, as whoever began it said.
    pub fn teacher_folder(&self) -> Option<&str> {
        self.teacher_folder.as_deref()
    }

    /// How many rows have an answer, or will have one when all files are there.
    pub fn len(&self) -> usize {
        if !self.about.listed {
            return self.about.row_count as usize;
        }
        self.lists.iter().map(|list| list.rows.len()).sum()
    }

    /// Whether it is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many lists there are.
    pub(crate) fn lists(&self) -> usize {
        self.lists.len()
    }

    /// How many of them [`Held::begin`] listed just now.
    pub fn added(&self) -> usize {
        self.added
    }

    /// These rows, in the order of the files.
    pub fn rows(&self) -> Vec<u32> {
        if !self.about.listed {
            return (0..self.about.row_count as u32).collect();
        }
        self.lists.iter().flat_map(|list| &list.rows).copied().collect()
    }

    /// Whether a row is among them.
    pub fn has(&self, row: usize) -> bool {
        self.place(row).is_some()
    }

    /// How many files there are when the folder is whole.
    pub fn parts(&self) -> u64 {
        let each = self.about.rows_per_part.max(1);
        if !self.about.listed {
            return self.about.row_count.div_ceil(each);
        }
        self.lists
            .last()
            .map_or(0, |list| list.first_part + (list.rows.len() as u64).div_ceil(each))
    }

    /// The rows of a file, in its order.
    pub fn rows_of(&self, part: u64) -> Vec<u32> {
        let each = self.about.rows_per_part;
        let range =
            |part: u64, count: u64| (part * each).min(count)..((part + 1) * each).min(count);
        if !self.about.listed {
            return range(part, self.about.row_count).map(|row| row as u32).collect();
        }
        let list = self.lists.iter().rfind(|list| list.first_part <= part);
        let list = list.expect("a list holds every file's rows");
        let range = range(part - list.first_part, list.rows.len() as u64);
        list.rows[range.start as usize..range.end as usize].to_vec()
    }

    /// What the digests of a file begin with.
    pub(crate) fn seal(&self, part: u64) -> Digest {
        let about = self.about.digest();
        if !self.about.listed {
            return about;
        }
        let mut hasher = Hasher::new();
        hasher.part(&raw(about));
        let bytes: Vec<u8> = self.rows_of(part).iter().flat_map(|row| row.to_le_bytes()).collect();
        hasher.part(&bytes).digest()
    }

    /// The file of a row, and its place in it.
    pub(crate) fn place(&self, row: usize) -> Option<(usize, usize)> {
        let each = self.about.rows_per_part as usize;
        if !self.about.listed {
            let there = (row as u64) < self.about.row_count;
            return there.then_some((row / each, row % each));
        }
        let row = u32::try_from(row).ok()?;
        self.lists.iter().find_map(|list| {
            let at = list.rows.binary_search(&row).ok()?;
            Some((list.first_part as usize + at / each, at % each))
        })
    }
}
