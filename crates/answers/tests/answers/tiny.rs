//! A tiny teacher of the fixtures, rows of made-up tokens, and what is kept of its answers.

use std::path::{Path, PathBuf};

use heirloom_answers::{About, Error, Held, Kind, Progress, Shard, Values, Wanted, keep};
use heirloom_base::{Digest, Hasher, Purpose, word};
use heirloom_data::text::{NOT_LEARNT, Row, Rows};
use heirloom_engine::{Cpu, Device};
use heirloom_models::{Capacity, Decoder, DecoderConfig, Inputs, Purpose as For};
use heirloom_store::{Disk, RealDisk, TensorFolder};

pub(crate) const VOCABULARY: u32 = 60;
pub(crate) const BATCH: u64 = 150;

/// Rows in memory.
pub(crate) struct Texts(pub(crate) Vec<Row>);

impl Rows for Texts {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn length(&self, row: usize) -> usize {
        self.0[row].ids.len()
    }
    fn read(&self, row: usize, into: &mut Row) {
        into.clone_from(&self.0[row]);
    }
    fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        for row in &self.0 {
            for list in [&row.ids, &row.starts, &row.labels] {
                let bytes: Vec<u8> = list.iter().flat_map(|x| x.to_le_bytes()).collect();
                hasher.part(&bytes);
            }
        }
        hasher.digest()
    }
}

/// So many rows of 40 to 70 tokens, two documents each; every seventh token is not to be learnt.
pub(crate) fn texts(count: usize) -> Texts {
    let number = |row: usize, at: usize| word(9, Purpose::Synthetic, row as u64, at as u64) as u32;
    let row = |row: usize| {
        let length = 40 + number(row, 0) as usize % 31;
        let ids: Vec<u32> = (0..length).map(|at| number(row, at + 1) % VOCABULARY).collect();
        let middle = length / 3;
        let mut labels: Vec<u32> = ids[1..].iter().copied().chain([NOT_LEARNT]).collect();
        labels[middle - 1] = NOT_LEARNT;
        labels.iter_mut().step_by(7).for_each(|label| *label = NOT_LEARNT);
        Row { ids, starts: vec![0, middle as u32, length as u32], labels, bytes: 0 }
    };
    Texts((0..count).map(row).collect())
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders/llama")
}

/// The teacher.
pub(crate) fn teacher(device: &mut dyn Device) -> Decoder {
    let config = DecoderConfig::open(&fixture()).unwrap();
    assert_eq!(config.vocab_size, VOCABULARY as usize);
    let model = Decoder::new(device, config);
    let folder = TensorFolder::open(&fixture()).unwrap();
    model.load(device, &folder, &|name| name.to_owned()).unwrap();
    model
}

pub(crate) fn about(rows: &Texts, kind: Kind, values: Values) -> About {
    About {
        teacher: Digest::of(b"teacher"),
        tokenizer: Digest::of(b"tokenizer"),
        rows: rows.digest(),
        chat_template: None,
        temperature: 2.0,
        vocabulary: VOCABULARY,
        kind,
        values,
        error_bound: values.error_bound(),
        seed: 5,
        row_count: rows.len() as u64,
        token_count: (0..rows.len()).map(|row| rows.length(row) as u64).sum(),
        rows_per_part: 30,
        batch_tokens: BATCH,
        listed: false,
    }
}

/// Keeps the answers of one machine; stops after so many batches.
pub(crate) fn fill(
    disk: &dyn Disk,
    folder: &Path,
    rows: &Texts,
    about: &About,
    shard: Shard,
    batches: usize,
) -> Result<bool, Error> {
    fill_rows(disk, folder, rows, about, Wanted::default(), shard, batches)
}

/// The same of some rows.
pub(crate) fn fill_rows(
    disk: &dyn Disk,
    folder: &Path,
    rows: &Texts,
    about: &About,
    wanted: Wanted<'_>,
    shard: Shard,
    mut batches: usize,
) -> Result<bool, Error> {
    let held = Held::begin(disk, folder, about, wanted)?;
    let mut device = Cpu::new(1);
    let teacher = teacher(&mut device);
    keep(&mut device, &teacher, rows, &held, (disk, folder, shard), &mut |_: Progress| {
        batches = batches.saturating_sub(1);
        batches > 0
    })
}

/// A folder with all answers.
pub(crate) fn filled(rows: &Texts, about: &About) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert!(fill(&RealDisk, folder.path(), rows, about, Shard::WHOLE, usize::MAX).unwrap());
    folder
}

/// What the teacher says to each token of a row: hidden states and logits.
pub(crate) fn answers(row: &Row) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut device = Cpu::new(1);
    let teacher = teacher(&mut device);
    let n = row.ids.len();
    let capacity = Capacity { tokens: n, sequences: 2, masked: 0 };
    let mut batch = teacher.batch(&mut device, capacity);
    let buffers = teacher.buffers(&mut device, capacity, &For::Infer);
    let positions: Vec<u32> =
        row.starts.windows(2).flat_map(|bounds| 0..bounds[1] - bounds[0]).collect();
    batch.upload(
        &mut device,
        &Inputs {
            ids: &row.ids,
            types: &vec![0; n],
            positions: &positions,
            rows: &positions,
            starts: &row.starts,
            masked: &[],
        },
    );
    let states = teacher.forward_states(&mut device, &batch, &buffers, None);
    let states = device.read(states);
    let logits = teacher.forward(&mut device, &batch, &buffers, None);
    let logits = device.read(logits);
    (states, logits.chunks(VOCABULARY as usize).map(<[f32]>::to_vec).collect())
}

/// The bytes of every file of a folder, by name.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}
