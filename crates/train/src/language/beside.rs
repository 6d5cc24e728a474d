//! Teachers beside the student: where each one's answers to a micro-batch come from, and the room they
//! take.
//!
//! In: models that answer, answers that were kept. Out: a side for each teacher. Never: what a teacher
//! is worth, or a loss.

use heirloom_answers::KnownRows;
use heirloom_engine::{Device, IdSpace, Ids, View};
use heirloom_models::Purpose;
use heirloom_objective::KnownTokens;

use super::capacity::LanguageCapacity;
use super::network::{Network, Reader};
use super::other_tokens::TokensOfTeacher;

/// A teacher beside the student; `M` is its network, or for planning its config.
#[derive(Debug)]
pub(super) enum Beside<'a, M> {
    /// It answers with every batch; how its tokens are the student's.
    Model(&'a M, TokensOfTeacher<'a>),
    /// Its hidden states are kept, so that it reads nothing; of the model the head is there.
    States(&'a M),
    /// Its answers are kept and name up to so many tokens, K.
    Known(usize),
}

impl<'a, M> Beside<'a, M> {
    /// Whether its logits are computed beside the student's.
    pub(super) fn has_logits(&self) -> bool {
        self.model().is_some()
    }

    /// The model of which something is in memory.
    pub(super) fn model(&self) -> Option<&'a M> {
        match self {
            Self::Model(model, _) | Self::States(model) => Some(model),
            Self::Known(_) => None,
        }
    }
}

/// The room for one teacher's answers to a micro-batch.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of them for each teacher")]
pub(super) enum Side {
    /// A model that reads.
    Model(Reader),
    /// Kept hidden states, `[N, Cₜ]`.
    States(View),
    /// Kept answers that name tokens.
    Known(KnownRoom),
}

impl Side {
    pub(super) fn new(
        device: &mut dyn Device,
        teacher: &Beside<'_, Network>,
        capacity: LanguageCapacity,
        looked_into: bool,
    ) -> Self {
        let tokens = capacity.tokens;
        match *teacher {
            Beside::Known(width) => Self::Known(KnownRoom::new(device, tokens, width)),
            Beside::States(network) => {
                let width = network.width();
                Self::States(View::matrix(device.alloc(tokens * width), 0, tokens, width))
            }
            Beside::Model(network, of) => {
                let capacity = match of {
                    TokensOfTeacher::Own(capacity) => capacity,
                    _ => capacity,
                };
                Self::Model(Reader::new(device, network, capacity, &of_teacher(looked_into)))
            }
        }
    }

    /// Its reader, where it is a model that reads.
    pub(super) fn reader(&self) -> Option<&Reader> {
        match self {
            Self::Model(reader) => Some(reader),
            Self::States(_) | Self::Known(_) => None,
        }
    }
}

/// What is kept of a teacher's forward pass.
pub(super) fn of_teacher(looked_into: bool) -> Purpose {
    if looked_into { Purpose::Inspect } else { Purpose::Infer }
}

/// Room for kept answers to a micro-batch.
#[derive(Debug)]
pub(super) struct KnownRoom {
    ids: IdSpace,
    probabilities: View,
    rest: View,
    /// Whether they are those to the batch that is run next.
    fresh: bool,
}

impl KnownRoom {
    pub(super) fn new(device: &mut dyn Device, tokens: usize, width: usize) -> Self {
        let mut matrix = |cols| View::matrix(device.alloc(tokens * cols), 0, tokens, cols);
        let (probabilities, rest) = (matrix(width), matrix(1));
        Self { ids: device.alloc_ids(tokens * width), probabilities, rest, fresh: false }
    }

    /// Bytes of it.
    pub(super) fn bytes(tokens: usize, width: usize) -> u64 {
        (4 * tokens * (2 * width + 1)) as u64
    }

    /// Takes in the answers to the tokens of the batch that is run next.
    pub(super) fn put(
        &mut self,
        device: &mut dyn Device,
        known: &KnownRows,
        places: std::ops::Range<usize>,
    ) {
        let (n, width) = (places.len(), self.probabilities.cols());
        let numbers = places.start * width..places.end * width;
        device.write_ids(Ids::at(self.ids, 0, n * width), &known.ids[numbers.clone()]);
        device.write(self.probabilities.first_rows(n), &known.probabilities[numbers]);
        device.write(self.rest.first_rows(n), &known.rest[places]);
        self.fresh = true;
    }

    /// The answers to the `tokens` of this batch; only once.
    pub(super) fn take(&mut self, tokens: usize) -> Option<KnownTokens> {
        std::mem::take(&mut self.fresh).then(|| KnownTokens {
            ids: Ids::at(self.ids, 0, tokens * self.probabilities.cols()),
            probabilities: self.probabilities.first_rows(tokens),
            rest: self.rest.first_rows(tokens),
        })
    }
}
