//! Probabilities compared by rank: the fast device against the reference, the reference against
//! finite differences, ties, and how much is lost where only the largest are compared.

use heirloom_engine::{Cpu, Device, Reference, RowLoss, Target};
use proptest::prelude::*;

use crate::rows::{BEFORE, input, new};

/// As for the other operations (`agreement.rs`): about a hundred roundings of `f32`.
const TOLERANCE: f64 = 1e-5;
const SCALE: f64 = 0.7;
const NEVER: f64 = f64::NEG_INFINITY;
const ALL: usize = usize::MAX;

/// A batch of rows against rows of another width.
#[derive(Clone, Debug)]
struct Ranked {
    x: Vec<f64>,
    teacher: Vec<f64>,
    /// Of each side.
    cols: [usize; 2],
    temperature: f64,
    top: usize,
    weights: Option<Vec<f64>>,
}

impl Ranked {
    fn random(rows: usize, cols: [usize; 2], size: f64) -> Self {
        let logits = |seed, cols| -> Vec<f64> {
            input(seed, rows, cols).values.iter().map(|x| f64::from((x * size) as f32)).collect()
        };
        let (x, teacher) = (logits(1, cols[0]), logits(2, cols[1]));
        Self { x, teacher, cols, temperature: 1.0, top: ALL, weights: None }
    }

    fn row(x: &[f64], teacher: &[f64]) -> Self {
        let cols = [x.len(), teacher.len()];
        let (x, teacher) = (x.to_vec(), teacher.to_vec());
        Self { x, teacher, cols, temperature: 1.0, top: ALL, weights: None }
    }

    fn top(self, top: usize) -> Self {
        Self { top, ..self }
    }

    fn run(&self, device: &mut dyn Device) -> (Vec<f64>, Vec<f64>) {
        let rows = self.x.len() / self.cols[0];
        let [x, dx] = [(); 2].map(|()| new(device, rows, self.cols[0]));
        let (logits, losses) = (new(device, rows, self.cols[1]), new(device, rows, 1));
        device.write_f64(x, &self.x);
        device.write_f64(logits, &self.teacher);
        device.fill(dx, BEFORE);
        let weights = self.weights.as_ref().map(|weights| {
            let view = new(device, rows, 1);
            device.write_f64(view, weights);
            view
        });
        let (temperature, top) = (self.temperature, self.top);
        let target = Target::Sorted { logits, temperature, factor: 1.5, top };
        device.row_loss(&RowLoss { x, target, scale: SCALE, weights, losses, dx: Some(dx) });
        let gradient = device.read_f64(dx).iter().map(|d| d - f64::from(BEFORE)).collect();
        (device.read_f64(losses), gradient)
    }
}

fn reference(case: &Ranked) -> (Vec<f64>, Vec<f64>) {
    case.run(&mut Reference::<f64>::new())
}

#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "{what}[{at}] is {got}, should be {want}");
    }
}

fn devices() -> [(Box<dyn Device>, f64); 2] {
    [(Box::new(Reference::<f64>::new()), 1e-12), (Box::new(Cpu::new(1)), TOLERANCE)]
}

#[track_caller]
fn agree(case: &Ranked) {
    let what = format!("{:?} top {} at T {}", case.cols, case.top, case.temperature);
    let ((losses, gradient), got) = (reference(case), case.run(&mut Cpu::new(1)));
    close(&format!("{what}: loss"), &got.0, &losses, TOLERANCE);
    close(&format!("{what}: gradient"), &got.1, &gradient, TOLERANCE);
    for threads in [2, 3] {
        assert!(case.run(&mut Cpu::new(threads)) == got, "{what}: {threads} threads");
    }
}

#[test]
fn both_devices_agree_at_every_width_temperature_and_number_of_ranks() {
    for cols in [[1, 1], [1, 4], [4, 1], [2, 3], [17, 17], [40, 33], [300, 512]] {
        for temperature in [0.5, 1.0, 4.0] {
            for top in [1, 2, 8, 33, ALL] {
                let case = Ranked { temperature, ..Ranked::random(9, cols, 3.0) };
                agree(&case.top(top));
            }
        }
    }
    for top in [64, 1000, ALL] {
        agree(&Ranked::random(2, [30_522, 50_257], 3.0).top(top));
    }
}

#[test]
fn both_devices_agree_where_many_logits_are_equal_or_forbidden() {
    for (round, step) in [(0.5, 3), (2.0, 5)] {
        for top in [1, 3, 10, ALL] {
            let mut case = Ranked::random(7, [60, 45], 2.0).top(top);
            for values in [&mut case.x, &mut case.teacher] {
                values.iter_mut().for_each(|x| *x = (*x / round).round() * round);
                values.iter_mut().skip(1).step_by(step).for_each(|x| *x = NEVER);
            }
            agree(&case);
        }
    }
}

#[test]
fn the_loss_is_the_sum_of_distances_between_sorted_probabilities() {
    // Probabilities ½, ¼, ¼ against ⅝, ⅜.
    let x = [0.25_f64.ln(), 0.5_f64.ln(), 0.25_f64.ln()];
    let teacher = [0.375_f64.ln(), 0.625_f64.ln()];
    for (mut device, tolerance) in devices() {
        let loss = |top, device: &mut dyn Device| Ranked::row(&x, &teacher).top(top).run(device).0;
        close("all", &loss(ALL, &mut *device), &[1.5 * 0.5], tolerance);
        close("one rank", &loss(1, &mut *device), &[1.5 * 0.25], tolerance);
        close("two ranks", &loss(2, &mut *device), &[1.5 * 0.5], tolerance);
    }
}

#[test]
fn gradients_away_from_kinks_are_those_of_finite_differences() {
    // Logits are 2⁻⁸ apart or more, and the loss is smooth between kinks; its rounding over the step
    // is 1e-11.
    let step = 1e-5;
    for (cols, temperature) in [([6, 6], 1.0), ([5, 9], 0.7), ([9, 4], 3.0), ([12, 12], 1.0)] {
        for top in [1, 3, 5, ALL] {
            let mut case = Ranked { temperature, ..Ranked::random(4, cols, 1.5).top(top) };
            let gradient = reference(&case).1;
            assert!(gradient.iter().any(|d| d.abs() > 1e-3), "{cols:?}: there is a gradient");
            for (at, got) in gradient.into_iter().enumerate() {
                let before = case.x[at];
                let mut total = |x| {
                    case.x[at] = x;
                    reference(&case).0.iter().sum::<f64>()
                };
                let want = SCALE * (total(before + step) - total(before - step)) / (2.0 * step);
                assert!((got - want).abs() < 1e-8, "{cols:?} top {top} [{at}]: {got}, not {want}");
                case.x[at] = before;
            }
        }
    }
}

#[test]
fn equal_logits_have_equal_gradients_wherever_they_stand_also_at_the_last_rank_compared() {
    let (x, teacher) = ([1.0, 0.5, 1.0, 0.5, 0.5, -2.0], [2.0, 1.0, 0.0, -1.0]);
    let turned = [0.5, -2.0, 1.0, 0.5, 1.0, 0.5];
    for top in [1, 2, 3, 4, ALL] {
        for (mut device, tolerance) in devices() {
            let (losses, gradient) = Ranked::row(&x, &teacher).top(top).run(&mut *device);
            assert_eq!(gradient[0], gradient[2], "top {top}");
            assert_eq!([gradient[1]; 2], [gradient[3], gradient[4]], "top {top}");
            let (others, moved) = Ranked::row(&turned, &teacher).top(top).run(&mut *device);
            close("turned", &others, &losses, tolerance);
            let places = [2, 0, 4, 3, 5, 1].map(|at: usize| moved[at]);
            close("turned", &places, &gradient, tolerance);
        }
    }
}

#[test]
fn the_gradient_at_a_tie_lies_between_those_beside_it() {
    let teacher = [3.0, 0.0, -1.0];
    let at = |d: f64| reference(&Ranked::row(&[0.4 + d, 0.4 - d, -0.3], &teacher)).1;
    let (left, tie, right) = (at(-1e-9), at(0.0), at(1e-9));
    for class in 0..3 {
        let (low, high) = (left[class].min(right[class]), left[class].max(right[class]));
        assert!((low - 1e-7..=high + 1e-7).contains(&tie[class]), "class {class}");
    }
}

#[test]
fn what_nobody_allows_changes_nothing_and_has_no_gradient() {
    let (x, teacher) = ([0.3, -1.0, 2.0], [1.0, 0.5]);
    let (more_x, more_teacher) = ([0.3, NEVER, -1.0, 2.0, NEVER], [NEVER, 1.0, 0.5, NEVER]);
    for top in [1, 2, ALL] {
        for (mut device, tolerance) in devices() {
            let want = Ranked::row(&x, &teacher).top(top).run(&mut *device);
            let got = Ranked::row(&more_x, &more_teacher).top(top).run(&mut *device);
            close("loss", &got.0, &want.0, tolerance);
            close("gradient", &[got.1[0], got.1[2], got.1[3]], &want.1, tolerance);
            assert_eq!([got.1[1], got.1[4]], [0.0; 2]);
        }
    }
}

#[test]
fn a_row_of_weight_zero_takes_no_part_and_others_are_scaled() {
    let case = Ranked::random(3, [7, 9], 2.0);
    let weighted = Ranked { weights: Some(vec![2.0, 0.0, 0.5]), ..case.clone() };
    for (mut device, tolerance) in devices() {
        let (plain, got) = (case.run(&mut *device), weighted.run(&mut *device));
        close("losses", &got.0, &plain.0, tolerance);
        for (row, weight) in [2.0, 0.0, 0.5].into_iter().enumerate() {
            let part = row * 7..(row + 1) * 7;
            let want: Vec<f64> = plain.1[part.clone()].iter().map(|d| weight * d).collect();
            close("gradient", &got.1[part], &want, tolerance);
        }
    }
}

#[test]
fn a_logit_that_is_not_a_number_is_not_hidden() {
    for top in [1, ALL] {
        for (x, teacher) in [([0.3, f64::NAN, 2.0], [1.0, 0.5]), ([0.3, 1.0, 2.0], [1.0, f64::NAN])]
        {
            let losses = Ranked::row(&x, &teacher).top(top).run(&mut Cpu::new(1)).0;
            assert!(!losses[0].is_finite(), "{x:?} {teacher:?}");
        }
    }
}

#[test]
#[should_panic(expected = "one row of the teacher's for each")]
fn another_number_of_rows_is_refused() {
    let case = Ranked { teacher: vec![0.0; 4], ..Ranked::random(3, [2, 2], 1.0) };
    let mut device = Cpu::new(1);
    let [x, losses] = [new(&mut device, 3, 2), new(&mut device, 3, 1)];
    let logits = new(&mut device, case.teacher.len() / 2, 2);
    let target = Target::Sorted { logits, temperature: 1.0, factor: 1.0, top: 1 };
    device.row_loss(&RowLoss { x, target, scale: 1.0, weights: None, losses, dx: None });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fewer_ranks_lose_at_most_twice_the_smaller_rest_and_equal_rows_lose_nothing(
        x in prop::collection::vec(-6.0f32..6.0, 1..60),
        teacher in prop::collection::vec(-6.0f32..6.0, 1..60),
        top in 1usize..70,
    ) {
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (x, teacher) = (wide(&x), wide(&teacher));
        let rest = |x: &[f64]| {
            let mut sorted = x.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let part = |x: &[f64]| x.iter().map(|x| x.exp()).sum::<f64>();
            part(&sorted[top.min(x.len())..]) / part(x)
        };
        let bound = 2.0 * rest(&x).min(rest(&teacher));
        for (mut device, tolerance) in devices() {
            let of = |top, device: &mut dyn Device| {
                Ranked::row(&x, &teacher).top(top).run(device).0[0] / 1.5
            };
            let (all, some) = (of(ALL, &mut *device), of(top, &mut *device));
            prop_assert!((-tolerance..=2.0 + tolerance).contains(&all), "{all}");
            prop_assert!(some <= all + tolerance && all <= some + bound + tolerance);
            let (losses, gradient) = Ranked::row(&x, &x).top(top).run(&mut *device);
            prop_assert!(losses[0].abs() <= 1e-12 && gradient.iter().all(|d| d.abs() <= 1e-12));
        }
    }
}
