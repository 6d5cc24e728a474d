//! The fast device: `f32`, vector instructions chosen at run time, a pool of threads of its own.
//!
//! In and out: as [`Device`] says. Never: a result that depends on the number of threads or on
//! scheduling; an allocation in the steady state of a step, once its largest batch was seen
//! ([`Device::read`] aside, whose result is the caller's).

mod ahead;
mod attention;
mod cached;
mod columns;
mod divergences;
mod double;
mod exponentials;
mod gate;
mod lanes;
mod losses;
mod math;
mod memory;
mod optimise;
mod pool;
mod product;
mod relation;
mod rms;
mod rotary;
mod rows;
mod sorted;
mod sparse;
mod threads;
mod tile;
mod transpose;

use std::fmt;

use crate::device::{
    Activation, AdamW, AdamWRows, AddNorm, AddNormBackward, Ahead, Attention, AttentionBackward,
    CachedAttention, Device, Dropout, Gate, GateBackward, Linear, LinearBackward, Relation,
    RmsNorm, RmsNormBackward, Rotary, RotaryAngles, RowLoss, Slope,
};
use crate::{IdSpace, Ids, Precision, Space, View};

pub use exponentials::{exponentials, sum};
use lanes::{sum2_f64, vectorised};
use memory::{Marks, Memory};
use optimise::Factors;
use product::{Factor, Kernel, Products};
use relation::Kept;
use threads::Threads;

/// The processor this program runs on.
pub struct Cpu {
    memory: Memory,
    ids: IdMemory,
    threads: Threads,
    precision: Precision,
    products: Products,
    kept: Kept,
    factors: Vec<Factors>,
    /// For the grids of one operation, of which there are four at most.
    marks: [Marks; 4],
    /// Floating-point operations so far.
    operations: u64,
}

impl Cpu {
    /// A device that holds nothing and works with `threads` threads; 0 is one per core.
    pub fn new(threads: usize) -> Self {
        Self {
            memory: Memory::default(),
            ids: IdMemory::default(),
            threads: Threads::new(threads),
            precision: Precision::F32,
            products: Products::default(),
            kept: Kept::default(),
            factors: Vec::with_capacity(512),
            marks: Default::default(),
            operations: 0,
        }
    }

    /// The same device, whose linear layers compute from factors of `precision`.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { products: Products::by(Kernel::of(precision)), precision, ..self }
    }

    /// Whether this processor has an instruction for [`Precision::Bf16`] (AVX512-BF16). Where it
    /// has none, factors are rounded and multiplied in `f32`: no time is gained. The two differ in
    /// the last bits of their sums.
    pub fn has_bf16() -> bool {
        matches!(Kernel::of(Precision::Bf16), Kernel::Pairs(_))
    }

    /// Bytes of the device's own that a product takes besides its operands, with `threads` threads;
    /// its right factor is `[inner, columns]`.
    pub fn product_room(inner: usize, columns: usize, threads: usize) -> u64 {
        let [packed, strip] = product::room(inner, columns);
        packed + threads as u64 * strip
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("threads", &self.threads())
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// All index spaces.
#[derive(Default)]
struct IdMemory(Vec<Vec<u32>>);

impl IdMemory {
    fn read(&self, ids: Ids) -> &[u32] {
        &self.0[ids.space.0 as usize][ids.offset..ids.offset + ids.len]
    }

    /// Sets the indices at `places` of `ids`, or all of them.
    fn set(&mut self, ids: Ids, places: Option<Ids>, value: u32) {
        let Some(places) = places else {
            self.0[ids.space.0 as usize][ids.offset..ids.offset + ids.len].fill(value);
            return;
        };
        for at in 0..places.len {
            let place = self.read(places)[at] as usize;
            assert!(place < ids.len, "index {place} of {}", ids.len);
            self.0[ids.space.0 as usize][ids.offset + place] = value;
        }
    }
}

impl Device for Cpu {
    fn alloc(&mut self, len: usize) -> Space {
        self.memory.alloc(len)
    }

    fn resize(&mut self, space: Space, len: usize) {
        self.memory.resize(space, len);
    }

    fn alloc_ids(&mut self, len: usize) -> IdSpace {
        self.ids.0.push(vec![0; len]);
        IdSpace(self.ids.0.len() as u32 - 1)
    }

    fn bytes(&self) -> u64 {
        let ids: usize = self.ids.0.iter().map(Vec::len).sum();
        let marks: u64 = self.marks.iter().map(Marks::bytes).sum();
        let scratch = self.threads.bytes() + self.products.bytes() + self.kept.bytes() + marks;
        self.memory.bytes() + scratch + (ids * size_of::<u32>()) as u64
    }

    fn operations(&self) -> u64 {
        self.operations
    }

    fn set_precision(&mut self, precision: Precision) -> Precision {
        self.products.set_kernel(Kernel::of(precision));
        std::mem::replace(&mut self.precision, precision)
    }

    fn write(&mut self, to: View, values: &[f32]) {
        assert_eq!(values.len(), to.len(), "numbers for a view");
        let ([], [mut rows]) = self.memory.borrow([], [to]);
        for (row, values) in values.chunks(to.cols().max(1)).enumerate() {
            rows.row(row).copy_from_slice(values);
        }
    }

    fn read(&self, from: View) -> Vec<f32> {
        let rows = self.memory.read(from);
        (0..from.rows()).flat_map(|row| rows.row(row)).copied().collect()
    }

    fn write_f64(&mut self, to: View, values: &[f64]) {
        assert_eq!(values.len(), to.len(), "numbers for a view");
        let ([], [mut rows]) = self.memory.borrow([], [to]);
        for (row, values) in values.chunks(to.cols().max(1)).enumerate() {
            let pairs = rows.row(row).iter_mut().zip(values);
            pairs.for_each(|(to, &value)| *to = value as f32);
        }
    }

    fn read_f64(&self, from: View) -> Vec<f64> {
        self.read(from).into_iter().map(f64::from).collect()
    }

    fn write_ids(&mut self, to: Ids, values: &[u32]) {
        self.ids.0[to.space.0 as usize][to.offset..to.offset + to.len].copy_from_slice(values);
    }

    fn fill(&mut self, to: View, value: f32) {
        self.each_run(to, |run| run.fill(value));
    }

    fn copy(&mut self, from: View, to: View) {
        self.zip_runs(from, to, |to, from| to.copy_from_slice(from));
    }

    fn add_scaled(&mut self, scale: f64, from: View, to: View) {
        let scale = scale as f32;
        self.zip_runs(from, to, |to, from| {
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = scale.mul_add(from, *to));
        });
    }

    fn lerp(&mut self, weight: f64, from: View, to: View) {
        let weight = weight as f32;
        self.zip_runs(from, to, |to, from| {
            let part = |(to, &from): (&mut f32, &f32)| *to = weight.mul_add(from - *to, *to);
            to.iter_mut().zip(from).for_each(part);
        });
    }

    fn scale(&mut self, scale: f64, view: View) {
        let scale = scale as f32;
        self.each_run(view, |run| run.iter_mut().for_each(|x| *x *= scale));
    }

    fn sum(&self, view: View) -> f64 {
        self.reduce(view, |run| sum2_f64(run, run, |x, _| f64::from(x)))
    }

    fn sum_of_squares(&self, view: View) -> f64 {
        self.reduce(view, |run| sum2_f64(run, run, |x, _| f64::from(x) * f64::from(x)))
    }

    fn sum_of_squares_of_rows(&self, view: View, rows: Ids) -> f64 {
        let numbers = self.memory.read(view);
        let squares = |&row: &u32| {
            let row = numbers.row(row as usize);
            sum2_f64(row, row, |x, _| f64::from(x) * f64::from(x))
        };
        vectorised(
            #[inline(always)]
            || self.ids.read(rows).iter().map(squares).sum(),
        )
    }

    fn embed(&mut self, tables: &[(View, Ids)], out: View) {
        self.embed_rows(tables, out);
    }

    fn set_rows(&mut self, from: View, table: View, ids: Ids) {
        assert_eq!((table.cols(), ids.len()), (from.cols(), from.rows()), "shapes of rows to set");
        let ([from], [mut table]) = self.memory.borrow([from], [table]);
        for (at, &row) in self.ids.read(ids).iter().enumerate() {
            table.row(row as usize).copy_from_slice(from.row(at));
        }
    }

    fn clear_rows(&mut self, table: View, ids: Ids) {
        let ([], [mut table]) = self.memory.borrow([], [table]);
        self.ids.read(ids).iter().for_each(|&row| table.row(row as usize).fill(0.0));
    }

    fn pick_columns(&mut self, from: View, columns: Ids, to: View) {
        self.pick(from, columns, to);
    }

    fn forbid_columns(&mut self, x: View, columns: Ids) {
        self.forbid(x, columns);
    }

    fn embed_backward(&mut self, d_out: View, tables: &[(View, Ids)]) {
        self.embed_gradient(d_out, tables);
    }

    fn linear(&mut self, op: &Linear) {
        self.operations += op.operations();
        self.linear_forward(op);
    }

    fn linear_backward(&mut self, op: &LinearBackward) {
        self.operations += op.operations();
        if let Some(dx) = op.dx {
            self.linear_gradient(op, dx);
        }
        if let Some(dw) = op.dw {
            let ([x, dy], [dw]) = self.memory.borrow([op.x, op.dy], [dw]);
            let (dy, x) = (Factor::Transposed(dy), Factor::Plain(x));
            self.products.run(&self.threads, dw, dy, x, true);
        }
        if let Some(db) = op.db {
            self.sum_columns(op.dy, db);
        }
    }

    fn activation_backward(&mut self, f: Activation, x: View, dy: View, dx: View) {
        self.activation_gradient(f, x, dy, dx);
    }

    fn add_norm(&mut self, op: &AddNorm) {
        self.norm_rows(op);
    }

    fn add_norm_backward(&mut self, op: &AddNormBackward) {
        self.norm_gradient(op);
    }

    fn dropout(&mut self, op: &Dropout, x: View) {
        self.drop_rows(op, x);
    }

    fn attention(&mut self, op: &Attention) {
        self.operations += op.operations(self.ids.read(op.starts));
        self.attention_forward(op);
    }

    fn attention_backward(&mut self, op: &AttentionBackward) {
        self.operations += op.operations(self.ids.read(op.forward.starts));
        self.attention_gradient(op);
    }

    fn cached_attention(&mut self, op: &CachedAttention) {
        self.operations += op.operations(self.ids.read(op.lengths));
        self.attention_of_new(op);
    }

    fn rms_norm(&mut self, op: &RmsNorm) {
        self.rms_rows(op);
    }

    fn rms_norm_backward(&mut self, op: &RmsNormBackward) {
        self.rms_gradient(op);
    }

    fn rotary_angles(&mut self, op: &RotaryAngles) {
        self.angles(op);
    }

    fn rotary(&mut self, op: &Rotary) {
        self.turn_pairs(op);
    }

    fn gate(&mut self, op: &Gate) {
        self.gate_rows(op);
    }

    fn gate_backward(&mut self, op: &GateBackward) {
        self.gate_gradient(op);
    }

    fn mean_rows(&mut self, x: View, starts: Ids, y: View) {
        self.mean_of_rows(x, starts, y);
    }

    fn mean_rows_backward(&mut self, dy: View, starts: Ids, dx: View) {
        self.mean_of_rows_gradient(dy, starts, dx);
    }

    fn row_loss(&mut self, op: &RowLoss) {
        self.row_losses(op);
    }

    fn relation(&mut self, op: &Relation) {
        self.operations += op.operations(self.ids.read(op.starts));
        self.relation_losses(op);
    }

    fn adamw(&mut self, op: &AdamW<'_>) {
        self.operations += op.operations();
        self.adamw_spans(op);
    }

    fn step_ahead(&mut self, op: &Ahead<'_>) {
        self.steps_ahead(op);
    }

    fn slope(&mut self, op: &Slope<'_>) {
        self.slopes(op);
    }

    fn adamw_rows(&mut self, op: &AdamWRows<'_>) {
        self.operations += op.operations();
        self.adamw_of_rows(op);
    }
}
