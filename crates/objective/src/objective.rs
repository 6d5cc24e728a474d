//! An objective: weighted terms, every term reported apart.

use std::ops::Range;

use heirloom_base::{Bytes, Nats};
use heirloom_engine::{
    ArenaPlan, Device, HiddenDistance, Init, Params, ParamsBuilder, Reference, Role, RowLoss,
    Space, Target, View,
};
use heirloom_models::{Capacity, EncoderConfig, Taps};

use crate::{
    Counts, HiddenTerm, Insides, LabelLoss, Regularized, RelationTerm, Rows, Signals, TeacherTerm,
};

/// What one term measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TermKind {
    /// The output against the labels.
    Label(LabelLoss),
    /// The output's distribution against the teacher's, by a divergence.
    Teacher(TeacherTerm),
    /// The output's numbers against the teacher's, by squared difference: scores, which have no
    /// distribution, and the logits of labels that do not exclude one another, whose softmax says
    /// nothing of their size (Ba & Caruana 2014, arXiv:1312.6184).
    TeacherNumbers,
    /// A hidden state against the teacher's.
    Hidden(HiddenTerm),
    /// Relations between tokens against the teacher's.
    Relation(RelationTerm),
}

/// A term and its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// How records call it: `label`, `teacher`, `hidden[0]`, …
    pub name: String,
    /// Factor of its mean in the total.
    pub weight: f64,
    /// What it measures.
    pub kind: TermKind,
}

/// What one micro-batch, or several together, came to: one sum with count per term.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    terms: Vec<Nats>,
    /// The same sums with the weights of their rows.
    weighted: Vec<f64>,
}

impl Parts {
    /// Room for the sums of `terms` terms.
    pub(crate) fn with_capacity(terms: usize) -> Self {
        Self { terms: Vec::with_capacity(terms), weighted: Vec::with_capacity(terms) }
    }

    /// The next term's sum, and the same with the weights of its rows.
    pub(crate) fn push(&mut self, sum: Nats, weighted: f64) {
        self.terms.push(sum);
        self.weighted.push(weighted);
    }

    /// Weighted means of the terms, whose weights are given; one that counted nothing adds nothing.
    pub(crate) fn total(&self, weights: impl Iterator<Item = f64>) -> f64 {
        let terms = weights.zip(&self.terms).zip(&self.weighted);
        let weighted = terms.map(|((weight, nats), sum)| {
            let count = nats.count();
            if count == 0 { 0.0 } else { weight * sum / count as f64 }
        });
        weighted.sum()
    }

    /// Puts the sums of `others` behind these: those of one objective's terms behind another's.
    #[must_use]
    pub fn followed_by(mut self, others: &Self) -> Self {
        self.terms.extend_from_slice(&others.terms);
        self.weighted.extend_from_slice(&others.weighted);
        self
    }

    /// The sums without those of the first `count` terms.
    #[must_use]
    pub fn after(&self, count: usize) -> Self {
        let part = count.min(self.terms.len());
        Self { terms: self.terms[part..].to_vec(), weighted: self.weighted[part..].to_vec() }
    }

    /// Adds another micro-batch's.
    pub fn add(&mut self, other: &Self) {
        self.terms.resize(self.terms.len().max(other.terms.len()), Nats::default());
        self.terms.iter_mut().zip(&other.terms).for_each(|(sum, &part)| *sum += part);
        self.weighted.resize(self.terms.len(), 0.0);
        self.weighted.iter_mut().zip(&other.weighted).for_each(|(sum, &part)| *sum += part);
    }

    /// The sums, in the order of the objective's terms, without the weights of rows.
    pub fn terms(&self) -> &[Nats] {
        &self.terms
    }
}

/// Scratch planned once: losses per row, gathered and projected states and their gradients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scratch {
    pub(crate) losses: View,
    pub(crate) student: Block,
    pub(crate) teacher: Block,
    pub(crate) projected: Block,
    pub(crate) d_projected: Block,
    pub(crate) d_student: Block,
}

/// A slot that serves matrices of different widths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block(View);

impl Block {
    /// The first `rows · cols` numbers as `[rows, cols]`.
    pub(crate) fn reshaped_rows(self, rows: usize, cols: usize) -> View {
        assert!(rows * cols <= self.0.len(), "[{rows}, {cols}] in a slot of {}", self.0.len());
        View::matrix(self.0.space(), self.0.offset(), rows, cols)
    }
}

impl Scratch {
    /// Room for batches up to `capacity`; the terms' projections are laid out already.
    fn plan(
        plan: &mut ArenaPlan,
        terms: &[Term],
        [student_width, teacher_width]: [usize; 2],
        capacity: Capacity,
    ) -> Self {
        let rows = capacity.tokens.max(capacity.sequences).max(capacity.masked);
        let hidden = |wanted: &dyn Fn(&HiddenTerm) -> bool| {
            let any =
                terms.iter().any(|term| matches!(&term.kind, TermKind::Hidden(h) if wanted(h)));
            if any { capacity.tokens } else { 0 }
        };
        let first = |term: &HiddenTerm| term.rows == Rows::First;
        let through = |term: &HiddenTerm| first(term) || term.projection.is_some();
        let (gathered, through) = (hidden(&first), hidden(&through));
        let width = student_width.max(teacher_width);
        Self {
            losses: plan.take(rows, 1),
            student: Block(plan.take(gathered, student_width)),
            teacher: Block(plan.take(gathered, teacher_width)),
            projected: Block(plan.take(through, width)),
            d_projected: Block(plan.take(through, width)),
            d_student: Block(plan.take(through, width)),
        }
    }
}

/// Weighted terms, and the parameters that some of them learn.
#[derive(Debug)]
pub struct Objective {
    terms: Vec<Term>,
    /// For each term, which teacher it compares outputs with; 0 where it does not.
    teachers: Vec<usize>,
    params: Params,
    scratch: Scratch,
}

impl Objective {
    /// Plans scratch for batches up to `capacity`, and lays out a projection `[Cₜ, Cₛ]` for each
    /// hidden term that asks for one by `projected`. `teacher` is `None` where no term needs it.
    pub fn new(
        device: &mut dyn Device,
        terms: Vec<Term>,
        projected: &[bool],
        student: &EncoderConfig,
        teacher: Option<&EncoderConfig>,
        capacity: Capacity,
    ) -> Self {
        let widths = [student.hidden_size, teacher.map_or(0, |teacher| teacher.hidden_size)];
        Self::of_widths(device, terms, projected, widths, capacity)
    }

    /// The same for models of any kind, of which only the widths of the hidden states count, the
    /// student's and the teacher's.
    pub fn of_widths(
        device: &mut dyn Device,
        mut terms: Vec<Term>,
        projected: &[bool],
        [student_width, teacher_width]: [usize; 2],
        capacity: Capacity,
    ) -> Self {
        let mut builder = ParamsBuilder::new(device);
        for (term, &projected) in terms.iter_mut().zip(projected) {
            if let (TermKind::Hidden(hidden), true) = (&mut term.kind, projected) {
                let name = format!("projection.{}.weight", term.name);
                let shape = [teacher_width, student_width];
                // Keeps the size of a unit-variance state.
                let init = Init::Normal((1.0 / student_width as f64).sqrt());
                hidden.projection = Some(builder.add(&name, &shape, Role::Weight, init));
            }
        }
        let params = builder.finish(device);
        let space = device.alloc(0);
        let mut plan = ArenaPlan::new(space);
        let scratch = Scratch::plan(&mut plan, &terms, [student_width, teacher_width], capacity);
        device.resize(space, plan.peak());
        let teachers = vec![0; terms.len()];
        Self { terms, teachers, params, scratch }
    }

    /// Memory that [`Objective::of_widths`] asks for, projections apart, in `f32`.
    pub fn scratch_bytes(
        terms: &[Term],
        projected: &[bool],
        widths: [usize; 2],
        capacity: Capacity,
    ) -> Bytes {
        let nowhere = Reference::<f32>::new().alloc(0);
        let mut plan = ArenaPlan::new(nowhere);
        let mut terms = terms.to_vec();
        for (term, &projected) in terms.iter_mut().zip(projected) {
            if let (TermKind::Hidden(hidden), true) = (&mut term.kind, projected) {
                // That there is one is all that counts here.
                hidden.projection = Some(View::matrix(nowhere, 0, widths[1], widths[0]));
            }
        }
        Scratch::plan(&mut plan, &terms, widths, capacity);
        Bytes((plan.peak() * size_of::<f32>()) as u64)
    }

    /// For several teachers: the terms that compare with a teacher's outputs are of the first one,
    /// the second, and so on, in their order. Without it all are of the first.
    #[must_use]
    pub fn with_a_teacher_each(self) -> Self {
        let teachers = teachers_of(&self.terms);
        Self { teachers, ..self }
    }

    /// The terms.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Learned projections; empty where there is none.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Where the student's inside gets a gradient.
    pub fn taps(terms: &[Term]) -> Taps {
        let mut taps = Taps::default();
        for term in terms {
            match &term.kind {
                TermKind::Hidden(term) => _ = taps.hidden.insert(term.student),
                TermKind::Relation(term) => _ = taps.qkv.insert(term.student),
                TermKind::Label(_) | TermKind::Teacher(_) | TermKind::TeacherNumbers => (),
            }
        }
        taps
    }

    /// Whether a term looks at the teacher's inside.
    pub fn looks_inside(terms: &[Term]) -> bool {
        terms.iter().any(|term| matches!(term.kind, TermKind::Hidden(_) | TermKind::Relation(_)))
    }

    /// Sums of one micro-batch. Where `signals.d_output` is given, adds to it and to the taps the
    /// gradient of the *whole step's* loss: each term's weight over its count in `step`.
    /// `projection_grads` is the gradient space of [`Objective::params`].
    pub fn evaluate(
        &self,
        device: &mut dyn Device,
        signals: &Signals<'_>,
        step: Counts,
        projection_grads: Option<Space>,
    ) -> Parts {
        self.evaluate_some(device, signals, step, projection_grads, 0..self.terms.len())
    }

    /// As [`Objective::evaluate`], for the terms of `places` alone.
    pub fn evaluate_some(
        &self,
        device: &mut dyn Device,
        signals: &Signals<'_>,
        step: Counts,
        projection_grads: Option<Space>,
        places: Range<usize>,
    ) -> Parts {
        let mut parts = Parts::with_capacity(places.len());
        for place in places {
            let term = &self.terms[place];
            let count = self.count(term, step);
            // A step without a single counted item has loss zero and gradient zero, not 0/0.
            let scale = if count == 0 { 0.0 } else { term.weight / count as f64 };
            let (losses, weights) = self.losses(device, signals, place, scale, projection_grads);
            let sum = device.sum(losses);
            let here = Counts {
                labelled: signals.labelled,
                sequences: signals.batch.sequences() as u64,
                tokens: signals.batch.tokens() as u64,
            };
            let weighted = weights.map_or(sum, |weights| weighted_sum(device, losses, weights).1);
            parts.push(Nats::of(sum, self.count(term, here)), weighted);
        }
        parts
    }

    /// Sums of one micro-batch of the terms on what is inside, which are to be all there are: for
    /// models whose outputs belong to other losses. Where `learns`, the gradient of the whole step's
    /// loss is added to the taps, and to `projection_grads`.
    ///
    /// # Panics
    /// Where a term looks at outputs.
    pub fn evaluate_inside(
        &self,
        device: &mut dyn Device,
        insides: &Insides<'_>,
        step: Counts,
        (learns, projection_grads): (bool, Option<Space>),
    ) -> Parts {
        let here = Counts {
            labelled: 0,
            sequences: insides.batch.sequences() as u64,
            tokens: insides.batch.tokens() as u64,
        };
        let mut parts = Parts::with_capacity(self.terms.len());
        for term in &self.terms {
            let count = self.count(term, step);
            let scale = if count == 0 { 0.0 } else { term.weight / count as f64 };
            let scale = learns.then_some(scale);
            let scratch = &self.scratch;
            let losses = match &term.kind {
                TermKind::Hidden(hidden) => {
                    hidden.losses(device, insides, scratch, projection_grads, scale)
                }
                TermKind::Relation(relation) => relation.losses(device, insides, scratch, scale),
                _ => panic!("the term `{}` is one on outputs", term.name),
            };
            let sum = device.sum(losses);
            parts.push(Nats::of(sum, self.count(term, here)), sum);
        }
        parts
    }

    /// What each row is in fact taught by all terms on the output, labels and teachers together,
    /// `[R, K]`: `q = softmax(output) − ∂L/∂output`, with `L` the row's own sum of those terms with
    /// their weights. Where `L` ignores a constant in the logits, as all terms on distributions do,
    /// `CE(q, ·)` with `q` held constant has `L`'s gradient, whatever `L` is; entries below 0 or above
    /// 1 say that it is no label regularizer in the narrow sense.
    ///
    /// `signals.d_output` is room for this; it is empty afterwards.
    ///
    /// # Panics
    /// Without that room.
    pub fn effective_targets(&self, device: &mut dyn Device, signals: &Signals<'_>) -> Vec<f64> {
        let room = signals.d_output.expect("room for the gradient of the output");
        device.fill(room, 0.0);
        // Means over one row: each row's own losses.
        let one = Counts { labelled: 1, sequences: 1, tokens: 1 };
        for (place, term) in self.terms.iter().enumerate() {
            if !matches!(term.kind, TermKind::Hidden(_) | TermKind::Relation(_)) {
                self.evaluate_some(device, signals, one, None, place..place + 1);
            }
        }
        let gradient = device.read_f64(room);
        device.fill(room, 0.0);
        let logits = device.read_f64(signals.output);
        let rows = logits.chunks(room.cols()).zip(gradient.chunks(room.cols()));
        rows.flat_map(|(logits, gradient)| {
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = logits.iter().map(|z| (z - largest).exp()).collect();
            let total: f64 = powers.iter().sum();
            let taught = powers.into_iter().zip(gradient).map(move |(s, d)| s / total - d);
            taught.collect::<Vec<_>>()
        })
        .collect()
    }

    /// Losses of each row of the term at `place`, `[R, 1]`, without weights and without a gradient.
    /// They stay until the next term is computed.
    pub fn row_losses(&self, device: &mut dyn Device, signals: &Signals<'_>, place: usize) -> View {
        let signals = Signals { d_output: None, ..*signals };
        self.losses(device, &signals, place, 0.0, None).0
    }

    /// Losses of the rows of the term at `place`, and their weights where they have any.
    fn losses(
        &self,
        device: &mut dyn Device,
        signals: &Signals<'_>,
        place: usize,
        scale: f64,
        projection_grads: Option<Space>,
    ) -> (View, Option<View>) {
        let (term, teacher) = (&self.terms[place], self.teachers[place]);
        let scale_inside = signals.d_output.map(|_| scale);
        let balance = signals.balance;
        let (target, weights) = match &term.kind {
            TermKind::Label(loss) => {
                let target = match signals.regularized {
                    Some(Regularized { losses, gradients }) => Target::Given { losses, gradients },
                    None => loss.target(signals.labels),
                };
                (target, balance.map(|balance| balance.label))
            }
            TermKind::Teacher(wanted) => {
                let temperature = balance.and_then(|balance| balance.temperature);
                let wanted = TeacherTerm {
                    temperature: temperature.unwrap_or(wanted.temperature),
                    ..*wanted
                };
                let target = wanted.target(signals.teacher_logits(teacher), signals.labels);
                (target, signals.teacher_weights(teacher))
            }
            TermKind::TeacherNumbers => {
                let distance = HiddenDistance::MeanSquared;
                let target = Target::Distance(distance, signals.teacher_logits(teacher));
                (target, signals.teacher_weights(teacher))
            }
            TermKind::Hidden(hidden) => {
                let (scratch, grads) = (&self.scratch, projection_grads);
                let insides = Insides::of(signals);
                return (hidden.losses(device, &insides, scratch, grads, scale_inside), None);
            }
            TermKind::Relation(relation) => {
                let insides = Insides::of(signals);
                return (relation.losses(device, &insides, &self.scratch, scale_inside), None);
            }
        };
        let losses = self.scratch.losses.first_rows(signals.output.rows());
        let (x, dx) = (signals.output, signals.d_output);
        device.row_loss(&RowLoss { x, target, scale, weights, losses, dx });
        (losses, weights)
    }

    /// The total of a finished step: weighted means of the terms; a term that counted nothing
    /// adds nothing.
    pub fn total(&self, parts: &Parts) -> f64 {
        parts.total(self.terms.iter().map(|term| term.weight))
    }

    fn count(&self, term: &Term, counts: Counts) -> u64 {
        match &term.kind {
            TermKind::Label(_) => counts.labelled,
            TermKind::Teacher(_) | TermKind::TeacherNumbers => counts.sequences,
            TermKind::Hidden(HiddenTerm { rows: Rows::First, .. }) => counts.sequences,
            TermKind::Hidden(_) | TermKind::Relation(_) => counts.tokens,
        }
    }
}

/// Which teacher each term compares outputs with, where each has a term of its own.
fn teachers_of(terms: &[Term]) -> Vec<usize> {
    let mut next = 0;
    let of = |term: &Term| match &term.kind {
        TermKind::Teacher(_) | TermKind::TeacherNumbers => {
            next += 1;
            next - 1
        }
        _ => 0,
    };
    terms.iter().map(of).collect()
}

/// `Σ losses` over the rows that have a weight, and `Σ weights ∘ losses`; a weight of zero takes no
/// part, whatever the loss.
pub(crate) fn weighted_sum(device: &dyn Device, losses: View, weights: View) -> (f64, f64) {
    let pairs = device.read_f64(losses).into_iter().zip(device.read_f64(weights));
    let counted = pairs.filter(|(_, weight)| *weight != 0.0);
    counted
        .fold((0.0, 0.0), |(sum, weighted), (loss, weight)| (sum + loss, weighted + loss * weight))
}
