//! What happens after growth: with mapped moments and multiplied learning rates a grown model
//! follows the small one step by step; its copies stay alike, or learn apart.

use heirloom_growth::{
    Anatomy, Axis, Family, GrowthPlan, LmHead, Map, Method, Moments, MomentsMode, Norm, Target,
    Tensor, Tensors, clone_gap, descents, grow, grow_moments, rate_multipliers,
};

use crate::small::{TOKENS, anatomy, forward, model};
use crate::tape::{Scalar, Var, sum};

const BETAS: (f64, f64) = (0.9, 0.98);
/// Small, so that it weighs on no step: a grown gradient is smaller than the old one.
const EPS: f64 = 1e-14;
const RATE: f64 = 2e-3;
const DECAY: f64 = 0.05;
/// Rounding at each of the steps, which training carries on.
const TOLERANCE: f64 = 1e-9;

/// Squared distance of the scores from fixed targets.
fn loss<S: Scalar>(a: &Anatomy, t: &Tensors<S>) -> S {
    let target = |row: usize, column: usize| ((3 * TOKENS[row] + 5 * column) as f64).sin();
    let rows = forward(a, t);
    let squares = rows.iter().enumerate().flat_map(|(i, row)| {
        row.iter().enumerate().map(move |(j, &y)| {
            let off = y - S::of(target(i, j));
            off * off
        })
    });
    sum(squares) / S::of(10.0)
}

/// The loss and its gradient.
fn gradient(a: &Anatomy, t: &Tensors<f64>) -> (f64, Tensors<f64>) {
    let leaves: Tensors<Var> = t
        .iter()
        .map(|(name, tensor)| {
            let data = tensor.data.iter().map(|&value| Var::leaf(value)).collect();
            (name.clone(), Tensor { shape: tensor.shape.clone(), data })
        })
        .collect();
    let loss = loss(a, &leaves);
    let slopes = loss.slopes();
    let along = |tensor: &Tensor<Var>| {
        let data = tensor.data.iter().map(|&leaf| slopes.along(leaf)).collect();
        Tensor::new(&tensor.shape, data)
    };
    (loss.value, leaves.iter().map(|(name, tensor)| (name.clone(), along(tensor))).collect())
}

#[test]
fn the_tape_agrees_with_central_differences() {
    let a = anatomy(Family::Llama, Norm::Layer, LmHead::Tied, 1, 2);
    let t = model(&a);
    let (value, grads) = gradient(&a, &t);
    assert_eq!(value, loss(&a, &t));
    const STEP: f64 = 1e-5;
    for (name, tensor) in &t {
        let mut moved = t.clone();
        let mut at = |by: f64| {
            moved.get_mut(name).unwrap().data[0] = tensor.data[0] + by;
            loss(&a, &moved)
        };
        let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        // The square of the step, times a third derivative of some hundreds.
        assert!((slope - grads[name].data[0]).abs() < 1e-6, "{name}");
    }
}

struct Training {
    a: Anatomy,
    t: Tensors<f64>,
    moments: Moments<f64>,
    rates: Tensors<f64>,
    step: i32,
}

impl Training {
    fn new(a: &Anatomy) -> Self {
        let t = model(a);
        let fill = |value: f64| -> Tensors<f64> {
            let same =
                |tensor: &Tensor<f64>| Tensor::new(&tensor.shape, vec![value; tensor.data.len()]);
            t.iter().map(|(name, tensor)| (name.clone(), same(tensor))).collect()
        };
        let moments = Moments { first: fill(0.0), second: fill(0.0) };
        Self { a: a.clone(), rates: fill(1.0), moments, t, step: 0 }
    }

    fn grown(&self, plan: &GrowthPlan, mode: MomentsMode, multiply: bool) -> Self {
        let grown = grow(plan, &self.a, &self.t).unwrap();
        let mut rates = rate_multipliers(plan, &self.a, &self.t).unwrap();
        if !multiply {
            rates.values_mut().for_each(|tensor| tensor.data.fill(1.0));
        }
        Self {
            moments: grow_moments(plan, &self.a, &self.moments, mode).unwrap(),
            a: grown.anatomy,
            t: grown.tensors,
            rates,
            step: if mode == MomentsMode::Dropped { 0 } else { self.step },
        }
    }

    /// One step of AdamW; the loss before it.
    fn step(&mut self) -> f64 {
        let (before, grads) = gradient(&self.a, &self.t);
        self.step += 1;
        let (b1, b2) = BETAS;
        for (name, tensor) in &mut self.t {
            let first = &mut self.moments.first.get_mut(name).unwrap().data;
            let second = &mut self.moments.second.get_mut(name).unwrap().data;
            for (at, weight) in tensor.data.iter_mut().enumerate() {
                let (g, rate) = (grads[name].data[at], self.rates[name].data[at]);
                first[at] = b1 * first[at] + (1.0 - b1) * g;
                second[at] = b2 * second[at] + (1.0 - b2) * g * g;
                let m = first[at] / (1.0 - b1.powi(self.step));
                let v = second[at] / (1.0 - b2.powi(self.step));
                // The decay of a weight is that of the old one, whatever its rate.
                *weight -= RATE * (rate * m / (v.sqrt() + EPS) + DECAY * *weight);
            }
        }
        before
    }

    fn run(&mut self, steps: usize) -> Vec<f64> {
        (0..steps).map(|_| self.step()).collect()
    }
}

/// One small decoder, trained a little so that its moments are those of training.
fn trained(norm: Norm, lm_head: LmHead) -> Training {
    trained_of(anatomy(Family::Llama, norm, lm_head, 1, 2))
}

fn trained_of(mut a: Anatomy) -> Training {
    a.shape.layers = 1;
    a.shape.intermediate = 3;
    let mut training = Training::new(&a);
    training.run(10);
    training
}

fn tiled(a: &Anatomy) -> GrowthPlan {
    let heads = 2 * a.shape.kv_heads;
    let plan = GrowthPlan::keep(a).with(Axis::KvHeads, Map::Tile, heads);
    plan.with(Axis::Residual, Map::Tile, 8).with(Axis::Ffn, Map::Tile, 6)
}

fn farthest(one: &[f64], two: &[f64]) -> f64 {
    one.iter().zip(two).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_grown_model_follows_the_small_one_for_fifty_steps() {
    for (norm, lm_head) in [(Norm::Layer, LmHead::Untied), (Norm::Rms, LmHead::Tied)] {
        let small = trained(norm, lm_head);
        let plan = tiled(&small.a);
        let mut large = small.grown(&plan, MomentsMode::Mapped, true);
        let mut small = small;
        let gap = farthest(&small.run(50), &large.run(50));
        assert!(gap < TOLERANCE, "{norm:?} {lm_head:?}: {gap:e}");
    }
}

#[test]
fn encoders_and_fused_decoders_follow_too() {
    let rows = [
        anatomy(Family::Bert, Norm::Layer, LmHead::Tied, 2, 1),
        anatomy(Family::Bert, Norm::Layer, LmHead::None, 2, 1),
        anatomy(Family::Gpt2, Norm::Layer, LmHead::Tied, 2, 1),
    ];
    for a in rows {
        let mut small = trained_of(a.clone());
        let mut large = small.grown(&tiled(&small.a), MomentsMode::Mapped, true);
        let gap = farthest(&small.run(50), &large.run(50));
        assert!(gap < TOLERANCE, "{a:?}: {gap:e}");
    }
}

#[test]
fn padded_entries_start_with_no_direction_and_the_mean_of_squares() {
    let small = trained(Norm::Rms, LmHead::Untied);
    let plan = GrowthPlan::keep(&small.a).with(Axis::Ffn, Map::Pad, 5);
    let grown = grow_moments(&plan, &small.a, &small.moments, MomentsMode::Mapped).unwrap();
    let name = "model.layers.0.mlp.up_proj.bias";
    let old = &small.moments.second[name].data;
    assert_eq!(grown.first[name].data[3..], [0.0; 2]);
    assert_eq!(grown.second[name].data[..3], old[..]);
    let mean = old.iter().sum::<f64>() / 3.0;
    assert!(grown.second[name].data[3..].iter().all(|v| (v - mean).abs() < 1e-15 * mean));
}

#[test]
fn without_multiplied_rates_it_does_not() {
    let mut small = trained(Norm::Rms, LmHead::Untied);
    let mut large = small.grown(&tiled(&small.a), MomentsMode::Mapped, false);
    let gap = farthest(&small.run(10), &large.run(10));
    assert!(gap > 1e-3, "{gap:e}");
}

#[test]
fn unequal_shares_follow_too_with_a_rate_for_every_entry() {
    let small = trained(Norm::Layer, LmHead::Tied);
    let plan = GrowthPlan { seed: 3, ..GrowthPlan::keep(&small.a) }
        .with(Axis::Residual, Map::Tile, 8)
        .with(Axis::Ffn, Map::Split, 7)
        .with(Axis::KvHeads, Map::Split, 3);
    let mut large = small.grown(&plan, MomentsMode::Mapped, true);
    let mut small = small;
    let gap = farthest(&small.run(50), &large.run(50));
    assert!(gap < TOLERANCE, "{gap:e}");
}

#[test]
fn copies_stay_alike_under_mapped_moments_and_learn_apart_otherwise() {
    let small = trained(Norm::Rms, LmHead::Untied);
    let plan = tiled(&small.a);
    let gap = |mode, plan: &GrowthPlan, multiply| {
        let mut large = small.grown(plan, mode, multiply);
        let before = clone_gap(plan, &small.a, &small.t, &large.t).unwrap();
        large.run(20);
        (before, clone_gap(plan, &small.a, &small.t, &large.t).unwrap())
    };
    // Copies are computed by the same operations in the same order.
    assert_eq!(gap(MomentsMode::Mapped, &plan, true), (0.0, 0.0));
    assert_eq!(gap(MomentsMode::Dropped, &plan, true), (0.0, 0.0));
    let (before, after) = gap(MomentsMode::Asymmetric, &plan, true);
    assert!(before == 0.0 && after > 1e-3, "{after:e}");
    // Unequal shares tell copies apart only where all entries of a tensor have one rate.
    let split = plan.with(Axis::Ffn, Map::Split, 6);
    let (before, after) = gap(MomentsMode::Mapped, &split, false);
    assert!(before == 0.0 && after > 1e-5, "{after:e}");
    let (before, after) = gap(MomentsMode::Mapped, &split, true);
    assert!(before == 0.0 && after < 1e-10, "{after:e}");
}

#[test]
fn asymmetric_moments_keep_the_first_copy_and_forget_the_others() {
    let small = trained(Norm::Rms, LmHead::Untied);
    let plan = GrowthPlan::keep(&small.a).with(Axis::Ffn, Map::Tile, 6);
    let grown = grow_moments(&plan, &small.a, &small.moments, MomentsMode::Asymmetric).unwrap();
    let name = "model.layers.0.mlp.up_proj.bias";
    let old = &small.moments.first[name].data;
    let new = &grown.first[name].data;
    assert_eq!(new[..3], old.iter().map(|m| m / 2.0).collect::<Vec<f64>>());
    assert_eq!(new[3..], [0.0; 3]);
    let second = &grown.second[name].data;
    assert_eq!(second[0], small.moments.second[name].data[0] / 4.0);
    let dropped = grow_moments(&plan, &small.a, &small.moments, MomentsMode::Dropped).unwrap();
    assert!(dropped.second.values().all(|tensor| tensor.data.iter().all(|&v| v == 0.0)));
}

#[test]
fn a_parameter_without_a_moment_is_refused() {
    let small = trained(Norm::Rms, LmHead::Untied);
    let mut moments = small.moments.clone();
    moments.second.remove("model.norm.weight");
    let plan = tiled(&small.a);
    let error = grow_moments(&plan, &small.a, &moments, MomentsMode::Mapped).unwrap_err();
    assert_eq!(error.to_string(), "layer 0 of the model has no `model.norm.weight`");
}

#[test]
fn rates_are_one_over_the_copies_that_are_read() {
    let a = anatomy(Family::Llama, Norm::Rms, LmHead::Tied, 2, 1);
    let plan =
        GrowthPlan::keep(&a).with(Axis::Residual, Map::Tile, 12).with(Axis::Ffn, Map::Tile, 10);
    let rates = rate_multipliers(&plan, &a, &model(&a)).unwrap();
    let rows = [
        ("model.embed_tokens.weight", 1.0),
        ("model.layers.0.self_attn.q_proj.weight", 1.0 / 3.0),
        ("model.layers.0.self_attn.q_proj.bias", 1.0),
        ("model.layers.0.self_attn.o_proj.weight", 1.0),
        ("model.layers.1.mlp.down_proj.weight", 0.5),
        ("model.layers.1.input_layernorm.weight", 1.0),
        // It takes the shares for the tied head.
        ("model.norm.weight", 1.0 / 3.0),
    ];
    for (name, want) in rows {
        assert!(rates[name].data.iter().all(|rate| (rate - want).abs() < 1e-15), "{name}");
    }
}

#[test]
fn a_parameters_rate_is_the_mean_of_its_entries_and_what_is_new_is_told() {
    let shapes = |t: &Tensors<f64>| -> Vec<(String, Vec<usize>)> {
        t.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
    };
    for family in [Family::Bert, Family::Gpt2, Family::Llama] {
        let norm = if family == Family::Llama { Norm::Rms } else { Norm::Layer };
        let a = anatomy(family, norm, LmHead::Tied, 2, 1);
        let t = model(&a);
        let old = shapes(&t);
        let old = || old.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
        let width = GrowthPlan { seed: 3, ..GrowthPlan::keep(&a) }
            .with(Axis::Residual, Map::Tile, 3 * a.shape.hidden)
            .with(Axis::KvHeads, Map::Tile, 3 * a.shape.kv_heads)
            .with(Axis::Ffn, Map::Split, a.shape.intermediate + 2);
        let found = descents(&width, &a, old()).unwrap();
        let entries = rate_multipliers(&width, &a, &t).unwrap();
        assert!(found.keys().eq(entries.keys()));
        for (name, rates) in &entries {
            let mean = rates.data.iter().sum::<f64>() / rates.data.len() as f64;
            let descent = &found[name];
            assert!((descent.rate - mean).abs() < 1e-14, "{name}: {} {mean}", descent.rate);
            let grown = rates.data.len() > t[name].data.len();
            assert_eq!((descent.has_new, descent.fresh), (grown, false), "{name}");
            assert_eq!(descent.from, *name);
        }
        let target = Target { layers: Some(a.shape.layers + 1), ..Target::default() };
        for (method, fresh) in [(Method::LlamaPro, true), (Method::Stack, false)] {
            let plan = method.plan(&a, &target, 1).unwrap();
            for (name, descent) in descents(&plan, &a, old()).unwrap() {
                let added = plan.blocks.iter().enumerate().any(|(at, block)| {
                    let again = plan.blocks[..at].iter().any(|other| other.from == block.from);
                    name.contains(&format!(".{at}.")) && (block.identity || again)
                });
                assert_eq!(descent.has_new, added, "{name} of {}", descent.from);
                assert_eq!(descent.fresh, added && fresh, "{name}");
                assert_eq!(descent.rate, 1.0, "{name}");
            }
        }
    }
}
