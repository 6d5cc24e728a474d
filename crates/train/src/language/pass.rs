//! A language model with its head and losses, and the room for a micro-batch: what a step and an
//! evaluation both run.
//!
//! In: a micro-batch and the terms of the moment. Out: sums per term, and gradients added. Never:
//! decides what a step is, or moves a weight.

use heirloom_answers::KnownRows;
use heirloom_base::Bytes;
use heirloom_data::vocabulary::NOT_SHARED;
use heirloom_engine::{Device, IGNORED, IdSpace, Ids, Reference, View};
use heirloom_models::{Buffers, DecoderBuffers, Head, Purpose};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, DenseLosses, DenseSignals, Insides, LOGITS_BUDGET, Objective, Parts,
    TeacherTokens, TeacherVocabulary, TokenCounts, TokenGradients, TokenLoss, TokenSignals,
    TokenTerm, TokenWeights, Weighing,
};

use super::balance::{Heard, TokenBalance};
use super::batch::TextBatch;
use super::beside::{Beside, KnownRoom, Side, of_teacher};
use super::capacity::LanguageCapacity;
use super::inside::{Gradients, InsideTerms, StepCounts};
use super::job::LanguageConfig;
use super::network::{Network, Read, Reader, Room};
use super::objective::most_terms;
use super::other_tokens::{Other, TokensOfTeacher};

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
    /// Those learnt from.
    pub(super) teachers: &'a [Beside<'a, Network>],
    /// Terms on what is inside student and teacher.
    pub(super) inside: Option<&'a InsideTerms>,
}

/// The room for micro-batches of a model, alone or beside a teacher.
#[derive(Debug)]
pub(super) struct TextPass {
    reader: Reader,
    /// Of each teacher.
    sides: Vec<Side>,
    losses: Losses,
    /// Teachers whose logits are asked for.
    judges: Vec<usize>,
    /// Terms on what is inside student and teacher.
    pub(super) inside: Option<Objective>,
    /// A policy that weighs label and teacher, and room for the weights of tokens.
    pub(super) balance: Option<(TokenBalance, Option<TokenWeights>)>,
    labels: IdSpace,
    /// Which tokens the teachers are heard at, `[N, 1]`.
    heard: View,
    /// The only teacher's tokens, where it reads others.
    pub(super) other: Option<Other>,
    pub(super) host: TextBatch,
}

impl TextPass {
    /// Asks the device for all memory, once; `balance` is a policy that weighs label and teacher.
    pub(super) fn new(
        device: &mut dyn Device,
        network: &Network,
        room: Planned<'_>,
        balance: Option<TokenBalance>,
    ) -> Self {
        let Planned { capacity, purpose, teachers, inside } = room;
        let train = matches!(purpose, Purpose::Train(_) | Purpose::Recompute(_));
        let tokens = capacity.tokens;
        let terms = most_terms(teachers.len());
        let losses = match network {
            Network::Decoder(_) => {
                let computes = teachers.iter().any(Beside::has_logits);
                let plan = chunks(tokens, network.vocabulary(), computes, train);
                let room = vec![PLACEHOLDER; terms];
                let other = teachers.iter().find_map(|teacher| vocabulary(device, teacher));
                Losses::Chunked(match other {
                    None => ChunkedHead::new(device, room, plan),
                    Some(other) => ChunkedHead::between(device, room, plan, other),
                })
            }
            Network::Encoder(_) => Losses::Dense(DenseLosses::new(device, terms, capacity.masked)),
        };
        let reader = Reader::new(device, network, capacity, purpose);
        let other = teachers.iter().find_map(|teacher| match teacher {
            Beside::Model(of, tokens) => Other::new(device, *tokens, capacity, of.width()),
            Beside::States(_) | Beside::Known(_) => None,
        });
        let looked_into = inside.zip(teachers.iter().find_map(Beside::model));
        let inside = looked_into.map(|(inside, teacher)| {
            inside.objective(device, [network.width(), teacher.width()], capacity)
        });
        let looked_into = inside.is_some();
        let side = |teacher| Side::new(device, teacher, capacity, looked_into);
        let sides = teachers.iter().map(side).collect();
        let heard = View::matrix(device.alloc(tokens), 0, tokens, 1);
        let labels = device.alloc_ids(tokens);
        let balance = balance.map(|balance| {
            let weights = balance.room(device, tokens);
            (balance, weights)
        });
        let host = TextBatch::default();
        let judges = Vec::new();
        Self { reader, sides, losses, judges, inside, balance, labels, heard, other, host }
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

    /// Sets the terms of the step, each with the number of the teacher it hears.
    pub(super) fn set_terms(&mut self, terms: &[(TokenTerm, usize)]) {
        self.judges.clear();
        let judging = terms
            .iter()
            .filter(|(term, _)| matches!(term.loss, TokenLoss::Teacher(_) | TokenLoss::Sorted(_)));
        self.judges.extend(judging.map(|(_, teacher)| *teacher));
        match &mut self.losses {
            Losses::Chunked(head) => head.set_terms_among(terms),
            Losses::Dense(losses) => losses.set_terms_among(terms),
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

    /// Which numbers of tokens are to be heard from now on, in place of being weighed.
    pub(super) fn listen(&mut self, to: Option<Heard>) {
        if let Some((balance, _)) = &mut self.balance {
            balance.listen(to);
        }
    }

    /// Those of the tokens that were run since, `[R][2]`.
    pub(super) fn heard(&mut self) -> Vec<[f64; 2]> {
        self.balance.as_mut().map(|(balance, _)| balance.heard()).unwrap_or_default()
    }

    /// Hands over the kept answers of teacher number `at` to the tokens of the batch that is run next,
    /// of which `known` has those at `places`.
    pub(super) fn recall(
        &mut self,
        device: &mut dyn Device,
        at: usize,
        known: &KnownRows,
        places: std::ops::Range<usize>,
    ) {
        match &mut self.sides[at] {
            Side::Known(room) => room.put(device, known, places),
            _ => unreachable!("the pass was planned with kept answers"),
        }
    }

    /// Likewise its kept hidden states of that batch, `[N, Cₜ]`.
    pub(super) fn recall_states(&mut self, device: &mut dyn Device, at: usize, states: &[f32]) {
        match &self.sides[at] {
            Side::States(room) => device.write(room.first_rows(states.len() / room.cols()), states),
            _ => unreachable!("the pass was planned with kept hidden states"),
        }
    }

    /// Sums of the micro-batch in `host`, of a step that holds `step`: those of the terms on tokens,
    /// then those of the terms on the inside, where `step` counts for them. The gradient of every
    /// parameter is added where `to` says; of `teachers` those are left out that no term asks, or all.
    pub(super) fn run(
        &mut self,
        device: &mut dyn Device,
        network: &Network,
        teachers: &[Option<&Network>],
        step: StepCounts,
        to: Gradients<'_>,
    ) -> Parts {
        let said = self.ask(device, network.vocabulary(), teachers);
        let asked = teachers.iter().any(Option::is_some);
        self.run_beside(device, network, &said, asked, step, to)
    }

    /// As [`TextPass::run`], beside what teachers have `said` to the same micro-batch; `asked` is whether
    /// there are any.
    pub(super) fn run_beside(
        &mut self,
        device: &mut dyn Device,
        network: &Network,
        said: &[Option<TeacherTokens>],
        asked: bool,
        step: StepCounts,
        to: Gradients<'_>,
    ) -> Parts {
        let (grads, noise) = (to.student, to.noise);
        let learnt = self.host.learnt;
        let labels = Ids::at(self.labels, 0, self.host.labels.len());
        device.write_ids(labels, &self.host.labels);
        let heard = self.other.as_ref().filter(|_| asked).map(Other::heard);
        let counts = TokenCounts {
            labelled: learnt,
            taught: heard.as_ref().map_or(learnt, |(_, count)| *count),
        };
        let read = self.reader.read(device, network, &self.host, noise);
        let Self { reader, sides, losses, inside, balance, .. } = self;
        if grads.is_some() {
            reader.room.clear_taps(device, self.host.ids.len());
        }
        let weighed = balance.as_mut().filter(|_| step.weighed);
        let mut weighing = weighed.and_then(|(by, room)| {
            Some(Weighing { room: (*room)?, labels: &self.host.labels, by })
        });
        let live = sides.iter().find_map(Side::reader);
        let inside = step.inside.zip(inside.as_ref()).zip(live);
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
                let taught = said.iter().any(Option::is_some);
                let all = counts.taught == n as u64;
                let of_teacher = (taught && !all).then(|| self.heard.first_rows(n));
                if let Some(view) = of_teacher {
                    let heard = heard.map_or_else(|| self.host.heard(), |(heard, _)| heard);
                    device.write(view, &heard);
                }
                let signals = TokenSignals {
                    states,
                    head,
                    labels,
                    teacher: said.first().copied().flatten(),
                    label_weights: None,
                    teacher_weights: of_teacher,
                    counts,
                    gradients: grads.map(|grads| TokenGradients {
                        d_states: model.d_states(buffers, n),
                        d_head: grads.of(head),
                    }),
                };
                let parts = match weighing.as_mut() {
                    None => chunked.evaluate_among(device, &signals, said, step.tokens),
                    weighing => chunked.evaluate_weighed(device, &signals, step.tokens, weighing),
                };
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
                let teacher = match said.first() {
                    Some(Some(TeacherTokens::Logits(logits))) => Some(*logits),
                    _ => None,
                };
                let d_logits = grads.map(|_| model.d_output(buffers, logits.rows()));
                if let Some(d_logits) = d_logits {
                    device.fill(d_logits, 0.0);
                }
                let signals = DenseSignals { logits, labels, teacher, d_logits };
                let parts = match weighing.as_mut() {
                    None => losses.evaluate_among(device, &signals, said, step.tokens),
                    weighing => losses.evaluate_weighed(device, &signals, step.tokens, weighing),
                };
                let parts = inside(device, reader, parts);
                if let Some(grads) = grads {
                    model.backward(device, &reader.batch, buffers, grads, noise);
                }
                parts
            }
            _ => unreachable!("a pass is made for its model"),
        }
    }

    /// What each teacher says to the batch in `host`: nothing where it is left out, or where only its
    /// inside is asked and there are no logits to compute. `vocabulary` is the student's.
    pub(super) fn ask(
        &mut self,
        device: &mut dyn Device,
        vocabulary: usize,
        teachers: &[Option<&Network>],
    ) -> Vec<Option<TeacherTokens>> {
        let Self { sides, other, host, judges, .. } = self;
        let n = host.ids.len();
        let mut said = vec![None; sides.len()];
        for (at, (side, teacher)) in sides.iter_mut().zip(teachers).enumerate() {
            let read = match (side, teacher) {
                (Side::Known(room), _) => {
                    said[at] = room.take(n).map(TeacherTokens::Known);
                    continue;
                }
                (_, None) => continue,
                (Side::States(states), Some(Network::Decoder(model))) => {
                    Read::States { states: states.first_rows(n), head: model.head() }
                }
                (Side::States(_), Some(Network::Encoder(_))) => {
                    unreachable!("hidden states are kept of decoders alone")
                }
                (Side::Model(reader), Some(teacher)) => {
                    let host = other.as_mut().map_or(&*host, |other| other.batch(host));
                    reader.read(device, teacher, host, None)
                }
            };
            if !judges.contains(&at) {
                continue;
            }
            said[at] = Some(match (read, &*other) {
                (Read::Logits(logits), _) => TeacherTokens::Logits(logits),
                // A vocabulary that is padded further than the student's counts up to there.
                (Read::States { states, head }, None) => {
                    TeacherTokens::States { states, head: head.first_rows(vocabulary) }
                }
                (Read::States { states, head }, Some(other)) => {
                    TeacherTokens::States { states: other.beside(device, states, n), head }
                }
            });
        }
        said
    }
}

/// Holds a term's room until the first step says what the terms are.
const PLACEHOLDER: TokenTerm =
    TokenTerm { weight: 0.0, loss: heirloom_objective::TokenLoss::Label };

/// The teacher's vocabulary for the losses, where it is another.
fn vocabulary(device: &mut dyn Device, teacher: &Beside<'_, Network>) -> Option<TeacherVocabulary> {
    let Beside::Model(network, tokens) = teacher else { return None };
    let size = network.vocabulary();
    match tokens {
        TokensOfTeacher::Same => None,
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

/// Memory of a pass over micro-batches up to `capacity`, without the weights of models.
pub(super) fn bytes_needed(
    config: &LanguageConfig,
    (teachers, inside): (&[Beside<'_, LanguageConfig>], Option<&InsideTerms>),
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
    let terms = most_terms(teachers.len());
    let losses = match config {
        LanguageConfig::Decoder(config) => {
            let computes = teachers.iter().any(Beside::has_logits);
            let plan = chunks(tokens, config.vocab_size, computes, train);
            match teachers.iter().find_map(vocabulary_of) {
                None => plan.bytes_needed(terms).0,
                Some(other) => plan.bytes_needed_between(terms, other).0,
            }
        }
        LanguageConfig::Encoder(_) => (4 * terms * capacity.masked) as u64,
    };
    let theirs = teachers.iter().map(|teacher| match teacher {
        Beside::Known(width) => KnownRoom::bytes(tokens, *width),
        Beside::States(teacher) => (4 * tokens * teacher.hidden_size()) as u64,
        Beside::Model(teacher, TokensOfTeacher::Own(own)) => {
            let width = teacher.hidden_size();
            of_one(teacher, *own, &Purpose::Infer) + (4 * tokens * width) as u64
        }
        Beside::Model(teacher, _) => of_one(teacher, capacity, &of_teacher(inside.is_some())),
    });
    let theirs: u64 = theirs.sum();
    let inside = inside.zip(teachers.iter().find_map(Beside::model)).map_or(0, |(inside, of)| {
        inside.bytes([config.hidden_size(), of.hidden_size()], capacity).0
    });
    Bytes(of_one(config, capacity, purpose) + theirs + losses + inside)
}

/// As [`vocabulary`], for planning alone.
fn vocabulary_of(teacher: &Beside<'_, LanguageConfig>) -> Option<TeacherVocabulary> {
    let Beside::Model(config, tokens) = teacher else { return None };
    let size = config.vocab_size();
    match tokens {
        TokensOfTeacher::Same => None,
        TokensOfTeacher::Own(_) => Some(TeacherVocabulary { size, shared: None }),
        TokensOfTeacher::Mapped(map) => {
            let nowhere = Reference::<f32>::new().alloc_ids(0);
            Some(TeacherVocabulary { size, shared: Some(Ids::at(nowhere, 0, map.len())) })
        }
    }
}
