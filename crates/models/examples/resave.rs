//! Loads a decoder's folder and saves it again, for `fixtures/check_decoders.py` to hold against
//! `transformers`: `cargo run -p heirloom-models --example resave -- FROM TO`; TO is new.

use std::path::PathBuf;

use heirloom_base::Bytes;
use heirloom_engine::Cpu;
use heirloom_models::{Decoder, DecoderConfig};
use heirloom_store::{About, Array, Draft, RealDisk, TensorFolder, write_tensors};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let [from, to] = paths.as_slice() else { return Err("expected two folders: FROM TO".into()) };
    let mut device = Cpu::new(1);
    let model = Decoder::new(&mut device, DecoderConfig::open(from)?);
    model.load(&mut device, &TensorFolder::open(from)?, &|name| name.to_owned())?;
    let mut draft = Draft::begin(&RealDisk, to, Bytes(4 * model.params().len() as u64))?;
    draft.put("config.json", model.config().to_json().as_bytes())?;
    let tensors = model.tensors(&device);
    let arrays: Vec<Array<'_>> =
        tensors.iter().map(|(name, shape, values)| Array::f32(name, shape, values)).collect();
    draft
        .put_with("model.safetensors", |file| write_tensors(file, &arrays, &[("format", "pt")]))?;
    draft.commit(About::default())?;
    Ok(())
}
