//! The model and the batch of a timed step, for another program to compute the same steps.
//!
//! In: the model before its first step. Out: a committed folder: `config.json` and
//! `model.safetensors` as `transformers` loads them, and `batch.safetensors` with `ids` `[B, S]`, and
//! `labels` and `teacher_logits` of each sequence, `[B]` and `[B, 2]`, or of each token, `[B, S]` and
//! `[B, S, V]`.
//! Never: replaces a folder that holds something.

use std::path::Path;

use heirloom::failure::Failure;
use heirloom_base::Bytes;
use heirloom_store::{About, Array, Draft, RealDisk, new_folder, write_tensors};
use heirloom_train::NamedTensor;

const BATCH: &str = "batch.safetensors";

pub(super) fn write(
    folder: &Path,
    config: &str,
    tensors: &[NamedTensor],
    batch: &[Array<'_>],
) -> Result<(), Failure> {
    new_folder(&RealDisk, folder)?;
    let numbers: usize = tensors.iter().map(|(_, _, values)| values.len()).sum();
    let mut draft = Draft::begin(&RealDisk, folder, Bytes(4 * numbers as u64))?;
    draft.put("config.json", config.as_bytes())?;
    let arrays: Vec<Array<'_>> =
        tensors.iter().map(|(name, shape, values)| Array::f32(name, shape, values)).collect();
    draft
        .put_with("model.safetensors", |file| write_tensors(file, &arrays, &[("format", "pt")]))?;
    draft.put_with(BATCH, |file| write_tensors(file, batch, &[("format", "pt")]))?;
    draft.commit(About::default())?;
    Ok(())
}

/// Ids as PyTorch has them.
pub(super) fn wide(numbers: &[u32]) -> Vec<i64> {
    numbers.iter().map(|&number| i64::from(number)).collect()
}
