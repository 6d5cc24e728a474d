//! A distillation step of a small decoder: every token is held against the next one and against the
//! teacher's logits over the whole vocabulary, which are given.

use heirloom::failure::Failure;
use heirloom_engine::{Device, Divergence, IGNORED, Ids, Move, Params, View};
use heirloom_models::{
    Capacity, Decoder, DecoderBuffers, DecoderConfig, DeviceBatch, Inputs, Noise,
    Purpose as BuffersFor, Taps,
};
use heirloom_objective::{
    ChunkPlan, ChunkedHead, LOGITS_BUDGET, TeacherTerm, TeacherTokens, TokenCounts, TokenGradients,
    TokenLoss, TokenSignals, TokenTerm,
};
use heirloom_train::{Adam, Learned};
use serde_json::{Map, Value, json};

use super::{
    ALPHA, Drawn, LEARNING_RATE, LONGEST, SEED, Shape, TEMPERATURE, Timeable, WEIGHT_DECAY,
    WIDEST_LOGIT, random,
};
use crate::args::BenchStepArgs;

/// Tokens of its vocabulary.
pub(super) const VOCABULARY: u32 = 16_384;

/// The decoder with its optimiser, its batch, and what it is held against.
pub(super) struct Student {
    model: Decoder,
    buffers: DecoderBuffers,
    head: ChunkedHead,
    batch: DeviceBatch,
    labels: Ids,
    teacher: View,
    counts: TokenCounts,
    /// Where gradient and moments are; `None` where only the forward pass is timed.
    learned: Option<Learned>,
    /// To which length the gradient is clipped; 0 leaves it unmeasured.
    largest_norm: f64,
}

impl Student {
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
        let learned = (!args.infer).then(|| {
            let adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: WEIGHT_DECAY };
            Learned::new(device, model.params().clone(), adam, model.looked_up())
        });
        let purpose = match (args.infer, args.activation_checkpointing) {
            (true, _) => BuffersFor::Infer,
            (false, false) => BuffersFor::Train(Taps::default()),
            (false, true) => BuffersFor::Recompute(Taps::default()),
        };
        // The head's logits belong to its losses.
        let buffers = DecoderBuffers::new(device, model.config(), capacity, 0, &purpose);
        let plan = ChunkPlan {
            tokens,
            vocabulary: VOCABULARY as usize,
            computes_teacher: false,
            train: !args.infer,
            budget: LOGITS_BUDGET,
        };
        let head = ChunkedHead::new(device, terms(), plan);
        let mut room = model.batch(device, capacity);
        let labels = upload(device, &mut room, batch, seq);
        let teacher = View::matrix(
            device.alloc(tokens * VOCABULARY as usize),
            0,
            tokens,
            VOCABULARY as usize,
        );
        let mut logits = random(Drawn::Teacher, tokens * VOCABULARY as usize);
        for row in 0..tokens {
            let row_of: Vec<f32> = logits
                .by_ref()
                .take(VOCABULARY as usize)
                .map(|number| (WIDEST_LOGIT * (2.0 * number - 1.0)) as f32)
                .collect();
            device.write(teacher.row_range(row..row + 1), &row_of);
        }
        // The last token of a sequence has no next one, but the teacher has a guess.
        let counts = TokenCounts { labelled: (batch * (seq - 1)) as u64, taught: tokens as u64 };
        let largest_norm = args.max_grad_norm;
        Ok(Self {
            model,
            buffers,
            head,
            batch: room,
            labels,
            teacher,
            counts,
            learned,
            largest_norm,
        })
    }

    /// The losses, and their gradient into `gradients`.
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
            teacher: Some(TeacherTokens::Logits(self.teacher)),
            label_weights: None,
            teacher_weights: None,
            counts: self.counts,
            gradients,
        };
        let parts = self.head.evaluate(device, &signals, self.counts);
        self.head.total(&parts)
    }
}

impl Timeable for Student {
    fn parameters(&self) -> usize {
        self.model.params().count()
    }

    fn infer(&mut self, device: &mut dyn Device) -> f64 {
        let states = self.model.forward_states(device, &self.batch, &self.buffers, None);
        self.loss(device, states, None)
    }

    fn train(&mut self, device: &mut dyn Device, at: u64) -> f64 {
        let noise = Some(Noise { seed: SEED, step: at });
        let mut learned = self.learned.take().expect("a step that trains has its moments");
        let states = self.model.forward_states(device, &self.batch, &self.buffers, noise);
        let gradients = TokenGradients {
            d_states: self.model.d_states(&self.buffers, states.rows()),
            d_head: Some(Params::twin(self.model.head(), learned.grads)),
        };
        let loss = self.loss(device, states, Some(gradients));
        let (batch, buffers) = (&self.batch, &self.buffers);
        self.model.backward_states(device, batch, buffers, learned.grads, noise);
        let gradient_scale = if self.largest_norm > 0.0 {
            let norm = learned.squares(device).sqrt();
            (self.largest_norm / (norm + 1e-6)).min(1.0)
        } else {
            1.0
        };
        learned.step(device, Move { step: at + 1, learning_rate: LEARNING_RATE, gradient_scale });
        self.learned = Some(learned);
        loss
    }
}

fn terms() -> Vec<TokenTerm> {
    let teacher = TeacherTerm {
        divergence: Divergence::ForwardKl,
        temperature: TEMPERATURE,
        scale_by_temperature_squared: true,
    };
    vec![
        TokenTerm { weight: 1.0 - ALPHA, loss: TokenLoss::Label },
        TokenTerm { weight: ALPHA, loss: TokenLoss::Teacher(teacher) },
    ]
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
    });
    let keys: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
    let config = DecoderConfig::from_map(std::path::Path::new(shape.name), keys)?;
    Ok(DecoderConfig {
        embedding_dropout: dropout,
        hidden_dropout: dropout,
        attention_dropout: dropout,
        ..config
    })
}

/// Copies the batch in; the labels are the next tokens.
fn upload(device: &mut dyn Device, room: &mut DeviceBatch, batch: usize, seq: usize) -> Ids {
    let tokens = batch * seq;
    let id = |number| (f64::from(VOCABULARY) * number) as u32;
    let ids: Vec<u32> = random(Drawn::Ids, tokens).map(id).collect();
    let positions: Vec<u32> = (0..tokens).map(|at| (at % seq) as u32).collect();
    let rows: Vec<u32> = (0..tokens).map(|at| (((at / seq) << 16) | (at % seq)) as u32).collect();
    let starts: Vec<u32> = (0..=batch).map(|at| (at * seq) as u32).collect();
    let types = vec![0; tokens];
    room.upload(
        device,
        &Inputs {
            ids: &ids,
            types: &types,
            positions: &positions,
            rows: &rows,
            starts: &starts,
            masked: &[],
        },
    );
    let label = |at: usize| if (at + 1).is_multiple_of(seq) { IGNORED } else { ids[at + 1] };
    let labels = Ids::at(device.alloc_ids(tokens), 0, tokens);
    device.write_ids(labels, &(0..tokens).map(label).collect::<Vec<_>>());
    labels
}
