//! Running a teacher over rows, and keeping what it answers.
//!
//! In: a decoder, rows, and what to keep. Out: files of a folder, each some rows, whole or absent.
//! Never: another byte for another number of machines, or after a crash.
//!
//! Which rows a file holds, which rows the teacher reads together, and which words a token's draws
//! come from follow from the rows and `cache.json` alone. So machine i of n makes the files whose
//! number leaves i − 1 when it is divided by n, and a process that goes on with a file reads again
//! from the beginning of the batch in which the first missing token stands.

use std::ops::Range;
use std::path::Path;

use heirloom_data::text::{NOT_LEARNT, Row, Rows};
use heirloom_engine::{Device, Linear, View};
use heirloom_models::{Capacity, Decoder, DecoderBuffers, DeviceBatch, Inputs, Purpose};
use heirloom_store::Disk;
use rayon::prelude::*;

use crate::about::{About, Kind};
use crate::choose::{Room, choose};
use crate::error::Error;
use crate::held::Held;
use crate::part::PartWriter;
use crate::record::Code;

/// One of several machines that fill a folder together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    pub number: u64,
    /// Of how many.
    pub of: u64,
}

impl Shard {
    /// The only one.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// Whether a file is this machine's.
    pub fn has(self, part: u64) -> bool {
        part % self.of == self.number - 1
    }

    /// The folder, inside that of the answers, whose lock says that this machine is at work.
    pub fn lock(self) -> String {
        format!("filling-{}-of-{}", self.number, self.of)
    }

    /// The end of the name of a file that this machine has not finished.
    fn draft(self) -> String {
        format!(".filling-{}-of-{}", self.number, self.of)
    }
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens of this machine that are answered, by this process and those before it.
    pub tokens: u64,
    /// Of how many.
    pub of: u64,
    /// Tokens that this process has answered.
    pub answered: u64,
}

/// Bytes of logits that are looked at together.
const LOGITS_BYTES: usize = 64 << 20;

/// Answers the rows of one machine's files, from where an earlier process stopped. `folder` was
/// [begun](Held::begin), and nobody else does the work of `shard`.
///
/// `each` hears what is done after every batch, and says whether to go on; the result is whether all
/// was done.
pub fn keep(
    device: &mut dyn Device,
    teacher: &Decoder,
    rows: &dyn Rows,
    held: &Held,
    (disk, folder, shard): (&dyn Disk, &Path, Shard),
    each: &mut dyn FnMut(Progress) -> bool,
) -> Result<bool, Error> {
    let about = held.about();
    let longest = held.rows().into_iter().map(|row| rows.length(row as usize)).max().unwrap_or(0);
    let capacity = longest.max(about.batch_tokens as usize);
    let mut reader = Reader::new(device, teacher, about, capacity);
    let mine = || (0..held.parts()).filter(|&part| shard.has(part));
    let tokens = |of: &[u32]| of.iter().map(|&row| rows.length(row as usize) as u64).sum::<u64>();
    let mut progress = Progress {
        of: mine().map(|part| tokens(&held.rows_of(part))).sum(),
        ..Progress::default()
    };
    let draft = shard.draft();
    for part in mine() {
        let all = held.rows_of(part);
        let lengths = all.iter().map(|&row| rows.length(row as usize));
        let place = (held.seal(part), part);
        let Some(mut writer) = PartWriter::open(disk, (folder, &draft), place, lengths)? else {
            progress.tokens += tokens(&all);
            continue;
        };
        progress.tokens += writer.written() as u64;
        let mut before = 0;
        for batch in batches(rows, &all, about.batch_tokens as usize) {
            let end = before + tokens(batch) as usize;
            if end > writer.written() {
                let skip = writer.written().saturating_sub(before);
                reader.answer(device, teacher, rows, batch, skip, &mut |answer| {
                    writer.push(answer)
                })?;
                progress.tokens += (end - before - skip) as u64;
                progress.answered += (end - before - skip) as u64;
                if !each(progress) {
                    return Ok(false);
                }
            }
            before = end;
        }
        writer.finish()?;
    }
    Ok(true)
}

/// Rows of `of` that are read together: as many as `tokens` allow, and one at least.
fn batches<'a>(rows: &dyn Rows, of: &'a [u32], tokens: usize) -> impl Iterator<Item = &'a [u32]> {
    let mut rest = of;
    std::iter::from_fn(move || {
        let mut taken = 0;
        let fits = |row: &&u32| {
            taken += rows.length(**row as usize);
            taken <= tokens
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

/// The teacher, and memory for what it reads.
pub(crate) struct Reader<'a> {
    about: &'a About,
    batch: DeviceBatch,
    buffers: DecoderBuffers,
    /// Logits of some tokens, `[rows, V]`; nothing for hidden states.
    logits: View,
    row: Row,
    inputs: Owned,
}

/// A packed batch; see [`Inputs`].
#[derive(Default)]
struct Owned {
    ids: Vec<u32>,
    types: Vec<u32>,
    positions: Vec<u32>,
    starts: Vec<u32>,
    /// Row and position of each token, and whether something is learnt there.
    places: Vec<(usize, usize, bool)>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        device: &mut dyn Device,
        teacher: &Decoder,
        about: &'a About,
        tokens: usize,
    ) -> Self {
        let capacity = Capacity { tokens, sequences: tokens, masked: 0 };
        let buffers = DecoderBuffers::new(device, teacher.config(), capacity, 0, &Purpose::Infer);
        let v = about.vocabulary as usize;
        let at_once = match about.kind {
            Kind::States { .. } => 0,
            _ => (LOGITS_BYTES / (4 * v)).clamp(1, tokens.max(1)),
        };
        let logits = View::matrix(device.alloc(at_once * v), 0, at_once, v);
        let batch = teacher.batch(device, capacity);
        Self { about, batch, buffers, logits, row: Row::default(), inputs: Owned::default() }
    }

    /// Hands over the answers of the rows `which`, token by token, without the first `skip`.
    fn answer(
        &mut self,
        device: &mut dyn Device,
        teacher: &Decoder,
        rows: &dyn Rows,
        which: &[u32],
        skip: usize,
        each: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(states) = self.forward(device, teacher, rows, which)? else { return Ok(()) };
        let About { kind, values, vocabulary, temperature, seed, .. } = *self.about;
        let code = Code { kind, values, vocabulary };
        if let Kind::States { width } = kind {
            let states = device.read(states);
            let all = states.chunks(width as usize).zip(&self.inputs.places);
            for (state, place) in all.skip(skip) {
                finite(state, place)?;
                let answer = if place.2 { code.states(state) } else { Vec::new() };
                each(&answer)?;
            }
            return Ok(());
        }
        self.each_logits(device, teacher, states, skip, |logits, places| {
            let skip = skip.saturating_sub(places.start);
            let answers = logits
                .par_chunks(vocabulary as usize)
                .zip(&self.inputs.places[places])
                .skip(skip)
                .map_init(Room::default, |room, (logits, place)| {
                    let &(row, position, learnt) = place;
                    if !learnt {
                        return Ok(Vec::new());
                    }
                    finite(logits, place)?;
                    let place = (row, position);
                    Ok(code.known(&choose(room, kind, logits, temperature, seed, place)))
                })
                .collect::<Result<Vec<_>, Error>>()?;
            answers.iter().try_for_each(|answer| each(answer))
        })
    }

    /// Hands over the logits of the tokens of a batch, `[tokens, V]`, some at a time. Chunks begin
    /// with the batch, whatever is skipped: their bits then depend on nothing else.
    fn each_logits(
        &self,
        device: &mut dyn Device,
        teacher: &Decoder,
        states: View,
        skip: usize,
        mut each: impl FnMut(&[f32], Range<usize>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let w = teacher.head().first_rows(self.about.vocabulary as usize);
        for first in (0..states.rows()).step_by(self.logits.rows()) {
            let end = states.rows().min(first + self.logits.rows());
            if end > skip {
                let (x, y) = (states.row_range(first..end), self.logits.first_rows(end - first));
                device.linear(&Linear { x, w, b: None, y, activated: None });
                each(&device.read(y), first..end)?;
            }
        }
        Ok(())
    }

    /// Hands over row, position and logits of every token of a row where something is learnt.
    pub(crate) fn row(
        &mut self,
        device: &mut dyn Device,
        teacher: &Decoder,
        rows: &dyn Rows,
        row: usize,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let states = self.forward(device, teacher, rows, &[row as u32])?;
        let Some(states) = states else { return Ok(()) };
        self.each_logits(device, teacher, states, 0, |logits, places| {
            let all = logits.chunks(self.about.vocabulary as usize);
            for (logits, &(_, position, learnt)) in all.zip(&self.inputs.places[places]) {
                if learnt {
                    each(position, logits)?;
                }
            }
            Ok(())
        })
    }

    /// The last hidden states of some rows; `None` where they have no token.
    fn forward(
        &mut self,
        device: &mut dyn Device,
        teacher: &Decoder,
        rows: &dyn Rows,
        which: &[u32],
    ) -> Result<Option<View>, Error> {
        self.read(teacher, rows, which)?;
        let Owned { ids, types, positions, starts, .. } = &self.inputs;
        if ids.is_empty() {
            return Ok(None);
        }
        // Rows are addresses of dropout's words, of which there are none.
        let rows = positions;
        let inputs = Inputs { ids, types, positions, rows, starts, masked: &[] };
        self.batch.upload(device, &inputs);
        Ok(Some(teacher.forward_states(device, &self.batch, &self.buffers, None)))
    }

    /// Packs rows end to end.
    fn read(&mut self, teacher: &Decoder, rows: &dyn Rows, which: &[u32]) -> Result<(), Error> {
        let config = teacher.config();
        self.inputs = Owned::default();
        let into = &mut self.inputs;
        for at in which.iter().map(|&row| row as usize) {
            self.row.clear();
            rows.read(at, &mut self.row);
            let row = &self.row;
            let cannot = |why: String| Error::Row { row: at, why };
            if row.ids.len() != rows.length(at) {
                return Err(cannot(format!(
                    "{} tokens, announced {}",
                    row.ids.len(),
                    rows.length(at)
                )));
            }
            if let Some(&id) = row.ids.iter().find(|&&id| id as usize >= config.vocab_size) {
                return Err(cannot(format!(
                    "token {id}, and the teacher knows {}; its tokenizer is another",
                    config.vocab_size
                )));
            }
            let base = into.ids.len() as u32;
            for bounds in row.starts.windows(2) {
                let length = bounds[1] - bounds[0];
                if length as usize > config.max_positions {
                    return Err(cannot(format!(
                        "a document of {length} tokens, and the teacher has {} positions; cut rows \
                         shorter",
                        config.max_positions
                    )));
                }
                if length > 0 {
                    into.starts.push(base + bounds[0]);
                    into.positions.extend(0..length);
                }
            }
            into.ids.extend_from_slice(&row.ids);
            let learnt = row.labels.iter().enumerate();
            into.places.extend(learnt.map(|(place, &label)| (at, place, label != NOT_LEARNT)));
        }
        into.starts.push(into.ids.len() as u32);
        into.types.resize(into.ids.len(), 0);
        Ok(())
    }
}

/// An answer that is no number would be kept for ever.
fn finite(numbers: &[f32], &(row, position, _): &(usize, usize, bool)) -> Result<(), Error> {
    let bad = numbers.iter().find(|x| x.is_nan() || **x == f32::INFINITY);
    let none = numbers.iter().all(|&x| x == f32::NEG_INFINITY);
    match bad {
        None if !none => Ok(()),
        _ => Err(Error::Row {
            row,
            why: format!("the teacher's answer to its token {position} is no number"),
        }),
    }
}
