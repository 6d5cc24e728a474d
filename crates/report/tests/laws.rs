//! Laws of the measures: their ranges, and that the order of the examples changes nothing.

use heirloom_report::calibration::{
    Judged, adaptive_calibration_error, expected_calibration_error, judge,
};
use heirloom_report::compare::{accuracies, mcnemar_exact};
use heirloom_report::measure::{
    Measured, accuracy, f1_binary, f1_macro, f1_micro, matthews, mse, pearson, spearman,
};
use heirloom_report::probability::{Logits, agreement, brier, divergence, nll, softmax};
use heirloom_report::student::{two_sided, two_sided_quantile};
use proptest::prelude::*;

const CLASSES: usize = 3;

/// One example: two rows of logits, a label.
type Example = ([f32; CLASSES], [f32; CLASSES], u32);

fn examples() -> impl Strategy<Value = Vec<Example>> {
    let row = || prop::array::uniform3(-30f32..30.0);
    prop::collection::vec((row(), row(), 0..CLASSES as u32), 1..40)
}

/// Every measure of the examples, with its name and range.
fn measures(examples: &[Example]) -> Vec<(&'static str, Option<Measured>, f64, f64)> {
    let first: Vec<f32> = examples.iter().flat_map(|example| example.0).collect();
    let second: Vec<f32> = examples.iter().flat_map(|example| example.1).collect();
    let labels: Vec<u32> = examples.iter().map(|example| example.2).collect();
    let (p, q) = (Logits::new(&first, CLASSES), Logits::new(&second, CLASSES));
    let said = p.answers();
    let judged = judge(p, &labels);
    let marks = |values: &[f32]| -> Vec<bool> { values.iter().map(|&x| x > 0.0).collect() };
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
    let (x, y) = (wide(&first), wide(&second));
    let inf = f64::INFINITY;
    vec![
        ("accuracy", accuracy(&labels, &said), 0.0, 1.0),
        ("f1_binary", f1_binary(&labels, &said), 0.0, 1.0),
        ("f1_macro", f1_macro(&labels, &said), 0.0, 1.0),
        ("f1_micro", f1_micro(&marks(&first), &marks(&second)), 0.0, 1.0),
        ("matthews", matthews(&labels, &said), -1.0, 1.0),
        ("pearson", pearson(&x, &y), -1.0, 1.0),
        ("spearman", spearman(&x, &y), -1.0, 1.0),
        ("mse", mse(&x, &y), 0.0, inf),
        ("nll", nll(p, &labels), 0.0, inf),
        ("brier", brier(p, &labels), 0.0, 2.0),
        ("expected", expected_calibration_error(&judged, 15), 0.0, 1.0),
        ("adaptive", adaptive_calibration_error(&judged, 15), 0.0, 1.0),
        ("agreement", agreement(p, q), 0.0, 1.0),
        ("divergence", divergence(p, q), 0.0, inf),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_measure_keeps_to_its_range(examples in examples()) {
        for (name, measured, low, high) in measures(&examples) {
            if let Some(Measured { value, n }) = measured {
                prop_assert!((low..=high).contains(&value), "{name} is {value}");
                prop_assert!(n >= examples.len(), "{name} covers {n}");
            }
        }
    }

    #[test]
    fn the_order_of_the_examples_changes_nothing(
        (examples, shuffled) in examples().prop_flat_map(|examples| {
            (Just(examples.clone()), Just(examples).prop_shuffle())
        }),
    ) {
        for (one, other) in measures(&examples).into_iter().zip(measures(&shuffled)) {
            let (value, other_value) = (one.1.map(|m| m.value), other.1.map(|m| m.value));
            let close = match value.zip(other_value) {
                Some((a, b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
                None => value == other_value,
            };
            prop_assert!(close, "{}: {value:?} and {other_value:?}", one.0);
        }
    }

    #[test]
    fn nobody_disagrees_with_themselves(examples in examples()) {
        let logits: Vec<f32> = examples.iter().flat_map(|example| example.0).collect();
        let labels: Vec<u32> = examples.iter().map(|example| example.2).collect();
        let logits = Logits::new(&logits, CLASSES);
        let value = |measured: Option<Measured>| measured.map(|measured| measured.value);
        prop_assert_eq!(value(accuracy(&labels, &labels)), Some(1.0));
        prop_assert_eq!(value(f1_macro(&labels, &labels)), Some(1.0));
        prop_assert_eq!(value(agreement(logits, logits)), Some(1.0));
        prop_assert_eq!(value(divergence(logits, logits)), Some(0.0));
        let varied = labels.iter().any(|label| *label != labels[0]);
        prop_assert_eq!(value(matthews(&labels, &labels)), Some(f64::from(varied)));
    }

    #[test]
    fn who_is_right_as_often_as_they_say_is_calibrated(
        groups in prop::collection::vec((1usize..20, 0usize..20), 1..8),
        bins in 1usize..30,
    ) {
        // Each group says `right / size` for `size` answers, of which `right` are right.
        let judged: Vec<Judged> = groups
            .into_iter()
            .flat_map(|(size, right)| {
                let right = right.min(size);
                let confidence = right as f64 / size as f64;
                (0..size).map(move |at| Judged { confidence, right: at < right })
            })
            .collect();
        for error in [expected_calibration_error, adaptive_calibration_error] {
            prop_assert!(error(&judged, bins).unwrap().value < 1e-12);
        }
    }

    #[test]
    fn probabilities_sum_to_one_and_do_not_feel_a_shift(
        logits in prop::collection::vec(-64i16..64, 1..9),
        shift in -1000i16..1000,
    ) {
        let row = |by: i16| -> Vec<f32> { logits.iter().map(|&x| f32::from(x + by)).collect() };
        let probabilities = softmax(&row(0));
        prop_assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert_eq!(probabilities, softmax(&row(shift)));
    }

    #[test]
    fn a_quantile_leads_back_to_its_probability(p in 0.001f64..0.999, df in 1u32..200) {
        let df = f64::from(df);
        prop_assert!((two_sided(two_sided_quantile(p, df), df) / p - 1.0).abs() < 1e-9);
    }

    #[test]
    fn mcnemars_p_does_not_care_who_is_first(first in 0u64..400, second in 0u64..400) {
        let p = mcnemar_exact(first, second);
        prop_assert!((0.0..=1.0).contains(&p));
        prop_assert_eq!(p, mcnemar_exact(second, first));
    }
}

proptest! {
    // Each case draws 10,000 resamples.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_interval_holds_the_difference(
        answers in prop::collection::vec((0u32..2, 0u32..2), 20..40), seed in any::<u64>(),
    ) {
        let (first, second): (Vec<u32>, Vec<u32>) = answers.into_iter().unzip();
        let found = accuracies(&vec![1; first.len()], &first, &second, seed).unwrap();
        prop_assert!(found.interval.contains(found.difference), "{found}");
        prop_assert!((-1.0..=1.0).contains(&found.interval.low));
        prop_assert!((-1.0..=1.0).contains(&found.interval.high));
    }
}
