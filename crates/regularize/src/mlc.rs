//! Meta label correction: a small network gives each sample its own target.
//!
//! Zheng, Awadallah & Dumais 2021, "Meta Label Correction for Noisy Label Learning", AAAI,
//! arXiv:1911.03809. The label's embedding stands beside the sample's features:
//! `q = softmax(W₃ tanh(W₂ tanh(W₁ [h; E(y)] + b₁) + b₂) + b₃)`; with `skip` the last layer has one
//! output more, `a`, and the target is `(1 − σ(a))·q + σ(a)·y`, as in the authors' code. The
//! parameters move down the loss of a second, clean set; features are constants.
//!
//! Deviations: fresh embeddings are uniform between ±1 where the authors' are normal; no sparsemax.

use heirloom_base::{Purpose, uniform, word};

use crate::divergence::detached;
use crate::learned_smoothing::sigmoid;
use crate::network::{backward, count, forward};
use crate::numbers::{softmax, through_softmax};
use crate::one_hot::mix_label;
use crate::target::replace;
use crate::{Learned, Needs, Restored, Row, SoftTarget, Target};

/// The network's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlcShape {
    /// Features of a sample.
    pub features: usize,
    /// K.
    pub classes: usize,
    /// Width of a label's embedding.
    pub embedding: usize,
    /// Width of both hidden layers.
    pub hidden: usize,
    /// Whether the label has a way around the network.
    pub skip: bool,
}

/// A network of features and label.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlc {
    shape: MlcShape,
    /// Inputs, hidden layers, outputs.
    widths: [usize; 4],
    /// Embeddings, `[K, embedding]`, then the layers.
    parameters: Vec<f64>,
}

/// Words of this network, which those of a balance policy with the same seed must not repeat.
const WORDS: u64 = 1 << 32;

impl Mlc {
    /// Fresh parameters: embeddings uniform between ±1, layers between ±1/√in as PyTorch's linear
    /// layer has them; the same for a seed on any machine.
    pub fn new(shape: MlcShape, seed: u64) -> Self {
        let MlcShape { features, classes, embedding, hidden, skip } = shape;
        let outputs = classes + usize::from(skip);
        let widths = [features + embedding, hidden, hidden, outputs];
        let mut parameters = Vec::new();
        let mut draw = |bound: f64, many: usize| {
            for _ in 0..many {
                let word = word(seed, Purpose::Policy, 0, WORDS + parameters.len() as u64);
                parameters.push(bound * (2.0 * uniform(word) - 1.0));
            }
        };
        draw(1.0, classes * embedding);
        for pair in widths.windows(2) {
            draw(1.0 / (pair[0] as f64).sqrt(), (pair[0] + 1) * pair[1]);
        }
        debug_assert_eq!(parameters.len(), classes * embedding + count(&widths));
        Self { shape, widths, parameters }
    }

    /// What the layers give for a row, and the label's share of the way around, 0 without.
    fn layers(&self, row: &Row<'_>, label: usize) -> (Vec<Vec<f64>>, f64) {
        let (embeddings, layers) = self.parameters.split_at(self.embeddings());
        let own = &embeddings[label * self.shape.embedding..][..self.shape.embedding];
        assert_eq!(row.features().len(), self.shape.features, "features of a row");
        let values = forward(&self.widths, layers, &[row.features(), own].concat());
        let around = values[3].get(self.shape.classes).map_or(0.0, |&a| sigmoid(a));
        (values, around)
    }

    fn embeddings(&self) -> usize {
        self.shape.classes * self.shape.embedding
    }
}

impl Target for Mlc {
    fn needs(&self) -> Needs {
        Needs { label: true, features: true, ..Needs::default() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    fn state(&self) -> Vec<f64> {
        self.parameters.clone()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        replace(&mut self.parameters, state)
    }
}

impl SoftTarget for Mlc {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false };
        let (values, around) = self.layers(row, label);
        q.copy_from_slice(&softmax(&values[3][..self.shape.classes], 1.0));
        mix_label(label, 1.0 - around, q);
        true
    }
}

impl Learned for Mlc {
    fn parameters(&self) -> &[f64] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [f64] {
        &mut self.parameters
    }

    fn pull_back(&self, row: &Row<'_>, d_q: &[f64], gradient: &mut [f64]) {
        let Some(label) = row.label else { return };
        let (values, around) = self.layers(row, label);
        let p = softmax(&values[3][..self.shape.classes], 1.0);
        let mean: f64 = p.iter().zip(d_q).map(|(p, d)| p * d).sum();
        let mut d_outputs: Vec<f64> = d_q.iter().map(|d| (1.0 - around) * d).collect();
        through_softmax(&p, &mut d_outputs);
        if self.shape.skip {
            d_outputs.push((d_q[label] - mean) * around * (1.0 - around));
        }
        let (d_embeddings, d_layers) = gradient.split_at_mut(self.embeddings());
        let layers = &self.parameters[self.embeddings()..];
        let d_input = backward(&self.widths, layers, &values, &d_outputs, d_layers);
        let own = &mut d_embeddings[label * self.shape.embedding..][..self.shape.embedding];
        let lower = &d_input[self.shape.features..];
        own.iter_mut().zip(lower).for_each(|(sum, d)| *sum += d);
    }
}
