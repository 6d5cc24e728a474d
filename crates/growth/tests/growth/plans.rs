//! Plans as text, and what they refuse.

use crate::small::{anatomy, model};
use heirloom_growth::{
    Anatomy, Axis, Block, Error, Family, GrowthPlan, LmHead, Map, Method, Norm, Target, Tensor,
    TiedHead, grow,
};

fn bert() -> Anatomy {
    anatomy(Family::Bert, Norm::Layer, LmHead::None, 2, 1)
}

fn llama() -> Anatomy {
    anatomy(Family::Llama, Norm::Rms, LmHead::Untied, 2, 2)
}

#[test]
fn a_plan_survives_being_written_and_read() {
    for (method, _) in Method::NAMES {
        let target = match method {
            Method::HyperCloning => Target { hidden: Some(8), ..Target::default() },
            _ => Target { layers: Some(4), ..Target::default() },
        };
        let plan = method.plan(&llama(), &target, 7).unwrap();
        assert_eq!(GrowthPlan::from_toml(&plan.to_toml()).unwrap(), plan);
        assert_eq!(GrowthPlan::from_json(&plan.to_json()).unwrap(), plan);
        assert_eq!(plan.digest(), plan.clone().digest());
        assert_ne!(plan.digest(), GrowthPlan { seed: 8, ..plan.clone() }.digest());
    }
}

#[test]
fn a_plan_speaks_in_sentences() {
    let target = Target { layers: Some(3), hidden: Some(8), ..Target::default() };
    let plan = Method::Preserve.plan(&bert(), &target, 7).unwrap();
    let words = [
        "hidden size 4 to 8: tiled",
        "intermediate size 5 to 10: copied at random, read in unequal shares",
        "key and value heads 2 to 4: copied at random, read in unequal shares",
        "layers 2 to 3: 0 1 1* (*: a copy that starts as the identity)",
    ];
    assert_eq!(plan.words(), words);
}

#[test]
fn text_that_is_no_plan_is_refused() {
    let text = Method::Stack
        .plan(&bert(), &Target { layers: Some(4), ..Target::default() }, 7)
        .unwrap()
        .to_toml();
    let rows = [
        (text.replace("method", "mehtod"), "unknown field `mehtod`"),
        (text.replace("map = \"keep\"", "map = \"melt\""), "unknown variant `melt`"),
        (text.replace("axis = \"ffn\"", "axis = \"vocab\""), "must hold each axis once"),
        (text.replace("seed = 7", "seed = -1"), "seed"),
    ];
    for (text, want) in rows {
        let error = GrowthPlan::from_toml(&text).unwrap_err().to_string();
        assert!(error.starts_with("this is no growth plan: ") && error.contains(want), "{error}");
    }
    assert!(matches!(GrowthPlan::from_json("{"), Err(Error::NotAPlan(_))));
}

#[test]
fn plans_that_cannot_be_carried_out_say_both_sizes_and_why() {
    let keep = || GrowthPlan::keep(&bert());
    let block = |from, identity| Block { from, identity };
    let wide = || GrowthPlan::keep(&llama());
    let rows = [
        (
            bert(),
            keep().with(Axis::Ffn, Map::Tile, 7),
            "the intermediate size cannot go from 5 to 7: whole copies need a multiple; use `select`, `split` or `pad`",
        ),
        (
            bert(),
            keep().with(Axis::Ffn, Map::Pad, 4),
            "the intermediate size cannot go from 5 to 4: growing takes no units away",
        ),
        (
            bert(),
            keep().with(Axis::Ffn, Map::Keep, 6),
            "the intermediate size cannot go from 5 to 6: the plan keeps this axis; name another map",
        ),
        (
            bert(),
            keep().with(Axis::Ffn, Map::Average, 6),
            "the intermediate size cannot go from 5 to 6: units between writer and reader go through a function each, and a mean does not commute with it; use `select`, `split` or `pad`",
        ),
        (
            bert(),
            keep().with(Axis::Vocab, Map::Tile, 14),
            "the vocabulary cannot go from 7 to 14: rows of a table are looked up by number, so copies would stand for others; use `pad`",
        ),
        (
            bert(),
            keep().with(Axis::Residual, Map::Tile, 8),
            "hidden size cannot go from 4 to 8: this family's heads make up the hidden size, and 2 heads of 2 are 4",
        ),
        (
            llama(),
            wide().with(Axis::HeadDim, Map::Tile, 4),
            "the head size cannot go from 2 to 4: rotary positions turn each number of a head by an angle that depends on the head size; keep it and add heads",
        ),
        (
            Anatomy { rotary: false, head_norms: true, ..llama() },
            wide().with(Axis::HeadDim, Map::Pad, 4),
            "the head size cannot go from 2 to 4: queries and keys are normed head by head; keep the head size and add heads",
        ),
        (
            bert(),
            GrowthPlan { layers: 3, ..keep() },
            "the plan is for layers 3, but the model has 2",
        ),
        (
            bert(),
            GrowthPlan { blocks: Vec::new(), ..keep() },
            "the number of layers cannot go from 2 to 0: no layer is left",
        ),
        (
            bert(),
            GrowthPlan { blocks: vec![block(2, false)], ..keep() },
            "the number of layers cannot go from 2 to 1: the plan names layer 2, and there are layers 0 to 1",
        ),
        (
            bert(),
            GrowthPlan { blocks: vec![block(0, true), block(0, false), block(1, false)], ..keep() },
            "the number of layers cannot go from 2 to 3: layer 0 starts as the identity and must stand right above layer 0 that it is a copy of, since it takes over that one's last norm",
        ),
        (bert(), GrowthPlan { noise: 2.0, ..keep() }, "`noise` is 2, expected a number in 0..=1"),
        (
            anatomy(Family::Bert, Norm::Layer, LmHead::Tied, 2, 1),
            GrowthPlan { tied: TiedHead::Untie, ..keep() },
            "the head of this family is tied to the word embeddings and cannot be untied; use `tied = \"scale_norm\"`",
        ),
        (
            Anatomy { shape: heirloom_growth::Shape { intermediate: 6, ..bert().shape }, ..bert() },
            keep(),
            "the plan is for intermediate size 5, but the model has 6",
        ),
    ];
    for (anatomy, plan, want) in rows {
        assert_eq!(plan.check(&anatomy).unwrap_err().to_string(), want);
    }
}

#[test]
fn presets_refuse_what_they_cannot_do() {
    let none = Target::default();
    let (width, depth) = (Target { hidden: Some(8), ..none }, Target { layers: Some(7), ..none });
    let rows = [
        (
            Method::Stack,
            width,
            "the hidden size cannot go from 4 to 8: `stack` grows depth alone; `compound` and `preserve` grow both",
        ),
        (
            Method::LlamaPro,
            width,
            "the hidden size cannot go from 4 to 8: `llama-pro` grows depth alone; `preserve` grows both",
        ),
        (
            Method::HyperCloning,
            depth,
            "the number of layers cannot go from 2 to 7: `hypercloning` grows width alone; `preserve` grows both",
        ),
        (
            Method::Solar,
            depth,
            "the number of layers cannot go from 2 to 7: two halves of the model need an even number, at most twice as many",
        ),
        (
            Method::Mslt,
            depth,
            "the number of layers cannot go from 2 to 7: copies of the top layers are at most as many as there are layers",
        ),
        (
            Method::Stack,
            Target { layers: Some(1), ..none },
            "the number of layers cannot go from 2 to 1: growing takes no layers away",
        ),
        (
            Method::Preserve,
            none,
            "nothing would grow: the model has 2 layers, hidden 4, 2 heads of 2, intermediate 5 already",
        ),
        (
            Method::Preserve,
            Target { hidden: Some(7), ..none },
            "the hidden size cannot go from 4 to 7: it is no multiple of the head size 2; name the heads",
        ),
        (
            Method::Preserve,
            Target { hidden: Some(2), ..none },
            "the hidden size cannot go from 4 to 2: growing takes no units away",
        ),
        (
            Method::Preserve,
            Target { hidden: Some(6), ..none },
            "the hidden size cannot go from 4 to 6: the intermediate size 5 does not grow in proportion; name it",
        ),
        (
            Method::Preserve,
            Target { hidden: Some(8), heads: Some(3), ..none },
            "the number of heads cannot go from 2 to 3: heads must divide the hidden size 8",
        ),
        (
            Method::Preserve,
            Target { heads: Some(1), ..none },
            "the number of heads cannot go from 2 to 1: growing takes no heads away",
        ),
        (
            Method::Preserve,
            Target { intermediate: Some(4), ..none },
            "the intermediate size cannot go from 5 to 4: growing takes no units away",
        ),
    ];
    for (method, target, want) in rows {
        assert_eq!(method.plan(&bert(), &target, 1).unwrap_err().to_string(), want);
    }
    let huge = Some(usize::MAX);
    for target in [
        Target { layers: huge, ..none },
        Target { hidden: huge, ..none },
        Target { heads: huge, ..none },
        Target { intermediate: huge, ..none },
    ] {
        let error = Method::Preserve.plan(&bert(), &target, 1).unwrap_err();
        assert!(matches!(error, Error::Size { to: usize::MAX, .. }), "{error}");
    }
    let table = wide_table(&llama()).check(&llama()).unwrap_err().to_string();
    assert_eq!(table, "the positions cannot go from 0 to 6: the model has none to begin with");
    let masks = Method::Msg.plan(&bert(), &width, 1).unwrap_err().to_string();
    assert!(masks.starts_with("`msg` hides what is new behind masks"), "{masks}");
    assert_eq!(
        Method::find("stak").unwrap_err().to_string().lines().next().unwrap().split(',').next(),
        Some("there is no method `stak`; the nearest is `stack`")
    );
}

#[test]
fn tensors_that_do_not_belong_are_refused_before_any_is_grown() {
    let a = bert();
    let plan = Method::Stack.plan(&a, &Target { layers: Some(4), ..Target::default() }, 1).unwrap();
    let said = |change: &dyn Fn(&mut heirloom_growth::Tensors<f64>)| {
        let mut tensors = model(&a);
        change(&mut tensors);
        grow(&plan, &a, &tensors).unwrap_err().to_string()
    };
    let one = || Tensor::new(&[1], vec![0.0]);
    assert_eq!(
        said(&|tensors| drop(tensors.insert("bert.adapter.weight".to_owned(), one()))),
        "`bert.adapter.weight` is no parameter that growing knows for Bert; nothing was grown"
    );
    assert_eq!(
        said(&|tensors| drop(tensors.insert("bert.embeddings.LayerNorm.bias".to_owned(), one()))),
        "`bert.embeddings.LayerNorm.bias` has shape [1], but its place in the model has [4]"
    );
    assert_eq!(
        said(&|tensors| drop(tensors.remove("bert.encoder.layer.1.output.dense.bias"))),
        "layer 1 of the model has no `bert.encoder.layer.1.output.dense.bias`"
    );
    assert_eq!(
        said(&|tensors| drop(tensors.remove("bert.encoder.layer.0.output.dense.bias"))),
        "layer 0 of the model has no `bert.encoder.layer.0.output.dense.bias`"
    );
}

fn wide_table(anatomy: &Anatomy) -> GrowthPlan {
    GrowthPlan::keep(anatomy).with(Axis::Positions, Map::Pad, 6)
}
