//! The model and the batch of a timed step, for another program to compute the same steps.
//!
//! In: the model before its first step. Out: a committed folder: `config.json` and
//! `model.safetensors` as `transformers` loads them, and `batch.safetensors` with `ids` `[B, S]`,
//! `labels` `[B]` and `teacher_logits` `[B, 2]`.
//! Never: replaces a folder that holds something.

use std::path::Path;

use heirloom::failure::Failure;
use heirloom_base::Bytes;
use heirloom_engine::Device;
use heirloom_models::Model;
use heirloom_store::{About, Array, Draft, RealDisk, Values, new_folder, write_tensors};

use super::{LABELS, classes, teacher_logits, words};
use crate::args::BenchStepArgs;

const BATCH: &str = "batch.safetensors";

pub(super) fn write(
    model: &Model,
    device: &dyn Device,
    args: &BenchStepArgs,
    folder: &Path,
) -> Result<(), Failure> {
    new_folder(&RealDisk, folder)?;
    let mut draft = Draft::begin(&RealDisk, folder, Bytes(4 * model.params().len() as u64))?;
    draft.put("config.json", model.config_json(&[]).as_bytes())?;
    let tensors = model.tensors(device);
    let arrays: Vec<Array<'_>> =
        tensors.iter().map(|(name, shape, values)| Array::f32(name, shape, values)).collect();
    draft
        .put_with("model.safetensors", |file| write_tensors(file, &arrays, &[("format", "pt")]))?;

    let (batch, seq) = (args.batch, args.seq);
    let wide = |numbers: Vec<u32>| -> Vec<i64> { numbers.into_iter().map(i64::from).collect() };
    let (ids, labels) = (wide(words(batch * seq)), wide(classes(batch)));
    let logits = teacher_logits(batch);
    let arrays = [
        Array { name: "ids", shape: &[batch, seq], values: Values::I64(&ids) },
        Array { name: "labels", shape: &[batch], values: Values::I64(&labels) },
        Array { name: "teacher_logits", shape: &[batch, LABELS], values: Values::F32(&logits) },
    ];
    draft.put_with(BATCH, |file| write_tensors(file, &arrays, &[("format", "pt")]))?;
    draft.commit(About::default())?;
    Ok(())
}
