//! Operations of decoders: gradients against finite differences, and one device against the other.

use heirloom_engine::{
    Activation, CachedAttention, Cpu, Device, Gate, GateBackward, Mask, Reference, RmsNorm,
    RmsNormBackward, Rotary, RotaryAngles, View,
};

use crate::agreement::agree;
use crate::gradients::check;
use crate::rows::{Att, Gradient, Input, Op, Outputs, before, ids, indices, input, new, run, twin};

/// [`RmsNorm`] of columns in the middle of a wider matrix.
struct Rms {
    rows: usize,
    runs: usize,
    each: usize,
    residual: bool,
    in_place: bool,
}

impl Op for Rms {
    fn name(&self) -> String {
        let Self { rows, runs, each, residual, in_place } = self;
        format!("rms_norm {rows}×{runs}×{each} residual {residual} in place {in_place}")
    }
    fn inputs(&self) -> Vec<Input> {
        let cols = self.runs * self.each;
        vec![input(1, self.rows, cols), input(2, self.rows, cols), input(3, 1, self.each)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let cols = self.runs * self.each;
        let sum = new(device, self.rows, cols + 7).columns(3..cols + 3);
        let y = new(device, self.rows, cols + 5).columns(2..cols + 2);
        let stats = new(device, self.rows, self.runs);
        let from = if self.in_place { sum } else { x[0] };
        device.copy(x[0], sum);
        device.rms_norm(&RmsNorm {
            x: from,
            residual: self.residual.then_some(x[1]),
            gamma: x[2],
            eps: 1e-5,
            sum,
            stats,
            y,
        });
        Outputs { results: vec![y], kept: vec![sum, stats] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        x: &[View],
        y: &Outputs,
        dy: &[View],
    ) -> Vec<Gradient> {
        let (d_sum, d_gamma) = (twin(device, x[0]), before(device, x[2]));
        device.copy(dy[0], d_sum);
        device.rms_norm_backward(&RmsNormBackward {
            dy: if self.in_place { d_sum } else { dy[0] },
            sum: y.kept[0],
            stats: y.kept[1],
            gamma: x[2],
            d_sum,
            d_gamma: Some(d_gamma),
        });
        let residual = if self.residual { Gradient::Written(d_sum) } else { Gradient::None };
        vec![Gradient::Written(d_sum), residual, Gradient::Added(d_gamma)]
    }
}

/// [`Rotary`] of some columns, by [`RotaryAngles`].
struct Rot {
    rows: usize,
    heads: usize,
    each: usize,
}

impl Rot {
    fn angles(&self, device: &mut dyn Device) -> View {
        let (half, out) = (self.each / 2, new(device, self.rows, self.each));
        let frequencies = new(device, 1, half);
        let values: Vec<f32> = (0..half).map(|at| 0.75_f32.powi(at as i32)).collect();
        device.write(frequencies, &values);
        let positions = ids(device, &indices(4, self.rows, 40));
        device.rotary_angles(&RotaryAngles { positions, frequencies, factor: 1.25, out });
        out
    }
}

impl Op for Rot {
    fn name(&self) -> String {
        format!("rotary {}×{}×{}", self.rows, self.heads, self.each)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![input(1, self.rows, self.heads * self.each)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let cols = self.heads * self.each;
        let y = new(device, self.rows, cols + 9).columns(4..cols + 4);
        device.copy(x[0], y);
        let angles = self.angles(device);
        device.rotary(&Rotary { x: y, angles, backward: false });
        Outputs { results: vec![y], kept: vec![angles] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        _: &[View],
        y: &Outputs,
        dy: &[View],
    ) -> Vec<Gradient> {
        let dx = twin(device, dy[0]);
        device.copy(dy[0], dx);
        device.rotary(&Rotary { x: dx, angles: y.kept[0], backward: true });
        vec![Gradient::Written(dx)]
    }
}

/// [`Gate`].
struct Gated {
    rows: usize,
    width: usize,
    f: Activation,
}

impl Op for Gated {
    fn name(&self) -> String {
        format!("gate {}×{} {:?}", self.rows, self.width, self.f)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![input(1, self.rows, 2 * self.width)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let y = new(device, self.rows, self.width);
        device.gate(&Gate { f: self.f, x: x[0], y });
        Outputs { results: vec![y], kept: vec![] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        x: &[View],
        _: &Outputs,
        dy: &[View],
    ) -> Vec<Gradient> {
        let dx = twin(device, x[0]);
        device.gate_backward(&GateBackward { f: self.f, x: x[0], dy: dy[0], dx });
        vec![Gradient::Written(dx)]
    }
}

/// [`CachedAttention`], which has no backward pass.
struct Cached {
    lengths: Vec<u32>,
    room: usize,
    heads: usize,
    key_heads: usize,
    each: usize,
    window: Option<usize>,
}

impl Op for Cached {
    fn name(&self) -> String {
        let Self { lengths, room, heads, key_heads, each, window } = self;
        format!("cached {lengths:?} of {room} heads {heads}/{key_heads}×{each} window {window:?}")
    }
    fn inputs(&self) -> Vec<Input> {
        let (rows, width) = (self.lengths.len(), self.key_heads * self.each);
        let kept = |seed| input(seed, rows * self.room, width);
        vec![input(1, rows, self.heads * self.each), kept(2), kept(3)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let out = twin(device, x[0]);
        let lengths = ids(device, &self.lengths);
        device.cached_attention(&CachedAttention {
            q: x[0],
            keys: x[1],
            values: x[2],
            lengths,
            heads: self.heads,
            key_heads: self.key_heads,
            window: self.window,
            scale: 1.0 / (self.each as f64).sqrt(),
            out,
        });
        Outputs { results: vec![out], kept: vec![] }
    }
    fn backward(&self, _: &mut dyn Device, _: &[View], _: &Outputs, _: &[View]) -> Vec<Gradient> {
        vec![Gradient::None, Gradient::None, Gradient::None]
    }
}

const GATES: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

const CAUSAL: Mask = Mask::Causal { window: None };

/// Attention where two query heads share a head of keys.
fn grouped(lengths: Vec<usize>, key_heads: usize, each: usize, mask: Mask, dropout: bool) -> Att {
    Att { lengths, heads: 2 * key_heads, key_heads, mask, each, dropout }
}

#[test]
fn gradients_of_rms_norms_of_rows_and_of_heads() {
    for flags in 0..4 {
        let (residual, in_place) = (flags & 1 > 0, flags & 2 > 0);
        for runs in [1, 3] {
            check(&Rms { rows: 3, runs, each: 4, residual, in_place });
        }
    }
}

#[test]
fn gradients_of_rotary_positions_and_gates() {
    check(&Rot { rows: 4, heads: 2, each: 6 });
    for f in GATES {
        check(&Gated { rows: 3, width: 5, f });
    }
}

#[test]
fn gradients_of_causal_attention_with_shared_keys_and_windows() {
    for mask in [Mask::Full, CAUSAL, Mask::Causal { window: Some(2) }] {
        for dropout in [false, true] {
            check(&grouped(vec![4, 1, 5], 2, 3, mask, dropout));
        }
    }
}

#[test]
fn rms_norms_rotary_positions_and_gates_agree() {
    for (rows, runs, each) in [(1, 1, 8), (7, 3, 24), (33, 1, 384), (130, 4, 130)] {
        for flags in 0..4 {
            let (residual, in_place) = (flags & 1 > 0, flags & 2 > 0);
            agree(&Rms { rows, runs, each, residual, in_place });
        }
        agree(&Rot { rows, heads: runs, each });
        for f in GATES {
            agree(&Gated { rows, width: each, f });
        }
    }
}

#[test]
fn causal_attention_with_shared_keys_and_windows_agrees() {
    // Windows around a block of lanes and around a band of queries.
    for window in [None, Some(1), Some(5), Some(16), Some(33), Some(1000)] {
        for (lengths, key_heads, each) in
            [(vec![1], 1, 8), (vec![7, 1, 33], 3, 8), (vec![130, 5, 16, 64], 2, 24)]
        {
            for dropout in [false, true] {
                let mask = Mask::Causal { window };
                agree(&grouped(lengths.clone(), key_heads, each, mask, dropout));
            }
        }
    }
    agree(&grouped(vec![31, 40], 2, 16, Mask::Full, true));
}

#[test]
fn attention_over_kept_keys_agrees() {
    for window in [None, Some(1), Some(7)] {
        for (lengths, key_heads) in [(vec![1], 1), (vec![9, 20, 1], 2), (vec![33; 17], 3)] {
            agree(&Cached { lengths, room: 33, heads: 2 * key_heads, key_heads, each: 24, window });
        }
    }
}

#[test]
fn a_causal_query_is_blind_to_what_follows_and_a_window_to_what_is_far() {
    for (mask, sees) in [(CAUSAL, 0..3), (Mask::Causal { window: Some(2) }, 1..3)] {
        let op = grouped(vec![6], 1, 4, mask, false);
        for device in [&mut Reference::<f64>::new() as &mut dyn Device, &mut Cpu::new(1)] {
            let mut third_row = |changed: Option<usize>| {
                let mut qkv = op.inputs().remove(0);
                if let Some(row) = changed {
                    // Keys and values only: queries come first.
                    let columns = row * qkv.cols + 8..(row + 1) * qkv.cols;
                    qkv.values[columns].iter_mut().for_each(|x| *x += 1.0);
                }
                let view = new(device, qkv.rows, qkv.cols);
                device.write_f64(view, &qkv.values);
                let y = op.forward(device, &[view]).results[0];
                device.read_f64(y.row_range(2..3))
            };
            let want = third_row(None);
            for row in 0..6 {
                let moved = third_row(Some(row)) != want;
                assert_eq!(moved, sees.contains(&row), "{mask:?}: row {row}");
            }
        }
    }
}

/// A rotation moves no length, and a score of turned rows depends on their distance alone.
#[test]
fn rotated_rows_keep_their_lengths() {
    let op = Rot { rows: 5, heads: 1, each: 8 };
    let (before, after) = (op.inputs(), run(&mut Reference::<f64>::new(), &op));
    for (x, y) in before[0].values.chunks(8).zip(after.results[0].chunks(8)) {
        let [x, y] = [x, y].map(|row| row.iter().map(|x| x * x).sum::<f64>());
        // The factor's square.
        assert!((y - 1.5625 * x).abs() < 1e-12, "{y} of {x}");
    }
}
