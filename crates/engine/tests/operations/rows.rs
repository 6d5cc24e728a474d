//! Operations as rows: each knows its inputs, its forward and its backward pass, and runs on any
//! device. `gradients.rs` holds them against finite differences, `agreement.rs` one device against
//! another.

use heirloom_base::{Purpose, Words};
use heirloom_engine::{
    Activation, AddNorm, AddNormBackward, Attention, AttentionBackward, Device, Divergence,
    Dropout, Ids, Linear, LinearBackward, Mask, Relation, RelationMeasure, RowLoss, Target, View,
};

/// What gradients hold before a backward pass that adds to them: small, so that its rounding is.
pub(crate) const BEFORE: f32 = 1.0 / 1024.0;

/// A matrix an operation starts from.
pub(crate) struct Input {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) values: Vec<f64>,
}

/// Numbers of about unit size, exact in `f32`: sums of four uniform ones.
pub(crate) fn input(seed: u64, rows: usize, cols: usize) -> Input {
    let number = |at: usize| {
        let words = Words::at(seed, Purpose::Synthetic, 0, 0).block(at as u32, 0);
        let sum: f64 = words.iter().map(|&word| f64::from(word) / 4_294_967_296.0 - 0.5).sum();
        f64::from((sum * 1.7) as f32)
    };
    Input { rows, cols, values: (0..rows * cols).map(number).collect() }
}

/// Indices below `end`.
pub(crate) fn indices(seed: u64, count: usize, end: u32) -> Vec<u32> {
    let word = |at: usize| Words::at(seed, Purpose::Synthetic, 1, 0).block(at as u32, 0)[0];
    (0..count).map(|at| word(at) % end).collect()
}

/// First rows of sequences of these lengths, and the number of rows at the end.
pub(crate) fn starts(lengths: &[usize]) -> Vec<u32> {
    let mut starts = vec![0];
    starts.extend(lengths.iter().scan(0, |end, &length| {
        *end += length as u32;
        Some(*end)
    }));
    starts
}

/// What a forward pass leaves.
pub(crate) struct Outputs {
    /// Outputs that have a gradient.
    pub(crate) results: Vec<View>,
    /// Others, kept for the backward pass.
    pub(crate) kept: Vec<View>,
}

/// The gradient of an input.
pub(crate) enum Gradient {
    /// The view holds it.
    Written(View),
    /// It was added to [`BEFORE`].
    Added(View),
    /// The operation gives none.
    None,
}

/// An operation with its inputs.
pub(crate) trait Op {
    fn name(&self) -> String;
    fn inputs(&self) -> Vec<Input>;
    /// The factor of the gradient where the operation decides it; random otherwise.
    fn weight(&self) -> Option<f64> {
        None
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs;
    fn backward(
        &self,
        device: &mut dyn Device,
        x: &[View],
        y: &Outputs,
        dy: &[View],
    ) -> Vec<Gradient>;
}

pub(crate) fn new(device: &mut dyn Device, rows: usize, cols: usize) -> View {
    let space = device.alloc(rows * cols);
    View::matrix(space, 0, rows, cols)
}

pub(crate) fn twin(device: &mut dyn Device, of: View) -> View {
    new(device, of.rows(), of.cols())
}

pub(crate) fn before(device: &mut dyn Device, of: View) -> View {
    let view = twin(device, of);
    device.fill(view, BEFORE);
    view
}

pub(crate) fn ids(device: &mut dyn Device, values: &[u32]) -> Ids {
    let space = device.alloc_ids(values.len());
    let ids = Ids::at(space, 0, values.len());
    device.write_ids(ids, values);
    ids
}

/// Dropout of one in four, with addresses that are not the row numbers.
fn dropout(device: &mut dyn Device, rows: usize) -> Dropout {
    let addresses: Vec<u32> = (0..rows as u32).map(|row| row * 3 + 100).collect();
    Dropout { p: 0.25, words: Words::at(3, Purpose::Dropout, 5, 2), rows: ids(device, &addresses) }
}

/// [`Linear`], with its activation.
pub(crate) struct Lin {
    pub(crate) rows: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) bias: bool,
    pub(crate) activation: Option<Activation>,
    pub(crate) add_to_dx: bool,
}

impl Op for Lin {
    fn name(&self) -> String {
        let Self { rows, from, to, bias, activation, add_to_dx } = self;
        format!("linear {rows}×{from}→{to} bias {bias} {activation:?} add {add_to_dx}")
    }
    fn inputs(&self) -> Vec<Input> {
        let mut w = input(2, self.to, self.from);
        let scale = 1.0 / (self.from as f64).sqrt();
        w.values.iter_mut().for_each(|w| *w = f64::from((*w * scale) as f32));
        vec![input(1, self.rows, self.from), w, input(3, 1, self.to)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let y = new(device, self.rows, self.to);
        let activated = self.activation.map(|f| (f, twin(device, y)));
        device.linear(&Linear { x: x[0], w: x[1], b: self.bias.then_some(x[2]), y, activated });
        Outputs { results: vec![activated.map_or(y, |(_, view)| view)], kept: vec![y] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        x: &[View],
        y: &Outputs,
        dy: &[View],
    ) -> Vec<Gradient> {
        let mut d = dy[0];
        if let Some(f) = self.activation {
            d = twin(device, dy[0]);
            device.activation_backward(f, y.kept[0], dy[0], d);
            // In place must give the same.
            let apart = device.read_f64(d);
            device.copy(dy[0], d);
            device.activation_backward(f, y.kept[0], d, d);
            assert_eq!(device.read_f64(d), apart, "in place");
        }
        let dx = before(device, x[0]);
        let (dw, db) = (before(device, x[1]), before(device, x[2]));
        device.linear_backward(&LinearBackward {
            x: x[0],
            w: x[1],
            dy: d,
            dx: Some(dx),
            add_to_dx: self.add_to_dx,
            through: None,
            dw: Some(dw),
            db: self.bias.then_some(db),
        });
        vec![
            if self.add_to_dx { Gradient::Added(dx) } else { Gradient::Written(dx) },
            Gradient::Added(dw),
            if self.bias { Gradient::Added(db) } else { Gradient::None },
        ]
    }
}

/// Two layers with an activation between them, as in a feed-forward block: the second's backward
/// pass goes through the activation.
pub(crate) struct Through {
    pub(crate) rows: usize,
    pub(crate) from: usize,
    pub(crate) inner: usize,
    pub(crate) to: usize,
    pub(crate) activation: Activation,
}

impl Op for Through {
    fn name(&self) -> String {
        let Self { rows, from, inner, to, activation } = self;
        format!("[{rows}, {from}] to {inner} through {activation:?} to {to}")
    }
    fn inputs(&self) -> Vec<Input> {
        let &Self { rows, from, inner, to, .. } = self;
        vec![input(21, rows, from), input(22, inner, from), input(23, to, inner)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let [z, active] = [(); 2].map(|()| new(device, self.rows, self.inner));
        let y = new(device, self.rows, self.to);
        let activated = Some((self.activation, active));
        device.linear(&Linear { x: x[0], w: x[1], b: None, y: z, activated });
        device.linear(&Linear { x: active, w: x[2], b: None, y, activated: None });
        Outputs { results: vec![y], kept: vec![z, active] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        x: &[View],
        y: &Outputs,
        dy: &[View],
    ) -> Vec<Gradient> {
        let dz = twin(device, y.kept[0]);
        let [dx, d_first, d_second] = [0, 1, 2].map(|at| before(device, x[at]));
        device.linear_backward(&LinearBackward {
            x: y.kept[1],
            w: x[2],
            dy: dy[0],
            dx: Some(dz),
            add_to_dx: false,
            through: Some((self.activation, y.kept[0])),
            dw: Some(d_second),
            db: None,
        });
        device.linear_backward(&LinearBackward {
            x: x[0],
            w: x[1],
            dy: dz,
            dx: Some(dx),
            add_to_dx: false,
            through: None,
            dw: Some(d_first),
            db: None,
        });
        vec![Gradient::Written(dx), Gradient::Added(d_first), Gradient::Added(d_second)]
    }
}

/// [`AddNorm`].
pub(crate) struct Norm {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) residual: bool,
    pub(crate) dropout: bool,
    pub(crate) in_place: bool,
}

impl Op for Norm {
    fn name(&self) -> String {
        let Self { rows, cols, residual, dropout, in_place } = self;
        format!("add_norm {rows}×{cols} residual {residual} dropout {dropout} in place {in_place}")
    }
    fn inputs(&self) -> Vec<Input> {
        let (rows, cols) = (self.rows, self.cols);
        vec![input(1, rows, cols), input(2, rows, cols), input(3, 1, cols), input(4, 1, cols)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let y = twin(device, x[0]);
        let stats = new(device, self.rows, 2);
        let sum = twin(device, x[0]);
        let from = if self.in_place {
            device.copy(x[0], sum);
            sum
        } else {
            x[0]
        };
        let dropout = self.dropout.then(|| dropout(device, self.rows));
        device.add_norm(&AddNorm {
            x: from,
            residual: self.residual.then_some(x[1]),
            dropout,
            gamma: x[2],
            beta: x[3],
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
        let (d_gamma, d_beta) = (before(device, x[2]), before(device, x[3]));
        let d_sum = twin(device, x[0]);
        let from = if self.in_place {
            device.copy(dy[0], d_sum);
            d_sum
        } else {
            dy[0]
        };
        let dx = self.dropout.then(|| (dropout(device, self.rows), twin(device, x[0])));
        device.add_norm_backward(&AddNormBackward {
            dy: from,
            sum: y.kept[0],
            stats: y.kept[1],
            gamma: x[2],
            d_sum,
            dx,
            d_gamma: Some(d_gamma),
            d_beta: Some(d_beta),
        });
        vec![
            Gradient::Written(dx.map_or(d_sum, |(_, dx)| dx)),
            if self.residual { Gradient::Written(d_sum) } else { Gradient::None },
            Gradient::Added(d_gamma),
            Gradient::Added(d_beta),
        ]
    }
}

/// Dropout in place.
pub(crate) struct Drop {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl Op for Drop {
    fn name(&self) -> String {
        format!("dropout {}×{}", self.rows, self.cols)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![input(1, self.rows, self.cols)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let y = twin(device, x[0]);
        device.copy(x[0], y);
        let op = dropout(device, self.rows);
        device.dropout(&op, y);
        Outputs { results: vec![y], kept: vec![] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        _: &[View],
        _: &Outputs,
        dy: &[View],
    ) -> Vec<Gradient> {
        let dx = twin(device, dy[0]);
        device.copy(dy[0], dx);
        let op = dropout(device, self.rows);
        device.dropout(&op, dx);
        vec![Gradient::Written(dx)]
    }
}

/// [`Attention`].
pub(crate) struct Att {
    pub(crate) lengths: Vec<usize>,
    pub(crate) heads: usize,
    pub(crate) key_heads: usize,
    pub(crate) mask: Mask,
    pub(crate) each: usize,
    pub(crate) dropout: bool,
}

impl Att {
    /// Each query head with keys of its own, all of which it sees.
    pub(crate) fn full(lengths: Vec<usize>, heads: usize, each: usize, dropout: bool) -> Self {
        Self { lengths, heads, key_heads: heads, mask: Mask::Full, each, dropout }
    }

    fn op(&self, device: &mut dyn Device, qkv: View, out: View, lse: View) -> Attention {
        Attention {
            qkv,
            heads: self.heads,
            key_heads: self.key_heads,
            mask: self.mask,
            starts: ids(device, &starts(&self.lengths)),
            longest: self.lengths.iter().copied().max().unwrap_or(0),
            scale: 1.0 / (self.each as f64).sqrt(),
            dropout: self.dropout.then(|| dropout(device, qkv.rows())),
            out,
            lse,
        }
    }
}

impl Op for Att {
    fn name(&self) -> String {
        let Self { lengths, heads, key_heads, mask, each, dropout } = self;
        format!("attention {lengths:?} heads {heads}/{key_heads}×{each} {mask:?} dropout {dropout}")
    }
    fn inputs(&self) -> Vec<Input> {
        let heads = self.heads + 2 * self.key_heads;
        vec![input(1, self.lengths.iter().sum(), heads * self.each)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let out = new(device, x[0].rows(), self.heads * self.each);
        let lse = new(device, x[0].rows(), self.heads);
        let op = self.op(device, x[0], out, lse);
        device.attention(&op);
        Outputs { results: vec![out], kept: vec![lse] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        x: &[View],
        y: &Outputs,
        dy: &[View],
    ) -> Vec<Gradient> {
        let d_qkv = twin(device, x[0]);
        let forward = self.op(device, x[0], y.results[0], y.kept[0]);
        device.attention_backward(&AttentionBackward { forward, d_out: dy[0], d_qkv });
        vec![Gradient::Written(d_qkv)]
    }
}

/// Sum of two embeddings.
pub(crate) struct Emb {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) table: usize,
}

impl Op for Emb {
    fn name(&self) -> String {
        format!("embed {} of {}×{}", self.rows, self.table, self.cols)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![input(1, self.table, self.cols), input(2, 5, self.cols)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let out = new(device, self.rows, self.cols);
        let first = ids(device, &indices(1, self.rows, self.table as u32));
        let second = ids(device, &indices(2, self.rows, 5));
        device.embed(&[(x[0], first), (x[1], second)], out);
        Outputs { results: vec![out], kept: vec![] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        x: &[View],
        _: &Outputs,
        dy: &[View],
    ) -> Vec<Gradient> {
        let (a, b) = (before(device, x[0]), before(device, x[1]));
        let first = ids(device, &indices(1, self.rows, self.table as u32));
        let second = ids(device, &indices(2, self.rows, 5));
        device.embed_backward(dy[0], &[(a, first), (b, second)]);
        vec![Gradient::Added(a), Gradient::Added(b)]
    }
}

/// Mean over the rows of each sequence.
pub(crate) struct Mean {
    pub(crate) lengths: Vec<usize>,
    pub(crate) cols: usize,
}

impl Op for Mean {
    fn name(&self) -> String {
        format!("mean_rows {:?}×{}", self.lengths, self.cols)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![input(1, self.lengths.iter().sum(), self.cols)]
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let y = new(device, self.lengths.len(), self.cols);
        let starts = ids(device, &starts(&self.lengths));
        device.mean_rows(x[0], starts, y);
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
        let starts = ids(device, &starts(&self.lengths));
        device.mean_rows_backward(dy[0], starts, dx);
        vec![Gradient::Written(dx)]
    }
}

/// A target of [`Loss`], before it has views.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    Labels(Vec<u32>),
    Softened { labels: Vec<u32>, share: f64, temperature: f64 },
    Misses(Vec<u32>),
    Teacher { temperature: f64 },
    Binary,
    Distance(heirloom_engine::HiddenDistance),
}

/// [`RowLoss`]; logits are `size` times a unit-sized number.
pub(crate) struct Loss {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) held: Held,
    pub(crate) size: f64,
}

impl Loss {
    fn op(&self, device: &mut dyn Device, x: &[View], losses: View, dx: Option<View>) -> RowLoss {
        let target = match &self.held {
            Held::Labels(labels) => Target::Labels(ids(device, labels)),
            Held::Softened { labels, share, temperature } => {
                let (share, temperature) = (*share, *temperature);
                Target::Softened { labels: ids(device, labels), share, temperature }
            }
            Held::Misses(labels) => Target::Misses(ids(device, labels)),
            Held::Teacher { temperature } => Target::Teacher {
                logits: x[1],
                divergence: Divergence::ForwardKl,
                temperature: *temperature,
                factor: temperature * temperature,
                labels: None,
            },
            Held::Binary => Target::Binary(x[1]),
            Held::Distance(distance) => Target::Distance(*distance, x[1]),
        };
        RowLoss { x: x[0], target, scale: 0.7, weights: None, losses, dx }
    }
}

impl Op for Loss {
    fn name(&self) -> String {
        let held = match &self.held {
            Held::Labels(_) => "labels".to_owned(),
            Held::Softened { share, temperature, .. } => format!("{share} softened {temperature}"),
            Held::Misses(_) => "misses".to_owned(),
            other => format!("{other:?}"),
        };
        format!("row_loss {}×{} size {} {held}", self.rows, self.cols, self.size)
    }
    fn inputs(&self) -> Vec<Input> {
        let mut x = input(1, self.rows, self.cols);
        let mut other = input(2, self.rows, self.cols);
        x.values.iter_mut().for_each(|x| *x = f64::from((*x * self.size) as f32));
        if let Held::Binary = self.held {
            other.values.iter_mut().for_each(|y| *y = f64::from((*y as f32).abs().min(1.0)));
        }
        vec![x, other]
    }
    fn weight(&self) -> Option<f64> {
        Some(0.7)
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let losses = new(device, self.rows, 1);
        let op = self.op(device, x, losses, None);
        device.row_loss(&op);
        Outputs { results: vec![losses], kept: vec![] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        x: &[View],
        _: &Outputs,
        _: &[View],
    ) -> Vec<Gradient> {
        let dx = before(device, x[0]);
        let losses = new(device, self.rows, 1);
        let op = self.op(device, x, losses, Some(dx));
        device.row_loss(&op);
        vec![Gradient::Added(dx), Gradient::None]
    }
}

/// How the two sides of a relation lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sides {
    /// Two matrices.
    Apart,
    /// One matrix is both.
    Same,
    /// Columns of one matrix, gradients likewise.
    Columns,
}

/// [`Relation`].
pub(crate) struct Rel {
    pub(crate) lengths: Vec<usize>,
    pub(crate) heads: usize,
    pub(crate) width: usize,
    pub(crate) teacher_width: usize,
    pub(crate) measure: RelationMeasure,
    pub(crate) sides: Sides,
}

impl Rel {
    fn rows(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn pair(&self, x: View) -> (View, View) {
        match self.sides {
            Sides::Same => (x, x),
            Sides::Columns => (x.columns(0..self.width), x.columns(self.width..2 * self.width)),
            Sides::Apart => (
                x.reshaped(2 * self.rows(), self.width).row_range(0..self.rows()),
                x.reshaped(2 * self.rows(), self.width).row_range(self.rows()..2 * self.rows()),
            ),
        }
    }

    fn op(&self, device: &mut dyn Device, x: &[View], losses: View, d: Option<View>) -> Relation {
        let (a, b) = self.pair(x[0]);
        Relation {
            a,
            b,
            teacher_a: x[1],
            teacher_b: x[2],
            heads: self.heads,
            starts: ids(device, &starts(&self.lengths)),
            longest: self.lengths.iter().copied().max().unwrap_or(0),
            measure: self.measure,
            scale: 0.7,
            losses,
            gradients: d.map(|d| self.pair(d)),
        }
    }
}

impl Op for Rel {
    fn name(&self) -> String {
        let Self { lengths, heads, width, measure, sides, .. } = self;
        format!("relation {lengths:?} heads {heads} of {width} {measure:?} {sides:?}")
    }
    fn inputs(&self) -> Vec<Input> {
        let width = if self.sides == Sides::Same { self.width } else { 2 * self.width };
        let teacher = |seed| input(seed, self.rows(), self.teacher_width);
        vec![input(1, self.rows(), width), teacher(2), teacher(3)]
    }
    fn weight(&self) -> Option<f64> {
        Some(0.7)
    }
    fn forward(&self, device: &mut dyn Device, x: &[View]) -> Outputs {
        let losses = new(device, self.rows(), 1);
        let op = self.op(device, x, losses, None);
        device.relation(&op);
        Outputs { results: vec![losses], kept: vec![] }
    }
    fn backward(
        &self,
        device: &mut dyn Device,
        x: &[View],
        _: &Outputs,
        _: &[View],
    ) -> Vec<Gradient> {
        let d = before(device, x[0]);
        let losses = new(device, self.rows(), 1);
        let op = self.op(device, x, losses, Some(d));
        device.relation(&op);
        vec![Gradient::Added(d), Gradient::None, Gradient::None]
    }
}

/// Results, what was kept, and gradients of one run on one device, in a fixed order.
pub(crate) struct Numbers {
    pub(crate) results: Vec<Vec<f64>>,
    pub(crate) kept: Vec<Vec<f64>>,
    pub(crate) gradients: Vec<Option<Vec<f64>>>,
}

/// Weights of the results in the loss whose gradient is taken.
pub(crate) fn weights(op: &dyn Op, place: usize, len: usize) -> Vec<f64> {
    match op.weight() {
        Some(weight) => vec![weight; len],
        None => input(90 + place as u64, 1, len).values,
    }
}

/// Writes `inputs` to a device.
pub(crate) fn place(device: &mut dyn Device, inputs: &[Input]) -> Vec<View> {
    let mut views = Vec::new();
    for input in inputs {
        let view = new(device, input.rows, input.cols);
        device.write_f64(view, &input.values);
        views.push(view);
    }
    views
}

/// Runs forward and backward on `device`.
pub(crate) fn run(device: &mut dyn Device, op: &dyn Op) -> Numbers {
    let x = place(device, &op.inputs());
    let y = op.forward(device, &x);
    let results: Vec<_> = y.results.iter().map(|&view| device.read_f64(view)).collect();
    let kept = y.kept.iter().map(|&view| device.read_f64(view)).collect();
    let mut dy = Vec::new();
    for (at, &view) in y.results.iter().enumerate() {
        let d = twin(device, view);
        device.write_f64(d, &weights(op, at, view.len()));
        dy.push(d);
    }
    let gradients = op.backward(device, &x, &y, &dy);
    let read = |gradient: Gradient| match gradient {
        Gradient::Written(view) => Some(device.read_f64(view)),
        Gradient::Added(view) => {
            Some(device.read_f64(view).iter().map(|d| d - f64::from(BEFORE)).collect())
        }
        Gradient::None => None,
    };
    Numbers { results, kept, gradients: gradients.into_iter().map(read).collect() }
}
