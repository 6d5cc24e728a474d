//! Plans that say they keep the function keep it, those that say they do not do not, for every
//! preset and every kind of model.

use std::collections::BTreeMap;

use crate::small::{anatomy, forward, gap, hidden, model};
use heirloom_growth::{
    Anatomy, Axis, Family, Fill, GrowthPlan, Level, LmHead, Map, Method, Norm, Origin, Placement,
    Target, Tensor, Tensors, TiedHead, count_grown, depth, grow,
};

/// Rounding in f64 over two small layers is below 1e-14; a post-norm identity adds ε = 1e-12 over
/// a variance of at least a hundredth.
const EXACT: f64 = 1e-10;
/// A change that is none of rounding.
const CHANGED: f64 = 1e-7;

fn anatomies() -> Vec<Anatomy> {
    let mut all = Vec::new();
    for norm in [Norm::Layer, Norm::Rms] {
        for head in [LmHead::Tied, LmHead::Untied] {
            for (kv_heads, group) in [(2, 1), (2, 2), (1, 4)] {
                all.push(anatomy(Family::Llama, norm, head, kv_heads, group));
            }
            all.push(anatomy(Family::Gpt2, norm, head, 2, 1));
            let qwen = anatomy(Family::Llama, norm, head, 2, 2);
            all.push(Anatomy { head_norms: true, ..qwen });
        }
        for head in [LmHead::None, LmHead::Tied] {
            let exact = anatomy(Family::Bert, norm, head, 2, 1);
            all.push(Anatomy { norm_eps: 1e-2, ..exact.clone() });
            all.push(exact);
        }
    }
    all
}

fn targets(a: &Anatomy) -> Vec<Target> {
    let none = Target::default();
    let llama = a.family == Family::Llama;
    let mut all = vec![
        Target { layers: Some(4), ..none },
        Target { layers: Some(3), ..none },
        Target { intermediate: Some(9), ..none },
        Target { hidden: Some(8), ..none },
        Target { hidden: Some(12), layers: Some(4), ..none },
        Target { hidden: Some(6), intermediate: Some(8), ..none },
    ];
    if llama {
        all.push(Target { hidden: Some(7), intermediate: Some(7), ..none });
        all.push(Target {
            heads: Some(2 * a.shape.heads()),
            kv_heads: Some(a.shape.kv_heads),
            ..none
        });
        all.push(Target { heads: Some(3 * a.shape.heads()), ..none });
    } else {
        // Larger heads, as many.
        all.push(Target { hidden: Some(8), heads: Some(2), ..none });
        all.push(Target { hidden: Some(10), heads: Some(2), intermediate: Some(6), ..none });
    }
    all
}

fn change(plan: &GrowthPlan, a: &Anatomy) -> f64 {
    let small = model(a);
    let grown = grow(plan, a, &small).unwrap();
    assert_eq!(grown.anatomy, plan.grown(a));
    let shapes = small.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice()));
    let numbers: usize = grown.tensors.values().map(|tensor| tensor.data.len()).sum();
    assert_eq!(count_grown(plan, a, shapes), numbers as u64);
    gap(&forward(a, &small), &forward(&grown.anatomy, &grown.tensors))
}

fn check(plan: &GrowthPlan, a: &Anatomy) {
    let (prediction, change) = (plan.predict(a), change(plan, a));
    let right = match prediction.level {
        Level::Exact => change < EXACT,
        Level::Approximate | Level::Not => change > CHANGED,
    };
    assert!(right, "{change:e} with {prediction:?}\n{:?}\n{a:?}", plan.words());
}

#[test]
fn every_preset_does_what_it_predicts() {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (method, name) in Method::NAMES {
        for a in anatomies() {
            for target in targets(&a) {
                let Ok(plan) = method.plan(&a, &target, 5) else { continue };
                check(&plan, &a);
                let exact = plan.predict(&a).level == Level::Exact;
                counts.entry(name).or_default()[usize::from(exact)] += 1;
            }
        }
    }
    assert_eq!(counts.len(), Method::NAMES.len(), "a preset grew nothing: {counts:?}");
    for name in ["preserve", "net2net", "lemon", "hypercloning", "llama-pro", "pad", "msg"] {
        assert!(counts[name][1] > 0, "{name} is never exact");
    }
    for name in ["stack", "interleave", "bert2bert-aki", "solar", "mslt", "compound"] {
        assert!(counts[name][0] > 0, "{name} is always exact");
    }
}

#[test]
fn preserve_is_exact_for_every_decoder_and_every_size() {
    for a in anatomies().iter().filter(|a| a.placement == Placement::Pre) {
        for target in targets(a) {
            let Ok(plan) = Method::Preserve.plan(a, &target, 1) else { continue };
            assert_eq!(plan.predict(a).level, Level::Exact, "{target:?} {a:?}");
        }
    }
}

#[test]
fn every_map_on_every_axis_does_what_it_predicts() {
    let maps = [Map::Tile, Map::Select, Map::Split, Map::Pad, Map::Average];
    let mut checked = 0;
    for a in anatomies() {
        for axis in Axis::ALL {
            for map in maps {
                for to in [a.shape.size(axis) * 2, a.shape.size(axis) * 2 + 1] {
                    for tied in [TiedHead::Keep, TiedHead::ScaleNorm, TiedHead::Untie] {
                        let plan = GrowthPlan { tied, ..GrowthPlan::keep(&a) };
                        let plan = plan.with(axis, map, to);
                        // Families whose heads make up the hidden size grow on both at once.
                        let plan = match axis {
                            Axis::KvHeads | Axis::HeadDim if a.family != Family::Llama => {
                                let hidden = a.shape.hidden / a.shape.size(axis) * to;
                                plan.with(Axis::Residual, Map::Select, hidden)
                            }
                            _ => plan,
                        };
                        if plan.check(&a).is_ok() {
                            // A vocabulary that grows gives more scores.
                            if axis != Axis::Vocab {
                                check(&plan, &a);
                                checked += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn old_tokens_keep_their_scores_where_the_vocabulary_grows() {
    let a = anatomy(Family::Llama, Norm::Rms, LmHead::Tied, 2, 1);
    let plan = GrowthPlan::keep(&a).with(Axis::Vocab, Map::Pad, 11);
    let small = model(&a);
    let grown = grow(&plan, &a, &small).unwrap();
    let large = forward(&grown.anatomy, &grown.tensors);
    let old: Vec<Vec<f64>> = large.iter().map(|row| row[..7].to_vec()).collect();
    assert_eq!(gap(&forward(&a, &small), &old), 0.0);
    assert!(large.iter().all(|row| row[7..].iter().all(|score| *score != 0.0)));
}

#[test]
fn an_encoder_without_a_head_gives_its_states_as_often_as_it_grew() {
    let a = anatomy(Family::Bert, Norm::Layer, LmHead::None, 2, 1);
    let target = Target { hidden: Some(12), layers: Some(5), ..Target::default() };
    let plan = Method::Preserve.plan(&a, &target, 1).unwrap();
    assert_eq!(plan.output_copies(&a), Some(3));
    let small = model(&a);
    let grown = grow(&plan, &a, &small).unwrap();
    let (before, after) = (hidden(&a, &small), hidden(&grown.anatomy, &grown.tensors));
    let units = plan.residual_units(&a);
    for (before, after) in before.iter().zip(&after) {
        for (unit, value) in after.iter().enumerate() {
            let Origin::Unit(old) = units.origin[unit] else { panic!("all are copies") };
            assert!((value - before[old]).abs() < EXACT);
        }
    }
}

#[test]
fn noise_between_copies_and_unequal_shares_change_weights_and_nothing_else() {
    let a = anatomy(Family::Llama, Norm::Layer, LmHead::Untied, 2, 1);
    let tile =
        GrowthPlan::keep(&a).with(Axis::Residual, Map::Tile, 8).with(Axis::Ffn, Map::Split, 10);
    let noisy = GrowthPlan { noise: 0.3, ..tile.clone() };
    check(&noisy, &a);
    let gpt = anatomy(Family::Gpt2, Norm::Layer, LmHead::Tied, 2, 1);
    let wide = GrowthPlan { noise: 0.3, ..GrowthPlan::keep(&gpt) }
        .with(Axis::Residual, Map::Tile, 8)
        .with(Axis::KvHeads, Map::Split, 4)
        .with(Axis::Ffn, Map::Select, 13);
    check(&wide, &gpt);
    let small = model(&a);
    let weight =
        |plan: &GrowthPlan, name: &str| grow(plan, &a, &small).unwrap().tensors[name].clone();
    let name = "model.layers.1.self_attn.q_proj.weight";
    assert_ne!(weight(&tile, name), weight(&noisy, name));
    let down = weight(&tile, "model.layers.0.mlp.down_proj.weight");
    assert_ne!(down.data[0], down.data[5]);
}

#[test]
fn weights_that_nothing_reads_yet_are_not_zero_on_both_sides() {
    for norm in [Norm::Layer, Norm::Rms] {
        let a = anatomy(Family::Llama, norm, LmHead::Untied, 2, 1);
        let target = Target { hidden: Some(6), intermediate: Some(8), ..Target::default() };
        let plan = Method::Pad.plan(&a, &target, 1).unwrap();
        let grown = grow(&plan, &a, &model(&a)).unwrap().tensors;
        let up = &grown["model.layers.0.mlp.up_proj.weight"];
        let down = &grown["model.layers.0.mlp.down_proj.weight"];
        assert!(up.data[5 * 6..].iter().all(|value| *value != 0.0), "new units are written");
        assert!(down.data.chunks(8).all(|row| row[5..] == [0.0; 3]), "and not read");
        assert!(down.data[4 * 8..].iter().all(|value| *value == 0.0), "new states are zero");
        let query = &grown["model.layers.0.self_attn.q_proj.weight"];
        assert!(query.data.chunks(6).all(|row| row[4] != 0.0), "and read");
        let gain = &grown["model.layers.0.input_layernorm.weight"];
        assert!(gain.data[4..].iter().all(|value| *value != 0.0));
    }
}

#[test]
fn advanced_knowledge_is_the_layer_above_where_copies_stand() {
    let a = anatomy(Family::Bert, Norm::Layer, LmHead::None, 2, 1);
    let plan = GrowthPlan { fill: Fill::NextLayer, ..GrowthPlan::keep(&a) };
    let plan = plan.with(Axis::Ffn, Map::Select, 10);
    let small = model(&a);
    let grown = grow(&plan, &a, &small).unwrap().tensors;
    let name = |layer: usize| format!("bert.encoder.layer.{layer}.intermediate.dense.bias");
    let (zero, one) = (&small[&name(0)].data, &small[&name(1)].data);
    let bias = &grown[&name(0)].data;
    assert_eq!(&bias[..5], &zero[..]);
    let mut copies = bias[5..].to_vec();
    let mut above = one.clone();
    copies.sort_by(f64::total_cmp);
    above.sort_by(f64::total_cmp);
    assert_eq!(copies, above);
    check(&plan, &a);
}

#[test]
fn single_precision_keeps_the_function_to_its_own_rounding() {
    for a in anatomies() {
        let target = Target { hidden: Some(8), layers: Some(4), ..Target::default() };
        let plan = Method::Preserve.plan(&a, &target, 2).unwrap();
        if plan.predict(&a).level != Level::Exact {
            continue;
        }
        let narrow: Tensors<f32> = model(&a)
            .into_iter()
            .map(|(name, tensor)| {
                let data = tensor.data.iter().map(|value| *value as f32).collect();
                (name, Tensor::new(&tensor.shape, data))
            })
            .collect();
        let wide = |tensors: &Tensors<f32>| -> Tensors<f64> {
            let widen = |tensor: &Tensor<f32>| {
                let data = tensor.data.iter().map(|value| f64::from(*value)).collect();
                Tensor::new(&tensor.shape, data)
            };
            tensors.iter().map(|(name, tensor)| (name.clone(), widen(tensor))).collect()
        };
        let grown = grow(&plan, &a, &narrow).unwrap();
        let change =
            gap(&forward(&a, &wide(&narrow)), &forward(&grown.anatomy, &wide(&grown.tensors)));
        // Weights are rounded once, at 6e-8 of themselves.
        assert!(change < 1e-5, "{change:e} {a:?}");
    }
}

#[test]
fn a_frozen_block_is_one_that_was_there() {
    let a = anatomy(Family::Llama, Norm::Rms, LmHead::Untied, 2, 1);
    let target = Target { layers: Some(4), ..Target::default() };
    let plan = Method::LlamaPro.plan(&a, &target, 1).unwrap();
    assert_eq!(plan.blocks, depth::insert_identity(2, 4));
    let frozen = |name: &str| plan.freezes(a.family, name);
    assert!(frozen("model.layers.0.mlp.up_proj.weight") && frozen("lm_head.weight"));
    assert!(!frozen("model.layers.1.mlp.up_proj.weight"));
    let mslt = Method::Mslt.plan(&a, &target, 1).unwrap();
    assert!(!mslt.freezes(a.family, "lm_head.weight"));
    assert!(mslt.freezes(a.family, "model.embed_tokens.weight"));
}
