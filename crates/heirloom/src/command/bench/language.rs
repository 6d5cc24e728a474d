//! A step of a language model: a decoder, the next token of each, and the teacher's answers to it.
//!
//! The teacher's answers are there, as if it had given them already; what it would cost to compute or
//! to read them is not part of the step.

use std::path::Path;

use heirloom::failure::Failure;
use heirloom_engine::{Device, IGNORED, Ids, Params, View};
use heirloom_models::{Capacity, Decoder, DecoderBuffers, DecoderConfig, DeviceBatch, Noise};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, LOGITS_BUDGET, TeacherTokens, TokenCounts, TokenGradients, TokenSignals,
};
use heirloom_store::{Array, Values};
use serde_json::{Map, Value, json};

use super::learning::Learning;
use super::{
    LONGEST, SEED, Shape, Steps, buffers_for, dump, taught, teacher_logits, upload, words,
};
use crate::args::BenchStepArgs;

pub(super) const VOCABULARY: u32 = 16_384;

/// What PyTorch's cross-entropy leaves out.
const LEFT_OUT: i64 = -100;

/// A student with its optimiser, its batch, and what it is held against.
pub(super) struct LanguageModel {
    model: Decoder,
    head: ChunkedHead,
    buffers: DecoderBuffers,
    batch: DeviceBatch,
    labels: Ids,
    teacher: Option<TeacherTokens>,
    counts: TokenCounts,
    /// Where gradient and moments are; `None` where only the forward pass is timed.
    learning: Option<Learning>,
}

impl LanguageModel {
    pub(super) fn new(
        device: &mut dyn Device,
        shape: Shape,
        args: &BenchStepArgs,
    ) -> Result<Self, Failure> {
        let (batch, seq) = (args.batch, args.seq);
        let tokens = batch * seq;
        let capacity = Capacity { tokens, sequences: batch, masked: 0 };
        let model = Decoder::new(device, config(shape, args.dropout)?);
        model.init(device, SEED);
        let ids = words(VOCABULARY, tokens);
        // Every row of a tied table has a gradient.
        let learning =
            (!args.infer).then(|| Learning::new(device, model.params(), None, Vec::new(), args));
        let buffers = DecoderBuffers::new(device, model.config(), capacity, 0, &buffers_for(args));
        let plan = ChunkPlan {
            tokens,
            vocabulary: VOCABULARY as usize,
            computes_teacher: false,
            train: !args.infer,
            budget: LOGITS_BUDGET,
        };
        let head = ChunkedHead::new(device, taught::terms(args.teacher), plan);
        let mut room = model.batch(device, capacity);
        upload(device, &mut room, &ids, batch, seq);
        let labels = Ids::at(device.alloc_ids(tokens), 0, tokens);
        device.write_ids(labels, &next(&ids, seq));
        let teacher = taught::answers(device, args, tokens, VOCABULARY as usize);
        let counts = TokenCounts { labelled: (batch * (seq - 1)) as u64, taught: tokens as u64 };
        Ok(Self { model, head, buffers, batch: room, labels, teacher, counts, learning })
    }

    fn loss(
        &self,
        device: &mut dyn Device,
        states: View,
        gradients: Option<TokenGradients>,
    ) -> f64 {
        let signals = TokenSignals {
            states,
            head: self.model.head(),
            labels: self.labels,
            teacher: self.teacher,
            label_weights: None,
            teacher_weights: None,
            counts: self.counts,
            gradients,
        };
        let parts = self.head.evaluate(device, &signals, self.counts);
        self.head.total(&parts)
    }
}

impl Steps for LanguageModel {
    fn parameters(&self) -> usize {
        self.model.params().count()
    }

    fn infer(&mut self, device: &mut dyn Device) -> f64 {
        let states = self.model.forward_states(device, &self.batch, &self.buffers, None);
        self.loss(device, states, None)
    }

    fn train(&mut self, device: &mut dyn Device, at: u64) -> f64 {
        let noise = Some(Noise { seed: SEED, step: at });
        let mut learning = self.learning.take().expect("a step that trains has its moments");
        let grads = learning.learned.grads;
        let states = self.model.forward_states(device, &self.batch, &self.buffers, noise);
        let gradients = TokenGradients {
            d_states: self.model.d_states(&self.buffers, states.rows()),
            d_head: Some(Params::twin(self.model.head(), grads)),
        };
        let loss = self.loss(device, states, Some(gradients));
        self.model.backward_states(device, &self.batch, &self.buffers, grads, noise);
        learning.step(device, at);
        self.learning = Some(learning);
        loss
    }

    fn dump(
        &self,
        device: &dyn Device,
        args: &BenchStepArgs,
        folder: &Path,
    ) -> Result<(), Failure> {
        let (batch, seq, width) = (args.batch, args.seq, VOCABULARY as usize);
        let ids = words(VOCABULARY, batch * seq);
        let label = |&label: &u32| if label == IGNORED { LEFT_OUT } else { i64::from(label) };
        let labels: Vec<i64> = next(&ids, seq).iter().map(label).collect();
        let (ids, logits) = (dump::wide(&ids), teacher_logits(batch * seq * width));
        let arrays = [
            Array { name: "ids", shape: &[batch, seq], values: Values::I64(&ids) },
            Array { name: "labels", shape: &[batch, seq], values: Values::I64(&labels) },
            Array {
                name: "teacher_logits",
                shape: &[batch, seq, width],
                values: Values::F32(&logits),
            },
        ];
        dump::write(folder, &self.model.config().to_json(), &self.model.tensors(device), &arrays)
    }
}

/// The token after each of sequences of `length`; the last of a sequence has none.
fn next(ids: &[u32], length: usize) -> Vec<u32> {
    let label = |at: usize| if (at + 1).is_multiple_of(length) { IGNORED } else { ids[at + 1] };
    (0..ids.len()).map(label).collect()
}

fn config(shape: Shape, dropout: f32) -> Result<DecoderConfig, Failure> {
    let keys = json!({
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_positions": LONGEST,
        "n_layer": shape.layers,
        "n_embd": shape.hidden,
        "n_head": shape.heads,
        "n_inner": shape.inner,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
        "resid_pdrop": dropout,
        "bos_token_id": 0,
        "eos_token_id": 0,
    });
    let keys: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
    Ok(DecoderConfig::from_map(Path::new(shape.name), keys)?)
}
