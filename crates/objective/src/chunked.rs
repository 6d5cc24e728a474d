//! The head of a language model together with the losses on its logits, some rows at a time: no
//! matrix of every token's logits is ever there.
//!
//! For each chunk of rows: `z = h Wᵀ`, the losses of the rows of `z`, their gradient `dz`, then
//! `dh = dz W` and `dW += dzᵀ h`; the next chunk takes the same memory. The losses of a row look at
//! no other row, its `dh` neither, and `dW` is a sum over rows, so the whole is that of one chunk up
//! to the order of that sum. No product is computed twice.

use std::ops::Range;

use heirloom_base::{Bytes, Nats};
use heirloom_engine::{
    ArenaPlan, Device, Ids, Linear, LinearBackward, Reference, RowLoss, Target, View,
};

use crate::objective::{Parts, weighted_sum};
use crate::{
    KnownTokens, LabelLoss, Labels, SortedTerm, SparseTerm, TeacherTerm, TeacherVocabulary,
    Weighing,
};

/// Memory for logits where nobody says otherwise. A vocabulary of 152,064 then has chunks of 126 rows
/// with the logits of student and teacher and the gradient: enough that reading the head's matrix
/// for each chunk costs little beside the products.
pub const LOGITS_BUDGET: Bytes = Bytes(256 << 20);

/// Rows of a chunk come in multiples of this, which a product's tiles, of 6 or 14 rows by the width of
/// the registers, fill without a remainder.
const BAND: usize = 42;

/// One loss on the logits of every token, and its weight in the total.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenTerm {
    /// Factor of its mean.
    pub weight: f64,
    /// What it measures.
    pub loss: TokenLoss,
}

/// What the logits of a token are held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenLoss {
    /// The next token: cross-entropy.
    Label,
    /// The next token with the label softened: smoothing, or LABO ([`Target::Softened`]).
    Softened {
        /// What the second part has, `0.0..=1.0`.
        share: f64,
        /// T, at least 1; ∞ spreads the share evenly.
        temperature: f64,
    },
    /// Whether the next token is another than the likeliest, 0 or 1; a measure, without a gradient
    /// ([`Target::Misses`]).
    Misses,
    /// The teacher's distribution over the next token.
    Teacher(TeacherTerm),
    /// The same, of which few tokens are known.
    Known(SparseTerm),
    /// The teacher's probabilities by their size, whatever its vocabulary.
    Sorted(SortedTerm),
}

/// Where the teacher's answers come from.
#[derive(Clone, Copy, Debug)]
pub enum TeacherTokens {
    /// They are there, `[N, V]`, or `[N, Vₜ]` where the teacher's vocabulary is another
    /// ([`ChunkedHead::between`]); −∞ forbids a token.
    Logits(View),
    /// They are computed beside the student's. Where the teacher's vocabulary is padded further
    /// than the student's, the first V rows of its matrix are the ones to give.
    States {
        /// Its last hidden states, after the last norm, `[N, Cₜ]`.
        states: View,
        /// Its head's matrix, `[V, Cₜ]` or `[Vₜ, Cₜ]`, likewise.
        head: View,
    },
    /// They were kept, some tokens of each: for [`TokenLoss::Known`], as logits are for
    /// [`TokenLoss::Teacher`]. No logits of the teacher exist.
    Known(KnownTokens),
}

/// How many tokens count: of a micro-batch, or of the whole optimiser step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// With a label.
    pub labelled: u64,
    /// Held against the teacher.
    pub taught: u64,
}

/// Where the gradients go.
#[derive(Clone, Copy, Debug)]
pub struct TokenGradients {
    /// Of the hidden states, `[N, C]`, written.
    pub d_states: View,
    /// Of the head's matrix, `[V, C]`, added to: the gradient of the word embeddings where the two
    /// are tied. `None` for a head that is not trained.
    pub d_head: Option<View>,
}

/// Everything about one micro-batch of N tokens.
#[derive(Clone, Copy, Debug)]
pub struct TokenSignals {
    /// The student's last hidden states, after the last norm, `[N, C]`.
    pub states: View,
    /// Its head's matrix, `[V, C]`.
    pub head: View,
    /// The token that follows each, or [`heirloom_engine::IGNORED`], `[N]`.
    pub labels: Ids,
    /// The teacher, where a term needs it.
    pub teacher: Option<TeacherTokens>,
    /// Weights of the labels' losses, `[N, 1]`; constants of the step.
    pub label_weights: Option<View>,
    /// Weights of the teacher's losses, `[N, 1]`, likewise. A row of weight 0 is masked: it takes no
    /// part, whatever its loss. (A row without a label has a divergence all the same: a text's last
    /// token has no next one, but the teacher has a guess.)
    pub teacher_weights: Option<View>,
    /// How many of the rows count.
    pub counts: TokenCounts,
    /// Where the gradients go; `None` where only the loss is wanted.
    pub gradients: Option<TokenGradients>,
}

/// What a chunked head is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlan {
    /// Most tokens of a micro-batch, N.
    pub tokens: usize,
    /// V.
    pub vocabulary: usize,
    /// Whether the teacher's logits are computed here ([`TeacherTokens::States`]).
    pub computes_teacher: bool,
    /// Whether there are gradients.
    pub train: bool,
    /// Memory for logits, of `f32`; see [`LOGITS_BUDGET`]. Less than a row needs is one row.
    pub budget: Bytes,
}

impl ChunkPlan {
    /// Rows of a chunk: as many as the budget holds, a multiple of 42 where it holds that many, at
    /// least one, at most N.
    pub fn rows(&self) -> usize {
        self.rows_beside(None)
    }

    /// As [`ChunkPlan::rows`], beside a teacher of another vocabulary.
    fn rows_beside(&self, other: Option<TeacherVocabulary>) -> usize {
        let row = (self.row(other) * size_of::<f32>()).max(1) as u64;
        let held = usize::try_from(self.budget.0 / row).unwrap_or(usize::MAX);
        if held >= self.tokens {
            return self.tokens;
        }
        let whole = held - held % BAND;
        if whole > 0 { whole } else { held.max(1) }
    }

    /// Memory that [`ChunkedHead::new`] asks for with `terms` losses, in `f32`:
    /// `4 · (matrices · rows · V + terms · N)` bytes, each slot rounded up to a line of 64.
    pub fn bytes_needed(&self, terms: usize) -> Bytes {
        self.bytes_beside(terms, None)
    }

    /// As [`ChunkPlan::bytes_needed`], for [`ChunkedHead::between`]. Where tokens are shared, there
    /// is one matrix `[rows, V]` more.
    pub fn bytes_needed_between(&self, terms: usize, other: TeacherVocabulary) -> Bytes {
        self.bytes_beside(terms, Some(other))
    }

    fn bytes_beside(&self, terms: usize, other: Option<TeacherVocabulary>) -> Bytes {
        let mut plan = ArenaPlan::new(Reference::<f32>::new().alloc(0));
        Scratch::plan(&mut plan, self, terms, other);
        Bytes((plan.peak() * size_of::<f32>()) as u64)
    }

    /// Numbers for a row: the student's logits, and where needed the teacher's, these by the
    /// student's tokens, and the gradient.
    fn row(&self, other: Option<TeacherVocabulary>) -> usize {
        let shared = other.is_some_and(|other| other.shared.is_some());
        let own = 1 + usize::from(shared) + usize::from(self.train);
        let teacher = other.map_or(self.vocabulary, |other| other.size);
        own * self.vocabulary + usize::from(self.computes_teacher) * teacher
    }
}

/// Slots of one chunk, and the losses of all rows.
#[derive(Clone, Copy, Debug)]
struct Scratch {
    logits: View,
    teacher: Option<View>,
    /// The teacher's logits in the places of the student's tokens.
    placed: Option<View>,
    d_logits: Option<View>,
    /// Of each term, one below the other, `[terms · N, 1]`.
    losses: View,
}

impl Scratch {
    fn plan(
        plan: &mut ArenaPlan,
        chunk: &ChunkPlan,
        terms: usize,
        other: Option<TeacherVocabulary>,
    ) -> Self {
        let (rows, own) = (chunk.rows_beside(other), chunk.vocabulary);
        let teacher = other.map_or(own, |other| other.size);
        let shared = other.is_some_and(|other| other.shared.is_some());
        let mut matrix = |columns| plan.take(rows, columns);
        Self {
            logits: matrix(own),
            teacher: chunk.computes_teacher.then(|| matrix(teacher)),
            placed: shared.then(|| matrix(own)),
            d_logits: chunk.train.then(|| matrix(own)),
            losses: plan.take(terms * chunk.tokens, 1),
        }
    }
}

/// A language model's head with its losses, and memory for one chunk of rows.
#[derive(Clone, Debug)]
pub struct ChunkedHead {
    terms: Vec<TokenTerm>,
    plan: ChunkPlan,
    /// The teacher's vocabulary, where it is not the student's.
    other: Option<TeacherVocabulary>,
    scratch: Scratch,
}

impl ChunkedHead {
    /// Asks the device for the memory, once.
    pub fn new(device: &mut dyn Device, terms: Vec<TokenTerm>, plan: ChunkPlan) -> Self {
        Self::beside(device, terms, plan, None)
    }

    /// The same with a teacher of another vocabulary: over the tokens that both have
    /// ([`TokenLoss::Teacher`]) or by rank ([`TokenLoss::Sorted`]). Row n of the teacher is what row n
    /// of the student is held against; where the two read other tokens, rows are put beside one
    /// another before, and those without a counterpart have weight 0.
    ///
    /// # Panics
    /// Where a term compares token by token and no token is said to be shared.
    pub fn between(
        device: &mut dyn Device,
        terms: Vec<TokenTerm>,
        plan: ChunkPlan,
        other: TeacherVocabulary,
    ) -> Self {
        let by_token = terms.iter().any(|term| matches!(term.loss, TokenLoss::Teacher(_)));
        assert!(!by_token || other.shared.is_some(), "a term compares tokens, and none is shared");
        if let Some(shared) = other.shared {
            assert_eq!(
                shared.len(),
                plan.vocabulary,
                "one number for each of the student's tokens"
            );
        }
        Self::beside(device, terms, plan, Some(other))
    }

    fn beside(
        device: &mut dyn Device,
        terms: Vec<TokenTerm>,
        plan: ChunkPlan,
        other: Option<TeacherVocabulary>,
    ) -> Self {
        let space = device.alloc(0);
        let mut arena = ArenaPlan::new(space);
        let scratch = Scratch::plan(&mut arena, &plan, terms.len(), other);
        device.resize(space, arena.peak());
        Self { terms, plan, other, scratch }
    }

    /// The terms.
    pub fn terms(&self) -> &[TokenTerm] {
        &self.terms
    }

    /// Puts other terms in the place of these: weights and temperatures that change from step to
    /// step, or a term that is left out.
    ///
    /// # Panics
    /// Where there are more than the memory was planned for.
    pub fn set_terms(&mut self, terms: &[TokenTerm]) {
        let (count, room) = (terms.len(), self.scratch.losses.rows());
        assert!(count * self.plan.tokens <= room, "{count} terms, planned for {room} losses");
        self.terms.clear();
        self.terms.extend_from_slice(terms);
    }

    /// Sums of one micro-batch, in the order of the terms. Where `signals.gradients` is given, these
    /// are the gradients of the *whole step's* loss: each term's weight over its count in `step`.
    ///
    /// # Panics
    /// Where there are more rows than planned, a shape is not the one documented, or a term's
    /// teacher or a gradient's memory was left out: the plan decides these, not the data.
    pub fn evaluate(
        &self,
        device: &mut dyn Device,
        signals: &TokenSignals,
        step: TokenCounts,
    ) -> Parts {
        self.evaluate_weighed(device, signals, step, None)
    }

    /// As [`ChunkedHead::evaluate`], where tokens have weights that follow from their logits: they are
    /// decided in each chunk before its losses, in the place of the signals' own.
    ///
    /// # Panics
    /// As there, and where the teacher has other tokens or no logits and a measure asks for them.
    pub fn evaluate_weighed(
        &self,
        device: &mut dyn Device,
        signals: &TokenSignals,
        step: TokenCounts,
        mut weighing: Option<&mut Weighing<'_>>,
    ) -> Parts {
        let (rows, size) = (signals.states.rows(), self.plan.rows_beside(self.other));
        let signals = &match &weighing {
            None => *signals,
            Some(weighing) => TokenSignals {
                label_weights: Some(weighing.room.label(rows)),
                teacher_weights: Some(weighing.room.teacher(rows)),
                ..*signals
            },
        };
        self.check(signals);
        for start in (0..rows).step_by(size.max(1)) {
            let range = start..rows.min(start + size);
            self.chunk(device, signals, step, range, weighing.as_deref_mut());
        }
        let mut parts = Parts::with_capacity(self.terms.len());
        for (place, term) in self.terms.iter().enumerate() {
            let losses = self.losses(place, rows);
            let (sum, weighted) = match weights_of(signals, term) {
                None => {
                    let sum = device.sum(losses);
                    (sum, sum)
                }
                Some(weights) => match &weighing {
                    None => weighted_sum(device, losses, weights),
                    Some(weighing) => weighing.sums(device, losses, weights),
                },
            };
            parts.push(Nats::of(sum, count(term, signals.counts)), weighted);
        }
        parts
    }

    /// The loss of each row of the term at `place` in the last micro-batch, of `rows` rows, `[N, 1]`,
    /// without weights.
    pub fn losses(&self, place: usize, rows: usize) -> View {
        let first = place * self.plan.tokens;
        self.scratch.losses.row_range(first..first + rows)
    }

    /// The total of a finished step: weighted means of the terms; a term that counted nothing adds
    /// nothing.
    pub fn total(&self, parts: &Parts) -> f64 {
        parts.total(self.terms.iter().map(|term| term.weight))
    }

    /// Everything about the rows of `range`.
    fn chunk(
        &self,
        device: &mut dyn Device,
        signals: &TokenSignals,
        step: TokenCounts,
        range: Range<usize>,
        weighing: Option<&mut Weighing<'_>>,
    ) {
        let (rows, w) = (range.len(), signals.head);
        let x = signals.states.row_range(range.clone());
        let z = self.scratch.logits.first_rows(rows);
        device.linear(&Linear { x, w, b: None, y: z, activated: None });
        let teacher = self.teacher_logits(device, signals, range.clone());
        let gradients = signals.gradients.map(|gradients| {
            let dz = self.scratch.d_logits.expect("the plan is for losses without gradients");
            (gradients, dz.first_rows(rows))
        });
        if let Some((_, dz)) = gradients {
            device.fill(dz, 0.0);
        }
        let labels = signals.labels.range(range.clone());
        if let Some(weighing) = weighing {
            weighing.decide(device, range.clone(), (z, teacher), labels);
        }
        // What sees all of the student's tokens comes first: then those it shares are all there is.
        let shared = self.other.and_then(|other| other.shared);
        let waits =
            |term: &TokenTerm| shared.is_some() && matches!(term.loss, TokenLoss::Teacher(_));
        let terms = || self.terms.iter().enumerate();
        let first = terms().filter(|(_, term)| !waits(term));
        let mut forbidden = false;
        for (place, term) in first.chain(terms().filter(|(_, term)| waits(term))) {
            let mut teacher = teacher;
            if let Some(shared) = shared.filter(|_| waits(term)) {
                let placed = self.scratch.placed.map(|placed| placed.first_rows(rows));
                if !forbidden && let (Some(from), Some(to)) = (teacher, placed) {
                    device.pick_columns(from, shared, to);
                    device.forbid_columns(z, shared);
                    forbidden = true;
                }
                teacher = teacher.and(placed);
            }
            let teacher = || teacher.expect("a term compares with a teacher");
            let target = match term.loss {
                TokenLoss::Label => LabelLoss::CrossEntropy.target(Labels::Classes(labels)),
                TokenLoss::Teacher(wanted) => wanted.target(teacher(), Labels::Classes(labels)),
                TokenLoss::Sorted(wanted) => wanted.target(teacher()),
                TokenLoss::Softened { share, temperature } => {
                    Target::Softened { labels, share, temperature }
                }
                TokenLoss::Misses => Target::Misses(labels),
                TokenLoss::Known(wanted) => wanted.target(known(signals).rows(range.clone())),
            };
            device.row_loss(&RowLoss {
                x: z,
                target,
                scale: scale(term, step),
                weights: weights_of(signals, term).map(|weights| weights.row_range(range.clone())),
                losses: self.losses(place, range.end).row_range(range.clone()),
                dx: gradients.map(|(_, dz)| dz),
            });
        }
        if let Some((TokenGradients { d_states, d_head }, dz)) = gradients {
            device.linear_backward(&LinearBackward {
                x,
                w,
                dy: dz,
                dx: Some(d_states.row_range(range)),
                add_to_dx: false,
                through: None,
                dw: d_head,
                db: None,
            });
        }
    }

    /// The teacher's logits of some rows.
    fn teacher_logits(
        &self,
        device: &mut dyn Device,
        signals: &TokenSignals,
        range: Range<usize>,
    ) -> Option<View> {
        match signals.teacher? {
            TeacherTokens::Logits(logits) => Some(logits.row_range(range)),
            TeacherTokens::States { states, head } => {
                let y = self.scratch.teacher.expect("the plan computes no logits of a teacher");
                let (x, y) = (states.row_range(range.clone()), y.first_rows(range.len()));
                device.linear(&Linear { x, w: head, b: None, y, activated: None });
                Some(y)
            }
            TeacherTokens::Known(_) => None,
        }
    }

    /// Shapes that cutting into chunks would otherwise let pass.
    fn check(&self, signals: &TokenSignals) {
        let (rows, vocabulary) = (signals.states.rows(), self.plan.vocabulary);
        let of_teacher = self.other.map_or(vocabulary, |other| other.size);
        assert!(rows <= self.plan.tokens, "{rows} tokens, planned for {}", self.plan.tokens);
        assert_eq!(signals.head.rows(), vocabulary, "rows of the head");
        assert_eq!(signals.labels.len(), rows, "one label per token");
        match signals.teacher {
            None => (),
            Some(TeacherTokens::Logits(logits)) => {
                assert_eq!((logits.rows(), logits.cols()), (rows, of_teacher), "teacher's logits");
            }
            Some(TeacherTokens::States { states, head }) => {
                assert_eq!(states.rows(), rows, "teacher's hidden states");
                assert_eq!(head.rows(), of_teacher, "rows of the teacher's head");
            }
            Some(TeacherTokens::Known(known)) => {
                assert_eq!(known.probabilities.rows(), rows, "tokens with a kept answer");
            }
        }
        for weights in [signals.label_weights, signals.teacher_weights].into_iter().flatten() {
            assert_eq!((weights.rows(), weights.cols()), (rows, 1), "one weight per token");
        }
        if let Some(TokenGradients { d_states, .. }) = signals.gradients {
            assert_eq!(d_states.rows(), rows, "gradient of the hidden states");
        }
    }
}

/// Of these tokens, how many the term counts.
fn count(term: &TokenTerm, counts: TokenCounts) -> u64 {
    match term.loss {
        TokenLoss::Label | TokenLoss::Softened { .. } | TokenLoss::Misses => counts.labelled,
        TokenLoss::Teacher(_) | TokenLoss::Known(_) | TokenLoss::Sorted(_) => counts.taught,
    }
}

/// The factor of the term's gradients. A step without a single counted token has gradient zero, not
/// 0/0.
fn scale(term: &TokenTerm, step: TokenCounts) -> f64 {
    let count = count(term, step);
    if count == 0 { 0.0 } else { term.weight / count as f64 }
}

fn weights_of(signals: &TokenSignals, term: &TokenTerm) -> Option<View> {
    match term.loss {
        TokenLoss::Label | TokenLoss::Softened { .. } | TokenLoss::Misses => signals.label_weights,
        TokenLoss::Teacher(_) | TokenLoss::Known(_) | TokenLoss::Sorted(_) => {
            signals.teacher_weights
        }
    }
}

fn known(signals: &TokenSignals) -> KnownTokens {
    match signals.teacher {
        Some(TeacherTokens::Known(known)) => known,
        _ => panic!("a term compares with kept answers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget in rows of student, teacher and gradient.
    fn plan(tokens: usize, rows: u64) -> ChunkPlan {
        let budget = Bytes(rows * 3 * 1000 * 4);
        ChunkPlan { tokens, vocabulary: 1000, computes_teacher: true, train: true, budget }
    }

    #[test]
    fn a_chunk_is_what_the_budget_holds_in_whole_bands_but_at_least_a_row() {
        let of = |tokens, rows| plan(tokens, rows).rows();
        assert_eq!([of(10, 0), of(10, 1), of(10, 9), of(10, 10), of(10, 11)], [1, 1, 9, 10, 10]);
        assert_eq!([of(500, 41), of(500, 83), of(500, 200), of(500, 499)], [41, 42, 168, 462]);
        assert_eq!([of(500, 500), of(8192, 1 << 20), of(0, 1)], [500, 8192, 0]);
    }

    #[test]
    fn losses_alone_have_room_for_more_rows() {
        let plan = ChunkPlan { computes_teacher: false, train: false, ..plan(90, 10) };
        assert_eq!(plan.rows(), 30);
        // Two losses of ninety rows, rounded up to lines.
        assert_eq!(plan.bytes_needed(2), Bytes(4 * (30_000 + 192)));
    }

    #[test]
    fn the_budget_of_whoever_says_nothing_holds_three_bands_of_a_large_vocabulary() {
        let budget = LOGITS_BUDGET;
        assert_eq!(ChunkPlan { vocabulary: 152_064, budget, ..plan(8192, 0) }.rows(), 126);
        assert_eq!(ChunkPlan { vocabulary: 32_000, budget, ..plan(8192, 0) }.rows(), 672);
    }
}
