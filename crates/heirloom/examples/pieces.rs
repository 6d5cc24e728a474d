//! Pieces alone, without a run: a model folder's logits for texts, a loss, and the gradient of it.
//!
//!     cargo run --release --example pieces MODEL "a text" "another"

#![expect(clippy::print_stdout, reason = "an example says what it found")]

use std::path::Path;

use heirloom::Failure;
use heirloom::data::dataset::{Dataset, KeepTexts};
use heirloom::data::label::{Labels, RawLabel};
use heirloom::data::pack::pack;
use heirloom::data::source::{Row as Text, Rows};
use heirloom::data::tokens::Tokenizer;
use heirloom::engine::{Cpu, Device};
use heirloom::models::{Capacity, EncoderConfig, Head, Model, Purpose, Taps};
use heirloom::regularize::{Labo, Row, Schedule, Target};
use heirloom::store::TensorFolder;
use heirloom::train::inputs;

/// The mean loss of `texts`, all labelled with the model's class number `label`, and the length of its
/// gradient on each parameter by name.
pub(crate) fn play(
    folder: &Path,
    texts: &[String],
    label: usize,
) -> Result<(f64, Vec<(String, f64)>), Failure> {
    // A classifier in the layout of Hugging Face. `Reference::<f64>` does what `Cpu` does, by plain loops.
    let config = EncoderConfig::open(folder)?;
    let (classes, longest) = (config.labels.clone(), config.longest());
    let mut device = Cpu::new(1);
    let head = Head::SingleLabel { labels: classes.len() };
    let model = Model::new(&mut device, config, head);
    model.load(&mut device, &TensorFolder::open(folder)?, &str::to_owned, None)?;

    // Texts become tokens, and tokens one packed batch, end to end without padding.
    let named = |text: &String| (text.clone(), RawLabel::Integer(label as i64));
    let row = |((text, label), line)| Text { line, text, pair: None, label };
    let rows = Rows::of(texts.iter().map(named).zip(1..).map(row).collect());
    let tokenizer = Tokenizer::open(folder)?;
    let set = Dataset::build(&rows, Labels::classes(classes), &tokenizer, longest, KeepTexts::No)?;
    let batch = pack(&set, &(0..set.len() as u32).collect::<Vec<_>>(), 0);

    // Forward: memory is planned once for the largest batch that will come.
    let room = Capacity { tokens: batch.tokens(), sequences: batch.sequences(), masked: 0 };
    let buffers = model.buffers(&mut device, room, &Purpose::Train(Taps::default()));
    let mut on_device = model.batch(&mut device, room);
    on_device.upload(&mut device, &inputs(&batch));
    let output = model.forward(&mut device, &on_device, &buffers, None);
    let logits = device.read_f64(output); // [texts, classes]

    // Any loss of a row, here LABO: its value, and its slope along the row's logits.
    let labo = Labo::new(Schedule::constant(0.3), Schedule::constant(2.0));
    let mut slopes = vec![0.0; logits.len()];
    let (mut loss, count) = (0.0, texts.len() as f64);
    for (z, slope) in logits.chunks(output.cols()).zip(slopes.chunks_mut(output.cols())) {
        println!("logits {z:.3?}");
        loss += labo.loss(&Row::new(Some(label), z), slope) / count;
        slope.iter_mut().for_each(|slope| *slope /= count);
    }

    // Backward: adds to a twin of the flat buffer of weights.
    let grads = device.alloc(model.params().len());
    device.write_f64(model.d_output(&buffers, output.rows()), &slopes);
    model.backward(&mut device, &on_device, &buffers, grads, None);
    let length = |numbers: Vec<f64>| numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
    let params = model.params();
    let of = |param| length(device.read_f64(params.view(param, grads)));
    Ok((loss, params.index().iter().map(|param| (param.name.clone(), of(param))).collect()))
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or_else(|| Failure::usage("name a model folder"))?;
    let (loss, gradient) = play(Path::new(&folder), &arguments.collect::<Vec<_>>(), 0)?;
    println!("mean loss {loss:.4}");
    gradient.iter().for_each(|(name, length)| println!("{length:.3e} {name}"));
    Ok(())
}
