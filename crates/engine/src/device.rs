//! The boundary: every operation a device must offer, on views and shapes.
//!
//! An operation that needs more than three things takes a struct, so that a call site reads like
//! its formula. Unless told otherwise, outputs may not overlap inputs; gradients of parameters are
//! *added to*, gradients of activations are *written*.

use heirloom_base::Words;

use crate::{Divergence, IdSpace, Ids, Precision, Space, SparseTarget, View};

/// The label of a row that does not count.
pub const IGNORED: u32 = u32::MAX;

/// A pointwise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · Φ(x)` (Hendrycks & Gimpel 2016, arXiv:1606.08415), with the error function.
    Gelu,
    /// GELU by its tanh approximation; `gelu_new` and `gelu_pytorch_tanh` in Hugging Face configs.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x · σ(x)`; `silu` or `swish`.
    Silu,
    /// `tanh x`.
    Tanh,
}

/// Dropout whose mask is addressed: element `(row, column)` is kept when the word at
/// (`words`, `rows[row]`, `column`) is at least `p · 2³²`, and is then scaled by `1/(1 − p)`.
///
/// The mask is recomputed in the backward pass and never stored. Since `rows` addresses a token by
/// its sequence and position, the mask does not depend on how a step is cut into micro-batches.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability that an element is dropped, `0.0..1.0`.
    pub p: f32,
    /// Seed, step and site.
    pub words: Words,
    /// Address of each row, `[N]`.
    pub rows: Ids,
}

impl Dropout {
    /// Words below this are dropped.
    pub fn threshold(p: f32) -> u32 {
        (f64::from(p) * 4_294_967_296.0) as u32
    }
}

/// `y = x wᵀ + b`, and `activated = f(y)` where asked.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Input, `[N, I]`.
    pub x: View,
    /// Weights, `[O, I]`.
    pub w: View,
    /// Bias, `[1, O]`.
    pub b: Option<View>,
    /// Output before the activation, `[N, O]`.
    pub y: View,
    /// Activation and its output, `[N, O]`.
    pub activated: Option<(Activation, View)>,
}

/// Gradients of [`Linear`] given `dy`, the gradient of its `y`.
#[derive(Clone, Copy, Debug)]
pub struct LinearBackward {
    /// Input of the forward pass, `[N, I]`.
    pub x: View,
    /// Weights, `[O, I]`.
    pub w: View,
    /// Gradient of the output, `[N, O]`.
    pub dy: View,
    /// Gradient of the input, `[N, I]`: written, or added to where `add_to_dx`.
    pub dx: Option<View>,
    /// Whether `dx` already holds another branch's gradient.
    pub add_to_dx: bool,
    /// Where `x = f(z)`: that function and `z`, `[N, I]`; `dx` is then the gradient of `z`, and is
    /// written.
    pub through: Option<(Activation, View)>,
    /// Gradient of the weights, `[O, I]`, added to.
    pub dw: Option<View>,
    /// Gradient of the bias, `[1, O]`, added to.
    pub db: Option<View>,
}

/// `sum = residual + dropout(x)`, `y = γ · (sum − mean)/√(variance + ε) + β`, row by row
/// (Ba, Kiros & Hinton 2016, arXiv:1607.06450). `sum` may be `x` itself.
#[derive(Clone, Copy, Debug)]
pub struct AddNorm {
    /// Input, `[N, C]`.
    pub x: View,
    /// What is added, `[N, C]`.
    pub residual: Option<View>,
    /// Dropout of `x`.
    pub dropout: Option<Dropout>,
    /// Scale, `[1, C]`.
    pub gamma: View,
    /// Shift, `[1, C]`.
    pub beta: View,
    /// ε.
    pub eps: f64,
    /// The sum, `[N, C]`, kept for the backward pass.
    pub sum: View,
    /// Mean and reciprocal standard deviation, `[N, 2]`.
    pub stats: View,
    /// Output, `[N, C]`.
    pub y: View,
}

/// Gradients of [`AddNorm`].
#[derive(Clone, Copy, Debug)]
pub struct AddNormBackward {
    /// Gradient of the output, `[N, C]`.
    pub dy: View,
    /// The sum of the forward pass, `[N, C]`.
    pub sum: View,
    /// Its statistics, `[N, 2]`.
    pub stats: View,
    /// Scale, `[1, C]`.
    pub gamma: View,
    /// Gradient of the sum, hence of the residual, `[N, C]`. May be `dy` itself.
    pub d_sum: View,
    /// Dropout of the forward pass and gradient of `x`, `[N, C]`; without dropout `d_sum` serves.
    pub dx: Option<(Dropout, View)>,
    /// Gradient of the scale, `[1, C]`, added to.
    pub d_gamma: Option<View>,
    /// Gradient of the shift, `[1, C]`, added to.
    pub d_beta: Option<View>,
}

/// `sum = residual + x`, `y = γ · sum/√(mean(sum²) + ε)`, over each run of γ's width in a row
/// (Zhang & Sennrich 2019, arXiv:1910.07467). A row is one run, or one for each head of queries or
/// keys. `sum` may be `x` itself.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// Input, `[N, G·C]`.
    pub x: View,
    /// What is added, `[N, G·C]`.
    pub residual: Option<View>,
    /// Scale, `[1, C]`.
    pub gamma: View,
    /// ε.
    pub eps: f64,
    /// The sum, `[N, G·C]`, kept for the backward pass.
    pub sum: View,
    /// Reciprocal root mean square of each run, `[N, G]`.
    pub stats: View,
    /// Output, `[N, G·C]`.
    pub y: View,
}

impl RmsNorm {
    /// G: how many runs of γ's width a row has.
    ///
    /// # Panics
    /// Where a shape is not the one documented.
    pub(crate) fn runs(&self) -> usize {
        let (rows, cols, width) = (self.x.rows(), self.x.cols(), self.gamma.cols());
        assert!(width > 0 && cols.is_multiple_of(width), "runs of {width} in rows of {cols}");
        for view in [self.sum, self.y].into_iter().chain(self.residual) {
            assert_eq!((view.rows(), view.cols()), (rows, cols), "shape of sum, residual, output");
        }
        assert_eq!((self.stats.rows(), self.stats.cols()), (rows, cols / width), "statistics");
        cols / width
    }
}

/// Gradients of [`RmsNorm`].
#[derive(Clone, Copy, Debug)]
pub struct RmsNormBackward {
    /// Gradient of the output, `[N, G·C]`.
    pub dy: View,
    /// The sum of the forward pass, `[N, G·C]`.
    pub sum: View,
    /// Its statistics, `[N, G]`.
    pub stats: View,
    /// Scale, `[1, C]`.
    pub gamma: View,
    /// Gradient of the sum, hence of the residual and of `x`, `[N, G·C]`. May be `dy` itself.
    pub d_sum: View,
    /// Gradient of the scale, `[1, C]`, added to.
    pub d_gamma: Option<View>,
}

impl RmsNormBackward {
    /// G, as [`RmsNorm::runs`].
    ///
    /// # Panics
    /// Likewise.
    pub(crate) fn runs(&self) -> usize {
        let (rows, cols, width) = (self.sum.rows(), self.sum.cols(), self.gamma.cols());
        assert!(width > 0 && cols.is_multiple_of(width), "runs of {width} in rows of {cols}");
        for view in [self.dy, self.d_sum] {
            assert_eq!((view.rows(), view.cols()), (rows, cols), "shape of the gradients");
        }
        assert_eq!((self.stats.rows(), self.stats.cols()), (rows, cols / width), "statistics");
        cols / width
    }
}

/// `out = [factor · cos(p ω) | factor · sin(p ω)]` for each position `p` and inverse frequency `ω`.
#[derive(Clone, Copy, Debug)]
pub struct RotaryAngles {
    /// Position of each row in its sequence, `[N]`.
    pub positions: Ids,
    /// ω, in radians per position, `[1, D/2]`.
    pub frequencies: View,
    /// Factor of both, 1 but for scalings that sharpen attention (YaRN; Peng et al. 2023,
    /// arXiv:2309.00071).
    pub factor: f64,
    /// Cosines, then sines, `[N, D]`.
    pub out: View,
}

/// Rotary positions (Su et al. 2021, arXiv:2104.09864), in place: in each head, columns `j` and
/// `j + D/2` are turned as the coordinates of a point by the angle of row and `j`.
#[derive(Clone, Copy, Debug)]
pub struct Rotary {
    /// Queries or keys, `[N, H·D]`.
    pub x: View,
    /// From [`RotaryAngles`], `[N, D]`.
    pub angles: View,
    /// Whether `x` is a gradient: it is then multiplied by the transposed matrix.
    pub backward: bool,
}

impl Rotary {
    /// H.
    ///
    /// # Panics
    /// Where a shape is not the one documented.
    pub(crate) fn heads(&self) -> usize {
        let each = self.angles.cols();
        assert!(each > 0 && each.is_multiple_of(2), "a head of {each} has no pairs");
        assert!(self.x.cols().is_multiple_of(each), "heads of {each} in {}", self.x.cols());
        assert_eq!(self.x.rows(), self.angles.rows(), "angles of each row");
        self.x.cols() / each
    }
}

/// `y = f(gate) · up`, the gated unit of a feed-forward layer (Shazeer 2020, arXiv:2002.05202).
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Non-linearity of the gate.
    pub f: Activation,
    /// Gate and up side by side, `[N, 2F]`.
    pub x: View,
    /// Output, `[N, F]`.
    pub y: View,
}

/// Gradient of [`Gate`].
#[derive(Clone, Copy, Debug)]
pub struct GateBackward {
    /// Non-linearity of the gate.
    pub f: Activation,
    /// Gate and up of the forward pass, `[N, 2F]`.
    pub x: View,
    /// Gradient of the output, `[N, F]`.
    pub dy: View,
    /// Gradient of gate and up, `[N, 2F]`, written.
    pub dx: View,
}

/// Which keys of its own sequence a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All.
    Full,
    /// Its own and those before it.
    Causal {
        /// Of these the last `window` only, its own included.
        window: Option<usize>,
    },
}

impl Mask {
    /// Positions of the keys that the query at `position` of a sequence of `length` sees.
    pub fn keys(self, position: usize, length: usize) -> std::ops::Range<usize> {
        match self {
            Self::Full => 0..length,
            Self::Causal { window: None } => 0..position + 1,
            Self::Causal { window: Some(window) } => {
                (position + 1).saturating_sub(window)..position + 1
            }
        }
    }
}

/// Softmax attention inside each sequence of a packed batch: for head `h` and sequence rows `i, j`,
/// `out_i = Σ_j dropout(softmax_j(q_i · k_j · scale)) v_j` (Vaswani et al. 2017,
/// arXiv:1706.03762), over the `j` that the mask lets `i` see. Head `h` reads key head
/// `⌊h K / H⌋` (grouped queries; Ainslie et al. 2023, arXiv:2305.13245). No score is stored: `lse`
/// is enough to recompute them.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Queries of H heads, keys and values of K heads side by side, `[N, (H + 2K)·D]`.
    pub qkv: View,
    /// H.
    pub heads: usize,
    /// K; divides H.
    pub key_heads: usize,
    /// Which keys a query sees.
    pub mask: Mask,
    /// First row of each sequence, and N at the end, `[S + 1]`.
    pub starts: Ids,
    /// Rows of the longest sequence.
    pub longest: usize,
    /// Factor of the scores, `1/√D` as a rule.
    pub scale: f64,
    /// Dropout of the attention probabilities. The word of (query row, head, key position) has
    /// row address `rows[query]`, column `head · 2¹⁶ + position`.
    pub dropout: Option<Dropout>,
    /// Output, `[N, H·D]`.
    pub out: View,
    /// Log of the sum of exponentials of each row of scores, `[N, H]`.
    pub lse: View,
}

impl Attention {
    /// D.
    ///
    /// # Panics
    /// Where a shape is not the one documented.
    pub(crate) fn each(&self) -> usize {
        let (rows, cols) = (self.qkv.rows(), self.qkv.cols());
        let (heads, keys) = (self.heads, self.key_heads);
        assert!(keys > 0 && heads.is_multiple_of(keys), "{heads} heads on {keys} of keys");
        let all = heads + 2 * keys;
        assert!(cols.is_multiple_of(all), "queries, keys and values: {all} heads in {cols}");
        let each = cols / all;
        assert_eq!((self.out.rows(), self.out.cols()), (rows, heads * each), "the output's shape");
        assert_eq!((self.lse.rows(), self.lse.cols()), (rows, heads), "shape of lse");
        each
    }
}

/// Gradient of [`Attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionBackward {
    /// The forward pass, its outputs still in place.
    pub forward: Attention,
    /// Gradient of the output, `[N, H·D]`.
    pub d_out: View,
    /// Gradient of `qkv`, `[N, (H + 2K)·D]`, written.
    pub d_qkv: View,
}

/// Attention of one new token in each of B sequences over keys and values that were kept, its own
/// among them; see [`Attention`].
#[derive(Clone, Copy, Debug)]
pub struct CachedAttention {
    /// Queries, `[B, H·D]`.
    pub q: View,
    /// Keys, T rows for each sequence, `[B·T, K·D]`.
    pub keys: View,
    /// Values, likewise.
    pub values: View,
    /// How many of a sequence's rows are filled, from the first, `[B]`.
    pub lengths: Ids,
    /// H.
    pub heads: usize,
    /// K; divides H.
    pub key_heads: usize,
    /// Of the filled rows the last `window` only.
    pub window: Option<usize>,
    /// Factor of the scores.
    pub scale: f64,
    /// Output, `[B, H·D]`.
    pub out: View,
}

impl CachedAttention {
    /// D and T.
    ///
    /// # Panics
    /// Where a shape is not the one documented.
    pub(crate) fn each_and_room(&self) -> (usize, usize) {
        let (rows, heads, keys) = (self.q.rows(), self.heads, self.key_heads);
        assert!(keys > 0 && heads.is_multiple_of(keys), "{heads} heads on {keys} of keys");
        assert!(self.q.cols().is_multiple_of(heads), "{heads} heads in {}", self.q.cols());
        let each = self.q.cols() / heads;
        assert!(rows > 0 && self.keys.rows().is_multiple_of(rows), "rows for each sequence");
        for view in [self.keys, self.values] {
            assert_eq!((view.rows(), view.cols()), (self.keys.rows(), keys * each), "kept rows");
        }
        assert_eq!((self.out.rows(), self.out.cols()), (rows, heads * each), "the output's shape");
        assert_eq!(self.lengths.len(), rows, "a length for each sequence");
        (each, self.keys.rows() / rows)
    }

    /// Which of `length` filled rows are seen.
    ///
    /// # Panics
    /// Where there is none, or they are more than T, `room`.
    pub(crate) fn seen(&self, length: usize, room: usize) -> std::ops::Range<usize> {
        assert!((1..=room).contains(&length), "{length} kept rows in room for {room}");
        Mask::Causal { window: self.window }.keys(length - 1, length)
    }
}

/// What a row of logits or numbers is held against.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// `−ln softmax(x)[label]`; a row labelled [`IGNORED`] has loss 0 and gradient 0.
    Labels(Ids),
    /// `−Σ q ln softmax(x)` with `q = (1 − share)·y + share·softmax(x/T)`, y the label's one-hot
    /// vector; q is held fixed, so the gradient is `softmax(x) − q`. Label smoothing at T = ∞
    /// (Szegedy et al. 2016, arXiv:1512.00567, §7), LABO's own softened answer at a finite T
    /// (Lu et al. 2023, arXiv:2305.04971). A row labelled [`IGNORED`] has loss 0 and gradient 0.
    /// `x` is finite.
    Softened {
        /// Label of each row, `[R]`.
        labels: Ids,
        /// What the second part has, `0.0..=1.0`.
        share: f64,
        /// T, at least 1; ∞ is the even distribution.
        temperature: f64,
    },
    /// 1 where the label is not the class of the largest `x`, of equal ones the first; else 0, and 0
    /// for a row labelled [`IGNORED`]. Its gradient is 0 wherever it has one.
    Misses(Ids),
    /// `factor · D(softmax(t/T), softmax(x/T))` (Hinton et al. 2015, arXiv:1503.02531), `D` a
    /// [`Divergence`].
    Teacher {
        /// Teacher's logits, `[R, V]`; −∞ forbids a class.
        logits: View,
        /// Which divergence.
        divergence: Divergence,
        /// T, positive.
        temperature: f64,
        /// T² as a rule, so that the gradient's size does not depend on T.
        factor: f64,
        /// Label of each row, or [`IGNORED`], `[R]`: what [`Divergence::Decoupled`] needs, and no
        /// other looks at.
        labels: Option<Ids>,
    },
    /// The teacher's probabilities of a few classes.
    Sparse(SparseTarget),
    /// `factor · Σₖ |q₍ₖ₎ − p₍ₖ₎|`: probabilities of `q = softmax(x/T)` and `p = softmax(t/T)` held
    /// against one another by their rank instead of their class, where the two have different
    /// vocabularies (universal logit distillation; Boizard et al. 2024, arXiv:2402.12030). The shorter
    /// row goes on with zeros. In `0.0..=2.0` times the factor.
    ///
    /// Equal logits share the slopes of their ranks evenly, so the gradient does not depend on the
    /// order of classes, and where two probabilities of one rank are equal the slope there is 0: at a
    /// kink the gradient is one of those the loss has beside it, or between them.
    Sorted {
        /// Teacher's logits, `[R, Vₜ]`, of any width; −∞ forbids a class.
        logits: View,
        /// T, positive.
        temperature: f64,
        /// Factor of the loss.
        factor: f64,
        /// How many ranks are compared one by one, at least 1; all others of a side count as one
        /// sum. The loss is then lower than that of all ranks by at most twice the smaller of the two
        /// sums. As many as classes, or more, is exact, and costs two sorts of whole rows.
        top: usize,
    },
    /// Mean over columns of `−y ln σ(x) − (1 − y) ln(1 − σ(x))`, `y` in `0.0..=1.0`, `[R, V]`.
    Binary(View),
    /// A distance between rows of numbers.
    Distance(HiddenDistance, View),
    /// Losses and gradients that somebody else computed from `x`: this operation weighs and adds
    /// them.
    Given {
        /// Loss of each row, `[R, 1]`.
        losses: View,
        /// Its gradient, `[R, V]`.
        gradients: View,
    },
}

/// A distance between two rows of the same width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenDistance {
    /// Mean over columns of the squared difference.
    MeanSquared,
    /// `1 − cos` (Sanh et al. 2019, arXiv:1910.01108).
    Cosine,
    /// Squared distance of the two rows after each is divided by its length (patient distillation;
    /// Sun et al. 2019, arXiv:1908.09355).
    Normalized,
}

/// A loss per row, and the gradient of `scale` times their sum, weighted row by row where asked.
#[derive(Clone, Copy, Debug)]
pub struct RowLoss {
    /// The student's side, `[R, V]`.
    pub x: View,
    /// What it is held against.
    pub target: Target,
    /// Factor of the gradient: weight of the term over the count of the whole optimiser step.
    pub scale: f64,
    /// Factor of each row's gradient besides `scale`, `[R, 1]`; a constant, whatever it was made
    /// from. A row of weight exactly 0 leaves the gradient as it is, even where its own is not
    /// finite.
    pub weights: Option<View>,
    /// Loss of each row, `[R, 1]`, written, without `scale` and `weights`.
    pub losses: View,
    /// Gradient of `x`, `[R, V]`, *added to*; `None` where only the value is wanted.
    pub dx: Option<View>,
}

/// How two relations are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationMeasure {
    /// `KL(softmax(teacher scores) ‖ softmax(student scores))` per row (MiniLM; Wang et al. 2020,
    /// arXiv:2002.10957, and MiniLMv2, arXiv:2012.15828).
    Kl,
    /// Mean squared difference of the scores before the softmax (TinyBERT; Jiao et al. 2020,
    /// arXiv:1909.10351).
    ScoresMse,
}

/// Relations between the tokens of each sequence, student against teacher.
///
/// Scores of relation head `r`: `a_r · b_rᵀ / √d_r`, where `a_r` are the columns of `a` that belong
/// to the head. The loss of a token's row is the mean over heads. With `a = b` it is MiniLMv2's
/// query–query, key–key or value–value relation, with queries and keys the attention itself.
#[derive(Clone, Copy, Debug)]
pub struct Relation {
    /// Student's left side, `[N, Cₛ]`.
    pub a: View,
    /// Student's right side, `[N, Cₛ]`.
    pub b: View,
    /// Teacher's left side, `[N, Cₜ]`.
    pub teacher_a: View,
    /// Teacher's right side, `[N, Cₜ]`.
    pub teacher_b: View,
    /// Relation heads; they divide both widths.
    pub heads: usize,
    /// First row of each sequence, and N at the end.
    pub starts: Ids,
    /// Rows of the longest sequence.
    pub longest: usize,
    /// How the two are compared.
    pub measure: RelationMeasure,
    /// Factor of the gradient.
    pub scale: f64,
    /// Loss of each token's row, `[N, 1]`, written.
    pub losses: View,
    /// Gradients of `a` and `b`, `[N, Cₛ]`, added to. They may be the same view.
    pub gradients: Option<(View, View)>,
}

/// A run of the flat buffer that an optimiser moves in one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// First number.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// Decoupled decay: `w ← w − lr · weight_decay · w`.
    pub weight_decay: f64,
    /// Factor of the learning rate, here and in the decay.
    pub rate: f64,
    /// Steps of the optimiser before the first of this run of numbers: its moments were zero then, and
    /// the t that corrects them is the optimiser's less this.
    pub since: u64,
}

impl Span {
    /// A run that is moved from the optimiser's first step, at its learning rate.
    pub fn new(start: usize, end: usize, weight_decay: f64) -> Self {
        Self { start, end, weight_decay, rate: 1.0, since: 0 }
    }

    /// The optimiser's move as this run takes it.
    ///
    /// # Panics
    /// Where the run does not move yet.
    pub fn of(&self, at: Move) -> Move {
        assert!(at.step > self.since, "step {} of a run that moves after {}", at.step, self.since);
        let (step, learning_rate) = (at.step - self.since, at.learning_rate * self.rate);
        Move { step, learning_rate, ..at }
    }

    /// Numbers in it.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether it holds no number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One step of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), which also clears the gradient.
///
/// `w ← w − lr·λ·w − lr · (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)`, with `g` scaled by `gradient_scale`
/// before it enters `m` and `v`; `lr` and `t` as each [`Span`] has them.
#[derive(Clone, Copy, Debug)]
pub struct AdamW<'a> {
    /// Weights, gradient, first and second moment: four twins.
    pub spaces: [Space; 4],
    /// Runs of the buffers and their decay.
    pub spans: &'a [Span],
    /// Learning rate.
    pub learning_rate: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
    /// t, from 1.
    pub step: u64,
    /// Factor of the gradient (clipping).
    pub gradient_scale: f64,
}

/// What AdamW multiplies by at one step: the same for every number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Move {
    /// t, from 1.
    pub step: u64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Factor of the gradient (clipping).
    pub gradient_scale: f64,
}

/// The AdamW of a table of which a step sees few rows: takes rows through all steps that they have
/// missed, exactly as [`AdamW`] would have with a gradient of zero, bit for bit.
///
/// Moments fade and weights move on also where there is no gradient, so a row cannot be left out;
/// but nobody looks at it until it is looked up again. What it missed then needs arithmetic only,
/// where a pass over the whole table at every step needs memory's bandwidth.
#[derive(Clone, Copy, Debug)]
pub struct AdamWRows<'a> {
    /// The table's weights, gradient, first and second moment: four twins, `[V, C]`.
    pub tables: [View; 4],
    /// Rows to take along, each once; `None` for all.
    pub rows: Option<Ids>,
    /// The step each row has reached, `[V]`: read, and set to the last of `moves`.
    pub reached: Ids,
    /// Consecutive steps. None that a row has missed may come before the first.
    pub moves: &'a [Move],
    /// Whether the gradient of `rows` is that of the last move, and is to be cleared; otherwise no
    /// move has one.
    pub has_gradient: bool,
    /// Decoupled decay.
    pub weight_decay: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
}

impl AdamWRows<'_> {
    /// Moves that a row has missed which had reached `reached`.
    ///
    /// # Panics
    /// Where one of them is not there.
    pub(crate) fn missed(&self, reached: u32) -> std::ops::Range<usize> {
        let Some(first) = self.moves.first() else { return 0..0 };
        let next = u64::from(reached) + 1;
        assert!(first.step <= next, "step {next} of a row, of moves from {}", first.step);
        ((next - first.step) as usize).min(self.moves.len())..self.moves.len()
    }
}

/// An optimiser's rule, as far as one step is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// `w ← w − lr · g`.
    Sgd {
        /// Learning rate.
        learning_rate: f64,
    },
    /// As [`AdamW`] moves.
    AdamW {
        /// β₁.
        beta1: f64,
        /// β₂.
        beta2: f64,
        /// ε.
        epsilon: f64,
        /// Where it is.
        at: Move,
    },
}

impl Update {
    /// The same as a run of numbers takes it.
    pub(crate) fn of(self, span: &Span) -> Self {
        match self {
            Self::Sgd { learning_rate } => Self::Sgd { learning_rate: learning_rate * span.rate },
            Self::AdamW { beta1, beta2, epsilon, at } => {
                Self::AdamW { beta1, beta2, epsilon, at: span.of(at) }
            }
        }
    }
}

/// A step taken on trial: moves the weights as [`Update`] says; gradient and moments stay.
#[derive(Clone, Copy, Debug)]
pub struct Ahead<'a> {
    /// Weights, gradient, first and second moment: four twins.
    pub spaces: [Space; 4],
    /// Runs of the buffers and their decay.
    pub spans: &'a [Span],
    /// The rule.
    pub update: Update,
}

/// How far a step's weights follow its gradient: `d ← d ∘ ∂w′/∂g`, number by number, with `w′` what
/// [`Ahead`] makes of `w`.
///
/// A number with neither gradient nor second moment would move by the sign of the least gradient;
/// that slope, 1/ε, says nothing of a real step, and counts as 0.
#[derive(Clone, Copy, Debug)]
pub struct Slope<'a> {
    /// What is multiplied: a twin of the weights.
    pub direction: Space,
    /// The gradient of the step; `None` for zero.
    pub gradient: Option<Space>,
    /// First and second moment before the step.
    pub moments: [Space; 2],
    /// Runs of the buffers.
    pub spans: &'a [Span],
    /// The rule.
    pub update: Update,
}

/// What an implementation of the numerics offers. One caller at a time; all shapes are checked at
/// entry and a mismatch is a panic, since shapes are decided by the plan and not by data.
pub trait Device {
    /// A space of `len` zeros.
    fn alloc(&mut self, len: usize) -> Space;
    /// Makes a space `len` numbers long; its contents become zeros.
    fn resize(&mut self, space: Space, len: usize);
    /// A space of `len` indices.
    fn alloc_ids(&mut self, len: usize) -> IdSpace;
    /// Bytes held by all spaces.
    fn bytes(&self) -> u64;
    /// Floating-point operations of the products computed so far, and of optimisers: `2 N I O` for a
    /// linear layer and for each of its gradients, `4 H D` forward and `10 H D` backward for each pair
    /// of a query and a key, 16 for a number that AdamW moves by a gradient. They depend on shapes
    /// alone.
    fn operations(&self) -> u64;
    /// Rounds the factors of linear layers to `precision` from now on; what it was is given back, to be
    /// set again. For products that are not a model's, and must not lose its weights' digits.
    fn set_precision(&mut self, precision: Precision) -> Precision;

    /// Copies `values` into a view.
    fn write(&mut self, to: View, values: &[f32]);
    /// Copies a view out.
    fn read(&self, from: View) -> Vec<f32>;
    /// As [`Device::write`], in double precision where the device has it.
    fn write_f64(&mut self, to: View, values: &[f64]);
    /// As [`Device::read`], in double precision where the device has it.
    fn read_f64(&self, from: View) -> Vec<f64>;
    /// Copies indices in.
    fn write_ids(&mut self, to: Ids, values: &[u32]);
    /// Sets every number of a view.
    fn fill(&mut self, to: View, value: f32);
    /// Copies one view to another of the same shape.
    fn copy(&mut self, from: View, to: View);
    /// `to ← to + scale · from`.
    fn add_scaled(&mut self, scale: f64, from: View, to: View);
    /// `to ← to + weight · (from − to)`: linear interpolation, from `to` at 0 to `from` at 1. Numbers
    /// that are equal stay as they are, to the bit.
    fn lerp(&mut self, weight: f64, from: View, to: View);
    /// `view ← scale · view`.
    fn scale(&mut self, scale: f64, view: View);
    /// Sum of a view, in double precision and in an order that depends on the shape alone.
    fn sum(&self, view: View) -> f64;
    /// Sum of squares, likewise.
    fn sum_of_squares(&self, view: View) -> f64;
    /// Sum of squares of some rows, in their order.
    fn sum_of_squares_of_rows(&self, view: View, rows: Ids) -> f64;

    /// `out[n] = Σ table[ids[n]]` over pairs of table and indices; one pair gathers rows.
    fn embed(&mut self, tables: &[(View, Ids)], out: View);
    /// `table[ids[n]] = from[n]`; each row at most once.
    fn set_rows(&mut self, from: View, table: View, ids: Ids);
    /// `table[ids[n]] = 0`.
    fn clear_rows(&mut self, table: View, ids: Ids);
    /// `to[n][c] = from[n][columns[c]]`, and −∞ where `columns[c]` is [`IGNORED`]: logits over one
    /// vocabulary as logits over another, `[N, Vₜ] → [N, V]`.
    fn pick_columns(&mut self, from: View, columns: Ids, to: View);
    /// `x[n][c] = −∞` where `columns[c]` is [`IGNORED`].
    fn forbid_columns(&mut self, x: View, columns: Ids);
    /// `d_table[ids[n]] += d_out[n]` for each pair.
    fn embed_backward(&mut self, d_out: View, tables: &[(View, Ids)]);
    /// See [`Linear`].
    fn linear(&mut self, op: &Linear);
    /// See [`LinearBackward`].
    fn linear_backward(&mut self, op: &LinearBackward);
    /// `dx = dy · f′(x)`; `dx` may be `dy` itself.
    fn activation_backward(&mut self, f: Activation, x: View, dy: View, dx: View);
    /// See [`AddNorm`].
    fn add_norm(&mut self, op: &AddNorm);
    /// See [`AddNormBackward`].
    fn add_norm_backward(&mut self, op: &AddNormBackward);
    /// Applies dropout in place. It is its own backward pass.
    fn dropout(&mut self, op: &Dropout, x: View);
    /// See [`Attention`].
    fn attention(&mut self, op: &Attention);
    /// See [`AttentionBackward`].
    fn attention_backward(&mut self, op: &AttentionBackward);
    /// See [`CachedAttention`].
    fn cached_attention(&mut self, op: &CachedAttention);
    /// See [`RmsNorm`].
    fn rms_norm(&mut self, op: &RmsNorm);
    /// See [`RmsNormBackward`].
    fn rms_norm_backward(&mut self, op: &RmsNormBackward);
    /// See [`RotaryAngles`].
    fn rotary_angles(&mut self, op: &RotaryAngles);
    /// See [`Rotary`].
    fn rotary(&mut self, op: &Rotary);
    /// See [`Gate`].
    fn gate(&mut self, op: &Gate);
    /// See [`GateBackward`].
    fn gate_backward(&mut self, op: &GateBackward);
    /// Mean over the rows of each sequence: `[N, C] → [S, C]`.
    fn mean_rows(&mut self, x: View, starts: Ids, y: View);
    /// Gradient of [`Device::mean_rows`]; `dx` is written.
    fn mean_rows_backward(&mut self, dy: View, starts: Ids, dx: View);

    /// See [`RowLoss`].
    fn row_loss(&mut self, op: &RowLoss);
    /// See [`Relation`].
    fn relation(&mut self, op: &Relation);
    /// See [`AdamW`].
    fn adamw(&mut self, op: &AdamW<'_>);
    /// See [`AdamWRows`].
    fn adamw_rows(&mut self, op: &AdamWRows<'_>);
    /// See [`Ahead`].
    fn step_ahead(&mut self, op: &Ahead<'_>);
    /// See [`Slope`].
    fn slope(&mut self, op: &Slope<'_>);
}
