//! What learning is for: after a step of the student down `CE(q, s)`, how does a second set's loss
//! move with the parameters of the target? Pulled back by hand, and by brute force: other parameters,
//! another step, another loss.
//!
//! The student is one linear layer, `z = W x`, so a step is exact and a few numbers long.

use heirloom_regularize::{
    Learned, LearnedLabo, LearnedSmoothing, Mlc, MlcShape, PerClass, Row, softmax,
};

const CLASSES: usize = 3;
const WIDTH: usize = 2;
/// Large enough that the student after the step is another one.
const RATE: f64 = 0.5;

type Weights = [[f64; WIDTH]; CLASSES];

const STUDENT: Weights = [[0.3, -0.8], [1.2, 0.4], [-0.5, 0.9]];
const TRAIN: [([f64; WIDTH], usize); 4] =
    [([1.0, 0.5], 0), ([-0.7, 1.3], 2), ([0.2, -1.1], 1), ([1.5, 0.1], 2)];
const SECOND: [([f64; WIDTH], usize); 3] = [([0.9, 0.4], 1), ([-0.2, 1.0], 0), ([0.6, -0.9], 2)];

fn logits(weights: &Weights, x: &[f64; WIDTH]) -> [f64; CLASSES] {
    weights.map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
}

/// Adds `by · slope xᵀ`.
fn add(weights: &mut Weights, by: f64, slope: &[f64], x: &[f64; WIDTH]) {
    for (row, slope) in weights.iter_mut().zip(slope) {
        row.iter_mut().zip(x).for_each(|(w, x)| *w += by * slope * x);
    }
}

fn row<'a>(logits: &'a [f64], x: &'a [f64], label: usize) -> Row<'a> {
    Row { features: Some(x), ..Row::new(Some(label), logits) }
}

fn after_a_step(target: &dyn Learned) -> Weights {
    let mut weights = STUDENT;
    for (x, label) in &TRAIN {
        let (z, mut d) = (logits(&STUDENT, x), [0.0; CLASSES]);
        target.loss(&row(&z, x, *label), &mut d);
        add(&mut weights, -RATE, &d, x);
    }
    weights
}

fn second_loss(weights: &Weights) -> f64 {
    let of = |(x, label): &([f64; WIDTH], usize)| -softmax(&logits(weights, x), 1.0)[*label].ln();
    SECOND.iter().map(of).sum()
}

/// `∂L/∂W` of the second set's loss.
fn second_slope(weights: &Weights) -> Weights {
    let mut slope = [[0.0; WIDTH]; CLASSES];
    for (x, label) in &SECOND {
        let mut d = softmax(&logits(weights, x), 1.0);
        d[*label] -= 1.0;
        add(&mut slope, 1.0, &d, x);
    }
    slope
}

#[test]
fn pulled_back_slopes_are_what_another_step_would_have_brought() {
    let mlc = |skip| MlcShape { features: WIDTH, classes: CLASSES, embedding: 2, hidden: 3, skip };
    let targets: [Box<dyn Learned>; 6] = [
        Box::new(PerClass::new(CLASSES, 0.2)),
        Box::new(LearnedSmoothing::shared(0.1)),
        Box::new(LearnedSmoothing::per_label(CLASSES, 0.3)),
        Box::new(LearnedLabo::new(0.4, 2.0)),
        Box::new(Mlc::new(mlc(false), 3)),
        Box::new(Mlc::new(mlc(true), 4)),
    ];
    for mut target in targets {
        let before = target.parameters().to_vec();
        let slope = second_slope(&after_a_step(&*target));
        let mut got = vec![0.0; before.len()];
        for (x, label) in &TRAIN {
            // A step moves W by −η (s − q) xᵀ, so q moves the second loss by η (∂L/∂W) x.
            let (z, d_q) = (logits(&STUDENT, x), logits(&slope, x).map(|d| RATE * d));
            target.pull_back(&row(&z, x, *label), &d_q, &mut got);
        }
        // Differences of numbers of size 1: the square of the step, and rounding over it.
        const STEP: f64 = 1e-5;
        let mut want = vec![0.0; before.len()];
        for place in 0..before.len() {
            let mut value = |by: f64| {
                target.parameters_mut()[place] = before[place] + by;
                second_loss(&after_a_step(&*target))
            };
            want[place] = (value(STEP) - value(-STEP)) / (2.0 * STEP);
            target.parameters_mut()[place] = before[place];
        }
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let off: Vec<f64> = got.iter().zip(&want).map(|(got, want)| got - want).collect();
        assert!(norm(&want) > 1e-3, "{target:?} hears nothing");
        assert!(norm(&off) < 1e-7 * norm(&want), "{target:?}: {got:?}, should be {want:?}");
    }
}
