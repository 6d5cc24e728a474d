//! Decoders as `transformers` names and computes them: every parameter is known, the small models
//! of these tests compute the same, and all of them grow without a change.

use std::path::Path;

use heirloom_growth::{
    Anatomy, Family, Level, LmHead, Method, Norm, Target, Tensor, Tensors, grow,
};
use heirloom_store::TensorFile;

use crate::small::{anatomy, forward, gap};

/// The parameters and the scores of a fixture.
fn fixture(name: &str) -> (Tensors<f64>, Vec<Vec<f64>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/growth");
    let file = TensorFile::open(&folder.join(format!("{name}.safetensors"))).unwrap();
    let read = |name: &str| Tensor::new(file.shape(name).unwrap(), file.read(name).unwrap());
    let mut tensors: Tensors<f64> =
        file.names().map(|name| (name.to_owned(), read(name))).collect();
    let logits = tensors.remove("logits").unwrap();
    (tensors, logits.data.chunks(logits.shape[1]).map(<[f64]>::to_vec).collect())
}

fn anatomies() -> [(&'static str, Anatomy); 4] {
    let llama = |head, kv_heads, group| anatomy(Family::Llama, Norm::Rms, head, kv_heads, group);
    [
        ("gpt2", anatomy(Family::Gpt2, Norm::Layer, LmHead::Tied, 2, 1)),
        ("llama", llama(LmHead::Untied, 1, 2)),
        ("qwen2", llama(LmHead::Tied, 2, 1)),
        ("qwen3", Anatomy { head_norms: true, ..llama(LmHead::Tied, 2, 2) }),
    ]
}

#[test]
fn small_models_compute_what_transformers_does() {
    for (name, a) in anatomies() {
        let (tensors, scores) = fixture(name);
        let off = gap(&forward(&a, &tensors), &scores);
        // It norms and weighs in single precision.
        assert!(off < 1e-5, "{name}: {off:e}");
    }
}

#[test]
fn public_decoders_grow_in_depth_and_width_and_score_as_before() {
    let none = Target::default();
    let targets = [
        Target { hidden: Some(8), layers: Some(4), ..none },
        Target { hidden: Some(6), intermediate: Some(8), layers: Some(3), ..none },
    ];
    for (name, a) in anatomies() {
        let (tensors, _) = fixture(name);
        let before = forward(&a, &tensors);
        for method in [Method::Preserve, Method::Lemon, Method::Pad, Method::Msg] {
            for target in targets {
                let plan = method.plan(&a, &target, 1).unwrap();
                assert_eq!(plan.predict(&a).level, Level::Exact, "{name} {method:?}");
                let grown = grow(&plan, &a, &tensors).unwrap();
                let change = gap(&before, &forward(&grown.anatomy, &grown.tensors));
                assert!(change < 1e-10, "{name} {method:?} {target:?}: {change:e}");
            }
        }
    }
}
