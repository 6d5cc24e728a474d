//! The operations of a forward pass by its shapes are those that a device counts.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::path::Path;

use heirloom_engine::{Cpu, Device, Reference};
use heirloom_models::{Capacity, EncoderConfig, Head, Inputs, Model, Noise, Purpose, Taps};
use serde_json::json;

const LENGTHS: [u32; 4] = [7, 1, 12, 3];

fn config(name: &str) -> EncoderConfig {
    let json = json!({
        "model_type": name, "vocab_size": 50, "max_position_embeddings": 40,
        "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 20, "dim": 12, "n_layers": 3, "n_heads": 2, "hidden_dim": 20,
    });
    EncoderConfig::from_map(Path::new("config.json"), json.as_object().unwrap().clone()).unwrap()
}

/// What a device counts of a forward pass, and of a backward pass.
fn counted(
    device: &mut dyn Device,
    config: &EncoderConfig,
    head: Head,
    masked: &[u32],
) -> [u64; 2] {
    let tokens: u32 = LENGTHS.iter().sum();
    let capacity =
        Capacity { tokens: tokens as usize, sequences: LENGTHS.len(), masked: masked.len() };
    let model = Model::new(device, config.clone(), head);
    model.init(device, 1);
    let buffers = model.buffers(device, capacity, &Purpose::Train(Taps::default()));
    let mut batch = model.batch(device, capacity);
    let mut starts = vec![0];
    LENGTHS.iter().for_each(|length| starts.push(starts[starts.len() - 1] + length));
    let places = || LENGTHS.iter().flat_map(|&length| 0..length);
    let ids: Vec<u32> = places().map(|at| 5 + at).collect();
    let positions: Vec<u32> = places().collect();
    let (types, rows) = (vec![0; ids.len()], (0..tokens).collect::<Vec<_>>());
    let inputs = Inputs {
        ids: &ids,
        types: &types,
        positions: &positions,
        rows: &rows,
        starts: &starts,
        masked,
    };
    batch.upload(device, &inputs);
    let noise = Some(Noise { seed: 1, step: 1 });
    let before = device.operations();
    let output = model.forward(device, &batch, &buffers, noise);
    let after = device.operations();
    let d_output = model.d_output(&buffers, output.rows());
    device.fill(d_output, 1.0);
    let grads = device.alloc(model.params().len());
    buffers.clear_taps(device, tokens as usize);
    model.backward(device, &batch, &buffers, grads, noise);
    [after - before, device.operations() - after]
}

#[test]
fn a_forward_pass_has_the_operations_of_its_shapes_and_a_backward_pass_its_own() {
    let heads = [
        Head::SingleLabel { labels: 3 },
        Head::MultiLabel { labels: 4 },
        Head::Regression,
        Head::Embedding,
        Head::MaskedLm,
    ];
    for name in ["bert", "roberta", "distilbert"] {
        for head in heads {
            let masked: &[u32] = if head == Head::MaskedLm { &[0, 8, 13] } else { &[] };
            let config = config(name);
            let want = config.operations(head, &LENGTHS, masked.len());
            let pairs: u64 = LENGTHS.iter().map(|&length| u64::from(length * length)).sum();
            let attention = |factor: u64| 3 * factor * 12 * pairs;
            let backward = 2 * (want - attention(4)) + attention(10);
            for device in [&mut Cpu::new(2) as &mut dyn Device, &mut Reference::<f64>::new()] {
                let found = counted(device, &config, head, masked);
                assert_eq!(found, [want, backward], "{name} {head:?}");
            }
        }
    }
}

#[test]
fn operations_are_those_counted_by_hand() {
    // 23 tokens, 203 pairs, 4 sequences:
    // 3 layers · (2 · 23 · (4 · 144 + 2 · 240) + 4 · 12 · 203) + 2 · 4 · (144 + 36).
    let found = config("bert").operations(Head::SingleLabel { labels: 3 }, &LENGTHS, 0);
    assert_eq!(found, 3 * (46 * 1056 + 48 * 203) + 8 * 180);
}
