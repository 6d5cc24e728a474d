//! An operator on a device against plain loops in double precision: of every family, grown by layers,
//! by width, and by both.

use std::collections::BTreeSet;
use std::path::PathBuf;

use heirloom_engine::{Cpu, Precision, Reference};
use heirloom_growth::{Anatomy, GrowthPlan, Method, Target, Tensor, Tensors};
use heirloom_models::{Decoder, DecoderConfig, EncoderConfig, Head, Model};

use super::*;
use crate::grows::Grows;
use crate::{Adam, LanguageConfig, Learned};

type Device = Box<dyn heirloom_engine::Device>;

/// A model's buffers, without a run.
struct Buffers {
    device: Device,
    learned: Learned,
    turned: BTreeSet<String>,
}

/// What a student may be.
#[derive(Clone)]
enum Config {
    Classifier(EncoderConfig),
    Language(LanguageConfig),
}

impl Config {
    fn anatomy(&self) -> Anatomy {
        match self {
            Self::Classifier(config) => config.anatomy(),
            Self::Language(config) => config.anatomy(),
        }
    }

    fn grown(&self, plan: &GrowthPlan) -> Self {
        match self {
            Self::Classifier(config) => Self::Classifier(config.grown(plan).expect("a config")),
            Self::Language(config) => Self::Language(config.grown(plan).expect("a config")),
        }
    }

    fn buffers(&self, mut device: Device) -> Buffers {
        let encoder = |device: &mut Device, config: &EncoderConfig, head| {
            let model = Model::new(&mut **device, config.clone(), head);
            (model.params().clone(), BTreeSet::new())
        };
        let (params, turned) = match self {
            Self::Classifier(config) => {
                encoder(&mut device, config, Head::SingleLabel { labels: 3 })
            }
            Self::Language(LanguageConfig::Encoder(config)) => {
                encoder(&mut device, config, Head::MaskedLm)
            }
            Self::Language(LanguageConfig::Decoder(config)) => {
                let model = Decoder::new(&mut *device, config.clone());
                let names = model.params().index().iter().map(|param| param.name.clone());
                let turned = names.filter(|name| model.lies_transposed(name)).collect();
                (model.params().clone(), turned)
            }
        };
        let adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
        let learned = Learned::new(&mut *device, params, adam, None);
        Buffers { device, learned, turned }
    }
}

impl Buffers {
    fn student(&mut self) -> Student<'_> {
        let turned = self.turned.clone();
        Student { device: &mut *self.device, learned: &self.learned, average: None, turned }
    }

    /// Fills a twin of the weights with numbers of both signs that `f32` holds. They have a mean, so
    /// that long sums of their products do not cancel: what is left of one that does has an error of
    /// the size of its terms.
    fn fill(&mut self, space: Space, salt: f64) {
        let mut student = self.student();
        let mut tensors = student.tensors(space);
        for (at, tensor) in tensors.values_mut().enumerate() {
            for (place, value) in tensor.data.iter_mut().enumerate() {
                let number = 0.4 + (salt + 3.7 * at as f64 + 1.3 * place as f64).sin();
                *value = f64::from(number as f32);
            }
        }
        student.put(space, &tensors);
    }
}

fn students() -> Vec<(&'static str, Config)> {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let decoder = |name| {
        let config = DecoderConfig::open(&fixtures.join("decoders").join(name));
        (name, Config::Language(LanguageConfig::Decoder(config.expect("a fixture"))))
    };
    let encoder =
        |name| EncoderConfig::open(&fixtures.join("encoders").join(name)).expect("a fixture");
    let decoders = ["gpt2", "gpt2-untied", "llama", "mistral-window", "qwen2-tied", "qwen3"];
    let mut students: Vec<_> = decoders.map(decoder).into();
    let masked = LanguageConfig::Encoder(encoder("bert-mlm"));
    students.push(("bert-mlm", Config::Language(masked)));
    for name in ["bert-single", "roberta-single", "distilbert-single"] {
        students.push((name, Config::Classifier(encoder(name))));
    }
    students
}

/// Layers, widths, feed-forward units alone, and all together.
fn targets(anatomy: &Anatomy) -> Vec<Target> {
    let shape = &anatomy.shape;
    let (layers, hidden) = (Some(shape.layers + 1), Some(2 * shape.hidden));
    let intermediate = Some(3 * shape.intermediate);
    vec![
        Target { layers, ..Target::default() },
        Target { hidden, ..Target::default() },
        Target { intermediate, ..Target::default() },
        Target { layers: Some(2 * shape.layers), hidden, ..Target::default() },
        Target { layers, hidden, intermediate, ..Target::default() },
    ]
}

/// A small model, a large one, and an operator away from the zeros and ones that it begins with.
struct Pair {
    small: Buffers,
    large: Buffers,
    operator: Operator,
}

impl Pair {
    fn new(config: &Config, target: &Target, device: fn() -> Device) -> Self {
        let anatomy = config.anatomy();
        let plan = Method::Bert2BertFpi.plan(&anatomy, target, 3).expect("a plan");
        let mut small = config.buffers(device());
        let mut large = config.grown(&plan).buffers(device());
        small.fill(small.learned.params.weights(), 0.5);
        large.fill(large.learned.grads, 0.9);
        let old = small.student().weights();
        let shapes = old.iter().map(|(name, tensor)| (name.as_str(), &*tensor.shape));
        let mut operator = Operator::of(&plan, &anatomy, shapes).expect("a map");
        for (at, value) in operator.values_mut().enumerate() {
            *value = f64::from((*value + 0.1 * (at as f64).cos()) as f32);
        }
        Self { small, large, operator }
    }

    fn on_device(&mut self) -> DeviceOperator {
        DeviceOperator::new(&self.operator, &self.small.student(), &mut self.large.student())
    }

    fn heard(&mut self) -> Tensors<f64> {
        let student = self.large.student();
        student.tensors(student.learned.grads)
    }
}

/// The farthest difference, relative to the largest number of these.
fn apart(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1e-300, |most: f64, x| most.max(x.abs()));
    got.iter().zip(want).fold(0.0, |most: f64, (got, want)| most.max((got - want).abs())) / largest
}

/// The operator's numbers, or a twin of them, in the order of [`Operator::values`].
fn numbers(map: &DeviceOperator, space: Space, device: &dyn heirloom_engine::Device) -> Vec<f64> {
    let index = map.numbers.index().iter();
    index.flat_map(|param| device.read_f64(map.numbers.view(param, space))).collect()
}

fn double() -> Device {
    Box::new(Reference::<f64>::new())
}

fn single() -> Device {
    Box::new(Cpu::new(2))
}

#[test]
fn grown_parameters_and_the_gradient_of_every_number_are_those_of_plain_loops() {
    for (name, config) in students() {
        for target in targets(&config.anatomy()) {
            // In f32, sums of some hundred products of numbers that are exact in it.
            for (device, bound) in [(double as fn() -> Device, 1e-12), (single, 1e-5)] {
                let mut pair = Pair::new(&config, &target, device);
                let map = pair.on_device();
                let old = pair.small.student().weights();
                map.apply(&mut *pair.large.device);
                let (got, want) = (pair.large.student().weights(), pair.operator.apply(&old));
                assert!(want.keys().all(|name| got.contains_key(name)), "{name} {target:?}");
                assert_eq!(got.len(), want.len(), "{name} {target:?}");
                for (parameter, Tensor { shape, data }) in &want {
                    let far = apart(&got[parameter].data, data);
                    assert_eq!(got[parameter].shape, *shape, "{name} {parameter}");
                    assert!(far < bound, "{name} {target:?} {parameter}: {far:e}");
                }
                let heard = pair.heard();
                let want = pair.operator.gradient(&old, &heard);
                map.gradient(&mut *pair.large.device);
                let mut got = numbers(&map, map.grads, &*pair.large.device).into_iter();
                for (at, matrix) in want.factors.iter().chain(&want.blends).enumerate() {
                    let got: Vec<f64> = got.by_ref().take(matrix.values.len()).collect();
                    let far = apart(&got, &matrix.values);
                    assert!(far < bound, "{name} {target:?} matrix {at}: {far:e}");
                    let some = matrix.values.iter().any(|slope| slope.abs() > 1e-3);
                    assert!(some, "{name} {target:?} matrix {at} has a gradient");
                }
                assert_eq!(got.next(), None);
            }
        }
    }
}

/// Operations of a part, forward and backward: of the two orders in which its products can be made the
/// one that takes fewer.
fn operations(operator: &Operator, part: &Part) -> u64 {
    let [r, c] = [part.shape[0], part.shape.get(1).copied().unwrap_or(1)];
    let rows = |at: Option<usize>| at.map(|at| operator.factors[at].rows);
    let [grown_r, grown_c] = part.factors.map(rows);
    let product = |m: usize, k: usize, n: usize| (2 * m * k * n) as u64;
    let each = match (grown_r, grown_c) {
        (None, None) => 0,
        // The product, and the gradient of its one factor.
        (Some(to), None) => 2 * product(to, r, c),
        (None, Some(to)) => 2 * product(r, c, to),
        (Some(rows), Some(columns)) => {
            // Forward; the gradient of what was computed first, and of both factors.
            let rows_first = 2 * product(rows, r, c) + 3 * product(rows, c, columns);
            let columns_first = 2 * product(r, c, columns) + 3 * product(rows, r, columns);
            rows_first.min(columns_first)
        }
    };
    let (layers, new) = (part.from.len(), part.to.len());
    let numbers = grown_r.unwrap_or(r) * grown_c.unwrap_or(c);
    let blended = part.blend.map_or(0, |_| product(new, layers, numbers));
    // Forward and the gradient of w; where there are factors, of what is blended too.
    let times = if grown_r.or(grown_c).is_some() { 3 } else { 2 };
    layers as u64 * each + times * blended
}

#[test]
fn operations_that_are_counted_are_those_of_the_products_that_are_computed() {
    for (name, config) in students() {
        for target in targets(&config.anatomy()) {
            for device in [double, single] {
                let mut pair = Pair::new(&config, &target, device);
                let map = pair.on_device();
                let before = pair.large.device.operations();
                map.apply(&mut *pair.large.device);
                map.gradient(&mut *pair.large.device);
                let got = pair.large.device.operations() - before;
                let of = |part| operations(&pair.operator, part);
                let want: u64 = pair.operator.parts().iter().map(of).sum();
                assert_eq!(got, want, "{name} {target:?}");
            }
        }
    }
    // By hand: a third layer of GPT-2 of width 16 blends 3 · 2 layers of 12 · 16² + 13 · 16 numbers, a
    // multiplication and an addition each, once forward and once for the gradient of w.
    let (_, gpt2) = students().swap_remove(0);
    let target = Target { layers: Some(3), ..Target::default() };
    let mut pair = Pair::new(&gpt2, &target, double);
    let map = pair.on_device();
    let before = pair.large.device.operations();
    map.apply(&mut *pair.large.device);
    map.gradient(&mut *pair.large.device);
    assert_eq!(pair.large.device.operations() - before, 2 * 2 * 6 * (12 * 256 + 13 * 16));
}

#[test]
fn a_run_in_bfloat16_has_a_map_in_full_and_its_own_precision_afterwards() {
    let half = || -> Device { Box::new(Cpu::new(1).with_precision(Precision::Bf16)) };
    for (name, config) in students().into_iter().take(3) {
        let target = &targets(&config.anatomy())[4];
        let of = |device: fn() -> Device| {
            let mut pair = Pair::new(&config, target, device);
            let map = pair.on_device();
            map.apply(&mut *pair.large.device);
            map.gradient(&mut *pair.large.device);
            let slopes = numbers(&map, map.grads, &*pair.large.device);
            let precision = pair.large.device.set_precision(Precision::F32);
            (pair.large.student().weights(), slopes, precision)
        };
        let (rounding, full) = (of(half), of(single));
        assert!(rounding.0 == full.0 && rounding.1 == full.1, "{name}");
        assert_eq!((rounding.2, full.2), (Precision::Bf16, Precision::F32), "{name}");
    }
}

#[test]
fn a_map_gives_back_the_memory_that_it_took_and_a_gradient_that_is_not_finite_moves_nothing() {
    let (_, config) = students().swap_remove(0);
    let target = &targets(&config.anatomy())[4];
    let mut pair = Pair::new(&config, target, double);
    let before = pair.large.device.bytes();
    let map = pair.on_device();
    assert!(pair.large.device.bytes() > before);
    let device = &mut pair.large.device;
    let was = numbers(&map, map.numbers.weights(), &**device);
    assert_eq!(was, pair.operator.values().collect::<Vec<f64>>());
    map.apply(&mut **device);
    map.gradient(&mut **device);
    let slope = numbers(&map, map.grads, &**device)[3];
    let place = map.numbers.view(&map.numbers.index()[0], map.grads);
    device.write_f64(place.columns(3..4), &[f64::NAN]);
    map.step(&mut **device, 1, 0.01);
    assert_eq!(numbers(&map, map.numbers.weights(), &**device), was);
    assert!(numbers(&map, map.grads, &**device).iter().all(|slope| *slope == 0.0));
    map.gradient(&mut **device);
    map.step(&mut **device, 1, 0.01);
    // Adam's first step is as long as its rate, whatever the gradient; it goes downhill.
    let moved = numbers(&map, map.numbers.weights(), &**device)[3] - was[3];
    assert!((moved + 0.01 * slope.signum()).abs() < 1e-8, "{moved} at {slope}");
    assert!(numbers(&map, map.grads, &**device).iter().all(|slope| *slope == 0.0));
    map.free(&mut **device);
    assert_eq!(device.bytes(), before);
}
