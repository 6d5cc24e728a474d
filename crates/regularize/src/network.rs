//! A small multi-layer perceptron in double precision and its backward pass.
//!
//! Layers `W x + b` with tanh between them and nothing after the last. Parameters lie in one slice,
//! layer after layer: `W`, `[out, in]`, then `b`, `[out]`. A few thousand of them at most: plain
//! loops are enough.

/// How many parameters layers of these widths have: inputs, hidden layers, outputs.
pub(crate) fn count(widths: &[usize]) -> usize {
    widths.windows(2).map(|pair| (pair[0] + 1) * pair[1]).sum()
}

/// What each layer gives, the input first and the outputs last.
pub(crate) fn forward(widths: &[usize], parameters: &[f64], input: &[f64]) -> Vec<Vec<f64>> {
    let (mut layers, mut rest) = (vec![input.to_vec()], parameters);
    for (depth, pair) in widths.windows(2).enumerate() {
        let (layer, after) = rest.split_at((pair[0] + 1) * pair[1]);
        let (weights, bias) = layer.split_at(pair[0] * pair[1]);
        let input = &layers[depth];
        let sums =
            weights.chunks_exact(pair[0]).zip(bias).map(|(row, bias)| bias + dot(row, input));
        let last = depth + 2 == widths.len();
        layers.push(sums.map(|sum| if last { sum } else { libm::tanh(sum) }).collect());
        rest = after;
    }
    layers
}

/// Adds the gradient on the parameters, given what [`forward`] gave and the gradient on its outputs;
/// the gradient on its input.
pub(crate) fn backward(
    widths: &[usize],
    parameters: &[f64],
    layers: &[Vec<f64>],
    d_outputs: &[f64],
    gradient: &mut [f64],
) -> Vec<f64> {
    let (mut upper, mut end) = (d_outputs.to_vec(), parameters.len());
    for depth in (0..widths.len() - 1).rev() {
        let (width, input) = (widths[depth], &layers[depth]);
        let start = end - (width + 1) * upper.len();
        let weights = &parameters[start..end - upper.len()];
        let (d_weights, d_bias) = gradient[start..end].split_at_mut(width * upper.len());
        let mut lower = vec![0.0; width];
        let rows = weights.chunks_exact(width).zip(d_weights.chunks_exact_mut(width)).zip(d_bias);
        for (((row, d_row), d_bias), &slope) in rows.zip(&upper) {
            *d_bias += slope;
            d_row.iter_mut().zip(input).for_each(|(d, &input)| *d += slope * input);
            lower.iter_mut().zip(row).for_each(|(lower, &weight)| *lower += slope * weight);
        }
        if depth > 0 {
            // tanh's slope, from its value.
            lower.iter_mut().zip(input).for_each(|(lower, &y)| *lower *= 1.0 - y * y);
        }
        (upper, end) = (lower, start);
    }
    upper
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
