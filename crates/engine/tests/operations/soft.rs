//! Rows of logits against a teacher's, on any device: what the tests of divergences run.

use heirloom_engine::{Device, Divergence, IGNORED, RowLoss, Target};

use crate::rows::{BEFORE, ids, indices, input, new};

/// Factor of the gradient.
pub(crate) const SCALE: f64 = 0.7;

/// One batch of rows.
#[derive(Clone, Debug)]
pub(crate) struct Soft {
    pub(crate) divergence: Divergence,
    pub(crate) temperature: f64,
    pub(crate) cols: usize,
    pub(crate) x: Vec<f64>,
    pub(crate) teacher: Vec<f64>,
    pub(crate) labels: Vec<u32>,
    pub(crate) weights: Option<Vec<f64>>,
}

impl Soft {
    /// Random logits of about the given size, exact in `f32`; the second row has no label.
    pub(crate) fn random(divergence: Divergence, rows: usize, cols: usize, size: f64) -> Self {
        let logits = |seed| {
            let mut numbers = input(seed, rows, cols).values;
            numbers.iter_mut().for_each(|x| *x = f64::from((*x * size) as f32));
            numbers
        };
        let mut labels = indices(3, rows, cols as u32);
        labels.iter_mut().skip(1).take(1).for_each(|label| *label = IGNORED);
        let (x, teacher) = (logits(1), logits(2));
        Self { divergence, temperature: 1.0, cols, x, teacher, labels, weights: None }
    }

    pub(crate) fn at(self, temperature: f64) -> Self {
        Self { temperature, ..self }
    }

    /// Loss of each row, and the gradient of `x`.
    pub(crate) fn run(&self, device: &mut dyn Device) -> (Vec<f64>, Vec<f64>) {
        let rows = self.x.len() / self.cols;
        let [x, logits, dx] = [(); 3].map(|()| new(device, rows, self.cols));
        device.write_f64(x, &self.x);
        device.write_f64(logits, &self.teacher);
        device.fill(dx, BEFORE);
        let losses = new(device, rows, 1);
        let weights = self.weights.as_ref().map(|weights| {
            let view = new(device, rows, 1);
            device.write_f64(view, weights);
            view
        });
        let labels = Some(ids(device, &self.labels));
        let (divergence, temperature) = (self.divergence, self.temperature);
        let factor = temperature * temperature;
        let target = Target::Teacher { logits, divergence, temperature, factor, labels };
        device.row_loss(&RowLoss { x, target, scale: SCALE, weights, losses, dx: Some(dx) });
        let gradient = device.read_f64(dx).iter().map(|d| d - f64::from(BEFORE)).collect();
        (device.read_f64(losses), gradient)
    }
}

/// Every divergence, at several parameters; all are bounded by the size of the logits.
pub(crate) const EVERY: [Divergence; 26] = {
    use Divergence::{
        AlphaBeta, Decoupled, ForwardKl, JensenShannon, MeanSquaredLogits, ReverseKl, SkewKl,
        SkewReverseKl, Symmetric, TotalVariation,
    };
    [
        ForwardKl,
        ReverseKl,
        Symmetric,
        JensenShannon { beta: 0.5 },
        JensenShannon { beta: 0.1 },
        JensenShannon { beta: 0.97 },
        SkewKl { alpha: 0.0 },
        SkewKl { alpha: 0.1 },
        SkewKl { alpha: 0.8 },
        SkewReverseKl { alpha: 0.0 },
        SkewReverseKl { alpha: 0.1 },
        SkewReverseKl { alpha: 0.8 },
        AlphaBeta { alpha: 0.2, beta: 0.7 },
        AlphaBeta { alpha: 1.0, beta: 0.0 },
        AlphaBeta { alpha: 0.0, beta: 1.0 },
        AlphaBeta { alpha: 0.5, beta: 0.5 },
        AlphaBeta { alpha: 0.0, beta: 0.4 },
        AlphaBeta { alpha: 1.3, beta: 0.0 },
        AlphaBeta { alpha: 0.0, beta: 0.0 },
        AlphaBeta { alpha: 1.0, beta: 1.0 },
        TotalVariation,
        Decoupled { alpha: 1.0, beta: 8.0 },
        Decoupled { alpha: 0.0, beta: 1.0 },
        Decoupled { alpha: 2.0, beta: 0.0 },
        MeanSquaredLogits { centred: false },
        MeanSquaredLogits { centred: true },
    ]
};

/// Those that grow with a power of 1/p or 1/q, beside which rounding has no bound.
pub(crate) const UNBOUNDED: [Divergence; 4] = [
    Divergence::AlphaBeta { alpha: 0.6, beta: -0.6 },
    Divergence::AlphaBeta { alpha: -0.6, beta: 0.6 },
    Divergence::AlphaBeta { alpha: 1.5, beta: -0.5 },
    Divergence::AlphaBeta { alpha: -0.5, beta: 0.3 },
];
