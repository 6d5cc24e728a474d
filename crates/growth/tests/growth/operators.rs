//! A learnt operator begins as the plan it is made of, and its gradient is that of finite
//! differences.

use heirloom_growth::{
    Anatomy, Family, GrowthPlan, LmHead, Method, Norm, Operator, Target, Tensor, Tensors, grow,
};

use crate::small::{anatomy, model};

fn plan(a: &Anatomy, method: Method, layers: usize, times: usize) -> GrowthPlan {
    let target =
        Target { layers: Some(layers), hidden: Some(times * a.shape.hidden), ..Target::default() };
    method.plan(a, &target, 3).unwrap()
}

fn operator(plan: &GrowthPlan, a: &Anatomy, old: &Tensors<f64>) -> Operator {
    let shapes = old.iter().map(|(name, tensor)| (name.as_str(), &*tensor.shape));
    Operator::of(plan, a, shapes).unwrap()
}

fn farthest(one: &Tensors<f64>, two: &Tensors<f64>) -> f64 {
    assert!(one.keys().eq(two.keys()), "{:?} {:?}", one.keys(), two.keys());
    let mut most: f64 = 0.0;
    for (one, two) in one.values().zip(two.values()) {
        assert_eq!(one.shape, two.shape);
        for (one, two) in one.data.iter().zip(&two.data) {
            most = most.max((one - two).abs());
        }
    }
    most
}

fn rows() -> Vec<Anatomy> {
    vec![
        anatomy(Family::Bert, Norm::Layer, LmHead::None, 2, 1),
        anatomy(Family::Bert, Norm::Layer, LmHead::Tied, 2, 1),
        anatomy(Family::Gpt2, Norm::Layer, LmHead::Tied, 2, 1),
        anatomy(Family::Llama, Norm::Rms, LmHead::Untied, 2, 1),
    ]
}

/// Net2Net's random copies with shares, StackBERT's layers, and both together.
#[test]
fn net2net_and_stackbert_are_special_cases() {
    for a in rows() {
        let old = model(&a);
        let layers = a.shape.layers;
        let plans = [
            plan(&a, Method::Net2Net, layers, 2),
            plan(&a, Method::Stack, 2 * layers, 1),
            plan(&a, Method::Interleave, layers + 1, 1),
            plan(&a, Method::Compound, 2 * layers, 3),
            plan(&a, Method::Bert2BertFpi, 2 * layers, 2),
        ];
        for plan in plans {
            let want = grow(&plan, &a, &old).unwrap().tensors;
            let got = operator(&plan, &a, &old).apply(&old);
            // One rounding each, in another order.
            assert!(farthest(&want, &got) < 1e-14, "{} {a:?}", plan.method);
        }
    }
}

/// A function of all parameters that no symmetry makes flat.
fn loss(tensors: &Tensors<f64>) -> f64 {
    let of = |(at, tensor): (usize, &Tensor<f64>)| -> f64 {
        let value = |(place, x): (usize, &f64)| (x * (1.0 + (7 * at + place) as f64).sin()).sin();
        tensor.data.iter().enumerate().map(value).sum()
    };
    tensors.values().enumerate().map(of).sum()
}

fn slopes(tensors: &Tensors<f64>) -> Tensors<f64> {
    let of = |(at, (name, tensor)): (usize, (&String, &Tensor<f64>))| {
        let slope = |(place, x): (usize, &f64)| {
            let factor = (1.0 + (7 * at + place) as f64).sin();
            (x * factor).cos() * factor
        };
        let data = tensor.data.iter().enumerate().map(slope).collect();
        (name.clone(), Tensor::new(&tensor.shape, data))
    };
    tensors.iter().enumerate().map(of).collect()
}

#[test]
fn the_gradient_of_every_number_is_that_of_central_differences() {
    const STEP: f64 = 1e-5;
    for a in rows() {
        let old = model(&a);
        let plan = plan(&a, Method::Bert2BertFpi, a.shape.layers + 1, 2);
        let mut operator = operator(&plan, &a, &old);
        // Away from the zeros and ones that it begins with.
        for (at, value) in operator.values_mut().enumerate() {
            *value += 0.1 * (at as f64).cos();
        }
        let gradient = operator.gradient(&old, &slopes(&operator.apply(&old)));
        let gradient: Vec<f64> = gradient.values().collect();
        assert_eq!(gradient.len(), operator.count());
        let stride = (operator.count() / 150).max(1);
        for at in (0..operator.count()).step_by(stride) {
            let at_distance = |by: f64| {
                let mut moved = operator.clone();
                *moved.values_mut().nth(at).unwrap() += by;
                loss(&moved.apply(&old))
            };
            let slope = (at_distance(STEP) - at_distance(-STEP)) / (2.0 * STEP);
            let bound = 1e-6 * slope.abs().max(1.0);
            assert!((slope - gradient[at]).abs() < bound, "{at}: {slope} {}", gradient[at]);
        }
    }
}

#[test]
fn plans_that_are_no_such_map_are_refused() {
    let a = anatomy(Family::Bert, Norm::Layer, LmHead::None, 2, 1);
    let old = model(&a);
    for method in [Method::Preserve, Method::Bert2BertAki] {
        let plan = plan(&a, method, a.shape.layers + 1, 2);
        let shapes = old.iter().map(|(name, tensor)| (name.as_str(), &*tensor.shape));
        let error = Operator::of(&plan, &a, shapes).unwrap_err().to_string();
        assert!(error.contains("is no map whose numbers could be learnt"), "{error}");
    }
}
