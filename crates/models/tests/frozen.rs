//! Gradients are left out of what is frozen, and the others keep their bits.

use std::path::Path;

use heirloom_engine::{Cpu, Device, Frozen, Grads, Params, Reference, Space, View};
use heirloom_models::{
    Capacity, Decoder, DecoderConfig, EncoderConfig, Head, Inputs, Model, Noise, Purpose, Taps,
};
use serde_json::{Value, json};

const LENGTHS: [u32; 3] = [5, 1, 8];
const MASKED: [u32; 2] = [1, 9];
const NOISE: Option<Noise> = Some(Noise { seed: 3, step: 2 });

/// Packed ids, positions, rows and starts of [`LENGTHS`].
fn packed() -> [Vec<u32>; 4] {
    let mut starts = vec![0];
    LENGTHS.iter().for_each(|length| starts.push(starts[starts.len() - 1] + length));
    let positions: Vec<u32> = LENGTHS.iter().flat_map(|&length| 0..length).collect();
    let ids = positions.iter().map(|at| 5 + 3 * at % 11).collect();
    let rows = (0..starts[LENGTHS.len()]).collect();
    [ids, positions, rows, starts]
}

fn capacity(masked: usize) -> Capacity {
    let tokens = LENGTHS.iter().sum::<u32>() as usize;
    Capacity { tokens, sequences: LENGTHS.len(), masked }
}

/// Something to go back with.
fn slopes(device: &mut dyn Device, d_output: View) {
    let numbers: Vec<f64> =
        (0..d_output.len()).map(|at| ((at * 37 + 11) % 29) as f64 / 14.0 - 1.0).collect();
    device.write_f64(d_output, &numbers);
}

/// Of one model: a pass backward to `grads`, as often as it is called.
trait Backward {
    fn params(&self) -> &Params;
    fn backward(&self, device: &mut dyn Device, grads: Grads<'_>);
}

struct Encoder(Model, Purpose);

impl Backward for Encoder {
    fn params(&self) -> &Params {
        self.0.params()
    }

    fn backward(&self, device: &mut dyn Device, grads: Grads<'_>) {
        let Self(model, purpose) = self;
        let masked: &[u32] = if model.head() == Head::MaskedLm { &MASKED } else { &[] };
        let capacity = capacity(masked.len());
        let [ids, positions, rows, starts] = packed();
        let types = ids.iter().map(|id| id % 2).collect::<Vec<_>>();
        let buffers = model.buffers(device, capacity, purpose);
        let mut batch = model.batch(device, capacity);
        batch.upload(
            device,
            &Inputs {
                ids: &ids,
                types: &types,
                positions: &positions,
                rows: &rows,
                starts: &starts,
                masked,
            },
        );
        let output = model.forward(device, &batch, &buffers, NOISE);
        buffers.clear_taps(device, capacity.tokens);
        slopes(device, model.d_output(&buffers, output.rows()));
        model.backward(device, &batch, &buffers, grads, NOISE);
    }
}

struct Causal(Decoder, Purpose);

impl Backward for Causal {
    fn params(&self) -> &Params {
        self.0.params()
    }

    fn backward(&self, device: &mut dyn Device, grads: Grads<'_>) {
        let Self(model, purpose) = self;
        let capacity = capacity(0);
        let [ids, positions, rows, starts] = packed();
        let types = vec![0; ids.len()];
        let buffers = model.buffers(device, capacity, purpose);
        let mut batch = model.batch(device, capacity);
        batch.upload(
            device,
            &Inputs {
                ids: &ids,
                types: &types,
                positions: &positions,
                rows: &rows,
                starts: &starts,
                masked: &[],
            },
        );
        model.forward(device, &batch, &buffers, NOISE);
        slopes(device, model.d_logits(&buffers, capacity.tokens));
        model.backward(device, &batch, &buffers, grads, NOISE);
    }
}

/// The gradient in `space` of each parameter, and how many operations it took.
fn gradients(
    device: &mut dyn Device,
    model: &dyn Backward,
    space: Space,
    frozen: &Frozen,
) -> (Vec<Vec<f64>>, u64) {
    let params = model.params();
    device.fill(params.flat(space), 0.0);
    let before = device.operations();
    model.backward(device, Grads::without(space, frozen));
    let took = device.operations() - before;
    let of = |param| device.read_f64(params.view(param, space));
    (params.index().iter().map(of).collect(), took)
}

/// Sets of parameters by their places: all below one, all above one, each alone, every second.
fn sets(count: usize) -> Vec<Vec<bool>> {
    let set = |holds: &dyn Fn(usize) -> bool| (0..count).map(holds).collect();
    let mut sets = vec![set(&|at| at % 2 == 0), set(&|at| at % 2 == 1)];
    for place in 0..count {
        sets.push(set(&|at| at <= place));
        sets.push(set(&|at| at >= place));
        sets.push(set(&|at| at == place));
    }
    sets
}

fn check(what: &str, device: &mut dyn Device, model: &dyn Backward) {
    let params = model.params();
    params.init(device, 7);
    let space = device.alloc(params.len());
    let (all, whole) = gradients(device, model, space, &Frozen::default());
    assert!(all.iter().flatten().any(|&g| g != 0.0), "{what}");
    for set in sets(params.index().len()) {
        let runs = params.index().iter().zip(&set).filter(|(_, frozen)| **frozen);
        let frozen = Frozen::new(runs.map(|(param, _)| param.offset..param.offset + param.len()));
        let (some, took) = gradients(device, model, space, &frozen);
        for (at, param) in params.index().iter().enumerate() {
            // Of matrices that are one to the products, all are computed where one is asked for.
            let left_out = some[at].iter().all(|&g| g == 0.0);
            let same = some[at].iter().zip(&all[at]).all(|(g, w)| g.to_bits() == w.to_bits());
            let name = &param.name;
            assert!(same || set[at] && left_out, "{what}: {name} with {set:?} frozen");
        }
        assert!(took <= whole, "{what}: {took} of {whole}");
    }
    let everything = params.index().iter().map(|param| param.offset..param.offset + param.len());
    let (none, least) = gradients(device, model, space, &Frozen::new(everything));
    assert!(none.iter().flatten().all(|&g| g == 0.0), "{what}");
    assert!(2 * least < whole, "{what}: {least} of {whole}");
}

fn purposes() -> [Purpose; 2] {
    [Purpose::Train(Taps::default()), Purpose::Recompute(Taps::default())]
}

#[test]
fn encoders_leave_out_what_is_frozen() {
    for name in ["bert", "roberta", "distilbert"] {
        let config = json!({
            "model_type": name, "vocab_size": 50, "max_position_embeddings": 40, "type_vocab_size": 2,
            "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2,
            "intermediate_size": 20, "dim": 12, "n_layers": 3, "n_heads": 2, "hidden_dim": 20,
        });
        let config =
            EncoderConfig::from_map(Path::new(name), config.as_object().unwrap().clone()).unwrap();
        for head in [Head::SingleLabel { labels: 3 }, Head::MaskedLm, Head::Embedding] {
            for purpose in purposes() {
                let what = format!("{name} {head:?} {purpose:?}");
                for device in [&mut Cpu::new(2) as &mut dyn Device, &mut Reference::<f64>::new()] {
                    let model = Model::new(device, config.clone(), head);
                    check(&what, device, &Encoder(model, purpose.clone()));
                }
            }
        }
    }
}

#[test]
fn decoders_leave_out_what_is_frozen() {
    let gpt2 = json!({
        "model_type": "gpt2", "vocab_size": 50, "n_positions": 16, "n_layer": 3, "n_embd": 12,
        "n_head": 2, "bos_token_id": 0, "eos_token_id": 0,
    });
    let other = |name: &str, tied: bool| -> Value {
        json!({
            "model_type": name, "vocab_size": 50, "max_position_embeddings": 16, "hidden_size": 12,
            "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
            "intermediate_size": 20, "head_dim": 6, "tie_word_embeddings": tied,
            "bos_token_id": 0, "eos_token_id": 0,
        })
    };
    for config in [gpt2, other("llama", false), other("qwen3", true)] {
        let name = config["model_type"].as_str().unwrap().to_owned();
        let config =
            DecoderConfig::from_map(Path::new(&name), config.as_object().unwrap().clone()).unwrap();
        for purpose in purposes() {
            for device in [&mut Cpu::new(2) as &mut dyn Device, &mut Reference::<f64>::new()] {
                let model = Decoder::new(device, config.clone());
                check(&format!("{name} {purpose:?}"), device, &Causal(model, purpose.clone()));
            }
        }
    }
}
