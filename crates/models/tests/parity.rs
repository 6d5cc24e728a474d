//! Outputs, gradients and ten optimiser steps against `transformers`, for every family and head.
//!
//! The fixtures (`fixtures/encoders`, made by `fixtures/make_encoders.py`) hold padded batches;
//! ours are packed, so equality also says that padding carries nothing. Bounds are those of
//! `fixtures/README.md`: relative to the largest element of each tensor; those of bfloat16 are
//! stated here.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::path::{Path, PathBuf};

use heirloom_engine::{
    AdamW, Cpu, Device, HiddenDistance, IGNORED, Ids, Precision, Reference, RowLoss, Target, View,
};
use heirloom_models::{Capacity, EncoderConfig, Head, Inputs, Model, Purpose, Taps};
use heirloom_store::{TensorFile, TensorFolder};

const CASES: [&str; 20] = [
    "bert-single",
    "bert-multi",
    "bert-regression",
    "bert-mlm",
    "bert-embedding",
    "roberta-single",
    "roberta-multi",
    "roberta-regression",
    "roberta-mlm",
    "roberta-embedding",
    "distilbert-single",
    "distilbert-multi",
    "distilbert-regression",
    "distilbert-mlm",
    "distilbert-embedding",
    "bert-gelu-new",
    "bert-relu",
    "bert-eps",
    "xlm-roberta-single",
    "camembert-single",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoders")
}

/// How far from the stored numbers a device may be.
struct Bounds {
    outputs: f64,
    /// Hidden states, which are stored in single precision.
    hidden: f64,
    gradients: f64,
    /// The gradient of all weights together: length of the difference over length.
    gradient: f64,
    losses: f64,
    /// Weights after ten steps.
    weights: f64,
}

const DOUBLE: Bounds = Bounds {
    outputs: 1e-10,
    hidden: 1e-5,
    gradients: 1e-10,
    gradient: 1e-10,
    losses: 1e-10,
    weights: 1e-10,
};
const SINGLE: Bounds = Bounds {
    outputs: 1e-5,
    hidden: 1e-5,
    gradients: 1e-5,
    gradient: 1e-5,
    losses: 1e-4,
    weights: 1e-4,
};
/// About twice the largest measured over all cases and both devices (0.020, 0.013, 0.31, 0.080,
/// 0.043, 0.12): a factor's rounding is 2⁻⁹, and these models are small and their weights large.
/// Single gradients are the farthest where a regression's error, a difference of two near numbers,
/// passes a ReLU; the median is 0.012.
const BF16: Bounds = Bounds {
    outputs: 0.04,
    hidden: 0.026,
    gradients: 0.6,
    gradient: 0.16,
    losses: 0.086,
    weights: 0.24,
};

#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let size = want.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (got - want).abs();
        assert!(
            off <= bound * size,
            "{what}[{at}]: {got} is not {want}; {off:e} > {bound:e} · {size}"
        );
    }
}

struct Packed {
    ids: Vec<u32>,
    types: Vec<u32>,
    positions: Vec<u32>,
    rows: Vec<u32>,
    starts: Vec<u32>,
    /// Index of each token in the padded batch.
    places: Vec<usize>,
}

fn pack(file: &TensorFile) -> Packed {
    let ids: Vec<i64> = file.read("input_ids").unwrap();
    let mask: Vec<i64> = file.read("attention_mask").unwrap();
    let types: Vec<i64> = file.read("token_type_ids").unwrap_or_else(|_| vec![0; ids.len()]);
    let longest = file.shape("input_ids").unwrap()[1];
    let mut packed = Packed {
        ids: vec![],
        types: vec![],
        positions: vec![],
        rows: vec![],
        starts: vec![0],
        places: vec![],
    };
    for place in 0..ids.len() {
        if mask[place] == 1 {
            packed.ids.push(ids[place] as u32);
            packed.types.push(types[place] as u32);
            packed.positions.push((place % longest) as u32);
            packed.rows.push((((place / longest) << 16) | (place % longest)) as u32);
            packed.places.push(place);
        }
        if place % longest == longest - 1 {
            packed.starts.push(packed.ids.len() as u32);
        }
    }
    packed
}

fn head_of(case: &str, config: &EncoderConfig) -> Head {
    match case.rsplit_once('-').unwrap().1 {
        "multi" => Head::MultiLabel { labels: config.labels.len() },
        "regression" => Head::Regression,
        "mlm" => Head::MaskedLm,
        "embedding" => Head::Embedding,
        _ => Head::SingleLabel { labels: config.labels.len() },
    }
}

/// The loss's target, its factor of the gradient, and how rows' losses become the stored loss.
struct Loss {
    target: Target,
    count: f64,
    /// Squared distances are stored halved and summed over the width.
    factor: f64,
}

fn loss_of(
    head: Head,
    device: &mut dyn Device,
    file: &TensorFile,
    packed: &Packed,
    width: usize,
) -> Loss {
    let classes = |device: &mut dyn Device, labels: Vec<u32>| {
        let space = device.alloc_ids(labels.len());
        let ids = Ids::at(space, 0, labels.len());
        device.write_ids(ids, &labels);
        let count = labels.iter().filter(|&&label| label != IGNORED).count() as f64;
        Loss { target: Target::Labels(ids), count, factor: 1.0 }
    };
    let numbers = |device: &mut dyn Device, name: &str, cols: usize| {
        let values: Vec<f32> = file.read(name).unwrap();
        let space = device.alloc(values.len());
        let view = View::matrix(space, 0, values.len() / cols, cols);
        device.write(view, &values);
        view
    };
    let label = |value: i64| u32::try_from(value).unwrap_or(IGNORED);
    match head {
        Head::SingleLabel { .. } => {
            let labels: Vec<i64> = file.read("labels").unwrap();
            classes(device, labels.into_iter().map(label).collect())
        }
        Head::MaskedLm => {
            let labels: Vec<i64> = file.read("labels").unwrap();
            classes(device, packed.places.iter().map(|&place| label(labels[place])).collect())
        }
        Head::MultiLabel { .. } => {
            let view = numbers(device, "labels", width);
            Loss { target: Target::Binary(view), count: view.rows() as f64, factor: 1.0 }
        }
        Head::Regression => {
            let view = numbers(device, "labels", 1);
            let target = Target::Distance(HiddenDistance::MeanSquared, view);
            Loss { target, count: view.rows() as f64, factor: 1.0 }
        }
        Head::Embedding => {
            let view = numbers(device, "target", width);
            let target = Target::Distance(HiddenDistance::MeanSquared, view);
            Loss { target, count: view.rows() as f64, factor: width as f64 / 2.0 }
        }
    }
}

fn read_f64(file: &TensorFile, name: &str) -> Vec<f64> {
    file.read(&format!("f64.{name}")).unwrap()
}

fn check(case: &str, device: &mut dyn Device, bounds: &Bounds) {
    let folder = fixtures().join(case);
    let file = TensorFile::open(&folder.join("case.safetensors")).unwrap();
    let config = EncoderConfig::open(&folder).unwrap();
    let head = head_of(case, &config);
    let packed = pack(&file);
    let model = Model::new(device, config.clone(), head);
    let loaded = model
        .load(device, &TensorFolder::open(&folder).unwrap(), &|name| name.to_owned(), None)
        .unwrap();
    assert_eq!(loaded, heirloom_models::Loaded::default(), "{case}: nothing fresh, nothing unused");

    // What is saved is of the class that it was read as.
    let saved =
        EncoderConfig::parse(Path::new("saved"), &model.config_json(&config.labels)).unwrap();
    let name = |config: &EncoderConfig| (config.called, config.architecture.clone());
    assert_eq!(name(&saved), name(&config), "{case}");

    let masked: Vec<u32> =
        if head == Head::MaskedLm { (0..packed.ids.len() as u32).collect() } else { vec![] };
    let capacity = Capacity { tokens: 30, sequences: 6, masked: 30 };
    let mut batch = model.batch(device, capacity);
    let buffers = model.buffers(device, capacity, &Purpose::Train(Taps::default()));
    batch.upload(
        device,
        &Inputs {
            ids: &packed.ids,
            types: &packed.types,
            positions: &packed.positions,
            rows: &packed.rows,
            starts: &packed.starts,
            masked: &masked,
        },
    );
    let width = head.width(&config);
    let loss = loss_of(head, device, &file, &packed, width);
    let params = model.params();
    let [grads, first, second] = [(); 3].map(|()| device.alloc(params.len()));
    let spans = params.spans(0.01);
    let row_losses = device.alloc(30);

    let mut losses = Vec::new();
    for step in 1..=10 {
        let output = model.forward(device, &batch, &buffers, None);
        if step == 1 {
            let name = if head == Head::Embedding { "embedding" } else { "logits" };
            let want = read_f64(&file, name);
            let want: Vec<f64> = if head == Head::MaskedLm {
                packed
                    .places
                    .iter()
                    .flat_map(|&p| want[p * width..(p + 1) * width].to_vec())
                    .collect()
            } else {
                want
            };
            close(&format!("{case}: {name}"), &device.read_f64(output), &want, bounds.outputs);
            for layer in 0..=config.layers {
                let got = device.read_f64(buffers.hidden(layer).first_rows(packed.ids.len()));
                let want: Vec<f32> = file.read(&format!("hidden.{layer}")).unwrap();
                let c = config.hidden_size;
                let rows = packed.places.iter().flat_map(|&p| &want[p * c..(p + 1) * c]);
                let want: Vec<f64> = rows.map(|&x| f64::from(x)).collect();
                close(&format!("{case}: hidden.{layer}"), &got, &want, bounds.hidden);
            }
        }
        let d_output = model.d_output(&buffers, output.rows());
        device.fill(d_output, 0.0);
        let rows = View::matrix(row_losses, 0, output.rows(), 1);
        device.row_loss(&RowLoss {
            x: output,
            target: loss.target,
            scale: loss.factor / loss.count,
            weights: None,
            losses: rows,
            dx: Some(d_output),
        });
        losses.push(device.sum(rows) * loss.factor / loss.count);
        model.backward(device, &batch, &buffers, grads, None);
        if step == 1 {
            let (mut off, mut size) = (0.0, 0.0);
            for param in params.index() {
                let got = device.read_f64(params.view(param, grads));
                let name = format!("grad.{}", param.name);
                if !file.has(&name) {
                    assert!(
                        param.name.contains("pooler"),
                        "{case}: no stored gradient of {}",
                        param.name
                    );
                    assert!(got.iter().all(|&g| g == 0.0), "{case}: {} moved", param.name);
                } else if param.name.contains("key.bias") || param.name.contains("k_lin.bias") {
                    // Zero in exact arithmetic: only its smallness can be compared.
                    assert!(got.iter().all(|g| g.abs() < 1e-6), "{case}: {name} {got:?}");
                } else {
                    let want = read_f64(&file, &name);
                    close(&format!("{case}: {name}"), &got, &want, bounds.gradients);
                    off += got.iter().zip(&want).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
                    size += want.iter().map(|y| y.powi(2)).sum::<f64>();
                }
            }
            let off = (off / size).sqrt();
            assert!(off <= bounds.gradient, "{case}: the whole gradient is {off:e} off");
        }
        device.adamw(&AdamW {
            spaces: [params.weights(), grads, first, second],
            spans: &spans,
            learning_rate: 1e-2,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            step,
            gradient_scale: 1.0,
        });
    }
    close(&format!("{case}: losses"), &losses, &read_f64(&file, "losses"), bounds.losses);
    for param in params.index() {
        if file.has(&format!("after.{}", param.name)) {
            let got = device.read_f64(params.view(param, params.weights()));
            let want = read_f64(&file, &format!("after.{}", param.name));
            close(&format!("{case}: after.{}", param.name), &got, &want, bounds.weights);
        }
    }
}

#[test]
fn the_reference_in_double_precision_equals_transformers() {
    for case in CASES {
        check(case, &mut Reference::<f64>::new(), &DOUBLE);
    }
}

#[test]
fn the_reference_in_single_precision_equals_transformers() {
    for case in CASES {
        check(case, &mut Reference::<f32>::new(), &SINGLE);
    }
}

#[test]
fn the_processor_equals_transformers() {
    for case in CASES {
        check(case, &mut Cpu::new(2), &SINGLE);
    }
}

#[test]
fn rounded_factors_stay_near_transformers_on_both_devices() {
    for case in CASES {
        check(case, &mut Cpu::new(2).with_precision(Precision::Bf16), &BF16);
        check(case, &mut Reference::<f64>::new().with_precision(Precision::Bf16), &BF16);
    }
}
