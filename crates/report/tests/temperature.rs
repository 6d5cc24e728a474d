//! Fitted temperatures against `fixtures/temperature.json`, worked out by golden section in
//! `fixtures/make_temperature.py`, and the laws they obey.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use heirloom_report::measure::accuracy;
use heirloom_report::probability::{Logits, nll};
use heirloom_report::temperature::{COLDEST, HOTTEST, cross_fit, fit};
use proptest::prelude::*;
use serde_json::Value;

/// Sums of sixty terms of size 1 in another order.
const BOUND: f64 = 1e-12;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn temperatures_and_measures_are_those_of_golden_section() {
    let file: Value = serde_json::from_str(include_str!("../fixtures/temperature.json")).unwrap();
    let logits: Vec<f32> = numbers(&file["logits"]).into_iter().map(|x| x as f32).collect();
    let labels: Vec<u32> = numbers(&file["labels"]).into_iter().map(|x| x as u32).collect();
    let classes = file["classes"].as_u64().unwrap() as usize;
    let scaled = cross_fit(Logits::new(&logits, classes), &labels).unwrap();
    let halves = numbers(&file["halves"]);
    let rows = [
        ("half 0", scaled.halves[0], halves[0]),
        ("half 1", scaled.halves[1], halves[1]),
        ("temperature", scaled.temperature, file["temperature"].as_f64().unwrap()),
        ("loss", scaled.loss, file["loss"].as_f64().unwrap()),
        ("brier", scaled.brier, file["brier"].as_f64().unwrap()),
        ("expected_error", scaled.expected_error, file["expected_error"].as_f64().unwrap()),
        ("adaptive_error", scaled.adaptive_error, file["adaptive_error"].as_f64().unwrap()),
    ];
    for (name, found, want) in rows {
        assert!((found - want).abs() <= BOUND * want.max(1.0), "{name}: {found}, expected {want}");
    }
}

const CLASSES: usize = 3;

/// Rows of logits and labels, some far from each other.
fn examples() -> impl Strategy<Value = (Vec<f32>, Vec<u32>)> {
    let row = prop::array::uniform3(-8f32..8.0);
    prop::collection::vec((row, 0..CLASSES as u32), 2..40).prop_map(|rows| {
        let logits = rows.iter().flat_map(|(row, _)| *row).collect();
        (logits, rows.iter().map(|(_, label)| *label).collect())
    })
}

fn inside(temperature: f64) -> bool {
    temperature > COLDEST && temperature < HOTTEST
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn logits_twice_as_large_have_a_temperature_twice_as_high(
        (logits, labels) in examples(), power in -3i32..=3,
    ) {
        let by = 2f32.powi(power);
        let larger: Vec<f32> = logits.iter().map(|x| x * by).collect();
        let one = fit(Logits::new(&logits, CLASSES), &labels);
        let other = fit(Logits::new(&larger, CLASSES), &labels);
        prop_assert!((COLDEST..=HOTTEST).contains(&one));
        if inside(one) && inside(other) {
            prop_assert!((other / one / f64::from(by) - 1.0).abs() < 1e-9, "{one} and {other}");
        }
    }

    #[test]
    fn no_temperature_near_it_is_likelier((logits, labels) in examples()) {
        let best = fit(Logits::new(&logits, CLASSES), &labels);
        let loss = |temperature: f64| {
            let at: Vec<f32> = logits.iter().map(|x| (f64::from(*x) / temperature) as f32).collect();
            nll(Logits::new(&at, CLASSES), &labels).unwrap().value
        };
        for factor in [0.8, 0.98, 1.02, 1.25] {
            let other = (best * factor).clamp(COLDEST, HOTTEST);
            // Rounding the scaled logits to single precision moves each loss by its 24th bit.
            prop_assert!(loss(best) <= loss(other) + 1e-5 * loss(other).max(1.0), "{best}, {other}");
        }
    }

    #[test]
    fn scaling_keeps_every_answer((logits, labels) in examples()) {
        let logits = Logits::new(&logits, CLASSES);
        let scaled = cross_fit(logits, &labels).unwrap();
        let right: f64 = scaled
            .curve
            .iter()
            .filter_map(|bin| Some(bin.accuracy? * bin.n as f64))
            .sum();
        let want = accuracy(&labels, &logits.answers()).unwrap().value;
        prop_assert!((right / labels.len() as f64 - want).abs() < 1e-12);
    }

    #[test]
    fn the_order_of_the_examples_changes_nothing((logits, labels) in examples(), turn in 1usize..40) {
        let turn = turn % labels.len();
        let (mut rows, mut truth) = (logits.clone(), labels.clone());
        rows.rotate_left(turn * CLASSES);
        truth.rotate_left(turn);
        let one = cross_fit(Logits::new(&logits, CLASSES), &labels).unwrap();
        let other = cross_fit(Logits::new(&rows, CLASSES), &truth).unwrap();
        for (a, b) in [(one.loss, other.loss), (one.brier, other.brier)] {
            prop_assert!((a - b).abs() <= 1e-9 * a.max(1.0), "{a} and {b}");
        }
    }
}
