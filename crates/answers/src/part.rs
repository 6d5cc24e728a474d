//! One file of answers: some rows, in blocks of tokens that each have a digest.
//!
//! ```text
//! head     "HEIRLOOM-ANSWERS"   16 bytes
//!          format               u32, little-endian, as everything here
//!          number of the file   u32
//!          digest of the folder 32 bytes: of cache.json and, where not all rows are answered, of the
//!                               rows of the file
//! blocks   1,024 tokens each, the last one fewer:
//!          tokens               u32
//!          bytes of the answers u32
//!          bits of a length     u8
//!          bytes of each answer, bit-packed: 0 where nothing was to be learnt
//!          answers              one behind the other, each from a whole byte on
//!          digest               32 bytes: of the folder's digest, file, block, and the above
//! index    rows                 u32
//!          first token of each row, and their number   u32 each
//!          end of each block    u64 each
//!          bytes of the index   u32
//!          digest               32 bytes: of the folder's digest, file, and the above
//! ```
//!
//! A file is written front to back, a block at a time. What a crash leaves is read up to the last
//! block that is whole.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use heirloom_base::{Digest, Hasher};
use heirloom_store::{Disk, Growing, Kind as FileKind, Mapped};

use crate::about::FORMAT;
use crate::bits::{BitReader, BitWriter, bits_for};
use crate::error::{Damage, Error};

/// Tokens of a block: some tens of kilobytes, beside which a digest is nothing.
pub const BLOCK_TOKENS: usize = 1024;

const MAGIC: &[u8; 16] = b"HEIRLOOM-ANSWERS";
const HEAD: usize = 16 + 4 + 4 + DIGEST;
const DIGEST: usize = 32;
/// Tokens, bytes, bits.
const BLOCK_HEAD: usize = 4 + 4 + 1;

/// Bytes of a block whose answers have these many each.
pub fn block_bytes(lengths: &[usize]) -> usize {
    let longest = lengths.iter().copied().max().unwrap_or(0) as u64;
    let bits = lengths.len() * bits_for(longest + 1) as usize;
    BLOCK_HEAD + bits.div_ceil(8) + lengths.iter().sum::<usize>() + DIGEST
}

/// The name of a file.
pub(crate) fn part_name(part: u64) -> String {
    format!("part-{part:05}.answers")
}

/// A digest as bytes.
pub(crate) fn raw(digest: Digest) -> [u8; DIGEST] {
    let text = digest.to_string();
    let digit = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16);
    std::array::from_fn(|at| digit(at).expect("a digest prints hexadecimal digits"))
}

/// The digest of something at a place.
fn sealed(cache: Digest, part: u64, block: Option<usize>, bytes: &[u8]) -> [u8; DIGEST] {
    let mut hasher = Hasher::new();
    hasher.part(&raw(cache)).part(&part.to_le_bytes());
    hasher.part(&block.map_or(u64::MAX, |block| block as u64).to_le_bytes());
    raw(hasher.part(bytes).digest())
}

fn head(cache: Digest, part: u64) -> Vec<u8> {
    let part = u32::try_from(part).expect("fewer files than 2^32");
    [&MAGIC[..], &FORMAT.to_le_bytes(), &part.to_le_bytes(), &raw(cache)].concat()
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(four.try_into().expect("four bytes")) as usize)
}

/// Where a block's parts lie, as its head says.
#[derive(Clone, Copy, Debug)]
struct Block {
    tokens: usize,
    bits: u32,
    /// First byte of the answers.
    answers: usize,
    /// First byte of the digest.
    digest: usize,
    /// One past the block.
    end: usize,
}

impl Block {
    /// Of the block that begins at `start`.
    fn at(bytes: &[u8], start: usize) -> Option<Self> {
        let (tokens, length) = (word(bytes, start)?, word(bytes, start + 4)?);
        let bits = u32::from(*bytes.get(start + 8)?);
        if tokens == 0 || tokens > BLOCK_TOKENS || bits > 32 {
            return None;
        }
        let answers = start + BLOCK_HEAD + (tokens * bits as usize).div_ceil(8);
        let digest = answers.checked_add(length)?;
        let end = digest.checked_add(DIGEST)?;
        (end <= bytes.len()).then_some(Self { tokens, bits, answers, digest, end })
    }

    fn is_whole(
        &self,
        bytes: &[u8],
        start: usize,
        (cache, part): (Digest, u64),
        at: usize,
    ) -> bool {
        sealed(cache, part, Some(at), &bytes[start..self.digest])
            == bytes[self.digest..self.digest + DIGEST]
    }
}

/// A file being written.
pub(crate) struct PartWriter<'d> {
    growing: Growing<'d>,
    cache: Digest,
    part: u64,
    /// First token of each row, and their number.
    starts: Vec<u32>,
    /// One past each block.
    ends: Vec<u64>,
    /// Tokens in blocks that are written.
    written: usize,
    /// Bytes of each answer of the block to come, and the answers.
    lengths: Vec<u32>,
    answers: Vec<u8>,
}

impl<'d> PartWriter<'d> {
    /// Goes on with a file, whose rows have `lengths` tokens, from the last whole block on; `None`
    /// where it has its name already. Until then its name ends in `draft`.
    pub(crate) fn open(
        disk: &'d dyn Disk,
        (folder, draft): (&Path, &str),
        (cache, part): (Digest, u64),
        lengths: impl Iterator<Item = usize>,
    ) -> Result<Option<Self>, Error> {
        let name = part_name(part);
        let is_file = |entry: &heirloom_store::Entry| {
            entry.name == name && matches!(entry.kind, FileKind::File(_))
        };
        if disk.list(folder)?.iter().any(is_file) {
            return Ok(None);
        }
        let mut starts = vec![0];
        for length in lengths {
            let end = starts.last().expect("begins with one") + length as u32;
            starts.push(end);
        }
        let (growing, bytes) =
            Growing::open(disk, &folder.join(name.clone() + draft), &folder.join(&name))?;
        let mut writer = Self {
            growing,
            cache,
            part,
            starts,
            ends: Vec::new(),
            written: 0,
            lengths: Vec::with_capacity(BLOCK_TOKENS),
            answers: Vec::new(),
        };
        writer.keep_whole(&bytes)?;
        Ok(Some(writer))
    }

    /// Keeps what is whole of what an earlier process left.
    fn keep_whole(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let head = head(self.cache, self.part);
        if !bytes.starts_with(&head) {
            self.growing.cut(0)?;
            return Ok(self.growing.append(&head)?);
        }
        let mut end = HEAD;
        while self.written < self.tokens() {
            let Some(block) = Block::at(bytes, end) else { break };
            let want = BLOCK_TOKENS.min(self.tokens() - self.written);
            let place = (self.cache, self.part);
            if block.tokens != want || !block.is_whole(bytes, end, place, self.ends.len()) {
                break;
            }
            end = block.end;
            self.ends.push(end as u64);
            self.written += block.tokens;
        }
        Ok(self.growing.cut(end as u64)?)
    }

    /// Tokens of the file.
    pub(crate) fn tokens(&self) -> usize {
        *self.starts.last().expect("begins with one") as usize
    }

    /// Tokens that need not be answered again.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Adds the answer of the next token; no byte where nothing is to be learnt.
    pub(crate) fn push(&mut self, answer: &[u8]) -> Result<(), Error> {
        self.lengths.push(answer.len() as u32);
        self.answers.extend_from_slice(answer);
        let full = self.lengths.len() == BLOCK_TOKENS;
        if full || self.written + self.lengths.len() == self.tokens() {
            self.block()
        } else {
            Ok(())
        }
    }

    /// Writes the block that is full.
    fn block(&mut self) -> Result<(), Error> {
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        let bits = bits_for(u64::from(longest) + 1);
        let mut lengths = BitWriter::default();
        self.lengths.iter().for_each(|&length| lengths.put(length, bits));
        let mut bytes = Vec::with_capacity(BLOCK_HEAD + self.answers.len() + 4 * BLOCK_TOKENS);
        bytes.extend_from_slice(&(self.lengths.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.answers.len() as u32).to_le_bytes());
        bytes.push(bits as u8);
        bytes.extend_from_slice(&lengths.finish());
        bytes.extend_from_slice(&self.answers);
        let seal = sealed(self.cache, self.part, Some(self.ends.len()), &bytes);
        bytes.extend_from_slice(&seal);
        self.growing.append(&bytes)?;
        self.ends.push(self.growing.len());
        self.written += self.lengths.len();
        self.lengths.clear();
        self.answers.clear();
        Ok(())
    }

    /// Writes the index and gives the file its name.
    ///
    /// # Panics
    /// Where tokens are missing.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        assert_eq!(self.written, self.tokens(), "every token has an answer");
        let mut index = (self.starts.len() as u32 - 1).to_le_bytes().to_vec();
        self.starts.iter().for_each(|start| index.extend_from_slice(&start.to_le_bytes()));
        self.ends.iter().for_each(|end| index.extend_from_slice(&end.to_le_bytes()));
        index.extend_from_slice(&(index.len() as u32).to_le_bytes());
        let seal = sealed(self.cache, self.part, None, &index);
        self.growing.append(&[&index[..], &seal].concat())?;
        Ok(self.growing.finish()?)
    }
}

/// A file being read.
#[derive(Debug)]
pub(crate) struct Part {
    file: PathBuf,
    bytes: Mapped,
    cache: Digest,
    part: u64,
    starts: Vec<u32>,
    /// First byte of each block, and one past the last.
    blocks: Vec<usize>,
    /// Blocks whose digest was compared.
    checked: Vec<AtomicBool>,
    /// Digest of the index.
    seal: [u8; DIGEST],
}

impl Part {
    /// Opens a file whose rows are `rows` many. Blocks are compared with their digests when they are
    /// first read.
    pub(crate) fn open(
        folder: &Path,
        cache: Digest,
        part: u64,
        rows: usize,
    ) -> Result<Self, Error> {
        Self::open_file(folder.join(part_name(part)), cache, part, rows)
    }

    /// Opens it under whatever name it has.
    pub(crate) fn open_file(
        file: PathBuf,
        cache: Digest,
        part: u64,
        rows: usize,
    ) -> Result<Self, Error> {
        let bytes = Mapped::open(&file)?;
        let read = Self::index(&bytes, cache, part, rows);
        match read {
            Ok((starts, blocks, seal)) => {
                let checked = (1..blocks.len()).map(|_| AtomicBool::default()).collect();
                Ok(Self { file, bytes, cache, part, starts, blocks, checked, seal })
            }
            Err(damage) => Err(Error::Damaged { file, damage }),
        }
    }

    #[expect(clippy::type_complexity, reason = "three parts of one index, taken apart at once")]
    fn index(
        bytes: &[u8],
        cache: Digest,
        part: u64,
        rows: usize,
    ) -> Result<(Vec<u32>, Vec<usize>, [u8; DIGEST]), Damage> {
        if bytes.len() < HEAD + 4 + DIGEST || !bytes.starts_with(MAGIC) {
            return Err(Damage::Cut);
        }
        let format = word(bytes, 16).expect("the head is there") as u32;
        if format != FORMAT {
            return Err(Damage::Version { found: format, known: FORMAT });
        }
        if !bytes.starts_with(&head(cache, part)) {
            return Err(Damage::Elsewhere);
        }
        let digest = bytes.len() - DIGEST;
        let length = word(bytes, digest - 4).expect("the end is there");
        let first = (digest - 4).checked_sub(length).filter(|&at| at >= HEAD).ok_or(Damage::Cut)?;
        let seal = sealed(cache, part, None, &bytes[first..digest]);
        if seal != bytes[digest..] {
            return Err(Damage::Cut);
        }
        let index = &bytes[first..digest - 4];
        let count = word(index, 0).ok_or(Damage::Index)?;
        let (starts, ends) = index[4..].split_at_checked(4 * (count + 1)).ok_or(Damage::Index)?;
        let four = |&bytes: &[u8; 4]| u32::from_le_bytes(bytes);
        let eight = |&bytes: &[u8; 8]| u64::from_le_bytes(bytes) as usize;
        let starts: Vec<u32> = starts.as_chunks().0.iter().map(four).collect();
        let blocks: Vec<usize> =
            [HEAD].into_iter().chain(ends.as_chunks().0.iter().map(eight)).collect();
        let tokens = *starts.last().expect("one more than rows") as usize;
        let whole = count == rows
            && starts.is_sorted()
            && blocks.is_sorted()
            && blocks.len() - 1 == tokens.div_ceil(BLOCK_TOKENS)
            && blocks.last() == Some(&first);
        if whole { Ok((starts, blocks, seal)) } else { Err(Damage::Index) }
    }

    /// Tokens of a row.
    pub(crate) fn length(&self, row: usize) -> usize {
        (self.starts[row + 1] - self.starts[row]) as usize
    }

    /// Tokens of the file.
    pub(crate) fn tokens(&self) -> usize {
        self.starts[self.starts.len() - 1] as usize
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Of the whole file: two that agree hold the same bytes, once their blocks were checked.
    pub(crate) fn add_to(&self, hasher: &mut Hasher) {
        hasher.part(&self.seal);
        for pair in self.blocks.windows(2) {
            hasher.part(&self.bytes[pair[1] - DIGEST..pair[1]]);
        }
    }

    /// Calls `each` with the bytes of the answers of some tokens of a row, in order.
    pub(crate) fn answers(
        &self,
        row: usize,
        positions: std::ops::Range<usize>,
        mut each: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), Error> {
        assert!(positions.end <= self.length(row), "tokens {positions:?} of {}", self.length(row));
        let first = self.starts[row] as usize + positions.start;
        let mut token = first;
        while token < first + positions.len() {
            let at = token / BLOCK_TOKENS;
            let block = self.block(at)?;
            let (from, end) =
                (token % BLOCK_TOKENS, (first + positions.len()).min((at + 1) * BLOCK_TOKENS));
            let damaged =
                || Error::Damaged { file: self.file.clone(), damage: Damage::Answer { token } };
            let mut lengths =
                BitReader::new(&self.bytes[self.blocks[at] + BLOCK_HEAD..block.answers]);
            let mut take = || lengths.take(block.bits).map(|length| length as usize);
            let mut place = block.answers;
            for _ in 0..from {
                place += take().ok_or_else(damaged)?;
            }
            for _ in token..end {
                let next = place + take().ok_or_else(damaged)?;
                let answer = self.bytes[..block.digest].get(place..next).ok_or_else(damaged)?;
                each(answer).ok_or_else(damaged)?;
                place = next;
            }
            token = end;
        }
        Ok(())
    }

    /// Tokens with an answer.
    pub(crate) fn answered(&self) -> Result<u64, Error> {
        let mut count = 0;
        for row in 0..self.starts.len() - 1 {
            self.answers(row, 0..self.length(row), |answer| {
                count += u64::from(!answer.is_empty());
                Some(())
            })?;
        }
        Ok(count)
    }

    /// Compares every block with its digest.
    pub(crate) fn check(&self) -> Result<(), Error> {
        (0..self.checked.len()).try_for_each(|at| self.block(at).map(|_| ()))
    }

    /// A block that matches its digest.
    fn block(&self, at: usize) -> Result<Block, Error> {
        let (start, end) = (self.blocks[at], self.blocks[at + 1]);
        let tokens = BLOCK_TOKENS.min(self.tokens() - at * BLOCK_TOKENS);
        let there = Block::at(&self.bytes, start);
        let fits = there.filter(|block| block.end == end && block.tokens == tokens);
        let place = (self.cache, self.part);
        let known = self.checked[at].load(Ordering::Relaxed);
        let whole = fits.filter(|block| known || block.is_whole(&self.bytes, start, place, at));
        if let Some(block) = whole {
            self.checked[at].store(true, Ordering::Relaxed);
            return Ok(block);
        }
        let first = at * BLOCK_TOKENS;
        let damage = Damage::Block { block: at, first, end: first + tokens };
        Err(Error::Damaged { file: self.file.clone(), damage })
    }
}
