//! A device that notes how long each kind of operation takes.
//!
//! In: any device and a clock. Out: that device's numbers, bit for bit, and seconds by kind.
//! Never: a clock of its own.

use crate::device::{
    Activation, AdamW, AdamWRows, AddNorm, AddNormBackward, Ahead, Attention, AttentionBackward,
    CachedAttention, Device, Dropout, Gate, GateBackward, Linear, LinearBackward, Relation,
    RmsNorm, RmsNormBackward, Rotary, RotaryAngles, RowLoss, Slope,
};
use crate::{IdSpace, Ids, Precision, Space, View};

/// Kinds of operations, each with its name; what is not listed is `other`.
const KINDS: [&str; 12] = [
    "product: forward",
    "product: gradient of the input",
    "product: gradient of the weights",
    "gradient of the bias",
    "attention: forward",
    "attention: backward",
    "add & norm: forward",
    "add & norm: backward",
    "activation: backward",
    "embedding",
    "optimiser",
    "other",
];

/// A device with a stopwatch.
pub struct Profiled<D> {
    device: D,
    clock: fn() -> f64,
    seconds: [f64; KINDS.len()],
}

impl<D: Device> Profiled<D> {
    /// Measures `device` with `clock`, which gives seconds from any moment on.
    pub fn new(device: D, clock: fn() -> f64) -> Self {
        Self { device, clock, seconds: [0.0; KINDS.len()] }
    }

    /// Seconds of each kind since the last call of [`Profiled::reset`], in a fixed order.
    pub fn seconds(&self) -> impl Iterator<Item = (&'static str, f64)> + use<'_, D> {
        KINDS.into_iter().zip(self.seconds)
    }

    /// Forgets all seconds.
    pub fn reset(&mut self) {
        self.seconds = [0.0; KINDS.len()];
    }

    fn time<R>(&mut self, kind: &str, work: impl FnOnce(&mut D) -> R) -> R {
        let start = (self.clock)();
        let result = work(&mut self.device);
        let kind = KINDS.iter().position(|name| *name == kind).unwrap_or(KINDS.len() - 1);
        self.seconds[kind] += (self.clock)() - start;
        result
    }
}

impl<D: std::fmt::Debug> std::fmt::Debug for Profiled<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiled").field("device", &self.device).finish_non_exhaustive()
    }
}

impl<D: Device> Device for Profiled<D> {
    fn alloc(&mut self, len: usize) -> Space {
        self.device.alloc(len)
    }
    fn resize(&mut self, space: Space, len: usize) {
        self.device.resize(space, len);
    }
    fn alloc_ids(&mut self, len: usize) -> IdSpace {
        self.device.alloc_ids(len)
    }
    fn bytes(&self) -> u64 {
        self.device.bytes()
    }
    fn operations(&self) -> u64 {
        self.device.operations()
    }
    fn set_precision(&mut self, precision: Precision) -> Precision {
        self.device.set_precision(precision)
    }
    fn write(&mut self, to: View, values: &[f32]) {
        self.time("other", |device| device.write(to, values));
    }
    fn read(&self, from: View) -> Vec<f32> {
        self.device.read(from)
    }
    fn write_f64(&mut self, to: View, values: &[f64]) {
        self.time("other", |device| device.write_f64(to, values));
    }
    fn read_f64(&self, from: View) -> Vec<f64> {
        self.device.read_f64(from)
    }
    fn write_ids(&mut self, to: Ids, values: &[u32]) {
        self.time("other", |device| device.write_ids(to, values));
    }
    fn fill(&mut self, to: View, value: f32) {
        self.time("other", |device| device.fill(to, value));
    }
    fn copy(&mut self, from: View, to: View) {
        self.time("other", |device| device.copy(from, to));
    }
    fn add_scaled(&mut self, scale: f64, from: View, to: View) {
        self.time("other", |device| device.add_scaled(scale, from, to));
    }
    fn lerp(&mut self, weight: f64, from: View, to: View) {
        self.time("other", |device| device.lerp(weight, from, to));
    }
    fn scale(&mut self, scale: f64, view: View) {
        self.time("other", |device| device.scale(scale, view));
    }
    fn sum(&self, view: View) -> f64 {
        self.device.sum(view)
    }
    fn sum_of_squares(&self, view: View) -> f64 {
        self.device.sum_of_squares(view)
    }
    fn sum_of_squares_of_rows(&self, view: View, rows: Ids) -> f64 {
        self.device.sum_of_squares_of_rows(view, rows)
    }
    fn embed(&mut self, tables: &[(View, Ids)], out: View) {
        self.time("embedding", |device| device.embed(tables, out));
    }
    fn set_rows(&mut self, from: View, table: View, ids: Ids) {
        self.time("embedding", |device| device.set_rows(from, table, ids));
    }
    fn clear_rows(&mut self, table: View, ids: Ids) {
        self.time("embedding", |device| device.clear_rows(table, ids));
    }
    fn pick_columns(&mut self, from: View, columns: Ids, to: View) {
        self.time("other", |device| device.pick_columns(from, columns, to));
    }
    fn forbid_columns(&mut self, x: View, columns: Ids) {
        self.time("other", |device| device.forbid_columns(x, columns));
    }
    fn embed_backward(&mut self, d_out: View, tables: &[(View, Ids)]) {
        self.time("embedding", |device| device.embed_backward(d_out, tables));
    }
    fn linear(&mut self, op: &Linear) {
        self.time(KINDS[0], |device| device.linear(op));
    }
    /// In three parts, which are independent of one another.
    fn linear_backward(&mut self, op: &LinearBackward) {
        let parts = [
            (op.dx.is_some(), LinearBackward { dw: None, db: None, ..*op }),
            (op.dw.is_some(), LinearBackward { dx: None, through: None, db: None, ..*op }),
            (op.db.is_some(), LinearBackward { dx: None, through: None, dw: None, ..*op }),
        ];
        for (kind, (there, part)) in KINDS[1..].iter().zip(parts) {
            if there {
                self.time(kind, |device| device.linear_backward(&part));
            }
        }
    }
    fn activation_backward(&mut self, f: Activation, x: View, dy: View, dx: View) {
        self.time("activation: backward", |device| device.activation_backward(f, x, dy, dx));
    }
    fn add_norm(&mut self, op: &AddNorm) {
        self.time("add & norm: forward", |device| device.add_norm(op));
    }
    fn add_norm_backward(&mut self, op: &AddNormBackward) {
        self.time("add & norm: backward", |device| device.add_norm_backward(op));
    }
    fn dropout(&mut self, op: &Dropout, x: View) {
        self.time("other", |device| device.dropout(op, x));
    }
    fn attention(&mut self, op: &Attention) {
        self.time("attention: forward", |device| device.attention(op));
    }
    fn attention_backward(&mut self, op: &AttentionBackward) {
        self.time("attention: backward", |device| device.attention_backward(op));
    }
    fn cached_attention(&mut self, op: &CachedAttention) {
        self.time("attention: forward", |device| device.cached_attention(op));
    }
    fn rms_norm(&mut self, op: &RmsNorm) {
        self.time("add & norm: forward", |device| device.rms_norm(op));
    }
    fn rms_norm_backward(&mut self, op: &RmsNormBackward) {
        self.time("add & norm: backward", |device| device.rms_norm_backward(op));
    }
    fn rotary_angles(&mut self, op: &RotaryAngles) {
        self.time("other", |device| device.rotary_angles(op));
    }
    fn rotary(&mut self, op: &Rotary) {
        self.time("other", |device| device.rotary(op));
    }
    fn gate(&mut self, op: &Gate) {
        self.time("other", |device| device.gate(op));
    }
    fn gate_backward(&mut self, op: &GateBackward) {
        self.time("activation: backward", |device| device.gate_backward(op));
    }
    fn mean_rows(&mut self, x: View, starts: Ids, y: View) {
        self.time("other", |device| device.mean_rows(x, starts, y));
    }
    fn mean_rows_backward(&mut self, dy: View, starts: Ids, dx: View) {
        self.time("other", |device| device.mean_rows_backward(dy, starts, dx));
    }
    fn row_loss(&mut self, op: &RowLoss) {
        self.time("other", |device| device.row_loss(op));
    }
    fn relation(&mut self, op: &Relation) {
        self.time("other", |device| device.relation(op));
    }
    fn adamw(&mut self, op: &AdamW<'_>) {
        self.time("optimiser", |device| device.adamw(op));
    }
    fn step_ahead(&mut self, op: &Ahead<'_>) {
        self.time("optimiser", |device| device.step_ahead(op));
    }
    fn slope(&mut self, op: &Slope<'_>) {
        self.time("optimiser", |device| device.slope(op));
    }
    fn adamw_rows(&mut self, op: &AdamWRows<'_>) {
        self.time("optimiser", |device| device.adamw_rows(op));
    }
}
