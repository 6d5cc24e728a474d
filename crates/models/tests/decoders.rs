//! Decoders against `transformers`: logits, loss, gradients, greedy text; and against themselves:
//! kept keys, recomputing, saving.
//!
//! The fixtures (`fixtures/decoders`, made by `fixtures/make_decoders.py`) hold single sequences;
//! ours are packed, so equality also says that a sequence does not see its neighbours. Bounds are
//! relative to the largest element of each tensor, as in `fixtures/README.md`.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::path::{Path, PathBuf};

use heirloom_engine::{Cpu, Device, IGNORED, Ids, Reference, RowLoss, Space, Target, View};
use heirloom_models::{
    Capacity, Decoder, DecoderConfig, Generate, GenerateRoom, Generator, Inputs, Noise, Purpose,
    Sampling, Stopped, Taps,
};
use heirloom_store::{TensorFile, TensorFolder};

const CASES: [&str; 10] = [
    "gpt2",
    "gpt2-untied",
    "llama",
    "llama-biases",
    "llama3-tied",
    "llama-yarn",
    "mistral-window",
    "qwen2-tied",
    "qwen2-windows",
    "qwen3",
];

/// The same mathematics; the rest is the order of sums.
const DOUBLE: f64 = 1e-10;
/// A few roundings more than the farthest of transformers' own numbers in single precision.
const SINGLE: f64 = 2e-5;

const CAPACITY: Capacity = Capacity { tokens: 25, sequences: 5, masked: 0 };

fn fixture(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(case)
}

fn open(case: &str, device: &mut dyn Device) -> (Decoder, TensorFile) {
    let folder = fixture(case);
    let model = Decoder::new(device, DecoderConfig::open(&folder).unwrap());
    let loaded =
        model.load(device, &TensorFolder::open(&folder).unwrap(), &|name| name.to_owned()).unwrap();
    assert_eq!(loaded, Default::default(), "{case}: nothing fresh, nothing unused");
    (model, TensorFile::open(&folder.join("case.safetensors")).unwrap())
}

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

fn tokens(file: &TensorFile, name: &str) -> Vec<u32> {
    file.read::<i64>(name).unwrap().into_iter().map(|id| id as u32).collect()
}

/// The fixture's sequences, laid end to end.
struct Packed {
    ids: Vec<u32>,
    positions: Vec<u32>,
    starts: Vec<u32>,
    /// The token after each.
    labels: Vec<u32>,
}

fn packed(file: &TensorFile) -> Packed {
    let (ids, lengths) = (tokens(file, "input_ids"), tokens(file, "lengths"));
    let mut starts = vec![0];
    starts.extend(lengths.iter().scan(0, |end, &length| {
        *end += length;
        Some(*end)
    }));
    let positions = lengths.iter().flat_map(|&length| 0..length).collect();
    let mut labels: Vec<u32> = ids[1..].iter().copied().chain([IGNORED]).collect();
    starts[1..].iter().for_each(|&end| labels[end as usize - 1] = IGNORED);
    Packed { ids, positions, starts, labels }
}

/// Logits, loss and gradients of the fixture's batch.
fn step(
    device: &mut dyn Device,
    model: &Decoder,
    file: &TensorFile,
    purpose: &Purpose,
    noise: Option<Noise>,
) -> (Vec<f64>, f64, Space) {
    let packed = packed(file);
    let mut batch = model.batch(device, CAPACITY);
    let buffers = model.buffers(device, CAPACITY, purpose);
    batch.upload(
        device,
        &Inputs {
            ids: &packed.ids,
            types: &vec![0; packed.ids.len()],
            positions: &packed.positions,
            rows: &packed.positions,
            starts: &packed.starts,
            masked: &[],
        },
    );
    let logits = model.forward(device, &batch, &buffers, noise);
    let n = logits.rows();
    let labels = Ids::at(device.alloc_ids(n), 0, n);
    device.write_ids(labels, &packed.labels);
    let count = packed.labels.iter().filter(|&&label| label != IGNORED).count() as f64;
    let losses = View::matrix(device.alloc(n), 0, n, 1);
    let d_logits = model.d_logits(&buffers, n);
    device.fill(d_logits, 0.0);
    device.row_loss(&RowLoss {
        x: logits,
        target: Target::Labels(labels),
        scale: 1.0 / count,
        weights: None,
        losses,
        dx: Some(d_logits),
    });
    let grads = device.alloc(model.params().len());
    model.backward(device, &batch, &buffers, grads, noise);
    (device.read_f64(logits), device.sum(losses) / count, grads)
}

/// The gradient of a parameter as files have it: GPT-2's matrices the other way round.
fn gradient(
    device: &dyn Device,
    model: &Decoder,
    grads: Space,
    at: usize,
    shape: &[usize],
) -> Vec<f64> {
    let param = &model.params().index()[at];
    let values = device.read_f64(model.params().view(param, grads));
    if param.shape == shape {
        return values;
    }
    let (rows, cols) = (param.shape[0], param.shape[1]);
    assert_eq!(shape, [cols, rows], "{}", param.name);
    (0..cols)
        .flat_map(|col| (0..rows).map(move |row| (row, col)))
        .map(|(r, c)| values[r * cols + c])
        .collect()
}

fn check(case: &str, device: &mut dyn Device, bound: f64) {
    let (model, file) = open(case, device);
    let purpose = Purpose::Train(Taps::default());
    let (logits, loss, grads) = step(device, &model, &file, &purpose, None);
    let stored = |name: &str| file.read::<f64>(&format!("f64.{name}")).unwrap();
    close(&format!("{case}: logits"), &logits, &stored("logits"), bound);
    close(&format!("{case}: loss"), &[loss], &stored("loss"), bound);
    for (at, param) in model.params().index().iter().enumerate() {
        let name = format!("grad.{}", param.name);
        let want = stored(&name);
        let shape = file.shape(&format!("f64.{name}")).unwrap().to_vec();
        // A square matrix looks alike both ways.
        let conv = case.starts_with("gpt2") && shape.len() == 2 && param.name.contains(".c_");
        let mut got = gradient(device, &model, grads, at, &shape);
        if conv && shape[0] == shape[1] {
            let cols = shape[0];
            got = (0..cols * cols).map(|i| got[i % cols * cols + i / cols]).collect();
        }
        if param.name.contains("k_proj.bias") {
            // Zero in exact arithmetic without rotation, and small with it: the query's scale.
            let size = want.iter().fold(0.0_f64, |size, x| size.max(x.abs())).max(1e-2);
            let far = got.iter().zip(&want).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
            assert!(far <= bound * size, "{case}: {name} is {far:e} off");
        } else {
            close(&format!("{case}: {name}"), &got, &want, bound);
        }
    }
}

#[test]
fn the_reference_in_double_precision_equals_transformers() {
    for case in CASES {
        check(case, &mut Reference::<f64>::new(), DOUBLE);
    }
}

#[test]
fn the_reference_in_single_precision_equals_transformers() {
    for case in CASES {
        check(case, &mut Reference::<f32>::new(), SINGLE);
    }
}

#[test]
fn the_processor_equals_transformers() {
    for case in CASES {
        check(case, &mut Cpu::new(2), SINGLE);
    }
}

#[test]
fn recomputing_blocks_gives_the_same_gradients_bit_for_bit_with_dropout_too() {
    for case in ["gpt2", "llama", "qwen3"] {
        let gradients = |purpose: &Purpose| {
            let mut device = Cpu::new(2);
            let mut config = DecoderConfig::open(&fixture(case)).unwrap();
            (config.embedding_dropout, config.hidden_dropout) = (0.2, 0.3);
            config.attention_dropout = 0.1;
            let model = Decoder::new(&mut device, config);
            model.init(&mut device, 3);
            let file = TensorFile::open(&fixture(case).join("case.safetensors")).unwrap();
            let noise = Some(Noise { seed: 5, step: 2 });
            let (_, loss, grads) = step(&mut device, &model, &file, purpose, noise);
            (loss, device.read(model.params().flat(grads)))
        };
        let kept = gradients(&Purpose::Train(Taps::default()));
        assert_eq!(gradients(&Purpose::Recompute(Taps::default())), kept, "{case}");
    }
}

/// The fixtures have no dropout, so that its backward pass needs a check of its own.
#[test]
fn gradients_with_dropout_are_those_of_finite_differences() {
    for case in ["gpt2", "qwen3"] {
        let mut device = Reference::<f64>::new();
        let mut config = DecoderConfig::open(&fixture(case)).unwrap();
        (config.embedding_dropout, config.hidden_dropout) = (0.2, 0.3);
        config.attention_dropout = 0.1;
        let model = Decoder::new(&mut device, config);
        let (folder, noise) =
            (TensorFolder::open(&fixture(case)).unwrap(), Noise { seed: 5, step: 2 });
        model.load(&mut device, &folder, &|name| name.to_owned()).unwrap();
        let file = TensorFile::open(&fixture(case).join("case.safetensors")).unwrap();
        let purpose = Purpose::Train(Taps::default());
        let (_, _, grads) = step(&mut device, &model, &file, &purpose, Some(noise));
        for param in model.params().index() {
            let view = model.params().view(param, model.params().weights());
            let got = device.read_f64(model.params().view(param, grads))[param.len() / 2];
            let mut at = |x: f64| {
                let mut values = device.read_f64(view);
                values[param.len() / 2] += x;
                device.write_f64(view, &values);
                step(&mut device, &model, &file, &purpose, Some(noise)).1
            };
            let (up, down) = (at(1e-5), at(-2e-5));
            at(1e-5);
            let want = (up - down) / 2e-5;
            assert!((got - want).abs() < 1e-8, "{case}: {}: {got}, should be {want}", param.name);
        }
    }
}

fn greedy(new_tokens: usize) -> Generate {
    Generate { new_tokens, stop: vec![], sampling: Sampling::Greedy, vocabulary: None }
}

#[test]
fn greedy_text_of_sixty_four_tokens_is_that_of_transformers_in_a_batch_and_alone() {
    for case in CASES {
        for device in [&mut Cpu::new(2) as &mut dyn Device, &mut Reference::<f64>::new()] {
            let (model, file) = open(case, device);
            let prompts = [0, 1].map(|at| tokens(&file, &format!("prompt.{at}")));
            let want = [0, 1].map(|at| tokens(&file, &format!("greedy.{at}")));
            let texts = model.generate(device, &prompts, &greedy(64));
            for (at, text) in texts.iter().enumerate() {
                assert_eq!(text.tokens, want[at], "{case}: prompt {at} of two");
                assert_eq!(text.stopped, Stopped::Length);
            }
            let alone = model.generate(device, &prompts[1..], &greedy(64));
            assert_eq!(alone[0].tokens, want[1], "{case}: alone");
        }
    }
}

#[test]
fn kept_keys_give_the_token_that_the_whole_text_gives() {
    for case in CASES {
        let mut device = Reference::<f64>::new();
        let (model, file) = open(case, &mut device);
        let mut text = tokens(&file, "prompt.0");
        let kept = model.generate(&mut device, &[text.clone()], &greedy(12)).remove(0).tokens;
        for &token in &kept {
            // The first token after a prompt reads no kept key of its own making.
            let whole = model.generate(&mut device, &[text.clone()], &greedy(1)).remove(0);
            assert_eq!(whole.tokens, [token], "{case}: after {} tokens", text.len());
            text.push(token);
        }
    }
}

#[test]
fn a_text_ends_at_a_stop_token_and_the_others_go_on() {
    let mut device = Cpu::new(1);
    let (model, file) = open("llama", &mut device);
    let prompts = [0, 1].map(|at| tokens(&file, &format!("prompt.{at}")));
    let whole = model.generate(&mut device, &prompts, &greedy(20));
    let stop = whole[0].tokens[4];
    let until = |tokens: &[u32]| tokens.iter().position(|&t| t == stop).map(|at| at + 1);
    let texts = model.generate(&mut device, &prompts, &Generate { stop: vec![stop], ..greedy(20) });
    assert_eq!(texts[0].stopped, Stopped::Token);
    for (text, whole) in texts.iter().zip(&whole) {
        let end = until(&whole.tokens).unwrap_or(20);
        assert_eq!(text.tokens, whole.tokens[..end]);
    }
}

fn random(temperature: f64, top_k: usize, top_p: f64, seed: u64) -> Generate {
    Generate { sampling: Sampling::Random { temperature, top_k, top_p, seed }, ..greedy(16) }
}

#[test]
fn sampled_text_is_reproducible_and_its_cuts_cut() {
    let mut device = Cpu::new(2);
    let (model, file) = open("qwen3", &mut device);
    let prompts = vec![tokens(&file, "prompt.0"); 3];
    let mut sample = |ask: &Generate| model.generate(&mut device, &prompts, ask);
    let texts = sample(&random(1.0, 0, 1.0, 7));
    assert_eq!(sample(&random(1.0, 0, 1.0, 7)), texts, "same seed");
    assert_ne!(sample(&random(1.0, 0, 1.0, 8)), texts, "another seed");
    assert_ne!(texts[0], texts[1], "a prompt's place is part of the address");
    // One token left to choose from is the most probable.
    let want = sample(&greedy(16));
    assert_eq!(sample(&random(1.0, 1, 1.0, 7)), want, "top-k 1");
    assert_eq!(sample(&random(1.0, 0, 1e-9, 7)), want, "top-p near 0");
    assert_eq!(sample(&random(1e-6, 0, 1.0, 7)), want, "temperature near 0");
}

#[test]
fn a_text_depends_on_its_prompts_address_and_not_on_the_prompts_beside_it() {
    for case in ["gpt2", "qwen3"] {
        let mut device = Cpu::new(2);
        let (model, file) = open(case, &mut device);
        let [first, second] = [0, 1].map(|at| tokens(&file, &format!("prompt.{at}")));
        let prompts = [first.clone(), second.clone(), first.clone(), second, first];
        let room = GenerateRoom { sequences: 5, prompt_tokens: 60, length: 48 };
        let mut generator = Generator::new(&model, &mut device, room);
        let ask = random(1.3, 0, 1.0, 7);
        let addresses = [1 << 40, 3, 1 << 33 | 3, 4, 1 << 40];
        let together = generator.generate(&model, &mut device, &prompts, &addresses, &ask);
        let bytes = device.bytes();
        for parts in [1, 2, 3] {
            let mut texts = Vec::new();
            for (prompts, addresses) in prompts.chunks(parts).zip(addresses.chunks(parts)) {
                texts.extend(generator.generate(&model, &mut device, prompts, addresses, &ask));
            }
            assert_eq!(texts, together, "{case}: {parts} at a time");
        }
        assert_eq!(together[0], together[4], "the same prompt at the same address");
        assert_ne!(together[0], together[2], "another address");
        assert_eq!(device.bytes(), bytes, "room is asked for once");
    }
}

#[test]
fn ids_that_stand_for_no_token_are_never_chosen() {
    let mut device = Cpu::new(1);
    let (model, file) = open("llama", &mut device);
    let prompts = vec![tokens(&file, "prompt.0"); 40];
    for ask in [greedy(16), random(50.0, 0, 1.0, 1)] {
        let texts = |vocabulary, device: &mut Cpu| {
            let texts = model.generate(device, &prompts, &Generate { vocabulary, ..ask.clone() });
            texts.into_iter().flat_map(|text| text.tokens).max().unwrap()
        };
        assert!(texts(None, &mut device) >= 20, "the model would choose others");
        assert!(texts(Some(20), &mut device) < 20);
        assert!(texts(Some(1000), &mut device) < 60);
    }
}

#[test]
#[should_panic(expected = "3 prompts in room for 2")]
fn more_prompts_than_room_are_refused() {
    let mut device = Cpu::new(1);
    let (model, file) = open("llama", &mut device);
    let room = GenerateRoom { sequences: 2, prompt_tokens: 60, length: 48 };
    let prompts = vec![tokens(&file, "prompt.0"); 3];
    let mut generator = Generator::new(&model, &mut device, room);
    generator.generate(&model, &mut device, &prompts, &[0, 1, 2], &greedy(4));
}

#[test]
fn sampled_tokens_come_as_often_as_they_are_probable() {
    let mut device = Cpu::new(1);
    let (model, file) = open("qwen2-tied", &mut device);
    let prompt = tokens(&file, "prompt.1");
    // At temperature 2 several tokens share the probability; it is computed here from the logits.
    let count = 4000;
    let ask = Generate { new_tokens: 1, ..random(2.0, 3, 1.0, 1) };
    let texts = model.generate(&mut device, &vec![prompt.clone(); count], &ask);
    let mut batch = model.batch(&mut device, CAPACITY);
    let buffers = model.buffers(&mut device, CAPACITY, &Purpose::Infer);
    let positions: Vec<u32> = (0..prompt.len() as u32).collect();
    batch.upload(
        &mut device,
        &Inputs {
            ids: &prompt,
            types: &vec![0; prompt.len()],
            positions: &positions,
            rows: &positions,
            starts: &[0, prompt.len() as u32],
            masked: &[],
        },
    );
    let logits = model.forward(&mut device, &batch, &buffers, None);
    let row = device.read_f64(logits.row_range(prompt.len() - 1..prompt.len()));
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    let weights: Vec<f64> =
        order[..3].iter().map(|&at| ((row[at] - row[order[0]]) / 2.0).exp()).collect();
    for (&token, weight) in order.iter().zip(&weights) {
        let p = weight / weights.iter().sum::<f64>();
        let got = texts.iter().filter(|text| text.tokens == [token as u32]).count();
        // Five standard deviations.
        let bound = 5.0 * (p * (1.0 - p) * count as f64).sqrt();
        assert!((got as f64 - p * count as f64).abs() <= bound, "token {token}: {got} of {count}");
    }
}

#[test]
fn a_saved_folder_has_the_tensors_it_was_loaded_from() {
    for case in CASES {
        let mut device = Cpu::new(1);
        let (model, _) = open(case, &mut device);
        let folder = TensorFolder::open(&fixture(case)).unwrap();
        let tensors = model.tensors(&device);
        let mut names: Vec<&str> = tensors.iter().map(|(name, _, _)| name.as_str()).collect();
        names.sort_unstable();
        let mut stored: Vec<&str> = folder.names().collect();
        stored.sort_unstable();
        assert_eq!(names, stored, "{case}");
        for (name, shape, values) in &tensors {
            assert_eq!(folder.shape(name).unwrap(), shape, "{case}: {name}");
            assert_eq!(&folder.read_f32(name).unwrap(), values, "{case}: {name}");
        }
        let file = fixture(case).join("config.json");
        let again = DecoderConfig::parse(&file, &model.config().to_json()).unwrap();
        let same = DecoderConfig { raw: model.config().raw.clone(), ..again };
        assert_eq!(&same, model.config(), "{case}");
    }
}

#[test]
fn weights_of_another_shape_are_refused_by_name() {
    let mut device = Cpu::new(1);
    let mut config = DecoderConfig::open(&fixture("gpt2")).unwrap();
    config.intermediate_size = 40;
    let model = Decoder::new(&mut device, config);
    let folder = TensorFolder::open(&fixture("gpt2")).unwrap();
    let error = model.load(&mut device, &folder, &|name| name.to_owned()).unwrap_err().to_string();
    let want = "misshapen `transformer.h.0.mlp.c_fc.weight`: [16, 64] in the file, [16, 40] by config.json";
    assert!(error.contains(want), "{error}");
}

#[test]
fn configs_that_are_not_supported_are_refused_with_key_value_and_what_is() {
    let refused = |case: &str, key: &str, value: serde_json::Value| {
        let mut map = DecoderConfig::open(&fixture(case)).unwrap().raw;
        match key.split_once('/') {
            Some((outer, inner)) => map[outer].as_object_mut().unwrap().insert(inner.into(), value),
            None => map.insert(key.into(), value),
        };
        DecoderConfig::from_map(Path::new("config.json"), map).unwrap_err().to_string()
    };
    use serde_json::json;
    let rows = [
        (
            "llama",
            "model_type",
            json!("mamba"),
            "`config.json`: `model_type` is \"mamba\", expected a decoder: one of gpt2, llama, mistral, qwen2, qwen3",
        ),
        (
            "llama",
            "rope_parameters/rope_type",
            json!("longrope"),
            "`config.json`: key `rope_parameters.rope_type` is \"longrope\", expected one of default, linear, llama3, yarn",
        ),
        (
            "llama",
            "rope_parameters/partial_rotary_factor",
            json!(0.5),
            "`config.json`: key `rope_parameters.partial_rotary_factor` is 0.5, expected 1",
        ),
        (
            "llama3-tied",
            "rope_parameters/factor",
            json!("8"),
            "`config.json`: key `rope_parameters.factor` is \"8\", expected a number in 0.000000001..=1000000000000",
        ),
        (
            "llama",
            "num_key_value_heads",
            json!(3),
            "`config.json`: key `num_key_value_heads` is 3, expected a divisor of 4",
        ),
        (
            "llama",
            "head_dim",
            json!(5),
            "`config.json`: key `head_dim` is 5, expected an even number: rotary positions turn pairs",
        ),
        (
            "llama",
            "hidden_act",
            json!("mish"),
            "`config.json`: key `hidden_act` is \"mish\", expected one of gelu, gelu_new, gelu_pytorch_tanh, relu, silu, tanh",
        ),
        (
            "gpt2",
            "scale_attn_by_inverse_layer_idx",
            json!(true),
            "`config.json`: key `scale_attn_by_inverse_layer_idx` is true, expected false",
        ),
        (
            "gpt2",
            "add_cross_attention",
            json!(true),
            "`config.json`: key `add_cross_attention` is true, expected false",
        ),
        ("gpt2", "n_head", json!(5), "`config.json`: key `n_head` is 5, expected a divisor of 16"),
        (
            "gpt2",
            "eos_token_id",
            json!(-1),
            "`config.json`: key `eos_token_id` is -1, expected a token id or a list of them",
        ),
        (
            "qwen2-windows",
            "layer_types",
            json!(["full_attention", "chunked_attention"]),
            "`config.json`: key `layer_types` is [\"full_attention\",\"chunked_attention\"], expected full_attention or sliding_attention each",
        ),
    ];
    for (case, key, value, want) in rows {
        assert_eq!(refused(case, key, value), want);
    }
}

#[test]
fn keys_of_older_files_say_the_same() {
    let now = DecoderConfig::open(&fixture("llama-yarn")).unwrap();
    let mut map = now.raw.clone();
    let mut rope = map.remove("rope_parameters").unwrap();
    let rope = rope.as_object_mut().unwrap();
    map.insert("rope_theta".into(), rope.remove("rope_theta").unwrap());
    let kind = rope.remove("rope_type").unwrap();
    rope.insert("type".into(), kind);
    map.insert("rope_scaling".into(), rope.clone().into());
    let then = DecoderConfig::from_map(Path::new("config.json"), map).unwrap();
    assert_eq!(then.positions, now.positions);
}

/// The spread of a parameter's numbers.
fn spread(device: &mut dyn Device, model: &Decoder, name: &str) -> f64 {
    let params = model.params();
    let param = params.index().iter().find(|param| param.name == name).unwrap();
    let numbers = device.read_f64(params.view(param, params.weights()));
    (numbers.iter().map(|x| x * x).sum::<f64>() / numbers.len() as f64).sqrt()
}

#[test]
fn what_gpt2_writes_to_the_residual_stream_begins_smaller_with_more_layers() {
    let mut device = Reference::<f64>::new();
    let config = serde_json::json!({
        "model_type": "gpt2", "vocab_size": 50, "n_positions": 8, "n_layer": 8, "n_embd": 64,
        "n_head": 2, "bos_token_id": 0, "eos_token_id": 0,
    });
    let keys = config.as_object().unwrap().clone();
    let model =
        Decoder::new(&mut device, DecoderConfig::from_map(Path::new("gpt2"), keys).unwrap());
    model.init(&mut device, 5);
    for (part, want) in
        [("attn.c_attn", 0.02), ("attn.c_proj", 0.005), ("mlp.c_fc", 0.02), ("mlp.c_proj", 0.005)]
    {
        let got = spread(&mut device, &model, &format!("transformer.h.3.{part}.weight"));
        assert!((got / want - 1.0).abs() < 0.06, "{part}: {got}, want {want}");
    }
}
