//! What is inside two models of one kind that have read the same tokens.
//!
//! In: the activations of encoders or of decoders. Out: the hidden states that terms compare, and the
//! taps that their gradients go to. Never: a computation.

use heirloom_engine::View;
use heirloom_models::{Buffers, DecoderBuffers, DeviceBatch};

use crate::Signals;

/// The activations of one model.
#[derive(Clone, Copy, Debug)]
pub enum Inside<'a> {
    /// Of an encoder.
    Encoder(&'a Buffers),
    /// Of a decoder.
    Decoder(&'a DecoderBuffers),
}

impl Inside<'_> {
    /// Hidden state `at`, `[N, C]` at capacity: 0 after the embeddings, i after block i; a decoder's
    /// is what stands before its last norm.
    pub(crate) fn hidden(self, at: usize) -> View {
        match self {
            Self::Encoder(buffers) => buffers.hidden(at),
            Self::Decoder(buffers) => buffers.hidden(at),
        }
    }

    /// Queries, keys and values of block `at` (from 1), side by side, at capacity.
    pub(crate) fn qkv(self, at: usize) -> View {
        match self {
            Self::Encoder(buffers) => buffers.qkv(at),
            Self::Decoder(buffers) => buffers.qkv(at),
        }
    }

    /// Where the gradient of hidden state `at` goes, where it is tapped.
    pub(crate) fn d_hidden_tap(self, at: usize) -> Option<View> {
        match self {
            Self::Encoder(buffers) => buffers.d_hidden_tap(at),
            Self::Decoder(buffers) => buffers.d_hidden_tap(at),
        }
    }

    /// Where that of block `at`'s queries, keys and values goes, likewise.
    pub(crate) fn d_qkv_tap(self, at: usize) -> Option<View> {
        match self {
            Self::Encoder(buffers) => buffers.d_qkv_tap(at),
            Self::Decoder(buffers) => buffers.d_qkv_tap(at),
        }
    }
}

/// Student and teacher after one batch.
#[derive(Clone, Copy, Debug)]
pub struct Insides<'a> {
    /// The student's activations, and where their gradients go.
    pub student: Inside<'a>,
    /// The teacher's, of a forward pass that keeps all hidden states.
    pub teacher: Inside<'a>,
    /// The packed batch that both have read.
    pub batch: &'a DeviceBatch,
}

impl<'a> Insides<'a> {
    /// Those of a classifier's signals.
    pub(crate) fn of(signals: &Signals<'a>) -> Self {
        let teacher = signals.teacher.and_then(|teacher| teacher.inside);
        let teacher =
            teacher.expect("the plan runs the teacher live where its inside is asked for");
        Self {
            student: Inside::Encoder(signals.inside),
            teacher: Inside::Encoder(teacher),
            batch: signals.batch,
        }
    }
}
