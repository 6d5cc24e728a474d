//! A language model with its head and losses, and the room for a micro-batch: what a step and an
//! evaluation both run.
//!
//! In: a micro-batch and the terms of the moment. Out: sums per term, and gradients added. Never:
//! decides what a step is, or moves a weight.

use heirloom_answers::KnownRows;
use heirloom_base::Bytes;
use heirloom_data::vocabulary::NOT_SHARED;
use heirloom_engine::{Device, IGNORED, IdSpace, Ids, Params, Reference, View};
use heirloom_models::{
    Buffers, Capacity, Decoder, DecoderBuffers, DeviceBatch, Head, Loaded, Model, Noise, Purpose,
};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, DenseLosses, DenseSignals, Inside, Insides, KnownTokens, LOGITS_BUDGET,
    Objective, Parts, TeacherTokens, TeacherVocabulary, TokenCounts, TokenGradients, TokenLoss,
    TokenSignals, TokenTerm, TokenWeights, Weighing,
};
use heirloom_store::TensorFolder;

use super::balance::TokenBalance;
use super::batch::TextBatch;
use super::capacity::LanguageCapacity;
use super::inside::{Gradients, InsideTerms, StepCounts};
use super::job::{LanguageConfig, LanguageWeights};
use super::objective::MOST_TERMS;
use super::other_tokens::{Other, TokensOfTeacher};
use crate::Error;

/// A model of either kind.
#[derive(Clone, Debug)]
pub(super) enum Network {
    /// It foresees the next token.
    Decoder(Decoder),
    /// It guesses hidden ones.
    Encoder(Model),
}

impl Network {
    pub(super) fn new(device: &mut dyn Device, config: &LanguageConfig) -> Self {
        match config.clone() {
            LanguageConfig::Decoder(config) => Self::Decoder(Decoder::new(device, config)),
            LanguageConfig::Encoder(config) => {
                Self::Encoder(Model::new(device, config, Head::MaskedLm))
            }
        }
    }

    pub(super) fn params(&self) -> &Params {
        match self {
            Self::Decoder(model) => model.params(),
            Self::Encoder(model) => model.params(),
        }
    }

    /// Whether files hold the transpose of the parameter of this name.
    pub(super) fn lies_transposed(&self, name: &str) -> bool {
        match self {
            Self::Decoder(model) => model.lies_transposed(name),
            Self::Encoder(_) => false,
        }
    }

    /// Fills the weights; those of a head that a folder lacks are drawn where `fresh_head` is a seed.
    pub(super) fn fill(
        &self,
        device: &mut dyn Device,
        weights: &LanguageWeights,
        seed: u64,
        fresh_head: Option<u64>,
    ) -> Result<Loaded, Error> {
        let path = match weights {
            LanguageWeights::Fresh => {
                self.params().init(device, seed);
                return Ok(Loaded::default());
            }
            LanguageWeights::Later => return Ok(Loaded::default()),
            LanguageWeights::Folder(path) => path,
        };
        let (folder, same) = (TensorFolder::open(path)?, |name: &str| name.to_owned());
        Ok(match self {
            Self::Decoder(model) => model.load(device, &folder, &same)?,
            Self::Encoder(model) => model.load(device, &folder, &same, fresh_head)?,
        })
    }

    /// A table that is only ever looked up by row. The word embeddings that are the head too have a
    /// gradient for every row.
    pub(super) fn looked_up(&self) -> Option<View> {
        match self {
            Self::Decoder(model) => model.looked_up(),
            Self::Encoder(_) => None,
        }
    }

    pub(super) fn vocabulary(&self) -> usize {
        match self {
            Self::Decoder(model) => model.config().vocab_size,
            Self::Encoder(model) => model.config().vocab_size,
        }
    }

    /// Width of the hidden states.
    fn width(&self) -> usize {
        match self {
            Self::Decoder(model) => model.config().hidden_size,
            Self::Encoder(model) => model.config().hidden_size,
        }
    }

    pub(super) fn masked(&self) -> bool {
        matches!(self, Self::Encoder(_))
    }
}

/// A model's activations.
#[derive(Clone, Debug)]
enum Room {
    Decoder(DecoderBuffers),
    Encoder(Buffers),
}

impl Room {
    fn new(
        device: &mut dyn Device,
        network: &Network,
        capacity: Capacity,
        purpose: &Purpose,
    ) -> Self {
        match network {
            // Its head's logits belong to the losses.
            Network::Decoder(model) => {
                Self::Decoder(DecoderBuffers::new(device, model.config(), capacity, 0, purpose))
            }
            Network::Encoder(model) => Self::Encoder(model.buffers(device, capacity, purpose)),
        }
    }

    fn inside(&self) -> Inside<'_> {
        match self {
            Self::Decoder(buffers) => Inside::Decoder(buffers),
            Self::Encoder(buffers) => Inside::Encoder(buffers),
        }
    }

    /// Sets the gradients of all taps to zero, for the first `tokens` rows.
    fn clear_taps(&self, device: &mut dyn Device, tokens: usize) {
        match self {
            Self::Decoder(buffers) => buffers.clear_taps(device, tokens),
            Self::Encoder(buffers) => buffers.clear_taps(device, tokens),
        }
    }
}

/// A model that has read a batch.
#[derive(Clone, Copy, Debug)]
enum Read {
    /// The last hidden states, `[N, C]`, and the head's matrix, `[V, C]`.
    States { states: View, head: View },
    /// Logits of the hidden tokens, `[M, V]`.
    Logits(View),
}

/// A model that reads batches.
#[derive(Debug)]
struct Reader {
    room: Room,
    batch: DeviceBatch,
}

impl Reader {
    fn new(
        device: &mut dyn Device,
        network: &Network,
        capacity: LanguageCapacity,
        purpose: &Purpose,
    ) -> Self {
        let capacity = capacity.of_models();
        let room = Room::new(device, network, capacity, purpose);
        let batch = match network {
            Network::Decoder(model) => model.batch(device, capacity),
            Network::Encoder(model) => model.batch(device, capacity),
        };
        Self { room, batch }
    }

    fn read(
        &mut self,
        device: &mut dyn Device,
        network: &Network,
        host: &TextBatch,
        noise: Option<Noise>,
    ) -> Read {
        self.batch.upload(device, &host.inputs());
        match (network, &self.room) {
            (Network::Decoder(model), Room::Decoder(buffers)) => Read::States {
                states: model.forward_states(device, &self.batch, buffers, noise),
                head: model.head(),
            },
            (Network::Encoder(model), Room::Encoder(buffers)) => {
                Read::Logits(model.forward(device, &self.batch, buffers, noise))
            }
            _ => unreachable!("a room is made for its model"),
        }
    }
}

/// The losses of either kind of model.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of them for each model")]
enum Losses {
    Chunked(ChunkedHead),
    Dense(DenseLosses),
}

/// What a pass is planned for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned<'a> {
    /// The largest batch.
    pub(super) capacity: LanguageCapacity,
    /// What is kept of the forward pass.
    pub(super) purpose: &'a Purpose,
    /// The model learnt from, where there is one.
    pub(super) teacher: Option<Beside<'a>>,
    /// Tokens of a kept answer, K; 0 where none are.
    pub(super) known: usize,
    /// Terms on what is inside student and teacher.
    pub(super) inside: Option<&'a InsideTerms>,
    /// A policy that weighs label and teacher.
    pub(super) balance: Option<&'a TokenBalance>,
}

/// A teacher beside the student.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'a> {
    pub(super) network: &'a Network,
    /// How its tokens are the student's.
    pub(super) tokens: TokensOfTeacher<'a>,
}

impl Beside<'_> {
    /// Whether its hidden states are kept, so that it reads nothing.
    fn is_kept(&self) -> bool {
        matches!(self.tokens, TokensOfTeacher::Kept)
    }
}

/// Room for kept answers to a micro-batch.
#[derive(Debug)]
struct KnownRoom {
    ids: IdSpace,
    probabilities: View,
    rest: View,
    /// Whether they are those to the batch that is run next.
    fresh: bool,
}

impl KnownRoom {
    fn new(device: &mut dyn Device, tokens: usize, width: usize) -> Self {
        let mut matrix = |cols| View::matrix(device.alloc(tokens * cols), 0, tokens, cols);
        let (probabilities, rest) = (matrix(width), matrix(1));
        Self { ids: device.alloc_ids(tokens * width), probabilities, rest, fresh: false }
    }

    /// Bytes of it.
    fn bytes(tokens: usize, width: usize) -> u64 {
        if width == 0 { 0 } else { (4 * tokens * (2 * width + 1)) as u64 }
    }

    /// The answers to the `tokens` of this batch; only once.
    fn take(&mut self, tokens: usize) -> Option<KnownTokens> {
        std::mem::take(&mut self.fresh).then(|| KnownTokens {
            ids: Ids::at(self.ids, 0, tokens * self.probabilities.cols()),
            probabilities: self.probabilities.first_rows(tokens),
            rest: self.rest.first_rows(tokens),
        })
    }
}

/// The room for micro-batches of a model, alone or beside a teacher.
#[derive(Debug)]
pub(super) struct TextPass {
    reader: Reader,
    teacher: Option<Reader>,
    known: Option<KnownRoom>,
    /// The teacher's kept hidden states of a micro-batch, `[N, Cₜ]`.
    states: Option<View>,
    losses: Losses,
    /// Terms on what is inside student and teacher.
    pub(super) inside: Option<Objective>,
    /// A policy that weighs label and teacher, and room for the weights of tokens.
    pub(super) balance: Option<(TokenBalance, Option<TokenWeights>)>,
    labels: IdSpace,
    /// Which tokens the teacher is heard at, `[N, 1]`.
    heard: View,
    /// The teacher's side, where it reads other tokens.
    pub(super) other: Option<Other>,
    pub(super) host: TextBatch,
}

impl TextPass {
    /// Asks the device for all memory, once.
    pub(super) fn new(device: &mut dyn Device, network: &Network, room: Planned<'_>) -> Self {
        let Planned { capacity, purpose, teacher, known, inside, balance } = room;
        let train = matches!(purpose, Purpose::Train(_) | Purpose::Recompute(_));
        let tokens = capacity.tokens;
        let losses = match network {
            Network::Decoder(_) => {
                let plan = chunks(tokens, network.vocabulary(), teacher.is_some(), train);
                let room = vec![PLACEHOLDER; MOST_TERMS];
                let other = teacher.and_then(|teacher| vocabulary(device, teacher));
                Losses::Chunked(match other {
                    None => ChunkedHead::new(device, room, plan),
                    Some(other) => ChunkedHead::between(device, room, plan, other),
                })
            }
            Network::Encoder(_) => {
                Losses::Dense(DenseLosses::new(device, MOST_TERMS, capacity.masked))
            }
        };
        let reader = Reader::new(device, network, capacity, purpose);
        let other = teacher.and_then(|Beside { network, tokens }| {
            Other::new(device, tokens, capacity, network.width())
        });
        let inside = inside.zip(teacher).map(|(inside, teacher)| {
            inside.objective(device, [network.width(), teacher.network.width()], capacity)
        });
        let looked_into = inside.is_some();
        let states = teacher.filter(Beside::is_kept).map(|Beside { network, .. }| {
            View::matrix(device.alloc(tokens * network.width()), 0, tokens, network.width())
        });
        let teacher = teacher.filter(|teacher| !teacher.is_kept());
        let teacher = teacher.map(|Beside { network, tokens }| {
            let capacity = match tokens {
                TokensOfTeacher::Own(capacity) => capacity,
                _ => capacity,
            };
            Reader::new(device, network, capacity, &of_teacher(looked_into))
        });
        let heard = View::matrix(device.alloc(tokens), 0, tokens, 1);
        let labels = device.alloc_ids(tokens);
        let known = (known > 0).then(|| KnownRoom::new(device, tokens, known));
        let weights = balance.and_then(|balance| balance.room(device, tokens));
        let balance = balance.map(|balance| (balance.clone(), weights));
        let host = TextBatch::default();
        Self { reader, teacher, known, states, losses, inside, balance, labels, heard, other, host }
    }

    /// What the model says to the batch in `host`, without dropout: of a decoder, the logits after the
    /// first `most` tokens.
    pub(super) fn outputs(
        &mut self,
        device: &mut dyn Device,
        network: &Network,
        most: usize,
    ) -> Vec<f64> {
        match self.reader.read(device, network, &self.host, None) {
            Read::Logits(logits) => device.read_f64(logits),
            Read::States { states, head } => {
                let states = states.first_rows(states.rows().min(most));
                let (width, matrix) = (states.cols(), device.read_f64(head));
                let logits = |state: &[f64]| -> Vec<f64> {
                    let dot = |row: &[f64]| row.iter().zip(state).map(|(a, b)| a * b).sum();
                    matrix.chunks(width).map(dot).collect()
                };
                device.read_f64(states).chunks(width).flat_map(logits).collect()
            }
        }
    }

    /// Sets the terms of the step.
    pub(super) fn set_terms(&mut self, terms: &[TokenTerm]) {
        match &mut self.losses {
            Losses::Chunked(head) => head.set_terms(terms),
            Losses::Dense(losses) => losses.set_terms(terms),
        }
    }

    /// The total of a finished step.
    pub(super) fn total(&self, parts: &Parts) -> f64 {
        let of_tokens = match &self.losses {
            Losses::Chunked(head) => head.total(parts),
            Losses::Dense(losses) => losses.total(parts),
        };
        let inside = |inside: &Objective| inside.total(&parts.after(self.terms().len()));
        of_tokens + self.inside.as_ref().map_or(0.0, inside)
    }

    /// The terms on tokens.
    fn terms(&self) -> &[TokenTerm] {
        match &self.losses {
            Losses::Chunked(head) => head.terms(),
            Losses::Dense(losses) => losses.terms(),
        }
    }

    /// Hands over the kept answers to the tokens of the batch that is run next, of which `known` has
    /// those at `places`.
    pub(super) fn recall(
        &mut self,
        device: &mut dyn Device,
        known: &KnownRows,
        places: std::ops::Range<usize>,
    ) {
        let room = self.known.as_mut().expect("the pass was planned with kept answers");
        let (n, width) = (places.len(), room.probabilities.cols());
        let numbers = places.start * width..places.end * width;
        device.write_ids(Ids::at(room.ids, 0, n * width), &known.ids[numbers.clone()]);
        device.write(room.probabilities.first_rows(n), &known.probabilities[numbers]);
        device.write(room.rest.first_rows(n), &known.rest[places]);
        room.fresh = true;
    }

    /// Likewise the teacher's kept hidden states of that batch, `[N, Cₜ]`.
    pub(super) fn recall_states(&mut self, device: &mut dyn Device, states: &[f32]) {
        let room = self.states.expect("the pass was planned with kept hidden states");
        device.write(room.first_rows(states.len() / room.cols()), states);
    }

    /// Sums of the micro-batch in `host`, of a step that holds `step`: those of the terms on tokens,
    /// then those of the terms on the inside, where `step` counts for them. The gradient of every
    /// parameter is added where `to` says; `teacher` is left out where no term asks it.
    pub(super) fn run(
        &mut self,
        device: &mut dyn Device,
        network: &Network,
        teacher: Option<&Network>,
        step: StepCounts,
        to: Gradients<'_>,
    ) -> Parts {
        let (grads, noise) = (to.student, to.noise);
        let learnt = self.host.learnt;
        let labels = Ids::at(self.labels, 0, self.host.labels.len());
        device.write_ids(labels, &self.host.labels);
        let theirs = teacher.map(|teacher| {
            if let (Some(states), Network::Decoder(model)) = (self.states, teacher) {
                let states = states.first_rows(self.host.ids.len());
                return Read::States { states, head: model.head() };
            }
            let reader = self.teacher.as_mut().expect("the pass was planned with a teacher");
            let host = self.other.as_mut().map_or(&self.host, |other| other.batch(&self.host));
            reader.read(device, teacher, host, None)
        });
        let heard = self.other.as_ref().filter(|_| teacher.is_some()).map(Other::heard);
        let counts = TokenCounts {
            labelled: learnt,
            taught: heard.as_ref().map_or(learnt, |(_, count)| *count),
        };
        let read = self.reader.read(device, network, &self.host, noise);
        // A teacher that only its inside is asked of has no logits to compute.
        let judges = self
            .terms()
            .iter()
            .any(|term| matches!(term.loss, TokenLoss::Teacher(_) | TokenLoss::Sorted(_)));
        let theirs = theirs.filter(|_| judges);
        let Self { reader, losses, known, other, inside, balance, .. } = self;
        if grads.is_some() {
            reader.room.clear_taps(device, self.host.ids.len());
        }
        let weighed = balance.as_mut().filter(|_| step.weighed);
        let mut weighing = weighed.and_then(|(by, room)| {
            Some(Weighing { room: (*room)?, labels: &self.host.labels, by })
        });
        let inside = step.inside.zip(inside.as_ref()).zip(self.teacher.as_ref());
        let inside = |device: &mut dyn Device, reader: &Reader, parts: Parts| {
            let Some(((counts, inside), teacher)) = inside else { return parts };
            let insides = Insides {
                student: reader.room.inside(),
                teacher: teacher.room.inside(),
                batch: &reader.batch,
            };
            let to = (grads.is_some(), to.projections);
            parts.followed_by(&inside.evaluate_inside(device, &insides, counts, to))
        };
        match (network, &reader.room, losses, read) {
            (
                Network::Decoder(model),
                Room::Decoder(buffers),
                Losses::Chunked(chunked),
                Read::States { states, head },
            ) => {
                let n = states.rows();
                // A vocabulary that is padded further than the student's counts up to there.
                let teacher = theirs.map(|read| match read {
                    Read::States { states, head: matrix } => match other {
                        None => {
                            TeacherTokens::States { states, head: matrix.first_rows(head.rows()) }
                        }
                        Some(other) => TeacherTokens::States {
                            states: other.beside(device, states, n),
                            head: matrix,
                        },
                    },
                    Read::Logits(_) => unreachable!("both are of one kind"),
                });
                let known = known.as_mut().and_then(|known| known.take(n));
                let teacher = teacher.or(known.map(TeacherTokens::Known));
                let all = counts.taught == n as u64;
                let of_teacher = (teacher.is_some() && !all).then(|| self.heard.first_rows(n));
                if let Some(view) = of_teacher {
                    let heard = heard.map_or_else(|| self.host.heard(), |(heard, _)| heard);
                    device.write(view, &heard);
                }
                let signals = TokenSignals {
                    states,
                    head,
                    labels,
                    teacher,
                    label_weights: None,
                    teacher_weights: of_teacher,
                    counts,
                    gradients: grads.map(|grads| TokenGradients {
                        d_states: model.d_states(buffers, n),
                        d_head: grads.of(head),
                    }),
                };
                let weighing = weighing.as_mut();
                let parts = chunked.evaluate_weighed(device, &signals, step.tokens, weighing);
                let parts = inside(device, reader, parts);
                if let Some(grads) = grads {
                    model.backward_states(device, &reader.batch, buffers, grads, noise);
                }
                parts
            }
            (
                Network::Encoder(model),
                Room::Encoder(buffers),
                Losses::Dense(losses),
                Read::Logits(logits),
            ) => {
                let teacher = theirs.map(|read| match read {
                    Read::Logits(logits) => logits,
                    Read::States { .. } => unreachable!("both are of one kind"),
                });
                let d_logits = grads.map(|_| model.d_output(buffers, logits.rows()));
                if let Some(d_logits) = d_logits {
                    device.fill(d_logits, 0.0);
                }
                let signals = DenseSignals { logits, labels, teacher, d_logits };
                let weighing = weighing.as_mut();
                let parts = losses.evaluate_weighed(device, &signals, step.tokens, weighing);
                let parts = inside(device, reader, parts);
                if let Some(grads) = grads {
                    model.backward(device, &reader.batch, buffers, grads, noise);
                }
                parts
            }
            _ => unreachable!("a pass is made for its model"),
        }
    }
}

/// Holds a term's room until the first step says what the terms are.
const PLACEHOLDER: TokenTerm =
    TokenTerm { weight: 0.0, loss: heirloom_objective::TokenLoss::Label };

/// The teacher's vocabulary for the losses, where it is another.
fn vocabulary(device: &mut dyn Device, teacher: Beside<'_>) -> Option<TeacherVocabulary> {
    let size = teacher.network.vocabulary();
    match teacher.tokens {
        TokensOfTeacher::Same | TokensOfTeacher::Kept => None,
        TokensOfTeacher::Own(_) => Some(TeacherVocabulary { size, shared: None }),
        TokensOfTeacher::Mapped(map) => {
            let ids = Ids::at(device.alloc_ids(map.len()), 0, map.len());
            let number = |&id: &u32| if id == NOT_SHARED { IGNORED } else { id };
            device.write_ids(ids, &map.iter().map(number).collect::<Vec<u32>>());
            Some(TeacherVocabulary { size, shared: Some(ids) })
        }
    }
}

fn chunks(tokens: usize, vocabulary: usize, computes_teacher: bool, train: bool) -> ChunkPlan {
    ChunkPlan { tokens, vocabulary, computes_teacher, train, budget: LOGITS_BUDGET }
}

/// What is kept of a teacher's forward pass.
fn of_teacher(looked_into: bool) -> Purpose {
    if looked_into { Purpose::Inspect } else { Purpose::Infer }
}

/// Memory of a pass over micro-batches up to `capacity`, without the weights of models; `known` are the
/// tokens of a kept answer.
pub(super) fn bytes_needed(
    config: &LanguageConfig,
    teacher: Option<(&LanguageConfig, TokensOfTeacher<'_>)>,
    (known, inside): (usize, Option<&InsideTerms>),
    capacity: LanguageCapacity,
    purpose: &Purpose,
) -> Bytes {
    let tokens = capacity.tokens;
    let train = matches!(purpose, Purpose::Train(_) | Purpose::Recompute(_));
    let of_one =
        |config: &LanguageConfig, capacity: LanguageCapacity, purpose: &Purpose| match config {
            LanguageConfig::Decoder(config) => {
                DecoderBuffers::bytes_needed(config, capacity.of_models(), 0, purpose).0
            }
            LanguageConfig::Encoder(config) => {
                Buffers::bytes_needed(config, &Head::MaskedLm, capacity.of_models(), purpose).0
            }
        };
    let losses = match config {
        LanguageConfig::Decoder(config) => {
            let plan = chunks(tokens, config.vocab_size, teacher.is_some(), train);
            match teacher.and_then(|(teacher, tokens)| vocabulary_of(teacher, tokens)) {
                None => plan.bytes_needed(MOST_TERMS).0,
                Some(other) => plan.bytes_needed_between(MOST_TERMS, other).0,
            }
        }
        LanguageConfig::Encoder(_) => (4 * MOST_TERMS * capacity.masked) as u64,
    };
    let theirs = teacher.map_or(0, |(teacher, reads)| match reads {
        TokensOfTeacher::Kept => (4 * tokens * teacher.hidden_size()) as u64,
        TokensOfTeacher::Own(own) => {
            let width = teacher.hidden_size();
            of_one(teacher, own, &Purpose::Infer) + (4 * capacity.tokens * width) as u64
        }
        _ => of_one(teacher, capacity, &of_teacher(inside.is_some())),
    });
    let inside = inside.zip(teacher).map_or(0, |(inside, (teacher, _))| {
        inside.bytes([config.hidden_size(), teacher.hidden_size()], capacity).0
    });
    let known = KnownRoom::bytes(tokens, known);
    Bytes(of_one(config, capacity, purpose) + theirs + losses + known + inside)
}

/// As [`vocabulary`], for planning alone.
fn vocabulary_of(
    teacher: &LanguageConfig,
    tokens: TokensOfTeacher<'_>,
) -> Option<TeacherVocabulary> {
    let size = teacher.vocab_size();
    match tokens {
        TokensOfTeacher::Same | TokensOfTeacher::Kept => None,
        TokensOfTeacher::Own(_) => Some(TeacherVocabulary { size, shared: None }),
        TokensOfTeacher::Mapped(map) => {
            let nowhere = Reference::<f32>::new().alloc_ids(0);
            Some(TeacherVocabulary { size, shared: Some(Ids::at(nowhere, 0, map.len())) })
        }
    }
}
