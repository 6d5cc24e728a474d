//! From files to kept tokens, once.
//!
//! In: a corpus and a tokenizer. Out: a folder that [`Shards::open`] opens, whole or absent.
//! Never: other bytes with another number of threads. Documents are taken a batch at a time, the
//! tokens of a batch are found by all threads, and its documents are written in their order.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use heirloom_base::{Bytes, Digest, Hasher};
use heirloom_store::{
    About as FolderAbout, Disk, Draft, DraftFile, Holder, RunLock, StoreError, new_folder,
    shared_folder,
};
use rayon::prelude::*;

use super::documents::{Documents, Found, bad};
use super::prepare::{Prepare, Prepared};
use super::shards::{ABOUT, DOCUMENTS, FORMAT, IN_WIDE, LEARNT, WIDE, shard_name};
use super::{About, Counts, Reading, Shards, SourceFile, TextError, files};
use crate::error::{Error, reading};
use crate::source::Bad;
use crate::tokens::Tokenizer;

/// Files with documents, and how they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    files: Vec<PathBuf>,
    reading: Reading,
    sources: Vec<SourceFile>,
}

impl Corpus {
    /// The corpus of `paths`, files and folders, in this order; every file is read once for its
    /// digest.
    ///
    /// # Errors
    /// Where a file cannot be read, or a folder holds no text.
    pub fn open(paths: &[PathBuf], reading: Reading) -> Result<Self, Error> {
        let files = files(paths)?;
        let sources = files.iter().map(|file| source(file)).collect::<Result<_, _>>()?;
        Ok(Self { files, reading, sources })
    }

    /// The files.
    pub fn sources(&self) -> &[SourceFile] {
        &self.sources
    }

    /// Tokens of this corpus are found again by it.
    pub fn key(&self, tokenizer: &Tokenizer) -> Digest {
        About::key(tokenizer.digest(), &self.reading, &self.sources)
    }

    /// The special tokens before and after each document.
    pub(super) fn around(&self) -> [Option<&str>; 2] {
        [self.reading.begin.as_deref(), self.reading.end.as_deref()]
    }

    /// Calls `each` with every document, in order, until it fails.
    pub(super) fn for_each(
        &self,
        mut each: impl FnMut(Prepared) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let prepare = Prepare::new(&self.reading)?;
        for found in Documents::new(&self.files, &self.reading)? {
            each(self.prepared(&prepare, &found?)?)?;
        }
        Ok(())
    }

    /// The texts of all documents, in order.
    ///
    /// # Errors
    /// Where documents cannot be read in this way; each where it is not as it should be.
    pub fn texts(&self) -> Result<impl Iterator<Item = Result<String, Error>> + Send, Error> {
        let prepare = Prepare::new(&self.reading)?;
        let documents = Documents::new(&self.files, &self.reading)?;
        Ok(documents.map(move |found| Ok(self.prepared(&prepare, &found?)?.text)))
    }

    /// The refusal of a corpus without any document.
    pub(crate) fn no_documents(&self, empty: u64) -> Error {
        let names: Vec<String> = self.sources.iter().map(|s| format!("`{}`", s.name)).collect();
        TextError::NoDocuments { files: names.join(", "), empty }.into()
    }

    fn prepared(&self, prepare: &Prepare, found: &Found) -> Result<Prepared, Error> {
        let file = &self.files[found.file];
        let nowhere = |problem| bad(file, found.line, b"", Bad { column: None, problem });
        prepare.document(&found.content).map_err(nowhere)
    }
}

fn source(file: &Path) -> Result<SourceFile, Error> {
    let input = File::open(file).map_err(reading(file))?;
    let bytes = input.metadata().map_err(reading(file))?.len();
    let digest = Digest::of_reader(input).map_err(reading(file))?;
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    Ok(SourceFile { name, bytes, digest })
}

/// The tokens of `corpus` in a folder below `parent` whose name says what they were made from:
/// opened where they are there, written where they are not. The flag says that they were written.
/// Of several processes that want the same new tokens at one time the first writes them, and the others
/// wait.
///
/// # Errors
/// As [`write()`] and [`Shards::open`].
pub fn find_or_write(
    disk: &dyn Disk,
    parent: &Path,
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(&Counts),
) -> Result<(Shards, bool), Error> {
    let folder = parent.join(format!("tokens-{}", corpus.key(tokenizer).short()));
    if folder.exists() {
        return Ok((open(disk, &folder, Some(corpus), tokenizer)?, false));
    }
    shared_folder(disk, parent)?;
    // Of these tokens alone: whoever asks may have the folder's own lock.
    let lock = folder.with_extension("lock");
    let _lock = RunLock::wait(&lock, &Holder::this_process("its text was opened"))?;
    if folder.exists() {
        return Ok((open(disk, &folder, Some(corpus), tokenizer)?, false));
    }
    Ok((write(disk, &folder, corpus, tokenizer, progress)?, true))
}

/// Opens tokens that must be of this tokenizer and, where the text is at hand, of this corpus.
///
/// # Errors
/// As [`Shards::open`], and where the tokens were made from something else.
pub fn open(
    disk: &dyn Disk,
    folder: &Path,
    corpus: Option<&Corpus>,
    tokenizer: &Tokenizer,
) -> Result<Shards, Error> {
    let shards = Shards::open(disk, folder)?;
    shards.check_tokenizer(folder, tokenizer)?;
    if let Some(corpus) = corpus {
        shards.check_reading(folder, &corpus.reading)?;
        shards.check_sources(folder, &corpus.sources)?;
    }
    Ok(shards)
}

/// Writes the tokens of `corpus` into `folder`, which is new or empty, on all threads. `progress`
/// hears from time to time how far it is.
///
/// # Errors
/// Where a file or a document is not as it should be, or the disk says no. Then `folder` is not
/// there.
pub fn write(
    disk: &dyn Disk,
    folder: &Path,
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(&Counts),
) -> Result<Shards, Error> {
    write_in_shards(disk, folder, corpus, tokenizer, progress, SHARD_TOKENS)
}

/// Counts the tokens of `corpus` and writes none.
///
/// # Errors
/// Where a file or a document is not as it should be.
pub fn measure(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(&Counts),
) -> Result<Counts, Error> {
    let mut stream = Stream::new(corpus, tokenizer, progress)?;
    while stream.fill()? {
        stream.waiting.clear();
    }
    match stream.counts.documents {
        0 => Err(corpus.no_documents(stream.counts.empty)),
        _ => Ok(stream.counts),
    }
}

/// Tokens of a shard: few enough that its marks can wait in memory, many enough that a large
/// corpus is hundreds of files and not thousands.
const SHARD_TOKENS: u64 = 1 << 25;

/// Bytes of text whose tokens are found together.
const BATCH_BYTES: usize = 16 << 20;

pub(super) fn write_in_shards(
    disk: &dyn Disk,
    folder: &Path,
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(&Counts),
    shard_tokens: u64,
) -> Result<Shards, Error> {
    // Everything that can be refused before a byte is written.
    let mut stream = Stream::new(corpus, tokenizer, progress)?;
    make_room(disk, folder)?;
    let needs = corpus.sources.iter().map(|source| source.bytes).sum();
    let mut draft = Draft::begin(disk, folder, Bytes(needs))?;
    let id_bytes = if tokenizer.vocab_size() <= 1 << 16 { 2 } else { 4 };
    let mut shard = 0;
    while stream.fill()? {
        let mut failed = None;
        draft.put_with(&shard_name(shard), |file| {
            stream.shard(file, id_bytes, shard_tokens).or_else(|error| match error {
                Error::Store(error) => Err(*error),
                error => {
                    failed = Some(error);
                    Ok(())
                }
            })
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        shard += 1;
    }
    let Stream { counts, documents, wide, hasher, .. } = stream;
    if counts.documents == 0 {
        return Err(corpus.no_documents(counts.empty));
    }
    draft.put_with(DOCUMENTS, |file| put_pairs(file, &documents))?;
    draft.put_with(WIDE, |file| put_pairs(file, &wide))?;
    let about = About {
        format: FORMAT,
        tokenizer: tokenizer.digest(),
        vocabulary: tokenizer.vocab_size() as u32,
        id_bytes,
        shard_tokens,
        reading: corpus.reading.clone(),
        sources: corpus.sources.clone(),
        counts,
        content: hasher.digest(),
    };
    let mut json = serde_json::to_vec_pretty(&about).expect("names, numbers and digests are JSON");
    json.push(b'\n');
    draft.put(ABOUT, &json)?;
    for (file, source) in corpus.files.iter().zip(&corpus.sources) {
        if self::source(file)? != *source {
            return Err(TextError::Changed { file: file.clone() }.into());
        }
    }
    draft.commit(FolderAbout::default())?;
    Shards::open(disk, folder)
}

/// Makes the folder above where it is not there, and refuses one that is in use.
fn make_room(disk: &dyn Disk, folder: &Path) -> Result<(), Error> {
    if folder.exists() {
        return Ok(new_folder(disk, folder)?);
    }
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => {
            Ok(new_folder(disk, parent)?)
        }
        _ => Ok(()),
    }
}

fn put_pairs(file: &mut DraftFile<'_>, pairs: &[(u64, u64)]) -> Result<(), StoreError> {
    pairs.iter().try_for_each(|(left, right)| {
        file.write(&left.to_le_bytes())?;
        file.write(&right.to_le_bytes())
    })
}

/// A document's tokens.
struct Tokenised {
    ids: Vec<u32>,
    /// Bytes of text of each, and whether it is to be foreseen.
    marks: Vec<(u32, bool)>,
    text_tokens: u64,
    unknown: u64,
    bytes: u64,
    address: u64,
}

/// From documents to their tokens, on any thread.
struct Tokenise<'a> {
    corpus: &'a Corpus,
    tokenizer: &'a Tokenizer,
    prepare: Prepare,
    begin: Option<u32>,
    end: Option<u32>,
}

/// Tokens of a corpus, in order.
struct Stream<'a> {
    tokenise: Tokenise<'a>,
    found: Documents<'a>,
    progress: &'a mut dyn FnMut(&Counts),
    /// Documents whose tokens wait, and how many tokens of the first are written.
    waiting: std::collections::VecDeque<Tokenised>,
    written: usize,
    counts: Counts,
    documents: Vec<(u64, u64)>,
    wide: Vec<(u64, u64)>,
    hasher: Hasher,
}

impl<'a> Tokenise<'a> {
    fn new(corpus: &'a Corpus, tokenizer: &'a Tokenizer) -> Result<Self, Error> {
        let id = |token: &Option<String>| match token {
            None => Ok(None),
            Some(token) => match tokenizer.id(token) {
                Some(id) => Ok(Some(id)),
                None => {
                    let known = tokenizer.special_tokens().into_values().collect();
                    Err(TextError::NoToken { token: token.clone(), known })
                }
            },
        };
        Ok(Self {
            corpus,
            tokenizer,
            prepare: Prepare::new(&corpus.reading)?,
            begin: id(&corpus.reading.begin)?,
            end: id(&corpus.reading.end)?,
        })
    }

    fn document(&self, found: &Found) -> Result<Tokenised, Error> {
        let Prepared { text, learnt } = self.corpus.prepared(&self.prepare, found)?;
        let tokens = self.tokenizer.encode_text(&text)?;
        let all = learnt.is_none();
        // A token without characters of its own is a blank that the tokenizer's offsets leave out; it
        // ends where the blank ends.
        let inside = |start: usize, end: usize, part: &Range<usize>| {
            part.start < end && if start < end { start < part.end } else { end <= part.end }
        };
        let is_learnt = |&(start, end): &(usize, usize)| match &learnt {
            None => true,
            Some(parts) => parts.iter().any(|part| inside(start, end, part)),
        };
        // A document has fewer bytes than 32 bits count.
        let bytes = tokens.bytes.iter().map(|&bytes| bytes as u32);
        let marks = bytes.zip(tokens.spans.iter().map(is_learnt));
        // A tokenizer may use one token for the unknown and, written out in a text, for something
        // else, as GPT-2 its end of a text.
        let unknown = self.tokenizer.special().unk;
        let written = unknown.and_then(|id| self.tokenizer.token(id)).unwrap_or_default();
        let is_unknown = |(&id, &(start, end)): (&u32, &(usize, usize))| {
            Some(id) == unknown && text.get(start..end) != Some(written)
        };
        let mut tokenised = Tokenised {
            text_tokens: tokens.ids.len() as u64,
            unknown: tokens.ids.iter().zip(&tokens.spans).filter(|at| is_unknown(*at)).count()
                as u64,
            bytes: text.len() as u64,
            address: address(&text),
            ids: tokens.ids,
            marks: marks.collect(),
        };
        if let Some(begin) = self.begin {
            tokenised.ids.insert(0, begin);
            tokenised.marks.insert(0, (0, all));
        }
        if let Some(end) = self.end {
            tokenised.ids.push(end);
            tokenised.marks.push((0, true));
        }
        Ok(tokenised)
    }
}

impl<'a> Stream<'a> {
    fn new(
        corpus: &'a Corpus,
        tokenizer: &'a Tokenizer,
        progress: &'a mut dyn FnMut(&Counts),
    ) -> Result<Self, Error> {
        Ok(Self {
            tokenise: Tokenise::new(corpus, tokenizer)?,
            found: Documents::new(&corpus.files, &corpus.reading)?,
            progress,
            waiting: std::collections::VecDeque::new(),
            written: 0,
            counts: Counts::default(),
            documents: Vec::new(),
            wide: Vec::new(),
            hasher: Hasher::new(),
        })
    }

    /// Whether there is another token; reads documents until there is.
    fn fill(&mut self) -> Result<bool, Error> {
        while self.waiting.is_empty() {
            let mut batch = Vec::new();
            let mut size = 0;
            while size < BATCH_BYTES {
                let Some(found) = self.found.next() else { break };
                let found = found?;
                size += found.content.size();
                batch.push(found);
            }
            if batch.is_empty() {
                return Ok(false);
            }
            // Documents of a batch are in their order, so the first refusal is that of one thread.
            let mut tokenised: Vec<Result<Tokenised, Error>> = Vec::new();
            let tokenise = &self.tokenise;
            batch.par_iter().map(|found| tokenise.document(found)).collect_into_vec(&mut tokenised);
            for document in tokenised {
                self.take(document?);
            }
            (self.progress)(&self.counts);
        }
        Ok(true)
    }

    fn take(&mut self, document: Tokenised) {
        let counts = &mut self.counts;
        if document.text_tokens == 0 {
            counts.empty += 1;
            return;
        }
        let mut ids = Vec::with_capacity(document.ids.len() * 4);
        let mut marks = Vec::with_capacity(document.ids.len() * 9);
        for (&id, &(bytes, learnt)) in document.ids.iter().zip(&document.marks) {
            ids.extend(id.to_le_bytes());
            marks.extend(u64::from(bytes).to_le_bytes());
            marks.push(u8::from(learnt));
        }
        self.hasher.part(&ids).part(&marks);
        for (&(bytes, _), at) in document.marks.iter().zip(counts.tokens..) {
            if bytes >= u32::from(IN_WIDE) {
                self.wide.push((at, u64::from(bytes)));
            }
        }
        counts.documents += 1;
        counts.tokens += document.ids.len() as u64;
        counts.text_tokens += document.text_tokens;
        counts.unknown += document.unknown;
        counts.learnt += document.marks.iter().filter(|(_, learnt)| *learnt).count() as u64;
        counts.bytes += document.bytes;
        self.documents.push((counts.tokens, document.address));
        self.waiting.push_back(document);
    }

    /// Writes the next shard; there is a token for it.
    fn shard(
        &mut self,
        file: &mut DraftFile<'_>,
        id_bytes: u32,
        shard_tokens: u64,
    ) -> Result<(), Error> {
        let mut marks = Vec::new();
        while (marks.len() as u64) < shard_tokens && self.fill()? {
            let document = &self.waiting[0];
            let room = (shard_tokens - marks.len() as u64) as usize;
            let end = document.ids.len().min(self.written.saturating_add(room));
            for &id in &document.ids[self.written..end] {
                file.write(&id.to_le_bytes()[..id_bytes as usize])?;
            }
            marks.extend(document.marks[self.written..end].iter().map(|&(bytes, learnt)| {
                let bytes = bytes.min(u32::from(IN_WIDE)) as u8;
                if learnt { bytes | LEARNT } else { bytes }
            }));
            self.written = end;
            if end == document.ids.len() {
                self.waiting.pop_front();
                self.written = 0;
            }
        }
        Ok(file.write(&marks)?)
    }
}

/// What a document is among others: the first 64 bits of its text's digest.
fn address(text: &str) -> u64 {
    let digest = Digest::of(text.as_bytes()).to_string();
    u64::from_str_radix(&digest[..16], 16).expect("a digest is hexadecimal")
}

#[cfg(test)]
mod tests {
    use heirloom_store::RealDisk;

    use super::*;
    use crate::text::Separator;

    #[test]
    fn tokens_do_not_depend_on_how_they_lie_in_shards() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        let long = " ".repeat(200);
        std::fs::write(&file, format!("a b c\n\na\n\nb{long}b c\n\nc c c c")).unwrap();
        let reading = Reading { separator: Separator::BlankLine, ..Reading::plain() };
        let corpus = Corpus::open(&[file], reading.with_end("[SEP]")).unwrap();
        let tokenizer = Tokenizer::from_vocabulary("[CLS]\n[SEP]\n[UNK]\na\nb\nc\n", true).unwrap();
        let written = [1, 3, 5, 15, 100].map(|tokens| {
            let target = folder.path().join(format!("tokens-{tokens}"));
            let heard = &mut |_: &Counts| ();
            let shards =
                write_in_shards(&RealDisk, &target, &corpus, &tokenizer, heard, tokens).unwrap();
            let all: Vec<_> =
                (0..shards.about().counts.tokens).map(|at| shards.token(at)).collect();
            let ends: Vec<_> = (0..4).map(|document| shards.range(document).end).collect();
            (all, ends, shards.about().content)
        });
        assert_eq!(written[0].0.len(), 15);
        assert_eq!(written[0].0[7].bytes, 201);
        assert!(written.iter().all(|other| *other == written[0]));
    }
}
