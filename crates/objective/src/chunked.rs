//! The head of a language model together with the losses on its logits, some rows at a time: no
//! matrix of every token's logits is ever there.
//!
//! For each chunk of rows: `z = h Wᵀ`, the losses of the rows of `z`, their gradient `dz`, then
//! `dh = dz W` and `dW += dzᵀ h`; the next chunk takes the same memory. The losses of a row look at
//! no other row, its `dh` neither, and `dW` is a sum over rows, so the whole is that of one chunk up
//! to the order of that sum. No product is computed twice.
//!
//! Of several teachers each term hears one. Their logits take turns in one matrix, so that a second
//! teacher costs its product and a loss for each token, but no memory for logits.

use std::ops::Range;

use heirloom_base::Nats;
use heirloom_engine::{ArenaPlan, Device, Ids, Linear, LinearBackward, RowLoss, Target, View};

use crate::chunk_plan::Scratch;
use crate::objective::{Parts, weighted_sum};
use crate::{
    ChunkPlan, KnownTokens, LabelLoss, Labels, SortedTerm, SparseTerm, TeacherTerm,
    TeacherVocabulary, Weighing,
};

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

impl TokenLoss {
    /// Whether it is measured against a teacher, and not the next token alone.
    pub fn hears_a_teacher(&self) -> bool {
        match self {
            Self::Label | Self::Softened { .. } | Self::Misses => false,
            Self::Teacher(_) | Self::Known(_) | Self::Sorted(_) => true,
        }
    }
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
    /// Held against the teacher; against each of several.
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
    /// The teacher, where a term needs it; of several see [`ChunkedHead::evaluate_among`].
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

/// A language model's head with its losses, and memory for one chunk of rows.
#[derive(Clone, Debug)]
pub struct ChunkedHead {
    terms: Vec<TokenTerm>,
    /// Which teacher each of them hears.
    hears: Vec<usize>,
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

    /// The same with several teachers of the student's vocabulary; beside each term stands the number of
    /// the one it hears, from 0, which a term that hears none ignores. The terms of one teacher are to
    /// stand together, since its product is taken anew where another's came between.
    pub fn among(device: &mut dyn Device, terms: &[(TokenTerm, usize)], plan: ChunkPlan) -> Self {
        let mut head = Self::new(device, terms.iter().map(|(term, _)| *term).collect(), plan);
        head.set_terms_among(terms);
        head
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
        let hears = vec![0; terms.len()];
        Self { terms, hears, plan, other, scratch }
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
        self.put_terms(terms.iter().map(|term| (*term, 0)));
    }

    /// The same for terms that hear several teachers, as [`ChunkedHead::among`] takes them.
    ///
    /// # Panics
    /// As there.
    pub fn set_terms_among(&mut self, terms: &[(TokenTerm, usize)]) {
        self.put_terms(terms.iter().copied());
    }

    fn put_terms(&mut self, terms: impl ExactSizeIterator<Item = (TokenTerm, usize)>) {
        let (count, room) = (terms.len(), self.scratch.losses.rows());
        assert!(count * self.plan.tokens <= room, "{count} terms, planned for {room} losses");
        self.terms.clear();
        self.hears.clear();
        for (term, teacher) in terms {
            self.terms.push(term);
            self.hears.push(teacher);
        }
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
        weighing: Option<&mut Weighing<'_>>,
    ) -> Parts {
        self.run(device, signals, std::slice::from_ref(&signals.teacher), step, weighing)
    }

    /// As [`ChunkedHead::evaluate`], where each term hears the one of `teachers` that stands beside it
    /// ([`ChunkedHead::among`]), in the place of the signals' own. Those that no term hears may be
    /// `None`. All are heard at the same tokens, whose weights are the signals'.
    ///
    /// # Panics
    /// As there, and where there are several beside a teacher of another vocabulary.
    pub fn evaluate_among(
        &self,
        device: &mut dyn Device,
        signals: &TokenSignals,
        teachers: &[Option<TeacherTokens>],
        step: TokenCounts,
    ) -> Parts {
        self.run(device, signals, teachers, step, None)
    }

    fn run(
        &self,
        device: &mut dyn Device,
        signals: &TokenSignals,
        teachers: &[Option<TeacherTokens>],
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
        self.check(signals, teachers);
        for start in (0..rows).step_by(size.max(1)) {
            let range = start..rows.min(start + size);
            self.chunk(device, (signals, teachers), step, range, weighing.as_deref_mut());
        }
        let mut parts = Parts::with_capacity(self.terms.len());
        for (place, term) in self.terms.iter().enumerate() {
            let losses = self.losses(place, rows);
            let (sum, weighted) = match weights_of(signals, term) {
                None => {
                    let sum = device.sum(losses);
                    (sum, sum)
                }
                Some(weights) => match &mut weighing {
                    None => weighted_sum(device, losses, weights),
                    Some(weighing) => weighing.sums(device, place, losses, weights),
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
        (signals, teachers): (&TokenSignals, &[Option<TeacherTokens>]),
        step: TokenCounts,
        range: Range<usize>,
        weighing: Option<&mut Weighing<'_>>,
    ) {
        let (rows, w) = (range.len(), signals.head);
        let x = signals.states.row_range(range.clone());
        let z = self.scratch.logits.first_rows(rows);
        device.linear(&Linear { x, w, b: None, y: z, activated: None });
        // Whose logits of the chunk are computed.
        let mut at_hand = None;
        let gradients = signals.gradients.map(|gradients| {
            let dz = self.scratch.d_logits.expect("the plan is for losses without gradients");
            (gradients, dz.first_rows(rows))
        });
        if let Some((_, dz)) = gradients {
            device.fill(dz, 0.0);
        }
        let labels = signals.labels.range(range.clone());
        if let Some(weighing) = weighing {
            let teacher = self.logits_of(device, teachers, 0, range.clone(), &mut at_hand);
            let heard = self.terms.iter().position(|term| term.loss.hears_a_teacher());
            let term = heard.filter(|_| weighing.asks_for_the_teachers_term()).map(|place| {
                let kept = || known(teachers, self.hears[place]).rows(range.clone());
                target(self.terms[place].loss, labels, teacher, kept)
            });
            weighing.decide(device, range.clone(), (z, teacher), labels, term);
        }
        // What sees all of the student's tokens comes first: then those it shares are all there is.
        let shared = self.other.and_then(|other| other.shared);
        let waits =
            |term: &TokenTerm| shared.is_some() && matches!(term.loss, TokenLoss::Teacher(_));
        let terms = || self.terms.iter().enumerate();
        let first = terms().filter(|(_, term)| !waits(term));
        let mut forbidden = false;
        for (place, term) in first.chain(terms().filter(|(_, term)| waits(term))) {
            let number = self.hears[place];
            let mut teacher = match term.loss {
                TokenLoss::Teacher(_) | TokenLoss::Sorted(_) => {
                    self.logits_of(device, teachers, number, range.clone(), &mut at_hand)
                }
                _ => None,
            };
            if let Some(shared) = shared.filter(|_| waits(term)) {
                let placed = self.scratch.placed.map(|placed| placed.first_rows(rows));
                if !forbidden && let (Some(from), Some(to)) = (teacher, placed) {
                    device.pick_columns(from, shared, to);
                    device.forbid_columns(z, shared);
                    forbidden = true;
                }
                teacher = teacher.and(placed);
            }
            let kept = || known(teachers, number).rows(range.clone());
            let target = target(term.loss, labels, teacher, kept);
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

    /// The logits of some rows of teacher `number`, where it has logits: computed, unless they are
    /// those at hand.
    fn logits_of(
        &self,
        device: &mut dyn Device,
        teachers: &[Option<TeacherTokens>],
        number: usize,
        range: Range<usize>,
        at_hand: &mut Option<usize>,
    ) -> Option<View> {
        match teachers.get(number).copied().flatten()? {
            TeacherTokens::Logits(logits) => Some(logits.row_range(range)),
            TeacherTokens::States { states, head } => {
                let y = self.scratch.teacher.expect("the plan computes no logits of a teacher");
                let (x, y) = (states.row_range(range.clone()), y.first_rows(range.len()));
                if *at_hand != Some(number) {
                    device.linear(&Linear { x, w: head, b: None, y, activated: None });
                    *at_hand = Some(number);
                }
                Some(y)
            }
            TeacherTokens::Known(_) => None,
        }
    }

    /// Shapes that cutting into chunks would otherwise let pass.
    fn check(&self, signals: &TokenSignals, teachers: &[Option<TeacherTokens>]) {
        let (rows, vocabulary) = (signals.states.rows(), self.plan.vocabulary);
        let of_teacher = self.other.map_or(vocabulary, |other| other.size);
        assert!(rows <= self.plan.tokens, "{rows} tokens, planned for {}", self.plan.tokens);
        assert_eq!(signals.head.rows(), vocabulary, "rows of the head");
        assert_eq!(signals.labels.len(), rows, "one label per token");
        let alone = self.other.is_none() || teachers.len() < 2;
        assert!(alone, "a teacher of another vocabulary is the only one");
        for teacher in teachers.iter().flatten() {
            match *teacher {
                TeacherTokens::Logits(logits) => {
                    let shape = (logits.rows(), logits.cols());
                    assert_eq!(shape, (rows, of_teacher), "teacher's logits");
                }
                TeacherTokens::States { states, head } => {
                    assert_eq!(states.rows(), rows, "teacher's hidden states");
                    assert_eq!(head.rows(), of_teacher, "rows of the teacher's head");
                }
                TeacherTokens::Known(known) => {
                    assert_eq!(known.probabilities.rows(), rows, "tokens with a kept answer");
                }
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

/// What a term compares the student's logits with: labels, the logits of its teacher, or what was kept
/// of the teacher's answers.
pub(crate) fn target(
    loss: TokenLoss,
    labels: Ids,
    teacher: Option<View>,
    kept: impl FnOnce() -> KnownTokens,
) -> Target {
    let teacher = || teacher.expect("a term compares with a teacher");
    match loss {
        TokenLoss::Label => LabelLoss::CrossEntropy.target(Labels::Classes(labels)),
        TokenLoss::Teacher(wanted) => wanted.target(teacher(), Labels::Classes(labels)),
        TokenLoss::Sorted(wanted) => wanted.target(teacher()),
        TokenLoss::Softened { share, temperature } => {
            Target::Softened { labels, share, temperature }
        }
        TokenLoss::Misses => Target::Misses(labels),
        TokenLoss::Known(wanted) => wanted.target(kept()),
    }
}

/// Of these tokens, how many the term counts.
fn count(term: &TokenTerm, counts: TokenCounts) -> u64 {
    if term.loss.hears_a_teacher() { counts.taught } else { counts.labelled }
}

/// The factor of the term's gradients. A step without a single counted token has gradient zero, not
/// 0/0.
fn scale(term: &TokenTerm, step: TokenCounts) -> f64 {
    let count = count(term, step);
    if count == 0 { 0.0 } else { term.weight / count as f64 }
}

fn weights_of(signals: &TokenSignals, term: &TokenTerm) -> Option<View> {
    if term.loss.hears_a_teacher() { signals.teacher_weights } else { signals.label_weights }
}

/// What is known of the answers of teacher `number`.
pub(crate) fn known(teachers: &[Option<TeacherTokens>], number: usize) -> KnownTokens {
    match teachers.get(number) {
        Some(Some(TeacherTokens::Known(known))) => *known,
        _ => panic!("a term compares with kept answers"),
    }
}
